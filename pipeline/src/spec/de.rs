//! Typed reading of the YAML tree: a serde deserialiser whose errors carry a place and a dotted path.
//!
//! Unknown keys do not stop the reading: they are noted in the [`Reader`] and passed over, so that one
//! look at a file shows all of them. A wrong value stops the reading of the structure it is in.

use std::cell::{Cell, RefCell};
use std::fmt;

use serde::de::value::StrDeserializer;
use serde::de::{
    self, DeserializeSeed, Deserializer, EnumAccess, MapAccess, SeqAccess, VariantAccess, Visitor,
};

use super::diagnostics::{Document, Problem, closest, did_you_mean, list};
use super::node::{Entry, Node, Place, Value};
use super::schema;

/// The document being read and the problems noted on the way.
pub(super) struct Reader<'d> {
    document: &'d Document,
    problems: RefCell<Vec<Problem>>,
}

/// Keys of the map at hand that belong to another structure reading the same map.
#[derive(Clone, Copy)]
pub(super) enum Others<'k> {
    /// These are not ours, and any further unknown key is an error.
    Known(&'k [String]),
    /// Whoever reads the map first has reported its unknown keys.
    Any,
}

/// How the messages of operators begin their suggestions.
const SUGGESTIONS: [&str; 2] = ["did you mean ", "there is "];

/// Longer descriptions of what was expected are given in the message only.
const LONGEST_LABEL: usize = 40;

impl<'d> Reader<'d> {
    pub fn new(document: &'d Document) -> Self {
        Self { document, problems: RefCell::new(Vec::new()) }
    }

    /// Reads the value at a node. `path` is where it stands ("stages.model.train"), `label` what to
    /// underline when the value as a whole is wrong.
    pub fn read<T: de::DeserializeOwned>(
        &self,
        node: &Node,
        path: &str,
        label: Place,
        others: Others<'_>,
    ) -> Option<T> {
        match T::deserialize(De { reader: self, node, path: path.to_string(), label, others }) {
            Ok(value) => Some(value),
            Err(failure) => {
                self.note_failure(failure.located(label, path));
                None
            }
        }
    }

    /// Notes a problem.
    pub fn note(
        &self,
        place: Place,
        message: impl Into<String>,
        label: impl Into<String>,
        help: Option<String>,
    ) {
        let problem = self.document.problem(place, message, label, help);
        self.problems.borrow_mut().push(problem);
    }

    /// Everything noted so far.
    pub fn into_problems(self) -> Vec<Problem> {
        self.problems.into_inner()
    }

    fn note_failure(&self, failure: Failure) {
        let Located { place, path } = failure.0.at.unwrap_or_default();
        let option = path.rsplit('.').next().unwrap_or_default();
        match failure.0.kind {
            Kind::UnknownKey { name, known } => self.note_unknown_key(place, &path, &name, &known),
            Kind::UnknownName { name, known } => {
                let known = known.iter().map(String::as_str);
                let help = did_you_mean(&name, known.clone())
                    .unwrap_or_else(|| format!("choose from {}", list(known)));
                self.note(
                    place,
                    format!("`{path}` does not know `{name}`"),
                    "not one of the choices",
                    Some(help),
                );
            }
            Kind::Missing(name) => {
                let of = if path.is_empty() { "the pipeline".to_string() } else { format!("`{path}`") };
                let help = schema::find(&join(&path, &name)).and_then(|info| info.meaning());
                let help = help.map(|meaning| format!("`{name}`: {meaning}"));
                self.note(
                    place,
                    format!("{of} lacks the required option `{name}`"),
                    format!("needs `{name}`"),
                    help,
                );
            }
            Kind::Mismatch { expected, found } => {
                let what = if path.is_empty() { "the pipeline".to_string() } else { format!("`{path}`") };
                let unit = schema::find(&path).and_then(|info| info.unit);
                let help = unit.map(|unit| format!("`{option}` is a plain number; its unit is {unit}"));
                let label = if expected.len() <= LONGEST_LABEL {
                    format!("expected {expected}")
                } else {
                    "here".into()
                };
                self.note(place, format!("{what}: expected {expected}, found {found}"), label, help);
            }
            Kind::Message(text) => {
                // Messages of operators and other parts end with their own suggestion.
                let (message, help) = match text.split_once("; ") {
                    Some((message, rest)) if SUGGESTIONS.iter().any(|start| rest.starts_with(start)) => {
                        (message, Some(rest.to_string()))
                    }
                    _ => (text.as_str(), None),
                };
                self.note(place, format!("`{path}`: {message}"), "here", help);
            }
            Kind::Reported => {}
        }
    }

