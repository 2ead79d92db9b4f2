//! From vectors to vectors: `l2_normalize`, `vector_add`, `vector_sub`, `vector_scale`, `vector_concat`, `subvector`.
//!
//! Arguments are those of [`super::vector`]: of `Float32` and `Float16` input the results hold `Float32`. The type of a
//! result has the length of its vectors wherever the types of the arguments say it. An element that is NULL is NULL in
//! the result, as in DataFusion's functions of the same meaning, whose names these ones take.

use arrow::array::{ArrayRef, ArrowPrimitiveType};
use arrow::buffer::NullBuffer;
use arrow::datatypes::{DataType, Float32Type, Float64Type, Int64Type};
use datafusion::common::{Result, ScalarValue, exec_err, plan_err};
use datafusion::logical_expr::{ColumnarValue, ReturnFieldArgs, ScalarUDF};

use super::Docs;
use super::column::{
    Argument, Lists, Rows, common_element, element_of, equal_lengths, fixed_length, list_of, with_element,
};
use super::kernels::{Real, squared_norm};
use super::scalar::{Scalar, functions, types_of};
use crate::types::type_name;

/// The functions.
pub fn all() -> Vec<ScalarUDF> {
    functions(Op::ALL)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Op {
    Normalize,
    Add,
    Sub,
    Scale,
    Concat,
    Subvector,
}

impl Op {
    const ALL: [Self; 6] =
        [Self::Normalize, Self::Add, Self::Sub, Self::Scale, Self::Concat, Self::Subvector];

    /// How many arguments, and how many of them are vectors; the others are numbers.
    fn arity(self) -> (usize, usize) {
        match self {
            Self::Normalize => (1, 1),
            Self::Add | Self::Sub | Self::Concat => (2, 2),
            Self::Scale => (2, 1),
            Self::Subvector => (3, 1),
        }
    }
}

impl Scalar for Op {
    fn name(self) -> &'static str {
        match self {
            Self::Normalize => "l2_normalize",
            Self::Add => "vector_add",
            Self::Sub => "vector_sub",
            Self::Scale => "vector_scale",
            Self::Concat => "vector_concat",
            Self::Subvector => "subvector",
        }
    }

    fn aliases(self) -> &'static [&'static str] {
        match self {
            Self::Normalize => &["array_normalize", "list_normalize"],
            Self::Add => &["array_add", "list_add"],
            Self::Sub => &["array_subtract", "list_subtract"],
            Self::Scale => &["array_scale", "list_scale"],
            Self::Concat | Self::Subvector => &[],
        }
    }

    fn docs(self) -> Docs {
        const A: (&str, &str) =
            ("a", "A vector: a list of numbers of any kind, or a literal such as [0.1, 0.2].");
        const PAIR: &[(&str, &str)] = &[A, ("b", "A vector of as many elements.")];
        const ANY: &[(&str, &str)] = &[A, ("b", "A vector of any length.")];
        const SCALE: &[(&str, &str)] = &[A, ("factor", "The number.")];
        const PART: &[(&str, &str)] = &[
            A,
            ("from", "The place of the first element, 1 or more."),
            ("length", "How many elements, 0 or more: a number in the statement, as the type depends on it."),
        ];
        let (description, syntax, example, arguments) = match self {
            Self::Normalize => (
                "The vector divided by its Euclidean norm, so that it has length 1. NULL if it is NULL, holds a NULL or \
                 is zero.",
                "l2_normalize(a)",
                "select l2_normalize([3.0, 4.0]); -- [0.6, 0.8]",
                &PAIR[..1],
            ),
            Self::Add => (
                "The sum of two vectors, element by element. NULL if one is NULL; an element is NULL if one of the two is.",
                "vector_add(a, b)",
                "select vector_add([1.0, 2.0], [3.0, 4.0]); -- [4, 6]",
                PAIR,
            ),
            Self::Sub => (
                "The first vector minus the second, element by element. NULL if one is NULL; an element is NULL if one \
                 of the two is.",
                "vector_sub(a, b)",
                "select vector_sub([3.0, 4.0], [1.0, 1.0]); -- [2, 3]",
                PAIR,
            ),
            Self::Scale => (
                "The vector times a number. NULL if one is NULL; an element that is NULL stays NULL.",
                "vector_scale(a, factor)",
                "select vector_scale([1.0, 2.0], 0.5); -- [0.5, 1]",
                SCALE,
            ),
            Self::Concat => (
                "The elements of the first vector, then those of the second. NULL if one is NULL.",
                "vector_concat(a, b)",
                "select vector_concat([1.0, 2.0], [3.0]); -- [1, 2, 3]",
                ANY,
            ),
            Self::Subvector => (
                "The part of a vector that begins at a place, counted from 1, and has a number of elements: a subspace \
                 of an embedding. NULL if the vector or the place is NULL; a part that does not lie within the vector is \
                 an error.",
                "subvector(a, from, length)",
                "select subvector([1.0, 2.0, 3.0], 2, 2); -- [2, 3]",
                PART,
            ),
        };
        Docs { section: "Vector Functions", description, syntax, example, arguments }
    }

    fn coerce(self, arguments: &[DataType]) -> Result<Vec<DataType>> {
        let (name, (arity, vectors)) = (self.name(), self.arity());
        if arguments.len() != arity {
            return plan_err!("{name} takes {arity} argument(s), not {}", arguments.len());
        }
        let (lists, numbers) = arguments.split_at(vectors);
        if self != Op::Concat {
            equal_lengths(name, lists)?;
        }
        let element = common_element(name, lists)?;
        let number = if self == Op::Subvector { DataType::Int64 } else { element.clone() };
        let lists = lists.iter().map(|list| Ok(with_element(list, &element)));
        let numbers = numbers.iter().zip(vectors + 1..).map(|(given, place)| {
            if given.is_numeric() || given.is_null() {
                return Ok(number.clone());
            }
            plan_err!("argument {place} of {name} must be a number, not {}", type_name(given))
        });
        lists.chain(numbers).collect()
    }

    fn result(self, arguments: &[DataType]) -> Result<DataType> {
        let (name, (_, vectors)) = (self.name(), self.arity());
        let lists = arguments.get(..vectors).unwrap_or(arguments);
        let element = common_element(name, lists)?;
        let mut lengths = lists.iter().map(fixed_length);
        let length = match self {
            Op::Concat => lengths.try_fold(0, |sum, length| Some(sum + length?)),
            Op::Subvector => return plan_err!("the length of {name} must be a number in the statement"),
            _ => lengths.flatten().next(),
        };
        Ok(list_of(element, length, lists))
    }

    fn result_of(self, arguments: &ReturnFieldArgs) -> Result<DataType> {
        let types = types_of(arguments);
        match (self, arguments.scalar_arguments) {
            (Self::Subvector, [_, from, Some(length)]) => part_type(&types, *from, length),
            _ => self.result(&types),
        }
    }

    fn evaluate(self, arguments: Vec<ColumnarValue>, rows: usize, result: &DataType) -> Result<ArrayRef> {
        let arguments = arguments.into_iter().map(Argument::new).collect::<Result<Vec<_>>>()?;
        match element_of(result).map(|field| field.data_type()) {
            Some(DataType::Float32) => {
                evaluate::<Float32Type>(self, &arguments, rows, result)?.finish(result)
            }
            _ => evaluate::<Float64Type>(self, &arguments, rows, result)?.finish(result),
        }
    }
}

