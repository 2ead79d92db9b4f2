//! Models on disk, and states of training.

use loev_models::train::{TrainConfig, Training};
use loev_models::{Device, checkpoint};

/// Reads a checkpoint as a model; and as the state of a training, of that model and of the seed's.
///
/// # Panics
///
/// When the seed's configuration is one no more.
pub fn checkpoint(data: &[u8]) {
    if let Ok((model, _)) = checkpoint::from_bytes(data, &Device::Cpu) {
        let _ = Training::resume_from_bytes(data, model.config(), &TrainConfig::default(), &Device::Cpu);
    }
    let config = serde_json::from_str(CONFIG).expect("a configuration");
    let train = TrainConfig { steps: 4, warmup: 100, ema: 0.9, ..TrainConfig::default() };
    let _ = Training::resume_from_bytes(data, &config, &train, &Device::Cpu);
}

/// The model of the seed `state.safetensors`.
const CONFIG: &str = r#"{"encoder": {"vit": {"dim": 4, "depth": 2, "heads": 2, "patch_frames": 10, "mlp_ratio": 4, "branch_depth": 1, "rhythm": 0}}, "method": "loev++", "subspaces": ["invariant", "pitch_shift"], "front_end": {"sample_rate": 16000, "window": 512, "hop": 800, "fft": 512, "mels": 8, "low_hz": 0.0, "high_hz": 8000.0}, "frames": 11, "projection": [4], "seed": 0}"#;
