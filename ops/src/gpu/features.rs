//! Log-mel frames on the device: what [`crate::features::LogMel`] gives.

use super::arguments::arguments;
use super::render::{GpuViews, room, rounded};
use super::{Buffer, Gpu, GpuError, KERNELS, Launch};
use crate::features::{FLOOR, FrontEnd};

/// Bytes of frames and of their spectra that are worked on at once, about.
const CHUNK: usize = 1 << 30;
/// The most frames whose bands one block sums up, and the shared memory that a block may always have.
const ROWS: usize = 4;
const SHARED: usize = 48 << 10;

arguments! {
    struct Mel {
        samples: u64, window: u64, frames: u64, spectra: u64, firsts: u64, starts: u64, weights: u64, out: u64,
        length: i64, first_row: i64, rows: i64,
        channels: i32, per_view: i32, width: i32, hop: i32, fft: i32, mels: i32, floor: f32, together: i32,
    }
}

/// Computes log-mel frames of views on a device.
pub struct GpuLogMel {
    gpu: Gpu,
    front_end: FrontEnd,
    window: Buffer<f32>,
    firsts: Buffer<i32>,
    starts: Buffer<i32>,
    weights: Buffer<f32>,
    frames: Option<Buffer<f32>>,
    spectra: Option<Buffer<f32>>,
    chunk: usize,
}

impl GpuLogMel {
    /// Plans for a front end.
    ///
    /// # Errors
    /// [`GpuError::Shape`] for one that [`FrontEnd::validate`] refuses, [`GpuError::Memory`].
    pub fn new(gpu: &Gpu, front_end: &FrontEnd) -> Result<Self, GpuError> {
        front_end.validate().map_err(GpuError::Shape)?;
        let bands = front_end.bands();
        let mut starts = vec![0i32];
        starts.extend(bands.iter().scan(0, |end, band| {
            *end += band.weights.len() as i32;
            Some(*end)
        }));
        let firsts: Vec<i32> = bands.iter().map(|band| band.first as i32).collect();
        let weights: Vec<f32> = bands.iter().flat_map(|band| band.weights.iter().copied()).collect();
        Ok(Self {
            gpu: gpu.clone(),
            window: gpu.upload(&front_end.hann())?,
            firsts: gpu.upload(&firsts)?,
            starts: gpu.upload(&starts)?,
            weights: gpu.upload(&weights)?,
            frames: None,
            spectra: None,
            chunk: CHUNK,
            front_end: front_end.clone(),
        })
    }

    /// With about so many bytes of the device's memory for frames under way; at least one frame is.
    pub fn with_workspace(self, bytes: usize) -> Self {
        Self { chunk: bytes, ..self }
    }

    /// Asks the device for the log-mel frames of views (the mean of their channels), in dB:
    /// `[views][frames][mels]`, where frames are [`FrontEnd::frames`] of the views' length.
    ///
    /// # Errors
    /// [`GpuError::Memory`], [`GpuError::Failed`].
    pub fn compute(&mut self, views: &GpuViews) -> Result<Buffer<f32>, GpuError> {
        let FrontEnd { window, hop, fft, mels, .. } = self.front_end;
        let (per_view, bins) = (self.front_end.frames(views.frames), fft / 2 + 1);
        let all = views.views * per_view;
        let out = self.gpu.memory(all * mels)?;
        let together = (self.chunk / (4 * fft + 8 * bins)).clamp(1, all.max(1));
        let most = rounded(together);
        let rows_together = (SHARED / (4 * bins)).clamp(1, ROWS);
        room(&self.gpu, &mut self.frames, most * fft)?;
        room(&self.gpu, &mut self.spectra, most * bins * 2)?;
        let (Some(frames), Some(spectra)) = (&mut self.frames, &mut self.spectra) else { return Ok(out) };
        for first in (0..all).step_by(together) {
            let rows = (all - first).min(together);
            let arguments = Mel {
                samples: views.samples.address(),
                window: self.window.address(),
                frames: frames.address(),
                spectra: spectra.address(),
                firsts: self.firsts.address(),
                starts: self.starts.address(),
                weights: self.weights.address(),
                out: out.address(),
                length: views.frames as i64,
                first_row: first as i64,
                rows: rows as i64,
                channels: views.channels as i32,
                per_view: per_view as i32,
                width: window as i32,
                hop: hop as i32,
                fft: fft as i32,
                mels: mels as i32,
                floor: FLOOR,
                together: rows_together as i32,
            };
            let launch = |name, launch| self.gpu.launch(&KERNELS, name, launch, &arguments);
            launch("mel_frames", Launch::blocks([rows, 1, 1], 256))?;
            self.gpu.forward(fft, rounded(rows), frames, spectra)?;
            let grid = Launch::blocks([rows.div_ceil(rows_together), 1, 1], 128);
            launch("mel_bands", grid.shared(4 * rows_together * bins))?;
        }
        Ok(out)
    }
}
