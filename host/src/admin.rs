//! What operators ask: a Unix socket in the runtime directory, and a thread for each caller.
//!
//! The keeper takes the callers in, so that `status` is answered whatever the worker does; for all else it gives the socket to the
//! worker, which asks its loop for one small slice at a time, so that no answer holds up a client.
//!
//! The protocol is the host's own, between one version of the binary and itself: a [`Command`] as a line of JSON, then
//! [`Reply`]s, a line each. The command's output is what programs depend on.

use crate::keeper::{self, Event};
use crate::mail::{Answer, Ask, Mailbox, Message, Query};
use greenroom_core::inspect::{Filter, SessionView};
use greenroom_core::reload::{By, Outcome, Report};
use greenroom_state::dump::{self, DumpedEntry, DumpedService, DumpedSession};
use greenroom_state::value;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, BufWriter, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant, SystemTime};

/// A command's length, in bytes.
const COMMAND_BYTES_MAX: u64 = 64 * 1024;
/// Callers at once.
const CALLERS_MAX: usize = 32;
/// Callers under way.
static CALLERS: AtomicUsize = AtomicUsize::new(0);
/// How long a host that ends waits for callers to be told so.
const GOODBYE_MAX: Duration = Duration::from_millis(500);
/// A caller that doesn't read its answer for so long is dropped.
const CALLER_TIMEOUT: Duration = Duration::from_secs(30);

/// What is asked.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Command {
    /// Host and services.
    Status,
    /// All sessions.
    Sessions,
    /// The state dump.
    Dump {
        /// Only this service.
        service: Option<String>,
        /// Only this session.
        session: Option<u64>,
    },
    /// A reload.
    Reload {
        /// A service or library; none: all.
        service: Option<String>,
        /// Another file.
        from: Option<PathBuf>,
    },
    /// Go on with a worker from another binary.
    Upgrade {
        /// Its file.
        binary: PathBuf,
    },
}

/// What the keeper is asked.
pub enum Asked {
    /// [`Command::Status`].
    Status(Answers),
    /// [`Command::Upgrade`].
    Upgrade {
        /// The file.
        binary: PathBuf,
        /// Where to.
        answers: Answers,
    },
    /// Anything else is the worker's to answer, on this socket.
    OfWorker(Command, By, UnixStream),
}

/// Where answers go.
pub type Answers = Sender<Reply>;

/// What is answered, a line each; `End` or `Error` is the last.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reply {
    /// To [`Command::Status`].
    Status(Status),
    /// To [`Command::Sessions`], in slices.
    Sessions(Vec<SessionLine>),
    /// To [`Command::Dump`], a piece of the document.
    Text(String),
    /// To [`Command::Reload`], one for each library.
    Report(Report),
    /// That was all.
    End,
    /// It can't be done.
    Error(String),
}

/// `greenroom status --json`.
#[derive(Debug, Serialize, Deserialize)]
pub struct Status {
    /// The host.
    pub host: HostStatus,
    /// Its services.
    pub services: Vec<ServiceStatus>,
}

/// The host in a status.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct HostStatus {
    /// The process that supervises.
    pub pid: u32,
    /// The process that serves; 0: none at the moment.
    pub worker_pid: u32,
    /// The binary's version.
    pub version: String,
    /// Seconds since it started.
    pub uptime_s: u64,
    /// What the worker does: `serving`, `starting`, `handing over`, or `parked`: none lives, and all is kept for the next one.
    pub worker: String,
    /// Workers that there were before this one.
    pub workers_before: u64,
    /// Why the one before ended, or why none can start.
    pub reason: Option<String>,
    /// Connections that are held.
    pub connections: usize,
}

/// A service in a status.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ServiceStatus {
    /// Its name.
    pub name: String,
    /// The library that serves it.
    pub library: String,
    /// That library's generation.
    pub generation: u64,
    /// SHA-256 of its file.
    pub build: String,
    /// Version of its state.
    pub state_version: u32,
    /// Where it listens.
    pub listen: Vec<String>,
    /// Sessions alive.
    pub sessions: usize,
    /// Turns run since the host started.
    pub turns: u64,
    /// Of those, turns that failed.
    pub faults: u64,
}

