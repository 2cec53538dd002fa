//! Requests for reloads: from operators, the watcher, and proposed configurations.
//!
//! Each request has a number, by which its report finds the requester. Requests of one commit share
//! the number of the first as their group. While a configuration is being committed, other requests
//! are deferred, because settings and ports that they were prepared with would be outdated.
//!
//! Every request ends with exactly one report, except a request of the watcher for content that was
//! seen before: that ends silently. A caller gets the number of reports first, then a report for
//! each, and meanwhile the progress of rehearsals.
//!
//! Calls come from a pass, or from a step between two passes. Each costs O(libraries + services)
//! and only orders slow work. Requests are not recorded: if the worker ends, its callers get no
//! report, and the successor looks at the watched files itself.

use crate::admin::query::{Answer, CanaryRequest, ReloadRequest};
use crate::clock::now_ns;
use crate::config::Config;
use crate::plugin::prepare::{Against, Job};
use crate::worker::reload::build_records::LibraryRecord;
use crate::worker::reload::canary_list::no_canary;
use crate::worker::reload::carry_out::{Deferred, ReloadDriver, part_of};
use crate::worker::reload::running_build::RunningBuild;
use crate::worker::shell::Shell;
use greenroom_core::core::Core;
use greenroom_core::ledger::{Outcome, Report};
use greenroom_core::reload::library::Library;
use greenroom_core::reload::request::{Event, LibraryId, Request, Requester, Want};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::Sender;

/// Whether a file never served, was read once, and is gone: it was refused, and somebody has put it
/// away. Costs a stat for a library without a build.
fn is_forgotten(library: &Library) -> bool {
    library.current.is_none() && library.seen.is_some() && !library.path.exists()
}

impl ReloadDriver {
    /// Requests reloads for an operator. `reply` gets their number, then a report for each.
    ///
    /// Without a target all libraries are reloaded. Together they are one commit, and one refusal
    /// refuses all; otherwise each is a commit of its own. A name that no library has is answered
    /// with an error. `from`: another file than the library's own. A dry run is never one commit
    /// with others, because it ends before the commit.
    pub(in crate::worker) fn ask_reload(
        &mut self,
        shell: &mut Shell,
        wish: ReloadRequest,
        reply: Sender<Answer>,
    ) {
        let ReloadRequest { target, from, together, dry_run, against, by } = wish;
        let ids = match target.map(|name| library_for(&shell.core, &name)) {
            // Paths that never ran a build count, too: their reload is the way to load them.
            None => {
                let all = shell.core.reloads.libraries().iter().enumerate();
                all.filter(|(_, library)| !is_forgotten(library)).map(|(n, _)| LibraryId(n)).collect()
            }
            Some(Ok(id)) => vec![id],
            Some(Err(text)) => {
                let _ = reply.send(Answer::Error(text));
                return;
            }
        };
        // Before the requests: a report may follow at once.
        let _ = reply.send(Answer::Reloading(ids.len()));
        let want = if dry_run { Want::DryRun } else { Want::Load };
        if let Some((file, allow)) = against {
            // The number of the request below.
            self.against.insert(self.requests + 1, Against { file, allow });
        }
        let requests = ids.into_iter().map(|id| (id, from.clone(), want)).collect();
        self.request(shell, requests, by, together && !dry_run, Some(reply));
    }

    /// Recording that the reload under way of a library must replay.
    pub(super) fn against_of(&self, shell: &Shell, id: LibraryId) -> Option<Against> {
        let request = shell.core.reloads.under_way(id)?;
        self.against.get(&request.id).cloned()
    }

    /// Requests a rollback for an operator, to generation `to` or to the build that the present one
    /// has replaced, on probation or not. `reply` gets the number of reports, then the report.
    ///
    /// The earlier build is loaded from its private copy with its own settings. All steps of a
    /// reload follow, because data may have changed since that build ran. If the generation is not
    /// kept, the answer is an error that lists those that are.
    pub(in crate::worker) fn ask_roll_back(
        &mut self,
        shell: &mut Shell,
        name: &str,
        to: Option<u64>,
        by: Requester,
        reply: Sender<Answer>,
    ) {
        // The record that is looked at below changes with the configuration's commit, so the whole
        // call is repeated then.
        if shell.config.is_changing() {
            return self.deferred.push(Deferred::RollBack(name.to_owned(), to, by, reply));
        }
        let found = library_for(&shell.core, name).and_then(|id| {
            let record = shell.builds.get(id).ok_or_else(|| format!("{name} runs no build"))?;
            let wanted = match to {
                Some(n) => record.earlier.iter().chain([&record.current]).find(|b| b.generation == n),
                None => record.replaced(),
            };
            Ok((id, wanted.ok_or_else(|| not_kept(record, to))?.clone()))
        });
        match found {
            Err(text) => {
                let _ = reply.send(Answer::Error(text));
            }
            Ok((id, wanted)) => {
                let _ = reply.send(Answer::Reloading(1));
                if let Some(settings) = &wanted.settings {
                    // With its own settings the build is the generation that ran. The number is
                    // that of the request below, which cannot be deferred.
                    let config = shell.config.get().with_settings(settings, &wanted.files);
                    self.configs.insert(self.requests + 1, Arc::new(config));
                }
                let want = Want::RollBack(wanted.generation);
                self.request(shell, vec![(id, Some(wanted.copy), want)], by, false, Some(reply));
            }
        }
    }

