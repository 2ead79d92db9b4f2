//! Tape speed: what the host works out for `speed.cu`.

use super::batch::Run;
use super::effects::{Sides, ViewsPass};
use super::tables::{Tables, room};
use super::{Arena, THREADS, arguments};
use crate::gpu::{Buffer, Gpu, GpuError, Launch};
use crate::speed::{LOUD, PHASES, Resampler, WINDOW, cutoff, taps};

arguments! {
    struct SpeedView {
        at: i64, to: i64, rows: i64, speed: f64, cutoff: f64, frames_in: i32, frames_out: i32, taps: i32,
        measure: i32,
    }
    struct Speed {
        arena: Arena, views: u64, measures: u64, window: u64, rows: u64, loud: f64, phases: i32, entries: i32,
    }
}

/// The window of the interpolator.
pub(super) struct Window(Buffer<f64>);

impl Window {
    pub fn new(gpu: &Gpu) -> Result<Self, GpuError> {
        Ok(Self(gpu.upload(&Resampler::new().window)?))
    }
}

/// A view that is played at a speed.
pub(super) fn view(speed: f64, sides: Sides, frames_out: usize) -> SpeedView {
    SpeedView {
        at: sides.at,
        to: sides.to,
        rows: 0,
        speed,
        cutoff: cutoff(speed),
        frames_in: sides.frames as i32,
        frames_out: frames_out as i32,
        taps: taps(speed) as i32,
        measure: sides.measure,
    }
}

/// Views that are played at their speeds together.
pub(super) struct SpeedPass {
    views: ViewsPass,
    /// Taps of all rows.
    rows: usize,
}

impl SpeedPass {
    pub fn new(views: &mut [SpeedView], tables: &mut Tables) -> Self {
        let mut rows = 0;
        for view in views.iter_mut() {
            view.rows = rows;
            rows += i64::from(view.taps) * (PHASES as i64 + 1);
        }
        Self { views: ViewsPass::new(views, |view| view.frames_out, tables), rows: rows as usize }
    }
}

pub(super) fn run(run: &mut Run<'_>, window: &Window, pass: &SpeedPass) -> Result<(), GpuError> {
    let ViewsPass { views, count, frames } = pass.views;
    room(run.gpu, &mut run.space.other, pass.rows.div_ceil(2))?;
    let arguments = Speed {
        arena: run.arena(count),
        views: run.table(views),
        measures: run.measures(0),
        window: window.0.address(),
        rows: run.space.other.as_ref().map_or(0, Buffer::address),
        loud: f64::from(LOUD),
        phases: PHASES as i32,
        entries: WINDOW as i32,
    };
    run.launch("speed_rows", Launch::blocks([count, 1, 1], THREADS), &arguments)?;
    let tiles = frames.div_ceil(THREADS as usize);
    run.launch("speed", Launch::blocks([tiles, count, run.layout.channels], THREADS), &arguments)
}
