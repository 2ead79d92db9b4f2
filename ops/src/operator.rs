//! What an operator is, and how one is configured.
//!
//! Every operator is one static [`OperatorDef`] in [`crate::operators`]. From that table alone come the
//! reading and checking of YAML ([`OperatorSpec`]), the JSON Schema, the columns of a table of draws
//! and the text of `loev ops` ([`describe`]); none of them names an operator.

use std::any::{Any, TypeId};
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use realfft::{ComplexToReal, RealFftPlanner, RealToComplex};

use crate::audio::Audio;
use crate::dist::{Dist, Scale, range_text};
pub use crate::operators::spec::{OperatorSpec, ParamSpec};
use crate::rng::Rng;

/// One operator: everything that the rest of the system knows about it.
#[derive(Debug)]
pub struct OperatorDef {
    /// The name in YAML and in tables.
    pub name: &'static str,
    /// Raised whenever equal parameters give different samples; stored beside every draw.
    pub version: u32,
    /// One line on what it does.
    pub summary: &'static str,
    /// Where its mathematics come from.
    pub source: &'static str,
    /// Its parameters, in the order in which draws store them.
    pub params: &'static [ParamDef],
    /// How likely it is to be applied to a view, unless the YAML says otherwise.
    pub default_p: f64,
    /// What it does to the labels of a clip.
    pub labels: &'static [LabelEffect],
    /// How it serves as a factor.
    pub factor: FactorDef,
    /// What it does to samples.
    pub kernel: Kernel,
    /// The nearest thing in other libraries: (library, name there).
    pub peers: &'static [(Peer, &'static str)],
}

impl OperatorDef {
    /// The change of pitch and time that the operator makes; none unless its kernel is a warp.
    pub fn warp(&self, params: &[f64]) -> Warp {
        match self.kernel {
            Kernel::Warp(warp) => warp(params),
            Kernel::Samples(_) | Kernel::Partner(..) | Kernel::Speed(_) | Kernel::Shift(_) => Warp::IDENTITY,
        }
    }

    /// Whether there are parameters with which it changes nothing.
    pub fn has_identity(&self) -> bool {
        self.params.iter().any(|p| matches!(p.kind, ParamKind::Number { identity: Some(_), .. }))
    }

    /// Whether it needs a second recording, which the YAML names as `from`.
    pub fn partner(&self) -> Option<Extent> {
        match self.kernel {
            Kernel::Partner(extent, _) => Some(extent),
            Kernel::Samples(_) | Kernel::Warp(_) | Kernel::Speed(_) | Kernel::Shift(_) => None,
        }
    }
}

/// A library that users may come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Peer {
    /// audiomentations (Python, NumPy).
    Audiomentations,
    /// torch-audiomentations.
    TorchAudiomentations,
    /// pedalboard (Spotify; JUCE).
    Pedalboard,
    /// torchaudio.
    Torchaudio,
}

impl Peer {
    /// All of them, in the order of tables.
    pub const ALL: [Peer; 4] =
        [Peer::Audiomentations, Peer::TorchAudiomentations, Peer::Pedalboard, Peer::Torchaudio];

    /// The name of the package.
    pub fn name(self) -> &'static str {
        match self {
            Peer::Audiomentations => "audiomentations",
            Peer::TorchAudiomentations => "torch-audiomentations",
            Peer::Pedalboard => "pedalboard",
            Peer::Torchaudio => "torchaudio",
        }
    }
}

/// One parameter of an operator.
#[derive(Debug)]
pub struct ParamDef {
    /// The name in YAML and in tables.
    pub name: &'static str,
    /// The unit of its values; empty when it has none.
    pub unit: &'static str,
    /// One line on what it does.
    pub help: &'static str,
    /// Its values.
    pub kind: ParamKind,
}

