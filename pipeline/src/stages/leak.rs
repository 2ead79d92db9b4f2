//! `leak`: whether cues that have nothing to do with the music tell what was done to a segment.
//!
//! ```text
//! views of the first epoch ─► segments ─► pool: read, then
//!     untouched   decoded and resample only      ┐
//!     identity    the variant chain at identity  ├─► cues ─► linear probes per cue
//!     factor      the variant chain as drawn     │
//!     view        both chains as drawn           ┘
//! ```

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::{ArrayRef, BooleanArray, Float64Array, Int64Array, RecordBatch, StringArray};
use loev_models::evaluate::leak::{self, Cues, NAMES, Segments, Told};
use loev_models::evaluate::{EvaluateError, Parameter};
use loev_models::probe::Split;
use loev_ops::AudioError;
use loev_ops::chain::Chain;
use loev_ops::draw_table::draws_from_batch;
use loev_ops::features::FrontEnd;
use loev_ops::render::Renderer;
use loev_ops::rng::Key;
use loev_ops::views::Draw;
use loev_sql::quoted;

use super::equivariance::parameters;
use super::tables::{rows, splits, table};
use super::views::{audio_behind, behind_views, chain_of, check_rate};
use super::{Content, Outcome};
use crate::error::RunError;
use crate::exec::columns::{CLIP_ID, URI, required, text};
use crate::exec::render::{Output, ViewRenderer};
use crate::resume::ledger::Inputs;
use crate::resume::recipe::Recipe;
use crate::resume::work::{Job, Work};
use crate::run::context::Context;
use crate::run::stage::StageHandle;
use crate::spec::stage::Leak;
use crate::spec::{Kind, Pipeline};

/// Segments under way for each thread.
const AHEAD: usize = 2;

/// What a `leak` stage has to make.
///
/// # Errors
/// When an input is not finished.
pub fn work(inputs: &Inputs<'_>, name: &str, options: &Leak) -> Result<Work, RunError> {
    let (labels, chain) = behind(inputs.pipeline, name, options)?;
    let columns = [CLIP_ID, options.split.as_str()];
    let recipe = Recipe::new(Kind::Leak, 1)
        .options(options, &["from", "labels"])
        .with("seed", inputs.pipeline.seed)
        .with("stage", name)
        .with("music", loev_ops::synth::VERSION)
        .with("views", Content { digest: inputs.content(&options.from, None)? })
        .with("audio", Content { digest: audio_behind(inputs, &options.from, &chain)? })
        .with("labels", Content { digest: inputs.content(&labels, Some(&columns))? });
    Ok(Work::whole(recipe))
}

/// The table with the split, and the chain of the views.
fn behind(pipeline: &Pipeline, name: &str, options: &Leak) -> Result<(String, Chain), RunError> {
    behind_views(pipeline, &options.from, &options.labels)
        .ok_or_else(|| RunError::stage(name, format!("`{}` is no views stage", options.from)))
}

/// Renderers of the four kinds, for one thread.
struct Hearing {
    reader: ViewRenderer,
    bare: Renderer,
    variant: Renderer,
    whole: Renderer,
    cues: Cues,
}

/// The chains that are compared.
struct Chains {
    bare: Chain,
    variant: Chain,
    whole: Chain,
    front_end: FrontEnd,
    idle: Mutex<Vec<Hearing>>,
}

/// The cues of a segment: untouched, at identity, and of each view by its factors alone and as a whole.
struct Heard {
    untouched: Vec<f64>,
    identity: Vec<f64>,
    factor: Vec<Vec<f64>>,
    view: Vec<Vec<f64>>,
}

impl Chains {
    fn new(chain: &Chain, front_end: &FrontEnd) -> Self {
        let variant = chain.identity();
        let bare = Chain { variant: Vec::new(), ..variant.clone() };
        let (whole, front_end) = (chain.clone(), front_end.clone());
        Self { bare, variant, whole, front_end, idle: Mutex::default() }
    }

