//! Errors as clients of PostgreSQL show them.

use datafusion::error::DataFusionError;
use datafusion::execution::context::SessionContext;
use datafusion_postgres::pgwire::error::{ErrorInfo, PgWireError};

use crate::diagnose;
use crate::error::SqlError;
use crate::query::explain_error;

/// As PostgreSQL numbers them: syntax error or access rule violation, not supported, cancelled, too many, internal.
pub(super) const REFUSED: &str = "42000";
pub(super) const UNSUPPORTED: &str = "0A000";
pub(super) const CANCELLED: &str = "57014";
pub(super) const FULL: &str = "53300";
pub(super) const INTERNAL: &str = "XX000";

pub(super) fn failed(code: &str, message: impl Into<String>) -> PgWireError {
    PgWireError::UserError(Box::new(ErrorInfo::new("ERROR".to_owned(), code.to_owned(), message.into())))
}

pub(super) fn helped(code: &str, message: impl Into<String>, help: &str) -> PgWireError {
    let mut info = ErrorInfo::new("ERROR".to_owned(), code.to_owned(), message.into());
    info.hint = Some(help.to_owned());
    PgWireError::UserError(Box::new(info))
}

pub(super) fn too_many(clients: usize) -> PgWireError {
    let message = format!("there are {clients} clients already; come back when one has left");
    PgWireError::UserError(Box::new(ErrorInfo::new("FATAL".to_owned(), FULL.to_owned(), message)))
}

/// What is needed to say where in a statement an error is.
#[derive(Clone)]
pub(super) struct Explain {
    pub(super) context: SessionContext,
    /// The statement, with as much before it as the client sent before it.
    pub(super) text: String,
    /// Whether this is what the client sent, so that it understands places in it.
    pub(super) sent: bool,
}

impl Explain {
    /// An error of ours.
    pub(super) fn ours(&self, error: &SqlError) -> PgWireError {
        let Some(statement) = error.statement() else { return failed(INTERNAL, error.to_string()) };
        let mut info = ErrorInfo::new("ERROR".to_owned(), REFUSED.to_owned(), statement.message.clone());
        info.hint = (!statement.help.is_empty()).then(|| statement.help.join("\n"));
        if self.sent {
            let before = statement.byte_range().and_then(|range| statement.statement.get(..range.start));
            info.position = before.map(|before| (before.chars().count() + 1).to_string());
        }
        PgWireError::UserError(Box::new(info))
    }

    /// An error of the engine.
    pub(super) fn engine(&self, error: DataFusionError) -> PgWireError {
        self.ours(&explain_error(&self.context, &self.text, error))
    }
}

/// Takes the engine's prefixes from an error that came past us.
pub(super) fn plain(error: PgWireError) -> PgWireError {
    match error {
        PgWireError::ApiError(inner) => match inner.downcast::<DataFusionError>() {
            Ok(inner) => failed(INTERNAL, diagnose::engine(*inner).to_string()),
            Err(inner) => PgWireError::ApiError(inner),
        },
        other => other,
    }
}
