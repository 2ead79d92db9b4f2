use super::*;
use crate::{
    Model, ModelConfig,
    encoder::EncoderConfig,
    layers::check::{distance, wave},
    loss::contrastive,
    params::Parameter,
    train::{TrainBatch, TrainConfig, train},
};
use candle_core::{DType, Device};
use loev_ops::rng::Key;
use std::ops::ControlFlow;

const MELS: usize = 32;
/// The fewest frames that fusion by time can work with.
const FRAMES: usize = 25;
const METHODS: [Method; 3] = [Method::Simclr, Method::Loev, Method::LoevPlusPlus];

fn tiny(config: SfNfnetConfig) -> SfNfnetConfig {
    SfNfnetConfig { width: 24, depths: [1, 1, 1, 2], branch_depth: 1, ..config }
}

fn both() -> [SfNfnetConfig; 2] {
    [SfNfnetConfig::default(), SfNfnetConfig::published()].map(tiny)
}

fn model_config(encoder: SfNfnetConfig, method: Method, frames: usize) -> ModelConfig {
    let subspaces: &[&str] = match method {
        Method::Simclr => &["invariant"],
        _ => &["invariant", "pitch_shift", "time_stretch"],
    };
    ModelConfig {
        encoder: EncoderConfig::SfNfnet(encoder),
        method,
        subspaces: subspaces.iter().map(|&s| s.into()).collect(),
        front_end: FrontEnd { mels: MELS, ..FrontEnd::default() },
        frames,
        projection: vec![10, 6],
        seed: 3,
    }
}

fn model(encoder: SfNfnetConfig, method: Method, frames: usize, dtype: DType) -> Model {
    Model::with_dtype(model_config(encoder, method, frames), &Device::Cpu, dtype).unwrap()
}

fn whole(config: &SfNfnetConfig, method: Method, subspaces: usize) -> SfNfnet {
    SfNfnet::new(config, method, subspaces, 301, &FrontEnd::default()).unwrap()
}

#[test]
fn parameter_counts_are_the_published_ones() {
    let count = |config: &SfNfnetConfig, method, subspaces| {
        let network = whole(config, method, subspaces);
        network.specs().map(|spec| spec.shape.iter().product::<usize>()).sum::<usize>()
    };
    let (published, default) = (SfNfnetConfig::published(), SfNfnetConfig::default());
    assert_eq!((published.dim(), default.dim()), (1728, 1728));
    for (method, subspaces) in [(Method::Simclr, 1), (Method::Loev, 3)] {
        assert_eq!(count(&published, method, subspaces), 53_441_788);
        assert_eq!(count(&default, method, subspaces), 62_345_742);
    }
    assert_eq!(count(&published, Method::LoevPlusPlus, 2), 64_229_696);
    assert_eq!(count(&published, Method::LoevPlusPlus, 3), 75_017_604);
}

#[test]
fn scales_follow_the_growth_of_the_variance() {
    let network =
        whole(&SfNfnetConfig { stochastic_depth: 0.1, ..SfNfnetConfig::default() }, Method::Loev, 3);
    let blocks: Vec<Block> = (0..4).flat_map(|stage| network.blocks(Route::Slow, stage)).collect();
    let want = [1.0, 0.9806, 0.9623, 0.9806, 0.9623, 0.9449, 0.9285, 0.9129, 0.8980, 0.9806, 0.9623, 0.9449];
    assert_eq!(blocks.len(), want.len());
    for (i, (block, want)) in blocks.iter().zip(want).enumerate() {
        assert!((block.beta - want).abs() < 5e-5, "{}", block.name);
        assert!((block.drop - 0.1 * i as f64 / 12.0).abs() < 1e-12);
    }
}

