//! Turns of sessions that somebody watches.
//!
//! A watched action runs alone, so that its turn has a state, effects and a time of its own. The
//! caller runs the actions behind it later, as it does behind any batch that ends early. What the
//! turn did is kept for its watchers, who get it with the commit.

use super::Executor;
use super::batch::{self, Ran};
use crate::effects::running_batch::RunningBatch;
use crate::host_state::HostState;
use crate::ids::Slot;
use crate::turn::tap::TurnTap;
use greenroom_state::abi::Action;

/// Whether anybody watches the turns of a session. O(watchers).
#[inline]
pub(crate) fn is_watched(host: &HostState, slot: Slot) -> bool {
    !host.watchers.is_empty()
        && host.sessions.get(slot).is_some_and(|s| host.watchers.is_watched(slot, s, None))
}

/// Runs actions of one session, as [`batch::run_batch`] does: the first one alone if somebody
/// watches it.
#[inline]
pub(crate) fn run_batch(
    host: &mut HostState,
    executor: &mut Executor,
    slot: Slot,
    actions: &[Action<'_>],
    running: &mut RunningBatch,
) -> Ran {
    match host.watchers.is_empty() {
        true => batch::run_batch(host, executor, slot, actions, running),
        false => run_watched(host, executor, slot, actions, running),
    }
}

/// Runs actions while somebody watches some session.
#[cold]
fn run_watched(
    host: &mut HostState,
    executor: &mut Executor,
    slot: Slot,
    actions: &[Action<'_>],
    running: &mut RunningBatch,
) -> Ran {
    let datagram = executor.buffers.datagrams.all.first().map(|(from, _)| *from);
    let watching = host.sessions.get(slot).map(|s| host.watchers.watching(slot, s, datagram));
    let Some(watching) = watching.filter(|w| !w.by.is_empty()) else {
        return batch::run_batch(host, executor, slot, actions, running);
    };
    executor.buffers.tap = Some(Box::new(TurnTap::new(watching.records)));
    let ran = batch::run_batch(host, executor, slot, &actions[..actions.len().min(1)], running);
    if let Some(mut tap) = executor.buffers.tap.take() {
        let bytes_max = host.limits.host().watcher_bytes_max;
        host.watchers.saw(&watching.by, tap.take(), bytes_max);
    }
    ran
}
