//! Puts a build in charge of its services.
//!
//! The commit only replaces what each service points to, so its time does not depend on the number
//! of sessions. Builds that nobody needs any more are kept for [`crate::core::Core::take_retired`].
//! Whether a build may serve is decided before, by [`super::steps`].

use super::sweep::Sweeps;
use crate::command::Command;
use crate::host_state::HostState;
use crate::host_state::end::end_quarantine;
use crate::ids::{ServiceId, Slot};
use crate::service::offer::{Build, Serving};
use crate::service::placeholder::Withdrawn;
use crate::service::probation::ProbationEnd;
use crate::service::registry::{LoadedBuild, Service};
use crate::session::blocked::Blocked;
use crate::store::kind::Kind;

/// The use of a build that no longer serves.
#[derive(Clone, Copy)]
pub(crate) enum Replaced<'a> {
    /// Nobody needs it.
    Retires,
    /// Converts what it left.
    Converts,
    /// Takes over if the new one fails, if it is this build, which proved itself; else it
    /// retires.
    StandsBy(&'a Build),
}

/// Puts a build in charge without a probation.
pub(crate) fn adopt(
    host: &mut HostState,
    sweeps: &mut Sweeps,
    build: &Build,
    offers: Serving,
    replaced: Replaced<'_>,
) {
    host.probations.remove(&build.library);
    take_charge(host, build, offers, replaced);
    sweeps.begin(host, &build.library);
}

/// Puts a build in charge on probation: until `until_ns` the last build that proved itself stands
/// by. The first build of a library has no previous one, and no probation. Returns whether there is
/// one.
pub(crate) fn adopt_on_probation(
    host: &mut HostState,
    sweeps: &mut Sweeps,
    build: &Build,
    offers: Serving,
    until_ns: u64,
) -> bool {
    let current = host.services.of(&build.library).next().and_then(|s| s.build.clone());
    let proved = host.probations.of(&build.library).map(|p| p.before.clone()).or(current);
    let Some(proved) = proved.filter(|p| p.generation != build.generation) else {
        adopt(host, sweeps, build, offers, Replaced::Retires);
        return false;
    };
    take_charge(host, build, offers, Replaced::StandsBy(&proved));
    begin_probation(host, sweeps, build, &proved, until_ns);
    true
}

/// Puts a build on probation; the build `before` stands by already.
pub(crate) fn begin_probation(
    host: &mut HostState,
    sweeps: &mut Sweeps,
    build: &Build,
    before: &Build,
    until_ns: u64,
) {
    // What is converted now may have to go back.
    sweeps.stop(host, &build.library);
    host.probations.begin(&host.services, build, before, until_ns);
}

/// Ends the probations whose time or turns are up.
pub(crate) fn end_due_probations(host: &mut HostState, sweeps: &mut Sweeps) {
    if host.probations.is_empty() {
        return;
    }
    let turns_enough = host.limits.host().probation_turns;
    while let Some(p) = host.probations.pop_passed(&host.services, host.now_ns, turns_enough) {
        host.services.retire_standbys(&p.build.library);
        sweeps.begin(host, &p.build.library);
        let proof = ProbationEnd::Passed;
        host.commands.push(Command::ProbationEnd { build: p.build, record: p.record, proof });
    }
}

/// Ends a probation that failed without a way back: the build stays.
pub(crate) fn end_probation(host: &mut HostState, sweeps: &mut Sweeps, library: &str) {
    host.probations.remove(library);
    host.services.retire_standbys(library);
    sweeps.begin(host, library);
}

/// Replaces the build of each service of a library.
pub(crate) fn take_charge(host: &mut HostState, build: &Build, offers: Serving, replaced: Replaced<'_>) {
    let mut retired = Vec::new();
    for service in host.services.iter_mut().filter(|s| s.is_of(&build.library)) {
        if !offers.iter().any(|(offer, _)| offer.name == service.offer.name)
            && let Some(old) = service.withdraw(Box::new(Withdrawn))
        {
            put_aside(service, old, replaced, &mut retired);
        }
    }
    for (offer, code) in offers {
        let Some(service) = host.services.named_mut(&offer.name) else {
            add_service(host, Service::new(offer, build.clone(), code));
            continue;
        };
        // The service was another library's before.
        retired.extend(service.standby.take_if(|b| b.build.library != build.library));
        if let Some(old) = service.replace(LoadedBuild::new(offer, build.clone(), code)) {
            put_aside(service, old, replaced, &mut retired);
        }
    }
    host.services.retire(retired);
    if !matches!(replaced, Replaced::StandsBy(_)) {
        host.services.retire_standbys(&build.library);
    }
    own_tables(host, &build.library);
    resume_quarantined(host, &build.library);
}

fn add_service(host: &mut HostState, service: Service) {
    let (number, name) = (host.services.len() as u64, &service.offer.name);
    // A reserve is kept for records that must not fail.
    let put = host.store.put(None, Kind::Service, number, name.as_bytes());
    debug_assert!(put.is_ok(), "no room for a service's name");
    host.sessions.add_service();
    host.limits.add_service(name);
    host.services.push(service);
}

fn put_aside(
    service: &mut Service,
    old: LoadedBuild,
    replaced: Replaced<'_>,
    retired: &mut Vec<LoadedBuild>,
) {
    match replaced {
        Replaced::StandsBy(proved) if old.build == *proved => {
            retired.extend(service.standby.replace(old));
        }
        // Of a service that is withdrawn and that nobody is connected to, nothing is left.
        Replaced::Converts if service.build.is_some() || service.sessions > 0 => {
            service.converters.push(old);
        }
        _ => retired.push(old),
    }
}

/// Gives the tables that the services of a library declare to them.
pub(super) fn own_tables(host: &mut HostState, library: &str) {
    for (id, service) in host.services.numbered() {
        if service.build.is_some() && !service.is_of(library) {
            continue;
        }
        host.owners.clear(id);
        if service.build.is_some() {
            let tables = service.offer.tables.iter();
            host.owners.give(id, tables.map(|t| (t.name.as_str(), t.shape.version)));
        }
    }
}

/// Lets the quarantined sessions of a library go on with the code that serves now.
pub(super) fn resume_quarantined(host: &mut HostState, library: &str) {
    let is_of = |host: &HostState, service: ServiceId| host.services[service].is_of(library);
    for slot in host.quarantines.slots().collect::<Vec<_>>() {
        match host.sessions.get(slot).map(|s| s.service) {
            None => host.quarantines.remove(slot),
            Some(service) if is_of(host, service) => release_quarantined(host, slot),
            Some(_) => {}
        }
    }
}

/// Lets a quarantined session go on. Until the input that it kept has been run, nothing else may
/// end it.
pub(crate) fn release_quarantined(host: &mut HostState, slot: Slot) {
    end_quarantine(host, slot);
    if let Some(s) = host.sessions.get_mut(slot) {
        s.block(Blocked::ShareUsed, true);
    }
    host.sessions.resume(slot);
    host.sessions.touch(slot);
}
