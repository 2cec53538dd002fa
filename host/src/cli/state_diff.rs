//! Command `greenroom state diff`: the difference between two dumps, or a dump and now.
//!
//! States and entries are compared: what a restore would put back. Both dumps are read whole, so
//! memory is O(both).

use crate::admin::client::call;
use crate::cli::dump_file::{Dumped, open};
use crate::cli::output::{CommandFailure, json_line, print_text};
use crate::cli::state_edit::in_lines;
use crate::printable::one_line;
use crate::protocol::admin::{AdminCommand, Reply};
use crate::protocol::selection::Selection;
use clap::Args;
use greenroom_state::difference::{FieldDifference, differences};
use greenroom_state::dump::{DumpedEntry, DumpedService};
use greenroom_state::dump_lines::DumpLine;
use greenroom_state::sets::Sets;
use serde::Serialize;
use serde_json::Value;
use std::collections::BTreeMap;
use std::io::Cursor;
use std::path::{Path, PathBuf};

/// Most fields that are told of one state or entry.
const FIELDS_MAX: usize = 50;

// Doc comments of the fields are the help text of the command line.
#[derive(Args)]
pub(super) struct Diff {
    /// A dump, as a document or as lines; -: standard input
    before: PathBuf,
    /// A later dump; none: what the host holds now
    after: Option<PathBuf>,
    /// Exit with 1 if anything differs
    #[arg(long)]
    exit_code: bool,
    /// JSON, a line for each difference
    #[arg(long)]
    json: bool,
}

/// States and entries of a dump, by what they are of.
#[derive(Default)]
struct Contents {
    sessions: BTreeMap<u64, (String, u32, Value)>,
    tables: BTreeMap<String, BTreeMap<String, DumpedEntry>>,
    /// Services that it is of.
    services: Vec<String>,
    /// Sets in the states of services.
    sets: BTreeMap<String, Sets>,
    /// Sets in the values of tables.
    table_sets: BTreeMap<String, Sets>,
}

/// Difference of one session or entry.
#[derive(Serialize)]
struct Difference<'a> {
    /// Word for the difference: `new`, `gone` or `changed`.
    change: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    session: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    service: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    table: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<&'a Value>,
    fields: Vec<FieldDifference>,
}

impl Diff {
    /// Runs the command.
    pub(super) fn run(self, dir: &Path) -> Result<(), CommandFailure> {
        let before = Contents::of_file(&self.before)?;
        let after = match &self.after {
            Some(file) => Contents::of_file(file)?,
            None => Contents::of_host(dir, &before)?,
        };
        let mut differs = false;
        compare(&before, &after, &mut |difference| {
            differs = true;
            print_text(&if self.json { json_line(&difference) } else { in_words(&difference) });
        });
        match differs && self.exit_code {
            true => Err(CommandFailure::Failed(String::new())),
            false => Ok(()),
        }
    }
}

/// A difference, told to people: a line, and one for each field.
fn in_words(d: &Difference<'_>) -> String {
    let what = match (d.session, d.table, d.key) {
        (Some(id), ..) => format!("session {id} of {}", d.service.unwrap_or_default()),
        (_, Some(table), Some(key)) => format!("table {table}, key {}", one_line(&key.to_string())),
        _ => String::new(),
    };
    format!("{what}: {}\n{}", d.change, in_lines(&d.fields, "  "))
}

