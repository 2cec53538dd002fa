//! Takes over from a process that died: builds a core again from the records that its last commit left, as
//! [`crate::store::records::Store::recover`] finds them.
//!
//! The records tell everything up to that commit. How far each socket got beyond it, the kernel tells: [`Core::reconcile`] is given
//! both counts for each session. Bytes that were read and not committed must be given to the core again; output that was
//! committed and not sent is still there; a session for which that does not add up can't be trusted, and is given up by name.

use crate::command::Command;
use crate::core::Core;
use crate::ids::ServiceId;
use crate::ids::{Slot, service_of_number};
use crate::limits::host::Limits;
use crate::service::registry::Service;
use crate::session::life::{Life, OUTPUT_HEAD, Session};
use crate::store::kind::Kind;
use crate::store::layout::Ref;
use crate::store::recover::{Found, Recovered};
use greenroom_state::address::Peer;
use greenroom_state::session_record::SessionRecord;
use std::collections::{BTreeMap, BTreeSet};

/// A session that was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Survivor {
    /// Where the shell is to keep its connection.
    pub slot: Slot,
    /// Its number.
    pub id: u64,
}

/// What a successor begins with.
pub struct Successor {
    /// The core. Its services have names and no code: [`Core::adopt`] gives it to them.
    pub core: Core,
    /// The sessions, in the order of their numbers.
    pub survivors: Vec<Survivor>,
    /// What had to be given up, in words.
    pub lost: Vec<String>,
}

impl Core {
    /// Builds a core from the records that were found. `now_ns` is the clock of [`crate::input::Input::PassBegins`], which goes on
    /// across processes.
    pub fn recover(limits: Limits, found: Recovered, now_ns: u64) -> Successor {
        let Recovered { store, records, damaged } = found;
        let mut lost: Vec<_> = damaged.iter().map(|(kind, key)| describe(*kind, *key)).collect();
        let mut core = Core::with_store(limits, store);
        core.now_ns = now_ns;
        core.recover_services(&records);
        let mut survivors = Vec::new();
        let mut sessions: Vec<_> = records.iter().filter(|f| f.kind == Kind::Session).collect();
        sessions.sort_by_key(|f| f.key);
        for f in sessions {
            let record = core.store.read(f.at, SessionRecord::decode);
            match record.filter(|r| r.id == f.key && usize::from(r.service) < core.services.len()) {
                Some(record) => {
                    let slot = Slot(survivors.len() as u32);
                    core.recover_session(slot, f.at, &record);
                    survivors.push(Survivor { slot, id: record.id });
                }
                None => {
                    lost.push(format!("session {}: its record can't be read", f.key));
                    core.store.delete(f.at);
                }
            }
        }
        let mut output: BTreeMap<(u64, u64), Ref> = BTreeMap::new();
        let mut actions = Vec::new();
        for f in &records {
            match f.kind {
                Kind::Session | Kind::Service | Kind::Entry => {}
                Kind::Output | Kind::Shared => {
                    let offset = core.store.read(f.at, output_offset);
                    if let Some(other) = output.insert((f.key, offset), f.at) {
                        core.store.delete(other);
                    }
                }
                Kind::Action => actions.push((f.key, f.at)),
                Kind::Payload => core.payloads.found(f.key, f.at),
                Kind::Timer => core.recover_timer(f.key, f.at),
                Kind::Job => core.recover_job(f.key, f.at),
                Kind::Connect => core.recover_connect(f.key, f.at),
                Kind::State | Kind::Input | Kind::Topics | Kind::Quarantine => core.recover_part(f),
                Kind::Library | Kind::Ports | Kind::Served | Kind::Ledger | Kind::Config => {
                    core.recover_kept(f.kind, f.key, f.at)
                }
            }
        }
        let entries = records.iter().filter(|f| f.kind == Kind::Entry);
        for r in core.tables.found(&core.store, entries) {
            lost.push("an entry of a table: it can't be read".into());
            core.store.delete(r);
        }
        for ((id, offset), r) in output {
            core.recover_output(id, offset, r);
        }
        core.number_connects();
        let lacking = core.recover_actions(&actions);
        for number in core.payloads.unnamed() {
            core.unshare(number);
        }
        // A session that lost a part of itself would go on as another one.
        let parts = damaged.iter().filter(|(kind, _)| {
            let own = [
                Kind::State,
                Kind::Input,
                Kind::Output,
                Kind::Shared,
                Kind::Topics,
                Kind::Quarantine,
                Kind::Action,
                Kind::Timer,
                Kind::Job,
                Kind::Connect,
            ];
            Kind::from_number(*kind).is_some_and(|kind| own.contains(&kind))
        });
        let damaged: BTreeSet<u64> = parts.map(|(_, key)| *key).chain(lacking).collect();
        survivors.retain(|s| match core.lacks(s.slot, damaged.contains(&s.id)) {
            Some(part) => {
                lost.push(format!("session {}: {part}", s.id));
                core.give_up(s.slot);
                false
            }
            None => true,
        });
        Successor { core, survivors, lost }
    }

