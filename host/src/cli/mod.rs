//! Command line: a file for each subcommand, and `output` for printing.
//!
//! | command | runs in |
//! | --- | --- |
//! | `serve` | the keeper, or the whole host with `--no-keeper` |
//! | `worker`, `handshaker`, `observer`, `trial`, `symbolize` | hidden processes of the host |
//! | `check`, `replay`, `new` | this process and a child; needs no host |
//! | `manual` | this process; hidden from operators |
//! | `dev` | this process, and a host of its own |
//! | all others | this process, as a caller of the admin socket |
//!
//! Data goes to standard output and messages to standard error, so output can be piped. Doc
//! comments of the types that `clap` derives from are the help text: their words are part of
//! the interface.

mod arguments;
mod canary;
mod canary_args;
mod changes;
mod check;
mod check_config;
mod confined;
mod console;
mod dev;
mod dump_file;
mod handshaker;
mod history;
mod host_user;
mod log;
mod manual;
mod metrics;
mod new;
mod observer;
mod offers;
mod output;
mod record;
mod reload;
mod replay;
mod report;
mod select;
mod serve;
mod sessions;
mod signals;
mod state;
mod state_diff;
mod state_edit;
mod status;
mod table;
mod tables;
mod top;
mod trace;
mod undo;
mod upgrade;
mod watch;
mod watched;
mod worker;

use crate::admin::patience;
use crate::runtime_dir::{default_dir, dir_of_commands};
use crate::sys::process_state;
use clap::{CommandFactory, Parser, Subcommand};
use output::{CommandFailure, exit_code};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

/// A hot-reloadable server: rebuild a handler, and its sessions go on with their state.
#[derive(Parser)]
#[command(name = "greenroom", version, max_term_width = 100)]
struct Cli {
    /// The host's runtime directory: lock, admin socket, private copies [default:
    /// $XDG_RUNTIME_DIR/greenroom, /run/greenroom for root, /tmp/greenroom-UID]
    #[arg(long, global = true, env = "GREENROOM_RUNTIME", value_name = "DIR")]
    runtime: Option<PathBuf>,
    /// Longest time that the command waits for a host, such as 30s or 5m, whatever the host does
    /// [default: as long as its worker goes on]
    #[arg(long, global = true, value_name = "TIME", value_parser = humantime::parse_duration)]
    timeout: Option<Duration>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Make a handler's crate of its own, with the SDK
    New(new::New),
    /// Build a handler's crate, serve it, and swap it at each change of its sources
    Dev(dev::DevArgs),
    /// Load handlers, open their ports, and serve until SIGTERM
    Serve(serve::Serve),
    /// Load what was built anew, and say what came of it
    Reload(reload::Reload),
    /// Let a build serve again that ran before; states and tables go back with it
    Rollback(reload::Rollback),
    /// Show the canaries, promote one, or take it back (`reload --canary` begins one)
    Canary(canary::Canary),
    /// Show the host and its services
    Status(status::StatusArgs),
    /// Show all figures, as Prometheus and its kin collect them
    Metrics(metrics::MetricsArgs),
    /// Show the levels of the log, or change one while the host runs
    Log(log::Log),
    /// Show the host on this terminal, as it is now
    Top(top::Top),
    /// List the sessions
    Sessions(sessions::Sessions),
    /// Say what a host would find out about a library, without a host
    Check(check::Check),
    /// Print the address of the console, with its token
    Console(console::ConsoleArgs),
    /// Do something with one session, or with those that are selected
    #[command(subcommand)]
    Session(sessions::Session),
    /// Show the reloads so far, and what came of them
    History(history::History),
    /// Look at what sessions and tables hold, or put it back
    #[command(subcommand)]
    State(state::State),
    /// Look at tables and their entries, or change an entry
    #[command(subcommand)]
    Table(tables::Tables),
    /// Put back what the last set, edit, restore, undo, table put or del has replaced
    Undo(undo::Undo),
    /// Print turns as they happen: action, changes of the state, effects, time
    Trace(trace::Trace),
    /// Write the turns of sessions to a file, to be replayed
    Record(record::Record),
    /// Run a recording with another build, and print where it differs; needs no host
    Replay(replay::Replay),
    /// Go on with a worker from another binary; no session notices
    Upgrade(upgrade::Upgrade),
    /// Serve, under a keeper (the host calls this)
    #[command(hide = true)]
    Worker,
    /// Do handshakes of TLS, under a keeper (the host calls this)
    #[command(hide = true)]
    Handshaker,
    /// Serve metrics and the console over HTTP, under a keeper (the host calls this)
    #[command(hide = true)]
    Observer,
    /// Say which source lines addresses are (the host calls this)
    #[command(hide = true)]
    Symbolize,
    /// Load a library and report what it offers (the host calls this)
    #[command(hide = true)]
    Trial,
    /// Write the manual pages, and completions for shells (a package's build calls this)
    #[command(hide = true)]
    Manual(manual::Manual),
}

/// Runs the command that this process was started with. Wrong usage ends the process with exit
/// code 2 before anything runs.
pub fn run() -> ExitCode {
    // Prints help, version and errors of usage itself.
    let cli: Cli = match arguments::read() {
        Ok(cli) => cli,
        Err(code) => return code,
    };
    let dir = cli.runtime.unwrap_or_else(|| match cli.command {
        Command::Serve(_) => default_dir(),
        _ => dir_of_commands(),
    });
    // Callers of a host keep what `nohup` and its kin gave them.
    use Command::{Check, Handshaker, Observer, Replay, Serve, Symbolize, Trial, Worker};
    let own = matches!(cli.command, Serve(_) | Worker | Handshaker | Observer | Trial | Symbolize);
    if own || matches!(cli.command, Check(_) | Replay(_)) {
        process_state::settle();
        process_state::merge_freed_blocks();
    }
    patience::limit_time(cli.timeout, output::complain);
    let result = match cli.command {
        Command::Serve(serve) => serve.run(&dir),
        Command::New(new) => new.run(),
        Command::Dev(dev) => dev.run(),
        Command::Reload(reload) => reload.run(&dir),
        Command::Rollback(rollback) => rollback.run(&dir),
        Command::Canary(canary) => canary.run(&dir),
        Command::Status(status) => status.run(&dir),
        Command::Metrics(metrics) => metrics.run(&dir),
        Command::Log(log) => log.run(&dir),
        Command::Top(top) => top.run(&dir),
        Command::Sessions(sessions) => sessions.run(&dir),
        Command::Check(check) => check.run(),
        Command::Console(console) => console.run(&dir),
        Command::Session(session) => session.run(&dir),
        Command::History(history) => history.run(&dir),
        Command::State(state) => state.run(&dir),
        Command::Table(tables) => tables.run(&dir),
        Command::Undo(undo) => undo.run(&dir),
        Command::Trace(trace) => trace.run(&dir),
        Command::Record(record) => record.run(&dir),
        Command::Replay(replay) => replay.run(),
        Command::Upgrade(upgrade) => upgrade.run(&dir),
        Command::Symbolize => crate::watchdog::symbolize::run().map_err(CommandFailure::Failed),
        Command::Worker => worker::run(),
        Command::Handshaker => handshaker::run(),
        Command::Observer => observer::run(),
        Command::Manual(manual) => manual.run(Cli::command()),
        Command::Trial => crate::plugin::trial_child::run().map_err(CommandFailure::Failed),
    };
    exit_code(result)
}
