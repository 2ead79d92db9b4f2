//! How far views of a device lie from those of the CPU.

use super::{Gpu, GpuError, GpuLogMel, GpuRenderer, GpuViews, Pcm, Sources};
use crate::audio::Audio;
use crate::chain::{Chain, Channels};
use crate::error::AudioError;
use crate::features::{FrontEnd, LogMel};
use crate::render::Renderer;
use crate::rng::Key;
use crate::synth::ClipSpec;
use crate::views::{Draw, Pool, PoolClip, Pools};

/// How near the device comes to the CPU in one operator.
#[derive(Clone, Copy, Debug)]
pub struct Tolerance {
    /// The operator.
    pub operator: &'static str,
    /// The least ratio of a view's power to that of the difference, in dB.
    pub snr_db: f64,
    /// Why it is not without limit.
    pub why: &'static str,
}

/// The largest difference of log-mel frames, in dB: sums of a few hundred products in another order.
pub const LOG_MEL_DB: f64 = 0.01;

/// Samples are rounded to f32 once more or once less: 2^-24 is -144 dB.
const ROUNDING: &str = "f32 rounding of the same f64 arithmetic";
const VOCODER: &str = "f32 transforms of another order; a region at the edge of a decision may fall to the other side, \
                       which is seldom, and then heard in that region alone";
const TRANSFORM: &str = "an f32 transform of another order";

const fn row(operator: &'static str, snr_db: f64, why: &'static str) -> Tolerance {
    Tolerance { operator, snr_db, why }
}

/// The tolerance of every operator that has kernels.
pub const TOLERANCES: &[Tolerance] = &[
    row("gain", 140.0, ROUNDING),
    row("polarity", 140.0, ROUNDING),
    row("dc_offset", 140.0, ROUNDING),
    row("reverse", 140.0, ROUNDING),
    row("clipping", 140.0, ROUNDING),
    row("random_crop", 140.0, ROUNDING),
    row("fade", 120.0, "closed forms of the curves for recurrences"),
    row("time_mask", 120.0, "cosines of another library"),
    row("pan", 130.0, ROUNDING),
    row("stereo_width", 130.0, ROUNDING),
    row("bit_crush", 60.0, "a sample in the middle of a step may go the other way"),
    row("filter", 110.0, "the state is carried over runs of 16 samples by powers of the matrix"),
    row("equalizer", 100.0, "as the filter, up to four times"),
    row("colored_noise", 90.0, TRANSFORM),
    row("background", 120.0, ROUNDING),
    row("mixup", 120.0, ROUNDING),
    row("distortion", 90.0, "an exact antiderivative of tanh for a tabulated one"),
    row("loudness", 120.0, "the filtered side is rounded to f32 between its sections"),
    row("compressor", 100.0, "logarithms and powers of two by the device's own functions"),
    row("chorus", 90.0, "sines in closed form for a recurrence"),
    row("flanger", 80.0, "sines in closed form for a recurrence, fed back"),
    row("phaser", 90.0, "sines in closed form for a recurrence"),
    row("convolve", 90.0, TRANSFORM),
    row("room", 90.0, TRANSFORM),
    row("reverb", 80.0, "low-passes are summed up in another order, and the lines pass it on"),
    row("delay", 90.0, "low-passes run in f64"),
    row("tape_speed", 110.0, "sines of another library in the taps"),
    row("pitch_shift", 60.0, VOCODER),
    row("time_stretch", 60.0, VOCODER),
];

/// Of whole chains: their vocoder.
const CHAIN_DB: f64 = 60.0;

/// What a [`ParityRow`] measures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Measure {
    /// The power of the CPU's view over that of the difference, in dB; the worst view. At least the tolerance is
    /// asked for.
    SignalToNoise,
    /// The largest difference, in dB. At most the tolerance is allowed.
    LargestDifference,
}

/// One comparison of the device with the CPU.
#[derive(Clone, Debug)]
pub struct ParityRow {
    /// What was compared: an operator, a chain, log-mel frames.
    pub what: String,
    /// How.
    pub measure: Measure,
    /// The outcome; infinite where all samples are equal.
    pub value: f64,
    /// What is asked for.
    pub tolerance: f64,
}

impl ParityRow {
    /// Whether the outcome lies within the tolerance.
    pub fn holds(&self) -> bool {
        match self.measure {
            Measure::SignalToNoise => self.value >= self.tolerance,
            Measure::LargestDifference => self.value <= self.tolerance,
        }
    }
}

