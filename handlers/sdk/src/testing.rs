//! A host in memory, for a handler's own tests: no socket, no clock, the same turns.

use crate::convert::{check, convert};
use crate::host::Host;
use crate::log::LogEvent;
use crate::run::{Session, run};
use crate::{Action, Closed, Fault, Handler, fault};
use greenroom_state::abi::{BROADCAST_OTHERS, status};
use std::collections::{BTreeMap, BTreeSet};

/// Sessions of one service.
pub struct TestHost<H: Handler> {
    handler: H,
    shared: Shared,
    opened: u64,
}

#[derive(Default, Clone)]
struct Shared {
    sessions: BTreeMap<u64, Peer>,
    tables: BTreeMap<(String, Vec<u8>), Vec<u8>>,
}

#[derive(Default, Clone)]
struct Peer {
    state: Option<Vec<u8>>,
    output: Vec<u8>,
    topics: BTreeSet<String>,
    closed: bool,
}

impl<H: Handler> TestHost<H> {
    /// Builds the service from its configuration, JSON.
    pub fn new(config: &str) -> Result<TestHost<H>, String> {
        fault::install_hook();
        check::<H>()?;
        let config = serde_json::from_str(config).map_err(|e| e.to_string())?;
        Ok(TestHost { handler: H::new(config)?, shared: Shared::default(), opened: 0 })
    }

    /// Takes a state from one version to another, as the host does in a rehearsal and when it rolls back.
    pub fn convert(from: u32, to: u32, state: &serde_json::Value) -> Result<serde_json::Value, String> {
        let packed = greenroom_state::value::from_json(state)?;
        greenroom_state::value::to_json(&convert::<H>(0, from, to, &packed)?)
    }

    /// Opens a session, and returns its number.
    pub fn open(&mut self) -> u64 {
        self.opened += 1;
        self.shared.sessions.insert(self.opened, Peer::default());
        self.turn(self.opened, Action::Opened);
        self.opened
    }

    /// Runs one line, and returns what was sent since the last look.
    pub fn line(&mut self, session: u64, line: impl AsRef<[u8]>) -> String {
        self.turn(session, Action::Message(line.as_ref()));
        self.output(session)
    }

    /// Ends a session as its peer would.
    pub fn hang_up(&mut self, session: u64) {
        self.turn(session, Action::Closed(Closed::Peer));
        self.shared.sessions.remove(&session);
    }

    /// What was sent to a session since the last look.
    pub fn output(&mut self, session: u64) -> String {
        let peer = self.shared.sessions.get_mut(&session);
        peer.map(|p| String::from_utf8_lossy(&std::mem::take(&mut p.output)).into_owned()).unwrap_or_default()
    }

    /// Whether the handler closed it.
    pub fn is_closed(&self, session: u64) -> bool {
        self.shared.sessions.get(&session).is_none_or(|p| p.closed)
    }

    /// A session's state.
    pub fn state(&self, session: u64) -> H::State {
        let stored = self.shared.sessions.get(&session).and_then(|p| p.state.as_ref());
        stored.map_or_else(H::State::default, |bytes| {
            rmp_serde::from_slice(bytes).expect("the service reads the state that it wrote")
        })
    }

    /// Runs one action. Panics if the turn fails: see [`TestHost::try_turn`].
    #[track_caller]
    pub fn turn(&mut self, session: u64, action: Action<'_>) {
        if let Err(message) = self.try_turn(session, action) {
            panic!("the turn failed: {message}");
        }
    }

    /// Runs one action; an error is the fault's message, and nothing has changed.
    pub fn try_turn(&mut self, session: u64, action: Action<'_>) -> Result<(), String> {
        let mut staging = Staging { session, shared: self.shared.clone(), fault: None };
        let stored = self.shared.sessions.get(&session).and_then(|p| p.state.clone());
        let input = Session {
            id: session,
            now_ns: 0,
            state: stored.as_deref().map(|bytes| (H::STATE_VERSION, bytes)),
        };
        run(&self.handler, input, std::iter::once(action), &mut staging);
        match staging.fault {
            Some(message) => Err(message),
            None => {
                self.shared = staging.shared;
                Ok(())
            }
        }
    }
}

struct Staging {
    session: u64,
    shared: Shared,
    fault: Option<String>,
}

impl Staging {
    fn own(&mut self) -> &mut Peer {
        self.shared.sessions.entry(self.session).or_default()
    }
}

impl Host for Staging {
    fn turn_ok(&mut self) -> bool {
        false
    }
    fn turn_failed(&mut self, fault: &Fault) {
        self.fault = Some(fault.message.clone());
    }
    fn state(&mut self, bytes: &[u8]) {
        self.own().state = Some(bytes.to_vec());
    }
    fn peer(&mut self) -> String {
        format!("127.0.0.1:{}", self.session)
    }
    fn send(&mut self, first: &[u8], second: &[u8]) -> u32 {
        self.own().output.extend([first, second].concat());
        status::OK
    }
    fn close(&mut self) -> u32 {
        self.own().closed = true;
        status::OK
    }
    fn subscribe(&mut self, topic: &str) -> u32 {
        self.own().topics.insert(topic.to_owned());
        status::OK
    }
    fn unsubscribe(&mut self, topic: &str) -> u32 {
        self.own().topics.remove(topic);
        status::OK
    }
    fn broadcast(&mut self, topic: &str, data: &[u8], flags: u32) -> u32 {
        for (id, peer) in &mut self.shared.sessions {
            if peer.topics.contains(topic) && !(flags == BROADCAST_OTHERS && *id == self.session) {
                peer.output.extend(data);
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
    fn log(&mut self, _: &LogEvent) {}
}
