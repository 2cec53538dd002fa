//! What a turn may ask for. All of it is staged: it is applied when the turn succeeds, and forgotten when it fails.
//!
//! A batch shares one staging area. [`Staging::turn_ok`] moves the mark up to which everything counts;
//! [`Staging::turn_failed`] cuts back to it. All bytes lie in one arena, and consecutive sends are one effect, so a batch of
//! echoes costs one copy of its bytes and one effect.

use crate::effects::asked::{
    ACTION_HEAD, ADDR_BYTES_MAX, CONNECT_HEAD, Connects, JOB_HEAD, Jobs, SHARED_FROM_BYTES,
};
use crate::effects::timers::{TIMER_HEAD, Timers};
use crate::ids::ServiceId;
use crate::limits::host::{BATCH_BYTES, Limits};
use crate::limits::names::Limit;
use crate::session::life::OUTPUT_HEAD;
use crate::session::life::Session;
use crate::session::output::SHARED_PIECE;
use crate::store::records::Store;
use crate::tables::entry::overhead;
use crate::tables::index::Tables;
use crate::turn::effect::Effect;
use crate::turn::effect::Part;
use crate::turn::fault::Fault;
use crate::turn::fault::LogLine;
use greenroom_state::abi::{fault, status};
use std::fmt::Write as _;

/// The memory of staging, kept from batch to batch.
#[derive(Debug, Default)]
pub(crate) struct Buffers {
    pub(crate) bytes: Vec<u8>,
    pub(crate) effects: Vec<Effect>,
    pub(crate) log: Vec<LogLine>,
    /// Bytes that the turn under way logged.
    log_bytes: usize,
    /// Answers to reads, valid until the next call.
    answer: Vec<u8>,
    pub(crate) state: Vec<u8>,
    pub(crate) has_state: bool,
    /// Turns that succeeded.
    pub(crate) done: usize,
    /// Why the one after those failed.
    pub(crate) fault: Option<Fault>,
    /// A turn that the handler took for done was not: the state that it hands over has that turn in it.
    pub(crate) spoilt: bool,
    /// A successful turn closed the session.
    pub(crate) close: bool,
    /// The turn under way acted on its own session: what that brings about comes before the next action.
    on_itself: bool,
    /// Limits that what it asked for was refused by.
    pub(crate) reached: Vec<Limit>,
    /// Of the keys and values that were written.
    put_bytes: usize,
    mark: Mark,
}

/// Up to where everything belongs to turns that succeeded.
#[derive(Debug, Default, Clone, Copy)]
struct Mark {
    bytes: usize,
    effects: usize,
    /// Where the bytes end that the last effect sends: the next turn may have extended it.
    last_sent_end: usize,
    log: usize,
}

impl Buffers {
    /// Drops what no successful turn staged.
    pub(crate) fn cut(&mut self) {
        self.bytes.truncate(self.mark.bytes);
        self.effects.truncate(self.mark.effects);
        if let Some(Effect::Send(part) | Effect::Broadcast { data: part, .. }) = self.effects.last_mut() {
            part.end = self.mark.last_sent_end;
        }
    }

    pub(crate) fn clear(&mut self) {
        self.bytes.clear();
        self.effects.clear();
        self.log.clear();
        self.log_bytes = 0;
        self.has_state = false;
        self.done = 0;
        self.fault = None;
        self.spoilt = false;
        self.close = false;
        self.on_itself = false;
        self.put_bytes = 0;
        self.reached.clear();
        self.mark = Mark::default();
    }
}

/// A value of a table, which is stored in some version, as its owner has it; `Ok(None)`: it is that already.
pub(crate) type Convert<'a> = dyn Fn(&str, u32, &[u8]) -> Result<Option<Vec<u8>>, String> + 'a;

/// What a turn may read, and what bounds it.
#[derive(Clone, Copy)]
pub(crate) struct TurnContext<'a> {
    pub(crate) store: &'a Store,
    pub(crate) tables: &'a Tables,
    pub(crate) convert: &'a Convert<'a>,
    pub(crate) limits: &'a Limits,
    pub(crate) session: &'a Session,
    pub(crate) timers: &'a Timers,
    pub(crate) jobs: &'a Jobs,
    pub(crate) connects: &'a Connects,
    /// The service of a name, if it is served.
    pub(crate) service: &'a dyn Fn(&str) -> Option<ServiceId>,
    /// How many turns lie between each of the actions and something that came from outside; what is missing is 0.
    pub(crate) depths: &'a [u16],
    pub(crate) now_ns: u64,
}

