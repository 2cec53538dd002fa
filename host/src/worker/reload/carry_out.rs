//! Steps of a reload that the core orders: the slow ones on the prepare thread, ports through the
//! keeper, the commit between two passes.
//!
//! The core's state machine answers each event with steps. The end of a slow step is the next
//! event: it comes from the prepare thread, from the keeper, or from the commit. The core may
//! answer an event of one library with steps of others, if they are one commit. Steps are carried
//! out in the core's order, which is the order of log and ledger.
//!
//! | step | carried out by | ends with |
//! | --- | --- | --- |
//! | stage, try | the prepare thread | `Event::Staged`, `Event::Tried` |
//! | load | the keeper (ports), then the prepare thread | `Event::Loaded` for each library |
//! | commit | the driver, between two passes | `Event::Committed` for the group |
//! | discard, report | the driver, at once | no event |
//!
//! *Invariant*: until the commit, nothing that a reload prepares serves: code, ports and copies lie
//! aside, and a refusal drops them. A worker that dies forgets its reloads, because the state
//! machine is not recorded. The successor looks at the watched files again; callers get no report.
//!
//! The loop pays O(1) for most steps. A try pins an epoch and lists the sizes of tables. A load of
//! content that the library's record has not seen commits the pass that is under way.

use crate::admin::query::{Answer, CanaryRequest};
use crate::admin::text::ledger_line;
use crate::config::Config;
use crate::crash_points;
use crate::crash_points::Point;
use crate::plugin::prepare::{Against, Job, Loaded};
use crate::protocol::admin::FRESH_WORKER;
use crate::worker::ledger::requester;
use crate::worker::reload::configure::refuse_proposed;
use crate::worker::reload::later_loads::{LaterLoads, PIN_LOST, may_pass};
use crate::worker::reload::loads_under_way::{about_to_load, say_loads};
use crate::worker::reload::owed_answers::{OwedAnswers, OwedStep};
use crate::worker::reload::ports::{Opening, PreparedPorts};
use crate::worker::reload::snapshot::snapshot_for;
use crate::worker::shell::Shell;
use greenroom_core::core::Core;
use greenroom_core::ledger::{Outcome, ProbationCounts, ProbationReport, ProbationState, Report};
use greenroom_core::reload::request::{Candidate, Event, LibraryId, Request, Requester, Step, Want};
use greenroom_core::service::offer::{Build, Offer};
use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::Sender;

/// The driver of reloads: state between a request and its report. Nothing of it outlives the
/// process.
#[derive(Default)]
pub(in crate::worker) struct ReloadDriver {
    /// Directories whose libraries are loaded when they appear.
    pub(super) discover: Vec<PathBuf>,
    /// Number of the last request. Numbers count from 1 in each process.
    pub(super) requests: u64,
    /// Destinations of reports, by request.
    pub(super) waiting: HashMap<u64, Sender<Answer>>,
    /// Configurations of single requests until their reports; else the one in force counts.
    pub(super) configs: HashMap<u64, Arc<Config>>,
    /// Recordings that requests name, by request.
    pub(super) against: HashMap<u64, Against>,
    /// Canaries that requests are to begin, by request.
    pub(super) canaries: HashMap<u64, CanaryRequest>,
    /// Requests that wait for the configuration under way.
    pub(super) deferred: Vec<Deferred>,
    /// Libraries that are loaded and wait for the commit of their group.
    pub(in crate::worker) loaded: HashMap<LibraryId, Loaded>,
    /// Steps that the prepare thread has not answered yet.
    pub(super) owed: OwedAnswers,
    /// Builds to commit between two passes. Each group is one commit.
    pub(super) commits: Vec<Vec<(LibraryId, Build)>>,
    /// Ledger lines of commits that are not reported yet, by library. 0: none was added.
    pub(super) lines: HashMap<LibraryId, u64>,
    /// Hashes of the files that were read for the reloads under way, which refusals tell.
    pub(super) read: HashMap<LibraryId, String>,
    /// Libraries whose reload under way fails for a reason that may pass.
    pub(super) may_pass: BTreeSet<LibraryId>,
    /// Loads that are to be tried again.
    pub(in crate::worker) later: LaterLoads,
}

/// A request that waits for the configuration under way. Its settings and ports are those in force
/// by then.
pub(super) enum Deferred {
    /// Reloads.
    Reloads(Vec<(LibraryId, Request)>),
    /// A rollback: name, generation, requester.
    RollBack(String, Option<u64>, Requester, Sender<Answer>),
}

