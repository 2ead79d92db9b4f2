//! What rows say of each other: names, joins, splits, and that no clip was lost.

use arrow::array::RecordBatch;
use datafusion::prelude::SessionContext;
use loev_sql::quoted;

use super::{Options, Report, Run};
use crate::error::RunError;
use crate::exec::columns::text;
use crate::spec::Stage;
use crate::stages::side_table;

const NAMES: &str = "names";
const JOINS: &str = "joins";
const SPLITS: &str = "splits";
const LOST: &str = "lost clips";
/// Rows named in a fault; more are counted.
const NAMED: usize = 3;

pub(super) async fn check(run: &Run, options: &Options, report: &mut Report) -> Result<(), RunError> {
    let session = loev_sql::open_run(run.dir.root(), options.threads, None).await?.context;
    for (name, _) in &run.stages {
        options.interrupt.check()?;
        let Some(stage) = run.pipeline.stages.get(name) else { continue };
        let found = of_stage(&session, name, stage, report).await;
        // A table that cannot be read is a fault of its files, and told there.
        if let Err(error) = found {
            report.fault(NAMES, format!("`{name}` cannot be asked: {error}"));
        }
    }
    Ok(())
}

async fn of_stage(
    session: &SessionContext,
    name: &str,
    stage: &Stage,
    report: &mut Report,
) -> Result<(), RunError> {
    match stage {
        Stage::Files(_) | Stage::Synth(_) => unique(session, name, "clip_id", report).await?,
        Stage::Decode(decode) => {
            unique(session, name, "clip_id", report).await?;
            join(session, name, &decode.from, report).await?;
            lost(session, name, &decode.from, report).await?;
        }
        Stage::Views(views) => {
            unique(session, name, "view_id", report).await?;
            join(session, name, &views.from, report).await?;
            lost(session, name, &views.from, report).await?;
            if views.materialize {
                let audio = side_table(name, "audio");
                unique(session, &audio, "view_id", report).await?;
                let query = format!(
                    "select view_id as name from {} where view_id not in (select view_id from {})",
                    quoted(&audio),
                    quoted(name)
                );
                let told = (
                    format!("`{audio}` with `{name}`"),
                    format!("views of `{audio}` that are not in `{name}`"),
                );
                none(session, &query, JOINS, told, report).await?;
            }
        }
        Stage::Embed(embed) => {
            join(session, name, &embed.from, report).await?;
            lost(session, name, &embed.from, report).await?;
        }
        Stage::Features(features) => {
            unique(session, name, "view_id", report).await?;
            join(session, name, &features.from, report).await?;
        }
        _ => {}
    }
    if has(session, name, &["clip_id", "split"]).await? {
        splits(session, name, report).await?;
    }
    Ok(())
}

async fn has(session: &SessionContext, table: &str, columns: &[&str]) -> Result<bool, RunError> {
    let schema = loev_sql::plan(session, &format!("select * from {} limit 0", quoted(table))).await?;
    let schema = schema.schema().as_arrow();
    Ok(columns.iter().all(|column| schema.index_of(column).is_ok()))
}

/// The query must give no row; the rows that it gives have the column `name`. `good` is told when there is none, `bad`
/// otherwise.
async fn none(
    session: &SessionContext,
    query: &str,
    check: &'static str,
    (good, bad): (String, String),
    report: &mut Report,
) -> Result<(), RunError> {
    let batches = loev_sql::query(session, query).await?;
    let total: usize = batches.iter().map(RecordBatch::num_rows).sum();
    if total == 0 {
        report.passed.push((check, good));
        return Ok(());
    }
    let mut names = Vec::new();
    for batch in &batches {
        let column = text(batch, "name")?;
        names.extend(column.iter().take(NAMED).map(|name| name.unwrap_or("NULL").to_owned()));
    }
    names.truncate(NAMED);
    let more = if total > names.len() { ", ..." } else { "" };
    report.fault(check, format!("{total} {bad}: {}{more}", names.join(", ")));
    Ok(())
}

async fn unique(
    session: &SessionContext,
    table: &str,
    column: &str,
    report: &mut Report,
) -> Result<(), RunError> {
    let query = format!(
        "select {column} as name from {} group by {column} having count(*) > 1 or {column} is null order by 1",
        quoted(table)
    );
    let bad = format!("values of {column} in `{table}` that are not unique");
    none(session, &query, NAMES, (format!("{column} in `{table}`"), bad), report).await
}

async fn join(
    session: &SessionContext,
    table: &str,
    from: &str,
    report: &mut Report,
) -> Result<(), RunError> {
    let query = format!(
        "select distinct clip_id as name from {} where clip_id not in (select clip_id from {}) order by 1",
        quoted(table),
        quoted(from)
    );
    let bad = format!("clips of `{table}` that are not in `{from}`");
    none(session, &query, JOINS, (format!("`{table}` with `{from}`"), bad), report).await
}

/// A clip is used, or it is rejected.
async fn lost(
    session: &SessionContext,
    stage: &str,
    from: &str,
    report: &mut Report,
) -> Result<(), RunError> {
    let query = format!(
        "select distinct clip_id as name from {} where clip_id not in (select clip_id from {}) \
         and clip_id not in (select clip_id from rejects where stage = '{}') order by 1",
        quoted(from),
        quoted(stage),
        stage.replace('\'', "''")
    );
    let bad = format!("clips neither in `{stage}` nor in `rejects`");
    none(session, &query, LOST, (format!("`{from}` into `{stage}`"), bad), report).await
}

/// A clip is in one split; and so is a recording, whatever it is called.
async fn splits(session: &SessionContext, table: &str, report: &mut Report) -> Result<(), RunError> {
    let query = |column: &str| {
        format!(
            "select {column} as name from {} where split is not null and {column} is not null \
             group by {column} having count(distinct split) > 1 order by 1",
            quoted(table)
        )
    };
    let told = (format!("clips of `{table}`"), format!("clips of `{table}` in more than one split"));
    none(session, &query("clip_id"), SPLITS, told, report).await?;
    if has(session, table, &["digest"]).await? {
        let good = format!("recordings of `{table}`");
        let bad = format!("recordings (equal files) of `{table}` in more than one split");
        none(session, &query("digest"), SPLITS, (good, bad), report).await?;
    }
    Ok(())
}
