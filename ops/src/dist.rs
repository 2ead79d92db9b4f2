//! Distributions of operator parameters, and how they are written in YAML.
//!
//! | YAML                        | meaning                                                       |
//! | --------------------------- | ------------------------------------------------------------- |
//! | `3`                         | always 3                                                      |
//! | `[-15, 5]`                  | uniform on the parameter's own scale (linear, or logarithmic) |
//! | `{uniform: [-15, 5]}`       | uniform                                                       |
//! | `{log_uniform: [200, 4000]}`| uniform in the logarithm                                      |
//! | `{choice: [-2, 0, 2]}`      | one of these, equally likely                                  |

use std::fmt;

use schemars::{Schema, json_schema};
use serde::de::{self, DeserializeSeed, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer, ser::SerializeMap};

use crate::rng::Rng;

/// The scale on which a parameter is perceived, and on which its distances are measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scale {
    /// Differences count (decibels, semitones).
    Linear,
    /// Ratios count (hertz, rates); values are positive.
    Log,
}

impl Scale {
    /// How far apart two values are: their difference, or the ratio of the larger to the smaller less one.
    pub fn distance(self, a: f64, b: f64) -> f64 {
        match self {
            Scale::Linear => (a - b).abs(),
            Scale::Log => a.max(b) / a.min(b) - 1.0,
        }
    }
}

/// A distribution of one number.
#[derive(Clone, Debug, PartialEq)]
pub enum Dist {
    /// Always this value.
    Constant(f64),
    /// Uniform between two values.
    Uniform {
        /// The lower end.
        low: f64,
        /// The upper end, at least `low`.
        high: f64,
    },
    /// Uniform in the logarithm between two positive values.
    LogUniform {
        /// The lower end, above 0.
        low: f64,
        /// The upper end, at least `low`.
        high: f64,
    },
    /// One of these values, equally likely; never empty when read from YAML.
    Choice(Vec<f64>),
}

impl Dist {
    /// Uniform on `scale`.
    pub fn on(scale: Scale, low: f64, high: f64) -> Self {
        match scale {
            Scale::Linear => Dist::Uniform { low, high },
            Scale::Log => Dist::LogUniform { low, high },
        }
    }

    /// One value.
    pub fn draw(&self, rng: &mut Rng) -> f64 {
        match self {
            Dist::Constant(value) => *value,
            Dist::Uniform { low, high } => rng.uniform(*low, *high),
            // exp(ln(x)) may miss x by a rounding error: never leave the range that was asked for.
            Dist::LogUniform { low, high } => rng.uniform(low.ln(), high.ln()).exp().clamp(*low, *high),
            Dist::Choice(values) => values.get(rng.below(values.len())).copied().unwrap_or(0.0),
        }
    }

    /// The least and the greatest value.
    pub fn bounds(&self) -> (f64, f64) {
        match self {
            Dist::Constant(value) => (*value, *value),
            Dist::Uniform { low, high } | Dist::LogUniform { low, high } => (*low, *high),
            Dist::Choice(values) => {
                values.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(a, b), &v| (a.min(v), b.max(v)))
            }
        }
    }

    /// Says what is wrong with the distribution itself, if anything.
    pub fn validate(&self) -> Result<(), String> {
        let finite = |v: &f64| v.is_finite();
        match self {
            Dist::Constant(v) if !v.is_finite() => Err(format!("must be a finite number, got {v}")),
            Dist::Choice(values) if values.is_empty() => Err("has an empty list of choices".into()),
            Dist::Choice(values) if !values.iter().all(finite) => {
                Err("has a choice that is not finite".into())
            }
            Dist::Uniform { low, high } | Dist::LogUniform { low, high } => {
                if !low.is_finite() || !high.is_finite() {
                    Err(format!("must have finite ends, got [{low}, {high}]"))
                } else if low > high {
                    Err(format!("has its ends in the wrong order: write [{high}, {low}]"))
                } else if matches!(self, Dist::LogUniform { .. }) && *low <= 0.0 {
                    Err(format!("is logarithmic, so both ends must be above 0, got [{low}, {high}]"))
                } else {
                    Ok(())
                }
            }
            _ => Ok(()),
        }
    }
}

impl Serialize for Dist {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (name, values) = match self {
            Dist::Constant(value) => return serializer.serialize_f64(*value),
            Dist::Uniform { low, high } => ("uniform", vec![*low, *high]),
            Dist::LogUniform { low, high } => ("log_uniform", vec![*low, *high]),
            Dist::Choice(values) => ("choice", values.clone()),
        };
        let mut map = serializer.serialize_map(Some(1))?;
        map.serialize_entry(name, &values)?;
        map.end()
    }
}

