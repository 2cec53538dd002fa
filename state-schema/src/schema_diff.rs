//! Differences between two schemas, field by field, and which reader can still read which data.
//!
//! Both schemas are walked together, from the root down. The result depends on the schemas
//! alone; no data is read. A change without a rule of its own counts as another type, which
//! needs a migration.
//!
//! | change | new reader, old data | old reader, new data | same version |
//! | --- | --- | --- | --- |
//! | added, with a default | reads | reads, unless strict | allowed |
//! | added, without one | fails | reads, unless strict | refused |
//! | removed | reads, unless strict | reads, if it was optional | refused |
//! | default lost | fails | reads | refused |
//! | renamed | fails | fails | refused |
//! | widened | reads | fails | refused |
//! | another type | fails | fails | refused |
//!
//! A reader is strict if its schema says `additionalProperties: false`.
//!
//! Types may contain themselves, so a pair of types that are referred to is compared once.
//! Differences in such a type are reported at the first path that leads to it. Keywords without a
//! rule are compared as a whole, to a depth of 5 levels; a difference below is not reported.
//!
//! Callers: the judge of a reload (`compatibility.rs`) and the report of a rehearsal
//! (`rehearsal_report.rs`). Neither is on the path of a message, so nothing here is tuned.

use crate::schema::{ANNOTATIONS, RENAMED_FROM, Schema, reference, resolve};
use crate::schema_text::{describe, shape};
use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// Depth to which keywords that have no rule of their own are compared, in levels: types may
/// contain themselves.
const DEPTH_MAX: usize = 5;

/// Keywords with a rule of their own: the schemas in them are compared one by one, so that a
/// difference has a path.
const NESTED: [&str; 9] = [
    "properties",
    "patternProperties",
    "required",
    "items",
    "additionalProperties",
    "anyOf",
    "oneOf",
    "allOf",
    "prefixItems",
];

/// Field that differs. A change below it is a difference of its own.
#[derive(Debug, Clone, PartialEq)]
pub struct Difference {
    /// Path from the state's root: `profile.age`, `items[]` for each item, `scores{}` for each
    /// value of a map; empty: the state itself.
    pub field: String,
    /// Kind of the difference.
    pub change: Change,
    /// Readers of the new schema can read what was written under the old one.
    pub backward: bool,
    /// Readers of the old schema can read what is written under the new one.
    pub forward: bool,
}

/// Kinds of differences.
#[derive(Debug, Clone, PartialEq)]
pub enum Change {
    /// New, with the value that states without the field get: its default, or null.
    Added(Value),
    /// New and required, so a state without the field can't be read. Holds its type in words.
    AddedWithoutDefault(String),
    /// Gone, and its data would be lost. Holds its type in words.
    Removed(String),
    /// Required now, so that stored states may lack the field. Holds its type in words.
    DefaultLost(String),
    /// Renamed. Holds the old name.
    Renamed(String),
    /// Another type that holds every value of the old one: the old and the new one in words.
    Widened(String, String),
    /// Another type: the old and the new one in words. Only a migration leads from one to the
    /// other.
    Retyped(String, String),
}

impl Change {
    /// Whether a build may bring this change without raising its state version: only a new
    /// field with a default. A widened field needs a version too: the previous build can't read
    /// its new values, and the version tells them apart.
    pub fn is_compatible(&self) -> bool {
        matches!(self, Change::Added(_))
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.field.as_str() {
            "" => f.write_str("the state")?,
            field => write!(f, "field {field}")?,
        }
        match &self.change {
            Change::Added(default) => write!(f, ": added, default {default}"),
            Change::AddedWithoutDefault(kind) => write!(f, ": added ({kind}) without a default"),
            Change::Removed(kind) => write!(f, ": removed (was {kind})"),
            Change::DefaultLost(kind) => write!(f, ": lost its default ({kind})"),
            Change::Renamed(was) => write!(f, ": renamed, was {was}"),
            Change::Widened(old, new) => write!(f, ": widened, {old} -> {new}"),
            Change::Retyped(old, new) => write!(f, ": {old} -> {new}"),
        }
    }
}

