//! Effects on topics. A topic belongs to its library, and its name is bytes.

use crate::turn::Turn;
use greenroom_state::abi::{BROADCAST_DROP_IF_SLOW, BROADCAST_LINE, BROADCAST_OTHERS};
use std::ops::BitOr;

/// Ways to broadcast, joined by `|`.
///
/// ```
/// # use greenroom_handler::Broadcast;
/// let how = Broadcast::LINE | Broadcast::OTHERS;
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Broadcast(pub(crate) u32);

impl Broadcast {
    /// Sends bytes to all.
    pub const ALL: Broadcast = Broadcast(0);
    /// Leaves out the session whose turn it is.
    pub const OTHERS: Broadcast = Broadcast(BROADCAST_OTHERS);
    /// The bytes are a line, given without its ending.
    pub const LINE: Broadcast = Broadcast(BROADCAST_LINE);
    /// Leaves out sessions whose peers leave more output untaken than limit `output_bytes_pause`.
    pub const DROP_IF_SLOW: Broadcast = Broadcast(BROADCAST_DROP_IF_SLOW);
}

impl BitOr for Broadcast {
    type Output = Broadcast;
    fn bitor(self, other: Broadcast) -> Broadcast {
        Broadcast(self.0 | other.0)
    }
}

impl<S> Turn<'_, S> {
    /// Adds the session to a topic of its library. A name is any bytes that are not empty.
    pub fn subscribe(&mut self, topic: impl AsRef<[u8]>) {
        let status = self.host.subscribe(topic.as_ref());
        self.note_refusal("a subscription", status);
    }

    /// Takes the session off a topic. A closed session is off all of them.
    pub fn unsubscribe(&mut self, topic: impl AsRef<[u8]>) {
        let status = self.host.unsubscribe(topic.as_ref());
        self.note_refusal("a subscription", status);
    }

    /// Publishes bytes on a topic: each of its sessions runs a turn over them,
    /// [`crate::Action::Published`].
    pub fn publish(&mut self, topic: impl AsRef<[u8]>, bytes: impl AsRef<[u8]>) {
        let status = self.host.publish(topic.as_ref(), bytes.as_ref(), 0);
        self.note_refusal("a message", status);
    }

    /// Publishes as [`Turn::publish`] does, but not to this session.
    pub fn publish_others(&mut self, topic: impl AsRef<[u8]>, bytes: impl AsRef<[u8]>) {
        let status = self.host.publish(topic.as_ref(), bytes.as_ref(), BROADCAST_OTHERS);
        self.note_refusal("a message", status);
    }

    /// Sends a line to every session on a topic, as [`Turn::send_line`] does to one.
    pub fn broadcast_line(&mut self, topic: impl AsRef<[u8]>, line: impl AsRef<[u8]>) {
        let status = self.host.broadcast(topic.as_ref(), line.as_ref(), BROADCAST_LINE);
        self.note_refusal("a broadcast", status);
    }

    /// Sends a line to every session on a topic but this one.
    pub fn broadcast_line_others(&mut self, topic: impl AsRef<[u8]>, line: impl AsRef<[u8]>) {
        let status = self.host.broadcast(topic.as_ref(), line.as_ref(), BROADCAST_LINE | BROADCAST_OTHERS);
        self.note_refusal("a broadcast", status);
    }

    /// Sends bytes to every session on a topic.
    pub fn broadcast(&mut self, topic: impl AsRef<[u8]>, bytes: impl AsRef<[u8]>) {
        let status = self.host.broadcast(topic.as_ref(), bytes.as_ref(), 0);
        self.note_refusal("a broadcast", status);
    }

    /// Sends bytes to every session on a topic but this one.
    pub fn broadcast_others(&mut self, topic: impl AsRef<[u8]>, bytes: impl AsRef<[u8]>) {
        let status = self.host.broadcast(topic.as_ref(), bytes.as_ref(), BROADCAST_OTHERS);
        self.note_refusal("a broadcast", status);
    }

    /// Sends bytes to every session on a topic, in the ways that `how` names.
    pub fn broadcast_with(&mut self, topic: impl AsRef<[u8]>, bytes: impl AsRef<[u8]>, how: Broadcast) {
        let status = self.host.broadcast(topic.as_ref(), bytes.as_ref(), how.0);
        self.note_refusal("a broadcast", status);
    }

    /// Sends bytes to every session on any of several topics, once to each.
    pub fn broadcast_any<T: AsRef<[u8]>>(&mut self, topics: &[T], bytes: impl AsRef<[u8]>, how: Broadcast) {
        let topics: Vec<_> = topics.iter().map(AsRef::as_ref).collect();
        let status = self.host.broadcast_any(&topics, bytes.as_ref(), how.0);
        self.note_refusal("a broadcast", status);
    }

    /// Number of sessions on a topic. Subscriptions of the batch under way do not count yet.
    pub fn topic_len(&mut self, topic: impl AsRef<[u8]>) -> u64 {
        self.host.topic_len(topic.as_ref())
    }

    /// First `max` topics of this library that are not before `from`, in order, without those that
    /// begin in the batch under way. The next part begins behind the last one with a zero byte
    /// appended.
    pub fn topics_from(&mut self, from: impl AsRef<[u8]>, max: usize) -> Vec<Vec<u8>> {
        let mut next = from.as_ref().to_vec();
        let mut found = Vec::new();
        while found.len() < max
            && let Some(name) = self.host.topic_next(&next)
        {
            next.clone_from(&name);
            next.push(0);
            found.push(name);
        }
        found
    }
}
