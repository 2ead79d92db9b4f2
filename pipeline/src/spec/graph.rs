//! The order in which stages run: what each one reads, and that nothing reads itself in a circle.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use indexmap::IndexMap;

use super::Pipeline;
use super::diagnostics::{Problem, SpecError, did_you_mean, list};
use super::stage::Stage;

/// The stages in an order in which each comes after those that it reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Graph {
    /// Every stage once. Among stages that are ready, the one that stands first in the file comes first.
    pub order: Vec<String>,
    /// What each stage reads: from its options, or from its query. No stage twice.
    pub inputs: IndexMap<String, Vec<String>>,
}

impl Graph {
    /// Finds what the stages read, and their order.
    ///
    /// `sql_tables` gives the names of the tables that a query reads; the caller has the SQL parser. It may
    /// give the stage's name for a table that a stage writes under another name.
    ///
    /// # Errors
    ///
    /// A query that does not parse or names a table that no stage makes, and stages that read each other
    /// in a circle.
    pub fn new(
        pipeline: &Pipeline,
        sql_tables: &dyn Fn(&str) -> Result<Vec<String>, String>,
    ) -> Result<Self, SpecError> {
        let mut problems = Vec::new();
        let mut inputs = IndexMap::new();
        for (name, stage) in &pipeline.stages {
            let read = match stage {
                Stage::Sql(sql) => match sql_tables(&sql.query) {
                    Ok(tables) => check_tables(pipeline, name, tables, &mut problems),
                    Err(message) => {
                        let place = pipeline.document.locate(["stages", name, "sql", "query"]);
                        let message = format!("the query of `{name}`: {message}");
                        problems.push(pipeline.document.problem(place, message, "here", None));
                        Vec::new()
                    }
                },
                // All that was found, so after everything else.
                Stage::Report(_) => {
                    let others =
                        pipeline.stages.iter().filter(|(_, other)| !matches!(other, Stage::Report(_)));
                    others.map(|(name, _)| name.clone()).collect()
                }
                _ => {
                    let named = stage.references().into_iter().map(|(_, target)| target.to_string());
                    named.chain(default_labels(pipeline, stage)).collect()
                }
            };
            let mut unique: Vec<String> = Vec::new();
            for input in read {
                if !unique.contains(&input) {
                    unique.push(input);
                }
            }
            inputs.insert(name.clone(), unique);
        }
        if let Some(error) = SpecError::many(problems) {
            return Err(error);
        }
        match order(&inputs) {
            Ok(order) => Ok(Self { order, inputs }),
            Err(circle) => Err(SpecError::one(describe_circle(pipeline, &circle))),
        }
    }

    /// What a stage reads.
    pub fn inputs(&self, stage: &str) -> &[String] {
        self.inputs.get(stage).map(Vec::as_slice).unwrap_or_default()
    }

    /// The stages that read a stage, in the order of the file.
    pub fn readers<'g>(&'g self, stage: &'g str) -> impl Iterator<Item = &'g str> {
        let reads = move |inputs: &Vec<String>| inputs.iter().any(|input| input == stage);
        self.inputs.iter().filter(move |(_, inputs)| reads(inputs)).map(|(name, _)| name.as_str())
    }
}

/// Where a stage that does not say so takes its labels from: the clips, or the views, behind its embeddings.
fn default_labels(pipeline: &Pipeline, stage: &Stage) -> Vec<String> {
    let embedded = |from: &str| match pipeline.stages.get(from) {
        Some(Stage::Embed(embed)) => Some(embed.from.clone()),
        _ => None,
    };
    let drawn_from = |table: String| match pipeline.stages.get(&table) {
        Some(Stage::Views(views)) => views.from.clone(),
        _ => table,
    };
    match stage {
        Stage::Probe(probe) if probe.labels.is_none() => embedded(&probe.from).into_iter().collect(),
        Stage::Equivariance(measure) if measure.labels.is_none() => {
            embedded(&measure.from).map(drawn_from).into_iter().collect()
        }
        Stage::Leak(leak) if leak.labels.is_none() => vec![drawn_from(leak.from.clone())],
        Stage::Finetune(finetune) if finetune.labels.is_none() => match pipeline.stages.get(&finetune.from) {
            Some(Stage::Features(features)) => vec![features.from.clone()],
            _ => Vec::new(),
        },
        Stage::Retrieve(retrieve) => {
            let own = embedded(&retrieve.from).filter(|_| retrieve.labels.is_none());
            own.into_iter().chain(retrieve.queries.as_deref().and_then(embedded)).collect()
        }
        _ => Vec::new(),
    }
}

