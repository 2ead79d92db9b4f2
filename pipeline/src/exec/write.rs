//! The end of a plan: one Parquet file per partition, written so that its bytes depend on its rows
//! alone, and a receipt for each that says what was written.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, StringArray, UInt64Array};
use arrow::compute::BatchCoalescer;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::error::Result as DfResult;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use futures::{StreamExt, stream};
use indexmap::IndexMap;
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::metadata::ParquetMetaData;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::schema::types::ColumnPath;

use super::PartitionOp;
use super::columns::CLIP_ID;
use crate::error::RunError;
use crate::resume::fault;
use crate::resume::journal::{Entry, Journal, Receipt, sync_folder};
use crate::resume::work::Shard;
use crate::run::rejects::Reject;
use crate::run::stage::StageHandle;

/// Rows are handed to the encoder in chunks of about this size, whatever the sizes that arrived.
const CHUNK_BYTES: usize = 1 << 20;
/// ... and of at most this many rows.
const CHUNK_ROWS: usize = 1024;
/// Bytes of a row group, which waits in memory until it ends; lists of beats and chords count as much as samples.
const GROUP_BYTES: usize = 4 << 20;
/// Bytes read at a time for digests.
const READ_BYTES: usize = 1 << 20;

/// Writes one table file. Nothing appears under the final name before [`Self::finish`].
pub struct TableWriter {
    path: PathBuf,
    temporary: PathBuf,
    coalescer: BatchCoalescer,
    writer: ArrowWriter<File>,
    /// Bytes in the row group under way.
    group: usize,
    rows: u64,
    started: Instant,
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
    /// A digest of what each column holds, by its name.
    pub columns: IndexMap<String, String>,
    /// How long it took from the first row on.
    pub took: Duration,
}

impl Written {
    /// The receipt for this file of a table.
    pub fn receipt(self, table: &str, recipe: &str, rejects: Vec<Reject>) -> Receipt {
        let Self { file, rows, bytes, digest, columns, took } = self;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Receipt {
            table: table.to_owned(),
            file,
            rows,
            bytes,
            digest,
            columns,
            recipe: recipe.to_owned(),
            seconds: took.as_secs_f64(),
            finished: now.as_secs_f64(),
            data: None,
            rejects,
        }
    }
}

impl TableWriter {
    /// Starts `path`; its folder must exist.
    ///
    /// # Errors
    /// When the file cannot be made or the schema has no Parquet form.
    pub fn create(path: &Path, schema: &SchemaRef) -> Result<Self, RunError> {
        let temporary = path.with_extension("parquet.tmp");
        let file = fault::io("table.create").and_then(|()| File::create(&temporary));
        let file = file.map_err(RunError::io("cannot create", &temporary))?;
        let mut properties = WriterProperties::builder()
            .set_created_by("loev".to_owned())
            .set_compression(Compression::ZSTD(ZstdLevel::try_new(1)?));
        for field in schema.fields() {
            if let DataType::FixedSizeList(item, _) = field.data_type() {
                // Samples and embeddings hardly repeat, and nobody asks for the least of them.
                let path = [field.name(), "list", item.name()].map(str::to_owned).to_vec();
                properties = properties
                    .set_column_dictionary_enabled(ColumnPath::new(path.clone()), false)
                    .set_column_statistics_enabled(ColumnPath::new(path), EnabledStatistics::None);
            }
        }
        let properties = properties.build();
        let writer = ArrowWriter::try_new(file, Arc::clone(schema), Some(properties))?;
        let coalescer = BatchCoalescer::new(Arc::clone(schema), chunk_rows(schema));
        let (path, started) = (path.to_owned(), Instant::now());
        Ok(Self { path, temporary, coalescer, writer, group: 0, rows: 0, started })
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
            fault::io("table.write").map_err(RunError::io("cannot write", &self.temporary))?;
            self.writer.write(&chunk)?;
            let bytes: usize = chunk.columns().iter().map(|column| bytes_of(column)).sum();
            self.group += bytes;
            if self.group + bytes > GROUP_BYTES {
                self.writer.flush()?;
                self.group = 0;
            }
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
        let metadata = self.writer.finish()?;
        let file = self.writer.inner();
        let durable = fault::io("table.sync").and_then(|()| file.sync_all());
        durable.map_err(RunError::io("cannot write", &self.temporary))?;
        let (digest, columns, bytes) = digests(&self.temporary, &metadata, &self.coalescer.schema())?;
        let rename = || {
            fault::io("table.rename")?;
            fs::rename(&self.temporary, &self.path)?;
            fault::io("table.renamed")?;
            sync_folder(&self.path)
        };
        rename().map_err(RunError::io("cannot write", &self.path))?;
        let file = self.path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        Ok(Written { file, rows: self.rows, bytes, digest, columns, took: self.started.elapsed() })
    }
}

