//! Manifests: labels joined by column, missing files, faults in the manifest itself.

use crate::support::{Workplace, errors, tone};

fn pipeline(path: &str, more: &str) -> String {
    format!("name: manifest\nstages:\n  clips: {{ files: {{ path: {path}, {more} }} }}\n")
}

#[test]
fn labels_come_with_their_files() {
    let here = Workplace::new();
    here.write("data/a/one.wav", tone(1.0, 440.0));
    here.write("data/two.wav", tone(2.0, 220.0));
    here.write(
        "data/list.csv",
        "file,key,tempo\na/one.wav,A minor,120.5\ntwo.wav,,90\ngone.wav,C major,100\n",
    );
    here.write("p.yaml", pipeline("data/list.csv", "audio: file, labels: {key: key, bpm: tempo}"));
    here.done(&["run", "p.yaml", "--out", "out"]);
    let clips =
        here.sql("out", "select clip_id, key, bpm, rate, round(seconds, 3) from clips order by clip_id");
    assert_eq!(clips, ["a/one.wav,A minor,120.5,22050,1.0", "two.wav,,90.0,22050,2.0"]);
    assert_eq!(here.sql("out", "select clip_id, reason from rejects"), ["gone.wav,missing"]);

    let lines =
        "{\"path\": \"a/one.wav\", \"tags\": [\"tone\", \"pure\"]}\n{\"path\": \"two.wav\", \"tags\": []}\n";
    here.write("data/list.jsonl", lines);
    here.write("p.yaml", pipeline("data/list.jsonl", ""));
    here.done(&["run", "p.yaml", "--out", "out"]);
    let tags = here.sql("out", "select clip_id, array_length(tags) from clips order by clip_id");
    assert_eq!(tags[0], "a/one.wav,2");
}

#[test]
fn a_manifest_without_the_audio_column_says_which_columns_it_has() {
    let here = Workplace::new();
    here.write("list.csv", "filename,key\none.wav,C\n");
    here.write("p.yaml", pipeline("list.csv", ""));
    let output = here.loev(&["run", "p.yaml", "--out", "out"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(errors(&output).contains("`filename`"), "{}", errors(&output));
}

#[test]
fn an_unreadable_manifest_and_a_missing_folder_are_errors() {
    let here = Workplace::new();
    here.write("list.parquet", "not parquet at all");
    for path in ["list.parquet", "nowhere", "nowhere.csv", "none/*.wav"] {
        here.write("p.yaml", pipeline(&format!("'{path}'"), ""));
        let output = here.loev(&["run", "p.yaml", "--out", "out"]);
        assert_eq!(output.status.code(), Some(1), "{path}: {}", errors(&output));
        assert!(
            errors(&output).contains(path.split('*').next().unwrap().trim_end_matches('/')),
            "{}",
            errors(&output)
        );
    }
}
