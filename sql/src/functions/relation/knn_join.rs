//! `knn_join`: for each row of one table the nearest rows of another.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, Float64Array, Int64Array, RecordBatch, UInt64Array};
use arrow::compute::{cast, concat_batches, interleave, take};
use arrow::datatypes::{DataType, Schema};
use arrow::row::{OwnedRow, RowConverter, SortField};
use async_trait::async_trait;
use datafusion::common::runtime::SpawnedTask;
use datafusion::common::{Result, exec_err, plan_err};
use datafusion::logical_expr::LogicalPlan;
use futures::TryStreamExt;

use super::knn::{check_vectors, index_of, metric, passed, required_k, scores, stopped, vector_column};
use super::{Call, Input, Operation, Output, OutputColumn, RelationFunction, operation};
use crate::functions::Docs;
use crate::functions::column::common_element;
use crate::search::{Join, Metric, Neighbours, Vectors};
use crate::types::type_name;

/// What the names of the right table's columns begin with.
const PREFIX: &str = "neighbour_";

/// Rows of the left table that are searched for together.
const CHUNK: usize = 4096;

/// Rows of a batch of the result, about.
const BATCH: usize = 8192;

/// The function.
#[derive(Debug)]
pub(super) struct KnnJoin;

impl RelationFunction for KnnJoin {
    fn name(&self) -> &'static str {
        "knn_join"
    }

    fn tables(&self) -> usize {
        2
    }

    fn docs(&self) -> Docs {
        Docs {
            section: "Search Functions",
            description: "For each row of one table the k rows of another whose vectors are nearest, nearest first: the \
                          columns of the first, those of the second with 'neighbour_' before their names, distance \
                          (double) and rank (bigint, from 1). Exact; the second table's rows are held in memory. Rows of \
                          equal distance come in the order of the table's rows. Left out are rows whose vector is NULL \
                          or holds a NULL or a NaN, and with 'cosine' zero vectors.",
            syntax: "knn_join(table, neighbours, k[, metric, exclude, vector])",
            example: "select clip_id, neighbour_clip_id, distance from knn_join(embeddings, embeddings, 5, exclude => clip_id);",
            arguments: &[
                ("table", "A table, or a query in parentheses: rows that look for neighbours."),
                ("neighbours", "A table, or a query in parentheses: rows that may be neighbours."),
                ("k", "How many neighbours each row gets, at least 1; fewer if there are not as many."),
                (
                    "metric",
                    "'cosine' (the default), 'l2', 'l1' or 'inner_product'; the last gives the negative inner product.",
                ),
                ("exclude", "A column that both tables have; rows that agree in it are no neighbours."),
                (
                    "vector",
                    "The column with the vectors, of one name in both tables; may be left out where a table has one only.",
                ),
            ],
        }
    }

    fn plan(&self, call: &mut Call<'_>) -> Result<LogicalPlan> {
        let name = call.function();
        let (left, right) = (call.table(0)?.clone(), call.table(1)?.clone());
        let (vector, left_type) = vector_column(call, "vector", left.schema())?;
        let (right_vector, right_type) = vector_column(call, "vector", right.schema())?;
        check_vectors(name, &left_type, &right_type)?;
        let k = required_k(call)?;
        let metric = metric(call)?;
        let exclude = call.column("exclude", left.schema())?;
        if let Some(column) = call.column("exclude", right.schema())? {
            let data_type = |plan: &LogicalPlan| -> Result<DataType> {
                Ok(plan.schema().field_with_unqualified_name(&column)?.data_type().clone())
            };
            let (a, b) = (data_type(&left)?, data_type(&right)?);
            if a.is_nested() || b.is_nested() || a.is_numeric() != b.is_numeric() {
                return plan_err!(
                    "'exclude' of {name}: column '{column}' is {} in one table and {} in the other",
                    type_name(&a),
                    type_name(&b)
                );
            }
        }
        operation(Arc::new(JoinOperation { vector, right_vector, k, metric, exclude }), vec![left, right])
    }
}

