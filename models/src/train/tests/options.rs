//! Options of a training, each against its definition.

use super::{super::objective::Objective, *};
use crate::{
    encoder::{Noise, Pass, tokens::Kept},
    params::Params,
};
use candle_core::{DType, Tensor, backprop::GradStore};
use std::sync::Arc;

const METHODS: [Method; 4] = [Method::Simclr, Method::Loev, Method::LoevPlusPlus, Method::LoevReference];

fn batch_of(method: Method, n: u64) -> TrainBatch {
    let mut batch = batch(Key::root(5).with(n));
    batch.groups.truncate(config(method).subspaces.len());
    batch
}

fn start(method: Method, cfg: &TrainConfig) -> Training {
    let mut training = Training::new(config(method), cfg, &Device::Cpu).unwrap();
    training.fit(&[batch_of(method, 1)]).unwrap();
    training
}

fn weights(params: &Params) -> Vec<f32> {
    params.iter().flat_map(|(_, p)| p.var.flatten_all().unwrap().to_vec1::<f32>().unwrap()).collect()
}

fn refused(cfg: &TrainConfig, what: &str) {
    let error = Training::new(config(Method::Loev), cfg, &Device::Cpu).unwrap_err();
    assert!(matches!(&error, ModelError::Config(m) if m.contains(what)), "{error}");
}

/// Greatest difference of two gradients over the greatest value, of all parameters.
fn difference(params: &Params, a: &GradStore, b: &GradStore) -> f64 {
    let mut worst: f64 = 0.0;
    for (name, parameter) in params.iter() {
        let [a, b] = [a, b].map(|grads| {
            let grad = grads.get(&parameter.var).unwrap_or_else(|| panic!("{name} has no gradient"));
            grad.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1::<f64>().unwrap()
        });
        let top = a.iter().fold(0.0, |top: f64, x| top.max(x.abs()));
        let apart = a.iter().zip(&b).fold(0.0, |top: f64, (a, b)| top.max((a - b).abs()));
        assert!(top > 0.0, "{name}");
        worst = worst.max(apart / top);
    }
    worst
}

/// Pieces that cut segments, and a last one that is shorter.
#[test]
fn micro_batches_give_the_gradients_of_the_batch() {
    let kept: Vec<u32> = (0..48).flat_map(|view| [view % 3, 3 + view % 5, 9, 10 + view % 6]).collect();
    let kept = Kept { per_view: 4, patches: Arc::new(kept) };
    for method in METHODS {
        let batch = batch_of(method, 1);
        for (dtype, bound) in [(DType::F64, 1e-10), (DType::F32, 1e-5)] {
            let mut config = config(method);
            if let EncoderConfig::Vit(vit) = &mut config.encoder {
                (vit.drop_path, vit.dropout) = (0.3, 0.2);
            }
            let mut model = Model::with_dtype(config, &Device::Cpu, dtype).unwrap();
            let values = batch.features.host().unwrap();
            let normaliser = crate::encoder::tokens::Normaliser::fit(MELS, std::iter::once(&*values));
            model.set_normaliser(normaliser).unwrap();
            let features = model.features(values.into_owned(), 48).unwrap().to_dtype(dtype).unwrap();
            for micro_batch in [7, 16] {
                let cfg = TrainConfig { learn_temperature: true, ..quick(1) };
                let of = |micro_batch, kept: Option<&Kept>| {
                    let cfg = TrainConfig { micro_batch, ..cfg.clone() };
                    let objective = Objective::new(&cfg, model.config()).unwrap();
                    let params = model.params().and(objective.params(&Device::Cpu, dtype).unwrap());
                    let noise = Some(Noise { key: Key::root(3), first: 0 });
                    let pass = Pass { kept, noise, ..Pass::default() };
                    let got = objective
                        .gradients(None, &model, &params, &features, pass, &batch.groups, 1)
                        .unwrap();
                    (params, got)
                };
                for kept in [None, Some(&kept)] {
                    let (whole, (losses, a)) = of(0, kept);
                    let (pieces, (others, mut b)) = of(micro_batch, kept);
                    // Temperatures are made anew, and so have names in common but not identities.
                    for ((_, a), (_, p)) in whole.iter().zip(pieces.iter()) {
                        let grad = b.remove(&p.var).unwrap();
                        b.insert(&a.var, grad);
                    }
                    let worst = difference(&whole, &a, &b);
                    assert!(worst < bound, "{method:?} {dtype:?} {micro_batch}: {worst:e}");
                    let apart = losses.iter().zip(&others).map(|(a, b)| (a - b).abs());
                    assert!(apart.fold(0.0, f64::max) < bound, "{method:?} {dtype:?}: {losses:?} {others:?}");
                }
            }
        }
    }
}

