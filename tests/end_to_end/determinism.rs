//! The same pipeline gives the same rows, whatever carries it out.

use std::collections::BTreeMap;

use crate::support::{SMALL, Workplace};

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
