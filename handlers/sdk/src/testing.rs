//! Host in memory, for a handler's own tests: no socket, no clock, the same turns.
//!
//! Turns run through the code that runs in a real host, one action in a batch. A turn works on
//! a copy of the whole host, which replaces the original if the turn succeeds. That costs
//! O(host) for each turn, and makes a failed turn change nothing. Framing, most limits, holds,
//! waits and facts are not simulated. Log events go nowhere.

use crate::convert::{check, convert};
use crate::fault::{self, Fault};
use crate::handler::{Action, Closed, Handler, Job, JobEnd};
use crate::host::Host;
use crate::log::LogEvent;
use crate::run::{Session, run, run_service};
use greenroom_state::abi::{BROADCAST_LINE, BROADCAST_OTHERS, TIMER_OF_SERVICE, status};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::atomic::AtomicU32;
use std::time::Duration;

/// Number of the service itself, in place of a session's.
const SERVICE: u64 = 0;
/// Turns that may follow one from another, as in a host of default limits.
const CASCADE_MAX: u16 = 16;

/// Host in memory, with sessions of one service.
///
/// Jobs run at once, when the turn that started them is over; timers fire when
/// [`TestHost::advance`] says so. Messages come and go without framing.
pub struct TestHost<H: Handler> {
    /// Instance of the service, as a host builds it.
    handler: H,
    /// State of the host after the last turn that succeeded.
    shared: Shared,
    /// Number of the last session.
    opened: u64,
}

/// State of the host that turns share.
#[derive(Default, Clone)]
struct Shared {
    sessions: BTreeMap<u64, Peer>,
    tables: BTreeMap<(String, Vec<u8>), Vec<u8>>,
    /// Time since the host began.
    now: Duration,
    /// Timers by owner and name.
    timers: BTreeMap<(u64, String), Duration>,
    /// Actions that turns have caused, oldest first: owner, depth and action.
    caused: VecDeque<(u64, u16, Caused)>,
    jobs: u64,
    /// Connections asked for: session, service, address, context.
    connects: Vec<(u64, String, String, Vec<u8>)>,
}

/// Session, as the host sees it.
#[derive(Default, Clone)]
struct Peer {
    /// State as MessagePack; `None`: none stored yet.
    state: Option<Vec<u8>>,
    /// Output that the test has not looked at.
    output: Vec<u8>,
    topics: BTreeSet<String>,
    /// Whether the session is closed, or closing.
    closed: bool,
}

/// Action that waits for its turn.
#[derive(Clone)]
enum Caused {
    Note(u64, Vec<u8>),
    Published(String, u64, Vec<u8>),
    /// Number, name and input.
    Job(u64, String, Vec<u8>),
    Closed(Closed),
}

impl<H: Handler> TestHost<H> {
    /// Builds the service from its configuration, JSON.
    pub fn new(config: &str) -> Result<TestHost<H>, String> {
        fault::install_hook();
        check::<H>()?;
        let config = serde_json::from_str(config).map_err(|e| e.to_string())?;
        Ok(TestHost { handler: H::new(config)?, shared: Shared::default(), opened: 0 })
    }

    /// Converts a state from one version to another, as the host does in a rehearsal and when it
    /// rolls back.
    pub fn convert(from: u32, to: u32, state: &serde_json::Value) -> Result<serde_json::Value, String> {
        let packed = greenroom_state::json::from_json(state)?;
        greenroom_state::json::to_json(&convert::<H>(0, from, to, &packed)?)
    }

    /// Opens a session, and returns its number.
    pub fn open(&mut self) -> u64 {
        self.opened += 1;
        self.shared.sessions.insert(self.opened, Peer::default());
        self.turn(self.opened, Action::Opened);
        self.opened
    }

    /// Runs one line, and returns the output since the last look.
    pub fn line(&mut self, session: u64, line: impl AsRef<[u8]>) -> String {
        self.turn(session, Action::Message(line.as_ref()));
        self.output(session)
    }

