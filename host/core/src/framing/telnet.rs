//! Telnet: lines between commands, as RFC 854, 855 and 1143 have them.
//!
//! - A line ends in LF, CR LF or CR NUL. CR before anything else belongs to the message. While the
//!   peer's BINARY is on, CR NUL is two bytes of the message.
//! - IAC IAC is the byte 255 of a message.
//! - An option is negotiated as [`options`] has it: a turn asks for it, or it is refused. What
//!   comes of it is an action of the handler.
//! - A subnegotiation of an option that is on is an action, too; any other is skipped. One that is
//!   longer than [`SUBNEGOTIATION_BYTES_MAX`] ends the session.
//! - AYT is answered. All other commands are skipped.
//! - Output has IAC doubled, LF as CR LF, and CR before anything else as CR NUL. While our BINARY
//!   is on, only IAC is changed. IAC EOR or IAC GA stands behind a prompt.
//!
//! A command at the start of a line is consumed by itself. A command inside a line stays in the
//! input until the line is whole, since a line leaves the input as one. The stored state says
//! how far commands were dealt with, so each is dealt with once: a second search from the line's
//! beginning finds no end before that place, whatever BINARY was then.
//!
//! Costs: each byte is searched once as long as the cache is kept, and a line near its limit
//! again. A line without IAC is a slice of the input; any other is copied once. Limits bound
//! the message, the bytes of a subnegotiation, and all bytes of a line.

mod options;

use super::frame::{Frame, FrameBuffers, FrameEvent, FrameState, Payload};
use arrayvec::ArrayVec;
use greenroom_state::abi::action;
use memchr::{memchr, memchr3};
use options::{BINARY, DO, DONT, END_OF_RECORD, SUPPRESS_GO_AHEAD, Side, TelnetState, WILL, WONT};

/// Begins a command; doubled, it is data.
const IAC: u8 = 255;
/// Begins a subnegotiation.
const SB: u8 = 250;
/// Go ahead: the end of what we have to say for now.
const GA: u8 = 249;
/// Asks whether the host is there.
const AYT: u8 = 246;
/// Ends a subnegotiation.
const SE: u8 = 240;
/// End of a record (RFC 885).
const EOR: u8 = 239;

/// Most bytes of a subnegotiation, with its commands.
const SUBNEGOTIATION_BYTES_MAX: usize = 1024;

/// Most bytes that a line's commands and doubled bytes may take, beside twice what the message
/// may have. Without this bound a peer could fill the record of kept input with commands.
const OVERHEAD_BYTES_MAX: usize = 4096;

/// Cuts the next line or command.
///
/// Searches each byte once, as long as `state.searched` is kept, but for a line that is near
/// its limit. A line without IAC is a slice of the input. Gives at most one reply, so a caller
/// calls it again until it says [`Frame::More`].
pub(super) fn cut<'i>(
    input: &'i [u8],
    state: &mut FrameState,
    bytes_max: usize,
    buffers: &mut FrameBuffers,
) -> Frame<'i> {
    let before = TelnetState::read(state.stored());
    let answered = before.answered as usize;
    let is_binary = before.is_on(BINARY, Side::Peer);
    let mut at = (state.searched() as usize).min(input.len());
    let mut after_cr = false;
    // A later search may begin at `safe`: no command is under way, and the byte before is no CR.
    let mut safe = at;
    // A line ends or a command begins at LF, NUL and IAC alone: a CR by itself decides nothing.
    while let Some(found) = memchr3(b'\n', 0, IAC, &input[at..]) {
        // Without bytes in between, the CR before counts: a command may stand inside an ending.
        if found > 0 {
            at += found;
            after_cr = input[at - 1] == b'\r';
            safe = at - usize::from(after_cr);
        }
        match unit(&input[at..]) {
            Unit::Data(byte, len) => {
                at += len;
                // No line ended before a command that was dealt with, though BINARY was on then.
                if byte == b'\n' || (byte == 0 && after_cr && !is_binary && at > answered) {
                    return line(&input[..at], state, bytes_max, buffers);
                }
                (after_cr, safe) = (false, at);
            }
            Unit::Command { len, command } => {
                let begin = at;
                at += len;
                // A line has not begun, so nothing of it is lost by consuming the command.
                if begin == 0 {
                    deal_with(command, state, 0, buffers);
                    return Frame::Reply { consumed: len };
                }
                // Behind CR and a command the ending may still come: a later search needs the CR.
                if !after_cr {
                    safe = at;
                }
                if !matches!(command, Command::Other) && at > answered {
                    // Asked before the reply, so that the parts in which the input came do not
                    // decide about it.
                    if is_too_long(&input[..begin], bytes_max) {
                        return Frame::TooLong;
                    }
                    state.set_searched(safe as u32);
                    deal_with(command, state, at, buffers);
                    return Frame::Reply { consumed: 0 };
                }
            }
            // A line that was too long before the subnegotiation is refused as such, however it
            // came.
            Unit::TooLong if !is_too_long(&input[..at], bytes_max) => {
                return Frame::Invalid("a telnet subnegotiation is too long");
            }
            Unit::Part | Unit::TooLong => break,
        }
    }
    wait_for_more(input, (at, safe), state, bytes_max)
}

