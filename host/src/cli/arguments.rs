//! Arguments of the command line, read.

use crate::cli::output::complain;
use clap::builder::Resettable;
use clap::{Arg, Command, CommandFactory, FromArgMatches};
use std::process::ExitCode;

/// Reads the arguments of this process. The error is its exit code: help, version, or what is wrong
/// was printed.
pub(super) fn read<C: CommandFactory + FromArgMatches>() -> Result<C, ExitCode> {
    let command = without_empty(C::command());
    let read = command.try_get_matches().and_then(|matches| C::from_arg_matches(&matches));
    read.map_err(|said| match said.print() {
        Err(e) if e.kind() != std::io::ErrorKind::BrokenPipe => {
            complain(&format!("greenroom: standard output can't be written: {e}"));
            ExitCode::from(1)
        }
        _ => ExitCode::from(u8::try_from(said.exit_code()).unwrap_or(2)),
    })
}

/// Takes a variable of the environment that is empty for one that is not set.
fn without_empty(command: Command) -> Command {
    let is_empty = |arg: &Arg| arg.get_env().and_then(std::env::var_os).is_some_and(|value| value.is_empty());
    let set = move |arg: Arg| if is_empty(&arg) { arg.env(Resettable::Reset) } else { arg };
    command.mut_args(set).mut_subcommands(without_empty)
}