/// Through the trainer, where masks have keys: what a view loses must not depend on its piece.
#[test]
fn micro_batches_train_as_the_batch_does() {
    let spec_mask = SpecMask { time: 0.3, frequency: 0.3, ..SpecMask::default() };
    let cfg = TrainConfig { mask: 0.5, spec_mask, ..quick(2) };
    let of = |micro_batch| {
        let mut training = start(Method::LoevPlusPlus, &TrainConfig { micro_batch, ..cfg.clone() });
        training.step(batch_of(Method::LoevPlusPlus, 1)).unwrap()
    };
    let (whole, pieces) = (of(0), of(5));
    assert!((whole.loss - pieces.loss).abs() < 1e-5, "{whole:?} {pieces:?}");
    assert!((whole.grad_norm / pieces.grad_norm - 1.0).abs() < 1e-5, "{whole:?} {pieces:?}");
    let plain = start(Method::LoevPlusPlus, &quick(2)).step(batch_of(Method::LoevPlusPlus, 1)).unwrap();
    assert!((plain.loss - whole.loss).abs() > 1e-3, "masks change the loss");
}

#[test]
fn accumulation_averages_gradients() {
    let two = TrainConfig { accumulate: 2, weight_decay: 0.1, ema: 0.5, ..quick(3) };
    let of = |cfg: &TrainConfig, batches: &[u64]| {
        let mut training = start(Method::Loev, cfg);
        let batches = batches.iter().map(|&n| batch_of(Method::Loev, n)).collect();
        let metrics = training.step_on(batches).unwrap();
        assert_eq!((training.steps(), training.batches()), (1, cfg.accumulate));
        (weights(training.model().params()), metrics)
    };
    // Twice the same is once: sums are exact here.
    let (once, one) = of(&TrainConfig { accumulate: 1, ..two.clone() }, &[1]);
    let (twice, both) = of(&two, &[1, 1]);
    assert_eq!(once, twice);
    assert_eq!((one.loss, one.grad_norm, 2 * one.views), (both.loss, both.grad_norm, both.views));
    let (ab, metrics) = of(&two, &[1, 2]);
    assert_eq!(ab, of(&two, &[2, 1]).0);
    assert_ne!(ab, twice);
    let other = of(&two, &[2]).1;
    assert!((metrics.loss - (one.loss + other.loss) / 2.0).abs() < 1e-12);
    assert!(metrics.grad_norm < (one.grad_norm + other.grad_norm) / 2.0, "{metrics:?}");

    let mut training = start(Method::Loev, &two);
    assert!(
        matches!(training.step(batch_of(Method::Loev, 1)), Err(ModelError::Config(m)) if m.contains("accumulate"))
    );
    let three = (1..4).map(|n| batch_of(Method::Loev, n)).collect();
    assert!(matches!(training.step_on(three), Err(ModelError::Data(_))));
    assert!(matches!(start(Method::Loev, &two).step_on(Vec::new()), Err(ModelError::Data(_))));
}

/// The loop hands over as many batches as a step takes, and what is left at the end.
#[test]
fn the_loop_accumulates() {
    let cfg = TrainConfig { accumulate: 3, statistics_batches: 2, ..quick(10) };
    let mut n = 0;
    let mut next = || {
        n += 1;
        Ok((n <= 7).then(|| batch_of(Method::Loev, n)))
    };
    let mut seen = Vec::new();
    let mut observe = |m: &StepMetrics| {
        seen.push(m.views / 48);
        ControlFlow::Continue(())
    };
    train(config(Method::Loev), &cfg, &Device::Cpu, &mut next, &mut observe).unwrap();
    assert_eq!(seen, [3, 3, 1]);
}

