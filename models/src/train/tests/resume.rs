//! Trainings that stop and go on.

use super::*;
use crate::checkpoint;
use std::{collections::BTreeMap, fs, path::Path};

const STEPS: usize = 5;

/// Whether the rate still rises when a training stops, whether patches are dropped, whether weights are
/// averaged: none of it may show in the bits.
fn cases() -> Vec<(Method, TrainConfig)> {
    let plain = TrainConfig { warmup: 2, statistics_batches: 2, ..quick(STEPS) };
    vec![
        (Method::Loev, plain.clone()),
        (Method::Loev, TrainConfig { warmup: 4, mask: 0.5, ..plain.clone() }),
        (Method::LoevPlusPlus, TrainConfig { ema: 0.9, weight_decay: 0.1, ..plain.clone() }),
        (
            Method::Simclr,
            TrainConfig { warmup: 50, ema: 0.2, mask: 0.25, loss: LossKind::Reference, ..plain },
        ),
    ]
}

fn batch_of(method: Method, step: usize) -> TrainBatch {
    let mut batch = batch(Key::root(5).with(step as u64));
    batch.groups.truncate(config(method).subspaces.len());
    batch
}

fn start(method: Method, cfg: &TrainConfig) -> Training {
    let mut training = Training::new(config(method), cfg, &Device::Cpu).unwrap();
    let first: Vec<TrainBatch> = (1..=training.needs_statistics()).map(|i| batch_of(method, i)).collect();
    training.fit(&first).unwrap();
    training
}

/// Goes on to the end; the loss of each step.
fn finish(method: Method, training: &mut Training) -> Vec<u64> {
    let steps = training.steps() + 1..=STEPS;
    steps.map(|step| training.step(batch_of(method, step)).unwrap().loss.to_bits()).collect()
}

fn notes() -> BTreeMap<String, String> {
    BTreeMap::from([("next".to_owned(), "lane 0".to_owned())])
}

/// The files of the model and of the state; checks that digests are those of the files.
fn files(training: &Training, dir: &Path) -> [Vec<u8>; 2] {
    let paths = ["model", "state"].map(|name| dir.join(name));
    let digests = [
        training.save_model(&paths[0], &notes()).unwrap(),
        training.save_state(&paths[1], &notes()).unwrap(),
    ];
    let files = paths.map(|path| fs::read(path).unwrap());
    for (digest, file) in digests.iter().zip(&files) {
        assert_eq!(*digest, blake3::hash(file).to_hex().to_string());
    }
    files
}

#[test]
fn a_training_that_stops_anywhere_ends_with_the_same_bits() {
    let dir = tempfile::tempdir().unwrap();
    for (method, cfg) in cases() {
        let mut whole = start(method, &cfg);
        let losses = finish(method, &mut whole);
        let want = files(&whole, dir.path());

        let path = dir.path().join("stopped");
        let mut stopping = start(method, &cfg);
        for done in 0..STEPS {
            stopping.save_state(&path, &notes()).unwrap();
            let resume = || Training::resume(&path, &config(method), &cfg, &Device::Cpu).unwrap();
            let (mut resumed, said) = resume();
            assert_eq!((resumed.steps(), resumed.needs_statistics(), said), (done, 0, notes()));
            let saved = fs::read(&path).unwrap();
            assert!(files(&resumed, dir.path())[1] == saved, "a state is what was saved");
            assert_eq!(finish(method, &mut resumed), losses[done..], "{method:?} after {done}");
            assert!(files(&resumed, dir.path()) == want, "{method:?} after {done}");
            // The next step is that of a training that has stopped before every step.
            stopping = resume().0;
            stopping.step(batch_of(method, done + 1)).unwrap();
        }
        assert!(files(&stopping, dir.path()) == want, "{method:?}, stopped before every step");

        let model = checkpoint::load(&dir.path().join("model"), &Device::Cpu).unwrap();
        let trained = whole.into_model().unwrap();
        for ((_, a), (_, b)) in model.params().iter().zip(trained.params().iter()) {
            let [a, b] = [a, b].map(|p| p.var.flatten_all().unwrap().to_vec1::<f32>().unwrap());
            assert_eq!(a, b);
        }
    }
}

/// What the loss learns, and steps of several batches, whose masks are numbered by batch.
#[test]
fn a_training_with_every_option_goes_on_with_the_same_bits() {
    let dir = tempfile::tempdir().unwrap();
    let spec_mask = SpecMask { time: 0.2, frequency: 0.2, ..SpecMask::default() };
    let cfg = TrainConfig {
        warmup: 1,
        learn_temperature: true,
        exclude_positives: true,
        ema: 0.9,
        accumulate: 2,
        micro_batch: 10,
        layer_decay: 0.7,
        mask: 0.5,
        spec_mask,
        ..quick(4)
    };
    let method = Method::LoevPlusPlus;
    let step = |training: &mut Training| {
        let next = training.batches() + 1;
        let metrics = training.step_on(vec![batch_of(method, next), batch_of(method, next + 1)]).unwrap();
        (metrics.loss.to_bits(), metrics.temperatures)
    };
    let mut whole = start(method, &cfg);
    let log: Vec<_> = (0..4).map(|_| step(&mut whole)).collect();
    assert_ne!(log[1].1, log[2].1, "temperatures are learned");
    let want = files(&whole, dir.path());

    let path = dir.path().join("stopped");
    let mut stopping = start(method, &cfg);
    for (done, want) in log.iter().enumerate() {
        stopping.save_state(&path, &notes()).unwrap();
        stopping = Training::resume(&path, &config(method), &cfg, &Device::Cpu).unwrap().0;
        assert_eq!((stopping.steps(), stopping.batches()), (done, 2 * done));
        assert_eq!(step(&mut stopping), *want, "after {done}");
    }
    assert!(files(&stopping, dir.path()) == want);
    // The model has no temperatures, and loads without them.
    let model = checkpoint::load(&dir.path().join("model"), &Device::Cpu).unwrap();
    assert!(model.params().parameter("temperature.0").is_none());
    let fixed = TrainConfig { learn_temperature: false, ..cfg };
    let error = Training::resume(&path, &config(method), &fixed, &Device::Cpu).unwrap_err().to_string();
    assert!(error.contains("learn_temperature was true there and is false"), "{error}");
}

