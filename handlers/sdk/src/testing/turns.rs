//! Turns of a host for tests: each with the actions that it causes.

use super::host::TestHost;
use super::input;
use super::services::Runs;
use super::shared::Caused;
use super::turn::{SERVICE, Staging};
use crate::action::{Action, Closed, Job, JobEnd};
use crate::handler::Handler;
use crate::run::Session;
use greenroom_state::abi::BROADCAST_LINE;
use std::net::SocketAddr;
use std::sync::atomic::AtomicU32;

/// Failure of a turn.
struct Failure {
    message: String,
    /// Place in the source; empty: unknown.
    at: String,
    /// Whether the peer notices nothing.
    silent: bool,
}

impl<H: Handler> TestHost<H> {
    /// Runs one action, and the actions that it causes. Panics if a turn fails, unless its fault
    /// tells the peer a line or closes the session, which the test sees; see
    /// [`TestHost::try_turn`].
    #[track_caller]
    pub fn turn(&mut self, session: u64, action: Action<'_>) {
        if let Err(Failure { message, at, silent: true }) = self.turns(session, action) {
            let at = if at.is_empty() { at } else { format!(" ({at})") };
            panic!("{}the turn failed: {message}{at}\n{}", self.scene, self.transcript());
        }
    }

    /// Runs one action, and the actions that it causes. The error is the first fault's message. A
    /// turn that fails changes nothing; the others do.
    pub fn try_turn(&mut self, session: u64, action: Action<'_>) -> Result<(), String> {
        self.turns(session, action).map_err(|failure| failure.message)
    }

    /// Runs one action, and the actions that it causes. The error is the first failure, or the
    /// first silent one.
    fn turns(&mut self, session: u64, action: Action<'_>) -> Result<(), Failure> {
        let mut result = self.one_turn(session, action, 0);
        while let Some((to, depth, caused)) = self.shared.caused.pop_front() {
            // A session that is gone has no turn, and a closed one has only its last.
            let closes = matches!(caused, Caused::Closed(_));
            let open = self.shared.sessions.get(&to).is_some_and(|p| closes || !p.closed);
            if to == SERVICE || open {
                result = match (result, self.caused(to, depth, caused)) {
                    (Err(Failure { silent: false, .. }), Err(silent @ Failure { silent: true, .. })) => {
                        Err(silent)
                    }
                    (first, next) => first.and(next),
                };
            }
        }
        result
    }

    /// Runs the turn of an action that a turn has caused. A job runs first, on this thread.
    fn caused(&mut self, to: u64, depth: u16, caused: Caused) -> Result<(), Failure> {
        let sender = |from: u64| (from != SERVICE).then_some(from);
        match caused {
            Caused::Note(from, bytes) => {
                self.one_turn(to, Action::Note { from: sender(from), bytes: &bytes }, depth)
            }
            Caused::Published(topic, from, bytes) => {
                let (topic, from) = (&topic, sender(from));
                self.one_turn(to, Action::Published { topic, from, bytes: &bytes }, depth)
            }
            Caused::Job(number, name, input) if self.holds_jobs => {
                self.jobs.push((to, number, name, input));
                Ok(())
            }
            Caused::Job(number, name, input) => {
                let job = Job { name: &name, input: &input, cancelled: &AtomicU32::new(0) };
                let done = self.service_of(to).job(&job);
                let done = done.map_err(|fault| fault.in_words());
                let end = match &done {
                    Ok(bytes) => JobEnd::Done(bytes),
                    Err(why) => JobEnd::Failed(why),
                };
                self.one_turn(to, Action::Job { number, name: &name, end }, depth)
            }
            Caused::Woken => self.one_turn(to, Action::Woken, depth),
            Caused::CloseAsked => match self.is_closed(to) {
                true => Ok(()),
                false => self.one_turn(to, Action::Closed(Closed::Handler), depth),
            },
            Caused::TlsStarted => self.one_turn(to, Action::TlsStarted, depth),
            Caused::Closed(why) => self.one_turn(to, Action::Closed(why), depth),
        }
    }

    /// Runs one turn and applies its effects.
    fn one_turn(&mut self, session: u64, action: Action<'_>, depth: u16) -> Result<(), Failure> {
        let last = matches!(action, Action::Closed(_));
        let was_closed = self.is_closed(session);
        let from = match action {
            Action::Datagram { from, .. } => Some(from),
            _ => None,
        };
        if self.dies {
            self.run_one(session, action, (from, depth));
            let number = self.number_of(session);
            let renewed = match number.checked_sub(1) {
                None => self.service.renew(),
                Some(other) => self.others[other].renew(),
            };
            renewed.map_err(|e| {
                let message = format!("a fresh process can't build the service: {e}");
                Failure { message, at: String::new(), silent: true }
            })?;
        }
        let staging = self.run_one(session, action, (from, depth));
        let result = match staging.fault {
            Some(message) => {
                let (line, closes) = staging.fault_reply;
                let silent = last || (line.is_none() && !closes);
                if let Some(peer) = self.shared.sessions.get_mut(&session).filter(|_| !last) {
                    line.iter().for_each(|line| peer.take(line.as_bytes(), BROADCAST_LINE));
                    peer.closed |= closes;
                }
                Err(Failure { message, at: staging.fault_at, silent })
            }
            None => {
                self.shared = staging.shared;
                Ok(())
            }
        };
        if session != SERVICE && last {
            // A session ends whatever becomes of its last turn.
            self.shared.timers.retain(|(owner, _), _| *owner != session);
            if let Some(peer) = self.shared.sessions.get_mut(&session) {
                peer.closed = true;
                peer.topics.clear();
            }
            self.shared.names.retain(|_, holder| *holder != session);
        } else if session != SERVICE && !was_closed && self.is_closed(session) {
            // In front: the last turn comes before the turns that this one has caused.
            self.shared.caused.push_front((session, 0, Caused::Closed(Closed::Handler)));
        }
        result
    }
}

impl<H: Handler> TestHost<H> {
    /// Runs one turn, whose effects are not applied yet.
    fn run_one(&self, session: u64, action: Action<'_>, of: (Option<SocketAddr>, u16)) -> Staging {
        let (from, depth) = of;
        let service = self.service_of(session);
        let peer = self.shared.sessions.get(&session);
        let framing = peer.and_then(|p| p.framing).unwrap_or_else(|| service.framings()[0]);
        let mut staging = Staging {
            session,
            version: service.version(),
            generation: self.generation,
            endpoint: input::kind(&framing),
            from,
            depth,
            shared: self.shared.clone(),
            fault: None,
            fault_at: String::new(),
            fault_reply: (None, false),
        };
        let now_ns = self.shared.now.as_nanos() as u64;
        let state = peer.and_then(|p| p.state.as_ref()).map(|(version, bytes)| (*version, &bytes[..]));
        let input = (session != SERVICE).then_some(Session { id: session, now_ns, state });
        service.run(input, now_ns, action, &mut staging);
        staging
    }

    /// Number of a session's service.
    fn number_of(&self, session: u64) -> usize {
        self.shared.sessions.get(&session).map_or(0, |peer| peer.service)
    }

    /// Service of a session, or the one that is tested.
    pub(super) fn service_of(&self, session: u64) -> &dyn Runs {
        match self.number_of(session).checked_sub(1) {
            None => &self.service,
            Some(other) => &*self.others[other],
        }
    }
}
