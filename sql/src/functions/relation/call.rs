//! One call of a relation function: its tables, and its other arguments by name and type.

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions};
use arrow::datatypes::{DataType, Schema};
use datafusion::common::{DFSchema, Result, ScalarValue, plan_err};
use datafusion::execution::context::ExecutionProps;
use datafusion::logical_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion::logical_expr::planner::RelationPlannerContext;
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder};
use datafusion::physical_expr::create_physical_expr;
use datafusion::sql::sqlparser::ast::{Expr as SqlExpr, FunctionArg, FunctionArgExpr, TableFactor};

use super::RelationFunction;
use crate::suggest::{listed, nearest};
use crate::types::type_name;

/// The arguments of a call. A getter's `name` is that of an argument in the function's documentation.
pub(crate) struct Call<'a> {
    function: &'static str,
    tables: Vec<LogicalPlan>,
    values: Vec<(&'static str, SqlExpr)>,
    context: &'a mut dyn RelationPlannerContext,
}

impl<'a> Call<'a> {
    pub(super) fn new(
        function: &'static dyn RelationFunction,
        arguments: Vec<FunctionArg>,
        context: &'a mut dyn RelationPlannerContext,
    ) -> Result<Self> {
        let (name, docs) = (function.name(), function.docs());
        let names: Vec<&'static str> = docs.arguments.iter().map(|(name, _)| *name).collect();
        let (table_names, value_names) = names.split_at(function.tables().min(names.len()));
        let mut call = Self { function: name, tables: Vec::new(), values: Vec::new(), context };
        let mut named = false;
        for (index, argument) in arguments.into_iter().enumerate() {
            let (given, value) = match argument {
                FunctionArg::Named { name, arg, .. } => (Some(name.value.to_lowercase()), arg),
                FunctionArg::ExprNamed { name, arg, .. } => (Some(name.to_string().to_lowercase()), arg),
                FunctionArg::Unnamed(value) => (None, value),
            };
            let FunctionArgExpr::Expr(value) = value else {
                return plan_err!("{name} cannot take '{value}'; it is called as {}", docs.syntax);
            };
            let Some(given) = given else {
                if named {
                    return plan_err!("{name}: an argument without a name cannot follow one with a name");
                }
                match (table_names.get(index), names.get(index)) {
                    (Some(table), _) => call.push_table(table, value)?,
                    (None, Some(known)) => call.values.push((known, value)),
                    (None, None) => {
                        return plan_err!(
                            "{name} takes at most {} arguments; it is called as {}",
                            names.len(),
                            docs.syntax
                        );
                    }
                }
                continue;
            };
            named = true;
            let Some(known) = value_names.iter().find(|known| **known == given) else {
                let near = nearest(&given, value_names.iter().copied());
                let hint = near.map(|near| format!("; did you mean '{near}'?")).unwrap_or_default();
                return plan_err!("{name} has no argument '{given}'{hint} It is called as {}", docs.syntax);
            };
            if call.has(known) {
                return plan_err!("{name} is given '{known}' twice");
            }
            call.values.push((known, value));
        }
        if call.tables.len() < table_names.len() {
            return plan_err!(
                "{name} needs {} as its first arguments; it is called as {}",
                listed(table_names.iter().copied(), 4),
                docs.syntax
            );
        }
        Ok(call)
    }

    fn push_table(&mut self, argument: &str, value: SqlExpr) -> Result<()> {
        let SqlExpr::Subquery(subquery) = value else {
            return plan_err!(
                "'{argument}' of {} must be a table or a query in parentheses, not {value}",
                self.function
            );
        };
        let plan = self.context.plan(derived(subquery))?;
        let mut seen = std::collections::HashSet::new();
        if let Some(field) = plan.schema().fields().iter().find(|field| !seen.insert(field.name().as_str())) {
            return plan_err!(
                "{}: two columns of '{argument}' are named '{}'; rename one",
                self.function,
                field.name()
            );
        }
        self.tables.push(plan);
        Ok(())
    }

