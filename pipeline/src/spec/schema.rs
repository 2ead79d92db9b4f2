//! JSON Schema of the pipeline file, and look-ups in it.
//!
//! The schema is derived from the same structures that read the file, so it cannot drift from them.
//! Editors take it for completion and checking (`loev schema > loev.schema.json`); the reference
//! documentation and the wording of range errors are generated from it too.

use std::sync::OnceLock;

use schemars::{JsonSchema, Schema, SchemaGenerator, generate::SchemaSettings};
use serde_json::{Map, Value, json};

use super::Pipeline;
use super::stage::{self, Kind};

/// Key of a schema object that gives an option's unit.
pub(super) const UNIT: &str = "x-unit";

/// The JSON Schema (draft 2020-12) of a pipeline file.
pub fn json_schema() -> Value {
    schema().clone()
}

/// The same, built once.
pub(super) fn schema() -> &'static Value {
    static SCHEMA: OnceLock<Value> = OnceLock::new();
    SCHEMA.get_or_init(build)
}

fn build() -> Value {
    let mut generator = SchemaSettings::draft2020_12().into_generator();
    let mut kinds = Map::new();
    for kind in Kind::ALL {
        let options = stage::options_schema(kind, &mut generator);
        kinds.insert(kind.name().to_string(), options.to_value());
    }
    let stage = json!({
        "title": "Stage",
        "description": "One named step of the pipeline: its kind, and under it the kind's options.",
        "type": "object",
        "properties": kinds,
        "additionalProperties": false,
        "minProperties": 1,
        "maxProperties": 1,
    });
    let mut root = Pipeline::json_schema(&mut generator).to_value();
    let stages = json!({
        "description": "The stages by name. The order is free: a stage runs after those that it reads.",
        "type": "object",
        "propertyNames": { "pattern": super::check::NAME_PATTERN },
        "minProperties": 1,
        "additionalProperties": { "$ref": "#/$defs/Stage" },
    });
    let mut defs = Map::new();
    defs.insert("Stage".to_string(), stage);
    defs.extend(generator.take_definitions(true));
    if let Value::Object(root) = &mut root {
        root.insert("$schema".to_string(), json!("https://json-schema.org/draft/2020-12/schema"));
        root.insert("title".to_string(), json!("loev pipeline"));
        if let Some(Value::Object(properties)) = root.get_mut("properties") {
            properties.insert("stages".to_string(), stages);
        }
        match root.get_mut("required") {
            Some(Value::Array(required)) => required.push(json!("stages")),
            _ => {
                root.insert("required".to_string(), json!(["stages"]));
            }
        }
        root.insert("$defs".to_string(), Value::Object(defs));
    }
    root
}

/// The schema of `T`'s options with those of `More` beside them: one map in YAML, two types in Rust.
pub(super) fn merged<T: JsonSchema, More: JsonSchema>(generator: &mut SchemaGenerator) -> Schema {
    let mut schema = T::json_schema(generator);
    let more = More::json_schema(generator);
    for key in ["properties", "required"] {
        let Some(theirs) = more.get(key) else { continue };
        match (schema.ensure_object().entry(key).or_insert_with(|| theirs.clone()), theirs) {
            (Value::Object(ours), Value::Object(theirs)) => ours.extend(theirs.clone()),
            (Value::Array(ours), Value::Array(theirs)) => {
                let missing: Vec<Value> =
                    theirs.iter().filter(|name| !ours.contains(name)).cloned().collect();
                ours.extend(missing);
            }
            _ => {}
        }
    }
    schema
}

/// The names of the options of a structure, as its schema lists them.
pub(super) fn option_names<T: JsonSchema>() -> Vec<String> {
    let schema = SchemaSettings::draft2020_12().into_generator().into_root_schema_for::<T>();
    let properties = schema.get("properties").and_then(Value::as_object);
    properties.map(|properties| properties.keys().cloned().collect()).unwrap_or_default()
}

/// What the schema says about one option.
pub(super) struct OptionInfo<'s> {
    schema: &'s Value,
    pub unit: Option<&'s str>,
}

impl<'s> OptionInfo<'s> {
    pub fn new(schema: &'s Value) -> Self {
        Self { schema, unit: schema.get(UNIT).and_then(Value::as_str) }
    }

    /// The first paragraph of the description, on one line.
    pub fn meaning(&self) -> Option<String> {
        let text = self.schema.get("description").and_then(Value::as_str)?;
        let first = text.split("\n\n").next().unwrap_or(text);
        Some(first.split_whitespace().collect::<Vec<_>>().join(" "))
    }

