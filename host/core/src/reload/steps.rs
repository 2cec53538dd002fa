//! State machine of reloads: from a request to its report, for each library.
//!
//! | stage | event | becomes |
//! | --- | --- | --- |
//! | staging | the file is read and inspected | trying, or ends without a change |
//! | trying | the trial has passed, and the judgement too | tried; a dry run ends: rehearsed |
//! | tried | all of the group are tried | loading |
//! | loading | the code is loaded, added ports listen | loaded |
//! | loaded | all of the group are loaded, and judged again | committing |
//! | committing | the shell has committed, between two passes | ends: committed, or rolled back |
//! | any but committing | a step failed, or the reload was cancelled | ends: refused |
//!
//! A refused reload has changed nothing.
//!
//! The state machine only decides. Each event is answered with steps, which the shell carries
//! out in order. Every step but the commit runs off the loop. `judge.rs` decides whether a
//! build that was tried may serve.
//!
//! The unit is the library. A library has one reload at a time, and further requests wait in
//! its queue. A request that waited while the very same content was tried shares that outcome.
//! The watcher never tries content again that was seen at the path before. Otherwise a refused
//! file would be tried in circles, and an old file would undo a build loaded from elsewhere.
//!
//! Several libraries may be reloaded **together**: their requests have the same group number.
//! Each waits for the others before load and before commit, and one commit puts all of them in
//! charge. If one is refused, all are. A rollback by request is a reload of a build that ran
//! before, with data downgraded.
//!
//! Each request ends with exactly one report, but for a watcher's request whose content was
//! seen before. Nothing here is stored: if the worker dies, its requests are forgotten. A
//! successor has no reload under way, and learns through [`Reloads::goes_on_with`] which builds
//! run. An event costs O(libraries + services), plus the judgement.

use crate::ledger::Outcome;
use crate::reload::judge::{LiveData, judge_candidate};
use crate::reload::judge_canary::canary_in_the_way;
use crate::reload::library::ActiveReload;
use crate::reload::library::Stage;
use crate::reload::request::Candidate;
use crate::reload::request::Event;
use crate::reload::request::LibraryId;
use crate::reload::request::Request;
use crate::reload::request::Requester;
use crate::reload::request::Step;
use crate::reload::request::Want;
use crate::service::registry::Service;

use crate::reload::reloads::Reloads;

impl Reloads {
    /// Takes one event, and returns the steps to carry out, in order. Every decision about a
    /// reload is made here.
    ///
    /// An event out of turn is ignored, and debug builds panic: the shell reports each step
    /// that it was given once.
    pub(crate) fn handle(&mut self, event: Event, live: &LiveData<'_>) -> Vec<Step> {
        let mut steps = Vec::new();
        match event {
            Event::Requested(requests) => {
                // All requests are in line before the first begins, so no step can find a part
                // of a group missing.
                for (id, request) in requests {
                    self.libraries[id.0].waiting.push_back(request);
                }
                for at in 0..self.libraries.len() {
                    if self.libraries[at].work.is_none() {
                        self.begin_next(LibraryId(at), false, &mut steps);
                    }
                }
            }
            Event::Staged(id, result) => self.staged(id, result, live, &mut steps),
            Event::Tried(id, result) => {
                let Some(work) = self.work_in(id, Stage::Trying) else { return steps };
                let judged = match result {
                    Ok(Candidate { name, offers, build_id, rehearsal }) => {
                        (work.name, work.offers) = (name, offers);
                        (work.build_id, work.rehearsal) = (build_id, rehearsal);
                        let failed = work.rehearsal.as_ref().and_then(|r| r.failed.clone());
                        // The schemas are judged first: their objection names the cause, a
                        // failed rehearsal names sessions and entries.
                        judge_candidate(&self.libraries, id, live).and_then(|()| failed.map_or(Ok(()), Err))
                    }
                    Err(why) => Err(why),
                };
                self.goes_on(id, judged, Stage::Tried, live, &mut steps);
            }
            Event::Loaded(id, result) => {
                if self.work_in(id, Stage::Loading).is_none() {
                    return steps;
                }
                self.goes_on(id, result, Stage::Loaded, live, &mut steps);
            }
            Event::Committed(ids, pause_us) => {
                for id in ids {
                    let Some(work) = self.work_in(id, Stage::Committing) else { continue };
                    let outcome = work.outcome();
                    // Computed before `highest` rises, so that the generation is the one that
                    // was committed.
                    let build = self.next_build(id);
                    let library = &mut self.libraries[id.0];
                    library.highest = library.highest.max(build.generation);
                    // A canary's candidate has a number, and does not serve.
                    if outcome != Outcome::Canary {
                        library.current = Some(build);
                    }
                    self.finish(id, outcome, pause_us, String::new(), live.services.all(), &mut steps);
                }
            }
        }
        steps
    }

