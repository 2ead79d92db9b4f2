//! `knn_join`: for each row of one table the nearest rows of another.

mod parts;

use std::sync::Arc;

use arrow::array::{Array, Float64Array, Int64Array, RecordBatch, UInt64Array};
use arrow::compute::{concat_batches, interleave, take};
use arrow::datatypes::{DataType, Schema};
use async_trait::async_trait;
use datafusion::common::runtime::SpawnedTask;
use datafusion::common::{Result, exec_err, plan_err};
use datafusion::logical_expr::LogicalPlan;
use futures::{StreamExt, TryStreamExt, stream};

use self::parts::{ChunkSearch, Found, Part, Sample, Search};
use super::groups::Groups;
use super::knn::{check_vectors, index_of, metric, passed, required_k, scores, stopped, vector_column};
use super::{Call, Input, Operation, Output, OutputColumn, RelationFunction, operation};
use crate::functions::Docs;
use crate::functions::column::common_element;
use crate::search::{Metric, Neighbours, Vectors};
use crate::types::type_name;

/// What the names of the right table's columns begin with.
const PREFIX: &str = "neighbour_";

/// Rows of the left table that are searched for together.
const CHUNK: usize = 4096;

/// The same where each looks at a part of the right table, so that enough of them look at the same.
const CHUNK_OF_CELLS: usize = 16_384;

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
                          (double) and rank (bigint, from 1). Exact unless 'recall' is given; the second table's rows are held \
                          in memory. Rows of equal distance come in the order of the table's rows. Left out are rows \
                          whose vector is NULL or holds a NULL or a NaN, and with 'cosine' zero vectors.",
            syntax: "knn_join(table, neighbours, k[, metric, exclude, within, vector, recall])",
            example: "select subspace, clip_id, neighbour_clip_id, distance from knn_join(embeddings, embeddings, 5, \
                      exclude => clip_id, within => subspace);",
            arguments: &[
                ("table", "A table, or a query in parentheses: rows that look for neighbours."),
                ("neighbours", "A table, or a query in parentheses: rows that may be neighbours."),
                ("k", "How many neighbours each row gets, at least 1; fewer if there are not as many."),
                (
                    "metric",
                    "'cosine' (the default), 'l2', 'l1' or 'inner_product'; the last gives the negative inner product.",
                ),
                ("exclude", "A column that both tables have; rows that agree in it are no neighbours."),
                ("within", "A column that both tables have; only rows that agree in it are neighbours."),
                (
                    "vector",
                    "The column with the vectors, of one name in both tables; may be left out where a table has one only.",
                ),
                (
                    "recall",
                    "The share of the neighbours that must be found, more than 0 and at most 1 (the default, exact). Below 1 \
                     the second table is put into cells, and each row looks into as few of them as find that share for \
                     256 rows of the first table, whose neighbours are also searched for exactly; 'explain analyze' \
                     shows what was measured. Distances stay exact. Where exact search takes no longer, as in small \
                     tables, it is exact. Both tables' rows are held in memory, and the second one's vectors twice. Not \
                     for 'l1'.",
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
        let exclude = shared_column(call, "exclude", &left, &right)?;
        let within = shared_column(call, "within", &left, &right)?;
        let recall = recall(call, metric)?;
        let join = JoinOperation { vector, right_vector, k, metric, exclude, within, recall };
        operation(Arc::new(join), vec![left, right])
    }
}

/// The share of the neighbours that must be found; `None` for all.
fn recall(call: &mut Call<'_>, metric: Metric) -> Result<Option<f64>> {
    let name = call.function();
    match call.number("recall")?.filter(|recall| *recall != 1.0) {
        None => Ok(None),
        Some(recall) if !(recall > 0.0 && recall < 1.0) => {
            plan_err!("'recall' of {name} must be more than 0 and at most 1, not {recall}")
        }
        Some(_) if metric == Metric::L1 => plan_err!(
            "{name}: metric 'l1' is only searched exactly; leave 'recall' out, or take 'l2', 'cosine' or 'inner_product'"
        ),
        some => Ok(some),
    }
}

/// A column that both tables have, of values that can be compared.
fn shared_column(
    call: &mut Call<'_>,
    argument: &str,
    left: &LogicalPlan,
    right: &LogicalPlan,
) -> Result<Option<String>> {
    let (Some(column), Some(_)) =
        (call.column(argument, left.schema())?, call.column(argument, right.schema())?)
    else {
        return Ok(None);
    };
    let data_type = |plan: &LogicalPlan| -> Result<DataType> {
        Ok(plan.schema().field_with_unqualified_name(&column)?.data_type().clone())
    };
    let (a, b) = (data_type(left)?, data_type(right)?);
    if a.is_nested() || b.is_nested() || a.is_numeric() != b.is_numeric() {
        return plan_err!(
            "'{argument}' of {}: column '{column}' is {} in one table and {} in the other",
            call.function(),
            type_name(&a),
            type_name(&b)
        );
    }
    Ok(Some(column))
}

#[derive(Debug)]
struct JoinOperation {
    vector: String,
    right_vector: String,
    k: usize,
    metric: Metric,
    exclude: Option<String>,
    within: Option<String>,
    recall: Option<f64>,
}

