//! What a turn may ask for. All of it is staged: it is applied when the turn succeeds, and forgotten when it fails.
//!
//! A batch shares one staging area. [`Staging::turn_ok`] moves the mark up to which everything counts;
//! [`Staging::turn_failed`] cuts back to it. All bytes lie in one arena, and consecutive sends are one effect, so a batch of
//! echoes costs one copy of its bytes and one effect.

use crate::limits::Limits;
use crate::session::OUTPUT_HEAD;
use crate::session::Session;
use crate::store::Store;
use crate::tables::{Tables, overhead};
use greenroom_state::abi::{fault, status};
use std::fmt::Write as _;
use std::ops::Range;

/// A batch that has staged this much ends with the turn under way, so that what a session's own input makes the host
/// hold stays near `output_bytes_pause`.
const BATCH_BYTES: usize = 64 * 1024;

/// A part of the arena.
type Part = Range<usize>;

/// Something asked for, in the order it was asked.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Staged {
    Send(Part),
    Broadcast { topic: Part, data: Part, others: bool },
    Subscribe(Part),
    Unsubscribe(Part),
    Put { table: Part, key: Part, value: Part },
    Delete { table: Part, key: Part },
}

/// Why a turn failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// One of [`greenroom_state::abi::fault`].
    pub kind: u32,
    /// What happened.
    pub message: String,
    /// Source file; empty: unknown.
    pub file: String,
    /// Line in it; 0: unknown.
    pub line: u32,
}

/// One event that a handler logged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogLine {
    /// One of [`greenroom_state::abi::level`].
    pub level: u32,
    /// The handler's module.
    pub target: String,
    /// The message with its fields.
    pub message: String,
    /// The turn that logged it failed.
    pub failed: bool,
}

/// The memory of staging, kept from batch to batch.
#[derive(Debug, Default)]
pub(crate) struct Buffers {
    pub(crate) bytes: Vec<u8>,
    pub(crate) effects: Vec<Staged>,
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
    mark: Mark,
}

/// Up to where everything belongs to turns that succeeded.
#[derive(Debug, Default, Clone, Copy)]
struct Mark {
    bytes: usize,
    effects: usize,
    /// End of the last effect, were it a send: the next turn may have extended it.
    last_send_end: usize,
    log: usize,
}

impl Buffers {
    /// Drops what no successful turn staged.
    pub(crate) fn cut(&mut self) {
        self.bytes.truncate(self.mark.bytes);
        self.effects.truncate(self.mark.effects);
        if let Some(Staged::Send(part)) = self.effects.last_mut() {
            part.end = self.mark.last_send_end;
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
        self.mark = Mark::default();
    }
}

/// A value of a table, which is stored in some version, as its owner has it; `Ok(None)`: it is that already.
pub(crate) type Convert<'a> = dyn Fn(&str, u32, &[u8]) -> Result<Option<Vec<u8>>, String> + 'a;

/// What a turn may read, and what bounds it.
#[derive(Clone, Copy)]
pub(crate) struct Around<'a> {
    pub(crate) store: &'a Store,
    pub(crate) tables: &'a Tables,
    pub(crate) convert: &'a Convert<'a>,
    pub(crate) limits: &'a Limits,
    pub(crate) session: &'a Session,
}

/// One batch's staging area, with what it may read.
pub struct Staging<'a> {
    buffers: &'a mut Buffers,
    around: Around<'a>,
    actions: usize,
    closing: bool,
    /// A value that the turn wanted can't be read: it must not succeed as if there were none.
    unreadable: Option<String>,
    /// Why the last call was refused, for a fault that follows from it.
    refusal: Option<&'static str>,
}

impl<'a> Staging<'a> {
    pub(crate) fn new(buffers: &'a mut Buffers, around: Around<'a>, actions: usize) -> Self {
        buffers.clear();
        Staging { buffers, around, actions, closing: false, unreadable: None, refusal: None }
    }

    /// The turn succeeded. False: return now.
    #[inline]
    pub fn turn_ok(&mut self) -> bool {
        if let Some(message) = self.unreadable.take() {
            self.turn_failed(Fault { kind: fault::ERROR, message, file: String::new(), line: 0 });
            self.buffers.spoilt = true;
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
            last_send_end: match b.effects.last() {
                Some(Staged::Send(part)) => part.end,
                _ => 0,
            },
            log: b.log.len(),
        };
        !b.close && b.done < self.actions && b.bytes.len() < BATCH_BYTES
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
        self.closing = false;
    }