    /// Handles the end of staging: refuses the reload, ends it as unchanged, shares an outcome,
    /// or orders the trial.
    fn staged(
        &mut self,
        id: LibraryId,
        result: Result<String, String>,
        live: &LiveData<'_>,
        steps: &mut Vec<Step>,
    ) {
        let Some(work) = self.work_in(id, Stage::Staging) else { return };
        if let Some(why) = work.cancelled.take() {
            return self.refuse(id, why, live.services.all(), steps);
        }
        let hash = match result {
            Ok(hash) => hash,
            Err(why) => return self.refuse(id, why, live.services.all(), steps),
        };
        let library = &mut self.libraries[id.0];
        let Some(work) = &mut library.work else { return };
        work.hash = hash.clone();
        // Only a load from the library's own path counts as seen. A dry run must leave the
        // watcher free to load the file, and another path says nothing about this one.
        let own = work.request.from.is_none() && matches!(work.request.want, Want::Load | Want::Canary);
        let seen_before = own && library.seen.as_ref() == Some(&hash);
        // Noted before the trial: content that is refused counts as seen, too.
        if own {
            library.seen = Some(hash.clone());
        }
        if work.request.by == Requester::Watcher && seen_before {
            // The file was touched, not changed. The watcher expects no report.
            steps.push(Step::Discard(id));
            library.work = None;
            return self.begin_next(id, false, steps);
        }
        let runs = library.current.as_ref().is_some_and(|b| match work.request.want {
            // Other settings make another generation of the same build, so the reload goes on.
            Want::Configure | Want::Promote(_) => false,
            Want::RollBack(generation) => b.generation == generation,
            Want::Load | Want::DryRun | Want::Canary => b.hash == hash,
        });
        // A member of a group shares no outcome: its group is committed or refused as a whole.
        let alone = work.request.group == work.request.id && work.request.want == Want::Load;
        let joined = library.last.as_ref().filter(|(h, _)| work.waited && alone && *h == hash);
        match joined {
            Some((_, report)) => {
                let report = Box::new(report.clone());
                steps.push(Step::Discard(id));
                steps.extend(library.work.take().map(|w| Step::Report(id, w.request, report)));
                self.begin_next(id, true, steps);
            }
            None if runs => {
                let group = work.request.group;
                steps.push(Step::Discard(id));
                self.finish(id, Outcome::Unchanged, 0.0, String::new(), live.services.all(), steps);
                self.advance(group, live, steps);
            }
            // Before the trial, which would be about states that the candidate has left.
            None => match canary_in_the_way(live.canaries, library.current.as_ref(), work.request.want) {
                Err(why) => self.refuse(id, why, live.services.all(), steps),
                Ok(()) => {
                    work.step = Stage::Trying;
                    steps.push(Step::Try(id));
                }
            },
        }
    }

    /// Returns the reload of a library, if it is in this stage. Returns `None` if the shell
    /// reports a step that it was not given, which is a bug of the shell.
    fn work_in(&mut self, id: LibraryId, step: Stage) -> Option<&mut ActiveReload> {
        let work = self.libraries.get_mut(id.0)?.work.as_mut();
        let work = work.filter(|w| w.step == step);
        debug_assert!(work.is_some(), "the shell reported a step that isn't under way");
        work
    }

    /// Moves a reload to stage `to` after its step has succeeded, and advances its group. If
    /// the step has failed, or the reload was cancelled meanwhile, it is refused. A dry run
    /// ends here, as rehearsed.
    fn goes_on(
        &mut self,
        id: LibraryId,
        result: Result<(), String>,
        to: Stage,
        live: &LiveData<'_>,
        steps: &mut Vec<Step>,
    ) {
        let Some(work) = &mut self.libraries[id.0].work else { return };
        let cancelled = work.cancelled.take();
        work.step = to;
        let (group, want) = (work.request.group, work.request.want);
        // If both apply, the reason is the failure of the step: operators can act on it.
        match result.and_then(|()| cancelled.map_or(Ok(()), Err)) {
            Err(why) => self.refuse(id, why, live.services.all(), steps),
            Ok(()) if want == Want::DryRun => {
                steps.push(Step::Discard(id));
                self.finish(id, Outcome::Rehearsed, 0.0, String::new(), live.services.all(), steps);
            }
            Ok(()) => self.advance(group, live, steps),
        }
    }

