//! Views on the device: what [`crate::render::Renderer`] gives, many views at a time.
//!
//! ```text
//! segments --gather--> arena --round 1--> ... --round n--> collect --> views [views][channels][frames]
//!                                  |
//!                 views whose step is of one kind: one launch over all of them
//! ```
//! The host works out lengths and parameters in f64, as the CPU's renderer does, by the same functions; they go to the
//! device in one copy per batch, and nothing is waited for. A view has two places in the arena, so that a step may
//! write beside what it reads. Streams of random numbers are those of the CPU.
//!
//! How far samples may lie from the CPU's is the tolerance of each row of [`crate::gpu::parity`].

mod batch;
mod convolve;
mod dynamics;
mod effects;
mod filter;
mod noise;
mod point;
mod round;
mod speed;
mod tables;
mod warp;

#[cfg(test)]
mod tests;

use super::arguments::arguments;
use super::{Buffer, Gpu, GpuError, KERNELS, Launch};
use crate::chain::{Chain, Leaf, Step, check_draw, steps};
use crate::error::{AudioError, RejectKind};
use crate::operator::Scratch;
use crate::partners::Partners;
use crate::render::step_frames;
use crate::views::Draw;
use batch::Arena;
use round::Kind;
use tables::{Staging, Tables};

pub(super) use tables::{room, rounded};

/// What a batch may take of the device's memory, unless [`GpuRenderer::with_workspace`] says otherwise.
const WORKSPACE: usize = 4 << 30;
/// The most views of a batch.
const BATCH: usize = 4_096;
/// The most channels: launches are that much higher than batches.
const CHANNELS: usize = 8;
/// Threads of a block where nothing speaks for another number.
const THREADS: u32 = 256;

/// Samples of segments on the device.
#[derive(Clone, Copy, Debug)]
pub enum Pcm<'a> {
    /// Nominally within -1..1.
    F32(&'a Buffer<f32>),
    /// Full scale is 32768.
    I16(&'a Buffer<i16>),
}

/// Segments on the device: `[segments][channels][frames]`, each the range of
/// [`crate::render::Renderer::read_range`] at the rate of the chain.
#[derive(Clone, Copy, Debug)]
pub struct Sources<'a> {
    /// The samples.
    pub samples: Pcm<'a>,
    /// How many segments there are.
    pub segments: usize,
    /// The channels of each; the views have as many.
    pub channels: usize,
    /// The frames of each.
    pub frames: usize,
}

/// Views on the device.
#[derive(Debug)]
pub struct GpuViews {
    /// `[views][channels][frames]`; zeros where `failed` says so.
    pub samples: Buffer<f32>,
    /// Per view: 0 for a good one, 1 where samples are not finite, 2 for a silent source, 3 for one that is not
    /// finite, 4 where it could not be rendered.
    pub states: Buffer<u32>,
    /// The views that could not be rendered, and why.
    pub failed: Vec<(usize, AudioError)>,
    /// How many views there are.
    pub views: usize,
    /// The channels of a view.
    pub channels: usize,
    /// The frames of a view.
    pub frames: usize,
}

impl GpuViews {
    /// Per view what is wrong with it, as the CPU's renderer has it; waits for the device.
    ///
    /// # Errors
    /// [`GpuError::Failed`].
    pub fn rejects(&self, gpu: &Gpu) -> Result<Vec<Option<AudioError>>, GpuError> {
        let reject = |state: u32| {
            let (kind, message) = match state {
                0 => return None,
                1 => (RejectKind::NotFinite, "rendering gave samples that are not finite"),
                2 => (RejectKind::Silent, "nothing to hear in the range of the view"),
                3 => (RejectKind::NotFinite, "the source has samples that are not finite"),
                _ => (RejectKind::Corrupt, "the view could not be rendered"),
            };
            Some(AudioError::new(kind, message))
        };
        let mut rejects: Vec<_> = gpu.download(&self.states)?.into_iter().map(reject).collect();
        for (view, error) in &self.failed {
            if let Some(reject) = rejects.get_mut(*view) {
                *reject = Some(error.clone());
            }
        }
        Ok(rejects)
    }
}

