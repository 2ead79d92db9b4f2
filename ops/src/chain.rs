//! What is done to make views: the variant and the base chain.
//!
//! A [`Chain`] holds two lists of operators. The *variant* chain comes first in processing (how the music is
//! played); each of its operators is a *factor* with a subspace of its own. The *base* chain comes after (the
//! recording channel); every subspace ignores it. The base chain may hold groups, each a choice that is drawn
//! anew for every view:
//!
//! ```yaml
//! variant: [pitch_shift, time_stretch]
//! base:
//!   - gain: {db: [-15, 5]}
//!   - one_of: [reverb, room, delay]
//!   - some_of: {n: [0, 2], of: [distortion, bit_crush, codec], p: 0.8}
//!   - shuffle: [chorus, phaser, equalizer]
//! ```
//! Whatever the nesting, the *leaves* of a chain are its operators as they are written from top to bottom; a draw
//! says of each leaf whether it was applied, and in which order they were.

use std::fmt;
use std::ops::Range;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{self, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer, ser::SerializeMap};

use crate::audio::Audio;
use crate::error::{AudioError, RejectKind};
use crate::operator::{FactorDef, Kernel, OperatorDef, OperatorSpec, Warp, unknown};
use crate::operators::spec::read_named;
use crate::operators::{all, find};
use crate::rng::Key;
use crate::source::Source;
use crate::speed;
use crate::views::Draw;
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

/// The channels that views have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Channels {
    /// The mean of the channels of the clip.
    #[default]
    Mono,
    /// Two channels: those of a stereo clip, twice the one of a mono clip, or a fold-down of more.
    Stereo,
}

impl Channels {
    /// How many there are.
    pub fn count(self) -> usize {
        match self {
            Channels::Mono => 1,
            Channels::Stereo => 2,
        }
    }

    /// Reads a range of a source with these channels, as [`Source::read`].
    ///
    /// # Errors
    /// As [`Source::read`].
    pub fn read(self, source: &Source, start_s: f64, seconds: f64, rate: u32) -> Result<Audio, AudioError> {
        match self {
            Self::Mono => source.read_mono(start_s, seconds, rate),
            Self::Stereo => Ok(source.read(start_s, seconds, rate)?.with_channels(self.count())),
        }
    }

    fn is_mono(&self) -> bool {
        *self == Channels::Mono
    }
}

/// What is done to make views, and how much audio a view holds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Chain {
    /// The rate of the views, in Hz.
    pub sample_rate: u32,
    /// The length of a view, in seconds.
    pub seconds: f64,
    /// The channels of a view.
    #[serde(default, skip_serializing_if = "Channels::is_mono")]
    pub channels: Channels,
    /// Operators that every subspace ignores, applied after the variant chain.
    #[serde(default)]
    pub base: Vec<Entry>,
    /// The factors: operators each of which gets a subspace of its own.
    #[serde(default)]
    pub variant: Vec<OperatorSpec>,
    /// How the factors are drawn.
    #[serde(default)]
    pub sampling: Sampling,
}

/// One entry of a base chain.
#[derive(Clone, Debug, PartialEq)]
pub enum Entry {
    /// An operator.
    Operator(OperatorSpec),
    /// A choice among entries.
    Group(Group),
}

/// A choice that is drawn for every view.
#[derive(Clone, Debug, PartialEq)]
pub struct Group {
    /// What is chosen.
    pub kind: GroupKind,
    /// How likely any of it is applied.
    pub p: f64,
    /// What it is chosen from. Entries of `one_of` and `some_of` are applied whenever they are chosen, unless they
    /// have a `p` of their own.
    pub of: Vec<Entry>,
}

/// The kinds of choice.
#[derive(Clone, Debug, PartialEq)]
pub enum GroupKind {
    /// One entry.
    OneOf {
        /// How likely each is, relative to the others; empty for equally.
        weights: Vec<f64>,
    },
    /// Between `least` and `most` different entries, each number equally likely, in the order of the list.
    SomeOf {
        /// The fewest.
        least: usize,
        /// The most.
        most: usize,
    },
    /// All entries, in a random order.
    Shuffle,
}

impl GroupKind {
    /// The name in YAML.
    pub fn name(&self) -> &'static str {
        match self {
            GroupKind::OneOf { .. } => "one_of",
            GroupKind::SomeOf { .. } => "some_of",
            GroupKind::Shuffle => "shuffle",
        }
    }
}