/// A line of `greenroom sessions --json`.
#[derive(Debug, Serialize, Deserialize)]
pub struct SessionLine {
    /// Its number.
    pub id: u64,
    /// Its service.
    pub service: String,
    /// The peer's address.
    pub peer: String,
    /// RFC 3339.
    pub opened_at: String,
    /// Version of the stored state; 0: none.
    pub state_version: u32,
    /// Turns run.
    pub turns: u64,
    /// Bytes taken from the peer.
    pub bytes_in: u64,
    /// Bytes produced for the peer.
    pub bytes_out: u64,
    /// Why it is quarantined; null: it isn't.
    pub quarantined: Option<String>,
}

/// A reload as a line of the ledger.
pub fn ledger_line(r: &Report) -> String {
    let build = r.build.get(..12).unwrap_or("none");
    match r.outcome {
        Outcome::Committed => format!(
            "{}: generation {} committed, build {build}, {} sessions, pause {:.1} µs",
            r.library, r.generation, r.sessions, r.pause_us
        ),
        Outcome::Unchanged => {
            format!("{}: unchanged, generation {} runs build {build} already", r.library, r.generation)
        }
        Outcome::Refused => match r.generation {
            0 => format!("{}: refused: {}", r.library, r.reason),
            n => format!("{}: refused, generation {n} serves on: {}", r.library, r.reason),
        },
    }
}

/// Listens, and takes callers in until the process ends.
pub fn listen(path: &Path, mailbox: keeper::Mailbox) -> io::Result<()> {
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, PermissionsExt::from_mode(0o600))?;
    std::thread::Builder::new().name("admin".into()).spawn(move || {
        for stream in listener.incoming() {
            let Ok(stream) = stream else {
                // No descriptors: the next caller may have better luck.
                std::thread::sleep(Duration::from_millis(100));
                continue;
            };
            let mailbox = mailbox.clone();
            on_thread(stream, move |stream| take_in(stream, &mailbox));
        }
    })?;
    Ok(())
}

/// Answers one caller, on a thread of its own: the worker's side.
pub fn answer(stream: UnixStream, command: Command, by: By, mailbox: Mailbox) {
    on_thread(stream, move |stream| {
        let mut caller = Caller::new(&stream)?;
        let result = run(command, by, &mut caller, &mailbox);
        caller.end(result)
    });
}

