//! Nearest neighbours, exactly: which rows of a table have the vectors nearest to others.
//!
//! * [`Metric`]: what near means. Distances are those that the functions of the same name give, to the last bit.
//! * [`Top`]: the best so far, with ties in the order of rows.
//! * [`Scan`]: one vector against a table's batches as they come, keeping only rows that may still win.
//! * [`Join`]: many vectors against a table in memory.
//! * [`NearestFirst`]: `order by cosine_distance(...) limit k` goes the same way.
//!
//! Both ways look through [`loev_ops::search`] first, and take the distance in full only of what that lets pass.

mod join;
mod metric;
mod rule;
mod scan;
#[cfg(test)]
mod tests;
mod top;

pub(crate) use join::{Join, Neighbours, Vectors};
pub(crate) use metric::{Metric, Query};
pub(crate) use rule::NearestFirst;
pub(crate) use scan::{Nearest, Order, Scan};
