//! Operators' edits: sets a field of a value by its path, and says why a value can't be stored.
//!
//! The handler's own decoding decides whether a value can be stored. The host has the handler
//! read the value and write it again, and [`objection`] compares the two. A field that the
//! handler does not write back would be lost, so the value is refused.
//!
//! The schema chooses the words of a refusal: a decoder says neither where a value is wrong nor
//! what would be right. Only a null in a field that is not known is refused by the schema
//! alone.
//!
//! The loop calls [`set`] and [`objection`] for an edit of single fields. A restore's thread
//! calls [`objection`] for the states and entries of a dump. Neither function stores anything.
//!
//! Costs O(bytes of the value). Lists whose items differ are compared again in any order, which
//! sorts the texts of their items.

use crate::json;
use crate::nesting::DEPTH_MAX;
use crate::path::{FieldPath, join, name_with_dots};
use crate::schema::{Schema, resolve};
use crate::schema_diff::integer_range;
use crate::schema_text::describe;
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// Characters of a value that a message shows. Longer values end in `…`.
const SHOWN_MAX: usize = 60;

/// Says why a value can't be stored, in a sentence; `None`: the value can be stored.
///
/// `kept` is the value (MessagePack) as its handler writes it again, or why the handler can't
/// read it. Everything that was given must be in it; fields that the handler adds are no
/// objection. If there is no schema, a null that the handler leaves out is never an objection.
pub fn objection(given: &Value, kept: Result<&[u8], &str>, schema: Option<&Schema>) -> Option<String> {
    let misfit = || schema.and_then(|s| misfit(s, given));
    let kept =
        match kept.and_then(|packed| json::to_json(packed).map_err(|_| "what it makes of it is no value")) {
            Err(why) => {
                return Some(
                    misfit().map_or_else(|| format!("its handler can't read it: {why}"), |m| m.in_words()),
                );
            }
            Ok(kept) => kept,
        };
    let lost = lost(given, &kept)?;
    // The schema's words are better only if they speak of the field that was lost.
    let known = misfit().filter(|m| m.unknown && m.field == lost.field);
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

/// Names a field in a message; empty: the value itself.
fn called(field: &str) -> String {
    if field.is_empty() { "the value".to_owned() } else { format!("field {field}") }
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
pub(crate) fn same_items(a: &[Value], b: &[Value]) -> bool {
    let sorted = |all: &[Value]| {
        let mut texts: Vec<_> = all.iter().map(in_order).collect();
        texts.sort_unstable();
        texts
    };
    sorted(a) == sorted(b)
}

/// Text that is the same for equal values, whatever the order of their fields. O(bytes), and
/// allocates as much.
fn in_order(v: &Value) -> String {
    match v {
        Value::Object(map) => {
            let fields: BTreeMap<_, _> = map.iter().map(|(name, v)| (name, in_order(v))).collect();
            format!("{fields:?}")
        }
        Value::Array(items) => format!("{:?}", items.iter().map(in_order).collect::<Vec<_>>()),
        other => other.to_string(),
    }
}

/// Shows a value or a path in a message, cut to [`SHOWN_MAX`] characters.
fn shown(v: impl ToString) -> String {
    let text = v.to_string();
    match text.char_indices().nth(SHOWN_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

/// Reason why a value does not fit a schema. Chooses words; decides nothing.
struct Misfit {
    /// Path of the place; empty: the value itself.
    field: String,
    /// Reason, without the path.
    why: String,
    /// No field has this name. A loss of the same field is reported in these words.
    unknown: bool,
}

impl Misfit {
    /// Describes the reason in a sentence.
    fn in_words(&self) -> String {
        format!("{}: {}", called(&self.field), self.why)
    }
}

/// Finds the first place at which a value does not fit its schema; `None`: the value fits, as
/// far as the schema can tell. Values are compared to the depth of [`DEPTH_MAX`]; everything below
/// fits.
fn misfit(schema: &Schema, value: &Value) -> Option<Misfit> {
    Fitting { root: schema.root() }.node("", schema.root(), value, false, DEPTH_MAX)
}

/// Search for a misfit. Holds no result: each function returns the first misfit below its
/// place.
struct Fitting<'a> {
    /// Whole schema, which references lead into.
    root: &'a Value,
}

impl Fitting<'_> {
    /// Checks a value at one place, and all below. `open`: the schema lists only some of the
    /// fields, as parts of `anyOf` and `allOf` do.
    ///
    /// `depth` is the number of levels left; at 0 all fits. `oneOf` counts as `anyOf`: a value
    /// that fits two alternatives is no misfit.
    fn node(&self, path: &str, schema: &Value, value: &Value, open: bool, depth: usize) -> Option<Misfit> {
        let schema = resolve(self.root, schema);
        let wrong = |why: String| Some(Misfit { field: path.to_owned(), why, unknown: false });
        let expected = || wrong(format!("expected {}, found {}", describe(self.root, schema), shown(value)));
        // Data that JSON can't express is the handler's to judge: the schema describes its
        // plain form.
        let map = schema.as_object().filter(|_| depth > 0 && !is_tagged(value))?;
        if let Some(choices) = map.get("enum").and_then(Value::as_array)
            && !choices.contains(value)
        {
            return expected();
        }
        if map.get("const").is_some_and(|only| only != value) {
            return expected();
        }
        let list = |key| map.get(key).and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
        for choices in [list("anyOf"), list("oneOf")].into_iter().filter(|c| !c.is_empty()) {
            let fits = |choice: &&Value| self.node(path, choice, value, true, depth - 1).is_none();
            let is_null = |choice: &&Value| choice.get("type").is_some_and(|t| t == "null");
            let some: Vec<_> = choices.iter().filter(|c| !is_null(c)).collect();
            match some[..] {
                // An option: a misfit inside the type that it holds says more than "expected A
                // or null".
                [only] if !value.is_null() => {
                    if let Some(misfit) = self.node(path, only, value, open, depth - 1) {
                        return Some(misfit);
                    }
                }
                _ if !choices.iter().any(|c| fits(&c)) => return expected(),
                _ => {}
            }
        }
        for part in list("allOf") {
            if let Some(misfit) = self.node(path, part, value, true, depth - 1) {
                return Some(misfit);
            }
        }
        let types: Vec<&str> = match map.get("type") {
            Some(Value::String(one)) => vec![one],
            Some(Value::Array(some)) => some.iter().filter_map(Value::as_str).collect(),
            _ => Vec::new(),
        };
        if !types.is_empty() && !types.iter().any(|t| is_of(value, t)) {
            return expected();
        }
        if let Some(range) = out_of_range(map, value) {
            return wrong(format!("expected {range}, found {}", shown(value)));
        }
        match value {
            Value::Object(fields) => self.fields(path, map, fields, open, depth),
            Value::Array(items) => {
                let first = list("prefixItems");
                let of = |at: usize| first.get(at).or_else(|| map.get("items"));
                let mut items = items.iter().enumerate();
                items.find_map(|(at, v)| self.node(&format!("{path}[{at}]"), of(at)?, v, false, depth - 1))
            }
            _ => None,
        }
    }

    /// Checks the fields of an object.
    fn fields(
        &self,
        path: &str,
        schema: &Map<String, Value>,
        fields: &Map<String, Value>,
        open: bool,
        depth: usize,
    ) -> Option<Misfit> {
        let none = Map::new();
        let known = schema.get("properties").and_then(Value::as_object);
        let others = schema.get("additionalProperties");
        // Alternatives beside `properties` have fields of their own, so an unlisted name proves
        // nothing.
        let parts = ["patternProperties", "anyOf", "oneOf", "allOf"].iter().any(|k| schema.contains_key(*k));
        // A schema without `additionalProperties` allows other fields by the letter. A search
        // begins only after the handler failed or lost a field, so an unlisted name is the
        // likely reason.
        let all =
            !open && !parts && (others == Some(&Value::Bool(false)) || (others.is_none() && known.is_some()));
        let known = known.unwrap_or(&none);
        // Unknown names come before missing ones: a misspelt field is both, and the spelling is
        // the error.
        if let Some(name) = fields.keys().find(|name| all && !known.contains_key(*name)) {
            let names: Vec<_> = known.keys().map(String::as_str).collect();
            let why = match names[..] {
                [] => "unknown; there are no fields".to_owned(),
                _ => format!("unknown; there are: {}", names.join(", ")),
            };
            return Some(Misfit { field: join(path, name), why, unknown: true });
        }
        let required = schema.get("required").and_then(Value::as_array).into_iter().flatten();
        let missing = required.filter_map(Value::as_str).find(|name| !fields.contains_key(*name));
        if let Some(name) = missing {
            let kind = known.get(name).map_or("anything".to_owned(), |s| describe(self.root, s));
            let why = format!("missing; it wants {kind}");
            return Some(Misfit { field: join(path, name), why, unknown: false });
        }
        fields.iter().find_map(|(name, v)| {
            // Beside alternatives, `additionalProperties` would also judge the fields that they
            // list.
            let schema = known.get(name).or(others.filter(|_| !parts))?;
            self.node(&join(path, name), schema, v, false, depth - 1)
        })
    }
}

/// Whether a value is a tag of [`crate::json`]: an object with one key, which begins with `$`.
fn is_tagged(v: &Value) -> bool {
    v.as_object().is_some_and(|m| m.len() == 1 && m.keys().all(|k| k.starts_with('$')))
}

/// Whether a value is of a JSON type that a schema names. A type that is not known fits all
/// values. 1.0 is no integer.
fn is_of(v: &Value, kind: &str) -> bool {
    match kind {
        "null" => v.is_null(),
        "boolean" => v.is_boolean(),
        "integer" => v.is_i64() || v.is_u64(),
        "number" => v.is_number(),
        "string" => v.is_string(),
        "array" => v.is_array(),
        "object" => v.is_object(),
        _ => true,
    }
}

/// Finds the range of integers that a value is outside of. The schema's bounds and those of its
/// format apply together. `None`: the value is inside, or no integer.
fn out_of_range(schema: &Map<String, Value>, value: &Value) -> Option<String> {
    // 128 bits hold every `i64` and `u64`, so no comparison overflows.
    let n = value.as_i64().map(i128::from).or_else(|| value.as_u64().map(i128::from))?;
    let bound =
        |key| schema.get(key).and_then(|v: &Value| v.as_i64().map(i128::from).or(v.as_u64().map(i128::from)));
    let (low, high) = schema.get("format").and_then(Value::as_str).and_then(integer_range).unzip();
    let (low, high) = (bound("minimum").max(low), bound("maximum").into_iter().chain(high).min());
    if low.is_none_or(|low| low <= n) && high.is_none_or(|high| n <= high) {
        return None;
    }
    Some(match (low, high) {
        (Some(low), Some(high)) => format!("integer from {low} to {high}"),
        (Some(low), None) => format!("integer from {low}"),
        (_, high) => format!("integer up to {}", high.unwrap_or_default()),
    })
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
    use crate::nesting::too_deep;
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
