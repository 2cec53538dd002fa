//! The worker's answers: it asks its loop for one small slice at a time, so that no answer holds up a client.

use super::restore;
use crate::admin::query::{Answer, Ask, Mailbox, Proposal, Query, Setting, Wish};
use crate::admin::server::{Caller, on_thread};
use crate::protocol::admin::{Command, Reply, ServiceStatus, SessionLine};
use greenroom_core::operate::inspect::{ActionView, ConnectView, Filter, JobView, OwnSlice, SessionView};
use greenroom_core::recovery::crashes::action_name;
use greenroom_core::reload::request::By;
use greenroom_state::dump::{
    self, DumpedAction, DumpedConnect, DumpedEntry, DumpedJob, DumpedService, DumpedSession, DumpedTimer,
};
use greenroom_state::json;
use std::collections::BTreeMap;
use std::io::{self, Write};
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, SystemTime};

/// Answers one caller, on a thread of its own: the worker's side.
pub fn answer(stream: UnixStream, command: Command, by: By, mailbox: Mailbox) {
    on_thread(stream, move |stream| {
        let mut caller = Caller::new(&stream)?;
        let result = run(command, by, &mut caller, &mailbox);
        match result {
            Ok(()) => caller.say(&Reply::End),
            Err(Failure::Said(text)) => caller.say(&Reply::Error(text)),
            Err(Failure::Io(e)) => Err(e),
        }
    });
}

/// As [`answer`], to who wants another configuration. False: nobody asks for it.
pub fn configure(stream: UnixStream, proposal: Proposal, mailbox: Mailbox) -> bool {
    on_thread(stream, move |stream| {
        // Whoever can be told of it or not, it is what was asked for.
        let asked = ask(&mailbox, Query::Configure(proposal));
        let mut caller = Caller::new(&stream)?;
        match asked.and_then(|answers| reports(answers, &mut caller)) {
            Ok(()) => caller.say(&Reply::End),
            Err(Failure::Said(text)) => caller.say(&Reply::Error(text)),
            Err(Failure::Io(e)) => Err(e),
        }
    })
}

pub(super) enum Failure {
    Said(String),
    Io(io::Error),
}

impl From<io::Error> for Failure {
    fn from(e: io::Error) -> Failure {
        Failure::Io(e)
    }
}

/// Asks the loop. An answer that never comes means that the host is gone.
fn ask(mailbox: &Mailbox, query: Query) -> Result<Receiver<Answer>, Failure> {
    let (reply, answers) = channel();
    match mailbox.post(Ask { query, reply }) {
        true => Ok(answers),
        false => Err(Failure::Said("the host is stopping".into())),
    }
}

/// Asks for one answer of one kind.
pub(super) fn get<T>(
    mailbox: &Mailbox,
    query: Query,
    kind: impl FnOnce(Answer) -> Option<T>,
) -> Result<T, Failure> {
    match ask(mailbox, query)?.recv() {
        Ok(Answer::Error(text)) => Err(Failure::Said(text)),
        Ok(answer) => kind(answer).ok_or_else(|| Failure::Said("the host answered something else".into())),
        Err(_) => Err(Failure::Said("the host is stopping".into())),
    }
}

fn done(mailbox: &Mailbox, query: Query) -> Result<(), Failure> {
    get(mailbox, query, |a| matches!(a, Answer::Done).then_some(()))
}

fn services(mailbox: &Mailbox) -> Result<Vec<ServiceStatus>, Failure> {
    get(mailbox, Query::Services, |a| if let Answer::Services(s) = a { Some(s) } else { None })
}

/// Calls `each` for all sessions, slice after slice.
fn each_slice(
    mailbox: &Mailbox,
    filter: &Filter,
    mut each: impl FnMut(Vec<SessionView>) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let mut after = Some(0);
    while let Some(id) = after {
        let query = Query::Sessions(id, filter.clone());
        let slice = get(mailbox, query, |a| if let Answer::Sessions(s) = a { Some(s) } else { None })?;
        each(slice.items)?;
        after = slice.next;
    }
    Ok(())
}

