//! Our side of the comparison with PyTorch (see README.md): trains when it is told to, and says how long it took.
//!
//! `cargo bench -p loev-models --bench peers-train -- -` reads one JSON object a line from standard input and
//! answers each with one line. The model is the quickstart's. `RAYON_NUM_THREADS` sets the threads.

use std::fs;
use std::hint::black_box;
use std::io::{self, BufRead, Write};
use std::path::PathBuf;
use std::time::Instant;

use candle_core::Device;
use loev_models::{
    Method, ModelConfig,
    encoder::{EncoderConfig, vit::VitConfig},
    kernels::mat::{View, product},
    train::{TrainBatch, TrainConfig, Training},
};
use loev_ops::{features::FrontEnd, rng::Key};
use rayon::prelude::*;
use serde::Deserialize;
use serde_json::{Value, json};

type Outcome = Result<Value, Box<dyn std::error::Error>>;

const VIEWS: usize = 64;
const FRAMES: usize = 201;
const MELS: usize = 128;

#[derive(Deserialize)]
#[serde(tag = "do", rename_all = "snake_case", deny_unknown_fields)]
enum Job {
    /// Writes `model.safetensors`, as it is before the first step, and `features.f32`; says the settings.
    Begin { folder: PathBuf },
    /// Trains so many steps; the seconds and the loss of each.
    Steps { n: usize },
    /// Makes `n` large products in `f32` on each thread; billions of operations.
    Products { n: usize },
}

struct Trainer {
    training: Training,
    batch: TrainBatch,
    cfg: TrainConfig,
    config: ModelConfig,
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // Cargo adds `--bench`. Without a job, as when all benches run, there is nothing to do.
    if !std::env::args().any(|a| a == "-") {
        println!("peers-train: no jobs given, see models/benches/peers/README.md");
        return Ok(());
    }
    let mut trainer = Trainer::new()?;
    let mut answers = io::stdout().lock();
    for line in io::stdin().lock().lines() {
        let answer = serde_json::from_str(&line?).map_err(Into::into).and_then(|job| trainer.run(job));
        writeln!(answers, "{}", answer.unwrap_or_else(|e| json!({ "error": e.to_string() })))?;
        answers.flush()?;
    }
    Ok(())
}

impl Trainer {
    fn new() -> Result<Self, Box<dyn std::error::Error>> {
        let vit = VitConfig { patch_frames: 2, ..VitConfig::default() };
        let config = ModelConfig {
            encoder: EncoderConfig::Vit(vit),
            method: Method::LoevPlusPlus,
            subspaces: ["invariant", "pitch_shift", "time_stretch"].map(Into::into).to_vec(),
            front_end: FrontEnd { window: 2048, hop: 320, fft: 2048, mels: MELS, ..FrontEnd::default() },
            frames: FRAMES,
            projection: vec![256, 64],
            seed: 1,
        };
        // The rate stays where it is after the warm-up.
        let cfg =
            TrainConfig { steps: 1_000_000, warmup: 30, lr: 1e-3, last_lr: 1.0, ..TrainConfig::default() };
        let mut rng = Key::root(17).rng();
        let features: Vec<f32> =
            (0..VIEWS * FRAMES * MELS).map(|_| (-40.0 + 12.0 * rng.normal()) as f32).collect();
        // Four views a segment, in a 2 x 2 grid of two levels of each factor.
        let segment = |i: usize| (i / 4 * 4) as i64;
        let ids = |level: fn(usize) -> i64| (0..VIEWS).map(|i| segment(i) + level(i)).collect();
        let groups = vec![ids(|_| 0), ids(|i| (i % 2) as i64), ids(|i| (i / 2 % 2) as i64)];
        let batch = TrainBatch { features: features.into(), views: VIEWS, groups, ..TrainBatch::default() };
        let mut training = Training::new(config.clone(), &cfg, &Device::Cpu)?;
        training.fit(std::slice::from_ref(&batch))?;
        Ok(Self { training, batch, cfg, config })
    }

    fn run(&mut self, job: Job) -> Outcome {
        match job {
            Job::Begin { folder } => {
                self.training.save_model(&folder.join("model.safetensors"), &Default::default())?;
                let features = self.batch.features.host()?;
                let bytes: Vec<u8> = features.iter().flat_map(|x| x.to_le_bytes()).collect();
                fs::write(folder.join("features.f32"), bytes)?;
                Ok(json!({
                    "views": VIEWS, "frames": FRAMES, "mels": MELS, "groups": self.batch.groups,
                    "train": self.cfg, "flops": self.config.training_operations(VIEWS)?, "threads": rayon::current_num_threads(),
                    "pid": std::process::id(),
                }))
            }
            Job::Steps { n } => {
                let (mut seconds, mut losses) = (Vec::new(), Vec::new());
                for _ in 0..n {
                    let batch = self.batch.clone();
                    let start = Instant::now();
                    losses.push(self.training.step(batch)?.loss);
                    seconds.push(start.elapsed().as_secs_f64());
                }
                Ok(json!({ "seconds": seconds, "losses": losses }))
            }
            Job::Products { n } => Ok(json!(products(n))),
        }
    }
}

fn products(n: usize) -> f64 {
    const SIZE: usize = 768;
    let values: Vec<f32> = (0..SIZE * SIZE).map(|i| (i as f32 * 0.7).sin()).collect();
    let threads = rayon::current_num_threads();
    (0..threads).into_par_iter().for_each(|_| {
        let mut out = vec![0.0; SIZE * SIZE];
        for _ in 0..n {
            let (a, b) = (View::rows(&values, SIZE), View::transposed(&values, SIZE));
            product([SIZE; 3], black_box(&mut out), SIZE, false, a, b);
        }
    });
    (threads * n * 2 * SIZE.pow(3)) as f64 / 1e9
}
