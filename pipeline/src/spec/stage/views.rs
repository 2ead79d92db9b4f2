//! Options of a `views` stage.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use garde::Validate;
use indexmap::IndexMap;
use loev_ops::chain::{Chain, Channels, Entry, Sampling};
pub use loev_ops::labels::LabelKind;
use loev_ops::operator::OperatorSpec;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{self, Deserializer, Visitor};
use serde::{Deserialize, Serialize, Serializer};

/// Augmented views of segments of clips, each with the parameters drawn for it.
///
/// The draws are stored; the audio is rendered from them as it is needed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema, Validate)]
#[serde(deny_unknown_fields)]
#[garde(allow_unvalidated)]
pub struct Views {
    /// Stage that holds the clips (`files`, `synth`, `sql` or `decode`).
    pub from: String,
    /// Length of a view.
    #[serde(default = "default_seconds")]
    #[garde(range(min = 0.1, max = 120.0))]
    #[schemars(extend("x-unit" = "s"))]
    pub seconds: f64,
    /// Sample rate of the views. Clips are resampled to it.
    #[serde(default = "default_rate")]
    #[garde(range(min = 4000, max = 192_000))]
    #[schemars(extend("x-unit" = "Hz"))]
    pub sample_rate: u32,
    /// Channels of the views: `mono` or `stereo`. Features are computed from the mean of the channels.
    #[serde(default)]
    pub channels: Channels,
    /// Segments drawn from each clip in each epoch.
    #[serde(default = "default_segments")]
    #[garde(range(min = 1, max = 10_000))]
    pub segments: u32,
    /// Augmentations that every subspace ignores, in order; drawn anew for every view. Besides operators, groups:
    /// `one_of`, `some_of` and `shuffle`.
    #[serde(default)]
    pub base: Vec<Entry>,
    /// Augmentations that each get a subspace of their own (the factors).
    #[serde(default)]
    pub variant: Vec<OperatorSpec>,
    /// How the factors' parameters are drawn: `factorial` gives every view a positive in every subspace,
    /// `bernoulli` applies each factor independently with its probability `p`.
    #[serde(default = "default_sampling")]
    pub sampling: Sampling,
    /// Epochs to draw: a number, or `auto` for as many as the training stages that read the views consume.
    #[serde(default)]
    #[garde(dive)]
    pub epochs: Epochs,
    /// Label columns and what they hold, so that they follow the sound of each view: a `key` is transposed with it,
    /// `times` (beats, onsets) scale, shift and reverse with it and count from its start. Absent: the columns named
    /// key, chords, bpm, beats, onsets, segments, sections and loudness, where the clips have them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<BTreeMap<String, LabelKind>>")]
    pub labels: Option<IndexMap<String, LabelKind>>,
    /// Store the rendered audio too, instead of rendering it whenever it is read.
    #[serde(default)]
    pub materialize: bool,
}

/// How many epochs of draws a `views` stage holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Epochs {
    /// As many as the training stages that read the views consume; one if none does.
    #[default]
    Auto,
    /// This many.
    Count(u32),
}

const MOST_EPOCHS: u32 = 1_000_000;

impl Validate for Epochs {
    type Context = ();

    fn validate_into(&self, _: &(), parent: &mut dyn FnMut() -> garde::Path, report: &mut garde::Report) {
        if let Self::Count(count) = self
            && !(1..=MOST_EPOCHS).contains(count)
        {
            report.append(parent(), garde::Error::new(format!("must be `auto` or from 1 to {MOST_EPOCHS}")));
        }
    }
}

impl JsonSchema for Epochs {
    fn schema_name() -> Cow<'static, str> {
        "Epochs".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_generator: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "anyOf": [{ "const": "auto" }, { "type": "integer", "minimum": 1, "maximum": MOST_EPOCHS }],
        })
    }
}

impl Serialize for Epochs {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Auto => serializer.serialize_str("auto"),
            Self::Count(count) => serializer.serialize_u32(*count),
        }
    }
}

impl<'de> Deserialize<'de> for Epochs {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(EpochsVisitor)
    }
}

struct EpochsVisitor;

impl Visitor<'_> for EpochsVisitor {
    type Value = Epochs;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("`auto` or a whole number")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Epochs, E> {
        match text {
            "auto" => Ok(Epochs::Auto),
            _ => Err(E::invalid_value(de::Unexpected::Str(text), &self)),
        }
    }

    fn visit_u64<E: de::Error>(self, count: u64) -> Result<Epochs, E> {
        Ok(Epochs::Count(u32::try_from(count).unwrap_or(u32::MAX)))
    }
}

fn default_seconds() -> f64 {
    3.0
}

fn default_rate() -> u32 {
    16_000
}

fn default_segments() -> u32 {
    1
}

fn default_sampling() -> Sampling {
    Sampling::Factorial
}

impl Views {
    /// The chain that draws and renders these views.
    pub fn chain(&self) -> Chain {
        Chain {
            sample_rate: self.sample_rate,
            seconds: self.seconds,
            channels: self.channels,
            base: self.base.clone(),
            variant: self.variant.clone(),
            sampling: self.sampling,
        }
    }
}
