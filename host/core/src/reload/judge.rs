//! Every reason to refuse a build that was tried: what it offers, against what is live.
//!
//! The shell has found nothing wrong with its file, and it has loaded; see [`crate::reload::steps`]
//! for the steps before.

use crate::limits::in_force::LimitsInForce;
use crate::reload::library::ActiveReload;
use crate::reload::library::Library;
use crate::reload::library::Stage;
use crate::reload::request::{LibraryId, Want};
use crate::service::offer::Offer;
use crate::service::registry::Service;
use crate::service::registry::Services;
use crate::tables::index::Tables;
use crate::tables::owner::TableOwners;
use greenroom_state::compatibility::{judge, judge_back};

/// The live data that a candidate is judged by.
pub(crate) struct LiveData<'a> {
    pub(crate) services: &'a Services,
    pub(crate) tables: &'a Tables,
    pub(crate) owners: &'a TableOwners,
    pub(crate) limits: &'a LimitsInForce,
}

/// Whether the build that was tried may serve, as far as the core can tell.
pub(super) fn judge_candidate(
    libraries: &[Library],
    id: LibraryId,
    live: &LiveData<'_>,
) -> Result<(), String> {
    let Some(work) = &libraries[id.0].work else { return Err("no reload is under way".into()) };
    let name = &work.name;
    if let Some(build) = &libraries[id.0].current
        && build.library != *name
    {
        return Err(format!(
            "it is library {name}, and cannot take the place of library {}; serve it beside that one, from a path of its own",
            build.library
        ));
    }
    for (i, other) in libraries.iter().enumerate() {
        if i != id.0 && other.current.as_ref().is_some_and(|b| b.library == *name) {
            return Err(format!(
                "a library called {name} is loaded already, from {}; give this one another crate name",
                other.path.display()
            ));
        }
    }
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
                "library {}, from {}, is being committed and offers the same",
                theirs.name,
                other.path.display()
            ));
        }
    }
    for (i, offer) in work.offers.iter().enumerate() {
        if work.offers[..i].iter().any(|o| o.name == offer.name) {
            return Err(format!("it offers service {} twice", offer.name));
        }
        judge_offer(work, offer, live)?;
    }
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

fn judge_offer(work: &ActiveReload, offer: &Offer, live: &LiveData<'_>) -> Result<(), String> {
    let bytes_max = offer.framing.bytes_max();
    let own = live.limits.per_service().get(&offer.name).and_then(|l| l.frame_bytes_max);
    let allowed = own.unwrap_or(live.limits.host().frame_bytes_max);
    if bytes_max == 0 || bytes_max > allowed {
        return Err(format!(
            "service {} wants frames of up to {bytes_max} bytes; the host allows from 1 to {allowed} (limit frame_bytes_max)",
            offer.name
        ));
    }
    let back = matches!(work.request.want, Want::RollBack(_));
    let may =
        |what: &str, version: &str, service: &Service, table: Option<&str>, old, new, stored: &[u32]| {
            match back {
                true => judge_back(what, old, &service.converting(table), new, stored),
                false => judge(what, version, old, new, stored),
            }
        };
    for (i, table) in offer.tables.iter().enumerate() {
        let offers = work.offers.iter().filter(|o| o.name != offer.name);
        let elsewhere = offers.flat_map(|o| &o.tables).chain(&offer.tables[..i]);
        if elsewhere.into_iter().any(|t| t.name == table.name) {
            return Err(format!("table {} has two owners in it; a table has one", table.name));
        }
        let Some(owner) = live.owners.get(&table.name) else {
            for stored in live.tables.versions(&table.name) {
                let up = stored <= table.shape.version
                    && table.shape.converts(stored, table.shape.version).is_ok();
                if !up {
                    return Err(format!(
                        "table {}: version {stored} is stored, and nothing leads from it to version {}",
                        table.name, table.shape.version
                    ));
                }
            }
            continue;
        };
        let service = &live.services[owner.service];
        if !service.is_of(&work.name) {
            return Err(format!(
                "table {} belongs to service {}; a table has one owner",
                table.name, service.offer.name
            ));
        }
        let old = &service.offer.tables[owner.which as usize - 1].shape;
        let stored = live.tables.versions(&table.name);
        let (what, name) = (format!("table {}", table.name), Some(table.name.as_str()));
        may(&what, "its version", service, name, old, &table.shape, &stored)?;
    }
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
        // Nobody serves it; if nobody is connected either, no state is kept.
        None if service.sessions == 0 => return Ok(()),
        _ => {}
    }
    let (old, stored) = (&service.offer.shape, service.stored_versions());
    may(&offer.name, "STATE_VERSION", service, None, old, &offer.shape, &stored)
}
