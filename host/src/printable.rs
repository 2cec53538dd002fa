//! Text of peers, handlers and files, made fit for a terminal and for a line of a log.
//!
//! A control character in such a text could move the cursor, recolour the screen, or begin a line
//! that looks like the host's own. So it is written as its escape: `\n`, `\u{1b}`. Characters that
//! turn the direction of text are written so, too: they would show a text that is not there.
//!
//! Text without such characters is not copied.

use std::borrow::Cow;
use std::fmt::Write;

/// Whether a character could change more than its own place on a screen, or show a text that is not
/// there: controls (C0, DEL, C1), marks of direction, separators of lines, notes between lines, and
/// tags that nobody sees.
fn is_unsafe(c: char) -> bool {
    let turns =
        matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{206f}');
    let hides = matches!(c, '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}');
    c.is_control() || turns || hides
}

/// Escapes every unsafe character, line ends included: for a cell, a reason, a name.
pub fn one_line(text: &str) -> Cow<'_, str> {
    escaped(text, |_| false, |c, out| out.extend(c.escape_default()))
}

/// Escapes every unsafe character but line ends: for a text that is laid out in lines.
pub fn lines(text: &str) -> Cow<'_, str> {
    escaped(text, |c| c == '\n', |c, out| out.extend(c.escape_default()))
}

/// Escapes unsafe characters that JSON may hold as they are. The JSON has no line ends inside, and
/// such characters occur in its strings alone, so it stays the same JSON.
pub fn json(text: &str) -> Cow<'_, str> {
    // Two escapes for a character beyond 16 bits.
    let escape = |c: char, out: &mut String| {
        c.encode_utf16(&mut [0; 2]).iter().for_each(|unit| _ = write!(out, "\\u{unit:04x}"));
    };
    escaped(text, |c| c == '\n', escape)
}

/// Escapes an event of the log, which ends with its line end. `colours`: sequences that only
/// colour are left, as the log itself writes them.
pub fn event(text: &str, colours: bool) -> String {
    let (mut rest, mut out) = (text.strip_suffix('\n').unwrap_or(text), String::with_capacity(text.len()));
    while let Some(at) = rest.find(is_unsafe) {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        let taken = match colour_len(rest).filter(|_| colours) {
            Some(len) => {
                out.push_str(&rest[..len]);
                len
            }
            None => {
                let c = rest.chars().next().unwrap_or_default();
                out.extend(c.escape_default());
                c.len_utf8()
            }
        };
        rest = &rest[taken..];
    }
    out.push_str(rest);
    out.push('\n');
    out
}

/// Length of the sequence that a text begins with, if it only colours: ESC, `[`, numbers, `m`.
fn colour_len(text: &str) -> Option<usize> {
    let numbers = text.strip_prefix("\u{1b}[")?;
    let end = numbers.find(|c: char| !c.is_ascii_digit() && c != ';')?;
    numbers[end..].starts_with('m').then_some(2 + end + 1)
}

/// Text with its unsafe characters escaped, except those that `keeps` wants.
fn escaped(text: &str, keeps: impl Fn(char) -> bool, escape: impl Fn(char, &mut String)) -> Cow<'_, str> {
    let hit = |c: char| is_unsafe(c) && !keeps(c);
    if !text.contains(hit) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if hit(c) { escape(c, &mut out) } else { out.push(c) }
    }
    Cow::Owned(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_moves_the_cursor_or_turns_text_is_escaped_and_the_rest_is_not_copied() {
        let text = "a\u{1b}[2J\r\nb\t\u{9b}\u{7f}\u{202e}\u{61c}\u{e0041}é";
        assert_eq!(one_line(text), "a\\u{1b}[2J\\r\\nb\\t\\u{9b}\\u{7f}\\u{202e}\\u{61c}\\u{e0041}é");
        assert_eq!(lines(text), "a\\u{1b}[2J\\r\nb\\t\\u{9b}\\u{7f}\\u{202e}\\u{61c}\\u{e0041}é");
        assert!(matches!(one_line("µs, naïve"), Cow::Borrowed(_)));
        assert!(matches!(lines("one\ntwo\n"), Cow::Borrowed(_)));
    }

    #[test]
    fn json_stays_the_same_json() {
        let value = serde_json::json!({"a": "x\u{1b}\u{9b}\u{7f}\u{2028}\u{61c}\u{e0041}\n\"y"});
        let text = serde_json::to_string(&value).unwrap();
        let printed = json(&text);
        assert!(!printed.contains(is_unsafe), "{printed}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&printed).unwrap(), value);
    }

    #[test]
    fn an_event_is_one_line_and_keeps_colours_alone() {
        assert_eq!(event("a\nb\u{1b}[2Kc\n", true), "a\\nb\\u{1b}[2Kc\n");
        assert_eq!(event("\u{1b}[2mtime\u{1b}[0m x\n", true), "\u{1b}[2mtime\u{1b}[0m x\n");
        assert_eq!(event("\u{1b}[32mx\n", false), "\\u{1b}[32mx\n");
        assert_eq!(event("", true), "\n");
        assert_eq!(event("\u{1b}[", true), "\\u{1b}[\n");
    }
}
