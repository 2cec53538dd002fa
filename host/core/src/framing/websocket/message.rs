//! Messages: frames at the beginning of the input become a message, a reply or the end.
//!
//! The rules of RFC 6455, sections 5 and 7, are asked in the order of the bytes. So it does not
//! matter in which parts they came. A message is unmasked into the buffer of payloads.

use super::farewell::{NOT_UTF8, TOO_MANY_CONTROLS, TOO_SMALL_FRAGMENTS};
use super::sent::frame;
use super::stage::{answered, set_answered_to, set_open};
use crate::framing::frame::{Frame, FrameBuffers, FrameState, Payload};
use crate::framing::scan::{Scan, is_utf8, unmask};
use std::io::Cursor;
use std::ops::Range;
use tungstenite::protocol::frame::FrameHeader;
use tungstenite::protocol::frame::coding::{CloseCode, Control, Data, OpCode};

/// Pings and pongs inside one message, at most. Each ping there costs a copy of the kept input.
pub(super) const CONTROLS_MAX: u16 = 255;
/// Bytes of headers, pings and pongs that a message may have beside as many as its payload.
pub(super) const OVERHEAD_BYTES_MAX: usize = 64 * 1024;
/// Frame whose header is whole.
struct Head {
    opcode: OpCode,
    is_final: bool,
    mask: [u8; 4],
    /// Place of the payload in the input.
    payload: Range<usize>,
}

/// Cuts a message, a control frame or the peer's close.
///
/// Reads each header once and checks each byte of a text once, as long as the state's cache is
/// kept. Gives at most one reply, so a caller calls it again until it says [`Frame::More`].
pub(super) fn cut<'i>(
    input: &'i [u8],
    state: &mut FrameState,
    bytes_max: usize,
    buffers: &mut FrameBuffers,
) -> Frame<'i> {
    let mut scan = if state.searched() == 0 { Scan::default() } else { state.scan() };
    loop {
        let head = match head(input, &scan, bytes_max) {
            Ok(Some(head)) => head,
            Ok(None) => break,
            Err(end) => return end,
        };
        let end = head.payload.end;
        let OpCode::Control(control) = head.opcode else {
            // One frame that is there as a whole: the common case is unmasked once.
            if scan == Scan::default() && head.is_final && end <= input.len() {
                return whole(input, head, state, buffers);
            }
            if !check_data(input, &head, &mut scan) {
                return Frame::Invalid(NOT_UTF8);
            }
            if end > input.len() {
                break;
            }
            scan = Scan {
                frame: end as u32,
                payload: scan.payload + head.payload.len() as u32,
                checked: 0,
                ..scan
            };
            if head.is_final {
                return match scan.ends_whole() {
                    true => assemble(&input[..end], state, buffers),
                    false => Frame::Invalid(NOT_UTF8),
                };
            }
            continue;
        };
        if end > input.len() {
            break;
        }
        let inside = scan.frame > 0;
        scan.frame = end as u32;
        scan.controls += u16::from(inside);
        if inside && end <= answered(state.stored()) {
            continue;
        }
        if scan.controls > CONTROLS_MAX {
            return Frame::Invalid(TOO_MANY_CONTROLS);
        }
        if let Some(end) = answer(control, &input[head.payload.clone()], head.mask, buffers) {
            return end;
        }
        match (inside, control) {
            (false, _) => return Frame::Reply { consumed: end },
            // A message has begun and leaves the input as one, so the ping stays in it.
            (true, Control::Ping) => {
                set_answered_to(state, end);
                keep(state, scan);
                return Frame::Reply { consumed: 0 };
            }
            _ => {}
        }
    }
    keep(state, scan);
    Frame::More
}

/// Answers a control frame. Returns the end of the stream, if it is a close.
fn answer(
    control: Control,
    masked: &[u8],
    mask: [u8; 4],
    buffers: &mut FrameBuffers,
) -> Option<Frame<'static>> {
    let begin = buffers.payloads.len();
    buffers.payloads.extend_from_slice(masked);
    unmask(&mut buffers.payloads[begin..], mask, 0);
    match control {
        Control::Close => return Some(closed(begin, buffers)),
        Control::Ping => {
            frame(OpCode::Control(Control::Pong), &buffers.payloads[begin..], &mut buffers.replies);
        }
        _ => {}
    }
    buffers.payloads.truncate(begin);
    None
}

/// Keeps how far the search got, for the next cut.
fn keep(state: &mut FrameState, scan: Scan) {
    state.set_searched((scan.frame + scan.checked).max(1));
    state.set_scan(scan);
}

