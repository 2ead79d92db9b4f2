//! One round: the next step of every view, by kind.

use std::collections::BTreeMap;

use super::batch::{Layout, MeasureView, Spot};
use super::convolve::{ConvolvePass, ConvolveView, Response};
use super::dynamics::{ChorusView, CompressorView, PhaserView};
use super::effects::{DelayView, DistortionView, MixPass, MixView, ReverbPass, ReverbView, Sides, ViewsPass};
use super::filter::{BiquadPass, BiquadView, LoudnessPass, LoudnessView, Section};
use super::noise::{NoisePass, NoiseView};
use super::point::{PointView, PointsPass};
use super::speed::{SpeedPass, SpeedView};
use super::tables::{At, Tables};
use super::{dynamics, effects, filter, noise, point, speed, warp};
use crate::audio::Audio;
use crate::operator::{Kernel, OperatorDef, Scratch, Warp};
use crate::operators::colored_noise::smooth_length;
use crate::operators::room;
use crate::render::first_frame;
use crate::rng::Key;

/// The operators that have kernels and are no warps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Gain,
    Polarity,
    DcOffset,
    Clipping,
    Fade,
    TimeMask,
    Reverse,
    Pan,
    StereoWidth,
    BitCrush,
    Filter,
    Equalizer,
    ColoredNoise,
    Background,
    Mixup,
    Distortion,
    Convolve,
    Room,
    Reverb,
    Delay,
    Loudness,
    Compressor,
    Chorus,
    Phaser,
    Speed,
    Shift,
}

impl Kind {
    /// The kind of an operator, `None` for a warp.
    ///
    /// # Errors
    /// For an operator without a kernel.
    pub fn of(def: &OperatorDef) -> Result<Option<Self>, ()> {
        match def.kernel {
            Kernel::Warp(_) => return Ok(None),
            Kernel::Shift(_) => return Ok(Some(Self::Shift)),
            Kernel::Speed(_) => return Ok(Some(Self::Speed)),
            Kernel::Samples(_) | Kernel::Partner(..) => {}
        }
        Ok(Some(match def.name {
            "gain" => Self::Gain,
            "polarity" => Self::Polarity,
            "dc_offset" => Self::DcOffset,
            "clipping" => Self::Clipping,
            "fade" => Self::Fade,
            "time_mask" => Self::TimeMask,
            "reverse" => Self::Reverse,
            "pan" => Self::Pan,
            "stereo_width" => Self::StereoWidth,
            "bit_crush" => Self::BitCrush,
            "filter" => Self::Filter,
            "equalizer" => Self::Equalizer,
            "colored_noise" => Self::ColoredNoise,
            "background" => Self::Background,
            "mixup" => Self::Mixup,
            "distortion" => Self::Distortion,
            "convolve" => Self::Convolve,
            "room" => Self::Room,
            "reverb" => Self::Reverb,
            "delay" => Self::Delay,
            "loudness" => Self::Loudness,
            "compressor" => Self::Compressor,
            "chorus" => Self::Chorus,
            "phaser" => Self::Phaser,
            _ => return Err(()),
        }))
    }
}

/// Launches that follow each other.
pub(super) enum Pass {
    /// Levels of views in the arena.
    Measure {
        views: At,
        count: usize,
        first: usize,
    },
    /// Levels of recordings among the tables.
    MeasureTables {
        views: At,
        count: usize,
        first: usize,
    },
    Warp(warp::WarpPass),
    Points(PointsPass),
    Biquads(BiquadPass),
    Noise(NoisePass),
    Loudness(LoudnessPass),
    Compressor(ViewsPass),
    Chorus(ViewsPass),
    Phaser(ViewsPass),
    Speed(SpeedPass),
    Distortion(ViewsPass),
    Delay(ViewsPass),
    Reverb(ReverbPass),
    Convolve(ConvolvePass),
    Mix(MixPass),
}

/// What planning a leaf may need beside the round.
pub(super) struct Own<'a> {
    pub tables: &'a mut Tables,
    pub scratch: &'a mut Scratch,
}

