//! Rendering on the device: the same views as on the CPU, and how many of them a second.

use std::fmt::Write as _;
use std::time::Duration;

use loev_ops::AudioError;
use loev_ops::chain::{Chain, Channels, Sampling};
use loev_ops::features::FrontEnd;
use loev_ops::gpu::{self, Buffer, Gpu, GpuLogMel, GpuRenderer, Measure, ParityRow, Pcm, Sources};
use loev_ops::operators;
use loev_ops::render::Renderer;
use loev_ops::rng::Key;
use loev_ops::source::Source;
use loev_ops::views::{Draw, Pools};
use serde::Serialize;

use super::{Check, Kernels, seconds_of, wait};
use crate::error::RunError;

/// Views that are rendered at a time, and how many of one segment.
const VIEWS: usize = 2048;
const RATE: u32 = 16_000;
/// Length of the views that are compared with the CPU's, and of how many segments they are.
const PARITY_SECONDS: f64 = 3.0;
const PARITY_SEGMENTS: usize = 4;
/// Length of the clips that segments are cut from, in seconds, and how many there are.
const CLIP_SECONDS: f64 = 30.0;
const CLIPS: usize = 16;
/// The chain of the method's examples: two factors, four operators.
const LOEV: (&str, &str) =
    (r#"["pitch_shift", "time_stretch"]"#, r#"["gain", "polarity", "colored_noise", "filter"]"#);

/// How fast a chain is rendered.
#[derive(Debug, Clone, Serialize)]
pub struct RenderRow {
    /// `loev` for the method's chain, else the one operator of the chain.
    pub name: String,
    /// Length of a view.
    pub seconds: f64,
    /// Hz.
    pub sample_rate: u32,
    /// Views rendered at a time.
    pub views: usize,
    /// Views a second, log-mel included.
    pub views_s: f64,
    /// The share of the time that log-mel takes.
    pub log_mel_share: f64,
    /// Where log-mel came from.
    pub front_end: FrontEnd,
    /// What the time went to.
    pub kernels: Kernels,
}

/// Segments on the device, and draws for views of them.
pub(super) struct Material {
    pub chain: Chain,
    pub sources: Buffer<f32>,
    pub segments: usize,
    pub segment_of: Vec<u32>,
    pub draws: Vec<Draw>,
}

/// The front end of the examples, up to 6 kHz, for views of a second or more.
pub(super) fn front_end() -> FrontEnd {
    FrontEnd { window: 2048, hop: 320, fft: 2048, mels: 128, high_hz: 6000.0, ..FrontEnd::default() }
}

pub(super) fn loev_chain(seconds: f64) -> Result<Chain, RunError> {
    chain(LOEV.0, LOEV.1, seconds)
}

fn chain(variant: &str, base: &str, seconds: f64) -> Result<Chain, RunError> {
    let wrong = |e: serde_json::Error| RunError::Engine(format!("{variant} and {base}: {e}"));
    Ok(Chain {
        sample_rate: RATE,
        seconds,
        channels: Channels::Mono,
        base: serde_json::from_str(base).map_err(wrong)?,
        variant: serde_json::from_str(variant).map_err(wrong)?,
        sampling: Sampling::Factorial,
    })
}

impl Material {
    /// `views` views of music that is made here.
    pub fn new(gpu: &Gpu, chain: Chain, views: usize) -> Result<Self, RunError> {
        let unreadable = |error: AudioError| RunError::Engine(error.to_string());
        let reader = Renderer::new(&chain).map_err(unreadable)?;
        let (mut sources, mut segment_of, mut draws) = (Vec::new(), Vec::new(), Vec::new());
        let mut segments = 0;
        while draws.len() < views {
            let index = segments % CLIPS;
            let uri = format!("synth:v1?seed=17&index={index}&seconds={CLIP_SECONDS}");
            let segment = (segments / CLIPS) as u32;
            let clip = index.to_string();
            let own = chain
                .draw_segment(Key::root(1), &clip, CLIP_SECONDS, segment, 0, &Pools::new())
                .map_err(unreadable)?;
            let Some(first) = own.first() else { break };
            let source = Source::parse(&uri).and_then(|source| reader.read_sound(&source, first));
            sources.extend(source.map_err(unreadable)?.channels.concat());
            segment_of.extend(own.iter().map(|_| segments as u32));
            draws.extend(own);
            segments += 1;
        }
        Ok(Self { sources: gpu.upload(&sources)?, chain, segments, segment_of, draws })
    }

    pub fn sources(&self) -> Sources<'_> {
        let frames = self.sources.len() / self.segments.max(1);
        Sources { samples: Pcm::F32(&self.sources), segments: self.segments, channels: 1, frames }
    }
}

