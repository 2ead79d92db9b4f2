//! Columns of vectors as arguments: what they are taken as, and their rows as slices.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, ArrowPrimitiveType, AsArray, OffsetSizeTrait, PrimitiveArray};
use arrow::buffer::OffsetBuffer;
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::common::{Result, exec_err, plan_err};
use datafusion::logical_expr::ColumnarValue;

use crate::types::type_name;

/// `Float32` if any argument holds it, else `Float64`.
pub(crate) fn common_element(name: &str, arguments: &[DataType]) -> Result<DataType> {
    let mut single = false;
    for argument in arguments {
        match element_of(argument).map(|field| field.data_type()) {
            Some(DataType::Float32 | DataType::Float16) => single = true,
            Some(element) if element.is_numeric() || element.is_null() => {}
            None if argument.is_null() => {}
            _ => {
                return plan_err!(
                    "{name} takes vectors (lists of numbers), not a value of type {}",
                    type_name(argument)
                );
            }
        }
    }
    Ok(if single { DataType::Float32 } else { DataType::Float64 })
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

    /// A column.
    pub(crate) fn column(array: &ArrayRef) -> Self {
        Self { array: Arc::clone(array), constant: false }
    }

    pub(crate) fn array(&self) -> &ArrayRef {
        &self.array
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
        let row = if self.constant { 0 } else { row };
        if self.array.is_null(row) {
            return None;
        }
        let (start, end) = match self.layout {
            Layout::Fixed(length) => (row * length, (row + 1) * length),
            Layout::Offsets(offsets) => bounds(offsets, row)?,
            Layout::LargeOffsets(offsets) => bounds(offsets, row)?,
        };
        if let Some(nulls) = self.elements.nulls()
            && nulls.null_count() > 0
            && (start..end).any(|index| nulls.is_null(index))
        {
            return None;
        }
        self.elements.values().get(start..end)
    }
}

pub(crate) fn bounds<O: OffsetSizeTrait>(offsets: &OffsetBuffer<O>, row: usize) -> Option<(usize, usize)> {
    Some((offsets.get(row)?.as_usize(), offsets.get(row + 1)?.as_usize()))
}