/// One batch's staging area, with what it may read.
pub struct Staging<'a> {
    buffers: &'a mut Buffers,
    around: TurnContext<'a>,
    actions: usize,
    closing: bool,
    /// A value that the turn wanted can't be read: it must not succeed as if there were none.
    unreadable: Option<String>,
    /// Why the last call was refused, for a fault that follows from it.
    refusal: Option<Limit>,
}

impl<'a> Staging<'a> {
    pub(crate) fn new(buffers: &'a mut Buffers, around: TurnContext<'a>, actions: usize) -> Self {
        buffers.clear();
        Staging { buffers, around, actions, closing: false, unreadable: None, refusal: None }
    }

    /// The turn succeeded. False: return now.
    #[inline]
    pub fn turn_ok(&mut self) -> bool {
        if self.unreadable.is_some() {
            self.fail_unreadable();
        }
        let b = &mut *self.buffers;
        if b.fault.is_some() || b.done == self.actions {
            return false;
        }
        b.done += 1;
        b.log_bytes = 0;
        self.refusal = None;
        b.close |= self.closing;
        b.mark = Mark {
            bytes: b.bytes.len(),
            effects: b.effects.len(),
            last_sent_end: match b.effects.last() {
                Some(Effect::Send(part) | Effect::Broadcast { data: part, .. }) => part.end,
                _ => 0,
            },
            log: b.log.len(),
        };
        !b.close && !b.on_itself && b.done < self.actions && b.bytes.len() < BATCH_BYTES
    }

    #[cold]
    fn fail_unreadable(&mut self) {
        let message = self.unreadable.take().unwrap_or_default();
        self.turn_failed(Fault { kind: fault::ERROR, message, file: String::new(), line: 0 });
        self.buffers.spoilt = true;
    }

    /// The turn failed: what it staged is dropped, but for what it logged. After the last turn it says that the state
    /// can't be handed over.
    pub fn turn_failed(&mut self, mut fault: Fault) {
        let b = &mut *self.buffers;
        if b.fault.is_some() {
            return;
        }
        b.cut();
        for line in &mut b.log[b.mark.log..] {
            line.failed = true;
        }
        if let Some(limit) = self.refusal {
            let _ = write!(fault.message, " ({limit})");
        }
        b.fault = Some(fault);
        b.on_itself = false;
        self.closing = false;
    }

    /// The state that the successful turns left.
    pub fn state(&mut self, bytes: &[u8]) {
        if self.around.session.is_service() {
            return;
        }
        let b = &mut *self.buffers;
        b.state.clear();
        b.state.extend_from_slice(bytes);
        b.has_state = true;
    }

    /// The peer's address.
    pub fn peer(&mut self) -> &[u8] {
        let answer = &mut self.buffers.answer;
        answer.clear();
        use std::io::Write;
        let _ = write!(answer, "{}", self.around.session.peer);
        answer
    }

    fn refuse(&mut self, limit: Limit) -> u32 {
        self.buffers.reached.push(limit);
        self.refusal = Some(limit);
        status::LIMIT
    }

    /// Copies into the arena, if it has room.
    fn keep(&mut self, bytes: &[u8]) -> Option<Part> {
        let arena = &mut self.buffers.bytes;
        if bytes.len()
            > self.around.limits.turn_bytes_max.saturating_sub(arena.len() - self.buffers.mark.bytes)
        {
            return None;
        }
        let start = arena.len();
        arena.extend_from_slice(bytes);
        Some(start..arena.len())
    }

    /// Sends to the session's peer.
    pub fn send(&mut self, bytes: &[u8]) -> u32 {
        self.send_parts(std::iter::once(bytes))
    }

