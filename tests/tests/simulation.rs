//! The whole core in one thread from one seed: cut reads, short writes, slow readers, failing turns, resets, kills and
//! reloads at any step. After every step the invariants are checked; a failing seed is printed, and
//! `GREENROOM_SEED=N cargo test -p greenroom-tests --test simulation` replays it.
//!
//! `GREENROOM_TRACE=FILE` writes a line for each seed to `FILE.script` and `FILE.tally`: the seed, its steps, two hashes. Both are
//! over every draw, command, job, connection and byte for a peer, in order; the second one is over messages' words too. A change
//! that keeps behaviour keeps these lines. `GREENROOM_SEEDS=1000..1400` runs other seeds than the usual ones.
//!
//! The model of a session is the list of lines that its peer wrote. How many turns the core says it ran tells exactly what
//! the state must be, what its table entries must be and what must have been sent: nothing more, nothing less, once and
//! in order.

use greenroom::memory::board::Board;
use greenroom::plugin::ffi::library::Library;
use greenroom_core::command::Command;
use greenroom_core::core::Core;
use greenroom_core::core::Successor;
use greenroom_core::effects::inbox::ActionView;
use greenroom_core::framing::Framing;
use greenroom_core::ids::ServiceId;
use greenroom_core::ids::Slot;
use greenroom_core::input::Input;
use greenroom_core::ledger::Outcome;
use greenroom_core::ledger::ProbationCounts;
use greenroom_core::limits::host::Limits;
use greenroom_core::limits::names::Limit;
use greenroom_core::limits::per_service::{AllLimits, ServiceLimits};
use greenroom_core::operate::check::{Checked, GivenState};
use greenroom_core::operate::inspect::{Filter, SessionView};
use greenroom_core::operate::plan::{Plan, PlannedEntry, PlannedState, PlannedTable};
use greenroom_core::reload::request::{By, Event, LibraryId, Request, Step, Want};
use greenroom_core::service::offer::{Build, Offer};
use greenroom_core::service::probation::ProbationEnd;
use greenroom_core::session::life::Life;
use greenroom_core::store::kind::Kind;
use greenroom_core::store::memory::Plain;
use greenroom_core::store::records::Store;
use greenroom_core::turn::code::{Batch, Code};
use greenroom_core::turn::fault::Fault;
use greenroom_core::turn::staging::Staging;
use greenroom_state::abi::{self, action, fault};
use greenroom_state::compatibility::StateShape;
use greenroom_state::schema::Schema;
use std::collections::{BTreeMap, VecDeque};

const STEPS: usize = 1800;
const SEEDS: u64 = 60;
const PEERS_MAX: usize = 12;
const TABLE: &str = "sim";
/// Counters that turns keep of what they asked for and what came of it.
const COUNTS: &str = "counts";
/// Where every peer is.
const ADDR: &str = "127.0.0.1:9";

/// A service whose turns succeed, fail and misbehave on demand. Its state is a version byte and a count.
struct Script {
    generation: u64,
    version: u32,
    /// States with this remainder by seven can't be read: a migration that goes wrong for some.
    chokes_on: Option<u64>,
    /// It trips where other builds don't.
    flawed: bool,
    /// Its counters can't be trusted: somebody has written over them.
    damaged: bool,
}

impl Code for Script {
    fn convert(&self, which: u32, from: u32, to: u32, value: &[u8]) -> Result<Vec<u8>, String> {
        assert_eq!(
            (which, u32::from(value[0])),
            (0, from),
            "what is converted is of the version that it is said to be"
        );
        Ok([&[to as u8], &value[1..]].concat())
    }

    fn run(&self, batch: &Batch<'_>, staging: &mut Staging<'_>) -> u32 {
        let failed = |kind| Fault { kind, message: "as asked".into(), file: "sim".into(), line: 1 };
        let mut count = match batch.state {
            None => 0,
            Some((version, bytes)) => {
                assert_eq!(u32::from(bytes[0]), version, "the record knows the version of what it holds");
                u64::from_le_bytes(bytes[1..9].try_into().expect("eight bytes"))
            }
        };
        if batch.state.is_some() && self.chokes_on.is_some_and(|r| count % 7 == r) {
            staging.turn_failed(failed(fault::STATE));
            return 0;
        }
        let state = |count: u64| [&[self.version as u8][..], &count.to_le_bytes()].concat();
        let mut changed = batch.state.is_some_and(|(v, _)| v != self.version || batch.actions.is_empty());
        let mut done = 0;
        for a in batch.actions {
            let line = message(a);
            let (verb, rest) = line.split_once(' ').unwrap_or((&line, ""));
            let reply = |count: u64| format!("{count} {:04} {line}\n", self.generation);
            let own = batch.session.to_string();
            let mut touched = false;
            let fails = match (a.kind, verb) {
                (action::MESSAGE, "add") => {
                    count += 1;
                    touched = true;
                    staging.send(reply(count).as_bytes());
                    false
                }
                (action::MESSAGE, "trip") if self.flawed => {
                    staging.send(b"never to be seen\n");
                    staging.table_put(TABLE, b"never", b"to be seen");
                    count += 1000;
                    touched = true;
                    true
                }
                (action::MESSAGE, "trip") => {
                    count += 1;
                    touched = true;
                    staging.send(reply(count).as_bytes());
                    false
                }
                (action::MESSAGE, "put") => {
                    let key = format!("{}:{rest}", batch.session);
                    staging.table_put(TABLE, key.as_bytes(), line.as_bytes());
                    assert_eq!(
                        staging.table_get(TABLE, key.as_bytes()),
                        Some(line.as_bytes()),
                        "own writes are seen"
                    );
                    staging.send(reply(count).as_bytes());
                    false
                }
                (action::MESSAGE, "cut") => {
                    let key = format!("{}:{rest}", batch.session);
                    staging.table_delete(TABLE, key.as_bytes());
                    assert_eq!(staging.table_get(TABLE, key.as_bytes()), None, "own deletions are seen");
                    staging.send(reply(count).as_bytes());
                    false
                }
                (action::MESSAGE, "join") => {
                    assert_eq!(staging.subscribe("two\nlines"), abi::status::INVALID);
                    staging.subscribe(rest);
                    forget(staging, "last", &format!("{own}:{rest}"));
                    staging.send(reply(count).as_bytes());
                    false
                }
                (action::MESSAGE, "part") => {
                    staging.unsubscribe(rest);
                    staging.send(reply(count).as_bytes());
                    false
                }
                (action::MESSAGE, "fail" | "peek" | "huge" | "mute") => {
                    staging.broadcast(rest, b"never to be heard\n", false);
                    staging.send(b"never to be seen\n");
                    staging.table_put(TABLE, b"never", b"to be seen");
                    staging.subscribe("never");
                    staging.set_timer("never", 0, false);
                    staging.note(batch.session, b"never");
                    let _ = staging.start_job("never", b"", false);
                    let _ = staging.connect("script", ADDR, b"never");
                    staging.wait_for(1);
                    staging.hold(true);
                    staging.close();
                    if verb != "peek" {
                        count += 1000;
                        touched = true;
                    }
                    true
                }
                (action::MESSAGE, "self") => {
                    staging.note(batch.session, b"to itself");
                    staging.send(reply(count).as_bytes());
                    false
                }
                (action::MESSAGE, "tell") => {
                    staging.note(rest.parse().unwrap_or(0), b"told");
                    add(staging, "sent", rest, 1);
                    staging.send(reply(count).as_bytes());
                    false
                }
                (action::MESSAGE, "timer") => {
                    let n = add(staging, "set", &own, 1);
                    staging.set_timer(&format!("t{n}"), rest.parse::<u64>().unwrap_or(0) * 500, false);
                    staging.send(reply(count).as_bytes());
                    false
                }
                (action::MESSAGE, "again") => {
                    staging.set_timer("again", rest.parse::<u64>().unwrap_or(0) * 500, false);
                    staging.cancel_timer("off", false);
                    staging.set_timer("off", 0, false);
                    staging.cancel_timer("off", false);
                    staging.send(reply(count).as_bytes());
                    false
                }
                (action::MESSAGE, "tick") => {
                    let n = add(staging, "set", "service", 1);
                    staging.set_timer(&format!("t{n}"), rest.parse::<u64>().unwrap_or(0) * 500, true);
                    staging.send(reply(count).as_bytes());
                    false
                }
                (action::MESSAGE, "work" | "once") => {
                    add(staging, "asked", &own, 1);
                    staging.start_job(verb, rest.as_bytes(), verb == "once").expect("a number");
                    staging.send(reply(count).as_bytes());
                    false
                }
                (action::MESSAGE, "cast") => {
                    // Not to itself, which leaves a gap there.
                    let n = add(staging, "casts", rest, 1);
                    forget(staging, "last", &format!("{own}:{rest}"));
                    staging.publish(rest, format!("{n} {}", "x".repeat(cast_len(n))).as_bytes(), true);
                    staging.send(reply(count).as_bytes());
                    false
                }
                (action::MESSAGE, "shout") => {
                    let n = add(staging, "shouted", rest, 1);
                    let text = "x".repeat(shout_len(n));
                    staging.send(reply(count).as_bytes());
                    // Last, so that a turn that fails may have gone on with it.
                    staging.broadcast(rest, format!("~{rest} {n} ").as_bytes(), false);
                    staging.broadcast(rest, format!("{text}\n").as_bytes(), false);
                    false
                }
                (action::MESSAGE, "dial") => {
                    add(staging, "dials", &own, 1);
                    staging.connect("script", ADDR, own.as_bytes()).expect("a number");
                    staging.send(reply(count).as_bytes());
                    false
                }
                (action::MESSAGE, "hold") => {
                    // Until a timer of its own lets it go on.
                    staging.hold(true);
                    staging.set_timer("go", rest.parse::<u64>().unwrap_or(0) * 100, false);
                    staging.send(reply(count).as_bytes());
                    false
                }
                (action::MESSAGE, "wait") => {
                    staging.wait_for(rest.parse().unwrap_or(0));
                    staging.send(reply(count).as_bytes());
                    false
                }
                (action::DIALED, _) => {
                    let by = if a.from == 0 { "service".to_owned() } else { a.from.to_string() };
                    assert_eq!(line, by, "whoever asked for it gave its name");
                    add(staging, "acts", &own, 1);
                    add(staging, "dialed", &own, 1);
                    false
                }
                (action::CONNECT, _) => {
                    let open = a.detail == abi::connect::OPEN;
                    assert!(if open { line.parse::<u64>().is_ok() } else { !line.is_empty() }, "{line}");
                    let whose = if batch.session >> 63 == 1 { "service" } else { &own };
                    add(staging, "acts", whose, 1);
                    add(staging, "told", whose, 1);
                    let told = add(staging, "once", &format!("connect {}", a.from), 1);
                    assert!(told == 1 || self.damaged, "an outcome is told once");
                    false
                }
                (action::NOTE, _) => {
                    add(staging, "acts", &own, 1);
                    if a.from == batch.session {
                        count += 1;
                        touched = true;
                        staging.send(format!("{count} {:04} noted\n", self.generation).as_bytes());
                    } else {
                        add(staging, "got", &own, 1);
                    }
                    false
                }
                (action::TIMER, _) => {
                    let name = text(a.name);
                    assert_ne!(name, "off", "it was taken off");
                    let whose = if batch.session >> 63 == 1 { "service" } else { &own };
                    add(staging, "acts", whose, 1);
                    if name == "go" {
                        staging.hold(false);
                    } else if name != "again" {
                        add(staging, "fired", whose, 1);
                        let fired = add(staging, "once", &format!("{whose}:{name}"), 1);
                        assert!(fired == 1 || self.damaged, "a timer fires once");
                    }
                    if whose == "service" && name.ends_with('3') {
                        add(staging, "dials", whose, 1);
                        staging.connect("script", ADDR, whose.as_bytes()).expect("a number");
                    }
                    false
                }
                (action::PUBLISHED, _) => {
                    let n: u64 = verb.parse().expect("a number");
                    assert_eq!(rest.len(), cast_len(n), "the whole message");
                    let key = format!("{own}:{}", text(a.name));
                    let last = add(staging, "last", &key, 0);
                    assert!(last == 0 || n == last + 1 || self.damaged, "message {n} came after {last}");
                    forget(staging, "last", &key);
                    add(staging, "last", &key, n);
                    add(staging, "acts", &own, 1);
                    false
                }
                (action::JOB, _) => {
                    if a.detail == abi::job::DONE {
                        assert!(line.starts_with("result of "), "{line}");
                    }
                    add(staging, "acts", &own, 1);
                    add(staging, "done", &own, 1);
                    false
                }
                (action::MESSAGE, "bye") => {
                    staging.send(reply(count).as_bytes());
                    staging.close();
                    false
                }
                (action::MESSAGE, _) => {
                    staging.send(reply(count).as_bytes());
                    false
                }
                _ => false,
            };
            if fails {
                match verb {
                    // The host's limit stops it.
                    "huge" => {
                        count -= 1000;
                        if done > 0 {
                            staging.turn_failed(failed(fault::PANIC));
                            break;
                        }
                        staging.turn_ok();
                        staging.state(&vec![0; 1 << 20]);
                        return 0;
                    }
                    // A handler with a bug: no outcome at all.
                    "mute" if done == 0 => return 0,
                    _ => staging.turn_failed(failed(fault::PANIC)),
                }
                if touched && changed {
                    return abi::RUN_STATE_LOST;
                }
                if touched {
                    return 0;
                }
                break;
            }
            changed |= touched;
            done += 1;
            if !staging.turn_ok() {
                break;
            }
        }
        // A batch without actions wants to know what would be stored.
        if changed && (done > 0 || batch.actions.is_empty()) {
            staging.state(&state(count));
        }
        0
    }
}

