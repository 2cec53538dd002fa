//! Audit log: a line of JSON for each change that somebody asks for, and for each that the host
//! makes by itself.
//!
//! | `event` | means |
//! | --- | --- |
//! | `asked` | somebody asks for a change; it is carried out from now on |
//! | `denied` | somebody without the role asked for it; nothing happens |
//! | `done`, `refused`, `failed` | end of a change that was asked for, before the caller hears so |
//! | `left` | the caller left before the end; the host goes on with the change |
//! | `changed` | the host made a change by itself: at its start, by a file, a signal, a rule |
//!
//! A change without an end is one whose worker died. `history` tells whether it was committed.
//!
//! The file is opened for each line, so it may be moved away or deleted at any time. A line is one
//! write, by one thread, and a change waits for it for a second at most. The host's log has a line
//! for each, too, without the data. If the file cannot be written, the change is made all the same:
//! a disk that is full or hangs must not keep an operator from rolling back. The log has an error,
//! and `status` shows it until the keeper has written a line again.

use crate::admin::text::operator;
use crate::admin::time::rfc3339;
use crate::clock::unix_ms;
use crate::printable;
use crate::protocol::admin::AdminCommand;
use crate::sys::regular_file;
use crate::sys::user;
use greenroom_core::reload::request::Requester;
use rustix::fs::{Access, access};
use serde::Serialize;
use serde_json::{Value, json};
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::time::Duration;

/// Most bytes of a value in a line. A longer one is named by its size alone.
const VALUE_BYTES_MAX: usize = 16 * 1024;

/// A line of the audit log.
#[derive(Debug, Serialize)]
pub struct AuditLine {
    /// Time of writing, in RFC 3339.
    at: String,
    /// The kind of the line.
    event: &'static str,
    /// The requester: an object with `uid`, `user` and `pid`, or the name of what the host heard.
    by: Value,
    /// Name of the command.
    command: String,
    /// All that the command says.
    #[serde(skip_serializing_if = "Value::is_null")]
    request: Value,
    /// Reason of a refusal or a failure.
    #[serde(skip_serializing_if = "String::is_empty")]
    reason: String,
    /// Data before the change.
    #[serde(skip_serializing_if = "Value::is_null")]
    before: Value,
    /// Data after the change.
    #[serde(skip_serializing_if = "Value::is_null")]
    after: Value,
}

impl AuditLine {
    /// Begins a line about a command. May ask the network for the user's name, where the system
    /// does.
    pub fn of(event: &'static str, command: &AdminCommand, by: Requester) -> AuditLine {
        let by = match by {
            Requester::Operator { uid, pid } => {
                json!({"uid": uid, "user": user::user_name(uid), "pid": pid})
            }
            other => json!(format!("{other:?}").to_lowercase()),
        };
        let name = command.name().to_owned();
        let request = match serde_json::to_value(command) {
            Ok(Value::Object(fields)) => fields.into_values().next().unwrap_or_default(),
            _ => Value::Null,
        };
        AuditLine { by, command: name, request: short(request), ..AuditLine::new(event) }
    }

    /// Begins a line about a change of the host's own.
    pub fn of_host(by: &str, what: &str) -> AuditLine {
        AuditLine { by: by.into(), command: what.to_owned(), ..AuditLine::new("changed") }
    }

    fn new(event: &'static str) -> AuditLine {
        AuditLine {
            at: String::new(),
            event,
            by: Value::Null,
            command: String::new(),
            request: Value::Null,
            reason: String::new(),
            before: Value::Null,
            after: Value::Null,
        }
    }

    /// Changes the kind of the line.
    pub(super) fn becomes(self, event: &'static str) -> AuditLine {
        AuditLine { event, ..self }
    }

    /// Adds a reason.
    pub fn because(self, reason: impl Into<String>) -> AuditLine {
        AuditLine { reason: reason.into(), ..self }
    }

    /// Adds the data before and after the change.
    pub fn with(self, before: Value, after: Value) -> AuditLine {
        AuditLine { before: short(before), after: short(after), ..self }
    }