/// An operator of a chain and the leaves among which a draw may move it.
#[derive(Clone, Debug)]
pub(crate) struct Leaf {
    pub spec: OperatorSpec,
    /// The leaves of the outermost shuffle that it belongs to.
    pub shuffle: Option<Range<usize>>,
    /// Whether a draw may leave it out.
    pub may_skip: bool,
    /// [`OperatorSpec::identity`].
    pub identity: Option<Vec<f64>>,
}

impl Leaf {
    /// Whether these parameters ask for a second recording.
    fn needs_partner(&self, params: Option<&[f64]>) -> bool {
        self.spec.def().partner().is_some() && params.is_some() && params != self.identity.as_deref()
    }
}

/// One step of rendering, by the indices of its leaves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// One pass of the vocoder.
    Warp(Range<usize>),
    /// One operator of another kind.
    Leaf(usize),
}

/// The most factors: what the orthogonal array of eight views carries.
pub(crate) const MAX_FACTORS: usize = 7;

/// How deep groups may stand in one another.
const MAX_DEPTH: usize = 4;

impl Chain {
    /// The leaves in the order in which they are written: the variant chain, then the base chain.
    pub fn operators(&self) -> Vec<&OperatorSpec> {
        self.variant.iter().chain(self.base.iter().flat_map(Entry::operators)).collect()
    }