/// The digest of a Parquet file, the digest of each of its columns, and its size.
///
/// A column's digest covers its type and the bytes of its chunks, in the order of the row groups; what other columns
/// hold is not in them.
///
/// # Errors
/// When the file cannot be read.
pub fn digests(
    path: &Path,
    metadata: &ParquetMetaData,
    schema: &Schema,
) -> Result<(String, IndexMap<String, String>, u64), RunError> {
    let mut of_column: IndexMap<String, blake3::Hasher> = IndexMap::new();
    for field in schema.fields() {
        let mut hasher = blake3::Hasher::new();
        hasher.update(format!("{} {}", field.data_type(), field.is_nullable()).as_bytes());
        of_column.insert(field.name().clone(), hasher);
    }
    // Where in the file the chunks of each column lie.
    let mut chunks = Vec::new();
    for group in metadata.row_groups() {
        for chunk in group.columns() {
            let (start, length) = chunk.byte_range();
            let name = chunk.column_path().parts().first();
            if let Some(column) = name.and_then(|name| of_column.get_index_of(name)) {
                chunks.push((start, start + length, column));
            }
        }
    }
    chunks.sort_unstable();

    let failed = |error| RunError::io("cannot read", path)(error);
    let mut file = File::open(path).map_err(failed)?;
    let (mut whole, mut at, mut first) = (blake3::Hasher::new(), 0_u64, 0);
    let mut buffer = vec![0; READ_BYTES];
    loop {
        let read = match file.read(&mut buffer) {
            Ok(0) => break,
            Ok(read) => read,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(RunError::io("cannot read", path)(error)),
        };
        let (piece, end) = (&buffer[..read], at + read as u64);
        whole.update(piece);
        while chunks.get(first).is_some_and(|(_, to, _)| *to <= at) {
            first += 1;
        }
        for (from, to, column) in chunks[first..].iter().take_while(|(from, ..)| *from < end) {
            let (from, to) = ((*from).max(at) - at, (*to).min(end).max(at) - at);
            if let Some((_, hasher)) = of_column.get_index_mut(*column) {
                hasher.update(&piece[from as usize..to as usize]);
            }
        }
        at = end;
    }
    // Half of a digest is enough to tell contents apart, and receipts hold one for each column.
    let short = |hasher: blake3::Hasher| hasher.finalize().to_hex().chars().take(32).collect::<String>();
    let columns = of_column.into_iter().map(|(name, hasher)| (name, short(hasher))).collect();
    Ok((whole.finalize().to_hex().to_string(), columns, at))
}

/// The writer's own row rule: a function of the schema, never of what arrives.
fn chunk_rows(schema: &Schema) -> usize {
    let row_bytes: usize = schema.fields().iter().map(|f| wide_bytes(f.data_type())).sum();
    (CHUNK_BYTES / row_bytes.max(1)).clamp(1, CHUNK_ROWS)
}

/// Bytes of an array's values: by what they are alone, whatever buffers hold them and whether they say which are NULL.
fn bytes_of(array: &dyn Array) -> usize {
    let range = |offsets: &[i32]| match offsets {
        [first, .., last] => (*first as usize, (last - first) as usize),
        _ => (0, 0),
    };
    match array.data_type() {
        DataType::Boolean => array.len().div_ceil(8),
        DataType::Utf8 => size_of::<i32>() * array.len() + range(array.as_string::<i32>().offsets()).1,
        DataType::List(_) => {
            let lists = array.as_list::<i32>();
            let (first, length) = range(lists.offsets());
            size_of::<i32>() * array.len() + bytes_of(&lists.values().slice(first, length))
        }
        DataType::FixedSizeList(..) => bytes_of(array.as_fixed_size_list().values()),
        DataType::Struct(_) => array.as_struct().columns().iter().map(|column| bytes_of(column)).sum(),
        other => array.len() * other.primitive_width().unwrap_or(size_of::<u64>()),
    }
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

/// Writes each partition to a file of its own and puts its receipt into the stage's journal; yields one row per file
/// (see [`written_schema`]).
#[derive(Debug)]
pub struct WriteOp {
    dir: PathBuf,
    /// What each partition makes.
    shards: Vec<Shard>,
    input: SchemaRef,
    stage: StageHandle,
    journal: Arc<Journal>,
}

impl WriteOp {
    /// Partition `i` goes to `dir/shards[i].file`, with the schema `input`.
    pub fn new(
        dir: PathBuf,
        shards: Vec<Shard>,
        input: SchemaRef,
        stage: StageHandle,
        journal: Arc<Journal>,
    ) -> Self {
        Self { dir, shards, input, stage, journal }
    }
}

/// The rows that [`WriteOp`] yields: `file` and `rows`.
pub fn written_schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("file", DataType::Utf8, false),
        Field::new("rows", DataType::UInt64, false),
    ]))
}

