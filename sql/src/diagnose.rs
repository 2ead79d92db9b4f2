//! From the engine's errors to [`SqlError`]: where in the statement, and what would help.
//!
//! DataFusion gives a place in one of three ways, tried in this order: a `Diagnostic` with a span
//! (planner), a span on the column itself (schema errors), or `at Line: l, Column: c` at the end
//! of the parser's message. Where it gives none but the message names a function that the
//! statement calls, that call is the place.

use datafusion::common::{Column, Diagnostic, SchemaError, Span};
use datafusion::error::DataFusionError;
use datafusion::execution::context::SessionContext;
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::parser::ParserError;
use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan, Tokenizer};
use loev_ops::operators;

use crate::catalog;
use crate::error::{Place, SqlError, StatementError};
use crate::functions::relation;
use crate::suggest::{listed, nearest};

/// Names listed after "tables are" and "columns are".
const LISTED: usize = 20;

/// The words that a statement is made of, for slips such as `selct` and `form`.
const KEYWORDS: [&str; 24] = [
    "and",
    "as",
    "between",
    "by",
    "case",
    "cross",
    "distinct",
    "end",
    "from",
    "group",
    "having",
    "inner",
    "join",
    "left",
    "limit",
    "on",
    "order",
    "over",
    "partition",
    "select",
    "union",
    "using",
    "where",
    "with",
];

/// How DataFusion ends its message about a field that is not there.
const NO_FIELD: &str = " not found in struct";

/// What DataFusion puts before the message of a function that checks its own arguments.
const OWN_WORDS: &str = " user-defined coercion failed with: ";

/// The names that a session knows; what suggestions are made from.
#[derive(Debug, Default)]
pub(crate) struct Names {
    tables: Vec<String>,
    functions: Vec<String>,
    table_functions: Vec<String>,
}

impl Names {
    pub(crate) fn of(context: &SessionContext) -> Self {
        let state = context.state();
        let mut functions: Vec<String> = state
            .scalar_functions()
            .keys()
            .chain(state.aggregate_functions().keys())
            .chain(state.window_functions().keys())
            .cloned()
            .collect();
        functions.sort();
        functions.dedup();
        let ours = relation::names().map(str::to_owned);
        let mut table_functions: Vec<String> = state.table_functions().keys().cloned().chain(ours).collect();
        table_functions.sort();
        Self { tables: catalog::table_names(context), functions, table_functions }
    }
}

/// Explains `error`, raised while parsing, planning or running `statement`.
pub(crate) fn explain(error: DataFusionError, statement: &str, names: &Names) -> SqlError {
    let tokens = tokens_of(statement);
    let diagnostic = first_diagnostic(&error);
    let spanned = diagnostic.and_then(|diagnostic| diagnostic.span).map(|span| place_of(span, statement));
    let explained = match innermost(&error) {
        DataFusionError::SQL(parser, _) => parser_error(parser, statement, &tokens),
        DataFusionError::SchemaError(schema, _) => schema_error(schema, statement, spanned, &tokens),
        DataFusionError::Plan(message) | DataFusionError::Execution(message)
            if message.contains(NO_FIELD) =>
        {
            no_field(&clean(message), statement, &tokens)
        }
        DataFusionError::Plan(message) | DataFusionError::NotImplemented(message) => {
            plan_error(message, diagnostic, statement, names)
                .at(spanned.or_else(|| call_named_in(message, &tokens)))
        }
        DataFusionError::Execution(message) => {
            StatementError::new(clean(message), statement).at(call_named_in(message, &tokens))
        }
        DataFusionError::ArrowError(arrow, _) => {
            let message = clean(&arrow.to_string());
            StatementError::new(message.as_str(), statement).at(call_named_in(&message, &tokens))
        }
        DataFusionError::Configuration(message) => StatementError::new(clean(message), statement),
        // A file that the statement names.
        DataFusionError::External(ours) => {
            let message = ours.downcast_ref::<SqlError>().map(ToString::to_string);
            let named = message.and_then(|text| Some((text_named_in(&text, &tokens)?, text)));
            match named {
                Some((place, message)) => StatementError::new(message, statement).at(Some(place)),
                None => return engine(error),
            }
        }
        _ => return engine(error),
    };
    explained.into()
}

