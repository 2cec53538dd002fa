//! Command `greenroom console`: prints the address of the console, with its token.
//!
//! The token stands behind `#`, which no browser sends to a server, and which no log has.

use crate::admin::client::call;
use crate::cli::output::{CommandFailure, print_text};
use crate::config::token::read_token;
use crate::protocol::admin::{AdminCommand, Reply};
use clap::Args;
use std::net::SocketAddr;
use std::path::Path;

// Doc comments of the fields are the help text of the command line.
#[derive(Args)]
pub(super) struct ConsoleArgs {}

impl ConsoleArgs {
    /// Runs the command. Fails if the host serves no console, or if the token cannot be read.
    pub(super) fn run(self, dir: &Path) -> Result<(), CommandFailure> {
        let mut observer = None;
        call(dir, &AdminCommand::Status, |reply| {
            if let Reply::Status(status) = reply {
                observer = status.host.observer;
            }
        })?;
        let failed = CommandFailure::Failed;
        let Some(observer) = observer.filter(|o| o.console) else {
            return Err(failed(
                "this host serves no console; write `listen = \"127.0.0.1:9900\"` and `console = true` below \
                 [observe] in its configuration, then run `greenroom reload --config`"
                    .into(),
            ));
        };
        let token = read_token(&observer.token_file).map_err(failed)?;
        print_text(&format!("http://{}/#token={token}\n", reachable(&observer.listen)));
        Ok(())
    }
}

/// Address for a browser on this machine: one that means all addresses is none.
fn reachable(listen: &str) -> String {
    match listen.parse::<SocketAddr>() {
        Ok(at) if at.ip().is_unspecified() && at.is_ipv4() => format!("localhost:{}", at.port()),
        // It takes no IPv4, and `localhost` may be nothing else.
        Ok(at) if at.ip().is_unspecified() => format!("[::1]:{}", at.port()),
        _ => listen.to_owned(),
    }
}
