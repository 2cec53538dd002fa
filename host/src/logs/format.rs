//! Formats of the log: an entry as a line of text, as a line of JSON, or as fields for journald.
//!
//! Whatever an entry holds is one line. [`crate::printable`] escapes what peers and handlers put
//! in.

use super::entry::{Entry, FieldValue};
use super::journal;
use crate::printable::{json, one_line};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::fmt::Write;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::SystemTime;
use tracing::Level;

/// Format of the log.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// Lines for people.
    #[default]
    Text,
    /// A line of JSON for each entry.
    Json,
    /// The native protocol of journald, with fields.
    Journald,
}

impl LogFormat {
    /// Name of the format, as it is written in the configuration.
    pub fn name(self) -> &'static str {
        match self {
            LogFormat::Text => "text",
            LogFormat::Json => "json",
            LogFormat::Journald => "journald",
        }
    }
}

impl FromStr for LogFormat {
    type Err = String;

    fn from_str(text: &str) -> Result<LogFormat, String> {
        let all = [LogFormat::Text, LogFormat::Json, LogFormat::Journald];
        let found = all.into_iter().find(|format| format.name() == text);
        found.ok_or_else(|| format!("{text:?} is no format of a log; those are text, json and journald"))
    }
}

/// Place and format of a log, as one process of the host tells another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogTo {
    /// Name of the format: another version may have more of them.
    pub format: String,
    /// File; `None`: standard error, or the journal.
    #[serde(default)]
    pub file: Option<PathBuf>,
}

impl Default for LogTo {
    fn default() -> LogTo {
        LogTo { format: LogFormat::default().name().into(), file: None }
    }
}

/// Encoder of entries.
#[derive(Debug, Clone, Copy)]
pub(super) struct Encoder {
    /// The format.
    pub(super) format: LogFormat,
    /// Lines are coloured, for a terminal.
    pub(super) colours: bool,
    /// Name of this process among those of the host.
    pub(super) process: &'static str,
}

impl Encoder {
    /// Encodes an entry.
    pub(super) fn encode(&self, entry: &Entry) -> Vec<u8> {
        match self.format {
            LogFormat::Text => text_line(entry, self.colours).into_bytes(),
            LogFormat::Json => json_line(entry, self.process).into_bytes(),
            LogFormat::Journald => journal::datagram(entry, self.process, &text(entry, false)),
        }
    }
}

/// Name of a level, as the configuration writes it.
pub(super) fn level_name(level: Level) -> &'static str {
    match level {
        Level::ERROR => "error",
        Level::WARN => "warn",
        Level::INFO => "info",
        Level::DEBUG => "debug",
        Level::TRACE => "trace",
    }
}

/// Colour of a level on a terminal.
fn colour(level: Level) -> u8 {
    match level {
        Level::ERROR => 31,
        Level::WARN => 33,
        Level::INFO => 32,
        Level::DEBUG => 34,
        Level::TRACE => 35,
    }
}

/// A time as text, RFC 3339 with microseconds.
fn time(at: SystemTime) -> String {
    let mut text = String::new();
    // A time before 1970 has no such text.
    let _ = write!(text, "{}", humantime::format_rfc3339_micros(at));
    text
}

/// A value in one line of text.
fn value_text(value: &FieldValue) -> String {
    match value {
        FieldValue::Shown(text) => one_line(text).into_owned(),
        FieldValue::Quoted(text) => one_line(&format!("{text:?}")).into_owned(),
        FieldValue::Plain(value) => value.to_string(),
    }
}

/// Message and fields of an entry.
fn text(entry: &Entry, colours: bool) -> String {
    let mut text = one_line(&entry.message).into_owned();
    for (name, value) in &entry.fields {
        let value = value_text(value);
        let _ = match colours {
            true => write!(text, " \x1b[3m{name}\x1b[0m\x1b[2m=\x1b[0m{value}"),
            false => write!(text, " {name}={value}"),
        };
    }
    text
}

