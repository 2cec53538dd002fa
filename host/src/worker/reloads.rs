//! Carries out the steps of a reload that the core asks for: the slow ones by the stager, ports by the keeper, the commit between
//! two passes.

use super::Worker;
use crate::admin::wire::ledger_line;
use crate::control::{HeldPort, ToKeeper};
use crate::mail::Answer;
use crate::plugin::trial::Snapshot;
use crate::stager::Job;
use greenroom_core::core::Input;
use greenroom_core::ports::{self, Port};
use greenroom_core::reload::{By, Event, LibraryId, Outcome, Report, Request, Step};
use greenroom_core::service::{Build, Offer, Service};
use greenroom_core::store::Kind;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::mpsc::Sender;
use std::time::Instant;

/// What a successor must know of a library, as it is recorded.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct LibraryRecord {
    /// Where its builds come from.
    pub path: PathBuf,
    /// Hash of what was last seen there.
    pub seen: Option<String>,
    /// What was about to be loaded from there, and how often: the second time a worker didn't survive it, it counts as seen.
    #[serde(default)]
    pub trying: Option<(String, u32)>,
    /// The highest generation that ran.
    pub highest: u64,
    /// What runs.
    pub current: RunningBuild,
    /// What ran before, and runs again if this one kills too often.
    pub previous: Option<RunningBuild>,
}

/// A build, and what it is loaded from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct RunningBuild {
    /// Name of the library.
    pub library: String,
    /// Its generation.
    pub generation: u64,
    /// SHA-256 of the file.
    pub hash: String,
    /// The private copy.
    pub copy: PathBuf,
    /// The entry that its note names.
    pub entry: String,
}

/// Loads that may end a worker before the watcher leaves such a file alone.
const TRIES_MAX: u32 = 2;

impl LibraryRecord {
    /// What the watcher need not look at again.
    pub(super) fn seen(&self) -> Option<String> {
        match &self.trying {
            Some((hash, times)) if *times >= TRIES_MAX => Some(hash.clone()),
            _ => self.seen.clone(),
        }
    }
}

impl RunningBuild {
    pub(super) fn build(&self) -> Build {
        let RunningBuild { library, generation, hash, .. } = self.clone();
        Build { library, generation, hash }
    }
}

/// What a reload does to ports once it is committed.
#[derive(Debug, Default)]
pub(super) struct Prepared {
    /// These listen, and aren't accepted from yet.
    open: Vec<Port>,
    opened: Vec<HeldPort>,
    close: Vec<Port>,
    hand_over: Vec<(Port, Port)>,
}

impl Worker {
    pub(super) fn ask_reload(
        &mut self,
        target: Option<String>,
        from: Option<PathBuf>,
        by: By,
        reply: Sender<Answer>,
    ) {
        let libraries = self.core.reloads.libraries();
        let ids: Vec<_> = match &target {
            None => (0..libraries.len()).map(LibraryId).collect(),
            Some(name) => {
                let service = self.core.services().iter().find(|s| s.offer.name == *name);
                let owner = service.and_then(|s| Some(s.build.as_ref()?.library.as_str())).unwrap_or(name);
                let owns = |l: &greenroom_core::reload::Library| {
                    l.current.as_ref().is_some_and(|b| b.library == owner)
                        || l.path.ends_with(format!("lib{name}.so"))
                };
                libraries.iter().position(owns).map(LibraryId).into_iter().collect()
            }
        };
        if ids.is_empty() {
            let known: Vec<_> = self.core.services().iter().map(|s| s.offer.name.as_str()).collect();
            let wanted = target.unwrap_or_default();
            let text = format!("no service or library is called {wanted:?}; there are: {}", known.join(", "));
            let _ = reply.send(Answer::Error(text));
            return;
        }
        let _ = reply.send(Answer::Reloading(ids.len()));
        for id in ids {
            self.request(id, by, from.clone(), Some(reply.clone()));
        }
    }

    pub(super) fn request(
        &mut self,
        id: LibraryId,
        by: By,
        from: Option<PathBuf>,
        reply: Option<Sender<Answer>>,
    ) {
        self.requests += 1;
        if let Some(reply) = reply {
            self.waiting.insert(self.requests, reply);
        }
        self.reload(Event::Requested(id, Request { id: self.requests, by, from }));
    }

