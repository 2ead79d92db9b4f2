//! The table of a Markdown document.

use std::io::Write;

use arrow::array::RecordBatch;
use arrow::datatypes::Schema;

use super::{arrow_error, cell};
use crate::error::SqlError;

/// Writes a header, alignments and a line per row.
pub(super) fn write(schema: &Schema, batches: &[RecordBatch], out: &mut dyn Write) -> Result<(), SqlError> {
    if schema.fields().is_empty() {
        return Ok(());
    }
    let mut columns = Vec::with_capacity(schema.fields().len());
    for (index, _) in schema.fields().iter().enumerate() {
        let arrays: Vec<_> = batches.iter().map(|batch| batch.column(index)).collect();
        columns.push(cell::column(&arrays).map_err(arrow_error)?);
    }
    line(out, schema.fields().iter().map(|field| escaped(field.name())))?;
    let number = |of: &arrow::datatypes::FieldRef| cell::is_number(of.data_type());
    line(out, schema.fields().iter().map(|field| if number(field) { "---:" } else { "---" }.to_owned()))?;
    let rows: usize = batches.iter().map(RecordBatch::num_rows).sum();
    for row in 0..rows {
        line(out, columns.iter().map(|cells| cells.get(row).map(|cell| escaped(cell)).unwrap_or_default()))?;
    }
    Ok(())
}

fn line(out: &mut dyn Write, cells: impl Iterator<Item = String>) -> Result<(), SqlError> {
    Ok(writeln!(out, "| {} |", cells.collect::<Vec<_>>().join(" | "))?)
}

/// A cell's text: a bar would end the cell, a line break the row, and `<` begin a tag.
fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('|', "\\|").replace('<', "\\<").replace('\n', "<br>")
}
