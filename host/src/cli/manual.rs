//! Command `greenroom manual`: writes manual pages and completions, from the definition of the
//! command line. So neither can go stale. A package's build calls it.
//!
//! | file | for |
//! | --- | --- |
//! | `man/greenroom.1`, `man/greenroom-COMMAND.1` | man |
//! | `completions/greenroom.bash`, `_greenroom`, `greenroom.fish` | bash, zsh, fish |

use crate::cli::output::CommandFailure;
use clap::{Args, Command};
use clap_complete::{Generator, Shell, generate};
use std::io;
use std::path::{Path, PathBuf};

/// Shells with completions.
const SHELLS: [Shell; 3] = [Shell::Bash, Shell::Zsh, Shell::Fish];

// Doc comments of the fields are the help text of the command line.
#[derive(Args)]
pub(super) struct Manual {
    /// Directory to write to; it is made if it is not there
    #[arg(value_name = "DIR")]
    dir: PathBuf,
}

impl Manual {
    /// Writes all pages and completions of a command line. Files that are there are replaced.
    pub(super) fn run(self, command: Command) -> Result<(), CommandFailure> {
        let written = write(&self.dir, without_help(of_operators(command)));
        written.map_err(|e| CommandFailure::Failed(format!("{}: {e}", self.dir.display())))
    }
}

/// Leaves out commands that the host alone calls.
fn of_operators(command: Command) -> Command {
    let shown = command.get_subcommands().filter(|c| !c.is_hide_set()).cloned();
    let whole = Command::new("greenroom").subcommands(shown).args(command.get_arguments().cloned());
    let text = |text: Option<&clap::builder::StyledStr>| text.cloned();
    let whole = whole.version(env!("CARGO_PKG_VERSION")).subcommand_required(true);
    let whole = text(command.get_about()).into_iter().fold(whole, Command::about);
    let whole = text(command.get_long_about()).into_iter().fold(whole, Command::long_about);
    text(command.get_after_help()).into_iter().fold(whole, Command::after_help)
}

/// Removes the subcommands `help`, whose pages would only repeat others.
fn without_help(command: Command) -> Command {
    command.disable_help_subcommand(true).mut_subcommands(without_help)
}

/// Writes pages and completions into folders of a directory.
fn write(dir: &Path, mut command: Command) -> io::Result<()> {
    let (man, completions) = (dir.join("man"), dir.join("completions"));
    std::fs::create_dir_all(&man)?;
    std::fs::create_dir_all(&completions)?;
    for shell in SHELLS {
        let mut text = Vec::new();
        generate(shell, &mut command, "greenroom", &mut text);
        std::fs::write(completions.join(shell.file_name("greenroom")), text)?;
    }
    clap_mangen::generate_to(command, &man)
}