fn on_thread(stream: UnixStream, serve: impl FnOnce(UnixStream) -> io::Result<()> + Send + 'static) {
    let busy = CALLERS.fetch_add(1, Ordering::Relaxed) >= CALLERS_MAX;
    let served = std::thread::Builder::new().name("caller".into()).spawn(move || {
        if busy {
            refuse(&stream, &format!("{CALLERS_MAX} commands are under way already"));
        } else if let Err(e) = serve(stream) {
            tracing::debug!("admin: {e}");
        }
        CALLERS.fetch_sub(1, Ordering::Relaxed);
    });
    if served.is_err() {
        CALLERS.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Whether callers wait for their answers.
pub fn is_busy() -> bool {
    CALLERS.load(Ordering::Relaxed) > 0
}

/// Waits until every caller has its answer, be it that the host has stopped: the loop has ended, and soon the process does.
pub fn finish() {
    let give_up = Instant::now() + GOODBYE_MAX;
    while CALLERS.load(Ordering::Relaxed) > 0 && Instant::now() < give_up {
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Tells a caller why it gets nothing else. One that has gone away doesn't miss it.
pub fn refuse(stream: &UnixStream, why: &str) {
    let said = Caller::new(stream).and_then(|mut caller| caller.say(&Reply::Error(why.to_owned())));
    if let Err(e) = said {
        tracing::debug!("admin: {e}");
    }
}

/// Reads what a caller wants: the keeper's side.
fn take_in(stream: UnixStream, mailbox: &keeper::Mailbox) -> io::Result<()> {
    let mut caller = Caller::new(&stream)?;
    // The directory's mode keeps others out; this is for one that was opened by mistake.
    let who = rustix::net::sockopt::socket_peercred(&stream)?;
    let me = rustix::process::geteuid();
    if who.uid != me && !who.uid.is_root() {
        return caller.say(&Reply::Error(format!("this host belongs to user {}", me.as_raw())));
    }
    let by = By::Operator { uid: who.uid.as_raw(), pid: who.pid.as_raw_nonzero().get() };
    let mut line = String::new();
    BufReader::new((&stream).take(COMMAND_BYTES_MAX)).read_line(&mut line)?;
    let (answers, answered) = channel();
    let asked = match serde_json::from_str(&line) {
        Ok(Command::Status) => Asked::Status(answers),
        Ok(Command::Upgrade { binary }) => Asked::Upgrade { binary, answers },
        Ok(command) => {
            drop(caller);
            if !mailbox.post(Event::Asked(Asked::OfWorker(command, by, stream))) {
                tracing::debug!("admin: the host is stopping");
            }
            return Ok(());
        }
        Err(e) => return caller.say(&Reply::Error(format!("the command is not known to this host: {e}"))),
    };
    let status = matches!(asked, Asked::Status(_));
    mailbox.post(Event::Asked(asked));
    let mut last = None;
    for reply in answered {
        caller.say(&reply)?;
        last = Some(reply);
    }
    match last {
        Some(Reply::End | Reply::Error(_)) => Ok(()),
        Some(_) if status => caller.say(&Reply::End),
        _ => caller.say(&Reply::Error("the host is stopping".into())),
    }
}

enum Failure {
    Said(String),
    Io(io::Error),
}

impl From<io::Error> for Failure {
    fn from(e: io::Error) -> Failure {
        Failure::Io(e)
    }
}

struct Caller<'a> {
    out: BufWriter<&'a UnixStream>,
}

impl<'a> Caller<'a> {
    fn new(stream: &'a UnixStream) -> io::Result<Caller<'a>> {
        stream.set_read_timeout(Some(CALLER_TIMEOUT))?;
        stream.set_write_timeout(Some(CALLER_TIMEOUT))?;
        Ok(Caller { out: BufWriter::new(stream) })
    }

    fn say(&mut self, reply: &Reply) -> io::Result<()> {
        serde_json::to_writer(&mut self.out, reply)?;
        self.out.write_all(b"\n")?;
        self.out.flush()
    }

    fn end(&mut self, result: Result<(), Failure>) -> io::Result<()> {
        match result {
            Ok(()) => self.say(&Reply::End),
            Err(Failure::Said(text)) => self.say(&Reply::Error(text)),
            Err(Failure::Io(e)) => Err(e),
        }
    }
}

/// Asks the loop. An answer that never comes means that the host is gone.
fn ask(mailbox: &Mailbox, query: Query) -> Result<Receiver<Answer>, Failure> {
    let (reply, answers) = channel();
    match mailbox.post(Message::Ask(Ask { query, reply })) {
        true => Ok(answers),
        false => Err(Failure::Said("the host is stopping".into())),
    }
}

/// Asks for one answer of one kind.
fn get<T>(mailbox: &Mailbox, query: Query, kind: impl FnOnce(Answer) -> Option<T>) -> Result<T, Failure> {
    match ask(mailbox, query)?.recv() {
        Ok(Answer::Error(text)) => Err(Failure::Said(text)),
        Ok(answer) => kind(answer).ok_or_else(|| Failure::Said("the host answered something else".into())),
        Err(_) => Err(Failure::Said("the host is stopping".into())),
    }
}

fn services(mailbox: &Mailbox) -> Result<Vec<ServiceStatus>, Failure> {
    get(mailbox, Query::Services, |a| if let Answer::Services(s) = a { Some(s) } else { None })
}

/// Calls `each` for all sessions, slice after slice.
fn each_slice(
    mailbox: &Mailbox,
    filter: &Filter,
    mut each: impl FnMut(Vec<SessionView>) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let mut after = Some(0);
    while let Some(id) = after {
        let query = Query::Sessions(id, filter.clone());
        let slice = get(mailbox, query, |a| if let Answer::Sessions(s) = a { Some(s) } else { None })?;
        each(slice.items)?;
        after = slice.next;
    }
    Ok(())
}

fn run(command: Command, by: By, caller: &mut Caller<'_>, mailbox: &Mailbox) -> Result<(), Failure> {
    match command {
        Command::Status | Command::Upgrade { .. } => {
            return Err(Failure::Said("the keeper answers this".into()));
        }
        Command::Sessions => each_slice(mailbox, &Filter::default(), |slice| {
            Ok(caller.say(&Reply::Sessions(slice.into_iter().map(session_line).collect()))?)
        })?,
        Command::Dump { service, session } => dump(service, session, caller, mailbox)?,
        Command::Reload { service, from } => {
            let mut to_come = None;
            for answer in ask(mailbox, Query::Reload(service, from, by))? {
                match answer {
                    Answer::Reloading(libraries) => to_come = Some(libraries),
                    Answer::Report(report) => {
                        to_come = to_come.map(|n| n - 1);
                        caller.say(&Reply::Report(*report))?;
                    }
                    Answer::Error(text) => return Err(Failure::Said(text)),
                    _ => {}
                }
            }
            if to_come != Some(0) {
                return Err(Failure::Said("the host stopped before the reload was done".into()));
            }
        }
    }
    Ok(())
}

fn session_line(v: SessionView) -> SessionLine {
    SessionLine {
        id: v.record.id,
        service: v.service,
        peer: v.record.peer.to_string(),
        opened_at: rfc3339(v.record.opened_at_ms),
        state_version: v.record.state_version,
        turns: v.record.turns,
        bytes_in: v.record.bytes_in,
        bytes_out: v.record.bytes_out,
        quarantined: v.quarantined,
    }
}

fn dump(
    service: Option<String>,
    session: Option<u64>,
    caller: &mut Caller<'_>,
    mailbox: &Mailbox,
) -> Result<(), Failure> {
    let all = services(mailbox)?;
    let named = |s: &&ServiceStatus| service.as_ref().is_none_or(|name| *name == s.name);
    let services: BTreeMap<_, _> = all
        .iter()
        .filter(named)
        .map(|s| (s.name.clone(), DumpedService { state_version: s.state_version, generation: s.generation }))
        .collect();
    if let (Some(name), true) = (&service, services.is_empty()) {
        let known: Vec<_> = all.iter().map(|s| s.name.as_str()).collect();
        return Err(Failure::Said(format!("no service is called {name:?}; there are: {}", known.join(", "))));
    }
    let now =
        rfc3339(SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |d| d.as_millis() as u64));
    let mut writer = dump::Writer::new(Pieces { caller, text: Vec::new() }, &now, &services)?;
    let mut found = 0;
    let filter = Filter { service: service.clone(), session, contents: true };
    each_slice(mailbox, &filter, |slice| {
        found += slice.len();
        Ok(slice.into_iter().try_for_each(|view| writer.session(&dumped(view)))?)
    })?;
    if let (Some(id), 0) = (session, found) {
        return Err(Failure::Said(format!("no session has number {id}")));
    }
    if service.is_none() && session.is_none() {
        for name in get(mailbox, Query::Tables, |a| if let Answer::Tables(t) = a { Some(t) } else { None })? {
            writer.table(&name)?;
            let mut from = Some(Vec::new());
            while let Some(key) = from {
                let query = Query::Entries(name.clone(), key);
                let slice = get(mailbox, query, |a| if let Answer::Entries(e) = a { Some(e) } else { None })?;
                for (key, packed) in slice.entries {
                    let value = json_or_bytes(&packed);
                    writer.entry(&DumpedEntry { key: value::bytes_to_json(&key), value })?;
                }
                from = slice.next;
            }
        }
    }
    writer.finish()?.flush()?;
    Ok(())
}

fn dumped(v: SessionView) -> DumpedSession {
    DumpedSession {
        id: v.record.id,
        service: v.service,
        peer: v.record.peer.to_string(),
        opened_at: rfc3339(v.record.opened_at_ms),
        state_version: v.record.state_version,
        state: v.state.as_deref().map_or(serde_json::Value::Null, json_or_bytes),
        input: value::bytes_to_json(&v.input),
        output: value::bytes_to_json(&v.output),
        timers: Vec::new(),
        topics: v.topics,
    }
}

/// What a handler stored is MessagePack; if it isn't, its bytes are shown.
fn json_or_bytes(packed: &[u8]) -> serde_json::Value {
    value::to_json(packed).unwrap_or_else(|_| value::bytes_to_json(packed))
}

fn rfc3339(unix_ms: u64) -> String {
    humantime::format_rfc3339_millis(SystemTime::UNIX_EPOCH + Duration::from_millis(unix_ms)).to_string()
}

/// Sends a document in pieces, so that a dump of many sessions is held nowhere as a whole.
struct Pieces<'c, 'a> {
    caller: &'c mut Caller<'a>,
    text: Vec<u8>,
}

const PIECE_BYTES: usize = 64 * 1024;

impl Write for Pieces<'_, '_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.text.extend_from_slice(bytes);
        if self.text.len() >= PIECE_BYTES {
            self.flush()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        // JSON is UTF-8, but a write may end within a character.
        let whole = match std::str::from_utf8(&self.text) {
            Ok(text) => text.len(),
            Err(e) => e.valid_up_to(),
        };
        let rest = self.text.split_off(whole);
        let text = String::from_utf8(std::mem::replace(&mut self.text, rest)).map_err(io::Error::other)?;
        if text.is_empty() { Ok(()) } else { self.caller.say(&Reply::Text(text)) }
    }
}

/// Why a host can't be asked.
#[derive(Debug)]
pub enum CallError {
    /// None answers there.
    NoHost(String),
    /// It refused.
    Failed(String),
    /// It broke off.
    BrokenOff(String),
}

/// How long a command that only looks is asked again, should the worker die while it answers.
const ASK_AGAIN_MAX: Duration = Duration::from_secs(10);

/// Asks a host, and calls `each` with what it answers.
pub fn call(dir: &Path, command: &Command, mut each: impl FnMut(Reply)) -> Result<(), CallError> {
    let give_up = Instant::now() + ASK_AGAIN_MAX;
    let only_looks = !matches!(command, Command::Reload { .. } | Command::Upgrade { .. });
    loop {
        let mut answered = false;
        let result = call_once(dir, command, &mut |reply| {
            answered = true;
            each(reply);
        });
        match result {
            // Its successor answers.
            Err(CallError::BrokenOff(_)) if only_looks && !answered && Instant::now() < give_up => {}
            other => return other,
        }
    }
}

fn call_once(dir: &Path, command: &Command, each: &mut dyn FnMut(Reply)) -> Result<(), CallError> {
    let path = crate::runtime::socket_path(dir);
    let no_host = |e: io::Error| {
        CallError::NoHost(format!(
            "no host answers on {} ({e}); is `greenroom serve` running, and with this --runtime?",
            path.display()
        ))
    };
    let mut stream = UnixStream::connect(&path).map_err(no_host)?;
    let broke = |e: &dyn std::fmt::Display| {
        CallError::BrokenOff(format!(
            "the answer broke off ({e}): the worker ended meanwhile; `greenroom status` tells what runs now"
        ))
    };
    let line = serde_json::to_string(command).map_err(|e| broke(&e))? + "\n";
    stream.write_all(line.as_bytes()).map_err(|e| broke(&e))?;
    for line in BufReader::new(stream).lines() {
        let line = line.map_err(|e| broke(&e))?;
        match serde_json::from_str(&line).map_err(|e| broke(&e))? {
            Reply::End => return Ok(()),
            Reply::Error(text) => return Err(CallError::Failed(text)),
            reply => each(reply),
        }
    }
    Err(broke(&"it ended early"))
}
