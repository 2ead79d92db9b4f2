//! Of matrices whose rows are vectors: `effective_rank`, `participation_ratio`, `linear_cka`. What is kept is a mean and
//! a matrix of products about it, which grow with the square of the dimension and not with the rows.

use std::mem::size_of_val;

use arrow::array::{Array, ArrayRef};
use arrow::datatypes::{DataType, Float64Type};
use datafusion::common::{Result, ScalarValue, exec_err};
use datafusion::logical_expr::Accumulator;
use loev_ops::eigen::eigenvalues;
use loev_ops::matrix::{View, product};

use super::state::{
    Column, Elements, argument, count, list_type, numbers, read, read_count, rows, same_length,
};
use super::{Call, Statistic, arity};
use crate::functions::Docs;
use crate::functions::column::{common_element, with_element};

/// Rows whose products are taken together.
const BLOCK: usize = 256;
/// Variances that are smaller than this share of the squared mean are what rounding makes.
const ROUNDING: f64 = 1e-24;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Statistics {
    EffectiveRank,
    ParticipationRatio,
    LinearCka,
}

impl Statistics {
    pub(super) const ALL: [Self; 3] = [Self::EffectiveRank, Self::ParticipationRatio, Self::LinearCka];

    fn vectors(self) -> usize {
        if self == Self::LinearCka { 2 } else { 1 }
    }
}

impl Statistic for Statistics {
    fn name(self) -> &'static str {
        match self {
            Self::EffectiveRank => "effective_rank",
            Self::ParticipationRatio => "participation_ratio",
            Self::LinearCka => "linear_cka",
        }
    }

    fn docs(self) -> Docs {
        const VECTORS: &[(&str, &str)] =
            &[("a", "A vector: a list of finite numbers."), ("b", "A vector of the other embedding.")];
        let (description, syntax, example, arguments) = match self {
            Self::EffectiveRank => (
                "The effective rank of the matrix whose rows are the vectors (Roy and Vetterli 2007): the exponential of the \
                 entropy of its singular values divided by their sum, from 1 to the dimension. Vectors are not centred, so \
                 embeddings that have collapsed into one point have 1. NULL without rows, or if all vectors are zero.",
                "effective_rank(a)",
                "select effective_rank(v) from (values ([1.0, 0.0]), ([0.0, 1.0])) as t(v); -- 2",
                &VECTORS[..1],
            ),
            Self::ParticipationRatio => (
                "The participation ratio of the covariance matrix: the squared sum of its eigenvalues divided by the sum of \
                 their squares, from 1 to the dimension. NULL if the vectors do not differ.",
                "participation_ratio(a)",
                "select participation_ratio(v) from (values ([1.0, 0.0]), ([-1.0, 0.0])) as t(v); -- 1",
                &VECTORS[..1],
            ),
            Self::LinearCka => (
                "Linear centred kernel alignment of two embeddings of the same rows (Kornblith et al. 2019): 0 if they share \
                 nothing that is linear, 1 if one is the other turned and scaled. Their lengths may differ. NULL with fewer \
                 than two rows, or if one embedding does not differ between rows. It is biased upwards where rows are few \
                 beside the dimensions.",
                "linear_cka(a, b)",
                "select linear_cka(a, b) from (values ([1.0, 0.0], [0.0, 2.0]), ([0.0, 1.0], [-2.0, 0.0])) as t(a, b); -- 1",
                VECTORS,
            ),
        };
        Docs { section: "Statistics", description, syntax, example, arguments }
    }

    fn coerce(self, arguments: &[DataType]) -> Result<Vec<DataType>> {
        arity(self.name(), arguments, self.vectors(), self.vectors())?;
        let own = |list: &DataType| -> Result<DataType> {
            Ok(with_element(list, &common_element(self.name(), std::slice::from_ref(list))?))
        };
        arguments.iter().map(own).collect()
    }

    fn result(self, _: &[DataType]) -> DataType {
        DataType::Float64
    }

    fn state(self) -> Vec<DataType> {
        let list = || list_type(DataType::Float64);
        vec![DataType::Int64, DataType::Int64, list(), list()]
    }

    fn accumulator(self, _: &Call<'_>) -> Result<Box<dyn Accumulator>> {
        Ok(Box::new(Comoments {
            statistic: self,
            dims: [None; 2],
            rows: 0,
            means: Vec::new(),
            products: Vec::new(),
            pending: Vec::new(),
        }))
    }
}

