//! Procedural clips: writing a score, rendering a crop.

use divan::{Bencher, black_box, counter::ItemsCount};
use loev_ops::synth::ClipSpec;

/// Clips taken in turn, so that a figure is a mean over styles.
const CLIPS: u64 = 50;

fn main() {
    divan::main();
}

fn clips() -> impl FnMut() -> ClipSpec {
    let mut index = 0;
    move || {
        index = (index + 1) % CLIPS;
        ClipSpec { seed: 17, index, seconds: 12.0 }
    }
}

#[divan::bench(args = [16_000, 44_100], sample_count = 50, sample_size = 4)]
fn render_4_s(bencher: Bencher<'_, '_>, rate: u32) {
    bencher
        .counter(ItemsCount::new(1usize))
        .with_inputs(clips())
        .bench_local_values(|clip| black_box(clip.render(3.0, 4.0, rate)));
}

#[divan::bench(sample_count = 50, sample_size = 4)]
fn score_12_s(bencher: Bencher<'_, '_>) {
    bencher.with_inputs(clips()).bench_local_values(|clip| black_box(clip.score()));
}