/// The values of a parameter.
#[derive(Debug)]
pub enum ParamKind {
    /// A number.
    Number {
        /// The least value allowed.
        min: f64,
        /// The greatest value allowed.
        max: f64,
        /// The value that changes nothing, where there is one.
        identity: Option<f64>,
        /// The range drawn from when the YAML names none.
        default: (f64, f64),
        /// The scale on which a bare range is uniform.
        scale: Scale,
    },
    /// One of a set of names.
    Choice {
        /// All names; a draw stores the index into this list.
        options: &'static [&'static str],
        /// Those drawn from when the YAML names none.
        default: &'static [&'static str],
    },
}

/// What an operator does to the labels of a clip. The number is the index of a parameter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LabelEffect {
    /// Keys and chords move by that many semitones.
    Transpose(usize),
    /// The tempo is multiplied by that rate, and times are divided by it.
    Tempo(usize),
    /// Tape speed: tempo and times as for [`LabelEffect::Tempo`], and the pitch moves along.
    Speed(usize),
    /// Times become earlier by that many seconds.
    Shift(usize),
    /// Times run backwards.
    Reverse,
    /// Loudness rises by that many decibels.
    AddLoudness(usize),
    /// Loudness becomes that many LUFS.
    SetLoudness(usize),
    /// Loudness is no longer known.
    LoseLoudness,
}

impl LabelEffect {
    /// The effect in words, as `loev ops` prints it.
    pub fn describe(self) -> &'static str {
        match self {
            LabelEffect::Transpose(_) => "key and chords transpose",
            LabelEffect::Tempo(_) => "BPM scales, times scale inversely",
            LabelEffect::Speed(_) => "BPM scales, times scale inversely, key and chords transpose",
            LabelEffect::Shift(_) => "times move",
            LabelEffect::Reverse => "times run backwards",
            LabelEffect::AddLoudness(_) => "loudness moves",
            LabelEffect::SetLoudness(_) => "loudness is set",
            LabelEffect::LoseLoudness => "loudness becomes unknown",
        }
    }
}

/// How an operator serves as a factor of a variant chain: what its two levels in a segment are, and which views
/// count as equal in its subspace.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum FactorDef {
    /// Two levels of one parameter.
    Level {
        /// The index of the parameter.
        param: usize,
        /// The least distance of the two levels of a segment, by [`Scale::distance`].
        apart: f64,
        /// Two values no farther apart than this count as equal.
        tolerance: f64,
        /// The scale on which distances are measured.
        scale: Scale,
    },
    /// Applied, with parameters drawn once for a segment, or not applied.
    OnOff,
}

/// How much of a second recording an operator reads.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Extent {
    /// As much as there is of the view, from a drawn start; a shorter recording begins again at its end.
    View,
    /// The whole recording, and at most this many seconds of it.
    Whole {
        /// The limit, in seconds.
        max_seconds: f64,
    },
}

/// What an operator does to samples. Parameters come in the order of [`OperatorDef::params`].
///
/// A kernel is a pure function of its arguments: whatever `Scratch` held before, the samples are the same. Audio is
/// planar, of any number of channels (one at least) and any rate from 4 to 192 kHz; an empty one stays empty.
/// Finite samples stay finite. At the operator's identity parameters the samples come back as they were.
#[derive(Clone, Copy)]
pub enum Kernel {
    /// Works in place; the number of frames and of channels stays.
    Samples(fn(&mut Audio, &[f64], &mut Rng, &mut Scratch)),
    /// As `Samples`, with a second recording: at the same rate, with the same number of channels, finite and not
    /// empty; for [`Extent::View`] with the same number of frames.
    Partner(Extent, fn(&mut Audio, &Audio, &[f64], &mut Rng, &mut Scratch)),
    /// Changes pitch or time; neighbours in a chain are fused into one pass of the vocoder.
    Warp(fn(&[f64]) -> Warp),
    /// Plays that many times faster, pitch and all: one resampling.
    Speed(fn(&[f64]) -> f64),
    /// Takes another part of the clip: how many seconds later.
    Shift(fn(&[f64]) -> f64),
}

impl fmt::Debug for Kernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Kernel::Samples(_) => "Samples",
            Kernel::Partner(..) => "Partner",
            Kernel::Warp(_) => "Warp",
            Kernel::Speed(_) => "Speed",
            Kernel::Shift(_) => "Shift",
        })
    }
}

