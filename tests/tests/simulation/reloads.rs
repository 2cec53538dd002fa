//! Reloads, probations and rollbacks, step by step, with a fate drawn for each.

use crate::canaries::Purpose;
use crate::dialogues;
use crate::framings;
use crate::model::Subject;
use crate::mortals::MORTAL;
use crate::script::Script;
use crate::world::World;
use greenroom::plugin::ffi::library::Library;
use greenroom_core::framing::Framing;
use greenroom_core::ledger::{Outcome, ProbationCounts};
use greenroom_core::limits::per_service::AllLimits;
use greenroom_core::operate::inspect::{Filter, SessionView};
use greenroom_core::reload::request::{self, Event, Step, Want};
use greenroom_core::service::offer::{Build, EndpointOffer, Offer};
use greenroom_core::service::probation::ProbationEnd;
use greenroom_core::turn::code::Code;
use greenroom_state::abi;
use greenroom_state::compatibility::{StateShape, TableShape};
use greenroom_state::schema::Schema;
use std::collections::BTreeMap;

/// Name of the library that holds the service.
pub(crate) const LIBRARY: &str = "sim";

/// Builds of the service, past and present.
pub(crate) struct Builds {
    /// The build that serves.
    pub(crate) serving: Serving,
    /// The serving build panics at `trip`, and must not pass its probation.
    pub(crate) flawed: bool,
    /// The highest generation so far.
    pub(crate) highest: u64,
    /// The previous build, which stands by.
    pub(crate) previous: Option<Known>,
    /// Builds that were rolled back and convert what they left.
    pub(crate) converters: Vec<Known>,
    /// Builds converted, or ran a canary, by the last commit: the record of the library has them.
    pub(crate) convert: bool,
    /// Builds that stood by so far.
    pub(crate) stood_by: u64,
    /// The reload that is under way.
    pub(crate) candidate: Option<Candidate>,
    pub(crate) requests: u64,
}

impl Builds {
    pub(crate) fn new(seed: u64) -> Builds {
        Builds {
            serving: Serving { generation: 0, version: 1, unreadable: None, seed, kinds: u16::MAX },
            flawed: false,
            highest: 0,
            previous: None,
            converters: Vec::new(),
            convert: false,
            stood_by: 0,
            candidate: None,
            requests: 0,
        }
    }

    /// Framing of outbound sessions.
    pub(crate) fn first_framing(&self) -> Framing {
        framings::of_seed(self.serving.seed, Subject::Script)[0]
    }

    /// Framing of peers over UDP, which any service has.
    pub(crate) fn over_udp(&self) -> Framing {
        Framing::Peer { bytes_max: self.first_framing().bytes_max() }
    }

    /// Framings in which the service is had over streams now.
    pub(crate) fn of_streams(&self, subject: Subject) -> Vec<Framing> {
        if subject != Subject::Script {
            return framings::of_any_service().to_vec();
        }
        let offered = self.serving.offered(subject).into_iter();
        offered.filter(|f| !f.is_of_datagrams()).collect()
    }
}

/// Facts about a build that decide what it does.
#[derive(Clone, Copy)]
pub(crate) struct Serving {
    pub(crate) generation: u64,
    /// State version.
    pub(crate) version: u32,
    /// Counts with this remainder by seven are unreadable.
    pub(crate) unreadable: Option<u64>,
    /// Seed, which decides what the framings are.
    pub(crate) seed: u64,
    /// Framings of the seed that the build offers, a bit for each.
    pub(crate) kinds: u16,
}

impl Serving {
    /// Framings that the build offers. The first is offered by all builds, as outbound sessions
    /// have it; and so is the library's own, which goes with its code.
    pub(crate) fn offered(&self, subject: Subject) -> Vec<Framing> {
        let all = framings::of_seed(self.seed, subject).into_iter().enumerate();
        let is_offered = |(at, f): &(usize, Framing)| *at == 0 || f.calls_code() || self.kinds >> at & 1 == 1;
        all.filter(is_offered).map(|(_, framing)| framing).collect()
    }
}

/// A build of the scripted service that is kept beside the serving one.
pub(crate) struct Known {
    pub(crate) build: Build,
    pub(crate) facts: Serving,
}

impl Known {
    /// Services of the build, as the core adopts them.
    pub(crate) fn services(&self, flawed: bool) -> Vec<(Offer, Box<dyn Code>)> {
        let Serving { version, unreadable, .. } = self.facts;
        let generation = self.build.generation;
        let code = Script { generation, version, unreadable, flawed, damaged: false };
        vec![(offer(Subject::Script, &self.facts), Box::new(code))]
    }
}

