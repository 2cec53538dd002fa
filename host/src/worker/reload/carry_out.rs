//! Carries out the steps of a reload that the core asks for: the slow ones by the stager, ports by the keeper, the commit between
//! two passes.

use crate::admin::query::{Answer, ReloadRequest};
use crate::config::Config;
use crate::crash_points;
use crate::crash_points::Point;
use crate::plugin::live::LiveState;
use crate::plugin::prepare::{Job, Loaded};
use crate::plugin::trial::Snapshot;
use crate::protocol::admin::{ledger_line, operator};
use crate::protocol::keeper::{HeldPort, ToKeeper};
use crate::worker::reload::proposals::Behind;
use crate::worker::{LibraryRecord, OnProbation, RunningBuild, Worker, now_ns};
use greenroom_core::input::Input;
use greenroom_core::ledger::ProbationCounts;
use greenroom_core::ledger::{Outcome, ProbationReport, ProbationState, Report};
use greenroom_core::reload::library::Library;
use greenroom_core::reload::ports::{self, Port};
use greenroom_core::reload::request::{By, Event, LibraryId, Request, Step, Want};
use greenroom_core::service::offer::{Build, Offer};
use greenroom_core::store::kind::Kind;
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::Instant;

/// What a reload does to ports once it is committed.
#[derive(Debug, Default)]
pub(in crate::worker) struct Prepared {
    /// To be opened.
    pub open: Vec<Port>,
    /// These listen, and aren't accepted from yet.
    opened: Vec<HeldPort>,
    close: Vec<Port>,
    hand_over: Vec<(Port, Port)>,
}

impl Prepared {
    pub(in crate::worker) fn of(changes: ports::Changes) -> Prepared {
        let ports::Changes { open, close, hand_over } = changes;
        Prepared { open, opened: Vec::new(), close, hand_over }
    }
}

/// A build that is to be rolled back.
#[derive(Debug, Clone)]
pub(in crate::worker) struct Failed {
    pub id: LibraryId,
    pub build: Build,
    /// What it did on probation.
    pub record: ProbationCounts,
    pub why: String,
}

/// What ports are opened for.
#[derive(Debug)]
pub(in crate::worker) enum Opening {
    /// A reload of these libraries.
    Reload(Vec<LibraryId>),
    /// The build before is to take over again.
    RollBack(Failed),
    /// A build took over again when this process began.
    TakenOver,
}

impl Worker {
    /// The library that serves a service, or is called or filed so.
    fn library_for(&self, name: &str) -> Result<LibraryId, String> {
        let service = self.core.services().iter().find(|s| s.offer.name == name);
        let owner = service.and_then(|s| Some(s.build.as_ref()?.library.as_str())).unwrap_or(name);
        let owns = |l: &Library| {
            l.current.as_ref().is_some_and(|b| b.library == owner)
                || l.path.ends_with(format!("lib{name}.so"))
        };
        let found = self.core.reloads.libraries().iter().position(owns).map(LibraryId);
        found.ok_or_else(|| {
            let known: Vec<_> = self.core.services().iter().map(|s| s.offer.name.as_str()).collect();
            format!("no service or library is called {name:?}; there are: {}", known.join(", "))
        })
    }

    pub(in crate::worker) fn ask_reload(&mut self, wish: ReloadRequest, reply: Sender<Answer>) {
        let ReloadRequest { target, from, together, dry_run, by } = wish;
        let ids = match target.map(|name| self.library_for(&name)) {
            None => (0..self.core.reloads.libraries().len()).map(LibraryId).collect(),
            Some(Ok(id)) => vec![id],
            Some(Err(text)) => {
                let _ = reply.send(Answer::Error(text));
                return;
            }
        };
        let _ = reply.send(Answer::Reloading(ids.len()));
        let want = if dry_run { Want::DryRun } else { Want::Load };
        let requests = ids.into_iter().map(|id| (id, from.clone(), want)).collect();
        self.request(requests, by, together && !dry_run, Some(reply));
    }