/// Ends a cut that has found no whole line. `at` is the place of a part of a command, or of bytes
/// of the line and nothing else; a later search may begin at `safe`.
fn wait_for_more<'i>(
    input: &[u8],
    (mut at, mut safe): (usize, usize),
    state: &mut FrameState,
    bytes_max: usize,
) -> Frame<'i> {
    if at < input.len() && input[at] != IAC {
        at = input.len();
        safe = at - usize::from(input[at - 1] == b'\r');
    }
    if is_too_long(&input[..at], bytes_max) {
        return Frame::TooLong;
    }
    state.set_searched(safe as u32);
    Frame::More
}

/// Deals with a command: changes the state of the session, and appends a reply and an event.
/// `answered`: the bytes of the line up to the command's end, 0 if no line has begun.
fn deal_with(command: Command<'_>, state: &mut FrameState, answered: usize, buffers: &mut FrameBuffers) {
    let mut telnet = TelnetState::read(state.stored());
    match command {
        Command::AreYouThere => buffers.replies.extend(b"[yes]\r\n"),
        Command::Verb(verb, option) => {
            let answer = telnet.hear(verb, option);
            buffers.replies.extend(answer.verb.iter().flat_map(|verb| [IAC, *verb, option]));
            if answer.is_news {
                let said = vec![verb, u8::from(answer.is_on)];
                buffers.event =
                    Some(FrameEvent { kind: action::NEGOTIATED, detail: option.into(), data: said });
            }
        }
        Command::Subnegotiation(within) => {
            let mut data = unescaped(within);
            if !data.is_empty() && telnet.is_on_somewhere(data[0]) {
                let option = data.remove(0);
                buffers.event =
                    Some(FrameEvent { kind: action::SUBNEGOTIATION, detail: option.into(), data });
            }
        }
        Command::Other => {}
    }
    telnet.answered = answered as u32;
    telnet.write(state);
}

/// Returns the bytes of a subnegotiation. IAC IAC is the byte 255; IAC before any other byte means
/// nothing there, and both are left out.
fn unescaped(within: &[u8]) -> Vec<u8> {
    let (mut bytes, mut rest) = (Vec::new(), within);
    while let Some(at) = memchr(IAC, rest) {
        bytes.extend(&rest[..at]);
        bytes.extend(rest.get(at + 1).filter(|byte| **byte == IAC));
        rest = rest.get(at + 2..).unwrap_or_default();
    }
    bytes.extend(rest);
    bytes
}

/// Unit at the beginning of the input.
enum Unit<'i> {
    /// Byte of a line, and how many bytes it takes.
    Data(u8, usize),
    /// Command, and how many bytes it takes.
    Command { len: usize, command: Command<'i> },
    /// Command that is not whole.
    Part,
    /// Subnegotiation without an end within its limit.
    TooLong,
}

/// Command of the peer.
#[derive(Clone, Copy)]
enum Command<'i> {
    /// Verb about an option.
    Verb(u8, u8),
    /// Bytes of a subnegotiation between IAC SB and IAC SE, as they came.
    Subnegotiation(&'i [u8]),
    /// Question whether the host is there.
    AreYouThere,
    /// Any other, which is skipped.
    Other,
}

