//! What a view costs: each operator, the vocoder, drawing, and the whole LOEV chain, on 3 s of 16 kHz mono.

use divan::{Bencher, black_box};
use loev_ops::audio::Audio;
use loev_ops::chain::{Chain, Channels, Sampling};
use loev_ops::operator::{Kernel, OperatorSpec, Scratch, Warp};
use loev_ops::operators::{all, find};
use loev_ops::render::Renderer;
use loev_ops::rng::Key;
use loev_ops::views::Pools;
use loev_ops::vocoder::{Vocoder, input_frames};

const RATE: u32 = 16_000;
const FRAMES: usize = 48_000;

fn main() {
    divan::main();
}

/// Tones with noise: peaks as in music, and a noise floor between them.
fn signal(frames: usize) -> Vec<f32> {
    let mut rng = Key::root(1).rng();
    let tone = |i: usize, hz: f64| (std::f64::consts::TAU * hz * i as f64 / f64::from(RATE)).sin();
    let chord = |i: usize| [130.8, 261.6, 329.6, 392.0, 784.0].iter().map(|hz| tone(i, *hz)).sum::<f64>();
    (0..frames).map(|i| (0.1 * chord(i) + 0.02 * rng.normal()) as f32).collect()
}

fn chain() -> Chain {
    let ops = |names: &[&str]| names.iter().filter_map(|n| OperatorSpec::new(n).ok()).collect::<Vec<_>>();
    Chain {
        sample_rate: RATE,
        seconds: 3.0,
        channels: Channels::Mono,
        base: ops(&["gain", "polarity", "colored_noise", "filter"]).into_iter().map(Into::into).collect(),
        variant: ops(&["pitch_shift", "time_stretch"]),
        sampling: Sampling::Factorial,
    }
}

fn sample_operators() -> Vec<&'static str> {
    all().iter().filter(|def| matches!(def.kernel, Kernel::Samples(_))).map(|def| def.name).collect()
}

#[divan::bench(args = sample_operators())]
fn operator(bencher: Bencher, name: &str) {
    let (Some(def), Ok(spec)) = (find(name), OperatorSpec::new(name)) else { return };
    let Kernel::Samples(run) = def.kernel else { return };
    let params = spec.draw(&mut Key::root(2).rng());
    let mut scratch = Scratch::default();
    let audio = Audio::mono(RATE, signal(FRAMES));
    bencher
        .with_inputs(|| audio.clone())
        .bench_local_refs(|audio| run(audio, &params, &mut Key::root(3).rng(), &mut scratch));
}

#[divan::bench(args = [(0.0, 1.0), (4.0, 0.7), (-4.0, 1.3), (12.0, 1.0), (-12.0, 1.0)])]
fn vocoder(bencher: Bencher, (semitones, rate): (f64, f64)) {
    let warp = Warp { semitones, rate };
    let input = vec![signal(input_frames(RATE, FRAMES, warp))];
    let centre = input[0].len() as f64 / 2.0;
    let mut output = vec![vec![0.0; FRAMES]];
    let mut vocoder = Vocoder::new(RATE);
    bencher.bench_local(|| vocoder.process(black_box(&input), centre, warp, &mut output));
}

#[divan::bench]
fn draw_segment(bencher: Bencher) {
    let chain = chain();
    let mut segment = 0;
    bencher.bench_local(|| {
        segment += 1;
        chain.draw_segment(Key::root(4), "clip", 30.0, segment, 0, &Pools::new())
    });
}

/// The whole chain with every base operator applied.
#[divan::bench]
fn whole_chain(bencher: Bencher) {
    let chain = chain();
    let source = Audio::mono(RATE, signal(chain.read_frames()));
    let Ok(mut renderer) = Renderer::new(&chain) else { return };
    let Ok(mut draws) = chain.draw_segment(Key::root(5), "clip", 30.0, 0, 0, &Pools::new()) else { return };
    for draw in &mut draws {
        let mut rng = Key::root(6).with(u64::from(draw.view)).rng();
        for (params, spec) in draw.params.iter_mut().zip(chain.operators()) {
            params.get_or_insert_with(|| spec.draw(&mut rng));
        }
    }
    let mut next = 0;
    bencher.bench_local(|| {
        next = (next + 1) % draws.len();
        renderer.render(black_box(&source), &draws[next])
    });
}
