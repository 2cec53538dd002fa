//! Stage of one session: opens the records that come in, and seals what goes out.
//!
//! Opening is a function of the bytes and of the stored state. Cutting the stream in other places
//! changes nothing, but for how many requests for other keys one answer is for. A record is opened
//! once it is whole; its header is judged as soon as it is there.
//!
//! | record | becomes |
//! | --- | --- |
//! | data | bytes for the framing |
//! | change of keys (TLS 1.3) | other keys of the peer; if it is asked for, the host's follow |
//! | more than 32 of these without data | an alert, and the end of the session |
//! | another handshake (TLS 1.2) | a refusal; the session goes on |
//! | tickets of a server (TLS 1.3) | nothing: each connection has a whole handshake |
//! | orderly end | the end of the peer's side |
//! | any other alert | the end of the session |
//! | all else | an alert, and the end of the session |
//!
//! The ciphers are made of the state when they are wanted, and live as long as the stage: a pass.

use super::protection::{Open, Protection, Seal};
use super::record::{CONTENT_BYTES_MAX, FATAL, HEADER_BYTES, Head, TLS_1_3, WARNING, alert, kind};
use super::state::TlsState;

/// Message of a handshake that changes keys.
const KEY_UPDATE: u8 = 24;
/// Message of a handshake by which a client begins another one.
const CLIENT_HELLO: u8 = 1;
/// Message by which a server asks for another handshake.
const HELLO_REQUEST: u8 = 0;
/// Message that gives a client a ticket.
const TICKET: u8 = 4;
/// Bytes before the body of a message of a handshake: its kind and its length.
const MESSAGE_HEAD: usize = 4;

/// End of a peer's stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TlsEnd {
    /// The peer has ended its side in an orderly way.
    Closed,
    /// The peer has given up, with this alert.
    Failed(u8),
    /// The peer's bytes are refused with this alert, which was sealed.
    Refused(u8),
}

/// Outcome of opening.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Opened {
    /// Bytes of the input that whole records took.
    pub consumed: usize,
    /// Work of it, in nanoseconds, by estimate.
    pub work_ns: u64,
    /// End of the stream. Bytes behind it mean nothing.
    pub end: Option<TlsEnd>,
}

/// Record that is opened or sealed, beside its bytes, in nanoseconds.
const RECORD_NS: u64 = 300;
/// Change of keys, in nanoseconds.
const UPDATE_NS: u64 = 5_000;
/// Changes of keys that a peer may make without sending data between them.
const UPDATES_IN_A_ROW_MAX: u8 = 32;

/// Failure to seal: no key may seal any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exhausted;

/// Stage of one session.
pub struct TlsStage {
    /// Stored state, as this pass leaves it.
    pub state: TlsState,
    opener: Option<Box<dyn Open>>,
    sealer: Option<Box<dyn Seal>>,
    /// The peer has asked for other keys of the host, and was not answered.
    owes_update: bool,
}

/// Returns what stands behind the tickets at the beginning of a record. A record may hold several
/// messages, and whole ones: a server that splits a ticket is refused.
fn behind_tickets(mut messages: &[u8]) -> &[u8] {
    while let [TICKET, high, middle, low, ..] = *messages {
        let len = u32::from_be_bytes([0, high, middle, low]) as usize;
        let Some(rest) = messages.get(MESSAGE_HEAD + len..) else { break };
        messages = rest;
    }
    messages
}

impl TlsStage {
    /// Makes a stage of a stored state.
    pub fn new(state: TlsState) -> TlsStage {
        TlsStage { state, opener: None, sealer: None, owes_update: false }
    }

