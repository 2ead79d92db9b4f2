//! Training on a small task with a known answer, and what the trainer refuses.

mod on_device;
mod options;
mod resume;

use super::*;
use crate::{
    Method,
    encoder::{EncoderConfig, vit::VitConfig},
};
use loev_ops::{
    features::FrontEnd,
    rng::{Key, Rng},
};

const FRAMES: usize = 32;
const MELS: usize = 24;
const SEGMENTS: usize = 12;

fn config(method: Method) -> ModelConfig {
    let subspaces: &[&str] =
        if method == Method::Simclr { &["invariant"] } else { &["invariant", "pitch_shift", "time_stretch"] };
    let vit = VitConfig {
        dim: 32,
        depth: 2,
        heads: 2,
        patch_frames: 2,
        mlp_ratio: 2,
        rhythm: 2,
        ..VitConfig::default()
    };
    ModelConfig {
        encoder: EncoderConfig::Vit(vit),
        method,
        subspaces: subspaces.iter().map(|&s| s.into()).collect(),
        front_end: FrontEnd { mels: MELS, ..FrontEnd::default() },
        frames: FRAMES,
        projection: vec![32, 16],
        seed: 1,
    }
}

fn quick(steps: usize) -> TrainConfig {
    TrainConfig { steps, lr: 5e-3, warmup: 10, ..TrainConfig::default() }
}

/// One view: a bright row at `pitch`, all rows louder every `period` frames for half of it, and the
/// segment's own texture over noise. Levels are in dB.
fn view(texture: &[f32], pitch: usize, period: usize, rng: &mut Rng, out: &mut Vec<f32>) {
    let phase = rng.below(period);
    for frame in 0..FRAMES {
        let on = (frame + phase) % period < period / 2;
        for (mel, texture) in texture.iter().enumerate() {
            let noise = -60.0 + 2.0 * rng.normal() as f32;
            let tone = if mel == pitch { 18.0 } else { 0.0 };
            let beat = if on { 6.0 } else { 0.0 };
            out.push(noise + tone + beat + texture);
        }
    }
}

/// Four views of each of twelve segments: two pitches x two periods.
fn batch(key: Key) -> TrainBatch {
    let mut rng = key.rng();
    let mut features = Vec::new();
    let mut batch = TrainBatch { groups: vec![vec![]; 3], ..TrainBatch::default() };
    for segment in 0..SEGMENTS as i64 {
        let texture: Vec<f32> = (0..MELS).map(|_| 10.0 * rng.normal() as f32).collect();
        let pitches = [rng.below(MELS / 2), MELS / 2 + rng.below(MELS / 2)];
        for i in 0..4 {
            view(&texture, pitches[i % 2], [2, 16][i / 2], &mut rng, &mut features);
            batch.groups[0].push(segment);
            batch.groups[1].push(segment * 2 + i as i64 % 2);
            batch.groups[2].push(segment * 2 + i as i64 / 2);
            batch.views += 1;
        }
    }
    batch.features = features.into();
    batch
}

fn run(method: Method, cfg: &TrainConfig) -> Result<(Model, Vec<StepMetrics>)> {
    let (mut n, mut log) = (0, Vec::new());
    let heads = if method == Method::Simclr { 1 } else { 3 };
    let model = train(
        config(method),
        cfg,
        &Device::Cpu,
        &mut || {
            n += 1;
            let mut batch = batch(Key::root(5).with(n));
            batch.groups.truncate(heads);
            batch.epoch = (n / 10) as u32;
            Ok(Some(batch))
        },
        &mut |metrics| {
            log.push(metrics.clone());
            ControlFlow::Continue(())
        },
    )?;
    Ok((model, log))
}

/// Mean loss above the floor of each head over some steps.
fn excess(log: &[StepMetrics]) -> Vec<f64> {
    let heads = log[0].head_losses.len();
    (0..heads)
        .map(|k| log.iter().map(|m| m.head_losses[k] - m.head_floors[k]).sum::<f64>() / log.len() as f64)
        .collect()
}

