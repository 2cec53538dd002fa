//! Options by which commands select sessions, and the question before a command to many of them.

use crate::admin::client::call;
use crate::cli::output::{CommandFailure, complain};
use crate::protocol::admin::{AdminCommand, Reply, SessionLine};
use crate::protocol::selection::{First, Selection};
use clap::Args;
use greenroom_state::condition::Condition;
use std::io::{BufRead, IsTerminal, Write};
use std::path::Path;
use std::time::Duration;

// Doc comments of the fields are the help text of the command line.
#[derive(Debug, Clone, Default, Args)]
pub(super) struct Select {
    /// Only the sessions of this service
    #[arg(long, value_name = "SERVICE")]
    service: Option<String>,
    /// Only sessions whose peer's address contains this text
    #[arg(long, value_name = "TEXT")]
    peer: Option<String>,
    /// Only sessions whose stored state has a field of this value: profile.age=30, also with !=,
    /// <, <=, > and >=; tags["x.y"] for names with dots. May be repeated: all must hold
    #[arg(long = "where", value_name = "FIELD=VALUE", value_parser = condition)]
    conditions: Vec<String>,
    /// Only sessions that opened at least so long ago, such as 90s or 2h
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    older_than: Option<Duration>,
    /// Only sessions that opened at most so long ago
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    younger_than: Option<Duration>,
    /// Only sessions whose peer has sent nothing for so long
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    idle_for: Option<Duration>,
}

/// Checks a condition, so that a wrong one is an error of usage.
fn condition(text: &str) -> Result<String, String> {
    Condition::parse(text).map(|_| text.to_owned())
}

impl Select {
    /// Selection of these options.
    pub(super) fn selection(self, sessions: Vec<u64>) -> Selection {
        let ms = |time: Option<Duration>| time.map(|t| t.as_millis() as u64);
        Selection {
            service: self.service,
            sessions,
            peer: self.peer,
            older_ms: ms(self.older_than),
            younger_ms: ms(self.younger_than),
            idle_ms: ms(self.idle_for),
            quarantined: false,
            conditions: self.conditions,
        }
    }
}

/// Asks a host for a list of sessions. What an operator should know of the selection goes to
/// standard error.
pub(super) fn listed(
    dir: &Path,
    of: &Selection,
    first: Option<First>,
) -> Result<Vec<SessionLine>, CommandFailure> {
    let mut sessions = Vec::new();
    call(dir, &AdminCommand::Sessions { of: Box::new(of.clone()), first }, |reply| match reply {
        Reply::Sessions(slice) => sessions.extend(slice),
        Reply::Notice(text) => complain(&format!("greenroom: {text}")),
        _ => {}
    })?;
    Ok(sessions)
}

/// Sessions that a command goes to: those that are named, or those that are selected. A command to
/// others than one named session says how many there are, and goes on only if it may.
pub(super) fn chosen(
    dir: &Path,
    of: &Selection,
    all: bool,
    (what, yes): (&str, bool),
) -> Result<Vec<u64>, CommandFailure> {
    must_name(of, all)?;
    if let ([id], false) =
        (&of.sessions[..], Selection { sessions: Vec::new(), ..of.clone() } != Selection::default())
    {
        return Ok(vec![*id]);
    }
    let sessions = listed(dir, of, None).map_err(|failed| match failed {
        CommandFailure::Failed(why) => CommandFailure::Failed(format!("{why}; nothing was done")),
        other => other,
    })?;
    let ids: Vec<_> = sessions.iter().map(|s| s.id).collect();
    match ids.len() {
        0 => Err(CommandFailure::Failed("no session is selected".into())),
        n => confirmed(&format!("{what} {}", counted(n)), yes).map(|()| ids),
    }
}

/// Fails if a command names no sessions and is not for all of them.
fn must_name(of: &Selection, all: bool) -> Result<(), CommandFailure> {
    if *of == Selection::default() && !all {
        let why = "name sessions by number, select them (--service, --peer, --where, …), or give --all";
        return Err(CommandFailure::Usage(why.into()));
    }
    Ok(())
}

/// Sessions that a command would go to, for a dry run. Standard error says so.
pub(super) fn would_reach(
    dir: &Path,
    of: &Selection,
    all: bool,
    what: &str,
) -> Result<Vec<SessionLine>, CommandFailure> {
    must_name(of, all)?;
    let sessions = listed(dir, of, None)?;
    match sessions.len() {
        0 => Err(CommandFailure::Failed("no session is selected".into())),
        n => {
            complain(&format!("greenroom: it would {what} {}; nothing was done", counted(n)));
            Ok(sessions)
        }
    }
}

/// Number of sessions, in words.
pub(super) fn counted(n: usize) -> String {
    if n == 1 { "1 session".into() } else { format!("{n} sessions") }
}

/// Goes on if the operator has said yes: by option, or to a question on the terminal.
pub(super) fn confirmed(what: &str, yes: bool) -> Result<(), CommandFailure> {
    if yes {
        return Ok(());
    }
    if !std::io::stdin().is_terminal() || !std::io::stderr().is_terminal() {
        return Err(CommandFailure::Usage(format!(
            "it would {what}; give --yes to do so without a question"
        )));
    }
    match answered(&format!("{what}? [y/N] "))?.as_str() {
        "y" | "yes" => Ok(()),
        _ => Err(CommandFailure::Failed("nothing was done".into())),
    }
}

/// Answer to a question on the terminal, in small letters. The question has its own words only.
pub(super) fn answered(question: &str) -> Result<String, CommandFailure> {
    let mut answer = String::new();
    let asked = std::io::stderr().write_all(question.as_bytes());
    let heard = asked.and_then(|()| std::io::stdin().lock().read_line(&mut answer));
    heard.map_err(|e| CommandFailure::Failed(format!("the question can't be asked: {e}")))?;
    Ok(answer.trim().to_lowercase())
}