/// A change of pitch and of time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Warp {
    /// Upwards, in semitones.
    pub semitones: f64,
    /// Speed: 1.25 plays a quarter faster, so that 1.25 s of source make 1 s.
    pub rate: f64,
}

impl Warp {
    /// No change.
    pub const IDENTITY: Warp = Warp { semitones: 0.0, rate: 1.0 };

    /// One change after another.
    pub fn then(self, next: Warp) -> Warp {
        Warp { semitones: self.semitones + next.semitones, rate: self.rate * next.rate }
    }

    /// The factor by which frequencies are multiplied.
    pub fn pitch_ratio(self) -> f64 {
        (self.semitones / 12.0).exp2()
    }
}

/// Planned transforms and buffers that kernels keep from view to view, so that nothing is planned or allocated
/// twice; one per thread.
#[derive(Default)]
pub struct Scratch {
    planner: Option<RealFftPlanner<f32>>,
    slots: HashMap<TypeId, Box<dyn Any + Send>>,
}

impl Scratch {
    /// The buffers of one kernel, by their type; what they hold is from any earlier view, or their default.
    pub(crate) fn slot<T: Default + Send + 'static>(&mut self) -> &mut T {
        let slot = self.slots.entry(TypeId::of::<T>()).or_insert_with(|| Box::<T>::default());
        match slot.downcast_mut::<T>() {
            Some(slot) => slot,
            None => unreachable!("a slot is filed under the type that it holds"),
        }
    }

    /// The transform from `frames` real samples to `frames / 2 + 1` bins; planned once.
    pub(crate) fn forward(&mut self, frames: usize) -> Arc<dyn RealToComplex<f32>> {
        self.planner.get_or_insert_with(RealFftPlanner::new).plan_fft_forward(frames)
    }

    /// The transform back, unnormalised; planned once.
    pub(crate) fn inverse(&mut self, frames: usize) -> Arc<dyn ComplexToReal<f32>> {
        self.planner.get_or_insert_with(RealFftPlanner::new).plan_fft_inverse(frames)
    }
}

/// The nearest `f32` that is finite, so that amplifying a finite sample gives a finite one.
pub(crate) fn finite_f32(x: f64) -> f32 {
    x.clamp(f64::from(f32::MIN), f64::from(f32::MAX)) as f32
}

impl ParamDef {
    /// What is drawn when the YAML does not mention the parameter.
    pub fn default_spec(&self) -> ParamSpec {
        match &self.kind {
            ParamKind::Number { default: (low, high), scale, .. } => ParamSpec::Number(if low == high {
                Dist::Constant(*low)
            } else {
                Dist::on(*scale, *low, *high)
            }),
            ParamKind::Choice { options, default } => ParamSpec::Choice(
                default.iter().filter_map(|name| options.iter().position(|option| option == name)).collect(),
            ),
        }
    }

    /// Whether a draw may hold `value`.
    pub fn allows(&self, value: f64) -> bool {
        match &self.kind {
            ParamKind::Number { min, max, .. } => (*min..=*max).contains(&value),
            ParamKind::Choice { options, .. } => {
                value.fract() == 0.0 && (0.0..options.len() as f64).contains(&value)
            }
        }
    }

    /// The value that changes nothing; the least index for options.
    pub fn identity(&self) -> Option<f64> {
        match &self.kind {
            ParamKind::Number { identity, .. } => *identity,
            ParamKind::Choice { .. } => Some(0.0),
        }
    }
}

/// The candidate that `word` was probably meant to be.
pub fn did_you_mean<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    candidates
        .into_iter()
        .map(|c| (strsim::jaro_winkler(&word.to_lowercase(), &c.to_lowercase()), c))
        .filter(|(score, _)| *score > 0.75)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, candidate)| candidate)
}