    /// Writes the line: to the file, if there is one, and without data to the host's log. Blocks
    /// for the disk, up to a second. Returns why the file lacks the line, which the log has been
    /// told.
    pub fn write(mut self, file: Option<&Path>) -> Option<String> {
        self.at = rfc3339(unix_ms());
        let AuditLine { event, by, command, reason, .. } = &self;
        let number = |key: &str| by[key].as_i64().unwrap_or_default();
        let operator = || operator(number("uid") as u32, number("pid") as i32);
        let by = by.as_str().map_or_else(operator, str::to_owned);
        // Of a change in the ledger the log has a line with the reason already.
        let reason = if matches!(*event, "denied" | "failed") { reason } else { "" };
        tracing::info!(%by, command, event, "audit: {command} {event}{}{reason}", if reason.is_empty() { "" } else { ": " });
        let path = file?;
        let why = format!("a line is missing in {}: {}", path.display(), append_in_time(path, &self).err()?);
        tracing::error!("audit: {why}");
        Some(why)
    }
}

/// Value of a size that a line may have.
fn short(value: Value) -> Value {
    let bytes = serde_json::to_vec(&value).map_or(0, |text| text.len());
    if bytes > VALUE_BYTES_MAX { json!({"left_out_bytes": bytes}) } else { value }
}

/// Time for which a change waits for its line. A disk may hang, and must keep nobody from a change.
const PATIENCE: Duration = Duration::from_secs(1);
/// Lines that wait for the thread that writes. Lines beyond them are missing.
const LINES_MAX: usize = 256;

/// A line on its way to the thread that writes, and where it tells the outcome.
type Order = (PathBuf, String, SyncSender<io::Result<()>>);

/// Thread that writes, once a line was written. None: it could not be started.
static WRITER: OnceLock<Option<SyncSender<Order>>> = OnceLock::new();
/// Whether the thread has not finished a line in time, since it finished one last.
static IS_STUCK: AtomicBool = AtomicBool::new(false);

/// Has a line written by the thread, so that lines keep their order, and waits for it. A line whose
/// time is over may be written later.
fn append_in_time(path: &Path, line: &AuditLine) -> io::Result<()> {
    let text = printable::json(&(serde_json::to_string(line)? + "\n")).into_owned();
    let Some(writer) = WRITER.get_or_init(start_writer) else { return append(path, &text) };
    let late = || io::Error::new(io::ErrorKind::TimedOut, "its disk does not answer; it may come later");
    let (tell, told) = sync_channel(1);
    match writer.try_send((path.to_owned(), text, tell)) {
        Err(_) => Err(io::Error::other("its disk does not answer, and too many lines wait for it")),
        // The lines before have waited already.
        Ok(()) if IS_STUCK.load(Ordering::Acquire) => Err(late()),
        Ok(()) => told.recv_timeout(PATIENCE).unwrap_or_else(|_| {
            IS_STUCK.store(true, Ordering::Release);
            Err(late())
        }),
    }
}

/// Starts the thread that writes.
fn start_writer() -> Option<SyncSender<Order>> {
    let (orders, come) = sync_channel::<Order>(LINES_MAX);
    let write = move || {
        for (path, text, tell) in come {
            let written = append(&path, &text);
            IS_STUCK.store(false, Ordering::Release);
            let _ = tell.try_send(written);
        }
    };
    std::thread::Builder::new().name("audit file".into()).spawn(write).ok().map(|_| orders)
}

/// Writes a line at the end of the file, which is made with mode 0600. A line that a full disk has
/// cut off is cut away: the next one would be glued to it.
fn append(path: &Path, text: &str) -> io::Result<()> {
    let mut file = open(path)?;
    let before = file.metadata()?.len();
    file.write_all(text.as_bytes()).inspect_err(|_| {
        // Another writer's line stays.
        if let Ok(now) = file.metadata()
            && now.len() < before + text.len() as u64
        {
            let _ = file.set_len(before);
        }
    })
}