    /// The allowed range in words: "from 0.1 to 60 s", "at least 1".
    pub fn range(&self) -> Option<String> {
        let number = |key: &str| self.schema.get(key).filter(|value| value.is_number()).map(short_number);
        let words = match (number("minimum"), number("maximum")) {
            (Some(low), Some(high)) => format!("from {low} to {high}"),
            (Some(low), None) => format!("at least {low}"),
            (None, Some(high)) => format!("at most {high}"),
            (None, None) => return None,
        };
        Some(self.unit.map_or_else(|| words.clone(), |unit| format!("{words} {unit}")))
    }
}

/// A number without a needless ".0".
pub(super) fn short_number(value: &Value) -> String {
    let text = value.to_string();
    text.strip_suffix(".0").map_or_else(|| text.clone(), str::to_string)
}

/// Looks an option up by its path in a pipeline file, such as `stages.model.train.steps`.
pub(super) fn find(path: &str) -> Option<OptionInfo<'static>> {
    let root = schema();
    let parts: Vec<&str> = path.split('.').collect();
    descend(root, root, &parts, 0).map(OptionInfo::new)
}

/// How often references may be followed within one step; a schema of ours never nests this deep.
const MAX_HOPS: usize = 24;

fn descend<'s>(root: &'s Value, schema: &'s Value, path: &[&str], hops: usize) -> Option<&'s Value> {
    if hops > MAX_HOPS {
        return None;
    }
    let Some((first, rest)) = path.split_first() else { return Some(schema) };
    if let Some(child) = schema.get("properties").and_then(|properties| properties.get(*first)) {
        return descend(root, child, rest, 0);
    }
    if let Some(target) = resolve(root, schema)
        && let Some(found) = descend(root, target, path, hops + 1)
    {
        return Some(found);
    }
    for key in ["anyOf", "oneOf", "allOf"] {
        let choices = schema.get(key).and_then(Value::as_array).into_iter().flatten();
        for choice in choices {
            if let Some(found) = descend(root, choice, path, hops + 1) {
                return Some(found);
            }
        }
    }
    if first.parse::<usize>().is_ok()
        && let Some(items) = schema.get("items").filter(|items| items.is_object())
    {
        return descend(root, items, rest, hops + 1);
    }
    let any = schema.get("additionalProperties").filter(|any| any.is_object())?;
    descend(root, any, rest, 0)
}

/// The definition a `$ref` points at.
pub(super) fn resolve<'s>(root: &'s Value, schema: &Value) -> Option<&'s Value> {
    let name = schema.get("$ref")?.as_str()?.strip_prefix("#/$defs/")?;
    root.get("$defs")?.get(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_and_option_is_described() {
        let schema = json_schema();
        assert_eq!(schema["$schema"], "https://json-schema.org/draft/2020-12/schema");
        for kind in Kind::ALL {
            let info = find(&format!("stages.x.{}", kind.name())).unwrap();
            let target = resolve(&schema, info.schema).unwrap_or(info.schema);
            assert!(target.get("description").is_some(), "{} has no description", kind.name());
            let Some(properties) = target.get("properties").and_then(Value::as_object) else {
                assert_eq!(kind, Kind::Sql);
                continue;
            };
            for (name, option) in properties {
                let option =
                    find(&format!("stages.x.{}.{name}", kind.name())).unwrap_or(OptionInfo::new(option));
                assert!(option.meaning().is_some(), "{}.{name} has no description", kind.name());
            }
        }
        assert!(schema["properties"]["name"]["description"].is_string());
        assert_eq!(schema["required"], json!(["name", "stages"]));
    }

    #[test]
    fn options_that_share_a_map_have_different_names() {
        use super::super::stage::{Probe, Train};
        let (train, probe) = (option_names::<Train>(), option_names::<Probe>());
        let both = |ours: &[String], theirs: &[String]| ours.iter().any(|name| theirs.contains(name));
        assert!(!both(&train, &option_names::<loev_models::train::TrainConfig>()), "{train:?}");
        assert!(!both(&probe, &option_names::<loev_models::probe::ProbeConfig>()), "{probe:?}");
    }

    #[test]
    fn options_are_found_through_references() {
        assert_eq!(find("stages.v.views.seconds").unwrap().unit, Some("s"));
        assert!(find("stages.m.train.encoder.vit.dim").unwrap().range().is_some());
        assert!(find("stages.m.train.steps").unwrap().range().unwrap().starts_with("at least 1"));
        assert!(find("stages.m.train.nothing").is_none());
        assert!(find("nowhere.at.all").is_none());
    }
}