impl Schema {
    /// Compares this schema with `new`. Differences come in the order of field names. Empty: no
    /// difference was found. O(fields²) for each object.
    pub fn differences(&self, new: &Schema) -> Vec<Difference> {
        let mut compare =
            Compare { old_root: self.root(), new_root: new.root(), seen: BTreeSet::new(), found: Vec::new() };
        compare.node("", self.root(), new.root());
        compare.found
    }
}

/// Comparison under way. Each method appends what it finds below its place.
struct Compare<'a> {
    /// Whole old schema, which the old side's references lead into.
    old_root: &'a Value,
    /// Whole new schema.
    new_root: &'a Value,
    /// Pairs of types already compared, old and new, at least one of which was referred to. The
    /// places of types, so each walk ends: a schema has only so many.
    seen: BTreeSet<(*const Value, *const Value)>,
    /// Differences so far, in the order of the walk.
    found: Vec<Difference>,
}

impl<'a> Compare<'a> {
    /// Notes a difference, with whether new readers read old data, and old readers new data.
    fn push(&mut self, field: &str, change: Change, backward: bool, forward: bool) {
        self.found.push(Difference { field: field.to_owned(), change, backward, forward });
    }

    /// Compares two schemas of the data at `path`. Recurses into fields, items, maps and
    /// alternatives; a pair of types that are referred to is compared once. If the type itself
    /// differs, nothing below it is compared.
    fn node(&mut self, path: &str, old: &'a Value, new: &'a Value) {
        let referred = reference(old).is_some() || reference(new).is_some();
        let (old, new) = (resolve(self.old_root, old), resolve(self.new_root, new));
        // The pair is known by the places of both types, not by the references: one side may have
        // written the type out where the other refers to it.
        if referred && !self.seen.insert((std::ptr::from_ref(old), std::ptr::from_ref(new))) {
            return;
        }
        // A schema may also be `true` or `false`: anything, or nothing.
        let (Value::Object(o), Value::Object(n)) = (old, new) else {
            if old != new {
                self.retyped(path, old, new);
            }
            return;
        };
        // `type`, `format`, bounds, `enum` and all else that has no rule.
        if own_keywords(self.old_root, o) != own_keywords(self.new_root, n) {
            return match widens(o, n) {
                true => {
                    let (old, new) = self.both(old, new);
                    self.push(path, Change::Widened(old, new), true, false);
                }
                false => self.retyped(path, old, new),
            };
        }
        // Alternatives are matched by their places: another order or number counts as another
        // type.
        for key in ["anyOf", "oneOf", "allOf", "prefixItems"] {
            let list = |m: &'a Map<String, Value>| {
                m.get(key).and_then(Value::as_array).map_or(&[][..], Vec::as_slice)
            };
            let (a, b) = (list(o), list(n));
            if a.len() != b.len() {
                return self.retyped(path, old, new);
            }
            for (a, b) in a.iter().zip(b) {
                self.node(path, a, b);
            }
        }
        // A keyword on one side only changes which data is allowed, so that is another type as
        // well.
        for (key, mark) in [("items", "[]"), ("additionalProperties", "{}")] {
            match (o.get(key), n.get(key)) {
                (None, None) => {}
                (Some(a), Some(b)) => self.node(&format!("{path}{mark}"), a, b),
                _ => return self.retyped(path, old, new),
            }
        }
        let patterns = |m: &'a Map<String, Value>| -> BTreeMap<&'a str, &'a Value> {
            let map = m.get("patternProperties").and_then(Value::as_object);
            map.into_iter().flatten().map(|(k, v)| (k.as_str(), v)).collect()
        };
        let (a, b) = (patterns(o), patterns(n));
        if !a.keys().eq(b.keys()) {
            return self.retyped(path, old, new);
        }
        // A pattern can't stand in a path: its fields have the mark of a map's values.
        for (a, b) in a.into_values().zip(b.into_values()) {
            self.node(&format!("{path}{{}}"), a, b);
        }
        self.fields(path, o, n);
    }

    /// Compares the fields of two objects: those of either, in the order of their names.
    fn fields(&mut self, path: &str, old: &'a Map<String, Value>, new: &'a Map<String, Value>) {
        let fields = |m: &'a Map<String, Value>| -> BTreeMap<&'a str, &'a Value> {
            let map = m.get("properties").and_then(Value::as_object);
            map.into_iter().flatten().map(|(k, v)| (k.as_str(), v)).collect()
        };
        let required = |m: &Map<String, Value>, name: &str| {
            let names = m.get("required").and_then(Value::as_array);
            names.is_some_and(|r| r.iter().any(|n| n == name))
        };
        let (a, b) = (fields(old), fields(new));
        // A reader that allows no other fields can't read data with more of them.
        let strict = |m: &Map<String, Value>| m.get("additionalProperties") == Some(&Value::Bool(false));
        let (old_strict, new_strict) = (strict(old), strict(new));
        let was = |n: &'a Value| n.get(RENAMED_FROM).and_then(Value::as_str);
        // The removal of a renamed field is part of the renaming.
        let is_renamed = |name: &str| b.iter().any(|(new, n)| !a.contains_key(new) && was(n) == Some(name));
        for &name in a.keys().chain(b.keys()).collect::<BTreeSet<_>>() {
            let at = if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
            match (a.get(name), b.get(name)) {
                (Some(_), None) if is_renamed(name) => {}
                (Some(o), None) => {
                    let kind = describe(self.old_root, o);
                    self.push(&at, Change::Removed(kind), !new_strict, !required(old, name));
                }
                (None, Some(n)) if was(n).is_some_and(|was| a.contains_key(was) && !b.contains_key(was)) => {
                    let was = was(n).unwrap_or_default();
                    self.push(&at, Change::Renamed(was.to_owned()), false, false);
                    // A field may change its name and its type in one version.
                    self.node(&at, a[was], n);
                }
                (None, Some(n)) if required(new, name) => {
                    let kind = describe(self.new_root, n);
                    self.push(&at, Change::AddedWithoutDefault(kind), false, !old_strict);
                }
                (None, Some(n)) => {
                    // An optional field without a default is taken for an option: null in data
                    // without it.
                    let default = n.get("default").cloned().unwrap_or(Value::Null);
                    self.push(&at, Change::Added(default), true, !old_strict);
                }
                (Some(o), Some(n)) => {
                    let before = self.found.len();
                    self.node(&at, o, n);
                    // If a version is needed anyway, a lost default is no news. Fields that were
                    // added below it need none, and the data without this field can't be read.
                    let fine = self.found[before..].iter().all(|d| d.change.is_compatible());
                    if fine && required(new, name) && !required(old, name) {
                        let kind = describe(self.new_root, n);
                        self.push(&at, Change::DefaultLost(kind), false, true);
                    }
                }
                (None, None) => {}
            }
        }
    }

    /// Notes another type at a place. Only a migration leads from one to the other.
    fn retyped(&mut self, path: &str, old: &Value, new: &Value) {
        let (old, new) = self.both(old, new);
        self.push(path, Change::Retyped(old, new), false, false);
    }

    /// Describes both types in words that differ, so that a message does not say `A -> A`.
    fn both(&self, old: &Value, new: &Value) -> (String, String) {
        let (a, b) = (describe(self.old_root, old), describe(self.new_root, new));
        if a != b {
            return (a, b);
        }
        let format = |v: &Value| Some(v.get("format")?.as_str()?.to_owned());
        match (format(old), format(new)) {
            (Some(a), Some(b)) if a != b => (a, b),
            // Show the whole of what differs.
            _ => (shape(old), shape(new)),
        }
    }
}

