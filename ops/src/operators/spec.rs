//! Operators as configured: reading, checking and writing `{gain: {db: [-15, 5], p: 0.5}}`.
//!
//! Everything follows from the table of definitions; what a reader of YAML sees when something is wrong is
//! written here and in [`crate::dist`].

use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{self, DeserializeSeed, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer, ser::SerializeMap};

use super::{all, find};
use crate::dist::{self, Dist, DistSeed, Scale};
use crate::operator::{OperatorDef, ParamDef, ParamKind, unknown};
use crate::rng::Rng;

/// What is drawn for one parameter of a configured operator.
#[derive(Clone, Debug, PartialEq)]
pub enum ParamSpec {
    /// A number from a distribution.
    Number(Dist),
    /// One of these options (indices into the definition's list), equally likely; never empty.
    Choice(Vec<usize>),
}

impl ParamSpec {
    /// One value; options as their index.
    pub fn draw(&self, rng: &mut Rng) -> f64 {
        match self {
            ParamSpec::Number(dist) => dist.draw(rng),
            ParamSpec::Choice(options) => options.get(rng.below(options.len())).map_or(0.0, |i| *i as f64),
        }
    }

    /// The least and the greatest value drawn.
    pub fn bounds(&self) -> (f64, f64) {
        match self {
            ParamSpec::Number(dist) => dist.bounds(),
            ParamSpec::Choice(options) => {
                let indices = || options.iter().map(|i| *i as f64);
                (indices().fold(f64::INFINITY, f64::min), indices().fold(f64::NEG_INFINITY, f64::max))
            }
        }
    }
}

/// An operator with what is drawn for its parameters: `{gain: {db: [-15, 5], p: 0.5}}` in YAML.
#[derive(Clone)]
pub struct OperatorSpec {
    def: &'static OperatorDef,
    params: Vec<ParamSpec>,
    p: Option<f64>,
    from: Option<String>,
}

impl OperatorSpec {
    /// The operator `name` with all defaults. The error names the nearest operator.
    pub fn new(name: &str) -> Result<Self, String> {
        let def = find(name).ok_or_else(|| unknown("operator", name, "", all().iter().map(|d| d.name)))?;
        Ok(Self::of(def))
    }

    /// An operator with all defaults.
    pub fn of(def: &'static OperatorDef) -> Self {
        Self { def, params: def.params.iter().map(ParamDef::default_spec).collect(), p: None, from: None }
    }

    /// The definition of the operator.
    pub fn def(&self) -> &'static OperatorDef {
        self.def
    }

    /// The name of the operator.
    pub fn name(&self) -> &'static str {
        self.def.name
    }

    /// What is drawn, in the order of the definition's parameters.
    pub fn params(&self) -> &[ParamSpec] {
        &self.params
    }

    /// How likely the operator is applied to a view.
    pub fn p(&self) -> f64 {
        self.p.unwrap_or(self.def.default_p)
    }

    /// Makes the operator certain unless the YAML said how likely it is.
    pub(crate) fn apply_by_default(&mut self) {
        self.p.get_or_insert(1.0);
    }

    /// The stage whose clips are its second recordings.
    pub fn from(&self) -> Option<&str> {
        self.from.as_deref()
    }

    /// One value per parameter.
    pub fn draw(&self, rng: &mut Rng) -> Vec<f64> {
        self.params.iter().map(|param| param.draw(rng)).collect()
    }

    /// The parameters that change nothing; one without such a value keeps the low end of its range. `None` for an
    /// operator that can only be left out.
    pub fn identity(&self) -> Option<Vec<f64>> {
        let one = |(def, spec): (&ParamDef, &ParamSpec)| def.identity().unwrap_or(spec.bounds().0);
        self.def.has_identity().then(|| self.def.params.iter().zip(&self.params).map(one).collect())
    }
}

/// By name: definitions are unique.
impl PartialEq for OperatorSpec {
    fn eq(&self, other: &Self) -> bool {
        self.def.name == other.def.name
            && self.params == other.params
            && self.p() == other.p()
            && self.from == other.from
    }
}

impl fmt::Debug for OperatorSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct(self.def.name)
            .field("params", &self.params)
            .field("p", &self.p())
            .field("from", &self.from)
            .finish()
    }
}

