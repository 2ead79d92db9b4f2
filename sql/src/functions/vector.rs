//! From vectors to one number: `cosine_similarity`, `cosine_distance`, `l2_distance`, `l1_distance`, `inner_product`,
//! `negative_inner_product`, `vector_norm`.
//!
//! A vector is a `FixedSizeList`, `List` or `LargeList` of numbers, or a literal such as
//! `[0.1, 0.2]`. If either argument holds `Float32` or `Float16`, or both hold integers of at most 16 bits, both are
//! taken as `Float32` and summed in `f32` lanes; otherwise both are taken as `Float64`. The result is a `Float64`, so
//! that it mixes with literals, `round` and `avg`; of `f32` input about six digits are good.
//!
//! NULL, a vector that holds a NULL, and the direction of a zero vector all give NULL. Vectors of
//! different lengths are an error: at planning where the types say so, else when the row is met.

use std::sync::Arc;

use arrow::array::{ArrayRef, ArrowPrimitiveType, Float64Array};
use arrow::datatypes::{DataType, Float32Type, Float64Type};
use datafusion::common::{Result, exec_err, plan_err};
use datafusion::logical_expr::{ColumnarValue, ScalarUDF};

use super::Docs;
use super::column::{Argument, Rows, common_element, equal_lengths, with_element};
use super::kernels::{Real, absolute_distance, cosine, dot, squared_distance, squared_norm};
use super::scalar::{Scalar, functions};

