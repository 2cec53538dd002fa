//! Proposed configurations, from the queue until they are in force or refused.
//!
//! A configuration is put in force while sessions stay connected: all of it, or nothing. Limits,
//! trust and the like change between two passes. If a library's settings or ports change, its build
//! is reloaded as a new generation, with all the steps of a reload. The reloads and the rest are
//! one commit.
//!
//! | state | event | becomes |
//! | --- | --- | --- |
//! | waiting | No reload, change or opening of ports is under way. | begun, or at once ended |
//! | waiting | The worker is about to end. | refused, or left to the successor |
//! | begun | All libraries are prepared. | in force |
//! | begun | A library is refused. | refused, and nothing has changed |
//!
//! *Invariant*: at most one configuration is begun. Other reloads wait for its end meanwhile, and
//! no reload is under way when it begins. So a change is compared with the builds that run, and
//! both cannot be outdated by each other.
//!
//! The queue is not recorded. If the worker dies, the keeper proposes a signal's configuration
//! again; an operator's command fails.

use crate::admin::query::{Answer, Proposal};
use crate::config::Config;
use crate::memory::figures_layout::Times;
use crate::protocol::keeper::HeldPort;
use crate::worker::reload::carry_out::ReloadDriver;
use crate::worker::reload::config_in_force::ProposedConfig;
use crate::worker::reload::configure::{NAME, announce, put_in_force, refuse, report_in_force, tell};
use crate::worker::reload::wanted_ports::Wanted;
use crate::worker::shell::Shell;
use greenroom_core::input::Input;
use greenroom_core::ledger::{Outcome, Report};
use greenroom_core::reload::request::{LibraryId, Requester};
use greenroom_core::service::offer::Offer;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::Instant;

/// The driver of proposed configurations.
#[derive(Default)]
pub(in crate::worker) struct Proposals {
    /// Configurations that wait for the reloads under way, and for each other, in the order of
    /// their arrival. With each, the channel for its reports; signal and watcher have none.
    waiting: VecDeque<(Proposal, Option<Sender<Answer>>)>,
}

impl Proposals {
    /// Queues a configuration, to be put in force or refused behind the pass, once no reload is
    /// under way. Each is answered, except a signal's that is left to a successor.
    pub(in crate::worker) fn add(&mut self, proposal: Proposal, reply: Option<Sender<Answer>>) {
        self.waiting.push_back((proposal, reply));
    }

    /// Goes on with requests that were deferred for a configuration, then with the next
    /// configuration, if no reload is under way. In this order, configurations in a row do not
    /// hold up the deferred requests.
    pub(in crate::worker) fn step(&mut self, shell: &mut Shell, reload: &mut ReloadDriver) {
        if !shell.config.is_changing() {
            reload.go_on_with_deferred(shell);
        }
        if self.waiting.is_empty() {
            return;
        }
        if shell.lifecycle.is_handing_over() {
            // The keeper gets no answer for these, and gives them to the successor.
            self.waiting.retain(|(p, _)| !matches!(p.by, Requester::Signal | Requester::Watcher));
        }
        // A worker that ends begins none of them: each is refused, so that no caller waits for it.
        while shell.lifecycle.is_ending()
            || !(shell.config.is_changing() || shell.core.reloads.is_busy() || shell.ports.are_opening())
        {
            let Some((proposal, reply)) = self.waiting.pop_front() else { return };
            begin(shell, reload, proposal, reply);
        }
    }
}

/// Begins a change of configuration, or ends it at once: refused, unchanged, or without a reload.
/// A change without a reload is one commit, and its pause is that commit's.
fn begin(shell: &mut Shell, reload: &mut ReloadDriver, proposal: Proposal, reply: Option<Sender<Answer>>) {
    let Proposal { number, config, by } = proposal;
    // Compared with the configuration in force now, which may be later than the proposal.
    let (fixed, live) = shell.config.get().changes(&config);
    let affected = match may_begin(shell, &config, &fixed) {
        Ok(()) => affected_libraries(shell, &config, by),
        Err(why) => {
            announce(&reply, 1);
            return refuse(shell, number, by, &reply, why);
        }
    };
    // Reports follow for each library, and another for the whole.
    announce(&reply, affected.len() + 1);
    if live.is_empty() && affected.is_empty() {
        shell.keeper.say_not_configured(number);
        shell.keeper.say_failing(NAME, None);
        return tell(&reply, Report::of_host(NAME, Outcome::Unchanged, String::new()));
    }
    let changes: Vec<_> = match live.is_empty() {
        false => live,
        // The file is the same, but a build that was rolled back to runs with other settings.
        true => affected.iter().map(|(id, _)| shell.core.reloads.libraries()[id.0].name()).collect(),
    };
    let (config, changes) = (Arc::<Config>::from(config), changes.join(", "));
    let proposed = ProposedConfig { number, config: config.clone(), by, reply: reply.clone(), changes };
    // Before the requests: from here on those of others wait.
    shell.config.begin(proposed);
    if affected.is_empty() {
        let begun = Instant::now();
        let line = put_in_force(shell);
        shell.core.handle(Input::Commit);
        shell.board.took(Times::Pause, begun.elapsed().as_nanos() as u64);
        return report_in_force(shell, line, begun);
    }
    reload.configure(shell, affected, &config, by, reply);
}

