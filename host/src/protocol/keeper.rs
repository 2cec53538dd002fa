//! Messages between keeper and worker, each one packet of JSON that may carry descriptors.
//!
//! Keeper and worker may be of different versions, either of them the older one: an upgrade
//! replaces the worker only. So fields are only added, with defaults. A message that a version does
//! not know is left out by it ([`crate::protocol::link::Received::Unknown`]). If a variant or field
//! is renamed, its name on the wire stays.
//!
//! | time | keeper to worker | worker to keeper |
//! | --- | --- | --- |
//! | start | `Hello`, `Connections` with `Endpoints` and `Dialed`, `Start` | `Ack`, `Ready` |
//! | new connections | the same, without `Start` | `Ack`, later `Drop` |
//! | peers over UDP | `Numbers` | `Number` |
//! | TLS | `Shaken`, `Handshaker` | |
//! | TLS on a stream in use | `Shaken` or `TlsFailed` | `StartTls` |
//! | outbound | `Dialed` or `ConnectFailed` | `Connect` or `ConnectTls`, maybe `GiveUp` |
//! | reload | `Opened` | `Open`, then `Ports` or `Discard` |
//! | start, and each commit of a build; a refused file | | `Builds`, `Runs`; `Refused` |
//! | configuration | `Configure` | `Configured` or `NotConfigured` |
//! | a part fails, or goes on | | `Failing` |
//! | upgrade | `Pin`, `Unpin`, `HandOver` | `Pinned`, `Unpinned` |
//! | end | `Stop` or `HandOver` | `Saving`, `CantStart`, `Recycle` |
//!
//! Any message may be lost with the worker. No session depends on a lost one: each process reports
//! ports and configuration, and repeats requests that its records hold.

use crate::config::socket_file::SocketFile;
use crate::config::{Config, record};
use crate::logs::format::LogTo;
use crate::logs::levels::Levels;
use crate::protocol::admin::AdminCommand;
use crate::protocol::found::Found;
use crate::protocol::link::from_file;
use greenroom_core::effects::jobs::JobDeath;
use greenroom_core::reload::ports::Port;
use greenroom_core::reload::request::Requester;
use greenroom_core::session::quarantine::BlockedAction;
use greenroom_state::address::Address;
use greenroom_state::endpoint::Endpoint;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

/// Messages from the keeper to a worker.
#[derive(Debug, Serialize, Deserialize)]
pub enum ToWorker {
    /// The first message. With the memory files of records, input and counters, and a file that
    /// holds a [`Hello`], in this order.
    Hello,
    /// Connections: key and number of each, with as many descriptors. Answered by
    /// [`ToKeeper::Ack`]. A UDP port counts as one connection, which lasts as long as the port.
    Connections(Vec<(u32, u64)>),
    /// Endpoints of the next [`ToWorker::Connections`], in the order of its connections, in runs:
    /// the endpoint, and the number of connections in a row. Replaces the runs before. Without it,
    /// or beyond it, a connection has none.
    Endpoints(Vec<(EndpointId, u32)>),
    /// Outbound connections among those that come next: number of the connection, and number of its
    /// [`ToKeeper::Connect`].
    Dialed(Vec<(u64, u64)>),
    /// Connections over TLS among those that come next, or whose [`ToKeeper::StartTls`] has brought
    /// a handshake: number of the connection, and number of its handshake. A worker before this
    /// message knows no such endpoint.
    Shaken(Vec<(u64, u64)>),
    /// Answer to [`ToKeeper::StartTls`]: the handshake of this connection failed, for this reason.
    TlsFailed(u64, String),
    /// A handshaker runs. With a socket to it, on which secrets come. Handshakes below this number
    /// were those of others, whose secrets are lost unless they have come.
    Handshaker(u64),
    /// Answer to [`ToKeeper::Connect`]: the connection of this number failed, for this reason.
    ConnectFailed(u64, String),
    /// All connections were handed over: serve. Sent once, and answered by [`ToKeeper::Ready`] or
    /// [`ToKeeper::CantStart`].
    Start,
    /// Answer to [`ToKeeper::Open`]: the addresses in the same order, or the reason why none is
    /// open.
    Opened(Result<Vec<Address>, String>),
    /// A watched path changed.
    Changed(PathBuf),
    /// Put another configuration in force: its number, and its requester. With a memory file that
    /// holds it, and the caller's socket, if there is a caller. Answered by
    /// [`ToKeeper::Configured`] or [`ToKeeper::NotConfigured`].
    Configure(u64, Requester),
    /// An operator's command. With the socket to answer on.
    Caller(AdminCommand, Requester),
    /// Flush and end, on this signal. A second time: end at once.
    Stop(i32),
    /// Commit and end: a successor takes over. Reloads, jobs and answers under way are finished
    /// first, for at most 5 s.
    HandOver,
    /// Keep the committed records readable, and report their epoch. Answered by
    /// [`ToKeeper::Pinned`]. The pin ends with [`ToWorker::Unpin`], or with the worker.
    Pin,
    /// Release the pinned epoch. Answered by [`ToKeeper::Unpinned`].
    Unpin(u64),
    /// Answer to [`ToKeeper::Number`]: the first of so many numbers, which no connection has.
    Numbers(u64, u32),
    /// The file of the log was rotated: open its path again. Workers before this message log it and
    /// leave it out.
    ReopenLog,
    /// Log at these levels from now on. Workers before this message log it and leave it out.
    LogLevels(Levels),
}

