//! Dropped actions are counted: the session is told how many, behind those that wait.
//!
//! The count is an action of its own, whose number says how many. Each drop writes it anew, in room
//! that the dropped action's turn has reserved. So the count is as durable as the turn.

use super::action_queue::{Waiting, WaitingKind};
use super::action_record::{Data, PendingAction, decode, encode};
use super::inbox::Inbox;
use crate::ids::Slot;
use crate::store::kind::Kind;
use crate::store::records::Store;
use greenroom_state::abi::action;

impl Inbox {
    /// Bytes of the record of a count.
    pub(crate) const MISSED_BYTES: usize = super::action_record::ACTION_HEAD;

    /// Counts an action of session `id` that is dropped. The first `done` actions had their turns.
    /// Room must be reserved.
    pub(super) fn miss(&mut self, store: &mut Store, (slot, id): (Slot, u64), done: usize) {
        let (kind, data) = (action::MISSED, Data::Own(&[]));
        let missed = PendingAction { kind, detail: 0, from: 1, depth: 0, name: b"", data };
        if let Some(record) = self.queues.get_mut(&slot).and_then(|q| q.missed(done)) {
            let before = store.read(*record, |b| decode(b).map_or((0, 0), |d| (d.sequence, d.from)));
            let more = PendingAction { from: before.1 + 1, ..missed };
            let put = store.put(Some(*record), Kind::Action, id, &encode(before.0, &more));
            *record = put.expect("room was reserved before");
            return;
        }
        self.sequence += 1;
        let record = store.put(None, Kind::Action, id, &encode(self.sequence, &missed));
        let record = record.expect("room was reserved before");
        self.push(slot, Waiting { record, depth: 0, kind: WaitingKind::Missed, bytes: 0 }, None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::effects::inbox::Put;
    use crate::effects::running_batch::RunningBatch;
    use crate::limits::host::Limits;
    use crate::store::shared::SharedRecords;

    /// Drops are one count in their place, which outlives the process, until its turn has run.
    #[test]
    fn drops_are_counted_in_their_place_and_over_a_takeover() {
        let (mut inbox, mut store, mut shared) =
            (Inbox::default(), Store::new(1 << 24), SharedRecords::default());
        let (slot, limits) = (Slot(0), Limits { actions_pending_max: 2, ..Limits::default() });
        let running = RunningBatch::default();
        let note = PendingAction {
            kind: action::NOTE,
            detail: 0,
            from: 7,
            depth: 0,
            name: b"",
            data: Data::Own(b"x"),
        };
        let put = |inbox: &mut Inbox, store: &mut Store, shared: &mut SharedRecords| {
            inbox.put(store, shared, (slot, 1), &note, &limits, &running) != Put::Waits
        };
        let seen = |inbox: &Inbox, store: &Store, shared: &SharedRecords| {
            let views = inbox.views(store, shared, slot);
            views.iter().map(|v| (v.kind, v.from)).collect::<Vec<_>>()
        };
        (0..5).for_each(|_| _ = put(&mut inbox, &mut store, &mut shared));
        let (n, missed) = (action::NOTE, action::MISSED);
        assert_eq!(seen(&inbox, &store, &shared), [(n, 7), (n, 7), (missed, 3)]);

        let records: Vec<_> = inbox.queues[&slot].iter().map(|w| (1, w.record)).collect();
        let mut inbox = Inbox::default();
        assert!(inbox.recover(&mut store, &mut shared, &records, |_| Some(slot)).is_empty());
        assert!(put(&mut inbox, &mut store, &mut shared));
        assert_eq!(seen(&inbox, &store, &shared), [(n, 7), (n, 7), (missed, 4)]);

        // The count takes no place of a note.
        inbox.drop_oldest(&mut store, &mut shared, slot, 1);
        put(&mut inbox, &mut store, &mut shared);
        assert_eq!(seen(&inbox, &store, &shared), [(n, 7), (missed, 4), (n, 7)]);
        // The next count is another one once this one has had its turn.
        inbox.drop_oldest(&mut store, &mut shared, slot, 2);
        (0..2).for_each(|_| _ = put(&mut inbox, &mut store, &mut shared));
        assert_eq!(seen(&inbox, &store, &shared), [(n, 7), (n, 7), (missed, 1)]);
    }
}
