//! Models on disk.

use std::io::Write as _;

use loev_models::{Device, checkpoint};

/// Loads a checkpoint.
///
/// # Panics
///
/// When the input cannot be written to a file.
pub fn checkpoint(data: &[u8]) {
    let mut file = tempfile::NamedTempFile::new().expect("a file for the input");
    file.write_all(data).expect("a file for the input");
    let _ = checkpoint::load(file.path(), &Device::Cpu);
}
