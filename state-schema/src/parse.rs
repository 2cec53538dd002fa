//! JSON that people give: a dump, an edited state, a value on the command line.
//!
//! A key that is there twice is refused: a parser would keep one of both, and the other would be
//! lost without a word. A key that a document does not know is found, too, if its [`Shape`] is
//! given: a misspelt one is as good as none.
//!
//! The keys are looked at while the text is read, and so are its levels. That costs O(text), and
//! 16 bytes of memory for each key of the objects that are open.

use crate::nesting::{TEXT_DEPTH_MAX, too_deep};
use crate::path::join;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};
use std::io::{self, Read};

/// Characters of a path or key that a message shows. Longer ones end in `…`.
const SHOWN_MAX: usize = 80;

/// Keys that a document knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// Any value.
    Any,
    /// Object of these keys.
    Keys(&'static [(&'static str, Shape)]),
    /// Object of any keys, whose values are alike.
    Map(&'static Shape),
    /// List, whose items are alike.
    List(&'static Shape),
}

impl Shape {
    /// Shape of a value below.
    fn below(&self, key: &str) -> Shape {
        match self {
            Shape::Any => Shape::Any,
            Shape::Keys(known) => known.iter().find(|(name, _)| *name == key).map_or(Shape::Any, |(_, s)| *s),
            Shape::Map(shape) | Shape::List(shape) => **shape,
        }
    }
}

/// Parses JSON, which may nest as deep as a value in a dump. Fails on deeper ones, on text that is
/// no JSON of this type, on text behind it, and on a key that is there twice.
pub fn parse<T: DeserializeOwned>(text: &[u8]) -> Result<T, String> {
    Ok(parse_known(text, Shape::Any)?.0)
}

/// Parses JSON as [`parse`] does. Returns why its first unknown key is none, too.
pub fn parse_known<T: DeserializeOwned>(text: &[u8], shape: Shape) -> Result<(T, Option<String>), String> {
    let mut scanner = Scanner::new(Some(shape));
    scanner.pass(text)?;
    match parse_by(serde_json::Deserializer::from_slice(text)) {
        Ok(value) => Ok((value, scanner.unknown)),
        Err(why) => Err(scanner.with_unknown(why)),
    }
}

/// Parses JSON as [`parse_known`] does, while it is read.
pub fn parse_known_from<T: DeserializeOwned>(
    from: impl Read,
    shape: Shape,
) -> Result<(T, Option<String>), String> {
    let mut scanned = Scanned { from, scanner: Scanner::new(Some(shape)) };
    match parse_by(serde_json::Deserializer::from_reader(&mut scanned)) {
        Ok(value) => Ok((value, scanned.scanner.unknown)),
        Err(why) => Err(scanned.scanner.with_unknown(why)),
    }
}

/// Parses JSON that a program of this host has written, or that is data: of equal keys the last one
/// counts.
pub fn parse_written<T: DeserializeOwned>(text: &[u8]) -> Result<T, String> {
    Scanner::new(None).pass(text)?;
    parse_by(serde_json::Deserializer::from_slice(text))
}

/// Reads a value on the command line: JSON, or else a string. Fails on JSON that [`parse`] refuses
/// for its depth or its keys: nobody means a string by it.
pub fn value_or_text(text: &str) -> Result<Value, String> {
    let refused = match Scanner::new(Some(Shape::Any)).pass(text.as_bytes()) {
        Ok(()) => None,
        Err(why) if why == too_deep() => return Err(why),
        Err(why) => Some(why),
    };
    match (parse_by::<Value>(serde_json::Deserializer::from_slice(text.as_bytes())), refused) {
        (Ok(_), Some(why)) => Err(why),
        (Ok(value), None) => Ok(value),
        (Err(_), _) => Ok(Value::from(text)),
    }
}

/// Parses a text whose levels are counted.
fn parse_by<'de, T: DeserializeOwned>(
    mut json: serde_json::Deserializer<impl serde_json::de::Read<'de>>,
) -> Result<T, String> {
    json.disable_recursion_limit();
    let value = T::deserialize(&mut json).map_err(|e| e.to_string())?;
    json.end().map_err(|e| e.to_string())?;
    Ok(value)
}

/// Place in a text, as far as brackets and strings are concerned.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
enum Text {
    /// Outside of strings: brackets count.
    #[default]
    Outside,
    /// Inside a string.
    Inside,
    /// Behind a backslash inside a string.
    Escaped,
}

/// Object or list that is open.
struct Open {
    /// Hashes of the keys of an object; `None`: it is a list.
    keys: Option<HashSet<u128>>,
    /// Key under way.
    key: String,
    /// Number of the item under way.
    item: usize,
    /// A key follows, not a value.
    wants_key: bool,
    shape: Shape,
}