/// An error that is not about a statement's text.
pub(crate) fn engine(error: DataFusionError) -> SqlError {
    let mut message = clean(&innermost(&error).strip_backtrace());
    if matches!(innermost(&error), DataFusionError::ResourcesExhausted(_)) {
        message.push_str(" (the query needs more memory than its limit)");
    }
    SqlError::Engine { message, source: Box::new(error) }
}

/// The error under contexts and diagnostics; of several, the first.
fn innermost(error: &DataFusionError) -> &DataFusionError {
    let mut error = error;
    loop {
        error = match error {
            DataFusionError::Context(_, inner) | DataFusionError::Diagnostic(_, inner) => inner,
            DataFusionError::Shared(inner) => inner,
            DataFusionError::Collection(errors) => match errors.first() {
                Some(inner) => inner,
                None => return error,
            },
            _ => return error,
        }
    }
}

fn first_diagnostic(error: &DataFusionError) -> Option<&Diagnostic> {
    error.iter().find_map(DataFusionError::diagnostic)
}

fn parser_error(error: &ParserError, statement: &str, tokens: &[TokenWithSpan]) -> StatementError {
    let (ParserError::ParserError(text) | ParserError::TokenizerError(text)) = error else {
        return StatementError::new("the statement is nested too deeply", statement);
    };
    let (message, start) = split_location(text);
    let message = lower_first(message);
    let at_end = message.ends_with("found: EOF");
    let message = if at_end {
        format!("{}the end of the statement", message.trim_end_matches("EOF"))
    } else {
        message.into_owned()
    };
    let place = match start {
        Some((line, column)) => {
            let length = token_at(tokens, line, column).map_or(1, |index| token_length(&tokens[index]));
            Some(Place { line, column, length })
        }
        None if at_end => Some(end_of(statement)),
        None => None,
    };
    let found =
        start.and_then(|(line, column)| token_at(tokens, line, column)).or(at_end.then_some(tokens.len()));
    let error = StatementError::new(message, statement).at(place);
    // `select * form clips` is parsed as an alias, so the word before the place may be the slip.
    let slip = found.and_then(|found| {
        let before = tokens[..found.min(tokens.len())].iter().rev().find(|token| is_word(token));
        tokens.get(found).into_iter().chain(before).find_map(keyword_slip)
    });
    match slip {
        Some((word, keyword)) => error.help(format!("did you mean '{keyword}' instead of '{word}'?")),
        None => error,
    }
}

fn schema_error(
    error: &SchemaError,
    statement: &str,
    spanned: Option<Place>,
    tokens: &[TokenWithSpan],
) -> StatementError {
    let place = |column: &Column| {
        let spanned = spanned.or_else(|| column.spans().first().map(|span| place_of(span, statement)));
        // The planner keeps no places of the columns of `using`.
        spanned.or_else(|| tokens.iter().find(|token| says(token, &column.name)).map(place_of_token))
    };
    match error {
        SchemaError::FieldNotFound { field, valid_fields } => {
            let message = match &field.relation {
                Some(relation) => format!("column '{}' not found in '{relation}'", field.name),
                None => format!("column '{}' not found", field.name),
            };
            let error = StatementError::new(message, statement).at(place(field));
            with_columns(error, field, valid_fields)
        }
        SchemaError::AmbiguousReference { field } => {
            StatementError::new(format!("column '{}' is in more than one table", field.name), statement)
                .at(place(field))
                .help(format!("say which one, as in 'clips.{}'", field.name))
        }
        SchemaError::DuplicateQualifiedField { name, .. }
        | SchemaError::DuplicateUnqualifiedField { name } => {
            StatementError::new(format!("two columns of the result are named '{name}'"), statement)
                .at(spanned)
                .help(format!("rename one, as in '{name} as other_{name}'"))
        }
    }
}

