//! The same pipeline gives the same rows, whatever carries it out.

use std::collections::BTreeMap;

use crate::support::{SMALL, Workplace, table};

/// The digests of every file of a run, from its receipts.
fn digests(here: &Workplace, run: &str, tables: &str) -> BTreeMap<String, String> {
    let query =
        format!("select \"table\" || '/' || file, digest from receipts where \"table\" in ({tables})");
    here.sql(run, &query)
        .iter()
        .map(|line| line.split_once(',').map(|(file, digest)| (file.to_owned(), digest.to_owned())).unwrap())
        .collect()
}

#[test]
fn threads_change_neither_draws_nor_batches_nor_embeddings() {
    let here = Workplace::new();
    here.write("small.yaml", SMALL.split("  probes:").next().unwrap());
    for threads in ["1", "2", "7"] {
        here.done(&["run", "small.yaml", "--out", threads, "--threads", threads]);
    }
    let tables = "'clips', 'split', 'views', 'embeddings', 'embeddings_baseline'";
    let one = digests(&here, "1", tables);
    assert!(one.len() > 20, "{one:?}");
    for threads in ["2", "7"] {
        assert_eq!(one, digests(&here, threads, tables), "files of {threads} threads");
    }

    // Equal batches: the loss of every step is equal to the last digit, and so are the final weights.
    let losses = "select step, loss, loss_pitch_shift, loss_time_stretch, grad_norm from model order by step";
    assert_eq!(here.sql("1", losses), here.sql("7", losses));
    let weights = |run: &str| std::fs::read(here.path(run).join("checkpoints/model.safetensors")).unwrap();
    assert!(weights("1") == weights("2"), "equal checkpoints");
}

/// Files to stored audio to stored features.
const PREPROCESS: &str = "
name: preprocess
seed: 3
stages:
  clips: { files: { path: music, shards: 5 } }
  views:
    views:
      from: clips
      seconds: 1
      segments: 2
      epochs: 2
      materialize: true
      base: [ {gain: {db: [-15, 5]}}, {colored_noise: {snr_db: [3, 30]}}, {filter: {}} ]
      variant: [ {pitch_shift: {semitones: [-4, 4]}}, {time_stretch: {rate: [0.7, 1.3]}} ]
  stored: { features: { from: views, front_end: { mels: 40 } } }
  clean: { features: { from: clips, seconds: 1, hop: 0.5, front_end: { mels: 40 } } }
";

#[test]
fn preprocessing_gives_equal_files_with_any_threads_and_batches() {
    let here = Workplace::new();
    for (i, hz) in [110.0, 155.6, 220.0, 311.1, 440.0, 622.3, 880.0].into_iter().enumerate() {
        here.write(&format!("music/{i}.wav"), crate::support::tone(3.0 + 0.5 * i as f64, hz));
    }
    here.write("music/broken.wav", "RIFF of nothing");
    here.write("p.yaml", PREPROCESS);
    let mut first = None;
    for (threads, rows) in [("1", "1"), ("2", "7"), ("7", "64"), ("2", "4096")] {
        let out = format!("{threads}-{rows}");
        here.done(&["run", "p.yaml", "--out", &out, "--threads", threads, "--batch-rows", rows]);
        let results = here.results(&out);
        // Five files each of clips and clean features; of views, audio and features for two epochs; rejects by stage.
        assert_eq!(results.len(), 5 + 5 + 3 * 10 + 4, "{:?}", results.keys());
        match &first {
            None => first = Some(results),
            Some(first) => {
                let different: Vec<&String> =
                    results.keys().filter(|name| first.get(*name) != results.get(*name)).collect();
                assert!(different.is_empty(), "with {threads} threads and {rows} rows: {different:?}");
            }
        }
    }
    // Stored features are those of the stored views, and joined with them by name.
    let rows = here.sql("1-1", "select count(*) from views v join stored s on v.view_id = s.view_id");
    assert_eq!(rows, ["112"], "7 clips, 2 segments, 2 epochs, 4 views");
    assert_eq!(here.sql("1-1", "select clip_id, reason from rejects"), ["broken.wav,unsupported"]);
    // 3 s in steps of half a second and segments of one; the last is moved back by the margin it is read with.
    assert_eq!(here.sql("1-1", "select count(*) from clean where clip_id = '0.wav'"), ["5"]);
}

#[test]
fn features_of_stored_audio_are_those_of_rendering() {
    let here = Workplace::new();
    here.write("music/a.wav", crate::support::tone(4.0, 220.0));
    here.write("p.yaml", PREPROCESS);
    here.done(&["run", "p.yaml", "--out", "stored"]);
    let set = "stages.views.views.materialize=false";
    here.done(&["run", "p.yaml", "--out", "rendered", "--set", set]);
    let features = |run: &str| table(&here.path(run), "stored");
    assert_eq!(features("stored"), features("rendered"));
}

#[test]
fn another_seed_gives_other_draws() {
    let here = Workplace::new();
    here.write("views.yaml", SMALL.split("  model:").next().unwrap());
    for seed in ["5", "6"] {
        here.done(&[
            "run",
            "views.yaml",
            "--out",
            seed,
            "--set",
            &format!("seed={seed}"),
            "--set",
            "stages.clips.synth.seed=1",
        ]);
    }
    assert_eq!(digests(&here, "5", "'clips'"), digests(&here, "6", "'clips'"));
    assert_ne!(digests(&here, "5", "'views'"), digests(&here, "6", "'views'"));
}
