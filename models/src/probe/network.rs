//! The small network behind a probe: one or two dense layers, forward and backward written out, and Adam.
//!
//! Everything is `f32` on slices, row-major, one thread. Results depend on the inputs and the key only.

use loev_ops::rng::Key;

use super::matmul::{Matrix, multiply};

/// How outputs become probabilities, and which loss that implies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Loss {
    /// One distribution over all outputs: softmax with cross-entropy.
    Softmax,
    /// One yes or no per output: sigmoid with binary cross-entropy, summed over outputs.
    Sigmoid,
}

impl Loss {
    /// Turns each row of `logits` into probabilities in place.
    pub(super) fn activate(self, logits: &mut [f32], outputs: usize) {
        match self {
            Self::Softmax => logits.chunks_exact_mut(outputs).for_each(softmax),
            Self::Sigmoid => logits.iter_mut().for_each(|logit| *logit = 1.0 / (1.0 + (-*logit).exp())),
        }
    }

    /// Loss of raw `logits`, summed over rows.
    pub(super) fn total(self, logits: &[f32], targets: &[f32], outputs: usize) -> f64 {
        let rows = logits.chunks_exact(outputs).zip(targets.chunks_exact(outputs));
        rows.map(|(logits, targets)| match self {
            Self::Softmax => {
                let top = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
                let sum: f64 = logits.iter().map(|logit| f64::from(logit - top).exp()).sum();
                let log_sum = sum.ln() + f64::from(top);
                logits
                    .iter()
                    .zip(targets)
                    .map(|(&z, &t)| f64::from(t) * (log_sum - f64::from(z)))
                    .sum::<f64>()
            }
            Self::Sigmoid => logits
                .iter()
                .zip(targets)
                .map(|(&z, &t)| {
                    let z = f64::from(z);
                    // max(z, 0) - t z + ln(1 + exp(-|z|)) does not overflow for any z.
                    z.max(0.0) - f64::from(t) * z + (-z.abs()).exp().ln_1p()
                })
                .sum(),
        })
        .sum()
    }

    /// The output biases under which a network with zero weights predicts `prior` for every row.
    fn bias(self, prior: f64) -> f32 {
        let prior = prior.clamp(1e-4, 1.0 - 1e-4);
        match self {
            Self::Softmax => prior.ln() as f32,
            Self::Sigmoid => (prior / (1.0 - prior)).ln() as f32,
        }
    }
}

fn softmax(row: &mut [f32]) {
    let top = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let mut sum = 0.0;
    for value in row.iter_mut() {
        *value = (*value - top).exp();
        sum += *value;
    }
    row.iter_mut().for_each(|value| *value /= sum);
}

/// Adam (Kingma & Ba, arXiv 1412.6980) on the loss plus `decay / 2` times the sum of squared weights.
///
/// The penalty goes through the gradient, not beside it as in AdamW, so the optimum is that of penalised logistic
/// regression whatever the optimiser's path. It matters with few rows: in this crate's probe bench, a linear key
/// probe of 600 rows reaches 0.31, and 0.23 with a decoupled decay of 0.01.
#[derive(Clone, Copy, Debug)]
pub(super) struct Adam {
    pub(super) rate: f64,
    pub(super) decay: f64,
}

const BETA_1: f64 = 0.9;
const BETA_2: f64 = 0.999;
const EPSILON: f32 = 1e-8;

/// A parameter with its gradient and Adam's two moments.
#[derive(Clone, Debug)]
struct Parameter {
    value: Vec<f32>,
    gradient: Vec<f32>,
    first: Vec<f32>,
    second: Vec<f32>,
}

impl Parameter {
    fn new(value: Vec<f32>) -> Self {
        let zeros = vec![0.0; value.len()];
        Self { value, gradient: zeros.clone(), first: zeros.clone(), second: zeros }
    }

