//! Context of a call: what its turns may read of the host, and the limits that bound them.

use super::host_numbers::HostNumbers;
use super::reads::{HostQuestion, Reads, Topic};
use super::stored_tables::StoredTables;
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
use crate::limits::share::room;
use crate::session::life::Session;

/// Conversion of a table's stored value, by table and stored version, to the version that the
/// callee reads; `Ok(None)`: it is that already.
pub(crate) type Convert<'a> = dyn Fn(&str, u32, &[u8]) -> Result<Option<Vec<u8>>, String> + 'a;

/// Frames a message by the code that is called. Fails with a sentence.
pub(crate) type OwnFraming<'a> = dyn Fn(&[u8]) -> Result<Vec<u8>, String> + 'a;

/// State of the host that a turn may read, and the limits that bound the turn.
#[derive(Clone, Copy)]
pub(crate) struct TurnContext<'a> {
    pub(crate) tables: StoredTables<'a>,
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
    /// Whether somebody watches the turn.
    pub(crate) is_watched: bool,
    /// Answers to a turn that is recorded or played; `None`: it is neither. The methods below ask
    /// here first, so turns read the parts through them alone.
    pub(crate) reads: Option<&'a Reads>,
}

impl<'a> TurnContext<'a> {
    /// A number, or none.
    #[inline]
    fn found(&self, q: HostQuestion<'_>, live: impl FnOnce() -> Option<u64>) -> Option<u64> {
        match self.reads {
            None => live(),
            Some(reads) => reads.number(q, live),
        }
    }

    /// A number of things.
    #[inline]
    fn count(&self, q: HostQuestion<'_>, live: impl FnOnce() -> usize) -> usize {
        self.found(q, || Some(live() as u64)).unwrap_or(0) as usize
    }

    /// Whether something is so.
    #[inline]
    fn is_so(&self, q: HostQuestion<'_>, live: impl FnOnce() -> bool) -> bool {
        self.found(q, || Some(live().into())) == Some(1)
    }