fn with_columns(error: StatementError, field: &Column, valid: &[Column]) -> StatementError {
    // Columns of the table that was named come first; without one, all count.
    let of_table: Vec<&Column> =
        valid.iter().filter(|column| field.relation.is_some() && column.relation == field.relation).collect();
    let candidates: Vec<&Column> = if of_table.is_empty() { valid.iter().collect() } else { of_table };
    let mut names: Vec<&str> = candidates.iter().map(|column| column.name.as_str()).collect();
    let mut seen = std::collections::HashSet::new();
    names.retain(|name| seen.insert(*name));
    let error = match nearest(&field.name, names.iter().copied()) {
        Some(name) if name != name.to_lowercase() && name.to_lowercase() == field.name.to_lowercase() => {
            error.help(format!("the column has capitals: write it in double quotes, \"{name}\""))
        }
        Some(name) if name == field.name => {
            let tables = valid.iter().filter(|column| column.name == name).filter_map(|column| {
                column.relation.as_ref().map(|relation| format!("'{}.{name}'", relation.table()))
            });
            error.help(format!("did you mean {}?", tables.collect::<Vec<_>>().join(" or ")))
        }
        Some(name) => error.help(format!("did you mean '{name}'?")),
        None => error,
    };
    if names.is_empty() { error } else { error.help(format!("columns are: {}", listed(names, LISTED))) }
}

fn plan_error(
    message: &str,
    diagnostic: Option<&Diagnostic>,
    statement: &str,
    names: &Names,
) -> StatementError {
    if let Some(table) = quoted_between(message, "table '", "' not found") {
        let name = table.rsplit('.').next().unwrap_or(table);
        let error = StatementError::new(format!("table '{name}' not found"), statement);
        let tables = || names.tables.iter().map(String::as_str);
        let error = match nearest(name, tables()) {
            Some(known) => error.help(format!("did you mean '{known}'?")),
            None => error,
        };
        return if names.tables.is_empty() {
            error.help("there are no tables yet")
        } else {
            error.help(format!("tables are: {}", listed(tables(), LISTED)))
        };
    }
    if let Some(function) = quoted_between(message, "Invalid function '", "'") {
        return unknown_function(function, "function", &names.functions, statement);
    }
    if let Some(function) = quoted_between(message, "table function '", "' not found") {
        return unknown_function(function, "table function", &names.table_functions, statement);
    }
    if let Some((_, forms)) = message.split_once("Candidate functions:")
        && let Some(call) = quoted_between(message, "argument types '", "'")
        && !message.contains(OWN_WORDS)
    {
        let forms: Vec<&str> = forms.lines().map(str::trim).filter(|form| !form.is_empty()).collect();
        return StatementError::new(format!("the arguments do not fit: {call}"), statement)
            .help(format!("it takes: {}", listed(forms.iter().copied(), LISTED)));
    }
    let Some(diagnostic) = diagnostic else { return StatementError::new(clean(message), statement) };
    let notes = diagnostic.notes.iter().map(|note| (&note.message, note.span));
    let helps = diagnostic.helps.iter().map(|help| (&help.message, help.span));
    let error = StatementError::new(clean(&diagnostic.message), statement);
    helps.chain(notes).fold(error, |error, (text, span)| {
        let about = span.and_then(|span| crate::caret::byte_range(statement, place_of(span, statement)));
        match about.and_then(|range| statement.get(range)) {
            Some(part) => error.help(format!("{part}: {}", clean(text))),
            None => error.help(clean(text)),
        }
    })
}

fn unknown_function(name: &str, what: &str, known: &[String], statement: &str) -> StatementError {
    let error = StatementError::new(format!("there is no {what} '{name}'"), statement);
    match nearest(name, known.iter().map(String::as_str)) {
        Some(known) => error.help(format!("did you mean '{known}'?")),
        None => error,
    }
}

