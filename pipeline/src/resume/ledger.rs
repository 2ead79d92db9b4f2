//! What has been made: the receipts of a stage, and of all stages that are as the pipeline wants them.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use super::journal::{Artifact, Done, Entry, Journal, Receipt};
use super::recipe::combined;
use super::work::{Shards, Work};
use crate::error::RunError;
use crate::run::dir::RunDir;
use crate::spec::{Graph, Pipeline, Stage};
use crate::stages::side_table;

/// What a stage's journal says: the last receipt of each file, and whether the stage was finished.
#[derive(Debug, Clone, Default)]
pub struct Stored {
    /// By table and file.
    pub receipts: BTreeMap<(String, String), Receipt>,
    /// What was done, when the stage is finished.
    pub done: Option<Done>,
}

impl Stored {
    /// From the lines of a journal, oldest first.
    pub fn new(entries: Vec<Entry>) -> Self {
        let mut stored = Self::default();
        for entry in entries {
            match entry {
                Entry::Receipt(receipt) => {
                    stored.receipts.insert((receipt.table.clone(), receipt.file.clone()), receipt);
                }
                Entry::Done(done) => stored.done = Some(*done),
            }
        }
        stored
    }

    /// Reads the journal of a stage; nothing when there is none.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn read(dir: &RunDir, stage: &str) -> Result<Self, RunError> {
        Ok(Self::new(Journal::read(&dir.journal(stage))?))
    }

    /// Leaves out what `work` does not ask for, and what is not on disk as its receipt says. The size of a file is
    /// looked at, not its content: that is what `loev verify` is for.
    pub fn keep_valid(&mut self, dir: &RunDir, work: &Work) {
        let whole = work.recipe.digest();
        let wanted: Option<BTreeMap<(&str, &str), &str>> = match &work.shards {
            Shards::Whole => None,
            Shards::Each(shards) => Some(
                shards.iter().map(|s| ((s.table.as_str(), s.file.as_str()), s.recipe.as_str())).collect(),
            ),
        };
        self.receipts.retain(|(table, file), receipt| {
            let recipe = match &wanted {
                None => Some(whole.as_str()),
                Some(wanted) => wanted.get(&(table.as_str(), file.as_str())).copied(),
            };
            recipe == Some(receipt.recipe.as_str())
                && has_size(&dir.table(table).join(file), receipt.bytes)
                && receipt.data.iter().all(|data| has_size(&dir.root().join(&data.path), data.bytes))
        });
        let complete = |done: &Done| {
            done.recipe.digest() == whole
                && match &wanted {
                    Some(wanted) => wanted.len() == self.receipts.len(),
                    // A table that is made as a whole counts as a whole.
                    None => done.files == self.receipts.len() as u64,
                }
                && done.artifacts.iter().all(|a| has_size(&dir.root().join(&a.path), a.bytes))
        };
        if !self.done.as_ref().is_some_and(complete) {
            self.done = None;
            if wanted.is_none() {
                self.receipts.clear();
            }
        }
    }
}

fn has_size(path: &Path, bytes: u64) -> bool {
    std::fs::metadata(path).is_ok_and(|found| found.is_file() && found.len() == bytes)
}

/// The finished stages of a run, for the stages that read them.
#[derive(Debug, Clone, Default)]
pub struct Ledger {
    /// The receipts of each table, in the order of their files.
    tables: BTreeMap<String, Arc<[Receipt]>>,
    /// The artifact of each stage that has one.
    artifacts: BTreeMap<String, Artifact>,
}

impl Ledger {
    /// Takes in a finished stage.
    pub fn enter(&mut self, stage: &str, stored: &Stored) {
        let Some(done) = &stored.done else { return };
        for table in &done.tables {
            let receipts = stored.receipts.values().filter(|receipt| receipt.table == *table);
            self.tables.insert(table.clone(), receipts.cloned().collect());
        }
        if let Some(artifact) = done.artifacts.first() {
            self.artifacts.insert(stage.to_owned(), artifact.clone());
        }
    }

    /// The receipts of a table, in the order of its files; none when its stage is not finished.
    pub fn table(&self, name: &str) -> Option<&[Receipt]> {
        self.tables.get(name).map(AsRef::as_ref)
    }

