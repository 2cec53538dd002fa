//! Session: its life as a table, and what memory holds of it.
//!
//! | life | event | becomes |
//! | --- | --- | --- |
//! | open | a reason to close it, after its last turn | draining |
//! | draining | output flushed, our end shut | lingering |
//! | draining | output flushed, the peer already done | gone |
//! | lingering | the peer's end shut | gone |
//! | any | connection broken, output over its limit, a deadline | gone |
//!
//! The deadline of an open session closes it like any other reason. A request to close a
//! session that is closing already runs no second last turn, and is logged.
//!
//! A session is one record of 128 bytes, and a record for each part: state, kept input, framing
//! state, pieces of output, topics, quarantine. What follows from these, or begins anew with
//! each process, is in memory alone: most reasons to wait, deadlines, places in lists. An idle
//! session costs at most 200 bytes here, beside its records and its places in [`super::table`].

use super::blocked::{Blocked, Blocks, Question};
use super::carrier::Carrier;
use super::socket_streams::Socket;
use crate::framing::frame::FrameState;
use crate::framing::peer::{self, LocalEnd};
use crate::framing::websocket::stage::{SocketStage, stage};
use crate::ids::{ServiceId, service_of_number};
use crate::store::layout::Ref;
use crate::store::records::Store;
use greenroom_state::address::Peer;
pub use greenroom_state::session_record::Life;
use greenroom_state::session_record::{SessionRecord, heard_units};
use smallvec::SmallVec;

/// List of [`super::send_queue::SendQueue`] that a session waits in.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum SendList {
    /// No list.
    #[default]
    None,
    /// Sessions with much to send.
    Large,
    /// Other sessions.
    Others,
}

/// Session: a connection of a service, and what the host holds of it.
#[derive(Debug)]
pub struct Session {
    /// Number, never used twice.
    pub id: u64,
    /// Service that it belongs to, for its whole life.
    pub service: ServiceId,
    /// Stage of its life.
    pub life: Life,
    /// Whether the peer has ended its side.
    pub peer_done: bool,
    /// Whether the host connected to its peer.
    pub outbound: bool,
    /// Bytes that its stream stands behind, or in.
    pub(crate) carrier: Carrier,
    /// Part that WebSocket has in it, beside the framing of its messages.
    pub(crate) socket: Socket,
    /// Reasons why it waits. Only two of them are in its record: held, and opened turn due. The
    /// quarantine is a record of its own.
    blocks: Blocks,
    /// Whether its newest output record was made in this pass, so that the record may still grow.
    pub(super) output_fresh: bool,
    /// Whether [`super::table::Sessions`] lists it as changed in this pass.
    pub(super) dirty: bool,
    /// Whether the kernel took less than it was offered. The shell reports when it takes more.
    pub(crate) kernel_full: bool,
    /// List of [`super::send_queue::SendQueue`] that it waits in.
    pub(super) send_list: SendList,
    /// Whether [`super::table::Sessions`] holds terms of it.
    pub(crate) has_terms: bool,
    /// Whether its peer's silence is told, and goes on.
    pub(crate) silence_told: bool,
    /// Reason of its quarantine; set if and only if [`Blocked::Quarantined`] holds.
    quarantine: Option<Box<Quarantine>>,
    /// Time of its opening, in milliseconds since 1970.
    pub opened_at_ms: u64,
    /// Turns run, failed ones included. Names the next action, so that a death can be blamed on
    /// it.
    pub turns: u64,
    /// Bytes taken from the peer, run or kept.
    pub bytes_in: u64,
    /// Bytes produced for the peer: the offset of the next piece in the stream.
    pub bytes_out: u64,
    /// Bytes of those that the kernel took.
    pub bytes_sent: u64,
    /// Address of the peer.
    pub peer: Peer,
    /// Version of the stored state; 0: none stored.
    pub state_version: u32,
    /// Fingerprint of the schema that the state was written under; 0: it has none.
    pub(crate) state_fingerprint: u64,
    /// State of the framing behind the consumed input.
    pub(crate) frame: FrameState,
    /// Record of the session; `None`: no commit has written it yet.
    pub(crate) record: Option<Ref>,
    /// Record of its state.
    pub(crate) state: Option<Ref>,
    /// Record of its kept input; `None`: all was consumed.
    pub(crate) input: Option<Ref>,
    /// Output not sent, oldest first. In place, so that a session which has answered holds no
    /// memory for it.
    pub(crate) output: SmallVec<[Ref; 2]>,
    /// Number of its framing among those of its service.
    pub(crate) framing: u8,
    /// Bytes of the oldest piece that were sent.
    pub(crate) output_sent: u32,
    /// Number of topics that it is on, which lie in their own part.
    pub(crate) topics: u32,
    /// Time when bytes last came from the peer, or of its opening, in nanoseconds.
    pub(crate) heard_ns: u64,
    /// Time when the incomplete frame began, in nanoseconds; 0: there is none.
    pub(crate) frame_ns: u64,
    /// Deadline, in nanoseconds; 0: it never had one. While it is open, its peer must have been
    /// heard by then; afterwards draining or lingering ends.
    pub(super) deadline_ns: u64,
}

