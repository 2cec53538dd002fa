//! A batch of turns, run again without the turn that failed.
//!
//! The result is that of running the actions one by one. A call of the handler only stages its
//! outcome. Two conditions let it be applied: the state that was handed over is that of the
//! successful turns, and there is room for all records.
//!
//! | outcome of a call | consequence |
//! | --- | --- |
//! | turns succeeded, and perhaps the next one failed | applied, then the fault is dealt with |
//! | the failed turn spoilt the state | called again with the turns before it alone |
//! | several turns, and no room or no state | called again with the first action alone |
//! | one turn, and no room or no state | that turn fails |
//!
//! Each call of a batch has fewer actions than the previous one, so a batch costs at most
//! `BATCH_ACTIONS_MAX` calls, and mostly one. [`Executor`] counts the calls that were repeated.
//! Past its limit, callers let actions wait for the next pass.
//!
//! A turn that failed is run by the previous build, if one stands by. If neither build can read
//! the state, the session is quarantined, and the action stays. Any other failed action is
//! consumed, and its peer may be told (`fault_reply.rs`).

use super::Executor;
use super::apply::apply;
use super::call::{Call, attempt};
use super::canary::{compare, expected, run_with_serving};
use super::fallback::run_with_previous_build;
use super::fault_reply::send_fault_reply;
use super::reserve::reserve;
use crate::command::Command;
use crate::effects::running_batch::RunningBatch;
use crate::host_state::HostState;
use crate::host_state::notice::notice;
use crate::ids::{ServiceId, Slot, public_number};
use crate::service::probation::Fallback;
use crate::session::life::Quarantine;
use crate::session::quarantine::{BlockedAction, Runnable};
use crate::store::kind::Kind;
use crate::turn::fault::{Fault, FaultReply, LogLine};
use crate::turn::staging::Buffers;
use crate::turn::turn_record::TurnOutcome;
use greenroom_state::abi::{self, Action, action, fault, level};

/// The end of a batch.
#[derive(Debug, Default)]
pub(crate) struct Ran {
    /// Actions that need not be run again: they succeeded, or failed for good.
    pub(crate) consumed: usize,
    /// Whether a turn closed the session.
    pub(crate) close: bool,
    /// Whether the first action is one of a service, and was left out for what it did.
    pub(crate) left_out: bool,
}

/// Outcome of the last call, which can be applied. Effects and state are in the executor's
/// buffers.
struct Attempt {
    /// Actions of the last call.
    tried: usize,
    /// Fault of the turn that the last call left out.
    fault: Option<Fault>,
    /// Consequence of it for the peer.
    fault_reply: Option<FaultReply>,
    /// Log lines of that turn.
    failed_log: Vec<LogLine>,
}