#[derive(Debug)]
struct Comoments {
    statistic: Statistics,
    /// The lengths of the vectors; a row is both, one after the other.
    dims: [Option<usize>; 2],
    /// Rows in the means and products.
    rows: usize,
    means: Vec<f64>,
    /// Products of deviations, summed over rows: (dim, dim).
    products: Vec<f64>,
    /// Rows that are not yet in them.
    pending: Vec<f64>,
}

impl Comoments {
    fn dim(&self) -> usize {
        self.dims.iter().flatten().sum()
    }

    fn push(&mut self, parts: &[Elements<'_>]) -> Result<()> {
        let (name, start) = (self.statistic.name(), self.pending.len());
        for (part, dim) in parts.iter().zip(&mut self.dims) {
            same_length(name, dim, part.len())?;
            part.append_to(&mut self.pending);
        }
        if let Some(value) = self.pending[start..].iter().find(|value| !value.is_finite()) {
            return exec_err!("{name} needs finite vectors, and one holds {value}");
        }
        if self.pending.len() >= BLOCK * self.dim() {
            self.flush();
        }
        Ok(())
    }

    fn flush(&mut self) {
        let dim = self.dim();
        let Some(rows) = self.pending.len().checked_div(dim).filter(|rows| *rows > 0) else { return };
        let mut block = std::mem::take(&mut self.pending);
        let mut means = vec![0.0; dim];
        for row in block.chunks_exact(dim) {
            means.iter_mut().zip(row).for_each(|(mean, value)| *mean += value);
        }
        means.iter_mut().for_each(|mean| *mean /= rows as f64);
        for row in block.chunks_exact_mut(dim) {
            row.iter_mut().zip(&means).for_each(|(value, mean)| *value -= mean);
        }
        let turned = View::transposed(&block, dim);
        self.make_room(dim);
        product([dim, dim, rows], &mut self.products, dim, true, turned, View::rows(&block, dim));
        self.join(rows, &means);
        block.clear();
        self.pending = block;
    }

    fn make_room(&mut self, dim: usize) {
        self.means.resize(dim, 0.0);
        self.products.resize(dim * dim, 0.0);
    }

    /// Takes up rows whose products about their own means are already added.
    fn join(&mut self, rows: usize, means: &[f64]) {
        let (n, m) = (self.rows as f64, rows as f64);
        let (dim, weight) = (means.len(), n * m / (n + m));
        let differences: Vec<f64> = means.iter().zip(&self.means).map(|(other, own)| other - own).collect();
        if n > 0.0 {
            for (row, left) in self.products.chunks_exact_mut(dim).zip(&differences) {
                let factor = left * weight;
                row.iter_mut().zip(&differences).for_each(|(sum, right)| *sum += factor * right);
            }
        }
        let step = m / (n + m);
        self.means.iter_mut().zip(&differences).for_each(|(mean, difference)| *mean += difference * step);
        self.rows += rows;
    }

    /// Whether the vectors of a part of the row differ by more than rounding.
    fn varies(&self, part: std::ops::Range<usize>) -> bool {
        let dim = self.dim();
        let squares: f64 = self.means[part.clone()].iter().map(|mean| mean * mean).sum();
        let trace: f64 = part.map(|i| self.products[i * dim + i]).sum();
        trace > ROUNDING * squares * self.rows as f64
    }

    fn figure(&self) -> Option<f64> {
        let dim = self.dim();
        let block = |rows: std::ops::Range<usize>, columns: std::ops::Range<usize>| -> f64 {
            let rows = self.products.chunks_exact(dim.max(1)).skip(rows.start).take(rows.len());
            rows.flat_map(|row| &row[columns.clone()]).map(|value| value * value).sum()
        };
        match self.statistic {
            Statistics::EffectiveRank => {
                let mut gram = self.products.clone();
                for (row, left) in gram.chunks_exact_mut(dim.max(1)).zip(&self.means) {
                    let factor = left * self.rows as f64;
                    row.iter_mut().zip(&self.means).for_each(|(sum, right)| *sum += factor * right);
                }
                effective_rank(&eigenvalues(gram, dim))
            }
            Statistics::ParticipationRatio => {
                let trace: f64 = (0..dim).map(|i| self.products[i * dim + i]).sum();
                let squares = block(0..dim, 0..dim);
                self.varies(0..dim).then(|| trace * trace / squares)
            }
            Statistics::LinearCka => {
                let split = self.dims[0].unwrap_or(0);
                let own = || (block(0..split, 0..split) * block(split..dim, split..dim)).sqrt();
                let vary = self.varies(0..split) && self.varies(split..dim);
                vary.then(|| block(0..split, split..dim) / own())
            }
        }
    }
}

/// The exponential of the entropy of the roots of the eigenvalues of a Gram matrix.
fn effective_rank(eigenvalues: &[f64]) -> Option<f64> {
    let greatest = eigenvalues.iter().copied().fold(0.0, f64::max);
    // What is below is what rounding leaves of 0.
    let least = greatest * f64::EPSILON * eigenvalues.len() as f64;
    let singular = || eigenvalues.iter().filter(|value| **value > least).map(|value| value.sqrt());
    let sum: f64 = singular().sum();
    let entropy: f64 = singular().map(|value| value / sum).map(|share| -share * share.ln()).sum();
    (sum > 0.0).then(|| entropy.exp())
}

impl Accumulator for Comoments {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let arguments = values.iter().map(argument).collect::<Result<Vec<_>>>()?;
        let columns = arguments.iter().map(Column::new).collect::<Result<Vec<_>>>()?;
        for row in 0..values.first().map_or(0, |column| column.len()) {
            let parts: Option<Vec<Elements<'_>>> = columns.iter().map(|column| column.get(row)).collect();
            if let Some(parts) = parts {
                self.push(&parts)?;
            }
        }
        Ok(())
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        self.flush();
        let figure = if self.rows > 0 { self.figure() } else { None };
        Ok(ScalarValue::Float64(figure.filter(|figure| figure.is_finite())))
    }

    fn size(&self) -> usize {
        let floats = self.means.capacity() + self.products.capacity() + self.pending.capacity();
        size_of_val(self) + floats * size_of::<f64>()
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        self.flush();
        let (means, products) = (std::mem::take(&mut self.means), std::mem::take(&mut self.products));
        let split = count(self.dims[0].unwrap_or(0));
        Ok(vec![count(self.rows), split, numbers::<Float64Type>(means)?, numbers::<Float64Type>(products)?])
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        self.flush();
        for row in 0..rows(states) {
            let (rows, split) = (read_count(states, 0, row)?, read_count(states, 1, row)?);
            if rows == 0 {
                continue;
            }
            let (means, products) =
                (read::<Float64Type>(states, 2, row)?, read::<Float64Type>(states, 3, row)?);
            let dim = means.len();
            let lengths = [split, dim.saturating_sub(split)];
            for (known, found) in self.dims.iter_mut().zip(lengths).take(self.statistic.vectors()) {
                same_length(self.statistic.name(), known, found)?;
            }
            self.make_room(dim);
            self.products.iter_mut().zip(products.values()).for_each(|(own, other)| *own += other);
            self.join(rows, means.values());
        }
        Ok(())
    }
}
