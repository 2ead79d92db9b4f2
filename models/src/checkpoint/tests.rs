//! Models that come back, and files that do not deserve to.

use super::*;
use crate::{
    Method, ModelError,
    layers::check::{distance, wave},
    model::tests::small,
};
use serde_json::{Value, json};
use std::{fs, time::Instant};

fn model() -> Model {
    let mut model = Model::new(small(Method::LoevPlusPlus), &Device::Cpu).unwrap();
    let normaliser = Normaliser { mean: vec![-40.0; 5], deviation: vec![12.0; 5] };
    model.set_normaliser(normaliser).unwrap();
    model
}

fn good() -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model");
    save(&model(), &path, &BTreeMap::new()).unwrap();
    fs::read(path).unwrap()
}

fn refusal(data: &[u8]) -> String {
    let error = from_bytes(data, &Device::Cpu).unwrap_err();
    assert!(matches!(error, ModelError::Checkpoint(_)), "{error}");
    error.to_string()
}

fn refused(data: &[u8], what: &str) {
    let message = refusal(data);
    assert!(message.contains(what), "{message}");
}

#[test]
fn what_is_saved_is_loaded() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.safetensors");
    let model = model();
    let extra = BTreeMap::from([("run".to_string(), "a".to_string())]);
    save(&model, &path, &extra).unwrap();
    let digest = save(&model, &path, &extra).unwrap();
    assert_eq!(digest, blake3::hash(&fs::read(&path).unwrap()).to_hex().to_string());
    let (loaded, said) = load_with_notes(&path, &Device::Cpu).unwrap();
    assert_eq!(loaded.config(), model.config());
    assert_eq!(loaded.normaliser(), model.normaliser());
    assert_eq!((notes(&path).unwrap(), said), (extra.clone(), extra));
    let features = wave(&[3, 9, 5], 0.7, 20.0).to_dtype(DType::F32).unwrap();
    for (a, b) in model.embed(&features).unwrap().iter().zip(loaded.embed(&features).unwrap()) {
        assert_eq!(distance(a, &b), 0.0);
    }
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "no temporary file stays behind");
}

#[test]
fn failures_name_the_file_and_leave_nothing_behind() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.safetensors");
    assert!(matches!(load(&path, &Device::Cpu), Err(ModelError::Io { .. })));
    assert!(matches!(notes(&path), Err(ModelError::Io { .. })));
    fs::write(&path, b"no model").unwrap();
    for error in [load(&path, &Device::Cpu).unwrap_err(), notes(&path).unwrap_err()] {
        assert!(error.to_string().contains("model.safetensors: it cannot be read"), "{error}");
    }
    let folder = dir.path().join("folder");
    fs::create_dir(&folder).unwrap();
    assert!(matches!(save(&model(), &folder, &BTreeMap::new()), Err(ModelError::Io { .. })));
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
}

/// The header can be read where the values are not there.
#[test]
fn notes_are_read_without_the_model() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.safetensors");
    let extra = BTreeMap::from([("run".to_string(), "a".to_string())]);
    save(&model(), &path, &extra).unwrap();
    let file = fs::read(&path).unwrap();
    let header = 8 + u64::from_le_bytes(*file.first_chunk().unwrap()) as usize;
    fs::write(&path, &file[..header]).unwrap();
    assert_eq!(notes(&path).unwrap(), extra);
    fs::write(&path, &file[..header - 1]).unwrap();
    assert!(notes(&path).unwrap_err().to_string().contains("ends before its header"));
}