/// What a round does, gathered.
pub(super) struct Round {
    pub layout: Layout,
    pub rate: u32,
    /// The number of the first measure, and what is measured: views before anything else, then recordings, then what
    /// effects made.
    first: usize,
    measures: Vec<MeasureView>,
    recordings: Vec<MeasureView>,
    wet: Vec<MeasureView>,
    warps: Vec<warp::WarpView>,
    points: Vec<PointView>,
    biquads: Vec<BiquadView>,
    sections: Vec<Section>,
    noises: BTreeMap<usize, Vec<NoiseView>>,
    loudnesses: Vec<LoudnessView>,
    compressors: Vec<CompressorView>,
    choruses: Vec<ChorusView>,
    phasers: Vec<PhaserView>,
    speeds: Vec<SpeedView>,
    distortions: Vec<DistortionView>,
    delays: Vec<DelayView>,
    reverbs: Vec<ReverbView>,
    convolutions: BTreeMap<usize, Vec<ConvolveView>>,
    /// Sounds to mix in, from the tables and from the arena. Numbers of measures of the second sound count from the first
    /// of its list until the round is finished.
    mixes: [Vec<MixView>; 2],
}

impl Round {
    pub fn new(layout: Layout, rate: u32, first: usize) -> Self {
        Self {
            layout,
            rate,
            first,
            measures: Vec::new(),
            recordings: Vec::new(),
            wet: Vec::new(),
            warps: Vec::new(),
            points: Vec::new(),
            biquads: Vec::new(),
            sections: Vec::new(),
            noises: BTreeMap::new(),
            loudnesses: Vec::new(),
            compressors: Vec::new(),
            choruses: Vec::new(),
            phasers: Vec::new(),
            speeds: Vec::new(),
            distortions: Vec::new(),
            delays: Vec::new(),
            reverbs: Vec::new(),
            convolutions: BTreeMap::new(),
            mixes: [Vec::new(), Vec::new()],
        }
    }

    /// Has a view measured first; the number of the measure.
    fn measure(&mut self, at: i64, frames: usize) -> i32 {
        let stride = self.layout.stride as i64;
        self.measures.push(MeasureView { at, stride, frames: frames as i32, gap: 0 });
        (self.first + self.measures.len() - 1) as i32
    }

    /// A view with its other place, measured first.
    fn sides(&mut self, spot: &Spot) -> Sides {
        let at = self.layout.at(spot);
        let to = self.layout.place(spot.slot, 1 - spot.side);
        Sides { at, to, frames: spot.frames, measure: self.measure(at, spot.frames) }
    }

    /// Mixes a sound in that an effect leaves in the view's other place, and has it measured before.
    fn blend(&mut self, mut mix: MixView) {
        let stride = self.layout.stride as i64;
        (mix.stride, mix.other_measure) = (stride, self.wet.len() as i32);
        self.wet.push(MeasureView { at: mix.other, stride, frames: mix.frames - mix.delay, gap: 0 });
        self.mixes[1].push(mix);
    }

    /// A view goes through the vocoder to its other place.
    pub fn warp(&mut self, plan: &warp::Plan, warp: Warp, frames: usize, spot: &mut Spot) {
        let from = self.layout.at(spot);
        let to = self.layout.place(spot.slot, 1 - spot.side);
        self.warps.push(plan.view(warp, from, spot.frames, to, frames));
        (spot.side, spot.skip, spot.frames) = (1 - spot.side, 0, frames);
    }