/// Renders views of one chain on a device.
pub struct GpuRenderer {
    gpu: Gpu,
    chain: Chain,
    columns: Vec<String>,
    leaves: Vec<Leaf>,
    /// Per leaf; `None` for one that is part of a warp.
    kinds: Vec<Option<Kind>>,
    partners: Partners,
    scratch: Scratch,
    vocoder: warp::Plan,
    window: speed::Window,
    tables: Tables,
    staging: Staging,
    space: batch::Space,
    workspace: usize,
}

/// A view that is to be rendered: its place among all, its steps, and the frames that leave each.
struct Planned {
    view: usize,
    frames: usize,
    steps: Vec<(Step, usize)>,
}

arguments! {
    struct PcmArguments { samples: u64, segments: i64, frames: i64, channels: i32, wide: i32 }
    struct Inspect { pcm: PcmArguments, peaks: u64 }
}

impl GpuRenderer {
    /// Whether all operators of a chain have kernels.
    ///
    /// # Errors
    /// A sentence that names the first one without: render such a chain on the CPU.
    pub fn supports(chain: &Chain) -> Result<(), String> {
        chain.validate()?;
        match chain.operators().into_iter().find(|spec| Kind::of(spec.def()).is_err()) {
            Some(spec) => Err(format!("`{}` has no kernel for GPUs", spec.name())),
            None => Ok(()),
        }
    }

    /// Plans for a chain.
    ///
    /// # Errors
    /// [`GpuError::Shape`] for a chain that [`GpuRenderer::supports`] refuses, [`GpuError::Memory`].
    pub fn new(gpu: &Gpu, chain: &Chain) -> Result<Self, GpuError> {
        Self::supports(chain).map_err(GpuError::Shape)?;
        let leaves = chain.leaves();
        Ok(Self {
            gpu: gpu.clone(),
            columns: chain.columns(),
            kinds: leaves.iter().map(|leaf| Kind::of(leaf.spec.def()).ok().flatten()).collect(),
            leaves,
            partners: Partners::default(),
            scratch: Scratch::default(),
            vocoder: warp::Plan::new(gpu, chain.sample_rate)?,
            window: speed::Window::new(gpu)?,
            tables: Tables::default(),
            staging: Staging::default(),
            space: batch::Space::default(),
            workspace: WORKSPACE,
            chain: chain.clone(),
        })
    }

    /// With about so many bytes of the device's memory for views that are under way; at least one view is.
    pub fn with_workspace(self, bytes: usize) -> Self {
        Self { workspace: bytes, ..self }
    }

    /// Asks the device for the views of `draws`, each made from the segment that `segment_of` names; returns before
    /// they are rendered. Views come in the order of the draws. Second recordings are read here.
    ///
    /// # Errors
    /// [`GpuError::Shape`] when the sizes do not fit each other, and what the device fails with. What is wrong with a
    /// single view does not stop the others: see [`GpuViews::rejects`].
    pub fn render(
        &mut self,
        sources: &Sources<'_>,
        segment_of: &[u32],
        draws: &[Draw],
    ) -> Result<GpuViews, GpuError> {
        check(sources, segment_of, draws)?;
        let gpu = self.gpu.clone();
        let frames = self.chain.frames();
        let mut views = GpuViews {
            samples: gpu.memory(draws.len() * sources.channels * frames)?,
            states: gpu.memory(draws.len())?,
            failed: Vec::new(),
            views: draws.len(),
            channels: sources.channels,
            frames,
        };
        let pcm = pcm(sources);
        let peaks = gpu.memory::<u32>(sources.segments)?;
        let inspect = Inspect { pcm, peaks: peaks.address() };
        gpu.launch(&KERNELS, "inspect", Launch::blocks([sources.segments, 1, 1], 512), &inspect)?;
        let mut planned = Vec::with_capacity(draws.len());
        for (view, draw) in draws.iter().enumerate() {
            let plan = self.plan(view, draw, sources).unwrap_or_else(|error| {
                views.failed.push((view, error));
                Planned { view, frames: 0, steps: Vec::new() }
            });
            planned.push(plan);
        }
        let input = batch::Input { sources, pcm, peaks: &peaks, segment_of, draws };
        let mut rest = planned.as_slice();
        while !rest.is_empty() {
            let mut bytes = 0;
            let fits = |plan: &&Planned| {
                bytes += self.bytes(plan, sources.channels);
                bytes <= self.workspace
            };
            let count = rest.iter().take(BATCH).take_while(fits).count().max(1);
            let (now, later) = rest.split_at(count);
            self.batch(&input, now, &mut views)?;
            rest = later;
        }
        Ok(views)
    }

