//! Probing files, and remembering what was found.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema};
use futures::{StreamExt, stream};
use loev_ops::jams::{self, Jams};
use loev_ops::source::{FileInfo, Limits, probe};
use loev_ops::{AudioError, RejectKind};
use loev_sql::store;
use loev_sql::{Location, SqlError, StoreFault};
use serde::{Deserialize, Serialize};

use super::listing::{Found, Listing};
use crate::error::RunError;
use crate::exec::columns::text;
use crate::exec::scan::Table;
use crate::exec::write::TableWriter;
use crate::run::context::Context;
use crate::run::stage::StageHandle;
use crate::spec::stage::{ClipLimits, Files};

/// Counts changes of the code that alter what a probe finds.
pub(super) const VERSION: u32 = 1;
/// The entry of a table of probes that says under which options they were made.
const PROBE: &str = "loev.probe";

/// What a probe found, as it is remembered.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Outcomes {
    Good(Info),
    Bad { reason: String, message: String },
}

/// [`FileInfo`], on disk.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Info {
    pub(super) codec: String,
    pub(super) container: String,
    pub(super) rate: u32,
    pub(super) channels: u16,
    pub(super) frames: u64,
    pub(super) seconds: f64,
    pub(super) bytes: u64,
    pub(super) digest: String,
}

impl From<FileInfo> for Info {
    fn from(info: FileInfo) -> Self {
        let FileInfo { codec, container, rate, channels, frames, seconds, bytes, digest } = info;
        Self { codec, container, rate, channels, frames, seconds, bytes, digest }
    }
}

/// A probed file, and the labels of its annotations.
pub(super) struct Probe {
    pub(super) outcome: Outcomes,
    pub(super) labels: Result<Jams, AudioError>,
}

pub(super) struct Prober<'a> {
    context: &'a Context,
    stage: &'a StageHandle,
    limits: Limits,
    /// A digest of everything that a probe depends on beside the file.
    key: String,
}

impl<'a> Prober<'a> {
    pub(super) fn new(context: &'a Context, stage: &'a StageHandle, options: &Files) -> Self {
        let limits = limits(options);
        let key = blake3::hash(format!("{VERSION} {limits:?}").as_bytes()).to_hex().to_string();
        Self { context, stage, limits, key }
    }

    /// Probes the chosen files, or remembers what it found when they were as they are now.
    pub(super) async fn probe(
        &self,
        listing: &Arc<Listing>,
        chosen: &[u32],
        memory: &Path,
    ) -> Result<Vec<Probe>, RunError> {
        let known = Arc::new(self.known(memory));
        let jobs = chosen.iter().map(|i| {
            let (listing, known, i) = (Arc::clone(listing), Arc::clone(&known), *i as usize);
            let (stage, limits) = (self.stage.clone(), self.limits.clone());
            self.context.pool.submit(move || {
                stage.interrupt.check()?;
                let Found { source, stamp, annotations, .. } = &listing.files[i];
                let key = (source.uri(), stamp.clone());
                let outcome = match known.get(&key) {
                    Some(outcome) => outcome.clone(),
                    None => match probe(source, &limits) {
                        Ok(info) => Outcomes::Good(info.into()),
                        Err(error) => bad(&error),
                    },
                };
                let labels = annotations.as_ref().map_or(Ok(Jams::default()), |(place, _)| read_jams(place));
                stage.bar.add(1);
                Ok::<_, RunError>(Probe { outcome, labels })
            })
        });
        let mut answers = stream::iter(jobs).buffered(4 * self.context.pool.threads());
        let mut probes = Vec::with_capacity(chosen.len());
        while let Some(answer) = answers.next().await {
            probes.push(match answer.map_err(|_| RunError::Interrupted)? {
                Ok(probe) => probe?,
                Err(panic) => {
                    let outcome = bad(&AudioError::new(RejectKind::Panicked, panic));
                    Probe { outcome, labels: Ok(Jams::default()) }
                }
            });
        }
        Ok(probes)
    }

