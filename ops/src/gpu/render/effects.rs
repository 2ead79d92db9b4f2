//! Second recordings and wet sides, and how they are mixed in: what the host works out for `mix.cu`, `distortion.cu`,
//! `delay.cu` and `reverb.cu`.

use super::batch::Run;
use super::round::Kind;
use super::tables::{At, Tables, room};
use super::{Arena, THREADS, arguments};
use crate::gpu::{Buffer, GpuError, Launch, Plain};
use crate::operators::reverb::{INPUTS, LINES, Network, OUTPUTS};
use crate::operators::{background, delay, distortion, mixup, reverb};

/// How loud the second sound is: `Level` of `mix.cu`.
const MATCHED: i32 = 0;
const HELD: i32 = 1;
const PLAIN: i32 = 2;

/// Outputs of a block of the distortion.
const TILE: usize = 512;

arguments! {
    struct MixView {
        at: i64, other: i64, stride: i64, keep: f64, add: f64, nominal: f64, frames: i32, delay: i32, measure: i32,
        other_measure: i32, level: i32, gap: i32,
    }
    struct Mix { arena: Arena, others: u64, views: u64, measures: u64 }
    struct DistortionView { at: i64, to: i64, drive: f64, frames: i32, shape: i32, measure: i32, gap: i32 }
    struct Distortion { arena: Arena, views: u64, measures: u64 }
    struct DelayView { at: i64, to: i64, pole: f64, feedback: f64, frames: i32, time: i32, measure: i32, gap: i32 }
    struct Delay { arena: Arena, views: u64, measures: u64 }
    struct ReverbView {
        at: i64, to: i64, lines: i64, frames: i32, measure: i32,
        length: [i32; LINES], gain: [f32; LINES], pole: [f32; LINES],
    }
    struct Reverb { arena: Arena, views: u64, measures: u64, lines: u64, inputs: [i32; 2], outputs: [i32; 2] }
}

/// A view, its other place, and the number of its measure.
#[derive(Clone, Copy)]
pub(super) struct Sides {
    pub at: i64,
    pub to: i64,
    pub frames: usize,
    pub measure: i32,
}

impl MixView {
    /// A sound in the view's other place that comes at the level of the view, with these gains; the rest is the
    /// caller's.
    pub fn matched(sides: Sides, keep: f64, add: f64) -> Self {
        Self {
            at: sides.at,
            other: sides.to,
            stride: 0,
            keep,
            add,
            nominal: 0.0,
            frames: sides.frames as i32,
            delay: 0,
            measure: sides.measure,
            other_measure: 0,
            level: MATCHED,
            gap: 0,
        }
    }

    /// A wet side whose level is held near what `nominal` makes it, [`crate::wet::blend`].
    pub fn held(sides: Sides, mix: f64, nominal: f64) -> Self {
        Self { nominal, level: HELD, ..Self::matched(sides, 1.0 - mix, mix) }
    }
}

/// The gains of a view and of its second recording, both at the level of the view; `None` where nothing is mixed in.
pub(super) fn gains(kind: Kind, params: &[f64]) -> Option<(f64, f64)> {
    match (kind, params) {
        (Kind::Background, [snr_db]) => Some((1.0, background::gain(*snr_db))),
        (Kind::Mixup, [weight]) if *weight > 0.0 => Some(mixup::gains(*weight)),
        _ => None,
    }
}

/// Views that one launch goes over.
pub(super) struct ViewsPass {
    pub views: At,
    pub count: usize,
    pub frames: usize,
}

impl ViewsPass {
    pub fn new<T: Plain>(views: &[T], frames: impl Fn(&T) -> i32, tables: &mut Tables) -> Self {
        let frames = views.iter().map(frames).max().unwrap_or(0) as usize;
        Self { views: tables.push(views), count: views.len(), frames }
    }
}

/// Sounds to mix in, and whether they are among the tables or in the arena.
pub(super) struct MixPass {
    pub views: ViewsPass,
    pub of_tables: bool,
}

pub(super) fn mix(run: &Run<'_>, pass: &MixPass) -> Result<(), GpuError> {
    let ViewsPass { views, count, frames } = pass.views;
    let arena = run.arena(count);
    let others = if pass.of_tables { run.base } else { arena.samples };
    let arguments = Mix { arena, others, views: run.table(views), measures: run.measures(0) };
    let tiles = frames.div_ceil(THREADS as usize);
    run.launch("mix", Launch::blocks([tiles, run.layout.channels, count], THREADS), &arguments)
}

