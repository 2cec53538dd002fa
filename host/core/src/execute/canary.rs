//! Turns of a canary's candidate that the build that serves runs as well.
//!
//! | turn | the other build |
//! | --- | --- |
//! | failed | runs it in the candidate's place; the peer gets that answer |
//! | one batch of so many | runs it first; its outcome is compared, and dropped |
//!
//! The build that serves gets a state of its own version, or an older one, as it is stored. The
//! candidate downgrades a state of its own, which must come back as it was (`fallback.rs`). If it
//! does not, the other build is not asked. Tables are of one shape in both.
//!
//! A comparison is of what the session's peer is sent, how many turns succeed, and whether the
//! session closes. Nothing of it is applied, like the outcome of a repeated call. It costs a second
//! call, so a pass compares at most [`COMPARED_PER_PASS`] batches. Requests for pages, datagrams of
//! a service and the ends of sessions are not compared.

use super::Executor;
use super::apply::apply;
use super::call::{Call, Callee, call};
use super::fallback::Pair;
use super::reserve::reserve;
use crate::effects::running_batch::RunningBatch;
use crate::host_state::HostState;
use crate::ids::Slot;
use crate::service::canary_counts::Compared;
use crate::service::convert::convert_value;
use crate::service::probation::Fallback;
use crate::service::registry::Writer;
use crate::turn::effect::Effect;
use crate::turn::staging::Buffers;
use greenroom_state::abi::{Action, action};

/// Batches that are compared in one pass, at most: each costs a second call.
const COMPARED_PER_PASS: u32 = 64;

/// Outcome of a batch with the build that serves.
pub(super) struct Comparison {
    outcome: Answers,
    /// Actions of the batch.
    actions: usize,
}

/// Outcome of a batch that peers notice.
#[derive(PartialEq)]
struct Answers {
    /// Bytes that the session's peer is sent.
    sent: Vec<u8>,
    /// Turns that succeeded.
    done: usize,
    /// Whether a turn closes the session.
    close: bool,
}

impl Answers {
    /// Answers that a call has staged.
    fn of(buffers: &Buffers) -> Answers {
        let sends = buffers.effects.iter().filter_map(|e| match e {
            Effect::Send(part) => Some(&buffers.bytes[part.clone()]),
            _ => None,
        });
        Answers { sent: sends.collect::<Vec<_>>().concat(), done: buffers.done, close: buffers.close }
    }
}

/// State of a candidate's session as the build that serves reads it, with its version. If none is
/// stored, `Some(None)`. `None`: the state would lose something.
fn state_for_serving(host: &HostState, slot: Slot) -> Option<Option<(u32, Vec<u8>)>> {
    let s = host.sessions.get(slot)?;
    let service = &host.services[s.service];
    let candidate = &service.canary.as_ref()?.build;
    let Some(stored) = s.state.map(|r| host.store.read(r, <[u8]>::to_vec)) else { return Some(None) };
    let (here, there) = (candidate.offer.shape.version, service.offer.shape.version);
    // Of one version, both builds have one schema. An older state is migrated by who reads it.
    if s.state_version <= there {
        return Some(Some((s.state_version, stored)));
    }
    if s.state_version != here {
        return None;
    }
    let schema = candidate.offer.shape.schema.as_ref();
    let pair = Pair { newer: (&*candidate.code, 0, here), before: (&*service.code, 0, there), schema };
    Some(Some((there, pair.downgrade(&stored).ok()?)))
}

/// Calls the build that serves with a state and its version, for a session of the candidate.
fn call_serving(host: &HostState, of: Call<'_>, state: Option<(u32, &[u8])>, buffers: &mut Buffers) {
    let Some(s) = host.sessions.get(of.slot) else { return };
    let service = &host.services[s.service];
    let convert = |table: &str, stored: u32, value: &[u8]| {
        convert_value(&host.services, &host.owners, table, stored, value)
    };
    let (code, generation) = (&*service.code, service.generation());
    call(host, &Callee { code, framing: code, generation, convert: &convert }, of, state, buffers);
}

