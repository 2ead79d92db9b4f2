//! Steps that kernels do, on the mirror of a GPU, against those of the CPU.

use super::*;
use candle_core::Tensor;
use loev_ops::gpu::Gpu;
use std::{collections::BTreeMap, time::Duration};

fn batch_of(method: Method, n: u64, rendered: bool) -> TrainBatch {
    let mut batch = batch(Key::root(5).with(n));
    batch.groups.truncate(config(method).subspaces.len());
    batch.epoch = n as u32;
    if rendered {
        let values = batch.features.host().unwrap().into_owned();
        batch.features = Tensor::from_vec(values, (batch.views, FRAMES, MELS), &Device::Cpu).unwrap().into();
    }
    batch
}

fn fitted_on(method: Method, cfg: &TrainConfig, rendered: bool) -> Training {
    let mut training = Training::new(config(method), cfg, &Device::Cpu).unwrap();
    training.fit(&[batch_of(method, 1, rendered)]).unwrap();
    training
}

fn mirrored(method: Method, cfg: &TrainConfig) -> Training {
    fitted_on(method, cfg, true).mirrored().unwrap()
}

fn weights(training: &Training) -> Vec<f32> {
    let of = |p: &crate::params::Parameter| p.var.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    training.params.iter().flat_map(|(_, p)| of(p)).collect()
}

fn agree(a: &StepMetrics, b: &StepMetrics) {
    assert_eq!((a.step, a.epoch, a.views, a.lr), (b.step, b.epoch, b.views, b.lr));
    assert_eq!((&a.head_floors, a.wait_seconds), (&b.head_floors, b.wait_seconds));
    let near = |a: f64, b: f64, bound: f64| assert!((a - b).abs() <= bound * b.abs().max(0.1), "{a} {b}");
    near(a.loss, b.loss, 1e-3);
    near(a.grad_norm, b.grad_norm, 1e-3);
    a.head_losses.iter().zip(&b.head_losses).for_each(|(a, b)| near(*a, *b, 1e-3));
    a.temperatures.iter().zip(&b.temperatures).for_each(|(a, b)| near(*a, *b, 1e-5));
}

#[test]
fn steps_agree_with_those_of_the_cpu() {
    if Gpu::mirror_if_any().is_none() {
        return;
    }
    let spec_mask = SpecMask { time: 0.2, frequency: 0.2, ..SpecMask::default() };
    let every = TrainConfig {
        warmup: 1,
        learn_temperature: true,
        exclude_positives: true,
        ema: 0.9,
        weight_decay: 0.1,
        clip: 0.3,
        accumulate: 2,
        micro_batch: 20,
        layer_decay: 0.7,
        mask: 0.5,
        spec_mask,
        ..quick(3)
    };
    let plain = TrainConfig { warmup: 0, ..quick(2) };
    for (method, cfg) in [
        (Method::LoevPlusPlus, every),
        (Method::Loev, plain.clone()),
        (Method::LoevReference, TrainConfig { spec_mask, ..plain }),
    ] {
        let (mut host, mut device) = (fitted_on(method, &cfg, false), mirrored(method, &cfg));
        let (before, mut late) = (weights(&host), Vec::new());
        let mut now = Vec::new();
        for step in 1..=cfg.steps as u64 {
            let batches = |rendered| {
                let numbers = (step - 1) * cfg.accumulate as u64 + 1..=step * cfg.accumulate as u64;
                // Features of the host do as well.
                numbers.map(|n| batch_of(method, n, rendered && n != 2)).collect()
            };
            let waited = Duration::from_millis(step);
            now.extend(host.submit(batches(false), waited).unwrap());
            let metrics = device.submit(batches(true), waited).unwrap();
            assert_eq!(metrics.as_ref().map_or(0, |m| m.step), step as usize - 1, "of the step before");
            late.extend(metrics);
        }
        assert!(host.settle().unwrap().is_none());
        late.extend(device.settle().unwrap());
        assert!(device.settle().unwrap().is_none());
        assert_eq!(now.len(), late.len());
        late.iter().zip(&now).for_each(|(a, b)| agree(a, b));

        let (a, b) = (weights(&device), weights(&host));
        let length =
            |x: &[f32], y: &[f32]| x.iter().zip(y).map(|(x, y)| f64::from(x - y).powi(2)).sum::<f64>().sqrt();
        let (apart, moved) = (length(&a, &b), length(&b, &before));
        assert!(apart < 0.02 * moved, "{method:?}: {apart:e} of {moved:e}");
    }
}