    fn note_unknown_key(&self, place: Place, path: &str, name: &str, known: &[String]) {
        let of = if path.is_empty() { "a pipeline".to_string() } else { format!("`{path}`") };
        let known = known.iter().map(String::as_str);
        let help = did_you_mean(name, known.clone())
            .or_else(|| (known.clone().next().is_some()).then(|| format!("{of} has {}", list(known))));
        self.note(place, format!("{of} has no option `{name}`"), "unknown option", help);
    }
}

fn join(path: &str, part: &str) -> String {
    if path.is_empty() { part.to_string() } else { format!("{path}.{part}") }
}

/// Why a value could not be read.
#[derive(Debug)]
struct Failure(Box<Inner>);

#[derive(Debug)]
struct Inner {
    kind: Kind,
    at: Option<Located>,
}

#[derive(Debug, Default)]
struct Located {
    place: Place,
    path: String,
}

#[derive(Debug)]
enum Kind {
    UnknownKey {
        name: String,
        known: Vec<String>,
    },
    UnknownName {
        name: String,
        known: Vec<String>,
    },
    Missing(String),
    Mismatch {
        expected: String,
        found: String,
    },
    Message(String),
    /// The cause has been noted already.
    Reported,
}

impl Failure {
    fn new(kind: Kind) -> Self {
        Self(Box::new(Inner { kind, at: None }))
    }

    /// Gives the failure a place unless it has a closer one.
    fn located(mut self, place: Place, path: &str) -> Self {
        self.0.at.get_or_insert_with(|| Located { place, path: path.to_string() });
        self
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0.kind {
            Kind::UnknownKey { name, .. } => write!(f, "unknown option `{name}`"),
            Kind::UnknownName { name, known } => {
                write!(f, "unknown name `{name}`; known: {}", list(known.iter().map(String::as_str)))
            }
            Kind::Missing(name) => write!(f, "the required option `{name}` is missing"),
            Kind::Mismatch { expected, found } => write!(f, "expected {expected}, found {found}"),
            Kind::Message(message) => f.write_str(message),
            Kind::Reported => f.write_str("already reported"),
        }
    }
}

impl std::error::Error for Failure {}

impl de::Error for Failure {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self::new(Kind::Message(message.to_string()))
    }

    fn invalid_type(found: de::Unexpected<'_>, expected: &dyn de::Expected) -> Self {
        Self::new(Kind::Mismatch { expected: plain(&expected.to_string()), found: found_words(found) })
    }

    fn invalid_value(found: de::Unexpected<'_>, expected: &dyn de::Expected) -> Self {
        Self::invalid_type(found, expected)
    }

    fn invalid_length(len: usize, expected: &dyn de::Expected) -> Self {
        let found = format!("{len} values");
        Self::new(Kind::Mismatch { expected: plain(&expected.to_string()), found })
    }

    fn unknown_field(name: &str, known: &'static [&'static str]) -> Self {
        Self::new(Kind::UnknownKey { name: name.to_string(), known: owned(known) })
    }

    fn unknown_variant(name: &str, known: &'static [&'static str]) -> Self {
        Self::new(Kind::UnknownName { name: name.to_string(), known: owned(known) })
    }

    fn missing_field(name: &'static str) -> Self {
        Self::new(Kind::Missing(name.to_string()))
    }

    fn duplicate_field(name: &'static str) -> Self {
        Self::new(Kind::Message(format!("`{name}` appears twice")))
    }
}

fn owned(names: &[&str]) -> Vec<String> {
    names.iter().map(ToString::to_string).collect()
}

/// serde's names of types, in words for people who write YAML.
fn plain(expected: &str) -> String {
    match expected {
        "u8" => "a whole number from 0 to 255".to_string(),
        "u16" => "a whole number from 0 to 65535".to_string(),
        "u32" => "a whole number from 0 to 4294967295".to_string(),
        "u64" | "usize" => "a whole number of at least 0".to_string(),
        "i8" | "i16" | "i32" | "i64" | "isize" => "a whole number".to_string(),
        "f32" | "f64" => "a number".to_string(),
        "a boolean" => "true or false".to_string(),
        "a string" | "string" => "text".to_string(),
        "a sequence" => "a list".to_string(),
        _ if expected.starts_with("struct ") => "a map of options".to_string(),
        _ if expected.starts_with("enum ") => "a name, or a map with one name as its key".to_string(),
        _ => expected.to_string(),
    }
}