/// The tables of a query that are stages; a problem for each that is not.
fn check_tables(
    pipeline: &Pipeline,
    name: &str,
    tables: Vec<String>,
    problems: &mut Vec<Problem>,
) -> Vec<String> {
    let (known, unknown): (Vec<_>, Vec<_>) =
        tables.into_iter().partition(|table| pipeline.stages.contains_key(table));
    for table in unknown {
        let query = pipeline.document.locate(["stages", name, "sql", "query"]);
        // Point at the word itself if the query holds it as it stands.
        let place = find_word(pipeline.document.text(query), &table).map_or(query, |start| {
            super::node::Place { start: query.start + start, len: table.len(), ..query }
        });
        let names = || pipeline.stages.keys().map(String::as_str).filter(|other| *other != name);
        let help = did_you_mean(&table, names())
            .unwrap_or_else(|| format!("the other stages are {}", list(names())));
        let message = format!("the query of `{name}` reads `{table}`, and there is no such stage");
        problems.push(pipeline.document.problem(place, message, "no such stage", Some(help)));
    }
    known
}

/// Where a word stands in a text, with no letter, digit or underscore beside it.
fn find_word(text: &str, word: &str) -> Option<usize> {
    let part = |c: char| c.is_alphanumeric() || c == '_';
    text.match_indices(word).map(|(start, _)| start).find(|start| {
        let before = text[..*start].chars().next_back();
        let after = text[*start + word.len()..].chars().next();
        !before.is_some_and(part) && !after.is_some_and(part)
    })
}

/// A stable topological order, or the stages of a circle.
fn order(inputs: &IndexMap<String, Vec<String>>) -> Result<Vec<String>, Vec<String>> {
    let mut waiting: BTreeMap<usize, usize> = BTreeMap::new();
    let mut readers: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for (index, read) in inputs.values().enumerate() {
        let read: Vec<usize> = read.iter().filter_map(|input| inputs.get_index_of(input)).collect();
        waiting.insert(index, read.len());
        for input in read {
            readers.entry(input).or_default().push(index);
        }
    }
    let ready = waiting.iter().filter(|(_, count)| **count == 0).map(|(index, _)| Reverse(*index));
    let mut ready: BinaryHeap<Reverse<usize>> = ready.collect();
    let mut order = Vec::new();
    while let Some(Reverse(index)) = ready.pop() {
        waiting.remove(&index);
        order.extend(inputs.get_index(index).map(|(name, _)| name.clone()));
        for reader in readers.remove(&index).unwrap_or_default() {
            if let Some(count) = waiting.get_mut(&reader) {
                *count -= 1;
                if *count == 0 {
                    ready.push(Reverse(reader));
                }
            }
        }
    }
    match waiting.keys().next() {
        None => Ok(order),
        Some(start) => Err(circle(inputs, *start, &waiting)),
    }
}

/// Walks from a stage that never became ready to its unready inputs until one comes twice.
fn circle(
    inputs: &IndexMap<String, Vec<String>>,
    start: usize,
    waiting: &BTreeMap<usize, usize>,
) -> Vec<String> {
    let mut seen: Vec<usize> = Vec::new();
    let mut next = Some(start);
    while let Some(index) = next {
        if let Some(first) = seen.iter().position(|other| *other == index) {
            seen.drain(..first);
            break;
        }
        seen.push(index);
        let read = inputs.get_index(index).map(|(_, read)| read.as_slice()).unwrap_or_default();
        next = read
            .iter()
            .filter_map(|input| inputs.get_index_of(input))
            .find(|input| waiting.contains_key(input));
    }
    // Begin with the stage that stands first in the file, so that the message does not depend on the walk.
    if let Some(first) = seen.iter().enumerate().min_by_key(|(_, index)| **index).map(|(at, _)| at) {
        seen.rotate_left(first);
    }
    seen.into_iter().filter_map(|index| inputs.get_index(index)).map(|(name, _)| name.clone()).collect()
}

fn describe_circle(pipeline: &Pipeline, circle: &[String]) -> Problem {
    let first = circle.first().map(String::as_str).unwrap_or_default();
    let place = pipeline.document.locate(["stages", first]);
    let steps: Vec<String> =
        circle.iter().map(String::as_str).chain([first]).map(|name| format!("`{name}`")).collect();
    let message = match circle {
        [one] => format!("stage `{one}` reads itself"),
        _ => format!("stages read each other in a circle: {}", steps.join(" reads ")),
    };
    let help = "let one of them read an earlier stage instead".to_string();
    pipeline.document.problem(place, message, "the circle passes here", Some(help))
}
