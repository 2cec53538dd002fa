//! Lists of sessions, and commands to several sessions.
//!
//! A list is sent in slices as it is read, or, if only the first of an order are wanted, at its
//! end: this thread then holds those and no others. O(sessions) of time, O(list) of memory.

use crate::admin::ask::{Failure, done};
use crate::admin::caller::Caller;
use crate::admin::query::{Query, QueryMailbox};
use crate::admin::select::each_selected;
use crate::admin::time::rfc3339;
use crate::clock::unix_ms;
use crate::protocol::admin::{Reply, SessionLine};
use crate::protocol::data::Reached;
use crate::protocol::selection::{First, Selection, SortBy};
use greenroom_core::operate::inspect::SessionView;
use std::cmp::Ordering;

/// Lines in one reply.
const LINES_PER_REPLY: usize = 64;
/// Most sessions that a command to several names with a reason.
const NAMED_MAX: usize = 20;

/// Answers [`crate::protocol::admin::AdminCommand::Sessions`].
pub(super) fn sessions(
    of: Selection,
    first: Option<First>,
    caller: &mut Caller<'_>,
    mailbox: &QueryMailbox,
) -> Result<(), Failure> {
    let now_ms = unix_ms();
    let mut lines = Vec::new();
    let (_, notice) = each_selected(mailbox, of, false, |view| {
        lines.push(session_line(view, now_ms));
        match first {
            // Twice as many are gathered before the rest is dropped, so that sorting is rare.
            Some(first) if lines.len() / 2 >= first.count.max(LINES_PER_REPLY) => keep(&mut lines, first),
            None if lines.len() >= LINES_PER_REPLY => {
                caller.say(&Reply::Sessions(std::mem::take(&mut lines)))?;
            }
            _ => {}
        }
        Ok(())
    })?;
    if let Some(first) = first {
        keep(&mut lines, first);
    }
    for slice in lines.chunks(LINES_PER_REPLY) {
        caller.say(&Reply::Sessions(slice.to_vec()))?;
    }
    Ok(notice.map_or(Ok(()), |text| caller.say(&Reply::Notice(text)))?)
}

/// Keeps the lines that sort first, in their order.
fn keep(lines: &mut Vec<SessionLine>, first: First) {
    lines.sort_by(|a, b| {
        let order = order(a, b, first.by);
        if first.reverse { order.reverse() } else { order }
    });
    lines.truncate(first.count);
}

/// Order of two sessions; of equal ones the lower number comes first.
fn order(a: &SessionLine, b: &SessionLine, by: SortBy) -> Ordering {
    let most = |of: fn(&SessionLine) -> u64| of(b).cmp(&of(a));
    let order = match by {
        SortBy::Id => Ordering::Equal,
        SortBy::Service => a.service.cmp(&b.service),
        SortBy::Peer => a.peer.cmp(&b.peer),
        SortBy::Age => most(|s| s.age_ms),
        SortBy::Idle => most(|s| s.idle_ms),
        SortBy::Turns => most(|s| s.turns),
        SortBy::BytesIn => most(|s| s.bytes_in),
        SortBy::BytesOut => most(|s| s.bytes_out),
        SortBy::Unsent => most(|s| s.unsent),
        SortBy::State => most(|s| s.state_bytes),
    };
    order.then(a.id.cmp(&b.id))
}

/// Answers [`crate::protocol::admin::AdminCommand::Message`]. Refuses more than one line: a peer
/// could not tell it from several messages.
pub(super) fn message(
    sessions: Vec<u64>,
    text: &str,
    caller: &mut Caller<'_>,
    mailbox: &QueryMailbox,
) -> Result<(), Failure> {
    if text.contains('\n') {
        return Err(Failure::Said("a message is one line; send several".into()));
    }
    for_each(sessions, |id| Query::Message(id, text.to_owned()), caller, mailbox)
}

/// Carries out a query for each session, one after the other, and says what came of it.
pub(super) fn for_each(
    ids: Vec<u64>,
    query: impl Fn(u64) -> Query,
    caller: &mut Caller<'_>,
    mailbox: &QueryMailbox,
) -> Result<(), Failure> {
    let mut reached = Reached::default();
    for id in ids {
        match done(mailbox, query(id)) {
            Ok(()) => reached.done += 1,
            Err(Failure::Said(why)) => {
                reached.refused_count += 1;
                if reached.refused.len() < NAMED_MAX {
                    reached.refused.insert(id, why);
                }
            }
            Err(gone) => return Err(gone),
        }
    }
    Ok(caller.say(&Reply::Reached(reached))?)
}

/// Describes a session in a list. Contents are left out: `state dump` has them.
fn session_line(v: SessionView, now_ms: u64) -> SessionLine {
    let waits_for = match (v.record.header_due, v.record.tls_due) {
        // The handshake comes behind the header.
        (true, _) => Some("header"),
        (false, true) => Some("handshake"),
        (false, false) => None,
    };
    SessionLine {
        id: v.record.id,
        service: v.service,
        generation: v.generation,
        endpoint: v.kind,
        tls: v.tls.into_iter().collect(),
        over_tls: v.record.over_tls || v.record.tls_due,
        waits_for: waits_for.map(str::to_owned),
        peer: v.record.peer.to_string(),
        opened_at: rfc3339(v.record.opened_at_ms),
        state_version: v.record.state_version,
        turns: v.record.turns,
        bytes_in: v.record.bytes_in,
        bytes_out: v.record.bytes_out,
        quarantined: v.quarantined,
        age_ms: now_ms.saturating_sub(v.record.opened_at_ms),
        idle_ms: v.idle_ns / 1_000_000,
        unsent: v.unsent_bytes,
        state_bytes: v.state_bytes as u64,
    }
}