    pub(super) fn reload(&mut self, event: Event) {
        for step in self.core.reload(event) {
            match step {
                Step::Stage(id, path) => self.job(Job::Stage(id, path)),
                Step::Try(id) => {
                    let snapshot = self.snapshot_for(id);
                    self.job(Job::Try(id, snapshot));
                }
                Step::Load(id, offers) => match self.about_to_load(id).port_changes(id, &offers) {
                    Ok(changes) => self.prepare_ports(id, changes),
                    Err(why) => self.reload(Event::Loaded(id, Err(why))),
                },
                Step::Commit(id, build) => self.commits.push((id, build)),
                Step::Discard(id) => {
                    if let Some(prepared) = self.prepared.remove(&id)
                        && !prepared.opened.is_empty()
                    {
                        let addrs = prepared.opened.iter().map(|p| p.addr).collect();
                        self.link.send(&ToKeeper::Discard(addrs));
                    }
                    match self.loaded.remove(&id) {
                        Some(loaded) => {
                            let code = loaded.code.into_iter().map(|(_, code)| code).collect();
                            self.job(Job::Drop(code, Some(loaded.copy)));
                        }
                        None => self.job(Job::Discard(id)),
                    }
                }
                Step::Report(requests, report) => self.report(requests, report),
            }
        }
    }

    pub(super) fn job(&self, job: Job) {
        // Without it every reload would wait for ever, and nobody would know.
        assert!(self.jobs.send(job).is_ok(), "the stager lives as long as the loop");
    }

    /// What a candidate is rehearsed with, if anybody is connected to what it replaces.
    fn snapshot_for(&mut self, id: LibraryId) -> Option<Snapshot> {
        let library = self.core.reloads.libraries()[id.0].current.as_ref()?.library.clone();
        let mine = |s: &Service| s.sessions > 0 && s.build.as_ref().is_some_and(|b| b.library == library);
        if !self.core.services().iter().any(mine) {
            return None;
        }
        let records = self.saver.records().ok()?;
        Some(Snapshot { records, epoch: self.core.pin(), limits: self.config.limits.clone() })
    }

    /// Records what is loaded into this process: should that end it, again and again, no successor tries the same for ever.
    fn about_to_load(&mut self, id: LibraryId) -> &mut Worker {
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
        self
    }

    fn prepare_ports(&mut self, id: LibraryId, changes: ports::Changes) {
        let ports::Changes { open, close, hand_over } = changes;
        let prepared = Prepared { open, opened: Vec::new(), close, hand_over };
        if prepared.open.is_empty() {
            self.prepared.insert(id, prepared);
            return self.job(Job::Load(id));
        }
        self.link.send(&ToKeeper::Open(prepared.open.clone()));
        self.opening.push_back((id, prepared));
    }

    /// The keeper has opened the ports that it was asked for first, or none of them.
    pub(super) fn opened(&mut self, opened: Result<Vec<SocketAddr>, String>) {
        let Some((id, mut prepared)) = self.opening.pop_front() else { return };
        match opened {
            Ok(addrs) => {
                let ports = std::mem::take(&mut prepared.open).into_iter().zip(addrs);
                prepared.opened = ports.map(|(port, addr)| HeldPort { port, addr }).collect();
                self.prepared.insert(id, prepared);
                self.job(Job::Load(id));
            }
            Err(why) => self.reload(Event::Loaded(id, Err(why))),
        }
    }

    /// The ports that a library's services want, less those that are held.
    pub(super) fn port_changes(&self, id: LibraryId, offers: &[Offer]) -> Result<ports::Changes, String> {
        let library = &self.core.reloads.libraries()[id.0];
        let held: BTreeSet<_> = self.ports.iter().map(|p| p.port.clone()).collect();
        let mine = |name: &str| {
            let service = self.core.services().iter().find(|s| s.offer.name == name);
            let owner = service.and_then(|s| s.build.as_ref()).map(|b| &b.library);
            owner.is_some() && owner == library.current.as_ref().map(|b| &b.library)
        };
        let mut wanted: BTreeSet<_> = held.iter().filter(|(name, _)| !mine(name)).cloned().collect();
        for offer in offers {
            for addr in self.config.addresses(&offer.name, offer.port)? {
                wanted.insert((offer.name.clone(), addr));
            }
        }
        ports::changes(&held, &wanted)
    }

