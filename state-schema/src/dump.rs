//! Format of `greenroom state dump`: written as a stream, because a host may hold more sessions
//! than memory should hold text, and read as a whole.
//!
//! Programs depend on the format: fields are added, never changed. [`REVISION`] counts additions.
//! A field that is not known is refused, as it may be misspelt; in a dump of a later revision it is
//! skipped. State is as stored, not as
//! migrated; `null` for a session that never stored any. Bytes are written as [`crate::json`]
//! has them.
//!
//! A [`Writer`] holds one item at a time, so a dump costs the host the text of its largest
//! session or entry. The document is JSON only after [`Writer::finish`]: a stream that was cut
//! off can't be taken for a whole dump. A dump is read by the command that restores, which
//! needs memory for all of it.

use crate::address::Peer;
use crate::parse::Shape::Any;
use crate::parse::{Shape, parse_known_from};
use crate::sets::Sets;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use std::io::{self, Read, Write};

/// Version of the format. [`read`] refuses all others.
pub const FORMAT: u32 = 1;
/// Number of times that fields were added to the format. Dumps of the first one do not name it.
pub const REVISION: u32 = 1;

/// Service, as far as a dump needs it to read the states.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DumpedService {
    /// Version that new states are written in.
    pub state_version: u32,
    /// Generation that served when the dump was taken.
    pub generation: u64,
    /// Timers of the service itself.
    #[serde(default)]
    pub timers: Vec<DumpedTimer>,
    /// Jobs of the service itself that have not ended.
    #[serde(default)]
    pub jobs: Vec<DumpedJob>,
    /// Connections that are being made for the service itself.
    #[serde(default)]
    pub connects: Vec<DumpedConnect>,
    /// Tables that the service owns, with the versions of their values.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub tables: BTreeMap<String, u32>,
    /// Places of the sets in its states: their order says nothing.
    #[serde(default, skip_serializing_if = "Sets::is_empty")]
    pub sets: Sets,
    /// Places of the sets in the values of its tables, if there are some.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub table_sets: BTreeMap<String, Sets>,
}

/// Session in a dump.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DumpedSession {
    /// Number of the session.
    pub id: u64,
    /// Name of its service.
    pub service: String,
    /// Kind of the endpoint that it came by; empty: an earlier version wrote the dump.
    #[serde(default)]
    pub endpoint: String,
    /// Other end of the connection, as text.
    pub peer: Peer,
    /// Time it opened, RFC 3339.
    pub opened_at: String,
    /// The host connected to its peer, not its peer to the host.
    #[serde(default)]
    pub outbound: bool,
    /// Handler holds its input.
    #[serde(default)]
    pub held: bool,
    /// Version of `state`; 0: none stored.
    pub state_version: u32,
    /// State, as JSON.
    pub state: Value,
    /// Input that is not a whole message yet.
    pub input: Value,
    /// Output that the peer has not taken yet.
    pub output: Value,
    /// Timers of the session.
    pub timers: Vec<DumpedTimer>,
    /// Actions that wait for their turns, oldest first, without timers.
    #[serde(default)]
    pub actions: Vec<DumpedAction>,
    /// Jobs that have not ended.
    #[serde(default)]
    pub jobs: Vec<DumpedJob>,
    /// Connections that are being made for the session.
    #[serde(default)]
    pub connects: Vec<DumpedConnect>,
    /// Topics that the session subscribes to.
    pub topics: Vec<Value>,
    /// Names that the session holds in its service.
    #[serde(default)]
    pub names: Vec<Value>,
    /// Longest message that its handler lets the peer send, in bytes; 0: no bound of its own.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub frame_max: u64,
    /// Silence of the peer that the session is told of, in milliseconds; 0: none.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub idle_after_ms: u64,
}

/// Whether a number says that nothing is set.
fn is_zero(n: &u64) -> bool {
    *n == 0
}

/// Timer in a dump.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DumpedTimer {
    /// Name of the timer.
    pub name: String,
    /// Milliseconds from the dump until it fires, rounded down; 0: due, or within a
    /// millisecond.
    pub in_ms: u64,
}

