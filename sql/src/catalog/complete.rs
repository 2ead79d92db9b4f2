//! Completion: what may stand at the cursor of a statement.

use std::collections::{BTreeMap, HashSet};

use super::{Catalog, FunctionKind, TableInfo, written};

/// Words of a statement that are offered beside names.
const KEYWORDS: [&str; 52] = [
    "all",
    "and",
    "as",
    "asc",
    "between",
    "by",
    "case",
    "cast",
    "create",
    "cross",
    "desc",
    "describe",
    "distinct",
    "else",
    "end",
    "except",
    "exists",
    "explain",
    "filter",
    "from",
    "full",
    "group",
    "having",
    "in",
    "inner",
    "intersect",
    "is",
    "join",
    "left",
    "like",
    "limit",
    "not",
    "null",
    "offset",
    "on",
    "or",
    "order",
    "over",
    "partition",
    "right",
    "select",
    "set",
    "show",
    "then",
    "union",
    "unnest",
    "using",
    "values",
    "view",
    "when",
    "where",
    "with",
];
/// Words behind which a table stands.
const BEFORE_TABLES: [&str; 4] = ["from", "join", "describe", "table"];

impl Catalog {
    /// What may stand at byte `cursor` of `text`: the byte where the word begun there starts, and the words that it may
    /// become, best first. Behind `alias.` these are the columns of that table, behind `column['` the fields of that
    /// struct, behind `from` tables; elsewhere the columns of the tables that the statement names, then tables,
    /// functions and keywords. Case does not count.
    pub fn complete(&self, text: &str, cursor: usize) -> (usize, Vec<String>) {
        let before = text.get(..cursor).unwrap_or(text);
        let start = before
            .rfind(|c: char| !is_word(c))
            .map_or(0, |at| at + before[at..].chars().next().map_or(1, char::len_utf8));
        let (rest, prefix) = before.split_at(start);
        let named = aliases(text);
        let candidates: Vec<String> = if let Some(rest) = rest.strip_suffix('.') {
            self.behind_dot(&last_name(rest), &named)
        } else if let Some(rest) = rest.strip_suffix("['") {
            self.fields(&last_name(rest))
        } else if last_words(rest).is_some_and(|word| BEFORE_TABLES.contains(&word.as_str())) {
            let functions = self.functions.iter().filter(|function| function.kind == FunctionKind::Table);
            let functions = functions.map(|function| format!("{}(", function.name));
            self.table_names().chain(self.schemas.iter().map(|name| written(name))).chain(functions).collect()
        } else {
            self.anywhere(&named)
        };
        let starts =
            |name: &str| name.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix));
        let mut seen = HashSet::new();
        let fitting = candidates
            .into_iter()
            .filter(|name| starts(name.trim_start_matches('"')) && seen.insert(name.clone()));
        (start, fitting.collect())
    }

    fn table_names(&self) -> impl Iterator<Item = String> {
        self.tables.iter().map(|table| written(&table.name))
    }

    fn behind_dot(&self, name: &str, named: &BTreeMap<String, String>) -> Vec<String> {
        if self.schemas.iter().any(|schema| schema == name) {
            return self.table_names().collect();
        }
        let table = named.get(name).map_or(name, String::as_str);
        // The alias may be given further on, in a `from` that is not written yet.
        let all = || self.tables.iter().flat_map(columns).collect();
        self.table(table).map_or_else(all, columns)
    }

    fn fields(&self, column: &str) -> Vec<String> {
        let mut columns = self.tables.iter().flat_map(|table| &table.columns);
        let found = columns.find(|info| info.name == column && !info.fields.is_empty());
        found.map(|info| info.fields.iter().map(|field| format!("{field}']")).collect()).unwrap_or_default()
    }

    fn anywhere(&self, named: &BTreeMap<String, String>) -> Vec<String> {
        let in_statement: Vec<&TableInfo> = named.values().filter_map(|name| self.table(name)).collect();
        let tables = if in_statement.is_empty() { self.tables.iter().collect() } else { in_statement };
        let functions = self.functions.iter().filter(|function| function.kind != FunctionKind::Table);
        let aliases = named.keys().map(|alias| written(alias));
        tables
            .into_iter()
            .flat_map(columns)
            .chain(aliases)
            .chain(self.table_names())
            .chain(functions.map(|function| format!("{}(", function.name)))
            .chain(KEYWORDS.map(str::to_owned))
            .collect()
    }
}

