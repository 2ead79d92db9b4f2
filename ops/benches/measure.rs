//! Figures of a minute of stereo audio at 48 kHz, in a WAV file: reading it alone, and with each figure. Run with
//! `cargo bench -p loev-ops --bench measure`.

use divan::Bencher;
use loev_ops::measure::{self, Part};
use loev_ops::source::Source;
use loev_ops::synth::ClipSpec;
use loev_ops::wav::write_wav;
use tempfile::TempDir;

fn main() {
    divan::main();
}

/// The file, and the folder that goes with it.
fn minute() -> (TempDir, Source) {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("minute.wav");
    let audio = ClipSpec { seed: 1, index: 2, seconds: 60.0 }.render(0.0, 60.0, 48_000);
    let channels: Vec<&[f32]> = audio.channels.iter().map(Vec::as_slice).collect();
    write_wav(&path, audio.rate, &channels).expect("a file");
    (dir, Source::File(path))
}

#[divan::bench]
fn read(bencher: Bencher) {
    let (_dir, source) = minute();
    bencher.bench_local(|| measure::check(&source, Part::WHOLE));
}

#[divan::bench]
fn loudness(bencher: Bencher) {
    let (_dir, source) = minute();
    bencher.bench_local(|| measure::loudness(&source, Part::WHOLE));
}

#[divan::bench]
fn waveform(bencher: Bencher) {
    let (_dir, source) = minute();
    bencher.bench_local(|| measure::waveform(&source, Part::WHOLE));
}

#[divan::bench]
fn onsets(bencher: Bencher) {
    let (_dir, source) = minute();
    bencher.bench_local(|| measure::onsets(&source, Part::WHOLE));
}
