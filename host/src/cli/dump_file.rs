//! Files of dumps, read for `state restore` and `state diff`: a document as a whole, or lines one
//! by one.

use crate::cli::output::CommandFailure;
use crate::protocol::admin::Piece;
use greenroom_state::dump::{self, Dump as File, DumpedSession};
use greenroom_state::dump_lines::{self, DumpHead, DumpLine};
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

/// Opens the file of a dump; `-`: standard input. Returns its name for the ledger, too, where
/// relative names mean nothing.
pub(super) fn open(file: &Path) -> Result<(String, Box<dyn BufRead>), CommandFailure> {
    let unread = |e: std::io::Error| CommandFailure::Failed(format!("{}: {e}", file.display()));
    if file.as_os_str() == "-" {
        return Ok(("standard input".to_owned(), Box::new(BufReader::new(std::io::stdin()))));
    }
    let opened = std::fs::File::open(file).map_err(unread)?;
    let name = std::path::absolute(file).map_err(unread)?;
    Ok((name.display().to_string(), Box::new(BufReader::new(opened))))
}

/// Dump in either form.
pub(super) enum Dumped {
    /// Document, read as a whole.
    Whole(Box<File>),
    /// Head of a dump in lines, and the lines to come.
    Lines(DumpHead, dump_lines::Reader<Box<dyn BufRead>>),
}

impl Dumped {
    /// Reads a document, or the head of a dump in lines.
    pub(super) fn read(mut from: Box<dyn BufRead>) -> Result<Dumped, String> {
        let mut first = Vec::new();
        from.read_until(b'\n', &mut first).map_err(|e| format!("it can't be read: {e}"))?;
        match dump_lines::head(&first) {
            Some(head) => {
                let head = head?;
                let lines = dump_lines::Reader::behind_head(from, &head);
                Ok(Dumped::Lines(head, lines))
            }
            None => dump::read(first.chain(from)).map(|dump| Dumped::Whole(Box::new(dump))),
        }
    }
}

/// Pieces of a dump in lines, one by one as they are read. An entry whose table has not begun
/// begins it.
pub(super) fn pieces_of_lines(
    head: DumpHead,
    lines: impl Iterator<Item = Result<DumpLine, String>>,
) -> impl Iterator<Item = Piece> {
    let mut under_way: Option<String> = None;
    let mut begin = move |name: String| {
        let version = head.services.values().find_map(|s| s.tables.get(&name).copied());
        let is_new = under_way.as_ref() != Some(&name);
        under_way = Some(name.clone());
        is_new.then_some(Piece::Table { name, version })
    };
    lines.flat_map(move |line| match line {
        Err(why) => vec![Piece::Malformed(why)],
        Ok(DumpLine::Dump(_)) => vec![Piece::Malformed("not a dump: it begins twice".into())],
        Ok(DumpLine::Session(s)) => vec![session_piece(*s)],
        Ok(DumpLine::Table { name }) => begin(name).into_iter().collect(),
        Ok(DumpLine::Entry { table, entry }) => {
            begin(table).into_iter().chain([Piece::Entry(entry)]).collect()
        }
        Ok(DumpLine::End { .. }) => vec![Piece::End],
    })
}

/// Piece of a session.
fn session_piece(s: DumpedSession) -> Piece {
    Piece::Session { id: s.id, service: s.service, state_version: s.state_version, state: s.state }
}

/// Cuts a dump into the pieces that are sent: sessions, then each table before its entries,
/// then the end. The host plans in this order.
pub(super) fn pieces(dump: File) -> impl Iterator<Item = Piece> {
    let sessions = dump.sessions.into_iter().map(session_piece);
    let services = dump.services;
    let tables = dump.tables.into_iter().flat_map(move |(name, entries)| {
        // A table's version stands beside its owner. Without an owner the entries have no
        // default version.
        let version = services.values().find_map(|s| s.tables.get(&name).copied());
        let table = Piece::Table { name, version };
        std::iter::once(table).chain(entries.into_iter().map(Piece::Entry))
    });
    sessions.chain(tables).chain(std::iter::once(Piece::End))
}
