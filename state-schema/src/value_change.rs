//! Differences between two values of a state, as JSON, by field.
//!
//! Fields of objects and items of lists have the paths that `state set` takes: names and numbers,
//! with dots between them. A list that became longer or shorter differs in the items at its end. A
//! set differs in the items that were removed or added, each at `tags[]`. Values that
//! [`crate::same_value`] calls equal do not differ.

use crate::sets::{Place, Sets, paired, pairs, same_at, set_difference};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

/// Differences that are named at most. Of more, the rest is one difference at the path of both
/// values.
const NAMED_MAX: usize = 64;

/// Field that differs in two values.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ValueChange {
    /// Path of the field; empty: the value itself.
    pub field: String,
    /// The field before; none: it was not there.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub before: Option<Value>,
    /// The field after; none: it is not there.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub after: Option<Value>,
}

/// Reads a value that is there. `null` is a value.
pub fn present<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(from).map(Some)
}

/// Returns the fields in which two values differ, in the order of the later one. O(values), and
/// O(n log n) for sets and maps of n items.
pub fn value_changes(before: &Value, after: &Value, sets: &Sets) -> Vec<ValueChange> {
    let mut all = Vec::new();
    match compare("", Some(before), Some(after), &sets.top(), &mut all) {
        true => all,
        false => {
            vec![ValueChange {
                field: String::new(),
                before: Some(before.clone()),
                after: Some(after.clone()),
            }]
        }
    }
}

/// Adds the differences at a path. False: there are too many.
fn compare(
    path: &str,
    a: Option<&Value>,
    b: Option<&Value>,
    place: &Place<'_>,
    all: &mut Vec<ValueChange>,
) -> bool {
    let at = |name: &str| if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
    let mut add = |field: &str, a: Option<&Value>, b: Option<&Value>| {
        all.push(ValueChange { field: field.to_owned(), before: a.cloned(), after: b.cloned() });
        all.len() <= NAMED_MAX
    };
    match (a, b) {
        (a, b) if a == b => true,
        (Some(a), Some(b)) if pairs(a).is_some() && pairs(b).is_some() => match paired(a, b) {
            Some(all_pairs) => all_pairs
                .into_iter()
                .all(|(key, x, y)| compare(&at(&key.to_string()), x, y, &place.below(key.as_str()), all)),
            None => same_at(a, b, place) || add(path, Some(a), Some(b)),
        },
        (Some(Value::Object(x)), Some(Value::Object(y))) => {
            let gone = x.keys().filter(|name| !y.contains_key(*name));
            let mut names = y.keys().chain(gone);
            names.all(|name| compare(&at(name), x.get(name), y.get(name), &place.below(Some(name)), all))
        }
        (Some(Value::Array(x)), Some(Value::Array(y))) if place.is_set() => {
            let (gone, new) = set_difference(x, y, place);
            let field = format!("{path}[]");
            gone.into_iter().all(|v| add(&field, Some(v), None))
                && new.into_iter().all(|v| add(&field, None, Some(v)))
        }
        (Some(Value::Array(x)), Some(Value::Array(y))) => (0..x.len().max(y.len()))
            .all(|n| compare(&at(&n.to_string()), x.get(n), y.get(n), &place.item(n), all)),
        _ => add(path, a, b),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn fields_are_named_by_their_paths() {
        let before =
            json!({"n": 1, "same": [1, 2], "list": [{"a": 1}, 2], "old": null, "who": {"nick": "ann"}});
        let after = json!({"n": 2, "same": [1, 2], "list": [{"a": 3}], "who": {"nick": "ann", "age": 7}});
        let changes = value_changes(&before, &after, &Sets::default());
        let told: Vec<_> =
            changes.iter().map(|c| json!([c.field, c.before, c.after])).map(|c| c.to_string()).collect();
        let expected = [
            r#"["n",1,2]"#,
            r#"["list.0.a",1,3]"#,
            r#"["list.1",2,null]"#,
            r#"["who.age",null,7]"#,
            r#"["old",null,null]"#,
        ];
        assert_eq!(told, expected);
        assert_eq!(changes[4].before, Some(Value::Null));
        assert!(value_changes(&before, &before, &Sets::default()).is_empty());
    }

    #[test]
    fn too_many_differences_are_one() {
        let (a, b): (Vec<_>, Vec<_>) = ((0..100).collect(), (1..101).collect());
        let changes = value_changes(&json!(a), &json!(b), &Sets::default());
        assert_eq!((changes.len(), changes[0].field.as_str()), (1, ""));
    }

    #[test]
    fn a_set_changes_by_its_items() {
        let sets: Sets = serde_json::from_value(json!(["tags"])).unwrap();
        let (a, b) = (json!({"tags": ["a", "b"]}), json!({"tags": ["b", "a"]}));
        assert!(value_changes(&a, &b, &sets).is_empty());
        let changes = value_changes(&a, &json!({"tags": ["c", "a"]}), &sets);
        let told: Vec<_> = changes.iter().map(|c| json!([c.field, c.before, c.after])).collect();
        assert_eq!(told, [json!(["tags[]", "b", null]), json!(["tags[]", null, "c"])]);
    }
}
