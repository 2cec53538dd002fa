//! Options of telnet and prompts: effects on the framing of the turn's own session.
//!
//! A verb is sent at its place in the output, and what it changes is staged beside it. So a turn
//! that fails has asked for nothing, and the next call of a batch finds what earlier ones asked.
//! On a session that does not speak telnet nothing happens: a handler may serve both kinds.

use super::staging::Staging;
use crate::framing::Framing;
use crate::framing::frame::FrameState;
use crate::framing::telnet;
use crate::limits::names::Limit;
use crate::turn::effect::Effect;
use greenroom_state::abi::status;

impl Staging<'_> {
    /// State of the session's framing, with what this batch has staged.
    pub(super) fn framing_state(&self) -> &FrameState {
        self.buffers.framing().unwrap_or(&self.context.session.frame)
    }

    /// Whether the session speaks telnet.
    fn is_telnet(&self) -> bool {
        matches!(self.context.encodes, Some(Framing::Telnet { .. }))
    }

    /// Asks the peer to change an option, or agrees to one from here on: WILL, WONT, DO or DONT,
    /// by its byte in the protocol. What was asked already is not asked again.
    ///
    /// Invalid for another number, for a service's own turns, and if the session has too many
    /// options.
    pub fn negotiate(&mut self, verb: u32, option: u32) -> u32 {
        let (verb, option) = (telnet::Verb::new(verb), u8::try_from(option));
        let (Some(verb), Ok(option)) = (verb, option) else { return status::INVALID };
        if self.context.session.is_service() {
            return status::INVALID;
        }
        if !self.is_telnet() {
            return status::OK;
        }
        let mut state = self.framing_state().clone();
        let Some(says) = telnet::wish(&mut state, verb, option) else { return status::INVALID };
        if state == *self.framing_state() {
            return status::OK;
        }
        let sent = self.send_as_it_is(&says);
        if sent != status::OK {
            return sent;
        }
        self.buffers.changes_framing = true;
        self.stage(|_| Some(Effect::Framing(Box::new(state))))
    }

    /// Sends a subnegotiation of an option. The peer gets the bytes as they are.
    pub fn subnegotiate(&mut self, option: u32, bytes: &[u8]) -> u32 {
        let Ok(option) = u8::try_from(option) else { return status::INVALID };
        if self.context.session.is_service() {
            return status::INVALID;
        }
        // Asked before the copy is made: the limit bounds the copy, too.
        if bytes.len() > self.context.limits.turn_bytes_max {
            return self.refuse(Limit::TurnBytesMax);
        }
        if !self.is_telnet() {
            return status::OK;
        }
        let mut framed = Vec::with_capacity(bytes.len() + 5);
        telnet::subnegotiate(option, bytes, &mut framed);
        self.send_as_it_is(&framed)
    }

    /// Sends a text behind which the peer is to answer. On telnet EOR or GA stands behind it, as
    /// that was negotiated; elsewhere it is sent like any message, as text where the framing has
    /// that.
    pub fn prompt(&mut self, text: &[u8]) -> u32 {
        if self.context.encodes.is_some_and(Framing::begins_with_request) {
            return self.send_text(text);
        }
        let sent = self.send(text);
        if sent != status::OK || !self.is_telnet() {
            return sent;
        }
        self.send_as_it_is(telnet::end_of_prompt(self.framing_state()))
    }

    /// Stages bytes that are framed already.
    fn send_as_it_is(&mut self, bytes: &[u8]) -> u32 {
        if bytes.is_empty() {
            return status::OK;
        }
        match self.copy(bytes) {
            Some(part) => self.stage_send(part),
            None => self.refuse(Limit::TurnBytesMax),
        }
    }
}
