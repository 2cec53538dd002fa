//! Proposals of configurations, to the worker and back.
//!
//! A proposal is read on a thread, handed to the worker, and answered with `Configured` or
//! `NotConfigured`. The worker decides: a refused configuration changes nothing. Only one that is
//! in force becomes the keeper's own, for later first messages.
//!
//! A proposal of an operator goes with the caller's socket, and its reports go there. If the
//! worker dies first, the operator's call fails. A proposal of a signal, or of the watcher for
//! changed files of settings, has no caller. So the keeper repeats it: the files shall be in
//! force in the end.

use crate::admin::audit;
use crate::config::Config;
use crate::config::tls::TlsSettings;
use crate::keeper::Keeper;
use crate::keeper::callers::WaitingCaller;
use crate::keeper::configure::Proposed;
use crate::keeper::events::Event;
use crate::keeper::handshaker_process;
use crate::keeper::peer_watch::PeerWatch;
use crate::plugin::watch::ConfigFiles;
use crate::protocol::admin::{AdminCommand, TAKES_NO_COMMANDS};
use crate::protocol::keeper::ToWorker;
use crate::protocol::link::to_file;
use greenroom_core::reload::request::Requester;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::Mutex;

/// Lock of the thread that reads a configuration.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// Returns a configuration whose files can be used (certificates, keys, the audit log, the token)
/// and whose groups exist. Certificates in force are looked at by the handshaker itself.
fn with_files(config: Config, in_force: &TlsSettings) -> Result<Config, String> {
    audit::check(config.admin.audit.as_deref())?;
    config.check_socket_groups()?;
    config.observe.check_token_file()?;
    let settings = config.tls_settings();
    if settings.services != in_force.services {
        handshaker_process::check(&settings)?;
    }
    Ok(config)
}

impl Keeper {
    /// Files of the configuration, as the thread that watches is to know them.
    pub fn config_files(&self) -> ConfigFiles {
        self.files.watch_settings(self.options.config.files());
        ConfigFiles { source: self.options.source.clone(), settings: self.files.settings() }
    }

    /// Begins to read the configuration, on a thread of its own. The result comes as
    /// [`Event::Read`]. The watcher has the files of the settings in force read again, and nothing
    /// else: a configuration file under way is none of its business.
    pub(super) fn configure(&mut self, by: Requester, stream: Option<UnixStream>) {
        self.proposals.sighups_reading += u32::from(by == Requester::Signal);
        let (source, mailbox) = (self.options.source.clone(), self.mailbox());
        let of_files = (by == Requester::Watcher).then(|| self.options.config.clone());
        let in_force = self.options.config.tls_settings();
        // A thread that can't be started drops its socket with its closure.
        let to_refuse = stream.as_ref().and_then(|stream| stream.try_clone().ok());
        let read = move || {
            // Held until the result is posted: the file that was read last is proposed last.
            let _turn = ONE_AT_A_TIME.lock();
            let config = match of_files {
                Some(config) => config.with_files_read_again(),
                None => source.read(),
            };
            let config = Box::new(config.and_then(|config| with_files(config, &in_force)));
            mailbox.post(Event::Read { config, by, stream });
        };
        if let Err(e) = std::thread::Builder::new().name("configuration".into()).spawn(read) {
            let why = format!("the configuration can't be read, as no thread can be started: {e}");
            tracing::error!("{why}");
            self.proposals.sighups_reading -= u32::from(by == Requester::Signal);
            if let Some(stream) = to_refuse {
                WaitingCaller { command: AdminCommand::Configure, by, stream }.refuse(&why, self.audit());
            }
        }
    }

    /// Proposes a configuration that was read. If no worker serves, the proposal waits. A file that
    /// cannot be read is refused: the log says so, and the caller, if there is one.
    pub(super) fn propose(
        &mut self,
        config: Result<Config, String>,
        by: Requester,
        stream: Option<UnixStream>,
    ) {
        self.proposals.sighups_reading -= u32::from(by == Requester::Signal);
        // Asked here: a change of this value alone tries no library.
        let allowed = config.and_then(|config| {
            config.reload.confinement.allows(&self.options.confined.missing).map(|()| config)
        });
        match allowed.and_then(|config| self.hand_proposal(config, by, stream.as_ref())) {
            Ok(true) => {}
            Ok(false) => self.configure_later(by, stream),
            Err(why) => {
                tracing::warn!("configuration refused, nothing has changed: {why}");
                self.failing.note("configuration".into(), Some(why.clone()));
                if let Some(stream) = stream {
                    let caller = WaitingCaller { command: AdminCommand::Configure, by, stream };
                    caller.refuse(&format!("nothing has changed: {why}"), self.audit());
                }
            }
        }
    }

    /// Hands a proposal to the worker. False: no worker serves now. The error says why the proposal
    /// is refused: the host stops, or the worker's socket is full.
    fn hand_proposal(
        &mut self,
        config: Config,
        by: Requester,
        stream: Option<&UnixStream>,
    ) -> Result<bool, String> {
        if self.stop.is_requested() {
            return Err("the host is stopping".into());
        }
        if !self.worker.serves() {
            return Ok(false);
        }
        let observer = self.observer.bind(&config.observe, |at| self.acceptor.lend(at))?;
        // A number that is not sent in the end is left out, which does no harm.
        let number = self.proposals.next_number();
        let file = to_file(&config).map_err(|e| e.to_string())?;
        let fds: Vec<_> = [file.as_fd()].into_iter().chain(stream.map(AsFd::as_fd)).collect();
        match self.worker.send_with(&ToWorker::Configure(number, by), &fds) {
            Some(Ok(true)) => {}
            Some(Ok(false)) => {
                return Err(format!("{TAKES_NO_COMMANDS} now; see `greenroom status`"));
            }
            // The worker has just died.
            Some(Err(_)) | None => return Ok(false),
        }
        self.proposals.open.insert(number, Proposed { config, observer, by });
        Ok(true)
    }

    /// Has a proposal wait for a worker. The file is read again then. Signals that wait count as
    /// one; an operator waits with other commands, for at most 5 s.
    fn configure_later(&mut self, by: Requester, stream: Option<UnixStream>) {
        match stream {
            Some(stream) => {
                self.callers
                    .add(WaitingCaller { command: AdminCommand::Configure, by, stream }, self.audit());
            }
            None if by == Requester::Watcher => self.proposals.files_pending = true,
            None => self.proposals.sighup_pending = true,
        }
    }

    /// Repeats a proposal without a caller that the previous worker did not answer. Runs once a
    /// worker serves and has reported the configuration in force: a proposal that was committed
    /// before the death counts as answered. Operators know that theirs failed.
    pub(super) fn propose_again(&mut self) {
        if let Some(by) = self.proposals.take_due_again() {
            self.configure(by, None);
        }
    }

    /// Notes that a proposal is in force: later workers begin with it. A repeated report has no
    /// effect, as each successor repeats the last one.
    pub(super) fn configured(&mut self, number: u64) {
        if let Some(proposed) = self.proposals.answered(number) {
            self.options.config = proposed.config;
            self.configure_log();
            self.options.access.put_in_force(&self.options.config.admin);
            self.files.watch_settings(self.options.config.files());
            self.acceptor.watch_peers(PeerWatch::of(&self.options.config.limits));
            self.acceptor.handshakes.configure(self.options.config.tls_settings());
            self.observer.follow(&self.options.config.observe, proposed.observer);
        }
    }

    /// Notes that a proposal was refused, or changes nothing.
    pub(super) fn not_configured(&mut self, number: u64) {
        self.proposals.answered(number);
    }
}
