//! Places of sets in the values of a type, and comparison of values whatever their order.
//!
//! A set is a list whose order says nothing: its schema has `uniqueItems`. A set and a map of the
//! standard library are written in an order of their own each time.
//!
//! A place is a path: a field's name, the number of an item, or `*` for any item or value. `**`
//! is every place. It stands for what a path cannot say: a type that contains itself, or a keyword
//! that is not known here.

use crate::path::{FieldPath, join};
use crate::schema::{Schema, reference, resolve};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// Places of one type that are told apart. Beyond them every list counts as a set.
const PLACES_MAX: usize = 64;
/// Part of a path that is any item or value.
const ANY: &str = "*";
/// Part of a path that is every place below.
const ALL: &str = "**";

/// Places of the sets in a type.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<String>", into = "Vec<String>")]
pub struct Sets(Vec<Vec<String>>);

impl From<Sets> for Vec<String> {
    /// Paths as operators write them; empty: the value itself.
    fn from(sets: Sets) -> Vec<String> {
        let text = |path: &Vec<String>| path.iter().fold(String::new(), |so_far, part| join(&so_far, part));
        sets.0.iter().map(text).collect()
    }
}

impl TryFrom<Vec<String>> for Sets {
    type Error = String;

    fn try_from(paths: Vec<String>) -> Result<Sets, String> {
        let parts = |path: &String| match path.is_empty() {
            true => Ok(Vec::new()),
            false => Ok(FieldPath::parse(path)?.parts().to_vec()),
        };
        Ok(Sets(paths.iter().map(parts).collect::<Result<_, String>>()?))
    }
}

impl Sets {
    /// Finds the sets of a type; without a schema none is known. O(schema).
    pub fn of(schema: Option<&Schema>) -> Sets {
        let Some(root) = schema.map(Schema::root).filter(|root| has_sets(root)) else {
            return Sets::default();
        };
        let mut search = Search { root, path: Vec::new(), under_way: Vec::new(), found: Vec::new() };
        match search.look(root) {
            true => Sets(search.found),
            false => Sets::everywhere(),
        }
    }

    /// Counts every list as a set.
    pub fn everywhere() -> Sets {
        Sets(vec![vec![ALL.to_owned()]])
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether each list is known to be a set or none.
    pub fn are_exact(&self) -> bool {
        self.0.iter().flatten().all(|part| part != ALL)
    }

    /// Adds the sets of another version of the type.
    #[must_use]
    pub fn and(mut self, other: &Sets) -> Sets {
        self.0.extend(other.0.iter().filter(|path| !self.0.contains(path)).cloned().collect::<Vec<_>>());
        self
    }

    /// Place of a whole value.
    pub(crate) fn top(&self) -> Place<'_> {
        Place(self.0.iter().map(Vec::as_slice).collect())
    }
}

/// Place in a value: what is left of the paths to the sets below it.
#[derive(Clone)]
pub(crate) struct Place<'s>(Vec<&'s [String]>);

impl<'s> Place<'s> {
    /// Whether a list at this place is a set.
    pub(crate) fn is_set(&self) -> bool {
        self.0.iter().any(|path| path.first().is_none_or(|part| part == ALL))
    }

    /// Place of a field, or of an item by its number; `None`: of a key that is no text.
    pub(crate) fn below(&self, name: Option<&str>) -> Place<'s> {
        let rest = |path: &&'s [String]| match path.split_first()? {
            (part, _) if part == ALL => Some(*path),
            (part, rest) if part == ANY || name == Some(part) => Some(rest),
            _ => None,
        };
        Place(self.0.iter().filter_map(rest).collect())
    }

    /// Place of an item.
    pub(crate) fn item(&self, at: usize) -> Place<'s> {
        if self.0.is_empty() { self.clone() } else { self.below(Some(&at.to_string())) }
    }
}

/// Whether a schema has a set in it. A field of that name counts, too.
fn has_sets(schema: &Value) -> bool {
    match schema {
        Value::Object(map) => {
            map.get("uniqueItems") == Some(&Value::Bool(true)) || map.values().any(has_sets)
        }
        Value::Array(items) => items.iter().any(has_sets),
        _ => false,
    }
}

/// Search for the sets of a schema.
struct Search<'a> {
    root: &'a Value,
    path: Vec<String>,
    /// References that lead here.
    under_way: Vec<&'a str>,
    found: Vec<Vec<String>>,
}

impl<'a> Search<'a> {
    /// Looks at a schema and below. False: its sets have no paths.
    fn look(&mut self, schema: &'a Value) -> bool {
        if let Some(target) = reference(schema) {
            // A type that contains itself has no end of paths. Only sets in it matter.
            if self.under_way.contains(&target) {
                return !self.leads_to_set(schema, &mut Vec::new());
            }
            self.under_way.push(target);
            let is_known = match self.root.pointer(target.strip_prefix('#').unwrap_or(target)) {
                Some(schema) => self.look(schema),
                None => true,
            };
            self.under_way.pop();
            return is_known && self.parts(schema);
        }
        self.parts(schema)
    }

