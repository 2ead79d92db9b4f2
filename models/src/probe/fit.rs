//! Training with selection on validation rows.

use loev_ops::rng::Key;

use super::config::ProbeConfig;
use super::network::{Adam, Loss, Network, Shape};

/// Standardised inputs and targets of one split, row-major.
pub(super) struct Rows {
    pub(super) inputs: Vec<f32>,
    pub(super) targets: Vec<f32>,
}

/// What one probe learns from.
pub(super) struct Material<'a> {
    pub(super) train: &'a Rows,
    pub(super) valid: &'a Rows,
    pub(super) shape: Shape,
    pub(super) loss: Loss,
}

/// The networks of all seeds at their best epoch.
pub(super) struct Fitted {
    pub(super) adam: Adam,
    pub(super) networks: Vec<Network>,
}

struct Trained {
    network: Network,
    valid_loss: f64,
}

/// Chooses learning rate and weight decay with the first seed, then trains the others with them. `None` if the
/// validation loss was never finite.
pub(super) fn fit(material: &Material<'_>, config: &ProbeConfig, key: Key) -> Option<Fitted> {
    let grid = config
        .learning_rates
        .iter()
        .flat_map(|&rate| config.weight_decays.iter().map(move |&decay| Adam { rate, decay }));
    let mut best: Option<(Adam, Trained)> = None;
    for adam in grid {
        let trained = train(material, config, adam, key.with(0));
        if trained.valid_loss < best.as_ref().map_or(f64::INFINITY, |(_, best)| best.valid_loss) {
            best = Some((adam, trained));
        }
    }
    let (adam, first) = best?;
    let others = (1..config.seeds).map(|seed| train(material, config, adam, key.with(seed as u64)).network);
    Some(Fitted { adam, networks: std::iter::once(first.network).chain(others).collect() })
}

/// One training. The epochs compared begin with the untrained network, which predicts the training prior: a
/// probe that finds nothing stays there.
fn train(material: &Material<'_>, config: &ProbeConfig, adam: Adam, key: Key) -> Trained {
    let Material { train, valid, shape, loss } = material;
    let rows = train.targets.len() / shape.outputs;
    let mut prior = vec![0.0; shape.outputs];
    for target in train.targets.chunks_exact(shape.outputs) {
        prior.iter_mut().zip(target).for_each(|(share, &value)| *share += f64::from(value) / rows as f64);
    }
    let mut network = Network::new(*shape, *loss, &prior, key.with_str("weights"));
    let mut best = network.clone();
    let mut valid_loss = network.mean_loss(&valid.inputs, &valid.targets);
    let mut best_epoch = 0;

    let order_key = key.with_str("order");
    let mut order: Vec<usize> = (0..rows).collect();
    let (mut inputs, mut targets) = (Vec::new(), Vec::new());
    for epoch in 1..=config.epochs {
        order_key.with(epoch as u64).rng().shuffle(&mut order);
        for batch in order.chunks(config.batch) {
            gather(&train.inputs, shape.inputs, batch, &mut inputs);
            gather(&train.targets, shape.outputs, batch, &mut targets);
            network.train(&inputs, &targets, batch.len(), adam);
        }
        let now = network.mean_loss(&valid.inputs, &valid.targets);
        if now < valid_loss {
            valid_loss = now;
            best_epoch = epoch;
            best.copy_weights(&network);
        } else if epoch - best_epoch >= config.patience {
            break;
        }
    }
    Trained { network: best, valid_loss }
}

/// Copies the named rows of a row-major matrix.
pub(super) fn gather(matrix: &[f32], columns: usize, rows: &[usize], out: &mut Vec<f32>) {
    out.clear();
    for &row in rows {
        out.extend_from_slice(&matrix[row * columns..(row + 1) * columns]);
    }
}

/// Mean and scale of each input dimension over training rows.
pub(super) struct Standardiser {
    mean: Vec<f32>,
    scale: Vec<f32>,
}

/// Largest standardised input: far outliers of other splits stay finite in `f32`.
const LIMIT: f32 = 1000.0;

impl Standardiser {
    /// From row-major `rows x columns`. A dimension that is constant up to rounding is mapped to 0, since
    /// scaling it up would only show rounding errors.
    pub(super) fn fit(matrix: &[f32], columns: usize) -> Self {
        let count = (matrix.len() / columns).max(1) as f64;
        let mut means = vec![0.0f64; columns];
        for row in matrix.chunks_exact(columns) {
            means.iter_mut().zip(row).for_each(|(mean, &value)| *mean += f64::from(value) / count);
        }
        let mut squares = vec![0.0f64; columns];
        for row in matrix.chunks_exact(columns) {
            for ((square, mean), &value) in squares.iter_mut().zip(&means).zip(row) {
                *square += (f64::from(value) - mean).powi(2) / count;
            }
        }
        let scale = squares.iter().zip(&means).map(|(square, mean)| {
            let deviation = square.sqrt();
            let varies = deviation > 1e-6 * mean.abs() && deviation > f64::from(f32::MIN_POSITIVE);
            if varies { (1.0 / deviation) as f32 } else { 0.0 }
        });
        Self { scale: scale.collect(), mean: means.iter().map(|&mean| mean as f32).collect() }
    }

