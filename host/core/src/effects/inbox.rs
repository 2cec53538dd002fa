//! Actions that wait for a session: notes, published messages, results, due timers.
//!
//! An action waits as one record. The commit of its turn deletes the record, so the turn counts
//! once, whichever worker runs it. A due timer waits as the record that it was set with. Actions
//! of a session keep their order. After a takeover, due timers come behind the others.
//! `actions_pending_max` and `actions_pending_bytes_max` bound a session's queue: notes and
//! messages above them are dropped. Adding or dropping an action is O(1) in the actions that
//! wait.

use super::action_queue::{ActionQueue, Waiting, WaitingKind};
use super::timers::timer_name;
use crate::effects::action_buffer::ActionBuffer;
use crate::effects::action_record::Data;
use crate::effects::action_record::PendingAction;
use crate::effects::action_record::decode;
use crate::effects::action_record::encode;
use crate::effects::action_record::{ACTION_HEAD, CLOSE_ASKED};
use crate::effects::running_batch::RunningBatch;
use crate::effects::wakes::Wakes;
use crate::ids::Slot;
use crate::limits::host::{BATCH_ACTIONS_MAX, BATCH_BYTES, Limits};
use crate::limits::names::Limit;
use crate::store::kind::Kind;
use crate::store::layout::Ref;
use crate::store::records::Store;
use crate::store::shared::{SHARED_FROM_BYTES, SharedRecords};
use greenroom_state::abi::action;
use std::collections::{HashMap, HashSet, VecDeque};

/// All actions that wait, by session.
#[derive(Debug, Default)]
pub(crate) struct Inbox {
    pub(super) queues: HashMap<Slot, ActionQueue>,
    /// Sessions whose next action may run.
    ready: VecDeque<Slot>,
    /// Wakes that wait for an event.
    pub(super) wakes: Wakes,
    /// Number of the newest action. Recovery sorts the actions by their numbers.
    pub(super) sequence: u64,
}

/// The answer of [`Inbox::put`].
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Put {
    /// The action waits.
    Waits,
    /// The action waits, and is the first one after so many that were dropped.
    WaitsAfterDrops(u64),
    /// The action is dropped: the limit is reached. The first drop tells how many actions wait.
    Dropped(Limit, Option<usize>),
}

/// An action that waits, as operators see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ActionView {
    /// Kind, one of [`action`].
    pub kind: u32,
    /// Number of the session that caused it, or of the job.
    pub from: u64,
    /// Topic or job.
    pub name: String,
    /// Data that it carries.
    pub data: Vec<u8>,
}

/// Number of the shared record that an action names; 0: none.
fn shared_of(store: &Store, w: &Waiting) -> u64 {
    match w.kind {
        WaitingKind::Timer => 0,
        _ => store.read(w.record, |b| decode(b).map_or(0, |d| d.shared)),
    }
}

/// Whether an action is never dropped. The limits of jobs and connections bound such actions. A
/// framing's events come one by one, as the next input waits for the turn of each. TLS starts once,
/// and of wakes and ends one waits at a time. A silence ends before the next one. Entries that are
/// over wait while much waits for their service.
fn is_certain(kind: u32) -> bool {
    let of_framing = [action::NEGOTIATED, action::SUBNEGOTIATION];
    let outcomes = [action::JOB, action::DIALED, action::CONNECT, action::TLS_STARTED, action::EXPIRED];
    let single = [action::WOKEN, action::IDLE, CLOSE_ASKED];
    outcomes.contains(&kind) || of_framing.contains(&kind) || single.contains(&kind)
}

impl Inbox {
    /// Bytes of the record that [`Inbox::put`] writes, for an action with data of its own.
    pub(crate) fn record_bytes(name_len: usize, data_len: usize) -> usize {
        ACTION_HEAD + name_len + data_len
    }

    /// Bytes of the record that a published message costs each subscriber, at most.
    pub(crate) fn publish_record_bytes(topic_len: usize, data_len: usize) -> usize {
        ACTION_HEAD + topic_len + if data_len < SHARED_FROM_BYTES { data_len } else { 0 }
    }