fn run(command: Command, by: By, caller: &mut Caller<'_>, mailbox: &Mailbox) -> Result<(), Failure> {
    match command {
        Command::Status | Command::Upgrade { .. } | Command::Configure => {
            return Err(Failure::Said("the keeper answers this".into()));
        }
        Command::Sessions => each_slice(mailbox, &Filter::default(), |slice| {
            Ok(caller.say(&Reply::Sessions(slice.into_iter().map(session_line).collect()))?)
        })?,
        Command::History => {
            let mut from = Some(0);
            while let Some(line) = from {
                let lines = |a| if let Answer::Ledger(l) = a { Some(l) } else { None };
                let slice = get(mailbox, Query::Ledger(line), lines)?;
                caller.say(&Reply::History(slice.items))?;
                from = slice.next;
            }
        }
        Command::Release(id) => done(mailbox, Query::Release(id))?,
        Command::Close(id) => done(mailbox, Query::Close(id))?,
        Command::Dump { service, session } => dump(service, session, caller, mailbox)?,
        Command::Reload { service, from, together, dry_run } => {
            let wish = Wish { target: service, from, together, dry_run, by };
            reports(ask(mailbox, Query::Reload(wish))?, caller)?;
        }
        Command::RollBack { service, to } => {
            reports(ask(mailbox, Query::RollBack(service, to, by))?, caller)?
        }
        Command::Restore { file, dry_run } => restore::restore(file, dry_run, by, caller, mailbox)?,
        Command::Set { session, fields } => restore::set(Setting { session, fields, by }, caller, mailbox)?,
        Command::Await(line) => {
            let report =
                get(mailbox, Query::Await(line), |a| if let Answer::Report(r) = a { Some(r) } else { None })?;
            caller.say(&Reply::Report(report))?;
        }
    }
    Ok(())
}

/// Passes on what is said of a reload, until all reports have come.
fn reports(answers: Receiver<Answer>, caller: &mut Caller<'_>) -> Result<(), Failure> {
    let mut to_come = None;
    for answer in answers {
        match answer {
            Answer::Reloading(libraries) => to_come = Some(libraries),
            Answer::Progress(library, done, total) => caller.say(&Reply::Progress(library, done, total))?,
            Answer::Report(report) => {
                to_come = to_come.map(|n| n - 1);
                caller.say(&Reply::Report(report))?;
            }
            Answer::Error(text) => return Err(Failure::Said(text)),
            _ => {}
        }
    }
    match to_come {
        Some(0) => Ok(()),
        _ => Err(Failure::Said("the host stopped before the reload was done".into())),
    }
}

fn session_line(v: SessionView) -> SessionLine {
    SessionLine {
        id: v.record.id,
        service: v.service,
        peer: v.record.peer.to_string(),
        opened_at: rfc3339(v.record.opened_at_ms),
        state_version: v.record.state_version,
        turns: v.record.turns,
        bytes_in: v.record.bytes_in,
        bytes_out: v.record.bytes_out,
        quarantined: v.quarantined,
    }
}

fn dump(
    service: Option<String>,
    session: Option<u64>,
    caller: &mut Caller<'_>,
    mailbox: &Mailbox,
) -> Result<(), Failure> {
    let all = services(mailbox)?;
    let named = |s: &&ServiceStatus| service.as_ref().is_none_or(|name| *name == s.name);
    let owned = get(mailbox, Query::Owned, |a| if let Answer::Owned(o) = a { Some(o) } else { None })?;
    let mut services = BTreeMap::new();
    for s in all.iter().filter(named) {
        let (state_version, generation) = (s.state_version, s.generation);
        let (timers, own) = own_of(&s.name, mailbox)?;
        let jobs = own.jobs.into_iter().map(dumped_job).collect();
        let connects = own.connects.into_iter().map(dumped_connect).collect();
        let mine = owned.iter().filter(|(service, ..)| *service == s.name);
        let tables = mine.map(|(_, table, version)| (table.clone(), *version)).collect();
        services.insert(
            s.name.clone(),
            DumpedService { state_version, generation, timers, jobs, connects, tables },
        );
    }
    if let (Some(name), true) = (&service, services.is_empty()) {
        let known: Vec<_> = all.iter().map(|s| s.name.as_str()).collect();
        return Err(Failure::Said(format!("no service is called {name:?}; there are: {}", known.join(", "))));
    }
    let now =
        rfc3339(SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |d| d.as_millis() as u64));
    let mut writer = dump::Writer::new(Pieces { caller, text: Vec::new() }, &now, &services)?;
    let mut found = 0;
    let filter = Filter { service: service.clone(), session, contents: true };
    each_slice(mailbox, &filter, |slice| {
        found += slice.len();
        Ok(slice.into_iter().try_for_each(|view| writer.session(&dumped(view)))?)
    })?;
    if let (Some(id), 0) = (session, found) {
        return Err(Failure::Said(format!("no session has number {id}")));
    }
    if service.is_none() && session.is_none() {
        for name in get(mailbox, Query::Tables, |a| if let Answer::Tables(t) = a { Some(t) } else { None })? {
            writer.table(&name)?;
            let mut from = Some(Vec::new());
            while let Some(key) = from {
                let query = Query::Entries(name.clone(), key);
                let slice = get(mailbox, query, |a| if let Answer::Entries(e) = a { Some(e) } else { None })?;
                for ((key, packed), version) in slice.entries.into_iter().zip(slice.versions) {
                    let value = json_or_bytes(&packed);
                    writer.entry(&DumpedEntry { key: json::bytes_to_json(&key), value, version })?;
                }
                from = slice.next;
            }
        }
    }
    writer.finish()?.flush()?;
    Ok(())
}

