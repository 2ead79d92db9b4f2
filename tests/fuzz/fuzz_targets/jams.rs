#![no_main]

#[path = "../targets/jams.rs"]
mod target;

libfuzzer_sys::fuzz_target!(|data: &[u8]| target::jams(data));
