//! `pca` and `embedding_map`: vectors in fewer dimensions, beside the rows that they belong to.

use std::sync::Arc;

use arrow::array::{ArrayRef, FixedSizeListArray, Float32Array, Float64Array, RecordBatch, new_null_array};
use arrow::buffer::NullBuffer;
use arrow::datatypes::{DataType, Field, FieldRef, Float32Type, Schema};
use async_trait::async_trait;
use datafusion::common::{DataFusionError, Result, exec_err, plan_err};
use datafusion::logical_expr::LogicalPlan;
use loev_ops::reduction::{MapOptions, ReductionError, map, pca};

use super::knn::{index_of, vector_column};
use super::{Call, Input, Operation, Output, OutputColumn, RelationFunction, operation};
use crate::functions::Docs;
use crate::functions::column::{Argument, Rows};
use crate::suggest::nearest;

const SECTION: &str = "Dimension Reduction Functions";

/// `pca`.
#[derive(Debug)]
pub(super) struct Principal;

impl RelationFunction for Principal {
    fn name(&self) -> &'static str {
        "pca"
    }

    fn docs(&self) -> Docs {
        Docs {
            section: SECTION,
            description: "Principal components: the table's columns with pc (float[k]), how far the row's vector lies along \
                          each of the k directions in which the vectors vary most, and explained (float[k], the same in \
                          all rows), the share of each direction in the variance. Vectors are centred, not scaled; the \
                          largest loading of each direction is positive, as in scikit-learn. Rows whose vector is NULL \
                          or holds a NULL, a NaN or an infinity stay, with NULL, and do not count. All rows are held in memory.",
            syntax: "pca(table, k[, vector])",
            example: "select clip_id, pc[1] as x, pc[2] as y from pca(embeddings, 2);",
            arguments: &[
                ("table", "A table, or a query in parentheses."),
                ("k", "How many components: at most as many as there are rows, and elements of a vector."),
                ("vector", "The column with the vectors; may be left out if the table has one only."),
            ],
        }
    }

    fn plan(&self, call: &mut Call<'_>) -> Result<LogicalPlan> {
        let table = call.table(0)?.clone();
        let (vector, vector_type) = vector_column(call, "vector", table.schema())?;
        let Some(k) = call.count("k")? else {
            return plan_err!("pca needs 'k', the number of components");
        };
        let most = match vector_type {
            DataType::FixedSizeList(_, length) => usize::try_from(length).unwrap_or(0),
            _ => i32::MAX as usize,
        };
        if k > most {
            return plan_err!(
                "pca: 'k' is {k}, and vectors of {most} elements have at most {most} components"
            );
        }
        operation(Arc::new(Reduction { vector, method: Method::Principal(k) }), vec![table])
    }
}

/// `embedding_map`.
#[derive(Debug)]
pub(super) struct Map;

impl RelationFunction for Map {
    fn name(&self) -> &'static str {
        "embedding_map"
    }

    fn docs(&self) -> Docs {
        Docs {
            section: SECTION,
            description: "A map of vectors in the plane: the table's columns with x and y (double). By default t-SNE (van \
                          der Maaten and Hinton, 2008) from the first two principal components: rows near each other in the \
                          map have near vectors, while distances between groups mean little. Equal rows in equal order and an \
                          equal seed give an equal map on any number of threads. Distances are Euclidean: normalise the \
                          vectors where their angles matter. Rows whose vector is NULL or holds a NULL, a NaN or an infinity \
                          stay, with NULL, and do not count. At least 4 rows, and at most 100,000; 10,000 take about a \
                          minute.",
            syntax: "embedding_map(table[, vector, method, seed, perplexity])",
            example: "select clip_id, x, y from embedding_map((select * from embeddings order by clip_id), seed => 1);",
            arguments: &[
                ("table", "A table, or a query in parentheses."),
                ("vector", "The column with the vectors; may be left out if the table has one only."),
                ("method", "'tsne' (the default), or 'pca' for the first two principal components."),
                ("seed", "A whole number of at least 1: another one gives another map. 1 if left out."),
                ("perplexity", "About how many neighbours a row has in t-SNE, from 1 on; 30 if left out."),
            ],
        }
    }

    fn plan(&self, call: &mut Call<'_>) -> Result<LogicalPlan> {
        let table = call.table(0)?.clone();
        let (vector, _) = vector_column(call, "vector", table.schema())?;
        let seed = call.count("seed")?.unwrap_or(1) as u64;
        let perplexity = call.number("perplexity")?.unwrap_or(MapOptions::default().perplexity);
        if perplexity < 1.0 {
            return plan_err!("'perplexity' of embedding_map must be at least 1, not {perplexity}");
        }
        let method = match call.text("method")?.map(|method| method.to_lowercase()).as_deref() {
            None | Some("tsne") => Method::Tsne { seed, perplexity },
            Some("pca") => Method::Plane,
            Some(other) => {
                let near = nearest(other, ["tsne", "pca"]);
                let hint = near.map(|near| format!("; did you mean '{near}'?")).unwrap_or_default();
                return plan_err!("embedding_map knows no method '{other}'{hint} Methods are: tsne, pca");
            }
        };
        operation(Arc::new(Reduction { vector, method }), vec![table])
    }
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Method {
    /// `pca` with so many components.
    Principal(usize),
    /// The map by the first two of them.
    Plane,
    Tsne {
        seed: u64,
        perplexity: f64,
    },
}

