//! Loads under way, which the keeper and the records are told of: the process may not come back.
//!
//! The keeper counts loads of any library that ended a process. A library's record counts them,
//! too, for a keeper of another version, and for an upgrade of the host.

use crate::protocol::keeper::Load;
use crate::worker::ledger::requester;
use crate::worker::reload::owed_answers::OwedAnswers;
use crate::worker::shell::Shell;
use greenroom_core::reload::request::LibraryId;
use std::collections::HashMap;

/// Tells the keeper which loads are under way. `read`: hashes of the files. O(libraries that the
/// prepare thread works on).
pub(super) fn say_loads(shell: &mut Shell, owed: &OwedAnswers, read: &HashMap<LibraryId, String>) {
    let load = |id: LibraryId| Load {
        library: id.0 as u64,
        path: shell.core.reloads.libraries()[id.0].path.clone(),
        build: read.get(&id).cloned().unwrap_or_default(),
        generation: 0,
        by: shell.core.reloads.under_way(id).map(|r| requester(r.by)).unwrap_or_default(),
    };
    let loads = owed.loads().map(load).collect();
    shell.keeper.say_loads(loads);
}

/// Records and commits that a file is about to be loaded. If the load ends this process again and
/// again, successors leave the file alone.
///
/// Without the commit, a library whose initializer kills the worker would be loaded by every
/// successor of another keeper. The commit covers the pass under way, too. The first load of a
/// library has no record, and content that the record names as seen needs no count.
pub(super) fn about_to_load(shell: &mut Shell, id: LibraryId) {
    let seen = shell.core.reloads.libraries()[id.0].seen.clone();
    if let (Some(mut record), Some(hash)) = (shell.builds.get(id).cloned(), seen)
        && record.seen.as_ref() != Some(&hash)
    {
        // Other content begins its own count.
        let before = record.trying.take().filter(|(tried, _)| *tried == hash).map_or(0, |(_, times)| times);
        record.trying = Some((hash, before + 1));
        // The builds in the record are the same, so no copy becomes unused.
        let _ = shell.builds.write(&mut shell.core, id, record);
        shell.commit();
    }
}
