//! Judgement of a build that was tried: its offers, against what is live.
//!
//! By now the shell has found no fault in the file, and a child process has loaded it. A
//! candidate is refused if
//!
//! - another library runs at its path, or its library runs from another path;
//! - a build that is being committed, or another member of its group, offers the same;
//! - its offers contradict themselves, or its frames are longer than the limit allows;
//! - it takes a service or a table from another library;
//! - it withdraws a service that has sessions;
//! - a schema changes without a higher version, or stored data cannot be migrated or downgraded;
//! - a canary is in the way, or the candidate is to be one and cannot ([`super::judge_canary`]).
//!
//! A reload is judged twice: after its trial, and again before its commit, because sessions
//! open and states are written meanwhile. The judgement reads no data, only schemas and the
//! versions that are stored. Whether each single value can be read is the finding of the
//! rehearsal. Nothing changes here. O(libraries × offers × tables). An error is a sentence
//! about the candidate, for the operator.

use crate::host_state::HostState;
use crate::limits::in_force::LimitsInForce;
use crate::reload::judge_canary::{canary_in_the_way, judge_canary};
use crate::reload::library::ActiveReload;
use crate::reload::library::Library;
use crate::reload::library::Stage;
use crate::reload::request::{LibraryId, Want};
use crate::service::canaries::Canaries;
use crate::service::offer::Offer;
use crate::service::probation::Probations;
use crate::service::registry::Service;
use crate::service::registry::Services;
use crate::tables::index::Tables;
use crate::tables::owner::TableOwners;
use greenroom_state::compatibility::{TableShape, judge, judge_back};

/// Live data that a candidate is judged by. Borrowed for one event, so always the latest.
pub(crate) struct LiveData<'a> {
    /// All services that ever were.
    pub(crate) services: &'a Services,
    /// All tables, for the versions of their values.
    pub(crate) tables: &'a Tables,
    /// Owners by table.
    pub(crate) owners: &'a TableOwners,
    /// Limits of the host, and those that services override.
    pub(crate) limits: &'a LimitsInForce,
    /// Builds on probation.
    pub(crate) probations: &'a Probations,
    /// Canaries under way.
    pub(crate) canaries: &'a Canaries,
}

impl LiveData<'_> {
    /// Borrows the live data of a host.
    pub(crate) fn of(host: &HostState) -> LiveData<'_> {
        let HostState { services, tables, owners, limits, probations, canaries, .. } = host;
        LiveData { services, tables, owners, limits, probations, canaries }
    }
}

/// Judges the candidate of a library whose trial has ended. Fails with the first reason that is
/// found.
pub(super) fn judge_candidate(
    libraries: &[Library],
    id: LibraryId,
    live: &LiveData<'_>,
) -> Result<(), String> {
    let Some(work) = &libraries[id.0].work else { return Err("no reload is under way".into()) };
    let name = &work.name;
    canary_in_the_way(live.canaries, libraries[id.0].current.as_ref(), work.request.want)?;
    // Services follow a library by its name. Under another name the services of the old one
    // would keep a build that no path replaces.
    if let Some(build) = &libraries[id.0].current
        && build.library != *name
    {
        return Err(format!(
            "it is library {name}, and cannot take the place of library {}; serve it beside that one, from a path of its own",
            build.library
        ));
    }
    // Two paths of one library would take each other's services with every reload.
    for (i, other) in libraries.iter().enumerate() {
        if i != id.0 && other.current.as_ref().is_some_and(|b| b.library == *name) {
            return Err(format!(
                "a library called {name} is loaded already, from {}; {} is left out: give it another crate name, or move it away; `greenroom reload {name} --from {}` loads it in the place of the other one",
                other.path.display(),
                libraries[id.0].path.display(),
                libraries[id.0].path.display()
            ));
        }
    }
    // A build that is about to be committed is in charge of nothing yet, so `live` does not
    // know it. The same holds for members of this group. Their offers are compared with the
    // candidate's.
    for (_, other) in libraries.iter().enumerate().filter(|(i, _)| *i != id.0) {
        let together = |w: &ActiveReload| w.request.group == work.request.group && w.step >= Stage::Tried;
        let theirs = other.work.as_ref().filter(|w| w.step == Stage::Committing || together(w));
        let Some(theirs) = theirs else { continue };
        let owns = |table: &str| theirs.offers.iter().flat_map(|o| &o.tables).any(|t| t.name == table);
        let same = |o: &Offer| {
            theirs.offers.iter().any(|t| t.name == o.name) || o.tables.iter().any(|t| owns(&t.name))
        };
        if theirs.name == *name || work.offers.iter().any(same) {
            return Err(format!(
                "library {}, from {}, is being committed and offers the same; {} is left out",
                theirs.name,
                other.path.display(),
                libraries[id.0].path.display()
            ));
        }
    }
    for (i, offer) in work.offers.iter().enumerate() {
        if work.offers[..i].iter().any(|o| o.name == offer.name) {
            return Err(format!("it offers service {} twice", offer.name));
        }
        judge_offer(work, offer, live)?;
    }
    if work.request.want == Want::Canary {
        judge_canary(work, live.services, live.probations)?;
    }
    // A session of a withdrawn service would have no code to run its next turn.
    for service in live.services.of(name).filter(|s| s.sessions > 0) {
        if !work.offers.iter().any(|o| o.name == service.offer.name) {
            return Err(format!(
                "it no longer offers service {}, which has {} sessions; a service can be withdrawn once nobody is connected",
                service.offer.name, service.sessions
            ));
        }
    }
    Ok(())
}