    /// Bytes with a number, or none.
    fn named(
        &self,
        q: HostQuestion<'_>,
        live: impl FnOnce() -> Option<(u64, &'a [u8])>,
    ) -> Option<(u64, &'a [u8])> {
        match self.reads {
            None => live(),
            Some(reads) => reads.bytes(q, live),
        }
    }

    /// Number of a key's token bucket, and the time when it is full, in nanoseconds. The bucket
    /// is one of the service, by the time of a token and their number.
    pub(super) fn bucket(&self, key: &[u8], interval_ns: u64, burst: u32) -> (u64, u64) {
        let live = || {
            let rate = [u64::from(self.session.service.0), interval_ns, burst.into()];
            let bucket = self.birth.number(&rate, key).max(1);
            (bucket, self.buckets.full_at_ns(bucket))
        };
        let Some(reads) = self.reads else { return live() };
        let rate = [interval_ns.to_le_bytes(), u64::from(burst).to_le_bytes()].concat();
        let q = HostQuestion { topic: Topic::Bucket, name: key, key: &rate, at: 0 };
        let found = reads.made(q, || {
            let (bucket, full_at_ns) = live();
            Some((bucket, full_at_ns.to_le_bytes().to_vec()))
        });
        let Some((bucket, full)) = found else { return (1, 0) };
        (bucket, full.first_chunk().map_or(0, |b| u64::from_le_bytes(*b)))
    }

    /// The `nth` random number of a turn, which has this number.
    pub(super) fn random(&self, turn: u64, nth: u64) -> u64 {
        let live = || {
            // Turns of the service itself have no number that lasts, so they go by the pass.
            let pass = if self.session.is_service() { self.pass_number } else { [0; 2] };
            self.birth.number(&[self.session.id, turn, pass[0], pass[1], nth], b"random")
        };
        self.found(HostQuestion::at(Topic::Random, nth), || Some(live())).unwrap_or(0)
    }

    /// Numbers of the host.
    pub(super) fn numbers(&self) -> HostNumbers {
        let live = || (self.host_numbers)();
        let Some(reads) = self.reads else { return live() };
        let q = HostQuestion::of(Topic::HostNumbers, b"");
        let numbers = reads.made(q, || Some((0, live().to_bytes())));
        numbers.map_or_else(HostNumbers::default, |(_, bytes)| HostNumbers::of_bytes(&bytes))
    }

    /// Number of the next job.
    pub(super) fn next_job(&self) -> u64 {
        self.found(HostQuestion::of(Topic::NextJob, b""), || Some(self.jobs.next())).unwrap_or(1)
    }

    /// Jobs of the host, as far as they count for this service: what is missing to `jobs_max` is
    /// what it may have.
    pub(super) fn jobs_len(&self) -> usize {
        let (max, own) = (self.limits.jobs_max, self.jobs.of_service(self.session.service));
        self.count(HostQuestion::of(Topic::Jobs, b""), || max - room(max, self.jobs.len(), own))
    }

    /// Jobs of the session.
    pub(super) fn own_jobs(&self) -> usize {
        self.count(HostQuestion::of(Topic::OwnJobs, b""), || self.jobs.count(self.session.id))
    }

    /// Number of the next connection.
    pub(super) fn next_connection(&self) -> u64 {
        self.found(HostQuestion::of(Topic::NextConnection, b""), || Some(self.outbound.next())).unwrap_or(1)
    }

    /// Connections that are being made, as far as they count for this service: what is missing to
    /// `connects_max` is what it may have.
    pub(super) fn connections(&self) -> usize {
        let (max, own) = (self.limits.connects_max, self.outbound.of_service(self.session.service));
        self.count(HostQuestion::of(Topic::Connections, b""), || max - room(max, self.outbound.len(), own))
    }

    /// Service of a name that the host may connect for.
    pub(super) fn service_of(&self, name: &str) -> Option<ServiceId> {
        let q = HostQuestion::of(Topic::Service, name.as_bytes());
        self.found(q, || (self.service)(name).map(|s| s.0.into())).map(|n| ServiceId(n as u16))
    }

    /// Names that the session holds.
    pub(super) fn own_names(&self) -> usize {
        self.count(HostQuestion::of(Topic::OwnNames, b""), || self.names.of(self.slot).len())
    }

    /// Session that holds a name of the service.
    pub(super) fn holder(&self, name: &[u8]) -> Option<u64> {
        self.found(HostQuestion::of(Topic::Holder, name), || self.names.holder(self.session.service, name))
    }

    /// First name of the service that is not before `from`, and its holder.
    pub(super) fn next_name(&self, from: &[u8]) -> Option<(&'a [u8], u64)> {
        let next = || self.names.from(self.session.service, from).next();
        let live = || next().map(|(name, holder)| (holder, name));
        self.named(HostQuestion::of(Topic::NextName, from), live).map(|(holder, name)| (name, holder))
    }

    /// Whether the session is on a topic.
    pub(super) fn is_on(&self, topic: &[u8]) -> bool {
        let live = || self.topics.is_on(self.session.service, topic, self.slot);
        self.is_so(HostQuestion::of(Topic::IsOn, topic), live)
    }

    /// Topics that the session is on.
    pub(super) fn own_topics(&self) -> usize {
        self.count(HostQuestion::of(Topic::OwnTopics, b""), || self.topics.count_of(self.slot))
    }

    /// Sessions on a topic, in all services of the library. O(services).
    pub(super) fn subscribers_of(&self, topic: &[u8]) -> usize {
        self.count(HostQuestion::of(Topic::Subscribers, topic), || (self.subscribers)(topic))
    }

    /// First topic of the library from a name on. O(services).
    pub(super) fn topic_from(&self, from: &[u8]) -> Option<&'a [u8]> {
        let live = || (self.topic_next)(from).map(|name| (0, name));
        self.named(HostQuestion::of(Topic::NextTopic, from), live).map(|(_, name)| name)
    }

    /// Whether a framing in use tells messages apart. O(services).
    pub(super) fn keeps_apart(&self) -> bool {
        self.is_so(HostQuestion::of(Topic::KeepsApart, b""), || (self.keeps_messages_apart)())
    }

    /// First open session of the service above a number, and the sessions that were looked at.
    pub(super) fn session_above(&self, after: u64) -> (Option<u64>, u64) {
        let mut looked_at = 0;
        let found = self.found(HostQuestion::at(Topic::NextSession, after), || {
            let (found, looked) = (self.session_next)(after);
            looked_at = looked;
            found
        });
        (found, looked_at)
    }

    /// Timers of the session, or of its service.
    pub(super) fn timers_of(&self, service: bool) -> usize {
        let live = || self.timers.count(self.timer_owner(service));
        self.count(HostQuestion::at(Topic::Timers, service.into()), live)
    }

    /// Whether the session, or its service, has a timer of a name.
    pub(super) fn has_timer(&self, service: bool, name: &str) -> bool {
        let q = HostQuestion { topic: Topic::HasTimer, name: name.as_bytes(), key: b"", at: service.into() };
        self.is_so(q, || self.timers.contains(self.timer_owner(service), name))
    }

    /// Owner of timers: the session, or its service.
    fn timer_owner(&self, service: bool) -> u64 {
        if service { self.session.service.number() } else { self.session.id }
    }

    /// Fact that the host or the batch knows. `own` looks among those of the batch.
    pub(super) fn fact_of(&self, name: &str, own: impl FnOnce() -> Option<Vec<u8>>) -> Option<Vec<u8>> {
        let live = || (self.fact)(name).map(String::into_bytes).or_else(own);
        match self.reads {
            None => live(),
            Some(reads) => {
                let q = HostQuestion::of(Topic::Fact, name.as_bytes());
                reads.made(q, || live().map(|fact| (0, fact))).map(|(_, fact)| fact)
            }
        }
    }
}