/// Messages from a worker to the keeper.
#[derive(Debug, Serialize, Deserialize)]
pub enum ToKeeper {
    /// The worker serves. Only these ports stay open. Connection numbers continue above this one.
    Ready(Vec<HeldPort>, u64),
    /// The worker cannot serve, for this reason, and ends.
    CantStart(String),
    /// A [`ToWorker::Connections`] has arrived.
    #[serde(rename = "Took")]
    Ack,
    /// Connections that are over: key and number of each. Repeatable.
    Drop(Vec<(u32, u64)>),
    /// Make a connection: number and address. The answer repeats the number. A repeated number is
    /// dialed once.
    Connect(u64, Address),
    /// Make a connection over TLS, like [`ToKeeper::Connect`]. Sent to keepers that
    /// [`Hello::starts_tls`].
    ConnectTls(u64, Address, ClientTls),
    /// Have the handshaker do the handshake of this connection, which has a session: its key and
    /// number. Answered by [`ToWorker::Shaken`] or [`ToWorker::TlsFailed`]. A handshake that is
    /// under way or done is not begun again. Sent to keepers that [`Hello::starts_tls`].
    StartTls((u32, u64), HandshakeWanted),
    /// Answer to [`ToWorker::Handshaker`] without a descriptor to spare: give another one in a
    /// while. Keepers before this message leave it out.
    LacksHandshaker,
    /// Give up the connection of this number, if it is under way: nobody waits for it. Answered by
    /// [`ToWorker::ConnectFailed`], unless the outcome was told before. Sent to keepers that
    /// [`Hello::gives_up`].
    GiveUp(u64),
    /// Give the worker so many numbers for sessions without a connection: peers over UDP. Answered
    /// by [`ToWorker::Numbers`]. Keepers before this message open no UDP ports.
    Number(u32),
    /// Bind and listen on these ports, all or none, without accepting yet. Answered by
    /// [`ToWorker::Opened`], in the order of the requests.
    Open(Vec<Port>),
    /// Kinds of the endpoints of the next [`ToKeeper::Open`], in its order. Tells several ports of
    /// one service that the kernel chooses from each other. Keepers before this message leave it
    /// out, and give such endpoints one port.
    Kinds(Vec<Box<str>>),
    /// Give the files of these Unix sockets their mode and group: those that are open now, and
    /// those that a later [`ToKeeper::Open`] makes.
    SocketFiles(Vec<(Address, SocketFile)>),
    /// Close these ports again: no reload uses them.
    Discard(Vec<Address>),
    /// A reload is committed: accept from these ports, and close all but those opened since.
    Ports(Vec<HeldPort>),
    /// The record of the library at this watched path names exactly these private copies. The
    /// keeper holds them, so that they can be written anew if they are deleted.
    Builds(PathBuf, Vec<PathBuf>),
    /// The build at this watched path: name of the library, and hash. Follows each commit.
    Runs(PathBuf, String, String),
    /// The file at this watched path was refused: hash (empty: it can't be read), and reason.
    Refused(PathBuf, String, String),
    /// These loads are under way, and no others. Keepers before this message leave it out.
    Loads(Vec<Load>),
    /// The configuration of this number is in force.
    Configured(u64),
    /// The configuration of this number was refused, or changes nothing.
    NotConfigured(u64),
    /// The worker ends as it was told to, and could not save the tables, for this reason. Keepers
    /// before this message log it and leave it out.
    NotSaved(String),
    /// The save at the end has begun, or has brought a part to the disk: the worker is waited for.
    Saving,
    /// A part of the host fails, for this reason, or does no longer. `status` shows it.
    Failing(String, Option<String>),
    /// Answer to [`ToWorker::Pin`]: the epoch.
    Pinned(u64),
    /// Answer to [`ToWorker::Unpin`]: whether the epoch stayed pinned all the time. If it did not,
    /// a reader of the epoch may have read a mix.
    Unpinned(bool),
    /// The worker has loaded many builds: a fresh process should go on.
    Recycle(String),
    /// The reading ends of the pipes that handlers' output is in, the oldest output first. Older
    /// workers send one. Sent once, if the keeper [`Hello::hears_output`].
    Output,
    /// A trial's answer: a summary of what it could take over, or why it cannot.
    Tried(Result<String, String>),
}