/// Reads any of the YAML forms; a bare `[low, high]` is uniform on a linear scale.
impl<'de> Deserialize<'de> for Dist {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        DistSeed { what: "this", unit: "", scale: Scale::Linear, limits: (f64::NEG_INFINITY, f64::INFINITY) }
            .deserialize(deserializer)
    }
}

/// Reads a [`Dist`] knowing what it is for, so that every complaint names the parameter, its unit and range.
#[derive(Clone, Copy, Debug)]
pub struct DistSeed<'a> {
    /// What is read, as it should stand in a message, e.g. "`db` of `gain`".
    pub what: &'a str,
    /// The unit of the numbers; empty when they have none.
    pub unit: &'a str,
    /// How a bare `[low, high]` is meant.
    pub scale: Scale,
    /// The least and the greatest value allowed.
    pub limits: (f64, f64),
}

impl DistSeed<'_> {
    fn check<E: de::Error>(&self, dist: Dist) -> Result<Dist, E> {
        dist.validate().map_err(|m| E::custom(format!("{} {m}", self.what)))?;
        let (low, high) = dist.bounds();
        let outside = if low < self.limits.0 { Some(low) } else { Some(high).filter(|h| *h > self.limits.1) };
        match outside {
            Some(value) => Err(E::custom(format!(
                "{} must lie within {}, got {value}",
                self.what,
                range_text(self.limits, self.unit)
            ))),
            None => Ok(dist),
        }
    }
}

/// `low..high unit`.
pub(crate) fn range_text((low, high): (f64, f64), unit: &str) -> String {
    if unit.is_empty() { format!("{low}..{high}") } else { format!("{low}..{high} {unit}") }
}

