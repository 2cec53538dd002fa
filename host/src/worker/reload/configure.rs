//! End of a proposed configuration: in force, or refused.
//!
//! A configuration that changes libraries is one commit with them; the commit of the reloads calls
//! [`put_in_force`] and [`report_in_force`] around it. The refusal of one library refuses the whole
//! configuration, and nothing has changed by then. The keeper hears of both, as it keeps the
//! configuration for the next worker.
//!
//! Order: limits and records, commit, keeper, log, requester. If the worker dies behind the commit,
//! the successor reads the recorded configuration, and tells the keeper that it is in force.
//!
//! Reports go to the requester's channel. A signal has none, so its outcome is in log and ledger
//! alone.

use crate::admin::query::Answer;
use crate::plugin::prepare::Job;
use crate::protocol::keeper::ToKeeper;
use crate::worker::ledger::requester;
use crate::worker::reload::config_in_force::ProposedConfig;
use crate::worker::shell::Shell;
use greenroom_core::ledger::{Outcome, Report};
use greenroom_core::reload::request::Requester;
use std::sync::mpsc::Sender;
use std::time::Instant;

/// Name of the configuration in reports, in the place of a library's.
pub(super) const NAME: &str = "configuration";

/// Makes a configuration's own part of a commit: everything but the libraries. Returns the number
/// of its ledger line; 0: no configuration is proposed.
///
/// Cannot be undone, so the caller commits in any case. If the store has no room for the record, an
/// error is logged, and a successor would go on with the previous configuration.
pub(super) fn put_in_force(shell: &mut Shell) -> u64 {
    let Some(ProposedConfig { config, by, changes, .. }) = shell.config.proposed() else { return 0 };
    let (config, by, changes) = (config.clone(), *by, changes.clone());
    shell.core.set_limits(config.all_limits());
    shell.threads.stall_limits.set(&config.limits);
    shell.saver.set_interval(config.save.every_s);
    // Orders are served in turn: files staged from here on are checked against the new trust.
    shell.threads.prepare.send(Job::Configure(config));
    shell.config.adopt(&mut shell.core);
    shell.builds.files_due = true;
    let report = Report::of_host(NAME, Outcome::Configured, changes);
    shell.add_line(&requester(by), report)
}

/// Reports a configuration that is committed, and ends the change. The pause counts from `begun`.
/// The pause is added to the ledger line, which counts from the next commit.
pub(super) fn report_in_force(shell: &mut Shell, line: u64, begun: Instant) {
    let Some(ProposedConfig { number, by, reply, changes, .. }) = shell.config.take_proposed() else {
        return;
    };
    let pause_us = begun.elapsed().as_nanos() as f64 / 1000.0;
    shell.ledger.amend(&mut shell.core, line, |report| report.pause_us = pause_us);
    shell.keeper.send(&ToKeeper::Configured(number));
    shell.keeper.say_failing(NAME, None);
    tracing::info!(by = %requester(by), "configuration in force: {changes}; pause {pause_us:.1} µs");
    shell.warn_of_services_without_library();
    let report = Report { line, pause_us, ..Report::of_host(NAME, Outcome::Configured, changes) };
    tell(&reply, report);
}

/// Refuses the configuration under way, because one library's part of it was refused. Without one
/// under way nothing happens: other libraries of the same configuration are refused, too.
pub(super) fn refuse_proposed(shell: &mut Shell, why: &str) {
    if let Some(ProposedConfig { number, by, reply, .. }) = shell.config.take_proposed() {
        refuse(shell, number, by, &reply, why.to_owned());
    }
}

/// Refuses a configuration: tells the keeper, the ledger, the log and the requester. The ledger
/// line counts from the next commit; nothing else has changed.
pub(super) fn refuse(
    shell: &mut Shell,
    number: u64,
    by: Requester,
    reply: &Option<Sender<Answer>>,
    why: String,
) {
    shell.keeper.say_not_configured(number);
    shell.keeper.say_failing(NAME, Some(why.clone()));
    let by = requester(by);
    tracing::warn!(%by, "configuration refused, and nothing has changed: {why}");
    let mut report = Report::of_host(NAME, Outcome::Refused, why);
    report.line = shell.add_line(&by, report.clone());
    tell(reply, report);
}

/// Tells a requester how many reports follow. A requester that is gone is ignored.
pub(super) fn announce(reply: &Option<Sender<Answer>>, reports: usize) {
    if let Some(reply) = reply {
        let _ = reply.send(Answer::Reloading(reports));
    }
}

/// Sends a requester a report. A requester that is gone is ignored.
pub(super) fn tell(reply: &Option<Sender<Answer>>, report: Report) {
    if let Some(reply) = reply {
        let _ = reply.send(Answer::Report(Box::new(report)));
    }
}
