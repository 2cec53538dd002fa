//! Queue of the actions that wait for one session, oldest first.
//!
//! An action that is cancelled leaves a gap, so that the others keep their places: a service may
//! have a million timers due, and each turn of them may set its own anew. Gaps go once they reach
//! an end. Due timers of a service are found by name; the few of a session are searched.
//!
//! Costs: O(1) to add and to take off; O(log) to cancel a service's timer, and O(actions that wait)
//! to cancel another action, if there is one of its kind.

use super::timers::timer_name;
use crate::store::layout::Ref;
use crate::store::records::Store;
use std::collections::{HashMap, VecDeque};

/// An action that waits.
#[derive(Debug, Clone, Copy)]
pub(super) struct Waiting {
    pub(super) record: Ref,
    /// Turns between it and something that came from outside.
    pub(super) depth: u16,
    pub(super) kind: WaitingKind,
    /// Bytes that it carries.
    pub(super) bytes: u32,
}

/// Kind of an action that waits, as far as it can be cancelled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum WaitingKind {
    /// Due timer: its record is a timer's.
    Timer,
    /// Result of a job.
    Result,
    /// Wake. At most one waits that had no turn.
    Wake,
    /// End of the session. At most one waits.
    Close,
    /// Count of dropped actions. At most one waits that had no turn.
    Missed,
    /// Any other action.
    Other,
}

/// The actions of one session.
#[derive(Debug, Default)]
pub(super) struct ActionQueue {
    /// Actions, and the gaps of those that were cancelled. The first and the last are no gaps, but
    /// for those behind a batch under way.
    waiting: VecDeque<Option<Waiting>>,
    /// Places taken off at the front so far: the number of the first place.
    first: u64,
    /// Gaps in `waiting`.
    gaps: usize,
    /// Actions of each kind, by [`WaitingKind`].
    kinds: [usize; 6],
    /// Places of a service's due timers by name.
    due: HashMap<Box<[u8]>, u64>,
    /// Place of the newest wake.
    wake: Option<u64>,
    /// Place of the newest count of dropped actions.
    missed: Option<u64>,
    /// Whether wakes wait for the next pass.
    pub(super) wakes_later: bool,
    /// Whether the session is listed as ready.
    pub(super) ready: bool,
    /// Bytes that its actions carry, shared or not.
    pub(super) bytes: usize,
    /// Actions dropped since one found room. The count ends with the queue.
    pub(super) dropped: u64,
}

impl ActionQueue {
    /// Number of actions.
    pub(super) fn len(&self) -> usize {
        self.waiting.len() - self.gaps
    }

    /// Number and bytes of the actions that nothing cancels: each of them has its turn, or goes
    /// with the session. The bytes may count those of results, too.
    pub(super) fn certain(&self) -> (usize, usize) {
        let count = self.kinds[WaitingKind::Other as usize];
        (count, if count == 0 { 0 } else { self.bytes })
    }

