//! The reference of the pipeline file, written from its JSON Schema: `docs/reference.md`.

use std::fmt::Write as _;

use serde_json::Value;

use super::schema::{OptionInfo, resolve, schema, short_number};
use super::stage::Kind;

/// Markdown with a table of options per kind of stage, and the operators.
///
/// Written to `docs/reference.md`, where a check compares the two.
pub fn reference_markdown() -> String {
    let root = schema();
    let mut text = String::from(
        "# Reference of the pipeline file\n\n\
         Generated from the definitions of the options; do not edit. `loev schema` prints the same as a JSON\n\
         Schema for editors.\n\n\
         A pipeline file is a map with these keys:\n\n",
    );
    table(&mut text, root, root);
    text.push_str(
        "\nA stage has one key, its kind, with the options under it. Its name is the name of its table in SQL: \
         it starts with a-z and goes on with a-z, 0-9 and _.\n",
    );
    for kind in Kind::ALL {
        let stage = root.pointer("/$defs/Stage/properties").and_then(|kinds| kinds.get(kind.name()));
        let Some(stage) = stage.map(|stage| resolve(root, stage).unwrap_or(stage)) else { continue };
        text.push_str(&format!("\n## `{}`\n\n", kind.name()));
        if let Some(description) = stage.get("description").and_then(Value::as_str) {
            text.push_str(description);
            text.push_str("\n\n");
        }
        match stage.get("properties") {
            Some(_) => table(&mut text, root, stage),
            // A kind with a short form: the table is that of its long form.
            None => {
                let forms = stage.get("anyOf").and_then(Value::as_array).into_iter().flatten();
                let _ = writeln!(text, "Given as {}.\n", type_name(root, stage, 0));
                forms
                    .filter(|form| form.get("properties").is_some())
                    .for_each(|form| table(&mut text, root, form));
            }
        }
    }
    text.push_str(
        "\n## Operators\n\n\
         An entry of `base` or `variant` is `{name: {parameter: value}}`, or the bare name for its defaults. A\n\
         parameter is one number, a range `[low, high]` to draw from, or one of the forms that the schema names.\n",
    );
    for def in loev_ops::operators::all() {
        let _ = write!(
            text,
            "\n### `{}`\n\n```text\n{}\n```\n",
            def.name,
            loev_ops::operator::describe(def).trim()
        );
    }
    text
}

fn table(text: &mut String, root: &Value, object: &Value) {
    text.push_str("| option | type | default | range | meaning |\n| --- | --- | --- | --- | --- |\n");
    rows(text, root, object, "", 0);
}

/// Groups of options within options, deep enough for all of ours.
const MAX_DEPTH: usize = 6;

fn rows(text: &mut String, root: &Value, object: &Value, prefix: &str, depth: usize) {
    if depth > MAX_DEPTH {
        return;
    }
    let required = |name: &str| {
        let names = object.get("required").and_then(Value::as_array);
        names.is_some_and(|names| names.iter().any(|required| required == name))
    };
    for (name, option) in object.get("properties").and_then(Value::as_object).into_iter().flatten() {
        let info = OptionInfo::new(option);
        let target = resolve(root, option).unwrap_or(option);
        let default = match option.get("default") {
            _ if required(name) && prefix.is_empty() => "**required**".to_string(),
            Some(default) if !default.is_null() => format!("`{}`", short_default(default)),
            _ => String::new(),
        };
        let meaning = info.meaning().or_else(|| OptionInfo::new(target).meaning()).unwrap_or_default();
        let range = info.range().or_else(|| info.unit.map(|unit| format!("in {unit}"))).unwrap_or_default();
        let cells =
            [type_name(root, option, 0), default, range, meaning].map(|cell| cell.replace('|', "\\|"));
        let _ = writeln!(text, "| `{prefix}{name}` | {} |", cells.join(" | "));
        rows(text, root, target, &format!("{prefix}{name}."), depth + 1);
        // A choice of groups: `encoder: {vit: {...}}`.
        for choice in target.get("oneOf").and_then(Value::as_array).into_iter().flatten() {
            let variants = choice.get("properties").and_then(Value::as_object).into_iter().flatten();
            for (variant, content) in variants {
                let content = resolve(root, content).unwrap_or(content);
                rows(text, root, content, &format!("{prefix}{name}.{variant}."), depth + 1);
            }
        }
    }
}

