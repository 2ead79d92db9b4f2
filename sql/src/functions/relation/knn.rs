//! `knn`: the rows of a table whose vectors are nearest to one vector.

use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array, Int64Array};
use arrow::datatypes::{DataType, Field, Schema};
use async_trait::async_trait;
use datafusion::common::runtime::SpawnedTask;
use datafusion::common::{Column, DFSchema, DataFusionError, Result, exec_err, plan_err};
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder};

use super::{Call, Input, Operation, Output, OutputColumn, RelationFunction, operation};
use crate::functions::Docs;
use crate::functions::column::{common_element, element_of};
use crate::search::{Metric, Nearest, Order, Query, Scan};
use crate::suggest::{listed, nearest};
use crate::types::type_name;

/// The name of the search in plans that is put under sorts.
pub(crate) const NEAREST: &str = "nearest";

/// The function.
#[derive(Debug)]
pub(super) struct Knn;

impl RelationFunction for Knn {
    fn name(&self) -> &'static str {
        "knn"
    }

    fn docs(&self) -> Docs {
        Docs {
            section: "Search Functions",
            description: "The k rows of a table whose vectors are nearest to one vector, nearest first: the table's \
                          columns with distance (double) and rank (bigint, from 1). Always exact: one query runs at about the \
                          speed of memory, and to make an index would cost as much as many of them. Rows of equal \
                          distance come in the order of the table's rows. Left out are rows whose vector is NULL or \
                          holds a NULL or a NaN, and with 'cosine' zero vectors. If the query is NULL there are no rows.",
            syntax: "knn(table, query, k[, metric, filter, exclude, vector])",
            example: "select clip_id, distance from knn(embeddings, (select embedding from embeddings where clip_id = 'a'), 10, \
                      exclude => clip_id = 'a');",
            arguments: &[
                ("table", "A table, or a query in parentheses."),
                (
                    "query",
                    "The vector to search for: a list of numbers, or a query in parentheses that gives one.",
                ),
                ("k", "How many rows, at least 1. If the table has fewer, all come."),
                (
                    "metric",
                    "'cosine' (the default), 'l2', 'l1' or 'inner_product'; the last gives the negative inner product.",
                ),
                ("filter", "A condition on the table's columns; only rows that meet it count."),
                ("exclude", "A condition on the table's columns; rows that meet it do not count."),
                ("vector", "The column with the vectors; may be left out if the table has one only."),
            ],
        }
    }

    fn plan(&self, call: &mut Call<'_>) -> Result<LogicalPlan> {
        let name = call.function();
        let table = call.table(0)?.clone();
        let (vector, vector_type) = vector_column(call, "vector", table.schema())?;
        let Some(query) = call.values("query")? else {
            return plan_err!("{name} needs 'query', the vector to search for");
        };
        let query_type = query.schema().field(0).data_type();
        check_vectors(name, &vector_type, query_type)?;
        let k = required_k(call)?;
        let metric = metric(call)?;
        let kept = call.expression("filter", &table)?;
        let dropped = call.expression("exclude", &table)?.map(not_true);
        let table = match kept.into_iter().chain(dropped).reduce(Expr::and) {
            Some(condition) => LogicalPlanBuilder::from(table).filter(condition)?.build()?,
            None => table,
        };
        operation(
            Arc::new(Search { scored: true, vector, k, metric, order: Order::NEAREST }),
            vec![table, query],
        )
    }
}

fn not_true(condition: Expr) -> Expr {
    Expr::IsNotTrue(Box::new(condition))
}

