//! Output that a peer has not taken: what it is kept in, and how it grows and goes.
//!
//! A session's output is a list of pieces, each a record that begins with its offset in the stream, so that sending rewrites none. A
//! piece has its own bytes ([`Kind::Output`]), or names a payload that others name, too ([`Kind::Shared`]): a long broadcast is kept once.

use crate::core::Core;
use crate::effects::asked::SHARED_FROM_BYTES;
use crate::ids::Slot;
use crate::limits::host::PIECES_AT_ONCE;
use crate::limits::names::Limit;
use crate::session::life::{Life, OUTPUT_HEAD, OUTPUT_RECORDS_PAUSE, Session};
use crate::store::kind::Kind;
use crate::store::layout::Ref;
use arrayvec::ArrayVec;
use smallvec::SmallVec;
use std::collections::HashMap;

/// What a piece costs that names a payload: its offset, the payload's number and length.
pub(crate) const SHARED_PIECE: usize = OUTPUT_HEAD + 12;

/// Records that several others name, and how many do.
#[derive(Debug, Default)]
pub(crate) struct Payloads {
    all: HashMap<u64, (Ref, usize)>,
    last: u64,
}

impl Payloads {
    /// The record of one.
    pub(crate) fn get(&self, number: u64) -> Option<Ref> {
        self.all.get(&number).map(|(r, _)| *r)
    }

    /// One more names it.
    pub(crate) fn name(&mut self, number: u64) {
        if let Some((_, named)) = self.all.get_mut(&number) {
            *named += 1;
        }
    }

    /// Takes one in that recovery found. Nothing names it yet.
    pub(crate) fn found(&mut self, number: u64, record: Ref) {
        self.last = self.last.max(number);
        self.all.insert(number, (record, 0));
    }

    /// Those that nothing names.
    pub(crate) fn unnamed(&self) -> Vec<u64> {
        self.all.iter().filter(|(_, (_, named))| *named == 0).map(|(number, _)| *number).collect()
    }
}

/// The payload that a piece names, and its length.
fn named(piece: &[u8]) -> Option<(u64, usize)> {
    let number = u64::from_le_bytes(piece.get(OUTPUT_HEAD..OUTPUT_HEAD + 8)?.try_into().ok()?);
    let len = u32::from_le_bytes(piece.get(OUTPUT_HEAD + 8..SHARED_PIECE)?.try_into().ok()?);
    Some((number, len as usize))
}

impl Core {
    /// Makes a record that several others may name. There must be room. Whoever makes it lets go of it, with [`Core::unshare`], once they
    /// do.
    pub(crate) fn share(&mut self, data: &[u8]) -> u64 {
        self.payloads.last += 1;
        let number = self.payloads.last;
        let put = self.store.put(None, Kind::Payload, number, data);
        self.payloads.all.insert(number, (put.expect("room was made sure of before"), 0));
        number
    }

    /// Deletes a payload that nothing names.
    pub(crate) fn unshare(&mut self, number: u64) {
        if let Some(&(record, 0)) = self.payloads.all.get(&number) {
            self.store.delete(record);
            self.payloads.all.remove(&number);
        }
    }

    /// One less names it.
    pub(crate) fn unname(&mut self, number: u64) {
        if let Some((_, named)) = self.payloads.all.get_mut(&number) {
            *named -= 1;
            self.unshare(number);
        }
    }

    /// Sends to every session on a topic; to the sender too, unless `others`. There must be room.
    pub(crate) fn broadcast(&mut self, sender: Slot, topic: &str, data: &[u8], others: bool) {
        let to: Vec<_> = self.topics.subscribers(topic).filter(|to| !(others && *to == sender)).collect();
        // What is short is cheaper to copy than to name.
        let shared = (to.len() > 1 && data.len() >= SHARED_FROM_BYTES).then(|| self.share(data));
        for to in to {
            match shared {
                Some(number) => self.push_shared(to, number, data.len()),
                None => self.push_output(to, data),
            }
            self.note_overflow(to);
        }
        if let Some(number) = shared {
            self.unshare(number);
        }
    }

    /// Whether a session's peer leaves too much output untaken for its input to be run.
    pub(crate) fn must_pause(&self, slot: Slot) -> bool {
        let pause = self.limits_of(slot).output_bytes_pause as u64;
        let full = |s: &Session| s.unsent() > pause || s.output.len() > OUTPUT_RECORDS_PAUSE;
        self.sessions.get(slot).is_some_and(full)
    }

    /// Has a session's input wait if its peer leaves too much output untaken.
    pub(crate) fn pause_if_full(&mut self, slot: Slot) {
        if self.must_pause(slot)
            && let Some(s) = self.sessions.get_mut(slot)
            && !std::mem::replace(&mut s.paused, true)
        {
            self.reached(Limit::OutputBytesPause);
        }
    }

    /// Takes note of a session whose output has grown over its limit.
    pub(crate) fn note_overflow(&mut self, slot: Slot) {
        let max = self.limits_of(slot).output_bytes_max as u64;
        if self.sessions.get(slot).is_some_and(|s| s.unsent() > max) {
            self.overflowed.push(slot);
        }
    }

