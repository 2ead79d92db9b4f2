//! Functions in `from` that take tables: `knn(embeddings, [0.1, ...], k => 10)`.
//!
//! ```text
//! knn(TABLE, ...) --rewrite--> knn((select * from TABLE), ...) --plan--> node over the tables' plans
//!                                                             --run--> rows of the tables in, rows of the result out
//! ```
//!
//! * The first arguments are tables: a name with or without dots, an address in quotes, or a query in parentheses.
//! * Further arguments go by position or by name (`k => 10`); those with names may be left out where that has a meaning.
//! * A name becomes a query before planning ([`name_tables`]), so that whatever asks which tables a statement reads
//!   sees it, and so that names of `with` clauses and views work.
//! * A function turns a [`Call`] into a plan; one that works on rows makes an [`Operation`] and puts it into the plan
//!   with [`operation`]. `explain` shows it with its parameters, and only columns that are needed are read.

mod call;
mod exec;
mod groups;
mod knn;
mod knn_join;
mod node;
mod reduce;
mod render;
mod rewrite;

use std::fmt::Debug;

use datafusion::common::Result;
use datafusion::logical_expr::builder::subquery_alias;
use datafusion::logical_expr::planner::{
    PlannedRelation, RelationPlanner, RelationPlannerContext, RelationPlanning,
};
use datafusion::logical_expr::{Documentation, LogicalPlan};
use datafusion::sql::sqlparser::ast::{FunctionArg, ObjectName, TableFactor};

use super::Docs;

pub(crate) use call::Call;
pub(crate) use exec::{Input, Output};
pub(crate) use knn::{NEAREST, search_node};
pub(crate) use node::{Operation, OutputColumn, RelationQueryPlanner, operation};
pub(crate) use rewrite::name_tables;

/// A function in `from` whose first arguments are tables.
pub(super) trait RelationFunction: Debug + Send + Sync {
    fn name(&self) -> &'static str;

    /// How many tables it takes; they come first, and are first among [`Docs::arguments`].
    fn tables(&self) -> usize {
        1
    }

    /// The names of `arguments` are those of named arguments.
    fn docs(&self) -> Docs;

    /// The plan of one call. Its columns get the function's name as their table's, unless the call has an alias.
    fn plan(&self, call: &mut Call<'_>) -> Result<LogicalPlan>;
}

fn all() -> [&'static dyn RelationFunction; 5] {
    [&knn::Knn, &knn_join::KnnJoin, &reduce::Principal, &reduce::Map, &render::Render]
}

fn find(name: &str) -> Option<&'static dyn RelationFunction> {
    all().into_iter().find(|function| function.name() == name)
}

/// The functions' names.
pub(crate) fn names() -> impl Iterator<Item = &'static str> {
    all().into_iter().map(|function| function.name())
}

/// The functions' names, each with its documentation.
pub(crate) fn documentation() -> impl Iterator<Item = (&'static str, Documentation)> {
    all().into_iter().map(|function| (function.name(), function.docs().build()))
}

/// Plans calls of these functions; all else in `from` is left to others.
#[derive(Debug)]
pub(super) struct Planner;

impl RelationPlanner for Planner {
    fn plan_relation(
        &self,
        relation: TableFactor,
        context: &mut dyn RelationPlannerContext,
    ) -> Result<RelationPlanning> {
        let Some(function) = called(&relation) else {
            return Ok(RelationPlanning::Original(Box::new(relation)));
        };
        let (arguments, alias) = match relation {
            TableFactor::Table { args: Some(arguments), alias, .. } => (arguments.args, alias),
            TableFactor::Function { args, alias, .. } => (args, alias),
            other => return Ok(RelationPlanning::Original(Box::new(other))),
        };
        let mut call = Call::new(function, arguments, context)?;
        let plan = function.plan(&mut call)?;
        let plan = if alias.is_some() { plan } else { subquery_alias(plan, function.name())? };
        Ok(RelationPlanning::Planned(Box::new(PlannedRelation::new(plan, alias))))
    }
}

/// The function of ours that is called.
fn called(relation: &TableFactor) -> Option<&'static dyn RelationFunction> {
    match relation {
        TableFactor::Table { name, args: Some(_), .. } | TableFactor::Function { name, .. } => {
            find(&plain_name(name)?)
        }
        _ => None,
    }
}

/// A name without dots, as the planner folds it.
fn plain_name(name: &ObjectName) -> Option<String> {
    let [part] = name.0.as_slice() else { return None };
    let part = part.as_ident()?;
    Some(if part.quote_style.is_some() { part.value.clone() } else { part.value.to_lowercase() })
}

/// The arguments of a call of ours, to be changed.
fn arguments_of(relation: &mut TableFactor) -> Option<&mut Vec<FunctionArg>> {
    match relation {
        TableFactor::Table { args: Some(arguments), .. } => Some(&mut arguments.args),
        TableFactor::Function { args, .. } => Some(args),
        _ => None,
    }
}
