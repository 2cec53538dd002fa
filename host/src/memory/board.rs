//! The board: a memory file of counters that the worker writes and the keeper reads.
//!
//! The board serves two purposes. `status` is answered also while no worker lives or a callback
//! stalls. And a death is attributed to the action that was running.
//!
//! Every word is 8 bytes in the machine's order, and is written whole. A call of a handler costs
//! eight stores, and one more for each turn, and no system call. A pass costs two stores, and one
//! for each of its stages. [`super::board_figures`] adds some. A reader outside the process copies
//! the file and may see words of different moments: counters are for people.
//!
//! After a death the beat is exact, as a dead process's stores stand. The odd sequence number is
//! stored last at the begin of a call. If the number is odd, the other words are whole.
//!
//! Counters survive a worker: its successor maps the same file and counts on. What ran and the text
//! do not survive [`Board::open`].

use crate::memory::board_layout::{
    ACTIONS, BYTES, COUNTERS, CRASHED, DONE, GENERATION, JOBS, LIMITS, LOADS, LONGEST_MS, LOOKED_AT, PASS,
    PASS_AT, PLACE, PLACE_BYTES, PLACE_BYTES_MAX, PLACE_MARK, RUN, Running, SEEN_AT, SEEN_MARK, SEQ, SESSION,
    STAGE, STALLED_MS, TEXT, TEXT_BYTES, TEXT_BYTES_MAX, TEXT_VERSION, TURN, WHAT, mark, running,
};
use crate::memory::figures_layout::{SERVICES_MAX, Times};
use crate::memory::stage::Stage;
use crate::sys::crash_thread;
use crate::sys::mapping::Mapping;
use greenroom_core::limits::names::Limit;
use greenroom_core::reload::request::LibraryId;
use rustix::fs::{FallocateFlags, fallocate};
use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, Ordering, fence};

/// The worker's side. Copies are the same board. The loop alone writes beat, counts and text; the
/// watchdog reads the beat and counts limits.
#[derive(Clone, Copy)]
pub struct Board {
    /// All words of the file. An array, so that a word of a fixed place costs no check.
    words: &'static [AtomicU64; BYTES / 8],
}

impl Board {
    /// Maps the file, which is fresh or a predecessor's, for the life of the process. Fails if the
    /// kernel has no memory for it: a board that is mapped never faults.
    pub fn open(fd: &OwnedFd) -> io::Result<Board> {
        rustix::io::retry_on_intr(|| fallocate(fd, FallocateFlags::empty(), 0, BYTES as u64))?;
        let words = Mapping::new(fd, BYTES)?.leak_words().as_array();
        let board = Board { words: words.expect("the mapping has this length") };
        // A predecessor may have died in a turn, or in the middle of a text. Its jobs ended with
        // it.
        for word in RUN.into_iter().chain([TEXT_VERSION, TEXT_BYTES]).chain(JOBS..PASS) {
            board.words[word].store(0, Ordering::Relaxed);
        }
        board.open_figures();
        Ok(board)
    }

