//! Send, close, hold, wait: effects on the turn's own session.

use super::effect::Part;
use super::staging::{Buffers, Staging};
use crate::limits::names::Limit;
use crate::turn::effect::Effect;
use greenroom_state::abi::status;

impl Staging<'_> {
    /// The peer's address.
    pub fn peer(&mut self) -> &[u8] {
        let answer = &mut self.buffers.answer;
        answer.clear();
        use std::io::Write;
        let _ = write!(answer, "{}", self.context.session.peer);
        answer
    }

    /// Sends to the session's peer.
    pub fn send(&mut self, bytes: &[u8]) -> u32 {
        self.send_parts(std::iter::once(bytes))
    }

    /// Sends a message to the session's peer, in the framing of its service. The parts are one
    /// message, one behind the other. Refused as [`status::INVALID`] if the framing can't express
    /// it.
    #[inline]
    pub fn send_parts<'b>(&mut self, parts: impl Iterator<Item = &'b [u8]>) -> u32 {
        if self.context.session.is_service() {
            return status::INVALID;
        }
        if self.context.framing.encodes() {
            return self.send_framed(parts);
        }
        let start = self.buffers.bytes.len();
        let most = self.context.limits.turn_bytes_max + self.buffers.mark.bytes;
        let arena = &mut self.buffers.bytes;
        for part in parts {
            if part.len() > most.saturating_sub(arena.len()) {
                arena.truncate(start);
                return self.refuse(Limit::TurnBytesMax);
            }
            arena.extend_from_slice(part);
        }
        let end = arena.len();
        self.stage_send(start..end)
    }

    /// Sends a message in a framing that changes it. Costs two copies of its bytes.
    fn send_framed<'b>(&mut self, parts: impl Iterator<Item = &'b [u8]>) -> u32 {
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
        if self.context.framing.encode(message, arena).is_err() {
            return status::INVALID;
        }
        if arena.len() - start > room {
            arena.truncate(start);
            return self.refuse(Limit::TurnBytesMax);
        }
        let end = arena.len();
        self.stage_send(start..end)
    }

    /// Stages a part of the arena to be sent. What follows on another send is one with it.
    #[inline]
    fn stage_send(&mut self, part: Part) -> u32 {
        match self.buffers.effects.last_mut() {
            Some(Effect::Send(last)) if last.end == part.start => last.end = part.end,
            _ => self.buffers.effects.push(Effect::Send(part)),
        }
        status::OK
    }

    /// Closes the session once its output is flushed.
    pub fn close(&mut self) -> u32 {
        if self.context.session.is_service() {
            return status::INVALID;
        }
        self.closing = true;
        status::OK
    }

    /// If another session's peer leaves too much output untaken, this one's input waits for it.
    pub fn wait_for(&mut self, session: u64) -> u32 {
        self.stage(|_| Some(Effect::WaitFor(session)))
    }

    /// From here on the session's input waits, unread; or goes on.
    pub fn hold(&mut self, held: bool) -> u32 {
        if self.context.session.is_service() {
            return status::INVALID;
        }
        self.buffers.on_itself = true;
        self.stage(|_| Some(Effect::Hold(held)))
    }
}
