//! Rollback: the previous build takes over again from one that failed on probation.
//!
//! A rollback runs outside turns, and is one commit of the shell together with the library's
//! record. No data is converted in its pause. The build that failed stays as a converter: turns
//! and a sweep downgrade with it the data that it left. O(services × tables). A takeover also
//! rolls back, if a build has killed workers.
//!
//! The caller asks [`can_roll_back`] in the same step, because each turn may write data that
//! has no way back. A rollback that an operator asks for is a reload instead, and ends in
//! `commit.rs`.

use super::canary_end::end_for;
use super::commit::{own_tables, resume_quarantined};
use super::first_turns::tell_started;
use super::sweep::Sweeps;
use crate::host_state::HostState;
use crate::host_state::framings::record_framings;
use crate::service::offer::{Build, Offer, Serving};
use crate::service::placeholder::{Missing, Withdrawn};
use crate::service::registry::LoadedBuild;
use greenroom_state::abi::started;
use greenroom_state::compatibility::judge_back;

/// Whether the previous build can take over from the one on probation. Returns its offers,
/// which say what ports it needs. Fails if no build stands by, or if stored data of some
/// version has no way back to the previous build. Reads versions, no values. O(services ×
/// tables).
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
            // A table that this service no longer owns is not judged.
            if let Some(live) = live {
                let what = format!("table {}", table.name);
                judge_back(&what, &live.shape, &others, &table.shape, &stored)?;
            }
        }
        offers.push(standby.offer.clone());
    }
    Ok(offers)
}

/// Puts the previous build back in charge. The build that failed goes on converting what it
/// left. Quarantined sessions go on. Returns the build that serves from here on; `None`: no
/// build of the library is on probation, and nothing has changed. Call it only if
/// [`can_roll_back`] agrees.
pub(crate) fn roll_back(host: &mut HostState, sweeps: &mut Sweeps, library: &str) -> Option<Build> {
    let before = host.probations.remove(library)?.before;
    end_for(host, &before);
    let mut goes_on = Vec::new();
    for service in host.services.iter_mut() {
        // A service that another library has taken meanwhile stays with that library.
        let mine = service.build.is_none() || service.is_of(library);
        if let Some(standby) = service.standby.take_if(|b| mine && b.build.library == library) {
            goes_on.push((service.offer.name.clone(), started::GENERATION));
            if let Some(newer) = service.replace(standby) {
                service.converters.push(newer);
            }
        } else if service.is_of(library) {
            // Only the newer build offers this service. Its sessions are quarantined with their
            // next turn, and the newer build stays to convert their states for a later one.
            let sessions = service.sessions > 0;
            let newer = service.withdraw(if sessions { Box::new(Missing) } else { Box::new(Withdrawn) });
            service.converters.extend(newer.filter(|_| sessions));
        }
    }
    record_framings(host);
    own_tables(host, library);
    resume_quarantined(host, library);
    sweeps.begin(host, library);
    tell_started(host, goes_on);
    Some(before)
}

/// Adds a build as a converter, and begins the sweep that it is for, as a predecessor had.
pub(crate) fn go_on_converting(host: &mut HostState, sweeps: &mut Sweeps, build: &Build, offers: Serving) {
    stand_by_to_convert(host, build, offers);
    sweeps.begin(host, &build.library);
}

/// Adds a build as a converter of the data that it left. For a takeover, and for a rehearsal of
/// an older candidate. Services that the host does not know are skipped.
pub(crate) fn stand_by_to_convert(host: &mut HostState, build: &Build, offers: Serving) {
    for (offer, code) in offers {
        if let Some(service) = host.services.named_mut(&offer.name) {
            service.converters.push(LoadedBuild::new(offer, build.clone(), code));
        }
    }
}

/// Lets a build stand by, to take over from the one on probation. For a takeover:
/// [`super::commit::begin_probation`] follows.
pub(crate) fn stand_by(host: &mut HostState, build: &Build, offers: Serving) {
    for (offer, code) in offers {
        if let Some(service) = host.services.named_mut(&offer.name) {
            service.standby = Some(LoadedBuild::new(offer, build.clone(), code));
        }
    }
}
