//! What the fuzzers run, for ordinary tests: each target takes any bytes, and panics at a fault.

pub mod checkpoint;
pub mod decode;
pub mod jams;
pub mod manifest;
pub mod receipts;
pub mod yaml;
