//! One session: its life as a table, and what memory holds of it. All but the indexes is also in
//! its record.
//!
//! | life | event | becomes |
//! | --- | --- | --- |
//! | open | a reason to close it, after its last turn | draining |
//! | draining | output flushed, our end shut | lingering |
//! | draining | output flushed, the peer already done | gone |
//! | lingering | the peer's end shut | gone |
//! | any | connection broken, output over its limit, a deadline | gone |
//!
//! A transition outside the table is logged and refused.

use super::blocked::{Blocked, Blocks, Question};
use crate::framing::frame::FrameState;
use crate::ids::{ServiceId, service_of_number};
use crate::limits::host::Limits;
use crate::limits::names::Limit;
use crate::store::layout::Ref;
use crate::store::records::Store;
use greenroom_state::address::Peer;
pub use greenroom_state::session_record::Life;
use greenroom_state::session_record::SessionRecord;
use smallvec::SmallVec;

/// One session. See the module.
#[derive(Debug)]
pub struct Session {
    /// Number, never used twice.
    pub id: u64,
    /// Service that it belongs to.
    pub service: ServiceId,
    /// Stage of its life.
    pub life: Life,
    /// Whether the peer has ended its side.
    pub peer_done: bool,
    /// Whether we connected to its peer.
    pub outbound: bool,
    /// Reasons why it waits.
    blocks: Blocks,
    /// Whether its newest output record was made in this pass, so that the record may still grow.
    pub(super) output_fresh: bool,
    /// Whether [`super::table::Sessions`] lists it as changed in this pass.
    pub(super) dirty: bool,
    /// Whether the kernel took less than it was offered. The shell reports when it takes more.
    pub(crate) kernel_full: bool,
    /// Whether [`super::send_queue::SendQueue`] lists it among those that wait.
    pub(super) waits_to_send: bool,
    /// Reason of its quarantine.
    quarantine: Option<Box<Quarantine>>,
    /// Time of its opening, in milliseconds since 1970.
    pub opened_at_ms: u64,
    /// Turns run.
    pub turns: u64,
    /// Bytes taken from the peer.
    pub bytes_in: u64,
    /// Bytes produced for the peer.
    pub bytes_out: u64,
    /// Bytes of those that the kernel took.
    pub bytes_sent: u64,
    /// Address of the peer.
    pub peer: Peer,
    /// Version of the stored state; 0: none stored.
    pub state_version: u32,
    pub(crate) state_fingerprint: u64,
    pub(crate) frame: FrameState,
    pub(crate) record: Option<Ref>,
    pub(crate) state: Option<Ref>,
    pub(crate) input: Option<Ref>,
    /// Output not sent, oldest first. In place, so that a session which has answered holds no
    /// memory for it.
    pub(crate) output: SmallVec<[Ref; 2]>,
    /// [`crate::service::registry::Service::framings`] when its input was kept: the framing that
    /// `frame` is the state of.
    pub(crate) framings: u16,
    /// Bytes of the oldest piece that were sent.
    pub(crate) output_sent: u32,
    /// Boxed, as few sessions have any and each idle session costs what this struct does.
    pub(crate) subscriptions: Option<Box<Subscriptions>>,
    /// Time when bytes last came from the peer, or of its opening, in nanoseconds.
    pub(crate) heard_ns: u64,
    /// Time when the incomplete frame began, in nanoseconds; 0: there is none.
    pub(crate) frame_ns: u64,
    /// End of draining or lingering, or the time by which an open session's peer must have been
    /// heard, in nanoseconds.
    pub(super) deadline_ns: u64,
}

// An idle session costs this and its records: growing it is a decision.
const _: () = assert!(size_of::<Session>() <= 200);

/// The topics of a session, and the record that lists them.
#[derive(Debug, Default)]
pub(crate) struct Subscriptions {
    pub(crate) topics: Vec<Box<str>>,
    pub(crate) record: Option<Ref>,
}

/// The reason of a quarantine.
#[derive(Debug, Default)]
pub struct Quarantine {
    /// The reason, in words.
    pub reason: String,
    /// Record that tells it to a successor.
    pub(crate) record: Option<Ref>,
}

impl Session {
    /// An open session that has run no turn.
    pub(crate) fn new(id: u64, service: ServiceId, peer: Peer, opened_at_ms: u64) -> Session {
        Session {
            id,
            service,
            life: Life::Open,
            peer_done: false,
            outbound: false,
            blocks: Blocks::default(),
            output_fresh: false,
            dirty: false,
            kernel_full: false,
            waits_to_send: false,
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
            framings: 0,
            output_sent: 0,
            subscriptions: None,
            heard_ns: 0,
            frame_ns: 0,
            deadline_ns: 0,
        }
    }

