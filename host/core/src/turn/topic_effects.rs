//! Subscribe, broadcast, publish, note: effects on other sessions.
//!
//! A broadcast is output, and runs no code. A note or a published message is an action, so it
//! has a depth. The depth counts the turns between an action and something from outside.
//! `cascade_max` bounds it, so that turns can't cause each other for ever.

use super::effect::Part;
use super::staging::{Buffers, Staging};
use crate::limits::budget::{ROW_NS, SESSION_NS};
use crate::limits::names::Limit;
use crate::turn::effect::{Broadcast, Effect, Recipients};
use greenroom_state::abi::status;

/// Sessions that a broadcast reaches at the cost of one that a published message reaches: that is
/// an action with a record and a turn of its own.
const PUBLISHED_COSTS: usize = 4;

impl Staging<'_> {
    /// Adds the session to a topic of its library. Invalid for an empty name and for a service's
    /// own turns.
    pub fn subscribe(&mut self, topic: &[u8]) -> u32 {
        if topic.is_empty() || self.context.session.is_service() {
            return status::INVALID;
        }
        if topic.len() > self.context.limits.topic_name_bytes_max {
            return self.refuse(Limit::TopicNameBytesMax);
        }
        let (is_on, count) = self.own_topics(topic);
        if count >= self.context.limits.topics_per_session_max && !is_on {
            return self.refuse(Limit::TopicsPerSessionMax);
        }
        self.buffers.changes_topics = true;
        self.stage(|s| Some(Effect::Subscribe(s.copy(topic)?)))
    }

    /// Takes the session off a topic. If the session is not on it, nothing happens.
    pub fn unsubscribe(&mut self, topic: &[u8]) -> u32 {
        self.buffers.changes_topics = true;
        self.stage(|s| Some(Effect::Unsubscribe(s.copy(topic)?)))
    }

    /// Whether the session is on a topic, and the number of its topics. Turns of this batch count:
    /// they may have added or left some.
    fn own_topics(&mut self, topic: &[u8]) -> (bool, usize) {
        let context = self.context;
        let was_on = |topic: &[u8]| context.is_on(topic);
        let own = context.own_topics();
        if !self.buffers.changes_topics {
            return (was_on(topic), own);
        }
        let Buffers { bytes, effects, topics: staged, is_indexed, .. } = &mut *self.buffers;
        *is_indexed = true;
        staged.cover(bytes, effects, was_on);
        (staged.is_on(topic).unwrap_or_else(|| was_on(topic)), staged.count(own))
    }

    /// Number of sessions on a topic, as this batch found them. O(services).
    pub fn topic_len(&self, topic: &[u8]) -> usize {
        self.context.subscribers_of(topic)
    }

    /// Sends a message to every session on a topic, in the framing of each.
    ///
    /// A broadcast that follows on another one to the same sessions is merged with it, unless a
    /// framing in use tells messages apart. A merged one costs no effect and no record of its
    /// own.
    pub fn broadcast(&mut self, topic: &[u8], data: &[u8], how: Broadcast) -> u32 {
        let ending = ending(how);
        // The data must end the arena, so that more data extend it. The services are looked at
        // last, as that costs O(services).
        if let Some(Effect::Broadcast { to: Recipients::Topic(t), data: d, how: h }) =
            self.buffers.effects.last()
            && (h.others, h.drop_if_slow) == (how.others, how.drop_if_slow)
            && d.end == self.buffers.bytes.len()
            && self.buffers.part(t) == topic
            && !self.context.keeps_apart()
        {
            let Some(more) = self.copy_with(data, ending) else { return self.refuse(Limit::TurnBytesMax) };
            if let Some(Effect::Broadcast { data, .. }) = self.buffers.effects.last_mut() {
                data.end = more.end;
            }
            return status::OK;
        }
        if !self.reach(self.context.subscribers_of(topic)) {
            return self.refuse(Limit::TurnRecipientsMax);
        }
        self.stage(|s| {
            let to = Recipients::Topic(s.copy(topic)?);
            Some(Effect::Broadcast { to, data: s.copy_with(data, ending)?, how })
        })
    }

    /// Sends a message once to every session on any of several topics. For the limits of the turn,
    /// a session counts for each of the topics.
    pub fn broadcast_any<'t>(
        &mut self,
        topics: impl Iterator<Item = &'t [u8]> + Clone,
        data: &[u8],
        how: Broadcast,
    ) -> u32 {
        if !self.reach(topics.clone().map(|topic| self.context.subscribers_of(topic)).sum()) {
            return self.refuse(Limit::TurnRecipientsMax);
        }
        self.stage(|s| {
            let to = topics.map(|topic| s.copy(topic)).collect::<Option<_>>().map(Recipients::Topics)?;
            Some(Effect::Broadcast { to, data: s.copy_with(data, ending(how))?, how })
        })
    }

    /// Sends a message to another session of the library, or to this one, in its framing. If the
    /// session is gone, nothing happens.
    pub fn send_to(&mut self, session: u64, data: &[u8], how: Broadcast) -> u32 {
        if !self.reach(1) {
            return self.refuse(Limit::TurnRecipientsMax);
        }
        self.stage(|s| {
            let data = s.copy_with(data, ending(how))?;
            Some(Effect::Broadcast { to: Recipients::Session(session), data, how })
        })
    }

    /// Closes another session of the library, behind the actions that wait for it; or this one. If
    /// the session is gone, nothing happens.
    pub fn close_session(&mut self, session: u64) -> u32 {
        match session == self.context.session.id {
            true => self.close(),
            false => self.stage(|_| Some(Effect::CloseSession(session))),
        }
    }

    /// First topic of the library that is not before `from`, as this batch found them. The name is
    /// lent until the next call. O(services + log topics).
    pub fn topic_next(&mut self, from: &[u8]) -> Option<&[u8]> {
        self.work(ROW_NS);
        let name = self.context.topic_from(from)?;
        self.buffers.answer.clear();
        self.buffers.answer.extend_from_slice(name);
        Some(&self.buffers.answer)
    }

    /// Copies data and what follows on them into the arena, as [`Staging::copy`] does.
    fn copy_with(&mut self, data: &[u8], ending: &[u8]) -> Option<Part> {
        let start = self.copy(data)?.start;
        Some(start..self.copy(ending)?.end)
    }

    /// Depth of the actions that the turn under way causes; `None`: over `cascade_max`.
    fn deeper(&self) -> Option<u16> {
        let depth = self.context.depths.get(self.buffers.done).copied().unwrap_or(0).checked_add(1)?;
        (depth <= self.context.limits.cascade_max).then_some(depth)
    }

    /// Lets another session, or this one, run a turn over these bytes. If the session is gone by
    /// then, nothing happens.
    pub fn note(&mut self, to: u64, data: &[u8]) -> u32 {
        let Some(depth) = self.deeper() else { return self.refuse(Limit::CascadeMax) };
        // A note to itself is a turn of this session, and comes before its next message.
        self.buffers.on_itself |= to == self.context.session.id;
        self.stage(|s| Some(Effect::Note { to, data: s.copy(data)?, depth }))
    }

    /// Lets another session of the library, or this one, run a turn. Wakes that wait for one turn
    /// are one. A session that wakes itself has that turn in the next pass, before its next
    /// message, and however often: work in slices is no cascade. If the session is gone by then,
    /// nothing happens.
    pub fn wake(&mut self, to: u64) -> u32 {
        let own = to == self.context.session.id;
        let Some(depth) = (if own { Some(0) } else { self.deeper() }) else {
            return self.refuse(Limit::CascadeMax);
        };
        self.buffers.on_itself |= own;
        self.stage(|_| Some(Effect::Wake { to, depth }))
    }

    /// Lets the session run a turn once the kernel has taken its output. A wake that waits already
    /// comes first, and is that turn; so does a takeover. Invalid for a service's own turns.
    pub fn wake_when_drained(&mut self) -> u32 {
        match self.context.session.is_service() {
            true => status::INVALID,
            false => self.stage(|_| Some(Effect::WakeWhenDrained)),
        }
    }

    /// Bytes of output that the kernel had not taken when the batch began.
    pub fn unsent(&self) -> u64 {
        self.context.session.unsent()
    }

    /// First open session of the service whose number is above `after`. O(log sessions), and O(1)
    /// for each session of another service between.
    pub fn session_next(&mut self, after: u64) -> Option<u64> {
        let (found, looked_at) = self.context.session_above(after);
        self.work(looked_at * SESSION_NS);
        found
    }

    /// Lets every session on a topic run a turn over these bytes. `others`: but not this one.
    pub fn publish(&mut self, topic: &[u8], data: &[u8], others: bool) -> u32 {
        let Some(depth) = self.deeper() else { return self.refuse(Limit::CascadeMax) };
        if topic.len() > self.context.limits.topic_name_bytes_max {
            return self.refuse(Limit::TopicNameBytesMax);
        }
        // The session itself gets a turn if it is on the topic by now: that turn comes before
        // its next message.
        let (on, _) = self.own_topics(topic);
        if !self.reach(PUBLISHED_COSTS * self.context.subscribers_of(topic)) {
            return self.refuse(Limit::TurnRecipientsMax);
        }
        self.buffers.on_itself |= on && !others;
        self.stage(|s| Some(Effect::Publish { topic: s.copy(topic)?, data: s.copy(data)?, others, depth }))
    }
}

/// Ending of a broadcast's data.
fn ending(how: Broadcast) -> &'static [u8] {
    if how.line { b"\n" } else { b"" }
}
