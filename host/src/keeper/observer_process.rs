//! The observer's process: metrics, health and the console over HTTP.
//!
//! The keeper binds the socket, so a dead observer costs its readers no more than a wait: they
//! queue in the kernel until the next one accepts. All else the observer asks for at the admin
//! socket. So nothing depends on this process, and its end has no effect on any session.
//!
//! | event | effect |
//! | --- | --- |
//! | another address is proposed | its socket is bound; a taken address refuses the configuration |
//! | that configuration is in force | the process is started, told of the new socket, or ended |
//! | the process ends | another one is started, at once or after a pause that doubles |

use crate::config::observe::ObserveConfig;
use crate::keeper::bind::bind_tcp;
use crate::keeper::service_manager::forget;
use crate::keeper::spawn::Process;
use crate::keeper::tokens::OBSERVER;
use crate::protocol::link::{Link, Received, pair};
use crate::protocol::observer::{FromObserver, ObserverSettings, ToObserver};
use crate::protocol::status::ObserverStatus;
use crate::sys::proc::own_binary;
use mio::unix::SourceFd;
use mio::{Interest, Registry};
use rustix::process::Pid;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Pause before the first start behind an end.
const RESTART: Duration = Duration::from_millis(200);
/// Longest pause, for an observer that ends again and again.
const RESTART_MAX: Duration = Duration::from_secs(30);
/// Name of the observer among the parts that fail.
const PART: &str = "observer";
/// Life after which an end is the first one in a row.
const LONG_LIFE: Duration = Duration::from_secs(60);

/// Socket that listens, and its address.
pub(super) struct ObserverSocket {
    /// Address as configured: port 0 stays one.
    wanted: SocketAddr,
    /// Address that the kernel gave.
    addr: SocketAddr,
    socket: OwnedFd,
}

/// A process that runs.
struct RunningObserver {
    process: Process,
    link: Link<FromObserver, ToObserver>,
    since: Instant,
    /// Settings and socket that it was not told of yet.
    is_untold: bool,
}

/// The observer, if one is configured.
pub(super) struct ObserverProcess {
    settings: ObserverSettings,
    /// Socket of the configuration in force. `None`: no observer is configured.
    socket: Option<ObserverSocket>,
    running: Option<RunningObserver>,
    /// Time of the next start; `None`: none is due.
    start_at: Option<Instant>,
    /// Pause before the next start.
    pause: Duration,
}

impl ObserverProcess {
    /// Binds the configured address, for a host that starts. The process follows in the first round
    /// of the loop. The error names the key.
    pub(super) fn at_start(runtime: PathBuf, config: &ObserveConfig) -> Result<ObserverProcess, String> {
        let settings = ObserverSettings { runtime, config: ObserveConfig::default() };
        let mut observer =
            ObserverProcess { settings, socket: None, running: None, start_at: None, pause: RESTART };
        let socket = observer.bind(config)?;
        observer.follow(config, socket);
        Ok(observer)
    }

    /// Binds the address of a configuration. `None`: it has none, or the one that is bound already.
    pub(super) fn bind(&self, config: &ObserveConfig) -> Result<Option<ObserverSocket>, String> {
        let Some(wanted) = config.listen.filter(|at| self.socket.as_ref().is_none_or(|s| s.wanted != *at))
        else {
            return Ok(None);
        };
        let (socket, addr) = bind_tcp(wanted, false).map_err(|e| refusal(wanted, &e))?;
        Ok(Some(ObserverSocket { wanted, addr, socket }))
    }

    /// Follows a configuration that is in force, with the socket that was bound for it.
    pub(super) fn follow(&mut self, config: &ObserveConfig, socket: Option<ObserverSocket>) {
        if self.settings.config == *config && socket.is_none() {
            return;
        }
        self.settings.config = config.clone();
        if config.listen.is_none() {
            self.socket = None;
        } else if socket.is_some() {
            self.socket = socket;
        }
        match (&self.socket, &mut self.running) {
            (Some(_), Some(running)) => running.is_untold = true,
            (Some(_), None) => self.start_at = Some(Instant::now()),
            // The next look buries it.
            (None, Some(running)) => running.process.kill(),
            (None, None) => self.start_at = None,
        }
    }

    /// Starts the process.
    fn start(&mut self, registry: &Registry) -> io::Result<()> {
        self.start_at = None;
        // This binary, although the worker may have another one since: fields are only added.
        let binary = own_binary()?;
        let (ours, theirs) = pair()?;
        let mut command = Command::new(format!("/proc/self/fd/{}", binary.as_raw_fd()));
        let child = forget(&mut command)
            .arg0("greenroom")
            .arg("observer")
            .stdin(Stdio::from(theirs))
            .stdout(io::stderr().as_fd().try_clone_to_owned()?)
            // An interrupt from the terminal goes to the keeper alone.
            .process_group(0)
            .spawn()?;
        let (process, link) = (Process::watch(child)?, Link::new(ours));
        let both = Interest::READABLE | Interest::WRITABLE;
        registry.register(&mut SourceFd(&link.fd().as_raw_fd()), OBSERVER, both)?;
        self.running = Some(RunningObserver { process, link, since: Instant::now(), is_untold: true });
        Ok(())
    }