impl Serialize for OperatorSpec {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        struct Body<'a>(&'a OperatorSpec);
        impl Serialize for Body<'_> {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                let mut map = serializer.serialize_map(None)?;
                for (def, param) in self.0.def.params.iter().zip(&self.0.params) {
                    match (&def.kind, param) {
                        (ParamKind::Choice { options, .. }, ParamSpec::Choice(chosen)) => {
                            let names: Vec<_> = chosen.iter().filter_map(|i| options.get(*i)).collect();
                            map.serialize_entry(def.name, &names)?;
                        }
                        (_, ParamSpec::Number(dist)) => map.serialize_entry(def.name, dist)?,
                        (ParamKind::Number { .. }, ParamSpec::Choice(chosen)) => {
                            map.serialize_entry(def.name, chosen)?;
                        }
                    }
                }
                if let Some(from) = &self.0.from {
                    map.serialize_entry("from", from)?;
                }
                map.serialize_entry("p", &self.0.p())?;
                map.end()
            }
        }
        let mut map = serializer.serialize_map(Some(1))?;
        map.serialize_entry(self.def.name, &Body(self))?;
        map.end()
    }
}

impl<'de> Deserialize<'de> for OperatorSpec {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(SpecVisitor)
    }
}

struct SpecVisitor;

impl<'de> Visitor<'de> for SpecVisitor {
    type Value = OperatorSpec;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an operator: a name such as polarity, or a map of one name to its parameters such as {gain: {db: [-15, 5]}}")
    }

    fn visit_str<E: de::Error>(self, name: &str) -> Result<OperatorSpec, E> {
        OperatorSpec::new(name).map_err(E::custom)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<OperatorSpec, A::Error> {
        let Some(name) = map.next_key::<String>()? else {
            return Err(de::Error::custom(
                "an operator without a name: write one such as {gain: {db: [-15, 5]}}",
            ));
        };
        read_named(&name, map)
    }
}

/// Reads the rest of a map whose first key is the name of an operator.
pub(crate) fn read_named<'de, A: MapAccess<'de>>(name: &str, mut map: A) -> Result<OperatorSpec, A::Error> {
    let mut spec = OperatorSpec::new(name).map_err(de::Error::custom)?;
    map.next_value_seed(BodySeed(&mut spec))?;
    match map.next_key::<String>()? {
        None => Ok(spec),
        Some(extra) if keys(spec.def).any(|key| key == extra) => Err(de::Error::custom(format!(
            "`{extra}` stands beside `{name}`, not in it: write {{{name}: {{{extra}: ...}}}}"
        ))),
        Some(extra) => Err(de::Error::custom(format!(
            "`{extra}` stands in the same map as `{name}`: make it an entry of the list of its own"
        ))),
    }
}

/// What may stand in the map of an operator.
fn keys(def: &'static OperatorDef) -> impl Iterator<Item = &'static str> + Clone {
    let from = def.partner().map(|_| "from");
    def.params.iter().map(|p| p.name).chain(from).chain(["p"])
}

/// Reads the parameters of an operator into a spec that holds the defaults.
struct BodySeed<'a>(&'a mut OperatorSpec);

impl<'de> DeserializeSeed<'de> for BodySeed<'_> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for BodySeed<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = keys(self.0.def).collect();
        write!(f, "the parameters of `{}` as a map ({})", self.0.def.name, names.join(", "))
    }

    fn visit_unit<E: de::Error>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_none<E: de::Error>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let spec = self.0;
        let def = spec.def;
        let mut seen: Vec<String> = Vec::new();
        while let Some(key) = map.next_key_seed(KeySeed(def))? {
            if seen.contains(&key) {
                return Err(de::Error::custom(format!("`{key}` of `{}` is given twice", def.name)));
            }
            let what = format!("`{key}` of `{}`", def.name);
            match def.params.iter().zip(&mut spec.params).find(|(param, _)| param.name == key) {
                Some((ParamDef { kind: ParamKind::Number { min, max, scale, .. }, unit, .. }, slot)) => {
                    let seed = DistSeed { what: &what, unit, scale: *scale, limits: (*min, *max) };
                    *slot = ParamSpec::Number(map.next_value_seed(seed)?);
                }
                Some((ParamDef { kind: ParamKind::Choice { options, .. }, .. }, slot)) => {
                    *slot = ParamSpec::Choice(map.next_value_seed(ChoiceSeed { what: &what, options })?);
                }
                None if key == "from" => spec.from = Some(map.next_value()?),
                None => {
                    let seed = DistSeed { what: &what, unit: "", scale: Scale::Linear, limits: (0.0, 1.0) };
                    match map.next_value_seed(seed)? {
                        Dist::Constant(p) => spec.p = Some(p),
                        _ => {
                            return Err(de::Error::custom(format!("{what} is one probability, not a range")));
                        }
                    }
                }
            }
            seen.push(key);
        }
        Ok(())
    }
}