/// Keywords of a schema that have no rule of their own, with all that they refer to, to the
/// depth of [`DEPTH_MAX`]. They are compared as a whole.
fn own_keywords(root: &Value, m: &Map<String, Value>) -> BTreeMap<String, Value> {
    let compared = |k: &str| ANNOTATIONS.contains(&k) || NESTED.contains(&k) || k == "$ref";
    let own = m.iter().filter(|(k, _)| !compared(k));
    own.map(|(k, v)| (k.clone(), expand(root, v, DEPTH_MAX))).collect()
}

/// Whether every value of a plain type is one of the other's: a number of more bits, or a value
/// that may be null. A schema with several types besides null never widens.
fn widens(old: &Map<String, Value>, new: &Map<String, Value>) -> bool {
    let Some((mut old_types, mut new_types)) = types(old).zip(types(new)) else { return false };
    if !old_types.remove("null") || new_types.contains("null") {
        new_types.remove("null");
    } else {
        return false;
    }
    if [&old_types, &new_types].iter().any(|t| t.len() != 1) {
        return false;
    }
    // Bounds follow from the format; any other keyword must be the same.
    let rest = |m: &Map<String, Value>| -> BTreeMap<String, Value> {
        let follows = ["type", "format", "minimum", "maximum"];
        let own =
            m.iter().filter(|(k, _)| !ANNOTATIONS.contains(&k.as_str()) && !follows.contains(&k.as_str()));
        own.map(|(k, v)| (k.clone(), v.clone())).collect()
    };
    let bounds = |m: &Map<String, Value>| (m.get("minimum").cloned(), m.get("maximum").cloned());
    let format = |m: &Map<String, Value>| m.get("format").and_then(Value::as_str).map(str::to_owned);
    if rest(old) != rest(new) {
        return false;
    }
    let same = old_types == new_types && format(old) == format(new) && bounds(old) == bounds(new);
    same || match (format(old).as_deref(), format(new).as_deref()) {
        (Some("float"), Some("double")) => true,
        // A double holds every integer up to 2^53 exactly: those of 32 bits, but not of 64.
        (Some(a), Some("double")) => {
            integer_range(a).is_some_and(|(low, high)| low >= -(1 << 53) && high <= 1 << 53)
        }
        (Some(a), Some(b)) => match (integer_range(a), integer_range(b)) {
            (Some(a), Some(b)) => b.0 <= a.0 && a.1 <= b.1,
            _ => false,
        },
        _ => false,
    }
}