/// All of a service's own timers, and the rest of what it has of its own.
fn own_of(service: &str, mailbox: &Mailbox) -> Result<(Vec<DumpedTimer>, OwnSlice), Failure> {
    let (mut timers, mut after) = (Vec::new(), None);
    loop {
        let query = Query::OwnOf(service.to_owned(), after);
        let mut own = get(mailbox, query, |a| if let Answer::Own(own) = a { Some(own) } else { None })?;
        timers.extend(own.timers.drain(..).map(dumped_timer));
        after = own.next.take();
        if after.is_none() {
            return Ok((timers, own));
        }
    }
}

fn dumped_timer((name, in_ns): (String, u64)) -> DumpedTimer {
    DumpedTimer { name, in_ms: in_ns / 1_000_000 }
}

fn dumped_job(JobView { number, name, running }: JobView) -> DumpedJob {
    DumpedJob { number, name, running }
}

fn dumped_connect(ConnectView { number, service, addr }: ConnectView) -> DumpedConnect {
    DumpedConnect { number, service, to: addr.to_string() }
}

fn dumped_action(a: ActionView) -> DumpedAction {
    let data = json::bytes_to_json(&a.data);
    DumpedAction { kind: action_name(a.kind).to_owned(), from: a.from, name: a.name, data }
}

fn dumped(v: SessionView) -> DumpedSession {
    DumpedSession {
        id: v.record.id,
        service: v.service,
        peer: v.record.peer.to_string(),
        opened_at: rfc3339(v.record.opened_at_ms),
        outbound: v.record.outbound,
        held: v.record.held,
        state_version: v.record.state_version,
        state: v.state.as_deref().map_or(serde_json::Value::Null, json_or_bytes),
        input: json::bytes_to_json(&v.input),
        output: json::bytes_to_json(&v.output),
        timers: v.timers.into_iter().map(dumped_timer).collect(),
        actions: v.actions.into_iter().map(dumped_action).collect(),
        jobs: v.jobs.into_iter().map(dumped_job).collect(),
        connects: v.connects.into_iter().map(dumped_connect).collect(),
        topics: v.topics,
    }
}

/// What a handler stored is MessagePack; if it isn't, its bytes are shown.
fn json_or_bytes(packed: &[u8]) -> serde_json::Value {
    json::to_json(packed).unwrap_or_else(|_| json::bytes_to_json(packed))
}

/// A time as programs and people read it.
pub fn rfc3339(unix_ms: u64) -> String {
    humantime::format_rfc3339_millis(SystemTime::UNIX_EPOCH + Duration::from_millis(unix_ms)).to_string()
}

/// Sends a document in pieces, so that a dump of many sessions is held nowhere as a whole.
struct Pieces<'c, 'a> {
    caller: &'c mut Caller<'a>,
    text: Vec<u8>,
}

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
        let rest = self.text.split_off(whole);
        let text = String::from_utf8(std::mem::replace(&mut self.text, rest)).map_err(io::Error::other)?;
        if text.is_empty() { Ok(()) } else { self.caller.say(&Reply::Text(text)) }
    }
}
