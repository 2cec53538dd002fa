//! Differences between two values, field by field, for people who look before they change.
//!
//! Items of lists are compared by their places. A list that became longer or shorter differs by the
//! items at its end. Costs O(both values); the caller bounds the number of differences.

use crate::path::join;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Field that differs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FieldDifference {
    /// Path of the field; empty: the value itself.
    pub field: String,
    /// Value before; `None`: the field is new.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "present")]
    pub before: Option<Value>,
    /// Value after; `None`: the field is gone.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "present")]
    pub after: Option<Value>,
}

/// Keeps a null apart from a missing value.
mod present {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};
    use serde_json::Value;

    pub(super) fn serialize<S: Serializer>(value: &Option<Value>, to: S) -> Result<S::Ok, S::Error> {
        value.serialize(to)
    }

    pub(super) fn deserialize<'d, D: Deserializer<'d>>(from: D) -> Result<Option<Value>, D::Error> {
        Value::deserialize(from).map(Some)
    }
}

/// Finds the fields that differ, at most `max` of them, in the order of the value before.
pub fn differences(before: &Value, after: &Value, max: usize) -> Vec<FieldDifference> {
    let mut found = Vec::new();
    look(String::new(), Some(before), Some(after), max, &mut found);
    found
}

/// Looks at one place and below.
fn look(
    field: String,
    before: Option<&Value>,
    after: Option<&Value>,
    max: usize,
    found: &mut Vec<FieldDifference>,
) {
    if found.len() >= max || before == after {
        return;
    }
    match (before, after) {
        (Some(Value::Object(b)), Some(Value::Object(a))) if !is_tagged(b) && !is_tagged(a) => {
            for (name, before) in b {
                look(join(&field, name), Some(before), a.get(name), max, found);
            }
            for (name, after) in a.iter().filter(|(name, _)| !b.contains_key(*name)) {
                look(join(&field, name), None, Some(after), max, found);
            }
        }
        (Some(Value::Array(b)), Some(Value::Array(a))) => {
            for at in 0..b.len().max(a.len()) {
                look(format!("{field}[{at}]"), b.get(at), a.get(at), max, found);
            }
        }
        _ => found.push(FieldDifference { field, before: before.cloned(), after: after.cloned() }),
    }
}

/// Whether an object is the tag of a value that JSON lacks.
fn is_tagged(fields: &serde_json::Map<String, Value>) -> bool {
    fields.len() == 1 && fields.keys().all(|k| k.starts_with('$'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn each_field_that_differs_is_named_once() {
        let before =
            json!({"count": 1, "nick": null, "gone": 2, "list": [1, {"a": 1}, 3], "map": {"x.y": 1}});
        let after = json!({"count": 2, "nick": "a", "list": [1, {"a": 2}], "map": {"x.y": 1, "b.c": 0}});
        let found = differences(&before, &after, 100);
        let told: Vec<_> =
            found.iter().map(|d| (d.field.as_str(), d.before.clone(), d.after.clone())).collect();
        let one = |v: Value| Some(v);
        assert_eq!(
            told,
            [
                ("count", one(json!(1)), one(json!(2))),
                ("nick", one(json!(null)), one(json!("a"))),
                ("gone", one(json!(2)), None),
                ("list[1].a", one(json!(1)), one(json!(2))),
                ("list[2]", one(json!(3)), None),
                ("map[\"b.c\"]", None, one(json!(0))),
            ]
        );
        assert_eq!(differences(&before, &after, 2).len(), 2);
        assert!(differences(&before, &before, 9).is_empty());
        assert_eq!(differences(&json!(null), &json!({"a": 1}), 9)[0].field, "");
        let text = serde_json::to_string(&found[1]).unwrap();
        assert_eq!(text, r#"{"field":"nick","before":null,"after":"a"}"#);
        assert_eq!(serde_json::from_str::<FieldDifference>(&text).unwrap(), found[1]);
        let new = serde_json::to_string(&found[5]).unwrap();
        assert_eq!(serde_json::from_str::<FieldDifference>(&new).unwrap(), found[5]);
    }
}