    /// Whether actions of a session wait.
    #[inline]
    pub(crate) fn has(&self, slot: Slot) -> bool {
        self.has_queued(slot) || self.wakes.waits_for_output(slot)
    }

    /// Whether actions of a session wait that come before its next message. A wake for drained
    /// output does not: the peer may read only while it is read.
    #[inline]
    pub(crate) fn has_queued(&self, slot: Slot) -> bool {
        !self.queues.is_empty() && self.queues.contains_key(&slot)
    }

    /// Whether actions of a session wait that may run in this pass.
    pub(crate) fn has_due(&self, slot: Slot) -> bool {
        self.queues.get(&slot).is_some_and(|q| q.due().next().is_some())
    }

    /// Number and bytes of a session's waiting actions that nothing cancels: notes and messages,
    /// for the most part. Their turns may add to its output.
    pub(crate) fn backlog(&self, slot: Slot) -> (usize, usize) {
        self.queues.get(&slot).map_or((0, 0), ActionQueue::certain)
    }

    /// Whether a pass is due for waiting actions.
    pub(crate) fn is_ready(&self) -> bool {
        !self.ready.is_empty() || self.wakes.are_due()
    }

    /// Sessions listed as ready.
    pub(crate) fn ready_len(&self) -> usize {
        self.ready.len()
    }

    /// Takes the next session off the ready list. `Some(None)`: its actions are gone. `None`: the
    /// list is empty.
    pub(crate) fn pop_ready(&mut self) -> Option<Option<Slot>> {
        let slot = self.ready.pop_front()?;
        let Some(queue) = self.queues.get_mut(&slot) else { return Some(None) };
        queue.ready = false;
        Some(Some(slot))
    }

    /// Lists a session as ready, if it has actions that may run in this pass.
    pub(crate) fn set_ready(&mut self, slot: Slot) {
        let Some(queue) = self.queues.get_mut(&slot).filter(|q| q.due().next().is_some()) else { return };
        if !std::mem::replace(&mut queue.ready, true) {
            self.ready.push_back(slot);
        }
    }

    pub(super) fn push(&mut self, slot: Slot, waiting: Waiting, name: Option<&[u8]>) {
        self.queues.entry(slot).or_default().push(waiting, name);
        self.set_ready(slot);
    }

    /// Adds a timer that is due, by its record.
    pub(crate) fn put_due(&mut self, store: &Store, slot: Slot, record: Ref) {
        let waiting = Waiting { record, depth: 0, kind: WaitingKind::Timer, bytes: 0 };
        store.read(record, |b| self.push(slot, waiting, slot.is_service().then(|| timer_name(b))));
    }

    /// Adds an action for the open session `id` in `slot`, unless a limit is reached. Room must
    /// be reserved. A session without waiting actions takes an action of any length.
    pub(crate) fn put(
        &mut self,
        store: &mut Store,
        shared: &mut SharedRecords,
        (slot, id): (Slot, u64),
        action: &PendingAction<'_>,
        limits: &Limits,
        running: &RunningBatch,
    ) -> Put {
        let bytes = action.data.len(store, shared);
        let done = running.done(slot);
        let mut put = Put::Waits;
        let kind = waiting_kind(action.kind);
        if kind == WaitingKind::Wake && self.drained(slot) {
            return put;
        }
        if self.queue(slot).is_some_and(|q| q.has_same(kind, done)) {
            return put;
        }
        if let Some(queue) = self.queues.get_mut(&slot).filter(|_| !is_certain(action.kind)) {
            let waiting = queue.counted().saturating_sub(done);
            let limit = match () {
                () if waiting >= limits.actions_pending_max => Some(Limit::ActionsPendingMax),
                () if queue.bytes + bytes > limits.actions_pending_bytes_max => {
                    Some(Limit::ActionsPendingBytesMax)
                }
                () => None,
            };
            if let Some(limit) = limit {
                queue.dropped += 1;
                let first = queue.dropped == 1;
                self.miss(store, (slot, id), done);
                return Put::Dropped(limit, first.then_some(waiting));
            }
            if queue.dropped > 0 {
                put = Put::WaitsAfterDrops(std::mem::take(&mut queue.dropped));
            }
        }
        self.sequence += 1;
        let record = store.put(None, Kind::Action, id, &encode(self.sequence, action));
        let record = record.expect("room was reserved before");
        if let Data::Shared(number) = action.data {
            shared.name(number);
        }
        self.push(slot, Waiting { record, depth: action.depth, kind, bytes: bytes as u32 }, None);
        put
    }

