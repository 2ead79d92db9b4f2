//! `--set a.b.c=value`: edits of the YAML tree before it is read.
//!
//! What an edit brings in keeps its place in the argument, so that a wrong value is shown there. Missing
//! options are added; a stage must exist, unless the edit gives all of it (`stages.extra={sql: ...}`).

use super::check;
use super::diagnostics::{Document, Problem, SpecError, closest, did_you_mean, list};
use super::node::{self, Entry, Node, Place, Value};

/// Applies the edits in their order.
pub(super) fn apply(document: &mut Document, sets: &[String]) -> Result<(), SpecError> {
    let mut problems = Vec::new();
    let mut root = document.root.clone();
    for (index, argument) in sets.iter().enumerate() {
        if let Err(fault) = edit(&mut root, argument, index + 1) {
            problems.push(fault.problem(document));
        }
    }
    document.root = root;
    SpecError::many(problems).map_or(Ok(()), Err)
}

/// Why an edit cannot be made.
struct Fault {
    place: Place,
    message: String,
    label: &'static str,
    help: Option<String>,
}

impl Fault {
    fn problem(self, document: &Document) -> Problem {
        document.problem(self.place, self.message, self.label, self.help)
    }
}

/// A part of the dotted path and where it stands in the argument.
#[derive(Clone, Copy)]
struct Part<'a> {
    name: &'a str,
    place: Place,
}

fn edit(root: &mut Node, argument: &str, source: usize) -> Result<(), Fault> {
    let whole = Place { source, start: 0, len: argument.len() };
    let example = || Some("for example `--set stages.model.train.steps=50`".to_string());
    let Some((path, value)) = argument.split_once('=') else {
        let message = format!("`--set {}` gives no value", node::shorten(argument));
        return Err(Fault { place: whole, message, label: "expected PATH=VALUE", help: example() });
    };
    let parts = split(path, source);
    if parts.iter().any(|part| part.name.is_empty()) {
        let message = "the path of a `--set` is names with dots between them".to_string();
        return Err(Fault { place: whole, message, label: "expected PATH=VALUE", help: example() });
    }
    let mut value = node::parse(value, source, path.len() + 1).map_err(|error| Fault {
        place: error.place.unwrap_or(whole),
        message: format!("the value of a `--set` is YAML: {}", error.message),
        label: error.label,
        help: None,
    })?;
    if matches!(value.value, Value::Null) {
        value.place = whole;
    }
    check_stage(root, &parts)?;
    put(root, &parts, value)
}

fn split(path: &str, source: usize) -> Vec<Part<'_>> {
    let mut start = 0;
    path.split('.')
        .map(|name| {
            let place = Place { source, start, len: name.len() };
            start += name.len() + 1;
            Part { name, place }
        })
        .collect()
}

/// An edit inside a stage must name one that exists, and the kind that it has.
fn check_stage(root: &Node, parts: &[Part<'_>]) -> Result<(), Fault> {
    let [first, stage, rest @ ..] = parts else { return Ok(()) };
    if first.name != "stages" || rest.is_empty() {
        return Ok(());
    }
    let stages = root.get("stages").and_then(|stages| stages.value.entries()).unwrap_or_default();
    let Some(entry) = stages.iter().find(|entry| entry.key == stage.name) else {
        let names = || stages.iter().map(|entry| entry.key.as_str());
        let help =
            did_you_mean(stage.name, names()).or_else(|| Some(format!("the stages are {}", list(names()))));
        let message = format!("there is no stage `{}` to change", stage.name);
        return Err(Fault { place: stage.place, message, label: "no such stage", help });
    };
    match (entry.value.entries(), rest) {
        (Some([kind]), [named, ..]) if kind.key != named.name => {
            let help = Some(format!("write `stages.{}.{}...`", stage.name, kind.key));
            let message = format!("stage `{}` is of kind `{}`, not `{}`", stage.name, kind.key, named.name);
            Err(Fault { place: named.place, message, label: "not its kind", help })
        }
        _ => Ok(()),
    }
}

fn put(node: &mut Node, parts: &[Part<'_>], value: Node) -> Result<(), Fault> {
    let Some((part, rest)) = parts.split_first() else {
        *node = value;
        return Ok(());
    };
    if matches!(node.value, Value::Null) {
        node.value = Value::Map(Vec::new());
    }
    match &mut node.value {
        Value::Map(entries) => {
            let index = match entries.iter().position(|entry| entry.key == part.name) {
                Some(index) => index,
                None => {
                    let empty = Node { value: Value::Null, place: part.place };
                    let entry = Entry { key: part.name.to_string(), key_place: part.place, value: empty };
                    entries.push(entry);
                    entries.len() - 1
                }
            };
            match entries.get_mut(index) {
                Some(entry) => {
                    if rest.is_empty() {
                        entry.key_place = part.place;
                    }
                    put(&mut entry.value, rest, value)
                }
                None => Ok(()),
            }
        }
        Value::Seq(items) => {
            let count = items.len();
            match part.name.parse::<usize>().ok().and_then(|index| items.get_mut(index)) {
                Some(item) => put(item, rest, value),
                None => Err(Fault {
                    place: part.place,
                    message: format!("`{}` is not an item of this list of {count}", part.name),
                    label: "no such item",
                    help: Some("items are counted from 0".to_string()),
                }),
            }
        }
        _ => Err(Fault {
            place: part.place,
            message: format!("`{}` cannot be set inside {}", part.name, node.describe()),
            label: "its parent is not a map",
            help: closest(part.name, check::TOP_LEVEL).map(|name| format!("did you mean `{name}`?")),
        }),
    }
}
