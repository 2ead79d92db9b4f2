//! `retrieve`: the nearest clips of each query per subspace, and how far they agree with it.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::sync::Arc;

use arrow::array::{ArrayRef, Float32Array, Float64Array, Int32Array, Int64Array, RecordBatch, StringArray};
use datafusion::prelude::SessionContext;
use loev_models::evaluate::{Agreement, Neighbour, Ranked, Vectors, agreement, nearest};
use loev_models::probe::{Labels, TaskSpec};
use loev_sql::quoted;

use super::embed::BASELINE;
use super::probe::ALL;
use super::tables::{embedded, has_baseline, labels_of, rows, table, vectors};
use super::{Content, Outcome, side_table};
use crate::error::RunError;
use crate::exec::columns::{CLIP_ID, text};
use crate::exec::draw::VIEW_ID;
use crate::resume::ledger::Inputs;
use crate::resume::recipe::Recipe;
use crate::resume::work::{Job, Work};
use crate::run::context::Context;
use crate::spec::stage::Retrieve;
use crate::spec::{Kind, Pipeline, Stage};

/// Where queries or neighbours come from.
#[derive(Debug, PartialEq, Eq)]
struct Origin {
    /// The `embed` stage.
    embed: String,
    /// The stage whose columns are the labels.
    labels: String,
    /// Whether these are views, with labels of their own.
    views: bool,
}

/// The neighbours, the queries, and the stage that says which part a clip belongs to.
fn origins(
    pipeline: &Pipeline,
    name: &str,
    options: &Retrieve,
) -> Result<(Origin, Origin, String), RunError> {
    let origin = |embed: &str| {
        let of = embedded(pipeline, embed)
            .ok_or_else(|| RunError::stage(name, format!("`{embed}` is no embed stage")))?;
        let views = matches!(pipeline.stages.get(of), Some(Stage::Views(_)));
        let labels = options.labels.as_deref().filter(|_| !views).unwrap_or(of);
        Ok::<_, RunError>(Origin { embed: embed.to_owned(), labels: labels.to_owned(), views })
    };
    let items = origin(&options.from)?;
    let queries = origin(options.queries.as_deref().unwrap_or(&options.from))?;
    let parts = items.labels.clone();
    Ok((items, queries, parts))
}

/// What a `retrieve` stage has to make.
///
/// # Errors
/// When an input is not finished.
pub fn work(inputs: &Inputs<'_>, name: &str, options: &Retrieve) -> Result<Work, RunError> {
    let (items, queries, parts) = origins(inputs.pipeline, name, options)?;
    let mut recipe = Recipe::new(Kind::Retrieve, 1)
        .options(options, &["from", "queries", "labels"])
        .with("seed", inputs.pipeline.seed)
        .with("stage", name);
    for (what, origin) in [("neighbours", &items), ("queries", &queries)] {
        let mut columns = vec![if origin.views { VIEW_ID } else { CLIP_ID }];
        columns.extend(options.tasks.iter().map(TaskSpec::column));
        recipe = recipe.with(what, Content { digest: inputs.content(&origin.embed, None)? }).with(
            &format!("labels of {what}"),
            Content { digest: inputs.content(&origin.labels, Some(&columns))? },
        );
        if has_baseline(inputs.pipeline, &origin.embed) {
            let digest = inputs.content(&side_table(&origin.embed, "baseline"), None)?;
            recipe = recipe.with(&format!("baseline of {what}"), Content { digest });
        }
    }
    if options.part.is_some() {
        let digest = inputs.content(&parts, Some(&[CLIP_ID, options.split.as_str()]))?;
        recipe = recipe.with("parts", Content { digest });
    }
    Ok(Work::whole(recipe))
}

/// Queries, or clips to be found.
struct Set {
    /// Names: of clips or of views, in order.
    names: Vec<String>,
    /// The clip of each.
    clips: Vec<String>,
    /// The embeddings per subspace, in the order of the names.
    spaces: Vec<(String, Vectors)>,
    /// The labels per task.
    labels: Vec<Labels>,
}

