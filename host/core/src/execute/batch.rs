//! From bytes to turns: cuts input into messages, runs them in batches, and applies what the turns that succeeded staged.

use crate::command::Command;
use crate::core::Core;
use crate::effects::asked::SHARED_FROM_BYTES;
use crate::framing::frame::PlainFrame as Frame;
use crate::ids::{ServiceId, Slot, told};
use crate::limits::host::BATCH_ACTIONS_MAX;
use crate::limits::names::Limit;
use crate::pass::deliver::{Data, PendingAction};
use crate::reload::sweep::{Reread, convert_value};
use crate::service::probation::Asked;
use crate::service::registry::Writer;
use crate::session::life::Life;
use crate::store::kind::Kind;
use crate::turn::code::{Batch, Code};
use crate::turn::effect::Effect;
use crate::turn::fault::Fault;
use crate::turn::staging::{Buffers, Convert, Staging, TurnContext};
use arrayvec::ArrayVec;
use greenroom_state::abi::{self, Action, action, closed, fault, level};

/// Batches that may be run again in one pass, of all sessions, before those whose turns fail have to wait.
const REPLAYS_PER_PASS: u32 = 64;

/// How a batch ended.
pub(crate) struct Ran {
    /// Actions that need not be run again.
    pub(crate) consumed: usize,
    /// A turn closed the session.
    pub(crate) close: bool,
}

/// Which code is called, and how it is to see the entries of tables.
pub(crate) struct Callee<'a> {
    pub(crate) code: &'a dyn Code,
    pub(crate) generation: u64,
    pub(crate) convert: &'a Convert<'a>,
}

impl Core {
    /// Runs the whole frames in `buf`, and keeps what is left over.
    pub(crate) fn run_frames(&mut self, slot: Slot, buf: &[u8]) {
        let (mut at, mut turns, share) = (0, 0, self.limits_of(slot).turns_at_once_max);
        while at < buf.len() {
            let Some(s) = self.sessions.get_mut(slot) else { return };
            if s.life != Life::Open {
                return;
            }
            if s.paused || s.held || s.waits || s.quarantined.is_some() {
                break;
            }
            if self.replays > REPLAYS_PER_PASS {
                // Its turns fail again and again: the others come first.
                s.paused = true;
                self.resume(slot);
                break;
            }
            if turns >= share {
                // It has had its share: the others come first.
                s.paused = true;
                self.resume(slot);
                self.reached(Limit::TurnsAtOnceMax);
                break;
            }
            if self.pending.has(slot) {
                self.run_waiting(slot);
                if self.pending.has(slot) && !self.tired() {
                    // Whatever they wait for comes before the frames.
                    break;
                }
                continue;
            }
            let framing = self.services[usize::from(s.service.0)].offer.framing;
            let mut actions = ArrayVec::<Action<'_>, BATCH_ACTIONS_MAX>::new();
            let mut ends = ArrayVec::<usize, BATCH_ACTIONS_MAX>::new();
            let mut end = at;
            let mut too_long = false;
            while !actions.is_full() && turns + actions.len() < share {
                match framing.next(&buf[end..], &mut s.frame) {
                    Frame::Message(message, len) => {
                        end += len;
                        actions.push(Action::new(action::MESSAGE, message.into()));
                        ends.push(end);
                        if end == buf.len() {
                            break;
                        }
                    }
                    Frame::More => break,
                    Frame::TooLong => {
                        too_long = true;
                        break;
                    }
                }
            }
            if actions.is_empty() {
                if too_long {
                    let what = "closed: a frame was longer than its service takes";
                    self.say_reached(Limit::FrameBytesMax, level::INFO, slot, what);
                    self.finish(slot, closed::LIMIT);
                    return;
                }
                break;
            }
            let (rest, cut) = (s.frame.clone(), turns + actions.len() >= share);
            let ran = self.run_batch(slot, &actions);
            if ran.consumed > 0 {
                at = ends[ran.consumed - 1];
            }
            let Some(s) = self.sessions.get_mut(slot) else { return };
            // What was searched behind the last whole frame stays searched only if all of them are gone.
            s.frame = if ran.consumed == actions.len() { rest } else { Default::default() };
            self.pause_if_full(slot);
            turns += ran.consumed;
            if ran.close {
                return self.finish(slot, closed::HANDLER);
            }
            if ran.consumed == actions.len() && !actions.is_full() && !too_long && !cut {
                break;
            }
        }
        self.keep_input(slot, &buf[at..], at > 0);
    }

