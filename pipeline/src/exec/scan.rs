//! Leaves of our plans: stored tables, read with DataFusion's own Parquet scan.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::{FileGroup, FileScanConfigBuilder, ParquetSource};
use datafusion::datasource::source::DataSourceExec;
use datafusion::execution::object_store::ObjectStoreUrl;
use datafusion::physical_expr::Partitioning;
use datafusion::physical_plan::ExecutionPlan;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use crate::error::RunError;
use crate::resume::work::Shard;

/// A stored table: the Parquet files of one directory, in the order of their names.
#[derive(Debug, Clone)]
pub struct Table {
    /// The schema of the first file, with its metadata.
    pub schema: SchemaRef,
    /// The files, sorted by name.
    pub files: Vec<TableFile>,
}

/// One file of a [`Table`].
#[derive(Debug, Clone)]
pub struct TableFile {
    /// Where it lies.
    pub path: PathBuf,
    /// Its size, in bytes.
    pub bytes: u64,
    /// Rows, from the file's footer.
    pub rows: u64,
}

impl TableFile {
    /// The file's name without its folder.
    pub fn name(&self) -> String {
        self.path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default()
    }
}

impl Table {
    /// Opens the table in `dir`; reads footers only.
    ///
    /// # Errors
    /// When the directory cannot be read, has no Parquet file, or a footer is damaged.
    pub fn open(dir: &Path) -> Result<Self, RunError> {
        let mut paths = Vec::new();
        for entry in std::fs::read_dir(dir).map_err(RunError::io("cannot read", dir))? {
            let path = entry.map_err(RunError::io("cannot read", dir))?.path();
            if path.extension().is_some_and(|e| e == "parquet") {
                paths.push(path);
            }
        }
        paths.sort();
        Self::of_files(dir, paths)
    }

    /// The table of one file.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn of_file(path: &Path) -> Result<Self, RunError> {
        Self::of_files(path, vec![path.to_owned()])
    }

    fn of_files(dir: &Path, paths: Vec<PathBuf>) -> Result<Self, RunError> {
        let mut schema = None;
        let mut files = Vec::with_capacity(paths.len());
        for path in paths {
            let file = File::open(&path).map_err(RunError::io("cannot open", &path))?;
            let bytes = file.metadata().map_err(RunError::io("cannot read", &path))?.len();
            let reader = ParquetRecordBatchReaderBuilder::try_new(file)?;
            let rows = reader.metadata().file_metadata().num_rows().unsigned_abs();
            schema.get_or_insert_with(|| Arc::clone(reader.schema()));
            files.push(TableFile { path, bytes, rows });
        }
        let schema = schema.ok_or_else(|| RunError::RunDir {
            path: dir.to_owned(),
            message: "this table has no Parquet file".to_owned(),
        })?;
        Ok(Self { schema, files })
    }

    /// The columns of these names, as far as the table has them, from all files.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub fn read(&self, columns: &[&str]) -> Result<Vec<RecordBatch>, RunError> {
        let mut batches = Vec::new();
        for TableFile { path, .. } in &self.files {
            let file = File::open(path).map_err(RunError::io("cannot open", path))?;
            let reader = ParquetRecordBatchReaderBuilder::try_new(file)?;
            let mask = ProjectionMask::columns(reader.parquet_schema(), columns.iter().copied());
            for batch in reader.with_projection(mask).build()? {
                batches.push(batch?);
            }
        }
        Ok(batches)
    }

    /// The file of this name.
    ///
    /// # Errors
    /// When the table has no such file.
    pub fn file(&self, name: &str) -> Result<&TableFile, RunError> {
        let found = self.files.iter().find(|file| file.name() == name);
        found.ok_or_else(|| RunError::Engine(format!("the table has no file {name}")))
    }

    /// One partition for each of `shards`: the file of its name. Also their rows.
    ///
    /// # Errors
    /// When the table lacks one of the files.
    pub fn partitions(&self, shards: &[Shard]) -> Result<(Vec<Vec<&TableFile>>, u64), RunError> {
        let files = shards.iter().map(|shard| Ok(vec![self.file(&shard.file)?]));
        let files = files.collect::<Result<Vec<_>, RunError>>()?;
        let rows = files.iter().flatten().map(|file| file.rows).sum();
        Ok((files, rows))
    }

    /// Rows of all files.
    pub fn rows(&self) -> u64 {
        self.files.iter().map(|f| f.rows).sum()
    }

    /// A scan with one partition per entry of `partitions`: each reads its files one after the
    /// other, in the order given, and no other partition takes part of them.
    ///
    /// # Errors
    /// When a path cannot be written as an object store path.
    pub fn scan(&self, partitions: &[Vec<&TableFile>]) -> Result<Arc<dyn ExecutionPlan>, RunError> {
        self.scan_by(partitions, None)
    }

    /// The same, with at most `rows` rows in a batch: for tables whose rows are wide.
    ///
    /// # Errors
    /// As [`Self::scan`].
    pub fn scan_by(
        &self,
        partitions: &[Vec<&TableFile>],
        rows: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>, RunError> {
        let groups = partitions
            .iter()
            .map(|files| {
                let files = files.iter().map(|file| {
                    let path =
                        std::path::absolute(&file.path).map_err(RunError::io("cannot find", &file.path))?;
                    Ok(PartitionedFile::new(path.to_string_lossy(), file.bytes))
                });
                Ok(FileGroup::new(files.collect::<Result<_, RunError>>()?))
            })
            .collect::<Result<Vec<_>, RunError>>()?;
        let source = Arc::new(ParquetSource::new(Arc::clone(&self.schema)));
        let config = FileScanConfigBuilder::new(ObjectStoreUrl::local_filesystem(), source)
            .with_output_partitioning(Some(Partitioning::UnknownPartitioning(groups.len())))
            .with_file_groups(groups)
            .with_preserve_order(true)
            .with_batch_size(rows)
            .build();
        Ok(DataSourceExec::from_data_source(config))
    }
}
