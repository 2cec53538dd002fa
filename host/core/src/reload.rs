//! A reload, step by step, and every reason to refuse one.
//!
//! ```text
//!   requested ─ stage ─ staged ─ try ─ tried ─ load ─ loaded ─ commit ─ committed
//!                 │       │       │      │       │       │
//!                 └───────┴───────┴──────┴───────┴───────┴── refused: nothing has changed
//! ```
//!
//! This is the state machine alone. The shell carries the steps out, off the loop but for the commit, and says how they
//! went. The unit is the library: one reload of it at a time, others wait their turn. A request that waited while the
//! very same content was tried gets that outcome. The watcher never tries content again that it saw before, so a
//! refused file isn't tried in circles, and a build loaded from elsewhere isn't undone by an old file.

use crate::limits::Limits;
use crate::service::{Build, Offer, Service};
use greenroom_state::schema;
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::path::PathBuf;

/// Index of a library, which is a path from which builds come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LibraryId(pub usize);

/// Who wants a reload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum By {
    /// The host, when it starts.
    Start,
    /// The watcher: the file changed.
    Watcher,
    /// An operator, with `greenroom reload`.
    Operator {
        /// User.
        uid: u32,
        /// Process.
        pid: i32,
    },
}

/// A wish to reload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// The shell's number for it, named in [`Step::Report`].
    pub id: u64,
    /// Whose.
    pub by: By,
    /// Another file than the library's own path.
    pub from: Option<PathBuf>,
}

/// What the shell reports.
#[derive(Debug)]
pub enum Event {
    /// Somebody wants a reload.
    Requested(LibraryId, Request),
    /// [`Step::Stage`] is done: the content's hash, or why there is none to load.
    Staged(LibraryId, Result<String, String>),
    /// [`Step::Try`] is done: what it is, or what it did wrong in the child.
    Tried(LibraryId, Result<Candidate, String>),
    /// [`Step::Load`] is done: its code is loaded and its added ports listen, or not.
    Loaded(LibraryId, Result<(), String>),
    /// [`Step::Commit`] is done, after so many microseconds of the loop's time.
    Committed(LibraryId, f64),
}

/// What a trial found out.
#[derive(Debug, Clone, PartialEq)]
pub struct Candidate {
    /// The library's name.
    pub name: String,
    /// Its services.
    pub offers: Vec<Offer>,
    /// What it did wrong with copies of the live sessions.
    pub rehearsal: Result<(), String>,
}

/// What the shell is to do.
#[derive(Debug, PartialEq)]
pub enum Step {
    /// Make a private copy of this file, hash and inspect it.
    Stage(LibraryId, PathBuf),
    /// Load the copy in a child process and ask what it offers.
    Try(LibraryId),
    /// Load it here, build its instances, bind and listen on the ports that these services add.
    Load(LibraryId, Vec<Offer>),
    /// Call [`crate::Core::adopt`] between two passes.
    Commit(LibraryId, Build),
    /// Drop what was staged or loaded.
    Discard(LibraryId),
    /// Tell these requests, and the log.
    Report(Vec<Request>, Report),
}

/// How a reload ended. Programs depend on these words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// The build that was asked for runs now.
    Committed,
    /// It ran already.
    Unchanged,
    /// It doesn't run; nothing has changed.
    Refused,
    /// The build before runs again.
    RolledBack,
}

/// What `greenroom reload` prints of a library.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// How it ended.
    pub outcome: Outcome,
    /// The library's name; until one was loaded, its file.
    pub library: String,
    /// The services that it runs now.
    pub services: Vec<String>,
    /// The generation that runs now; 0: none.
    pub generation: u64,
    /// SHA-256 of the build that was asked for; empty: it couldn't be read.
    pub build: String,
    /// Sessions alive on its services.
    pub sessions: usize,
    /// How long the loop stood still for it, in microseconds.
    pub pause_us: f64,
    /// Why it was refused.
    pub reason: String,
}

/// A library.
#[derive(Debug)]
pub struct Library {
    /// Where its builds come from.
    pub path: PathBuf,
    /// The build that runs.
    pub current: Option<Build>,
    /// The highest generation that ran.
    pub highest: u64,
    work: Option<Work>,
    waiting: VecDeque<Request>,
    /// Hash of what was last seen at `path`.
    pub seen: Option<String>,
    /// The last outcome and the hash that it was about.
    last: Option<(String, Report)>,
}

#[derive(Debug)]
struct Work {
    request: Request,
    /// It waited for the reload before it.
    waited: bool,
    hash: String,
    name: String,
    offers: Vec<Offer>,
    step: Stage,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Staging,
    Trying,
    Loading,
    Committing,
}

/// All libraries. See the module.
#[derive(Debug, Default)]
pub struct Reloads {
    libraries: Vec<Library>,
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

