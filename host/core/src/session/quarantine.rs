//! Sessions whose input is kept and not run, and actions that must not run again.
//!
//! A session is quarantined if its state can't be read, or if its next action killed the process
//! twice. It stays open and is listed with the reason. Its input is kept, up to a limit, until the
//! next build of its library takes it on. A record remembers an action that kills, so that a
//! successor does not try it again; a state that can't be read is tried by the code that serves
//! next.

use crate::ids::Slot;
use greenroom_state::abi::action;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// An action that must not run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlockedAction {
    /// Session of the action.
    pub session: u64,
    /// Turn of the session, counted as [`super::life::Session::turns`]: the turns before it.
    pub turn: u64,
    /// Kind of the action, one of [`action`].
    pub action: u32,
    /// Reason, in words.
    pub reason: String,
}

/// The number of actions of a batch that may run.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Runnable {
    /// All of them.
    All,
    /// The first one alone: if it kills as well, its turn must be known.
    First,
    /// None: the first one is this blocked action.
    None(BlockedAction),
}

/// The quarantined sessions, and the blocked actions by session.
#[derive(Debug, Default)]
pub(crate) struct Quarantines {
    slots: BTreeSet<Slot>,
    actions: BTreeMap<u64, Vec<BlockedAction>>,
}

impl Quarantines {
    /// Blocks an action: when its turn comes, its session is quarantined instead.
    pub(crate) fn block(&mut self, action: BlockedAction) {
        self.actions.entry(action.session).or_default().push(action);
    }

    /// Whether any action is blocked.
    #[inline]
    pub(crate) fn blocks_actions(&self) -> bool {
        !self.actions.is_empty()
    }

    /// Says which actions of a session may run, the next of which has this turn and kind. A blocked
    /// action that is found is taken off. `is_service`: a service's own turns have names for
    /// numbers, so none is behind.
    pub(crate) fn runnable(&mut self, session: u64, turn: u64, kind: u32, is_service: bool) -> Runnable {
        let Some(all) = self.actions.get_mut(&session) else { return Runnable::All };
        all.retain(|w| w.turn >= turn || is_service);
        match all.iter().position(|w| w.turn == turn && w.action == kind) {
            Some(at) => Runnable::None(all.remove(at)),
            None if all.is_empty() => Runnable::All,
            None => Runnable::First,
        }
    }

    /// Whether an action is blocked.
    pub(crate) fn is_blocked(&self, session: u64, turn: u64, kind: u32) -> bool {
        let all = self.actions.get(&session);
        all.is_some_and(|all| all.iter().any(|w| w.turn == turn && w.action == kind))
    }

    /// Lets a session's actions run again, but for its last turn.
    pub(crate) fn unblock(&mut self, session: u64) {
        if let Some(all) = self.actions.get_mut(&session) {
            all.retain(|w| w.action == action::CLOSED);
        }
    }

    /// Drops all that is blocked of a session that is gone.
    pub(crate) fn forget(&mut self, session: u64) {
        self.actions.remove(&session);
    }

    /// Takes the list away, so that nothing ends a quarantine.
    pub(crate) fn set_aside(&mut self) -> BTreeSet<Slot> {
        std::mem::take(&mut self.slots)
    }

    /// Puts the list back that was set aside.
    pub(crate) fn put_back(&mut self, slots: BTreeSet<Slot>) {
        self.slots = slots;
    }

    /// Lists a session.
    pub(crate) fn insert(&mut self, slot: Slot) {
        self.slots.insert(slot);
    }

    /// Takes a session off the list.
    pub(crate) fn remove(&mut self, slot: Slot) {
        self.slots.remove(&slot);
    }

    /// Whether a session is listed.
    pub(crate) fn contains(&self, slot: Slot) -> bool {
        self.slots.contains(&slot)
    }

    /// The listed sessions.
    pub(crate) fn slots(&self) -> impl Iterator<Item = Slot> {
        self.slots.iter().copied()
    }
}
