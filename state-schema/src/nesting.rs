//! Nesting of values: one bound for states, their JSON, and the text of that.
//!
//! A value of MessagePack has at most [`DEPTH_MAX`] levels. The SDK, edits and restores refuse a
//! deeper one, so a dump shows each state that was stored, and a restore takes it back.
//!
//! A level of MessagePack takes up to three levels of JSON: a map whose keys are no strings is a
//! list of pairs in a tag. The parser's own bound (128 levels) is too low for that, and without one
//! a text could use up the stack. So the levels of a text are counted while it is read.

use serde::de::DeserializeOwned;
use std::io::{self, Read};

/// Levels that a MessagePack value may have. A plain value has one, a list one more than the
/// deepest item in it. Bounds the stack that a conversion takes.
pub const DEPTH_MAX: usize = 128;

/// Levels of JSON that a text may have: three for each level of a value, and some for what is
/// around it in a dump.
const TEXT_DEPTH_MAX: usize = 3 * DEPTH_MAX + 8;

/// Reason to refuse a value that has too many levels.
pub fn too_deep() -> String {
    format!("it nests deeper than {DEPTH_MAX} levels")
}

/// Parses a text of JSON, which may nest as deep as a value in a dump. Fails on deeper ones, on
/// text that is no JSON of this type, and on text behind it.
pub fn parse<T: DeserializeOwned>(text: &[u8]) -> Result<T, String> {
    let mut levels = Levels::default();
    if !levels.pass(text) {
        return Err(too_deep());
    }
    parse_by(serde_json::Deserializer::from_slice(text))
}

/// Parses JSON as [`parse`] does, while it is read.
pub fn parse_from<T: DeserializeOwned>(from: impl Read) -> Result<T, String> {
    parse_by(serde_json::Deserializer::from_reader(Counted { from, levels: Levels::default() }))
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

/// Place in a text, as far as brackets are concerned.
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

/// Counter of levels. Text that is no JSON is the parser's to refuse.
#[derive(Default)]
struct Levels {
    /// Brackets that are open.
    depth: usize,
    text: Text,
}

impl Levels {
    /// Counts the levels of some more text. False: there are too many.
    fn pass(&mut self, text: &[u8]) -> bool {
        for byte in text {
            match (self.text, byte) {
                (Text::Outside, b'"') => self.text = Text::Inside,
                (Text::Outside, b'[' | b'{') => self.depth += 1,
                (Text::Outside, b']' | b'}') => self.depth = self.depth.saturating_sub(1),
                (Text::Inside, b'"') => self.text = Text::Outside,
                (Text::Inside, b'\\') => self.text = Text::Escaped,
                (Text::Escaped, _) => self.text = Text::Inside,
                _ => {}
            }
            if self.depth > TEXT_DEPTH_MAX {
                return false;
            }
        }
        true
    }
}

/// Reader that fails if the text nests too deep.
struct Counted<R> {
    from: R,
    levels: Levels,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        let len = self.from.read(to)?;
        match self.levels.pass(&to[..len]) {
            true => Ok(len),
            false => Err(io::Error::other(too_deep())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    /// Text of the last level is parsed within the stack of a thread, and one more level is
    /// refused. Brackets in strings don't count.
    #[test]
    fn a_text_is_parsed_to_a_depth() {
        let nested = |levels: usize| "[".repeat(levels) + "1" + &"]".repeat(levels);
        let small = std::thread::Builder::new().stack_size(1 << 20);
        let parsed = small.spawn(move || parse::<Value>(nested(TEXT_DEPTH_MAX).as_bytes()).is_ok());
        assert!(parsed.unwrap().join().unwrap());
        let over = parse::<Value>(nested(TEXT_DEPTH_MAX + 1).as_bytes()).unwrap_err();
        assert!(over.contains("deeper than 128 levels"), "{over}");
        assert!(parse::<Value>(nested(100_000).as_bytes()).is_err());
        let text = format!("[\"\\\"{}\"]", "[".repeat(1000));
        assert!(parse::<Value>(text.as_bytes()).is_ok());
        assert!(parse::<Value>(b"[1] 2").is_err());
    }
}
