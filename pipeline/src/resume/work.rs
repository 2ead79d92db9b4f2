//! What a stage has to make, and what of it is left to do.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::journal::{Done, Entry, Journal, Receipt};
use super::ledger::Stored;
use super::recipe::Recipe;
use crate::error::RunError;
use crate::run::dir::RunDir;
use crate::stages::files::Listing;

/// What a stage makes, worked out from the pipeline and the receipts of the stages before it, without making it.
#[derive(Debug, Clone)]
pub struct Work {
    /// Everything that determines what comes out.
    pub recipe: Recipe,
    /// The files.
    pub shards: Shards,
    /// The files on disk that a `files` stage found while its recipe was worked out.
    pub listing: Option<Arc<Listing>>,
}

/// How a stage's files are made.
#[derive(Debug, Clone)]
pub enum Shards {
    /// All together: which files there will be is not known before.
    Whole,
    /// One by one, each from its own part of the input.
    Each(Vec<Shard>),
}

/// One file of a stage's tables.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shard {
    /// The table.
    pub table: String,
    /// The file's name.
    pub file: String,
    /// The digest of everything that determines the file.
    pub recipe: String,
}

impl Work {
    /// A stage whose files are made together.
    pub fn whole(recipe: Recipe) -> Self {
        Self { recipe, shards: Shards::Whole, listing: None }
    }

    /// A stage whose files are made one by one.
    pub fn each(recipe: Recipe, shards: Vec<Shard>) -> Self {
        Self { recipe, shards: Shards::Each(shards), listing: None }
    }
}

/// How far a stage is.
#[derive(Debug)]
pub struct Status {
    /// What it has to make.
    pub work: Work,
    /// What of that is there.
    pub stored: Stored,
    /// What the last finished run of the stage was made by.
    pub last: Option<Recipe>,
}

impl Status {
    /// Compares what is wanted with what is there.
    ///
    /// # Errors
    /// When the receipts cannot be read.
    pub fn new(dir: Option<&RunDir>, stage: &str, work: Work) -> Result<Self, RunError> {
        let mut stored = match dir {
            Some(dir) => Stored::read(dir, stage)?,
            None => Stored::default(),
        };
        let last = stored.done.as_ref().map(|done| done.recipe.clone());
        if let Some(dir) = dir {
            stored.keep_valid(dir, &work);
        }
        Ok(Self { work, stored, last })
    }

    /// Whether nothing is left to do.
    pub fn up_to_date(&self) -> bool {
        self.stored.done.is_some()
    }

    /// The shards left to do, and all; nothing for a stage that is made as a whole.
    pub fn shards(&self) -> Option<(usize, usize)> {
        match &self.work.shards {
            Shards::Whole => None,
            Shards::Each(all) => Some((all.len() - self.stored.receipts.len(), all.len())),
        }
    }

    /// Why something is left to do.
    pub fn reasons(&self) -> Vec<String> {
        match &self.last {
            None => match self.stored.receipts.len() {
                0 => vec!["it has not been made".to_owned()],
                _ => vec!["it was not finished".to_owned()],
            },
            Some(last) => match self.work.recipe.differences(last) {
                differences if differences.is_empty() => vec!["files of its tables are missing".to_owned()],
                differences => differences,
            },
        }
    }
}

/// A stage at work: what is left to do, and where receipts go.
#[derive(Debug)]
pub struct Job {
    /// The digest of the recipe.
    pub recipe: String,
    /// The files on disk, for a `files` stage.
    pub listing: Option<Arc<Listing>>,
    /// Where receipts go.
    pub journal: Arc<Journal>,
    todo: Vec<Shard>,
}

impl Job {
    /// Makes a stage ready: forgets what is no longer wanted and removes its files.
    ///
    /// # Errors
    /// When the run's directory cannot be written.
    pub fn start(dir: &RunDir, stage: &str, status: &Status) -> Result<Self, RunError> {
        let kept = &status.stored.receipts;
        let path = dir.journal(stage);
        let entries: Vec<Entry> = kept.values().cloned().map(Entry::Receipt).collect();
        Journal::replace(&path, &entries)?;
        let todo = match &status.work.shards {
            Shards::Whole => Vec::new(),
            Shards::Each(shards) => shards
                .iter()
                .filter(|shard| !kept.contains_key(&(shard.table.clone(), shard.file.clone())))
                .cloned()
                .collect(),
        };
        // Files without a receipt: of an earlier recipe, or half-written when the process died.
        let mut tables: BTreeSet<&str> = kept.keys().map(|(table, _)| table.as_str()).collect();
        tables.extend(todo.iter().map(|shard| shard.table.as_str()));
        tables.insert(stage);
        for table in tables {
            dir.retain(table, |file| kept.contains_key(&(table.to_owned(), file.to_owned())))?;
        }
        let data: BTreeSet<&str> =
            kept.values().filter_map(|receipt| Some(receipt.data.as_ref()?.path.as_str())).collect();
        dir.retain_audio(stage, |file| data.contains(file))?;
        let (journal, _) = Journal::open(&path)?;
        let (recipe, listing) = (status.work.recipe.digest(), status.work.listing.clone());
        Ok(Self { recipe, listing, journal: Arc::new(journal), todo })
    }

    /// The shards of `table` that are to be made.
    pub fn todo(&self, table: &str) -> Vec<Shard> {
        self.todo.iter().filter(|shard| shard.table == table).cloned().collect()
    }

    /// Puts the receipt of a file into the journal.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn enter(&self, receipt: Receipt) -> Result<(), RunError> {
        self.journal.append(&Entry::Receipt(receipt))
    }

    /// The stage is finished: its receipts (`stored`, as the journal has them) and `done` are put in order. Returns them.
    ///
    /// # Errors
    /// When they cannot be written.
    pub fn finish(
        self,
        dir: &RunDir,
        stage: &str,
        mut stored: Stored,
        mut done: Done,
    ) -> Result<Stored, RunError> {
        drop(self.journal);
        stored.receipts.retain(|(table, _), _| done.tables.contains(table));
        done.files = stored.receipts.len() as u64;
        let receipts = stored.receipts.values().cloned().map(Entry::Receipt);
        let entries: Vec<Entry> = receipts.chain([Entry::Done(Box::new(done.clone()))]).collect();
        Journal::replace(&dir.journal(stage), &entries)?;
        stored.done = Some(done);
        Ok(stored)
    }
}
