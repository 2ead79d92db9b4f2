//! Views: what is drawn for each view of a segment, and which views are alike in each subspace.
//!
//! A [`Chain`] holds two lists of operators. The *variant* chain comes first in processing (how the music is
//! played); each of its operators is a *factor* with a subspace of its own. The *base* chain comes after (the
//! recording channel); every subspace ignores it.
//!
//! Factorial sampling draws two levels per factor and crosses them by a two-level orthogonal array, so that in
//! every subspace every view has a positive, with the other factors varied:
//!
//! | factors | views | design                                  |
//! | ------- | ----- | --------------------------------------- |
//! | 0       | 2     | two base draws                          |
//! | 1       | 4     | two levels, two base draws each         |
//! | 2       | 4     | full grid                               |
//! | 3       | 4     | L4 (Plackett and Burman 1946; Taguchi)  |
//! | 4 to 7  | 8     | L8                                      |
//!
//! A draw depends on (run, clip, segment, epoch, view) and the operators alone: never on order or threads.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::audio::Audio;
use crate::error::{AudioError, RejectKind};
use crate::operator::{FactorDef, Kernel, OperatorSpec, Warp};
use crate::rng::{Key, Rng};
use crate::vocoder;

/// How the parameters of the variant chain are drawn.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Sampling {
    /// Two levels per factor, crossed by an orthogonal array; every view has a positive in every subspace.
    #[default]
    Factorial,
    /// Each factor is applied to each view of a pair with its probability `p`, as in the LOEV paper.
    Bernoulli,
}

/// What is done to make views, and how much audio a view holds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Chain {
    /// The rate of the views, in Hz.
    pub sample_rate: u32,
    /// The length of a view, in seconds.
    pub seconds: f64,
    /// Operators that every subspace ignores, applied after the variant chain.
    #[serde(default)]
    pub base: Vec<OperatorSpec>,
    /// The factors: operators each of which gets a subspace of its own.
    #[serde(default)]
    pub variant: Vec<OperatorSpec>,
    /// How the factors are drawn.
    #[serde(default)]
    pub sampling: Sampling,
}

/// The parameters of one view: enough to render it again.
#[derive(Clone, Debug, PartialEq)]
pub struct Draw {
    /// Which segment of the clip.
    pub segment: u32,
    /// In which epoch.
    pub epoch: u32,
    /// Which view of the segment.
    pub view: u32,
    /// The middle of the view in the clip, in seconds.
    pub centre_s: f64,
    /// The key of what is random in rendering (noise).
    pub key: u64,
    /// Parameters per operator, the variant chain first. `None`: not applied; only in the base chain.
    /// Options are stored as their index.
    pub params: Vec<Option<Vec<f64>>>,
    /// Per head, the group of the view: equal numbers are positives.
    pub groups: Vec<i64>,
}

/// One step of rendering, by the indices of its operators.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// One pass of the vocoder.
    Warp(std::ops::Range<usize>),
    /// One operator on samples.
    Samples(usize),
}

impl Step {
    /// The warp of the step for these parameters, the identity where an operator was not applied.
    pub(crate) fn warp<'a>(&self, chain: &Chain, params: impl Fn(usize) -> Option<&'a [f64]>) -> Warp {
        let Step::Warp(range) = self else { return Warp::IDENTITY };
        let members = chain.operators().enumerate().filter(|(i, _)| range.contains(i));
        members.fold(Warp::IDENTITY, |warp, (i, spec)| {
            warp.then(params(i).map_or(Warp::IDENTITY, |params| spec.def().warp(params)))
        })
    }
}

/// The levels of the factors in each view: factor k is at its second level in view v where the bits of v that
/// the mask selects have odd parity. Any two masks are orthogonal; the first four have resolution IV.
const MASKS: [u32; 7] = [1, 2, 4, 7, 3, 5, 6];
const MASKS_OF_4_VIEWS: [u32; 3] = [1, 2, 3];

/// How often two levels are drawn anew before the ends of the range are taken.
const TRIES: usize = 64;

impl Chain {
    /// The operators in order of processing: the variant chain, then the base chain.
    pub fn operators(&self) -> impl Iterator<Item = &OperatorSpec> {
        self.variant.iter().chain(&self.base)
    }