impl ReloadDriver {
    /// Makes a driver with nothing under way. Libraries that appear in `discover` are loaded.
    pub(in crate::worker) fn new(discover: Vec<PathBuf>) -> ReloadDriver {
        ReloadDriver { discover, ..ReloadDriver::default() }
    }

    /// Reports an event to the core, and carries out the steps that it answers with.
    ///
    /// If a step fails at once, its failure is handled as an event before the next step. Nothing
    /// here waits: slow steps are only ordered. Runs inside a pass or between two; a commit is only
    /// noted, for [`ReloadDriver::step`].
    pub(in crate::worker) fn handle(&mut self, shell: &mut Shell, event: Event) {
        match &event {
            Event::Staged(..) => crash_points::pass(Point::Staged),
            Event::Tried(..) => crash_points::pass(Point::Tried),
            Event::Loaded(..) => crash_points::pass(Point::Loaded),
            _ => {}
        }
        for step in shell.core.reload(event) {
            match step {
                Step::Stage(id, path) => {
                    self.read.remove(&id);
                    // Settings of this very request, whatever waits behind it. Requests without
                    // settings withdraw those that an earlier proposal may have left.
                    let own = shell.core.reloads.under_way(id).and_then(|r| self.configs.get(&r.id));
                    shell.threads.prepare.send(match own {
                        Some(config) => Job::Propose(id, config.clone()),
                        None => Job::Withdraw(id),
                    });
                    self.owed.note(id, OwedStep::Stage);
                    shell.threads.prepare.send(Job::Stage(id, path));
                }
                Step::Try(id) => {
                    let snapshot = snapshot_for(shell, id, config_for(shell, id).all_limits()).map(Box::new);
                    self.owed.note(id, OwedStep::Try(snapshot.as_ref().map(|s| s.live.epoch)));
                    shell.threads.prepare.send(Job::Try(id, snapshot, self.against_of(shell, id)));
                }
                Step::Load(all) => self.begin_load(shell, &all),
                Step::Commit(all) => self.commits.push(all),
                Step::Discard(id) => self.discard(shell, id),
                Step::Report(id, request, report) => self.report(shell, id, &request, *report),
            }
        }
    }

    /// Handles the end of staging.
    pub(in crate::worker) fn staged(
        &mut self,
        shell: &mut Shell,
        id: LibraryId,
        result: Result<String, String>,
    ) {
        if self.owed.answered(id) {
            self.handle(shell, Event::Staged(id, result));
        }
    }

    /// Notes the hash of a file that is being staged.
    pub(in crate::worker) fn read(&mut self, id: LibraryId, hash: String) {
        self.read.insert(id, hash);
    }

    /// Handles the end of a trial, and releases the epoch that was pinned for it. If the pin was
    /// invalidated meanwhile (limit `pin_bytes_max`), the rehearsal counts as failed: it may have
    /// read blocks that were overwritten.
    pub(in crate::worker) fn tried(
        &mut self,
        shell: &mut Shell,
        id: LibraryId,
        epoch: Option<u64>,
        result: Result<Candidate, String>,
    ) {
        if self.owed.answered(id) {
            self.end_trial(shell, id, epoch, result);
        }
    }

    /// Hands the end of a trial to the core.
    pub(super) fn end_trial(
        &mut self,
        shell: &mut Shell,
        id: LibraryId,
        epoch: Option<u64>,
        result: Result<Candidate, String>,
    ) {
        let whole = epoch.is_none_or(|epoch| shell.core.unpin(epoch));
        let result = match whole {
            true => result,
            false => Err(format!("{PIN_LOST} (limit pin_bytes_max); try again")),
        };
        if result.as_ref().is_err_and(|why| may_pass(why)) {
            self.may_pass.insert(id);
        }
        let result = result.map_err(|why| refusal(shell, why));
        self.handle(shell, Event::Tried(id, result));
    }

    /// Keeps loaded code for the commit. The code serves nothing until then, and is dropped if
    /// another library of the same commit fails.
    pub(in crate::worker) fn loaded(
        &mut self,
        shell: &mut Shell,
        id: LibraryId,
        result: Result<Loaded, String>,
    ) {
        if !self.owed.answered(id) {
            // Its reload was refused.
            if let Ok(Loaded { code, copy, .. }) = result {
                shell.threads.prepare.send(Job::Drop(Box::new(code), vec![copy]));
            }
            return;
        }
        say_loads(shell, &self.owed, &self.read);
        self.end_load(shell, id, result);
    }

