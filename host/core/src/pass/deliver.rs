//! Actions that wait for their turn: notes, published messages, results of jobs, and timers that are due.
//!
//! Each is a record until its turn has run, so that it happens once, whatever process runs it: the record goes in the same commit in
//! which the turn counts. A timer that is due waits as the very record that it was set with. A session's actions keep their order, and
//! come before the next frame that it was sent; the others' turns come before the pass is committed, unless there are too many: then
//! they go on in the next one.

use crate::core::Core;
use crate::effects::asked::ACTION_HEAD;
use crate::effects::timers::timer_name;
use crate::ids::Slot;
use crate::limits::host::BATCH_BYTES;
use crate::limits::names::Limit;
use crate::operate::inspect::ActionView;
use crate::session::life::Life;
use crate::store::kind::Kind;
use crate::store::layout::Ref;
use greenroom_state::abi::{Action, action, closed, level};
use std::collections::{HashMap, HashSet, VecDeque};

/// Turns that a pass runs of what its turns have caused; the rest waits for the next pass, and the others' input comes before it.
const CAUSED_PER_PASS: usize = 4096;
/// All that wait, by session.
#[derive(Debug, Default)]
pub(crate) struct Pending {
    queues: HashMap<Slot, Queue>,
    /// Sessions whose next action may run.
    ready: VecDeque<Slot>,
    sequence: u64,
    pub(crate) acting: Acting,
}

/// The batch under way, if it is one of actions that waited: they leave the queue when it is over.
#[derive(Debug, Default)]
pub(crate) struct Acting {
    slot: Option<Slot>,
    /// How many of them have had their turns.
    pub(crate) done: usize,
    depths: Vec<u16>,
}

impl Acting {
    /// So many more of them have had their turns.
    pub(crate) fn had(&mut self, turns: usize) {
        if self.slot.is_some() {
            self.done += turns;
        }
    }

    fn end(&mut self) {
        (self.slot, self.done) = (None, 0);
        self.depths.clear();
    }

    /// The depths of those that had no turn yet.
    pub(crate) fn depths(&self) -> &[u16] {
        self.depths.get(self.done..).unwrap_or_default()
    }
}

/// The actions of one session, oldest first.
#[derive(Debug, Default)]
struct Queue {
    waiting: VecDeque<Waiting>,
    /// It is among those that are ready.
    ready: bool,
    /// Of what they carry, shared or not.
    bytes: usize,
    /// Actions that found no room since one did.
    dropped: u64,
}

#[derive(Debug, Clone, Copy)]
struct Waiting {
    record: Ref,
    depth: u16,
    /// Its record is a timer's, not an action's.
    timer: bool,
    /// What it carries.
    bytes: u32,
}

/// An action to be.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PendingAction<'a> {
    /// One of [`action`].
    pub(crate) kind: u32,
    /// What the kind says; else 0.
    pub(crate) detail: u16,
    /// The session that caused it, 0: none; or the job's number.
    pub(crate) from: u64,
    /// How many turns lie between it and something that came from outside.
    pub(crate) depth: u16,
    pub(crate) name: &'a str,
    pub(crate) data: Data<'a>,
}

/// What an action carries.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Data<'a> {
    /// Its own.
    Own(&'a [u8]),
    /// A record that it shares with others.
    Shared(u64),
}

/// An action's record: sequence, from, shared record or 0 (u64 each, little-endian), kind, depth, the length of the name, detail (u16
/// each), the name, the data.
fn encode(sequence: u64, c: &PendingAction<'_>) -> Vec<u8> {
    let (shared, own) = match c.data {
        Data::Own(bytes) => (0, bytes),
        Data::Shared(number) => (number, &[][..]),
    };
    let mut bytes = Vec::with_capacity(ACTION_HEAD + c.name.len() + own.len());
    for n in [sequence, c.from, shared] {
        bytes.extend_from_slice(&n.to_le_bytes());
    }
    for n in [c.kind as u16, c.depth, c.name.len() as u16, c.detail] {
        bytes.extend_from_slice(&n.to_le_bytes());
    }
    bytes.extend_from_slice(c.name.as_bytes());
    bytes.extend_from_slice(own);
    bytes
}

