//! Subjects of `trace` and `record`, as the command line names them.

use crate::cli::output::CommandFailure;
use clap::Args;
use greenroom_core::watch::subject::Subject;
use std::net::{IpAddr, SocketAddr};

// Doc comments of the fields are the help text of the command line.
#[derive(Args)]
pub(super) struct WatchedService {
    /// All sessions of a service, and the service itself
    #[arg(long, value_name = "NAME")]
    pub(super) service: Option<String>,
    /// Sessions of a peer: an IP address, or one with a port
    #[arg(long, value_name = "ADDR", conflicts_with = "service")]
    pub(super) peer: Option<String>,
}

impl WatchedService {
    /// Subject that the options name; `None`: they name none.
    pub(super) fn subject(&self, per_mille: u16) -> Result<Option<Subject>, CommandFailure> {
        if let Some(name) = &self.service {
            return Ok(Some(Subject::Service { name: name.clone(), per_mille }));
        }
        let Some(peer) = &self.peer else { return Ok(None) };
        let at = peer.parse::<SocketAddr>().map(Subject::PeerAt);
        let ip = || peer.trim_matches(['[', ']']).parse::<IpAddr>().map(Subject::Peer);
        let subject = at.or_else(|_| ip()).map_err(|_| {
            CommandFailure::Usage(format!(
                "--peer {peer:?}: an IP address is wanted, or one with a port, such as 192.0.2.7 or 192.0.2.7:4000"
            ))
        });
        subject.map(Some)
    }
}