#[test]
fn every_subspace_has_its_temperature() {
    let cfg = TrainConfig { temperatures: vec![0.05, 0.1, 0.5], ..quick(2) };
    let a = start(Method::Loev, &cfg).step(batch_of(Method::Loev, 1)).unwrap();
    let b = start(Method::Loev, &quick(2)).step(batch_of(Method::Loev, 1)).unwrap();
    assert_eq!(a.temperatures, [0.05, 0.1, 0.5]);
    assert_eq!(b.temperatures, [0.1; 3]);
    let same: Vec<bool> = a.head_losses.iter().zip(&b.head_losses).map(|(a, b)| a == b).collect();
    assert_eq!(same, [false, true, false]);
    refused(&TrainConfig { temperatures: vec![0.1], ..quick(1) }, "temperatures: 1 values for 3");
    refused(&TrainConfig { temperatures: vec![0.0; 3], ..quick(1) }, "temperatures");
}

#[test]
fn temperatures_are_learned_within_their_range() {
    let cfg = TrainConfig { learn_temperature: true, lr: 0.05, warmup: 0, ..quick(40) };
    let mut training = start(Method::Loev, &cfg);
    let log: Vec<StepMetrics> = (0..40).map(|n| training.step(batch_of(Method::Loev, n)).unwrap()).collect();
    assert!(log[0].temperatures.iter().all(|t| (t - 0.1).abs() < 1e-7), "{:?}", log[0]);
    // A first step of Adam moves every weight by the rate; before much is learned, softer is better.
    assert!(log[1].temperatures.iter().all(|t| (t / 0.1).ln().abs() > 0.04), "{:?}", log[1]);
    assert!(log.iter().flat_map(|m| &m.temperatures).all(|t| (0.0099999..=1.0).contains(t)));
    let model = training.into_model().unwrap();
    assert!(model.params().iter().all(|(name, _)| !name.contains("temperature")), "not the model's");

    let low = TrainConfig { temperature: 0.01, lr: 0.5, warmup: 0, ..cfg };
    let mut training = start(Method::Loev, &low);
    for n in 0..12 {
        let metrics = training.step(batch_of(Method::Loev, n)).unwrap();
        assert!(metrics.temperatures.iter().all(|t| (0.0099999..=1.0).contains(t)), "{metrics:?}");
    }
    refused(&TrainConfig { learn_temperature: true, temperature: 2.0, ..quick(1) }, "learn_temperature");
}

#[test]
fn floors_are_those_of_the_loss() {
    let floors =
        |method, cfg: TrainConfig| start(method, &cfg).step(batch_of(method, 1)).unwrap().head_floors;
    let near = |got: Vec<f64>, want: [f64; 3]| {
        assert!(got.iter().zip(want).all(|(a, b)| (a - b).abs() < 1e-5), "{got:?} {want:?}");
    };
    near(floors(Method::Loev, quick(1)), [3f64.ln(), 0.0, 0.0]);
    near(floors(Method::Loev, TrainConfig { exclude_positives: true, ..quick(1) }), [0.0; 3]);
    near(floors(Method::LoevReference, quick(1)), [3f64.ln(), 0.0, 0.0]);
    refused(
        &TrainConfig { exclude_positives: true, loss: LossKind::Reference, ..quick(1) },
        "exclude_positives",
    );
    let cfg = TrainConfig { exclude_positives: true, ..quick(1) };
    let error = Training::new(config(Method::LoevReference), &cfg, &Device::Cpu).unwrap_err();
    assert!(matches!(error, ModelError::Config(_)));
}