/// Calls `each` with all differences: sessions by their numbers, then entries by tables and keys.
fn compare(before: &Contents, after: &Contents, each: &mut dyn FnMut(Difference<'_>)) {
    let ids =
        before.sessions.keys().chain(after.sessions.keys().filter(|id| !before.sessions.contains_key(id)));
    for id in ids {
        let (b, a) = (before.sessions.get(id), after.sessions.get(id));
        let service = a.or(b).map(|(service, ..)| service.as_str());
        let sets = sets_of(service.unwrap_or_default(), &before.sets, &after.sets);
        let (change, mut fields) = told(b.map(|s| &s.2), a.map(|s| &s.2), &sets);
        if let (Some(b), Some(a)) = (b, a) {
            fields.extend(beside("(version)", Some(b.1), Some(a.1)));
        }
        if change != "changed" || !fields.is_empty() {
            each(Difference { change, session: Some(*id), service, table: None, key: None, fields });
        }
    }
    let none = BTreeMap::new();
    for table in before.tables.keys().chain(after.tables.keys().filter(|t| !before.tables.contains_key(*t))) {
        let (b, a) = (before.tables.get(table).unwrap_or(&none), after.tables.get(table).unwrap_or(&none));
        let sets = sets_of(table, &before.table_sets, &after.table_sets);
        for key in b.keys().chain(a.keys().filter(|key| !b.contains_key(*key))) {
            let (b, a) = (b.get(key), a.get(key));
            let (change, mut fields) = told(b.map(|e| &e.value), a.map(|e| &e.value), &sets);
            if let (Some(b), Some(a)) = (b, a) {
                fields.extend(beside("(version)", b.version, a.version));
                fields.extend(beside("(until_ms)", b.until_ms, a.until_ms));
            }
            if change != "changed" || !fields.is_empty() {
                let key = a.or(b).map(|e| &e.key);
                each(Difference { change, session: None, service: None, table: Some(table), key, fields });
            }
        }
    }
}

/// Difference of two numbers that stand beside a state or value.
fn beside<N: Into<Value> + PartialEq>(
    field: &str,
    before: Option<N>,
    after: Option<N>,
) -> Option<FieldDifference> {
    let of = |n: Option<N>| n.map(Into::into);
    let differs = before != after;
    differs.then(|| FieldDifference { field: field.to_owned(), before: of(before), after: of(after) })
}

/// Sets of a type, as one dump or the other names them.
fn sets_of(name: &str, before: &BTreeMap<String, Sets>, after: &BTreeMap<String, Sets>) -> Sets {
    let of = |all: &BTreeMap<String, Sets>| all.get(name).cloned().unwrap_or_default();
    of(before).and(&of(after))
}

/// Word for a difference, and its fields, if both sides have a value.
fn told(before: Option<&Value>, after: Option<&Value>, sets: &Sets) -> (&'static str, Vec<FieldDifference>) {
    match (before, after) {
        (Some(before), Some(after)) => ("changed", differences(before, after, sets, FIELDS_MAX)),
        (None, _) => ("new", Vec::new()),
        (_, None) => ("gone", Vec::new()),
    }
}

impl Contents {
    fn of_file(file: &Path) -> Result<Contents, CommandFailure> {
        let (name, from) = open(file)?;
        let read = Dumped::read(from).and_then(Contents::of_dump);
        read.map_err(|why| CommandFailure::Failed(format!("{name}: {why}")))
    }

    /// Dump of the host, of the one service alone if the dump before is of one.
    fn of_host(dir: &Path, before: &Contents) -> Result<Contents, CommandFailure> {
        let service =
            Some(before.services.clone()).filter(|all| all.len() == 1).and_then(|mut all| all.pop());
        let of = Box::new(Selection { service, ..Selection::default() });
        let mut text = Vec::new();
        call(dir, &AdminCommand::Dump { of, strings: false, lines: true }, |reply| {
            if let Reply::Text(piece) = reply {
                text.extend(piece.into_bytes());
            }
        })?;
        let read = Dumped::read(Box::new(Cursor::new(text))).and_then(Contents::of_dump);
        read.map_err(|why| CommandFailure::Failed(format!("the host's dump: {why}")))
    }

    fn of_dump(dump: Dumped) -> Result<Contents, String> {
        let mut contents = Contents::default();
        match dump {
            Dumped::Whole(dump) => {
                contents.services(dump.services);
                dump.sessions
                    .into_iter()
                    .for_each(|s| contents.session(s.id, s.service, s.state_version, s.state));
                for (table, entries) in dump.tables {
                    entries.into_iter().for_each(|entry| contents.entry(&table, entry));
                }
            }
            Dumped::Lines(head, lines) => {
                contents.services(head.services);
                for line in lines {
                    match line? {
                        DumpLine::Session(s) => contents.session(s.id, s.service, s.state_version, s.state),
                        DumpLine::Entry { table, entry } => contents.entry(&table, entry),
                        DumpLine::Dump(_) | DumpLine::Table { .. } | DumpLine::End { .. } => {}
                    }
                }
            }
        }
        Ok(contents)
    }

    fn services(&mut self, all: BTreeMap<String, DumpedService>) {
        for (name, service) in all {
            self.sets.insert(name.clone(), service.sets);
            self.table_sets.extend(service.table_sets);
            self.services.push(name);
        }
    }

    fn session(&mut self, id: u64, service: String, version: u32, mut state: Value) {
        greenroom_state::json::untag_integers(&mut state);
        self.sessions.insert(id, (service, version, state));
    }

    fn entry(&mut self, table: &str, mut entry: DumpedEntry) {
        greenroom_state::json::untag_integers(&mut entry.value);
        let key = entry.key.to_string();
        self.tables.entry(table.to_owned()).or_default().insert(key, entry);
    }
}