    /// Ends a session as its peer would, unless it is closed already.
    pub fn hang_up(&mut self, session: u64) {
        if !self.is_closed(session) {
            self.turn(session, Action::Closed(Closed::Peer));
        }
    }

    /// Lets time go by, and fires the timers that are due meanwhile, in their order. Panics if such
    /// a turn fails.
    #[track_caller]
    pub fn advance(&mut self, by: Duration) {
        let until = self.shared.now + by;
        while let Some(((owner, name), at)) = self.next_timer().filter(|(_, at)| *at <= until) {
            self.shared.now = self.shared.now.max(at);
            self.shared.timers.remove(&(owner, name.clone()));
            self.turn(owner, Action::Timer(&name));
        }
        self.shared.now = until;
    }

    /// Next timer, with its time.
    fn next_timer(&self) -> Option<((u64, String), Duration)> {
        let first = self.shared.timers.iter().min_by_key(|(_, at)| **at);
        first.map(|(key, at)| (key.clone(), *at))
    }

    /// Connections that turns asked for so far: session, service, address and context. The number
    /// of each is its place, from 1; report its outcome with [`TestHost::turn`].
    pub fn connects(&self) -> &[(u64, String, String, Vec<u8>)] {
        &self.shared.connects
    }

    /// Output of a session since the last look.
    pub fn output(&mut self, session: u64) -> String {
        let peer = self.shared.sessions.get_mut(&session);
        peer.map(|p| String::from_utf8_lossy(&std::mem::take(&mut p.output)).into_owned()).unwrap_or_default()
    }

    /// Whether the handler closed a session.
    pub fn is_closed(&self, session: u64) -> bool {
        self.shared.sessions.get(&session).is_none_or(|p| p.closed)
    }

    /// State of a session.
    pub fn state(&self, session: u64) -> H::State {
        let stored = self.shared.sessions.get(&session).and_then(|p| p.state.as_ref());
        stored.map_or_else(H::State::default, |bytes| {
            rmp_serde::from_slice(bytes).expect("the service reads the state that it wrote")
        })
    }

    /// Runs one action, and the actions that it causes. Panics if a turn fails; see
    /// [`TestHost::try_turn`].
    #[track_caller]
    pub fn turn(&mut self, session: u64, action: Action<'_>) {
        if let Err(message) = self.try_turn(session, action) {
            panic!("the turn failed: {message}");
        }
    }

    /// Runs one action, and the actions that it causes. The error is the first fault's message. A
    /// turn that fails changes nothing; the others do.
    pub fn try_turn(&mut self, session: u64, action: Action<'_>) -> Result<(), String> {
        let mut result = self.one_turn(session, action, 0);
        while let Some((to, depth, caused)) = self.shared.caused.pop_front() {
            // A session that is gone has no turn, and a closed one has only its last.
            let closes = matches!(caused, Caused::Closed(_));
            let open = self.shared.sessions.get(&to).is_some_and(|p| closes || !p.closed);
            if to == SERVICE || open {
                result = result.and(self.caused(to, depth, caused));
            }
        }
        result
    }

    /// Runs the turn of an action that a turn has caused. A job runs first, on this thread.
    fn caused(&mut self, to: u64, depth: u16, caused: Caused) -> Result<(), String> {
        let sender = |from: u64| (from != SERVICE).then_some(from);
        match caused {
            Caused::Note(from, bytes) => {
                self.one_turn(to, Action::Note { from: sender(from), bytes: &bytes }, depth)
            }
            Caused::Published(topic, from, bytes) => {
                let (topic, from) = (&topic, sender(from));
                self.one_turn(to, Action::Published { topic, from, bytes: &bytes }, depth)
            }
            Caused::Job(number, name, input) => {
                let job = Job { name: &name, input: &input, cancelled: &AtomicU32::new(0) };
                let done = fault::catch(|| self.handler.job(&job));
                let done = done.map_err(|fault| fault.in_words());
                let end = match &done {
                    Ok(bytes) => JobEnd::Done(bytes),
                    Err(why) => JobEnd::Failed(why),
                };
                self.one_turn(to, Action::Job { number, name: &name, end }, depth)
            }
            Caused::Closed(why) => self.one_turn(to, Action::Closed(why), depth),
        }
    }

