//! Command `greenroom state`: dumps the states of sessions and tables as JSON, and restores
//! them.
//!
//! | subcommand | changes | runs again if the worker dies |
//! | --- | --- | --- |
//! | `dump` | nothing | if nothing was printed yet |
//! | `show`, `diff` | nothing | yes |
//! | `restore` | all that the dump names, or nothing | never |
//! | `set`, `edit` | fields of one state, or nothing | never |
//!
//! A restore that was refused ends with exit code 1 and leaves a line in the ledger. The host
//! checks each item with the code that serves; this side only cuts the file into pieces.

use crate::admin::client::{call, call_recorded, call_with};
use crate::admin::text::ledger_line;
use crate::cli::changes::end;
use crate::cli::dump_file::{Dumped, open, pieces, pieces_of_lines};
use crate::cli::output::{
    CommandFailure, complain, end_with_the_reader, print_json, print_json_text, print_text,
};
use crate::cli::select::Select;
use crate::cli::state_diff::Diff;
use crate::cli::state_edit::{Edit, Show};
use crate::protocol::admin::{AdminCommand, Piece, Reply};
use clap::{Args, Subcommand};
use greenroom_core::ledger::{Outcome, Report, Restored};
use greenroom_state::parse::value_or_text;
use greenroom_state::path::FieldPath;
use serde_json::Value;
use std::fmt::Write;
use std::path::{Path, PathBuf};

/// Most bytes of the fields in a `set`. The host cuts a command off at 64 KiB; the difference
/// is for its other parts and for escapes.
const FIELDS_BYTES_MAX: usize = 48 * 1024;
/// Sessions that people are told by number; `--json` has up to 100.
const NAMED_MAX: usize = 20;

// Doc comments of the variants and fields are the help text of the command line.
#[derive(Subcommand)]
pub(super) enum State {
    /// Print sessions with their states, and tables, as JSON
    Dump(Dump),
    /// Show one session and its state, or a field of it
    Show(Show),
    /// Edit a session's state in $VISUAL or $EDITOR; stored only if it is still the one shown
    Edit(Edit),
    /// Say how two dumps differ, or a dump and what the host holds now
    Diff(Diff),
    /// Restore states and tables from a dump: all of it, or nothing
    Restore(Restore),
    /// Set fields of a session's state
    Set(Set),
}

#[derive(Args)]
pub(super) struct Dump {
    #[command(flatten)]
    select: Select,
    /// Only this session. May be repeated
    #[arg(long, value_name = "ID")]
    session: Vec<u64>,
    /// Write a line of JSON for each session and entry
    #[arg(long)]
    ndjson: bool,
    /// Write integers beyond 2^53 as strings, {"$int": "..."}, which `restore` reads back. For
    /// programs like jq, which would change them
    #[arg(long)]
    strings: bool,
    /// Accepted for scripts: a dump is always JSON
    #[arg(long, hide = true)]
    json: bool,
}

