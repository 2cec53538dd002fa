//! A reload, step by step.
//!
//! ```text
//!   requested ─ stage ─ staged ─ try ─ tried ─ load ─ loaded ─ commit ─ committed
//!                 │       │       │      │       │       │
//!                 └───────┴───────┴──────┴───────┴───────┴── refused: nothing has changed
//! ```
//!
//! This is the state machine alone; whether a build that was tried may serve, is decided in
//! `judge.rs`. The shell carries the steps out, off the loop but for the commit, and says how they
//! went. The unit is the library: one reload of it at a time, others wait their turn. A request
//! that waited while the very same content was tried gets that outcome. The watcher never tries
//! content again that it saw before, so a refused file isn't tried in circles, and a build loaded
//! from elsewhere isn't undone by an old file.
//!
//! Several libraries may be reloaded **together**: each waits, tried, for the others, then loaded,
//! for the others, and one commit puts all of them in charge. If one is refused, all are. A dry run
//! ends when it was tried. To roll back is to reload a build that ran before, and data goes the
//! other way.

use crate::ledger::{Outcome, Report};
use crate::reload::judge::{LiveData, judge_candidate};
use crate::reload::library::ActiveReload;
use crate::reload::library::Library;
use crate::reload::library::Stage;
use crate::reload::request::Candidate;
use crate::reload::request::Event;
use crate::reload::request::LibraryId;
use crate::reload::request::Request;
use crate::reload::request::Requester;
use crate::reload::request::Step;
use crate::reload::request::Want;
use crate::service::offer::Build;
use crate::service::registry::Service;
use std::collections::VecDeque;
use std::path::PathBuf;

/// All libraries. See the module.
#[derive(Debug, Default)]
pub struct Reloads {
    pub(crate) libraries: Vec<Library>,
}

impl Reloads {
    /// Adds a path to load builds from, or finds it.
    pub fn library(&mut self, path: PathBuf) -> LibraryId {
        let known = self.libraries.iter().position(|l| l.path == path);
        LibraryId(known.unwrap_or_else(|| {
            self.libraries.push(Library {
                path,
                current: None,
                highest: 0,
                work: None,
                waiting: VecDeque::new(),
                seen: None,
                last: None,
            });
            self.libraries.len() - 1
        }))
    }

    /// Notes the build that a library runs, without a reload: a successor goes on with its
    /// predecessor's, or a build was rolled back. `seen` is the hash of what was last seen at its
    /// path, `highest` the highest generation that ran.
    pub fn goes_on_with(&mut self, id: LibraryId, build: Build, seen: Option<String>, highest: u64) {
        let library = &mut self.libraries[id.0];
        library.highest = library.highest.max(highest).max(build.generation);
        (library.current, library.seen) = (Some(build), seen);
        // What was said of another build is nobody's answer any more.
        library.last = None;
    }

    /// Refuses the reload under way as soon as its step is done, if it has prepared for what is no
    /// longer so.
    pub fn cancel(&mut self, id: LibraryId, why: &str) {
        let work = self.libraries[id.0].work.as_mut();
        // One for another configuration is about the very build that was replaced, wherever it is.
        let about = |w: &&mut ActiveReload| {
            let prepared = matches!(w.step, Stage::Loading | Stage::Loaded);
            prepared || (w.request.want == Want::Configure && w.step < Stage::Committing)
        };
        if let Some(work) = work.filter(about) {
            work.cancelled.get_or_insert(why.to_owned());
        }
    }

    /// The libraries, by [`LibraryId`].
    pub fn libraries(&self) -> &[Library] {
        &self.libraries
    }

    /// The library of a name, if it runs.
    pub fn named(&self, name: &str) -> Option<LibraryId> {
        let at = self.libraries.iter().position(|l| l.current.as_ref().is_some_and(|b| b.library == name));
        at.map(LibraryId)
    }

    /// Whether any reload is under way.
    pub fn is_busy(&self) -> bool {
        self.libraries.iter().any(|l| l.work.is_some())
    }

    /// Whether a build of this library is about to be committed.
    pub fn is_committing(&self, id: LibraryId) -> bool {
        self.libraries[id.0].work.as_ref().is_some_and(|w| w.step == Stage::Committing)
    }

    /// The request for which a reload of this library is under way.
    pub fn under_way(&self, id: LibraryId) -> Option<&Request> {
        self.libraries[id.0].work.as_ref().map(|w| &w.request)
    }

