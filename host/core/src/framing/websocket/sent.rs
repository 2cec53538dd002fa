//! Frames that are sent: messages, pings and closes of the host, unmasked and whole.

use crate::framing::scan::is_utf8;
use tungstenite::protocol::frame::FrameHeader;
use tungstenite::protocol::frame::coding::{Control, Data, OpCode};

/// Appends a message of bytes. Cannot fail.
pub(in crate::framing) fn encode(message: &[u8], out: &mut Vec<u8>) {
    frame(OpCode::Data(Data::Binary), message, out);
}

/// Appends a message of text. Bytes that are not UTF-8 become U+FFFD. Cannot fail.
pub(in crate::framing) fn encode_text(text: &[u8], out: &mut Vec<u8>) {
    let opcode = OpCode::Data(Data::Text);
    match is_utf8(text) {
        true => frame(opcode, text, out),
        false => frame(opcode, String::from_utf8_lossy(text).as_bytes(), out),
    }
}

/// Appends a ping without a payload.
pub(crate) fn encode_ping(out: &mut Vec<u8>) {
    frame(OpCode::Control(Control::Ping), b"", out);
}

/// Makes a frame of bytes of the bytes behind `at`, in place. O(bytes).
pub(crate) fn wrap(out: &mut Vec<u8>, at: usize) {
    let mut header = Vec::new();
    head(OpCode::Data(Data::Binary), out.len() - at, &mut header);
    out.splice(at..at, header);
}

/// Appends a frame that is whole. A server masks nothing.
pub(super) fn frame(opcode: OpCode, payload: &[u8], out: &mut Vec<u8>) {
    head(opcode, payload.len(), out);
    out.extend_from_slice(payload);
}

/// Appends the header of such a frame.
fn head(opcode: OpCode, len: usize, out: &mut Vec<u8>) {
    let header = FrameHeader { is_final: true, rsv1: false, rsv2: false, rsv3: false, opcode, mask: None };
    // Writing to memory cannot fail.
    let _ = header.format(len as u64, out);
}
