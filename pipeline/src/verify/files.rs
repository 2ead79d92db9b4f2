//! Every file against its receipt.

use std::fs::{self, File};
use std::path::Path;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use super::{Options, Report, Run};
use crate::error::RunError;
use crate::exec::samples::digest_of;
use crate::exec::write::digests;
use crate::resume::journal::{Artifact, Receipt};
use crate::run::dir::{Status, TableDigest};

const FILES: &str = "files";
const MANIFEST: &str = "manifest";
const CHECKPOINT: &str = "checkpoint";

pub(super) fn check(run: &Run, options: &Options, report: &mut Report) -> Result<(), RunError> {
    manifest(run, report);
    let total = run.stages.iter().map(|(_, stored)| stored.receipts.len() as u64).sum();
    let bar = options.progress.bar("verify", total, "files");
    let before = report.faults.len();
    let (mut files, mut bytes) = (0, 0);
    for (stage, stored) in &run.stages {
        let Some(done) = &stored.done else {
            report.fault(FILES, format!("stage `{stage}`: its receipts say that it was not finished"));
            continue;
        };
        for table in &done.tables {
            let mut schema = None;
            for receipt in stored.receipts.values().filter(|receipt| receipt.table == *table) {
                options.interrupt.check()?;
                let path = run.dir.table(table).join(&receipt.file);
                if let Err(wrong) = file(&path, receipt, &mut schema) {
                    report.fault(FILES, format!("{table}/{}: {wrong}", receipt.file));
                }
                (files, bytes) = (files + 1, bytes + receipt.bytes);
                if let Some(data) = &receipt.data {
                    artifact(run, FILES, data, report);
                    (files, bytes) = (files + 1, bytes + data.bytes);
                }
                bar.add(1);
            }
            strangers(run, table, stored.receipts.values(), report);
        }
        for checkpoint in &done.artifacts {
            let before = report.faults.len();
            artifact(run, CHECKPOINT, checkpoint, report);
            report.passed(CHECKPOINT, before, checkpoint.path.clone());
        }
    }
    bar.finish();
    let size = bytes as f64 / f64::from(1 << 20);
    report.passed(FILES, before, format!("{files} files, {size:.1} MiB: digests, columns, rows, schemas"));
    Ok(())
}

fn manifest(run: &Run, report: &mut Report) {
    let before = report.faults.len();
    if run.manifest.status != Status::Complete {
        let status = format!("{:?}", run.manifest.status).to_lowercase();
        report.fault(MANIFEST, format!("the run is not complete: {status}"));
    }
    for (stage, stored) in &run.stages {
        if let Some(done) = &stored.done {
            let recorded = run.manifest.stages.get(stage).map(|record| &record.recipe);
            if recorded != Some(&done.recipe.digest()) {
                report.fault(
                    MANIFEST,
                    format!("stage `{stage}` was made by another recipe than run.json says"),
                );
            }
            for table in &done.tables {
                let files: Vec<&Receipt> = stored.receipts.values().filter(|r| r.table == *table).collect();
                if run.manifest.data.get(table) != Some(&TableDigest::of(&files)) {
                    report.fault(MANIFEST, format!("table `{table}` holds other files than run.json says"));
                }
            }
        }
    }
    report.passed(MANIFEST, before, format!("{} stages", run.stages.len()));
}

/// Looks at a file that is no table.
fn artifact(run: &Run, check: &'static str, artifact: &Artifact, report: &mut Report) {
    match digest_of(&run.dir.root().join(&artifact.path)) {
        Err(error) => report.fault(check, format!("{}: {error}", artifact.path)),
        Ok(digest) if digest != artifact.digest => {
            report.fault(check, format!("{}: its content is another", artifact.path));
        }
        Ok(_) => {}
    }
}

/// What is wrong with a file.
fn file(path: &Path, receipt: &Receipt, schema: &mut Option<SchemaRef>) -> Result<(), String> {
    let found = fs::metadata(path).map_err(|e| e.to_string())?;
    if found.len() != receipt.bytes {
        return Err(format!("{} bytes, where there were {}", found.len(), receipt.bytes));
    }
    let opened = File::open(path).map_err(|e| e.to_string())?;
    let reader = ParquetRecordBatchReaderBuilder::try_new(opened)
        .map_err(|e| format!("its content is another: it cannot be read as Parquet ({e})"))?;
    let (digest, columns, _) =
        digests(path, reader.metadata(), reader.schema()).map_err(|e| e.to_string())?;
    if digest != receipt.digest {
        let changed: Vec<&str> = columns
            .iter()
            .filter(|(name, digest)| receipt.columns.get(*name) != Some(digest))
            .map(|(name, _)| name.as_str())
            .collect();
        return Err(match changed.is_empty() {
            true => "its content is another, outside of its columns".to_owned(),
            false => format!("its content is another, in {}", changed.join(", ")),
        });
    }
    let rows = reader.metadata().file_metadata().num_rows();
    if rows.unsigned_abs() != receipt.rows {
        return Err(format!("{rows} rows, where there were {}", receipt.rows));
    }
    if columns != receipt.columns {
        return Err("the receipt's digests of its columns are others".to_owned());
    }
    let first = schema.get_or_insert_with(|| Arc::clone(reader.schema()));
    if first != reader.schema() {
        return Err("its schema is another than that of the table's first file".to_owned());
    }
    Ok(())
}

/// Files without a receipt.
fn strangers<'a>(run: &Run, table: &str, receipts: impl Iterator<Item = &'a Receipt>, report: &mut Report) {
    let known: Vec<&str> = receipts.filter(|r| r.table == *table).map(|r| r.file.as_str()).collect();
    for entry in fs::read_dir(run.dir.table(table)).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.ends_with(".parquet") && !known.contains(&name.as_str()) {
            report.fault(FILES, format!("{table}/{name}: no receipt tells of this file"));
        }
    }
}