    /// Runs one turn and applies its effects.
    fn one_turn(&mut self, session: u64, action: Action<'_>, depth: u16) -> Result<(), String> {
        let last = matches!(action, Action::Closed(_));
        let was_closed = self.is_closed(session);
        let mut staging = Staging { session, depth, shared: self.shared.clone(), fault: None };
        let now_ns = self.shared.now.as_nanos() as u64;
        if session == SERVICE {
            run_service(&self.handler, now_ns, std::iter::once(action), &mut staging);
        } else {
            let stored = self.shared.sessions.get(&session).and_then(|p| p.state.clone());
            let state = stored.as_deref().map(|bytes| (H::STATE_VERSION, bytes));
            let input = Session { id: session, now_ns, state };
            run(&self.handler, input, std::iter::once(action), &mut staging);
        }
        let result = match staging.fault {
            Some(message) => Err(message),
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
        } else if session != SERVICE && !was_closed && self.is_closed(session) {
            // In front: the last turn comes before the turns that this one has caused.
            self.shared.caused.push_front((session, 0, Caused::Closed(Closed::Handler)));
        }
        result
    }
}

/// Host of one turn.
struct Staging {
    session: u64,
    /// Number of turns between this one and an action from outside.
    depth: u16,
    shared: Shared,
    /// Reason why the turn failed.
    fault: Option<String>,
}

impl Staging {
    /// Changes the peer of the session; refused in a turn of the service itself.
    fn change(&mut self, change: impl FnOnce(&mut Peer)) -> u32 {
        if self.session == SERVICE {
            return status::INVALID;
        }
        change(self.shared.sessions.entry(self.session).or_default());
        status::OK
    }

    /// Owner of a timer: the session, or the service itself.
    fn owner(&self, flags: u32) -> u64 {
        if flags == TIMER_OF_SERVICE { SERVICE } else { self.session }
    }
}

