//! Output a peer has not taken yet, in pieces, one record each.
//!
//! A piece's record begins with its offset in the stream, so that sending rewrites none, and a
//! successor finds the order and the gaps. A piece has bytes of its own ([`Kind::Output`]), or
//! names a shared record ([`Kind::Shared`]): a long broadcast is stored once.
//!
//! A piece grows while the pass that made it is not committed; afterwards it never changes. A
//! commit merges many short pieces into one. Pieces are deleted as a whole once they are sent,
//! with the next commit. A death before that commit brings them back, and recovery books what the
//! kernel counts.
//!
//! Writers reserve room first, so that appending cannot fail. Costs O(bytes) to append, and
//! O(pieces that are done) to book.

use super::life::{Life, Session};
use crate::limits::host::{Limits, PIECES_AT_ONCE};
use crate::store::kind::Kind;
use crate::store::layout::{Full, Ref};
use crate::store::records::Store;
use crate::store::shared::{SHARED_FROM_BYTES, SharedRecords};
use arrayvec::ArrayVec;
use smallvec::SmallVec;

/// Bytes of an output record's head: its offset in the stream (u64, little-endian).
const OUTPUT_HEAD: usize = 8;
/// Bytes of a piece that names a shared record: head, number (u64) and length (u32).
const SHARED_PIECE: usize = OUTPUT_HEAD + 12;
/// Pieces of output from which a session's input waits, as at `output_bytes_pause`: small
/// pieces cost more than their bytes.
const PIECES_PAUSE: usize = 1024;

/// Pieces of output from which a commit merges the newest ones: small pieces take far more memory
/// than their bytes, and a call each to send.
const MERGED_FROM: usize = 2 * PIECES_AT_ONCE;
/// Pieces that are merged at least, so that a byte is copied seldom.
const MERGED_PIECES: usize = 32;
/// Bytes of a piece of records of TLS, at most.
const SEALED_PIECE: usize = 64 * 1024;
/// Bytes of a merged piece, at most.
const MERGED_BYTES: usize = 32 * 1024;

/// Writer of output pieces. Holds the memory of a record in the making.
#[derive(Debug, Default)]
pub(crate) struct OutputWriter {
    /// Scratch: a head and its bytes.
    record: Vec<u8>,
}

impl OutputWriter {
    /// Returns the bytes of the record that [`OutputWriter::push`] writes, at most. Callers
    /// reserve them.
    pub(crate) fn record_bytes(len: usize) -> usize {
        OUTPUT_HEAD + len
    }

    /// Returns the bytes of the piece of a broadcast that each subscriber gets, at most.
    pub(crate) fn broadcast_record_bytes(len: usize) -> usize {
        if len >= SHARED_FROM_BYTES { SHARED_PIECE } else { OUTPUT_HEAD + len }
    }

    /// Appends bytes to a session's output. Room must be reserved. False: the session takes
    /// none.
    #[inline]
    pub(crate) fn push(&mut self, store: &mut Store, s: &mut Session, bytes: &[u8]) -> bool {
        // Our end of the stream is shut, so nothing could be sent any more.
        if bytes.is_empty() || s.life == Life::Lingering {
            return false;
        }
        self.append(store, s, bytes).expect("room was reserved before");
        true
    }
}

impl Session {
    /// Ends the newest piece of output: what is appended next begins another one.
    pub(crate) fn end_piece(&mut self) {
        self.output_fresh = false;
    }
}

impl OutputWriter {
    /// Appends records of TLS to a session's output, many of them as several pieces. Fails if the
    /// store has no room, also in its reserve; a part of them may be there then.
    pub(crate) fn push_sealed(
        &mut self,
        store: &mut Store,
        s: &mut Session,
        sealed: &[u8],
    ) -> Result<(), Full> {
        if s.life == Life::Lingering {
            return Ok(());
        }
        for piece in sealed.chunks(SEALED_PIECE) {
            self.append(store, s, piece)?;
        }
        Ok(())
    }

    /// Appends bytes to the newest piece, if that may still grow, or as another piece.
    #[inline(always)]
    fn append(&mut self, store: &mut Store, s: &mut Session, bytes: &[u8]) -> Result<(), Full> {
        // The answers of one pass are mostly one record. A record that is committed must not
        // change.
        let appended = s.output_fresh && s.output.last().is_some_and(|&last| store.append(last, bytes));
        if !appended {
            self.record.clear();
            self.record.extend_from_slice(&s.bytes_out.to_le_bytes());
            self.record.extend_from_slice(bytes);
            s.output.push(store.put(None, Kind::Output, s.id, &self.record)?);
            s.output_fresh = true;
        }
        s.bytes_out += bytes.len() as u64;
        Ok(())
    }
}

