//! Sessions that wait until other sessions' output drains.
//!
//! A session may wait for several others, and goes on when none of them is left. Nothing of this
//! is stored: after a takeover such a session goes on, and waits again with its next message.
//!
//! *Invariant*: both maps hold the same pairs, no list is empty, and none holds a slot twice. So a
//! slot that is used again waits for nobody, and nobody waits for it.

use crate::ids::Slot;
use std::collections::HashMap;

/// Waiting sessions, and the sessions whose output must drain.
#[derive(Debug, Default)]
pub(crate) struct FlowControl {
    /// Sessions that wait, by the session that they wait for.
    waiting: HashMap<Slot, Vec<Slot>>,
    /// Sessions that a session waits for.
    waits_for: HashMap<Slot, Vec<Slot>>,
}

impl FlowControl {
    /// Lets `slot` wait until the output of `other` drains. O(sessions that it waits for).
    pub(crate) fn wait(&mut self, slot: Slot, other: Slot) {
        let waits_for = self.waits_for.entry(slot).or_default();
        if !waits_for.contains(&other) {
            waits_for.push(other);
            self.waiting.entry(other).or_default().push(slot);
        }
    }

    /// Whether no session waits for another.
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Notes that the output of a session has drained, or that it is gone. Returns the sessions
    /// that wait for nothing more: the caller lets them go on. O(sessions that waited for it, and
    /// for each the sessions that it waits for).
    pub(crate) fn release(&mut self, drained: Slot) -> Vec<Slot> {
        if self.waiting.is_empty() {
            return Vec::new();
        }
        let mut released = self.waiting.remove(&drained).unwrap_or_default();
        released.retain(|slot| take(&mut self.waits_for, *slot, drained));
        released
    }

    /// Takes a session that ends off the lists of those that it waits for. O(1) if it waits for
    /// nobody, else O(sessions that wait for the same ones).
    pub(crate) fn forget(&mut self, slot: Slot) {
        for other in self.waits_for.remove(&slot).unwrap_or_default() {
            take(&mut self.waiting, other, slot);
        }
    }
}

/// Takes a slot off a list, and the list out of the map if it is empty then. Returns whether none
/// is left.
fn take(lists: &mut HashMap<Slot, Vec<Slot>>, of: Slot, slot: Slot) -> bool {
    let Some(list) = lists.get_mut(&of) else { return false };
    list.retain(|s| *s != slot);
    let is_empty = list.is_empty();
    if is_empty {
        lists.remove(&of);
    }
    is_empty
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_goes_on_when_all_that_it_waits_for_have_drained() {
        let [a, b, c] = [Slot(1), Slot(2), Slot(3)];
        let mut flow = FlowControl::default();
        flow.wait(a, b);
        flow.wait(a, c);
        flow.wait(a, c);
        flow.wait(b, c);
        assert_eq!(flow.release(b), []);
        assert_eq!(flow.release(c), [a, b]);
        assert_eq!(flow.release(c), []);
    }

    #[test]
    fn a_session_that_ends_waits_for_nobody() {
        let [a, b] = [Slot(1), Slot(2)];
        let mut flow = FlowControl::default();
        flow.wait(a, b);
        flow.forget(a);
        // The slot is another session's by now.
        assert_eq!(flow.release(b), []);
        assert!(flow.waiting.is_empty() && flow.waits_for.is_empty());
    }
}
