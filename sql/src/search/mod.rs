//! Nearest neighbours, exactly: which rows of a table have the vectors nearest to others.
//!
//! * [`Metric`]: what near means. Distances are those that the functions of the same name give, to the last bit.
//! * [`Top`]: the best so far, with ties in the order of rows.
//! * [`Scan`]: one vector against a table's batches as they come, keeping only rows that may still win.

mod metric;
mod scan;
mod top;

pub(crate) use metric::{Metric, Query};
pub(crate) use scan::{Nearest, Order, Scan};