#[test]
fn stems_have_the_published_frame_rates() {
    let config = tiny(SfNfnetConfig::published());
    let full = model(config.clone(), Method::Simclr, 301, DType::F32);
    let network = SfNfnet::new(&config, Method::Simclr, 1, 301, &full.config().front_end).unwrap();
    let shape = |path, frames: usize| {
        let x = wave(&[1, 1, 96, frames], 0.7, 1.0).to_dtype(DType::F32).unwrap();
        network.stem(full.params(), path, &x).unwrap().dims().to_vec()
    };
    assert_eq!(shape(Route::Slow, 301), [1, 24, 24, 19]);
    assert_eq!(shape(Route::Fast, 301), [1, 3, 24, 76]);
    assert_eq!(shape(Route::Fast, 300), [1, 3, 24, 75]);
}

/// Embeddings and gradients that PyTorch gave; `tests/vectors/sf_nfnet.py` made the file.
#[test]
fn embeddings_and_gradients_are_those_of_pytorch() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/vectors/sf_nfnet.safetensors");
    let stored = candle_core::safetensors::load(path, &Device::Cpu).unwrap();
    for (name, encoder) in ["default", "published"].into_iter().zip(both()) {
        let model = model(encoder, Method::LoevPlusPlus, 57, DType::F64);
        let parameters = || model.params().iter().filter(|(name, _)| !name.starts_with("projection"));
        for (i, (_, parameter)) in parameters().enumerate() {
            parameter.var.set(&wave(parameter.var.dims(), 0.7 + 0.013 * i as f64, 1.0)).unwrap();
        }
        let embeddings = model.embed_for_training(&wave(&[3, 57, MELS], 0.71, 2.0), Pass::default()).unwrap();
        let got = Tensor::stack(&embeddings, 0).unwrap();
        let off = distance(&got, &stored[&format!("{name}.embeddings")]);
        assert!(off < 1e-9, "{name}: embeddings differ by {off:e}");
        let part =
            |(k, e): (usize, &Tensor)| (e * wave(e.dims(), 1.9 + k as f64, 1.0)).unwrap().sum_all().unwrap();
        let parts: Vec<Tensor> = embeddings.iter().enumerate().map(part).collect();
        let grads = Tensor::stack(&parts, 0).unwrap().sum_all().unwrap().backward().unwrap();
        let want = stored[&format!("{name}.slopes")].to_vec1::<f64>().unwrap();
        assert_eq!(parameters().count(), want.len());
        for ((parameter, own), want) in parameters().zip(want) {
            let grad = grads.get(&own.var).unwrap();
            let slope = (grad * wave(grad.dims(), 1.3, 1.0)).unwrap().sum_all().unwrap();
            let slope = slope.to_scalar::<f64>().unwrap();
            assert!((slope - want).abs() < 1e-8 * (1.0 + want.abs()), "{name} {parameter}: {slope} {want}");
        }
    }
}

/// The gradient of the whole training loss, along one direction for every six parameters.
#[test]
fn gradients_of_the_loss_match_differences() {
    let [default, published] = both();
    let cases = METHODS.map(|method| (default.clone(), method));
    for (encoder, method) in cases.into_iter().chain([(published, Method::LoevPlusPlus)]) {
        let model = model(encoder, method, FRAMES, DType::F64);
        let features = wave(&[6, FRAMES, MELS], 0.7, 1.0);
        let groups = [[0, 0, 0, 1, 1, 1], [0, 0, 1, 1, 2, 2], [0, 1, 0, 1, 2, 2]];
        let loss = || {
            let embeddings = model.embed_for_training(&features, Pass::default()).unwrap();
            let mut total = Tensor::zeros((), DType::F64, &Device::Cpu).unwrap();
            for (k, e) in embeddings.iter().enumerate() {
                let z = model.project(k, e).unwrap();
                total = (total + contrastive(&z, &groups[k], 0.5).unwrap()).unwrap();
            }
            total
        };
        // Away from where residuals are almost shut, and from the bend of squeeze-and-excitation.
        for (name, parameter) in model.params().iter() {
            let shape = parameter.var.dims();
            if name.ends_with("down.bias") || (name.ends_with(".gain") && shape == [1]) {
                parameter.var.set(&wave(shape, 2.0, 0.5)).unwrap();
            }
        }
        let grads = loss().backward().unwrap();
        let step = 1e-7;
        let all: Vec<_> = model.params().iter().collect();
        for some in all.chunks(6) {
            let start: Vec<Tensor> = some.iter().map(|(_, p)| p.var.copy().unwrap()).collect();
            let direction = |t: &Tensor| wave(t.dims(), 1.3, 1.0);
            let at = |by: f64| {
                for ((_, parameter), start) in some.iter().zip(&start) {
                    parameter.var.set(&(start + (direction(start) * by).unwrap()).unwrap()).unwrap();
                }
                loss().to_scalar::<f64>().unwrap()
            };
            let want = (at(step) - at(-step)) / (2.0 * step);
            at(0.0);
            let slope = |(name, parameter): &(&str, &Parameter)| {
                let grad = grads.get(&parameter.var).unwrap_or_else(|| panic!("{name} has no gradient"));
                (grad * direction(grad)).unwrap().sum_all().unwrap().to_scalar::<f64>().unwrap()
            };
            let got: f64 = some.iter().map(slope).sum();
            let name = some[0].0;
            assert!((got - want).abs() < 1e-6 * (1.0 + want.abs()), "{method:?} {name}: {got} {want}");
        }
    }
}

