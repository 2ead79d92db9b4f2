//! What is wrong with a pipeline, in a form that a terminal or an editor can show.
//!
//! A [`SpecError`] holds one or more [`Problem`]s. Each names the file (or the `--set` argument), the
//! line and column, underlines the text, and says what to do about it where that is known. Both implement
//! [`miette::Diagnostic`], so printing one is `eprintln!("{:?}", miette::Report::new(error))`.

use std::fmt;
use std::sync::Arc;

use miette::{Diagnostic, LabeledSpan, NamedSource, SourceCode, SourceSpan};

use super::node::{Node, Place, Value};

/// Problems shown for one file; the rest is counted.
const MAX_PROBLEMS: usize = 12;
/// Bytes of a line beyond which it is not shown.
const LONGEST_LINE: usize = 400;

/// Why a pipeline was refused. Holds at least one problem, in the order of the file.
#[derive(Debug, Clone)]
pub struct SpecError {
    problems: Vec<Problem>,
    left_out: usize,
}

/// One thing wrong with a pipeline.
#[derive(Debug, Clone)]
pub struct Problem {
    message: String,
    label: String,
    help: Option<String>,
    at: Option<At>,
}

#[derive(Debug, Clone)]
struct At {
    source: Arc<NamedSource<String>>,
    place: Place,
}

impl SpecError {
    /// The problems, in the order of the file.
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }

    pub(super) fn one(problem: Problem) -> Self {
        Self { problems: vec![problem], left_out: 0 }
    }

    /// All problems found in one go, or `None` if there are none.
    pub(super) fn many(mut problems: Vec<Problem>) -> Option<Self> {
        if problems.is_empty() {
            return None;
        }
        problems.sort_by_key(|problem| problem.at.as_ref().map(|at| at.place));
        let left_out = problems.len().saturating_sub(MAX_PROBLEMS);
        problems.truncate(MAX_PROBLEMS);
        Some(Self { problems, left_out })
    }

    fn single(&self) -> Option<&Problem> {
        match self.problems.as_slice() {
            [problem] => Some(problem),
            _ => None,
        }
    }
}

impl fmt::Display for SpecError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.single() {
            Some(problem) => problem.fmt(f),
            None => write!(f, "{} problems in this pipeline", self.problems.len() + self.left_out),
        }
    }
}

impl std::error::Error for SpecError {}

impl Diagnostic for SpecError {
    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        match self.single() {
            Some(problem) => problem.help(),
            None if self.left_out > 0 => {
                Some(Box::new(format!("{} more are not shown; put these right first", self.left_out)))
            }
            None => None,
        }
    }

    fn source_code(&self) -> Option<&dyn SourceCode> {
        self.single().and_then(Problem::source_code)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        self.single().and_then(Problem::labels)
    }

    fn related<'a>(&'a self) -> Option<Box<dyn Iterator<Item = &'a dyn Diagnostic> + 'a>> {
        match self.single() {
            Some(_) => None,
            None => Some(Box::new(self.problems.iter().map(|problem| problem as &dyn Diagnostic))),
        }
    }
}

impl Problem {
    /// A problem that no place in a source can be given for, such as a missing file.
    pub(super) fn nowhere(message: impl Into<String>, help: Option<String>) -> Self {
        Self { message: message.into(), label: String::new(), help, at: None }
    }

    /// What is wrong, in one sentence.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// What stands beside the underlined text; may be empty.
    pub fn label(&self) -> &str {
        &self.label
    }

    /// What to do about it, where that is known.
    pub fn suggestion(&self) -> Option<&str> {
        self.help.as_deref()
    }

    /// The file's name, or `--set` for an argument of that option.
    pub fn file(&self) -> Option<&str> {
        self.at.as_ref().map(|at| at.source.name())
    }

    /// Line and column of the first underlined character, both counted from 1.
    pub fn position(&self) -> Option<(usize, usize)> {
        self.at.as_ref()?.position()
    }
}

impl At {
    fn position(&self) -> Option<(usize, usize)> {
        let before = self.source.inner().get(..self.place.start)?;
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
        Some((line, column))
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Problem {}

impl Diagnostic for Problem {
    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        self.help.as_ref().map(|help| Box::new(help) as Box<dyn fmt::Display>)
    }

    fn source_code(&self) -> Option<&dyn SourceCode> {
        self.at.as_ref().map(|at| at.source.as_ref() as &dyn SourceCode)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        let at = self.at.as_ref()?;
        let label = (!self.label.is_empty()).then(|| self.label.clone());
        let span = SourceSpan::new(at.place.start.into(), at.place.len);
        Some(Box::new(std::iter::once(LabeledSpan::new_primary_with_span(label, span))))
    }
}

/// The sources of a pipeline (the file and the `--set` arguments) and the tree read from them.
#[derive(Debug, Clone)]
pub(super) struct Document {
    sources: Vec<Arc<NamedSource<String>>>,
    pub root: Node,
}

impl Default for Document {
    fn default() -> Self {
        Self::new("", "", &[])
    }
}

impl Document {
    /// A document whose tree is still empty.
    pub fn new(file_name: &str, text: &str, sets: &[String]) -> Self {
        let file = Arc::new(NamedSource::new(file_name, text.to_string()).with_language("yaml"));
        let sets = sets.iter().map(|set| Arc::new(NamedSource::new("--set", set.clone())));
        let root = Node { value: Value::Null, place: Place::default() };
        Self { sources: std::iter::once(file).chain(sets).collect(), root }
    }

