//! Commands `greenroom sessions` and `greenroom session`: lists the sessions, sends them messages,
//! releases and closes them.
//!
//! The list is gathered whole before it is printed: columns are as wide as their widest cell.
//! Memory is O(list). The host sends slices, so sessions that end meanwhile may be in the list.
//!
//! A command to several sessions goes to those that were counted, by number, and to no others.

use crate::admin::client::call;
use crate::cli::output::{CommandFailure, complain, end_with_the_reader, json_line, print_json, print_text};
use crate::cli::select::{Select, chosen, counted, listed, would_reach};
use crate::cli::table::{Form, Table, table};
use crate::cli::watch::{Watch, end_at_signals};
use crate::printable::one_line;
use crate::protocol::admin::{AdminCommand, Reply, SessionLine};
use crate::protocol::data::Reached;
use crate::protocol::selection::{First, Selection, SortBy};
use clap::{Args, Subcommand};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

/// Numbers in one command to the host, which cuts a command off at 64 KiB.
const NUMBERS_PER_COMMAND: usize = 2000;
/// Most bytes of a message, as JSON: the rest of a command is for the numbers.
const MESSAGE_BYTES_MAX: usize = 40 * 1024;

// Doc comments of the fields are the help text of the command line.
#[derive(Args)]
pub(super) struct Sessions {
    #[command(flatten)]
    select: Select,
    /// Only quarantined sessions
    #[arg(long)]
    quarantined: bool,
    /// Order of the list
    #[arg(long, value_name = "BY", value_enum)]
    sort: Option<SortBy>,
    /// Turn the order round
    #[arg(long)]
    reverse: bool,
    /// Only so many sessions, the first of the order
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    /// Print a line for each session that appears or goes, until Ctrl-C
    #[arg(long, conflicts_with_all = ["limit", "sort", "reverse", "wide"])]
    follow: bool,
    /// All columns, on lines of any length
    #[arg(long, conflicts_with = "json")]
    wide: bool,
    /// JSON, for programs
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    watch: Watch,
}

/// `greenroom session`.
#[derive(Subcommand)]
pub(super) enum Session {
    /// List the sessions: the same as `greenroom sessions`
    List(Box<Sessions>),
    /// Send a line to the peers of sessions, in the framing of each; their handlers aren't told
    Message(Box<MessageArgs>),
    /// Release a quarantined session: it goes on with the code that serves now
    Release { id: u64 },
    /// Close sessions; their handlers are told, and their output is flushed
    Close(Box<Close>),
    /// End a callback that doesn't return: its worker is killed, and the next one runs that action
    /// never again. The session goes into quarantine
    Withhold {
        /// Number of the session, or name of the service whose own turn it is
        of: String,
    },
}

// Doc comments of the fields are the help text of the command line.
#[derive(Args)]
pub(super) struct MessageArgs {
    /// The session's number, unless sessions are selected; and the line, without its end
    #[arg(required = true, num_args = 1..=2, value_names = ["ID", "TEXT"])]
    words: Vec<String>,
    #[command(flatten)]
    select: Select,
    /// All sessions
    #[arg(long)]
    all: bool,
    /// Don't ask before many sessions
    #[arg(long)]
    yes: bool,
    /// List the sessions that it would reach, and do nothing
    #[arg(long)]
    dry_run: bool,
    /// JSON, on one line
    #[arg(long)]
    json: bool,
}

// Doc comments of the fields are the help text of the command line.
#[derive(Args)]
pub(super) struct Close {
    /// The sessions' numbers
    ids: Vec<u64>,
    #[command(flatten)]
    select: Select,
    /// All sessions
    #[arg(long)]
    all: bool,
    /// Also if a callback of the session doesn't return: it is withheld first
    #[arg(long)]
    now: bool,
    /// Don't ask before many sessions
    #[arg(long)]
    yes: bool,
    /// List the sessions that it would reach, and do nothing
    #[arg(long)]
    dry_run: bool,
    /// JSON, on one line
    #[arg(long)]
    json: bool,
}

