//! A sample of views, drawn and rendered again; and a sample of source files, read again.

use arrow::array::AsArray;
use arrow::datatypes::Float32Type;
use loev_ops::rng::Key;
use loev_ops::source::{Limits, Source, probe};

use super::{Options, Report, Run};
use crate::error::RunError;
use crate::exec::columns::{CLIP_ID, SECONDS, URI, number, required, text};
use crate::exec::render::{Output, ViewRenderer};
use crate::exec::scan::Table;
use crate::run::views::{StoredView, sample};
use crate::spec::Stage;
use crate::stages::side_table;
use crate::stages::views::pools_of;

const DRAWS: &str = "draws";
const RENDERED: &str = "rendering";
const SOURCES: &str = "sources";

pub(super) async fn check(run: &Run, options: &Options, report: &mut Report) -> Result<(), RunError> {
    for (name, _) in &run.stages {
        options.interrupt.check()?;
        let (check, done) = match run.pipeline.stages.get(name) {
            Some(Stage::Views(views)) => {
                (DRAWS, of_stage(run, name, views.materialize, options, report).await)
            }
            Some(Stage::Files(_)) => (SOURCES, sources(run, name, options, report)),
            _ => continue,
        };
        match done {
            Err(RunError::Interrupted) => return Err(RunError::Interrupted),
            // The file that is at fault is told of by its digest.
            Err(error) => report.fault(check, format!("`{name}` cannot be looked at: {error}")),
            Ok(()) => {}
        }
    }
    Ok(())
}

async fn of_stage(
    run: &Run,
    name: &str,
    materialised: bool,
    options: &Options,
    report: &mut Report,
) -> Result<(), RunError> {
    let views = sample(run.dir.root(), Some(name), options.views).await?;
    let Some(first) = views.first() else { return Ok(()) };
    let chain = first.chain.clone();
    let pools = pools_of(name, &chain, &|table| Table::open(&run.dir.table(table)))?;
    let key = Key::root(run.pipeline.seed).with_str(name);
    let bar = options.progress.bar(name, views.len() as u64, "views rendered again");
    let (drawn, rendered) = (report.faults.len(), report.faults.len());
    let mut renderer = match ViewRenderer::new(&chain, &Output::Audio) {
        Ok(renderer) => renderer,
        Err(error) => {
            report.fault(RENDERED, format!("`{name}`: {error}"));
            return Ok(());
        }
    };
    let mut silent = 0;
    for view in &views {
        options.interrupt.check()?;
        bar.add(1);
        let StoredView { draw, uri, row, .. } = view;
        let id = required(&text(row, "view_id")?, "view_id", 0)?.to_owned();
        let clip = required(&text(row, CLIP_ID)?, CLIP_ID, 0)?.to_owned();
        let seconds = number(row, SECONDS)?.value(0);
        let again = chain.draw_segment(key, &clip, seconds, draw.segment, draw.epoch, &pools);
        if !again.is_ok_and(|draws| draws.contains(draw)) {
            report.fault(DRAWS, format!("{id}: drawn again, its parameters are others"));
        }
        let samples = match renderer.render(uri, std::slice::from_ref(draw)) {
            Ok(samples) => samples,
            Err(error) => {
                // A segment that could not be rendered the first time is told of in `rejects`.
                tracing::debug!(view = id, %error, "not rendered");
                silent += 1;
                continue;
            }
        };
        if !materialised {
            if samples.iter().any(|sample| !sample.is_finite()) {
                report.fault(RENDERED, format!("{id}: samples that are not finite"));
            }
            continue;
        }
        match stored(run, &side_table(name, "audio"), &id).await? {
            None => report.fault(RENDERED, format!("{id}: renders, but its audio is not stored")),
            Some(audio) if audio != samples => {
                let worst = audio.iter().zip(&samples).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
                report.fault(RENDERED, format!("{id}: rendered again, samples differ by up to {worst:e}"));
            }
            Some(_) => {}
        }
    }
    bar.finish();
    report.passed(DRAWS, drawn, format!("{} views of `{name}`", views.len()));
    let how = if materialised { "equal to the stored audio" } else { "finite" };
    report.passed(RENDERED, rendered, format!("{} views of `{name}`, {how}", views.len() - silent));
    Ok(())
}

/// The stored audio of a view.
async fn stored(run: &Run, table: &str, view_id: &str) -> Result<Option<Vec<f32>>, RunError> {
    let session = loev_sql::new_session(1, None)?;
    loev_sql::register_table(&session, table, &run.dir.table(table)).await?;
    let id = view_id.replace('\'', "''");
    let rows =
        loev_sql::query(&session, &format!("select audio from \"{table}\" where view_id = '{id}'")).await?;
    Ok(rows.iter().find(|rows| rows.num_rows() > 0).and_then(|rows| {
        let lists = rows.column(0).as_fixed_size_list_opt()?;
        Some(lists.value(0).as_primitive_opt::<Float32Type>()?.values().to_vec())
    }))
}

/// Files at their places, with the content they had.
fn sources(run: &Run, name: &str, options: &Options, report: &mut Report) -> Result<(), RunError> {
    let before = report.faults.len();
    let mut clips = Vec::new();
    for rows in Table::open(&run.dir.table(name))?.read(&[CLIP_ID, URI, "digest"])? {
        let (ids, uris, digests) = (text(&rows, CLIP_ID)?, text(&rows, URI)?, text(&rows, "digest")?);
        for row in 0..rows.num_rows() {
            clips.push([&ids, &uris, &digests].map(|column| column.value(row).to_owned()));
        }
    }
    let wanted = options.sources.min(clips.len());
    for i in 0..wanted {
        options.interrupt.check()?;
        let Some([id, uri, digest]) = clips.get(i * clips.len() / wanted) else { continue };
        let Ok(source @ (Source::File(_) | Source::Remote(_))) = Source::parse(uri) else { continue };
        match probe(&source, &Limits { min_seconds: 0.0, ..Limits::default() }) {
            Ok(info) if info.digest == *digest => {}
            Ok(_) => report.fault(SOURCES, format!("{id}: the file is another than the one that was used")),
            Err(error) => report.fault(SOURCES, format!("{id}: {error}")),
        }
    }
    report.passed(SOURCES, before, format!("{wanted} of {} files of `{name}`", clips.len()));
    Ok(())
}
