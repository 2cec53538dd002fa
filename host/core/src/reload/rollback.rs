//! Puts the previous build back in charge.

use super::commit::{own_tables, resume_quarantined};
use super::sweep::Sweeps;
use crate::host_state::HostState;
use crate::service::offer::{Build, Offer, Serving};
use crate::service::placeholder::{Missing, Withdrawn};
use crate::service::registry::LoadedBuild;
use greenroom_state::compatibility::judge_back;

/// Whether the previous build can take over from the one on probation. Returns what it offers; the
/// error says why it can't.
pub(crate) fn can_roll_back(host: &HostState, library: &str) -> Result<Vec<Offer>, String> {
    if host.probations.of(library).is_none() {
        return Err("no build before it stands by".into());
    }
    let mut offers = Vec::new();
    for service in host.services.all() {
        let Some(standby) = service.standby.as_ref().filter(|b| b.build.library == library) else {
            continue;
        };
        let name = &service.offer.name;
        let (here, there) = (&service.offer.shape, &standby.offer.shape);
        judge_back(name, here, &service.converting(None), there, &service.stored_versions())?;
        for table in &standby.offer.tables {
            let stored = host.tables.versions(&table.name);
            let others = service.converting(Some(&table.name));
            let live = service.offer.tables.iter().find(|t| t.name == table.name);
            if let Some(live) = live {
                let what = format!("table {}", table.name);
                judge_back(&what, &live.shape, &others, &table.shape, &stored)?;
            }
        }
        offers.push(standby.offer.clone());
    }
    Ok(offers)
}

/// Puts the previous build back in charge, between two passes. The build that served goes on
/// converting what it left. Returns the build that serves now. To be called only if
/// [`can_roll_back`].
pub(crate) fn roll_back(host: &mut HostState, sweeps: &mut Sweeps, library: &str) -> Option<Build> {
    let before = host.probations.remove(library)?.before;
    for service in host.services.iter_mut() {
        let mine = service.build.is_none() || service.is_of(library);
        if let Some(standby) = service.standby.take_if(|b| mine && b.build.library == library) {
            if let Some(newer) = service.replace(standby) {
                service.converters.push(newer);
            }
        } else if service.is_of(library) {
            // Only the newer build offers it. Its sessions wait.
            let sessions = service.sessions > 0;
            let newer = service.withdraw(if sessions { Box::new(Missing) } else { Box::new(Withdrawn) });
            service.converters.extend(newer.filter(|_| sessions));
        }
    }
    own_tables(host, library);
    resume_quarantined(host, library);
    sweeps.begin(host, library);
    Some(before)
}

/// Lets a build stand by to convert what it left.
pub(crate) fn stand_by_to_convert(host: &mut HostState, build: &Build, offers: Serving) {
    for (offer, code) in offers {
        if let Some(service) = host.services.named_mut(&offer.name) {
            service.converters.push(LoadedBuild::new(offer, build.clone(), code));
        }
    }
}

/// Lets a build stand by to take over from the one on probation.
pub(crate) fn stand_by(host: &mut HostState, build: &Build, offers: Serving) {
    for (offer, code) in offers {
        if let Some(service) = host.services.named_mut(&offer.name) {
            service.standby = Some(LoadedBuild::new(offer, build.clone(), code));
        }
    }
}