    fn hearing(&self) -> Result<Hearing, AudioError> {
        Ok(Hearing {
            reader: ViewRenderer::new(&self.whole, &Output::Audio)?,
            bare: Renderer::new(&self.bare)?,
            variant: Renderer::new(&self.variant)?,
            whole: Renderer::new(&self.whole)?,
            cues: Cues::new(&self.front_end),
        })
    }

    /// The segment of these draws.
    fn hear(&self, clip: &str, uri: &str, draws: &[Draw]) -> Result<Heard, AudioError> {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut hearing = match idle {
            Some(hearing) => hearing,
            None => self.hearing()?,
        };
        let heard = self.cues(&mut hearing, clip, uri, draws);
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(hearing);
        heard
    }

    fn cues(&self, by: &mut Hearing, clip: &str, uri: &str, draws: &[Draw]) -> Result<Heard, AudioError> {
        let Some(first) = draws.first() else {
            return Ok(Heard { untouched: vec![], identity: vec![], factor: vec![], view: vec![] });
        };
        let source = by.reader.read(uri, first)?;
        let at = |chain: &Chain| chain.draw_identity(Key::root(0), clip, first.segment, first.centre_s);
        let untouched = by.bare.render(&source, &at(&self.bare))?;
        let identity = by.variant.render(&source, &at(&self.variant))?;
        let mut heard = Heard {
            untouched: by.cues.of(&untouched.to_mono()),
            identity: by.cues.of(&identity.to_mono()),
            factor: Vec::new(),
            view: Vec::new(),
        };
        let factors = self.variant.variant.len();
        for draw in draws {
            let mut alone = draw.clone();
            alone.params.truncate(factors);
            alone.partners.truncate(factors);
            alone.order = (0..factors).collect();
            heard.factor.push(by.cues.of(&by.variant.render(&source, &alone)?.to_mono()));
            heard.view.push(by.cues.of(&by.whole.render(&source, draw)?.to_mono()));
        }
        Ok(heard)
    }
}

/// Everything that was heard, row by row.
#[derive(Default)]
struct Rows {
    /// Of untouched segments and those at identity: clip, whether at identity, cues.
    pairs: Vec<(usize, bool, Vec<f64>)>,
    /// Of views: clip, row of the table, cues of the untouched segment, of the factors alone, of the view.
    views: Vec<(usize, usize, [Vec<f64>; 3])>,
}

/// Hears and probes.
///
/// # Errors
/// When columns are missing, the front end is for another sample rate, a part of the data is empty, or a table cannot be
/// written.
pub async fn run(context: &Context, job: &Job, name: &str, options: &Leak) -> Result<Outcome, RunError> {
    let (labels, _) = behind(&context.pipeline, name, options)?;
    let input = context.table(&options.from)?;
    let chain = chain_of(&options.from, &input.schema)?;
    check_rate(&context.quiet_stage(name), &options.front_end, &options.from, &chain)?;
    let session = context.session(&[options.from.clone(), labels.clone()]).await?;
    let clips = splits(&session, name, &options.split, &labels).await?;
    let query =
        format!("select * from {} where epoch = 0 order by {CLIP_ID}, segment, view", quoted(&options.from));
    let table = rows(&session, &query).await?;

    let stage = context.stage(name, table.num_rows() as u64, "views");
    let heard = hear(context, &stage, &table, &chain, options, &clips).await?;
    let split: Vec<Split> = clips.values().map(|(_, split)| *split).collect();
    let parameters = parameters(&chain, &table)?;
    let (front_end, bootstrap, key) = (options.front_end.clone(), options.bootstrap, context.key(name));
    let answer = context.pool.submit(move || {
        let probing = Probing { rows: &heard, split: &split, front_end: &front_end, bootstrap, key };
        probing.figures(&parameters)
    });
    let figures = answer
        .await
        .map_err(|_| RunError::Interrupted)?
        .map_err(|panic| stage.error(format!("a probe panicked: {panic}")))?
        .map_err(|error| stage.error(error.to_string()))?;
    let leaks: Vec<String> = figures
        .iter()
        .filter(|figure| figure.leaks() && figure.cue != ALL)
        .map(|figure| format!("{} {}", figure.test, figure.cue))
        .collect();
    context.store_batch(job, name, batch(&figures)?)?;
    stage.bar.finish();
    Ok(Outcome::note(match leaks.len() {
        0 => "no cue tells what was done".to_owned(),
        n => format!("{n} of {} cues tell what was done", figures.len()),
    }))
}

