//! Commit of a reload: a build takes charge of its services.
//!
//! | adopted | the replaced build | sweep |
//! | --- | --- | --- |
//! | without a probation | retires | begins |
//! | on probation | stands by, if it has proved itself | stops |
//! | for a rollback by request | converts the data that it left | begins |
//!
//! The commit only replaces what each service points to. No state is converted here: the next
//! turn of a session does that, or a sweep. So the pause does not depend on the number of
//! sessions. O(services × tables), plus O(log sessions) for each quarantined session that goes
//! on.
//!
//! All functions run outside turns, and none can fail: [`super::steps`] and `judge.rs` have
//! refused before what must not serve. The shell writes the library's record, and commits both
//! in one epoch. If the worker dies before that, a successor goes on with the previous build.
//! Retired builds are kept for [`crate::core::Core::take_retired`], because a destructor takes
//! longer than a commit may.

use super::canary_end::end_for;
use super::first_turns::{starts_of, tell_started};
use super::sweep::Sweeps;
use crate::command::Command;
use crate::host_state::HostState;
use crate::host_state::end::end_quarantine;
use crate::host_state::framings::record_framings;
use crate::ids::{ServiceId, Slot};
use crate::service::offer::{Build, Serving};
use crate::service::placeholder::Withdrawn;
use crate::service::probation::ProbationEnd;
use crate::service::registry::{LoadedBuild, Service};
use crate::session::blocked::Blocked;
use crate::store::kind::Kind;

/// Further use of a build that is replaced.
#[derive(Clone, Copy)]
pub(crate) enum Replaced<'a> {
    /// None: the build retires.
    Retires,
    /// The build converts the data that it left, until a sweep finds no more of it.
    Converts,
    /// The build stands by and takes over if the new one fails, if it is this build, the last
    /// that proved itself. Any other build retires.
    StandsBy(&'a Build),
}

/// Puts the build in charge that a predecessor ran. Quarantined sessions stay so, as nothing
/// changes for them.
pub(crate) fn go_on_with(host: &mut HostState, sweeps: &mut Sweeps, build: &Build, offers: Serving) {
    let quarantined = host.quarantines.set_aside();
    put_in_charge(host, sweeps, build, offers, Replaced::Retires);
    host.quarantines.put_back(quarantined);
}

/// Puts a build in charge without a probation. A probation under way ends without a verdict.
pub(crate) fn adopt(
    host: &mut HostState,
    sweeps: &mut Sweeps,
    build: &Build,
    offers: Serving,
    replaced: Replaced<'_>,
) {
    let starts = starts_of(host, offers.iter().map(|(offer, _)| &*offer.name));
    put_in_charge(host, sweeps, build, offers, replaced);
    tell_started(host, starts);
}

