//! Handshaker: the process that does handshakes of TLS. It holds the keys of certificates, and runs
//! no handler.
//!
//! The keeper gives it a descriptor of each connection to an endpoint over TLS. When the handshake
//! is done, its secrets go to the worker, and the keeper hands the connection over. From then on
//! this process has nothing to do with it.
//!
//! | part | owns |
//! | --- | --- |
//! | `certificates` | certificates and keys of services |
//! | `roots` | roots, for connections to servers |
//! | `handshake` | one handshake |
//! | `handed` | secrets that no worker has committed yet |
//!
//! If this process ends, handshakes under way are lost, and connections whose secrets no worker
//! has. Sessions go on. The keeper starts another one.
//!
//! *Invariant*: secrets are sent before the keeper is told, so they are with the worker that hears
//! of the connection, unless that is a successor: it gets them anew.

mod certificates;
mod handed;
mod handshake;
mod roots;

use crate::protocol::handshaker::{FromHandshaker, ToHandshaker};
use crate::protocol::keeper::HandshakeWanted;
use crate::protocol::link::{Link, Received};
use certificates::{Certificates, FileNews};
use handed::Handed;
use handshake::{Handshake, Side, Step};
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

/// Socket to the keeper.
const KEEPER: Token = Token(0);
/// Socket to the worker.
const WORKER: Token = Token(1);
/// Token of handshake 0; those of all others follow.
const HANDSHAKES: usize = 16;
/// Time between two looks at the files.
const LOOK: Duration = Duration::from_secs(2);

/// The process.
struct Handshaker {
    poll: Poll,
    keeper: Link<ToHandshaker, FromHandshaker>,
    certificates: Certificates,
    /// Handshakes under way, the oldest first.
    under_way: BTreeMap<u64, Handshake>,
    handed: Handed,
    /// Limit `handshake_ms`.
    patience: Duration,
    /// Limit `handshakes_max`.
    most: usize,
    /// Time of the next look at the files.
    look_at: Instant,
}

/// Serves until the keeper at the socket's other end is gone. An error says why the process ends
/// before.
pub fn serve(socket: OwnedFd) -> Result<(), String> {
    let failed = |e: io::Error| format!("the handshaker: {e}");
    let poll = Poll::new().map_err(failed)?;
    let fd = socket.as_raw_fd();
    let both = Interest::READABLE | Interest::WRITABLE;
    poll.registry().register(&mut SourceFd(&fd), KEEPER, both).map_err(failed)?;
    let handshaker = Handshaker {
        poll,
        keeper: Link::new(socket),
        certificates: Certificates::default(),
        under_way: BTreeMap::new(),
        handed: Handed::default(),
        patience: Duration::from_secs(10),
        most: usize::MAX,
        look_at: Instant::now() + LOOK,
    };
    handshaker.run().map_err(failed)
}

impl Handshaker {
    fn run(mut self) -> io::Result<()> {
        let mut events = Events::with_capacity(256);
        loop {
            let late = self.under_way.values().map(|h| h.until).min();
            let at = late.map_or(self.look_at, |at| at.min(self.look_at));
            match self.poll.poll(&mut events, Some(at.saturating_duration_since(Instant::now()))) {
                Ok(()) => {}
                Err(e) if e.kind() == ErrorKind::Interrupted => continue,
                Err(e) => return Err(e),
            }
            let ready: Vec<_> = events.iter().map(|event| event.token()).collect();
            for token in ready {
                match token {
                    KEEPER => {}
                    WORKER => self.handed.hear(self.poll.registry()),
                    Token(n) => self.step((n - HANDSHAKES) as u64),
                }
            }
            self.keeper.flush();
            if !self.hear()? {
                return Ok(());
            }
            self.look_at_the_clock();
        }
    }

    /// Hears all that the keeper says. False: the keeper is gone.
    fn hear(&mut self) -> io::Result<bool> {
        loop {
            match self.keeper.receive()? {
                Received::Message(message, fds) => self.heard(message, fds.into_iter().next()),
                Received::Unknown(_) => {}
                Received::Nothing => return Ok(true),
                Received::Closed => return Ok(false),
            }
        }
    }