    /// What [`Step::Report`] will say of a commit, before it is known how long it took: so that it
    /// can be part of it. The build is in charge of its services already.
    pub fn about_to_report(&self, id: LibraryId, services: &[Service]) -> Option<(Requester, Report)> {
        let library = &self.libraries[id.0];
        let work = library.work.as_ref()?;
        let mine = services.iter().filter(|s| s.is_of(&work.name));
        let report = library.report_of(work, work.outcome(), 0.0, String::new(), services);
        let report = Report {
            library: work.name.clone(),
            services: mine.clone().map(|s| s.offer.name.clone()).collect(),
            sessions: mine.map(|s| s.sessions).sum(),
            generation: self.next_build(id).generation,
            ..report
        };
        Some((work.request.by, report))
    }

    /// Takes one event. Every decision about a reload is made here.
    pub(crate) fn handle(&mut self, event: Event, live: &LiveData<'_>) -> Vec<Step> {
        let mut steps = Vec::new();
        match event {
            Event::Requested(requests) => {
                // All are in line before the first begins, so those of one commit stand the same
                // way everywhere.
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
                        // What the schemas tell says more than how it went with them.
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
                    let build = self.next_build(id);
                    let library = &mut self.libraries[id.0];
                    library.highest = library.highest.max(build.generation);
                    library.current = Some(build);
                    self.finish(id, outcome, pause_us, String::new(), live.services.all(), &mut steps);
                }
            }
        }
        steps
    }

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
        let own = work.request.from.is_none() && work.request.want == Want::Load;
        let seen_before = own && library.seen.as_ref() == Some(&hash);
        if own {
            library.seen = Some(hash.clone());
        }
        if work.request.by == Requester::Watcher && seen_before {
            // Nothing to say: touched, not changed.
            steps.push(Step::Discard(id));
            library.work = None;
            return self.begin_next(id, false, steps);
        }
        let runs = library.current.as_ref().is_some_and(|b| match work.request.want {
            // With other settings it is another generation of the same build.
            Want::Configure => false,
            Want::RollBack(generation) => b.generation == generation,
            Want::Load | Want::DryRun => b.hash == hash,
        });
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
            None => {
                work.step = Stage::Trying;
                steps.push(Step::Try(id));
            }
        }
    }

    fn work_in(&mut self, id: LibraryId, step: Stage) -> Option<&mut ActiveReload> {
        let work = self.libraries.get_mut(id.0)?.work.as_mut();
        let work = work.filter(|w| w.step == step);
        debug_assert!(work.is_some(), "the shell reported a step that isn't under way");
        work
    }

    /// A step of a reload is done.
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
        match result.and_then(|()| cancelled.map_or(Ok(()), Err)) {
            Err(why) => self.refuse(id, why, live.services.all(), steps),
            Ok(()) if want == Want::DryRun => {
                steps.push(Step::Discard(id));
                self.finish(id, Outcome::Rehearsed, 0.0, String::new(), live.services.all(), steps);
            }
            Ok(()) => self.advance(group, live, steps),
        }
    }

    /// Takes the reloads of one commit a step further, if all of them are ready for it.
    fn advance(&mut self, group: u64, live: &LiveData<'_>, steps: &mut Vec<Step>) {
        let of = |r: &Request| r.group == group;
        if self.libraries.iter().any(|l| l.waiting.iter().any(of)) {
            return;
        }
        let works =
            self.libraries.iter().enumerate().filter_map(|(i, l)| Some((LibraryId(i), l.work.as_ref()?)));
        let members: Vec<_> = works.filter(|(_, w)| of(&w.request)).map(|(id, w)| (id, w.step)).collect();
        let Some(&(_, step)) = members.first() else { return };
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
                // Judged again: sessions have opened and states were written since.
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

    fn next_build(&self, id: LibraryId) -> Build {
        let library = &self.libraries[id.0];
        let (name, hash) =
            library.work.as_ref().map_or_else(Default::default, |w| (w.name.clone(), w.hash.clone()));
        let generation = match library.work.as_ref().map(|w| w.request.want) {
            Some(Want::RollBack(generation)) => generation,
            _ => library.highest + 1,
        };
        Build { library: name, generation, hash }
    }

    /// Refuses a reload, and those that were to be committed with it.
    fn refuse(&mut self, id: LibraryId, why: String, services: &[Service], steps: &mut Vec<Step>) {
        let Some(work) = &self.libraries[id.0].work else { return };
        let group = work.request.group;
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
