//! State of a host in memory.

use crate::action::Closed;
use crate::custom_framing::FramingState;
use crate::framing::Framing;
use greenroom_state::abi::BROADCAST_LINE;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

/// State of the host that turns share.
#[derive(Default, Clone)]
pub(super) struct Shared {
    pub(super) sessions: BTreeMap<u64, Peer>,
    /// Values by table and key.
    pub(super) tables: BTreeMap<(String, Vec<u8>), Vec<u8>>,
    /// Deadlines of entries, since 1970. Each is ahead: [`super::TestHost::advance`] deletes what
    /// is over.
    pub(super) deadlines: BTreeMap<(String, Vec<u8>), Duration>,
    /// Holders of names.
    pub(super) names: BTreeMap<Vec<u8>, u64>,
    /// Time since the host began.
    pub(super) now: Duration,
    /// Timers by owner and name.
    pub(super) timers: BTreeMap<(u64, String), Duration>,
    /// Actions that turns have caused, oldest first: owner, depth and action.
    pub(super) caused: VecDeque<(u64, u16, Caused)>,
    pub(super) jobs: u64,
    /// Connections asked for: session, service, address, context.
    pub(super) connects: Vec<(u64, String, String, Vec<u8>)>,
    /// Times when token buckets are full, by key and rate.
    pub(super) buckets: BTreeMap<(Vec<u8>, u64, u32), Duration>,
    /// Random numbers that turns have asked for.
    pub(super) randoms: u64,
    /// Datagrams that turns have sent, oldest first.
    pub(super) datagrams: Vec<(SocketAddr, Vec<u8>)>,
}

/// Session, as the host sees it.
#[derive(Default, Clone)]
pub(super) struct Peer {
    /// State as MessagePack, with its version; `None`: none stored yet.
    pub(super) state: Option<(u32, Vec<u8>)>,
    /// Output that the test has not looked at.
    pub(super) output: Vec<u8>,
    pub(super) topics: BTreeSet<Vec<u8>>,
    /// Number of its service: 0 for the one that is tested.
    pub(super) service: usize,
    /// Framing of its endpoint; `None`: that of the first one.
    pub(super) framing: Option<Framing>,
    /// Input that no message has taken.
    pub(super) input: Vec<u8>,
    pub(super) framing_state: FramingState,
    /// Whether the session is closed, or closing.
    pub(super) closed: bool,
    /// Longest message that it takes; 0: any.
    pub(super) frame_max: usize,
    /// Silence of its peer that it is told of.
    pub(super) silence: Option<Silence>,
}

/// Silence of a peer that a session is told of.
#[derive(Clone, Copy)]
pub(super) struct Silence {
    pub(super) after: Duration,
    /// Time to tell it; `None`: it is told.
    pub(super) at: Option<Duration>,
}

impl Peer {
    /// Takes a broadcast into its output.
    pub(super) fn take(&mut self, data: &[u8], flags: u32) {
        self.output.extend(data);
        self.output.extend((flags & BROADCAST_LINE != 0).then_some(b'\n'));
    }
}

/// Time of the calendar at which a test begins: 2020-01-01, since 1970.
pub(super) const EPOCH: Duration = Duration::from_secs(1_577_836_800);

/// Action that waits for its turn.
#[derive(Clone)]
pub(super) enum Caused {
    TlsStarted,
    Note(u64, Vec<u8>),
    Published(Vec<u8>, u64, Vec<u8>),
    Woken,
    CloseAsked,
    /// Number, name and input.
    Job(u64, String, Vec<u8>),
    Closed(Closed),
}
