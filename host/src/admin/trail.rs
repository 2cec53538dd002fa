//! Trail of a change that an operator asks for: the data before and after it, and its end.

use crate::admin::ask::{Failure, get, services};
use crate::admin::audit::AuditLine;
use crate::admin::caller::HeardEnd;
use crate::admin::query::{Answer, Query, QueryMailbox};
use crate::config::admin::Role;
use crate::protocol::admin::AdminCommand;
use crate::protocol::status::ServiceStatus;
use greenroom_core::operate::inspect::Filter;
use greenroom_core::operate::undo::{ItemOf, ReplacedData};
use greenroom_core::reload::request::Requester;
use greenroom_state::json as stored_json;
use serde_json::{Map, Value, json};
use std::path::PathBuf;

/// Most sessions, states and entries that a line holds.
const ITEMS_MAX: usize = 20;

/// A change under way.
pub(super) struct Trail {
    line: AuditLine,
    file: Option<PathBuf>,
    of: ChangeOf,
}

/// Kind of a change, with the data before it.
enum ChangeOf {
    /// A session.
    Session(Value),
    /// Builds that serve, by service.
    Builds(Map<String, Value>),
    /// States and entries.
    Data,
    /// Several sessions: the answer says how many.
    Sessions(Value),
}

impl Trail {
    /// Begins before the change. `None`: the command changes nothing.
    pub(super) fn begin(
        command: &AdminCommand,
        by: Requester,
        file: Option<PathBuf>,
        mailbox: &QueryMailbox,
    ) -> Option<Trail> {
        if command.role() == Role::Read {
            return None;
        }
        let of = match command {
            AdminCommand::Release(id) | AdminCommand::Close(id) => ChangeOf::Session(session(*id, mailbox)),
            AdminCommand::CloseAll(ids) | AdminCommand::Message { sessions: ids, .. } => {
                let named = ids.iter().take(ITEMS_MAX).map(|id| session(*id, mailbox));
                ChangeOf::Sessions(named.filter(|session| !session.is_null()).collect())
            }
            AdminCommand::Set { .. }
            | AdminCommand::Amend { .. }
            | AdminCommand::Restore { .. }
            | AdminCommand::Undo => ChangeOf::Data,
            _ => ChangeOf::Builds(builds(mailbox)),
        };
        // The kind of the line is known at its end.
        Some(Trail { line: AuditLine::of("done", command, by), file, of })
    }

    /// Ends behind the change, before the caller hears of the end.
    pub(super) fn end(self, result: &Result<(), Failure>, told: &HeardEnd, mailbox: &QueryMailbox) {
        let Trail { line, file, of } = self;
        let line = match result {
            Err(Failure::Said(why)) => line.becomes("failed").because(why),
            Err(Failure::Io(_)) => line.becomes("left"),
            Ok(()) if !told.refused.is_empty() => line.becomes("refused").because(told.refused.join("; ")),
            Ok(()) => line,
        };
        let (before, after) = match of {
            // The loop is not asked again: a session that was released may stall it at once.
            ChangeOf::Session(before) => (before, Value::Null),
            ChangeOf::Builds(before) => differing(before, told.builds.clone()),
            ChangeOf::Data => data(told, mailbox),
            ChangeOf::Sessions(before) => (before, told.reached.clone()),
        };
        line.with(before, after).write(file.as_deref());
    }
}

/// A session in short; null: there is none.
fn session(id: u64, mailbox: &QueryMailbox) -> Value {
    let filter = Filter { session: Some(id), ..Filter::default() };
    let sessions = |a| if let Answer::Sessions(s) = a { Some(s) } else { None };
    let found = get(mailbox, Query::Sessions(id.saturating_sub(1), filter), sessions);
    match found.ok().and_then(|slice| slice.items.into_iter().find(|view| view.record.id == id)) {
        None => Value::Null,
        Some(view) => json!({
            "session": id,
            "service": view.service,
            "peer": view.record.peer.to_string(),
            "turns": view.record.turns,
            "quarantined": view.quarantined,
        }),
    }
}

/// Builds that serve, and canaries.
fn builds(mailbox: &QueryMailbox) -> Map<String, Value> {
    let all = services(mailbox).unwrap_or_default();
    let build = |generation: u64, build: &str| json!({"generation": generation, "build": build});
    let of = |s: ServiceStatus| {
        let mut now = build(s.generation, &s.build);
        if let Some(canary) = s.canary {
            now["canary"] = build(canary.generation, &canary.build);
        }
        (s.name, now)
    };
    all.into_iter().map(of).collect()
}

/// Builds of services that have another one behind a change, before and after it.
fn differing(mut before: Map<String, Value>, mut after: Map<String, Value>) -> (Value, Value) {
    after.retain(|name, build| before.get(name) != Some(build));
    before.retain(|name, _| after.contains_key(name));
    (or_null(before), or_null(after))
}

fn or_null(map: Map<String, Value>) -> Value {
    if map.is_empty() { Value::Null } else { map.into() }
}

/// States and entries that the change replaced, and what it stored instead.
fn data(told: &HeardEnd, mailbox: &QueryMailbox) -> (Value, Value) {
    let replaced = |a| if let Answer::ReplacedData(r) = a { Some(r) } else { None };
    match get(mailbox, Query::ReplacedData, replaced) {
        // Another operator's change may have come since.
        Ok(Some(replaced)) if told.lines.contains(&replaced.line) => items(&replaced),
        _ => (Value::Null, Value::Null),
    }
}

/// Data of a change as JSON, before and after it.
fn items(replaced: &ReplacedData) -> (Value, Value) {
    let (mut before, mut after) = (Vec::new(), Vec::new());
    for item in replaced.items.iter().take(ITEMS_MAX) {
        let of = match &item.of {
            ItemOf::Session { id, service, .. } => json!({"session": id, "service": service}),
            ItemOf::Table { table, key } => json!({"table": table, "key": stored_json::bytes_to_json(key)}),
        };
        for (side, stored) in [(&mut before, &item.before), (&mut after, &item.after)] {
            let mut entry = of.clone();
            entry["value"] = stored.as_ref().map_or(Value::Null, |s| stored_json::stored_to_json(&s.value));
            side.push(entry);
        }
    }
    match replaced.items.len() {
        0 => (Value::Null, Value::Null),
        n if n > ITEMS_MAX => {
            after.push(json!({"left_out_items": n - ITEMS_MAX}));
            (before.into(), after.into())
        }
        _ => (before.into(), after.into()),
    }
}