fn found_words(found: de::Unexpected<'_>) -> String {
    use de::Unexpected;
    let value = match found {
        Unexpected::Bool(value) => Value::Bool(value),
        Unexpected::Unsigned(value) => Value::Uint(value),
        Unexpected::Signed(value) => Value::Int(value),
        Unexpected::Float(value) => Value::Float(value),
        Unexpected::Str(text) => Value::Str(text.to_string()),
        Unexpected::Unit | Unexpected::Option => Value::Null,
        Unexpected::Seq => Value::Seq(Vec::new()),
        Unexpected::Map => Value::Map(Vec::new()),
        other => return other.to_string(),
    };
    Node { value, place: Place::default() }.describe()
}

/// The deserialiser of one node.
struct De<'r, 'd> {
    reader: &'r Reader<'d>,
    node: &'r Node,
    path: String,
    label: Place,
    others: Others<'r>,
}

impl<'r, 'd> De<'r, 'd> {
    fn mismatch(&self, expected: &dyn de::Expected) -> Failure {
        Failure::new(Kind::Mismatch { expected: plain(&expected.to_string()), found: self.node.describe() })
    }

    /// Hands a map's entries to a visitor. A complaint about a key whose value was not yet asked for is
    /// located at that key.
    fn visit_entries<'de, V: Visitor<'de>>(
        &self,
        entries: &'r [Entry],
        fields: Option<&'static [&'static str]>,
        visitor: V,
    ) -> Result<V::Value, Failure> {
        let pending = Cell::new(None);
        let map =
            Map { reader: self.reader, entries: entries.iter(), path: &self.path, fields, pending: &pending };
        visitor.visit_map(map).map_err(|failure| match pending.get() {
            Some(entry) => failure.located(entry.key_place, &self.path),
            None => failure,
        })
    }

    /// A structure with known fields: unknown keys are noted and passed over.
    fn structure<'de, V: Visitor<'de>>(
        &self,
        entries: &'r [Entry],
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Failure> {
        let mut suggested = Vec::new();
        if let Others::Known(others) = self.others {
            let known: Vec<String> =
                fields.iter().map(ToString::to_string).chain(others.iter().cloned()).collect();
            for entry in entries.iter().filter(|entry| !known.contains(&entry.key)) {
                let unused =
                    known.iter().map(String::as_str).filter(|name| !entries.iter().any(|e| e.key == **name));
                suggested.extend(closest(&entry.key, unused).map(str::to_string));
                self.reader.note_unknown_key(entry.key_place, &self.path, &entry.key, &known);
            }
        }
        self.visit_entries(entries, Some(fields), visitor).map_err(|failure| match &failure.0.kind {
            // A misspelt key has been reported; that its right spelling is missing would say it twice.
            Kind::Missing(name) if suggested.contains(name) => Failure::new(Kind::Reported),
            _ => failure,
        })
    }
}

impl<'de> Deserializer<'de> for De<'_, '_> {
    type Error = Failure;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        match &self.node.value {
            Value::Null => visitor.visit_unit(),
            Value::Bool(value) => visitor.visit_bool(*value),
            Value::Int(value) => visitor.visit_i64(*value),
            Value::Uint(value) => visitor.visit_u64(*value),
            Value::Float(value) => visitor.visit_f64(*value),
            Value::Str(text) => visitor.visit_str(text),
            Value::Seq(items) => visitor.visit_seq(Seq {
                reader: self.reader,
                items: items.iter(),
                path: &self.path,
                index: 0,
            }),
            Value::Map(entries) => self.visit_entries(entries, None, visitor),
        }
        .map_err(|failure| failure.located(self.label, &self.path))
    }

    fn deserialize_u8<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        self.deserialize_u64(visitor)
    }

    fn deserialize_u16<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        self.deserialize_u64(visitor)
    }

    fn deserialize_u32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        self.deserialize_u64(visitor)
    }

    fn deserialize_u64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        // 1e4 and 100.0 are whole numbers, however they are written. Up to 2^53 they are exact.
        match self.node.value {
            Value::Float(value) if value.fract() == 0.0 && (0.0..=9e15).contains(&value) => visitor
                .visit_u64(value as u64)
                .map_err(|failure: Failure| failure.located(self.label, &self.path)),
            _ => self.deserialize_any(visitor),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        match self.node.value {
            Value::Null => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Failure> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Failure> {
        match self.node.entries() {
            Some(entries) => self.structure(entries, fields, visitor),
            None => Err(self.mismatch(&visitor)),
        }
        .map_err(|failure| failure.located(self.label, &self.path))
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        match self.node.entries() {
            Some(entries) => self.visit_entries(entries, None, visitor),
            None => Err(self.mismatch(&visitor)),
        }
        .map_err(|failure| failure.located(self.label, &self.path))
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Failure> {
        let (label, path) = (self.label, self.path.clone());
        match &self.node.value {
            Value::Str(name) => {
                visitor.visit_enum(Variant { de: &self, name, place: self.label, content: None })
            }
            Value::Map(entries) => match entries.as_slice() {
                [entry] => visitor.visit_enum(Variant {
                    de: &self,
                    name: &entry.key,
                    place: entry.key_place,
                    content: Some(entry),
                }),
                _ => Err(Failure::new(Kind::Mismatch {
                    expected: format!("a map with one key of {}", list(variants.iter().copied())),
                    found: format!("one with {} keys", entries.len()),
                })),
            },
            _ => Err(Failure::new(Kind::Mismatch {
                expected: format!("one of {}", list(variants.iter().copied())),
                found: self.node.describe(),
            })),
        }
        .map_err(|failure| failure.located(label, &path))
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        visitor.visit_unit()
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u128 f32 f64 char str string bytes byte_buf unit unit_struct seq tuple
        tuple_struct identifier
    }
}

struct Seq<'r, 'd> {
    reader: &'r Reader<'d>,
    items: std::slice::Iter<'r, Node>,
    path: &'r str,
    index: usize,
}

impl<'de> SeqAccess<'de> for Seq<'_, '_> {
    type Error = Failure;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Failure> {
        let Some(node) = self.items.next() else { return Ok(None) };
        let path = join(self.path, &self.index.to_string());
        self.index += 1;
        seed.deserialize(De {
            reader: self.reader,
            node,
            path,
            label: node.place,
            others: Others::Known(&[]),
        })
        .map(Some)
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.items.len())
    }
}

struct Map<'r, 'd, 'm> {
    reader: &'r Reader<'d>,
    entries: std::slice::Iter<'r, Entry>,
    path: &'m str,
    /// The keys to hand out; all of them if `None`.
    fields: Option<&'static [&'static str]>,
    /// The entry whose key was handed out and whose value was not.
    pending: &'m Cell<Option<&'r Entry>>,
}