    /// One update; `step` counts from 1.
    fn update(&mut self, rate: f64, decay: f64, step: i32) {
        let correction_1 = 1.0 - BETA_1.powi(step);
        let correction_2 = 1.0 - BETA_2.powi(step);
        let (beta_1, beta_2) = (BETA_1 as f32, BETA_2 as f32);
        let scale = (rate / correction_1) as f32;
        let root = (1.0 / correction_2.sqrt()) as f32;
        let decay = decay as f32;
        let moments = self.first.iter_mut().zip(self.second.iter_mut());
        for ((value, &gradient), (first, second)) in self.value.iter_mut().zip(&self.gradient).zip(moments) {
            let gradient = gradient + decay * *value;
            *first = beta_1 * *first + (1.0 - beta_1) * gradient;
            *second = beta_2 * *second + (1.0 - beta_2) * gradient * gradient;
            *value -= scale * *first / (second.sqrt() * root + EPSILON);
        }
    }
}

/// A dense layer: `rows x inputs` times `inputs x outputs`, plus a bias.
#[derive(Clone, Debug)]
struct Dense {
    inputs: usize,
    outputs: usize,
    weight: Parameter,
    bias: Parameter,
}

impl Dense {
    fn new(inputs: usize, outputs: usize, deviation: f64, key: Key) -> Self {
        let mut rng = key.rng();
        let weight = (0..inputs * outputs).map(|_| (deviation * rng.normal()) as f32).collect();
        Self { inputs, outputs, weight: Parameter::new(weight), bias: Parameter::new(vec![0.0; outputs]) }
    }

    fn weights(&self) -> Matrix<'_> {
        Matrix::new(&self.weight.value, self.inputs, self.outputs)
    }

    fn forward(&self, x: &[f32], rows: usize, out: &mut Vec<f32>) {
        out.clear();
        (0..rows).for_each(|_| out.extend_from_slice(&self.bias.value));
        multiply(Matrix::new(x, rows, self.inputs), self.weights(), out, true);
    }

    /// Sets both gradients from the inputs and the gradient `delta` of the loss by the outputs.
    fn backward(&mut self, x: &[f32], delta: &[f32], rows: usize) {
        let delta = &delta[..rows * self.outputs];
        let inputs = Matrix::new(x, rows, self.inputs).transposed();
        multiply(inputs, Matrix::new(delta, rows, self.outputs), &mut self.weight.gradient, false);
        self.bias.gradient.fill(0.0);
        for row in delta.chunks_exact(self.outputs) {
            self.bias.gradient.iter_mut().zip(row).for_each(|(sum, value)| *sum += value);
        }
    }

    fn update(&mut self, adam: Adam, step: i32) {
        self.weight.update(adam.rate, adam.decay, step);
        self.bias.update(adam.rate, 0.0, step);
    }
}

/// Sizes of a probe's network.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shape {
    pub(super) inputs: usize,
    pub(super) hidden: Option<usize>,
    pub(super) outputs: usize,
}

/// Rows evaluated at once, so that scratch memory does not grow with the data.
const CHUNK: usize = 1024;

/// A linear or one-hidden-layer classifier.
#[derive(Clone, Debug)]
pub(super) struct Network {
    shape: Shape,
    loss: Loss,
    hidden: Option<Dense>,
    output: Dense,
    steps: i32,
    activation: Vec<f32>,
    logits: Vec<f32>,
    delta: Vec<f32>,
}

impl Network {
    /// A network that predicts `prior`, one share per output, whatever the input: output weights start at 0
    /// and hidden ones at He's scale (arXiv 1502.01852).
    ///
    /// With a hidden layer, zero output weights stop the hidden gradient in the first step only.
    pub(super) fn new(shape: Shape, loss: Loss, prior: &[f64], key: Key) -> Self {
        let hidden = shape.hidden.map(|units| {
            Dense::new(shape.inputs, units, (2.0 / shape.inputs.max(1) as f64).sqrt(), key.with_str("hidden"))
        });
        let width = shape.hidden.unwrap_or(shape.inputs);
        let mut output = Dense::new(width, shape.outputs, 0.0, key.with_str("output"));
        output.bias.value.iter_mut().zip(prior).for_each(|(bias, &prior)| *bias = loss.bias(prior));
        let (activation, logits, delta) = (Vec::new(), Vec::new(), Vec::new());
        Self { shape, loss, hidden, output, steps: 0, activation, logits, delta }
    }