    /// Whether too much was run again in this pass.
    pub(crate) fn tired(&self) -> bool {
        self.replays > REPLAYS_PER_PASS
    }

    /// `begins`: what is left is not the rest of what was left before.
    fn keep_input(&mut self, slot: Slot, rest: &[u8], begins: bool) {
        let Some(s) = self.sessions.get_mut(slot) else { return };
        if rest.is_empty() {
            s.frame_ns = 0;
            if let Some(r) = s.input.take() {
                self.store.delete(r);
            }
            return;
        }
        let room = self.store.reserve([rest.len()]);
        match room.then(|| self.store.put(s.input, Kind::Input, s.id, rest)) {
            Some(Ok(r)) => {
                s.input = Some(r);
                self.frame_waits(slot, begins);
            }
            _ => {
                self.say_reached(Limit::StoreBytesMax, level::WARN, slot, "closed: no room for its input");
                self.finish(slot, closed::LIMIT);
            }
        }
    }

    pub(crate) fn run_kept_input(&mut self, slot: Slot) {
        let Some(s) = self.sessions.get_mut(slot) else { return };
        if s.life != Life::Open || !self.greet(slot) {
            return;
        }
        self.run_waiting(slot);
        let Some(s) = self.sessions.get_mut(slot) else { return };
        if let Some(input) = s.input {
            s.frame = Default::default();
            let mut whole = std::mem::take(&mut self.assembly);
            whole.clear();
            self.store.read(input, |b| whole.extend_from_slice(b));
            self.touch(slot);
            self.run_frames(slot, &whole);
            self.assembly = whole;
        }
        self.finish_if_peer_done(slot);
    }

    /// The peer's last frames, and what waits for a turn, come before its end: a session that is paused or quarantined keeps them for
    /// later.
    pub(crate) fn finish_if_peer_done(&mut self, slot: Slot) {
        let over = |core: &Core| {
            let s = core.sessions.get(slot);
            s.is_some_and(|s| {
                let waits = s.paused || s.resuming || s.held || s.waits || s.quarantined.is_some();
                s.peer_done && s.life == Life::Open && !waits
            })
        };
        if over(self) && self.pending.has(slot) {
            self.run_waiting(slot);
        }
        if over(self) && !self.pending.has(slot) {
            self.finish(slot, closed::PEER);
        }
    }

