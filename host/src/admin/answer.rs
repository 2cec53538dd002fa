//! Answers to commands on the worker's side, a thread for each caller.
//!
//! A thread may block: on the loop, which answers a query between two passes, and on a slow
//! caller. The loop itself never waits for a caller. An answer ends with `End` or `Error`; a
//! caller that gets neither knows that the answer broke off.
//!
//! A command that changes something is carried out by the loop, so it is whole even if the
//! caller leaves in the middle. If the worker dies, the ledger tells what was committed.

use crate::admin::ask::{Failure, ask, done, get, reports, tables};
use crate::admin::caller::{Caller, on_thread};
use crate::admin::canary;
use crate::admin::dump::dump;
use crate::admin::query::{Answer, Proposal, Query, QueryMailbox, ReloadRequest, Setting};
use crate::admin::restore;
use crate::admin::trail::Trail;
use crate::admin::watch::watch;
use crate::admin::{amend, lists, look};
use crate::config::admin::Role;
use crate::protocol::admin::{AdminCommand, Reply};
use greenroom_core::reload::request::Requester;
use std::io;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

/// Answers one caller, on a thread of its own. Called by the loop, which does not wait. Beyond
/// the limit of callers the caller is told so, and nothing is asked. `audit`: file of the audit
/// log.
pub fn answer(
    stream: UnixStream,
    command: AdminCommand,
    by: Requester,
    audit: Option<PathBuf>,
    mailbox: QueryMailbox,
) {
    // An operator's role is not known here: a command that only looks has a reader's place.
    let role = command.role();
    on_thread(stream, role, None, move |stream| {
        let mut caller = Caller::new(&stream, role)?;
        let trail = Trail::begin(&command, by, audit, &mailbox);
        let result = run(command, by, &mut caller, &mailbox);
        end(&mut caller, trail, result, &mailbox)
    });
}

/// Answers a caller that proposes another configuration, on a thread of its own. False: there
/// is no thread for it, and nothing is asked. The loop then tells the keeper that the proposal
/// is off. `audit`: file of the audit log, of the configuration before.
pub fn configure(
    stream: UnixStream,
    proposal: Proposal,
    audit: Option<PathBuf>,
    mailbox: QueryMailbox,
) -> bool {
    on_thread(stream, Role::Operate, None, move |stream| {
        let trail = Trail::begin(&AdminCommand::Configure, proposal.by, audit, &mailbox);
        // The caller may be gone: the configuration is proposed all the same.
        let asked = ask(&mailbox, Query::Configure(proposal));
        let mut caller = Caller::new(&stream, Role::Operate)?;
        let result = asked.and_then(|answers| reports(answers, &mut caller));
        end(&mut caller, trail, result, &mailbox)
    })
}

/// Ends an answer. The audit log has its line before the caller hears of the end.
fn end(
    caller: &mut Caller<'_>,
    trail: Option<Trail>,
    result: Result<(), Failure>,
    mailbox: &QueryMailbox,
) -> io::Result<()> {
    if let Some(trail) = trail {
        trail.end(&result, caller.told(), mailbox);
    }
    match result {
        Ok(()) => caller.say(&Reply::End),
        Err(Failure::Said(text)) => caller.say(&Reply::Error(text)),
        Err(Failure::Io(e)) => Err(e),
    }
}

/// Sends the lines of the ledger, in slices.
fn history(caller: &mut Caller<'_>, mailbox: &QueryMailbox) -> Result<(), Failure> {
    // Lines are numbered from 1, so this begins with the oldest line that is kept.
    let mut from = Some(0);
    while let Some(line) = from {
        let lines = |a| if let Answer::Ledger(l) = a { Some(l) } else { None };
        let slice = get(mailbox, Query::Ledger(line), lines)?;
        caller.say(&Reply::History(slice.items))?;
        from = slice.next;
    }
    Ok(())
}

/// Runs one command, and sends all but the end of its answer. The match has an arm for each
/// command, so a new command can't be forgotten here.
fn run(
    command: AdminCommand,
    by: Requester,
    caller: &mut Caller<'_>,
    mailbox: &QueryMailbox,
) -> Result<(), Failure> {
    match command {
        AdminCommand::Status
        | AdminCommand::Metrics
        | AdminCommand::Log(_)
        | AdminCommand::Withhold(_)
        | AdminCommand::Upgrade { .. }
        | AdminCommand::Configure => {
            // `AdminCommand::served_by` sends these elsewhere, so a caller never gets here with
            // them.
            return Err(Failure::Said("the keeper answers this".into()));
        }
        AdminCommand::Sessions { of, first } => lists::sessions(*of, first, caller, mailbox)?,
        AdminCommand::History => history(caller, mailbox)?,
        AdminCommand::Release(id) => done(mailbox, Query::Release(id))?,
        AdminCommand::Close(id) => done(mailbox, Query::Close(id))?,
        AdminCommand::CloseAll(ids) => lists::for_each(ids, Query::Close, caller, mailbox)?,
        AdminCommand::Message { sessions, text } => {
            lists::message(sessions, &text, caller, mailbox)?;
        }
        AdminCommand::Dump { of, strings, lines } => dump(*of, strings, lines, caller, mailbox)?,
        AdminCommand::Show(id) => look::show(id, caller, mailbox)?,
        AdminCommand::Tables => caller.say(&Reply::Tables(tables(mailbox)?))?,
        AdminCommand::Entries(query) => look::entries(*query, caller, mailbox)?,
        AdminCommand::Amend { session, entries } => amend::amend(session, entries, by, caller, mailbox)?,
        AdminCommand::Undo => amend::undo(by, caller, mailbox)?,
        AdminCommand::Reload { service, from, together, dry_run, against } => {
            // Reports come as the libraries end, in any order, so each is sent when it comes.
            let request = ReloadRequest { target: service, from, together, dry_run, against, by };
            reports(ask(mailbox, Query::Reload(request))?, caller)?;
        }
        AdminCommand::Canary { service, from, wish } => {
            let request = canary::request(service, from, wish, by, mailbox)?;
            reports(ask(mailbox, Query::Canary(request))?, caller)?;
        }
        AdminCommand::Canaries => {
            let lines = |a| if let Answer::Canaries(l) = a { Some(l) } else { None };
            caller.say(&Reply::Canaries(get(mailbox, Query::Canaries, lines)?))?;
        }
        AdminCommand::Promote(name) => reports(ask(mailbox, Query::Promote(name, by))?, caller)?,
        AdminCommand::TakeBack(name) => reports(ask(mailbox, Query::TakeBack(name, by))?, caller)?,
        AdminCommand::RollBack { service, to } => {
            reports(ask(mailbox, Query::RollBack(service, to, by))?, caller)?
        }
        AdminCommand::Restore { file, dry_run } => restore::restore(file, dry_run, by, caller, mailbox)?,
        AdminCommand::Set { session, fields } => {
            restore::set(Setting { session, fields, by }, caller, mailbox)?
        }
        AdminCommand::Watch { subject, for_ms, record } => {
            watch(subject, for_ms, record, caller, mailbox)?;
        }
        AdminCommand::Await(line) => {
            let report =
                // Blocks this thread until the probation ends.
                get(mailbox, Query::Await(line), |a| if let Answer::Report(r) = a { Some(r) } else { None })?;
            caller.say(&Reply::Report(report))?;
        }
    }
    Ok(())
}