#[test]
fn every_subspace_learns_its_factor() {
    let (model, log) = run(Method::LoevPlusPlus, &quick(60)).unwrap();
    let (start, end) = (excess(&log[..3]), excess(&log[57..]));
    // A factor's head that tells segments but not levels of its factor stays ln 3 = 1.1 above its floor.
    for (k, bound) in [(0, 0.6), (1, 0.8), (2, 0.85)] {
        assert!(end[k] < bound && end[k] < 0.6 * start[k], "head {k}: {start:?} to {end:?}");
    }
    assert!((log[0].head_floors[0] - 3f64.ln()).abs() < 1e-12 && log[0].head_floors[1] == 0.0);
    assert!(model.normaliser().mean.iter().all(|m| (-70.0..-40.0).contains(m)));
    assert_eq!((log.len(), log[59].step, log[59].views, log[59].epoch), (60, 60, 48, 6));
}

#[test]
fn the_other_methods_train_too() {
    for method in [Method::Simclr, Method::Loev] {
        let (_, log) = run(method, &quick(30)).unwrap();
        let (start, end) = (excess(&log[..3]), excess(&log[27..]));
        assert!(end[0] < 0.7 * start[0], "{method:?}: {start:?} to {end:?}");
    }
}

#[test]
fn dropping_patches_still_learns() {
    let (_, log) = run(Method::Loev, &TrainConfig { mask: 0.5, ..quick(40) }).unwrap();
    let (start, end) = (excess(&log[..3]), excess(&log[37..]));
    assert!(end[0] < 0.8 * start[0] && end[1] < 0.8 * start[1], "{start:?} to {end:?}");
}

#[test]
fn runs_repeat_exactly_on_any_number_of_threads() {
    let on = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let (model, log) = pool.install(|| run(Method::LoevPlusPlus, &quick(4)).unwrap());
        let mut values = Vec::new();
        for (_, p) in model.params().iter() {
            values.extend(p.var.flatten_all().unwrap().to_vec1::<f32>().unwrap());
        }
        (values, log.iter().map(|m| m.head_losses.clone()).collect::<Vec<_>>())
    };
    let one = on(1);
    assert_eq!(one, on(3));
    assert!(one == on(1), "the same threads again");
}

#[test]
fn masks_keep_the_asked_share() {
    let training = |cfg: &TrainConfig| Training::new(config(Method::Loev), cfg, &Device::Cpu).unwrap();
    let masked = training(&TrainConfig { mask: 0.75, ..quick(1) });
    let kept = masked.kept(16, 200, 3).unwrap();
    assert_eq!((kept.per_view, kept.patches.len()), (4, 800));
    let mut counts = [0; 16];
    for view in kept.patches.chunks(4) {
        assert!(view.is_sorted_by(|a, b| a < b));
        view.iter().for_each(|&p| counts[p as usize] += 1);
    }
    assert!(counts.iter().all(|n| (25..80).contains(n)), "{counts:?}");
    assert_ne!(kept, masked.kept(16, 200, 4).unwrap());
    assert_eq!(training(&quick(1)).kept(16, 4, 1), None);
}

/// Trains on batches that `change` has spoilt.
fn spoilt(cfg: &TrainConfig, change: impl Fn(usize, &mut TrainBatch)) -> ModelError {
    let mut n = 0;
    let mut next = || {
        n += 1;
        let mut batch = batch(Key::root(5).with(n));
        change(n as usize, &mut batch);
        Ok(Some(batch))
    };
    train(config(Method::Loev), cfg, &Device::Cpu, &mut next, &mut |_| ControlFlow::Continue(())).unwrap_err()
}

