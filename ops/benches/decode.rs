//! Four seconds at 16 kHz from the middle of a file: opening, seeking, decoding, resampling.
//!
//! `LOEV_BENCH_AUDIO=a.mp3:b.ogg cargo bench -p loev-ops --bench decode` times files of one's own beside
//! the generated ones.

use std::path::{Path, PathBuf};

use divan::Bencher;
use loev_ops::source::{Limits, Source, probe_file};
use loev_ops::wav::write_wav;

fn main() {
    divan::main();
}

/// A two-minute stereo WAV, the longest fixture, and what the environment names.
fn files() -> Vec<String> {
    let wav = Path::new(env!("CARGO_TARGET_TMPDIR")).join("bench.wav");
    let tone: Vec<f32> = (0..120 * 44_100).map(|i| (i as f32 * 0.0627).sin() * 0.5).collect();
    write_wav(&wav, 44_100, &[&tone, &tone]).expect("the folder for temporary files takes a WAV");
    let ogg = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/long.ogg");
    let own = std::env::var("LOEV_BENCH_AUDIO").unwrap_or_default();
    let own = own.split(':').filter(|p| !p.is_empty()).map(str::to_owned);
    [wav, ogg].iter().map(|p| p.display().to_string()).chain(own).collect()
}

fn middle(file: &str) -> (Source, f64) {
    let source = Source::parse(file).expect("an address");
    let start = source.seconds().expect("a readable file") / 2.0;
    (source, start)
}

#[divan::bench(args = files(), sample_count = 50)]
fn read_all_channels(bencher: Bencher, file: &str) {
    let (source, start) = middle(file);
    bencher.bench_local(|| source.read(start, 4.0, 16_000));
}

#[divan::bench(args = files(), sample_count = 50)]
fn read_mono(bencher: Bencher, file: &str) {
    let (source, start) = middle(file);
    bencher.bench_local(|| source.read_mono(start, 4.0, 16_000));
}

#[divan::bench(args = files(), sample_count = 50)]
fn seek_and_open_only(bencher: Bencher, file: &str) {
    let (source, start) = middle(file);
    bencher.bench_local(|| source.read(start, 0.001, 16_000));
}

#[divan::bench(args = files(), sample_count = 5)]
fn probe(bencher: Bencher, file: &str) {
    let path = PathBuf::from(file);
    bencher.bench_local(|| probe_file(&path, &Limits::default()));
}