/// Judges a table that no service owns. No build has its schema, so versions alone decide, and only
/// the way up: a value that nobody answered for counts as version 1.
fn judge_unowned(table: &TableShape, stored: &[u32]) -> Result<(), String> {
    let (name, wanted) = (&table.name, table.shape.version);
    match stored.iter().find(|v| **v > wanted || table.shape.converts(**v, wanted).is_err()) {
        Some(v) => {
            Err(format!("table {name}: version {v} is stored, and nothing leads from it to version {wanted}"))
        }
        None => Ok(()),
    }
}

/// Judges a service that the candidate offers: its frames, its tables, its state.
fn judge_offer(work: &ActiveReload, offer: &Offer, live: &LiveData<'_>) -> Result<(), String> {
    let bytes_max = offer.framing().bytes_max();
    // A service's own limit counts before the host's.
    let own = live.limits.per_service().get(&offer.name).and_then(|l| l.frame_bytes_max);
    let allowed = own.unwrap_or(live.limits.host().frame_bytes_max);
    if bytes_max == 0 || bytes_max > allowed {
        return Err(format!(
            "service {} wants frames of up to {bytes_max} bytes; the host allows from 1 to {allowed} (limit frame_bytes_max)",
            offer.name
        ));
    }
    if offer.dials && offer.framing().begins_with_request() {
        return Err(format!(
            "service {} dials and speaks WebSocket; the host accepts WebSocket and makes no such connections",
            offer.name
        ));
    }
    let back = matches!(work.request.want, Want::RollBack(_));
    // A rollback is judged by the downgrades of the build that is left; any other reload by the
    // migrations of the candidate.
    let may =
        |what: &str, version: &str, service: &Service, table: Option<&str>, old, new, stored: &[u32]| {
            match back {
                true => judge_back(what, old, &service.converting(table), new, stored),
                false => judge(what, version, old, new, stored),
            }
        };
    for (i, table) in offer.tables.iter().enumerate() {
        let offers = work.offers.iter().filter(|o| o.name != offer.name);
        // The tables before this one, and all tables of the other offers.
        let elsewhere = offers.flat_map(|o| &o.tables).chain(&offer.tables[..i]);
        if elsewhere.into_iter().any(|t| t.name == table.name) {
            return Err(format!("table {} has two owners in it; a table has one", table.name));
        }
        let Some(owner) = live.owners.get(&table.name) else {
            judge_unowned(table, &live.tables.versions(&table.name))?;
            continue;
        };
        let service = &live.services[owner.service];
        if !service.is_of(&work.name) {
            return Err(format!(
                "table {} belongs to service {}; a table has one owner",
                table.name, service.offer.name
            ));
        }
        // `which` counts from 1.
        let old = &service.offer.tables[owner.which as usize - 1].shape;
        let stored = live.tables.versions(&table.name);
        let (what, name) = (format!("table {}", table.name), Some(table.name.as_str()));
        may(&what, "its version", service, name, old, &table.shape, &stored)?;
    }
    // A service that is new to the host has no states.
    let Some(service) = live.services.all().iter().find(|s| s.offer.name == offer.name) else {
        return Ok(());
    };
    match &service.build {
        Some(build) if build.library != work.name => {
            return Err(format!(
                "service {} belongs to library {}; a service has one library",
                offer.name, build.library
            ));
        }
        // A service without build and sessions keeps no state, so any shape may follow.
        None if service.sessions == 0 => return Ok(()),
        _ => {}
    }
    let (old, stored) = (&service.offer.shape, service.stored_versions());
    may(&offer.name, "STATE_VERSION", service, None, old, &offer.shape, &stored)
}