/// Reads the name of a parameter, or `p`. Refusing a name here, not once it is read, puts the complaint where it stands.
struct KeySeed(&'static OperatorDef);

impl<'de> DeserializeSeed<'de> for KeySeed {
    type Value = String;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<String, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for KeySeed {
    type Value = String;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the name of a parameter of `{}`", self.0.name)
    }

    fn visit_str<E: de::Error>(self, key: &str) -> Result<String, E> {
        let names = keys(self.0);
        if names.clone().any(|name| name == key) {
            return Ok(key.to_owned());
        }
        Err(E::custom(unknown("parameter", key, self.0.name, names)))
    }
}

/// Reads one option or a list of options.
#[derive(Clone, Copy)]
struct ChoiceSeed<'a> {
    what: &'a str,
    options: &'static [&'static str],
}

impl ChoiceSeed<'_> {
    fn index<E: de::Error>(&self, name: &str) -> Result<usize, E> {
        self.options.iter().position(|option| *option == name).ok_or_else(|| {
            let message = unknown("option", name, "", self.options.iter().copied());
            E::custom(format!("{}: {message}", self.what))
        })
    }
}

impl<'de> DeserializeSeed<'de> for ChoiceSeed<'_> {
    type Value = Vec<usize>;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Vec<usize>, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for ChoiceSeed<'_> {
    type Value = Vec<usize>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} to be one of {}, or a list of them", self.what, self.options.join(", "))
    }

    fn visit_str<E: de::Error>(self, name: &str) -> Result<Vec<usize>, E> {
        Ok(vec![self.index(name)?])
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Vec<usize>, A::Error> {
        let mut chosen = Vec::new();
        // An element is read by the same visitor, so that a complaint points at it.
        while let Some(options) = seq.next_element_seed(self)? {
            chosen.extend(options);
        }
        if chosen.is_empty() {
            return Err(de::Error::custom(format!("{} has an empty list of options", self.what)));
        }
        Ok(chosen)
    }
}

impl JsonSchema for OperatorSpec {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Operator".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let names: Vec<_> = all().iter().map(|def| def.name).collect();
        let mut forms = vec![json_schema!({
            "type": "string", "enum": names, "description": "An operator with its defaults."
        })];
        forms.extend(all().iter().map(|def| {
            let mut properties = serde_json::Map::new();
            for param in def.params {
                properties.insert(param.name.into(), param_schema(param).to_value());
            }
            let p = json_schema!({
                "type": "number", "minimum": 0, "maximum": 1, "default": def.default_p,
                "description": "How likely the operator is applied to a view."
            });
            properties.insert("p".into(), p.to_value());
            if def.partner().is_some() {
                let from = json_schema!({
                    "type": "string", "description": "The stage whose clips are the second recordings."
                });
                properties.insert("from".into(), from.to_value());
            }
            json_schema!({
                "type": "object",
                "description": def.summary,
                "properties": { def.name: {
                    "type": ["object", "null"], "description": def.summary,
                    "properties": properties, "additionalProperties": false
                } },
                "required": [def.name],
                "additionalProperties": false
            })
        }));
        json_schema!({ "description": "An augmentation operator.", "oneOf": forms })
    }
}

