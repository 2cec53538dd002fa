//! Loads for reloads that ended a predecessor, in ledger, log and `status`. Those of recorded
//! builds are the business of [`super::load_build`].

use crate::protocol::keeper::{EndedLoad, Hello, LOADS_MAX};
use crate::worker::reload::carry_out::part_of;
use crate::worker::shell::Shell;

/// Leaves builds alone whose loads have ended [`LOADS_MAX`] processes, unless an operator asks for
/// them. Concerns libraries that have no record yet: a record knows itself which content was seen
/// last, and that may be later than such a load.
pub(super) fn leave_alone(shell: &mut Shell, hello: &Hello) {
    for EndedLoad { load, .. } in of_reloads(hello).filter(|e| e.times >= LOADS_MAX) {
        let id = shell.core.reloads.library(load.path.clone());
        if shell.builds.get(id).is_none() {
            shell.core.reloads.leave_alone(id, load.build.clone());
        }
    }
}

/// Adds a ledger line for each load that no process told of, as a part of the next commit.
pub(super) fn tell(shell: &mut Shell, hello: &Hello) {
    for EndedLoad { load, times, how, .. } in of_reloads(hello).filter(|e| !e.told) {
        let mut why = format!("the worker process ended while it was loaded: {how}");
        if *times >= LOADS_MAX {
            why += &format!("; it has ended {times} of them, and is left alone until the file changes");
        }
        tracing::error!("{}: {why}", load.path.display());
        shell.keeper.say_refused(load.path.clone(), load.build.clone(), &why);
        shell.keeper.say_failing(&part_of(&load.path), Some(why.clone()));
        let id = shell.core.reloads.library(load.path.clone());
        let library = &shell.core.reloads.libraries()[id.0];
        let report = library.ended_its_process(load.build.clone(), why, shell.core.services());
        shell.add_line(&load.by, report);
    }
}

/// Loads of builds that were to be committed.
fn of_reloads(hello: &Hello) -> impl Iterator<Item = &EndedLoad> {
    hello.ended_loads.iter().filter(|e| e.load.generation == 0)
}
