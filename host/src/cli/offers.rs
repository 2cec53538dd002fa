//! Offers of libraries, held against each other and a configuration as a host does at its start.

use crate::config::Config;
use crate::config::addresses::check_kinds;
use greenroom_core::reload::ports;
use greenroom_core::service::offer::Offer;
use greenroom_state::endpoint::Endpoint;
use std::collections::BTreeSet;

/// Offers that are to be served together.
#[derive(Default)]
pub(super) struct Together {
    services: BTreeSet<String>,
    tables: BTreeSet<String>,
    wanted: Vec<(String, Endpoint)>,
}

/// Judges the offers of one library. A command line may give its services the ports that they lack.
pub(super) fn judge(config: &Config, offers: &[Offer]) -> Result<(), String> {
    let mut together = Together::default();
    offers.iter().try_for_each(|offer| together.add(config, offer, true).map(drop))?;
    together.end(config)
}

impl Together {
    /// Adds an offer, and returns its endpoints. Fails with the reason for which a host would
    /// refuse it. `may_lack_port`: a command line may give its service one.
    pub(super) fn add(
        &mut self,
        config: &Config,
        offer: &Offer,
        may_lack_port: bool,
    ) -> Result<Vec<Endpoint>, String> {
        let name = &offer.name;
        // A host refuses such an offer too, by the same limit.
        let (frames, allowed) = (offer.framing().bytes_max(), config.all_limits().of(name).frame_bytes_max);
        if frames == 0 || frames > allowed {
            return Err(format!(
                "service {name} wants frames of up to {frames} bytes; from 1 to {allowed} are allowed (limit frame_bytes_max)"
            ));
        }
        let may_lack_port = may_lack_port && offer.endpoints.iter().any(|e| e.port == 0);
        let endpoints = match config.endpoints(offer) {
            Err(_) if may_lack_port => Vec::new(),
            endpoints => endpoints?,
        };
        self.wanted.extend(endpoints.iter().map(|e| (name.clone(), e.clone())));
        if !self.services.insert(name.clone()) {
            return Err(format!("there are two services {name}"));
        }
        match offer.tables.iter().find(|table| !self.tables.insert(table.name.clone())) {
            Some(table) => Err(format!("table {} has two owners; a table has one", table.name)),
            None => Ok(endpoints),
        }
    }

    /// Whether a service of this name was added.
    pub(super) fn has(&self, service: &str) -> bool {
        self.services.contains(service)
    }

    /// Fails if one address is wanted twice, by offers or the observer.
    pub(super) fn end(&self, config: &Config) -> Result<(), String> {
        check(config, &self.wanted)
    }

    /// The same, if libraries came that offer all configured services. Their own ports are not
    /// known.
    pub(super) fn end_with_all(&self, config: &Config) -> Result<(), String> {
        let others = config.service.iter().filter(|(name, _)| !self.has(name));
        let others = others.flat_map(|(name, c)| c.listen.iter().map(|e| (name.clone(), e.clone())));
        check(config, &self.wanted.iter().cloned().chain(others).collect::<Vec<_>>())
    }
}

/// Checks endpoints and the observer's address against each other, as a host does.
fn check(config: &Config, wanted: &[(String, Endpoint)]) -> Result<(), String> {
    check_kinds(wanted)?;
    let wanted = wanted.iter().map(|(service, e)| (service.clone(), e.address.clone())).collect();
    ports::changes(&BTreeSet::new(), &wanted)?;
    config.check_observer(&wanted)
}
