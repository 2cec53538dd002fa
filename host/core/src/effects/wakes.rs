//! Wakes that wait for an event: the next pass, or drained output.
//!
//! A wake is an action like others, but a session has at most one. Memory alone knows what a wake
//! waits for, so a successor wakes at once.

use super::action_queue::Waiting;
use crate::ids::Slot;
use std::collections::HashMap;

/// Wakes that wait for an event.
#[derive(Debug, Default)]
pub(super) struct Wakes {
    /// Sessions whose wakes wait for the next pass.
    pub(super) later: Vec<Slot>,
    /// Wakes that wait for drained output, beside the queues: the actions behind them run.
    pub(super) draining: HashMap<Slot, Waiting>,
    /// Sessions whose output is looked at when the next pass begins.
    pub(super) to_look_at: Vec<Slot>,
}

impl Wakes {
    /// Whether the next pass is due for wakes.
    pub(super) fn are_due(&self) -> bool {
        !self.later.is_empty() || !self.to_look_at.is_empty()
    }

    /// Whether a wake of a session waits for drained output.
    pub(super) fn waits_for_output(&self, slot: Slot) -> bool {
        !self.draining.is_empty() && self.draining.contains_key(&slot)
    }
}
