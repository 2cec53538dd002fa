//! Scripted service: each line of a peer says what its turn does.
//!
//! Turns count what they ask for and what comes of it in the table [`COUNTS`], so that the
//! invariants can compare both.

use crate::framings::{self, RAW_BELOW};
use crate::verbs::{POISON, published_len};
use greenroom_core::framing::custom::CustomCut;
use greenroom_core::turn::code::{Batch, Code, CutPlace};
use greenroom_core::turn::fault::Fault;
use greenroom_core::turn::staging::Staging;
use greenroom_state::abi::{self, action, fault};

/// Table of the peers' own entries.
pub(crate) const TABLE: &str = "sim";

/// Table of the turns' counters.
pub(crate) const COUNTS: &str = "counts";

/// A build of the scripted service. Its state is a version byte and a count of 8 bytes.
pub(crate) struct Script {
    /// Generation that each answer names.
    pub(crate) generation: u64,
    /// State version.
    pub(crate) version: u32,
    /// Counts with this remainder by seven are unreadable: a migration that fails for some.
    pub(crate) unreadable: Option<u64>,
    /// The verb `trip` panics in this build, and in no other.
    pub(crate) flawed: bool,
    /// Counters are not checked: the store was overwritten.
    pub(crate) damaged: bool,
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

    fn cut(&self, _: &CutPlace, input: &[u8], state: &mut Vec<u8>) -> Result<CustomCut, String> {
        Ok(framings::cut(input, state))
    }

    fn bytes_of<'a>(&self, action: &abi::Action<'a>) -> (&'a [u8], &'a [u8]) {
        (bytes(action.name), bytes(action.data))
    }

    fn encode(&self, message: &[u8]) -> Result<Vec<u8>, String> {
        Ok(framings::encoded(message))
    }

    fn run(&self, batch: &Batch<'_>, staging: &mut Staging<'_>) -> u32 {
        let count = batch.state.map_or(0, |(version, bytes)| count_in(version, bytes));
        if batch.state.is_some() && self.unreadable.is_some_and(|r| count % 7 == r) {
            staging.turn_failed(as_asked(fault::STATE));
            return 0;
        }
        // A batch without actions asks what would be stored.
        let migrates = batch.state.is_some_and(|(v, _)| v != self.version || batch.actions.is_empty());
        let mut turn = Turn::new(self, (batch.session, batch.now_ns), count, migrates, staging);
        let mut done = 0;
        for a in batch.actions {
            turn.changes_state = false;
            match turn.run(a) {
                Ok(()) => {
                    turn.state_changed |= turn.changes_state;
                    done += 1;
                    if !turn.staging.turn_ok() {
                        break;
                    }
                }
                Err(how) => match turn.fail(how, done == 0) {
                    Some(answer) => return answer,
                    None => break,
                },
            }
        }
        if turn.state_changed && (done > 0 || batch.actions.is_empty()) {
            let state = [&[self.version as u8][..], &turn.count.to_le_bytes()].concat();
            turn.staging.state(&state);
        }
        0
    }
}

/// Ways in which a turn fails.
pub(crate) enum Failure {
    /// The handler panics.
    Panic,
    /// The state is larger than its limit.
    StateTooLarge,
    /// The handler has a bug and returns no outcome.
    NoOutcome,
}

/// Turns of a batch, one after the other.
pub(crate) struct Turn<'t, 's> {
    pub(crate) script: &'t Script,
    pub(crate) staging: &'t mut Staging<'s>,
    pub(crate) session: u64,
    /// Time of the pass.
    pub(crate) now_ns: u64,
    /// Owner of the counters: the session's number, or `service` for a service's own turns.
    pub(crate) owner: String,
    pub(crate) count: u64,
    /// This turn changes the state.
    pub(crate) changes_state: bool,
    /// An earlier turn of the batch changed the state, or a migration did.
    state_changed: bool,
}

impl<'t, 's> Turn<'t, 's> {
    fn new(
        script: &'t Script,
        (session, now_ns): (u64, u64),
        count: u64,
        state_changed: bool,
        staging: &'t mut Staging<'s>,
    ) -> Turn<'t, 's> {
        let owner = if session >> 63 == 1 { "service".to_owned() } else { session.to_string() };
        Turn { script, staging, session, now_ns, owner, count, changes_state: false, state_changed }
    }

