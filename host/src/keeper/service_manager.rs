//! Notifications to the service manager that started the host: systemd, by `NOTIFY_SOCKET`.
//!
//! | message | sent |
//! | --- | --- |
//! | `READY=1` | once the host serves for the first time, and when a reload by SIGHUP is over |
//! | `RELOADING=1` | when SIGHUP asks for the configuration to be read again |
//! | `STOPPING=1` | when a stop is requested |
//! | `EXTEND_TIMEOUT_USEC` | with each deadline of a start or a stop, for units with shorter ones |
//! | `STATUS` | when the worker's phase, its process, or the parts that fail change |
//! | `WATCHDOG=1` | twice in the time that the unit's `WatchdogSec=` gives, by the keeper's loop |
//!
//! **The watchdog is the keeper's.** A manager that hears nothing kills the keeper, and with it
//! every session. So a worker that hangs, or that is replaced, is no reason to stay silent: its
//! death costs no session, and the limit `stall_kill_ms` ends it.
//!
//! Messages tell a state, and are derived from it in each round of the loop. A message that finds
//! the manager's queue full is sent again in a later round. The loop never waits for the manager.
//!
//! Workers and handshakers get none of the manager's variables: see [`forget`].

use rustix::io::Errno;
use rustix::net::{AddressFamily, SendFlags, SocketAddrUnix, SocketFlags, SocketType, sendto, socket_with};
use sd_notify::NotifyState;
use std::os::unix::ffi::OsStrExt;
use std::process::Command;
use std::time::{Duration, Instant};

/// Variables of the manager.
const VARIABLES: [&str; 3] = ["NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"];
/// Shortest time between two messages of the watchdog: a unit with less asks too much.
const WATCHDOG_MIN: Duration = Duration::from_millis(1);
/// Time after which a message is sent again that found the manager's queue full.
const AGAIN_AFTER: Duration = Duration::from_secs(1);
/// Time that a start or a stop may take beyond its deadline, for the manager.
const GRACE: Duration = Duration::from_secs(10);

/// Has a child not take the manager's variables for its own: it could speak in the keeper's name.
pub(super) fn forget(command: &mut Command) -> &mut Command {
    VARIABLES.iter().fold(command, |command, name| command.env_remove(name))
}

/// HostStage of the host, as a manager knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum HostStage {
    /// No worker has served yet.
    Starting,
    /// The host serves, with a worker or between two.
    Ready,
    /// The configuration is read for a SIGHUP: the number of those so far.
    Reloading(u64),
    /// A stop was requested.
    Stopping,
}

/// News for the manager.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct News {
    pub(super) stage: HostStage,
    /// Time until which a start or a stop may take. `None`: neither is under way.
    pub(super) until: Option<Instant>,
    /// Phase, process and number of parts that fail: the text is made anew if one of them changes.
    pub(super) text: (&'static str, Option<u32>, usize),
}

/// The service manager. Without one, nothing is sent.
#[derive(Default)]
pub(super) struct ServiceManager {
    /// Address of its socket. `None`: there is no manager.
    address: Option<SocketAddrUnix>,
    /// Time between two messages of the watchdog. `None`: the manager does not watch.
    watchdog_every: Option<Duration>,
    /// Time of the next message of the watchdog.
    watchdog_at: Option<Instant>,
    /// The last news that the manager took.
    told: Option<News>,
    /// Time at which a message is tried again.
    again_at: Option<Instant>,
}

impl ServiceManager {
    /// Finds the manager by the environment. An address that is none is logged.
    pub(super) fn find() -> ServiceManager {
        let Some(path) = std::env::var_os(VARIABLES[0]).filter(|path| !path.is_empty()) else {
            return ServiceManager::default();
        };
        let address = match path.as_bytes() {
            [b'@', name @ ..] => SocketAddrUnix::new_abstract_name(name),
            path => SocketAddrUnix::new(path),
        };
        if let Err(e) = &address {
            tracing::warn!("the service manager is told nothing: NOTIFY_SOCKET is {path:?}: {e}");
        }
        // Half of the time: a message may come late.
        let every = sd_notify::watchdog_enabled().map(|time| (time / 2).max(WATCHDOG_MIN));
        let at = every.map(|_| Instant::now());
        ServiceManager { address: address.ok(), watchdog_every: every, watchdog_at: at, ..Self::default() }
    }

    /// Time when the loop must send something.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.address.as_ref()?;
        [self.watchdog_at, self.again_at].into_iter().flatten().min()
    }

    /// Whether there is a manager.
    pub(super) fn listens(&self) -> bool {
        self.address.is_some()
    }

    /// Sends a message of the watchdog, if it is due.
    pub(super) fn feed_watchdog(&mut self, now: Instant) {
        let Some(every) = self.watchdog_every.filter(|_| self.watchdog_at.is_some_and(|at| at <= now)) else {
            return;
        };
        self.watchdog_at = Some(now + every);
        self.send(&[NotifyState::Watchdog], now);
    }

    /// Sends news, unless the manager knows them. `text` makes the words.
    pub(super) fn tell(&mut self, news: News, now: Instant, text: impl FnOnce() -> String) {
        if self.told.as_ref() == Some(&news) || self.again_at.is_some_and(|at| at > now) {
            return;
        }
        let is_new = |differs: fn(&News, &News) -> bool| self.told.as_ref().is_none_or(|t| differs(t, &news));
        let mut message = Vec::new();
        if is_new(|told, news| told.stage != news.stage) {
            match news.stage {
                HostStage::Starting => {}
                HostStage::Ready => message.push(NotifyState::Ready),
                // From version 253 on, systemd wants the time with it.
                HostStage::Reloading(_) => {
                    message.push(NotifyState::Reloading);
                    message.extend(NotifyState::monotonic_usec_now());
                }
                HostStage::Stopping => message.push(NotifyState::Stopping),
            }
        }
        if let Some(until) = news.until.filter(|_| is_new(|told, news| told.until != news.until)) {
            let time = until.saturating_duration_since(now) + GRACE;
            message.push(NotifyState::ExtendTimeoutUsec(time.as_micros().try_into().unwrap_or(u32::MAX)));
        }
        let text = text();
        message.push(NotifyState::Status(&text));
        if self.send(&message, now) {
            self.told = Some(news);
        }
    }

    /// Sends a message. False: the manager's queue is full, and the message is due again. A manager
    /// that is gone is left alone.
    fn send(&mut self, message: &[NotifyState<'_>], now: Instant) -> bool {
        let Some(address) = &self.address else { return true };
        let text: String = message.iter().map(|state| format!("{state}\n")).collect();
        // Not by the crate's own function: that one waits while the manager's queue is full.
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let sent = socket_with(AddressFamily::UNIX, SocketType::DGRAM, flags, None)
            .and_then(|socket| sendto(&socket, text.as_bytes(), SendFlags::NOSIGNAL, address));
        self.again_at = match sent {
            Err(Errno::AGAIN | Errno::NOBUFS | Errno::MFILE | Errno::NFILE) => Some(now + AGAIN_AFTER),
            Err(e) => {
                tracing::debug!("the service manager takes no messages: {e}");
                None
            }
            Ok(_) => None,
        };
        self.again_at.is_none()
    }
}
