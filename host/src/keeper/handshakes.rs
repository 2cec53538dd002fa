//! Handshakes of TLS: the process that does them, and connections that wait for it.
//!
//! | a connection | event | becomes |
//! | --- | --- | --- |
//! | accepted at an endpoint over TLS | | waits: it has a number of its own |
//! | connected for a worker that wants TLS | | waits |
//! | of a session that starts TLS | the worker asks | waits |
//! | waits | the handshaker takes its descriptor | under way |
//! | under way | done | a connection like any other, with the number of its handshake |
//! | under way | failed, too late, or the handshaker has ended | closed; whoever asked is told |
//!
//! The keeper never sees a secret: those go from the handshaker to the worker by a socket pair.
//! The keeper makes one for each pair of the two processes. It hands a connection over with
//! the number of its handshake, by which the worker finds the secrets.
//!
//! Without certificates or a wish for TLS there is no handshaker. One that has ended is started
//! again, after [`RESTART`]. Connections wait meanwhile.

use crate::config::tls::TlsSettings;
use crate::keeper::handshake_news::{Purpose, Shaken};
use crate::keeper::handshake_pace::Pace;
use crate::keeper::handshaker_process::{self, HandshakerLink};
use crate::keeper::spawn::Process;
use crate::keeper::tokens::HANDSHAKER;
use crate::protocol::handshaker::{FromHandshaker, ToHandshaker};
use crate::protocol::keeper::{EndpointId, HandshakeWanted};
use crate::protocol::link::{Received, pair};
use mio::unix::SourceFd;
use mio::{Interest, Registry};
use rustix::process::Pid;
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

/// Time between the end of a handshaker and the next start; and between two socket pairs, while the
/// worker has no descriptor to spare for its end.
const RESTART: Duration = Duration::from_millis(200);
/// Connections that wait for the handshaker's socket to take them. With more, accepting waits.
const WAITING_MAX: usize = 256;

/// A connection whose handshake is not done.
struct Shaking {
    fd: OwnedFd,
    purpose: Purpose,
    wanted: HandshakeWanted,
    /// Time by which the process must have been given it.
    until: Instant,
}

/// A handshaker that runs.
struct Running {
    process: Process,
    link: HandshakerLink,
    /// Lowest number of a handshake that may be its own.
    first: u64,
}

/// Handshakes, and their process.
#[derive(Default)]
pub(super) struct HandshakesUnderWay {
    settings: TlsSettings,
    pace: Pace,
    running: Option<Running>,
    /// Time of the next start; `None`: none is due.
    start_at: Option<Instant>,
    /// Time when the process should have told an outcome.
    stuck_at: Option<Instant>,
    /// Connections by number of their handshake.
    shaking: BTreeMap<u64, Shaking>,
    /// Handshakes by what they are for, but for accepted connections.
    asked: BTreeMap<Purpose, u64>,
    /// Numbers of those that the process was not given yet.
    waiting: VecDeque<u64>,
    /// Highest number so far.
    last: u64,
    /// Handshakes by number of the connection, as long as the connection lives.
    done: BTreeMap<u64, u64>,
    /// Worker that has a socket to the present process, by its incarnation.
    joined: Option<u64>,
    /// Time before which there is no other socket pair; `None`: at once.
    join_at: Option<Instant>,
}

impl HandshakesUnderWay {
    /// Follows another configuration.
    pub(super) fn configure(&mut self, settings: TlsSettings) {
        if self.settings == settings {
            return;
        }
        self.settings = settings;
        self.pace.follow(self.settings.handshakes_per_s);
        match &mut self.running {
            Some(running) => running.link.send(&ToHandshaker::Configure(self.settings.clone())),
            // Handshakes of clients may wait for the process, too.
            None if self.settings.services.is_empty() && self.waiting.is_empty() => self.start_at = None,
            None => self.start_at = Some(Instant::now()),
        }
    }

