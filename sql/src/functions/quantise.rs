//! Vectors in fewer bytes: `quantize_int8`, `quantize_binary`, and `hamming_distance` of the latter.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, ArrowPrimitiveType, AsArray, BinaryBuilder, FixedSizeBinaryBuilder, Float32Builder,
    Int64Array, StructArray,
};
use arrow::buffer::NullBuffer;
use arrow::datatypes::{DataType, Field, Fields, Float32Type, Float64Type, Int8Type};
use datafusion::common::{Result, exec_err, plan_err};
use datafusion::logical_expr::{ColumnarValue, ScalarUDF};

use super::Docs;
use super::column::{Argument, Lists, Rows, common_element, fixed_length, list_of, with_element};
use super::kernels::{Real, greatest};
use super::scalar::{Scalar, functions};
use crate::types::type_name;

/// The greatest code: codes are symmetric, so that minus a vector has minus its codes.
const GREATEST: f64 = 127.0;

/// The functions.
pub fn all() -> Vec<ScalarUDF> {
    functions(Op::ALL)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Op {
    Int8,
    Binary,
    Hamming,
}

impl Op {
    const ALL: [Self; 3] = [Self::Int8, Self::Binary, Self::Hamming];
}

impl Scalar for Op {
    fn name(self) -> &'static str {
        match self {
            Self::Int8 => "quantize_int8",
            Self::Binary => "quantize_binary",
            Self::Hamming => "hamming_distance",
        }
    }

    fn aliases(self) -> &'static [&'static str] {
        match self {
            Self::Binary => &["binary_quantize"],
            Self::Int8 | Self::Hamming => &[],
        }
    }

    fn docs(self) -> Docs {
        const VECTOR: &[(&str, &str)] =
            &[("a", "A vector: a list of numbers of any kind, or a literal such as [0.1, 0.2].")];
        let (description, syntax, example, arguments): (_, _, _, &'static [(&str, &str)]) = match self {
            Self::Int8 => (
                "The vector in bytes: a struct of codes, whole numbers from -127 to 127, and scale, the largest absolute \
                 element divided by 127. An element is its code times the scale, at most half a scale off: \
                 vector_scale(q.codes, q.scale) gives the vector back. As the scale is one number per vector, \
                 cosine_similarity of codes needs no scale, and inner_product of codes is multiplied by both. NULL if the \
                 vector is NULL, holds a NULL or is not finite.",
                "quantize_int8(a)",
                "select quantize_int8([1.0, -0.5, 0.0]); -- {codes: [127, -64, 0], scale: 0.007874}",
                VECTOR,
            ),
            Self::Binary => (
                "The signs of a vector in bits: 1 where an element is above 0, the first element in the highest bit of the \
                 first byte (as numpy.packbits has them), the last byte filled with 0. hamming_distance of such bits \
                 divided by the number of elements estimates the angle between two vectors, as a share of half a turn. \
                 NULL if the vector is NULL or holds a NULL.",
                "quantize_binary(a)",
                "select quantize_binary([1.0, -0.5, 0.0, 2.0]); -- 90",
                VECTOR,
            ),
            Self::Hamming => (
                "How many bits differ. NULL if one is NULL.",
                "hamming_distance(a, b)",
                "select hamming_distance(quantize_binary([1.0, -0.5]), quantize_binary([1.0, 2.0])); -- 1",
                &[("a", "Bytes, as quantize_binary makes them."), ("b", "As many bytes.")],
            ),
        };
        Docs { section: "Vector Functions", description, syntax, example, arguments }
    }

    fn coerce(self, arguments: &[DataType]) -> Result<Vec<DataType>> {
        let name = self.name();
        match (self, arguments) {
            (Op::Hamming, [a, b]) => bits(a, b),
            (Op::Int8 | Op::Binary, [list]) => {
                Ok(vec![with_element(list, &common_element(name, arguments)?)])
            }
            (Op::Hamming, _) => plan_err!("{name} takes 2 arguments, not {}", arguments.len()),
            _ => plan_err!("{name} takes 1 vector, not {} argument(s)", arguments.len()),
        }
    }

    fn result(self, arguments: &[DataType]) -> Result<DataType> {
        let length = arguments.first().and_then(fixed_length);
        let bytes = length.and_then(|length| i32::try_from(length.div_ceil(8)).ok());
        Ok(match (self, bytes) {
            (Op::Int8, _) => DataType::Struct(fields(arguments)),
            (Op::Binary, Some(bytes)) => DataType::FixedSizeBinary(bytes),
            (Op::Binary, None) => DataType::Binary,
            (Op::Hamming, _) => DataType::Int64,
        })
    }

    fn evaluate(self, arguments: Vec<ColumnarValue>, rows: usize, result: &DataType) -> Result<ArrayRef> {
        match arguments.as_slice() {
            [a, b] => Ok(Arc::new(hamming(&a.to_array(rows)?, &b.to_array(rows)?)?)),
            [vector] => {
                let argument = Argument::new(vector.clone())?;
                match (self, argument.element()) {
                    (Self::Int8, Some(DataType::Float32)) => int8::<Float32Type>(&argument, rows, result),
                    (Self::Int8, _) => int8::<Float64Type>(&argument, rows, result),
                    (_, Some(DataType::Float32)) => binary::<Float32Type>(&argument, rows, result),
                    _ => binary::<Float64Type>(&argument, rows, result),
                }
            }
            _ => exec_err!("{} takes other arguments", self.name()),
        }
    }
}