#[test]
fn damage_and_strangers_are_refused() {
    let good = good();
    refused(&good[..good.len() - 4], "bytes of data");
    refused(&[&good[..], &[0; 4]].concat(), "bytes of data");
    refused(b"", "cannot be read");
    refused(b"{}{}{}{}{}{}{}{}{}{}{}{}", "cannot be read");
    let at = good.len() - 4;
    refused(&[&good[..at], &f32::NAN.to_le_bytes()[..]].concat(), "not finite");
    let replace = |from: &str, to: &str| {
        let at = good.windows(from.len()).position(|w| w == from.as_bytes()).unwrap();
        [&good[..at], to.as_bytes(), &good[at + from.len()..]].concat()
    };
    refused(&replace("trunk.0.norm1.bias", "trunk.0.norm1.bia_"), "\"trunk.0.norm1.bias\" is missing");
    refused(&replace("\\\"depth\\\":3", "\\\"depth\\\":2"), "is no parameter of the model");
    refused(&replace("\\\"dim\\\":12", "\\\"dim\\\":14"), "expected F32");
    refused(&replace("\\\"format\\\":1", "\\\"format\\\":9"), "format 9");
    let plain = safetensors::serialize(Vec::<(&str, safetensors::tensor::TensorView<'_>)>::new(), None);
    refused(&plain.unwrap(), "no file of ours");
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

/// A file from a header and its data.
fn craft(header: &str, data: &[u8]) -> Vec<u8> {
    [&(header.len() as u64).to_le_bytes(), header.as_bytes(), data].concat()
}

/// The good file with another configuration.
fn reconfigured(change: impl Fn(&mut Value)) -> Vec<u8> {
    let good = good();
    let end = 8 + u64::from_le_bytes(*good.first_chunk().unwrap()) as usize;
    let mut header: Value = serde_json::from_slice(&good[8..end]).unwrap();
    let mut own: Value = serde_json::from_str(header["__metadata__"]["loev"].as_str().unwrap()).unwrap();
    change(&mut own["config"]);
    header["__metadata__"]["loev"] = json!(own.to_string());
    craft(&header.to_string(), &good[end..])
}

/// Each of these would cost terabytes or years if it were believed.
#[test]
fn headers_are_not_believed() {
    let start = Instant::now();
    for length in [1, 1 << 33, 1 << 62, u64::MAX] {
        refused(&[&length.to_le_bytes()[..], b"{}"].concat(), "cannot be read");
    }
    // Sizes whose sum comes round to the length of the data.
    let tensor =
        |from: u64, to: u64| json!({"dtype": "F32", "shape": [(to - from) / 4], "data_offsets": [from, to]});
    let end = |i: u64| if i < 8 { i << 61 } else { u64::MAX - 3 };
    let huge: serde_json::Map<String, Value> =
        (0..8).map(|i| (format!("t{i}"), tensor(end(i), end(i + 1)))).collect();
    refused(&craft(&Value::Object(huge).to_string(), &[]), "bytes of data");
    refused(&craft(&json!({"t": tensor(0, 1 << 62)}).to_string(), &[0; 8]), "bytes of data");
    refused(
        &craft(&json!({"t": {"dtype": "F32", "shape": [2], "data_offsets": [8, 0]}}).to_string(), &[0; 8]),
        "bytes of data",
    );
    refused(&craft(&"[".repeat(1 << 20), &[]), "cannot be read");
    refused(&craft(&format!("{{\"t\":{}", "[".repeat(1 << 20)), &[]), "cannot be read");

    let vit =
        |key: &'static str, value: Value| reconfigured(move |c| c["encoder"]["vit"][key] = value.clone());
    for (key, value) in [
        ("heads", 0u64),
        ("dim", 0),
        ("depth", 0),
        ("patch_frames", 0),
        ("dim", 1 << 40),
        ("rhythm", 1 << 40),
    ] {
        refused(&vit(key, json!(value)), "cannot work");
    }
    for (key, value) in [("dim", 8192), ("depth", 128), ("patch_frames", 9), ("mlp_ratio", 16)] {
        refusal(&vit(key, json!(value)));
    }
    let with = |key: &'static str, value: Value| reconfigured(move |c| c[key] = value.clone());
    refused(&with("frames", json!(u64::MAX)), "parameter \"position\" is F32");
    refused(&with("frames", json!(1u64 << 40)), "parameter \"position\" is F32");
    refused(&with("projection", json!([u64::MAX, u64::MAX])), "projection.0.0.weight");
    refused(&with("projection", json!([10, 0])), "cannot work");
    refused(&with("projection", json!(vec![10; 200_000])), "projection.0.1.weight");
    let many: Vec<String> = (0..200_000).map(|i| i.to_string()).collect();
    refused(&with("subspaces", json!(many)), "parameter \"class\" is F32");
    refused(&with("subspaces", json!(vec![""; 200_000])), "cannot work");
    refused(&with("front_end", json!({"mels": 0})), "configuration");
    assert!(start.elapsed().as_secs() < 20, "{:?}", start.elapsed());
}

#[test]
fn statistics_must_be_sound() {
    let model = model();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model");
    for (mean, deviation, what) in [
        (f32::NAN, 1.0, "not finite"),
        (0.0, f32::NAN, "not finite"),
        (0.0, 0.0, "statistics"),
        (0.0, -1.0, "statistics"),
    ] {
        let bad = Normaliser { mean: vec![mean; 5], deviation: vec![deviation; 5] };
        let mut tensors = statistics(&bad);
        for (name, p) in model.params().iter() {
            let values = Values::F32(host(&p.var).unwrap());
            tensors.push(Named { name: name.to_owned(), shape: p.var.dims().to_vec(), values });
        }
        let header = Header { format: FORMAT, config: model.config().clone(), notes: BTreeMap::new() };
        file::write(&path, Kind::Model, &header, tensors).unwrap();
        refused(&fs::read(&path).unwrap(), what);
    }
}

/// Any byte of the header may be another one: that is an error or, within names of notes and numbers
/// that no shape depends on, a model; never a panic.
#[test]
fn spoilt_bytes_do_no_harm() {
    let good = good();
    let end = 8 + u64::from_le_bytes(*good.first_chunk().unwrap()) as usize;
    let mut refused = 0;
    for at in 0..end {
        let mut spoilt = good.clone();
        spoilt[at] = [b'9', 0, b'"', b'[', 0xff][at % 5];
        refused += usize::from(from_bytes(&spoilt, &Device::Cpu).is_err());
    }
    assert!(refused * 10 > end * 9, "{refused} of {end}");
}
