//! The reference of all functions, from what each says of itself: `docs/functions.md`.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use datafusion::execution::FunctionRegistry;
use datafusion::execution::context::SessionContext;
use datafusion::logical_expr::Documentation;

use super::{names, relation};
use crate::error::SqlError;
use crate::session::new_session;

/// A function, with the other names that it has.
struct Entry {
    name: String,
    aliases: Vec<String>,
    documentation: Option<Documentation>,
}

/// The reference as Markdown: the functions of this crate in full, DataFusion's by name.
///
/// # Errors
/// As [`new_session`].
pub fn reference() -> Result<String, SqlError> {
    let context = new_session(1, None)?;
    let ours = names();
    let (own, others): (Vec<Entry>, Vec<Entry>) =
        entries(&context).into_iter().partition(|entry| ours.contains(&entry.name));
    let mut text = String::from("# Functions\n\nWritten by `loev sql --functions`; do not edit.\n");
    for (section, entries) in by_section(&own) {
        let _ = writeln!(text, "\n## {section}");
        for entry in entries {
            describe(entry, &mut text);
        }
    }
    text.push_str(
        "\n## DataFusion's functions\n\nEverything else comes from [DataFusion](https://datafusion.apache.org/user-guide/sql/index.html), \
         where each is described; at the prompt `\\df NAME` does.\n\n| kind | names |\n| --- | --- |\n",
    );
    for (section, entries) in by_section(&others) {
        let names: Vec<String> =
            entries.iter().map(|entry| format!("`{}`", entry.name.replace('|', "\\|"))).collect();
        let _ = writeln!(text, "| {} | {} |", section.trim_end_matches(" Functions"), names.join(", "));
    }
    Ok(text)
}

fn describe(entry: &Entry, text: &mut String) {
    // Writing to a String cannot fail.
    let Some(documentation) = &entry.documentation else {
        let _ = writeln!(text, "\n### `{}`", entry.name);
        return;
    };
    let _ =
        writeln!(text, "\n### `{}`\n\n{}", documentation.syntax_example, documentation.description.trim());
    let arguments = documentation.arguments.iter().flatten();
    for (index, (name, what)) in arguments.enumerate() {
        let _ = writeln!(text, "{}* `{name}`: {what}", if index == 0 { "\n" } else { "" });
    }
    if !entry.aliases.is_empty() {
        let aliases: Vec<String> = entry.aliases.iter().map(|alias| format!("`{alias}`")).collect();
        let _ = writeln!(text, "\nAlso {}.", aliases.join(", "));
    }
    if let Some(example) = &documentation.sql_example {
        let _ = writeln!(text, "\n```sql\n{}\n```", example.trim());
    }
}

fn by_section(entries: &[Entry]) -> BTreeMap<&str, Vec<&Entry>> {
    let mut sections: BTreeMap<&str, Vec<&Entry>> = BTreeMap::new();
    for entry in entries {
        let section = entry.documentation.as_ref().map_or("Other Functions", |text| text.doc_section.label);
        sections.entry(section).or_default().push(entry);
    }
    sections
}

/// Every function once, by name.
fn entries(context: &SessionContext) -> Vec<Entry> {
    let state = context.state();
    let mut entries = BTreeMap::new();
    let mut add = |name: &str, aliases: &[String], documentation: Option<&Documentation>| {
        let mut aliases: Vec<String> = aliases.iter().filter(|alias| *alias != name).cloned().collect();
        aliases.sort();
        let entry = Entry { name: name.to_owned(), aliases, documentation: documentation.cloned() };
        entries.insert(name.to_owned(), entry);
    };
    for function in state.udwfs().iter().filter_map(|name| state.udwf(name).ok()) {
        add(function.name(), function.aliases(), function.documentation());
    }
    for function in state.udafs().iter().filter_map(|name| state.udaf(name).ok()) {
        add(function.name(), function.aliases(), function.documentation());
    }
    for function in state.udfs().iter().filter_map(|name| state.udf(name).ok()) {
        add(function.name(), function.aliases(), function.documentation());
    }
    for (name, documentation) in relation::documentation() {
        add(name, &[], Some(&documentation));
    }
    entries.into_values().collect()
}

// With the server come functions of DataFusion that are not in the default build.
#[cfg(all(test, not(feature = "serve")))]
mod tests {
    #[test]
    fn the_reference_is_what_the_functions_say() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/functions.md");
        let stored = std::fs::read_to_string(path).unwrap_or_default();
        let text = super::reference().unwrap();
        assert!(
            text.contains("### `transpose_key(key, semitones)`")
                && text.contains("Also `array_cosine_distance`, `list_cosine_distance`.")
        );
        let stale = "docs/functions.md is out of date: loev sql --functions > docs/functions.md";
        assert!(stored == text, "{stale}");
    }
}
