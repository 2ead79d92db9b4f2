#![no_main]

#[path = "../targets/checkpoint.rs"]
mod target;

libfuzzer_sys::fuzz_target!(|data: &[u8]| target::checkpoint(data));
