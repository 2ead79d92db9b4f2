//! Of vectors, element by element: `vector_sum`, `vector_avg`, `vector_stddev`; and `covariance_trace`.
//!
//! Sums are doubles. Squared deviations are taken about the mean of a batch, and batches are joined by the rule of Chan,
//! Golub and LeVeque (1983), so that vectors far from the origin lose nothing.

use std::mem::size_of_val;

use arrow::array::ArrayRef;
use arrow::datatypes::{DataType, Float32Type, Float64Type};
use datafusion::common::{Result, ScalarValue, exec_err};
use datafusion::logical_expr::Accumulator;

use super::state::{
    Column, Elements, argument, count, list_type, numbers, read, read_count, rows, same_length,
};
use super::{Call, Statistic, arity};
use crate::functions::Docs;
use crate::functions::column::{Lists, common_element, element_of, fixed_length, list_of, with_element};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Statistics {
    Sum,
    Mean,
    Deviation,
    Trace,
}

impl Statistics {
    pub(super) const ALL: [Self; 4] = [Self::Sum, Self::Mean, Self::Deviation, Self::Trace];

    fn spread(self) -> bool {
        matches!(self, Self::Deviation | Self::Trace)
    }
}

impl Statistic for Statistics {
    fn name(self) -> &'static str {
        match self {
            Self::Sum => "vector_sum",
            Self::Mean => "vector_avg",
            Self::Deviation => "vector_stddev",
            Self::Trace => "covariance_trace",
        }
    }

    fn aliases(self) -> &'static [&'static str] {
        match self {
            Self::Mean => &["centroid"],
            _ => &[],
        }
    }

    fn docs(self) -> Docs {
        const VECTOR: &[(&str, &str)] = &[("v", "A vector: a list of numbers of any kind.")];
        let (description, syntax, example) = match self {
            Self::Sum => (
                "The sum of vectors, element by element. NULL without rows.",
                "vector_sum(v)",
                "select vector_sum(v) from (values ([1.0, 2.0]), ([3.0, 6.0])) as t(v); -- [4, 8]",
            ),
            Self::Mean => (
                "The mean of vectors, element by element: their centroid. NULL without rows.",
                "vector_avg(v)",
                "select vector_avg(v) from (values ([1.0, 2.0]), ([3.0, 6.0])) as t(v); -- [2, 4]",
            ),
            Self::Deviation => (
                "The standard deviation of each element (divided by n - 1, as stddev has it). NULL with fewer than two rows.",
                "vector_stddev(v)",
                "select vector_stddev(v) from (values ([1.0, 2.0]), ([3.0, 2.0])) as t(v); -- [1.4142, 0]",
            ),
            Self::Trace => (
                "The trace of the covariance matrix: the sum of the variances of all elements (divided by n - 1), which is \
                 how far vectors lie from their centroid. 0 where embeddings have collapsed into one point. NULL with \
                 fewer than two rows.",
                "covariance_trace(v)",
                "select covariance_trace(v) from (values ([1.0, 2.0]), ([3.0, 6.0])) as t(v); -- 10",
            ),
        };
        Docs { section: "Statistics", description, syntax, example, arguments: VECTOR }
    }

    fn coerce(self, arguments: &[DataType]) -> Result<Vec<DataType>> {
        arity(self.name(), arguments, 1, 1)?;
        let element = common_element(self.name(), arguments)?;
        Ok(arguments.iter().map(|list| with_element(list, &element)).collect())
    }

    fn result(self, arguments: &[DataType]) -> DataType {
        // Arguments were checked when they were coerced.
        let element = common_element(self.name(), arguments).unwrap_or(DataType::Float64);
        match self {
            Self::Trace => DataType::Float64,
            _ => list_of(element, arguments.first().and_then(fixed_length), arguments),
        }
    }

    fn state(self) -> Vec<DataType> {
        vec![DataType::Int64, list_type(DataType::Float64), list_type(DataType::Float64)]
    }

    fn accumulator(self, call: &Call<'_>) -> Result<Box<dyn Accumulator>> {
        Ok(Box::new(Moments {
            statistic: self,
            result: call.result().clone(),
            dim: None,
            rows: 0,
            sums: Vec::new(),
            squares: Vec::new(),
        }))
    }
}

#[derive(Debug)]
struct Moments {
    statistic: Statistics,
    result: DataType,
    dim: Option<usize>,
    rows: usize,
    sums: Vec<f64>,
    /// Squared deviations from the mean, summed; empty where they are not asked for.
    squares: Vec<f64>,
}

