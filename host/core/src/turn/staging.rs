//! Staging area of a batch: what its turns asked for, and what they may read.
//!
//! | event | consequence for the staged effects |
//! | --- | --- |
//! | [`Staging::turn_ok`] | the mark moves: everything up to here counts |
//! | [`Staging::turn_failed`] | cut back to the mark |
//! | the call returned in the middle of a turn | cut back to the mark |
//! | the next call begins | all cleared |
//!
//! The turns of a batch share one area. All bytes lie in one arena, and consecutive sends are
//! one effect. So a batch of echoes costs one copy of its bytes and one effect. The memory is
//! kept from batch to batch.
//!
//! A turn may stage `turn_bytes_max` bytes, and log as many. From some number on, the memory of
//! effects and log lines counts beside their bytes. A call that would break a limit stages
//! nothing, and says so; the turn should fail then. Indexes tell calls what was staged.

use super::context::TurnContext;
use super::effect::{Effect, Framed, Part};
use super::fault::{Fault, FaultReply, LogLine};
use super::heard_datagrams::HeardDatagrams;
use super::staged_buckets::StagedBuckets;
use super::staged_entries::StagedEntries;
use super::staged_jobs::StagedJobs;
use super::staged_names::StagedNames;
use super::staged_timers::StagedTimers;
use super::staged_topics::StagedTopics;
use super::tap::TurnTap;
use crate::limits::budget::RECIPIENT_NS;
use crate::limits::host::BATCH_BYTES;
use crate::limits::in_force::Counts;
use crate::limits::names::Limit;
use greenroom_state::abi::{FAULT_CLOSES, fault, level, status};
use std::fmt::Write as _;

/// Bytes that a further effect counts against `turn_bytes_max`, beside those that it carries. Its
/// memory is about twice as much.
const EFFECT_BYTES: usize = 32;
/// Effects, and log lines, of a turn whose memory does not count against `turn_bytes_max`.
const FREE_EFFECTS: usize = 64;

