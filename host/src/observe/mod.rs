//! Observer: the process that serves metrics, health and the console over HTTP.
//!
//! The keeper starts it if the configuration has `[observe]`, and gives it a socket that listens.
//! The observer asks the host at the admin socket, as any command does, and holds nothing a session
//! needs. So it may be slow, or die: the keeper starts another one.
//!
//! | file | what it does |
//! | --- | --- |
//! | `http` | reads a request, and sends an answer |
//! | `routes` | paths, and what answers each |
//! | [`guard`] | checks token, host and origin |
//! | `questions` | asks the host, and keeps the answers for a moment |
//! | `health` | `/healthz` and `/readyz` |
//! | [`metrics`] | text of all figures, in two formats |
//! | `families` | table of all metrics: names, labels, meaning, values |
//! | `samples` | lines of a metric |
//! | `console` | the page for operators |
//!
//! Each connection has one request and a thread, for a bounded time. Beyond `CONNECTIONS_MAX` a
//! connection is refused at once, without a thread.

mod console;
mod families;
pub mod guard;
mod health;
mod http;
pub mod metrics;
mod questions;
mod routes;
mod samples;

use crate::protocol::link::{Link, Received};
use crate::protocol::observer::{FromObserver, ToObserver};
use crate::sys::process_state::give_way;
use routes::Served;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::io::{self, ErrorKind};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// Connections at once. Bounds threads and descriptors.
const CONNECTIONS_MAX: usize = 64;
/// Connections that are accepted before the keeper is heard again.
const ACCEPTS_AT_ONCE: usize = 64;
/// Pause behind a failed accept: descriptors may be free then.
const ACCEPT_REST: Duration = Duration::from_millis(100);
/// Time between two looks at the token.
const LOOK: Duration = Duration::from_secs(2);

/// The process.
struct Observer {
    keeper: Link<ToObserver, FromObserver>,
    /// Socket, and what is served on it. `None`: the keeper has not said yet.
    serving: Option<(TcpListener, Arc<Served>)>,
    connections: Arc<AtomicUsize>,
    /// Reason that the keeper was told last.
    failing: Option<String>,
    /// Time of the next look at the token.
    look_at: Instant,
}

/// Serves until the keeper at the socket's other end is gone. An error says why the process ends
/// before.
pub fn serve(socket: OwnedFd) -> Result<(), String> {
    give_way();
    let observer = Observer {
        keeper: Link::new(socket),
        serving: None,
        connections: Arc::default(),
        failing: None,
        look_at: Instant::now(),
    };
    observer.run().map_err(|e| format!("the observer: {e}"))
}

impl Observer {
    fn run(mut self) -> io::Result<()> {
        loop {
            self.wait()?;
            if !self.hear()? {
                return Ok(());
            }
            self.accept();
            self.look_at_token();
        }
    }

    /// Waits for the keeper, for a connection, or for the next look at the token.
    fn wait(&self) -> io::Result<()> {
        let link = self.keeper.fd();
        let listener = self.serving.as_ref().map(|(listener, _)| listener.as_fd());
        let fds = [Some(link), listener].into_iter().flatten();
        let mut fds: Vec<_> = fds.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)).collect();
        let left = self.look_at.saturating_duration_since(Instant::now());
        let most = Timespec::try_from(left).map_err(io::Error::other)?;
        match poll(&mut fds, Some(&most)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(e) => Err(e.into()),
        }
    }

    /// Hears all that the keeper says. False: the keeper is gone.
    fn hear(&mut self) -> io::Result<bool> {
        loop {
            match self.keeper.receive()? {
                Received::Message(ToObserver::Serve(settings), fds) => {
                    // Without a descriptor to spare it goes on as before.
                    let Some(fd) = fds.into_iter().next() else { continue };
                    let listener = TcpListener::from(fd);
                    listener.set_nonblocking(true)?;
                    self.serving = Some((listener, Arc::new(Served::new(&settings)?)));
                    self.look_at = Instant::now();
                    self.look_at_token();
                }
                Received::Unknown(_) => {}
                Received::Nothing => return Ok(true),
                Received::Closed => return Ok(false),
            }
        }
    }

    /// Accepts connections, and serves each on a thread of its own.
    fn accept(&mut self) {
        let Some((listener, served)) = &self.serving else { return };
        for _ in 0..ACCEPTS_AT_ONCE {
            match listener.accept() {
                Ok((stream, _)) => {
                    let served = served.clone();
                    on_thread(&self.connections, stream, move |stream| served.answer(stream));
                }
                Err(e) if e.kind() == ErrorKind::WouldBlock => return,
                Err(e) if matches!(e.kind(), ErrorKind::Interrupted | ErrorKind::ConnectionAborted) => {}
                Err(_) => return std::thread::sleep(ACCEPT_REST),
            }
        }
    }

    /// Looks at the token from time to time, and tells the keeper what is wrong with it.
    fn look_at_token(&mut self) {
        if Instant::now() < self.look_at {
            return;
        }
        self.look_at = Instant::now() + LOOK;
        let Some((_, served)) = &self.serving else { return };
        let failing = served.guard.look().err();
        if failing != self.failing {
            self.keeper.send(&FromObserver::Failing(failing.clone()));
            self.failing = failing;
        }
    }
}

/// Serves a connection on a thread of its own. If there are too many, or no thread can be started,
/// it is refused.
fn on_thread(
    connections: &Arc<AtomicUsize>,
    stream: TcpStream,
    serve: impl FnOnce(&TcpStream) -> io::Result<()> + Send + 'static,
) {
    if connections.fetch_add(1, Relaxed) >= CONNECTIONS_MAX {
        connections.fetch_sub(1, Relaxed);
        return http::refuse(&stream);
    }
    // Given back also if the thread panics, or cannot be started.
    let place = Place(connections.clone());
    let _ = std::thread::Builder::new().name("request".into()).spawn(move || {
        let _place = place;
        // A peer that is gone needs no answer.
        let _ = stream.set_nonblocking(false).and_then(|()| serve(&stream));
    });
}

/// Place of a connection.
struct Place(Arc<AtomicUsize>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}
