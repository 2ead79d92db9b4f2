//! Pipeline files.

use loev_pipeline::spec;

/// Reads a pipeline, and shows what is wrong with it.
///
/// # Panics
///
/// When nothing is said to be wrong with a pipeline that is refused.
pub fn yaml(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Err(error) = spec::parse(text, "input.yaml", &[]) {
        assert!(!error.to_string().is_empty(), "{error:?}");
    }
}
