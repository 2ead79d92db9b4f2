#![no_main]

#[path = "../targets/yaml.rs"]
mod target;

libfuzzer_sys::fuzz_target!(|data: &[u8]| target::yaml(data));