struct Decoded<'a> {
    sequence: u64,
    from: u64,
    shared: u64,
    kind: u32,
    detail: u32,
    depth: u16,
    name: &'a [u8],
    data: &'a [u8],
}

fn decode(bytes: &[u8]) -> Option<Decoded<'_>> {
    let (head, rest) = bytes.split_at_checked(ACTION_HEAD)?;
    let long = |at: usize| Some(u64::from_le_bytes(head.get(at..at + 8)?.try_into().ok()?));
    let short = |at: usize| Some(u16::from_le_bytes(head.get(at..at + 2)?.try_into().ok()?));
    let (name, data) = rest.split_at_checked(usize::from(short(28)?))?;
    std::str::from_utf8(name).ok()?;
    Some(Decoded {
        sequence: long(0)?,
        from: long(8)?,
        shared: long(16)?,
        kind: u32::from(short(24)?),
        detail: u32::from(short(30)?),
        depth: short(26)?,
        name,
        data,
    })
}

/// Actions copied out of the store for one call.
#[derive(Debug, Default)]
pub(crate) struct ActionBuffer {
    bytes: Vec<u8>,
    actions: Vec<CopiedAction>,
}

#[derive(Debug)]
struct CopiedAction {
    kind: u32,
    detail: u32,
    from: u64,
    /// Where it ends in the bytes; it begins where the one before it ends.
    name_end: usize,
    data_end: usize,
}

impl ActionBuffer {
    fn clear(&mut self) {
        self.bytes.clear();
        self.actions.clear();
    }

    /// Of the first one.
    fn kind(&self) -> u32 {
        self.actions.first().map_or(0, |a| a.kind)
    }

    fn add(&mut self, (kind, detail): (u32, u32), from: u64, name: &[u8], data: &[u8]) {
        self.bytes.extend_from_slice(name);
        let name_end = self.bytes.len();
        self.bytes.extend_from_slice(data);
        self.actions.push(CopiedAction { kind, detail, from, name_end, data_end: self.bytes.len() });
    }

    fn actions(&self) -> Vec<Action<'_>> {
        let mut start = 0;
        let action = |a: &CopiedAction| {
            let (name, data) = (&self.bytes[start..a.name_end], &self.bytes[a.name_end..a.data_end]);
            start = a.data_end;
            Action { kind: a.kind, detail: a.detail, data: data.into(), name: name.into(), from: a.from }
        };
        self.actions.iter().map(action).collect()
    }
}

fn certain(kind: u32) -> bool {
    [action::JOB, action::DIALED, action::CONNECT].contains(&kind)
}

impl Pending {
    /// How many actions of a session, of those that wait, have had their turns by now.
    pub(crate) fn done(&self, slot: Slot) -> usize {
        if self.acting.slot == Some(slot) { self.acting.done } else { 0 }
    }

    /// Whether a session has actions that wait.
    #[inline]
    pub(crate) fn has(&self, slot: Slot) -> bool {
        !self.queues.is_empty() && self.queues.contains_key(&slot)
    }

    /// How many actions of a session wait.
    pub(crate) fn count(&self, slot: Slot) -> usize {
        self.queues.get(&slot).map_or(0, |q| q.waiting.len())
    }

    /// The records of a session's timers that are due.
    pub(crate) fn timers(&self, slot: Slot) -> impl Iterator<Item = Ref> {
        let waiting = self.queues.get(&slot).map(|q| q.waiting.iter());
        waiting.into_iter().flatten().filter(|w| w.timer).map(|w| w.record)
    }

