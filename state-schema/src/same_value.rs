//! Comparison of two stored values of one type, as MessagePack.
//!
//! A map of the standard library is written in an order of its own each time, and a set as well. So
//! the bytes of equal values may differ. Maps are compared in any order. Lists are compared in any
//! order only if the type has a set somewhere: its schema says `uniqueItems`.
//!
//! Costs O(bytes), and O(n log n) for containers of n items whose order differs. Equal bytes cost a
//! comparison of bytes.

use crate::json::unpack;
use crate::schema::Schema;
use rmpv::Value as Pack;
use serde_json::Value as Json;

/// Whether two values of one type are equal. Bytes that are no MessagePack are equal only if they
/// are the same bytes.
pub fn same_value(a: &[u8], b: &[u8], schema: Option<&Schema>) -> bool {
    if a == b {
        return true;
    }
    let (Ok(a), Ok(b)) = (unpack(a), unpack(b)) else { return false };
    let sets = schema.is_some_and(|s| has_sets(s.root()));
    ordered(a, sets) == ordered(b, sets)
}

/// Whether a schema has a set in it. A field of that name counts, too, and does no harm.
pub(crate) fn has_sets(schema: &Json) -> bool {
    match schema {
        Json::Object(map) => map.get("uniqueItems") == Some(&Json::Bool(true)) || map.values().any(has_sets),
        Json::Array(items) => items.iter().any(has_sets),
        _ => false,
    }
}

/// Bytes of a value whose maps are in the order of their keys; lists as well, if there are sets.
fn ordered(value: Pack, sets: bool) -> Vec<u8> {
    let mut out = Vec::new();
    // Writing to memory does not fail.
    let _ = rmpv::encode::write_value(&mut out, &in_order(value, sets));
    out
}

/// Value whose maps are in the order of their keys.
fn in_order(value: Pack, sets: bool) -> Pack {
    // The bytes of an item are its place in the order: they are equal just for equal items.
    let key = |v: &Pack| {
        let mut out = Vec::new();
        let _ = rmpv::encode::write_value(&mut out, v);
        out
    };
    match value {
        Pack::Array(items) => {
            let mut items: Vec<_> = items.into_iter().map(|v| in_order(v, sets)).collect();
            if sets {
                items.sort_by_cached_key(key);
            }
            Pack::Array(items)
        }
        Pack::Map(entries) => {
            let each = |(k, v)| (in_order(k, sets), in_order(v, sets));
            let mut entries: Vec<_> = entries.into_iter().map(each).collect();
            entries.sort_by_cached_key(|(k, _)| key(k));
            Pack::Map(entries)
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json::from_json;
    use serde_json::json;

    /// Maps are equal in any order, lists only where there are sets, and values never if they
    /// differ.
    #[test]
    fn maps_have_no_order() {
        let set = Schema::from(json!({"properties": {"a": {"type": "array", "uniqueItems": true}}}));
        let list = Schema::from(json!({"properties": {"a": {"type": "array"}}}));
        let same = |a: Json, b: Json, schema| {
            same_value(&from_json(&a).unwrap(), &from_json(&b).unwrap(), Some(schema))
        };
        let map = |v: Json| json!({"x": {"$map": v}});
        assert!(same(map(json!([[1, "a"], [2, "b"]])), map(json!([[2, "b"], [1, "a"]])), &list));
        assert!(same(json!({"a": 1, "b": {"c": 2, "d": 3}}), json!({"b": {"d": 3, "c": 2}, "a": 1}), &list));
        assert!(!same(json!({"a": 1, "b": 2}), json!({"a": 2, "b": 1}), &list));
        assert!(!same(json!({"a": 1}), json!({"a": 1, "b": null}), &list));
        assert!(same(json!({"a": [1, 2]}), json!({"a": [2, 1]}), &set));
        assert!(!same(json!({"a": [1, 2]}), json!({"a": [2, 1]}), &list));
        assert!(!same(json!({"a": [1, 1, 2]}), json!({"a": [1, 2, 2]}), &set));
        assert!(!same_value(&[0xc1], &[0xc1, 0], None));
    }
}