/// The column that holds the vectors: the one that is named, or the only one.
pub(super) fn vector_column(
    call: &mut Call<'_>,
    argument: &str,
    schema: &DFSchema,
) -> Result<(String, DataType)> {
    let name = call.function();
    let is_vector =
        |data_type: &DataType| element_of(data_type).is_some_and(|element| element.data_type().is_numeric());
    if let Some(column) = call.column(argument, schema)? {
        let field = schema.field_with_unqualified_name(&column)?;
        if !is_vector(field.data_type()) {
            return plan_err!(
                "'{argument}' of {name}: column '{column}' holds no vectors (lists of numbers) but {}",
                type_name(field.data_type())
            );
        }
        return Ok((column, field.data_type().clone()));
    }
    let mut vectors = schema.fields().iter().filter(|field| is_vector(field.data_type()));
    match (vectors.next(), vectors.next()) {
        (Some(field), None) => Ok((field.name().clone(), field.data_type().clone())),
        (None, _) => plan_err!(
            "{name}: the table has no column of vectors (lists of numbers); its columns are {}",
            listed(schema.fields().iter().map(|field| field.name().as_str()), 20)
        ),
        (Some(first), Some(second)) => plan_err!(
            "{name}: the table has several columns of vectors, such as {0} and {1}; say which, as in '{argument} => {0}'",
            first.name(),
            second.name()
        ),
    }
}

/// Refuses what is no vector, and lengths that can be seen to differ.
pub(super) fn check_vectors(name: &str, a: &DataType, b: &DataType) -> Result<()> {
    common_element(name, &[a.clone(), b.clone()])?;
    match (a, b) {
        (DataType::FixedSizeList(_, a), DataType::FixedSizeList(_, b)) if a != b => {
            plan_err!("{name} needs vectors of equal length, not of {a} and {b} elements")
        }
        _ => Ok(()),
    }
}

pub(super) fn required_k(call: &mut Call<'_>) -> Result<usize> {
    match call.count("k")? {
        Some(k) => Ok(k),
        None => plan_err!("{} needs 'k', the number of neighbours", call.function()),
    }
}

pub(super) fn metric(call: &mut Call<'_>) -> Result<Metric> {
    let Some(given) = call.text("metric")? else { return Ok(Metric::Cosine) };
    if let Some(metric) = Metric::ALL.into_iter().find(|metric| metric.name() == given.to_lowercase()) {
        return Ok(metric);
    }
    let names = || Metric::ALL.into_iter().map(Metric::name);
    let near = nearest(&given, names()).map(|near| format!("; did you mean '{near}'?")).unwrap_or_default();
    plan_err!("{} knows no metric '{given}'{near} Metrics are: {}", call.function(), listed(names(), 8))
}

/// The number of a column that is known to be there.
pub(super) fn index_of(schema: &Schema, column: &str, function: &str) -> Result<usize> {
    match schema.fields().iter().position(|field| field.name() == column) {
        Some(index) => Ok(index),
        None => plan_err!("{function}: there is no column '{column}'"),
    }
}

/// The search that lets pass the rows of `input` that come first by a value; `None` if the rows have other types than
/// that needs.
pub(crate) fn search_node(
    vector: &str,
    metric: Metric,
    order: Order,
    k: usize,
    input: LogicalPlan,
    query: LogicalPlan,
) -> Result<Option<LogicalPlan>> {
    let field = input.schema().field_with_unqualified_name(vector)?;
    if common_element(NEAREST, &[field.data_type().clone(), query.schema().field(0).data_type().clone()])
        .is_err()
    {
        return Ok(None);
    }
    let names: Vec<_> =
        input.schema().iter().map(|(table, field)| (table.cloned(), field.name().clone())).collect();
    let search = Search { scored: false, vector: vector.to_owned(), k, metric, order };
    let plan = operation(Arc::new(search), vec![input, query])?;
    // The search knows columns by name alone; above it they have their tables again.
    let columns = names.into_iter().map(|(table, name)| {
        Expr::Column(Column::new_unqualified(name.clone())).alias_qualified(table, name)
    });
    LogicalPlanBuilder::from(plan).project(columns)?.build().map(Some)
}

/// The search for one vector: `knn`, or what sorts by distances put under them.
#[derive(Debug)]
struct Search {
    /// Whether the result has distances and ranks.
    scored: bool,
    vector: String,
    k: usize,
    metric: Metric,
    order: Order,
}

