//! Statements about the connection itself: settings, and transactions, of which there are none.

use async_trait::async_trait;
use datafusion::common::ParamValues;
use datafusion::execution::context::SessionContext;
use datafusion::logical_expr::{LogicalPlan, LogicalPlanBuilder};
use datafusion::sql::sqlparser::ast::{Set, Statement};
use datafusion_postgres::QueryHook;
use datafusion_postgres::hooks::HookClient;
use datafusion_postgres::hooks::set_show::SetShowHook;
use datafusion_postgres::hooks::transactions::TransactionStatementHook;
use datafusion_postgres::pgwire::api::ClientInfo;
use datafusion_postgres::pgwire::api::results::{Response, Tag};
use datafusion_postgres::pgwire::error::PgWireResult;

use super::errors::{INTERNAL, REFUSED, failed};
use crate::diagnose;

/// Whether a statement is answered here.
pub(super) fn is_about_client(statement: &Statement) -> bool {
    matches!(
        statement,
        Statement::StartTransaction { .. }
            | Statement::Commit { .. }
            | Statement::Rollback { .. }
            | Statement::Savepoint { .. }
            | Statement::ReleaseSavepoint { .. }
            | Statement::Set(_)
            | Statement::ShowVariable { .. }
            | Statement::ShowStatus { .. }
            | Statement::ShowCatalogs { .. }
    )
}

/// The answer to a statement about the connection, or to any in a transaction that failed.
pub(super) async fn answer(
    statement: &Statement,
    context: &SessionContext,
    client: &mut dyn HookClient,
) -> Option<PgWireResult<Response>> {
    if let Some(answer) = TransactionStatementHook.handle_simple_query(statement, context, client).await {
        return Some(answer);
    }
    match statement {
        Statement::Savepoint { .. } => Some(Ok(Response::Execution(Tag::new("SAVEPOINT")))),
        Statement::ReleaseSavepoint { .. } => Some(Ok(Response::Execution(Tag::new("RELEASE")))),
        Statement::Set(set) if !is_clients_own(set) => Some(without_effect(set)),
        _ => SetShowHook.handle_simple_query(statement, context, client).await,
    }
}

/// The plan that stands for a prepared statement about the connection.
pub(super) async fn plan(
    statement: &Statement,
    context: &SessionContext,
    client: &(dyn ClientInfo + Send + Sync),
) -> PgWireResult<LogicalPlan> {
    if let Some(plan) = TransactionStatementHook.handle_extended_parse_query(statement, context, client).await
    {
        return plan;
    }
    match SetShowHook.handle_extended_parse_query(statement, context, client).await {
        Some(plan) => plan,
        None => LogicalPlanBuilder::empty(false)
            .build()
            .map_err(|error| failed(INTERNAL, diagnose::engine(error).to_string())),
    }
}

/// Whether a setting is kept with the connection. All others would change the session that all clients share.
fn is_clients_own(set: &Set) -> bool {
    match set {
        Set::SetTimeZone { local, .. } => !local,
        Set::SingleAssignment { scope: None, hivevar: false, variable, .. } => matches!(
            variable.to_string().to_lowercase().as_str(),
            "statement_timeout"
                | "datestyle"
                | "bytea_output"
                | "intervalstyle"
                | "application_name"
                | "extra_float_digits"
                | "search_path"
        ),
        _ => false,
    }
}

/// Clients set many things of PostgreSQL when they connect; a setting of the engine is meant to have an effect.
fn without_effect(set: &Set) -> PgWireResult<Response> {
    match set {
        Set::SingleAssignment { variable, .. }
            if variable.to_string().to_lowercase().starts_with("datafusion.") =>
        {
            Err(failed(REFUSED, format!("{variable} cannot be set: all clients share one session")))
        }
        _ => Ok(Response::Execution(Tag::new("SET"))),
    }
}

/// Keeps with the connection the parameters that the crate has decoded.
pub(super) struct Bound;

#[async_trait]
impl QueryHook for Bound {
    async fn handle_simple_query(
        &self,
        _: &Statement,
        _: &SessionContext,
        _: &mut dyn HookClient,
    ) -> Option<PgWireResult<Response>> {
        None
    }

    async fn handle_extended_parse_query(
        &self,
        _: &Statement,
        _: &SessionContext,
        _: &(dyn ClientInfo + Send + Sync),
    ) -> Option<PgWireResult<LogicalPlan>> {
        None
    }

    async fn handle_extended_query(
        &self,
        _: &Statement,
        _: &LogicalPlan,
        parameters: &ParamValues,
        _: &SessionContext,
        client: &mut dyn HookClient,
    ) -> Option<PgWireResult<Response>> {
        client.session_extensions().insert(parameters.clone());
        Some(Ok(Response::EmptyQuery))
    }
}