    /// The first reason that blocks what is asked; `None`: nothing does. The table is in
    /// [`super::blocked`].
    #[inline]
    pub fn blocked_by(&self, question: Question) -> Option<Blocked> {
        self.blocks.by(question)
    }

    /// Whether messages of its peer may be run.
    #[inline]
    pub(crate) fn may_run_frames(&self) -> bool {
        self.blocked_by(Question::RunFrames).is_none()
    }

    /// Whether actions from its inbox may be run.
    pub(crate) fn may_run_actions(&self) -> bool {
        self.life == Life::Open && self.blocked_by(Question::RunActions).is_none()
    }

    /// Whether it may end, now that its peer has.
    pub(crate) fn may_end(&self) -> bool {
        self.peer_done && self.life == Life::Open && self.blocked_by(Question::End).is_none()
    }

    /// Whether its connection may be read, as far as an open session that is not quarantined goes.
    pub(crate) fn may_be_read(&self) -> bool {
        self.blocked_by(Question::Read).is_none()
    }

    /// Whether its peer is expected to send something, so that it can be late.
    pub(crate) fn expects_peer(&self) -> bool {
        self.blocked_by(Question::ExpectPeer).is_none()
    }

    /// Whether a reason to wait holds.
    #[inline]
    pub fn is_blocked(&self, reason: Blocked) -> bool {
        self.blocks.has(reason)
    }

    /// Sets or clears a reason to wait, but for the quarantine. Returns whether it held before.
    #[inline]
    pub(crate) fn block(&mut self, reason: Blocked, holds: bool) -> bool {
        debug_assert_ne!(reason, Blocked::Quarantined, "a quarantine has a reason of its own");
        self.blocks.set(reason, holds)
    }

    /// The reason of its quarantine, if it is quarantined.
    pub fn quarantine(&self) -> Option<&Quarantine> {
        self.quarantine.as_deref()
    }

    /// Quarantines it. Returns the quarantine before.
    pub(crate) fn set_quarantine(&mut self, quarantine: Quarantine) -> Option<Box<Quarantine>> {
        self.blocks.set(Blocked::Quarantined, true);
        self.quarantine.replace(Box::new(quarantine))
    }

    /// Ends its quarantine, and returns it.
    pub(crate) fn take_quarantine(&mut self) -> Option<Box<Quarantine>> {
        self.blocks.set(Blocked::Quarantined, false);
        self.quarantine.take()
    }

    /// The topics it is on.
    pub(crate) fn topics(&self) -> &[Box<str>] {
        self.subscriptions.as_ref().map_or(&[], |s| &s.topics)
    }

    /// The subscriptions, made if there are none.
    pub(crate) fn subscriptions(&mut self) -> &mut Subscriptions {
        self.subscriptions.get_or_insert_default()
    }

    /// Deletes the input that it keeps, and forgets the state of its framing.
    pub(crate) fn drop_input(&mut self, store: &mut Store) {
        self.frame = FrameState::default();
        if let Some(r) = self.input.take() {
            store.delete(r);
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

    /// Time by which its peer must have been heard, in nanoseconds, the limit that says so, and its
    /// milliseconds; `None`: there is no such limit.
    pub(crate) fn timeout(&self, limits: &Limits) -> Option<(u64, Limit, u64)> {
        let first = if self.bytes_in == 0 && !self.outbound { limits.first_byte_ms } else { 0 };
        let frame = if self.frame_ns > 0 { limits.frame_ms } else { 0 };
        let all = [
            (self.heard_ns, first, Limit::FirstByteMs),
            (self.heard_ns, limits.idle_ms, Limit::IdleMs),
            (self.frame_ns, frame, Limit::FrameMs),
        ];
        let set = all.into_iter().filter(|(_, ms, _)| *ms > 0);
        set.map(|(from, ms, name)| (from + ms * 1_000_000, name, ms)).min()
    }

    /// Its record, but for the length of its input, which the store knows.
    pub(crate) fn to_record(&self) -> SessionRecord {
        SessionRecord {
            id: self.id,
            service: self.service.0,
            life: self.life,
            peer_done: self.peer_done,
            quarantined: self.quarantine.is_some(),
            opened_turn_due: self.blocks.has(Blocked::OpenedTurnDue),
            outbound: self.outbound,
            held: self.blocks.has(Blocked::HeldByHandler),
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
            frame_bytes: self.frame.stored().len() as u8,
            peer: self.peer.clone(),
        }
    }
}