#[async_trait]
impl Operation for JoinOperation {
    fn name(&self) -> &'static str {
        "knn_join"
    }

    fn parameters(&self) -> String {
        let named = |what: &str, column: &Option<String>| {
            column.as_ref().map(|column| format!(", {what}={column}")).unwrap_or_default()
        };
        let (exclude, within) = (named("exclude", &self.exclude), named("within", &self.within));
        let (k, metric, vector, right) = (self.k, self.metric.name(), &self.vector, &self.right_vector);
        let recall = self.recall.map(|recall| format!(", approximate recall>={recall}")).unwrap_or_default();
        format!("k={k}, metric={metric}, vectors={vector} and {right}{exclude}{within}{recall}")
    }

    fn columns(&self, inputs: &[&Schema]) -> Result<Vec<OutputColumn>> {
        let (left, right) = (passed(inputs, 0, ""), passed(inputs, 1, PREFIX));
        Ok(left.into_iter().chain(right).chain(scores()).collect())
    }

    fn reads(&self, inputs: &[&Schema]) -> Result<Vec<Vec<usize>>> {
        let [left, right] = inputs else { return plan_err!("knn_join reads two tables") };
        let read = |schema: &Schema, vector: &str| {
            let columns =
                std::iter::once(vector).chain(self.exclude.as_deref()).chain(self.within.as_deref());
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

        let groups = |column: &Option<String>| {
            column.as_ref().map(|column| Groups::new(&right_schema, column)).transpose()
        };
        let (mut excluded, mut within) = (groups(&self.exclude)?, groups(&self.within)?);
        let mut neighbours = right.rows().await?;
        if let Some(within) = &mut within {
            neighbours = within.apart(&right_schema, &neighbours)?;
            let bytes = neighbours.iter().map(RecordBatch::get_array_memory_size).sum();
            right.reservation().try_grow(bytes)?;
        }
        // Each group is searched by itself; without groups, all is one.
        let parts =
            if within.is_some() { neighbours.chunks(1) } else { neighbours.chunks(neighbours.len().max(1)) };
        let parts = parts.enumerate().map(|(first, batches)| {
            let columns = batches.iter().map(|batch| Arc::clone(batch.column(right_vector)));
            let items = Vectors::new("knn_join", self.metric, columns, &element)?;
            right.reservation().try_grow(items.memory())?;
            let item_groups = excluded.as_mut().map(|groups| groups.each(batches)).transpose()?;
            Ok(Part { first, items, item_groups, index: None })
        });
        let mut parts = parts.collect::<Result<Vec<_>>>()?;
        let search = Search { k: self.k, metric: self.metric, element, threads: left.threads() };
        let mut chunk = CHUNK;
        let mut stream = match self.recall {
            None => left.in_order()?.boxed(),
            Some(recall) => {
                let rows = left.rows().await?;
                let samples = Sample::of_parts(&rows, vector, &mut excluded, &mut within, parts.len())?;
                parts = in_cells(parts, samples, search.clone(), recall).await?;
                for index in parts.iter().filter_map(|part| part.index.as_ref()) {
                    right.reservation().try_grow(index.memory())?;
                    let measured = index.measured();
                    output.count("cells", measured.cells);
                    output.count("probes", measured.probes);
                    output.share("measured_recall", measured.found, measured.nearest);
                    chunk = CHUNK_OF_CELLS;
                }
                stream::iter(rows.into_iter().map(Ok)).boxed()
            }
        };
        let found = Arc::new(Found { neighbours, parts });

        let mut waiting = Vec::new();
        loop {
            let batch = stream.try_next().await?;
            let ended = batch.is_none();
            waiting.extend(batch);
            let rows: usize = waiting.iter().map(RecordBatch::num_rows).sum();
            if rows == 0 && ended {
                break;
            }
            if rows < chunk && !ended {
                continue;
            }
            let all = concat_batches(&left_schema, &std::mem::take(&mut waiting))?;
            for start in (0..all.num_rows()).step_by(chunk) {
                let queries = all.slice(start, chunk.min(all.num_rows() - start));
                let of = |groups: &mut Option<Groups>| {
                    groups.as_mut().map(|groups| groups.of(&queries, false)).transpose()
                };
                let search = ChunkSearch {
                    search: search.clone(),
                    column: Arc::clone(queries.column(vector)),
                    groups: of(&mut excluded)?,
                    parts: of(&mut within)?,
                    found: Arc::clone(&found),
                };
                let nearest =
                    SpawnedTask::spawn_blocking(move || search.run()).join().await.map_err(stopped)??;
                if !send(&output, &queries, &found.neighbours, right_schema.fields().len(), &nearest).await? {
                    return Ok(());
                }
            }
            if ended {
                break;
            }
        }
        Ok(())
    }
}

/// The parts, with an index where a search takes less time with it.
async fn in_cells(
    mut parts: Vec<Part>,
    samples: Vec<Option<Sample>>,
    search: Search,
    recall: f64,
) -> Result<Vec<Part>> {
    let indexing = SpawnedTask::spawn_blocking(move || {
        for (part, sample) in parts.iter_mut().zip(samples) {
            if let Some(sample) = sample {
                part.index = sample.index(part, &search, recall)?;
            }
        }
        Ok(parts)
    });
    indexing.join().await.map_err(stopped)?
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