/// The chain of the LOEV paper.
const LOEV: (&str, &str) =
    (r#"["pitch_shift", "time_stretch"]"#, r#"["gain", "polarity", "colored_noise", "filter"]"#);
/// Groups and a shuffle with a warp in it.
const GROUPS: (&str, &str) = (
    r#"["time_stretch"]"#,
    r#"[{"one_of": ["polarity", "clipping"]},
       {"shuffle": [{"gain": {"p": 1}}, {"pitch_shift": {"p": 0.7}}, {"colored_noise": {"p": 0.8}}, "equalizer"]},
       {"some_of": {"n": [1, 2], "of": ["filter", "fade", "reverse"]}}]"#,
);

/// Compares views of `seconds` at 16 kHz that a device renders with the CPU's: every operator that has kernels, by
/// itself and on two channels, then the LOEV chain, one with groups, and log-mel frames. Sources are tones, noise and
/// clicks; second recordings are synthesised.
///
/// # Errors
/// What the device fails with, and [`GpuError::Shape`] for views that the CPU cannot render either.
pub fn parity(gpu: &Gpu, seconds: f64, segments: usize) -> Result<Vec<ParityRow>, GpuError> {
    let mut rows = Vec::new();
    for Tolerance { operator, snr_db, .. } in TOLERANCES {
        let def = crate::operators::find(operator);
        let from = if def.is_some_and(|def| def.partner().is_some()) { r#", "from": "others""# } else { "" };
        let base = format!(r#"[{{"{operator}": {{"p": 1{from}}}}}]"#);
        let case = Case::new(("[]", &base), Channels::Stereo, seconds, segments)?;
        rows.push(case.row(gpu, operator, *snr_db)?);
    }
    for (what, chain, channels) in [
        ("LOEV chain", LOEV, Channels::Mono),
        ("LOEV chain, stereo", LOEV, Channels::Stereo),
        ("groups and a shuffle", GROUPS, Channels::Mono),
    ] {
        rows.push(Case::new(chain, channels, seconds, segments)?.row(gpu, what, CHAIN_DB)?);
    }
    rows.push(Case::new(LOEV, Channels::Stereo, seconds, segments)?.log_mel(gpu)?);
    Ok(rows)
}

fn refused(error: AudioError) -> GpuError {
    GpuError::Shape(error.to_string())
}

/// A chain, sources, and draws of them.
pub(super) struct Case {
    pub chain: Chain,
    pub sources: Vec<Audio>,
    pub draws: Vec<Draw>,
    pub segment_of: Vec<u32>,
}

impl Case {
    pub fn new(
        (variant, base): (&str, &str),
        channels: Channels,
        seconds: f64,
        segments: usize,
    ) -> Result<Self, GpuError> {
        let list = |e: serde_json::Error| GpuError::Shape(e.to_string());
        let chain = Chain {
            sample_rate: 16_000,
            seconds,
            channels,
            base: serde_json::from_str(base).map_err(list)?,
            variant: serde_json::from_str(variant).map_err(list)?,
            sampling: crate::chain::Sampling::Factorial,
        };
        let frames = chain.read_frames();
        let clip = |index: u64| PoolClip {
            clip_id: index.to_string(),
            uri: ClipSpec { seed: 1, index, seconds: 4.0 }.uri(),
            seconds: 4.0,
        };
        let pools = Pools::from([("others".to_owned(), Pool::new(vec![clip(1), clip(2)]))]);
        let mut case = Self { chain, sources: Vec::new(), draws: Vec::new(), segment_of: Vec::new() };
        for segment in 0..segments as u32 {
            case.sources.push(source(segment, frames, channels.count()));
            let draws = case.chain.draw_segment(Key::root(11), "clip", 60.0, segment, 0, &pools);
            for draw in draws.map_err(refused)? {
                case.draws.push(draw);
                case.segment_of.push(segment);
            }
        }
        Ok(case)
    }

    /// Samples of all segments, as they lie on the device.
    pub fn samples(&self) -> Vec<f32> {
        self.sources.iter().flat_map(|source| source.channels.iter().flatten().copied()).collect()
    }

    pub fn sources<'a>(&self, samples: Pcm<'a>) -> Sources<'a> {
        Sources {
            samples,
            segments: self.sources.len(),
            channels: self.sources.first().map_or(1, |source| source.channels.len()),
            frames: self.sources.first().map_or(0, Audio::frames),
        }
    }

    pub fn views(&self, gpu: &Gpu) -> Result<GpuViews, GpuError> {
        let samples = gpu.upload(&self.samples())?;
        let mut renderer = GpuRenderer::new(gpu, &self.chain)?;
        renderer.render(&self.sources(Pcm::F32(&samples)), &self.segment_of, &self.draws)
    }

    /// The CPU's views.
    pub fn expected(&self) -> Result<Vec<Audio>, GpuError> {
        let mut renderer = Renderer::new(&self.chain).map_err(refused)?;
        let pairs = self.draws.iter().zip(&self.segment_of);
        pairs.map(|(draw, of)| renderer.render(&self.sources[*of as usize], draw).map_err(refused)).collect()
    }

    fn row(&self, gpu: &Gpu, what: &str, tolerance: f64) -> Result<ParityRow, GpuError> {
        let views = self.views(gpu)?;
        if let Some(reject) = views.rejects(gpu)?.into_iter().flatten().next() {
            return Err(refused(reject));
        }
        let samples = gpu.download(&views.samples)?;
        let expected = self.expected()?;
        let value = expected
            .iter()
            .zip(samples.chunks(views.channels * views.frames))
            .map(|(view, got)| signal_to_noise(view.channels.iter().flatten(), got))
            .fold(f64::INFINITY, f64::min);
        Ok(ParityRow { what: what.to_owned(), measure: Measure::SignalToNoise, value, tolerance })
    }

    /// Log-mel frames of the device's own views, by the device and by the CPU.
    fn log_mel(&self, gpu: &Gpu) -> Result<ParityRow, GpuError> {
        let front_end = FrontEnd::default();
        let views = self.views(gpu)?;
        let got = gpu.download(&GpuLogMel::new(gpu, &front_end)?.compute(&views)?)?;
        let samples = gpu.download(&views.samples)?;
        let mut log_mel = LogMel::new(&front_end);
        let size = front_end.frames(views.frames) * front_end.mels;
        let mut value = 0.0f64;
        for (got, view) in got.chunks(size).zip(samples.chunks(views.channels * views.frames)) {
            let channels = view.chunks(views.frames).map(<[f32]>::to_vec).collect();
            let mut want = vec![0.0; size];
            log_mel.compute(&Audio { rate: 16_000, channels }.to_mono(), &mut want);
            let apart = got.iter().zip(&want).map(|(a, b)| f64::from((a - b).abs()));
            // What is no number is infinitely far off.
            value = apart.fold(value, |most, x| if x.is_nan() { f64::INFINITY } else { most.max(x) });
        }
        let (what, measure) = ("log-mel".to_owned(), Measure::LargestDifference);
        Ok(ParityRow { what, measure, value, tolerance: LOG_MEL_DB })
    }
}

