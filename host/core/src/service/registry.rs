//! Registry: every service, the build that serves it, the one that stands by, and its counters.
//!
//! *Invariant*: a service has one number for ever, its place in the list. Records hold that
//! number, so services are never removed, and a service without a build keeps its place.
//!
//! | build | code | when |
//! | --- | --- | --- |
//! | serving | its own | a library offers the service |
//! | none | `Withdrawn` | the library no longer offers it; no session is left |
//! | none | `Missing` | no build is adopted yet after a takeover; or a rollback left sessions |
//!
//! A service may have three kinds of further builds. One standby is the last build that proved
//! itself, while another one is on probation. Converters are builds that were rolled back: they
//! convert what they left. A canary's candidate runs some of the sessions.
//!
//! A reload replaces what a service points to, in O(1), and touches no session. Replaced builds
//! are not dropped here, because their destructors may take longer than a commit may. They wait
//! in a list that the shell drops on another thread.

use super::canary_counts::BothCounts;
use super::canary_terms::CanaryTerms;
use super::framings::Framings;
use super::offer::{Build, Offer};
use super::placeholder::Missing;
use crate::framing::Framing;
use crate::ids::ServiceId;
use crate::turn::code::Code;
use greenroom_state::compatibility::StateShape;
use std::collections::BTreeMap;
use std::ops::{Index, IndexMut};
use std::sync::Arc;

/// Code of a build for one service, kept beside the one that serves.
pub(crate) struct LoadedBuild {
    /// Offer of the service by that build.
    pub(crate) offer: Offer,
    /// Fingerprint of the state's schema; 0: the build keeps no state.
    pub(crate) fingerprint: u64,
    /// Build that the code is of.
    pub(crate) build: Build,
    /// Code that runs turns and converts values.
    pub(crate) code: Box<dyn Code>,
}

impl LoadedBuild {
    /// Pairs code with what its build offers.
    pub(crate) fn new(offer: Offer, build: Build, code: Box<dyn Code>) -> LoadedBuild {
        LoadedBuild { fingerprint: fingerprint(&offer), offer, build, code }
    }
}

/// Candidate of a service, with its terms and counts.
pub(crate) struct Canary {
    /// Build, and its code.
    pub(crate) build: LoadedBuild,
    /// Terms, which the services of the library share.
    pub(crate) terms: Arc<CanaryTerms>,
    /// Counts, as of this moment.
    pub(crate) counts: BothCounts,
    /// Whether the counts differ from their record.
    pub(crate) changed: bool,
    /// Batches of the candidate since the last one that was compared.
    pub(crate) since_compared: u32,
}

/// Traffic of a service's sessions since the host started.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Sessions opened.
    pub opened: u64,
    /// Bytes taken from peers.
    pub bytes_in: u64,
    /// Bytes that the kernel took for peers.
    pub bytes_out: u64,
}

/// Service, with the builds that it points to and its counters.
pub struct Service {
    /// Offer of the build that serves. If none does: of the last one, or empty after a takeover.
    pub offer: Offer,
    /// Fingerprint of the state's schema; 0: the service keeps no state.
    pub fingerprint: u64,
    /// Build that serves; `None`: none does, and `code` is a placeholder.
    pub build: Option<Build>,
    /// Code that runs turns: the build's, or a placeholder's.
    pub(crate) code: Box<dyn Code>,
    /// Last build that proved itself, while the one that serves is on probation.
    pub(crate) standby: Option<LoadedBuild>,
    /// Builds that were rolled back, oldest first. They convert what they left to the version
    /// that is served, until a sweep has found the last of it.
    pub(crate) converters: Vec<LoadedBuild>,
    /// Candidate that runs some of the sessions.
    pub(crate) canary: Option<Box<Canary>>,
    /// Library that serves it, or was the last one to; empty: none has, in this process.
    library: String,
    /// Framings of its sessions.
    pub(crate) framings: Framings,
    /// Sessions, closing ones included.
    pub sessions: usize,
    /// Turns run, failed ones included. A successor counts on.
    pub turns: u64,
    /// Turns that failed, those that the previous build then ran included. A successor counts
    /// on.
    pub faults: u64,
    /// Sessions opened, and bytes of their streams. A successor counts on.
    pub traffic: Traffic,
    /// Sessions that hold a state of each version. A reload is judged by these versions, and a
    /// sweep ends by them. Versions without a session are not in the map.
    pub stored: BTreeMap<u32, usize>,
}

impl Service {
    /// Makes a service that a build begins to serve.
    pub(crate) fn new(offer: Offer, build: Build, code: Box<dyn Code>) -> Service {
        Service {
            fingerprint: fingerprint(&offer),
            framings: Framings::new(&offer.endpoints),
            offer,
            library: build.library.clone(),
            build: Some(build),
            code,
            standby: None,
            converters: Vec::new(),
            canary: None,
            sessions: 0,
            turns: 0,
            faults: 0,
            traffic: Traffic::default(),
            stored: BTreeMap::new(),
        }
    }

