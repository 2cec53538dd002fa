//! Comparison of two stored values of one type, as MessagePack.
//!
//! A map of the standard library is written in an order of its own each time, and a set as well. So
//! the bytes of equal values may differ. Maps are compared in any order, and lists at the places
//! of sets ([`crate::sets`]).
//!
//! Costs O(bytes), and O(n log n) for containers of n items whose order differs. Equal bytes cost a
//! comparison of bytes.

use crate::json::unpack;
use crate::schema::Schema;
use crate::sets::{Place, Sets};
use rmpv::Value as Pack;

/// Whether two values of one type are equal. Bytes that are no MessagePack are equal only if they
/// are the same bytes.
pub fn same_value(a: &[u8], b: &[u8], schema: Option<&Schema>) -> bool {
    a == b || same_with_sets(a, b, &Sets::of(schema))
}

/// Whether two values are equal, as [`same_value`] has it, if the sets of their type are known.
pub fn same_with_sets(a: &[u8], b: &[u8], sets: &Sets) -> bool {
    if a == b {
        return true;
    }
    let (Ok(a), Ok(b)) = (unpack(a), unpack(b)) else { return false };
    bytes_of(&in_order(a, &sets.top())) == bytes_of(&in_order(b, &sets.top()))
}

/// Bytes of a value. They are equal just for equal values, and so are the order of items, too.
fn bytes_of(value: &Pack) -> Vec<u8> {
    let mut out = Vec::new();
    // Writing to memory does not fail.
    let _ = rmpv::encode::write_value(&mut out, value);
    out
}

/// Value whose maps are in the order of their keys, and whose sets are in the order of their items.
fn in_order(value: Pack, place: &Place<'_>) -> Pack {
    match value {
        Pack::Array(items) => {
            let each = items.into_iter().enumerate();
            let mut items: Vec<_> = each.map(|(at, v)| in_order(v, &place.item(at))).collect();
            if place.is_set() {
                items.sort_by_cached_key(bytes_of);
            }
            Pack::Array(items)
        }
        Pack::Map(entries) => {
            let each = |(k, v): (Pack, Pack)| {
                let below = place.below(k.as_str());
                (in_order(k, &place.below(None)), in_order(v, &below))
            };
            let mut entries: Vec<_> = entries.into_iter().map(each).collect();
            entries.sort_by_cached_key(|(k, _)| bytes_of(k));
            Pack::Map(entries)
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json::from_json;
    use serde_json::{Value as Json, json};

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
        // A list beside a set keeps its order.
        assert!(!same(json!({"a": [1, 2], "b": [1, 2]}), json!({"a": [1, 2], "b": [2, 1]}), &set));
        assert!(!same(json!({"a": [1, 2]}), json!({"a": [2, 1]}), &list));
        assert!(!same(json!({"a": [1, 1, 2]}), json!({"a": [1, 2, 2]}), &set));
        assert!(!same_value(&[0xc1], &[0xc1, 0], None));
    }
}