    /// What a session lacks of what its record says it has.
    fn lacks(&self, slot: Slot, damaged: bool) -> Option<&'static str> {
        let s = self.sessions.get(slot)?;
        let record = self.store.read(s.record?, SessionRecord::decode)?;
        let lost_state = record.state_version != 0 && s.state.is_none();
        let lost_input = record.input_bytes as usize != self.input_len(s) && record.input_bytes != 0;
        let lost_topics = usize::from(record.topics) != s.topics().len() && record.topics != 0;
        [
            (lost_state, "its state is lost"),
            (lost_input, "its input is lost"),
            (lost_topics, "its topics are lost"),
            (damaged, "a part of it is damaged"),
        ]
        .into_iter()
        .find_map(|(lost, what)| lost.then_some(what))
    }

    fn recover_services(&mut self, records: &[Found]) {
        let mut names: Vec<_> = records.iter().filter(|f| f.kind == Kind::Service).collect();
        names.sort_by_key(|f| f.key);
        for f in names {
            let name = self.store.read(f.at, |b| String::from_utf8_lossy(b).into_owned());
            // Their numbers have no gaps. If one is lost, those behind it are too, and their sessions are named.
            if f.key == self.services.len() as u64 {
                self.sessions.add_service();
                self.services.push(Service::unserved(name));
            } else {
                // Its number will be another service's.
                self.store.delete(f.at);
            }
        }
    }

    fn recover_session(&mut self, slot: Slot, at: Ref, r: &SessionRecord) {
        let service = ServiceId(r.service);
        // Sessions hold TCP addresses alone as yet, so no other kind was ever written.
        let Peer::Tcp(peer) = r.peer else { return };
        let mut s = Session::new(r.id, service, peer, r.opened_at_ms);
        s.record = Some(at);
        s.life = r.life;
        s.peer_done = r.peer_done;
        s.turns = r.turns;
        (s.bytes_in, s.bytes_out, s.bytes_sent) = (r.bytes_in, r.bytes_out, r.bytes_out);
        // Before the first pass: nobody is answered in it, all who have output left take their turn.
        s.heard_ns = self.now_ns.saturating_sub(1);
        s.greeting_due = r.greeting_due;
        s.outbound = r.outbound;
        s.held = r.held;
        s.frame.searched = r.frame_searched;
        self.services[usize::from(service.0)].sessions += 1;
        if r.life != Life::Open {
            let wait_ms = if r.life == Life::Draining { self.limits.drain_ms } else { self.limits.linger_ms };
            s.deadline_ns = self.now_ns + wait_ms * 1_000_000;
            self.deadlines.insert((s.deadline_ns, slot));
        }
        if r.life == Life::Lingering {
            // Perhaps it was done already; twice is no harm.
            self.effects.push(Command::Shutdown(slot));
        }
        // The state's version counts once its record is found.
        s.state_version = 0;
        self.sessions.insert(slot, s);
        self.expect(slot);
        // Input that was kept may hold whole messages: a session that was paused, or quarantined.
        self.resume(slot);
    }

    /// A record that belongs to a session; one without its session is an orphan of a damaged record.
    fn recover_part(&mut self, f: &Found) {
        if let Some(slot) =
            self.sessions.slot_of(f.key).filter(|s| s.is_service() && f.kind == Kind::Quarantine)
        {
            return self.recover_quarantine(slot, f.at);
        }
        let record = self.session_record(f.key);
        let Some((slot, record)) = record else { return self.store.delete(f.at) };
        let Some(s) = self.sessions.get_mut(slot) else { return };
        match f.kind {
            Kind::State => {
                s.state = Some(f.at);
                (s.state_version, s.state_fingerprint) = (record.state_version, record.state_fingerprint);
                self.services[usize::from(s.service.0)].count_stored(0, record.state_version);
            }
            Kind::Input => {
                s.input = Some(f.at);
                self.frame_waits(slot, true);
            }
            Kind::Quarantine => self.recover_quarantine(slot, f.at),
            _ => {
                let names = self.store.read(f.at, |b| String::from_utf8_lossy(b).into_owned());
                for name in names.lines() {
                    self.topics.add(name, slot);
                    s.subscriptions().topics.push(name.into());
                }
                s.subscriptions().record = Some(f.at);
            }
        }
    }

    fn session_record(&self, id: u64) -> Option<(Slot, SessionRecord)> {
        let slot = self.sessions.slot_of(id)?;
        let r = self.sessions.get(slot)?.record?;
        Some((slot, self.store.read(r, SessionRecord::decode)?))
    }

    /// Pieces come in the order of their offsets, and must follow each other to the stream's end.
    fn recover_output(&mut self, id: u64, offset: u64, r: Ref) {
        let slot = self.sessions.slot_of(id).filter(|slot| !slot.is_service());
        let sound = match self.store.kind(r) {
            Some(Kind::Shared) => slot.is_some() && self.recover_shared(r),
            _ => self.store.read(r, <[u8]>::len) >= OUTPUT_HEAD,
        };
        // What a session lacks is found when it is squared with the kernel.
        let Some(slot) = slot.filter(|_| sound) else { return self.store.delete(r) };
        let len = self.piece_len(r) as u64;
        let Some(s) = self.sessions.get_mut(slot) else { return };
        if s.output.is_empty() {
            s.bytes_sent = offset;
        }
        s.output.push(r);
        s.bytes_out = s.bytes_out.max(offset + len);
    }

    /// Squares a survivor with the kernel: bytes that came from its peer in all and were read, and bytes that were sent in all.
    /// `sent` is `None` for a connection that is broken: its output doesn't matter any more, and [`crate::input::Input::Broken`] is to
    /// follow. Returns how many bytes were read and not committed: they are to be given to the core again.
    ///
    /// To be done for every survivor before the first pass: a turn that ran earlier would build on what may have to be given
    /// up.
    ///
    /// An error says why the session can't be trusted; it is gone then.
    pub fn reconcile(&mut self, slot: Slot, read: u64, sent: Option<u64>) -> Result<u64, String> {
        let Some(s) = self.sessions.get(slot) else { return Err("there is no such session".into()) };
        let (id, first, end) = (s.id, s.bytes_sent, s.bytes_out);
        let Some(sent) = sent else {
            let missing = read.saturating_sub(s.bytes_in);
            // Trying to send it finds out that it can't be.
            self.offer_output(slot);
            return Ok(missing);
        };
        // What is there must be one piece: from where the first record begins to the end of the stream.
        let pieces: u64 = s.output.iter().map(|&r| self.piece_len(r) as u64).sum();
        let why = if read < s.bytes_in {
            Some(format!("{} bytes of its input were run, and the kernel gave out {read}", s.bytes_in))
        } else if sent > end || sent < first || first + pieces != end {
            Some(format!(
                "the kernel took {sent} bytes of its output, and bytes {first} to {end} are here ({pieces})"
            ))
        } else {
            None
        };
        if let Some(why) = why {
            self.give_up(slot);
            return Err(format!("session {id}: {why}"));
        }
        // What comes after a session's last turn is read and dropped.
        let missing = if s.life == Life::Open { read - s.bytes_in } else { 0 };
        let taken = (sent - first) as usize;
        self.sent(slot, taken, false);
        self.offer_output(slot);
        Ok(missing)
    }

    /// Forgets a survivor that can't be trusted, or whose connection is gone. Its handler isn't told.
    pub fn give_up(&mut self, slot: Slot) {
        if let Some(s) = self.sessions.get(slot) {
            for topic in s.topics() {
                self.topics.remove(topic, slot);
            }
        }
        self.gone(slot);
        self.effects
            .retain(|e| !matches!(e, Command::Close { slot: s, .. } | Command::Shutdown(s) if *s == slot));
    }
}

