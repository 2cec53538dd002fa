//! A state's JSON Schema: its fingerprint, what differs between two of them, and whether a build may take over.
//!
//! The rule: at one `STATE_VERSION` only fields with defaults may be added. Anything else (removed, renamed,
//! another type, a default lost) needs a higher version and a migration from each version still stored. So
//! what a decoder happens to accept never decides about people's data.
//!
//! Schemas are those that `schemars` makes: `$ref` into `$defs`, `required`, `default`.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// Keywords that say nothing about the shape of the data.
const ANNOTATIONS: [&str; 7] =
    ["title", "description", "default", "examples", "$schema", "$defs", "deprecated"];

/// Keywords whose value is a map from names to schemas.
const FIELD_MAPS: [&str; 3] = ["properties", "patternProperties", "$defs"];
/// Types may contain themselves: so deep they are looked into.
const DEPTH_MAX: usize = 5;

/// A parsed schema.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Schema {
    root: Value,
}

/// One field that differs.
#[derive(Debug, Clone, PartialEq)]
pub struct Difference {
    /// Path from the state's root: `profile.age`, `items[]`, `scores{}`; empty: the state itself.
    pub field: String,
    /// How.
    pub change: Change,
}

/// How a field differs.
#[derive(Debug, Clone, PartialEq)]
pub enum Change {
    /// New, with the value that states without it get.
    Added(Value),
    /// New, and a state without it can't be read. Holds its type.
    AddedWithoutDefault(String),
    /// Gone, and what it held would be lost. Holds its type.
    Removed(String),
    /// It had a default, so stored states may lack it, and has none now. Holds its type.
    DefaultLost(String),
    /// Another type: the old and the new one.
    Retyped(String, String),
}

impl Change {
    /// Whether a build may bring this change without raising its state version.
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
            Change::Retyped(old, new) => write!(f, ": {old} -> {new}"),
        }
    }
}

impl Schema {
    /// Reads a schema from its JSON text.
    pub fn parse(text: &str) -> Result<Schema, serde_json::Error> {
        Ok(Schema { root: serde_json::from_str(text)? })
    }

    /// Equal for two schemas that describe the same data: FNV-1a, 64 bits, over the schema with its keys sorted
    /// and without annotations other than defaults. (Fowler, Noll, Vo: draft-eastlake-fnv.)
    pub fn fingerprint(&self) -> u64 {
        let mut text = String::new();
        canonical(&self.root, false, &mut text);
        text.bytes().fold(0xcbf2_9ce4_8422_2325, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3))
    }

    /// What differs from this schema to `new`, by field, in the order of their names.
    pub fn differences(&self, new: &Schema) -> Vec<Difference> {
        let mut compare =
            Compare { old_root: &self.root, new_root: &new.root, seen: BTreeSet::new(), found: Vec::new() };
        compare.node("", &self.root, &new.root);
        compare.found
    }
}

