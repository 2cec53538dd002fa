//! Answers of the keeper to commands of operators: answered at once, or passed on to the worker.
//!
//! The keeper answers what must be answered while no worker serves, and what replaces the worker.
//! All other commands go to the worker with the caller's socket, and the keeper forgets them. So an
//! answer of any length costs the keeper one message.

use crate::admin::server::Answers;
use crate::keeper::Keeper;
use crate::keeper::callers::WaitingCaller;
use crate::protocol::admin::{AdminCommand, Reply, TAKES_NO_COMMANDS};
use crate::protocol::keeper::ToWorker;
use std::os::fd::AsFd;
use std::path::PathBuf;

impl Keeper {
    /// Answers a command that the keeper serves ([`AdminCommand::served_by`]). The thread of the
    /// caller may be gone, so failed answers are ignored.
    pub(super) fn answer(&mut self, command: AdminCommand, answers: Answers) {
        match command {
            AdminCommand::Status => _ = answers.send(Reply::Status(Box::new(self.status()))),
            AdminCommand::Metrics => _ = answers.send(Reply::Metrics(Box::new(self.metrics()))),
            AdminCommand::Withhold(of) => _ = answers.send(self.withhold(&of)),
            AdminCommand::Log(wish) => _ = answers.send(self.log_level(wish)),
            AdminCommand::Upgrade { binary } => self.begin_upgrade(binary, answers),
            other => {
                let _ = answers.send(Reply::Error(format!("the keeper does not serve {other:?}")));
            }
        }
    }

    /// Passes a command on to the worker, or has it wait for one. A worker that stalls gets none.
    /// `configure` goes another way: the keeper reads the file first.
    pub(super) fn relay(&mut self, caller: WaitingCaller) {
        if let AdminCommand::Configure = caller.command {
            if let Some(why) = self.refusal().filter(|_| self.worker.serves()) {
                return caller.refuse(&why, self.audit());
            }
            return self.configure(caller.by, Some(caller.stream));
        }
        if !self.worker.serves() {
            return self.callers.add(caller, self.audit());
        }
        if let Some(why) = self.refusal() {
            return caller.refuse(&why, self.audit());
        }
        let WaitingCaller { command, by, stream } = caller;
        let message = ToWorker::Caller(command, by);
        let sent = self.worker.send_with(&message, &[stream.as_fd()]);
        let ToWorker::Caller(command, by) = message else { return };
        let caller = WaitingCaller { command, by, stream };
        match sent {
            Some(Ok(true)) => {}
            Some(Ok(false)) => {
                caller.refuse(&format!("{TAKES_NO_COMMANDS} now; see `greenroom status`"), self.audit());
            }
            // The worker has just died, and did not get the command: its successor does.
            None | Some(Err(_)) => self.callers.add(caller, self.audit()),
        }
    }

    /// File of the audit log.
    pub(super) fn audit(&self) -> Option<PathBuf> {
        self.options.config.admin.audit.clone()
    }
}