/// Puts a build in charge like [`adopt`], without telling its services.
fn put_in_charge(
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

/// Puts a build in charge on probation, until `until_ns` on the clock of
/// [`crate::input::Input::PassBegins`]. Returns whether there is a probation. The first build
/// of a library has none, because no build can stand by.
pub(crate) fn adopt_on_probation(
    host: &mut HostState,
    sweeps: &mut Sweeps,
    build: &Build,
    offers: Serving,
    until_ns: u64,
) -> bool {
    let current = host.services.of(&build.library).next().and_then(|s| s.build.clone());
    // A build on probation has not proved itself, so its own standby goes on standing by.
    let proved = host.probations.of(&build.library).map(|p| p.before.clone()).or(current);
    // A build cannot stand by for itself, and then there is no probation.
    let Some(proved) = proved.filter(|p| p.generation != build.generation) else {
        adopt(host, sweeps, build, offers, Replaced::Retires);
        return false;
    };
    let starts = starts_of(host, offers.iter().map(|(offer, _)| &*offer.name));
    take_charge(host, build, offers, Replaced::StandsBy(&proved));
    tell_started(host, starts);
    begin_probation(host, sweeps, build, &proved, until_ns);
    true
}

/// Puts a build on probation. The build `before` stands by already. A takeover calls this for
/// the probation of its predecessor, whose counts begin again at 0.
pub(crate) fn begin_probation(
    host: &mut HostState,
    sweeps: &mut Sweeps,
    build: &Build,
    before: &Build,
    until_ns: u64,
) {
    // A sweep would write versions that the previous build may be unable to read.
    sweeps.stop(host, &build.library);
    host.probations.begin(&host.services, build, before, until_ns);
}

/// Ends the probations whose time or turns are up: these builds have proved themselves. Runs at
/// the beginning of each pass. O(1) if no build is on probation.
pub(crate) fn end_due_probations(host: &mut HostState, sweeps: &mut Sweeps) {
    if host.probations.is_empty() {
        return;
    }
    let turns_enough = host.limits.host().probation_turns;
    while let Some(p) = host.probations.pop_passed(&host.services, host.now_ns, turns_enough) {
        // No way back is needed from here on, so all stored data may take the new version.
        host.services.retire_standbys(&p.build.library);
        sweeps.begin(host, &p.build.library);
        let proof = ProbationEnd::Passed;
        host.commands.push(Command::ProbationEnd { build: p.build, record: p.record, proof });
    }
}

/// Ends a probation that failed without a way back. The build stays, and the previous one
/// retires. A sweep begins, as if the build had proved itself.
pub(crate) fn end_probation(host: &mut HostState, sweeps: &mut Sweeps, library: &str) {
    host.probations.remove(library);
    host.services.retire_standbys(library);
    sweeps.begin(host, library);
}

/// Replaces the build of each service of a library, and adds services that are new. Services
/// that the build does not offer are withdrawn; the judgement has made sure that they have no
/// sessions.
pub(crate) fn take_charge(host: &mut HostState, build: &Build, offers: Serving, replaced: Replaced<'_>) {
    // First: its candidate stands beside the build that goes.
    end_for(host, build);
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
        // The service belonged to another library before, whose build cannot stand by for this
        // one.
        retired.extend(service.standby.take_if(|b| b.build.library != build.library));
        if let Some(old) = service.replace(LoadedBuild::new(offer, build.clone(), code)) {
            put_aside(service, old, replaced, &mut retired);
        }
    }
    host.services.retire(retired);
    record_framings(host);
    // Without a probation no turn is run by the previous build, and no rollback needs it.
    if !matches!(replaced, Replaced::StandsBy(_)) {
        host.services.retire_standbys(&build.library);
    }
    // Owners follow from the offers, so all services have theirs before.
    own_tables(host, &build.library);
    // Last: these sessions are to find the new code.
    resume_quarantined(host, &build.library);
}

/// Adds a service under the next number. Its record lets a successor give the service the same
/// number, which other records hold.
fn add_service(host: &mut HostState, service: Service) {
    let (number, name) = (host.services.len() as u64, &service.offer.name);
    // The store keeps a reserve beyond its limit, for records that must not fail.
    let put = host.store.put(None, Kind::Service, number, name.as_bytes());
    debug_assert!(put.is_ok(), "no room for a service's name");
    host.sessions.add_service();
    host.limits.add_service(name);
    host.services.push(service);
}

/// Puts a replaced build where its further use is: as standby, as converter, or among the
/// retired.
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
        // Nothing is left of a withdrawn service without sessions, so there is nothing to
        // convert.
        Replaced::Converts if service.build.is_some() || service.sessions > 0 => {
            service.converters.push(old);
        }
        _ => retired.push(old),
    }
}

/// Gives the services of a library the tables that they declare. A service without a build owns
/// none. Services of other libraries keep theirs. O(services × tables).
pub(super) fn own_tables(host: &mut HostState, library: &str) {
    for (id, service) in host.services.numbered() {
        if service.build.is_some() && !service.is_of(library) {
            continue;
        }
        host.owners.clear(id);
        if service.build.is_some() {
            let tables = service.offer.tables.iter();
            host.owners.give(id, tables);
        }
    }
}

/// Lets the quarantined sessions of a library go on with the code that serves from here on.
/// O(quarantined sessions).
pub(super) fn resume_quarantined(host: &mut HostState, library: &str) {
    let is_of = |host: &HostState, service: ServiceId| host.services[service].is_of(library);
    // Collected first, because each release changes the list.
    for slot in host.quarantines.slots().collect::<Vec<_>>() {
        match host.sessions.get(slot).map(|s| s.service) {
            None => host.quarantines.remove(slot),
            Some(service) if is_of(host, service) => release_quarantined(host, slot),
            Some(_) => {}
        }
    }
}

/// Lets a quarantined session go on with its kept input in the next pass, whichever reason it
/// was quarantined for. An operator can order this, too.
pub(crate) fn release_quarantined(host: &mut HostState, slot: Slot) {
    end_quarantine(host, slot);
    // Until the next pass has run the kept input, newer input and the end of the peer must wait
    // behind it.
    if let Some(s) = host.sessions.get_mut(slot) {
        s.block(Blocked::ShareUsed, true);
    }
    host.sessions.resume(slot);
    host.sessions.touch(slot);
}