/// The memory of staging, kept from batch to batch, and the outcome of a call.
#[derive(Debug, Default)]
pub(crate) struct Buffers {
    /// The arena: all bytes that effects point into.
    pub(crate) bytes: Vec<u8>,
    /// Effects, oldest first. After the call: those of successful turns.
    pub(crate) effects: Vec<Effect>,
    /// Lines that the turns logged, those of the failed turn included.
    pub(crate) log: Vec<LogLine>,
    /// Bytes that the turn under way logged.
    pub(super) log_bytes: usize,
    /// Answer to a read, valid until the next call.
    pub(super) answer: Vec<u8>,
    /// Message before it is framed.
    pub(super) message: Vec<u8>,
    /// State that the successful turns left, if `has_state`.
    pub(crate) state: Vec<u8>,
    pub(crate) has_state: bool,
    /// Turns that succeeded.
    pub(crate) done: usize,
    /// Fault of the turn behind those that succeeded.
    pub(crate) fault: Option<Fault>,
    /// Consequence for the peer if the turn under way fails, or of the one that failed.
    pub(crate) fault_reply: Option<FaultReply>,
    /// Whether a turn that the handler took for done was not: then the state that is handed over
    /// has that turn in it.
    pub(crate) spoilt: bool,
    /// Whether a successful turn closed the session.
    pub(crate) close: bool,
    pub(crate) close_words: Option<Box<(u16, String)>>,
    /// Facts that turns of this batch may know. A call does not clear them.
    pub(crate) facts: Vec<(&'static str, Vec<u8>)>,
    /// Whether a page is asked for, and its head alone. Likewise.
    pub(crate) page: Option<bool>,
    /// Bytes that the batch sends to the session's own peer, if that is bounded.
    pub(super) peer_bytes: u64,
    /// Datagrams that are the actions of this batch. Likewise.
    pub(crate) datagrams: HeardDatagrams,
    /// Tap of the turn, while its session is watched. Likewise.
    pub(crate) tap: Option<Box<TurnTap>>,
    /// Whether the turn under way acted on its own session: the result of that comes before the
    /// next action, so the batch ends.
    pub(super) on_itself: bool,
    /// Sessions that the broadcasts and messages of the turn under way reach, each time anew.
    pub(super) recipients: usize,
    /// Work of the batch beside its turns and effects, in nanoseconds, by estimate.
    pub(crate) work_ns: u64,
    /// Whether the batch ends with the turn under way: it has worked for a whole stage of a pass.
    pub(super) is_full: bool,
    /// Whether the time of the stage is over.
    pub(crate) is_overtime: bool,
    /// Nanoseconds that the call took, if its code was asked.
    pub(crate) took_ns: Option<u64>,
    /// Broadcasts that libraries have framed, for their effects to be applied. Each is asked once:
    /// room is reserved for what it has answered.
    pub(crate) framed: Vec<Framed>,
    /// Limits by which calls were refused, as often as they were.
    pub(crate) reached: Counts,
    /// Whether an effect changes the session's topics.
    pub(crate) changes_topics: bool,
    /// Whether an effect changes names.
    pub(super) changes_names: bool,
    /// Whether an effect changes the state of the session's framing.
    pub(super) changes_framing: bool,
    /// Whether an index below covers any effect.
    pub(super) is_indexed: bool,
    /// Indexes over the effects, for reads that need what was staged.
    pub(super) entries: StagedEntries,
    pub(super) jobs: StagedJobs,
    pub(super) timers: StagedTimers,
    pub(super) topics: StagedTopics,
    pub(super) names: StagedNames,
    pub(super) buckets: StagedBuckets,
    /// Random numbers that the turn under way has asked for.
    pub(super) randoms: u64,
    /// Bytes of the keys and values that were written, those of failed turns included.
    pub(super) put_bytes: usize,
    /// End of what successful turns staged.
    pub(super) mark: Mark,
}

/// End of what successful turns staged: lengths of the arena, of the effects and of the log.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Mark {
    pub(super) bytes: usize,
    pub(super) effects: usize,
    /// End of the bytes that the last effect sends. The next turn may extend that effect, so
    /// cutting must shorten it again.
    pub(super) last_sent_end: usize,
    pub(super) log: usize,
}

impl Buffers {
    /// Drops what no successful turn staged. Log lines stay. Repeatable.
    #[inline]
    pub(crate) fn cut(&mut self) {
        // Without bytes behind the mark, no part has grown.
        if self.bytes.len() == self.mark.bytes && self.effects.len() == self.mark.effects {
            return;
        }
        self.cut_off();
    }

    /// Drops as above.
    fn cut_off(&mut self) {
        self.bytes.truncate(self.mark.bytes);
        if self.effects.len() > self.mark.effects {
            self.effects.truncate(self.mark.effects);
            self.clear_indexes();
        }
        if let Some(Effect::Send(part) | Effect::Broadcast { data: part, .. }) = self.effects.last_mut() {
            part.end = self.mark.last_sent_end;
        }
    }

    /// Drops the indexes. They follow the effects again from the first one.
    #[inline]
    fn clear_indexes(&mut self) {
        if self.is_indexed {
            self.drop_indexes();
        }
    }

    /// Drops the indexes, whether they cover anything or not.
    #[inline(never)]
    fn drop_indexes(&mut self) {
        self.is_indexed = false;
        self.entries = StagedEntries::default();
        self.jobs = StagedJobs::default();
        self.timers = StagedTimers::default();
        self.topics = StagedTopics::default();
        self.names = StagedNames::default();
        self.buckets = StagedBuckets::default();
    }

