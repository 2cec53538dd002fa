//! Callers of the admin socket: those who ask and read to the end, and those who do not.

use crate::page::{replies_of, rows};
use crate::requests::REQUEST_BYTES_MAX;
use fastrand::Rng;
use greenroom::protocol::admin::{AdminCommand, Piece, Reply};
use greenroom_state::parse::parse;
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// Replies that each command may be answered with, by the page.
pub(crate) type Answers = BTreeMap<String, Vec<String>>;

/// Reads the replies of each command from the page.
pub(crate) fn answers() -> Answers {
    rows("Commands").into_iter().map(|row| (row[0].clone(), replies_of(&row))).collect()
}

/// Way in which a caller asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Manner {
    /// Sends the line, and reads to the end.
    Reads,
    /// Sends the line in pieces, ends its side, and reads to the end.
    EndsItsSide,
    /// Sends the line without its end, ends its side, and reads to the end.
    LeavesTheEndOut,
    /// Sends the line, reads one reply, and leaves.
    ReadsOne,
    /// Sends the line, and leaves at once.
    Leaves,
    /// Connects, says nothing, and leaves.
    SaysNothing,
}

impl Manner {
    /// Way at random: half of them read to the end.
    pub(crate) fn random(rng: &mut Rng) -> Manner {
        match rng.u8(..12) {
            0 | 1 => Manner::EndsItsSide,
            2 => Manner::LeavesTheEndOut,
            3 => Manner::ReadsOne,
            4 => Manner::Leaves,
            5 => Manner::SaysNothing,
            _ => Manner::Reads,
        }
    }
}

/// Request, and what follows it.
pub(crate) struct Request {
    /// Line, without its end.
    pub(crate) line: Vec<u8>,
    /// Lines of data, for a host that says `go`.
    pub(crate) data: Vec<Vec<u8>>,
    /// Command that a host reads in the line; `None`: it is none.
    pub(crate) command: Option<AdminCommand>,
}

impl Request {
    /// Request of a line.
    pub(crate) fn new(line: Vec<u8>, data: Vec<Vec<u8>>) -> Request {
        let read = &line[..line.len().min(REQUEST_BYTES_MAX)];
        let first = read.split(|byte| *byte == b'\n').next().unwrap_or_default();
        let command = parse(first).ok();
        Request { line, data, command }
    }

    /// Whether its data end as the protocol wants it.
    fn has_an_end(&self) -> bool {
        let is_last = |line: &Vec<u8>| matches!(parse::<Piece>(line), Ok(Piece::End | Piece::Malformed(_)));
        self.data.iter().any(|data| data.split(|byte| *byte == b'\n').any(|line| is_last(&line.to_vec())))
    }
}

/// Outcome of a request.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    /// Number of replies.
    pub(crate) replies: usize,
    /// Refusal.
    pub(crate) error: Option<String>,
}

/// Connects to a host's socket.
#[track_caller]
pub(crate) fn connect(socket: &Path) -> UnixStream {
    let stream = UnixStream::connect(socket).expect("the host listens");
    stream.set_read_timeout(Some(Duration::from_secs(60))).expect("a timeout");
    stream
}

/// Asks a host, and checks that the answer is one by the protocol.
#[track_caller]
pub(crate) fn ask(socket: &Path, request: &Request, manner: Manner, by: &Answers) -> Outcome {
    let mut stream = connect(socket);
    let mut line = request.line.clone();
    if manner != Manner::LeavesTheEndOut {
        line.push(b'\n');
    }
    let sent = match manner {
        Manner::SaysNothing => return Outcome::default(),
        Manner::EndsItsSide => line.chunks(1 + line.len() / 5).try_for_each(|some| stream.write_all(some)),
        _ => stream.write_all(&line),
    };
    // A host that has answered before it has read all closes its end.
    if let Err(e) = sent {
        assert!(matches!(e.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset), "{e}");
    }
    if matches!(manner, Manner::EndsItsSide | Manner::LeavesTheEndOut) {
        let _ = stream.shutdown(Shutdown::Write);
    }
    match manner {
        Manner::Leaves => Outcome::default(),
        _ => hear(&mut stream, request, manner, by),
    }
}

/// Reads an answer, and checks it.
#[track_caller]
fn hear(stream: &mut UnixStream, request: &Request, manner: Manner, by: &Answers) -> Outcome {
    let command = &request.command;
    let shown = String::from_utf8_lossy(&request.line[..request.line.len().min(500)]).into_owned();
    let (mut outcome, mut has_ended) = (Outcome::default(), false);
    // Commands that wait for something that need not come.
    let waits = match command {
        Some(AdminCommand::Await(_)) => true,
        Some(AdminCommand::Watch { for_ms, .. }) => for_ms.is_none_or(|ms| ms > 1000),
        _ => false,
    };
    if waits {
        stream.set_read_timeout(Some(Duration::from_millis(100))).expect("a timeout");
    }
    let mut lines = BufReader::new(stream.try_clone().expect("the socket"));
    let mut line = Vec::new();
    loop {
        line.clear();
        match lines.read_until(b'\n', &mut line) {
            Ok(0) => break,
            Ok(_) => {}
            Err(e) if e.kind() == ErrorKind::ConnectionReset => break,
            Err(e) if e.kind() == ErrorKind::WouldBlock && waits => return outcome,
            Err(e) => panic!("{e} after {} replies to {manner:?} {shown}", outcome.replies),
        }
        assert!(!has_ended, "something stands behind the end of the answer to {shown}");
        let reply: Reply =
            parse(&line).unwrap_or_else(|e| panic!("{e}: {:?}", String::from_utf8_lossy(&line)));
        outcome.replies += 1;
        check_reply(&reply, command.as_ref(), by, &shown);
        match reply {
            Reply::End => has_ended = true,
            Reply::Error(why) => (has_ended, outcome.error) = (true, Some(why)),
            Reply::Go => send(stream, request),
            // A watch that nobody ends goes on.
            _ if manner == Manner::ReadsOne || waits && outcome.replies > 3 => return outcome,
            _ => {}
        }
    }
    let broken = matches!(command, Some(AdminCommand::Restore { .. } | AdminCommand::Amend { .. }))
        && (!request.has_an_end() || manner != Manner::Reads);
    assert!(has_ended || broken, "the answer to {manner:?} {shown} has no end");
    outcome
}

/// Sends the data of a request, in one piece. A host that takes no more of it has said why.
fn send(stream: &mut UnixStream, request: &Request) {
    let mut all = request.data.join(&b'\n');
    all.push(b'\n');
    let _ = stream.write_all(&all).and_then(|()| stream.shutdown(Shutdown::Write));
}

/// Checks that a reply is one that the page names for the command.
#[track_caller]
fn check_reply(reply: &Reply, command: Option<&AdminCommand>, by: &Answers, shown: &str) {
    let name = |value: serde_json::Value| match value {
        serde_json::Value::Object(fields) => fields.keys().next().cloned().unwrap_or_default(),
        other => other.as_str().unwrap_or_default().to_owned(),
    };
    let Some(command) = command else {
        let is_refused = matches!(reply, Reply::Error(why) if why.contains("command"));
        return assert!(is_refused, "{reply:?} to {shown}");
    };
    let (command, reply) = (name(serde_json::json!(command)), name(serde_json::json!(reply)));
    let is_named = by[&command].contains(&reply);
    assert!(
        is_named || reply == "end" || reply == "error",
        "{reply} to {command}, by {:?}: {shown}",
        by[&command]
    );
}
