//! Telnet: lines between commands, as RFC 854, 855 and 1143 have them.
//!
//! - A line ends in LF, CR LF or CR NUL. CR before anything else belongs to the message.
//! - IAC IAC is the byte 255 of a message.
//! - An option that the peer offers (WILL) or asks for (DO) is refused by one reply (DONT,
//!   WONT). All options stay off, so WONT and DONT need no reply: RFC 1143 without its queue.
//! - A subnegotiation is skipped; a longer one than [`SUBNEGOTIATION_BYTES_MAX`] ends the
//!   session.
//! - AYT is answered. All other commands are skipped.
//! - Output has IAC doubled, LF as CR LF, and CR before anything else as CR NUL.
//!
//! A command at the start of a line is consumed by itself. A command inside a line stays in the
//! input until the line is whole, since a line leaves the input as one. The stored state says
//! how far commands were answered, so each is answered once: 6 bytes, and none between lines.
//!
//! Costs: each byte is searched once as long as the cache is kept, and a line near its limit
//! again. A line without IAC is a slice of the input; any other is copied once. Limits bound
//! the message, the bytes of a subnegotiation, and all bytes of a line.

use super::frame::{Frame, FrameBuffers, FrameState, Payload};
use greenroom_state::abi;
use memchr::{memchr, memchr3};

/// Begins a command; doubled, it is data.
const IAC: u8 = 255;
/// Demand that the peer leaves an option off.
const DONT: u8 = 254;
/// Request that the host turns an option on.
const DO: u8 = 253;
/// Refusal to turn an option on.
const WONT: u8 = 252;
/// Offer to turn an option on.
const WILL: u8 = 251;
/// Begins a subnegotiation.
const SB: u8 = 250;
/// Asks whether the host is there.
const AYT: u8 = 246;
/// Ends a subnegotiation.
const SE: u8 = 240;

/// Most bytes of a subnegotiation, with its commands.
const SUBNEGOTIATION_BYTES_MAX: usize = 1024;

/// Most bytes that a line's commands and doubled bytes may take, beside twice what the message
/// may have. Without this bound a peer could fill the record of kept input with commands.
const OVERHEAD_BYTES_MAX: usize = 4096;

/// Number of the framing and version of its state, the first bytes of each stored state. Bytes
/// of another framing or version count as no state: commands inside the line are then answered
/// again.
const STATE_HEAD: [u8; 2] = [abi::framing::TELNET as u8, 1];

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
    let answered = answered(state.stored());
    let mut at = (state.searched as usize).min(input.len());
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
                if byte == b'\n' || (byte == 0 && after_cr) {
                    return line(&input[..at], state, bytes_max, buffers);
                }
                (after_cr, safe) = (false, at);
            }
            Unit::Command { len, reply } => {
                let begin = at;
                at += len;
                // A line has not begun, so nothing of it is lost by consuming the command.
                if begin == 0 {
                    buffers.replies.extend(reply);
                    return Frame::Reply { consumed: len };
                }
                // Behind CR and a command the ending may still come: a later search needs the CR.
                if !after_cr {
                    safe = at;
                }
                if !reply.is_empty() && at > answered {
                    // Asked before the reply, so that the parts in which the input came do not
                    // decide about it.
                    if is_too_long(&input[..begin], bytes_max) {
                        return Frame::TooLong;
                    }
                    buffers.replies.extend(reply);
                    state.searched = safe as u32;
                    store_answered(state, at);
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
    // Behind `at` is a part of a command, or bytes of the line and nothing else.
    if at < input.len() && input[at] != IAC {
        at = input.len();
        safe = at - usize::from(input[at - 1] == b'\r');
    }
    if is_too_long(&input[..at], bytes_max) {
        return Frame::TooLong;
    }
    state.searched = safe as u32;
    Frame::More
}

/// Unit at the beginning of the input.
enum Unit {
    /// Byte of a line, and how many bytes it takes.
    Data(u8, usize),
    /// Command, its bytes, and the reply to it.
    Command { len: usize, reply: Reply },
    /// Command that is not whole.
    Part,
    /// Subnegotiation without an end within its limit.
    TooLong,
}

/// Reply to a command: empty for most, at most the answer to AYT.
type Reply = arrayvec::ArrayVec<u8, 7>;

/// Reads one byte of a line, or one command. `bytes` has at least one byte. O(1), but for a
/// subnegotiation.
fn unit(bytes: &[u8]) -> Unit {
    let refusal = |verb, option| Reply::from_iter([IAC, verb, option]);
    match bytes {
        [IAC] | [IAC, DO | DONT | WILL | WONT] => Unit::Part,
        [IAC, IAC, ..] => Unit::Data(IAC, 2),
        [IAC, WILL, option, ..] => Unit::Command { len: 3, reply: refusal(DONT, *option) },
        [IAC, DO, option, ..] => Unit::Command { len: 3, reply: refusal(WONT, *option) },
        [IAC, WONT | DONT, _, ..] => Unit::Command { len: 3, reply: Reply::new() },
        [IAC, SB, ..] => subnegotiation(bytes),
        [IAC, AYT, ..] => Unit::Command { len: 2, reply: Reply::from(*b"[yes]\r\n") },
        [IAC, _, ..] => Unit::Command { len: 2, reply: Reply::new() },
        bytes => Unit::Data(bytes[0], 1),
    }
}

/// Finds the IAC SE that ends a subnegotiation; IAC IAC inside is a byte of it.
fn subnegotiation(bytes: &[u8]) -> Unit {
    // A longer subnegotiation is refused, so bytes behind the limit are not searched.
    let within = &bytes[..bytes.len().min(SUBNEGOTIATION_BYTES_MAX)];
    let mut at = 2;
    while let Some(found) = memchr(IAC, &within[at..]) {
        at += found;
        match within.get(at + 1) {
            Some(&SE) => return Unit::Command { len: at + 2, reply: Reply::new() },
            // Any byte behind IAC belongs to it, so an escaped IAC never begins the end.
            Some(_) => at += 2,
            None => break,
        }
    }
    if bytes.len() >= SUBNEGOTIATION_BYTES_MAX { Unit::TooLong } else { Unit::Part }
}

/// Makes a message of a whole line with its ending. The state is then that of a fresh line.
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
    state.searched = 0;
    state.store(&[]);
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

/// Returns the bytes of the unconsumed input whose commands were answered. Bytes of another
/// framing count as 0.
fn answered(stored: &[u8]) -> usize {
    match *stored {
        [framing, version, a, b, c, d] if [framing, version] == STATE_HEAD => {
            u32::from_le_bytes([a, b, c, d]) as usize
        }
        _ => 0,
    }
}

/// Stores how far commands were answered. Costs one small allocation, which the end of the line
/// frees.
fn store_answered(state: &mut FrameState, answered: usize) {
    let ([framing, version], [a, b, c, d]) = (STATE_HEAD, (answered as u32).to_le_bytes());
    state.store(&[framing, version, a, b, c, d]);
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
