//! Another configuration: the file is read again on a thread, as it may lie anywhere, and the worker is asked to put it in force.

use super::{Event, Keeper, Phase};
use crate::admin::server::refuse;
use crate::config::Config;
use crate::protocol::admin::AdminCommand;
use crate::protocol::keeper::ToWorker;
use crate::protocol::link::to_file;
use greenroom_core::reload::request::By;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;

/// Workers, one after the other, that may end with a signal's configuration before it is left alone: it may be what kills them.
const SIGNALS_LOST_MAX: u32 = 2;

/// A configuration that the worker was asked to put in force.
pub(super) struct Proposed {
    config: Config,
    by: By,
}

impl Keeper {
    /// Begins to read it.
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

    /// It is read: the worker is to put it in force.
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

    /// False: no worker serves now.
    fn hand_proposal(&mut self, config: Config, by: By, stream: Option<&UnixStream>) -> Result<bool, String> {
        if self.stop_by.is_some() {
            return Err("the host is stopping".into());
        }
        let serves = matches!(self.phase, Phase::Serving { .. });
        let Some(link) = self.link.as_mut().filter(|_| serves) else { return Ok(false) };
        self.proposals += 1;
        let file = to_file(&config).map_err(|e| e.to_string())?;
        let fds: Vec<_> = [file.as_fd()].into_iter().chain(stream.map(AsFd::as_fd)).collect();
        match link.send_with(&ToWorker::Configure(self.proposals, by), &fds) {
            Ok(true) => {}
            Ok(false) => return Err("the worker takes no commands now; see `greenroom status`".into()),
            // It has just died.
            Err(_) => return Ok(false),
        }
        self.proposed.insert(self.proposals, Proposed { config, by });
        Ok(true)
    }

    /// Once a worker serves, the file is read again: what it says then counts.
    fn configure_later(&mut self, by: By, stream: Option<UnixStream>) {
        match stream {
            Some(stream) => self.wait_for_worker(AdminCommand::Configure, by, stream),
            None => self.hung_up = true,
        }
    }

    /// A worker serves, and has said what is in force: what its predecessor never came to is said again. Operators were told that theirs
    /// had died.
    pub(super) fn propose_again(&mut self) {
        let mut lost = std::mem::take(&mut self.proposed).into_values().any(|p| p.by == By::Signal);
        self.signals_lost += u32::from(lost);
        if self.signals_lost > SIGNALS_LOST_MAX {
            tracing::error!(
                "{} workers have ended with the configuration: it isn't tried again",
                self.signals_lost
            );
            (lost, self.signals_lost) = (false, 0);
        }
        if std::mem::take(&mut self.hung_up) || lost {
            self.configure(By::Signal, None);
        }
    }

    /// A worker has put one in force: its successors begin with it, too.
    pub(super) fn configured(&mut self, number: u64) {
        if let Some(Proposed { config, .. }) = self.answered(number) {
            self.options.config = config;
        }
    }

    /// A worker has put one in force, or refused it, and lives.
    pub(super) fn answered(&mut self, number: u64) -> Option<Proposed> {
        let proposed = self.proposed.remove(&number)?;
        if proposed.by == By::Signal {
            self.signals_lost = 0;
        }
        Some(proposed)
    }
}