    pub(in crate::worker) fn ask_roll_back(
        &mut self,
        name: &str,
        to: Option<u64>,
        by: By,
        reply: Sender<Answer>,
    ) {
        if self.proposed.is_some() {
            return self.behind.push(Behind::RollBack(name.to_owned(), to, by, reply));
        }
        let found = self.library_for(name).and_then(|id| {
            let record = self.records.get(&id.0).ok_or_else(|| format!("{name} runs no build"))?;
            let wanted = match to {
                Some(n) => record.earlier.iter().chain([&record.current]).find(|b| b.generation == n),
                None => record.before(),
            };
            let wanted = wanted.ok_or_else(|| {
                let kept: Vec<_> = record.earlier.iter().map(|b| b.generation.to_string()).collect();
                let kept = if kept.is_empty() { "none".to_owned() } else { kept.join(", ") };
                let which = to.map_or("an earlier one".to_owned(), |n| format!("generation {n}"));
                format!(
                    "{which} of {} is not kept; there are: {kept} (limit builds_kept)",
                    record.current.library
                )
            })?;
            Ok((id, wanted.clone()))
        });
        match found {
            Err(text) => {
                let _ = reply.send(Answer::Error(text));
            }
            Ok((id, wanted)) => {
                let _ = reply.send(Answer::Reloading(1));
                if let Some(settings) = &wanted.settings {
                    // With its own settings it is that generation.
                    let config = self.config.with_settings(settings);
                    self.configs.insert(self.requests + 1, Arc::new(config));
                }
                let want = Want::RollBack(wanted.generation);
                self.request(vec![(id, Some(wanted.copy), want)], by, false, Some(reply));
            }
        }
    }