#[derive(Debug)]
struct JoinOperation {
    vector: String,
    right_vector: String,
    k: usize,
    metric: Metric,
    exclude: Option<String>,
}

#[async_trait]
impl Operation for JoinOperation {
    fn name(&self) -> &'static str {
        "knn_join"
    }

    fn parameters(&self) -> String {
        let exclude = self.exclude.as_ref().map(|column| format!(", exclude={column}")).unwrap_or_default();
        let (k, metric, vector, right) = (self.k, self.metric.name(), &self.vector, &self.right_vector);
        format!("k={k}, metric={metric}, vectors={vector} and {right}{exclude}")
    }

    fn columns(&self, inputs: &[&Schema]) -> Result<Vec<OutputColumn>> {
        let (left, right) = (passed(inputs, 0, ""), passed(inputs, 1, PREFIX));
        Ok(left.into_iter().chain(right).chain(scores()).collect())
    }

    fn reads(&self, inputs: &[&Schema]) -> Result<Vec<Vec<usize>>> {
        let [left, right] = inputs else { return plan_err!("knn_join reads two tables") };
        let read = |schema: &Schema, vector: &str| {
            let columns = std::iter::once(vector).chain(self.exclude.as_deref());
            columns.map(|column| index_of(schema, column, "knn_join")).collect::<Result<Vec<_>>>()
        };
        Ok(vec![read(left, &self.vector)?, read(right, &self.right_vector)?])
    }

    async fn run(&self, inputs: Vec<Input>, output: Output) -> Result<()> {
        let [left, right] = inputs.as_slice() else { return exec_err!("knn_join reads two tables") };
        let (left_schema, right_schema) = (left.schema(), right.schema());
        let vector = index_of(&left_schema, &self.vector, "knn_join")?;
        let right_vector = index_of(&right_schema, &self.right_vector, "knn_join")?;
        let types = [
            left_schema.field(vector).data_type().clone(),
            right_schema.field(right_vector).data_type().clone(),
        ];
        let element = common_element("knn_join", &types)?;

        let neighbours = right.rows().await?;
        let columns = neighbours.iter().map(|batch| Arc::clone(batch.column(right_vector)));
        let items = Vectors::new("knn_join", self.metric, columns, &element)?;
        right.reservation().try_grow(items.memory())?;
        let mut groups = match &self.exclude {
            Some(column) => Some(Groups::new(&right_schema, column)?),
            None => None,
        };
        let item_groups = match &mut groups {
            Some(groups) => {
                Some(neighbours.iter().map(|batch| groups.of(batch, true)).collect::<Result<Vec<_>>>()?)
            }
            None => None,
        };
        let found = Arc::new(Found { neighbours, items, item_groups });

        for mut stream in left.streams()? {
            let mut waiting = Vec::new();
            loop {
                let batch = stream.try_next().await?;
                let ended = batch.is_none();
                waiting.extend(batch);
                let rows: usize = waiting.iter().map(RecordBatch::num_rows).sum();
                if rows == 0 && ended {
                    break;
                }
                if rows < CHUNK && !ended {
                    continue;
                }
                let all = concat_batches(&left_schema, &std::mem::take(&mut waiting))?;
                for start in (0..all.num_rows()).step_by(CHUNK) {
                    let queries = all.slice(start, CHUNK.min(all.num_rows() - start));
                    let query_groups =
                        groups.as_mut().map(|groups| groups.of(&queries, false)).transpose()?;
                    let search = ChunkSearch {
                        k: self.k,
                        metric: self.metric,
                        element: element.clone(),
                        threads: left.threads(),
                        column: Arc::clone(queries.column(vector)),
                        groups: query_groups,
                        found: Arc::clone(&found),
                    };
                    let nearest =
                        SpawnedTask::spawn_blocking(move || search.run()).join().await.map_err(stopped)??;
                    if !send(&output, &queries, &found.neighbours, right_schema.fields().len(), &nearest)
                        .await?
                    {
                        return Ok(());
                    }
                }
                if ended {
                    break;
                }
            }
        }
        Ok(())
    }
}

