//! The command line. One file a subcommand; data goes to standard output, talk to standard error.
//!
//! Exit codes: 0 done, 1 refused or failed, 2 usage, 3 no host answers.

mod check;
mod check_config;
mod history;
mod reload;
mod report;
mod serve;
mod sessions;
mod state;
mod status;
mod upgrade;
mod worker;

use crate::admin::client::CallError;
use clap::{Parser, Subcommand};
use std::path::PathBuf;
use std::process::ExitCode;

/// A hot-reloadable server: rebuild a handler, and its sessions go on with their state.
#[derive(Parser)]
#[command(name = "greenroom", version, max_term_width = 100)]
struct Cli {
    /// The host's runtime directory: lock, admin socket, private copies [default: $XDG_RUNTIME_DIR/greenroom,
    /// /run/greenroom for root, /tmp/greenroom-UID]
    #[arg(long, global = true, env = "GREENROOM_RUNTIME", value_name = "DIR")]
    runtime: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Load handlers, open their ports, and serve until SIGTERM
    Serve(serve::Serve),
    /// Load what was built anew, and say what came of it
    Reload(reload::Reload),
    /// Let a build serve again that ran before; states and tables go back with it
    Rollback(reload::Rollback),
    /// Show the host and its services
    Status(status::Status),
    /// List the sessions
    Sessions(sessions::Sessions),
    /// Say what a host would find out about a library, without a host
    Check(check::Check),
    /// Do something with one session
    #[command(subcommand)]
    Session(sessions::Session),
    /// Show the reloads so far, and what came of them
    History(history::History),
    /// Look at what sessions and tables hold, or put it back
    #[command(subcommand)]
    State(state::State),
    /// Go on with a worker from another binary; no session notices
    Upgrade(upgrade::Upgrade),
    /// Serve, under a keeper (the host calls this)
    #[command(hide = true)]
    Worker,
    /// Say which source lines addresses are (the host calls this)
    #[command(hide = true)]
    Symbolize,
    /// Load a library and report what it offers (the host calls this)
    #[command(hide = true)]
    Trial,
}

/// How a command ends otherwise than well.
enum Failure {
    /// Refused or failed: 1.
    Failed(String),
    /// Used wrongly: 2.
    Usage(String),
    /// No host answers: 3.
    NoHost(String),
}

impl From<CallError> for Failure {
    fn from(e: CallError) -> Failure {
        match e {
            CallError::NoHost(text) => Failure::NoHost(text),
            CallError::Failed(text) | CallError::BrokenOff(text) => Failure::Failed(text),
        }
    }
}

/// Runs the command that this process was started with.
pub fn run() -> ExitCode {
    let cli = Cli::parse();
    let dir = cli.runtime.unwrap_or_else(crate::runtime_dir::default_dir);
    let result = match cli.command {
        Command::Serve(serve) => serve.run(&dir),
        Command::Reload(reload) => reload.run(&dir),
        Command::Rollback(rollback) => rollback.run(&dir),
        Command::Status(status) => status.run(&dir),
        Command::Sessions(sessions) => sessions.run(&dir),
        Command::Check(check) => check.run(),
        Command::Session(session) => session.run(&dir),
        Command::History(history) => history.run(&dir),
        Command::State(state) => state.run(&dir),
        Command::Upgrade(upgrade) => upgrade.run(&dir),
        Command::Symbolize => crate::watchdog::symbolize::run().map_err(Failure::Failed),
        Command::Worker => worker::run(),
        Command::Trial => crate::plugin::trial_child::run().map_err(Failure::Failed),
    };
    let (text, code) = match result {
        Ok(()) => return ExitCode::SUCCESS,
        Err(Failure::Failed(text)) => (text, 1),
        Err(Failure::Usage(text)) => (text, 2),
        Err(Failure::NoHost(text)) => (text, 3),
    };
    if !text.is_empty() {
        eprintln!("greenroom: {text}");
    }
    ExitCode::from(code)
}

/// Prints a value as JSON, on one line.
fn print_json(value: &impl serde::Serialize) {
    print_text(&(serde_json::to_string(value).unwrap_or_default() + "\n"));
}

/// Prints to standard output. A reader that went away (`| head`) ends the command quietly.
fn print_text(text: &str) {
    use std::io::Write;
    let mut out = std::io::stdout().lock();
    if out.write_all(text.as_bytes()).and_then(|()| out.flush()).is_err() {
        std::process::exit(0);
    }
}

/// A table without lines, numbers to the right.
fn table(head: &[&str]) -> comfy_table::Table {
    let mut table = comfy_table::Table::new();
    table.load_style(comfy_table::presets::NOTHING).set_header(head.to_vec());
    table
}
