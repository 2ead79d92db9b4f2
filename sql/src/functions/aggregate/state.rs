//! What accumulators keep, and how it travels between partitions: as large lists.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, ArrowPrimitiveType, AsArray, BooleanArray, LargeListArray, PrimitiveArray, StringArray,
};
use arrow::buffer::OffsetBuffer;
use arrow::datatypes::{DataType, Field, Float32Type, Float64Type, Int64Type, UInt32Type};
use datafusion::common::{Result, ScalarValue, exec_err};
use datafusion::logical_expr::ColumnarValue;

use crate::functions::column::{Argument, Rows};
use crate::functions::kernels::Real;

/// The type of a state that is a list.
pub(super) fn list_type(element: DataType) -> DataType {
    DataType::LargeList(Arc::new(Field::new_list_field(element, true)))
}

fn list(values: ArrayRef) -> Result<ScalarValue> {
    let field = Arc::new(Field::new_list_field(values.data_type().clone(), true));
    let offsets = OffsetBuffer::from_lengths([values.len()]);
    Ok(ScalarValue::LargeList(Arc::new(LargeListArray::try_new(field, offsets, values, None)?)))
}

/// Numbers as a state.
pub(super) fn numbers<T: ArrowPrimitiveType>(values: Vec<T::Native>) -> Result<ScalarValue> {
    list(Arc::new(PrimitiveArray::<T>::new(values.into(), None)))
}

/// Truth values as a state.
pub(super) fn booleans(values: Vec<bool>) -> Result<ScalarValue> {
    list(Arc::new(BooleanArray::from(values)))
}

/// Texts as a state.
pub(super) fn texts<'a>(values: impl Iterator<Item = &'a str>) -> Result<ScalarValue> {
    list(Arc::new(StringArray::from_iter_values(values)))
}

/// A count as a state.
pub(super) fn count(value: usize) -> ScalarValue {
    ScalarValue::Int64(i64::try_from(value).ok())
}

/// Row `row` of column `index` of the states, if it holds a list.
fn at(states: &[ArrayRef], index: usize, row: usize) -> Option<ArrayRef> {
    let lists = states.get(index)?.as_list_opt::<i64>()?;
    lists.is_valid(row).then(|| lists.value(row))
}

/// How many states there are.
pub(super) fn rows(states: &[ArrayRef]) -> usize {
    states.first().map_or(0, |column| column.len())
}

/// The numbers of a state.
pub(super) fn read<T: ArrowPrimitiveType>(
    states: &[ArrayRef],
    index: usize,
    row: usize,
) -> Result<PrimitiveArray<T>> {
    match at(states, index, row).as_ref().and_then(|values| values.as_primitive_opt::<T>()) {
        Some(values) => Ok(values.clone()),
        None => exec_err!("the state of an aggregate holds no numbers in column {index}"),
    }
}

/// The truth values of a state.
pub(super) fn read_booleans(states: &[ArrayRef], index: usize, row: usize) -> Result<BooleanArray> {
    match at(states, index, row).as_ref().and_then(|values| values.as_boolean_opt()) {
        Some(values) => Ok(values.clone()),
        None => exec_err!("the state of an aggregate holds no truth values in column {index}"),
    }
}

/// The texts of a state.
pub(super) fn read_texts(states: &[ArrayRef], index: usize, row: usize) -> Result<StringArray> {
    match at(states, index, row).as_ref().and_then(|values| values.as_string_opt::<i32>()) {
        Some(values) => Ok(values.clone()),
        None => exec_err!("the state of an aggregate holds no texts in column {index}"),
    }
}

/// The count of a state.
pub(super) fn read_count(states: &[ArrayRef], index: usize, row: usize) -> Result<usize> {
    let counts = states.get(index).and_then(|column| column.as_primitive_opt::<Int64Type>());
    match counts.filter(|counts| counts.is_valid(row)).map(|counts| usize::try_from(counts.value(row))) {
        Some(Ok(count)) => Ok(count),
        _ => exec_err!("the state of an aggregate holds no count in column {index}"),
    }
}

/// A column of vectors of `Float32` or `Float64`.
pub(super) enum Column<'a> {
    Single(Rows<'a, Float32Type>),
    Double(Rows<'a, Float64Type>),
}

impl<'a> Column<'a> {
    pub(super) fn new(argument: &'a Argument) -> Result<Self> {
        Ok(match argument.element() {
            Some(DataType::Float32) => Self::Single(Rows::new(argument)?),
            _ => Self::Double(Rows::new(argument)?),
        })
    }

    /// The vector of a row; `None` if it is NULL or holds a NULL.
    pub(super) fn get(&self, row: usize) -> Option<Elements<'a>> {
        match self {
            Self::Single(rows) => rows.get(row).map(Elements::Single),
            Self::Double(rows) => rows.get(row).map(Elements::Double),
        }
    }
}

/// A column of a batch as an argument.
pub(super) fn argument(array: &ArrayRef) -> Result<Argument> {
    Argument::new(ColumnarValue::Array(Arc::clone(array)))
}