    /// Handles one message. Without a descriptor to spare it is refused.
    fn heard(&mut self, message: ToHandshaker, fd: Option<OwnedFd>) {
        match (message, fd) {
            (ToHandshaker::Configure(settings), _) => {
                (self.patience, self.most) =
                    (Duration::from_millis(settings.handshake_ms), settings.handshakes_max);
                let failing = self.certificates.configure(&settings);
                let all = failing
                    .iter()
                    .map(|(name, why)| format!("service {name}: {}", why.as_deref().unwrap_or_default()));
                self.keeper.send(&FromHandshaker::Configured(all.collect()));
                // A process that follows a dead one has none that it could go on with.
                self.say_failing(failing);
            }
            (ToHandshaker::Begin(number, wanted), Some(socket)) => self.begin(number, wanted, socket),
            (ToHandshaker::Begin(number, _), None) => self.fail(number, "no descriptor to spare", false),
            (ToHandshaker::Worker, Some(socket)) => self.handed.give_to(self.poll.registry(), socket, WORKER),
            // Without a descriptor to spare. The worker sees the end of its socket, and asks for no
            // more; another one is given to the next worker.
            (ToHandshaker::Worker, None) => {}
            (ToHandshaker::Forget(numbers), _) => {
                let left = numbers.iter().filter_map(|number| self.under_way.remove(number));
                left.for_each(|handshake| handshake.leave(self.poll.registry()));
                self.handed.forget(&numbers);
            }
        }
    }

    /// Begins a handshake. If there are too many, the oldest one is given up: its peer had the
    /// longest time. Those that somebody waits for come last.
    fn begin(&mut self, number: u64, wanted: HandshakeWanted, socket: OwnedFd) {
        let HandshakeWanted { service, server_name, input, is_awaited } = wanted;
        let side = match server_name {
            None => self.certificates.of(&service).map(Side::Server),
            Some(name) => self.certificates.client_of(&service).map(|config| Side::Client(config, name)),
        };
        let side = match side {
            Ok(side) => side,
            Err(why) => return self.fail(number, &why, false),
        };
        let unawaited = || self.under_way.iter().find(|(_, h)| !h.is_awaited);
        let oldest = || unawaited().or(self.under_way.first_key_value()).map(|(number, _)| *number);
        if self.under_way.len() >= self.most
            && let Some(oldest) = oldest()
            && let Some(handshake) = self.under_way.remove(&oldest)
        {
            handshake.leave(self.poll.registry());
            self.keeper.send(&FromHandshaker::GivenUp(oldest));
        }
        let (token, until) = (Token(HANDSHAKES + number as usize), Instant::now() + self.patience);
        match Handshake::begin((self.poll.registry(), token), socket, side, (input, is_awaited), until) {
            Ok(handshake) => {
                self.under_way.insert(number, handshake);
                self.step(number);
            }
            Err(why) => self.fail(number, &why, false),
        }
    }

    /// Goes on with a handshake, if it is under way.
    fn step(&mut self, number: u64) {
        let Some(handshake) = self.under_way.get_mut(&number) else { return };
        let done = match handshake.step() {
            Step::Waits => return,
            Step::Done => self.under_way.remove(&number).map(|h| h.finish(self.poll.registry())),
            Step::Failed(why) => {
                let left = self.under_way.remove(&number);
                left.into_iter().for_each(|h| h.leave(self.poll.registry()));
                Some(Err(why))
            }
        };
        match done {
            Some(Ok(begin)) => {
                self.handed.hand(number, &begin);
                self.keeper.send(&FromHandshaker::Done(number));
            }
            Some(Err(why)) => self.fail(number, &why, false),
            None => {}
        }
    }

    /// Tells the keeper that a handshake has failed.
    fn fail(&mut self, number: u64, why: &str, is_late: bool) {
        self.keeper.send(&FromHandshaker::Failed(number, why.to_owned(), is_late));
    }

    /// Ends handshakes that took too long, and looks at the files.
    fn look_at_the_clock(&mut self) {
        let now = Instant::now();
        let late: Vec<_> = self.under_way.iter().filter(|(_, h)| h.until <= now).map(|(n, _)| *n).collect();
        for number in late {
            if let Some(handshake) = self.under_way.remove(&number) {
                handshake.leave(self.poll.registry());
                self.fail(number, "it took too long (limit handshake_ms)", true);
            }
        }
        if now >= self.look_at {
            self.look_at = now + LOOK;
            let news = self.certificates.look();
            self.say_failing(news);
        }
    }

    /// Tells the keeper which files cannot be used, or can again, and what follows from that.
    fn say_failing(&mut self, news: Vec<FileNews>) {
        for (service, why) in news {
            let follows = match self.certificates.serve_on(&service) {
                true => "the one before serves on",
                false => "no handshake of the service succeeds until they can be used",
            };
            let why = why.map(|why| format!("{why}; {follows}"));
            self.keeper.send(&FromHandshaker::Failing(format!("the certificate of {service}"), why));
        }
    }
}