#[test]
fn single_precision_follows_double_precision() {
    for encoder in both() {
        let run = |dtype| {
            let model = model(encoder.clone(), Method::LoevPlusPlus, 57, dtype);
            let features = wave(&[2, 57, MELS], 0.71, 1.0).to_dtype(dtype).unwrap();
            Tensor::stack(&model.embed(&features).unwrap(), 0).unwrap()
        };
        assert!(distance(&run(DType::F32), &run(DType::F64)) < 1e-4);
    }
}

#[test]
fn views_and_branches_stay_apart() {
    for encoder in both() {
        let model = model(encoder, Method::LoevPlusPlus, 57, DType::F32);
        let features = wave(&[3, 57, MELS], 0.71, 1.0).to_dtype(DType::F32).unwrap();
        let all = model.embed(&features).unwrap();
        let one = model.embed(&features.narrow(0, 2, 1).unwrap()).unwrap();
        for (all, one) in all.iter().zip(&one) {
            assert_eq!(all.dims(), [3, 324]);
            assert!(distance(&all.narrow(0, 2, 1).unwrap(), one) < 1e-5);
        }
        // Branches begin apart, although their residuals are almost shut.
        let inside = |k: usize| model.params().get(&format!("branch.{k}.slow.1.in.weight")).unwrap();
        assert!(distance(&inside(0), &inside(1)) > 0.01 && distance(&all[0], &all[1]) > 1e-6);
    }
}

#[test]
fn views_leave_residuals_out_by_key_and_only_in_training() {
    let config = tiny(SfNfnetConfig { stochastic_depth: 0.9, ..SfNfnetConfig::default() });
    let network = whole(&config, Method::Loev, 3);
    let last = network.blocks(Route::Slow, 3).last().unwrap();
    let pass = |noise| Pass { noise, ..Pass::default() };
    let noise = |seed, first| Some(Noise { key: Key::root(seed), first });
    let key = noise(1, 0);
    let kept = last.kept(pass(key), 4000).unwrap();
    let scale = (1.0 / (1.0 - last.drop)) as f32;
    assert!(kept.iter().all(|&k| k == 0.0 || k == scale));
    let mean = kept.iter().sum::<f32>() / 4000.0;
    assert!((mean - 1.0).abs() < 0.1, "{mean}");
    assert_eq!(last.kept(pass(key), 4000).unwrap(), kept);
    assert_ne!(last.kept(pass(noise(2, 0)), 4000).unwrap(), kept);
    assert_eq!(last.kept(pass(noise(1, 7)), 40).unwrap(), kept[7..47], "micro-batches");
    assert!(last.kept(pass(None), 4).is_none());
    let first = network.blocks(Route::Slow, 0).next().unwrap();
    assert!(first.kept(pass(key), 4).is_none());

    // Residuals that all views leave out are as good as shut.
    let model = model(config, Method::Loev, 57, DType::F32);
    let features = wave(&[8, 57, MELS], 0.71, 1.0).to_dtype(DType::F32).unwrap();
    let embed = |noise| model.embed_for_training(&features, pass(noise)).unwrap()[0].clone();
    assert_eq!(distance(&embed(key), &embed(key)), 0.0);
    assert!(distance(&embed(key), &embed(noise(2, 0))) > 0.0);
    assert_eq!(distance(&embed(None), &model.embed(&features).unwrap()[0]), 0.0);
}