#[derive(Args)]
pub(super) struct Restore {
    /// Output of `greenroom state dump`, edited or not; -: standard input. Sessions and tables that
    /// it lacks stay as they are
    file: PathBuf,
    /// Check all of it, change nothing, and say what would change
    #[arg(long)]
    dry_run: bool,
    /// JSON, on one line
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
pub(super) struct Set {
    /// The session's number
    id: u64,
    /// The path of a field, like profile.age, list.0 or tags["x.y"], and its value: JSON, or else a
    /// string
    #[arg(required = true, value_name = "FIELD=VALUE")]
    fields: Vec<String>,
    /// JSON, on one line
    #[arg(long)]
    json: bool,
}

impl State {
    /// Runs the subcommand.
    pub(super) fn run(self, dir: &Path) -> Result<(), CommandFailure> {
        match self {
            State::Dump(dump) => dump.run(dir),
            State::Show(show) => show.run(dir),
            State::Edit(edit) => edit.run(dir),
            State::Diff(diff) => diff.run(dir),
            State::Restore(restore) => restore.run(dir),
            State::Set(set) => set.run(dir),
        }
    }
}

impl Dump {
    /// Streams the dump to standard output, piece by piece, in constant memory. If the answer
    /// breaks off, the output is no JSON and the exit code is 1.
    fn run(self, dir: &Path) -> Result<(), CommandFailure> {
        end_with_the_reader();
        let Dump { select, session, ndjson, strings, .. } = self;
        let of = Box::new(select.selection(session));
        call(dir, &AdminCommand::Dump { of, strings, lines: ndjson }, |reply| match reply {
            Reply::Text(text) => print_json_text(&text),
            Reply::Notice(text) => complain(&format!("greenroom: {text}")),
            _ => {}
        })?;
        Ok(())
    }
}

impl Restore {
    /// Runs the command. Reads a document whole before the host is asked; lines of JSON are sent as
    /// they are read, and their caller's thread of the host waits for them.
    fn run(self, dir: &Path) -> Result<(), CommandFailure> {
        let Restore { file, dry_run, json } = self;
        let (name, from) = open(&file)?;
        // The host refuses a file that is not a dump, so that the ledger tells of it.
        let pieces = match Dumped::read(from) {
            // Boxed: the ways have iterators of different types.
            Ok(Dumped::Whole(dump)) => Box::new(pieces(*dump)) as Box<dyn Iterator<Item = Piece>>,
            Ok(Dumped::Lines(head, lines)) => Box::new(pieces_of_lines(head, lines)),
            Err(why) => Box::new(std::iter::once(Piece::Malformed(why))),
        };
        // A single report comes; a broken answer is an error of the call.
        let mut told = None;
        call_with(dir, &AdminCommand::Restore { file: name, dry_run }, pieces, |reply| {
            if let Reply::Report(report) = reply {
                told = Some(report);
            }
        })?;
        // Unreachable with a host of this version: a restore that ends has a report.
        let Some(report) = told else { return Err(CommandFailure::Failed("the host said nothing".into())) };
        match json {
            true => print_json(&report),
            false => print_text(&in_words(&report)),
        }
        end(&report)
    }
}

/// Tells a restore's report to people: the ledger's sentence, then counts for sessions and
/// tables.
fn in_words(report: &Report) -> String {
    let mut text = ledger_line(report) + "\n";
    let Some(restored) = report.restored.as_ref().filter(|_| report.outcome != Outcome::Refused) else {
        return text;
    };
    let Restored { changed, unchanged, missing, missing_ids, quarantined_ids, tables, .. } = &**restored;
    // A dry run is told in the future tense.
    let (change, put, delete) = match report.outcome {
        Outcome::Restored => ("changed", "put", "deleted"),
        _ => ("to change", "to put", "to delete"),
    };
    let named = |ids: &[u64]| {
        let shown: Vec<_> = ids.iter().take(NAMED_MAX).map(u64::to_string).collect();
        shown.join(", ") + if ids.len() > NAMED_MAX { ", …" } else { "" }
    };
    let _ = write!(text, "  sessions: {changed} {change}, {unchanged} unchanged, {missing} gone");
    if !missing_ids.is_empty() {
        let _ = write!(text, ": {}", named(missing_ids));
    }
    text.push('\n');
    for (name, t) in tables {
        let (puts, deletes, unchanged) = (t.put, t.deleted, t.unchanged);
        let _ = write!(text, "  table {name}: {puts} {put}, {deletes} {delete}, {unchanged} unchanged");
        text += &match t.over {
            0 => "\n".to_owned(),
            n => format!(", {n} left out, as they are over\n"),
        };
    }
    if !quarantined_ids.is_empty() {
        let ids = named(quarantined_ids);
        let _ = writeln!(text, "  quarantined, until `greenroom session release ID`: {ids}");
    }
    text
}

impl Set {
    /// Runs the command. Fields are set in the order of the command line, all in one commit.
    fn run(self, dir: &Path) -> Result<(), CommandFailure> {
        let Set { id, fields, json } = self;
        let fields: Result<Vec<_>, _> = fields.iter().map(|f| field(f)).collect();
        let fields = fields?;
        let bytes: usize = fields.iter().map(|(path, value)| path.len() + value.to_string().len()).sum();
        // Checked here: a command that is cut off would be refused for its form, which explains
        // nothing.
        if bytes > FIELDS_BYTES_MAX {
            let why = format!("{bytes} bytes are more than a command carries; use `greenroom state restore`");
            return Err(CommandFailure::Usage(why));
        }
        let (mut told, mut states) = (None, None);
        call_recorded(dir, &AdminCommand::Set { session: id, fields }, |reply| match reply {
            Reply::Report(report) => told = Some(report),
            Reply::Set(before, after) => states = Some((before, after)),
            _ => {}
        })?;
        let Some(report) = told else { return Err(CommandFailure::Failed("the host said nothing".into())) };
        if json {
            let (before, after) = states.unwrap_or_default();
            // States stand beside the report's own fields, which programs know from `restore`.
            let mut all = serde_json::to_value(&report).unwrap_or_default();
            if let Some(fields) = all.as_object_mut() {
                fields.extend([("before".to_owned(), before), ("after".to_owned(), after)]);
            }
            print_json(&all);
        } else {
            print_text(&(ledger_line(&report) + "\n"));
            // A report of the ledger has no states: the worker ended before it answered.
            if let Some((before, after)) = states.filter(|_| report.outcome != Outcome::Refused) {
                print_json_text(&format!("  before: {before}\n  after:  {after}\n"));
            }
        }
        end(&report)
    }
}

/// Fails if an integer was read as a float: beyond 64 bits it would be another number.
pub(super) fn is_kept(text: &str, value: &Value) -> Result<(), String> {
    let is_integer = text.trim().trim_start_matches('-').bytes().all(|b| b.is_ascii_digit());
    match is_integer && value.is_f64() {
        true => Err(format!("{text} has more than 64 bits, and would become another number")),
        false => Ok(()),
    }
}

/// Parses a field's path and its value: JSON, or else a string. The first `=` behind
/// the path counts, so values may contain more of them. A string that is valid JSON needs quotes:
/// `name="5"`. JSON that nests too deep or has a key twice is refused, and not taken for a string.
pub(super) fn field(text: &str) -> Result<(String, Value), CommandFailure> {
    let (path, rest) =
        FieldPath::parse_before(text, |rest| rest.starts_with('=')).map_err(CommandFailure::Usage)?;
    let Some(given) = rest.strip_prefix('=') else {
        return Err(CommandFailure::Usage(format!("{text:?} is no FIELD=VALUE")));
    };
    let path = path.to_string();
    let refused = |e| CommandFailure::Usage(format!("field {path}: {e}"));
    let value = value_or_text(given).map_err(refused)?;
    is_kept(given, &value).map_err(refused)?;
    Ok((path, value))
}
