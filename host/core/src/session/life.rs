//! A session's life, and what is kept in fast memory about it. All of it but indexes is also in its record.
//!
//! | life | event | becomes |
//! | --- | --- | --- |
//! | open | a reason to close it, after its last turn | draining |
//! | draining | output flushed, our end shut | lingering |
//! | draining | output flushed, the peer already done | gone |
//! | lingering | the peer's end shut | gone |
//! | any | connection broken, output over its limit, a deadline | gone |
//!
//! A transition that isn't in the table is logged and refused.

use crate::ids::ServiceId;
use crate::ids::service_of_number;
use crate::store::layout::Ref;
use greenroom_state::address::Peer;
pub use greenroom_state::session_record::Life;
use greenroom_state::session_record::SessionRecord;
use smallvec::SmallVec;
use std::net::SocketAddr;

/// An output record begins with its offset in the stream, so that sending rewrites no session.
pub(crate) const OUTPUT_HEAD: usize = 8;

/// Pieces of output that a peer hasn't taken: small ones cost more than their bytes. Its input then waits, as it does at
/// `output_bytes_pause`.
pub(crate) const OUTPUT_RECORDS_PAUSE: usize = 1024;

/// See the module.
#[derive(Debug)]
pub struct Session {
    /// Its number, never used twice.
    pub id: u64,
    /// Its service.
    pub service: ServiceId,
    /// Where it is in its life.
    pub life: Life,
    /// The peer has ended its side.
    pub peer_done: bool,
    /// Its handler has its input wait: it isn't run, nor read.
    pub held: bool,
    /// Another session's peer takes no output, which this one's input would add to: it isn't run, nor read.
    pub(crate) waits: bool,
    /// Its peer takes no output, so its input isn't run.
    pub(crate) paused: bool,
    /// It is in the list of sessions whose input goes on with the next pass.
    pub(crate) resuming: bool,
    /// Its newest output record was made in this pass, so that it may still grow.
    pub(crate) output_fresh: bool,
    /// It is in the list of sessions that this pass changed.
    pub(crate) dirty: bool,
    /// The kernel took less than it was offered; the shell says when it takes more.
    pub(crate) blocked: bool,
    /// It is in the list of sessions that are sent to a share at a time.
    pub(crate) waits_to_send: bool,
    /// Its first turn was withheld, and comes before all others.
    pub(crate) greeting_due: bool,
    /// We connected to its peer, not its peer to us.
    pub outbound: bool,
    /// Why its input is kept and not run.
    pub quarantined: Option<Box<Quarantine>>,
    /// Milliseconds since 1970.
    pub opened_at_ms: u64,
    /// Turns run.
    pub turns: u64,
    /// Bytes taken from the peer.
    pub bytes_in: u64,
    /// Bytes produced for the peer.
    pub bytes_out: u64,
    /// Of those, bytes that the kernel took.
    pub bytes_sent: u64,
    /// The peer's address.
    pub peer: SocketAddr,
    /// Version of the stored state; 0: none stored.
    pub state_version: u32,
    pub(crate) state_fingerprint: u64,
    pub(crate) frame: crate::framing::frame::FrameState,
    pub(crate) record: Option<Ref>,
    pub(crate) state: Option<Ref>,
    pub(crate) input: Option<Ref>,
    /// Output not sent, oldest first. In place, so that a session which has answered holds no memory for it.
    pub(crate) output: SmallVec<[Ref; 2]>,
    /// Bytes of the oldest that were sent.
    pub(crate) output_sent: usize,
    /// Boxed, as few sessions have any and each idle session costs what this struct does.
    pub(crate) subscriptions: Option<Box<Subscriptions>>,
    /// When bytes last came from the peer, or when it opened, in nanoseconds.
    pub(crate) heard_ns: u64,
    /// When the frame began that isn't whole; 0: there is none.
    pub(crate) frame_ns: u64,
    /// When draining or lingering ends at the latest, or an open session's peer must have been heard of, in nanoseconds.
    pub(crate) deadline_ns: u64,
}

// An idle session costs this and its records: growing it is a decision.
const _: () = assert!(size_of::<Session>() <= 208);

/// The topics that a session is on, and the record that says so.
#[derive(Debug, Default)]
pub(crate) struct Subscriptions {
    pub(crate) topics: Vec<Box<str>>,
    pub(crate) record: Option<Ref>,
}

/// Why a session is quarantined.
#[derive(Debug, Default)]
pub struct Quarantine {
    /// In words.
    pub reason: String,
    /// What tells it to a successor.
    pub(crate) record: Option<Ref>,
}

impl Session {
    /// The topics it is on.
    pub(crate) fn topics(&self) -> &[Box<str>] {
        self.subscriptions.as_ref().map_or(&[], |s| &s.topics)
    }

    /// For a session that has none, makes the place for it.
    pub(crate) fn subscriptions(&mut self) -> &mut Subscriptions {
        self.subscriptions.get_or_insert_default()
    }

    pub(crate) fn new(id: u64, service: ServiceId, peer: SocketAddr, opened_at_ms: u64) -> Session {
        Session {
            id,
            service,
            life: Life::Open,
            peer_done: false,
            paused: false,
            resuming: false,
            output_fresh: false,
            dirty: false,
            blocked: false,
            waits_to_send: false,
            greeting_due: false,
            outbound: false,
            held: false,
            waits: false,
            quarantined: None,
            opened_at_ms,
            turns: 0,
            bytes_in: 0,
            bytes_out: 0,
            bytes_sent: 0,
            peer,
            state_version: 0,
            state_fingerprint: 0,
            frame: Default::default(),
            record: None,
            state: None,
            input: None,
            output: SmallVec::new(),
            output_sent: 0,
            subscriptions: None,
            heard_ns: 0,
            frame_ns: 0,
            deadline_ns: 0,
        }
    }

    /// Whether it stands for a service's own turns.
    pub(crate) fn is_service(&self) -> bool {
        service_of_number(self.id).is_some()
    }

    /// Output that the kernel has not taken, in bytes.
    pub fn unsent(&self) -> u64 {
        self.bytes_out - self.bytes_sent
    }

    /// But for the length of its input, which the store knows.
    pub(crate) fn to_record(&self) -> SessionRecord {
        SessionRecord {
            id: self.id,
            service: self.service.0,
            life: self.life,
            peer_done: self.peer_done,
            quarantined: self.quarantined.is_some(),
            greeting_due: self.greeting_due,
            outbound: self.outbound,
            held: self.held,
            opened_at_ms: self.opened_at_ms,
            turns: self.turns,
            bytes_in: self.bytes_in,
            bytes_out: self.bytes_out,
            bytes_sent: self.bytes_sent,
            state_version: self.state_version,
            frame_searched: self.frame.searched,
            state_fingerprint: self.state_fingerprint,
            input_bytes: 0,
            topics: self.topics().len() as u16,
            frame_bytes: 0,
            peer: Peer::Tcp(self.peer),
        }
    }
}
