//! The views of a stored run, one by one.

use std::path::Path;

use arrow::array::{Array, RecordBatch};
use arrow::compute::concat_batches;
use loev_ops::chain::Chain;
use loev_ops::draw_table::draws_from_batch;
use loev_ops::views::Draw;

use super::dir::RunDir;
use crate::error::RunError;
use crate::exec::columns::{URI, required, text};
use crate::exec::draw::VIEW_ID;
use crate::exec::scan::Table;
use crate::stages::views::chain_of;

/// A view of a run.
#[derive(Debug)]
pub struct StoredView {
    /// How it is rendered.
    pub chain: Chain,
    /// What was drawn for it.
    pub draw: Draw,
    /// Where the audio of its clip is.
    pub uri: String,
    /// Its row, with the labels as they hold for it.
    pub row: RecordBatch,
}

impl StoredView {
    fn new(chain: &Chain, row: RecordBatch) -> Result<Self, RunError> {
        let uri = required(&text(&row, URI)?, URI, 0)?.to_owned();
        let mut draws = draws_from_batch(chain, &row)?;
        match draws.pop() {
            Some(draw) => Ok(Self { chain: chain.clone(), draw, uri, row }),
            None => Err(RunError::Engine("a view without a row".to_owned())),
        }
    }
}

/// The view called `view_id`, in whichever stage it is.
///
/// # Errors
/// When the run cannot be read, or has no such view, or views of operators that have changed since.
pub async fn find(run: &Path, view_id: &str) -> Result<StoredView, RunError> {
    for stage in stages(run)? {
        let id = view_id.replace('\'', "''");
        let found = select(run, &stage, &format!("* from \"{stage}\" where {VIEW_ID} = '{id}'")).await?;
        if let Some(row) = found.filter(|rows| rows.num_rows() > 0) {
            return StoredView::new(&chain(run, &stage)?, row.slice(0, 1));
        }
    }
    let message = format!("there is no view `{view_id}`; the column {VIEW_ID} of a views table names them");
    Err(RunError::RunDir { path: run.to_owned(), message })
}

/// Up to `count` views of a stage (the first with views, unless one is named), spread over clips and views.
///
/// # Errors
/// As [`find`], and when there is no stage of views.
pub async fn sample(run: &Path, stage: Option<&str>, count: usize) -> Result<Vec<StoredView>, RunError> {
    let stages = stages(run)?;
    let found = match stage {
        None => stages.first(),
        Some(stage) => stages.iter().find(|name| *name == stage),
    };
    let Some(stage) = found else {
        let message = match stage {
            Some(stage) => format!("there is no stage `{stage}` of views; there are {}", stages.join(", ")),
            None => "the run has no stage of views".to_owned(),
        };
        return Err(RunError::RunDir { path: run.to_owned(), message });
    };
    let chain = chain(run, stage)?;
    let order = "clip_id, segment, epoch, view";
    let ids = select(run, stage, &format!("{VIEW_ID} from \"{stage}\" order by {order}")).await?;
    let Some(ids) = ids else { return Ok(Vec::new()) };
    let ids = text(&ids, VIEW_ID)?;
    let (total, views) = (ids.len(), chain.views_per_segment());
    let mut chosen = Vec::new();
    for i in 0..count.min(total) {
        // Neighbouring rows are views of one segment: step over whole segments, and take another view of each.
        let first = i * total / count.min(total) / views * views;
        let row = (first + i % views).min(total - 1);
        chosen.push(format!("'{}'", required(&ids, VIEW_ID, row)?.replace('\'', "''")));
    }
    if chosen.is_empty() {
        return Ok(Vec::new());
    }
    let query = format!("* from \"{stage}\" where {VIEW_ID} in ({}) order by {order}", chosen.join(", "));
    let Some(rows) = select(run, stage, &query).await? else { return Ok(Vec::new()) };
    (0..rows.num_rows()).map(|row| StoredView::new(&chain, rows.slice(row, 1))).collect()
}

/// The stages of a run whose tables hold views.
fn stages(run: &Path) -> Result<Vec<String>, RunError> {
    let manifest = RunDir::read_manifest(run)?;
    Ok(manifest.stages.into_iter().filter(|(_, stage)| stage.kind == "views").map(|(name, _)| name).collect())
}

fn chain(run: &Path, stage: &str) -> Result<Chain, RunError> {
    chain_of(stage, &Table::open(&RunDir::open(run).table(stage))?.schema)
}

/// The rows that `select ...` over the table of one stage gives, if any.
async fn select(run: &Path, stage: &str, query: &str) -> Result<Option<RecordBatch>, RunError> {
    let session = loev_sql::new_session(1, None)?;
    loev_sql::register_table(&session, stage, &RunDir::open(run).table(stage)).await?;
    let batches = loev_sql::query(&session, &format!("select {query}")).await?;
    Ok(match batches.first() {
        Some(first) => Some(concat_batches(first.schema_ref(), &batches)?),
        None => None,
    })
}
