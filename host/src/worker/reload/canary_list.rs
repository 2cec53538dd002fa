//! Canaries, as operators see them.

use crate::clock::now_ns;
use crate::protocol::canary::{CanaryColumn, CanaryLine};
use greenroom_core::core::Core;
use greenroom_core::service::canary_counts::CanaryCounts;
use greenroom_core::service::offer::Build;
use greenroom_core::service::registry::Service;

/// All canaries, with their counts. O(libraries x services).
pub(in crate::worker) fn canaries(core: &Core) -> Vec<CanaryLine> {
    let builds = core.reloads.libraries().iter().filter_map(|l| l.current.as_ref());
    builds.filter_map(|build| line_of(core, build)).collect()
}

/// The canary beside a build that serves; `None`: there is none.
fn line_of(core: &Core, serving: &Build) -> Option<CanaryLine> {
    let (candidate, terms, counts) = core.canary(&serving.library)?;
    let of = |s: &&Service| s.build.as_ref().is_some_and(|b| b.library == serving.library);
    let services: Vec<_> = core.services().iter().filter(of).collect();
    let sessions: u64 = services.iter().map(|s| s.sessions as u64).sum();
    let left_ns = terms.promote_at_ns.map(|at| at.saturating_sub(now_ns()));
    Some(CanaryLine {
        library: serving.library.clone(),
        services: services.iter().map(|s| s.offer.name.clone()).collect(),
        share: f64::from(terms.share) / 100.0,
        chosen: terms.chosen.len(),
        promote_in_ms: left_ns.map(|ns| ns / 1_000_000),
        faults_max: terms.faults_max,
        serving: column(serving, sessions.saturating_sub(counts.sessions), &counts.serving),
        candidate: column(candidate, counts.sessions, &counts.candidate),
        compare_every: terms.compare_every,
        compared: counts.compared.batches,
        differing: counts.compared.differing,
        no_way_back: counts.compared.no_way_back,
    })
}

/// A build's column.
fn column(build: &Build, sessions: u64, counts: &CanaryCounts) -> CanaryColumn {
    CanaryColumn {
        generation: build.generation,
        build: build.hash.clone(),
        sessions,
        turns: counts.turns,
        faults: counts.faults,
        shared_faults: counts.shared_faults,
        mean_ns: counts.mean_ns(),
        p99_ns: counts.p99_ns(),
        longest_ns: counts.longest_ns,
    }
}

/// The error that a library has no canary. Names those that have one.
pub(super) fn no_canary(core: &Core, name: &str) -> String {
    let all: Vec<_> = canaries(core).into_iter().map(|c| c.library).collect();
    let all = if all.is_empty() { "none".to_owned() } else { all.join(", ") };
    format!("no canary of {name} runs; there are: {all}")
}
