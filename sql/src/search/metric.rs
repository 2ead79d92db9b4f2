//! What near means.

use arrow::array::{Array, ArrayRef, ArrowPrimitiveType};
use arrow::datatypes::{DataType, Float32Type, Float64Type};
use datafusion::common::{Result, exec_err};

use crate::functions::column::{Argument, Rows};
use crate::functions::kernels::{Real, cosine, dot, squared_distance};

/// How far two vectors are apart; less is nearer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Metric {
    /// One minus the cosine of the angle, from 0 to 2.
    Cosine,
    /// Euclidean.
    L2,
    /// The sum of absolute differences.
    L1,
    /// The negative inner product.
    InnerProduct,
}

impl Metric {
    pub(crate) const ALL: [Self; 4] = [Self::Cosine, Self::L2, Self::L1, Self::InnerProduct];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Cosine => "cosine",
            Self::L2 => "l2",
            Self::L1 => "l1",
            Self::InnerProduct => "inner_product",
        }
    }

    /// The distance of two vectors of equal length; `None` if one has no direction and the metric needs one.
    pub(crate) fn distance<T: Real>(self, a: &[T], b: &[T]) -> Option<f64> {
        match self {
            Self::Cosine => cosine(a, b).map(|similarity| 1.0 - similarity),
            Self::L2 => Some(squared_distance(a, b).sqrt()),
            Self::L1 => Some(absolute_distance(a, b)),
            Self::InnerProduct => Some(-dot(a, b)),
        }
    }
}

fn absolute_distance<T: Real>(a: &[T], b: &[T]) -> f64 {
    a.iter().zip(b).map(|(&a, &b)| (a.into() - b.into()).abs()).sum()
}

/// A vector to search for, in the numbers in which distances are taken.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Query {
    Single(Vec<f32>),
    Double(Vec<f64>),
}

impl Query {
    /// The vector of an array's first row; `None` if that is NULL or holds a NULL.
    pub(crate) fn read(array: ArrayRef, element: &DataType) -> Result<Option<Self>> {
        fn first<T: ArrowPrimitiveType>(vectors: &Argument) -> Result<Option<Vec<T::Native>>> {
            Ok(Rows::<T>::new(vectors)?.get(0).map(<[T::Native]>::to_vec))
        }
        if array.is_empty() || array.data_type().is_null() {
            return Ok(None);
        }
        let vectors = Argument::vectors(array, element)?;
        Ok(match element {
            DataType::Float32 => first::<Float32Type>(&vectors)?.map(Self::Single),
            _ => first::<Float64Type>(&vectors)?.map(Self::Double),
        })
    }

    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Single(values) => values.len(),
            Self::Double(values) => values.len(),
        }
    }

    /// The numbers in which distances are taken.
    pub(crate) fn element(&self) -> DataType {
        match self {
            Self::Single(_) => DataType::Float32,
            Self::Double(_) => DataType::Float64,
        }
    }
}

/// The error of two vectors of different lengths.
pub(crate) fn unequal<T>(function: &str, a: usize, b: usize) -> Result<T> {
    exec_err!("{function} needs vectors of equal length, not of {a} and {b} elements")
}
