//! Paths to fields of a value, as operators write them: `profile.age`, `list.0`, `tags["x.y"].n`.
//!
//! | part | means |
//! | --- | --- |
//! | `name` | a field; in a list, an item by its number |
//! | `[0]` | an item of a list |
//! | `["x.y"]` | a field by its name as a JSON string: the only way for names with dots and such |
//!
//! Commands, messages and `--where` have this one form. A path that [`join`] has written is read by
//! [`FieldPath::parse`] as the same path.

use crate::nesting::{DEPTH_MAX, too_deep};
use serde_json::{Map, Value};
use std::borrow::Cow;
use std::fmt;

/// Characters of a path that a message shows. Longer paths end in `…`.
const SHOWN_MAX: usize = 60;
/// Characters that end a name, or that a comparison may begin with.
const SPECIAL: [char; 8] = ['.', '[', ']', '=', '<', '>', '!', '"'];

/// Path to a field, part by part. Never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldPath(Vec<String>);

impl FieldPath {
    /// Reads a path. The error says what is wrong with it, and shows the form.
    pub fn parse(text: &str) -> Result<FieldPath, String> {
        match FieldPath::parse_before(text, |_| false)? {
            (path, "") => Ok(path),
            _ => Err(no_path(text, "")),
        }
    }

    /// Reads a path up to a text that `ends` accepts, and returns it with the rest. A name that
    /// contains such a text stands in brackets.
    pub fn parse_before(text: &str, ends: impl Fn(&str) -> bool) -> Result<(FieldPath, &str), String> {
        let (mut parts, mut rest) = (Vec::new(), text);
        while !rest.is_empty() && !ends(rest) {
            let (part, behind) = match rest.strip_prefix('[') {
                Some(inside) => bracket(text, inside)?,
                None => {
                    // Behind a part stands a dot, or a bracket.
                    let from = match (parts.is_empty(), rest.strip_prefix('.')) {
                        (true, _) => rest,
                        (false, Some(name)) => name,
                        (false, None) => return Err(no_path(text, "; a dot is missing behind ]")),
                    };
                    let end =
                        from.char_indices().find(|(at, c)| matches!(c, '.' | '[') || ends(&from[*at..]));
                    let (name, behind) = from.split_at(end.map_or(from.len(), |(at, _)| at));
                    (name.to_owned(), behind)
                }
            };
            if part.is_empty() && !rest.starts_with('[') {
                return Err(no_path(text, ""));
            }
            parts.push(part);
            // A deeper value would use up the stack when it is dropped.
            if parts.len() >= DEPTH_MAX {
                return Err(format!("field {}: {}", shown(text), too_deep()));
            }
            rest = behind;
        }
        match parts.is_empty() {
            true => Err(no_path(text, "")),
            false => Ok((FieldPath(parts), rest)),
        }
    }

    /// Parts of the path.
    pub fn parts(&self) -> &[String] {
        &self.0
    }

    /// Finds the field in a value. O(parts × log fields).
    pub fn find<'v>(&self, value: &'v Value) -> Option<&'v Value> {
        self.0.iter().try_fold(value, |at, part| match at {
            Value::Object(fields) => fields.get(part),
            Value::Array(items) => items.get(part.parse::<usize>().ok()?),
            _ => None,
        })
    }
}

impl fmt::Display for FieldPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.iter().fold(String::new(), |so_far, part| join(&so_far, part)))
    }
}

/// Reads the inside of a bracket: an index, or a name as a JSON string. Returns what follows `]`.
fn bracket<'t>(text: &str, inside: &'t str) -> Result<(String, &'t str), String> {
    let wrong = || no_path(text, "; behind [ stands a number, or a name in double quotes, and then ]");
    let (part, rest) = match inside.starts_with('"') {
        true => {
            let mut names = serde_json::Deserializer::from_str(inside).into_iter::<String>();
            let name = names.next().and_then(Result::ok).ok_or_else(wrong)?;
            (name, &inside[names.byte_offset()..])
        }
        false => {
            let end = inside.find(|c: char| !c.is_ascii_digit()).filter(|end| *end > 0).ok_or_else(wrong)?;
            (inside[..end].to_owned(), &inside[end..])
        }
    };
    Ok((part, rest.strip_prefix(']').ok_or_else(wrong)?))
}

