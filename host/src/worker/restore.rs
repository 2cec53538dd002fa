//! Restores between two passes: a dump that was checked as a whole, or fields of one state.
//!
//! A restore is one commit together with its ledger line: all of it counts, or nothing. Clients
//! wait for its pause, which the ledger names.

use crate::admin::query::{Answer, Restoring, Setting};
use crate::admin::text::ledger_line;
use crate::crash_points;
use crate::crash_points::Point;
use crate::worker::ledger::requester;
use crate::worker::shell::Shell;
use greenroom_core::core::Core;
use greenroom_core::ids::service_of_number;
use greenroom_core::input::Input;
use greenroom_core::ledger::{Outcome, Report, Restored};
use greenroom_core::operate::check::{Checked, GivenState};
use greenroom_core::operate::plan::{Plan, PlannedState};
use greenroom_core::reload::request::Requester;
use greenroom_state::edit::{objection, set};
use greenroom_state::json;
use serde_json::Value;
use std::sync::mpsc::Sender;
use std::time::Instant;

/// A restore that an operator has asked for.
pub(super) enum OperatorRestore {
    /// Restores the states and entries of a dump.
    Dump(Restoring, Sender<Answer>),
    /// Sets fields of one session's state.
    Fields(Setting, Sender<Answer>),
}

/// Counts of a restore, and the services that it is about.
type Written = (Restored, Vec<String>);

/// The driver of operator restores.
#[derive(Default)]
pub(super) struct Restores {
    /// Restores to carry out between two passes.
    waiting: Vec<OperatorRestore>,
}

impl Restores {
    /// Queues a restore for the end of the pass.
    pub(super) fn add(&mut self, restore: OperatorRestore) {
        self.waiting.push(restore);
    }

    /// Carries out the restores that wait, each in commits of its own. The pause is the time that
    /// clients could notice.
    pub(super) fn step(&mut self, shell: &mut Shell) {
        for restore in std::mem::take(&mut self.waiting) {
            let begun = Instant::now();
            match restore {
                OperatorRestore::Dump(Restoring { plan, file, by }, reply) => {
                    let of = Restored { file: Some(file), ..Restored::default() };
                    let result = plan.and_then(|plan| write(shell, &plan));
                    let report = commit(shell, by, of, result, begun);
                    let _ = reply.send(Answer::Report(Box::new(report)));
                }
                OperatorRestore::Fields(Setting { session, fields, by }, reply) => {
                    let names = fields.iter().map(|(path, _)| path.clone()).collect();
                    let of = Restored { session: Some(session), fields: names, ..Restored::default() };
                    let (result, states) = match plan_fields(&mut shell.core, session, fields) {
                        Ok((plan, before, after)) => (write(shell, &plan), Some((before, after))),
                        Err(why) => (Err(why), None),
                    };
                    let states = states.filter(|_| result.is_ok());
                    let report = Box::new(commit(shell, by, of, result, begun));
                    let _ = reply.send(match states {
                        Some((before, after)) => Answer::Set(report, before, after),
                        None => Answer::Report(report),
                    });
                }
            }
        }
    }
}

/// Writes a checked plan: all of it, or nothing. It counts from the next commit on.
fn write(shell: &mut Shell, plan: &Plan) -> Result<Written, String> {
    if shell.lifecycle.is_stopping() {
        return Err("the host is stopping".into());
    }
    Ok((shell.core.restore(plan)?, plan.builds.keys().cloned().collect()))
}

/// Commits a restore together with its line in the ledger. A refused one only gets the line. A
/// second commit adds the pause, which is known only after the first.
fn commit(
    shell: &mut Shell,
    by: Requester,
    of: Restored,
    result: Result<Written, String>,
    begun: Instant,
) -> Report {
    let mut report = match result {
        Ok((found, services)) => {
            let Restored { file, session, fields, .. } = of;
            let restored = Restored { file, session, fields, ..found };
            restored.report(Outcome::Restored, String::new(), services)
        }
        Err(why) => of.report(Outcome::Refused, why, Vec::new()),
    };
    let by = requester(by);
    report.line = shell.ledger.add(&mut shell.core, &by, report.clone());
    crash_points::pass(Point::PutBack);
    shell.core.handle(Input::Commit);
    if report.outcome == Outcome::Restored {
        let pause_us = begun.elapsed().as_nanos() as f64 / 1000.0;
        report.pause_us = pause_us;
        // Commits the pause, which the ledger has by now.
        shell.ledger.amend(&mut shell.core, report.line, |r| r.pause_us = pause_us);
        shell.core.handle(Input::Commit);
    }
    let line = ledger_line(&report);
    match report.outcome {
        Outcome::Refused => tracing::warn!(%by, "{line}"),
        _ => tracing::info!(%by, "{line}"),
    }
    report
}

/// Plans a session's state with some fields set. Returns the plan, and the state before and after.
///
/// No turn comes between this and [`write`]. An error says which field or state does not fit.
fn plan_fields(
    core: &mut Core,
    session: u64,
    fields: Vec<(String, Value)>,
) -> Result<(Plan, Value, Value), String> {
    let slot = core.sessions().slot_of(session).filter(|_| service_of_number(session).is_none());
    let slot = slot.ok_or_else(|| format!("no session has number {session}"))?;
    let s = core.sessions().get(slot).ok_or_else(|| format!("no session has number {session}"))?;
    let offer = &core.services()[usize::from(s.service.0)].offer;
    let (service, version) = (offer.name.clone(), offer.shape.version);
    let about = |why: String| format!("service {service}, session {session}: {why}");
    let read = core.rehearse(slot).map_err(about)?;
    let packed = read
        .after
        .ok_or_else(|| about("its service keeps no state, or doesn't hand over what it has read".into()))?;
    let mut json = json::to_json(&packed).map_err(about)?;
    let before = if read.before.is_some() { json.clone() } else { Value::Null };
    for (path, to) in fields {
        set(&mut json, &path, to).map_err(about)?;
    }
    let packed = json::from_json(&json).map_err(about)?;
    let given = GivenState { session, service: service.clone(), state: Some((version, packed)) };
    let mut plan = Plan::default();
    let kept = match core.check_state(&given, &mut plan.builds) {
        Checked::Gone => return Err(format!("session {session} is closing already")),
        Checked::Refused(why) => return Err(about(why)),
        Checked::Unreadable(why) => Err(why),
        Checked::Stays => Ok(None),
        Checked::Fits { kept, .. } => Ok(kept),
    };
    let schema = core.schema(Some(&service), None);
    let made = match &kept {
        Ok(kept) => Ok(kept.as_ref().map_or(&[][..], |(_, bytes)| bytes)),
        Err(why) => Err(why.as_str()),
    };
    if let Some(why) = objection(&json, made, schema) {
        return Err(about(why));
    }
    let kept = kept.ok().flatten();
    let after = kept.as_ref().and_then(|(_, bytes)| json::to_json(bytes).ok()).unwrap_or_default();
    plan.states.push(PlannedState { session, kept, given: None });
    Ok((plan, before, after))
}