    /// An operator without a second recording.
    pub fn leaf(
        &mut self,
        own: &mut Own<'_>,
        kind: Kind,
        params: &[f64],
        key: Key,
        frames: usize,
        spot: &mut Spot,
    ) {
        let at = self.layout.at(spot);
        match kind {
            Kind::Shift => {
                let shift = params.first().copied().unwrap_or(0.0) * f64::from(self.rate);
                spot.skip += first_frame(spot.frames, frames, shift);
                spot.frames = frames;
            }
            Kind::Filter | Kind::Equalizer => {
                self.filter(filter::sections(kind, params, self.rate), at, at, spot.frames);
            }
            Kind::Loudness => {
                let to = self.layout.place(spot.slot, 1 - spot.side);
                let Some(view) = filter::louder(params, at, to, spot.frames, self.rate) else { return };
                self.filter(filter::sections(kind, params, self.rate), at, to, spot.frames);
                self.loudnesses.push(view);
            }
            Kind::Speed => {
                let sides = self.sides(spot);
                let speed = params.first().copied().unwrap_or(1.0);
                self.speeds.push(speed::view(speed, sides, frames));
                (spot.side, spot.skip, spot.frames) = (1 - spot.side, 0, frames);
            }
            Kind::Compressor => {
                self.compressors.extend(dynamics::compress(params, at, spot.frames, self.rate));
            }
            Kind::Phaser => {
                self.phasers.extend(dynamics::phase(params, key, at, spot.frames, self.rate));
            }
            Kind::Chorus if dynamics::has_chorus(params) => {
                let sides = self.sides(spot);
                self.choruses.extend(dynamics::sing(params, key, sides, self.rate));
                (spot.side, spot.skip) = (1 - spot.side, 0);
            }
            Kind::Delay => {
                let sides = self.sides(spot);
                let Some((view, mix)) = effects::echo(params, sides, self.rate) else { return };
                self.delays.push(view);
                self.blend(mix);
            }
            Kind::Reverb => {
                let sides = self.sides(spot);
                let Some((view, mix)) = effects::reverberate(params, sides, self.rate) else { return };
                self.reverbs.push(view);
                self.blend(mix);
            }
            Kind::Room => {
                let Some(mix) = params.last().copied().filter(|mix| *mix > 0.0) else { return };
                let (rate, channels) = (self.rate, self.layout.channels);
                let responses =
                    room::responses(params, rate, spot.frames, channels, &mut key.rng(), own.scratch);
                if let Some((channels, energy)) = responses {
                    self.convolve(own.tables, &Response { channels, lead: room::HALF, energy }, mix, spot);
                }
            }
            Kind::ColoredNoise => {
                let measure = self.measure(at, spot.frames);
                if let Some(view) = noise::view(params, key, at, spot.frames, measure) {
                    self.noises.entry(smooth_length(spot.frames)).or_default().push(view);
                }
            }
            Kind::Distortion => {
                let sides = self.sides(spot);
                let Some((view, mix)) = effects::distort(params, sides) else { return };
                self.distortions.push(view);
                self.blend(mix);
            }
            _ => {
                let Some(mut view) = point::view(kind, params, self.rate, self.layout.channels, spot.frames)
                else {
                    return;
                };
                (view.at, view.key) = (at, key.value());
                if kind == Kind::Clipping {
                    view.measure = self.measure(at, spot.frames);
                }
                self.points.push(view);
            }
        }
    }

    /// Filters a view by some sections, if any.
    fn filter(&mut self, sections: Vec<Section>, at: i64, to: i64, frames: usize) {
        let (first, count) = (self.sections.len() as i32, sections.len() as i32);
        if count > 0 {
            self.sections.extend(sections);
            self.biquads.push(BiquadView { at, to, frames: frames as i32, first, count, gap: 0 });
        }
    }

    /// Convolves a view with a response, which goes with the tables.
    fn convolve(&mut self, tables: &mut Tables, response: &Response, mix: f64, spot: &Spot) {
        let sides = self.sides(spot);
        let (length, view, mix) = response.view(sides, mix, tables);
        self.convolutions.entry(length).or_default().push(view);
        self.blend(mix);
    }