    pub(crate) fn push_output(&mut self, slot: Slot, bytes: &[u8]) {
        let Some(s) = self.sessions.get_mut(slot) else { return };
        if bytes.is_empty() || s.life == Life::Lingering {
            return;
        }
        let appended = s.output_fresh && s.output.last().is_some_and(|&last| self.store.append(last, bytes));
        if !appended {
            self.output.clear();
            self.output.extend_from_slice(&s.bytes_out.to_le_bytes());
            self.output.extend_from_slice(bytes);
            let put = self.store.put(None, Kind::Output, s.id, &self.output);
            s.output.push(put.expect("room was made sure of before"));
            s.output_fresh = true;
        }
        s.bytes_out += bytes.len() as u64;
        self.touch(slot);
    }

    fn push_shared(&mut self, slot: Slot, number: u64, len: usize) {
        let Some(s) = self.sessions.get_mut(slot).filter(|s| s.life != Life::Lingering) else { return };
        let mut piece = [0; SHARED_PIECE];
        piece[..OUTPUT_HEAD].copy_from_slice(&s.bytes_out.to_le_bytes());
        piece[OUTPUT_HEAD..OUTPUT_HEAD + 8].copy_from_slice(&number.to_le_bytes());
        piece[OUTPUT_HEAD + 8..].copy_from_slice(&(len as u32).to_le_bytes());
        let put = self.store.put(None, Kind::Shared, s.id, &piece);
        s.output.push(put.expect("room was made sure of before"));
        // Nothing is appended to it.
        s.output_fresh = false;
        s.bytes_out += len as u64;
        self.payloads.name(number);
        self.touch(slot);
    }

    /// The bytes of a piece.
    #[inline]
    pub(crate) fn piece_bytes(&self, piece: Ref) -> &[u8] {
        if self.store.kind(piece) == Some(Kind::Output) {
            return &self.store.bytes_of(piece)[OUTPUT_HEAD..];
        }
        let payload = self.store.read(piece, named).and_then(|(number, _)| self.payloads.get(number));
        payload.map_or(&[], |r| self.store.bytes_of(r))
    }

    pub(crate) fn piece_len(&self, piece: Ref) -> usize {
        match self.store.kind(piece) {
            Some(Kind::Output) => self.store.read(piece, <[u8]>::len) - OUTPUT_HEAD,
            _ => self.store.read(piece, named).map_or(0, |(_, len)| len),
        }
    }

    /// A piece is sent, or nobody wants it.
    pub(crate) fn drop_piece(&mut self, piece: Ref) {
        if self.store.kind(piece) == Some(Kind::Shared)
            && let Some((number, _)) = self.store.read(piece, named)
        {
            self.unname(number);
        }
        self.store.delete(piece);
    }

    /// Lends the first pieces of a session's unsent output, at most [`PIECES_AT_ONCE`], so that one system call can take them; `None`:
    /// there are none.
    pub fn output<T>(&self, slot: Slot, f: impl FnOnce(&[&[u8]]) -> T) -> Option<T> {
        let s = self.sessions.get(slot)?;
        let mut pieces = s.output.iter().take(PIECES_AT_ONCE).map(|piece| self.piece_bytes(*piece));
        let first = &pieces.next()?[s.output_sent..];
        if s.output.len() == 1 {
            return Some(f(&[first]));
        }
        let all: ArrayVec<&[u8], PIECES_AT_ONCE> = std::iter::once(first).chain(pieces).collect();
        Some(f(&all))
    }

    /// The kernel took output.
    pub(crate) fn sent(&mut self, slot: Slot, bytes: usize, blocked: bool) {
        let Some(s) = self.sessions.get_mut(slot) else { return };
        s.blocked = blocked;
        s.bytes_sent += bytes as u64;
        s.output_sent += bytes;
        if s.unsent() == 0 {
            s.output_sent = 0;
            for piece in std::mem::take(&mut s.output) {
                self.drop_piece(piece);
            }
        } else {
            self.drop_sent(slot);
        }
        let pause = self.limits_of(slot).output_bytes_pause as u64;
        let Some(s) = self.sessions.get_mut(slot) else { return };
        let (unsent, draining) = (s.unsent(), s.life == Life::Draining);
        if unsent <= pause / 2 && s.output.len() <= OUTPUT_RECORDS_PAUSE / 2 {
            if s.paused {
                self.resume(slot);
            }
            self.release_held(slot);
        }
        if draining && unsent == 0 {
            self.flushed(slot);
        }
    }

    /// Drops the pieces that are sent as a whole.
    fn drop_sent(&mut self, slot: Slot) {
        let Some(s) = self.sessions.get(slot) else { return };
        let (mut whole, mut left) = (0, s.output_sent);
        for &piece in &s.output {
            let len = self.piece_len(piece);
            if left < len {
                break;
            }
            (whole, left) = (whole + 1, left - len);
        }
        let Some(s) = self.sessions.get_mut(slot) else { return };
        s.output_sent = left;
        // Few, and seldom many: then they are moved once.
        let gone: SmallVec<[Ref; 2]> = s.output.drain(..whole).collect();
        for piece in gone {
            self.drop_piece(piece);
        }
    }

