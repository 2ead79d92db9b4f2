//! Of values: `entropy`, `bootstrap_ci`.

use std::collections::BTreeMap;
use std::mem::size_of_val;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Float64Array, StructArray};
use arrow::datatypes::{DataType, Field, Fields, Float64Type, Int64Type};
use datafusion::common::{Result, ScalarValue, exec_err};
use datafusion::logical_expr::Accumulator;
use loev_ops::metrics::Bootstrap;
use loev_ops::rng::Key;

use super::state::{list_type, numbers, read, read_texts, rows, texts};
use super::{Call, Statistic, arity, label, number};
use crate::functions::Docs;

/// Bits of a distribution of labels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Entropy;

impl Statistic for Entropy {
    fn name(self) -> &'static str {
        "entropy"
    }

    fn docs(self) -> Docs {
        Docs {
            section: "Statistics",
            description: "Shannon entropy of the distribution of the values, in bits: 0 if all are the same, the \
                          logarithm to base 2 of their number if all are equally frequent.",
            syntax: "entropy(label)",
            example: "select entropy(c) from (values ('a'), ('a'), ('b'), ('c')) as t(c); -- 1.5",
            arguments: &[("label", "Text, numbers, dates or truth values; NULL does not count.")],
        }
    }

    fn coerce(self, arguments: &[DataType]) -> Result<Vec<DataType>> {
        arity(self.name(), arguments, 1, 1)?;
        arguments.iter().map(|argument| label(self.name(), 1, argument)).collect()
    }

    fn result(self, _: &[DataType]) -> DataType {
        DataType::Float64
    }

    fn state(self) -> Vec<DataType> {
        vec![list_type(DataType::Utf8), list_type(DataType::Int64)]
    }

    fn accumulator(self, _: &Call<'_>) -> Result<Box<dyn Accumulator>> {
        Ok(Box::new(Counts::default()))
    }
}

/// How often each label was seen.
#[derive(Debug, Default)]
struct Counts {
    counts: BTreeMap<String, i64>,
    name_bytes: usize,
}

impl Counts {
    fn add(&mut self, name: &str, times: i64) {
        match self.counts.get_mut(name) {
            Some(count) => *count += times,
            None => {
                self.name_bytes += name.len();
                self.counts.insert(name.to_owned(), times);
            }
        }
    }
}

impl Accumulator for Counts {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let Some(labels) = values.first().and_then(|column| column.as_string_opt::<i32>()) else {
            return exec_err!("entropy takes labels");
        };
        labels.iter().flatten().for_each(|name| self.add(name, 1));
        Ok(())
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        let total: i64 = self.counts.values().sum();
        let bits = self.counts.values().map(|count| {
            let share = *count as f64 / total as f64;
            -share * share.log2()
        });
        // One label alone gives -0.
        Ok(ScalarValue::Float64((total > 0).then(|| bits.sum::<f64>().max(0.0))))
    }

    fn size(&self) -> usize {
        size_of_val(self) + self.counts.len() * 2 * size_of::<(String, i64)>() + self.name_bytes
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        let counts = self.counts.values().copied().collect();
        Ok(vec![texts(self.counts.keys().map(String::as_str))?, numbers::<Int64Type>(counts)?])
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        for row in 0..rows(states) {
            let (names, counts) = (read_texts(states, 0, row)?, read::<Int64Type>(states, 1, row)?);
            names.iter().flatten().zip(counts.values()).for_each(|(name, count)| self.add(name, *count));
        }
        Ok(())
    }
}

/// The mean with its bootstrap interval.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct BootstrapCi;

/// Resamples and level where they are left out.
const RESAMPLES: usize = 1000;
const MOST_RESAMPLES: i64 = 1_000_000;
const LEVEL: f64 = 0.95;

impl BootstrapCi {
    fn fields() -> Fields {
        ["mean", "lo", "hi"].map(|name| Field::new(name, DataType::Float64, true)).to_vec().into()
    }
}

