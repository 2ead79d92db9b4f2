//! Statements: from text to plans and rows, and which tables a stage's query reads.

use std::ops::ControlFlow;

use arrow::array::RecordBatch;
use datafusion::common::Column;
use datafusion::dataframe::DataFrame;
use datafusion::error::DataFusionError;
use datafusion::execution::SendableRecordBatchStream;
#[cfg(feature = "serve")]
use datafusion::execution::context::SQLOptions;
use datafusion::execution::context::SessionContext;
use datafusion::logical_expr::{Expr, LogicalPlan, cast};
use datafusion::sql::parser::{DFParserBuilder, Statement};
use datafusion::sql::resolve::resolve_table_references;
use datafusion::sql::sqlparser::ast::{
    Query, SetExpr, Statement as SqlStatement, TableFactor, Visit, Visitor,
};
use datafusion::sql::sqlparser::parser::ParserError;
use futures::TryStreamExt;

use crate::diagnose::{Names, explain};
use crate::error::{Place, SqlError, StatementError};
use crate::functions::operators::tokens;
use crate::functions::relation::name_tables;
use crate::output::{Style, Writer};
use crate::run::owning_run;
use crate::store::Location;
use crate::types::without_views;

/// Why a statement is refused, and what to do instead.
type Refusal = (&'static str, &'static str);

const CHANGED: Refusal = (
    "a run's tables cannot be changed",
    "make a new table with 'create table NAME as select ...', or a file with 'copy (select ...) to'",
);
const OWN: Refusal =
    ("this would write among a run's own files", "write to a folder outside of the run's tables");
#[cfg(feature = "serve")]
const READ_ONLY: Refusal =
    ("a server only answers statements that read", "write tables and files with 'loev sql' at the prompt");

fn is_own_file(target: &str) -> bool {
    let place = Location::parse(target).ok();
    place.as_ref().and_then(Location::as_path).is_some_and(|path| owning_run(path).is_some())
}

/// Parses and plans one statement, and runs it if it only changes the session (`create view`,
/// `set`). No column of the frame's schema has a view type, at any depth.
///
/// # Errors
/// [`SqlError::Statement`] if the text is wrong, holds no or several statements, or would change
/// a table: the tables of a run are what its stages wrote.
pub async fn plan(context: &SessionContext, sql: &str) -> Result<DataFrame, SqlError> {
    let plan = planned(context, sql, |plan| match plan {
        LogicalPlan::Dml(_) => Some(CHANGED),
        LogicalPlan::Copy(copy) if is_own_file(&copy.output_url) => Some(OWN),
        _ => None,
    });
    let plan = plan.await?;
    let frame = Box::pin(context.execute_logical_plan(plan)).await.and_then(plain_columns);
    frame.map_err(|error| explain(error, sql, &Names::of(context)))
}

/// As [`plan`], but refuses all that does more than read: nothing is written, and the session stays as it is.
#[cfg(feature = "serve")]
pub(crate) async fn plan_read(context: &SessionContext, sql: &str) -> Result<DataFrame, SqlError> {
    let reading = SQLOptions::new().with_allow_ddl(false).with_allow_dml(false).with_allow_statements(false);
    let plan = planned(context, sql, |plan| reading.verify_plan(plan).is_err().then_some(READ_ONLY)).await?;
    let frame = plain_columns(DataFrame::new(context.state(), plan));
    frame.map_err(|error| explain(error, sql, &Names::of(context)))
}

/// The plan of one statement, unless there is something against it.
async fn planned(
    context: &SessionContext,
    sql: &str,
    refusal: impl Fn(&LogicalPlan) -> Option<Refusal>,
) -> Result<LogicalPlan, SqlError> {
    let statement = parse_one(sql, || Names::of(context))?;
    // The planner's futures are large; boxed, they do not live on our callers' stacks.
    let plan = Box::pin(context.state().statement_to_plan(statement)).await;
    let plan = plan.map_err(|error| explain(error, sql, &Names::of(context)))?;
    match refusal(&plan) {
        None => Ok(plan),
        Some((message, help)) => Err(StatementError::new(message, sql).at(first_word(sql)).help(help).into()),
    }
}

/// Runs one statement and returns all its rows: at least one batch, which is empty if there are
/// no rows, so that the schema is never lost.
///
/// # Errors
/// As [`plan`], and whatever goes wrong while running.
pub async fn query(context: &SessionContext, sql: &str) -> Result<Vec<RecordBatch>, SqlError> {
    let stream = stream(context, sql).await?;
    let schema = stream.schema();
    let mut batches: Vec<RecordBatch> =
        stream.try_collect().await.map_err(|error| explain(error, sql, &Names::of(context)))?;
    if batches.is_empty() {
        batches.push(RecordBatch::new_empty(schema));
    }
    Ok(batches)
}

