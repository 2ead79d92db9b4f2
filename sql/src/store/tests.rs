//! Stores in memory behind buckets, and a real one where there is one.
//!
//! With `LOEV_TEST_S3_ENDPOINT` set, and the variables with which an S3 client reaches that server, the
//! last test runs against the bucket `loev-test` of that server.

use std::path::PathBuf;
use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray};
use arrow::util::pretty::pretty_format_batches;
use loev_ops::RejectKind;
use loev_ops::source::{Limits, Source, probe, probe_file};
use object_store::memory::InMemory;

use super::*;
use crate::testing::{block_on, write_parquet};
use crate::{RunCatalog, new_session, open_run, query};

fn at(text: &str) -> Location {
    Location::parse(text).unwrap()
}

/// A new bucket in memory.
fn bucket(prefix: &str) -> Location {
    register(prefix, Arc::new(InMemory::new())).unwrap();
    at(prefix)
}

fn names(entries: &[Entry], folder: &Location) -> Vec<String> {
    entries.iter().map(|entry| entry.location.below(folder).unwrap()).collect()
}

fn fault(error: &SqlError) -> StoreFault {
    match error {
        SqlError::Store { fault, .. } => *fault,
        other => panic!("{other}"),
    }
}

/// What is asked of files holds on this machine and in a bucket.
fn files_are_listed_and_read(folder: &Location) {
    let file = |name: &str| folder.join(name).unwrap();
    let put = ["b/2.wav", "b-1.wav", "a 50%[x].wav", "b/a/1.wav", "b.wav", "ä.wav"];
    for name in put {
        if let Some(up) = file(name).parent().as_ref().and_then(Location::as_path) {
            fs::create_dir_all(up).unwrap();
        }
        write(&file(name), name.as_bytes().to_vec()).unwrap();
    }
    let all = list(folder, true).unwrap();
    assert_eq!(names(&all, folder), ["a 50%[x].wav", "b/2.wav", "b/a/1.wav", "b-1.wav", "b.wav", "ä.wav"]);
    assert_eq!(names(&list(folder, false).unwrap(), folder), ["a 50%[x].wav", "b-1.wav", "b.wav", "ä.wav"]);
    for entry in &all {
        let name = entry.location.below(folder).unwrap();
        assert_eq!(at(&entry.location.to_string()), entry.location);
        assert_eq!(read(&entry.location, 100).unwrap(), name.as_bytes());
        assert_eq!((entry.bytes, size(&entry.location).unwrap()), (name.len() as u64, name.len() as u64));
        assert_eq!(entry_of(&entry.location).unwrap(), *entry);
    }
    assert_eq!(read_range(&file("b/a/1.wav"), 2..5).unwrap(), b"a/1");
    assert_eq!(read_range(&file("b/a/1.wav"), 4..500).unwrap(), b"1.wav");
    assert_eq!(fault(&read(&file("b.wav"), 4).unwrap_err()), StoreFault::TooLarge);
    for error in [read(&file("b/none"), 9).unwrap_err(), size(&file("none")).unwrap_err()] {
        assert_eq!(fault(&error), StoreFault::Missing);
        assert!(error.to_string().contains(&folder.to_string()), "{error}");
    }
    assert!(exists(&file("b.wav")).unwrap() && exists(&file("b/a")).unwrap());
    assert!(!exists(&file("b/b")).unwrap());
    let old = entry_of(&file("b.wav")).unwrap().stamp;
    write(&file("b.wav"), b"of another length".to_vec()).unwrap();
    assert_ne!(entry_of(&file("b.wav")).unwrap().stamp, old);
    assert_eq!(list(folder, true).unwrap().len(), put.len());
    let large: Vec<u8> = (0..WHOLE as u32 / 3).flat_map(|i| i.to_le_bytes()).collect();
    write(&file("large"), large.clone()).unwrap();
    assert!(large.len() > WHOLE && read(&file("large"), u64::MAX).unwrap() == large);
}

