//! What an operator is, and how one is configured.
//!
//! Every operator is one static [`OperatorDef`] in [`crate::operators`]. From that table alone come the
//! reading and checking of YAML ([`OperatorSpec`]), the JSON Schema, the columns of a table of draws
//! and the text of `loev ops` ([`describe`]); none of them names an operator.

use std::fmt;

use realfft::RealFftPlanner;
use realfft::num_complex::Complex;

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
    /// How it serves as a factor; `None` when it can only stand in a base chain.
    pub factor: Option<FactorDef>,
    /// What it does to samples.
    pub kernel: Kernel,
}

impl OperatorDef {
    /// The change of pitch and time that the operator makes; none unless its kernel is a warp.
    pub fn warp(&self, params: &[f64]) -> Warp {
        match self.kernel {
            Kernel::Warp(warp) => warp(params),
            Kernel::Samples(_) => Warp::IDENTITY,
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

/// How a parameter of an operator changes a label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LabelEffect {
    /// The key moves by the parameter of this index, in semitones.
    Transpose(usize),
    /// The tempo is multiplied by the parameter of this index.
    ScaleTempo(usize),
}

/// How an operator serves as a factor of a variant chain.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FactorDef {
    /// The index of the parameter that is the factor.
    pub param: usize,
    /// The least distance of the two levels of a segment, by [`Scale::distance`].
    pub apart: f64,
    /// Two values no farther apart than this count as equal.
    pub tolerance: f64,
    /// The scale on which distances are measured.
    pub scale: Scale,
}

/// What an operator does to samples. Parameters come in the order of [`OperatorDef::params`].
#[derive(Clone, Copy)]
pub enum Kernel {
    /// Works in place. Finite samples stay finite.
    Samples(fn(&mut Audio, &[f64], &mut Rng, &mut Scratch)),
    /// Changes pitch or time; neighbours in a chain are fused into one pass of the vocoder.
    Warp(fn(&[f64]) -> Warp),
}

impl fmt::Debug for Kernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Kernel::Samples(_) => "Samples",
            Kernel::Warp(_) => "Warp",
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

/// Planned transforms and buffers that kernels share; one per thread.
#[derive(Default)]
pub struct Scratch {
    pub(crate) planner: Option<RealFftPlanner<f32>>,
    pub(crate) spectrum: Vec<Complex<f32>>,
    pub(crate) samples: Vec<f32>,
    pub(crate) work: Vec<Complex<f32>>,
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

/// The reference text of an operator, as `loev ops` prints it.
pub fn describe(def: &OperatorDef) -> String {
    use fmt::Write as _;
    let mut text = format!("{} (version {})\n  {}\n", def.name, def.version, def.summary);
    for param in def.params {
        let values = match &param.kind {
            ParamKind::Number { min, max, default: (low, high), scale, .. } => {
                let log = if *scale == Scale::Log { ", logarithmic" } else { "" };
                let default = if low == high { format!("{low}") } else { format!("[{low}, {high}]") };
                format!("{}{log}, default {default}", range_text((*min, *max), param.unit))
            }
            ParamKind::Choice { options, default } => {
                format!("of {}, default [{}]", options.join(" | "), default.join(", "))
            }
        };
        // Writing to a String cannot fail.
        let _ = writeln!(text, "    {:<14} {}\n{:19}{values}", param.name, param.help, "");
    }
    let _ = writeln!(text, "    {:<14} How likely it is applied to a view, default {}", "p", def.default_p);
    if let Some(factor) = def.factor {
        let param = def.params.get(factor.param).map_or("", |p| p.name);
        let distance = match factor.scale {
            Scale::Linear => {
                let unit = def.params.get(factor.param).map_or("", |p| p.unit);
                format!("{} {unit}", factor.apart)
            }
            Scale::Log => format!("{:.0}%", factor.apart * 100.0),
        };
        let _ = writeln!(text, "  Factor: two levels of `{param}` at least {} apart.", distance.trim_end());
    }
    for effect in def.labels {
        let line = match effect {
            LabelEffect::Transpose(_) => "transposes the key",
            LabelEffect::ScaleTempo(_) => "multiplies the tempo",
        };
        let _ = writeln!(text, "  Labels: {line}.");
    }
    let _ = writeln!(text, "  Source: {}", def.source);
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operators::all;

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
            if let Some(factor) = def.factor {
                assert!(def.params.iter().all(|p| p.identity().is_some()), "{} as a factor", def.name);
                assert!(factor.param < def.params.len() && factor.tolerance < factor.apart);
            }
        }
    }
}
