//! What the loop is told, by the keeper and by other threads, and what they ask.

use crate::admin::answer;
use crate::admin::query::{Answer, Ask, Mailbox, Message, Proposal, Query, TableEntries};
use crate::plugin::prepare::{Done, Job};
use crate::protocol::admin::ServiceStatus;
use crate::protocol::keeper::{HeldPort, Received, ToKeeper, ToWorker, from_file};
use crate::worker::restore::PutBack;
use crate::worker::{HAND_OVER_MAX, Worker, unix_ms};
use greenroom_core::ids::ServiceId;
use greenroom_core::input::Input;
use greenroom_core::reload::request::{By, Event, LibraryId, Want};
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

impl Worker {
    pub(super) fn hear_keeper(&mut self) -> io::Result<()> {
        self.link.flush();
        loop {
            match self.link.receive()? {
                Received::Message(message, fds) => self.told(message, fds),
                Received::Unknown(what) => {
                    tracing::warn!("the keeper is of a later version: {what}; that is left out");
                }
                Received::Nothing => return Ok(()),
                Received::Closed => return Err(io::Error::other("the keeper is gone")),
            }
        }
    }

    pub(super) fn told(&mut self, message: ToWorker, fds: Vec<OwnedFd>) {
        match message {
            ToWorker::Connections(connections) => {
                self.link.send(&ToKeeper::Took);
                self.connections(&connections, fds);
            }
            ToWorker::Opened(opened) => self.opened(opened),
            ToWorker::Dialed(dialed) => self.dialed.extend(dialed),
            ToWorker::ConnectFailed(number, why) => {
                self.core.handle(Input::ConnectFailed { number, why: &why });
            }
            ToWorker::Caller(command, by) => {
                // Without a descriptor to spare there is nobody to answer.
                if let Some(fd) = fds.into_iter().next() {
                    answer::answer(UnixStream::from(fd), command, by, self.mailbox());
                }
            }
            ToWorker::Changed(path) => self.changed(path),
            ToWorker::Configure(number, by) => self.configure(number, by, fds),
            ToWorker::Stop(signal) => self.stop(signal),
            // A host that stops needs no successor.
            ToWorker::HandOver if self.stop_at.is_some() => {}
            ToWorker::HandOver => {
                self.hand_over_by = Some(Instant::now() + HAND_OVER_MAX);
                self.core.hold_jobs();
            }
            ToWorker::Pin => {
                // Between two passes, so far as the store is concerned: nothing that this pass changed counts yet.
                let epoch = self.core.pin();
                self.link.send(&ToKeeper::Pinned(epoch));
            }
            ToWorker::Unpin(epoch) => {
                let held = self.core.unpin(epoch);
                self.link.send(&ToKeeper::Unpinned(held));
            }
            ToWorker::Hello | ToWorker::Start => {
                tracing::error!("the keeper said what it says at the start")
            }
        }
    }

    fn configure(&mut self, number: u64, by: By, fds: Vec<OwnedFd>) {
        let mut fds = fds.into_iter();
        let config = match fds.next().map(from_file) {
            Some(Ok(config)) => Ok(config),
            Some(Err(e)) => Err(e.to_string()),
            None => Err("no descriptor to spare".to_owned()),
        };
        let config = match config {
            Ok(config) => config,
            Err(why) => {
                tracing::error!("the configuration can't be read: {why}");
                return self.not_configured(number);
            }
        };
        let proposal = Proposal { number, config, by };
        match fds.next().map(UnixStream::from) {
            Some(stream) => {
                if !answer::configure(stream, proposal, self.mailbox()) {
                    self.not_configured(number);
                }
            }
            None => self.propose(proposal, None),
        }
    }