pub(super) fn parity(device: &Gpu) -> Result<Vec<Check>, RunError> {
    let check = |row: ParityRow| Check {
        holds: row.holds(),
        name: row.what,
        measure: match row.measure {
            Measure::SignalToNoise => "signal to difference, dB, at least".to_owned(),
            Measure::LargestDifference => "largest difference, dB, at most".to_owned(),
        },
        value: row.value,
        tolerance: row.tolerance,
    };
    Ok(gpu::parity(device, PARITY_SECONDS, PARITY_SEGMENTS)?.into_iter().map(check).collect())
}

pub(super) fn measure(
    gpu: &Gpu,
    least: Duration,
    say: &mut dyn FnMut(&str),
) -> Result<Vec<RenderRow>, RunError> {
    let mut chains = vec![("loev".to_owned(), loev_chain(3.0)?), ("loev".to_owned(), loev_chain(10.0)?)];
    for def in operators::all() {
        let own = chain("[]", &format!(r#"[{{"{}": {{"p": 1}}}}]"#, def.name), 3.0);
        if let Ok(own) = own
            && own.validate().is_ok()
            && GpuRenderer::supports(&own).is_ok()
        {
            chains.push((def.name.to_owned(), own));
        }
    }
    say("\n| rendering, log-mel included | seconds | views/s | log-mel |\n| --- | --- | --- | --- |\n");
    let mut rows = Vec::new();
    for (name, chain) in chains {
        let row = row(gpu, name, chain, least)?;
        let mut line = String::new();
        let RenderRow { name, seconds, views_s, log_mel_share, .. } = &row;
        let _ = writeln!(line, "| {name} | {seconds} | {views_s:.0} | {:.0}% |", 100.0 * log_mel_share);
        say(&line);
        rows.push(row);
    }
    for row in rows.iter().filter(|row| row.name == "loev") {
        say(&row.kernels.table());
    }
    Ok(rows)
}

fn row(gpu: &Gpu, name: String, chain: Chain, least: Duration) -> Result<RenderRow, RunError> {
    let front_end = front_end();
    let material = Material::new(gpu, chain, VIEWS)?;
    let mut renderer = GpuRenderer::new(gpu, &material.chain)?;
    let mut log_mel = GpuLogMel::new(gpu, &front_end)?;
    let views = material.draws.len();
    let mut whole = || -> Result<(), RunError> {
        let views = renderer.render(&material.sources(), &material.segment_of, &material.draws)?;
        log_mel.compute(&views).map(drop).map_err(RunError::from)
    };
    let both = seconds_of(least, &mut whole, wait(gpu))?;
    let of = format!("{name}, {} s, {views} views", material.chain.seconds);
    let kernels = Kernels::of(of, both, gpu, whole)?;
    let rendered = renderer.render(&material.sources(), &material.segment_of, &material.draws)?;
    let compute = || log_mel.compute(&rendered).map(drop).map_err(RunError::from);
    let features = seconds_of(least, compute, wait(gpu))?;
    Ok(RenderRow {
        name,
        seconds: material.chain.seconds,
        sample_rate: RATE,
        views,
        views_s: views as f64 / both,
        log_mel_share: features / both,
        front_end,
        kernels,
    })
}