    /// Begins a call. The bytes of the last state and the answer stay: `has_state` says whether
    /// there is a state.
    #[inline]
    pub(crate) fn clear(&mut self) {
        self.bytes.clear();
        self.effects.clear();
        self.clear_indexes();
        self.log.clear();
        self.log_bytes = 0;
        self.has_state = false;
        self.done = 0;
        (self.fault, self.fault_reply) = (None, None);
        self.spoilt = false;
        self.close = false;
        self.on_itself = false;
        (self.recipients, self.work_ns, self.randoms) = (0, 0, 0);
        (self.is_full, self.is_overtime, self.took_ns) = (false, false, None);
        (self.changes_topics, self.changes_names, self.changes_framing) = (false, false, false);
        self.put_bytes = 0;
        self.framed.clear();
        self.reached.clear();
        self.datagrams.answered = (0, 0);
        self.peer_bytes = 0;
        self.mark = Mark::default();
    }
}

/// Staging area of one call, with all that its turns may read.
pub struct Staging<'a> {
    pub(super) buffers: &'a mut Buffers,
    pub(super) context: &'a TurnContext<'a>,
    /// Actions of the call. No more turns than these can succeed.
    pub(super) actions: usize,
    /// Whether the turn under way asked to close the session.
    pub(super) closing: bool,
    /// Reason why a value that the turn wanted can't be read. Such a turn fails: it took the
    /// value for absent.
    pub(super) unreadable: Option<String>,
    /// Limit by which a call of this turn was last refused, for a fault that follows from it.
    pub(super) refusal: Option<Limit>,
}

impl<'a> Staging<'a> {
    /// Clears the buffers for a call with so many actions.
    pub(crate) fn new(buffers: &'a mut Buffers, context: &'a TurnContext<'a>, actions: usize) -> Self {
        buffers.clear();
        Staging { buffers, context, actions, closing: false, unreadable: None, refusal: None }
    }

    /// Ends a turn that succeeded: its effects count. False: the caller returns now.
    ///
    /// The batch ends with the last action, or earlier: the turn closes the session or acts on
    /// it, 64 KiB are staged, or the batch is as much work as a stage of a pass may do. A turn
    /// that read a value which can't be converted, or was refused a call by a limit, fails instead.
    #[inline]
    pub fn turn_ok(&mut self) -> bool {
        if self.unreadable.is_some() | self.refusal.is_some() {
            self.fail_undone();
        }
        let b = &mut *self.buffers;
        // A caller that goes on after a fault, or behind the last action, has no turn under way.
        if b.fault.is_some() || b.done == self.actions {
            return false;
        }
        b.done += 1;
        (b.log_bytes, b.recipients, b.randoms) = (0, 0, 0);
        (self.refusal, b.fault_reply) = (None, None);
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
        // One test of three flags: each turn asks.
        !(b.close | b.on_itself | b.is_full) && b.done < self.actions && b.bytes.len() < BATCH_BYTES
    }

    /// Fails the turn that took an unreadable value for absent, or a refused call for done. The
    /// handler believes in its success, so the state that it hands over is spoilt.
    #[cold]
    fn fail_undone(&mut self) {
        let message = self.unreadable.take().unwrap_or_else(|| "a call was refused".into());
        self.turn_failed(Fault { kind: fault::ERROR, message, file: String::new(), line: 0 });
        self.buffers.spoilt = true;
    }

    /// Ends a turn that failed: its effects are dropped, its log lines are kept. The caller
    /// returns now. Behind the last turn a call says that the state can't be handed over. Only
    /// the first fault of a call counts.
    pub fn turn_failed(&mut self, mut fault: Fault) {
        let b = &mut *self.buffers;
        if b.fault.is_some() {
            return;
        }
        b.cut();
        for line in &mut b.log[b.mark.log..] {
            line.failed = true;
        }
        // The fault mostly follows from the refusal, so operators want to read its name.
        if let Some(limit) = self.refusal {
            let _ = write!(fault.message, " ({limit})");
        }
        b.fault = Some(fault);
        b.on_itself = false;
        self.closing = false;
    }

    /// Notes what the peer is told if the turn under way fails. The last call counts.
    pub fn fault_reply(&mut self, line: &[u8], flags: u32) -> u32 {
        if flags & !FAULT_CLOSES != 0 {
            return status::INVALID;
        }
        if line.len() > self.context.limits.turn_bytes_max {
            return self.refuse(Limit::TurnBytesMax);
        }
        self.buffers.fault_reply = Some(FaultReply { line: line.to_vec(), closes: flags != 0 });
        status::OK
    }