impl PartitionOp for WriteOp {
    fn name(&self) -> &'static str {
        "WriteExec"
    }

    fn details(&self) -> String {
        format!("dir={}, files={}", self.dir.display(), self.shards.len())
    }

    fn schema(&self) -> SchemaRef {
        written_schema()
    }

    fn start(
        self: Arc<Self>,
        partition: usize,
        mut input: SendableRecordBatchStream,
        _: Arc<TaskContext>,
    ) -> DfResult<SendableRecordBatchStream> {
        let work = async move {
            let shard = self
                .shards
                .get(partition)
                .ok_or_else(|| RunError::Engine(format!("no file is named for partition {partition}")))?;
            let mut writer = TableWriter::create(&self.dir.join(&shard.file), &self.input)?;
            let mut used = HashSet::new();
            while let Some(batch) = input.next().await {
                let batch = batch?;
                if let Some(clips) = batch.column_by_name(CLIP_ID).and_then(|c| c.as_string_opt::<i32>()) {
                    for clip in clips.iter().flatten() {
                        if !used.contains(clip) {
                            used.insert(clip.to_owned());
                        }
                    }
                }
                writer.write(batch)?;
            }
            let mut rejects = self.stage.rejects.take(partition);
            rejects.iter_mut().for_each(|reject| reject.whole = !used.contains(&reject.clip_id));
            let receipt = writer.finish()?.receipt(&shard.table, &shard.recipe, rejects);
            let columns: Vec<ArrayRef> = vec![
                Arc::new(StringArray::from(vec![receipt.file.as_str()])),
                Arc::new(UInt64Array::from(vec![receipt.rows])),
            ];
            self.journal.append(&Entry::Receipt(receipt))?;
            Ok(RecordBatch::try_new(written_schema(), columns).map_err(RunError::from)?)
        };
        Ok(Box::pin(RecordBatchStreamAdapter::new(written_schema(), stream::once(work))))
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{FixedSizeListArray, Float64Array, Int32Array, ListArray};
    use arrow::buffer::OffsetBuffer;
    use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions};

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
        assert_eq!((chunk_rows(&wide), chunk_rows(&Schema::empty())), (5, CHUNK_ROWS));
    }

    /// Rows of row groups, of rows that hold a number and a list of so many numbers.
    fn groups(dir: &Path, rows: usize, list: usize, fixed: bool) -> Vec<i64> {
        let item = Arc::new(Field::new_list_field(DataType::Float64, false));
        let values = Arc::new(Float64Array::from_iter_values((0..rows * list).map(|i| i as f64)));
        let lists: ArrayRef = if fixed {
            Arc::new(FixedSizeListArray::new(item, list as i32, values, None))
        } else {
            let offsets = OffsetBuffer::from_lengths(vec![list; rows]);
            Arc::new(ListArray::new(item, offsets, values, None))
        };
        let numbers: ArrayRef = Arc::new(Int32Array::from_iter_values(0..rows as i32));
        let batch = RecordBatch::try_from_iter([("n", numbers), ("list", lists)]).unwrap();
        let path = dir.join("groups.parquet");
        let mut writer = TableWriter::create(&path, &batch.schema()).unwrap();
        writer.write(batch).unwrap();
        writer.finish().unwrap();
        let file = File::open(&path).unwrap();
        let metadata = ArrowReaderMetadata::load(&file, ArrowReaderOptions::default()).unwrap();
        metadata.metadata().row_groups().iter().map(|group| group.num_rows()).collect()
    }

    #[test]
    fn row_groups_end_by_what_they_hold() {
        let dir = tempfile::tempdir().unwrap();
        // 4 + 4 + 8 bytes a row, 1,024 rows a chunk: 256 chunks make 4 MiB.
        assert_eq!(groups(dir.path(), 300_000, 1, false), [262_144, 37_856]);
        // 808 bytes a row: 5 chunks.
        assert_eq!(groups(dir.path(), 12_000, 100, false), [5_120, 5_120, 1_760]);
        // 16,004 bytes a row, of which 16,000 count for a chunk: 65 rows each.
        assert_eq!(groups(dir.path(), 600, 2_000, true), [260, 260, 80]);
    }

    #[test]
    fn a_column_has_its_own_digest() {
        let dir = tempfile::tempdir().unwrap();
        let schema = Arc::new(Schema::new(vec![
            Field::new("n", DataType::Int32, false),
            Field::new("word", DataType::Utf8, false),
        ]));
        let file = |name: &str, add: i32, word: &str| {
            let mut writer = TableWriter::create(&dir.path().join(name), &schema).unwrap();
            let numbers = Int32Array::from_iter_values((0..200_000).map(|i| i * 7 + add));
            let words = StringArray::from(vec![word; 200_000]);
            let rows =
                RecordBatch::try_new(Arc::clone(&schema), vec![Arc::new(numbers), Arc::new(words)]).unwrap();
            writer.write(rows).unwrap();
            writer.finish().unwrap()
        };
        let (one, other, same) = (file("a", 0, "x"), file("b", 1, "x"), file("c", 0, "x"));
        assert_eq!((&one.digest, &one.columns), (&same.digest, &same.columns));
        assert_eq!(one.columns["word"], other.columns["word"]);
        assert_ne!(one.columns["n"], other.columns["n"]);
        assert_ne!(one.columns["word"], file("d", 0, "y").columns["word"]);
    }
}