    /// Takes connections in. Those that a predecessor served and closed are only let go of.
    fn connections(&mut self, connections: &[(u32, u64)], fds: Vec<OwnedFd>) {
        if fds.len() < connections.len() {
            let lost = connections.len() - fds.len();
            tracing::warn!("{lost} connections closed: this process may have no more descriptors");
            self.drops.extend(&connections[fds.len()..]);
        }
        for (&(key, number), fd) in connections.iter().zip(fds) {
            if self.core.sessions().slot_of(number).is_some() {
                // Handed over twice.
                continue;
            }
            if number <= self.core.served() || !self.open(key, number, fd) {
                self.dialed.remove(&number);
                self.drops.push((key, number));
            }
        }
    }

    /// False: it is gone already, or nobody serves it.
    pub(super) fn open(&mut self, key: u32, number: u64, fd: OwnedFd) -> bool {
        let socket = std::net::TcpStream::from(fd);
        let (Ok(peer), Ok(local)) = (socket.peer_addr(), socket.local_addr()) else { return false };
        let dialed = self.dialed.remove(&number);
        let service = self.service_at(local);
        if dialed.is_none() && service.is_none() {
            return false;
        }
        match self.net.add(self.poll.registry(), mio::net::TcpStream::from_std(socket), key) {
            Ok(slot) => {
                let at_ms = unix_ms();
                match (dialed, service) {
                    (Some(asked), _) => {
                        self.core.handle(Input::Connected { number: asked, slot, id: number, peer, at_ms });
                    }
                    (None, Some(service)) => {
                        self.core.handle(Input::Opened { slot, id: number, service, peer, at_ms });
                    }
                    (None, None) => {}
                }
                true
            }
            Err(e) => {
                tracing::warn!(%peer, "a connection can't be taken in: {e}");
                false
            }
        }
    }

    /// The service that a connection to this address came to.
    fn service_at(&self, local: SocketAddr) -> Option<ServiceId> {
        let exactly = self.ports.iter().find(|p| p.addr == local);
        let any = |p: &&HeldPort| {
            p.addr.ip().is_unspecified()
                && p.addr.port() == local.port()
                && p.addr.is_ipv4() == local.is_ipv4()
        };
        let port = exactly.or_else(|| self.ports.iter().find(any))?;
        self.core.service_named(&port.port.0)
    }

    pub(super) fn message(&mut self, message: Message) {
        match message {
            Message::Stager(Done::Step(event)) => self.reload(event),
            Message::Stager(Done::Tried(id, epoch, result)) => {
                let whole = epoch.is_none_or(|epoch| self.core.unpin(epoch));
                let result = match whole {
                    true => result,
                    false => {
                        Err("too much changed while it was rehearsed (limit pin_bytes_max); try again".into())
                    }
                };
                self.reload(Event::Tried(id, result));
            }
            Message::Stager(Done::Loaded(id, result)) => {
                let result = result.map(|loaded| {
                    self.loaded.insert(id, loaded);
                });
                self.reload(Event::Loaded(id, result));
            }
            Message::Stager(Done::Progress(id, done, total)) => self.progress(id, done, total),
            Message::Stager(Done::Discovered(path)) => {
                let id = self.core.reloads.library(path);
                self.request(vec![(id, None, Want::Load)], By::Watcher, false, None);
            }
            Message::Saved(epoch, written) => self.saved(epoch, written),
            Message::Job(number, result) => {
                self.jobs_running.ended(number);
                let result = result.as_deref().map_err(String::as_str);
                self.core.handle(Input::JobDone { number, result });
            }
            Message::Ask(ask) => self.answer(ask),
        }
    }

    /// Where other threads post.
    pub(super) fn mailbox(&self) -> Mailbox {
        self.mailbox.clone()
    }

