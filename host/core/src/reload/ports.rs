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
/// two services want one address, and names them. O(ports × closed ports).
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

/// Returns whether the kernel chooses the port.
fn is_any(addr: &Address) -> bool {
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
    }
}
