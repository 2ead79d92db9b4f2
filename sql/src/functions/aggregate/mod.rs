//! Statistics over the rows of a group: of vectors ([`moments`], [`comoments`]), of vectors with labels
//! ([`neighbourhood`]), of vectors and what was done ([`regression`]), of scores ([`ranking`]) and of values ([`values`]).
//!
//! Rows where an argument is NULL, or a vector that holds a NULL, are left out; a figure that is undefined (no rows, one
//! class only, a constant truth) is NULL, so that one such group does not fail a query. Vectors of different lengths in
//! one group are an error, and so are NaN and infinity where a figure would mean nothing.
//!
//! What keeps rows puts them in the order of their values first, so its figures depend neither on the order of rows nor on
//! partitions. Sums over rows are taken in the order of rows, and may differ in their last bits where it differs.

mod comoments;
mod moments;
mod neighbourhood;
mod ranking;
mod regression;
mod state;
#[cfg(test)]
mod tests;
mod values;

use std::fmt::Debug;
use std::hash::Hash;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::common::{Result, ScalarValue, exec_err, not_impl_err, plan_err};
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::utils::{AggregateOrderSensitivity, format_state_name};
use datafusion::logical_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, ColumnarValue, Documentation, Signature, Volatility,
};

use super::Docs;
use crate::types::type_name;

/// The aggregates.
pub fn all() -> Vec<AggregateUDF> {
    let moments = moments::Statistics::ALL.map(Aggregate::of);
    let comoments = comoments::Statistics::ALL.map(Aggregate::of);
    let neighbourhood = neighbourhood::Statistics::ALL.map(Aggregate::of);
    let ranking = ranking::Statistics::ALL.map(Aggregate::of);
    let values = [Aggregate::of(values::Entropy), Aggregate::of(values::BootstrapCi)];
    let regression = [Aggregate::of(regression::EquivarianceR2)];
    let all = moments.into_iter().chain(comoments).chain(neighbourhood).chain(ranking);
    all.chain(values).chain(regression).collect()
}

/// A statistic: what it takes and gives, and what keeps its state.
trait Statistic: Debug + Copy + Eq + Hash + Send + Sync + 'static {
    fn name(self) -> &'static str;

    fn aliases(self) -> &'static [&'static str] {
        &[]
    }

    fn docs(self) -> Docs;

    /// What the arguments are taken as.
    fn coerce(self, arguments: &[DataType]) -> Result<Vec<DataType>>;

    /// The type of the figure, from arguments that were coerced.
    fn result(self, arguments: &[DataType]) -> DataType;

    /// The types of the values that hold the state of a group between two partitions.
    fn state(self) -> Vec<DataType>;

    fn accumulator(self, call: &Call<'_>) -> Result<Box<dyn Accumulator>>;
}

/// A call of a statistic.
struct Call<'a> {
    name: &'static str,
    arguments: &'a AccumulatorArgs<'a>,
}

impl Call<'_> {
    fn arguments(&self) -> usize {
        self.arguments.exprs.len()
    }

    fn result(&self) -> &DataType {
        self.arguments.return_field.data_type()
    }

    /// An argument that is one value for all rows; `None` if it is left out.
    fn constant(&self, index: usize, what: &str) -> Result<Option<ScalarValue>> {
        let Some(expression) = self.arguments.exprs.get(index) else { return Ok(None) };
        let no_rows = RecordBatch::new_empty(Arc::new(self.arguments.schema.clone()));
        match expression.evaluate(&no_rows) {
            Ok(ColumnarValue::Scalar(value)) if !value.is_null() => Ok(Some(value)),
            _ => exec_err!("{what} of {} must be one value that stands in the statement", self.name),
        }
    }

    /// A whole number from `least` to `most` that is the same for all rows.
    fn count(&self, index: usize, what: &str, least: i64, most: i64) -> Result<Option<usize>> {
        match self.constant(index, what)? {
            None => Ok(None),
            Some(ScalarValue::Int64(Some(count))) if (least..=most).contains(&count) => {
                Ok(Some(usize::try_from(count).unwrap_or(usize::MAX)))
            }
            Some(other) => {
                exec_err!(
                    "{what} of {} must be a whole number from {least} to {most}, not {other}",
                    self.name
                )
            }
        }
    }
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Aggregate<S> {
    statistic: S,
    aliases: Vec<String>,
    signature: Signature,
    documentation: Documentation,
}

impl<S: Statistic> Aggregate<S> {
    fn of(statistic: S) -> AggregateUDF {
        AggregateUDF::new_from_impl(Self {
            statistic,
            aliases: statistic.aliases().iter().map(|&alias| alias.to_owned()).collect(),
            signature: Signature::user_defined(Volatility::Immutable),
            documentation: statistic.docs().build(),
        })
    }
}

impl<S: Statistic> AggregateUDFImpl for Aggregate<S> {
    fn name(&self) -> &str {
        self.statistic.name()
    }

    fn aliases(&self) -> &[String] {
        &self.aliases
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, arguments: &[DataType]) -> Result<DataType> {
        Ok(self.statistic.result(arguments))
    }

    fn coerce_types(&self, arguments: &[DataType]) -> Result<Vec<DataType>> {
        self.statistic.coerce(arguments)
    }

    fn state_fields(&self, arguments: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        let fields = self.statistic.state().into_iter().enumerate().map(|(index, data_type)| {
            let name = format_state_name(arguments.name, &format!("state {index}"));
            Arc::new(Field::new(name, data_type, true))
        });
        Ok(fields.collect())
    }

    fn accumulator(&self, arguments: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        let name = self.statistic.name();
        if arguments.is_distinct {
            return not_impl_err!("{name} does not take distinct; take the distinct rows in a subquery");
        }
        self.statistic.accumulator(&Call { name, arguments: &arguments })
    }

    fn order_sensitivity(&self) -> AggregateOrderSensitivity {
        AggregateOrderSensitivity::Insensitive
    }

    fn documentation(&self) -> Option<&Documentation> {
        Some(&self.documentation)
    }
}

/// Fails unless there are between `least` and `most` arguments.
fn arity(name: &str, arguments: &[DataType], least: usize, most: usize) -> Result<()> {
    if (least..=most).contains(&arguments.len()) {
        return Ok(());
    }
    let wanted = if least == most { least.to_string() } else { format!("{least} to {most}") };
    plan_err!("{name} takes {wanted} argument(s), not {}", arguments.len())
}

/// What an argument that is a number is taken as.
fn number(name: &str, place: usize, given: &DataType, wanted: DataType) -> Result<DataType> {
    if given.is_numeric() || given.is_null() {
        return Ok(wanted);
    }
    plan_err!("argument {place} of {name} must be a number, not {}", type_name(given))
}

/// What a label is taken as: text.
fn label(name: &str, place: usize, given: &DataType) -> Result<DataType> {
    if given.is_nested() || given.is_binary() {
        let found = type_name(given);
        return plan_err!("argument {place} of {name} must be a label (text, a number, a date), not {found}");
    }
    Ok(DataType::Utf8)
}