impl Method {
    fn function(self) -> &'static str {
        match self {
            Self::Principal(_) => "pca",
            Self::Plane | Self::Tsne { .. } => "embedding_map",
        }
    }

    /// The columns that it makes.
    fn made(self) -> [FieldRef; 2] {
        let field = |name: &str, data_type| Arc::new(Field::new(name, data_type, true));
        match self {
            Self::Principal(k) => {
                let item = Arc::new(Field::new_list_field(DataType::Float32, true));
                let list = DataType::FixedSizeList(item, i32::try_from(k).unwrap_or(i32::MAX));
                [field("pc", list.clone()), field("explained", list)]
            }
            Self::Plane | Self::Tsne { .. } => [field("x", DataType::Float64), field("y", DataType::Float64)],
        }
    }
}

#[derive(Debug)]
struct Reduction {
    vector: String,
    method: Method,
}

#[async_trait]
impl Operation for Reduction {
    fn name(&self) -> &'static str {
        self.method.function()
    }

    fn parameters(&self) -> String {
        let method = match self.method {
            Method::Principal(k) => format!("k={k}"),
            Method::Plane => "method=pca".to_owned(),
            Method::Tsne { seed, perplexity } => format!("method=tsne, seed={seed}, perplexity={perplexity}"),
        };
        format!("{method}, vector={}", self.vector)
    }

    fn columns(&self, inputs: &[&Schema]) -> Result<Vec<OutputColumn>> {
        Ok(all_passed(inputs).chain(self.method.made().map(OutputColumn::Made)).collect())
    }

    fn reads(&self, inputs: &[&Schema]) -> Result<Vec<Vec<usize>>> {
        let [table] = inputs else { return plan_err!("{} reads a table", self.name()) };
        Ok(vec![vec![index_of(table, &self.vector, self.name())?]])
    }

    async fn run(&self, inputs: Vec<Input>, output: Output) -> Result<()> {
        let [table] = inputs.as_slice() else { return exec_err!("{} reads a table", self.name()) };
        let column = index_of(&table.schema(), &self.vector, self.name())?;
        let batches = table.rows().await?;
        let vectors = Vectors::gather(self.name(), &batches, column)?;
        // The matrix, its centred copy and the scores; neighbours and affinities of a map.
        let rows = vectors.values.len().checked_div(vectors.length).unwrap_or(0);
        let map = if matches!(self.method, Method::Tsne { .. }) { rows * 90 * 64 } else { 0 };
        table.reservation().try_grow(3 * size_of_val(vectors.values.as_slice()) + map)?;
        if vectors.values.is_empty() {
            let made = self.method.made();
            return send(&batches, &output, |_, rows, index| match made.get(index) {
                Some(field) => Ok(new_null_array(field.data_type(), rows)),
                None => exec_err!("{} has no column {index}", self.name()),
            })
            .await;
        }
        let (method, threads) = (self.method, table.threads());
        let values = vectors.values;
        let length = vectors.length;
        let reduced = tokio::task::spawn_blocking(move || reduce(&values, length, method, threads)).await;
        let reduced = reduced
            .map_err(|error| DataFusionError::External(Box::new(error)))?
            .or_else(|error| exec_err!("{}: {error}", method.function()))?;
        let made = self.method.made();
        send(&batches, &output, |first, rows, index| {
            let places = vectors.places.get(first..first + rows).unwrap_or_default();
            column_of(&reduced, places, index, made.get(index))
        })
        .await
    }
}

/// The columns of the first input, as they are.
pub(super) fn all_passed<'a>(inputs: &'a [&Schema]) -> impl Iterator<Item = OutputColumn> + 'a {
    inputs
        .iter()
        .take(1)
        .flat_map(|table| table.fields())
        .enumerate()
        .map(|(column, field)| OutputColumn::Passed { input: 0, column, name: field.name().clone() })
}