/// The vector functions.
pub fn all() -> Vec<ScalarUDF> {
    functions(Op::ALL)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Op {
    CosineSimilarity,
    CosineDistance,
    L2Distance,
    L1Distance,
    InnerProduct,
    NegativeInnerProduct,
    Norm,
}

impl Op {
    const ALL: [Self; 7] = [
        Self::CosineSimilarity,
        Self::CosineDistance,
        Self::L2Distance,
        Self::L1Distance,
        Self::InnerProduct,
        Self::NegativeInnerProduct,
        Self::Norm,
    ];

    fn arity(self) -> usize {
        if self == Self::Norm { 1 } else { 2 }
    }

    fn apply<T: Real>(self, a: &[T], b: &[T]) -> Option<f64> {
        match self {
            Self::CosineSimilarity => cosine(a, b),
            Self::CosineDistance => cosine(a, b).map(|similarity| 1.0 - similarity),
            Self::L2Distance => Some(squared_distance(a, b).sqrt()),
            Self::L1Distance => Some(absolute_distance(a, b)),
            Self::InnerProduct => Some(dot(a, b)),
            Self::NegativeInnerProduct => Some(-dot(a, b)),
            Self::Norm => Some(squared_norm(a).sqrt()),
        }
    }
}

impl Scalar for Op {
    fn name(self) -> &'static str {
        match self {
            Self::CosineSimilarity => "cosine_similarity",
            Self::CosineDistance => "cosine_distance",
            Self::L2Distance => "l2_distance",
            Self::L1Distance => "l1_distance",
            Self::InnerProduct => "inner_product",
            Self::NegativeInnerProduct => "negative_inner_product",
            Self::Norm => "vector_norm",
        }
    }

    fn aliases(self) -> &'static [&'static str] {
        match self {
            Self::CosineSimilarity => &["array_cosine_similarity", "list_cosine_similarity"],
            Self::CosineDistance => &["array_cosine_distance", "list_cosine_distance"],
            Self::L2Distance => &["array_distance", "list_distance"],
            Self::L1Distance => &[],
            Self::InnerProduct => &[
                "dot_product",
                "array_inner_product",
                "list_inner_product",
                "array_dot_product",
                "list_dot_product",
            ],
            Self::NegativeInnerProduct => &["array_negative_inner_product", "list_negative_inner_product"],
            Self::Norm => &["l2_norm"],
        }
    }

    fn docs(self) -> Docs {
        const PAIR: &[(&str, &str)] = &[
            ("a", "A vector: a list of numbers of any kind, or a literal such as [0.1, 0.2]."),
            ("b", "A vector of as many elements."),
        ];
        let (description, syntax, example, arguments) = match self {
            Self::CosineSimilarity => (
                "Cosine of the angle between two vectors, from -1 to 1. NULL if one is NULL, holds a NULL or is zero.",
                "cosine_similarity(a, b)",
                "select cosine_similarity([1.0, 0.0], [1.0, 1.0]); -- 0.7071",
                PAIR,
            ),
            Self::CosineDistance => (
                "One minus the cosine similarity of two vectors, from 0 to 2; also written a <=> b. NULL if one is NULL, holds a \
                 NULL or is zero.",
                "cosine_distance(a, b)",
                "select cosine_distance([1.0, 0.0], [0.0, 2.0]); -- 1",
                PAIR,
            ),
            Self::L2Distance => (
                "Euclidean distance of two vectors; also written a <-> b. NULL if one is NULL or holds a NULL.",
                "l2_distance(a, b)",
                "select l2_distance([1.0, 2.0], [4.0, 6.0]); -- 5",
                PAIR,
            ),
            Self::L1Distance => (
                "Manhattan distance of two vectors: the sum of the absolute differences; also written a <+> b. NULL if one \
                 is NULL or holds a NULL.",
                "l1_distance(a, b)",
                "select l1_distance([1.0, 2.0], [4.0, 6.0]); -- 7",
                PAIR,
            ),
            Self::InnerProduct => (
                "Inner (dot) product of two vectors. NULL if one is NULL or holds a NULL.",
                "inner_product(a, b)",
                "select inner_product([1.0, 2.0], [3.0, 4.0]); -- 11",
                PAIR,
            ),
            Self::NegativeInnerProduct => (
                "Minus the inner product of two vectors, so that the nearest come first in ascending order; also written \
                 a <#> b. NULL if one is NULL or holds a NULL.",
                "negative_inner_product(a, b)",
                "select negative_inner_product([1.0, 2.0], [3.0, 4.0]); -- -11",
                PAIR,
            ),
            Self::Norm => (
                "Euclidean norm (length) of a vector. NULL if it is NULL or holds a NULL.",
                "vector_norm(a)",
                "select vector_norm([3.0, 4.0]); -- 5",
                &PAIR[..1],
            ),
        };
        Docs { section: "Vector Functions", description, syntax, example, arguments }
    }

    fn coerce(self, arguments: &[DataType]) -> Result<Vec<DataType>> {
        let (name, arity) = (self.name(), self.arity());
        if arguments.len() != arity {
            return plan_err!("{name} takes {arity} vector(s), not {} argument(s)", arguments.len());
        }
        equal_lengths(name, arguments)?;
        let wanted = common_element(name, arguments)?;
        Ok(arguments.iter().map(|argument| with_element(argument, &wanted)).collect())
    }

    fn result(self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Float64)
    }

    fn evaluate(self, arguments: Vec<ColumnarValue>, rows: usize, _: &DataType) -> Result<ArrayRef> {
        let arguments = arguments.into_iter().map(Argument::new).collect::<Result<Vec<_>>>()?;
        let (first, second) = match arguments.as_slice() {
            [a] => (a, a),
            [a, b] => (a, b),
            _ => return exec_err!("{} takes {} vector(s)", self.name(), self.arity()),
        };
        Ok(Arc::new(match first.element() {
            Some(DataType::Float32) => evaluate::<Float32Type>(self, first, second, rows)?,
            _ => evaluate::<Float64Type>(self, first, second, rows)?,
        }))
    }
}