/// Names of a schema's JSON types; `None`: the schema names none.
fn types(m: &Map<String, Value>) -> Option<BTreeSet<&str>> {
    match m.get("type")? {
        Value::String(one) => Some([one.as_str()].into()),
        Value::Array(some) => Some(some.iter().filter_map(Value::as_str).collect()),
        _ => None,
    }
}

/// Range of an integer format of `schemars`, from `uint8` to `int64`, both ends included.
/// `None`: another format, or more than 64 bits.
pub(crate) fn integer_range(format: &str) -> Option<(i128, i128)> {
    let (signed, bits) = match (format.strip_prefix("uint"), format.strip_prefix("int")) {
        (Some(bits), _) => (false, bits),
        (None, Some(bits)) => (true, bits),
        _ => return None,
    };
    // Without a number it is the machine's own.
    let bits: u32 =
        if bits.is_empty() { usize::BITS } else { bits.parse().ok().filter(|b| (1..=64).contains(b))? };
    Some(match signed {
        true => (-(1 << (bits - 1)), (1 << (bits - 1)) - 1),
        false => (0, (1 << bits) - 1),
    })
}

/// Schema with its references replaced by what they refer to, without annotations. Below
/// `depth` levels all is null.
fn expand(root: &Value, v: &Value, depth: usize) -> Value {
    if depth == 0 {
        return Value::Null;
    }
    match resolve(root, v) {
        Value::Object(map) => {
            let kept = map.iter().filter(|(k, _)| !ANNOTATIONS.contains(&k.as_str()));
            kept.map(|(k, v)| (k.clone(), expand(root, v, depth - 1))).collect()
        }
        Value::Array(items) => items.iter().map(|i| expand(root, i, depth - 1)).collect(),
        other => other.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schema(properties: &str, required: &str) -> Schema {
        Schema::parse(&format!(
            r##"{{"$schema":"x","title":"T","type":"object","properties":{{{properties}}},"required":[{required}],
            "$defs":{{"P":{{"type":"object","properties":{{"age":{{"type":"integer"}},"self":{{"$ref":"#/$defs/P"}}}},"required":["age"]}},
                     "Q":{{"type":"object","properties":{{"age":{{"type":"string"}},"self":{{"$ref":"#/$defs/Q"}}}},"required":["age"]}}}}}}"##
        ))
        .unwrap()
    }

    #[track_caller]
    fn check(old: (&str, &str), new: (&str, &str), expected: &[&str]) {
        let (old, new) = (schema(old.0, old.1), schema(new.0, new.1));
        let found: Vec<_> = old.differences(&new).iter().map(ToString::to_string).collect();
        assert_eq!(found, expected);
        assert!(old.differences(&old).is_empty());
    }

    const COUNT: &str = r#""count":{"type":"integer","format":"uint64","minimum":0}"#;

    #[test]
    fn names_the_field_and_both_types() {
        check(
            (COUNT, r#""count""#),
            (r#""count":{"type":"string"}"#, r#""count""#),
            &["field count: integer -> string"],
        );
        check((COUNT, r#""count""#), ("", ""), &["field count: removed (was integer)"]);
        check(("", ""), (COUNT, r#""count""#), &["field count: added (integer) without a default"]);
        check(
            ("", ""),
            (r#""tags":{"type":"array","items":{"type":"string"},"default":["a"]}"#, ""),
            &[r#"field tags: added, default ["a"]"#],
        );
        check(("", ""), (r#""nick":{"type":["string","null"]}"#, ""), &["field nick: added, default null"]);
        check((COUNT, ""), (COUNT, r#""count""#), &["field count: lost its default (integer)"]);
    }

    #[test]
    fn tells_widths_of_integers_apart() {
        let narrow = COUNT.replace("uint64", "uint32");
        check((&narrow, ""), (COUNT, ""), &["field count: widened, uint32 -> uint64"]);
        check((COUNT, ""), (&narrow, ""), &["field count: uint64 -> uint32"]);
        let nullable = COUNT.replace("\"integer\"", "[\"integer\",\"null\"]");
        check((COUNT, ""), (&nullable, ""), &["field count: widened, integer -> integer or null"]);
        check((&nullable, ""), (COUNT, ""), &["field count: integer or null -> integer"]);
        let signed = r#""count":{"type":"integer","format":"int64"}"#;
        check((&narrow, ""), (signed, ""), &["field count: widened, uint32 -> int64"]);
        check((COUNT, ""), (signed, ""), &["field count: uint64 -> int64"]);
        let number = |format: &str| format!("\"count\":{{\"type\":\"number\",\"format\":\"{format}\"}}");
        check((&number("float"), ""), (&number("double"), ""), &["field count: widened, float -> double"]);
        check((&narrow, ""), (&number("double"), ""), &["field count: widened, integer -> number"]);
        check((COUNT, ""), (&number("double"), ""), &["field count: integer -> number"]);
    }

    #[test]
    fn a_declared_renaming_is_none_of_removal_and_addition() {
        let renamed = COUNT.replace("\"count\":{", "\"lines\":{\"x-renamed-from\":\"count\",");
        check((COUNT, ""), (&renamed, ""), &["field lines: renamed, was count"]);
        // In later versions it says nothing any more.
        check((&renamed, ""), (&renamed, ""), &[]);
        let text = r#""lines":{"x-renamed-from":"count","type":"string"}"#;
        check(
            (COUNT, ""),
            (text, ""),
            &["field lines: renamed, was count", "field lines: integer -> string"],
        );
    }

    #[test]
    fn knows_who_reads_whom() {
        let verdicts = |old: (&str, &str), new: (&str, &str)| -> Vec<_> {
            let found = schema(old.0, old.1).differences(&schema(new.0, new.1));
            found.iter().map(|d| (d.backward, d.forward)).collect()
        };
        assert_eq!(verdicts(("", ""), (COUNT, "")), [(true, true)]);
        assert_eq!(verdicts(("", ""), (COUNT, r#""count""#)), [(false, true)]);
        assert_eq!(verdicts((COUNT, ""), ("", "")), [(true, true)]);
        assert_eq!(verdicts((COUNT, r#""count""#), ("", "")), [(true, false)]);
        assert_eq!(verdicts((COUNT, ""), (COUNT, r#""count""#)), [(false, true)]);
        let strict = |properties: &str| {
            let text =
                format!(r#"{{"type":"object","properties":{{{properties}}},"additionalProperties":false}}"#);
            Schema::parse(&text).unwrap()
        };
        let found = strict("").differences(&strict(COUNT));
        assert_eq!((found[0].backward, found[0].forward), (true, false), "{found:?}");
        let found = strict(COUNT).differences(&strict(""));
        assert_eq!((found[0].backward, found[0].forward), (false, true), "{found:?}");
    }

    #[test]
    fn looks_into_nested_types_that_contain_themselves() {
        let (p, q) = (r##""who":{"$ref":"#/$defs/P"}"##, r##""who":{"$ref":"#/$defs/Q"}"##);
        check((p, ""), (q, ""), &["field who.age: integer -> string"]);
        let list = |r: &str| format!(r##""all":{{"type":"array","items":{{"$ref":"#/$defs/{r}"}}}}"##);
        check((&list("P"), ""), (&list("Q"), ""), &["field all[].age: integer -> string"]);
        let map = |r: &str| {
            format!(r##""by":{{"type":"object","additionalProperties":{{"$ref":"#/$defs/{r}"}}}}"##)
        };
        check((&map("P"), ""), (&map("Q"), ""), &["field by{}.age: integer -> string"]);
        let maybe = |r: &str| format!(r##""may":{{"anyOf":[{{"$ref":"#/$defs/{r}"}},{{"type":"null"}}]}}"##);
        check((&maybe("P"), ""), (&maybe("Q"), ""), &["field may.age: integer -> string"]);
    }

    /// A type that contains itself may be written out to a depth of its own on each side.
    #[test]
    fn a_type_that_is_written_out_is_compared_to_an_end() {
        let list = |root: &str, item: &str| {
            let defs = format!(r#""$defs":{{"L":{{"type":"array","items":{item}}}}}"#);
            Schema::parse(&format!(r#"{{"type":"object","properties":{{"l":{root}}},{defs}}}"#)).unwrap()
        };
        let l = r##"{"$ref":"#/$defs/L"}"##;
        let twice = format!(r#"{{"type":"array","items":{l}}}"#);
        let (even, odd) = (list(l, &twice), list(&twice, &twice));
        assert!(even.differences(&odd).is_empty());
        assert!(odd.differences(&even).is_empty());
        assert!(even.differences(&list(l, l)).is_empty());
        let own = Schema::parse(r##"{"type":"object","properties":{"l":{"$ref":"#"}}}"##).unwrap();
        let out =
            r##"{"type":"object","properties":{"l":{"type":"object","properties":{"l":{"$ref":"#"}}}}}"##;
        assert!(own.differences(&Schema::parse(out).unwrap()).is_empty());
    }

    /// A default that is lost is told even if fields were added below, and a format without bits is
    /// none.
    #[test]
    fn a_lost_default_is_not_hidden() {
        let with =
            |more: &str| format!(r#""p":{{"type":"object","properties":{{"a":{{"type":"null"}}{more}}}}}"#);
        check(
            (&with(""), ""),
            (&with(r#","b":{"type":"integer","default":1}"#), r#""p""#),
            &["field p.b: added, default 1", "field p: lost its default (object)"],
        );
        check(
            (&with(""), ""),
            (&with("").replace("null", "string"), r#""p""#),
            &["field p.a: null -> string"],
        );
        assert_eq!(
            (integer_range("int0"), integer_range("uint0"), integer_range("int65")),
            (None, None, None)
        );
        assert_eq!(integer_range("int64"), Some((i64::MIN.into(), i64::MAX.into())));
    }

    #[test]
    fn follows_references_wherever_they_stand() {
        for keyword in [
            r##""patternProperties":{"^[0-9]+$":{"$ref":"#/$defs/R"}}"##,
            r##""allOf":[{"$ref":"#/$defs/R"}]"##,
            r##""unevaluatedProperties":{"$ref":"#/$defs/R"}"##,
            r##""not":{"items":{"$ref":"#/$defs/R"}}"##,
        ] {
            let field = |r: &str| format!("\"by\":{{{}}}", keyword.replace("defs/R", &format!("defs/{r}")));
            let (p, q) = (schema(&field("P"), ""), schema(&field("Q"), ""));
            let found = p.differences(&q);
            assert!(!found.is_empty() && found.iter().all(|d| !d.change.is_compatible()), "{keyword}");
            assert!(p.differences(&p).is_empty());
        }
    }

    #[test]
    fn types_that_contain_themselves_are_described() {
        let tree = r##"{"type":"object","properties":{"t":{"$ref":"#/$defs/T"}},"$defs":{
            "T":{"anyOf":[{"type":"array","items":{"$ref":"#/$defs/T"}},{"type":"integer"}]}}}"##;
        let (tree, none) = (Schema::parse(tree).unwrap(), schema("", ""));
        for d in tree.differences(&none).iter().chain(&none.differences(&tree)) {
            assert!(d.to_string().len() < 500, "{d}");
        }
        assert!(tree.differences(&none)[0].to_string().contains("array of array of"));
    }
}
