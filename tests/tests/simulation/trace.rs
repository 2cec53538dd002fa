//! Trace of a seed: a hash over everything that it brings about, in order.
//!
//! The text that is hashed is built from names of its own, so that renames in the core change
//! nothing. A change that keeps behaviour keeps the hashes.

use greenroom_core::command::Command;
use greenroom_core::ids::{ServiceId, Slot};
use greenroom_core::ledger::Outcome;
use greenroom_core::reload::request::Step;
use greenroom_core::service::canaries::CanaryVerdict;
use greenroom_core::service::probation::ProbationEnd;

const FNV_OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
const FNV_PRIME: u64 = 0x0100_0000_01b3;

/// Hashes of a seed so far.
pub(crate) struct Trace {
    /// Steps taken, while peers write and while the world drains.
    pub(crate) steps: u64,
    /// Hash without the words of messages.
    pub(crate) all: u64,
    /// Hash with them.
    pub(crate) words: u64,
}

impl Trace {
    pub(crate) fn new() -> Trace {
        Trace { steps: 0, all: FNV_OFFSET, words: FNV_OFFSET }
    }

    /// Adds an event to both hashes.
    pub(crate) fn note(&mut self, what: &str, numbers: &[u64], bytes: &[u8]) {
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

    /// Adds the words of a message to the hash that covers them.
    fn add_words(&mut self, words: &str) {
        self.words = fnv(self.words, words.as_bytes());
    }

    /// Adds a command of the core.
    pub(crate) fn command(&mut self, command: &Command) {
        let in_slot = |slot: &Slot| u64::from(slot.0);
        let of = |service: &ServiceId| u64::from(service.0);
        match command {
            Command::Shutdown(slot) => self.note("shutdown", &[in_slot(slot)], b""),
            Command::Close { slot, id } => self.note("close", &[in_slot(slot), *id], b""),
            Command::StartTls { slot, id } => self.note("start tls", &[in_slot(slot), *id], b""),
            Command::Reset(slot) => self.note("reset", &[in_slot(slot)], b""),
            Command::Resume(slot) => self.note("resume", &[in_slot(slot)], b""),
            Command::Log { service, session, line, .. } => {
                let numbers = [of(service), *session, u64::from(line.level), u64::from(line.failed)];
                self.note("log", &numbers, b"");
                self.add_words(&line.target);
                self.add_words(&line.message);
            }
            Command::Fault { service, session, action, fault, answered_by, .. } => {
                let by = answered_by.map_or(0, |g| g + 1);
                let numbers = [of(service), *session, u64::from(*action), u64::from(fault.kind), by];
                self.note("fault", &numbers, b"");
                self.add_words(&fault.message);
                self.add_words(&fault.file);
            }
            Command::ProbationEnd { build, record: r, proof } => {
                let passed = u64::from(*proof == ProbationEnd::Passed);
                let numbers = [build.generation, r.turns, u64::from(r.faults), u64::from(r.spared), passed];
                self.note("probation end", &numbers, build.hash.as_bytes());
                if let ProbationEnd::Failed(why) = proof {
                    self.add_words(why);
                }
            }
            Command::CanaryDue { build, verdict } => {
                let promotes = u64::from(*verdict == CanaryVerdict::Promote);
                self.note("canary due", &[build.generation, promotes], build.hash.as_bytes());
            }
            Command::CancelJob(number) => self.note("cancel job", &[*number], b""),
            Command::ShowJobs(all) => self.note("jobs", &[all.len() as u64], b""),
            Command::GiveUpConnect(number) => self.note("give up connect", &[*number], b""),
            Command::Notice { level, service, session, message } => {
                self.note("notice", &[u64::from(*level), of(service), *session], b"");
                self.add_words(message);
            }
        }
    }

    /// Adds a step of a reload.
    pub(crate) fn reload(&mut self, step: &Step) {
        match step {
            Step::Stage(..) => self.note("stage", &[], b""),
            Step::Try(_) => self.note("try", &[], b""),
            Step::Load(all) => self.note("load", &[all.len() as u64], b""),
            Step::Commit(all) => {
                all.iter().for_each(|(_, b)| self.note("commit", &[b.generation], b.hash.as_bytes()));
            }
            Step::Discard(_) => self.note("discard", &[], b""),
            Step::Report(_, request, r) => {
                let committed = u64::from(r.outcome == Outcome::Committed);
                let (sessions, quarantined) = (r.sessions as u64, r.quarantined as u64);
                let numbers = [request.id, committed, r.generation, sessions, quarantined, r.migrated];
                self.note("report", &numbers, b"");
            }
        }
    }
}

/// FNV-1a of `bytes`, after what `hash` is of.
fn fnv(hash: u64, bytes: &[u8]) -> u64 {
    bytes.iter().fold(hash, |h, b| (h ^ u64::from(*b)).wrapping_mul(FNV_PRIME))
}