/// Runs an action that failed with the candidate again, with the build that serves. Applies the
/// outcome if the turn succeeds and there is room. Otherwise nothing has changed but the staging
/// buffers.
pub(super) fn run_with_serving(
    host: &mut HostState,
    executor: &mut Executor,
    slot: Slot,
    action: &Action<'_>,
    running: &mut RunningBatch,
) -> Fallback {
    let knows = |host: &HostState| {
        host.sessions.get(slot).is_some_and(|s| host.services[s.service].code.knows(action.kind))
    };
    let Some(state) = knows(host).then(|| state_for_serving(host, slot)).flatten() else {
        return Fallback::Unavailable;
    };
    let of = Call { slot, actions: std::slice::from_ref(action), running };
    let buffers = &mut executor.buffers;
    call_serving(host, of, state.as_ref().map(|(version, bytes)| (*version, &bytes[..])), buffers);
    if buffers.fault.is_some() || buffers.done != 1 || reserve(host, slot, buffers).is_some() {
        return Fallback::Failed;
    }
    // Counted before applying, as for any turn: effects find only later actions.
    running.had(1);
    apply(host, slot, buffers, Writer::Serving, running);
    Fallback::Answered { close: buffers.close }
}

/// Runs a batch of the candidate's with the build that serves, if it is one to compare. Nothing is
/// applied. `None`: it is none, or that build can't be asked.
#[inline]
pub(super) fn expected(
    host: &mut HostState,
    executor: &mut Executor,
    slot: Slot,
    actions: &[Action<'_>],
    running: &RunningBatch,
) -> Option<Comparison> {
    let s = host.sessions.get(slot)?;
    host.services[s.service].canary.as_ref()?;
    run_to_compare(host, executor, slot, actions, running)
}

/// Runs a batch as [`expected`] says, while a canary of the service runs.
#[inline(never)]
fn run_to_compare(
    host: &mut HostState,
    executor: &mut Executor,
    slot: Slot,
    actions: &[Action<'_>],
    running: &RunningBatch,
) -> Option<Comparison> {
    let HostState { sessions, services, .. } = &mut *host;
    let s = sessions.get(slot)?;
    let service = &mut services[s.service];
    let canary = service.canary.as_mut().filter(|c| c.includes(s.id))?;
    let every = canary.terms.compare_every;
    let not_compared = [action::CLOSED, action::PAGE, action::DATAGRAM];
    if every == 0
        || executor.compared >= COMPARED_PER_PASS
        || executor.buffers.page.is_some()
        || actions.iter().any(|a| not_compared.contains(&a.kind) || !service.code.knows(a.kind))
    {
        return None;
    }
    canary.since_compared += 1;
    if canary.since_compared < every {
        return None;
    }
    canary.since_compared = 0;
    executor.compared += 1;
    let Some(state) = state_for_serving(host, slot) else {
        count_compared(host, slot, |compared| compared.no_way_back += 1);
        return None;
    };
    let buffers = &mut executor.buffers;
    let of = Call { slot, actions, running };
    // Nobody who watches sees a turn that is dropped.
    let tap = buffers.tap.take();
    call_serving(host, of, state.as_ref().map(|(version, bytes)| (*version, &bytes[..])), buffers);
    buffers.tap = tap;
    host.budget.spend_batch(actions.len(), buffers.effects.len(), buffers.bytes.len());
    host.budget.spend(buffers.work_ns);
    if buffers.is_overtime {
        host.budget.exhaust();
    }
    Some(Comparison { outcome: Answers::of(buffers), actions: actions.len() })
}

/// Compares the outcome of a candidate's call with that of the build that serves, unless the call
/// was one with fewer actions.
pub(super) fn compare(
    host: &mut HostState,
    slot: Slot,
    expected: &Comparison,
    (tried, buffers): (usize, &Buffers),
) {
    if tried == expected.actions {
        let differs = u64::from(Answers::of(buffers) != expected.outcome);
        count_compared(host, slot, |compared| {
            compared.batches += 1;
            compared.differing += differs;
        });
    }
}

/// Changes the counts of comparisons in the service of a session.
fn count_compared(host: &mut HostState, slot: Slot, count: impl FnOnce(&mut Compared)) {
    let HostState { sessions, services, .. } = host;
    let service = sessions.get(slot).map(|s| s.service);
    if let Some(canary) = service.and_then(|service| services[service].canary.as_mut()) {
        canary.changed = true;
        count(&mut canary.counts.compared);
    }
}
