#![no_main]

#[path = "../hook.rs"]
mod hook;
#[path = "../targets/decode.rs"]
mod target;

libfuzzer_sys::fuzz_target!(init: hook::install(), |data: &[u8]| target::decode(data));