    /// Copies the oldest actions of a session for one call, up to the bounds of a batch. All are
    /// of one kind: a death is blamed on a kind. They stay until [`Inbox::drop_oldest`].
    pub(crate) fn copy_batch(
        &self,
        store: &Store,
        shared: &SharedRecords,
        slot: Slot,
        into: &mut ActionBuffer,
        running: &mut RunningBatch,
    ) {
        into.clear();
        let Some(queue) = self.queues.get(&slot) else { return };
        // A service's turn is named by its first action: a second one would have no name.
        let most = if slot.is_service() { 1 } else { BATCH_ACTIONS_MAX };
        let mut bytes = 0;
        for w in queue.due().take(most) {
            bytes += w.bytes as usize;
            let first = running.depths().is_empty();
            if !first && (bytes > BATCH_BYTES || kind(store, w) != into.kind()) {
                break;
            }
            running.add(w.depth);
            store.read(w.record, |bytes| {
                if w.kind == WaitingKind::Timer {
                    return into.add((action::TIMER, 0), 0, timer_name(bytes), b"");
                }
                let Some(d) = decode(bytes) else { return into.add((0, 0), 0, b"", b"") };
                let mut add = |data: &[u8]| into.add((d.kind, d.detail), d.from, d.name, data);
                match shared.get(d.shared) {
                    Some(shared) => store.read(shared, add),
                    None => add(d.data),
                }
            });
        }
        running.begin(slot);
    }

    /// Deletes the oldest `count` actions of a session: they have had their turns, or shall have
    /// none. Never fails.
    pub(crate) fn drop_oldest(
        &mut self,
        store: &mut Store,
        shared: &mut SharedRecords,
        slot: Slot,
        count: usize,
    ) {
        for _ in 0..count {
            let Some(queue) = self.queues.get_mut(&slot) else { return };
            let Some(w) = queue.pop(store) else { return };
            if queue.len() == 0 {
                self.queues.remove(&slot);
            }
            let number = shared_of(store, &w);
            store.delete(w.record);
            shared.unname(store, number);
        }
    }

    /// Deletes all actions of a session.
    pub(crate) fn drop_all(&mut self, store: &mut Store, shared: &mut SharedRecords, slot: Slot) {
        if let Some(wake) = self.wakes.draining.remove(&slot) {
            store.delete(wake.record);
        }
        let count = self.queues.get(&slot).map_or(0, ActionQueue::len);
        self.drop_oldest(store, shared, slot, count);
    }

    /// Cancels a timer of this name that is due and had no turn.
    pub(crate) fn cancel_due(&mut self, store: &mut Store, slot: Slot, name: &str, running: &RunningBatch) {
        let record =
            self.queue(slot).and_then(|q| q.cancel_timer(store, name.as_bytes(), running.done(slot)));
        self.cancelled(store, slot, record);
    }

    /// Cancels the result of a job that waits and had no turn.
    pub(crate) fn cancel_result(
        &mut self,
        store: &mut Store,
        slot: Slot,
        number: u64,
        running: &RunningBatch,
    ) {
        let is = |record: Ref| store.read(record, |b| decode(b).is_some_and(|d| d.from == number));
        let record = self.queue(slot).and_then(|q| q.cancel_result(running.done(slot), is));
        self.cancelled(store, slot, record);
    }