    pub(crate) fn leaves(&self) -> Vec<Leaf> {
        let specs = self.operators();
        let mut shuffles: Vec<Option<Range<usize>>> = vec![None; self.variant.len()];
        for entry in &self.base {
            entry.shuffles(&mut shuffles);
        }
        let leaf = |(i, (spec, shuffle)): (usize, (&&OperatorSpec, Option<Range<usize>>))| {
            let identity = spec.identity();
            let factor_skips = identity.is_none() || spec.def().factor == FactorDef::OnOff;
            let may_skip = i >= self.variant.len() || factor_skips;
            Leaf { spec: (*spec).clone(), shuffle, may_skip, identity }
        };
        specs.iter().zip(shuffles).enumerate().map(leaf).collect()
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
        if self.variant.len() > MAX_FACTORS {
            let got = self.variant.len();
            return Err(format!("a variant chain holds at most {MAX_FACTORS} factors, got {got}"));
        }
        for spec in &self.variant {
            let FactorDef::Level { param, apart, scale, .. } = spec.def().factor else { continue };
            let (low, high) = spec.params().get(param).map_or((0.0, 0.0), |p| p.bounds());
            if self.sampling == Sampling::Factorial && scale.distance(low, high) < apart {
                return Err(format!(
                    "`{}` draws from {low}..{high}: two levels at least {apart} apart do not fit; widen the range",
                    spec.name()
                ));
            }
        }
        self.base.iter().try_for_each(|entry| entry.validate(1))?;
        let leaves = self.leaves();
        for leaf in &leaves {
            let name = leaf.spec.name();
            if leaf.spec.def().partner().is_some() && leaf.spec.from().is_none() {
                return Err(format!(
                    "`{name}` needs a second recording: write {{{name}: {{from: STAGE}}}} with a stage of clips"
                ));
            }
            let Some(shuffle) = &leaf.shuffle else { continue };
            let moves = |leaf: &Leaf| {
                let moves = !matches!(leaf.spec.def().kernel, Kernel::Samples(_) | Kernel::Partner(..));
                moves.then(|| leaf.spec.name())
            };
            let mut movers = leaves[shuffle.clone()].iter().filter_map(moves);
            if let (Some(first), Some(second)) = (movers.next(), movers.next()) {
                return Err(format!(
                    "a `shuffle` holds `{first}` and `{second}`: at most one operator that changes time or pitch \
                     may be shuffled; put the other before it"
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

    /// A unique column name per leaf: `gain`, `gain_2`, ...
    pub fn columns(&self) -> Vec<String> {
        let names: Vec<_> = self.operators().into_iter().map(OperatorSpec::name).collect();
        let numbered = names.iter().enumerate().map(|(i, name)| {
            let nth = names.iter().take(i + 1).filter(|n| *n == name).count();
            if nth == 1 { (*name).to_owned() } else { format!("{name}_{nth}") }
        });
        numbered.collect()
    }

    /// The stages that second recordings come from, each once.
    pub fn partner_stages(&self) -> Vec<&str> {
        let mut stages: Vec<&str> = self.operators().into_iter().filter_map(OperatorSpec::from).collect();
        stages.sort_unstable();
        stages.dedup();
        stages
    }

    /// [`Self::read_frames`] in seconds.
    pub fn read_seconds(&self) -> f64 {
        self.read_frames() as f64 / f64::from(self.sample_rate)
    }

    /// How many frames of source audio a view needs at most, centred on the view, margins of the vocoder included. The
    /// same for all views, so that one read serves a segment.
    pub fn read_frames(&self) -> usize {
        let worst =
            |a: Warp, b: Warp| Warp { semitones: a.semitones.min(b.semitones), rate: a.rate.max(b.rate) };
        let ends = |spec: &OperatorSpec| -> (Vec<f64>, Vec<f64>) {
            spec.params().iter().map(|p| p.bounds()).unzip()
        };
        let reach = |spec: &OperatorSpec| {
            let (low, high) = ends(spec);
            // Reading grows with the rate and with downward shifts, so an end is the worst; and a base operator
            // that is not applied leaves the identity, which may read more than either end.
            worst(worst(spec.def().warp(&low), spec.def().warp(&high)), Warp::IDENTITY)
        };
        let leaves = self.leaves();
        let mut steps_in_order = Vec::new();
        steps(&leaves, 0..leaves.len(), &mut steps_in_order);
        let frames = steps_in_order.iter().rev().fold(self.frames(), |frames, step| match step {
            Step::Leaf(i) => {
                let spec = &leaves[*i].spec;
                let (low, high) = ends(spec);
                let reads = |params: &[f64]| leaf_frames(spec.def(), Some(params), frames, self.sample_rate);
                // Not applied, it reads as much as at its identity, which may be more than at either end.
                let identity = leaf_frames(spec.def(), None, frames, self.sample_rate);
                reads(&low).max(reads(&high)).max(identity)
            }
            Step::Warp(range) => {
                let members = leaves[range.clone()].iter();
                let warp = members.fold(Warp::IDENTITY, |warp, leaf| warp.then(reach(&leaf.spec)));
                vocoder::input_frames(self.sample_rate, frames, warp)
            }
        });
        // Two frames of slack for rounding the start of the read to the clip's own frames.
        frames + 2
    }

    /// The same without a base chain: for embeddings of clean audio.
    pub fn identity(&self) -> Chain {
        Chain { base: Vec::new(), ..self.clone() }
    }
}

/// Frames that enter a leaf that is no warp, for so many that leave it.
pub(crate) fn leaf_frames(
    def: &OperatorDef,
    params: Option<&[f64]>,
    frames: usize,
    sample_rate: u32,
) -> usize {
    let Some(params) = params else { return frames };
    match def.kernel {
        Kernel::Shift(shift) => frames + 2 * (shift(params).abs() * f64::from(sample_rate)).ceil() as usize,
        Kernel::Speed(speed) => speed::input_frames(frames, speed(params)),
        Kernel::Samples(_) | Kernel::Partner(..) | Kernel::Warp(_) => frames,
    }
}

/// What is done, leaf by leaf in this order, each run of neighbouring warps fused into one pass of the vocoder. A
/// shuffled warp is a pass of its own, so that lengths do not depend on the order.
pub(crate) fn steps(leaves: &[Leaf], order: impl IntoIterator<Item = usize>, steps: &mut Vec<Step>) {
    steps.clear();
    for i in order {
        let leaf = &leaves[i];
        let warp = matches!(leaf.spec.def().kernel, Kernel::Warp(_));
        match steps.last_mut() {
            Some(Step::Warp(range))
                if warp
                    && range.end == i
                    && leaf.shuffle.is_none()
                    && leaves[range.start].shuffle.is_none() =>
            {
                range.end = i + 1;
            }
            _ if warp => steps.push(Step::Warp(i..i + 1)),
            _ => steps.push(Step::Leaf(i)),
        }
    }
}

/// Checks that a draw has the shape that a chain of these leaves gives.
pub(crate) fn check_draw(leaves: &[Leaf], draw: &Draw) -> Result<(), AudioError> {
    let wrong =
        |m: String| Err(AudioError::new(RejectKind::Corrupt, format!("a draw does not fit its chain: {m}")));
    let count = leaves.len();
    if draw.params.len() != count || draw.partners.len() != count || draw.order.len() != count {
        return wrong(format!("{} operators for {count}", draw.params.len()));
    }
    for ((leaf, params), partner) in leaves.iter().zip(&draw.params).zip(&draw.partners) {
        let def = leaf.spec.def();
        for (param, value) in def.params.iter().zip(params.iter().flatten()) {
            if !param.allows(*value) {
                return wrong(format!("`{}` of `{}` is {value}", param.name, def.name));
            }
        }
        if params.as_ref().is_some_and(|p| p.len() != def.params.len()) {
            return wrong(format!("the number of parameters of `{}`", def.name));
        }
        if params.is_none() && !leaf.may_skip {
            return wrong(format!("the factor `{}` was not applied", def.name));
        }
        let placed = match partner {
            Some(partner) => partner.start_s.is_finite() && partner.start_s >= 0.0,
            None => !leaf.needs_partner(params.as_deref()),
        };
        if !placed {
            return wrong(format!("the second recording of `{}`", def.name));
        }
    }
    for (at, leaf) in draw.order.iter().enumerate() {
        let fits = match leaves.get(*leaf).map(|l| &l.shuffle) {
            Some(Some(range)) => range.contains(&at),
            Some(None) => at == *leaf,
            None => false,
        };
        if !fits || draw.order[..at].contains(leaf) {
            return wrong("the order of its operators".to_owned());
        }
    }
    Ok(())
}

/// Which leaves of a base chain a view gets, and in which order.
#[derive(Debug, Default)]
pub(crate) struct Choice {
    /// Per leaf, whether the groups around it chose it.
    pub chosen: Vec<bool>,
    /// The leaves in the order of processing.
    pub order: Vec<usize>,
}

impl Choice {
    /// Draws for a list of entries; `key` is that of the list.
    pub(crate) fn draw(entries: &[Entry], key: Key) -> Self {
        let mut choice = Self::default();
        let order = choice.add(entries, true, key);
        choice.order = order;
        choice
    }

    fn add(&mut self, entries: &[Entry], on: bool, key: Key) -> Vec<usize> {
        let mut order = Vec::new();
        for (i, entry) in entries.iter().enumerate() {
            let Entry::Group(group) = entry else {
                order.push(self.chosen.len());
                self.chosen.push(on);
                continue;
            };
            let key = key.with(i as u64);
            let mut rng = key.rng();
            let on = on && rng.f64() < group.p;
            let mut picked = vec![group.kind == GroupKind::Shuffle; group.of.len()];
            match &group.kind {
                GroupKind::OneOf { weights } => {
                    let weight = |i: usize| weights.get(i).copied().unwrap_or(1.0);
                    let total: f64 = (0..group.of.len()).map(weight).sum();
                    let mut left = rng.uniform(0.0, total);
                    let one = (0..group.of.len()).find(|i| {
                        left -= weight(*i);
                        left < 0.0
                    });
                    if let Some(slot) = one.and_then(|i| picked.get_mut(i)) {
                        *slot = true;
                    }
                }
                GroupKind::SomeOf { least, most } => {
                    let count = least + rng.below(most - least + 1);
                    let mut all: Vec<usize> = (0..group.of.len()).collect();
                    rng.shuffle(&mut all);
                    all.into_iter().take(count).for_each(|i| picked[i] = true);
                }
                GroupKind::Shuffle => {}
            }
            let mut parts: Vec<Vec<usize>> = group
                .of
                .iter()
                .enumerate()
                .map(|(j, entry)| {
                    self.add(std::slice::from_ref(entry), on && picked[j], key.with(1 + j as u64))
                })
                .collect();
            if group.kind == GroupKind::Shuffle {
                rng.shuffle(&mut parts);
            }
            order.extend(parts.into_iter().flatten());
        }
        order
    }
}

impl Entry {
    /// The operators in it, from top to bottom.
    pub fn operators(&self) -> Vec<&OperatorSpec> {
        match self {
            Entry::Operator(spec) => vec![spec],
            Entry::Group(group) => group.of.iter().flat_map(Entry::operators).collect(),
        }
    }

    fn validate(&self, depth: usize) -> Result<(), String> {
        let Entry::Group(group) = self else { return Ok(()) };
        let name = group.kind.name();
        if depth > MAX_DEPTH {
            return Err(format!("groups may stand in one another {MAX_DEPTH} deep, `{name}` stands deeper"));
        }
        if group.of.is_empty() {
            return Err(format!("`{name}` has an empty list"));
        }
        if !(0.0..=1.0).contains(&group.p) {
            return Err(format!("`p` of `{name}` must lie within 0..1, got {}", group.p));
        }
        match &group.kind {
            GroupKind::OneOf { weights } if !weights.is_empty() => {
                let fit = weights.len() == group.of.len()
                    && weights.iter().all(|w| *w >= 0.0 && w.is_finite())
                    && weights.iter().sum::<f64>() > 0.0;
                if !fit {
                    return Err(format!(
                        "`weights` of `one_of` takes {} numbers of at least 0 that are not all 0",
                        group.of.len()
                    ));
                }
            }
            GroupKind::SomeOf { least, most } if least > most || *most > group.of.len() => {
                return Err(format!(
                    "`n` of `some_of` must lie within 0..{} in rising order, got {least}..{most}",
                    group.of.len()
                ));
            }
            _ => {}
        }
        group.of.iter().try_for_each(|entry| entry.validate(depth + 1))
    }

    /// Per leaf, the leaves of the outermost shuffle that it belongs to.
    fn shuffles(&self, shuffles: &mut Vec<Option<Range<usize>>>) {
        let Entry::Group(group) = self else { return shuffles.push(None) };
        let from = shuffles.len();
        group.of.iter().for_each(|entry| entry.shuffles(shuffles));
        if group.kind == GroupKind::Shuffle {
            let all = Some(from..shuffles.len());
            shuffles[from..].fill(all);
        }
    }

    /// An entry that a group chooses is applied, unless it says how likely.
    fn chosen(mut self) -> Self {
        if let Entry::Operator(spec) = &mut self {
            spec.apply_by_default();
        }
        self
    }
}

impl From<OperatorSpec> for Entry {
    fn from(spec: OperatorSpec) -> Self {
        Entry::Operator(spec)
    }
}

impl Serialize for Entry {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        struct Body<'a>(&'a Group);
        impl Serialize for Body<'_> {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                let mut map = serializer.serialize_map(None)?;
                match &self.0.kind {
                    GroupKind::OneOf { weights } if !weights.is_empty() => {
                        map.serialize_entry("weights", weights)?;
                    }
                    GroupKind::SomeOf { least, most } => map.serialize_entry("n", &[least, most])?,
                    _ => {}
                }
                map.serialize_entry("p", &self.0.p)?;
                map.serialize_entry("of", &self.0.of)?;
                map.end()
            }
        }
        match self {
            Entry::Operator(spec) => spec.serialize(serializer),
            Entry::Group(group) => {
                let mut map = serializer.serialize_map(Some(1))?;
                map.serialize_entry(group.kind.name(), &Body(group))?;
                map.end()
            }
        }
    }
}

impl<'de> Deserialize<'de> for Entry {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(EntryVisitor)
    }
}

