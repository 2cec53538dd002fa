//! Differences between two values of a state, as JSON, by field.
//!
//! Fields of objects and items of lists have the paths that `state set` takes: names and numbers,
//! with dots between them. A list that became longer or shorter differs in the items at its end.

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

/// Returns the fields in which two values differ, in the order of the later one. O(values).
pub fn value_changes(before: &Value, after: &Value) -> Vec<ValueChange> {
    let mut all = Vec::new();
    match compare("", Some(before), Some(after), &mut all) {
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
fn compare(path: &str, a: Option<&Value>, b: Option<&Value>, all: &mut Vec<ValueChange>) -> bool {
    let at = |name: &str| if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
    match (a, b) {
        (a, b) if a == b => true,
        (Some(Value::Object(x)), Some(Value::Object(y))) => {
            let gone = x.keys().filter(|name| !y.contains_key(*name));
            y.keys().chain(gone).all(|name| compare(&at(name), x.get(name), y.get(name), all))
        }
        (Some(Value::Array(x)), Some(Value::Array(y))) => {
            (0..x.len().max(y.len())).all(|n| compare(&at(&n.to_string()), x.get(n), y.get(n), all))
        }
        _ => {
            all.push(ValueChange { field: path.to_owned(), before: a.cloned(), after: b.cloned() });
            all.len() <= NAMED_MAX
        }
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
        let changes = value_changes(&before, &after);
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
        assert!(value_changes(&before, &before).is_empty());
    }

    #[test]
    fn too_many_differences_are_one() {
        let (a, b): (Vec<_>, Vec<_>) = ((0..100).collect(), (1..101).collect());
        let changes = value_changes(&json!(a), &json!(b));
        assert_eq!((changes.len(), changes[0].field.as_str()), (1, ""));
    }
}
