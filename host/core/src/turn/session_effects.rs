//! Send, close, hold, wait: effects on the turn's own session.
//!
//! Calls answer with a [`status`]. A call that is refused stages nothing. A service's own turns
//! have no peer and no input: their sends, closes and holds are invalid.

use super::effect::Part;
use super::staging::{Buffers, Staging};
use crate::framing::Framing;
use crate::limits::names::Limit;
use crate::turn::effect::Effect;
use greenroom_state::abi::status;

impl Staging<'_> {
    /// Address of the peer as text, valid until the next call. Of no meaning for a service's own
    /// turn.
    pub fn peer(&mut self) -> &[u8] {
        let answer = &mut self.buffers.answer;
        answer.clear();
        use std::io::Write;
        let _ = write!(answer, "{}", self.context.session.peer);
        answer
    }

    /// Sends a message of one part to the session's peer, like [`Staging::send_parts`].
    pub fn send(&mut self, bytes: &[u8]) -> u32 {
        self.send_parts(std::iter::once(bytes))
    }

    /// Sends a message to the session's peer, in the framing of its service. The parts are one
    /// message, one behind the other. Nothing is sent before the commit.
    ///
    /// Refused as [`status::INVALID`] if the framing can't express the message, and as
    /// [`status::LIMIT`] over `turn_bytes_max`. Costs one copy of the bytes, two if the framing
    /// encodes.
    #[inline]
    pub fn send_parts<'b>(&mut self, parts: impl Iterator<Item = &'b [u8]>) -> u32 {
        if self.context.session.is_service() {
            return status::INVALID;
        }
        if let Some(framing) = self.context.encodes {
            return self.send_framed(framing, parts);
        }
        let start = self.buffers.bytes.len();
        // Bytes of earlier turns, up to the mark, don't count against this turn.
        let most = self.context.limits.turn_bytes_max + self.buffers.mark.bytes;
        let arena = &mut self.buffers.bytes;
        for part in parts {
            if part.len() > most.saturating_sub(arena.len()) {
                // A message that is refused goes as a whole.
                arena.truncate(start);
                return self.refuse(Limit::TurnBytesMax);
            }
            arena.extend_from_slice(part);
        }
        let end = arena.len();
        self.stage_send(start..end)
    }

    /// Sends a message in a framing that changes it. Costs two copies of its bytes: a framing
    /// encodes whole messages.
    fn send_framed<'b>(&mut self, framing: &Framing, parts: impl Iterator<Item = &'b [u8]>) -> u32 {
        let (own_framing, dialect) = (self.context.own_framing, framing.dialect(self.framing_state()));
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
        let framed = match framing {
            Framing::Custom { .. } => own_framing(message).map(|framed| arena.extend(framed)),
            _ => framing.encode_in(dialect, message, arena).map_err(str::to_owned),
        };
        if framed.is_err() {
            return status::INVALID;
        }
        // The limit counts framed bytes: these are what the store and the peer get.
        if arena.len() - start > room {
            arena.truncate(start);
            return self.refuse(Limit::TurnBytesMax);
        }
        let end = arena.len();
        self.stage_send(start..end)
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
        status::OK
    }

    /// Lets this session's input wait while another session's peer leaves too much output
    /// untaken. If that session is gone or is not full when the turn is applied, nothing
    /// happens.
    pub fn wait_for(&mut self, session: u64) -> u32 {
        self.stage(|_| Some(Effect::WaitFor(session)))
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