    /// Does what is due: starts the process, and tells it what it serves. Runs in each round of the
    /// keeper's loop.
    pub(super) fn go_on(&mut self, registry: &Registry) {
        if self.start_at.is_some_and(|at| at <= Instant::now())
            && let Err(e) = self.start(registry)
        {
            tracing::error!("the observer can't be started: {e}");
            self.start_later();
        }
        let (Some(running), Some(socket)) = (&mut self.running, &self.socket) else { return };
        if running.is_untold {
            let serve = ToObserver::Serve(self.settings.clone());
            // What cannot be sent shows where the process is heard.
            let sent = running.link.send_with(&serve, &[socket.socket.as_fd()]);
            running.is_untold = !matches!(sent, Ok(true));
        }
    }

    /// Hears all that the process says: why it fails, or that it works. Buries one that has ended.
    pub(super) fn hear(&mut self, registry: &Registry) -> Vec<(String, Option<String>)> {
        let mut news = Vec::new();
        while let Some(running) = &mut self.running {
            match running.link.receive() {
                Ok(Received::Message(FromObserver::Failing(why), _)) => news.push((PART.into(), why)),
                Ok(Received::Unknown(_)) => {}
                Ok(Received::Nothing) => break,
                Ok(Received::Closed) | Err(_) => {
                    self.ended(registry);
                    // The next one reports anew.
                    news.push((PART.into(), None));
                }
            }
        }
        news
    }

    /// Buries a process that has ended, or that says what cannot be understood.
    fn ended(&mut self, registry: &Registry) {
        let Some(mut running) = self.running.take() else { return };
        let _ = registry.deregister(&mut SourceFd(&running.link.fd().as_raw_fd()));
        running.process.end();
        if self.socket.is_none() {
            return;
        }
        if running.since.elapsed() >= LONG_LIFE {
            self.pause = RESTART;
        }
        tracing::error!("the observer has ended; another one is started in {:?}", self.pause);
        self.start_later();
    }

    fn start_later(&mut self) {
        self.start_at = Some(Instant::now() + self.pause);
        self.pause = (self.pause * 2).min(RESTART_MAX);
    }

    /// Time of the next start.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.start_at
    }

    /// Process id.
    pub(super) fn pid(&self) -> Option<Pid> {
        self.running.as_ref().map(|r| r.process.pid())
    }

    /// Address of HTTP; `None`: no observer is configured.
    pub(super) fn addr(&self) -> Option<SocketAddr> {
        self.socket.as_ref().map(|s| s.addr)
    }

    /// The observer in a status.
    pub(super) fn status(&self) -> Option<ObserverStatus> {
        let addr = self.addr()?;
        Some(ObserverStatus {
            listen: addr.to_string(),
            pid: self.pid().map_or(0, |pid| pid.as_raw_nonzero().get().unsigned_abs()),
            console: self.settings.config.console,
            token_file: self.settings.token_file(),
        })
    }
}

/// Reason why an address cannot be bound, with what an operator can do.
fn refusal(wanted: SocketAddr, e: &io::Error) -> String {
    let port = wanted.port();
    let way_out = match e.kind() {
        io::ErrorKind::AddrInUse => format!(
            "; another program, perhaps another host, listens there: give `listen` another port, or stop it \
             (`ss -ltnp sport = :{port}` names it)"
        ),
        io::ErrorKind::AddrNotAvailable => {
            "; this machine has no such address: `ip address` lists those it has".into()
        }
        io::ErrorKind::PermissionDenied => "; ports below 1024 are root's: give `listen` a higher one".into(),
        _ => String::new(),
    };
    format!("observe.listen {wanted}: {e}{way_out}")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An address that is taken, or gone, changes nothing until the configuration is in force.
    #[test]
    fn an_address_is_bound_before_it_is_followed() {
        let config =
            |listen: &str| ObserveConfig { listen: Some(listen.parse().unwrap()), ..Default::default() };
        let mut observer = ObserverProcess::at_start("/run".into(), &config("127.0.0.1:0")).unwrap();
        let first = observer.addr().unwrap();
        assert!(observer.deadline().is_some() && observer.pid().is_none());
        assert!(observer.bind(&config("127.0.0.1:0")).unwrap().is_none(), "it is bound already");
        let taken = config(&first.to_string());
        let why = observer.bind(&taken).err().unwrap();
        assert!(why.contains(&format!("observe.listen {first}")), "{why}");
        assert!(why.contains("give `listen` another port") && why.contains("ss -ltnp"), "{why}");
        let other = config("127.0.0.2:0");
        let socket = observer.bind(&other).unwrap();
        assert!(socket.is_some() && observer.addr() == Some(first));
        observer.follow(&other, socket);
        assert_eq!(observer.addr().unwrap().ip().to_string(), "127.0.0.2");
        observer.follow(&ObserveConfig::default(), None);
        assert_eq!((observer.addr(), observer.deadline(), observer.status()), (None, None, None));
    }
}