#[test]
fn files_on_this_machine_are_listed_and_read() {
    let dir = tempfile::tempdir().unwrap();
    files_are_listed_and_read(&dir.path().into());
}

#[test]
fn objects_are_listed_and_read() {
    files_are_listed_and_read(&bucket("s3://list"));
    bucket("gs://list");
    files_are_listed_and_read(&at("gs://list/folder/100% [x]"));
}

#[test]
fn calls_may_come_from_inside_a_runtime() {
    let file = bucket("gs://inside").join("a").unwrap();
    block_on(async { write(&file, b"one".to_vec()) }).unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().unwrap();
    let inside = file.clone();
    let read = runtime.block_on(async { tokio::spawn(async move { read(&inside, 3) }).await });
    assert_eq!(read.unwrap().unwrap(), b"one");
}

/// Writes a run with two tables, one of two files.
fn write_run(root: &Path) {
    let batch = |from: i64, rows: i64| {
        let ids: ArrayRef = Arc::new(Int64Array::from_iter_values(from..from + rows));
        let names: ArrayRef = Arc::new(StringArray::from_iter_values((0..rows).map(|i| format!("静 {i}"))));
        let x: ArrayRef =
            Arc::new(Float64Array::from_iter((0..rows).map(|i| (i % 3 > 0).then_some(i as f64))));
        RecordBatch::try_from_iter([("id", ids), ("name", names), ("x", x)]).unwrap()
    };
    write_parquet(&root.join("tables/clips"), "a.parquet", &batch(0, 1000));
    write_parquet(&root.join("tables/clips"), "b.parquet", &batch(1000, 10));
    write_parquet(&root.join("tables/odd 50%"), "a.parquet", &batch(7, 3));
    let tables = r#"{"clips": "tables/clips", "odd": "tables/odd 50%", "gone": "tables/gone"}"#;
    fs::write(root.join("run.json"), format!(r#"{{"name": "demo", "tables": {tables}}}"#)).unwrap();
}

fn copy(from: &Location, to: &Location) {
    for entry in list(from, true).unwrap() {
        let file = to.join(&entry.location.below(from).unwrap()).unwrap();
        write(&file, read(&entry.location, u64::MAX).unwrap()).unwrap();
    }
}

fn a_run_reads_as_it_does_here(runs: &Location) {
    let dir = tempfile::tempdir().unwrap();
    write_run(dir.path());
    let remote = runs.join("quick start").unwrap();
    copy(&dir.path().into(), &remote);
    let here = block_on(open_run(dir.path(), 1, None)).unwrap();
    let there = block_on(open_run(&remote, 1, None)).unwrap();
    assert_eq!(there.absent, here.absent);
    assert_eq!(there.absent.len(), 1);
    assert_eq!((there.catalog.name.as_str(), &there.catalog.root), ("demo", &remote));
    let rows = |run: &crate::OpenRun, sql: &str| {
        let rows = block_on(query(&run.context, sql)).unwrap_or_else(|error| panic!("{error}"));
        pretty_format_batches(&rows).unwrap().to_string()
    };
    for sql in [
        "select * from clips",
        "select c.name, o.x from clips c join odd o using (id) where c.id > 7",
        "select count(*), sum(x) from clips where id % 2 = 0",
    ] {
        assert_eq!(rows(&there, sql), rows(&here, sql), "{sql}");
    }
    // Any session reads any address.
    let context = new_session(1, None).unwrap();
    for file in ["tables/odd 50%/a.parquet", "tables/odd 50%/"] {
        let sql = |run: &str| format!("select * from '{run}/{file}' where id > 7");
        let there = block_on(query(&context, &sql(&remote.to_string()))).unwrap();
        let here = block_on(query(&context, &sql(&format!("file://{}", dir.path().display())))).unwrap();
        assert_eq!(there, here);
        assert_eq!(there[0].num_rows(), 2);
    }
    let mistyped = runs.join("quickstart").unwrap();
    let error = RunCatalog::read(&mistyped).unwrap_err().to_string();
    assert!(error.contains(&format!("did you mean {remote}?")), "{error}");
}

#[test]
fn a_run_in_a_bucket_reads_as_it_does_here() {
    a_run_reads_as_it_does_here(&bucket("s3://runs"));
    bucket("gs://runs");
    a_run_reads_as_it_does_here(&at("gs://runs/my/runs"));
}

#[test]
fn names_that_are_no_tables_are_told_from_addresses() {
    let context = new_session(1, None).unwrap();
    let error = block_on(query(&context, "select * from 'az://bucket/a.parquet'")).unwrap_err().to_string();
    assert!(error.contains("unknown scheme 'az'"), "{error}");
    let error = block_on(query(&context, "select * from clps")).unwrap_err().to_string();
    assert!(error.contains("table 'clps' not found"), "{error}");
}

fn fixtures() -> Vec<PathBuf> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../ops/fixtures");
    fs::read_dir(dir).unwrap().map(|file| file.unwrap().path()).collect()
}

fn audio_reads_as_it_does_here(folder: &Location) {
    enable_remote_audio();
    let mut read = 0;
    for path in fixtures() {
        let Ok(info) = probe_file(&path, &Limits::default()) else { continue };
        let file = folder.join(path.file_name().unwrap().to_str().unwrap()).unwrap();
        write(&file, fs::read(&path).unwrap()).unwrap();
        let (there, here) = (Source::parse(&file.to_string()).unwrap(), Source::File(path));
        assert_eq!(probe(&there, &Limits::default()).unwrap(), info, "{file}");
        let start = (info.seconds - 0.2) / 3.0;
        let audio = there.read(start, 0.2, 16_000).unwrap();
        assert_eq!(audio, here.read(start, 0.2, 16_000).unwrap(), "{file}");
        read += 1;
    }
    assert!(read >= 15, "{read} files");
    let none = Source::parse(&folder.join("none.wav").unwrap().to_string()).unwrap();
    assert_eq!(none.read(0.0, 1.0, 8000).unwrap_err().kind, RejectKind::Missing);
}

#[test]
fn audio_in_a_bucket_reads_as_it_does_here() {
    audio_reads_as_it_does_here(&bucket("s3://audio").join("a b/100%").unwrap());
}

#[test]
fn an_object_that_changes_while_it_is_read_is_told() {
    let file = bucket("s3://swap").join("a").unwrap();
    write(&file, b"one".to_vec()).unwrap();
    let range = |tag: &str| read_object(&file, 0..2, Some(tag.to_owned()));
    let old = entry_of(&file).unwrap().stamp;
    assert_eq!(range(&old).unwrap(), b"on");
    write(&file, b"two".to_vec()).unwrap();
    assert_eq!(fault(&range(&old).unwrap_err()), StoreFault::Changed);
}

/// The same against a server that speaks S3.
#[test]
fn a_real_server_gives_the_same() {
    let Ok(endpoint) = std::env::var("LOEV_TEST_S3_ENDPOINT") else {
        eprintln!("skipped: LOEV_TEST_S3_ENDPOINT is not set");
        return;
    };
    let root = at("s3://loev-test").join(&format!("{}", std::process::id())).unwrap();
    files_are_listed_and_read(&root.join("files").unwrap());
    a_run_reads_as_it_does_here(&root.join("runs").unwrap());
    audio_reads_as_it_does_here(&root.join("audio").unwrap());
    let error = read(&at("s3://loev-test-none/a"), 1).unwrap_err();
    assert_eq!(fault(&error), StoreFault::Missing);
    let file = root.join("swap").unwrap();
    write(&file, b"one".to_vec()).unwrap();
    let old = entry_of(&file).unwrap().stamp;
    write(&file, b"two".to_vec()).unwrap();
    assert_eq!(fault(&read_object(&file, 0..2, Some(old)).unwrap_err()), StoreFault::Changed);
    eprintln!("checked against {endpoint}: {error}");
}
