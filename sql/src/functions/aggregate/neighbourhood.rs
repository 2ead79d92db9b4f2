//! Of vectors with labels: `silhouette`, `neighbour_purity`, `recall_at_k`, all by cosine, as retrieval has it.
//!
//! The silhouette needs no distances between pairs: the mean cosine distance from a vector to a class is one minus its
//! product with the mean direction of the class. The others search for neighbours, on all cores, with
//! [`loev_ops::neighbours`].

use std::mem::size_of_val;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::{DataType, Float32Type, UInt32Type};
use datafusion::common::{Result, ScalarValue, exec_datafusion_err, exec_err};
use datafusion::logical_expr::Accumulator;
use loev_ops::matrix::{View, product};
use loev_ops::neighbours::{Vectors, nearest};
use rayon::iter::{IntoParallelIterator, ParallelIterator};

use super::state::{
    Column, Kept, Labels, argument, count, list_type, numbers, read, read_count, read_texts, rows,
};
use super::{Call, Statistic, arity, label, number};
use crate::functions::Docs;
use crate::functions::column::{common_element, with_element};

/// Rows that one task works on.
const BLOCK: usize = 256;
/// Distances that are nothing but rounding.
const NO_DISTANCE: f64 = 1e-12;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Statistics {
    Silhouette,
    Purity,
    Recall,
}

impl Statistics {
    pub(super) const ALL: [Self; 3] = [Self::Silhouette, Self::Purity, Self::Recall];
}

impl Statistic for Statistics {
    fn name(self) -> &'static str {
        match self {
            Self::Silhouette => "silhouette",
            Self::Purity => "neighbour_purity",
            Self::Recall => "recall_at_k",
        }
    }

    fn aliases(self) -> &'static [&'static str] {
        match self {
            Self::Silhouette => &["silhouette_score"],
            Self::Purity => &["neighbor_purity"],
            Self::Recall => &[],
        }
    }

    fn docs(self) -> Docs {
        const ARGUMENTS: &[(&str, &str)] = &[
            ("v", "A vector: a list of finite numbers. Zero vectors have no direction and are left out."),
            ("label", "Text, a number, a date or a truth value."),
            ("k", "How many neighbours, 1 or more; if there are fewer other rows, all of them."),
        ];
        let (description, syntax, example, arguments) = match self {
            Self::Silhouette => (
                "The mean silhouette of the rows (Rousseeuw 1987) by cosine distance, from -1 to 1: how much nearer a vector \
                 is to the others of its label than to those of the nearest other label (scikit-learn's silhouette_score with \
                 metric='cosine'). NULL with one label, or if every row has its own.",
                "silhouette(v, label)",
                "select silhouette(v, c) from (values ([1.0, 0.0], 'a'), ([1.0, 0.0], 'a'), ([0.0, 1.0], 'b'), ([0.0, 1.0], 'b')) \
                 as t(v, c); -- 1",
                &ARGUMENTS[..2],
            ),
            Self::Purity => (
                "The share of the k nearest other rows by cosine that have the row's own label, as a mean over rows. NULL with \
                 fewer than two rows.",
                "neighbour_purity(v, label, k)",
                "select neighbour_purity(v, c, 1) from (values ([1.0, 0.0], 'a'), ([0.9, 0.1], 'a'), ([0.0, 1.0], 'b')) \
                 as t(v, c); -- 0.6667",
                ARGUMENTS,
            ),
            Self::Recall => (
                "The share of rows that find their own label among the k nearest other rows by cosine, as metric learning \
                 scores retrieval (Recall@K). Rows whose label no other row has do not count; NULL if there are none else.",
                "recall_at_k(v, label, k)",
                "select recall_at_k(v, c, 1) from (values ([1.0, 0.0], 'a'), ([0.9, 0.1], 'a'), ([0.0, 1.0], 'b')) \
                 as t(v, c); -- 1",
                ARGUMENTS,
            ),
        };
        Docs { section: "Statistics", description, syntax, example, arguments }
    }

    fn coerce(self, arguments: &[DataType]) -> Result<Vec<DataType>> {
        let name = self.name();
        let most = if self == Self::Silhouette { 2 } else { 3 };
        arity(name, arguments, most, most)?;
        let coerced = arguments.iter().enumerate().map(|(index, given)| match index {
            0 => Ok(with_element(given, &common_element(name, &arguments[..1])?)),
            1 => label(name, 2, given),
            _ => number(name, 3, given, DataType::Int64),
        });
        coerced.collect()
    }

    fn result(self, _: &[DataType]) -> DataType {
        DataType::Float64
    }

    fn state(self) -> Vec<DataType> {
        let lists = [DataType::Float32, DataType::Utf8, DataType::UInt32].map(list_type);
        std::iter::once(DataType::Int64).chain(lists).collect()
    }

    fn accumulator(self, call: &Call<'_>) -> Result<Box<dyn Accumulator>> {
        let k = call.count(2, "k", 1, i64::MAX)?.unwrap_or(1);
        Ok(Box::new(Labelled { statistic: self, k, vectors: Kept::default(), labels: Labels::default() }))
    }
}

/// Vectors with their labels.
#[derive(Debug)]
struct Labelled {
    statistic: Statistics,
    k: usize,
    vectors: Kept,
    labels: Labels,
}