    pub(in crate::worker) fn request(
        &mut self,
        wanted: Vec<(LibraryId, Option<PathBuf>, Want)>,
        by: By,
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
            let together = if together { first } else { self.requests };
            requests.push((id, Request { id: self.requests, by, from, want, together }));
        }
        let configures = |(_, r): &(LibraryId, Request)| r.want == Want::Configure;
        if self.proposed.is_some() && !requests.iter().all(configures) {
            self.behind.push(Behind::Reloads(requests));
        } else {
            self.reload(Event::Requested(requests));
        }
    }

    pub(in crate::worker) fn reload(&mut self, event: Event) {
        match &event {
            Event::Staged(..) => crash_points::pass(Point::Staged),
            Event::Tried(..) => crash_points::pass(Point::Tried),
            Event::Loaded(..) => crash_points::pass(Point::Loaded),
            _ => {}
        }
        for step in self.core.reload(event) {
            match step {
                Step::Stage(id, path) => {
                    // Of this very request, whatever else waits behind it.
                    let own = self.core.reloads.under_way(id).and_then(|r| self.configs.get(&r.id));
                    self.job(match own {
                        Some(config) => Job::Propose(id, config.clone()),
                        None => Job::Withdraw(id),
                    });
                    self.job(Job::Stage(id, path));
                }
                Step::Try(id) => {
                    let snapshot = self.snapshot_for(id).map(Box::new);
                    self.job(Job::Try(id, snapshot));
                }
                Step::Load(all) => {
                    let ids: Vec<_> = all.iter().map(|(id, _)| *id).collect();
                    for id in &ids {
                        self.about_to_load(*id);
                    }
                    let config =
                        all.first().map_or_else(|| self.config.clone(), |(id, _)| self.config_for(*id));
                    match self.port_changes(&all, &config) {
                        Ok(changes) => self.prepare_ports(ids, changes),
                        Err(why) => self.not_loaded(&ids, &why),
                    }
                }
                Step::Commit(all) => self.commits.push(all),
                Step::Discard(id) => {
                    if let Some(prepared) = self.prepared.remove(&id) {
                        self.discard_ports(&prepared);
                    }
                    match self.loaded.remove(&id) {
                        Some(loaded) => {
                            self.job(Job::Drop(Box::new(loaded.code), vec![loaded.copy]));
                        }
                        None => self.job(Job::Discard(id)),
                    }
                }
                Step::Report(id, request, report) => self.report(id, &request, *report),
            }
        }
    }

    fn not_loaded(&mut self, ids: &[LibraryId], why: &str) {
        for id in ids {
            self.reload(Event::Loaded(*id, Err(why.to_owned())));
        }
    }

    pub(in crate::worker) fn discard_ports(&mut self, prepared: &Prepared) {
        if !prepared.opened.is_empty() {
            let addrs = prepared.opened.iter().map(|p| p.addr).collect();
            self.link.send(&ToKeeper::Discard(addrs));
        }
    }

    pub(in crate::worker) fn job(&self, job: Job) {
        // Without it every reload would wait for ever, and nobody would know.
        assert!(self.jobs.send(job).is_ok(), "the stager lives as long as the loop");
    }

    /// How far a rehearsal is.
    pub(in crate::worker) fn progress(&self, id: LibraryId, done: u64, total: u64) {
        let request = self.core.reloads.under_way(id);
        let Some(reply) = request.and_then(|r| self.waiting.get(&r.id)) else { return };
        let _ = reply.send(Answer::Progress(self.core.reloads.libraries()[id.0].name(), done, total));
    }

    /// What a candidate is rehearsed with, if a build of its library runs.
    fn snapshot_for(&mut self, id: LibraryId) -> Option<Snapshot> {
        let library = self.core.reloads.libraries()[id.0].current.as_ref()?.library.clone();
        let mine = |s: &&greenroom_core::service::registry::Service| {
            s.build.as_ref().is_some_and(|b| b.library == library) || (s.build.is_none() && s.sessions > 0)
        };
        let services: Vec<_> = self.core.services().iter().filter(mine).collect();
        let sessions: usize = services.iter().map(|s| s.sessions).sum();
        // Of tables that are its own, or nobody's: it may come to own those.
        let owners = self.core.owners();
        let owned_by = |t: &str| owners.get(t).map(|o| &self.core.services()[usize::from(o.service.0)]);
        let tables = self.core.table_names().into_iter().filter(|t| owned_by(t).as_ref().is_none_or(mine));
        let entries = tables.map(|t| (t.clone(), self.core.entries_by_version(&t))).collect();
        let offers = services.iter().map(|s| s.offer.clone()).collect();
        let records = self.saver.records().ok()?;
        let back = self.core.reloads.under_way(id).is_some_and(|r| matches!(r.want, Want::RollBack(_)));
        let newer = self.records.get(&id.0).filter(|_| back).map(|r| &r.current);
        let limits = self.config_for(id).all_limits();
        let live = LiveState {
            epoch: self.core.pin(),
            limits: limits.host,
            service_limits: limits.services,
            offers,
            newer: newer.map(|b| (b.copy.clone(), b.entry.clone())),
            sessions: sessions as u64,
            entries,
        };
        Some(Snapshot { records, live })
    }

    /// Records what is loaded into this process: should that end it, again and again, no successor tries the same for ever.
    fn about_to_load(&mut self, id: LibraryId) {
        let seen = self.core.reloads.libraries()[id.0].seen.clone();
        if let (Some(mut record), Some(hash)) = (self.records.get(&id.0).cloned(), seen)
            && record.seen.as_ref() != Some(&hash)
        {
            let before =
                record.trying.take().filter(|(tried, _)| *tried == hash).map_or(0, |(_, times)| times);
            record.trying = Some((hash, before + 1));
            self.write_record(id, record);
            self.commit();
        }
    }

    /// The ports of libraries that are reloaded together are the first one's.
    fn prepare_ports(&mut self, ids: Vec<LibraryId>, changes: ports::Changes) {
        let prepared = Prepared::of(changes);
        if prepared.open.is_empty() {
            return self.ports_are_open(ids, prepared);
        }
        self.link.send(&ToKeeper::Open(prepared.open.clone()));
        self.opening.push_back((Opening::Reload(ids), prepared));
    }

    fn ports_are_open(&mut self, ids: Vec<LibraryId>, prepared: Prepared) {
        crash_points::pass(Point::PortsOpen);
        if let Some(first) = ids.first() {
            self.prepared.insert(*first, prepared);
        }
        for id in ids {
            self.job(Job::Load(id));
        }
    }

    /// The keeper has opened the ports that it was asked for first, or none of them.
    pub(in crate::worker) fn opened(&mut self, opened: Result<Vec<SocketAddr>, String>) {
        let Some((what, mut prepared)) = self.opening.pop_front() else { return };
        let open = std::mem::take(&mut prepared.open);
        let opened = opened.map(|addrs| {
            let ports = open.into_iter().zip(addrs);
            prepared.opened = ports.map(|(port, addr)| HeldPort { port, addr }).collect();
        });
        match (what, opened) {
            (Opening::Reload(ids), Ok(())) => self.ports_are_open(ids, prepared),
            (Opening::Reload(ids), Err(why)) => self.not_loaded(&ids, &why),
            (Opening::RollBack(failed), opened) => {
                if let Err(why) = opened {
                    tracing::error!(
                        "a port of the build before can't be opened again, and stays closed: {why}"
                    );
                }
                self.roll_back(&failed, prepared);
            }
            (Opening::TakenOver, opened) => {
                if let Err(why) = opened {
                    tracing::error!(
                        "a port of the build before can't be opened again, and stays closed: {why}"
                    );
                }
                if self.change_ports(prepared) {
                    self.core.handle(Input::Commit);
                    self.link.send(&ToKeeper::Ports(self.ports.clone()));
                    self.board.say(&self.services());
                }
            }
        }
    }

    /// The ports of a library that was rolled back when this process began.
    pub(in crate::worker) fn ports_follow(&mut self, library: &str) {
        let Some(id) = self.core.reloads.named(library) else { return };
        let mine = |s: &&greenroom_core::service::registry::Service| {
            s.build.as_ref().is_some_and(|b| b.library == library)
        };
        let offers = self.core.services().iter().filter(mine).map(|s| s.offer.clone()).collect();
        match self.port_changes(&[(id, offers)], &self.config).map(Prepared::of) {
            Ok(prepared) if prepared.open.is_empty() => {
                self.change_ports(prepared);
            }
            Ok(prepared) => {
                self.link.send(&ToKeeper::Open(prepared.open.clone()));
                self.opening.push_back((Opening::TakenOver, prepared));
            }
            Err(why) => tracing::error!("{library}: its ports stay as they are: {why}"),
        }
    }

    /// The ports that libraries' services want, less those that are held.
    pub(in crate::worker) fn port_changes(
        &self,
        all: &[(LibraryId, Vec<Offer>)],
        config: &Config,
    ) -> Result<ports::Changes, String> {
        let held: BTreeSet<_> = self.ports.iter().map(|p| p.port.clone()).collect();
        let libraries = self.core.reloads.libraries();
        let current: Vec<_> =
            all.iter().filter_map(|(id, _)| Some(&libraries[id.0].current.as_ref()?.library)).collect();
        let mine = |name: &str| {
            let service = self.core.services().iter().find(|s| s.offer.name == name);
            service.and_then(|s| s.build.as_ref()).is_some_and(|b| current.contains(&&b.library))
        };
        let mut wanted: BTreeSet<_> = held.iter().filter(|(name, _)| !mine(name)).cloned().collect();
        for offer in all.iter().flat_map(|(_, offers)| offers) {
            for addr in config.addresses(&offer.name, offer.port, offer.dials)? {
                wanted.insert((offer.name.clone(), addr));
            }
        }
        ports::changes(&held, &wanted)
    }

    /// The configuration that holds for a library once its reload is committed.
    fn config_for(&self, id: LibraryId) -> Arc<Config> {
        let proposed = self.proposed.as_ref().filter(|_| self.is_proposal(id));
        proposed.map_or_else(|| self.config.clone(), |p| p.config.clone())
    }

    /// Whether a library is being reloaded for another configuration.
    fn is_proposal(&self, id: LibraryId) -> bool {
        self.core.reloads.under_way(id).is_some_and(|r| r.want == Want::Configure)
    }

    /// Puts prepared builds in charge. What is timed is all that clients could notice.
    pub(in crate::worker) fn commit_reloads(&mut self) {
        for all in std::mem::take(&mut self.commits) {
            let ids: Vec<_> = all.iter().map(|(id, _)| *id).collect();
            let begun = Instant::now();
            let (mut superfluous, mut ports_changed) = (Vec::new(), false);
            let unproved = ids.iter().filter_map(|id| self.unproved(*id)).collect();
            let configures = ids.first().is_some_and(|id| self.is_proposal(*id));
            let line = if configures { self.put_in_force() } else { 0 };
            for (id, build) in all {
                self.builds += 1;
                ports_changed |= self.put_in_charge(id, build, &mut superfluous);
            }
            crash_points::pass(Point::Adopted);
            // Generations, ports and ledger in one epoch: whoever takes over finds all of it or nothing.
            self.core.handle(Input::Commit);
            crash_points::pass(Point::ReloadCommitted);
            if ports_changed {
                self.link.send(&ToKeeper::Ports(self.ports.clone()));
            }
            let pause_us = begun.elapsed().as_nanos() as f64 / 1000.0;
            self.drop_copies(superfluous);
            self.replaced(unproved);
            self.reload(Event::Committed(ids, pause_us));
            if configures {
                self.is_in_force(line, begun);
            }
            // With the pause in the ledger.
            self.core.handle(Input::Commit);
            crash_points::pass(Point::Reported);
            self.board.say(&self.services());
            self.answer_waiting();
        }
        let many = self.builds >= self.config.limits.builds_max;
        if many && self.ready && !self.recycling && !self.core.reloads.is_busy() {
            self.recycling = true;
            let why = format!("it has loaded {} builds (limit builds_max)", self.builds);
            self.link.send(&ToKeeper::Recycle(why));
        }
    }

    /// One library's part of a commit. Whether ports have changed.
    fn put_in_charge(&mut self, id: LibraryId, build: Build, superfluous: &mut Vec<PathBuf>) -> bool {
        let Some(loaded) = self.loaded.remove(&id) else { return false };
        let prepared = self.prepared.remove(&id).unwrap_or_default();
        let want = self.core.reloads.under_way(id).map(|r| r.want);
        let back = matches!(want, Some(Want::RollBack(_)));
        let until_ns = now_ns().saturating_add(self.config.limits.probation_ms.saturating_mul(1_000_000));
        let on_probation = match () {
            () if back => {
                self.core.go_back_to(&build, loaded.code);
                false
            }
            () if self.config.limits.probation_ms == 0 => {
                self.core.adopt(&build, loaded.code);
                false
            }
            () => self.core.adopt_on_probation(&build, loaded.code, until_ns),
        };
        let line = match self.core.reloads.about_to_report(id, self.core.services()) {
            None => 0,
            Some((by, mut report)) => {
                report.probation = on_probation.then(|| ProbationReport {
                    state: ProbationState::UnderWay,
                    record: ProbationCounts::default(),
                });
                report.quarantined = self.quarantined(&report.library);
                self.note_in_ledger(&in_words(by), report)
            }
        };
        self.lines.insert(id, line);
        let Build { library, generation, hash } = build.clone();
        let Loaded { copy, entry, settings, .. } = loaded;
        let settings = Some(settings);
        let current = RunningBuild { library, generation, hash, copy, entry, settings };
        let (path, seen, highest) = {
            let library = &self.core.reloads.libraries()[id.0];
            (library.path.clone(), library.seen.clone(), library.highest.max(generation))
        };
        let record = match self.records.get(&id.0).cloned() {
            None => LibraryRecord {
                path,
                seen,
                trying: None,
                highest,
                current,
                earlier: Vec::new(),
                probation: None,
                converters: Vec::new(),
            },
            Some(mut record) => {
                let before = record.probation.take().map_or_else(|| record.current.clone(), |p| p.before);
                record.probation = on_probation.then_some(OnProbation { before, until_ns, line });
                let newer = record.current.clone();
                record.put_in_charge(current, self.config.limits.builds_kept);
                match self.core.converts(&build.library) {
                    true if back => record.converters.push(newer),
                    true => {}
                    false => record.converters.clear(),
                }
                (record.seen, record.highest) = (seen, highest);
                record
            }
        };
        superfluous.extend(self.write_record(id, record));
        self.change_ports(prepared)
    }

    /// False: they stay as they are.
    pub(in crate::worker) fn change_ports(&mut self, prepared: Prepared) -> bool {
        if prepared.opened.is_empty() && prepared.close.is_empty() && prepared.hand_over.is_empty() {
            return false;
        }
        let mut ports = std::mem::take(&mut self.ports);
        ports.extend(prepared.opened);
        for (old, new) in prepared.hand_over {
            if let Some(held) = ports.iter_mut().find(|p| p.port == old) {
                held.port = new;
            }
        }
        ports.retain(|p| !prepared.close.contains(&p.port));
        self.keep_ports(ports);
        true
    }

    pub(in crate::worker) fn keep_ports(&mut self, ports: Vec<HeldPort>) {
        let json = serde_json::to_vec(&ports).unwrap_or_default();
        if !self.core.keep(Kind::Ports, 0, &json) {
            tracing::error!("no room to record the ports");
        }
        self.ports = ports;
    }

    fn report(&mut self, id: LibraryId, request: &Request, mut report: Report) {
        self.configs.remove(&request.id);
        report.quarantined = self.quarantined(&report.library);
        let by = in_words(request.by);
        match (report.outcome, self.lines.remove(&id)) {
            // Its line is part of the commit; only how long that took wasn't known.
            (Outcome::Committed | Outcome::RolledBack, Some(line)) => {
                report.line = line;
                report.probation = self.ledger_line(line).and_then(|r| r.probation);
                let amended = report.clone();
                self.amend_ledger(line, move |report| *report = amended);
            }
            // It shares the outcome of a reload that is in the ledger.
            (Outcome::Committed, None) => {}
            // Nothing was to be changed.
            (Outcome::Rehearsed, _) => {}
            _ if request.want == Want::DryRun => {}
            _ => report.line = self.note_in_ledger(&by, report.clone()),
        }
        if let Some(record) = self.records.get(&id.0)
            && let Some(probation) = &record.probation
            && matches!(report.outcome, Outcome::Committed | Outcome::Unchanged)
            && record.current.hash == report.build
        {
            // Whoever else has asked for it, there is something to wait for.
            report.probation =
                Some(ProbationReport { state: ProbationState::UnderWay, record: ProbationCounts::default() });
            report.line = probation.line;
        }
        let line = ledger_line(&report);
        match report.outcome {
            Outcome::Refused => tracing::warn!(%by, "{line}"),
            _ => tracing::info!(%by, "{line}"),
        }
        let refused = (request.want == Want::Configure && report.outcome == Outcome::Refused)
            .then(|| format!("{}: {}", report.library, report.reason));
        if let Some(reply) = self.waiting.remove(&request.id) {
            let _ = reply.send(Answer::Report(Box::new(report)));
        }
        if let Some(why) = refused {
            self.proposal_failed(&why);
        }
    }
}

pub(in crate::worker) fn in_words(by: By) -> String {
    match by {
        By::Start => "start".to_owned(),
        By::Watcher => "watcher".to_owned(),
        By::Signal => "SIGHUP".to_owned(),
        By::Operator { uid, pid } => operator(uid, pid),
    }
}
