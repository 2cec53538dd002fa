//! Dump as lines of JSON, for programs that read it piece by piece (`state dump --ndjson`).
//!
//! | line | holds |
//! | --- | --- |
//! | `{"dump": {"format": 1, "revision": 1, "taken_at": …, "services": …}}` | the head, first |
//! | `{"session": {…}}` | a session, as in a dump |
//! | `{"table": {"name": …}}` | a table begins, perhaps without an entry |
//! | `{"entry": {"table": …, "key": …, "value": …}}` | an entry of a table |
//! | `{"end": {"sessions": 2, "entries": 3}}` | the last line: nothing was cut off |
//!
//! Lines may be left out and changed by a filter. Memory is that of one line, for writer and
//! reader.

use crate::dump::{DumpedEntry, DumpedService, DumpedSession, REVISION, SERVICES, SESSION, is_read, keys};
use crate::parse::Shape::Any;
use crate::parse::{Shape, parse_known, parse_written};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io::{self, BufRead, Write};

/// Line of a dump.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DumpLine {
    /// Head of the dump.
    Dump(DumpHead),
    /// Session.
    Session(Box<DumpedSession>),
    /// Begin of a table.
    Table {
        /// Name of the table.
        name: String,
    },
    /// Entry of a table.
    Entry {
        /// Name of the table.
        table: String,
        /// Entry.
        #[serde(flatten)]
        entry: DumpedEntry,
    },
    /// End of the dump, with the number of what was written.
    End {
        /// Sessions.
        sessions: u64,
        /// Entries.
        entries: u64,
    },
}

/// Head of a dump.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DumpHead {
    /// Version of the format: [`crate::dump::FORMAT`].
    pub format: u32,
    /// Revision of the format, as in a dump.
    #[serde(default)]
    pub revision: u32,
    /// Time it was begun, RFC 3339.
    pub taken_at: String,
    /// The services by name.
    pub services: BTreeMap<String, DumpedService>,
}

/// Writes a line.
pub fn write(out: &mut impl Write, line: &DumpLine) -> io::Result<()> {
    // A number that no float is stays as it is: lines are never read back through a map.
    let mut text = serde_json::to_vec(line)?;
    text.push(b'\n');
    out.write_all(&text)
}

/// Fields of all lines.
const LINE: Shape = keys(&[
    ("dump", keys(&[("format", Any), ("revision", Any), ("taken_at", Any), ("services", SERVICES)])),
    ("session", SESSION),
    ("table", keys(&[("name", Any)])),
    ("entry", keys(&[("table", Any), ("key", Any), ("value", Any), ("version", Any), ("until_ms", Any)])),
    ("end", keys(&[("sessions", Any), ("entries", Any)])),
]);

/// Lines of a dump, read one after the other. The first error is the last item.
pub struct Reader<R> {
    from: R,
    line: Vec<u8>,
    number: u64,
    /// Revision of the format that the head names.
    revision: u32,
    has_ended: bool,
}

/// Whether a line is the head of a dump in lines: it is read then.
pub fn head(line: &[u8]) -> Option<Result<DumpHead, String>> {
    // The beginning of a document is no line, and a line is a head even if a key is wrong.
    let DumpLine::Dump(_) = parse_written(line).ok()? else { return None };
    match parse_known(line, LINE) {
        Ok((DumpLine::Dump(head), unknown)) => {
            Some(is_read(head.format, head.revision, unknown).map(|()| head))
        }
        Ok(_) => None,
        Err(why) => Some(Err(format!("not a dump: {why}"))),
    }
}

impl<R: BufRead> Reader<R> {
    /// Reads what follows the head.
    pub fn behind_head(from: R, head: &DumpHead) -> Reader<R> {
        Reader { from, line: Vec::new(), number: 1, revision: head.revision, has_ended: false }
    }

    /// Reads a line. Fails on a key that is not known or is there twice, too.
    fn line(&self) -> Result<DumpLine, String> {
        let (line, unknown) = parse_known(&self.line, LINE)?;
        unknown.filter(|_| self.revision <= REVISION).map_or(Ok(line), Err)
    }