/// Reason why a text is no path.
fn no_path(text: &str, why: &str) -> String {
    format!("{:?} is no path to a field{why}; write it as profile.age, list.0 or tags[\"x.y\"]", shown(text))
}

/// Cuts a text for a message.
fn shown(text: &str) -> Cow<'_, str> {
    match text.char_indices().nth(SHOWN_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]).into(),
        None => text.into(),
    }
}

/// Path of a field below another path, in the form that is read. An empty path is the value itself.
pub fn join(path: &str, name: &str) -> String {
    let is_plain = !name.is_empty() && !name.contains(|c: char| SPECIAL.contains(&c) || c.is_control());
    match (is_plain, path.is_empty()) {
        (true, true) => name.to_owned(),
        (true, false) => format!("{path}.{name}"),
        (false, _) => format!("{path}[{}]", Value::from(name)),
    }
}

/// Name of a field that the parts spell with dots between them, if the first part alone is none: a
/// path that was meant for it would add another field.
pub fn name_with_dots(fields: &Map<String, Value>, parts: &[String]) -> Option<String> {
    if fields.contains_key(&parts[0]) {
        return None;
    }
    let mut name = parts[0].clone();
    parts[1..].iter().find_map(|part| {
        name = format!("{name}.{part}");
        fields.contains_key(&name).then(|| name.clone())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_path_is_read_as_it_was_written() {
        for parts in [
            vec!["count"],
            vec!["profile", "age"],
            vec!["list", "0", "x"],
            vec!["a", "x.y", "b"],
            vec!["x.y", "", "q\"[]=", "é\n"],
        ] {
            let path = FieldPath(parts.iter().map(|p| (*p).to_owned()).collect());
            assert_eq!(FieldPath::parse(&path.to_string()), Ok(path));
        }
        assert_eq!(FieldPath::parse("a[0][\"x.y\"].b").unwrap().to_string(), "a.0[\"x.y\"].b");
        let value = json!({"a": [{"x.y": {"b": 7}}]});
        assert_eq!(FieldPath::parse("a[0][\"x.y\"].b").unwrap().find(&value), Some(&json!(7)));
        assert_eq!(FieldPath::parse("a[1].b").unwrap().find(&value), None);
        assert_eq!(FieldPath::parse("a.b").unwrap().find(&value), None);
    }

    #[test]
    fn a_text_that_is_no_path_is_refused_with_the_form() {
        for text in ["", ".", "a.", "a..b", ".a", "a[", "a[]", "a[x]", "a[\"x]", "a[\"x\"", "a[0]b", "a[-1]"]
        {
            let why = FieldPath::parse(text).unwrap_err();
            assert!(why.contains(" is no path to a field") && why.contains("tags[\"x.y\"]"), "{text}: {why}");
        }
        let why = FieldPath::parse(&vec!["a"; DEPTH_MAX].join(".")).unwrap_err();
        assert!(why.contains("deeper than 128 levels") && why.len() < 200, "{why}");
    }

    #[test]
    fn a_path_ends_before_the_value() {
        let ends = |rest: &str| rest.starts_with('=');
        let read = |text: &str| {
            let (path, rest) = FieldPath::parse_before(text, ends).unwrap();
            (path.to_string(), rest.to_owned())
        };
        assert_eq!(read("a.b=c=d"), ("a.b".into(), "=c=d".into()));
        assert_eq!(read("a[\"x=y\"]=1"), ("a[\"x=y\"]".into(), "=1".into()));
        assert!(FieldPath::parse_before("=1", ends).is_err());
    }
}
