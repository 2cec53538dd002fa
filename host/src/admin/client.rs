//! Client of the admin socket: sends a command to a host, and hears its answer.
//!
//! A worker may die or hand over while it answers. The socket then closes without `End` or
//! `Error`, which is [`CallError::BrokenOff`]. The three ways of calling differ in what they do
//! then:
//!
//! | function | command | if the answer breaks off |
//! | --- | --- | --- |
//! | [`call`] | any | asks again, if that is repeatable and nothing was heard |
//! | [`call_recorded`] | changes in the ledger | looks in the ledger for what was committed |
//! | [`call_with`] | changes in the ledger, followed by data | looks in the ledger, too |
//! | [`call_while`] | one that goes on by itself | fails |
//!
//! A command is one connection. A host that is silent for 5 s is asked for its status on another
//! one. While its worker goes on, the command waits: a rehearsal takes as long as the data needs.
//! If the worker stalls, the error says what it does (`patience`).

use crate::admin::caller::READER_MAX;
use crate::admin::patience::{Again, Patient};
use crate::admin::text::operator;
use crate::admin::time::rfc3339;
use crate::protocol::admin::{AdminCommand, Piece, Reply, TAKES_NO_COMMANDS};
use greenroom_state::parse::parse_written;
use rustix::process::{geteuid, getpid};
use std::cell::Cell;
use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

/// Reason why a command has no answer. The command line has an exit code for a missing host,
/// and one for the rest.
#[derive(Debug)]
pub enum CallError {
    /// No host answers there: nothing was asked, and nothing has changed.
    NoHost(String),
    /// Refused by the host, with its reason.
    Failed(String),
    /// Answer broken off: the worker ended. A change may have been committed before that.
    BrokenOff(String),
}

/// Time for which a repeatable command is asked again, should the worker die while it answers.
/// Longer than a command waits in the keeper for a worker (5 s).
const ASK_AGAIN_MAX: Duration = Duration::from_secs(10);
/// Time that a clock may lose while a command is under way, without being set.
const CLOCK_SLEWS: Duration = Duration::from_millis(10);

/// Asks a host for a change, sends the data of the command once the host is ready, and calls `each`
/// with each reply. The host reads all data before it answers. Never asked again, as the pieces are
/// consumed; if the worker dies, the ledger is asked as by [`call_recorded`].
pub fn call_with(
    dir: &Path,
    command: &AdminCommand,
    pieces: impl IntoIterator<Item = Piece>,
    each: impl FnMut(Reply),
) -> Result<(), CallError> {
    recorded(dir, command, each, |each| {
        call_once(dir, command, &mut pieces.into_iter(), &mut |reply| {
            each(reply);
            true
        })
    })
}

/// Asks a host once, and calls `each` with each reply, until it returns false or the answer ends.
pub fn call_while(
    dir: &Path,
    command: &AdminCommand,
    mut each: impl FnMut(Reply) -> bool,
) -> Result<(), CallError> {
    call_once(dir, command, &mut std::iter::empty(), &mut each)
}

/// Asks a host, and calls `each` with each reply, in their order.
///
/// If the answer breaks off, a command that changes nothing is asked again for up to 10 s, as
/// long as no reply has come. After a reply an answer from its beginning would repeat what
/// `each` has seen.
pub fn call(dir: &Path, command: &AdminCommand, mut each: impl FnMut(Reply)) -> Result<(), CallError> {
    let give_up = Instant::now() + ASK_AGAIN_MAX;
    loop {
        let mut answered = false;
        let result = call_once(dir, command, &mut std::iter::empty(), &mut |reply| {
            answered = true;
            each(reply);
            true
        });
        match result {
            // Asked again at once: the keeper has the command wait until the successor serves.
            Err(CallError::BrokenOff(_))
                if command.is_repeatable() && !answered && Instant::now() < give_up => {}
            other => return other,
        }
    }
}

/// Asks a host for a change that the ledger records.
///
/// If the worker dies before it has answered, `each` is called with the line of the ledger. A
/// change that was committed stays committed, and the successor knows of it. If the ledger has
/// no such line or cannot be read, the error stands.
pub fn call_recorded(dir: &Path, command: &AdminCommand, each: impl FnMut(Reply)) -> Result<(), CallError> {
    recorded(dir, command, each, |each| call(dir, command, each))
}