/// Pairs of views to each of which each factor was applied by chance, as the published method draws them.
fn by_chance(n: u64, p: f64) -> TrainBatch {
    let mut batch = batch(Key::root(5).with(n));
    let mut rng = Key::root(9).with(n).rng();
    batch.groups = vec![(0..48).map(|view| view / 2).collect()];
    for _ in 0..2 {
        let ids = (0..48).map(|view| if rng.f64() < p { 1000 + view } else { view / 2 });
        batch.groups.push(ids.collect());
    }
    batch
}

#[test]
fn the_reference_trains_on_views_drawn_by_chance() {
    let cfg = TrainConfig { statistics_batches: 3, ..quick(30) };
    let mut training = Training::new(config(Method::LoevReference), &cfg, &Device::Cpu).unwrap();
    let first: Vec<TrainBatch> = (1..4).map(|n| by_chance(n, 0.5)).collect();
    training.fit(&first).unwrap();
    let mut log = Vec::new();
    for n in 1..=30 {
        let mut batch = by_chance(n, 0.5);
        // By bad luck, in the very first step too.
        if n == 1 || n == 7 {
            batch.groups[2] = (0..48).collect();
        }
        log.push(training.step(batch).unwrap());
    }
    for (i, metrics) in log.iter().enumerate() {
        let empty = i == 0 || i == 6;
        assert_eq!(metrics.head_losses[2] == 0.0, empty, "{metrics:?}");
        assert_eq!(metrics.head_floors[2] == 0.0, empty, "{metrics:?}");
        assert!(metrics.loss.is_finite());
    }
    let mean = |log: &[StepMetrics]| log.iter().map(|m| m.head_losses[0]).sum::<f64>() / log.len() as f64;
    assert!(mean(&log[25..]) < 0.8 * mean(&log[..5]), "{} {}", mean(&log[..5]), mean(&log[25..]));
}

#[test]
fn a_subspace_that_never_has_positives_is_an_error() {
    let cfg = TrainConfig { statistics_batches: 3, ..quick(30) };
    let fit = |method| {
        let mut training = Training::new(config(method), &cfg, &Device::Cpu).unwrap();
        let batches: Vec<TrainBatch> = (1..4).map(|n| by_chance(n, 1.0)).collect();
        (training.fit(&batches), training.step(by_chance(1, 1.0)))
    };
    let (fitted, _) = fit(Method::LoevReference);
    assert!(
        matches!(&fitted, Err(ModelError::NoPositives { head }) if head.contains("pitch_shift") && head.contains("first 3")),
        "{fitted:?}"
    );
    let (fitted, stepped) = fit(Method::Loev);
    assert!(fitted.is_ok());
    assert!(
        matches!(&stepped, Err(ModelError::NoPositives { head }) if head == "subspace pitch_shift, step 1"),
        "{stepped:?}"
    );
}

/// One segment has nothing to be told apart from.
#[test]
fn a_batch_of_one_segment_is_named() {
    for method in METHODS {
        let mut one = batch_of(method, 1);
        one.groups[0] = vec![7; 48];
        let mut training = Training::new(config(method), &quick(2), &Device::Cpu).unwrap();
        let error = training.fit(&[one.clone(), one.clone()]).unwrap_err();
        assert!(
            matches!(&error, ModelError::NoNegatives { head } if head.starts_with("subspace invariant in any")),
            "{error}"
        );
        // One such batch among others is what clips that cannot be read leave over.
        training.fit(&[one.clone(), batch_of(method, 2)]).unwrap();
        training.step(batch_of(method, 2)).unwrap();
        assert!(training.step(one).unwrap().loss.is_finite());
    }
    let mut training = start(Method::Simclr, &quick(1));
    let empty = TrainBatch { groups: vec![vec![]], ..TrainBatch::default() };
    assert!(matches!(training.step(empty), Err(ModelError::Data(m)) if m.contains("without views")));
}