impl Moments {
    /// Takes up vectors whose number, sums and squared deviations are known.
    fn join(&mut self, rows: usize, sums: &[f64], squares: &[f64]) -> Result<()> {
        same_length(self.statistic.name(), &mut self.dim, sums.len())?;
        if self.rows == 0 {
            self.sums = vec![0.0; sums.len()];
            self.squares = vec![0.0; squares.len()];
        }
        let (n, m) = (self.rows as f64, rows as f64);
        if n > 0.0 {
            let weight = n * m / (n + m);
            for ((square, own), other) in self.squares.iter_mut().zip(&self.sums).zip(sums) {
                *square += (own / n - other / m).powi(2) * weight;
            }
        }
        self.squares.iter_mut().zip(squares).for_each(|(own, other)| *own += other);
        self.sums.iter_mut().zip(sums).for_each(|(own, other)| *own += other);
        self.rows += rows;
        Ok(())
    }

    fn variances(&self) -> Option<impl Iterator<Item = f64>> {
        (self.rows > 1).then(|| self.squares.iter().map(|square| square / (self.rows - 1) as f64))
    }

    fn vector(&self, values: Vec<f64>) -> Result<ScalarValue> {
        let single = element_of(&self.result).is_some_and(|field| *field.data_type() == DataType::Float32);
        let array = if single {
            let mut lists = Lists::<Float32Type>::new(1, &self.result);
            lists.push(values.into_iter().map(|value| value as f32), None)?;
            lists.finish(&self.result)?
        } else {
            let mut lists = Lists::<Float64Type>::new(1, &self.result);
            lists.push(values.into_iter(), None)?;
            lists.finish(&self.result)?
        };
        ScalarValue::try_from_array(&array, 0)
    }
}

impl Accumulator for Moments {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let [column] = values else { return exec_err!("{} takes vectors", self.statistic.name()) };
        let argument = argument(column)?;
        let vectors = Column::new(&argument)?;
        let vectors = || (0..column.len()).filter_map(|row| vectors.get(row));
        let (mut rows, mut sums) = (0, Vec::new());
        for vector in vectors() {
            same_length(self.statistic.name(), &mut self.dim, vector.len())?;
            sums.resize(vector.len(), 0.0);
            rows += 1;
            match vector {
                Elements::Single(x) => sums.iter_mut().zip(x).for_each(|(sum, x)| *sum += f64::from(*x)),
                Elements::Double(x) => sums.iter_mut().zip(x).for_each(|(sum, x)| *sum += x),
            }
        }
        if rows == 0 {
            return Ok(());
        }
        let mut squares = Vec::new();
        if self.statistic.spread() {
            squares.resize(sums.len(), 0.0);
            let means: Vec<f64> = sums.iter().map(|sum| sum / rows as f64).collect();
            for vector in vectors() {
                let own = squares.iter_mut().zip(&means);
                match vector {
                    Elements::Single(x) => {
                        own.zip(x).for_each(|((sum, mean), x)| *sum += (f64::from(*x) - mean).powi(2));
                    }
                    Elements::Double(x) => own.zip(x).for_each(|((sum, mean), x)| *sum += (x - mean).powi(2)),
                }
            }
        }
        self.join(rows, &sums, &squares)
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        let undefined = ScalarValue::try_from(&self.result);
        match self.statistic {
            _ if self.rows == 0 => undefined,
            Statistics::Sum => self.vector(self.sums.clone()),
            Statistics::Mean => self.vector(self.sums.iter().map(|sum| sum / self.rows as f64).collect()),
            Statistics::Deviation => match self.variances() {
                Some(variances) => self.vector(variances.map(f64::sqrt).collect()),
                None => undefined,
            },
            Statistics::Trace => Ok(ScalarValue::Float64(self.variances().map(Iterator::sum))),
        }
    }

    fn size(&self) -> usize {
        size_of_val(self) + (self.sums.capacity() + self.squares.capacity()) * size_of::<f64>()
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        let (sums, squares) = (std::mem::take(&mut self.sums), std::mem::take(&mut self.squares));
        Ok(vec![count(self.rows), numbers::<Float64Type>(sums)?, numbers::<Float64Type>(squares)?])
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        for row in 0..rows(states) {
            let count = read_count(states, 0, row)?;
            if count > 0 {
                let (sums, squares) =
                    (read::<Float64Type>(states, 1, row)?, read::<Float64Type>(states, 2, row)?);
                self.join(count, sums.values(), squares.values())?;
            }
        }
        Ok(())
    }
}
