//! Application of the staged effects. Cannot fail: [`super::reserve`] made sure of the room.
//!
//! `batch` applies what the build that serves has staged, and `fallback` what the standby build
//! has. Both reserve room first, and nothing writes to the store between the two steps. An
//! `expect` in a part that is called from here says that the part and `reserve` count its record
//! alike.
//!
//! Effects are applied in the order in which the turns asked for them, so a broadcast reaches
//! the subscribers of that moment. Nothing counts before the commit of the pass: a worker that
//! dies earlier leaves no trace of the batch. Costs O(effects), and O(subscribers) for each
//! broadcast or published message.

use crate::effects::action_record::{CLOSE_ASKED, Data, PendingAction};
use crate::effects::job_forms::NewJob;
use crate::effects::outbound::Target;
use crate::effects::running_batch::RunningBatch;
use crate::host_state::HostState;
use crate::host_state::deliver::deliver;
use crate::host_state::end::drop_job;
use crate::host_state::output::{broadcast, is_backed_up, is_full, send};
use crate::host_state::state::{change_names, change_topics, subscribers, write_framing, write_state};
use crate::host_state::tls::seal_all;
use crate::host_state::tls_due;
use crate::ids::{ServiceId, Slot, public_number};
use crate::limits::names::Limit;
use crate::service::registry::Writer;
use crate::session::blocked::Blocked;
use crate::session::life::{Life, Session};
use crate::store::shared::SHARED_FROM_BYTES;
use crate::turn::effect::{Broadcast, Effect, Part, Recipients};
use crate::turn::staging::Buffers;
use greenroom_state::abi::action;
use greenroom_state::address::Address;

/// A session whose batch is applied, with all that effects read of the batch.
#[derive(Clone, Copy)]
struct Origin<'a> {
    slot: Slot,
    id: u64,
    /// Staging area that the parts of the effects point into.
    staged: &'a Buffers,
    /// Actions that had their turns: effects find only later ones.
    running: &'a RunningBatch,
}

/// Applies what a batch of a session staged, in order. Data for TLS are sealed at once: the records
/// take the room that was reserved for the data. State and entries are marked with the
/// versions that the writer has of them. If the session is gone, nothing is applied.
pub(crate) fn apply(
    host: &mut HostState,
    slot: Slot,
    staged: &Buffers,
    writer: Writer,
    running: &RunningBatch,
) {
    let Some(s) = host.sessions.get(slot) else { return host.store.end_promise() };
    let (service, id) = (s.service, s.id);
    if staged.has_state {
        write_state(host, slot, &staged.state, host.services[service].written(writer));
    }
    let origin = Origin { slot, id, staged, running };
    for effect in &staged.effects {
        match effect {
            // Most batches have no other.
            Effect::Send(part) => send(host, slot, &staged.bytes[part.clone()]),
            other => apply_one(host, &origin, (service, writer), other),
        }
    }
    if let Some(state) = staged.framing() {
        write_framing(host, slot, state.clone());
    }
    host.store.end_promise();
    seal_all(host);
}

