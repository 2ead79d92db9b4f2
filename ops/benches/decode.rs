//! Four seconds at 16 kHz from the middle of a file: opening, seeking, decoding, resampling. And of samples that were
//! decoded before, as a `decode` stage stores them.
//!
//! `LOEV_BENCH_AUDIO=a.mp3:b.ogg cargo bench -p loev-ops --bench decode` times files of one's own beside
//! the generated ones.

use std::path::Path;

use divan::Bencher;
use loev_ops::source::{Limits, Pcm, Source, add_pcm_root, encode_pcm};
use loev_ops::wav::write_wav;

fn main() {
    divan::main();
}

/// Samples of two minutes of sound, a stereo WAV of them, the longest fixture, and what the environment names.
fn files() -> Vec<String> {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let wav = folder.join("bench.wav");
    let tone: Vec<f32> = (0..120 * 44_100).map(|i| (i as f32 * 0.0627).sin() * 0.5).collect();
    write_wav(&wav, 44_100, &[&tone, &tone]).expect("the folder for temporary files takes a WAV");
    let source = Source::File(wav.clone());
    let mono = source.read_mono(0.0, 120.0, 16_000).expect("a WAV");
    std::fs::write(folder.join("bench.pcm"), encode_pcm(&mono).0).expect("... and samples");
    add_pcm_root(Source::File(folder.to_owned()));
    let samples = Pcm::new("bench.pcm", 0, mono.frames() as u64, mono.rate, 1).expect("an address");
    let ogg = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/long.ogg");
    let own = std::env::var("LOEV_BENCH_AUDIO").unwrap_or_default();
    let own = own.split(':').filter(|p| !p.is_empty()).map(str::to_owned);
    let files = [wav, ogg].map(|path| path.display().to_string());
    std::iter::once(samples.uri()).chain(files).chain(own).collect()
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
    let source = Source::parse(file).expect("an address");
    bencher.bench_local(|| loev_ops::source::probe(&source, &Limits::default()));
}