/// Load of a build, which may end the process.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Load {
    /// Number of the library in this process, which the board shows while its code is loaded.
    pub library: u64,
    /// The library's watched path.
    pub path: PathBuf,
    /// SHA-256 of the build.
    pub build: String,
    /// Generation of the build; 0: it has none before its commit.
    pub generation: u64,
    /// Requester of the reload, as the ledger names it.
    pub by: String,
}

/// Loads of a build that may end workers, before it is left alone.
pub const LOADS_MAX: u32 = 2;

/// Load that ended workers.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct EndedLoad {
    /// The load that ended the last one.
    pub load: Load,
    /// Number of workers that ended in loads of this build, one after another.
    pub times: u32,
    /// End of the last one, in words.
    pub how: String,
    /// Whether it died. Else it said itself that it cannot serve.
    pub died: bool,
    /// A worker has served since, and told of it.
    pub told: bool,
}

/// Side of a client in TLS.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ClientTls {
    /// Service that the connection is for: its configuration may name roots.
    pub service: String,
    /// Name that the server's certificate must have.
    pub server_name: String,
}

/// Handshake that a connection is to have.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct HandshakeWanted {
    /// Name of the session's service.
    pub service: String,
    /// Name that the server's certificate must have; `None`: the host is the server.
    pub server_name: Option<String>,
    /// Beginning of what the peer says, which was read already; at most [`BEGINNING_BYTES_MAX`].
    pub input: Vec<u8>,
    /// Somebody waits for it: a session, or a turn that has asked for the connection. Others make
    /// room first.
    pub is_awaited: bool,
}

/// Most bytes of a handshake that may have been read before it begins. A number takes up to four
/// bytes of JSON, and a message may have 64 KiB.
pub const BEGINNING_BYTES_MAX: usize = 12 * 1024;

/// Reason of [`ToKeeper::CantStart`] for lack of descriptors.
pub const TOO_FEW_FILES: &str =
    "this process may not have as many descriptors as there are connections; raise the limit of open files";

/// Everything that a worker begins with.
#[derive(Debug, Serialize, Deserialize)]
pub struct Hello {
    /// The host's number, which private copies are named by. Keepers of earlier versions give their
    /// process id.
    #[serde(rename = "host_pid")]
    pub host_number: u32,
    /// Number of workers before this one.
    pub incarnation: u64,
    /// The configuration. Fields that this version does not know are left out.
    #[serde(deserialize_with = "record::without_unknown")]
    pub config: Config,
    /// Libraries to serve, and directories where others may appear.
    pub found: Found,
    /// Directory of private copies.
    pub copies: PathBuf,
    /// File of saved tables and ledger.
    pub save: PathBuf,
    /// The most detailed level that is logged.
    pub log: String,
    /// Actions that killed a worker and must not run.
    #[serde(rename = "withheld")]
    pub blocked: Vec<BlockedAction>,
    /// Generations that killed too many workers and give way to the previous build: library,
    /// generation.
    pub give_way: Vec<(String, u64)>,
    /// Generations that killed a worker lately and give way if on probation: library, generation.
    #[serde(default)]
    pub killed: Vec<(String, u64)>,
    /// The previous worker caused its own death.
    #[serde(default)]
    pub crashed: bool,
    /// Ports in use, as the previous worker reported them.
    pub ports: Vec<HeldPort>,
    /// Epoch to try a takeover from, without serving. `None`: serve.
    #[serde(default)]
    pub trial: Option<u64>,
    /// Highest number of an endpoint so far: new ones are numbered above it.
    #[serde(default)]
    pub endpoint_last: EndpointId,
    /// The process that served last has handed over, and none was started since: all that it read
    /// and sent is committed. Keepers before this field know no Unix sockets.
    #[serde(default)]
    pub handed_over: bool,
    /// The keeper knows [`ToKeeper::NotConfigured`].
    #[serde(default)]
    pub hears_refusals: bool,
    /// The keeper knows [`ToKeeper::Output`].
    #[serde(default)]
    pub hears_output: bool,
    /// Path of the file that standard error is, if it is one.
    #[serde(default)]
    pub log_file: Option<PathBuf>,
    /// Place and format of the log. Keepers before this field log text to standard error.
    #[serde(default)]
    pub log_to: LogTo,
    /// Levels of services that have their own, by name.
    #[serde(default)]
    pub log_services: BTreeMap<String, String>,
    /// The keeper knows [`ToKeeper::Builds`].
    #[serde(default)]
    pub holds_builds: bool,
    /// The keeper knows [`ToKeeper::Runs`] and [`ToKeeper::Refused`].
    #[serde(default)]
    pub knows_files: bool,
    /// The keeper knows [`ToKeeper::GiveUp`].
    #[serde(default)]
    pub gives_up: bool,
    /// The keeper knows [`ToKeeper::Failing`] and [`ToKeeper::Saving`].
    #[serde(default)]
    pub hears_failures: bool,
    /// The keeper knows [`ToKeeper::ConnectTls`] and [`ToKeeper::StartTls`].
    #[serde(default)]
    pub starts_tls: bool,
    /// No worker can start, and the host stops: save tables and ledger, and end. No connection
    /// comes.
    #[serde(default)]
    pub only_saves: bool,
    /// Loads that ended workers.
    #[serde(default)]
    pub ended_loads: Vec<EndedLoad>,
    /// The previous worker crashed behind a turn: this one commits each turn by itself for a while.
    #[serde(default)]
    pub commits_each_turn: bool,
    /// Meaning of the previous worker's end for jobs.
    #[serde(default)]
    pub job_death: JobDeath,
    /// Crashes since the last commit of a build that no turn, job or load explains.
    #[serde(default)]
    pub crashes_outside: u32,
}

