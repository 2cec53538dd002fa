//! Functions of a turn for topics. Their names are bytes.
//!
//! Each gets, by the ABI, the turn of the run under way and arguments that are valid for the call.

use crate::plugin::ffi::bytes::{lend, slice};
use crate::plugin::ffi::under_way::staging;
use greenroom_core::turn::effect::Broadcast;
use greenroom_state::abi::{self, Bytes, status};

/// Stages a subscription.
pub(super) unsafe extern "C" fn subscribe(turn: *mut abi::Turn, topic: Bytes<'_>) -> u32 {
    // SAFETY: see above.
    let topic = unsafe { slice(topic) };
    // SAFETY: see above.
    unsafe { staging(turn) }.map_or(status::INVALID, |s| s.subscribe(topic))
}

/// Stages the end of a subscription.
pub(super) unsafe extern "C" fn unsubscribe(turn: *mut abi::Turn, topic: Bytes<'_>) -> u32 {
    // SAFETY: see above.
    let topic = unsafe { slice(topic) };
    // SAFETY: see above.
    unsafe { staging(turn) }.map_or(status::INVALID, |s| s.unsubscribe(topic))
}

/// Ways to broadcast; `None`: a flag is unknown.
pub(super) fn ways(flags: u32) -> Option<Broadcast> {
    let known = abi::BROADCAST_OTHERS | abi::BROADCAST_LINE | abi::BROADCAST_DROP_IF_SLOW;
    (flags & !known == 0).then_some(Broadcast {
        others: flags & abi::BROADCAST_OTHERS != 0,
        line: flags & abi::BROADCAST_LINE != 0,
        drop_if_slow: flags & abi::BROADCAST_DROP_IF_SLOW != 0,
    })
}

/// Stages bytes for all subscribers of a topic.
pub(super) unsafe extern "C" fn broadcast(
    turn: *mut abi::Turn,
    topic: Bytes<'_>,
    data: Bytes<'_>,
    flags: u32,
) -> u32 {
    // SAFETY: see above.
    let (Some(s), Some(how)) = (unsafe { staging(turn) }, ways(flags)) else { return status::INVALID };
    // SAFETY: see above.
    let topic = unsafe { slice(topic) };
    // SAFETY: see above.
    let data = unsafe { slice(data) };
    s.broadcast(topic, data, how)
}

/// Stages bytes for all subscribers of any of several topics.
pub(super) unsafe extern "C" fn broadcast_any(
    turn: *mut abi::Turn,
    topics: *const Bytes<'_>,
    count: usize,
    data: Bytes<'_>,
    flags: u32,
) -> u32 {
    // SAFETY: see above.
    let (Some(s), Some(how)) = (unsafe { staging(turn) }, ways(flags)) else { return status::INVALID };
    // SAFETY: see above.
    let data = unsafe { slice(data) };
    let topics = (0..count).map(|i| {
        // SAFETY: the array has `count` items.
        let topic = unsafe { topics.add(i) };
        // SAFETY: see above.
        let topic = unsafe { *topic };
        // SAFETY: see above.
        unsafe { slice(topic) }
    });
    s.broadcast_any(topics, data, how)
}

/// Stages a message for all subscribers of a topic, which run a turn over it.
pub(super) unsafe extern "C" fn publish(
    turn: *mut abi::Turn,
    topic: Bytes<'_>,
    data: Bytes<'_>,
    flags: u32,
) -> u32 {
    if flags & !abi::BROADCAST_OTHERS != 0 {
        return status::INVALID;
    }
    // SAFETY: see above.
    let topic = unsafe { slice(topic) };
    // SAFETY: see above.
    let data = unsafe { slice(data) };
    // SAFETY: see above.
    unsafe { staging(turn) }.map_or(status::INVALID, |s| s.publish(topic, data, flags != 0))
}

/// Number of sessions on a topic; 0 outside a turn.
pub(super) unsafe extern "C" fn topic_len(turn: *mut abi::Turn, topic: Bytes<'_>) -> u64 {
    // SAFETY: see above.
    let topic = unsafe { slice(topic) };
    // SAFETY: see above.
    unsafe { staging(turn) }.map_or(0, |s| s.topic_len(topic) as u64)
}

/// Lends the next topic at or after `from`; `ABSENT`: there is none.
pub(super) unsafe extern "C" fn topic_next(
    turn: *mut abi::Turn,
    from: Bytes<'_>,
    name: *mut Bytes<'static>,
) -> u32 {
    // SAFETY: see above.
    let (Some(s), from) = (unsafe { staging(turn) }, unsafe { slice(from) }) else { return status::INVALID };
    let Some(found) = s.topic_next(from) else { return status::ABSENT };
    // SAFETY: see above.
    unsafe { name.write(lend(found)) };
    status::OK
}