/// Adds to a counter in the table, as a turn does.
fn add(staging: &mut Staging<'_>, what: &str, whose: &str, n: u64) -> u64 {
    let key = format!("{what}:{whose}");
    let read = staging.table_get(COUNTS, key.as_bytes()).map(<[u8]>::to_vec);
    let sum = read.map_or(0, |v| String::from_utf8(v).expect("digits").parse().expect("a number")) + n;
    staging.table_put(COUNTS, key.as_bytes(), sum.to_string().as_bytes());
    sum
}

/// A counter begins anew.
fn forget(staging: &mut Staging<'_>, what: &str, whose: &str) {
    staging.table_delete(COUNTS, format!("{what}:{whose}").as_bytes());
}

/// Short shouts are copied, long ones are kept once; some are more than whoever doesn't read may leave untaken.
fn shout_len(n: u64) -> usize {
    match n % 8 {
        0 => 1500,
        2 | 4 | 6 => 10,
        _ => 200,
    }
}

/// Short messages are copied, long ones are kept once.
fn cast_len(n: u64) -> usize {
    if n.is_multiple_of(2) { 10 } else { 300 }
}

fn message(a: &abi::Action<'_>) -> String {
    text(a.data)
}

fn text(b: abi::Bytes<'_>) -> String {
    if b.len == 0 {
        return String::new();
    }
    // SAFETY: the core passes bytes that live as long as the batch.
    let bytes = unsafe { std::slice::from_raw_parts(b.ptr, b.len) };
    String::from_utf8(bytes.to_vec()).expect("the peers write UTF-8")
}

/// What a session must be after some of its lines.
#[derive(Default, PartialEq, Debug, Clone)]
struct Expected {
    count: u64,
    table: BTreeMap<String, String>,
    topics: Vec<String>,
    replies: Vec<String>,
    closed: bool,
}

/// The service in charge: the script above, or the shipped `tally` through the real ABI.
#[derive(Clone, Copy, PartialEq)]
enum Which {
    Script,
    Tally,
}

impl Which {
    fn name(self) -> &'static str {
        match self {
            Which::Script => "script",
            Which::Tally => "tally",
        }
    }
}

/// Runs the model over a peer's lines. Replies of the script lack the generation, which the peer checks apart.
fn model(which: Which, session: u64, lines: &[String]) -> Expected {
    let mut e = Expected::default();
    for line in lines {
        let (verb, rest) = line.split_once(' ').unwrap_or((line, ""));
        let key = format!("{session}:{rest}");
        match (which, verb) {
            (Which::Tally, _) => e.count += 1,
            (_, "add" | "trip") => e.count += 1,
            (_, "put") => _ = e.table.insert(key, line.clone()),
            (_, "cut") => _ = e.table.remove(&key),
            (_, "fail" | "peek" | "huge" | "mute") => continue,
            (_, "join") if !e.topics.iter().any(|t| t == rest) => e.topics.push(rest.to_owned()),
            (_, "part") => e.topics.retain(|t| t != rest),
            (_, "bye") => e.closed = true,
            _ => {}
        }
        e.replies.push(format!("{} {line}", e.count));
        if which == Which::Script && verb == "self" {
            // Its own note comes before its next line.
            e.count += 1;
            e.replies.push(format!("{} noted", e.count));
        }
        if e.closed {
            break;
        }
    }
    e
}

/// A peer, and both directions of its connection.
struct Peer {
    id: u64,
    slot: Slot,
    lines: Vec<String>,
    /// Written by the peer, not read by the host.
    to_host: VecDeque<u8>,
    done: bool,
    done_read: bool,
    /// Taken by the kernel, not read by the peer.
    from_host: VecDeque<u8>,
    room: usize,
    blocked: bool,
    shut: bool,
    received: Vec<u8>,
    replies: usize,
    last_generation: u64,
    /// The number of the last shout that it heard on each topic since it has been on it.
    heard: BTreeMap<String, u64>,
    /// What the kernel counts: read by the host in all, taken from it in all.
    read: u64,
    sent: u64,
    /// Read since the last commit, and whether it was opened since then.
    uncommitted: Vec<u8>,
    unborn: bool,
    /// The host connected to it, as it was asked by this number.
    dialed: Option<u64>,
}

