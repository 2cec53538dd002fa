//! Trial of a takeover by this binary.
//!
//! An upgrade runs the new binary once before the worker is replaced. The trial reads a pinned
//! epoch while the worker serves on, so an incompatible binary costs no client anything.
//!
//! A trial is stricter than a takeover: if a single session or entry could not be read, the answer
//! is no. It gets no connections, writes nothing, and runs no turn. Handler libraries are loaded,
//! so their initializers run in this process. O(n log n) in the records, all of them copied to the
//! heap.

use crate::memory::board::Board;
use crate::memory::snapshot::core_at;
use crate::protocol::keeper::Hello;
use crate::worker::reload::build_records::recorded;
use greenroom_core::core::Successor;
use greenroom_core::store::kind::Kind;
use std::collections::BTreeMap;
use std::os::fd::OwnedFd;

/// Reads everything that was committed with a pinned epoch, and loads the build that each library
/// runs. Previous builds and converters are not loaded: a takeover goes on without them.
///
/// Changes nothing. Returns a summary for the operator; an error says why this binary cannot take
/// over. The caller keeps the epoch pinned meanwhile, and drops the answer if the pin was lost.
pub(super) fn try_out(hello: &Hello, region: &OwnedFd, epoch: u64) -> Result<String, String> {
    let Successor { mut core, survivors, lost } = core_at(region, &hello.config.limits, epoch)?;
    if let Some(what) = lost.first() {
        return Err(format!("it would have to give up {} things, first of all {what}", lost.len()));
    }
    // The board of the live worker must not be touched.
    let board = Board::unread().map_err(|e| e.to_string())?;
    let mut generations = BTreeMap::new();
    for record in recorded(&core)? {
        let serving = record.current.load(&hello.config, board)?;
        core.go_on_with(&record.current.build(), serving);
        generations.insert(record.current.library, record.current.generation);
    }
    // Sessions of such a service would wait for a build. The trial cannot tell whether they wait in
    // the live worker, too.
    if let Some(s) = core.services().iter().find(|s| s.build.is_none() && s.sessions > 0) {
        return Err(format!("no library that it loads offers service {}", s.offer.name));
    }
    let entries: usize = core.store().count(Kind::Entry);
    let generations: Vec<_> = generations.iter().map(|(l, g)| format!("{l} {g}")).collect();
    Ok(format!(
        "{} sessions, {entries} table entries, generations {}",
        survivors.len(),
        generations.join(", ")
    ))
}
