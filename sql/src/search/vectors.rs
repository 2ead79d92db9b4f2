//! The vectors of a table in memory.

use arrow::array::{ArrayRef, ArrowPrimitiveType};
use arrow::datatypes::{DataType, Float32Type, Float64Type};
use datafusion::common::Result;

use super::metric::{Metric, unequal};
use crate::functions::column::{Argument, Rows};
use crate::functions::kernels::{Real, squared_norm};

/// A row of a table in memory: its batch, and its row there.
pub(crate) type Place = (usize, usize);

/// The vectors of a table in memory, those that can be near anything.
pub(crate) struct Vectors {
    columns: Vec<Argument>,
    /// Where each vector is, and its squared norm as far as `f32` tells.
    pub(super) rows: Vec<(Place, f32)>,
    pub(super) dim: Option<usize>,
}

impl Vectors {
    /// Takes the columns of a table's batches as `element`, `Float32` or `Float64`. Vectors that are NULL or hold a NULL or a
    /// NaN are left out, and so are zero vectors where the metric needs a direction.
    ///
    /// # Errors
    /// Vectors of different lengths.
    pub(crate) fn new(
        function: &str,
        metric: Metric,
        columns: impl IntoIterator<Item = ArrayRef>,
        element: &DataType,
    ) -> Result<Self> {
        let columns = columns.into_iter().map(|column| Argument::vectors(column, element));
        let mut vectors = Self { columns: columns.collect::<Result<_>>()?, rows: Vec::new(), dim: None };
        match element {
            DataType::Float32 => vectors.look::<Float32Type>(function, metric)?,
            _ => vectors.look::<Float64Type>(function, metric)?,
        }
        Ok(vectors)
    }

    fn look<T: ArrowPrimitiveType>(&mut self, function: &str, metric: Metric) -> Result<()>
    where
        T::Native: Real,
    {
        for (batch, column) in self.columns.iter().enumerate() {
            let rows = Rows::<T>::new(column)?;
            for row in 0..column.rows() {
                let Some(vector) = rows.get(row) else { continue };
                let dim = *self.dim.get_or_insert(vector.len());
                if dim != vector.len() {
                    return unequal(function, dim, vector.len());
                }
                let square = squared_norm(vector);
                if !(square.is_nan() || square == 0.0 && metric == Metric::Cosine) {
                    self.rows.push(((batch, row), square as f32));
                }
            }
        }
        Ok(())
    }

    /// Whether all are of `f32`.
    pub(super) fn are_single(&self) -> bool {
        self.columns.iter().all(|column| column.element() == Some(&DataType::Float32))
    }

    pub(super) fn slices<T: ArrowPrimitiveType>(&self) -> Result<Slices<'_, T>> {
        Ok(Slices(self.columns.iter().map(Rows::new).collect::<Result<_>>()?))
    }

    /// The bytes of what is kept beside the columns.
    pub(crate) fn memory(&self) -> usize {
        self.rows.capacity() * size_of::<(Place, f32)>()
    }
}

/// Vectors as slices of numbers.
pub(super) struct Slices<'a, T: ArrowPrimitiveType>(Vec<Rows<'a, T>>);

impl<'a, T: ArrowPrimitiveType> Slices<'a, T> {
    /// The vector at a place; empty if there is none.
    pub(super) fn at(&self, place: Place) -> &'a [T::Native] {
        self.0.get(place.0).and_then(|rows| rows.get(place.1)).unwrap_or_default()
    }
}
