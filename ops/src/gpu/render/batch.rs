//! One batch: rounds are planned on the host, sent, and launched.

use super::round::{Own, Pass, Round};
use super::tables::{At, Tables};
use super::{
    GpuRenderer, GpuViews, PcmArguments, Planned, Sources, THREADS, arguments, convolve, dynamics, effects,
    filter, noise, point, room, speed, warp,
};
use crate::chain::Step;
use crate::gpu::{Buffer, Gpu, GpuError, KERNELS, Launch, Plain};
use crate::rng::Key;
use crate::views::{Draw, SILENT, operator_key};

/// What all batches of a call share.
pub(super) struct Input<'a> {
    pub sources: &'a Sources<'a>,
    pub pcm: PcmArguments,
    pub peaks: &'a Buffer<u32>,
    pub segment_of: &'a [u32],
    pub draws: &'a [Draw],
}

/// Memory of the device that batches use one after the other.
#[derive(Default)]
pub(super) struct Space {
    pub arena: Option<Buffer<f32>>,
    pub measures: Option<Buffer<u64>>,
    /// Rows of samples and of spectra, for transforms.
    pub rows: Option<Buffer<f32>>,
    pub spectra: Option<Buffer<f32>>,
    /// Small things of single kernels.
    pub other: Option<Buffer<u64>>,
}

arguments! {
    /// `Arena` of `audio.cuh`.
    struct Arena { samples: u64, stride: i64, channels: i32, views: i32 }
    struct GatherView { from: i64, to: i64, frames: i32, gap: i32 }
    struct Gather { arena: Arena, pcm: PcmArguments, views: u64 }
    struct CollectView { at: i64, segment: i32, place: i32 }
    struct Collect {
        arena: Arena, views: u64, peaks: u64, samples: u64, states: u64, frames: i64, silent: f32,
        gap: i32,
    }
    /// `MeasureView` of `source.cu`.
    struct MeasureView { at: i64, stride: i64, frames: i32, gap: i32 }
    struct MeasureAll { samples: u64, views: u64, measures: u64, channels: i32, gap: i32 }
}

/// The words of a `Measure`.
const MEASURE: usize = 2;

/// Where a view is in the arena: in one of its two places, some frames in.
pub(super) struct Spot {
    pub slot: usize,
    pub side: usize,
    pub skip: usize,
    pub frames: usize,
    /// It cannot be rendered.
    pub failed: bool,
}

/// The arena of a batch.
#[derive(Clone, Copy)]
pub(super) struct Layout {
    pub slots: usize,
    pub channels: usize,
    pub stride: usize,
}

impl Layout {
    /// The first sample of one of the two places of a view.
    pub fn place(&self, slot: usize, side: usize) -> i64 {
        ((side * self.slots + slot) * self.channels * self.stride) as i64
    }

    /// The first sample of a view.
    pub fn at(&self, spot: &Spot) -> i64 {
        self.place(spot.slot, spot.side) + spot.skip as i64
    }
}

/// What launches need.
pub(super) struct Run<'a> {
    pub gpu: &'a Gpu,
    /// Where the tables are.
    pub base: u64,
    pub layout: Layout,
    pub rate: u32,
    pub space: &'a mut Space,
    pub vocoder: &'a warp::Plan,
}

impl Run<'_> {
    /// The arena for a launch over some views.
    pub fn arena(&self, views: usize) -> Arena {
        Arena {
            samples: self.space.arena.as_ref().map_or(0, Buffer::address),
            stride: self.layout.stride as i64,
            channels: self.layout.channels as i32,
            views: views as i32,
        }
    }

    /// The address of the measure of that number.
    pub fn measures(&self, first: usize) -> u64 {
        self.space.measures.as_ref().map_or(0, Buffer::address) + (8 * MEASURE * first) as u64
    }

    pub fn table(&self, at: At) -> u64 {
        at.address(self.base)
    }

    pub fn launch<A: Plain>(
        &self,
        name: &'static str,
        launch: Launch,
        arguments: &A,
    ) -> Result<(), GpuError> {
        self.gpu.launch(&KERNELS, name, launch, arguments)
    }

    /// Energy and peak of some sounds, in memory that begins at `samples`.
    pub fn measure(&self, samples: u64, views: At, count: usize, first: usize) -> Result<(), GpuError> {
        let arguments = MeasureAll {
            samples,
            views: self.table(views),
            measures: self.measures(first),
            channels: self.layout.channels as i32,
            gap: 0,
        };
        self.launch("measure", Launch::blocks([count, 1, 1], THREADS), &arguments)
    }
}

