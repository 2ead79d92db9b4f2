//! Initial values, drawn from a key of (seed, parameter name): they depend neither on the order in
//! which parameters are made nor on the device.

use loev_ops::rng::Key;

/// How a parameter starts.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Init {
    /// All zero.
    Zeros,
    /// All one.
    Ones,
    /// All this.
    Constant(f64),
    /// Normal with this standard deviation, cut at two.
    Normal(f64),
    /// Uniform on `+-sqrt(6 / (in + out))` for a weight `[out, in]` (Glorot and Bengio, 2010).
    Glorot,
    /// Sines and cosines of the row's index at wavelengths from 2 pi to 20,000 pi rows, scaled to the
    /// magnitude of a freshly embedded patch (Vaswani et al., arXiv 1706.03762).
    Position,
}

impl Init {
    /// The values of a parameter of this shape.
    pub fn values(self, shape: &[usize], key: Key) -> Vec<f64> {
        let n = shape.iter().product();
        let mut rng = key.rng();
        match self {
            Self::Zeros => vec![0.0; n],
            Self::Ones => vec![1.0; n],
            Self::Constant(value) => vec![value; n],
            Self::Normal(deviation) => (0..n)
                .map(|_| {
                    loop {
                        let x = rng.normal();
                        if x.abs() <= 2.0 {
                            return x * deviation;
                        }
                    }
                })
                .collect(),
            Self::Glorot => {
                let bound = (6.0 / shape.iter().sum::<usize>().max(1) as f64).sqrt();
                (0..n).map(|_| rng.uniform(-bound, bound)).collect()
            }
            Self::Position => {
                let dim = shape.last().copied().unwrap_or(1).max(1);
                (0..n)
                    .map(|i| {
                        let (row, column) = ((i / dim) as f64, i % dim);
                        let angle = row / 1e4f64.powf((column / 2 * 2) as f64 / dim as f64);
                        if column % 2 == 0 { angle.sin() } else { angle.cos() }
                    })
                    .collect()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_follow_their_law() {
        let key = Key::root(7).with_str("a");
        let normal = Init::Normal(0.02).values(&[100, 100], key);
        assert!(normal.iter().all(|x| x.abs() <= 0.04));
        let variance = normal.iter().map(|x| x * x).sum::<f64>() / 1e4;
        // A normal cut at two deviations has variance 0.7737.
        assert!((variance / (0.0004 * 0.7737) - 1.0).abs() < 0.05, "{variance}");
        let glorot = Init::Glorot.values(&[50, 100], key);
        let bound = 0.2;
        assert!(glorot.iter().all(|x| x.abs() <= bound));
        assert!((glorot.iter().map(|x| x * x).sum::<f64>() / 5e3 / (bound * bound / 3.0) - 1.0).abs() < 0.05);
        let position = Init::Position.values(&[3, 4], key);
        assert_eq!(&position[..4], &[0.0, 1.0, 0.0, 1.0]);
        assert!((position[4] - 1f64.sin()).abs() < 1e-12 && (position[6] - 0.01f64.sin()).abs() < 1e-12);
    }

    #[test]
    fn names_and_seeds_give_other_values() {
        let draw = |seed, name| Init::Glorot.values(&[4, 4], Key::root(seed).with_str(name));
        assert_eq!(draw(1, "a"), draw(1, "a"));
        assert_ne!(draw(1, "a"), draw(1, "b"));
        assert_ne!(draw(1, "a"), draw(2, "a"));
    }
}