/// A default as one would write it: groups with all their own defaults by their name alone.
fn short_default(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Number(_) => short_number(value),
        Value::Array(items) => {
            format!("[{}]", items.iter().map(short_default).collect::<Vec<_>>().join(", "))
        }
        Value::Object(entries) => match entries.iter().next() {
            Some((name, Value::Object(_))) if entries.len() == 1 => name.clone(),
            None => "{}".to_string(),
            Some(_) => "see below".to_string(),
        },
        other => other.to_string(),
    }
}

fn type_name(root: &Value, schema: &Value, depth: usize) -> String {
    if depth > MAX_DEPTH {
        return "value".to_string();
    }
    if let Some(name) = schema.get("$ref").and_then(Value::as_str).and_then(|name| name.rsplit('/').next())
        && let Some((_, text)) = [
            ("Operator", "[operator](#operators)"),
            ("ChainEntry", "[operator or group](augmentation.md#chains)"),
        ]
        .iter()
        .find(|(known, _)| *known == name)
    {
        return (*text).to_string();
    }
    let schema = resolve(root, schema).unwrap_or(schema);
    if let Some(only) = schema.get("const").and_then(Value::as_str) {
        return format!("`{only}`");
    }
    if let Some(names) = schema.get("enum").and_then(Value::as_array) {
        let names: Vec<String> = names.iter().map(|name| format!("`{}`", short_default(name))).collect();
        return names.join(" or ");
    }
    for key in ["anyOf", "oneOf"] {
        if let Some(choices) = schema.get(key).and_then(Value::as_array) {
            let mut names: Vec<String> = Vec::new();
            for choice in choices.iter().filter(|choice| choice.get("type").is_none_or(|kind| kind != "null"))
            {
                let name = type_name(root, choice, depth + 1);
                if !names.contains(&name) {
                    names.push(name);
                }
            }
            return names.join(" or ");
        }
    }
    // `[T, "null"]` is how an option without a default is written.
    let kind = match schema.get("type") {
        Some(Value::Array(kinds)) => kinds.iter().filter_map(Value::as_str).find(|kind| *kind != "null"),
        kind => kind.and_then(Value::as_str),
    };
    match kind {
        Some("integer") => "whole number".to_string(),
        Some("number") => "number".to_string(),
        Some("string") => "text".to_string(),
        Some("boolean") => "`true` or `false`".to_string(),
        Some("array") => {
            let items = schema.get("items").map(|items| type_name(root, items, depth + 1));
            format!("list of {}", items.unwrap_or_else(|| "values".to_string()))
        }
        Some("object") => object_name(root, schema, depth),
        _ => "value".to_string(),
    }
}

fn object_name(root: &Value, schema: &Value, depth: usize) -> String {
    let single =
        schema.get("properties").and_then(Value::as_object).filter(|properties| properties.len() == 1);
    match single.and_then(|properties| properties.iter().next()) {
        Some((name, content)) => {
            let inner = type_name(root, content, depth + 1);
            format!("`{{{name}: {}}}`", inner.replace('`', ""))
        }
        None => match schema.get("additionalProperties").filter(|any| any.is_object()) {
            Some(any) if any.get("$ref").is_some_and(|name| name == "#/$defs/Stage") => {
                "map of stages".to_string()
            }
            Some(any) => format!("map to {}", type_name(root, any, depth + 1)),
            None => "map".to_string(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_option_has_a_complete_row() {
        let text = reference_markdown();
        for kind in Kind::ALL {
            assert!(text.contains(&format!("\n## `{}`\n", kind.name())));
        }
        for row in text.lines().filter(|line| line.starts_with("| `")) {
            let cells: Vec<&str> = row.split(" | ").collect();
            assert_eq!(cells.len(), 5, "{row}");
            assert!(!cells[1].contains("value") && cells[4].len() > 5, "{row}");
        }
        assert!(
            text.contains("| `sample_rate` | whole number | `16000` | from 4000 to 192000 Hz |"),
            "{text}"
        );
        assert!(text.contains("| `encoder.vit.dim` |") && text.contains("| `limits.max_rate` |"), "{text}");
    }
}
