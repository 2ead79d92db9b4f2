//! Views: what is drawn for each view of a segment, and which views are alike in each subspace.
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
//! A draw depends on (run, clip, segment, epoch, view) and the operators alone: never on order or threads. Where an
//! operator draws second recordings, it depends on the set of these as well.

use std::collections::BTreeMap;

use crate::audio::Audio;
use crate::chain::{Chain, Choice, Sampling};
use crate::dist::Scale;
use crate::error::{AudioError, RejectKind};
use crate::operator::{Extent, FactorDef, OperatorSpec};
use crate::rng::{Key, Rng};

/// The peak below which a source is silent.
pub(crate) const SILENT: f32 = 1e-5;

/// The parameters of one view: enough to render it again.
#[derive(Clone, Debug, PartialEq)]
pub struct Draw {
    /// Which segment of the clip.
    pub segment: u32,
    /// In which epoch.
    pub epoch: u32,
    /// Which view of the segment.
    pub view: u32,
    /// The middle of the view in the clip, in seconds, before any shift.
    pub centre_s: f64,
    /// The key of what is random in rendering (noise).
    pub key: u64,
    /// Parameters per leaf of the chain. `None`: not applied. Options are stored as their index.
    pub params: Vec<Option<Vec<f64>>>,
    /// Per leaf, the second recording of an operator that has one and was applied.
    pub partners: Vec<Option<Partner>>,
    /// The leaves in the order of processing.
    pub order: Vec<usize>,
    /// Per head, the group of the view: equal numbers are positives.
    pub groups: Vec<i64>,
}

/// A second recording that a view needs: a background, an impulse response, another clip.
#[derive(Clone, Debug, PartialEq)]
pub struct Partner {
    /// Its name in the stage that it comes from.
    pub clip_id: String,
    /// Where its audio is.
    pub uri: String,
    /// Where reading begins, in seconds.
    pub start_s: f64,
}

/// The clips of a stage from which second recordings are drawn.
#[derive(Clone, Debug, Default)]
pub struct Pool(Vec<PoolClip>);

/// A clip of a [`Pool`].
#[derive(Clone, Debug, PartialEq)]
pub struct PoolClip {
    /// Its name.
    pub clip_id: String,
    /// Where its audio is.
    pub uri: String,
    /// Its duration.
    pub seconds: f64,
}

impl Pool {
    /// The order of `clips` does not matter.
    pub fn new(mut clips: Vec<PoolClip>) -> Self {
        clips.sort_by(|a, b| a.clip_id.cmp(&b.clip_id));
        Self(clips)
    }

    /// A clip other than `clip_id`, and a place in it from which `seconds` can be read, or any place of a clip that
    /// is shorter.
    fn draw(&self, clip_id: &str, seconds: f64, rng: &mut Rng) -> Option<Partner> {
        let own = self.0.binary_search_by(|clip| clip.clip_id.as_str().cmp(clip_id)).ok();
        let mut at = rng.below(self.0.len() - usize::from(own.is_some()).min(self.0.len()));
        if own.is_some_and(|own| at >= own) {
            at += 1;
        }
        let clip = self.0.get(at)?;
        let room = clip.seconds - seconds;
        let start_s = rng.uniform(0.0, if room > 0.0 { room } else { clip.seconds.max(0.0) });
        Some(Partner { clip_id: clip.clip_id.clone(), uri: clip.uri.clone(), start_s })
    }
}

/// The pools of a chain, by the name of their stage.
pub type Pools = BTreeMap<String, Pool>;

/// The levels of the factors in each view: factor k is at its second level in view v where the bits of v that
/// the mask selects have odd parity. Any two masks are orthogonal; the first four have resolution IV.
const MASKS: [u32; crate::chain::MAX_FACTORS] = [1, 2, 4, 7, 3, 5, 6];
const MASKS_OF_4_VIEWS: [u32; 3] = [1, 2, 3];

/// How often two levels are drawn anew before the ends of the range are taken.
const TRIES: usize = 64;

/// What an operator was drawn to do; `None`: it is left out.
type Applied = Option<(Vec<f64>, Option<Partner>)>;

