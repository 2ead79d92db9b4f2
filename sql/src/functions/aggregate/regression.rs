//! What a vector tells of what was done: `equivariance_r2`.

use std::mem::size_of_val;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::{DataType, Float32Type, Float64Type, UInt32Type};
use datafusion::common::{Result, ScalarValue, exec_datafusion_err, exec_err};
use datafusion::logical_expr::Accumulator;
use loev_ops::metrics::{MetricError, r2};
use loev_ops::ridge::{Regression, Ridge, RidgeError};
use loev_ops::rng::Key;
use rayon::iter::{IntoParallelIterator, ParallelIterator};

use super::state::{
    Column, Kept, Labels, argument, count, list_type, numbers, read, read_count, read_texts, rows,
};
use super::{Call, Statistic, arity, label, number};
use crate::functions::Docs;
use crate::functions::column::{common_element, with_element};

/// Parts of the rows: each is predicted once, from three others, with the penalty that is best on the fifth.
const FOLDS: usize = 5;
/// Added to the correlation matrix of the elements.
const PENALTIES: [f64; 6] = [0.0001, 0.001, 0.01, 0.1, 1.0, 10.0];

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct EquivarianceR2;

impl Statistic for EquivarianceR2 {
    fn name(self) -> &'static str {
        "equivariance_r2"
    }

    fn docs(self) -> Docs {
        Docs {
            section: "Statistics",
            description: "How much of a parameter a linear model reads from a vector: R2 of a ridge regression, cross-validated \
                          in five folds. Three folds fit, a fourth chooses the penalty (0.0001 to 10, added to the correlation \
                          matrix of the elements), the fifth is predicted, so that every row is predicted once by a model that \
                          has not seen it; R2 is of all these predictions. 1 is exact, 0 is what the mean of the parameter gets, \
                          below 0 is worse. Rows of one group stay in one fold: give the clip, or views of a clip in \
                          other folds give its music away. Folds do not depend on the order of the rows. NULL with fewer than \
                          five groups, or if the parameter does not vary.",
            syntax: "equivariance_r2(v, parameter[, group])",
            example: "select head, equivariance_r2(embedding, semitones, clip) from views group by head;",
            arguments: &[
                ("v", "A vector: a list of finite numbers."),
                ("parameter", "A finite number; take the logarithm of a rate."),
                (
                    "group",
                    "What keeps rows together, such as the clip; if left out, equal vectors stay together.",
                ),
            ],
        }
    }

    fn coerce(self, arguments: &[DataType]) -> Result<Vec<DataType>> {
        let name = self.name();
        arity(name, arguments, 2, 3)?;
        let coerced = arguments.iter().enumerate().map(|(index, given)| match index {
            0 => Ok(with_element(given, &common_element(name, &arguments[..1])?)),
            1 => number(name, 2, given, DataType::Float64),
            _ => label(name, 3, given),
        });
        coerced.collect()
    }

    fn result(self, _: &[DataType]) -> DataType {
        DataType::Float64
    }

    fn state(self) -> Vec<DataType> {
        let lists = [DataType::Float32, DataType::Float64, DataType::Utf8, DataType::UInt32].map(list_type);
        std::iter::once(DataType::Int64).chain(lists).collect()
    }

    fn accumulator(self, call: &Call<'_>) -> Result<Box<dyn Accumulator>> {
        Ok(Box::new(Pairs {
            grouped: call.arguments() > 2,
            vectors: Kept::default(),
            parameters: Vec::new(),
            groups: Labels::default(),
        }))
    }
}

/// Vectors with their parameters.
#[derive(Debug)]
struct Pairs {
    grouped: bool,
    vectors: Kept,
    parameters: Vec<f64>,
    /// Empty where there are none.
    groups: Labels,
}

impl Pairs {
    /// Of each row in order, its group.
    fn groups(&self, order: &[usize]) -> Vec<usize> {
        if self.grouped {
            let ranks = self.groups.ranks();
            return order.iter().map(|row| ranks[*row] as usize).collect();
        }
        let mut group = 0;
        let mut groups = Vec::with_capacity(order.len());
        for (place, row) in order.iter().enumerate() {
            if place > 0 && self.vectors.row(order[place - 1]) != self.vectors.row(*row) {
                group += 1;
            }
            groups.push(group);
        }
        groups
    }