/// Reads one byte of a line, or one command. `bytes` has at least one byte. O(1), but for a
/// subnegotiation.
fn unit(bytes: &[u8]) -> Unit<'_> {
    match bytes {
        [IAC] | [IAC, DO | DONT | WILL | WONT] => Unit::Part,
        [IAC, IAC, ..] => Unit::Data(IAC, 2),
        [IAC, verb @ (DO | DONT | WILL | WONT), option, ..] => {
            Unit::Command { len: 3, command: Command::Verb(*verb, *option) }
        }
        [IAC, SB, ..] => subnegotiation(bytes),
        [IAC, AYT, ..] => Unit::Command { len: 2, command: Command::AreYouThere },
        [IAC, _, ..] => Unit::Command { len: 2, command: Command::Other },
        bytes => Unit::Data(bytes[0], 1),
    }
}

/// Finds the IAC SE that ends a subnegotiation; IAC IAC inside is a byte of it.
fn subnegotiation(bytes: &[u8]) -> Unit<'_> {
    // A longer subnegotiation is refused, so bytes behind the limit are not searched.
    let within = &bytes[..bytes.len().min(SUBNEGOTIATION_BYTES_MAX)];
    let mut at = 2;
    while let Some(found) = memchr(IAC, &within[at..]) {
        at += found;
        match within.get(at + 1) {
            Some(&SE) => {
                return Unit::Command { len: at + 2, command: Command::Subnegotiation(&within[2..at]) };
            }
            // Any byte behind IAC belongs to it, so an escaped IAC never begins the end.
            Some(_) => at += 2,
            None => break,
        }
    }
    if bytes.len() >= SUBNEGOTIATION_BYTES_MAX { Unit::TooLong } else { Unit::Part }
}

/// Makes a message of a whole line with its ending. The state is then that of a fresh line; its
/// options stay.
fn line<'i>(
    whole: &'i [u8],
    state: &mut FrameState,
    bytes_max: usize,
    buffers: &mut FrameBuffers,
) -> Frame<'i> {
    let consumed = whole.len();
    let begin = buffers.payloads.len();
    let bytes = match memchr(IAC, whole) {
        None => whole,
        Some(_) => {
            each_byte(whole, |byte| buffers.payloads.push(byte));
            &buffers.payloads[begin..]
        }
    };
    let ending = if bytes.ends_with(b"\r\n") || bytes.ends_with(b"\r\0") { 2 } else { 1 };
    let len = bytes.len() - ending;
    // Commands and doubled bytes make the line shorter. An IAC of the line always takes two
    // bytes.
    let escaped = bytes.len() < consumed;
    if len > bytes_max || consumed > raw_max(bytes_max) {
        buffers.payloads.truncate(begin);
        return Frame::TooLong;
    }
    let payload =
        if escaped { Payload::Unescaped(begin..begin + len) } else { Payload::Input(&whole[..len]) };
    // The ending was copied with the line and is no part of the message.
    buffers.payloads.truncate(if escaped { begin + len } else { begin });
    state.set_searched(0);
    let mut telnet = TelnetState::read(state.stored());
    telnet.answered = 0;
    telnet.write(state);
    Frame::Message { payload, consumed }
}

/// Calls `f` for each byte of a line, its ending included, without commands. O(bytes).
fn each_byte(bytes: &[u8], mut f: impl FnMut(u8)) {
    let mut at = 0;
    while at < bytes.len() {
        match unit(&bytes[at..]) {
            Unit::Data(byte, len) => {
                f(byte);
                at += len;
            }
            Unit::Command { len, .. } => at += len,
            // Unreachable: callers pass bytes that end behind a whole unit.
            Unit::Part | Unit::TooLong => return,
        }
    }
}

/// Most bytes of a line as it comes: each byte of the message may be doubled.
fn raw_max(bytes_max: usize) -> usize {
    2 * bytes_max + OVERHEAD_BYTES_MAX
}