    /// The queue of a session that has actions.
    fn queue(&mut self, slot: Slot) -> Option<&mut ActionQueue> {
        if self.queues.is_empty() { None } else { self.queues.get_mut(&slot) }
    }

    /// Deletes the record of an action that was cancelled, and the queue if that was the last one.
    fn cancelled(&mut self, store: &mut Store, slot: Slot, record: Option<Ref>) {
        let Some(record) = record else { return };
        store.delete(record);
        if self.queues.get(&slot).is_some_and(|q| q.len() == 0) {
            self.queues.remove(&slot);
        }
    }

    /// Records of a session's timers that are due.
    pub(crate) fn due_timers(&self, slot: Slot) -> impl Iterator<Item = Ref> {
        let waiting = self.queues.get(&slot).into_iter().flat_map(ActionQueue::iter);
        waiting.filter(|w| w.kind == WaitingKind::Timer).map(|w| w.record)
    }

    /// The waiting actions of a session, except timers.
    pub(crate) fn views(&self, store: &Store, shared: &SharedRecords, slot: Slot) -> Vec<ActionView> {
        let queue = self.queues.get(&slot).into_iter().flat_map(ActionQueue::iter);
        let queue = queue.chain(self.wakes.draining.get(&slot));
        let view = |w: &Waiting| {
            store.read(w.record, |bytes| {
                let d = decode(bytes)?;
                let shared = shared.get(d.shared);
                let data = shared.map_or(d.data.to_vec(), |r| store.read(r, <[u8]>::to_vec));
                let name = String::from_utf8_lossy(d.name).into_owned();
                Some(ActionView { kind: d.kind, from: d.from, name, data })
            })
        };
        queue.filter(|w| w.kind != WaitingKind::Timer).filter_map(view).collect()
    }

    /// Puts actions that recovery found back into their order; `slot_of` finds their sessions.
    /// Actions without a session or without their data are deleted. Returns the sessions that
    /// lack one.
    pub(crate) fn recover(
        &mut self,
        store: &mut Store,
        shared: &mut SharedRecords,
        actions: &[(u64, Ref)],
        slot_of: impl Fn(u64) -> Option<Slot>,
    ) -> Vec<u64> {
        let mut order = Vec::new();
        let mut lacking = HashSet::new();
        for &(id, record) in actions {
            let read = store.read(record, |b| {
                let d = decode(b)?;
                let payload = shared.get(d.shared);
                let bytes = payload.map_or(d.data.len(), |r| store.read(r, <[u8]>::len));
                Some((d.sequence, d.shared, (waiting_kind(d.kind), d.depth), bytes as u32))
            });
            match (slot_of(id), read) {
                (Some(slot), Some((sequence, number, (kind, depth), bytes)))
                    if number == 0 || shared.get(number).is_some() =>
                {
                    order.push((sequence, number, slot, Waiting { record, depth, kind, bytes }));
                }
                (slot, _) => {
                    lacking.extend(slot.map(|_| id));
                    store.delete(record);
                }
            }
        }
        order.sort_by_key(|(sequence, ..)| *sequence);
        for (sequence, number, slot, waiting) in order {
            self.sequence = sequence;
            shared.name(number);
            self.push(slot, waiting, None);
        }
        lacking.into_iter().collect()
    }
}

/// Kind of a waiting action; 0: its record can't be read.
fn kind(store: &Store, w: &Waiting) -> u32 {
    match w.kind {
        WaitingKind::Timer => action::TIMER,
        _ => store.read(w.record, |b| decode(b).map_or(0, |d| d.kind)),
    }
}

/// Kind of an action that is no timer, as far as it can be cancelled.
fn waiting_kind(kind: u32) -> WaitingKind {
    match kind {
        action::JOB => WaitingKind::Result,
        action::WOKEN => WaitingKind::Wake,
        action::MISSED => WaitingKind::Missed,
        CLOSE_ASKED => WaitingKind::Close,
        _ => WaitingKind::Other,
    }
}
