//! Dump of states and tables, streamed to a caller.
//!
//! Services, sessions and tables are read slice after slice from the loop and sent in pieces of
//! about 64 KiB. No part of the host holds a whole dump, and no slice holds up a client. In
//! return the dump is no snapshot: the host goes on between two slices. Each session and each
//! entry is consistent in itself.
//!
//! The format is [`greenroom_state::dump`]'s, and a restore reads it. States are written as
//! stored, in the version that their build wrote.
//!
//! If the worker dies or the caller leaves, the document ends in the middle and is no JSON. A
//! caller cannot take a part for the whole.

use crate::admin::ask::{Failure, get, services, sets_of};
use crate::admin::caller::Caller;
use crate::admin::query::{Answer, Query, QueryMailbox, SchemaOf};
use crate::admin::select::{each_selected, known_service};
use crate::admin::time::rfc3339;
use crate::protocol::admin::Reply;
use crate::protocol::selection::Selection;
use crate::protocol::status::ServiceStatus;
use greenroom_core::effects::action_name::action_name;
use greenroom_core::effects::inbox::ActionView;
use greenroom_core::effects::job_forms::JobView;
use greenroom_core::operate::inspect::{ConnectView, OwnSlice, SessionView};
use greenroom_state::dump::{
    self, DumpedAction, DumpedConnect, DumpedEntry, DumpedJob, DumpedService, DumpedSession, DumpedTimer,
};
use greenroom_state::dump_lines::{self, DumpHead, DumpLine};
use greenroom_state::json;
use std::collections::BTreeMap;
use std::io::{self, Write};
use std::time::SystemTime;

/// Streams a dump of the selected sessions. Tables come with a dump of all, and those of a service
/// with a dump of that service, unless its sessions are selected further. `strings`: integers
/// beyond 2^53 are written as strings in a tag. `lines`: as lines of JSON.
///
/// Refuses an unknown service before the first byte. A session that is not found is refused at
/// the end of the sessions, when the head of the document was written already. O(sessions +
/// entries).
pub(super) fn dump(
    of: Selection,
    strings: bool,
    lines: bool,
    caller: &mut Caller<'_>,
    mailbox: &QueryMailbox,
) -> Result<(), Failure> {
    let services = dumped_services(of.service.as_deref(), mailbox)?;
    let now =
        rfc3339(SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |d| d.as_millis() as u64));
    // Tables are shared, so they are no part of single sessions.
    let tables: Vec<String> = match (&of.service, of.is_of_some()) {
        (_, true) => Vec::new(),
        (Some(_), _) => services.values().flat_map(|s| s.tables.keys().cloned()).collect(),
        (None, _) => get(mailbox, Query::Tables, |a| if let Answer::Tables(t) = a { Some(t) } else { None })?,
    };
    let pieces = Pieces { caller, text: Vec::new() };
    let mut writer = DumpWriter::new(pieces, now, services, lines)?;
    let (_, notice) = each_selected(mailbox, of, true, |view| Ok(writer.session(dumped(view, strings))?))?;
    for name in tables {
        dump_table(&name, strings, &mut writer, mailbox)?;
    }
    let mut pieces = writer.finish()?;
    pieces.flush()?;
    Ok(notice.map_or(Ok(()), |text| pieces.caller.say(&Reply::Notice(text)))?)
}

/// Writer of a dump in either form.
enum DumpWriter<'c, 'a> {
    Document(dump::Writer<Pieces<'c, 'a>>),
    Lines { out: Pieces<'c, 'a>, table: String, sessions: u64, entries: u64 },
}

impl<'c, 'a> DumpWriter<'c, 'a> {
    fn new(
        mut out: Pieces<'c, 'a>,
        taken_at: String,
        services: BTreeMap<String, DumpedService>,
        lines: bool,
    ) -> io::Result<DumpWriter<'c, 'a>> {
        if !lines {
            return Ok(DumpWriter::Document(dump::Writer::new(out, &taken_at, &services)?));
        }
        let head = DumpHead { format: dump::FORMAT, revision: dump::REVISION, taken_at, services };
        dump_lines::write(&mut out, &DumpLine::Dump(head))?;
        Ok(DumpWriter::Lines { out, table: String::new(), sessions: 0, entries: 0 })
    }

