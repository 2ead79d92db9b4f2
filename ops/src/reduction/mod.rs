//! Fewer dimensions: principal components, and maps of the plane.
//!
//! ```text
//! vectors --pca--> components, scores
//!         --map--> 50 components -> nearest neighbours -> t-SNE from the first two components
//! ```
//! Matrices are slices, row by row. Results depend on neither the number of threads nor their timing: every sum is taken
//! in a fixed order by one of them.

mod eigen;
mod map;
mod neighbours;
mod pca;
mod trustworthiness;

pub use map::{MAX_MAP_ROWS, MapOptions, map};
pub use pca::{Pca, pca};
pub use trustworthiness::trustworthiness;

use std::thread;

/// Why vectors could not be reduced.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReductionError {
    /// Less than two rows.
    #[error("{0} row(s); at least {1} are needed")]
    TooFewRows(usize, usize),
    /// More rows than a map takes.
    #[error("{0} rows; a map takes at most {1}: take a sample of them")]
    TooManyRows(usize, usize),
    /// More components than there can be.
    #[error("{asked} components of {rows} rows and {columns} columns; there are 1 to {}", rows.min(columns))]
    Components {
        /// How many were asked for.
        asked: usize,
        /// Rows of the matrix.
        rows: usize,
        /// Columns of the matrix.
        columns: usize,
    },
    /// A value that is NaN or infinite.
    #[error("row {0} holds a value that is not finite")]
    NotFinite(usize),
    /// The eigenvalues were not found, which no finite matrix is known to cause.
    #[error("the eigenvalues did not converge")]
    NoConvergence,
}

/// Checks a matrix and returns its number of rows.
fn rows_of(values: &[f32], columns: usize, least: usize) -> Result<usize, ReductionError> {
    let rows = values.len().checked_div(columns).unwrap_or(0);
    if rows < least {
        return Err(ReductionError::TooFewRows(rows, least));
    }
    match values.iter().position(|value| !value.is_finite()) {
        Some(at) => Err(ReductionError::NotFinite(at / columns)),
        None => Ok(rows),
    }
}

/// Calls `each` with every row of `out` (`width` values) and its number, on so many threads.
fn for_rows<T: Send>(threads: usize, out: &mut [T], width: usize, each: impl Fn(usize, &mut [T]) + Sync) {
    let rows = out.len().checked_div(width).unwrap_or(0);
    let share = rows.div_ceil(threads.max(1)).max(1);
    let run = |first: usize, part: &mut [T]| {
        for (row, values) in part.chunks_exact_mut(width).enumerate() {
            each(first + row, values);
        }
    };
    if share >= rows {
        return run(0, out);
    }
    thread::scope(|scope| {
        for (index, part) in out.chunks_mut(share * width).enumerate() {
            let run = &run;
            scope.spawn(move || run(index * share, part));
        }
    });
}