    /// Requests a canary for an operator. `reply` gets the number of reports, then the report.
    pub(in crate::worker) fn ask_canary(
        &mut self,
        shell: &mut Shell,
        wish: CanaryRequest,
        reply: Sender<Answer>,
    ) {
        let id = match library_for(&shell.core, &wish.target) {
            Ok(id) => id,
            Err(text) => {
                let _ = reply.send(Answer::Error(text));
                return;
            }
        };
        let _ = reply.send(Answer::Reloading(1));
        let (from, by) = (wish.from.clone(), wish.by);
        // The number that `request` gives next.
        self.canaries.insert(self.requests + 1, wish);
        self.request(shell, vec![(id, from, Want::Canary)], by, false, Some(reply));
    }

    /// Requests that the candidate of a canary serves, for an operator or a rule. The candidate is
    /// loaded from its private copy with its own settings, with all steps of a reload.
    pub(in crate::worker) fn ask_promote(
        &mut self,
        shell: &mut Shell,
        name: &str,
        by: Requester,
        reply: Option<Sender<Answer>>,
    ) {
        let found = library_for(&shell.core, name).and_then(|id| {
            let record = shell.builds.get(id).ok_or_else(|| format!("{name} runs no build"))?;
            let generation = record.canary.as_ref().map(|c| c.generation);
            let candidate = record.converters.iter().find(|b| Some(b.generation) == generation);
            candidate.cloned().map(|b| (id, b)).ok_or_else(|| no_canary(&shell.core, name))
        });
        match (found, reply) {
            (Err(text), Some(reply)) => _ = reply.send(Answer::Error(text)),
            (Err(text), None) => tracing::error!("a canary can't be promoted: {text}"),
            (Ok((id, candidate)), reply) => {
                if let Some(reply) = &reply {
                    let _ = reply.send(Answer::Reloading(1));
                }
                if let Some(settings) = &candidate.settings {
                    let config = shell.config.get().with_settings(settings, &candidate.files);
                    self.configs.insert(self.requests + 1, Arc::new(config));
                }
                let want = Want::Promote(candidate.generation);
                self.request(shell, vec![(id, Some(candidate.copy), want)], by, false, reply);
            }
        }
    }

    /// Requests that libraries reload the copies of their builds under another configuration, in
    /// one commit. Watched files are left alone: a change of settings brings no new code.
    ///
    /// The caller has begun the change of configuration, so all other requests wait for its end.
    pub(super) fn configure(
        &mut self,
        shell: &mut Shell,
        affected: Vec<(LibraryId, PathBuf)>,
        config: &Arc<Config>,
        by: Requester,
        reply: Option<Sender<Answer>>,
    ) {
        let mut requests = Vec::new();
        // Numbers that `request` gives next, in the same order.
        for (n, (id, copy)) in affected.into_iter().enumerate() {
            self.configs.insert(self.requests + 1 + n as u64, config.clone());
            requests.push((id, Some(copy), Want::Configure));
        }
        self.request(shell, requests, by, true, reply);
    }

    /// Requests a reload of a library's own file, as a commit of its own. A path that is not known
    /// yet becomes a library. `reply` gets the report alone, without the number of reports before.
    pub(in crate::worker) fn request_load(
        &mut self,
        shell: &mut Shell,
        path: PathBuf,
        by: Requester,
        reply: Option<Sender<Answer>>,
    ) {
        let id = shell.core.reloads.library(path);
        self.request(shell, vec![(id, None, Want::Load)], by, false, reply);
    }

    /// Requests what follows from a changed file. A worker that hands over leaves it to its
    /// successor, which looks at all files.
    pub(in crate::worker) fn file_changed(&mut self, shell: &mut Shell, path: PathBuf) {
        // A handover waits until no reload is under way, so another one would hold it up.
        if shell.lifecycle.is_handing_over() {
            return;
        }
        let known = shell.core.reloads.libraries().iter().any(|l| l.path == path);
        match known {
            // The build that runs stays if its file is removed. Another file may follow.
            true if path.exists() => self.request_load(shell, path, Requester::Watcher, None),
            true => shell.keeper.say_failing(&part_of(&path), None),
            false
                if is_library(&path)
                    && path.parent().is_some_and(|dir| self.discover.iter().any(|d| d == dir)) =>
            {
                shell.threads.prepare.send(Job::Probe(path));
            }
            _ => {}
        }
    }

