//! Steps of the end of the host: the signal, and the deadline.

use crate::keeper::Keeper;
use greenroom_core::limits::names::Limit;
use std::time::{Duration, Instant};

/// Time beyond `stop_ms` after which a worker must have begun its save, or ended.
const STOP_GRACE: Duration = Duration::from_secs(5);

impl Keeper {
    /// Handles a signal to stop. The worker flushes and saves, and ends. On a second signal the
    /// worker ends at once; one that hangs is killed, and its successor saves. If no worker could
    /// be told by then, the host ends, and nothing is saved, unless a process that only saves runs.
    pub(super) fn stop(&mut self, signal: i32) {
        let again = self.stop.is_requested();
        if !again {
            self.fail_upgrade("the host is stopping");
        }
        let board = self.worker.read_board();
        let hangs = again && self.stalled(&board).is_some_and(|s| s.stopped || s.running.is_some());
        match hangs {
            // It would not read that it is to end at once.
            true => self.stop.request(signal, Instant::now()),
            false if self.stop.is_saving() => {}
            false => self.stop.request(signal, Instant::now() + self.stop_wait()),
        }
        // A worker that is still to start is told once it serves. A starting one keeps the message
        // until then.
        let told = self.worker.tell_to_stop(signal);
        if !told && self.worker.has_served() && !again {
            tracing::warn!(connections = self.acceptor.connections(), "told to stop while no worker serves");
        }
        if again && !self.worker.is_told_to_stop() && !self.stop.saves_alone() {
            self.stop.fail("stopped while no worker served: nothing was flushed or saved".into());
            self.worker.kill();
        }
    }

    /// Notes that the worker saves, and that the save moves: it is waited for.
    pub(super) fn saving(&mut self) {
        if self.stop.is_requested() {
            self.stop.saves(Instant::now() + Duration::from_millis(self.options.config.limits.save_ms));
        }
    }

    /// Kills a worker that has not ended by the deadline of a stop. The first time, a successor is
    /// to flush and save: a callback that does not return must not cost the tables.
    pub(super) fn stop_in_time(&mut self, now: Instant) {
        if self.stop.deadline().is_none_or(|at| at > now) {
            return;
        }
        let board = self.worker.read_board();
        let what = self.stalled(&board).map_or_else(String::new, |s| format!(": {}", s.text));
        if self.binary.is_none() {
            tracing::error!("the worker doesn't end, and the host ends without a save{what}");
            // The worker runs on another thread of this process, which nothing else would end.
            std::process::exit(1);
        }
        let ms = self.options.config.limits.save_ms;
        if self.stop.is_saving() {
            self.count_reached(Limit::SaveMs, 1);
            tracing::error!("the save has not moved for {ms} ms (limit save_ms); the worker is killed");
            self.stop.fail(format!("the tables were not saved: nothing moved for {ms} ms (limit save_ms)"));
        } else if self.worker.has_process() && self.stop.try_again(now + self.stop_wait()) {
            tracing::error!("the worker doesn't end; it is killed, and a successor flushes and saves{what}");
            if let Some(running) = board.running() {
                let death = self.death(&board, "it did not return when the host stopped".into(), &running);
                self.crashes.withhold(&death);
            }
            return self.worker.kill();
        } else if self.worker.has_served() && !self.stop.saves_alone() {
            tracing::error!("the host has not ended in its time, and a process saves the tables{what}");
            self.stop.give_up_flushing(now + self.stop_wait());
            return match self.worker.has_process() {
                true => self.worker.kill(),
                false => self.cannot_start("no worker has flushed the sessions in time".into()),
            };
        } else {
            tracing::error!("the worker doesn't end; it is killed{what}");
            self.stop.fail("the worker didn't end, and nothing was saved".into());
        }
        self.worker.kill();
        self.stop.extend(now + STOP_GRACE);
    }

    /// Time that a worker has to flush, and to begin its save.
    pub(super) fn stop_wait(&self) -> Duration {
        Duration::from_millis(self.options.config.limits.stop_ms) + STOP_GRACE
    }
}
