//! Labels in JSON.

use loev_ops::jams::{Jams, columns};

/// Reads labels, writes them, and reads what was written.
///
/// # Panics
///
/// When what was written cannot be read, or is not stable.
pub fn jams(data: &[u8]) {
    let Ok(first) = Jams::parse(data, "input") else { return };
    columns(std::slice::from_ref(&first)).expect("columns of labels that were read");
    let text = first.to_json();
    let second = Jams::parse(text.as_bytes(), "output").expect("labels that were written");
    assert_eq!(second.to_json(), text);
}
