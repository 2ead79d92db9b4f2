//! A run that is made by hand: tables of the names, columns and types that stages write, with embeddings whose answers
//! are known by construction.
//!
//! Twelve clips `c00` to `c11`; clip `i` has key `i mod 3` of C major, G major, A minor, style rock if `i` is even and
//! jazz if not, and 60 + 10 i beats per minute. The first six train, two validate, four test.
//!
//! | subspace | embedding of a clip | of a view |
//! | --- | --- | --- |
//! | `pitch_shift` | 1 in the place of its key, i / 100 in the last | (semitones, 0, 0, 0) |
//! | `time_stretch` | at the angle i / 20 in the first two places | (0, 10 ln rate, 0, 0) |
//! | `invariant` | 1 in the place of its style, i / 100 in the third; that of `c10` is that of `c04` | (1, 0, 0, 0) |
//!
//! Views of clip `i` are all pairs of -2 and `i mod 4` semitones with rates 1 and 1.1 + (`i mod 3`) / 10.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanArray, FixedSizeListArray, Float32Array, Float64Array, Int32Array, Int64Array,
    ListArray, ListBuilder, RecordBatch, StringArray, StringBuilder, StructArray, UInt64Array,
};
use arrow::datatypes::{DataType, Field, Float32Type, Float64Type, Int64Type};
use parquet::arrow::ArrowWriter;

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

/// The columns of clips, for these clips.
fn clips(of: &[usize]) -> Columns {
    let mut instruments = ListBuilder::new(StringBuilder::new());
    for clip in of {
        instruments.values().append_value("bass");
        if clip % 2 == 0 {
            instruments.values().append_value("drums");
        }
        instruments.append(true);
    }
    let beats = of.iter().map(|_| Some([0.5, 1.0].map(Some)));
    vec![
        ("clip_id", texts(of.iter().map(|clip| name(*clip)))),
        ("shard", ints(of.iter().map(|clip| (*clip % 2) as i32))),
        ("uri", texts(of.iter().map(|clip| format!("{}.wav", name(*clip))))),
        ("seconds", numbers(of.iter().map(|clip| if *clip == 11 { 2.0 } else { 10.0 }))),
        ("key", texts(of.iter().map(|clip| KEYS[clip % 3]))),
        ("mode", texts(of.iter().map(|clip| if clip % 3 == 2 { "minor" } else { "major" }))),
        ("bpm", numbers(of.iter().map(|clip| bpm(*clip)))),
        ("metre", texts(of.iter().map(|_| "4/4"))),
        ("style", texts(of.iter().map(|clip| if clip % 2 == 0 { "rock" } else { "jazz" }))),
        ("instruments", Arc::new(instruments.finish())),
        ("beats", Arc::new(ListArray::from_iter_primitive::<Float64Type, _, _>(beats))),
        (
            "split",
            texts(of.iter().map(|clip| {
                if *clip < 6 {
                    "train"
                } else if *clip < 8 {
                    "valid"
                } else {
                    "test"
                }
            })),
        ),
    ]
}

struct View {
    clip: usize,
    number: usize,
    semitones: f64,
    rate: f64,
}

fn drawn() -> Vec<View> {
    let of = |clip: usize| {
        let shifts = [-2.0, (clip % 4) as f64];
        let rates = [1.0, 1.1 + (clip % 3) as f64 / 10.0];
        (0..4).map(move |number| View {
            clip,
            number,
            semitones: shifts[number % 2],
            rate: rates[number / 2],
        })
    };
    (0..CLIPS).flat_map(of).collect()
}