/// What was found in one subspace.
struct Found {
    neighbours: Vec<Neighbour>,
    /// The figures of each task.
    figures: Vec<Vec<Agreement>>,
}

/// Searches and scores.
///
/// # Errors
/// When columns are missing, sets are empty or do not fit each other, `k` is larger than the table, nothing has a label,
/// or a table cannot be written.
pub async fn run(context: &Context, job: &Job, name: &str, options: &Retrieve) -> Result<Outcome, RunError> {
    let (items, queries, parts) = origins(&context.pipeline, name, options)?;
    let quiet = context.quiet_stage(name);
    let told = |error: RunError| match error {
        RunError::Interrupted => RunError::Interrupted,
        error => quiet.error(error.to_string()),
    };
    let mut tables: Vec<String> = Vec::new();
    for table in [&items.embed, &items.labels, &queries.embed, &queries.labels] {
        if !tables.contains(table) {
            tables.push(table.clone());
        }
    }
    let session = context.session(&tables).await?;
    let baseline = [&items, &queries].iter().all(|origin| has_baseline(&context.pipeline, &origin.embed));
    let reader = Reader { session: &session, options, parts: &parts, baseline };
    let same = items == queries;
    let items = Arc::new(reader.set(&items).await.map_err(told)?);
    let queries = match same {
        true => Arc::clone(&items),
        false => Arc::new(reader.set(&queries).await.map_err(told)?),
    };
    let row_of: BTreeMap<&str, usize> = items.names.iter().map(String::as_str).zip(0..).collect();
    let own: Arc<Vec<Option<usize>>> =
        Arc::new(queries.clips.iter().map(|clip| row_of.get(clip.as_str()).copied()).collect());
    let mut numbers = BTreeMap::new();
    let clip: Vec<usize> = queries
        .clips
        .iter()
        .map(|clip| {
            let next = numbers.len();
            *numbers.entry(clip.as_str()).or_insert(next)
        })
        .collect();
    let clip = Arc::new(clip);

    let stage = context.stage(name, items.spaces.len() as u64, "subspaces");
    let mut answers = Vec::new();
    for space in 0..items.spaces.len() {
        let (items, queries) = (Arc::clone(&items), Arc::clone(&queries));
        let (own, clip, options) = (Arc::clone(&own), Arc::clone(&clip), options.clone());
        let (key, stage) = (context.key(name), stage.clone());
        answers.push(context.pool.submit(move || {
            let (space, vectors) = &items.spaces[space];
            let asked = queries.spaces.iter().find(|(name, _)| name == space);
            let (_, asked) =
                asked.ok_or_else(|| stage.error(format!("the queries have no subspace `{space}`")))?;
            let failed = |error: &dyn Display| stage.error(format!("subspace `{space}`: {error}"));
            stage.interrupt.check()?;
            let most = options.k.iter().copied().max().unwrap_or(1);
            let neighbours = nearest(asked, vectors, &own, most).map_err(|error| failed(&error))?;
            let mut figures = Vec::new();
            for (queries, items) in queries.labels.iter().zip(&items.labels) {
                let ranked = Ranked { neighbours: &neighbours, own: &own, clip: &clip, queries, items };
                let found = agreement(&ranked, &options.k, options.tempo_tolerance, options.bootstrap, key);
                figures.push(found.map_err(|error| failed(&error))?);
            }
            stage.bar.add(1);
            Ok::<_, RunError>(Found { neighbours, figures })
        }));
    }
    let mut found = Vec::new();
    for answer in answers {
        let answer = answer.await.map_err(|_| RunError::Interrupted)?;
        found.push(answer.map_err(|panic| stage.error(format!("a search panicked: {panic}")))??);
    }
    context.store_batch(job, name, figures(options, &items, &found)?)?;
    let neighbours = side_table(name, "neighbours");
    context.store_batch(job, &neighbours, neighbours_batch(options, &items, &queries, &found)?)?;
    stage.bar.finish();
    let mut outcome =
        Outcome::note(format!("{} queries among {} clips", queries.names.len(), items.names.len()));
    outcome.side_tables.push(neighbours);
    Ok(outcome)
}