#[test]
fn what_cannot_be_trained_on_is_named() {
    let cfg = TrainConfig { statistics_batches: 1, ..quick(5) };
    let error = spoilt(&cfg, |n, b| {
        if n == 3 {
            let mut features = b.features.host().unwrap().into_owned();
            features[7] = f32::NAN;
            b.features = features.into();
        }
    });
    assert!(matches!(&error, ModelError::NotFinite { what, step: 3 } if what.contains("view 0")), "{error}");
    let error = spoilt(&cfg, |_, b| b.groups[2] = (0..48).collect());
    assert!(matches!(&error, ModelError::NoPositives { head } if head.contains("time_stretch")), "{error}");
    assert!(matches!(spoilt(&cfg, |_, b| b.views -= 1), ModelError::Data(_)));
    assert!(matches!(spoilt(&cfg, |_, b| b.groups.truncate(2)), ModelError::Data(_)));
    assert!(matches!(spoilt(&cfg, |_, b| b.groups[1].truncate(2)), ModelError::Data(_)));
    let short = TrainConfig { head_weights: vec![1.0], ..cfg.clone() };
    assert!(matches!(spoilt(&short, |_, _| ()), ModelError::Config(m) if m.contains("head_weights")));
    let endless = TrainConfig { clip: f64::INFINITY, ..cfg.clone() };
    assert!(matches!(spoilt(&endless, |_, _| ()), ModelError::Config(m) if m.contains("clip")));
    let hot = TrainConfig { lr: 7.0, ..cfg };
    assert!(matches!(spoilt(&hot, |_, _| ()), ModelError::Config(m) if m.contains("lr")));
}

/// A training before its first step.
fn fitted(cfg: &TrainConfig) -> Training {
    let mut training = Training::new(config(Method::Loev), cfg, &Device::Cpu).unwrap();
    training.fit(&[batch(Key::root(1))]).unwrap();
    training
}

#[test]
fn steps_come_after_statistics() {
    let mut training = Training::new(config(Method::Loev), &quick(3), &Device::Cpu).unwrap();
    assert_eq!(training.needs_statistics(), 3);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state");
    assert!(matches!(training.step(batch(Key::root(1))), Err(ModelError::Config(_))));
    assert!(matches!(training.save_state(&path, &Default::default()), Err(ModelError::Config(_))));
    assert!(matches!(training.fit(&[]), Err(ModelError::Data(_))));
    training.fit(&[batch(Key::root(1))]).unwrap();
    assert_eq!((training.needs_statistics(), training.steps()), (0, 0));
    assert!(matches!(training.fit(&[batch(Key::root(1))]), Err(ModelError::Config(_))));
    assert_eq!(training.step(batch(Key::root(1))).unwrap().step, 1);
}

#[test]
fn a_poisoned_parameter_is_named() {
    let mut training = fitted(&quick(1));
    for (name, parameter) in training.model().params().iter() {
        if name.contains("trunk.0.mlp.up") {
            parameter.var.set(&(parameter.var.as_tensor() * f64::NAN).unwrap()).unwrap();
        }
    }
    let error = training.step(batch(Key::root(1))).unwrap_err();
    assert!(
        matches!(&error, ModelError::NotFinite { what, step: 1 } if what == "parameter trunk.0.mlp.up.bias")
    );
}

#[test]
fn a_dead_parameter_is_named() {
    let mut training = fitted(&quick(1));
    let last =
        &training.model().params().iter().find(|(name, _)| *name == "projection.1.1.weight").unwrap().1.var;
    last.set(&last.zeros_like().unwrap()).unwrap();
    let error = training.step(batch(Key::root(1))).unwrap_err();
    assert!(
        matches!(&error, ModelError::NoGradient { parameter } if parameter.starts_with("projection.1.0"))
    );
}

#[test]
fn training_ends_with_the_data_or_the_observer() {
    let mut left = 3;
    let mut next = || {
        left -= 1;
        Ok((left >= 0).then(|| batch(Key::root(5).with(left as u64))))
    };
    let mut seen = 0;
    let mut observe = |_: &StepMetrics| {
        seen += 1;
        ControlFlow::Continue(())
    };
    train(config(Method::Loev), &quick(50), &Device::Cpu, &mut next, &mut observe).unwrap();
    assert_eq!(seen, 3);

    let mut steps = 0;
    let mut endless = || Ok(Some(batch(Key::root(5))));
    let mut observe = |m: &StepMetrics| {
        steps = m.step;
        if m.step == 2 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    train(config(Method::Loev), &quick(50), &Device::Cpu, &mut endless, &mut observe).unwrap();
    assert_eq!(steps, 2);

    let mut none = || Ok(None);
    let error =
        train(config(Method::Loev), &quick(5), &Device::Cpu, &mut none, &mut |_| ControlFlow::Continue(()));
    assert!(matches!(error, Err(ModelError::Data(_))));
}