    /// Whether a pass is due for what waits.
    pub(crate) fn is_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    fn push(&mut self, slot: Slot, waiting: Waiting) {
        let queue = self.queues.entry(slot).or_default();
        queue.bytes += waiting.bytes as usize;
        queue.waiting.push_back(waiting);
        if !std::mem::replace(&mut queue.ready, true) {
            self.ready.push_back(slot);
        }
    }

    /// A timer of this session is due.
    pub(crate) fn due(&mut self, slot: Slot, record: Ref) {
        self.push(slot, Waiting { record, depth: 0, timer: true, bytes: 0 });
    }

    /// Takes off the one that `is` it, if it didn't have its turn: the first `done` have had theirs.
    fn take(&mut self, slot: Slot, done: usize, is: impl Fn(&Waiting) -> bool) -> Option<Ref> {
        let queue = self.queues.get_mut(&slot)?;
        let at = queue.waiting.iter().skip(done).position(is)?;
        let taken = queue.waiting.remove(done + at)?;
        queue.bytes -= taken.bytes as usize;
        if queue.waiting.is_empty() {
            self.queues.remove(&slot);
        }
        Some(taken.record)
    }

    /// As [`Pending::take`], for the timer that is due and whose record `is` the one.
    pub(crate) fn take_timer(&mut self, slot: Slot, is: impl Fn(Ref) -> bool) -> Option<Ref> {
        self.take(slot, self.done(slot), |w| w.timer && is(w.record))
    }
}

impl Core {
    /// Has an action wait for its turn. There must be room. A session that is closing, or has too many waiting, doesn't get it.
    pub(crate) fn cause(&mut self, slot: Slot, caused: &PendingAction<'_>) {
        let Some(s) = self.sessions.get(slot).filter(|s| s.life == Life::Open) else { return };
        let id = s.id;
        let limits = self.limits_of(slot);
        let (max, bytes_max) = (limits.actions_pending_max, limits.actions_pending_bytes_max);
        let bytes = match caused.data {
            Data::Own(bytes) => bytes.len(),
            Data::Shared(number) => self.payloads.get(number).map_or(0, |r| self.store.read(r, <[u8]>::len)),
        };
        let done = self.pending.done(slot);
        // What this very session has asked for is never left out: that has its own limits.
        if let Some(queue) = self.pending.queues.get_mut(&slot).filter(|_| !certain(caused.kind)) {
            let limit = match () {
                () if queue.waiting.len() - done >= max => Some(Limit::ActionsPendingMax),
                () if queue.bytes + bytes > bytes_max => Some(Limit::ActionsPendingBytesMax),
                () => None,
            };
            if let Some(limit) = limit {
                queue.dropped += 1;
                if queue.dropped > 1 {
                    return self.reached(limit);
                }
                let waiting = queue.waiting.len() - done;
                let what = format!("{waiting} actions wait for it: notes and messages to it are dropped");
                return self.say_reached(limit, level::WARN, slot, &what);
            }
            if queue.dropped > 0 {
                let message = format!("{} notes and messages to it were dropped", queue.dropped);
                queue.dropped = 0;
                self.notice(level::WARN, slot, message);
            }
        }
        self.pending.sequence += 1;
        let encoded = encode(self.pending.sequence, caused);
        let put = self.store.put(None, Kind::Action, id, &encoded);
        let record = put.expect("room was made sure of before");
        if let Data::Shared(number) = caused.data {
            self.payloads.name(number);
        }
        let (depth, bytes) = (caused.depth, bytes as u32);
        self.pending.push(slot, Waiting { record, depth, timer: false, bytes });
    }

