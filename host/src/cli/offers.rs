//! Offers of libraries, held against each other and a configuration as a host does at its start.

use crate::config::Config;
use greenroom_core::reload::ports;
use greenroom_core::service::offer::Offer;
use greenroom_state::address::Address;
use greenroom_state::endpoint::Endpoint;
use std::collections::BTreeSet;

/// Offers that are to be served together.
#[derive(Default)]
pub(super) struct Together {
    services: BTreeSet<String>,
    tables: BTreeSet<String>,
    wanted: BTreeSet<(String, Address)>,
}

/// Judges the offers of one library. A command line may give its services the ports that they lack.
pub(super) fn judge(config: &Config, offers: &[Offer]) -> Result<(), String> {
    let mut together = Together::default();
    offers.iter().try_for_each(|offer| together.add(config, offer, true).map(drop))?;
    together.end()
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
        self.wanted.extend(endpoints.iter().map(|e| (name.clone(), e.address.clone())));
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

    /// Fails if two of the offers want one address.
    pub(super) fn end(&self) -> Result<(), String> {
        ports::changes(&BTreeSet::new(), &self.wanted).map(drop)
    }
}
