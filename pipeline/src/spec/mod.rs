//! The pipeline file: reading it, checking it, describing it.
//!
//! ```text
//!  text ── node ──▶ tree with places ── set ──▶ edited tree ── de, stage ──▶ Pipeline ── check ──▶ ok
//!                         │                                        │                              │
//!                         └──────────── diagnostics: what is wrong, where, what to do ────────────┘
//!  stage (fields, docs, defaults, ranges) ── schema ──▶ JSON Schema ── reference ──▶ docs/reference.md
//!  Pipeline + tables of each query ── graph ──▶ order of the stages
//! ```
//!
//! Reading collects every problem it can find before it gives up. A [`Pipeline`] that was read has all its
//! defaults filled in, refers only to stages that exist and are of a fitting kind, and serialises to JSON
//! that reads back as the same pipeline.
//!
//! ```
//! # use loev_pipeline::spec;
//! let text = "
//! name: tones
//! stages:
//!   clips: { synth: { clips: 8 } }
//!   views: { views: { from: clips, variant: [ {pitch_shift: {}} ] } }
//! ";
//! let pipeline = spec::parse(text, "tones.yaml", &["seed=3".to_string()]).unwrap();
//! assert_eq!((pipeline.name.as_str(), pipeline.seed), ("tones", 3));
//! assert_eq!(pipeline.stages["views"].references(), [("from", "clips")]);
//! ```

mod check;
mod de;
mod diagnostics;
mod graph;
mod node;
mod reference;
mod rejects;
mod schema;
mod set;
pub mod stage;
#[cfg(test)]
mod tests;

use std::path::Path;
use std::sync::Arc;

use garde::Validate;
use indexmap::IndexMap;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use diagnostics::{Problem, SpecError};
pub use graph::Graph;
pub use reference::reference_markdown;
pub use rejects::MaxRejects;
pub use schema::json_schema;
pub use stage::{Kind, Stage};

use de::{Others, Reader};
use diagnostics::{Document, list};
use node::{Node, Value};

/// A pipeline file larger than this is a mistake, such as a data file given in its place.
const MAX_BYTES: u64 = 1 << 20;

/// A pipeline: a seed and a map of named stages.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema, Validate)]
#[serde(deny_unknown_fields)]
#[garde(allow_unvalidated)]
pub struct Pipeline {
    /// Name of the pipeline; its runs go to `runs/NAME` unless told otherwise. Letters, digits, `-`, `_`
    /// and `.`.
    #[garde(custom(check::pipeline_name))]
    pub name: String,
    /// Seed of every random number of the run.
    #[serde(default)]
    pub seed: u64,
    /// Rejected clips beyond which a run fails: a count (`5`), or a share of all clips (`0.02`, `2%`).
    /// Absent: any number is accepted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[garde(dive)]
    pub max_rejects: Option<MaxRejects>,
    /// The stages by name, in the order of the file.
    #[serde(skip_deserializing)]
    #[schemars(skip)]
    pub stages: IndexMap<String, Stage>,
    #[serde(skip)]
    document: Arc<Document>,
}

impl PartialEq for Pipeline {
    /// Equal in meaning; the text they were read from does not count.
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
            && self.seed == other.seed
            && self.max_rejects == other.max_rejects
            && self.stages == other.stages
            && self.stages.keys().eq(other.stages.keys())
    }
}

/// Reads and checks a pipeline file. `sets` are edits such as `stages.model.train.steps=50`.
///
/// # Errors
///
/// A [`SpecError`] with every problem found, each with its place: the file cannot be read, is not UTF-8
/// or not YAML, has unknown or missing options, wrong types, values out of range, or stages that refer to
/// stages that do not exist or do not fit.
pub fn load(path: &Path, sets: &[String]) -> Result<Pipeline, SpecError> {
    let shown = path.display();
    let nowhere = |message: String, help: Option<&str>| {
        SpecError::one(Problem::nowhere(message, help.map(str::to_string)))
    };
    let unreadable = |error: std::io::Error| {
        let help = (error.kind() == std::io::ErrorKind::NotFound)
            .then_some("give the path of a pipeline file, such as examples/quickstart.yaml");
        nowhere(format!("cannot read {shown}: {error}"), help)
    };
    let size = std::fs::metadata(path).map_err(unreadable)?;
    if size.is_dir() {
        return Err(nowhere(format!("{shown} is a folder, not a pipeline file"), None));
    }
    if size.len() > MAX_BYTES {
        return Err(nowhere(
            format!("{shown} has {} bytes: too large for a pipeline file", size.len()),
            None,
        ));
    }
    let bytes = std::fs::read(path).map_err(unreadable)?;
    match String::from_utf8(bytes) {
        Ok(text) => parse(&text, &shown.to_string(), sets),
        Err(error) => {
            let at = error.utf8_error().valid_up_to();
            let line = 1 + error.as_bytes().iter().take(at).filter(|byte| **byte == b'\n').count();
            let message = format!("{shown} is not UTF-8 text: byte {at}, in line {line}, is not valid");
            Err(nowhere(message, Some("save the file with the encoding UTF-8")))
        }
    }
}

