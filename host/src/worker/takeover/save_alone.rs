//! Save of tables and ledger in a host that stops and can start no worker.
//!
//! No library is loaded and no turn runs, so whatever keeps a worker from starting does no harm
//! here. Sessions are not flushed. Nothing is committed.

use crate::protocol::keeper::{Hello, ToKeeper, ToWorker};
use crate::protocol::link::Link;
use crate::worker::save::save_at_the_end;
use crate::worker::takeover::predecessor_memory::{Files, open};
use crate::worker::takeover::successor::is_fresh;
use greenroom_core::core::Successor;

/// Saves what was committed last. An error says why nothing is saved; the keeper is told.
pub(super) fn save_alone(
    hello: &Hello,
    link: &mut Link<ToWorker, ToKeeper>,
    files: &Files,
) -> Result<(), String> {
    let saved = open(hello, files).and_then(|memory| {
        let Successor { core, survivors, lost } = memory.successor;
        lost.iter().for_each(|what| tracing::error!("not saved, because it cannot be trusted: {what}"));
        match is_fresh(&core, &survivors) {
            // The file of an earlier host is more than nothing.
            true => Err("no record is there that could be saved".into()),
            false => save_at_the_end(&core, &hello.save, || link.send(&ToKeeper::Saving)),
        }
    });
    saved.inspect_err(|why| link.send(&ToKeeper::NotSaved(why.clone())))
}
