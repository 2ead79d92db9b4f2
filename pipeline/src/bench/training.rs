//! Whole steps of training on the device.

use std::fmt::Write as _;
use std::time::Duration;

use loev_models::encoder::EncoderConfig;
use loev_models::encoder::vit::VitConfig;
use loev_models::gpu::check::CheckRow;
use loev_models::train::{TrainBatch, TrainConfig, Training};
use loev_models::{Device, Method, ModelConfig, device};
use loev_ops::gpu::{Gpu, GpuLogMel, GpuRenderer};
use serde::Serialize;

use super::render::{Material, front_end, loev_chain};
use super::{Ceilings, Check, Kernels, seconds_of, wait};
use crate::error::RunError;

/// Vision transformers by the names of their sizes: width, heads.
const SIZES: [(&str, usize, usize); 3] = [("vit-tiny", 192, 3), ("vit-small", 384, 6), ("vit-base", 768, 12)];
const DEPTH: usize = 12;
/// Lengths of views in seconds, and how many of them are a batch.
const LENGTHS: [(f64, usize); 2] = [(3.0, 1024), (10.0, 256)];

/// How fast a model is trained.
#[derive(Debug, Clone, Serialize)]
pub struct TrainingRow {
    /// The model's size.
    pub name: String,
    /// Length of a view.
    pub seconds: f64,
    /// Views of a batch.
    pub views: usize,
    /// Views of a segment.
    pub views_per_segment: usize,
    /// Parameters of the model.
    pub parameters: usize,
    /// Views a second of steps on features that are on the device already.
    pub views_s: f64,
    /// Operations a second of the step's matrix products.
    pub operations_s: f64,
    /// Their share of what large products reach in bf16.
    pub share: f64,
    /// Views a second when each step's views are rendered first, on the same device.
    pub rendered_views_s: f64,
    /// Memory of the device in use at most, in bytes.
    pub memory_bytes: Option<u64>,
    /// What the time of a step went to.
    pub kernels: Kernels,
    /// The model.
    pub config: ModelConfig,
    /// Its training.
    pub train: TrainConfig,
}

pub(super) fn checks(device: &Device, gpu: &Gpu) -> Result<Vec<Check>, RunError> {
    let mut rows = loev_models::gpu::training_check::check(gpu, device)?;
    if let Some(engine) = device::engine(device)? {
        rows.extend(loev_models::gpu::check::check(&engine)?);
    }
    let check = |row: CheckRow| Check {
        holds: row.passes(),
        name: row.name,
        measure: "relative error".to_owned(),
        value: row.error,
        tolerance: row.tolerance,
    };
    Ok(rows.into_iter().map(check).collect())
}

pub(super) fn measure(
    device: &Device,
    gpu: &Gpu,
    ceilings: &Ceilings,
    least: Duration,
    say: &mut dyn FnMut(&str),
) -> Result<Vec<TrainingRow>, RunError> {
    say(
        "\n| training | seconds | batch | views/s | share of the bf16 ceiling | views/s with rendering | memory |\n\
         | --- | --- | --- | --- | --- | --- | --- |\n",
    );
    let mut rows = Vec::new();
    for (name, dim, heads) in SIZES {
        for (seconds, views) in LENGTHS {
            let row = row(device, gpu, ceilings, least, name, (dim, heads), (seconds, views))?;
            let mut line = String::new();
            let TrainingRow { name, seconds, views, views_s, share, rendered_views_s, memory_bytes, .. } =
                &row;
            let memory =
                memory_bytes.map_or("unknown".to_owned(), |bytes| format!("{:.1} GB", bytes as f64 / 1e9));
            let _ = writeln!(
                line,
                "| {name} | {seconds} | {views} | {views_s:.0} | {:.1}% | {rendered_views_s:.0} | {memory} |",
                100.0 * share
            );
            say(&line);
            rows.push(row);
        }
    }
    for row in &rows {
        say(&row.kernels.table());
    }
    Ok(rows)
}

fn row(
    device: &Device,
    gpu: &Gpu,
    ceilings: &Ceilings,
    least: Duration,
    name: &str,
    (dim, heads): (usize, usize),
    (seconds, views): (f64, usize),
) -> Result<TrainingRow, RunError> {
    let front_end = front_end();
    let material = Material::new(gpu, loev_chain(seconds)?, views)?;
    let chain = &material.chain;
    let vit = VitConfig { dim, heads, depth: DEPTH, patch_frames: 2, ..VitConfig::default() };
    let config = ModelConfig {
        encoder: EncoderConfig::Vit(vit),
        method: Method::LoevPlusPlus,
        subspaces: chain.heads(),
        frames: front_end.frames(chain.frames()),
        front_end: front_end.clone(),
        projection: vec![256, 64],
        seed: 1,
    };
    let train = TrainConfig { steps: 1_000_000, warmup: 30, ..TrainConfig::default() };
    let mut training = Training::new(config.clone(), &train, device)?;

    let mut renderer = GpuRenderer::new(gpu, chain)?;
    let mut log_mel = GpuLogMel::new(gpu, &front_end)?;
    let shape = (material.draws.len(), config.frames, front_end.mels);
    let mut rendered = || -> Result<TrainBatch, RunError> {
        let views = renderer.render(&material.sources(), &material.segment_of, &material.draws)?;
        let features = log_mel.compute(&views)?;
        let features = device::tensor(gpu, features, shape.into(), device)?.into();
        let groups = (0..config.subspaces.len())
            .map(|head| material.draws.iter().filter_map(|draw| draw.groups.get(head).copied()).collect())
            .collect();
        Ok(TrainBatch { features, views: shape.0, groups, epoch: 0 })
    };
    let batch = rendered()?;
    training.fit(std::slice::from_ref(&batch))?;
    let step =
        |training: &mut Training, batch: TrainBatch| training.step(batch).map(drop).map_err(RunError::from);
    let seconds_of_step = seconds_of(least, || step(&mut training, batch.clone()), wait(gpu))?;
    let of = format!("a step of {name}, {seconds} s, {} views", shape.0);
    let kernels = Kernels::of(of, seconds_of_step, gpu, || step(&mut training, batch.clone()))?;
    let memory_bytes = device::memory_in_use(device);
    let seconds_of_both = seconds_of(least, || step(&mut training, rendered()?), wait(gpu))?;
    let operations = config.training_operations(shape.0)?;
    Ok(TrainingRow {
        name: name.to_owned(),
        seconds,
        views: shape.0,
        views_per_segment: chain.views_per_segment(),
        parameters: training.model().parameters(),
        views_s: shape.0 as f64 / seconds_of_step,
        operations_s: operations / seconds_of_step,
        share: operations / seconds_of_step / ceilings.bf16_operations_s,
        rendered_views_s: shape.0 as f64 / seconds_of_both,
        memory_bytes,
        kernels,
        config,
        train,
    })
}
