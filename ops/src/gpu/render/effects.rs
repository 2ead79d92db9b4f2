//! Effects with a wet side, and second recordings: what the host works out for `distortion.cu` and `mix.cu`.

use super::batch::Run;
use super::round::Kind;
use super::tables::{At, Tables};
use super::{Arena, THREADS, arguments};
use crate::gpu::{GpuError, Launch, Plain};
use crate::operators::{background, mixup};

/// How loud the second sound is: `Level` of `mix.cu`.
const MATCHED: i32 = 0;

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
}

impl MixView {
    /// A sound that comes at the level of the view.
    #[allow(clippy::too_many_arguments)]
    pub fn matched(
        at: i64,
        other: i64,
        stride: i64,
        keep: f64,
        add: f64,
        frames: usize,
        measure: i32,
        other_measure: i32,
    ) -> Self {
        Self {
            at,
            other,
            stride,
            keep,
            add,
            nominal: 0.0,
            frames: frames as i32,
            delay: 0,
            measure,
            other_measure,
            level: MATCHED,
            gap: 0,
        }
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
pub(super) fn distort(
    params: &[f64],
    at: i64,
    to: i64,
    frames: usize,
    measure: i32,
) -> Option<(DistortionView, MixView)> {
    let &[drive_db, mix, shape] = params else { return None };
    if mix <= 0.0 {
        return None;
    }
    let drive = 10f64.powf(drive_db / 20.0);
    let frames_i32 = frames as i32;
    let view = DistortionView { at, to, drive, frames: frames_i32, shape: shape as i32, measure, gap: 0 };
    Some((view, MixView::matched(at, to, 0, 1.0 - mix, mix, frames, measure, 0)))
}

pub(super) fn distortion(run: &Run<'_>, pass: &ViewsPass) -> Result<(), GpuError> {
    let arguments =
        Distortion { arena: run.arena(pass.count), views: run.table(pass.views), measures: run.measures(0) };
    let tiles = pass.frames.div_ceil(TILE);
    run.launch("distortion", Launch::blocks([tiles, pass.count, run.layout.channels], THREADS), &arguments)
}
