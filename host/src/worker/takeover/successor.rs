//! Builds and ports of a predecessor, with which a successor goes on.
//!
//! A successor loads the private copies that the records name, never the files at watched paths:
//! those may have changed. A generation that has killed workers gives way to the previous build
//! here, before any of its turns runs again. The keeper names such generations (`Hello::killed`,
//! `Hello::give_way`).
//!
//! | build | verdict of the keeper | becomes |
//! | --- | --- | --- |
//! | on probation | has killed a worker lately | The previous build is put back in charge. |
//! | on probation | One of its jobs has killed the predecessor. | The same. |
//! | that began its probation last | Two crashes that no turn or job explains. | The same. |
//! | any | has killed too many workers | The same, if the record has a previous build. |
//! | either of these | no way back | The build goes on, and the log says why. |
//! | any | none | The build goes on, and so do its probation and its canary. |
//! | a canary's candidate | It or its job has killed a worker lately. | The canary is taken back. |
//! | all canaries | Two crashes that no turn or job explains. | The same. |
//! | any | its loads have ended two workers | See [`super::load_build`]. |
//!
//! *Invariant*: nothing here commits. The first pass commits rollbacks, records and ledger lines
//! together with the turns that it runs. Until then a worker that dies leaves the records of its
//! predecessor, and the next one repeats all of it.
//!
//! Libraries are loaded on the loop's own thread, because no session can go on before. The time is
//! that of their initializers, and clients wait for it.

use crate::plugin::prepare::Job;
use crate::protocol::keeper::{Hello, ToKeeper};
use crate::worker::reload::build_records::{LibraryRecord, OnProbation, recorded};
use crate::worker::reload::canary::end_with_line;
use crate::worker::reload::config_in_force::recorded_number;
use crate::worker::reload::ports::{FailedBuild, Opening};
use crate::worker::reload::roll_back::{record_roll_back, report_roll_back};
use crate::worker::shell::Shell;
use crate::worker::takeover::load_build::{give_up, load, load_beside};
use greenroom_core::core::Core;
use greenroom_core::ids::ServiceId;
use greenroom_core::ledger::ProbationCounts;
use greenroom_core::recovery::rebuild::Survivor;
use greenroom_core::reload::request::{LibraryId, Requester};
use greenroom_core::service::offer::Build;
use greenroom_core::service::registry::Service;
use greenroom_core::store::kind::Kind;
use std::path::Path;

/// Crashes on threads that handlers started, since the last commit of a build, from which a build
/// on probation gives way. One may be an accident of another build, which has run for long.
const CRASHES_OUTSIDE_MAX: u32 = 2;

/// Reason why a build gives way for such crashes. It may be innocent.
const CAME_LAST: &str = "it came last, and since then the worker crashed twice on threads that run no turns; \
                         no library is known to have caused that";

/// Builds that crashes are held against which nothing explains.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Suspected {
    /// No build.
    None,
    /// Candidates of canaries.
    Canaries,
    /// Builds whose probation ends then, as they came last.
    Until(u64),
}

/// Whether no worker of the host has committed anything. Sessions without a library record wait
/// for a build: that record is lost. Tables and ledger are those that a first worker had read
/// from the saved file before it died.
pub(super) fn is_fresh(core: &Core, survivors: &[Survivor]) -> bool {
    let has = |kind| core.host_record_keys(kind).next().is_some();
    !has(Kind::Library) && !has(Kind::Ledger) && survivors.is_empty() && core.table_names().is_empty()
}

/// Goes on with the counters, builds and ports of a predecessor. An error names a build that cannot
/// be loaded: without it, this worker cannot serve.
pub(super) fn go_on(shell: &mut Shell, hello: &Hello) -> Result<(), String> {
    // Turns and faults are no records: the board has them, as of the predecessor's last commit.
    for number in 0..shell.core.services().len() {
        let [_, turns, faults] = shell.board.counted(number);
        let traffic = shell.board.traffic_so_far(number);
        shell.core.restore_counters(ServiceId(number as u16), turns, faults, traffic);
    }
    let mut rolled_back = Vec::new();
    let records = recorded(&shell.core)?;
    // The copies that the last commit names: a successor of this process may begin with them.
    let needed = records.iter().flat_map(LibraryRecord::copies).map(Path::to_path_buf).collect();
    shell.threads.prepare.send(Job::RemoveOthers(needed));
    // Crashes that nothing explains are held against canaries, or else against the build that came
    // last.
    let has_canary = records.iter().any(|r| r.canary.is_some());
    let last = records.iter().filter_map(|r| r.probation.as_ref()).map(|p| p.until_ns).max();
    let suspected = match hello.crashes_outside >= CRASHES_OUTSIDE_MAX {
        true if has_canary => Suspected::Canaries,
        true => last.map_or(Suspected::None, Suspected::Until),
        false => Suspected::None,
    };
    for record in records {
        let library = record.current.library.clone();
        if go_on_with(shell, hello, record, suspected)? {
            rolled_back.push(library);
        }
    }
    if !shell.ports.restore(&mut shell.core) {
        tracing::error!("the record of the ports is lost; the keeper knows them");
        shell.ports.set(&mut shell.core, hello.ports.clone());
    }
    // Behind the ports of the predecessor, from which the differences are computed.
    for library in rolled_back {
        change_ports_of(shell, &library);
    }
    Ok(())
}