/// Asks by `ask`, and looks in the ledger if the answer breaks off.
fn recorded(
    dir: &Path,
    command: &AdminCommand,
    mut each: impl FnMut(Reply),
    ask: impl FnOnce(&mut dyn FnMut(Reply)) -> Result<(), CallError>,
) -> Result<(), CallError> {
    // The client's clock is the host's: both are on one machine.
    let (clock, watch) = (SystemTime::now(), Instant::now());
    let begun = clock.duration_since(SystemTime::UNIX_EPOCH);
    let begun = rfc3339(begun.map_or(0, |d| d.as_millis() as u64));
    let mut told = Vec::new();
    let result = ask(&mut |reply| {
        if let Reply::Report(report) = &reply {
            told.push(report.line);
        }
        each(reply);
    });
    let Err(CallError::BrokenOff(_)) = result else { return result };
    let me = operator(geteuid().as_raw(), getpid().as_raw_nonzero().get());
    let looked = call(dir, &AdminCommand::History, |reply| {
        let Reply::History(lines) = reply else { return };
        for line in lines {
            // An earlier process may have had our process number. Lines that were reported are
            // not told twice.
            if line.by == me && line.at >= begun && !told.contains(&line.report.line) {
                told.push(line.report.line);
                each(Reply::Report(Box::new(line.report)));
            }
        }
    });
    // If several libraries were asked for, some may have no line yet: their reload ended with
    // the worker. For one library any line is the whole answer.
    use AdminCommand::{Amend, Canary, Configure, Promote, Reload, Restore, RollBack, Set, TakeBack, Undo};
    // A change of data is one commit with its line.
    let is_of_data = matches!(command, Amend { .. } | Restore { .. } | Set { .. } | Undo);
    let is_one = is_of_data
        || matches!(
            command,
            Reload { service: Some(_), .. }
                | Canary { .. }
                | Promote(_)
                | TakeBack(_)
                | RollBack { .. }
                | Configure
        );
    match looked {
        Ok(()) if is_one && !told.is_empty() => Ok(()),
        // A clock that was set back may have given the line an earlier time.
        Ok(()) if is_of_data && clock.elapsed().is_ok_and(|t| t + CLOCK_SLEWS >= watch.elapsed()) => {
            let why = "the answer broke off: the worker ended before it was done, and nothing has changed";
            Err(CallError::Failed(why.into()))
        }
        _ => result,
    }
}

/// Sends a command once, and hears its answer to the end. Pieces are taken from the iterator
/// only after the host has said `Go`.
///
/// A host whose worker stalls refuses a command before anything is asked. If the operator has set a
/// time limit, the command is sent again until then.
fn call_once(
    dir: &Path,
    command: &AdminCommand,
    pieces: &mut dyn Iterator<Item = Piece>,
    each: &mut dyn FnMut(Reply) -> bool,
) -> Result<(), CallError> {
    let (mut again, path) = (Again::new(), crate::runtime_dir::socket_path(dir));
    loop {
        match attempt(dir, command, again.begun(), pieces, each) {
            Err(CallError::Failed(why)) if why.starts_with(TAKES_NO_COMMANDS) && again.wait(&path, &why) => {}
            result => return result,
        }
    }
}

/// Sends a command, and hears its answer to the end. `begun`: time at which the command began.
fn attempt(
    dir: &Path,
    command: &AdminCommand,
    begun: Instant,
    pieces: &mut dyn Iterator<Item = Piece>,
    each: &mut dyn FnMut(Reply) -> bool,
) -> Result<(), CallError> {
    let path = crate::runtime_dir::socket_path(dir);
    let no_host = |e: io::Error| {
        let hint = match e.kind() {
            io::ErrorKind::PermissionDenied => {
                "its user has let nobody else in; `read` or `operate` in its section [admin] does"
            }
            _ => "is `greenroom serve` running, and with this --runtime?",
        };
        CallError::NoHost(format!("no host answers on {} ({e}); {hint}", path.display()))
    };
    let stream = UnixStream::connect(&path).map_err(no_host)?;
    let socket = Patient::new(&stream, &path, command, begun).map_err(no_host)?;
    // Longest time that a reply was printed for: its reader may stand still.
    let longest = Cell::new(Duration::ZERO);
    let broke = |e: &dyn std::fmt::Display| match socket.gave_up() {
        Some(why) => CallError::Failed(why),
        None if longest.get() >= READER_MAX => CallError::Failed(format!(
            "the answer broke off: its reader took nothing for {} s, and the host waits for {} s at most; \
             write it to a file first",
            longest.get().as_secs(),
            READER_MAX.as_secs()
        )),
        None => CallError::BrokenOff(format!(
            "the answer broke off ({e}): the worker ended meanwhile; {}",
            match command.is_repeatable() {
                true => "`greenroom status` tells what runs now",
                false => "it may have been carried out: `greenroom history` tells of changes",
            }
        )),
    };
    let unsent = |e| CallError::Failed(format!("the command can't be sent: {e}"));
    let line = serde_json::to_string(command).map_err(unsent)? + "\n";
    // A host that refuses says why before it has read everything, and its answer is there already.
    let sent = (&socket).write_all(line.as_bytes());
    for line in BufReader::new(&socket).lines() {
        let line = line.map_err(|e| broke(sent.as_ref().err().unwrap_or(&e)))?;
        match parse_written(line.as_bytes()).map_err(|e| broke(&e))? {
            // If the host takes no more data, its reply says why.
            Reply::Go => drop(send(&socket, pieces)),
            Reply::End => return Ok(()),
            Reply::Error(text) => return Err(CallError::Failed(text)),
            reply => {
                let begun = Instant::now();
                if !each(reply) {
                    return Ok(());
                }
                longest.set(longest.get().max(begun.elapsed()));
            }
        }
    }
    Err(match sent {
        Err(e) => broke(&e),
        Ok(()) => broke(&"it ended early"),
    })
}

/// Sends pieces of data, each as a line of JSON. Blocks while the host checks what it has read.
fn send(stream: &Patient<'_>, pieces: &mut dyn Iterator<Item = Piece>) -> io::Result<()> {
    let mut out = BufWriter::new(stream);
    for piece in pieces {
        serde_json::to_writer(&mut out, &piece)?;
        out.write_all(b"\n")?;
    }
    out.flush()
}