/// Appends a shared record of `len` bytes to a session's output. Room must be reserved. False:
/// the session takes none. O(1).
pub(crate) fn push_shared(
    store: &mut Store,
    shared: &mut SharedRecords,
    s: &mut Session,
    number: u64,
    len: usize,
) -> bool {
    if s.life == Life::Lingering {
        return false;
    }
    let mut piece = [0; SHARED_PIECE];
    piece[..OUTPUT_HEAD].copy_from_slice(&s.bytes_out.to_le_bytes());
    piece[OUTPUT_HEAD..OUTPUT_HEAD + 8].copy_from_slice(&number.to_le_bytes());
    piece[OUTPUT_HEAD + 8..].copy_from_slice(&(len as u32).to_le_bytes());
    let put = store.put(None, Kind::Shared, s.id, &piece);
    s.output.push(put.expect("room was reserved before"));
    // Nothing is appended to a shared record.
    s.output_fresh = false;
    s.bytes_out += len as u64;
    // Counted for the piece, so that the bytes stay until the last session has sent them.
    shared.name(number);
    true
}

/// Returns the number and the length of the shared record that a piece names; `None`: the
/// record is too short.
fn named(piece: &[u8]) -> Option<(u64, usize)> {
    let number = u64::from_le_bytes(piece.get(OUTPUT_HEAD..OUTPUT_HEAD + 8)?.try_into().ok()?);
    let len = u32::from_le_bytes(piece.get(OUTPUT_HEAD + 8..SHARED_PIECE)?.try_into().ok()?);
    Some((number, len as usize))
}

/// Returns the offset of a piece in the stream; `u64::MAX`: the record is too short to have
/// one.
pub(crate) fn piece_offset(record: &[u8]) -> u64 {
    record.get(..OUTPUT_HEAD).and_then(|b| b.try_into().ok()).map_or(u64::MAX, u64::from_le_bytes)
}

/// Lends the bytes of a piece; none if the shared record that it names is missing.
#[inline(always)]
pub(crate) fn piece_bytes<'s>(store: &'s Store, shared: &SharedRecords, piece: Ref) -> &'s [u8] {
    let (kind, record) = store.kind_and_bytes(piece);
    if kind == Some(Kind::Output) {
        return &record[OUTPUT_HEAD..];
    }
    let record = named(record).and_then(|(number, _)| shared.get(number));
    record.map_or(&[], |r| store.bytes_of(r))
}

/// Returns the length of a piece, in bytes. O(1): the length of a shared record is in the
/// piece.
pub(crate) fn piece_len(store: &Store, piece: Ref) -> usize {
    match store.kind(piece) {
        Some(Kind::Output) => store.read(piece, <[u8]>::len) - OUTPUT_HEAD,
        _ => store.read(piece, named).map_or(0, |(_, len)| len),
    }
}

/// Deletes a piece that is sent, or that nobody wants, and the shared record with the last that
/// names it.
fn drop_piece(store: &mut Store, shared: &mut SharedRecords, piece: Ref) {
    if store.kind(piece) == Some(Kind::Shared)
        && let Some((number, _)) = store.read(piece, named)
    {
        shared.unname(store, number);
    }
    store.delete(piece);
}

/// Names the shared record of a piece that recovery found. False: the record is missing, or of
/// another length; or the piece is too short. The caller deletes the piece then.
pub(crate) fn recover_piece(store: &Store, shared: &mut SharedRecords, piece: Ref) -> bool {
    if store.kind(piece) != Some(Kind::Shared) {
        return store.read(piece, <[u8]>::len) >= OUTPUT_HEAD;
    }
    let Some((number, len)) = store.read(piece, named) else { return false };
    let whole = shared.get(number).is_some_and(|r| store.read(r, <[u8]>::len) == len);
    if whole {
        shared.name(number);
    }
    whole
}

impl Session {
    /// Returns whether its peer leaves so much output untaken that its input waits.
    pub(crate) fn output_is_full(&self, limits: &Limits) -> bool {
        self.unsent() > limits.output_bytes_pause as u64 || self.output.len() > PIECES_PAUSE
    }

    /// Returns whether its peer has taken enough output for its input to go on. Half of the
    /// limit lies in between, so that a session does not pause and go on with each piece.
    pub(crate) fn output_has_drained(&self, limits: &Limits) -> bool {
        self.unsent() <= limits.output_bytes_pause as u64 / 2 && self.output.len() <= PIECES_PAUSE / 2
    }