/// Applies one effect.
#[inline(never)]
fn apply_one(
    host: &mut HostState,
    origin: &Origin<'_>,
    (service, writer): (ServiceId, Writer),
    effect: &Effect,
) {
    let Origin { slot, id, staged, .. } = *origin;
    // A timer of a service belongs to the session that stands for the service's own turns.
    let owner = |of_service: bool| if of_service { Slot::of_service(service) } else { slot };
    match effect {
        Effect::Send(part) => send(host, slot, &staged.bytes[part.clone()]),
        Effect::Broadcast { to, data, how } => send_to_others(host, origin, to, data, *how),
        Effect::CloseSession(id) => close_session(host, origin, *id),
        Effect::Subscribe(topic) => change_topics(host, slot, staged.part(topic), true),
        Effect::Unsubscribe(topic) => change_topics(host, slot, staged.part(topic), false),
        Effect::Register(name) => change_names(host, slot, staged.part(name), true),
        Effect::Unregister(name) => change_names(host, slot, staged.part(name), false),
        Effect::Put { table, key, value, until } => {
            put(host, staged, (table, key), (writer, service), (value, *until));
        }
        Effect::Delete { table, key } => {
            host.tables.delete(&mut host.store, staged.text(table), &staged.bytes[key.clone()]);
        }
        Effect::DropPrefix { table, prefix } => {
            let prefix = &staged.bytes[prefix.clone()];
            host.tables.drop_prefix(&mut host.store, staged.text(table), prefix);
        }
        Effect::Note { to, data, depth } => note(host, origin, *to, data, *depth),
        Effect::Wake { to, depth } => wake(host, origin, *to, *depth),
        Effect::WakeWhenDrained => wake_when_drained(host, origin),
        Effect::Publish { topic, data, others, depth } => {
            publish(host, origin, topic, data, *others, *depth);
        }
        Effect::SetTimer { service, name, deadline_ns: at } => {
            set_timer(host, origin, owner(*service), name, Some(*at));
        }
        Effect::CancelTimer { service, name } => set_timer(host, origin, owner(*service), name, None),
        Effect::StartJob { number, name, input, once } => {
            let (name, input) = (staged.text(name), &staged.bytes[input.clone()]);
            start_job(host, &NewJob { owner: id, service, number: *number, name, input, once: *once });
        }
        Effect::CancelJob(number) => cancel_job(host, origin, *number),
        Effect::Connect { number, service, addr, over_tls, context } => {
            connect(host, origin, (*number, *service), (addr, over_tls.as_ref()), context);
        }
        Effect::StartTls(name) if !staged.close => tls_due::start(host, slot, staged.text(name)),
        Effect::Datagram { from, to, data } => {
            host.datagrams.push(service, *from, *to, &staged.bytes[data.clone()]);
        }
        // Each framing holds the whole state, so the last one counts.
        Effect::StartTls(_) | Effect::Framing(_) => {}
        Effect::WaitFor(other) => wait_for(host, slot, *other),
        Effect::Take { bucket, full_at_ns } => take_token(host, *bucket, *full_at_ns),
        Effect::FrameMax(bytes) => limit_frames(host, slot, *bytes),
        Effect::IdleAfter(ns) => tell_of_silence(host, slot, *ns),
        Effect::Hold(held) => hold(host, slot, *held),
    }
}

/// Asks for a connection: to an address, and over TLS if a server's name is given.
fn connect(
    host: &mut HostState,
    origin: &Origin<'_>,
    (number, service): (u64, ServiceId),
    (addr, over_tls): (&Address, Option<&Part>),
    context: &Part,
) {
    let Origin { slot, id, staged, .. } = *origin;
    // A session that asked for it in this turn is there.
    let Some(asked_by) = host.sessions.get(slot).map(|s| s.service) else { return };
    let target = Target { addr: addr.clone(), over_tls: over_tls.map(|name| staged.text(name).into()) };
    host.outbound.ask(
        &mut host.store,
        (id, asked_by),
        number,
        (service, target),
        &staged.bytes[context.clone()],
    );
}

/// Writes an entry of a table. The table may be another service's, so the version of the value is
/// its owner's, not the writer's.
fn put(
    host: &mut HostState,
    staged: &Buffers,
    (table, key): (&Part, &Part),
    (writer, service): (Writer, ServiceId),
    (value, until): (&Part, Option<u64>),
) {
    let (table, key) = (staged.text(table), &staged.bytes[key.clone()]);
    let version = host.services.version_written(&host.owners, writer, service, table);
    let value = &staged.bytes[value.clone()];
    let put = host.tables.put_until(&mut host.store, (table, key), version, value, until);
    put.expect("room was reserved before");
}

/// Sends a message to the peers of other sessions. What libraries have framed of it lies in the
/// buffers.
fn send_to_others(host: &mut HostState, origin: &Origin<'_>, to: &Recipients, data: &Part, how: Broadcast) {
    let Origin { slot, staged, .. } = *origin;
    let framed = |service| {
        let mut all = staged.framed.iter();
        all.find(|f| f.service == service && f.data == *data).map(|f| f.bytes.clone())
    };
    let mut to = recipients(host, slot, staged, to);
    to.retain(|to| !(how.others && *to == slot || how.drop_if_slow && is_full(host, *to)));
    broadcast(host, to, (staged.part(data), how.line), &framed);
}