impl GpuRenderer {
    /// Renders some views.
    pub(super) fn batch(
        &mut self,
        input: &Input<'_>,
        planned: &[Planned],
        views: &mut GpuViews,
    ) -> Result<(), GpuError> {
        let gpu = self.gpu.clone();
        let mut tables = std::mem::take(&mut self.tables);
        tables.clear();
        let longest =
            planned.iter().flat_map(|plan| plan.steps.iter().map(|step| step.1).chain([plan.frames])).max();
        // Rows begin where loads are aligned.
        let stride = longest.unwrap_or(0).next_multiple_of(32);
        let layout = Layout { slots: planned.len(), channels: views.channels, stride };
        let mut spots: Vec<Spot> = planned
            .iter()
            .enumerate()
            .map(|(slot, plan)| Spot {
                slot,
                side: 0,
                skip: 0,
                frames: plan.frames,
                failed: plan.frames == 0,
            })
            .collect();
        let gathers: Vec<GatherView> = planned
            .iter()
            .zip(&spots)
            .map(|(plan, spot)| {
                let excess = input.sources.frames.saturating_sub(plan.frames) / 2;
                let segment = input.segment_of[plan.view] as usize;
                let from = segment * input.sources.channels * input.sources.frames + excess;
                GatherView { from: from as i64, to: layout.at(spot), frames: plan.frames as i32, gap: 0 }
            })
            .collect();
        let gather = tables.push(&gathers);
        let mut measures = 0;
        let mut passes: Vec<Pass> = Vec::new();
        let rounds = planned.iter().map(|plan| plan.steps.len()).max().unwrap_or(0);
        for round in 0..rounds {
            let mut work = Round::new(layout, self.chain.sample_rate, measures);
            for (plan, spot) in planned.iter().zip(&mut spots).filter(|(_, spot)| !spot.failed) {
                let Some((step, frames)) = plan.steps.get(round) else { continue };
                if let Err(error) =
                    self.add(&mut work, &mut tables, step, *frames, &input.draws[plan.view], spot)
                {
                    spot.failed = true;
                    views.failed.push((plan.view, error));
                }
            }
            measures = work.finish(&mut tables, &mut passes);
        }
        let collects: Vec<CollectView> = planned
            .iter()
            .zip(&spots)
            .map(|(plan, spot)| {
                let segment = if spot.failed { -1 } else { input.segment_of[plan.view] as i32 };
                CollectView { at: layout.at(spot), segment, place: plan.view as i32 }
            })
            .collect();
        let collect = tables.push(&collects);

        room(&gpu, &mut self.space.arena, 2 * layout.slots * layout.channels * stride)?;
        room(&gpu, &mut self.space.measures, measures * MEASURE)?;
        let base = self.staging.send(&gpu, &tables)?;
        self.tables = tables;
        let mut run = Run {
            gpu: &gpu,
            base,
            layout,
            rate: self.chain.sample_rate,
            space: &mut self.space,
            vocoder: &self.vocoder,
        };
        let arena = run.arena(planned.len());
        let tiles = stride.div_ceil(THREADS as usize);
        let grid = Launch::blocks([tiles, layout.channels, planned.len()], THREADS);
        run.launch("gather", grid, &Gather { arena, pcm: input.pcm, views: run.table(gather) })?;
        for pass in &passes {
            match pass {
                Pass::Measure { views, count, first } => {
                    run.measure(run.arena(0).samples, *views, *count, *first)?;
                }
                Pass::MeasureTables { views, count, first } => run.measure(base, *views, *count, *first)?,
                Pass::Warp(pass) => warp::run(&mut run, pass)?,
                Pass::Points(pass) => point::points(&run, pass)?,
                Pass::Biquads(pass) => filter::biquads(&run, pass)?,
                Pass::Loudness(pass) => filter::loudness(&mut run, pass)?,
                Pass::Compressor(pass) => dynamics::compressors(&run, pass)?,
                Pass::Chorus(pass) => dynamics::choruses(&run, pass)?,
                Pass::Flanger(pass) => dynamics::flangers(&run, pass)?,
                Pass::Phaser(pass) => dynamics::phasers(&run, pass)?,
                Pass::Speed(pass) => speed::run(&mut run, &self.window, pass)?,
                Pass::Noise(pass) => noise::run(&mut run, pass)?,
                Pass::Distortion(pass) => effects::distortions(&run, pass)?,
                Pass::Delay(pass) => effects::delays(&run, pass)?,
                Pass::Reverb(pass) => effects::reverbs(&mut run, pass)?,
                Pass::Convolve(pass) => convolve::run(&mut run, pass)?,
                Pass::Mix(pass) => effects::mix(&run, pass)?,
            }
        }
        let collect = Collect {
            arena,
            views: run.table(collect),
            peaks: input.peaks.address(),
            samples: views.samples.address(),
            states: views.states.address(),
            frames: views.frames as i64,
            silent: SILENT,
            gap: 0,
        };
        run.launch("collect", Launch::blocks([planned.len(), 1, 1], 512), &collect)
    }

    /// Adds a step of a view to a round.
    fn add(
        &mut self,
        round: &mut Round,
        tables: &mut Tables,
        step: &Step,
        frames: usize,
        draw: &Draw,
        spot: &mut Spot,
    ) -> Result<(), crate::AudioError> {
        let params = |i: usize| draw.params.get(i).and_then(Option::as_deref);
        match step {
            Step::Warp(range) => {
                let warp = crate::render::warp(&self.leaves, range, params);
                round.warp(&self.vocoder, warp, frames, spot);
                Ok(())
            }
            Step::Leaf(i) => {
                let (Some(params), Some(kind)) = (params(*i), self.kinds[*i]) else { return Ok(()) };
                let leaf = &self.leaves[*i];
                let key = operator_key(Key::from_value(draw.key), &leaf.spec, &self.columns[*i]);
                let key = key.with_str("render");
                let Some(extent) = leaf.spec.def().partner() else {
                    let mut own = Own { tables, scratch: &mut self.scratch };
                    round.leaf(&mut own, kind, params, key, frames, spot);
                    return Ok(());
                };
                let Some(partner) = draw.partners.get(*i).and_then(Option::as_ref) else { return Ok(()) };
                let (rate, channels) = (self.chain.sample_rate, round.layout.channels);
                let other = self
                    .partners
                    .read(partner, extent, rate, channels, spot.frames)
                    .map_err(|e| crate::render::of_partner(e, partner, leaf))?;
                round.partner(tables, kind, params, other, spot);
                Ok(())
            }
        }
    }
}
