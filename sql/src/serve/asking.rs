//! What clients may ask: statements that read, planned as in every other session.

use std::fmt::Debug;
use std::sync::Arc;

use async_trait::async_trait;
use datafusion::common::ParamValues;
use datafusion::dataframe::DataFrame;
use datafusion::execution::context::SessionContext;
use datafusion::logical_expr::LogicalPlan;
use datafusion::sql::sqlparser::ast::{Ident, Statement};
use datafusion::sql::sqlparser::dialect::{GenericDialect, PostgreSqlDialect};
use datafusion::sql::sqlparser::parser::Parser;
use datafusion::sql::sqlparser::tokenizer::{Token, Tokenizer};
use datafusion_postgres::DfSessionService;
use datafusion_postgres::datafusion_pg_catalog::sql::PostgresCompatibilityParser;
use datafusion_postgres::hooks::HookClient;
use datafusion_postgres::pgwire::api::portal::{Format, Portal};
use datafusion_postgres::pgwire::api::query::{ExtendedQueryHandler, SimpleQueryHandler};
use datafusion_postgres::pgwire::api::results::{FieldInfo, Response};
use datafusion_postgres::pgwire::api::stmt::QueryParser;
use datafusion_postgres::pgwire::api::store::PortalStore;
use datafusion_postgres::pgwire::api::{ClientInfo, ClientPortalStore, Type};
use datafusion_postgres::pgwire::error::{PgWireError, PgWireResult};
use datafusion_postgres::pgwire::messages::PgWireBackendMessage;
use datafusion_postgres::pgwire::types::format::FormatOptions;
use futures::Sink;

use super::errors::{Explain, UNSUPPORTED, failed, helped, plain};
use super::settings::{self, Bound, is_about_client};
use super::work::{Connections, Patience, rows, run};
use crate::query::plan_read;
use crate::script::statements;

/// A prepared statement as the crate keeps it: its text, and what is made of it.
pub(super) type Prepared = (String, Option<(Statement, LogicalPlan)>);

/// Statements in one message, and words and operators in one text, at most. Statements are trees, and what reads them
/// goes down as deep as a chain of operators is long.
const STATEMENTS: usize = 64;
const WORDS: usize = 10_000;

/// Answers statements. None reaches the session past our planner.
pub(super) struct Asking {
    reading: Reading,
    /// For parameters of prepared statements, their types, and the types of answers.
    service: DfSessionService,
    connections: Arc<Connections>,
}

/// From text to plans.
#[derive(Clone)]
pub(super) struct Reading {
    context: SessionContext,
    parser: Arc<PostgresCompatibilityParser>,
    types: Arc<<DfSessionService as ExtendedQueryHandler>::QueryParser>,
    connections: Arc<Connections>,
}

/// A statement that was read.
struct Read {
    /// What it is for PostgreSQL, if it is anything.
    statement: Option<Statement>,
    /// Its plan, unless it is about the connection.
    frame: Option<DataFrame>,
    explain: Explain,
}

impl Asking {
    pub(super) fn new(context: &SessionContext, connections: &Arc<Connections>) -> Self {
        let service = DfSessionService::new_with_hooks(Arc::new(context.clone()), vec![Arc::new(Bound)]);
        let reading = Reading {
            context: context.clone(),
            parser: Arc::new(PostgresCompatibilityParser::new()),
            types: service.query_parser(),
            connections: Arc::clone(connections),
        };
        Self { reading, service, connections: Arc::clone(connections) }
    }

    async fn answer(
        &self,
        client: &mut dyn HookClient,
        text: String,
        mut patience: Patience,
    ) -> PgWireResult<Response> {
        let reading = self.reading.clone();
        let read = run(&mut patience, async move { reading.read(text).await }).await??;
        let context = &self.reading.context;
        if let Some(statement) = &read.statement
            && let Some(answer) = settings::answer(statement, context, client).await
        {
            return answer;
        }
        let Some(frame) = read.frame else { return Ok(Response::EmptyQuery) };
        let options = FormatOptions::from_client_metadata(client.metadata());
        rows(frame, &Format::UnifiedText, options, patience, read.explain).map(Response::Query)
    }
}

impl Reading {
    /// Plans a statement as everywhere. One that asks for PostgreSQL's catalogue is written anew first, and so is one
    /// that cannot be planned as it stands: what drivers and tools say is not all understood otherwise.
    async fn read(&self, text: String) -> PgWireResult<Read> {
        weigh(&text)?;
        let plainly = one(Parser::parse_sql(&PostgreSqlDialect {}, &text));
        let anew = || one(self.parser.parse(&text)).filter(|anew| plainly.as_ref() != Some(anew));
        // `abort` is only read there.
        let statement = plainly.clone().or_else(anew);
        let sent = Explain { context: self.context.clone(), text: text.clone(), sent: true };
        if statement.as_ref().is_some_and(is_about_client) {
            return Ok(Read { statement, frame: None, explain: sent });
        }
        if matches!(statement, Some(Statement::Copy { .. })) {
            return Err(helped(
                UNSUPPORTED,
                "COPY is not answered here",
                "rows as CSV: psql --csv -c 'select ...' > FILE, or \\g FILE after \\pset format csv",
            ));
        }
        let catalogue = text.to_lowercase().contains("pg_");
        let mut refused = None;
        if !catalogue {
            match plan_read(&self.context, &text).await {
                Ok(frame) => return Ok(Read { statement, frame: Some(frame), explain: sent }),
                Err(error) => refused = Some(sent.ours(&error)),
            }
        }
        let (explain, refused) = match (anew(), refused) {
            (None, Some(refused)) => return Err(refused),
            (None, None) => (sent, None),
            (Some(anew), refused) => (Explain { text: anew.to_string(), sent: false, ..sent }, refused),
        };
        match plan_read(&self.context, &explain.text).await {
            Ok(frame) => Ok(Read { statement, frame: Some(frame), explain }),
            Err(error) => Err(refused.unwrap_or_else(|| explain.ours(&error))),
        }
    }
}

