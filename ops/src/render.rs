//! From (source audio, draw) to the samples of a view: a pure function, whatever was rendered before.
//!
//! ```text
//! source, centred --variant chain--> --base chain--> seconds * sample_rate frames
//!                  neighbouring warps are one vocoder pass
//! ```
//! Lengths are worked out from the end backwards, so every operator has real audio on both sides and nothing is
//! ever padded. A warp that is not applied runs at identity: processed and untouched views cannot be told apart.

use crate::audio::Audio;
use crate::chain::{Chain, Leaf, Step, check_draw, leaf_frames, steps};
use crate::error::{AudioError, RejectKind};
use crate::operator::{Kernel, Scratch, Warp};
use crate::partners::Partners;
use crate::rng::Key;
use crate::source::Source;
use crate::speed::Resampler;
use crate::views::{Draw, Partner, operator_key};
use crate::vocoder::{Vocoder, input_frames};

/// Renders views of one chain. Holds plans and buffers: make one per thread.
pub struct Renderer {
    chain: Chain,
    columns: Vec<String>,
    leaves: Vec<Leaf>,
    read_seconds: f64,
    vocoder: Vocoder,
    resampler: Resampler,
    scratch: Scratch,
    partners: Partners,
    /// What is done for the draw at hand, and the frames that enter each step, from the last one back.
    steps: Vec<Step>,
    lengths: Vec<usize>,
    /// Where a warp writes before it takes the place of the audio.
    warped: Vec<Vec<f32>>,
}

impl Renderer {
    /// Plans for a chain.
    ///
    /// # Errors
    /// [`RejectKind::Unsupported`] when the chain is not valid.
    pub fn new(chain: &Chain) -> Result<Self, AudioError> {
        chain.validate().map_err(|m| AudioError::new(RejectKind::Unsupported, m))?;
        Ok(Self {
            columns: chain.columns(),
            leaves: chain.leaves(),
            read_seconds: chain.read_seconds(),
            vocoder: Vocoder::new(chain.sample_rate),
            resampler: Resampler::new(),
            scratch: Scratch::default(),
            partners: Partners::default(),
            steps: Vec::new(),
            lengths: Vec::new(),
            warped: Vec::new(),
            chain: chain.clone(),
        })
    }

    /// The range of the clip that the view reads: (start, length) in seconds. The length is the same for all
    /// views, and so is the start for the views of a segment.
    pub fn read_range(&self, draw: &Draw) -> (f64, f64) {
        (draw.centre_s - self.read_seconds / 2.0, self.read_seconds)
    }

    /// The range of the clip that the view is made from, at the rate and with the channels of the chain.
    ///
    /// # Errors
    /// Whatever keeps the clip from being read.
    pub fn read(&self, source: &Source, draw: &Draw) -> Result<Audio, AudioError> {
        let (start, seconds) = self.read_range(draw);
        self.chain.channels.read(source, start.max(0.0), seconds, self.chain.sample_rate)
    }

    /// As [`Renderer::read`], refusing what no view could be made from: for views that are rendered elsewhere.
    ///
    /// # Errors
    /// Whatever keeps the clip from being read; [`RejectKind::Silent`] and [`RejectKind::NotFinite`] as
    /// [`Renderer::render_into`].
    pub fn read_sound(&self, source: &Source, draw: &Draw) -> Result<Audio, AudioError> {
        let audio = self.read(source, draw)?;
        self.chain.check_source(&audio)?;
        Ok(audio)
    }

    /// As [`Renderer::render_into`], into new memory.
    ///
    /// # Errors
    /// As [`Renderer::render_into`].
    pub fn render(&mut self, source: &Audio, draw: &Draw) -> Result<Audio, AudioError> {
        let mut view = Audio { rate: source.rate, channels: Vec::new() };
        self.render_into(source, draw, &mut view)?;
        Ok(view)
    }

