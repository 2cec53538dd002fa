//! Deadline of a session: the earliest time by which its peer must have done something.

use super::carrier::Carrier;
use super::life::Session;
use crate::framing::websocket::stage::SocketStage;
use crate::limits::host::Limits;
use crate::limits::names::Limit;
use greenroom_state::address::Peer;

/// Milliseconds after which a silent peer over UDP is gone, unless `idle_ms` says otherwise.
const UDP_IDLE_MS: u64 = 60_000;

impl Session {
    /// Notes that bytes of its peer came. Returns whether its silence was told.
    #[inline]
    pub(crate) fn hears(&mut self, now_ns: u64) -> bool {
        self.heard_ns = now_ns;
        self.frame.set_pinged(false);
        if self.carrier == Carrier::FirstByteDue {
            self.carrier = Carrier::Plain;
        }
        self.silence_told
    }

    /// Begins the peer's silence anew, as the host did not let it speak until now. A frame that has
    /// begun gets its whole time again.
    pub(super) fn begin_silence(&mut self, now_ns: u64) {
        // A nanosecond before: the send queue takes a session that was heard in this very pass
        // first.
        let from_ns = now_ns.saturating_sub(1);
        self.heard_ns = from_ns;
        self.frame.set_pinged(false);
        // 0 stays: it says that no frame has begun.
        if self.frame_ns > 0 && !self.tls_due() {
            self.frame_ns = from_ns;
        }
    }

    /// Returns the earliest time by which its peer must have been heard, or have taken output,
    /// in nanoseconds. Beside it are the limit that says so, and its milliseconds. `None`: there
    /// is no such limit. `stuck_ns`: the time since when the kernel takes no output. O(1).
    pub(crate) fn timeout(&self, limits: &Limits, stuck_ns: Option<u64>) -> Option<(u64, Limit, u64)> {
        // On an outbound connection the host may be the one to speak first.
        let silent = match self.carrier {
            Carrier::HeaderDue { .. } | Carrier::TlsDue => false,
            Carrier::FirstByteDue => true,
            // A handshake is no word of its own.
            Carrier::Tls => self.turns <= 1 && self.input.is_none(),
            Carrier::Plain => self.bytes_in == 0,
        };
        let first = if silent && !self.outbound { limits.first_byte_ms } else { 0 };
        let header = if self.awaits_header() { limits.proxy_header_ms } else { 0 };
        let (frame, frame_limit) = match self.tls_due() {
            // The handshaker judges the time. This is for an outcome that got lost.
            true => (3 * limits.handshake_ms + 10_000, Limit::HandshakeMs),
            false => (limits.frame_ms, Limit::FrameMs),
        };
        let frame = if self.frame_ns > 0 { frame } else { 0 };
        // Pinged already: the answer has as much time again.
        let ping = if self.socket_stage() == SocketStage::Open { limits.ping_ms } else { 0 };
        let ping_from = self.heard_ns + if self.frame.is_pinged() { ping * 1_000_000 } else { 0 };
        let all = [
            (self.heard_ns, first, Limit::FirstByteMs),
            (self.heard_ns, self.idle_ms(limits), Limit::IdleMs),
            (self.frame_ns, header, Limit::ProxyHeaderMs),
            (self.frame_ns, frame, frame_limit),
            (stuck_ns.unwrap_or(0), stuck_ns.map_or(0, |_| limits.output_ms), Limit::OutputMs),
            (ping_from, ping, Limit::PingMs),
        ];
        let set = all.into_iter().filter(|(_, ms, _)| *ms > 0);
        set.map(|(from, ms, name)| (from + ms * 1_000_000, name, ms)).min()
    }

    /// Returns the time in which its peer may send nothing, in milliseconds; 0: no limit. A peer
    /// over UDP never says that it leaves, so it always has one.
    fn idle_ms(&self, limits: &Limits) -> u64 {
        match (&self.peer, limits.idle_ms) {
            (Peer::Udp(_), 0) => UDP_IDLE_MS,
            (_, ms) => ms,
        }
    }
}
