//! Sends a command to a host, and hears its answer.

use crate::admin::text::operator;
use crate::admin::time::rfc3339;
use crate::protocol::admin::{AdminCommand, Piece, Reply};
use rustix::process::{geteuid, getpid};
use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

/// Reason why a command has no answer.
#[derive(Debug)]
pub enum CallError {
    /// No host answers there.
    NoHost(String),
    /// Refused by the host.
    Failed(String),
    /// Answer broken off.
    BrokenOff(String),
}

/// Time for which a read-only command is repeated, should the worker die while it answers.
const ASK_AGAIN_MAX: Duration = Duration::from_secs(10);

/// Asks a host, sends the data of the command once the host is ready, and calls `each` with each
/// reply.
pub fn call_with(
    dir: &Path,
    command: &AdminCommand,
    pieces: impl IntoIterator<Item = Piece>,
    mut each: impl FnMut(Reply),
) -> Result<(), CallError> {
    call_once(dir, command, &mut pieces.into_iter(), &mut each)
}

/// Asks a host, and calls `each` with each reply.
pub fn call(dir: &Path, command: &AdminCommand, mut each: impl FnMut(Reply)) -> Result<(), CallError> {
    let give_up = Instant::now() + ASK_AGAIN_MAX;
    loop {
        let mut answered = false;
        let result = call_once(dir, command, &mut std::iter::empty(), &mut |reply| {
            answered = true;
            each(reply);
        });
        match result {
            // The worker's successor answers.
            Err(CallError::BrokenOff(_))
                if command.is_repeatable() && !answered && Instant::now() < give_up => {}
            other => return other,
        }
    }
}

/// Asks a host for a change that the ledger records. Should the worker die before it has answered,
/// `each` is called with the line of the ledger: a change that was committed stays committed, and
/// the successor knows of it.
pub fn call_recorded(
    dir: &Path,
    command: &AdminCommand,
    mut each: impl FnMut(Reply),
) -> Result<(), CallError> {
    let begun = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let begun = rfc3339(begun.map_or(0, |d| d.as_millis() as u64));
    let mut told = Vec::new();
    let result = call(dir, command, |reply| {
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
            // An earlier process may have had our process number.
            if line.by == me && line.at >= begun && !told.contains(&line.report.line) {
                told.push(line.report.line);
                each(Reply::Report(Box::new(line.report)));
            }
        }
    });
    // Some of several libraries may have been left out.
    let is_one = matches!(
        command,
        AdminCommand::Reload { service: Some(_), .. }
            | AdminCommand::RollBack { .. }
            | AdminCommand::Configure
    );
    match looked {
        Ok(()) if is_one && !told.is_empty() => Ok(()),
        _ => result,
    }
}

/// Sends a command once, and hears its answer to the end.
fn call_once(
    dir: &Path,
    command: &AdminCommand,
    pieces: &mut dyn Iterator<Item = Piece>,
    each: &mut dyn FnMut(Reply),
) -> Result<(), CallError> {
    let path = crate::runtime_dir::socket_path(dir);
    let no_host = |e: io::Error| {
        CallError::NoHost(format!(
            "no host answers on {} ({e}); is `greenroom serve` running, and with this --runtime?",
            path.display()
        ))
    };
    let stream = UnixStream::connect(&path).map_err(no_host)?;
    let broke = |e: &dyn std::fmt::Display| {
        CallError::BrokenOff(format!(
            "the answer broke off ({e}): the worker ended meanwhile; `greenroom status` tells what runs now"
        ))
    };
    let line = serde_json::to_string(command).map_err(|e| broke(&e))? + "\n";
    (&stream).write_all(line.as_bytes()).map_err(|e| broke(&e))?;
    for line in BufReader::new(&stream).lines() {
        let line = line.map_err(|e| broke(&e))?;
        match serde_json::from_str(&line).map_err(|e| broke(&e))? {
            // If the host takes no more data, its reply says why.
            Reply::Go => drop(send(&stream, pieces)),
            Reply::End => return Ok(()),
            Reply::Error(text) => return Err(CallError::Failed(text)),
            reply => each(reply),
        }
    }
    Err(broke(&"it ended early"))
}

/// Sends pieces of data, each as a line of JSON.
fn send(stream: &UnixStream, pieces: &mut dyn Iterator<Item = Piece>) -> io::Result<()> {
    let mut out = BufWriter::new(stream);
    for piece in pieces {
        serde_json::to_writer(&mut out, &piece)?;
        out.write_all(b"\n")?;
    }
    out.flush()
}