/// Reads sets by SQL.
struct Reader<'a> {
    session: &'a SessionContext,
    options: &'a Retrieve,
    parts: &'a str,
    baseline: bool,
}

impl Reader<'_> {
    async fn set(&self, origin: &Origin) -> Result<Set, RunError> {
        let mut set = Set { names: Vec::new(), clips: Vec::new(), spaces: Vec::new(), labels: Vec::new() };
        self.spaces(origin, &origin.embed, &mut set).await?;
        if set.names.is_empty() {
            let table = &origin.embed;
            return Err(RunError::Engine(format!("no embedding of `{table}` is of a clip that takes part")));
        }
        if set.spaces.len() > 1 {
            let spaces: Vec<&Vectors> = set.spaces.iter().map(|(_, space)| space).collect();
            let all = Vectors::together(&spaces).map_err(|error| RunError::Engine(error.to_string()))?;
            set.spaces.push((ALL.to_owned(), all));
        }
        if self.baseline {
            self.spaces(origin, &side_table(&origin.embed, "baseline"), &mut set).await?;
        }
        self.labels(origin, &mut set).await?;
        Ok(set)
    }

    /// Reads the subspaces in a table. The first one says which names there are.
    async fn spaces(&self, origin: &Origin, table: &str, set: &mut Set) -> Result<(), RunError> {
        let name = if origin.views { VIEW_ID } else { CLIP_ID };
        let means = if origin.views { "true" } else { "segment is null" };
        let part = self.options.part.map_or_else(String::new, |part| {
            let (parts, split) = (quoted(self.parts), quoted(&self.options.split));
            format!(" and {CLIP_ID} in (select {CLIP_ID} from {parts} where {split} = '{}')", part.name())
        });
        let query = format!(
            "select subspace, {name} as name, {CLIP_ID}, embedding from {} where {means}{part} \
             order by subspace, name",
            quoted(table)
        );
        let rows = rows(self.session, &query).await?;
        let (subspaces, names, clips) =
            (text(&rows, "subspace")?, text(&rows, "name")?, text(&rows, CLIP_ID)?);
        let (values, dim) = vectors(&rows, table)?;
        let mut from = 0;
        while from < rows.num_rows() {
            let space = subspaces.value(from);
            let to = (from..rows.num_rows()).find(|row| subspaces.value(*row) != space);
            let to = to.unwrap_or(rows.num_rows());
            let found = (from..to).map(|row| names.value(row));
            if set.names.is_empty() {
                set.names = found.map(str::to_owned).collect();
                set.clips = (from..to).map(|row| clips.value(row).to_owned()).collect();
            } else if !found.eq(set.names.iter().map(String::as_str)) {
                return Err(RunError::Engine(format!("table `{table}` lacks embeddings in `{space}`")));
            }
            let vectors = Vectors::normalised(values.values()[from * dim..to * dim].to_vec(), dim);
            let vectors = vectors.map_err(|error| RunError::Engine(format!("`{space}`: {error}")))?;
            set.spaces.push((space.to_owned(), vectors));
            from = to;
        }
        Ok(())
    }

    async fn labels(&self, origin: &Origin, set: &mut Set) -> Result<(), RunError> {
        let name = if origin.views { VIEW_ID } else { CLIP_ID };
        let query = format!("select * from {} order by {name}", quoted(&origin.labels));
        let table = rows(self.session, &query).await?;
        let ids = text(&table, name)?;
        let row_of: BTreeMap<&str, usize> = ids.iter().flatten().zip(0..).collect();
        let places: Vec<Option<usize>> =
            set.names.iter().map(|name| row_of.get(name.as_str()).copied()).collect();
        for task in &self.options.tasks {
            set.labels.push(picked(&labels_of(&table, task)?, &places));
        }
        Ok(())
    }
}

/// Labels at these places; none where there is no place.
fn picked(labels: &Labels, places: &[Option<usize>]) -> Labels {
    fn pick<T: Clone>(labels: &[Option<T>], places: &[Option<usize>]) -> Vec<Option<T>> {
        places.iter().map(|place| labels.get((*place)?).cloned().flatten()).collect()
    }
    match labels {
        Labels::Key(labels) => Labels::Key(pick(labels, places)),
        Labels::Tempo(labels) => Labels::Tempo(pick(labels, places)),
        Labels::Tags(labels) => Labels::Tags(pick(labels, places)),
        Labels::Class(labels) => Labels::Class(pick(labels, places)),
    }
}