// An idle session costs this and its records: growing it is a decision.
const _: () = assert!(size_of::<Session>() <= 200);

/// Reason of a quarantine.
#[derive(Debug, Default)]
pub struct Quarantine {
    /// Reason in words.
    pub reason: String,
    /// Record that tells it to a successor; `None`: the code that serves next looks at the
    /// session.
    pub(crate) record: Option<Ref>,
}

impl Session {
    /// Returns an open session that has run no turn. Nothing is stored.
    pub(crate) fn new(id: u64, service: ServiceId, peer: Peer, opened_at_ms: u64) -> Session {
        Session {
            id,
            service,
            life: Life::Open,
            peer_done: false,
            outbound: false,
            carrier: Carrier::Plain,
            socket: Socket::None,
            blocks: Blocks::default(),
            output_fresh: false,
            dirty: false,
            kernel_full: false,
            send_list: SendList::None,
            has_terms: false,
            silence_told: false,
            quarantine: None,
            opened_at_ms,
            turns: 0,
            bytes_in: 0,
            bytes_out: 0,
            bytes_sent: 0,
            peer,
            state_version: 0,
            state_fingerprint: 0,
            frame: FrameState::default(),
            record: None,
            state: None,
            input: None,
            output: SmallVec::new(),
            framing: 0,
            output_sent: 0,
            topics: 0,
            heard_ns: 0,
            frame_ns: 0,
            deadline_ns: 0,
        }
    }

    /// Returns the first reason that blocks what is asked; `None`: nothing does. The table is
    /// in [`super::blocked`].
    #[inline]
    pub fn blocked_by(&self, question: Question) -> Option<Blocked> {
        if self.tls_due() {
            return Some(Blocked::TlsDue);
        }
        self.blocks.by(question)
    }

    /// Returns whether messages of its peer may be run, as far as its life is not asked.
    #[inline]
    pub(crate) fn may_run_frames(&self) -> bool {
        self.blocked_by(Question::RunFrames).is_none()
    }

    /// Returns whether it is open and actions from its inbox may be run.
    pub(crate) fn may_run_actions(&self) -> bool {
        self.life == Life::Open && self.blocked_by(Question::RunActions).is_none()
    }

    /// Returns whether its peer has said all: it has ended its side, or closed the stream by a
    /// frame.
    pub(crate) fn has_heard_all(&self) -> bool {
        self.peer_done || self.socket == Socket::Closed
    }

    /// Returns whether it may end, now that its peer has.
    pub(crate) fn may_end(&self) -> bool {
        self.has_heard_all() && self.life == Life::Open && self.blocked_by(Question::End).is_none()
    }

    /// Returns whether its connection may be read, as far as an open session that is not
    /// quarantined goes.
    pub(crate) fn may_be_read(&self) -> bool {
        self.blocked_by(Question::Read).is_none()
    }

    /// Returns whether its peer is expected to send something, so that it can be late.
    pub(crate) fn expects_peer(&self) -> bool {
        self.blocked_by(Question::ExpectPeer).is_none()
    }

    /// Returns whether a reason to wait holds.
    #[inline]
    pub fn is_blocked(&self, reason: Blocked) -> bool {
        self.blocks.has(reason)
    }

    /// Sets or clears a reason to wait, but for the quarantine. Returns whether it held before.
    /// Clearing alone runs nothing: [`super::table::Sessions::resume`] lists the session for
    /// that.
    #[inline]
    pub(crate) fn block(&mut self, reason: Blocked, holds: bool) -> bool {
        debug_assert_ne!(reason, Blocked::Quarantined, "a quarantine has a reason of its own");
        debug_assert_ne!(reason, Blocked::TlsDue, "the carrier says so");
        self.blocks.set(reason, holds)
    }

    /// Returns the reason of its quarantine, if it is quarantined.
    pub fn quarantine(&self) -> Option<&Quarantine> {
        self.quarantine.as_deref()
    }

    /// Quarantines it. Returns the quarantine before, whose record is the caller's.
    pub(crate) fn set_quarantine(&mut self, quarantine: Quarantine) -> Option<Box<Quarantine>> {
        self.blocks.set(Blocked::Quarantined, true);
        self.quarantine.replace(Box::new(quarantine))
    }

    /// Ends its quarantine, and returns it. The record is the caller's to delete.
    pub(crate) fn take_quarantine(&mut self) -> Option<Box<Quarantine>> {
        self.blocks.set(Blocked::Quarantined, false);
        self.quarantine.take()
    }