/// The power of `want` over that of the difference, in dB; infinite where nothing differs.
pub(super) fn signal_to_noise<'a>(want: impl Iterator<Item = &'a f32>, got: &[f32]) -> f64 {
    let (mut signal, mut noise) = (0.0f64, 0.0f64);
    for (a, b) in want.zip(got) {
        signal += f64::from(*a).powi(2);
        noise += (f64::from(*a) - f64::from(*b)).powi(2);
    }
    let ratio = 10.0 * (signal / noise).log10();
    if noise == 0.0 {
        f64::INFINITY
    } else if ratio.is_nan() {
        f64::NEG_INFINITY
    } else {
        ratio
    }
}

/// Tones, noise and clicks, in parts that differ by segment and channel.
fn source(segment: u32, frames: usize, channels: usize) -> Audio {
    let channel = |c: usize| {
        let mut rng = Key::root(5).with(u64::from(segment)).with(c as u64).rng();
        let tones: [(f64, f64); 4] =
            std::array::from_fn(|_| (rng.uniform(80.0, 3_000.0), rng.uniform(0.02, 0.15)));
        let noise = [0.05, 0.002, 0.2][segment as usize % 3];
        let every = 1_500 + 700 * (segment as usize % 4);
        let sample = |i: usize| {
            let tone =
                |(hz, level): &(f64, f64)| level * (std::f64::consts::TAU * hz * i as f64 / 16_000.0).sin();
            let click = 0.5 * (-((i % every) as f64) / 60.0).exp();
            let steady: f64 = tones.iter().map(tone).sum();
            (steady + (noise + click) * rng.uniform(-1.0, 1.0)) as f32
        };
        (0..frames).map(sample).collect()
    };
    Audio { rate: 16_000, channels: (0..channels).map(channel).collect() }
}