/// The columns of views, for all of them.
fn views() -> Columns {
    let views = drawn();
    let of: Vec<usize> = views.iter().map(|view| view.clip).collect();
    let on = || -> ArrayRef { Arc::new(BooleanArray::from(vec![true; views.len()])) };
    let odd = |view: &View| view.number % 2 == 1;
    // Groups: all of a clip; those of one shift; those of one rate.
    let groups = views.iter().map(|view| {
        let group = |part: usize| Some((view.clip * 10 + part) as i64);
        Some([group(0), group(1 + view.number % 2), group(3 + view.number / 2)])
    });
    let mut columns =
        vec![("view_id", texts(views.iter().map(|view| format!("{}:0:0:{}", name(view.clip), view.number))))];
    columns.extend(clips(&of));
    columns.extend([
        ("segment", ints(views.iter().map(|_| 0))),
        ("epoch", ints(views.iter().map(|_| 0))),
        ("view", ints(views.iter().map(|view| view.number as i32))),
        ("centre_s", numbers(views.iter().map(|_| 2.0))),
        (
            "draw_key",
            Arc::new(UInt64Array::from_iter_values((0..views.len()).map(|row| row as u64))) as ArrayRef,
        ),
        ("groups", Arc::new(FixedSizeListArray::from_iter_primitive::<Int64Type, _, _>(groups, 3))),
        (
            "pitch_shift",
            draw(vec![("applied", on()), ("semitones", numbers(views.iter().map(|view| view.semitones)))]),
        ),
        (
            "time_stretch",
            draw(vec![("applied", on()), ("rate", numbers(views.iter().map(|view| view.rate)))]),
        ),
        (
            "gain",
            draw(vec![
                ("applied", on()),
                ("db", numbers(views.iter().map(|view| -3.0 * view.number as f64))),
            ]),
        ),
        (
            "filter",
            draw(vec![
                ("applied", Arc::new(BooleanArray::from_iter(views.iter().map(|view| Some(odd(view)))))),
                ("kind", texts(views.iter().map(|_| "low_pass"))),
            ]),
        ),
    ]);
    columns
}

fn embedding(space: &str, clip: usize) -> [f64; 4] {
    let clip = if space == "invariant" && clip == 10 { 4 } else { clip };
    let mut place = [0.0; 4];
    let angle = clip as f64 / 20.0;
    match space {
        "pitch_shift" => (place[clip % 3], place[3]) = (1.0, clip as f64 / 100.0),
        "time_stretch" => (place[0], place[1]) = (angle.cos(), angle.sin()),
        _ => (place[clip % 2], place[2]) = (1.0, clip as f64 / 100.0),
    }
    place
}

/// Mean embeddings, and two segments that lie 0.1 to either side in the first place.
fn embeddings() -> Columns {
    let rows: Vec<(&str, usize, Option<i32>)> = SPACES
        .into_iter()
        .flat_map(|space| {
            (0..CLIPS).flat_map(move |clip| [Some(0), Some(1), None].map(|segment| (space, clip, segment)))
        })
        .collect();
    let start = |segment: Option<i32>| segment.map(|segment| f64::from(segment) * 4.0);
    let vector = |(space, clip, segment): &(&str, usize, Option<i32>)| {
        let mut vector = embedding(space, *clip);
        vector[0] += segment.map_or(0.0, |segment| 0.1 - 0.2 * f64::from(segment));
        vector
    };
    vec![
        ("clip_id", texts(rows.iter().map(|(_, clip, _)| name(*clip)))),
        ("segment", Arc::new(Int32Array::from_iter(rows.iter().map(|(.., segment)| *segment)))),
        ("start_s", Arc::new(Float64Array::from_iter(rows.iter().map(|(.., segment)| start(*segment))))),
        ("subspace", texts(rows.iter().map(|(space, ..)| *space))),
        ("embedding", vectors(rows.iter().map(vector))),
    ]
}

/// Mel statistics that are the same for every clip.
fn baseline() -> Columns {
    vec![
        ("clip_id", texts((0..CLIPS).map(name))),
        ("segment", Arc::new(Int32Array::from_iter((0..CLIPS).map(|_| None)))),
        ("start_s", Arc::new(Float64Array::from_iter((0..CLIPS).map(|_| None)))),
        ("subspace", texts((0..CLIPS).map(|_| "mel_baseline"))),
        ("embedding", vectors((0..CLIPS).map(|_| [1.0, 2.0]))),
    ]
}

