//! A run that is made by hand: tables of the names, columns and types that stages write, with embeddings whose answers
//! are known by construction.
//!
//! Twelve clips `c00` to `c11`; clip `i` has key `i mod 3` of C major, G major, A minor, style rock if `i` is even and
//! jazz if not, and 60 + 10 i beats per minute. The first six train, two validate, four test.
//!
//! | subspace | embedding of a clip | of a view |
//! | --- | --- | --- |
//! | `pitch_shift` | 1 in the place of its key, i / 100 in the last | 0.1 of cosine distance per semitone from the lowest |
//! | `time_stretch` | at the angle i / 20 in the first two places | 0.05 per 10% of tempo from the slowest |
//! | `invariant` | 1 in the place of its style, i / 100 in the third; that of `c10` is that of `c04` | the same for all |
//!
//! Views of clip `i` are all pairs of -2 and `i mod 4` semitones with rates 1 and 1.1 + (`i mod 3`) / 10.

mod music;
mod results;

use std::fs;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanArray, FixedSizeListArray, Float32Array, Float64Array, Int32Array, Int64Array,
    ListArray, ListBuilder, RecordBatch, StringArray, StringBuilder, StructArray, UInt64Array,
};
use arrow::datatypes::{DataType, Field, Float64Type, Int64Type};
use parquet::arrow::ArrowWriter;

use music::{baseline, clips, embeddings, moved, neighbours, views};
use results::{FIGURES, agreements, figures, leaks, predictions, receipts, rejects, responses, steps};

const CLIPS: usize = 12;
const KEYS: [&str; 3] = ["C major", "G major", "A minor"];
const SPACES: [&str; 3] = ["invariant", "pitch_shift", "time_stretch"];
const TEST: std::ops::Range<usize> = 8..12;

type Columns = Vec<(&'static str, ArrayRef)>;

fn name(clip: usize) -> String {
    format!("c{clip:02}")
}

fn bpm(clip: usize) -> f64 {
    60.0 + 10.0 * clip as f64
}

fn texts(values: impl IntoIterator<Item = impl AsRef<str>>) -> ArrayRef {
    Arc::new(StringArray::from_iter_values(values))
}

fn numbers(values: impl IntoIterator<Item = f64>) -> ArrayRef {
    Arc::new(Float64Array::from_iter_values(values))
}

fn ints(values: impl IntoIterator<Item = i32>) -> ArrayRef {
    Arc::new(Int32Array::from_iter_values(values))
}

fn longs(values: impl IntoIterator<Item = i64>) -> ArrayRef {
    Arc::new(Int64Array::from_iter_values(values))
}

fn vectors<const N: usize>(rows: impl IntoIterator<Item = [f64; N]>) -> ArrayRef {
    let values: Vec<f32> = rows.into_iter().flatten().map(|value| value as f32).collect();
    let item = Arc::new(Field::new_list_field(DataType::Float32, false));
    Arc::new(FixedSizeListArray::new(item, N as i32, Arc::new(Float32Array::from(values)), None))
}

fn draw(fields: Vec<(&str, ArrayRef)>) -> ArrayRef {
    let fields: Vec<(Arc<Field>, ArrayRef)> = fields
        .into_iter()
        .map(|(name, values)| (Arc::new(Field::new(name, values.data_type().clone(), true)), values))
        .collect();
    Arc::new(StructArray::from(fields))
}

/// Writes the run. `wrong`: test clips whose key is never told. `seed`: that of its pipeline.
pub fn write(root: &Path, wrong: &[usize], seed: u64) {
    let all: Vec<usize> = (0..CLIPS).collect();
    let narrow: Columns = clips(&all).into_iter().filter(|(name, _)| *name != "split").collect();
    let mut tables: Vec<(String, Columns)> = vec![
        ("rejects".to_owned(), rejects()),
        ("receipts".to_owned(), receipts()),
        ("clips".to_owned(), narrow),
        ("split".to_owned(), clips(&all)),
        ("views".to_owned(), views()),
        ("pairs".to_owned(), views()),
        ("model".to_owned(), steps()),
        ("embeddings".to_owned(), embeddings()),
        ("embeddings_baseline".to_owned(), baseline()),
        ("loevpp_moved".to_owned(), moved()),
        ("loevpp_follows".to_owned(), responses()),
        ("loevpp_nearest".to_owned(), agreements()),
        ("loevpp_nearest_neighbours".to_owned(), neighbours()),
        ("leaks".to_owned(), leaks()),
    ];
    for stage in
        ["probes", "plain_probes", "augmented_probes", "loev_probes", "loevpp_probes", "reference_probes"]
    {
        // The reference does not know the key of c09 either.
        let wrong: Vec<usize> =
            wrong.iter().copied().chain((stage == "reference_probes").then_some(9)).collect();
        tables.push((stage.to_owned(), figures()));
        tables.push((format!("{stage}_predictions"), predictions(&wrong)));
    }
    let mut named = serde_json::Map::new();
    for (table, columns) in tables {
        let folder = root.join("tables").join(&table);
        fs::create_dir_all(&folder).unwrap();
        let batch =
            RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(n, c)| (n, c, true))).unwrap();
        let file = fs::File::create(folder.join("shard-00000.parquet")).unwrap();
        let mut writer = ArrowWriter::try_new(file, batch.schema(), None).unwrap();
        writer.write(&batch).unwrap();
        writer.close().unwrap();
        named.insert(table.clone(), format!("tables/{table}").into());
    }
    fs::write(root.join("run.json"), manifest(named, seed).to_string()).unwrap();
}

fn manifest(tables: serde_json::Map<String, serde_json::Value>, seed: u64) -> serde_json::Value {
    use serde_json::json;
    let tasks = json!([{ "key": "key" }, { "tempo": "bpm" }, { "tags": "instruments" }]);
    let mut stages = json!({
        "clips": { "synth": { "clips": CLIPS } },
        "split": { "sql": "select * from clips" },
        "views": { "views": { "from": "split" } },
        "pairs": { "views": { "from": "split" } },
        "model": { "train": { "from": "views", "steps": 10, "lr": 0.001 } },
        "embeddings": { "embed": { "from": "split", "model": "model", "baseline": true } },
        "loevpp_moved": { "embed": { "from": "pairs", "model": "model", "baseline": false } },
        "loevpp_follows": { "equivariance": { "from": "loevpp_moved" } },
        "loevpp_nearest": { "retrieve": { "from": "embeddings", "tasks": tasks, "part": "test" } },
        "leaks": { "leak": { "from": "views" } },
    });
    for stage in
        ["probes", "plain_probes", "augmented_probes", "loev_probes", "loevpp_probes", "reference_probes"]
    {
        stages[stage] = json!({ "probe": { "from": "embeddings", "tasks": tasks, "tempo_tolerance": 0.04 } });
    }
    let figure = |row: &(&str, &str, &str, f64, f64, f64)| {
        json!({ "subspace": row.0, "task": row.1, "probe": "linear", "metric": row.2, "value": row.3,
                "lo": row.3 - 0.1, "hi": row.3 + 0.1 })
    };
    json!({
        "loev": "0.1.0", "name": "toy", "status": "complete", "tables": tables,
        "machine": { "platform": "linux x86_64", "cpu": "x86-64-v3", "device": "cpu" },
        "pipeline": { "name": "toy", "seed": seed, "stages": stages },
        "stages": { "clips": { "kind": "synth", "seconds": 4.0 }, "model": { "kind": "train", "seconds": 20.0 } },
        "results": { "probes": FIGURES.iter().map(figure).collect::<Vec<_>>() },
    })
}
