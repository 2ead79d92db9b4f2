//! What the tests share: a session with one small table, and short ways to ask it.
//!
//! `music` has the columns `name` text, `n` bigint, `BPM` double and `vector` float[3]:
//!
//! ```text
//! drift   1  60.0  [1, 2, 2]
//! anthem  2  90.5  [0, 3, 4]
//! 静か    3  NULL  NULL
//! ```

use std::fs;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, AsArray, FixedSizeListArray, Float64Array, Int64Array, RecordBatch, StringArray,
};
use arrow::datatypes::{Float32Type, Float64Type};
use datafusion::execution::context::SessionContext;
use parquet::arrow::ArrowWriter;

use crate::{new_session, query};

/// Runs a future on a runtime of its own.
pub(crate) fn block_on<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(future)
}

/// A session with the table `music`.
pub(crate) fn session() -> SessionContext {
    let vectors = [Some([1.0, 2.0, 2.0]), Some([0.0, 3.0, 4.0]), None].map(|v| v.map(|v| v.map(Some)));
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("name", Arc::new(StringArray::from(vec!["drift", "anthem", "静か"]))),
        ("n", Arc::new(Int64Array::from(vec![1, 2, 3]))),
        ("BPM", Arc::new(Float64Array::from(vec![Some(60.0), Some(90.5), None]))),
        ("vector", Arc::new(FixedSizeListArray::from_iter_primitive::<Float32Type, _, _>(vectors, 3))),
    ];
    let context = new_session(1, None).unwrap();
    let batch =
        RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(n, c)| (n, c, true))).unwrap();
    context.register_batch("music", batch).unwrap();
    context
}

/// The first column of a result, as numbers.
pub(crate) fn values(sql: &str) -> Vec<Option<f64>> {
    let rows = block_on(query(&session(), sql)).unwrap_or_else(|error| panic!("{error}"));
    rows.iter().flat_map(|batch| batch.column(0).as_primitive::<Float64Type>().iter()).collect()
}

/// The first column of a result, as text; NULL is `NULL`.
pub(crate) fn cells(sql: &str) -> Vec<String> {
    let rows = block_on(query(&session(), sql)).unwrap_or_else(|error| panic!("{error}"));
    let texts = rows.iter().flat_map(|batch| batch.column(0).as_string::<i32>().iter());
    texts.map(|text| text.unwrap_or("NULL").to_owned()).collect()
}

/// Writes a batch as a Parquet file, making the directory if need be.
pub(crate) fn write_parquet(dir: &Path, name: &str, batch: &RecordBatch) {
    fs::create_dir_all(dir).unwrap();
    let file = fs::File::create(dir.join(name)).unwrap();
    let mut writer = ArrowWriter::try_new(file, batch.schema(), None).unwrap();
    writer.write(batch).unwrap();
    writer.close().unwrap();
}
