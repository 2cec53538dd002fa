//! One library: the build that runs, and the reload under way.

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

/// A library.
#[derive(Debug)]
pub struct Library {
    /// Where its builds come from.
    pub path: PathBuf,
    /// The build that runs.
    pub current: Option<Build>,
    /// The highest generation that ran.
    pub highest: u64,
    pub(crate) work: Option<ActiveReload>,
    pub(super) waiting: VecDeque<Request>,
    /// Hash of what was last seen at `path`.
    pub seen: Option<String>,
    /// The last outcome and the hash that it was about.
    pub(super) last: Option<(String, Report)>,
}

#[derive(Debug)]
pub(crate) struct ActiveReload {
    pub(crate) request: Request,
    /// It waited for the reload before it.
    pub(super) waited: bool,
    pub(super) hash: String,
    pub(crate) name: String,
    pub(crate) offers: Vec<Offer>,
    pub(super) build_id: Option<String>,
    pub(super) rehearsal: Option<Rehearsal>,
    pub(crate) step: Stage,
    /// Another one of the same commit was refused, for this reason; so is this, once its step is
    /// done.
    pub(super) cancelled: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd)]
pub(crate) enum Stage {
    Staging,
    Trying,
    /// Waits for those that are reloaded together with it.
    Tried,
    Loading,
    /// As above.
    Loaded,
    Committing,
}

impl ActiveReload {
    /// How it ends if all goes well.
    pub(super) fn outcome(&self) -> Outcome {
        match self.request.want {
            Want::RollBack(_) => Outcome::RolledBack,
            _ => Outcome::Committed,
        }
    }
}

impl Library {
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