    /// Runs what turns have caused in this pass or an earlier one, and timers that are due, up to a limit.
    pub(crate) fn run_caused(&mut self) {
        let mut left = CAUSED_PER_PASS;
        // Those whose input fails again and again are not to have the others' actions wait.
        let replays = std::mem::take(&mut self.replays);
        let mut rounds = self.pending.ready.len() + CAUSED_PER_PASS;
        while left > 0 && rounds > 0 && !self.tired() {
            rounds -= 1;
            let Some(slot) = self.pending.ready.pop_front() else { break };
            let Some(queue) = self.pending.queues.get_mut(&slot) else { continue };
            queue.ready = false;
            left = left.saturating_sub(self.run_some(slot));
            self.is_ready_again(slot);
            self.finish_if_peer_done(slot);
        }
        self.replays += replays;
    }

    /// Runs all that waits for one session: before its next frame.
    pub(crate) fn run_waiting(&mut self, slot: Slot) {
        let full = |core: &Core| core.overflowed.contains(&slot);
        while self.pending.has(slot) && !self.tired() && !full(self) {
            if self.run_some(slot) == 0 {
                break;
            }
        }
        self.is_ready_again(slot);
    }

    fn is_ready_again(&mut self, slot: Slot) {
        let runs = self.runs(slot);
        let Some(queue) = self.pending.queues.get_mut(&slot).filter(|_| runs) else { return };
        if !std::mem::replace(&mut queue.ready, true) {
            self.pending.ready.push_back(slot);
        }
    }

    /// Whether a session's actions may run now. One that waits says so when it goes on.
    fn runs(&self, slot: Slot) -> bool {
        let s = self.sessions.get(slot);
        s.is_some_and(|s| s.life == Life::Open && s.quarantined.is_none() && !s.greeting_due)
    }

    /// Runs some actions of a session; returns how many it has done.
    fn run_some(&mut self, slot: Slot) -> usize {
        if !self.runs(slot) {
            return 0;
        }
        let mut copied = std::mem::take(&mut self.copied);
        copied.clear();
        let mut acting = std::mem::take(&mut self.pending.acting);
        let Some(queue) = self.pending.queues.get(&slot) else { return 0 };
        let most = if slot.is_service() { 1 } else { crate::limits::host::BATCH_ACTIONS_MAX };
        let mut bytes = 0;
        for w in queue.waiting.iter().take(most) {
            bytes += w.bytes as usize;
            // Of one kind, as a death is laid at the door of a kind.
            if !acting.depths.is_empty() && (bytes > BATCH_BYTES || self.kind(w) != copied.kind()) {
                break;
            }
            acting.depths.push(w.depth);
            self.store.read(w.record, |bytes| {
                if w.timer {
                    return copied.add((action::TIMER, 0), 0, timer_name(bytes), b"");
                }
                let Some(d) = decode(bytes) else { return copied.add((0, 0), 0, b"", b"") };
                let mut add = |data: &[u8]| copied.add((d.kind, d.detail), d.from, d.name, data);
                match self.payloads.get(d.shared) {
                    Some(shared) => self.store.read(shared, add),
                    None => add(d.data),
                }
            });
        }
        self.touch(slot);
        if slot.is_service() {
            self.name_turn(slot, &copied);
        }
        acting.slot = Some(slot);
        self.pending.acting = acting;
        let ran = self.run_batch(slot, &copied.actions());
        self.copied = copied;
        self.pending.acting.end();
        self.drop_oldest(slot, ran.consumed);
        self.pause_if_full(slot);
        self.note_overflow(slot);
        if ran.close {
            self.finish(slot, closed::HANDLER);
        }
        ran.consumed
    }

    fn kind(&self, w: &Waiting) -> u32 {
        match w.timer {
            true => action::TIMER,
            false => self.store.read(w.record, |b| decode(b).map_or(0, |d| d.kind)),
        }
    }

