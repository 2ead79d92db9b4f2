//! What near means.

use arrow::array::{Array, ArrayRef, ArrowPrimitiveType};
use arrow::datatypes::{DataType, Float32Type, Float64Type};
use datafusion::common::{Result, exec_err};
use loev_ops::search::Measure;

use crate::functions::column::{Argument, Rows};
use crate::functions::kernels::{Real, absolute_distance, cosine, dot, squared_distance, squared_norm};

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
    /// The cosine of the angle: what one of the functions gives, and no distance.
    Similarity,
    /// The inner product, likewise.
    Product,
}

impl Metric {
    /// Those that are distances.
    pub(crate) const ALL: [Self; 4] = [Self::Cosine, Self::L2, Self::L1, Self::InnerProduct];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Cosine => "cosine",
            Self::L2 => "l2",
            Self::L1 => "l1",
            Self::InnerProduct => "inner_product",
            Self::Similarity => "cosine_similarity",
            Self::Product => "product",
        }
    }

    /// What a function gives.
    pub(crate) fn of_function(name: &str) -> Option<Self> {
        Some(match name {
            "cosine_distance" => Self::Cosine,
            "cosine_similarity" => Self::Similarity,
            "l2_distance" => Self::L2,
            "l1_distance" => Self::L1,
            "inner_product" => Self::Product,
            "negative_inner_product" => Self::InnerProduct,
            _ => return None,
        })
    }

    /// What is measured to come near it.
    pub(super) fn measure(self) -> Measure {
        match self {
            Self::Cosine | Self::Similarity | Self::InnerProduct | Self::Product => Measure::Product,
            Self::L2 => Measure::SquaredDistance,
            Self::L1 => Measure::AbsoluteDistance,
        }
    }

    /// The value from its measure in `f32`, and how far that may be from the value in full; NaN where the measure does
    /// not tell. `norm` is the query's.
    #[inline(always)]
    pub(super) fn approximate(self, norm: f32, rounding: f32, first: f32, second: f32) -> (f32, f32) {
        /// More than what is lost below the least `f32`.
        const LEAST: f32 = 1e-34;
        let told = |known: bool, value: f32| if known { value } else { f32::NAN };
        let row = second.sqrt();
        match self {
            Self::Cosine | Self::Similarity => {
                let cosine = told(in_range(second) && in_range(norm), first / (row * norm));
                (if self == Self::Cosine { 1.0 - cosine } else { cosine }, 2.0 * rounding)
            }
            Self::InnerProduct | Self::Product => {
                // A square of 0 may be that of no vector at all.
                let product = told(first.is_finite() && second.is_finite() && second > 0.0, first);
                (if self == Self::Product { product } else { -product }, 2.0 * rounding * row * norm + LEAST)
            }
            Self::L2 => {
                let distance = told(in_range(first), first.sqrt());
                (distance, 2.0 * rounding * distance)
            }
            // A sum of 0 may be that of no vector at all.
            Self::L1 => (told(first.is_finite() && first > 0.0, first), 2.0 * rounding * first + LEAST),
        }
    }

    /// The distance of two vectors of equal length; `None` if one has no direction and the metric needs one.
    pub(crate) fn distance<T: Real>(self, a: &[T], b: &[T]) -> Option<f64> {
        match self {
            Self::Cosine => cosine(a, b).map(|similarity| 1.0 - similarity),
            Self::L2 => Some(squared_distance(a, b).sqrt()),
            Self::L1 => Some(absolute_distance(a, b)),
            Self::InnerProduct => Some(-dot(a, b)),
            Self::Similarity => cosine(a, b),
            Self::Product => Some(dot(a, b)),
        }
    }
}

/// Whether a square taken in `f32` has neither vanished nor overflown.
#[inline(always)]
pub(super) fn in_range(square: f32) -> bool {
    (1e-30..1e30).contains(&square)
}

/// A vector to search for, in the numbers in which distances are taken.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Query {
    /// NULL: no vector has a value with it.
    Null,
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

    /// Its length as an arrow, as far as `f32` tells.
    pub(super) fn norm(&self) -> f32 {
        match self {
            Self::Null => 0.0,
            Self::Single(values) => squared_norm(values).sqrt() as f32,
            Self::Double(values) => squared_norm(values).sqrt() as f32,
        }
    }

    /// The numbers in which distances are taken.
    pub(crate) fn element(&self) -> DataType {
        match self {
            Self::Single(_) => DataType::Float32,
            Self::Null | Self::Double(_) => DataType::Float64,
        }
    }
}

/// The error of two vectors of different lengths.
pub(crate) fn unequal<T>(function: &str, a: usize, b: usize) -> Result<T> {
    exec_err!("{function} needs vectors of equal length, not of {a} and {b} elements")
}
