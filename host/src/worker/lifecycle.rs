//! End of a worker: a stop of the host, or a handover to a successor.
//!
//! | state | event | becomes |
//! | --- | --- | --- |
//! | serving | a signal | stopping |
//! | serving | an upgrade or a recycling | handing over |
//! | handing over | a signal | stopping |
//! | stopping | all sessions flushed, `stop_ms` over, or a second signal | ended, saved |
//! | handing over | work under way finished, or 5 s over | ended, for the successor |
//!
//! Deadlines are checked once in each pass. A worker that dies instead leaves its records, and if
//! the host stops, its successor is told to stop, too.

use std::time::{Duration, Instant};

/// Time that a worker which hands over waits for reloads, jobs and answers under way. Clients are
/// served meanwhile. The keeper kills a worker only after 60 s.
const HAND_OVER_MAX: Duration = Duration::from_secs(5);
/// Longest sleep of a worker that hands over: threads of callers do not report their end.
const HAND_OVER_SLEEP: Duration = Duration::from_millis(1);

/// Deadlines of a worker that is to end. A worker that serves has neither, and none has both.
#[derive(Default)]
pub(super) struct Lifecycle {
    /// The host stops: sessions are flushed until then.
    stop_at: Option<Instant>,
    /// A successor is to go on: work under way is finished until then.
    hand_over_by: Option<Instant>,
}

impl Lifecycle {
    /// Begins a stop that takes at most `time`. A stop cancels a handover: no successor follows.
    pub(super) fn stop_within(&mut self, time: Duration) {
        self.hand_over_by = None;
        self.stop_at = Some(Instant::now() + time);
    }

    /// Ends a stop at once, whether sessions are flushed or not. Tables and ledger are saved still.
    pub(super) fn stop_now(&mut self) {
        self.stop_at = Some(Instant::now());
    }

    /// Begins a handover. The caller makes sure that no stop is under way.
    pub(super) fn hand_over(&mut self) {
        self.hand_over_by = Some(Instant::now() + HAND_OVER_MAX);
    }

    /// Returns whether the host stops.
    pub(super) fn is_stopping(&self) -> bool {
        self.stop_at.is_some()
    }

    /// Returns whether a successor is to go on.
    pub(super) fn is_handing_over(&self) -> bool {
        self.hand_over_by.is_some()
    }

    /// Returns whether this worker is about to end, for either reason.
    pub(super) fn is_ending(&self) -> bool {
        self.is_stopping() || self.is_handing_over()
    }

    /// Returns whether the time of the stop is over.
    pub(super) fn stop_is_due(&self) -> bool {
        self.stop_at.is_some_and(|at| Instant::now() >= at)
    }

    /// Returns whether the time of the handover is over.
    pub(super) fn hand_over_is_due(&self) -> bool {
        self.hand_over_by.is_some_and(|by| Instant::now() >= by)
    }

    /// Longest time that the poll may sleep; `None`: without limit. Reads the clock only while a
    /// stop is under way.
    pub(super) fn sleep_max(&self) -> Option<Duration> {
        let stop = self.stop_at.map(|at| at.saturating_duration_since(Instant::now()));
        let hand_over = self.hand_over_by.map(|_| HAND_OVER_SLEEP);
        [stop, hand_over].into_iter().flatten().min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stop_cancels_a_handover() {
        let mut life = Lifecycle::default();
        assert!(!life.is_ending() && life.sleep_max().is_none());
        life.hand_over();
        assert!(life.is_handing_over() && life.is_ending() && !life.hand_over_is_due());
        assert_eq!(life.sleep_max(), Some(HAND_OVER_SLEEP));
        life.stop_within(Duration::from_secs(3600));
        assert!(life.is_stopping() && !life.is_handing_over() && !life.stop_is_due());
        assert!(life.sleep_max() > Some(Duration::from_secs(3000)));
        life.stop_now();
        assert!(life.stop_is_due());
        assert_eq!(life.sleep_max(), Some(Duration::ZERO));
    }
}
