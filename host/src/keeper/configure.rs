//! Configurations that are proposed to a worker. A thread reads the file again, as it may lie on a
//! slow file system; the worker puts it in force, or refuses it.

use crate::admin::server::refuse;
use crate::config::Config;
use crate::keeper::Keeper;
use crate::keeper::callers::Caller;
use crate::keeper::events::Event;
use crate::protocol::admin::AdminCommand;
use crate::protocol::keeper::ToWorker;
use crate::protocol::link::to_file;
use greenroom_core::reload::request::By;
use std::collections::BTreeMap;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;

/// Workers in a row that may die with a signal's configuration. Then it is not proposed again: it
/// may be what kills them.
const SIGNALS_LOST_MAX: u32 = 2;

/// A configuration that a worker was asked to put in force.
struct Proposed {
    config: Config,
    by: By,
}

/// Proposals that a worker has not answered, by number.
#[derive(Default)]
pub(super) struct Proposals {
    open: BTreeMap<u64, Proposed>,
    /// Number of the last proposal.
    last: u64,
    /// A SIGHUP waits for a worker.
    sighup_pending: bool,
    /// Workers in a row that died before they answered a signal's proposal.
    signals_lost: u32,
}

impl Proposals {
    /// Number of the next proposal.
    fn next_number(&mut self) -> u64 {
        self.last += 1;
        self.last
    }

    /// Takes a proposal that the worker has answered. `None`: another worker's.
    fn answered(&mut self, number: u64) -> Option<Proposed> {
        let proposed = self.open.remove(&number)?;
        if proposed.by == By::Signal {
            self.signals_lost = 0;
        }
        Some(proposed)
    }

    /// Forgets the proposals of a worker that died. True: a signal's is due again.
    fn take_due_again(&mut self) -> bool {
        let mut lost = std::mem::take(&mut self.open).into_values().any(|p| p.by == By::Signal);
        self.signals_lost += u32::from(lost);
        if self.signals_lost > SIGNALS_LOST_MAX {
            tracing::error!(
                "{} workers have ended with the configuration: it isn't tried again",
                self.signals_lost
            );
            (lost, self.signals_lost) = (false, 0);
        }
        std::mem::take(&mut self.sighup_pending) || lost
    }
}

impl Keeper {
    /// Begins to read the configuration.
    pub(super) fn configure(&mut self, by: By, stream: Option<UnixStream>) {
        let (source, mailbox) = (self.options.source.clone(), self.mailbox());
        let read = move || {
            let config = Box::new(source.read());
            mailbox.post(Event::Read { config, by, stream });
        };
        if let Err(e) = std::thread::Builder::new().name("configuration".into()).spawn(read) {
            tracing::error!("the configuration can't be read: {e}");
        }
    }

    /// Proposes a configuration that was read.
    pub(super) fn propose(&mut self, config: Result<Config, String>, by: By, stream: Option<UnixStream>) {
        match config.and_then(|config| self.hand_proposal(config, by, stream.as_ref())) {
            Ok(true) => {}
            Ok(false) => self.configure_later(by, stream),
            Err(why) => {
                tracing::warn!("configuration refused, nothing has changed: {why}");
                if let Some(stream) = stream {
                    refuse(&stream, &format!("nothing has changed: {why}"));
                }
            }
        }
    }

    /// Hands a proposal to the worker. False: no worker serves now.
    fn hand_proposal(&mut self, config: Config, by: By, stream: Option<&UnixStream>) -> Result<bool, String> {
        if self.stop.is_requested() {
            return Err("the host is stopping".into());
        }
        if !self.worker.serves() {
            return Ok(false);
        }
        let number = self.proposals.next_number();
        let file = to_file(&config).map_err(|e| e.to_string())?;
        let fds: Vec<_> = [file.as_fd()].into_iter().chain(stream.map(AsFd::as_fd)).collect();
        match self.worker.send_with(&ToWorker::Configure(number, by), &fds) {
            Some(Ok(true)) => {}
            Some(Ok(false)) => {
                return Err("the worker takes no commands now; see `greenroom status`".into());
            }
            // It has just died.
            Some(Err(_)) | None => return Ok(false),
        }
        self.proposals.open.insert(number, Proposed { config, by });
        Ok(true)
    }

    /// Has a proposal wait for a worker. The file is read again then.
    fn configure_later(&mut self, by: By, stream: Option<UnixStream>) {
        match stream {
            Some(stream) => self.callers.add(Caller { command: AdminCommand::Configure, by, stream }),
            None => self.proposals.sighup_pending = true,
        }
    }

    /// Repeats a signal's proposal that the previous worker did not answer. Runs once a worker
    /// serves and has reported the configuration in force. Operators know that theirs failed.
    pub(super) fn propose_again(&mut self) {
        if self.proposals.take_due_again() {
            self.configure(By::Signal, None);
        }
    }

    /// Notes that a proposal is in force: later workers begin with it.
    pub(super) fn configured(&mut self, number: u64) {
        if let Some(proposed) = self.proposals.answered(number) {
            self.options.config = proposed.config;
        }
    }

    /// Notes that a proposal was refused, or changes nothing.
    pub(super) fn not_configured(&mut self, number: u64) {
        self.proposals.answered(number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signals_proposal_is_repeated_until_too_many_workers_died_with_it() {
        let mut proposals = Proposals::default();
        let mut lose = |by| {
            let number = proposals.next_number();
            proposals.open.insert(number, Proposed { config: Config::default(), by });
            proposals.take_due_again()
        };
        assert!(!lose(By::Operator { uid: 1, pid: 2 }));
        assert!(lose(By::Signal) && lose(By::Signal));
        assert!(!lose(By::Signal), "the third worker in a row");
        assert!(lose(By::Signal));
        assert!(proposals.answered(1).is_none() && !proposals.take_due_again());
        proposals.sighup_pending = true;
        assert!(proposals.take_due_again() && !proposals.take_due_again());
    }
}