impl<'de> MapAccess<'de> for Map<'_, '_, '_> {
    type Error = Failure;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Failure> {
        let fields = self.fields;
        let wanted = |entry: &&Entry| fields.is_none_or(|fields| fields.contains(&entry.key.as_str()));
        let Some(entry) = self.entries.find(wanted) else { return Ok(None) };
        self.pending.set(Some(entry));
        seed.deserialize(StrDeserializer::<Failure>::new(&entry.key)).map(Some)
    }

    fn next_value_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<T::Value, Failure> {
        let Some(entry) = self.pending.take() else {
            return Err(de::Error::custom("a value was asked for before its key"));
        };
        let path = join(self.path, &entry.key);
        let (reader, node, label) = (self.reader, &entry.value, entry.label());
        seed.deserialize(De { reader, node, path, label, others: Others::Known(&[]) })
            .map_err(|failure| failure.located(label, &join(self.path, &entry.key)))
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.entries.len())
    }
}

/// A variant given as its bare name or as a map with its name as the only key.
struct Variant<'r, 'd> {
    de: &'r De<'r, 'd>,
    name: &'r str,
    place: Place,
    content: Option<&'r Entry>,
}

impl<'r, 'd> Variant<'r, 'd> {
    fn content(&self) -> De<'r, 'd> {
        static EMPTY: Node = Node { value: Value::Null, place: Place { source: 0, start: 0, len: 0 } };
        let node = self.content.map_or(&EMPTY, |entry| &entry.value);
        let label = self.content.map_or(self.place, Entry::label);
        let path = join(&self.de.path, self.name);
        De { reader: self.de.reader, node, path, label, others: Others::Known(&[]) }
    }
}

impl<'de> EnumAccess<'de> for Variant<'_, '_> {
    type Error = Failure;
    type Variant = Self;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, Self), Failure> {
        match seed.deserialize(StrDeserializer::<Failure>::new(self.name)) {
            Ok(variant) => Ok((variant, self)),
            Err(failure) => Err(failure.located(self.place, &self.de.path)),
        }
    }
}

impl<'de> VariantAccess<'de> for Variant<'_, '_> {
    type Error = Failure;

    fn unit_variant(self) -> Result<(), Failure> {
        match self.content() {
            De { node: Node { value: Value::Null, .. }, .. } => Ok(()),
            content => Err(Failure::new(Kind::Mismatch {
                expected: "given by its name alone".to_string(),
                found: content.node.describe(),
            })
            .located(content.label, &content.path)),
        }
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, Failure> {
        seed.deserialize(self.content())
    }

    fn tuple_variant<V: Visitor<'de>>(self, _len: usize, visitor: V) -> Result<V::Value, Failure> {
        self.content().deserialize_any(visitor)
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Failure> {
        self.content().deserialize_struct("", fields, visitor)
    }
}