/// Sends the batches with columns of ours: `made` makes one from the number of the first row, how many there are, and
/// the number of the column.
async fn send(
    batches: &[RecordBatch],
    output: &Output,
    made: impl Fn(usize, usize, usize) -> Result<ArrayRef>,
) -> Result<()> {
    let mut first = 0;
    for batch in batches {
        let rows = batch.num_rows();
        let read = output
            .send(rows, |index| match index.checked_sub(batch.num_columns()) {
                None => Ok(Arc::clone(batch.column(index))),
                Some(index) => made(first, rows, index),
            })
            .await?;
        if !read {
            return Ok(());
        }
        first += rows;
    }
    Ok(())
}

/// The usable vectors of a table, one after the other.
struct Vectors {
    values: Vec<f32>,
    length: usize,
    /// For every row its vector's number, if it has one.
    places: Vec<Option<usize>>,
}

impl Vectors {
    fn gather(name: &str, batches: &[RecordBatch], column: usize) -> Result<Self> {
        let mut vectors = Self { values: Vec::new(), length: 0, places: Vec::new() };
        let mut count = 0;
        for batch in batches {
            let argument = Argument::vectors(Arc::clone(batch.column(column)), &DataType::Float32)?;
            let rows = Rows::<Float32Type>::new(&argument)?;
            for row in 0..batch.num_rows() {
                let usable = |vector: &&[f32]| !vector.is_empty() && vector.iter().all(|x| x.is_finite());
                let Some(vector) = rows.get(row).filter(usable) else {
                    vectors.places.push(None);
                    continue;
                };
                if count == 0 {
                    vectors.length = vector.len();
                } else if vector.len() != vectors.length {
                    return exec_err!(
                        "{name} needs vectors of equal length, not of {} and {} elements",
                        vectors.length,
                        vector.len()
                    );
                }
                vectors.values.extend_from_slice(vector);
                vectors.places.push(Some(count));
                count += 1;
            }
        }
        Ok(vectors)
    }
}

/// What a method gives for all vectors.
enum Reduced {
    Principal { scores: Vec<f32>, shares: Vec<f32> },
    Points(Vec<[f64; 2]>),
}

fn reduce(values: &[f32], length: usize, method: Method, threads: usize) -> Result<Reduced, ReductionError> {
    Ok(match method {
        Method::Principal(k) => {
            let pca = pca(values, length, k, threads)?;
            let shares = pca.shares.iter().map(|share| *share as f32).collect();
            Reduced::Principal { scores: pca.scores(values, threads), shares }
        }
        Method::Plane => {
            let scores = pca(values, length, 2.min(length), threads)?.scores(values, threads);
            let point = |row: &[f32]| [0, 1].map(|i| row.get(i).map_or(0.0, |x| f64::from(*x)));
            Reduced::Points(scores.chunks_exact(2.min(length)).map(point).collect())
        }
        Method::Tsne { seed, perplexity } => {
            Reduced::Points(map(values, length, &MapOptions { seed, perplexity, threads })?)
        }
    })
}

fn column_of(
    reduced: &Reduced,
    places: &[Option<usize>],
    index: usize,
    field: Option<&FieldRef>,
) -> Result<ArrayRef> {
    match reduced {
        Reduced::Points(points) => {
            let axis = |place: &Option<usize>| points.get((*place)?)?.get(index).copied();
            Ok(Arc::new(places.iter().map(axis).collect::<Float64Array>()))
        }
        Reduced::Principal { scores, shares } => {
            let Some(DataType::FixedSizeList(item, k)) = field.map(|field| field.data_type()) else {
                return exec_err!("pca has no column {index}");
            };
            let k_usize = shares.len();
            let (values, valid): (Vec<f32>, Option<NullBuffer>) = if index == 0 {
                let none = vec![0.0; k_usize];
                let score = |place: &Option<usize>| {
                    place
                        .and_then(|place| scores.get(place * k_usize..(place + 1) * k_usize))
                        .unwrap_or(&none)
                };
                let valid = places.iter().map(Option::is_some).collect::<Vec<_>>();
                (places.iter().flat_map(score).copied().collect(), Some(NullBuffer::from(valid)))
            } else {
                (shares.iter().copied().cycle().take(k_usize * places.len()).collect(), None)
            };
            let values = Arc::new(Float32Array::from(values));
            Ok(Arc::new(FixedSizeListArray::try_new(Arc::clone(item), *k, values, valid)?))
        }
    }
}