    /// Takes the state that the successful turns left. The last call counts. A service's own
    /// turns have no state, so nothing happens then.
    pub fn state(&mut self, bytes: &[u8]) {
        if self.context.session.is_service() {
            return;
        }
        let b = &mut *self.buffers;
        b.state.clear();
        b.state.extend_from_slice(bytes);
        b.has_state = true;
    }

    /// Tells the time behind a call: CLOCK_MONOTONIC, in nanoseconds. A pass that has taken longer
    /// than `pass_us` by then ends its stage. Code that may be slow calls this now and then.
    pub fn tell_time(&mut self, now_ns: u64) {
        let taken_ns = now_ns.saturating_sub(self.context.now_ns);
        self.buffers.is_overtime |= taken_ns > self.context.limits.pass_us * 1000;
    }

    /// Notes work beside turns and effects, in nanoseconds. The batch ends once it is as much as a
    /// stage of a pass may do.
    #[inline]
    pub(super) fn work(&mut self, ns: u64) {
        let b = &mut *self.buffers;
        b.work_ns += ns;
        b.is_full |= b.work_ns > self.context.limits.pass_us * 1000;
    }

    /// Counts the sessions that a message reaches. False: over `turn_recipients_max`.
    pub(super) fn reach(&mut self, count: usize) -> bool {
        let all = self.buffers.recipients + count;
        if all > self.context.limits.turn_recipients_max {
            return false;
        }
        self.buffers.recipients = all;
        self.work(count as u64 * RECIPIENT_NS);
        true
    }

    /// Notes the limit by which a call is refused. The turn fails, whatever its code does then.
    pub(super) fn refuse(&mut self, limit: Limit) -> u32 {
        self.buffers.reached.add(limit);
        self.refusal = Some(limit);
        status::LIMIT
    }

    /// Copies into the arena. `None`: the turn would have more than `turn_bytes_max` bytes in
    /// it.
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

    /// Stages an effect, whose bytes `make` copies into the arena. If they have no room, the
    /// call is refused. Bytes that were copied by then stay in the arena until the next cut or
    /// clearing.
    pub(super) fn stage(&mut self, make: impl FnOnce(&mut Self) -> Option<Effect>) -> u32 {
        let b = &*self.buffers;
        // An effect without bytes takes memory, too. A few are free, for a low limit on bytes.
        let charged = (b.effects.len() - b.mark.effects).saturating_sub(FREE_EFFECTS) * EFFECT_BYTES;
        if b.bytes.len() - b.mark.bytes + charged > self.context.limits.turn_bytes_max {
            return self.refuse(Limit::TurnBytesMax);
        }
        match make(self) {
            Some(effect) => {
                self.buffers.effects.push(effect);
                status::OK
            }
            None => self.refuse(Limit::TurnBytesMax),
        }
    }

    /// Logs an event, whether the turn succeeds or fails. Lines beyond `turn_bytes_max` bytes in
    /// a turn are dropped; one line says so.
    pub fn log(&mut self, level: u32, target: &str, message: &str) {
        let b = &mut *self.buffers;
        let (before, most) = (b.log_bytes, self.context.limits.turn_bytes_max);
        let own = if b.log.len() - b.mark.log < FREE_EFFECTS { 0 } else { size_of::<LogLine>() };
        b.log_bytes = before.saturating_add(own + message.len() + target.len());
        let line = |level, message: &str| LogLine {
            level,
            target: target.into(),
            message: message.into(),
            failed: false,
        };
        if b.log_bytes <= most {
            b.log.push(line(level, message));
        } else if before <= most {
            b.log
                .push(line(level::WARN, "further log lines of this turn are dropped (limit turn_bytes_max)"));
            b.reached.add(Limit::TurnBytesMax);
        }
    }
}
