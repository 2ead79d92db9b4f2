//! Coloured noise: what the host works out for `noise.cu`.

use super::batch::Run;
use super::tables::{At, Tables, room, rounded};
use super::{Arena, THREADS, arguments};
use crate::gpu::{Buffer, GpuError, Launch};
use crate::operators::colored_noise::{flat_bin, gain, next_knot};
use crate::rng::Key;

/// Views whose noise is transformed at once.
const TOGETHER: usize = 512;

arguments! {
    struct NoiseView { key: u64, at: i64, exponent: f64, gain: f64, measure: i32, frames: i32 }
    struct NoiseArguments {
        arena: Arena, views: u64, measures: u64, blocks: u64, knots: u64, levels: u64, spectra: u64, samples: u64,
        flat: f64, block_count: i32, knot_count: i32, bins: i32, length: i32,
    }
}

/// A view that gets noise.
pub(super) fn view(params: &[f64], key: Key, at: i64, frames: usize, measure: i32) -> Option<NoiseView> {
    let &[snr_db, exponent] = params else { return None };
    Some(NoiseView {
        key: key.value(),
        at,
        exponent,
        gain: 1.0 / gain(snr_db),
        measure,
        frames: frames as i32,
    })
}

/// Views whose noise is of one length.
pub(super) struct NoisePass {
    views: At,
    count: usize,
    length: usize,
    blocks: At,
    block_count: usize,
    knots: At,
    knot_count: usize,
}

impl NoisePass {
    pub fn new(length: usize, views: &[NoiseView], tables: &mut Tables) -> Self {
        let bins = length / 2 + 1;
        let mut knots: Vec<i32> = vec![0];
        // Per block of the stream, its first bin, and twice the number of its knot, plus 1 for two bins.
        let mut blocks: Vec<[i32; 2]> = Vec::new();
        let mut from = 0;
        while from < bins {
            let to = next_knot(from);
            let knot = 2 * (knots.len() as i32 - 1);
            let end = to.min(bins);
            blocks.extend((from..end).step_by(2).map(|bin| [bin as i32, knot + i32::from(bin + 1 < end)]));
            knots.push(to as i32);
            from = to;
        }
        Self {
            views: tables.push(views),
            count: views.len(),
            length,
            block_count: blocks.len(),
            blocks: tables.push(&blocks),
            knot_count: knots.len(),
            knots: tables.push(&knots),
        }
    }
}

pub(super) fn run(run: &mut Run<'_>, pass: &NoisePass) -> Result<(), GpuError> {
    let (length, channels) = (pass.length, run.layout.channels);
    let bins = length / 2 + 1;
    let most = pass.count.min(TOGETHER);
    let rows = rounded(most * channels);
    room(run.gpu, &mut run.space.rows, rows * length)?;
    room(run.gpu, &mut run.space.spectra, rows * bins * 2)?;
    room(run.gpu, &mut run.space.other, (most * pass.knot_count).div_ceil(2))?;
    for from in (0..pass.count).step_by(TOGETHER) {
        let count = (pass.count - from).min(TOGETHER);
        let arena = run.arena(count);
        let (measures, blocks, knots) = (run.measures(0), run.table(pass.blocks), run.table(pass.knots));
        let views = run.table(pass.views) + (from * size_of::<NoiseView>()) as u64;
        let flat = flat_bin(length, run.rate);
        let levels = run.space.other.as_ref().map_or(0, Buffer::address);
        let (Some(samples), Some(spectra)) = (&mut run.space.rows, &mut run.space.spectra) else {
            return Ok(());
        };
        let arguments = NoiseArguments {
            arena,
            views,
            measures,
            blocks,
            knots,
            levels,
            spectra: spectra.address(),
            samples: samples.address(),
            flat,
            block_count: pass.block_count as i32,
            knot_count: pass.knot_count as i32,
            bins: bins as i32,
            length: length as i32,
        };
        let launch = |name, launch| run.gpu.launch(&crate::gpu::KERNELS, name, launch, &arguments);
        launch("noise_levels", Launch::items(count * pass.knot_count, THREADS))?;
        let tiles = pass.block_count.div_ceil(THREADS as usize);
        launch("noise_spectrum", Launch::blocks([tiles, channels, count], THREADS))?;
        run.gpu.inverse(length, rounded(count * channels), spectra, samples)?;
        launch("noise_mix", Launch::blocks([count, 1, 1], 512))?;
    }
    Ok(())
}
