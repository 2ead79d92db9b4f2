//! What could not be used, and why: the table `rejects`.
//!
//! A row stands for a clip, or for a part of one: where only some segments fail, such as silent ones, the
//! message names the first and the others go on.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::{ArrayRef, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use loev_ops::{AudioError, RejectKind};

use crate::error::RunError;
use crate::exec::write::TableWriter;

/// The name of the table.
pub const TABLE: &str = "rejects";

/// Rejects of a whole run, one for each (stage, clip, reason). Order of arrival does not matter.
#[derive(Debug, Default)]
pub struct Rejects {
    rows: Mutex<BTreeMap<(String, String, RejectKind), Reject>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Reject {
    uri: String,
    message: String,
}

impl Rejects {
    /// Records that `stage` could not use a clip. The smallest message of equal rejects is kept, so
    /// that the table does not depend on which view of a clip failed first.
    pub fn add(&self, stage: &str, clip_id: &str, uri: &str, error: &AudioError) {
        let key = (stage.to_owned(), clip_id.to_owned(), error.kind);
        let reject = Reject { uri: uri.to_owned(), message: error.message.clone() };
        let mut rows = self.rows.lock().unwrap_or_else(PoisonError::into_inner);
        rows.entry(key)
            .and_modify(|kept| {
                if reject.message < kept.message {
                    kept.message.clone_from(&reject.message);
                }
            })
            .or_insert(reject);
    }

    /// Distinct clips rejected by `stage`, or by any stage.
    pub fn clips(&self, stage: Option<&str>) -> u64 {
        let rows = self.rows.lock().unwrap_or_else(PoisonError::into_inner);
        let mut clips: Vec<&str> = rows
            .keys()
            .filter(|(s, ..)| stage.is_none_or(|stage| s == stage))
            .map(|(_, c, _)| c.as_str())
            .collect();
        clips.sort_unstable();
        clips.dedup();
        clips.len() as u64
    }

    /// Distinct clips by reason, over all stages.
    pub fn by_reason(&self) -> BTreeMap<RejectKind, u64> {
        let rows = self.rows.lock().unwrap_or_else(PoisonError::into_inner);
        let distinct: BTreeSet<(RejectKind, &str)> =
            rows.keys().map(|(_, clip, kind)| (*kind, clip.as_str())).collect();
        distinct.into_iter().fold(BTreeMap::new(), |mut counts, (kind, _)| {
            *counts.entry(kind).or_default() += 1;
            counts
        })
    }

    /// Writes the rejects of `stage` to `dir/<stage>.parquet`, also when there are none.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write(&self, stage: &str, dir: &Path) -> Result<(), RunError> {
        let rows = self.rows.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let rows: Vec<_> = rows.iter().filter(|((s, ..), _)| s == stage).collect();
        let text = |f: &dyn Fn(usize) -> String| -> ArrayRef {
            Arc::new(StringArray::from_iter_values((0..rows.len()).map(f)))
        };
        let columns = vec![
            text(&|i| rows[i].0.0.clone()),
            text(&|i| rows[i].0.1.clone()),
            text(&|i| rows[i].1.uri.clone()),
            text(&|i| rows[i].0.2.as_str().to_owned()),
            text(&|i| rows[i].1.message.clone()),
        ];
        let mut writer = TableWriter::create(&dir.join(format!("{stage}.parquet")), &schema())?;
        writer.write(RecordBatch::try_new(schema(), columns)?)?;
        writer.finish()?;
        Ok(())
    }
}

fn schema() -> SchemaRef {
    let field = |name: &str| Field::new(name, DataType::Utf8, false);
    Arc::new(Schema::new(["stage", "clip_id", "uri", "reason", "message"].map(field).to_vec()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clip_counts_once_however_many_views_fail() {
        let rejects = Rejects::default();
        for second in [9, 3, 5] {
            let error = AudioError::new(RejectKind::Silent, format!("silent at {second} s"));
            rejects.add("views", "a", "a.wav", &error);
        }
        rejects.add("embed", "a", "a.wav", &AudioError::new(RejectKind::Corrupt, "bad frame"));
        assert_eq!((rejects.clips(None), rejects.clips(Some("views"))), (1, 1));
        assert_eq!(rejects.by_reason().into_values().collect::<Vec<_>>(), [1, 1]);
        let rows = rejects.rows.lock().unwrap();
        assert!(rows.values().any(|r| r.message == "silent at 3 s"), "the kept message is order-free");
    }
}
