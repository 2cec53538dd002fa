//! A reload, step by step.
//!
//! ```text
//!   requested ─ stage ─ staged ─ try ─ tried ─ load ─ loaded ─ commit ─ committed
//!                 │       │       │      │       │       │
//!                 └───────┴───────┴──────┴───────┴───────┴── refused: nothing has changed
//! ```
//!
//! This is the state machine alone; whether a build that was tried may serve, is decided in `judge.rs`. The shell carries the steps out, off the loop but for the commit, and says how they
//! went. The unit is the library: one reload of it at a time, others wait their turn. A request that waited while the
//! very same content was tried gets that outcome. The watcher never tries content again that it saw before, so a
//! refused file isn't tried in circles, and a build loaded from elsewhere isn't undone by an old file.
//!
//! Several libraries may be reloaded **together**: each waits, tried, for the others, then loaded, for the others, and one
//! commit puts all of them in charge. If one is refused, all are. A dry run ends when it was tried. To roll back is to reload a
//! build that ran before, and data goes the other way.

use crate::ledger::{Outcome, Report};
use crate::reload::judge::Live;
use crate::reload::library::Library;
use crate::reload::library::Stage;
use crate::reload::library::Work;
use crate::reload::request::By;
use crate::reload::request::Candidate;
use crate::reload::request::Event;
use crate::reload::request::LibraryId;
use crate::reload::request::Request;
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

    /// Notes the build that a library runs, without a reload: a successor goes on with its predecessor's, or a build was rolled
    /// back. `seen` is the hash of what was last seen at its path, `highest` the highest generation that ran.
    pub fn goes_on_with(&mut self, id: LibraryId, build: Build, seen: Option<String>, highest: u64) {
        let library = &mut self.libraries[id.0];
        library.highest = library.highest.max(highest).max(build.generation);
        (library.current, library.seen) = (Some(build), seen);
        // What was said of another build is nobody's answer any more.
        library.last = None;
    }

    /// Refuses the reload under way as soon as its step is done, if it has prepared for what is no longer so.
    pub fn doom(&mut self, id: LibraryId, why: &str) {
        let work = self.libraries[id.0].work.as_mut();
        // One for another configuration is about the very build that was replaced, wherever it is.
        let about = |w: &&mut Work| {
            let prepared = matches!(w.step, Stage::Loading | Stage::Loaded);
            prepared || (w.request.want == Want::Configure && w.step < Stage::Committing)
        };
        if let Some(work) = work.filter(about) {
            work.doomed.get_or_insert(why.to_owned());
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

    /// What [`Step::Report`] will say of a commit, before it is known how long it took: so that it can be part of it. The build is
    /// in charge of its services already.
    pub fn about_to_report(&self, id: LibraryId, services: &[Service]) -> Option<(By, Report)> {
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
    pub(crate) fn handle(&mut self, event: Event, live: &Live<'_>) -> Vec<Step> {
        let mut steps = Vec::new();
        match event {
            Event::Requested(requests) => {
                // All are in line before the first begins, so those of one commit stand the same way everywhere.
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
                        self.judge(id, live).and_then(|()| failed.map_or(Ok(()), Err))
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
                    self.finish(id, outcome, pause_us, String::new(), live.services, &mut steps);
                }
            }
        }
        steps
    }

    fn staged(
        &mut self,
        id: LibraryId,
        result: Result<String, String>,
        live: &Live<'_>,
        steps: &mut Vec<Step>,
    ) {
        let Some(work) = self.work_in(id, Stage::Staging) else { return };
        if let Some(why) = work.doomed.take() {
            return self.refuse(id, why, live.services, steps);
        }
        let hash = match result {
            Ok(hash) => hash,
            Err(why) => return self.refuse(id, why, live.services, steps),
        };
        let library = &mut self.libraries[id.0];
        let Some(work) = &mut library.work else { return };
        work.hash = hash.clone();
        let own = work.request.from.is_none() && work.request.want == Want::Load;
        let seen_before = own && library.seen.as_ref() == Some(&hash);
        if own {
            library.seen = Some(hash.clone());
        }
        if work.request.by == By::Watcher && seen_before {
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
        let alone = work.request.together == work.request.id && work.request.want == Want::Load;
        let joined = library.last.as_ref().filter(|(h, _)| work.waited && alone && *h == hash);
        match joined {
            Some((_, report)) => {
                let report = Box::new(report.clone());
                steps.push(Step::Discard(id));
                steps.extend(library.work.take().map(|w| Step::Report(id, w.request, report)));
                self.begin_next(id, true, steps);
            }
            None if runs => {
                let together = work.request.together;
                steps.push(Step::Discard(id));
                self.finish(id, Outcome::Unchanged, 0.0, String::new(), live.services, steps);
                self.advance(together, live, steps);
            }
            None => {
                work.step = Stage::Trying;
                steps.push(Step::Try(id));
            }
        }
    }

    fn work_in(&mut self, id: LibraryId, step: Stage) -> Option<&mut Work> {
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
        live: &Live<'_>,
        steps: &mut Vec<Step>,
    ) {
        let Some(work) = &mut self.libraries[id.0].work else { return };
        let doomed = work.doomed.take();
        work.step = to;
        let (together, want) = (work.request.together, work.request.want);
        match result.and_then(|()| doomed.map_or(Ok(()), Err)) {
            Err(why) => self.refuse(id, why, live.services, steps),
            Ok(()) if want == Want::DryRun => {
                steps.push(Step::Discard(id));
                self.finish(id, Outcome::Rehearsed, 0.0, String::new(), live.services, steps);
            }
            Ok(()) => self.advance(together, live, steps),
        }
    }

    /// Takes the reloads of one commit a step further, if all of them are ready for it.
    fn advance(&mut self, together: u64, live: &Live<'_>, steps: &mut Vec<Step>) {
        let of = |r: &Request| r.together == together;
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
                    let doomed = self.libraries[id.0].work.as_mut().and_then(|w| w.doomed.take());
                    if let Err(why) = doomed.map_or(Ok(()), Err).and_then(|()| self.judge(id, live)) {
                        return self.refuse(id, why, live.services, steps);
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
        let together = work.request.together;
        let what = if work.name.is_empty() { self.libraries[id.0].name() } else { work.name.clone() };
        let others = format!("it was to be committed together with {what}, which is refused: {why}");
        steps.push(Step::Discard(id));
        self.finish(id, Outcome::Refused, 0.0, why, services, steps);
        for at in 0..self.libraries.len() {
            let other = LibraryId(at);
            let of = |r: &Request| r.together == together;
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
                work.doomed.get_or_insert(others.clone());
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
mod tests {
    use super::*;
    use crate::core::Core;
    use crate::framing::Framing;
    use crate::limits::host::Limits;
    use crate::service::offer::Offer;
    use crate::turn::code::{Batch, Code};
    use crate::turn::staging::Staging;
    use greenroom_state::compatibility::StateShape;
    use greenroom_state::schema::Schema;

    struct Nothing;
    impl Code for Nothing {
        fn run(&self, _: &Batch<'_>, staging: &mut Staging<'_>) -> u32 {
            while staging.turn_ok() {}
            0
        }
    }

    fn offer(name: &str, version: u32, field: &str) -> Offer {
        let text = format!(
            r#"{{"type":"object","properties":{{"count":{{"type":"{field}"}}}},"required":["count"]}}"#
        );
        let schema = Some(Schema::parse(&text).unwrap());
        let shape = StateShape {
            version,
            schema,
            migrations: (1..version).collect(),
            downgrades: (2..=version).collect(),
        };
        let framing = Framing::Lines { bytes_max: 100 };
        Offer { name: name.into(), port: 0, dials: false, framing, shape, tables: Vec::new() }
    }

    fn candidate(name: &str, offers: Vec<Offer>) -> Result<Candidate, String> {
        Ok(Candidate { name: name.into(), offers, build_id: None, rehearsal: None })
    }

    /// A core, and the steps of its reloads as text.
    struct Bench(Core);

    impl Bench {
        fn new() -> (Bench, LibraryId) {
            let mut core = Core::new(Limits::default());
            let id = core.reloads.library("liba.so".into());
            (Bench(core), id)
        }

        fn on(&mut self, event: Event) -> String {
            let steps = self.0.reload(event);
            let mut text = Vec::new();
            for step in steps {
                text.push(match &step {
                    Step::Stage(_, path) => format!("stage {}", path.display()),
                    Step::Try(_) => "try".into(),
                    Step::Load(all) => {
                        let each: Vec<_> = all.iter().map(|(_, offers)| offers.len().to_string()).collect();
                        format!("load {}", each.join("+"))
                    }
                    Step::Commit(all) => {
                        let each: Vec<_> = all.iter().map(|(_, b)| b.generation.to_string()).collect();
                        format!("commit {}", each.join("+"))
                    }
                    Step::Discard(_) => "discard".into(),
                    Step::Report(_, to, r) => {
                        format!("{:?} [{}] gen {} {}", r.outcome, to.id, r.generation, r.reason)
                    }
                });
            }
            text.join(", ")
        }

        fn request(&mut self, l: LibraryId, id: u64, by: By) -> String {
            self.want(l, id, by, Want::Load)
        }

        fn want(&mut self, l: LibraryId, id: u64, by: By, want: Want) -> String {
            self.on(Event::Requested(vec![(l, Request { id, by, from: None, want, together: id })]))
        }

        /// The whole way, from a staged hash to a commit; what was said on the way.
        fn rest(&mut self, l: LibraryId, hash: &str, offers: Vec<Offer>) -> String {
            let mut said = self.on(Event::Staged(l, Ok(hash.into())));
            if said.ends_with("try") {
                said = self.on(Event::Tried(l, candidate("a", offers.clone())));
            }
            if said.starts_with("load") {
                said = self.on(Event::Loaded(l, Ok(())));
            }
            if let Some(generation) = said.strip_prefix("commit ") {
                let build =
                    Build { library: "a".into(), generation: generation.parse().unwrap(), hash: hash.into() };
                let code = offers.into_iter().map(|o| (o, Box::new(Nothing) as Box<dyn Code>)).collect();
                self.0.adopt(&build, code);
                said = self.on(Event::Committed(vec![l], 5.0));
            }
            said
        }
    }

    const OP: By = By::Operator { uid: 0, pid: 1 };

    #[test]
    fn the_whole_way_and_unchanged() {
        let (mut b, l) = Bench::new();
        assert_eq!(b.request(l, 1, By::Start), "stage liba.so");
        assert_eq!(b.rest(l, "h1", vec![offer("s", 1, "integer")]), "Committed [1] gen 1 ");
        b.request(l, 2, OP);
        assert_eq!(b.on(Event::Staged(l, Ok("h1".into()))), "discard, Unchanged [2] gen 1 ");
        b.request(l, 3, OP);
        assert_eq!(b.rest(l, "h2", vec![offer("s", 1, "integer")]), "Committed [3] gen 2 ");
    }

    #[test]
    fn the_watcher_tries_no_content_twice_but_an_operator_may() {
        let (mut b, l) = Bench::new();
        b.request(l, 1, By::Start);
        b.rest(l, "good", vec![offer("s", 1, "integer")]);
        b.request(l, 2, By::Watcher);
        let said = b.rest(l, "bad", vec![offer("s", 1, "string")]);
        assert!(said.starts_with("discard, Refused [2] gen 1 s: field count: integer -> string"), "{said}");
        b.request(l, 3, By::Watcher);
        assert_eq!(b.on(Event::Staged(l, Ok("bad".into()))), "discard");
        b.request(l, 4, OP);
        assert_eq!(b.on(Event::Staged(l, Ok("bad".into()))), "try");
    }

    #[test]
    fn a_request_that_waited_for_the_same_content_shares_the_outcome() {
        let (mut b, l) = Bench::new();
        b.request(l, 1, By::Watcher);
        assert_eq!(b.request(l, 2, OP), "");
        let said = b.rest(l, "h1", vec![offer("s", 1, "integer")]);
        assert_eq!(said, "Committed [1] gen 1 , stage liba.so");
        assert_eq!(b.on(Event::Staged(l, Ok("h1".into()))), "discard, Committed [2] gen 1 ");
        b.request(l, 3, OP);
        b.request(l, 4, OP);
        assert!(b.on(Event::Staged(l, Err("gone".into()))).contains("Refused [3] gen 1 gone, stage"));
        assert_eq!(b.rest(l, "h2", vec![offer("s", 1, "integer")]), "Committed [4] gen 2 ");
    }

    #[test]
    fn services_have_one_library_and_libraries_one_path() {
        let (mut b, l) = Bench::new();
        b.request(l, 1, By::Start);
        b.rest(l, "h1", vec![offer("s", 1, "integer")]);
        let other = b.0.reloads.library("libb.so".into());
        b.request(other, 2, OP);
        b.on(Event::Staged(other, Ok("h2".into())));
        let said = b.on(Event::Tried(other, candidate("b", vec![offer("s", 1, "integer")])));
        assert!(said.contains("service s belongs to library a"), "{said}");
        b.request(other, 3, OP);
        b.on(Event::Staged(other, Ok("h2".into())));
        let said = b.on(Event::Tried(other, candidate("a", vec![offer("t", 1, "integer")])));
        assert!(said.contains("loaded already, from liba.so"), "{said}");
        b.request(other, 4, OP);
        b.on(Event::Staged(other, Ok("h2".into())));
        let mut greedy = offer("t", 1, "integer");
        greedy.framing = Framing::Lines { bytes_max: u32::MAX };
        let said = b.on(Event::Tried(other, candidate("b", vec![greedy])));
        assert!(said.contains("limit frame_bytes_max"), "{said}");
    }

    #[test]
    fn a_service_with_sessions_is_not_withdrawn_even_at_the_last_moment() {
        let (mut b, l) = Bench::new();
        b.request(l, 1, By::Start);
        b.rest(l, "h1", vec![offer("s", 1, "integer"), offer("t", 1, "integer")]);
        b.request(l, 2, OP);
        b.on(Event::Staged(l, Ok("h2".into())));
        assert_eq!(b.on(Event::Tried(l, candidate("a", vec![offer("s", 1, "integer")]))), "load 1");
        let t = b.0.service_named("t").unwrap();
        let peer = "127.0.0.1:9".parse().unwrap();
        let slot = crate::ids::Slot(0);
        b.0.handle(crate::input::Input::Opened { slot, id: 1, service: t, peer, at_ms: 0 });
        let said = b.on(Event::Loaded(l, Ok(())));
        assert!(said.contains("no longer offers service t, which has 1 sessions"), "{said}");
        b.0.handle(crate::input::Input::Broken { slot });
        b.request(l, 3, OP);
        assert_eq!(b.rest(l, "h3", vec![offer("s", 1, "integer")]), "Committed [3] gen 2 ");
        assert!(b.0.services()[usize::from(t.0)].build.is_none());
    }

    #[test]
    fn a_dry_run_ends_with_its_report_and_leaves_the_watcher_alone() {
        let (mut b, l) = Bench::new();
        b.request(l, 1, By::Start);
        b.rest(l, "h1", vec![offer("s", 1, "integer")]);
        b.want(l, 2, OP, Want::DryRun);
        assert_eq!(b.rest(l, "h2", vec![offer("s", 1, "integer")]), "discard, Rehearsed [2] gen 1 ");
        b.want(l, 3, OP, Want::DryRun);
        let said = b.rest(l, "h2", vec![offer("s", 1, "string")]);
        assert!(said.starts_with("discard, Refused [3] gen 1 s: field count"), "{said}");
        b.request(l, 4, By::Watcher);
        assert_eq!(b.rest(l, "h2", vec![offer("s", 1, "integer")]), "Committed [4] gen 2 ");
    }

    #[test]
    fn a_build_that_ran_before_runs_again_under_its_number() {
        let (mut b, l) = Bench::new();
        b.request(l, 1, By::Start);
        b.rest(l, "h1", vec![offer("s", 1, "integer")]);
        b.request(l, 2, OP);
        assert_eq!(b.rest(l, "h2", vec![offer("s", 2, "string")]), "Committed [2] gen 2 ");
        b.want(l, 3, OP, Want::Load);
        let said = b.rest(l, "h1", vec![offer("s", 1, "integer")]);
        assert!(said.contains("STATE_VERSION 1 is below 2"), "{said}");
        b.want(l, 4, OP, Want::RollBack(1));
        assert_eq!(b.rest(l, "h1", vec![offer("s", 1, "integer")]), "RolledBack [4] gen 1 ");
        b.request(l, 5, OP);
        assert_eq!(b.rest(l, "h3", vec![offer("s", 2, "string")]), "Committed [5] gen 3 ");
    }

    /// Two libraries in one commit: `step` of the second one comes first or last.
    fn two() -> (Bench, LibraryId, LibraryId) {
        let (mut b, l) = Bench::new();
        let m = b.0.reloads.library("libb.so".into());
        let both = |id| Request { id, by: OP, from: None, want: Want::Load, together: 1 };
        assert_eq!(b.on(Event::Requested(vec![(l, both(1)), (m, both(2))])), "stage liba.so, stage libb.so");
        (b, l, m)
    }

    #[test]
    fn libraries_that_go_together_wait_for_each_other_and_are_one_commit() {
        let (mut b, l, m) = two();
        assert_eq!(b.on(Event::Staged(m, Ok("m1".into()))), "try");
        assert_eq!(b.on(Event::Tried(m, candidate("b", vec![offer("t", 1, "integer")]))), "");
        assert_eq!(b.request(m, 9, OP), "");
        assert_eq!(b.on(Event::Staged(l, Ok("l1".into()))), "try");
        assert_eq!(b.on(Event::Tried(l, candidate("a", vec![offer("s", 1, "integer")]))), "load 1+1");
        assert_eq!(b.on(Event::Loaded(l, Ok(()))), "");
        assert_eq!(b.on(Event::Loaded(m, Ok(()))), "commit 1+1");
        let said = b.on(Event::Committed(vec![l, m], 3.0));
        assert_eq!(said, "Committed [1] gen 1 , Committed [2] gen 1 , stage libb.so");
    }

    #[test]
    fn if_one_is_refused_all_are_whatever_they_are_doing() {
        // One was tried, the other isn't a library at all.
        let (mut b, l, m) = two();
        b.on(Event::Staged(m, Ok("m1".into())));
        b.on(Event::Tried(m, candidate("b", vec![offer("t", 1, "integer")])));
        let said = b.on(Event::Staged(l, Err("gone".into())));
        assert_eq!(
            said,
            "discard, Refused [1] gen 0 gone, discard, Refused [2] gen 0 it was to be committed together with liba.so, \
             which is refused: gone"
        );
        // One is in the child meanwhile.
        let (mut b, l, m) = two();
        b.on(Event::Staged(m, Ok("m1".into())));
        assert_eq!(b.on(Event::Staged(l, Err("gone".into()))), "discard, Refused [1] gen 0 gone");
        let said = b.on(Event::Tried(m, candidate("b", vec![offer("t", 1, "integer")])));
        assert!(said.starts_with("discard, Refused [2] gen 0 it was to be committed together"), "{said}");
        // One waits behind another reload.
        let (mut b, l) = Bench::new();
        let m = b.0.reloads.library("libb.so".into());
        b.request(m, 7, OP);
        let both = |id| Request { id, by: OP, from: None, want: Want::Load, together: 1 };
        assert_eq!(b.on(Event::Requested(vec![(l, both(1)), (m, both(2))])), "stage liba.so");
        b.on(Event::Staged(l, Ok("l1".into())));
        assert_eq!(b.on(Event::Tried(l, candidate("a", vec![offer("s", 1, "integer")]))), "");
        let said = b.on(Event::Staged(m, Err("gone".into())));
        assert_eq!(said, "discard, Refused [7] gen 0 gone, stage libb.so");
        let said = b.on(Event::Staged(m, Err("gone again".into())));
        assert!(
            said.contains("Refused [2] gen 0 gone again, discard, Refused [1] gen 0 it was to be"),
            "{said}"
        );
        assert!(!b.0.reloads.is_busy());
        // Both want the same.
        let (mut b, l, m) = two();
        b.on(Event::Staged(m, Ok("m1".into())));
        b.on(Event::Tried(m, candidate("b", vec![offer("s", 1, "integer")])));
        b.on(Event::Staged(l, Ok("l1".into())));
        let said = b.on(Event::Tried(l, candidate("a", vec![offer("s", 1, "integer")])));
        assert!(said.contains("Refused [1]") && said.contains("offers the same"), "{said}");
        assert!(said.contains("Refused [2] gen 0 it was to be committed together with a"), "{said}");
    }
}