    pub(crate) fn drop_output(&mut self, slot: Slot) {
        let Some(s) = self.sessions.get_mut(slot) else { return };
        s.bytes_sent = s.bytes_out;
        s.output_sent = 0;
        for piece in std::mem::take(&mut s.output) {
            self.drop_piece(piece);
        }
    }

    /// A piece that recovery found names its payload. False: that is not there, or not as long.
    pub(crate) fn recover_shared(&mut self, piece: Ref) -> bool {
        let Some((number, len)) = self.store.read(piece, named) else { return false };
        let whole = self.payloads.get(number).is_some_and(|r| self.store.read(r, <[u8]>::len) == len);
        if whole {
            self.payloads.name(number);
        }
        whole
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::framing::Framing;
    use crate::input::Input;
    use crate::limits::host::Limits;
    use crate::service::offer::{Build, Offer};
    use crate::turn::code::{Batch, Code};
    use crate::turn::fault::Fault;
    use crate::turn::staging::Staging;
    use greenroom_state::abi::action;
    use greenroom_state::compatibility::StateShape;
    use std::sync::Mutex;

    /// Everybody is on the topics a and b. A message's turn does what the script says next, a call for each word: `a+x` broadcasts x to
    /// all on a, `a-x` to the others, `a!` leaves a, `=x` answers, and anything else fails.
    struct Room(Mutex<Vec<&'static str>>);

    impl Code for Room {
        fn run(&self, batch: &Batch<'_>, staging: &mut Staging<'_>) -> u32 {
            for a in batch.actions {
                let mut script = "";
                match a.kind {
                    action::OPENED => _ = ["a", "b"].map(|topic| staging.subscribe(topic)),
                    action::MESSAGE => script = self.0.lock().unwrap().remove(0),
                    _ => {}
                }
                for word in script.split_whitespace() {
                    let (first, rest) = word.split_at(1);
                    let (call, data) = rest.split_at(1);
                    match (first, call) {
                        ("=", _) => _ = staging.send(rest.as_bytes()),
                        (topic, "+" | "-") => _ = staging.broadcast(topic, data.as_bytes(), call == "-"),
                        (topic, "!") => _ = staging.unsubscribe(topic),
                        _ => {
                            let message = "as asked".to_owned();
                            staging.turn_failed(Fault { kind: 0, message, file: String::new(), line: 0 });
                            return 0;
                        }
                    }
                }
                if !staging.turn_ok() {
                    break;
                }
            }
            0
        }
    }

    /// What the one who speaks gets of a batch of turns, and what another one gets, in so many pieces.
    fn broadcast(script: &[&'static str]) -> (String, String, usize) {
        let mut core = Core::new(Limits::default());
        let framing = Framing::Lines { bytes_max: 9 };
        let shape = StateShape { version: 1, ..StateShape::default() };
        let offer = Offer { name: "s".into(), port: 0, dials: false, framing, shape, tables: Vec::new() };
        let build = Build { library: "l".into(), generation: 1, hash: String::new() };
        core.adopt(&build, vec![(offer, Box::new(Room(Mutex::new(script.to_vec()))))]);
        let service = core.service_named("s").expect("it was adopted");
        core.handle(Input::PassBegins { now_ns: 1 });
        for n in 0..2 {
            let peer = "127.0.0.1:9".parse().expect("an address");
            core.handle(Input::Opened { slot: Slot(n), id: u64::from(n) + 1, service, peer, at_ms: 0 });
        }
        core.handle(Input::Received { slot: Slot(0), bytes: &b"\n".repeat(script.len()) });
        core.handle(Input::Commit);
        let got =
            |slot| core.output(Slot(slot), |p| String::from_utf8(p.concat()).unwrap()).unwrap_or_default();
        let pieces = core.output(Slot(1), |pieces| pieces.len()).unwrap_or(0);
        (got(0), got(1), pieces)
    }

    #[test]
    fn broadcasts_to_the_same_sessions_are_one_and_others_are_not() {
        let told = |script: &[&'static str]| {
            let (own, other, _) = broadcast(script);
            format!("{own} {other}")
        };
        // Within a turn, and from turn to turn.
        assert_eq!(told(&["a+1 a+2", "a+3"]), "123 123");
        // Others, and everybody; another topic.
        assert_eq!(told(&["a-1 a-2 a+3", "a-4"]), "3 1234");
        assert_eq!(told(&["a+1 a! b+2 a+3 b+4"]), "124 1234");
        assert_eq!(told(&["a+1 =2 a+3 =4", "=5 a+6"]), "123456 136");
        // A turn that fails takes back what it went on with, and nothing else.
        assert_eq!(told(&["a+1 a+2", "a+3 fail", "a+4"]), "124 124");
        assert_eq!(told(&["a-1", "a-2 a+3 fail", "a-4"]), " 14");
        // Fifty of them are one piece.
        let long = "a+xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx";
        assert_eq!(broadcast(&[long; 50]).2, 1);
        assert_eq!(broadcast(&[long; 50]).1.len(), 50 * 32);
    }
}
