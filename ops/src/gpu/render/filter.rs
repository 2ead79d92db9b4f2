//! Filters of second order, and the loudness that one of them is for: what the host works out for `biquad.cu` and
//! `loudness.cu`.

use super::batch::Run;
use super::effects::ViewsPass;
use super::round::Kind;
use super::tables::{At, Tables, room};
use super::{Arena, arguments};
use crate::gpu::{Buffer, GpuError, Launch};
use crate::loudness::{channel_weights, gate, hops};
use crate::operators::{equalizer, filter};

/// Samples of a thread of the filter, and its threads; powers of its matrix that it is given.
const RUN: usize = 16;
const FILTER_THREADS: u32 = 256;
const POWERS: usize = 6;

arguments! {
    struct BiquadView { at: i64, to: i64, frames: i32, first: i32, count: i32, gap: i32 }
    struct Section { b: [f64; 3], a: [f64; 2], powers: [[f64; 4]; POWERS] }
    struct Biquads { arena: Arena, views: u64, sections: u64 }
    struct LoudnessView { at: i64, filtered: i64, target: f64, frames: i32, hop: i32, width: i32, hops: i32 }
    struct Loudness { arena: Arena, views: u64, weights: u64, energies: u64, gate: f64, room: i64 }
}

impl Section {
    /// With the powers of the filter's matrix that carry its state over runs.
    fn new((b, a): ([f64; 3], [f64; 2])) -> Self {
        let square = |[p, q, r, s]: [f64; 4]| [p * p + q * r, p * q + q * s, r * p + s * r, r * q + s * s];
        let run = (0..RUN.ilog2()).fold([-a[0], 1.0, -a[1], 0.0], |m, _| square(m));
        let mut powers = [run; POWERS];
        for k in 1..POWERS {
            powers[k] = square(powers[k - 1]);
        }
        Self { b, a, powers }
    }
}

/// The sections of an operator.
pub(super) fn sections(kind: Kind, params: &[f64], rate: u32) -> Vec<Section> {
    let all = match kind {
        Kind::Loudness => return crate::loudness::sections(rate).into_iter().map(Section::new).collect(),
        Kind::Filter => [filter::section(params, rate), None, None, None],
        _ => equalizer::sections(params, rate),
    };
    all.into_iter().flatten().map(|section| Section::new(section.coefficients())).collect()
}

/// Views that are filtered together.
pub(super) struct BiquadPass {
    views: At,
    sections: At,
    count: usize,
}

impl BiquadPass {
    pub fn new(views: &[BiquadView], sections: &[Section], tables: &mut Tables) -> Self {
        Self { views: tables.push(views), sections: tables.push(sections), count: views.len() }
    }
}

pub(super) fn biquads(run: &Run<'_>, pass: &BiquadPass) -> Result<(), GpuError> {
    let arguments = Biquads {
        arena: run.arena(pass.count),
        views: run.table(pass.views),
        sections: run.table(pass.sections),
    };
    let grid = Launch::blocks([pass.count, run.layout.channels, 1], FILTER_THREADS);
    run.launch("biquad", grid.shared(FILTER_THREADS as usize * (RUN + 1) * 4), &arguments)
}

/// A view that is brought to a loudness, its filtered side beside it.
pub(super) fn louder(
    params: &[f64],
    at: i64,
    filtered: i64,
    frames: usize,
    rate: u32,
) -> Option<LoudnessView> {
    let &[target] = params else { return None };
    let (hop, width, hops) = hops(frames, rate);
    let [hop, width, hops] = [hop, width, hops].map(|n| n as i32);
    Some(LoudnessView { at, filtered, target, frames: frames as i32, hop, width, hops })
}

/// Views that are brought to their loudness together.
pub(super) struct LoudnessPass {
    views: ViewsPass,
    weights: At,
}

impl LoudnessPass {
    pub fn new(views: &[LoudnessView], channels: usize, tables: &mut Tables) -> Self {
        let weights = channel_weights(channels).iter().copied().chain(std::iter::repeat(1.0));
        let weights: Vec<f64> = weights.take(channels).collect();
        // The longest in hops.
        let views = ViewsPass::new(views, |view| view.hops, tables);
        Self { views, weights: tables.push(&weights) }
    }
}

pub(super) fn loudness(run: &mut Run<'_>, pass: &LoudnessPass) -> Result<(), GpuError> {
    let ViewsPass { views, count, frames: hops } = pass.views;
    room(run.gpu, &mut run.space.other, count * hops)?;
    let arguments = Loudness {
        arena: run.arena(count),
        views: run.table(views),
        weights: run.table(pass.weights),
        energies: run.space.other.as_ref().map_or(0, Buffer::address),
        gate: gate(),
        room: hops as i64,
    };
    run.launch("loudness", Launch::blocks([count, 1, 1], 512), &arguments)
}
