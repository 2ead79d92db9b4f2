//! What is printed when a stage, or the run, is done.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::path::Path;

use arrow::array::RecordBatch;

use super::dir::{Manifest, RunDir, StageRecord};
use super::rejects::Rejects;
use crate::error::RunError;
use crate::exec::columns::{number, text};
use crate::spec::Kind;
use crate::stages::embed::BASELINE;
use crate::stages::probe::ALL;
use crate::stages::report::page_of;

/// Metrics that the closing table has no room for; they are in the stage's table.
const LEFT_OUT: &str = "'mirex_symmetric', 'balanced_accuracy'";

/// One line about a finished stage.
pub fn stage_line(name: &str, record: &StageRecord) -> String {
    let mut line =
        format!("{name:>14}  {}  {} rows in {}", record.kind, record.rows, duration(record.seconds));
    if record.rejects > 0 {
        let _ = write!(line, ", {} clips rejected", record.rejects);
    }
    if !record.note.is_empty() {
        let _ = write!(line, "  ({})", record.note);
    }
    line
}

fn duration(seconds: f64) -> String {
    match seconds {
        s if s < 60.0 => format!("{s:.1} s"),
        s => format!("{} min {:.0} s", (s / 60.0).floor(), s % 60.0),
    }
}

/// The closing words of a run: its probes, its rejects, and what to type next.
///
/// # Errors
/// When a table of the run cannot be read.
pub async fn closing(root: &Path, manifest: &Manifest, rejects: &Rejects) -> Result<String, RunError> {
    let mut out = String::new();
    let session = loev_sql::new_session(1, None)?;
    let probes: Vec<&String> =
        manifest.stages.iter().filter(|(_, record)| record.kind == "probe").map(|(name, _)| name).collect();
    for stage in &probes {
        loev_sql::register_table(&session, stage, root.join(RunDir::relative_table(stage))).await?;
        let query = format!(
            "select subspace, probe, task, metric, value, lo, hi, chance from \"{stage}\" \
             where probe = (select min(probe) from \"{stage}\") and metric not in ({LEFT_OUT}) order by task, metric"
        );
        for batch in loev_sql::query(&session, &query).await? {
            out.push_str(&probe_table(stage, &batch)?);
        }
    }
    let counts = rejects.by_reason();
    if !counts.is_empty() {
        let reasons: Vec<String> = counts.iter().map(|(kind, n)| format!("{n} {kind}")).collect();
        let _ = writeln!(
            out,
            "Clips rejected, wholly or in part: {} ({}).\n",
            rejects.clips(None),
            reasons.join(", ")
        );
    }
    if let Some(bytes) = manifest.peak_memory_bytes {
        let _ = writeln!(out, "Peak resident memory: {:.2} GiB.", bytes as f64 / f64::from(1 << 30));
    }
    for (name, _) in manifest.stages.iter().filter(|(_, record)| record.kind == Kind::Report.name()) {
        let _ = writeln!(out, "Report: open {}", root.join(page_of(name)).display());
    }
    let _ = writeln!(out, "Results are in {}. Ask them, for example:", root.display());
    let example = match probes.first() {
        Some(stage) => format!("select subspace, task, metric, value, lo, hi from {stage} order by 1, 2, 3"),
        None => "show tables".to_owned(),
    };
    let _ = writeln!(out, "\n  loev sql {} \"{example}\"", root.display());
    Ok(out)
}

/// Figures as a table: subspaces down, metrics across.
fn probe_table(stage: &str, rows: &RecordBatch) -> Result<String, RunError> {
    if rows.num_rows() == 0 {
        return Ok(String::new());
    }
    let (subspaces, probes) = (text(rows, "subspace")?, text(rows, "probe")?);
    let (tasks, metrics) = (text(rows, "task")?, text(rows, "metric")?);
    let [values, lo, hi, chance] = ["value", "lo", "hi", "chance"].map(|name| number(rows, name));
    let (values, lo, hi, chance) = (values?, lo?, hi?, chance?);
    let names: Vec<String> =
        (0..rows.num_rows()).map(|row| format!("{} {}", tasks.value(row), metrics.value(row))).collect();
    let mut columns: Vec<&String> = names.iter().collect();
    columns.dedup();
    let rank = |subspace: &str| match subspace {
        "invariant" => 0,
        ALL => 2,
        BASELINE => 3,
        _ => 1,
    };
    let order: BTreeSet<(u8, &str)> = subspaces.iter().flatten().map(|name| (rank(name), name)).collect();
    let order: Vec<&str> = order.into_iter().map(|(_, name)| name).collect();
    let cell = |subspace: &str, column: &String, show: &dyn Fn(usize) -> String| {
        let row =
            (0..rows.num_rows()).find(|row| subspaces.value(*row) == subspace && names[*row] == *column);
        row.map_or_else(String::new, show)
    };
    let mut table: Vec<Vec<String>> =
        vec![std::iter::once(String::new()).chain(columns.iter().map(|c| (*c).clone())).collect()];
    for subspace in &order {
        let show =
            |row: usize| format!("{:.2} [{:.2} {:.2}]", values.value(row), lo.value(row), hi.value(row));
        let cells = columns.iter().map(|column| cell(subspace, column, &show));
        table.push(std::iter::once((*subspace).to_owned()).chain(cells).collect());
    }
    if let Some(first) = order.first() {
        let show = |row: usize| format!("{:.2}", chance.value(row));
        let cells = columns.iter().map(|column| cell(first, column, &show));
        table.push(std::iter::once("chance".to_owned()).chain(cells).collect());
    }
    let mut out =
        format!("\n{stage}: {} probe on frozen embeddings, with 95% intervals\n\n", probes.value(0));
    let width = |column: usize| {
        table.iter().filter_map(|row| row.get(column)).map(|c| c.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..=columns.len()).map(width).collect();
    for row in &table {
        let cells: Vec<String> =
            row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        let _ = writeln!(out, "  {}", cells.join("   ").trim_end());
    }
    out.push('\n');
    Ok(out)
}