const GROUPS: [&str; 3] = ["one_of", "some_of", "shuffle"];

struct EntryVisitor;

impl<'de> Visitor<'de> for EntryVisitor {
    type Value = Entry;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "an operator (a name such as polarity, or a map such as {gain: {db: [-15, 5]}}) or a group such as \
             {one_of: [reverb, delay]}",
        )
    }

    fn visit_str<E: de::Error>(self, name: &str) -> Result<Entry, E> {
        if GROUPS.contains(&name) {
            return Err(E::custom(format!("`{name}` needs a list: write {{{name}: [...]}}")));
        }
        OperatorSpec::new(name).map(Entry::Operator).map_err(E::custom)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Entry, A::Error> {
        let Some(name) = map.next_key::<String>()? else {
            return Err(de::Error::custom(
                "an operator without a name: write one such as {gain: {db: [-15, 5]}}",
            ));
        };
        let of_group =
            |body: Body| -> Result<Group, A::Error> { body.group(&name).map_err(de::Error::custom) };
        if GROUPS.contains(&name.as_str()) {
            let group = of_group(map.next_value()?)?;
            return match map.next_key::<String>()? {
                None => Ok(Entry::Group(group)),
                Some(extra) => Err(de::Error::custom(format!(
                    "`{extra}` stands beside `{name}`, not in it: write {{{name}: {{of: [...], {extra}: ...}}}}"
                ))),
            };
        }
        if find(&name).is_none() {
            let names = all().iter().map(|d| d.name).chain(GROUPS);
            return Err(de::Error::custom(unknown("operator", &name, "", names)));
        }
        read_named(&name, map).map(Entry::Operator)
    }
}