    /// The function's name, for errors.
    pub(crate) fn function(&self) -> &'static str {
        self.function
    }

    /// The plan of a table, from 0. No two of its columns have one name.
    pub(crate) fn table(&self, index: usize) -> Result<&LogicalPlan> {
        match self.tables.get(index) {
            Some(plan) => Ok(plan),
            None => plan_err!("{} lacks a table", self.function),
        }
    }

    /// Whether an argument is there.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.values.iter().any(|(known, _)| *known == name)
    }

    /// A whole number of at least 1.
    pub(crate) fn count(&mut self, name: &str) -> Result<Option<usize>> {
        let Some(value) = self.constant(name)? else { return Ok(None) };
        let number = match value.data_type() {
            whole if whole.is_integer() => value.cast_to(&DataType::Int64).ok(),
            _ => None,
        };
        match number {
            Some(ScalarValue::Int64(Some(count))) if count >= 1 => Ok(usize::try_from(count).ok()),
            _ => self.wrong(name, "a whole number of at least 1", &value),
        }
    }

    /// A number; NaN and infinities do not count as such.
    pub(crate) fn number(&mut self, name: &str) -> Result<Option<f64>> {
        let Some(value) = self.constant(name)? else { return Ok(None) };
        let number =
            if value.data_type().is_numeric() { value.cast_to(&DataType::Float64).ok() } else { None };
        match number {
            Some(ScalarValue::Float64(Some(number))) if number.is_finite() => Ok(Some(number)),
            _ => self.wrong(name, "a number", &value),
        }
    }

    /// A text.
    pub(crate) fn text(&mut self, name: &str) -> Result<Option<String>> {
        let Some(value) = self.constant(name)? else { return Ok(None) };
        match value.try_as_str() {
            Some(Some(text)) => Ok(Some(text.to_owned())),
            _ => self.wrong(name, "text", &value),
        }
    }

    /// The name of a column of `schema`, given as it stands or in quotes.
    pub(crate) fn column(&mut self, name: &str, schema: &DFSchema) -> Result<Option<String>> {
        let column = match self.value(name) {
            None => return Ok(None),
            Some(SqlExpr::Identifier(column)) => self.context.normalize_ident(column),
            Some(_) => match self.text(name)? {
                Some(column) => column,
                None => return Ok(None),
            },
        };
        let names = || schema.fields().iter().map(|field| field.name().as_str());
        if names().any(|known| known == column) {
            return Ok(Some(column));
        }
        let near = nearest(&column, names()).map(|near| format!("; did you mean '{near}'?"));
        plan_err!(
            "'{name}' of {}: there is no column '{column}'{} Columns are: {}",
            self.function,
            near.unwrap_or_else(|| ".".to_owned()),
            listed(names(), 20)
        )
    }

    /// An expression over the columns of a table.
    pub(crate) fn expression(&mut self, name: &str, table: &LogicalPlan) -> Result<Option<Expr>> {
        let Some(value) = self.value(name) else { return Ok(None) };
        self.context.sql_to_expr(value, table.schema()).map(Some)
    }

    /// A value as a plan of one column: of a query in parentheses its rows, of an expression one row.
    pub(crate) fn values(&mut self, name: &str) -> Result<Option<LogicalPlan>> {
        let plan = match self.value(name) {
            None => return Ok(None),
            Some(SqlExpr::Subquery(subquery)) => self.context.plan(derived(subquery))?,
            Some(value) => {
                let value = self.context.sql_to_expr(value, &DFSchema::empty())?;
                LogicalPlanBuilder::empty(true).project([value.alias(name)])?.build()?
            }
        };
        match plan.schema().fields().len() {
            1 => Ok(Some(plan)),
            many => plan_err!("'{name}' of {} must be one column, not {many}", self.function),
        }
    }

    fn value(&self, name: &str) -> Option<SqlExpr> {
        self.values.iter().find(|(known, _)| *known == name).map(|(_, value)| value.clone())
    }

    /// The value of an expression that depends on no row; `None` if it is not given.
    fn constant(&mut self, name: &str) -> Result<Option<ScalarValue>> {
        let Some(value) = self.value(name) else { return Ok(None) };
        let text = value.to_string();
        let expression = self.context.sql_to_expr(value, &DFSchema::empty())?;
        if let Expr::Literal(value, _) = expression {
            return Ok(Some(value));
        }
        let evaluated = create_physical_expr(
            &expression,
            &DFSchema::empty(),
            &ExecutionProps::new(),
            &PhysicalPlanningContext::default(),
        )
        .and_then(|expression| expression.evaluate(&one_row()?)?.into_array(1))
        .and_then(|array| ScalarValue::try_from_array(&array, 0));
        match evaluated {
            Ok(value) => Ok(Some(value)),
            Err(_) => plan_err!("'{name}' of {} must be a constant, not {text}", self.function),
        }
    }

    fn wrong<T>(&self, name: &str, wanted: &str, value: &ScalarValue) -> Result<T> {
        let found = match value {
            ScalarValue::Utf8(Some(text)) => format!("'{text}'"),
            value if value.is_null() => "NULL".to_owned(),
            value => format!("{value} ({})", type_name(&value.data_type())),
        };
        plan_err!("'{name}' of {} must be {wanted}, not {found}", self.function)
    }
}

fn derived(subquery: Box<datafusion::sql::sqlparser::ast::Query>) -> TableFactor {
    TableFactor::Derived { lateral: false, subquery, alias: None, sample: None }
}

fn one_row() -> Result<RecordBatch> {
    let options = RecordBatchOptions::new().with_row_count(Some(1));
    Ok(RecordBatch::try_new_with_options(Schema::empty().into(), Vec::<ArrayRef>::new(), &options)?)
}
