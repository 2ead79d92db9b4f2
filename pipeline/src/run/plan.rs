//! What a run would do, without doing it.

use std::collections::BTreeSet;

use super::dir::RunDir;
use crate::error::RunError;
use crate::resume::ledger::{Inputs, Ledger};
use crate::resume::work::Status;
use crate::spec::{Graph, Pipeline};
use crate::stages;

/// What is left to do of a stage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// Nothing: its rows.
    UpToDate(u64),
    /// Something, whatever the stages before it do.
    ToDo {
        /// Shards left, and all, for a stage that is made shard by shard.
        shards: Option<(usize, usize)>,
        /// Why.
        reasons: Vec<String>,
    },
    /// It depends on what comes out of these stages.
    After(Vec<String>),
    /// Its input cannot be looked at, such as a folder that is not there.
    Unknown(String),
}

/// The state of every stage, in the order of the graph. `dir` is where the run would work, if it exists; `again` are
/// stages to make in any case.
///
/// # Errors
/// When the receipts cannot be read.
pub async fn plan(
    pipeline: &Pipeline,
    graph: &Graph,
    dir: Option<&RunDir>,
    again: &BTreeSet<String>,
) -> Result<Vec<(String, State)>, RunError> {
    let mut ledger = Ledger::default();
    let mut states: Vec<(String, State)> = Vec::new();
    for name in &graph.order {
        let Some(stage) = pipeline.stages.get(name) else { continue };
        let is_open = |input: &&String| {
            states.iter().any(|(name, state)| name == *input && !matches!(state, State::UpToDate(_)))
        };
        let open: Vec<String> = graph.inputs(name).iter().filter(is_open).cloned().collect();
        let state = if !open.is_empty() {
            State::After(open)
        } else {
            match stages::work(&Inputs { pipeline, graph, ledger: &ledger }, name, stage).await {
                Err(error) => State::Unknown(error.to_string()),
                Ok(work) => {
                    let status = Status::new(dir, name, work)?;
                    match &status.stored.done {
                        Some(_) if again.contains(name) => {
                            let shards = status.shards().map(|(_, all)| (all, all));
                            State::ToDo { shards, reasons: vec!["it was asked for".to_owned()] }
                        }
                        Some(done) => {
                            ledger.enter(name, &status.stored);
                            State::UpToDate(done.record.rows)
                        }
                        None => State::ToDo { shards: status.shards(), reasons: status.reasons() },
                    }
                }
            }
        };
        states.push((name.clone(), state));
    }
    Ok(states)
}