/// The type of a part; fails where the types and the numbers of the statement already say that it does not fit.
fn part_type(types: &[DataType], from: Option<&ScalarValue>, length: &ScalarValue) -> Result<DataType> {
    let number = |value: &ScalarValue| match value.cast_to(&DataType::Int64) {
        Ok(ScalarValue::Int64(number)) => number,
        _ => None,
    };
    let lists = types.get(..1).unwrap_or_default();
    let length = number(length).and_then(|length| usize::try_from(length).ok());
    let Some(length) = length.filter(|length| i32::try_from(*length).is_ok()) else {
        return plan_err!("the length of subvector must be a number of at least 0 in the statement");
    };
    if let (Some(from), Some(elements)) = (from.and_then(number), lists.first().and_then(fixed_length)) {
        part(from, length, elements)?;
    }
    Ok(list_of(common_element("subvector", lists)?, Some(length), lists))
}

/// Where a part begins, counted from 0.
fn part(from: i64, length: usize, elements: usize) -> Result<usize> {
    let start = usize::try_from(from).ok().and_then(|from| from.checked_sub(1));
    match start.filter(|start| start.checked_add(length).is_some_and(|end| end <= elements)) {
        Some(start) => Ok(start),
        None => plan_err!(
            "subvector takes a part within the vector: {length} elements from place {from} do not lie within {elements} elements"
        ),
    }
}

