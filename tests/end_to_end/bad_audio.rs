//! Files that cannot be used become rejects, each with its own reason; the rest goes on.

use crate::support::{Workplace, errors, tone};

const PIPELINE: &str = "
name: folder
stages:
  clips: { files: { path: music } }
  views:
    views:
      from: clips
      seconds: 1
      variant: [ {pitch_shift: {}} ]
      segments: 2
  model:
    train:
      from: views
      encoder: { vit: { dim: 16, depth: 2, heads: 2, patch_frames: 5 } }
      front_end: { mels: 32 }
      batch: 8
      steps: 2
  embeddings: { embed: { from: clips, model: model } }
";

/// A good file, an empty one, text named .mp3, a FLAC cut in half, and 10 ms of sound.
fn folder(here: &Workplace) {
    here.write("music/good.wav", tone(4.0, 440.0));
    here.write("music/empty.wav", "");
    here.write("music/lyrics.mp3", "la la la\n".repeat(400));
    let flac = include_bytes!("../../ops/fixtures/chirp.flac");
    here.write("music/cut.flac", &flac[..flac.len() / 2]);
    here.write("music/blip.wav", tone(0.010, 440.0));
}

#[test]
fn four_bad_files_are_four_rejects_and_the_good_one_is_embedded() {
    let here = Workplace::new();
    folder(&here);
    here.write("folder.yaml", PIPELINE);
    here.done(&["run", "folder.yaml", "--out", "out"]);
    let rejects = here.sql("out", "select clip_id, reason from rejects order by clip_id");
    assert_eq!(
        rejects,
        ["blip.wav,too_short", "cut.flac,truncated", "empty.wav,empty", "lyrics.mp3,unsupported"]
    );
    let embedded = here.sql("out", "select distinct clip_id from embeddings");
    assert_eq!(embedded, ["good.wav"]);
}

#[test]
fn max_rejects_turns_too_many_into_a_failure() {
    let here = Workplace::new();
    folder(&here);
    here.write("folder.yaml", PIPELINE);
    let output = here.loev(&["run", "folder.yaml", "--out", "out", "--set", "max_rejects=3"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(errors(&output).contains("max_rejects"), "{}", errors(&output));
    assert_eq!(here.sql("out", "select count(*) from rejects"), ["4"], "the rejects can be looked at");
}

#[test]
fn a_clip_too_short_for_the_views_is_a_reject_of_that_stage() {
    let here = Workplace::new();
    here.write("music/long.wav", tone(4.0, 440.0));
    here.write("music/short.wav", tone(0.6, 330.0));
    here.write("folder.yaml", PIPELINE);
    here.done(&["run", "folder.yaml", "--out", "out"]);
    let rejects = here.sql("out", "select stage, clip_id, reason from rejects order by stage");
    assert_eq!(rejects, ["embeddings,short.wav,too_short", "views,short.wav,too_short"]);
}