    /// Whether a schema has a set in it, or in what it refers to.
    fn leads_to_set(&self, schema: &'a Value, seen: &mut Vec<&'a str>) -> bool {
        if let Some(target) = reference(schema) {
            if seen.contains(&target) {
                return false;
            }
            seen.push(target);
            let of = resolve(self.root, schema);
            return reference(of).is_none() && self.leads_to_set(of, seen);
        }
        match schema {
            Value::Object(map) => {
                map.get("uniqueItems") == Some(&Value::Bool(true))
                    || map.iter().any(|(key, v)| key != "$defs" && self.leads_to_set(v, seen))
            }
            Value::Array(items) => items.iter().any(|v| self.leads_to_set(v, seen)),
            _ => false,
        }
    }

    /// Looks at the keywords of a schema.
    fn parts(&mut self, schema: &'a Value) -> bool {
        let Value::Object(map) = schema else { return true };
        if map.get("uniqueItems") == Some(&Value::Bool(true)) {
            self.found.push(self.path.clone());
        }
        self.found.len() <= PLACES_MAX && map.iter().all(|(keyword, value)| self.keyword(keyword, value))
    }

    /// Looks at what a keyword says of the values below.
    fn keyword(&mut self, keyword: &str, value: &'a Value) -> bool {
        match (keyword, value) {
            ("properties", Value::Object(fields)) => self.fields(fields),
            ("patternProperties", Value::Object(fields)) => fields.values().all(|s| self.below(ANY, s)),
            ("additionalProperties" | "items", Value::Object(_)) => self.below(ANY, value),
            ("prefixItems", Value::Array(items)) => {
                items.iter().enumerate().all(|(at, s)| self.below(&at.to_string(), s))
            }
            ("anyOf" | "oneOf" | "allOf", Value::Array(schemas)) => schemas.iter().all(|s| self.look(s)),
            // Definitions count where they are referred to, and examples are no schemas.
            ("$defs" | "definitions" | "default" | "examples" | "enum" | "const", _) => true,
            _ => !has_sets(value),
        }
    }

    /// Looks at the fields of an object.
    fn fields(&mut self, fields: &'a Map<String, Value>) -> bool {
        fields.iter().all(|(name, schema)| self.below(name, schema))
    }

    /// Looks at a schema one part of the path further down.
    fn below(&mut self, part: &str, schema: &'a Value) -> bool {
        self.path.push(part.to_owned());
        let is_known = self.look(schema);
        self.path.pop();
        is_known
    }
}

/// Whether two values at a place are equal, but for the order of maps and sets. O(n log n).
pub(crate) fn same_at(a: &Value, b: &Value, place: &Place<'_>) -> bool {
    a == b || text_at(a, place) == text_at(b, place)
}

/// Text that is the same just for values that are equal but for the order of maps and sets.
/// Allocates O(bytes).
pub(crate) fn text_at(value: &Value, place: &Place<'_>) -> String {
    let mut parts: Vec<String> = match value {
        Value::Object(map) => match pairs(value) {
            Some(pairs) => pairs.map(|(k, v)| pair_text(k, v, place)).collect(),
            None => map
                .iter()
                .map(|(name, v)| {
                    format!("{}:{}", Value::from(name.as_str()), text_at(v, &place.below(Some(name))))
                })
                .collect(),
        },
        Value::Array(items) => items.iter().enumerate().map(|(at, v)| text_at(v, &place.item(at))).collect(),
        other => return other.to_string(),
    };
    if value.is_object() || place.is_set() {
        parts.sort_unstable();
    }
    let (open, end) = if value.is_object() { ('{', '}') } else { ('[', ']') };
    format!("{open}{}{end}", parts.join(","))
}

/// Text of a pair of a map whose keys are no strings.
fn pair_text(key: &Value, value: &Value, place: &Place<'_>) -> String {
    format!("{}:{}", text_at(key, &place.below(None)), text_at(value, &place.below(key.as_str())))
}

/// Two maps whose keys are no strings: their keys with the values in both, in the order of both.
/// `None`: one of both is none, or has a key twice.
pub(crate) fn paired<'v>(a: &'v Value, b: &'v Value) -> Option<Vec<PairedValues<'v>>> {
    let by_key = |v: &'v Value| {
        let all: BTreeMap<_, _> = pairs(v)?.map(|(key, value)| (key.to_string(), value)).collect();
        (all.len() == pairs(v)?.count()).then_some(all)
    };
    let (of_a, of_b) = (by_key(a)?, by_key(b)?);
    let both = pairs(a)?.map(|(key, value)| (key, Some(value), of_b.get(&key.to_string()).copied()));
    let new = pairs(b)?.filter(|(key, _)| !of_a.contains_key(&key.to_string()));
    Some(both.chain(new.map(|(key, value)| (key, None, Some(value)))).collect())
}

/// Key of one of two maps, and its values in both.
type PairedValues<'v> = (&'v Value, Option<&'v Value>, Option<&'v Value>);

