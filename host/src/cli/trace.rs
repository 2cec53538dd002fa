//! Command `greenroom trace`: prints turns as they happen.
//!
//! A turn is a few short lines: its action, the fields of the state that it changed, its effects,
//! and what came of it. Data that is long is cut; `--json` has all of it, a line for each turn.

use crate::admin::follow::{Watched, follow};
use crate::cli::output::{CommandFailure, complain, end_with_the_reader, print_json, print_text};
use crate::cli::watched::WatchedService;
use crate::protocol::admin::Reply;
use crate::protocol::watch::TracedTurn;
use clap::Args;
use greenroom_core::turn::effect_record::EffectRecord;
use greenroom_core::turn::turn_record::ActionRecord;
use greenroom_core::watch::subject::Subject;
use greenroom_state::abi::level;
use greenroom_state::byte_text::ByteText;
use serde_json::Value;
use std::fmt::Write;
use std::path::Path;
use std::time::Duration;

/// Characters of data, and of a value, that are shown.
const SHOWN_MAX: usize = 120;

// Doc comments of the fields are the help text of the command line.
#[derive(Args)]
pub(super) struct Trace {
    /// Numbers of sessions
    #[arg(value_name = "ID", conflicts_with_all = ["service", "peer"])]
    sessions: Vec<u64>,
    #[command(flatten)]
    of: WatchedService,
    /// End after this time, such as 30s or 10m
    #[arg(long = "for", value_name = "DURATION", value_parser = humantime::parse_duration)]
    time: Option<Duration>,
    /// JSON, for programs: a line for each turn
    #[arg(long)]
    json: bool,
}

impl Trace {
    /// Runs the command. Ends with the sessions that it names, with the time, or with the host.
    pub(super) fn run(self, dir: &Path) -> Result<(), CommandFailure> {
        let subject = match self.of.subject(1000)? {
            Some(subject) => subject,
            None if self.sessions.is_empty() => {
                let why = "what shall be traced? Name a session, --service or --peer; `greenroom sessions` lists them";
                return Err(CommandFailure::Usage(why.into()));
            }
            None => Subject::Sessions(self.sessions.clone()),
        };
        end_with_the_reader();
        let mut has_begun = false;
        let ended = follow(dir, &subject, self.time, None, |watched| match watched {
            Watched::Reply(Reply::Turn(turn)) if self.json => print_json(&turn),
            Watched::Reply(Reply::Turn(turn)) => print_text(&in_words(&turn)),
            Watched::Reply(Reply::LeftOut(turns)) if self.json => {
                print_json(&serde_json::json!({ "left_out": turns }));
            }
            Watched::Reply(Reply::LeftOut(turns)) => {
                print_text(&format!("... {turns} turns left out: they came faster than they were read\n"));
            }
            Watched::WorkerEnded => {
                complain("greenroom: the worker has ended; turns are traced again once a fresh one serves");
            }
            // The first one says that the watch has begun.
            Watched::Reply(_) if !has_begun => {
                has_begun = true;
                complain("tracing; turns are printed as they happen");
            }
            Watched::Reply(_) => {}
        });
        Ok(ended?)
    }
}

/// Describes a turn in a few lines.
fn in_words(t: &TracedTurn) -> String {
    let time = t.at.split('T').next_back().unwrap_or_default().trim_end_matches('Z');
    let who = match t.session {
        0 => t.service.clone(),
        id => format!("{} {id} ({})", t.service, t.peer),
    };
    let took = t.took_us.map_or(String::new(), |us| format!(", {us:.1} us"));
    let mut text =
        format!("{time} {who} turn {}, generation {}{took}: {}\n", t.turn, t.generation, action(&t.action));
    let mut add = |line: String| {
        let _ = writeln!(text, "  {line}");
    };
    if let Some(version) = t.migrated_from {
        add(format!("state migrated from version {version}"));
    }
    for c in &t.changes {
        let (field, show) = (if c.field.is_empty() { "state" } else { &c.field }, shown_value);
        add(match (&c.before, &c.after) {
            (None, Some(after)) => format!("{field}: {}", show(after)),
            (Some(before), None) => format!("{field}: {} -> gone", show(before)),
            (before, after) => {
                let of = |v: &Option<Value>| v.as_ref().map_or("none".into(), show);
                format!("{field}: {} -> {}", of(before), of(after))
            }
        });
    }
    if let Some(raw) = &t.raw {
        add(format!("state: {}", shown_value(raw)));
    }
    t.effects.iter().for_each(|e| add(effect(e)));
    if t.closes {
        let words =
            t.close_words.as_ref().map_or(String::new(), |(code, why)| format!(" with {code} {why:?}"));
        add(format!("closes the session{words}"));
    }
    for line in &t.log {
        add(format!("log {}: {}", level_name(line.level), shown(&line.message)));
    }
    if let Some(f) = &t.fault {
        let place = if f.file.is_empty() { String::new() } else { format!(" ({}:{})", f.file, f.line) };
        add(format!("failed: {}{place}", shown(&f.message)));
    }
    match (t.outcome.as_str(), &t.reason) {
        ("refused", Some(why)) => add(format!("refused: {why}")),
        ("asked-before", _) => add("the previous build runs it again".into()),
        ("quarantined", _) => add("the session is quarantined until other code serves".into()),
        _ => {}
    }
    text
}

