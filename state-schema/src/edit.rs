//! Operators' edits: sets a field of a value by its path, and says why a value can't be stored.
//!
//! The handler's own decoding decides whether a value can be stored. The host has the handler
//! read the value and write it again, and [`objection`] compares the two. A field that the
//! handler does not write back would be lost, so the value is refused.
//!
//! The schema chooses the words of a refusal: a decoder does not say what would be right. It does
//! say where a value is wrong, if the handler is made with the SDK: `field profile.age: …`. The
//! schema is asked about that field alone: some types are stored in another form than the one that
//! their schema describes, such as unit structs and addresses. Only a null in a field that is not
//! known is refused by the schema alone.
//!
//! The loop calls [`set`] and [`objection`] for an edit of single fields. A restore's thread
//! calls [`objection`] for the states and entries of a dump. Neither function stores anything.
//!
//! Costs O(bytes of the value). Lists whose items differ are compared again in any order, which
//! sorts the texts of their items.

use crate::json;
use crate::misfit::{called, is_tagged, misfit, shown};
use crate::path::{FieldPath, join, name_with_dots};
use crate::schema::Schema;
use crate::sets::{Sets, pairs, set_difference, text_at};
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// Says why a value can't be stored, in a sentence; `None`: the value can be stored.
///
/// `kept` is the value (MessagePack) as its handler writes it again, or why the handler can't
/// read it. Everything that was given must be in it; fields that the handler adds are no
/// objection. If there is no schema, a null that the handler leaves out is never an objection.
pub fn objection(given: &Value, kept: Result<&[u8], &str>, schema: Option<&Schema>) -> Option<String> {
    let kept =
        match kept.and_then(|packed| json::to_json(packed).map_err(|_| "what it makes of it is no value")) {
            Err(why) => {
                let of = named_field(why);
                let misfit = schema.and_then(|s| misfit(s, given, &|field, _| is_related(field, of)));
                return Some(
                    misfit.map_or_else(|| format!("its handler can't read it: {why}"), |m| m.in_words()),
                );
            }
            Ok(kept) => kept,
        };
    let lost = lost(given, &kept)?;
    // The schema's words are better only if they speak of the field that was lost.
    let is_lost = |field: &str, unknown| unknown && field == lost.field;
    let known = schema.and_then(|s| misfit(s, given, &is_lost));
    match (known, lost.kept) {
        (Some(misfit), _) => Some(misfit.in_words()),
        // A handler may leave an empty option out when it writes: nothing is lost.
        (None, None) if lost.given.is_null() => None,
        (None, None) => Some(format!("{}: its handler doesn't keep it", called(&lost.field))),
        (None, Some(kept)) => Some(format!(
            "{}: its handler makes {} of {}",
            called(&lost.field),
            shown(kept),
            shown(lost.given)
        )),
    }
}

/// Field that the words of a decoder name; empty: none, or the whole value.
fn named_field(why: &str) -> &str {
    // Words that say what was read may stand in front.
    let behind = || why.split_once(": field ").map(|(_, rest)| rest);
    let named = why.strip_prefix("field ").or_else(behind).and_then(|rest| rest.split_once(": "));
    named.map_or("", |(field, _)| field)
}

/// Whether a field is the one that a decoder names, or in it, or around it.
fn is_related(field: &str, named: &str) -> bool {
    // A decoder writes all names alike, with dots between them.
    let field = field.replace("[\"", ".").replace("\"]", "");
    let field = field.trim_start_matches('.');
    let is_in = |inner: &str, outer: &str| {
        let rest = inner.strip_prefix(outer);
        outer.is_empty() || rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
    };
    is_in(field, named) || is_in(named, field)
}

/// Part of a value that the handler does not write back, or writes differently.
struct Lost<'a> {
    /// Path of the part; empty: the value itself.
    field: String,
    /// Part as the operator gave it.
    given: &'a Value,
    /// Part as the handler writes it; `None`: the handler leaves the part out.
    kept: Option<&'a Value>,
}

