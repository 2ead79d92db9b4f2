//! `loev jams`: labels of clips or views as JAMS files.

use std::fs;
use std::path::{Component, Path, PathBuf};

use arrow::array::{Array, RecordBatch};
use loev_ops::jams::Jams;

use super::{Failure, print};
use crate::error::RunError;
use crate::exec::columns::{CLIP_ID, text};
use crate::exec::draw::VIEW_ID;
use crate::exec::scan::Table;
use crate::run::dir::RunDir;
use crate::run::interrupt::Interrupt;
use crate::stages::views::chain_of;

#[derive(Debug, clap::Args)]
pub struct JamsArguments {
    /// The run's directory.
    run: PathBuf,
    /// The table: a stage of clips or of views.
    table: String,
    /// The folder to write: one file per clip or view, at the place that its name says.
    #[arg(short, long)]
    output: PathBuf,
}

pub fn jams(arguments: &JamsArguments, interrupt: &Interrupt) -> Result<(), Failure> {
    let manifest = RunDir::read_manifest(&arguments.run)?;
    if !manifest.tables.contains_key(&arguments.table) {
        let tables: Vec<&str> = manifest.tables.keys().map(String::as_str).collect();
        let message = format!("the run has no table `{}`; it has {}", arguments.table, tables.join(", "));
        return Err(Failure::Usage(message));
    }
    let table = Table::open(&RunDir::open(&arguments.run).table(&arguments.table))?;
    let views = table.schema.index_of(VIEW_ID).is_ok();
    let seconds = if views { Some(chain_of(&arguments.table, &table.schema)?.seconds) } else { None };
    let name = if views { VIEW_ID } else { CLIP_ID };
    let columns =
        ["title", "artist", "seconds", "key", "bpm", "beats", "onsets", "chords", "sections", "tags", name];
    let mut written = 0;
    for batch in table.read(&columns)? {
        interrupt.check()?;
        written += write(&arguments.output, &batch, name, seconds)?;
    }
    print(&format!("{written} files under {}\n", arguments.output.display()))
}

fn write(folder: &Path, batch: &RecordBatch, name: &str, seconds: Option<f64>) -> Result<usize, RunError> {
    let names = text(batch, name)?;
    for (row, mut jams) in Jams::of_batch(batch)?.into_iter().enumerate() {
        jams.duration = seconds.or(jams.duration);
        let path = folder.join(file(names.value(row)));
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).map_err(RunError::io("cannot create", parent))?;
        }
        jams.write(&path).map_err(|e| RunError::Engine(e.to_string()))?;
    }
    Ok(names.len())
}

/// Where the file of a clip or view stands, always below the folder.
fn file(name: &str) -> PathBuf {
    let inside = Path::new(name).components().filter(|part| matches!(part, Component::Normal(_)));
    let path: PathBuf = inside.collect();
    // The ending of an audio file goes, the numbers of a view (`clip.ogg:0:1:2`) stay.
    match path.extension().is_some_and(|ending| !ending.to_string_lossy().contains(':')) {
        true => path.with_extension("jams"),
        false => PathBuf::from(format!("{}.jams", path.display()).replace(':', "-")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_stay_below_the_folder() {
        assert_eq!(file("a/b.ogg"), Path::new("a/b.jams"));
        assert_eq!(file("../../etc/x.ogg:0:1:2"), Path::new("etc/x.ogg-0-1-2.jams"));
        assert_eq!(file("/synth-000001"), Path::new("synth-000001.jams"));
    }
}
