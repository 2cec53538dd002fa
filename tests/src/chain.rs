//! Load that notices every lost, doubled or reordered line.
//!
//! Each session's replies carry a hash chained over all of its lines so far. A line or a reply
//! that was lost, doubled, or put out of order therefore shows in the next reply. Clients come
//! and go, send in pieces that end anywhere, read late, and sometimes leave without a word.
//!
//! At the end the test compares the host's tables with [`Findings`]. Table `sums` has the hash
//! of each session's last line. Table `ends` counts one end for each.

use crate::fixture::{Fixture, Optimize};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Source of a handler that answers each line with the number of lines and their chained hash.
/// To these it adds as many bytes as the line asks for (`!N`). A line that begins with `@` is
/// answered in a second turn, over a note to itself.
///
/// A session's first line is its name. Under it, table `sums` has number and hash. Table `ends`
/// has the number of times that the session was told of its end. `comment` makes builds differ.
pub fn source(service: &str, comment: &str) -> String {
    r#"
#![forbid(unsafe_code)]
use greenroom_handler::{Action, Fault, Handler, NoConfig, Table, Turn, export};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

export!(Chain);

#[derive(Default, Serialize, Deserialize, JsonSchema)]
struct State {
    name: String,
    count: u64,
    hash: u64,
}

const SUMS: Table<(u64, u64)> = Table::new("sums");
const ENDS: Table<u64> = Table::new("ends");

struct Chain;

impl Handler for Chain {
    const SERVICE: &'static str = "SERVICE";
    const PORT: u16 = 0;
    type State = State;
    type Config = NoConfig;

    fn new(_: NoConfig) -> Result<Self, String> {
        Ok(Chain)
    }

    fn handle(&self, turn: &mut Turn<'_, State>, action: Action<'_>) -> Result<(), Fault> {
        match action {
            Action::Opened => {
                tracing::trace!("COMMENT");
                turn.send_line("hello");
            }
            Action::Message(line) if line.starts_with(b"@") => {
                let own = turn.session();
                turn.note(own, line);
            }
            Action::Message(line) | Action::Note { bytes: line, .. } => {
                if turn.state.count == 0 {
                    turn.state.name = String::from_utf8_lossy(line).into_owned();
                }
                turn.state.count += 1;
                turn.state.hash = chained(turn.state.hash, line);
                let (count, hash, name) = (turn.state.count, turn.state.hash, turn.state.name.clone());
                SUMS.put(turn, &name, &(count, hash))?;
                let size = std::str::from_utf8(line)?.strip_prefix('!').and_then(|l| l.split(' ').next());
                let size: usize = size.map_or(Ok(0), str::parse)?;
                turn.send_line(format!("{count} {hash} {}", "x".repeat(size)));
            }
            Action::Closed(_) if turn.state.count > 0 => {
                let name = turn.state.name.clone();
                let before = ENDS.get(turn, &name)?.unwrap_or(0);
                ENDS.put(turn, &name, &(before + 1))?;
            }
            _ => {}
        }
        Ok(())
    }
}

fn chained(hash: u64, line: &[u8]) -> u64 {
    line.iter().chain(b"\n").fold(hash ^ 0xcbf2_9ce4_8422_2325, |h, b| (h ^ u64::from(*b)).wrapping_mul(0x0100_0000_01b3))
}
"#
    .replace("SERVICE\"", &format!("{service}\""))
    .replace("COMMENT", comment)
}

/// Crate of [`source`].
pub fn fixture(service: &str) -> Fixture {
    Fixture::with(Optimize::AsReleased, service, &source(service, "the first build"))
}

fn chained(hash: u64, line: &[u8]) -> u64 {
    let step = |h: u64, b: &u8| (h ^ u64::from(*b)).wrapping_mul(0x0100_0000_01b3);
    line.iter().chain(b"\n").fold(hash ^ 0xcbf2_9ce4_8422_2325, step)
}

/// Expectations of a session that has ended.
#[derive(Debug, Clone)]
pub struct Ended {
    /// Hash after each line.
    pub hashes: Vec<u64>,
    /// All of its lines were answered; else any number of them may have been run.
    pub complete: bool,
}

/// Clients on threads of their own, which come and go until [`Load::finish`].
pub struct Load {
    stop: Arc<AtomicBool>,
    threads: Vec<std::thread::JoinHandle<Result<(), String>>>,
    shared: Arc<Shared>,
}

