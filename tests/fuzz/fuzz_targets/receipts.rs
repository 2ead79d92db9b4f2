#![no_main]

#[path = "../targets/receipts.rs"]
mod target;

libfuzzer_sys::fuzz_target!(|data: &[u8]| target::receipts(data));