/// All cues together.
const ALL: &str = "all";

async fn hear(
    context: &Context,
    stage: &StageHandle,
    table: &RecordBatch,
    chain: &Chain,
    options: &Leak,
    clips: &BTreeMap<String, (usize, Split)>,
) -> Result<Rows, RunError> {
    let draws = draws_from_batch(chain, table)?;
    let (ids, uris) = (text(table, CLIP_ID)?, text(table, URI)?);
    let mut segments = Vec::new();
    let mut from = 0;
    while from < draws.len() {
        let id = required(&ids, CLIP_ID, from)?;
        let same = |row: &usize| ids.value(*row) == id && draws[*row].segment == draws[from].segment;
        let to = (from + 1..draws.len()).find(|row| !same(row)).unwrap_or(draws.len());
        if let Some((clip, _)) = clips.get(id) {
            segments.push((*clip, from..to));
        }
        from = to;
    }
    let chains = Arc::new(Chains::new(chain, &options.front_end));
    let mut rows = Rows::default();
    for window in segments.chunks(AHEAD * context.pool.threads()) {
        stage.interrupt.check()?;
        let mut answers = Vec::new();
        for (clip, range) in window {
            let (chains, draws) = (Arc::clone(&chains), draws[range.clone()].to_vec());
            let id = ids.value(range.start).to_owned();
            let uri = required(&uris, URI, range.start)?.to_owned();
            answers.push((*clip, range.clone(), context.pool.submit(move || chains.hear(&id, &uri, &draws))));
        }
        for (clip, range, answer) in answers {
            let heard = answer
                .await
                .map_err(|_| RunError::Interrupted)?
                .map_err(|panic| stage.error(format!("hearing a segment panicked: {panic}")))?;
            stage.bar.add(range.len() as u64);
            match heard {
                Ok(heard) => rows.add(clip, range.start, heard),
                Err(error) => stage.reject(0, ids.value(range.start), uris.value(range.start), &error),
            }
        }
    }
    Ok(rows)
}

impl Rows {
    fn add(&mut self, clip: usize, first: usize, heard: Heard) {
        let Heard { untouched, identity, factor, view } = heard;
        for (i, (factor, view)) in factor.into_iter().zip(view).enumerate() {
            self.views.push((clip, first + i, [untouched.clone(), factor, view]));
        }
        self.pairs.push((clip, false, untouched));
        self.pairs.push((clip, true, identity));
    }
}

/// One row of the table.
struct Figure {
    test: &'static str,
    factor: Option<String>,
    parameter: Option<String>,
    cue: &'static str,
    metric: &'static str,
    told: Told,
    control: Option<f64>,
    chance: f64,
}

/// An area under the curve, or an R2, this close to chance tells nothing.
const NOTHING: f64 = 0.01;

impl Figure {
    /// Whether the whole interval lies beyond chance, by more than rounding can do.
    fn leaks(&self) -> bool {
        self.told.interval.lo > self.chance + NOTHING
    }
}

struct Probing<'a> {
    rows: &'a Rows,
    split: &'a [Split],
    front_end: &'a FrontEnd,
    bootstrap: usize,
    key: Key,
}