    /// Writes the view: `seconds * sample_rate` frames, with the channels of the source. What `view` held before does
    /// not matter; its memory is used again.
    ///
    /// `source` is the range of [`Renderer::read_range`] at the sample rate of the chain; its middle is the centre of
    /// the view.
    ///
    /// # Errors
    /// [`RejectKind::Silent`] for a source whose peak is below 1e-5, [`RejectKind::NotFinite`] for samples that are
    /// not, [`RejectKind::TooShort`] for a source that does not reach, [`RejectKind::Unsupported`] for another sample
    /// rate, [`RejectKind::Corrupt`] for a draw that is not one of this chain, and whatever keeps a second recording
    /// from being read. After an error `view` holds nothing of use.
    pub fn render_into(&mut self, source: &Audio, draw: &Draw, view: &mut Audio) -> Result<(), AudioError> {
        check_draw(&self.leaves, draw)?;
        self.chain.check_source(source)?;
        steps(&self.leaves, draw.order.iter().copied(), &mut self.steps);
        let params = |i: usize| draw.params.get(i).and_then(Option::as_deref);
        let rate = self.chain.sample_rate;
        let mut frames = self.chain.frames();
        self.lengths.clear();
        for step in self.steps.iter().rev() {
            self.lengths.push(frames);
            frames = step_frames(&self.leaves, step, draw, frames, rate);
        }
        middle(source, frames, view)?;
        for step in &self.steps {
            let frames = self.lengths.pop().unwrap_or(0);
            match step {
                Step::Warp(range) => {
                    resize(&mut self.warped, view.channels.len(), frames);
                    let centre = view.frames() as f64 / 2.0;
                    let warp = warp(&self.leaves, range, params);
                    self.vocoder.process(&view.channels, centre, warp, &mut self.warped);
                    std::mem::swap(&mut view.channels, &mut self.warped);
                }
                Step::Leaf(i) => {
                    let (Some(params), leaf) = (params(*i), &self.leaves[*i]) else { continue };
                    let key = operator_key(Key::from_value(draw.key), &leaf.spec, &self.columns[*i]);
                    let mut rng = key.with_str("render").rng();
                    match leaf.spec.def().kernel {
                        Kernel::Samples(run) => run(view, params, &mut rng, &mut self.scratch),
                        Kernel::Partner(extent, run) => {
                            // A factor at its identity has no second recording, and no need of one.
                            let Some(partner) = draw.partners.get(*i).and_then(Option::as_ref) else {
                                continue;
                            };
                            let other = self
                                .partners
                                .read(partner, extent, rate, view.channels.len(), view.frames())
                                .map_err(|e| of_partner(e, partner, leaf))?;
                            run(view, other, params, &mut rng, &mut self.scratch);
                        }
                        Kernel::Speed(speed) => {
                            resize(&mut self.warped, view.channels.len(), frames);
                            self.resampler.process(&mut view.channels, speed(params), &mut self.warped);
                            std::mem::swap(&mut view.channels, &mut self.warped);
                        }
                        Kernel::Shift(shift) => {
                            let first = first_frame(view.frames(), frames, shift(params) * f64::from(rate));
                            for channel in &mut view.channels {
                                channel.copy_within(first.., 0);
                                channel.truncate(frames);
                            }
                        }
                        Kernel::Warp(_) => {}
                    }
                }
            }
        }
        if !view.is_finite() {
            return Err(AudioError::new(RejectKind::NotFinite, "rendering gave samples that are not finite"));
        }
        Ok(())
    }
}

/// An error with the second recording that it is about.
pub(crate) fn of_partner(mut error: AudioError, partner: &Partner, leaf: &Leaf) -> AudioError {
    error.message = format!("`{}` of `{}`: {}", partner.clip_id, leaf.spec.name(), error.message);
    error
}

/// Frames that enter a step, for so many that leave it.
pub(crate) fn step_frames(leaves: &[Leaf], step: &Step, draw: &Draw, frames: usize, rate: u32) -> usize {
    let params = |i: usize| draw.params.get(i).and_then(Option::as_deref);
    match step {
        Step::Warp(range) => input_frames(rate, frames, warp(leaves, range, params)),
        Step::Leaf(i) => leaf_frames(leaves[*i].spec.def(), params(*i), frames, rate),
    }
}

