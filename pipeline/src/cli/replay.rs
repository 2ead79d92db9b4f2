//! `loev replay`: a view again, from its row.

use std::path::PathBuf;

use arrow::array::RecordBatch;
use loev_ops::draw_table::draws_from_batch;
use loev_ops::views::Chain;
use loev_ops::wav::write_wav;

use super::{Failure, runtime};
use crate::error::RunError;
use crate::exec::columns::{URI, required, text};
use crate::exec::draw::VIEW_ID;
use crate::exec::render::{Output, ViewRenderer};
use crate::exec::scan::Table;
use crate::run::dir::RunDir;
use crate::stages::views::chain_of;

#[derive(Debug, clap::Args)]
pub struct ReplayArguments {
    /// The run's directory.
    run: PathBuf,
    /// The view, as in the column `view_id`.
    view_id: String,
    /// The WAV file to write: mono, 32-bit float, at the views' sample rate.
    #[arg(short, long)]
    output: PathBuf,
}

pub fn replay(arguments: &ReplayArguments) -> Result<(), Failure> {
    let (chain, row) = runtime()?.block_on(find(arguments))?;
    let uris = text(&row, URI)?;
    let uri = required(&uris, URI, 0)?;
    let draws = draws_from_batch(&chain, &row).map_err(RunError::from)?;
    ViewRenderer::new(&chain, &Output::Audio)
        .and_then(|mut renderer| renderer.render(uri, &draws))
        .and_then(|samples| write_wav(&arguments.output, chain.sample_rate, &[&samples]))
        .map_err(|e| RunError::Engine(format!("view {}: {e}", arguments.view_id)))?;
    eprintln!("wrote {}", arguments.output.display());
    Ok(())
}

/// The row of the view, in whichever table of draws it is.
async fn find(arguments: &ReplayArguments) -> Result<(Chain, RecordBatch), RunError> {
    let manifest = RunDir::read_manifest(&arguments.run)?;
    let dir = RunDir::open(&arguments.run);
    let session = loev_sql::open_run(&arguments.run, 1, None).await?.context;
    for name in manifest.stages.iter().filter(|(_, stage)| stage.kind == "views").map(|(name, _)| name) {
        let chain = chain_of(name, &Table::open(&dir.table(name))?.schema)?;
        let id = arguments.view_id.replace('\'', "''");
        let query = format!("select * from \"{name}\" where {VIEW_ID} = '{id}'");
        let found = loev_sql::query(&session, &query).await?;
        if let Some(row) = found.into_iter().find(|batch| batch.num_rows() > 0) {
            return Ok((chain, row.slice(0, 1)));
        }
    }
    Err(RunError::RunDir {
        path: arguments.run.clone(),
        message: format!(
            "there is no view `{}`; the column {VIEW_ID} of a views table names them",
            arguments.view_id
        ),
    })
}
