//! Send, close, hold, wait: effects on the turn's own session.

use super::staging::Staging;
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

    /// Sends parts to the session's peer, one behind the other; all of them or none.
    #[inline]
    pub fn send_parts<'b>(&mut self, parts: impl Iterator<Item = &'b [u8]>) -> u32 {
        if self.context.session.is_service() {
            return status::INVALID;
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
        let part = start..arena.len();
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
