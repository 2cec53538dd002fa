//! Canaries: those under way, and what their terms bring about.
//!
//! The list lies on the heap. The shell records each canary with its library, and a successor
//! begins it again. Then a rule may order a second time what was not carried out before.

use super::canary_terms::CanaryTerms;
use super::offer::Build;
use super::registry::Services;
use std::sync::Arc;

/// End of a canary that its terms bring about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CanaryVerdict {
    /// The candidate is to serve all sessions.
    Promote,
    /// The candidate's sessions are to go back, for this reason, a sentence.
    TakeBack(String),
}

/// A canary of a library, and what its terms have brought about in this process.
#[derive(Debug)]
pub(crate) struct LibraryCanary {
    /// Candidate.
    pub(crate) build: Build,
    /// Terms, as its services have them.
    pub(crate) terms: Arc<CanaryTerms>,
    /// Whether a promotion was ordered.
    promotes: bool,
    /// Whether it was ordered to be taken back.
    ends: bool,
}

/// Canaries under way, at most one for each library.
#[derive(Debug, Default)]
pub(crate) struct Canaries {
    all: Vec<LibraryCanary>,
}

impl Canaries {
    /// Returns whether no canary is under way.
    pub(crate) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// Adds a canary, in place of any other one of its library.
    pub(crate) fn add(&mut self, build: Build, terms: Arc<CanaryTerms>) {
        self.remove(&build.library);
        self.all.push(LibraryCanary { build, terms, promotes: false, ends: false });
    }

    /// Forgets the canary of a library.
    pub(crate) fn remove(&mut self, library: &str) {
        self.all.retain(|c| c.build.library != library);
    }

    /// Returns the canary of a library.
    pub(crate) fn get(&self, library: &str) -> Option<&LibraryCanary> {
        self.all.iter().find(|c| c.build.library == library)
    }

    /// Returns the candidate of a library's canary.
    pub(crate) fn of(&self, library: &str) -> Option<&Build> {
        self.get(library).map(|c| &c.build)
    }

    /// Returns the time of the next promotion that was not ordered.
    pub(crate) fn next_ns(&self) -> Option<u64> {
        self.all.iter().filter(|c| !c.promotes).filter_map(|c| c.terms.promote_at_ns).min()
    }

    /// Takes what the terms of canaries order at this time, each at most once. Too many faults come
    /// before a promotion. O(canaries × services).
    pub(crate) fn take_due(&mut self, services: &Services, now_ns: u64) -> Vec<(Build, CanaryVerdict)> {
        let due = self.all.iter_mut().filter(|c| !c.ends).filter_map(|canary| {
            let library = &canary.build.library;
            let both = services.with_canary(library).filter_map(|(_, s)| s.canary.as_ref());
            let faults: u64 = both.map(|c| c.counts.candidate.own_faults()).sum();
            let verdict = match (canary.terms.faults_max, canary.terms.promote_at_ns) {
                (Some(max), _) if faults > max => {
                    canary.ends = true;
                    CanaryVerdict::TakeBack(format!(
                        "{faults} of its turns failed that the build before doesn't fail, and {max} may"
                    ))
                }
                (_, Some(at)) if at <= now_ns && !canary.promotes => {
                    canary.promotes = true;
                    CanaryVerdict::Promote
                }
                _ => return None,
            };
            Some((canary.build.clone(), verdict))
        });
        due.collect()
    }
}