/// Runs one statement and returns its rows as they come. Errors in the stream are the engine's;
/// [`explain_error`] makes them ours.
///
/// # Errors
/// As [`plan`], and whatever goes wrong while starting.
pub async fn stream(context: &SessionContext, sql: &str) -> Result<SendableRecordBatchStream, SqlError> {
    let frame = plan(context, sql).await?;
    Box::pin(frame.execute_stream()).await.map_err(|error| explain(error, sql, &Names::of(context)))
}

/// Explains an error that came out of a stream or a plan of ours: with the place in the statement
/// if it is the statement's fault.
pub fn explain_error(context: &SessionContext, sql: &str, error: DataFusionError) -> SqlError {
    explain(error, sql, &Names::of(context))
}

/// Runs one statement and writes its rows as they come; returns how many. CSV and JSON need no
/// more memory for more rows, and neither does a table with a row limit.
///
/// # Errors
/// As [`query`], and [`SqlError::Output`] if `out` fails.
pub async fn execute(
    context: &SessionContext,
    sql: &str,
    style: &Style,
    out: &mut dyn std::io::Write,
) -> Result<u64, SqlError> {
    let mut stream = stream(context, sql).await?;
    let mut writer = Writer::new(stream.schema(), style, out);
    while let Some(batch) =
        stream.try_next().await.map_err(|error| explain(error, sql, &Names::of(context)))?
    {
        writer.push(&batch)?;
    }
    writer.finish()
}

/// The tables that a stage's query reads, each once, by name. Names of `with` clauses and table
/// functions do not count; joins and subqueries do. A qualified name comes back with its dots.
///
/// # Errors
/// [`SqlError::Statement`] if the text does not parse or is not a single query that only reads:
/// one `select`, `with ... select`, set operation or `values`.
pub fn referenced_tables(sql: &str) -> Result<Vec<String>, SqlError> {
    let statement = parse_one(sql, Names::default)?;
    let reading = match &statement {
        Statement::Statement(inner) => match inner.as_ref() {
            SqlStatement::Query(query) => Some(query),
            _ => None,
        },
        _ => None,
    };
    let mut relations = Relations::default();
    let reads_only = reading.is_some_and(|query| query.visit(&mut relations).is_continue());
    if !reads_only {
        return Err(StatementError::new("a stage's SQL must be one query that only reads", sql)
            .at(first_word(sql))
            .help("write it as 'select ...' or 'with ... select ...' over the tables of earlier stages")
            .into());
    }
    let (tables, _) =
        resolve_table_references(&statement, true).map_err(|error| explain(error, sql, &Names::default()))?;
    Ok(tables
        .iter()
        .map(|table| match table.schema() {
            Some(_) => table.to_string(),
            None => table.table().to_owned(),
        })
        .filter(|table| !relations.functions.contains(table))
        .collect())
}

/// Finds what keeps a query from being a plain read, and the functions called in `from`.
#[derive(Default)]
struct Relations {
    functions: Vec<String>,
}