/// Pairs of a map that JSON has no object for: `{"$map": [[key, value], …]}`.
pub(crate) fn pairs(value: &Value) -> Option<impl Iterator<Item = (&Value, &Value)>> {
    let map = value.as_object().filter(|map| map.len() == 1)?;
    let pairs = map.get("$map")?.as_array()?;
    let is_pair = |v: &Value| v.as_array().is_some_and(|pair| pair.len() == 2);
    pairs.iter().all(is_pair).then(|| pairs.iter().map(|pair| (&pair[0], &pair[1])))
}

/// Items of a set before that are not in it after, and the reverse, as often as they are there
/// more. O(n log n).
pub(crate) fn set_difference<'v>(
    before: &'v [Value],
    after: &'v [Value],
    place: &Place<'_>,
) -> (Vec<&'v Value>, Vec<&'v Value>) {
    let text = |(at, v): (usize, &'v Value)| (text_at(v, &place.item(at)), v);
    let mut gone = BTreeMap::<String, Vec<&Value>>::new();
    before.iter().enumerate().map(text).for_each(|(text, v)| gone.entry(text).or_default().push(v));
    let mut new = Vec::new();
    for (text, v) in after.iter().enumerate().map(text) {
        if gone.get_mut(&text).and_then(Vec::pop).is_none() {
            new.push(v);
        }
    }
    (gone.into_values().flatten().collect(), new)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn places(schema: Value) -> Value {
        serde_json::to_value(Sets::of(Some(&Schema::from(schema)))).unwrap()
    }

    /// Sets are found through references, options, maps and tuples. What has no path makes every
    /// list a set.
    #[test]
    fn the_places_of_sets_are_paths() {
        let set = json!({"type": "array", "uniqueItems": true, "items": {"type": "string"}});
        let found = places(json!({
            "properties": {
                "tags": set, "list": {"type": "array"}, "uniqueItems": {"type": "boolean"},
                "rooms": {"additionalProperties": {"$ref": "#/$defs/Room"}},
                "pair": {"prefixItems": [{"type": "array"}, set]},
                "some": {"anyOf": [{"items": {"allOf": [set]}}, {"type": "null"}]},
            },
            "$defs": {"Room": {"properties": {"who": set}}, "Unused": set},
        }));
        assert_eq!(found, json!(["tags", "rooms.*.who", "pair.1", "some.*"]));
        assert_eq!(places(json!({"properties": {"list": {"type": "array"}}})), json!([]));
        let tree = |fields: Value| json!({"$ref": "#/$defs/T", "$defs": {"T": {"properties": fields}}});
        let kids = json!({"type": "array", "items": {"$ref": "#/$defs/T"}});
        assert_eq!(places(tree(json!({"kids": kids, "tags": set}))), json!(["**"]));
        // The same by way of another type; a type that contains itself beside a set is none.
        let turns = json!({"properties": {"b": {"$ref": "#/$defs/B"}, "tags": set}, "$defs": {
            "A": {"properties": {"b": {"$ref": "#/$defs/B"}, "who": set}},
            "B": {"properties": {"a": {"$ref": "#/$defs/A"}}},
            "Deep": {"additionalProperties": {"$ref": "#/$defs/Deep"}}}});
        assert_eq!(places(turns.clone()), json!(["**"]));
        let beside =
            json!({"properties": {"deep": {"$ref": "#/$defs/Deep"}, "tags": set}, "$defs": turns["$defs"]});
        assert_eq!(places(beside), json!(["tags"]));
        assert_eq!(places(json!({"if": set})), json!(["**"]));
        let whole = json!({"uniqueItems": true, "items": {"properties": {"x.y": set}}});
        assert_eq!(places(whole.clone()), json!(["", "*[\"x.y\"]"]));
        assert_eq!(
            serde_json::from_value::<Sets>(places(whole.clone())).unwrap(),
            Sets::of(Some(&whole.into()))
        );
        assert!(!Sets::everywhere().are_exact() && Sets::default().are_exact());
    }

    /// The order of maps and sets is none, and that of lists is one.
    #[test]
    fn values_are_compared_by_their_types() {
        let sets: Sets = serde_json::from_value(json!(["tags", "rooms.*.who"])).unwrap();
        let same = |a: Value, b: Value| same_at(&a, &b, &sets.top());
        assert!(same(json!({"tags": [1, 2], "a": 1}), json!({"a": 1, "tags": [2, 1]})));
        assert!(!same(json!({"list": [1, 2]}), json!({"list": [2, 1]})));
        assert!(!same(json!({"tags": [1, 1, 2]}), json!({"tags": [1, 2, 2]})));
        let rooms = |v: Value| json!({"rooms": {"$map": v}});
        assert!(same(
            rooms(json!([[1, {"who": ["a", "b"]}], [2, {}]])),
            rooms(json!([[2, {}], [1, {"who": ["b", "a"]}]]))
        ));
        assert!(!same(rooms(json!([[1, {}], [2, {}]])), rooms(json!([[1, {}], [3, {}]]))));
        let all = Sets::everywhere();
        assert!(same_at(&json!([[1, 2], 3]), &json!([3, [2, 1]]), &all.top()));
    }
}