fn param_schema(param: &ParamDef) -> Schema {
    let unit = if param.unit.is_empty() { String::new() } else { format!(" In {}.", param.unit) };
    let text = format!("{}{unit}", param.help);
    match &param.kind {
        ParamKind::Number { min, max, default: (low, high), .. } => {
            let mut schema = dist::schema((*min, *max));
            let default = if low == high { serde_json::json!(low) } else { serde_json::json!([low, high]) };
            schema.insert("description".into(), text.into());
            schema.insert("default".into(), default);
            schema
        }
        ParamKind::Choice { options, default } => {
            let one = json_schema!({"type": "string", "enum": options});
            json_schema!({
                "description": text, "default": default,
                "anyOf": [one, {"type": "array", "items": one, "minItems": 1}]
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(value: serde_json::Value) -> Result<OperatorSpec, String> {
        serde_json::from_value(value).map_err(|e| e.to_string())
    }

    #[test]
    fn reads_names_maps_and_defaults() {
        let bare = read(json!("polarity")).unwrap();
        assert_eq!(bare, read(json!({"polarity": {}})).unwrap());
        assert_eq!(bare, read(json!({"polarity": null})).unwrap());
        let gain = read(json!({"gain": {"db": [-15, 5], "p": 0.25}})).unwrap();
        assert_eq!(gain.params(), [ParamSpec::Number(Dist::Uniform { low: -15.0, high: 5.0 })]);
        assert_eq!((gain.name(), gain.p()), ("gain", 0.25));
        let stretch = read(json!({"time_stretch": {"rate": [0.7, 1.3]}})).unwrap();
        assert_eq!(stretch.params(), [ParamSpec::Number(Dist::LogUniform { low: 0.7, high: 1.3 })]);
        let filter = read(json!({"filter": {"kind": ["low", "notch"]}})).unwrap();
        assert_eq!(filter.params()[0], ParamSpec::Choice(vec![0, 3]));
    }

    #[test]
    fn every_default_and_every_serialised_form_reads_back() {
        for def in all() {
            let spec = OperatorSpec::of(def);
            let value = serde_json::to_value(&spec).unwrap();
            assert_eq!(read(value.clone()).unwrap(), spec, "{value}");
            assert!(spec.identity().is_none_or(|identity| identity.len() == def.params.len()));
        }
        let odd = read(json!({"filter": {"kind": "band", "octaves": {"choice": [1, 2]}, "p": 1}})).unwrap();
        assert_eq!(read(serde_json::to_value(&odd).unwrap()).unwrap(), odd);
    }

    #[test]
    fn complaints_name_the_place_and_the_remedy() {
        for (value, want) in [
            (
                json!({"pitch_shift": {"semitone": 1}}),
                "unknown parameter `semitone` of `pitch_shift`; did you mean `semitones`?",
            ),
            (json!({"gain": {"db": 300}}), "`db` of `gain` must lie within -60..24 dB, got 300"),
            (json!({"pitchshift": {}}), "unknown operator `pitchshift`; did you mean `pitch_shift`?"),
            (json!("xyzzy"), "unknown operator `xyzzy`; there is `gain`, `polarity`"),
            (json!({"gain": {"db": 1, "p": 1.5}}), "`p` of `gain` must lie within 0..1, got 1.5"),
            (json!({"gain": {"p": [0, 1]}}), "`p` of `gain` is one probability, not a range"),
            (
                json!({"filter": {"kind": "lo"}}),
                "`kind` of `filter`: unknown option `lo`; did you mean `low`?",
            ),
            (json!({"filter": {"kind": []}}), "`kind` of `filter` has an empty list of options"),
            (json!({"gain": {}, "db": 3}), "`db` stands beside `gain`, not in it: write {gain: {db: ...}}"),
            (json!({"gain": {}, "polarity": {}}), "`polarity` stands in the same map as `gain`"),
            (json!({}), "an operator without a name"),
            (json!({"gain": 3}), "expected the parameters of `gain` as a map (db, p)"),
            (json!(3), "expected an operator: a name such as polarity"),
            (
                json!({"pitch_shift": {"xx": 1}}),
                "unknown parameter `xx` of `pitch_shift`; there is `semitones`, `p`",
            ),
        ] {
            let got = read(value).unwrap_err();
            assert!(got.contains(want), "{got}");
        }
    }

    #[test]
    fn the_schema_follows_the_tables() {
        let schema = schemars::schema_for!(OperatorSpec).to_value();
        assert_eq!(schema["oneOf"].as_array().unwrap().len(), all().len() + 1);
        for (def, form) in all().iter().zip(&schema["oneOf"].as_array().unwrap()[1..]) {
            let body = &form["properties"][def.name];
            assert_eq!(body["description"], def.summary);
            assert_eq!(body["properties"].as_object().unwrap().len(), keys(def).count());
        }
        assert_eq!(
            schema["oneOf"][1]["properties"]["gain"]["properties"]["db"]["default"],
            json!([-15.0, 5.0])
        );
    }
}
