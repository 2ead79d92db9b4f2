//! `examples/loev_torch.py` against our own features and embeddings. Runs where `LOEV_PYTHON` names a Python
//! that has PyTorch, and is passed over elsewhere.

#![allow(clippy::unwrap_used)]

use candle_core::{Device, Tensor};
use loev_models::{
    Method, Model, ModelConfig, checkpoint,
    encoder::{EncoderConfig, tokens::Normaliser, vit::VitConfig},
};
use loev_ops::{
    features::{FrontEnd, LogMel},
    rng::Key,
};
use serde_json::Value;
use std::{collections::BTreeMap, env, fs, path::Path, process::Command};

const VIEWS: usize = 3;
const SAMPLES: usize = 8000;

/// Reads models and audio by file name; gives frames and embeddings of each, in one flat list each.
const SCRIPT: &str = r"
import json, sys, numpy, torch, loev_torch
answers = []
for model in sys.argv[3:]:
    encoder = loev_torch.load(model)
    audio = torch.from_numpy(numpy.fromfile(sys.argv[1], numpy.float32).reshape(int(sys.argv[2]), -1))
    with torch.no_grad():
        frames = encoder.log_mel(audio)
        embeddings = encoder(frames)
    parts = [embeddings[name] for name in encoder.subspaces]
    answers.append([t.flatten().tolist() for t in [frames, *parts]])
print(json.dumps(answers))
";

fn config(method: Method) -> ModelConfig {
    let vit = VitConfig {
        dim: 24,
        depth: 3,
        heads: 3,
        patch_frames: 2,
        branch_depth: if method == Method::LoevPlusPlus { 2 } else { 1 },
        rhythm: if method == Method::Simclr { 0 } else { 4 },
        ..VitConfig::default()
    };
    let front_end = FrontEnd {
        window: 400,
        fft: 512,
        hop: 160,
        mels: 24,
        low_hz: 40.0,
        high_hz: 7600.0,
        ..FrontEnd::default()
    };
    let subspaces: &[&str] =
        if method == Method::Simclr { &["invariant"] } else { &["invariant", "pitch_shift", "time_stretch"] };
    ModelConfig {
        encoder: EncoderConfig::Vit(vit),
        method,
        subspaces: subspaces.iter().map(|&s| s.into()).collect(),
        frames: front_end.frames(SAMPLES),
        front_end,
        projection: vec![16, 8],
        seed: 5,
    }
}

/// A tone that is struck four times a second, and noise.
fn audio() -> Vec<f32> {
    let mut rng = Key::root(11).rng();
    (0..VIEWS * SAMPLES)
        .map(|i| {
            let t = i as f64 / 16_000.0;
            let struck = (-20.0 * (t % 0.25)).exp() * (1500.0 * (1.0 + t) * t).sin();
            (0.4 * struck + 0.02 * rng.normal()) as f32
        })
        .collect()
}

fn close(got: &Value, want: &[f32], tolerance: f64, what: &str) {
    let got: Vec<f64> = got.as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect();
    assert_eq!(got.len(), want.len(), "{what}");
    let size = want.iter().fold(0.0f64, |top, &x| top.max(f64::from(x).abs()));
    let error = got.iter().zip(want).fold(0.0f64, |top, (a, &b)| top.max((a - f64::from(b)).abs()));
    println!("{what}: off by {error:.1e}, values up to {size:.2}");
    assert!(error <= tolerance * size, "{what}: off by {error:e}, values up to {size}");
}

#[test]
fn the_loader_for_pytorch_gives_our_embeddings() {
    let Some(python) = env::var_os("LOEV_PYTHON") else {
        println!("passed over: LOEV_PYTHON does not name a Python with PyTorch");
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let audio = audio();
    let bytes: Vec<u8> = audio.iter().flat_map(|x| x.to_le_bytes()).collect();
    fs::write(folder.path().join("audio"), bytes).unwrap();
    let methods = [Method::Simclr, Method::Loev, Method::LoevPlusPlus];
    let mut command = Command::new(python);
    command.args(["-c", SCRIPT, "audio", &VIEWS.to_string()]).current_dir(folder.path());
    command.env("PYTHONPATH", Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples"));
    let mut wanted = Vec::new();
    for method in methods {
        let config = config(method);
        let (frames, mels) = (config.frames, config.front_end.mels);
        let mut features = vec![0.0; VIEWS * frames * mels];
        let mut front_end = LogMel::new(&config.front_end);
        for (audio, out) in audio.chunks(SAMPLES).zip(features.chunks_mut(frames * mels)) {
            front_end.compute(audio, out);
        }
        let mut model = Model::new(config, &Device::Cpu).unwrap();
        model.set_normaliser(Normaliser::fit(mels, std::iter::once(features.as_slice()))).unwrap();
        let name = format!("{method:?}");
        checkpoint::save(&model, &folder.path().join(&name), &BTreeMap::new()).unwrap();
        command.arg(&name);
        let frames = Tensor::from_slice(&features, (VIEWS, frames, mels), &Device::Cpu).unwrap();
        let embeddings = model.embed(&frames).unwrap();
        let embeddings = embeddings.iter().map(|e| e.flatten_all().unwrap().to_vec1::<f32>().unwrap());
        wanted.push((name, std::iter::once(features).chain(embeddings).collect::<Vec<_>>()));
    }
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let answers: Value = serde_json::from_slice(&output.stdout).unwrap();
    for ((name, wanted), answers) in wanted.iter().zip(answers.as_array().unwrap()) {
        assert_eq!(wanted.len(), answers.as_array().unwrap().len());
        for (i, (want, got)) in wanted.iter().zip(answers.as_array().unwrap()).enumerate() {
            close(got, want, 1e-4, &format!("{name}, {}", if i == 0 { "frames" } else { "embedding" }));
        }
    }
}