impl Labelled {
    fn figure(&self) -> Result<Option<f64>> {
        let labels = self.labels.ranks();
        let order = self.vectors.order(|row| labels[row]);
        let labels: Vec<usize> = order.iter().map(|row| labels[*row] as usize).collect();
        let mut sizes = vec![0usize; self.labels.len()];
        labels.iter().for_each(|label| sizes[*label] += 1);
        if self.statistic == Statistics::Silhouette {
            return Ok(self.silhouette(&order, &labels, &sizes));
        }
        let k = self.k.min(order.len().saturating_sub(1));
        if k == 0 {
            return Ok(None);
        }
        let mut values = Vec::with_capacity(order.len() * self.vectors.dim.unwrap_or(0));
        order.iter().for_each(|row| values.extend_from_slice(self.vectors.row(*row)));
        let failed = |error| exec_datafusion_err!("{}: {error}", self.statistic.name());
        let items = Vectors::normalised(values, self.vectors.dim.unwrap_or(0)).map_err(failed)?;
        let blocks = (0..order.len().div_ceil(BLOCK)).into_par_iter().map(|block| {
            let queries = block * BLOCK..((block + 1) * BLOCK).min(order.len());
            let own: Vec<Option<usize>> = queries.clone().map(Some).collect();
            let found = nearest(&items.part(queries.clone()), &items, &own, k)?;
            let alike = queries
                .zip(found.chunks(k))
                .map(|(query, near)| near.iter().filter(|near| labels[near.item] == labels[query]).count());
            Ok(alike.collect::<Vec<usize>>())
        });
        let blocks: std::result::Result<Vec<Vec<usize>>, loev_ops::neighbours::NeighboursError> =
            blocks.collect();
        let alike = blocks.map_err(failed)?.concat();
        if self.statistic == Statistics::Purity {
            return Ok(Some(alike.iter().sum::<usize>() as f64 / (k * alike.len()) as f64));
        }
        let (mut found, mut asked) = (0usize, 0usize);
        for (alike, label) in alike.iter().zip(&labels) {
            if sizes[*label] > 1 {
                asked += 1;
                found += usize::from(*alike > 0);
            }
        }
        Ok((asked > 0).then(|| found as f64 / asked as f64))
    }

    fn silhouette(&self, order: &[usize], labels: &[usize], sizes: &[usize]) -> Option<f64> {
        let dim = self.vectors.dim?;
        let sizes: Vec<f64> = sizes.iter().map(|size| *size as f64).collect();
        let (n, classes) = (order.len(), sizes.len());
        if classes < 2 || classes >= n {
            return None;
        }
        let direction = |row: usize, out: &mut Vec<f64>| {
            let vector = self.vectors.row(row);
            let norm = vector.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt();
            out.extend(vector.iter().map(|x| f64::from(*x) / norm));
        };
        let mut sums = vec![0.0; classes * dim];
        let mut unit = Vec::with_capacity(dim);
        for (row, label) in order.iter().zip(labels) {
            unit.clear();
            direction(*row, &mut unit);
            let sum = &mut sums[label * dim..(label + 1) * dim];
            sum.iter_mut().zip(&unit).for_each(|(sum, x)| *sum += x);
        }
        let blocks = (0..n.div_ceil(BLOCK)).into_par_iter().map(|block| {
            let rows = block * BLOCK..((block + 1) * BLOCK).min(n);
            let mut units = Vec::with_capacity(rows.len() * dim);
            order[rows.clone()].iter().for_each(|row| direction(*row, &mut units));
            let mut products = vec![0.0; rows.len() * classes];
            let (left, right) = (View::rows(&units, dim), View::transposed(&sums, dim));
            product([rows.len(), classes, dim], &mut products, classes, false, left, right);
            let values = products.chunks_exact(classes).zip(&labels[rows]);
            values.map(|(products, label)| width(products, *label, &sizes)).sum::<f64>()
        });
        let blocks: Vec<f64> = blocks.collect();
        Some(blocks.iter().sum::<f64>() / n as f64)
    }
}

/// The silhouette of a row, from its products with the sums of the directions of each class.
fn width(products: &[f64], own: usize, sizes: &[f64]) -> f64 {
    if sizes[own] < 2.0 {
        return 0.0;
    }
    // Its product with itself is 1.
    let within = (1.0 - (products[own] - 1.0) / (sizes[own] - 1.0)).max(0.0);
    let others = products.iter().zip(sizes).enumerate().filter(|(class, _)| *class != own);
    let nearest = others.map(|(_, (sum, size))| 1.0 - sum / size).fold(f64::INFINITY, f64::min).max(0.0);
    let widest = within.max(nearest);
    if widest <= NO_DISTANCE { 0.0 } else { (nearest - within) / widest }
}

impl Accumulator for Labelled {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let name = self.statistic.name();
        let Some(([column, labels], _)) = values.split_first_chunk::<2>() else {
            return exec_err!("{name} takes vectors and labels");
        };
        let argument = argument(column)?;
        let vectors = Column::new(&argument)?;
        let Some(labels) = labels.as_string_opt::<i32>() else { return exec_err!("{name} takes labels") };
        for row in (0..column.len()).filter(|row| labels.is_valid(*row)) {
            if let Some(vector) = vectors.get(row)
                && self.vectors.push_direction(name, vector)?
            {
                self.labels.push(labels.value(row));
            }
        }
        Ok(())
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        Ok(ScalarValue::Float64(self.figure()?))
    }

    fn size(&self) -> usize {
        size_of_val(self) + self.vectors.bytes() + self.labels.bytes()
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        let values = numbers::<Float32Type>(std::mem::take(&mut self.vectors.values))?;
        let [names, ids] = self.labels.states()?;
        Ok(vec![count(self.vectors.rows), values, names, ids])
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        for row in 0..rows(states) {
            let values = read::<Float32Type>(states, 1, row)?;
            self.vectors.merge(self.statistic.name(), read_count(states, 0, row)?, values.values())?;
            self.labels.merge(&read_texts(states, 2, row)?, read::<UInt32Type>(states, 3, row)?.values())?;
        }
        Ok(())
    }
}
