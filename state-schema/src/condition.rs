//! Conditions that operators search by: `FIELD=VALUE`, also with `!=`, `<`, `<=`, `>` and `>=`.
//!
//! A field that is missing meets no condition. A value is JSON, or else a string, and a field that
//! is a string is compared with the text, too: `name=5` finds 5 and "5".

use crate::parse::value_or_text;
use crate::path::FieldPath;
use serde_json::Value;
use std::cmp::Ordering;

/// Comparison in a condition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Comparison {
    Is,
    IsNot,
    Below,
    AtMost,
    Above,
    AtLeast,
}

/// Comparisons as they are written. A longer one comes before its beginning.
const WRITTEN: [(&str, Comparison); 6] = [
    ("!=", Comparison::IsNot),
    ("<=", Comparison::AtMost),
    (">=", Comparison::AtLeast),
    ("=", Comparison::Is),
    ("<", Comparison::Below),
    (">", Comparison::Above),
];

/// Condition on a field of a value.
#[derive(Debug, Clone, PartialEq)]
pub struct Condition {
    path: FieldPath,
    comparison: Comparison,
    /// Value as JSON, or the text if it is none.
    value: Value,
    /// Value as it was written.
    text: String,
}

impl Condition {
    /// Reads a condition. The error says what is wrong with it.
    pub fn parse(text: &str) -> Result<Condition, String> {
        let of = |rest: &str| WRITTEN.into_iter().find(|(written, _)| rest.starts_with(written));
        let (path, rest) = FieldPath::parse_before(text, |rest| of(rest).is_some())?;
        let Some((written, comparison)) = of(rest) else {
            return Err(format!("{text:?} compares nothing: write FIELD=VALUE, or !=, <, <=, > or >="));
        };
        let text = rest[written.len()..].to_owned();
        // Somebody who writes `==` or `=>` would find nothing, and not know why.
        if text.starts_with(['=', '<', '>', '!']) {
            return Err(format!(
                "{written}{text}: a comparison is one of =, !=, <, <=, > and >=; \
                 a text that begins so is written as JSON: {written}\"{text}\""
            ));
        }
        let value = value_or_text(&text).map_err(|why| format!("{path}: {why}"))?;
        Ok(Condition { path, comparison, value, text })
    }

    /// Path of the field.
    pub fn path(&self) -> &FieldPath {
        &self.path
    }

    /// Whether a value meets the condition; `None`: it has no such field.
    pub fn holds(&self, value: &Value) -> Option<bool> {
        let field = self.path.find(value)?;
        let order = self.compare(field);
        Some(match self.comparison {
            Comparison::Is => order == Some(Ordering::Equal),
            Comparison::IsNot => order != Some(Ordering::Equal),
            Comparison::Below => order == Some(Ordering::Less),
            Comparison::AtMost => matches!(order, Some(Ordering::Less | Ordering::Equal)),
            Comparison::Above => order == Some(Ordering::Greater),
            Comparison::AtLeast => matches!(order, Some(Ordering::Greater | Ordering::Equal)),
        })
    }

    /// Order of a field beside the value; `None`: they are of two kinds, or differ without an
    /// order.
    fn compare(&self, field: &Value) -> Option<Ordering> {
        match (field, &self.value) {
            (Value::String(field), Value::String(value)) => Some(field.as_str().cmp(value)),
            (Value::String(field), _) => Some(field.as_str().cmp(&self.text)),
            (Value::Number(a), Value::Number(b)) => numbers(a, b),
            (field, value) => (field == value).then_some(Ordering::Equal),
        }
    }
}

/// Order of two numbers: integers exactly, others as floats.
fn numbers(a: &serde_json::Number, b: &serde_json::Number) -> Option<Ordering> {
    match (a.as_i128(), b.as_i128()) {
        (Some(a), Some(b)) => Some(a.cmp(&b)),
        _ => a.as_f64()?.partial_cmp(&b.as_f64()?),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_condition_finds_what_it_says() {
        let value = json!({"count": 9007199254740993u64, "name": "5", "nick": null, "tags": {"x.y": 1.5}});
        for (text, found) in [
            ("count=9007199254740993", Some(true)),
            ("count=9007199254740992", Some(false)),
            ("count>9007199254740992", Some(true)),
            ("count<=9007199254740993", Some(true)),
            ("count!=1", Some(true)),
            ("count=x", Some(false)),
            ("name=5", Some(true)),
            ("name=\"5\"", Some(true)),
            ("name<6", Some(true)),
            ("nick=null", Some(true)),
            ("nick>1", Some(false)),
            ("tags[\"x.y\"]>=1.5", Some(true)),
            ("tags={\"x.y\": 1.5}", Some(true)),
            ("other!=1", None),
            ("other=\"=1\"", None),
        ] {
            assert_eq!(Condition::parse(text).unwrap().holds(&value), found, "{text}");
        }
    }

    #[test]
    fn a_text_that_compares_nothing_is_refused() {
        for (text, why) in [
            ("count", "compares nothing"),
            ("=1", "is no path"),
            ("a.=1", "is no path"),
            ("count==1", "a comparison is one of"),
            ("count=>1", "a comparison is one of"),
            ("tags={\"a\": 1, \"a\": 2}", "tags: key \"a\" is there twice"),
        ] {
            let said = Condition::parse(text).unwrap_err();
            assert!(said.contains(why), "{said}");
        }
    }
}
