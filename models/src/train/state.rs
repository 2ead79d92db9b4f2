//! A training on disk: one safetensors file, as for models, with the optimiser beside the weights.

use super::{
    TrainConfig, Training,
    ema::Ema,
    objective::Objective,
    training::{Progress, optimiser, validate},
};
use crate::{
    ModelConfig, Result,
    checkpoint::{
        self,
        file::{self, Contents, FORMAT, Kind, Named, Type, Values, fault},
    },
    device,
    model::Blueprint,
    optim::AdamW,
    params::{Params, Spec},
};
use candle_core::{Device, Tensor};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::Value;
use std::{collections::BTreeMap, path::Path};

const WEIGHTS: &str = "weights.";
/// The running means of gradients and of their squares.
const MOMENTS: [&str; 2] = ["adamw.mean.", "adamw.square."];
const EMA: &str = "ema.";
/// Settings of which a difference is named, in bytes of JSON; longer ones are a stranger's.
const LONGEST: usize = 1 << 16;

/// What the file says beside its tensors.
#[derive(Serialize, Deserialize)]
struct Header {
    format: u64,
    config: ModelConfig,
    train: TrainConfig,
    /// Steps done, also the optimiser's.
    step: usize,
    /// Whether every parameter has been seen to get a gradient.
    gradients_checked: bool,
    #[serde(default)]
    notes: BTreeMap<String, String>,
}

pub(super) fn save(training: &Training, path: &Path, notes: &BTreeMap<String, String>) -> Result<String> {
    let Training { model, params, cfg, adam, ema, progress, .. } = training;
    let mut tensors = checkpoint::statistics(model.normaliser());
    let mut put = |prefix: &str, name: &str, shape: &[usize], values: Values| {
        tensors.push(Named { name: format!("{prefix}{name}"), shape: shape.to_vec(), values });
    };
    for ((name, parameter), moments) in params.iter().zip(adam.moments()) {
        let shape = parameter.var.dims();
        put(WEIGHTS, name, shape, Values::F32(checkpoint::host(&parameter.var)?));
        for (prefix, values) in MOMENTS.iter().zip(moments?) {
            put(prefix, name, shape, Values::F32(values));
        }
    }
    if let Some(ema) = ema {
        for ((name, parameter), values) in params.iter().zip(ema.values()) {
            put(EMA, name, parameter.var.dims(), Values::F64(values?));
        }
    }
    let header = Header {
        format: FORMAT,
        config: model.config().clone(),
        train: cfg.clone(),
        step: progress.steps,
        gradients_checked: progress.checked,
        notes: notes.clone(),
    };
    file::write(path, Kind::State, &header, tensors)
}

pub(super) fn load(
    data: &[u8],
    config: &ModelConfig,
    cfg: &TrainConfig,
    device: &Device,
) -> Result<(Training, BTreeMap<String, String>)> {
    validate(cfg)?;
    let mut contents = Contents::parse(data)?;
    let header: Header = contents.head.header(Kind::State)?;
    same("model", &header.config, config)?;
    same("training", &header.train, cfg)?;
    if header.step > cfg.steps {
        return Err(fault(format!("{} steps are done of a training of {}", header.step, cfg.steps)));
    }

    let blueprint = Blueprint::new(config.clone())?;
    let objective = Objective::new(cfg, config)?;
    let averaged = cfg.ema > 0.0;
    let parameters = blueprint.specs().chain(objective.specs()).flat_map(|Spec { name, shape, .. }| {
        let single = [WEIGHTS, MOMENTS[0], MOMENTS[1]].map(|prefix| (prefix, Type::F32));
        let tensors = single.into_iter().chain(averaged.then_some((EMA, Type::F64)));
        tensors.map(move |(prefix, kind)| (format!("{prefix}{name}"), kind, shape.clone()))
    });
    contents.expect(parameters.chain(checkpoint::statistics_of(blueprint.mels())))?;

    let model = checkpoint::restore(&contents, blueprint, WEIGHTS, device)?;
    let learned = Params::with_values(objective.specs(), device, |Spec { name, shape, .. }| {
        let values = contents.f32s(&format!("{WEIGHTS}{name}"))?;
        Ok(Tensor::from_vec(values, shape.as_slice(), &Device::Cpu)?)
    })?;
    let params = model.params().and(learned);
    let adam = AdamW::resumed(optimiser(cfg), &params, header.step, |name, _| {
        let [m, v] = MOMENTS.map(|prefix| contents.f32s(&format!("{prefix}{name}")));
        Ok([m?, v?])
    })?;
    let ema = match averaged {
        true => {
            let read = |name: &str| contents.f64s(&format!("{EMA}{name}"));
            Some(Ema::resumed(cfg.ema, &params, read)?)
        }
        false => None,
    };
    let progress = Progress { steps: header.step, fitted: true, checked: header.gradients_checked };
    let training = Training::of(model, params, objective, cfg, adam, ema, progress);
    Ok((training.on(device::gpu(device)?)?, header.notes))
}

/// Checks that settings are those that the state was made with.
fn same<T: Serialize + DeserializeOwned + PartialEq>(what: &str, was: &T, now: &T) -> Result<()> {
    // As a file would give it back: the parser may miss the last bit of a decimal fraction.
    let text = serde_json::to_string(now).map_err(|e| fault(e.to_string()))?;
    let now: T = serde_json::from_str(&text).map_err(|e| fault(e.to_string()))?;
    if *was == now {
        return Ok(());
    }
    let was = serde_json::to_string(was).map_err(|e| fault(e.to_string()))?;
    let value = |text: &str| serde_json::from_str::<Value>(text).map_err(|e| fault(e.to_string()));
    let difference = match was.len() {
        ..=LONGEST => difference(&value(&was)?, &value(&text)?, ""),
        _ => None,
    };
    let difference = difference.unwrap_or_else(|| "their settings differ".to_owned());
    Err(fault(format!("it belongs to another {what}: {difference}")))
}

fn brief(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(80) {
        Some((at, _)) => format!("{}...", &text[..at]),
        None => text,
    }
}

/// The first setting that differs, with both its values.
fn difference(was: &Value, now: &Value, place: &str) -> Option<String> {
    match (was, now) {
        (Value::Object(a), Value::Object(b)) if a.keys().eq(b.keys()) => {
            let dot = if place.is_empty() { "" } else { "." };
            a.iter().zip(b.values()).find_map(|((key, a), b)| difference(a, b, &format!("{place}{dot}{key}")))
        }
        _ => (was != now).then(|| format!("{place} was {} there and is {} here", brief(was), brief(now))),
    }
}