/// "unknown parameter `x` of `y`; did you mean `z`?", or the list of what there is.
pub(crate) fn unknown<'a>(
    kind: &str,
    word: &str,
    of: &str,
    known: impl Iterator<Item = &'a str> + Clone,
) -> String {
    let of = if of.is_empty() { String::new() } else { format!(" of `{of}`") };
    match did_you_mean(word, known.clone()) {
        Some(near) => format!("unknown {kind} `{word}`{of}; did you mean `{near}`?"),
        None => {
            let list: Vec<String> = known.map(|k| format!("`{k}`")).collect();
            format!("unknown {kind} `{word}`{of}; there is {}", list.join(", "))
        }
    }
}

impl ParamDef {
    /// What may be drawn, and what is unless the YAML says otherwise: `-60..24 dB, default [-15, 5]`.
    fn values(&self) -> String {
        match &self.kind {
            ParamKind::Number { min, max, default: (low, high), scale, .. } => {
                let log = if *scale == Scale::Log { ", logarithmic" } else { "" };
                let default = if low == high { format!("{low}") } else { format!("[{low}, {high}]") };
                format!("{}{log}, default {default}", range_text((*min, *max), self.unit))
            }
            ParamKind::Choice { options, default } => {
                format!("of {}, default [{}]", options.join(" | "), default.join(", "))
            }
        }
    }
}

impl OperatorDef {
    /// What stands in the way of changing nothing: `db 0`, or `not applied`.
    fn identity_text(&self) -> String {
        let values = self.params.iter().filter_map(|p| match p.kind {
            ParamKind::Number { identity: Some(value), .. } => Some(format!("{} {value}", p.name)),
            _ => None,
        });
        let values: Vec<String> = values.collect();
        if values.is_empty() { "not applied".to_owned() } else { values.join(", ") }
    }

    fn factor_text(&self) -> String {
        let FactorDef::Level { param, apart, scale, .. } = self.factor else {
            return "applied or not".to_owned();
        };
        let (name, unit) = self.params.get(param).map_or(("", ""), |p| (p.name, p.unit));
        let distance = match scale {
            Scale::Linear => format!("{apart} {unit}"),
            Scale::Log => format!("{:.0}%", apart * 100.0),
        };
        format!("two levels of `{name}` at least {} apart", distance.trim_end())
    }

    /// What becomes of labels, in words.
    pub fn labels_text(&self) -> String {
        let effects: Vec<&str> = self.labels.iter().map(|effect| effect.describe()).collect();
        if effects.is_empty() { "all stay".to_owned() } else { effects.join("; ") }
    }

    fn partner_text(&self) -> Option<String> {
        self.partner().map(|extent| match extent {
            Extent::View => {
                "The stage whose clips it draws from: as much as the view holds, from a drawn start"
                    .to_owned()
            }
            Extent::Whole { max_seconds } => {
                format!("The stage whose clips it draws from: the whole of one, up to {max_seconds} s")
            }
        })
    }
}

/// The reference text of an operator, as `loev ops NAME` prints it.
pub fn describe(def: &OperatorDef) -> String {
    use fmt::Write as _;
    let mut text = format!("{} (version {})\n  {}\n", def.name, def.version, def.summary);
    // Writing to a String cannot fail.
    for param in def.params {
        let _ = writeln!(text, "    {:<14} {}\n{:19}{}", param.name, param.help, "", param.values());
    }
    if let Some(from) = def.partner_text() {
        let _ = writeln!(text, "    {:<14} {from}", "from");
    }
    let _ = writeln!(text, "    {:<14} How likely it is applied to a view, default {}", "p", def.default_p);
    let _ = writeln!(text, "  Identity: {}.", def.identity_text());
    let _ = writeln!(text, "  As a factor: {}.", def.factor_text());
    let _ = writeln!(text, "  Labels: {}.", def.labels_text());
    if !def.peers.is_empty() {
        let peers: Vec<String> =
            def.peers.iter().map(|(peer, name)| format!("{} {name}", peer.name())).collect();
        let _ = writeln!(text, "  Elsewhere: {}.", peers.join(", "));
    }
    let _ = writeln!(text, "  Source: {}", def.source);
    text
}

/// All operators, a line each with what they do and what becomes of labels, as `loev ops` prints them.
pub fn list(defs: &[&OperatorDef]) -> String {
    let width = defs.iter().map(|def| def.name.len()).max().unwrap_or(0);
    let line = |def: &&OperatorDef| {
        format!("{:<width$}  {}\n{:<width$}  labels: {}\n", def.name, def.summary, "", def.labels_text())
    };
    defs.iter().map(line).collect()
}

