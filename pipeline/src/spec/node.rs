//! The YAML of a pipeline as a tree in which every key and value knows its place in its source.
//!
//! Everything later (typed reading, range checks, checks between stages) works on this tree, so any
//! error can point at the text that caused it, and `--set` edits are ordinary changes to the tree whose
//! places lie in the argument instead of the file.

use std::fmt;

use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::{Location, Spanned};

/// Nesting that no sensible pipeline reaches; bounds the recursion of reading one.
const MAX_DEPTH: usize = 40;
/// Values in one document, aliases expanded; stops alias bombs long before memory is a concern.
const MAX_NODES: usize = 100_000;

/// A byte range in one of the sources of a [`super::Document`]: 0 is the file, `i + 1` the i-th `--set`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    pub source: usize,
    pub start: usize,
    pub len: usize,
}

/// One YAML value and where it stands.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub value: Value,
    pub place: Place,
}

/// What a node holds. Plain scalars are typed by the YAML 1.2 core schema.
#[derive(Clone, Debug)]
pub(super) enum Value {
    Null,
    Bool(bool),
    Int(i64),
    Uint(u64),
    Float(f64),
    Str(String),
    Seq(Vec<Node>),
    Map(Vec<Entry>),
}

/// A key of a map, with its value.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub key: String,
    pub key_place: Place,
    pub value: Node,
}

impl Entry {
    /// Where to point for this entry's value: the value itself if it is a scalar, its key otherwise.
    pub fn label(&self) -> Place {
        match self.value.value {
            Value::Seq(_) | Value::Map(_) | Value::Null => self.key_place,
            _ => self.value.place,
        }
    }
}

impl Node {
    /// The entries, if this is a map (an absent value counts as an empty map).
    pub fn entries(&self) -> Option<&[Entry]> {
        match &self.value {
            Value::Map(entries) => Some(entries),
            Value::Null => Some(&[]),
            _ => None,
        }
    }

    /// The entry of a map that has this key.
    pub fn get(&self, key: &str) -> Option<&Entry> {
        self.entries()?.iter().find(|entry| entry.key == key)
    }

    /// What the node is, in words, for messages.
    pub fn describe(&self) -> String {
        match &self.value {
            Value::Null => "nothing".to_string(),
            Value::Bool(value) => format!("`{value}`"),
            Value::Int(value) => format!("the number {value}"),
            Value::Uint(value) => format!("the number {value}"),
            Value::Float(value) => format!("the number {value}"),
            Value::Str(text) => format!("the text \"{}\"", shorten(text)),
            Value::Seq(_) => "a list".to_string(),
            Value::Map(_) => "a map".to_string(),
        }
    }

    /// Moves every place of the tree into another source, `shift` bytes further on.
    fn relocate(&mut self, source: usize, shift: usize) {
        let moved = |place: &mut Place| {
            place.source = source;
            place.start += shift;
        };
        moved(&mut self.place);
        match &mut self.value {
            Value::Seq(items) => items.iter_mut().for_each(|item| item.relocate(source, shift)),
            Value::Map(entries) => {
                for entry in entries {
                    moved(&mut entry.key_place);
                    entry.value.relocate(source, shift);
                }
            }
            _ => {}
        }
    }
}

/// At most 40 characters of a text, for messages.
pub(super) fn shorten(text: &str) -> String {
    let flat: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(41).collect();
    match flat.char_indices().nth(40) {
        Some((end, _)) => format!("{}…", &flat[..end]),
        None => flat,
    }
}

/// Why a text is not a YAML document, and where.
#[derive(Debug)]
pub(super) struct SyntaxError {
    pub message: String,
    pub label: &'static str,
    pub place: Option<Place>,
}

/// Parses one YAML document. Places are in `source`, shifted by `shift` bytes.
pub(super) fn parse(text: &str, source: usize, shift: usize) -> Result<Node, SyntaxError> {
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_depth: MAX_DEPTH,
            max_nodes: MAX_NODES,
            max_events: 4 * MAX_NODES,
            flow_nesting_limit: MAX_DEPTH,
        },
        alias_limits: serde_saphyr::alias_limits! { max_total_replayed_events: MAX_NODES },
        strict_booleans: true,
        with_snippet: false,
    };
    match serde_saphyr::from_str_with_options::<Node>(text, options) {
        Ok(mut node) => {
            node.relocate(source, shift);
            Ok(node)
        }
        Err(error) => Err(syntax_error(&error, source, shift)),
    }
}

