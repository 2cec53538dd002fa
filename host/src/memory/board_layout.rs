//! Layout of the board's words, and what they say of an action.
//!
//! | words | content |
//! | --- | --- |
//! | 0 to 7 | the beat: the turn that runs now |
//! | 8 and 9 | version and length of the text |
//! | 10 | the thread that crashed |
//! | 11 to 13 | since when the action runs, by the watchdog; its last look |
//! | 14 | begin of the pass |
//! | 15 | the library that is being loaded |
//! | from 16 | three counters for each service: sessions, turns, faults |
//! | behind those | the text: the status of each service, in JSON |
//! | behind that | times that each limit was reached |
//! | behind those | three counts of jobs for each service: running, waiting, begin of the oldest |
//! | behind those | the pass: its sequence number, its stage, the longest one |
//! | behind those | the place of the action that stalls, in words |
//! | from the next page on | the figures, as [`super::figures_layout`] has them |

use crate::memory::figures_layout::{FIGURE_WORDS, SERVICES_MAX};
use greenroom_core::limits::names::Limit;
use std::time::Duration;

/// Sequence number of the beat: odd while a handler runs.
pub(super) const SEQ: usize = 0;
/// Number of the session whose turn runs.
pub(super) const SESSION: usize = 1;
/// Turns that the session ran before the batch.
pub(super) const TURN: usize = 2;
/// Number of the service, and kind of the action in the lower half.
pub(super) const WHAT: usize = 3;
/// Generation of the code that runs.
pub(super) const GENERATION: usize = 4;
/// Actions of the batch that are done.
pub(super) const DONE: usize = 5;
/// Milliseconds that the action ran before the watchdog ended the process; 0: it did not. The
/// highest number: the loop's thread had ended.
pub(super) const STALLED_MS: usize = 6;
/// Actions of the batch; 0: none has run since the last commit.
pub(super) const ACTIONS: usize = 7;
/// Version of the text: odd while the text is written.
pub(super) const TEXT_VERSION: usize = 8;
/// Length of the text in bytes; 0: none yet.
pub(super) const TEXT_BYTES: usize = 9;
/// Thread that crashed, a constant of [`crash_thread`]; 0: none has, or nobody noted it.
pub(super) const CRASHED: usize = 10;
/// Mark of the action that the watchdog saw running last.
pub(super) const SEEN_MARK: usize = 11;
/// Time when the watchdog first saw that action, in nanoseconds of [`crate::clock::now_ns`].
pub(super) const SEEN_AT: usize = 12;
/// Time of the watchdog's last look; 0: none yet.
pub(super) const LOOKED_AT: usize = 13;
/// Time when the pass began; 0: the loop sleeps, or no pass has begun.
pub(super) const PASS_AT: usize = 14;
/// Number of the library whose code is being loaded, and one more; 0: none is.
pub(super) const LOADS: usize = 15;
/// First counter of the first service.
pub(super) const COUNTERS: usize = 16;
/// First word of the text.
pub(super) const TEXT: usize = COUNTERS + 3 * SERVICES_MAX;
/// Longest text, in bytes.
pub(super) const TEXT_BYTES_MAX: usize = 512 * 1024;
/// Counter of the first limit, in the order of [`Limit`].
pub(super) const LIMITS: usize = TEXT + TEXT_BYTES_MAX / 8;
/// Places for limits, more than there are, so that the length stays if limits are added.
pub(super) const LIMITS_MAX: usize = 128;
/// First count of the first service's jobs.
pub(super) const JOBS: usize = LIMITS + LIMITS_MAX;
/// Sequence number of the pass: odd while the loop is at work.
pub(super) const PASS: usize = JOBS + 3 * SERVICES_MAX;
/// Stage of the pass, a number of [`Stage`].
pub(super) const STAGE: usize = PASS + 1;
/// Milliseconds of the longest pass, as the watchdog saw it.
pub(super) const LONGEST_MS: usize = PASS + 2;
/// Mark of the action that the place belongs to.
pub(super) const PLACE_MARK: usize = LONGEST_MS + 1;
/// Length of the place in bytes.
pub(super) const PLACE_BYTES: usize = PLACE_MARK + 1;
/// First word of the place.
pub(super) const PLACE: usize = PLACE_BYTES + 1;
/// Longest place, in bytes. A longer one is cut.
pub(super) const PLACE_BYTES_MAX: usize = 512;
/// Words about what runs, which no successor must read.
pub(super) const RUN: [usize; 10] =
    [SEQ, ACTIONS, STALLED_MS, CRASHED, SEEN_MARK, LOOKED_AT, PASS_AT, LOADS, PASS, PLACE_BYTES];
/// First word of the figures.
pub(super) const FIGURES: usize = ((PLACE + PLACE_BYTES_MAX / 8) * 8).next_multiple_of(4096) / 8;
/// Length of the file, in whole pages: 912 KiB.
pub(super) const BYTES: usize = ((FIGURES + FIGURE_WORDS) * 8).next_multiple_of(4096);
const _: () = assert!(Limit::ALL.len() <= LIMITS_MAX);

/// An action that was running.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Running {
    /// The service's number.
    pub service: u16,
    /// The generation of its library.
    pub generation: u64,
    /// The session.
    pub session: u64,
    /// Turns that the session ran before this one.
    pub turn: u64,
    /// Kind of the action, one of [`greenroom_state::abi::action`]. All actions of a batch have one
    /// kind.
    pub action: u32,
}

/// Work of the loop that has taken long.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Busy {
    /// The action that runs. `None`: no handler runs, and the pass itself takes long.
    pub running: Option<Running>,
    /// Time so far. Of an action, up to one look of the watchdog less.
    pub time: Duration,
    /// Place of the action in the source, in words, if the watchdog knows it.
    pub place: Option<String>,
}

/// Mark of an action, which changes with each one.
pub(super) fn mark(seq: u64, done: u64) -> u64 {
    seq << 16 ^ done
}

/// The action that runs, by the words of the beat.
pub(super) fn running(w: &[u64]) -> Option<Running> {
    (w[SEQ] & 1 != 0).then(|| last(w))
}

/// The action that ran last and is not committed; `None`: there is none, or a handler runs.
pub(super) fn uncommitted(w: &[u64]) -> Option<Running> {
    (w[SEQ] & 1 == 0 && w[ACTIONS] > 0).then(|| last(w))
}

/// The action that began last.
fn last(w: &[u64]) -> Running {
    Running {
        service: (w[WHAT] >> 32) as u16,
        generation: w[GENERATION],
        session: w[SESSION],
        // Behind the last one the handler is still at work, on what it left.
        turn: w[TURN] + w[DONE].min(w[ACTIONS].saturating_sub(1)),
        action: w[WHAT] as u32,
    }
}