/// Findings so far, of all clients.
#[derive(Default)]
struct Shared {
    /// Sessions by their names. A name is used once.
    ended: Mutex<BTreeMap<String, Ended>>,
    replies: AtomicU64,
    /// Longest wait for a reply, in microseconds.
    longest_us: AtomicU64,
    failed: AtomicBool,
}

/// Findings of a load.
#[derive(Debug)]
pub struct Findings {
    /// Sessions that there were, by their names.
    pub ended: BTreeMap<String, Ended>,
    /// Replies checked.
    pub replies: u64,
    /// Longest wait of a client for a reply.
    pub longest: Duration,
}

impl Load {
    /// Starts so many clients. A client that gets no reply for `patience` has failed. The
    /// choices of each client follow from `seed`; the timing does not.
    pub fn start(addr: SocketAddr, clients: u64, seed: u64, patience: Duration) -> Load {
        let (stop, shared) = (Arc::new(AtomicBool::new(false)), Arc::new(Shared::default()));
        let threads = (0..clients).map(|n| {
            let client = Client {
                addr,
                rng: fastrand::Rng::with_seed(seed ^ n << 32),
                stop: stop.clone(),
                shared: shared.clone(),
                patience,
            };
            std::thread::spawn(move || client.run(n))
        });
        Load { threads: threads.collect(), stop, shared }
    }

    /// Whether a client has failed already.
    pub fn has_failed(&self) -> bool {
        self.shared.failed.load(Ordering::Relaxed)
    }

    /// Replies checked so far.
    pub fn replies(&self) -> u64 {
        self.shared.replies.load(Ordering::Relaxed)
    }

    /// Lets every client finish its conversation. The error is that of the first client that
    /// found something wrong.
    pub fn finish(self) -> Result<Findings, String> {
        self.stop.store(true, Ordering::Relaxed);
        let mut result = Ok(());
        for thread in self.threads {
            let ended = thread.join().unwrap_or_else(|_| Err("a client panicked".into()));
            result = result.and(ended);
        }
        result?;
        Ok(Findings {
            ended: self.shared.ended.lock().map_err(|e| e.to_string())?.clone(),
            replies: self.shared.replies.load(Ordering::Relaxed),
            longest: Duration::from_micros(self.shared.longest_us.load(Ordering::Relaxed)),
        })
    }
}

/// Client with its own choices. Runs one conversation after the other.
struct Client {
    addr: SocketAddr,
    rng: fastrand::Rng,
    stop: Arc<AtomicBool>,
    shared: Arc<Shared>,
    patience: Duration,
}

/// Bytes of answers that a client leaves unread at most: the kernel holds as much, so that
/// neither side waits for the other.
const UNREAD_MAX: usize = 60_000;

impl Client {
    fn run(mut self, n: u64) -> Result<(), String> {
        let mut life = 0;
        while !self.stop.load(Ordering::Relaxed) {
            let name = format!("{n}-{life}");
            let ended = self.life(&name).map_err(|e| format!("client {name}: {e}"));
            if ended.is_err() {
                self.shared.failed.store(true, Ordering::Relaxed);
            }
            self.shared.ended.lock().map_err(|e| e.to_string())?.insert(name, ended?);
            life += 1;
        }
        Ok(())
    }