/// The reference of all operators as Markdown: who else has them, then each in detail.
pub fn reference(defs: &[&OperatorDef]) -> String {
    use fmt::Write as _;
    // A bar would end a cell.
    let cell = |text: &str| text.replace('|', "\\|");
    let mut text = String::from(
        "# Operators\n\nWritten by `loev ops --reference`; do not edit.\n\n## Who has what\n\nThe nearest thing in \
         other libraries, which may differ in definition.\n\n| operator |",
    );
    for peer in Peer::ALL {
        let _ = write!(text, " {} |", peer.name());
    }
    let _ = writeln!(text, "\n| --- |{}", " --- |".repeat(Peer::ALL.len()));
    for def in defs {
        let _ = write!(text, "| [`{0}`](#{0}) |", def.name);
        for peer in Peer::ALL {
            let names: Vec<&str> = def.peers.iter().filter(|(p, _)| *p == peer).map(|(_, n)| *n).collect();
            let _ = write!(text, " {} |", cell(&names.join(", ")));
        }
        text.push('\n');
    }
    for def in defs {
        let _ = writeln!(text, "\n## `{}`\n\n{}\n", def.name, def.summary);
        let _ = writeln!(text, "| parameter | what it does | values |\n| --- | --- | --- |");
        for param in def.params {
            let _ = writeln!(text, "| `{}` | {} | {} |", param.name, cell(param.help), cell(&param.values()));
        }
        if let Some(from) = def.partner_text() {
            let _ = writeln!(text, "| `from` | {from} | a stage |");
        }
        let _ =
            writeln!(text, "| `p` | How likely it is applied to a view | 0..1, default {} |", def.default_p);
        let _ = writeln!(text, "\n* Identity: {}", def.identity_text());
        let _ = writeln!(text, "* As a factor: {}", def.factor_text());
        let _ = writeln!(text, "* Labels: {}", def.labels_text());
        let _ = writeln!(text, "* Version {}. Source: {}", def.version, def.source);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operators::all;

    #[test]
    fn the_reference_is_what_the_tables_say() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/operators.md");
        let stored = std::fs::read_to_string(path).unwrap_or_default();
        assert!(
            stored == reference(all()),
            "docs/operators.md is out of date: loev ops --reference > docs/operators.md"
        );
    }

    #[test]
    fn every_operator_serves_as_a_factor_with_its_defaults() {
        use crate::chain::{Chain, Channels, Sampling};
        for def in all() {
            let from = if def.partner().is_some() { r#""from": "x""# } else { "" };
            let variant = format!("[{{\"{}\": {{{from}}}}}]", def.name);
            let chain = Chain {
                sample_rate: 16_000,
                seconds: 1.0,
                channels: Channels::Mono,
                base: Vec::new(),
                variant: serde_json::from_str(&variant).unwrap(),
                sampling: Sampling::Factorial,
            };
            chain.validate().unwrap();
        }
    }

    #[test]
    fn tables_are_sound_and_described() {
        for def in all() {
            let text = describe(def);
            for param in def.params {
                assert!(text.contains(param.name) && text.contains(param.help), "{text}");
            }
            assert!((0.0..=1.0).contains(&def.default_p) && def.version > 0, "{}", def.name);
            for param in def.params {
                if let ParamKind::Number { min, max, identity, default: (low, high), scale } = &param.kind {
                    assert!(min <= low && low <= high && high <= max, "{} {}", def.name, param.name);
                    assert!(identity.is_none_or(|i| (*min..=*max).contains(&i)));
                    assert!(*scale == Scale::Linear || *min > 0.0);
                }
            }
            if let FactorDef::Level { param, apart, tolerance, .. } = def.factor {
                assert!(matches!(def.params[param].kind, ParamKind::Number { .. }), "{}", def.name);
                assert!(tolerance < apart, "{}", def.name);
            }
        }
    }
}