fn syntax_error(error: &serde_saphyr::Error, source: usize, shift: usize) -> SyntaxError {
    use serde_saphyr::Error;
    let place = error.location().map(|location| {
        let mut place = place_of(location);
        place.source = source;
        place.start += shift;
        place
    });
    let cause = match error.without_snippet() {
        Error::AliasError { error, .. } => error.without_snippet(),
        other => other,
    };
    let message = match cause {
        Error::DuplicateMappingKey { key: Some(key), .. } => {
            format!("the key `{}` appears twice", shorten(key))
        }
        Error::DuplicateMappingKey { .. } => "a key appears twice".to_string(),
        Error::MultipleDocuments { .. } => "more than one YAML document (`---`) in one file".to_string(),
        Error::Budget { .. }
        | Error::AliasReplayLimitExceeded { .. }
        | Error::AliasExpansionLimitExceeded { .. }
        | Error::AliasReplayStackDepthExceeded { .. } => {
            format!("too large or too deeply nested for a pipeline ({})", first_line(cause))
        }
        Error::UnknownAnchor { .. } => "an alias (`*name`) without its anchor (`&name`)".to_string(),
        Error::NonFiniteFloat { .. } => {
            "numbers must be finite: `.nan` and `.inf` mean nothing here".to_string()
        }
        other => match first_line(other) {
            limit if limit.contains("limit exceeded") => {
                format!("too large or too deeply nested for a pipeline ({limit})")
            }
            reason => format!("not valid YAML: {reason}"),
        },
    };
    let twice = matches!(cause, Error::DuplicateMappingKey { .. });
    SyntaxError { message, label: if twice { "the second one" } else { "here" }, place }
}

/// The parser's own sentence without the position, which the snippet shows.
fn first_line(error: &serde_saphyr::Error) -> String {
    let text = error.without_snippet().to_string();
    let line = text.lines().next().unwrap_or_default();
    let end = line.find(" at line ").or_else(|| line.find(": line ")).unwrap_or(line.len());
    let start = if line.starts_with("error: ") { "error: ".len() } else { 0 };
    line.get(start..end).unwrap_or(line).trim().to_string()
}

fn place_of(location: Location) -> Place {
    let span = location.span();
    let (start, len) = match (span.byte_offset(), span.byte_len()) {
        (Some(start), Some(len)) => (start, len),
        _ => (span.offset(), span.len()),
    };
    // A pipeline is far below 4 GiB, so these conversions cannot lose anything on supported targets.
    Place { source: 0, start: start as usize, len: len as usize }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let spanned = Spanned::<Value>::deserialize(deserializer)?;
        Ok(Self { value: spanned.value, place: place_of(spanned.referenced) })
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ValueVisitor)
    }
}

struct ValueVisitor;

impl<'de> Visitor<'de> for ValueVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a YAML value")
    }

    fn visit_unit<E: de::Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E: de::Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E: de::Error>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<Value, E> {
        Ok(u64::try_from(value).map_or(Value::Int(value), Value::Uint))
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Uint(value))
    }

    fn visit_i128<E: de::Error>(self, value: i128) -> Result<Value, E> {
        Ok(Value::Float(value as f64))
    }

    fn visit_u128<E: de::Error>(self, value: u128) -> Result<Value, E> {
        Ok(Value::Float(value as f64))
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Value, E> {
        Ok(Value::Float(value))
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Value, E> {
        Ok(Value::Str(text.to_string()))
    }

    fn visit_string<E: de::Error>(self, text: String) -> Result<Value, E> {
        Ok(Value::Str(text))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = access.next_element::<Node>()? {
            items.push(item);
        }
        Ok(Value::Seq(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut entries = Vec::new();
        while let Some(key) = access.next_key::<Spanned<String>>()? {
            let key_place = place_of(key.referenced);
            entries.push(Entry { key: key.value, key_place, value: access.next_value::<Node>()? });
        }
        Ok(Value::Map(entries))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text_at(text: &str, place: Place) -> &str {
        &text[place.start..place.start + place.len]
    }

    #[test]
    fn keys_and_scalars_know_their_place() {
        let text =
            "é: 1\nstages:\n  model: { train: { method: loev++, lr: 5e-4, on: yes } }\n  q: {sql: \"a b\"}\n";
        let root = parse(text, 0, 0).unwrap();
        let stages = root.get("stages").unwrap();
        assert_eq!(text_at(text, stages.key_place), "stages");
        let train = stages.value.get("model").unwrap().value.get("train").unwrap();
        assert_eq!(text_at(text, train.key_place), "train");
        let method = train.value.get("method").unwrap();
        assert_eq!(text_at(text, method.label()), "loev++");
        assert!(matches!(train.value.get("lr").unwrap().value.value, Value::Float(x) if x == 5e-4));
        assert!(matches!(&train.value.get("on").unwrap().value.value, Value::Str(s) if s == "yes"));
        let sql = stages.value.get("q").unwrap().value.get("sql").unwrap();
        assert_eq!(text_at(text, sql.label()), "\"a b\"");
    }

    #[test]
    fn aliases_point_at_their_use() {
        let text = "a: &x 3\nb: *x\n";
        let root = parse(text, 2, 10).unwrap();
        let place = root.get("b").unwrap().value.place;
        assert_eq!((place.source, place.start), (2, 10 + text.find("*x").unwrap()));
    }

    #[test]
    fn shortened_texts_end_on_a_character() {
        assert_eq!(shorten("abc"), "abc");
        assert_eq!(shorten(&"é".repeat(50)), format!("{}…", "é".repeat(40)));
    }
}
