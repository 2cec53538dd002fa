//! Commands `greenroom state show` and `greenroom state edit`: one session's state, looked at and
//! changed by hand.
//!
//! An edit passes these steps; until the last one nothing has changed:
//!
//! 1. The host hands out the state as the build that serves reads it, and a digest of what is
//!    stored.
//! 2. The editor changes a file, for its user alone.
//! 3. The file is read. The difference by field is shown, and on a terminal the operator is asked.
//! 4. The build that serves checks the new state, as for `state set`. It is stored between two
//!    turns, if the digest still holds.
//!
//! A file whose state could not be stored is kept, and its path is told.

use crate::admin::client::{call, call_with};
use crate::cli::changes::{end, print_report};
use crate::cli::output::{CommandFailure, complain, json_line, print_json, print_json_text, print_text};
use crate::cli::select::{answered, confirmed};
use crate::printable::one_line;
use crate::protocol::admin::{AdminCommand, Piece, Reply};
use crate::protocol::data::Shown;
use clap::Args;
use greenroom_state::difference::{FieldDifference, differences};
use greenroom_state::parse::parse;
use greenroom_state::path::FieldPath;
use serde_json::Value;
use std::io::{IsTerminal, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Most fields of a difference that are shown.
const SHOWN_MAX: usize = 200;
/// Characters of a value in a difference.
const VALUE_MAX: usize = 60;

// Doc comments of the fields are the help text of the command line.
#[derive(Args)]
pub(super) struct Show {
    /// The session's number
    id: u64,
    /// Only this field of its state, such as profile.age, list.0 or tags["x.y"]
    #[arg(value_name = "FIELD", value_parser = FieldPath::parse)]
    field: Option<FieldPath>,
    /// JSON, on one line: the whole session
    #[arg(long)]
    json: bool,
}

// Doc comments of the fields are the help text of the command line.
#[derive(Args)]
pub(super) struct Edit {
    /// The session's number
    id: u64,
    /// Don't ask before the new state is stored
    #[arg(long)]
    yes: bool,
    /// JSON, on one line
    #[arg(long)]
    json: bool,
}

/// Asks a host for one session.
fn shown(dir: &Path, id: u64) -> Result<Shown, CommandFailure> {
    let mut found = None;
    call(dir, &AdminCommand::Show(id), |reply| {
        if let Reply::Shown(shown) = reply {
            found = Some(*shown);
        }
    })?;
    found.ok_or_else(|| CommandFailure::Failed("the host said nothing".into()))
}

/// A value on several lines.
fn pretty(value: &Value) -> String {
    serde_json::to_string_pretty(value).unwrap_or_default() + "\n"
}

impl Show {
    /// Runs the command. The state is shown as the build that serves reads it, or else as it is
    /// stored.
    pub(super) fn run(self, dir: &Path) -> Result<(), CommandFailure> {
        let shown = shown(dir, self.id)?;
        let s = &shown.session;
        let state = if shown.as_read.is_null() { &s.state } else { &shown.as_read };
        match (&self.field, self.json) {
            (Some(path), json) => {
                let value = path.find(state);
                let none = || {
                    CommandFailure::Failed(format!("the state of session {} has no field {path}", self.id))
                };
                let value = value.ok_or_else(none)?;
                print_text(&if json { json_line(value) } else { shown_value(value) + "\n" });
            }
            (None, true) => print_json(&shown),
            (None, false) => {
                let version = match s.state_version {
                    0 => "no state stored".to_owned(),
                    v if v == shown.serving_version => format!("state v{v}"),
                    v => format!("state v{v}, read as v{}", shown.serving_version),
                };
                print_text(&format!(
                    "session {} of {}, {}, opened {}, {version}\n",
                    s.id,
                    s.service,
                    one_line(&s.peer.to_string()),
                    s.opened_at
                ));
                print_json_text(&pretty(state));
                print_text(&also(&shown));
            }
        }
        if let Some(why) = &shown.unreadable {
            complain(&format!("greenroom: the build that serves can't read it: {}", one_line(why)));
        }
        Ok(())
    }
}

/// A value that stands alone: a string without quotes, all else as JSON.
fn shown_value(value: &Value) -> String {
    value.as_str().map_or_else(|| pretty(value).trim_end().to_owned(), |text| one_line(text).into_owned())
}

/// Lines about what a session has beside its state.
fn also(shown: &Shown) -> String {
    let s = &shown.session;
    let timers: Vec<_> = s.timers.iter().map(|t| format!("{} in {} ms", t.name, t.in_ms)).collect();
    let texts = |values: &[Value]| values.iter().map(shown_value).collect::<Vec<_>>().join(", ");
    let len = |value: &Value| value.as_str().map_or(0, str::len);
    let actions: Vec<_> = s.actions.iter().map(|a| a.kind.clone()).collect();
    let jobs: Vec<_> = s.jobs.iter().map(|j| j.name.clone()).collect();
    let lines = [
        ("timers", timers.join(", ")),
        ("topics", texts(&s.topics)),
        ("names", texts(&s.names)),
        ("waiting actions", actions.join(", ")),
        ("jobs", jobs.join(", ")),
        ("input", if len(&s.input) > 0 { s.input.to_string() } else { String::new() }),
        ("output", if len(&s.output) > 0 { s.output.to_string() } else { String::new() }),
    ];
    let filled = lines.into_iter().filter(|(_, text)| !text.is_empty());
    filled.map(|(name, text)| format!("{name}: {}\n", one_line(&cut(&text, 4 * VALUE_MAX)))).collect()
}

/// Cuts a text to so many characters.
fn cut(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// Differences by field, a line each.
pub(super) fn in_lines(found: &[FieldDifference], indent: &str) -> String {
    let shown = |value: &Option<Value>| value.as_ref().map(|v| cut(&v.to_string(), VALUE_MAX));
    let line = |d: &FieldDifference| {
        let field = if d.field.is_empty() { "(all of it)" } else { &d.field };
        let change = match (shown(&d.before), shown(&d.after)) {
            (Some(before), Some(after)) => format!("{before} -> {after}"),
            (None, Some(after)) => format!("+ {after}"),
            (Some(before), None) => format!("- {before}"),
            (None, None) => String::new(),
        };
        format!("{indent}{}: {}\n", one_line(field), one_line(&change))
    };
    found.iter().map(line).collect()
}

impl Edit {
    /// Runs the command.
    pub(super) fn run(self, dir: &Path) -> Result<(), CommandFailure> {
        let shown = shown(dir, self.id)?;
        if let Some(why) = &shown.unreadable {
            let why = one_line(why).into_owned();
            return Err(CommandFailure::Failed(format!("the build that serves can't read its state: {why}")));
        }
        if shown.as_read.is_null() {
            return Err(CommandFailure::Failed(format!("service {} keeps no state", shown.session.service)));
        }
        let file = Draft::write(self.id, &pretty(&shown.as_read))?;
        let kept = |failed: CommandFailure| {
            if file.path.exists() {
                complain(&format!("greenroom: the edited state is kept in {}", file.path.display()));
            }
            failed
        };
        let Some(edited) = file.edited(&shown.as_read).map_err(kept)? else {
            file.remove();
            complain("greenroom: nothing was changed");
            return Ok(());
        };
        let found = differences(&shown.as_read, &edited, &shown.sets, SHOWN_MAX);
        if !self.json {
            print_text(&in_lines(&found, "  "));
        }
        confirmed("store this", self.yes).map_err(kept)?;
        let result = self.store(dir, &shown, edited);
        if result.is_ok() {
            file.remove();
        }
        result.map_err(kept)
    }

    /// Has the host check and store the edited state.
    fn store(&self, dir: &Path, shown: &Shown, state: Value) -> Result<(), CommandFailure> {
        let service = shown.session.service.clone();
        let piece = Piece::Session { id: self.id, service, state_version: shown.serving_version, state };
        let command = AdminCommand::Amend { session: Some((self.id, shown.digest.clone())), entries: None };
        let mut told = None;
        call_with(dir, &command, [piece, Piece::End], |reply| {
            if let Reply::Report(report) = reply {
                told = Some(report);
            }
        })?;
        let Some(report) = told else { return Err(CommandFailure::Failed("the host said nothing".into())) };
        print_report(&report, self.json);
        if report.restored.as_ref().is_some_and(|r| r.missing > 0) {
            return Err(CommandFailure::Failed(format!("session {} has ended meanwhile", self.id)));
        }
        end(&report)
    }
}

/// File that the editor changes.
struct Draft {
    path: PathBuf,
}

impl Draft {
    /// Writes the file anew, for its user alone, in the directory for temporary files.
    fn write(id: u64, text: &str) -> Result<Draft, CommandFailure> {
        let name = format!("greenroom-state-{id}-{}.json", std::process::id());
        let path = std::env::temp_dir().join(name);
        let failed = |e: std::io::Error| CommandFailure::Failed(format!("{}: {e}", path.display()));
        // A file that is there already is somebody else's.
        let mut file = std::fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)
            .map_err(failed)?;
        file.write_all(text.as_bytes()).map_err(failed)?;
        Ok(Draft { path })
    }

    /// Has the operator edit the file until it is JSON. `None`: it says the same as before.
    fn edited(&self, before: &Value) -> Result<Option<Value>, CommandFailure> {
        let failed = |what: String| CommandFailure::Failed(format!("{}: {what}", self.path.display()));
        loop {
            self.edit()?;
            let text = std::fs::read(&self.path).map_err(|e| failed(e.to_string()))?;
            let why = match parse::<Value>(&text) {
                Ok(edited) => return Ok((edited != *before).then_some(edited)),
                Err(why) => format!("it is no JSON: {why}"),
            };
            if !std::io::stdin().is_terminal() {
                return Err(failed(why));
            }
            complain(&format!("greenroom: {why}"));
            if matches!(answered("edit it again? [Y/n] ")?.as_str(), "n" | "no") {
                return Err(failed("nothing was stored".into()));
            }
        }
    }

    /// Runs the operator's editor, and waits for it.
    fn edit(&self) -> Result<(), CommandFailure> {
        let named = |name| std::env::var_os(name).filter(|v| !v.is_empty());
        let editor = named("VISUAL").or_else(|| named("EDITOR")).unwrap_or_else(|| "vi".into());
        // A shell, as the variable may hold arguments.
        let mut line = editor.clone();
        line.push(" \"$1\"");
        let status = std::process::Command::new("sh").arg("-c").arg(line).arg("sh").arg(&self.path).status();
        let editor = editor.display();
        match status {
            Ok(status) if status.success() => Ok(()),
            Ok(status) => Err(CommandFailure::Failed(format!(
                "the editor {editor} ended with {status}: nothing was stored"
            ))),
            Err(e) => Err(CommandFailure::Failed(format!("the editor {editor} can't be started: {e}"))),
        }
    }

    /// Removes the file.
    fn remove(&self) {
        let _ = std::fs::remove_file(&self.path);
    }
}
