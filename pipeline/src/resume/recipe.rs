//! Recipes: everything that determines what a stage makes.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::spec::Kind;

/// Differences named in a reason; more are counted.
const NAMED: usize = 3;
/// Values longer than this are not shown in a reason.
const SHOWN: usize = 60;

/// A tree of values. Two stages with equal recipes make equal tables, on machines of one CPU class.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Recipe(Map<String, Value>);

impl Recipe {
    /// The recipe of a stage of this kind. `version` counts changes of the code that alter what the kind makes.
    pub fn new(kind: Kind, version: u32) -> Self {
        let mut map = Map::new();
        map.insert("kind".to_owned(), kind.name().into());
        map.insert("version".to_owned(), version.into());
        Self(map)
    }

    /// The recipe with one more ingredient.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Serialize) -> Self {
        // Options serialise without fail; what did not would be told apart from every value.
        let value = serde_json::to_value(value).unwrap_or_else(|error| Value::String(error.to_string()));
        self.0.insert(name.to_owned(), value);
        self
    }

    /// The recipe with the options of a stage, less those (`without`) that do not change what is made.
    #[must_use]
    pub fn options(self, options: &impl Serialize, without: &[&str]) -> Self {
        let mut value = serde_json::to_value(options).unwrap_or(Value::Null);
        if let Value::Object(map) = &mut value {
            map.retain(|name, _| !without.contains(&name.as_str()));
        }
        self.with("options", value)
    }

    /// BLAKE3 of the recipe, in hex.
    pub fn digest(&self) -> String {
        let text = serde_json::to_string(&self.0).unwrap_or_default();
        blake3::hash(text.as_bytes()).to_hex().to_string()
    }

    /// The digest of one shard's recipe: this recipe and what goes into that shard alone.
    pub fn shard(&self, parts: &[&str]) -> String {
        let digest = self.digest();
        combined(std::iter::once(digest.as_str()).chain(parts.iter().copied()))
    }

    /// What changed since `old`, in words: `options.base[0].gain.db: [-15,5] -> [-12,5]`.
    pub fn differences(&self, old: &Self) -> Vec<String> {
        let mut found = differences(&Value::Object(old.0.clone()), &Value::Object(self.0.clone()));
        let more = found.len().saturating_sub(NAMED);
        found.truncate(NAMED);
        if more > 0 {
            found.push(format!("and {more} more"));
        }
        found
    }
}

/// One digest of many strings; their bounds count.
pub fn combined<'a>(parts: impl IntoIterator<Item = &'a str>) -> String {
    let mut hasher = blake3::Hasher::new();
    for part in parts {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part.as_bytes());
    }
    hasher.finalize().to_hex().to_string()
}

/// What is another value in `new` than in `old`, in words: `base[0].gain.db: [-15,5] -> [-12,5]`.
pub fn differences(old: &Value, new: &Value) -> Vec<String> {
    let mut found = Vec::new();
    differ("", old, new, &mut found);
    found
}

fn differ(path: &str, old: &Value, new: &Value, found: &mut Vec<String>) {
    match (old, new) {
        (Value::Object(before), Value::Object(after)) => {
            let at = |name: &str| if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
            for (name, value) in after {
                match before.get(name) {
                    Some(earlier) => differ(&at(name), earlier, value, found),
                    None => found.push(format!("{} is new", at(name))),
                }
            }
            found.extend(
                before.keys().filter(|name| !after.contains_key(*name)).map(|n| format!("{} is gone", at(n))),
            );
        }
        (Value::Array(before), Value::Array(after))
            if before.len() == after.len() && after.iter().any(|v| v.is_object() || v.is_array()) =>
        {
            for (i, (earlier, value)) in before.iter().zip(after).enumerate() {
                differ(&format!("{path}[{i}]"), earlier, value, found);
            }
        }
        _ if old == new => {}
        _ => {
            let words = (old.to_string(), new.to_string());
            let digests = path.ends_with("digest") || words.0.len().max(words.1.len()) > SHOWN;
            let place = path.trim_end_matches(".digest");
            found.push(match digests {
                true => format!("{place} changed"),
                false => format!("{place}: {} -> {}", words.0, words.1),
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn recipe(db: [f64; 2], digest: &str) -> Recipe {
        let options =
            json!({ "from": "split", "base": [{ "gain": { "db": db } }, "polarity"], "epochs": "auto" });
        Recipe::new(Kind::Views, 1).options(&options, &["from"]).with("from", json!({ "digest": digest }))
    }

    #[test]
    fn the_reason_names_the_option_and_both_values() {
        let (old, new) = (recipe([-15.0, 5.0], "a"), recipe([-12.0, 5.0], "b"));
        let expected = ["options.base[0].gain.db: [-15.0,5.0] -> [-12.0,5.0]", "from changed"];
        assert_eq!(new.differences(&old), expected);
        assert!(new.differences(&new).is_empty());
        assert_eq!(new.clone().with("seed", 3).differences(&new), ["seed is new"]);
    }

    #[test]
    fn digests_follow_content_and_survive_storage() {
        let recipe = recipe([-15.0, 5.0], "a");
        let stored: Recipe = serde_json::from_str(&serde_json::to_string(&recipe).unwrap()).unwrap();
        assert_eq!(stored.digest(), recipe.digest());
        assert_ne!(recipe.shard(&["ab", "c"]), recipe.shard(&["a", "bc"]));
        assert_ne!(recipe.digest(), recipe.clone().with("seed", 1).digest());
    }
}