    /// Hands the end of a load to the core.
    pub(super) fn end_load(&mut self, shell: &mut Shell, id: LibraryId, result: Result<Loaded, String>) {
        // Before the event: the core may order the commit, or the discard, of this code at once.
        let result = result.map_err(|why| refusal(shell, why)).map(|loaded| {
            shell.builds.count_static_tls(loaded.static_tls);
            self.loaded.insert(id, loaded);
        });
        self.handle(shell, Event::Loaded(id, result));
    }

    /// Goes on with a reload once the keeper has answered for its ports. A port that cannot be
    /// opened refuses the whole commit, and the keeper has opened none of them then.
    pub(in crate::worker) fn ports_opened(
        &mut self,
        shell: &mut Shell,
        ids: Vec<LibraryId>,
        prepared: PreparedPorts,
        opened: Result<(), String>,
    ) {
        match opened {
            Ok(()) => self.ports_are_open(shell, ids, prepared),
            Err(why) => {
                self.may_pass.extend(&ids);
                self.not_loaded(shell, &ids, &why);
            }
        }
    }

    /// Tells a requester how far a rehearsal is: items done, and items in all. A reload without a
    /// caller, or a caller that is gone, gets nothing.
    pub(in crate::worker) fn progress(&self, core: &Core, id: LibraryId, done: u64, total: u64) {
        let request = core.reloads.under_way(id);
        let Some(reply) = request.and_then(|r| self.waiting.get(&r.id)) else { return };
        let _ = reply.send(Answer::Progress(core.reloads.libraries()[id.0].name(), done, total));
    }

    /// Begins to load libraries of one commit: ports first, if the keeper has some to open. The
    /// ports of the whole commit are prepared under its first library, so that an address may pass
    /// from one of its libraries to another.
    fn begin_load(&mut self, shell: &mut Shell, all: &[(LibraryId, Vec<Offer>)]) {
        let ids: Vec<_> = all.iter().map(|(id, _)| *id).collect();
        // Libraries of one commit are all part of a proposed configuration, or none is.
        let config = all.first().map_or_else(|| shell.config.get().clone(), |(id, _)| config_for(shell, *id));
        match shell.ports.changes_for(&shell.core, all, &config) {
            Ok(prepared) if prepared.need_opening() => {
                shell.ports.open(Opening::Reload(ids), prepared, &mut shell.keeper);
            }
            Ok(prepared) => self.ports_are_open(shell, ids, prepared),
            Err(why) => self.not_loaded(shell, &ids, &why),
        }
    }

    /// Goes on once the ports of a commit listen: the prepare thread loads each library.
    fn ports_are_open(&mut self, shell: &mut Shell, ids: Vec<LibraryId>, prepared: PreparedPorts) {
        crash_points::pass(Point::PortsOpen);
        if let Some(first) = ids.first() {
            shell.ports.prepare(*first, prepared);
        }
        ids.iter().for_each(|id| about_to_load(shell, *id));
        ids.iter().for_each(|id| self.owed.note(*id, OwedStep::Load));
        say_loads(shell, &self.owed, &self.read);
        ids.into_iter().for_each(|id| shell.threads.prepare.send(Job::Load(id)));
    }

    /// Reports to the core that libraries of one commit cannot be loaded, for the same reason.
    /// Every library of a load step must be answered: its reload waits for that.
    fn not_loaded(&mut self, shell: &mut Shell, ids: &[LibraryId], why: &str) {
        for id in ids {
            self.handle(shell, Event::Loaded(*id, Err(why.to_owned())));
        }
    }

    /// Drops what a reload has prepared and does not commit: ports, loaded code, and the private
    /// copy. Code is dropped on the prepare thread, because a destructor of a handler may block.
    fn discard(&mut self, shell: &mut Shell, id: LibraryId) {
        if let Some(prepared) = shell.ports.take_prepared(id) {
            shell.ports.discard(&prepared, &mut shell.keeper);
        }
        shell.threads.prepare.send(match self.loaded.remove(&id) {
            Some(loaded) => Job::Drop(Box::new(loaded.code), vec![loaded.copy]),
            None => Job::Discard(id),
        });
    }

