//! Nearest neighbours: which rows of a table have the vectors nearest to others.
//!
//! * [`Metric`]: what near means. Distances are those that the functions of the same name give, to the last bit.
//! * [`Top`]: the best so far, with ties in the order of rows.
//! * [`Scan`]: one vector against a table's batches as they come, keeping only rows that may still win.
//! * [`Join`]: many vectors against a table in memory.
//! * [`Index`]: such a table in cells, for joins that may miss a neighbour now and then. All else is exact.
//! * [`NearestFirst`]: `order by cosine_distance(...) limit k` goes the same way.
//!
//! Both ways look through [`loev_ops::search`] first, and take the distance in full only of what that lets pass.

mod index;
mod join;
mod metric;
mod rule;
mod scan;
#[cfg(test)]
mod tests;
mod top;
mod vectors;
mod work;

pub(crate) use index::Index;
pub(crate) use join::{Join, Neighbours};
pub(crate) use metric::{Metric, Query};
pub(crate) use rule::NearestFirst;
pub(crate) use scan::{Nearest, Order, Scan};
pub(crate) use vectors::Vectors;
