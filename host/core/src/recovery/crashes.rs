//! What follows from the deaths of workers: which action must not run again, and which generation
//! has to give way.
//!
//! Only a death in the middle of a turn, by the turn's own doing, says anything about code: a
//! segmentation fault, an abort, an exit, a stall that the watchdog ended. A kill from outside says
//! nothing.

use crate::ids::service_of_number;
use crate::limits::host::Limits;
use crate::session::quarantine::BlockedAction;
use greenroom_state::abi;
use std::collections::VecDeque;

/// Deaths that are remembered.
const DEATHS_MAX: usize = 256;
/// An action that killed so often isn't tried again.
const KILLS_MAX: usize = 2;

/// The action that a worker died of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Death {
    /// When, in milliseconds on any clock that goes on.
    pub at_ms: u64,
    /// The library.
    pub library: String,
    /// Its generation.
    pub generation: u64,
    /// The session.
    pub session: u64,
    /// Turns that it ran before.
    pub turn: u64,
    /// One of [`abi::action`].
    pub action: u32,
    /// How, in words.
    pub how: String,
}

/// The deaths so far.
#[derive(Debug, Default)]
pub struct Crashes {
    deaths: VecDeque<Death>,
}

impl Crashes {
    /// Remembers one.
    pub fn note(&mut self, death: Death) {
        if self.deaths.len() == DEATHS_MAX {
            self.deaths.pop_front();
        }
        self.deaths.push_back(death);
    }

    /// The actions that killed a worker twice.
    pub fn blocked(&self) -> Vec<BlockedAction> {
        let mut blocked: Vec<BlockedAction> = Vec::new();
        for d in &self.deaths {
            let same = |o: &&Death| (o.session, o.turn, o.action) == (d.session, d.turn, d.action);
            if self.deaths.iter().filter(same).count() >= KILLS_MAX
                && !blocked.iter().any(|w| (w.session, w.turn, w.action) == (d.session, d.turn, d.action))
            {
                let (action, how) = (action_name(d.action), &d.how);
                let reason = match service_of_number(d.session) {
                    None => {
                        let turn = d.turn + 1;
                        format!(
                            "its turn {turn} (action {action}) killed the worker {KILLS_MAX} times: {how}"
                        )
                    }
                    Some(_) => {
                        format!("a {action} of the service itself killed the worker {KILLS_MAX} times: {how}")
                    }
                };
                blocked.push(BlockedAction { session: d.session, turn: d.turn, action: d.action, reason });
            }
        }
        blocked
    }

    /// The generations that killed lately: library and generation.
    pub fn killed(&self, limits: &Limits, now_ms: u64) -> Vec<(String, u64)> {
        self.killed_times(1, limits, now_ms)
    }

    /// The generations that killed too often lately: library and generation.
    pub fn give_way(&self, limits: &Limits, now_ms: u64) -> Vec<(String, u64)> {
        self.killed_times(limits.crashes_max as usize, limits, now_ms)
    }

    fn killed_times(&self, times: usize, limits: &Limits, now_ms: u64) -> Vec<(String, u64)> {
        let lately = |d: &&Death| now_ms.saturating_sub(d.at_ms) <= limits.crash_window_ms;
        let mut found: Vec<(String, u64)> = Vec::new();
        for d in self.deaths.iter().filter(lately) {
            let of = |o: &&Death| (&o.library, o.generation) == (&d.library, d.generation);
            let kills = self.deaths.iter().filter(lately).filter(of).count();
            let one = (d.library.clone(), d.generation);
            if kills >= times && !found.contains(&one) {
                found.push(one);
            }
        }
        found
    }
}

/// What an operator calls a kind of action.
pub fn action_name(kind: u32) -> &'static str {
    match kind {
        abi::action::OPENED => "opened",
        abi::action::MESSAGE => "message",
        abi::action::CLOSED => "closed",
        abi::action::TIMER => "timer",
        abi::action::NOTE => "note",
        abi::action::PUBLISHED => "published",
        abi::action::JOB => "job",
        abi::action::DIALED => "dialed",
        abi::action::CONNECT => "connect",
        _ => "?",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn death(at_ms: u64, session: u64, turn: u64, generation: u64) -> Death {
        let how = "segmentation fault (SIGSEGV)".into();
        Death { at_ms, library: "echo".into(), generation, session, turn, action: abi::action::MESSAGE, how }
    }

    #[test]
    fn an_action_is_blocked_when_it_killed_twice() {
        let mut crashes = Crashes::default();
        crashes.note(death(0, 7, 3, 1));
        crashes.note(death(0, 7, 4, 1));
        crashes.note(death(0, 8, 3, 1));
        assert_eq!(crashes.blocked(), []);
        // However long it took, and whatever code it was.
        crashes.note(death(1 << 40, 7, 3, 2));
        let blocked = crashes.blocked();
        assert_eq!((blocked.len(), blocked[0].session, blocked[0].turn), (1, 7, 3));
        assert!(blocked[0].reason.contains("turn 4 (action message) killed the worker 2 times: segm"));
    }

    #[test]
    fn a_generation_gives_way_when_it_killed_often_lately() {
        let limits = Limits { crashes_max: 3, crash_window_ms: 1000, ..Limits::default() };
        let mut crashes = Crashes::default();
        for n in 0..3 {
            crashes.note(death(n * 700, n, 0, 2));
            crashes.note(death(700 + n * 400, n, 0, 5));
        }
        assert_eq!(crashes.give_way(&limits, 1500), [("echo".to_owned(), 5)]);
        assert_eq!(crashes.killed(&limits, 1500), [("echo".to_owned(), 5), ("echo".to_owned(), 2)]);
        assert_eq!(crashes.give_way(&limits, 5000), []);
        for n in 0..2 * DEATHS_MAX as u64 {
            crashes.note(death(0, n, 0, 1));
        }
        assert_eq!(crashes.deaths.len(), DEATHS_MAX);
    }
}
