//! Command `greenroom table`: tables and their entries, and changes of single entries.
//!
//! A change is a restore of one entry: the build of the table's owner reads and writes the value,
//! it is stored between two turns, and the ledger has a line of it. `greenroom undo` takes it back.

use crate::admin::client::{call, call_with};
use crate::cli::changes::{end, print_report};
use crate::cli::output::{
    CommandFailure, end_with_the_reader, json_line, print_json, print_json_text, print_text,
};
use crate::cli::state::is_kept;
use crate::cli::table::{Form, table};
use crate::printable::one_line;
use crate::protocol::admin::{AdminCommand, NamedEntries, Piece, Reply};
use crate::protocol::data::EntryQuery;
use clap::{Args, Subcommand};
use greenroom_core::ledger::Report;
use greenroom_state::condition::Condition;
use greenroom_state::dump::DumpedEntry;
use greenroom_state::parse::{parse, value_or_text};
use serde_json::Value;
use std::io::Read;
use std::path::Path;
use std::time::{Duration, SystemTime};

// Doc comments of the variants and fields are the help text of the command line.
#[derive(Subcommand)]
pub(super) enum Tables {
    /// List the tables, with their owners and sizes
    Ls(Ls),
    /// Print the value of one entry
    Get(Get),
    /// Store an entry; the build of the table's owner checks the value
    Put(Put),
    /// Delete entries
    Del(Del),
    /// Print entries in the order of their keys
    Scan(Scan),
}

