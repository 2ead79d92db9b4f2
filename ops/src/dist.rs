//! Distributions of operator parameters, and how they are written in YAML.
//!
//! | YAML                        | meaning                                                       |
//! | --------------------------- | ------------------------------------------------------------- |
//! | `3`                         | always 3                                                      |
//! | `[-15, 5]`                  | uniform on the parameter's own scale (linear, or logarithmic) |
//! | `{uniform: [-15, 5]}`       | uniform                                                       |
//! | `{log_uniform: [200, 4000]}`| uniform in the logarithm                                      |
//! | `{choice: [-2, 0, 2]}`      | one of these, equally likely                                  |
//! | `{normal: [0, 2]}`          | normal with that mean and standard deviation                  |
//! | `{beta: [2, 5]}`            | Beta(2, 5), stretched from 0..1 to the range                  |
//!
//! `normal` and `beta` stay within the range of the parameter, or within one of their own: `{normal: {mean: 0,
//! std: 2, low: -3, high: 3}}`, `{beta: {a: 2, b: 5, low: -3, high: 3}}`. A normal variable is truncated there,
//! not clamped: no value is likelier than the bell says. Both are on a linear scale whatever the parameter's is.

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
    /// Normal, truncated to a range that holds its mean.
    Normal {
        /// The mean before truncation, within `low..=high`.
        mean: f64,
        /// The standard deviation before truncation, above 0.
        std: f64,
        /// The lower end; may be infinite.
        low: f64,
        /// The upper end, at least `low`; may be infinite.
        high: f64,
    },
    /// A Beta variable, stretched from 0..1 to `low..high`.
    Beta {
        /// The weight of the upper end, within [`SHAPES`].
        a: f64,
        /// The weight of the lower end, within [`SHAPES`].
        b: f64,
        /// The lower end.
        low: f64,
        /// The upper end, at least `low`.
        high: f64,
    },
}

/// The shapes that a Beta distribution may have.
pub const SHAPES: std::ops::RangeInclusive<f64> = 1e-3..=1e6;

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
            Dist::Normal { mean, std, low, high } => {
                let z = truncated_normal((low - mean) / std, (high - mean) / std, rng);
                (mean + std * z).clamp(*low, *high)
            }
            Dist::Beta { a, b, low, high } => (low + (high - low) * beta(*a, *b, rng)).clamp(*low, *high),
        }
    }

    /// The least and the greatest value.
    pub fn bounds(&self) -> (f64, f64) {
        match self {
            Dist::Constant(value) => (*value, *value),
            Dist::Uniform { low, high }
            | Dist::LogUniform { low, high }
            | Dist::Normal { low, high, .. }
            | Dist::Beta { low, high, .. } => (*low, *high),
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
            Dist::Normal { mean, std, low, high } => {
                if !mean.is_finite() || !std.is_finite() || *std <= 0.0 {
                    Err(format!("must have a finite mean and a `std` above 0, got [{mean}, {std}]"))
                } else if low.is_nan() || high.is_nan() || low > high {
                    Err(format!("has its ends in the wrong order: write low: {high}, high: {low}"))
                } else if !(*low..=*high).contains(mean) {
                    Err(format!("has its mean {mean} outside of {low}..{high}"))
                } else {
                    Ok(())
                }
            }
            Dist::Beta { a, b, low, high } => {
                if !SHAPES.contains(a) || !SHAPES.contains(b) {
                    let (least, most) = (SHAPES.start(), SHAPES.end());
                    Err(format!("must have `a` and `b` within {least}..{most}, got [{a}, {b}]"))
                } else if !low.is_finite() || !high.is_finite() {
                    Err("has no range to stretch the beta distribution to: give `low` and `high`".into())
                } else if low > high {
                    Err(format!("has its ends in the wrong order: write low: {high}, high: {low}"))
                } else {
                    Ok(())
                }
            }
            _ => Ok(()),
        }
    }
}

/// How often a rejected proposal is drawn again. At least 0.49 of them are accepted, so that the end of the
/// tries has probability 2^-62.
const TRIES: usize = 64;

