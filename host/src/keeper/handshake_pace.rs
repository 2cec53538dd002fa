//! Pace of handshakes: how many begin in a second, and whether the handshaker answers at all.
//!
//! Handshakes take 0.3 to 0.5 ms of a processor each, so whoever connects again and again takes one
//! away from the host. Beyond limit `handshakes_per_s`, connections wait; then the kernel's queue
//! does.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Time beyond limit `handshake_ms` in which the handshaker must have told an outcome.
const GRACE: Duration = Duration::from_secs(2);

/// Pace of the handshakes that the handshaker is given.
#[derive(Debug)]
pub(super) struct Pace {
    /// Limit `handshakes_per_s`; 0: none.
    per_s: u64,
    /// Time that the next handshake is due at, if they come one by one.
    next: Instant,
    /// Handshakes wait for their time.
    holds_back: bool,
    /// Time that held a handshake back at the last look; `None`: none was.
    held_until: Option<Instant>,
    /// Beginning of such a wait, if it was not told yet.
    is_reached: bool,
    /// Handshakes that were given, with the time by which each has an outcome. Some have ended.
    given: VecDeque<(Instant, u64)>,
}

impl Default for Pace {
    fn default() -> Pace {
        Pace {
            per_s: 0,
            next: Instant::now(),
            holds_back: false,
            held_until: None,
            is_reached: false,
            given: VecDeque::new(),
        }
    }
}

impl Pace {
    /// Follows another limit.
    pub(super) fn follow(&mut self, per_s: u64) {
        self.per_s = per_s;
    }

    /// Time of one handshake. `None`: no limit.
    fn interval(&self) -> Option<Duration> {
        (self.per_s > 0).then(|| Duration::from_secs(1) / u32::try_from(self.per_s).unwrap_or(u32::MAX))
    }

    /// Time from which another handshake may begin. As many as a tenth of a second has may begin at
    /// once. `None`: now.
    fn waits_until(&self, now: Instant) -> Option<Instant> {
        let ahead = Duration::from_millis(100).max(self.interval()?);
        let from = self.next.checked_sub(ahead)?;
        (from >= now).then_some(from)
    }

    /// Looks whether another handshake may begin. If not, it is held back until its time, which
    /// counts once until one may begin at once.
    pub(super) fn may_begin(&mut self, now: Instant) -> bool {
        self.held_until = self.waits_until(now);
        if self.held_until.is_some() {
            self.is_reached |= !std::mem::replace(&mut self.holds_back, true);
        }
        self.held_until.is_none()
    }

    /// Time of the next look, if the last one held a handshake back. It may have come meanwhile.
    pub(super) fn held_until(&self) -> Option<Instant> {
        self.held_until
    }

    /// Takes the note that handshakes had to wait.
    pub(super) fn take_reached(&mut self) -> bool {
        std::mem::take(&mut self.is_reached)
    }

    /// Notes that a handshake was given, under this limit `handshake_ms`.
    pub(super) fn gave(&mut self, number: u64, handshake_ms: u64, now: Instant) {
        self.given.push_back((now + Duration::from_millis(handshake_ms) + GRACE, number));
        if let Some(interval) = self.interval() {
            self.holds_back &= self.next > now;
            self.next = self.next.max(now) + interval;
        }
    }

    /// Forgets all that was given: the process has ended.
    pub(super) fn forget(&mut self) {
        self.held_until = None;
        self.given.clear();
    }

    /// Time when the oldest handshake has no outcome although it had its time, of those that are
    /// `under_way`. O(1) amortized.
    pub(super) fn stuck_at(&mut self, under_way: impl Fn(u64) -> bool) -> Option<Instant> {
        while self.given.front().is_some_and(|(_, number)| !under_way(*number)) {
            self.given.pop_front();
        }
        self.given.front().map(|(at, _)| *at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_begin_as_the_limit_says() {
        let start = Instant::now();
        let mut pace = Pace { next: start, ..Pace::default() };
        for (per_s, in_two_seconds) in [(0, 20_000), (1, 3), (50, 106), (1000, 2101)] {
            pace.follow(per_s);
            pace.next = start;
            let mut begun = 0;
            for tick in 0..20_000 {
                let now = start + Duration::from_micros(tick * 100);
                if pace.may_begin(now) {
                    pace.gave(begun, 1000, now);
                    begun += 1;
                }
            }
            assert!(begun.abs_diff(in_two_seconds) <= 2, "{per_s}: {begun}");
        }
    }

    #[test]
    fn the_time_of_the_next_look_stays_once_it_has_come() {
        let start = Instant::now();
        let mut pace = Pace { per_s: 1000, next: start + Duration::from_millis(150), ..Pace::default() };
        let due = start + Duration::from_millis(50);
        assert!(!pace.may_begin(start) && pace.held_until() == Some(due));
        assert!(pace.take_reached() && !pace.take_reached());
        // The loop asks a little later, when nothing waits for its time any more.
        assert_eq!((pace.waits_until(due + Duration::from_millis(1)), pace.held_until()), (None, Some(due)));
        assert!(pace.may_begin(due + Duration::from_millis(1)) && pace.held_until().is_none());
    }

    #[test]
    fn a_process_that_answers_nothing_is_found() {
        let (now, mut pace) = (Instant::now(), Pace::default());
        (1..4).for_each(|n| pace.gave(n, 1000, now + Duration::from_secs(n)));
        let stuck = pace.stuck_at(|n| n > 1);
        assert_eq!(stuck, Some(now + Duration::from_secs(2) + Duration::from_secs(1) + GRACE));
        assert_eq!(pace.stuck_at(|_| false), None);
    }
}
