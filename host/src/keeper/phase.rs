//! Phases of a worker process.
//!
//! | phase | process | accepts | commands for the worker | leaves by itself |
//! | --- | --- | --- | --- | --- |
//! | parked | none | no | wait, for at most 5 s | at its deadline: the next start |
//! | starting | gets its connections | no | wait | after 60 s: killed |
//! | serving | runs turns | yes | answered | never |
//! | handing over | finishes work | no | wait | after 60 s: killed |
//!
//! `worker_process` changes the phase, and `succession` decides.

use std::time::{Duration, Instant};

/// Time that a worker may take to start, or to end after it was told to hand over. A start scans
/// all records, so the time must allow for a full store.
pub(super) const START_MAX: Duration = Duration::from_secs(60);

/// A phase. Connections and commands wait in the kernel and in the keeper, except in `Serving`.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Phase {
    /// No process lives; the next one starts at this time.
    Parked {
        /// Time of the next start.
        until: Instant,
        /// Reason why none lives, for operators. Empty: a handover.
        reason: String,
    },
    /// A process is started, and receives its connections. Ends with [`ToKeeper::Ready`], or with
    /// the process.
    ///
    /// [`ToKeeper::Ready`]: crate::protocol::keeper::ToKeeper::Ready
    Starting {
        /// Time of the start.
        since: Instant,
        /// All connections are handed over, and the worker was told to serve.
        all_handed: bool,
    },
    /// The worker serves.
    Serving {
        /// Time when it became ready.
        since: Instant,
    },
    /// The worker was told to end, so that another process goes on.
    HandingOver {
        /// Time when it was told.
        since: Instant,
    },
}

impl Phase {
    /// Time when the keeper must act, if the worker does nothing until then. `None`: the worker
    /// serves, which has no deadline.
    pub(super) fn deadline(&self) -> Option<Instant> {
        match self {
            Phase::Parked { until, .. } => Some(*until),
            Phase::Starting { since, .. } | Phase::HandingOver { since } => Some(*since + START_MAX),
            Phase::Serving { .. } => None,
        }
    }

    /// Whether a start or a handover takes longer than [`START_MAX`]. True once: the clock
    /// restarts, so that the keeper's poll does not return at once until the process is reaped.
    pub(super) fn is_overdue(&mut self, now: Instant) -> bool {
        match self {
            Phase::Starting { since, .. } | Phase::HandingOver { since } if *since + START_MAX <= now => {
                *since = now;
                true
            }
            _ => false,
        }
    }

    /// Whether another process is to go on.
    pub(super) fn is_handing_over(&self) -> bool {
        matches!(self, Phase::HandingOver { .. })
    }

    /// Notes that the keeper kills the process: a worker that served takes no commands any more.
    pub(super) fn ends(&mut self) {
        if let Phase::Serving { .. } = self {
            *self = Phase::HandingOver { since: Instant::now() };
        }
    }

    /// Time that a worker in this phase has served. For a handover, the time since its begin: the
    /// phase does not keep the time before.
    pub(super) fn served_for(&self) -> Duration {
        match self {
            Phase::Serving { since } | Phase::HandingOver { since } => since.elapsed(),
            Phase::Parked { .. } | Phase::Starting { .. } => Duration::ZERO,
        }
    }

    /// Name of the phase in `greenroom status`.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Phase::Parked { .. } => "parked",
            Phase::Starting { .. } => "starting",
            Phase::Serving { .. } => "serving",
            Phase::HandingOver { .. } => "handing over",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_start_is_overdue_once_until_its_clock_ran_out_again() {
        let begun = Instant::now();
        let mut phase = Phase::Starting { since: begun, all_handed: true };
        assert!(!phase.is_overdue(begun + START_MAX - Duration::from_millis(1)));
        assert!(phase.is_overdue(begun + START_MAX));
        assert!(!phase.is_overdue(begun + START_MAX), "told once");
        assert_eq!(phase, Phase::Starting { since: begun + START_MAX, all_handed: true });
        assert!(phase.is_overdue(begun + 2 * START_MAX));
        assert!(!Phase::Serving { since: begun }.is_overdue(begun + 9 * START_MAX));
    }
}