/// Sessions that a broadcast of a session is for, each once. O(services + sessions · log).
pub(super) fn recipients(host: &HostState, of: Slot, staged: &Buffers, to: &Recipients) -> Vec<Slot> {
    match to {
        Recipients::Topic(topic) => subscribers(host, of, staged.part(topic)),
        Recipients::Topics(topics) => {
            let on = topics.iter().flat_map(|topic| subscribers(host, of, staged.part(topic)));
            let mut on: Vec<_> = on.collect();
            on.sort_unstable();
            on.dedup();
            on
        }
        // Another session takes output between its first turn and its last one: its peer may be in
        // the middle of a header before, and has had the last word of its framing behind.
        Recipients::Session(id) => {
            let is_open = |s: &Session| {
                s.life == Life::Open && !s.is_blocked(Blocked::OpenedTurnDue) && !s.awaits_header()
            };
            let takes = |slot: &Slot| *slot == of || host.sessions.get(*slot).is_some_and(is_open);
            in_library(host, of, *id).into_iter().filter(takes).collect()
        }
    }
}

/// Lets a session of the same library be closed behind the actions that wait for it.
fn close_session(host: &mut HostState, origin: &Origin<'_>, id: u64) {
    let Some(to) = in_library(host, origin.slot, id) else { return };
    let data = Data::Own(&[]);
    let end = PendingAction { kind: CLOSE_ASKED, detail: 0, from: 0, depth: 0, name: b"", data };
    deliver(host, to, &end, origin.running);
}

/// Lets a note wait for a session, which may be the sender. If no session has the number, the
/// note is dropped silently. A service's own turns take no notes.
fn note(host: &mut HostState, origin: &Origin<'_>, to: u64, data: &Part, depth: u16) {
    let Some(to) = host.sessions.slot_of(to).filter(|to| !to.is_service()) else { return };
    // Handlers know the number of a service's own turns as 0.
    let (from, data) = (public_number(origin.id), Data::Own(&origin.staged.bytes[data.clone()]));
    let action = PendingAction { kind: action::NOTE, detail: 0, from, depth, name: b"", data };
    deliver(host, to, &action, origin.running);
}

/// Lets a session of the same library run a turn, which may be the sender.
fn wake(host: &mut HostState, origin: &Origin<'_>, to: u64, depth: u16) {
    let Some(to) = in_library(host, origin.slot, to) else { return };
    let (kind, data) = (action::WOKEN, Data::Own(&[]));
    let wake = PendingAction { kind, detail: 0, from: 0, depth, name: b"", data };
    deliver(host, to, &wake, origin.running);
    if to == origin.slot {
        host.inbox.wake_later(to);
    }
}

/// Lets a session run a turn once its output is sent, unless it is woken before.
fn wake_when_drained(host: &mut HostState, origin: &Origin<'_>) {
    if host.inbox.has_wake(origin.slot, origin.running) {
        return;
    }
    // A session that is closing has no turn any more.
    if host.sessions.get(origin.slot).is_none_or(|s| s.life != Life::Open) {
        return;
    }
    let (kind, data) = (action::WOKEN, Data::Own(&[]));
    let wake = PendingAction { kind, detail: 0, from: 0, depth: 0, name: b"", data };
    host.inbox.wake_when_drained(&mut host.store, origin.slot, origin.id, &wake);
}

/// Session of a number, if it belongs to the library of another one.
fn in_library(host: &HostState, of: Slot, id: u64) -> Option<Slot> {
    let slot = host.sessions.slot_of(id).filter(|slot| !slot.is_service())?;
    let (own, other) = (host.sessions.get(of)?.service, host.sessions.get(slot)?.service);
    host.services.of_same_library(own).any(|s| s == other).then_some(slot)
}

/// Lets a message wait for each subscriber of a topic. From [`SHARED_FROM_BYTES`] bytes on, the
/// data are stored once, and the actions name them. O(subscribers).
fn publish(host: &mut HostState, origin: &Origin<'_>, topic: &Part, data: &Part, others: bool, depth: u16) {
    let (name, bytes) = (origin.staged.part(topic), origin.staged.part(data));
    let mut to = subscribers(host, origin.slot, name);
    to.retain(|to| !(others && *to == origin.slot));
    let shared = (bytes.len() >= SHARED_FROM_BYTES).then(|| host.shared.put(&mut host.store, bytes));
    let data = shared.map_or(Data::Own(bytes), Data::Shared);
    let (kind, from) = (action::PUBLISHED, public_number(origin.id));
    for to in to {
        deliver(host, to, &PendingAction { kind, detail: 0, from, depth, name, data }, origin.running);
    }
    // Without a subscriber that took the message, nothing names the record: nothing else would
    // ever delete it.
    if let Some(number) = shared {
        host.shared.release_unused(&mut host.store, number);
    }
}

