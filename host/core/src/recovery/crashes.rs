//! Verdicts from the deaths of workers: an action that must not run again, a generation that
//! has to give way.
//!
//! A death in the middle of a turn, by the turn's own doing, says something about code. Such are
//! a segmentation fault, an abort, an exit, and a stall that the watchdog ended. A kill from
//! outside hits any turn. But three deaths in a row in one and the same turn are the turn's: it
//! does not end, or it takes all memory, and each successor would run it again.
//!
//! | deaths | verdict |
//! | --- | --- |
//! | 2 of one action by its own doing, at any time, in any build | the action is blocked |
//! | 3 in a row in one action, by any cause | the action is blocked |
//! | 1 in an action that an operator withholds | the action is blocked |
//! | `crashes_max` of one generation, within `crash_window_ms` | the generation gives way |
//! | 1 of a generation, within `crash_window_ms` | it gives way, if it is on probation |
//!
//! The keeper reads on the board what ran, notes the death here, and tells the verdicts to each
//! worker that it starts. All of it is in the keeper's memory: a host that starts fresh has no
//! deaths. A session that was quarantined for a blocked action has a record of its own, which
//! needs no verdict.
//!
//! Costs: O(deaths squared) for a verdict, with at most 256 deaths; asked once for each start.

use crate::effects::action_name::action_name;
use crate::ids::service_of_number;
use crate::limits::host::Limits;
use crate::session::quarantine::BlockedAction;
use std::collections::VecDeque;

/// Deaths that are remembered, at most. The oldest is forgotten, with its share in a verdict.
const DEATHS_MAX: usize = 256;
/// Deaths of one action from which the action is not tried again.
const KILLS_MAX: usize = 2;
/// Deaths in a row in one action, whoever caused them, from which it is not tried again.
const ROW_MAX: usize = 3;

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
    /// Turns that the service had committed. A row in a service's own turn ends if it moves on:
    /// the name of such a turn is the same each time.
    pub committed: u64,
    /// Kind of the action, a constant of [`greenroom_state::abi::action`].
    pub action: u32,
    /// Cause of the death, in words.
    pub how: String,
}

impl Death {
    /// Whether another death was in the same action. Session, count of turns and kind name one
    /// action: the count moves on once its turn is committed.
    fn is_of_action(&self, other: &Death) -> bool {
        (self.session, self.turn, self.action) == (other.session, other.turn, other.action)
    }

    /// Whether another death was in the same action, and that action was not run in between.
    fn is_of_turn(&self, other: &Death) -> bool {
        let is_of_service = service_of_number(self.session).is_some();
        self.is_of_action(other) && !(is_of_service && self.committed != other.committed)
    }

    /// Makes the block of its action. The reason says what the action did, and how often.
    fn blocked(&self, did: &str, times: &str) -> BlockedAction {
        let (action, how) = (action_name(self.action), &self.how);
        let what = match service_of_number(self.session) {
            None => format!("its turn {} (action {action})", self.turn + 1),
            Some(_) => format!("a {action} of the service itself"),
        };
        let reason = format!("{what} {did} {times}: {how}");
        BlockedAction { session: self.session, turn: self.turn, action: self.action, reason }
    }
}

/// Deaths so far, oldest first, at most 256.
#[derive(Debug, Default)]
pub struct Crashes {
    deaths: VecDeque<Death>,
    /// Last death, and the deaths in a row in its action; `None`: it was in no turn.
    row: Option<(Death, usize)>,
    /// Actions that a row or an operator has blocked, oldest first, at most 256.
    blocked_otherwise: VecDeque<BlockedAction>,
}

impl Crashes {
    /// Remembers a death. The caller made sure that the process caused it itself, in a turn.
    pub fn note(&mut self, death: Death) {
        self.go_on_with_row(&death);
        if self.deaths.len() == DEATHS_MAX {
            self.deaths.pop_front();
        }
        self.deaths.push_back(death);
    }

    /// Notes a death in a turn that came from outside. Returns the deaths in a row in that action.
    pub fn note_kill(&mut self, death: Death) -> usize {
        self.go_on_with_row(&death)
    }