impl Chain {
    /// The draws of all views of a segment.
    ///
    /// The centre is uniform where the whole read fits into the clip. Draws depend on `run` and the arguments.
    /// `pools` holds the clips of every stage in [`Chain::partner_stages`].
    ///
    /// # Errors
    /// [`RejectKind::TooShort`] when the clip cannot hold one read, [`RejectKind::Missing`] when a pool holds no other
    /// clip.
    pub fn draw_segment(
        &self,
        run: Key,
        clip_id: &str,
        clip_seconds: f64,
        segment: u32,
        epoch: u32,
        pools: &Pools,
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
        let drawing = Drawing { clip_id, seconds: self.seconds, pools };
        let levels =
            self.variant.iter().zip(&columns).map(|(spec, column)| {
                Levels::draw(spec, &drawing, &mut operator_key(key, spec, column).rng())
            });
        let levels: Vec<Levels> = levels.collect::<Result<_, _>>()?;
        let factors = self.variant.len();
        let mut draws = Vec::with_capacity(views);
        for view in 0..views as u32 {
            let key = key.with_str("view").with(u64::from(view));
            let choice = Choice::draw(&self.base, key.with_str("group"));
            let mut params = Vec::with_capacity(columns.len());
            let mut partners = Vec::with_capacity(columns.len());
            for (i, (spec, column)) in self.operators().into_iter().zip(&columns).enumerate() {
                let mut rng = operator_key(key, spec, column).rng();
                let applied = match (levels.get(i), self.sampling) {
                    (Some(levels), Sampling::Factorial) => levels.of(factors, i, view),
                    (Some(_), Sampling::Bernoulli) => {
                        drawing.apply(spec, &mut rng)?.or_else(|| Some((spec.identity()?, None)))
                    }
                    (None, _) if choice.chosen.get(i - factors) == Some(&false) => None,
                    (None, _) => drawing.apply(spec, &mut rng)?,
                };
                let (values, partner) = applied.unzip();
                params.push(values);
                partners.push(partner.flatten());
            }
            let order = (0..factors).chain(choice.order.into_iter().map(|i| factors + i)).collect();
            let key = key.value();
            let groups = Vec::new();
            draws.push(Draw { segment, epoch, view, centre_s, key, params, partners, order, groups });
        }
        self.group(clip_id, &mut draws);
        Ok(draws)
    }

    /// The draw that changes nothing: every factor at its identity, no base operator applied.
    pub fn draw_identity(&self, run: Key, clip_id: &str, segment: u32, centre_s: f64) -> Draw {
        let key = segment_key(run, clip_id, segment, 0).with_str("identity").value();
        let leaves = self.operators().len();
        let mut params: Vec<_> = self.variant.iter().map(OperatorSpec::identity).collect();
        params.resize(leaves, None);
        let (partners, order) = (vec![None; leaves], (0..leaves).collect());
        let groups = Vec::new();
        let mut draw = [Draw { segment, epoch: 0, view: 0, centre_s, key, params, partners, order, groups }];
        self.group(clip_id, &mut draw);
        let [draw] = draw;
        draw
    }

    /// The operators that were applied, in the order of processing.
    pub fn processing<'a>(&'a self, draw: &'a Draw) -> impl Iterator<Item = (&'a OperatorSpec, &'a [f64])> {
        let operators = self.operators();
        draw.order.iter().filter_map(move |i| Some((*operators.get(*i)?, draw.params.get(*i)?.as_deref()?)))
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
            let clusters = match spec.def().factor {
                FactorDef::OnOff => {
                    draws.iter().map(|d| u64::from(d.params.get(k).is_some_and(Option::is_some))).collect()
                }
                FactorDef::Level { param, tolerance, scale, .. } => {
                    let value = |d: &Draw| d.params.get(k)?.as_ref()?.get(param).copied();
                    cluster(&draws.iter().map(value).collect::<Vec<_>>(), tolerance, scale)
                }
            };
            for (draw, cluster) in draws.iter_mut().zip(clusters) {
                draw.groups.push(id.with(k as u64).with(cluster).value() as i64);
            }
        }
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
        if source.peak() < SILENT {
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

/// What is drawn for one clip.
struct Drawing<'a> {
    clip_id: &'a str,
    /// The length of a view.
    seconds: f64,
    pools: &'a Pools,
}