    /// Frames of a view.
    pub fn frames(&self) -> usize {
        (self.seconds * f64::from(self.sample_rate)).round() as usize
    }

    /// Says what is wrong with the chain, if anything.
    pub fn validate(&self) -> Result<(), String> {
        if !(4_000..=192_000).contains(&self.sample_rate) {
            return Err(format!("sample_rate must lie within 4000..192000 Hz, got {}", self.sample_rate));
        }
        if !(0.05..=600.0).contains(&self.seconds) {
            return Err(format!("seconds must lie within 0.05..600, got {}", self.seconds));
        }
        if self.variant.len() > MASKS.len() {
            return Err(format!("a variant chain holds at most 7 factors, got {}", self.variant.len()));
        }
        for spec in &self.variant {
            let name = spec.name();
            let factor = spec.def().factor.ok_or_else(|| {
                format!("`{name}` cannot be a factor (it has no identity setting): move it to the base chain")
            })?;
            let (low, high) = spec.params().get(factor.param).map_or((0.0, 0.0), |p| p.bounds());
            if self.sampling == Sampling::Factorial && factor.scale.distance(low, high) < factor.apart {
                return Err(format!(
                    "`{name}` draws from {low}..{high}: two levels at least {} apart do not fit; widen the range",
                    factor.apart
                ));
            }
        }
        Ok(())
    }

    /// How many views a segment has.
    pub fn views_per_segment(&self) -> usize {
        match (self.sampling, self.variant.len()) {
            (Sampling::Bernoulli, _) | (_, 0) => 2,
            (_, 1..=3) => 4,
            _ => 8,
        }
    }

    /// The names of the factors: their operators, numbered from the second of a name.
    pub fn factors(&self) -> Vec<String> {
        let mut names = self.columns();
        names.truncate(self.variant.len());
        names
    }

    /// The names of the subspaces: `invariant`, then the factors.
    pub fn heads(&self) -> Vec<String> {
        std::iter::once("invariant".to_owned()).chain(self.factors()).collect()
    }

    /// A unique column name per operator, in order of processing: `gain`, `gain_2`, ...
    pub fn columns(&self) -> Vec<String> {
        let names: Vec<_> = self.operators().map(OperatorSpec::name).collect();
        let numbered = names.iter().enumerate().map(|(i, name)| {
            let nth = names.iter().take(i + 1).filter(|n| *n == name).count();
            if nth == 1 { (*name).to_owned() } else { format!("{name}_{nth}") }
        });
        numbered.collect()
    }

    /// How much source audio a view needs at most, in seconds: a whole number of frames, centred on the view,
    /// margins of the vocoder included. The same for all views, so that one read serves a segment.
    pub fn read_seconds(&self) -> f64 {
        let worst =
            |a: Warp, b: Warp| Warp { semitones: a.semitones.min(b.semitones), rate: a.rate.max(b.rate) };
        let reach = |spec: &OperatorSpec| {
            let (low, high): (Vec<f64>, Vec<f64>) = spec.params().iter().map(|p| p.bounds()).unzip();
            // Reading grows with the rate and with downward shifts, so an end is the worst; and a base operator
            // that is not applied leaves the identity, which may read more than either end.
            worst(worst(spec.def().warp(&low), spec.def().warp(&high)), Warp::IDENTITY)
        };
        let operators: Vec<&OperatorSpec> = self.operators().collect();
        let frames = self.steps().iter().rev().fold(self.frames(), |frames, step| match step {
            Step::Samples(_) => frames,
            Step::Warp(range) => {
                let members = operators.iter().take(range.end).skip(range.start);
                let warp = members.fold(Warp::IDENTITY, |warp, spec| warp.then(reach(spec)));
                vocoder::input_frames(self.sample_rate, frames, warp)
            }
        });
        // Two frames of slack for rounding the start of the read to the clip's own frames.
        (frames + 2) as f64 / f64::from(self.sample_rate)
    }

    /// What is done in order, each run of neighbouring warps fused into one pass of the vocoder.
    pub(crate) fn steps(&self) -> Vec<Step> {
        let mut steps: Vec<Step> = Vec::new();
        for (i, spec) in self.operators().enumerate() {
            match (spec.def().kernel, steps.last_mut()) {
                (Kernel::Warp(_), Some(Step::Warp(range))) => range.end = i + 1,
                (Kernel::Warp(_), _) => steps.push(Step::Warp(i..i + 1)),
                (Kernel::Samples(_), _) => steps.push(Step::Samples(i)),
            }
        }
        steps
    }

