//! Models on disk: one safetensors file whose header carries the configuration.
//!
//! Loading is strict. Names and shapes must be those of the model that the configuration describes; one
//! parameter too many or too few is an error, not a guess.

use crate::{Model, ModelConfig, ModelError, Result, encoder::tokens::Normaliser};
use candle_core::{DType, Device, Tensor};
use safetensors::{Dtype, SafeTensors, tensor::TensorView};
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, HashMap},
    fs::{self, File},
    io::Write,
    path::Path,
};

/// The header's one entry, a [`Header`] as JSON. One, because entries are written in no fixed order, and
/// equal models should be equal files.
const ENTRY: &str = "loev";
/// The layout that this version writes and reads.
const FORMAT: u32 = 1;
/// Prefix of the statistics of the front end, which are not parameters.
const STATISTICS: [&str; 2] = ["normaliser.mean", "normaliser.deviation"];

/// What the file says beside its tensors.
#[derive(Serialize, Deserialize)]
struct Header {
    format: u32,
    config: ModelConfig,
    #[serde(default)]
    notes: BTreeMap<String, String>,
}

fn fault(message: impl Into<String>) -> ModelError {
    ModelError::Checkpoint(message.into())
}

fn io(path: &Path) -> impl FnOnce(std::io::Error) -> ModelError + '_ {
    move |source| ModelError::Io { path: path.to_owned(), source }
}

/// Saves a model with notes of the caller's (`extra`), through a temporary file: there is either the
/// whole new file or what was there before.
///
/// # Errors
/// [`ModelError::Io`], and [`ModelError::Checkpoint`] when the model cannot be written as safetensors.
pub fn save(model: &Model, path: &Path, extra: &BTreeMap<String, String>) -> Result<()> {
    let header = Header { format: FORMAT, config: model.config().clone(), notes: extra.clone() };
    let header = serde_json::to_string(&header).map_err(|e| fault(e.to_string()))?;
    let header = HashMap::from([(ENTRY.to_owned(), header)]);

    let mut tensors: Vec<(&str, Vec<usize>, Vec<u8>)> = Vec::new();
    let bytes = |values: &[f32]| values.iter().flat_map(|v| v.to_le_bytes()).collect();
    for (name, parameter) in model.params().iter() {
        let values = parameter.var.flatten_all()?.to_dtype(DType::F32)?.to_vec1::<f32>()?;
        tensors.push((name, parameter.var.dims().to_vec(), bytes(&values)));
    }
    let normaliser = model.normaliser();
    for (name, values) in STATISTICS.iter().zip([&normaliser.mean, &normaliser.deviation]) {
        tensors.push((name, vec![values.len()], bytes(values)));
    }
    let views = tensors
        .iter()
        .map(|(name, shape, data)| Ok((*name, TensorView::new(Dtype::F32, shape.clone(), data)?)))
        .collect::<std::result::Result<Vec<_>, safetensors::SafeTensorError>>()
        .map_err(|e| fault(e.to_string()))?;
    let data = safetensors::serialize(views, Some(header)).map_err(|e| fault(e.to_string()))?;

    let mut partial = path.as_os_str().to_owned();
    partial.push(".partial");
    let partial = Path::new(&partial);
    let write = || -> std::io::Result<()> {
        let mut file = File::create(partial)?;
        file.write_all(&data)?;
        file.sync_all()?;
        fs::rename(partial, path)
    };
    write().map_err(io(path))
}

/// The caller's notes of a checkpoint.
///
/// # Errors
/// [`ModelError::Io`] and [`ModelError::Checkpoint`] as [`load`].
pub fn notes(path: &Path) -> Result<BTreeMap<String, String>> {
    let data = fs::read(path).map_err(io(path))?;
    Ok(header(path, &data)?.notes)
}

fn header(path: &Path, data: &[u8]) -> Result<Header> {
    let (_, metadata) = SafeTensors::read_metadata(data)
        .map_err(|e| fault(format!("{} cannot be read: {e}", path.display())))?;
    let Some(entry) = metadata.metadata().as_ref().and_then(|header| header.get(ENTRY)) else {
        return Err(fault(format!("{} is a safetensors file, but holds no model of ours", path.display())));
    };
    // The format first: another one may have another configuration.
    let value: serde_json::Value =
        serde_json::from_str(entry).map_err(|e| fault(format!("its header: {e}")))?;
    match value.get("format").and_then(serde_json::Value::as_u64) {
        Some(format) if format == u64::from(FORMAT) => {
            serde_json::from_value(value).map_err(|e| fault(format!("its configuration does not fit: {e}")))
        }
        Some(other) => Err(fault(format!("format {other} is not the format {FORMAT} that is read here"))),
        None => Err(fault("its header names no format")),
    }
}

