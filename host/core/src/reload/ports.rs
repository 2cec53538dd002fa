//! Ports to open and ports to close: the difference between those held and those wanted.
//!
//! Only a computation: the keeper opens and closes. Ports are opened before the commit, all or
//! none, and closed after it. A refused reload therefore closes no port that serves.

use greenroom_state::address::Address;
use std::collections::BTreeSet;

/// A service's port: the service's name and the address.
pub type Port = (String, Address);

/// Changes that turn the ports held into those wanted.
#[derive(Debug, PartialEq, Eq, Default)]
pub struct Changes {
    /// Ports to bind and listen on before the commit. Connections are accepted from the commit
    /// on.
    pub open: Vec<Port>,
    /// Ports to close after the commit.
    pub close: Vec<Port>,
    /// Addresses that go from one service to another. The listener stays, so that no connection
    /// is refused between.
    pub hand_over: Vec<(Port, Port)>,
}

/// Computes the changes between two sets of ports, each list in the order of the sets. Fails if
/// two services want one address, or addresses that overlap, and names them. O(ports × ports).
pub fn changes(held: &BTreeSet<Port>, wanted: &BTreeSet<Port>) -> Result<Changes, String> {
    let mut owner = std::collections::BTreeMap::new();
    for (service, addr) in wanted {
        // The kernel chooses for port 0, so two of them never collide.
        if !is_any(addr)
            && let Some(other) = owner.insert(addr, service)
        {
            return Err(format!("both {other} and {service} want {addr}; give one of them another address"));
        }
    }
    for (at, (service, addr)) in wanted.iter().enumerate().filter(|(_, (_, addr))| !is_any(addr)) {
        let earlier = wanted.iter().take(at).find(|(_, other)| other != addr && overlap(other, addr));
        if let Some((other, with)) = earlier {
            return Err(format!(
                "{service} wants {addr}, which is part of {with} of {other}, or the other way round"
            ));
        }
    }
    let mut changes = Changes {
        open: wanted.difference(held).cloned().collect(),
        close: held.difference(wanted).cloned().collect(),
        hand_over: Vec::new(),
    };
    // An address that one service gives up and another takes is no new port. Port 0 of two
    // services is never the same port.
    changes.open.retain(|new| match changes.close.iter().position(|old| old.1 == new.1 && !is_any(&new.1)) {
        Some(at) => {
            changes.hand_over.push((changes.close.remove(at), new.clone()));
            false
        }
        None => true,
    });
    Ok(changes)
}

/// Returns whether connections to one port number may come to both addresses. The kernel listens at
/// one of them alone, unless a port moves. IPv6 ports take IPv6 alone.
pub fn overlap(a: &Address, b: &Address) -> bool {
    if std::mem::discriminant(a) != std::mem::discriminant(b) {
        return false;
    }
    let (Some(a), Some(b)) = (a.socket_addr(), b.socket_addr()) else { return false };
    let meets = a.ip() == b.ip() || a.ip().is_unspecified() || b.ip().is_unspecified();
    a.port() == b.port() && a.is_ipv4() == b.is_ipv4() && meets
}

/// Returns whether all connections to the second address come to the first one, too.
pub fn covers(wide: &Address, other: &Address) -> bool {
    overlap(wide, other) && wide.socket_addr().is_some_and(|a| a.ip().is_unspecified())
}

/// Returns whether the kernel chooses the port.
pub fn is_any(addr: &Address) -> bool {
    addr.socket_addr().is_some_and(|a| a.port() == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(ports: &[(&str, u16)]) -> BTreeSet<Port> {
        ports.iter().map(|(s, p)| (s.to_string(), Address::Tcp(([127, 0, 0, 1], *p).into()))).collect()
    }

    #[test]
    fn wanted_less_held() {
        let held = set(&[("echo", 1), ("tally", 2)]);
        let found = changes(&held, &set(&[("echo", 1), ("tally", 3)])).unwrap();
        assert_eq!(found.open, Vec::from_iter(set(&[("tally", 3)])));
        assert_eq!(found.close, Vec::from_iter(set(&[("tally", 2)])));
        assert_eq!(changes(&held, &held), Ok(Changes::default()));
        let found = changes(&held, &set(&[("echo", 1), ("count", 2)])).unwrap();
        assert_eq!((found.open.len(), found.close.len(), found.hand_over[0].1.0.as_str()), (0, 0, "count"));
        let err = changes(&held, &set(&[("echo", 1), ("tally", 1)])).unwrap_err();
        assert!(err.contains("both echo and tally want tcp://127.0.0.1:1"), "{err}");
        let mut wide = set(&[("echo", 1)]);
        wide.insert(("tally".into(), Address::Tcp(([0, 0, 0, 0], 1).into())));
        let err = changes(&held, &wide).unwrap_err();
        assert!(
            err.contains("tally wants tcp://0.0.0.0:1, which is part of tcp://127.0.0.1:1 of echo"),
            "{err}"
        );
    }
}
