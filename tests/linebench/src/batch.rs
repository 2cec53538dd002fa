//! Batches of lines that verify their replies.
//!
//! Every line carries the connection's number and a sequence number. A reply that is lost, doubled,
//! swapped or delivered to another connection therefore never verifies.

use std::io::Write;
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
            other => return Err(format!("unknown protocol {other}")),
        })
    }
}

/// Keys of each connection, for put and get. A key is the connection's number and the last two
/// digits of the sequence number.
pub const KEYS: u32 = 256;

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
    /// Offset of the sequence number in a reply.
    exp_seq: usize,
    /// Number of lines made so far; the sequence number of the last one.
    seq: u32,
}

impl Batch {
    /// Makes a batch of `lines` lines of `size` bytes each, newline included, for connection
    /// `conn`.
    ///
    /// # Panics If a line of `size` bytes has no room for its numbers (17 bytes).
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
            Proto::Echo | Proto::Tally => (ended.clone(), ended, Some(0), None, 0),
        };
        let mut b = Batch {
            proto,
            req: req.repeat(lines),
            exp: exp.repeat(lines),
            ends: (1..=lines).map(|i| i * exp.len()).collect(),
            req_seq: req_pre.map(|pre| pre + 7),
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
        let (rl, el) = (self.req.len() / self.lines, self.exp.len() / self.lines);
        for i in 0..self.lines {
            self.seq = self.seq.wrapping_add(1);
            let digits =
                |n: u32| -> [u8; 8] { std::array::from_fn(|k| HEX[(n >> (28 - 4 * k)) as usize & 15]) };
            let mut d = digits(self.seq);
            if let Some(at) = self.req_key {
                self.req[i * rl + at..][..2].copy_from_slice(&d[6..]);
            }
            match self.req_seq {
                Some(at) => self.req[i * rl + at..][..8].copy_from_slice(&d),
                // The first KEYS puts stored this number under the key.
                None => d = digits((self.seq - 1) % KEYS + 1),
            }
            if self.proto != Proto::Tally {
                self.exp[i * el + self.exp_seq..][..8].copy_from_slice(&d);
            }
        }
        if self.proto == Proto::Tally {
            self.exp.clear();
            for (i, line) in self.req.chunks(rl).enumerate() {
                let _ = write!(self.exp, "{} ", self.count + i as u64 + 1);
                self.exp.extend_from_slice(line);
                self.ends[i] = self.exp.len();
            }
        }
    }
}