/// The table of figures: one row per subspace, task, metric and k.
fn figures(options: &Retrieve, items: &Set, found: &[Found]) -> Result<RecordBatch, RunError> {
    let mut rows: Vec<(&str, usize, &Agreement)> = Vec::new();
    for ((space, _), found) in items.spaces.iter().zip(found) {
        for (task, figures) in found.figures.iter().enumerate() {
            rows.extend(figures.iter().map(|figure| (space.as_str(), task, figure)));
        }
    }
    let baseline = |(_, task, of): &(&str, usize, &Agreement)| {
        let same = |(space, other, figure): &&(&str, usize, &Agreement)| {
            *space == BASELINE && other == task && (figure.metric, figure.k) == (of.metric, of.k)
        };
        rows.iter().find(same).map(|(_, _, figure)| figure.value)
    };
    let texts = |f: &dyn Fn(&(&str, usize, &Agreement)) -> String| -> ArrayRef {
        Arc::new(StringArray::from_iter_values(rows.iter().map(f)))
    };
    let numbers = |f: &dyn Fn(&Agreement) -> f64| -> ArrayRef {
        Arc::new(Float64Array::from_iter_values(rows.iter().map(|(_, _, figure)| f(figure))))
    };
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("subspace", texts(&|(space, _, _)| (*space).to_owned())),
        ("task", texts(&|(_, task, _)| options.tasks[*task].task().to_string())),
        ("metric", texts(&|(_, _, figure)| figure.metric.to_owned())),
        ("k", Arc::new(Int32Array::from_iter_values(rows.iter().map(|(_, _, figure)| figure.k as i32)))),
        ("value", numbers(&|figure| figure.value)),
        ("lo", numbers(&|figure| figure.lo)),
        ("hi", numbers(&|figure| figure.hi)),
        ("chance", numbers(&|figure| figure.chance)),
        ("baseline", Arc::new(rows.iter().map(baseline).collect::<Float64Array>())),
        (
            "n",
            Arc::new(Int64Array::from_iter_values(rows.iter().map(|(_, _, figure)| figure.queries as i64))),
        ),
    ];
    table(columns, &["baseline"])
}

/// A row of the table of neighbours: subspace, number of the query, rank, neighbour.
type Near<'a> = (&'a str, usize, usize, Neighbour);

/// The table of neighbours: one row per subspace, query and rank.
fn neighbours_batch(
    options: &Retrieve,
    items: &Set,
    queries: &Set,
    found: &[Found],
) -> Result<RecordBatch, RunError> {
    let mut rows: Vec<Near<'_>> = Vec::new();
    for ((space, _), found) in items.spaces.iter().zip(found) {
        let searched = found.neighbours.len() / queries.names.len().max(1);
        for (query, near) in found.neighbours.chunks_exact(searched.max(1)).enumerate() {
            let kept = near.iter().take(options.keep).enumerate();
            rows.extend(kept.map(|(rank, near)| (space.as_str(), query, rank + 1, *near)));
        }
    }
    let texts = |f: &dyn Fn(&Near<'_>) -> String| -> ArrayRef {
        Arc::new(StringArray::from_iter_values(rows.iter().map(f)))
    };
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("subspace", texts(&|(space, ..)| (*space).to_owned())),
        ("query", texts(&|(_, query, ..)| queries.names[*query].clone())),
        (CLIP_ID, texts(&|(_, query, ..)| queries.clips[*query].clone())),
        ("rank", Arc::new(Int32Array::from_iter_values(rows.iter().map(|(_, _, rank, _)| *rank as i32)))),
        ("neighbour", texts(&|(.., near)| items.names[near.item].clone())),
        (
            "similarity",
            Arc::new(Float32Array::from_iter_values(rows.iter().map(|(.., near)| near.similarity))),
        ),
    ];
    table(columns, &[])
}
