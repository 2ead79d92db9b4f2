//! The vocoder: what the host works out for `vocoder.cu`.

use super::batch::Run;
use super::tables::{At, Tables, room, rounded};
use super::{Arena, arguments};
use crate::gpu::{Buffer, Gpu, GpuError, Launch};
use crate::operator::Warp;
use crate::vocoder::time_map::{
    AFTER, AHEAD, APART, BEFORE, LEAST_PACE, OWN_PACE, PAST, RISE, SILENCE, block_length,
};
use crate::vocoder::{
    Interpolator, LEAP, LEAP_AT_ATTACK, Layout, OVERLAP, OVERLAP_SUM, PHASES, TAPS, frame_length, window,
};

/// Threads of the kernels of one block a view.
const LOCK_THREADS: u32 = 256;
/// Frames whose regions one block looks for.
const ROWS_PER_BLOCK: usize = 4;
/// Shared memory that a block may always have.
const SHARED: usize = 48 << 10;
/// Samples of the stretched signal that a block of the resampler holds, about, and the most outputs that it makes.
const STRETCHED: f64 = 4_096.0;
const OUTPUTS: f64 = 1_024.0;

arguments! {
    struct WarpView {
        start: f64, end: f64, pace: f64, ratio: f64, from: f64,
        at: i64, to: i64, row: i64,
        frames_in: i32, frames_out: i32, steps: i32, bins: i32,
    }
    struct WarpArguments {
        arena: Arena, views: u64,
        window: u64, synthesis: u64, taps: u64,
        scales: u64, begins: u64, leaps: u64, energies: u64, rises: u64, attacks: u64,
        frames: u64, spectra: u64, ends: u64, regions: u64,
        rows: i64, past: f64, ahead: f64, own_pace: f64, least_pace: f64,
        silence: f32, rise: f32, leap: f32, leap_at_attack: f32,
        size: i32, hop: i32, block: i32, blocks: i32,
        before: i32, after: i32, apart: i32, phases: i32, limit: i32, tile: i32,
    }
}

/// What is the same for all views of a sample rate.
pub(super) struct Plan {
    size: usize,
    block: usize,
    window: Buffer<f32>,
    synthesis: Buffer<f32>,
    taps: Buffer<f32>,
}

impl Plan {
    pub fn new(gpu: &Gpu, sample_rate: u32) -> Result<Self, GpuError> {
        let size = frame_length(sample_rate);
        let window = window(size);
        let scale = 1.0 / (OVERLAP_SUM * size as f32);
        let synthesis: Vec<f32> = window.iter().map(|w| w * scale).collect();
        Ok(Self {
            size,
            block: block_length(sample_rate),
            window: gpu.upload(&window)?,
            synthesis: gpu.upload(&synthesis)?,
            taps: gpu.upload(Interpolator::new().rows.as_flattened())?,
        })
    }

    /// A view whose middle stays in the middle.
    pub fn view(&self, warp: Warp, at: i64, frames_in: usize, to: i64, frames_out: usize) -> WarpView {
        let layout = Layout::new(self.size, frames_out, frames_in as f64 / 2.0, warp);
        WarpView {
            start: layout.first.source,
            end: layout.first.source + layout.span * layout.pace,
            pace: layout.pace,
            ratio: layout.ratio,
            from: layout.from,
            at,
            to,
            row: 0,
            frames_in: frames_in as i32,
            frames_out: frames_out as i32,
            steps: layout.steps as i32,
            bins: layout.bins as i32,
        }
    }
}

/// Views that go through the vocoder together.
pub(super) struct WarpPass {
    views: At,
    count: usize,
    /// Frames of all views, and the most of one.
    rows: usize,
    steps: usize,
    frames_in: usize,
    frames_out: usize,
    ratio: f64,
}

impl WarpPass {
    pub fn new(views: &mut [WarpView], tables: &mut Tables) -> Self {
        let mut rows = 0;
        for view in views.iter_mut() {
            view.row = rows;
            rows += i64::from(view.steps);
        }
        let most = |of: fn(&WarpView) -> i32| views.iter().map(of).max().unwrap_or(0) as usize;
        Self {
            count: views.len(),
            rows: rows as usize,
            steps: most(|view| view.steps),
            frames_in: most(|view| view.frames_in),
            frames_out: most(|view| view.frames_out),
            ratio: views.iter().map(|view| view.ratio).fold(0.0, f64::max),
            views: tables.push(views),
        }
    }
}