/// Writes `v` with sorted keys and without what isn't shape. `names`: its keys are names of fields, not keywords.
fn canonical(v: &Value, names: bool, out: &mut String) {
    match v {
        Value::Object(map) => {
            out.push('{');
            for (key, value) in map.iter().collect::<BTreeMap<_, _>>() {
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

struct Compare<'a> {
    old_root: &'a Value,
    new_root: &'a Value,
    /// Pairs of `$ref` already compared: types may contain themselves.
    seen: BTreeSet<(&'a str, &'a str)>,
    found: Vec<Difference>,
}

impl<'a> Compare<'a> {
    fn push(&mut self, field: &str, change: Change) {
        self.found.push(Difference { field: field.to_owned(), change });
    }

    fn node(&mut self, path: &str, old: &'a Value, new: &'a Value) {
        if let (Some(a), Some(b)) = (reference(old), reference(new))
            && !self.seen.insert((a, b))
        {
            return;
        }
        let (old, new) = (resolve(self.old_root, old), resolve(self.new_root, new));
        let (Value::Object(o), Value::Object(n)) = (old, new) else {
            if old != new {
                self.retyped(path, old, new);
            }
            return;
        };
        let nested = [
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
        // What isn't looked into below is compared as a whole, with all that it refers to.
        let own = |root: &Value, m: &Map<String, Value>| -> BTreeMap<String, Value> {
            m.iter()
                .filter(|(k, _)| {
                    !ANNOTATIONS.contains(&k.as_str()) && !nested.contains(&k.as_str()) && *k != "$ref"
                })
                .map(|(k, v)| (k.clone(), expand(root, v, DEPTH_MAX)))
                .collect()
        };
        if own(self.old_root, o) != own(self.new_root, n) {
            return self.retyped(path, old, new);
        }
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
        for (a, b) in a.into_values().zip(b.into_values()) {
            self.node(&format!("{path}{{}}"), a, b);
        }
        self.fields(path, o, n);
    }

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
        for &name in a.keys().chain(b.keys()).collect::<BTreeSet<_>>() {
            let at = if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
            match (a.get(name), b.get(name)) {
                (Some(o), None) => self.push(&at, Change::Removed(describe(self.old_root, o))),
                (None, Some(n)) if required(new, name) => {
                    self.push(&at, Change::AddedWithoutDefault(describe(self.new_root, n)));
                }
                (None, Some(n)) => {
                    let default = n.get("default").cloned().unwrap_or(Value::Null);
                    self.push(&at, Change::Added(default));
                }
                (Some(o), Some(n)) => {
                    let before = self.found.len();
                    self.node(&at, o, n);
                    if self.found.len() == before && required(new, name) && !required(old, name) {
                        self.push(&at, Change::DefaultLost(describe(self.new_root, n)));
                    }
                }
                (None, None) => {}
            }
        }
    }

    fn retyped(&mut self, path: &str, old: &Value, new: &Value) {
        let (mut a, mut b) = (describe(self.old_root, old), describe(self.new_root, new));
        if a == b {
            // The words are the same, so show the whole of what differs.
            (a, b) = (shape(old), shape(new));
        }
        self.push(path, Change::Retyped(a, b));
    }
}

fn reference(v: &Value) -> Option<&str> {
    v.get("$ref")?.as_str()
}

fn resolve<'a>(root: &'a Value, mut v: &'a Value) -> &'a Value {
    for _ in 0..16 {
        let target = reference(v).and_then(|r| r.strip_prefix('#')).and_then(|p| root.pointer(p));
        match target {
            Some(t) => v = t,
            None => break,
        }
    }
    v
}

/// A schema with what it refers to in place of the references.
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

/// A type in the words of a message.
fn describe(root: &Value, v: &Value) -> String {
    describe_to(root, v, DEPTH_MAX)
}

fn describe_to(root: &Value, v: &Value, depth: usize) -> String {
    if depth == 0 {
        return "…".into();
    }
    let describe = |v: &Value| describe_to(root, v, depth - 1);
    let v = resolve(root, v);
    if let Some(choices) = v.get("enum").and_then(Value::as_array) {
        let choices: Vec<_> = choices.iter().map(Value::to_string).collect();
        return format!("one of {}", choices.join(", "));
    }
    if let Some(only) = v.get("const") {
        return only.to_string();
    }
    for key in ["anyOf", "oneOf"] {
        if let Some(choices) = v.get(key).and_then(Value::as_array) {
            let choices: Vec<_> = choices.iter().map(describe).collect();
            return choices.join(" or ");
        }
    }
    match v.get("type") {
        Some(Value::String(t)) if t == "array" => match v.get("items") {
            Some(items) => format!("array of {}", describe(items)),
            None => "array".into(),
        },
        Some(Value::String(t)) if t == "object" => match v.get("additionalProperties") {
            Some(values @ Value::Object(_)) => format!("map of {}", describe(values)),
            _ => "object".into(),
        },
        Some(Value::String(t)) => match v.get("format").and_then(Value::as_str) {
            // What serde makes of these is told by their names well enough.
            Some(format) if t != "integer" && t != "number" => format!("{t} ({format})"),
            _ => t.clone(),
        },
        Some(Value::Array(types)) => {
            let types: Vec<_> = types.iter().filter_map(Value::as_str).collect();
            types.join(" or ")
        }
        _ if v == &Value::Bool(true) => "anything".into(),
        _ => shape(v),
    }
}

fn shape(v: &Value) -> String {
    match v {
        Value::Object(map) => {
            let kept = map.iter().filter(|(k, _)| !ANNOTATIONS.contains(&k.as_str()));
            Value::Object(kept.map(|(k, v)| (k.clone(), v.clone())).collect()).to_string()
        }
        other => other.to_string(),
    }
}

/// What a build says of one service's state.
#[derive(Debug, Clone, PartialEq)]
pub struct StateShape {
    /// Its `STATE_VERSION`.
    pub version: u32,
    /// Its schema; `None`: it keeps no state.
    pub schema: Option<Schema>,
    /// The versions from which it can make the next one.
    pub migrations: Vec<u32>,
}

/// Decides whether the state that `old` left can be served by `new`.
///
/// `stored` are the versions of the states that live sessions hold; a session that never changed its state holds
/// none. The error is a sentence for the handler's author.
pub fn judge(service: &str, old: &StateShape, new: &StateShape, stored: &[u32]) -> Result<(), String> {
    if new.version < old.version {
        return Err(format!(
            "{service}: STATE_VERSION {} is below {}, which is live; states can't go back",
            new.version, old.version
        ));
    }
    if new.version == old.version {
        let differences = match (&old.schema, &new.schema) {
            (Some(o), Some(n)) if o.fingerprint() != n.fingerprint() => o.differences(n),
            (Some(_), None) => vec![Difference {
                field: String::new(),
                change: Change::Removed("kept for each session".into()),
            }],
            _ => Vec::new(),
        };
        let bad: Vec<_> =
            differences.iter().filter(|d| !d.change.is_compatible()).map(ToString::to_string).collect();
        if !bad.is_empty() {
            return Err(format!(
                "{service}: {}; raise STATE_VERSION above {} and add a migration",
                bad.join("; "),
                old.version
            ));
        }
    }
    // Old states are migrated when their session's next turn comes, so several versions may be stored.
    for &from in stored.iter().chain([&old.version]) {
        let gap = (from..new.version).find(|v| !new.migrations.contains(v));
        if let Some(gap) = gap
            && old.schema.is_some()
        {
            return Err(format!(
                "{service}: STATE_VERSION is {} and version {from} is live, but there is no migration from version {gap} \
                 to {}; add it to the handler's `migrations`",
                new.version,
                gap + 1
            ));
        }
    }
    Ok(())
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
        check(
            (&narrow, ""),
            (COUNT, ""),
            &[
                r#"field count: {"type":"integer","format":"uint32","minimum":0} -> {"type":"integer","format":"uint64","minimum":0}"#,
            ],
        );
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
    fn a_field_may_have_the_name_of_a_keyword() {
        let with = |name: &str| schema(&format!("\"{name}\":true"), "");
        assert_ne!(with("title").fingerprint(), with("description").fingerprint());
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

    fn shape(version: u32, properties: &str, required: &str, migrations: &[u32]) -> StateShape {
        StateShape { version, schema: Some(schema(properties, required)), migrations: migrations.to_vec() }
    }

    #[test]
    fn judges_by_version_and_migrations() {
        let old = shape(1, COUNT, r#""count""#, &[]);
        let text = r#""count":{"type":"string"}"#;
        let says = |new: &StateShape, stored: &[u32]| judge("tally", &old, new, stored);

        assert_eq!(says(&old, &[1]), Ok(()));
        let added = format!("{COUNT},\"n\":{{\"type\":\"integer\",\"default\":7}}");
        assert_eq!(says(&shape(1, &added, r#""count""#, &[]), &[1]), Ok(()));
        assert_eq!(
            says(&shape(1, text, r#""count""#, &[]), &[]).unwrap_err(),
            "tally: field count: integer -> string; raise STATE_VERSION above 1 and add a migration"
        );
        assert_eq!(says(&shape(2, text, r#""count""#, &[1]), &[1]), Ok(()));
        let err = says(&shape(2, text, r#""count""#, &[]), &[1]).unwrap_err();
        assert!(err.contains("no migration from version 1 to 2"), "{err}");
        assert_eq!(says(&shape(3, text, r#""count""#, &[1, 2]), &[1]), Ok(()));
        let err = says(&shape(3, text, r#""count""#, &[2]), &[2]).unwrap_err();
        assert!(err.contains("no migration from version 1 to 2"), "{err}");
        let err = judge("tally", &shape(2, text, "", &[]), &shape(3, text, "", &[2]), &[1]).unwrap_err();
        assert!(err.contains("version 1 is live"), "{err}");
        let err = judge("tally", &shape(2, text, "", &[]), &old, &[]).unwrap_err();
        assert!(err.contains("STATE_VERSION 1 is below 2"), "{err}");
        let none = StateShape { version: 1, schema: None, migrations: Vec::new() };
        assert!(says(&none, &[]).unwrap_err().contains("raise STATE_VERSION above 1"));
        assert_eq!(judge("tally", &none, &old, &[]), Ok(()));
    }
}
