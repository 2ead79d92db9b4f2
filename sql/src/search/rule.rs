//! `order by cosine_distance(embedding, [...]) limit k`, and the like, as a search.

use std::sync::Arc;

use datafusion::common::Result;
use datafusion::common::tree_node::Transformed;
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder, Projection, Sort};
use datafusion::optimizer::optimizer::ApplyOrder;
use datafusion::optimizer::{OptimizerConfig, OptimizerRule};

use super::{Metric, Order};
use crate::functions::relation::{NEAREST, search_node};

/// With more rows than this to be kept, a sort is as good.
const MOST: usize = 10_000;

/// Puts a search under a sort that keeps `k` rows by one distance of a column and a constant: the search lets pass the
/// `k` rows that come first, so that the sort, and what is computed beside the distance, meets only these.
///
/// The order is the sort's: by the same values to the last bit, NULL where the statement says. Sorts by more than one
/// expression are left alone, as their ties are not those of the distance.
#[derive(Debug)]
pub(crate) struct NearestFirst;

impl OptimizerRule for NearestFirst {
    fn name(&self) -> &str {
        "nearest_first"
    }

    fn apply_order(&self) -> Option<ApplyOrder> {
        Some(ApplyOrder::TopDown)
    }

    fn rewrite(&self, plan: LogicalPlan, _config: &dyn OptimizerConfig) -> Result<Transformed<LogicalPlan>> {
        let LogicalPlan::Sort(sort) = &plan else { return Ok(Transformed::no(plan)) };
        match with_search(sort)? {
            Some(input) => {
                let sort = Sort { input: Arc::new(input), ..sort.clone() };
                Ok(Transformed::yes(LogicalPlan::Sort(sort)))
            }
            None => Ok(Transformed::no(plan)),
        }
    }
}

/// The sort's input with a search in it.
fn with_search(sort: &Sort) -> Result<Option<LogicalPlan>> {
    let (Some(k), [key]) = (sort.fetch.filter(|k| (1..=MOST).contains(k)), sort.expr.as_slice()) else {
        return Ok(None);
    };
    let order = Order { descending: !key.asc, nulls_first: Some(key.nulls_first) };
    let value = unaliased(&key.expr);
    let LogicalPlan::Projection(projection) = sort.input.as_ref() else {
        return searched(value, &sort.input, k, order);
    };
    let computed = match value {
        Expr::Column(column) => {
            let index = projection.schema.maybe_index_of_column(column);
            index.and_then(|index| projection.expr.get(index))
        }
        _ => None,
    };
    let Some(computed) = computed else { return searched(value, &sort.input, k, order) };
    let Some(input) = searched(unaliased(computed), &projection.input, k, order)? else { return Ok(None) };
    let projection = Projection::try_new(projection.expr.clone(), Arc::new(input))?;
    Ok(Some(LogicalPlan::Projection(projection)))
}

/// The search for the rows of `input` that come first by `value`.
fn searched(value: &Expr, input: &LogicalPlan, k: usize, order: Order) -> Result<Option<LogicalPlan>> {
    let Expr::ScalarFunction(ScalarFunction { func, args }) = value else { return Ok(None) };
    let (Some(metric), [a, b]) = (Metric::of_function(func.name()), args.as_slice()) else { return Ok(None) };
    let (column, query) = match (column_of(a), column_of(b)) {
        (Some(column), None) if is_constant(b) => (column, b),
        (None, Some(column)) if is_constant(a) => (column, a),
        _ => return Ok(None),
    };
    let mut names: Vec<&str> = input.schema().fields().iter().map(|field| field.name().as_str()).collect();
    let columns = names.len();
    names.sort_unstable();
    names.dedup();
    if names.len() < columns || !input.schema().has_column(column) || is_searched(input) {
        return Ok(None);
    }
    let query = LogicalPlanBuilder::empty(true).project([query.clone().alias("query")])?.build()?;
    search_node(&column.name, metric, order, k, input.clone(), query)
}

/// Whether a search is there already: rules run several times.
fn is_searched(plan: &LogicalPlan) -> bool {
    match plan {
        LogicalPlan::Extension(extension) => extension.node.name() == NEAREST,
        LogicalPlan::Projection(projection) => is_searched(&projection.input),
        _ => false,
    }
}

fn unaliased(expression: &Expr) -> &Expr {
    match expression {
        Expr::Alias(alias) => unaliased(&alias.expr),
        other => other,
    }
}

/// The column that an argument is, perhaps as other numbers.
fn column_of(expression: &Expr) -> Option<&datafusion::common::Column> {
    match expression {
        Expr::Column(column) => Some(column),
        Expr::Cast(cast) => column_of(&cast.expr),
        _ => None,
    }
}

/// Whether a value is the same for all rows of a statement.
fn is_constant(expression: &Expr) -> bool {
    match expression {
        Expr::ScalarSubquery(subquery) => subquery.outer_ref_columns.is_empty(),
        Expr::Cast(cast) => is_constant(&cast.expr),
        Expr::Literal(..) => true,
        _ => false,
    }
}