impl Hello {
    /// Reads a first message. Returns it with the names of the configuration's values that were
    /// left out, as this version does not know them.
    pub fn read(file: OwnedFd) -> io::Result<(Hello, Vec<String>)> {
        let message: Value = from_file(file)?;
        let hello = Hello::deserialize(&message)?;
        let unknown = record::unknown_fields(&message["config"], &hello.config);
        Ok((hello, unknown))
    }
}

/// A port that is held.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldPort {
    /// The service, and the address that was asked for.
    pub port: Port,
    /// The address that the kernel gave.
    pub addr: Address,
    /// The endpoint.
    #[serde(default, skip_serializing_if = "EndpointId::is_none")]
    pub endpoint: EndpointId,
    /// Kind of the endpoint; empty: the service's first.
    #[serde(default, skip_serializing_if = "str::is_empty")]
    pub kind: Box<str>,
}

impl HeldPort {
    /// The endpoint that was asked for.
    pub fn asked(&self) -> Endpoint {
        Endpoint { kind: self.kind.clone(), address: self.port.1.clone() }
    }

    /// The endpoint, with the address that the kernel gave.
    pub fn named(&self) -> Endpoint {
        Endpoint { kind: self.kind.clone(), address: self.addr.clone() }
    }
}

/// Number of an endpoint: of one listening socket.
///
/// The worker numbers its ports, and the keeper tells with each connection which endpoint accepted
/// it. The number stays when the port goes over to another service. A number is never used again
/// while the host lives. So a connection of a closed endpoint cannot be taken for one of a later
/// endpoint with the same address.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct EndpointId(pub u32);

impl EndpointId {
    /// No endpoint: an outbound connection, or one under a keeper or a worker of an earlier
    /// version.
    pub const NONE: EndpointId = EndpointId(0);

    /// Whether this is [`EndpointId::NONE`].
    pub fn is_none(&self) -> bool {
        *self == EndpointId::NONE
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::link::to_file;
    use serde_json::json;

    #[test]
    fn a_later_keepers_first_message_is_read_and_what_is_unknown_is_named() {
        let mut message = json!({
            "host_pid": 1, "incarnation": 2, "config": Config::default(), "found": Found::default(),
            "copies": "/c", "save": "/s", "log": "info", "withheld": [], "give_way": [], "ports": [],
            "later": {"a": 1},
        });
        message["config"]["limits"]["sessions_max"] = json!(7);
        message["config"]["limits"]["later_ms"] = json!(5);
        message["config"]["metrics"] = json!({"listen": "127.0.0.1:9"});
        let (hello, unknown) = Hello::read(to_file(&message).unwrap()).unwrap();
        assert_eq!((hello.incarnation, hello.config.limits.sessions_max), (2, 7));
        assert_eq!(unknown, ["limits.later_ms", "metrics.listen"]);
        // An earlier keeper's message lacks what was added since.
        assert_eq!((hello.crashed, hello.trial, hello.hears_refusals), (false, None, false));
        assert_eq!((hello.host_number, hello.holds_builds, hello.knows_files), (1, false, false));
    }
}
