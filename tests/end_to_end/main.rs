//! End-to-end tests: through the `loev` command and the files it leaves.

// Helpers of tests are tests too: a failure in them should stop at once.
#![allow(clippy::unwrap_used)]

mod augmentation; // every operator, replay, labels
mod bad_audio; // files that cannot be used
mod browser; // a headless browser, where there is one
mod commands; // what the command line says, and its exit codes
mod decode; // clips decoded once
mod determinism; // threads, lanes and chunks change nothing
mod evaluation; // embeddings of views, equivariance, retrieval
mod faults; // killed, out of disk, interrupted, and gone on with
mod finetune; // an encoder and a head on a labelled task
mod fuzz; // whatever the bytes
mod manifest; // labels from a manifest, real files
mod mutate; // broken files from good ones
mod questions; // of runs and files, and their answers
mod report; // a page about a run
mod resume; // what is made again, and why
mod statistics; // normalisation fitted as a stage
mod support;
#[path = "../fuzz/targets/mod.rs"]
mod targets; // what the fuzzers run
mod verify; // runs that are what they say
mod whole_graph; // synth to SQL