struct World {
    rng: fastrand::Rng,
    board: Board,
    core: Core,
    which: Which,
    library: LibraryId,
    service: ServiceId,
    peers: Vec<Peer>,
    now_ns: u64,
    opened: u64,
    free: Vec<Slot>,
    freed: Vec<Slot>,
    slots: u32,
    generation: u64,
    version: u32,
    candidate: Option<Candidate>,
    requests: u64,
    chokes_on: Option<u64>,
    flawed: bool,
    shouts: u64,
    highest: u64,
    /// What stands by, and what was rolled back and converts what it left.
    before: Option<Known>,
    converters: Vec<Known>,
    stood_by: u64,
    rollbacks: u64,
    proved: u64,
    spared: u64,
    commits: u64,
    refusals: u64,
    quarantined: u64,
    kills: u64,
    /// Counted by cores that were killed.
    turns: u64,
    faults: u64,
    /// Sessions whose peer had gone when a kill brought them back.
    ghosts: Vec<Slot>,
    /// Jobs that run: number, name, input.
    jobs: Vec<(u64, String, Vec<u8>)>,
    /// How often the body of each was begun that is to run once.
    once: BTreeMap<u64, u32>,
    acts: u64,
    lost_jobs: u64,
    /// States that were put back.
    put_back: u64,
    /// Connections that are being made, by their numbers.
    dialing: Vec<u64>,
    connected: u64,
    /// Connections that are no sessions, as there are enough; and how often the core says so.
    refused: u64,
    full: u64,
    /// Sessions that were reset for what they left untaken; and how often the core says so. Of those that the living core reset.
    cut_off: u64,
    overflowed: u64,
    /// Those of which was said how much that was.
    too_much: u64,
    /// All of them.
    resets: u64,
    limits: AllLimits,
    configured: u64,
    damaged: bool,
    trace: Trace,
}

/// Hash of everything that a seed brings about, in order. Built from names of its own, so that renames change nothing.
struct Trace {
    steps: u64,
    all: u64,
    /// With messages' words.
    words: u64,
}

impl Trace {
    fn new() -> Trace {
        Trace { steps: 0, all: FNV_OFFSET, words: FNV_OFFSET }
    }

    fn note(&mut self, what: &str, numbers: &[u64], bytes: &[u8]) {
        let len = (bytes.len() as u64).to_le_bytes();
        let mut add = |b: &[u8]| {
            self.all = fnv(self.all, b);
            self.words = fnv(self.words, b);
        };
        add(what.as_bytes());
        numbers.iter().for_each(|n| add(&n.to_le_bytes()));
        add(&len);
        add(bytes);
    }

    fn say(&mut self, words: &str) {
        self.words = fnv(self.words, words.as_bytes());
    }

    fn command(&mut self, command: &Command) {
        let service = |s: &ServiceId| u64::from(s.0);
        match command {
            Command::Shutdown(slot) => self.note("shutdown", &[u64::from(slot.0)], b""),
            Command::Close { slot, id } => self.note("close", &[u64::from(slot.0), *id], b""),
            Command::Reset(slot) => self.note("reset", &[u64::from(slot.0)], b""),
            Command::Resume(slot) => self.note("resume", &[u64::from(slot.0)], b""),
            Command::Log { service: s, session, line } => {
                let numbers = [service(s), *session, u64::from(line.level), u64::from(line.failed)];
                self.note("log", &numbers, b"");
                self.say(&line.target);
                self.say(&line.message);
            }
            Command::Fault { service: s, session, action, fault, answered_by } => {
                let by = answered_by.map_or(0, |g| g + 1);
                let numbers = [service(s), *session, u64::from(*action), u64::from(fault.kind), by];
                self.note("fault", &numbers, b"");
                self.say(&fault.message);
                self.say(&fault.file);
            }
            Command::ProbationEnd { build, record: r, proof } => {
                let passed = u64::from(*proof == ProbationEnd::Passed);
                let numbers = [build.generation, r.turns, u64::from(r.faults), u64::from(r.spared), passed];
                self.note("probation end", &numbers, build.hash.as_bytes());
                if let ProbationEnd::Failed(why) = proof {
                    self.say(why);
                }
            }
            Command::CancelJob(number) => self.note("cancel job", &[*number], b""),
            Command::Notice { level, service: s, session, message } => {
                self.note("notice", &[u64::from(*level), service(s), *session], b"");
                self.say(message);
            }
        }
    }

    /// A step of a reload.
    fn reload(&mut self, step: &Step) {
        match step {
            Step::Stage(..) => self.note("stage", &[], b""),
            Step::Try(_) => self.note("try", &[], b""),
            Step::Load(all) => self.note("load", &[all.len() as u64], b""),
            Step::Commit(all) => {
                all.iter().for_each(|(_, b)| self.note("commit", &[b.generation], b.hash.as_bytes()));
            }
            Step::Discard(_) => self.note("discard", &[], b""),
            Step::Report(_, request, r) => {
                let good = u64::from(r.outcome == Outcome::Committed);
                let (sessions, quarantined) = (r.sessions as u64, r.quarantined as u64);
                self.note(
                    "report",
                    &[request.id, good, r.generation, sessions, quarantined, r.migrated],
                    b"",
                );
            }
        }
    }
}

const FNV_OFFSET: u64 = 0xcbf2_9ce4_8422_2325;

/// FNV-1a.
fn fnv(hash: u64, bytes: &[u8]) -> u64 {
    bytes.iter().fold(hash, |h, b| (h ^ u64::from(*b)).wrapping_mul(0x0100_0000_01b3))
}

/// A service's build, turns, faults and sessions.
type ServiceFacts = (Option<Build>, u64, u64, usize);

/// A build of the script.
#[derive(Clone)]
struct Known {
    build: Build,
    version: u32,
    chokes_on: Option<u64>,
}

impl Known {
    fn serving(&self, flawed: bool) -> Vec<(Offer, Box<dyn Code>)> {
        let Known { build, version, chokes_on } = self.clone();
        let code = Script { generation: build.generation, version, chokes_on, flawed, damaged: false };
        vec![(offer(Which::Script, version, (1..version).collect(), "integer"), Box::new(code))]
    }
}

struct Candidate {
    step: Option<Step>,
    offer: Offer,
    /// What is put in force with it.
    limits: Option<AllLimits>,
    chokes_on: Option<u64>,
    fate: Fate,
}

#[derive(Clone, Copy, PartialEq, Debug)]
enum Fate {
    Good,
    StageFails,
    TrialFails,
    LoadFails,
    LosesState,
    /// It is let in, and proves to be flawed.
    Flawed,
}

