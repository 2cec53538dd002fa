//! Loads that ended a predecessor, in ledger, log and `status`.

use crate::protocol::keeper::{EndedLoad, Hello};
use crate::worker::reload::build_records::TRIES_MAX;
use crate::worker::reload::carry_out::part_of;
use crate::worker::shell::Shell;

/// Leaves builds alone whose loads have ended [`TRIES_MAX`] processes, unless an operator asks for
/// them. Adds a ledger line for each load that no process told of, as a part of the next commit.
pub(super) fn note_all(shell: &mut Shell, hello: &Hello) {
    for EndedLoad { load, times, how, told } in &hello.ended_loads {
        let id = shell.core.reloads.library(load.path.clone());
        let is_left_alone = *times >= TRIES_MAX;
        if is_left_alone {
            shell.core.reloads.leave_alone(id, load.build.clone());
        }
        if *told {
            continue;
        }
        let mut why = format!("the worker process ended while it was loaded: {how}");
        if is_left_alone {
            why += &format!("; it has ended {times} of them, and is left alone until the file changes");
        }
        tracing::error!("{}: {why}", load.path.display());
        shell.keeper.say_refused(load.path.clone(), load.build.clone(), &why);
        shell.keeper.say_failing(&part_of(&load.path), Some(why.clone()));
        let library = &shell.core.reloads.libraries()[id.0];
        let report = library.ended_its_process(load.build.clone(), why, shell.core.services());
        shell.add_line(&load.by, report);
    }
}