    /// The same without a base chain: for embeddings of clean audio.
    pub fn identity(&self) -> Chain {
        Chain { base: Vec::new(), ..self.clone() }
    }

    /// The draws of all views of a segment.
    ///
    /// The centre is uniform where the whole read fits into the clip. Draws depend on `run` and the arguments.
    ///
    /// # Errors
    /// [`RejectKind::TooShort`] when the clip cannot hold one read.
    pub fn draw_segment(
        &self,
        run: Key,
        clip_id: &str,
        clip_seconds: f64,
        segment: u32,
        epoch: u32,
    ) -> Result<Vec<Draw>, AudioError> {
        let read = self.read_seconds();
        let room = clip_seconds - read;
        if room.is_nan() || room < 0.0 {
            let message = format!("the clip lasts {clip_seconds:.3} s and a view reads {read:.3} s");
            return Err(AudioError::new(RejectKind::TooShort, message));
        }
        let key = segment_key(run, clip_id, segment, epoch);
        let centre_s = read / 2.0 + key.with_str("centre").rng().uniform(0.0, room);
        let views = self.views_per_segment();
        let columns = self.columns();
        let levels: Vec<Levels> = self
            .variant
            .iter()
            .zip(&columns)
            .map(|(spec, column)| Levels::draw(spec, &mut operator_key(key, spec, column).rng()))
            .collect();
        let mut draws: Vec<Draw> = (0..views as u32)
            .map(|view| {
                let key = key.with_str("view").with(u64::from(view));
                let params = self.operators().zip(&columns).enumerate().map(|(i, (spec, column))| {
                    let mut rng = operator_key(key, spec, column).rng();
                    match (levels.get(i), self.sampling) {
                        (Some(levels), Sampling::Factorial) => Some(levels.of(self.variant.len(), i, view)),
                        (Some(_), Sampling::Bernoulli) => {
                            Some(apply(spec, &mut rng).unwrap_or_else(|| spec.identity()))
                        }
                        (None, _) => apply(spec, &mut rng),
                    }
                });
                let params = params.collect();
                Draw { segment, epoch, view, centre_s, key: key.value(), params, groups: Vec::new() }
            })
            .collect();
        self.group(clip_id, &mut draws);
        Ok(draws)
    }

    /// The draw that changes nothing: every factor at its identity, no base operator applied.
    pub fn draw_identity(&self, run: Key, clip_id: &str, segment: u32, centre_s: f64) -> Draw {
        let key = segment_key(run, clip_id, segment, 0).with_str("identity").value();
        let variant = self.variant.iter().map(|spec| Some(spec.identity()));
        let params = variant.chain(self.base.iter().map(|_| None)).collect();
        let mut draw = [Draw { segment, epoch: 0, view: 0, centre_s, key, params, groups: Vec::new() }];
        self.group(clip_id, &mut draw);
        let [draw] = draw;
        draw
    }

    /// Fills in the groups of the views of one segment.
    fn group(&self, clip_id: &str, draws: &mut [Draw]) {
        let Some((segment, epoch)) = draws.first().map(|d| (d.segment, d.epoch)) else { return };
        // Not keyed by the run: a group is a fact about the segment, comparable between runs.
        let id = segment_key(Key::root(0), clip_id, segment, epoch);
        for draw in draws.iter_mut() {
            draw.groups = vec![id.value() as i64];
        }
        for (k, spec) in self.variant.iter().enumerate() {
            let Some(factor) = spec.def().factor else { continue };
            let value = |d: &Draw| d.params.get(k)?.as_ref()?.get(factor.param).copied();
            let values: Vec<f64> = draws.iter().map(|d| value(d).unwrap_or(0.0)).collect();
            for (draw, cluster) in draws.iter_mut().zip(cluster(&values, factor)) {
                draw.groups.push(id.with(k as u64).with(cluster).value() as i64);
            }
        }
    }

