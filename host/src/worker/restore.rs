//! The loop's part of `state restore` and `state set`: it has a slice checked when it is asked, and puts back between two passes what
//! was checked as a whole.

use crate::admin::query::{Answer, Restoring, SchemaOf, Setting};
use crate::admin::text::ledger_line;
use crate::crash_points;
use crate::crash_points::Point;
use crate::worker::Worker;
use crate::worker::reload::carry_out::in_words;
use greenroom_core::ids::service_of_number;
use greenroom_core::input::Input;
use greenroom_core::ledger::{Outcome, Report, Restored};
use greenroom_core::operate::check::{Builds, Checked, GivenEntry, GivenState};
use greenroom_core::operate::plan::{Plan, PlannedState, Survey};
use greenroom_core::operate::restore::ITEMS_PER_SLICE;
use greenroom_core::reload::request::By;
use greenroom_state::edit::{objection, set};
use greenroom_state::json;
use greenroom_state::schema::Schema;
use serde_json::Value;
use std::sync::mpsc::Sender;
use std::time::Instant;

/// What is to be put back.
pub(super) enum PutBack {
    /// A dump.
    Restore(Restoring, Sender<Answer>),
    /// Fields of a state.
    Set(Setting, Sender<Answer>),
}

impl Worker {
    /// The tables that services own: service, table, version.
    pub(super) fn owned_tables(&self) -> Vec<(String, String, u32)> {
        let owners = self.core.owners().iter();
        let name = |o: &greenroom_core::tables::owner::Owner| {
            self.core.services()[usize::from(o.service.0)].offer.name.clone()
        };
        owners.map(|(table, o)| (name(o), table.to_string(), o.version)).collect()
    }

    pub(super) fn check_states(&mut self, states: &[GivenState]) -> Answer {
        let mut builds = Builds::new();
        let checked = states.iter().map(|s| self.core.check_state(s, &mut builds)).collect();
        Answer::Checked(checked, builds, None)
    }

    pub(super) fn check_entries(&self, table: &str, entries: &[GivenEntry]) -> Answer {
        let mut builds = Builds::new();
        let checked = entries.iter().map(|e| self.core.check_entry(table, e, &mut builds)).collect();
        Answer::Checked(checked, builds, self.core.owners().get(table).copied())
    }

    pub(super) fn schema(&self, of: &SchemaOf) -> Option<&Schema> {
        match of {
            SchemaOf::Service(name) => self.core.schema(Some(name), None),
            SchemaOf::Table(name) => self.core.schema(None, Some(name)),
        }
    }

    pub(super) fn survey(&mut self, plan: &Plan, mut survey: Box<Survey>) -> Answer {
        let whole = self.core.survey(plan, &mut survey, ITEMS_PER_SLICE);
        let room = whole.then(|| self.core.has_room(plan, &survey));
        Answer::Surveyed(survey, room)
    }

    /// Puts back what operators gave. What is timed is all that clients could notice.
    pub(super) fn commit_put_back(&mut self) {
        for wanted in std::mem::take(&mut self.put_back) {
            let begun = Instant::now();
            match wanted {
                PutBack::Restore(Restoring { plan, file, by }, reply) => {
                    let of = Restored { file: Some(file), ..Restored::default() };
                    let result = plan.and_then(|plan| self.put_in_place(&plan));
                    let report = self.note_put_back(by, of, result, begun);
                    let _ = reply.send(Answer::Report(Box::new(report)));
                }
                PutBack::Set(Setting { session, fields, by }, reply) => {
                    let names = fields.iter().map(|(path, _)| path.clone()).collect();
                    let of = Restored { session: Some(session), fields: names, ..Restored::default() };
                    let (result, states) = match self.plan_fields(session, fields) {
                        Ok((plan, before, after)) => (self.put_in_place(&plan), Some((before, after))),
                        Err(why) => (Err(why), None),
                    };
                    let states = states.filter(|_| result.is_ok());
                    let report = Box::new(self.note_put_back(by, of, result, begun));
                    let _ = reply.send(match states {
                        Some((before, after)) => Answer::Set(report, before, after),
                        None => Answer::Report(report),
                    });
                }
            }
        }
    }

    /// What was put back, and the services that it is about.
    fn put_in_place(&mut self, plan: &Plan) -> Result<(Restored, Vec<String>), String> {
        if self.stop_at.is_some() {
            return Err("the host is stopping".into());
        }
        Ok((self.core.restore(plan)?, plan.builds.keys().cloned().collect()))
    }

    /// Commits what was put back together with its line in the ledger.
    fn note_put_back(
        &mut self,
        by: By,
        of: Restored,
        result: Result<(Restored, Vec<String>), String>,
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
        let by = in_words(by);
        report.line = self.note_in_ledger(&by, report.clone());
        crash_points::pass(Point::PutBack);
        self.core.handle(Input::Commit);
        if report.outcome == Outcome::Restored {
            let pause_us = begun.elapsed().as_nanos() as f64 / 1000.0;
            report.pause_us = pause_us;
            // With the pause in the ledger.
            self.amend_ledger(report.line, |r| r.pause_us = pause_us);
            self.core.handle(Input::Commit);
        }
        let line = ledger_line(&report);
        match report.outcome {
            Outcome::Refused => tracing::warn!(%by, "{line}"),
            _ => tracing::info!(%by, "{line}"),
        }
        report
    }

    /// A session's state with some fields set, and what it is before and after. No turn comes between looking at it and changing it.
    fn plan_fields(
        &mut self,
        session: u64,
        fields: Vec<(String, Value)>,
    ) -> Result<(Plan, Value, Value), String> {
        let slot = self.core.sessions().slot_of(session).filter(|_| service_of_number(session).is_none());
        let slot = slot.ok_or_else(|| format!("no session has number {session}"))?;
        let s = self.core.sessions().get(slot).ok_or_else(|| format!("no session has number {session}"))?;
        let offer = &self.core.services()[usize::from(s.service.0)].offer;
        let (service, version) = (offer.name.clone(), offer.shape.version);
        let about = |why: String| format!("service {service}, session {session}: {why}");
        let read = self.core.rehearse(slot).map_err(about)?;
        let packed = read.after.ok_or_else(|| {
            about("its service keeps no state, or doesn't hand over what it has read".into())
        })?;
        let mut json = json::to_json(&packed).map_err(about)?;
        let before = if read.before.is_some() { json.clone() } else { Value::Null };
        for (path, to) in fields {
            set(&mut json, &path, to).map_err(about)?;
        }
        let packed = json::from_json(&json).map_err(about)?;
        let given = GivenState { session, service: service.clone(), state: Some((version, packed)) };
        let mut plan = Plan::default();
        let kept = match self.core.check_state(&given, &mut plan.builds) {
            Checked::Gone => return Err(format!("session {session} is closing already")),
            Checked::Refused(why) => return Err(about(why)),
            Checked::Unreadable(why) => Err(why),
            Checked::Stays => Ok(None),
            Checked::Fits { kept, .. } => Ok(kept),
        };
        let schema = self.core.schema(Some(&service), None);
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
}
