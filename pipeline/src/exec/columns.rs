//! Columns by name, with the types that a stage needs.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Float64Array, PrimitiveArray, RecordBatch, StringArray};
use arrow::compute::cast;
use arrow::datatypes::{ArrowPrimitiveType, DataType, Schema};

use crate::error::RunError;

/// The column every clip table has: the clip's name, unique in the run.
pub const CLIP_ID: &str = "clip_id";
/// Where the clip's audio comes from.
pub const URI: &str = "uri";
/// The clip's duration, in seconds.
pub const SECONDS: &str = "seconds";
/// The shard a clip belongs to: fixed when the clip entered the run.
pub const SHARD: &str = "shard";

/// A column of `batch`, cast to `data_type`.
///
/// # Errors
/// When there is no such column, or it cannot be cast without loss of meaning.
pub fn column(batch: &RecordBatch, name: &str, data_type: &DataType) -> Result<ArrayRef, RunError> {
    let column = batch.column_by_name(name).ok_or_else(|| missing(batch.schema_ref(), name))?;
    match column.data_type() == data_type {
        true => Ok(Arc::clone(column)),
        false => cast(column, data_type).map_err(|_| {
            RunError::Engine(format!(
                "column `{name}` is {}, where {data_type} is needed",
                column.data_type()
            ))
        }),
    }
}

fn missing(schema: &Schema, name: &str) -> RunError {
    let names: Vec<&str> = schema.fields().iter().map(|f| f.name().as_str()).collect();
    RunError::Engine(format!("there is no column `{name}`; the columns are {}", names.join(", ")))
}

/// A text column.
///
/// # Errors
/// See [`column()`].
pub fn text(batch: &RecordBatch, name: &str) -> Result<StringArray, RunError> {
    Ok(column(batch, name, &DataType::Utf8)?.as_string::<i32>().clone())
}

/// A number column.
///
/// # Errors
/// See [`column()`].
pub fn number(batch: &RecordBatch, name: &str) -> Result<Float64Array, RunError> {
    primitive(batch, name)
}

/// A column of a primitive type.
///
/// # Errors
/// See [`column()`].
pub fn primitive<T: ArrowPrimitiveType>(
    batch: &RecordBatch,
    name: &str,
) -> Result<PrimitiveArray<T>, RunError> {
    Ok(column(batch, name, &T::DATA_TYPE)?.as_primitive::<T>().clone())
}

/// A text value that must be there.
///
/// # Errors
/// When it is NULL.
pub fn required<'a>(array: &'a StringArray, name: &str, row: usize) -> Result<&'a str, RunError> {
    match array.is_valid(row) {
        true => Ok(array.value(row)),
        false => Err(RunError::Engine(format!("column `{name}` has a NULL"))),
    }
}