impl Host for Staging {
    /// Ends the batch: each turn of a test is a batch of its own.
    fn turn_ok(&mut self) -> bool {
        false
    }
    fn turn_failed(&mut self, fault: &Fault) {
        self.fault = Some(fault.message.clone());
    }
    fn state(&mut self, bytes: &[u8]) {
        self.change(|own| own.state = Some(bytes.to_vec()));
    }
    fn peer(&mut self) -> String {
        format!("127.0.0.1:{}", self.session)
    }
    fn send(&mut self, bytes: &[u8]) -> u32 {
        self.change(|own| own.output.extend(bytes))
    }
    fn send_line(&mut self, line: &[u8]) -> u32 {
        self.send(&[line, b"\n"].concat())
    }
    fn close_with(&mut self, _: u16, _: &str) -> u32 {
        self.close()
    }
    fn fact(&mut self, name: &str) -> Option<Vec<u8>> {
        (name == "generation").then(|| b"1".to_vec())
    }
    fn page(&mut self, _: &str, _: &[u8]) -> u32 {
        status::INVALID
    }
    fn close(&mut self) -> u32 {
        self.change(|own| own.closed = true)
    }
    fn subscribe(&mut self, topic: &str) -> u32 {
        self.change(|own| own.topics.extend([topic.to_owned()]))
    }
    fn unsubscribe(&mut self, topic: &str) -> u32 {
        self.change(|own| own.topics.retain(|t| t != topic))
    }
    fn broadcast(&mut self, topic: &str, data: &[u8], flags: u32) -> u32 {
        for (id, peer) in &mut self.shared.sessions {
            if peer.topics.contains(topic) && !(flags & BROADCAST_OTHERS != 0 && *id == self.session) {
                peer.output.extend(data);
                peer.output.extend((flags & BROADCAST_LINE != 0).then_some(b'\n'));
            }
        }
        status::OK
    }
    fn table_get(&mut self, table: &str, key: &[u8]) -> Option<Vec<u8>> {
        self.shared.tables.get(&(table.to_owned(), key.to_vec())).cloned()
    }
    fn table_put(&mut self, table: &str, key: &[u8], value: &[u8]) -> u32 {
        self.shared.tables.insert((table.to_owned(), key.to_vec()), value.to_vec());
        status::OK
    }
    fn table_delete(&mut self, table: &str, key: &[u8]) -> u32 {
        self.shared.tables.remove(&(table.to_owned(), key.to_vec()));
        status::OK
    }
    fn table_next(&mut self, table: &str, prefix: &[u8], from: &[u8]) -> Option<(Vec<u8>, Vec<u8>)> {
        let start = (table.to_owned(), from.max(prefix).to_vec());
        let ((t, key), value) = self.shared.tables.range(start..).next()?;
        (t == table && key.starts_with(prefix)).then(|| (key.clone(), value.clone()))
    }
    fn table_len(&mut self, table: &str) -> u64 {
        self.shared.tables.keys().filter(|(t, _)| t == table).count() as u64
    }
    fn set_timer(&mut self, name: &str, after_ns: u64, flags: u32) -> u32 {
        let at = self.shared.now + Duration::from_nanos(after_ns);
        self.shared.timers.insert((self.owner(flags), name.to_owned()), at);
        status::OK
    }
    fn cancel_timer(&mut self, name: &str, flags: u32) -> u32 {
        self.shared.timers.remove(&(self.owner(flags), name.to_owned()));
        status::OK
    }
    fn note(&mut self, session: u64, data: &[u8]) -> u32 {
        if self.depth >= CASCADE_MAX {
            return status::LIMIT;
        }
        if session != SERVICE {
            let note = Caused::Note(self.session, data.to_vec());
            self.shared.caused.push_back((session, self.depth + 1, note));
        }
        status::OK
    }
    fn publish(&mut self, topic: &str, data: &[u8], flags: u32) -> u32 {
        if self.depth >= CASCADE_MAX {
            return status::LIMIT;
        }
        for (id, peer) in &self.shared.sessions {
            if peer.topics.contains(topic) && !(flags == BROADCAST_OTHERS && *id == self.session) {
                let caused = Caused::Published(topic.to_owned(), self.session, data.to_vec());
                self.shared.caused.push_back((*id, self.depth + 1, caused));
            }
        }
        status::OK
    }
    fn start_job(&mut self, name: &str, input: &[u8], _: u32) -> Result<u64, u32> {
        self.shared.jobs += 1;
        let number = self.shared.jobs;
        let job = Caused::Job(number, name.to_owned(), input.to_vec());
        self.shared.caused.push_back((self.session, 0, job));
        Ok(number)
    }
    fn cancel_job(&mut self, number: u64) -> u32 {
        let session = self.session;
        let it = |to: u64, c: &Caused| to == session && matches!(c, Caused::Job(n, ..) if *n == number);
        self.shared.caused.retain(|(to, _, c)| !it(*to, c));
        status::OK
    }
    fn connect(&mut self, service: &str, addr: &str, context: &[u8]) -> Result<u64, u32> {
        self.shared.connects.push((self.session, service.to_owned(), addr.to_owned(), context.to_vec()));
        Ok(self.shared.connects.len() as u64)
    }
    fn wait_for(&mut self, _: u64) -> u32 {
        status::OK
    }
    fn hold(&mut self, _: bool) -> u32 {
        status::OK
    }
    fn negotiate(&mut self, _: u8, _: u8) -> u32 {
        status::OK
    }
    fn subnegotiate(&mut self, _: u8, _: &[u8]) -> u32 {
        status::OK
    }
    fn prompt(&mut self, text: &[u8]) -> u32 {
        self.send(text)
    }
    fn log(&mut self, _: &LogEvent) {}
}
