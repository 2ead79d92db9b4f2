//! Files that cannot be used become rejects, each with its own reason; the rest goes on.

use crate::mutate::{Damage, mutate};
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
fn every_broken_file_is_embedded_or_rejected() {
    let here = Workplace::new();
    // Four seconds of silence in five of sound: a part of a clip.
    let sound = tone(9.0, 440.0);
    let mut parts = sound.clone();
    let (from, to) = (44 + 2 * 22_050 * 2, 44 + 6 * 22_050 * 2);
    parts[from..to].fill(0);
    here.write("music/parts.wav", &parts);
    here.write("music/good.wav", &sound);
    let flac = include_bytes!("../../ops/fixtures/chirp.flac");
    for (i, damage) in Damage::ALL.into_iter().enumerate() {
        for seed in 0..6 {
            let (good, other, ending) =
                if seed % 2 == 0 { (&sound[..], &flac[..], "wav") } else { (&flac[..], &sound[..], "flac") };
            here.write(&format!("music/{i}-{seed}.{ending}"), mutate(good, other, damage, seed));
        }
    }
    here.write("folder.yaml", PIPELINE);
    here.done(&["run", "folder.yaml", "--out", "out"]);
    let files = std::fs::read_dir(here.path("music")).unwrap().count();
    let one = |query: &str| here.sql("out", query)[0].parse::<usize>().unwrap();
    let embedded = one("select count(distinct clip_id) from embeddings");
    let whole = "select distinct clip_id from rejects where whole and stage in ('clips', 'embeddings')";
    let rejected = one(&format!("select count(*) from ({whole})"));
    assert!(embedded > 2 && rejected > 2, "{embedded} and {rejected}");
    assert_eq!(embedded + rejected, files, "each in one of them");
    let both = format!("select count(*) from embeddings where clip_id in ({whole})");
    assert_eq!(one(&both), 0);
    let parts = "select reason, whole from rejects where stage = 'embeddings' and clip_id = 'parts.wav'";
    assert_eq!(here.sql("out", parts), ["silent,false"]);
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