    /// Runs actions of one session and applies what the successful ones staged.
    ///
    /// The result is that of running them one by one. A batch whose outcome can't be handed over as a whole is run again
    /// up to the turn that spoilt it: nothing of the first try was applied, so nobody can tell.
    pub(crate) fn run_batch(&mut self, slot: Slot, actions: &[Action<'_>]) -> Ran {
        let mut n = actions.len();
        if !self.withheld.is_empty() {
            n = self.allowed(slot, actions);
            if n == 0 {
                return Ran { consumed: usize::from(actions[0].kind == action::CLOSED), close: false };
            }
        }
        let mut fault: Option<Fault> = None;
        let mut failed_log = Vec::new();
        let mut buffers = self.buffers.take().unwrap_or_default();
        let b = &mut *buffers;
        loop {
            let flags = self.attempt(slot, &actions[..n], b);
            if b.done == 0 && b.fault.is_none() {
                let message = "the handler returned without an outcome".into();
                b.fault = Some(Fault { kind: fault::ERROR, message, file: String::new(), line: 0 });
            }
            if b.done == 0 {
                b.has_state = false;
            }
            // A fault behind the last turn can only be about the state that they left.
            let lost = flags & abi::RUN_STATE_LOST != 0 || b.done == n || b.spoilt;
            let state_lost = lost && b.done > 0 && b.fault.is_some();
            if state_lost && b.done < n {
                // The turn after those spoilt it: run them without it.
                n = b.done;
                self.replays += 1;
                fault = b.fault.take();
                failed_log = b.log.drain(..).filter(|l| l.failed).collect();
                self.reached.append(&mut b.reached);
                continue;
            }
            let unusable = match b.fault.take() {
                Some(fault) if state_lost => Some(fault.message),
                other => {
                    b.fault = other;
                    self.over_limit(slot, b).map(|limit| {
                        // The guilty one is found out alone.
                        if b.done <= 1 {
                            self.reached(limit);
                        }
                        format!("what the turn asked for is over {limit}")
                    })
                }
            };
            if let Some(message) = unusable {
                (fault, failed_log) = (None, Vec::new());
                if b.done > 1 {
                    // One by one, so that only the guilty turn fails.
                    n = 1;
                    self.replays += 1;
                    continue;
                }
                let mut log = std::mem::take(&mut b.log);
                b.clear();
                log.iter_mut().for_each(|l| l.failed = true);
                b.log = log;
                b.fault = Some(Fault { kind: fault::ERROR, message, file: String::new(), line: 0 });
            }
            break;
        }
        self.reached.append(&mut buffers.reached);
        // A replay that failed on its own stands for itself; the turn it was cut before is run again later.
        let fault = match buffers.fault.take() {
            Some(own) => Some(own),
            None if buffers.done == n => fault,
            None => None,
        };
        let Some(s) = self.sessions.get(slot) else {
            return Ran { consumed: buffers.done, close: buffers.close };
        };
        let (service, session) = (s.service, told(s.id));
        self.pending.acting.had(buffers.done);
        self.apply(slot, &buffers, Writer::Serving);
        let mut ran = Ran { consumed: buffers.done, close: buffers.close };
        for line in buffers.log.drain(..).chain(failed_log) {
            self.effects.push(Command::Log { service, session, line });
        }
        let mut turns = buffers.done as u64;
        if let Some(fault) = fault {
            let failed = actions[buffers.done];
            let kind = failed.kind;
            self.services[usize::from(service.0)].faults += 1;
            let mut answered_by = None;
            let on_probation = self.services[usize::from(service.0)].before.is_some();
            // Should the build before end the process, it is to be known in which turn.
            self.count_turns(slot, service, turns);
            turns = 0;
            let asked = match on_probation {
                true => self.ask_before(slot, &failed, &mut buffers),
                false => Asked::Not,
            };
            let mut consumed = true;
            if let Asked::Ran(close) = asked {
                answered_by =
                    self.services[usize::from(service.0)].before.as_ref().map(|b| b.build.generation);
                ran.close |= close;
                let log = buffers.log.drain(..);
                self.effects.extend(log.map(|line| Command::Log { service, session, line }));
            } else if fault.kind == fault::STATE && kind != action::CLOSED {
                // The action wasn't run: it waits for code that can read the state.
                self.quarantine(slot, fault.message.clone());
                consumed = false;
            }
            ran.consumed += usize::from(consumed);
            turns += u64::from(consumed);
            self.judge_fault(service, &asked);
            self.effects.push(Command::Fault { service, session, action: kind, fault, answered_by });
        }
        self.count_turns(slot, service, turns);
        self.buffers = Some(buffers);
        ran
    }

    fn count_turns(&mut self, slot: Slot, service: ServiceId, turns: u64) {
        self.services[usize::from(service.0)].turns += turns;
        self.sendable.turns += turns as usize;
        if let Some(s) = self.sessions.get_mut(slot) {
            s.turns += turns;
        }
    }

    /// Has the code that serves a session read its state, and migrate it if it must, as its next turn would. Nothing of it is
    /// kept. The error is the handler's.
    pub fn rehearse(&mut self, slot: Slot) -> Result<Reread, String> {
        let Some(s) = self.sessions.get(slot) else { return Err("it is gone".into()) };
        let before = s.state.map(|r| (s.state_version, self.store.read(r, <[u8]>::to_vec)));
        let mut buffers = self.buffers.take().unwrap_or_default();
        self.attempt(slot, &[], &mut buffers);
        let fault = buffers.fault.take();
        let after = buffers.has_state.then(|| buffers.state.clone());
        self.buffers = Some(buffers);
        match fault {
            Some(fault) => Err(fault.message),
            None if after.as_ref().is_some_and(|a| a.len() > self.limits_of(slot).state_bytes_max) => {
                Err("its state would be over limit state_bytes_max".into())
            }
            None => Ok(Reread { before, after }),
        }
    }

    /// Calls the handler that serves a session; leaves the result in `buffers`.
    fn attempt(&mut self, slot: Slot, actions: &[Action<'_>], buffers: &mut Buffers) -> u32 {
        let Some(session) = self.sessions.get(slot) else { return 0 };
        let mut version = None;
        self.state.clear();
        if let Some(r) = session.state {
            let (service, stored) = (session.service, session.state_version);
            self.store.read(r, |b| self.state.extend_from_slice(b));
            match self.take_back(service, stored) {
                Ok(read) => version = Some(read),
                Err(message) => {
                    buffers.clear();
                    let message = format!("its state can't be read: {message}");
                    buffers.fault = Some(Fault { kind: fault::STATE, message, file: String::new(), line: 0 });
                    return 0;
                }
            }
        }
        self.run_serving(slot, actions, buffers, version)
    }

    /// Calls the handler that serves a session, with the state that was copied, if there is any.
    pub(crate) fn run_serving(
        &self,
        slot: Slot,
        actions: &[Action<'_>],
        buffers: &mut Buffers,
        version: Option<u32>,
    ) -> u32 {
        let Some(session) = self.sessions.get(slot) else { return 0 };
        let service = &self.services[usize::from(session.service.0)];
        let convert = |table: &str, stored: u32, value: &[u8]| {
            convert_value(&self.services, &self.owners, table, stored, value)
        };
        let by = Callee { code: &*service.code, generation: service.generation(), convert: &convert };
        self.call(&by, slot, actions, buffers, version)
    }

    /// Calls a handler for a session, with the state that was copied, if there is any.
    pub(crate) fn call(
        &self,
        callee: &Callee<'_>,
        slot: Slot,
        actions: &[Action<'_>],
        buffers: &mut Buffers,
        state_version: Option<u32>,
    ) -> u32 {
        let Core {
            sessions, store, tables, state, now_ns, timers, jobs, connects, services, pending, ..
        } = self;
        let Some(session) = sessions.get(slot) else { return 0 };
        let batch = Batch {
            service: session.service,
            generation: callee.generation,
            session: session.id,
            turn: session.turns,
            now_ns: *now_ns,
            state: state_version.map(|version| (version, &state[..])),
            actions,
        };
        let served = |name: &str| services.iter().position(|s| s.offer.name == name && s.build.is_some());
        let named = |name: &str| served(name).map(|at| ServiceId(at as u16));
        let around = TurnContext {
            store,
            tables,
            convert: callee.convert,
            limits: self.limits_in(session.service),
            session,
            timers,
            jobs,
            connects,
            service: &named,
            depths: pending.acting.depths(),
            now_ns: *now_ns,
        };
        let mut staging = Staging::new(buffers, around, actions.len());
        let flags = callee.code.run(&batch, &mut staging);
        // A handler that returned in the middle of a turn has not said that it succeeded.
        buffers.cut();
        flags
    }

    /// The limit that applying the buffers would break.
    pub(crate) fn over_limit(&mut self, slot: Slot, b: &Buffers) -> Option<Limit> {
        let state_max = self.limits_of(slot).state_bytes_max;
        let Core { store, sessions, topics, .. } = self;
        if b.has_state && b.state.len() > state_max {
            return Some(Limit::StateBytesMax);
        }
        if b.effects.is_empty() && !b.has_state {
            return None;
        }
        let own = sessions.get(slot).map_or(&[][..], |s| s.topics());
        // One more than the topic has now: this very batch may subscribe the session first.
        let lens = b.record_lens(|topic| topics.count(topic) + 1, own);
        (!store.reserve(lens)).then_some(Limit::StoreBytesMax)
    }

    /// Applies what was staged. It can't fail: [`Core::over_limit`] made sure of the room.
    /// State and entries are marked with the versions that the writer has of them.
    pub(crate) fn apply(&mut self, slot: Slot, b: &Buffers, writer: Writer) {
        let room = "room was made sure of before";
        let Some((service, id)) = self.sessions.get(slot).map(|s| (s.service, s.id)) else { return };
        if b.has_state {
            self.write_state(slot, &b.state, self.services[usize::from(service.0)].written(writer));
        }
        let mut topics_changed = false;
        for effect in &b.effects {
            match effect {
                Effect::Send(part) => self.push_output(slot, &b.bytes[part.clone()]),
                Effect::Broadcast { topic, data, others } => {
                    self.broadcast(slot, b.text(topic), &b.bytes[data.clone()], *others);
                }
                Effect::Subscribe(topic) => {
                    if self.topics.add(b.text(topic), slot)
                        && let Some(s) = self.sessions.get_mut(slot)
                    {
                        s.subscriptions().topics.push(b.text(topic).into());
                        topics_changed = true;
                    }
                }
                Effect::Unsubscribe(topic) => {
                    if self.topics.remove(b.text(topic), slot)
                        && let Some(s) = self.sessions.get_mut(slot)
                    {
                        s.subscriptions().topics.retain(|t| &**t != b.text(topic));
                        topics_changed = true;
                    }
                }
                Effect::Put { table, key, value } => {
                    let (table, key, value) = (b.text(table), &b.bytes[key.clone()], &b.bytes[value.clone()]);
                    let version = self.version_written(writer, service, table);
                    self.tables.put(&mut self.store, table, key, version, value).expect(room);
                }
                Effect::Note { to, data, depth } => {
                    let to = self.sessions.slot_of(*to).filter(|to| !to.is_service());
                    let Some(to) = to else { continue };
                    let (from, data) = (told(id), Data::Own(&b.bytes[data.clone()]));
                    self.cause(
                        to,
                        &PendingAction { kind: action::NOTE, detail: 0, from, depth: *depth, name: "", data },
                    );
                }
                Effect::Publish { topic, data, others, depth } => {
                    let (name, bytes) = (b.text(topic), &b.bytes[data.clone()]);
                    let to: Vec<_> =
                        self.topics.subscribers(name).filter(|to| !(*others && *to == slot)).collect();
                    let shared = (bytes.len() >= SHARED_FROM_BYTES).then(|| self.share(bytes));
                    let data = shared.map_or(Data::Own(bytes), Data::Shared);
                    let (kind, from) = (action::PUBLISHED, told(id));
                    for to in to {
                        self.cause(to, &PendingAction { kind, detail: 0, from, depth: *depth, name, data });
                    }
                    if let Some(number) = shared {
                        self.unshare(number);
                    }
                }
                Effect::SetTimer { service: own, name, deadline_ns } => {
                    let of = if *own { Slot::of_service(service) } else { slot };
                    self.set_timer(of, b.text(name), *deadline_ns);
                }
                Effect::CancelTimer { service: own, name } => {
                    let of = if *own { Slot::of_service(service) } else { slot };
                    self.cancel_timer(of, b.text(name));
                }
                Effect::StartJob { number, name, input, once } => {
                    self.start_job(slot, *number, b.text(name), &b.bytes[input.clone()], *once);
                }
                Effect::CancelJob(number) => self.cancel_job(slot, *number),
                Effect::Connect { number, service, addr, context } => {
                    self.connect(slot, *number, *service, *addr, &b.bytes[context.clone()]);
                }
                Effect::WaitFor(other) => self.hold_for(slot, *other),
                Effect::Hold(held) => {
                    if let Some(s) = self.sessions.get_mut(slot)
                        && std::mem::replace(&mut s.held, *held)
                        && !held
                    {
                        self.resume(slot);
                    }
                }
                Effect::Delete { table, key } => {
                    self.tables.delete(&mut self.store, b.text(table), &b.bytes[key.clone()]);
                }
            }
        }
        if topics_changed {
            self.write_topics(slot);
        }
    }

    pub(crate) fn write_topics(&mut self, slot: Slot) {
        let Some(s) = self.sessions.get_mut(slot) else { return };
        let id = s.id;
        let Some(on) = &mut s.subscriptions else { return };
        if on.topics.is_empty() {
            if let Some(r) = on.record {
                self.store.delete(r);
            }
            s.subscriptions = None;
        } else {
            let names = on.topics.join("\n");
            let put = self.store.put(on.record, Kind::Topics, id, names.as_bytes());
            on.record = Some(put.expect("room was made sure of before"));
        }
    }
}
