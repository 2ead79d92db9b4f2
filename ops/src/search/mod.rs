//! Search among vectors: which may be nearest to which.
//!
//! The work is in two steps. Here scores are taken in `f32`, many at a time, and compared with what each query asks for
//! at least; what passes is a candidate, of which the caller takes the distance in full and then asks for more. So the
//! answer is as exact as the caller's distances are, as long as it asks for less by [`rounding`] than what it has.
//!
//! * [`scan`](fn@scan): one query against rows in memory, at the speed of reading them.
//! * [`Queries`] and [`Items`]: many against many, in blocks that stay in the processor's cache. Products are compared
//!   where they are made, in registers, and are never written.
//! * [`Cells`]: rows apart by the mean that is nearest, so that a query need not look at all of them. How many cells it
//!   looks into is measured: [`least_probes`].

mod cells;
mod scan;
#[cfg(test)]
mod tests;
mod tile;

pub use cells::{Cells, Near, cells_for, least_probes};
pub use scan::{Measure, scan};
pub use tile::{Items, Queries, candidates};

/// How far an `f32` inner product of `dim` terms may be from the true one, for vectors whose norms have the product 1:
/// twice the bound of a running sum (Higham, Accuracy and Stability of Numerical Algorithms, section 3.1), for inputs
/// rounded to `f32`.
pub fn rounding(dim: usize) -> f32 {
    (dim as f32 + 8.0) * f32::EPSILON
}
