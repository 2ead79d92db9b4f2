//! What DataFusion asks of a scalar function, from that in which ours differ.

use std::fmt::Debug;
use std::hash::Hash;
use std::sync::Arc;

use arrow::array::ArrayRef;
use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::common::{Result, ScalarValue};
use datafusion::logical_expr::{
    ColumnarValue, Documentation, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
    Volatility,
};

use super::Docs;

/// A scalar function: what it takes and gives, and how it is computed.
pub(super) trait Scalar: Debug + Copy + Eq + Hash + Send + Sync + 'static {
    /// Whether the same arguments always give the same value.
    const VOLATILITY: Volatility = Volatility::Immutable;

    fn name(self) -> &'static str;

    fn aliases(self) -> &'static [&'static str] {
        &[]
    }

    fn docs(self) -> Docs;

    /// What the arguments are taken as.
    fn coerce(self, arguments: &[DataType]) -> Result<Vec<DataType>>;

    /// The type of the value, from arguments that were coerced.
    fn result(self, arguments: &[DataType]) -> Result<DataType>;

    /// The same, where it depends on values that stand in the statement.
    fn result_of(self, arguments: &ReturnFieldArgs) -> Result<DataType> {
        self.result(&types_of(arguments))
    }

    /// The values of `rows` rows; arguments are columns, or one value for all rows.
    fn evaluate(self, arguments: Vec<ColumnarValue>, rows: usize, result: &DataType) -> Result<ArrayRef>;
}

/// The types of the arguments.
pub(super) fn types_of(arguments: &ReturnFieldArgs) -> Vec<DataType> {
    arguments.arg_fields.iter().map(|field| field.data_type().clone()).collect()
}

/// Functions as DataFusion takes them.
pub(super) fn functions<F: Scalar>(functions: impl IntoIterator<Item = F>) -> Vec<ScalarUDF> {
    let function = |function: F| Function {
        function,
        aliases: function.aliases().iter().map(|&alias| alias.to_owned()).collect(),
        signature: Signature::user_defined(F::VOLATILITY),
        documentation: function.docs().build(),
    };
    functions.into_iter().map(function).map(ScalarUDF::new_from_impl).collect()
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Function<F> {
    function: F,
    aliases: Vec<String>,
    signature: Signature,
    documentation: Documentation,
}

impl<F: Scalar> ScalarUDFImpl for Function<F> {
    fn name(&self) -> &str {
        self.function.name()
    }

    fn aliases(&self) -> &[String] {
        &self.aliases
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, arguments: &[DataType]) -> Result<DataType> {
        self.function.result(arguments)
    }

    fn return_field_from_args(&self, arguments: ReturnFieldArgs) -> Result<FieldRef> {
        Ok(Arc::new(Field::new(self.function.name(), self.function.result_of(&arguments)?, true)))
    }

    fn coerce_types(&self, arguments: &[DataType]) -> Result<Vec<DataType>> {
        self.function.coerce(arguments)
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let constant = arguments.args.iter().all(|value| matches!(value, ColumnarValue::Scalar(_)));
        let rows = if constant { 1 } else { arguments.number_rows };
        let values = self.function.evaluate(arguments.args, rows, arguments.return_field.data_type())?;
        if constant {
            return Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&values, 0)?));
        }
        Ok(ColumnarValue::Array(values))
    }

    fn documentation(&self) -> Option<&Documentation> {
        Some(&self.documentation)
    }
}
