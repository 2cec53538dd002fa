//! Start and end of a canary, and what its terms bring about.
//!
//! | event | becomes |
//! | --- | --- |
//! | its candidate is loaded and judged | begun: the candidate runs the sessions of the terms |
//! | a promotion is committed | ended: the candidate takes charge, like any build (`commit.rs`) |
//! | an operator, a rule, a worker's death | taken back: all sessions run the build that serves |
//! | the worker ended | begun again by the successor, with its counts |
//!
//! All of it only replaces pointers. A session that is taken back has its state downgraded by the
//! candidate, which stays as a converter: with the session's next turn, or by a sweep.
//!
//! The rules are looked at when a pass begins. Each is told once in a process; the shell carries it
//! out. O(services) for each pass, as long as a canary runs.

use super::canary_end::end;
use super::commit::release_quarantined;
use super::sweep::Sweeps;
use crate::command::Command;
use crate::host_state::HostState;
use crate::ids::Slot;
use crate::service::canary_counts::BothCounts;
use crate::service::canary_terms::CanaryTerms;
use crate::service::offer::{Build, Serving};
use crate::service::registry::{Canary, LoadedBuild};
use crate::store::kind::Kind;
use std::sync::Arc;

/// Desk at which canaries begin and are taken back. Made for each call.
pub struct CanaryDesk<'a> {
    pub(crate) host: &'a mut HostState,
    pub(crate) sweeps: &'a mut Sweeps,
}

impl CanaryDesk<'_> {
    /// Lets a build run some sessions beside the one that serves: the commit of a canary, or its
    /// continuation by a successor. The counts go on that a predecessor has recorded.
    pub fn begin(&mut self, build: &Build, offers: Serving, terms: CanaryTerms) {
        begin(self.host, build, offers, terms);
    }

    /// Takes the canary of a library back, between two passes, and returns its candidate with the
    /// counts of all services; `None`: there is no canary.
    pub fn take_back(&mut self, library: &str) -> Option<(Build, BothCounts)> {
        take_back(self.host, self.sweeps, library)
    }
}

/// Begins a canary in the services of a library, with the counts that a predecessor has recorded
/// for it. Quarantined sessions that it includes go on with the candidate. Offers of services that
/// the library does not serve are retired; the judgement has made sure that there are none.
fn begin(host: &mut HostState, build: &Build, offers: Serving, terms: CanaryTerms) {
    let terms = Arc::new(terms);
    for (offer, code) in offers {
        let loaded = LoadedBuild::new(offer, build.clone(), code);
        let id = host.services.served(&loaded.offer.name);
        let Some(id) = id.filter(|id| host.services[*id].is_of(&build.library)) else {
            host.services.retire([loaded]);
            continue;
        };
        let recorded = host.host_records.list(&host.store, Kind::Canary, u64::from(id.0), 1);
        let recorded = recorded.first().filter(|(key, _)| *key == u64::from(id.0));
        let counts = recorded.and_then(|(_, bytes)| BothCounts::decode(build.generation, bytes));
        let mut counts = counts.unwrap_or_default();
        let chosen = terms.chosen.iter().filter(|n| **n <= terms.above);
        let chosen = chosen.filter_map(|n| host.sessions.get(host.sessions.slot_of(*n)?));
        let later = host.sessions.after(terms.above).map(|(_, s)| s);
        let mine = chosen.chain(later).filter(|s| s.service == id && terms.includes(build.generation, s.id));
        counts.sessions = mine.count() as u64;
        let canary = Canary { build: loaded, terms: terms.clone(), counts, changed: true, since_compared: 0 };
        host.services[id].canary = Some(Box::new(canary));
    }
    host.canaries.add(build.clone(), terms);
    resume_included(host, &build.library);
}

/// Lets the quarantined sessions that run the candidate of a library go on. O(quarantined
/// sessions).
fn resume_included(host: &mut HostState, library: &str) {
    let includes = |host: &HostState, slot: &Slot| {
        let s = host.sessions.get(*slot);
        s.is_some_and(|s| {
            let of = &host.services[s.service];
            of.is_of(library) && of.candidate_of(s.id).is_some()
        })
    };
    let slots: Vec<_> = host.quarantines.slots().filter(|slot| includes(host, slot)).collect();
    slots.into_iter().for_each(|slot| release_quarantined(host, slot));
}

/// Takes a canary back: all sessions of the library run the build that serves. The candidate
/// converts what it left. Returns the candidate and its counts; `None`: there is no canary, and
/// nothing has changed. O(services), and O(quarantined sessions).
fn take_back(host: &mut HostState, sweeps: &mut Sweeps, library: &str) -> Option<(Build, BothCounts)> {
    let build = host.canaries.of(library)?.clone();
    // First: these sessions are to find the other code with their next turn.
    resume_included(host, library);
    let counts = end(host, library, Vec::push);
    sweeps.begin(host, library);
    Some((build, counts))
}

/// Returns the candidate of a library's canary, its terms and the counts of all its services.
pub(crate) fn canary_of<'h>(
    host: &'h HostState,
    library: &str,
) -> Option<(&'h Build, &'h CanaryTerms, BothCounts)> {
    let canary = host.canaries.get(library)?;
    let mut counts = BothCounts::default();
    for (_, service) in host.services.with_canary(library) {
        service.canary.iter().for_each(|c| counts.add(&c.counts));
    }
    Some((&canary.build, &canary.terms, counts))
}

/// Orders what the terms of canaries say. Runs when a pass begins. O(1) without a canary.
pub(crate) fn order_due(host: &mut HostState) {
    if host.canaries.is_empty() {
        return;
    }
    let HostState { canaries, services, commands, now_ns, .. } = host;
    let due = canaries.take_due(services, *now_ns).into_iter();
    commands.extend(due.map(|(build, verdict)| Command::CanaryDue { build, verdict }));
}