    /// Notes the build that a library runs, without a reload: a successor goes on with its predecessor's. `seen` is the hash of
    /// what was last seen at its path, `highest` the highest generation that ran.
    pub fn goes_on_with(&mut self, id: LibraryId, build: Build, seen: Option<String>, highest: u64) {
        let library = &mut self.libraries[id.0];
        library.highest = highest.max(build.generation);
        (library.current, library.seen) = (Some(build), seen);
    }

    /// The libraries, by [`LibraryId`].
    pub fn libraries(&self) -> &[Library] {
        &self.libraries
    }

    /// Whether any reload is under way.
    pub fn is_busy(&self) -> bool {
        self.libraries.iter().any(|l| l.work.is_some())
    }

    /// Takes one event. Every decision about a reload is made here.
    pub(crate) fn handle(&mut self, event: Event, services: &[Service], limits: &Limits) -> Vec<Step> {
        let mut steps = Vec::new();
        match event {
            Event::Requested(id, request) => {
                let library = &mut self.libraries[id.0];
                if library.work.is_some() {
                    library.waiting.push_back(request);
                } else {
                    steps.push(library.begin(id, request, false));
                }
            }
            Event::Staged(id, result) => self.staged(id, result, services, &mut steps),
            Event::Tried(id, result) => {
                let Some(work) = self.work_in(id, Stage::Trying) else { return steps };
                let judged = match result {
                    Ok(Candidate { name, offers, rehearsal }) => {
                        (work.name, work.offers) = (name, offers);
                        // What the schemas tell says more than how it went with them.
                        self.judge(id, services, limits).and_then(|offers| rehearsal.map(|()| offers))
                    }
                    Err(why) => Err(why),
                };
                match judged {
                    Ok(offers) => {
                        self.go_on(id, Stage::Loading);
                        steps.push(Step::Load(id, offers));
                    }
                    Err(why) => self.refuse(id, why, services, &mut steps),
                }
            }
            Event::Loaded(id, result) => {
                if self.work_in(id, Stage::Loading).is_none() {
                    return steps;
                }
                // Judged again: sessions have opened and states were written since.
                match result.and_then(|()| self.judge(id, services, limits)) {
                    Ok(_) => {
                        self.go_on(id, Stage::Committing);
                        steps.push(Step::Commit(id, self.next_build(id)));
                    }
                    Err(why) => self.refuse(id, why, services, &mut steps),
                }
            }
            Event::Committed(id, pause_us) => {
                if self.work_in(id, Stage::Committing).is_none() {
                    return steps;
                }
                let build = self.next_build(id);
                self.libraries[id.0].highest = build.generation;
                self.libraries[id.0].current = Some(build);
                self.finish(id, Outcome::Committed, pause_us, String::new(), services, &mut steps);
            }
        }
        steps
    }