    /// Starts the process for the first time, and waits until it has read the files. Fails with the
    /// reasons of all services whose files cannot be used.
    pub(super) fn start_at_first(&mut self, registry: &Registry) -> Result<(), String> {
        if self.settings.services.is_empty() {
            return Ok(());
        }
        let failed = |e: io::Error| format!("the handshaker can't be started: {e}");
        self.start(registry).map_err(failed)?;
        let Some(running) = &mut self.running else { return Ok(()) };
        loop {
            match running.link.wait().map_err(failed)? {
                Some((FromHandshaker::Configured(failing), _)) if failing.is_empty() => return Ok(()),
                Some((FromHandshaker::Configured(failing), _)) => return Err(failing.join("; ")),
                Some(_) => {}
                None => return Err("the handshaker has ended at its start".into()),
            }
        }
    }

    /// Starts the process, and tells it its settings.
    fn start(&mut self, registry: &Registry) -> io::Result<()> {
        self.start_at = None;
        let (process, link) = handshaker_process::start(&self.settings)?;
        let both = Interest::READABLE | Interest::WRITABLE;
        registry.register(&mut SourceFd(&link.fd().as_raw_fd()), HANDSHAKER, both)?;
        self.running = Some(Running { process, link, first: self.last + 1 });
        self.joined = None;
        // Those that wait are the new process's own.
        if let Some(first) = self.waiting.front() {
            self.running.as_mut().expect("it was just started").first = *first;
        }
        Ok(())
    }

    /// Takes a connection that was accepted at an endpoint over TLS.
    pub(super) fn begin(&mut self, fd: OwnedFd, endpoint: EndpointId, service: String) {
        let wanted = HandshakeWanted { service, server_name: None, input: Vec::new(), is_awaited: false };
        self.begin_for(Purpose::Accepted(endpoint), fd, wanted);
    }

    /// Takes a connection that somebody waits for, unless its handshake is under way.
    pub(super) fn begin_for(&mut self, purpose: Purpose, fd: OwnedFd, wanted: HandshakeWanted) {
        if self.asked.contains_key(&purpose) {
            return;
        }
        self.last += 1;
        if !matches!(purpose, Purpose::Accepted(_)) {
            self.asked.insert(purpose, self.last);
        }
        let until = Instant::now() + Duration::from_millis(self.settings.handshake_ms);
        self.shaking.insert(self.last, Shaking { fd, purpose, wanted, until });
        self.waiting.push_back(self.last);
        // The first one may be a client's, on a host without certificates.
        if self.running.is_none() && self.start_at.is_none() {
            self.start_at = Some(Instant::now());
        }
    }

    /// Gives up the handshake of a connection that nobody waits for any more. False: none is under
    /// way.
    pub(super) fn give_up(&mut self, purpose: Purpose) -> bool {
        let Some(handshake) = self.asked.remove(&purpose) else { return false };
        self.shaking.remove(&handshake);
        if let Some(Running { link, .. }) = &mut self.running {
            link.send(&ToHandshaker::Forget(vec![handshake]));
        }
        true
    }

    /// Whether the handshake of a connection is done.
    pub(super) fn is_done(&self, connection: u64) -> bool {
        self.done.contains_key(&connection)
    }

    /// Takes off a handshake that has ended.
    fn take(&mut self, number: u64) -> Option<Shaking> {
        let shaking = self.shaking.remove(&number)?;
        self.asked.remove(&shaking.purpose);
        Some(shaking)
    }

    /// Whether more connections over TLS may be accepted now.
    pub(super) fn takes_more(&self) -> bool {
        self.waiting.len() < WAITING_MAX
    }

    /// Connections whose handshake is not done.
    pub(super) fn len(&self) -> usize {
        self.shaking.len()
    }

    /// Process id of the handshaker.
    pub(super) fn pid(&self) -> Option<Pid> {
        self.running.as_ref().map(|r| r.process.pid())
    }