/// Reads and checks the text of a pipeline. `file_name` is what diagnostics call it.
///
/// # Errors
///
/// See [`load`].
pub fn parse(text: &str, file_name: &str, sets: &[String]) -> Result<Pipeline, SpecError> {
    let mut document = Document::new(file_name, text, sets);
    match node::parse(text, 0, 0) {
        Ok(root) => document.root = root,
        Err(error) => {
            let problem = match error.place {
                Some(place) => document.problem(place, error.message, error.label, None),
                None => Problem::nowhere(format!("{file_name}: {}", error.message), None),
            };
            return Err(SpecError::one(problem));
        }
    }
    if matches!(document.root.value, Value::Null) && sets.is_empty() {
        let help = "the smallest pipeline has a `name` and one stage under `stages`".to_string();
        return Err(SpecError::one(Problem::nowhere(format!("{file_name} is empty"), Some(help))));
    }
    set::apply(&mut document, sets)?;
    let document = Arc::new(document);
    let reader = Reader::new(&document);
    let pipeline = read(&reader, &document);
    if let Some(error) = SpecError::many(reader.into_problems()) {
        return Err(error);
    }
    // `read` notes a problem whenever it returns nothing, so this is the reading that succeeded.
    pipeline.ok_or_else(|| SpecError::one(Problem::nowhere(format!("{file_name} is not a pipeline"), None)))
}

fn read(reader: &Reader<'_>, document: &Arc<Document>) -> Option<Pipeline> {
    let root = &document.root;
    let others = ["stages".to_string()];
    let head: Option<Pipeline> = reader.read(root, "", root.place, Others::Known(&others));
    if let Some(head) = &head {
        check::ranges(reader, document, &[], head.validate());
    }
    let (stages, faulty) = read_stages(reader, document)?;
    let pipeline = head.map(|head| Pipeline { stages, document: Arc::clone(document), ..head })?;
    check::stages(reader, &pipeline, &faulty);
    Some(pipeline)
}

/// Reads the stages that can be read; the others have left a problem in the reader. Also the names of those
/// with values out of range.
fn read_stages(reader: &Reader<'_>, document: &Document) -> Option<(IndexMap<String, Stage>, Vec<String>)> {
    let root = &document.root;
    root.entries()?;
    let Some(stages) = root.get("stages") else {
        reader.note(
            root.place,
            "the pipeline has no `stages`",
            "needs `stages`",
            Some(STAGES_HELP.to_string()),
        );
        return None;
    };
    let entries = match stages.value.entries() {
        Some([]) => {
            reader.note(stages.label(), "`stages` is empty", "needs a stage", Some(STAGES_HELP.to_string()));
            return None;
        }
        Some(entries) => entries,
        None => {
            let message = format!("`stages` must be a map of stages, not {}", stages.value.describe());
            reader.note(stages.label(), message, "expected a map", Some(STAGES_HELP.to_string()));
            return None;
        }
    };
    let (mut read, mut faulty) = (IndexMap::new(), Vec::new());
    for entry in entries {
        check::stage_name(reader, &entry.key, entry.key_place);
        let path = format!("stages.{}", entry.key);
        let Some((kind, options)) = kind_of(reader, entry, &path) else { continue };
        let inner = format!("{path}.{}", kind.name());
        if let Some(stage) = Stage::read(reader, kind, options, &inner) {
            if !check::ranges(reader, document, &["stages", &entry.key, kind.name()], stage.validate()) {
                faulty.push(entry.key.clone());
            }
            read.insert(entry.key.clone(), stage);
        }
    }
    Some((read, faulty))
}

const STAGES_HELP: &str = "a stage has a name, a kind and options: `clips: { synth: { clips: 100 } }`";

/// The kind of a stage and the entry that names it.
fn kind_of<'n>(reader: &Reader<'_>, entry: &'n node::Entry, path: &str) -> Option<(Kind, &'n node::Entry)> {
    let kinds = || Kind::ALL.map(Kind::name);
    let (message, label, place, help) = match &entry.value {
        Node { value: Value::Map(options), .. } => match options.as_slice() {
            [options] => match Kind::from_name(&options.key) {
                Some(kind) => return Some((kind, options)),
                None => (
                    format!("`{path}` has the unknown kind `{}`", options.key),
                    "not a kind of stage",
                    options.key_place,
                    diagnostics::did_you_mean(&options.key, kinds()),
                ),
            },
            [] => (format!("`{path}` has no kind"), "needs a kind", entry.label(), None),
            [_, second, ..] => {
                let help =
                    "a stage is a map with its kind as the only key, and the options under that".to_string();
                let message = format!("`{path}` has {} keys, not one kind", options.len());
                (message, "a second key", second.key_place, Some(help))
            }
        },
        other => {
            let message =
                format!("`{path}` must be a map with its kind as the only key, not {}", other.describe());
            (message, "expected a kind and its options", entry.label(), None)
        }
    };
    let help = help.unwrap_or_else(|| format!("the kinds are {}", list(kinds())));
    reader.note(place, message, label, Some(help));
    None
}