    /// Steps and lengths of a view, from the last one back.
    fn plan(&self, view: usize, draw: &Draw, sources: &Sources<'_>) -> Result<Planned, AudioError> {
        check_draw(&self.leaves, draw)?;
        let mut order = Vec::new();
        steps(&self.leaves, draw.order.iter().copied(), &mut order);
        let mut frames = self.chain.frames();
        let mut steps = Vec::with_capacity(order.len());
        for step in order.into_iter().rev() {
            let before = step_frames(&self.leaves, &step, draw, frames, self.chain.sample_rate);
            steps.push((step, frames));
            frames = before;
        }
        steps.reverse();
        if frames > sources.frames {
            let message = format!("the view needs {frames} frames of source, there are {}", sources.frames);
            return Err(AudioError::new(RejectKind::TooShort, message));
        }
        Ok(Planned { view, frames, steps })
    }

    /// What a view takes of the workspace, about.
    fn bytes(&self, plan: &Planned, channels: usize) -> usize {
        let longest = plan.steps.iter().map(|step| step.1).chain([plan.frames]).max().unwrap_or(0);
        let warps = plan.steps.iter().any(|(step, _)| matches!(step, Step::Warp(_)));
        // Frames overlap four times, are taken twice, and stand beside their spectra; transforms need as much again.
        let transforms = if warps { 6 * 4 } else { 8 };
        4 * longest * channels * (2 + transforms)
    }
}

fn pcm(sources: &Sources<'_>) -> PcmArguments {
    let (samples, wide) = match sources.samples {
        Pcm::F32(samples) => (samples.address(), 1),
        Pcm::I16(samples) => (samples.address(), 0),
    };
    PcmArguments {
        samples,
        segments: sources.segments as i64,
        frames: sources.frames as i64,
        channels: sources.channels as i32,
        wide,
    }
}

fn check(sources: &Sources<'_>, segment_of: &[u32], draws: &[Draw]) -> Result<(), GpuError> {
    let have = match sources.samples {
        Pcm::F32(samples) => samples.len(),
        Pcm::I16(samples) => samples.len(),
    };
    let need = sources.segments.saturating_mul(sources.channels).saturating_mul(sources.frames);
    let wrong = |message: String| Err(GpuError::Shape(message));
    if have < need {
        return wrong(format!("the segments need {need} samples, there are {have}"));
    }
    if sources.channels == 0 || sources.channels > CHANNELS {
        return wrong(format!(
            "segments have {} channels, and 1 to {CHANNELS} can be rendered",
            sources.channels
        ));
    }
    if segment_of.len() != draws.len() {
        return wrong(format!("{} draws name {} segments", draws.len(), segment_of.len()));
    }
    match segment_of.iter().find(|segment| **segment as usize >= sources.segments) {
        Some(segment) => wrong(format!("a view is of segment {segment} of {}", sources.segments)),
        None => Ok(()),
    }
}
