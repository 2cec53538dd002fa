//! Wanted ports: endpoints of a configuration, and the held ports that are theirs already.
//!
//! An address names a port of its service, whatever its kind. Where the kernel chooses the port,
//! the address names none: several endpoints may ask for any port. Such an endpoint keeps a held
//! port of its own kind, or else one that no other endpoint wants.
//!
//! All lists are short: a call is O(ports x endpoints).

use crate::config::addresses::check_kinds;
use crate::protocol::keeper::HeldPort;
use greenroom_core::reload::ports::{Port, is_any};
use greenroom_state::endpoint::Endpoint;
use std::collections::BTreeMap;

/// Port as changes compare it: the service, and the address. Where the kernel chose the port, the
/// chosen one counts, so that several endpoints of one service may ask for any port.
pub(super) fn identity(held: &HeldPort) -> Port {
    match is_any(&held.port.1) {
        true => (held.port.0.clone(), held.addr.clone()),
        false => held.port.clone(),
    }
}

/// Endpoints that services want, with their ports as far as they have one.
pub(super) struct Wanted {
    /// Endpoints by [`identity`].
    pub(super) endpoints: BTreeMap<Port, Endpoint>,
    /// Ports that the kernel is to choose, with the kinds of their endpoints.
    pub(super) any: Vec<(Port, Box<str>)>,
}

impl Wanted {
    /// Finds the ports of endpoints, each with the name of its service. An endpoint that is there
    /// twice counts once. Fails if a service wants one address in two kinds.
    pub(super) fn of(held: &[HeldPort], all: &[(String, Endpoint)]) -> Result<Wanted, String> {
        check_kinds(all)?;
        let mut endpoints = BTreeMap::<Port, Endpoint>::new();
        let mut any: Vec<&(String, Endpoint)> = Vec::new();
        for wanted in all {
            let (service, endpoint) = wanted;
            if is_any(&endpoint.address) {
                if !any.contains(&wanted) {
                    any.push(wanted);
                }
                continue;
            }
            endpoints.insert((service.clone(), endpoint.address.clone()), endpoint.clone());
        }
        let mut free: Vec<_> = held.iter().filter(|p| is_any(&p.port.1)).collect();
        for of_its_kind in [true, false] {
            any.retain(|(service, endpoint)| {
                let is_it = |p: &&HeldPort| {
                    p.port.0 == *service
                        && p.port.1 == endpoint.address
                        && (!of_its_kind || p.kind == endpoint.kind)
                        && !endpoints.contains_key(&identity(p))
                };
                let Some(at) = free.iter().position(is_it) else { return true };
                endpoints.insert(identity(free.swap_remove(at)), endpoint.clone());
                false
            });
        }
        let port = |(service, e): &(String, Endpoint)| ((service.clone(), e.address.clone()), e.kind.clone());
        Ok(Wanted { endpoints, any: any.into_iter().map(port).collect() })
    }
}