    fn session(&mut self, session: DumpedSession) -> io::Result<()> {
        match self {
            DumpWriter::Document(writer) => writer.session(&session),
            DumpWriter::Lines { out, sessions, .. } => {
                *sessions += 1;
                dump_lines::write(out, &DumpLine::Session(Box::new(session)))
            }
        }
    }

    fn table(&mut self, name: &str) -> io::Result<()> {
        match self {
            DumpWriter::Document(writer) => writer.table(name),
            DumpWriter::Lines { out, table, .. } => {
                name.clone_into(table);
                dump_lines::write(out, &DumpLine::Table { name: name.to_owned() })
            }
        }
    }

    fn entry(&mut self, entry: DumpedEntry) -> io::Result<()> {
        match self {
            DumpWriter::Document(writer) => writer.entry(&entry),
            DumpWriter::Lines { out, table, entries, .. } => {
                *entries += 1;
                dump_lines::write(out, &DumpLine::Entry { table: table.clone(), entry })
            }
        }
    }

    fn finish(self) -> io::Result<Pieces<'c, 'a>> {
        match self {
            DumpWriter::Document(writer) => writer.finish(),
            DumpWriter::Lines { mut out, sessions, entries, .. } => {
                dump_lines::write(&mut out, &DumpLine::End { sessions, entries })?;
                Ok(out)
            }
        }
    }
}

/// Streams a table, slice after slice, in the order of its keys. The version of an entry is
/// written only where it differs from the owner's.
fn dump_table(
    name: &str,
    strings: bool,
    writer: &mut DumpWriter<'_, '_>,
    mailbox: &QueryMailbox,
) -> Result<(), Failure> {
    writer.table(name)?;
    // The empty key is the first of all keys.
    let mut from = Some(Vec::new());
    while let Some(key) = from {
        let query = Query::Entries(name.to_owned(), key);
        let slice = get(mailbox, query, |a| if let Answer::Entries(e) = a { Some(e) } else { None })?;
        let of_entry = slice.versions.into_iter().zip(slice.until);
        for ((key, packed), (version, until_ms)) in slice.entries.into_iter().zip(of_entry) {
            let value = value_of(&packed, strings);
            writer.entry(DumpedEntry { key: json::bytes_to_json(&key), value, version, until_ms })?;
        }
        from = slice.next;
    }
    Ok(())
}

/// Describes the services, or the one that is named. Refuses a name that no service has, and
/// says which there are. O(services and their own timers, jobs and connections).
fn dumped_services(
    service: Option<&str>,
    mailbox: &QueryMailbox,
) -> Result<BTreeMap<String, DumpedService>, Failure> {
    if let Some(name) = service {
        known_service(name, mailbox)?;
    }
    let all = services(mailbox)?;
    let named = |s: &&ServiceStatus| service.is_none_or(|name| name == s.name);
    let owned = get(mailbox, Query::Owned, |a| if let Answer::Owned(o) = a { Some(o) } else { None })?;
    let mut services = BTreeMap::new();
    for s in all.iter().filter(named) {
        let (state_version, generation) = (s.state_version, s.generation);
        // The versions of its tables are a restore's default for entries without one.
        let (timers, own) = own_of(&s.name, mailbox)?;
        let jobs = own.jobs.into_iter().map(dumped_job).collect();
        let connects = own.connects.into_iter().map(dumped_connect).collect();
        let mine = owned.iter().filter(|(service, ..)| *service == s.name);
        let tables: BTreeMap<_, _> = mine.map(|(_, table, version)| (table.clone(), *version)).collect();
        let sets = sets_of(SchemaOf::Service(s.name.clone()), mailbox)?;
        let mut table_sets = BTreeMap::new();
        for table in tables.keys() {
            table_sets.insert(table.clone(), sets_of(SchemaOf::Table(table.clone()), mailbox)?);
        }
        table_sets.retain(|_, sets| !sets.is_empty());
        services.insert(
            s.name.clone(),
            DumpedService { state_version, generation, timers, jobs, connects, tables, sets, table_sets },
        );
    }
    Ok(services)
}

