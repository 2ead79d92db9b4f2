//! `loev verify`: runs that are what they say, and runs that are not.

use std::fs;

use crate::support::{SMALL, Workplace, tone};

const MATERIALISED: &str = "
name: m
stages:
  clips: { synth: { clips: 12, seconds: 6, shards: 3 } }
  split: { sql: \"select *, case when shard = 0 then 'test' else 'train' end as split from clips\" }
  views:
    views: { from: split, seconds: 1, epochs: 2, materialize: true, base: [ {gain: {}} ], variant: [ {pitch_shift: {}} ] }
";

#[test]
fn a_finished_run_is_what_it_says_and_damage_is_named() {
    let here = Workplace::new();
    here.write("m.yaml", MATERIALISED);
    here.done(&["run", "m.yaml", "--out", "out"]);
    let report = here.done(&["verify", "out"]);
    for line in
        ["manifest", "files", "view_id in `views`", "`views` with `split`", "equal to the stored audio"]
    {
        assert!(report.contains(line), "no `{line}` in:\n{report}");
    }
    assert!(!report.contains("FAULT"), "{report}");

    let verify = || {
        let output = here.loev(&["verify", "out"]);
        assert_eq!(output.status.code(), Some(1), "damage was not found");
        let report = String::from_utf8(output.stdout).unwrap();
        report.lines().filter(|line| line.starts_with("FAULT")).collect::<Vec<_>>().join("\n")
    };
    // A byte of one column.
    let file = here.path("out/tables/views_audio/epoch-0001.shard-00002.parquet");
    let good = fs::read(&file).unwrap();
    let mut bad = good.clone();
    let middle = good.len() / 2;
    bad[middle] ^= 1;
    fs::write(&file, &bad).unwrap();
    let faults = verify();
    assert!(
        faults.contains("views_audio/epoch-0001.shard-00002.parquet") && faults.contains("in audio"),
        "{faults}"
    );
    fs::write(&file, &good[..good.len() - 1]).unwrap();
    assert!(verify().contains("bytes, where there were"));
    fs::remove_file(&file).unwrap();
    assert!(verify().contains("views_audio/epoch-0001.shard-00002.parquet"));
    fs::write(&file, &good).unwrap();
    // A file that nobody made.
    let stranger = here.path("out/tables/clips/shard-00009.parquet");
    fs::copy(here.path("out/tables/clips/shard-00000.parquet"), &stranger).unwrap();
    assert!(verify().contains("clips/shard-00009.parquet: no receipt"));
    fs::remove_file(stranger).unwrap();
    // A receipt that was changed.
    let receipts = here.path("out/receipts/views.jsonl");
    let text = fs::read_to_string(&receipts).unwrap();
    fs::write(&receipts, text.replacen("\"rows\":", "\"rows\": ", 1)).unwrap();
    assert!(verify().contains("`views`"));
    fs::write(&receipts, text).unwrap();
    assert!(!here.done(&["verify", "out"]).contains("FAULT"));
}

#[test]
fn a_recording_in_two_splits_is_a_leak() {
    let here = Workplace::new();
    here.write("music/train.wav", tone(2.0, 440.0));
    here.write("music/test.wav", tone(2.0, 440.0));
    here.write(
        "p.yaml",
        "
name: p
stages:
  clips: { files: { path: music } }
  split: { sql: \"select *, replace(clip_id, '.wav', '') as split from clips\" }
",
    );
    here.done(&["run", "p.yaml", "--out", "out"]);
    let output = here.loev(&["verify", "out"]);
    let report = String::from_utf8(output.stdout).unwrap();
    assert!(report.contains("1 recordings (equal files) of `split` in more than one split"), "{report}");
    fs::write(here.path("music/test.wav"), tone(2.0, 441.0)).unwrap();
    let report = String::from_utf8(here.loev(&["verify", "out"]).stdout).unwrap();
    assert!(report.contains("test.wav: the file is another"), "{report}");
}

#[test]
fn two_runs_are_compared_by_their_manifests() {
    let here = Workplace::new();
    here.write("small.yaml", SMALL);
    here.done(&["run", "small.yaml", "--out", "a"]);
    here.done(&["run", "small.yaml", "--out", "b", "--threads", "1"]);
    fs::copy(here.path("b/run.json"), here.path("theirs.json")).unwrap();
    let report = here.done(&["verify", "a", "--against", "theirs.json"]);
    for line in
        ["equal options and seeds", "`embeddings`: equal files", "figures of `probes` within the intervals"]
    {
        assert!(report.contains(line), "no `{line}` in:\n{report}");
    }
    here.done(&["run", "small.yaml", "--out", "b", "--set", "seed=6"]);
    let output = here.loev(&["verify", "a", "--against", "b"]);
    assert_eq!(output.status.code(), Some(1));
    let report = String::from_utf8(output.stdout).unwrap();
    for line in ["there -> here: seed: 6 -> 5", "`views`: equal rows in number, other content"] {
        assert!(report.contains(line), "no `{line}` in:\n{report}");
    }
    // The manifest says what it takes to make the run again.
    let manifest: serde_json::Value =
        serde_json::from_str(&fs::read_to_string(here.path("a/run.json")).unwrap()).unwrap();
    assert_eq!(manifest["operators"]["pitch_shift"], 2);
    assert_eq!(manifest["pipeline"]["seed"], 5);
    assert!(manifest["machine"]["cpu"].as_str().is_some_and(|cpu| !cpu.is_empty()));
    assert!(manifest["results"]["probes"].as_array().is_some_and(|figures| figures.len() > 10));
}