/// The warp of a run of leaves, the identity where one was not applied.
pub(crate) fn warp<'a>(
    leaves: &[Leaf],
    range: &std::ops::Range<usize>,
    params: impl Fn(usize) -> Option<&'a [f64]>,
) -> Warp {
    range.clone().fold(Warp::IDENTITY, |warp, i| {
        warp.then(params(i).map_or(Warp::IDENTITY, |params| leaves[i].spec.def().warp(params)))
    })
}

/// The first of `frames` that lie `shift` frames later than the middle of `all`.
pub(crate) fn first_frame(all: usize, frames: usize, shift: f64) -> usize {
    let excess = all.saturating_sub(frames);
    ((excess as f64 / 2.0 + shift).round().max(0.0) as usize).min(excess)
}

fn resize(channels: &mut Vec<Vec<f32>>, count: usize, frames: usize) {
    channels.resize_with(count, Vec::new);
    channels.iter_mut().for_each(|channel| channel.resize(frames, 0.0));
}

/// The `frames` in the middle.
fn middle(source: &Audio, frames: usize, view: &mut Audio) -> Result<(), AudioError> {
    let start = source.frames().checked_sub(frames).map(|excess| excess / 2);
    let whole = source.channels.iter().all(|channel| channel.len() == source.frames());
    let (Some(start), false, true) = (start, source.channels.is_empty(), whole) else {
        let message = format!("the view needs {frames} frames of source, there are {}", source.frames());
        return Err(AudioError::new(RejectKind::TooShort, message));
    };
    view.rate = source.rate;
    view.channels.resize_with(source.channels.len(), Vec::new);
    for (channel, source) in view.channels.iter_mut().zip(&source.channels) {
        channel.clear();
        channel.extend_from_slice(&source[start..start + frames]);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chain::{Channels, Sampling};
    use crate::views::Pools;
    use proptest::prelude::*;
    use std::f64::consts::TAU;

    const RATE: u32 = 16_000;

    fn chain(variant: &str, base: &str, seconds: f64) -> Chain {
        Chain {
            sample_rate: RATE,
            seconds,
            channels: Channels::Mono,
            base: serde_json::from_str(base).unwrap(),
            variant: serde_json::from_str(variant).unwrap(),
            sampling: Sampling::Factorial,
        }
    }

    fn loev(seconds: f64) -> Chain {
        let base = r#"["gain", "polarity", "colored_noise", "filter"]"#;
        chain(r#"["pitch_shift", "time_stretch"]"#, base, seconds)
    }

    fn tone(seconds: f64, hz: f64) -> Audio {
        let frames = (seconds * f64::from(RATE)).round() as usize;
        let middle = frames as f64 / 2.0;
        let at = |i: usize| (0.3 * (TAU * hz * (i as f64 - middle) / f64::from(RATE)).sin()) as f32;
        Audio::mono(RATE, (0..frames).map(at).collect())
    }

    #[test]
    fn views_have_their_length_and_depend_on_the_draw_alone() {
        let chain = loev(1.0);
        let source = tone(chain.read_seconds(), 440.0);
        let mut renderer = Renderer::new(&chain).unwrap();
        let draws: Vec<Draw> = (0..6)
            .flat_map(|s| chain.draw_segment(Key::root(1), "c", 9.0, s, 0, &Pools::new()).unwrap())
            .collect();
        let views: Vec<Audio> = draws.iter().map(|d| renderer.render(&source, d).unwrap()).collect();
        assert!(views.iter().all(|v| v.frames() == 16_000 && v.is_finite()));
        // In another order, by another renderer: the same samples.
        let mut other = Renderer::new(&chain).unwrap();
        for (draw, view) in draws.iter().zip(&views).rev() {
            assert_eq!(&other.render(&source, draw).unwrap(), view);
        }
        let (start, seconds) = renderer.read_range(&draws[0]);
        assert!((start + seconds / 2.0 - draws[0].centre_s).abs() < 1e-9);
    }

    #[test]
    fn identity_gives_the_middle_of_the_source() {
        let chain = loev(1.0);
        let source = tone(chain.read_seconds(), 330.0);
        let draw = chain.draw_identity(Key::root(1), "c", 0, 5.0);
        let view = Renderer::new(&chain).unwrap().render(&source, &draw).unwrap();
        let mut want = Audio::mono(RATE, Vec::new());
        middle(&source, 16_000, &mut want).unwrap();
        let worst =
            view.channels[0].iter().zip(&want.channels[0]).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(worst < 1e-6, "{worst}");
    }

    #[test]
    fn split_warps_equal_their_sum_and_passes_compose() {
        let source = tone(3.0, 440.0);
        let render = |variant: &str, base: &str, params: Vec<Option<Vec<f64>>>| {
            let chain = chain(variant, base, 1.0);
            let mut draw = chain.draw_identity(Key::root(1), "c", 0, 5.0);
            draw.params = params;
            Renderer::new(&chain).unwrap().render(&source, &draw).unwrap().channels.remove(0)
        };
        let one = render(r#"["pitch_shift"]"#, "[]", vec![Some(vec![5.0])]);
        let two = render(r#"["pitch_shift"]"#, r#"["pitch_shift"]"#, vec![Some(vec![2.0]), Some(vec![3.0])]);
        assert_eq!(one, two);
        // A base shift that is not applied leaves the variant's.
        let three = render(r#"["pitch_shift"]"#, r#"["pitch_shift"]"#, vec![Some(vec![5.0]), None]);
        assert_eq!(one, three);
        // Two passes around a gain land on the same pitch: the tone at 440 * 2^(5/12).
        let base = r#"["gain", "pitch_shift"]"#;
        let four =
            render(r#"["pitch_shift"]"#, base, vec![Some(vec![2.0]), Some(vec![0.0]), Some(vec![3.0])]);
        let crossings = |x: &[f32]| x.windows(2).filter(|w| w[0] < 0.0 && w[1] >= 0.0).count();
        assert!(crossings(&four).abs_diff(587) <= 1 && crossings(&one).abs_diff(587) <= 1);
    }

    #[test]
    fn bad_input_is_refused_by_kind() {
        let chain = loev(0.5);
        let mut renderer = Renderer::new(&chain).unwrap();
        let draw = chain.draw_segment(Key::root(1), "c", 9.0, 0, 0, &Pools::new()).unwrap().remove(0);
        let good = tone(chain.read_seconds(), 440.0);
        let mut kind = |audio: Audio, draw: &Draw| renderer.render(&audio, draw).unwrap_err().kind;
        let mut nan = good.clone();
        nan.channels[0][7] = f32::NAN;
        assert_eq!(kind(nan, &draw), RejectKind::NotFinite);
        assert_eq!(kind(Audio::mono(RATE, vec![1e-6; good.frames()]), &draw), RejectKind::Silent);
        assert_eq!(kind(tone(0.4, 440.0), &draw), RejectKind::TooShort);
        assert_eq!(kind(Audio { rate: 8_000, ..good.clone() }, &draw), RejectKind::Unsupported);
        let mut bad = draw.clone();
        bad.params[0] = Some(vec![f64::NAN]);
        assert_eq!(kind(good.clone(), &bad), RejectKind::Corrupt);
        bad.params.pop();
        assert_eq!(kind(good, &bad), RejectKind::Corrupt);
        let error = Renderer::new(&chain_with_bad_seconds()).err().unwrap();
        assert_eq!(error.kind, RejectKind::Unsupported);
    }

    fn chain_with_bad_seconds() -> Chain {
        Chain { seconds: 0.0, ..loev(1.0) }
    }

    #[test]
    fn stereo_stays_stereo() {
        let chain = loev(0.5);
        let mono = tone(chain.read_seconds(), 440.0).channels.remove(0);
        let source = Audio { rate: RATE, channels: vec![mono.clone(), mono] };
        let draw = chain.draw_segment(Key::root(1), "c", 9.0, 0, 0, &Pools::new()).unwrap().remove(1);
        let view = Renderer::new(&chain).unwrap().render(&source, &draw).unwrap();
        assert_eq!((view.channels.len(), view.frames()), (2, 8_000));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        #[test]
        fn finite_in_finite_out(
            exponent in -30i32..=38,
            seed: u64,
            p in 0.0f64..=1.0,
            rate in prop::sample::select(vec![8_000u32, 16_000, 44_100]),
        ) {
            let base = format!(
                r#"[{{"gain": {{"db": [-60, 24], "p": {p}}}}}, {{"colored_noise": {{"snr_db": [-20, 100], "p": {p}}}}},
                {{"filter": {{"low_pass_hz": [10, 20000], "high_pass_hz": [10, 20000], "centre_hz": [10, 20000],
                "octaves": [0.1, 6], "p": {p}}}}}]"#
            );
            let variant = r#"[{"pitch_shift": {"semitones": [-12, 12]}}, {"time_stretch": {"rate": [0.5, 2]}}]"#;
            let chain = Chain { sample_rate: rate, ..chain(variant, &base, 0.1) };
            let mut rng = Key::root(seed).rng();
            let frames = chain.read_frames();
            let level = 10f64.powi(exponent) * 3.0;
            let source = Audio::mono(rate, (0..frames).map(|_| (level * rng.uniform(-1.0, 1.0)) as f32).collect());
            let mut renderer = Renderer::new(&chain).unwrap();
            for draw in chain.draw_segment(Key::root(seed), "c", 9.0, 0, 0, &Pools::new()).unwrap() {
                match renderer.render(&source, &draw) {
                    Ok(view) => prop_assert!(view.frames() == chain.frames() && view.is_finite()),
                    Err(e) => prop_assert!(e.kind == RejectKind::Silent && level < 1e-4, "{}", e),
                }
            }
        }
    }

    /// Views of a segment after the first take no memory: plans, buffers and the view itself are used again.
    #[test]
    fn nothing_is_allocated_in_steady_state() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("response.wav");
        crate::wav::write_wav(&path, RATE, &[&[1.0, 0.5, 0.25, 0.125]]).unwrap();
        let pools = Pools::from([(
            "responses".to_owned(),
            crate::views::Pool::new(vec![crate::views::PoolClip {
                clip_id: "response".to_owned(),
                uri: path.display().to_string(),
                seconds: 4.0 / f64::from(RATE),
            }]),
        )]);
        let mut chains = vec![loev(1.0)];
        for def in crate::operators::all() {
            let from = match def.partner() {
                None => "",
                Some(crate::operator::Extent::Whole { .. }) => r#", "from": "responses""#,
                // Another part of another file for every view: reading takes memory.
                Some(crate::operator::Extent::View) => continue,
            };
            chains.push(self::chain("[]", &format!(r#"[{{"{}": {{"p": 1{from}}}}}]"#, def.name), 1.0));
        }
        for mut chain in chains {
            chain.channels = Channels::Stereo;
            let left = tone(chain.read_seconds(), 440.0).channels.remove(0);
            let source = Audio { rate: RATE, channels: vec![left.clone(), left] };
            let mut renderer = Renderer::new(&chain).unwrap();
            let draws: Vec<Draw> = (0..3)
                .flat_map(|s| chain.draw_segment(Key::root(8), "c", 30.0, s, 0, &pools).unwrap())
                .collect();
            let mut view = Audio::mono(RATE, Vec::new());
            let mut all =
                || draws.iter().for_each(|draw| renderer.render_into(&source, draw, &mut view).unwrap());
            all();
            let again = allocation_counter::measure(all);
            assert_eq!(again.count_total, 0, "{:?}", chain.columns());
        }
    }

    /// Every operator with every parameter anywhere in its range, alone, on any finite sound.
    fn anywhere(def: &'static crate::operator::OperatorDef, rng: &mut crate::rng::Rng) -> Vec<f64> {
        use crate::operator::ParamKind;
        let one = |param: &crate::operator::ParamDef| match &param.kind {
            ParamKind::Number { min, max, .. } => match rng.below(4) {
                0 => *min,
                1 => *max,
                _ => rng.uniform(*min, *max),
            },
            ParamKind::Choice { options, .. } => rng.below(options.len()) as f64,
        };
        def.params.iter().map(one).collect()
    }

    fn strange_sound(kind: usize, frames: usize, rng: &mut crate::rng::Rng) -> Vec<f32> {
        let level = 10f64.powf(rng.uniform(-30.0, 38.0));
        let one = |i: usize| match kind {
            0 => 0.0,
            1 => 1.0,
            2 => {
                if (i / 50).is_multiple_of(2) {
                    1.0
                } else {
                    -1.0
                }
            }
            3 => {
                if i == frames / 2 {
                    f64::from(f32::MAX)
                } else {
                    0.0
                }
            }
            4 => level * rng.uniform(-1.0, 1.0),
            _ => rng.uniform(-0.5, 0.5),
        };
        (0..frames).map(one).map(|x| x as f32).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(96))]
        #[test]
        fn kernels_keep_sounds_finite_and_their_length(
            seed: u64,
            frames in prop::sample::select(vec![0usize, 1, 2, 3, 100, 1_023, 4_800]),
            rate in prop::sample::select(vec![4_000u32, 16_000, 44_100, 192_000]),
            channels in 1usize..=3,
            kind in 0usize..6,
        ) {
            let mut scratch = Scratch::default();
            for def in crate::operators::all() {
                let mut rng = Key::root(seed).with_str(def.name).rng();
                let params = anywhere(def, &mut rng);
                let sound = |rng: &mut _| Audio {
                    rate,
                    channels: (0..channels).map(|_| strange_sound(kind, frames, rng)).collect(),
                };
                let (mut audio, other) = (sound(&mut rng), sound(&mut rng));
                let before = audio.clone();
                match def.kernel {
                    Kernel::Samples(run) => run(&mut audio, &params, &mut rng, &mut scratch),
                    Kernel::Partner(_, run) if frames > 0 => {
                        run(&mut audio, &other, &params, &mut rng, &mut scratch);
                    }
                    _ => continue,
                }
                let whole = audio.channels.len() == channels && audio.channels.iter().all(|c| c.len() == frames);
                prop_assert!(whole && audio.rate == rate && audio.is_finite(), "{} {:?}", def.name, params);
                // The identity of the operator gives the very samples back.
                let spec = crate::operator::OperatorSpec::of(def);
                let Some(identity) = spec.identity() else { continue };
                let mut same = before.clone();
                match def.kernel {
                    Kernel::Samples(run) => run(&mut same, &identity, &mut rng, &mut scratch),
                    Kernel::Partner(_, run) => run(&mut same, &other, &identity, &mut rng, &mut scratch),
                    _ => continue,
                }
                prop_assert_eq!(&same, &before, "{} at its identity {:?}", def.name, identity);
            }
        }

        #[test]
        fn what_scratch_held_does_not_matter(seed: u64) {
            let mut used = Scratch::default();
            for def in crate::operators::all() {
                for frames in [4_000, 1_000] {
                    let mut rng = Key::root(seed).with_str(def.name).rng();
                    let params = anywhere(def, &mut rng);
                    let source = Audio { rate: RATE, channels: vec![strange_sound(5, frames, &mut rng); 2] };
                    let other = Audio { rate: RATE, channels: vec![strange_sound(5, frames, &mut rng); 2] };
                    let run_with = |scratch: &mut Scratch| {
                        let mut audio = source.clone();
                        let mut rng = Key::root(seed).with(1).rng();
                        match def.kernel {
                            Kernel::Samples(run) => run(&mut audio, &params, &mut rng, scratch),
                            Kernel::Partner(_, run) => run(&mut audio, &other, &params, &mut rng, scratch),
                            _ => {}
                        }
                        audio
                    };
                    prop_assert_eq!(run_with(&mut used), run_with(&mut Scratch::default()), "{}", def.name);
                }
            }
        }
    }
}