    /// Fails if anything but white space follows the last line: a second dump, say, which would be
    /// left out.
    fn nothing_follows(&mut self) -> Result<(), String> {
        loop {
            self.line.clear();
            self.number += 1;
            match self.from.read_until(b'\n', &mut self.line) {
                Ok(0) => return Ok(()),
                Ok(_) if self.line.trim_ascii().is_empty() => {}
                Ok(_) => return Err(format!("line {} follows the end of the dump", self.number)),
                Err(e) => return Err(format!("line {} can't be read: {e}", self.number)),
            }
        }
    }
}

impl<R: BufRead> Iterator for Reader<R> {
    type Item = Result<DumpLine, String>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.has_ended {
            return None;
        }
        self.line.clear();
        self.number += 1;
        let number = self.number;
        let read = match self.from.read_until(b'\n', &mut self.line) {
            Ok(0) => Err("the dump was cut off: its last line is no {\"end\": …}".to_owned()),
            Ok(_) => self.line().map_err(|e| format!("not a dump: line {number}: {e}")),
            Err(e) => Err(format!("line {number} can't be read: {e}")),
        };
        let read = match read {
            Ok(DumpLine::End { .. }) => self.nothing_follows().and(read),
            other => other,
        };
        self.has_ended = !matches!(
            read,
            Ok(DumpLine::Dump(_) | DumpLine::Session(_) | DumpLine::Table { .. } | DumpLine::Entry { .. })
        );
        Some(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dump::FORMAT;
    use serde_json::json;

    fn sample() -> Vec<DumpLine> {
        let head = DumpHead {
            format: FORMAT,
            revision: REVISION,
            taken_at: "now".into(),
            services: BTreeMap::new(),
        };
        let value = json!({"n": 18446744073709551615u64, "f": 0.1});
        let entry = DumpedEntry { key: json!("k"), value, version: Some(2), until_ms: None };
        vec![
            DumpLine::Dump(head),
            DumpLine::Table { name: "t".into() },
            DumpLine::Entry { table: "t".into(), entry },
            DumpLine::End { sessions: 0, entries: 1 },
        ]
    }

    #[test]
    fn lines_are_read_as_they_were_written() {
        let mut text = Vec::new();
        sample().iter().for_each(|line| write(&mut text, line).unwrap());
        let first = text.iter().position(|b| *b == b'\n').unwrap() + 1;
        let head_of = head(&text[..first]).unwrap().unwrap();
        let behind = |text: &[u8]| Reader::behind_head(text, &head_of).collect::<Result<Vec<_>, _>>();
        let read = behind(&text[first..]);
        assert_eq!(read.unwrap(), sample()[1..]);
        let twice = [&text[first..], b"\n", &text[..]].concat();
        let read = behind(&twice[..]);
        assert_eq!(read.unwrap_err(), "line 6 follows the end of the dump");
        // Without its last line it was cut off.
        let end = text[..text.len() - 1].iter().rposition(|b| *b == b'\n').unwrap() + 1;
        let read = behind(&text[first..end]);
        assert!(read.unwrap_err().contains("cut off"));
        let read = behind(&b"{\"entry\": 1}\n"[..]);
        assert!(read.unwrap_err().starts_with("not a dump: line 2: "));
        for (line, why) in [
            (
                &b"{\"entry\": {\"table\": \"t\", \"key\": 1, \"value\": 2, \"untilms\": 3}}\n"[..],
                "key \"untilms\" of entry is unknown",
            ),
            (b"{\"table\": {\"name\": \"t\", \"name\": \"t\"}}\n", "key \"name\" of table is there twice"),
        ] {
            let said = behind(line).unwrap_err();
            assert!(said.starts_with("not a dump: line 2: ") && said.contains(why), "{said}");
        }
        assert!(head(b"{\"format\": 1,\n").is_none());
        let misspelt = br#"{"dump": {"format": 1, "taken_at": "", "services": {}, "x": 1}}"#;
        assert!(head(misspelt).unwrap().unwrap_err().contains("key \"x\" of dump is unknown"));
        assert!(head(br#"{"dump": {"format": 9, "taken_at": "", "services": {}}}"#).unwrap().is_err());
    }
}