/// Tells the keeper which configuration and builds are in force, in case the predecessor died
/// before it could. Repeats are harmless: the keeper ignores a number that it has no open proposal
/// for, and holds a private copy once.
pub(super) fn say_in_force(shell: &mut Shell) {
    shell.say_builds();
    if let Some(number) = recorded_number(&shell.core) {
        shell.keeper.send(&ToKeeper::Configured(number));
    }
}

/// Goes on with one library: the build that ran, its converters and its previous build. True: the
/// build has given way to the previous one.
///
/// The build that ran must load. A converter or a previous build that cannot be loaded is named in
/// the log; without the previous one the probation ends.
///
/// `suspected`: builds that crashes are held against which nothing explains.
fn go_on_with(
    shell: &mut Shell,
    hello: &Hello,
    mut record: LibraryRecord,
    suspected: Suspected,
) -> Result<bool, String> {
    let id = shell.core.reloads.library(record.path.clone());
    let unloadable = give_up(shell, hello, id, &mut record);
    let build = record.current.build();
    let serving = load(shell, id, &record.path, &record.current)?;
    shell.core.go_on_with(&build, serving);
    shell.core.reloads.goes_on_with(id, build.clone(), record.seen(), record.highest);
    go_on_with_others(shell, hello, id, &mut record);
    // The core rolls back only to a build that stands by. A build that has passed its probation
    // gets one here that is over at once, so that the last build below it can stand by.
    let why = must_give_way(hello, &record, &build, suspected);
    if let Some(why) = why
        && record.probation.is_none()
    {
        match record.before().cloned() {
            Some(before) => record.probation = Some(OnProbation { before, until_ns: 0, line: 0 }),
            None => tracing::error!(
                "{}: generation {} stays: {why}, and there is no previous build",
                build.library,
                build.generation
            ),
        }
    }
    if let Some(OnProbation { before, until_ns, .. }) = &record.probation {
        match load_beside(shell, hello, (id, &record.path), before) {
            Ok(serving) => {
                shell.core.stand_by(&before.build(), serving);
                shell.core.begin_probation(&build, &before.build(), *until_ns);
            }
            Err(why) => {
                tracing::error!("the previous build cannot stand by: {why}");
                record.probation = None;
            }
        }
    }
    let on_probation = record.probation.is_some();
    shell.builds.count_static_tls(record.static_tls());
    let killed = |g: u64| hello.killed.iter().any(|(l, k)| *l == build.library && *k == g);
    let candidate_killed = record.canary.as_ref().is_some_and(|c| killed(c.generation));
    let has_canary = record.canary.is_some();
    // The library has no other record in this process, so no copy becomes unused.
    let _ = shell.builds.write(&mut shell.core, id, record);
    // The build beside which it runs is about to go, or it has killed a worker itself.
    let ends = match why {
        _ if candidate_killed => Some("it killed a worker"),
        _ if has_canary && suspected == Suspected::Canaries => Some(CAME_LAST),
        Some(_) if has_canary => Some("the build that serves gives way"),
        _ => None,
    };
    if let Some(why) = ends {
        end_with_line(shell, id, &build.library, Requester::Rule, why.to_owned())?;
    }
    match (unloadable, why) {
        (Some(unloadable), _) => {
            unloadable.report(shell);
            Ok(true)
        }
        (None, Some(why)) if on_probation => give_way(shell, id, &build, why),
        _ => Ok(false),
    }
}

