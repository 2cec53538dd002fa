//! Framings of the scripted service: what peers write, and what they read.
//!
//! Each seed has one framing. A peer writes its lines as messages of it, and reads back the text
//! that messages make, one behind the other. So the laws about lines hold for every framing.

use greenroom_core::framing::Framing;
use greenroom_core::framing::custom::{CustomCut, CustomMessage};
use greenroom_core::framing::delimiter::Delimiter;
use greenroom_core::framing::frame::{Frame, FrameBuffers, FrameState};
use greenroom_core::framing::length_prefix::LengthPrefix;

/// Longest message of a peer.
const BYTES_MAX: u32 = 8192;
/// First byte of each telnet command.
const IAC: u8 = 255;

/// Framing of a seed: lines for every other one.
pub(crate) fn of_seed(seed: u64) -> Framing {
    let bytes_max = BYTES_MAX;
    match seed % 10 {
        1 => Framing::Telnet { bytes_max },
        3 => Framing::Custom { version: 1, bytes_max },
        5 => Framing::Delimiter { delimiter: Delimiter::new(b"\r.\r").expect("a delimiter"), bytes_max },
        7 => Framing::LengthPrefix { prefix: LengthPrefix::new(2, true).expect("a prefix"), bytes_max },
        9 => {
            let prefix = LengthPrefix::base_128(4).and_then(|p| p.counting_itself().behind(1));
            Framing::LengthPrefix { prefix: prefix.expect("a prefix"), bytes_max }
        }
        _ => Framing::Lines { bytes_max },
    }
}

/// Bytes that a peer writes for a line. Over telnet it says something about an option now and then,
/// at the line's beginning or within.
pub(crate) fn written(framing: Framing, line: &str, rng: &mut fastrand::Rng) -> Vec<u8> {
    let mut bytes = Vec::new();
    match framing {
        Framing::Lines { .. } => {
            bytes.extend(line.bytes().chain(if rng.bool() { "\n" } else { "\r\n" }.bytes()));
        }
        Framing::Telnet { .. } => {
            let at = rng.usize(0..=line.len());
            bytes.extend(&line.as_bytes()[..at]);
            if rng.bool() {
                let option = rng.u8(30..34);
                bytes.extend([IAC, rng.u8(251..=254), option, IAC, 250, option, b'x', IAC, 240]);
            }
            bytes.extend(&line.as_bytes()[at..]);
            bytes.extend(["\n", "\r\n", "\r\0"][rng.usize(0..3)].bytes());
        }
        Framing::Custom { .. } => bytes = encoded(line.as_bytes()),
        other => other.encode(line.as_bytes(), &mut bytes).expect("a line can be expressed"),
    }
    bytes
}

/// Takes what is whole off the bytes that a peer has read, and appends its text.
pub(crate) fn read(framing: Framing, raw: &mut Vec<u8>, text: &mut Vec<u8>) {
    match framing {
        Framing::Lines { .. } => text.append(raw),
        Framing::Telnet { .. } => read_telnet(raw, text),
        Framing::Custom { .. } => loop {
            match cut(raw, &mut Vec::new()) {
                CustomCut::Message { message: CustomMessage::Input(range), consumed } => {
                    text.extend(&raw[range]);
                    raw.drain(..consumed);
                }
                CustomCut::More => return,
                other => panic!("{other:?}"),
            }
        },
        other => loop {
            let mut buffers = FrameBuffers::default();
            let consumed = match other.cut(raw, &mut FrameState::default(), &mut buffers) {
                Frame::Message { payload, consumed } => {
                    text.extend(payload.bytes(&buffers));
                    consumed
                }
                Frame::More => return,
                other => panic!("{other:?}"),
            };
            raw.drain(..consumed);
        },
    }
}

/// Reads text over telnet: commands are verbs, and CR LF is one end of a line.
fn read_telnet(raw: &mut Vec<u8>, text: &mut Vec<u8>) {
    let mut at = 0;
    while at < raw.len() {
        at += match raw[at..] {
            [IAC, 251..=254, _, ..] => 3,
            [IAC, IAC, ..] | [b'\r', b'\n', ..] => {
                text.push(raw[at + 1]);
                2
            }
            [IAC] | [IAC, 251..=254] | [b'\r'] => break,
            [IAC | b'\r', ..] => panic!("{}", raw[at..].escape_ascii()),
            _ => {
                text.push(raw[at]);
                1
            }
        };
    }
    raw.drain(..at);
}

/// Message of the framing that the scripted service has of its own: its length, then its bytes.
pub(crate) fn encoded(message: &[u8]) -> Vec<u8> {
    [format!("{}:", message.len()).as_bytes(), message].concat()
}

/// Cuts such a message. The state counts them.
pub(crate) fn cut(input: &[u8], state: &mut Vec<u8>) -> CustomCut {
    let Some(colon) = input.iter().position(|b| *b == b':') else { return CustomCut::More };
    let len: usize = String::from_utf8_lossy(&input[..colon]).parse().expect("a length");
    let (at, consumed) = (colon + 1, colon + 1 + len);
    if consumed > input.len() {
        return CustomCut::More;
    }
    let count = state.first_chunk().map_or(0, |n| u64::from_le_bytes(*n));
    *state = (count + 1).to_le_bytes().to_vec();
    CustomCut::Message { message: CustomMessage::Input(at..consumed), consumed }
}