    /// Runs the turn of one action.
    fn run(&mut self, a: &abi::Action<'_>) -> Result<(), Failure> {
        if a.kind == action::NEGOTIATED {
            self.negotiate(a.detail, bytes(a.data));
            return Ok(());
        }
        if a.kind == action::MESSAGE && bytes(a.data).first().is_some_and(|b| *b < RAW_BELOW) {
            // A stretch of a raw stream, which is no line of the model.
            self.add_own("acts");
            self.staging.send(bytes(a.data));
            return Ok(());
        }
        let data = self.text(a.data);
        match a.kind {
            action::MESSAGE => return self.message(&data),
            action::DATAGRAM => return self.datagram(&data),
            action::DIALED => self.opened_outbound(a.from, &data),
            action::CONNECT => self.connect_ended(a.from, a.detail == abi::connect::OPEN, &data),
            action::NOTE => self.note(a.from),
            action::EXPIRED => self.entry_is_over(&self.text(a.name), &data),
            action::TIMER => self.timer_fired(&self.text(a.name)),
            action::PUBLISHED => self.published(&self.text(a.name), &data),
            action::WOKEN => self.woken(),
            action::IDLE => self.silent(),
            action::MISSED => self.missed(a.from),
            action::SUBNEGOTIATION => _ = self.add_own("acts"),
            action::JOB => self.job_ended(a.detail == abi::job::DONE, &data),
            _ => {}
        }
        Ok(())
    }

    /// Text of an action. Panics if it is not UTF-8, which the peers write.
    fn text(&self, b: abi::Bytes<'_>) -> String {
        let text = String::from_utf8_lossy(bytes(b)).into_owned();
        assert!(self.script.damaged || text.as_bytes() == bytes(b), "the peers write UTF-8");
        text
    }

    /// Ends the turn with a failure. `Some` is the answer of the whole batch at once.
    fn fail(&mut self, how: Failure, first_of_batch: bool) -> Option<u32> {
        match how {
            Failure::StateTooLarge => {
                self.count -= POISON;
                if first_of_batch {
                    // The host's limit stops the turn.
                    self.staging.turn_ok();
                    self.staging.state(&vec![0; 1 << 20]);
                    return Some(0);
                }
                self.staging.turn_failed(as_asked(fault::PANIC));
                return None;
            }
            Failure::NoOutcome if first_of_batch => return Some(0),
            Failure::NoOutcome | Failure::Panic => self.staging.turn_failed(as_asked(fault::PANIC)),
        }
        let lost = if self.state_changed { abi::RUN_STATE_LOST } else { 0 };
        self.changes_state.then_some(lost)
    }

    /// Sends the count, the generation and a text: as a line, or as the bytes of one.
    pub(crate) fn reply(&mut self, line: &str) {
        let reply = format!("{} {:04} {line}", self.count, self.script.generation);
        match self.count.is_multiple_of(2) {
            true => self.staging.send_line(reply.as_bytes()),
            false => self.staging.send(format!("{reply}\n").as_bytes()),
        };
    }

    /// Changes the state.
    pub(crate) fn set_count(&mut self, count: u64) {
        self.count = count;
        self.changes_state = true;
    }

    // --- actions of other kinds -----------------------------------------------------------------

    /// Datagram to the service itself. One that fails has answered before.
    fn datagram(&mut self, data: &str) -> Result<(), Failure> {
        let (number, verb) = data.split_once(' ').expect("a number and a verb");
        self.add_own("acts");
        let ran = self.add("once", &format!("datagram {number}"), 1);
        assert!(ran == 1 || self.script.damaged, "a datagram runs once");
        self.staging.send(number.as_bytes());
        if verb == "fail" { Err(Failure::Panic) } else { Ok(()) }
    }

    /// First action of an outbound session.
    fn opened_outbound(&mut self, from: u64, context: &str) {
        let asked_by = if from == 0 { "service".to_owned() } else { from.to_string() };
        assert_eq!(context, asked_by, "the asking session gave its name");
        self.add_own("acts");
        self.add_own("dialed");
    }

    /// Outcome of a connection that was asked for.
    fn connect_ended(&mut self, connect: u64, open: bool, data: &str) {
        assert!(if open { data.parse::<u64>().is_ok() } else { !data.is_empty() }, "{data}");
        self.add_own("acts");
        self.add_own("told");
        let told = self.add("once", &format!("connect {connect}"), 1);
        assert!(told == 1 || self.script.damaged, "an outcome is told once");
    }