/// Action that waits for its turn.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DumpedAction {
    /// Kind: `note`, `published`, `job`, `connect` or `dialed`.
    pub kind: String,
    /// Number of the session that caused it, or of the job.
    pub from: u64,
    /// Name of a topic or a job.
    pub name: String,
    /// Data that it carries.
    pub data: Value,
}

/// Job in a dump.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DumpedJob {
    /// Number of the job.
    pub number: u64,
    /// Name of the job.
    pub name: String,
    /// Has a thread, or waits for one.
    pub running: bool,
}

/// Connection that is being made.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DumpedConnect {
    /// Number of the connection.
    pub number: u64,
    /// Service that it will be a session of.
    pub service: String,
    /// Address that it goes to.
    pub to: String,
    /// Name of the server, if it is over TLS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub over_tls: Option<String>,
}

/// Entry of a table.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DumpedEntry {
    /// Key.
    pub key: Value,
    /// Value.
    pub value: Value,
    /// Version of the value, where it differs from the one that the table's owner writes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<u32>,
    /// Deadline of the entry, if it has one: milliseconds since 1970, UTC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until_ms: Option<u64>,
}

/// Dump, read as a whole.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Dump {
    /// Version of the format: [`FORMAT`].
    pub format: u32,
    /// Revision of the format: [`REVISION`]; 0: an earlier version wrote the dump.
    #[serde(default)]
    pub revision: u32,
    /// Time it was begun, RFC 3339.
    pub taken_at: String,
    /// The services by name.
    pub services: BTreeMap<String, DumpedService>,
    /// The sessions by number.
    pub sessions: Vec<DumpedSession>,
    /// The tables by name.
    pub tables: BTreeMap<String, Vec<DumpedEntry>>,
}

/// Fields of a timer.
const TIMERS: Shape = Shape::List(&keys(&[("name", Any), ("in_ms", Any)]));
/// Fields of a job.
const JOBS: Shape = Shape::List(&keys(&[("number", Any), ("name", Any), ("running", Any)]));
/// Fields of a connection that is being made.
const CONNECTS: Shape =
    Shape::List(&keys(&[("number", Any), ("service", Any), ("to", Any), ("over_tls", Any)]));
/// Fields of an action that waits.
const ACTIONS: Shape = Shape::List(&keys(&[("kind", Any), ("from", Any), ("name", Any), ("data", Any)]));
/// Fields of [`DumpedService`], by services.
pub(crate) const SERVICES: Shape = Shape::Map(&keys(&[
    ("state_version", Any),
    ("generation", Any),
    ("timers", TIMERS),
    ("jobs", JOBS),
    ("connects", CONNECTS),
    ("tables", Any),
    ("sets", Any),
    ("table_sets", Any),
]));
/// Fields of [`DumpedSession`].
pub(crate) const SESSION: Shape = keys(&[
    ("id", Any),
    ("service", Any),
    ("endpoint", Any),
    ("peer", Any),
    ("opened_at", Any),
    ("outbound", Any),
    ("held", Any),
    ("state_version", Any),
    ("state", Any),
    ("input", Any),
    ("output", Any),
    ("timers", TIMERS),
    ("actions", ACTIONS),
    ("jobs", JOBS),
    ("connects", CONNECTS),
    ("topics", Any),
    ("names", Any),
    ("frame_max", Any),
    ("idle_after_ms", Any),
]);
/// Fields of [`DumpedEntry`].
pub const ENTRY: Shape = keys(&[("key", Any), ("value", Any), ("version", Any), ("until_ms", Any)]);
/// Fields of [`Dump`].
const DUMP: Shape = keys(&[
    ("format", Any),
    ("revision", Any),
    ("taken_at", Any),
    ("services", SERVICES),
    ("sessions", Shape::List(&SESSION)),
    ("tables", Shape::Map(&Shape::List(&ENTRY))),
]);

/// Object of these keys.
pub const fn keys(known: &'static [(&'static str, Shape)]) -> Shape {
    Shape::Keys(known)
}