/// Sets a timer; `None` cancels it. A due timer of the name that had no turn is cancelled in
/// both cases: a name never fires for a deadline that was replaced.
fn set_timer(host: &mut HostState, origin: &Origin<'_>, owner: Slot, name: &Part, deadline_ns: Option<u64>) {
    let name = origin.staged.text(name);
    host.inbox.cancel_due(&mut host.store, owner, name, origin.running);
    let Some(id) = host.sessions.get(owner).map(|s| s.id) else { return };
    match deadline_ns {
        Some(at) => host.timers.set(&mut host.store, id, name, at),
        None => host.timers.cancel(&mut host.store, id, name),
    }
}

/// Queues a job. If all threads are taken, that counts as a limit reached, and the job waits.
fn start_job(host: &mut HostState, job: &NewJob<'_>) {
    host.jobs.start(&mut host.store, job);
    if host.jobs.shares.counts().0 >= host.limits.host().jobs_running_max {
        host.limits.reached(Limit::JobsRunningMax);
    }
}

/// Cancels a job that the session started. A job that has ended may have left its result in the
/// inbox: then the result is cancelled. Other numbers have no effect.
fn cancel_job(host: &mut HostState, origin: &Origin<'_>, number: u64) {
    match host.jobs.is_of(origin.id, number) {
        true => drop_job(host, number),
        false => host.inbox.cancel_result(&mut host.store, origin.slot, number, origin.running),
    }
}

/// Lets a session wait while the peer of another one leaves too much output untaken, or too many
/// actions wait for that one. A note of this very turn counts. If the other session is gone or
/// takes more, the session goes on. The wait ends when the backlog drains or that session ends.
fn wait_for(host: &mut HostState, slot: Slot, other: u64) {
    let at = host.sessions.slot_of(other).filter(|o| *o != slot && !o.is_service());
    let Some(at) = at.filter(|o| is_backed_up(host, *o)) else { return };
    if let Some(s) = host.sessions.get_mut(slot).filter(|s| s.life == Life::Open && !slot.is_service()) {
        s.block(Blocked::OtherSessionsOutput, true);
        host.flow.wait(&mut host.store, (slot, s.id), (at, other));
    }
}

/// Lets a session's input wait for its handler, or go on with the next pass. Repeating a call
/// has no effect.
fn hold(host: &mut HostState, slot: Slot, held: bool) {
    let Some(s) = host.sessions.get_mut(slot) else { return };
    if s.block(Blocked::HeldByHandler, held) && !held {
        host.sessions.resume(slot);
    }
}

/// Takes a token of a bucket. A bucket that had to make place for it reaches a limit.
fn take_token(host: &mut HostState, bucket: u64, full_at_ns: u64) {
    let max = host.limits.host().token_buckets_max;
    if host.buckets.set(max, bucket, full_at_ns, host.now_ns) {
        host.limits.reached(Limit::TokenBucketsMax);
    }
}

/// Bounds the messages that a session's peer may send. What is kept of one is cut again, with the
/// next pass.
fn limit_frames(host: &mut HostState, slot: Slot, bytes: u32) {
    let Some(s) = host.sessions.get_mut(slot).filter(|s| s.life == Life::Open) else { return };
    s.frame.set_searched(0);
    let told = s.silence_told;
    let terms = host.sessions.terms(slot).with_frame_max(bytes);
    host.sessions.set_terms(&mut host.store, slot, terms, told);
    host.sessions.resume(slot);
}

/// Has a session told of its peer's silence, which counts from here on.
fn tell_of_silence(host: &mut HostState, slot: Slot, after_ns: u64) {
    let Some(s) = host.sessions.get(slot).filter(|s| s.life == Life::Open) else { return };
    let service = s.service;
    let terms = host.sessions.terms(slot).with_idle_after(after_ns, host.now_ns);
    host.sessions.set_terms(&mut host.store, slot, terms, false);
    host.sessions.arm_timeout(slot, host.limits.of(service), host.now_ns);
}