    /// An operator with a second recording, which goes with the tables.
    pub fn partner(&mut self, tables: &mut Tables, kind: Kind, params: &[f64], other: &Audio, spot: &Spot) {
        if let (Kind::Convolve, [mix]) = (kind, params) {
            if let Some(response) = Response::recorded(other).filter(|_| *mix > 0.0) {
                self.convolve(tables, &response, *mix, spot);
            }
            return;
        }
        let Some((keep, add)) = effects::gains(kind, params) else { return };
        let sides = self.sides(spot);
        let places: Vec<At> = other.channels.iter().map(|channel| tables.push(channel)).collect();
        let first = places.first().map_or(0, |at| at.samples());
        // Channels are of one length, so their places are equally far apart.
        let stride = places.get(1).map_or(0, |at| at.samples() - first);
        let other_measure = self.recordings.len() as i32;
        self.recordings.push(MeasureView { at: first, stride, frames: spot.frames as i32, gap: 0 });
        let mix = MixView::matched(sides, keep, add);
        self.mixes[0].push(MixView { other: first, stride, other_measure, ..mix });
    }

    /// Turns what was gathered into passes; the number of the next measure.
    pub fn finish(mut self, tables: &mut Tables, passes: &mut Vec<Pass>) -> usize {
        let mut next = self.first;
        let mut number = |tables: &mut Tables, views: &[MeasureView]| {
            let (first, count) = (next, views.len());
            next += count;
            (count > 0).then(|| (tables.push(views), count, first))
        };
        let own = number(tables, &self.measures);
        let recordings = number(tables, &self.recordings);
        let wet = number(tables, &self.wet);
        for (mixes, others) in self.mixes.iter_mut().zip([recordings, wet]) {
            let first = others.map_or(0, |(_, _, first)| first as i32);
            mixes.iter_mut().for_each(|mix| mix.other_measure += first);
        }
        if let Some((views, count, first)) = own {
            passes.push(Pass::Measure { views, count, first });
        }
        if let Some((views, count, first)) = recordings {
            passes.push(Pass::MeasureTables { views, count, first });
        }
        if !self.warps.is_empty() {
            passes.push(Pass::Warp(warp::WarpPass::new(&mut self.warps, tables)));
        }
        if !self.points.is_empty() {
            passes.push(Pass::Points(PointsPass::new(&self.points, tables)));
        }
        if !self.biquads.is_empty() {
            passes.push(Pass::Biquads(BiquadPass::new(&self.biquads, &self.sections, tables)));
        }
        if !self.loudnesses.is_empty() {
            let channels = self.layout.channels;
            passes.push(Pass::Loudness(LoudnessPass::new(&self.loudnesses, channels, tables)));
        }
        if !self.compressors.is_empty() {
            passes.push(Pass::Compressor(ViewsPass::new(&self.compressors, |view| view.frames, tables)));
        }
        if !self.choruses.is_empty() {
            passes.push(Pass::Chorus(ViewsPass::new(&self.choruses, |view| view.frames, tables)));
        }
        if !self.phasers.is_empty() {
            passes.push(Pass::Phaser(ViewsPass::new(&self.phasers, |view| view.frames, tables)));
        }
        if !self.speeds.is_empty() {
            passes.push(Pass::Speed(SpeedPass::new(&mut self.speeds, tables)));
        }
        for (length, views) in &self.noises {
            passes.push(Pass::Noise(NoisePass::new(*length, views, tables)));
        }
        if !self.distortions.is_empty() {
            passes.push(Pass::Distortion(ViewsPass::new(&self.distortions, |view| view.frames, tables)));
        }
        if !self.delays.is_empty() {
            passes.push(Pass::Delay(ViewsPass::new(&self.delays, |view| view.frames, tables)));
        }
        if !self.reverbs.is_empty() {
            passes.push(Pass::Reverb(ReverbPass::new(&mut self.reverbs, tables)));
        }
        for (length, views) in &self.convolutions {
            passes.push(Pass::Convolve(ConvolvePass::new(*length, views, tables)));
        }
        if let Some((views, count, first)) = wet {
            passes.push(Pass::Measure { views, count, first });
        }
        for (mixes, of_tables) in self.mixes.iter().zip([true, false]) {
            if !mixes.is_empty() {
                passes.push(Pass::Mix(MixPass {
                    views: ViewsPass::new(mixes, |mix| mix.frames, tables),
                    of_tables,
                }));
            }
        }
        next
    }
}
