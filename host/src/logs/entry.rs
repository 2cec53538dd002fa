//! Entry of the log: what an event holds, read once, before it is encoded in some format.
//!
//! Texts are bounded, so a line is: a peer's words may be in it.

use super::levels::SERVICE;
use serde_json::Value;
use std::fmt::{self, Write};
use std::time::SystemTime;
use tracing::field::{Field, Visit};
use tracing::{Event, Level};

/// Most bytes of a message. What is beyond is left out, and the message says so.
const MESSAGE_BYTES_MAX: usize = 32 * 1024;
/// Most bytes of a field's text.
const FIELD_BYTES_MAX: usize = 4 * 1024;
/// Name of the field that holds an event's message.
const MESSAGE: &str = "message";

/// An entry of the log.
pub(super) struct Entry {
    /// Time of the event.
    pub(super) time: SystemTime,
    /// Level of the event.
    pub(super) level: Level,
    /// Message of the event.
    pub(super) message: String,
    /// All other fields, in the order of the call site.
    pub(super) fields: Vec<(&'static str, FieldValue)>,
    /// File and line of the call site, if known.
    pub(super) place: Option<(&'static str, u32)>,
}

/// Value of a field.
pub(super) enum FieldValue {
    /// A text, as the call site shows it.
    Shown(String),
    /// A text that was given as one: quoted where lines are for people.
    Quoted(String),
    /// A number or a truth.
    Plain(Value),
}

impl Entry {
    /// Entry that the log itself makes.
    pub(super) fn own(level: Level, message: String, fields: Vec<(&'static str, FieldValue)>) -> Entry {
        Entry { time: SystemTime::now(), level, message, fields, place: None }
    }

    /// Reads an event.
    pub(super) fn of(event: &Event<'_>) -> Entry {
        let site = event.metadata();
        let place = site.file().zip(site.line());
        let mut entry = Entry { place, ..Entry::own(*site.level(), String::new(), Vec::new()) };
        event.record(&mut entry);
        entry
    }
}

impl Visit for Entry {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        match field.name() {
            MESSAGE => self.message = bounded(value, MESSAGE_BYTES_MAX),
            name => self.fields.push((name, FieldValue::Shown(bounded(value, FIELD_BYTES_MAX)))),
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            MESSAGE => self.message = bounded(&format_args!("{value}"), MESSAGE_BYTES_MAX),
            name => {
                let text = bounded(&format_args!("{value}"), FIELD_BYTES_MAX);
                self.fields.push((name, FieldValue::Quoted(text)));
            }
        }
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.fields.push((field.name(), FieldValue::Plain(value.into())));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.fields.push((field.name(), FieldValue::Plain(value.into())));
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.fields.push((field.name(), FieldValue::Plain(value.into())));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.fields.push((field.name(), FieldValue::Plain(value.into())));
    }
}

/// Service and session of an event, read before all else: an event that is left out costs no more.
#[derive(Default)]
pub(super) struct Subject {
    /// Name of the service; empty: none.
    pub(super) service: String,
    /// Number of the session; 0: none.
    pub(super) session: u64,
}

impl Subject {
    /// Reads an event.
    pub(super) fn of(event: &Event<'_>) -> Subject {
        let mut subject = Subject::default();
        event.record(&mut subject);
        subject
    }
}

impl Visit for Subject {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == SERVICE {
            self.service = bounded(value, FIELD_BYTES_MAX);
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.record_debug(field, &format_args!("{value}"));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        if field.name() == "session" {
            self.session = value;
        }
    }
}

/// Message of an event alone.
pub(super) fn message(event: &Event<'_>) -> String {
    struct MessageText(String);
    impl Visit for MessageText {
        fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
            if field.name() == MESSAGE {
                self.0 = bounded(value, FIELD_BYTES_MAX);
            }
        }
    }
    let mut message = MessageText(String::new());
    event.record(&mut message);
    message.0
}

/// Text of a value, of so many bytes at most.
fn bounded(value: &dyn fmt::Debug, bytes_max: usize) -> String {
    let mut text = Bounded { text: String::new(), bytes_max, left_out: 0 };
    // A value that fails to show itself has shown its beginning.
    let _ = write!(text, "{value:?}");
    if text.left_out > 0 {
        let _ = write!(text.text, "... ({} bytes left out)", text.left_out);
    }
    text.text
}

/// Text with a bound.
struct Bounded {
    text: String,
    bytes_max: usize,
    left_out: usize,
}

impl Write for Bounded {
    fn write_str(&mut self, piece: &str) -> fmt::Result {
        let room = if self.left_out > 0 { 0 } else { self.bytes_max - self.text.len() };
        let taken = piece.floor_char_boundary(room);
        self.text.push_str(&piece[..taken]);
        self.left_out += piece.len() - taken;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_beyond_its_bound_is_cut_between_two_characters() {
        assert_eq!(bounded(&format_args!("{}", "é".repeat(3)), 6), "ééé");
        assert_eq!(bounded(&format_args!("{}{}", "é".repeat(3), "ab"), 5), "éé... (4 bytes left out)");
        assert_eq!(bounded(&"x", 5), "\"x\"");
    }
}
