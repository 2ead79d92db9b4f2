//! Views per second of whole training steps and of embedding, on the default encoder: width 96, depth
//! 4, three heads, 75 patches of four frames, 64 views a batch.

#![allow(clippy::unwrap_used)]

use candle_core::{Device, Tensor};
use divan::{Bencher, counter::ItemsCount};
use loev_models::{
    Method, Model, ModelConfig,
    encoder::EncoderConfig,
    train::{TrainBatch, TrainConfig, train},
};
use loev_ops::features::FrontEnd;
use std::ops::ControlFlow;

const VIEWS: usize = 64;
const FRAMES: usize = 301;
const STEPS: usize = 10;

fn main() {
    divan::main();
}

#[derive(Debug, Clone, Copy)]
struct Case {
    method: Method,
    mask: f64,
}

const CASES: [Case; 4] = [
    Case { method: Method::Simclr, mask: 0.0 },
    Case { method: Method::Loev, mask: 0.0 },
    Case { method: Method::LoevPlusPlus, mask: 0.0 },
    Case { method: Method::LoevPlusPlus, mask: 0.5 },
];

fn config(method: Method) -> ModelConfig {
    let subspaces: &[&str] =
        if method == Method::Simclr { &["invariant"] } else { &["invariant", "pitch_shift", "time_stretch"] };
    ModelConfig {
        encoder: EncoderConfig::default(),
        method,
        subspaces: subspaces.iter().map(|&s| s.into()).collect(),
        front_end: FrontEnd::default(),
        frames: FRAMES,
        projection: vec![256, 64],
        seed: 1,
    }
}

fn features() -> Vec<f32> {
    (0..VIEWS * FRAMES * 96).map(|i| -40.0 + 20.0 * (i as f32 * 0.37).sin()).collect()
}

/// Ten steps, the making of the model included.
#[divan::bench(args = CASES, sample_count = 5, sample_size = 1)]
fn steps(bencher: Bencher, case: Case) {
    let config = config(case.method);
    let ids = |divisor: i64| (0..VIEWS as i64).map(|i| i / 4 * 4 + i % divisor).collect::<Vec<_>>();
    let groups = [ids(1), ids(2), ids(2)];
    let batch = TrainBatch {
        features: features().into(),
        views: VIEWS,
        groups: groups[..config.subspaces.len()].to_vec(),
        epoch: 0,
    };
    let cfg = TrainConfig { steps: STEPS, mask: case.mask, ..TrainConfig::default() };
    bencher.counter(ItemsCount::new(VIEWS * STEPS)).bench_local(|| {
        let mut next = || Ok(Some(batch.clone()));
        train(config.clone(), &cfg, &Device::Cpu, &mut next, &mut |_| ControlFlow::Continue(())).unwrap()
    });
}

#[divan::bench(args = [Method::Simclr, Method::Loev, Method::LoevPlusPlus])]
fn embed(bencher: Bencher, method: Method) {
    let model = Model::new(config(method), &Device::Cpu).unwrap();
    let features = Tensor::from_vec(features(), (VIEWS, FRAMES, 96), &Device::Cpu).unwrap();
    bencher.counter(ItemsCount::new(VIEWS)).bench_local(|| model.embed(&features).unwrap());
}