#[test]
fn errors_are_of_their_own_step() {
    if Gpu::mirror_if_any().is_none() {
        return;
    }
    let method = Method::Loev;
    let mut training = mirrored(method, &quick(9));
    let submit = |training: &mut Training, n, change: &dyn Fn(&mut Vec<f32>)| {
        let mut batch = batch_of(method, n, false);
        let mut values = batch.features.host().unwrap().into_owned();
        change(&mut values);
        batch.features = Tensor::from_vec(values, (batch.views, FRAMES, MELS), &Device::Cpu).unwrap().into();
        training.submit(vec![batch], Duration::ZERO)
    };
    assert!(submit(&mut training, 1, &|_| ()).unwrap().is_none());
    assert_eq!(submit(&mut training, 2, &|v| v[FRAMES * MELS + 5] = f32::NAN).unwrap().unwrap().step, 1);
    let moved = weights(&training);
    let dir = tempfile::tempdir().unwrap();
    let save = |training: &Training| training.save_state(&dir.path().join("state"), &BTreeMap::new());
    assert!(matches!(save(&training), Err(ModelError::Config(m)) if m.contains("not settled")));
    let error = submit(&mut training, 3, &|_| ()).unwrap_err();
    assert!(
        matches!(&error, ModelError::NotFinite { what, step: 2 } if what == "a feature of view 1"),
        "{error}"
    );
    assert!(weights(&training).iter().all(|w| w.is_finite()), "the step has moved nothing");
    assert!(moved.iter().all(|w| w.is_finite()));
    assert!(matches!(save(&training), Err(ModelError::Config(_))));
    assert!(matches!(submit(&mut training, 4, &|_| ()), Err(ModelError::Config(_))));

    let mut training = mirrored(method, &quick(9));
    assert!(submit(&mut training, 1, &|v| v.iter_mut().for_each(|x| *x *= 1e33)).unwrap().is_none());
    let error = training.settle().unwrap_err().to_string();
    assert!(error.contains("step 1: a projection of subspace invariant"), "{error}");

    let spoilt = |name: &str, factor: f64| {
        let mut training = mirrored(method, &quick(9));
        let parameter = training.model().params().parameter(name).unwrap();
        parameter.var.set(&(parameter.var.as_tensor() * factor).unwrap()).unwrap();
        training.step(batch_of(method, 1, true)).unwrap_err()
    };
    let error = spoilt("trunk.0.mlp.up.bias", f64::NAN);
    assert!(
        matches!(&error, ModelError::NotFinite { what, step: 1 } if what == "parameter class"
        || what == "parameter trunk.0.mlp.up.bias"),
        "{error}"
    );
    let error = spoilt("projection.1.1.weight", 0.0);
    assert!(
        matches!(&error, ModelError::NoGradient { parameter } if parameter.starts_with("projection.1.0")),
        "{error}"
    );
}

#[test]
fn a_state_is_that_of_any_device() {
    if Gpu::mirror_if_any().is_none() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (method, path) = (Method::Loev, dir.path().join("state"));
    let cfg = TrainConfig { ema: 0.9, learn_temperature: true, ..quick(4) };
    let step = |training: &mut Training, n| training.step(batch_of(method, n, true)).unwrap();
    let mut whole = mirrored(method, &cfg);
    let log: Vec<_> = (1..=3).map(|n| step(&mut whole, n).loss).collect();
    let mut stopped = mirrored(method, &cfg);
    step(&mut stopped, 1);
    stopped.save_state(&path, &BTreeMap::new()).unwrap();
    let resume = || Training::resume(&path, &config(method), &cfg, &Device::Cpu).unwrap().0;
    let mut resumed = resume().mirrored().unwrap();
    assert_eq!([step(&mut resumed, 2).loss, step(&mut resumed, 3).loss], log[1..]);
    assert_eq!(weights(&resumed), weights(&whole));
    let mut host = resume();
    assert!((step(&mut host, 2).loss - log[1]).abs() < 1e-4);
    let [a, b] = [resumed, whole].map(|training| training.into_model().unwrap());
    for ((_, a), (_, b)) in a.params().iter().zip(b.params().iter()) {
        let [a, b] = [a, b].map(|p| p.var.flatten_all().unwrap().to_vec1::<f32>().unwrap());
        assert_eq!(a, b);
    }
}
