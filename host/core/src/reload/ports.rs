//! Which ports to open and which to close: what is wanted less what is held. Nothing is closed
//! before all is open.

use std::collections::BTreeSet;
use std::net::SocketAddr;

/// A service's port: the service's name and the address.
pub type Port = (String, SocketAddr);

/// What turns the ports held into those wanted.
#[derive(Debug, PartialEq, Eq, Default)]
pub struct Changes {
    /// To be bound, listened on, and accepted from once the reload is committed.
    pub open: Vec<Port>,
    /// To be closed once it is.
    pub close: Vec<Port>,
    /// An address that goes from one service to another: the same listener, so that no connection
    /// is refused between.
    pub hand_over: Vec<(Port, Port)>,
}

/// The difference, each side in order. An error names an address that two services want.
pub fn changes(held: &BTreeSet<Port>, wanted: &BTreeSet<Port>) -> Result<Changes, String> {
    let mut owner = std::collections::BTreeMap::new();
    for (service, addr) in wanted {
        // Port 0 is whatever the kernel gives, so it never collides.
        if addr.port() != 0
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
    changes.open.retain(|new| {
        match changes.close.iter().position(|old| old.1 == new.1 && new.1.port() != 0) {
            Some(at) => {
                changes.hand_over.push((changes.close.remove(at), new.clone()));
                false
            }
            None => true,
        }
    });
    Ok(changes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(ports: &[(&str, u16)]) -> BTreeSet<Port> {
        ports.iter().map(|(s, p)| (s.to_string(), ([127, 0, 0, 1], *p).into())).collect()
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
        assert!(err.contains("both echo and tally want 127.0.0.1:1"), "{err}");
    }
}