/// Finds the first lost part. A lost null is returned only if nothing else is lost. The caller
/// objects to it only if the schema knows no such field.
fn lost<'a>(given: &'a Value, kept: &'a Value) -> Option<Lost<'a>> {
    let mut empty = None;
    lost_at("", given, kept, &mut empty).or(empty)
}

/// Looks for a lost part at one place and below. Lists of the same items count as equal in any
/// order.
///
/// The first null that is not written back goes to `empty`, and the search goes on behind it.
fn lost_at<'a>(
    path: &str,
    given: &'a Value,
    kept: &'a Value,
    empty: &mut Option<Lost<'a>>,
) -> Option<Lost<'a>> {
    if let (Some(given), Some(kept)) = (pairs(given), pairs(kept)) {
        return lost_pair(path, given, kept, empty);
    }
    match (given, kept) {
        // Only given fields are looked up: fields that the handler adds lose nothing.
        (Value::Object(g), Value::Object(k)) => g.iter().find_map(|(name, given)| {
            let field = join(path, name);
            match k.get(name) {
                Some(kept) => lost_at(&field, given, kept, empty),
                None if given.is_null() => {
                    empty.get_or_insert(Lost { field, given, kept: None });
                    None
                }
                None => Some(Lost { field, given, kept: None }),
            }
        }),
        (Value::Array(g), Value::Array(k)) if g.len() == k.len() => {
            let mut pairs = g.iter().zip(k).enumerate();
            let found = pairs.find_map(|(at, (g, k))| lost_at(&format!("{path}[{at}]"), g, k, empty));
            // A handler writes a set in any order. The items are compared by place first, so
            // that the path of a misfit names the right item.
            found.filter(|_| !same_items(g, k))
        }
        _ if same(given, kept) => None,
        _ => Some(Lost { field: path.to_owned(), given, kept: Some(kept) }),
    }
}

/// Looks for a lost part in a map whose keys are no strings. A handler writes its pairs in any
/// order. O(n log n).
fn lost_pair<'a>(
    path: &str,
    given: impl Iterator<Item = (&'a Value, &'a Value)>,
    kept: impl Iterator<Item = (&'a Value, &'a Value)>,
    empty: &mut Option<Lost<'a>>,
) -> Option<Lost<'a>> {
    let sets = Sets::everywhere();
    let text = |key: &Value| text_at(key, &sets.top());
    let kept: BTreeMap<_, _> = kept.map(|(key, value)| (text(key), value)).collect();
    let path = join(path, "$map");
    given.enumerate().find_map(|(at, (key, given))| {
        let field = format!("{path}[{at}][1]");
        match kept.get(&text(key)) {
            Some(kept) => lost_at(&field, given, kept, empty),
            None => Some(Lost { field, given, kept: None }),
        }
    })
}

/// Whether two values are equal for a handler: numbers by their value, all else as JSON. A
/// float may have been kept in 32 bits.
fn same(given: &Value, kept: &Value) -> bool {
    let (Some(g), Some(k)) = (given.as_f64(), kept.as_f64()) else { return given == kept };
    match (given.is_f64(), kept.is_f64()) {
        // Integers are compared exactly: as floats, neighbours above 2^53 would be equal.
        (false, false) => given == kept,
        // A field of 32 bits is written as the float nearest to the given one.
        (true, true) => g == k || f64::from(g as f32) == k,
        _ => g == k,
    }
}

/// Whether two lists hold the same items, in any order and as often. O(n log n) texts.
fn same_items(a: &[Value], b: &[Value]) -> bool {
    let sets = Sets::everywhere();
    let (gone, new) = set_difference(a, b, &sets.top());
    gone.is_empty() && new.is_empty()
}