fn moved() -> Columns {
    let views = drawn();
    let rows: Vec<(&str, &View)> =
        views.iter().flat_map(|view| SPACES.into_iter().map(move |space| (space, view))).collect();
    let vector = |(space, view): &(&str, &View)| match *space {
        "pitch_shift" => [view.semitones, 0.0, 0.0, 0.0],
        "time_stretch" => [0.0, 10.0 * view.rate.ln(), 0.0, 0.0],
        _ => [1.0, 0.0, 0.0, 0.0],
    };
    let on = || -> ArrayRef { Arc::new(BooleanArray::from(vec![true; rows.len()])) };
    vec![
        ("view_id", texts(rows.iter().map(|(_, view)| format!("{}:0:0:{}", name(view.clip), view.number)))),
        ("clip_id", texts(rows.iter().map(|(_, view)| name(view.clip)))),
        ("segment", ints(rows.iter().map(|_| 0))),
        ("epoch", ints(rows.iter().map(|_| 0))),
        ("view", ints(rows.iter().map(|(_, view)| view.number as i32))),
        ("centre_s", numbers(rows.iter().map(|_| 2.0))),
        (
            "pitch_shift",
            draw(vec![
                ("applied", on()),
                ("semitones", numbers(rows.iter().map(|(_, view)| view.semitones))),
            ]),
        ),
        (
            "time_stretch",
            draw(vec![("applied", on()), ("rate", numbers(rows.iter().map(|(_, view)| view.rate)))]),
        ),
        ("subspace", texts(rows.iter().map(|(space, _)| *space))),
        ("embedding", vectors(rows.iter().map(vector))),
    ]
}

/// An answer of a probe about a test clip.
struct Answer {
    space: &'static str,
    task: &'static str,
    clip: usize,
    seed: i32,
    truth: String,
    prediction: String,
    confidence: f64,
}

/// The key is right from `pitch_shift`, but for the second seed on `c11` (its relative major) and for clips in `wrong`; from
/// `time_stretch` it is always C major. The tempo is 1% off from `time_stretch`, but half for `c11`; from `pitch_shift` it
/// is always 150. The tags from `pitch_shift` are always bass and drums.
fn answers(wrong: &[usize]) -> Vec<Answer> {
    let mut answers = Vec::new();
    for clip in TEST {
        for seed in 0..2 {
            let mut add = |space, task, truth: &str, prediction: String, confidence| {
                answers.push(Answer {
                    space,
                    task,
                    clip,
                    seed,
                    truth: truth.to_owned(),
                    prediction,
                    confidence,
                });
            };
            let key = KEYS[clip % 3];
            let (answer, sure) = match clip {
                _ if wrong.contains(&clip) => ("E major", 0.9),
                11 if seed == 1 => ("C major", 0.3),
                _ => (key, 0.9),
            };
            add("pitch_shift", "key", key, answer.to_owned(), sure);
            add("time_stretch", "key", key, "C major".to_owned(), 0.4);
            let tempo = format!("{}", bpm(clip));
            let near = if clip == 11 { bpm(clip) / 2.0 } else { bpm(clip) * 1.01 };
            add("time_stretch", "tempo", &tempo, format!("{near:.2}"), 0.8);
            add("pitch_shift", "tempo", &tempo, "150".to_owned(), 0.5);
            let tags = if clip % 2 == 0 { "bass,drums" } else { "bass" };
            add("pitch_shift", "tags", tags, "bass,drums".to_owned(), 0.7);
        }
    }
    answers
}

fn predictions(wrong: &[usize]) -> Columns {
    let answers = answers(wrong);
    vec![
        ("clip_id", texts(answers.iter().map(|answer| name(answer.clip)))),
        ("subspace", texts(answers.iter().map(|answer| answer.space))),
        ("task", texts(answers.iter().map(|answer| answer.task))),
        ("probe", texts(answers.iter().map(|_| "linear"))),
        ("seed", ints(answers.iter().map(|answer| answer.seed))),
        ("truth", texts(answers.iter().map(|answer| &answer.truth))),
        ("prediction", texts(answers.iter().map(|answer| &answer.prediction))),
        ("confidence", numbers(answers.iter().map(|answer| answer.confidence))),
    ]
}

/// Figures of probes: subspace, task, metric, value, chance, baseline. Intervals reach 0.1 to either side.
const FIGURES: [(&str, &str, &str, f64, f64, f64); 7] = [
    ("invariant", "key", "accuracy", 0.25, 0.25, 0.5),
    ("pitch_shift", "key", "accuracy", 0.875, 0.25, 0.5),
    ("time_stretch", "key", "accuracy", 0.25, 0.25, 0.5),
    ("invariant", "tempo", "acc1", 0.1, 0.25, 0.1),
    ("pitch_shift", "tempo", "acc1", 0.25, 0.25, 0.1),
    ("time_stretch", "tempo", "acc1", 0.75, 0.25, 0.1),
    ("all", "tags", "macro_roc_auc", 0.5, 0.5, 0.5),
];

