//! `max_rejects`: how many unusable clips a run puts up with.

use std::borrow::Cow;
use std::fmt;

use garde::Validate;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{self, Deserialize, Deserializer, Visitor};
use serde::{Serialize, Serializer};

/// The most clips that a run may reject without failing.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum MaxRejects {
    /// This many clips.
    Count(u64),
    /// This share of all clips, from 0 to 1.
    Share(f64),
}

impl MaxRejects {
    /// Whether so many rejects among so many clips are too many.
    pub fn exceeded(self, rejects: u64, clips: u64) -> bool {
        match self {
            Self::Count(most) => rejects > most,
            Self::Share(most) => rejects as f64 > most * clips as f64,
        }
    }
}

impl fmt::Display for MaxRejects {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Count(count) => write!(f, "{count}"),
            Self::Share(share) => write!(f, "{}%", share * 100.0),
        }
    }
}

impl Validate for MaxRejects {
    type Context = ();

    fn validate_into(&self, _: &(), parent: &mut dyn FnMut() -> garde::Path, report: &mut garde::Report) {
        if let Self::Share(share) = self
            && !(0.0..=1.0).contains(share)
        {
            report.append(parent(), garde::Error::new("a share must be from 0 to 1 (0% to 100%)"));
        }
    }
}

impl JsonSchema for MaxRejects {
    fn schema_name() -> Cow<'static, str> {
        "MaxRejects".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_generator: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "anyOf": [
                { "type": "integer", "minimum": 0 },
                { "type": "number", "minimum": 0, "maximum": 1 },
                { "type": "string", "pattern": "^[0-9]+(\\.[0-9]+)?%$" },
            ],
        })
    }
}

impl Serialize for MaxRejects {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Count(count) => serializer.serialize_u64(*count),
            Self::Share(share) => serializer.serialize_f64(*share),
        }
    }
}

impl<'de> Deserialize<'de> for MaxRejects {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(MaxRejectsVisitor)
    }
}

struct MaxRejectsVisitor;

impl Visitor<'_> for MaxRejectsVisitor {
    type Value = MaxRejects;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a count (5) or a share (0.02 or 2%)")
    }

    fn visit_u64<E: de::Error>(self, count: u64) -> Result<MaxRejects, E> {
        Ok(MaxRejects::Count(count))
    }

    fn visit_f64<E: de::Error>(self, share: f64) -> Result<MaxRejects, E> {
        Ok(MaxRejects::Share(share))
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<MaxRejects, E> {
        let percent = text.strip_suffix('%').and_then(|number| number.trim().parse::<f64>().ok());
        match percent.filter(|percent| percent.is_finite()) {
            Some(percent) => Ok(MaxRejects::Share(percent / 100.0)),
            None => Err(E::invalid_value(de::Unexpected::Str(text), &self)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_and_counts_are_compared_exactly() {
        assert!(!MaxRejects::Count(2).exceeded(2, 2));
        assert!(MaxRejects::Count(2).exceeded(3, 1000));
        assert!(!MaxRejects::Share(0.5).exceeded(2, 4));
        assert!(MaxRejects::Share(0.5).exceeded(3, 4));
        assert!(!MaxRejects::Share(0.0).exceeded(0, 0));
    }
}