    /// The tables of a stage: the one with its name, and those beside it.
    pub fn tables_of<'a>(&'a self, stage: &'a str, side: &'a [&'a str]) -> impl Iterator<Item = &'a str> {
        let own =
            std::iter::once(stage.to_owned()).chain(side.iter().map(move |what| side_table(stage, what)));
        own.filter_map(|name| self.tables.get_key_value(&name).map(|(name, _)| name.as_str()))
    }
}

impl Receipt {
    /// A digest of what the file holds in `columns` (those it has), or in all of it.
    pub fn content(&self, columns: Option<&[&str]>) -> String {
        match columns {
            None => self.digest.clone(),
            Some(columns) => combined(columns.iter().flat_map(|name| {
                let digest = self.columns.get(*name).map_or("", String::as_str);
                [*name, digest]
            })),
        }
    }
}

/// What the recipes of stages are made from: the pipeline, and the tables that are there.
#[derive(Debug, Clone, Copy)]
pub struct Inputs<'a> {
    /// The pipeline.
    pub pipeline: &'a Pipeline,
    /// Its graph.
    pub graph: &'a Graph,
    /// The finished stages.
    pub ledger: &'a Ledger,
}

impl<'a> Inputs<'a> {
    /// The files of a table.
    ///
    /// # Errors
    /// When its stage is not finished.
    pub fn files(&self, table: &str) -> Result<&'a [Receipt], RunError> {
        let unfinished = || RunError::Engine(format!("the table `{table}` is not there yet"));
        self.ledger.table(table).ok_or_else(unfinished)
    }

    /// Rows of a table.
    ///
    /// # Errors
    /// When its stage is not finished.
    pub fn rows(&self, table: &str) -> Result<u64, RunError> {
        Ok(self.files(table)?.iter().map(|receipt| receipt.rows).sum())
    }

    /// A digest of what a table holds in `columns`, or in all of it.
    ///
    /// # Errors
    /// When its stage is not finished.
    pub fn content(&self, table: &str, columns: Option<&[&str]>) -> Result<String, RunError> {
        let files = self.files(table)?;
        let parts: Vec<String> =
            files.iter().flat_map(|receipt| [receipt.file.clone(), receipt.content(columns)]).collect();
        Ok(combined(parts.iter().map(String::as_str)))
    }

    /// Whether a table has a column.
    ///
    /// # Errors
    /// When its stage is not finished.
    pub fn has(&self, table: &str, column: &str) -> Result<bool, RunError> {
        Ok(self.files(table)?.first().is_some_and(|receipt| receipt.columns.contains_key(column)))
    }

    /// The checkpoint of a training stage.
    ///
    /// # Errors
    /// When it is not finished.
    pub fn artifact(&self, stage: &str) -> Result<&'a Artifact, RunError> {
        let missing = || RunError::Engine(format!("the stage `{stage}` is not finished"));
        self.ledger.artifacts.get(stage).ok_or_else(missing)
    }

    /// The columns of a table (of clips, or of views) that say which audio a row stands for. A digest of the file's
    /// content says so wherever the file lies; without one, its address must.
    ///
    /// # Errors
    /// When its stage is not finished.
    pub fn audio_columns(&self, table: &str) -> Result<Vec<&'static str>, RunError> {
        let which = if self.has(table, "digest")? { "digest" } else { "uri" };
        Ok(vec!["clip_id", "seconds", which])
    }

    /// What the audio behind a table depends on beside its own rows: the content of the files it comes from, where the
    /// table has lost the column that says so.
    ///
    /// # Errors
    /// When a stage before it is not finished.
    pub fn audio(&self, table: &str) -> Result<String, RunError> {
        if self.has(table, "digest")? {
            return Ok(String::new());
        }
        let (mut seen, mut queue) = (Vec::new(), vec![table]);
        let mut parts = Vec::new();
        while let Some(stage) = queue.pop() {
            if seen.contains(&stage) {
                continue;
            }
            seen.push(stage);
            match self.pipeline.stages.get(stage) {
                Some(Stage::Files(_) | Stage::Decode(_)) => {
                    parts.push(self.content(stage, Some(&["clip_id", "digest"]))?)
                }
                _ => queue.extend(self.graph.inputs(stage).iter().map(String::as_str)),
            }
        }
        parts.sort_unstable();
        Ok(combined(parts.iter().map(String::as_str)))
    }
}
