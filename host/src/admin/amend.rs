//! Changes of single states and entries, and the undoing of the last change.
//!
//! Both are restores of what they name: all other data stay. They are carried out only if what they
//! replace is stored still as the operator saw it, or as the change left it.

use crate::admin::ask::{Failure, get, tables};
use crate::admin::caller::Caller;
use crate::admin::query::{Answer, Query, QueryMailbox, ReadState, Restoring};
use crate::admin::reading::CheckedInput;
use crate::admin::restore::carried_out;
use crate::protocol::admin::{NamedEntries, Reply};
use greenroom_core::ledger::{Restored, RestoredTable};
use greenroom_core::operate::plan::{Expected, Plan};
use greenroom_core::operate::undo::{ItemOf, ReplacedItem, UNDO_BYTES_MAX};
use greenroom_core::reload::request::Requester;
use greenroom_state::dump::DumpedEntry;
use greenroom_state::json;
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::sync::Arc;

/// Answers [`crate::protocol::admin::AdminCommand::Amend`].
pub(super) fn amend(
    session: Option<(u64, String)>,
    named: Option<NamedEntries>,
    by: Requester,
    caller: &mut Caller<'_>,
    mailbox: &QueryMailbox,
) -> Result<(), Failure> {
    caller.say(&Reply::Go)?;
    let mut reading = CheckedInput::new(mailbox, true);
    reading.read(caller.reader())?;
    let mut plan = reading.plan();
    if let Some(named) = named.as_ref().filter(|named| !named.deletes && !named.new)
        && let Some(why) = unknown_table(&named.table, mailbox)?
    {
        plan = plan.and(Err(why));
    }
    // A refusal names what was asked for.
    let mut of = Restored { session: session.as_ref().map(|(id, _)| *id), ..Restored::default() };
    of.keys = match (&plan, named) {
        (Ok(plan), _) => keys_of(plan),
        (Err(_), Some(named)) => {
            of.tables.insert(named.table, RestoredTable::default());
            named.keys.iter().map(Value::to_string).collect()
        }
        (Err(_), None) => Vec::new(),
    };
    if let Some((id, digest)) = &session {
        let expected = expected(*id, digest, mailbox)?;
        plan = plan.and_then(|plan| Ok(Plan { only_if: vec![expected?], ..plan }));
    }
    let plan = plan.map(Arc::new);
    // The loop drops its share before this thread does, so that it need not free the plan.
    let report = carried_out(Restoring { plan: plan.clone(), survey: Box::default(), of, by }, mailbox)?;
    Ok(caller.say(&Reply::Report(report))?)
}

/// Why no entry is put into a table: nobody knows its name. `None`: it is there, or has an owner.
fn unknown_table(name: &str, mailbox: &QueryMailbox) -> Result<Option<String>, Failure> {
    let known: Vec<_> = tables(mailbox)?.into_iter().map(|t| t.name).collect();
    if known.iter().any(|known| known == name) {
        return Ok(None);
    }
    let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
    Ok(Some(format!(
        "no table is called {name:?}, and no service that is loaded owns one of this name; there are: {known}; \
         to make it, say --new"
    )))
}

/// State that a session must store still, if it is the one that was shown.
fn expected(id: u64, shown: &str, mailbox: &QueryMailbox) -> Result<Result<Expected, String>, Failure> {
    let ReadState { stored, turns, .. } = read_state(id, mailbox)?;
    Ok(match digest(stored.as_ref()) == shown {
        true => Ok(Expected::State { session: id, turns, is: stored }),
        false => {
            Err(format!("session {id} stores another state than the one that was shown; look at it again"))
        }
    })
}

/// Asks the loop for a session's state.
pub(super) fn read_state(id: u64, mailbox: &QueryMailbox) -> Result<ReadState, Failure> {
    get(mailbox, Query::ReadState(id), |a| if let Answer::State(s) = a { Some(*s) } else { None })
}

/// Digest of a state as it is stored.
pub(super) fn digest(stored: Option<&(u32, Vec<u8>)>) -> String {
    let Some((version, bytes)) = stored else { return "none".into() };
    let hash = Sha256::new().chain_update(version.to_le_bytes()).chain_update(bytes).finalize();
    hash.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Keys that a plan changes one by one, as JSON.
fn keys_of(plan: &Plan) -> Vec<String> {
    let keys = plan.tables.iter().flat_map(|t| t.entries.keys().chain(t.deletes.iter().flatten()));
    keys.take(NamedEntries::KEYS_MAX).map(|key| json::bytes_to_json(key).to_string()).collect()
}

/// Answers [`crate::protocol::admin::AdminCommand::Undo`].
pub(super) fn undo(by: Requester, caller: &mut Caller<'_>, mailbox: &QueryMailbox) -> Result<(), Failure> {
    let replaced = |a| if let Answer::ReplacedData(r) = a { Some(r) } else { None };
    let Some(replaced) = get(mailbox, Query::ReplacedData, replaced)? else {
        return Err(Failure::Said("no change of an operator is remembered: there is nothing to undo".into()));
    };
    let line = replaced.line;
    if replaced.too_large > 0 {
        return Err(Failure::Said(format!(
            "the last change, line {line} of the ledger, replaced {} bytes, and {UNDO_BYTES_MAX} are remembered at most; \
             restore a dump from before it",
            replaced.too_large
        )));
    }
    let mut reading = CheckedInput::new(mailbox, true);
    let mut table = None;
    for item in &replaced.items {
        read_back(item, &mut table, &mut reading)?;
    }
    reading.check()?;
    let plan = reading.plan().map(|plan| Arc::new(Plan { only_if: replaced.expected(), ..plan }));
    let of = Restored { undoes: Some(line), ..Restored::default() };
    let report = carried_out(Restoring { plan: plan.clone(), survey: Box::default(), of, by }, mailbox)?;
    Ok(caller.say(&Reply::Report(report))?)
}

/// Reads what was stored before a change, as if a dump had it. `table`: the one under way.
fn read_back<'i>(
    item: &'i ReplacedItem,
    table: &mut Option<&'i str>,
    reading: &mut CheckedInput<'_>,
) -> Result<(), Failure> {
    let value = |bytes: &[u8]| json::stored_to_json(bytes);
    match &item.of {
        ItemOf::Session { id, service, .. } => {
            let (version, state) =
                item.before.as_ref().map_or((0, Value::Null), |s| (s.version, value(&s.value)));
            reading.session(*id, service.clone(), version, state)
        }
        ItemOf::Table { table: name, key } => {
            if table.replace(name) != Some(name) {
                reading.table(name.clone(), None)?;
            }
            let key = json::bytes_to_json(key);
            match &item.before {
                None => {
                    reading.delete(&key);
                    Ok(())
                }
                Some(e) => {
                    let (version, until_ms) = (Some(e.version), e.until);
                    reading.entry(DumpedEntry { key, value: value(&e.value), version, until_ms })
                }
            }
        }
    }
}