/// Reads a dump as a whole, into memory. Fails on text that is no dump, with the line and what
/// was expected there, on another version of the format, and on a key that is not known or is there
/// twice.
pub fn read(from: impl Read) -> Result<Dump, String> {
    let (dump, unknown): (Dump, _) = parse_known_from(from, DUMP).map_err(|e| format!("not a dump: {e}"))?;
    is_read(dump.format, dump.revision, unknown)?;
    Ok(dump)
}

/// Fails if this version does not read a dump of such a head, or if it has an unknown key that no
/// later revision has added.
pub(crate) fn is_read(format: u32, revision: u32, unknown: Option<String>) -> Result<(), String> {
    if format != FORMAT {
        return Err(format!("format {format} is not known to this version, which reads format {FORMAT}"));
    }
    unknown.filter(|_| revision <= REVISION).map_or(Ok(()), |why| Err(format!("not a dump: {why}")))
}

/// Writer of a dump, piece by piece: head, sessions, tables with their entries, end.
///
/// If a write fails, the dump is cut off, and the writer is of no more use.
pub struct Writer<W> {
    out: W,
    /// Whether the list of sessions has ended.
    in_tables: bool,
    /// Whether the list or map being written has an item already.
    has_item: bool,
    /// Whether a table has been begun, whose list is still open.
    has_table: bool,
}

impl<W: Write> Writer<W> {
    /// Writes the head, and begins the list of sessions.
    pub fn new(mut out: W, taken_at: &str, services: &BTreeMap<String, DumpedService>) -> io::Result<Self> {
        write!(
            out,
            "{{\"format\": {FORMAT}, \"revision\": {REVISION}, \"taken_at\": {},",
            Value::from(taken_at)
        )?;
        write!(out, "\n\"services\": {},", serde_json::to_string(services)?)?;
        write!(out, "\n\"sessions\": [")?;
        Ok(Writer { out, in_tables: false, has_item: false, has_table: false })
    }

    /// Writes one session. Panics behind the first table: the format has no place for it.
    pub fn session(&mut self, session: &DumpedSession) -> io::Result<()> {
        assert!(!self.in_tables, "sessions come before tables");
        self.item(&serde_json::to_string(session)?)
    }

    /// Begins a table, and ends the one before it. Names must differ; nothing here checks that.
    pub fn table(&mut self, name: &str) -> io::Result<()> {
        self.begin_tables()?;
        let before = if std::mem::replace(&mut self.has_table, true) { "]," } else { "" };
        self.has_item = false;
        write!(self.out, "{before}\n{}: [", Value::from(name))
    }

    /// Writes one entry of the table begun last. Panics before the first table.
    pub fn entry(&mut self, entry: &DumpedEntry) -> io::Result<()> {
        assert!(self.has_table, "an entry belongs to a table");
        self.item(&serde_json::to_string(entry)?)
    }

    /// Ends the dump, with no table or no session if there was none. Does not flush.
    pub fn finish(mut self) -> io::Result<W> {
        self.begin_tables()?;
        writeln!(self.out, "{}}}}}", if self.has_table { "]" } else { "" })?;
        Ok(self.out)
    }

    /// Ends the list of sessions, once.
    fn begin_tables(&mut self) -> io::Result<()> {
        if !std::mem::replace(&mut self.in_tables, true) {
            write!(self.out, "],\n\"tables\": {{")?;
        }
        Ok(())
    }