#[derive(Args)]
pub(super) struct Ls {
    /// JSON, on one line
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
pub(super) struct Get {
    /// The table
    table: String,
    /// The key: a text, or {"$b64": "..."} for other bytes
    key: String,
    /// JSON, on one line: key, value, version and deadline
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
pub(super) struct Put {
    /// The table
    table: String,
    /// The key: a text, or {"$b64": "..."} for other bytes
    key: String,
    /// The value: JSON, or else a string; -: JSON from standard input
    #[arg(allow_hyphen_values = true)]
    value: String,
    /// Version of the value; none: the one that the table's owner writes
    #[arg(long, value_name = "N")]
    version: Option<u32>,
    /// Make the table, if there is none of this name and no service owns it
    #[arg(long)]
    new: bool,
    /// Time after which the entry ends, such as 10m
    #[arg(long, value_name = "TIME", value_parser = life)]
    ttl: Option<Duration>,
    /// JSON, on one line
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
pub(super) struct Del {
    /// The table
    table: String,
    /// The keys
    #[arg(required = true)]
    keys: Vec<String>,
    /// JSON, on one line
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
pub(super) struct Scan {
    /// The table
    table: String,
    /// Begin at this key
    #[arg(long, value_name = "KEY")]
    from: Option<String>,
    /// Only keys that begin so
    #[arg(long, value_name = "KEY")]
    prefix: Option<String>,
    /// Only so many entries
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    /// Only values with a field of this value, as for `sessions`. May be repeated
    #[arg(long = "where", value_name = "FIELD=VALUE", value_parser = condition)]
    conditions: Vec<String>,
    /// Write integers beyond 2^53 as strings, as `state dump` does
    #[arg(long)]
    strings: bool,
    /// JSON, a line for each entry
    #[arg(long)]
    json: bool,
}

/// Checks a condition, so that a wrong one is an error of usage.
fn condition(text: &str) -> Result<String, String> {
    Condition::parse(text).map(|_| text.to_owned())
}

/// Key as a dump has it: bytes that are no text are given as such.
fn key(text: &str) -> Result<Value, CommandFailure> {
    match value_or_text(text) {
        Ok(value) if value.as_object().is_some_and(|m| m.contains_key("$b64")) => Ok(value),
        Err(why) if text.contains("$b64") => Err(CommandFailure::Usage(format!("the key: {why}"))),
        // Any other text is a key, whatever it looks like.
        _ => Ok(Value::from(text)),
    }
}

impl Tables {
    /// Runs the subcommand.
    pub(super) fn run(self, dir: &Path) -> Result<(), CommandFailure> {
        match self {
            Tables::Ls(ls) => ls.run(dir),
            Tables::Get(get) => get.run(dir),
            Tables::Put(put) => put.run(dir),
            Tables::Del(del) => del.run(dir),
            Tables::Scan(scan) => scan.run(dir),
        }
    }
}

impl Ls {
    fn run(self, dir: &Path) -> Result<(), CommandFailure> {
        let mut tables = Vec::new();
        call(dir, &AdminCommand::Tables, |reply| {
            if let Reply::Tables(all) = reply {
                tables = all;
            }
        })?;
        if self.json {
            print_json(&tables);
            return Ok(());
        }
        let mut list = table(&["TABLE", "OWNER", "VERSION", "ENTRIES", "BYTES", "OLDER"]);
        for t in &tables {
            let others = t.versions.iter().filter(|(v, _)| t.version.is_some_and(|owner| owner != **v));
            let others: Vec<_> = others.map(|(version, n)| format!("{n} of v{version}")).collect();
            list.add_row([
                t.name.clone(),
                t.owner.clone().unwrap_or_default(),
                t.version.map(|v| format!("v{v}")).unwrap_or_default(),
                t.entries.to_string(),
                t.bytes.to_string(),
                others.join(", "),
            ]);
        }
        print_text(&(list.in_form(Form::of_output(false)) + "\n"));
        Ok(())
    }
}

/// Asks a host for entries, and calls `each` with them.
fn each_entry(
    dir: &Path,
    query: EntryQuery,
    mut each: impl FnMut(DumpedEntry),
) -> Result<(), CommandFailure> {
    call(dir, &AdminCommand::Entries(Box::new(query)), |reply| {
        if let Reply::Entries(entries) = reply {
            entries.into_iter().for_each(&mut each);
        }
    })?;
    Ok(())
}

impl Get {
    fn run(self, dir: &Path) -> Result<(), CommandFailure> {
        let Get { table, key: text, json } = self;
        let mut found = None;
        let query = EntryQuery {
            table: table.clone(),
            key: Some(key(&text)?),
            limit: Some(1),
            ..EntryQuery::default()
        };
        each_entry(dir, query, |entry| found = Some(entry))?;
        let none = || CommandFailure::Failed(format!("table {table} has no key {text:?}"));
        let entry = found.ok_or_else(none)?;
        match json {
            true => print_json(&entry),
            false => {
                print_json_text(&(serde_json::to_string_pretty(&entry.value).unwrap_or_default() + "\n"))
            }
        }
        Ok(())
    }
}

impl Scan {
    fn run(self, dir: &Path) -> Result<(), CommandFailure> {
        end_with_the_reader();
        let Scan { table, from, prefix, limit, conditions, strings, json } = self;
        let of = |text: Option<String>| text.map(|text| key(&text)).transpose();
        let (from, prefix) = (of(from)?, of(prefix)?);
        let query = EntryQuery { table, key: None, from, prefix, limit, conditions, strings };
        each_entry(dir, query, |entry| {
            print_text(&match json {
                true => json_line(&entry),
                false => one_line(&format!("{} {}", entry.key, entry.value)).into_owned() + "\n",
            });
        })
    }
}

/// Reads the life of an entry. Without one it would be over before anybody reads it.
fn life(text: &str) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(time) if time.is_zero() => {
            Err("an entry without a life is over at once; delete it instead".into())
        }
        read => read.map_err(|e| e.to_string()),
    }
}

impl Put {
    fn run(self, dir: &Path) -> Result<(), CommandFailure> {
        let Put { table, key: text, value, version, new, ttl, json } = self;
        let value = match value.as_str() {
            "-" => {
                let mut text = Vec::new();
                let read = std::io::stdin().lock().read_to_end(&mut text);
                read.map_err(|e| CommandFailure::Failed(format!("standard input: {e}")))?;
                parse(&text).map_err(|e| CommandFailure::Failed(format!("standard input is no JSON: {e}")))?
            }
            text => {
                let value = value_or_text(text).map_err(CommandFailure::Usage)?;
                is_kept(text, &value).map_err(CommandFailure::Usage)?;
                value
            }
        };
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let until_ms = ttl.map(|ttl| (now + ttl).as_millis() as u64);
        let entry = DumpedEntry { key: key(&text)?, value, version, until_ms };
        let named = NamedEntries { table, keys: vec![entry.key.clone()], deletes: false, new };
        let report = amended(dir, named, vec![Piece::Entry(entry)])?;
        print_report(&report, json);
        end(&report)
    }
}

impl Del {
    fn run(self, dir: &Path) -> Result<(), CommandFailure> {
        let Del { table, keys, json } = self;
        let keys: Vec<_> = keys.iter().map(|text| key(text)).collect::<Result<_, _>>()?;
        let first = keys.iter().take(NamedEntries::KEYS_MAX).cloned().collect();
        let named = NamedEntries { table: table.clone(), keys: first, deletes: true, new: false };
        let report = amended(dir, named, keys.into_iter().map(Piece::Delete).collect())?;
        print_report(&report, json);
        let deleted = report.restored.as_ref().and_then(|r| r.tables.get(&table)).map_or(0, |t| t.deleted);
        match deleted {
            0 if end(&report).is_ok() => {
                Err(CommandFailure::Failed(format!("table {table} has none of these keys")))
            }
            _ => end(&report),
        }
    }
}

/// Has the host check and change entries of a table.
fn amended(dir: &Path, named: NamedEntries, entries: Vec<Piece>) -> Result<Report, CommandFailure> {
    let table = Piece::Table { name: named.table.clone(), version: None };
    let pieces = std::iter::once(table).chain(entries).chain([Piece::End]);
    let mut told = None;
    call_with(dir, &AdminCommand::Amend { session: None, entries: Some(named) }, pieces, |reply| {
        if let Reply::Report(report) = reply {
            told = Some(*report);
        }
    })?;
    told.ok_or_else(|| CommandFailure::Failed("the host said nothing".into()))
}