impl Probing<'_> {
    fn figures(&self, parameters: &[Parameter]) -> Result<Vec<Figure>, EvaluateError> {
        let mut figures = Vec::new();
        let clip: Vec<usize> = self.rows.pairs.iter().map(|(clip, ..)| *clip).collect();
        let processed: Vec<bool> = self.rows.pairs.iter().map(|(_, processed, _)| *processed).collect();
        for (cue, range) in self.cues(true) {
            let cues: Vec<f64> =
                self.rows.pairs.iter().flat_map(|(.., cues)| cues[range.clone()].to_vec()).collect();
            let segments = Segments { cues: &cues, width: range.len(), clip: &clip, split: self.split };
            let told = leak::told_apart(&segments, &processed, self.bootstrap, self.key)?;
            let (test, metric) = ("identity", "roc_auc");
            let (factor, parameter, control) = (None, None, None);
            figures.push(Figure { test, factor, parameter, cue, metric, told, control, chance: 0.5 });
        }
        let clip: Vec<usize> = self.rows.views.iter().map(|(clip, ..)| *clip).collect();
        for parameter in parameters {
            let values: Vec<f64> = self.rows.views.iter().map(|(_, row, _)| parameter.values[*row]).collect();
            for (cue, range) in self.cues(false) {
                let told = |kind: usize| {
                    let rows = self.rows.views.iter();
                    let cues: Vec<f64> =
                        rows.flat_map(|(.., cues)| cues[kind][range.clone()].to_vec()).collect();
                    let segments =
                        Segments { cues: &cues, width: range.len(), clip: &clip, split: self.split };
                    leak::read(&segments, &values, self.bootstrap, self.key)
                };
                let control = told(0)?.value;
                for (test, kind) in [("factor", 1), ("view", 2)] {
                    figures.push(Figure {
                        test,
                        factor: Some(parameter.factor.clone()),
                        parameter: Some(parameter.name.clone()),
                        cue,
                        metric: "r2",
                        told: told(kind)?,
                        control: Some(control),
                        chance: 0.0,
                    });
                }
            }
        }
        Ok(figures)
    }

    /// The cues and where their values stand; the spectrum itself may tell a factor, so only `identity` asks it.
    fn cues(&self, identity: bool) -> Vec<(&'static str, std::ops::Range<usize>)> {
        let mut cues = Vec::new();
        let mut from = 0;
        for (name, width) in NAMES.into_iter().zip(Cues::widths(self.front_end)) {
            cues.push((name, from..from + width));
            from += width;
        }
        if identity {
            cues.push((ALL, 0..from));
        } else {
            cues.retain(|(name, _)| *name != "mel");
        }
        cues
    }
}

/// The table: one row per test, parameter and cue.
fn batch(figures: &[Figure]) -> Result<RecordBatch, RunError> {
    let texts = |f: &dyn Fn(&Figure) -> Option<String>| -> ArrayRef {
        Arc::new(figures.iter().map(f).collect::<StringArray>())
    };
    let numbers = |f: &dyn Fn(&Figure) -> Option<f64>| -> ArrayRef {
        Arc::new(figures.iter().map(f).collect::<Float64Array>())
    };
    let leaks = BooleanArray::from_iter(figures.iter().map(|figure| Some(figure.leaks())));
    let counts = Int64Array::from_iter_values(figures.iter().map(|figure| figure.told.rows as i64));
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("test", texts(&|figure| Some(figure.test.to_owned()))),
        ("factor", texts(&|figure| figure.factor.clone())),
        ("parameter", texts(&|figure| figure.parameter.clone())),
        ("cue", texts(&|figure| Some(figure.cue.to_owned()))),
        ("metric", texts(&|figure| Some(figure.metric.to_owned()))),
        ("value", numbers(&|figure| Some(figure.told.value))),
        ("lo", numbers(&|figure| Some(figure.told.interval.lo))),
        ("hi", numbers(&|figure| Some(figure.told.interval.hi))),
        ("chance", numbers(&|figure| Some(figure.chance))),
        ("control", numbers(&|figure| figure.control)),
        ("leaks", Arc::new(leaks)),
        ("n_test", Arc::new(counts)),
    ];
    table(columns, &["factor", "parameter", "control"])
}