/// Nothing of a training is kept once it has gone wrong.
#[test]
fn nothing_is_saved_after_a_number_that_is_not_finite() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file");
    let mut training = start(Method::Loev, &quick(3));
    training.step(batch_of(Method::Loev, 1)).unwrap();
    let mut huge = batch_of(Method::Loev, 2);
    let features: Vec<f32> = huge.features.host().unwrap().iter().map(|x| x * 1e33).collect();
    huge.features = features.into();
    let error = training.step(huge).unwrap_err();
    assert!(
        matches!(&error, ModelError::NotFinite { what, step: 2 } if what == "a projection of subspace invariant"),
        "{error}"
    );
    for saved in [
        training.save_state(&path, &Default::default()).map(drop),
        training.save_model(&path, &Default::default()).map(drop),
        training.step(batch_of(Method::Loev, 2)).map(drop),
    ] {
        assert!(matches!(saved, Err(ModelError::Config(_))), "{saved:?}");
    }
    assert!(!path.exists());
    assert!(matches!(training.into_model(), Err(ModelError::Config(_))));

    // A parameter that the last step made infinite, which no further step would find.
    let training = start(Method::Loev, &quick(1));
    let (_, parameter) = training.model().params().iter().find(|(name, _)| *name == "class").unwrap();
    parameter.var.set(&(parameter.var.as_tensor() * f64::INFINITY).unwrap()).unwrap();
    let saved = training.save_model(&path, &Default::default());
    assert!(
        matches!(&saved, Err(ModelError::NotFinite { what, .. }) if what == "parameter class"),
        "{saved:?}"
    );
    assert!(!path.exists());
}

#[test]
fn layers_far_from_the_top_learn_slower() {
    let vit = VitConfig {
        depth: 4,
        branch_depth: 2,
        dim: 32,
        heads: 2,
        patch_frames: 2,
        mlp_ratio: 2,
        rhythm: 2,
        ..VitConfig::default()
    };
    let depths = |method| {
        let config = ModelConfig { encoder: EncoderConfig::Vit(vit.clone()), ..config(method) };
        let model = Model::new(config, &Device::Cpu).unwrap();
        move |name: &str| {
            assert!(model.params().parameter(name).is_some(), "{name}");
            model.depth_from_top(name)
        }
    };
    let of = depths(Method::LoevPlusPlus);
    for (name, depth) in [
        ("projection.1.0.weight", 0),
        ("projection.0.1.bias", 0),
        ("branch.2.norm.weight", 0),
        ("branch.0.1.mlp.up.weight", 0),
        ("branch.2.0.mlp.up.bias", 1),
        ("trunk.1.mlp.up.weight", 2),
        ("trunk.0.mlp.up.weight", 3),
        ("patch.weight", 4),
        ("position", 4),
        ("class", 4),
        ("rhythm.weight", 4),
    ] {
        assert_eq!(of(name), depth, "{name}");
    }
    let of = depths(Method::Loev);
    assert_eq!(
        (of("branch.0.0.mlp.up.weight"), of("trunk.2.mlp.up.weight"), of("trunk.0.mlp.up.weight")),
        (0, 1, 3)
    );
    assert_eq!(of("patch.bias"), 4);

    // A first step of Adam moves every weight by the rate, whatever the gradient.
    let cfg = TrainConfig { layer_decay: 0.5, weight_decay: 0.0, warmup: 0, lr: 1e-3, ..quick(10) };
    let mut training = start(Method::Loev, &TrainConfig { learn_temperature: true, ..cfg });
    let values = |training: &Training| -> Vec<(String, Tensor)> {
        let all = training.params.iter();
        all.map(|(name, p)| (name.to_owned(), p.var.as_tensor().copy().unwrap())).collect()
    };
    let before = values(&training);
    let lr = training.step(batch_of(Method::Loev, 1)).unwrap().lr;
    for ((name, a), (_, b)) in before.iter().zip(values(&training)) {
        let moved = (a - b).unwrap().abs().unwrap().flatten_all().unwrap().max(0).unwrap();
        let rate = f64::from(moved.to_scalar::<f32>().unwrap()) / lr;
        let depth = match name.as_str() {
            name if name.starts_with("trunk.0") => 1,
            name if ["patch", "position", "class", "rhythm"].iter().any(|low| name.starts_with(low)) => 2,
            _ => 0,
        };
        assert!((rate / 0.5f64.powi(depth) - 1.0).abs() < 0.02, "{name}: {rate}");
    }
}
