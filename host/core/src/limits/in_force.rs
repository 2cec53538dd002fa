//! Which limits hold for whom, and the counting of those that are reached.

use crate::command::Command;
use crate::core::Core;
use crate::ids::{ServiceId, Slot};
use crate::limits::host::Limits;
use crate::limits::names::Limit;
use crate::limits::per_service::AllLimits;
use crate::service::registry::Service;
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
        self.effects.push(Command::Notice { level: level::WARN, service, session, message });
    }

    /// The limits that were reached since the last call: each as often as it was.
    pub fn take_reached(&mut self, mut each: impl FnMut(Limit)) {
        self.reached.drain(..).for_each(&mut each);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::framing::Framing;
    use crate::input::Input;
    use crate::service::offer::{Build, Offer};
    use crate::session::life::Life;
    use crate::turn::code::{Batch, Code};
    use crate::turn::staging::Staging;
    use greenroom_state::compatibility::StateShape;

    struct Echo;

    impl Code for Echo {
        fn run(&self, batch: &Batch<'_>, staging: &mut Staging<'_>) -> u32 {
            for _ in batch.actions {
                staging.send(b"x\n");
                if !staging.turn_ok() {
                    break;
                }
            }
            0
        }
    }

    fn core(share: usize) -> Core {
        let mut core = Core::new(Limits { turns_at_once_max: share, ..Limits::default() });
        let framing = Framing::Lines { bytes_max: 9 };
        let shape = StateShape { version: 1, ..StateShape::default() };
        let offer = Offer { name: "s".into(), port: 0, dials: false, framing, shape, tables: Vec::new() };
        let build = Build { library: "l".into(), generation: 1, hash: String::new() };
        core.adopt(&build, vec![(offer, Box::new(Echo))]);
        core
    }

    /// What was sent in all, as the kernel takes everything.
    fn send(core: &mut Core) -> usize {
        let (mut sendable, mut sent) = (Vec::new(), 0);
        core.take_sendable(&mut sendable);
        for slot in sendable {
            while let Some(bytes) = core.output(slot, |pieces| pieces.iter().map(|p| p.len()).sum::<usize>())
            {
                core.handle(Input::Sent { slot, bytes, blocked: false });
                sent += bytes;
            }
        }
        sent
    }

    /// A share in each pass, no more and no less, and every line before the peer's end: also if the end is read in the very pass in which
    /// answers were sent.
    #[test]
    fn a_flood_has_its_share_of_each_pass_and_loses_nothing() {
        for share in [1, 64, 100] {
            let mut core = core(share);
            let (slot, service) = (Slot(0), core.service_named("s").expect("it was adopted"));
            core.handle(Input::PassBegins { now_ns: 1 });
            let peer = "127.0.0.1:9".parse().expect("an address");
            core.handle(Input::Opened { slot, id: 1, service, peer, at_ms: 0 });
            core.handle(Input::Received { slot, bytes: "y\n".repeat(1000).as_bytes() });
            core.handle(Input::Commit);
            let mut answered = send(&mut core) / 2;
            assert_eq!(answered, 1 + share);
            core.handle(Input::PeerDone { slot });
            let mut now_ns = 1;
            while core.sessions().get(slot).is_some_and(|s| s.life == Life::Open) {
                now_ns += 1;
                core.handle(Input::PassBegins { now_ns });
                core.handle(Input::Cascade);
                core.handle(Input::Commit);
                let before = answered;
                answered += send(&mut core) / 2;
                assert!(answered - before <= share + 1, "{} in one pass", answered - before);
                assert!(now_ns < 2000, "it hangs");
            }
            // Opened, a thousand lines, closed.
            assert_eq!(answered, 1002);
        }
    }
}