fn output_offset(bytes: &[u8]) -> u64 {
    bytes.get(..OUTPUT_HEAD).and_then(|b| b.try_into().ok()).map_or(u64::MAX, u64::from_le_bytes)
}

fn describe(kind: u8, key: u64) -> String {
    let what = match Kind::from_number(kind) {
        Some(Kind::Session) => "the record",
        Some(Kind::State) => "the state",
        Some(Kind::Input) => "input",
        Some(Kind::Output | Kind::Shared) => "output",
        Some(Kind::Topics) => "the topics",
        Some(Kind::Entry) => return "an entry of a table: it is damaged".into(),
        Some(Kind::Quarantine) => "the quarantine",
        Some(Kind::Library) => return format!("what library {key} runs: it is damaged"),
        Some(Kind::Payload) => return "a message for several sessions: it is damaged".into(),
        Some(Kind::Action | Kind::Timer | Kind::Job | Kind::Connect) => {
            if let Some(service) = service_of_number(key) {
                return format!(
                    "service {}: a timer, a job or a connection of its own is damaged",
                    service.0
                );
            }
            "an action, a timer, a job or a connection"
        }
        Some(Kind::Config) => return "the configuration in force: it is damaged".into(),
        Some(Kind::Ports) => return "the list of ports: it is damaged".into(),
        Some(Kind::Ledger) => return format!("line {key} of the ledger: it is damaged"),
        Some(Kind::Served) => return "the number of the last connection: it is damaged".into(),
        Some(Kind::Service) => return format!("the name of service {key}: it is damaged"),
        None => return "a block: it is damaged".into(),
    };
    format!("session {key}: {what} is damaged")
}
