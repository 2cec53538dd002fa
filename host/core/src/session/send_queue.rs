//! Sessions with output to send: at once, or when their turn comes.
//!
//! A session whose peer spoke in this pass is answered in it. A turn can give a thousand other
//! sessions something to send, each of them a system call. Of those, as many are sent to in a
//! pass as it ran turns, or `sends_at_once_max` if that is more. The rest is committed and sent
//! in the next passes, which come at once, behind the input that has arrived by then. Sessions
//! with much to send come before those, so that only a peer that takes no output comes near a
//! limit. They have a share of bytes in each pass: the kernel copies what it takes.
//!
//! The queue is in no record: a successor lists each session with output again.

use super::blocked::Blocked;
use super::life::{SendList, Session};
use super::table::Sessions;
use crate::ids::Slot;
use std::collections::VecDeque;

/// Sessions with output that the kernel may take.
#[derive(Debug, Default)]
pub(crate) struct SendQueue {
    /// Sessions that do not wait. A session may be listed twice: the second look is in vain.
    now: Vec<Slot>,
    /// Sessions with much to send, oldest first, each once. Some may be gone.
    large: VecDeque<Slot>,
    /// Sessions that wait, oldest first. Some may have been sent to since, have much to send by
    /// now, or be gone.
    others: VecDeque<Slot>,
    /// Turns run since the last sending.
    turns: usize,
    /// Sessions whose output grew over its limit, and that are about to be closed.
    overflowed: Vec<Slot>,
}

impl SendQueue {
    /// Returns whether nothing waits to be sent. If not, a pass is due at once.
    pub(crate) fn is_empty(&self) -> bool {
        self.now.is_empty() && self.large.is_empty() && self.others.is_empty()
    }

    /// Lists a session with output that the kernel may take. `at_once_bytes`: a session with
    /// more to send comes before the others. O(1).
    #[inline]
    pub(crate) fn offer(&mut self, slot: Slot, s: &mut Session, now_ns: u64, at_once_bytes: u64) {
        if s.heard_ns == now_ns {
            self.now.push(slot);
        } else if s.unsent() > at_once_bytes {
            if std::mem::replace(&mut s.send_list, SendList::Large) != SendList::Large {
                self.large.push_back(slot);
            }
        } else if s.send_list == SendList::None {
            s.send_list = SendList::Others;
            self.others.push_back(slot);
        }
    }

    /// Counts turns: as many of the others are sent to with the next sending.
    pub(crate) fn count_turns(&mut self, turns: usize) {
        self.turns += turns;
    }

    /// Appends the sessions to send to now to `into`: with much to send, until they have so many
    /// bytes, and `at_least` others. False: more wait for the next pass. O(sessions appended, and
    /// those listed that have nothing to send).
    pub(crate) fn take(
        &mut self,
        sessions: &mut Sessions,
        (bytes, at_least): (u64, usize),
        into: &mut Vec<Slot>,
    ) -> bool {
        into.append(&mut self.now);
        let all_large = take_from(&mut self.large, SendList::Large, sessions, bytes, Session::unsent, into);
        let others = at_least.max(std::mem::take(&mut self.turns)) as u64;
        take_from(&mut self.others, SendList::Others, sessions, others, |_| 1, into) && all_large
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

/// Appends the sessions of a list to `into`, until they have cost so much. False: more wait.
fn take_from(
    list: &mut VecDeque<Slot>,
    name: SendList,
    sessions: &mut Sessions,
    mut left: u64,
    cost: impl Fn(&Session) -> u64,
    into: &mut Vec<Slot>,
) -> bool {
    while let Some(slot) = list.pop_front() {
        // Another session may be in this slot by now.
        let Some(s) = sessions.get_mut(slot).filter(|s| s.send_list == name) else { continue };
        // The session was sent to since.
        if s.kernel_full || s.output.is_empty() {
            s.send_list = SendList::None;
            continue;
        }
        // Looked at before it is put back, so that false means that somebody really waits.
        if left == 0 {
            list.push_front(slot);
            return false;
        }
        s.send_list = SendList::None;
        into.push(slot);
        left = left.saturating_sub(cost(s));
    }
    true
}