    /// Time of the next start, of the next handshake that waits for its time, or of a look at a
    /// process that answers nothing.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let paced = self.pace.held_until().filter(|_| !self.waiting.is_empty());
        let late = self.waiting.front().and_then(|number| self.shaking.get(number)).map(|s| s.until);
        self.start_at.into_iter().chain(paced).chain(self.stuck_at).chain(late).chain(self.join_at).min()
    }

    /// Takes the note that handshakes had to wait for limit `handshakes_per_s`.
    pub(super) fn take_paced(&mut self) -> bool {
        self.pace.take_reached()
    }

    /// Gives up the handshakes that wait too long for a process, or for their time.
    pub(super) fn give_up_late(&mut self) -> Vec<Shaken> {
        let (now, mut late) = (Instant::now(), Vec::new());
        while let Some(number) = self.waiting.front().copied() {
            let until = self.shaking.get(&number).map(|s| s.until);
            if until.is_some_and(|until| until > now) {
                break;
            }
            self.waiting.pop_front();
            if let Some(Shaking { purpose, .. }) = self.take(number) {
                late.push(Shaken::Late);
                late.push(Shaken::Failed(purpose, "it could not begin in time (limit handshake_ms)".into()));
            }
        }
        late
    }

    /// Ends a process that tells no outcome in its time: it is stopped, or waits for a file.
    fn end_if_stuck(&mut self, now: Instant) {
        self.stuck_at = self.pace.stuck_at(|n| self.shaking.contains_key(&n));
        if self.stuck_at.is_some_and(|at| at <= now)
            && let Some(running) = &mut self.running
        {
            tracing::error!("the handshaker answers nothing; it is killed");
            // Its socket closes then, and the next look buries it. It may wait for a disk, so it is
            // not waited for here.
            running.process.kill();
            self.stuck_at = None;
            self.pace.forget();
        }
    }

    /// Whether the next look starts the process.
    pub(super) fn start_is_due(&self) -> bool {
        self.start_at.is_some_and(|at| at <= Instant::now())
    }

    /// Does what is due: starts the process, and gives it connections. Runs in each round of the
    /// keeper's loop.
    pub(super) fn go_on(&mut self, registry: &Registry) {
        if self.start_is_due()
            && let Err(e) = self.start(registry)
        {
            tracing::error!("the handshaker can't be started: {e}");
            self.start_at = Some(Instant::now() + RESTART);
        }
        self.end_if_stuck(Instant::now());
        let Some(Running { link, .. }) = &mut self.running else { return };
        while let Some(number) = self.waiting.front() {
            let Some(Shaking { fd, wanted, .. }) = self.shaking.get(number) else {
                self.waiting.pop_front();
                continue;
            };
            let now = Instant::now();
            // The pace first: what it held back before, it holds no more.
            if !self.pace.may_begin(now) || link.has_unsent() {
                return;
            }
            // What cannot be sent shows where the process is heard.
            match link.send_with(&ToHandshaker::Begin(*number, wanted.clone()), &[fd.as_fd()]) {
                Ok(true) => {
                    self.pace.gave(*number, self.settings.handshake_ms, now);
                    self.waiting.pop_front();
                }
                Ok(false) | Err(_) => return,
            }
        }
    }

    /// Hears all that the process says. If it has ended, handshakes under way are lost.
    pub(super) fn hear(&mut self, registry: &Registry) -> Vec<Shaken> {
        let mut news = Vec::new();
        while let Some(running) = &mut self.running {
            match running.link.receive() {
                Ok(Received::Message(message, _)) => self.heard(message, &mut news),
                Ok(Received::Unknown(_)) => {}
                Ok(Received::Nothing) => break,
                Ok(Received::Closed) | Err(_) => self.ended(registry, &mut news),
            }
        }
        news
    }

    fn heard(&mut self, message: FromHandshaker, news: &mut Vec<Shaken>) {
        match message {
            FromHandshaker::Done(number) => {
                let done = self.take(number);
                news.extend(done.map(|Shaking { fd, purpose, .. }| Shaken::Done(number, fd, purpose)));
            }
            FromHandshaker::Failed(number, why, is_late) => {
                if let Some(Shaking { purpose, wanted, .. }) = self.take(number) {
                    tracing::debug!(service = %wanted.service, "a handshake of TLS has failed: {why}");
                    news.extend(is_late.then_some(Shaken::Late));
                    news.push(Shaken::Failed(purpose, why));
                }
            }
            FromHandshaker::GivenUp(number) => {
                if let Some(Shaking { purpose, .. }) = self.take(number) {
                    news.push(Shaken::GivenUp);
                    news.push(Shaken::Failed(purpose, "too many others are under way".into()));
                }
            }
            // `Failing` follows for each.
            FromHandshaker::Configured(_) => {}
            FromHandshaker::Failing(what, why) => {
                match &why {
                    Some(why) => tracing::error!("{what} can't be used: {why}"),
                    None => tracing::info!("{what} was read anew"),
                }
                news.push(Shaken::Failing(what, why));
            }
        }
    }

    /// Buries a process that has ended. Handshakes that it had have failed.
    fn ended(&mut self, registry: &Registry, news: &mut Vec<Shaken>) {
        let Some(mut running) = self.running.take() else { return };
        let _ = registry.deregister(&mut SourceFd(&running.link.fd().as_raw_fd()));
        running.process.end();
        self.pace.forget();
        // The process was given those below the first that waits.
        let first = self.waiting.front().copied().unwrap_or(u64::MAX);
        let lost: Vec<_> = self.shaking.range(..first).map(|(number, _)| *number).collect();
        tracing::error!(handshakes = lost.len(), "the handshaker has ended; another one is started");
        for number in lost {
            let purpose = self.take(number).map(|s| s.purpose);
            news.extend(purpose.map(|p| Shaken::Failed(p, "the handshaker has ended".into())));
        }
        self.start_at = Some(Instant::now() + RESTART);
    }

    /// Notes that a handshake is this connection from here on.
    pub(super) fn is_connection(&mut self, connection: u64, handshake: u64) {
        self.done.insert(connection, handshake);
    }

    /// Forgets connections that are over, of whatever kind.
    pub(super) fn forget(&mut self, connection: u64) {
        self.give_up(Purpose::Session(connection));
        if let Some(handshake) = self.done.remove(&connection)
            && let Some(Running { link, .. }) = &mut self.running
        {
            link.send(&ToHandshaker::Forget(vec![handshake]));
        }
    }

    /// Those of these connections whose handshake was done here: number of the connection, and
    /// number of the handshake.
    pub(super) fn among(&self, connections: &[(u32, u64)]) -> Vec<(u64, u64)> {
        if self.done.is_empty() {
            return Vec::new();
        }
        connections.iter().filter_map(|(_, c)| Some((*c, *self.done.get(c)?))).collect()
    }

    /// Makes a socket pair between the process and this worker, unless they have one. Returns the
    /// worker's end, and the lowest number of a handshake that the process may have done: secrets
    /// of lower ones are lost, unless the worker has them.
    pub(super) fn join(&mut self, worker: u64) -> Option<(OwnedFd, u64)> {
        if self.joined == Some(worker) || self.join_at.is_some_and(|at| at > Instant::now()) {
            return None;
        }
        self.join_at = None;
        let running = self.running.as_mut()?;
        if running.link.has_unsent() {
            return None;
        }
        let (theirs, workers) = pair().ok()?;
        match running.link.send_with(&ToHandshaker::Worker, &[theirs.as_fd()]) {
            Ok(true) => {
                self.joined = Some(worker);
                Some((workers, running.first))
            }
            Ok(false) | Err(_) => None,
        }
    }

    /// Notes that the worker has not got its end of a socket pair.
    pub(super) fn part(&mut self) {
        self.joined = None;
    }

    /// Notes the same of a worker that has no descriptor to spare: the next pair comes in a while.
    pub(super) fn part_for_a_while(&mut self) {
        self.part();
        self.join_at = Some(Instant::now() + RESTART);
    }
}
