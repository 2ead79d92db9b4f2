//! The receipts of a stage, `receipts/*.jsonl`.

use loev_pipeline::resume::journal::{Entry, parse};
use loev_pipeline::resume::ledger::Stored;

/// Reads receipts as a run does that goes on.
///
/// # Panics
///
/// When more is read than there is, or the whole lines are not read again as they were.
pub fn receipts(data: &[u8]) {
    let (entries, whole) = parse(data);
    assert!(whole <= data.len());
    let (again, all) = parse(&data[..whole]);
    assert!(again == entries && all == whole, "the whole lines are read as they were");
    // Without a line's digest nobody's line would pass: what stands behind it is read too.
    for line in data.split(|byte| *byte == b'\n') {
        let _: Result<Entry, _> = serde_json::from_slice(line.get(17..).unwrap_or(line));
    }
    Stored::new(entries);
}
