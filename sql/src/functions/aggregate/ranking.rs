//! Of scores that should rank what is true above what is not: `roc_auc`, `average_precision`, and their means over the
//! places of lists.

use std::mem::size_of_val;

use arrow::array::{ArrayRef, AsArray};
use arrow::datatypes::{DataType, Float64Type};
use datafusion::common::{Result, ScalarValue, exec_err, plan_err};
use datafusion::logical_expr::Accumulator;
use loev_ops::metrics::{MetricError, average_precision, macro_roc_auc, mean_ap, roc_auc};

use super::state::{
    argument, booleans, count, list_type, numbers, read, read_booleans, read_count, rows, same_length,
};
use super::{Call, Statistic, arity, number};
use crate::functions::Docs;
use crate::functions::column::{Rows, element_of, equal_lengths, with_element};
use crate::types::type_name;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Statistics {
    RocAuc,
    AveragePrecision,
    MacroRocAuc,
    MacroAveragePrecision,
}

impl Statistics {
    pub(super) const ALL: [Self; 4] =
        [Self::RocAuc, Self::AveragePrecision, Self::MacroRocAuc, Self::MacroAveragePrecision];

    /// Whether it takes lists.
    fn lists(self) -> bool {
        matches!(self, Self::MacroRocAuc | Self::MacroAveragePrecision)
    }

    fn figure(
        self,
        scores: &[f64],
        truths: &[bool],
        columns: usize,
    ) -> std::result::Result<f64, MetricError> {
        match self {
            Self::RocAuc => roc_auc(scores, truths),
            Self::AveragePrecision => average_precision(scores, truths),
            Self::MacroRocAuc => macro_roc_auc(scores, truths, columns).map(|mean| mean.value),
            Self::MacroAveragePrecision => mean_ap(scores, truths, columns).map(|mean| mean.value),
        }
    }
}

impl Statistic for Statistics {
    fn name(self) -> &'static str {
        match self {
            Self::RocAuc => "roc_auc",
            Self::AveragePrecision => "average_precision",
            Self::MacroRocAuc => "macro_roc_auc",
            Self::MacroAveragePrecision => "macro_average_precision",
        }
    }

    fn aliases(self) -> &'static [&'static str] {
        match self {
            Self::MacroAveragePrecision => &["mean_average_precision"],
            _ => &[],
        }
    }

    fn docs(self) -> Docs {
        const PAIR: &[(&str, &str)] =
            &[("score", "A finite number, the higher the surer."), ("truth", "A truth value, or 1 and 0.")];
        const LISTS: &[(&str, &str)] = &[
            ("scores", "A list of finite numbers, one for each class."),
            ("truths", "A list of as many truth values, or of 1 and 0."),
        ];
        let (description, syntax, example, arguments) = match self {
            Self::RocAuc => (
                "Area under the ROC curve: the probability that a row that is true scores above one that is not, ties \
                 counting half (scikit-learn's roc_auc_score). 0.5 is chance. NULL if all are true or none is.",
                "roc_auc(score, truth)",
                "select roc_auc(s, t) from (values (0.9, true), (0.8, false), (0.3, false)) as r(s, t); -- 1",
                PAIR,
            ),
            Self::AveragePrecision => (
                "Average precision without interpolation (scikit-learn's average_precision_score): tied rows enter \
                 together. Chance is the share of true rows. NULL if none is true.",
                "average_precision(score, truth)",
                "select average_precision(s, t) from (values (0.9, false), (0.8, true)) as r(s, t); -- 0.5",
                PAIR,
            ),
            Self::MacroRocAuc => (
                "The mean of roc_auc over the places of two lists, as tagging tasks are scored. Places where all rows are \
                 true or none is are left out; NULL if no place remains.",
                "macro_roc_auc(scores, truths)",
                "select macro_roc_auc(s, t) from (values ([0.9, 0.1], [1, 0]), ([0.8, 0.7], [0, 1])) as r(s, t); -- 1",
                LISTS,
            ),
            Self::MacroAveragePrecision => (
                "The mean of average_precision over the places of two lists (mAP). Places where no row is true are left \
                 out; NULL if no place remains.",
                "macro_average_precision(scores, truths)",
                "select macro_average_precision(s, t) from (values ([0.9, 0.1], [1, 0]), ([0.8, 0.7], [0, 1])) as r(s, t); -- 1",
                LISTS,
            ),
        };
        Docs { section: "Statistics", description, syntax, example, arguments }
    }

    fn coerce(self, arguments: &[DataType]) -> Result<Vec<DataType>> {
        let name = self.name();
        arity(name, arguments, 2, 2)?;
        if self.lists() {
            equal_lengths(name, arguments)?;
        }
        let coerced = arguments.iter().zip(1..).map(|(given, place)| {
            let element =
                if self.lists() { element_of(given).map(|field| field.data_type()) } else { Some(given) };
            match element {
                Some(element) if element.is_null() => {}
                Some(DataType::Boolean) if place == 2 => {}
                Some(element) if self.lists() && element.is_numeric() => {}
                Some(element) if !self.lists() => {
                    number(name, place, element, DataType::Float64)?;
                }
                _ if given.is_null() => {}
                _ => {
                    let found = type_name(given);
                    return plan_err!("argument {place} of {name} must be a list of numbers, not {found}");
                }
            }
            Ok(if self.lists() { with_element(given, &DataType::Float64) } else { DataType::Float64 })
        });
        coerced.collect()
    }

    fn result(self, _: &[DataType]) -> DataType {
        DataType::Float64
    }

    fn state(self) -> Vec<DataType> {
        vec![DataType::Int64, list_type(DataType::Float64), list_type(DataType::Boolean)]
    }

    fn accumulator(self, _: &Call<'_>) -> Result<Box<dyn Accumulator>> {
        Ok(Box::new(Scored { statistic: self, columns: None, scores: Vec::new(), truths: Vec::new() }))
    }
}