/// Loads a model.
///
/// # Errors
/// [`ModelError::Io`] when the file cannot be read; [`ModelError::Checkpoint`] when it is damaged, of
/// another format, or does not hold exactly the parameters of its own configuration, finite all of them.
pub fn load(path: &Path, device: &Device) -> Result<Model> {
    let data = fs::read(path).map_err(io(path))?;
    let config = header(path, &data)?.config;
    let file = SafeTensors::deserialize(&data).map_err(|e| fault(e.to_string()))?;
    let mut model = Model::new(config, device)?;

    let mut names: Vec<&str> = file.names();
    names.sort_unstable();
    let expected = |name: &str| STATISTICS.contains(&name) || model.params().iter().any(|(n, _)| n == name);
    if let Some(name) = names.iter().find(|name| !expected(name)) {
        return Err(fault(format!("{name:?} is no parameter of the model")));
    }
    let read = |name: &str, shape: &[usize]| -> Result<Vec<f32>> {
        let view = file.tensor(name).map_err(|_| fault(format!("parameter {name:?} is missing")))?;
        if view.dtype() != Dtype::F32 || view.shape() != shape {
            return Err(fault(format!(
                "parameter {name:?} is {:?} {:?}, expected F32 {shape:?}",
                view.dtype(),
                view.shape()
            )));
        }
        let words = view.data().chunks_exact(4);
        let values: Vec<f32> = words.map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
        match values.iter().all(|v| v.is_finite()) {
            true => Ok(values),
            false => Err(fault(format!("parameter {name:?} is not finite"))),
        }
    };
    for (name, parameter) in model.params().iter() {
        let shape = parameter.var.dims();
        parameter.var.set(&Tensor::from_vec(read(name, shape)?, shape, device)?)?;
    }
    let mels = model.config().front_end.mels;
    let [mean, deviation] = STATISTICS.map(|name| read(name, &[mels]));
    model.set_normaliser(Normaliser { mean: mean?, deviation: deviation? })?;
    Ok(model)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        Method,
        layers::check::{distance, wave},
        model::tests::small,
    };

    fn model() -> Model {
        let mut model = Model::new(small(Method::LoevPlusPlus), &Device::Cpu).unwrap();
        let normaliser = Normaliser { mean: vec![-40.0; 5], deviation: vec![12.0; 5] };
        model.set_normaliser(normaliser).unwrap();
        model
    }

    #[test]
    fn what_is_saved_is_loaded() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("model.safetensors");
        let model = model();
        let extra = BTreeMap::from([("run".to_string(), "a".to_string())]);
        save(&model, &path, &extra).unwrap();
        save(&model, &path, &extra).unwrap();
        let loaded = load(&path, &Device::Cpu).unwrap();
        assert_eq!(loaded.config(), model.config());
        assert_eq!(loaded.normaliser(), model.normaliser());
        assert_eq!(notes(&path).unwrap(), extra);
        let features = wave(&[3, 9, 5], 0.7, 20.0).to_dtype(DType::F32).unwrap();
        for (a, b) in model.embed(&features).unwrap().iter().zip(loaded.embed(&features).unwrap()) {
            assert_eq!(distance(a, &b), 0.0);
        }
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "no temporary file stays behind");
    }

    #[test]
    fn damage_and_strangers_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("model.safetensors");
        assert!(matches!(load(&path, &Device::Cpu), Err(ModelError::Io { .. })));
        save(&model(), &path, &BTreeMap::new()).unwrap();
        let good = fs::read(&path).unwrap();
        let refused = |data: &[u8], what: &str| {
            fs::write(&path, data).unwrap();
            let message = load(&path, &Device::Cpu).unwrap_err().to_string();
            assert!(message.contains(what), "{message}");
        };
        refused(&good[..good.len() - 4], "checkpoint");
        refused(b"", "cannot be read");
        refused(b"{}{}{}{}{}{}{}{}{}{}{}{}", "cannot be read");
        let at = good.len() - 4;
        refused(&[&good[..at], &f32::NAN.to_le_bytes()[..]].concat(), "not finite");
        let replace = |from: &str, to: &str| {
            let at = good.windows(from.len()).position(|w| w == from.as_bytes()).unwrap();
            [&good[..at], to.as_bytes(), &good[at + from.len()..]].concat()
        };
        refused(&replace("trunk.0.norm1.bias", "trunk.0.norm1.bia_"), "no parameter of the model");
        refused(&replace("\\\"dim\\\":12", "\\\"dim\\\":14"), "expected F32");
        refused(&replace("\\\"format\\\":1", "\\\"format\\\":9"), "format 9");
        let plain = safetensors::serialize(Vec::<(&str, TensorView)>::new(), None).unwrap();
        refused(&plain, "no model of ours");
    }

    #[test]
    fn equal_models_are_equal_files() {
        let dir = tempfile::tempdir().unwrap();
        let notes = ["a", "b", "c", "d"].map(|key| (key.to_owned(), key.to_owned())).into();
        let file = |name: &str| {
            save(&model(), &dir.path().join(name), &notes).unwrap();
            fs::read(dir.path().join(name)).unwrap()
        };
        assert!(file("one") == file("two"));
    }
}