/// The body of a group: a list, or a map with `of`.
#[derive(Default)]
struct Body {
    of: Vec<Entry>,
    p: Option<f64>,
    n: Option<(usize, usize)>,
    weights: Option<Vec<f64>>,
}

impl Body {
    fn group(self, name: &str) -> Result<Group, String> {
        let foreign = |key: &str| Err(format!("`{name}` has no `{key}`"));
        let choosing = name != "shuffle";
        let kind = match name {
            "one_of" => {
                if self.n.is_some() {
                    return foreign("n");
                }
                GroupKind::OneOf { weights: self.weights.unwrap_or_default() }
            }
            "some_of" => {
                if self.weights.is_some() {
                    return foreign("weights");
                }
                let (least, most) = self.n.unwrap_or((0, self.of.len()));
                GroupKind::SomeOf { least, most }
            }
            _ => {
                if self.n.is_some() || self.weights.is_some() {
                    return foreign(if self.n.is_some() { "n" } else { "weights" });
                }
                GroupKind::Shuffle
            }
        };
        let of = self.of.into_iter().map(|entry| if choosing { entry.chosen() } else { entry }).collect();
        let group = Group { kind, p: self.p.unwrap_or(1.0), of };
        Entry::Group(group.clone()).validate(1)?;
        Ok(group)
    }
}

