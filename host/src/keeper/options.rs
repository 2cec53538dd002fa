//! Options: everything that the keeper and its workers run with.

use crate::admin::access::Access;
use crate::config::Config;
use crate::config::source::ConfigSource;
use crate::protocol::found::Found;
use crate::protocol::status::Confined;
use crate::sys::activation::GivenDescriptor;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;

/// Everything that the keeper and its workers run with.
pub struct Options {
    /// Access to the admin socket, by the configuration in force.
    pub access: Arc<Access>,
    /// The configuration in force. A proposal replaces it once the worker has committed it.
    pub config: Config,
    /// Sources of the configuration, to read it again.
    pub source: ConfigSource,
    /// Confinement of candidates on this machine.
    pub confined: Confined,
    /// Libraries and directories to serve.
    pub found: Found,
    /// Number of the host in the directory of private copies.
    pub host_number: u32,
    /// Descriptors that systemd gave. The keeper takes them.
    pub given: Vec<GivenDescriptor>,
    /// Runtime directory.
    pub runtime: PathBuf,
    /// Directory of private copies.
    pub copies: PathBuf,
    /// File of saved tables and ledger.
    pub save: PathBuf,
    /// The most detailed level that is logged.
    pub log: String,
    /// Path of the log, if it is a file.
    pub log_file: Option<PathBuf>,
    /// Socket to a worker in this very process. `None`: each worker has a process of its own.
    pub in_process: Option<OwnedFd>,
}
