//! Every service: the build that serves it, the one that stands by, and its counters.

use super::offer::{Build, Offer};
use super::placeholder::Missing;
use crate::framing::Framing;
use crate::ids::ServiceId;
use crate::turn::code::Code;
use greenroom_state::compatibility::StateShape;
use std::collections::BTreeMap;
use std::ops::{Index, IndexMut};

/// A build's code for one service, kept beside the one that serves.
pub(crate) struct LoadedBuild {
    pub(crate) offer: Offer,
    pub(crate) fingerprint: u64,
    pub(crate) build: Build,
    pub(crate) code: Box<dyn Code>,
}

impl LoadedBuild {
    /// A build's code, with what the build offers.
    pub(crate) fn new(offer: Offer, build: Build, code: Box<dyn Code>) -> LoadedBuild {
        LoadedBuild { fingerprint: fingerprint(&offer), offer, build, code }
    }
}

/// A service and its code.
pub struct Service {
    /// Offer of the build that serves it.
    pub offer: Offer,
    /// Fingerprint of the state's schema; 0: it keeps no state.
    pub fingerprint: u64,
    /// Build that serves it; `None`: its library withdrew it.
    pub build: Option<Build>,
    pub(crate) code: Box<dyn Code>,
    /// Last build that proved itself, while the one that serves is on probation.
    pub(crate) standby: Option<LoadedBuild>,
    /// Builds that were rolled back: they convert what they left to the version that is served.
    pub(crate) converters: Vec<LoadedBuild>,
    /// Sessions alive.
    pub sessions: usize,
    /// Turns run.
    pub turns: u64,
    /// Turns that failed.
    pub faults: u64,
    /// Sessions that hold a state of each version.
    pub stored: BTreeMap<u32, usize>,
}

impl Service {
    /// A service that a build begins to serve.
    pub(crate) fn new(offer: Offer, build: Build, code: Box<dyn Code>) -> Service {
        Service {
            fingerprint: fingerprint(&offer),
            offer,
            build: Some(build),
            code,
            standby: None,
            converters: Vec::new(),
            sessions: 0,
            turns: 0,
            faults: 0,
            stored: BTreeMap::new(),
        }
    }

    /// A service that a predecessor's records name. It has no code yet.
    pub(crate) fn unserved(name: String) -> Service {
        let framing = Framing::UNSERVED;
        let offer =
            Offer { name, port: 0, dials: false, framing, shape: StateShape::default(), tables: Vec::new() };
        let build = Build { library: String::new(), generation: 0, hash: String::new() };
        Service { build: None, ..Service::new(offer, build, Box::new(Missing)) }
    }

    /// Puts another build in charge, and returns the one that was, if any.
    pub(crate) fn replace(&mut self, by: LoadedBuild) -> Option<LoadedBuild> {
        let LoadedBuild { offer, fingerprint, build, code } = by;
        let offer = std::mem::replace(&mut self.offer, offer);
        let fingerprint = std::mem::replace(&mut self.fingerprint, fingerprint);
        let code = std::mem::replace(&mut self.code, code);
        let build = self.build.replace(build)?;
        Some(LoadedBuild { offer, fingerprint, build, code })
    }

    /// Leaves the service without a build, and returns the one that was.
    pub(crate) fn withdraw(&mut self, instead: Box<dyn Code>) -> Option<LoadedBuild> {
        let build = self.build.take()?;
        let (offer, fingerprint) = (self.offer.clone(), self.fingerprint);
        Some(LoadedBuild { offer, fingerprint, build, code: std::mem::replace(&mut self.code, instead) })
    }

    /// Shapes that the converting builds declare: of the state, or of one of the tables.
    pub(crate) fn converting(&self, table: Option<&str>) -> Vec<&StateShape> {
        self.converters
            .iter()
            .filter_map(|c| match table {
                None => Some(&c.offer.shape),
                Some(name) => c.offer.tables.iter().find(|t| t.name == name).map(|t| &t.shape),
            })
            .collect()
    }

    /// Whether a library serves it.
    pub(crate) fn is_of(&self, library: &str) -> bool {
        self.build.as_ref().is_some_and(|b| b.library == library)
    }

