//! Answers of the keeper to commands of operators.

use crate::admin::server::Answers;
use crate::admin::server::refuse;
use crate::keeper::Keeper;
use crate::keeper::callers::WaitingCaller;
use crate::protocol::admin::AdminCommand;
use crate::protocol::admin::Reply;
use crate::protocol::keeper::ToWorker;
use std::os::fd::AsFd;

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
    pub(super) fn relay(&mut self, caller: WaitingCaller) {
        if let AdminCommand::Configure = caller.command {
            return self.configure(caller.by, Some(caller.stream));
        }
        if !self.worker.serves() {
            return self.callers.add(caller);
        }
        let WaitingCaller { command, by, stream } = caller;
        match self.worker.send_with(&ToWorker::Caller(command, by), &[stream.as_fd()]) {
            None | Some(Ok(true)) => {}
            Some(Ok(false) | Err(_)) => {
                refuse(&stream, "the worker takes no commands now; see `greenroom status`");
            }
        }
    }
}
