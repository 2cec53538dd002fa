//! A worker's life as the keeper sees it: started, given what is there, missed when it dies, and what follows from how it died.

use crate::keeper::spawn;
use crate::keeper::{ENDED, HOT_MAX, Keeper, LINK, Phase, REST_MAX, REST_MIN, SOON};
use crate::memory::board::{self, Reading};
use crate::protocol::keeper::{Hello, ToKeeper, ToWorker};
use crate::protocol::link::{Link, Received, to_file};
use greenroom_core::ids::told;
use greenroom_core::recovery::crashes::{Death, action_name};
use mio::Interest;
use mio::unix::SourceFd;
use rustix::process::{Pid, Signal, kill_process};
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::time::{Duration, Instant};

impl Keeper {
    /// Starts a worker if there is none and it is time.
    pub(super) fn keep_a_worker(&mut self) {
        let Phase::Parked { until, .. } = self.phase else { return };
        if self.over || self.link.is_some() || Instant::now() < until {
            return;
        }
        if self.stop_by.is_some_and(|by| !self.was_ready || by <= Instant::now()) {
            self.over = true;
            return;
        }
        if let Err(e) = self.start_worker() {
            self.unlink();
            if let Some(mut child) = self.child.take() {
                let _ = child.kill();
                let _ = child.wait();
            }
            self.ended = None;
            self.cannot_start(format!("a worker process can't be started: {e}"));
        }
    }

    pub(super) fn start_worker(&mut self) -> io::Result<()> {
        let now = Instant::now();
        let fd = match (&self.binary, self.options.in_process.take()) {
            (Some(binary), _) => {
                let started = spawn::start(binary)?;
                let ended = started.ended.as_raw_fd();
                self.poll.registry().register(&mut SourceFd(&ended), ENDED, Interest::READABLE)?;
                (self.child, self.ended) = (Some(started.child), Some(started.ended));
                started.link
            }
            (None, Some(link)) => link,
            (None, None) => {
                self.over = true;
                return Ok(());
            }
        };
        // What ran in a dead worker isn't this one's doing.
        board::forget(&self.board)?;
        let hello = to_file(&self.hello(None))?;
        let link = self.link.insert(Link::new(fd));
        self.poll.registry().register(
            &mut SourceFd(&link.fd().as_raw_fd()),
            LINK,
            Interest::READABLE | Interest::WRITABLE,
        )?;
        let files = [self.region.as_fd(), self.input.as_fd(), self.board.as_fd(), hello.as_fd()];
        spawn::greet(link, &files)?;
        self.incarnation += 1;
        self.in_flight = 0;
        self.stop_told = false;
        self.held.hand_over_again();
        self.phase = Phase::Starting { since: now, told: false };
        Ok(())
    }

    /// What a worker begins with; `trial`: one that only tries out whether it could.
    pub(super) fn hello(&self, trial: Option<u64>) -> Hello {
        Hello {
            host_pid: std::process::id(),
            incarnation: self.incarnation,
            config: self.options.config.clone(),
            found: self.options.found.clone(),
            copies: self.options.copies.clone(),
            save: self.options.save.clone(),
            log: self.options.log.clone(),
            withheld: self.crashes.withheld(),
            give_way: self.crashes.give_way(&self.options.config.limits, self.now_ms()),
            killed: self.crashes.killed(&self.options.config.limits, self.now_ms()),
            crashed: self.crashed,
            ports: self.ports.clone(),
            trial,
            hears_refusals: true,
        }
    }

    pub(super) fn now_ms(&self) -> u64 {
        self.started.elapsed().as_millis() as u64
    }

    pub(super) fn unlink(&mut self) {
        if let Some(link) = self.link.take() {
            let _ = self.poll.registry().deregister(&mut SourceFd(&link.fd().as_raw_fd()));
        }
    }

    /// Has the worker end in an orderly way, for another one to go on.
    pub(super) fn hand_over(&mut self) {
        if self.stop_by.is_some() {
            return;
        }
        if let (Phase::Serving { .. }, Some(link), Some(_)) = (&self.phase, &mut self.link, &self.child) {
            link.send(&ToWorker::HandOver);
            self.phase = Phase::HandingOver { since: Instant::now() };
        }
    }

    pub(super) fn worker_pid(&self) -> u32 {
        match (&self.child, &self.binary) {
            (Some(child), _) => child.id(),
            (None, Some(_)) => 0,
            (None, None) => std::process::id(),
        }
    }

    pub(super) fn kill_worker(&mut self) {
        if let Some(child) = &self.child {
            let _ = kill_process(Pid::from_child(child), Signal::KILL);
        }
    }

    /// What a worker said just before it ended.
    fn hear_last_words(&mut self) {
        loop {
            match self.link.as_mut().map(Link::receive) {
                Some(Ok(Received::Message(message @ (ToKeeper::CantStart(_) | ToKeeper::Drop(_)), _))) => {
                    self.heard(message, &|_| {});
                }
                Some(Ok(Received::Message(..) | Received::Unknown(_))) => {}
                _ => return,
            }
        }
    }

