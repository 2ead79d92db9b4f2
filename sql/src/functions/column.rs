//! Columns of vectors as arguments: what they are taken as, and their rows as slices.

use std::sync::Arc;

use arrow::array::builder::NullBufferBuilder;
use arrow::array::{
    Array, ArrayRef, ArrowPrimitiveType, AsArray, FixedSizeListArray, LargeListArray, ListArray,
    OffsetSizeTrait, PrimitiveArray,
};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::common::{Result, exec_err, plan_err};
use datafusion::logical_expr::ColumnarValue;

use crate::types::type_name;

/// `Float32` if any argument holds it or `Float16`, or if all hold integers of at most 16 bits, which it holds exactly;
/// else `Float64`.
pub(crate) fn common_element(name: &str, arguments: &[DataType]) -> Result<DataType> {
    let (mut single, mut short, mut other) = (false, false, false);
    for argument in arguments {
        match element_of(argument).map(|field| field.data_type()) {
            Some(DataType::Float32 | DataType::Float16) => single = true,
            Some(DataType::Int8 | DataType::UInt8 | DataType::Int16 | DataType::UInt16) => short = true,
            Some(element) if element.is_null() => {}
            Some(element) if element.is_numeric() => other = true,
            None if argument.is_null() => {}
            _ => {
                return plan_err!(
                    "{name} takes vectors (lists of numbers), not a value of type {}",
                    type_name(argument)
                );
            }
        }
    }
    Ok(if single || (short && !other) { DataType::Float32 } else { DataType::Float64 })
}

/// The length that a type says its vectors have.
pub(crate) fn fixed_length(list: &DataType) -> Option<usize> {
    match list {
        DataType::FixedSizeList(_, length) => usize::try_from(*length).ok(),
        _ => None,
    }
}

/// A list of `element`: of the length that is known, else a `LargeList` if one of `like` is one.
pub(crate) fn list_of(element: DataType, length: Option<usize>, like: &[DataType]) -> DataType {
    let field = Arc::new(Field::new_list_field(element, true));
    match length.and_then(|length| i32::try_from(length).ok()) {
        Some(length) => DataType::FixedSizeList(field, length),
        None if like.iter().any(|list| matches!(list, DataType::LargeList(_))) => DataType::LargeList(field),
        None => DataType::List(field),
    }
}

/// Fails unless the lengths that the types say are equal.
pub(crate) fn equal_lengths(name: &str, arguments: &[DataType]) -> Result<()> {
    let mut lengths = arguments.iter().filter_map(fixed_length);
    let Some(a) = lengths.next() else { return Ok(()) };
    match lengths.find(|b| *b != a) {
        Some(b) => plan_err!("{name} needs vectors of equal length, not of {a} and {b} elements"),
        None => Ok(()),
    }
}

pub(crate) fn element_of(list: &DataType) -> Option<&FieldRef> {
    match list {
        DataType::List(field) | DataType::LargeList(field) | DataType::FixedSizeList(field, _) => Some(field),
        _ => None,
    }
}

pub(crate) fn with_element(list: &DataType, element: &DataType) -> DataType {
    let retyped = |field: &FieldRef| Arc::new(Field::clone(field).with_data_type(element.clone()));
    match list {
        DataType::List(field) => DataType::List(retyped(field)),
        DataType::LargeList(field) => DataType::LargeList(retyped(field)),
        DataType::FixedSizeList(field, length) => DataType::FixedSizeList(retyped(field), *length),
        _ => DataType::List(Arc::new(Field::new_list_field(element.clone(), true))),
    }
}

/// An argument: a column, or one vector that stands for every row.
pub(crate) struct Argument {
    array: ArrayRef,
    constant: bool,
}

impl Argument {
    pub(crate) fn new(value: ColumnarValue) -> Result<Self> {
        Ok(match value {
            ColumnarValue::Array(array) => Self { array, constant: false },
            ColumnarValue::Scalar(scalar) => Self { array: scalar.to_array_of_size(1)?, constant: true },
        })
    }