/// The engine's message without the prefixes that say which of its parts raised it, and without
/// its list of signatures where our functions have said what they take.
fn clean(message: &str) -> String {
    const PREFIXES: [&str; 8] = [
        "Error during planning: ",
        "Execution error: ",
        "Arrow error: ",
        "Compute error: ",
        "Cast error: ",
        "Invalid argument error: ",
        "External error: ",
        "Invalid or Unsupported Configuration: ",
    ];
    let mut text = message.split(DataFusionError::BACK_TRACE_SEP).next().unwrap_or(message).trim();
    if let Some((_, rest)) = text.split_once(OWN_WORDS) {
        text = rest.split(" No function matches the given name").next().unwrap_or(rest);
    }
    while let Some(rest) = PREFIXES.iter().find_map(|prefix| text.strip_prefix(prefix)) {
        text = rest;
    }
    text.trim_end_matches('.').to_owned()
}

/// Splits `... at Line: 3, Column: 8` into the message and (3, 8).
fn split_location(text: &str) -> (&str, Option<(usize, usize)>) {
    let parsed = text.rsplit_once(" at Line: ").and_then(|(message, location)| {
        let (line, column) = location.split_once(", Column: ")?;
        Some((message, (line.trim().parse().ok()?, column.trim().parse().ok()?)))
    });
    match parsed {
        Some((message, location)) => (message, Some(location)),
        None => (text, None),
    }
}

fn lower_first(text: &str) -> std::borrow::Cow<'_, str> {
    // Only "Expected: a, found: b" reads as a sentence of ours; names keep their case.
    match text.strip_prefix("Expected: ") {
        Some(rest) => format!("expected {rest}").into(),
        None => text.into(),
    }
}

fn quoted_between<'a>(text: &'a str, before: &str, after: &str) -> Option<&'a str> {
    let start = text.find(before)? + before.len();
    let rest = text.get(start..)?;
    rest.get(..rest.find(after)?)
}

fn tokens_of(statement: &str) -> Vec<TokenWithSpan> {
    let tokens = Tokenizer::new(&GenericDialect {}, statement).tokenize_with_location().unwrap_or_default();
    tokens.into_iter().filter(|token| !matches!(token.token, Token::Whitespace(_) | Token::EOF)).collect()
}

fn token_at(tokens: &[TokenWithSpan], line: usize, column: usize) -> Option<usize> {
    tokens.iter().position(|token| start_of(token) == (line, column))
}

fn start_of(token: &TokenWithSpan) -> (usize, usize) {
    let start = token.span.start;
    (usize::try_from(start.line).unwrap_or(0), usize::try_from(start.column).unwrap_or(0))
}

fn token_length(token: &TokenWithSpan) -> usize {
    token.token.to_string().chars().count().max(1)
}

fn is_word(token: &TokenWithSpan) -> bool {
    matches!(&token.token, Token::Word(word) if word.quote_style.is_none())
}

fn keyword_slip(token: &TokenWithSpan) -> Option<(String, &'static str)> {
    let Token::Word(word) = &token.token else { return None };
    let lower = word.value.to_lowercase();
    if word.quote_style.is_some() || lower.len() < 3 || KEYWORDS.contains(&lower.as_str()) {
        return None;
    }
    let near = KEYWORDS.into_iter().find(|keyword| {
        let edits = strsim::damerau_levenshtein(&lower, keyword);
        keyword.len() > 2 && edits <= if keyword.len() > 5 { 2 } else { 1 }
    })?;
    Some((word.value.clone(), near))
}

/// The call in the statement of a function that the message names as a word.
fn call_named_in(message: &str, tokens: &[TokenWithSpan]) -> Option<Place> {
    let words: Vec<String> =
        message.split(|c: char| !(c.is_alphanumeric() || c == '_')).map(str::to_lowercase).collect();
    tokens.windows(2).find_map(|pair| {
        let [token, next] = pair else { return None };
        let called = is_word(token) && next.token == Token::LParen;
        let name = token.token.to_string().to_lowercase();
        if !called || KEYWORDS.contains(&name.as_str()) || !words.contains(&name) {
            return None;
        }
        Some(place_of_token(token))
    })
}

