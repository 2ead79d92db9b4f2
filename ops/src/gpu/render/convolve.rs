//! Responses and their convolution: what the host works out for `convolve.cu`.

use super::batch::Run;
use super::effects::{MixView, Sides};
use super::tables::{At, Tables, room, rounded};
use super::{Arena, THREADS, arguments};
use crate::audio::Audio;
use crate::gpu::{GpuError, Launch};
use crate::operators::convolve::direct_sound;
use crate::wet;

/// Bytes of transforms under way, about.
const TOGETHER: usize = 1 << 30;

arguments! {
    struct ConvolveView {
        at: i64, to: i64, response: i64, stride: i64, frames: i32, taps: i32, lead: i32, measure: i32,
    }
    struct Convolve {
        arena: Arena, views: u64, measures: u64, responses: u64, rows: u64, spectra: u64, length: i64, count: i64,
    }
}

/// A response for a view: a channel for each of the view's, the tap that is time zero, and the energy of a channel.
pub(super) struct Response {
    pub channels: Vec<Vec<f32>>,
    pub lead: usize,
    pub energy: f64,
}

impl Response {
    /// A recorded response, at unit scale; `None` for a silent one.
    pub fn recorded(audio: &Audio) -> Option<Self> {
        let unit = wet::unit(&audio.channels)?;
        let scaled = |channel: &Vec<f32>| channel.iter().map(|sample| sample * unit).collect();
        let channels: Vec<Vec<f32>> = audio.channels.iter().map(scaled).collect();
        let count = channels.len() as f64;
        let energy = channels.iter().map(|channel| wet::energy(channel, 1.0) / count).sum();
        Some(Self { lead: direct_sound(audio), channels, energy })
    }

    /// The view that it is for, the length of its transform, and how the wet side is mixed in.
    pub fn view(&self, sides: Sides, mix: f64, tables: &mut Tables) -> (usize, ConvolveView, MixView) {
        let reach = sides.frames + self.lead;
        let taps = self.channels.first().map_or(0, Vec::len).min(reach);
        let places: Vec<At> = self.channels.iter().map(|channel| tables.push(&channel[..taps])).collect();
        let response = places.first().map_or(0, |at| at.samples());
        let view = ConvolveView {
            at: sides.at,
            to: sides.to,
            response,
            // Channels are of one length, so their places are equally far apart.
            stride: places.get(1).map_or(0, |at| at.samples() - response),
            frames: sides.frames as i32,
            taps: taps as i32,
            lead: self.lead as i32,
            measure: sides.measure,
        };
        // What is read of the sum lies before its end, or in the zeros behind it.
        let length = (sides.frames + taps.max(self.lead)).next_power_of_two().max(2);
        (length, view, MixView::held(sides, mix, self.energy.sqrt().recip()))
    }
}

/// Views whose transforms are of one length.
pub(super) struct ConvolvePass {
    views: At,
    count: usize,
    length: usize,
}

impl ConvolvePass {
    pub fn new(length: usize, views: &[ConvolveView], tables: &mut Tables) -> Self {
        Self { views: tables.push(views), count: views.len(), length }
    }
}

pub(super) fn run(run: &mut Run<'_>, pass: &ConvolvePass) -> Result<(), GpuError> {
    let (length, channels) = (pass.length, run.layout.channels);
    let bins = length / 2 + 1;
    let together = (TOGETHER / (16 * length * channels)).clamp(1, pass.count.max(1));
    let most = rounded(2 * together * channels);
    room(run.gpu, &mut run.space.rows, most * length)?;
    room(run.gpu, &mut run.space.spectra, most * bins * 2)?;
    for from in (0..pass.count).step_by(together) {
        let count = (pass.count - from).min(together);
        let rows = count * channels;
        let (arena, measures, responses) = (run.arena(count), run.measures(0), run.base);
        let views = run.table(pass.views) + (from * size_of::<ConvolveView>()) as u64;
        let (Some(samples), Some(spectra)) = (&mut run.space.rows, &mut run.space.spectra) else {
            return Ok(());
        };
        let arguments = Convolve {
            arena,
            views,
            measures,
            responses,
            rows: samples.address(),
            spectra: spectra.address(),
            length: length as i64,
            count: rows as i64,
        };
        let launch = |name, launch| run.gpu.launch(&crate::gpu::KERNELS, name, launch, &arguments);
        let tiles = |n: usize| n.div_ceil(THREADS as usize);
        launch("convolve_pack", Launch::blocks([tiles(length), channels, 2 * count], THREADS))?;
        run.gpu.forward(length, rounded(2 * rows), samples, spectra)?;
        launch("convolve_multiply", Launch::blocks([tiles(bins), rows, 1], THREADS))?;
        run.gpu.inverse(length, rounded(rows), spectra, samples)?;
        let frames = tiles(run.layout.stride);
        launch("convolve_unpack", Launch::blocks([frames, channels, count], THREADS))?;
    }
    Ok(())
}