    /// A column of lists, its elements as `element`.
    pub(crate) fn vectors(array: ArrayRef, element: &DataType) -> Result<Self> {
        let wanted = with_element(array.data_type(), element);
        let array = if *array.data_type() == wanted { array } else { cast(&array, &wanted)? };
        Ok(Self { array, constant: false })
    }

    /// How many rows the column has.
    pub(crate) fn rows(&self) -> usize {
        self.array.len()
    }

    pub(crate) fn element(&self) -> Option<&DataType> {
        element_of(self.array.data_type()).map(|field| field.data_type())
    }

    /// The number of a row; `None` if it is NULL or of another type.
    pub(crate) fn number<T: ArrowPrimitiveType>(&self, row: usize) -> Option<T::Native> {
        let row = if self.constant { 0 } else { row };
        let numbers = self.array.as_primitive_opt::<T>()?;
        numbers.is_valid(row).then(|| numbers.value(row))
    }
}

/// The rows of a list array as slices of its elements.
pub(crate) struct Rows<'a, T: ArrowPrimitiveType> {
    array: &'a dyn Array,
    elements: &'a PrimitiveArray<T>,
    layout: Layout<'a>,
    constant: bool,
}

pub(crate) enum Layout<'a> {
    Fixed(usize),
    Offsets(&'a OffsetBuffer<i32>),
    LargeOffsets(&'a OffsetBuffer<i64>),
}

impl<'a, T: ArrowPrimitiveType> Rows<'a, T> {
    pub(crate) fn new(argument: &'a Argument) -> Result<Self> {
        let array = argument.array.as_ref();
        let (elements, layout) = match array.data_type() {
            DataType::FixedSizeList(_, length) => {
                let list = array.as_fixed_size_list();
                (list.values(), Layout::Fixed(usize::try_from(*length).unwrap_or(0)))
            }
            DataType::List(_) => {
                let list = array.as_list::<i32>();
                (list.values(), Layout::Offsets(list.offsets()))
            }
            DataType::LargeList(_) => {
                let list = array.as_list::<i64>();
                (list.values(), Layout::LargeOffsets(list.offsets()))
            }
            other => return exec_err!("expected a vector, not a value of type {}", type_name(other)),
        };
        let Some(elements) = elements.as_primitive_opt::<T>() else {
            return exec_err!("expected a vector of {}, not of {}", T::DATA_TYPE, elements.data_type());
        };
        Ok(Self { array, elements, layout, constant: argument.constant })
    }

    /// The vector of a row; `None` if it is NULL or holds a NULL.
    pub(crate) fn get(&self, row: usize) -> Option<&'a [T::Native]> {
        let (values, nulls) = self.with_nulls(row)?;
        if nulls.is_some_and(|nulls| nulls.null_count() > 0) { None } else { Some(values) }
    }

    /// The vector of a row, and which of its elements are NULL; `None` if it is NULL itself.
    pub(crate) fn with_nulls(&self, row: usize) -> Option<(&'a [T::Native], Option<NullBuffer>)> {
        let row = if self.constant { 0 } else { row };
        if self.array.is_null(row) {
            return None;
        }
        let (start, end) = match self.layout {
            Layout::Fixed(length) => (row * length, (row + 1) * length),
            Layout::Offsets(offsets) => bounds(offsets, row)?,
            Layout::LargeOffsets(offsets) => bounds(offsets, row)?,
        };
        let values = self.elements.values().get(start..end)?;
        let nulls = self.elements.nulls().filter(|nulls| nulls.null_count() > 0);
        Some((values, nulls.map(|nulls| nulls.slice(start, end - start))))
    }
}

pub(crate) fn bounds<O: OffsetSizeTrait>(offsets: &OffsetBuffer<O>, row: usize) -> Option<(usize, usize)> {
    Some((offsets.get(row)?.as_usize(), offsets.get(row + 1)?.as_usize()))
}