    /// Puts prepared builds in charge. What is timed is all that clients could notice.
    pub(super) fn commit_reloads(&mut self) {
        for (id, build) in std::mem::take(&mut self.commits) {
            let (Some(loaded), Some(prepared)) = (self.loaded.remove(&id), self.prepared.remove(&id)) else {
                continue;
            };
            let begun = Instant::now();
            let old = self.core.adopt(&build, loaded.code);
            let Build { library, generation, hash } = build;
            let current = RunningBuild { library, generation, hash, copy: loaded.copy, entry: loaded.entry };
            let superfluous = self.record(id, current);
            let ports_changed = self.change_ports(prepared);
            // Generation and ports in one epoch: whoever takes over finds both or neither.
            self.core.handle(Input::Commit);
            if ports_changed {
                self.link.send(&ToKeeper::Ports(self.ports.clone()));
            }
            let pause_us = begun.elapsed().as_nanos() as f64 / 1000.0;
            self.job(Job::Drop(old, superfluous));
            self.builds += 1;
            self.reload(Event::Committed(id, pause_us));
            // With its line in the ledger.
            self.core.handle(Input::Commit);
            self.board.say(&self.services());
        }
        let many = self.builds >= self.config.limits.builds_max;
        if many && self.ready && !self.recycling && !self.core.reloads.is_busy() {
            self.recycling = true;
            let why = format!("it has loaded {} builds (limit builds_max)", self.builds);
            self.link.send(&ToKeeper::Recycle(why));
        }
    }

    /// Records what a library runs from now on. The copy that nobody will load again.
    pub(super) fn record(&mut self, id: LibraryId, current: RunningBuild) -> Option<PathBuf> {
        let library = &self.core.reloads.libraries()[id.0];
        let highest = library.highest.max(current.generation);
        let old = self.records.remove(&id.0);
        let (previous, superfluous) = match old {
            Some(old) => (Some(old.current), old.previous.map(|p| p.copy)),
            None => (None, None),
        };
        let seen = library.seen.clone();
        let record =
            LibraryRecord { path: library.path.clone(), seen, trying: None, highest, current, previous };
        self.write_record(id, record);
        superfluous
    }

    pub(super) fn write_record(&mut self, id: LibraryId, record: LibraryRecord) {
        let json = serde_json::to_vec(&record).unwrap_or_default();
        if !self.core.keep(Kind::Library, key_of(&record.path), &json) {
            tracing::error!(
                "no room to record generation {} of {}",
                record.current.generation,
                record.current.library
            );
        }
        self.records.insert(id.0, record);
    }

    /// False: they stay as they are.
    fn change_ports(&mut self, prepared: Prepared) -> bool {
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

    pub(super) fn keep_ports(&mut self, ports: Vec<HeldPort>) {
        let json = serde_json::to_vec(&ports).unwrap_or_default();
        if !self.core.keep(Kind::Ports, 0, &json) {
            tracing::error!("no room to record the ports");
        }
        self.ports = ports;
    }

    pub(super) fn report(&mut self, requests: Vec<Request>, report: Report) {
        let by = requests.first().map_or(By::Watcher, |r| r.by);
        let by = match by {
            By::Start => "start".to_owned(),
            By::Watcher => "watcher".to_owned(),
            By::Operator { uid, pid } => format!("uid {uid} pid {pid}"),
        };
        self.note_in_ledger(&by, &report);
        let line = ledger_line(&report);
        match report.outcome {
            Outcome::Refused => tracing::warn!(%by, "{line}"),
            _ => tracing::info!(%by, "{line}"),
        }
        for request in requests {
            if let Some(reply) = self.waiting.remove(&request.id) {
                let _ = reply.send(Answer::Report(Box::new(report.clone())));
            }
        }
    }
}

/// What a library's record is kept under: its path, whatever number it has in this process.
fn key_of(path: &std::path::Path) -> u64 {
    let digest = Sha256::digest(path.as_os_str().as_encoded_bytes());
    u64::from_le_bytes(std::array::from_fn(|i| digest[i]))
}