impl Drawing<'_> {
    /// Parameters with the probability of the operator.
    fn apply(&self, spec: &OperatorSpec, rng: &mut Rng) -> Result<Applied, AudioError> {
        if rng.f64() < spec.p() { self.draw(spec, rng).map(Some) } else { Ok(None) }
    }

    /// Parameters, and a second recording where one is needed.
    fn draw(&self, spec: &OperatorSpec, rng: &mut Rng) -> Result<(Vec<f64>, Option<Partner>), AudioError> {
        let params = spec.draw(rng);
        let Some(stage) = spec.from().filter(|_| spec.def().partner().is_some()) else {
            return Ok((params, None));
        };
        let seconds = match spec.def().partner() {
            Some(Extent::View) => self.seconds,
            // The whole recording: reading begins at its start.
            _ => f64::INFINITY,
        };
        let partner = self.pools.get(stage).and_then(|pool| pool.draw(self.clip_id, seconds, rng));
        let mut partner = partner.ok_or_else(|| {
            let message = format!("`{}` finds no other clip in the stage `{stage}`", spec.name());
            AudioError::new(RejectKind::Missing, message)
        })?;
        if seconds.is_infinite() {
            partner.start_s = 0.0;
        }
        Ok((params, Some(partner)))
    }
}

/// The two levels of a factor.
struct Levels([Applied; 2]);

impl Levels {
    /// Two draws, at least the factor's distance apart; a range that hardly fits them gives its ends.
    fn draw(spec: &OperatorSpec, drawing: &Drawing<'_>, rng: &mut Rng) -> Result<Self, AudioError> {
        let FactorDef::Level { param, apart, scale, .. } = spec.def().factor else {
            let on = Some(drawing.draw(spec, rng)?);
            return Ok(Self(if rng.below(2) == 1 { [on, None] } else { [None, on] }));
        };
        let at = |level: &(Vec<f64>, _)| level.0.get(param).copied().unwrap_or(0.0);
        let mut levels = [drawing.draw(spec, rng)?, drawing.draw(spec, rng)?];
        let mut tries = 0;
        while scale.distance(at(&levels[0]), at(&levels[1])) < apart && tries < TRIES {
            levels = [drawing.draw(spec, rng)?, drawing.draw(spec, rng)?];
            tries += 1;
        }
        if tries == TRIES {
            let (low, high) = spec.params().get(param).map_or((0.0, 0.0), |p| p.bounds());
            let swap = rng.below(2) == 1;
            for (level, end) in levels.iter_mut().zip(if swap { [high, low] } else { [low, high] }) {
                if let Some(slot) = level.0.get_mut(param) {
                    *slot = end;
                }
            }
        }
        Ok(Self(levels.map(Some)))
    }

    /// The level of factor `k` of `factors` in a view.
    fn of(&self, factors: usize, k: usize, view: u32) -> Applied {
        let masks: &[u32] = if factors <= MASKS_OF_4_VIEWS.len() { &MASKS_OF_4_VIEWS } else { &MASKS };
        let mask = masks.get(k).copied().unwrap_or(0);
        self.0[((view & mask).count_ones() % 2) as usize].clone()
    }
}

