//! Records of the effects that a call has staged.
//!
//! The `match` has no wildcard: an effect that is added does not compile until it is told.

use super::effect::{Broadcast, Effect, Part, Recipients};
use super::effect_record::EffectRecord;
use super::staging::Buffers;
use crate::ids::ServiceId;
use greenroom_state::byte_text::ByteText;

/// Effects of a call, with the names of services. `now_ns`: the time of the pass.
pub(super) fn effect_records(
    staged: &Buffers,
    now_ns: u64,
    service: &dyn Fn(ServiceId) -> String,
) -> Vec<EffectRecord> {
    staged.effects.iter().map(|effect| Telling { staged, now_ns, service }.tell(effect)).collect()
}

/// Sources of the record of an effect.
struct Telling<'a> {
    staged: &'a Buffers,
    now_ns: u64,
    service: &'a dyn Fn(ServiceId) -> String,
}

impl Telling<'_> {
    /// A part of the arena.
    fn part(&self, part: &Part) -> Option<ByteText> {
        Some(self.staged.part(part).into())
    }

    /// Time from now until a time.
    fn until(&self, at_ns: u64) -> Option<u64> {
        Some(at_ns.saturating_sub(self.now_ns))
    }

    /// Record of one effect.
    fn tell(&self, effect: &Effect) -> EffectRecord {
        let none = EffectRecord::default();
        let (mut record, name) = match effect {
            Effect::Send(data) => (EffectRecord { data: self.part(data), ..none }, "send"),
            Effect::Broadcast { to, data, how } => (self.broadcast(to, data, *how), "broadcast"),
            Effect::CloseSession(id) => (EffectRecord { session: Some(*id), ..none }, "close session"),
            Effect::Subscribe(topic) => (EffectRecord { name: self.part(topic), ..none }, "subscribe"),
            Effect::Unsubscribe(topic) => (EffectRecord { name: self.part(topic), ..none }, "unsubscribe"),
            Effect::Register(name) => (EffectRecord { name: self.part(name), ..none }, "register"),
            Effect::Unregister(name) => (EffectRecord { name: self.part(name), ..none }, "unregister"),
            Effect::Put { table, key, value, until } => {
                let (table, key) = (self.part(table), self.part(key));
                (EffectRecord { table, key, data: self.part(value), until_ms: *until, ..none }, "put")
            }
            Effect::Delete { table, key } => {
                (EffectRecord { table: self.part(table), key: self.part(key), ..none }, "delete")
            }
            Effect::DropPrefix { table, prefix } => {
                let (table, key) = (self.part(table), self.part(prefix));
                (EffectRecord { table, key, ..none }, "drop prefix")
            }
            Effect::Note { to, data, .. } => {
                (EffectRecord { session: Some(*to), data: self.part(data), ..none }, "note")
            }
            Effect::Wake { to, .. } => (EffectRecord { session: Some(*to), ..none }, "wake"),
            Effect::WakeWhenDrained => (none, "wake when drained"),
            Effect::Publish { topic, data, others, .. } => {
                let how = ways(&[(*others, "others")]);
                (EffectRecord { name: self.part(topic), data: self.part(data), how, ..none }, "publish")
            }
            Effect::SetTimer { service, name, deadline_ns } => {
                let (name, how) = (self.part(name), ways(&[(*service, "of-service")]));
                (EffectRecord { name, in_ns: self.until(*deadline_ns), how, ..none }, "set timer")
            }
            Effect::CancelTimer { service, name } => {
                let how = ways(&[(*service, "of-service")]);
                (EffectRecord { name: self.part(name), how, ..none }, "cancel timer")
            }
            other => self.tell_other(other),
        };
        record.effect = name.to_owned();
        record
    }

    /// Record of a rarer effect.
    fn tell_other(&self, effect: &Effect) -> (EffectRecord, &'static str) {
        let none = EffectRecord::default();
        match effect {
            Effect::StartJob { number, name, input, once } => {
                let (name, data) = (self.part(name), self.part(input));
                let (number, how) = (Some(*number), ways(&[(*once, "once")]));
                (EffectRecord { name, data, number, how, ..none }, "start job")
            }
            Effect::CancelJob(number) => (EffectRecord { number: Some(*number), ..none }, "cancel job"),
            Effect::Connect { number, service, addr, over_tls, context } => {
                let record = EffectRecord {
                    number: Some(*number),
                    service: Some((self.service)(*service)),
                    address: Some(addr.stored_text()),
                    name: over_tls.as_ref().and_then(|name| self.part(name)),
                    data: self.part(context),
                    ..none
                };
                (record, "connect")
            }
            Effect::WaitFor(id) => (EffectRecord { session: Some(*id), ..none }, "wait for"),
            Effect::Framing(state) => {
                (EffectRecord { data: Some(state.stored().into()), ..none }, "change framing")
            }
            Effect::Datagram { to, data, .. } => {
                let (address, data) = (Some(to.to_string()), self.part(data));
                (EffectRecord { address, data, ..none }, "datagram")
            }
            Effect::StartTls(name) => (EffectRecord { name: self.part(name), ..none }, "start tls"),
            Effect::Take { bucket, full_at_ns } => {
                let (number, in_ns) = (Some(*bucket), self.until(*full_at_ns));
                (EffectRecord { number, in_ns, ..none }, "take token")
            }
            Effect::FrameMax(bytes) => {
                (EffectRecord { number: Some((*bytes).into()), ..none }, "bound messages")
            }
            Effect::IdleAfter(ns) => (EffectRecord { in_ns: Some(*ns), ..none }, "tell of silence"),
            Effect::Hold(on) => (EffectRecord { how: ways(&[(*on, "on")]), ..none }, "hold"),
            Effect::Send(_)
            | Effect::Broadcast { .. }
            | Effect::CloseSession(_)
            | Effect::Subscribe(_)
            | Effect::Unsubscribe(_)
            | Effect::Register(_)
            | Effect::Unregister(_)
            | Effect::Put { .. }
            | Effect::Delete { .. }
            | Effect::DropPrefix { .. }
            | Effect::Note { .. }
            | Effect::Wake { .. }
            | Effect::WakeWhenDrained
            | Effect::Publish { .. }
            | Effect::SetTimer { .. }
            | Effect::CancelTimer { .. } => unreachable!("told above"),
        }
    }

    /// Record of a broadcast. A line has its ending in its data.
    fn broadcast(&self, to: &Recipients, data: &Part, how: Broadcast) -> EffectRecord {
        let (topics, session) = match to {
            Recipients::Topic(topic) => (self.part(topic).into_iter().collect(), None),
            Recipients::Topics(topics) => (topics.iter().filter_map(|t| self.part(t)).collect(), None),
            Recipients::Session(id) => (Vec::new(), Some(*id)),
        };
        let how = ways(&[(how.others, "others"), (how.drop_if_slow, "drop-if-slow")]);
        EffectRecord { topics, session, data: self.part(data), how, ..EffectRecord::default() }
    }
}

/// Names of those ways that hold.
fn ways(all: &[(bool, &str)]) -> Vec<String> {
    all.iter().filter(|(holds, _)| *holds).map(|(_, name)| (*name).to_owned()).collect()
}
