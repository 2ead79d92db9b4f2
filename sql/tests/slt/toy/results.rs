//! What stages of training and evaluation say, and what the run says of itself.

use super::*;

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

pub(super) fn predictions(wrong: &[usize]) -> Columns {
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
pub(super) const FIGURES: [(&str, &str, &str, f64, f64, f64); 7] = [
    ("invariant", "key", "accuracy", 0.25, 0.25, 0.5),
    ("pitch_shift", "key", "accuracy", 0.875, 0.25, 0.5),
    ("time_stretch", "key", "accuracy", 0.25, 0.25, 0.5),
    ("invariant", "tempo", "acc1", 0.1, 0.25, 0.1),
    ("pitch_shift", "tempo", "acc1", 0.25, 0.25, 0.1),
    ("time_stretch", "tempo", "acc1", 0.75, 0.25, 0.1),
    ("all", "tags", "macro_roc_auc", 0.5, 0.5, 0.5),
];

pub(super) fn figures() -> Columns {
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
pub(super) fn steps() -> Columns {
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
pub(super) fn responses() -> Columns {
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
pub(super) fn agreements() -> Columns {
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

pub(super) fn leaks() -> Columns {
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

pub(super) fn rejects() -> Columns {
    vec![
        ("stage", texts(["clips", "clips", "views"])),
        ("clip_id", texts(["x1", "x2", "c03"])),
        ("uri", texts(["x1.wav", "x2.wav", "c03.wav"])),
        ("reason", texts(["decode", "decode", "silent"])),
        ("message", texts(["no frames", "torn", "segment 1 is silent"])),
        ("whole", Arc::new(BooleanArray::from(vec![true, true, false]))),
    ]
}

pub(super) fn receipts() -> Columns {
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
