//! Run of a dialogue in a turn: with the peer's answer, or in a rehearsal along the answers so far.
//!
//! A rehearsal runs the function as the next turn would, and stops it at the question that a peer
//! would be asked. Nothing of that turn is kept.

use crate::dialogue::{Dialogue, RUNS_MAX, Step};
use crate::dialogue_steps::waits;
use crate::fault::{ASKS, Fault};
use crate::talk::{Run, Talk};
use crate::turn::Turn;
use greenroom_state::dialogue_report::Retraced;

impl<'t, S> Turn<'t, S> {
    /// Runs a dialogue, whose record is a field of the state: with the peer's answer, or with
    /// `None` to begin. Returns what the function does at its end; `None` while a question waits.
    ///
    /// The record is empty behind the end, so another call begins anew. If the function fails, the
    /// turn does, and the same question waits on.
    ///
    /// ```
    /// use greenroom_handler::testing::TestHost;
    /// use greenroom_handler::{Dialogue, Handler, Result, Step, Talk, Turn, handler};
    ///
    /// fn sum(d: &mut Dialogue<Talk>) -> Step<i64> {
    ///     let read = |line: &str| line.parse::<i64>().map_err(|_| "A number.");
    ///     let (a, b) = (d.ask_until("a = ", read)?, d.ask_until("b = ", read)?);
    ///     Ok(a.saturating_add(b))
    /// }
    ///
    /// struct Adder;
    /// #[handler]
    /// impl Handler for Adder {
    ///     const SERVICE: &'static str = "adder";
    ///     type State = Talk;
    ///     fn message(&self, turn: &mut Turn<Talk>, line: &[u8]) -> Result {
    ///         // The first line begins the dialogue, the others answer.
    ///         let answer = turn.state.waits().then_some(line);
    ///         if let Some(sum) = turn.talk(|talk| talk, answer, sum)? {
    ///             turn.send_line(sum.to_string());
    ///         }
    ///         Ok(())
    ///     }
    /// }
    ///
    /// let mut host = TestHost::<Adder>::new("{}").unwrap();
    /// let peer = host.open();
    /// assert_eq!(host.line(peer, "add"), "a = ");
    /// assert_eq!(host.line(peer, "3"), "b = ");
    /// assert_eq!(host.line(peer, "4"), "7\n");
    /// ```
    pub fn talk<T>(
        &mut self,
        record: fn(&mut S) -> &mut Talk,
        answer: Option<&[u8]>,
        mut function: impl FnMut(&mut Dialogue<'_, 't, S>) -> Step<T>,
    ) -> Result<Option<T>, Fault> {
        let talk = std::mem::take(record(&mut self.state));
        if self.retraces.is_some() {
            return Err(self.retrace(talk, &mut function));
        }
        let answer = answer.map(|line| String::from_utf8_lossy(line).into_owned());
        let mut run = Run::along(talk, answer);
        match self.run_along(&mut run, &mut function) {
            Ok(value) => {
                run.show_input(self);
                Ok(Some(value))
            }
            Err(fault) => {
                *record(&mut self.state) = run.record;
                if fault.kind == ASKS { Ok(None) } else { Err(fault) }
            }
        }
    }

    /// Runs the function until it asks or ends.
    fn run_along<T>(
        &mut self,
        run: &mut Run,
        function: &mut impl FnMut(&mut Dialogue<'_, 't, S>) -> Step<T>,
    ) -> Result<T, Fault> {
        for _ in 0..RUNS_MAX {
            (run.at, run.again) = (0, false);
            let outcome = function(&mut Dialogue { turn: self, run: &mut *run });
            match outcome {
                _ if run.again => {}
                // The function has ended before the place that it had come to.
                Ok(_) if run.record.asked.is_some() || run.at < run.record.answers.len() => {
                    run.ask_anew(self);
                }
                outcome => return outcome,
            }
        }
        Err(Fault::new("the dialogue runs again and again, and asks nothing"))
    }

    /// Runs the function along the answers so far, and notes what becomes of the dialogue. Returns
    /// the fault that ends the turn.
    fn retrace<T>(
        &mut self,
        talk: Talk,
        function: &mut impl FnMut(&mut Dialogue<'_, 't, S>) -> Step<T>,
    ) -> Fault {
        let Some(asked) = talk.asked.clone() else { return waits() };
        let mut before: Vec<_> = talk.questions().map(str::to_owned).collect();
        let mut run = Run::along(talk, None);
        let asks = match self.run_along(&mut run, function) {
            Ok(_) => None,
            Err(fault) if fault.kind == ASKS => run.record.asked.clone(),
            Err(fault) => return fault,
        };
        let kept = run.record.questions().count().min(before.len());
        let dropped = before.len() - kept;
        let asked = if dropped > 0 { before.swap_remove(kept) } else { asked };
        if let Some(place) = self.retraces.as_deref_mut() {
            *place = Some(Retraced { asked, asks, kept: kept as u64, dropped: dropped as u64 });
        }
        waits()
    }
}