    /// Writes an item of the list or map under way.
    fn item(&mut self, json: &str) -> io::Result<()> {
        let before = if std::mem::replace(&mut self.has_item, true) { "," } else { "" };
        write!(self.out, "{before}\n{json}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// Dumps with and without sessions, tables and entries come back whole; no other text does.
    #[test]
    fn what_was_written_is_read() {
        let services = BTreeMap::from([(
            "tally".into(),
            DumpedService {
                state_version: 1,
                generation: 4,
                timers: Vec::new(),
                jobs: Vec::new(),
                connects: Vec::new(),
                tables: BTreeMap::from([("t1".into(), 3)]),
                sets: Sets::everywhere(),
                table_sets: BTreeMap::from([("t1".into(), Sets::everywhere())]),
            },
        )]);
        let session = |id| DumpedSession {
            id,
            service: "tally".into(),
            endpoint: "line".into(),
            peer: "127.0.0.1:5".parse().unwrap(),
            opened_at: "2026-01-01T00:00:00.000Z".into(),
            outbound: true,
            held: false,
            state_version: 1,
            state: json!({"count": 3}),
            input: json!("half a li"),
            output: json!({"$b64": "/w=="}),
            timers: vec![DumpedTimer { name: "bed".into(), in_ms: 5 }],
            actions: vec![DumpedAction { kind: "note".into(), from: 1, name: "n".into(), data: json!(1) }],
            jobs: vec![DumpedJob { number: 1, name: "j".into(), running: true }],
            connects: vec![DumpedConnect {
                number: 7,
                service: "tally".into(),
                to: "[::1]:6".into(),
                over_tls: Some("a".into()),
            }],
            topics: vec!["room".into()],
            names: vec!["ann".into()],
            frame_max: id,
            idle_after_ms: 2 * id,
        };
        let entry = |k: &str| DumpedEntry {
            key: json!(k),
            value: json!([1, null]),
            version: Some(2),
            until_ms: Some(3),
        };
        for (sessions, tables) in [(0, 0), (1, 1), (3, 2)] {
            let mut w = Writer::new(Vec::new(), "2026-01-01T00:00:01.000Z", &services).unwrap();
            for id in 0..sessions {
                w.session(&session(id)).unwrap();
            }
            for t in 0..tables {
                w.table(&format!("t{t}")).unwrap();
                for k in 0..t * 2 {
                    w.entry(&entry(&k.to_string())).unwrap();
                }
            }
            let text = w.finish().unwrap();
            let dump = read(&text[..]).unwrap();
            assert_eq!(dump.services, services);
            assert_eq!(dump.sessions, (0..sessions).map(session).collect::<Vec<_>>());
            assert_eq!(dump.tables.len(), tables);
            for (t, (name, entries)) in dump.tables.iter().enumerate() {
                assert_eq!((name, entries.len()), (&format!("t{t}"), t * 2));
            }
        }
        assert!(read(&b"{\"format\": 1"[..]).unwrap_err().contains("not a dump"));
        let later = br#"{"format": 9, "taken_at": "", "services": {}, "sessions": [], "tables": {}}"#;
        assert!(read(&later[..]).unwrap_err().contains("format 9"));
    }

    /// A misspelt field is refused with its place, also in a dump of an earlier revision. A dump of
    /// a later one may have more fields.
    #[test]
    fn a_field_that_is_not_known_is_refused() {
        let dump = |revision: &str, entry: &str| {
            let text = format!(
                "{{\"format\": 1, {revision}\"taken_at\": \"\", \"services\": {{}}, \"sessions\": [],\n\
                 \"tables\": {{\"t\": [{{\"key\": \"k\", \"value\": {{\"any\": 1}}{entry}}}]}}}}"
            );
            read(text.as_bytes())
        };
        let misspelt = ", \"until_mss\": 5";
        for revision in ["", "\"revision\": 0, ", "\"revision\": 1, "] {
            assert!(dump(revision, ", \"until_ms\": 5").is_ok());
            assert_eq!(
                dump(revision, misspelt).unwrap_err(),
                "not a dump: key \"until_mss\" of tables.t[0], line 2, is unknown: what it holds would be lost; \
                 there are: key, value, version, until_ms"
            );
        }
        assert_eq!(dump("\"revision\": 2, ", misspelt).unwrap().tables["t"][0].until_ms, None);
        let twice = dump("", ", \"until_ms\": 5, \"until_ms\": 6").unwrap_err();
        assert!(
            twice.starts_with("not a dump: key \"until_ms\" of tables.t[0], line 2, is there twice"),
            "{twice}"
        );
    }
}
