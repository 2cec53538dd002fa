//! Looks at one session, at the tables, and at entries of a table.

use crate::admin::amend::{digest, read_state};
use crate::admin::ask::{Failure, get, sets_of, tables};
use crate::admin::caller::Caller;
use crate::admin::dump::{dumped, value_of};
use crate::admin::query::{Answer, Query, QueryMailbox, ReadState, SchemaOf, TableEntries};
use crate::admin::select::each_selected;
use crate::protocol::admin::Reply;
use crate::protocol::data::{EntryQuery, Shown};
use crate::protocol::selection::Selection;
use greenroom_state::condition::Condition;
use greenroom_state::dump::DumpedEntry;
use greenroom_state::json;
use serde_json::Value;

/// Answers [`crate::protocol::admin::AdminCommand::Show`].
pub(super) fn show(id: u64, caller: &mut Caller<'_>, mailbox: &QueryMailbox) -> Result<(), Failure> {
    let mut session = None;
    each_selected(mailbox, Selection { sessions: vec![id], ..Selection::default() }, true, |view| {
        session = Some(dumped(view, false));
        Ok(())
    })?;
    let Some(mut session) = session else { return Err(Failure::Said(format!("no session has number {id}"))) };
    let ReadState { service, version, stored, read, .. } = read_state(id, mailbox)?;
    // The state of this very moment, to which the digest belongs.
    session.state_version = stored.as_ref().map_or(0, |(version, _)| *version);
    session.state = stored.as_ref().map_or(Value::Null, |(_, bytes)| value_of(bytes, false));
    let (as_read, unreadable) = match read {
        Ok(read) => (read.map_or(Value::Null, |bytes| value_of(&bytes, false)), None),
        Err(why) => (Value::Null, Some(why)),
    };
    let digest = digest(stored.as_ref());
    let sets = sets_of(SchemaOf::Service(service), mailbox)?;
    let shown = Shown { session, serving_version: version, as_read, unreadable, digest, sets };
    Ok(caller.say(&Reply::Shown(Box::new(shown)))?)
}

/// Answers [`crate::protocol::admin::AdminCommand::Entries`]. A table that is not there is refused,
/// with the names of those that are.
pub(super) fn entries(
    query: EntryQuery,
    caller: &mut Caller<'_>,
    mailbox: &QueryMailbox,
) -> Result<(), Failure> {
    let name = &query.table;
    let all = tables(mailbox)?;
    if all.iter().all(|t| t.name != *name) {
        let known: Vec<_> = all.iter().map(|t| t.name.as_str()).collect();
        let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
        return Err(Failure::Said(format!("no table is called {name:?}; there are: {known}")));
    }
    let bytes = |key: &Option<Value>| {
        let bytes = key.as_ref().map(json::bytes_from_json).transpose();
        bytes.map_err(|why| Failure::Said(format!("the key: {why}")))
    };
    let (key, prefix) = (bytes(&query.key)?, bytes(&query.prefix)?);
    let conditions = query.conditions.iter().map(|text| Condition::parse(text));
    let conditions: Vec<_> = conditions.collect::<Result<_, _>>().map_err(Failure::Said)?;
    let mut left = query.limit.unwrap_or(usize::MAX);
    let begin = [&key, &prefix, &bytes(&query.from)?].into_iter().flatten().max().cloned();
    let mut from = Some(begin.unwrap_or_default()).filter(|_| left > 0);
    while let Some(at) = from {
        let asked = Query::Entries(name.clone(), at);
        let slice = get(mailbox, asked, |a| if let Answer::Entries(e) = a { Some(e) } else { None })?;
        let TableEntries { entries, versions, until, next } = slice;
        from = next;
        let mut found = Vec::new();
        for ((bytes, packed), (version, until_ms)) in entries.into_iter().zip(versions.into_iter().zip(until))
        {
            let is_behind = key.as_ref().is_some_and(|key| *key != bytes)
                || prefix.as_ref().is_some_and(|prefix| !bytes.starts_with(prefix));
            if is_behind || left == 0 {
                from = None;
                break;
            }
            let value = value_of(&packed, false);
            if conditions.iter().all(|c| c.holds(&value) == Some(true)) {
                left -= 1;
                let value = value_of(&packed, query.strings);
                found.push(DumpedEntry { key: json::bytes_to_json(&bytes), value, version, until_ms });
            }
        }
        if !found.is_empty() {
            caller.say(&Reply::Entries(found))?;
        }
    }
    Ok(())
}
