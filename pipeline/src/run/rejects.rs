//! What could not be used, and why: the table `rejects`.
//!
//! A row stands for a clip (`whole`), or for a part of one: where only some segments fail, such as silent ones, the
//! message names the first and the others go on. Rejects are kept with the receipt of the shard they belong to, so that
//! a resumed run has those of the shards that it did not make again.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::{ArrayRef, BooleanArray, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use loev_ops::AudioError;
use serde::{Deserialize, Serialize};

use crate::error::RunError;
use crate::exec::write::TableWriter;

/// The name of the table.
pub const TABLE: &str = "rejects";

/// A clip that could not be used.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Reject {
    /// The clip.
    pub clip_id: String,
    /// The kind of reason: the name of a [`loev_ops::RejectKind`].
    pub reason: String,
    /// Where the clip's audio was looked for.
    pub uri: String,
    /// What happened.
    pub message: String,
    /// Whether nothing of the clip could be used; else some of its segments were.
    pub whole: bool,
}

impl Reject {
    /// From the error of a clip.
    pub fn new(clip_id: &str, uri: &str, error: &AudioError) -> Self {
        Self {
            clip_id: clip_id.to_owned(),
            reason: error.kind.as_str().to_owned(),
            uri: uri.to_owned(),
            message: error.message.clone(),
            whole: true,
        }
    }
}

/// One for each (clip, reason). The smallest message is kept, so that nothing depends on which view of a clip failed
/// first.
type Unique = BTreeMap<(String, String), Reject>;

fn insert(unique: &mut Unique, reject: Reject) {
    let key = (reject.clip_id.clone(), reject.reason.clone());
    unique
        .entry(key)
        .and_modify(|kept| {
            kept.whole &= reject.whole;
            if reject.message < kept.message {
                (kept.message, kept.uri) = (reject.message.clone(), reject.uri.clone());
            }
        })
        .or_insert(reject);
}

/// The rejects of a stage at work, by the partition that met them.
#[derive(Debug, Default)]
pub struct Collected(Mutex<BTreeMap<usize, Unique>>);

impl Collected {
    /// A partition could not use a clip.
    pub fn add(&self, partition: usize, reject: Reject) {
        tracing::debug!(
            clip = reject.clip_id,
            reason = reject.reason,
            message = reject.message,
            "clip rejected"
        );
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        insert(all.entry(partition).or_default(), reject);
    }

    /// Hands over the rejects of one partition.
    pub fn take(&self, partition: usize) -> Vec<Reject> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.remove(&partition).unwrap_or_default().into_values().collect()
    }

    /// The rejects of all partitions.
    pub fn all(&self) -> Vec<Reject> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut unique = Unique::new();
        all.values().flat_map(BTreeMap::values).for_each(|reject| insert(&mut unique, reject.clone()));
        unique.into_values().collect()
    }
}

/// The rejects of a whole run, by stage.
#[derive(Debug, Default)]
pub struct Rejects {
    stages: Mutex<BTreeMap<String, Unique>>,
}

impl Rejects {
    /// Takes in the rejects of a stage, in place of what it had.
    pub fn enter<'a>(&self, stage: &str, rejects: impl IntoIterator<Item = &'a Reject>) {
        let mut unique = Unique::new();
        rejects.into_iter().for_each(|reject| insert(&mut unique, reject.clone()));
        let mut stages = self.stages.lock().unwrap_or_else(PoisonError::into_inner);
        stages.insert(stage.to_owned(), unique);
    }

    /// Distinct clips rejected by `stage`, or by any stage.
    pub fn clips(&self, stage: Option<&str>) -> u64 {
        let stages = self.stages.lock().unwrap_or_else(PoisonError::into_inner);
        let chosen = stages.iter().filter(|(name, _)| stage.is_none_or(|stage| *name == stage));
        let clips: BTreeSet<&str> =
            chosen.flat_map(|(_, unique)| unique.keys().map(|(clip, _)| clip.as_str())).collect();
        clips.len() as u64
    }

    /// Distinct clips by reason, over all stages.
    pub fn by_reason(&self) -> BTreeMap<String, u64> {
        let stages = self.stages.lock().unwrap_or_else(PoisonError::into_inner);
        let distinct: BTreeSet<(&str, &str)> = stages
            .values()
            .flat_map(|unique| unique.keys().map(|(clip, reason)| (reason.as_str(), clip.as_str())))
            .collect();
        distinct.into_iter().fold(BTreeMap::new(), |mut counts, (reason, _)| {
            *counts.entry(reason.to_owned()).or_default() += 1;
            counts
        })
    }

    /// Writes the rejects of `stage` to `dir/<stage>.parquet`, also when there are none.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write(&self, stage: &str, dir: &Path) -> Result<(), RunError> {
        let rows: Vec<Reject> = {
            let stages = self.stages.lock().unwrap_or_else(PoisonError::into_inner);
            stages.get(stage).map(|unique| unique.values().cloned().collect()).unwrap_or_default()
        };
        let text = |f: fn(&Reject) -> &str| -> ArrayRef {
            Arc::new(StringArray::from_iter_values(rows.iter().map(f)))
        };
        let columns: Vec<ArrayRef> = vec![
            Arc::new(StringArray::from(vec![stage; rows.len()])),
            text(|reject| &reject.clip_id),
            text(|reject| &reject.uri),
            text(|reject| &reject.reason),
            text(|reject| &reject.message),
            Arc::new(BooleanArray::from_iter(rows.iter().map(|reject| Some(reject.whole)))),
        ];
        let mut writer = TableWriter::create(&dir.join(format!("{stage}.parquet")), &schema())?;
        writer.write(RecordBatch::try_new(schema(), columns)?)?;
        writer.finish()?;
        Ok(())
    }
}

fn schema() -> SchemaRef {
    let field = |name: &str| Field::new(name, DataType::Utf8, false);
    let mut fields = ["stage", "clip_id", "uri", "reason", "message"].map(field).to_vec();
    fields.push(Field::new("whole", DataType::Boolean, false));
    Arc::new(Schema::new(fields))
}

#[cfg(test)]
mod tests {
    use loev_ops::RejectKind;

    use super::*;

    #[test]
    fn a_clip_counts_once_however_many_views_fail() {
        let silent = |second: u32| {
            Reject::new("a", "a.wav", &AudioError::new(RejectKind::Silent, format!("silent at {second} s")))
        };
        let collected = Collected::default();
        for (partition, second) in [(0, 9), (1, 3), (0, 5)] {
            collected.add(partition, silent(second));
        }
        assert_eq!(collected.all(), [silent(3)], "the kept message is order-free");
        assert_eq!((collected.take(0), collected.take(0)), (vec![silent(5)], vec![]));

        let rejects = Rejects::default();
        rejects.enter("views", &[silent(5), silent(3)]);
        rejects
            .enter("embed", &[Reject::new("a", "a.wav", &AudioError::new(RejectKind::Corrupt, "bad frame"))]);
        assert_eq!((rejects.clips(None), rejects.clips(Some("views"))), (1, 1));
        assert_eq!(rejects.by_reason().into_values().collect::<Vec<_>>(), [1, 1]);
    }
}
