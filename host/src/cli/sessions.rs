//! Commands `greenroom sessions` and `greenroom session`: lists the sessions, releases and
//! closes them.
//!
//! The list is gathered whole before it is printed: columns are as wide as their widest cell.
//! Memory is O(sessions). The host sends slices, so sessions that end meanwhile may be in the
//! list.

use crate::admin::client::call;
use crate::cli::output::{CommandFailure, print_json, print_text, table};
use crate::protocol::admin::{AdminCommand, Reply};
use clap::{Args, Subcommand};
use std::path::Path;

// Doc comments of the fields are the help text of the command line.
#[derive(Args)]
pub(super) struct Sessions {
    /// Only quarantined sessions
    #[arg(long)]
    quarantined: bool,
    /// JSON, for programs
    #[arg(long)]
    json: bool,
}

/// `greenroom session`.
#[derive(Subcommand)]
pub(super) enum Session {
    /// Release a quarantined session: it goes on with the code that serves now
    Release { id: u64 },
    /// Close a session; its handler is told, and its output is flushed
    Close {
        id: u64,
        /// Also if a callback of the session doesn't return: it is withheld first
        #[arg(long)]
        now: bool,
    },
    /// End a callback that doesn't return: its worker is killed, and the next one runs that action
    /// never again. The session goes into quarantine
    Withhold {
        /// Number of the session, or name of the service whose own turn it is
        of: String,
    },
}

impl Session {
    /// Runs the command. Prints nothing on success; fails if no open session has the number.
    pub(super) fn run(self, dir: &Path) -> Result<(), CommandFailure> {
        let command = match self {
            Session::Release { id } => AdminCommand::Release(id),
            Session::Withhold { of } => AdminCommand::Withhold(of),
            Session::Close { id, now } => {
                if now {
                    // Refused unless a callback of this session runs. The close says what is wrong
                    // then, if it can't be carried out either.
                    let _ = call(dir, &AdminCommand::Withhold(id.to_string()), |_| {});
                }
                AdminCommand::Close(id)
            }
        };
        Ok(call(dir, &command, |_| {})?)
    }
}

impl Sessions {
    /// Runs the command.
    pub(super) fn run(self, dir: &Path) -> Result<(), CommandFailure> {
        let mut sessions = Vec::new();
        call(dir, &AdminCommand::Sessions, |reply| {
            if let Reply::Sessions(slice) = reply {
                // Filtered here: the command to the host has no filter.
                sessions.extend(slice.into_iter().filter(|s| !self.quarantined || s.quarantined.is_some()));
            }
        })?;
        if self.json {
            print_json(&sessions);
            return Ok(());
        }
        let mut table = table(&[
            "ID",
            "SERVICE",
            "BY",
            "PEER",
            "OPENED",
            "STATE",
            "TURNS",
            "IN",
            "OUT",
            "WAITS FOR",
            "QUARANTINED",
        ]);
        for s in &sessions {
            table.add_row([
                s.id.to_string(),
                s.service.clone(),
                if s.over_tls { format!("tls+{}", s.endpoint) } else { s.endpoint.clone() },
                s.peer.clone(),
                s.opened_at.clone(),
                if s.state_version == 0 { "-".into() } else { format!("v{}", s.state_version) },
                s.turns.to_string(),
                s.bytes_in.to_string(),
                s.bytes_out.to_string(),
                s.waits_for.clone().unwrap_or_default(),
                s.quarantined.clone().unwrap_or_default(),
            ]);
        }
        print_text(&format!("{table}\n"));
        Ok(())
    }
}
