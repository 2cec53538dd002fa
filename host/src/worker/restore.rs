//! Restores between two passes: a dump that was checked as a whole, or fields of one state.
//!
//! A restore is one commit together with its ledger line: all of it counts, or nothing. A worker
//! that dies before the commit leaves the data as it was. The operator then gets no report, and may
//! repeat the command.
//!
//! A dump's items are checked slice by slice in earlier passes, by queries. If a reload has been
//! committed since, the whole plan is refused: the build that serves has not checked its items.
//! Fields of one state are read, checked and written between the same two passes.
//!
//! Clients wait for the pause, which the ledger names. O(states of the plan + entries that change).
//! A refused restore changes no data, but adds its line to the ledger.

use crate::admin::query::{Answer, Restoring, Setting};
use crate::admin::text::ledger_line;
use crate::crash_points;
use crate::crash_points::Point;
use crate::memory::figures_layout::Times;
use crate::worker::ledger::requester;
use crate::worker::shell::Shell;
use greenroom_core::core::Core;
use greenroom_core::ids::service_of_number;
use greenroom_core::input::Input;
use greenroom_core::ledger::{Outcome, Report, Restored};
use greenroom_core::operate::check::{Checked, GivenState};
use greenroom_core::operate::plan::{Plan, PlannedState, StoredEntry, Survey};
use greenroom_core::operate::undo::{ItemOf, ReplacedData};
use greenroom_core::reload::request::Requester;
use greenroom_core::store::kind::Kind;
use greenroom_state::difference::differences;
use greenroom_state::edit::{objection, set};
use greenroom_state::json;
use greenroom_state::sets::Sets;
use serde_json::Value;
use std::sync::mpsc::Sender;
use std::time::Instant;

/// Most fields of an edited state that its line in the ledger names.
const FIELDS_MAX: usize = 20;

/// A restore that an operator has asked for, with the channel for its report. A caller that is gone
/// does not stop a restore.
pub(super) enum OperatorRestore {
    /// Restores the states and entries of a dump.
    Dump(Box<Restoring>, Sender<Answer>),
    /// Sets fields of one session's state.
    Fields(Setting, Sender<Answer>),
}

/// Counts of a restore, the data that it replaced, and the services whose builds have checked it.
type Written = (Restored, ReplacedData, Vec<String>);

/// The driver of operator restores. Nothing of it is recorded.
#[derive(Default)]
pub(super) struct Restores {
    /// Restores to carry out between two passes, in the order of the queries.
    waiting: Vec<OperatorRestore>,
}

impl Restores {
    /// Queues a restore, to be carried out between this pass and the next one.
    pub(super) fn add(&mut self, restore: OperatorRestore) {
        self.waiting.push(restore);
    }

