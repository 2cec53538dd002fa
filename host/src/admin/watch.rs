//! Stream of the turns that a caller watches.
//!
//! The thread asks the loop for what is new, and the loop answers when there is something. So a
//! caller that reads slowly is asked for by nobody meanwhile: its turns wait in the core, up to a
//! limit, and are counted beyond it. Between two questions the thread rests, so that a busy session
//! costs the loop few of them.
//!
//! The watch ends when the caller leaves or loses its role, when its time is over, when the
//! sessions that it names are gone, and with the worker. A worker that ends says nothing: the
//! caller asks the next one.

use crate::admin::access::AdminCaller;
use crate::admin::ask::{Failure, ask, get, sets_of};
use crate::admin::caller::Caller;
use crate::admin::query::{Answer, Ask, Query, QueryMailbox, SchemaOf};
use crate::admin::redact::Redaction;
use crate::admin::time::rfc3339;
use crate::admin::traced::traced;
use crate::clock::unix_ms;
use crate::protocol::admin::Reply;
use crate::protocol::watch::{RECORDING, RecordHead, RecordOrder, RecordedTurn};
use greenroom_core::turn::turn_record::TurnRecord;
use greenroom_core::watch::subject::Subject;
use greenroom_core::watch::watchers::WatchedTurns;
use greenroom_state::sets::Sets;
use std::collections::BTreeMap;
use std::io;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

/// Time after which a caller hears that nothing is new, and is seen to be gone.
const HEARTBEAT: Duration = Duration::from_millis(500);
/// Rest between two questions.
const REST: Duration = Duration::from_millis(10);

/// Ends a watch however its thread ends.
struct Guard<'a> {
    number: u64,
    mailbox: &'a QueryMailbox,
}

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        let (reply, _) = channel();
        self.mailbox.post(Ask { query: Query::Unwatch(self.number), reply });
    }
}

/// Streams turns until one of the ends above.
pub(super) fn watch(
    subject: Subject,
    for_ms: Option<u64>,
    record: Option<RecordOrder>,
    caller: &mut Caller<'_>,
    mailbox: &QueryMailbox,
) -> Result<(), Failure> {
    let redaction =
        record.as_ref().map(|order| Redaction::new(&order.redact)).transpose().map_err(Failure::Said)?;
    let until = for_ms.map(|ms| Instant::now() + Duration::from_millis(ms));
    let query = Query::Watch { subject: subject.clone(), records: record.is_some() };
    let begun = |a| if let Answer::Watching(number, limits) = a { Some((number, limits)) } else { None };
    let (number, limits) = get(mailbox, query, begun)?;
    let guard = Guard { number, mailbox };
    match record {
        None => caller.say(&Reply::Watching)?,
        Some(order) => caller.say(&Reply::RecordHead(Box::new(RecordHead {
            greenroom_recording: RECORDING,
            host: env!("CARGO_PKG_VERSION").to_owned(),
            at: rfc3339(unix_ms()),
            subject,
            redacted: order.redact,
            limits: limits.host,
            service_limits: limits.services,
        })))?,
    }
    let mut told = Instant::now();
    let mut sets = SetsOfStates::default();
    loop {
        let answers = ask(mailbox, Query::Watched(guard.number))?;
        let seen = loop {
            let left = until.map(|at| at.saturating_duration_since(Instant::now()));
            match answers.recv_timeout(left.unwrap_or(HEARTBEAT).min(HEARTBEAT)) {
                Ok(Answer::Watched(seen)) => break seen,
                Ok(Answer::Roles(mut admin)) => {
                    admin.find_members().map_err(Failure::Said)?;
                    let caller = AdminCaller::of(caller.socket(), &admin.members)?;
                    if caller.role.is_none() {
                        return Err(Failure::Said(caller.stranger()));
                    }
                    break Some(WatchedTurns::default());
                }
                Ok(_) => return Err(Failure::Said("the host answered something else".into())),
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(Failure::Io(io::Error::other("the worker ends")));
                }
                Err(RecvTimeoutError::Timeout) if left == Some(Duration::ZERO) => return Ok(()),
                Err(RecvTimeoutError::Timeout) => caller.say(&Reply::Watching)?,
            }
        };
        let Some(seen) = seen else { return Ok(()) };
        match &redaction {
            None => say_traced(seen, &mut sets, caller, mailbox)?,
            Some(redaction) => say_recorded(seen, redaction, caller)?,
        }
        if until.is_some_and(|at| Instant::now() >= at) {
            return Ok(());
        }
        // A caller that is gone is noticed by a write, and one that only listens by this.
        if told.elapsed() >= HEARTBEAT {
            caller.say(&Reply::Watching)?;
            told = Instant::now();
        }
        std::thread::sleep(REST);
    }
}

/// Sets in the states of services, with the generations that they were asked at.
#[derive(Default)]
struct SetsOfStates(BTreeMap<String, (u64, Sets)>);

impl SetsOfStates {
    /// Sets in the states of a turn's service. The loop is asked once for each generation.
    fn of(&mut self, turn: &TurnRecord, mailbox: &QueryMailbox) -> Result<&Sets, Failure> {
        if self.0.get(&turn.service).is_none_or(|(generation, _)| *generation != turn.generation) {
            let sets = sets_of(SchemaOf::Service(turn.service.clone()), mailbox)?;
            self.0.insert(turn.service.clone(), (turn.generation, sets));
        }
        Ok(&self.0[&turn.service].1)
    }
}

/// Sends turns for a person or a program to read.
fn say_traced(
    seen: WatchedTurns,
    sets: &mut SetsOfStates,
    caller: &mut Caller<'_>,
    mailbox: &QueryMailbox,
) -> Result<(), Failure> {
    for turn in &seen.turns {
        let turn = traced(turn, sets.of(turn, mailbox)?);
        caller.say(&Reply::Turn(Box::new(turn)))?;
    }
    match seen.left_out {
        0 => Ok(()),
        // The list was full when they ran: they are newer than those in it.
        left_out => Ok(caller.say(&Reply::LeftOut(left_out))?),
    }
}

/// Sends turns for a recording.
fn say_recorded(seen: WatchedTurns, redaction: &Redaction, caller: &mut Caller<'_>) -> io::Result<()> {
    for turn in &seen.turns {
        let mut turn = TurnRecord::clone(turn);
        let redacted = redaction.apply(&mut turn);
        caller.say(&Reply::Record(Box::new(RecordedTurn { left_out: 0, redacted, turn })))?;
    }
    match seen.left_out {
        0 => Ok(()),
        left_out => caller.say(&Reply::LeftOut(left_out)),
    }
}