    /// A service's own turns aren't counted from process to process. So that a death can be laid at the door of one, it is named by what
    /// it is and by the code that runs it.
    fn name_turn(&mut self, slot: Slot, copied: &ActionBuffer) {
        let Some(s) = self.sessions.get_mut(slot) else { return };
        let generation = self.services[usize::from(s.service.0)].generation();
        let Some(a) = copied.actions.first() else { return };
        let name = &copied.bytes[..a.name_end];
        let parts = [&a.from.to_le_bytes()[..], &generation.to_le_bytes(), name];
        // FNV-1a. Half of its values, so that counting on can't overflow.
        let step = |h: u64, b: &u8| (h ^ u64::from(*b)).wrapping_mul(0x0100_0000_01b3);
        s.turns = parts.into_iter().flatten().fold(0xcbf2_9ce4_8422_2325, step) >> 1;
    }

    /// The oldest actions of a session have had their turns, or shall have none.
    fn drop_oldest(&mut self, slot: Slot, count: usize) {
        for _ in 0..count {
            let Some(queue) = self.pending.queues.get_mut(&slot) else { return };
            let Some(w) = queue.waiting.pop_front() else { return };
            queue.bytes -= w.bytes as usize;
            if queue.waiting.is_empty() {
                self.pending.queues.remove(&slot);
            }
            let shared = match w.timer {
                true => 0,
                false => self.store.read(w.record, |b| decode(b).map_or(0, |d| d.shared)),
            };
            self.store.delete(w.record);
            self.unname(shared);
        }
    }

    /// The result of a job that this session cancelled isn't told any more.
    pub(crate) fn cancel_result(&mut self, slot: Slot, number: u64) {
        let done = self.pending.done(slot);
        let store = &self.store;
        let is = |bytes: &[u8]| decode(bytes).is_some_and(|d| d.kind == action::JOB && d.from == number);
        if let Some(record) = self.pending.take(slot, done, |w| !w.timer && store.read(w.record, is)) {
            self.store.delete(record);
        }
    }

    /// What waits for a session's turns, but for timers.
    pub(crate) fn actions_of(&self, slot: Slot) -> Vec<ActionView> {
        let queue = self.pending.queues.get(&slot).into_iter().flat_map(|q| &q.waiting);
        let view = |w: &Waiting| {
            self.store.read(w.record, |bytes| {
                let d = decode(bytes)?;
                let shared = self.payloads.get(d.shared);
                let data = shared.map_or(d.data.to_vec(), |r| self.store.read(r, <[u8]>::to_vec));
                let name = String::from_utf8_lossy(d.name).into_owned();
                Some(ActionView { kind: d.kind, from: d.from, name, data })
            })
        };
        queue.filter(|w| !w.timer).filter_map(view).collect()
    }

    /// A session ends: nothing waits for it any more.
    pub(crate) fn forget_waiting(&mut self, slot: Slot) {
        self.drop_oldest(slot, self.pending.count(slot));
    }

    /// Puts actions that recovery found back into their order. Returns the sessions that lack a part of one.
    pub(crate) fn recover_actions(&mut self, actions: &[(u64, Ref)]) -> Vec<u64> {
        let mut order = Vec::new();
        let mut lacking = HashSet::new();
        for &(id, record) in actions {
            let read = self.store.read(record, |b| {
                let d = decode(b)?;
                let payload = self.payloads.get(d.shared);
                let bytes = payload.map_or(d.data.len(), |r| self.store.read(r, <[u8]>::len));
                Some((d.sequence, d.shared, d.depth, bytes as u32))
            });
            match (self.sessions.slot_of(id), read) {
                (Some(slot), Some((sequence, shared, depth, bytes)))
                    if shared == 0 || self.payloads.get(shared).is_some() =>
                {
                    order.push((sequence, shared, slot, Waiting { record, depth, timer: false, bytes }));
                }
                (slot, _) => {
                    lacking.extend(slot.map(|_| id));
                    self.store.delete(record);
                }
            }
        }
        order.sort_by_key(|(sequence, ..)| *sequence);
        for (sequence, shared, slot, waiting) in order {
            self.pending.sequence = sequence;
            self.payloads.name(shared);
            self.pending.push(slot, waiting);
        }
        lacking.into_iter().collect()
    }
}