impl<'de> Deserialize<'de> for Body {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct BodyVisitor;
        impl<'de> Visitor<'de> for BodyVisitor {
            type Value = Body;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of operators, or a map with such a list as `of`")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Body, A::Error> {
                let mut body = Body::default();
                while let Some(entry) = seq.next_element()? {
                    body.of.push(entry);
                }
                Ok(body)
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Body, A::Error> {
                let mut body = Body::default();
                while let Some(key) = map.next_key::<String>()? {
                    match key.as_str() {
                        "of" => body.of = map.next_value()?,
                        "p" => body.p = Some(map.next_value()?),
                        "n" => body.n = Some(map.next_value::<Count>()?.0),
                        "weights" => body.weights = Some(map.next_value()?),
                        _ => {
                            let keys = ["of", "p", "n", "weights"].into_iter();
                            return Err(de::Error::custom(unknown("key", &key, "the group", keys)));
                        }
                    }
                }
                Ok(body)
            }
        }
        deserializer.deserialize_any(BodyVisitor)
    }
}

/// `2` or `[1, 3]`.
struct Count((usize, usize));

impl<'de> Deserialize<'de> for Count {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct CountVisitor;
        impl<'de> Visitor<'de> for CountVisitor {
            type Value = Count;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number of operators, or a range of numbers such as [1, 3]")
            }

            fn visit_u64<E: de::Error>(self, n: u64) -> Result<Count, E> {
                Ok(Count((n as usize, n as usize)))
            }

            fn visit_i64<E: de::Error>(self, n: i64) -> Result<Count, E> {
                u64::try_from(n).map_err(E::custom).and_then(|n| self.visit_u64(n))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Count, A::Error> {
                let wrong = || de::Error::custom("`n` takes a number or two numbers, [least, most]");
                let least = seq.next_element()?.ok_or_else(wrong)?;
                let most = seq.next_element()?.ok_or_else(wrong)?;
                match seq.next_element::<usize>()? {
                    None => Ok(Count((least, most))),
                    Some(_) => Err(wrong()),
                }
            }
        }
        deserializer.deserialize_any(CountVisitor)
    }
}