impl Statistic for BootstrapCi {
    fn name(self) -> &'static str {
        "bootstrap_ci"
    }

    fn docs(self) -> Docs {
        Docs {
            section: "Statistics",
            description: "The mean of a number with its percentile bootstrap interval (Efron and Tibshirani 1993): a struct \
                          of mean, lo and hi. The rows must be independent: average the rows of a clip first. The same \
                          values and seed give the same interval, in whatever order the rows come. Values that are not \
                          finite are an error.",
            syntax: "bootstrap_ci(x, seed[, resamples[, level]])",
            example: "select bootstrap_ci(x, 1) from (values (1.0), (2.0), (3.0)) as t(x); -- mean 2, lo 1, hi 3",
            arguments: &[
                ("x", "The number; NULL does not count."),
                ("seed", "A whole number of at least 0, of which the resamples are drawn."),
                ("resamples", "How many, 1 to 1000000; 1000 if left out."),
                (
                    "level",
                    "What share of the resamples lies within the interval, above 0 and below 1; 0.95 if left out.",
                ),
            ],
        }
    }

    fn coerce(self, arguments: &[DataType]) -> Result<Vec<DataType>> {
        arity(self.name(), arguments, 2, 4)?;
        let wanted = [DataType::Float64, DataType::Int64, DataType::Int64, DataType::Float64];
        let numbers = arguments.iter().zip(wanted).zip(1..);
        numbers.map(|((given, wanted), place)| number(self.name(), place, given, wanted)).collect()
    }

    fn result(self, _: &[DataType]) -> DataType {
        DataType::Struct(Self::fields())
    }

    fn state(self) -> Vec<DataType> {
        vec![list_type(DataType::Float64)]
    }

    fn accumulator(self, call: &Call<'_>) -> Result<Box<dyn Accumulator>> {
        let level = match call.constant(3, "the level")? {
            None => LEVEL,
            Some(ScalarValue::Float64(Some(level))) if level > 0.0 && level < 1.0 => level,
            Some(other) => {
                return exec_err!("the level of bootstrap_ci must be above 0 and below 1, not {other}");
            }
        };
        Ok(Box::new(Values {
            values: Vec::new(),
            key: Key::root(call.count(1, "the seed", 0, i64::MAX)?.unwrap_or(0) as u64),
            resamples: call.count(2, "the number of resamples", 1, MOST_RESAMPLES)?.unwrap_or(RESAMPLES),
            level,
        }))
    }
}

#[derive(Debug)]
struct Values {
    values: Vec<f64>,
    key: Key,
    resamples: usize,
    level: f64,
}

impl Accumulator for Values {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let Some(numbers) = values.first().and_then(|column| column.as_primitive_opt::<Float64Type>()) else {
            return exec_err!("bootstrap_ci takes numbers");
        };
        for value in numbers.iter().flatten() {
            if !value.is_finite() {
                return exec_err!("bootstrap_ci needs finite numbers, not {value}");
            }
            self.values.push(value);
        }
        Ok(())
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        self.values.sort_by(f64::total_cmp);
        let mean = self.values.iter().sum::<f64>() / self.values.len() as f64;
        let bootstrap = Bootstrap::new(self.values.len(), self.resamples, self.key);
        let interval = bootstrap.interval_of_mean_at(&self.values, self.level);
        let fields = BootstrapCi::fields();
        let Some(interval) = interval else { return ScalarValue::try_from(DataType::Struct(fields)) };
        let columns =
            [mean, interval.lo, interval.hi].map(|x| Arc::new(Float64Array::from(vec![x])) as ArrayRef);
        Ok(ScalarValue::Struct(Arc::new(StructArray::try_new(fields, columns.to_vec(), None)?)))
    }

    fn size(&self) -> usize {
        size_of_val(self) + self.values.capacity() * size_of::<f64>()
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        let values = std::mem::take(&mut self.values);
        Ok(vec![numbers::<Float64Type>(values)?])
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        for row in 0..rows(states) {
            self.values.extend_from_slice(read::<Float64Type>(states, 0, row)?.values());
        }
        Ok(())
    }
}