    /// Runs one conversation, from connecting to its end. Returns the expectations of the
    /// session.
    fn life(&mut self, name: &str) -> Result<Ended, String> {
        let stream = TcpStream::connect(self.addr).map_err(|e| format!("connect: {e}"))?;
        let timeouts = stream
            .set_read_timeout(Some(self.patience))
            .and_then(|()| stream.set_write_timeout(Some(self.patience)))
            .and_then(|()| stream.set_nodelay(true));
        timeouts.map_err(|e| e.to_string())?;
        let mut talk = Talk {
            reader: BufReader::new(stream.try_clone().map_err(|e| e.to_string())?),
            stream,
            hashes: Vec::new(),
            sizes: Vec::new(),
            answered: 0,
            shared: self.shared.clone(),
        };
        let hello = talk.line()?;
        if hello != "hello" {
            return Err(format!("greeted with {hello:?}"));
        }
        talk.send(&mut self.rng, &[name.to_owned()])?;
        for _ in 0..self.rng.usize(1..60) {
            let lines: Vec<_> = (0..self.rng.usize(1..24)).map(|_| self.text()).collect();
            talk.send(&mut self.rng, &lines)?;
            if self.rng.u8(0..8) == 0 {
                // A slow reader.
                std::thread::sleep(Duration::from_millis(self.rng.u64(0..15)));
            }
            let unread: usize = talk.sizes[talk.answered..].iter().sum();
            if self.rng.bool() || unread > UNREAD_MAX / 2 {
                talk.catch_up()?;
            }
            if self.stop.load(Ordering::Relaxed) {
                break;
            }
        }
        if self.rng.u8(0..6) == 0 {
            // Gone without a word: with unread answers that is a reset. Lines on the way may be
            // lost.
            return Ok(Ended { hashes: talk.hashes, complete: false });
        }
        talk.stream.shutdown(Shutdown::Write).map_err(|e| format!("shutdown: {e}"))?;
        talk.catch_up()?;
        match talk.line() {
            Err(e) if e == END => Ok(Ended { hashes: talk.hashes, complete: true }),
            Err(e) => Err(format!("after its end: {e}")),
            Ok(line) => Err(format!("after its end came {line:?}")),
        }
    }

    /// Line to send: some ask for a long answer, some for an answer in a second turn.
    fn text(&mut self) -> String {
        let word: String = (0..self.rng.usize(0..60)).map(|_| self.rng.alphanumeric()).collect();
        match self.rng.u8(0..20) {
            0 => format!("!{} {word}", self.rng.usize(1..1200)),
            1..4 => format!("@{word}"),
            _ => word,
        }
    }
}

const END: &str = "the stream ended";

/// Conversation: the lines that were sent, and how many of them were answered.
struct Talk {
    stream: TcpStream,
    reader: BufReader<TcpStream>,
    hashes: Vec<u64>,
    /// Bytes of each answer, about: number, hash, and the bytes that were asked for.
    sizes: Vec<usize>,
    answered: usize,
    shared: Arc<Shared>,
}

impl Talk {
    /// Sends lines, and notes the answers that must come.
    fn send(&mut self, rng: &mut fastrand::Rng, lines: &[String]) -> Result<(), String> {
        let mut bytes = Vec::new();
        for line in lines {
            let before = self.hashes.last().copied().unwrap_or(0);
            self.hashes.push(chained(before, line.as_bytes()));
            let asked = line.strip_prefix('!').and_then(|l| l.split(' ').next()?.parse().ok());
            self.sizes.push(30 + asked.unwrap_or(0));
            bytes.extend_from_slice(line.as_bytes());
            bytes.push(b'\n');
        }
        // In pieces that end anywhere, so that frames are cut at every place.
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            let n = if rng.bool() { rest.len() } else { rng.usize(1..=rest.len()) };
            self.stream.write_all(&rest[..n]).map_err(|e| format!("send: {e}"))?;
            rest = &rest[n..];
        }
        Ok(())
    }

    /// Reads the answers to all lines sent so far, and checks each.
    fn catch_up(&mut self) -> Result<(), String> {
        while self.answered < self.hashes.len() {
            let expected = format!("{} {} ", self.answered + 1, self.hashes[self.answered]);
            let line = self.line().map_err(|e| format!("waiting for {expected:?}: {e}"))?;
            if !line.starts_with(&expected) {
                let got: String = line.chars().take(80).collect();
                return Err(format!("expected {expected:?}, got {got:?}"));
            }
            self.answered += 1;
            self.shared.replies.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Reads a line. The error is [`END`] at the end of the stream, or says what came instead.
    fn line(&mut self) -> Result<String, String> {
        let (since, mut line) = (Instant::now(), String::new());
        match self.reader.read_line(&mut line) {
            Ok(0) => Err(END.into()),
            Ok(_) if !line.ends_with('\n') => Err(format!("half a line: {line:?}")),
            Ok(_) => {
                self.shared.longest_us.fetch_max(since.elapsed().as_micros() as u64, Ordering::Relaxed);
                line.pop();
                Ok(line)
            }
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                Err(format!("nothing came for {:?}", since.elapsed()))
            }
            Err(e) => Err(format!("receive: {e}")),
        }
    }
}