fn figures() -> Columns {
    let count = |n: i64| longs(FIGURES.map(|_| n));
    vec![
        ("subspace", texts(FIGURES.map(|figure| figure.0))),
        ("task", texts(FIGURES.map(|figure| figure.1))),
        ("probe", texts(FIGURES.map(|_| "linear"))),
        ("metric", texts(FIGURES.map(|figure| figure.2))),
        ("value", numbers(FIGURES.map(|figure| figure.3))),
        ("lo", numbers(FIGURES.map(|figure| figure.3 - 0.1))),
        ("hi", numbers(FIGURES.map(|figure| figure.3 + 0.1))),
        ("chance", numbers(FIGURES.map(|figure| figure.4))),
        ("baseline", numbers(FIGURES.map(|figure| figure.5))),
        ("n_train", count(6)),
        ("n_valid", count(2)),
        ("n_test", count(4)),
        ("n_missing", count(0)),
        ("n_unseen", count(0)),
    ]
}

/// Ten steps whose loss falls by 0.2 each; the head of `pitch_shift` is below its floor of 1.5 from step 7 on.
fn steps() -> Columns {
    let per_step = |f: &dyn Fn(f64) -> f64| numbers((1..=10).map(|step| f(f64::from(step))));
    let falls = |from: f64| move |step: f64| from - 0.2 * step;
    vec![
        ("step", longs(1..=10)),
        ("epoch", ints((1..=10).map(|step| (step - 1) / 5))),
        ("lr", per_step(&|_| 0.001)),
        ("loss", per_step(&falls(3.0))),
        ("loss_invariant", per_step(&falls(4.0))),
        ("floor_invariant", per_step(&|_| 1.0)),
        ("loss_pitch_shift", per_step(&falls(2.8))),
        ("floor_pitch_shift", per_step(&|_| 1.5)),
        ("loss_time_stretch", per_step(&|_| 2.0)),
        ("floor_time_stretch", per_step(&|_| 1.5)),
        ("grad_norm", per_step(&|step| step)),
        ("views", ints((1..=10).map(|_| 64))),
        ("views_per_s", per_step(&|step| 60.0 + step)),
        ("wait_share", per_step(&|step| if step > 5.0 { 0.5 } else { 0.0 })),
    ]
}

/// What an equivariance stage says: semitones are told by `pitch_shift`, the rate by `time_stretch`.
fn responses() -> Columns {
    const RESPONSES: [(&str, &str, &str, f64); 6] = [
        ("invariant", "pitch_shift", "semitones", 0.0),
        ("invariant", "time_stretch", "rate", 0.05),
        ("pitch_shift", "pitch_shift", "semitones", 1.0),
        ("pitch_shift", "time_stretch", "rate", 0.0),
        ("time_stretch", "pitch_shift", "semitones", -0.1),
        ("time_stretch", "time_stretch", "rate", 0.9),
    ];
    vec![
        ("subspace", texts(RESPONSES.map(|row| row.0))),
        ("factor", texts(RESPONSES.map(|row| row.1))),
        ("parameter", texts(RESPONSES.map(|row| row.2))),
        ("measure", texts(RESPONSES.map(|_| "difference_r2"))),
        ("value", numbers(RESPONSES.map(|row| row.3))),
        ("lo", numbers(RESPONSES.map(|row| row.3 - 0.1))),
        ("hi", numbers(RESPONSES.map(|row| row.3 + 0.1))),
        ("chance", numbers(RESPONSES.map(|_| 0.0))),
        ("baseline", Arc::new(Float64Array::from(vec![None; RESPONSES.len()]))),
        ("penalty", numbers(RESPONSES.map(|_| 0.1))),
        ("n_train", longs(RESPONSES.map(|_| 36))),
        ("n_valid", longs(RESPONSES.map(|_| 12))),
        ("n_test", longs(RESPONSES.map(|_| 24))),
    ]
}

/// Agreement of labels with the nearest test clips.
fn agreements() -> Columns {
    const AGREEMENTS: [(&str, &str, &str, i32, f64); 4] = [
        ("pitch_shift", "key", "accuracy", 1, 0.5),
        ("pitch_shift", "tempo", "acc1", 1, 0.0),
        ("time_stretch", "key", "accuracy", 1, 0.0),
        ("time_stretch", "tempo", "acc1", 1, 0.25),
    ];
    vec![
        ("subspace", texts(AGREEMENTS.map(|row| row.0))),
        ("task", texts(AGREEMENTS.map(|row| row.1))),
        ("metric", texts(AGREEMENTS.map(|row| row.2))),
        ("k", ints(AGREEMENTS.map(|row| row.3))),
        ("value", numbers(AGREEMENTS.map(|row| row.4))),
        ("lo", numbers(AGREEMENTS.map(|row| row.4 - 0.05))),
        ("hi", numbers(AGREEMENTS.map(|row| row.4 + 0.05))),
        ("chance", numbers(AGREEMENTS.map(|_| 1.0 / 6.0))),
        ("baseline", Arc::new(Float64Array::from(vec![None; AGREEMENTS.len()]))),
        ("n", longs(AGREEMENTS.map(|_| 4))),
    ]
}

