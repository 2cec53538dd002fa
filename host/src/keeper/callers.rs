//! Commands of operators: answered here, passed on to the worker, or waiting for one.

use crate::admin::server::{Answers, refuse};
use crate::keeper::Keeper;
use crate::protocol::admin::{AdminCommand, Reply};
use crate::protocol::keeper::ToWorker;
use greenroom_core::reload::request::By;
use std::collections::VecDeque;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

/// Time that a command waits for a worker.
const WAIT_MAX: Duration = Duration::from_secs(5);
/// Commands that wait at once.
const CALLERS_MAX: usize = 32;

/// A command, its requester, and the socket to answer on.
pub(super) struct Caller {
    /// The command.
    pub(super) command: AdminCommand,
    /// Its requester.
    pub(super) by: By,
    /// The socket to answer on.
    pub(super) stream: UnixStream,
}

/// Callers that wait, in the order of their deadlines.
#[derive(Default)]
pub(super) struct Callers {
    waiting: VecDeque<(Instant, Caller)>,
}

impl Callers {
    /// Has a caller wait. Beyond [`CALLERS_MAX`] it is refused.
    pub(super) fn add(&mut self, caller: Caller) {
        if self.waiting.len() < CALLERS_MAX {
            self.waiting.push_back((Instant::now() + WAIT_MAX, caller));
        } else {
            refuse(&caller.stream, "too many commands wait for a worker already");
        }
    }

    /// Takes all callers that wait.
    pub(super) fn take(&mut self) -> impl Iterator<Item = Caller> + use<> {
        std::mem::take(&mut self.waiting).into_iter().map(|(_, caller)| caller)
    }

    /// Takes a caller whose time is over.
    pub(super) fn take_late(&mut self, now: Instant) -> Option<Caller> {
        self.waiting.pop_front_if(|(until, _)| *until <= now).map(|(_, caller)| caller)
    }

    /// Deadline of the next caller.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.waiting.front().map(|(until, _)| *until)
    }
}

impl Keeper {
    /// Answers a command that the keeper serves.
    pub(super) fn answer(&mut self, command: AdminCommand, answers: Answers) {
        match command {
            AdminCommand::Status => _ = answers.send(Reply::Status(self.status())),
            AdminCommand::Upgrade { binary } => self.begin_upgrade(binary, answers),
            other => {
                let _ = answers.send(Reply::Error(format!("the keeper does not serve {other:?}")));
            }
        }
    }

    /// Passes a command on to the worker, or has it wait for one.
    pub(super) fn relay(&mut self, caller: Caller) {
        if let AdminCommand::Configure = caller.command {
            return self.configure(caller.by, Some(caller.stream));
        }
        if !self.worker.serves() {
            return self.callers.add(caller);
        }
        let Caller { command, by, stream } = caller;
        match self.worker.send_with(&ToWorker::Caller(command, by), &[stream.as_fd()]) {
            None | Some(Ok(true)) => {}
            Some(Ok(false) | Err(_)) => {
                refuse(&stream, "the worker takes no commands now; see `greenroom status`");
            }
        }
    }
}
