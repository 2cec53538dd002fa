//! The limits in force for each service, and the count of those reached.
//!
//! If a service has limits of its own, they are merged with the host's in advance. A look at a
//! limit in a turn then costs one index. Limits change between two passes, for open sessions
//! too.
//!
//! A limit that is reached is noted here, once each time. The shell takes the notes after each
//! commit and adds them to the board, where they outlive the worker.

use super::host::Limits;
use super::names::Limit;
use super::per_service::{AllLimits, ServiceLimits};
use super::trusted::TrustedProxies;
use crate::ids::ServiceId;
use greenroom_state::address::Peer;
use std::collections::BTreeMap;

/// The host's limits, those of single services, and the limits reached since they were last
/// asked for.
#[derive(Debug)]
pub(crate) struct LimitsInForce {
    /// Limits of the host, and of each service that overrides none.
    host: Limits,
    /// Limits of single services by name, also of services that may come.
    per_service: BTreeMap<String, ServiceLimits>,
    /// Origins of single services by name, likewise.
    origins_by_name: BTreeMap<String, Vec<String>>,
    /// Origins of each service by [`ServiceId`].
    origins: Vec<Vec<String>>,
    /// Trusted proxies of single services by name, likewise.
    proxies_by_name: BTreeMap<String, TrustedProxies>,
    /// Trusted proxies of each service by [`ServiceId`].
    proxies: Vec<TrustedProxies>,
    /// Merged limits of each service by [`ServiceId`]; `None`: the host's.
    own: Vec<Option<Box<Limits>>>,
    /// Limits reached since the last take.
    reached: Counts,
}

impl LimitsInForce {
    /// Returns the host's limits, for all services.
    pub(crate) fn new(host: Limits) -> LimitsInForce {
        LimitsInForce {
            host,
            per_service: BTreeMap::new(),
            origins_by_name: BTreeMap::new(),
            origins: Vec::new(),
            proxies_by_name: BTreeMap::new(),
            proxies: Vec::new(),
            own: Vec::new(),
            reached: Counts::default(),
        }
    }

    /// Limits of the host.
    pub(crate) fn host(&self) -> &Limits {
        &self.host
    }

    /// Limits of single services, by name.
    pub(crate) fn per_service(&self) -> &BTreeMap<String, ServiceLimits> {
        &self.per_service
    }

    /// Limits of a service. O(1). A service that was not added has the host's.
    #[inline]
    pub(crate) fn of(&self, service: ServiceId) -> &Limits {
        self.own.get(usize::from(service.0)).and_then(Option::as_deref).unwrap_or(&self.host)
    }

    /// Origins whose pages may open sessions of a service. None: the host of the request.
    pub(crate) fn origins(&self, service: ServiceId) -> &[String] {
        self.origins.get(usize::from(service.0)).map_or(&[], Vec::as_slice)
    }

    /// Returns whether the PROXY header of a peer is believed.
    pub(crate) fn trusts_proxy(&self, service: ServiceId, peer: &Peer) -> bool {
        self.proxies.get(usize::from(service.0)).is_some_and(|proxies| proxies.trust(peer))
    }

    /// Replaces all limits. `names` are the services by [`ServiceId`]. The caller has checked
    /// the values. O(services).
    pub(crate) fn set<'n>(&mut self, limits: AllLimits, names: impl Iterator<Item = &'n str>) {
        (self.host, self.per_service) = (limits.host, limits.services);
        (self.origins_by_name, self.proxies_by_name) = (limits.origins, limits.proxies);
        (self.own, self.origins, self.proxies) = (Vec::new(), Vec::new(), Vec::new());
        names.for_each(|name| self.add_service(name));
    }

    /// Gives the next service its limits. Called in the order of [`ServiceId`].
    pub(crate) fn add_service(&mut self, name: &str) {
        self.own.push(self.merged(name));
        self.origins.push(self.origins_by_name.get(name).cloned().unwrap_or_default());
        self.proxies.push(self.proxies_by_name.get(name).cloned().unwrap_or_default());
    }

    /// Returns the limits of a service over the host's; `None`: it overrides none.
    fn merged(&self, name: &str) -> Option<Box<Limits>> {
        self.per_service.get(name).map(|own| Box::new(own.under(&self.host)))
    }

    /// Notes a limit that was reached.
    pub(crate) fn reached(&mut self, limit: Limit) {
        self.reached.add(limit);
    }

    /// Notes the limits that a batch reached, and empties the list.
    #[inline]
    pub(crate) fn reached_all(&mut self, limits: &mut Counts) {
        if !limits.0.is_empty() {
            limits.0.drain(..).for_each(|(limit, times)| self.reached.add_times(limit, times));
        }
    }

    /// Lends each limit reached since the last call, with how often it was, and forgets them.
    pub(crate) fn take_reached(&mut self, mut each: impl FnMut(Limit, u64)) {
        self.reached.0.drain(..).for_each(|(limit, times)| each(limit, times));
    }
}

/// Limits that were reached, each once, with how often. Mostly empty; never longer than there are
/// limits, however often a turn is refused.
#[derive(Debug, Default)]
pub(crate) struct Counts(Vec<(Limit, u64)>);

impl Counts {
    /// Counts a limit that was reached.
    pub(crate) fn add(&mut self, limit: Limit) {
        self.add_times(limit, 1);
    }

    /// Counts a limit that was reached so often.
    fn add_times(&mut self, limit: Limit, times: u64) {
        match self.0.iter_mut().find(|(l, _)| *l == limit) {
            Some((_, n)) => *n += times,
            None => self.0.push((limit, times)),
        }
    }

    /// Forgets them.
    #[inline]
    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }
}
