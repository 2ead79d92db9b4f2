//! Log-mel frames of three seconds of audio at 16 kHz.

use divan::Bencher;
use loev_ops::features::{FrontEnd, LogMel};

fn main() {
    divan::main();
}

fn bench(bencher: Bencher, front_end: FrontEnd) {
    let audio: Vec<f32> = (0..48_000).map(|i| ((i * 7919 % 2003) as f32 / 1001.5 - 1.0) * 0.3).collect();
    let mut out = vec![0.0; front_end.frames(audio.len()) * front_end.mels];
    let mut log_mel = LogMel::new(&front_end);
    bencher.bench_local(|| log_mel.compute(divan::black_box(&audio), divan::black_box(&mut out)));
}

#[divan::bench]
fn fft_2048_window_400_hop_160(bencher: Bencher) {
    bench(bencher, FrontEnd::default());
}

#[divan::bench]
fn fft_1024_window_1024_hop_320(bencher: Bencher) {
    bench(bencher, FrontEnd { window: 1024, hop: 320, fft: 1024, ..FrontEnd::default() });
}