/// Scanner of levels and keys. Text that is no JSON is the parser's to refuse.
struct Scanner {
    /// Brackets that are open.
    depth: usize,
    text: Text,
    /// Line under way, from 1.
    line: u64,
    /// Shape of the document; `None`: its keys do not matter.
    shape: Option<Shape>,
    open: Vec<Open>,
    /// Key under way, as it is written.
    written: Vec<u8>,
    /// Hashers with random seeds: nobody can make two keys equal.
    hashers: [RandomState; 2],
    /// Why the first unknown key is none.
    unknown: Option<String>,
}

impl Scanner {
    fn new(shape: Option<Shape>) -> Scanner {
        Scanner {
            depth: 0,
            text: Text::Outside,
            line: 1,
            shape,
            open: Vec::new(),
            written: Vec::new(),
            hashers: [RandomState::new(), RandomState::new()],
            unknown: None,
        }
    }

    /// Looks at some more text. Fails if it nests too deep, or has a key twice.
    fn pass(&mut self, text: &[u8]) -> Result<(), String> {
        for byte in text {
            match (self.text, byte) {
                (Text::Outside, b'"') => {
                    self.text = Text::Inside;
                    self.written.clear();
                }
                (Text::Outside, _) => self.outside(*byte)?,
                (Text::Inside, b'"') => {
                    self.text = Text::Outside;
                    self.key_ends()?;
                }
                (Text::Inside, _) => {
                    self.text = if *byte == b'\\' { Text::Escaped } else { Text::Inside };
                    self.key_goes_on(*byte);
                }
                (Text::Escaped, _) => {
                    self.text = Text::Inside;
                    self.key_goes_on(*byte);
                }
            }
        }
        Ok(())
    }

    /// Looks at a byte outside of strings.
    fn outside(&mut self, byte: u8) -> Result<(), String> {
        match byte {
            b'[' | b'{' => {
                self.depth += 1;
                if self.depth > TEXT_DEPTH_MAX {
                    return Err(too_deep());
                }
                self.opens(byte == b'{');
            }
            b']' | b'}' => {
                self.depth = self.depth.saturating_sub(1);
                self.open.pop();
            }
            b',' => {
                if let Some(open) = self.open.last_mut() {
                    open.wants_key = open.keys.is_some();
                    open.item += 1;
                }
            }
            b'\n' => self.line += 1,
            _ => {}
        }
        Ok(())
    }

    /// Begins an object or list, if keys matter.
    fn opens(&mut self, is_object: bool) {
        let Some(whole) = self.shape else { return };
        let shape = self.open.last().map_or(whole, |open| open.shape.below(&open.key));
        let keys = is_object.then(HashSet::new);
        self.open.push(Open { keys, key: String::new(), item: 0, wants_key: is_object, shape });
    }

    /// Keeps a byte of a key.
    fn key_goes_on(&mut self, byte: u8) {
        if self.open.last().is_some_and(|open| open.wants_key) {
            self.written.push(byte);
        }
    }

    /// Looks at a key that has ended; a string that is none means nothing here.
    fn key_ends(&mut self) -> Result<(), String> {
        let Some(open) = self.open.last_mut().filter(|open| open.wants_key) else { return Ok(()) };
        open.wants_key = false;
        // One key may be written in several ways.
        let unescaped = self.written.contains(&b'\\').then(|| {
            let quoted = [b"\"", &self.written[..], b"\""].concat();
            serde_json::from_slice::<String>(&quoted).ok()
        });
        open.key = unescaped.flatten().unwrap_or_else(|| String::from_utf8_lossy(&self.written).into_owned());
        let [a, b] = self.hashers.each_ref().map(|hasher| u128::from(hasher.hash_one(&open.key)));
        let is_new = open.keys.as_mut().is_none_or(|keys| keys.insert(a << 64 | b));
        let known = match open.shape {
            Shape::Keys(known) if known.iter().all(|(name, _)| *name != open.key) => Some(known),
            _ => None,
        };
        if !is_new {
            return Err(format!(
                "{} is there twice: one of both would be lost; leave one of them out",
                self.place()
            ));
        }
        if let Some(known) = known.filter(|_| self.unknown.is_none()) {
            let known: Vec<_> = known.iter().map(|(name, _)| *name).collect();
            self.unknown = Some(format!(
                "{} is unknown: what it holds would be lost; there are: {}",
                self.place(),
                known.join(", ")
            ));
        }
        Ok(())
    }

    /// Reason of a parser, with the key that is not known: a field that is missing may be misspelt.
    fn with_unknown(self, why: String) -> String {
        self.unknown.map_or(why.clone(), |unknown| format!("{why}; {unknown}"))
    }

    /// Names the key under way, with its place.
    fn place(&self) -> String {
        let (mut path, mut key) = (String::new(), "");
        for (at, open) in self.open.iter().enumerate() {
            match (&open.keys, at + 1 == self.open.len()) {
                (_, true) => key = &open.key,
                (Some(_), _) => path = join(&path, &open.key),
                (None, _) => path = format!("{path}[{}]", open.item),
            }
        }
        let of = if path.is_empty() { String::new() } else { format!(" of {}", shown(path)) };
        let line = if self.line > 1 { format!(", line {},", self.line) } else { String::new() };
        format!("key {}{of}{line}", Value::from(shown(key.to_owned())))
    }
}

