//! Roads: what carries a peer's bytes to the host, and what they stand behind.
//!
//! | road | a crash of the process | an upgrade |
//! | --- | --- | --- |
//! | TCP, with or without a PROXY header, and TLS | goes on, by the kernel's counts | goes on |
//! | Unix | the session ends: nobody has counted | goes on, by the records |
//! | UDP | goes on; what was under way is lost, in both directions | goes on |

use greenroom::tls::ciphers::RustlsCiphers;
use greenroom_core::input::{Ciphers, TlsBegin};
use greenroom_core::tls::protection::{Open, Protection, Seal};
use greenroom_core::tls::record::TLS_1_3;
use greenroom_core::tls::stage::{TlsEnd, TlsStage};
use greenroom_core::tls::state::{Direction, TlsState};
use greenroom_state::address::{Credentials, Peer as Address};
use std::collections::HashMap;
use std::sync::{Arc, Mutex};

/// Address of every peer.
pub(crate) const ADDR: &str = "127.0.0.1:9";

/// Road of a peer.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) enum Road {
    Tcp,
    Unix,
    Proxied,
    Tls,
    Udp,
}

impl Road {
    /// Roads of streams to draw from.
    const STREAMS: [Road; 8] =
        [Road::Tcp, Road::Tcp, Road::Tcp, Road::Tcp, Road::Unix, Road::Proxied, Road::Tls, Road::Tls];

    /// Draws a road for a stream.
    pub(crate) fn draw(rng: &mut fastrand::Rng) -> Road {
        Road::STREAMS[rng.usize(0..Road::STREAMS.len())]
    }

    /// Address of a peer, as the host finds it.
    pub(crate) fn address(self) -> Address {
        let addr = ADDR.parse().expect("an address");
        match self {
            Road::Unix => Address::Unix(Credentials { pid: 7, uid: 8, gid: 9 }),
            Road::Udp => Address::udp(addr),
            _ => Address::Tcp(addr),
        }
    }
}

/// Client that a PROXY header names, by the number of its session.
pub(crate) fn proxied_client(id: u64) -> String {
    format!("203.0.113.{}:{}", id % 200 + 1, id % 60_000 + 1)
}

/// PROXY header of a session: version 1 or 2.
pub(crate) fn proxy_header(id: u64) -> Vec<u8> {
    let client = proxied_client(id);
    let (ip, port) = client.split_once(':').expect("a port");
    if id.is_multiple_of(2) {
        return format!("PROXY TCP4 {ip} 10.0.0.1 {port} 80\r\n").into_bytes();
    }
    let mut header = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c".to_vec();
    header.extend([203, 0, 113, (id % 200 + 1) as u8, 10, 0, 0, 1]);
    header.extend(((id % 60_000 + 1) as u16).to_be_bytes());
    header.extend([0, 80]);
    header
}

// --- TLS ----------------------------------------------------------------------------------------

/// Texts by key and number: of this pass, and of all that were committed.
#[derive(Default)]
pub(crate) struct Sealed {
    pass: HashMap<([u8; 32], u64), Vec<u8>>,
    committed: HashMap<([u8; 32], u64), Vec<u8>>,
}

impl Sealed {
    /// Counts the records of a pass as seen: no number of a key is used twice.
    pub(crate) fn commit(&mut self) {
        for (at, text) in self.pass.drain() {
            assert_eq!(self.committed.insert(at, text), None, "number {} is used twice", at.1);
        }
    }

    /// Forgets the records of a pass that died: nobody has seen them.
    pub(crate) fn died(&mut self) {
        self.pass.clear();
    }

    /// Records that were committed.
    pub(crate) fn len(&self) -> usize {
        self.committed.len()
    }
}

/// Records that the host seals, shared with its ciphers.
pub(crate) type SealedRecords = Arc<Mutex<Sealed>>;

/// The host's ciphers, which note what they seal.
struct Watched(SealedRecords);

struct WatchedSealer(Box<dyn Seal>, [u8; 32], SealedRecords);

/// Ciphers for a core, which note what they seal.
pub(crate) fn ciphers(sealed: &SealedRecords) -> Ciphers {
    Ciphers(Box::new(Watched(sealed.clone())))
}