impl Visitor for Relations {
    type Break = ();

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<()> {
        if only_reads(&query.body) { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    }

    fn pre_visit_table_factor(&mut self, factor: &TableFactor) -> ControlFlow<()> {
        if let TableFactor::Table { name, args: Some(_), .. } = factor {
            let name = name.0.last().and_then(|part| part.as_ident());
            self.functions.extend(name.map(|name| match name.quote_style {
                Some(_) => name.value.clone(),
                None => name.value.to_lowercase(),
            }));
        }
        ControlFlow::Continue(())
    }
}

fn only_reads(body: &SetExpr) -> bool {
    match body {
        SetExpr::Select(select) => select.into.is_none(),
        SetExpr::SetOperation { left, right, .. } => only_reads(left) && only_reads(right),
        SetExpr::Query(_) | SetExpr::Values(_) | SetExpr::Table(_) => true,
        SetExpr::Insert(_) | SetExpr::Update(_) | SetExpr::Delete(_) | SetExpr::Merge(_) => false,
    }
}

/// The one statement of a text; names are asked for when it does not parse.
fn parse_one(sql: &str, names: impl FnOnce() -> Names) -> Result<Statement, SqlError> {
    let statements = tokens(sql)
        .map_err(|error| DataFusionError::from(ParserError::from(error)))
        .and_then(|tokens| DFParserBuilder::new(tokens).build())
        .and_then(|mut parser| parser.parse_statements())
        .map_err(|error| explain(error, sql, &names()))?;
    let count = statements.len();
    match statements.into_iter().next() {
        Some(mut statement) if count == 1 => {
            name_tables(&mut statement);
            Ok(statement)
        }
        Some(_) => Err(StatementError::new(format!("one statement at a time, not {count}"), sql)
            .help("send them one after the other")
            .into()),
        None => Err(StatementError::new("there is no statement", sql).into()),
    }
}

/// Casts columns of view types to the plain ones.
fn plain_columns(frame: DataFrame) -> Result<DataFrame, DataFusionError> {
    let schema = frame.schema();
    if schema.fields().iter().all(|field| without_views(field.data_type()).is_none()) {
        return Ok(frame);
    }
    let columns: Vec<Expr> = schema
        .iter()
        .map(|(qualifier, field)| {
            let column = Expr::Column(Column::from((qualifier, field)));
            match without_views(field.data_type()) {
                Some(plain) => cast(column, plain).alias_qualified(qualifier.cloned(), field.name()),
                None => column,
            }
        })
        .collect();
    frame.select(columns)
}

/// The first word of a statement.
fn first_word(sql: &str) -> Option<Place> {
    let (index, line) = sql.lines().enumerate().find(|(_, line)| !line.trim().is_empty())?;
    let indent = line.chars().take_while(|c| c.is_whitespace()).count();
    let length = line.trim_start().chars().take_while(|c| c.is_alphanumeric()).count().max(1);
    Some(Place { line: index + 1, column: indent + 1, length })
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::DataType;

    use super::*;
    use crate::output::Format;
    use crate::testing::{block_on, session};

    fn tables(sql: &str) -> Vec<String> {
        referenced_tables(sql).unwrap()
    }

    #[test]
    fn a_stage_reads_tables_in_joins_subqueries_and_with_clauses() {
        assert_eq!(tables("select * from clips"), ["clips"]);
        assert_eq!(
            tables(
                "with best as (select * from probes p join clips using (clip)) \
                 select *, (select max(x) from steps) from best where clip not in (select clip from rejects)"
            ),
            ["clips", "probes", "rejects", "steps"]
        );
        assert_eq!(tables("select * from a union all (select * from b) order by 1"), ["a", "b"]);
        assert_eq!(tables("values (1), (2)"), [] as [&str; 0]);
        assert_eq!(
            tables(
                "with near as (select * from knn(clips, (select v from probes), 3, filter => id in (select id from kept))) \
                 select * from near join knn((select * from \"Views\"), [1.0], 2) v using (id)"
            ),
            ["Views", "clips", "kept", "probes"]
        );
        // A clause may shadow the table that it reads.
        assert_eq!(tables("with clips as (select * from clips) select * from clips;"), ["clips"]);
    }

    #[test]
    fn names_are_folded_as_the_planner_folds_them() {
        assert_eq!(tables("select * from Clips, \"My Views\""), ["My Views", "clips"]);
        assert_eq!(tables("select * from information_schema.tables"), ["information_schema.tables"]);
        assert_eq!(tables("select * from Generate_Series(1, 3) cross join clips"), ["clips"]);
    }

    #[test]
    fn a_stage_may_only_read() {
        for sql in [
            "create table x as select 1",
            "insert into clips select * from clips",
            "drop table clips",
            "copy clips to 'x.parquet'",
            "explain select 1",
            "select * into x from clips",
            "  delete from clips",
        ] {
            let error = referenced_tables(sql).unwrap_err().to_string();
            assert!(error.contains("one query that only reads"), "{sql}: {error}");
            assert!(error.contains('^'), "{sql}: {error}");
        }
        let two = referenced_tables("select 1; select 2").unwrap_err().to_string();
        assert!(two.contains("one statement at a time, not 2"), "{two}");
        assert!(referenced_tables(" -- nothing\n").unwrap_err().to_string().contains("no statement"));
    }

    #[test]
    fn results_have_no_view_types() {
        let context = session();
        let sql = "select name, 'x' as literal, cast(n as varchar) as text, upper(name) as up, \
                   name || '!' as joined, arrow_cast(name, 'Utf8View') as view, [name] as names, \
                   substr(name, 1, 2) as part, named_struct('a', arrow_cast(name, 'Utf8View')) as nested from music";
        let rows = block_on(query(&context, sql)).unwrap();
        for field in rows[0].schema().fields() {
            assert_eq!(without_views(field.data_type()), None, "{field}");
        }
        assert_eq!(rows[0].schema().field(0).data_type(), &DataType::Utf8);
        assert_eq!(rows[0].schema().field(5).data_type(), &DataType::Utf8);
    }

    #[test]
    fn empty_results_keep_their_schema() {
        let rows = block_on(query(&session(), "select name, n from music where n > 99")).unwrap();
        assert_eq!(rows.iter().map(RecordBatch::num_rows).sum::<usize>(), 0);
        assert_eq!(rows[0].schema().fields().len(), 2);
    }

    #[test]
    fn a_session_may_change_but_not_its_tables() {
        let context = session();
        let error =
            block_on(query(&context, "insert into music select * from music")).unwrap_err().to_string();
        assert!(error.contains("cannot be changed"), "{error}");
        block_on(query(&context, "create view loud as select * from music where n > 1")).unwrap();
        let mut text = Vec::new();
        let rows = block_on(execute(
            &context,
            "select count(*) as n from loud",
            &Style::new(Format::Csv),
            &mut text,
        ));
        assert_eq!((rows.unwrap(), text.as_slice()), (1, b"n\n2\n".as_slice()));
    }
}
