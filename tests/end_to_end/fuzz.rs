//! The targets of the fuzzers, on their seeds and on mutations of each: the same ones in every run.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::mutate::{Damage, mutate};
use crate::targets;

/// The longest that one input may take, in a debug build on a busy machine.
const LONGEST: Duration = Duration::from_secs(10);

/// The seeds of a target, by name.
fn seeds(of: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds").join(of);
    let mut paths: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()).collect();
    paths.sort();
    paths.into_iter().map(|path| (path.clone(), fs::read(path).unwrap())).collect()
}

/// Runs a target on its seeds, then on `rounds` mutations of each.
fn smoke(name: &str, rounds: usize, target: fn(&[u8])) {
    let seeds = seeds(name);
    assert!(!seeds.is_empty());
    let run = |bytes: &[u8], what: &str| {
        let start = Instant::now();
        target(bytes);
        assert!(start.elapsed() < LONGEST, "{what} takes {:?}", start.elapsed());
    };
    for (path, bytes) in &seeds {
        run(bytes, &path.display().to_string());
    }
    // For longer than a test: `LOEV_FUZZ_SECONDS=3600`.
    let longer =
        std::env::var("LOEV_FUZZ_SECONDS").ok().and_then(|s| s.parse().ok()).map(Duration::from_secs);
    let (start, mut ran) = (Instant::now(), 0);
    for round in (0..).take_while(|round| longer.map_or(*round < rounds, |longer| start.elapsed() < longer)) {
        ran += seeds.len();
        for (i, (path, bytes)) in seeds.iter().enumerate() {
            let damage = Damage::ALL[(round + i) % Damage::ALL.len()];
            let other = &seeds[(i + round) % seeds.len()].1;
            let seed = (round * seeds.len() + i) as u64;
            run(&mutate(bytes, other, damage, seed), &format!("{} {damage:?} {seed}", path.display()));
        }
    }
    println!("{name}: {ran} inputs in {:?}", start.elapsed());
}

#[test]
fn audio() {
    smoke("decode", 24, targets::decode::decode);
}

#[test]
fn labels() {
    smoke("jams", 500, targets::jams::jams);
}

#[test]
fn pipelines() {
    smoke("yaml", 200, targets::yaml::yaml);
}

#[test]
fn records_of_runs() {
    smoke("manifest", 300, targets::manifest::manifest);
}

#[test]
fn receipts() {
    smoke("receipts", 300, targets::receipts::receipts);
}

#[test]
fn checkpoints() {
    smoke("checkpoint", 200, targets::checkpoint::checkpoint);
}

/// The same number gives the same damage, and damage it is.
#[test]
fn mutations_are_repeatable() {
    let seeds = seeds("decode");
    let (_, bytes) = &seeds[0];
    let (_, other) = &seeds[1];
    for damage in Damage::ALL {
        let made: Vec<Vec<u8>> = (0..50).map(|seed| mutate(bytes, other, damage, seed)).collect();
        let again: Vec<Vec<u8>> = (0..50).map(|seed| mutate(bytes, other, damage, seed)).collect();
        assert_eq!(made, again);
        let broken = made.iter().filter(|made| *made != bytes).count();
        assert!(broken >= 30, "{damage:?}: {broken} of 50 differ");
        assert_eq!(mutate(&[], other, damage, 3), Vec::<u8>::new());
    }
}