/// Describes an action.
fn action(a: &ActionRecord) -> String {
    let mut text = a.action.clone();
    if !a.name.is_empty() {
        let _ = write!(text, " {}", bytes(&a.name));
    }
    if a.from > 0 {
        let _ = write!(text, " from {}", a.from);
    }
    if !a.data.is_empty() {
        let _ = write!(text, " {}", bytes(&a.data));
    }
    text
}

/// Describes an effect.
fn effect(e: &EffectRecord) -> String {
    let mut text = e.effect.clone();
    let mut add = |word: &str, part: String| {
        let _ = write!(text, "{word}{part}");
    };
    if let Some(table) = &e.table {
        add(" ", String::from_utf8_lossy(&table.0).into_owned());
    }
    e.topics.iter().for_each(|topic| add(" to ", bytes(topic)));
    e.name.iter().filter(|n| !n.is_empty()).for_each(|name| add(" ", bytes(name)));
    e.key.iter().for_each(|key| add(" ", bytes(key)));
    e.service.iter().for_each(|service| add(" for ", service.clone()));
    e.address.iter().for_each(|address| add(" to ", address.clone()));
    e.session.iter().for_each(|id| add(" to session ", id.to_string()));
    e.number.iter().for_each(|number| add(" ", number.to_string()));
    e.in_ns
        .iter()
        .for_each(|ns| add(" in ", humantime::format_duration(Duration::from_nanos(*ns)).to_string()));
    e.until_ms.iter().for_each(|ms| add(" until ", crate::admin::time::rfc3339(*ms)));
    e.how.iter().for_each(|how| add(", ", how.clone()));
    e.data.iter().for_each(|data| add(if e.table.is_some() { " = " } else { " " }, packed_or_bytes(e, data)));
    text
}

/// Data of an effect: the value of an entry as JSON, if it is MessagePack; other bytes as text.
fn packed_or_bytes(e: &EffectRecord, data: &ByteText) -> String {
    match e.table.as_ref().and_then(|_| greenroom_state::json::to_json(&data.0).ok()) {
        Some(value) => shown_value(&value),
        None => bytes(data),
    }
}

/// Bytes in quotes, cut if they are long.
fn bytes(of: &ByteText) -> String {
    let text = String::from_utf8_lossy(&of.0);
    let mut cut: String = text.chars().take(SHOWN_MAX).collect();
    let is_cut = cut.len() < text.len();
    cut = format!("{cut:?}");
    if is_cut { format!("{cut}... ({} bytes)", of.0.len()) } else { cut }
}

/// Value as JSON, cut if it is long.
fn shown_value(value: &Value) -> String {
    shown(&value.to_string())
}

/// Text on one line, cut if it is long.
fn shown(text: &str) -> String {
    let line = crate::printable::one_line(text);
    match line.char_indices().nth(SHOWN_MAX) {
        Some((at, _)) => format!("{}...", &line[..at]),
        None => line.into_owned(),
    }
}

/// Name of a level of the log.
fn level_name(of: u32) -> &'static str {
    match of {
        level::ERROR => "error",
        level::WARN => "warn",
        level::INFO => "info",
        level::DEBUG => "debug",
        _ => "trace",
    }
}
