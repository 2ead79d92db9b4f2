//! What is made again, and why; what is not.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::support::{SMALL, Workplace, errors, tone};

/// When each file of each table was finished, by stage.
fn finished(here: &Workplace, run: &str) -> BTreeMap<String, Vec<String>> {
    let query = "select stage, \"table\" || '/' || file || ' ' || finished_s from receipts order by 1, 2";
    let mut stages: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for line in here.sql(run, query) {
        let (stage, rest) = line.split_once(',').unwrap();
        stages.entry(stage.to_owned()).or_default().push(rest.to_owned());
    }
    stages
}

/// The stages of which at least one file was made anew.
fn made_again(before: &BTreeMap<String, Vec<String>>, after: &BTreeMap<String, Vec<String>>) -> Vec<String> {
    after
        .iter()
        .filter(|(stage, files)| before.get(*stage) != Some(files))
        .map(|(stage, _)| stage.clone())
        .collect()
}

/// The state that `loev plan` tells of each stage.
fn states(here: &Workplace, arguments: &[&str]) -> BTreeMap<String, String> {
    let plan = here.done(&[&["plan", "small.yaml", "--out", "out"], arguments].concat());
    let mut stage = String::new();
    let mut states = BTreeMap::new();
    for line in plan.lines() {
        match line.trim_start().strip_prefix("state   ") {
            Some(state) => {
                states.insert(stage.clone(), state.to_owned());
            }
            None if !line.starts_with(' ') => stage = line.split(' ').next().unwrap_or_default().to_owned(),
            None => {}
        }
    }
    states
}

#[test]
fn a_changed_range_makes_again_what_depends_on_it_as_the_plan_said() {
    let here = Workplace::new();
    here.write("small.yaml", SMALL);
    assert!(states(&here, &[]).values().all(|state| !state.contains("up to date")));
    here.done(&["run", "small.yaml", "--out", "out"]);
    let before = (finished(&here, "out"), here.results("out"));

    assert!(here.done(&["run", "small.yaml", "--out", "out"]).contains("nothing to do: all 6 stages"));
    assert!(states(&here, &[]).values().all(|state| state.starts_with("up to date")));
    assert_eq!((finished(&here, "out"), here.results("out")), before);

    let change = ["--set", "stages.views.views.variant.0.pitch_shift.semitones=[-3, 3]"];
    let states = states(&here, &change);
    assert!(states["clips"].starts_with("up to date") && states["split"].starts_with("up to date"));
    let why = "options.variant[0].pitch_shift.semitones.uniform: [-4.0,4.0] -> [-3.0,3.0]";
    assert!(states["views"].contains(why), "{states:?}");
    assert_eq!(states["model"], "to do, as far as these change it: views");
    assert_eq!(states["probes"], "to do, as far as these change it: embeddings");
    here.done(&[&["run", "small.yaml", "--out", "out"][..], &change].concat());
    let after = finished(&here, "out");
    assert_eq!(made_again(&before.0, &after), ["embeddings", "model", "probes", "views"]);

    // Back to where it was: as if it had never been changed.
    here.done(&["run", "small.yaml", "--out", "out"]);
    assert_eq!(here.results("out"), before.1);
}

#[test]
fn stages_can_be_made_again_by_name() {
    let here = Workplace::new();
    here.write("small.yaml", SMALL.split("  probes:").next().unwrap());
    here.done(&["run", "small.yaml", "--out", "out"]);
    let first = finished(&here, "out");
    // Equal files come out of it, so nothing that reads them is made again.
    here.done(&["run", "small.yaml", "--out", "out", "--force", "views"]);
    let second = finished(&here, "out");
    assert_eq!(made_again(&first, &second), ["views"]);
    let states = states(&here, &["--from", "model"]);
    assert!(states["views"].starts_with("up to date") && states["model"].contains("it was asked for"));
    here.done(&["run", "small.yaml", "--out", "out", "--from", "model"]);
    assert_eq!(made_again(&second, &finished(&here, "out")), ["embeddings", "model"]);
    let output = here.loev(&["run", "small.yaml", "--out", "out", "--force", "moddel"]);
    assert!(errors(&output).contains("there is no stage `moddel`"), "{}", errors(&output));
}

#[test]
fn more_steps_draw_only_the_epochs_that_are_missing() {
    let here = Workplace::new();
    here.write("small.yaml", SMALL.split("  embeddings:").next().unwrap());
    here.done(&["run", "small.yaml", "--out", "out"]);
    let before = finished(&here, "out")["views"].clone();
    let more = ["stages.model.train.steps=10", "stages.model.train.learn_temperature=true"];
    here.done(&["run", "small.yaml", "--out", "out", "--set", more[0], "--set", more[1]]);
    // Learned temperatures stand in the curve, from where they began.
    let learned = "select count(*), abs(first_value(temperature_pitch_shift order by step) - 0.1) < 1e-6,
                   count(distinct temperature_pitch_shift) > 5 from model";
    assert_eq!(here.sql("out", learned), ["10,true,true"]);
    let after = finished(&here, "out")["views"].clone();
    assert!(
        after.len() > before.len() && before.iter().all(|file| after.contains(file)),
        "{before:?} {after:?}"
    );
}

