//! The end of a plan: one Parquet file per partition, written so that its bytes depend on its rows
//! alone, and one row per file that says what was written.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, StringArray, UInt64Array};
use arrow::compute::BatchCoalescer;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::error::Result as DfResult;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use futures::{StreamExt, stream};
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;

use super::PartitionOp;
use crate::error::RunError;

/// Rows are handed to the encoder in chunks of about this size, whatever the sizes that arrived.
const CHUNK_BYTES: usize = 4 << 20;
/// ... and of at most this many rows.
const CHUNK_ROWS: usize = 8192;
/// A row group ends after this many chunks.
const CHUNKS_PER_GROUP: usize = 16;

/// Writes one table file. Nothing appears under the final name before [`Self::finish`].
pub struct TableWriter {
    path: PathBuf,
    temporary: PathBuf,
    coalescer: BatchCoalescer,
    writer: ArrowWriter<File>,
    rows: u64,
}

/// What a finished file holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// Its name, without the folder.
    pub file: String,
    /// Rows.
    pub rows: u64,
    /// Size, in bytes.
    pub bytes: u64,
    /// BLAKE3 of the file's bytes, in hex.
    pub digest: String,
}

impl TableWriter {
    /// Starts `path`; its folder must exist.
    ///
    /// # Errors
    /// When the file cannot be made or the schema has no Parquet form.
    pub fn create(path: &Path, schema: &SchemaRef) -> Result<Self, RunError> {
        let temporary = path.with_extension("parquet.tmp");
        let file = File::create(&temporary).map_err(RunError::io("cannot create", &temporary))?;
        let rows = chunk_rows(schema);
        let properties = WriterProperties::builder()
            .set_created_by("loev".to_owned())
            .set_compression(Compression::ZSTD(ZstdLevel::try_new(1)?))
            .set_max_row_group_row_count(Some(rows * CHUNKS_PER_GROUP))
            .build();
        let writer = ArrowWriter::try_new(file, Arc::clone(schema), Some(properties))?;
        let coalescer = BatchCoalescer::new(Arc::clone(schema), rows);
        Ok(Self { path: path.to_owned(), temporary, coalescer, writer, rows: 0 })
    }

    /// Appends rows.
    ///
    /// # Errors
    /// When the rows do not fit the schema or the disk is full.
    pub fn write(&mut self, batch: RecordBatch) -> Result<(), RunError> {
        self.rows += batch.num_rows() as u64;
        // The coalescer compares schemas with metadata; SQL plans may drop it on the way.
        let batch = RecordBatch::try_new(self.coalescer.schema(), batch.columns().to_vec())?;
        self.coalescer.push_batch(batch)?;
        self.drain()
    }

    fn drain(&mut self) -> Result<(), RunError> {
        while let Some(chunk) = self.coalescer.next_completed_batch() {
            self.writer.write(&chunk)?;
        }
        Ok(())
    }

    /// Ends the file, makes it durable, and gives it its name.
    ///
    /// # Errors
    /// When the disk is full or the file cannot be renamed.
    pub fn finish(mut self) -> Result<Written, RunError> {
        self.coalescer.finish_buffered_batch()?;
        self.drain()?;
        self.writer.finish()?;
        let file = self.writer.inner();
        file.sync_all().map_err(RunError::io("cannot write", &self.temporary))?;
        fs::rename(&self.temporary, &self.path).map_err(RunError::io("cannot write", &self.path))?;
        let mut hasher = blake3::Hasher::new();
        let mut file = File::open(&self.path).map_err(RunError::io("cannot read", &self.path))?;
        let bytes = std::io::copy(&mut file, &mut hasher).map_err(RunError::io("cannot read", &self.path))?;
        let name = self.path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        Ok(Written { file: name, rows: self.rows, bytes, digest: hasher.finalize().to_hex().to_string() })
    }
}

/// The writer's own row rule: a function of the schema, never of what arrives.
fn chunk_rows(schema: &Schema) -> usize {
    let row_bytes: usize = schema.fields().iter().map(|f| wide_bytes(f.data_type())).sum();
    (CHUNK_BYTES / row_bytes.max(1)).clamp(1, CHUNK_ROWS)
}