/// A standard normal variable given that it lies within `low..high`, which holds 0.
///
/// Rejection from the normal itself where the range is wide and from a uniform variable where it is narrow
/// (Robert, Statistics and Computing 5, 1995), so that no distribution function is evaluated and none is
/// approximated.
fn truncated_normal(low: f64, high: f64, rng: &mut Rng) -> f64 {
    // About where the two are accepted equally often.
    const NARROW: f64 = 2.5;
    for _ in 0..TRIES {
        if high - low <= NARROW {
            let z = rng.uniform(low, high);
            if rng.f64() <= (-0.5 * z * z).exp() {
                return z;
            }
        } else {
            let z = rng.normal();
            if (low..=high).contains(&z) {
                return z;
            }
        }
    }
    0.0
}

/// A Beta variable as X / (X + Y) of two Gamma variables, by their logarithms: small shapes would underflow.
fn beta(a: f64, b: f64, rng: &mut Rng) -> f64 {
    let (x, y) = (log_gamma_variable(a, rng), log_gamma_variable(b, rng));
    1.0 / (1.0 + (y - x).exp())
}

/// The logarithm of a Gamma variable of that shape (Marsaglia and Tsang, ACM TOMS 26(3), 2000; a shape below 1
/// is raised by one and paid for with a uniform variable to the power of its inverse).
fn log_gamma_variable(shape: f64, rng: &mut Rng) -> f64 {
    let raised = if shape < 1.0 { shape + 1.0 } else { shape };
    let d = raised - 1.0 / 3.0;
    let c = 1.0 / (9.0 * d).sqrt();
    let mut v: f64 = 1.0;
    for _ in 0..TRIES {
        let x = rng.normal();
        let cube = (1.0 + c * x).powi(3);
        // 1 - f64() lies in (0, 1], so the logarithm is finite.
        let u = 1.0 - rng.f64();
        if cube > 0.0 && u.ln() < 0.5 * x * x + d * (1.0 - cube + cube.ln()) {
            v = cube;
            break;
        }
    }
    let log = (d * v).ln();
    if shape < 1.0 { log + (1.0 - rng.f64()).ln() / shape } else { log }
}

impl Serialize for Dist {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (name, values) = match self {
            Dist::Constant(value) => return serializer.serialize_f64(*value),
            Dist::Uniform { low, high } => ("uniform", vec![*low, *high]),
            Dist::LogUniform { low, high } => ("log_uniform", vec![*low, *high]),
            Dist::Choice(values) => ("choice", values.clone()),
            Dist::Normal { mean, std, low, high } => {
                return serialize_shape(serializer, "normal", [("mean", *mean), ("std", *std)], *low, *high);
            }
            Dist::Beta { a, b, low, high } => {
                return serialize_shape(serializer, "beta", [("a", *a), ("b", *b)], *low, *high);
            }
        };
        let mut map = serializer.serialize_map(Some(1))?;
        map.serialize_entry(name, &values)?;
        map.end()
    }
}

