//! The record of a run, `run.json`.

use loev_pipeline::run::dir::Manifest;

/// Reads a record, writes it, and reads what was written.
///
/// # Panics
///
/// When what was written cannot be read, or is not stable.
pub fn manifest(data: &[u8]) {
    let Ok(first) = serde_json::from_slice::<Manifest>(data) else { return };
    let text = serde_json::to_string(&first).expect("a record that was read");
    let second: Manifest = serde_json::from_str(&text).expect("a record that was written");
    assert_eq!(serde_json::to_string(&second).expect("a record that was read"), text);
}