fn columns(table: &TableInfo) -> Vec<String> {
    table.columns.iter().map(|column| written(&column.name)).collect()
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// The name at the end of a text, quoted or not.
fn last_name(text: &str) -> String {
    if let Some(inner) = text.strip_suffix('"') {
        return inner.rsplit('"').next().unwrap_or_default().to_owned();
    }
    let start = text
        .rfind(|c: char| !is_word(c))
        .map_or(0, |at| at + text[at..].chars().next().map_or(1, char::len_utf8));
    text.get(start..).unwrap_or_default().to_lowercase()
}

/// The last word of a text that ends with space.
fn last_words(text: &str) -> Option<String> {
    text.ends_with(char::is_whitespace).then(|| last_name(text.trim_end()))
}

/// The tables behind `from`, `join` and commas of a statement, by the names under which it knows them.
fn aliases(text: &str) -> BTreeMap<String, String> {
    let words = words(text);
    let word = |at: usize| words.get(at).map_or("", String::as_str);
    let is_name = |text: &str| text.chars().next().is_some_and(is_word) && !KEYWORDS.contains(&text);
    let mut found = BTreeMap::new();
    let mut at = 0;
    while at < words.len() {
        at += 1;
        if !matches!(word(at - 1), "from" | "join") {
            continue;
        }
        while is_name(word(at)) {
            let mut table = word(at).to_owned();
            at += 1;
            while word(at) == "." && is_name(word(at + 1)) {
                word(at + 1).clone_into(&mut table);
                at += 2;
            }
            at += usize::from(word(at) == "as");
            let alias = if is_name(word(at)) { word(at).to_owned() } else { table.clone() };
            at += usize::from(is_name(word(at)));
            found.insert(alias, table);
            if word(at) != "," {
                break;
            }
            at += 1;
        }
    }
    found
}

/// Words, quoted names and single marks of a statement; strings and comments are left out. Words are in lower case.
fn words(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut rest = text.chars().peekable();
    while let Some(c) = rest.next() {
        match c {
            '\'' => while rest.next().is_some_and(|c| c != '\'') {},
            '"' => {
                let mut name = String::new();
                while let Some(c) = rest.next().filter(|c| *c != '"') {
                    name.push(c);
                }
                words.push(name);
            }
            '-' if rest.peek() == Some(&'-') => while rest.next().is_some_and(|c| c != '\n') {},
            c if is_word(c) => {
                let mut word = c.to_lowercase().to_string();
                while let Some(c) = rest.next_if(|c| is_word(*c)) {
                    word.extend(c.to_lowercase());
                }
                words.push(word);
            }
            c if c.is_whitespace() => {}
            mark => words.push(mark.to_string()),
        }
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{block_on, session};

    fn completed(text: &str) -> (usize, Vec<String>) {
        let context = session();
        block_on(crate::query(
            &context,
            "create view draws as select n, {db: 1.0, hz: 2.0} as gain from music",
        ))
        .unwrap();
        let catalog = block_on(Catalog::of(&context)).unwrap();
        catalog.complete(text, text.find('|').unwrap_or(text.len()))
    }

    #[test]
    fn what_is_offered_depends_on_the_place() {
        assert_eq!(completed("select * from mus"), (14, vec!["music".to_owned()]));
        assert_eq!(completed("select * from ").1[..2], ["draws", "music"]);
        assert!(completed("select * from gen").1.contains(&"generate_series(".to_owned()));
        assert_eq!(completed("select m.| from music as m").1, ["name", "n", "\"BPM\"", "vector"]);
        assert_eq!(completed("select d.g| from music m, draws d").1, ["gain"]);
        assert_eq!(completed("select music.v").1, ["vector"]);
        assert_eq!(completed("select x.vec").1, ["vector"], "whatever x will be");
        assert_eq!(completed("select gain['d").1, ["db']"]);
        assert_eq!(
            completed("select ga| from music").1,
            [] as [&str; 0],
            "gain is a column of another table"
        );
        assert_eq!(completed("select bp| from music").1, ["\"BPM\""]);
        assert_eq!(completed("select cosine_").1, ["cosine_distance(", "cosine_similarity("]);
        assert!(completed("select name from music wh").1.contains(&"where".to_owned()));
        assert_eq!(completed("sel").1, ["select"]);
        assert!(completed("select zzz").1.is_empty());
        assert_eq!(completed("select 静").0, 7);
    }

    #[test]
    fn tables_are_known_by_their_aliases() {
        let found = aliases(
            "select 'from x' -- from y\n from a.\"B c\" t join d on (1=1), e as f where g in (select 1 from h)",
        );
        let pairs: Vec<(&str, &str)> = found.iter().map(|(a, b)| (a.as_str(), b.as_str())).collect();
        assert_eq!(pairs, [("d", "d"), ("h", "h"), ("t", "B c")]);
    }
}