    /// Fills `self.logits`.
    fn forward(&mut self, x: &[f32], rows: usize) {
        let input = match &self.hidden {
            Some(layer) => {
                layer.forward(x, rows, &mut self.activation);
                self.activation.iter_mut().for_each(|value| *value = value.max(0.0));
                &self.activation
            }
            None => x,
        };
        self.output.forward(input, rows, &mut self.logits);
    }

    /// Sets the gradients of the mean loss over `rows` rows.
    fn backward(&mut self, x: &[f32], targets: &[f32], rows: usize) {
        self.forward(x, rows);
        self.loss.activate(&mut self.logits, self.shape.outputs);
        let scale = 1.0 / rows as f32;
        // Both losses have the same gradient by their logits: probability less target.
        self.logits.iter_mut().zip(targets).for_each(|(value, target)| *value = (*value - target) * scale);
        let Some(hidden) = &mut self.hidden else {
            self.output.backward(x, &self.logits, rows);
            return;
        };
        self.output.backward(&self.activation, &self.logits, rows);
        self.delta.resize(rows * hidden.outputs, 0.0);
        let slope = Matrix::new(&self.logits, rows, self.shape.outputs);
        multiply(slope, self.output.weights().transposed(), &mut self.delta, false);
        for (delta, &active) in self.delta.iter_mut().zip(&self.activation) {
            *delta = if active > 0.0 { *delta } else { 0.0 };
        }
        hidden.backward(x, &self.delta, rows);
    }

    /// One Adam step on a batch of `rows` rows of `x` (`rows x inputs`) and `targets` (`rows x outputs`).
    pub(super) fn train(&mut self, x: &[f32], targets: &[f32], rows: usize, adam: Adam) {
        if rows == 0 {
            return;
        }
        self.backward(x, targets, rows);
        self.steps = self.steps.saturating_add(1);
        if let Some(hidden) = &mut self.hidden {
            hidden.update(adam, self.steps);
        }
        self.output.update(adam, self.steps);
    }

    /// Mean loss over all rows; infinite if it is not finite.
    pub(super) fn mean_loss(&mut self, x: &[f32], targets: &[f32]) -> f64 {
        let Shape { inputs, outputs, .. } = self.shape;
        let rows = targets.len() / outputs;
        let mut total = 0.0;
        for (x, targets) in x.chunks(CHUNK * inputs).zip(targets.chunks(CHUNK * outputs)) {
            self.forward(x, targets.len() / outputs);
            total += self.loss.total(&self.logits, targets, outputs);
        }
        let mean = total / rows as f64;
        if mean.is_finite() { mean } else { f64::INFINITY }
    }

    /// Probabilities, `rows x outputs`.
    pub(super) fn predict(&mut self, x: &[f32]) -> Vec<f32> {
        let Shape { inputs, outputs, .. } = self.shape;
        let mut probabilities = Vec::with_capacity(x.len() / inputs * outputs);
        for x in x.chunks(CHUNK * inputs) {
            self.forward(x, x.len() / inputs);
            self.loss.activate(&mut self.logits, outputs);
            probabilities.extend_from_slice(&self.logits);
        }
        probabilities
    }