    /// Carries out the restores that wait, each in commits of its own. The pause is the time that
    /// clients could notice.
    pub(super) fn step(&mut self, shell: &mut Shell) {
        for restore in std::mem::take(&mut self.waiting) {
            let begun = Instant::now();
            match restore {
                OperatorRestore::Dump(wanted, reply) => {
                    let Restoring { plan, survey, of, by } = *wanted;
                    // A plan that failed its checks is reported like a refused one.
                    let result = plan.and_then(|plan| write(shell, &plan, &survey));
                    let report = commit(shell, by, of, result, begun);
                    let _ = reply.send(Answer::Report(Box::new(report)));
                }
                OperatorRestore::Fields(Setting { session, fields, by }, reply) => {
                    let names = fields.iter().map(|(path, _)| path.clone()).collect();
                    let of = Restored { session: Some(session), fields: names, ..Restored::default() };
                    let (result, states) = match plan_fields(&mut shell.core, session, fields) {
                        Ok((plan, before, after)) => {
                            (write(shell, &plan, &Survey::default()), Some((before, after)))
                        }
                        Err(why) => (Err(why), None),
                    };
                    // A refused change shows no states: nothing was written.
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

/// Writes a checked plan: all of it, or nothing. The data counts from the next commit on.
///
/// Fails if the host stops, if another build serves than the one that checked, or if a limit of
/// tables or store would be broken. `survey`: that of earlier passes. Costs as
/// [`OperatorDesk::restore`] says.
///
/// [`OperatorDesk::restore`]: greenroom_core::operate::desk::OperatorDesk::restore
fn write(shell: &mut Shell, plan: &Plan, survey: &Survey) -> Result<Written, String> {
    if shell.lifecycle.is_stopping() {
        return Err("the host is stopping".into());
    }
    let (restored, replaced) = shell.core.operator().restore(plan, survey)?;
    Ok((restored, replaced, plan.services()))
}

/// Commits a restore together with its line in the ledger. A refused one only gets the line. A
/// second commit adds the pause, which is known only after the first. If the worker dies between
/// both, the restore counts, and its line lacks the pause.
fn commit(
    shell: &mut Shell,
    by: Requester,
    of: Restored,
    result: Result<Written, String>,
    begun: Instant,
) -> Report {
    let mut undo = None;
    let mut report = match result {
        Ok((found, replaced, services)) => {
            // The request names file, session, fields and keys; the core has counted the rest.
            let Restored { file, session, fields, keys, undoes, .. } = of;
            let fields = if session.is_some() && fields.is_empty() {
                changed_fields(&shell.core, &replaced)
            } else {
                fields
            };
            let restored = Restored { file, session, fields, keys, undoes, ..found };
            undo = Some(replaced);
            restored.report(Outcome::Restored, String::new(), services)
        }
        Err(why) => of.report(Outcome::Refused, why, Vec::new()),
    };
    let by = requester(by);
    // Before the commit, so that the line is part of it.
    report.line = shell.add_line(&by, report.clone());
    if let Some(replaced) = undo {
        remember(shell, ReplacedData { line: report.line, ..replaced });
    }
    crash_points::pass(Point::PutBack);
    shell.core.handle(Input::Commit);
    if report.outcome == Outcome::Restored {
        let pause = begun.elapsed();
        shell.board.took(Times::Pause, pause.as_nanos() as u64);
        let pause_us = pause.as_nanos() as f64 / 1000.0;
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

/// Writes what a change replaced in place of the record of the change before, if it replaced
/// anything. Without room there is nothing to undo, rather than an earlier change.
fn remember(shell: &mut Shell, replaced: ReplacedData) {
    if replaced.items.is_empty() && replaced.too_large == 0 {
        return;
    }
    if !shell.core.put_host_record(Kind::Undo, 0, &replaced.encode()) {
        shell.core.delete_host_record(Kind::Undo, 0);
        tracing::warn!("no room to remember what line {} replaced: it can't be undone", replaced.line);
    }
}

/// Paths of the fields that the change of one state has changed.
fn changed_fields(core: &Core, replaced: &ReplacedData) -> Vec<String> {
    let value = |stored: &Option<StoredEntry>| {
        stored.as_ref().and_then(|s| json::to_json(&s.value).ok()).unwrap_or_default()
    };
    let found = replaced.items.iter().flat_map(|i| {
        let schema = match &i.of {
            ItemOf::Session { service, .. } => core.schema(Some(service), None),
            ItemOf::Table { table, .. } => core.schema(None, Some(table)),
        };
        differences(&value(&i.before), &value(&i.after), &Sets::of(schema), FIELDS_MAX)
    });
    let mut fields: Vec<_> = found.map(|d| d.field).take(FIELDS_MAX).collect();
    // Items of one set have one path.
    fields.dedup();
    fields
}

/// Plans a session's state with some fields set. Returns the plan, and the state before and after.
///
/// No turn comes between this and [`write`], so the plan is never outdated. The state passes
/// through JSON and back, with the names of its fields. The build that serves reads the changed
/// state, as it would read it in the next turn. Changes nothing itself.
///
/// An error says which field or state does not fit, or that no such session is open.
fn plan_fields(
    core: &mut Core,
    session: u64,
    fields: Vec<(String, Value)>,
) -> Result<(Plan, Value, Value), String> {
    let slot = core.sessions().slot_of(session).filter(|_| service_of_number(session).is_none());
    let slot = slot.ok_or_else(|| format!("no session has number {session}"))?;
    let s = core.sessions().get(slot).ok_or_else(|| format!("no session has number {session}"))?;
    let of = &core.services()[usize::from(s.service.0)];
    let (service, version) = (of.offer.name.clone(), of.version_of(session));
    let about = |why: String| format!("service {service}, session {session}: {why}");
    let read = core.rehearse(slot).map_err(about)?;
    let packed = read
        .after
        .ok_or_else(|| about("its service keeps no state, or doesn't hand over what it has read".into()))?;
    let mut json = json::to_json(&packed).map_err(about)?;
    // A session that never stored a state begins from the one that its build makes.
    let before = if read.before.is_some() { json.clone() } else { Value::Null };
    for (path, mut to) in fields {
        json::untag_integers(&mut to);
        set(&mut json, &path, to).map_err(about)?;
    }
    let packed = json::from_json(&json).map_err(about)?;
    let given = GivenState { session, service: service.clone(), state: Some((version, packed)) };
    let mut plan = Plan::default();
    let kept = match core.operator().check_state(&given, &mut plan.builds) {
        Checked::Gone => return Err(format!("session {session} is closing already")),
        Checked::Refused(why) => return Err(about(why)),
        // Not refused yet: the schema may name the field that the build cannot read.
        Checked::Unreadable(why) => Err(why),
        Checked::Stays => Ok(None),
        Checked::Fits { kept, .. } => Ok(kept),
    };
    let schema = core.schema(Some(&service), None);
    let made = match &kept {
        Ok(kept) => Ok(kept.as_ref().map_or(&[][..], |(_, bytes)| bytes)),
        Err(why) => Err(why.as_str()),
    };
    // A field that the build has dropped or changed was not kept as the operator set it.
    if let Some(why) = objection(&json, made, schema) {
        return Err(about(why));
    }
    let kept = kept.ok().flatten();
    let after = kept.as_ref().and_then(|(_, bytes)| json::to_json(bytes).ok()).unwrap_or_default();
    plan.states.push(PlannedState { session, kept, given: None });
    Ok((plan, before, after))
}
