//! Tries whether this binary could take over.
//!
//! An upgrade runs the new binary once before the worker is replaced. The trial reads a pinned
//! epoch while the worker serves on, so an incompatible binary costs no client anything.

use crate::memory::board::Board;
use crate::memory::snapshot::core_at;
use crate::protocol::keeper::Hello;
use crate::worker::reload::build_records::recorded;
use greenroom_core::core::Successor;
use greenroom_core::store::kind::Kind;
use std::collections::BTreeMap;
use std::os::fd::OwnedFd;

/// Reads everything that was committed with a pinned epoch, and loads every build. Changes nothing.
/// Returns a summary; an error says why this binary cannot take over.
pub(super) fn try_out(hello: &Hello, region: &OwnedFd, epoch: u64) -> Result<String, String> {
    let Successor { mut core, survivors, lost } = core_at(region, &hello.config.limits, epoch)?;
    if let Some(what) = lost.first() {
        return Err(format!("it would have to give up {} things, first of all {what}", lost.len()));
    }
    let board = Board::unread().map_err(|e| e.to_string())?;
    let mut generations = BTreeMap::new();
    for record in recorded(&core)? {
        let serving = record.current.load(&hello.config, board)?;
        core.go_on_with(&record.current.build(), serving);
        generations.insert(record.current.library, record.current.generation);
    }
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