    /// Deletes the input that it keeps, and forgets the state of its framing. The record of
    /// that state is the table's. Over UDP the state is the port, which its output leaves from.
    pub(crate) fn drop_input(&mut self, store: &mut Store) {
        if self.udp_end().is_none() {
            self.frame = FrameState::default();
        }
        if let Some(r) = self.input.take() {
            store.delete(r);
        }
    }

    /// Returns its end at the host, if it is over UDP; `None`: it is a stream.
    pub fn udp_end(&self) -> Option<LocalEnd> {
        peer::end_of(&self.frame)
    }

    /// Takes what its stream stands behind, or in, from its record. A header that is due gets the
    /// whole time again, also without a byte of it.
    pub(crate) fn recover_carrier(&mut self, record: &SessionRecord, now_ns: u64) {
        self.carrier = match record {
            SessionRecord { header_due: true, tls_due, .. } => Carrier::HeaderDue { tls: *tls_due },
            SessionRecord { tls_due: true, .. } => Carrier::TlsDue,
            SessionRecord { over_tls: true, .. } => Carrier::Tls,
            SessionRecord { first_byte_due: true, .. } => Carrier::FirstByteDue,
            _ => Carrier::Plain,
        };
        if record.header_due {
            self.frame_ns = now_ns.max(1);
        }
    }

    /// Returns whether its peer's address counts it: the peer came by itself, and is known.
    pub(super) fn counts_for_peer(&self) -> bool {
        !self.outbound && !self.awaits_header()
    }

    /// Returns whether its stream is one of TLS: its counts are those of the records.
    pub fn over_tls(&self) -> bool {
        self.carrier == Carrier::Tls
    }

    /// Returns whether it is in a stream of WebSocket: what is sent stands in frames.
    pub(crate) fn in_socket(&self) -> bool {
        self.socket != Socket::None
    }

    /// Returns the number of the framing of what is sent.
    pub(crate) fn framing_sent(&self) -> u8 {
        match self.socket {
            Socket::Asked { inside } => inside,
            Socket::None | Socket::Open | Socket::Closed => self.framing,
        }
    }

    /// Returns how far WebSocket has come, be it its framing or around that.
    pub(crate) fn socket_stage(&self) -> SocketStage {
        match self.socket {
            Socket::Open | Socket::Closed => SocketStage::Open,
            Socket::None | Socket::Asked { .. } => stage(self.frame.stored()),
        }
    }

    /// Returns whether its header is not whole. It has no turn before, and no last one.
    pub(crate) fn awaits_header(&self) -> bool {
        matches!(self.carrier, Carrier::HeaderDue { .. })
    }

    /// Returns whether its header or its handshake is still to come.
    pub(crate) fn awaits_carrier(&self) -> bool {
        self.awaits_header() || self.tls_due()
    }

    /// Returns whether its stream is to become one of TLS, or its handshake is under way.
    pub fn tls_due(&self) -> bool {
        self.carrier == Carrier::TlsDue
    }

    /// Returns whether its stream may become one of TLS: it is TCP, and nothing is around it.
    pub(crate) fn may_start_tls(&self) -> bool {
        matches!(self.carrier, Carrier::Plain | Carrier::FirstByteDue) && self.peer.is_over_tcp()
    }

    /// Returns whether it stands for a service's own turns.
    pub(crate) fn is_service(&self) -> bool {
        service_of_number(self.id).is_some()
    }

    /// Returns the output that the kernel has not taken, in bytes.
    pub fn unsent(&self) -> u64 {
        self.bytes_out - self.bytes_sent
    }

    /// Returns its record, but for the length of its input, which the store knows.
    #[inline]
    pub(crate) fn to_record(&self) -> SessionRecord<&Peer> {
        SessionRecord {
            id: self.id,
            service: self.service.0,
            life: self.life,
            peer_done: self.peer_done,
            quarantined: self.quarantine.is_some(),
            opened_turn_due: self.blocks.has(Blocked::OpenedTurnDue),
            outbound: self.outbound,
            over_tls: self.over_tls(),
            in_socket: self.in_socket(),
            held: self.blocks.has(Blocked::HeldByHandler),
            tls_due: matches!(self.carrier, Carrier::TlsDue | Carrier::HeaderDue { tls: true }),
            header_due: self.awaits_header(),
            first_byte_due: self.carrier == Carrier::FirstByteDue,
            opened_at_ms: self.opened_at_ms,
            turns: self.turns,
            bytes_in: self.bytes_in,
            bytes_out: self.bytes_out,
            bytes_sent: self.bytes_sent,
            state_version: self.state_version,
            frame_searched: self.frame.searched(),
            state_fingerprint: self.state_fingerprint,
            input_bytes: 0,
            topics: self.topics.min(u32::from(u16::MAX)) as u16,
            heard: if self.has_terms { heard_units(self.heard_ns) } else { 0 },
            frame_bytes: self.frame.stored().len() as u8,
            framing: self.framing,
            peer: &self.peer,
        }
    }
}
