//! Services: what a library offers, the code that serves it now, and what is counted about it.

use crate::framing::Framing;
pub use crate::ids::ServiceId;
use crate::limits::host::Limits;
use crate::service::offer::Build;
use crate::service::offer::Offer;
use crate::service::placeholder::Missing;
use crate::turn::code::Code;
use greenroom_state::compatibility::StateShape;
use std::collections::BTreeMap;

/// A build's code for one service, kept beside the one that serves.
pub(crate) struct LoadedBuild {
    pub(crate) offer: Offer,
    pub(crate) fingerprint: u64,
    pub(crate) build: Build,
    pub(crate) code: Box<dyn Code>,
}

impl LoadedBuild {
    pub(crate) fn new(offer: Offer, build: Build, code: Box<dyn Code>) -> LoadedBuild {
        LoadedBuild { fingerprint: fingerprint(&offer), offer, build, code }
    }
}

/// A service and its code.
pub struct Service {
    /// What its library says.
    pub offer: Offer,
    /// Fingerprint of the state's schema; 0: it keeps none.
    pub fingerprint: u64,
    /// The build that serves it; `None`: its library withdrew it.
    pub build: Option<Build>,
    pub(crate) code: Box<dyn Code>,
    /// The last build that proved itself, while the one that serves is on probation.
    pub(crate) before: Option<LoadedBuild>,
    /// Builds that were rolled back: they make what they left into what the build that serves reads.
    pub(crate) converters: Vec<LoadedBuild>,
    /// Its own limits; `None`: the host's.
    pub(crate) limits: Option<Box<Limits>>,
    /// Sessions alive.
    pub sessions: usize,
    /// Turns run.
    pub turns: u64,
    /// Turns that failed.
    pub faults: u64,
    /// How many sessions hold a state of each version.
    pub stored: BTreeMap<u32, usize>,
}

impl Service {
    pub(crate) fn new(offer: Offer, build: Build, code: Box<dyn Code>) -> Service {
        Service {
            fingerprint: fingerprint(&offer),
            offer,
            build: Some(build),
            code,
            before: None,
            converters: Vec::new(),
            limits: None,
            sessions: 0,
            turns: 0,
            faults: 0,
            stored: BTreeMap::new(),
        }
    }

    /// A service that a predecessor's records name. It has no code yet.
    pub(crate) fn unserved(name: String) -> Service {
        let framing = Framing::Lines { bytes_max: 0 };
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

    /// What the builds say that convert what they left: of the state, or of one of its tables.
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

    /// How a state is marked that one of its builds has written.
    pub(crate) fn written(&self, writer: Writer) -> Written {
        match (writer, &self.before) {
            (Writer::Before, Some(b)) => {
                Written { version: b.offer.shape.version, fingerprint: b.fingerprint }
            }
            _ => Written { version: self.offer.shape.version, fingerprint: self.fingerprint },
        }
    }

    /// The generation that serves it; 0: none.
    pub fn generation(&self) -> u64 {
        self.build.as_ref().map_or(0, |b| b.generation)
    }

    /// The versions of the states that sessions hold.
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

/// Which build of a service has written something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Writer {
    /// The one that serves.
    Serving,
    /// The one before, which stands by.
    Before,
}

/// How a stored state is marked.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Written {
    pub(crate) version: u32,
    pub(crate) fingerprint: u64,
}
