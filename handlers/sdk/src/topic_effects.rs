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

/// Topics: who is on one, and what is said on it.
///
/// ```
/// use greenroom_handler::testing::Conversation;
/// use greenroom_handler::{Action, Broadcast, Handler, Result, Turn, handler};
///
/// struct Radio;
/// #[handler]
/// impl Handler for Radio {
///     const SERVICE: &'static str = "radio";
///     fn message(&self, turn: &mut Turn, line: &[u8]) -> Result {
///         let line = String::from_utf8_lossy(line);
///         let (verb, topic) = line.split_once(' ').unwrap_or((&line, ""));
///         match verb {
///             "join" => turn.subscribe(topic),
///             "leave" => turn.unsubscribe(topic),
///             "count" => {
///                 let (n, topics) = (turn.topic_len(topic), turn.topics_from("", 9).len());
///                 turn.send_line(format!("{n} of {topics}"));
///             }
///             // Bytes to the peers of all sessions on the topic, without a turn of those.
///             "line" => turn.broadcast_line(topic, "a line"),
///             "others" => {
///                 turn.broadcast_line_others(topic, "a line");
///                 turn.broadcast_others(topic, "bytes\n");
///             }
///             "bytes" => turn.broadcast(topic, "bytes\n"),
///             "slow" => {
///                 let how = Broadcast::LINE | Broadcast::DROP_IF_SLOW;
///                 turn.broadcast_with(topic, "tick", how);
///             }
///             "any" => turn.broadcast_any(&["jazz", "news"], "once\n", Broadcast::ALL),
///             // A turn of each session on the topic.
///             "publish" => turn.publish(topic, "all"),
///             _ => turn.publish_others(topic, "the others"),
///         }
///         Ok(())
///     }
///     fn other(&self, turn: &mut Turn, action: Action) -> Result {
///         if let Action::Published { topic, bytes, .. } = action {
///             turn.send_line([topic, b": ", bytes].concat());
///         }
///         Ok(())
///     }
/// }
///
/// Conversation::<Radio>::new("{}").plays("
///     ann opens
///     ann says join jazz
///     ann says join news
///     bob opens
///     bob says join jazz
///     bob says count jazz
///     bob hears 2 of 2
///     ann says line jazz
///     ann hears a line
///     bob hears a line
///     ann says others jazz
///     bob hears a line
///     bob hears bytes
///     ann says bytes news
///     ann hears bytes
///     ann says slow news
///     ann hears tick
///     bob says any
///     ann hears once
///     bob hears once
///     bob says publish jazz
///     ann hears jazz: all
///     bob hears jazz: all
///     bob says publish_others jazz
///     ann hears jazz: the others
///     bob says leave jazz
///     ann says line jazz
///     ann hears a line
/// ");
/// ```
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