fn offer(which: Which, version: u32, migrations: Vec<u32>, field: &str) -> Offer {
    let text =
        format!(r#"{{"type":"object","properties":{{"count":{{"type":"{field}"}}}},"required":["count"]}}"#);
    Offer {
        name: which.name().into(),
        port: 0,
        dials: false,
        framing: Framing::Lines { bytes_max: 8192 },
        shape: StateShape {
            version,
            schema: Some(Schema::parse(&text).expect("a schema")),
            migrations,
            downgrades: (2..=version).collect(),
        },
        tables: Vec::new(),
    }
}

impl World {
    fn new(seed: u64, which: Which) -> World {
        let limits = Limits {
            output_bytes_pause: 600,
            output_bytes_max: 1 << 20,
            store_bytes_max: 16 << 20,
            // By time alone.
            probation_turns: 0,
            probation_faults_max: 3,
            actions_pending_max: 1 << 20,
            timers_per_session_max: 1 << 20,
            jobs_per_session_max: 1 << 20,
            jobs_max: 1 << 20,
            jobs_running_max: 3,
            connects_max: 1 << 20,
            turns_at_once_max: 5,
            sends_at_once_max: 2,
            ..Limits::default()
        };
        let mut core = Core::new(limits.clone());
        let library = core.reloads.library("libsim.so".into());
        let mut world = World {
            rng: fastrand::Rng::with_seed(seed),
            board: Board::unread().expect("memory"),
            core,
            which,
            library,
            service: ServiceId(0),
            peers: Vec::new(),
            now_ns: 1,
            opened: 0,
            free: Vec::new(),
            freed: Vec::new(),
            slots: 0,
            generation: 0,
            version: 1,
            candidate: None,
            requests: 0,
            chokes_on: None,
            flawed: false,
            highest: 0,
            shouts: 0,
            before: None,
            converters: Vec::new(),
            stood_by: 0,
            rollbacks: 0,
            proved: 0,
            spared: 0,
            commits: 0,
            refusals: 0,
            quarantined: 0,
            kills: 0,
            turns: 0,
            faults: 0,
            ghosts: Vec::new(),
            jobs: Vec::new(),
            once: BTreeMap::new(),
            acts: 0,
            lost_jobs: 0,
            put_back: 0,
            dialing: Vec::new(),
            connected: 0,
            refused: 0,
            full: 0,
            cut_off: 0,
            overflowed: 0,
            too_much: 0,
            resets: 0,
            limits: limits.into(),
            configured: 0,
            damaged: false,
            trace: Trace::new(),
        };
        world.reload_whole(None);
        world
    }

    // --- reloads --------------------------------------------------------------------------------

    fn begin_reload(&mut self, fate: Fate, chokes_on: Option<u64>) {
        let raise =
            self.which == Which::Script && matches!(fate, Fate::Good | Fate::Flawed) && self.rng.u8(..) < 80;
        let version = self.version + u32::from(raise);
        let field = if fate == Fate::LosesState { "string" } else { "integer" };
        let offer = offer(self.which, version, (1..version).collect(), field);
        self.requests += 1;
        let (id, by) = (self.requests, By::Operator { uid: 0, pid: 1 });
        // With other limits, or alone.
        let limits = (self.rng.u8(..) < 60).then(|| self.other_limits());
        let want = if limits.is_some() { Want::Configure } else { Want::Load };
        let request = Request { id, by, from: None, want, together: id };
        self.candidate = Some(Candidate { step: None, offer, limits, chokes_on, fate });
        self.event(Event::Requested(vec![(self.library, request)]));
    }

    /// Does the step that the core asked for, and reports it.
    fn go_on_with_reload(&mut self) {
        let Some(c) = &mut self.candidate else { return };
        let fate = c.fate;
        let offers = vec![c.offer.clone()];
        let fails = |at: Fate| if fate == at { Err(format!("{at:?}")) } else { Ok(()) };
        let event = match c.step.take() {
            Some(Step::Stage(id, _)) => {
                Event::Staged(id, fails(Fate::StageFails).map(|()| format!("build {}", self.requests)))
            }
            Some(Step::Try(id)) => Event::Tried(
                id,
                fails(Fate::TrialFails).map(|()| greenroom_core::reload::request::Candidate {
                    name: "sim".into(),
                    offers,
                    build_id: None,
                    rehearsal: None,
                }),
            ),
            Some(Step::Load(all)) => Event::Loaded(all[0].0, fails(Fate::LoadFails)),
            Some(Step::Commit(all)) => {
                let (id, build) = &all[0];
                self.commit(build);
                Event::Committed(vec![*id], 1.0)
            }
            _ => return,
        };
        let committed = matches!(event, Event::Committed(..));
        self.event(event);
        if committed {
            // Build and configuration in one epoch.
            self.follow_up();
        }
    }

    fn commit(&mut self, build: &Build) {
        let limits = self.candidate.as_mut().and_then(|c| c.limits.take());
        if let Some(limits) = limits {
            self.configure(limits);
        }
        let c = self.candidate.as_ref().expect("a reload is under way");
        let (flawed, offer) = (c.fate == Fate::Flawed, c.offer.clone());
        let was = self.known();
        // A build that chokes is no help to the next one.
        let watched = flawed || (self.which == Which::Script && was.chokes_on.is_none() && self.rng.bool());
        (self.version, self.chokes_on, self.generation) =
            (c.offer.shape.version, c.chokes_on, build.generation);
        (self.flawed, self.highest) = (flawed, build.generation);
        let code = self.code(build, self.chokes_on);
        if watched {
            let until = if flawed { u64::MAX } else { self.now_ns + self.rng.u64(0..20_000) };
            if self.core.adopt_on_probation(build, vec![(offer, code)], until) {
                self.before.get_or_insert(was);
                self.stood_by += 1;
            }
        } else {
            self.core.adopt(build, vec![(offer, code)]);
            self.before = None;
        }
    }

    fn known(&self) -> Known {
        let build = Build { library: "sim".into(), generation: self.generation, hash: self.hash() };
        Known { build, version: self.version, chokes_on: self.chokes_on }
    }

    /// Of the build that serves.
    fn hash(&self) -> String {
        self.core
            .services()
            .first()
            .and_then(|s| s.build.as_ref())
            .map_or_else(String::new, |b| b.hash.clone())
    }

    /// A probation is over.
    fn proof(&mut self, proof: &ProbationEnd, record: ProbationCounts) {
        self.spared += u64::from(record.spared);
        if *proof == ProbationEnd::Passed {
            assert!(!self.flawed, "a flawed build proved itself");
            self.before = None;
            self.proved += 1;
            return;
        }
        assert!(self.flawed || self.chokes_on.is_some(), "a good build failed: {proof:?}");
        let newer = self.known();
        self.core.can_roll_back("sim").expect("there is a way back");
        let build = self.core.roll_back("sim").expect("a build before");
        let before = self.before.take().expect("a build before");
        assert_eq!(build, before.build);
        (self.version, self.chokes_on, self.generation) =
            (before.version, before.chokes_on, build.generation);
        self.flawed = false;
        self.converters.push(newer);
        self.core.reloads.goes_on_with(self.library, build, None, self.highest);
        self.rollbacks += 1;
        // Its version was counted from the one that is rolled back: a loss may be none from here.
        if let Some(c) = self.candidate.as_mut().filter(|c| c.fate == Fate::LosesState) {
            c.fate = Fate::LoadFails;
        }
        self.commit_pass();
    }

    fn code(&self, build: &Build, chokes_on: Option<u64>) -> Box<dyn Code> {
        match self.which {
            Which::Script => {
                let (generation, version, flawed) = (build.generation, self.version, self.flawed);
                Box::new(Script { generation, version, chokes_on, flawed, damaged: self.damaged })
            }
            Which::Tally => {
                let library = Library::from_entry(echo_entry).expect("echo's table");
                let made =
                    library.create(&BTreeMap::new(), abi::level::ERROR, self.board).expect("instances");
                made.into_iter().find(|(o, _)| o.name == "tally").expect("tally").1
            }
        }
    }

    /// Nothing but a commit may change what sessions and services are.
    fn event(&mut self, event: Event) {
        let before = self.facts();
        let steps = self.core.reload(event);
        assert_eq!(self.facts(), before, "a reload's step changed something");
        for step in steps {
            self.trace.reload(&step);
            match step {
                Step::Discard(_) => {}
                Step::Report(_, _, report) => {
                    let fate = self.candidate.take().expect("a reload was under way").fate;
                    let good = matches!(fate, Fate::Good | Fate::Flawed);
                    assert_eq!(report.outcome == Outcome::Committed, good, "{fate:?}: {report:?}");
                    assert_eq!(report.generation, self.generation);
                    self.commits += u64::from(good);
                    self.refusals += u64::from(!good);
                }
                step => self.candidate.as_mut().expect("a reload is under way").step = Some(step),
            }
        }
    }

    /// Other limits, of the host and of the service.
    fn other_limits(&mut self) -> AllLimits {
        let mut limits = self.limits.clone();
        let mut any = |of: &[usize]| of[self.rng.usize(0..of.len())];
        limits.host.output_bytes_pause = any(&[100, 600, 5000]);
        limits.host.output_bytes_max = any(&[700, 5000, 1 << 20]).max(limits.host.output_bytes_pause);
        limits.host.turns_at_once_max = any(&[1, 5, 64]);
        limits.host.sends_at_once_max = any(&[1, 2, 32]);
        limits.host.jobs_running_max = any(&[1, 2, 3]);
        limits.host.sessions_max = any(&[5, 8, 100]);
        limits.host.sessions_per_peer_max = any(&[0, 100]);
        let own = ServiceLimits {
            output_bytes_pause: Some(any(&[50, 1000])).filter(|n| *n < 1000),
            turns_at_once_max: Some(any(&[2, 1000])).filter(|n| *n < 1000),
            sessions_max: Some(any(&[7, 1000])).filter(|n| *n < 1000),
            ..ServiceLimits::default()
        };
        limits.services = BTreeMap::from([(self.which.name().to_owned(), own)]);
        limits
    }

    fn configure(&mut self, limits: AllLimits) {
        self.core.set_limits(limits.clone());
        let record = serde_json::to_vec(&(&limits.host, &limits.services)).expect("limits are JSON");
        assert!(self.core.keep(Kind::Config, 0, &record), "there is room");
        self.limits = limits;
        self.configured += 1;
    }

    fn reload_whole(&mut self, chokes_on: Option<u64>) {
        while self.candidate.is_some() {
            self.go_on_with_reload();
        }
        self.begin_reload(Fate::Good, chokes_on);
        while self.candidate.is_some() {
            self.go_on_with_reload();
        }
    }

    fn facts(&self) -> (Vec<SessionView>, Vec<ServiceFacts>) {
        let filter = Filter { contents: true, ..Filter::default() };
        let services = self.core.services().iter().map(|s| (s.build.clone(), s.turns, s.faults, s.sessions));
        (self.core.sessions_after(0, &filter).items, services.collect())
    }

    // --- the network ----------------------------------------------------------------------------

    fn open(&mut self) {
        let (id, slot) = self.arrives(None);
        let peer = ADDR.parse().expect("an address");
        self.core.handle(Input::Opened { slot, id, service: self.service, peer, at_ms: 0 });
        self.admitted(slot);
    }

    /// A connection that was asked for is open, or can't be made; perhaps nobody wants it any more.
    fn end_dial(&mut self, at: usize) {
        let number = self.dialing.swap_remove(at);
        if self.rng.u8(..) < 80 || self.peers.len() >= PEERS_MAX {
            return self.core.handle(Input::ConnectFailed { number, why: "as asked" });
        }
        let own = self.core.of_service(self.service, None).connects;
        let sessions = self.core.sessions_after(0, &Filter::default()).items;
        let wanted = sessions.iter().flat_map(|s| &s.connects).chain(&own).any(|c| c.number == number);
        let (id, slot) = self.arrives(Some(number));
        let peer = ADDR.parse().expect("an address");
        self.core.handle(Input::Connected { number, slot, id, peer, at_ms: 0 });
        if wanted {
            self.connected += 1;
            self.admitted(slot);
        } else {
            self.turned_away(slot);
        }
    }

    /// A new peer, in a slot.
    fn arrives(&mut self, dialed: Option<u64>) -> (u64, Slot) {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots += 1;
            Slot(self.slots - 1)
        });
        self.opened += 1;
        let id = self.opened;
        self.peers.push(Peer {
            id,
            slot,
            lines: Vec::new(),
            to_host: VecDeque::new(),
            done: false,
            done_read: false,
            from_host: VecDeque::new(),
            room: self.rng.usize(50..2000),
            blocked: false,
            shut: false,
            received: Vec::new(),
            replies: 0,
            last_generation: 0,
            heard: BTreeMap::new(),
            read: 0,
            sent: 0,
            uncommitted: Vec::new(),
            unborn: true,
            dialed,
        });
        (id, slot)
    }

    /// A connection is a session, unless there are too many.
    fn admitted(&mut self, slot: Slot) {
        if self.core.sessions().get(slot).is_none() {
            let all = self.core.sessions().len();
            let own = self.limits.of(self.which.name());
            assert!(
                all >= self.limits.host.sessions_max.min(own.sessions_max),
                "{all} sessions, and one was refused"
            );
            self.refused += 1;
            self.turned_away(slot);
        }
    }

    /// A peer whose connection is no session.
    fn turned_away(&mut self, slot: Slot) {
        let at = self.at(slot).expect("a peer");
        self.peers.swap_remove(at);
        self.ghosts.push(slot);
    }

    fn write_lines(&mut self, at: usize) {
        let verbs: &[&str] = match self.which {
            Which::Script => &[
                "add", "add", "trip", "get", "put", "cut", "join", "part", "fail", "peek", "huge", "mute",
                "bye", "self", "tell", "timer", "again", "tick", "work", "once", "cast", "shout", "shout",
                "dial", "hold", "wait",
            ],
            Which::Tally => &["any"],
        };
        let others: Vec<u64> = self.peers.iter().map(|p| p.id).collect();
        let peer = &mut self.peers[at];
        if peer.done {
            return;
        }
        let others: Vec<u64> = others.into_iter().filter(|id| *id != peer.id).collect();
        for _ in 0..self.rng.usize(1..40) {
            let verb = match self.rng.choice(verbs) {
                // Rarely: it ends the conversation.
                Some(&"bye") if self.rng.u8(..) > 10 => "add",
                Some(&verb) => verb,
                None => "add",
            };
            let to_another = verb == "tell" || verb == "wait";
            let line = match self.rng.choice(&others).filter(|_| to_another) {
                Some(other) => format!("{verb} {other}"),
                None if to_another => "add 1".into(),
                None => format!("{verb} {}", self.rng.u8(..20)),
            };
            let end = if self.rng.bool() { "\n" } else { "\r\n" };
            peer.to_host.extend(line.bytes().chain(end.bytes()));
            peer.lines.push(line);
        }
    }

    /// One pass of the loop, as the worker does it.
    fn pass(&mut self, whole: bool) {
        self.now_ns += 1;
        self.core.handle(Input::PassBegins { now_ns: self.now_ns });
        self.read_peers(whole);
        if self.rng.u8(..) < 40 {
            // The place for input is full: what was read is committed and answered, and reading goes on in the same pass.
            self.commit_pass();
            let mut sendable = Vec::new();
            self.core.take_sendable(&mut sendable);
            for slot in sendable {
                self.send(slot);
            }
            self.read_peers(whole);
        }
        self.end_pass(whole);
    }

    /// What is ready is read.
    fn read_peers(&mut self, whole: bool) {
        for at in 0..self.peers.len() {
            if !whole && self.rng.bool() {
                continue;
            }
            let Peer { slot, blocked, .. } = self.peers[at];
            if blocked && self.peers[at].from_host.len() < self.peers[at].room {
                self.peers[at].blocked = false;
                self.core.handle(Input::Writable { slot });
            }
            if self.core.wants_input(slot) {
                let peer = &mut self.peers[at];
                let n = if whole { peer.to_host.len() } else { self.rng.usize(0..=peer.to_host.len()) };
                let bytes: Vec<u8> = peer.to_host.drain(..n).collect();
                peer.read += bytes.len() as u64;
                peer.uncommitted.extend(&bytes);
                if !bytes.is_empty() {
                    self.core.handle(Input::Received { slot, bytes: &bytes });
                } else if peer.done && peer.to_host.is_empty() && !peer.done_read {
                    peer.done_read = true;
                    self.core.handle(Input::PeerDone { slot });
                }
            }
        }
    }

    fn end_pass(&mut self, whole: bool) {
        // Killed before the commit, before the effects, or between two sends.
        let killed_after = (!whole && self.rng.u8(..) < 10).then(|| self.rng.usize(0..6));
        if killed_after == Some(0) {
            return self.kill();
        }
        self.commit_pass();
        if killed_after == Some(1) {
            return self.kill();
        }
        let (mut sendable, mut effects) = (Vec::new(), Vec::new());
        self.core.take_commands(&mut effects);
        self.carry_out(effects);
        self.core.take_sendable(&mut sendable);
        for (i, slot) in sendable.into_iter().enumerate() {
            if killed_after == Some(i + 2) {
                return self.kill();
            }
            self.send(slot);
        }
        if killed_after.is_some() {
            return self.kill();
        }
        self.follow_up();
    }

    /// What sending brought about, after another commit: the next pass comes at once for it.
    fn follow_up(&mut self) {
        loop {
            self.commit_pass();
            let mut effects = Vec::new();
            self.core.take_commands(&mut effects);
            if effects.is_empty() {
                break;
            }
            self.carry_out(effects);
        }
        self.free.append(&mut self.freed);
    }

    fn carry_out(&mut self, effects: Vec<Command>) {
        for effect in effects {
            self.trace.command(&effect);
            match effect {
                Command::Shutdown(slot) => match self.at(slot) {
                    Some(at) => self.peers[at].shut = true,
                    None => assert!(self.ghosts.contains(&slot), "a peer"),
                },
                Command::Reset(slot) => {
                    self.cut_off += 1;
                    match self.at(slot) {
                        Some(at) => self.reset_by_host(at),
                        None => assert!(self.ghosts.contains(&slot), "a peer"),
                    }
                    self.ghosts.push(slot);
                }
                Command::Close { slot, .. } => {
                    match self.at(slot) {
                        Some(at) => self.closed(at),
                        None => assert!(self.ghosts.contains(&slot), "a peer"),
                    }
                    self.freed.push(slot);
                }
                Command::Fault { fault, answered_by: None, .. } if fault.kind == fault::STATE => {
                    self.quarantined += 1;
                }
                // Another one may have taken its place in this pass.
                Command::ProbationEnd { build, record, proof } if build.generation == self.generation => {
                    self.proof(&proof, record);
                }
                Command::Notice { message, .. } if message.contains(" is lost: ") => self.lost_jobs += 1,
                Command::Notice { message, .. } if message.contains("limit output_bytes_max") => {
                    let left = message.split(' ').find_map(|word| word.parse().ok());
                    let limit = self.limits.of(self.which.name()).output_bytes_max;
                    assert!(left.is_some_and(|n: usize| n > limit), "{message}, and it is {limit}");
                    self.too_much += 1;
                }
                Command::Notice { message, level, .. } => {
                    assert!(level > abi::level::ERROR, "{message}");
                }
                _ => {}
            }
        }
    }

    fn send(&mut self, slot: Slot) {
        let Some(at) = self.at(slot) else { return };
        loop {
            let peer = &mut self.peers[at];
            assert!(!peer.shut, "nothing is sent behind our end");
            let room = peer.room.saturating_sub(peer.from_host.len());
            let taken = self.core.output(slot, |pieces| {
                let bytes = pieces.concat();
                let n = bytes.len().min(room);
                peer.from_host.extend(&bytes[..n]);
                self.trace.note("sent", &[peer.id, bytes.len() as u64], &bytes[..n]);
                (n, n < bytes.len())
            });
            let Some((bytes, blocked)) = taken else { break };
            peer.blocked = blocked;
            peer.sent += bytes as u64;
            self.core.handle(Input::Sent { slot, bytes, blocked });
            if blocked {
                break;
            }
        }
    }

    fn commit_pass(&mut self) {
        self.core.handle(Input::Cascade);
        self.core.handle(Input::Commit);
        for peer in &mut self.peers {
            peer.uncommitted.clear();
            peer.unborn = false;
        }
        for job in self.core.take_jobs() {
            self.trace.note(&job.name, &[job.number], &job.input);
            if job.name == "once" {
                let times = self.once.entry(job.number).or_default();
                *times += 1;
                assert_eq!(*times, 1, "a job that is to run once ran again");
            }
            self.jobs.push((job.number, job.name, job.input));
        }
        assert!(self.jobs.len() <= 3, "limit jobs_running_max");
        for dial in self.core.take_connects() {
            self.trace.note("connect", &[dial.number], dial.addr.to_string().as_bytes());
            // Whoever makes them knows those that it is about, and those that are open.
            let open = self.peers.iter().any(|p| p.dialed == Some(dial.number));
            if !open && !self.dialing.contains(&dial.number) {
                assert_eq!(dial.addr.to_string(), ADDR);
                self.dialing.push(dial.number);
            }
        }
        self.core.take_reached(|limit| {
            self.trace.note("limit", &[], limit.name().as_bytes());
            self.full += u64::from(limit == Limit::SessionsMax);
            self.overflowed += u64::from(limit == Limit::OutputBytesMax);
        });
    }

    /// The process dies here, and another one takes over, with what the store, the kernel and its keeper know.
    fn kill(&mut self) {
        self.kills += 1;
        let s = &self.core.services()[0];
        self.turns += s.turns;
        self.faults += s.faults;
        let converts = self.core.converts("sim");
        let probation = self.core.probation("sim").cloned();
        let hash = self.hash();
        let image = Plain::cut_after(self.core.store().image(), None);
        let limits = self.limits.host.clone();
        let found = Store::recover(Box::new(image), limits.store_bytes_max).expect("a store");
        let Successor { core, survivors, lost } = Core::recover(limits, found, self.now_ns);
        assert_eq!(lost, Vec::<String>::new());
        // What the dead one counted is known only if it was committed.
        (self.refused, self.full) = (0, 0);
        self.resets += std::mem::take(&mut self.cut_off);
        (self.overflowed, self.too_much) = (0, 0);
        // Nor does anybody else know what it was about to do.
        let mut about_to = Vec::new();
        self.core.take_commands(&mut about_to);
        about_to.iter().for_each(|c| self.trace.command(c));
        self.core = core;
        let records = self.core.kept(Kind::Config);
        assert_eq!(records.len(), usize::from(self.configured > 0), "configurations in force");
        if let Some((_, record)) = records.first() {
            let (host, services) = serde_json::from_slice(record).expect("a configuration");
            assert_eq!(AllLimits { host, services }, self.limits, "the configuration in force");
        }
        self.core.set_limits(self.limits.clone());
        self.library = self.core.reloads.library("libsim.so".into());
        let build = Build { library: "sim".into(), generation: self.generation, hash };
        self.core.reloads.goes_on_with(self.library, build.clone(), None, self.highest);
        // A reload under way is forgotten; it was nobody's but the dead process's.
        self.candidate = None;
        let offer = offer(self.which, self.version, (1..self.version).collect(), "integer");
        let code = self.code(&build, self.chokes_on);
        self.core.go_on_with(&build, vec![(offer, code)]);
        if !converts {
            self.converters.clear();
        }
        for converter in &self.converters {
            self.core.go_on_converting(&converter.build, converter.serving(true));
        }
        if let Some(probation) = probation {
            let before = self.before.as_ref().expect("it stood by");
            self.core.stand_by(&before.build, before.serving(false));
            self.core.begin_probation(&build, &before.build, probation.until_ns);
        } else {
            // It may have proved itself in the very pass that was cut off, and nobody was told.
            self.before = None;
        }

        self.jobs.clear();
        let crashed = self.rng.bool();
        self.core.restart_jobs(crashed);
        let mut missing = BTreeMap::new();
        for s in &survivors {
            // One without a peer broke just before, and is found broken again.
            if let Some(peer) = self.peers.iter_mut().find(|p| p.id == s.id) {
                // The end of its stream is read again, unless that was committed.
                peer.done_read = self.core.sessions().get(s.slot).is_some_and(|s| s.peer_done);
                let bytes = self.core.reconcile(s.slot, peer.read, Some(peer.sent)).expect("it adds up");
                self.trace.note("survivor", &[s.id, u64::from(s.slot.0), bytes], b"");
                missing.insert(s.id, bytes as usize);
            }
        }
        self.now_ns += 1;
        self.core.handle(Input::PassBegins { now_ns: self.now_ns });

        (self.slots, self.free, self.freed) = (survivors.len() as u32, Vec::new(), Vec::new());
        self.ghosts.clear();
        let mut found = BTreeMap::new();
        for s in survivors {
            found.insert(s.id, s.slot);
        }
        for at in (0..self.peers.len()).rev() {
            let peer = &mut self.peers[at];
            peer.blocked = false;
            let (id, unborn) = (peer.id, peer.unborn);
            let again = std::mem::take(&mut peer.uncommitted);
            match found.remove(&id) {
                Some(slot) => {
                    peer.slot = slot;
                    let missing = missing[&id];
                    assert!(
                        missing <= again.len(),
                        "session {id}: {missing} bytes were read since the last commit"
                    );
                    let bytes = again[again.len() - missing..].to_vec();
                    peer.uncommitted = bytes.clone();
                    if !bytes.is_empty() {
                        self.core.handle(Input::Received { slot, bytes: &bytes });
                    }
                }
                None if unborn => {
                    // Accepted, and perhaps read, but never committed: it begins anew.
                    let slot = Slot(self.slots);
                    self.slots += 1;
                    peer.slot = slot;
                    peer.done_read = false;
                    peer.uncommitted = again.clone();
                    let dialed = peer.dialed;
                    let peer = ADDR.parse().expect("an address");
                    match dialed {
                        Some(number) => {
                            self.core.handle(Input::Connected { number, slot, id, peer, at_ms: 0 });
                        }
                        None => {
                            let service = self.service;
                            self.core.handle(Input::Opened { slot, id, service, peer, at_ms: 0 });
                        }
                    }
                    self.admitted(slot);
                    if !again.is_empty() {
                        self.core.handle(Input::Received { slot, bytes: &again });
                    }
                }
                None if about_to.iter().any(|e| matches!(e, Command::Reset(s) if *s == peer.slot)) => {
                    self.reset_by_host(at);
                    self.resets += 1;
                }
                None => {
                    // Its end was committed; only the descriptor was still open.
                    peer.done_read |= peer.done && peer.to_host.is_empty();
                    self.closed(at);
                }
            }
        }
        // What broke just before comes back, and is found broken again.
        for slot in found.into_values() {
            self.ghosts.push(slot);
            self.core.handle(Input::Broken { slot });
        }
        self.commit_pass();
        let (mut sendable, mut effects) = (Vec::new(), Vec::new());
        self.core.take_commands(&mut effects);
        self.carry_out(effects);
        self.core.take_sendable(&mut sendable);
        for slot in sendable {
            self.send(slot);
        }
        self.follow_up();
    }

    fn at(&self, slot: Slot) -> Option<usize> {
        self.peers.iter().position(|p| p.slot == slot)
    }

    fn read(&mut self, at: usize, all: bool) {
        let peer = &mut self.peers[at];
        let n = if all { peer.from_host.len() } else { self.rng.usize(0..=peer.from_host.len()) };
        peer.received.extend(peer.from_host.drain(..n));
        self.check_received(at);
    }

    /// A peer saw the end of its session.
    fn closed(&mut self, at: usize) {
        self.read(at, true);
        let peer = self.peers.swap_remove(at);
        let e = model(self.which, peer.id, &peer.lines);
        // It ended for a reason that the peer knows, and after everything was answered.
        assert!(e.closed || peer.done_read, "session {} was closed for nothing", peer.id);
        assert_eq!(peer.replies, e.replies.len(), "session {} owes answers", peer.id);
    }

    /// A peer that left too much untaken is gone. What it got so far is what it was to get.
    fn reset_by_host(&mut self, at: usize) {
        self.read(at, true);
        self.peers.swap_remove(at);
    }

    fn reset(&mut self, at: usize) {
        let peer = self.peers.swap_remove(at);
        self.core.handle(Input::Broken { slot: peer.slot });
        let mut effects = Vec::new();
        self.core.take_commands(&mut effects);
        effects.iter().for_each(|c| self.trace.command(c));
        let own = |e: &Command| matches!(e, Command::Close { slot, .. } if *slot == peer.slot);
        assert_eq!(effects.iter().filter(|e| own(e)).count(), 1, "it is let go of");
        effects.retain(|e| !own(e));
        self.freed.push(peer.slot);
        // Others are closed only if they were turned away just before.
        self.carry_out(effects);
    }

    // --- invariants -----------------------------------------------------------------------------

    /// What a peer got is what it must get, up to here.
    fn check_received(&mut self, at: usize) {
        let peer = &mut self.peers[at];
        let e = model(self.which, peer.id, &peer.lines);
        while let Some(end) = peer.received.iter().position(|b| *b == b'\n') {
            let line: Vec<u8> = peer.received.drain(..=end).collect();
            let mut line = String::from_utf8(line[..end].to_vec()).expect("answers are UTF-8");
            if let Some(shout) = line.strip_prefix('~') {
                // Whole, once, in order and without a gap.
                let words: Vec<_> = shout.split(' ').collect();
                let [topic, n, text] = words[..] else { panic!("a shout is damaged: {line}") };
                let n: u64 = n.parse().expect("a number");
                assert_eq!(text.len(), shout_len(n), "{line}");
                if let Some(last) = peer.heard.insert(topic.to_owned(), n) {
                    assert_eq!(n, last + 1, "shouts on {topic} to {}", peer.id);
                }
                self.shouts += 1;
                continue;
            }
            if self.which == Which::Script {
                let mut words = line.splitn(3, ' ').map(str::to_owned);
                let (count, generation, rest) = (words.next(), words.next(), words.next());
                let generation: u64 = generation.and_then(|g| g.parse().ok()).expect("a generation");
                // Back goes only what was rolled back, or asked in its place.
                let back = self.stood_by > 0;
                assert!(
                    (peer.last_generation <= generation || back) && generation <= self.highest,
                    "code went back"
                );
                peer.last_generation = generation;
                line = format!("{} {}", count.unwrap_or_default(), rest.unwrap_or_default());
            }
            assert_eq!(
                Some(&line),
                e.replies.get(peer.replies),
                "session {}, answer {}",
                peer.id,
                peer.replies
            );
            if let Some((_, topic)) = line.split_once(" join ") {
                peer.heard.remove(topic);
            }
            peer.replies += 1;
        }
    }

    fn check(&mut self) {
        // All that was drawn, and what the core counts.
        let s = &self.core.services()[0];
        let counts = [self.rng.get_seed(), self.now_ns, s.turns, s.faults, s.sessions as u64];
        self.trace.note("step", &counts, b"");
        self.trace.steps += 1;
        let sessions = self.core.sessions();
        assert_eq!(sessions.len(), self.peers.len(), "sessions and peers");
        let (mut states, mut on_topics) = (0, 0);
        for peer in &self.peers {
            let mut own_waits = 0;
            let s = sessions.get(peer.slot).expect("no session is lost");
            assert_eq!(s.id, peer.id);
            let read = |what: &str| self.counter(&format!("{what}:{}", peer.id));
            let read_of = |what: &str, of: &str| self.counter(&format!("{what}:{}:{of}", peer.id));
            // The first turn is the opening, and the last one the end; some were no lines'.
            let ran = s.turns.saturating_sub(1 + u64::from(s.life != Life::Open) + read("acts")) as usize;
            assert!(ran <= peer.lines.len(), "more turns than lines");
            let e = model(self.which, peer.id, &peer.lines[..ran]);
            let filter = Filter { session: Some(peer.id), contents: true, ..Filter::default() };
            let slice = self.core.sessions_after(0, &filter);
            let view = &slice.items[0];
            if s.life == Life::Open {
                let waiting = |kind, own: bool| {
                    view.actions.iter().filter(|a| a.kind == kind && (a.from == peer.id) == own).count()
                        as u64
                };
                let named = |name: &str| view.timers.iter().any(|(n, _)| n == name);
                let timers = view.timers.len() - usize::from(named("again")) - usize::from(named("go"));
                assert_eq!(view.record.held, named("go"), "{} waits for its timer", peer.id);
                assert_eq!(read("sent"), read("got") + waiting(action::NOTE, false), "notes to {}", peer.id);
                assert_eq!(read("set"), read("fired") + timers as u64, "timers of {}", peer.id);
                let outcomes = view.actions.iter().filter(|a| a.kind == action::CONNECT).count();
                assert_eq!(
                    read("dials"),
                    read("told") + (view.connects.len() + outcomes) as u64,
                    "connections for {}",
                    peer.id
                );
                let asked = view.connects.iter().all(|c| self.dialing.contains(&c.number));
                assert!(asked, "somebody makes the connections for {}", peer.id);
                let openings = view.actions.iter().filter(|a| a.kind == action::DIALED).count() as u64;
                assert_eq!(
                    read("dialed") + openings,
                    u64::from(peer.dialed.is_some()),
                    "what {} was opened for",
                    peer.id
                );
                let results = view.actions.iter().filter(|a| a.kind == action::JOB).count();
                assert_eq!(
                    read("asked"),
                    read("done") + (view.jobs.len() + results) as u64,
                    "jobs of {}",
                    peer.id
                );
                // The last line's note to itself may still wait.
                own_waits = waiting(action::NOTE, true);
                assert!(own_waits <= 1, "its own notes come before its next line");
            }
            states += usize::from(view.state.is_some());
            match (self.which, &view.state) {
                (Which::Script, None) => assert_eq!(e.count, own_waits),
                (Which::Script, Some(bytes)) => {
                    let count = u64::from_le_bytes(bytes[1..9].try_into().expect("eight bytes"));
                    assert_eq!(
                        (bytes.len(), count),
                        (9, e.count - own_waits),
                        "session {} after {ran} lines",
                        peer.id
                    );
                }
                (Which::Tally, None) => assert_eq!(e.count, 0),
                (Which::Tally, Some(bytes)) => {
                    let json = greenroom_state::json::to_json(bytes).expect("MessagePack");
                    assert_eq!(json["count"], e.count);
                }
            }
            let prefix = format!("{}:", peer.id);
            let (entries, _) = self.core.entries_from(TABLE, prefix.as_bytes());
            let mine: BTreeMap<_, _> = entries
                .into_iter()
                .map(|(k, v)| (String::from_utf8(k).expect("a key"), String::from_utf8(v).expect("a value")))
                .filter(|(k, _)| k.starts_with(&prefix))
                .collect();
            assert_eq!(mine, e.table, "session {}'s entries", peer.id);
            // What it produced is what was sent, what waits, and nothing else.
            assert_eq!(s.bytes_out, s.bytes_sent + view.output.len() as u64);
            let topics = if s.life == Life::Open { &e.topics[..] } else { &[] };
            assert_eq!(view.topics, topics, "session {}'s topics", peer.id);
            for topic in topics {
                let waiting = |a: &&ActionView| a.kind == action::PUBLISHED && a.name == *topic;
                let waiting = view.actions.iter().filter(waiting).count() as u64;
                let last = read_of("last", topic);
                assert!(
                    last == 0 || last + waiting == self.counter(&format!("casts:{topic}")),
                    "messages on {topic} to {}",
                    peer.id
                );
            }
            on_topics += usize::from(!topics.is_empty());
        }
        let store = self.core.store();
        assert_eq!(store.count(Kind::State), states);
        assert_eq!(store.count(Kind::Topics), on_topics);
        let stored: usize = self.core.services().iter().flat_map(|s| s.stored.values()).sum();
        assert_eq!(stored, states, "versions are counted");
        assert_eq!(self.core.services()[0].sessions, sessions.len());
        assert_eq!(*self.core.limits(), self.limits.host, "limits change with a commit");
    }

    /// A counter in the table.
    fn counter(&self, key: &str) -> u64 {
        let found = self.core.entry(COUNTS, key.as_bytes());
        found.map_or(0, |v| String::from_utf8_lossy(&v).parse().expect("a number"))
    }

    // --- the run --------------------------------------------------------------------------------

    fn step(&mut self) {
        let any = |w: &mut World| (!w.peers.is_empty()).then(|| w.rng.usize(0..w.peers.len()));
        match self.rng.u8(0..108) {
            0..8 if self.peers.len() < PEERS_MAX => self.open(),
            8..30 => {
                if let Some(at) = any(self) {
                    self.write_lines(at);
                }
            }
            30..60 => self.pass(false),
            60..80 => {
                if let Some(at) = any(self) {
                    self.read(at, false);
                }
            }
            80..82 => {
                if let Some(at) = any(self) {
                    self.peers[at].done = true;
                }
            }
            82..83 => {
                if let Some(at) = any(self) {
                    self.reset(at);
                }
            }
            83..88 if !self.jobs.is_empty() => {
                let at = self.rng.usize(0..self.jobs.len());
                self.end_job(at);
            }
            83..96 => match self.candidate {
                Some(_) => self.go_on_with_reload(),
                None => {
                    let fates = [
                        Fate::Good,
                        Fate::Good,
                        Fate::StageFails,
                        Fate::TrialFails,
                        Fate::LoadFails,
                        Fate::LosesState,
                        Fate::Flawed,
                    ];
                    let mut fate = fates[self.rng.usize(0..fates.len())];
                    if fate == Fate::Flawed && (self.which == Which::Tally || self.chokes_on.is_some()) {
                        fate = Fate::Good;
                    }
                    let chokes = self.which == Which::Script && fate != Fate::Flawed && self.rng.u8(..) < 60;
                    let chokes = chokes.then(|| self.rng.u64(0..7));
                    self.begin_reload(fate, chokes);
                }
            },
            96..98 => self.put_back(),
            98..104 if !self.dialing.is_empty() => {
                let at = self.rng.usize(0..self.dialing.len());
                self.end_dial(at);
            }
            104..106 => {
                // Between two passes, and none of it is sent before it is committed.
                let limits = self.other_limits();
                self.configure(limits);
                self.follow_up();
            }
            // Less than any deadline, so that no session is given up.
            _ => self.now_ns += 1000,
        }
        self.check();
    }

    /// An operator takes states and entries away, and puts them back as they were.
    fn put_back(&mut self) {
        let (mut away, mut back) = (Plan::default(), Plan::default());
        let filter = Filter { contents: true, ..Filter::default() };
        for view in self.core.sessions_after(0, &filter).items {
            let session = view.record.id;
            let Some(state) = view.state else { continue };
            let given = Some((view.record.state_version, state));
            let asked = GivenState { session, service: view.service, state: given };
            // Who is closing, or has a state that can't be read, keeps it.
            let Checked::Fits { kept, .. } = self.core.check_state(&asked, &mut back.builds) else {
                continue;
            };
            away.states.push(PlannedState { session, kept: None, given: None });
            back.states.push(PlannedState { session, kept, given: None });
        }
        let table = PlannedTable { name: TABLE.to_owned(), ..PlannedTable::default() };
        let (entries, next) = self.core.entries_from(TABLE, b"");
        let planned = |value| PlannedEntry { kept: (0, value), given: None };
        let entries: BTreeMap<_, _> = entries.into_iter().map(|(key, value)| (key, planned(value))).collect();
        if next.is_none() {
            away.tables.push(table.clone());
            back.tables.push(PlannedTable { entries, ..table });
        }
        let states = self.core.store().count(Kind::State);
        let gone = self.core.restore(&away).expect("nothing needs no room");
        assert_eq!(self.core.store().count(Kind::State), states - gone.changed);
        let done = self.core.restore(&back).expect("there is room for what there was");
        assert_eq!((gone.changed, done.changed), (back.states.len(), back.states.len()));
        self.put_back += done.changed as u64;
    }

    /// The pass in which a job's result comes: whether it counts before the next death is open.
    fn end_job(&mut self, at: usize) {
        let (number, _, input) = self.jobs.swap_remove(at);
        let result = [b"result of ", &input[..]].concat();
        let result = if self.rng.bool() { Ok(&result[..]) } else { Err("as asked") };
        self.core.handle(Input::JobDone { number, result });
    }

    /// Lets everything run to its end: every line is answered, everything is closed, nothing is left.
    fn drain(&mut self) {
        self.reload_whole(None);
        for _ in 0..10_000 {
            if self.peers.is_empty() && self.jobs.is_empty() && self.dialing.is_empty() {
                break;
            }
            self.now_ns += 1000;
            while !self.dialing.is_empty() {
                self.end_dial(0);
            }
            self.peers.iter_mut().for_each(|p| p.done = true);
            while !self.jobs.is_empty() {
                self.end_job(0);
            }
            self.pass(true);
            for at in (0..self.peers.len()).rev() {
                self.read(at, true);
            }
            self.check();
        }
        assert_eq!(self.peers.len(), 0, "every session came to its end");
        // The service's own timers, and what they ask for.
        self.now_ns += 100_000;
        self.pass(true);
        while !self.dialing.is_empty() {
            let number = self.dialing.swap_remove(0);
            self.core.handle(Input::ConnectFailed { number, why: "as asked" });
        }
        self.pass(true);
        assert_eq!(self.counter("set:service"), self.counter("fired:service"), "the service's own timers");
        assert_eq!(self.counter("dials:service"), self.counter("told:service"), "its own connections");
        assert_eq!(self.refused, self.full, "each refusal is counted");
        let all = (self.overflowed, self.too_much);
        assert_eq!((self.cut_off, self.cut_off), all, "each session that is reset is counted, and why");
        self.resets += self.cut_off;
        let store = self.core.store();
        let kinds = [
            Kind::Session,
            Kind::State,
            Kind::Input,
            Kind::Output,
            Kind::Shared,
            Kind::Topics,
            Kind::Action,
            Kind::Payload,
            Kind::Timer,
            Kind::Job,
            Kind::Connect,
        ];
        for kind in kinds {
            assert_eq!(store.count(kind), 0, "{kind:?} records are left");
        }
        let mut from = Some(b"acts:".to_vec());
        while let Some(key) = from {
            let (entries, next) = self.core.entries_from(COUNTS, &key);
            let acts = entries.iter().filter(|(k, _)| k.starts_with(b"acts:"));
            self.acts +=
                acts.map(|(_, v)| String::from_utf8_lossy(v).parse::<u64>().expect("a number")).sum::<u64>();
            from = next;
        }
        assert!(!self.core.table_names().contains(&"never".to_owned()));
        assert!(!self.core.entries_from(TABLE, b"never").0.iter().any(|(k, _)| k == b"never"));
    }
}

