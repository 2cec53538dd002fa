//! Services: what a library offers, the code that serves it now, and what is counted about it.

use crate::framing::Framing;
use crate::limits::Limits;
pub use crate::session::ServiceId;
use crate::turn::{Fault, Staging};
use greenroom_state::abi;
use greenroom_state::shape::{StateShape, TableShape};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;

/// What one call of a handler gets: actions of one session, oldest first.
#[derive(Clone, Copy)]
pub struct Batch<'a> {
    /// The session's number.
    pub session: u64,
    /// Its service.
    pub service: ServiceId,
    /// The generation of the code that is called.
    pub generation: u64,
    /// Turns that the session ran before.
    pub turn: u64,
    /// CLOCK_MONOTONIC, in nanoseconds.
    pub now_ns: u64,
    /// The stored state and its version; `None`: none stored.
    pub state: Option<(u32, &'a [u8])>,
    /// None: a rehearsal, which only reads the state.
    pub actions: &'a [abi::Action<'a>],
}

/// A service's callback: loaded code in a host, a plain struct in a test.
///
/// It runs the actions in order; if there are none, it reads the state and hands it over, or fails.
///
///  After each it calls [`Staging::turn_ok`], and goes on while that is true, or
/// [`Staging::turn_failed`], and returns. Before it returns it hands over the state that the successful turns left, if
/// they changed it. It returns [`abi::RUN_STATE_LOST`] when a failed turn made that impossible, else 0.
pub trait Code: Send {
    /// See the trait.
    fn run(&self, batch: &Batch<'_>, staging: &mut Staging<'_>) -> u32;

    /// Whether it knows actions of a kind: an older library may not.
    fn knows(&self, kind: u32) -> bool {
        let _ = kind;
        true
    }

    /// The service's jobs; `None`: it has none.
    fn work(&self) -> Option<Arc<dyn Work>> {
        None
    }

    /// Takes a value of the session's state (`which` is 0) or of the n-th table that the service owns from one version to another,
    /// up or down; if it arrives at this build's own version, it is read and written again. The error is a sentence.
    fn convert(&self, which: u32, from: u32, to: u32, value: &[u8]) -> Result<Vec<u8>, String> {
        let _ = (which, from, to, value);
        Err("this build converts nothing: it is of ABI 1.0".into())
    }
}

/// A service's jobs. It lives as long as one of them runs, whatever serves by then.
pub trait Work: Send + Sync {
    /// Runs one, on any thread. `cancelled` is not 0 once nobody wants the result. The error is a sentence.
    fn run(&self, name: &str, input: &[u8], cancelled: &AtomicU32) -> Result<Vec<u8>, String>;
}

/// What a library says of one of its services.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Offer {
    /// Its name.
    pub name: String,
    /// Default TCP port on loopback; 0: none.
    pub port: u16,
    /// Its sessions are connections that are asked for, so it needs no port.
    #[serde(default)]
    pub dials: bool,
    /// How its stream is cut.
    pub framing: Framing,
    /// Its state's version, schema and migrations.
    pub shape: StateShape,
    /// The tables that it owns.
    pub tables: Vec<TableShape>,
}

/// What a library offers, with the code of each service.
pub type Serving = Vec<(Offer, Box<dyn Code>)>;

/// The build that serves now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Build {
    /// The library's name.
    pub library: String,
    /// Counts the library's builds, from 1.
    pub generation: u64,
    /// SHA-256 of the file, in hexadecimal.
    pub hash: String,
}

/// A build's code for one service, kept beside the one that serves.
pub(crate) struct Served {
    pub(crate) offer: Offer,
    pub(crate) fingerprint: u64,
    pub(crate) build: Build,
    pub(crate) code: Box<dyn Code>,
}

impl Served {
    pub(crate) fn new(offer: Offer, build: Build, code: Box<dyn Code>) -> Served {
        Served { fingerprint: fingerprint(&offer), offer, build, code }
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
    pub(crate) before: Option<Served>,
    /// Builds that were rolled back: they make what they left into what the build that serves reads.
    pub(crate) converters: Vec<Served>,
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
    pub(crate) fn replace(&mut self, by: Served) -> Option<Served> {
        let Served { offer, fingerprint, build, code } = by;
        let offer = std::mem::replace(&mut self.offer, offer);
        let fingerprint = std::mem::replace(&mut self.fingerprint, fingerprint);
        let code = std::mem::replace(&mut self.code, code);
        let build = self.build.replace(build)?;
        Some(Served { offer, fingerprint, build, code })
    }

    /// Leaves the service without a build, and returns the one that was.
    pub(crate) fn withdraw(&mut self, instead: Box<dyn Code>) -> Option<Served> {
        let build = self.build.take()?;
        let (offer, fingerprint) = (self.offer.clone(), self.fingerprint);
        Some(Served { offer, fingerprint, build, code: std::mem::replace(&mut self.code, instead) })
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

/// The code of a service that its library no longer offers. Only services without sessions are withdrawn, and their ports
/// are closed in the same step, so a turn here is a connection that was accepted just before.
pub(crate) struct Withdrawn;

/// The code of a service that a successor has no library for: its sessions wait.
pub(crate) struct Missing;

impl Code for Withdrawn {
    fn run(&self, _: &Batch<'_>, staging: &mut Staging<'_>) -> u32 {
        staging.close();
        staging.turn_ok();
        0
    }
}

impl Code for Missing {
    fn run(&self, _: &Batch<'_>, staging: &mut Staging<'_>) -> u32 {
        let message = "no library offers this service".into();
        staging.turn_failed(Fault { kind: abi::fault::STATE, message, file: String::new(), line: 0 });
        0
    }
}