    /// Sends parts to the session's peer, one behind the other; all of them or none.
    #[inline]
    pub fn send_parts<'b>(&mut self, parts: impl Iterator<Item = &'b [u8]>) -> u32 {
        if self.around.session.is_service() {
            return status::INVALID;
        }
        let start = self.buffers.bytes.len();
        let most = self.around.limits.turn_bytes_max + self.buffers.mark.bytes;
        let arena = &mut self.buffers.bytes;
        for part in parts {
            if part.len() > most.saturating_sub(arena.len()) {
                arena.truncate(start);
                return self.refuse(Limit::TurnBytesMax);
            }
            arena.extend_from_slice(part);
        }
        let part = start..arena.len();
        match self.buffers.effects.last_mut() {
            Some(Effect::Send(last)) if last.end == part.start => last.end = part.end,
            _ => self.buffers.effects.push(Effect::Send(part)),
        }
        status::OK
    }

    /// Closes the session once its output is flushed.
    pub fn close(&mut self) -> u32 {
        if self.around.session.is_service() {
            return status::INVALID;
        }
        self.closing = true;
        status::OK
    }

    /// Adds the session to a topic. A name is one line: that is how records list them.
    pub fn subscribe(&mut self, topic: &str) -> u32 {
        if topic.is_empty() || topic.contains('\n') || self.around.session.is_service() {
            return status::INVALID;
        }
        if topic.len() > self.around.limits.topic_name_bytes_max {
            return self.refuse(Limit::TopicNameBytesMax);
        }
        let own = self.around.session.topics();
        let on = self.buffers.topics(own).unwrap_or_else(|| own.iter().map(|t| &**t).collect());
        if on.len() >= self.around.limits.topics_per_session_max && !on.contains(&topic) {
            return self.refuse(Limit::TopicsPerSessionMax);
        }
        self.stage(|s| Some(Effect::Subscribe(s.keep(topic.as_bytes())?)))
    }

    /// Takes the session off a topic.
    pub fn unsubscribe(&mut self, topic: &str) -> u32 {
        self.stage(|s| Some(Effect::Unsubscribe(s.keep(topic.as_bytes())?)))
    }

    /// Sends bytes to every session on a topic; `others`: but not to this one. What follows on another broadcast to the same sessions
    /// is one with it.
    pub fn broadcast(&mut self, topic: &str, data: &[u8], others: bool) -> u32 {
        if let Some(Effect::Broadcast { topic: t, data: d, others: o }) = self.buffers.effects.last()
            && *o == others
            && d.end == self.buffers.bytes.len()
            && self.buffers.text(t) == topic
        {
            let Some(more) = self.keep(data) else { return self.refuse(Limit::TurnBytesMax) };
            if let Some(Effect::Broadcast { data, .. }) = self.buffers.effects.last_mut() {
                data.end = more.end;
            }
            return status::OK;
        }
        self.stage(|s| {
            Some(Effect::Broadcast { topic: s.keep(topic.as_bytes())?, data: s.keep(data)?, others })
        })
    }

    /// How deep what the turn under way causes would be; `None`: too deep.
    fn deeper(&self) -> Option<u16> {
        let depth = self.around.depths.get(self.buffers.done).copied().unwrap_or(0).checked_add(1)?;
        (depth <= self.around.limits.cascade_max).then_some(depth)
    }

    /// Has another session, or this one, run a turn over these bytes. One that is gone doesn't.
    pub fn note(&mut self, to: u64, data: &[u8]) -> u32 {
        let Some(depth) = self.deeper() else { return self.refuse(Limit::CascadeMax) };
        self.buffers.on_itself |= to == self.around.session.id;
        self.stage(|s| Some(Effect::Note { to, data: s.keep(data)?, depth }))
    }

    /// Has every session on a topic run a turn over these bytes; `others`: but not this one.
    pub fn publish(&mut self, topic: &str, data: &[u8], others: bool) -> u32 {
        let Some(depth) = self.deeper() else { return self.refuse(Limit::CascadeMax) };
        if topic.len() > self.around.limits.topic_name_bytes_max {
            return self.refuse(Limit::TopicNameBytesMax);
        }
        let own = self.around.session.topics();
        let on = match self.buffers.topics(own) {
            Some(on) => on.contains(&topic),
            None => own.iter().any(|t| **t == *topic),
        };
        self.buffers.on_itself |= on && !others;
        self.stage(|s| {
            Some(Effect::Publish { topic: s.keep(topic.as_bytes())?, data: s.keep(data)?, others, depth })
        })
    }

    /// Sets a timer, or sets it again: after so many nanoseconds it fires once. `service`: not this session's, but its service's.
    pub fn set_timer(&mut self, name: &str, after_ns: u64, service: bool) -> u32 {
        let TurnContext { limits, timers, session, now_ns, .. } = self.around;
        if name.len() > limits.timer_name_bytes_max {
            return self.refuse(Limit::TimerNameBytesMax);
        }
        let (owner, max, limit) = match service {
            true => (session.service.number(), limits.timers_per_service_max, Limit::TimersPerServiceMax),
            false => (session.id, limits.timers_per_session_max, Limit::TimersPerSessionMax),
        };
        if timers.count(owner) + self.buffers.effects.len() >= max
            && self.timers_after(owner, service, name) > max
        {
            return self.refuse(limit);
        }
        self.acts_on(service);
        let deadline_ns = now_ns.saturating_add(after_ns);
        self.stage(|s| Some(Effect::SetTimer { service, name: s.keep(name.as_bytes())?, deadline_ns }))
    }

    /// How many timers there would be with this one, and what was staged so far.
    fn timers_after(&self, owner: u64, service: bool, name: &str) -> usize {
        let timers = self.around.timers;
        let mut seen = vec![name];
        let mut count = (timers.count(owner) + usize::from(!timers.contains(owner, name))) as i64;
        for effect in self.buffers.effects.iter().rev() {
            let (name, now) = match effect {
                Effect::SetTimer { service: s, name, .. } if *s == service => (self.buffers.text(name), true),
                Effect::CancelTimer { service: s, name } if *s == service => (self.buffers.text(name), false),
                _ => continue,
            };
            if !seen.contains(&name) {
                seen.push(name);
                count += i64::from(now) - i64::from(timers.contains(owner, name));
            }
        }
        count.max(0) as usize
    }

    /// Takes a timer off, even one that is due; no harm if there is none.
    pub fn cancel_timer(&mut self, name: &str, service: bool) -> u32 {
        self.acts_on(service);
        self.stage(|s| Some(Effect::CancelTimer { service, name: s.keep(name.as_bytes())? }))
    }

    /// A timer that is due may be among the actions that follow.
    fn acts_on(&mut self, service: bool) {
        let own = !service || self.around.session.is_service();
        self.buffers.on_itself |= own && !self.around.depths.is_empty();
    }

    /// Has a job run on another thread, and returns its number; `Err`: it is refused.
    pub fn start_job(&mut self, name: &str, input: &[u8], once: bool) -> Result<u64, u32> {
        let TurnContext { limits, jobs, session, .. } = self.around;
        if name.len() > limits.job_name_bytes_max {
            return Err(self.refuse(Limit::JobNameBytesMax));
        }
        let staged = self.buffers.effects.iter().filter(|e| matches!(e, Effect::StartJob { .. })).count();
        let number = jobs.next() + staged as u64;
        // Those that were started and cancelled in one go never were.
        let fresh = |e: &&Effect| matches!(e, Effect::CancelJob(n) if *n >= jobs.next() && *n < number);
        let staged = staged.saturating_sub(self.buffers.effects.iter().filter(fresh).count());
        if jobs.len() + staged >= limits.jobs_max {
            return Err(self.refuse(Limit::JobsMax));
        }
        if jobs.count(session.id) + staged >= limits.jobs_per_session_max && !session.is_service() {
            return Err(self.refuse(Limit::JobsPerSessionMax));
        }
        let staged = self.stage(|s| {
            let (name, input) = (s.keep(name.as_bytes())?, s.keep(input)?);
            Some(Effect::StartJob { number, name, input, once })
        });
        if staged == status::OK { Ok(number) } else { Err(staged) }
    }

    /// Cancels a job of this session; no harm if it is over. Its result isn't told.
    pub fn cancel_job(&mut self, number: u64) -> u32 {
        // Its result may be among the actions that follow.
        self.buffers.on_itself |= !self.around.depths.is_empty();
        self.stage(|_| Some(Effect::CancelJob(number)))
    }

    /// Opens a connection, which becomes a session of that service, and returns its number; `Err`: it is refused.
    pub fn connect(&mut self, service: &str, addr: &str, context: &[u8]) -> Result<u64, u32> {
        let TurnContext { limits, connects, .. } = self.around;
        let (Some(service), Ok(addr)) = ((self.around.service)(service), addr.parse()) else {
            return Err(status::INVALID);
        };
        let staged = self.buffers.effects.iter().filter(|e| matches!(e, Effect::Connect { .. })).count();
        if connects.len() + staged >= limits.connects_max {
            return Err(self.refuse(Limit::ConnectsMax));
        }
        let number = connects.next() + staged as u64;
        let staged =
            self.stage(|s| Some(Effect::Connect { number, service, addr, context: s.keep(context)? }));
        if staged == status::OK { Ok(number) } else { Err(staged) }
    }

    /// If another session's peer leaves too much output untaken, this one's input waits for it.
    pub fn wait_for(&mut self, session: u64) -> u32 {
        self.stage(|_| Some(Effect::WaitFor(session)))
    }

    /// From here on the session's input waits, unread; or goes on.
    pub fn hold(&mut self, held: bool) -> u32 {
        if self.around.session.is_service() {
            return status::INVALID;
        }
        self.buffers.on_itself = true;
        self.stage(|_| Some(Effect::Hold(held)))
    }

    /// How many entries a table has, with this batch's writes.
    pub fn table_len(&self, table: &str) -> u64 {
        let bytes = &self.buffers.bytes;
        let mut len = self.around.tables.count(table) as i64;
        let mut seen: Vec<&[u8]> = Vec::new();
        for effect in self.buffers.effects.iter().rev() {
            let (t, key, now) = match effect {
                Effect::Put { table, key, .. } => (table, key, true),
                Effect::Delete { table, key } => (table, key, false),
                _ => continue,
            };
            let key = &bytes[key.clone()];
            if &bytes[t.clone()] == table.as_bytes() && !seen.contains(&key) {
                seen.push(key);
                len += i64::from(now) - i64::from(self.around.tables.has(table, key));
            }
        }
        len.max(0) as u64
    }

    /// Writes a table's entry.
    pub fn table_put(&mut self, table: &str, key: &[u8], value: &[u8]) -> u32 {
        if !greenroom_state::elf_note::is_name(table) {
            return status::INVALID;
        }
        if key.len() > self.around.limits.table_key_bytes_max {
            return self.refuse(Limit::TableKeyBytesMax);
        }
        if value.len() > self.around.limits.table_value_bytes_max {
            return self.refuse(Limit::TableValueBytesMax);
        }
        let tables = self.around.tables;
        if !tables.contains(table)
            && !self.has_begun(table)
            && self.tables_after(table) > self.around.limits.tables_max
        {
            return self.refuse(Limit::TablesMax);
        }
        let (max, more) = (self.around.limits.table_bytes_max, key.len() + value.len());
        // As if all were written to this table, and none of the keys were there; only near the limit it is looked at closely.
        const FULL: Limit = Limit::TableBytesMax;
        let full = || self.refusal == Some(FULL) || self.table_bytes_after(table, key, value) > max;
        if tables.bytes(table) + self.buffers.put_bytes + more > max && full() {
            return self.refuse(FULL);
        }
        self.buffers.put_bytes += more;
        self.stage(|s| {
            let (table, key) = (s.keep(table.as_bytes())?, s.keep(key)?);
            Some(Effect::Put { table, key, value: s.keep(value)? })
        })
    }

    /// Whether this batch has written to a table before: then it was counted.
    fn has_begun(&self, table: &str) -> bool {
        let bytes = &self.buffers.bytes;
        let is =
            |e: &Effect| matches!(e, Effect::Put { table: t, .. } if &bytes[t.clone()] == table.as_bytes());
        self.buffers.effects.iter().any(is)
    }

    /// How many tables there would be with this new one, and what was staged so far.
    fn tables_after(&self, table: &str) -> usize {
        let mut new = vec![table];
        for effect in &self.buffers.effects {
            if let Effect::Put { table, .. } = effect
                && let name = self.buffers.text(table)
                && !self.around.tables.contains(name)
                && !new.contains(&name)
            {
                new.push(name);
            }
        }
        self.around.tables.len() + new.len()
    }

    /// Bytes that a table would have with this write, and what was staged so far.
    fn table_bytes_after(&self, table: &str, key: &[u8], value: &[u8]) -> usize {
        let TurnContext { store, tables, .. } = self.around;
        let stored = |key: &[u8]| tables.entry_bytes(store, table, key);
        let mut bytes = (tables.bytes(table) + key.len() + value.len()) as i64 - stored(key) as i64;
        let mut seen = std::collections::HashSet::from([key]);
        for effect in self.buffers.effects.iter().rev() {
            let (t, key, now) = match effect {
                Effect::Put { table, key, value } => (table, key, key.len() + value.len()),
                Effect::Delete { table, key } => (table, key, 0),
                _ => continue,
            };
            let key = &self.buffers.bytes[key.clone()];
            if self.buffers.text(t) == table && seen.insert(key) {
                bytes += now as i64 - stored(key) as i64;
            }
        }
        bytes.max(0) as usize
    }

    /// Deletes a table's entry.
    pub fn table_delete(&mut self, table: &str, key: &[u8]) -> u32 {
        self.stage(|s| Some(Effect::Delete { table: s.keep(table.as_bytes())?, key: s.keep(key)? }))
    }

    fn stage(&mut self, make: impl FnOnce(&mut Self) -> Option<Effect>) -> u32 {
        match make(self) {
            Some(effect) => {
                self.buffers.effects.push(effect);
                status::OK
            }
            None => self.refuse(Limit::TurnBytesMax),
        }
    }

    /// What this batch did to an entry: its new value, `Some(None)` for a deletion, `None` for nothing.
    fn overlay(&self, table: &str, key: &[u8]) -> Option<Option<Part>> {
        let bytes = &self.buffers.bytes;
        let same = |t: &Part, k: &Part| &bytes[t.clone()] == table.as_bytes() && &bytes[k.clone()] == key;
        self.buffers.effects.iter().rev().find_map(|e| match e {
            Effect::Put { table: t, key: k, value } if same(t, k) => Some(Some(value.clone())),
            Effect::Delete { table: t, key: k } if same(t, k) => Some(None),
            _ => None,
        })
    }

    /// Reads a table's entry; this batch's own writes are seen.
    pub fn table_get(&mut self, table: &str, key: &[u8]) -> Option<&[u8]> {
        let staged = self.overlay(table, key);
        let answer = &mut self.buffers.answer;
        answer.clear();
        match staged {
            Some(Some(part)) => answer.extend_from_slice(&self.buffers.bytes[part]),
            Some(None) => return None,
            None => {
                let TurnContext { store, tables, convert, .. } = self.around;
                let stored = tables.get(store, table, key, answer)?;
                match convert(table, stored, answer) {
                    Ok(None) => {}
                    Ok(Some(value)) => *answer = value,
                    Err(why) => {
                        let key = String::from_utf8_lossy(key);
                        self.unreadable =
                            Some(format!("the entry {key:?} of table {table} can't be read: {why}"));
                        return None;
                    }
                }
            }
        }
        Some(&self.buffers.answer[..])
    }

    /// The first entry at or after `from` whose key starts with `prefix`: key and value.
    pub fn table_next(&mut self, table: &str, prefix: &[u8], from: &[u8]) -> Option<(&[u8], &[u8])> {
        let from = from.max(prefix);
        let bytes = &self.buffers.bytes;
        let tables = self.around.tables;
        let kept = tables
            .keys_from(table, from)
            .take_while(|k| k.starts_with(prefix))
            .find(|k| self.overlay(table, k) != Some(None));
        let staged = self.buffers.effects.iter().filter_map(|e| match e {
            Effect::Put { table: t, key, .. } if &bytes[t.clone()] == table.as_bytes() => {
                Some(&bytes[key.clone()])
            }
            _ => None,
        });
        let staged = staged
            .filter(|k| *k >= from && k.starts_with(prefix))
            .filter(|k| matches!(self.overlay(table, k), Some(Some(_))))
            .min();
        let key = match (kept, staged) {
            (Some(a), Some(b)) => a.min(b),
            (a, b) => a.or(b)?,
        }
        .to_vec();
        self.table_get(table, &key)?;
        let answer = &mut self.buffers.answer;
        let value_len = answer.len();
        answer.extend_from_slice(&key);
        let (value, key) = answer.split_at(value_len);
        Some((key, value))
    }

    /// Logs an event.
    pub fn log(&mut self, level: u32, target: &str, message: &str) {
        let b = &mut *self.buffers;
        b.log_bytes += message.len() + target.len();
        if b.log_bytes <= self.around.limits.turn_bytes_max {
            b.log.push(LogLine { level, target: target.into(), message: message.into(), failed: false });
        }
    }
}