unsafe extern "C" fn echo_entry() -> *const abi::Library {
    echo::greenroom_entry()
}

fn run(which: Which) {
    let one = std::env::var("GREENROOM_SEED").ok().and_then(|s| s.parse::<u64>().ok());
    let asked = std::env::var("GREENROOM_SEEDS").ok();
    let asked = asked.and_then(|s| s.split_once("..").map(|(from, to)| (from.parse(), to.parse())));
    let seeds = match (one, asked) {
        (Some(s), _) => s..s + 1,
        (None, Some((Ok(from), Ok(to)))) => from..to,
        _ => 0..SEEDS,
    };
    let mut trace = String::new();
    let (mut turns, mut faults, mut commits, mut refusals, mut quarantined, mut kills) = (0, 0, 0, 0, 0, 0);
    let (mut rollbacks, mut proved, mut spared) = (0, 0, 0);
    let (mut acts, mut once, mut lost, mut shouts, mut put_back) = (0, 0, 0, 0, 0);
    let (mut connected, mut configured, mut resets) = (0, 0, 0);
    for seed in seeds.clone() {
        let result = std::panic::catch_unwind(|| {
            let mut world = World::new(seed, which);
            for _ in 0..STEPS {
                world.step();
            }
            world.drain();
            let s = &world.core.services()[0];
            (
                world.turns + s.turns,
                world.faults + s.faults,
                world.commits,
                world.refusals,
                world.quarantined,
                world.kills,
                (world.rollbacks, world.proved, world.spared),
                (world.acts, world.once.len(), world.lost_jobs, world.shouts, world.put_back),
                (world.connected, world.configured, world.resets),
                world.trace,
            )
        });
        match result {
            Ok(n) => {
                turns += n.0;
                faults += n.1;
                commits += n.2;
                refusals += n.3;
                quarantined += n.4;
                kills += n.5;
                rollbacks += n.6.0;
                proved += n.6.1;
                spared += n.6.2;
                acts += n.7.0;
                once += n.7.1;
                lost += n.7.2;
                shouts += n.7.3;
                put_back += n.7.4;
                connected += n.8.0;
                configured += n.8.1;
                resets += n.8.2;
                let Trace { steps, all, words } = n.9;
                trace += &format!("{} {seed} {steps} {all:016x} {words:016x}\n", which.name());
            }
            Err(_) => panic!("seed {seed} fails; replay it with GREENROOM_SEED={seed}"),
        }
    }
    println!(
        "{turns} turns, {faults} failed, {commits} reloads committed, {refusals} refused, {quarantined} quarantined, {kills} kills; \
         {rollbacks} builds rolled back, {proved} proved, {spared} turns spared; \
         {acts} notes, messages, timers and results, {once} jobs to run once, {lost} jobs lost, {shouts} shouts heard; {connected} connections made; \
         {put_back} states put back, {configured} configurations in force; {resets} slow readers reset"
    );
    if let Ok(file) = std::env::var("GREENROOM_TRACE") {
        std::fs::write(format!("{file}.{}", which.name()), &trace).expect("the trace is written");
    }
    if seeds == (0..SEEDS) {
        // A run in which nothing happens proves nothing.
        assert!(turns > 50_000 && commits > 500 && refusals > 500 && kills > 500 && put_back > 5000);
        assert!(configured > 1000);
        assert!(which == Which::Tally || (faults > 5000 && quarantined > 100));
        assert!(which == Which::Tally || (rollbacks > 100 && proved > 30 && spared > 300));
        assert!(which == Which::Tally || (acts > 10_000 && once > 500 && lost > 50 && shouts > 5_000));
        assert!(which == Which::Tally || (connected > 500 && resets > 100));
    }
}