#[test]
fn a_few_steps_lower_the_loss() {
    for (encoder, stochastic_depth) in both().into_iter().zip([0.1, 0.0]) {
        let encoder = SfNfnetConfig { stochastic_depth, ..encoder };
        let config = model_config(encoder, Method::LoevPlusPlus, FRAMES);
        let mut rng = Key::root(4).rng();
        let mut features = Vec::new();
        for view in 0..8 {
            let noise = |rng: &mut loev_ops::rng::Rng| -50.0 + 10.0 * rng.normal() as f32;
            let texture: Vec<f32> =
                (0..MELS).map(|mel| 20.0 * ((mel * (view / 2 + 1)) as f32).sin()).collect();
            features.extend((0..FRAMES * MELS).map(|i| noise(&mut rng) + texture[i % MELS]));
        }
        let groups =
            vec![vec![0, 0, 1, 1, 2, 2, 3, 3], vec![0, 1, 0, 1, 2, 3, 2, 3], vec![0, 1, 1, 0, 2, 3, 3, 2]];
        let batch = TrainBatch { features: features.into(), views: 8, groups, epoch: 0 };
        let cfg = TrainConfig { steps: 12, lr: 2e-3, warmup: 2, ..TrainConfig::default() };
        let mut losses = Vec::new();
        let mut observe = |metrics: &crate::train::StepMetrics| {
            losses.push(metrics.loss);
            ControlFlow::Continue(())
        };
        train(config, &cfg, &Device::Cpu, &mut || Ok(Some(batch.clone())), &mut observe).unwrap();
        assert!(losses[11] < 0.7 * losses[0], "{losses:?}");
    }
}

#[test]
fn configurations_that_cannot_work_are_named() {
    let fault = |change: &dyn Fn(&mut SfNfnetConfig, &mut ModelConfig)| {
        let mut encoder = tiny(SfNfnetConfig::published());
        let mut config = model_config(encoder.clone(), Method::LoevPlusPlus, FRAMES);
        change(&mut encoder, &mut config);
        config.encoder = EncoderConfig::SfNfnet(encoder);
        Model::new(config, &Device::Cpu).unwrap_err().to_string()
    };
    assert!(fault(&|e, _| e.width = 28).contains("multiple of 8"));
    assert!(fault(&|e, _| e.width = 16).contains("width"));
    assert!(fault(&|e, _| e.depths[2] = 0).contains("depths"));
    assert!(fault(&|e, _| e.branch_depth = 3).contains("branch_depth"));
    assert!(fault(&|_, c| c.front_end.mels = 40).contains("mel bands"));
    assert!(fault(&|_, c| c.frames = FRAMES - 1).contains("frames"));
    let config = model_config(tiny(SfNfnetConfig::default()), Method::Loev, FRAMES);
    let masked = TrainConfig { mask: 0.5, ..TrainConfig::default() };
    let error = crate::train::Training::new(config, &masked, &Device::Cpu).unwrap_err();
    assert!(error.to_string().contains("mask"));
    let text = r#"{"sf_nfnet": {"width": 64, "fusion": "time", "stem": "normalised", "activation": "relu"}}"#;
    assert_eq!(serde_json::from_str::<EncoderConfig>(text).unwrap().dim(), 864);
}