/// Vectors that are being made, row by row.
pub(crate) struct Lists<T: ArrowPrimitiveType> {
    values: Vec<T::Native>,
    ends: Vec<usize>,
    rows: NullBufferBuilder,
    elements: NullBufferBuilder,
    /// The length that every vector must have.
    length: Option<usize>,
}

impl<T: ArrowPrimitiveType> Lists<T> {
    /// Room for `rows` vectors of a result of this type.
    pub(crate) fn new(rows: usize, result: &DataType) -> Self {
        let length = fixed_length(result);
        let elements = rows.saturating_mul(length.unwrap_or(0));
        Self {
            values: Vec::with_capacity(elements),
            ends: Vec::with_capacity(rows),
            rows: NullBufferBuilder::new(rows),
            elements: NullBufferBuilder::new(elements),
            length,
        }
    }

    /// A row that is NULL.
    pub(crate) fn null(&mut self) {
        // A fixed size list has values under its NULLs, too.
        let length = self.length.unwrap_or(0);
        self.values.resize(self.values.len() + length, T::Native::default());
        self.elements.append_n_non_nulls(length);
        self.rows.append_null();
        self.ends.push(self.values.len());
    }

    /// A vector, and which of its elements are NULL.
    pub(crate) fn push(
        &mut self,
        values: impl Iterator<Item = T::Native>,
        nulls: Option<NullBuffer>,
    ) -> Result<()> {
        let start = self.values.len();
        self.values.extend(values);
        self.close(start, [(self.values.len() - start, nulls)])
    }

    /// Two vectors as one.
    pub(crate) fn push_pair(
        &mut self,
        (a, a_nulls): (&[T::Native], Option<NullBuffer>),
        (b, b_nulls): (&[T::Native], Option<NullBuffer>),
    ) -> Result<()> {
        let start = self.values.len();
        self.values.extend_from_slice(a);
        self.values.extend_from_slice(b);
        self.close(start, [(a.len(), a_nulls), (b.len(), b_nulls)])
    }

    fn close<const N: usize>(&mut self, start: usize, parts: [(usize, Option<NullBuffer>); N]) -> Result<()> {
        let found = self.values.len() - start;
        if let Some(length) = self.length.filter(|length| *length != found) {
            return exec_err!("a vector of {found} elements where {length} are needed");
        }
        for (length, nulls) in parts {
            match nulls {
                Some(nulls) => self.elements.append_buffer(&nulls),
                None => self.elements.append_n_non_nulls(length),
            }
        }
        self.rows.append_non_null();
        self.ends.push(self.values.len());
        Ok(())
    }

    /// The column.
    pub(crate) fn finish(mut self, result: &DataType) -> Result<ArrayRef> {
        let rows = self.ends.len();
        let values = PrimitiveArray::<T>::new(self.values.into(), self.elements.finish());
        let (values, nulls) = (Arc::new(values) as ArrayRef, self.rows.finish());
        let lengths = std::iter::once(&0).chain(&self.ends).zip(&self.ends).map(|(start, end)| end - start);
        Ok(match result {
            DataType::FixedSizeList(field, length) => Arc::new(FixedSizeListArray::try_new_with_length(
                Arc::clone(field),
                *length,
                values,
                nulls,
                rows,
            )?),
            DataType::LargeList(field) => Arc::new(LargeListArray::try_new(
                Arc::clone(field),
                OffsetBuffer::from_lengths(lengths),
                values,
                nulls,
            )?),
            DataType::List(field) if i32::try_from(values.len()).is_ok() => Arc::new(ListArray::try_new(
                Arc::clone(field),
                OffsetBuffer::from_lengths(lengths),
                values,
                nulls,
            )?),
            DataType::List(_) => return exec_err!("more elements than a column of lists can hold"),
            other => return exec_err!("vectors do not fit a column of type {}", type_name(other)),
        })
    }
}
