//! Parquet, as it comes: finished parts of the file go out at once.

use std::io::{self, Write};
use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;

use crate::diagnose;
use crate::error::SqlError;

/// What the encoder has written and nobody has taken yet. The encoder wants to own its output.
#[derive(Clone, Default)]
struct Pending(Arc<Mutex<Vec<u8>>>);

impl Pending {
    fn take(&self) -> Vec<u8> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Write for Pending {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A file on its way.
pub(super) struct Encoder {
    pending: Pending,
    writer: ArrowWriter<Pending>,
}

impl Encoder {
    pub(super) fn new(schema: SchemaRef) -> Result<Self, SqlError> {
        let compression = Compression::ZSTD(ZstdLevel::default());
        let properties = WriterProperties::builder().set_compression(compression).build();
        let pending = Pending::default();
        let writer = ArrowWriter::try_new(pending.clone(), schema, Some(properties)).map_err(failed)?;
        Ok(Self { pending, writer })
    }

    pub(super) fn push(&mut self, batch: &RecordBatch, out: &mut dyn Write) -> Result<(), SqlError> {
        self.writer.write(batch).map_err(failed)?;
        Ok(out.write_all(&self.pending.take())?)
    }

    pub(super) fn finish(self, out: &mut dyn Write) -> Result<(), SqlError> {
        self.writer.close().map_err(failed)?;
        Ok(out.write_all(&self.pending.take())?)
    }
}

fn failed(error: ParquetError) -> SqlError {
    diagnose::engine(error.into())
}
