//! Schemas in words, for messages: `integer or null`, `array of string`, `map of object`.
//!
//! Words name the type only, not the fields of an object: a message names a field by its path.
//! The output is text for people, and no program reads it. Types may contain themselves, so the
//! depth is bounded.

use crate::schema::{ANNOTATIONS, resolve};
use serde_json::Value;

/// Depth to which a type that contains itself is described, in levels.
const DEPTH_MAX: usize = 5;

/// Describes a type in the words of a message. `root` is the schema that its references lead
/// into.
pub(crate) fn describe(root: &Value, v: &Value) -> String {
    describe_to(root, v, DEPTH_MAX)
}

/// Describes a type to a depth, and shows `…` for what is deeper. Tries the keywords from the
/// most telling one on: choices, alternatives, then the type.
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
        // An object whose values have one schema is a map.
        Some(Value::String(t)) if t == "object" => match v.get("additionalProperties") {
            Some(values @ Value::Object(_)) => format!("map of {}", describe(values)),
            _ => "object".into(),
        },
        Some(Value::String(t)) => match v.get("format").and_then(Value::as_str) {
            // The width of a number is left out. `schema_diff` shows it if nothing else
            // differs.
            Some(format) if t != "integer" && t != "number" => format!("{t} ({format})"),
            _ => t.clone(),
        },
        Some(Value::Array(types)) => {
            let types: Vec<_> = types.iter().filter_map(Value::as_str).collect();
            types.join(" or ")
        }
        // A schema without a type: its JSON says more than any word.
        _ if v == &Value::Bool(true) => "anything".into(),
        _ => shape(v),
    }
}

/// Writes a schema as JSON, without the annotations of its top level. For types that words
/// can't tell apart.
pub(crate) fn shape(v: &Value) -> String {
    match v {
        Value::Object(map) => {
            let kept = map.iter().filter(|(k, _)| !ANNOTATIONS.contains(&k.as_str()));
            Value::Object(kept.map(|(k, v)| (k.clone(), v.clone())).collect()).to_string()
        }
        other => other.to_string(),
    }
}
