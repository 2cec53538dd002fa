//! Threads beside the loop: preparation of reloads, jobs, watchdog.
//!
//! The loop orders, and never waits: results come back through its inbox. Nothing of these threads
//! outlives the process. A successor begins jobs again, and forgets reloads.

use crate::job_threads::JobThreads;
use crate::plugin::authors_code::{AuthorsCode, AuthorsStep};
use crate::plugin::prepare::Job;
use crate::watchdog::StallLimits;
use std::path::PathBuf;
use std::sync::mpsc::Sender;
use std::time::Duration;

/// Handles on the threads beside the loop.
pub(super) struct Threads {
    /// The thread that prepares reloads.
    pub prepare: PrepareThread,
    /// The jobs that run.
    pub jobs: JobThreads,
    /// The watchdog's limits, which a configuration may change while it watches.
    pub stall_limits: StallLimits,
}

/// The thread that does the slow steps of reloads, in the order of its orders.
pub(super) struct PrepareThread {
    orders: Sender<Job>,
    code: AuthorsCode,
}

impl PrepareThread {
    /// Wraps the channel to the thread, and what shows which code of authors runs there.
    pub(super) fn new(orders: Sender<Job>, code: AuthorsCode) -> PrepareThread {
        PrepareThread { orders, code }
    }

    /// Returns the step in which code of authors has held the thread for so long.
    pub(super) fn held_for(&self, time: Duration) -> Option<AuthorsStep> {
        self.code.runs_for(time)
    }

    /// Orders a step. Panics if the thread is gone: every reload would wait for ever.
    pub(super) fn send(&self, order: Job) {
        assert!(self.orders.send(order).is_ok(), "the prepare thread lives as long as the loop");
    }

    /// Orders the removal of private copies that no process will load again.
    pub(super) fn drop_copies(&self, copies: Vec<PathBuf>) {
        if !copies.is_empty() {
            self.send(Job::Drop(Box::new(()), copies));
        }
    }
}