/// Cuts a text for a message.
fn shown(text: String) -> String {
    match text.char_indices().nth(SHOWN_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

/// Reader whose text is scanned.
struct Scanned<R> {
    from: R,
    scanner: Scanner,
}

impl<R: Read> Read for Scanned<R> {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        let len = self.from.read(to)?;
        self.scanner.pass(&to[..len]).map_err(io::Error::other)?;
        Ok(len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn parse_from<T: DeserializeOwned>(from: &[u8]) -> Result<T, String> {
        Ok(parse_known_from(from, Shape::Any)?.0)
    }

    /// Text of the last level is parsed within the stack of a thread, and one more level is
    /// refused. Brackets in strings don't count.
    #[test]
    fn a_text_is_parsed_to_a_depth() {
        let nested = |levels: usize| "[".repeat(levels) + "1" + &"]".repeat(levels);
        let small = std::thread::Builder::new().stack_size(1 << 20);
        let parsed = small.spawn(move || parse::<Value>(nested(TEXT_DEPTH_MAX).as_bytes()).is_ok());
        assert!(parsed.unwrap().join().unwrap());
        for parse in [parse::<Value>, parse_written::<Value>, parse_from::<Value>] as [fn(&[u8]) -> _; 3] {
            let over = parse(nested(TEXT_DEPTH_MAX + 1).as_bytes()).unwrap_err();
            assert!(over.contains("deeper than 128 levels"), "{over}");
            assert!(parse(nested(100_000).as_bytes()).is_err());
            let text = format!("[\"\\\"{}\"]", "[".repeat(1000));
            assert!(parse(text.as_bytes()).is_ok());
            assert!(parse(b"[1] 2").is_err());
        }
    }

    /// A key that is there twice is refused with its place, however it is written. Equal keys of
    /// different objects are none.
    #[test]
    fn a_key_comes_once() {
        for (text, why) in [
            (r#"{"a": 1, "a": 2}"#, r#"key "a" is there twice: one of both would be lost"#),
            (
                r#"[0, {"b": {"x.y": [{"c": "a", "\u0063": 1}]}}]"#,
                r#"key "c" of [1].b["x.y"][0] is there twice"#,
            ),
            ("{\"a\": {},\n \"b\": {\"a\": 1},\n\"a\": 2}", r#"key "a", line 3, is there twice"#),
        ] {
            for parse in [parse::<Value>, parse_from::<Value>] as [fn(&[u8]) -> _; 2] {
                let said = parse(text.as_bytes()).unwrap_err();
                assert!(said.contains(why), "{said}");
            }
            assert!(value_or_text(text).unwrap_err().contains(why));
            assert!(parse_written::<Value>(text.as_bytes()).is_ok());
        }
        let fine = r#"{"a": {"a": [{"a": "a"}, {"a": "b\"}"}]}, "b": "a", "": {"": 0}, "\\": 1, "\"": 2}"#;
        assert!(parse::<Value>(fine.as_bytes()).is_ok());
        // Many keys cost no more than so many.
        let many: Vec<_> = (0..100_000).map(|n| format!("\"{n}\": 0")).collect();
        let text = |last: &str| format!("{{{}, \"{last}\": 0}}", many.join(", "));
        assert!(parse::<Value>(text("last").as_bytes()).is_ok());
        assert!(parse::<Value>(text("99999").as_bytes()).unwrap_err().contains("\"99999\" is there twice"));
    }

    /// A text that is no JSON is a string, whatever it has in it.
    #[test]
    fn a_value_is_json_or_a_string() {
        assert_eq!(value_or_text("5").unwrap(), json!(5));
        assert_eq!(value_or_text("ann").unwrap(), json!("ann"));
        let odd = r#"{"a": 1, "a": 2} and more"#;
        assert_eq!(value_or_text(odd).unwrap(), json!(odd));
        assert!(value_or_text(&"[".repeat(1000)).unwrap_err().contains("deeper than 128 levels"));
    }

    /// The first unknown key is found where keys are known, and only there.
    #[test]
    fn an_unknown_key_is_found() {
        const ITEM: Shape = Shape::Keys(&[("key", Shape::Any), ("value", Shape::Any)]);
        const ALL: Shape = Shape::Keys(&[("tables", Shape::Map(&Shape::List(&ITEM)))]);
        let found = |text: &str| parse_known::<Value>(text.as_bytes(), ALL).unwrap().1;
        assert_eq!(found(r#"{"tables": {"any": [{"key": {"x": 1}, "value": [{"y": 2}]}]}}"#), None);
        assert_eq!(
            found(r#"{"tables": {"t": [{"key": 1}, {"key": 2, "vlaue": 3, "z": 4}]}}"#).unwrap(),
            "key \"vlaue\" of tables.t[1] is unknown: what it holds would be lost; there are: key, value"
        );
        assert!(found(r#"{"table": 1}"#).unwrap().ends_with("there are: tables"));
    }
}