    /// What earlier probes of a shard's files found, by path and stamp. Nothing when that cannot be read: the files are
    /// probed again then.
    fn known(&self, memory: &Path) -> HashMap<(String, String), Outcomes> {
        let mut known = HashMap::new();
        let Ok(table) = Table::of_file(memory) else { return known };
        if table.schema.metadata().get(PROBE) != Some(&self.key) {
            return known;
        }
        for rows in table.read(&["path", "stamp", "outcome"]).unwrap_or_default() {
            let columns = ["path", "stamp", "outcome"].map(|name| text(&rows, name));
            let [Ok(paths), Ok(stamps), Ok(outcomes)] = columns else { continue };
            for row in 0..rows.num_rows() {
                if let Ok(outcome) = serde_json::from_str(outcomes.value(row)) {
                    known.insert((paths.value(row).to_owned(), stamps.value(row).to_owned()), outcome);
                }
            }
        }
        known
    }

    pub(super) fn remember(
        &self,
        listing: &Listing,
        chosen: &[u32],
        probes: &[Probe],
        memory: &Path,
    ) -> Result<(), RunError> {
        // What the disk or the network failed with may be over the next time.
        let lasts = |outcome: &Outcomes| match outcome {
            Outcomes::Good(_) => true,
            Outcomes::Bad { reason, .. } => reason != RejectKind::Io.as_str(),
        };
        let (mut paths, mut stamps, mut outcomes) = (Vec::new(), Vec::new(), Vec::new());
        for (i, Probe { outcome, .. }) in chosen.iter().zip(probes).filter(|(_, probe)| lasts(&probe.outcome))
        {
            let Found { source, stamp, .. } = &listing.files[*i as usize];
            paths.push(source.uri());
            stamps.push(stamp.as_str());
            outcomes.push(serde_json::to_string(outcome).map_err(|e| RunError::Engine(e.to_string()))?);
        }
        let columns: Vec<ArrayRef> = vec![
            Arc::new(StringArray::from(paths)),
            Arc::new(StringArray::from(stamps)),
            Arc::new(StringArray::from(outcomes)),
        ];
        let fields =
            ["path", "stamp", "outcome"].map(|name| Field::new(name, DataType::Utf8, false)).to_vec();
        let metadata = [(PROBE.to_owned(), self.key.clone())].into();
        let schema = Arc::new(Schema::new_with_metadata(fields, metadata));
        let mut writer = TableWriter::create(memory, &schema)?;
        writer.write(RecordBatch::try_new(schema, columns)?)?;
        writer.finish()?;
        Ok(())
    }
}

fn bad(error: &AudioError) -> Outcomes {
    Outcomes::Bad { reason: error.kind.as_str().to_owned(), message: error.message.clone() }
}

fn limits(options: &Files) -> Limits {
    let ClipLimits { max_channels, max_rate, max_seconds, max_bytes } = options.limits;
    let min_seconds = options.min_seconds;
    Limits { max_channels, max_rate, max_seconds, max_bytes, min_seconds, ..Limits::default() }
}

/// The labels of a JAMS file; none where there is no such file.
fn read_jams(place: &Location) -> Result<Jams, AudioError> {
    let read = match place {
        Location::Local(path) => Jams::read(path),
        Location::Object { .. } => match store::read(place, jams::MAX_BYTES) {
            Ok(bytes) => Jams::parse(&bytes, &place.to_string()),
            Err(error) => {
                let kind = match &error {
                    SqlError::Store { fault: StoreFault::Missing, .. } => RejectKind::Missing,
                    SqlError::Store { fault: StoreFault::TooLarge, .. } => RejectKind::OverLimit,
                    _ => RejectKind::Io,
                };
                Err(AudioError::new(kind, error.to_string()))
            }
        },
    };
    match read {
        Err(error) if error.kind == RejectKind::Missing => Ok(Jams::default()),
        read => read,
    }
}