/// The right table in memory.
struct Found {
    neighbours: Vec<RecordBatch>,
    items: Vectors,
    item_groups: Option<Vec<Vec<Option<u32>>>>,
}

/// The search for some rows of the left table.
struct ChunkSearch {
    k: usize,
    metric: Metric,
    element: DataType,
    threads: usize,
    column: ArrayRef,
    groups: Option<Vec<Option<u32>>>,
    found: Arc<Found>,
}

impl ChunkSearch {
    fn run(self) -> Result<Vec<Neighbours>> {
        let count = self.column.len();
        let queries = Vectors::new("knn_join", self.metric, [self.column], &self.element)?;
        let join = Join {
            function: "knn_join",
            metric: self.metric,
            k: self.k,
            items: &self.found.items,
            item_groups: self.found.item_groups.as_deref(),
            threads: self.threads,
        };
        join.run(&queries, count, self.groups.as_deref())
    }
}

/// Sends the neighbours of some rows. False when nobody reads any more.
async fn send(
    output: &Output,
    queries: &RecordBatch,
    neighbours: &[RecordBatch],
    right_columns: usize,
    nearest: &[Neighbours],
) -> Result<bool> {
    let left_columns = queries.num_columns();
    let per_batch = (BATCH / nearest.iter().map(Vec::len).max().unwrap_or(1).max(1)).max(1);
    for (index, part) in nearest.chunks(per_batch).enumerate() {
        let first = index * per_batch;
        let count = part.iter().map(Vec::len).sum();
        if count == 0 {
            continue;
        }
        let rows: UInt64Array = (part.iter().enumerate())
            .flat_map(|(row, found)| std::iter::repeat_n(Some((first + row) as u64), found.len()))
            .collect();
        let places: Vec<(usize, usize)> = part.iter().flatten().map(|(place, _)| *place).collect();
        let sent = output.send(count, |column| {
            if column < left_columns {
                return Ok(take(queries.column(column), &rows, None)?);
            }
            match column - left_columns {
                right if right < right_columns => {
                    let arrays: Vec<&dyn Array> =
                        neighbours.iter().map(|batch| batch.column(right).as_ref()).collect();
                    Ok(interleave(&arrays, &places)?)
                }
                score if score == right_columns => Ok(Arc::new(
                    part.iter().flatten().map(|(_, distance)| *distance).collect::<Float64Array>(),
                )),
                _ => {
                    let ranks = part.iter().flat_map(|found| 1..=found.len() as i64);
                    Ok(Arc::new(Int64Array::from_iter_values(ranks)))
                }
            }
        });
        if !sent.await? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Numbers for the values of a column in two tables; equal values have equal numbers, NULL has none.
struct Groups {
    column: String,
    data_type: DataType,
    converter: RowConverter,
    numbers: HashMap<OwnedRow, u32>,
}

impl Groups {
    fn new(schema: &Schema, column: &str) -> Result<Self> {
        let data_type = schema.field_with_name(column)?.data_type().clone();
        let converter = RowConverter::new(vec![SortField::new(data_type.clone())])?;
        Ok(Self { column: column.to_owned(), data_type, converter, numbers: HashMap::new() })
    }

    /// The groups of a batch's rows; values that are new have a group only if they are to be `learnt`.
    fn of(&mut self, batch: &RecordBatch, learnt: bool) -> Result<Vec<Option<u32>>> {
        let index = index_of(&batch.schema(), &self.column, "knn_join")?;
        let values = cast(batch.column(index), &self.data_type)?;
        let rows = self.converter.convert_columns(&[Arc::clone(&values)])?;
        let mut groups = Vec::with_capacity(values.len());
        for (row, value) in rows.iter().enumerate() {
            if values.is_null(row) {
                groups.push(None);
                continue;
            }
            let next = self.numbers.len() as u32;
            groups.push(if learnt {
                Some(*self.numbers.entry(value.owned()).or_insert(next))
            } else {
                self.numbers.get(&value.owned()).copied()
            });
        }
        Ok(groups)
    }
}