    /// Takes note of a worker's end.
    pub(super) fn reap(&mut self) {
        let Some(child) = &mut self.child else { return };
        let status = match child.try_wait() {
            Ok(Some(status)) => status,
            Ok(None) => return,
            Err(e) => return tracing::error!("the worker can't be waited for: {e}"),
        };
        let pid = child.id();
        let now = Instant::now();
        self.hear_last_words();
        self.child = None;
        if let Some(ended) = self.ended.take() {
            let _ = self.poll.registry().deregister(&mut SourceFd(&ended.as_raw_fd()));
        }
        self.unlink();
        self.in_flight = 0;
        let reading = Reading::of(&self.board);
        if let Some(services) = reading.services() {
            self.said = services;
        }
        let phase = std::mem::replace(&mut self.phase, Phase::Parked { until: now, reason: String::new() });
        if self.stop_by.is_some() && status.success() && self.stop_told {
            self.fatal = None;
            self.over = true;
            return;
        }
        if self.fatal.is_some() && self.stop_by.is_none() {
            // It never served, and another one would fare no better.
            self.over = true;
            return;
        }
        self.died_at.get_or_insert(now);
        if matches!(phase, Phase::HandingOver { .. }) && status.success() {
            return;
        }
        if let Some(reason) = self.said_why.take() {
            self.last_death = Some(reason.clone());
            return self.cannot_start(reason);
        }
        let (how, own) = crate::exit_status::how(status);
        let how = match reading.stalled_ms() {
            Some(ms) => format!("stalled for {ms} ms (limit stall_kill_ms)"),
            None => how,
        };
        let own = own || reading.stalled_ms().is_some();
        self.crashed |= own;
        self.last_death = Some(how.clone());
        match reading.running().filter(|_| own) {
            Some(r) => {
                self.fail_upgrade("the worker died meanwhile");
                let service = self.said.get(usize::from(r.service)).and_then(Option::as_ref);
                let (name, library) = service.map_or(("?", "?"), |s| (&s.name, &s.library));
                tracing::error!(
                    worker_pid = pid, service = %name, generation = r.generation, session = told(r.session),
                    action = action_name(r.action), turn = r.turn + 1,
                    "the worker died in a turn: {how}"
                );
                self.last_death = Some(format!(
                    "{how}, in service {name}, generation {}, session {}, action {}",
                    r.generation,
                    told(r.session),
                    action_name(r.action)
                ));
                self.crashes.note(Death {
                    at_ms: self.now_ms(),
                    library: library.to_owned(),
                    generation: r.generation,
                    session: r.session,
                    turn: r.turn,
                    action: r.action,
                    how,
                });
            }
            None => {
                tracing::error!(worker_pid = pid, "the worker died: {how}");
                if !self.is_swapping() {
                    self.fail_upgrade("the worker died meanwhile");
                }
            }
        }
        if let Some(by) = self.stop_by {
            // Another one flushes and saves, while there is time.
            let why = self.last_death.clone().unwrap_or_default();
            tracing::error!("the worker died before all was flushed and saved: {why}");
            self.fatal = Some(format!("the worker was ended before its sessions were flushed: {why}"));
            self.over = by <= now || !self.was_ready;
            return;
        }
        let served = match phase {
            Phase::Serving { since } | Phase::HandingOver { since } => since.elapsed(),
            _ => Duration::ZERO,
        };
        if served >= SOON {
            (self.soon, self.hot) = (0, 0);
        }
        // A turn that kills does so twice at most, so it needs no rest, unless there are many of them.
        let in_a_turn = own && reading.running().is_some();
        self.hot += u32::from(in_a_turn);
        let soon = served < SOON && own;
        self.soon += u32::from(soon);
        if (soon || matches!(phase, Phase::Starting { .. })) && (!in_a_turn || self.hot > HOT_MAX) {
            let reason = self.last_death.clone().unwrap_or_default();
            self.cannot_start(reason);
        }
    }

    /// Parks everything for a while that grows with each failure.
    pub(super) fn cannot_start(&mut self, reason: String) {
        if !self.was_ready && self.binary.is_some() && self.failures >= 3 {
            self.fatal = Some(format!("no worker could be started: {reason}"));
            self.over = true;
            return;
        }
        if self.stop_by.is_some() {
            self.fatal = Some(format!("stopped, and nothing was flushed or saved: {reason}"));
            self.over = true;
            return;
        }
        if self.fall_back(&reason) {
            return;
        }
        // The first time may have been bad luck.
        let rest = match self.failures.max(self.soon.saturating_sub(1)) {
            0 => Duration::ZERO,
            n => REST_MAX.min(REST_MIN * 2u32.saturating_pow(n.min(16))),
        };
        self.failures += 1;
        tracing::error!(
            connections = self.held.len(),
            "no worker serves; all is kept, and one is tried again in {rest:?}: {reason}"
        );
        self.phase = Phase::Parked { until: Instant::now() + rest, reason };
    }
}