    fn staged(
        &mut self,
        id: LibraryId,
        result: Result<String, String>,
        services: &[Service],
        steps: &mut Vec<Step>,
    ) {
        if self.work_in(id, Stage::Staging).is_none() {
            return;
        }
        let hash = match result {
            Ok(hash) => hash,
            Err(why) => return self.refuse(id, why, services, steps),
        };
        let library = &mut self.libraries[id.0];
        let Some(work) = &mut library.work else { return };
        work.hash = hash.clone();
        let own = work.request.from.is_none();
        let seen_before = own && library.seen.as_ref() == Some(&hash);
        if own {
            library.seen = Some(hash.clone());
        }
        if work.request.by == By::Watcher && seen_before {
            // Nothing to say: touched, not changed.
            steps.push(Step::Discard(id));
            library.work = None;
            return self.begin_next(id, steps);
        }
        let runs = library.current.as_ref().is_some_and(|b| b.hash == hash);
        let joined = library.last.as_ref().filter(|(h, _)| work.waited && *h == hash);
        match joined {
            Some((_, report)) => {
                let report = report.clone();
                steps.push(Step::Discard(id));
                steps.extend(library.work.take().map(|w| Step::Report(vec![w.request], report)));
                self.begin_next(id, steps);
            }
            None if runs => {
                steps.push(Step::Discard(id));
                self.finish(id, Outcome::Unchanged, 0.0, String::new(), services, steps);
            }
            None => {
                self.go_on(id, Stage::Trying);
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

    fn go_on(&mut self, id: LibraryId, step: Stage) {
        if let Some(work) = &mut self.libraries[id.0].work {
            work.step = step;
        }
    }

    fn next_build(&self, id: LibraryId) -> Build {
        let library = &self.libraries[id.0];
        let (name, hash) =
            library.work.as_ref().map_or_else(Default::default, |w| (w.name.clone(), w.hash.clone()));
        Build { library: name, generation: library.highest + 1, hash }
    }

    fn refuse(&mut self, id: LibraryId, why: String, services: &[Service], steps: &mut Vec<Step>) {
        steps.push(Step::Discard(id));
        self.finish(id, Outcome::Refused, 0.0, why, services, steps);
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
        let report = library.report(outcome, work.hash.clone(), pause_us, reason, services);
        library.last = Some((work.hash, report.clone()));
        steps.push(Step::Report(vec![work.request], report));
        self.begin_next(id, steps);
    }

    fn begin_next(&mut self, id: LibraryId, steps: &mut Vec<Step>) {
        let library = &mut self.libraries[id.0];
        if let Some(next) = library.waiting.pop_front() {
            steps.push(library.begin(id, next, true));
        }
    }

    /// Whether the build that was tried may serve, as far as the core can tell; its services.
    fn judge(&self, id: LibraryId, services: &[Service], limits: &Limits) -> Result<Vec<Offer>, String> {
        let Some(work) = &self.libraries[id.0].work else { return Err("no reload is under way".into()) };
        let name = &work.name;
        if let Some(build) = &self.libraries[id.0].current
            && build.library != *name
        {
            return Err(format!(
                "it is library {name}, and cannot take the place of library {}; serve it beside that one, from a path of its own",
                build.library
            ));
        }
        for (i, other) in self.libraries.iter().enumerate() {
            if i != id.0 && other.current.as_ref().is_some_and(|b| b.library == *name) {
                return Err(format!(
                    "a library called {name} is loaded already, from {}; give this one another crate name",
                    other.path.display()
                ));
            }
        }
        for other in self.libraries.iter().enumerate().filter(|(i, _)| *i != id.0).map(|(_, l)| l) {
            let Some(theirs) = other.work.as_ref().filter(|w| w.step == Stage::Committing) else { continue };
            let shared = work.offers.iter().find(|o| theirs.offers.iter().any(|t| t.name == o.name));
            if theirs.name == *name || shared.is_some() {
                return Err(format!(
                    "library {}, from {}, is being committed and offers the same",
                    theirs.name,
                    other.path.display()
                ));
            }
        }
        for (i, offer) in work.offers.iter().enumerate() {
            if work.offers[..i].iter().any(|o| o.name == offer.name) {
                return Err(format!("it offers service {} twice", offer.name));
            }
            let crate::framing::Framing::Lines { bytes_max } = offer.framing;
            if bytes_max == 0 || bytes_max > limits.frame_bytes_max {
                return Err(format!(
                    "service {} wants frames of up to {bytes_max} bytes; the host allows from 1 to {} (limit frame_bytes_max)",
                    offer.name, limits.frame_bytes_max
                ));
            }
            let Some(live) = services.iter().find(|s| s.offer.name == offer.name) else { continue };
            match &live.build {
                Some(build) if build.library != *name => {
                    return Err(format!(
                        "service {} belongs to library {}; a service has one library",
                        offer.name, build.library
                    ));
                }
                // Nobody serves it, so nobody is connected and no state is kept.
                None => continue,
                Some(_) => {}
            }
            schema::judge(&offer.name, &live.offer.shape, &offer.shape, &live.stored_versions())?;
        }
        for live in services {
            let mine = live.build.as_ref().is_some_and(|b| b.library == *name);
            if mine && live.sessions > 0 && !work.offers.iter().any(|o| o.name == live.offer.name) {
                return Err(format!(
                    "it no longer offers service {}, which has {} sessions; a service can be withdrawn once nobody is connected",
                    live.offer.name, live.sessions
                ));
            }
        }
        Ok(work.offers.clone())
    }
}

impl Library {
    fn begin(&mut self, id: LibraryId, request: Request, waited: bool) -> Step {
        let path = request.from.clone().unwrap_or_else(|| self.path.clone());
        self.work = Some(Work {
            request,
            waited,
            hash: String::new(),
            name: String::new(),
            offers: Vec::new(),
            step: Stage::Staging,
        });
        Step::Stage(id, path)
    }

    /// Reports that the build which runs now took another one's place.
    pub fn rolled_back(&self, why: String, services: &[Service]) -> Report {
        let build = self.current.as_ref().map_or_else(String::new, |b| b.hash.clone());
        self.report(Outcome::RolledBack, build, 0.0, why, services)
    }

    /// What this library is called: by its build, else by its file.
    pub fn name(&self) -> String {
        match &self.current {
            Some(build) => build.library.clone(),
            None => self.path.display().to_string(),
        }
    }

    fn report(
        &self,
        outcome: Outcome,
        build: String,
        pause_us: f64,
        reason: String,
        services: &[Service],
    ) -> Report {
        let mine = services.iter().filter(|s| {
            let library = s.build.as_ref().map(|b| &b.library);
            library.is_some() && library == self.current.as_ref().map(|b| &b.library)
        });
        let mine: Vec<_> = mine.collect();
        Report {
            outcome,
            library: self.name(),
            services: mine.iter().map(|s| s.offer.name.clone()).collect(),
            generation: self.current.as_ref().map_or(0, |b| b.generation),
            build,
            sessions: mine.iter().map(|s| s.sessions).sum(),
            pause_us,
            reason,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Core;
    use crate::framing::Framing;
    use crate::service::{Batch, Code};
    use crate::turn::Staging;
    use greenroom_state::schema::{Schema, StateShape};

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
        let shape = StateShape { version, schema, migrations: (1..version).collect() };
        Offer { name: name.into(), port: 0, framing: Framing::Lines { bytes_max: 100 }, shape }
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
                    Step::Load(_, offers) => format!("load {}", offers.len()),
                    Step::Commit(_, build) => format!("commit {}", build.generation),
                    Step::Discard(_) => "discard".into(),
                    Step::Report(to, r) => {
                        let ids: Vec<_> = to.iter().map(|r| r.id).collect();
                        format!("{:?} {ids:?} gen {} {}", r.outcome, r.generation, r.reason)
                    }
                });
            }
            text.join(", ")
        }

        fn request(&mut self, l: LibraryId, id: u64, by: By) -> String {
            self.on(Event::Requested(l, Request { id, by, from: None }))
        }

        /// The whole way, from a staged hash to a commit; what was said on the way.
        fn rest(&mut self, l: LibraryId, hash: &str, offers: Vec<Offer>) -> String {
            let mut said = self.on(Event::Staged(l, Ok(hash.into())));
            if said.ends_with("try") {
                said = self.on(Event::Tried(
                    l,
                    Ok(Candidate { name: "a".into(), offers: offers.clone(), rehearsal: Ok(()) }),
                ));
            }
            if said.starts_with("load") {
                said = self.on(Event::Loaded(l, Ok(())));
            }
            if let Some(generation) = said.strip_prefix("commit ") {
                let build =
                    Build { library: "a".into(), generation: generation.parse().unwrap(), hash: hash.into() };
                let code = offers.into_iter().map(|o| (o, Box::new(Nothing) as Box<dyn Code>)).collect();
                self.0.adopt(&build, code);
                said = self.on(Event::Committed(l, 5.0));
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
        let said = b.on(Event::Tried(
            other,
            Ok(Candidate { name: "b".into(), offers: vec![offer("s", 1, "integer")], rehearsal: Ok(()) }),
        ));
        assert!(said.contains("service s belongs to library a"), "{said}");
        b.request(other, 3, OP);
        b.on(Event::Staged(other, Ok("h2".into())));
        let said = b.on(Event::Tried(
            other,
            Ok(Candidate { name: "a".into(), offers: vec![offer("t", 1, "integer")], rehearsal: Ok(()) }),
        ));
        assert!(said.contains("loaded already, from liba.so"), "{said}");
        b.request(other, 4, OP);
        b.on(Event::Staged(other, Ok("h2".into())));
        let mut greedy = offer("t", 1, "integer");
        greedy.framing = Framing::Lines { bytes_max: u32::MAX };
        let said = b.on(Event::Tried(
            other,
            Ok(Candidate { name: "b".into(), offers: vec![greedy], rehearsal: Ok(()) }),
        ));
        assert!(said.contains("limit frame_bytes_max"), "{said}");
    }

    #[test]
    fn a_service_with_sessions_is_not_withdrawn_even_at_the_last_moment() {
        let (mut b, l) = Bench::new();
        b.request(l, 1, By::Start);
        b.rest(l, "h1", vec![offer("s", 1, "integer"), offer("t", 1, "integer")]);
        b.request(l, 2, OP);
        b.on(Event::Staged(l, Ok("h2".into())));
        assert_eq!(
            b.on(Event::Tried(
                l,
                Ok(Candidate { name: "a".into(), offers: vec![offer("s", 1, "integer")], rehearsal: Ok(()) })
            )),
            "load 1"
        );
        let t = b.0.service_named("t").unwrap();
        let peer = "127.0.0.1:9".parse().unwrap();
        let slot = crate::session::Slot(0);
        b.0.handle(crate::Input::Opened { slot, id: 1, service: t, peer, at_ms: 0 });
        let said = b.on(Event::Loaded(l, Ok(())));
        assert!(said.contains("no longer offers service t, which has 1 sessions"), "{said}");
        b.0.handle(crate::Input::Broken { slot });
        b.request(l, 3, OP);
        assert_eq!(b.rest(l, "h3", vec![offer("s", 1, "integer")]), "Committed [3] gen 2 ");
        assert!(b.0.services()[usize::from(t.0)].build.is_none());
    }
}