    /// Makes a service that a predecessor's records name. It has no code yet: its sessions wait
    /// until the successor adopts a build.
    pub(crate) fn unserved(name: String) -> Service {
        let offer = Offer { shape: StateShape::default(), ..Offer::new(name, Framing::UNSERVED) };
        let build = Build { library: String::new(), generation: 0, hash: String::new() };
        Service { build: None, ..Service::new(offer, build, Box::new(Missing)) }
    }

    /// Puts another build in charge, and returns the one that was, if any. O(1): sessions are
    /// not touched. The caller decides what becomes of the old build, and gives tables and
    /// quarantined sessions to the new one.
    pub(crate) fn replace(&mut self, by: LoadedBuild) -> Option<LoadedBuild> {
        let LoadedBuild { offer, fingerprint, build, code } = by;
        self.framings.follow(&offer.endpoints);
        self.library.clone_from(&build.library);
        let offer = std::mem::replace(&mut self.offer, offer);
        let fingerprint = std::mem::replace(&mut self.fingerprint, fingerprint);
        let code = std::mem::replace(&mut self.code, code);
        let build = self.build.replace(build)?;
        Some(LoadedBuild { offer, fingerprint, build, code })
    }

    /// Leaves the service without a build, and returns the one that was. Its offer stays, so
    /// that reports and judgements still know the last schema.
    pub(crate) fn withdraw(&mut self, instead: Box<dyn Code>) -> Option<LoadedBuild> {
        let build = self.build.take()?;
        let (offer, fingerprint) = (self.offer.clone(), self.fingerprint);
        Some(LoadedBuild { offer, fingerprint, build, code: std::mem::replace(&mut self.code, instead) })
    }

    /// Returns the shapes that the converters declare: of the state, or of one of the tables. A
    /// judgement asks them for a way back.
    pub(crate) fn converting(&self, table: Option<&str>) -> Vec<&StateShape> {
        self.converters
            .iter()
            .filter_map(|c| match table {
                None => Some(&c.offer.shape),
                Some(name) => c.offer.tables.iter().find(|t| t.name == name).map(|t| &t.shape),
            })
            .collect()
    }

    /// Returns whether a library serves the service.
    pub(crate) fn is_of(&self, library: &str) -> bool {
        self.build.as_ref().is_some_and(|b| b.library == library)
    }

    /// Returns the mark of a state that one of the builds writes. Without a standby build or a
    /// canary all writers are the one that serves.
    pub(crate) fn written(&self, writer: Writer) -> Written {
        let other = match writer {
            Writer::Serving => None,
            Writer::Standby => self.standby.as_ref(),
            Writer::Candidate => self.canary.as_ref().map(|c| &c.build),
        };
        other.map_or(Written { version: self.offer.shape.version, fingerprint: self.fingerprint }, |b| {
            Written { version: b.offer.shape.version, fingerprint: b.fingerprint }
        })
    }

    /// Returns the generation that serves; 0: none.
    pub fn generation(&self) -> u64 {
        self.build.as_ref().map_or(0, |b| b.generation)
    }

    /// Returns the versions of the states that sessions hold, in order.
    pub fn stored_versions(&self) -> Vec<u32> {
        self.stored.keys().copied().collect()
    }

    /// Moves one session's stored state from one version to another in the counts; 0: no state.
    /// The caller does so with every write and every end of a session.
    pub(crate) fn count_stored(&mut self, from: u32, to: u32) {
        if from == to {
            return;
        }
        if let Some(n) = self.stored.get_mut(&from) {
            *n -= 1;
            if *n == 0 {
                self.stored.remove(&from);
            }
        }
        if to != 0 {
            *self.stored.entry(to).or_default() += 1;
        }
    }
}

/// Returns the fingerprint of an offer's state; 0: no state is kept.
fn fingerprint(offer: &Offer) -> u64 {
    offer.shape.schema.as_ref().map_or(0, |s| s.fingerprint())
}

/// Writer of a state or entry, among the builds of a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Writer {
    /// Build that serves.
    Serving,
    /// Build that stands by.
    Standby,
    /// Candidate of a canary.
    Candidate,
}

/// Mark of a stored state: by it a build finds whether it must convert.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Written {
    /// Version of the state.
    pub(crate) version: u32,
    /// Fingerprint of the schema in which the state was written; 0: none.
    pub(crate) fingerprint: u64,
}

/// Services by [`ServiceId`], all that ever were.
#[derive(Default)]
pub(crate) struct Services {
    /// Services, each at the place of its number.
    all: Vec<Service>,
    /// Builds that no service needs any more. Dropping one takes longer than a commit may.
    retired: Vec<LoadedBuild>,
}

impl Services {
    /// Returns whether builds of a library are kept that convert what they leave: rolled-back ones,
    /// or a canary's candidate. O(services).
    pub(crate) fn convert_for(&self, library: &str) -> bool {
        let converts = |s: &Service| s.converters.iter().any(|c| c.build.library == library);
        self.all().iter().any(converts) || self.with_canary(library).next().is_some()
    }

