//! A pipeline as YAML, from the JSON that `run.json` holds.

use std::fmt::Write;

use serde_json::Value;

/// Maps and lists that hold nothing but plain values stay on one line of at most so many characters.
const LINE: usize = 100;

/// The value as a YAML document that reads back as the same value.
pub fn yaml(value: &Value) -> String {
    let mut out = String::new();
    match value {
        Value::Object(map) if !map.is_empty() => entries(value, 0, &mut out),
        _ => out = inline(value) + "\n",
    }
    out
}

fn entries(value: &Value, indent: usize, out: &mut String) {
    match value {
        Value::Object(map) => {
            for (name, value) in map {
                let _ = write!(out, "{:indent$}{}:", "", scalar(name));
                under(value, indent, out);
            }
        }
        Value::Array(items) => {
            for item in items {
                let short = inline(item);
                match item {
                    Value::Object(map) if !map.is_empty() && short.len() + indent > LINE => {
                        // The first entry stands behind the dash.
                        let mut inner = String::new();
                        entries(item, indent + 2, &mut inner);
                        let _ = write!(out, "{:indent$}- {}", "", &inner[indent + 2..]);
                    }
                    _ => {
                        let _ = writeln!(out, "{:indent$}- {short}", "");
                    }
                }
            }
        }
        _ => {}
    }
}

/// What stands behind `name:`.
fn under(value: &Value, indent: usize, out: &mut String) {
    if let Value::String(text) = value
        && is_block(text)
    {
        let end = if text.ends_with('\n') { "|" } else { "|-" };
        let _ = writeln!(out, " {end}");
        for line in text.lines() {
            let _ =
                writeln!(out, "{:width$}{line}", "", width = if line.is_empty() { 0 } else { indent + 2 });
        }
        return;
    }
    let short = inline(value);
    let holds_more = match value {
        Value::Object(map) => {
            map.values().any(|v| v.is_object() || v.is_array() || v.as_str().is_some_and(is_block))
        }
        Value::Array(items) => items.iter().any(Value::is_object),
        _ => false,
    };
    let empty = value.as_object().is_some_and(serde_json::Map::is_empty)
        || value.as_array().is_some_and(Vec::is_empty);
    if !empty && (value.is_object() || value.is_array()) && (holds_more || short.len() + indent > LINE) {
        out.push('\n');
        entries(value, indent + 2, out);
    } else {
        let _ = writeln!(out, " {short}");
    }
}

/// Several lines that a block can hold as they are: ends in at most one line break, and no line begins or ends with spaces.
fn is_block(text: &str) -> bool {
    let plain = |line: &str| !line.starts_with([' ', '\t']) && !line.ends_with([' ', '\t']);
    let lines = text.strip_suffix('\n').unwrap_or(text);
    lines.contains('\n')
        && !lines.ends_with('\n')
        && !lines.starts_with('\n')
        && lines.split('\n').all(plain)
        && !lines.chars().any(|c| (c.is_control() && c != '\n') || !is_plain(c))
}

/// On one line. JSON is YAML; names and words need no quotes.
fn inline(value: &Value) -> String {
    match value {
        Value::Object(map) if map.is_empty() => "{}".to_owned(),
        Value::Object(map) => {
            let entries: Vec<String> =
                map.iter().map(|(name, value)| format!("{}: {}", scalar(name), inline(value))).collect();
            format!("{{ {} }}", entries.join(", "))
        }
        Value::Array(items) => format!("[{}]", items.iter().map(inline).collect::<Vec<_>>().join(", ")),
        Value::String(text) => scalar(text),
        other => other.to_string(),
    }
}

/// Characters that YAML prints, and that JSON leaves as they are.
fn is_plain(c: char) -> bool {
    !matches!(c, '\u{7f}'..='\u{9f}' | '\u{2028}' | '\u{2029}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}')
}

/// A text: bare when it can be nothing else, quoted as in JSON otherwise.
fn scalar(text: &str) -> String {
    let word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '/');
    let letter = text.starts_with(|c: char| c.is_ascii_alphabetic());
    let reserved = ["true", "false", "null", "yes", "no", "on", "off", "y", "n"];
    let lower = text.to_ascii_lowercase();
    if letter
        && text.chars().all(|c| word(c) || matches!(c, '-' | '+'))
        && !reserved.contains(&lower.as_str())
    {
        return text.to_owned();
    }
    let quoted = Value::from(text).to_string();
    quoted.chars().fold(String::new(), |mut out, c| {
        match is_plain(c) {
            true => out.push(c),
            false => {
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
        }
        out
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(text: &str) -> Value {
        serde_saphyr::from_str(text).unwrap_or_else(|e| panic!("{e}\n{text}"))
    }

    #[test]
    fn what_is_written_reads_back() {
        let value = json!({
            "name": "a-b", "seed": 5, "empty": {}, "none": [], "yes": "no", "loev": "loev++",
            "stages": {
                "clips": { "synth": { "clips": 8, "seconds": 12.0 } },
                "split": { "sql": { "query": "select *\nfrom clips\n" } },
                "odd": { "sql": { "query": "  two\nlines \n\n", "x": "a: b # c", "y": "\u{2028}\u{85}\t\"'", "null": null } },
                "views": { "views": { "base": [ { "gain": { "db": { "uniform": [-15.0, 5.0] }, "p": 0.5 } }, "polarity" ],
                    "variant": [ { "pitch_shift": { "semitones": { "uniform": [-4.0, 4.0], "and so on": "to make this line longer than it may be at all" } } } ] } },
            },
        });
        let text = yaml(&value);
        assert_eq!(read(&text), value, "{text}");
        assert!(text.contains("query: |\n        select *\n        from clips\n"), "{text}");
        assert!(text.contains("  clips:\n    synth: { clips: 8, seconds: 12.0 }\n"), "{text}");
        assert_eq!(read(&yaml(&json!([1, "x"]))), json!([1, "x"]));
    }
}