/// Opens the file to append. Waits for no reader of a FIFO: such a path is refused.
fn open(path: &Path) -> io::Result<File> {
    let options = &mut File::options();
    options.create(true).append(true).mode(0o600);
    regular_file::open_with(path, options, rustix::fs::OFlags::empty()).map(|(file, _)| file)
}

/// Checks that lines can be written, and makes the file. The error names key and path.
pub fn check(file: Option<&Path>) -> Result<(), String> {
    let Some(path) = file else { return Ok(()) };
    let opened = open(path).map(drop);
    opened.map_err(|e| format!("admin.audit: {} can't be written: {e}", path.display()))
}

/// Checks as [`check`] does, and makes no file. A directory that is not there is no fault yet: a
/// service manager makes it at the start.
pub fn can_be_written(file: Option<&Path>) -> Result<(), String> {
    let Some(path) = file else { return Ok(()) };
    if path.exists() {
        return check(file);
    }
    let dir = path.parent().filter(|dir| *dir != Path::new("")).unwrap_or(Path::new("."));
    if !dir.exists() {
        return Ok(());
    }
    access(dir, Access::WRITE_OK | Access::EXEC_OK)
        .map_err(|e| format!("admin.audit: {} can't be written: {e}", dir.display()))
}

/// Writes a line on a thread of its own, for a loop that must not wait for the disk.
pub fn write_apart(line: AuditLine, file: Option<PathBuf>) {
    let write = move || _ = line.write(file.as_deref());
    if let Err(e) = std::thread::Builder::new().name("audit".into()).spawn(write) {
        tracing::error!("audit: a line is missing, as no thread can be started: {e}");
    }
}

/// Writes that the host refuses a change before it begins, from a thread as above.
pub fn write_refusal(command: AdminCommand, by: Requester, why: String, file: Option<PathBuf>) {
    let line = AuditLine::of("failed", &command, by).because(why);
    write_apart(line, file);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(path: &Path) -> Vec<Value> {
        let text = std::fs::read_to_string(path).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    #[test]
    fn a_line_says_who_asked_for_what() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("audit");
        assert!(check(Some(&path)).is_ok());
        let by = Requester::Operator { uid: 0, pid: 7 };
        let set = AdminCommand::Set { session: 3, fields: vec![("a\nb".into(), json!(1))] };
        AuditLine::of("done", &set, by).with(json!({"a": 0}), json!({"a": "\u{202e}1"})).write(Some(&path));
        AuditLine::of("denied", &AdminCommand::Undo, by).because("no").write(Some(&path));
        // Moved away, as when it is rotated.
        std::fs::rename(&path, dir.path().join("audit.1")).unwrap();
        AuditLine::of_host("watcher", "reload")
            .with(json!("x".repeat(20_000)), Value::Null)
            .write(Some(&path));
        let old = lines(&dir.path().join("audit.1"));
        assert_eq!(old[0]["by"], json!({"uid": 0, "user": "root", "pid": 7}));
        assert_eq!(old[0]["request"], json!({"session": 3, "fields": [["a\nb", 1]]}));
        assert_eq!((&old[0]["before"]["a"], &old[0]["after"]["a"]), (&json!(0), &json!("\u{202e}1")));
        // A terminal would turn the rest of the line round.
        assert!(!std::fs::read_to_string(dir.path().join("audit.1")).unwrap().contains('\u{202e}'));
        assert_eq!((&old[1]["command"], &old[1]["reason"]), (&json!("undo"), &json!("no")));
        let new = lines(&path);
        assert_eq!(new[0]["before"], json!({"left_out_bytes": 20_002}));
        assert_eq!((&new[0]["by"], &new[0]["event"]), (&json!("watcher"), &json!("changed")));
    }

    #[test]
    fn a_path_that_takes_no_lines_is_named() {
        let dir = tempfile::tempdir().unwrap();
        for path in [dir.path(), Path::new("/proc/nowhere/audit")] {
            let said = check(Some(path)).unwrap_err();
            assert!(said.starts_with("admin.audit: ") && said.contains(path.to_str().unwrap()), "{said}");
            // A change is not held up by it.
            AuditLine::of_host("rule", "reload").write(Some(path));
        }
    }
}
