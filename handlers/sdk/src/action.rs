//! Actions: what happens to a session, or to a service itself.

use crate::telnet::Verb;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, Ordering};

/// Action: what happened to the session. More kinds may come, so a `match` needs an arm for the
/// rest.
///
/// ```
/// use greenroom_handler::{Action, Closed, JobEnd};
///
/// /// Lines of a log.
/// fn told(action: Action) -> String {
///     match action {
///         Action::Opened => "somebody came".into(),
///         Action::Message(bytes) => format!("{} bytes", bytes.len()),
///         Action::Closed(Closed::Peer) => "gone".into(),
///         Action::Closed(why) => format!("ended by {why:?}"),
///         Action::Timer(name) => format!("{name} is due"),
///         Action::Job { name, end: JobEnd::Done(_), .. } => format!("job {name} is done"),
///         Action::Connect { result: Err(why), .. } => format!("no connection: {why}"),
///         other => format!("{other:?}"),
///     }
/// }
///
/// assert_eq!(told(Action::Closed(Closed::Broken)), "ended by Broken");
/// assert_eq!(told(Action::Woken), "Woken");
/// ```
// The tag has the width of what follows: moves then copy whole words, from which the processor
// forwards loads. With a tag of a byte, they copy bytes at odd places: 3 % of an echo's time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
#[repr(u64)]
pub enum Action<'a> {
    /// Peer connected: the first turn of a session.
    Opened,
    /// Message, without its framing. Bytes, which need not be UTF-8.
    Message(&'a [u8]),
    /// End of the session: its last turn.
    Closed(Closed),
    /// Timer of this name fired.
    Timer(&'a str),
    /// Note from another session, or from this one: [`crate::Turn::note`].
    Note {
        /// Session that sent it; `None`: the service itself.
        from: Option<u64>,
        /// Bytes of the note.
        bytes: &'a [u8],
    },
    /// Message on a topic that this session is on: [`crate::Turn::publish`].
    Published {
        /// Name of the topic.
        topic: &'a [u8],
        /// Session that published it; `None`: the service itself.
        from: Option<u64>,
        /// Bytes of the message.
        bytes: &'a [u8],
    },
    /// Dialed by a session of this host ([`crate::Turn::connect`]); comes right behind
    /// [`Action::Opened`].
    Dialed {
        /// Session that asked for the connection; `None`: the service itself.
        by: Option<u64>,
        /// Bytes that came with its request.
        context: &'a [u8],
    },
    /// Outcome of a connection that this session asked for.
    Connect {
        /// Number of the connection, as [`crate::Turn::connect`] returned it.
        number: u64,
        /// Number of its session, or the reason why it can't be made.
        result: Result<u64, &'a str>,
    },
    /// End of a job that this session started.
    Job {
        /// Number of the job, as [`crate::Turn::start_job`] returned it.
        number: u64,
        /// Name of the job.
        name: &'a str,
        /// Result, or how it failed.
        end: JobEnd<'a>,
    },
    /// Peer of a telnet session said something about an option: the option went on or off, a
    /// request was answered ([`crate::Turn::telnet_do`]), or an offer was refused because
    /// no turn has asked for it.
    Negotiated {
        /// Number of the option; [`crate::telnet`] has the usual ones.
        option: u8,
        /// Word of the peer. `Will` and `Wont` are about its own side, `Do` and `Dont` about the
        /// host's.
        verb: Verb,
        /// Whether the option is on now, on that side.
        on: bool,
    },
    /// Subnegotiation from the peer of a telnet session, of an option that is on. At most 1,024
    /// bytes as they come; a longer one closes the session.
    Subnegotiation {
        /// Number of the option.
        option: u8,
        /// Bytes behind the option.
        bytes: &'a [u8],
    },
    /// Datagram came to the service itself ([`crate::Handler::handle_service`]). What the
    /// turn sends goes back to where it came from, a datagram for each send, at most once.
    Datagram {
        /// Address that it came from. Nothing proves that its sender has that address.
        from: SocketAddr,
        /// Bytes of the datagram.
        bytes: &'a [u8],
    },
    /// Stream of this session is one of TLS from here on ([`crate::Turn::start_tls`]).
    TlsStarted,
    /// Session was woken by a turn of this one or another session ([`crate::Turn::wake`]).
    Woken,
    /// Peer was silent as long as [`crate::Turn::idle_after`] says. Nothing is closed.
    Idle,
    /// So many notes and published messages to this session were dropped, behind the actions before
    /// this one: `actions_pending_max` of them waited. What was said is to be asked for anew.
    Missed {
        /// Number of them.
        count: u64,
    },
    /// First turn of the service itself under this build
    /// ([`crate::Handler::handle_service`]): the place to set the first timer of a service,
    /// and to tidy its tables. It runs once, behind the commit of the build; not when a
    /// process takes over.
    Started(Started),
    /// Entry of a table of this service is over, and gone ([`crate::Table::put_until`]). Comes to
    /// the service itself ([`crate::Handler::handle_service`]), for tables that ask for it
    /// ([`crate::Table::hears_of_expiry`]), once; not if a turn wrote the entry again, or deleted
    /// it, before.
    Expired {
        /// Name of the table.
        table: &'a str,
        /// Key of the entry.
        key: &'a [u8],
    },
}

/// Reason of [`Action::Started`].
///
/// ```
/// use greenroom_handler::{Action, Result, Started, Turn};
///
/// /// Timers end with the host, and outlive a change of the build.
/// fn handle_service(turn: &mut Turn, action: Action) -> Result {
///     if let Action::Started(Started::Host) = action {
///         turn.set_timer("sweep", std::time::Duration::from_secs(60));
///     }
///     Ok(())
/// }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Started {
    /// The host has started, and saved tables are read. No build of the service served in it
    /// before.
    Host,
    /// Another build has come into service, by a reload or a rollback.
    Generation,
}

/// End of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JobEnd<'a> {
    /// Result that it returned.
    Done(&'a [u8]),
    /// Failed or panicked, for this reason.
    Failed(&'a str),
    /// Lost: the process that ran it died, and it isn't run again, for this reason.
    Lost(&'a str),
}

/// Job for [`crate::Handler::job`].
///
/// ```
/// use greenroom_handler::{Fault, Job, Result};
///
/// fn job(job: &Job) -> Result<Vec<u8>> {
///     let mut lines = 0;
///     for _ in job.input.split(|byte| *byte == b'\n') {
///         if job.is_cancelled() {
///             return Err(Fault::new("nobody waits any more"));
///         }
///         lines += 1;
///     }
///     Ok(format!("{}: {lines}", job.name).into_bytes())
/// }
/// ```
pub struct Job<'a> {
    /// Name of the job.
    pub name: &'a str,
    /// Input of the job.
    pub input: &'a [u8],
    pub(crate) cancelled: &'a AtomicU32,
}

impl Job<'_> {
    /// Whether nobody wants the result any more: a long job should look at this now and then, and
    /// return.
    pub fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed) != 0
    }
}

/// Reason why a session ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Closed {
    /// The peer ended it; output that is sent now may still reach the peer.
    Peer,
    /// The connection broke.
    Broken,
    /// The handler closed it.
    Handler,
    /// A limit of the host closed it.
    Limit,
    /// The host is stopping. All sessions have left their topics, so a broadcast reaches nobody.
    Stopping,
    /// An operator closed it.
    Operator,
}