    /// Checks that a draw has the shape that this chain gives.
    pub(crate) fn check_draw(&self, draw: &Draw) -> Result<(), AudioError> {
        let wrong = |m: String| {
            Err(AudioError::new(RejectKind::Corrupt, format!("a draw does not fit its chain: {m}")))
        };
        let operators = self.operators().count();
        if draw.params.len() != operators {
            return wrong(format!("{} operators for {operators}", draw.params.len()));
        }
        for (spec, params) in self.operators().zip(&draw.params) {
            for (def, value) in spec.def().params.iter().zip(params.iter().flatten()) {
                if !def.allows(*value) {
                    return wrong(format!("`{}` of `{}` is {value}", def.name, spec.name()));
                }
            }
            if params.as_ref().is_some_and(|p| p.len() != spec.def().params.len()) {
                return wrong(format!("the number of parameters of `{}`", spec.name()));
            }
        }
        Ok(())
    }

    /// Checks the source audio of a view: the right rate, and something to hear.
    pub(crate) fn check_source(&self, source: &Audio) -> Result<(), AudioError> {
        if source.rate != self.sample_rate {
            let message =
                format!("the source runs at {} Hz, the views at {} Hz", source.rate, self.sample_rate);
            return Err(AudioError::new(RejectKind::Unsupported, message));
        }
        if !source.is_finite() {
            return Err(AudioError::new(RejectKind::NotFinite, "the source has samples that are not finite"));
        }
        if source.peak() < 1e-5 {
            return Err(AudioError::new(RejectKind::Silent, "nothing to hear in the range of the view"));
        }
        Ok(())
    }
}

/// The key of a segment in an epoch.
fn segment_key(run: Key, clip_id: &str, segment: u32, epoch: u32) -> Key {
    run.with_str(clip_id).with(u64::from(segment)).with(u64::from(epoch))
}

/// The key of one operator under `key`; a new version of an operator draws anew.
pub(crate) fn operator_key(key: Key, spec: &OperatorSpec, column: &str) -> Key {
    key.with_str(column).with(u64::from(spec.def().version))
}

/// Parameters with the probability of the operator.
fn apply(spec: &OperatorSpec, rng: &mut Rng) -> Option<Vec<f64>> {
    let applied = rng.f64() < spec.p();
    let params = spec.draw(rng);
    applied.then_some(params)
}

/// The two levels of a factor.
struct Levels([Vec<f64>; 2]);

impl Levels {
    /// Two draws, at least the factor's distance apart; a range that hardly fits them gives its ends.
    fn draw(spec: &OperatorSpec, rng: &mut Rng) -> Self {
        let mut levels = [spec.draw(rng), spec.draw(rng)];
        let Some(factor) = spec.def().factor else { return Self(levels) };
        let at = |params: &[f64]| params.get(factor.param).copied().unwrap_or(0.0);
        for _ in 0..TRIES {
            if factor.scale.distance(at(&levels[0]), at(&levels[1])) >= factor.apart {
                return Self(levels);
            }
            levels = [spec.draw(rng), spec.draw(rng)];
        }
        let (low, high) = spec.params().get(factor.param).map_or((0.0, 0.0), |p| p.bounds());
        let swap = rng.below(2) == 1;
        for (level, end) in levels.iter_mut().zip(if swap { [high, low] } else { [low, high] }) {
            if let Some(slot) = level.get_mut(factor.param) {
                *slot = end;
            }
        }
        Self(levels)
    }

    /// The level of factor `k` of `factors` in a view.
    fn of(&self, factors: usize, k: usize, view: u32) -> Vec<f64> {
        let masks: &[u32] = if factors <= MASKS_OF_4_VIEWS.len() { &MASKS_OF_4_VIEWS } else { &MASKS };
        let mask = masks.get(k).copied().unwrap_or(0);
        self.0[((view & mask).count_ones() % 2) as usize].clone()
    }
}

