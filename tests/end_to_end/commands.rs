//! What the command line says, and its exit codes.

use crate::support::{SMALL, Workplace, errors};

#[test]
fn a_mistake_in_the_pipeline_points_at_its_place() {
    let here = Workplace::new();
    here.write("typo.yaml", SMALL.replace("semitones:", "semitone:"));
    let output = here.loev(&["run", "typo.yaml"]);
    assert_eq!(output.status.code(), Some(2));
    let text = errors(&output);
    for part in ["typo.yaml:15:33", "semitone", "did you mean `semitones`"] {
        assert!(text.contains(part), "no `{part}` in:\n{text}");
    }
    assert!(!here.path("runs").exists(), "nothing ran");
}

#[test]
fn a_query_of_a_missing_table_is_refused_before_any_work() {
    let here = Workplace::new();
    here.write("p.yaml", SMALL.replace("from clips", "from clip"));
    let output = here.loev(&["check", "p.yaml"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(errors(&output).contains("clips"), "{}", errors(&output));
}

#[test]
fn plan_says_what_each_stage_reads_and_writes() {
    let here = Workplace::new();
    here.write("small.yaml", SMALL);
    let plan = here.done(&["plan", "small.yaml"]);
    for line in [
        "reads   split",
        "does    scan > Batch > Render > lanes > trainer",
        "writes  tables/embeddings, tables/embeddings_baseline",
        "writes  tables/model, checkpoints/model.safetensors",
    ] {
        assert!(plan.contains(line), "no `{line}` in:\n{plan}");
    }
}

#[test]
fn a_directory_of_something_else_is_not_overwritten() {
    let here = Workplace::new();
    here.write("small.yaml", SMALL);
    here.write("precious/notes.txt", "mine");
    let output = here.loev(&["run", "small.yaml", "--out", "precious"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(errors(&output).contains("--out"), "{}", errors(&output));
    assert!(here.path("precious/notes.txt").exists());
}

#[test]
fn operators_and_schema_come_from_one_definition() {
    let here = Workplace::new();
    let ops = here.done(&["ops"]);
    for name in ["gain", "polarity", "colored_noise", "filter", "pitch_shift", "time_stretch"] {
        assert!(ops.contains(name), "{ops}");
    }
    assert!(here.done(&["ops", "pitch_shift"]).contains("semitones"));
    assert_eq!(here.loev(&["ops", "pich_shift"]).status.code(), Some(2));
    let schema: serde_json::Value = serde_json::from_str(&here.done(&["schema"])).unwrap();
    assert!(schema.to_string().contains("semitones"));
}

#[test]
fn a_wrong_query_gets_a_caret_and_exit_code_1() {
    let here = Workplace::new();
    here.write("clips.yaml", SMALL.split("  split:").next().unwrap());
    here.done(&["run", "clips.yaml", "--out", "out"]);
    let output = here.loev(&["sql", "out", "select kez from clips"]);
    assert_eq!(output.status.code(), Some(1));
    let text = errors(&output);
    assert!(text.contains('^') && text.contains("key"), "{text}");
    assert_eq!(here.loev(&["sql", "nowhere", "select 1"]).status.code(), Some(1));
}

#[test]
fn a_gpu_that_is_not_there_is_told_and_nothing_falls_back() {
    let here = Workplace::new();
    here.write("small.yaml", SMALL);
    for arguments in [&["bench", "gpu"][..], &["run", "small.yaml", "--device", "cuda:0"]] {
        let output = here.loev(arguments);
        assert_eq!(output.status.code(), Some(1));
        assert!(errors(&output).contains("--features cuda"), "{}", errors(&output));
    }
    assert_eq!(here.loev(&["bench", "gpu", "--seconds", "0"]).status.code(), Some(2));
}

#[test]
fn unusable_options_say_what_to_do() {
    let here = Workplace::new();
    here.write("small.yaml", SMALL);
    for (set, hint) in [
        ("stages.model.train.batch=30", "multiple"),
        ("stages.model.train.front_end.sample_rate=22050", "16000"),
        ("stages.clips.synth.clips=3", "segments"),
    ] {
        let output = here.loev(&["run", "small.yaml", "--set", set]);
        assert!(!output.status.success(), "{set} was accepted");
        assert!(errors(&output).contains(hint), "{set}: no `{hint}` in:\n{}", errors(&output));
    }
}
