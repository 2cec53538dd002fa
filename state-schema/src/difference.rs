//! Differences between two values, field by field, for people who look before they change.
//!
//! Items of lists are compared by their places. A list that became longer or shorter differs by the
//! items at its end. A set differs by the items that were removed or added: `tags[]`. Values that
//! [`crate::same_value`] calls equal have no difference.
//!
//! Costs O(both values), and O(n log n) for sets and maps of n items. The caller bounds the number
//! of differences.

use crate::path::join;
use crate::sets::{Place, Sets, paired, pairs, same_at, set_difference};
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
pub fn differences(before: &Value, after: &Value, sets: &Sets, max: usize) -> Vec<FieldDifference> {
    let mut found = Vec::new();
    look(String::new(), Some(before), Some(after), &sets.top(), max, &mut found);
    found
}

/// Looks at one place and below.
fn look(
    field: String,
    before: Option<&Value>,
    after: Option<&Value>,
    place: &Place<'_>,
    max: usize,
    found: &mut Vec<FieldDifference>,
) {
    if found.len() >= max || before == after {
        return;
    }
    match (before, after) {
        (Some(b), Some(a)) if pairs(b).is_some() && pairs(a).is_some() => match paired(b, a) {
            Some(all) => all.into_iter().for_each(|(key, before, after)| {
                look(join(&field, &key.to_string()), before, after, &place.below(key.as_str()), max, found);
            }),
            None if same_at(b, a, place) => {}
            None => found.push(FieldDifference { field, before: before.cloned(), after: after.cloned() }),
        },
        (Some(Value::Object(b)), Some(Value::Object(a))) if !is_tagged(b) && !is_tagged(a) => {
            for (name, before) in b {
                let below = place.below(Some(name));
                look(join(&field, name), Some(before), a.get(name), &below, max, found);
            }
            for (name, after) in a.iter().filter(|(name, _)| !b.contains_key(*name)) {
                look(join(&field, name), None, Some(after), &place.below(Some(name)), max, found);
            }
        }
        (Some(Value::Array(b)), Some(Value::Array(a))) if place.is_set() => {
            let (gone, new) = set_difference(b, a, place);
            let field = || format!("{field}[]");
            let gone = gone.into_iter().map(|v| (Some(v), None));
            let all = gone.chain(new.into_iter().map(|v| (None, Some(v)))).take(max - found.len());
            found.extend(all.map(|(before, after)| FieldDifference {
                field: field(),
                before: before.cloned(),
                after: after.cloned(),
            }));
        }
        (Some(Value::Array(b)), Some(Value::Array(a))) => {
            for at in 0..b.len().max(a.len()) {
                look(format!("{field}[{at}]"), b.get(at), a.get(at), &place.item(at), max, found);
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
        let found = differences(&before, &after, &Sets::default(), 100);
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
        assert_eq!(differences(&before, &after, &Sets::default(), 2).len(), 2);
        assert!(differences(&before, &before, &Sets::default(), 9).is_empty());
        assert_eq!(differences(&json!(null), &json!({"a": 1}), &Sets::default(), 9)[0].field, "");
        let text = serde_json::to_string(&found[1]).unwrap();
        assert_eq!(text, r#"{"field":"nick","before":null,"after":"a"}"#);
        assert_eq!(serde_json::from_str::<FieldDifference>(&text).unwrap(), found[1]);
        let new = serde_json::to_string(&found[5]).unwrap();
        assert_eq!(serde_json::from_str::<FieldDifference>(&new).unwrap(), found[5]);
    }

    /// Values that `same_value` calls equal have no difference, and the reverse. A set differs by
    /// its items, and a map by its values.
    #[test]
    fn a_set_differs_by_the_items_that_were_removed_or_added() {
        use crate::json::from_json;
        use crate::same_value::same_value;
        use crate::schema::Schema;
        let set = json!({"type": "array", "uniqueItems": true});
        let schema = Schema::from(json!({"properties": {"tags": set, "rooms": {"additionalProperties":
            {"properties": {"who": set}}}, "list": {"type": "array"}}}));
        let sets = Sets::of(Some(&schema));
        let told = |before: Value, after: Value| {
            let packed = |v: &Value| from_json(v).unwrap();
            let found = differences(&before, &after, &sets, 100);
            let same = same_value(&packed(&before), &packed(&after), Some(&schema));
            assert_eq!(found.is_empty(), same, "{before} {after}");
            found.iter().map(|d| json!([d.field, d.before, d.after]).to_string()).collect::<Vec<_>>()
        };
        assert!(told(json!({"tags": ["a", "b"]}), json!({"tags": ["b", "a"]})).is_empty());
        assert!(
            told(json!({"rooms": {"$map": [[1, 2], [3, 4]]}}), json!({"rooms": {"$map": [[3, 4], [1, 2]]}}))
                .is_empty()
        );
        assert_eq!(
            told(
                json!({"m": {"$map": [[1, {"n": 1}], [3, 4]]}}),
                json!({"m": {"$map": [[5, 0], [1, {"n": 2}]]}})
            ),
            [r#"["m.1.n",1,2]"#, r#"["m.3",4,null]"#, r#"["m.5",null,0]"#]
        );
        let rooms = |who: Value| json!({"rooms": {"x": {"who": who}}, "list": [1, 2]});
        assert!(told(rooms(json!(["ann", "bob"])), rooms(json!(["bob", "ann"]))).is_empty());
        assert_eq!(
            told(rooms(json!(["ann", "bob", "cat"])), rooms(json!(["cat", "dan", "ann"]))),
            [r#"["rooms.x.who[]","bob",null]"#, r#"["rooms.x.who[]",null,"dan"]"#]
        );
        assert_eq!(
            told(json!({"list": [1, 2]}), json!({"list": [2, 1]})),
            [r#"["list[0]",1,2]"#, r#"["list[1]",2,1]"#]
        );
        let many = json!({"tags": (0..9).collect::<Vec<_>>()});
        assert_eq!(differences(&many, &json!({"tags": []}), &sets, 4).len(), 4);
    }
}
