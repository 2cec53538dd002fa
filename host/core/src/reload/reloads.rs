//! The reloads of all libraries: what runs, what is under way, what waits.
//!
//! `steps.rs` has the state machine that changes this; here are its data and the questions that
//! others ask of it.

use crate::ledger::Report;
use crate::reload::library::{ActiveReload, Library, Stage};
use crate::reload::request::{LibraryId, Request, Requester, Want};
use crate::service::offer::Build;
use crate::service::registry::Service;
use std::collections::VecDeque;
use std::path::PathBuf;

/// Reloads of all libraries: the builds that run, the reloads under way, the requests that
/// wait.
#[derive(Debug, Default)]
pub struct Reloads {
    /// Libraries by [`LibraryId`]. Libraries are never removed, so an id stays valid.
    pub(crate) libraries: Vec<Library>,
}

impl Reloads {
    /// Returns the library of a path, and adds one without a build if the path is new.
    /// O(libraries).
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

    /// Notes the build that a library runs, without a reload. Callers are a takeover, and a
    /// rollback after a failed probation. The hash `seen` is that of the content last seen at
    /// the path; `highest` is the highest generation that ran.
    ///
    /// A reload under way goes on. If it was prepared for the build that went,
    /// [`Reloads::cancel`] refuses it.
    pub fn goes_on_with(&mut self, id: LibraryId, build: Build, seen: Option<String>, highest: u64) {
        let library = &mut self.libraries[id.0];
        library.highest = library.highest.max(highest).max(build.generation);
        (library.current, library.seen) = (Some(build), seen);
        // The last outcome was about another build, so no request that waits may share it.
        library.last = None;
    }

    /// Has the watcher leave content of this hash alone, as it does content that was refused.
    pub fn leave_alone(&mut self, id: LibraryId, hash: String) {
        self.libraries[id.0].seen = Some(hash);
    }

    /// Has the watcher load the content of a path again, although it was seen: what refused it may
    /// have passed.
    pub fn look_again(&mut self, id: LibraryId) {
        self.libraries[id.0].seen = None;
    }

    /// Refuses the reload under way as soon as its step is done, if it has prepared for a build
    /// that no longer runs.
    ///
    /// Before it loads, a reload has prepared nothing, and its next judgement looks at the
    /// build that runs then. A reload that is committing goes on: its build takes charge in any
    /// case.
    pub fn cancel(&mut self, id: LibraryId, why: &str) {
        let work = self.libraries[id.0].work.as_mut();
        // A configuration reloads the very build that was replaced, so no later judgement can
        // save it.
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

    /// Returns the library whose running build has this name; `None`: no build of that name
    /// runs. O(libraries).
    pub fn named(&self, name: &str) -> Option<LibraryId> {
        let at = self.libraries.iter().position(|l| l.current.as_ref().is_some_and(|b| b.library == name));
        at.map(LibraryId)
    }

    /// Whether any reload is under way. Requests only wait behind a reload, so if none is under
    /// way, none waits.
    pub fn is_busy(&self) -> bool {
        self.libraries.iter().any(|l| l.work.is_some())
    }

    /// Whether a build of this library is about to be committed, between this event and
    /// [`crate::reload::request::Event::Committed`].
    pub fn is_committing(&self, id: LibraryId) -> bool {
        self.libraries[id.0].work.as_ref().is_some_and(|w| w.step == Stage::Committing)
    }

    /// The request for which a reload of this library is under way; `None`: no reload is.
    pub fn under_way(&self, id: LibraryId) -> Option<&Request> {
        self.libraries[id.0].work.as_ref().map(|w| &w.request)
    }

    /// Returns the requester and report of a commit while it is made, so that its ledger line
    /// is part of the same epoch.
    ///
    /// The caller has put the build in charge of its services already: services and sessions
    /// are counted by its name. The pause is 0 in this report, because nobody knows it yet.
    /// `None`: no reload is under way. O(services).
    pub fn about_to_report(&self, id: LibraryId, services: &[Service]) -> Option<(Requester, Report)> {
        let library = &self.libraries[id.0];
        let work = library.work.as_ref()?;
        let mine = services.iter().filter(|s| s.is_of(&work.name));
        // `current` is still the previous build, so the fields about the new one are replaced
        // below.
        let report = library.report_of(work, work.outcome(), 0.0, String::new(), services);
        // The build that serves goes on beside the candidate.
        if work.request.want == Want::Canary {
            return Some((work.request.by, report));
        }
        let report = Report {
            library: work.name.clone(),
            services: mine.clone().map(|s| s.offer.name.clone()).collect(),
            sessions: mine.map(|s| s.sessions).sum(),
            generation: self.next_build(id).generation,
            ..report
        };
        Some((work.request.by, report))
    }

    /// The build that the reload under way would put in charge. A rollback gives a build its
    /// old generation back. Any other commit takes the next number, so other settings make
    /// another generation.
    pub(super) fn next_build(&self, id: LibraryId) -> Build {
        let library = &self.libraries[id.0];
        let (name, hash) =
            library.work.as_ref().map_or_else(Default::default, |w| (w.name.clone(), w.hash.clone()));
        let generation = match library.work.as_ref().map(|w| w.request.want) {
            Some(Want::RollBack(generation) | Want::Promote(generation)) => generation,
            _ => library.highest + 1,
        };
        Build { library: name, generation, hash }
    }
}