    /// The actions, oldest first.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Waiting> {
        self.waiting.iter().flatten()
    }

    /// Adds an action. `name`: that of a service's due timer, by which it can be cancelled.
    pub(super) fn push(&mut self, waiting: Waiting, name: Option<&[u8]>) {
        if let Some(name) = name {
            self.due.insert(name.into(), self.first + self.waiting.len() as u64);
        }
        if waiting.kind == WaitingKind::Wake {
            self.wake = Some(self.first + self.waiting.len() as u64);
        }
        if waiting.kind == WaitingKind::Missed {
            self.missed = Some(self.first + self.waiting.len() as u64);
        }
        self.bytes += waiting.bytes as usize;
        self.kinds[waiting.kind as usize] += 1;
        self.waiting.push_back(Some(waiting));
    }

    /// Whether a wake or an end waits that had no turn, and so another one says nothing more. The
    /// first `done` actions had theirs.
    pub(super) fn has_same(&self, kind: WaitingKind, done: usize) -> bool {
        match kind {
            WaitingKind::Wake => self.wake.is_some_and(|place| place >= self.first + done as u64),
            WaitingKind::Close => self.kinds[WaitingKind::Close as usize] > 0,
            _ => false,
        }
    }

    /// Actions that limits count: all but counts of dropped ones.
    pub(super) fn counted(&self) -> usize {
        self.len() - self.kinds[WaitingKind::Missed as usize]
    }

    /// Record of the count of dropped actions that had no turn, to be replaced. The first `done`
    /// actions had theirs.
    pub(super) fn missed(&mut self, done: usize) -> Option<&mut Ref> {
        let index = self.missed?.checked_sub(self.first)? as usize;
        let waiting = self.waiting.get_mut(index).filter(|_| index >= done)?.as_mut()?;
        Some(&mut waiting.record)
    }

    /// Actions that may run in this pass, oldest first.
    pub(super) fn due(&self) -> impl Iterator<Item = &Waiting> {
        self.iter().take_while(|w| !(self.wakes_later && w.kind == WaitingKind::Wake))
    }

    /// Takes off the oldest action. The caller owns its record. `name`: of a service's due timer.
    pub(super) fn pop(&mut self, store: &Store) -> Option<Waiting> {
        self.drop_gaps();
        let oldest = self.waiting.pop_front()??;
        if oldest.kind == WaitingKind::Timer && !self.due.is_empty() {
            let place = self.first;
            let is_its = |name: &[u8]| self.due.get(name) == Some(&place);
            if store.read(oldest.record, |b| is_its(timer_name(b))) {
                store.read(oldest.record, |b| self.due.remove(timer_name(b)));
            }
        }
        self.first += 1;
        self.uncount(&oldest);
        self.drop_gaps();
        Some(oldest)
    }

    /// Drops the gaps at both ends.
    fn drop_gaps(&mut self) {
        while let Some(None) = self.waiting.front() {
            self.waiting.pop_front();
            (self.first, self.gaps) = (self.first + 1, self.gaps - 1);
        }
        while let Some(None) = self.waiting.back() {
            self.waiting.pop_back();
            self.gaps -= 1;
        }
    }

    /// Takes an action off the counts.
    fn uncount(&mut self, gone: &Waiting) {
        self.bytes -= gone.bytes as usize;
        self.kinds[gone.kind as usize] -= 1;
    }

    /// Cancels the due timer of this name that had no turn: the first `done` actions had theirs.
    /// The caller owns its record.
    pub(super) fn cancel_timer(&mut self, store: &Store, name: &[u8], done: usize) -> Option<Ref> {
        if self.kinds[WaitingKind::Timer as usize] == 0 {
            return None;
        }
        if !self.due.is_empty() {
            let index = self.due.get(name)?.checked_sub(self.first)? as usize;
            // Those that had their turns are the first ones, without gaps among them.
            if index < done {
                return None;
            }
            self.due.remove(name);
            return self.cancel(index);
        }
        let is =
            |w: &Waiting| w.kind == WaitingKind::Timer && store.read(w.record, |b| timer_name(b) == name);
        self.cancel_first(done, is)
    }

    /// Cancels the result of a job that had no turn, likewise. `is`: whether a record is of it.
    pub(super) fn cancel_result(&mut self, done: usize, is: impl Fn(Ref) -> bool) -> Option<Ref> {
        if self.kinds[WaitingKind::Result as usize] == 0 {
            return None;
        }
        self.cancel_first(done, |w| w.kind == WaitingKind::Result && is(w.record))
    }

    /// Cancels the first action behind `done` for which `is` is true.
    fn cancel_first(&mut self, done: usize, is: impl Fn(&Waiting) -> bool) -> Option<Ref> {
        let live = self.waiting.iter().enumerate().filter_map(|(at, w)| Some((at, w.as_ref()?)));
        let (at, _) = live.skip(done).find(|(_, w)| is(w))?;
        self.cancel(at)
    }

    /// Leaves a gap at a place.
    fn cancel(&mut self, at: usize) -> Option<Ref> {
        let gone = self.waiting.get_mut(at)?.take()?;
        self.gaps += 1;
        self.uncount(&gone);
        self.drop_gaps();
        Some(gone.record)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::kind::Kind;

    /// A queue under random steps agrees with a list, whether timers are found by name or searched.
    #[test]
    fn a_queue_with_gaps_is_the_list_without_them() {
        for (seed, is_named) in [(1, false), (2, true), (3, false), (4, true)] {
            let mut rng = fastrand::Rng::with_seed(seed);
            let mut store = Store::new(1 << 24);
            let (mut queue, mut list): (ActionQueue, Vec<(String, Ref)>) = Default::default();
            for step in 0..3000 {
                let name = format!("{}", rng.u8(..40));
                match rng.u8(..10) {
                    0..4 if list.iter().all(|(n, _)| *n != name) => {
                        let record = [&[0; 8][..], name.as_bytes()].concat();
                        let record = store.put(None, Kind::Timer, 1, &record).expect("room");
                        let waiting = Waiting { record, depth: 0, kind: WaitingKind::Timer, bytes: 3 };
                        queue.push(waiting, is_named.then_some(name.as_bytes()));
                        list.push((name, record));
                    }
                    4..8 => {
                        // The first one has its turn just now.
                        let done = usize::from(rng.bool() && !list.is_empty());
                        let at = list.iter().skip(done).position(|(n, _)| *n == name).map(|at| at + done);
                        let gone = at.map(|at| list.remove(at).1);
                        assert_eq!(queue.cancel_timer(&store, name.as_bytes(), done), gone, "step {step}");
                    }
                    8.. => {
                        let oldest = (!list.is_empty()).then(|| list.remove(0).1);
                        assert_eq!(queue.pop(&store).map(|w| w.record), oldest, "step {step}");
                    }
                    _ => {}
                }
                assert!(queue.iter().map(|w| w.record).eq(list.iter().map(|(_, r)| *r)), "step {step}");
                assert_eq!((queue.len(), queue.bytes), (list.len(), 3 * list.len()));
            }
        }
    }
}
