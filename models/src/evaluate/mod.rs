//! What embeddings are good for beyond probes: do they follow the factors, and are their neighbours alike?
//!
//! ```text
//! equivariance   two embeddings -> difference of parameters; one embedding and the difference -> the other
//! retrieval      how far the nearest neighbours agree with a query's label, beside chance
//! leak           what cues that are no music tell of processing
//! ```
//!
//! Searches and regressions are those of [`loev_ops::neighbours`] and [`loev_ops::ridge`]. Everything is a function of the data, the configuration and the key, on the calling thread. Intervals are 95%
//! percentile bootstraps over clips, never over rows: views and pairs of one clip are not independent.

pub mod equivariance;
mod error;
pub mod leak;
pub mod retrieval;

pub use equivariance::{EquivarianceConfig, EquivarianceFigure, Parameter, ViewData, equivariance};
pub use error::EvaluateError;
pub use loev_ops::neighbours::{Neighbour, Vectors, nearest};
pub use retrieval::{Agreement, Ranked, agreement};

/// One row of sums per clip.
struct ByClip<const N: usize> {
    /// The sums of each clip that has rows, in the order in which clips first appeared.
    sums: Vec<[f64; N]>,
    /// Where in `sums` a clip is.
    place: std::collections::BTreeMap<usize, usize>,
}

impl<const N: usize> ByClip<N> {
    fn new() -> Self {
        Self { sums: Vec::new(), place: std::collections::BTreeMap::new() }
    }

    fn add(&mut self, clip: usize, values: [f64; N]) {
        let next = self.sums.len();
        let at = *self.place.entry(clip).or_insert(next);
        if at == next {
            self.sums.push([0.0; N]);
        }
        self.sums[at].iter_mut().zip(values).for_each(|(sum, value)| *sum += value);
    }

    /// The sums over all clips, each with its weight.
    fn total(&self, weights: impl Fn(usize) -> f64) -> [f64; N] {
        let mut total = [0.0; N];
        for (clip, sums) in self.sums.iter().enumerate() {
            let weight = weights(clip);
            total.iter_mut().zip(sums).for_each(|(total, sum)| *total += weight * sum);
        }
        total
    }

    /// A figure of the sums, with its interval over clips; `None` where it is undefined.
    fn figure(
        &self,
        replicates: usize,
        key: loev_ops::rng::Key,
        figure: impl Fn([f64; N]) -> Option<f64>,
    ) -> Option<(f64, crate::metrics::Interval)> {
        let value = figure(self.total(|_| 1.0))?;
        let bootstrap = crate::metrics::Bootstrap::new(self.sums.len(), replicates, key);
        let interval = bootstrap.interval(|weights| figure(self.total(|clip| weights[clip])))?;
        Some((value, interval))
    }
}
