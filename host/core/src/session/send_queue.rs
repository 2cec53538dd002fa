//! Sessions with output to send: at once, or when their turn comes.
//!
//! A session whose peer spoke in this pass is answered in it. A turn can give a thousand other
//! sessions something to send, each of them a system call. Of those, as many are sent to in a
//! pass as it ran turns, or `sends_at_once_max` if that is more. The rest is committed and sent
//! in the next passes, which come at once, behind the input that has arrived by then. A session
//! with much to send does not wait, so that only a peer that takes no output comes near a
//! limit.
//!
//! The queue is in no record: a successor lists each session with output again.

use super::blocked::Blocked;
use super::life::Session;
use super::table::Sessions;
use crate::ids::Slot;
use std::collections::VecDeque;

/// Sessions with output that the kernel may take.
#[derive(Debug, Default)]
pub(crate) struct SendQueue {
    /// Sessions that do not wait. A session may be listed twice: the second look is in vain.
    now: Vec<Slot>,
    /// Sessions that wait, oldest first, each once. Some may have been sent to since, or be
    /// gone.
    others: VecDeque<Slot>,
    /// Turns run since the last sending.
    turns: usize,
    /// Sessions whose output grew over its limit, and that are about to be closed.
    overflowed: Vec<Slot>,
}

impl SendQueue {
    /// Returns whether nothing waits to be sent. If not, a pass is due at once.
    pub(crate) fn is_empty(&self) -> bool {
        self.now.is_empty() && self.others.is_empty()
    }

    /// Lists a session with output that the kernel may take. `at_once_bytes`: a session with
    /// more to send does not wait. O(1).
    #[inline]
    pub(crate) fn offer(&mut self, slot: Slot, s: &mut Session, now_ns: u64, at_once_bytes: u64) {
        if s.heard_ns == now_ns || s.unsent() > at_once_bytes {
            self.now.push(slot);
        } else if !std::mem::replace(&mut s.waits_to_send, true) {
            self.others.push_back(slot);
        }
    }

    /// Counts turns: as many of the others are sent to with the next sending.
    pub(crate) fn count_turns(&mut self, turns: usize) {
        self.turns += turns;
    }

    /// Appends the sessions to send to now to `into`. False: more wait for the next pass.
    /// O(sessions appended, and those listed that have nothing to send).
    pub(crate) fn take(&mut self, sessions: &mut Sessions, at_least: usize, into: &mut Vec<Slot>) -> bool {
        into.append(&mut self.now);
        let mut left = at_least.max(std::mem::take(&mut self.turns));
        while let Some(slot) = self.others.pop_front() {
            let Some(s) = sessions.get_mut(slot) else { continue };
            // The session was sent to since, or another session is in this slot by now.
            if !s.waits_to_send || s.kernel_full || s.output.is_empty() {
                s.waits_to_send = false;
                continue;
            }
            // Looked at before it is put back, so that false means that somebody really waits.
            if left == 0 {
                self.others.push_front(slot);
                return false;
            }
            s.waits_to_send = false;
            into.push(slot);
            left -= 1;
        }
        true
    }

    /// Lists a session whose output is over its limit, once.
    pub(crate) fn overflow(&mut self, slot: Slot, s: &mut Session) {
        if !s.block(Blocked::OutputOverflows, true) {
            self.overflowed.push(slot);
        }
    }

    /// Returns whether a session is listed whose output is over its limit.
    #[inline]
    pub(crate) fn overflows(&self) -> bool {
        !self.overflowed.is_empty()
    }

    /// Takes off a session whose output is over its limit; `None`: there is none left.
    pub(crate) fn pop_overflowed(&mut self) -> Option<Slot> {
        self.overflowed.pop()
    }
}