/// Sets a field of a value: `profile.age`, or `list.2`, where the list's length adds an item.
/// Missing fields and nulls on the way become objects, one for each part. [`crate::path`] has
/// the form.
///
/// Fails if the path has an empty part, spells the name of a field with dots in it, has more parts
/// than a value has levels, or leads into a tag, a plain value or behind a list's end. Fields on
/// the way may have been made then, so the caller drops the value. The error is a sentence. O(bytes
/// of the value) for each part.
pub fn set(value: &mut Value, path: &str, to: Value) -> Result<(), String> {
    let path = FieldPath::parse(path)?;
    let mut at = value;
    let mut so_far = String::new();
    for (place, part) in path.parts().iter().enumerate() {
        // A part of a tag is no field: setting it would change how the rest is read.
        if is_tagged(at) {
            return Err(format!("{} is written with a tag; give all of it", called(&so_far)));
        }
        // An option that holds nothing: the field below belongs to what it will hold.
        if at.is_null() {
            *at = Value::Object(Map::new());
        }
        // The text is made here because the match below borrows the value.
        let found = shown(&*at);
        at = match at {
            Value::Object(fields) => {
                if let Some(name) = name_with_dots(fields, &path.parts()[place..]) {
                    let meant = join(&so_far, &name);
                    return Err(format!("{} has no {part:?}, but {name:?}; write {meant}", called(&so_far)));
                }
                fields.entry(part.as_str()).or_insert(Value::Null)
            }
            Value::Array(items) => {
                let len = items.len();
                let index = part.parse().ok().filter(|i| *i <= len);
                let index: usize = index.ok_or_else(|| {
                    format!("{} is a list of {len}; {part:?} is none of them", called(&so_far))
                })?;
                if index == len {
                    items.push(Value::Null);
                }
                &mut items[index]
            }
            _ => return Err(format!("{} is {found}, which has no field {part:?}", called(&so_far))),
        };
        so_far = join(&so_far, part);
    }
    *at = to;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nesting::{DEPTH_MAX, too_deep};
    use serde_json::json;

    /// Schema with a bounded integer, an option, an alternative, a list and a map.
    fn schema() -> Schema {
        let text = json!({"type": "object", "required": ["count"], "properties": {
            "count": {"type": "integer", "format": "uint64", "minimum": 0},
            "small": {"type": "integer", "format": "uint8", "minimum": 0, "maximum": 255},
            "nick": {"type": ["string", "null"]},
            "mood": {"$ref": "#/$defs/Mood"},
            "profile": {"anyOf": [{"$ref": "#/$defs/Profile"}, {"type": "null"}]},
            "list": {"type": "array", "items": {"type": "integer"}},
            "scores": {"type": "object", "additionalProperties": {"type": "integer"}},
        }, "$defs": {
            "Profile": {"type": "object", "properties": {"age": {"type": "integer"}, "name": {"type": "string"}}},
            "Mood": {"oneOf": [{"type": "string", "enum": ["good", "bad"]}, {"type": "object", "properties":
                {"other": {"type": "string"}}, "required": ["other"], "additionalProperties": false}]},
        }});
        Schema::from(text)
    }

    /// Checks the words for a value that its handler can't read.
    fn refused(given: Value) -> String {
        objection(&given, Err("no"), Some(&schema())).expect("an objection")
    }

    /// Checks the words for a value that its handler writes differently.
    fn said(given: Value, kept: Value) -> Option<String> {
        objection(&given, Ok(&json::from_json(&kept).unwrap()), Some(&schema()))
    }

    /// Each refusal names the place and both types; the handler's words come only if the schema
    /// has none.
    #[test]
    fn the_schema_says_where_and_what() {
        for (given, why) in [
            (json!({"count": "x"}), "field count: expected integer, found \"x\""),
            (
                json!({"cuont": 1}),
                "field cuont: unknown; there are: count, small, nick, mood, profile, list, scores",
            ),
            (json!({"nick": "a"}), "field count: missing; it wants integer"),
            (json!({"count": -1}), "field count: expected integer from 0 to 18446744073709551615, found -1"),
            (json!({"count": 1, "small": 256}), "field small: expected integer from 0 to 255, found 256"),
            (json!({"count": 1, "nick": 5}), "field nick: expected string or null, found 5"),
            (json!({"count": 1, "list": [1, "b"]}), "field list[1]: expected integer, found \"b\""),
            (json!({"count": 1, "scores": {"x": null}}), "field scores.x: expected integer, found null"),
            (json!({"count": 1, "profile": {"aeg": 1}}), "field profile.aeg: unknown; there are: age, name"),
            (json!({"count": 1, "profile": {"age": 1.5}}), "field profile.age: expected integer, found 1.5"),
            (
                json!({"count": 1, "mood": "odd"}),
                "field mood: expected one of \"good\", \"bad\" or object, found \"odd\"",
            ),
            (json!([1]), "the value: expected object, found [1]"),
            // The schema knows nothing against it: the handler's own words.
            (json!({"count": 1, "mood": {"other": "x"}, "profile": null}), "its handler can't read it: no"),
            (json!({"count": 1, "list": {"$b64": "AA=="}}), "its handler can't read it: no"),
        ] {
            assert_eq!(refused(given), why);
        }
    }

    /// A refusal names the field at fault, though another one is stored in a form that its schema
    /// does not describe.
    #[test]
    fn the_field_at_fault_is_named() {
        let schema = Schema::from(json!({"type": "object", "properties": {
            "done": {"type": "null"}, "from": {"type": "string", "format": "ip"}, "odd": {"type": "boolean"},
            "to": {"type": ["string", "null"], "format": "ip"},
            "count": {"type": "integer"}, "deep": {"properties": {"x.y": {"type": "integer"}}},
        }}));
        let given = |field: &str, to: Value| {
            let mut all = json!({"done": [], "from": {"V4": [1, 2, 3, 4]}, "to": {"V4": [1, 2, 3, 4]}, "odd": 1, "count": 1, "deep": {}});
            set(&mut all, field, to).unwrap();
            all
        };
        let said = |given: Value, why: &str| objection(&given, Err(why), Some(&schema)).unwrap();
        // `odd` is stored in a form of its own, and the decoder does not complain of it.
        for (field, to, why, words) in [
            (
                "count",
                json!("x"),
                "its state can't be read: field count: invalid type",
                "field count: expected integer, found \"x\"",
            ),
            (
                "deep[\"x.y\"]",
                json!("x"),
                "field deep.x.y: invalid type",
                "field deep[\"x.y\"]: expected integer, found \"x\"",
            ),
            ("countt", json!(1), "field deep: no", "its handler can't read it: field deep: no"),
        ] {
            assert_eq!(said(given(field, to), why), words);
        }
        // A decoder that names no field leaves the search to the schema: forms that are usual are
        // no misfits.
        let mut without = given("count", json!("x"));
        without["odd"] = json!(true);
        assert_eq!(said(without, "no"), "field count: expected integer, found \"x\"");
        let (with, without) = (given("countt", Value::Null), given("count", json!(1)));
        let found = objection(&with, Ok(&json::from_json(&without).unwrap()), Some(&schema));
        assert!(found.unwrap().starts_with("field countt: unknown; there are: done"));
    }

    /// Maps whose keys are no strings come back in any order, with what is in them.
    #[test]
    fn pairs_come_back_in_any_order() {
        let map = |v: Value| json!({"count": 1, "m": {"$map": v}});
        let kept = map(json!([[2, ["c"]], [1, ["b", "a"]], [3, 0.1f32]]));
        assert_eq!(said(map(json!([[1, ["a", "b"]], [2, ["c"]], [3, 0.1]])), kept.clone()), None);
        let lost = said(map(json!([[1, ["a", "x"]]])), kept).unwrap();
        assert!(lost.starts_with("field m.$map[0][1]"), "{lost}");
    }

    /// A value is stored if all that was given is written back, and refused with the lost place
    /// if not.
    #[test]
    fn nothing_may_be_lost() {
        let fine = [
            (json!({"count": 1}), json!({"count": 1, "more": 2})),
            (json!({"count": 1.0, "f": 0.1}), json!({"f": 0.1f32, "count": 1})),
            (json!({"count": 1, "nick": null}), json!({"count": 1})),
            (
                json!({"count": 1, "set": [3, {"b": 1, "a": 2}]}),
                json!({"count": 1, "set": [{"a": 2, "b": 1}, 3]}),
            ),
        ];
        for (given, kept) in fine {
            assert_eq!(said(given.clone(), kept), None, "{given}");
        }
        for (given, kept, why) in [
            (json!({"count": 1, "x": 2}), json!({"count": 1}), "field x: unknown; there are: count, "),
            (json!({"count": 1, "x": null}), json!({"count": 1}), "field x: unknown; there are: count, "),
            (
                json!({"count": 1, "nick": "a"}),
                json!({"count": 1}),
                "field nick: its handler doesn't keep it",
            ),
            (
                json!({"count": 1, "list": [1, 2, 2]}),
                json!({"count": 1, "list": [1, 2]}),
                "field list: its handler makes [1,2] of [1,2,2]",
            ),
            (
                json!({"count": 1, "list": [1, 2]}),
                json!({"count": 1, "list": [1, 3]}),
                "field list[1]: its handler makes 3 of 2",
            ),
            (
                json!({"count": 9007199254740993u64}),
                json!({"count": 9007199254740992u64}),
                "field count: its handler makes ",
            ),
        ] {
            let found = said(given, kept).expect("an objection");
            assert!(found.starts_with(why), "{found}");
        }
    }

    /// Paths reach fields, options and list items. A path that fails at an existing value
    /// changes nothing.
    #[test]
    fn fields_are_set_by_path() {
        let mut v = json!({"count": 1, "profile": null, "list": [1], "map": {"$map": [[1, 2]]}});
        for (path, to) in
            [("count", json!(2)), ("profile.age", json!(3)), ("list.0", json!(4)), ("list.1", json!(5))]
        {
            set(&mut v, path, to).unwrap();
        }
        assert_eq!(v, json!({"count": 2, "profile": {"age": 3}, "list": [4, 5], "map": {"$map": [[1, 2]]}}));
        let before = v.clone();
        for (path, why) in [
            ("count.x", "field count is 2, which has no field \"x\""),
            ("list.7", "field list is a list of 2; \"7\" is none of them"),
            ("map.1", "field map is written with a tag; give all of it"),
            ("", "\"\" is no path to a field; write it as profile.age, list.0 or tags[\"x.y\"]"),
            ("count.", "\"count.\" is no path to a field; write it as profile.age, list.0 or tags[\"x.y\"]"),
        ] {
            assert_eq!(set(&mut v, path, json!(0)).unwrap_err(), why);
        }
        assert_eq!(v, before);
        let mut dotted = json!({"tags": {"x.y": {"n": 1}}});
        let why = set(&mut dotted, "tags.x.y.n", json!(2)).unwrap_err();
        assert_eq!(why, "field tags has no \"x\", but \"x.y\"; write tags[\"x.y\"]");
        set(&mut dotted, "tags[\"x.y\"].n", json!(2)).unwrap();
        assert_eq!(dotted, json!({"tags": {"x.y": {"n": 2}}}));
        // A path is as deep as a value, and no deeper.
        let path = |parts: usize| vec!["a"; parts].join(".");
        let mut deep = json!({});
        set(&mut deep, &path(DEPTH_MAX - 1), json!(0)).unwrap();
        assert!(json::from_json(&deep).is_ok());
        set(&mut deep, &path(DEPTH_MAX - 1), json!([0])).unwrap();
        assert_eq!(json::from_json(&deep).unwrap_err(), too_deep());
        for parts in [DEPTH_MAX, 32_000] {
            let why = set(&mut json!({}), &path(parts), json!(0)).unwrap_err();
            assert!(why.contains("deeper than 128 levels") && why.len() < 200, "{why}");
        }
    }
}
