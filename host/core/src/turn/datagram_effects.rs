//! Datagrams: what a turn sends over UDP beside its session.
//!
//! A datagram that came to the service itself is an action, and its turn answers by sends: each is
//! one datagram to where it came from. Any turn may name another address.
//!
//! The sender of a datagram may be another one than its address says. Answers that are longer than
//! what came would make the host send more to a victim than the sender has to send
//! ([RFC 9000, 8.1](https://www.rfc-editor.org/rfc/rfc9000#section-8.1) has the same bound for
//! QUIC). So limit `datagram_amplification_max` bounds what a turn sends to the address of its
//! datagram, and allows no other address. A session over UDP is bounded by all that its peer has
//! sent. A service that knows its peers lifts the limit.

use super::effect::{Effect, Part};
use super::staging::Staging;
use crate::framing::peer::DATAGRAM_BYTES_MAX;
use crate::limits::host::Limits;
use crate::limits::names::Limit;
use crate::session::life::Session;
use greenroom_state::abi::status;
use greenroom_state::address::Peer;
use std::net::SocketAddr;

/// Bytes of the headers of IPv4 and UDP. They count on both sides: an empty datagram is one, too.
const HEADER_BYTES: usize = 28;

/// Whether a session's peer may be sent so many bytes more. True for a stream, whose peer has
/// answered from its address.
pub(crate) fn is_within(s: &Session, limits: &Limits, more: u64) -> bool {
    let factor = limits.datagram_amplification_max;
    let is_bounded = factor > 0 && matches!(s.peer, Peer::Udp(_));
    !is_bounded || s.bytes_out + more <= s.bytes_in.saturating_mul(factor)
}

impl Staging<'_> {
    /// Address and length of the datagram whose turn is under way; `None`: the turn is of something
    /// else.
    pub(super) fn datagram(&self) -> Option<(SocketAddr, usize)> {
        self.buffers.datagrams.all.get(self.buffers.done).copied()
    }

    /// Sends a datagram of one part to an address, given as IP and port. Invalid: the text is no
    /// address, or the datagram is too long for one.
    pub fn send_datagram(&mut self, to: &str, bytes: &[u8]) -> u32 {
        let Ok(to) = to.parse() else { return status::INVALID };
        self.stage_datagram(to, std::iter::once(bytes))
    }

    /// Stages a datagram, whose parts stand one behind the other.
    pub(super) fn stage_datagram<'b>(
        &mut self,
        to: SocketAddr,
        parts: impl Iterator<Item = &'b [u8]>,
    ) -> u32 {
        let start = self.buffers.bytes.len();
        for part in parts {
            if self.copy(part).is_none() {
                self.buffers.bytes.truncate(start);
                return self.refuse(Limit::TurnBytesMax);
            }
        }
        let data: Part = start..self.buffers.bytes.len();
        if data.len() > DATAGRAM_BYTES_MAX {
            self.buffers.bytes.truncate(start);
            return status::INVALID;
        }
        let factor = self.context.limits.datagram_amplification_max;
        let heard = self.datagram().filter(|(from, _)| *from == to).map(|(_, len)| len);
        if factor > 0 && !self.may_answer(heard, data.len(), factor) {
            self.buffers.bytes.truncate(start);
            return self.refuse(Limit::DatagramAmplificationMax);
        }
        let mut from = self.buffers.datagrams.end;
        // Another address may have heard of another end, or of none.
        if heard.is_none() {
            from.ip = None;
        }
        self.stage(|_| Some(Effect::Datagram { from, to, data }))
    }

    /// Whether a session over UDP may be sent so many bytes more, by what its peer has sent. Bytes
    /// count as in the session's streams. Counts them if so.
    pub(super) fn may_send_to_peer(&mut self, more: usize) -> bool {
        let staged = self.buffers.peer_bytes + more as u64;
        let may = is_within(self.context.session, self.context.limits, staged);
        if may {
            self.buffers.peer_bytes = staged;
        }
        may
    }

    /// Whether the turn under way may send so many bytes more to an address that has proved
    /// nothing. Counts them if so. `heard`: length of the datagram that came from there.
    fn may_answer(&mut self, heard: Option<usize>, more: usize, factor: u64) -> bool {
        let Some(heard) = heard else { return false };
        let (turn, answered) = (self.buffers.done, &mut self.buffers.datagrams.answered);
        if answered.0 != turn {
            *answered = (turn, 0);
        }
        let all = answered.1 + (more + HEADER_BYTES) as u64;
        let may = all <= ((heard + HEADER_BYTES) as u64).saturating_mul(factor);
        if may {
            answered.1 = all;
        }
        may
    }
}