impl Session {
    /// Runs the command. A command to one session prints nothing on success, and fails if no open
    /// session has the number.
    pub(super) fn run(self, dir: &Path) -> Result<(), CommandFailure> {
        let command = match self {
            Session::List(sessions) => return sessions.run(dir),
            Session::Message(message) => return message.run(dir),
            Session::Close(close) => return close.run(dir),
            Session::Release { id } => AdminCommand::Release(id),
            Session::Withhold { of } => AdminCommand::Withhold(of),
        };
        Ok(call(dir, &command, |_| {})?)
    }
}

impl MessageArgs {
    /// Runs the command.
    fn run(self, dir: &Path) -> Result<(), CommandFailure> {
        let MessageArgs { mut words, select, all, yes, dry_run, json } = self;
        let text = words.pop().unwrap_or_default();
        let id = words.pop().map(|word| {
            let wrong = |_| CommandFailure::Usage(format!("{word:?} is no session's number"));
            word.parse::<u64>().map_err(wrong)
        });
        let of = select.selection(id.transpose()?.into_iter().collect());
        if of == Selection::default() && !all && text.parse::<u64>().is_ok() {
            return Err(CommandFailure::Usage(format!(
                "what is session {text} to be sent? Give the text behind it"
            )));
        }
        if text.contains('\n') || serde_json::to_string(&text).is_ok_and(|t| t.len() > MESSAGE_BYTES_MAX) {
            return Err(CommandFailure::Usage(format!(
                "a message is one line of at most {MESSAGE_BYTES_MAX} bytes"
            )));
        }
        if dry_run {
            return would_reach(dir, &of, all, "send the message to").map(|found| show(&found, false, json));
        }
        let ids = chosen(dir, &of, all, ("send the message to", yes))?;
        let command =
            |sessions: &[u64]| AdminCommand::Message { sessions: sessions.to_vec(), text: text.clone() };
        to_each(dir, &ids, command, ("sent to", json))
    }
}

impl Close {
    /// Runs the command.
    fn run(self, dir: &Path) -> Result<(), CommandFailure> {
        let Close { ids, select, all, now, yes, dry_run, json } = self;
        let of = select.selection(ids);
        if dry_run {
            return would_reach(dir, &of, all, "close").map(|found| show(&found, false, json));
        }
        let ids = chosen(dir, &of, all, ("close", yes))?;
        if now {
            // Refused unless a callback of this session runs. The close says what is wrong then, if
            // it can't be carried out either.
            for id in &ids {
                let _ = call(dir, &AdminCommand::Withhold(id.to_string()), |_| {});
            }
        }
        to_each(dir, &ids, |ids| AdminCommand::CloseAll(ids.to_vec()), ("closed", json))
    }
}

/// Sends a command to sessions, and tells what came of it. One session that can't be reached is a
/// failure with its reason; of many, those are counted, and it fails if none was reached.
fn to_each(
    dir: &Path,
    ids: &[u64],
    command: impl Fn(&[u64]) -> AdminCommand,
    (done, json): (&str, bool),
) -> Result<(), CommandFailure> {
    let mut reached = Reached::default();
    for some in ids.chunks(NUMBERS_PER_COMMAND) {
        call(dir, &command(some), |reply| {
            if let Reply::Reached(more) = reply {
                reached.done += more.done;
                reached.refused_count += more.refused_count;
                reached.refused.extend(more.refused);
            }
        })?;
    }
    if json {
        print_json(&reached);
    } else if ids.len() > 1 {
        print_text(&format!("{done} {}\n", counted(reached.done)));
        for why in reached.refused.values() {
            complain(&format!("greenroom: {}", one_line(why)));
        }
        let unnamed = reached.refused_count.saturating_sub(reached.refused.len());
        if unnamed > 0 {
            complain(&format!("greenroom: and {unnamed} more"));
        }
    }
    match reached.refused.into_values().next() {
        Some(why) if ids.len() == 1 && !json => Err(CommandFailure::Failed(one_line(&why).into_owned())),
        _ if reached.done == 0 => Err(CommandFailure::Failed(String::new())),
        _ => Ok(()),
    }
}

