//! Processes that are killed, run out of disk, are interrupted or panic; and the runs that go on after them.

use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use crate::support::{SMALL, Workplace, errors};

/// Clips to stored audio to stored features.
const STORED: &str = "
name: stored
seed: 11
stages:
  clips: { synth: { clips: 24, seconds: 5, shards: 6 } }
  views:
    views:
      from: clips
      seconds: 1
      epochs: 2
      materialize: true
      base: [ {gain: {db: [-15, 5]}}, polarity, {filter: {}} ]
      variant: [ {pitch_shift: {semitones: [-4, 4]}} ]
  mels: { features: { from: views, front_end: { mels: 32 } } }
";

/// A training of many small steps, with states often.
const TRAINING: &str = "
name: training
seed: 5
stages:
  clips: { synth: { clips: 30, seconds: 6, shards: 4 } }
  views:
    views: { from: clips, seconds: 1, base: [ {gain: {db: [-15, 5]}} ], variant: [ {pitch_shift: {semitones: [-4, 4]}} ] }
  model:
    train:
      from: views
      encoder: { vit: { dim: 16, depth: 2, heads: 2, patch_frames: 5 } }
      front_end: { window: 1024, hop: 320, fft: 1024, mels: 32 }
      batch: 16
      steps: 60
      warmup: 10
      shuffle_window: 10
      ema: 0.9
      mask: 0.2
      checkpoints: { every: 7 }
";

/// Random numbers that are the same in every run of the tests.
struct Random(u64);

impl Random {
    /// From 0 to 1.
    fn next(&mut self) -> f64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 11) as f64 / (1_u64 << 53) as f64
    }
}

/// Starts the pipeline and kills it after `seconds`. Whether it was still at work.
fn killed(here: &Workplace, pipeline: &str, seconds: f64) -> bool {
    let mut child: Child = here
        .command(&["run", pipeline, "--out", "out"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    std::thread::sleep(Duration::from_secs_f64(seconds));
    let running = child.try_wait().unwrap().is_none();
    child.kill().ok();
    child.wait().unwrap();
    running
}

/// Kills a pipeline at `kills` random moments, and compares what comes out in the end with `reference`.
fn survives(text: &str, kills: usize) {
    let here = Workplace::new();
    here.write("p.yaml", text);
    let started = Instant::now();
    here.done(&["run", "p.yaml", "--out", "whole"]);
    let whole = started.elapsed().as_secs_f64();
    let reference = here.results("whole");
    let (mut random, mut done, mut rounds) = (Random(42), 0, 0);
    while done < kills {
        if killed(&here, "p.yaml", whole * random.next()) {
            done += 1;
            // Several kills to a run, so that runs are also killed while they go on.
            if random.next() < 0.7 {
                continue;
            }
        }
        here.done(&["run", "p.yaml", "--out", "out"]);
        let results = here.results("out");
        let different: Vec<&String> =
            reference.keys().filter(|name| reference.get(*name) != results.get(*name)).collect();
        assert!(different.is_empty(), "after {done} kills: {different:?}");
        // What is left of a killed process: nothing.
        assert_eq!(results.keys().collect::<Vec<_>>(), reference.keys().collect::<Vec<_>>());
        std::fs::remove_dir_all(here.path("out")).unwrap();
        rounds += 1;
    }
    assert!(rounds > 1, "several runs came to their end");
}

#[test]
fn preprocessing_killed_at_random_moments_ends_with_equal_files() {
    survives(STORED, 38);
}

#[test]
fn training_killed_at_random_moments_ends_with_equal_weights() {
    survives(TRAINING, 12);
}

/// Every place where a file comes to be, and each way to fail there.
#[test]
fn a_failure_at_any_step_of_the_writer_loses_nothing() {
    let here = Workplace::new();
    here.write("p.yaml", STORED);
    here.done(&["run", "p.yaml", "--out", "whole"]);
    let reference = here.results("whole");
    let places = [
        "table.create:9",
        "table.write:9",
        "table.sync:9",
        "table.rename:9",
        "table.renamed:9",
        "receipt.write:9",
        "receipt.sync:9",
        "file.create:4",
        "file.write:4",
        "file.rename:4",
    ];
    for (i, place) in places.iter().enumerate() {
        // A full disk and a missing permission at some of them, a kill at each.
        let ways: &[&str] = if i % 2 == 0 { &["kill", "full"] } else { &["kill", "denied"] };
        for way in ways {
            let fault = format!("{place}:{way}");
            let failed = here.with_fault(&fault, &["run", "p.yaml", "--out", "out"]);
            assert!(!failed.status.success(), "{fault} did not fail");
            if *way != "kill" {
                assert_eq!(failed.status.code(), Some(1), "{fault}: {}", errors(&failed));
                assert!(errors(&failed).contains("cannot"), "{fault}: {}", errors(&failed));
            }
            here.done(&["run", "p.yaml", "--out", "out"]);
            assert!(here.results("out") == reference, "after {fault}");
            std::fs::remove_dir_all(here.path("out")).unwrap();
        }
    }
}

#[test]
fn a_failure_while_a_state_is_written_loses_no_step() {
    let here = Workplace::new();
    here.write("p.yaml", TRAINING);
    here.done(&["run", "p.yaml", "--out", "whole"]);
    let reference = here.results("whole");
    let steps = "select step, epoch, loss, grad_norm from model order by step";
    let losses = here.sql("whole", steps);
    assert_eq!(losses.len(), 60);
    for fault in ["curve.save:3:kill", "state.save:3:full", "state.saved:5:kill", "model.save:1:kill"] {
        let failed = here.with_fault(fault, &["run", "p.yaml", "--out", "out"]);
        assert!(!failed.status.success(), "{fault} did not fail");
        let again = here.loev(&["run", "p.yaml", "--out", "out", "--log", "json"]);
        assert!(again.status.success(), "{}", errors(&again));
        assert!(errors(&again).contains("training goes on from a state"), "{}", errors(&again));
        assert!(here.results("out") == reference, "after {fault}");
        assert_eq!(here.sql("out", steps), losses, "every step once, after {fault}");
        std::fs::remove_dir_all(here.path("out")).unwrap();
    }
}

#[test]
fn a_damaged_state_is_passed_over() {
    let here = Workplace::new();
    here.write("p.yaml", TRAINING);
    here.done(&["run", "p.yaml", "--out", "whole"]);
    here.with_fault("state.saved:5:kill", &["run", "p.yaml", "--out", "out"]);
    let states = || {
        let files = std::fs::read_dir(here.path("out/checkpoints/model")).unwrap();
        let mut files: Vec<_> = files.map(|f| f.unwrap().path()).collect();
        files.retain(|path| path.to_string_lossy().contains("step-"));
        files.sort();
        files
    };
    let newest = states().pop().unwrap();
    let bytes = std::fs::read(&newest).unwrap();
    std::fs::write(&newest, &bytes[..bytes.len() / 2]).unwrap();
    let again = here.loev(&["run", "p.yaml", "--out", "out"]);
    assert!(errors(&again).contains("a state cannot be used"), "{}", errors(&again));
    assert!(here.results("out") == here.results("whole"));
    assert!(!newest.exists());
}

#[cfg(unix)]
#[test]
fn an_interrupt_ends_with_130_and_the_run_goes_on() {
    let here = Workplace::new();
    here.write("p.yaml", TRAINING.replace("steps: 60", "steps: 150"));
    let child = here
        .command(&["run", "p.yaml", "--out", "out"])
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let states = here.path("out/checkpoints/model");
    let state = |entry: std::io::Result<std::fs::DirEntry>| {
        entry.is_ok_and(|entry| entry.file_name().to_string_lossy().starts_with("step-"))
    };
    let deadline = Instant::now() + Duration::from_secs(120);
    while !std::fs::read_dir(&states).is_ok_and(|mut files| files.any(state)) && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(10));
    }
    let kill = std::process::Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(kill.success());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130), "{}", errors(&output));
    let manifest = std::fs::read_to_string(here.path("out/run.json")).unwrap();
    assert!(manifest.contains("\"status\": \"interrupted\""), "{manifest}");
    let again = here.loev(&["run", "p.yaml", "--out", "out", "--log", "json"]);
    assert!(
        again.status.success() && errors(&again).contains("training goes on from a state"),
        "{}",
        errors(&again)
    );
    here.done(&["run", "p.yaml", "--out", "whole"]);
    assert!(here.results("out") == here.results("whole"));
}

