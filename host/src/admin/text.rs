//! Ledger lines as sentences, for logs and commands.
//!
//! The worker's log and the command line print the same words, so an operator can search the
//! log for what a command has said. Programs read `--json`, not these sentences.
//!
//! Cannot fail: a field that is missing is left out. Lines of older versions have fewer fields.

use crate::printable::one_line;
use greenroom_core::ledger::{CanaryReport, Outcome, ProbationState, Report, Restored};

/// Names an operator as the ledger does. A client finds its own lines by this name, so both
/// sides must call this function.
pub fn operator(uid: u32, pid: i32) -> String {
    format!("uid {uid} pid {pid}")
}

/// Whether a requester that the ledger names is an operator. The audit log has the change of an
/// operator already.
pub fn is_operator(by: &str) -> bool {
    by.starts_with("uid ")
}

/// Tells a line of the ledger in a sentence, without its number, its time and its requester. A
/// reason may hold a handler's words, so line ends and other control characters are escaped.
pub fn ledger_line(r: &Report) -> String {
    one_line(&sentence(r)).into_owned()
}

/// The sentence, with all that its parts hold.
fn sentence(r: &Report) -> String {
    if let Some(restored) = &r.restored {
        return restored_line(r, restored);
    }
    // Twelve digits tell builds apart and fit into a line. A build that could not be read has
    // none.
    let build = r.build.get(..12).unwrap_or("none");
    match r.outcome {
        Outcome::Committed => {
            let on_probation = match r.probation.as_ref().map(|p| p.state) {
                Some(ProbationState::UnderWay) => ", on probation",
                Some(ProbationState::Passed) => ", has proved itself",
                _ => "",
            };
            // Empty for most commits.
            let mut but = if r.reason.is_empty() { String::new() } else { format!("; {}", r.reason) };
            if let Some(words) = canary_words(r) {
                but += &format!("; {words}");
            }
            format!(
                "{}: generation {} committed, build {build}, {} sessions, pause {:.1} µs{on_probation}{but}",
                r.library, r.generation, r.sessions, r.pause_us
            )
        }
        // A configuration that changes nothing has no build.
        Outcome::Unchanged if r.build.is_empty() => format!("{}: unchanged", r.library),
        Outcome::Unchanged => {
            format!("{}: unchanged, generation {} runs build {build} already", r.library, r.generation)
        }
        Outcome::RolledBack if r.reason.is_empty() => {
            format!("{}: rolled back to generation {}, build {build}", r.library, r.generation)
        }
        Outcome::RolledBack => {
            format!("{}: rolled back to generation {}, build {build}: {}", r.library, r.generation, r.reason)
        }
        Outcome::Rehearsed => {
            format!("{}: would be committed, build {build}; generation {} serves on", r.library, r.generation)
        }
        Outcome::Configured => format!("{}: in force: {}; pause {:.1} µs", r.library, r.reason, r.pause_us),
        Outcome::Restored => "state restored".to_owned(),
        Outcome::Canary => {
            format!(
                "{}: {}, build {build}; generation {} serves on, pause {:.1} µs",
                r.library,
                canary_words(r).unwrap_or_default(),
                r.generation,
                r.pause_us
            )
        }
        Outcome::TakenBack => {
            format!(
                "{}: {}; {}; generation {} serves all sessions, pause {:.1} µs",
                r.library,
                r.reason,
                canary_words(r).unwrap_or_default(),
                r.generation,
                r.pause_us
            )
        }
        Outcome::Replaced => {
            format!("{}: build {build} was replaced, generation {} serves", r.library, r.generation)
        }
        Outcome::Refused => match r.generation {
            0 => format!("{}: refused: {}", r.library, r.reason),
            n => format!("{}: refused, generation {n} serves on: {}", r.library, r.reason),
        },
    }
}

/// Tells which sessions run a canary's candidate.
fn included(canary: &CanaryReport) -> String {
    let share = f64::from(canary.share) / 100.0;
    match (canary.share, canary.chosen) {
        (_, 0) => format!("for {share} % of new sessions"),
        (0, n) => format!("for {n} chosen sessions"),
        (_, n) => format!("for {n} chosen sessions and {share} % of new ones"),
    }
}

/// Tells which sessions a canary begins with, or what was counted of it by its end; `None`: the
/// line is about no canary.
pub fn canary_words(r: &Report) -> Option<String> {
    let canary = r.canary.as_ref()?;
    let CanaryReport { generation, sessions, turns, faults, compared, differing, .. } = canary;
    Some(match r.outcome {
        Outcome::Canary => format!("generation {generation} runs as a canary {}", included(canary)),
        _ => format!(
            "as a canary it ran {turns} turns in {sessions} sessions, {faults} failed, and {differing} of {compared} \
             compared batches differed"
        ),
    })
}

/// Tells a restore, a change of one session's state or of single entries, or the undoing of a
/// change in a sentence. Counts only; `state restore` prints the sessions and tables below it.
fn restored_line(r: &Report, restored: &Restored) -> String {
    let Restored { file, session, fields, changed, missing, tables, keys, undoes, .. } = restored;
    // What is changed, what is done to it, and where it is from.
    let (what, done, from) = match (undoes, session, file) {
        (Some(line), ..) => (format!("change of line {line}"), "undone", String::new()),
        (_, Some(id), _) => (format!("state of session {id}"), "set", String::new()),
        (.., Some(file)) => ("state".to_owned(), "restored", format!(" from {file}")),
        _ => (entries_in_words(tables.keys(), keys), "changed", String::new()),
    };
    if r.outcome == Outcome::Refused {
        return format!("{what} not {done}{from}: {}", r.reason);
    }
    if session.is_some() {
        return format!("{what} set: {}, pause {:.1} µs", fields.join(", "), r.pause_us);
    }
    let (put, deleted) = tables.values().fold((0, 0), |(p, d), t| (p + t.put, d + t.deleted));
    let mut parts = Vec::new();
    if keys.is_empty() {
        parts.push(format!("{changed} sessions"));
    }
    if !tables.is_empty() {
        parts.push(format!("{put} entries put, {deleted} deleted"));
    }
    if *missing > 0 {
        parts.push(format!("{missing} sessions gone"));
    }
    match r.outcome {
        Outcome::Rehearsed => format!("{what} would be {done}{from}: {}", parts.join(", ")),
        _ => format!("{what} {done}{from}: {}, pause {:.1} µs", parts.join(", "), r.pause_us),
    }
}

/// Names entries that are changed one by one.
fn entries_in_words<'t>(tables: impl Iterator<Item = &'t String>, keys: &[String]) -> String {
    let tables: Vec<_> = tables.map(String::as_str).collect();
    let of = if tables.is_empty() { String::new() } else { format!("table {}, ", tables.join(", ")) };
    format!("{of}entries {}", keys.join(", "))
}