    fn figure(&self) -> Result<Option<f64>> {
        let name = EquivarianceR2.name();
        let Some(dim) = self.vectors.dim else { return Ok(None) };
        let ranks = self.groups.ranks();
        let order = self.vectors.order(|row| {
            // The order of doubles as that of whole numbers.
            let bits = self.parameters[row].to_bits() as i64;
            (bits ^ (((bits >> 63) as u64) >> 1) as i64, ranks.get(row).copied())
        });
        let groups = self.groups(&order);
        let count = groups.iter().max().map_or(0, |last| last + 1);
        if count < FOLDS {
            return Ok(None);
        }
        let mut dealt: Vec<usize> = (0..count).collect();
        Key::root(0).with_str(name).rng().shuffle(&mut dealt);
        let mut fold_of = vec![0; count];
        dealt.iter().enumerate().for_each(|(place, group)| fold_of[*group] = place % FOLDS);
        let mut folds = vec![Vec::new(); FOLDS];
        groups.iter().enumerate().for_each(|(row, group)| folds[fold_of[*group]].push(row));

        let predicted = (0..FOLDS).into_par_iter().map(|fold| {
            let row = |row: usize, inputs: &mut [f64], targets: &mut [f64]| {
                let vector = self.vectors.row(order[row]);
                inputs.iter_mut().zip(vector).for_each(|(input, x)| *input = f64::from(*x));
                targets[0] = self.parameters[order[row]];
            };
            let regression = Regression { inputs: dim, targets: 1, row: &row };
            let valid = (fold + 1) % FOLDS;
            let train: Vec<usize> = (0..FOLDS)
                .filter(|other| *other != fold && *other != valid)
                .flat_map(|other| folds[other].clone())
                .collect();
            let ridge = Ridge::fit(&regression, &train, &folds[valid], &PENALTIES)?;
            let mut pairs = Vec::with_capacity(folds[fold].len());
            ridge.each(&regression, &folds[fold], |_, truth, prediction| {
                pairs.push((prediction[0], truth[0]))
            });
            Ok(pairs)
        });
        let predicted: std::result::Result<Vec<Vec<(f64, f64)>>, RidgeError> = predicted.collect();
        let predicted = predicted.map_err(|error| exec_datafusion_err!("{name}: {error}"))?;
        let (estimates, truths): (Vec<f64>, Vec<f64>) = predicted.into_iter().flatten().unzip();
        match r2(&estimates, &truths) {
            Ok(figure) => Ok(Some(figure)),
            Err(MetricError::ConstantTruth | MetricError::Empty) => Ok(None),
            Err(error) => exec_err!("{name}: {error}"),
        }
    }
}

impl Accumulator for Pairs {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let name = EquivarianceR2.name();
        let Some(([column, parameters], rest)) = values.split_first_chunk::<2>() else {
            return exec_err!("{name} takes vectors and parameters");
        };
        let argument = argument(column)?;
        let vectors = Column::new(&argument)?;
        let Some(parameters) = parameters.as_primitive_opt::<Float64Type>() else {
            return exec_err!("{name} takes parameters that are numbers");
        };
        let groups = rest.first().and_then(|groups| groups.as_string_opt::<i32>());
        for row in (0..column.len()).filter(|row| parameters.is_valid(*row)) {
            let group = groups.map(|groups| groups.is_valid(row).then(|| groups.value(row)));
            let (Some(vector), false) = (vectors.get(row), group == Some(None)) else { continue };
            let parameter = parameters.value(row);
            if !parameter.is_finite() {
                return exec_err!("{name} needs finite parameters, not {parameter}");
            }
            self.vectors.push(name, vector)?;
            // The two zeros are one value.
            self.parameters.push(parameter + 0.0);
            if let Some(group) = group.flatten() {
                self.groups.push(group);
            }
        }
        Ok(())
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        Ok(ScalarValue::Float64(self.figure()?))
    }

    fn size(&self) -> usize {
        let parameters = self.parameters.capacity() * size_of::<f64>();
        size_of_val(self) + self.vectors.bytes() + parameters + self.groups.bytes()
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        let values = numbers::<Float32Type>(std::mem::take(&mut self.vectors.values))?;
        let parameters = numbers::<Float64Type>(std::mem::take(&mut self.parameters))?;
        let [names, ids] = self.groups.states()?;
        Ok(vec![count(self.vectors.rows), values, parameters, names, ids])
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        for row in 0..rows(states) {
            let values = read::<Float32Type>(states, 1, row)?;
            self.vectors.merge(EquivarianceR2.name(), read_count(states, 0, row)?, values.values())?;
            self.parameters.extend_from_slice(read::<Float64Type>(states, 2, row)?.values());
            self.groups.merge(&read_texts(states, 3, row)?, read::<UInt32Type>(states, 4, row)?.values())?;
        }
        Ok(())
    }
}
