//! Reservation of room for every record that a batch will write, so that applying cannot fail.
//!
//! A reservation is made between the call of the handler and [`super::apply`]. If the store is
//! full, nothing was written, and the turn fails alone with `store_bytes_max`. Room is reserved
//! below that limit. The store's reserve beyond it is left to records that must not fail.
//!
//! Each part says beside its write how many bytes that takes. The `match` below has no wildcard:
//! an effect that is added does not compile until it says its size. The store reserves blocks of
//! size classes, so a size that is said must lead to the class that the write takes. Blocks of
//! replaced and deleted records are not counted as room: most are free only after the commit.
//!
//! Costs O(effects), and one encoding of a broadcast for each framing in use that encodes.

use crate::effects::inbox::Inbox;
use crate::effects::jobs::Jobs;
use crate::effects::names::Names;
use crate::effects::outbound::Outbound;
use crate::effects::timers::Timers;
use crate::effects::topics::Topics;
use crate::host_state::HostState;
use crate::ids::Slot;
use crate::limits::names::Limit;
use crate::service::encoding::Encoding;
use crate::service::registry::Services;
use crate::session::flow_control::FlowControl;
use crate::session::output::OutputWriter;
use crate::session::terms::Terms;
use crate::store::room::Room;
use crate::store::shared::SHARED_FROM_BYTES;
use crate::tables::index::Tables;
use crate::tls::due::TlsDue;
use crate::turn::effect::{Effect, Framed, Part, Recipients};
use crate::turn::staging::Buffers;

/// Reserves room for what a batch staged. `Some`: applying it would break this limit, and
/// nothing was written. The room holds until something else is written, so the caller applies
/// the batch next. May be repeated.
pub(crate) fn reserve(host: &mut HostState, slot: Slot, staged: &mut Buffers) -> Option<Limit> {
    if staged.has_state && staged.state.len() > host.limits_of(slot).state_bytes_max {
        return Some(Limit::StateBytesMax);
    }
    if staged.effects.is_empty() && !staged.has_state {
        return None;
    }
    let HostState { store, sessions, topics, services, tls, sockets, .. } = host;
    let service = sessions.get(slot).map(|s| s.service)?;
    let of_library = || services.of_same_library(service);
    let mut room = Room::default();
    if staged.has_state {
        room.add(staged.state.len(), 1);
    }
    // The first change of topics rewrites a list that an older build left.
    if staged.changes_topics {
        topics.list_lens(slot).for_each(|len| room.add(len, 1));
    }
    staged.framed.clear();
    let sockets = !sockets.is_empty();
    if let Some(state) = staged.framing() {
        room.add(state.stored().len(), 1);
    }
    let mut waits = false;
    for at in 0..staged.effects.len() {
        let effect = &staged.effects[at];
        // A topic may have one subscriber more than now: this very batch may subscribe the session
        // first.
        let subscribers = |topic: &Part| topics.count_in(of_library(), staged.part(topic)) + 1;
        let (len, times) = record_bytes(effect, staged, &subscribers);
        room.add(len, times);
        match effect {
            Effect::Broadcast { to, data, how } => {
                if data.len() >= SHARED_FROM_BYTES {
                    add_shared_or_single(&mut room, data.len());
                }
                let count = to.count(&subscribers);
                let data = (data.clone(), how.line);
                if !tls.is_empty() {
                    let on = |topic: &Part| topics.subscribers_in(of_library(), staged.part(topic));
                    let to: Vec<_> = match to {
                        Recipients::Topic(topic) => on(topic),
                        Recipients::Topics(topics) => topics.iter().flat_map(on).collect(),
                        Recipients::Session(id) => sessions.slot_of(*id).into_iter().collect(),
                    };
                    let is_over_tls = |s: &Slot| sessions.get(*s).is_some_and(|s| s.over_tls());
                    let over_tls = to.into_iter().chain([slot]).filter(is_over_tls).count();
                    add_copies(&mut room, &data, over_tls, &Encoding::in_use(services, sockets), staged);
                }
                add_framed(&mut room, data, count, (services, sockets), staged);
            }
            Effect::Note { .. } => room.add(Inbox::MISSED_BYTES, 1),
            Effect::Publish { topic, data, .. } => add_message(&mut room, data.len(), subscribers(topic)),
            Effect::WaitFor(_) => waits = true,
            _ => {}
        }
    }
    // All waits together write one record, of one length.
    if waits {
        room.add(FlowControl::RECORD_BYTES, 1);
    }
    if !store.reserve_room(&room) {
        return Some(Limit::StoreBytesMax);
    }
    store.promise(&room);
    None
}

/// Adds the further records of a published message: long data, and counts of dropped actions. A
/// count is written in place of an action that is dropped, but its record may be of another class.
fn add_message(room: &mut Room, len: usize, subscribers: usize) {
    room.add(Inbox::MISSED_BYTES, subscribers);
    if len >= SHARED_FROM_BYTES {
        room.add(len, 1);
    }
}