#[test]
fn a_second_run_in_one_directory_is_refused() {
    let here = Workplace::new();
    here.write("p.yaml", TRAINING.replace("steps: 60", "steps: 100000"));
    let mut first = here
        .command(&["run", "p.yaml", "--out", "out"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let deadline = Instant::now() + Duration::from_secs(60);
    while !here.path("out/run.json").exists() && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(10));
    }
    let second = here.loev(&["run", "p.yaml", "--out", "out"]);
    first.kill().unwrap();
    first.wait().unwrap();
    assert_eq!(second.status.code(), Some(1));
    assert!(errors(&second).contains("another process is working on this run"), "{}", errors(&second));
    here.done(&["run", "p.yaml", "--out", "out", "--set", "stages.model.train.steps=2"]);
}

#[test]
fn a_panic_of_a_worker_costs_one_clip() {
    let here = Workplace::new();
    here.write("p.yaml", STORED);
    let output = here.with_fault("render:5:panic", &["run", "p.yaml", "--out", "out", "--threads", "1"]);
    assert!(output.status.success(), "{}", errors(&output));
    let rejects = here.sql("out", "select stage, reason from rejects");
    assert_eq!(rejects, ["views,panicked"]);
    let left = here.sql("out", "select count(*) from views_audio");
    assert_eq!(left, ["188"], "the four views of one segment are missing");
}

#[test]
fn one_object_a_line_in_the_json_log() {
    let here = Workplace::new();
    here.write("p.yaml", SMALL.split("  model:").next().unwrap());
    let output =
        here.loev(&["--log", "json", "--log-level", "loev_pipeline=debug", "run", "p.yaml", "--out", "out"]);
    let text = errors(&output);
    let events: Vec<serde_json::Value> =
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let shards = events.iter().filter(|event| event["message"] == "shard written").count();
    assert!(shards > 4, "{text}");
    let stage =
        events.iter().find(|event| event["message"] == "finished" && event["stage"] == "views").unwrap();
    assert!(stage["rows"].as_u64().is_some_and(|rows| rows > 0) && stage["seconds"].is_number(), "{stage}");

    // A failure is an object too.
    let output = here
        .loev(&["--log", "json", "run", "p.yaml", "--out", "out", "--memory", "256MiB", "--force", "moon"]);
    let failure: serde_json::Value = serde_json::from_str(errors(&output).trim()).unwrap();
    assert!(failure["error"].as_str().is_some_and(|error| error.contains("no stage `moon`")), "{failure}");
}