/// Returns whether a line that is not whole is over its limit already. `input` ends before a
/// part of a command. O(1) for a line within `bytes_max`, else O(bytes).
///
/// Asked before each reply too, so that it does not matter in which parts the input came.
fn is_too_long(input: &[u8], bytes_max: usize) -> bool {
    if input.len() <= bytes_max {
        return false;
    }
    let (mut len, mut last) = (0, 0);
    each_byte(input, |byte| (len, last) = (len + 1, byte));
    // A CR at the end may be half of the ending.
    len - usize::from(last == b'\r') > bytes_max || input.len() > raw_max(bytes_max)
}

/// Returns the state of a place in the input, with the options of `now`: turns that ran since the
/// place was cut may have changed them, and cuts of messages never do.
pub(super) fn at_place(place: &FrameState, now: &FrameState) -> FrameState {
    let (place_state, mut telnet) = (TelnetState::read(place.stored()), TelnetState::read(now.stored()));
    telnet.answered = place_state.answered;
    let mut state = FrameState::default();
    state.set_searched(place.searched());
    telnet.write(&mut state);
    state
}

/// Verb of a turn about an option, for [`wish`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Verb(u8);

impl Verb {
    /// Reads a verb: its byte in the protocol. `None`: the number is no verb.
    pub(crate) fn new(number: u32) -> Option<Verb> {
        u8::try_from(number).ok().filter(|verb| matches!(*verb, WILL | WONT | DO | DONT)).map(Verb)
    }
}

/// Takes what a turn wants of an option, and returns the bytes to send; mostly three or none.
/// `None`: the session has too many options.
pub(crate) fn wish(state: &mut FrameState, verb: Verb, option: u8) -> Option<ArrayVec<u8, 3>> {
    let mut telnet = TelnetState::read(state.stored());
    let says = telnet.wish(verb.0, option).ok()?;
    telnet.write(state);
    Some(says.iter().flat_map(|verb| [IAC, *verb, option]).collect())
}

/// Appends a subnegotiation, with IAC doubled.
pub(crate) fn subnegotiate(option: u8, bytes: &[u8], out: &mut Vec<u8>) {
    out.extend([IAC, SB]);
    encode_binary(&[option], out);
    encode_binary(bytes, out);
    out.extend([IAC, SE]);
}

/// Returns what stands behind a prompt: IAC EOR where that was agreed, else IAC GA unless the
/// peer wants none.
pub(crate) fn end_of_prompt(state: &FrameState) -> &'static [u8] {
    let telnet = TelnetState::read(state.stored());
    match () {
        () if telnet.is_on(END_OF_RECORD, Side::Host) => &[IAC, EOR],
        () if telnet.is_on(SUPPRESS_GO_AHEAD, Side::Host) => b"",
        () => &[IAC, GA],
    }
}

/// Returns whether a session's output goes without the meaning of CR and LF.
pub(super) fn sends_binary(state: &FrameState) -> bool {
    !state.stored().is_empty() && TelnetState::read(state.stored()).is_on(BINARY, Side::Host)
}

/// Appends bytes as they are, with IAC doubled.
pub(super) fn encode_binary(message: &[u8], out: &mut Vec<u8>) {
    let mut rest = message;
    while let Some(at) = memchr(IAC, rest) {
        out.extend(&rest[..=at]);
        out.push(IAC);
        rest = &rest[at + 1..];
    }
    out.extend(rest);
}

/// Appends what a turn sends: IAC doubled, LF as CR LF, CR before anything else as CR NUL.
/// Cannot fail.
///
/// CR at the end of a message counts as CR before something else.
pub(super) fn encode(message: &[u8], out: &mut Vec<u8>) {
    let mut rest = message;
    while let Some(at) = memchr3(b'\n', b'\r', IAC, rest) {
        out.extend(&rest[..at]);
        let (ending, len): (&[u8], _) = match &rest[at..] {
            [b'\r', b'\n', ..] => (b"\r\n", 2),
            [b'\r', ..] => (b"\r\0", 1),
            [b'\n', ..] => (b"\r\n", 1),
            _ => (&[IAC, IAC], 1),
        };
        out.extend(ending);
        rest = &rest[at + len..];
    }
    out.extend(rest);
}

#[cfg(test)]
mod tests;