pub(super) fn run(run: &mut Run<'_>, pass: &WarpPass) -> Result<(), GpuError> {
    let plan = run.vocoder;
    let (size, channels) = (plan.size, run.layout.channels);
    let bins = size / 2 + 1;
    // Peaks are three bins apart at least.
    let limit = (bins / 3 + 2).next_multiple_of(2);
    let blocks = pass.frames_in / plan.block + 1;
    let rows = rounded(2 * pass.rows * channels);
    // The first half of the rows are frames as they are now, and so many are transformed back.
    let half = rounded(pass.rows * channels);
    room(run.gpu, &mut run.space.rows, rows.max(half) * size)?;
    room(run.gpu, &mut run.space.spectra, rows.max(half) * bins * 2)?;
    // Small things, one after the other, each in a whole number of words.
    let words = |values: usize, bytes: usize| (values * bytes).div_ceil(8);
    let mut total = 0;
    let mut place = |values: usize, bytes: usize| {
        let at = total;
        total += words(values, bytes);
        8 * at as u64
    };
    let [scales, begins, leaps, regions] = [pass.count, pass.rows, pass.rows, pass.rows].map(|n| place(n, 4));
    let ends = place(pass.rows * limit, 2);
    let [energies, rises, attacks] = [(); 3].map(|()| place(pass.count * blocks, 4));
    room(run.gpu, &mut run.space.other, total)?;
    let base = run.space.other.as_ref().map_or(0, Buffer::address);
    let tile = (STRETCHED / pass.ratio.max(1.0)).clamp(1.0, OUTPUTS) as usize;
    let (Some(frames), Some(spectra)) = (&mut run.space.rows, &mut run.space.spectra) else { return Ok(()) };
    let (frames_at, spectra_at) = (frames.address(), spectra.address());
    let arguments = WarpArguments {
        arena: Arena {
            samples: run.space.arena.as_ref().map_or(0, Buffer::address),
            stride: run.layout.stride as i64,
            channels: channels as i32,
            views: pass.count as i32,
        },
        views: pass.views.address(run.base),
        window: plan.window.address(),
        synthesis: plan.synthesis.address(),
        taps: plan.taps.address(),
        scales: base + scales,
        begins: base + begins,
        leaps: base + leaps,
        energies: base + energies,
        rises: base + rises,
        attacks: base + attacks,
        frames: frames_at,
        spectra: spectra_at,
        ends: base + ends,
        regions: base + regions,
        rows: pass.rows as i64,
        past: PAST * size as f64,
        ahead: AHEAD * size as f64,
        own_pace: OWN_PACE * size as f64,
        least_pace: LEAST_PACE,
        silence: SILENCE,
        rise: RISE,
        leap: LEAP,
        leap_at_attack: LEAP_AT_ATTACK,
        size: size as i32,
        hop: (size / OVERLAP) as i32,
        block: plan.block as i32,
        blocks: blocks as i32,
        before: BEFORE as i32,
        after: AFTER as i32,
        apart: APART as i32,
        phases: PHASES as i32,
        limit: limit as i32,
        tile: tile as i32,
    };
    let launch = |name, launch| run.gpu.launch(&crate::gpu::KERNELS, name, launch, &arguments);
    launch("vocoder_map", Launch::blocks([pass.count, 1, 1], LOCK_THREADS))?;
    launch("vocoder_frames", Launch::blocks([pass.steps, pass.count, channels], LOCK_THREADS))?;
    run.gpu.forward(size, rows, frames, spectra)?;
    let per_row = 4 * bins + 4 * limit.div_ceil(2);
    let together = (SHARED / per_row).clamp(1, ROWS_PER_BLOCK);
    let grid = Launch::blocks([pass.steps.div_ceil(together), pass.count, 1], 32 * together as u32);
    launch("vocoder_regions", grid.shared(together * per_row))?;
    launch("vocoder_lock", Launch::blocks([pass.count, 1, 1], LOCK_THREADS))?;
    run.gpu.inverse(size, half, spectra, frames)?;
    let stretched = (tile as f64 * pass.ratio).ceil() as usize + TAPS + 2;
    let grid = Launch::blocks([pass.frames_out.div_ceil(tile), pass.count, channels], LOCK_THREADS);
    launch("vocoder_resample", grid.shared(4 * stretched))
}