/// Writes `{name: {first: .., second: .., low: .., high: ..}}` without ends that are infinite.
fn serialize_shape<S: Serializer>(
    serializer: S,
    name: &str,
    shape: [(&'static str, f64); 2],
    low: f64,
    high: f64,
) -> Result<S::Ok, S::Error> {
    struct Body([(&'static str, f64); 4]);
    impl Serialize for Body {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            serializer.collect_map(self.0.into_iter().filter(|(_, value)| value.is_finite()))
        }
    }
    let [first, second] = shape;
    let body = Body([first, second, ("low", low), ("high", high)]);
    let mut map = serializer.serialize_map(Some(1))?;
    map.serialize_entry(name, &body)?;
    map.end()
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
        let forms = "one of `uniform`, `log_uniform`, `choice`, `normal`, `beta`";
        let Some(form) = map.next_key::<String>()? else {
            return Err(de::Error::custom(format!("{} is an empty map: write {forms}", self.what)));
        };
        let dist = match form.as_str() {
            "uniform" | "log_uniform" | "choice" => {
                let values: Vec<f64> = map.next_value()?;
                match (form.as_str(), values.as_slice()) {
                    ("uniform", &[low, high]) => Dist::Uniform { low, high },
                    ("log_uniform", &[low, high]) => Dist::LogUniform { low, high },
                    ("choice", _) => Dist::Choice(values),
                    _ => {
                        return Err(de::Error::custom(format!(
                            "{}: `{form}` takes two numbers, [low, high]",
                            self.what
                        )));
                    }
                }
            }
            "normal" => {
                let names = ["mean", "std"];
                let ([mean, std], [low, high]) =
                    map.next_value_seed(ShapeSeed { of: self, form: &form, names })?;
                Dist::Normal { mean, std, low, high }
            }
            "beta" => {
                let names = ["a", "b"];
                let ([a, b], [low, high]) =
                    map.next_value_seed(ShapeSeed { of: self, form: &form, names })?;
                Dist::Beta { a, b, low, high }
            }
            _ => {
                return Err(de::Error::custom(format!(
                    "{}: unknown distribution `{form}`: write {forms}",
                    self.what
                )));
            }
        };
        if let Some(extra) = map.next_key::<String>()? {
            return Err(de::Error::custom(format!("{} has `{extra}` beside `{form}`: keep one", self.what)));
        }
        self.check(dist)
    }
}

/// Reads the body of `normal` or `beta`: `[first, second]`, or a map of the two that may hold `low` and `high`.
/// Gives the two and the ends, which are the limits where not given.
struct ShapeSeed<'a> {
    of: DistSeed<'a>,
    form: &'a str,
    names: [&'static str; 2],
}

impl<'de> DeserializeSeed<'de> for ShapeSeed<'_> {
    type Value = ([f64; 2], [f64; 2]);
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for ShapeSeed<'_> {
    type Value = ([f64; 2], [f64; 2]);

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [first, second] = self.names;
        write!(
            f,
            "`{}` of {} to be [{first}, {second}] or {{{first}: .., {second}: .., low: .., high: ..}}",
            self.form, self.of.what
        )
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let mut values: Vec<f64> = Vec::new();
        while let Some(value) = seq.next_element()? {
            values.push(value);
        }
        let (low, high) = self.of.limits;
        match values.as_slice() {
            &[first, second] => Ok(([first, second], [low, high])),
            _ => Err(de::Error::custom(format!(
                "{}: `{}` takes two numbers, [{}], got {} of them",
                self.of.what,
                self.form,
                self.names.join(", "),
                values.len()
            ))),
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let Self { of: DistSeed { what, limits, .. }, form, names: [first, second] } = self;
        let names = [first, second, "low", "high"];
        let mut values: [Option<f64>; 4] = [None; 4];
        while let Some(key) = map.next_key::<String>()? {
            let Some(slot) = names.iter().position(|name| *name == key) else {
                let message = crate::operator::unknown("parameter", &key, form, names.into_iter());
                return Err(de::Error::custom(format!("{what}: {message}")));
            };
            if values[slot].replace(map.next_value()?).is_some() {
                return Err(de::Error::custom(format!("{what}: `{key}` of `{form}` is given twice")));
            }
        }
        let needed = |value: Option<f64>, name| {
            value.ok_or_else(|| de::Error::custom(format!("{what}: `{form}` needs `{name}`")))
        };
        let [a, b, low, high] = values;
        let ends = [low.unwrap_or(limits.0), high.unwrap_or(limits.1)];
        Ok(([needed(a, first)?, needed(b, second)?], ends))
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
    let shape = |first: (&str, Schema), second: (&str, Schema)| {
        json_schema!({
            "anyOf": [
                {"type": "array", "prefixItems": [first.1, second.1], "minItems": 2, "maxItems": 2},
                {
                    "type": "object",
                    "properties": { first.0: first.1, second.0: second.1, "low": number, "high": number },
                    "required": [first.0, second.0],
                    "additionalProperties": false
                }
            ]
        })
    };
    let weight = || json_schema!({"type": "number", "minimum": SHAPES.start(), "maximum": SHAPES.end()});
    let std = json_schema!({"type": "number", "exclusiveMinimum": 0});
    json_schema!({
        "anyOf": [
            number,
            pair,
            form("uniform", &pair),
            form("log_uniform", &pair),
            form("choice", &list),
            form("normal", &shape(("mean", number.clone()), ("std", std))),
            form("beta", &shape(("a", weight()), ("b", weight())))
        ]
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
            (r#"{"normal": [-6, 2]}"#, Dist::Normal { mean: -6.0, std: 2.0, low: -60.0, high: 24.0 }),
            (
                r#"{"normal": {"mean": 1, "std": 2, "high": 3}}"#,
                Dist::Normal { mean: 1.0, std: 2.0, low: -60.0, high: 3.0 },
            ),
            (r#"{"beta": [2, 5]}"#, Dist::Beta { a: 2.0, b: 5.0, low: -60.0, high: 24.0 }),
            (
                r#"{"beta": {"a": 0.5, "b": 1, "low": -3, "high": 3}}"#,
                Dist::Beta { a: 0.5, b: 1.0, low: -3.0, high: 3.0 },
            ),
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
            (r#"{"gauss": [0, 1]}"#, "unknown distribution `gauss`: write one of `uniform`"),
            (r#"{"normal": [0, 1, 2]}"#, "`db` of `gain`: `normal` takes two numbers, [mean, std], got 3"),
            (r#"{"normal": [0, -1]}"#, "a `std` above 0, got [0, -1]"),
            (r#"{"normal": [30, 1]}"#, "`db` of `gain` has its mean 30 outside of -60..24"),
            (r#"{"normal": {"mean": 0}}"#, "`db` of `gain`: `normal` needs `std`"),
            (
                r#"{"normal": {"mean": 0, "stdev": 1}}"#,
                "unknown parameter `stdev` of `normal`; did you mean `std`?",
            ),
            (r#"{"normal": {"mean": 0, "std": 1, "low": -99}}"#, "must lie within -60..24 dB, got -99"),
            (r#"{"normal": {"mean": 0, "std": 1, "low": 1, "high": -1}}"#, "write low: -1, high: 1"),
            (
                r#"{"normal": 3}"#,
                "expected `normal` of `db` of `gain` to be [mean, std] or {mean: .., std: ..",
            ),
            (r#"{"beta": [0, 1]}"#, "must have `a` and `b` within 0.001..1000000, got [0, 1]"),
            (r#"{"beta": {"a": 1, "b": 1, "a": 1}}"#, "`db` of `gain`: `a` of `beta` is given twice"),
            (r#"{"beta": {"a": 1, "b": 1, "low": 3, "high": 1}}"#, "write low: 1, high: 3"),
            (r#"{"beta": [1, 2], "choice": [1]}"#, "has `choice` beside `beta`: keep one"),
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

    /// A range that no parameter limits: the ends stay open through JSON, and a beta variable needs its own.
    #[test]
    fn without_limits_a_normal_variable_is_not_truncated() {
        let dist: Dist = serde_json::from_str(r#"{"normal": [1, 2]}"#).unwrap();
        assert_eq!(dist.bounds(), (f64::NEG_INFINITY, f64::INFINITY));
        let text = serde_json::to_string(&dist).unwrap();
        assert_eq!(text, r#"{"normal":{"mean":1.0,"std":2.0}}"#);
        assert_eq!(serde_json::from_str::<Dist>(&text).unwrap(), dist);
        let error = serde_json::from_str::<Dist>(r#"{"beta": [1, 2]}"#).unwrap_err().to_string();
        assert!(error.contains("give `low` and `high`"), "{error}");
    }

    /// The distance of Kolmogorov and Smirnov between draws and a distribution function, times the root of their
    /// number: above 1.95 with probability 0.001.
    fn distance(dist: &Dist, cdf: impl Fn(f64) -> f64) -> f64 {
        const DRAWS: usize = 50_000;
        let mut rng = Key::root(11).rng();
        let mut draws: Vec<f64> = (0..DRAWS).map(|_| dist.draw(&mut rng)).collect();
        let (low, high) = dist.bounds();
        assert!(draws.iter().all(|x| (low..=high).contains(x)), "{dist:?}");
        draws.sort_by(f64::total_cmp);
        let n = DRAWS as f64;
        let worst = draws.iter().enumerate().fold(0.0, |worst: f64, (i, x)| {
            let p = cdf(*x);
            worst.max((p - i as f64 / n).abs()).max(((i + 1) as f64 / n - p).abs())
        });
        worst * n.sqrt()
    }

    /// The normal distribution function by its Taylor series about 0 (Marsaglia, J. Stat. Softw. 11(4), 2004).
    fn phi(x: f64) -> f64 {
        if x.abs() > 8.0 {
            return if x > 0.0 { 1.0 } else { 0.0 };
        }
        let (mut term, mut sum, mut k) = (x, x, 1.0);
        while term.abs() > 1e-18 * sum.abs() {
            k += 2.0;
            term *= x * x / k;
            sum += term;
        }
        0.5 + sum * (-0.5 * x * x).exp() / std::f64::consts::TAU.sqrt()
    }

    #[test]
    fn normal_draws_follow_the_truncated_bell() {
        assert!((phi(1.959_963_984_540_054) - 0.975).abs() < 1e-14);
        // Two-sided, one-sided, half, narrow, narrow off centre, and not truncated at all.
        for (mean, std, low, high) in [
            (-6.0, 4.0, -15.0, 3.0),
            (0.0, 1.0, -0.5, 9.0),
            (2.0, 3.0, 2.0, 24.0),
            (0.0, 10.0, -3.0, 4.0),
            (0.0, 1.0, -0.1, 2.3),
            (5.0, 2.0, f64::NEG_INFINITY, f64::INFINITY),
        ] {
            let dist = Dist::Normal { mean, std, low, high };
            let (from, to) = (phi((low - mean) / std), phi((high - mean) / std));
            let d = distance(&dist, |x| (phi((x - mean) / std) - from) / (to - from));
            assert!(d < 1.95, "{dist:?}: {d}");
        }
        let point = Dist::Normal { mean: 2.0, std: 1.0, low: 2.0, high: 2.0 };
        assert_eq!(point.draw(&mut Key::root(0).rng()), 2.0);
    }

    #[test]
    fn beta_draws_follow_the_closed_forms() {
        type Cdf = fn(f64) -> f64;
        let cases: [(f64, f64, Cdf); 6] = [
            (1.0, 1.0, |x| x),
            (2.0, 5.0, |x| 1.0 - (1.0 - x).powi(5) * (1.0 + 5.0 * x)),
            (0.5, 0.5, |x| 2.0 / std::f64::consts::PI * x.sqrt().asin()),
            (0.25, 1.0, |x| x.powf(0.25)),
            (1.0, 3.5, |x| 1.0 - (1.0 - x).powf(3.5)),
            (2.0, 2.0, |x| x * x * (3.0 - 2.0 * x)),
        ];
        for (a, b, cdf) in cases {
            let d = distance(&Dist::Beta { a, b, low: -3.0, high: 5.0 }, |x| cdf((x + 3.0) / 8.0));
            assert!(d < 1.95, "{a} {b}: {d}");
        }
    }

    #[test]
    fn beta_moments_match_and_extreme_shapes_stay_within() {
        let mut rng = Key::root(12).rng();
        for (a, b) in [(2.5, 1.5), (0.3, 4.0), (40.0, 700.0), (0.01, 0.02), (1e6, 1e6), (1e-3, 1e6)] {
            let dist = Dist::Beta { a, b, low: 0.0, high: 1.0 };
            let draws: Vec<f64> = (0..50_000).map(|_| dist.draw(&mut rng)).collect();
            assert!(draws.iter().all(|x| (0.0..=1.0).contains(x)));
            let n = draws.len() as f64;
            let mean = draws.iter().sum::<f64>() / n;
            let variance = draws.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / n;
            let want = a / (a + b);
            let spread = a * b / ((a + b).powi(2) * (a + b + 1.0));
            assert!((mean - want).abs() < 4.0 * (spread / n).sqrt(), "{a} {b}: {mean} {want}");
            if a > 1e-2 {
                assert!((variance / spread - 1.0).abs() < 0.05, "{a} {b}: {variance} {spread}");
            }
        }
    }

    /// Golden values of the forms that stored draws were made with.
    #[test]
    fn earlier_forms_draw_what_they_always_did() {
        let mut rng = Key::root(17).rng();
        let draws = [
            Dist::Uniform { low: -15.0, high: 5.0 },
            Dist::LogUniform { low: 200.0, high: 4000.0 },
            Dist::Choice(vec![1.0, 2.0, 4.0]),
            Dist::Uniform { low: 0.0, high: 1.0 },
        ]
        .map(|dist| dist.draw(&mut rng));
        assert_eq!([draws[0], draws[2], draws[3]], [-14.183231326749066, 4.0, 0.8881014497594473]);
        // The last bits of a logarithm are the platform's.
        assert!((draws[1] - 1480.9630007616117).abs() < 1e-9, "{draws:?}");
    }
}
