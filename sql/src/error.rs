//! The errors of this crate.
//!
//! A wrong statement is told apart from a failure of the machine: the first carries the place in
//! the text and what to do about it ([`StatementError`]), the second a message and its source.

use std::fmt;
use std::io;
use std::ops::Range;

use datafusion::error::DataFusionError;

use crate::caret;
use crate::store::Location;

/// What can go wrong between a statement and its printed result.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SqlError {
    /// The statement is wrong: it does not parse, names something unknown, or fails on its data.
    #[error("{0}")]
    Statement(Box<StatementError>),
    /// A directory is not a run that can be read.
    #[error("cannot open {location} as a run: {reason}")]
    Run {
        /// The directory asked for.
        location: Location,
        /// What is missing or unreadable.
        reason: String,
    },
    /// A table of a run cannot be read.
    #[error("cannot read table '{table}' in {location}: {reason}")]
    Table {
        /// The table's name.
        table: String,
        /// Its directory.
        location: Location,
        /// What is missing or unreadable.
        reason: String,
    },
    /// The query is in order, but running it failed (files, memory, the engine itself).
    #[error("{message}")]
    Engine {
        /// The cause in one line, without the engine's prefixes.
        message: String,
        /// The engine's own error.
        #[source]
        source: Box<DataFusionError>,
    },
    /// A file or object cannot be read or written, or an address is none.
    #[error("{location}: {reason}")]
    Store {
        /// The address, or the text that is none.
        location: String,
        /// What went wrong, to act upon.
        fault: StoreFault,
        /// What went wrong, for a person, and what to do about it.
        reason: String,
    },
    /// The result could not be written out.
    #[error("cannot write the result: {0}")]
    Output(#[from] io::Error),
}

/// What can go wrong with a file or object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum StoreFault {
    /// Not an address that is understood.
    Address,
    /// There is no such file, object or bucket.
    Missing,
    /// No credentials, or they do not allow it.
    Denied,
    /// More bytes than may be read.
    TooLarge,
    /// It is no longer what it was when it was opened.
    Changed,
    /// The disk, the network, or the store itself.
    Other,
}

impl SqlError {
    pub(crate) fn store(location: impl fmt::Display, fault: StoreFault, reason: impl Into<String>) -> Self {
        Self::Store { location: location.to_string(), fault, reason: reason.into() }
    }

    /// The error of a file on this machine.
    pub(crate) fn file(location: &Location, error: &io::Error) -> Self {
        let fault = match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => StoreFault::Missing,
            io::ErrorKind::PermissionDenied => StoreFault::Denied,
            _ => StoreFault::Other,
        };
        Self::store(location, fault, error.to_string())
    }

    /// True if the reader of our output went away (`loev sql ... | head`), which is no failure.
    pub fn is_broken_pipe(&self) -> bool {
        matches!(self, Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe)
    }

    /// The details of a wrong statement, if it is one.
    pub fn statement(&self) -> Option<&StatementError> {
        match self {
            Self::Statement(error) => Some(error),
            _ => None,
        }
    }
}

/// A place in a statement. Lines and columns count from 1; columns and the length are characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// The line.
    pub line: usize,
    /// The first character on that line.
    pub column: usize,
    /// How many characters are meant; at least 1, and all on that line.
    pub length: usize,
}

/// A wrong statement: what is wrong, where, and what would help.
///
/// `Display` shows all of it, with the offending line and a caret under the place:
///
/// ```text
/// table 'clps' not found
///   1 | select * from clps
///     |               ^^^^
///   help: did you mean 'clips'?
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StatementError {
    /// What is wrong, in one sentence.
    pub message: String,
    /// The whole statement.
    pub statement: String,
    /// Where it is wrong, if that is known.
    pub place: Option<Place>,
    /// What would help, most helpful first.
    pub help: Vec<String>,
}

impl StatementError {
    pub(crate) fn new(message: impl Into<String>, statement: &str) -> Self {
        Self { message: message.into(), statement: statement.to_owned(), place: None, help: Vec::new() }
    }

    pub(crate) fn at(mut self, place: Option<Place>) -> Self {
        self.place = place;
        self
    }

    pub(crate) fn help(mut self, help: impl Into<String>) -> Self {
        self.help.push(help.into());
        self
    }

    /// The place as a range of bytes in [`statement`](Self::statement), for diagnostics that
    /// show the statement inside a larger text.
    pub fn byte_range(&self) -> Option<Range<usize>> {
        self.place.and_then(|place| caret::byte_range(&self.statement, place))
    }
}

impl fmt::Display for StatementError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        if let Some(snippet) = self.place.and_then(|place| caret::snippet(&self.statement, place)) {
            write!(f, "\n{snippet}")?;
        }
        for help in &self.help {
            write!(f, "\n  help: {help}")?;
        }
        Ok(())
    }
}

impl std::error::Error for StatementError {}

impl From<StatementError> for SqlError {
    fn from(error: StatementError) -> Self {
        Self::Statement(Box::new(error))
    }
}