    /// Opens whole records at the beginning of `input`. Appends data to `content`, and what the
    /// host answers by itself to `out`. `scratch` holds a record while it is opened: the input must
    /// stay as it came, since a successor may open it again. Costs O(bytes).
    pub fn open(
        &mut self,
        ciphers: &dyn Protection,
        input: &[u8],
        records_max: u64,
        (content, out): (&mut Vec<u8>, &mut Vec<u8>),
        scratch: &mut Vec<u8>,
    ) -> Opened {
        let (mut consumed, mut records, mut end) = (0, 0, None);
        let updates_before = self.state.peer_updates;
        while end.is_none() {
            let rest = &input[consumed..];
            let head = match Head::read(self.state.version, rest) {
                None => break,
                Some(Err(alert)) => {
                    end = Some(TlsEnd::Refused(alert));
                    break;
                }
                Some(Ok(head)) => head,
            };
            let Some(body) = rest.get(HEADER_BYTES..HEADER_BYTES + head.len) else { break };
            scratch.clear();
            scratch.extend_from_slice(body);
            end = self.open_record(ciphers, head.kind, scratch, content, out);
            consumed += HEADER_BYTES + head.len;
            records += 1;
        }
        // One answer for all that asked meanwhile, and before any data of the host.
        let goes_on = matches!(end, None | Some(TlsEnd::Closed));
        if std::mem::take(&mut self.owes_update) && goes_on && self.update(ciphers, out).is_err() {
            end = Some(TlsEnd::Refused(alert::INTERNAL_ERROR));
        }
        match end {
            Some(TlsEnd::Refused(alert)) => _ = self.alert(ciphers, FATAL, alert, records_max, out),
            Some(TlsEnd::Closed) => self.state.peer_closed = true,
            _ => {}
        }
        let updates = u64::from(self.state.peer_updates.wrapping_sub(updates_before));
        let work_ns = records * RECORD_NS + updates * UPDATE_NS + consumed as u64;
        Opened { consumed, work_ns, end }
    }

    /// Opens one record, and does what it says.
    fn open_record(
        &mut self,
        ciphers: &dyn Protection,
        outer: u8,
        body: &mut [u8],
        content: &mut Vec<u8>,
        out: &mut Vec<u8>,
    ) -> Option<TlsEnd> {
        if self.opener.is_none() {
            self.opener = ciphers.opener(self.state.suite, &self.state.peer);
        }
        let Some(opener) = &mut self.opener else { return Some(TlsEnd::Refused(alert::INTERNAL_ERROR)) };
        let Some((inner, bytes)) = opener.open(outer, body, self.state.peer.number) else {
            return Some(TlsEnd::Refused(alert::BAD_RECORD_MAC));
        };
        self.state.peer.number += 1;
        let bytes = match inner {
            kind::HANDSHAKE if self.state.is_client && self.state.version == TLS_1_3 => {
                match behind_tickets(bytes) {
                    [] => return None,
                    rest => rest,
                }
            }
            _ => bytes,
        };
        let renegotiates = if self.state.is_client { HELLO_REQUEST } else { CLIENT_HELLO };
        match (inner, bytes) {
            (kind::DATA, _) => {
                content.extend_from_slice(bytes);
                // An empty record says nothing.
                self.state.updates_in_a_row *= u8::from(bytes.is_empty());
                None
            }
            (kind::ALERT, &[level, description]) => self.take_alert(level, description),
            (kind::HANDSHAKE, &[KEY_UPDATE, 0, 0, 1, asks @ (0 | 1)]) if self.state.version == TLS_1_3 => {
                self.opener = None;
                self.state.updates_in_a_row += 1;
                if self.state.updates_in_a_row > UPDATES_IN_A_ROW_MAX {
                    return Some(TlsEnd::Refused(alert::UNEXPECTED_MESSAGE));
                }
                self.state.peer_updates = self.state.peer_updates.wrapping_add(1);
                self.owes_update |= asks == 1;
                let updated = ciphers.update(self.state.suite, &mut self.state.peer);
                (!updated).then_some(TlsEnd::Refused(alert::INTERNAL_ERROR))
            }
            (kind::HANDSHAKE, [first, ..]) if self.state.version != TLS_1_3 && *first == renegotiates => {
                let refusal = [WARNING, alert::NO_RENEGOTIATION];
                let sealed = self.seal_one(ciphers, kind::ALERT, &refusal, out);
                sealed.err().map(|Exhausted| TlsEnd::Refused(alert::INTERNAL_ERROR))
            }
            _ => Some(TlsEnd::Refused(alert::UNEXPECTED_MESSAGE)),
        }
    }

