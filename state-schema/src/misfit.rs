//! Places at which a value does not fit its schema, in words.
//!
//! Chooses the words of a refusal and decides nothing: `edit.rs` says when there is one. A schema
//! describes the form for people, and a value may be stored in another one.
//!
//! Costs O(value × schema) at most, to the depth of a stored value.

use crate::nesting::DEPTH_MAX;
use crate::path::join;
use crate::schema::{Schema, resolve};
use crate::schema_diff::integer_range;
use crate::schema_text::describe;
use serde_json::{Map, Value};

/// Characters of a value that a message shows. Longer values end in `…`.
const SHOWN_MAX: usize = 60;

/// Names a field in a message; empty: the value itself.
pub(crate) fn called(field: &str) -> String {
    if field.is_empty() { "the value".to_owned() } else { format!("field {field}") }
}

/// Shows a value or a path in a message, cut to [`SHOWN_MAX`] characters.
pub(crate) fn shown(v: impl ToString) -> String {
    let text = v.to_string();
    match text.char_indices().nth(SHOWN_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

/// Reason why a value does not fit a schema. Chooses words; decides nothing.
pub(crate) struct Misfit {
    /// Path of the place; empty: the value itself.
    field: String,
    /// Reason, without the path.
    why: String,
}

impl Misfit {
    /// Describes the reason in a sentence.
    pub(crate) fn in_words(&self) -> String {
        format!("{}: {}", called(&self.field), self.why)
    }
}

/// Finds the first place at which a value does not fit its schema, among those that `accepts` has:
/// the field, and whether it is unknown. `None`: the value fits there, as far as the schema can
/// tell. Values are compared to the depth of [`DEPTH_MAX`]; everything below fits.
pub(crate) fn misfit(schema: &Schema, value: &Value, accepts: &dyn Fn(&str, bool) -> bool) -> Option<Misfit> {
    Fitting { root: schema.root(), accepts }.node("", schema.root(), value, false, DEPTH_MAX)
}

/// Search for a misfit. Holds no result: each function returns the first misfit below its
/// place.
struct Fitting<'a> {
    /// Whole schema, which references lead into.
    root: &'a Value,
    /// Whether a misfit of a field matters, which may be an unknown one.
    accepts: &'a dyn Fn(&str, bool) -> bool,
}

impl Fitting<'_> {
    /// Checks a value at one place, and all below. `open`: the schema lists only some of the
    /// fields, as parts of `anyOf` and `allOf` do.
    ///
    /// `depth` is the number of levels left; at 0 all fits. `oneOf` counts as `anyOf`: a value
    /// that fits two alternatives is no misfit.
    fn node(&self, path: &str, schema: &Value, value: &Value, open: bool, depth: usize) -> Option<Misfit> {
        let schema = resolve(self.root, schema);
        let wrong = |why: String| (self.accepts)(path, false).then(|| Misfit { field: path.to_owned(), why });
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
            return if is_in_stored_form(map, &types, value) { None } else { expected() };
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
        let matters = |name: &str, unknown| (self.accepts)(&join(path, name), unknown);
        let mut names = fields.keys();
        if let Some(name) = names.find(|name| all && !known.contains_key(*name) && matters(name, true)) {
            let names: Vec<_> = known.keys().map(String::as_str).collect();
            let why = match names[..] {
                [] => "unknown; there are no fields".to_owned(),
                _ => format!("unknown; there are: {}", names.join(", ")),
            };
            return Some(Misfit { field: join(path, name), why });
        }
        let required = schema.get("required").and_then(Value::as_array).into_iter().flatten();
        let missing = required
            .filter_map(Value::as_str)
            .find(|name| !fields.contains_key(*name) && matters(name, false));
        if let Some(name) = missing {
            let kind = known.get(name).map_or("anything".to_owned(), |s| describe(self.root, s));
            let why = format!("missing; it wants {kind}");
            return Some(Misfit { field: join(path, name), why });
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
pub(crate) fn is_tagged(v: &Value) -> bool {
    v.as_object().is_some_and(|m| m.len() == 1 && m.keys().all(|k| k.starts_with('$')))
}

/// Whether a value is in the form in which MessagePack holds a type, where the schema describes the
/// form for people: a unit struct is an empty list, and an address or such is no text.
fn is_in_stored_form(schema: &Map<String, Value>, types: &[&str], value: &Value) -> bool {
    match types {
        ["null"] => value.as_array().is_some_and(Vec::is_empty),
        types if types.contains(&"string") => {
            schema.contains_key("format") && (value.is_array() || value.is_object())
        }
        _ => false,
    }
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