/// A field that a struct lacks. What the draws of operators hold is known.
fn no_field(message: &str, statement: &str, tokens: &[TokenWithSpan]) -> StatementError {
    let field = quoted_between(message, "Field ", NO_FIELD).unwrap_or_default();
    // As in `column['field']` and `column.field`.
    let found = tokens
        .windows(3)
        .find(|part| matches!(part[1].token, Token::LBracket | Token::Period) && says(&part[2], field));
    let Some([column, _, place]) = found else { return StatementError::new(message, statement) };
    let column = column.token.to_string().trim_matches('"').to_owned();
    let error = StatementError::new(format!("'{column}' has no field '{field}'"), statement)
        .at(Some(place_of_token(place)));
    let Some(operator) = operators::find(&column) else { return error };
    let names: Vec<&str> =
        std::iter::once("applied").chain(operator.params.iter().map(|param| param.name)).collect();
    let error = match nearest(field, names.iter().copied()) {
        Some(near) => error.help(format!("did you mean '{near}'?")),
        None => error,
    };
    error.help(format!("fields are: {}", listed(names, LISTED)))
}

/// Whether a token is this name, or this text.
fn says(token: &TokenWithSpan, name: &str) -> bool {
    match &token.token {
        Token::Word(word) if word.quote_style.is_none() => word.value.eq_ignore_ascii_case(name),
        Token::Word(word) => word.value == name,
        Token::SingleQuotedString(text) => text == name,
        _ => false,
    }
}

fn place_of_token(token: &TokenWithSpan) -> Place {
    let (line, column) = start_of(token);
    Place { line, column, length: token_length(token) }
}

/// The text in the statement that the message names, such as a file's path.
fn text_named_in(message: &str, tokens: &[TokenWithSpan]) -> Option<Place> {
    let named = |token: &&TokenWithSpan| match &token.token {
        Token::SingleQuotedString(text) => !text.is_empty() && message.contains(text.as_str()),
        Token::Word(word) => word.quote_style.is_some() && message.contains(word.value.as_str()),
        _ => false,
    };
    tokens.iter().find(named).map(place_of_token)
}

fn place_of(span: Span, statement: &str) -> Place {
    let number = |n: u64| usize::try_from(n).unwrap_or(1).max(1);
    let (line, column) = (number(span.start.line), number(span.start.column));
    let end = if span.end.line == span.start.line {
        number(span.end.column)
    } else {
        statement.lines().nth(line - 1).map_or(column, |text| text.chars().count() + 1)
    };
    Place { line, column, length: end.saturating_sub(column).max(1) }
}

fn end_of(statement: &str) -> Place {
    let text = statement.trim_end();
    let last = text.lines().last().unwrap_or("");
    Place { line: text.lines().count().max(1), column: last.chars().count() + 1, length: 1 }
}

#[cfg(test)]
mod tests {
    use crate::query::query;
    use crate::testing::{block_on, session};

    /// The whole text of the error that a statement gives.
    fn error(sql: &str) -> String {
        block_on(query(&session(), sql)).unwrap_err().to_string()
    }

    /// Asserts the text of the error, line by line; a shorter list checks the first lines.
    fn assert_error(sql: &str, lines: &[&str]) {
        let text = error(sql);
        let found: Vec<&str> = text.lines().take(lines.len()).collect();
        assert_eq!(found, lines, "in full:\n{text}");
    }

    #[test]
    fn unknown_tables() {
        assert_error(
            "select *\nfrom musik",
            &[
                "table 'musik' not found",
                "  2 | from musik",
                "    |      ^^^^^",
                "  help: did you mean 'music'?",
            ],
        );
        assert!(error("select * from qqq").contains("help: tables are: music"));
    }

    #[test]
    fn unknown_columns() {
        assert_error(
            "select nam from music",
            &[
                "column 'nam' not found",
                "  1 | select nam from music",
                "    |        ^^^",
                "  help: did you mean 'name'?",
                "  help: columns are: name, n, BPM, vector",
            ],
        );
        assert_error("select m.nme from music m", &["column 'nme' not found in 'm'"]);
        assert!(error("select m.nme from music m").contains("did you mean 'name'?"));
        assert_error("select name from music where nn > 1 order by n", &["column 'nn' not found"]);
        assert!(error("select bpm from music").contains("write it in double quotes, \"BPM\""));
        assert!(error("select name from music a, music b").contains("more than one table"));
    }