    /// Looks for files in the watched directories that are not among `known`, and loads those with
    /// a note. The prepare thread reads them; the loop only lists the directories. A directory that
    /// cannot be read counts as empty.
    pub(in crate::worker) fn look_for_others(&self, shell: &Shell, known: impl Fn(&Path) -> bool) {
        for dir in &self.discover {
            for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
                let path = entry.path();
                if is_library(&path) && !known(&path) {
                    shell.threads.prepare.send(Job::Probe(path));
                }
            }
        }
    }

    /// Goes on with requests that were deferred for a configuration, in their order. The caller
    /// makes sure that no change is under way: reloads are not deferred a second time.
    pub(super) fn go_on_with_deferred(&mut self, shell: &mut Shell) {
        // What was in the way of a load may be over with the configuration.
        self.later.hurry();
        for deferred in std::mem::take(&mut self.deferred) {
            match deferred {
                Deferred::Reloads(requests) => self.handle(shell, Event::Requested(requests)),
                Deferred::RollBack(name, to, by, reply) => {
                    self.ask_roll_back(shell, &name, to, by, reply);
                }
            }
        }
    }

    /// Notes the outcome of a reload: a load that was refused for a reason that may pass is tried
    /// again. True: it was repeated, and refused for the same reason as before.
    pub(super) fn is_refused_again(
        &mut self,
        shell: &mut Shell,
        id: LibraryId,
        request: &Request,
        report: &Report,
    ) -> bool {
        let may_pass = self.may_pass.remove(&id);
        if request.want != Want::Load || request.from.is_some() {
            return false;
        }
        if !may_pass || report.outcome != Outcome::Refused {
            self.later.over(id);
            return false;
        }
        let is_of_host = matches!(request.by, Requester::Start | Requester::Watcher);
        if !is_of_host && !self.later.waits(id) {
            return false;
        }
        shell.core.reloads.look_again(id);
        !self.later.refused(id, &report.reason, now_ns()) && is_of_host
    }

    /// Requests the loads that are due again.
    pub(super) fn try_again(&mut self, shell: &mut Shell) {
        if self.later.next_ns().is_none()
            || shell.lifecycle.is_handing_over()
            || shell.lifecycle.is_stopping()
        {
            return;
        }
        for id in self.later.take_due(now_ns()) {
            let path = shell.core.reloads.libraries()[id.0].path.clone();
            self.request_load(shell, path, Requester::Watcher, None);
        }
    }

    /// Numbers requests and reports them to the core. `together`: all of them are one commit. While
    /// a configuration is under way, others than its own are deferred.
    fn request(
        &mut self,
        shell: &mut Shell,
        wanted: Vec<(LibraryId, Option<PathBuf>, Want)>,
        by: Requester,
        together: bool,
        reply: Option<Sender<Answer>>,
    ) {
        let first = self.requests + 1;
        let mut requests = Vec::new();
        for (id, from, want) in wanted {
            self.requests += 1;
            if let Some(reply) = &reply {
                self.waiting.insert(self.requests, reply.clone());
            }
            // A group of one has the request's own number: the core takes it as alone then.
            let group = if together { first } else { self.requests };
            requests.push((id, Request { id: self.requests, by, from, want, group }));
        }
        // All requests of one call reach the core in one event. Else the first of a commit could
        // begin, and be committed, before the others are known.
        let configures = |(_, r): &(LibraryId, Request)| r.want == Want::Configure;
        if shell.config.is_changing() && !requests.iter().all(configures) {
            self.deferred.push(Deferred::Reloads(requests));
        } else {
            self.handle(shell, Event::Requested(requests));
        }
    }
}

/// Reason why there is no build to roll back to, with the generations that are kept. Some may be
/// later ones, to which `--to` goes.
fn not_kept(record: &LibraryRecord, to: Option<u64>) -> String {
    let RunningBuild { library, generation, .. } = &record.current;
    let kept: Vec<_> = record.earlier.iter().map(|b| b.generation.to_string()).collect();
    let kept = if kept.is_empty() { "none".to_owned() } else { kept.join(", ") };
    match to {
        None if record.earlier.is_empty() => {
            format!("no build of {library} but generation {generation} is kept (limit builds_kept)")
        }
        Some(n) => format!("generation {n} of {library} is not kept; there are: {kept} (limit builds_kept)"),
        None => format!(
            "no build from before generation {generation} of {library} is kept; `--to` goes to others: {kept} \
             (limit builds_kept)"
        ),
    }
}

/// Returns whether a path has the file name of a library. The content is not looked at. A path that
/// no record can hold is none.
fn is_library(path: &Path) -> bool {
    path.extension() == Some(OsStr::new("so")) && path.to_str().is_some()
}

/// Finds a library by the name of a service, by its own name, or by its file's. An error lists the
/// services. O(libraries + services).
pub(super) fn library_for(core: &Core, name: &str) -> Result<LibraryId, String> {
    let service = core.services().iter().find(|s| s.offer.name == name);
    let owner = service.and_then(|s| Some(s.build.as_ref()?.library.as_str())).unwrap_or(name);
    let owns = |l: &Library| {
        l.current.as_ref().is_some_and(|b| b.library == owner) || l.path.ends_with(format!("lib{name}.so"))
    };
    let found = core.reloads.libraries().iter().position(owns).map(LibraryId);
    found.ok_or_else(|| {
        let known: Vec<_> = core.services().iter().map(|s| s.offer.name.as_str()).collect();
        format!("no service or library is called {name:?}; there are: {}", known.join(", "))
    })
}
