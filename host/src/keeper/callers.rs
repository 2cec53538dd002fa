//! Commands of operators: answered here, passed on to the worker, or waiting for one.

use crate::admin::server::refuse;
use crate::protocol::admin::AdminCommand;
use greenroom_core::reload::request::Requester;
use std::collections::VecDeque;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

/// Time that a command waits for a worker.
const WAIT_MAX: Duration = Duration::from_secs(5);
/// Commands that wait at once.
const CALLERS_MAX: usize = 32;

/// A command, its requester, and the socket to answer on.
pub(super) struct WaitingCaller {
    /// The command.
    pub(super) command: AdminCommand,
    /// The requester.
    pub(super) by: Requester,
    /// The socket to answer on.
    pub(super) stream: UnixStream,
}

/// Callers that wait, in the order of their deadlines.
#[derive(Default)]
pub(super) struct Callers {
    waiting: VecDeque<(Instant, WaitingCaller)>,
}

impl Callers {
    /// Has a caller wait. Beyond [`CALLERS_MAX`] it is refused.
    pub(super) fn add(&mut self, caller: WaitingCaller) {
        if self.waiting.len() < CALLERS_MAX {
            self.waiting.push_back((Instant::now() + WAIT_MAX, caller));
        } else {
            refuse(&caller.stream, "too many commands wait for a worker already");
        }
    }

    /// Takes all callers that wait.
    pub(super) fn take(&mut self) -> impl Iterator<Item = WaitingCaller> + use<> {
        std::mem::take(&mut self.waiting).into_iter().map(|(_, caller)| caller)
    }

    /// Takes a caller whose time is over.
    pub(super) fn take_late(&mut self, now: Instant) -> Option<WaitingCaller> {
        self.waiting.pop_front_if(|(until, _)| *until <= now).map(|(_, caller)| caller)
    }

    /// Deadline of the next caller.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.waiting.front().map(|(until, _)| *until)
    }
}