/// Runs actions of one session, and applies what the successful turns staged.
///
/// The caller passes at least one action. Actions from an inbox are of one kind, and `running`
/// knows them. The caller runs the actions behind [`Ran::consumed`] later, and closes the
/// session if a turn asked for it. Nothing of a failed or repeated call was applied, so peers
/// can't observe it.
pub(crate) fn run_batch(
    host: &mut HostState,
    executor: &mut Executor,
    slot: Slot,
    actions: &[Action<'_>],
    running: &mut RunningBatch,
) -> Ran {
    let mut n = if host.runs_one_by_one() { 1 } else { actions.len() };
    if host.quarantines.blocks_actions() {
        n = runnable(host, slot, &actions[..n]);
        if n == 0 {
            // A session that is closing can't wait for better code: it ends without its last
            // turn. And all other turns of a service would wait with one of its own.
            let left_out = slot.is_service();
            let consumed = usize::from(left_out || actions[0].kind == action::CLOSED);
            return Ran { consumed, close: false, left_out };
        }
    }
    let expected = expected(host, executor, slot, &actions[..n], running);
    let attempt = attempt_until_usable(host, executor, slot, &actions[..n], running);
    if let Some(expected) = expected {
        compare(host, slot, &expected, (attempt.tried, &executor.buffers));
    }
    settle(host, executor, slot, actions, attempt, running)
}

/// Counts the actions that may run. 0: the session was quarantined, or its last turn or a turn of
/// the service itself is left out. O(blocked actions of the session).
#[inline(never)]
fn runnable(host: &mut HostState, slot: Slot, actions: &[Action<'_>]) -> usize {
    let Some(s) = host.sessions.get(slot) else { return 0 };
    match host.quarantines.runnable(s.id, s.turns, actions[0].kind, slot.is_service()) {
        Runnable::All => actions.len(),
        Runnable::First => 1,
        Runnable::None(blocked) if actions[0].kind == action::CLOSED => {
            notice(host, level::ERROR, slot, format!("its last turn was left out: {}", blocked.reason));
            0
        }
        Runnable::LeftOut => 0,
        Runnable::None(blocked) if slot.is_service() => {
            notice(host, level::ERROR, slot, format!("left out: {}", blocked.reason));
            0
        }
        Runnable::None(blocked) => {
            quarantine_for_good(host, slot, blocked);
            0
        }
    }
}

/// Quarantines a session until another build takes it on, whatever process serves. The record
/// that the old quarantine may have is replaced.
fn quarantine_for_good(host: &mut HostState, slot: Slot, blocked: BlockedAction) {
    let Some(s) = host.sessions.get_mut(slot) else { return };
    let mut bytes = blocked.turn.to_le_bytes().to_vec();
    bytes.extend_from_slice(blocked.reason.as_bytes());
    let old = s.take_quarantine().and_then(|q| q.record);
    // No room was reserved: the store's reserve serves records like this one. If even that is
    // full, the quarantine ends with this worker.
    let record = host.store.put(old, Kind::Quarantine, s.id, &bytes).ok();
    s.set_quarantine(Quarantine { reason: blocked.reason.clone(), record });
    host.quarantines.insert(slot);
    host.sessions.touch(slot);
    notice(host, level::ERROR, slot, format!("quarantined: {}", blocked.reason));
}

/// Returns whether the code of a session's service may cut its next message. If that message has
/// killed the process, the session is quarantined instead.
pub(crate) fn may_cut(host: &mut HostState, slot: Slot) -> bool {
    let Some(s) = host.sessions.get(slot) else { return false };
    match host.quarantines.runnable(s.id, s.turns, action::MESSAGE, false) {
        Runnable::None(blocked) => {
            quarantine_for_good(host, slot, blocked);
            false
        }
        Runnable::All | Runnable::First | Runnable::LeftOut => true,
    }
}

/// Quarantines a session that no build serves, and whose next message needs the code of one.
pub(crate) fn wait_for_code(host: &mut HostState, slot: Slot) {
    let message = "no library offers this service, whose code cuts its messages";
    quarantine(host, slot, message.into());
    cut_failed(host, slot, fault::STATE, message.into());
}

/// Counts a fault of the code that cuts a session's messages, like that of a turn. No other build
/// is asked: it did not frame what the peer sent.
pub(crate) fn cut_failed(host: &mut HostState, slot: Slot, kind: u32, message: String) {
    let Some((service, id)) = host.sessions.get(slot).map(|s| (s.service, s.id)) else { return };
    host.services[service].faults += 1;
    let fault = Fault { kind, message, file: String::new(), line: 0 };
    count_fault(host, service, (id, fault.kind), &Fallback::Unavailable);
    let (session, action) = (public_number(id), action::MESSAGE);
    // Framings are those of the build that serves.
    let generation = host.services[service].generation();
    host.commands.push(Command::Fault { service, generation, session, action, fault, answered_by: None });
}

/// Quarantines a session until the code that serves next looks at it. No record is written: a
/// successor tries the action again, and quarantines the session again if that fails.
pub(crate) fn quarantine(host: &mut HostState, slot: Slot, reason: String) {
    if let Some(s) = host.sessions.get_mut(slot) {
        s.set_quarantine(Quarantine { reason, record: None });
        host.quarantines.insert(slot);
    }
}

/// Calls the handler until the outcome can be applied, with fewer actions each time. Room for
/// the outcome is reserved then.
fn attempt_until_usable(
    host: &mut HostState,
    executor: &mut Executor,
    slot: Slot,
    actions: &[Action<'_>],
    running: &RunningBatch,
) -> Attempt {
    let mut last = Attempt { tried: actions.len(), fault: None, fault_reply: None, failed_log: Vec::new() };
    loop {
        let call = Call { slot, actions: &actions[..last.tried], running };
        let flags = attempt(host, executor, call);
        let b = &mut executor.buffers;
        // The handler broke its contract. Without a fault no action would be consumed, and the
        // same call would be repeated for ever.
        if b.done == 0 && b.fault.is_none() {
            let message = "the handler returned without an outcome".into();
            b.fault = Some(Fault { kind: fault::ERROR, message, file: String::new(), line: 0 });
        }
        // The state that is handed over, if any, is not that of a successful turn.
        if b.done == 0 {
            b.has_state = false;
        }
        // A fault behind the last turn can only be about the state that the turns left.
        let lost = flags & abi::RUN_STATE_LOST != 0 || b.done == last.tried || b.spoilt;
        let state_lost = lost && b.done > 0 && b.fault.is_some();
        if state_lost && b.done < last.tried {
            // The failed turn spoilt the state of those before it, so they run again alone. The
            // fault is kept for `settle`: this very turn has failed, and needs no second run.
            last.tried = b.done;
            (last.fault, last.fault_reply) = (b.fault.take(), b.fault_reply.take());
            last.failed_log = b.log.drain(..).filter(|l| l.failed).collect();
            host.limits.reached_all(&mut b.reached);
            executor.replays += 1;
            continue;
        }
        let Some(message) = unusable(host, slot, b, state_lost) else { return last };
        // An earlier fault belongs to a later turn by now, which runs again later.
        (last.fault, last.fault_reply, last.failed_log) = (None, None, Vec::new());
        if b.done > 1 {
            // Actions run one by one, so that only the guilty turn fails. The rest comes with
            // the next batch.
            last.tried = 1;
            executor.replays += 1;
            continue;
        }
        b.came_to(|| TurnOutcome::Refused(message.clone()));
        // Effects and state go. The log stays, marked as that of a failed turn.
        let mut log = std::mem::take(&mut b.log);
        host.limits.reached_all(&mut b.reached);
        b.clear();
        log.iter_mut().for_each(|l| l.failed = true);
        b.log = log;
        b.fault = Some(Fault { kind: fault::ERROR, message, file: String::new(), line: 0 });
        return last;
    }
}

/// Reason why an outcome can't be applied, in words; `None`: it can, and room is reserved.
fn unusable(host: &mut HostState, slot: Slot, b: &mut Buffers, state_lost: bool) -> Option<String> {
    if state_lost && let Some(fault) = b.fault.take() {
        return Some(fault.message);
    }
    let limit = reserve(host, slot, b)?;
    // Of several turns, the guilty one is found out alone, and counts the limit then.
    if b.done <= 1 {
        host.limits.reached(limit);
    }
    Some(format!("what the turn asked for is over {limit}"))
}

/// Applies an outcome, hands over its log, and deals with the turn that failed. The fault may be
/// that of the last call, or of an earlier one that left the turn out.
fn settle(
    host: &mut HostState,
    executor: &mut Executor,
    slot: Slot,
    actions: &[Action<'_>],
    last: Attempt,
    running: &mut RunningBatch,
) -> Ran {
    let b = &mut executor.buffers;
    host.limits.reached_all(&mut b.reached);
    // If the repeated call failed in itself, the turn that was left out is not next: it runs
    // again later.
    let (fault, fault_reply) = match b.fault.take() {
        Some(own) => (Some(own), b.fault_reply.take()),
        None => (last.fault.filter(|_| b.done == last.tried), last.fault_reply),
    };
    let mut ran = Ran { consumed: b.done, close: b.close, left_out: false };
    let Some(s) = host.sessions.get(slot) else { return ran };
    let (service, id, session) = (s.service, s.id, public_number(s.id));
    let writer = host.services[service].build_of(id).writer;
    // Counted first: an effect that cancels a timer or a result must not find an action of this
    // batch that had its turn.
    running.had(b.done);
    host.budget.spend_batch(last.tried, b.effects.len(), b.bytes.len());
    host.budget.spend(b.work_ns);
    if b.is_overtime {
        host.budget.exhaust();
    }
    if let Some(ns) = b.took_ns {
        host.services[service].count_time(id, last.tried as u64, ns);
    }
    apply(host, slot, b, writer, running);
    if !b.log.is_empty() || !last.failed_log.is_empty() {
        let generation = host.services[service].generation_of(id);
        let log = b.log.drain(..).chain(last.failed_log);
        host.commands.extend(log.map(|line| Command::Log { service, session, generation, line }));
    }
    count_turns(host, slot, service, evidence(slot, &actions[..b.done]));
    if let Some(fault) = fault {
        // In range: a fault behind the last action makes an outcome unusable, and an earlier
        // fault left its action out.
        let failed = actions[b.done];
        // The previous build may run the failed action alone: its datagram is the first then.
        b.datagrams.all.drain(..b.done.min(b.datagrams.all.len()));
        let fault_reply = fault_reply.filter(|_| failed.kind != action::CLOSED);
        let of = (&failed, fault, fault_reply);
        let consumed = attribute_fault(host, executor, slot, of, running, &mut ran.close);
        ran.consumed += usize::from(consumed);
        count_turns(host, slot, service, u64::from(consumed));
    }
    ran
}

/// Counts the turns that tell something of a build: not its first one, which the host causes. O(1)
/// for a session.
fn evidence(slot: Slot, done: &[Action<'_>]) -> u64 {
    let of_host = |a: &&Action<'_>| a.kind == action::STARTED;
    let first = if slot.is_service() { done.iter().filter(of_host).count() } else { 0 };
    (done.len() - first) as u64
}

/// Asks the previous build about a failed turn, or quarantines the session, and counts the
/// fault. Returns whether the action is consumed. If that build was asked, the buffers hold its
/// outcome afterwards.
#[inline(never)]
fn attribute_fault(
    host: &mut HostState,
    executor: &mut Executor,
    slot: Slot,
    (failed, fault, fault_reply): (&Action<'_>, Fault, Option<FaultReply>),
    running: &mut RunningBatch,
    close: &mut bool,
) -> bool {
    let Some((service, id)) = host.sessions.get(slot).map(|s| (s.service, s.id)) else { return true };
    let session = public_number(id);
    let of = &host.services[service];
    let (generation, is_candidate) = (of.generation_of(id), of.candidate_of(id).is_some());
    let fallback = match of.standby.is_some() {
        _ if is_candidate => run_with_serving(host, executor, slot, failed, running),
        true => {
            executor.buffers.came_to(|| TurnOutcome::AskedBefore);
            let unread = fault.kind == fault::STATE;
            run_with_previous_build(host, executor, slot, (failed, unread), running)
        }
        false => Fallback::Unavailable,
    };
    host.services[service].count_fault(id, is_candidate && fallback == Fallback::Failed);
    let (mut consumed, mut answered_by) = (true, None);
    if let Fallback::Answered { close: closes } = fallback {
        let of = &host.services[service];
        let standby = of.standby.as_ref().map(|b| b.build.generation);
        answered_by = if is_candidate { Some(of.generation()) } else { standby };
        *close |= closes;
        let (log, generation) = (executor.buffers.log.drain(..), answered_by.unwrap_or(generation));
        host.commands.extend(log.map(|line| Command::Log { service, session, generation, line }));
    } else if fault.kind == fault::STATE && failed.kind != action::CLOSED {
        // The action was not run: it waits for code that can read the state. A last turn can't
        // wait.
        executor.buffers.came_to(|| TurnOutcome::Quarantined);
        quarantine(host, slot, fault.message.clone());
        consumed = false;
    } else if let Some(fault_reply) = fault_reply.filter(|_| !slot.is_service()) {
        *close |= send_fault_reply(host, executor, (slot, failed), &fault_reply, running);
    }
    if !is_candidate {
        count_fault(host, service, (id, fault.kind), &fallback);
    }
    let action = failed.kind;
    host.commands.push(Command::Fault { service, generation, session, action, fault, answered_by });
    consumed
}

/// Counts a failed turn against the build, if that is on probation. The shell rolls the build
/// back if the probation has failed.
fn count_fault(host: &mut HostState, service: ServiceId, of: (u64, u32), fallback: &Fallback) {
    let Some(library) = host.services[service].build.as_ref().map(|b| b.library.clone()) else { return };
    let faults_max = host.limits.host().probation_faults_max;
    let ended = host.probations.count_fault(&host.services, &library, of, fallback, faults_max);
    if let Some((p, end)) = ended {
        host.commands.push(Command::ProbationEnd { build: p.build, record: p.record, proof: end });
    }
}

/// Counts turns of a session, of its service, and of the pass.
fn count_turns(host: &mut HostState, slot: Slot, service: ServiceId, turns: u64) {
    host.send_queue.count_turns(turns as usize);
    let id = match host.sessions.get_mut(slot) {
        Some(s) => {
            s.turns += turns;
            s.id
        }
        None => 0,
    };
    host.services[service].count_turns(id, turns);
}