/// A number per value such that equal numbers are values within the tolerance of one another. From the least
/// value upwards, a cluster takes what lies within the tolerance of its first member.
fn cluster(values: &[f64], factor: FactorDef) -> Vec<u64> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|a, b| values[*a].total_cmp(&values[*b]));
    let mut clusters = vec![0; values.len()];
    let mut first: Option<f64> = None;
    let mut number = 0;
    for i in order {
        match first {
            Some(f) if factor.scale.distance(f, values[i]) <= factor.tolerance => {}
            _ => {
                number += u64::from(first.is_some());
                first = Some(values[i]);
            }
        }
        clusters[i] = number;
    }
    clusters
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::{HashMap, HashSet};

    fn ops(json: &str) -> Vec<OperatorSpec> {
        serde_json::from_str(json).unwrap()
    }

    fn chain(variant: &str, sampling: Sampling) -> Chain {
        let base = ops(r#"["gain", "polarity", "colored_noise", "filter"]"#);
        Chain { sample_rate: 16_000, seconds: 3.0, base, variant: ops(variant), sampling }
    }

    const TWO: &str = r#"["pitch_shift", "time_stretch"]"#;

    #[test]
    fn two_factors_make_a_grid_with_a_positive_per_head() {
        let chain = chain(TWO, Sampling::Factorial);
        chain.validate().unwrap();
        assert_eq!(chain.heads(), ["invariant", "pitch_shift", "time_stretch"]);
        for segment in 0..200 {
            let draws = chain.draw_segment(Key::root(1), "clip", 30.0, segment, 0).unwrap();
            assert_eq!(draws.len(), 4);
            let cells: HashSet<_> = draws.iter().map(|d| (d.groups[1], d.groups[2])).collect();
            assert_eq!(cells.len(), 4);
            let pair = |k: usize| {
                let mut v: Vec<f64> = draws.iter().map(|d| d.params[k].as_ref().unwrap()[0]).collect();
                v.sort_by(f64::total_cmp);
                (v[0], v[3])
            };
            assert!(pair(0).1 - pair(0).0 >= 1.0 && pair(1).1 / pair(1).0 >= 1.08);
            assert!(draws.iter().all(|d| d.groups[0] == draws[0].groups[0]));
        }
    }

    #[test]
    fn every_design_is_balanced_and_orthogonal() {
        for k in 0..=7 {
            let variant: Vec<_> = (0..k).map(|_| OperatorSpec::new("pitch_shift").unwrap()).collect();
            let chain = Chain { variant, ..chain("[]", Sampling::Factorial) };
            let draws = chain.draw_segment(Key::root(2), "c", 60.0, 0, 0).unwrap();
            assert_eq!(draws.len(), [2, 4, 4, 4, 8, 8, 8, 8][k]);
            assert_eq!(draws.len(), chain.views_per_segment());
            for a in 1..=k {
                for b in 1..=k {
                    let mut counts: HashMap<(i64, i64), usize> = HashMap::new();
                    for d in &draws {
                        *counts.entry((d.groups[a], d.groups[b])).or_default() += 1;
                    }
                    let cells = if a == b { 2 } else { 4 };
                    assert_eq!(counts.len(), cells, "{k} factors, {a} with {b}");
                    assert!(counts.values().all(|n| *n == draws.len() / cells));
                }
            }
        }
    }

    #[test]
    fn draws_are_a_function_of_their_names() {
        let chain = chain(TWO, Sampling::Factorial);
        let draw = |seed, clip: &str, segment, epoch| {
            chain.draw_segment(Key::root(seed), clip, 30.0, segment, epoch).unwrap()
        };
        let one = draw(1, "a", 0, 0);
        assert_eq!(one, draw(1, "a", 0, 0));
        for other in [draw(2, "a", 0, 0), draw(1, "b", 0, 0), draw(1, "a", 1, 0), draw(1, "a", 0, 1)] {
            assert!(one.iter().zip(&other).all(|(a, b)| a.key != b.key && a.centre_s != b.centre_s));
        }
        // Groups name the segment, not the run.
        assert_eq!(one[0].groups[0], draw(2, "a", 0, 0)[0].groups[0]);
        // Base operators are independent per view, and a second operator of a name has draws of its own.
        assert_ne!(one[0].params[5], one[1].params[5]);
        let twice = Chain { base: ops(r#"[{"gain": {"p": 1}}, {"gain": {"p": 1}}]"#), ..chain.clone() };
        assert_eq!(twice.columns(), ["pitch_shift", "time_stretch", "gain", "gain_2"]);
        let draws = twice.draw_segment(Key::root(1), "a", 30.0, 0, 0).unwrap();
        assert_ne!(draws[0].params[2], draws[0].params[3]);
    }

    #[test]
    fn bernoulli_leaves_factors_at_identity_with_probability_one_minus_p() {
        let chain = chain(r#"[{"pitch_shift": {"p": 0.3}}]"#, Sampling::Bernoulli);
        assert_eq!(chain.views_per_segment(), 2);
        let (mut untouched, mut positives) = (0, 0);
        for segment in 0..2_000 {
            let draws = chain.draw_segment(Key::root(5), "c", 30.0, segment, 0).unwrap();
            untouched += draws.iter().filter(|d| d.params[0] == Some(vec![0.0])).count();
            positives += usize::from(draws[0].groups[1] == draws[1].groups[1]);
        }
        assert!((untouched as f64 / 4_000.0 - 0.7).abs() < 0.03, "{untouched}");
        // Both untouched in 49%, and a few pairs of shifts happen to lie within the tolerance.
        assert!((positives as f64 / 2_000.0 - 0.5).abs() < 0.04, "{positives}");
    }

    #[test]
    fn base_operators_apply_with_their_probability() {
        let chain = Chain { base: ops(r#"[{"gain": {"p": 0.25}}]"#), ..chain("[]", Sampling::Factorial) };
        let draws = (0..2_000).flat_map(|s| chain.draw_segment(Key::root(3), "c", 9.0, s, 0).unwrap());
        let applied = draws.filter(|d| d.params[0].is_some()).count();
        assert!((applied as f64 / 4_000.0 - 0.25).abs() < 0.03, "{applied}");
    }

    #[test]
    fn reads_fit_the_clip_and_short_clips_are_refused() {
        let chain = chain(TWO, Sampling::Factorial);
        let read = chain.read_seconds();
        assert!(read > 3.9 && read < 4.3, "{read}");
        for segment in 0..100 {
            let draws = chain.draw_segment(Key::root(1), "c", 5.0, segment, 0).unwrap();
            assert!(draws[0].centre_s - read / 2.0 >= 0.0 && draws[0].centre_s + read / 2.0 <= 5.0);
        }
        let error = chain.draw_segment(Key::root(1), "c", 3.5, 0, 0).unwrap_err();
        assert_eq!(error.kind, RejectKind::TooShort);
        assert!(chain.draw_segment(Key::root(1), "c", f64::NAN, 0, 0).is_err());
        assert!(chain.identity().base.is_empty() && chain.identity().read_seconds() == read);
    }

    #[test]
    fn clusters_never_span_more_than_the_tolerance() {
        let factor = OperatorSpec::new("pitch_shift").unwrap().def().factor.unwrap();
        assert_eq!(cluster(&[1.0, 0.0, 1.05, 0.96, 0.0], factor), [1, 0, 1, 1, 0]);
        // 0.00, 0.08, 0.16: a chain of neighbours, yet two clusters.
        assert_eq!(cluster(&[0.16, 0.0, 0.08], factor), [1, 0, 0]);
    }

    #[test]
    fn validation_says_what_to_change() {
        let good = chain(TWO, Sampling::Factorial);
        for (bad, want) in [
            (Chain { variant: ops(r#"["polarity"]"#), ..good.clone() }, "`polarity` cannot be a factor"),
            (
                Chain { variant: ops(r#"[{"pitch_shift": {"semitones": [0, 0.5]}}]"#), ..good.clone() },
                "widen the range",
            ),
            (Chain { seconds: f64::NAN, ..good.clone() }, "seconds must lie within"),
            (Chain { sample_rate: 1, ..good.clone() }, "sample_rate must lie within"),
            (Chain { variant: vec![OperatorSpec::new("gain").unwrap(); 8], ..good.clone() }, "at most 7"),
        ] {
            assert!(bad.validate().unwrap_err().contains(want));
        }
        let text = serde_json::to_string(&good).unwrap();
        assert_eq!(serde_json::from_str::<Chain>(&text).unwrap(), good);
    }

    proptest! {
        #[test]
        fn levels_are_apart_however_narrow_the_range(low in -12.0f64..10.9, extra in 0.0f64..2.0, seed: u64) {
            let high = (low + 1.0 + extra).min(12.0);
            let spec: OperatorSpec =
                serde_json::from_value(serde_json::json!({"pitch_shift": {"semitones": [low, high]}})).unwrap();
            let Levels([a, b]) = Levels::draw(&spec, &mut Key::root(seed).rng());
            prop_assert!((a[0] - b[0]).abs() >= 1.0 - 1e-12);
            prop_assert!(a[0] >= low && b[0] >= low && a[0] <= high && b[0] <= high);
        }
    }
}
