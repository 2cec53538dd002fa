//! The limits in force for each service, and the count of those reached.

use super::host::Limits;
use super::names::Limit;
use super::per_service::{AllLimits, ServiceLimits};
use crate::ids::ServiceId;
use std::collections::BTreeMap;

/// The host's limits, those of single services, and the limits reached since they were last asked
/// for.
#[derive(Debug)]
pub(crate) struct LimitsInForce {
    host: Limits,
    /// Limits of single services by name, also of services that may come.
    per_service: BTreeMap<String, ServiceLimits>,
    /// The limits of each service by [`ServiceId`]; `None`: the host's.
    own: Vec<Option<Box<Limits>>>,
    reached: Vec<Limit>,
}

impl LimitsInForce {
    /// The host's limits, for all services.
    pub(crate) fn new(host: Limits) -> LimitsInForce {
        LimitsInForce { host, per_service: BTreeMap::new(), own: Vec::new(), reached: Vec::new() }
    }

    /// The host's limits.
    pub(crate) fn host(&self) -> &Limits {
        &self.host
    }

    /// The limits of single services, by name.
    pub(crate) fn per_service(&self) -> &BTreeMap<String, ServiceLimits> {
        &self.per_service
    }

    /// The limits of a service.
    #[inline]
    pub(crate) fn of(&self, service: ServiceId) -> &Limits {
        self.own.get(usize::from(service.0)).and_then(Option::as_deref).unwrap_or(&self.host)
    }

    /// Replaces all limits. `names` are the services by [`ServiceId`].
    pub(crate) fn set<'n>(&mut self, limits: AllLimits, names: impl Iterator<Item = &'n str>) {
        (self.host, self.per_service) = (limits.host, limits.services);
        self.own = names.map(|name| self.merged(name)).collect();
    }

    /// Gives the next service its limits.
    pub(crate) fn add_service(&mut self, name: &str) {
        self.own.push(self.merged(name));
    }

    fn merged(&self, name: &str) -> Option<Box<Limits>> {
        self.per_service.get(name).map(|own| Box::new(own.under(&self.host)))
    }

    /// Counts a limit that was reached.
    pub(crate) fn reached(&mut self, limit: Limit) {
        self.reached.push(limit);
    }

    /// Counts the limits that a batch reached, and empties the list.
    pub(crate) fn reached_all(&mut self, limits: &mut Vec<Limit>) {
        self.reached.append(limits);
    }

    /// Lends each limit reached since the last call, as often as it was.
    pub(crate) fn take_reached(&mut self, mut each: impl FnMut(Limit)) {
        self.reached.drain(..).for_each(&mut each);
    }
}
