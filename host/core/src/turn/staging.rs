//! What a turn may ask for. All of it is staged: it is applied when the turn succeeds, and
//! forgotten when it fails.
//!
//! A batch shares one staging area. [`Staging::turn_ok`] moves the mark up to which everything
//! counts; [`Staging::turn_failed`] cuts back to it. All bytes lie in one arena, and consecutive
//! sends are one effect, so a batch of echoes costs one copy of its bytes and one effect.

use super::effect::{Effect, Part};
use super::fault::{Fault, LogLine};
use crate::effects::jobs::Jobs;
use crate::effects::outbound::Outbound;
use crate::effects::timers::Timers;
use crate::framing::Framing;
use crate::ids::ServiceId;
use crate::limits::host::{BATCH_BYTES, Limits};
use crate::limits::names::Limit;
use crate::session::life::Session;
use crate::store::records::Store;
use crate::tables::index::Tables;
use greenroom_state::abi::{fault, status};
use std::fmt::Write as _;

/// The memory of staging, kept from batch to batch.
#[derive(Debug, Default)]
pub(crate) struct Buffers {
    pub(crate) bytes: Vec<u8>,
    pub(crate) effects: Vec<Effect>,
    pub(crate) log: Vec<LogLine>,
    /// Bytes that the turn under way logged.
    pub(super) log_bytes: usize,
    /// Answers to reads, valid until the next call.
    pub(super) answer: Vec<u8>,
    /// A message before it is framed.
    pub(super) message: Vec<u8>,
    pub(crate) state: Vec<u8>,
    pub(crate) has_state: bool,
    /// Turns that succeeded.
    pub(crate) done: usize,
    /// Why the one after those failed.
    pub(crate) fault: Option<Fault>,
    /// A turn that the handler took for done was not: the state that it hands over has that turn in
    /// it.
    pub(crate) spoilt: bool,
    /// A successful turn closed the session.
    pub(crate) close: bool,
    /// The turn under way acted on its own session: what that brings about comes before the next
    /// action.
    pub(super) on_itself: bool,
    /// Limits that what it asked for was refused by.
    pub(crate) reached: Vec<Limit>,
    /// Of the keys and values that were written.
    pub(super) put_bytes: usize,
    pub(super) mark: Mark,
}

/// Up to where everything belongs to turns that succeeded.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Mark {
    pub(super) bytes: usize,
    pub(super) effects: usize,
    /// Where the bytes end that the last effect sends: the next turn may have extended it.
    pub(super) last_sent_end: usize,
    pub(super) log: usize,
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

/// A value of a table, which is stored in some version, as its owner has it; `Ok(None)`: it is that
/// already.
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
    pub(crate) outbound: &'a Outbound,
    /// The framing of the session's service.
    pub(crate) framing: &'a Framing,
    /// The service of a name, if it is served.
    pub(crate) service: &'a dyn Fn(&str) -> Option<ServiceId>,
    /// Whether a framing in use tells messages apart: then broadcasts are not merged. O(services).
    pub(crate) keeps_messages_apart: &'a dyn Fn() -> bool,
    /// How many turns lie between each of the actions and something that came from outside; what is
    /// missing is 0.
    pub(crate) depths: &'a [u16],
    pub(crate) now_ns: u64,
}

/// One batch's staging area, with what it may read.
pub struct Staging<'a> {
    pub(super) buffers: &'a mut Buffers,
    pub(super) context: TurnContext<'a>,
    pub(super) actions: usize,
    pub(super) closing: bool,
    /// A value that the turn wanted can't be read: it must not succeed as if there were none.
    pub(super) unreadable: Option<String>,
    /// Why the last call was refused, for a fault that follows from it.
    pub(super) refusal: Option<Limit>,
}

impl<'a> Staging<'a> {
    pub(crate) fn new(buffers: &'a mut Buffers, context: TurnContext<'a>, actions: usize) -> Self {
        buffers.clear();
        Staging { buffers, context, actions, closing: false, unreadable: None, refusal: None }
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

    /// The turn failed: what it staged is dropped, but for what it logged. After the last turn it
    /// says that the state can't be handed over.
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
        if self.context.session.is_service() {
            return;
        }
        let b = &mut *self.buffers;
        b.state.clear();
        b.state.extend_from_slice(bytes);
        b.has_state = true;
    }

    pub(super) fn refuse(&mut self, limit: Limit) -> u32 {
        self.buffers.reached.push(limit);
        self.refusal = Some(limit);
        status::LIMIT
    }

    /// Copies into the arena, if it has room.
    pub(super) fn copy(&mut self, bytes: &[u8]) -> Option<Part> {
        let arena = &mut self.buffers.bytes;
        if bytes.len()
            > self.context.limits.turn_bytes_max.saturating_sub(arena.len() - self.buffers.mark.bytes)
        {
            return None;
        }
        let start = arena.len();
        arena.extend_from_slice(bytes);
        Some(start..arena.len())
    }

    pub(super) fn stage(&mut self, make: impl FnOnce(&mut Self) -> Option<Effect>) -> u32 {
        match make(self) {
            Some(effect) => {
                self.buffers.effects.push(effect);
                status::OK
            }
            None => self.refuse(Limit::TurnBytesMax),
        }
    }

    /// Logs an event.
    pub fn log(&mut self, level: u32, target: &str, message: &str) {
        let b = &mut *self.buffers;
        b.log_bytes += message.len() + target.len();
        if b.log_bytes <= self.context.limits.turn_bytes_max {
            b.log.push(LogLine { level, target: target.into(), message: message.into(), failed: false });
        }
    }
}

impl Buffers {
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