fn evaluate<T: ArrowPrimitiveType>(
    op: Op,
    first: &Argument,
    second: &Argument,
    rows: usize,
) -> Result<Float64Array>
where
    T::Native: Real,
{
    let (first, second) = (Rows::<T>::new(first)?, Rows::<T>::new(second)?);
    (0..rows)
        .map(|row| {
            let (Some(a), Some(b)) = (first.get(row), second.get(row)) else { return Ok(None) };
            if a.len() != b.len() {
                return exec_err!(
                    "{} needs vectors of equal length, not of {} and {} elements",
                    op.name(),
                    a.len(),
                    b.len()
                );
            }
            Ok(op.apply(a, b))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use crate::testing::{cells, values};

    #[test]
    fn literals_give_hand_computed_values() {
        let eighth = values("select cosine_similarity([1.0, 0.0], [1.0, 1.0])")[0].unwrap();
        assert!((eighth - 0.5f64.sqrt()).abs() < 1e-15, "the cosine of an eighth of a turn, not {eighth}");
        assert_eq!(values("select cosine_similarity([1, 2], [-2, -4])"), [Some(-1.0)]);
        assert_eq!(values("select cosine_distance([1.0, 0.0], [0.0, 2.0])"), [Some(1.0)]);
        assert_eq!(values("select l2_distance([1.0, 2.0], [4.0, 6.0])"), [Some(5.0)]);
        assert_eq!(values("select inner_product([1.0, 2.0], [3.0, 4.0])"), [Some(11.0)]);
        assert_eq!(values("select vector_norm([3.0, 4.0])"), [Some(5.0)]);
        assert_eq!(values("select inner_product([], [])"), [Some(0.0)]);
    }

    #[test]
    fn nulls_and_zero_vectors_give_null() {
        for sql in [
            "select l2_distance(null, [1.0])",
            "select l2_distance([1.0], null)",
            "select l2_distance(null, null)",
            "select inner_product([1.0, null], [1.0, 2.0])",
            "select cosine_similarity([0.0, 0.0], [1.0, 2.0])",
            "select cosine_distance([1.0, 2.0], [0.0, 0.0])",
            "select vector_norm(null)",
        ] {
            assert_eq!(values(sql), [None], "{sql}");
        }
    }

    #[test]
    fn columns_of_every_list_type_agree() {
        // Rows of `vector` (float[3]): [1, 2, 2], [0, 3, 4], NULL.
        assert_eq!(values("select vector_norm(vector) from music"), [Some(3.0), Some(5.0), None]);
        assert_eq!(values("select inner_product(vector, vector) from music"), [Some(9.0), Some(25.0), None]);
        for list in ["List(Float32)", "LargeList(Float32)", "List(Float64)", "LargeList(Float64)"] {
            let sql = format!("select l2_distance(vector, arrow_cast([1, 2, 2], '{list}')) from music");
            assert_eq!(values(&sql), [Some(0.0), Some(6.0f64.sqrt()), None], "{list}");
            let sql = format!("select cosine_similarity(arrow_cast(vector, '{list}'), vector) from music");
            assert_eq!(values(&sql), [Some(1.0), Some(1.0), None], "{list}");
        }
        // A sliced column: the filter drops the first row.
        assert_eq!(
            values("select vector_norm(vector) from (select * from music order by n limit 1 offset 1)"),
            [Some(5.0)]
        );
        assert_eq!(
            values(
                "select l2_distance(a.vector, b.vector) from music a join music b on b.n = a.n + 1 where a.n = 1"
            ),
            [Some(6.0f64.sqrt())]
        );
    }

    #[test]
    fn our_functions_stand_in_for_datafusions() {
        for name in ["dot_product", "inner_product"] {
            assert_eq!(
                values(&format!("select {name}(vector, [1, 1, 1]) from music")),
                [Some(5.0), Some(7.0), None]
            );
        }
        for name in ["l2_distance", "array_distance", "list_distance"] {
            assert_eq!(values(&format!("select {name}([0, 0], [3, 4])")), [Some(5.0)]);
        }
        assert_eq!(values("select list_cosine_distance([1, 0], [1, 0])"), [Some(0.0)]);
        // DataFusion's own name in the schema would betray that ours is not the one called.
        assert_eq!(cells("select arrow_typeof(dot_product(vector, vector)) from music limit 1"), ["Float64"]);
        let context = crate::testing::session();
        let function = context.state().scalar_functions().get("dot_product").cloned().unwrap();
        assert!(function.documentation().unwrap().doc_section.label == "Vector Functions");
    }

    #[test]
    fn nearest_neighbours_in_sql() {
        let sql = "select name from music order by cosine_similarity(vector, [0.0, 1.0, 1.0]) desc nulls last limit 2";
        assert_eq!(cells(sql), ["anthem", "drift"]);
    }
}