    fn changed(&mut self, path: PathBuf) {
        if self.hand_over_by.is_some() {
            // The successor looks at all files when it starts.
            return;
        }
        let known = self.core.reloads.libraries().iter().position(|l| l.path == path);
        match known {
            // A removed file is about to be replaced, or it isn't: either way the code that runs stays.
            Some(at) if path.exists() => {
                self.request(vec![(LibraryId(at), None, Want::Load)], By::Watcher, false, None);
            }
            None if path.extension().is_some_and(|e| e == "so")
                && path.parent().is_some_and(|dir| self.discover.iter().any(|d| d == dir)) =>
            {
                let _ = self.jobs.send(Job::Probe(path));
            }
            _ => {}
        }
    }

    fn stop(&mut self, signal: i32) {
        if self.stop_at.is_some() {
            tracing::warn!("second signal: stopping at once");
            self.stop_at = Some(Instant::now());
            return;
        }
        tracing::info!(signal, sessions = self.core.sessions().len(), "stopping: flushing output");
        self.hand_over_by = None;
        self.ports.clear();
        self.link.send(&ToKeeper::Ports(Vec::new()));
        self.stop_at = Some(Instant::now() + Duration::from_millis(self.config.limits.stop_ms));
        self.core.handle(Input::Stop);
    }

    fn answer(&mut self, ask: Ask) {
        let answer = match ask.query {
            Query::Services => Answer::Services(self.services().into_iter().flatten().collect()),
            Query::Sessions(after, filter) => Answer::Sessions(self.core.sessions_after(after, &filter)),
            Query::OwnOf(name, after) => {
                let service = self.core.service_named(&name);
                let own = service.map(|s| self.core.of_service(s, after.as_deref()));
                Answer::Own(own.unwrap_or_default())
            }
            Query::Tables => Answer::Tables(self.core.table_names()),
            Query::Owned => Answer::Owned(self.owned_tables()),
            Query::Entries(table, from) => {
                let (entries, next) = self.core.entries_from(&table, &from);
                let versions = entries.iter().map(|(key, _)| self.core.other_version(&table, key)).collect();
                Answer::Entries(TableEntries { entries, versions, next })
            }
            Query::Ledger(line) => Answer::Ledger(self.ledger_from(line)),
            Query::Release(id) => self.core.release(id).map_or_else(Answer::Error, |()| Answer::Done),
            Query::Close(id) => self.core.close(id).map_or_else(Answer::Error, |()| Answer::Done),
            Query::Configure(proposal) => return self.propose(proposal, Some(ask.reply)),
            Query::Reload(wish) => return self.ask_reload(wish, ask.reply),
            Query::RollBack(name, to, by) => return self.ask_roll_back(&name, to, by, ask.reply),
            Query::Await(line) => return self.await_line(line, ask.reply),
            Query::CheckStates(states) => self.check_states(&states),
            Query::CheckEntries(table, entries) => self.check_entries(&table, &entries),
            Query::Schema(of) => Answer::Schema(self.schema(&of).cloned().map(Box::new)),
            Query::Survey(plan, survey) => self.survey(&plan, survey),
            Query::Restore(wanted) => return self.put_back.push(PutBack::Restore(wanted, ask.reply)),
            Query::Set(wanted) => return self.put_back.push(PutBack::Set(wanted, ask.reply)),
        };
        // Who doesn't wait for the answer any more doesn't miss it.
        let _ = ask.reply.send(answer);
    }

    /// What is said of each service, by its number; `None`: withdrawn.
    pub(super) fn services(&self) -> Vec<Option<ServiceStatus>> {
        let said = self.core.services().iter().map(|s| {
            let build = s.build.as_ref()?;
            let name = &s.offer.name;
            let mine = self.ports.iter().filter(|p| p.port.0 == *name);
            Some(ServiceStatus {
                name: name.clone(),
                library: build.library.clone(),
                generation: build.generation,
                build: build.hash.clone(),
                state_version: s.offer.shape.version,
                listen: mine.map(|p| format!("tcp://{}", p.addr)).collect(),
                sessions: s.sessions,
                turns: s.turns,
                faults: s.faults,
            })
        });
        said.collect()
    }
}
