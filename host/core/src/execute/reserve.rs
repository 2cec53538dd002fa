//! Reserves room for every record that the batch will write, so that applying cannot fail.
//!
//! Each part says beside its write how many bytes that takes. The `match` below has no wildcard: an
//! effect that is added does not compile until it says its size.

use crate::effects::inbox::Inbox;
use crate::effects::jobs::Jobs;
use crate::effects::outbound::Outbound;
use crate::effects::timers::Timers;
use crate::effects::topics::Topics;
use crate::host_state::HostState;
use crate::host_state::state::topics_record_bytes;
use crate::ids::Slot;
use crate::limits::names::Limit;
use crate::session::output::OutputWriter;
use crate::store::shared::SHARED_FROM_BYTES;
use crate::tables::index::Tables;
use crate::turn::effect::Effect;
use crate::turn::staging::Buffers;

/// Reserves room for what a batch staged. `Some`: applying it would break this limit.
pub(crate) fn reserve(host: &mut HostState, slot: Slot, staged: &Buffers) -> Option<Limit> {
    if staged.has_state && staged.state.len() > host.limits_of(slot).state_bytes_max {
        return Some(Limit::StateBytesMax);
    }
    if staged.effects.is_empty() && !staged.has_state {
        return None;
    }
    let HostState { store, sessions, topics, .. } = host;
    let own = sessions.get(slot).map_or(&[][..], |s| s.topics());
    let state = staged.has_state.then_some(staged.state.len());
    let listed = staged.topics(own).map(|on| topics_record_bytes(on.into_iter()));
    let records = staged.effects.iter().flat_map(|effect| {
        let (bytes, times) = record_bytes(effect, staged, topics);
        std::iter::repeat_n(bytes, times)
    });
    let shared = staged.effects.iter().filter_map(shared_record_bytes);
    let lens = state.into_iter().chain(listed).chain(records).chain(shared);
    (!store.reserve(lens)).then_some(Limit::StoreBytesMax)
}

/// Bytes of each record that an effect writes, at most, and the number of such records.
fn record_bytes(effect: &Effect, staged: &Buffers, topics: &Topics) -> (usize, usize) {
    // One more than the topic has now: this very batch may subscribe the session first.
    let subscribers = |topic| topics.count(staged.text(topic)) + 1;
    match effect {
        Effect::Send(part) => (OutputWriter::record_bytes(part.len()), 1),
        Effect::Broadcast { topic, data, .. } => {
            (OutputWriter::broadcast_record_bytes(data.len()), subscribers(topic))
        }
        Effect::Put { table, key, value } => {
            let key = &staged.bytes[key.clone()];
            (Tables::record_bytes(staged.text(table), key, value.len()), 1)
        }
        Effect::Note { data, .. } => (Inbox::record_bytes(0, data.len()), 1),
        Effect::Publish { topic, data, .. } => {
            (Inbox::publish_record_bytes(topic.len(), data.len()), subscribers(topic))
        }
        Effect::SetTimer { name, .. } => (Timers::record_bytes(name.len()), 1),
        Effect::StartJob { name, input, .. } => (Jobs::record_bytes(name.len(), input.len()), 1),
        Effect::Connect { context, .. } => (Outbound::record_bytes(context.len()), 1),
        // One record lists all topics; it is counted once for the batch.
        Effect::Subscribe(_) | Effect::Unsubscribe(_) => (0, 0),
        // Deletions need no room, and flags of a session are in its record.
        Effect::Delete { .. }
        | Effect::CancelTimer { .. }
        | Effect::CancelJob(_)
        | Effect::WaitFor(_)
        | Effect::Hold(_) => (0, 0),
    }
}

/// Bytes of the record that several sessions share; `None`: the effect shares none. To one session
/// alone the data are not named, but written, so room for an output record is reserved.
fn shared_record_bytes(effect: &Effect) -> Option<usize> {
    match effect {
        Effect::Publish { data, .. } | Effect::Broadcast { data, .. } => {
            (data.len() >= SHARED_FROM_BYTES).then_some(OutputWriter::record_bytes(data.len()))
        }
        _ => None,
    }
}