    /// Lends the first pieces of its unsent output, at most [`PIECES_AT_ONCE`], so that one
    /// system call can take them; `None`: there are none. Copies nothing.
    pub(crate) fn lend_output<T>(
        &self,
        store: &Store,
        shared: &SharedRecords,
        f: impl FnOnce(&[&[u8]]) -> T,
    ) -> Option<T> {
        let (&first, others) = self.output.split_first()?;
        let first = &piece_bytes(store, shared, first)[self.output_sent as usize..];
        if others.is_empty() {
            return Some(f(&[first]));
        }
        let others = others.iter().map(|p| piece_bytes(store, shared, *p));
        let all: ArrayVec<&[u8], PIECES_AT_ONCE> =
            std::iter::once(first).chain(others).take(PIECES_AT_ONCE).collect();
        Some(f(&all))
    }

    /// Returns a copy of its unsent output. O(bytes).
    pub(crate) fn copy_output(&self, store: &Store, shared: &SharedRecords) -> Vec<u8> {
        let mut output = Vec::new();
        for &piece in &self.output {
            output.extend_from_slice(piece_bytes(store, shared, piece));
        }
        output.drain(..self.output_sent as usize);
        output
    }

    /// Books bytes that the kernel took, and drops the pieces that are sent as a whole. `bytes`
    /// is at most what is unsent.
    pub(crate) fn book_sent(&mut self, store: &mut Store, shared: &mut SharedRecords, bytes: usize) {
        self.bytes_sent += bytes as u64;
        // A send books what one call is offered: 32 pieces of 4 MiB at most. Recovery books
        // what the predecessor sent since its last commit, all at once.
        self.output_sent += bytes as u32;
        // The common case: no length is read.
        if self.unsent() == 0 {
            self.output_sent = 0;
            for &piece in &self.output {
                drop_piece(store, shared, piece);
            }
            // An empty one: pieces beyond the first two leave no memory behind.
            self.output = SmallVec::new();
            return;
        }
        let (mut whole, mut left) = (0, self.output_sent as usize);
        for &piece in &self.output {
            let len = piece_len(store, piece);
            if left < len {
                break;
            }
            (whole, left) = (whole + 1, left - len);
        }
        self.output_sent = left as u32;
        // Few, and seldom many: then they are moved once.
        let gone: SmallVec<[Ref; 2]> = self.output.drain(..whole).collect();
        for piece in gone {
            drop_piece(store, shared, piece);
        }
    }

    /// Merges its newest pieces into one, if there are many short ones. Runs before a commit.
    /// Without room for the record, the pieces stay as they are. O(bytes merged), at most
    /// [`MERGED_BYTES`].
    #[inline]
    pub(crate) fn merge_output(&mut self, store: &mut Store) {
        if self.output.len() > MERGED_FROM {
            self.merge_newest(store);
        }
    }

    /// Merges as above. A piece that names a shared record ends the run, and so does the oldest
    /// piece: it may be sent in part.
    #[cold]
    fn merge_newest(&mut self, store: &mut Store) {
        let (mut from, mut bytes) = (self.output.len(), 0);
        while from > 1 {
            let piece = self.output[from - 1];
            let len = piece_len(store, piece);
            if store.kind(piece) != Some(Kind::Output) || bytes + len > MERGED_BYTES {
                break;
            }
            (from, bytes) = (from - 1, bytes + len);
        }
        if self.output.len() - from < MERGED_PIECES || !store.reserve([OUTPUT_HEAD + bytes]) {
            return;
        }
        let mut record = Vec::with_capacity(OUTPUT_HEAD + bytes);
        // The offset of the first one is that of all.
        record.extend_from_slice(&store.bytes_of(self.output[from])[..OUTPUT_HEAD]);
        for &piece in &self.output[from..] {
            record.extend_from_slice(&store.bytes_of(piece)[OUTPUT_HEAD..]);
        }
        let Ok(merged) = store.put(None, Kind::Output, self.id, &record) else { return };
        for piece in self.output.drain(from..) {
            store.delete(piece);
        }
        self.output.push(merged);
    }

    /// Drops all unsent output, which then counts as sent. O(pieces).
    pub(crate) fn drop_output(&mut self, store: &mut Store, shared: &mut SharedRecords) {
        self.bytes_sent = self.bytes_out;
        self.output_sent = 0;
        for piece in std::mem::take(&mut self.output) {
            drop_piece(store, shared, piece);
        }
    }
}
