//! Commands of operators that wait for a worker.
//!
//! A command that comes while no worker serves waits for at most [`WAIT_MAX`]. A takeover takes
//! milliseconds, so an operator rarely notices one. Behind the deadline, the operator is told why
//! no worker serves.

use crate::admin::audit::write_refusal;
use crate::admin::caller::{callers_max, refuse};
use crate::config::admin::Role;
use crate::protocol::admin::AdminCommand;
use greenroom_core::reload::request::Requester;
use std::collections::VecDeque;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Time that a command waits for a worker.
const WAIT_MAX: Duration = Duration::from_secs(5);

/// A command, its requester, and the socket to answer on.
pub(super) struct WaitingCaller {
    /// The command.
    pub(super) command: AdminCommand,
    /// The requester.
    pub(super) by: Requester,
    /// The socket to answer on.
    pub(super) stream: UnixStream,
}

impl WaitingCaller {
    /// Tells a caller why the command is not carried out, and the audit log, if it is a change.
    pub(super) fn refuse(self, why: &str, audit: Option<PathBuf>) {
        refuse(&self.stream, why);
        if self.command.role() == Role::Operate {
            write_refusal(self.command, self.by, why.to_owned(), audit);
        }
    }
}

/// Callers that wait, in the order of their deadlines.
#[derive(Default)]
pub(super) struct Callers {
    /// Deadline and caller. All wait for the same time, so the order of arrival is that of the
    /// deadlines.
    waiting: VecDeque<(Instant, WaitingCaller)>,
}

impl Callers {
    /// Has a caller wait, with its descriptor. Beyond [`callers_max`] it is refused: `audit` is the
    /// file for that. Commands that only look leave places to those that change something.
    pub(super) fn add(&mut self, caller: WaitingCaller, audit: Option<PathBuf>) {
        if self.waiting.len() < callers_max(caller.command.role()) {
            self.waiting.push_back((Instant::now() + WAIT_MAX, caller));
        } else {
            caller.refuse("too many commands wait for a worker already", audit);
        }
    }

    /// Takes all callers that wait. A caller that still cannot be served may be added again.
    pub(super) fn take(&mut self) -> impl Iterator<Item = WaitingCaller> + use<> {
        std::mem::take(&mut self.waiting).into_iter().map(|(_, caller)| caller)
    }

    /// Takes a caller whose time is over. The caller is to be refused.
    pub(super) fn take_late(&mut self, now: Instant) -> Option<WaitingCaller> {
        self.waiting.pop_front_if(|(until, _)| *until <= now).map(|(_, caller)| caller)
    }

    /// Deadline of the next caller.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.waiting.front().map(|(until, _)| *until)
    }
}