    /// The state that the successful turns left.
    pub fn state(&mut self, bytes: &[u8]) {
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

    fn refuse(&mut self, limit: &'static str) -> u32 {
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
    #[inline]
    pub fn send(&mut self, bytes: &[u8]) -> u32 {
        let Some(part) = self.keep(bytes) else { return self.refuse("limit turn_bytes_max") };
        match self.buffers.effects.last_mut() {
            Some(Staged::Send(last)) if last.end == part.start => last.end = part.end,
            _ => self.buffers.effects.push(Staged::Send(part)),
        }
        status::OK
    }

    /// Closes the session once its output is flushed.
    pub fn close(&mut self) -> u32 {
        self.closing = true;
        status::OK
    }

    /// Adds the session to a topic. A name is one line: that is how records list them.
    pub fn subscribe(&mut self, topic: &str) -> u32 {
        if topic.is_empty() || topic.contains('\n') {
            return status::INVALID;
        }
        if topic.len() > self.around.limits.topic_name_bytes_max {
            return self.refuse("limit topic_name_bytes_max");
        }
        let own = self.around.session.topics();
        let on = self.buffers.topics(own).unwrap_or_else(|| own.iter().map(|t| &**t).collect());
        if on.len() >= self.around.limits.topics_per_session_max && !on.contains(&topic) {
            return self.refuse("limit topics_per_session_max");
        }
        self.stage(|s| Some(Staged::Subscribe(s.keep(topic.as_bytes())?)))
    }

    /// Takes the session off a topic.
    pub fn unsubscribe(&mut self, topic: &str) -> u32 {
        self.stage(|s| Some(Staged::Unsubscribe(s.keep(topic.as_bytes())?)))
    }

    /// Sends bytes to every session on a topic; `others`: but not to this one.
    pub fn broadcast(&mut self, topic: &str, data: &[u8], others: bool) -> u32 {
        self.stage(|s| {
            Some(Staged::Broadcast { topic: s.keep(topic.as_bytes())?, data: s.keep(data)?, others })
        })
    }

    /// Writes a table's entry.
    pub fn table_put(&mut self, table: &str, key: &[u8], value: &[u8]) -> u32 {
        if !greenroom_state::note::is_name(table) {
            return status::INVALID;
        }
        if key.len() > self.around.limits.table_key_bytes_max {
            return self.refuse("limit table_key_bytes_max");
        }
        if value.len() > self.around.limits.table_value_bytes_max {
            return self.refuse("limit table_value_bytes_max");
        }
        let tables = self.around.tables;
        if tables.len() >= self.around.limits.tables_max && !tables.contains(table) {
            return self.refuse("limit tables_max");
        }
        self.stage(|s| {
            let (table, key) = (s.keep(table.as_bytes())?, s.keep(key)?);
            Some(Staged::Put { table, key, value: s.keep(value)? })
        })
    }

    /// Deletes a table's entry.
    pub fn table_delete(&mut self, table: &str, key: &[u8]) -> u32 {
        self.stage(|s| Some(Staged::Delete { table: s.keep(table.as_bytes())?, key: s.keep(key)? }))
    }

    fn stage(&mut self, make: impl FnOnce(&mut Self) -> Option<Staged>) -> u32 {
        match make(self) {
            Some(effect) => {
                self.buffers.effects.push(effect);
                status::OK
            }
            None => self.refuse("limit turn_bytes_max"),
        }
    }

    /// What this batch did to an entry: its new value, `Some(None)` for a deletion, `None` for nothing.
    fn overlay(&self, table: &str, key: &[u8]) -> Option<Option<Part>> {
        let bytes = &self.buffers.bytes;
        let same = |t: &Part, k: &Part| &bytes[t.clone()] == table.as_bytes() && &bytes[k.clone()] == key;
        self.buffers.effects.iter().rev().find_map(|e| match e {
            Staged::Put { table: t, key: k, value } if same(t, k) => Some(Some(value.clone())),
            Staged::Delete { table: t, key: k } if same(t, k) => Some(None),
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
                let Around { store, tables, convert, .. } = self.around;
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
            Staged::Put { table: t, key, .. } if &bytes[t.clone()] == table.as_bytes() => {
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
                Staged::Send(part) => (OUTPUT_HEAD + part.len(), 1),
                Staged::Broadcast { topic, data, .. } => {
                    (OUTPUT_HEAD + data.len(), subscribers(self.text(topic)))
                }
                Staged::Put { table, key, value } => {
                    (overhead(self.text(table), &self.bytes[key.clone()]) + value.len(), 1)
                }
                // One record lists all topics.
                Staged::Subscribe(_) | Staged::Unsubscribe(_) | Staged::Delete { .. } => (0, 0),
            };
            std::iter::repeat_n(len, times)
        });
        state.into_iter().chain(topics).chain(effects)
    }

    /// The topics that the session will be on, in order; `None`: nothing about them was staged.
    pub(crate) fn topics<'b>(&'b self, own: &'b [Box<str>]) -> Option<Vec<&'b str>> {
        let about = |e: &&Staged| matches!(e, Staged::Subscribe(_) | Staged::Unsubscribe(_));
        let mut staged = self.effects.iter().filter(about).peekable();
        staged.peek()?;
        let mut on: Vec<_> = own.iter().map(|t| &**t).collect();
        for effect in staged {
            match effect {
                Staged::Subscribe(topic) if !on.contains(&self.text(topic)) => on.push(self.text(topic)),
                Staged::Unsubscribe(topic) => on.retain(|t| *t != self.text(topic)),
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