/// A build on its way into service.
pub(crate) struct Candidate {
    /// The step that the core asked for.
    pub(crate) step: Option<Step>,
    pub(crate) offer: Offer,
    /// Configuration that is put in force with it.
    pub(crate) limits: Option<AllLimits>,
    pub(crate) unreadable: Option<u64>,
    /// Framings that it offers.
    pub(crate) kinds: u16,
    pub(crate) fate: Fate,
    pub(crate) purpose: Purpose,
}

/// Ends of a reload.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) enum Fate {
    Good,
    /// The file cannot be copied or inspected.
    StageFails,
    /// The child process that tries it fails.
    TrialFails,
    /// The worker cannot load it.
    LoadFails,
    /// The schema would lose state, so that the build is refused.
    LosesState,
    /// The build serves, and fails its probation.
    Flawed,
    /// The build shares something with the one that serves that differs.
    NoCanary,
    /// A canary is in the way, or the canary to promote is gone.
    InTheWay,
}

impl Fate {
    /// Fates to draw from.
    const ALL: [Fate; 9] = [
        Fate::Good,
        Fate::Good,
        Fate::StageFails,
        Fate::TrialFails,
        Fate::LoadFails,
        Fate::LosesState,
        Fate::Flawed,
        Fate::Flawed,
        Fate::Flawed,
    ];

    /// The build takes over.
    fn commits(self) -> bool {
        matches!(self, Fate::Good | Fate::Flawed)
    }
}

/// Offer of a build, with migrations from all versions before.
pub(crate) fn offer(subject: Subject, facts: &Serving) -> Offer {
    offer_with_count(subject, facts.offered(subject), facts.version, "integer")
}

fn offer_with_count(subject: Subject, framings: Vec<Framing>, version: u32, count_type: &str) -> Offer {
    let schema = format!(
        r#"{{"type":"object","properties":{{"count":{{"type":"{count_type}"}}}},"required":["count"]}}"#
    );
    let shape = StateShape {
        version,
        schema: Some(Schema::parse(&schema).expect("a schema")),
        migrations: (1..version).collect(),
        downgrades: (2..=version).collect(),
    };
    let endpoints = framings.iter().map(|f| EndpointOffer { framing: *f, port: 0 }).collect();
    let mortal = StateShape { version: 1, migrations: Vec::new(), downgrades: Vec::new(), ..shape.clone() };
    let tables = match subject {
        Subject::Script => {
            vec![TableShape { name: MORTAL.into(), shape: mortal, hears_of_expiry: true, reads_keys: false }]
        }
        Subject::Tally | Subject::Asks => Vec::new(),
    };
    Offer { shape, endpoints, tables, ..Offer::new(subject.name(), framings[0]) }
}

/// Entry point of the shipped library, linked into this test.
unsafe extern "C" fn echo_entry() -> *const abi::Library {
    echo::one_export_takes_all_services()
}

/// Entry point of the library that asks, a part of this test.
unsafe extern "C" fn asks_entry() -> *const abi::Library {
    dialogues::one_export_takes_all_services()
}

/// A service's build, turns, faults and sessions.
type ServiceFacts = (Option<Build>, u64, u64, usize);

impl World {
    // --- requests -------------------------------------------------------------------------------

    /// Begins a reload with a fate that is drawn.
    pub(crate) fn begin_random_reload(&mut self) {
        let mut fate = Fate::ALL[self.rng.usize(0..Fate::ALL.len())];
        // The previous build of a flawed one must read every state.
        let reads_all = self.subject.has_flaws() && self.builds.serving.unreadable.is_none();
        // It also must have the framings of the flawed one.
        let serving = self.builds.serving.kinds;
        let is_alike = self.builds.previous.as_ref().is_none_or(|p| p.facts.kinds == serving);
        if fate == Fate::Flawed && !(reads_all && is_alike) {
            fate = Fate::Good;
        }
        let unreadable = self.subject == Subject::Script && fate != Fate::Flawed && self.rng.u8(..) < 60;
        let unreadable = unreadable.then(|| self.rng.u64(0..7));
        self.begin_reload(fate, unreadable);
    }

    /// Ends the reload under way, and the canary, and runs a reload that commits.
    pub(crate) fn reload_whole(&mut self) {
        self.finish_reload();
        self.take_canary_back();
        self.begin_reload(Fate::Good, None);
        self.finish_reload();
    }

    /// Takes the reload under way to its end.
    fn finish_reload(&mut self) {
        while self.builds.candidate.is_some() {
            self.step_reload();
        }
    }