const LABELLED: &str = "
name: labelled
stages:
  clips: { files: { path: music/list.csv, shards: 4 } }
  views: { views: { from: clips, seconds: 1, epochs: 1, variant: [ {pitch_shift: {}} ] } }
  model:
    train:
      from: views
      encoder: { vit: { dim: 16, depth: 2, heads: 2, patch_frames: 5 } }
      front_end: { mels: 32 }
      batch: 8
      steps: 2
  embeddings: { embed: { from: clips, model: model } }
  styles:
    sql: select c.style, count(*) as n from clips c join embeddings e on c.clip_id = e.clip_id group by c.style order by 1
";

#[test]
fn labels_and_files_reach_exactly_what_reads_them() {
    let here = Workplace::new();
    let list = |style: &str| format!("path,style\na.wav,jazz\nb.wav,{style}\nc.wav,rock\nd.wav,jazz\n");
    for (name, hz) in [("a", 220.0), ("b", 330.0), ("c", 440.0), ("d", 550.0)] {
        here.write(&format!("music/{name}.wav"), tone(3.0, hz));
    }
    here.write("music/list.csv", list("rock"));
    here.write("p.yaml", LABELLED);
    here.done(&["run", "p.yaml", "--out", "out"]);
    let first = finished(&here, "out");

    // A label: the table of clips and what copies it, but no model and no embedding hears it.
    here.write("music/list.csv", list("folk"));
    here.done(&["run", "p.yaml", "--out", "out"]);
    let second = finished(&here, "out");
    assert_eq!(made_again(&first, &second), ["clips", "styles", "views"]);
    let shards = |stage: &str| second[stage].iter().filter(|file| !first[stage].contains(file)).count();
    assert_eq!((shards("clips"), shards("views")), (1, 1), "one shard holds the clip");

    // A file that is touched is looked at again, and nothing comes of it.
    std::thread::sleep(Duration::from_millis(20));
    here.write("music/c.wav", tone(3.0, 440.0));
    here.done(&["run", "p.yaml", "--out", "out"]);
    let third = finished(&here, "out");
    assert_eq!(made_again(&second, &third), ["clips"]);

    // Another recording under the same name is another recording.
    here.write("music/c.wav", tone(3.0, 470.0));
    here.done(&["run", "p.yaml", "--out", "out"]);
    let fourth = finished(&here, "out");
    assert_eq!(made_again(&third, &fourth), ["clips", "embeddings", "model", "styles", "views"]);
    let embedded: Vec<_> = fourth["embeddings"].iter().filter(|f| !third["embeddings"].contains(f)).collect();
    assert_eq!(embedded.len(), 4 + 1, "a new model embeds all shards; of the baseline one has changed");

    // A file that is gone is a reject, and its rows go everywhere.
    std::fs::remove_file(here.path("music/a.wav")).unwrap();
    here.done(&["run", "p.yaml", "--out", "out"]);
    assert_eq!(here.sql("out", "select clip_id, reason from rejects"), ["a.wav,missing"]);
    assert_eq!(here.sql("out", "select count(*) from embeddings where clip_id = 'a.wav'"), ["0"]);
    assert!(here.done(&["run", "p.yaml", "--out", "out"]).contains("nothing to do"));
}

#[test]
fn rejects_survive_a_run_that_does_not_meet_them_again() {
    let here = Workplace::new();
    here.write("music/good.wav", tone(3.0, 440.0));
    here.write("music/bad.wav", "not sound");
    here.write("music/short.wav", tone(0.5, 440.0));
    here.write(
        "p.yaml",
        "
name: p
stages:
  clips: { files: { path: music } }
  views: { views: { from: clips, seconds: 2, epochs: 1 } }
",
    );
    here.done(&["run", "p.yaml", "--out", "out"]);
    let query = "select stage, clip_id, reason from rejects order by 1, 2";
    let rejects = here.sql("out", query);
    assert_eq!(rejects, ["clips,bad.wav,unsupported", "views,short.wav,too_short"]);
    here.done(&["run", "p.yaml", "--out", "out", "--set", "stages.views.views.epochs=2"]);
    assert_eq!(here.sql("out", query), rejects);
    let limit = here.loev(&["run", "p.yaml", "--out", "out", "--set", "max_rejects=1"]);
    assert!(errors(&limit).contains("max_rejects"), "{}", errors(&limit));
}
