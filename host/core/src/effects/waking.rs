//! Waking: a wake waits for its event in the inbox, and runs behind it.

use super::action_queue::{Waiting, WaitingKind};
use super::action_record::{PendingAction, encode};
use super::inbox::Inbox;
use super::running_batch::RunningBatch;
use crate::ids::Slot;
use crate::store::kind::Kind;
use crate::store::records::Store;

impl Inbox {
    /// Has a session's wakes wait for the next pass.
    pub(crate) fn wake_later(&mut self, slot: Slot) {
        if let Some(queue) = self.queues.get_mut(&slot)
            && !std::mem::replace(&mut queue.wakes_later, true)
        {
            self.wakes.later.push(slot);
        }
    }

    /// Whether a wake of a session waits that had no turn.
    pub(crate) fn has_wake(&self, slot: Slot, running: &RunningBatch) -> bool {
        let queue = self.queues.get(&slot);
        let queued = queue.is_some_and(|q| q.has_same(WaitingKind::Wake, running.done(slot)));
        queued || self.wakes.draining.contains_key(&slot)
    }

    /// Adds a wake of session `id` that waits for drained output. That is looked at when the next
    /// pass begins: by then the output of this one was offered. Room must be reserved.
    pub(crate) fn wake_when_drained(
        &mut self,
        store: &mut Store,
        slot: Slot,
        id: u64,
        wake: &PendingAction<'_>,
    ) {
        self.sequence += 1;
        let record = store.put(None, Kind::Action, id, &encode(self.sequence, wake));
        let record = record.expect("room was reserved before");
        let waiting = Waiting { record, depth: wake.depth, kind: WaitingKind::Wake, bytes: 0 };
        self.wakes.draining.insert(slot, waiting);
        self.wakes.to_look_at.push(slot);
    }

    /// Lets a session's wake run that waits for drained output. False: none does.
    #[inline]
    pub(crate) fn drained(&mut self, slot: Slot) -> bool {
        if self.wakes.draining.is_empty() {
            return false;
        }
        let Some(wake) = self.wakes.draining.remove(&slot) else { return false };
        self.push(slot, wake, None);
        true
    }

    /// Begins a pass: wakes that waited for it, or for output that is `sent` by now, may run.
    /// Returns their sessions.
    pub(crate) fn begin_pass(&mut self, sent: impl Fn(Slot) -> bool) -> Vec<Slot> {
        let mut woken = std::mem::take(&mut self.wakes.later);
        for slot in std::mem::take(&mut self.wakes.to_look_at) {
            if sent(slot) && self.drained(slot) {
                woken.push(slot);
            }
        }
        for slot in &woken {
            if let Some(queue) = self.queues.get_mut(slot) {
                queue.wakes_later = false;
                self.set_ready(*slot);
            }
        }
        woken
    }
}
