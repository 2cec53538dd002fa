//! Verdicts from the deaths of workers: an action that must not run again, a generation that
//! has to give way.
//!
//! Only a death in the middle of a turn, by the turn's own doing, says anything about code.
//! Such are a segmentation fault, an abort, an exit, and a stall that the watchdog ended. A
//! kill from outside says nothing.
//!
//! | deaths | verdict |
//! | --- | --- |
//! | 2 of one action, at any time, in any build | the action is blocked |
//! | `crashes_max` of one generation, within `crash_window_ms` | the generation gives way |
//! | 1 of a generation, within `crash_window_ms` | it gives way, if it is on probation |
//!
//! The keeper reads on the board what ran, notes the death here, and tells the verdicts to each
//! worker that it starts. All of it is in the keeper's memory: a host that starts fresh has no
//! deaths. A session that was quarantined for a blocked action has a record of its own, which
//! needs no verdict.
//!
//! Costs: O(deaths squared) for a verdict, with at most 256 deaths; asked once for each start.

use crate::ids::service_of_number;
use crate::limits::host::Limits;
use crate::session::quarantine::BlockedAction;
use greenroom_state::abi;
use std::collections::VecDeque;

/// Deaths that are remembered, at most. The oldest is forgotten, with its share in a verdict.
const DEATHS_MAX: usize = 256;
/// Deaths of one action from which the action is not tried again.
const KILLS_MAX: usize = 2;

/// Action that a worker died of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Death {
    /// Time of the death, in milliseconds on any clock that goes on.
    pub at_ms: u64,
    /// Library whose code ran; with the generation, the build.
    pub library: String,
    /// Generation of the library.
    pub generation: u64,
    /// Number of the session, or of the service for a service's own turn.
    pub session: u64,
    /// Turns that the session ran before. For a service's own turn a name in place of the
    /// count.
    pub turn: u64,
    /// Kind of the action, a constant of [`abi::action`].
    pub action: u32,
    /// Cause of the death, in words.
    pub how: String,
}

/// Deaths so far, oldest first, at most 256.
#[derive(Debug, Default)]
pub struct Crashes {
    deaths: VecDeque<Death>,
}

impl Crashes {
    /// Remembers a death. The caller made sure that the process caused it itself, in a turn.
    pub fn note(&mut self, death: Death) {
        if self.deaths.len() == DEATHS_MAX {
            self.deaths.pop_front();
        }
        self.deaths.push_back(death);
    }

    /// Returns the actions that killed a worker twice, each once. Builds and times make no
    /// difference: the action may kill any build.
    pub fn blocked(&self) -> Vec<BlockedAction> {
        let mut blocked: Vec<BlockedAction> = Vec::new();
        for d in &self.deaths {
            // Session, count of turns and kind name one action: the count moves on once its
            // turn is committed.
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

    /// Returns the generations that killed lately: library and generation. `now_ms` is on the
    /// clock of [`Death::at_ms`].
    pub fn killed(&self, limits: &Limits, now_ms: u64) -> Vec<(String, u64)> {
        self.killed_times(1, limits, now_ms)
    }

    /// Returns the generations that killed too often lately: library and generation. Whether
    /// the previous build can take over is for the successor to say.
    pub fn give_way(&self, limits: &Limits, now_ms: u64) -> Vec<(String, u64)> {
        self.killed_times(limits.crashes_max as usize, limits, now_ms)
    }

    /// Returns the generations that killed at least so many times within `crash_window_ms`.
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

/// Returns the name of a kind of action, for operators; `?` for an unknown one.
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

    /// Death in a message of a session, in this generation of one library.
    fn death(at_ms: u64, session: u64, turn: u64, generation: u64) -> Death {
        let how = "segmentation fault (SIGSEGV)".into();
        Death { at_ms, library: "echo".into(), generation, session, turn, action: abi::action::MESSAGE, how }
    }

    /// Another turn, or another session, is another action.
    #[test]
    fn an_action_is_blocked_when_it_killed_twice() {
        let mut crashes = Crashes::default();
        crashes.note(death(0, 7, 3, 1));
        crashes.note(death(0, 7, 4, 1));
        crashes.note(death(0, 8, 3, 1));
        assert_eq!(crashes.blocked(), []);
        // Neither the time in between nor another build clears the action.
        crashes.note(death(1 << 40, 7, 3, 2));
        let blocked = crashes.blocked();
        assert_eq!((blocked.len(), blocked[0].session, blocked[0].turn), (1, 7, 3));
        assert!(blocked[0].reason.contains("turn 4 (action message) killed the worker 2 times: segm"));
    }

    /// Generation 2 kills as often as 5, but not within the window. Deaths are forgotten at
    /// their bound.
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
