//! Asks the loop one question and waits for the answer, slice after slice where there are many.
//!
//! The loop answers between two passes. A slice is small, so that no answer holds up a client.

use crate::admin::query::{Answer, Ask, Mailbox, Query};
use crate::admin::server::Caller;
use crate::protocol::admin::{Reply, ServiceStatus};
use greenroom_core::operate::inspect::{Filter, SessionView};
use std::io;
use std::sync::mpsc::{Receiver, channel};

/// Reason why a command has no answer.
pub(super) enum Failure {
    /// Error that the caller is to be told.
    Said(String),
    /// The caller is gone.
    Io(io::Error),
}

impl From<io::Error> for Failure {
    fn from(e: io::Error) -> Failure {
        Failure::Io(e)
    }
}

/// Asks the loop a question. Answers come through the channel; it closes when the host stops.
pub(super) fn ask(mailbox: &Mailbox, query: Query) -> Result<Receiver<Answer>, Failure> {
    let (reply, answers) = channel();
    match mailbox.post(Ask { query, reply }) {
        true => Ok(answers),
        false => Err(Failure::Said("the host is stopping".into())),
    }
}

/// Asks for one answer, of the kind that `kind` takes.
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

/// Asks the loop to do something, and waits until it is done.
pub(super) fn done(mailbox: &Mailbox, query: Query) -> Result<(), Failure> {
    get(mailbox, query, |a| matches!(a, Answer::Done).then_some(()))
}

/// Asks for the services.
pub(super) fn services(mailbox: &Mailbox) -> Result<Vec<ServiceStatus>, Failure> {
    get(mailbox, Query::Services, |a| if let Answer::Services(s) = a { Some(s) } else { None })
}

/// Calls `each` for all sessions, slice after slice.
pub(super) fn each_slice(
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

/// Passes on the progress of a reload, until all reports have come.
pub(super) fn reports(answers: Receiver<Answer>, caller: &mut Caller<'_>) -> Result<(), Failure> {
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