impl Sessions {
    /// Runs the command.
    pub(super) fn run(self, dir: &Path) -> Result<(), CommandFailure> {
        let Sessions { select, quarantined, sort, reverse, limit, follow, wide, json, watch } = self;
        let of = Selection { quarantined, ..select.selection(Vec::new()) };
        if follow {
            return follow_on(dir, &of, json, watch.every().unwrap_or(Duration::from_secs(1)));
        }
        let sorted = sort.is_some() || reverse || limit.is_some();
        let by = sort.unwrap_or(SortBy::Id);
        let first = sorted.then_some(First { by, reverse, count: limit.unwrap_or(usize::MAX / 4) });
        watch.run(!json, || Ok(text_of(&listed(dir, &of, first)?, wide, json)))
    }
}

/// Prints sessions.
fn show(sessions: &[SessionLine], wide: bool, json: bool) {
    print_text(&text_of(sessions, wide, json));
}

/// Sessions as a table, or as JSON.
fn text_of(sessions: &[SessionLine], wide: bool, json: bool) -> String {
    match json {
        true => json_line(&sessions),
        false => laid_out(sessions).in_form(Form::of_output(wide)) + "\n",
    }
}

/// Table of sessions. What is zero or does not apply is an empty cell.
fn laid_out(sessions: &[SessionLine]) -> Table {
    let mut table = table(&[
        "ID",
        "SERVICE",
        "BY",
        "PEER",
        "OPENED",
        "IDLE",
        "STATE",
        "TURNS",
        "IN",
        "OUT",
        "UNSENT",
        "WAITS FOR",
        "QUARANTINED",
    ]);
    for s in sessions {
        table.add_row([
            s.id.to_string(),
            s.service.clone(),
            if s.over_tls { format!("tls+{}", s.endpoint) } else { s.endpoint.clone() },
            s.peer.clone(),
            s.opened_at.clone(),
            in_seconds(s.idle_ms),
            if s.state_version == 0 { "-".into() } else { format!("v{}", s.state_version) },
            s.turns.to_string(),
            s.bytes_in.to_string(),
            s.bytes_out.to_string(),
            if s.unsent == 0 { String::new() } else { s.unsent.to_string() },
            s.waits_for.clone().unwrap_or_default(),
            s.quarantined.clone().unwrap_or_default(),
        ]);
    }
    table
}

/// Time in words, in whole seconds.
fn in_seconds(ms: u64) -> String {
    humantime::format_duration(Duration::from_secs(ms / 1000)).to_string()
}

/// Prints the selected sessions, and then a line for each that appears or goes. A session that
/// appears and goes between two looks is not told. O(sessions) for each look.
fn follow_on(dir: &Path, of: &Selection, json: bool, every: Duration) -> Result<(), CommandFailure> {
    end_at_signals(false)?;
    end_with_the_reader();
    let mut before: Option<BTreeMap<u64, SessionLine>> = None;
    loop {
        let now: BTreeMap<_, _> = listed(dir, of, None)?.into_iter().map(|s| (s.id, s)).collect();
        let is_in = |sessions: &Option<BTreeMap<u64, SessionLine>>, id| {
            sessions.as_ref().is_some_and(|sessions| sessions.contains_key(id))
        };
        let mut text = String::new();
        for gone in before.iter().flatten().filter(|(id, _)| !now.contains_key(id)) {
            text += &event("gone", gone.1, json);
        }
        let word = if before.is_none() { "open" } else { "appeared" };
        for new in now.iter().filter(|(id, _)| !is_in(&before, id)) {
            text += &event(word, new.1, json);
        }
        if !text.is_empty() {
            print_text(&text);
        }
        before = Some(now);
        std::thread::sleep(every);
    }
}

/// Line about a session that appeared or went.
fn event(word: &str, s: &SessionLine, json: bool) -> String {
    if json {
        let mut line = json!({ "event": word });
        if let (Value::Object(line), Ok(Value::Object(session))) = (&mut line, serde_json::to_value(s)) {
            line.extend(session);
        }
        return json_line(&line);
    }
    let age = in_seconds(s.age_ms);
    format!("{word:<8} {} {} {}, open for {age}, {} turns\n", s.id, s.service, one_line(&s.peer), s.turns)
}