/// The neighbours of each test clip among the test clips, by the cosine of their embeddings.
fn neighbours() -> Columns {
    let mut rows = Vec::new();
    for space in ["pitch_shift", "time_stretch"] {
        for query in TEST {
            let cosine = |other: usize| {
                let (a, b) = (embedding(space, query), embedding(space, other));
                let dot = |x: &[f64; 4], y: &[f64; 4]| x.iter().zip(y).map(|(x, y)| x * y).sum::<f64>();
                dot(&a, &b) / (dot(&a, &a) * dot(&b, &b)).sqrt()
            };
            let mut others: Vec<usize> = TEST.filter(|other| *other != query).collect();
            others.sort_by(|a, b| cosine(*b).total_cmp(&cosine(*a)));
            rows.extend(
                others.into_iter().zip(1..).map(|(other, rank)| (space, query, rank, other, cosine(other))),
            );
        }
    }
    vec![
        ("subspace", texts(rows.iter().map(|row| row.0))),
        ("query", texts(rows.iter().map(|row| name(row.1)))),
        ("clip_id", texts(rows.iter().map(|row| name(row.1)))),
        ("rank", ints(rows.iter().map(|row| row.2))),
        ("neighbour", texts(rows.iter().map(|row| name(row.3)))),
        ("similarity", Arc::new(Float32Array::from_iter_values(rows.iter().map(|row| row.4 as f32)))),
    ]
}

fn leaks() -> Columns {
    vec![
        ("test", texts(["identity", "factor", "view"])),
        ("factor", Arc::new(StringArray::from(vec![None, Some("pitch_shift"), Some("pitch_shift")]))),
        ("parameter", Arc::new(StringArray::from(vec![None, Some("semitones"), Some("semitones")]))),
        ("cue", texts(["edges", "top", "level"])),
        ("metric", texts(["roc_auc", "r2", "r2"])),
        ("value", numbers([0.5, 0.73, -0.01])),
        ("lo", numbers([0.49, 0.6, -0.05])),
        ("hi", numbers([0.51, 0.8, 0.02])),
        ("chance", numbers([0.5, 0.0, 0.0])),
        ("control", Arc::new(Float64Array::from(vec![None, Some(0.0), Some(0.0)]))),
        ("leaks", Arc::new(BooleanArray::from(vec![false, true, false]))),
        ("n_test", longs([24, 24, 24])),
    ]
}

fn rejects() -> Columns {
    vec![
        ("stage", texts(["clips", "clips", "views"])),
        ("clip_id", texts(["x1", "x2", "c03"])),
        ("uri", texts(["x1.wav", "x2.wav", "c03.wav"])),
        ("reason", texts(["decode", "decode", "silent"])),
        ("message", texts(["no frames", "torn", "segment 1 is silent"])),
        ("whole", Arc::new(BooleanArray::from(vec![true, true, false]))),
    ]
}

fn receipts() -> Columns {
    let count = |values: [u64; 4]| -> ArrayRef { Arc::new(UInt64Array::from(values.to_vec())) };
    vec![
        ("stage", texts(["clips", "clips", "views", "model"])),
        ("table", texts(["clips", "clips", "views", "model"])),
        (
            "file",
            texts(["shard-00000.parquet", "shard-00001.parquet", "shard-00000.parquet", "model.parquet"]),
        ),
        ("rows", count([6, 6, 48, 10])),
        ("bytes", count([3_000_000, 1_000_000, 2_000_000, 500_000])),
        ("rejects", count([1, 1, 1, 0])),
        ("seconds", numbers([1.0, 3.0, 4.0, 20.0])),
        ("finished_s", numbers([101.0, 104.0, 108.0, 130.0])),
        ("digest", texts(["a", "b", "c", "d"])),
        ("recipe", texts(["r", "r", "s", "t"])),
    ]
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