    /// Notes a death in no turn: it ends a row.
    pub fn note_other(&mut self) {
        self.row = None;
    }

    /// Goes on with the row of a death's action, or begins one. A row that is long enough blocks
    /// the action. Returns its length.
    fn go_on_with_row(&mut self, death: &Death) -> usize {
        let before = self.row.take().filter(|(last, _)| last.is_of_turn(death)).map_or(0, |(_, n)| n);
        let n = before + 1;
        self.row = Some((death.clone(), n));
        if n == ROW_MAX {
            self.block(death.blocked("was running at", &format!("{ROW_MAX} deaths in a row")));
        }
        n
    }

    /// Blocks the action of a death to come: the process is ended for it.
    pub fn withhold(&mut self, death: &Death) {
        self.block(death.blocked("was", "withheld"));
    }

    fn block(&mut self, action: BlockedAction) {
        // The last reason counts: an operator may withhold an action that was released.
        self.blocked_otherwise
            .retain(|b| (b.session, b.turn, b.action) != (action.session, action.turn, action.action));
        if self.blocked_otherwise.len() == DEATHS_MAX {
            self.blocked_otherwise.pop_front();
        }
        self.blocked_otherwise.push_back(action);
    }

    /// Returns the actions that killed a worker twice, those of a row, and those withheld, each
    /// once. Builds and times make no difference: the action may kill any build.
    pub fn blocked(&self) -> Vec<BlockedAction> {
        let mut blocked: Vec<BlockedAction> = Vec::new();
        let own = self.deaths.iter().filter(|d| {
            let kills = self.deaths.iter().filter(|o| o.is_of_action(d)).count();
            kills >= KILLS_MAX
        });
        let own = own.map(|d| d.blocked("killed the worker", &format!("{KILLS_MAX} times")));
        for b in own.chain(self.blocked_otherwise.iter().cloned()) {
            if !blocked.iter().any(|w| (w.session, w.turn, w.action) == (b.session, b.turn, b.action)) {
                blocked.push(b);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::ServiceId;
    use greenroom_state::abi;

    /// Death in a message of a session, in this generation of one library.
    fn death(at_ms: u64, session: u64, turn: u64, generation: u64) -> Death {
        let how = "segmentation fault (SIGSEGV)".into();
        let (library, action) = ("echo".into(), abi::action::MESSAGE);
        Death { at_ms, library, generation, session, turn, committed: 0, action, how }
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

    /// Kills from outside count in a row alone. A service's own turn has one name each time, so the
    /// row ends once the service has committed something.
    #[test]
    fn an_action_is_blocked_at_three_deaths_in_a_row() {
        let mut crashes = Crashes::default();
        for turn in [3, 3, 4, 3, 3] {
            crashes.note_kill(death(0, 7, turn, 1));
        }
        crashes.note_other();
        assert_eq!((crashes.note_kill(death(0, 7, 3, 1)), crashes.note_kill(death(0, 7, 3, 1))), (1, 2));
        assert_eq!(crashes.blocked(), []);
        crashes.note(death(0, 7, 3, 1));
        let blocked = crashes.blocked();
        assert_eq!((blocked.len(), blocked[0].session, blocked[0].turn), (1, 7, 3));
        assert!(blocked[0].reason.contains("its turn 4 (action message) was running at 3 deaths in a row"));
        assert!(crashes.killed(&Limits::default(), 0).len() == 1, "one death was its own doing");
        crashes.withhold(&Death { how: "an operator ended it".into(), ..death(0, 7, 5, 1) });
        let reason = &crashes.blocked()[1].reason;
        assert_eq!(reason, "its turn 6 (action message) was withheld: an operator ended it");

        let own = |committed| Death { committed, ..death(0, ServiceId(0).number(), 5, 1) };
        let mut crashes = Crashes::default();
        for n in [1, 2, 3, 4, 4] {
            crashes.note_kill(own(n));
        }
        assert_eq!(crashes.blocked(), []);
        crashes.note_kill(own(4));
        assert!(crashes.blocked()[0].reason.contains("of the service itself was running"));
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