    /// Word of a telnet peer about an option: a handler that wants it for a while, and then no
    /// more.
    fn negotiate(&mut self, option: u32, said: &[u8]) {
        let [_, on @ 0..=1] = *said else { panic!("{said:?}") };
        self.add_own("acts");
        let wants = if on == 0 { 253 } else { 254 };
        assert_eq!(self.staging.negotiate(wants, option), abi::status::OK);
    }

    /// Note of this session or of another one. Its own one changes the count and is answered.
    fn note(&mut self, from: u64) {
        self.add_own("acts");
        if from == self.session {
            self.set_count(self.count + 1);
            self.reply("noted");
        } else {
            self.add_own("got");
        }
    }

    /// Timer of the session, or of the service. Every tenth one of the service asks for a
    /// connection.
    fn timer_fired(&mut self, name: &str) {
        assert_ne!(name, "off", "a cancelled timer does not fire");
        self.add_own("acts");
        if name == "go" {
            self.staging.hold(false);
        } else if name != "again" {
            self.add_own("fired");
            let fired = self.add("once", &format!("{}:{name}", self.owner), 1);
            assert!(fired == 1 || self.script.damaged, "a timer fires once");
        }
        if self.owner == "service" && name.ends_with('3') {
            self.connect();
        }
    }

    /// Told how many notes and messages were dropped. Behind them, topics go on with any number.
    fn missed(&mut self, count: u64) {
        assert!(count > 0);
        self.add_own("acts");
        let owner = self.owner.clone();
        self.add("missed", &owner, count);
        for topic in 0..20 {
            self.forget_last(&topic.to_string());
        }
    }

    /// Message on a topic: the next number, or the first one since the session joined.
    fn published(&mut self, topic: &str, data: &str) {
        let (n, rest) = data.split_once(' ').unwrap_or((data, ""));
        let n: u64 = n.parse().expect("a number");
        assert_eq!(rest.len(), published_len(n), "the whole message");
        let key = format!("{}:{topic}", self.owner);
        let last = self.add("last", &key, 0);
        let follows = last == 0 || n == last + 1;
        assert!(follows || self.script.damaged, "message {n} came after {last}");
        self.forget_last(topic);
        self.add("last", &key, n);
        self.add_own("acts");
    }

    /// Result of a job, or the news that it is lost.
    fn job_ended(&mut self, done: bool, data: &str) {
        assert!(!done || data.starts_with("result of "), "{data}");
        self.add_own("acts");
        self.add_own("done");
    }

    // --- counters -------------------------------------------------------------------------------

    /// Adds to a counter, and returns the sum.
    pub(crate) fn add(&mut self, what: &str, whose: &str, n: u64) -> u64 {
        let key = format!("{what}:{whose}");
        let read = self.staging.table_get(COUNTS, key.as_bytes()).map(<[u8]>::to_vec);
        let sum = read.map_or(0, |v| String::from_utf8(v).expect("digits").parse().expect("a number")) + n;
        self.staging.table_put(COUNTS, key.as_bytes(), sum.to_string().as_bytes());
        sum
    }

    /// Sets a counter.
    pub(crate) fn set(&mut self, what: &str, whose: &str, n: u64) {
        self.staging.table_put(COUNTS, format!("{what}:{whose}").as_bytes(), n.to_string().as_bytes());
    }

    /// Adds one to a counter of this owner, and returns the sum.
    pub(crate) fn add_own(&mut self, what: &str) -> u64 {
        let owner = self.owner.clone();
        self.add(what, &owner, 1)
    }

    /// Restarts the check that messages on a topic arrive without a gap.
    pub(crate) fn forget_last(&mut self, topic: &str) {
        let key = format!("last:{}:{topic}", self.owner);
        self.staging.table_delete(COUNTS, key.as_bytes());
    }
}

/// Count in a stored state.
fn count_in(version: u32, bytes: &[u8]) -> u64 {
    assert_eq!(u32::from(bytes[0]), version, "the record knows the version of what it holds");
    u64::from_le_bytes(bytes[1..9].try_into().expect("eight bytes"))
}

/// Fault of a turn that was asked to fail.
fn as_asked(kind: u32) -> Fault {
    Fault { kind, message: "as asked".into(), file: "sim".into(), line: 1 }
}

fn bytes(b: abi::Bytes<'_>) -> &[u8] {
    if b.len == 0 {
        return b"";
    }
    // SAFETY: the core passes bytes that live as long as the batch.
    unsafe { std::slice::from_raw_parts(b.ptr, b.len) }
}