fn evaluate<T: ArrowPrimitiveType>(
    op: Op,
    arguments: &[Argument],
    rows: usize,
    result: &DataType,
) -> Result<Lists<T>>
where
    T::Native: Real,
{
    let name = op.name();
    let Some(first) = arguments.first() else { return exec_err!("{name} takes arguments") };
    let a = Rows::<T>::new(first)?;
    let mut lists = Lists::new(rows, result);
    match (op, arguments) {
        (Op::Normalize, _) => {
            for row in 0..rows {
                let Some(vector) = a.get(row) else {
                    lists.null();
                    continue;
                };
                let norm = squared_norm(vector).sqrt();
                if norm == 0.0 && !vector.is_empty() {
                    lists.null();
                    continue;
                }
                let inverse = 1.0 / norm;
                // Only the smallest and the largest numbers need the division in doubles.
                if inverse.is_normal() && (1e-30..1e30).contains(&norm) {
                    let inverse = T::Native::nearest(inverse);
                    lists.push(vector.iter().map(|&x| x * inverse), None)?;
                } else {
                    lists.push(vector.iter().map(|&x| T::Native::nearest(x.into() / norm)), None)?;
                }
            }
        }
        (Op::Scale, [_, factor]) => {
            for row in 0..rows {
                match (a.with_nulls(row), factor.number::<T>(row)) {
                    (Some((vector, nulls)), Some(factor)) => {
                        lists.push(vector.iter().map(|&x| x * factor), nulls)?;
                    }
                    _ => lists.null(),
                }
            }
        }
        (Op::Subvector, [_, from, length]) => {
            for row in 0..rows {
                let numbers = (from.number::<Int64Type>(row), length.number::<Int64Type>(row));
                let (Some((vector, nulls)), (Some(from), Some(length))) = (a.with_nulls(row), numbers) else {
                    lists.null();
                    continue;
                };
                let length = usize::try_from(length).unwrap_or(usize::MAX);
                let start = part(from, length, vector.len())?;
                let nulls = nulls.map(|nulls| nulls.slice(start, length));
                lists.push(vector[start..start + length].iter().copied(), nulls)?;
            }
        }
        (_, [_, second]) => {
            let b = Rows::<T>::new(second)?;
            for row in 0..rows {
                let (Some((x, x_nulls)), Some((y, y_nulls))) = (a.with_nulls(row), b.with_nulls(row)) else {
                    lists.null();
                    continue;
                };
                if op == Op::Concat {
                    lists.push_pair((x, x_nulls), (y, y_nulls))?;
                    continue;
                }
                if x.len() != y.len() {
                    return exec_err!(
                        "{name} needs vectors of equal length, not of {} and {} elements",
                        x.len(),
                        y.len()
                    );
                }
                let nulls = NullBuffer::union(x_nulls.as_ref(), y_nulls.as_ref());
                let pairs = x.iter().zip(y);
                match op {
                    Op::Add => lists.push(pairs.map(|(&x, &y)| x + y), nulls)?,
                    _ => lists.push(pairs.map(|(&x, &y)| x - y), nulls)?,
                }
            }
        }
        _ => return exec_err!("{name} takes {} argument(s)", op.arity().0),
    }
    Ok(lists)
}
