//! Fine-tuning from stored features, of clips and of views.

use crate::support::{Workplace, errors};

const PIPELINE: &str = "
name: tuned
stages:
  clips: { synth: { clips: 30, seconds: 5, shards: 3 } }
  split: { sql: \"select *, case when shard = 0 then 'train' when shard = 1 then 'valid' else 'test' end as split from clips\" }
  views: { views: { from: split, seconds: 2, base: [ gain ], variant: [ {pitch_shift: {semitones: [-2, 2]}} ] } }
  model:
    train: { from: views, method: loev, batch: 16, steps: 2, warmup: 0,
             encoder: { vit: { dim: 16, depth: 1, heads: 1 } }, projection: [8] }
  mels: { features: { from: split, seconds: 2 } }
  moved: { features: { from: views } }
  key: { finetune: { from: mels, model: model, subspace: pitch_shift, task: { key: key }, epochs: 3, batch: 8 } }
  key_of_views: { finetune: { from: moved, model: model, task: { key: key }, epochs: 2, batch: 8, encoder_lr: 0 } }
  tuned: { embed: { from: split, model: key } }
";

#[test]
fn an_encoder_learns_a_task_from_stored_features() {
    let here = Workplace::new();
    here.write("p.yaml", PIPELINE);
    here.done(&["run", "p.yaml", "--out", "out", "--threads", "2"]);

    // One answer per test clip: the mean over its segments. One per test view: its own.
    let of = "select count(*) from split where split = 'test'";
    assert_eq!(here.sql("out", "select count(*) from key_predictions"), here.sql("out", of));
    let of = "select count(*) from views where split = 'test'";
    assert_eq!(here.sql("out", "select count(*) from key_of_views_predictions"), here.sql("out", of));
    // Truths are the labels that hold for the view.
    let wrong =
        "select count(*) from key_of_views_predictions p join views v using (view_id) where p.truth <> v.key";
    assert_eq!(here.sql("out", wrong), ["0"]);
    let figures =
        "select subspace, task, probe, metric, n_test = (select count(*) from split where split = 'test'),
                          lo <= value and value <= hi from key order by metric limit 1";
    assert_eq!(here.sql("out", figures), ["pitch_shift,key,finetuned,accuracy,true,true"]);
    assert_eq!(here.sql("out", "select count(*), min(pass), max(pass) from key_passes"), ["3,1,3"]);

    // A fine-tuned model embeds like any other, beside the same baseline.
    let rows = "select subspace, count(*) from tuned where segment is null group by 1 order by 1";
    assert_eq!(here.sql("out", rows), ["invariant,30", "pitch_shift,30"]);
    assert_eq!(here.sql("out", "select count(*) from tuned_baseline where segment is null"), ["30"]);

    // A moved encoder is another one, a frozen one is not; and threads change nothing.
    let file = |run: &str, name: &str| {
        std::fs::read(here.path(run).join(format!("checkpoints/{name}.safetensors"))).unwrap()
    };
    assert!(file("out", "key") != file("out", "model"));
    assert!(file("out", "key_of_views") == file("out", "model"));
    here.done(&["run", "p.yaml", "--out", "one", "--threads", "1"]);
    assert!(file("out", "key") == file("one", "key"));
    assert!(here.done(&["run", "p.yaml", "--out", "out"]).contains("nothing to do"));
    here.done(&["verify", "out"]);
}

#[test]
fn what_cannot_be_learned_says_why() {
    let here = Workplace::new();
    here.write("p.yaml", PIPELINE);
    let refused = |set: &str| {
        let output = here.loev(&["run", "p.yaml", "--out", "out", "--set", set]);
        assert_eq!(output.status.code(), Some(1), "{}", errors(&output));
        errors(&output)
    };
    assert!(refused("stages.key.finetune.subspace=tempo").contains("no subspace \"tempo\""));
    assert!(refused("stages.mels.features.seconds=1").contains("length of the model's views"));
    assert!(refused("stages.mels.features.front_end={mels: 40}").contains("another front end"));
}
