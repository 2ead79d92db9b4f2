//! `sql`: any SELECT over the tables of earlier stages.

use std::collections::BTreeMap;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Int32Type};
use datafusion::prelude::col;
use futures::StreamExt;

use super::{Content, Outcome};
use crate::error::RunError;
use crate::exec::columns::{CLIP_ID, SHARD, primitive};
use crate::exec::write::TableWriter;
use crate::resume::ledger::Inputs;
use crate::resume::recipe::Recipe;
use crate::resume::work::{Job, Work};
use crate::run::context::{Context, shard_file};
use crate::spec::stage::Sql;
use crate::spec::{Kind, Stage};

/// What a `sql` stage has to make: its query may look at all that its inputs hold.
///
/// # Errors
/// When an input is not finished.
pub fn work(inputs: &Inputs<'_>, name: &str, options: &Sql) -> Result<Work, RunError> {
    let mut read = BTreeMap::new();
    for input in inputs.graph.inputs(name) {
        let side = inputs.pipeline.stages.get(input).map(Stage::side_tables).unwrap_or_default();
        for table in inputs.ledger.tables_of(input, side) {
            read.insert(table, Content { digest: inputs.content(table, None)? });
        }
    }
    let recipe = Recipe::new(Kind::Sql, 1).options(options, &[]).with("inputs", read);
    Ok(Work::whole(recipe.with("engine", datafusion::DATAFUSION_VERSION)))
}

/// Runs the query of a `sql` stage. A result that still has the columns `clip_id` and `shard` keeps
/// its shards and is ordered by `clip_id` within each; any other result is one file, in the order of
/// the query.
///
/// # Errors
/// When the query fails or the table cannot be written.
pub async fn run(context: &Context, job: &Job, name: &str, query: &str) -> Result<Outcome, RunError> {
    let stage = context.stage(name, 0, "rows");
    let session = context.session(context.graph.inputs(name)).await?;
    let mut result = loev_sql::plan(&session, query).await?;
    let schema = result.schema().as_arrow();
    let sharded = schema.field_with_name(SHARD).is_ok_and(|f| *f.data_type() == DataType::Int32)
        && schema.field_with_name(CLIP_ID).is_ok();
    if sharded {
        result = result.sort(vec![col(SHARD).sort(true, false), col(CLIP_ID).sort(true, false)])?;
    }

    let dir = context.dir.create_table(name)?;
    let mut rows = result.execute_stream().await?;
    let schema = rows.schema();
    let mut open: Option<(i32, TableWriter)> = None;
    let enter = |writer: TableWriter| job.enter(writer.finish()?.receipt(name, &job.recipe, Vec::new()));
    while let Some(batch) = rows.next().await {
        stage.interrupt.check()?;
        let batch = batch?;
        stage.bar.add(batch.num_rows() as u64);
        let runs = if sharded { shard_runs(&batch)? } else { vec![(0, batch)] };
        for (shard, rows) in runs {
            if open.as_ref().is_some_and(|(current, _)| *current != shard)
                && let Some((_, writer)) = open.take()
            {
                enter(writer)?;
            }
            let (_, writer) = match &mut open {
                Some(open) => open,
                None => {
                    let path = dir.join(shard_file(shard.unsigned_abs() as usize));
                    open.insert((shard, TableWriter::create(&path, &schema)?))
                }
            };
            writer.write(rows)?;
        }
    }
    // A table without rows still has a file, and through it a schema.
    let last = match open {
        Some((_, writer)) => writer,
        None => TableWriter::create(&dir.join(shard_file(0)), &schema)?,
    };
    enter(last)?;
    stage.bar.finish();
    Ok(Outcome::default())
}

/// Splits rows that are ordered by shard.
fn shard_runs(batch: &RecordBatch) -> Result<Vec<(i32, RecordBatch)>, RunError> {
    let shards = primitive::<Int32Type>(batch, SHARD)?;
    let mut from = 0;
    Ok(shards
        .values()
        .chunk_by(|a, b| a == b)
        .map(|run| {
            let rows = batch.slice(from, run.len());
            from += run.len();
            (run[0], rows)
        })
        .collect())
}
