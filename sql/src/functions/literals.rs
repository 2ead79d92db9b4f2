//! Vectors written into a statement, `[0.1, -0.2, ...]`, as one constant.
//!
//! DataFusion makes a call of `make_array` of them, with an argument for each number that every later step of planning
//! visits; vectors have hundreds.

use std::sync::Arc;

use arrow::array::{ArrowPrimitiveType, ListArray};
use arrow::datatypes::{Float64Type, Int64Type};
use datafusion::common::{DFSchema, Result, ScalarValue};
use datafusion::logical_expr::Expr;
use datafusion::logical_expr::planner::{ExprPlanner, PlannerResult};

/// Plans lists of numbers as what `make_array` of them gives; all other lists are left to others.
#[derive(Debug)]
pub(crate) struct Literals;

impl ExprPlanner for Literals {
    fn plan_array_literal(
        &self,
        elements: Vec<Expr>,
        _schema: &DFSchema,
    ) -> Result<PlannerResult<Vec<Expr>>> {
        Ok(match constant(&elements) {
            Some(list) => PlannerResult::Planned(Expr::Literal(list, None)),
            None => PlannerResult::Original(elements),
        })
    }
}

/// The list of whole numbers, or of doubles if one of the elements is one, with NULLs among them.
fn constant(elements: &[Expr]) -> Option<ScalarValue> {
    let (mut whole, mut doubles) = (Vec::with_capacity(elements.len()), false);
    for element in elements {
        match element {
            Expr::Literal(ScalarValue::Int64(Some(value)), None) => whole.push(Some(*value)),
            Expr::Literal(ScalarValue::Null, None) => whole.push(None),
            Expr::Literal(ScalarValue::Float64(Some(_)), None) => doubles = true,
            _ => return None,
        }
    }
    if !doubles {
        // A list without a number has no type.
        return whole.iter().any(Option::is_some).then(|| list::<Int64Type>(whole));
    }
    let values = elements.iter().map(|element| match element {
        Expr::Literal(ScalarValue::Float64(value), _) => *value,
        Expr::Literal(ScalarValue::Int64(value), _) => value.map(|value| value as f64),
        _ => None,
    });
    Some(list::<Float64Type>(values.collect()))
}

fn list<T: ArrowPrimitiveType>(values: Vec<Option<T::Native>>) -> ScalarValue {
    ScalarValue::List(Arc::new(ListArray::from_iter_primitive::<T, _, _>([Some(values)])))
}

#[cfg(test)]
mod tests {
    use crate::testing::{block_on, session};
    use crate::{new_session, query};

    #[test]
    fn lists_of_numbers_are_what_make_array_gives() {
        let context = new_session(1, None).unwrap();
        for elements in [
            "0.1, -0.2, 1e-3, -1e300",
            "1, -2, 3",
            "1, 2.5, -3",
            "9007199254740993, 0.5",
            "9223372036854775807, -9223372036854775808",
            "18446744073709551615, 1",
            "18446744073709551615, 0.5",
            "1, null, 3",
            "null, 1.5",
            "null, null",
            "",
            "0.0, -0.0",
            "1 + 1, 2",
            "'a', 'b'",
            "1, 'b'",
            "true, false",
            "[1, 2], [3, 4]",
            "[1, 2], [3.5]",
            "[1], null",
            "1.0::float, 2",
        ] {
            let sql = |list: &str| format!("select {list} as list, arrow_typeof({list}) as type");
            let ours = block_on(query(&context, &sql(&format!("[{elements}]"))));
            let theirs = block_on(query(&context, &sql(&format!("make_array({elements})"))));
            match (ours, theirs) {
                (Ok(ours), Ok(theirs)) => assert_eq!(ours, theirs, "{elements}"),
                (ours, theirs) => assert!(ours.is_err() && theirs.is_err(), "{elements}: {ours:?}"),
            }
        }
    }

    #[test]
    fn a_list_of_numbers_is_a_constant_of_the_plan() {
        let plan = |sql: &str| {
            let plan = block_on(session().state().create_logical_plan(sql)).unwrap();
            plan.display_indent().to_string()
        };
        for (list, constant) in [("[0.5, -1]", true), ("array[1, 2]", true), ("[n, 1]", false)] {
            let plan = plan(&format!("select {list} as list from music"));
            assert_eq!(plan.contains("make_array"), !constant, "{plan}");
        }
    }
}