    /// Returns the services by [`ServiceId`].
    pub(crate) fn all(&self) -> &[Service] {
        &self.all
    }

    /// Iterates over the services, to change them.
    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Service> {
        self.all.iter_mut()
    }

    /// Iterates over the services with their numbers.
    pub(crate) fn numbered(&self) -> impl Iterator<Item = (ServiceId, &Service)> {
        self.all.iter().enumerate().map(|(at, s)| (ServiceId(at as u16), s))
    }

    /// Returns the number of services, which is the number of the next one.
    pub(crate) fn len(&self) -> usize {
        self.all.len()
    }

    /// Returns the service of a number; `None`: there is no such number.
    pub(crate) fn get_mut(&mut self, service: ServiceId) -> Option<&mut Service> {
        self.all.get_mut(usize::from(service.0))
    }

    /// Returns the number of a service, whether a build serves it or not. O(services).
    pub(crate) fn number(&self, name: &str) -> Option<ServiceId> {
        self.numbered().find(|(_, s)| s.offer.name == name).map(|(id, _)| id)
    }

    /// Returns the number of a service, if a build serves it. O(services).
    pub(crate) fn served(&self, name: &str) -> Option<ServiceId> {
        self.numbered().find(|(_, s)| s.offer.name == name && s.build.is_some()).map(|(id, _)| id)
    }

    /// Returns the number of a service whose sessions may be connections that the host makes, if a
    /// build serves it. O(services).
    pub(crate) fn dialled(&self, name: &str) -> Option<ServiceId> {
        self.served(name).filter(|id| !self[*id].offer.framing().begins_with_request())
    }

    /// Returns the service of a name. O(services).
    pub(crate) fn named_mut(&mut self, name: &str) -> Option<&mut Service> {
        self.all.iter_mut().find(|s| s.offer.name == name)
    }

    /// Iterates over the services that a library serves now. O(services).
    pub(crate) fn of<'s>(&'s self, library: &'s str) -> impl Iterator<Item = &'s Service> {
        self.all.iter().filter(move |s| s.is_of(library))
    }

    /// Iterates over the services of a library in which a canary runs. O(services).
    pub(crate) fn with_canary<'s>(
        &'s self,
        library: &'s str,
    ) -> impl Iterator<Item = (ServiceId, &'s Service)> {
        self.numbered()
            .filter(move |(_, s)| s.canary.as_ref().is_some_and(|c| c.build.build.library == library))
    }

    /// Iterates over the services of a service's library, itself included. A service that no build
    /// serves stays with its last library. O(services).
    pub(crate) fn of_same_library(&self, service: ServiceId) -> impl Iterator<Item = ServiceId> {
        let library = &self[service].library;
        let is_same = move |(id, s): &(ServiceId, &Service)| {
            *id == service || !library.is_empty() && s.library == *library
        };
        self.numbered().filter(is_same).map(|(id, _)| id)
    }

    /// Returns whether a session has a framing that changes what is sent. O(services), as long as
    /// each has few framings.
    pub(crate) fn any_encodes(&self) -> bool {
        self.all.iter().any(|s| s.framings.in_use().any(|f| f.encodes()))
    }

    /// Returns the turns that the services of a library have run. O(services).
    pub(crate) fn turns_of(&self, library: &str) -> u64 {
        self.of(library).map(|s| s.turns).sum()
    }

    /// Adds a service under the next number. The caller stores its name under that number, so
    /// that a successor numbers the services alike.
    pub(crate) fn push(&mut self, service: Service) {
        self.all.push(service);
    }

    /// Keeps builds that no service needs any more for [`Services::take_retired`].
    pub(crate) fn retire(&mut self, builds: impl IntoIterator<Item = LoadedBuild>) {
        self.retired.extend(builds);
    }

    /// Retires the standby builds of a library, whose probation is over.
    pub(crate) fn retire_standbys(&mut self, library: &str) {
        for s in &mut self.all {
            self.retired.extend(s.standby.take_if(|b| b.build.library == library));
        }
    }

    /// Retires the builds that convert for a service: nothing of their versions is stored.
    pub(crate) fn retire_converters(&mut self, service: ServiceId) {
        self.retired.append(&mut self.all[usize::from(service.0)].converters);
    }

    /// Takes the retired builds, to be dropped on another thread; `None`: there is none. The
    /// type says nothing else, so that the shell can only drop them.
    pub(crate) fn take_retired(&mut self) -> Option<Box<dyn Send>> {
        let retired = std::mem::take(&mut self.retired);
        (!retired.is_empty()).then(|| Box::new(retired) as Box<dyn Send>)
    }
}

impl Index<ServiceId> for Services {
    type Output = Service;

    /// Panics if no service has the number. Recovery deletes records with such a number.
    #[inline]
    fn index(&self, service: ServiceId) -> &Service {
        &self.all[usize::from(service.0)]
    }
}

impl IndexMut<ServiceId> for Services {
    #[inline]
    fn index_mut(&mut self, service: ServiceId) -> &mut Service {
        &mut self.all[usize::from(service.0)]
    }
}
