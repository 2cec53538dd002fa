//! Carries out the steps of a reload that the core asks for: the slow ones by the stager, the commit between two passes.

use super::Worker;
use crate::admin;
use crate::mail::Answer;
use crate::stager::Job;
use greenroom_core::ports;
use greenroom_core::reload::{By, Event, LibraryId, Outcome, Report, Request, Step};
use greenroom_core::service::Offer;
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::mpsc::Sender;
use std::time::Instant;

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
                Step::Try(id) => self.job(Job::Try(id)),
                Step::Load(id, offers) => match self.port_changes(id, &offers) {
                    Ok(changes) => self.job(Job::Load(id, changes)),
                    Err(why) => self.reload(Event::Loaded(id, Err(why))),
                },
                Step::Commit(id, build) => self.commits.push((id, build)),
                Step::Discard(id) => {
                    if let Some(loaded) = self.loaded.remove(&id) {
                        self.job(Job::Drop(loaded.code.into_iter().map(|(_, code)| code).collect()));
                    }
                    self.job(Job::Discard(id));
                }
                Step::Report(requests, report) => self.report(requests, report),
            }
        }
    }

    pub(super) fn job(&self, job: Job) {
        // Without it every reload would wait for ever, and nobody would know.
        assert!(self.jobs.send(job).is_ok(), "the stager lives as long as the loop");
    }

    /// The ports that a library's services want, less those that are held.
    pub(super) fn port_changes(&self, id: LibraryId, offers: &[Offer]) -> Result<ports::Changes, String> {
        let library = &self.core.reloads.libraries()[id.0];
        let held: BTreeSet<_> = self.net.ports().map(|l| l.port.clone()).collect();
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
            let Some(loaded) = self.loaded.remove(&id) else { continue };
            let begun = Instant::now();
            let old = self.core.adopt(&build, loaded.code);
            for (port, socket) in loaded.opened {
                let name = port.0.clone();
                if let Err(e) = self.net.add_listener(self.poll.registry(), port, socket) {
                    tracing::error!(service = %name, "a port that listens can't be polled: {e}");
                }
            }
            for (old, new) in loaded.hand_over {
                self.net.hand_over(&old, new);
            }
            for port in &loaded.close {
                self.net.remove_listener(self.poll.registry(), port);
            }
            let pause_us = begun.elapsed().as_nanos() as f64 / 1000.0;
            self.job(Job::Drop(old));
            self.reload(Event::Committed(id, pause_us));
        }
    }

    pub(super) fn report(&mut self, requests: Vec<Request>, report: Report) {
        let by = requests.first().map_or(By::Watcher, |r| r.by);
        let by = match by {
            By::Start => "start".to_owned(),
            By::Watcher => "watcher".to_owned(),
            By::Operator { uid, pid } => format!("uid {uid} pid {pid}"),
        };
        let line = admin::ledger_line(&report);
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
