//! How long a peer may leave a session waiting: for its first byte, for the rest of a frame, for anything at all.
//!
//! A session has one deadline, which is looked at when it comes: if the peer was heard of meanwhile, it is set again. So a message costs
//! the noting of a time and nothing else. While the host itself doesn't read a session (its output isn't taken, its handler has it wait,
//! it is quarantined), its peer has no deadline.

use crate::core::Core;
use crate::ids::Slot;
use crate::limits::names::Limit;
use crate::session::life::{Life, Session};
use greenroom_state::abi::{closed, level};

/// Sessions whose deadlines follow changed limits in one pass.
const EXPECTED_PER_PASS: usize = 1024;

impl Core {
    /// When a session's peer must have been heard of, and by which limit.
    fn due(&self, s: &Session) -> Option<(u64, Limit, u64)> {
        let l = self.limits_in(s.service);
        let first = if s.bytes_in == 0 && !s.outbound { l.first_byte_ms } else { 0 };
        let all = [
            (s.heard_ns, first, Limit::FirstByteMs),
            (s.heard_ns, l.idle_ms, Limit::IdleMs),
            (s.frame_ns, if s.frame_ns > 0 { l.frame_ms } else { 0 }, Limit::FrameMs),
        ];
        let due = all.into_iter().filter(|(_, ms, _)| *ms > 0);
        due.map(|(from, ms, name)| (from + ms * 1_000_000, name, ms)).min()
    }

    /// Sets the deadline of a session that is open, unless it has an earlier one.
    pub(crate) fn expect(&mut self, slot: Slot) {
        let Some(s) = self.sessions.get(slot).filter(|s| s.life == Life::Open) else { return };
        let Some((at, ..)) = self.due(s) else { return };
        if s.deadline_ns > self.now_ns && s.deadline_ns <= at {
            return;
        }
        self.deadlines.remove(&(s.deadline_ns, slot));
        self.deadlines.insert((at, slot));
        if let Some(s) = self.sessions.get_mut(slot) {
            s.deadline_ns = at;
        }
    }

    /// The deadline of a session that is open has come.
    pub(crate) fn waited(&mut self, slot: Slot) {
        let Some(s) = self.sessions.get_mut(slot) else { return };
        if s.paused || s.resuming || s.held || s.waits || s.quarantined.is_some() {
            // It isn't the peer who has it wait.
            s.heard_ns = self.now_ns;
            s.frame_ns = if s.frame_ns > 0 { self.now_ns } else { 0 };
        }
        let Some(s) = self.sessions.get(slot) else { return };
        match self.due(s) {
            Some((at, limit, ms)) if at <= self.now_ns => {
                let what = match limit {
                    Limit::FrameMs => format!("a frame wasn't whole after {ms} ms"),
                    _ => format!("nothing came for {ms} ms"),
                };
                self.say_reached(limit, level::INFO, slot, &format!("closed: {what}"));
                self.finish(slot, closed::LIMIT);
            }
            _ => self.expect(slot),
        }
    }

    /// Limits have changed: deadlines follow, those of a few sessions in each pass.
    pub(crate) fn expect_on(&mut self) {
        let Some(after) = self.expect_again else { return };
        let some: Vec<_> =
            self.sessions.after(after).take(EXPECTED_PER_PASS).map(|(slot, s)| (slot, s.id)).collect();
        self.expect_again = some.last().filter(|_| some.len() == EXPECTED_PER_PASS).map(|(_, id)| *id);
        for (slot, _) in some {
            self.expect(slot);
        }
    }

    /// What is left of a session's input is a frame that isn't whole: since now, if `begins`.
    pub(crate) fn frame_waits(&mut self, slot: Slot, begins: bool) {
        let now_ns = self.now_ns;
        let Some(s) = self.sessions.get_mut(slot) else { return };
        if begins || s.frame_ns == 0 {
            s.frame_ns = now_ns;
            self.expect(slot);
        }
    }
}