/// Bytes a row of fixed-size lists takes; other types count as narrow.
fn wide_bytes(data_type: &DataType) -> usize {
    match data_type {
        DataType::FixedSizeList(item, n) => {
            usize::try_from(*n).unwrap_or(0) * item.data_type().primitive_width().unwrap_or(8)
        }
        _ => 8,
    }
}

/// Writes each partition to a file of its own; yields one row per file (see [`receipt_schema`]).
#[derive(Debug)]
pub struct WriteOp {
    dir: PathBuf,
    /// The name of each partition's file.
    files: Vec<String>,
    input: SchemaRef,
}

impl WriteOp {
    /// Partition `i` goes to `dir/files[i]`, with the schema `input`.
    pub fn new(dir: PathBuf, files: Vec<String>, input: SchemaRef) -> Self {
        Self { dir, files, input }
    }
}

/// The rows that [`WriteOp`] yields: `file`, `rows`, `bytes`, `digest`.
pub fn receipt_schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("file", DataType::Utf8, false),
        Field::new("rows", DataType::UInt64, false),
        Field::new("bytes", DataType::UInt64, false),
        Field::new("digest", DataType::Utf8, false),
    ]))
}

impl Written {
    /// The row of [`receipt_schema`] for this file.
    ///
    /// # Errors
    /// Never in practice: the columns are of one row each.
    pub fn receipt(&self) -> Result<RecordBatch, RunError> {
        let columns: Vec<ArrayRef> = vec![
            Arc::new(StringArray::from(vec![self.file.as_str()])),
            Arc::new(UInt64Array::from(vec![self.rows])),
            Arc::new(UInt64Array::from(vec![self.bytes])),
            Arc::new(StringArray::from(vec![self.digest.as_str()])),
        ];
        Ok(RecordBatch::try_new(receipt_schema(), columns)?)
    }
}

impl PartitionOp for WriteOp {
    fn name(&self) -> &'static str {
        "WriteExec"
    }

    fn details(&self) -> String {
        format!("dir={}, files={}", self.dir.display(), self.files.len())
    }

    fn schema(&self) -> SchemaRef {
        receipt_schema()
    }

    fn start(
        self: Arc<Self>,
        partition: usize,
        mut input: SendableRecordBatchStream,
        _: Arc<TaskContext>,
    ) -> DfResult<SendableRecordBatchStream> {
        let work = async move {
            let file = self
                .files
                .get(partition)
                .ok_or_else(|| RunError::Engine(format!("no file is named for partition {partition}")))?;
            let mut writer = TableWriter::create(&self.dir.join(file), &self.input)?;
            while let Some(batch) = input.next().await {
                writer.write(batch?)?;
            }
            Ok(writer.finish()?.receipt()?)
        };
        Ok(Box::pin(RecordBatchStreamAdapter::new(receipt_schema(), stream::once(work))))
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::Int32Array;

    use super::*;

    fn write(dir: &Path, name: &str, sizes: &[usize]) -> Written {
        let schema = Arc::new(Schema::new(vec![Field::new("n", DataType::Int32, false)]));
        let mut writer = TableWriter::create(&dir.join(name), &schema).unwrap();
        let mut next = 0;
        for &size in sizes {
            let column = Int32Array::from_iter_values(next..next + size as i32);
            next += size as i32;
            writer.write(RecordBatch::try_new(Arc::clone(&schema), vec![Arc::new(column)]).unwrap()).unwrap();
        }
        assert!(!dir.join(name).exists(), "no file before it is finished");
        writer.finish().unwrap()
    }

    #[test]
    fn bytes_do_not_depend_on_the_batches_that_arrive() {
        let dir = tempfile::tempdir().unwrap();
        let one = write(dir.path(), "a.parquet", &[20_000]);
        let many = write(dir.path(), "b.parquet", &[1, 4_999, 7_000, 8_000]);
        assert_eq!((one.rows, &one.digest), (20_000, &many.digest));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2, "no temporary file is left");
    }

    #[test]
    fn wide_rows_make_small_chunks() {
        let item = Arc::new(Field::new_list_field(DataType::Float32, false));
        let wide = Schema::new(vec![Field::new("audio", DataType::FixedSizeList(item, 48_000), false)]);
        assert_eq!(chunk_rows(&wide), 21);
        assert_eq!(chunk_rows(&Schema::empty()), CHUNK_ROWS);
    }
}