#[test]
fn the_loop_gives_the_average_where_one_is_kept() {
    let cfg = TrainConfig { ema: 0.9, ..quick(STEPS) };
    let (model, _) = super::run(Method::Loev, &cfg).unwrap();
    let mut training = start(Method::Loev, &cfg);
    finish(Method::Loev, &mut training);
    let values = |model: &Model| -> Vec<f32> {
        let of = |p: &crate::params::Parameter| p.var.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        model.params().iter().flat_map(|(_, p)| of(p)).collect()
    };
    let last = values(training.model());
    assert_ne!(values(&model), last);
    assert_eq!(values(&model), values(&training.into_model().unwrap()));
}

#[test]
fn states_of_other_trainings_and_damaged_ones_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state");
    let cfg = TrainConfig { ema: 0.9, ..quick(STEPS) };
    let mut training = start(Method::Loev, &cfg);
    training.step(batch_of(Method::Loev, 1)).unwrap();
    training.save_state(&path, &notes()).unwrap();
    let good = fs::read(&path).unwrap();
    let message = |data: &[u8], model: &ModelConfig, cfg: &TrainConfig| {
        let error = Training::resume_from_bytes(data, model, cfg, &Device::Cpu).unwrap_err();
        assert!(matches!(error, ModelError::Checkpoint(_)), "{error}");
        error.to_string()
    };

    let own = config(Method::Loev);
    let says = |said: String, what: &str| assert!(said.contains(what), "{said}");
    says(message(&good, &own, &TrainConfig { lr: 4e-3, ..cfg.clone() }), "lr was 0.005 there and is 0.004");
    says(message(&good, &own, &TrainConfig { ema: 0.0, ..cfg.clone() }), "ema was 0.9");
    says(message(&good, &own, &TrainConfig { steps: 9, ..cfg.clone() }), "steps was 5");
    says(message(&good, &ModelConfig { seed: 2, ..own.clone() }, &cfg), "another model: seed was 1");
    let mut wide = own.encoder.clone();
    if let EncoderConfig::Vit(vit) = &mut wide {
        vit.dim = 64;
    }
    says(message(&good, &ModelConfig { encoder: wide, ..own.clone() }, &cfg), "encoder.vit.dim was 32");

    let many = (0..50).map(|i| format!("subspace {i}")).collect();
    let said = message(&good, &ModelConfig { subspaces: many, ..own.clone() }, &cfg);
    assert!(said.contains("subspaces was") && said.contains("...") && said.len() < 300, "{said}");

    let refused = |data: &[u8], what: &str| says(message(data, &own, &cfg), what);
    refused(&good[..good.len() - 8], "bytes of data");
    refused(&good[..good.len() / 100], "ends before its header");
    refused(b"", "cannot be read");
    let replace = |from: &str, to: &str| {
        let at = good.windows(from.len()).position(|w| w == from.as_bytes()).unwrap();
        [&good[..at], to.as_bytes(), &good[at + from.len()..]].concat()
    };
    refused(&replace("ema.class", "ema.clas_"), "\"ema.class\" is missing");
    refused(&replace("adamw.square.class", "adamw.square.clas_"), "\"adamw.square.class\" is missing");
    refused(&replace("\\\"format\\\":1", "\\\"format\\\":9"), "format 9");
    refused(&replace("\\\"step\\\":1", "\\\"step\\\":6"), "6 steps are done of a training of 5");
    let at = good.len() - 4;
    refused(&[&good[..at], &f32::INFINITY.to_le_bytes()[..]].concat(), "not finite");

    training.save_model(&path, &notes()).unwrap();
    let error = Training::resume(&path, &own, &cfg, &Device::Cpu).unwrap_err().to_string();
    assert!(error.contains("this is a model, not the state of a training"), "{error}");
    training.save_state(&path, &notes()).unwrap();
    for error in [checkpoint::load(&path, &Device::Cpu).unwrap_err(), checkpoint::notes(&path).unwrap_err()] {
        let error = error.to_string();
        assert!(error.contains("this is the state of a training, not a model"), "{error}");
    }
    let broken = TrainConfig { ema: 1.0, ..cfg.clone() };
    let error = Training::resume(&path, &own, &broken, &Device::Cpu).unwrap_err();
    assert!(matches!(error, ModelError::Config(m) if m.contains("ema")));
}