/// The fields of a vector in bytes.
fn fields(arguments: &[DataType]) -> Fields {
    let codes = list_of(DataType::Int8, arguments.first().and_then(fixed_length), arguments);
    Fields::from(vec![Field::new("codes", codes, true), Field::new("scale", DataType::Float32, true)])
}

/// What two columns of bits are taken as.
fn bits(a: &DataType, b: &DataType) -> Result<Vec<DataType>> {
    use DataType::{Binary, BinaryView, FixedSizeBinary, LargeBinary, Null};
    for given in [a, b] {
        if !matches!(given, Binary | LargeBinary | BinaryView | FixedSizeBinary(_) | Null) {
            let found = type_name(given);
            return plan_err!("hamming_distance takes bytes, as quantize_binary makes them, not {found}");
        }
    }
    match (a, b) {
        (FixedSizeBinary(x), FixedSizeBinary(y)) if x != y => {
            plan_err!("hamming_distance needs as many bytes on both sides, not {x} and {y}")
        }
        (FixedSizeBinary(_), FixedSizeBinary(_)) => Ok(vec![a.clone(), b.clone()]),
        _ => Ok(vec![Binary, Binary]),
    }
}

fn int8<T: ArrowPrimitiveType>(argument: &Argument, rows: usize, result: &DataType) -> Result<ArrayRef>
where
    T::Native: Real,
{
    let DataType::Struct(fields) = result else { return exec_err!("quantize_int8 makes a struct") };
    let Some(codes_type) = fields.first().map(|field| field.data_type()) else {
        return exec_err!("quantize_int8 makes a struct of two fields");
    };
    let vectors = Rows::<T>::new(argument)?;
    let mut codes = Lists::<Int8Type>::new(rows, codes_type);
    let mut scales = Float32Builder::with_capacity(rows);
    let mut valid = Vec::with_capacity(rows);
    for row in 0..rows {
        let scaled = vectors.get(row).and_then(|vector| Some((vector, scale(vector)?)));
        valid.push(scaled.is_some());
        match scaled {
            Some((vector, scale)) => {
                let inverse = T::Native::nearest(if scale > 0.0 { 1.0 / f64::from(scale) } else { 0.0 });
                codes.push(vector.iter().map(|&x| (x * inverse).nearest_code()), None)?;
                scales.append_value(scale);
            }
            None => {
                codes.null();
                scales.append_null();
            }
        }
    }
    let columns = vec![codes.finish(codes_type)?, Arc::new(scales.finish()) as ArrayRef];
    Ok(Arc::new(StructArray::try_new(fields.clone(), columns, Some(NullBuffer::from(valid)))?))
}

/// The width of a step, 0 where it would be no normal number; `None` for a vector that is not finite.
fn scale<T: Real>(vector: &[T]) -> Option<f32> {
    let scale = (greatest(vector)? / GREATEST) as f32;
    let scale = if scale < f32::MIN_POSITIVE { 0.0 } else { scale };
    scale.is_finite().then_some(scale)
}

fn binary<T: ArrowPrimitiveType>(argument: &Argument, rows: usize, result: &DataType) -> Result<ArrayRef>
where
    T::Native: Real,
{
    let vectors = Rows::<T>::new(argument)?;
    let mut packed = Vec::new();
    let pack = |vector: &[T::Native], packed: &mut Vec<u8>| {
        packed.clear();
        packed.extend(vector.chunks(8).map(|eight| {
            let places = eight.iter().zip((0..8).rev());
            places.fold(0u8, |byte, (&x, place)| byte | u8::from(x > T::Native::default()) << place)
        }));
    };
    if let DataType::FixedSizeBinary(bytes) = result {
        let mut builder = FixedSizeBinaryBuilder::with_capacity(rows, *bytes);
        for row in 0..rows {
            match vectors.get(row) {
                Some(vector) => {
                    pack(vector, &mut packed);
                    builder.append_value(&packed)?;
                }
                None => builder.append_null(),
            }
        }
        return Ok(Arc::new(builder.finish()));
    }
    let mut builder = BinaryBuilder::with_capacity(rows, 0);
    for row in 0..rows {
        match vectors.get(row) {
            Some(vector) => {
                pack(vector, &mut packed);
                builder.append_value(&packed);
            }
            None => builder.append_null(),
        }
    }
    Ok(Arc::new(builder.finish()))
}

fn hamming(a: &ArrayRef, b: &ArrayRef) -> Result<Int64Array> {
    fn bytes(array: &ArrayRef, row: usize) -> Option<&[u8]> {
        if array.is_null(row) {
            return None;
        }
        match array.as_fixed_size_binary_opt() {
            Some(fixed) => Some(fixed.value(row)),
            None => array.as_binary_opt::<i32>().map(|binary| binary.value(row)),
        }
    }
    (0..a.len())
        .map(|row| {
            let (Some(a), Some(b)) = (bytes(a, row), bytes(b, row)) else { return Ok(None) };
            if a.len() != b.len() {
                return exec_err!(
                    "hamming_distance needs as many bytes on both sides, not {} and {}",
                    a.len(),
                    b.len()
                );
            }
            let (a_words, a_rest) = a.as_chunks::<8>();
            let (b_words, b_rest) = b.as_chunks::<8>();
            let words = a_words.iter().zip(b_words);
            let words = words.map(|(a, b)| (u64::from_le_bytes(*a) ^ u64::from_le_bytes(*b)).count_ones());
            let rest = a_rest.iter().zip(b_rest).map(|(a, b)| (a ^ b).count_ones());
            Ok(Some(words.chain(rest).map(i64::from).sum()))
        })
        .collect()
}