/// Timers of a service itself, and its jobs and connections. Each slice has some of the timers
/// and all of the rest, so the last slice has the newest of it.
fn own_of(service: &str, mailbox: &QueryMailbox) -> Result<(Vec<DumpedTimer>, OwnSlice), Failure> {
    let (mut timers, mut after) = (Vec::new(), None);
    loop {
        let query = Query::OwnOf(service.to_owned(), after);
        let mut own = get(mailbox, query, |a| if let Answer::Own(own) = a { Some(own) } else { None })?;
        timers.extend(own.timers.drain(..).map(dumped_timer));
        // The slice is kept for its other fields; only the place to go on from is taken.
        after = own.next.take();
        if after.is_none() {
            return Ok((timers, own));
        }
    }
}

/// Describes a timer in a dump: the time until it fires, rounded down to milliseconds.
fn dumped_timer((name, in_ns): (String, u64)) -> DumpedTimer {
    DumpedTimer { name, in_ms: in_ns / 1_000_000 }
}

/// Describes a job in a dump.
fn dumped_job(JobView { number, name, running }: JobView) -> DumpedJob {
    DumpedJob { number, name, running }
}

/// Describes a connection that is being made in a dump.
fn dumped_connect(ConnectView { number, service, addr, over_tls }: ConnectView) -> DumpedConnect {
    DumpedConnect { number, service, to: addr.stored_text(), over_tls }
}

/// Describes a waiting action in a dump.
fn dumped_action(a: ActionView) -> DumpedAction {
    // Not MessagePack: notes and messages are the handler's own bytes.
    let data = json::bytes_to_json(&a.data);
    DumpedAction { kind: action_name(a.kind).to_owned(), from: a.from, name: a.name, data }
}

/// Describes a session in a dump.
pub(super) fn dumped(v: SessionView, strings: bool) -> DumpedSession {
    DumpedSession {
        id: v.record.id,
        service: v.service,
        endpoint: v.kind,
        peer: v.record.peer,
        opened_at: rfc3339(v.record.opened_at_ms),
        outbound: v.record.outbound,
        held: v.record.held,
        state_version: v.record.state_version,
        state: v.state.as_deref().map_or(serde_json::Value::Null, |s| value_of(s, strings)),
        input: json::bytes_to_json(&v.input),
        output: json::bytes_to_json(&v.output),
        timers: v.timers.into_iter().map(dumped_timer).collect(),
        actions: v.actions.into_iter().map(dumped_action).collect(),
        jobs: v.jobs.into_iter().map(dumped_job).collect(),
        connects: v.connects.into_iter().map(dumped_connect).collect(),
        topics: v.topics.iter().map(|name| json::bytes_to_json(name)).collect(),
        names: v.names.iter().map(|name| json::bytes_to_json(name)).collect(),
        frame_max: v.terms.frame_max().into(),
        idle_after_ms: v.terms.idle_after_ns().div_ceil(1_000_000),
    }
}

/// Shows MessagePack as JSON, and other bytes as they are: a table without an owner may hold
/// any. `strings`: integers beyond 2^53 are tagged.
pub(super) fn value_of(packed: &[u8], strings: bool) -> serde_json::Value {
    let mut value = json::stored_to_json(packed);
    if strings {
        json::tag_large_integers(&mut value);
    }
    value
}

/// Writer that sends a document in pieces, so that no part of the host holds a whole dump. Each
/// write may block on the caller.
struct Pieces<'c, 'a> {
    /// Caller that reads the dump.
    caller: &'c mut Caller<'a>,
    /// Bytes that were not sent yet.
    text: Vec<u8>,
}

/// Bytes from which a piece is sent. One write of the format may go beyond that by its own
/// length.
const PIECE_BYTES: usize = 64 * 1024;

impl Write for Pieces<'_, '_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.text.extend_from_slice(bytes);
        if self.text.len() >= PIECE_BYTES {
            self.flush()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        // JSON is UTF-8, but a write may end within a character.
        let whole = match std::str::from_utf8(&self.text) {
            Ok(text) => text.len(),
            Err(e) => e.valid_up_to(),
        };
        // The rest of a character stays, and goes with the next piece.
        let rest = self.text.split_off(whole);
        let text = String::from_utf8(std::mem::replace(&mut self.text, rest)).map_err(io::Error::other)?;
        if text.is_empty() { Ok(()) } else { self.caller.say(&Reply::Text(text)) }
    }
}
