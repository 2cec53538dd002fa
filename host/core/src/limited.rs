//! Which limits hold for whom, and the counting of those that are reached.

use crate::limits::{AllLimits, Limit, Limits};
use crate::service::Service;
use crate::session::{ServiceId, Slot};
use crate::{Core, Effect};
use greenroom_state::abi::level;

impl Core {
    /// Has these limits hold from here on, for sessions that are open too. Their deadlines follow a few a pass.
    pub fn set_limits(&mut self, limits: AllLimits) {
        self.limits = limits.host.clone();
        self.sessions.count_peers(self.limits.sessions_per_peer_max > 0);
        for s in &mut self.services {
            let own = limits.services.get(&s.offer.name);
            s.limits = own.map(|own| Box::new(own.under(&limits.host)));
        }
        self.service_limits = limits.services;
        self.expect_again = Some(0);
    }

    /// The limits of a service.
    pub(crate) fn limits_in(&self, service: ServiceId) -> &Limits {
        self.services[usize::from(service.0)].limits.as_deref().unwrap_or(&self.limits)
    }

    /// The limits of a session's service.
    #[inline]
    pub(crate) fn limits_of(&self, slot: Slot) -> &Limits {
        self.sessions.get(slot).map_or(&self.limits, |s| self.limits_in(s.service))
    }

    /// A new service has its own limits from the start.
    pub(crate) fn limit_service(&self, service: &mut Service) {
        let own = self.service_limits.get(&service.offer.name);
        service.limits = own.map(|own| Box::new(own.under(&self.limits)));
    }

    /// Counts a limit that was reached.
    pub(crate) fn reached(&mut self, limit: Limit) {
        self.reached.push(limit);
    }

    /// A limit was reached, and an operator should know.
    pub(crate) fn say_reached(&mut self, limit: Limit, level: u32, slot: Slot, what: &str) {
        self.reached(limit);
        self.notice(level, slot, format!("{what} ({limit})"));
    }

    /// As [`Core::say_reached`], about a connection that is no session.
    pub(crate) fn say_refused(&mut self, limit: Limit, service: ServiceId, session: u64, what: &str) {
        self.reached(limit);
        let message = format!("{what} ({limit})");
        self.effects.push(Effect::Notice { level: level::WARN, service, session, message });
    }

    /// The limits that were reached since the last call: each as often as it was.
    pub fn take_reached(&mut self, mut each: impl FnMut(Limit)) {
        self.reached.drain(..).for_each(&mut each);
    }
}
