//! CSV and JSON lines, by Arrow's writers.
//!
//! CSV has no nested values, so lists and structs become JSON text.

use std::io::Write;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, RecordBatch, StringBuilder};
use arrow::csv::WriterBuilder as CsvBuilder;
use arrow::datatypes::{DataType, Field, Schema};
use arrow::json::EncoderOptions;
use arrow::json::writer::{LineDelimited, WriterBuilder as JsonBuilder, make_encoder};

use super::arrow_error;
use crate::error::SqlError;

/// Writes a batch as CSV.
pub(super) fn csv(batch: &RecordBatch, header: bool, out: &mut dyn Write) -> Result<(), SqlError> {
    let schema = batch.schema();
    let mut fields = Vec::with_capacity(batch.num_columns());
    let mut columns = Vec::with_capacity(batch.num_columns());
    for (field, column) in schema.fields().iter().zip(batch.columns()) {
        if field.data_type().is_nested() {
            fields.push(Field::new(field.name(), DataType::Utf8, true));
            columns.push(json_text(field, column)?);
        } else {
            fields.push(Field::clone(field));
            columns.push(Arc::clone(column));
        }
    }
    let flat = RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).map_err(arrow_error)?;
    let mut writer = CsvBuilder::new().with_header(header).build(out);
    writer.write(&flat).map_err(arrow_error)
}

/// Writes a batch, whose columns have different names, as JSON lines.
pub(super) fn json(batch: &RecordBatch, out: &mut dyn Write) -> Result<(), SqlError> {
    let mut writer = JsonBuilder::new().with_explicit_nulls(true).build::<_, LineDelimited>(out);
    writer.write(batch).map_err(arrow_error)?;
    writer.finish().map_err(arrow_error)
}

/// A nested column as JSON text.
fn json_text(field: &Arc<Field>, column: &ArrayRef) -> Result<ArrayRef, SqlError> {
    let options = EncoderOptions::default().with_explicit_nulls(true);
    let mut encoder = make_encoder(field, column.as_ref(), &options).map_err(arrow_error)?;
    let mut texts = StringBuilder::new();
    let mut bytes = Vec::new();
    for row in 0..column.len() {
        if encoder.is_null(row) {
            texts.append_null();
            continue;
        }
        bytes.clear();
        encoder.encode(row, &mut bytes);
        texts.append_value(String::from_utf8_lossy(&bytes));
    }
    Ok(Arc::new(texts.finish()))
}
