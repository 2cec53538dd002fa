//! Sessions whose input is kept and not run, and actions that must not run again.
//!
//! A session is quarantined if its state cannot be read, or if its next action killed the
//! process twice. It stays open and is listed with the reason. Its input is kept, up to a
//! limit, until the next build of its library takes it on, or an operator releases it.
//!
//! A service's own turns are never quarantined: all of them would wait with one. Its blocked action
//! is left out. A timer comes again later, for the next build.
//!
//! | reason | record | after a takeover |
//! | --- | --- | --- |
//! | action that kills | yes | quarantined still, without running the action |
//! | state that cannot be read | no | tried by the code that serves then |
//!
//! Blocked actions are in no record: the keeper tells each worker that it starts which they
//! are.

use crate::ids::Slot;
use greenroom_state::abi::action;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// Action that must not run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlockedAction {
    /// Session of the action, or the number of a service for its own turns.
    pub session: u64,
    /// Turn of the session, counted as [`super::life::Session::turns`]: the turns before it.
    pub turn: u64,
    /// Kind of the action, one of [`action`].
    pub action: u32,
    /// Reason, in words.
    pub reason: String,
}

/// Number of actions of a batch that may run.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Runnable {
    /// All of them.
    All,
    /// The first alone: if it kills as well, its turn must be known.
    First,
    /// None: the first is this blocked action.
    None(BlockedAction),
    /// None: the first is an action of a service that was left out before.
    LeftOut,
}

/// Quarantined sessions, and the blocked actions by session.
#[derive(Debug, Default)]
pub(crate) struct Quarantines {
    /// Sessions in quarantine, each also marked by [`super::blocked::Blocked::Quarantined`].
    slots: BTreeSet<Slot>,
    /// No order among the actions of a session. Seldom any, so a batch asks for emptiness
    /// first.
    actions: BTreeMap<u64, Vec<BlockedAction>>,
    /// Blocked actions of services that were told: service, name of the turn, kind. They are left
    /// out as long as this build serves, whose generation is in the name.
    left_out: BTreeSet<(u64, u64, u32)>,
}

impl Quarantines {
    /// Blocks an action: when its turn comes, its session is quarantined instead. To be called
    /// before the first pass.
    pub(crate) fn block(&mut self, action: BlockedAction) {
        self.actions.entry(action.session).or_default().push(action);
    }

    /// Returns whether any action is blocked. O(1), so it is asked for each batch.
    #[inline]
    pub(crate) fn blocks_actions(&self) -> bool {
        !self.actions.is_empty() || !self.left_out.is_empty()
    }

    /// Says which actions of a session may run. `turn` and `kind` are those of the next action.
    /// A blocked action that is found is taken off: the caller quarantines the session for it.
    /// Blocked actions of earlier turns are dropped.
    ///
    /// `is_service`: a service's own turns have names for numbers, so none of them is earlier.
    pub(crate) fn runnable(&mut self, session: u64, turn: u64, kind: u32, is_service: bool) -> Runnable {
        if is_service && self.left_out.contains(&(session, turn, kind)) {
            return Runnable::LeftOut;
        }
        let Some(all) = self.actions.get_mut(&session) else { return Runnable::All };
        all.retain(|w| w.turn >= turn || is_service);
        match all.iter().position(|w| w.turn == turn && w.action == kind) {
            Some(at) => {
                if is_service {
                    self.left_out.insert((session, turn, kind));
                }
                Runnable::None(all.remove(at))
            }
            None if all.is_empty() => Runnable::All,
            None => Runnable::First,
        }
    }

    /// Returns whether an action is blocked. Changes nothing.
    pub(crate) fn is_blocked(&self, session: u64, turn: u64, kind: u32) -> bool {
        let all = self.actions.get(&session);
        all.is_some_and(|all| all.iter().any(|w| w.turn == turn && w.action == kind))
    }

    /// Lets a session's actions run again, but for its last turn: a last turn that kills stays
    /// blocked, and the session ends without it.
    pub(crate) fn unblock(&mut self, session: u64) {
        if let Some(all) = self.actions.get_mut(&session) {
            all.retain(|w| w.action == action::CLOSED);
        }
    }

    /// Drops all that is blocked of a session that is gone.
    pub(crate) fn forget(&mut self, session: u64) {
        self.actions.remove(&session);
    }

    /// Takes the list away, so that a build that is adopted ends no quarantine. The sessions
    /// stay marked.
    pub(crate) fn set_aside(&mut self) -> BTreeSet<Slot> {
        std::mem::take(&mut self.slots)
    }

    /// Puts the list back that was set aside.
    pub(crate) fn put_back(&mut self, slots: BTreeSet<Slot>) {
        self.slots = slots;
    }

    /// Lists a session. The caller has marked it.
    pub(crate) fn insert(&mut self, slot: Slot) {
        self.slots.insert(slot);
    }

    /// Takes a session off the list. The caller clears the mark, and deletes the record.
    pub(crate) fn remove(&mut self, slot: Slot) {
        self.slots.remove(&slot);
    }

    /// Returns whether a session is listed.
    pub(crate) fn contains(&self, slot: Slot) -> bool {
        self.slots.contains(&slot)
    }

    /// Listed sessions, by slot.
    pub(crate) fn slots(&self) -> impl Iterator<Item = Slot> {
        self.slots.iter().copied()
    }
}