impl<'de> DeserializeSeed<'de> for DistSeed<'_> {
    type Value = Dist;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Dist, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for DistSeed<'_> {
    type Value = Dist;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = if self.unit.is_empty() { String::new() } else { format!(" in {}", self.unit) };
        write!(f, "{} to be a number{unit}, a range [low, high] or {{choice: [...]}}", self.what)
    }

    fn visit_f64<E: de::Error>(self, v: f64) -> Result<Dist, E> {
        self.check(Dist::Constant(v))
    }

    fn visit_i64<E: de::Error>(self, v: i64) -> Result<Dist, E> {
        self.visit_f64(v as f64)
    }

    fn visit_u64<E: de::Error>(self, v: u64) -> Result<Dist, E> {
        self.visit_f64(v as f64)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Dist, E> {
        // Some YAML readers hand every plain scalar over as text.
        if let Ok(value) = text.trim().parse::<f64>() {
            return self.visit_f64(value);
        }
        let unit = if self.unit.is_empty() { String::new() } else { format!(" (its unit is {})", self.unit) };
        Err(E::custom(format!(
            "{} takes a plain number{unit} or a range [low, high], got the text \"{text}\"",
            self.what
        )))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Dist, A::Error> {
        let mut values = Vec::new();
        // An element is read by the same visitor, so that a complaint names the parameter and points at it.
        while let Some(element) = seq.next_element_seed(self)? {
            match element {
                Dist::Constant(value) => values.push(value),
                _ => return Err(de::Error::custom(format!("{} has a list within its range", self.what))),
            }
        }
        match values.as_slice() {
            &[low, high] => self.check(Dist::on(self.scale, low, high)),
            other => Err(de::Error::custom(format!(
                "{} takes a range of two numbers, [low, high], got {} of them; for a set of values write \
                 {{choice: [...]}}",
                self.what,
                other.len()
            ))),
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Dist, A::Error> {
        let forms = "one of `uniform`, `log_uniform`, `choice`";
        let Some(form) = map.next_key::<String>()? else {
            return Err(de::Error::custom(format!("{} is an empty map: write {forms}", self.what)));
        };
        if !matches!(form.as_str(), "uniform" | "log_uniform" | "choice") {
            return Err(de::Error::custom(format!(
                "{}: unknown distribution `{form}`: write {forms}",
                self.what
            )));
        }
        let values: Vec<f64> = map.next_value()?;
        if let Some(extra) = map.next_key::<String>()? {
            return Err(de::Error::custom(format!("{} has `{extra}` beside `{form}`: keep one", self.what)));
        }
        let dist = match (form.as_str(), values.as_slice()) {
            ("uniform", &[low, high]) => Dist::Uniform { low, high },
            ("log_uniform", &[low, high]) => Dist::LogUniform { low, high },
            ("choice", _) => Dist::Choice(values),
            _ => {
                return Err(de::Error::custom(format!(
                    "{}: `{form}` takes two numbers, [low, high]",
                    self.what
                )));
            }
        };
        self.check(dist)
    }
}

/// The JSON Schema of a distribution whose values lie within `limits`.
pub(crate) fn schema((low, high): (f64, f64)) -> Schema {
    let number = json_schema!({"type": "number", "minimum": low, "maximum": high});
    let pair = json_schema!({"type": "array", "items": number, "minItems": 2, "maxItems": 2});
    let list = json_schema!({"type": "array", "items": number, "minItems": 1});
    let form = |name: &str, inner: &Schema| {
        json_schema!({
            "type": "object", "properties": { name: inner }, "required": [name], "additionalProperties": false
        })
    };
    json_schema!({
        "anyOf": [number, pair, form("uniform", &pair), form("log_uniform", &pair), form("choice", &list)]
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Key;

    fn read(json: &str, scale: Scale) -> Result<Dist, String> {
        let seed = DistSeed { what: "`db` of `gain`", unit: "dB", scale, limits: (-60.0, 24.0) };
        seed.deserialize(&mut serde_json::Deserializer::from_str(json)).map_err(|e| e.to_string())
    }

    #[test]
    fn every_form_reads_and_round_trips() {
        for (json, want) in [
            ("3", Dist::Constant(3.0)),
            ("-1.5", Dist::Constant(-1.5)),
            ("[-15, 5]", Dist::Uniform { low: -15.0, high: 5.0 }),
            (r#"{"uniform": [0, 1]}"#, Dist::Uniform { low: 0.0, high: 1.0 }),
            (r#"{"log_uniform": [1, 4]}"#, Dist::LogUniform { low: 1.0, high: 4.0 }),
            (r#"{"choice": [1, 2, 4]}"#, Dist::Choice(vec![1.0, 2.0, 4.0])),
        ] {
            let dist = read(json, Scale::Linear).unwrap();
            assert_eq!(dist, want);
            let text = serde_json::to_string(&dist).unwrap();
            assert_eq!(serde_json::from_str::<Dist>(&text).unwrap(), want);
        }
        assert_eq!(read("[1, 4]", Scale::Log).unwrap(), Dist::LogUniform { low: 1.0, high: 4.0 });
    }

    #[test]
    fn complaints_say_what_to_write() {
        for (json, want) in [
            ("300", "`db` of `gain` must lie within -60..24 dB, got 300"),
            ("[-70, 3]", "`db` of `gain` must lie within -60..24 dB, got -70"),
            ("[5, -15]", "`db` of `gain` has its ends in the wrong order: write [-15, 5]"),
            ("[1, 2, 3]", "got 3 of them; for a set of values write {choice: [...]}"),
            ("\"3 dB\"", "`db` of `gain` takes a plain number (its unit is dB)"),
            (r#"{"normal": [0, 1]}"#, "unknown distribution `normal`: write one of `uniform`"),
            (r#"{"log_uniform": [-1, 1]}"#, "both ends must be above 0"),
            (r#"{"choice": []}"#, "empty list of choices"),
            ("true", "expected `db` of `gain` to be a number in dB"),
        ] {
            let got = read(json, Scale::Linear).unwrap_err();
            assert!(got.contains(want), "{json}: {got}");
        }
    }

    #[test]
    fn draws_stay_inside_and_fill_the_range() {
        let mut rng = Key::root(3).rng();
        let log = Dist::LogUniform { low: 0.5, high: 8.0 };
        let draws: Vec<f64> = (0..20_000).map(|_| log.draw(&mut rng)).collect();
        assert!(draws.iter().all(|x| (0.5..=8.0).contains(x)));
        // Half of a log-uniform variable lies below the geometric mean, 2.
        let below = draws.iter().filter(|x| **x < 2.0).count() as f64 / draws.len() as f64;
        assert!((below - 0.5).abs() < 0.015, "{below}");
        let choice = Dist::Choice(vec![1.0, 5.0]);
        assert!((0..100).map(|_| choice.draw(&mut rng)).all(|x| x == 1.0 || x == 5.0));
        assert_eq!(Dist::Constant(2.0).draw(&mut rng), 2.0);
        assert_eq!(choice.bounds(), (1.0, 5.0));
    }
}
