//! Budget of work for each stage of a pass.
//!
//! All clients wait for the end of a pass, so its work is bounded by what it costs, and not by a
//! count of turns: a turn that broadcasts to a thousand sessions costs as much as a thousand
//! turns. Each step spends the nanoseconds that it is estimated to take. Once a stage has spent
//! `pass_us`, it leaves the rest to the next pass, which comes at once.
//!
//! | stage | goes on in the next pass with |
//! | --- | --- |
//! | begin | deadlines that have come, sessions that resume |
//! | reclaim | records of entries that were dropped |
//! | expire | entries that are over |
//! | read | messages of a session's input, connections that the shell has not read yet |
//! | deliver | actions that wait |
//! | stop | sessions that had no last turn yet |
//! | close | sessions over their output limit |
//! | send | sessions with much to send, by their bytes ([`crate::session::send_queue`]) |
//!
//! Stages have a budget each, so a stage that always uses its own up starves no other. A stage does
//! at least one thing, whatever it costs. The core has no clock: code that takes longer than
//! estimated tells the time ([`crate::turn::staging::Staging::tell_time`]).

/// A turn of the smallest handler, beside its effects.
pub(crate) const TURN_NS: u64 = 150;
/// A read of a connection: a system call, and the session's record in the commit.
pub(crate) const READ_NS: u64 = 1_000;
/// An effect of a turn: one record.
pub(crate) const EFFECT_NS: u64 = 150;
/// A session that a broadcast or a published message reaches: a piece or an action, and the
/// session's record in the commit.
pub(crate) const RECIPIENT_NS: u64 = 250;
/// An entry that a walk over a table reads.
pub(crate) const ROW_NS: u64 = 300;
/// An entry that is dropped with its prefix: its share of the chunk that it is in.
pub(crate) const DROPPED_ROW_NS: u64 = 3;
/// A record of a dropped entry that is deleted, and its block in the commit.
pub(crate) const RECLAIM_NS: u64 = 400;
/// A session that is looked at in a list: its deadline, its resumption.
pub(crate) const SESSION_NS: u64 = 200;
/// Bytes that are copied in a nanosecond, about.
const BYTES_PER_NS: u64 = 8;
/// Bytes that the kernel takes in a microsecond, about.
pub(crate) const SENT_BYTES_PER_US: u64 = 1_000;

/// Work that a stage may still do.
#[derive(Debug, Default)]
pub(crate) struct Budget {
    /// Nanoseconds left.
    left_ns: u64,
    /// Whether the stage has used it up, and that was not counted yet.
    is_counted: bool,
}

impl Budget {
    /// Begins a stage. `us`: microseconds that it may take, by estimate.
    pub(crate) fn begin(&mut self, us: u64) {
        *self = Budget { left_ns: us * 1000, is_counted: false };
    }

    /// Begins a stage that does one thing.
    pub(crate) fn begin_least(&mut self) {
        *self = Budget { left_ns: 1, is_counted: false };
    }

    /// Notes work that was done.
    #[inline]
    pub(crate) fn spend(&mut self, ns: u64) {
        self.left_ns = self.left_ns.saturating_sub(ns);
    }

    /// Notes a batch: its turns, its effects, and the bytes that they carry.
    #[inline]
    pub(crate) fn spend_batch(&mut self, turns: usize, effects: usize, bytes: usize) {
        self.spend(turns as u64 * TURN_NS + effects as u64 * EFFECT_NS + bytes as u64 / BYTES_PER_NS);
    }

    /// Notes that the time of the stage is over, whatever was estimated.
    pub(crate) fn exhaust(&mut self) {
        self.left_ns = 0;
    }

    /// Whether the stage leaves the rest to the next pass.
    #[inline]
    pub(crate) fn is_spent(&self) -> bool {
        self.left_ns == 0
    }

    /// Whether the stage leaves a rest, and is asked for the first time: callers count the limit.
    pub(crate) fn is_spent_anew(&mut self) -> bool {
        self.is_spent() && !std::mem::replace(&mut self.is_counted, true)
    }
}
