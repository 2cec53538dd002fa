//! Send, close, hold, wait: effects on the turn's own session.
//!
//! Calls answer with a [`status`]. A call that is refused stages nothing. A service's own turns
//! have no session: their sends, closes and holds are invalid. But the turn of a datagram has a
//! peer.

use super::effect::Part;
use super::staging::{Buffers, Staging};
use crate::framing::Framing;
use crate::framing::frame::Dialect;
use crate::framing::websocket::farewell::REASON_BYTES_MAX;
use crate::framing::websocket::request;
use crate::framing::websocket::sent::wrap;
use crate::limits::names::Limit;
use crate::tls::due::is_server_name;
use crate::turn::effect::Effect;
use greenroom_state::abi::status;
use greenroom_state::address::Peer;

impl Staging<'_> {
    /// Address of the peer as text, valid until the next call. Of no meaning for a service's own
    /// turn.
    pub fn peer(&mut self) -> &[u8] {
        let answer = &mut self.buffers.answer;
        answer.clear();
        use std::io::Write;
        let _ = match self.buffers.datagrams.all.get(self.buffers.done) {
            Some((from, _)) => write!(answer, "{}", Peer::udp(*from)),
            None => write!(answer, "{}", self.context.session.peer),
        };
        answer
    }

    /// Sends a message of one part to the session's peer, like [`Staging::send_parts`].
    pub fn send(&mut self, bytes: &[u8]) -> u32 {
        self.send_parts(std::iter::once(bytes))
    }

    /// Sends a line to the session's peer, given without its ending: as a message with LF, or as
    /// text where the framing has that.
    #[inline]
    pub fn send_line(&mut self, line: &[u8]) -> u32 {
        if self.context.encodes.is_some_and(Framing::begins_with_request) {
            return self.send_text(line);
        }
        self.send_parts([line, b"\n"].into_iter())
    }

    /// Sends a message to the session's peer, in the framing of its service. The parts are one
    /// message, one behind the other. Nothing is sent before the commit.
    ///
    /// Refused as [`status::INVALID`] if the framing can't express the message, and as
    /// [`status::LIMIT`] over `turn_bytes_max`. Costs one copy of the bytes, two if the framing
    /// encodes.
    #[inline]
    pub fn send_parts<'b>(&mut self, mut parts: impl Iterator<Item = &'b [u8]>) -> u32 {
        if self.context.session.is_service() {
            // A datagram is answered where it came from.
            let to = self.datagram().map(|(from, _)| from);
            return to.map_or(status::INVALID, |to| self.stage_datagram(to, parts));
        }
        if let Some(framing) = self.context.encodes {
            return self.send_encoded(framing, parts);
        }
        let start = self.buffers.bytes.len();
        // Bytes of earlier turns, up to the mark, don't count against this turn.
        let most = self.context.limits.turn_bytes_max + self.buffers.mark.bytes;
        let mut left = most.saturating_sub(start);
        let arena = &mut self.buffers.bytes;
        let fits = parts.all(|part| {
            let fits = part.len() <= left;
            if fits {
                left -= part.len();
                arena.extend_from_slice(part);
            }
            fits
        });
        if !fits {
            // A message that is refused goes as a whole.
            arena.truncate(start);
            return self.refuse(Limit::TurnBytesMax);
        }
        let end = arena.len();
        self.stage_send(start..end)
    }

    /// Sends a message in a framing that changes it, or by the code of the library that it is of.
    fn send_encoded<'b>(&mut self, framing: &Framing, parts: impl Iterator<Item = &'b [u8]>) -> u32 {
        let (own_framing, in_socket) = (self.context.own_framing, self.context.session.in_socket());
        let dialect = framing.dialect(self.framing_state());
        self.send_framed(parts, |message, out| {
            let begin = out.len();
            match framing.calls_code() {
                true => out.extend(own_framing(message)?),
                false => framing.encode_in(dialect, message, out)?,
            }
            if in_socket {
                wrap(out, begin);
            }
            Ok(())
        })
    }

    /// Sends a message as `encode` frames it. Costs two copies of its bytes: a framing encodes
    /// whole messages.
    fn send_framed<'b>(
        &mut self,
        parts: impl Iterator<Item = &'b [u8]>,
        encode: impl Fn(&[u8], &mut Vec<u8>) -> Result<(), String>,
    ) -> u32 {
        let Buffers { bytes: arena, message, mark, .. } = &mut *self.buffers;
        let start = arena.len();
        let room = self.context.limits.turn_bytes_max.saturating_sub(start - mark.bytes);
        message.clear();
        for part in parts {
            if part.len() > room.saturating_sub(message.len()) {
                return self.refuse(Limit::TurnBytesMax);
            }
            message.extend_from_slice(part);
        }
        if encode(message, arena).is_err() {
            return status::INVALID;
        }
        // The limit counts framed bytes: these are what the store and the peer get.
        if arena.len() - start > room {
            arena.truncate(start);
            return self.refuse(Limit::TurnBytesMax);
        }
        let end = arena.len();
        if matches!(self.context.encodes, Some(Framing::Peer { .. })) && !self.may_send_to_peer(end - start) {
            self.buffers.bytes.truncate(start);
            return self.refuse(Limit::DatagramAmplificationMax);
        }
        self.stage_send(start..end)
    }

    /// Sends a line as text. A service's own turns have no peer.
    pub(super) fn send_text(&mut self, line: &[u8]) -> u32 {
        let Some(framing) = self.context.encodes.filter(|_| !self.context.session.is_service()) else {
            return status::INVALID;
        };
        self.send_framed([line, b"\n"].into_iter(), |message, out| {
            framing.encode_line(Dialect::Plain, message, out).map_err(str::to_owned)
        })
    }

    /// Stages a part of the arena to be sent. A send that follows on another one, without a gap
    /// in the arena, extends that effect.
    #[inline]
    pub(super) fn stage_send(&mut self, part: Part) -> u32 {
        match self.buffers.effects.last_mut() {
            Some(Effect::Send(last)) if last.end == part.start => last.end = part.end,
            _ => self.buffers.effects.push(Effect::Send(part)),
        }
        status::OK
    }

    /// Closes the session once its output is flushed, if the turn succeeds. The batch ends with
    /// this turn; the session gets its last turn then.
    pub fn close(&mut self) -> u32 {
        if self.context.session.is_service() {
            return status::INVALID;
        }
        self.closing = true;
        // Words of a turn that failed, perhaps of another session.
        self.buffers.close_words = None;
        status::OK
    }

    /// Closes the session like [`Staging::close`], and tells the peer a code and a reason, if its
    /// framing has words. Invalid: a code that a handler can't send, or a reason that has no room.
    pub fn close_with(&mut self, code: u32, reason: &str) -> u32 {
        if !(code == 1000 || (3000..5000).contains(&code)) || reason.len() > REASON_BYTES_MAX {
            return status::INVALID;
        }
        let closed = self.close();
        if closed == status::OK {
            self.buffers.close_words = Some(Box::new((code as u16, reason.to_owned())));
        }
        closed
    }

    /// Returns the time of the calendar in this pass: nanoseconds since 1970, UTC.
    pub fn wall(&self) -> u64 {
        self.context.wall_ns
    }

    /// Returns a fact about the connection or the build; `None`: there is none of the name.
    pub fn fact(&mut self, name: &str) -> Option<&[u8]> {
        let own = || self.buffers.facts.iter().find(|(n, _)| *n == name).map(|(_, value)| value.clone());
        self.buffers.answer = self.context.fact_of(name, own)?;
        Some(&self.buffers.answer)
    }

    /// Answers the request for a page, once. Invalid: none is asked for, it is answered, or the
    /// type is no header's value.
    pub fn page(&mut self, content_type: &[u8], page: &[u8]) -> u32 {
        let is_value = !content_type.is_empty() && content_type.iter().all(|b| (b' '..=b'~').contains(b));
        let Some(head_only) = self.buffers.page.filter(|_| is_value) else { return status::INVALID };
        if !self.buffers.effects.is_empty() {
            return status::INVALID;
        }
        let Buffers { bytes: arena, mark, .. } = &mut *self.buffers;
        let start = arena.len();
        let room = self.context.limits.turn_bytes_max.saturating_sub(start - mark.bytes);
        if content_type.len() + page.len() > room {
            return self.refuse(Limit::TurnBytesMax);
        }
        request::page(content_type, page, head_only, arena);
        let end = arena.len();
        self.stage_send(start..end)
    }

    /// Lets this session's input wait while another session's peer leaves too much output
    /// untaken, or too many actions wait for that session. If that session is gone or takes more
    /// when the turn is applied, nothing happens.
    pub fn wait_for(&mut self, session: u64) -> u32 {
        self.stage(|_| Some(Effect::WaitFor(session)))
    }

    /// Makes the session's stream one of TLS, behind what was sent so far. The batch ends with this
    /// turn: the peer's bytes behind it are its handshake. `server_name`: the name that the
    /// server's certificate must have, if the host has connected; else empty.
    ///
    /// Invalid if the stream is not plain TCP, or speaks WebSocket, or for a name that is none.
    pub fn start_tls(&mut self, server_name: &str) -> u32 {
        let s = self.context.session;
        let is_socket = s.in_socket() || self.context.encodes.is_some_and(Framing::begins_with_request);
        let is_named = match s.outbound {
            true => is_server_name(server_name),
            false => server_name.is_empty(),
        };
        if s.is_service() || !s.may_start_tls() || is_socket || !is_named {
            return status::INVALID;
        }
        self.buffers.on_itself = true;
        self.stage(|s| Some(Effect::StartTls(s.copy(server_name.as_bytes())?)))
    }

    /// Bounds the messages that the session's peer may send, from the next one on. A longer one
    /// ends the session, as one beyond the service's own bound does. 0: the service's bound alone.
    pub fn frame_max(&mut self, bytes: u32) -> u32 {
        if self.context.session.is_service() {
            return status::INVALID;
        }
        // Messages behind this one are cut by the new bound.
        self.buffers.on_itself = true;
        self.stage(|_| Some(Effect::FrameMax(bytes)))
    }

    /// Has the session told once its peer was silent so long, in nanoseconds. The time counts from
    /// the last byte, or from this pass. Each silence is told once. 0: none is told.
    pub fn idle_after(&mut self, after_ns: u64) -> u32 {
        if self.context.session.is_service() {
            return status::INVALID;
        }
        self.stage(|_| Some(Effect::IdleAfter(after_ns)))
    }

    /// Lets the session's input wait, unread, or go on. The batch ends with this turn, as the
    /// actions behind it may be input.
    pub fn hold(&mut self, held: bool) -> u32 {
        if self.context.session.is_service() {
            return status::INVALID;
        }
        self.buffers.on_itself = true;
        self.stage(|_| Some(Effect::Hold(held)))
    }
}