/// An entry as a line for people.
fn text_line(entry: &Entry, colours: bool) -> String {
    let (time, level, text) = (time(entry.time), entry.level.as_str(), text(entry, colours));
    match colours {
        true => format!("\x1b[2m{time}\x1b[0m \x1b[{}m{level:>5}\x1b[0m {text}\n", colour(entry.level)),
        false => format!("{time} {level:>5} {text}\n"),
    }
}

/// An entry as a line of JSON: its fields are those of the top.
fn json_line(entry: &Entry, process: &str) -> String {
    let mut line = Map::new();
    line.insert("time".into(), time(entry.time).into());
    line.insert("level".into(), level_name(entry.level).into());
    line.insert("process".into(), process.into());
    line.insert("pid".into(), std::process::id().into());
    line.insert("message".into(), entry.message.as_str().into());
    for (name, value) in &entry.fields {
        let value = match value {
            FieldValue::Shown(text) | FieldValue::Quoted(text) => text.as_str().into(),
            FieldValue::Plain(value) => value.clone(),
        };
        line.insert((*name).to_owned(), value);
    }
    json(&format!("{}\n", Value::Object(line))).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn entry() -> Entry {
        let fields = vec![
            ("service", FieldValue::Shown("chat".into())),
            ("session", FieldValue::Plain(7.into())),
            ("action", FieldValue::Quoted("a \"b\"\u{1b}".into())),
        ];
        let time = SystemTime::UNIX_EPOCH + Duration::from_micros(1_796_000_000_123_456);
        Entry { time, ..Entry::own(Level::WARN, "odd\n2026 \u{202e}words".into(), fields) }
    }

    fn encoded(format: LogFormat, colours: bool) -> String {
        String::from_utf8(Encoder { format, colours, process: "worker" }.encode(&entry())).unwrap()
    }

    #[test]
    fn an_entry_is_one_line_in_each_format() {
        assert_eq!(
            encoded(LogFormat::Text, false),
            "2026-11-30T00:53:20.123456Z  WARN odd\\n2026 \\u{202e}words service=chat session=7 action=\"a \\\"b\\\"\\u{1b}\"\n"
        );
        let coloured = encoded(LogFormat::Text, true);
        assert!(coloured.starts_with("\x1b[2m2026-") && coloured.contains(" \x1b[33m WARN\x1b[0m odd"));
        let line = encoded(LogFormat::Json, false);
        assert!(line.ends_with("}\n") && !line.trim_end().contains(['\n', '\u{1b}', '\u{202e}']), "{line}");
        let json: Value = serde_json::from_str(&line).unwrap();
        assert_eq!((&json["level"], &json["process"]), (&"warn".into(), &"worker".into()));
        assert_eq!((&json["service"], &json["session"]), (&"chat".into(), &7.into()));
        assert_eq!(
            (&json["message"], &json["time"]),
            (&"odd\n2026 \u{202e}words".into(), &"2026-11-30T00:53:20.123456Z".into())
        );
        assert_eq!(json["pid"], std::process::id());
    }

    #[test]
    fn the_journal_gets_a_field_a_line() {
        let datagram = encoded(LogFormat::Journald, false);
        let fields: Vec<_> = datagram.lines().map(|line| line.split_once('=').unwrap()).collect();
        for (name, value) in [
            ("MESSAGE", "odd\\n2026 \\u{202e}words service=chat session=7 action=\"a \\\"b\\\"\\u{1b}\""),
            ("PRIORITY", "4"),
            ("SYSLOG_IDENTIFIER", "greenroom"),
            ("GREENROOM_PROCESS", "worker"),
            ("GREENROOM_SERVICE", "chat"),
            ("GREENROOM_SESSION", "7"),
            ("GREENROOM_ACTION", "a \"b\"\\u{1b}"),
        ] {
            assert!(fields.contains(&(name, value)), "{name} in {datagram}");
        }
    }

    #[test]
    fn formats_are_read_as_they_are_written() {
        for name in ["text", "json", "journald"] {
            assert_eq!(name.parse::<LogFormat>().unwrap().name(), name);
            assert_eq!(serde_json::to_value(name.parse::<LogFormat>().unwrap()).unwrap(), name);
        }
        assert!("syslog".parse::<LogFormat>().unwrap_err().contains("text, json and journald"));
    }
}