    /// Takes an alert of the peer. In TLS 1.3 a level means nothing.
    fn take_alert(&mut self, level: u8, description: u8) -> Option<TlsEnd> {
        let is_warning = match self.state.version {
            TLS_1_3 => description == alert::USER_CANCELED,
            _ => level == WARNING,
        };
        match description {
            alert::CLOSE_NOTIFY => Some(TlsEnd::Closed),
            _ if is_warning => None,
            _ => Some(TlsEnd::Failed(description)),
        }
    }

    /// Seals data as records, and appends them to `out`. A key seals `records_max` records, then
    /// the next one follows; in TLS 1.2 there is none, and the call fails. What it had sealed by
    /// then stays.
    pub fn seal(
        &mut self,
        ciphers: &dyn Protection,
        data: &[u8],
        records_max: u64,
        out: &mut Vec<u8>,
    ) -> Result<(), Exhausted> {
        for content in data.chunks(CONTENT_BYTES_MAX) {
            self.change_keys_if_due(ciphers, records_max, out)?;
            self.seal_one(ciphers, kind::DATA, content, out)?;
        }
        Ok(())
    }

    /// Seals the alert that tells the peer of the end. Nothing follows it: later calls do nothing.
    pub fn close(
        &mut self,
        ciphers: &dyn Protection,
        records_max: u64,
        out: &mut Vec<u8>,
    ) -> Result<(), Exhausted> {
        self.alert(ciphers, WARNING, alert::CLOSE_NOTIFY, records_max, out)
    }

    /// Seals the last alert.
    fn alert(
        &mut self,
        ciphers: &dyn Protection,
        level: u8,
        description: u8,
        records_max: u64,
        out: &mut Vec<u8>,
    ) -> Result<(), Exhausted> {
        if self.state.host_closed {
            return Ok(());
        }
        // The last record of a key is left for this, where there is no next key.
        if self.state.version == TLS_1_3 {
            self.change_keys_if_due(ciphers, records_max, out)?;
        }
        self.seal_one(ciphers, kind::ALERT, &[level, description], out)?;
        self.state.host_closed = true;
        Ok(())
    }

    /// Changes the host's keys, if the present one has sealed enough.
    fn change_keys_if_due(
        &mut self,
        ciphers: &dyn Protection,
        records_max: u64,
        out: &mut Vec<u8>,
    ) -> Result<(), Exhausted> {
        let most = records_max.min(ciphers.records_max(self.state.suite).saturating_sub(1));
        match self.state.host.number < most {
            true => Ok(()),
            false if self.state.version == TLS_1_3 => self.update(ciphers, out),
            false => Err(Exhausted),
        }
    }

    /// Tells the peer that other keys follow, and changes to them.
    fn update(&mut self, ciphers: &dyn Protection, out: &mut Vec<u8>) -> Result<(), Exhausted> {
        self.seal_one(ciphers, kind::HANDSHAKE, &[KEY_UPDATE, 0, 0, 1, 0], out)?;
        self.sealer = None;
        self.state.host_updates += 1;
        match ciphers.update(self.state.suite, &mut self.state.host) {
            true => Ok(()),
            false => Err(Exhausted),
        }
    }

    /// Seals one record under the next number. Behind the last alert nothing is sealed.
    fn seal_one(
        &mut self,
        ciphers: &dyn Protection,
        kind: u8,
        content: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<(), Exhausted> {
        if self.state.host_closed {
            return Ok(());
        }
        if self.sealer.is_none() {
            self.sealer = ciphers.sealer(self.state.suite, &self.state.host);
        }
        let Some(sealer) = &mut self.sealer else { return Err(Exhausted) };
        // A number that is used up would come again.
        if self.state.host.number == u64::MAX || !sealer.seal(kind, content, self.state.host.number, out) {
            return Err(Exhausted);
        }
        self.state.host.number += 1;
        Ok(())
    }
}
