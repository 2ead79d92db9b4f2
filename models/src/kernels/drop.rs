//! Stochastic depth (Huang et al., arXiv 1603.09382) and dropout (Srivastava et al., JMLR 15, 2014) on what
//! a block adds to its input.
//!
//! What is dropped is drawn from a key of view, residual and position, so it is never stored: the way back
//! draws it again, and neither chunks nor threads nor the kernels' form can change it.

use super::{Real, simd};
use loev_ops::rng::Key;

/// The two sums of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Residual {
    /// That of attention.
    Attention = 0,
    /// That of the MLP.
    Mlp = 1,
}

/// What a block drops in one step of training.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Drops {
    /// The key of the step and the block.
    pub key: Key,
    /// Number, in its batch, of the first view at hand.
    pub first: usize,
    /// Probability, in [0, 1), that a view goes without a residual.
    pub path: f64,
    /// Probability, in [0, 1), that a value of a residual is zero; rounded to a multiple of 2^-16.
    pub dropout: f64,
}

/// Values that one block of random bits decides about: 16 bits each.
const AT_ONCE: usize = 8;

impl Drops {
    /// A value is dropped whose 16 random bits are below this.
    pub(crate) fn below(&self) -> u16 {
        (self.dropout * 65_536.0).round().clamp(0.0, 65_535.0) as u16
    }

    /// What is not dropped is multiplied by this.
    pub(crate) fn scale(&self) -> f64 {
        1.0 / ((1.0 - self.path) * (1.0 - f64::from(self.below()) / 65_536.0))
    }

    /// Multiplies `x`, with `per_view` values a view, by 0 where it is dropped and by the reciprocal of
    /// the probability that it is not elsewhere.
    pub fn apply<T: Real>(&self, residual: Residual, x: &mut [T], per_view: usize) {
        let (below, scale) = (self.below(), T::from_f64(self.scale()));
        for (view, x) in x.chunks_exact_mut(per_view.max(1)).enumerate() {
            let mut rng = self.key.with((self.first + view) as u64).with(residual as u64).rng();
            if rng.f64() < self.path {
                x.fill(T::ZERO);
                continue;
            }
            if below == 0 {
                simd(|| x.iter_mut().for_each(|x| *x *= scale));
                continue;
            }
            for x in x.chunks_mut(AT_ONCE) {
                let bits = rng.next_four().map(|word| [word as u16, (word >> 16) as u16]);
                for (x, &bits) in x.iter_mut().zip(bits.as_flattened()) {
                    *x = if bits < below { T::ZERO } else { *x * scale };
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn factors(drops: &Drops, residual: Residual, views: usize, per_view: usize) -> Vec<f64> {
        let mut x = vec![1.0; views * per_view];
        drops.apply(residual, &mut x, per_view);
        x
    }

    #[test]
    fn shares_and_means_are_those_asked_for() {
        let drops = Drops { key: Key::root(3), first: 0, path: 0.25, dropout: 0.1 };
        let (views, per_view) = (2000, 50);
        let x = factors(&drops, Residual::Mlp, views, per_view);
        let mean = x.iter().sum::<f64>() / x.len() as f64;
        // The deviation of the mean is 0.013, most of it from views without a residual.
        assert!((mean - 1.0).abs() < 0.05, "{mean}");
        let gone = x.chunks(per_view).filter(|x| x.iter().all(|&x| x == 0.0)).count();
        assert!((gone as f64 / views as f64 - 0.25).abs() < 0.04, "{gone}");
        let left: Vec<&[f64]> = x.chunks(per_view).filter(|x| x.iter().any(|&x| x != 0.0)).collect();
        let zeros = left.iter().flat_map(|x| x.iter()).filter(|&&x| x == 0.0).count();
        assert!((zeros as f64 / (left.len() * per_view) as f64 - 0.1).abs() < 0.01);
    }

    #[test]
    fn views_keep_their_draws_wherever_they_are_cut() {
        let drops = Drops { key: Key::root(3), first: 5, path: 0.3, dropout: 0.2 };
        let whole = factors(&drops, Residual::Attention, 9, 21);
        let parts = [(5, 4), (9, 5)]
            .map(|(first, views)| factors(&Drops { first, ..drops }, Residual::Attention, views, 21));
        assert_eq!(whole, parts.concat());
        assert_ne!(whole, factors(&drops, Residual::Mlp, 9, 21));
    }
}
