//! Schemas of states and values: JSON Schema with its fingerprint.
//!
//! Schemas are those that `schemars` makes: `$ref` into `$defs`, `required`, `default`. One
//! keyword is ours: a field with [`RENAMED_FROM`] was called otherwise in an older schema.
//!
//! A schema is parsed when its build is loaded, and never changes. The fingerprint is made
//! then. Two schemas are compared by that one number first, and stored states are marked with
//! it.
//!
//! No schema is checked against the standard. A keyword that means nothing here is compared as
//! it is.
//!
//! Differences are found in `schema_diff.rs`, values that do not fit in `misfit.rs`, words in
//! `schema_text.rs`.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// Keywords that say nothing about the shape of the data. A difference in them alone is none.
pub(crate) const ANNOTATIONS: [&str; 8] =
    ["title", "description", "default", "examples", "$schema", "$defs", "deprecated", RENAMED_FROM];
/// Keyword with the name that a field had in an older version. Without it, a renaming is a
/// removal and an addition.
pub const RENAMED_FROM: &str = "x-renamed-from";

/// Keywords whose value is a map from names to schemas: the keys in it are no keywords.
const FIELD_MAPS: [&str; 3] = ["properties", "patternProperties", "$defs"];

/// Schema, parsed. Serialized as its JSON alone: the fingerprint is made anew when it is read.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(from = "Value", into = "Value")]
pub struct Schema {
    /// Schema as JSON, in the author's order.
    root: Value,
    /// Hash of the canonical text; see [`Schema::fingerprint`].
    fingerprint: u64,
}

impl From<Value> for Schema {
    fn from(root: Value) -> Schema {
        let mut text = String::new();
        canonical(&root, false, &mut text);
        let fingerprint = text
            .bytes()
            .fold(0xcbf2_9ce4_8422_2325, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3));
        Schema { root, fingerprint }
    }
}

impl From<Schema> for Value {
    fn from(schema: Schema) -> Value {
        schema.root
    }
}

impl Schema {
    /// Reads a schema from its JSON text. Fails only on text that is no JSON.
    pub fn parse(text: &str) -> Result<Schema, serde_json::Error> {
        Ok(serde_json::from_str::<Value>(text)?.into())
    }

    /// Number that is equal for two schemas of the same data: FNV-1a, 64 bits, over the schema
    /// with its keys sorted. Titles, descriptions, examples and `$schema` do not count;
    /// defaults do. The hash is no defence against an author who wants a collision. (Fowler,
    /// Noll, Vo: draft-eastlake-fnv.)
    pub fn fingerprint(&self) -> u64 {
        self.fingerprint
    }

    /// Schema as JSON.
    pub(crate) fn root(&self) -> &Value {
        &self.root
    }
}

/// Writes `v` with sorted keys and without annotations. `names`: its keys are names of fields,
/// not keywords, so a field may be called `title`.
fn canonical(v: &Value, names: bool, out: &mut String) {
    match v {
        Value::Object(map) => {
            out.push('{');
            for (key, value) in map.iter().collect::<BTreeMap<_, _>>() {
                // Defaults stay: a state without the field is read as another value if its
                // default differs.
                if !names && matches!(key.as_str(), "title" | "description" | "$schema" | "examples") {
                    continue;
                }
                out.push_str(key);
                out.push(':');
                match (key.as_str(), value) {
                    // The order in which fields were declared is no difference.
                    ("required", Value::Array(names)) => {
                        let names: BTreeSet<_> = names.iter().filter_map(Value::as_str).collect();
                        out.push_str(&format!("{names:?}"));
                    }
                    _ => canonical(value, !names && FIELD_MAPS.contains(&key.as_str()), out),
                }
                out.push(',');
            }
            out.push('}');
        }
        Value::Array(items) => {
            out.push('[');
            for item in items {
                canonical(item, false, out);
                out.push(',');
            }
            out.push(']');
        }
        other => out.push_str(&other.to_string()),
    }
}

/// Target of a reference, such as `#/$defs/Profile`; `None`: the schema is no reference.
pub(crate) fn reference(v: &Value) -> Option<&str> {
    v.get("$ref")?.as_str()
}

/// Follows references, at most 16 of them, so that a reference to itself ends. A reference that
/// leads nowhere is returned as it is.
pub(crate) fn resolve<'a>(root: &'a Value, mut v: &'a Value) -> &'a Value {
    for _ in 0..16 {
        let target = reference(v).and_then(|r| r.strip_prefix('#')).and_then(|p| root.pointer(p));
        match target {
            Some(t) => v = t,
            None => break,
        }
    }
    v
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Fields called like annotations count.
    #[test]
    fn a_field_may_have_the_name_of_a_keyword() {
        let with = |name: &str| Schema::parse(&format!(r#"{{"properties":{{"{name}":true}}}}"#)).unwrap();
        assert_ne!(with("title").fingerprint(), with("description").fingerprint());
    }

    #[test]
    fn a_fingerprint_ignores_words_and_order() {
        let a = Schema::parse(
            r#"{"title":"A","type":"object","properties":{"x":{"type":"string","description":"d"},"y":{"type":"null"}},"required":["x","y"]}"#,
        );
        let b = Schema::parse(
            r#"{"properties":{"y":{"type":"null"},"x":{"type":"string"}},"required":["y","x"],"type":"object"}"#,
        );
        let c = Schema::parse(
            r#"{"properties":{"y":{"type":"null"},"x":{"type":"integer"}},"required":["y","x"],"type":"object"}"#,
        );
        let (a, b, c) = (a.unwrap(), b.unwrap(), c.unwrap());
        assert_eq!(a.fingerprint(), b.fingerprint());
        assert_ne!(a.fingerprint(), c.fingerprint());
    }
}
