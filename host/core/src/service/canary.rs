//! Canary: a candidate that runs some sessions of a service, beside the build that serves.
//!
//! | session | runs |
//! | --- | --- |
//! | open at the start, chosen | the candidate |
//! | open at the start, not chosen | the build that serves |
//! | opened later | the candidate, for a share of them |
//! | a service's own turns | the build that serves |
//!
//! Membership is a pure function of the terms, the generation and the number of the session. So a
//! session has one build as long as the canary runs, whatever process serves, and no session holds
//! a mark that could be lost.
//!
//! *Invariant*: the build that serves owns all that sessions share: tables, endpoints, framings.
//! The candidate has the same tables and endpoints, and a state of the same schema and version, or
//! of a higher version with an exact way back (`crate::reload::judge`). The mark of a state says
//! which of both wrote it.
//!
//! The terms are part of the library's record, which the shell writes. The counts are a record of
//! each service, written with the pass that they count, so no fault of a committed turn is lost.

use super::canary_counts::CanaryCounts;
use super::canary_terms::CanaryTerms;
use super::offer::Build;
use super::registry::{Canary, LoadedBuild, Service, Writer, Written};
use crate::turn::code::Code;

impl Canary {
    /// Returns whether a session runs the candidate.
    pub(crate) fn includes(&self, session: u64) -> bool {
        self.terms.includes(self.build.build.generation, session)
    }
}

/// Build that runs a session.
#[derive(Clone, Copy)]
pub(crate) struct SessionBuild<'s> {
    /// Code of the build.
    pub(crate) code: &'s dyn Code,
    /// Generation of the build; 0: none serves.
    pub(crate) generation: u64,
    /// Place of the build among those of its service.
    pub(crate) writer: Writer,
    /// Mark of the states that it writes.
    pub(crate) written: Written,
}

impl Service {
    /// Returns the build that runs a session, by its number. O(1) without a canary.
    #[inline]
    pub(crate) fn build_of(&self, session: u64) -> SessionBuild<'_> {
        match &self.canary {
            None => self.serving(),
            Some(_) => self.one_of_both(session),
        }
    }

    /// Returns the build that serves.
    #[inline]
    fn serving(&self) -> SessionBuild<'_> {
        let written = Written { version: self.offer.shape.version, fingerprint: self.fingerprint };
        SessionBuild { code: &*self.code, generation: self.generation(), writer: Writer::Serving, written }
    }

    /// Returns the build that runs a session while a canary does.
    #[inline(never)]
    fn one_of_both(&self, session: u64) -> SessionBuild<'_> {
        let Some(canary) = self.candidate_of(session) else { return self.serving() };
        let LoadedBuild { offer, fingerprint, build, code } = &canary.build;
        let written = Written { version: offer.shape.version, fingerprint: *fingerprint };
        SessionBuild { code: &**code, generation: build.generation, writer: Writer::Candidate, written }
    }

    /// Returns the canary, if it runs a session.
    #[inline]
    pub(crate) fn candidate_of(&self, session: u64) -> Option<&Canary> {
        self.canary.as_deref().filter(|c| c.includes(session))
    }

    /// Returns whether a build runs sessions: it serves, or is a canary's candidate.
    pub(crate) fn runs(&self, build: &Build) -> bool {
        self.build.as_ref() == Some(build) || self.canary.as_ref().is_some_and(|c| c.build.build == *build)
    }

    /// Returns the build that runs a session, of which `serving` serves.
    pub(crate) fn checked_by(&self, session: u64, serving: Build) -> Build {
        self.candidate_of(session).map_or(serving, |c| c.build.build.clone())
    }

    /// Returns the generation that runs a session, or would; 0: none does.
    pub fn generation_of(&self, session: u64) -> u64 {
        self.build_of(session).generation
    }

    /// Returns the version of the state that the build of a session writes.
    pub fn version_of(&self, session: u64) -> u32 {
        self.build_of(session).written.version
    }

    /// Returns the candidate of the canary, its terms and the version of the state that it writes,
    /// if there is one.
    pub fn canary(&self) -> Option<(&Build, &CanaryTerms, u32)> {
        self.canary.as_ref().map(|c| (&c.build.build, &*c.terms, c.build.offer.shape.version))
    }

    /// Counts a session that has opened, or has ended.
    #[inline]
    pub(crate) fn count_session(&mut self, session: u64, opened: bool) {
        match opened {
            true => self.sessions += 1,
            false => self.sessions -= 1,
        }
        if let Some(canary) = self.canary.as_mut().filter(|c| c.includes(session)) {
            let sessions = &mut canary.counts.sessions;
            *sessions = if opened { *sessions + 1 } else { sessions.saturating_sub(1) };
        }
    }

    /// Counts turns of a session, failed ones included.
    #[inline]
    pub(crate) fn count_turns(&mut self, session: u64, turns: u64) {
        self.turns += turns;
        if let Some(counts) = self.counts_of(session) {
            counts.turns += turns;
        }
    }

    /// Counts a failed turn of a session. `shared`: it fails with the other build of a canary,
    /// too.
    pub(crate) fn count_fault(&mut self, session: u64, shared: bool) {
        self.faults += 1;
        if let Some(counts) = self.counts_of(session) {
            counts.faults += 1;
            counts.shared_faults += u64::from(shared);
        }
    }

    /// Counts the time of a call that ran turns of a session.
    pub(crate) fn count_time(&mut self, session: u64, turns: u64, ns: u64) {
        if let Some(counts) = self.counts_of(session) {
            counts.count_time(turns, ns);
        }
    }

    /// Counts of the build that runs a session, to be changed, while a canary runs.
    #[inline]
    fn counts_of(&mut self, session: u64) -> Option<&mut CanaryCounts> {
        let canary = self.canary.as_mut()?;
        canary.changed = true;
        Some(match canary.includes(session) {
            true => &mut canary.counts.candidate,
            false => &mut canary.counts.serving,
        })
    }
}