    /// Requests a reload, perhaps with another version and another configuration.
    fn begin_reload(&mut self, fate: Fate, unreadable: Option<u64>) {
        let raises_version = self.subject == Subject::Script && fate.commits() && self.rng.u8(..) < 80;
        let version = self.builds.serving.version + u32::from(raises_version);
        let count_type = if fate == Fate::LosesState { "string" } else { "integer" };
        let kinds = match self.rng.u8(0..20) {
            0 if fate != Fate::Flawed => u16::MAX,
            1 if fate != Fate::Flawed => self.rng.u16(..),
            _ => self.builds.serving.kinds,
        };
        let facts = Serving { kinds, ..self.builds.serving };
        let offer = offer_with_count(self.subject, facts.offered(self.subject), version, count_type);
        let limits = (self.rng.u8(..) < 60).then(|| self.other_limits());
        let want = if limits.is_some() { Want::Configure } else { Want::Load };
        let purpose = Purpose::Serves;
        self.request_reload(Candidate { step: None, offer, limits, unreadable, kinds, fate, purpose }, want);
    }

    // --- steps ----------------------------------------------------------------------------------

    /// Does the step that the core asked for, and reports it.
    pub(crate) fn step_reload(&mut self) {
        let Some(candidate) = &mut self.builds.candidate else { return };
        let fate = candidate.fate;
        let offers = vec![candidate.offer.clone()];
        let fails = |at: Fate| if fate == at { Err(format!("{at:?}")) } else { Ok(()) };
        let event = match candidate.step.take() {
            Some(Step::Stage(id, _)) => {
                let hash = format!("build {}", self.builds.requests);
                Event::Staged(id, fails(Fate::StageFails).map(|()| hash))
            }
            Some(Step::Try(id)) => {
                let name = LIBRARY.into();
                let tried = request::Candidate { name, offers, build_id: None, rehearsal: None };
                Event::Tried(id, fails(Fate::TrialFails).map(|()| tried))
            }
            Some(Step::Load(all)) => Event::Loaded(all[0].0, fails(Fate::LoadFails)),
            Some(Step::Commit(all)) => {
                let (id, build) = &all[0];
                self.commit_build(build);
                Event::Committed(vec![*id], 1.0)
            }
            _ => return,
        };
        let committed = matches!(event, Event::Committed(..));
        self.reload_event(event);
        if committed {
            // Build and configuration in one epoch.
            self.follow_up();
        }
    }

    /// Reports an event to the core. Only a commit may change what sessions and services are.
    pub(crate) fn reload_event(&mut self, event: Event) {
        let before = self.facts();
        let steps = self.host.core.reload(event);
        assert_eq!(self.facts(), before, "a reload's step changed something");
        for step in steps {
            self.trace.reload(&step);
            match step {
                Step::Discard(_) => {}
                Step::Report(_, _, report) => {
                    let Candidate { fate, purpose, .. } =
                        self.builds.candidate.take().expect("a reload was under way");
                    let is_canary = matches!(purpose, Purpose::Canary(_));
                    let done = if is_canary { Outcome::Canary } else { Outcome::Committed };
                    let committed = report.outcome == done;
                    assert_eq!(committed, fate.commits(), "{fate:?}: {report:?}");
                    assert_eq!(report.generation, self.builds.serving.generation);
                    self.counts.commits += u64::from(committed);
                    self.counts.refusals += u64::from(!committed);
                }
                step => self.builds.candidate.as_mut().expect("a reload is under way").step = Some(step),
            }
        }
    }

    /// Everything that only a commit may change. O(sessions).
    fn facts(&self) -> (Vec<SessionView>, Vec<ServiceFacts>) {
        let filter = Filter { contents: true, ..Filter::default() };
        let core = &self.host.core;
        let services = core.services().iter().map(|s| (s.build.clone(), s.turns, s.faults, s.sessions));
        (core.sessions_after(0, &filter).items, services.collect())
    }

    // --- commit ---------------------------------------------------------------------------------

    /// Puts the candidate in service, perhaps on probation, with its configuration.
    fn commit_build(&mut self, build: &Build) {
        let limits = self.builds.candidate.as_mut().and_then(|c| c.limits.take());
        if let Some(limits) = limits {
            self.configure(limits);
        }
        let candidate = self.builds.candidate.as_mut().expect("a reload is under way");
        let purpose = std::mem::take(&mut candidate.purpose);
        let (flawed, offer) = (candidate.fate == Fate::Flawed, candidate.offer.clone());
        let next = Serving {
            generation: build.generation,
            version: offer.shape.version,
            unreadable: candidate.unreadable,
            seed: self.builds.serving.seed,
            kinds: candidate.kinds,
        };
        match purpose {
            Purpose::Canary(terms) => {
                candidate.purpose = Purpose::Canary(terms.clone());
                return self.commit_canary(build, next, flawed, *terms);
            }
            Purpose::Promotion => {
                if let Some((_, _, counts)) = self.host.core.canary(LIBRARY) {
                    self.count_canary(&counts);
                }
                let facts = self.canary_is_promoted().expect("a canary runs");
                assert_eq!((facts.generation, facts.version), (next.generation, next.version));
            }
            Purpose::Serves => assert!(self.canaries.running.is_none(), "a canary is in the way"),
        }
        let was = self.known();
        // A build that cannot read every state is no help to the next one.
        let helps = self.subject.has_flaws() && was.facts.unreadable.is_none();
        // A turn of a framing that one of both lacks is no evidence against the other.
        let before = self.builds.previous.as_ref().map_or(was.facts.kinds, |p| p.facts.kinds);
        let is_alike = [was.facts.kinds, before] == [next.kinds; 2];
        let on_probation = flawed || (helps && is_alike && self.rng.bool());
        self.builds.serving = next;
        (self.builds.flawed, self.builds.highest) = (flawed, build.generation);
        let services = vec![(offer, self.code(build, next.unreadable))];
        if !on_probation {
            self.host.core.adopt(build, services);
            self.builds.previous = None;
            return;
        }
        let until = if flawed { u64::MAX } else { self.host.now_ns + self.rng.u64(0..20_000) };
        if self.host.core.adopt_on_probation(build, services, until) {
            self.builds.previous.get_or_insert(was);
            self.builds.stood_by += 1;
        }
    }