/// The elements of a vector.
#[derive(Clone, Copy)]
pub(super) enum Elements<'a> {
    Single(&'a [f32]),
    Double(&'a [f64]),
}

impl Elements<'_> {
    pub(super) fn len(self) -> usize {
        match self {
            Self::Single(values) => values.len(),
            Self::Double(values) => values.len(),
        }
    }

    pub(super) fn append_to<T: Real>(self, values: &mut Vec<T>) {
        match self {
            Self::Single(elements) => values.extend(elements.iter().map(|x| T::nearest(f64::from(*x)))),
            Self::Double(elements) => values.extend(elements.iter().map(|x| T::nearest(*x))),
        }
    }
}

/// Fails unless vectors have the length of those before; tells an accumulator which length that is.
pub(super) fn same_length(name: &str, known: &mut Option<usize>, found: usize) -> Result<()> {
    match *known {
        Some(length) if length != found => {
            exec_err!("{name} needs vectors of equal length, not of {length} and {found} elements")
        }
        _ => {
            *known = Some(found);
            Ok(())
        }
    }
}

/// Vectors of equal length, row by row, in single precision.
#[derive(Debug, Default)]
pub(super) struct Kept {
    pub(super) dim: Option<usize>,
    pub(super) values: Vec<f32>,
    pub(super) rows: usize,
}

impl Kept {
    /// Adds a vector.
    pub(super) fn push(&mut self, name: &str, vector: Elements<'_>) -> Result<()> {
        same_length(name, &mut self.dim, vector.len())?;
        let start = self.values.len();
        vector.append_to(&mut self.values);
        if self.values[start..].iter().any(|value| !value.is_finite()) {
            return exec_err!(
                "{name} needs finite vectors, and one holds NaN, infinity or a number beyond single precision"
            );
        }
        self.rows += 1;
        Ok(())
    }

    /// Adds a vector unless it is zero; says whether.
    pub(super) fn push_direction(&mut self, name: &str, vector: Elements<'_>) -> Result<bool> {
        self.push(name, vector)?;
        let start = self.values.len() - vector.len();
        if self.values[start..].iter().any(|value| *value != 0.0) {
            return Ok(true);
        }
        self.values.truncate(start);
        self.rows -= 1;
        Ok(false)
    }

    /// The rows in the order of their vectors, and of equal ones in that of another value.
    pub(super) fn order<K: Ord>(&self, other: impl Fn(usize) -> K) -> Vec<usize> {
        let mut order: Vec<usize> = (0..self.rows).collect();
        order.sort_by(|a, b| {
            let places = self.row(*a).iter().zip(self.row(*b)).map(|(a, b)| a.total_cmp(b));
            let differing = places.into_iter().find(|order| order.is_ne());
            differing.unwrap_or_else(|| other(*a).cmp(&other(*b)))
        });
        order
    }

    /// Adds the vectors of a state: their number and their values.
    pub(super) fn merge(&mut self, name: &str, rows: usize, values: &[f32]) -> Result<()> {
        if rows == 0 {
            return Ok(());
        }
        same_length(name, &mut self.dim, values.len() / rows)?;
        self.values.extend_from_slice(values);
        self.rows += rows;
        Ok(())
    }

    pub(super) fn row(&self, row: usize) -> &[f32] {
        let dim = self.dim.unwrap_or(0);
        self.values.get(row * dim..(row + 1) * dim).unwrap_or_default()
    }

    pub(super) fn bytes(&self) -> usize {
        self.values.capacity() * size_of::<f32>()
    }
}

/// Labels as numbers, each with its name.
#[derive(Debug, Default)]
pub(super) struct Labels {
    names: BTreeMap<String, u32>,
    pub(super) ids: Vec<u32>,
    name_bytes: usize,
}

impl Labels {
    pub(super) fn push(&mut self, name: &str) {
        let id = match self.names.get(name) {
            Some(id) => *id,
            None => {
                let id = u32::try_from(self.names.len()).unwrap_or(u32::MAX);
                self.name_bytes += name.len();
                self.names.insert(name.to_owned(), id);
                id
            }
        };
        self.ids.push(id);
    }

    /// Of each row, the place of its label among the labels in order: independent of the order of rows.
    pub(super) fn ranks(&self) -> Vec<u32> {
        let mut ranks = vec![0; self.names.len()];
        for (rank, id) in (0..).zip(self.names.values()) {
            ranks[*id as usize] = rank;
        }
        self.ids.iter().map(|id| ranks[*id as usize]).collect()
    }

    /// How many different labels there are.
    pub(super) fn len(&self) -> usize {
        self.names.len()
    }

    /// Labels as two states: their names by number, and the numbers of the rows.
    pub(super) fn states(&mut self) -> Result<[ScalarValue; 2]> {
        let mut names: Vec<(&str, u32)> = self.names.iter().map(|(name, id)| (name.as_str(), *id)).collect();
        names.sort_by_key(|(_, id)| *id);
        let names = texts(names.into_iter().map(|(name, _)| name))?;
        Ok([names, numbers::<UInt32Type>(std::mem::take(&mut self.ids))?])
    }

    pub(super) fn merge(&mut self, names: &StringArray, ids: &[u32]) -> Result<()> {
        for id in ids {
            let id = *id as usize;
            if id >= names.len() {
                return exec_err!("the state of an aggregate names label {id} of {}", names.len());
            }
            self.push(names.value(id));
        }
        Ok(())
    }

    pub(super) fn bytes(&self) -> usize {
        let entry = size_of::<(String, u32)>() * 2;
        self.ids.capacity() * size_of::<u32>() + self.names.len() * entry + self.name_bytes
    }
}