impl Protection for Watched {
    fn sealer(&self, suite: u16, keys: &Direction) -> Option<Box<dyn Seal>> {
        Some(Box::new(WatchedSealer(RustlsCiphers.sealer(suite, keys)?, keys.key, self.0.clone())))
    }

    fn opener(&self, suite: u16, keys: &Direction) -> Option<Box<dyn Open>> {
        RustlsCiphers.opener(suite, keys)
    }

    fn update(&self, suite: u16, keys: &mut Direction) -> bool {
        RustlsCiphers.update(suite, keys)
    }

    fn records_max(&self, suite: u16) -> u64 {
        RustlsCiphers.records_max(suite)
    }
}

impl Seal for WatchedSealer {
    fn seal(&mut self, kind: u8, content: &[u8], number: u64, out: &mut Vec<u8>) -> bool {
        let text = [&[kind], content].concat();
        let before = self.2.lock().expect("one thread").pass.insert((self.1, number), text);
        assert_eq!(before, None, "number {number} is used twice in a pass");
        self.0.seal(kind, content, number, out)
    }
}

/// Records of a client between two changes of its keys.
const RECORDS_MAX: u64 = 40;

/// Client of a session over TLS, behind its handshake.
pub(crate) struct TlsClient {
    stage: TlsStage,
    /// State that the handshake leaves the host.
    begin: TlsState,
    /// Bytes that are no whole record yet.
    behind: Vec<u8>,
    /// The host has ended its side by an alert.
    pub(crate) told: bool,
}

impl TlsClient {
    /// Client and host with secrets that are drawn.
    pub(crate) fn new(rng: &mut fastrand::Rng) -> TlsClient {
        let mut direction = || {
            let mut d = Direction { secret_len: 48, ..Direction::default() };
            rng.fill(&mut d.secret);
            rng.fill(&mut d.key);
            rng.fill(&mut d.iv);
            d
        };
        let (peer, host) = (direction(), direction());
        let (read, written) = (517, 1200);
        // AES-256-GCM, whose hash has the 48 bytes of the secrets.
        let begin =
            TlsState { version: TLS_1_3, suite: 0x1302, peer, host, read, written, ..TlsState::default() };
        let client = TlsState { peer: begin.host.clone(), host: begin.peer.clone(), ..begin.clone() };
        TlsClient { stage: TlsStage::new(client), begin, behind: Vec::new(), told: false }
    }

    /// Outcome of the handshake, as the host is told.
    pub(crate) fn begin(&self) -> TlsBegin {
        TlsBegin { state: self.begin.clone(), facts: Vec::new() }
    }

    /// Bytes that the handshake took: read by the host, and written.
    pub(crate) fn handshake_bytes(&self) -> (u64, u64) {
        (self.begin.read, self.begin.written)
    }

    /// Seals what the client writes.
    pub(crate) fn seal(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        self.stage.seal(&RustlsCiphers, bytes, RECORDS_MAX, &mut out).expect("it seals");
        out
    }

    /// Seals the alert that ends the client's side.
    pub(crate) fn close(&mut self) -> Vec<u8> {
        let mut out = Vec::new();
        self.stage.close(&RustlsCiphers, RECORDS_MAX, &mut out).expect("it seals");
        out
    }

    /// Opens what came from the host, and appends it. Returns what the client answers by itself.
    pub(crate) fn open(&mut self, bytes: &[u8], content: &mut Vec<u8>) -> Vec<u8> {
        self.behind.extend_from_slice(bytes);
        let (mut out, mut scratch) = (Vec::new(), Vec::new());
        let into = (content, &mut out);
        let opened = self.stage.open(&RustlsCiphers, &self.behind, RECORDS_MAX, into, &mut scratch);
        assert!(matches!(opened.end, None | Some(TlsEnd::Closed)), "{:?}", opened.end);
        self.told |= opened.end.is_some();
        self.behind.drain(..opened.consumed);
        assert!(!self.told || self.behind.is_empty(), "nothing follows on the last alert");
        out
    }
}