    /// Copies the weights of `other`, which has the same shape, without its optimiser state.
    pub(super) fn copy_weights(&mut self, other: &Self) {
        let copy = |to: &mut Dense, from: &Dense| {
            to.weight.value.clone_from(&from.weight.value);
            to.bias.value.clone_from(&from.bias.value);
        };
        copy(&mut self.output, &other.output);
        if let (Some(to), Some(from)) = (&mut self.hidden, &other.hidden) {
            copy(to, from);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHAPES: [Shape; 2] =
        [Shape { inputs: 5, hidden: None, outputs: 3 }, Shape { inputs: 5, hidden: Some(7), outputs: 3 }];

    fn random(n: usize, key: Key) -> Vec<f32> {
        let mut rng = key.rng();
        (0..n).map(|_| rng.normal() as f32).collect()
    }

    /// A network with weights everywhere, so that every gradient is exercised.
    fn network(shape: Shape, loss: Loss) -> Network {
        let mut network = Network::new(shape, loss, &[0.2, 0.5, 0.3], Key::root(5));
        network.output.weight.value = random(network.output.weight.value.len(), Key::root(6));
        if let Some(hidden) = &mut network.hidden {
            hidden.bias.value = random(hidden.bias.value.len(), Key::root(7));
        }
        network
    }

    fn targets(loss: Loss, rows: usize) -> Vec<f32> {
        let one_hot = |row: usize| [0, 1, 2].map(|class| row % 3 == class);
        let multi_hot = |row: usize| [row % 2 == 1, row % 3 == 1, row % 5 < 2];
        let of = |row| if loss == Loss::Softmax { one_hot(row) } else { multi_hot(row) };
        (0..rows).flat_map(of).map(|yes| f32::from(u8::from(yes))).collect()
    }

    /// The loss of a network in `f64` by its definition, with no code shared.
    fn reference_loss(network: &Network, x: &[f32], targets: &[f32]) -> f64 {
        let dense = |layer: &Dense, x: &[f64]| -> Vec<f64> {
            (0..layer.outputs)
                .map(|j| {
                    let products = (0..layer.inputs)
                        .map(|i| x[i] * f64::from(layer.weight.value[i * layer.outputs + j]));
                    products.sum::<f64>() + f64::from(layer.bias.value[j])
                })
                .collect()
        };
        let rows = x.len() / network.shape.inputs;
        let mut total = 0.0;
        for row in 0..rows {
            let mut state: Vec<f64> =
                x[row * 5..(row + 1) * 5].iter().map(|&value| f64::from(value)).collect();
            if let Some(hidden) = &network.hidden {
                state = dense(hidden, &state).into_iter().map(|value| value.max(0.0)).collect();
            }
            let logits = dense(&network.output, &state);
            let sum: f64 = logits.iter().map(|z| z.exp()).sum();
            for (z, &t) in logits.iter().zip(&targets[row * 3..]) {
                let t = f64::from(t);
                total -= match network.loss {
                    Loss::Softmax => t * (z.exp() / sum).ln(),
                    Loss::Sigmoid => {
                        let p = 1.0 / (1.0 + (-z).exp());
                        t * p.ln() + (1.0 - t) * (1.0 - p).ln()
                    }
                };
            }
        }
        total / rows as f64
    }

    #[test]
    fn losses_match_the_definition() {
        let x = random(11 * 5, Key::root(1));
        for (shape, loss) in SHAPES.into_iter().flat_map(|s| [(s, Loss::Softmax), (s, Loss::Sigmoid)]) {
            let mut network = network(shape, loss);
            let targets = targets(loss, 11);
            let expected = reference_loss(&network, &x, &targets);
            assert!((network.mean_loss(&x, &targets) - expected).abs() < 1e-5 * expected);
        }
    }

    #[test]
    fn gradients_match_finite_differences() {
        let x = random(11 * 5, Key::root(2));
        for (shape, loss) in SHAPES.into_iter().flat_map(|s| [(s, Loss::Softmax), (s, Loss::Sigmoid)]) {
            let mut network = network(shape, loss);
            let targets = targets(loss, 11);
            network.backward(&x, &targets, 11);
            let layers: [fn(&mut Network) -> Option<&mut Dense>; 2] =
                [|n| n.hidden.as_mut(), |n| Some(&mut n.output)];
            let parts: [fn(&mut Dense) -> &mut Parameter; 2] = [|d| &mut d.weight, |d| &mut d.bias];
            for (layer, part) in layers.into_iter().flat_map(|layer| parts.map(|part| (layer, part))) {
                let Some(dense) = layer(&mut network) else { continue };
                let gradient = part(dense).gradient.clone();
                assert!(gradient.iter().any(|&value| value != 0.0));
                for (i, &found) in gradient.iter().enumerate() {
                    let mut at = |offset: f32| {
                        let value = &mut part(layer(&mut network).unwrap()).value[i];
                        let (before, moved) = (*value, *value + offset);
                        *value = moved;
                        let loss = reference_loss(&network, &x, &targets);
                        part(layer(&mut network).unwrap()).value[i] = before;
                        (f64::from(moved), loss)
                    };
                    let ((hi, above), (lo, below)) = (at(1e-3), at(-1e-3));
                    let expected = (above - below) / (hi - lo);
                    assert!(
                        (f64::from(found) - expected).abs() < 2e-4,
                        "{found} {expected} {shape:?} {loss:?}"
                    );
                }
            }
        }
    }

    #[test]
    fn adam_matches_its_definition() {
        let adam = Adam { rate: 0.1, decay: 0.5 };
        let mut parameter = Parameter::new(vec![1.0]);
        let (mut value, mut m, mut v) = (1.0f64, 0.0f64, 0.0f64);
        for step in 1..=5 {
            let gradient = 0.3 * f64::from(step) - 0.7;
            parameter.gradient[0] = gradient as f32;
            parameter.update(adam.rate, adam.decay, step);
            let gradient = gradient + 0.5 * value;
            m = 0.9 * m + 0.1 * gradient;
            v = 0.999 * v + 0.001 * gradient * gradient;
            let (m_hat, v_hat) = (m / (1.0 - 0.9f64.powi(step)), v / (1.0 - 0.999f64.powi(step)));
            value -= 0.1 * m_hat / (v_hat.sqrt() + 1e-8);
        }
        assert!((f64::from(parameter.value[0]) - value).abs() < 1e-5);
    }

    #[test]
    fn a_linear_probe_converges_to_logistic_regression() {
        // scikit-learn 1.9.1, LogisticRegression(C=1/(0.05 * 12), tol=1e-10), predict_proba of three points.
        let x = [
            0.5, 1.2, -1.0, 0.3, 0.8, -0.7, 1.5, 0.4, -0.6, -1.1, 0.1, 0.9, -1.3, 1.4, 0.7, -1.6, -0.2, -0.4,
            1.1, 1.0, -0.9, -0.8, 0.3, 0.2,
        ];
        let classes = [0, 1, 2, 0, 2, 1, 1, 2, 0, 0, 1, 2];
        let targets: Vec<f32> =
            classes.iter().flat_map(|class| [0, 1, 2].map(|c| f32::from(u8::from(c == *class)))).collect();
        let shape = Shape { inputs: 2, hidden: None, outputs: 3 };
        let mut network = Network::new(shape, Loss::Softmax, &[1.0 / 3.0; 3], Key::root(1));
        (0..3000).for_each(|_| network.train(&x, &targets, 12, Adam { rate: 0.005, decay: 0.05 }));
        let found = network.predict(&[0.0, 0.0, 1.0, -1.0, -2.0, 0.5]);
        let expected =
            [0.329241, 0.332752, 0.338007, 0.211071, 0.023719, 0.765209, 0.013490, 0.974754, 0.011756];
        for (found, expected) in found.iter().zip(expected) {
            assert!((f64::from(*found) - expected).abs() < 1e-3, "{found} {expected}");
        }
    }

    #[test]
    fn an_untrained_network_predicts_the_prior() {
        let prior = [0.2, 0.5, 0.3];
        let x = random(4 * 5, Key::root(3));
        for (shape, loss) in SHAPES.into_iter().flat_map(|s| [(s, Loss::Softmax), (s, Loss::Sigmoid)]) {
            let predicted = Network::new(shape, loss, &prior, Key::root(4)).predict(&x);
            for (found, expected) in predicted.iter().zip(prior.iter().cycle()) {
                assert!((f64::from(*found) - expected).abs() < 1e-5);
            }
        }
    }

    #[test]
    fn extreme_logits_stay_finite() {
        for loss in [Loss::Softmax, Loss::Sigmoid] {
            let mut row = [1e4, -1e4, 0.0];
            assert!(loss.total(&row, &[0.0, 1.0, 0.0], 3).is_finite());
            loss.activate(&mut row, 3);
            assert!(row.iter().all(|value| value.is_finite()), "{row:?}");
        }
    }
}
