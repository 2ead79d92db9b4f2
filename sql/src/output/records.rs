//! A row per block, a column per line; for rows that are too wide for a table:
//!
//! ```text
//! ─ 1 ──────────────────
//! subspace  invariant
//! value     0.4167
//! (1 row)
//! ```

use std::io::Write;

use arrow::array::RecordBatch;
use arrow::datatypes::Schema;
use unicode_width::UnicodeWidthStr;

use super::{arrow_error, cell, table};
use crate::error::SqlError;

/// Width of the line between records.
const RULE: usize = 24;

/// Writes `batches`, which are the first of `rows` rows.
pub(super) fn write(
    schema: &Schema,
    batches: &[RecordBatch],
    rows: u64,
    out: &mut dyn Write,
) -> Result<(), SqlError> {
    if schema.fields().is_empty() {
        return Ok(writeln!(out, "done")?);
    }
    let names: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
    let width = names.iter().map(|name| name.width()).max().unwrap_or(0);
    let mut columns = Vec::with_capacity(names.len());
    for index in 0..names.len() {
        let arrays: Vec<_> = batches.iter().map(|batch| batch.column(index)).collect();
        columns.push(cell::column(&arrays).map_err(arrow_error)?);
    }
    let shown: usize = batches.iter().map(RecordBatch::num_rows).sum();
    for row in 0..shown {
        let number = format!("─ {} ", row + 1);
        writeln!(out, "{number}{}", "─".repeat(RULE.saturating_sub(number.width())))?;
        for (name, cells) in names.iter().zip(&columns) {
            let padding = " ".repeat(width - name.width());
            let text = cells.get(row).map_or("", String::as_str);
            let indented = text.replace('\n', &format!("\n{}", " ".repeat(width + 2)));
            writeln!(out, "{}{padding}  {indented}", name.replace(char::is_control, " "))?;
        }
    }
    Ok(writeln!(out, "({})", table::row_note(shown, rows))?)
}