/// A distorted sound beside a view, and how it is mixed in; `None` where it is not.
pub(super) fn distort(params: &[f64], sides: Sides) -> Option<(DistortionView, MixView)> {
    let &[drive_db, mix, shape] = params else { return None };
    let Sides { at, to, frames, measure } = sides;
    let (drive, frames, shape) = (distortion::drive(drive_db), frames as i32, shape as i32);
    let view = DistortionView { at, to, drive, frames, shape, measure, gap: 0 };
    (mix > 0.0).then(|| (view, MixView::matched(sides, 1.0 - mix, mix)))
}

/// The echoes of a view, and how they are mixed in; `None` where they are not.
pub(super) fn echo(params: &[f64], sides: Sides, rate: u32) -> Option<(DelayView, MixView)> {
    let &[time_s, feedback, damping_hz, mix] = params else { return None };
    let Sides { at, to, frames, measure } = sides;
    let rate = f64::from(rate);
    let (pole, time) = (delay::pole(damping_hz, rate), delay::frames(time_s, rate) as i32);
    let view = DelayView { at, to, pole, feedback, frames: frames as i32, time, measure, gap: 0 };
    (mix > 0.0).then(|| (view, MixView { level: PLAIN, ..MixView::matched(sides, 1.0 - mix, mix) }))
}

/// What the network makes of a view, and how it is mixed in; `None` where it is not.
pub(super) fn reverberate(params: &[f64], sides: Sides, rate: u32) -> Option<(ReverbView, MixView)> {
    let &[rt60_s, damping_hz, pre_delay_s, mix] = params else { return None };
    if mix <= 0.0 {
        return None;
    }
    let delay = reverb::pre_delay(pre_delay_s, rate, sides.frames);
    let Network { lengths, gains, poles, nominal } = Network::new(rt60_s, damping_hz, rate);
    let view = ReverbView {
        at: sides.at,
        to: sides.to,
        lines: 0,
        frames: (sides.frames - delay) as i32,
        measure: sides.measure,
        length: lengths.map(|n| n as i32),
        gain: gains,
        pole: poles,
    };
    Some((view, MixView { delay: delay as i32, ..MixView::held(sides, mix, nominal) }))
}

pub(super) fn delays(run: &Run<'_>, pass: &ViewsPass) -> Result<(), GpuError> {
    let arguments =
        Delay { arena: run.arena(pass.count), views: run.table(pass.views), measures: run.measures(0) };
    run.launch("delay", Launch::blocks([pass.count, run.layout.channels, 1], THREADS), &arguments)
}

/// Views that the network reverberates together.
pub(super) struct ReverbPass {
    views: ViewsPass,
    /// Samples of all lines.
    lines: usize,
}

impl ReverbPass {
    pub fn new(views: &mut [ReverbView], tables: &mut Tables) -> Self {
        let mut lines = 0;
        for view in views.iter_mut() {
            view.lines = lines;
            lines += view.length.iter().map(|n| i64::from(*n)).sum::<i64>();
        }
        Self { views: ViewsPass::new(views, |view| view.frames, tables), lines: lines as usize }
    }
}

pub(super) fn reverbs(run: &mut Run<'_>, pass: &ReverbPass) -> Result<(), GpuError> {
    let ViewsPass { views, count, .. } = pass.views;
    room(run.gpu, &mut run.space.other, pass.lines.div_ceil(2))?;
    let arguments = Reverb {
        arena: run.arena(count),
        views: run.table(views),
        measures: run.measures(0),
        lines: run.space.other.as_ref().map_or(0, Buffer::address),
        inputs: INPUTS.map(i32::from),
        outputs: OUTPUTS.map(i32::from),
    };
    // Eight threads a line.
    run.launch("reverb", Launch::blocks([count, 1, 1], 8 * LINES as u32), &arguments)
}

pub(super) fn distortions(run: &Run<'_>, pass: &ViewsPass) -> Result<(), GpuError> {
    let arguments =
        Distortion { arena: run.arena(pass.count), views: run.table(pass.views), measures: run.measures(0) };
    let tiles = pass.frames.div_ceil(TILE);
    run.launch("distortion", Launch::blocks([tiles, pass.count, run.layout.channels], THREADS), &arguments)
}