#[async_trait]
impl Operation for Search {
    fn name(&self) -> &'static str {
        if self.scored { "knn" } else { NEAREST }
    }

    fn parameters(&self) -> String {
        let Order { descending, nulls_first } = self.order;
        let order = match (descending, nulls_first) {
            (false, None | Some(false)) => "",
            (false, Some(true)) => ", nulls first",
            (true, Some(true)) => ", descending, nulls first",
            (true, None | Some(false)) => ", descending, nulls last",
        };
        format!("k={}, metric={}, vector={}{order}", self.k, self.metric.name(), self.vector)
    }

    fn columns(&self, inputs: &[&Schema]) -> Result<Vec<OutputColumn>> {
        let mut columns = passed(inputs, 0, "");
        if self.scored {
            columns.extend(scores());
        }
        Ok(columns)
    }

    fn reads(&self, inputs: &[&Schema]) -> Result<Vec<Vec<usize>>> {
        let [table, _] = inputs else { return plan_err!("a search reads a table and a query") };
        Ok(vec![vec![index_of(table, &self.vector, self.name())?], vec![0]])
    }

    async fn run(&self, inputs: Vec<Input>, output: Output) -> Result<()> {
        let [table, query] = inputs.as_slice() else {
            return exec_err!("a search reads a table and a query");
        };
        let (name, table_schema) = (self.name(), table.schema());
        let column = index_of(&table_schema, &self.vector, name)?;
        let types =
            [table_schema.field(column).data_type().clone(), query.schema().field(0).data_type().clone()];
        let element = common_element(name, &types)?;
        let query = match one_vector(name, query, &element).await? {
            Some(query) => query,
            None if self.scored => return Ok(()),
            // Every value is NULL, and any rows will do.
            None => Query::Null,
        };
        let (rows, readers) = table.shared()?;
        let rows = Arc::new(rows);
        let scans = (0..readers).map(|reader| {
            let mut scan = Scan::new(name, self.metric, self.order, query.clone(), self.k);
            let (rows, reservation) = (Arc::clone(&rows), table.reservation().new_empty());
            SpawnedTask::spawn(async move {
                while let Some(read) = rows.next(reader).await {
                    let (first, batch) = read?;
                    scan.push(&batch, column, first)?;
                    reservation.try_resize(scan.memory())?;
                }
                Ok::<_, DataFusionError>((scan, reservation))
            })
        });
        let (mut finished, mut reservations) = (Vec::new(), Vec::new());
        for task in scans.collect::<Vec<_>>() {
            let (scan, reservation) = task.join().await.map_err(stopped)??;
            finished.push(scan);
            reservations.push(reservation);
        }
        let found = Nearest::of(finished)?;
        let Some(rows) = found.rows else { return Ok(()) };
        let (passed, count) = (rows.num_columns(), found.distances.len());
        output
            .send(count, |index| {
                Ok(match index.checked_sub(passed) {
                    None => Arc::clone(rows.column(index)),
                    Some(0) => Arc::new(Float64Array::from(found.distances.clone())) as ArrayRef,
                    Some(_) => Arc::new(Int64Array::from_iter_values(1..=count as i64)),
                })
            })
            .await?;
        Ok(())
    }
}

/// The columns of an input, their names with `prefix`.
pub(super) fn passed(inputs: &[&Schema], input: usize, prefix: &str) -> Vec<OutputColumn> {
    let fields = inputs.get(input).into_iter().flat_map(|schema| schema.fields()).enumerate();
    let passed = fields.map(|(column, field)| OutputColumn::Passed {
        input,
        column,
        name: format!("{prefix}{}", field.name()),
    });
    passed.collect()
}

/// The columns `distance` and `rank`.
pub(super) fn scores() -> [OutputColumn; 2] {
    [("distance", DataType::Float64), ("rank", DataType::Int64)]
        .map(|(name, data_type)| OutputColumn::Made(Arc::new(Field::new(name, data_type, false))))
}

pub(super) fn stopped(error: impl std::error::Error + Send + Sync + 'static) -> DataFusionError {
    DataFusionError::External(Box::new(error))
}

/// The one vector that a plan gives.
async fn one_vector(name: &str, query: &Input, element: &DataType) -> Result<Option<Query>> {
    let batches = query.rows().await?;
    if batches.iter().map(|batch| batch.num_rows()).sum::<usize>() > 1 {
        return exec_err!("the query of {name} must be one vector, not several rows; knn_join takes many");
    }
    match batches.iter().find(|batch| batch.num_rows() == 1) {
        Some(batch) => Query::read(Arc::clone(batch.column(0)), element),
        None => Ok(None),
    }
}