/// Checks that a configuration may begin. An error says why it is refused before anything changes.
///
/// A configuration is refused if the worker ends, if its hashes leave out a build that runs, if a
/// service has the observer's address, or if a running service needs larger frames. The same holds
/// if `fixed` names values that differ and that only a restart of the host can change.
/// O(builds + services x ports).
fn may_begin(shell: &Shell, config: &Config, fixed: &[String]) -> Result<(), String> {
    if shell.lifecycle.is_ending() {
        return Err("this worker is about to end; try again".into());
    }
    if !fixed.is_empty() {
        let what = fixed.join(", ");
        return Err(format!(
            "{what} can't change while the host runs: start it anew for that, or leave it as it was"
        ));
    }
    allows_builds(shell, config)?;
    leaves_observer_alone(shell, config)?;
    // A reload refuses such a service, but a change of limits alone reloads nothing.
    for s in shell.core.services().iter().filter(|s| s.build.is_some()) {
        let (wants, allowed) =
            (s.offer.framing().bytes_max(), config.all_limits().of(&s.offer.name).frame_bytes_max);
        if wants > allowed {
            return Err(format!(
                "service {} takes frames of up to {wants} bytes, and limit frame_bytes_max would be {allowed}",
                s.offer.name
            ));
        }
    }
    Ok(())
}

/// Checks that changed `trust.hashes` allow each build that may run a turn without another check.
/// Other values of `trust` are about files, which are looked at once they are read again.
fn allows_builds(shell: &Shell, config: &Config) -> Result<(), String> {
    if config.trust.hashes == shell.config.get().trust.hashes {
        return Ok(());
    }
    let builds = shell.builds.all().flat_map(|(_, record)| record.may_run());
    let refused = builds.filter(|(b, _)| config.trust.check_hash(&b.hash).is_err());
    let refused: Vec<_> = refused.map(|(b, how)| format!("{} {how} build {}", b.library, b.hash)).collect();
    match refused.is_empty() {
        true => Ok(()),
        false => Err(format!(
            "trust.hashes would leave out what runs: {}; add these hashes, or load an allowed build before",
            refused.join(", ")
        )),
    }
}

/// Checks that no service will have the observer's address: the keeper may have lent the observer
/// the socket of a service that gives it up.
fn leaves_observer_alone(shell: &Shell, config: &Config) -> Result<(), String> {
    let offers = shell.core.services().iter().filter(|s| s.build.is_some()).map(|s| &s.offer);
    // A service whose endpoints cannot be had is refused by its reload, by name.
    let endpoints = |o: &Offer| config.endpoints(o).unwrap_or_default();
    let all: Vec<_> = offers.flat_map(|o| endpoints(o).into_iter().map(|e| (o.name.clone(), e))).collect();
    let Ok(wanted) = Wanted::of(shell.ports.held(), &all) else { return Ok(()) };
    config.check_observer(wanted.endpoints.keys())
}

/// The libraries whose settings or ports differ, with the copies of the builds that they run.
/// O(libraries x services x ports).
///
/// The watcher has read files again. A build that was rolled back to runs without what they had,
/// and stays so until its own file changes, or somebody asks for the configuration.
fn affected_libraries(shell: &Shell, config: &Config, by: Requester) -> Vec<(LibraryId, PathBuf)> {
    let (was, settings) = (shell.config.get().settings(), config.settings());
    let mut affected = Vec::new();
    for (id, record) in shell.builds.all() {
        let library = &record.current.library;
        let services = shell.core.services().iter();
        let services = services.filter(|s| s.build.as_ref().is_some_and(|b| b.library == *library));
        let held = |name: &str| shell.ports.of_service(name).map(HeldPort::asked).collect::<BTreeSet<_>>();
        // Builds may run with other settings than those in force: a rollback brings its own.
        let differs = services.map(|s| &s.offer).any(|o| {
            let none = "{}".to_owned();
            let of = |all: &BTreeMap<String, String>| all.get(&o.name).unwrap_or(&none).clone();
            // A record without settings of its own is an older host's: one configuration held for
            // all.
            let own = record.current.settings.as_ref().filter(|_| by != Requester::Watcher);
            let runs_with = of(own.unwrap_or(&was));
            // A bad address counts as a change: the reload refuses it by name.
            let wanted = config.endpoints(o);
            let file = |config: &Config| config.socket_file(&o.name);
            runs_with != of(&settings)
                || file(config) != file(shell.config.get())
                || wanted.map_or(true, |all| all.into_iter().collect::<BTreeSet<_>>() != held(&o.name))
        });
        if differs {
            affected.push((id, record.current.copy.clone()));
        }
    }
    affected
}
