//! Trial of a takeover by this binary.
//!
//! An upgrade runs the new binary once before the worker is replaced. The trial reads a pinned
//! epoch while the worker serves on, so an incompatible binary costs no client anything.
//!
//! A trial is stricter than a takeover: if a single session or entry could not be read, the answer
//! is no. It gets no connections, writes nothing, and runs no turn. Handler libraries are loaded
//! by confined children, as in the trial of a reload. O(n log n) in the records, all of them copied
//! to the heap.

use crate::config::Config;
use crate::memory::snapshot::core_at;
use crate::plugin::trial::{self, Trial, Tried};
use crate::protocol::keeper::Hello;
use crate::sys::proc::own_binary;
use crate::worker::reload::build_records::recorded;
use crate::worker::reload::running_build::RunningBuild;
use greenroom_core::core::Successor;
use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::OwnedFd;

/// Reads everything that was committed with a pinned epoch, and tries the build that each library
/// runs. Previous builds and converters are not tried: a takeover goes on without them.
///
/// Changes nothing. Returns a summary for the operator; an error says why this binary cannot take
/// over. The caller keeps the epoch pinned meanwhile, and drops the answer if the pin was lost.
pub(super) fn try_out(hello: &Hello, region: &OwnedFd, epoch: u64) -> Result<String, String> {
    let Successor { core, survivors, lost } = core_at(region, &hello.config.limits, epoch)?;
    if let Some(what) = lost.first() {
        return Err(format!("it would have to give up {} things, first of all {what}", lost.len()));
    }
    let (mut generations, mut offered) = (BTreeMap::new(), BTreeSet::new());
    for record in recorded(&core)? {
        let build = record.current;
        let tried = try_build(&hello.config, &build).map_err(|e| {
            format!("{}, generation {}, from {}: {e}", build.library, build.generation, build.copy.display())
        })?;
        offered.extend(tried.offers.into_iter().map(|offer| offer.name));
        generations.insert(build.library, build.generation);
    }
    // Sessions of such a service would wait for a build. The trial cannot tell whether they wait in
    // the live worker, too.
    if let Some(s) = core.services().iter().find(|s| s.sessions > 0 && !offered.contains(&s.offer.name)) {
        return Err(format!("no library that it loads offers service {}", s.offer.name));
    }
    let entries: usize = core.tables().names().map(|table| core.tables().count(table)).sum();
    let generations: Vec<_> = generations.iter().map(|(l, g)| format!("{l} {g}")).collect();
    Ok(format!(
        "{} sessions, {entries} table entries, generations {}",
        survivors.len(),
        generations.join(", ")
    ))
}

/// Has a child of this binary load a build and build its services.
fn try_build(config: &Config, build: &RunningBuild) -> Result<Tried, String> {
    let settings = &build.settings_for_handlers(config);
    let trial = Trial {
        copy: &build.copy,
        entry: &build.entry,
        settings,
        snapshot: None,
        recording: None,
        limits: &config.limits,
    };
    let binary = own_binary().map_err(|e| format!("the trial process can't be started: {e}"))?;
    trial::run_confined(&binary, &trial, config.reload.confinement, |_, _| {})
}