/// The statement, if it is one.
fn one<E>(read: Result<Vec<Statement>, E>) -> Option<Statement> {
    let read = read.ok().filter(|statements| statements.len() == 1);
    read.and_then(|statements| statements.into_iter().next())
}

/// Refuses what is too large a tree for those who go down in it.
fn weigh(text: &str) -> PgWireResult<()> {
    let tokens = Tokenizer::new(&GenericDialect {}, text).tokenize();
    let tokens = tokens.or_else(|_| Tokenizer::new(&PostgreSqlDialect {}, text).tokenize());
    // What cannot be told apart is not read either.
    let Ok(tokens) = tokens else { return Ok(()) };
    let (mut words, mut statements, mut begins) = (0, 1, true);
    for token in &tokens {
        match token {
            Token::Whitespace(_) => continue,
            Token::SemiColon => statements += 1,
            // A sign, not an operator.
            Token::Minus | Token::Plus if begins => {}
            Token::Number(..)
            | Token::SingleQuotedString(_)
            | Token::Comma
            | Token::LParen
            | Token::RParen
            | Token::LBracket
            | Token::RBracket => {}
            _ => words += 1,
        }
        begins = matches!(token, Token::Comma | Token::LParen | Token::LBracket);
    }
    if words > WORDS {
        let message = format!("the statement has more than {WORDS} words and operators");
        return Err(helped(UNSUPPORTED, message, "a list, as in 'x in (1, 2)', does not count"));
    }
    match statements > STATEMENTS + 1 {
        true => Err(failed(UNSUPPORTED, format!("more than {STATEMENTS} statements in one message"))),
        false => Ok(()),
    }
}

#[async_trait]
impl SimpleQueryHandler for Asking {
    async fn do_query<C>(&self, client: &mut C, query: &str) -> PgWireResult<Vec<Response>>
    where
        C: ClientInfo + ClientPortalStore + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::PortalStore: PortalStore,
        C::Error: Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        let mut patience = Patience::of(client, &self.connections);
        let text = query.to_owned();
        let split = async move { weigh(&text).map(|()| statements(&text)) };
        let mut responses = Vec::new();
        for text in run(&mut patience, split).await?? {
            match self.answer(client, text, patience.clone()).await {
                Ok(response) => responses.push(response),
                // What came before it is answered.
                Err(error) => {
                    responses.push(Response::Error(Box::new(plain(error).into())));
                    break;
                }
            }
        }
        if responses.is_empty() {
            responses.push(Response::EmptyQuery);
        }
        Ok(responses)
    }
}

#[async_trait]
impl ExtendedQueryHandler for Asking {
    type Statement = Prepared;
    type QueryParser = Reading;

    fn query_parser(&self) -> Arc<Reading> {
        Arc::new(self.reading.clone())
    }

    async fn do_query<C>(
        &self,
        client: &mut C,
        portal: &Portal<Prepared>,
        max_rows: usize,
    ) -> PgWireResult<Response>
    where
        C: ClientInfo + ClientPortalStore + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::PortalStore: PortalStore<Statement = Prepared>,
        C::Error: Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        let (text, Some((statement, plan))) = &portal.statement.statement else {
            return Ok(Response::EmptyQuery);
        };
        let context = &self.reading.context;
        if let Some(answer) = settings::answer(statement, context, client).await {
            return answer;
        }
        ExtendedQueryHandler::do_query(&self.service, client, portal, max_rows).await?;
        let bound = client.session_extensions().get::<ParamValues>();
        // The plan may be that of another text, whose places are not the client's.
        let explain = Explain { context: context.clone(), text: text.clone(), sent: false };
        let plan = plan.clone();
        let plan = match bound {
            Some(values) => plan.replace_params_with_values(&values),
            None => Ok(plan),
        };
        let frame = DataFrame::new(context.state(), plan.map_err(|error| explain.engine(error))?);
        let options = FormatOptions::from_client_metadata(client.metadata());
        let patience = Patience::of(client, &self.connections);
        rows(frame, &portal.result_column_format, options, patience, explain).map(Response::Query)
    }
}

#[async_trait]
impl QueryParser for Reading {
    type Statement = Prepared;

    async fn parse_sql<C>(&self, client: &C, sql: &str, _: &[Option<Type>]) -> PgWireResult<Option<Prepared>>
    where
        C: ClientInfo + Unpin + Send + Sync,
    {
        let mut patience = Patience::of(client, &self.connections);
        let (reading, text) = (self.clone(), sql.to_owned());
        let read = run(&mut patience, async move { reading.read(text).await }).await??;
        let plan = match (&read.statement, read.frame) {
            (_, Some(frame)) => frame.into_unoptimized_plan(),
            (Some(statement), None) => settings::plan(statement, &self.context, client).await?,
            (None, None) => return Ok(None),
        };
        // No statement of PostgreSQL: any that is not about the connection will do.
        let statement = read.statement.unwrap_or_else(|| Statement::UNLISTEN { channel: Ident::new("") });
        Ok(Some((sql.to_owned(), Some((statement, plan)))))
    }

    fn get_parameter_types(&self, prepared: &Prepared) -> PgWireResult<Vec<Type>> {
        self.types.get_parameter_types(prepared)
    }

    fn get_result_schema(
        &self,
        prepared: &Prepared,
        format: Option<&Format>,
    ) -> PgWireResult<Vec<FieldInfo>> {
        self.types.get_result_schema(prepared, format)
    }
}
