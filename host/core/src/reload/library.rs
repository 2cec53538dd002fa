//! A library: the build that runs, the reload under way, and the requests that wait.
//!
//! A library is a path that builds come from. A library has no name before a build of it was
//! tried. [`Library::current`] is the truth about the build that runs: the shell writes its
//! records from that. The field changes at a commit, a rollback and a takeover, and at no other
//! time.

use crate::ledger::Outcome;
use crate::ledger::Report;
use crate::reload::request::LibraryId;
use crate::reload::request::Request;
use crate::reload::request::Step;
use crate::reload::request::Want;
use crate::service::offer::Build;
use crate::service::offer::Offer;
use crate::service::registry::Service;
use greenroom_state::rehearsal_report::Rehearsal;
use std::collections::VecDeque;
use std::path::PathBuf;

/// A library. Only the state machine in `steps.rs` changes it.
#[derive(Debug)]
pub struct Library {
    /// Path that builds come from, and that the watcher watches.
    pub path: PathBuf,
    /// Build that runs; `None`: no build of this path has been committed.
    pub current: Option<Build>,
    /// Highest generation that ran; 0: none. The next build gets the next number.
    pub highest: u64,
    /// Reload under way; at most one.
    pub(crate) work: Option<ActiveReload>,
    /// Requests that wait for the reload under way, the oldest first.
    pub(super) waiting: VecDeque<Request>,
    /// SHA-256 of the content last seen at `path`. The watcher does not try this content again.
    pub seen: Option<String>,
    /// Report of the last load, and the hash of its content, for requests that waited behind
    /// it.
    pub(super) last: Option<(String, Report)>,
}

/// Reload under way. Its fields are filled in stage by stage.
#[derive(Debug)]
pub(crate) struct ActiveReload {
    /// Request that the reload is carried out for.
    pub(crate) request: Request,
    /// Whether the request waited behind another reload, whose outcome it may share.
    pub(super) waited: bool,
    /// SHA-256 of the content; empty until staged.
    pub(super) hash: String,
    /// Name of the candidate's library; empty until tried.
    pub(crate) name: String,
    /// Offers of the candidate; empty until tried.
    pub(crate) offers: Vec<Offer>,
    /// Build id that the linker gave the candidate.
    pub(super) build_id: Option<String>,
    /// Report of the rehearsal; `None`: not tried yet, or nothing to rehearse with.
    pub(super) rehearsal: Option<Rehearsal>,
    /// Stage that the reload is in.
    pub(crate) step: Stage,
    /// Reason to refuse the reload once its step is done. Either another member of its group
    /// was refused, or its preparation is outdated.
    pub(super) cancelled: Option<String>,
}

/// Stage of a reload. The order of the variants is the order of time, and comparisons depend on
/// it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd)]
pub(crate) enum Stage {
    /// The prepare thread reads and inspects the file.
    Staging,
    /// A child process loads the candidate and rehearses it.
    Trying,
    /// Waits until all of its group are tried.
    Tried,
    /// The keeper opens added ports, and the prepare thread loads the code.
    Loading,
    /// Waits until all of its group are loaded.
    Loaded,
    /// The shell commits between two passes. A reload cannot be cancelled here.
    Committing,
}

impl ActiveReload {
    /// Outcome of the reload if it is committed.
    pub(super) fn outcome(&self) -> Outcome {
        match self.request.want {
            Want::RollBack(_) => Outcome::RolledBack,
            Want::Canary => Outcome::Canary,
            _ => Outcome::Committed,
        }
    }
}

impl Library {
    /// Begins a reload, and returns its first step. The caller has ended the reload before it.
    /// The content comes from the file that the request names, else from the library's own
    /// path.
    pub(super) fn begin(&mut self, id: LibraryId, request: Request, waited: bool) -> Step {
        let path = request.from.clone().unwrap_or_else(|| self.path.clone());
        self.work = Some(ActiveReload {
            request,
            waited,
            hash: String::new(),
            name: String::new(),
            offers: Vec::new(),
            build_id: None,
            rehearsal: None,
            step: Stage::Staging,
            cancelled: None,
        });
        Step::Stage(id, path)
    }

    /// Reports that the build that runs took over from one that failed. Call it after
    /// [`super::reloads::Reloads::goes_on_with`]: the report names the build that serves.
    /// O(services).
    pub fn rolled_back(&self, why: String, services: &[Service]) -> Report {
        let build = self.current.as_ref().map_or_else(String::new, |b| b.hash.clone());
        self.report(Outcome::RolledBack, build, 0.0, why, services)
    }

    /// Reports that a process ended while it loaded a build: the reload counts as refused. The
    /// report names the build that serves. O(services).
    pub fn ended_its_process(&self, build: String, why: String, services: &[Service]) -> Report {
        self.report(Outcome::Refused, build, 0.0, why, services)
    }

    /// Name of the library: that of its build, else the path of its file.
    pub fn name(&self) -> String {
        match &self.current {
            Some(build) => build.library.clone(),
            None => self.path.display().to_string(),
        }
    }

    /// Makes the report of a reload, with the findings of its trial as far as it came.
    /// O(services).
    pub(super) fn report_of(
        &self,
        work: &ActiveReload,
        outcome: Outcome,
        pause_us: f64,
        reason: String,
        services: &[Service],
    ) -> Report {
        let rehearsal = work.rehearsal.clone();
        Report {
            build_id: work.build_id.clone(),
            versions: work.offers.iter().map(|o| (o.name.clone(), o.shape.version)).collect(),
            verdict: rehearsal.as_ref().map(Rehearsal::verdict),
            migrated: rehearsal.as_ref().map_or(0, |r| r.migrated),
            rehearsal_ms: rehearsal.as_ref().map_or(0, |r| r.ms),
            rehearsal,
            ..self.report(outcome, work.hash.clone(), pause_us, reason, services)
        }
    }

    /// Makes a report with generation, services and sessions of the build that runs, and
    /// `build` as the hash that was asked for. After a refusal these are two different builds.
    /// O(services).
    pub(super) fn report(
        &self,
        outcome: Outcome,
        build: String,
        pause_us: f64,
        reason: String,
        services: &[Service],
    ) -> Report {
        let mine: Vec<_> = match &self.current {
            Some(build) => services.iter().filter(|s| s.is_of(&build.library)).collect(),
            None => Vec::new(),
        };
        Report {
            services: mine.iter().map(|s| s.offer.name.clone()).collect(),
            generation: self.current.as_ref().map_or(0, |b| b.generation),
            build,
            sessions: mine.iter().map(|s| s.sessions).sum(),
            pause_us,
            ..Report::of_host(&self.name(), outcome, reason)
        }
    }
}