    /// A problem at a place. Places are kept inside their source and at least one character long.
    pub fn problem(
        &self,
        place: Place,
        message: impl Into<String>,
        label: impl Into<String>,
        help: Option<String>,
    ) -> Problem {
        let (mut message, label) = (message.into(), label.into());
        let at = self.sources.get(place.source).map(|source| {
            let place = fit(source.inner(), place);
            At { source: Arc::clone(source), place }
        });
        // A snippet shows whole lines. That of a generated file on one line would bury the message.
        let at = at.filter(|at| {
            let fits = longest_line_around(at.source.inner(), at.place.start) <= LONGEST_LINE;
            if !fits && let Some((line, column)) = at.position() {
                message = format!("{}:{line}:{column}: {message}", at.source.name());
            }
            fits
        });
        Problem { message, label, help, at }
    }

    /// Where the value at a path stands, or else the closest thing around it that the text has.
    pub fn locate<'p>(&'p self, path: impl IntoIterator<Item = &'p str>) -> Place {
        self.trace(path).0
    }

    /// The same, with the parts of the path that the text has.
    ///
    /// Parts that it does not have (defaults, names that only the typed form knows) are passed over, so
    /// that a range error in a flattened group still finds its key.
    pub fn trace<'p>(&'p self, path: impl IntoIterator<Item = &'p str>) -> (Place, Vec<&'p str>) {
        let mut node = &self.root;
        let mut place = node.place;
        let mut found = Vec::new();
        for part in path {
            let next = match &node.value {
                Value::Map(entries) => {
                    let named = entries.iter().find(|entry| entry.key == part);
                    // `[0]` is how a check names the content of `{variant: content}`.
                    let only = || entries.first().filter(|_| part == "0" && entries.len() == 1);
                    named.or_else(only).map(|entry| (&entry.value, entry.label(), entry.key.as_str()))
                }
                Value::Seq(items) => {
                    let item = part.parse::<usize>().ok().and_then(|index| items.get(index));
                    item.map(|item| (item, item.place, part))
                }
                _ => None,
            };
            if let Some((value, label, name)) = next {
                (node, place) = (value, label);
                found.push(name);
            }
        }
        (place, found)
    }

    /// The text at a place, as it stands in its source.
    pub fn text(&self, place: Place) -> &str {
        let source = self.sources.get(place.source).map_or("", |source| source.inner());
        source.get(place.start..place.start.saturating_add(place.len)).unwrap_or_default()
    }
}

/// Bytes of the longest line that a snippet at a place would show: its own and the ones beside it.
fn longest_line_around(text: &str, at: usize) -> usize {
    let (before, after) = text.split_at_checked(at).unwrap_or((text, ""));
    let mut above = before.rsplit('\n');
    let mut below = after.split('\n');
    let own = above.next().map_or(0, str::len) + below.next().map_or(0, str::len);
    let beside = above.next().map_or(0, str::len).max(below.next().map_or(0, str::len));
    own.max(beside)
}

/// Clips a place to its source, cuts it at the end of its first line, and widens an empty one.
fn fit(text: &str, place: Place) -> Place {
    let mut start = place.start.min(text.len());
    while !text.is_char_boundary(start) {
        start -= 1;
    }
    let rest = &text[start..];
    let mut len = place.len.min(rest.len());
    while !rest.is_char_boundary(len) {
        len -= 1;
    }
    let line = rest[..len].find('\n').map_or(len, |end| rest[..end].trim_end().len());
    let widened = if line == 0 { rest.chars().next().map_or(0, char::len_utf8) } else { line };
    Place { source: place.source, start, len: widened }
}

/// "did you mean `x`?" if one of the candidates is close to what was written.
pub(super) fn did_you_mean<'c>(
    written: &str,
    candidates: impl IntoIterator<Item = &'c str>,
) -> Option<String> {
    closest(written, candidates).map(|best| format!("did you mean `{best}`?"))
}

/// The candidate that is closest to what was written, if any is close.
pub(super) fn closest<'c>(written: &str, candidates: impl IntoIterator<Item = &'c str>) -> Option<&'c str> {
    let lower = written.to_lowercase();
    candidates
        .into_iter()
        .map(|candidate| (strsim::jaro_winkler(&lower, &candidate.to_lowercase()), candidate))
        .filter(|(score, _)| *score >= 0.8)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, candidate)| candidate)
}

/// "a, b and c", each in backticks.
pub(super) fn list<'n>(names: impl IntoIterator<Item = &'n str>) -> String {
    let names: Vec<String> = names.into_iter().map(|name| format!("`{name}`")).collect();
    match names.as_slice() {
        [] => String::new(),
        [one] => one.clone(),
        [head @ .., last] => format!("{} and {last}", head.join(", ")),
    }
}
