//! Ledger, as pages see it: lines with a number that grows whenever a line changes.
//!
//! A page asks for what changed since a number. A line changes when its probation ends. The host is
//! asked if a build has changed, if the console itself changed something, and each ten seconds.

use crate::observe::questions::{Questions, locked, try_locked};
use crate::protocol::admin::LedgerLine;
use crate::protocol::status::Status;
use serde::Serialize;
use serde_json::Value;
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// Time after which the host is asked anyway.
const AGE_MAX: Duration = Duration::from_secs(10);
/// The same while a build is on probation.
const PROBATION_AGE_MAX: Duration = Duration::from_secs(1);
/// Lines that are shown: the last ones.
const LINES_MAX: usize = 300;

/// The ledger.
#[derive(Default)]
pub(super) struct ShownLedger {
    state: Mutex<LedgerState>,
    /// Held while the host is asked.
    asks: Mutex<()>,
}

#[derive(Default)]
struct LedgerState {
    /// Lines with the number of their last change.
    lines: Vec<(u64, Value)>,
    /// Number of the last change.
    last: u64,
    asked_at: Option<Instant>,
    /// Builds that ran when the host was asked.
    builds: Vec<(String, u64)>,
    /// A build is on probation.
    is_open: bool,
}

/// Lines that changed, for a page.
#[derive(Serialize)]
pub(super) struct LedgerChanges {
    /// Number of the last change.
    last: u64,
    lines: Vec<Value>,
}

impl ShownLedger {
    /// Has the next page ask the host.
    pub(super) fn forget(&self) {
        locked(&self.state).asked_at = None;
    }

    /// Lines that have changed since this number.
    pub(super) fn since(
        &self,
        questions: &Questions,
        status: &Status,
        number: u64,
    ) -> Result<LedgerChanges, String> {
        let builds: Vec<_> = status.services.iter().map(|s| (s.name.clone(), s.generation)).collect();
        // A worker that does not answer would keep all pages waiting. One page asks, and the others
        // go on with the lines before.
        let answers = status.host.worker == "serving" && status.host.stalled.is_none();
        if answers
            && locked(&self.state).is_due(&builds)
            && let Some(_asks) = try_locked(&self.asks)
        {
            let lines = questions.history()?;
            let mut state = locked(&self.state);
            state.take(&lines);
            (state.asked_at, state.builds) = (Some(Instant::now()), builds);
        }
        let state = locked(&self.state);
        // A number of an observer before this one: all lines are new.
        let number = if number > state.last { 0 } else { number };
        let lines = state.lines.iter().filter(|(n, _)| *n > number).map(|(_, line)| line.clone());
        Ok(LedgerChanges { last: state.last, lines: lines.collect() })
    }
}

impl LedgerState {
    fn is_due(&self, builds: &[(String, u64)]) -> bool {
        let most = if self.is_open { PROBATION_AGE_MAX } else { AGE_MAX };
        self.builds != builds || self.asked_at.is_none_or(|at| at.elapsed() >= most)
    }

    /// Takes the lines of the host, and numbers those that are new or have changed.
    fn take(&mut self, lines: &[LedgerLine]) {
        let shown = &lines[lines.len().saturating_sub(LINES_MAX)..];
        let shown = shown.iter().map(|line| serde_json::to_value(line).unwrap_or_default());
        let mut before = std::mem::take(&mut self.lines).into_iter().peekable();
        let number = |line: &Value| line["line"].as_u64().unwrap_or_default();
        for line in shown {
            while before.next_if(|(_, b)| number(b) < number(&line)).is_some() {}
            match before.next_if(|(_, b)| *b == line) {
                Some(same) => self.lines.push(same),
                None => {
                    self.last += 1;
                    self.lines.push((self.last, line));
                }
            }
        }
        self.is_open = self.lines.iter().any(|(_, line)| line["probation"]["state"] == "under-way");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use greenroom_core::ledger::{Outcome, Report};

    #[test]
    fn only_lines_that_changed_have_a_new_number() {
        let line = |line: u64, reason: &str| LedgerLine {
            at: String::new(),
            by: String::new(),
            report: Report { line, ..Report::of_host("echo", Outcome::Committed, reason.into()) },
        };
        let mut state = LedgerState::default();
        let numbers = |state: &LedgerState| state.lines.iter().map(|(n, _)| *n).collect::<Vec<_>>();
        state.take(&[line(1, ""), line(2, "")]);
        assert_eq!(numbers(&state), [1, 2]);
        state.take(&[line(1, ""), line(2, "rolled back"), line(3, "")]);
        assert_eq!(numbers(&state), [1, 3, 4]);
        state.take(&[line(2, "rolled back"), line(3, "")]);
        assert_eq!((numbers(&state), state.last), (vec![3, 4], 4));
    }
}
