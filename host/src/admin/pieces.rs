//! Input of a restore, as it comes from the caller, and the reasons against it.
//!
//! The input is read to its end, whatever is wrong with it: a caller that still writes would not
//! hear why. So a line that can't be read is a reason, and the next line is read. Reasons are
//! bounded in number and length, as the ledger keeps them and a caller reads them all.

use crate::protocol::admin::Piece;
use greenroom_state::dump::{ENTRY, keys};
use greenroom_state::json::untag_integers;
use greenroom_state::parse::Shape::{self, Any};
use greenroom_state::parse::parse_known;
use std::io::{self, BufRead, Read};

/// Longest line of input, in bytes: the longest record, as text.
const PIECE_BYTES_MAX: u64 = 64 << 20;
/// Most reasons that a refusal names.
const REASONS_MAX: usize = 5;
/// Characters of a reason. A key or a handler's words may be longer.
const REASON_MAX: usize = 500;

/// Reads the next piece, with integers as a plain dump has them; `Err`: why its line can't be read.
/// `line` is memory to be used again. Fails if the input ends, as it ends with a piece of its own.
pub(super) fn next_piece(from: &mut impl BufRead, line: &mut Vec<u8>) -> io::Result<Result<Piece, String>> {
    let mut whole = true;
    loop {
        line.clear();
        let len = from.take(PIECE_BYTES_MAX).read_until(b'\n', line)?;
        match line.last() {
            Some(b'\n') if whole => return Ok(read(line).map(untagged)),
            Some(b'\n') => return Ok(Err(format!("a line has more than {PIECE_BYTES_MAX} bytes"))),
            _ if (len as u64) < PIECE_BYTES_MAX => return Err(io::ErrorKind::UnexpectedEof.into()),
            // The rest of the line is skipped.
            _ => whole = false,
        }
    }
}

/// Fields of [`Piece`].
const PIECE: Shape = keys(&[
    ("session", keys(&[("id", Any), ("service", Any), ("state_version", Any), ("state", Any)])),
    ("table", keys(&[("name", Any), ("version", Any)])),
    ("entry", ENTRY),
    ("delete", Any),
    ("malformed", Any),
]);

/// Reads a piece. A misspelt key is refused: what it holds would be lost.
fn read(line: &[u8]) -> Result<Piece, String> {
    let (piece, unknown) = parse_known(line, PIECE)?;
    unknown.map_or(Ok(piece), Err)
}

/// Piece whose large integers are numbers: it is compared with what the handler writes.
fn untagged(mut piece: Piece) -> Piece {
    match &mut piece {
        Piece::Session { state, .. } => untag_integers(state),
        Piece::Entry(entry) => untag_integers(&mut entry.value),
        Piece::Table { .. } | Piece::Delete(_) | Piece::Malformed(_) | Piece::End => {}
    }
    piece
}

/// Reasons against the input. Only the first ones are kept.
#[derive(Default)]
pub(super) struct Reasons {
    all: Vec<String>,
}

impl Reasons {
    /// Adds a reason, unless there are enough. Cuts a long one.
    pub(super) fn add(&mut self, mut why: String) {
        if self.are_enough() {
            return;
        }
        if let Some((end, _)) = why.char_indices().nth(REASON_MAX) {
            why.truncate(end);
            why.push('…');
        }
        self.all.push(why);
    }

    /// Whether there are as many reasons as are named, so that nothing more need be checked.
    pub(super) fn are_enough(&self) -> bool {
        self.all.len() >= REASONS_MAX
    }

    /// Joins the reasons to a text; `None`: there are none.
    pub(super) fn in_words(&self) -> Option<String> {
        let more = if self.are_enough() { "; and there may be more" } else { "" };
        (!self.all.is_empty()).then(|| self.all.join("; ") + more)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reasons are cut in number and length, between characters.
    #[test]
    fn reasons_are_bounded() {
        let mut reasons = Reasons::default();
        assert_eq!(reasons.in_words(), None);
        (0..100).for_each(|n| reasons.add(format!("{n}{}", "ü".repeat(10_000))));
        let text = reasons.in_words().unwrap();
        assert_eq!(text.matches('…').count(), REASONS_MAX);
        assert!(text.len() < 6000 && text.ends_with("; and there may be more"), "{text}");
    }

    /// A line that is no piece is told, and the next one is read. The end without a piece is an
    /// error.
    #[test]
    fn lines_are_read_one_by_one() {
        let misspelt = "{\"entry\": {\"key\": \"k\", \"value\": {\"any\": 1}, \"until_mss\": 5}}\n";
        let text = misspelt.to_owned() + "nonsense\n{\"malformed\": \"x\"}\n\"end\"\n\"en";
        let mut input = text.as_bytes();
        let mut line = Vec::new();
        let why = next_piece(&mut input, &mut line).unwrap().unwrap_err();
        assert!(why.starts_with("key \"until_mss\" of entry is unknown"), "{why}");
        assert!(next_piece(&mut input, &mut line).unwrap().is_err());
        assert!(matches!(next_piece(&mut input, &mut line).unwrap(), Ok(Piece::Malformed(_))));
        assert!(matches!(next_piece(&mut input, &mut line).unwrap(), Ok(Piece::End)));
        assert!(next_piece(&mut input, &mut line).is_err());
    }
}
