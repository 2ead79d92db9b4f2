//! Names of tables among arguments become queries.

use std::ops::ControlFlow;

use datafusion::sql::parser::Statement;
use datafusion::sql::sqlparser::ast::{
    Expr, FunctionArg, FunctionArgExpr, Ident, ObjectName, Query, SetExpr, Statement as SqlStatement,
    TableFactor, Value, VisitMut, VisitorMut,
};
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::parser::Parser;

use super::{arguments_of, called};

/// Writes `knn((select * from clips), ...)` for `knn(clips, ...)`, everywhere in a statement.
pub(crate) fn name_tables(statement: &mut Statement) {
    // Nothing breaks off the visit.
    let _ = match statement {
        Statement::Statement(inner) => inner.visit(&mut Rewriter),
        Statement::Explain(explain) => {
            name_tables(&mut explain.statement);
            ControlFlow::Continue(())
        }
        Statement::CopyTo(copy) => match &mut copy.source {
            datafusion::sql::parser::CopyToSource::Query(query) => query.visit(&mut Rewriter),
            datafusion::sql::parser::CopyToSource::Relation(_) => ControlFlow::Continue(()),
        },
        Statement::CreateExternalTable(_) | Statement::Reset(_) => ControlFlow::Continue(()),
    };
}

struct Rewriter;

impl VisitorMut for Rewriter {
    type Break = ();

    fn pre_visit_table_factor(&mut self, relation: &mut TableFactor) -> ControlFlow<()> {
        let Some(function) = called(relation) else { return ControlFlow::Continue(()) };
        for argument in arguments_of(relation).into_iter().flatten().take(function.tables()) {
            if let FunctionArg::Unnamed(FunctionArgExpr::Expr(expression)) = argument
                && let Some(query) = table_name(expression).and_then(all_rows_of)
            {
                *expression = Expr::Subquery(Box::new(query));
            }
        }
        ControlFlow::Continue(())
    }
}

fn table_name(expression: &Expr) -> Option<ObjectName> {
    match expression {
        Expr::Identifier(name) => Some(vec![name.clone()].into()),
        Expr::CompoundIdentifier(names) => Some(names.clone().into()),
        Expr::Value(value) => match &value.value {
            Value::SingleQuotedString(address) => {
                Some(vec![Ident::with_quote_and_span('\'', value.span, address)].into())
            }
            _ => None,
        },
        _ => None,
    }
}

fn all_rows_of(table: ObjectName) -> Option<Query> {
    let mut statements = Parser::parse_sql(&GenericDialect {}, "select * from t").ok()?;
    let Some(SqlStatement::Query(mut query)) = statements.pop() else { return None };
    let SetExpr::Select(select) = query.body.as_mut() else { return None };
    match &mut select.from.first_mut()?.relation {
        TableFactor::Table { name, .. } => *name = table,
        _ => return None,
    }
    Some(*query)
}
