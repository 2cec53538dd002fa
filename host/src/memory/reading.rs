//! The keeper's side of the board: a copy, which may be a dead worker's.

use crate::memory::board_layout::{
    BYTES, Busy, COUNTERS, CRASHED, DONE, JOBS, LIMITS, LOADS, LONGEST_MS, LOOKED_AT, PASS_AT, PLACE,
    PLACE_BYTES, PLACE_BYTES_MAX, PLACE_MARK, RUN, Running, SEEN_AT, SEEN_MARK, SEQ, STALLED_MS, TEXT,
    TEXT_BYTES, TEXT_BYTES_MAX, TEXT_VERSION, mark, running, uncommitted,
};
use crate::memory::figures_layout::SERVICES_MAX;
use crate::sys::crash_thread;
use greenroom_core::limits::names::Limit;
use greenroom_core::reload::request::LibraryId;
use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

/// Forgets what ran, before another worker begins. Counters and text stay. For the keeper, after
/// the predecessor was reaped.
pub fn forget(fd: impl AsFd) -> io::Result<()> {
    for word in RUN {
        rustix::io::pwrite(&fd, &[0; 8], 8 * word as u64)?;
    }
    Ok(())
}

/// Reason why the watchdog ended a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WatchdogEnd {
    /// The action had been running for so many milliseconds.
    Stalled(u64),
    /// The loop's thread had ended.
    LoopEnded,
}

/// The keeper's side: a copy of a board, which may be a dead worker's. Costs 912 KiB.
#[derive(Default)]
pub struct Reading {
    words: Vec<u64>,
}

impl Reading {
    /// Reads the whole board. If no worker has mapped the file yet, or reading fails, what is
    /// missing is zero. The keeper does not map the board, so a file that is too short is no fault.
    pub fn of(fd: impl AsFd) -> Reading {
        let mut bytes = vec![0; BYTES];
        let mut at = 0;
        while let Ok(n @ 1..) = rustix::io::pread(&fd, &mut bytes[at..], at as u64) {
            at += n;
        }
        // A text that was written meanwhile is a mix. The version is read again behind the text.
        let version = 8 * TEXT_VERSION..8 * TEXT_VERSION + 8;
        let mut again = [0; 8];
        let is_same = rustix::io::pread(&fd, &mut again, version.start as u64) == Ok(8)
            && again[..] == bytes[version.clone()];
        if !is_same {
            bytes[version].copy_from_slice(&u64::MAX.to_ne_bytes());
        }
        // Each command of an operator costs the keeper a reading.
        let (words, _) = bytes.as_chunks();
        Reading { words: words.iter().map(|word| u64::from_ne_bytes(*word)).collect() }
    }

    /// All words, for [`super::board_figures`].
    pub(super) fn words(&self) -> &[u64] {
        &self.words
    }

    /// The action that was running. Exact if the process is dead.
    pub fn running(&self) -> Option<Running> {
        running(&self.words)
    }

    /// The action that ran last before the process died, if its commit had not come: the process
    /// may have died of what it did. `None`: a handler ran, or all was committed.
    pub fn uncommitted(&self) -> Option<Running> {
        uncommitted(&self.words)
    }

    /// Work of the loop at this time. `None`: the loop sleeps, or the worker is of a version that
    /// notes no times. Of a dead process, what ran at its end.
    pub fn busy(&self, now_ns: u64) -> Option<Busy> {
        let (running, w) = (self.running(), &self.words);
        let mark = mark(w[SEQ], w[DONE]);
        let (seen, placed) = (w[SEEN_MARK] == mark, w[PLACE_MARK] == mark);
        let since = match running {
            Some(_) if seen => w[SEEN_AT],
            // Shorter than a look, or the watchdog stands still, too.
            _ => w[PASS_AT],
        };
        let place = self.bytes(PLACE, PLACE_BYTES, PLACE_BYTES_MAX).filter(|_| running.is_some() && placed);
        (since > 0).then(|| Busy {
            running,
            time: Duration::from_nanos(now_ns.saturating_sub(since)),
            place: place.map(|text| String::from_utf8_lossy(&text).into_owned()),
        })
    }

    /// Time since the watchdog's last look, which comes twice in a second unless it reports.
    /// `None`: it has not looked yet.
    pub fn unwatched(&self, now_ns: u64) -> Option<Duration> {
        let at = Some(self.words[LOOKED_AT]).filter(|at| *at > 0);
        at.map(|at| Duration::from_nanos(now_ns.saturating_sub(at)))
    }

    /// Bytes from this word on, of the length in word `len`. `None`: none, or too many.
    fn bytes(&self, from: usize, len: usize, max: usize) -> Option<Vec<u8>> {
        let len = self.words[len] as usize;
        let bytes = || self.words[from..].iter().flat_map(|w| w.to_ne_bytes()).take(len).collect();
        (1..=max).contains(&len).then(bytes)
    }

    /// Library whose code was being loaded; `None`: none was.
    pub fn loads(&self) -> Option<LibraryId> {
        self.words[LOADS].checked_sub(1).map(|number| LibraryId(number as usize))
    }

    /// Whether a thread crashed that is not the loop's. What the loop ran is not to blame then.
    pub fn crashed_elsewhere(&self) -> bool {
        self.words[CRASHED] >= crash_thread::OF_ANOTHER
    }

    /// Number of the job whose thread crashed. `None`: none did.
    pub fn crashed_job(&self) -> Option<u64> {
        self.words[CRASHED].checked_sub(crash_thread::OF_ANOTHER).filter(|number| *number > 0)
    }

    /// Reason why the watchdog ended the process. `None`: it did not.
    pub fn watchdog_end(&self) -> Option<WatchdogEnd> {
        match self.words[STALLED_MS] {
            0 => None,
            u64::MAX => Some(WatchdogEnd::LoopEnded),
            ms => Some(WatchdogEnd::Stalled(ms)),
        }
    }

    /// Times that a limit was reached, in all workers of the host.
    pub fn reached(&self, limit: Limit) -> u64 {
        self.words[LIMITS + limit as usize]
    }

    /// The text about the services. `None`: there is none yet, or it was written during the
    /// reading.
    pub fn text(&self) -> Option<Vec<u8>> {
        let is_whole = self.words[TEXT_VERSION] & 1 == 0;
        self.bytes(TEXT, TEXT_BYTES, TEXT_BYTES_MAX).filter(|_| is_whole)
    }

    /// Sessions, turns and faults of a service. `None`: the board has no place for its number.
    pub fn counts(&self, service: usize) -> Option<[u64; 3]> {
        self.three(COUNTERS, service)
    }

    /// A service's jobs, as [`crate::memory::board::Board::count_jobs`] has them.
    pub fn jobs(&self, service: usize) -> Option<[u64; 3]> {
        self.three(JOBS, service)
    }

    /// Three words of a service, in the list that begins at `first`.
    fn three(&self, first: usize, service: usize) -> Option<[u64; 3]> {
        let words = &self.words[first + 3 * service.min(SERVICES_MAX)..];
        (service < SERVICES_MAX).then(|| [words[0], words[1], words[2]])
    }

    /// Milliseconds of the longest pass so far, of all workers. The watchdog looks every few
    /// milliseconds, so a short pass counts as none.
    pub fn longest_pass_ms(&self) -> u64 {
        self.words[LONGEST_MS]
    }
}
