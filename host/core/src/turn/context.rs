//! Context of a call: what its turns may read of the host, and the limits that bound them.

use super::host_numbers::HostNumbers;
use crate::effects::birth::Birth;
use crate::effects::buckets::Buckets;
use crate::effects::jobs::Jobs;
use crate::effects::names::Names;
use crate::effects::outbound::Outbound;
use crate::effects::timers::Timers;
use crate::effects::topics::Topics;
use crate::framing::Framing;
use crate::ids::{ServiceId, Slot};
use crate::limits::host::Limits;
use crate::session::life::Session;
use crate::store::records::Store;
use crate::tables::index::Tables;

/// Conversion of a table's stored value, by table and stored version, to the version that the
/// callee reads; `Ok(None)`: it is that already.
pub(crate) type Convert<'a> = dyn Fn(&str, u32, &[u8]) -> Result<Option<Vec<u8>>, String> + 'a;

/// Frames a message by the code that is called. Fails with a sentence.
pub(crate) type OwnFraming<'a> = dyn Fn(&[u8]) -> Result<Vec<u8>, String> + 'a;

/// State of the host that a turn may read, and the limits that bound the turn.
#[derive(Clone, Copy)]
pub(crate) struct TurnContext<'a> {
    pub(crate) store: &'a Store,
    pub(crate) tables: &'a Tables,
    pub(crate) convert: &'a Convert<'a>,
    /// Limits of the session's service.
    pub(crate) limits: &'a Limits,
    /// Session as the last applied batch left it.
    pub(crate) session: &'a Session,
    pub(crate) slot: Slot,
    pub(crate) timers: &'a Timers,
    pub(crate) jobs: &'a Jobs,
    pub(crate) outbound: &'a Outbound,
    pub(crate) topics: &'a Topics,
    pub(crate) names: &'a Names,
    pub(crate) birth: &'a Birth,
    pub(crate) buckets: &'a Buckets,
    /// Passes that were committed, and turns of the service that were counted.
    pub(crate) pass_number: [u64; 2],
    pub(crate) host_numbers: &'a dyn Fn() -> HostNumbers,
    /// Number of sessions on a topic, in all services of the library. O(services).
    pub(crate) subscribers: &'a dyn Fn(&[u8]) -> usize,
    /// First open session of the service above a number, and the sessions that were looked at.
    pub(crate) session_next: &'a dyn Fn(u64) -> (Option<u64>, u64),
    /// First topic of the library from a name on. O(services).
    pub(crate) topic_next: &'a dyn Fn(&[u8]) -> Option<&'a [u8]>,
    /// Frames a message, if the framing is that of the code that is called.
    pub(crate) own_framing: &'a OwnFraming<'a>,
    /// Framing of the session's service, if it changes what is sent.
    pub(crate) encodes: Option<&'a Framing>,
    /// Number of a service that the host may connect for, by name. O(services).
    pub(crate) service: &'a dyn Fn(&str) -> Option<ServiceId>,
    /// Facts that any turn may ask for, by name.
    pub(crate) fact: &'a dyn Fn(&str) -> Option<String>,
    /// Whether a framing in use tells messages apart: then broadcasts are not merged. O(services).
    pub(crate) keeps_messages_apart: &'a dyn Fn() -> bool,
    /// Turns between each action and something from outside; 0 for those behind the end.
    pub(crate) depths: &'a [u16],
    /// Times of the pass in nanoseconds: CLOCK_MONOTONIC, and the calendar's since 1970, UTC.
    pub(crate) now_ns: u64,
    pub(crate) wall_ns: u64,
}
