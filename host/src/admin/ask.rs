//! Questions to the loop, asked from a caller's thread.
//!
//! The loop answers between two passes. Lists come slice after slice: a slice is small, so no
//! answer holds up a client. Between two slices the data may change. A list is therefore no
//! snapshot: each slice is consistent in itself, and the key to go on from keeps items from
//! coming twice.
//!
//! A thread has one question open at a time, which bounds what the loop can find in its mailbox
//! by the number of callers. If the host stops, the loop drops the sender of the answers, and
//! the thread gets an error instead of waiting for ever.

use crate::admin::caller::Caller;
use crate::admin::query::{Answer, Ask, Query, QueryMailbox, SchemaOf};
use crate::protocol::admin::Reply;
use crate::protocol::data::TableLine;
use crate::protocol::status::ServiceStatus;
use greenroom_core::operate::inspect::{Filter, SessionView};
use greenroom_state::sets::Sets;
use std::io;
use std::sync::mpsc::{Receiver, channel};

/// Reason why a command has no answer. The caller hears of the first kind only.
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

/// Asks the loop a question. Answers come through the channel; it closes when the last answer
/// was given or the host stops. Fails if the loop has ended.
pub(super) fn ask(mailbox: &QueryMailbox, query: Query) -> Result<Receiver<Answer>, Failure> {
    let (reply, answers) = channel();
    match mailbox.post(Ask { query, reply }) {
        true => Ok(answers),
        false => Err(Failure::Said("the host is stopping".into())),
    }
}

/// Asks for one answer, of the kind that `kind` takes. Blocks until the loop answers. An answer
/// of another kind is a fault of the host and becomes an error text, not a panic.
pub(super) fn get<T>(
    mailbox: &QueryMailbox,
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
pub(super) fn done(mailbox: &QueryMailbox, query: Query) -> Result<(), Failure> {
    get(mailbox, query, |a| matches!(a, Answer::Done).then_some(()))
}

/// Asks for the services. One slice: services are few.
pub(super) fn services(mailbox: &QueryMailbox) -> Result<Vec<ServiceStatus>, Failure> {
    get(mailbox, Query::Services, |a| if let Answer::Services(s) = a { Some(s) } else { None })
}

/// Calls `each` for all sessions that pass the filter, slice after slice, in the order of their
/// numbers. A slice may be empty. Sessions that open meanwhile have higher numbers and are
/// listed too.
pub(super) fn each_slice(
    mailbox: &QueryMailbox,
    filter: &Filter,
    mut each: impl FnMut(Vec<SessionView>) -> Result<(), Failure>,
) -> Result<(), Failure> {
    // Number 0 is no session's, so this is behind none of them.
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
///
/// The loop says first how many libraries there are. The channel closes when the loop drops its
/// sender: after the last report, or because the host stops. The count tells the two apart.
pub(super) fn reports(answers: Receiver<Answer>, caller: &mut Caller<'_>) -> Result<(), Failure> {
    let mut to_come = None;
    for answer in answers {
        match answer {
            Answer::Reloading(libraries) => to_come = Some(libraries),
            Answer::Progress(library, done, total) => caller.say(&Reply::Progress(library, done, total))?,
            Answer::Report(report) => {
                // More reports than were announced are passed on, too.
                to_come = to_come.map(|n: usize| n.saturating_sub(1));
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

/// Asks the loop for the tables.
pub(super) fn tables(mailbox: &QueryMailbox) -> Result<Vec<TableLine>, Failure> {
    get(mailbox, Query::TableList, |a| if let Answer::TableList(t) = a { Some(t) } else { None })
}

/// Asks the loop for the places of sets in states or values.
pub(super) fn sets_of(of: SchemaOf, mailbox: &QueryMailbox) -> Result<Sets, Failure> {
    let schema = get(mailbox, Query::Schema(of), |a| if let Answer::Schema(s) = a { Some(s) } else { None })?;
    Ok(Sets::of(schema.as_deref()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::admin::Role;
    use greenroom_core::ledger::{Outcome, Restored};
    use std::io::Read;
    use std::os::unix::net::UnixStream;

    /// Reports are passed on, also more of them than were announced; fewer are an error.
    #[test]
    fn reports_are_counted() {
        let passed = |announced, reports| {
            let (ours, mut theirs) = UnixStream::pair().unwrap();
            let (reply, answers) = channel();
            reply.send(Answer::Reloading(announced)).unwrap();
            for _ in 0..reports {
                let report = Restored::default().report(Outcome::Restored, String::new(), Vec::new());
                reply.send(Answer::Report(Box::new(report))).unwrap();
            }
            drop(reply);
            let all = super::reports(answers, &mut Caller::new(&ours, Role::Operate).unwrap()).is_ok();
            drop(ours);
            let mut said = String::new();
            theirs.read_to_string(&mut said).unwrap();
            (all, said.lines().count())
        };
        assert_eq!((passed(2, 2), passed(1, 3), passed(2, 1)), ((true, 2), (true, 3), (false, 1)));
    }
}
