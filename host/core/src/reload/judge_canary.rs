//! Judgement of canaries: one in the way of a reload, and a candidate that is to be one.
//!
//! While a canary runs, two builds have the library's sessions, and the build that serves owns all
//! that they share. So a candidate is refused as a canary if
//!
//! - its library runs no build, or one on probation;
//! - its services, endpoints, protocols or tables differ from those of the build that serves;
//! - states differ, and their version does not, or the way back is not exact;
//! - states of a newer version are stored, which a rolled-back build has left.
//!
//! The way back is known from declarations, and from the rehearsal with all live states. Every
//! other reason to refuse a reload holds as well (`judge.rs`). Nothing changes here.

use super::library::ActiveReload;
use super::request::Want;
use crate::service::canaries::Canaries;
use crate::service::offer::{Build, Offer};
use crate::service::probation::Probations;
use crate::service::registry::{Service, Services};
use greenroom_state::compatibility::{StateShape, TableShape};
use greenroom_state::rehearsal_report::WayBack;

/// Fails if a canary of a library is in the way of a reload, or if the canary to promote is not the
/// one that runs.
pub(super) fn canary_in_the_way(
    canaries: &Canaries,
    current: Option<&Build>,
    want: Want,
) -> Result<(), String> {
    let canary = current.and_then(|b| canaries.of(&b.library));
    match (want, canary) {
        (Want::Promote(generation), Some(c)) if c.generation == generation => Ok(()),
        (Want::Promote(generation), _) => {
            Err(format!("generation {generation} is no canary any more: it was taken back meanwhile"))
        }
        (_, None) => Ok(()),
        (_, Some(c)) => Err(format!(
            "generation {} runs as a canary; end it first: greenroom canary promote {}, or cancel",
            c.generation, c.library
        )),
    }
}

/// Judges a candidate that is to run some sessions. Fails with the first reason that is found.
pub(super) fn judge_canary(
    work: &ActiveReload,
    services: &Services,
    probations: &Probations,
) -> Result<(), String> {
    let name = &work.name;
    if services.of(name).next().is_none() {
        return Err(format!("library {name} runs no build beside which a canary could run: load it without"));
    }
    if let Some(p) = probations.of(name) {
        return Err(format!(
            "generation {} is on probation, and a canary runs beside a build that has proved itself; try again then",
            p.build.generation
        ));
    }
    for service in services.of(name) {
        let offer = work.offers.iter().find(|o| o.name == service.offer.name);
        let Some(offer) = offer else {
            return Err(differs(&format!("it does not offer service {}", service.offer.name)));
        };
        judge_shared(&service.offer, offer)?;
        judge_state(service, offer)?;
    }
    let is_served = |o: &&Offer| services.of(name).any(|s| s.offer.name == o.name);
    if let Some(new) = work.offers.iter().find(|o| !is_served(o)) {
        return Err(differs(&format!("it adds service {}", new.name)));
    }
    let shapes = work.rehearsal.iter().flat_map(|r| &r.shapes);
    match shapes.into_iter().find(|s| s.way_back != WayBack::Exact) {
        Some(shape) => Err(format!(
            "{}: the way back is not exact ({}), and the sessions of a canary may have to go back",
            shape.table.as_ref().unwrap_or(&shape.service),
            shape.way_back
        )),
        None => Ok(()),
    }
}

/// Completes a reason about what both builds would share.
fn differs(what: &str) -> String {
    format!("{what}, and sessions of both builds would share that: a canary can't change it")
}

/// Judges what sessions of both builds share: how a service is had, and its tables.
fn judge_shared(old: &Offer, new: &Offer) -> Result<(), String> {
    let name = &old.name;
    if (&old.endpoints, &old.protocols, old.dials) != (&new.endpoints, &new.protocols, new.dials) {
        return Err(differs(&format!("service {name} has other endpoints")));
    }
    let is_alike = |a: &TableShape, b: &TableShape| {
        (&a.name, a.hears_of_expiry) == (&b.name, b.hears_of_expiry) && is_same(&a.shape, &b.shape)
    };
    let others = |of: &Offer, among: &Offer| {
        let mut tables = of.tables.iter();
        tables.find(|t| !among.tables.iter().any(|o| is_alike(t, o))).map(|t| t.name.clone())
    };
    match others(new, old).or_else(|| others(old, new)) {
        Some(table) => Err(differs(&format!("table {table} of service {name} is another one"))),
        None => Ok(()),
    }
}

/// Whether two shapes have one version and one schema, so that neither needs a conversion.
fn is_same(a: &StateShape, b: &StateShape) -> bool {
    let fingerprint = |s: &StateShape| s.schema.as_ref().map(|s| s.fingerprint());
    a.version == b.version && fingerprint(a) == fingerprint(b)
}

/// Judges the states of a service: both builds must know the way to the other one's.
fn judge_state(service: &Service, offer: &Offer) -> Result<(), String> {
    let (name, old, new) = (&offer.name, &service.offer.shape, &offer.shape);
    if let Some(newer) = service.stored_versions().into_iter().find(|v| *v > old.version) {
        return Err(format!(
            "{name}: states of version {newer} are left of a build that was rolled back; try again once their sessions had a turn or ended"
        ));
    }
    match () {
        () if is_same(old, new) => Ok(()),
        () if new.version == old.version => Err(format!(
            "{name}: its state differs, and its version doesn't, so nothing leads back; raise STATE_VERSION above {}, \
             with a migration and the way back (`back`)",
            old.version
        )),
        () if new.schema.is_none() || old.schema.is_none() => {
            Err(format!("{name}: one of both builds keeps no state, so nothing leads back"))
        }
        () => new.converts(new.version, old.version).map_err(|gap| {
            format!(
                "{name}: nothing leads back from version {gap}, and the sessions of a canary may have to go back; \
                 add the way back (`back`) to its migrations"
            )
        }),
    }
}