/// Scores and truths, row by row.
#[derive(Debug)]
struct Scored {
    statistic: Statistics,
    columns: Option<usize>,
    scores: Vec<f64>,
    truths: Vec<bool>,
}

impl Scored {
    fn push(&mut self, scores: &[f64], truths: &[f64]) -> Result<()> {
        let name = self.statistic.name();
        same_length(name, &mut self.columns, scores.len())?;
        same_length(name, &mut self.columns, truths.len())?;
        if let Some(score) = scores.iter().find(|score| !score.is_finite()) {
            return exec_err!("{name} needs finite scores, not {score}");
        }
        for truth in truths {
            match *truth {
                0.0 => self.truths.push(false),
                1.0 => self.truths.push(true),
                other => return exec_err!("a truth of {name} is true or false, 1 or 0, not {other}"),
            }
        }
        self.scores.extend_from_slice(scores);
        Ok(())
    }
}

impl Accumulator for Scored {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let name = self.statistic.name();
        let [scores, truths] = values else { return exec_err!("{name} takes scores and truths") };
        if self.statistic.lists() {
            let (scores, truths) = (argument(scores)?, argument(truths)?);
            let (scores, truths) = (Rows::<Float64Type>::new(&scores)?, Rows::<Float64Type>::new(&truths)?);
            return (0..values[0].len()).try_for_each(|row| match (scores.get(row), truths.get(row)) {
                (Some(scores), Some(truths)) => self.push(scores, truths),
                _ => Ok(()),
            });
        }
        let (Some(scores), Some(truths)) =
            (scores.as_primitive_opt::<Float64Type>(), truths.as_primitive_opt::<Float64Type>())
        else {
            return exec_err!("{name} takes scores and truths");
        };
        scores.iter().zip(truths).try_for_each(|row| match row {
            (Some(score), Some(truth)) => self.push(&[score], &[truth]),
            _ => Ok(()),
        })
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        let columns = self.columns.unwrap_or(0);
        let figure = match columns {
            0 => None,
            _ => match self.statistic.figure(&self.scores, &self.truths, columns) {
                Ok(figure) => Some(figure),
                Err(MetricError::OneClass | MetricError::Empty) => None,
                Err(error) => return exec_err!("{}: {error}", self.statistic.name()),
            },
        };
        Ok(ScalarValue::Float64(figure))
    }

    fn size(&self) -> usize {
        size_of_val(self) + self.scores.capacity() * size_of::<f64>() + self.truths.capacity()
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        let (scores, truths) = (std::mem::take(&mut self.scores), std::mem::take(&mut self.truths));
        let columns = count(self.columns.unwrap_or(0));
        Ok(vec![columns, numbers::<Float64Type>(scores)?, booleans(truths)?])
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        for row in 0..rows(states) {
            let columns = read_count(states, 0, row)?;
            if columns == 0 {
                continue;
            }
            same_length(self.statistic.name(), &mut self.columns, columns)?;
            self.scores.extend_from_slice(read::<Float64Type>(states, 1, row)?.values());
            self.truths.extend(read_booleans(states, 2, row)?.iter().flatten());
        }
        Ok(())
    }
}
