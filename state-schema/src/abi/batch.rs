//! Batch: the actions of one call, and the session that they are for.

use super::bytes::Bytes;

/// Actions of one session, oldest first.
#[repr(C)]
pub struct Batch<'a> {
    /// Size of this struct.
    pub size: u32,
    /// Version of `state`; meaningless when `has_state` is 0.
    pub state_version: u32,
    /// 0: the session has no state yet, start from the default.
    pub has_state: u32,
    /// Bytes from one action to the next.
    pub action_stride: u32,
    /// The actions.
    pub actions: *const Action<'a>,
    /// Number of actions. 0: a rehearsal, which reads the state, migrates it if it must, and hands
    /// it over; tables may be empty then.
    pub action_count: usize,
    /// The session's state as stored: a MessagePack map with field names.
    pub state: Bytes<'a>,
    /// Number of the session, never used twice in a host; 0: the service itself.
    pub session: u64,
    /// CLOCK_MONOTONIC, in nanoseconds, of this pass.
    pub now_ns: u64,
}

/// Action: one logical thing that happened to a session.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Action<'a> {
    /// Number from [`super::action`].
    pub kind: u32,
    /// Detail that `kind` names; else 0.
    pub detail: u32,
    /// The message.
    pub data: Bytes<'a>,
    /// Since 1.2. Name that `kind` calls for; else empty. UTF-8.
    pub name: Bytes<'a>,
    /// Since 1.2. Number that `kind` calls for; else 0.
    pub from: u64,
}

impl<'a> Action<'a> {
    /// An action that only has data.
    #[inline]
    pub fn new(kind: u32, data: Bytes<'a>) -> Action<'a> {
        Action { kind, detail: 0, data, name: Bytes::EMPTY, from: 0 }
    }
}
