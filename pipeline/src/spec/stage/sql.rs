//! Options of a `sql` stage.

use std::borrow::Cow;
use std::fmt;

use garde::Validate;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{self, Deserializer, MapAccess, Visitor};
use serde::{Deserialize, Serialize};

/// One SELECT over the tables of earlier stages, each under its stage's name.
///
/// In YAML either the query itself or `{query: ...}`.
#[derive(Clone, Debug, PartialEq, Serialize, Validate)]
pub struct Sql {
    /// The SELECT statement.
    #[garde(length(chars, min = 1))]
    pub query: String,
}

const DESCRIPTION: &str = "One SELECT over the tables of earlier stages, each under its stage's name.";
const QUERY: &str = "The SELECT statement.";

impl JsonSchema for Sql {
    fn schema_name() -> Cow<'static, str> {
        "Sql".into()
    }

    fn json_schema(_generator: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": DESCRIPTION,
            "anyOf": [
                { "type": "string", "minLength": 1 },
                {
                    "type": "object",
                    "properties": { "query": { "description": QUERY, "type": "string", "minLength": 1 } },
                    "required": ["query"],
                    "additionalProperties": false,
                },
            ],
        })
    }
}

impl<'de> Deserialize<'de> for Sql {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(SqlVisitor)
    }
}

struct SqlVisitor;

impl<'de> Visitor<'de> for SqlVisitor {
    type Value = Sql;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a SELECT statement")
    }

    fn visit_str<E: de::Error>(self, query: &str) -> Result<Sql, E> {
        Ok(Sql { query: query.to_string() })
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Sql, A::Error> {
        let mut query = None;
        while let Some(key) = map.next_key::<String>()? {
            if key != "query" {
                return Err(de::Error::unknown_field(&key, &["query"]));
            }
            query = Some(map.next_value()?);
        }
        query.map(|query| Sql { query }).ok_or_else(|| de::Error::missing_field("query"))
    }
}
