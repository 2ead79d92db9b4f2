//! Time of the probes of one subspace at the size of the quickstart: 600 training, 200 validation and 200 test
//! rows of 96 values, default configuration (linear and 512 hidden units, a grid of six, three seeds).

use divan::Bencher;
use loev_models::probe::{Labels, ProbeConfig, ProbeData, Split, probe};
use loev_ops::mir::MusicalKey;
use loev_ops::rng::Key;

const ROWS: usize = 1000;
const DIM: usize = 96;

fn main() {
    divan::main();
}

/// Embeddings that carry the labels, buried in as much noise as a half-trained encoder's.
fn material(task: &str) -> (Vec<f32>, Labels) {
    let mut rng = Key::root(1).rng();
    let draws: Vec<f64> = (0..ROWS).map(|_| rng.f64()).collect();
    let mut embeddings: Vec<f32> = (0..ROWS * DIM).map(|_| 0.6 * rng.normal() as f32).collect();
    for (row, draw) in embeddings.chunks_exact_mut(DIM).zip(&draws) {
        for (dimension, value) in row.iter_mut().take(48).enumerate() {
            *value += (-0.5 * ((dimension as f64 - 48.0 * draw) / 1.5).powi(2)).exp() as f32;
        }
    }
    let labels = match task {
        "key" => {
            Labels::Key(draws.iter().map(|draw| MusicalKey::from_index((24.0 * draw) as usize)).collect())
        }
        "tempo" => Labels::Tempo(draws.iter().map(|draw| Some(60.0 * 3f64.powf(*draw))).collect()),
        _ => {
            let near = |draw: f64| {
                (0..12)
                    .filter(move |tag| (draw - f64::from(*tag) / 12.0).abs() < 0.2)
                    .map(|tag| format!("tag{tag}"))
            };
            Labels::Tags(draws.iter().map(|draw| Some(near(*draw).collect())).collect())
        }
    };
    (embeddings, labels)
}

#[divan::bench(args = ["key", "tempo", "tags"], sample_count = 3, sample_size = 1)]
fn default_grid(bencher: Bencher<'_, '_>, task: &str) {
    let (embeddings, labels) = material(task);
    let split: Vec<Split> =
        (0..ROWS).map(|row| [Split::Train, Split::Valid, Split::Test][(row % 5).saturating_sub(2)]).collect();
    let data = ProbeData { embeddings: &embeddings, dim: DIM, split: &split, labels: &labels };
    let config = ProbeConfig::default();
    bencher.bench_local(|| probe(&data, &config, Key::root(2)));
}
