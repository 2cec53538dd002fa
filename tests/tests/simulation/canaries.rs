//! Canaries: a candidate runs some sessions, is promoted or taken back, by command or by a rule.
//!
//! The model of membership is a list of numbers that is made when a session is first seen, apart
//! from the terms that the core goes by. So a session that changed its build would be found.

use crate::model::Subject;
use crate::peers::Peer;
use crate::reloads::{Candidate, Fate, Known, LIBRARY, Serving, offer};
use crate::world::World;
use greenroom_core::framing::Framing;
use greenroom_core::reload::request::{Event, Request, Requester, Want};
use greenroom_core::service::canaries::CanaryVerdict;
use greenroom_core::service::canary_counts::BothCounts;
use greenroom_core::service::canary_terms::CanaryTerms;
use greenroom_core::service::offer::{Build, Offer};
use std::collections::BTreeMap;

/// A canary that runs.
pub(crate) struct Running {
    /// Candidate.
    pub(crate) known: Known,
    /// Verb `trip` panics in it.
    pub(crate) flawed: bool,
    /// Terms, as the library's record has them.
    pub(crate) terms: CanaryTerms,
    /// Generation of each session, since it was first seen.
    generations: BTreeMap<u64, u64>,
    /// Counts of the last commit.
    committed: BothCounts,
}

/// Purpose of a reload.
#[derive(Clone, Default, PartialEq)]
pub(crate) enum Purpose {
    /// A build takes charge.
    #[default]
    Serves,
    /// A build runs some sessions.
    Canary(Box<CanaryTerms>),
    /// A canary's candidate takes charge.
    Promotion,
}

/// Canaries so far, by generation.
#[derive(Default)]
pub(crate) struct Canaries {
    /// The one that runs.
    pub(crate) running: Option<Running>,
    /// Terms of those that were never promoted.
    only: BTreeMap<u64, CanaryTerms>,
}

impl World {
    // --- steps ----------------------------------------------------------------------------------

    /// Begins a canary, or does something with the one that runs. False: there is nothing to do.
    pub(crate) fn canary_proceeds(&mut self) -> bool {
        if self.subject != Subject::Script && self.builds.highest == 0 {
            return false;
        }
        match (&self.canaries.running, self.rng.u8(0..10)) {
            (None, 0..2) => self.begin_canary(),
            (None, _) => false,
            (Some(_), 0..3) => self.begin_promotion(),
            (Some(_), 3..5) => {
                let is_back = self.take_canary_back();
                self.follow_up();
                is_back
            }
            // An ordinary reload is refused meanwhile.
            (Some(_), 5) => self.begin_refused_reload(),
            // Its sessions run. No time passes beside: silent peers count on that.
            (Some(_), _) => {
                self.pass(false);
                true
            }
        }
    }

    /// Requests a canary, if nothing is in its way.
    fn begin_canary(&mut self) -> bool {
        let service = &self.host.core.services()[0];
        let serving = self.builds.serving;
        let newer = service.stored_versions().iter().any(|v| *v > serving.version);
        if newer || self.host.core.probation(LIBRARY).is_some() {
            return false;
        }
        let script = self.subject == Subject::Script;
        let reads_all = self.subject.has_flaws() && serving.unreadable.is_none();
        let fate = match self.rng.u8(0..12) {
            0 => Fate::StageFails,
            1 => Fate::TrialFails,
            2 => Fate::LoadFails,
            3 if script => Fate::NoCanary,
            4..8 if reads_all => Fate::Flawed,
            _ => Fate::Good,
        };
        let unreadable = script && fate != Fate::Flawed && self.rng.u8(..) < 60;
        let unreadable = unreadable.then(|| self.rng.u64(0..7));
        let version = serving.version + u32::from(script && self.rng.bool());
        let mut offer = offer(self.subject, &Serving { version, ..serving });
        if fate == Fate::NoCanary {
            self.spoil(&mut offer);
        }
        let terms = self.draw_terms();
        let candidate = Candidate {
            step: None,
            offer,
            limits: None,
            unreadable,
            kinds: serving.kinds,
            fate,
            purpose: Purpose::Canary(Box::new(terms)),
        };
        self.request_reload(candidate, Want::Canary);
        true
    }

    /// Makes an offer one that no canary can have.
    fn spoil(&mut self, offer: &mut Offer) {
        let bytes_max = 1 << 13;
        match self.rng.u8(0..4) {
            0 => {
                offer.shape.version += 1;
                offer.shape.downgrades.clear();
                offer.shape.migrations = (1..offer.shape.version).collect();
            }
            1 => offer.tables.clear(),
            2 => offer.endpoints[0].framing = Framing::Raw { bytes_max },
            _ => offer.name = "other".into(),
        }
    }

