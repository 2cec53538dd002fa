//! Another configuration: the file is read again on a thread, as it may lie anywhere, and the worker is asked to put it in force.

use super::{Event, Keeper, Phase};
use crate::admin::callers::refuse;
use crate::config::Config;
use crate::control::{ToWorker, to_file};
use greenroom_core::reload::By;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;

/// Proposals that a worker hasn't answered: one that was refused is never heard of again.
const PROPOSED_MAX: usize = 8;

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
        let proposed = config.and_then(|config| self.hand_proposal(config, by, stream.as_ref()));
        if let Err(why) = proposed {
            tracing::warn!("configuration refused, nothing has changed: {why}");
            if let Some(stream) = stream {
                refuse(&stream, &format!("nothing has changed: {why}"));
            }
        }
    }

    fn hand_proposal(&mut self, config: Config, by: By, stream: Option<&UnixStream>) -> Result<(), String> {
        let link = self.link.as_mut().filter(|_| matches!(self.phase, Phase::Serving { .. }));
        let link = link.ok_or("no worker serves at the moment; see `greenroom status`")?;
        self.proposals += 1;
        let file = to_file(&config).map_err(|e| e.to_string())?;
        let fds: Vec<_> = [file.as_fd()].into_iter().chain(stream.map(AsFd::as_fd)).collect();
        match link.send_with(&ToWorker::Configure(self.proposals, by), &fds) {
            Ok(true) => {}
            _ => return Err("the worker takes no commands now; see `greenroom status`".into()),
        }
        self.proposed.insert(self.proposals, config);
        if self.proposed.len() > PROPOSED_MAX {
            // The oldest may be under way still, those behind it were refused.
            let newest = self.proposals;
            let late = self.proposed.range(..newest).next_back().map(|(n, _)| *n);
            self.proposed.retain(|n, _| Some(*n) != late);
        }
        Ok(())
    }

    /// A worker has put one in force: its successors begin with it, too.
    pub(super) fn configured(&mut self, number: u64) {
        if let Some(config) = self.proposed.remove(&number) {
            self.options.config = config;
        }
        self.proposed.retain(|n, _| *n > number);
    }
}
