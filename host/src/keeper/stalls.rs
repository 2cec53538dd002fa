//! Stalls of the worker, as the keeper sees them, and the way out for an operator.
//!
//! The keeper does not ask the worker. The board says what runs and since when, and the kernel says
//! whether the process is stopped. So the answer is right while a callback does not return, a start
//! hangs, or somebody has sent SIGSTOP.
//!
//! An operator may have the action that runs withheld. The worker is killed then, and its successor
//! quarantines the session in place of running that action. The session can be closed or released
//! afterwards, as any other in quarantine.

use crate::admin::patience::REFUSED_FROM;
use crate::clock::now_ns;
use crate::keeper::Keeper;
use crate::keeper::phase::Phase;
use crate::memory::board_layout::{Busy, Running};
use crate::memory::reading::Reading;
use crate::protocol::admin::{Reply, TAKES_NO_COMMANDS};
use crate::protocol::status::{Stalled, StalledAction};
use crate::sys::proc;
use greenroom_core::effects::action_name::action_name;
use greenroom_core::ids::public_number;
use std::time::Duration;

/// Time from which work is shown as a stall.
const STALL_MIN: Duration = Duration::from_secs(1);

impl Keeper {
    /// The worker's stall, by a reading of the board. `None`: the worker goes on, or none lives.
    pub(super) fn stalled(&self, board: &Reading) -> Option<Stalled> {
        let start = match self.worker.phase() {
            Phase::Parked { .. } => return None,
            Phase::Starting { since, .. } => Some(since.elapsed()),
            Phase::Serving { .. } | Phase::HandingOver { .. } => None,
        };
        let stopped = self.worker.pid().is_some_and(is_stopped);
        let busy = board.busy(now_ns()).filter(|b| stopped || b.time >= STALL_MIN);
        let start = start.filter(|time| stopped || *time >= STALL_MIN);
        let unwatched = board.unwatched(now_ns()).filter(|_| stopped);
        let time = busy.as_ref().map(|b| b.time).or(start).or(unwatched);
        if time.is_none() && !stopped {
            return None;
        }
        let (time, running) = (time.unwrap_or_default(), busy.and_then(|busy| self.action(busy)));
        let what = match &running {
            Some(action) => in_words(action, time),
            None if start.is_some() => format!("its start, for {} s", time.as_secs()),
            None if stopped => format!("for {} s", time.as_secs()),
            None => format!("a pass of its loop, for {} s", time.as_secs()),
        };
        let text = match self.worker.pid() {
            Some(pid) if stopped => {
                format!("the process is stopped (kill -CONT {pid} lets it go on): {what}")
            }
            _ => what,
        };
        Some(Stalled { text, for_ms: time.as_millis() as u64, stopped, running })
    }

    /// Describes the action that runs, with the names that the services had last.
    fn action(&self, busy: Busy) -> Option<StalledAction> {
        let Running { service, generation, session, turn, action } = busy.running?;
        let service = self.worker.service(service);
        let session = public_number(session);
        Some(StalledAction {
            service: service.map_or("?", |s| &s.name).to_owned(),
            library: service.map_or("?", |s| &s.library).to_owned(),
            generation,
            session,
            action: action_name(action).to_owned(),
            turn: if session > 0 { turn + 1 } else { 0 },
            place: busy.place,
        })
    }

    /// Reason why a command is not passed on to a worker that stalls. `None`: it is passed on.
    /// Costs a copy of the board.
    pub(super) fn refusal(&mut self) -> Option<String> {
        let board = self.worker.read_board();
        let stalled = self.stalled(&board).filter(|s| u128::from(s.for_ms) >= REFUSED_FROM.as_millis())?;
        Some(format!("{TAKES_NO_COMMANDS}, {}", stalled.with_way_out()))
    }

    /// Withholds the action that runs, and kills the worker. `of`: number of the session, or name
    /// of the service whose own turn runs. Anything else is refused, and nothing happens.
    pub(super) fn withhold(&mut self, of: &str) -> Reply {
        let board = self.worker.read_board();
        if !self.worker.has_process() {
            let why = self.worker.deaths().last().unwrap_or("it is being replaced");
            return Reply::Error(format!("nothing is withheld: no worker runs at the moment: {why}"));
        }
        let Some(running) = board.running() else {
            return Reply::Error("nothing is withheld: no callback runs at the moment".into());
        };
        let time = board.busy(now_ns()).map_or(Duration::ZERO, |busy| busy.time);
        let service = self.worker.service(running.service).map_or("?", |s| &s.name);
        let runs = match public_number(running.session) {
            0 => service.to_owned(),
            number => number.to_string(),
        };
        if runs != of {
            return Reply::Error(format!(
                "nothing is withheld: the callback that runs is of {runs}, service {service}"
            ));
        }
        let how = format!("an operator ended it after {} s", time.as_secs());
        tracing::warn!(
            %service, session = public_number(running.session), action = action_name(running.action),
            "an operator withholds the action that runs, and the worker is killed, after {} s",
            time.as_secs()
        );
        let death = self.death(&board, how, &running);
        self.crashes.withhold(&death);
        self.worker.kill();
        Reply::End
    }
}

/// Describes an action, and the time that it has taken so far.
fn in_words(action: &StalledAction, time: Duration) -> String {
    let StalledAction { service, library, session, action, place, .. } = action;
    let of = match session {
        0 => format!("service {service} itself"),
        _ => format!("session {session} of {service}"),
    };
    let place = place.as_ref().map_or_else(String::new, |place| format!(", in {place}"));
    format!("{of}, action {action}, for {} s{place}, library {library}", time.as_secs())
}

/// Whether a process is stopped, by a signal or a debugger. False also if the kernel does not say.
fn is_stopped(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    matches!(proc::state(&stat), Some('T' | 't'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_action_is_described_with_its_time_and_place() {
        let action = |session, place: Option<&str>| StalledAction {
            service: "chat".into(),
            library: "talk".into(),
            generation: 3,
            session,
            action: "message".into(),
            turn: 7,
            place: place.map(str::to_owned),
        };
        let after = Duration::from_millis(34_900);
        let said = in_words(&action(12, Some("read (src/lib.rs:3)")), after);
        assert_eq!(
            said,
            "session 12 of chat, action message, for 34 s, in read (src/lib.rs:3), library talk"
        );
        assert!(in_words(&action(0, None), after).starts_with("service chat itself, action"));
        assert!(!is_stopped(std::process::id()));
    }
}