    /// Draws which sessions run a candidate, and what ends it.
    fn draw_terms(&mut self) -> CanaryTerms {
        let ids: Vec<_> = self.host.core.sessions().after(0).map(|(_, s)| s.id).collect();
        let chosen = ids.into_iter().filter(|_| self.rng.u8(0..3) == 0).collect();
        CanaryTerms {
            above: self.host.core.session_number(),
            share: [0, 2_000, 5_000, 10_000][self.rng.usize(0..4)],
            chosen,
            compare_every: self.rng.u32(0..4),
            promote_at_ns: (self.rng.u8(0..4) == 0).then(|| self.host.now_ns + self.rng.u64(0..20_000)),
            // Often, as few turns of a candidate fail before it is taken back otherwise.
            faults_max: (self.rng.u8(0..4) > 0).then(|| self.rng.u64(0..2)),
        }
    }

    /// Requests that the candidate of the canary serves.
    fn begin_promotion(&mut self) -> bool {
        let Some(running) = &self.canaries.running else { return false };
        let facts = running.known.facts;
        let fate = match self.rng.u8(0..6) {
            0 => Fate::TrialFails,
            1 => Fate::LoadFails,
            _ if running.flawed => Fate::Flawed,
            _ => Fate::Good,
        };
        let candidate = Candidate {
            step: None,
            offer: offer(self.subject, &facts),
            limits: None,
            unreadable: facts.unreadable,
            kinds: facts.kinds,
            fate,
            purpose: Purpose::Promotion,
        };
        self.request_reload(candidate, Want::Promote(facts.generation));
        true
    }

    /// Requests a reload that the canary is in the way of.
    fn begin_refused_reload(&mut self) -> bool {
        let serving = self.builds.serving;
        let candidate = Candidate {
            step: None,
            offer: offer(self.subject, &serving),
            limits: None,
            unreadable: None,
            kinds: serving.kinds,
            fate: Fate::InTheWay,
            purpose: Purpose::Serves,
        };
        self.request_reload(candidate, Want::Load);
        true
    }

    /// Requests a reload for a candidate.
    pub(crate) fn request_reload(&mut self, candidate: Candidate, want: Want) {
        self.builds.requests += 1;
        let (id, by) = (self.builds.requests, Requester::Operator { uid: 0, pid: 1 });
        self.builds.candidate = Some(candidate);
        let request = Request { id, by, from: None, want, group: id };
        self.reload_event(Event::Requested(vec![(self.host.library, request)]));
    }

    // --- commit and end -------------------------------------------------------------------------

    /// Puts a candidate beside the build that serves.
    pub(crate) fn commit_canary(
        &mut self,
        build: &Build,
        candidate: Serving,
        flawed: bool,
        terms: CanaryTerms,
    ) {
        let facts = Serving { generation: build.generation, ..candidate };
        let known = Known { build: build.clone(), facts };
        self.builds.highest = build.generation;
        // Older code may answer from here on, and newer code may go.
        self.builds.stood_by += 1;
        let services = self.services_of(&known, flawed);
        self.host.core.canaries().begin(build, services, terms.clone());
        self.canaries.only.insert(build.generation, terms.clone());
        let (generations, committed) = (BTreeMap::new(), BothCounts::default());
        self.canaries.running = Some(Running { known, flawed, terms, generations, committed });
        self.counts.canaries += 1;
    }

    /// Forgets the canary whose candidate takes charge, and returns its facts.
    pub(crate) fn canary_is_promoted(&mut self) -> Option<Serving> {
        let running = self.canaries.running.take()?;
        self.canaries.only.remove(&running.known.facts.generation);
        self.counts.canaries_promoted += 1;
        Some(running.known.facts)
    }

    /// Takes the canary back, unless its promotion is being committed. The caller commits.
    pub(crate) fn take_canary_back(&mut self) -> bool {
        if self.canaries.running.is_none() || self.host.core.reloads.is_committing(self.host.library) {
            return false;
        }
        self.host.core.reloads.cancel(self.host.library, "taken back");
        let (build, counts) = self.host.core.canaries().take_back(LIBRARY).expect("a canary runs");
        let running = self.canaries.running.take().expect("a canary runs");
        assert_eq!(build, running.known.build);
        self.count_canary(&counts);
        self.builds.converters.push(running.known);
        if let Some(c) = self.builds.candidate.as_mut().filter(|c| c.purpose == Purpose::Promotion) {
            c.fate = Fate::InTheWay;
        }
        self.counts.canaries_taken_back += 1;
        true
    }