/// Bytes of each record that an effect writes, and the number of such records, at most.
fn record_bytes(effect: &Effect, staged: &Buffers, subscribers: &dyn Fn(&Part) -> usize) -> (usize, usize) {
    match effect {
        Effect::Send(part) => (OutputWriter::record_bytes(part.len()), 1),
        Effect::Broadcast { to, data, .. } => {
            (OutputWriter::broadcast_record_bytes(data.len()), to.count(subscribers))
        }
        Effect::CloseSession(_) => (Inbox::record_bytes(0, 0), 1),
        Effect::Put { table, key, value, until } => {
            let key = &staged.bytes[key.clone()];
            (Tables::record_bytes(*until, staged.text(table), key, value.len()), 1)
        }
        Effect::DropPrefix { table, prefix } => {
            (Tables::drop_record_bytes(staged.text(table), &staged.bytes[prefix.clone()]), 1)
        }
        Effect::Wake { .. } | Effect::WakeWhenDrained => (Inbox::record_bytes(0, 0), 1),
        Effect::Note { data, .. } => (Inbox::record_bytes(0, data.len()), 1),
        Effect::Publish { topic, data, .. } => {
            (Inbox::publish_record_bytes(topic.len(), data.len()), subscribers(topic))
        }
        Effect::SetTimer { name, .. } => (Timers::record_bytes(name.len()), 1),
        Effect::StartJob { name, input, .. } => (Jobs::record_bytes(name.len(), input.len()), 1),
        Effect::Connect { addr, over_tls, context, .. } => {
            let name = over_tls.as_ref().map(|name| name.len());
            (Outbound::record_bytes(addr, name, context.len()), 1)
        }
        Effect::StartTls(name) => (TlsDue::record_bytes(name.len()), 1),
        Effect::FrameMax(_) | Effect::IdleAfter(_) => (Terms::RECORD_BYTES, 1),
        Effect::Register(name) => (Names::record_bytes(name.len()), 1),
        Effect::Subscribe(topic) => (Topics::record_bytes(topic.len()), 1),
        // All waits share one record, and `reserve` counts it once. Deletions need no room. Flags
        // of a session are in its record, for which the room was reserved when it opened.
        Effect::Unsubscribe(_)
        | Effect::Unregister(_)
        | Effect::Delete { .. }
        | Effect::CancelTimer { .. }
        | Effect::CancelJob(_)
        | Effect::Take { .. }
        | Effect::WaitFor(_)
        // One record for all of them, as well.
        | Effect::Framing(_)
        // Sent at most once, so no record holds it.
        | Effect::Datagram { .. }
        | Effect::Hold(_) => (0, 0),
    }
}

/// Adds the further records that a broadcast writes for subscribers whose framing encodes, at
/// most.
///
/// Costs one encoding for each such framing in use. A bound would not do: room is reserved in
/// blocks of one size, and records of another size take other blocks. A framing that can't
/// express the data writes nothing: those subscribers are left out. What a library has framed is
/// kept in `staged`.
fn add_framed(
    room: &mut Room,
    (data, is_line): (Part, bool),
    subscribers: usize,
    (services, sockets): (&Services, bool),
    staged: &mut Buffers,
) {
    let mut encoded = Vec::new();
    for encoding in Encoding::in_use(services, sockets) {
        encoded.clear();
        let Buffers { bytes, framed: asked, .. } = &mut *staged;
        let message = &bytes[data.clone()];
        // Once for each service: the answer is the same in a stream of WebSocket and outside.
        let ask = |service| {
            if let Some(known) = asked.iter().find(|f| f.service == service && f.data == data) {
                return known.bytes.clone();
            }
            let bytes = services[service].code.encode(message);
            asked.push(Framed { data: data.clone(), service, bytes: bytes.clone() });
            bytes
        };
        if encoding.encode((message, is_line), &mut encoded, ask).is_ok() {
            room.add(OutputWriter::broadcast_record_bytes(encoded.len()), subscribers);
            if encoded.len() >= SHARED_FROM_BYTES {
                add_shared_or_single(room, encoded.len());
            }
        }
    }
}

/// Adds what a broadcast writes for subscribers over TLS: a copy for each, in whatever framing.
fn add_copies(
    room: &mut Room,
    (data, is_line): &(Part, bool),
    subscribers: usize,
    encodings: &[Encoding],
    staged: &Buffers,
) {
    let mut longest = data.len();
    let mut encoded = Vec::new();
    for encoding in encodings {
        encoded.clear();
        let message = &staged.bytes[data.clone()];
        // What a library makes of it is added with its framing.
        let _ = encoding.encode((message, *is_line), &mut encoded, |_| Err(String::new()));
        longest = longest.max(encoded.len());
    }
    room.add(OutputWriter::record_bytes(longest), subscribers);
}

/// Adds the records of long broadcast data: one that several recipients share, or an output
/// record, as a single recipient gets. The two may be of different classes, and which one is
/// written is not known before: room for both is reserved.
fn add_shared_or_single(room: &mut Room, len: usize) {
    room.add(len, 1);
    room.add(OutputWriter::record_bytes(len), 1);
}
