//! Subscribe, broadcast, publish, note: effects on other sessions.
//!
//! A broadcast is output, and runs no code. A note or a published message is an action, so it
//! has a depth. The depth counts the turns between an action and something from outside.
//! `cascade_max` bounds it, so that turns can't cause each other for ever.

use super::effect::Part;
use super::staging::Staging;
use crate::limits::names::Limit;
use crate::turn::effect::Effect;
use greenroom_state::abi::status;

impl Staging<'_> {
    /// Adds the session to a topic. A name is one line, as a record lists names line by line.
    /// Invalid for an empty name and for a service's own turns.
    pub fn subscribe(&mut self, topic: &str) -> u32 {
        if topic.is_empty() || topic.contains('\n') || self.context.session.is_service() {
            return status::INVALID;
        }
        if topic.len() > self.context.limits.topic_name_bytes_max {
            return self.refuse(Limit::TopicNameBytesMax);
        }
        // Topics of this batch count as well: its earlier turns may have added or left some.
        let own = self.context.session.topics();
        let on = self.buffers.topics(own).unwrap_or(own);
        if on.len() >= self.context.limits.topics_per_session_max && !on.iter().any(|t| **t == *topic) {
            return self.refuse(Limit::TopicsPerSessionMax);
        }
        self.buffers.changes_topics = true;
        self.stage(|s| Some(Effect::Subscribe(s.copy(topic.as_bytes())?)))
    }

    /// Takes the session off a topic. If the session is not on it, nothing happens.
    pub fn unsubscribe(&mut self, topic: &str) -> u32 {
        self.buffers.changes_topics = true;
        self.stage(|s| Some(Effect::Unsubscribe(s.copy(topic.as_bytes())?)))
    }

    /// Sends a message to every session on a topic, in the framing of each. `others`: except to
    /// this one.
    ///
    /// A broadcast that follows on another one to the same sessions is merged with it, unless a
    /// framing in use tells messages apart. A merged one costs no effect and no record of its
    /// own.
    pub fn broadcast(&mut self, topic: &str, data: &[u8], others: bool) -> u32 {
        self.broadcast_with(topic, (data, b""), others)
    }

    /// Sends a line to every session on a topic, given without its ending: as a message with LF, or
    /// as text where a framing has that. `others`: except to this one.
    pub fn broadcast_line(&mut self, topic: &str, line: &[u8], others: bool) -> u32 {
        self.broadcast_with(topic, (line, b"\n"), others)
    }

    /// Sends data to every session on a topic. With an ending they are a line.
    fn broadcast_with(&mut self, topic: &str, (data, ending): (&[u8], &[u8]), others: bool) -> u32 {
        // The data must end the arena, so that more data extend it. The services are looked at
        // last, as that costs O(services).
        if let Some(Effect::Broadcast { topic: t, data: d, others: o, .. }) = self.buffers.effects.last()
            && *o == others
            && d.end == self.buffers.bytes.len()
            && self.buffers.text(t) == topic
            && !(self.context.keeps_messages_apart)()
        {
            let Some(more) = self.copy_with(data, ending) else { return self.refuse(Limit::TurnBytesMax) };
            if let Some(Effect::Broadcast { data, .. }) = self.buffers.effects.last_mut() {
                data.end = more.end;
            }
            return status::OK;
        }
        if !self.reach(topic) {
            return self.refuse(Limit::TurnRecipientsMax);
        }
        self.stage(|s| {
            let topic = s.copy(topic.as_bytes())?;
            Some(Effect::Broadcast {
                topic,
                data: s.copy_with(data, ending)?,
                others,
                line: !ending.is_empty(),
            })
        })
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

    /// Lets every session on a topic run a turn over these bytes. `others`: but not this one.
    pub fn publish(&mut self, topic: &str, data: &[u8], others: bool) -> u32 {
        let Some(depth) = self.deeper() else { return self.refuse(Limit::CascadeMax) };
        if topic.len() > self.context.limits.topic_name_bytes_max {
            return self.refuse(Limit::TopicNameBytesMax);
        }
        let own = self.context.session.topics();
        // The session itself gets a turn if it is on the topic by now: that turn comes before
        // its next message.
        let on = self.buffers.topics(own).unwrap_or(own).iter().any(|t| **t == *topic);
        if !self.reach(topic) {
            return self.refuse(Limit::TurnRecipientsMax);
        }
        self.buffers.on_itself |= on && !others;
        self.stage(|s| {
            Some(Effect::Publish { topic: s.copy(topic.as_bytes())?, data: s.copy(data)?, others, depth })
        })
    }
}