/// Goes on with a library's converters, one of which may be the candidate of a canary. A candidate
/// that cannot be loaded ends its canary.
fn go_on_with_others(shell: &mut Shell, hello: &Hello, id: LibraryId, record: &mut LibraryRecord) {
    let canary = record.canary.take();
    let mut begun = None;
    for converter in &record.converters {
        let terms = canary.as_ref().filter(|c| c.generation == converter.generation).map(|c| &c.terms);
        match (load_beside(shell, hello, (id, &record.path), converter), terms) {
            (Ok(serving), Some(terms)) => {
                shell.core.canaries().begin(&converter.build(), serving, terms.clone());
                begun.clone_from(&canary);
            }
            (Ok(serving), None) => shell.core.go_on_converting(&converter.build(), serving),
            (Err(why), Some(_)) => {
                tracing::error!("the candidate of a canary cannot be loaded, so the canary ends: {why}");
            }
            (Err(why), None) => tracing::error!("data of a rolled-back build cannot be converted: {why}"),
        }
    }
    record.canary = begun;
}

/// The reason why a build must give way to the previous one; `None`: it may go on. A build on
/// probation has one chance, because the previous build stands by.
fn must_give_way(
    hello: &Hello,
    record: &LibraryRecord,
    build: &Build,
    suspected: Suspected,
) -> Option<&'static str> {
    let among =
        |all: &[(String, u64)]| all.iter().any(|(l, g)| *l == build.library && *g == build.generation);
    match () {
        () if record.probation.is_some() && among(&hello.killed) => Some("it killed a worker on probation"),
        () if record.probation.as_ref().is_some_and(|p| suspected == Suspected::Until(p.until_ns)) => {
            Some(CAME_LAST)
        }
        () if among(&hello.give_way) => Some("it killed too many workers (limit crashes_max)"),
        () => None,
    }
}

/// Has a build on probation give way, or takes a canary back, whose job has killed the predecessor.
/// Comes before the first pass, as jobs are known once builds are.
pub(super) fn job_has_killed(shell: &mut Shell, service: ServiceId, owner: u64) -> Result<(), String> {
    let Some(of) = shell.core.services().get(usize::from(service.0)) else { return Ok(()) };
    let (Some(build), ran) = (of.build.clone(), of.generation_of(owner)) else { return Ok(()) };
    let Some(id) = shell.core.reloads.named(&build.library) else { return Ok(()) };
    if ran != build.generation {
        let why = "one of its jobs killed a worker".to_owned();
        return end_with_line(shell, id, &build.library, Requester::Rule, why).map(drop);
    }
    let is_on_probation = shell.builds.get(id).is_some_and(|record| record.probation.is_some());
    if is_on_probation && give_way(shell, id, &build, "one of its jobs killed a worker on probation")? {
        change_ports_of(shell, &build.library);
    }
    Ok(())
}

/// Puts the previous build back in charge, before the first pass commits. False: that is
/// impossible, and the log says why. Record and ledger line are part of the first pass's commit.
///
/// The counts of the probation are those of this process, which has run no turn: zero.
fn give_way(shell: &mut Shell, id: LibraryId, build: &Build, why: &str) -> Result<bool, String> {
    if let Err(no_way) = shell.core.can_roll_back(&build.library) {
        tracing::error!("{}: generation {} stays: {why}, and {no_way}", build.library, build.generation);
        return Ok(false);
    }
    let Some(before) = shell.core.roll_back(&build.library) else { return Ok(false) };
    let line = record_roll_back(shell, id, &before);
    let (build, record, why) = (build.clone(), ProbationCounts::default(), why.to_owned());
    report_roll_back(shell, &FailedBuild { id, build, record, why }, line);
    Ok(true)
}

/// Changes the ports of a library that has given way to its previous build. Ports that the keeper
/// must open first follow while the worker serves; if they cannot be opened, the log says so.
fn change_ports_of(shell: &mut Shell, library: &str) {
    let Some(id) = shell.core.reloads.named(library) else { return };
    let mine = |s: &&Service| s.build.as_ref().is_some_and(|b| b.library == library);
    let offers = shell.core.services().iter().filter(mine).map(|s| s.offer.clone()).collect();
    let changes = shell.ports.changes_for(&shell.core, &[(id, offers)], shell.config.get());
    match changes {
        Ok(prepared) if prepared.need_opening() => {
            shell.ports.open(Opening::TakenOver, prepared, &mut shell.keeper);
        }
        // The keeper is told with `Ready`, behind the commit.
        Ok(prepared) => {
            shell.ports.change(&mut shell.core, prepared);
        }
        Err(why) => tracing::error!("{library}: its ports stay as they are: {why}"),
    }
}
