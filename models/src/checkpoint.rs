//! Models on disk: one safetensors file whose header carries the configuration.
//!
//! Loading is strict. Names and shapes must be those of the model that the configuration describes; one
//! parameter too many or too few is an error, not a guess. Nothing is made before that is known, so a
//! file cannot make loading take more than a small multiple of its own size.

pub(crate) mod file;

use crate::{
    Model, ModelConfig, Result,
    encoder::tokens::Normaliser,
    model::Blueprint,
    params::{Params, Spec},
};
use candle_core::{DType, Device, Tensor};
use file::{Contents, FORMAT, Head, Kind, Named, Type, Values, at, fault};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, path::Path};

/// Statistics of the front end, which are not parameters.
const STATISTICS: [&str; 2] = ["normaliser.mean", "normaliser.deviation"];

/// What the file says beside its tensors.
#[derive(Serialize, Deserialize)]
struct Header {
    format: u64,
    config: ModelConfig,
    #[serde(default)]
    notes: BTreeMap<String, String>,
}

/// Saves a model with notes of the caller's (`notes`), through a temporary file: there is either the
/// whole new file or what was there before, also after a loss of power. Equal models with equal notes
/// are equal files. Returns the BLAKE3 digest of the file in hexadecimal.
///
/// # Errors
/// [`ModelError::Io`](crate::ModelError::Io), and [`ModelError::Checkpoint`](crate::ModelError::Checkpoint)
/// when the model cannot be written as safetensors.
pub fn save(model: &Model, path: &Path, notes: &BTreeMap<String, String>) -> Result<String> {
    let weights = model.params().iter().map(|(_, parameter)| host(&parameter.var));
    save_with(model, weights, path, notes)
}

/// Saves a model with other weights than its own, given in the order of its parameters.
pub(crate) fn save_with(
    model: &Model,
    weights: impl Iterator<Item = Result<Vec<f32>>>,
    path: &Path,
    notes: &BTreeMap<String, String>,
) -> Result<String> {
    let mut tensors = statistics(model.normaliser());
    for ((name, parameter), values) in model.params().iter().zip(weights) {
        let shape = parameter.var.dims().to_vec();
        tensors.push(Named { name: name.to_owned(), shape, values: Values::F32(values?) });
    }
    let header = Header { format: FORMAT, config: model.config().clone(), notes: notes.clone() };
    file::write(path, Kind::Model, &header, tensors)
}

/// The values of a tensor in `f32`, row-major.
pub(crate) fn host(tensor: &Tensor) -> Result<Vec<f32>> {
    Ok(tensor.flatten_all()?.to_dtype(DType::F32)?.to_vec1()?)
}

/// The tensors of the front end's statistics.
pub(crate) fn statistics(normaliser: &Normaliser) -> Vec<Named> {
    let named = |(name, values): (&str, &Vec<f32>)| Named {
        name: name.to_owned(),
        shape: vec![values.len()],
        values: Values::F32(values.clone()),
    };
    STATISTICS.into_iter().zip([&normaliser.mean, &normaliser.deviation]).map(named).collect()
}

/// The caller's notes of a checkpoint; reads its header alone.
///
/// # Errors
/// [`ModelError::Io`](crate::ModelError::Io) and [`ModelError::Checkpoint`](crate::ModelError::Checkpoint)
/// as [`load`].
pub fn notes(path: &Path) -> Result<BTreeMap<String, String>> {
    let header = || Head::open(path)?.header::<Header>(Kind::Model);
    Ok(header().map_err(at(path))?.notes)
}

/// Loads a model.
///
/// # Errors
/// [`ModelError::Io`](crate::ModelError::Io) when the file cannot be read;
/// [`ModelError::Checkpoint`](crate::ModelError::Checkpoint) when it is damaged, of another kind or
/// format, or does not hold exactly the parameters of its own configuration, finite all of them.
pub fn load(path: &Path, device: &Device) -> Result<Model> {
    Ok(load_with_notes(path, device)?.0)
}

/// Loads a model and the caller's notes.
///
/// # Errors
/// As [`load`].
pub fn load_with_notes(path: &Path, device: &Device) -> Result<(Model, BTreeMap<String, String>)> {
    from_bytes(&file::bytes(path)?, device).map_err(at(path))
}

/// [`load_with_notes`] of a file's bytes. They may be anything: what is allocated is at most a small
/// multiple of their length.
///
/// # Errors
/// [`ModelError::Checkpoint`](crate::ModelError::Checkpoint) as [`load`].
pub fn from_bytes(data: &[u8], device: &Device) -> Result<(Model, BTreeMap<String, String>)> {
    let mut contents = Contents::parse(data)?;
    let Header { config, notes, .. } = contents.head.header(Kind::Model)?;
    let blueprint =
        Blueprint::new(config).map_err(|e| fault(format!("its configuration cannot work: {e}")))?;
    let parameters = blueprint.specs().map(|Spec { name, shape, .. }| (name, Type::F32, shape));
    contents.expect(parameters.chain(statistics_of(blueprint.mels())))?;
    Ok((restore(&contents, blueprint, "", device)?, notes))
}

/// The tensors of the front end's statistics, as [`Contents::expect`] wants them.
pub(crate) fn statistics_of(mels: usize) -> impl Iterator<Item = (String, Type, Vec<usize>)> {
    STATISTICS.into_iter().map(move |name| (name.to_owned(), Type::F32, vec![mels]))
}

/// The model of a file whose tensors are as expected; names of parameters begin with `prefix`.
pub(crate) fn restore(
    contents: &Contents<'_>,
    blueprint: Blueprint,
    prefix: &str,
    device: &Device,
) -> Result<Model> {
    let params = Params::with_values(blueprint.specs(), device, |Spec { name, shape, .. }| {
        let values = contents.f32s(&format!("{prefix}{name}"))?;
        Ok(Tensor::from_vec(values, shape.as_slice(), &Device::Cpu)?)
    })?;
    let mut model = blueprint.with(params, device);
    let [mean, deviation] = STATISTICS.map(|name| contents.f32s(name));
    let normaliser = Normaliser { mean: mean?, deviation: deviation? };
    model.set_normaliser(normaliser).map_err(|e| fault(e.to_string()))?;
    Ok(model)
}

#[cfg(test)]
mod tests;
