//! Two runs side by side, by their manifests.

use std::path::Path;

use super::Report;
use crate::error::RunError;
use crate::resume::recipe::Recipe;
use crate::run::dir::{Figure, Manifest, RunDir};

const PIPELINE: &str = "pipeline";
const CODE: &str = "code";
const TABLE: &str = "table";
const RESULT: &str = "result";

/// Compares the run in `root` with another: its `run.json`, or the directory that holds it.
///
/// Tables must be equal byte for byte where both runs were made on machines of one class by one version; figures of
/// probes must lie within each other's 95% intervals everywhere.
///
/// # Errors
/// When a manifest cannot be read.
pub fn compare(root: &Path, other: &Path) -> Result<Report, RunError> {
    let ours = RunDir::read_manifest(root)?;
    let theirs = match other.is_dir() {
        true => RunDir::read_manifest(other)?,
        false => {
            let text = std::fs::read_to_string(other).map_err(RunError::io("cannot read", other))?;
            Manifest::parse(&text).map_err(|message| RunError::RunDir { path: other.to_owned(), message })?
        }
    };
    Ok(differences(&ours, &theirs))
}

fn differences(ours: &Manifest, theirs: &Manifest) -> Report {
    let mut report = Report::default();
    let recipe =
        |pipeline: &serde_json::Value| -> Option<Recipe> { serde_json::from_value(pipeline.clone()).ok() };
    let before = report.faults.len();
    if let (Some(ours), Some(theirs)) = (recipe(&ours.pipeline), recipe(&theirs.pipeline)) {
        for difference in ours.differences(&theirs) {
            report.fault(PIPELINE, format!("there -> here: {difference}"));
        }
    }
    report.passed(PIPELINE, before, "equal options and seeds".to_owned());

    let before = report.faults.len();
    for (name, version) in &ours.operators {
        match theirs.operators.get(name) {
            Some(other) if other != version => {
                report.fault(CODE, format!("operator `{name}`: version {version} here, {other} there"));
            }
            _ => {}
        }
    }
    let same_class = ours.machine == theirs.machine && ours.loev == theirs.loev;
    report.passed(
        CODE,
        before,
        match same_class {
            true => format!("loev {} on {} ({})", ours.loev, ours.machine.cpu, ours.machine.device),
            false => format!(
                "loev {} on {} ({}) here, {} on {} ({}) there: only figures can be compared",
                ours.loev,
                ours.machine.cpu,
                ours.machine.device,
                theirs.loev,
                theirs.machine.cpu,
                theirs.machine.device
            ),
        },
    );

    for (name, data) in &ours.data {
        // The curves of a training hold times.
        let timed = ours.stages.get(name).is_some_and(|stage| stage.kind == "train");
        match theirs.data.get(name) {
            None => report.fault(TABLE, format!("`{name}` is not there")),
            Some(other) if data.rows != other.rows => {
                report.fault(TABLE, format!("`{name}`: {} rows here, {} there", data.rows, other.rows));
            }
            Some(other) if same_class && !timed && data.digest != other.digest => {
                report.fault(TABLE, format!("`{name}`: equal rows in number, other content"));
            }
            Some(other) => {
                let how = if data.digest == other.digest { "equal files" } else { "equal in number of rows" };
                report.passed.push((TABLE, format!("`{name}`: {how}")));
            }
        }
    }
    for name in theirs.data.keys().filter(|name| !ours.data.contains_key(*name)) {
        report.fault(TABLE, format!("`{name}` is not here"));
    }
    for (stage, figures) in &ours.results {
        results(
            stage,
            figures,
            theirs.results.get(stage).map(Vec::as_slice).unwrap_or_default(),
            &mut report,
        );
    }
    report
}

fn results(stage: &str, ours: &[Figure], theirs: &[Figure], report: &mut Report) {
    let before = report.faults.len();
    for figure in ours {
        let same = |other: &&Figure| {
            (&other.subspace, &other.task, &other.probe, &other.metric)
                == (&figure.subspace, &figure.task, &figure.probe, &figure.metric)
        };
        let name =
            format!("{stage}: {} {} {} of {}", figure.probe, figure.task, figure.metric, figure.subspace);
        match theirs.iter().find(same) {
            None => report.fault(RESULT, format!("{name} is not there")),
            Some(other) if other.lo > figure.hi || other.hi < figure.lo => report.fault(
                RESULT,
                format!("{name}: {:.4} here, {:.4} there, beyond the intervals", figure.value, other.value),
            ),
            Some(_) => {}
        }
    }
    report.passed(RESULT, before, format!("{} figures of `{stage}` within the intervals", ours.len()));
}