    /// Standardises row-major rows in place.
    pub(super) fn apply(&self, matrix: &mut [f32]) {
        for row in matrix.chunks_exact_mut(self.mean.len()) {
            for ((value, mean), scale) in row.iter_mut().zip(&self.mean).zip(&self.scale) {
                // Halves keep the difference of two extreme values finite.
                let half = 0.5 * *value - 0.5 * mean;
                let scaled = if *scale > 0.0 { 2.0 * (half * scale) } else { 0.0 };
                *value = scaled.clamp(-LIMIT, LIMIT);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn standardised_training_rows_have_mean_0_and_deviation_1() {
        let mut matrix: Vec<f32> = (0..40).flat_map(|i| [i as f32, 5.0, 1e4 + (i % 2) as f32]).collect();
        let standardiser = Standardiser::fit(&matrix, 3);
        standardiser.apply(&mut matrix);
        for column in 0..3 {
            let values = || matrix.iter().skip(column).step_by(3);
            let mean = values().sum::<f32>() / 40.0;
            let variance = values().map(|value| (value - mean).powi(2)).sum::<f32>() / 40.0;
            assert!(mean.abs() < 1e-3);
            assert!((variance - if column == 1 { 0.0 } else { 1.0 }).abs() < 1e-3, "{column}: {variance}");
        }
        let mut far = [f32::MAX, 6.0, f32::MIN];
        standardiser.apply(&mut far);
        assert_eq!(far, [LIMIT, 0.0, -LIMIT]);
    }

    /// Two classes by the sign of the product of both inputs: only a hidden layer can tell.
    fn quadrants(rows: usize, key: Key) -> Rows {
        let mut rng = key.rng();
        let inputs: Vec<f32> = (0..2 * rows).map(|_| rng.normal() as f32).collect();
        let one_hot = |pair: &[f32]| if pair[0] * pair[1] > 0.0 { [1.0, 0.0] } else { [0.0, 1.0] };
        let targets = inputs.chunks_exact(2).flat_map(one_hot).collect();
        Rows { inputs, targets }
    }

    fn hits(network: &mut Network, rows: &Rows) -> f64 {
        let probabilities = network.predict(&rows.inputs);
        let pairs = probabilities.chunks_exact(2).zip(rows.targets.chunks_exact(2));
        let hits = pairs.filter(|(p, t)| (p[0] > p[1]) == (t[0] > t[1])).count();
        2.0 * hits as f64 / rows.targets.len() as f64
    }

    #[test]
    fn a_hidden_layer_learns_what_a_linear_one_cannot() {
        let (train, valid) = (quadrants(400, Key::root(1)), quadrants(200, Key::root(2)));
        let test = quadrants(400, Key::root(3));
        let config = ProbeConfig { seeds: 2, ..ProbeConfig::default() };
        let score = |hidden| {
            let shape = Shape { inputs: 2, hidden, outputs: 2 };
            let material = Material { train: &train, valid: &valid, shape, loss: Loss::Softmax };
            let mut fitted = fit(&material, &config, Key::root(4)).unwrap();
            assert_eq!(fitted.networks.len(), 2);
            hits(&mut fitted.networks[1], &test)
        };
        assert!(score(Some(32)) > 0.93);
        assert!(score(None) < 0.62);
    }

    #[test]
    fn selection_looks_at_validation_rows_only() {
        // Training pairs are mislabelled on purpose: what validation rejects is not kept.
        let (mut train, valid) = (quadrants(100, Key::root(1)), quadrants(100, Key::root(2)));
        train.targets.chunks_exact_mut(2).for_each(|pair| pair.reverse());
        let shape = Shape { inputs: 2, hidden: Some(16), outputs: 2 };
        let material = Material { train: &train, valid: &valid, shape, loss: Loss::Softmax };
        let mut fitted = fit(&material, &ProbeConfig::default(), Key::root(4)).unwrap();
        let prior = train.targets.iter().step_by(2).sum::<f32>() / 100.0;
        let predicted = fitted.networks[0].predict(&[0.3, 0.3, -2.0, 1.0]);
        assert!((predicted[0] - predicted[2]).abs() < 0.1, "{predicted:?}");
        assert!((predicted[0] - prior).abs() < 0.1, "{predicted:?}");
    }
}