impl Buffers {
    /// The lengths of the records that applying writes, at most. `subscribers` counts those of a topic, `own` the bytes of the
    /// session's topics so far.
    pub(crate) fn record_lens(
        &self,
        subscribers: impl Fn(&str) -> usize,
        own: &[Box<str>],
    ) -> impl Iterator<Item = usize> {
        let state = self.has_state.then_some(self.state.len());
        let topics = self.topics(own).map(|on| on.iter().map(|t| t.len() + 1).sum::<usize>());
        let effects = self.effects.iter().flat_map(move |effect| {
            let (len, times) = match effect {
                Effect::Send(part) => (OUTPUT_HEAD + part.len(), 1),
                Effect::Broadcast { topic, data, .. } => {
                    let shared = data.len() >= SHARED_FROM_BYTES;
                    let piece = if shared { SHARED_PIECE } else { OUTPUT_HEAD + data.len() };
                    (piece, subscribers(self.text(topic)))
                }
                Effect::Put { table, key, value } => {
                    (overhead(self.text(table), &self.bytes[key.clone()]) + value.len(), 1)
                }
                Effect::Note { data, .. } => (ACTION_HEAD + data.len(), 1),
                Effect::Publish { topic, data, .. } => {
                    let own = if data.len() < SHARED_FROM_BYTES { data.len() } else { 0 };
                    (ACTION_HEAD + topic.len() + own, subscribers(self.text(topic)))
                }
                Effect::SetTimer { name, .. } => (TIMER_HEAD + name.len(), 1),
                Effect::StartJob { name, input, .. } => (JOB_HEAD + name.len() + input.len(), 1),
                // One record lists all topics.
                Effect::Subscribe(_)
                | Effect::Unsubscribe(_)
                | Effect::Delete { .. }
                | Effect::CancelTimer { .. }
                | Effect::CancelJob(_)
                | Effect::WaitFor(_)
                | Effect::Hold(_) => (0, 0),
                Effect::Connect { context, .. } => (CONNECT_HEAD + ADDR_BYTES_MAX + context.len(), 1),
            };
            std::iter::repeat_n(len, times)
        });
        let shared = self.effects.iter().filter_map(|effect| match effect {
            Effect::Publish { data, .. } | Effect::Broadcast { data, .. } => {
                // To one alone it isn't named, but written.
                (data.len() >= SHARED_FROM_BYTES).then_some(OUTPUT_HEAD + data.len())
            }
            _ => None,
        });
        state.into_iter().chain(topics).chain(effects).chain(shared)
    }

    /// The topics that the session will be on, in order; `None`: nothing about them was staged.
    pub(crate) fn topics<'b>(&'b self, own: &'b [Box<str>]) -> Option<Vec<&'b str>> {
        let about = |e: &&Effect| matches!(e, Effect::Subscribe(_) | Effect::Unsubscribe(_));
        let mut staged = self.effects.iter().filter(about).peekable();
        staged.peek()?;
        let mut on: Vec<_> = own.iter().map(|t| &**t).collect();
        for effect in staged {
            match effect {
                Effect::Subscribe(topic) if !on.contains(&self.text(topic)) => on.push(self.text(topic)),
                Effect::Unsubscribe(topic) => on.retain(|t| *t != self.text(topic)),
                _ => {}
            }
        }
        Some(on)
    }

    /// A part that was staged as text.
    pub(crate) fn text(&self, part: &Part) -> &str {
        std::str::from_utf8(&self.bytes[part.clone()]).unwrap_or_default()
    }
}
