//! The end of a session: its last turn, then its output, then our end of the stream, then the peer's. The table is in
//! [`crate::session::life`].

use crate::command::Command;
use crate::core::Core;
use crate::ids::Slot;
use crate::limits::names::Limit;
use crate::session::life::Life;
use greenroom_state::abi::{Action, Bytes, action, closed, level};

/// While stopping, peers are not waited for longer than this after our end is shut.
const STOP_LINGER_MS: u64 = 250;

impl Core {
    /// Closes an open session: its last turn, then its output, then our end of the stream.
    pub(crate) fn finish(&mut self, slot: Slot, reason: u32) {
        self.last_turn(slot, reason);
        let Some(s) = self.sessions.get_mut(slot) else { return };
        if s.unsent() == 0 {
            self.flushed(slot);
        } else {
            let wait_ms = if self.stopping { self.limits.stop_ms } else { self.limits.drain_ms };
            self.set_deadline(slot, wait_ms);
        }
    }

    /// Runs the turn that tells the handler of the end, and takes the session off everything it shares.
    pub(crate) fn last_turn(&mut self, slot: Slot, reason: u32) {
        let Some(s) = self.sessions.get_mut(slot) else { return };
        if s.life != Life::Open {
            let message = format!("asked to close it in life {:?}", s.life);
            return self.notice(level::ERROR, slot, message);
        }
        s.life = Life::Draining;
        self.touch(slot);
        let last = Action { detail: reason, ..Action::new(action::CLOSED, Bytes::EMPTY) };
        self.run_batch(slot, &[last]);
        let Some(s) = self.sessions.get_mut(slot) else { return };
        let on = s.subscriptions.take().unwrap_or_default();
        for topic in &on.topics {
            self.topics.remove(topic, slot);
        }
        for r in on.record.into_iter().chain(s.input.take()) {
            self.store.delete(r);
        }
        self.forget_waiting(slot);
        self.drop_timers(slot);
        self.drop_jobs(slot);
        self.drop_connects(slot);
        self.end_quarantine(slot);
    }

    /// A draining session's output is out.
    pub(crate) fn flushed(&mut self, slot: Slot) {
        let Some(s) = self.sessions.get_mut(slot) else { return };
        if s.peer_done {
            return self.gone(slot);
        }
        s.life = Life::Lingering;
        self.touch(slot);
        self.effects.push(Command::Shutdown(slot));
        let wait_ms = if self.stopping { STOP_LINGER_MS } else { self.limits.linger_ms };
        self.set_deadline(slot, wait_ms);
    }

    pub(crate) fn set_deadline(&mut self, slot: Slot, in_ms: u64) {
        let Some(s) = self.sessions.get_mut(slot) else { return };
        self.deadlines.remove(&(s.deadline_ns, slot));
        s.deadline_ns = self.now_ns + in_ms * 1_000_000;
        self.deadlines.insert((s.deadline_ns, slot));
    }

    /// Forgets a session and its records.
    pub(crate) fn gone(&mut self, slot: Slot) {
        self.drop_output(slot);
        self.forget_waiting(slot);
        self.drop_timers(slot);
        self.drop_jobs(slot);
        self.drop_connects(slot);
        self.end_quarantine(slot);
        let Some(s) = self.sessions.remove(slot) else { return };
        self.deadlines.remove(&(s.deadline_ns, slot));
        self.withheld.remove(&s.id);
        let topics = s.subscriptions.and_then(|on| on.record);
        for r in [s.record, s.state, s.input, topics].into_iter().flatten() {
            self.store.delete(r);
        }
        let service = &mut self.services[usize::from(s.service.0)];
        service.sessions -= 1;
        service.count_stored(s.state_version, 0);
        self.effects.push(Command::Close { slot, id: s.id });
    }

    /// Closes the sessions whose output grew over its limit; their last turns may make others grow.
    pub(crate) fn close_overflowed(&mut self) {
        while let Some(slot) = self.overflowed.pop() {
            let Some(s) = self.sessions.get(slot) else { continue };
            let open = s.life == Life::Open;
            let what = format!("closed: {} bytes of output never taken", s.unsent());
            self.say_reached(Limit::OutputBytesMax, level::WARN, slot, &what);
            self.drop_output(slot);
            if open {
                self.last_turn(slot, closed::LIMIT);
            }
            self.effects.push(Command::Reset(slot));
            self.gone(slot);
        }
    }
}