    /// Takes the reloads of one group a step further, if all members are in the same stage and
    /// none has a step under way. O(libraries + requests that wait), plus the judgement before
    /// a commit.
    fn advance(&mut self, group: u64, live: &LiveData<'_>, steps: &mut Vec<Step>) {
        let of = |r: &Request| r.group == group;
        // A member that waits behind another reload of its library has not even been staged.
        if self.libraries.iter().any(|l| l.waiting.iter().any(of)) {
            return;
        }
        let works =
            self.libraries.iter().enumerate().filter_map(|(i, l)| Some((LibraryId(i), l.work.as_ref()?)));
        let members: Vec<_> = works.filter(|(_, w)| of(&w.request)).map(|(id, w)| (id, w.step)).collect();
        let Some(&(_, step)) = members.first() else { return };
        // The last member to arrive in a stage advances all of them.
        if members.iter().any(|(_, s)| *s != step) {
            return;
        }
        match step {
            Stage::Tried => {
                let mut load = Vec::new();
                for (id, _) in members {
                    if let Some(work) = &mut self.libraries[id.0].work {
                        work.step = Stage::Loading;
                        load.push((id, work.offers.clone()));
                    }
                }
                steps.push(Step::Load(load));
            }
            Stage::Loaded => {
                // Judged again: sessions have opened and states were written since the trial.
                for &(id, _) in &members {
                    let cancelled = self.libraries[id.0].work.as_mut().and_then(|w| w.cancelled.take());
                    if let Err(why) = cancelled
                        .map_or(Ok(()), Err)
                        .and_then(|()| judge_candidate(&self.libraries, id, live))
                    {
                        return self.refuse(id, why, live.services.all(), steps);
                    }
                }
                let commit = members.iter().map(|(id, _)| (*id, self.next_build(*id))).collect();
                for (id, _) in members {
                    if let Some(work) = &mut self.libraries[id.0].work {
                        work.step = Stage::Committing;
                    }
                }
                steps.push(Step::Commit(commit));
            }
            _ => {}
        }
    }

    /// Refuses a reload, and all others of its group.
    ///
    /// Members that wait in line or between two steps end at once. A member with a step under
    /// way is only cancelled: the shell still works on it, and its report ends it. The
    /// library's next request begins. O(libraries).
    fn refuse(&mut self, id: LibraryId, why: String, services: &[Service], steps: &mut Vec<Step>) {
        let Some(work) = &self.libraries[id.0].work else { return };
        let group = work.request.group;
        // Before the trial the candidate has no name, and the library is named instead.
        let what = if work.name.is_empty() { self.libraries[id.0].name() } else { work.name.clone() };
        let others = format!("it was to be committed together with {what}, which is refused: {why}");
        steps.push(Step::Discard(id));
        self.finish(id, Outcome::Refused, 0.0, why, services, steps);
        for at in 0..self.libraries.len() {
            let other = LibraryId(at);
            let of = |r: &Request| r.group == group;
            while let Some(n) = self.libraries[at].waiting.iter().position(of) {
                let Some(request) = self.libraries[at].waiting.remove(n) else { break };
                let library = &self.libraries[at];
                // Nothing was staged for this request, so there is nothing to discard either.
                let hash = String::new();
                let report = library.report(Outcome::Refused, hash, 0.0, others.clone(), services);
                steps.push(Step::Report(other, request, Box::new(report)));
            }
            let Some(work) = self.libraries[at].work.as_mut().filter(|w| of(&w.request)) else { continue };
            if matches!(work.step, Stage::Tried | Stage::Loaded) {
                steps.push(Step::Discard(other));
                self.finish(other, Outcome::Refused, 0.0, others.clone(), services, steps);
            } else {
                work.cancelled.get_or_insert(others.clone());
            }
        }
    }

    /// Ends the reload under way: reports its outcome, and begins the library's next request.
    ///
    /// The outcome is kept for that request, which may share it. Only loads are kept: the
    /// outcome of a dry run, a rollback or a configuration answers no other request.
    fn finish(
        &mut self,
        id: LibraryId,
        outcome: Outcome,
        pause_us: f64,
        reason: String,
        services: &[Service],
        steps: &mut Vec<Step>,
    ) {
        let library = &mut self.libraries[id.0];
        let Some(work) = library.work.take() else { return };
        let report = library.report_of(&work, outcome, pause_us, reason, services);
        library.last = (work.request.want == Want::Load).then(|| (work.hash, report.clone()));
        steps.push(Step::Report(id, work.request, Box::new(report)));
        self.begin_next(id, true, steps);
    }

    /// Begins the request of a library that has waited longest, if there is one. `waited`: the
    /// request may share the last outcome.
    fn begin_next(&mut self, id: LibraryId, waited: bool, steps: &mut Vec<Step>) {
        let library = &mut self.libraries[id.0];
        if let Some(next) = library.waiting.pop_front() {
            steps.push(library.begin(id, next, waited));
        }
    }
}

#[cfg(test)]
#[path = "steps_tests.rs"]
mod tests;