/// A wild write may have hit anything: what can't be trusted is given up by name, the rest goes on, nothing dies of it.
#[test]
fn damaged_records_are_given_up_and_the_rest_goes_on() {
    let (mut lost_all, mut kept_all) = (0, 0);
    for seed in 0..40 {
        let mut world = World::new(seed, Which::Script);
        while world.peers.len() < PEERS_MAX {
            world.step();
        }
        let image = world.core.store().image().to_vec();
        world.damaged = true;
        for damage in 0..10 {
            let mut rng = fastrand::Rng::with_seed(seed * 100 + damage);
            let mut image = image.clone();
            for _ in 0..rng.usize(1..400) {
                let at = rng.usize(0..image.len());
                let end = (at + rng.usize(1..32)).min(image.len());
                rng.fill(&mut image[at..end]);
            }
            let limits = world.core.limits().clone();
            let memory = Box::new(Plain::cut_after(&image, None));
            // Without its head nothing can be known; that is said, not survived.
            let Ok(found) = Store::recover(memory, limits.store_bytes_max) else { continue };
            let Successor { mut core, survivors, lost } = Core::recover(limits, found, world.now_ns);
            let build = Build { library: "sim".into(), generation: world.generation, hash: String::new() };
            let offer = offer(world.which, world.version, (1..world.version).collect(), "integer");
            core.adopt(&build, vec![(offer, world.code(&build, None))]);
            let (mut given_up, mut kept) = (lost.len(), Vec::new());
            for s in survivors {
                let peer = world.peers.iter().find(|p| p.id == s.id);
                let (read, sent) = peer.map_or((0, 0), |p| (p.read, p.sent));
                match core.reconcile(s.slot, read, Some(sent)) {
                    Ok(_) => kept.push(s.slot),
                    Err(why) => {
                        assert!(why.starts_with("session "), "{why}");
                        given_up += 1;
                    }
                }
            }
            core.handle(Input::PassBegins { now_ns: world.now_ns });
            for &slot in &kept {
                core.handle(Input::Received { slot, bytes: b"\nadd 1\n" });
            }
            kept_all += kept.len();
            core.handle(Input::Commit);
            core.handle(Input::PassBegins { now_ns: world.now_ns + 1 });
            core.handle(Input::Stop);
            core.handle(Input::Commit);
            lost_all += given_up;
        }
    }
    println!("{lost_all} records given up, {kept_all} sessions kept");
    assert!(lost_all > 100 && kept_all > 1000);
}

#[test]
fn scripted_turns_survive_everything() {
    run(Which::Script);
}

#[test]
fn the_shipped_tally_survives_everything_through_the_abi() {
    run(Which::Tally);
}
