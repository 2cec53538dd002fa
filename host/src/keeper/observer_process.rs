//! The observer's process: metrics, health and the console over HTTP.
//!
//! The keeper binds the socket, so a dead observer costs its readers no more than a wait: they
//! queue in the kernel until the next one accepts. All else the observer asks for at the admin
//! socket. So nothing depends on this process, and its end has no effect on any session.
//!
//! | event | effect |
//! | --- | --- |
//! | another address is proposed | its socket is bound; a taken address refuses the configuration |
//! | a service gives the address up in the same change | the service's socket is lent |
//! | that configuration is in force | the process is started, told of the new socket, or ended |
//! | the process ends | another one is started, at once or after a pause that doubles |
//!
//! A lent socket is a second descriptor of the service's. So the change may be refused without a
//! trace, and no client is refused if it is committed. The worker refuses a change that leaves the
//! address with its service. An address that overlaps the observer's own is bound beside it, as the
//! ports of services are (`listeners.rs`).

use crate::config::observe::ObserveConfig;
use crate::keeper::bind::bind_tcp;
use crate::keeper::service_manager::forget;
use crate::keeper::spawn::Process;
use crate::keeper::tokens::OBSERVER;
use crate::protocol::link::{Link, Received, pair};
use crate::protocol::observer::{FromObserver, ObserverSettings, ToObserver};
use crate::protocol::status::ObserverStatus;
use crate::sys::proc::own_binary;
use greenroom_core::reload::ports::overlap;
use greenroom_state::address::Address;
use mio::unix::SourceFd;
use mio::{Interest, Registry};
use rustix::net::sockopt;
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
        let socket = observer.bind(config, |_| None)?;
        observer.follow(config, socket);
        Ok(observer)
    }

    /// Binds the address of a configuration. `None`: it has none, or the one that is bound already.
    /// `lend`: the socket of a service at an address, if one has it.
    pub(super) fn bind(
        &self,
        config: &ObserveConfig,
        lend: impl FnOnce(SocketAddr) -> Option<Result<OwnedFd, String>>,
    ) -> Result<Option<ObserverSocket>, String> {
        let Some(wanted) = config.listen.filter(|at| self.socket.as_ref().is_none_or(|s| s.wanted != *at))
        else {
            return Ok(None);
        };
        let own = self.socket.as_ref().filter(|s| overlap(&Address::Tcp(s.addr), &Address::Tcp(wanted)));
        let lent = match own.filter(|s| s.addr == wanted) {
            // The kernel chose this port, and now it is named.
            Some(own) => Some(own.socket.try_clone().map_err(|e| refusal(wanted, &e))),
            None => lend(wanted).map(|lent| lent.map_err(|why| format!("observe.listen {wanted}: {why}"))),
        };
        if let Some(socket) = lent {
            return Ok(Some(ObserverSocket { wanted, addr: wanted, socket: socket? }));
        }
        let bound = match own {
            Some(own) => bind_beside(own, wanted),
            None => bind_tcp(wanted, false),
        };
        let (socket, addr) = bound.map_err(|e| refusal(wanted, &e))?;
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

/// Binds an address that overlaps the one of a socket. They share it during the bind alone.
fn bind_beside(own: &ObserverSocket, wanted: SocketAddr) -> io::Result<(OwnedFd, SocketAddr)> {
    sockopt::set_socket_reuseport(&own.socket, true)?;
    let bound = bind_tcp(wanted, true);
    let unshared = sockopt::set_socket_reuseport(&own.socket, false);
    let (socket, addr) = bound?;
    unshared?;
    sockopt::set_socket_reuseport(&socket, false)?;
    Ok((socket, addr))
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
        let bind = |observer: &ObserverProcess, config: &ObserveConfig| observer.bind(config, |_| None);
        assert!(bind(&observer, &config("127.0.0.1:0")).unwrap().is_none(), "it is bound already");
        let busy = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let busy_at = busy.local_addr().unwrap();
        let why = bind(&observer, &config(&busy_at.to_string())).err().unwrap();
        assert!(why.contains(&format!("observe.listen {busy_at}")), "{why}");
        assert!(why.contains("give `listen` another port") && why.contains("ss -ltnp"), "{why}");
        let other = config("127.0.0.2:0");
        let socket = bind(&observer, &other).unwrap();
        assert!(socket.is_some() && observer.addr() == Some(first));
        observer.follow(&other, socket);
        assert_eq!(observer.addr().unwrap().ip().to_string(), "127.0.0.2");
        // The same port at more addresses, or fewer; a refusal leaves the old one alone.
        for ip in ["0.0.0.0", "127.0.0.2", "0.0.0.0"] {
            let port = observer.addr().unwrap().port();
            let wider = config(&format!("{ip}:{port}"));
            drop(bind(&observer, &wider).unwrap());
            let (before, socket) = (observer.addr(), bind(&observer, &wider).unwrap());
            assert_eq!(observer.addr(), before);
            observer.follow(&wider, socket);
            assert_eq!(observer.addr().unwrap().to_string(), format!("{ip}:{port}"));
        }
        // The number that the kernel chose, by name: the socket stays.
        let named = config(&observer.addr().unwrap().to_string());
        observer.socket.as_mut().unwrap().wanted.set_port(0);
        let socket = bind(&observer, &named).unwrap();
        assert!(socket.is_some());
        observer.follow(&named, socket);
        observer.follow(&ObserveConfig::default(), None);
        assert_eq!((observer.addr(), observer.deadline(), observer.status()), (None, None, None));
    }
}
