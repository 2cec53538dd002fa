//! Batches of lines that verify their replies.
//!
//! Every line carries the connection's number and a sequence number. A reply that is lost, doubled,
//! swapped or delivered to another connection therefore never verifies.

use std::str::FromStr;

/// Protocols: the rule by which a reply follows from its line.
#[derive(Clone, Copy, PartialEq)]
pub enum Proto {
    /// The reply is the line.
    Echo,
    /// The reply is the line's number on its connection, and the line.
    Tally,
    /// Inline ECHO, answered by a bulk reply.
    Redis,
    /// Stores the line under one of [`KEYS`] keys of the connection. The reply is the line.
    Put,
    /// Reads what [`Proto::Put`] stored.
    Get,
    /// A text frame of WebSocket for each line, without its newline, masked. The reply is the same
    /// text, not masked.
    WebSocket,
    /// The same, answered by two frames: the line's number on its connection (binary), and the
    /// text.
    WebSocketTally,
}

impl FromStr for Proto {
    type Err = String;

    fn from_str(name: &str) -> Result<Proto, String> {
        Ok(match name {
            "echo" => Proto::Echo,
            "tally" => Proto::Tally,
            "redis" => Proto::Redis,
            "put" => Proto::Put,
            "get" => Proto::Get,
            "websocket" => Proto::WebSocket,
            "websocket-tally" => Proto::WebSocketTally,
            other => return Err(format!("unknown protocol {other}")),
        })
    }
}

/// Keys of each connection, for put and get. A key is the connection's number and the last two
/// digits of the sequence number.
pub const KEYS: u32 = 256;

/// Mask of all frames. A browser takes another one for each; to unmask costs a server the same.
const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

impl Proto {
    /// Whether lines go in frames of WebSocket.
    pub fn is_websocket(self) -> bool {
        matches!(self, Proto::WebSocket | Proto::WebSocketTally)
    }

    /// Whether replies have the line's number before them.
    fn is_numbered(self) -> bool {
        matches!(self, Proto::Tally | Proto::WebSocketTally)
    }
}

/// Head of a final text frame, without a mask.
///
/// # Panics If the text is longer than 65,535 bytes.
fn frame_head(text: usize) -> Vec<u8> {
    let long = u16::try_from(text).expect("a text of at most 65,535 bytes").to_be_bytes();
    match text {
        0..126 => vec![0x81, text as u8],
        _ => [&[0x81, 126], &long[..]].concat(),
    }
}

/// Batch of one connection: the bytes it sends and the bytes it must get back.
pub struct Batch {
    proto: Proto,
    /// The bytes to send.
    pub req: Vec<u8>,
    /// The bytes that must come back.
    pub exp: Vec<u8>,
    /// End of each reply in `exp`.
    pub ends: Vec<usize>,
    /// Lines of a batch.
    pub lines: usize,
    /// Lines sent on this connection before this batch. The caller keeps it up.
    pub count: u64,
    /// Offset of the sequence number in a request.
    req_seq: Option<usize>,
    /// Offset of its last two digits in a key.
    req_key: Option<usize>,
    /// Mask of a request's number.
    mask: [u8; 4],
    /// Replies without the line's number, for protocols that have it.
    unnumbered: Vec<u8>,
    /// Offset of the sequence number in a reply.
    exp_seq: usize,
    /// Number of lines made so far; the sequence number of the last one.
    seq: u32,
}

impl Batch {
    /// Makes a batch of `lines` lines of `size` bytes each, newline included, for connection
    /// `conn`.
    ///
    /// # Panics If a line of `size` bytes has no room for its numbers (17 bytes), or is too long
    /// for a frame.
    pub fn new(conn: usize, lines: usize, size: usize, proto: Proto) -> Batch {
        let mut line = format!("{conn:06x}:{:08x}:", 0).into_bytes();
        line.extend((line.len()..size - 1).map(|i| b'a' + (i % 26) as u8));
        let ended = [&line[..], b"\n"].concat();
        let key = format!("k{conn:06x}");
        let (req, exp, req_pre, req_key, exp_pre) = match proto {
            Proto::Redis => {
                let head = format!("${}\r\n", line.len());
                let req = [b"ECHO ", &line[..], b"\r\n"].concat();
                let exp = [head.as_bytes(), &line[..], b"\r\n"].concat();
                (req, exp, Some(5), None, head.len())
            }
            Proto::Put => {
                let head = format!("put {key}xx ");
                ([head.as_bytes(), &ended].concat(), ended, Some(head.len()), Some(head.len() - 3), 0)
            }
            Proto::Get => (format!("get {key}xx\n").into_bytes(), ended, None, Some(4 + key.len()), 0),
            Proto::WebSocket | Proto::WebSocketTally => {
                let head = frame_head(line.len());
                let mut masked = [&head[..], &MASK, &line].concat();
                masked[1] |= 0x80;
                let text = head.len() + MASK.len();
                masked[text..].iter_mut().enumerate().for_each(|(i, b)| *b ^= MASK[i % 4]);
                (masked, [&head[..], &line].concat(), Some(text), None, head.len())
            }
            Proto::Echo | Proto::Tally => (ended.clone(), ended, Some(0), None, 0),
        };
        let mut b = Batch {
            proto,
            req: req.repeat(lines),
            unnumbered: if proto.is_numbered() { exp.repeat(lines) } else { Vec::new() },
            exp: exp.repeat(lines),
            ends: (1..=lines).map(|i| i * exp.len()).collect(),
            req_seq: req_pre.map(|pre| pre + 7),
            mask: if proto.is_websocket() { MASK } else { [0; 4] },
            req_key,
            exp_seq: exp_pre + 7,
            lines,
            seq: 0,
            count: 0,
        };
        b.renumber();
        b
    }

    /// Gives each line its next sequence number, in the request and in the expected reply. No
    /// bytes are made anew, except for tally, whose replies grow with their number.
    pub fn renumber(&mut self) {
        const HEX: &[u8; 16] = b"0123456789abcdef";
        let numbered = self.proto.is_numbered();
        let replies = if numbered { &mut self.unnumbered } else { &mut self.exp };
        let (rl, el) = (self.req.len() / self.lines, replies.len() / self.lines);
        for i in 0..self.lines {
            self.seq = self.seq.wrapping_add(1);
            let digits =
                |n: u32| -> [u8; 8] { std::array::from_fn(|k| HEX[(n >> (28 - 4 * k)) as usize & 15]) };
            let mut d = digits(self.seq);
            if let Some(at) = self.req_key {
                self.req[i * rl + at..][..2].copy_from_slice(&d[6..]);
            }
            match self.req_seq {
                // The number begins at the line's byte 7.
                Some(at) => {
                    let masked: [u8; 8] = std::array::from_fn(|k| d[k] ^ self.mask[(k + 7) % 4]);
                    self.req[i * rl + at..][..8].copy_from_slice(&masked);
                }
                // The first KEYS puts stored this number under the key.
                None => d = digits((self.seq - 1) % KEYS + 1),
            }
            replies[i * el + self.exp_seq..][..8].copy_from_slice(&d);
        }
        if numbered {
            self.exp.clear();
            for (i, reply) in self.unnumbered.chunks(el).enumerate() {
                let number = format!("{} ", self.count + i as u64 + 1);
                if self.proto.is_websocket() {
                    // A final binary frame.
                    self.exp.extend_from_slice(&[0x82, number.len() as u8]);
                }
                self.exp.extend_from_slice(number.as_bytes());
                self.exp.extend_from_slice(reply);
                self.ends[i] = self.exp.len();
            }
        }
    }
}