/// Reads the header at the search's place, and asks what the rules say about it. `None`: it is
/// not whole.
fn head(input: &[u8], scan: &Scan, bytes_max: usize) -> Result<Option<Head>, Frame<'static>> {
    let at = scan.frame as usize;
    let mut cursor = Cursor::new(&input[at.min(input.len())..]);
    let (header, len) = match FrameHeader::parse(&mut cursor) {
        Ok(None) => return Ok(None),
        Ok(Some(whole)) => whole,
        Err(_) => return Err(Frame::Invalid("a frame has an unknown opcode")),
    };
    let mask = judge_header(&header, len, scan.frame > 0).map_err(Frame::Invalid)?;
    // The limit may be lower than it was for the frames before.
    let all = len.saturating_add(scan.payload.into());
    if matches!(header.opcode, OpCode::Data(_)) && all > bytes_max as u64 {
        return Err(Frame::TooLong);
    }
    let begin = at + cursor.position() as usize;
    // The limits above bound the length, so the sum fits.
    let payload = begin..begin + len as usize;
    // Headers, pings and pongs alone: without this bound they could fill the kept input.
    if begin - scan.payload as usize > OVERHEAD_BYTES_MAX + scan.payload as usize {
        return Err(Frame::Invalid(TOO_SMALL_FRAGMENTS));
    }
    Ok(Some(Head { opcode: header.opcode, is_final: header.is_final, mask, payload }))
}

/// Judges a header by the rules that hold for each frame. `inside`: a message has begun. Returns
/// the mask, or the reason of the refusal.
pub(super) fn judge_header(header: &FrameHeader, len: u64, inside: bool) -> Result<[u8; 4], &'static str> {
    if header.rsv1 || header.rsv2 || header.rsv3 {
        return Err("a frame has reserved bits set");
    }
    let mask = header.mask.ok_or("a frame is not masked")?;
    match header.opcode {
        OpCode::Control(_) if !header.is_final || len > 125 => {
            Err("a control frame is fragmented or too long")
        }
        OpCode::Data(Data::Continue) if !inside => Err("a fragment continues no message"),
        OpCode::Data(Data::Text | Data::Binary) if inside => Err("a message begins inside another one"),
        _ => Ok(mask),
    }
}

/// Checks what is there of a data frame's payload and was not checked. False: it is not UTF-8. O(1)
/// for bytes.
fn check_data(input: &[u8], head: &Head, scan: &mut Scan) -> bool {
    let there = input.len().min(head.payload.end).max(head.payload.start);
    let checked = scan.checked as usize;
    scan.checked = (there - head.payload.start) as u32;
    match is_text(input) {
        true => scan.check(&input[head.payload.start + checked..there], head.mask, checked),
        false => true,
    }
}

/// Whether the message at the beginning of the input is text: its first frame says so.
fn is_text(input: &[u8]) -> bool {
    input[0] & 0x0f == u8::from(OpCode::Data(Data::Text))
}

/// Makes a message of one frame, which is there as a whole.
fn whole<'i>(input: &'i [u8], head: Head, state: &mut FrameState, buffers: &mut FrameBuffers) -> Frame<'i> {
    let begin = buffers.payloads.len();
    let consumed = head.payload.end;
    buffers.payloads.extend_from_slice(&input[head.payload]);
    let payload = &mut buffers.payloads[begin..];
    unmask(payload, head.mask, 0);
    if is_text(input) && !is_utf8(payload) {
        buffers.payloads.truncate(begin);
        return Frame::Invalid(NOT_UTF8);
    }
    state.set_searched(0);
    Frame::Message { payload: Payload::Unescaped(begin..buffers.payloads.len()), consumed }
}

/// Makes a message of several frames, or of one that came in parts. All of them were checked.
/// The state is then that of no message.
fn assemble<'i>(whole: &'i [u8], state: &mut FrameState, buffers: &mut FrameBuffers) -> Frame<'i> {
    let begin = buffers.payloads.len();
    let mut at = 0;
    while at < whole.len() {
        let mut cursor = Cursor::new(&whole[at..]);
        // Unreachable: the search has read these very headers.
        let Ok(Some((header, len))) = FrameHeader::parse(&mut cursor) else { break };
        let payload = at + cursor.position() as usize;
        let end = payload + len as usize;
        if let OpCode::Data(_) = header.opcode {
            let from = buffers.payloads.len();
            buffers.payloads.extend_from_slice(&whole[payload..end]);
            unmask(&mut buffers.payloads[from..], header.mask.unwrap_or_default(), 0);
        }
        at = end;
    }
    set_open(state);
    Frame::Message { payload: Payload::Unescaped(begin..buffers.payloads.len()), consumed: whole.len() }
}

/// Reads the peer's close, whose payload is at the end of the buffer from `begin` on. It stays
/// there.
fn closed(begin: usize, buffers: &FrameBuffers) -> Frame<'static> {
    match closing(&buffers.payloads[begin..]) {
        Ok(()) => Frame::Closed(begin..buffers.payloads.len()),
        Err(why) => Frame::Invalid(why),
    }
}

/// Judges the payload of a peer's close. Fails with the reason of the refusal.
pub(super) fn closing(payload: &[u8]) -> Result<(), &'static str> {
    match *payload {
        [] => Ok(()),
        [_] => Err("a close frame has half a code"),
        [a, b, ..] if !CloseCode::from(u16::from_be_bytes([a, b])).is_allowed() => {
            Err("a close frame has a code that must not be sent")
        }
        [_, _, ref reason @ ..] => std::str::from_utf8(reason).map(|_| ()).map_err(|_| NOT_UTF8),
    }
}