    /// The serving build, to be kept beside the next one.
    fn known(&self) -> Known {
        let facts = self.builds.serving;
        let build = Build { library: LIBRARY.into(), generation: facts.generation, hash: self.hash() };
        Known { build, facts }
    }

    /// Hash of the serving build; empty before the first one.
    pub(crate) fn hash(&self) -> String {
        let service = self.host.core.services().first();
        service.and_then(|s| s.build.as_ref()).map_or_else(String::new, |b| b.hash.clone())
    }

    /// Services of a build that is kept, as the core takes them.
    pub(crate) fn services_of(&self, known: &Known, flawed: bool) -> Vec<(Offer, Box<dyn Code>)> {
        match self.subject {
            Subject::Script => known.services(flawed),
            Subject::Asks => {
                let code = self.asks(known.build.generation, flawed);
                vec![(offer(self.subject, &known.facts), code)]
            }
            Subject::Tally => {
                vec![(offer(self.subject, &known.facts), self.code(&known.build, known.facts.unreadable))]
            }
        }
    }

    /// Code of the serving build.
    pub(crate) fn code(&self, build: &Build, unreadable: Option<u64>) -> Box<dyn Code> {
        match self.subject {
            Subject::Script => Box::new(Script {
                generation: build.generation,
                version: self.builds.serving.version,
                unreadable,
                flawed: self.builds.flawed,
                damaged: self.damaged,
            }),
            Subject::Tally => {
                let library = Library::from_entry(echo_entry).expect("echo's table");
                let made = library.create(&BTreeMap::new(), self.host.board);
                let made = made.expect("instances");
                made.into_iter().find(|(o, _)| o.name == "tally").expect("tally").1
            }
            Subject::Asks => self.asks(build.generation, self.builds.flawed),
        }
    }

    /// Code of the service that asks, in a generation.
    fn asks(&self, generation: u64, flawed: bool) -> Box<dyn Code> {
        let settings = dialogues::settings(self.builds.serving.seed, generation, flawed);
        let settings = BTreeMap::from([(self.subject.name().to_owned(), settings)]);
        let library = Library::from_entry(asks_entry).expect("the table");
        library.create(&settings, self.host.board).expect("an instance").swap_remove(0).1
    }

    // --- probation ------------------------------------------------------------------------------

    /// Ends the serving build's probation: it stays, or the previous build takes over again.
    pub(crate) fn probation_ended(&mut self, end: &ProbationEnd, counts: &ProbationCounts) {
        self.counts.turns_spared += u64::from(counts.spared);
        if *end == ProbationEnd::Passed {
            assert!(!self.builds.flawed, "a flawed build passed its probation");
            self.builds.previous = None;
            self.counts.probations_passed += 1;
            return;
        }
        let may_fail = self.builds.flawed || self.builds.serving.unreadable.is_some();
        assert!(may_fail, "a good build failed: {end:?}");
        self.roll_back();
    }

    /// Puts the previous build in service again. The newer one converts what it wrote.
    fn roll_back(&mut self) {
        let newer = self.known();
        self.host.core.can_roll_back(LIBRARY).expect("there is a way back");
        let build = self.host.core.roll_back(LIBRARY).expect("a previous build");
        let previous = self.builds.previous.take().expect("a previous build");
        assert_eq!(build, previous.build);
        self.builds.serving = previous.facts;
        self.builds.flawed = false;
        self.builds.converters.push(newer);
        self.host.core.reloads.goes_on_with(self.host.library, build, None, self.builds.highest);
        self.counts.rollbacks += 1;
        // The candidate's version was counted from the build that is rolled back: its schema may
        // lose nothing from here.
        if let Some(c) = self.builds.candidate.as_mut().filter(|c| c.fate == Fate::LosesState) {
            c.fate = Fate::LoadFails;
        }
        self.commit();
    }
}
