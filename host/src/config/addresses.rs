//! Addresses that services and the observer want: one that is wanted twice is refused by name.
//!
//! A host asks before it opens ports, and `serve --check-config` asks the same. What two services
//! want is compared in the core (`reload/ports.rs`).

use crate::config::Config;
use greenroom_core::reload::ports::{Port, is_any, overlap};
use greenroom_state::address::Address;
use greenroom_state::endpoint::Endpoint;
use std::collections::BTreeMap;

/// Checks that no service wants one address in two kinds. The endpoints come with the names of
/// their services. Where the kernel chooses the port, each endpoint gets one of its own.
pub fn check_kinds(endpoints: &[(String, Endpoint)]) -> Result<(), String> {
    let mut kinds = BTreeMap::new();
    for (service, Endpoint { kind, address }) in endpoints.iter().filter(|(_, e)| !is_any(&e.address)) {
        let twin = kinds.insert((service, address), kind);
        if let Some(other) = twin.filter(|other| *other != kind) {
            return Err(format!("service {service} wants {address} twice, as {kind:?} and {other:?}"));
        }
    }
    Ok(())
}

impl Config {
    /// Checks that no service has a port at the observer's address, or at one that overlaps it.
    pub fn check_observer<'p>(&self, ports: impl IntoIterator<Item = &'p Port>) -> Result<(), String> {
        let Some(wanted) = self.observe.listen.map(Address::Tcp).filter(|at| !is_any(at)) else {
            return Ok(());
        };
        match ports.into_iter().find(|(_, at)| overlap(at, &wanted)) {
            None => Ok(()),
            Some((service, at)) if *at == wanted => Err(format!(
                "both observe.listen and service {service} want {at}; give one of them another address"
            )),
            Some((service, at)) => Err(format!(
                "observe.listen is {wanted}, which overlaps {at} of service {service}; give one of them another \
                 address"
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::tests::read;

    fn wanted(all: &[&str]) -> Vec<(String, Endpoint)> {
        all.iter().map(|at| ("a".to_owned(), at.parse().unwrap())).collect()
    }

    #[test]
    fn an_address_is_wanted_once() {
        let said = check_kinds(&wanted(&["127.0.0.1:1", "ws://127.0.0.1:1"])).unwrap_err();
        assert_eq!(said, "service a wants tcp://127.0.0.1:1 twice, as \"ws\" and \"\"");
        let good = ["127.0.0.1:1", "127.0.0.1:1", "127.0.0.1:0", "ws://127.0.0.1:0", "udp://127.0.0.1:1"];
        assert_eq!(check_kinds(&wanted(&good)), Ok(()));
    }

    #[test]
    fn the_observer_has_its_address_alone() {
        let config = read("[observe]\nlisten = \"127.0.0.1:9\"\n").unwrap();
        let check = |at: &str| config.check_observer(&[("a".to_owned(), at.parse::<Address>().unwrap())]);
        assert!(check("127.0.0.1:9").unwrap_err().contains("both observe.listen and service a want"));
        assert!(check("0.0.0.0:9").unwrap_err().contains("overlaps tcp://0.0.0.0:9 of service a"));
        for other in ["127.0.0.1:10", "127.0.0.2:9", "[::]:9", "udp://127.0.0.1:9", "127.0.0.1:0"] {
            assert_eq!(check(other), Ok(()), "{other}");
        }
        let any = read("[observe]\nlisten = \"127.0.0.1:0\"\n").unwrap();
        assert_eq!(any.check_observer(&[("a".to_owned(), "127.0.0.1:0".parse().unwrap())]), Ok(()));
    }
}