/// A number per value such that equal numbers are values within the tolerance of one another. From the least
/// value upwards, a cluster takes what lies within the tolerance of its first member. What has no value is alike.
fn cluster(values: &[Option<f64>], tolerance: f64, scale: Scale) -> Vec<u64> {
    let mut order: Vec<(f64, usize)> =
        values.iter().enumerate().filter_map(|(i, v)| Some(((*v)?, i))).collect();
    order.sort_by(|a, b| a.0.total_cmp(&b.0));
    let mut clusters = vec![u64::MAX; values.len()];
    let mut first: Option<f64> = None;
    let mut number = 0;
    for (value, i) in order {
        match first {
            Some(f) if scale.distance(f, value) <= tolerance => {}
            _ => {
                number += u64::from(first.is_some());
                first = Some(value);
            }
        }
        clusters[i] = number;
    }
    clusters
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chain::Channels;
    use proptest::prelude::*;
    use std::collections::{HashMap, HashSet};

    fn ops<T: serde::de::DeserializeOwned>(json: &str) -> Vec<T> {
        serde_json::from_str(json).unwrap()
    }

    fn none() -> Pools {
        Pools::new()
    }

    fn chain(variant: &str, sampling: Sampling) -> Chain {
        let base = ops(r#"["gain", "polarity", "colored_noise", "filter"]"#);
        let channels = Channels::Mono;
        Chain { sample_rate: 16_000, seconds: 3.0, channels, base, variant: ops(variant), sampling }
    }

    const TWO: &str = r#"["pitch_shift", "time_stretch"]"#;

    #[test]
    fn two_factors_make_a_grid_with_a_positive_per_head() {
        let chain = chain(TWO, Sampling::Factorial);
        chain.validate().unwrap();
        assert_eq!(chain.heads(), ["invariant", "pitch_shift", "time_stretch"]);
        for segment in 0..200 {
            let draws = chain.draw_segment(Key::root(1), "clip", 30.0, segment, 0, &none()).unwrap();
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
            let draws = chain.draw_segment(Key::root(2), "c", 60.0, 0, 0, &none()).unwrap();
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
            chain.draw_segment(Key::root(seed), clip, 30.0, segment, epoch, &none()).unwrap()
        };
        let one = draw(1, "a", 0, 0);
        assert_eq!(one, draw(1, "a", 0, 0));
        for other in [draw(2, "a", 0, 0), draw(1, "b", 0, 0), draw(1, "a", 1, 0), draw(1, "a", 0, 1)] {
            assert!(one.iter().zip(&other).all(|(a, b)| a.key != b.key && a.centre_s != b.centre_s));
        }
        // Groups name the segment, not the run.
        assert_eq!(one[0].groups[0], draw(2, "a", 0, 0)[0].groups[0]);
        // Base operators are independent per view, and a second operator of a name has draws of its own.
        assert_ne!(one[0].params[2..], one[1].params[2..]);
        let twice = Chain { base: ops(r#"[{"gain": {"p": 1}}, {"gain": {"p": 1}}]"#), ..chain.clone() };
        assert_eq!(twice.columns(), ["pitch_shift", "time_stretch", "gain", "gain_2"]);
        let draws = twice.draw_segment(Key::root(1), "a", 30.0, 0, 0, &none()).unwrap();
        assert_ne!(draws[0].params[2], draws[0].params[3]);
    }

    #[test]
    fn bernoulli_leaves_factors_at_identity_with_probability_one_minus_p() {
        let chain = chain(r#"[{"pitch_shift": {"p": 0.3}}]"#, Sampling::Bernoulli);
        assert_eq!(chain.views_per_segment(), 2);
        let (mut untouched, mut positives) = (0, 0);
        for segment in 0..2_000 {
            let draws = chain.draw_segment(Key::root(5), "c", 30.0, segment, 0, &none()).unwrap();
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
        let draws =
            (0..2_000).flat_map(|s| chain.draw_segment(Key::root(3), "c", 9.0, s, 0, &none()).unwrap());
        let applied = draws.filter(|d| d.params[0].is_some()).count();
        assert!((applied as f64 / 4_000.0 - 0.25).abs() < 0.03, "{applied}");
    }

    #[test]
    fn reads_fit_the_clip_and_short_clips_are_refused() {
        let chain = chain(TWO, Sampling::Factorial);
        let read = chain.read_seconds();
        assert!(read > 3.9 && read < 4.3, "{read}");
        for segment in 0..100 {
            let draws = chain.draw_segment(Key::root(1), "c", 5.0, segment, 0, &none()).unwrap();
            assert!(draws[0].centre_s - read / 2.0 >= 0.0 && draws[0].centre_s + read / 2.0 <= 5.0);
        }
        let error = chain.draw_segment(Key::root(1), "c", 3.5, 0, 0, &none()).unwrap_err();
        assert_eq!(error.kind, RejectKind::TooShort);
        assert!(chain.draw_segment(Key::root(1), "c", f64::NAN, 0, 0, &none()).is_err());
        assert!(chain.identity().base.is_empty() && chain.identity().read_seconds() == read);
    }

    #[test]
    fn clusters_never_span_more_than_the_tolerance() {
        let cluster = |values: &[Option<f64>]| cluster(values, 0.1, Scale::Linear);
        assert_eq!(cluster(&[1.0, 0.0, 1.05, 0.96, 0.0].map(Some)), [1, 0, 1, 1, 0]);
        // 0.00, 0.08, 0.16: a chain of neighbours, yet two clusters.
        assert_eq!(cluster(&[0.16, 0.0, 0.08].map(Some)), [1, 0, 0]);
        assert_eq!(cluster(&[None, Some(0.0), None]), [u64::MAX, 0, u64::MAX]);
    }

    #[test]
    fn validation_says_what_to_change() {
        let good = chain(TWO, Sampling::Factorial);
        for (bad, want) in [
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
            let drawing = Drawing { clip_id: "c", seconds: 3.0, pools: &none() };
            let Levels(levels) = Levels::draw(&spec, &drawing, &mut Key::root(seed).rng()).unwrap();
            let [a, b] = levels.map(|level| level.unwrap().0[0]);
            prop_assert!((a - b).abs() >= 1.0 - 1e-12);
            prop_assert!(a >= low && b >= low && a <= high && b <= high);
        }
    }
}