    /// The mark of a state that one of its builds writes.
    pub(crate) fn written(&self, writer: Writer) -> Written {
        match (writer, &self.standby) {
            (Writer::Standby, Some(b)) => {
                Written { version: b.offer.shape.version, fingerprint: b.fingerprint }
            }
            _ => Written { version: self.offer.shape.version, fingerprint: self.fingerprint },
        }
    }

    /// Generation that serves it; 0: none.
    pub fn generation(&self) -> u64 {
        self.build.as_ref().map_or(0, |b| b.generation)
    }

    /// Versions of the states that sessions hold.
    pub fn stored_versions(&self) -> Vec<u32> {
        self.stored.keys().copied().collect()
    }

    /// Follows one session's stored state from one version (0: none) to another.
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

fn fingerprint(offer: &Offer) -> u64 {
    offer.shape.schema.as_ref().map_or(0, |s| s.fingerprint())
}

/// The build of a service that wrote something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Writer {
    /// The build that serves.
    Serving,
    /// The build that stands by.
    Standby,
}

/// The mark of a stored state.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Written {
    pub(crate) version: u32,
    pub(crate) fingerprint: u64,
}

/// All services that ever were, by [`ServiceId`].
#[derive(Default)]
pub(crate) struct Services {
    all: Vec<Service>,
    /// Builds that nobody needs any more. Dropping one takes longer than a commit may.
    retired: Vec<LoadedBuild>,
}

impl Services {
    /// The services by [`ServiceId`].
    pub(crate) fn all(&self) -> &[Service] {
        &self.all
    }

    /// The services, to change them.
    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Service> {
        self.all.iter_mut()
    }

    /// The services with their numbers.
    pub(crate) fn numbered(&self) -> impl Iterator<Item = (ServiceId, &Service)> {
        self.all.iter().enumerate().map(|(at, s)| (ServiceId(at as u16), s))
    }

    /// Services.
    pub(crate) fn len(&self) -> usize {
        self.all.len()
    }

    /// The service of a number.
    pub(crate) fn get_mut(&mut self, service: ServiceId) -> Option<&mut Service> {
        self.all.get_mut(usize::from(service.0))
    }

    /// The number of a service. O(services).
    pub(crate) fn number(&self, name: &str) -> Option<ServiceId> {
        self.numbered().find(|(_, s)| s.offer.name == name).map(|(id, _)| id)
    }

    /// The service of a name. O(services).
    pub(crate) fn named_mut(&mut self, name: &str) -> Option<&mut Service> {
        self.all.iter_mut().find(|s| s.offer.name == name)
    }

    /// The services of a library.
    pub(crate) fn of<'s>(&'s self, library: &'s str) -> impl Iterator<Item = &'s Service> {
        self.all.iter().filter(move |s| s.is_of(library))
    }

    /// Turns that a library's services have run.
    pub(crate) fn turns_of(&self, library: &str) -> u64 {
        self.of(library).map(|s| s.turns).sum()
    }

    /// Adds the next service.
    pub(crate) fn push(&mut self, service: Service) {
        self.all.push(service);
    }

    /// Keeps builds that nobody needs any more for [`Services::take_retired`].
    pub(crate) fn retire(&mut self, builds: impl IntoIterator<Item = LoadedBuild>) {
        self.retired.extend(builds);
    }

    /// Retires the builds of a library that stand by.
    pub(crate) fn retire_standbys(&mut self, library: &str) {
        for s in &mut self.all {
            self.retired.extend(s.standby.take_if(|b| b.build.library == library));
        }
    }

    /// Retires the builds that convert for a service.
    pub(crate) fn retire_converters(&mut self, service: ServiceId) {
        self.retired.append(&mut self.all[usize::from(service.0)].converters);
    }

    /// The builds that nobody needs any more, to be dropped elsewhere; `None`: there is none.
    pub(crate) fn take_retired(&mut self) -> Option<Box<dyn Send>> {
        let retired = std::mem::take(&mut self.retired);
        (!retired.is_empty()).then(|| Box::new(retired) as Box<dyn Send>)
    }
}

impl Index<ServiceId> for Services {
    type Output = Service;

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