    /// Does what a rule orders.
    pub(crate) fn canary_is_due(&mut self, build: &Build, verdict: &CanaryVerdict) {
        let Some(running) = self.canaries.running.as_ref().filter(|r| r.known.build == *build) else {
            return;
        };
        let (_, terms, counts) = self.host.core.canary(LIBRARY).expect("a canary runs");
        assert_eq!(*terms, running.terms);
        match verdict {
            CanaryVerdict::Promote => {
                assert!(terms.promote_at_ns.is_some_and(|at| at <= self.host.now_ns));
                if self.builds.candidate.is_none() {
                    self.begin_promotion();
                }
            }
            CanaryVerdict::TakeBack(_) => {
                assert!(terms.faults_max.is_some_and(|max| counts.candidate.own_faults() > max));
                let may_fail = running.flawed || running.known.facts.unreadable.is_some();
                assert!(may_fail, "a good candidate failed");
                self.counts.canaries_by_rule += u64::from(self.take_canary_back());
                // Further commands of this pass come first: they are carried out in order.
                self.commit();
            }
        }
    }

    /// Begins the canary again in another process. Its counts are those of the last commit.
    pub(crate) fn begin_canary_again(&mut self) {
        let Some(running) = &self.canaries.running else { return };
        let (known, flawed, terms) = (&running.known, running.flawed, running.terms.clone());
        let services = self.services_of(known, flawed);
        let before = running.committed;
        self.host.core.canaries().begin(&known.build, services, terms);
        let (_, _, counts) = self.host.core.canary(LIBRARY).expect("a canary runs");
        assert_eq!(BothCounts { sessions: 0, ..counts }, BothCounts { sessions: 0, ..before });
        self.counts.kills_with_canary += 1;
    }

    /// Notes the counts of a commit.
    pub(crate) fn canary_is_committed(&mut self) {
        if let (Some(running), Some((_, _, counts))) =
            (self.canaries.running.as_mut(), self.host.core.canary(LIBRARY))
        {
            running.committed = counts;
        }
    }

    /// Adds what a canary has counted, and checks it.
    pub(crate) fn count_canary(&mut self, counts: &BothCounts) {
        self.counts.canary_turns += counts.candidate.turns;
        self.counts.canary_faults += counts.candidate.own_faults();
        self.counts.canary_compared += counts.compared.batches;
        assert!(counts.candidate.shared_faults <= counts.candidate.faults);
        assert!(counts.compared.differing <= counts.compared.batches);
    }

    // --- laws -----------------------------------------------------------------------------------

    /// Each session has one build as long as the canary runs, and no other build's state. Sessions
    /// are counted right.
    pub(crate) fn each_session_has_one_build(&mut self) {
        let serving = self.builds.serving;
        let Some(running) = self.canaries.running.as_mut() else { return };
        let candidate = running.known.facts;
        let service = &self.host.core.services()[0];
        let mut included = 0;
        for (_, s) in self.host.core.sessions().after(0) {
            let generation = service.generation_of(s.id);
            let first = *running.generations.entry(s.id).or_insert(generation);
            assert_eq!(generation, first, "session {} changed its build", s.id);
            let chosen = running.terms.chosen.contains(&s.id);
            let expected = match generation == candidate.generation {
                true => chosen || (s.id > running.terms.above && running.terms.share > 0),
                false => !chosen && (s.id <= running.terms.above || running.terms.share < 10_000),
            };
            assert!(expected, "session {} runs generation {generation}", s.id);
            let version = if generation == candidate.generation { candidate } else { serving }.version;
            assert!(
                s.state_version <= version,
                "session {} has a state of version {}",
                s.id,
                s.state_version
            );
            included += u64::from(generation == candidate.generation);
        }
        let (_, _, counts) = self.host.core.canary(LIBRARY).expect("a canary runs");
        assert_eq!(counts.sessions, included, "sessions of the candidate");
    }
}

/// A candidate that was never promoted has answered its own sessions alone.
pub(crate) fn candidates_answer_their_own_sessions(canaries: &Canaries, peer: &Peer, generation: u64) {
    if let Some(terms) = canaries.only.get(&generation) {
        assert!(terms.includes(generation, peer.id), "session {} was answered by a candidate", peer.id);
    }
}