impl JsonSchema for Entry {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "ChainEntry".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let operator = generator.subschema_for::<OperatorSpec>();
        let entry = generator.subschema_for::<Entry>();
        let list = json_schema!({"type": "array", "items": entry, "minItems": 1});
        let p = json_schema!({
            "type": "number", "minimum": 0, "maximum": 1, "default": 1,
            "description": "How likely any of it is applied."
        });
        let form = |name: &str, help: &str, extra: Option<(&str, Schema)>| {
            let mut properties = serde_json::Map::new();
            properties.insert("of".into(), list.clone().to_value());
            properties.insert("p".into(), p.clone().to_value());
            if let Some((key, schema)) = extra {
                properties.insert(key.into(), schema.to_value());
            }
            let body = json_schema!({
                "type": "object", "properties": properties, "required": ["of"], "additionalProperties": false
            });
            json_schema!({
                "type": "object", "description": help,
                "properties": { name: { "description": help, "anyOf": [list, body] } },
                "required": [name], "additionalProperties": false
            })
        };
        let weights = json_schema!({
            "type": "array", "items": {"type": "number", "minimum": 0},
            "description": "How likely each is, relative to the others."
        });
        let n = json_schema!({
            "description": "How many: a number, or the fewest and the most.",
            "anyOf": [
                {"type": "integer", "minimum": 0},
                {"type": "array", "items": {"type": "integer", "minimum": 0}, "minItems": 2, "maxItems": 2}
            ]
        });
        json_schema!({
            "description": "An augmentation operator, or a choice among some that is drawn for every view.",
            "anyOf": [
                operator,
                form("one_of", "One of the entries.", Some(("weights", weights))),
                form("some_of", "Some of the entries, in the order of the list.", Some(("n", n))),
                form("shuffle", "All entries, in a random order.", None)
            ]
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::views::{Pool, PoolClip, Pools};
    use std::collections::{BTreeSet, HashMap};

    fn chain(base: &str) -> Chain {
        read(base).unwrap()
    }

    fn read(base: &str) -> Result<Chain, String> {
        let base = serde_json::from_str(base).map_err(|e| e.to_string())?;
        let (channels, sampling) = (Channels::Mono, Sampling::Factorial);
        Ok(Chain { sample_rate: 16_000, seconds: 1.0, channels, base, variant: Vec::new(), sampling })
    }

    fn draws(chain: &Chain, segments: u32) -> Vec<Draw> {
        let draw = |s| chain.draw_segment(Key::root(7), "clip", 60.0, s, 0, &Pools::new()).unwrap();
        (0..segments).flat_map(draw).collect()
    }

    #[test]
    fn groups_read_and_write_back() {
        let text = r#"[{"gain": {"db": 3}}, {"one_of": ["reverse", {"polarity": {"p": 0.5}}]},
            {"some_of": {"n": [1, 2], "p": 0.5, "of": ["gain", "polarity", {"shuffle": ["fade", "filter"]}]}},
            {"one_of": {"weights": [1, 3], "of": ["gain", "reverse"]}}]"#;
        let chain = chain(text);
        chain.validate().unwrap();
        let names: Vec<_> = chain.operators().iter().map(|spec| spec.name()).collect();
        let want = ["gain", "reverse", "polarity", "gain", "polarity", "fade", "filter", "gain", "reverse"];
        assert_eq!(names, want);
        // Chosen entries are certain unless they say otherwise; a shuffle leaves probabilities alone.
        let p: Vec<f64> = chain.operators().iter().map(|spec| spec.p()).collect();
        assert_eq!(p, [0.5, 1.0, 0.5, 1.0, 1.0, 0.5, 0.5, 1.0, 1.0]);
        let again: Chain = serde_json::from_str(&serde_json::to_string(&chain).unwrap()).unwrap();
        assert_eq!(again, chain);
    }

    #[test]
    fn one_of_picks_one_by_weight_and_some_of_picks_its_number() {
        let one = chain(r#"[{"one_of": {"weights": [1, 3], "p": 0.8, "of": ["gain", "reverse"]}}]"#);
        let draws_of_one = draws(&one, 2_000);
        let count = |i: usize| draws_of_one.iter().filter(|d| d.params[i].is_some()).count() as f64 / 4_000.0;
        assert!((count(0) - 0.2).abs() < 0.02 && (count(1) - 0.6).abs() < 0.025, "{} {}", count(0), count(1));
        assert!(draws_of_one.iter().all(|d| d.params.iter().flatten().count() <= 1));

        let some = chain(r#"[{"some_of": {"n": [1, 2], "of": ["gain", "reverse", "polarity"]}}]"#);
        let mut sizes: HashMap<usize, usize> = HashMap::new();
        let mut sets = BTreeSet::new();
        for draw in draws(&some, 1_000) {
            let set: Vec<bool> = draw.params.iter().map(Option::is_some).collect();
            *sizes.entry(set.iter().filter(|on| **on).count()).or_default() += 1;
            sets.insert(set);
        }
        assert_eq!(sets.len(), 6, "every subset of one or two");
        assert!(sizes.len() == 2 && sizes[&1].abs_diff(1_000) < 100, "{sizes:?}");
    }

    #[test]
    fn shuffles_reach_every_order_and_stay_within_their_leaves() {
        let chain = chain(r#"["gain", {"shuffle": ["reverse", "polarity", "fade"]}, "filter"]"#);
        let orders: BTreeSet<Vec<usize>> = draws(&chain, 200).into_iter().map(|d| d.order).collect();
        assert_eq!(orders.len(), 6);
        assert!(orders.iter().all(|o| o[0] == 0 && o[4] == 4));
        let mut draw = draws(&chain, 1).remove(0);
        draw.order.swap(0, 1);
        assert!(check_draw(&chain.leaves(), &draw).unwrap_err().message.contains("order"));
        draw.order = vec![0, 1, 1, 2, 4];
        assert!(check_draw(&chain.leaves(), &draw).is_err());
    }

    #[test]
    fn complaints_say_what_to_write() {
        for (base, want) in [
            (r#"["one_of"]"#, "`one_of` needs a list: write {one_of: [...]}"),
            (r#"[{"one_of": []}]"#, "`one_of` has an empty list"),
            (r#"[{"one_of": {"n": 1, "of": ["gain"]}}]"#, "`one_of` has no `n`"),
            (r#"[{"shuffle": {"weights": [1], "of": ["gain"]}}]"#, "`shuffle` has no `weights`"),
            (r#"[{"some_of": {"n": 3, "of": ["gain"]}}]"#, "must lie within 0..1 in rising order, got 3..3"),
            (r#"[{"one_of": {"weights": [1], "of": ["gain", "fade"]}}]"#, "takes 2 numbers"),
            (r#"[{"one_of": {"p": 2, "of": ["gain"]}}]"#, "`p` of `one_of` must lie within 0..1, got 2"),
            (r#"[{"one_of": ["gian"]}]"#, "did you mean `gain`?"),
            (r#"[{"onn_of": ["gain"]}]"#, "did you mean `one_of`?"),
            (r#"[{"one_of": {"off": []}}]"#, "did you mean `of`?"),
            (r#"[{"one_of": ["gain"], "p": 1}]"#, "`p` stands beside `one_of`, not in it"),
            (
                r#"[{"shuffle": ["pitch_shift", "random_crop"]}]"#,
                "at most one operator that changes time or pitch",
            ),
            (r#"["background"]"#, "`background` needs a second recording: write {background: {from: STAGE}}"),
            (r#"[{"gain": {"from": "x"}}]"#, "unknown parameter `from` of `gain`"),
            (r#"[{"one_of": [{"one_of": [{"one_of": [{"one_of": [{"one_of": ["gain"]}]}]}]}]}]"#, "4 deep"),
        ] {
            let got = read(base).and_then(|chain| chain.validate()).unwrap_err();
            assert!(got.contains(want), "{base}: {got}");
        }
    }

    #[test]
    fn second_recordings_are_drawn_from_the_other_clips() {
        let chain = chain(r#"[{"mixup": {"from": "clips", "p": 1}}]"#);
        assert_eq!(chain.partner_stages(), ["clips"]);
        let clip =
            |i: u32, seconds| PoolClip { clip_id: format!("clip-{i}"), uri: format!("synth:{i}"), seconds };
        let pool = Pool::new((0..5).rev().map(|i| clip(i, if i == 4 { 0.5 } else { 10.0 })).collect());
        let pools = Pools::from([("clips".to_owned(), pool)]);
        let mut seen = BTreeSet::new();
        for segment in 0..200 {
            for draw in chain.draw_segment(Key::root(1), "clip-2", 9.0, segment, 0, &pools).unwrap() {
                let partner = draw.partners[0].clone().unwrap();
                let room = if partner.clip_id == "clip-4" { 0.5 } else { 9.0 };
                assert!((0.0..room).contains(&partner.start_s), "{partner:?}");
                seen.insert(partner.clip_id);
            }
        }
        assert_eq!(seen.into_iter().collect::<Vec<_>>(), ["clip-0", "clip-1", "clip-3", "clip-4"]);
        let alone = Pools::from([("clips".to_owned(), Pool::new(vec![clip(2, 9.0)]))]);
        let error = chain.draw_segment(Key::root(1), "clip-2", 9.0, 0, 0, &alone).unwrap_err();
        assert_eq!(error.kind, RejectKind::Missing);
    }

    #[test]
    fn shifts_are_read_for() {
        let plain = chain("[]").read_seconds();
        let shifted = chain(r#"[{"random_crop": {"shift_s": [-0.5, 0.25]}}]"#).read_seconds();
        assert!((shifted - plain - 1.0).abs() < 1e-9, "{plain} {shifted}");
    }
}