    #[test]
    fn unknown_fields_and_columns_of_using() {
        let shifts =
            "from (select n, {applied: true, semitones: 1.0} as pitch_shift, {a: 1} as s from music)";
        let text = error(&format!("select n, pitch_shift['semitone'] {shifts}"));
        assert!(text.starts_with("'pitch_shift' has no field 'semitone'\n"), "{text}");
        assert!(text.contains("    |                       ^^^^^^^^^^\n"), "{text}");
        assert!(
            text.contains("help: did you mean 'semitones'?")
                && text.contains("fields are: applied, semitones"),
            "{text}"
        );
        assert_error(&format!("select s['b'] {shifts}"), &["'s' has no field 'b'"]);
        let text = error("select a.n from music a join music b using (nn)");
        assert!(text.contains("column 'nn' not found") && text.contains("^^\n"), "{text}");
    }

    #[test]
    fn unknown_functions() {
        assert_error(
            "select cosine_similarty(vector, vector) from music",
            &[
                "there is no function 'cosine_similarty'",
                "  1 | select cosine_similarty(vector, vector) from music",
                "    |        ^^^^^^^^^^^^^^^^",
                "  help: did you mean 'cosine_similarity'?",
            ],
        );
        assert!(error("select * from generate_serie(1, 2)").contains("generate_series"));
    }

    #[test]
    fn syntax() {
        assert_error(
            "selct * from music",
            &[
                "expected an SQL statement, found: selct",
                "  1 | selct * from music",
                "    | ^^^^^",
                "  help: did you mean 'select' instead of 'selct'?",
            ],
        );
        assert!(error("select * form music").contains("did you mean 'from' instead of 'form'?"));
        assert_error("select name from", &["expected identifier, found: the end of the statement"]);
        assert!(error("select name from").contains("    |                 ^"));
        assert!(error("select 'abc").contains('^'));
        assert!(error("").contains("no statement"));
    }

    #[test]
    fn wrong_arguments_point_at_the_call() {
        assert_error(
            "select name, l2_distance(vector, name) from music",
            &[
                "l2_distance takes vectors (lists of numbers), not a value of type text",
                "  1 | select name, l2_distance(vector, name) from music",
                "    |              ^^^^^^^^^^^",
            ],
        );
        assert_error(
            "select l2_distance(vector, [1.0, 2.0]) from music",
            &["l2_distance needs vectors of equal length, not of 3 and 2 elements"],
        );
        assert!(error("select l2_distance(vector, [1.0, 2.0]) from music").contains("^^^^^^^^^^^"));
        assert_error(
            "select transpose_key(1, 2)",
            &["argument 1 of transpose_key must be text, not bigint", "  1 | select transpose_key(1, 2)"],
        );
        assert!(error("select n, sum(n) from music").to_lowercase().contains("group by"));
        assert_error(
            "select sqrt(name) from music",
            &[
                "the arguments do not fit: sqrt(Utf8)",
                "  1 | select sqrt(name) from music",
                "    |        ^^^^",
            ],
        );
        assert!(error("select sqrt(name) from music").contains("help: it takes: sqrt(Float64/Float32)"));
        assert_error(
            "select cast(name as int) from music",
            &[
                "Cannot cast string 'drift' to value of Int32 type",
                "  1 | select cast(name as int) from music",
            ],
        );
    }

    #[test]
    fn the_planners_notes_become_help() {
        assert_error(
            "select name + n from music",
            &[
                "expressions have incompatible types",
                "  1 | select name + n from music",
                "    |        ^^^^^^^^",
                "  help: name: has type Utf8",
                "  help: n: has type Int64",
            ],
        );
        let text = error("select n from music group by name");
        assert!(text.contains("must appear in GROUP BY") && text.contains("help: Either add"), "{text}");
    }
}