    /// Writes a reload's outcome to ledger and log, and tells the requester, in this order. If the
    /// request was a part of a configuration and is refused, the configuration is refused.
    ///
    /// The ledger line counts from the next commit. Sessions in quarantine are counted at this
    /// moment, O(sessions in quarantine).
    fn report(&mut self, shell: &mut Shell, id: LibraryId, request: &Request, mut report: Report) {
        drop((self.configs.remove(&request.id), self.canaries.remove(&request.id)));
        self.against.remove(&request.id);
        report.quarantined = shell.core.quarantined(&report.library);
        let (by, is_known) = (requester(request.by), self.is_refused_again(shell, id, request, &report));
        match (report.outcome, self.lines.remove(&id)) {
            // The line is part of the commit. Only the pause was unknown.
            (Outcome::Committed | Outcome::RolledBack | Outcome::Canary, Some(line)) => {
                report.line = line;
                let known = shell.ledger.line(&shell.core, line);
                (report.probation, report.canary) = known.map_or((None, None), |r| (r.probation, r.canary));
                let amended = report.clone();
                shell.ledger.amend(&mut shell.core, line, move |report| *report = amended);
            }
            // The request shares the outcome of a reload that is in the ledger.
            (Outcome::Committed, None) => {}
            // A rehearsal changes nothing.
            (Outcome::Rehearsed, _) => shell.board.reported(&report),
            _ if request.want == Want::DryRun => shell.board.reported(&report),
            _ if is_known => {}
            _ => report.line = shell.add_line(&by, report.clone()),
        }
        if let Some(record) = shell.builds.get(id)
            && let Some(probation) = &record.probation
            && matches!(report.outcome, Outcome::Committed | Outcome::Unchanged)
            && record.current.hash == report.build
        {
            // The build is on probation, whichever request brought it: its end can be waited for.
            report.probation =
                Some(ProbationReport { state: ProbationState::UnderWay, record: ProbationCounts::default() });
            report.line = probation.line;
        }
        let line = ledger_line(&report);
        match report.outcome {
            Outcome::Refused => {
                match is_known {
                    false => tracing::warn!(%by, "{line}"),
                    true => tracing::debug!(%by, "{line}"),
                }
                if request.want == Want::Load && request.from.is_none() {
                    let path = shell.core.reloads.libraries()[id.0].path.clone();
                    let hash = self.read.get(&id).cloned().unwrap_or_default();
                    shell.keeper.say_refused(path, hash, &report.reason);
                }
            }
            _ => tracing::info!(%by, "{line}"),
        }
        if request.from.is_none() && matches!(request.want, Want::Load) {
            let path = &shell.core.reloads.libraries()[id.0].path;
            // A file that was removed fails no longer. One that runs already was refused for
            // another one of its group.
            let runs = shell.builds.get(id).map(|record| &record.current.hash);
            let runs = runs.is_some_and(|hash| self.read.get(&id) == Some(hash));
            let fails = report.outcome == Outcome::Refused && path.exists() && !runs;
            let why = fails.then(|| report.reason.clone());
            shell.keeper.say_failing(&part_of(path), why);
        } else if matches!(report.outcome, Outcome::Committed | Outcome::RolledBack) {
            // What was in the way of the file may be over: `status` tells that it differs.
            shell.keeper.say_failing(&part_of(&shell.core.reloads.libraries()[id.0].path), None);
        }
        // The report itself is moved to the requester.
        let refused = (request.want == Want::Configure && report.outcome == Outcome::Refused)
            .then(|| format!("{}: {}", report.library, report.reason));
        if let Some(reply) = self.waiting.remove(&request.id) {
            let _ = reply.send(Answer::Report(Box::new(report)));
        }
        if let Some(why) = refused {
            refuse_proposed(shell, &why);
        }
    }
}

/// Reason of a refusal. If this process lacks room that a fresh one has, the reason says so: the
/// fresh one is asked for behind the pass.
fn refusal(shell: &mut Shell, why: String) -> String {
    let lacked = shell.builds.lacked_room(&why, shell.config.limits());
    match lacked && (shell.keeper.may_recycle() || shell.lifecycle.is_handing_over()) {
        true => format!("{why}; {FRESH_WORKER}"),
        false => why,
    }
}

/// Name of a library as a part of the host that may fail.
pub(in crate::worker) fn part_of(path: &Path) -> String {
    format!("library {}", path.display())
}

/// Returns whether a library is being reloaded for another configuration.
pub(super) fn is_configured(core: &Core, id: LibraryId) -> bool {
    core.reloads.under_way(id).is_some_and(|r| r.want == Want::Configure)
}

/// The configuration that holds for a library once its reload is committed. A rollback's own
/// settings are not part of it: they concern instances, and this concerns ports and limits.
fn config_for(shell: &Shell, id: LibraryId) -> Arc<Config> {
    let proposed = shell.config.proposed().filter(|_| is_configured(&shell.core, id));
    proposed.map_or_else(|| shell.config.get().clone(), |p| p.config.clone())
}