    /// All words, for [`super::board_figures`].
    #[inline]
    pub(super) fn words(self) -> &'static [AtomicU64; BYTES / 8] {
        self.words
    }

    /// Has the thread of a crash noted here from now on. The calling thread is the loop's. Without
    /// the notes, each crash is blamed on the turn that runs.
    pub fn note_crashes(self) {
        if let Err(e) = crash_thread::note_in(&self.words[CRASHED]) {
            tracing::warn!("the thread of a crash can't be noted: {e}");
        }
    }

    /// Makes a board without a reader, for a process that serves nothing.
    pub fn unread() -> io::Result<Board> {
        Board::open(&crate::memory::records::memory_file("greenroom-board")?)
    }

    /// Notes that a handler is called with a batch of this many actions. `running` is the first.
    /// Calls do not nest.
    #[inline]
    pub fn begin(self, running: Running, actions: usize) {
        let w = self.words;
        w[SESSION].store(running.session, Ordering::Relaxed);
        w[TURN].store(running.turn, Ordering::Relaxed);
        w[WHAT].store(u64::from(running.service) << 32 | u64::from(running.action), Ordering::Relaxed);
        w[GENERATION].store(running.generation, Ordering::Relaxed);
        w[DONE].store(0, Ordering::Relaxed);
        w[ACTIONS].store(actions as u64, Ordering::Relaxed);
        // Last: an odd number says that the words above are whole.
        let seq = w[SEQ].load(Ordering::Relaxed);
        w[SEQ].store(seq | 1, Ordering::Release);
    }

    /// Notes that an action of the batch is done. Runs inside the turn, when the handler reports
    /// success.
    #[inline]
    pub fn step(self) {
        let done = self.words[DONE].load(Ordering::Relaxed);
        self.words[DONE].store(done + 1, Ordering::Release);
    }

    /// Notes that the handler has returned.
    #[inline]
    pub fn end(self) {
        let seq = self.words[SEQ].load(Ordering::Relaxed);
        self.words[SEQ].store(seq + 1, Ordering::Release);
    }

    /// Notes that all turns so far are committed. A store for each commit.
    #[inline]
    pub fn committed(self) {
        self.words[ACTIONS].store(0, Ordering::Release);
    }

    /// Notes which library's code is being loaded; `None`: none is. For the prepare thread alone.
    pub fn loads(self, library: Option<LibraryId>) {
        let number = library.map_or(0, |id| id.0 as u64 + 1);
        self.words[LOADS].store(number, Ordering::Release);
    }

    /// Notes that the watchdog looks, at this time. `seen`: mark and first look of the action that
    /// runs; the words of an earlier one stay.
    pub fn looked(self, now_ns: u64, seen: Option<(u64, u64)>) {
        if let Some((mark, at_ns)) = seen {
            self.words[SEEN_AT].store(at_ns, Ordering::Relaxed);
            self.words[SEEN_MARK].store(mark, Ordering::Release);
        }
        self.words[LOOKED_AT].store(now_ns, Ordering::Relaxed);
    }

    /// Shows the place of the action with this mark. For the watchdog alone. O(bytes).
    pub fn place(self, mark: u64, place: &str) {
        let bytes = &place.as_bytes()[..place.floor_char_boundary(PLACE_BYTES_MAX)];
        self.words[PLACE_BYTES].store(0, Ordering::SeqCst);
        self.write(PLACE, bytes);
        self.words[PLACE_MARK].store(mark, Ordering::Relaxed);
        self.words[PLACE_BYTES].store(bytes.len() as u64, Ordering::SeqCst);
    }

    /// Writes bytes from this word on. The last word is filled up with zeros.
    fn write(self, from: usize, bytes: &[u8]) {
        for (i, bytes) in bytes.chunks(8).enumerate() {
            let mut word = [0; 8];
            word[..bytes.len()].copy_from_slice(bytes);
            self.words[from + i].store(u64::from_ne_bytes(word), Ordering::Relaxed);
        }
    }

    /// The action that runs now, and a mark that changes with each action. `None`: no handler runs.
    /// For the watchdog, on its own thread: the mark may be of a later moment than the action.
    pub fn running(self) -> Option<(u64, Running)> {
        let w = |at: usize| self.words[at].load(Ordering::Acquire);
        running(&std::array::from_fn::<_, 8, _>(w)).map(|r| (mark(w(SEQ), w(DONE)), r))
    }

    /// Notes that the watchdog ends this process, after the action has run for `ms` milliseconds. A
    /// keeper that reads this counts the SIGKILL as the action's own doing.
    pub fn stalled(self, ms: u64) {
        self.words[STALLED_MS].store(ms, Ordering::SeqCst);
    }

    /// Notes that the watchdog ends this process, as the loop's thread has ended. A keeper that
    /// reads this counts the SIGKILL as the doing of the action that ran, or ran last.
    pub fn loop_ended(self) {
        self.words[STALLED_MS].store(u64::MAX, Ordering::SeqCst);
    }

    /// Shows the counts of a service: sessions, turns, faults. A service beyond the 1,024th is left
    /// out.
    #[inline]
    pub fn count(self, service: usize, counts: [u64; 3]) {
        if service < SERVICES_MAX {
            for (i, n) in counts.into_iter().enumerate() {
                self.words[COUNTERS + 3 * service + i].store(n, Ordering::Relaxed);
            }
        }
    }

    /// A service's counts, as a predecessor left them.
    pub fn counted(self, service: usize) -> [u64; 3] {
        match service < SERVICES_MAX {
            true => std::array::from_fn(|i| self.words[COUNTERS + 3 * service + i].load(Ordering::Relaxed)),
            false => [0; 3],
        }
    }

    /// Notes that a pass begins, at this time.
    #[inline]
    pub fn pass_begins(self, now_ns: u64) {
        self.words[PASS_AT].store(now_ns, Ordering::Relaxed);
        self.stage(Stage::Begin);
    }

    /// Notes what the loop does from here on, until [`Board::pass_ends`]. The first note of a pass
    /// is that of [`Board::pass_begins`].
    #[inline]
    pub fn stage(self, stage: Stage) {
        self.words[STAGE].store(stage as u64, Ordering::Relaxed);
        let seq = self.words[PASS].load(Ordering::Relaxed);
        self.words[PASS].store(seq | 1, Ordering::Release);
    }

    /// Notes that the loop is about to wait, and for how long the pass went on. `now_ns` is asked
    /// only if one has begun.
    #[inline]
    pub fn pass_ends(self, now_ns: impl FnOnce() -> u64) {
        let begun_ns = self.words[PASS_AT].load(Ordering::Relaxed);
        if begun_ns > 0 {
            self.took(Times::Pass, now_ns().saturating_sub(begun_ns));
        }
        self.words[PASS_AT].store(0, Ordering::Relaxed);
        let seq = self.words[PASS].load(Ordering::Relaxed);
        self.words[PASS].store(seq + (seq & 1), Ordering::Release);
    }

    /// The pass under way: a mark that changes with each pass, and its stage. `None`: the loop
    /// waits.
    pub fn pass(self) -> Option<(u64, Stage)> {
        let mark = self.words[PASS].load(Ordering::Acquire);
        let stage = Stage::ALL.get(self.words[STAGE].load(Ordering::Relaxed) as usize);
        stage.filter(|_| mark & 1 != 0).map(|stage| (mark, *stage))
    }

    /// The session whose turn ran last, and the number of its service, as far as the words are
    /// whole: a turn may begin meanwhile.
    pub fn last_turn(self) -> (u64, u16) {
        let w = |at: usize| self.words[at].load(Ordering::Relaxed);
        (w(SESSION), (w(WHAT) >> 32) as u16)
    }

    /// Notes that a pass took so long. The longest one stays.
    pub fn pass_took(self, ms: u64) {
        self.words[LONGEST_MS].fetch_max(ms, Ordering::Relaxed);
    }

    /// Shows a service's jobs: threads taken, jobs that wait, and when the oldest began, in
    /// nanoseconds of the monotonic clock.
    pub fn count_jobs(self, service: usize, counts: [u64; 3]) {
        if service < SERVICES_MAX {
            for (i, n) in counts.into_iter().enumerate() {
                self.words[JOBS + 3 * service + i].store(n, Ordering::Relaxed);
            }
        }
    }

    /// Counts that a limit was reached, from any thread. Successors count on.
    pub fn reached(self, limit: Limit) {
        self.reached_times(limit, 1);
    }

    /// Counts that a limit was reached so often, likewise.
    pub fn reached_times(self, limit: Limit, times: u64) {
        self.words[LIMITS + limit as usize].fetch_add(times, Ordering::Relaxed);
    }

    /// Writes a text about the services, in place of the previous one. A text beyond
    /// `TEXT_BYTES_MAX` is left out, and the previous one stays. O(bytes).
    pub fn say(self, text: &[u8]) {
        if text.len() > TEXT_BYTES_MAX {
            return;
        }
        // Odd first and even last: a reader finds an odd version, or another one than at first.
        let version = self.words[TEXT_VERSION].load(Ordering::Relaxed);
        self.words[TEXT_VERSION].store(version | 1, Ordering::SeqCst);
        fence(Ordering::SeqCst);
        self.words[TEXT_BYTES].store(text.len() as u64, Ordering::Relaxed);
        self.write(TEXT, text);
        self.words[TEXT_VERSION].store((version | 1) + 1, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::reading::{Reading, WatchdogEnd};
    use std::time::Duration;

    #[test]
    fn a_reader_sees_what_runs_and_what_is_said() {
        let fd = crate::memory::records::memory_file("test").unwrap();
        assert!(Reading::of(&fd).running().is_none() && Reading::of(&fd).text().is_none());
        let board = Board::open(&fd).unwrap();
        let running = Running { service: 3, generation: 9, session: 77, turn: 5, action: 2 };
        board.begin(running, 2);
        assert_eq!(Reading::of(&fd).running(), Some(running));
        let (first, _) = board.running().unwrap();
        board.step();
        assert_eq!(Reading::of(&fd).running(), Some(Running { turn: 6, ..running }));
        assert_ne!(board.running().unwrap().0, first);
        board.step();
        assert_eq!(Reading::of(&fd).running(), Some(Running { turn: 6, ..running }), "there are two");
        board.end();
        assert_eq!(Reading::of(&fd).running(), None);
        board.begin(running, 2);
        board.stalled(1200);
        assert_eq!(Reading::of(&fd).watchdog_end(), Some(WatchdogEnd::Stalled(1200)));
        board.loop_ended();
        assert_eq!(Reading::of(&fd).watchdog_end(), Some(WatchdogEnd::LoopEnded));
        let (mark, _) = board.running().unwrap();
        board.pass_begins(1_000);
        let busy = |now_ns| Reading::of(&fd).busy(now_ns).unwrap();
        assert_eq!((busy(9_000).time, busy(9_000).place), (Duration::from_nanos(8_000), None));
        board.looked(3_000, Some((mark, 2_000)));
        board.place(mark, "read (src/lib.rs:3)");
        assert_eq!((busy(9_000).time, busy(9_000).running), (Duration::from_nanos(7_000), Some(running)));
        assert_eq!(busy(9_000).place.as_deref(), Some("read (src/lib.rs:3)"));
        board.say(b"two services");
        board.count(1, [5, 6, 7]);
        board.reached(Limit::OpenFiles);
        let read = Reading::of(&fd);
        assert_eq!((read.counts(1), read.text().as_deref()), (Some([5, 6, 7]), Some(&b"two services"[..])));
        board.say(b"one");
        assert_eq!(Reading::of(&fd).text().as_deref(), Some(&b"one"[..]));
        // A successor goes on counting, and what ran is not running.
        let next = Board::open(&fd).unwrap();
        assert_eq!(next.counted(1), [5, 6, 7]);
        next.reached(Limit::OpenFiles);
        assert_eq!(Reading::of(&fd).reached(Limit::OpenFiles), 2);
        assert!(next.running().is_none() && Reading::of(&fd).watchdog_end().is_none());
        assert_eq!(Reading::of(&fd).busy(9_000), None);
        next.begin(running, 1);
        next.pass_begins(4_000);
        assert_eq!(busy(9_000).place, None, "that of another action");
    }
}
