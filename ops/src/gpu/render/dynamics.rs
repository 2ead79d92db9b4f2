//! The compressor, the chorus and the phaser: what the host works out for `compressor.cu` and `modulated.cu`.

use std::f64::consts::TAU;

use super::batch::Run;
use super::effects::{Sides, ViewsPass};
use super::{Arena, THREADS, arguments};
use crate::gpu::{GpuError, Launch};
use crate::operators::chorus::{TAPS, delays, half_sample_filter};
use crate::operators::compressor::{Curve, keep, octaves};
use crate::operators::modulation::{control_frames, turn};
use crate::rng::Key;

/// Frames of a thread of the compressor.
const RUN: usize = 16;
/// Channels of a block of the phaser: a thread each.
const PHASER_ROWS: usize = 32;

arguments! {
    struct CompressorView {
        at: i64, keep_attack: f64, keep_release: f64, frames: i32, threshold: f32, half_knee: f32, slope: f32,
        bend: f32, makeup: f32,
    }
    struct Compressor { arena: Arena, views: u64 }
    struct ChorusView {
        at: i64, to: i64, phase: f64, step: f64, centre: f64, depth: f64, mix: f32, frames: i32, control: i32,
        measure: i32,
    }
    struct Chorus { arena: Arena, views: u64, measures: u64, taps: [f32; TAPS] }
    struct PhaserView {
        at: i64, phase: f64, step: f64, cycles: f64, depth: f64, feedback: f64, mix: f64, frames: i32, control: i32,
    }
    struct Phaser { arena: Arena, views: u64 }
}

/// A view that is compressed; `None` where that changes nothing.
pub(super) fn compress(params: &[f64], at: i64, frames: usize, rate: u32) -> Option<CompressorView> {
    let &[threshold_db, ratio, knee_db, attack_ms, release_ms, makeup_db] = params else { return None };
    let Curve { threshold, half_knee, slope, bend } = Curve::new(threshold_db, ratio, knee_db);
    let view = CompressorView {
        at,
        keep_attack: keep(attack_ms, rate),
        keep_release: keep(release_ms, rate),
        frames: frames as i32,
        threshold,
        half_knee,
        slope,
        bend,
        makeup: octaves(makeup_db),
    };
    (ratio != 1.0 || makeup_db != 0.0).then_some(view)
}

pub(super) fn compressors(run: &Run<'_>, pass: &ViewsPass) -> Result<(), GpuError> {
    let arguments = Compressor { arena: run.arena(pass.count), views: run.table(pass.views) };
    let grid = Launch::blocks([pass.count, 1, 1], THREADS);
    run.launch("compressor", grid.shared(THREADS as usize * (RUN + 1) * 4), &arguments)
}

/// Whether a chorus does anything.
pub(super) fn has_chorus(params: &[f64]) -> bool {
    params.last().is_some_and(|mix| *mix != 0.0)
}

/// A view that gets a chorus, in its other place.
pub(super) fn sing(params: &[f64], key: Key, sides: Sides, rate: u32) -> Option<ChorusView> {
    let &[rate_hz, delay_ms, depth_ms, mix] = params else { return None };
    let control = control_frames(rate);
    let (centre, depth) = delays(delay_ms, depth_ms, rate);
    Some(ChorusView {
        at: sides.at,
        to: sides.to,
        phase: key.rng().uniform(0.0, TAU),
        step: turn(rate_hz, rate, control),
        centre,
        depth,
        mix: mix as f32,
        frames: sides.frames as i32,
        control: control as i32,
        measure: sides.measure,
    })
}

pub(super) fn choruses(run: &Run<'_>, pass: &ViewsPass) -> Result<(), GpuError> {
    let arguments = Chorus {
        arena: run.arena(pass.count),
        views: run.table(pass.views),
        measures: run.measures(0),
        taps: half_sample_filter(),
    };
    let tiles = pass.frames.div_ceil(THREADS as usize);
    run.launch("chorus", Launch::blocks([tiles, run.layout.channels, pass.count], THREADS), &arguments)
}

/// A view that goes through the phaser; `None` where that changes nothing.
pub(super) fn phase(params: &[f64], key: Key, at: i64, frames: usize, rate: u32) -> Option<PhaserView> {
    let &[rate_hz, centre_hz, depth, feedback, mix] = params else { return None };
    let control = control_frames(rate);
    let view = PhaserView {
        at,
        phase: key.rng().uniform(0.0, TAU),
        step: turn(rate_hz, rate, control),
        cycles: centre_hz / f64::from(rate),
        depth,
        feedback,
        mix,
        frames: frames as i32,
        control: control as i32,
    };
    (mix != 0.0).then_some(view)
}

pub(super) fn phasers(run: &Run<'_>, pass: &ViewsPass) -> Result<(), GpuError> {
    let arguments = Phaser { arena: run.arena(pass.count), views: run.table(pass.views) };
    let blocks = (pass.count * run.layout.channels).div_ceil(PHASER_ROWS);
    run.launch("phaser", Launch::blocks([blocks, 1, 1], PHASER_ROWS as u32), &arguments)
}
