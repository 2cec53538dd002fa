//! Another configuration, put in force while sessions stay: all of it or nothing.
//!
//! Limits, trust and the like change between two passes. A library whose settings or ports change is reloaded: the build that runs,
//! with other settings, as a new generation, with all the steps of a reload; those and the rest are one commit. What is in force is a
//! record, so that a successor goes on with it.

use crate::admin::query::{Answer, Proposal};
use crate::config::{Config, record};
use crate::plugin::prepare::Job;
use crate::protocol::keeper::ToKeeper;
use crate::worker::Worker;
use greenroom_core::core::Core;
use greenroom_core::input::Input;
use greenroom_core::ledger::{Outcome, Report};
use greenroom_core::reload::request::{By, Event, LibraryId, Request, Want};
use greenroom_core::store::kind::Kind;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::Instant;

/// What it is called in reports.
const NAME: &str = "configuration";

/// A configuration that libraries are being reloaded for.
pub(in crate::worker) struct Proposed {
    number: u64,
    pub config: Arc<Config>,
    by: By,
    reply: Option<Sender<Answer>>,
    /// What changes, in words.
    changes: String,
}

/// What was asked for while a configuration was under way: it comes after it, with what is in force then.
pub(in crate::worker) enum Behind {
    Reloads(Vec<(LibraryId, Request)>),
    RollBack(String, Option<u64>, By, Sender<Answer>),
}

/// The record of the configuration in force. Fields that this version does not know are left out.
#[derive(Serialize, Deserialize)]
struct InForce {
    number: u64,
    #[serde(deserialize_with = "record::without_unknown")]
    config: Config,
}

/// The configuration that a predecessor has put in force, if it isn't the one that the host was started with.
pub(in crate::worker) fn in_force(core: &Core) -> Option<Config> {
    recorded(core).map(|r| r.config)
}

fn recorded(core: &Core) -> Option<InForce> {
    let (_, json) = core.kept(Kind::Config).into_iter().next()?;
    serde_json::from_slice(&json)
        .inspect_err(|e| {
            tracing::error!("the configuration in force can't be read, and the first one holds: {e}")
        })
        .ok()
}

impl Worker {
    /// Should the keeper have missed what is in force.
    pub(in crate::worker) fn tell_of_configuration(&mut self) {
        if let Some(InForce { number, .. }) = recorded(&self.core) {
            self.link.send(&ToKeeper::Configured(number));
        }
    }

    /// Puts a configuration in force, or refuses it: behind this pass, and after the reloads that are under way.
    pub(in crate::worker) fn propose(&mut self, proposal: Proposal, reply: Option<Sender<Answer>>) {
        self.proposals.push_back((proposal, reply));
    }

    /// What had to wait for a configuration, and the next one in line, if it is time.
    pub(in crate::worker) fn propose_next(&mut self) {
        if self.proposed.is_none() {
            for behind in std::mem::take(&mut self.behind) {
                match behind {
                    Behind::Reloads(requests) => self.reload(Event::Requested(requests)),
                    Behind::RollBack(name, to, by, reply) => self.ask_roll_back(&name, to, by, reply),
                }
            }
        }
        if self.hand_over_by.is_some() {
            // The keeper hears nothing of these, and has the successor heed them.
            self.proposals.retain(|(p, _)| p.by != By::Signal);
        }
        let ends = self.stop_at.is_some() || self.hand_over_by.is_some();
        while ends || !(self.proposed.is_some() || self.core.reloads.is_busy() || !self.opening.is_empty()) {
            let Some((proposal, reply)) = self.proposals.pop_front() else { return };
            self.begin_proposal(proposal, reply);
        }
    }

    fn begin_proposal(&mut self, proposal: Proposal, reply: Option<Sender<Answer>>) {
        let Proposal { number, config, by } = proposal;
        let (fixed, live) = self.config.changes(&config);
        let affected = match self.may_propose(&config, &fixed) {
            Ok(()) => self.affected(&config),
            Err(why) => {
                announce(&reply, 1);
                return self.refuse_proposal(number, by, reply, why);
            }
        };
        // One for each library, and one for the whole.
        announce(&reply, affected.len() + 1);
        if live.is_empty() && affected.is_empty() {
            self.not_configured(number);
            return tell(&reply, Report::of_host(NAME, Outcome::Unchanged, String::new()));
        }
        let changes: Vec<_> = match live.is_empty() {
            false => live,
            // The file says what it said, but a build that was rolled back to runs with other settings.
            true => affected.iter().map(|(id, _)| self.core.reloads.libraries()[id.0].name()).collect(),
        };
        let config = Arc::new(*config);
        self.proposed =
            Some(Proposed { number, config: config.clone(), by, reply, changes: changes.join(", ") });
        if affected.is_empty() {
            let begun = Instant::now();
            let line = self.put_in_force();
            self.core.handle(Input::Commit);
            return self.is_in_force(line, begun);
        }
        let reply = self.proposed.as_ref().and_then(|p| p.reply.clone());
        let mut requests = Vec::new();
        for (n, (id, copy)) in affected.into_iter().enumerate() {
            self.configs.insert(self.requests + 1 + n as u64, config.clone());
            requests.push((id, Some(copy), Want::Configure));
        }
        self.request(requests, by, true, reply);
    }

    fn may_propose(&self, config: &Config, fixed: &[String]) -> Result<(), String> {
        if self.stop_at.is_some() || self.hand_over_by.is_some() {
            return Err("this worker is about to end; try again".into());
        }
        if !fixed.is_empty() {
            let what = fixed.join(", ");
            return Err(format!(
                "{what} can't change while the host runs: start it anew for that, or leave it as it was"
            ));
        }
        for s in self.core.services().iter().filter(|s| s.build.is_some()) {
            let (wants, allowed) =
                (s.offer.framing.bytes_max(), config.all_limits().of(&s.offer.name).frame_bytes_max);
            if wants > allowed {
                return Err(format!(
                    "service {} takes frames of up to {wants} bytes, and limit frame_bytes_max would be {allowed}",
                    s.offer.name
                ));
            }
        }
        Ok(())
    }

    /// The libraries whose settings or ports differ, with the copies of the builds that they run.
    fn affected(&self, config: &Config) -> Vec<(LibraryId, PathBuf)> {
        let (was, settings) = (self.config.settings(), config.settings());
        let mut affected = Vec::new();
        for (at, record) in &self.records {
            let library = &record.current.library;
            let services = self.core.services().iter();
            let services = services.filter(|s| s.build.as_ref().is_some_and(|b| b.library == *library));
            let held = |name: &str| {
                let mine = self.ports.iter().filter(|p| p.port.0 == *name);
                mine.map(|p| p.port.1).collect::<BTreeSet<_>>()
            };
            let differs = services.map(|s| &s.offer).any(|o| {
                let none = "{}".to_owned();
                let of = |all: &BTreeMap<String, String>| all.get(&o.name).unwrap_or(&none).clone();
                let runs_with = of(record.current.settings.as_ref().unwrap_or(&was));
                // An address that is none is refused by name later.
                let wanted = config.addresses(&o.name, o.port, o.dials);
                runs_with != of(&settings)
                    || wanted.map_or(true, |all| all.into_iter().collect::<BTreeSet<_>>() != held(&o.name))
            });
            if differs {
                affected.push((LibraryId(*at), record.current.copy.clone()));
            }
        }
        affected
    }

    /// The part of a commit that isn't libraries'. Returns the line of the ledger that tells of it.
    pub(in crate::worker) fn put_in_force(&mut self) -> u64 {
        let Some(Proposed { number, config, by, changes, .. }) = &self.proposed else { return 0 };
        let (number, config, by, changes) = (*number, config.clone(), *by, changes.clone());
        self.core.set_limits(config.all_limits());
        self.patience.set(&config.limits);
        self.saver.every(config.save.every_s);
        self.job(Job::Configure(config.clone()));
        let in_force = InForce { number, config: (*config).clone() };
        if !self.core.keep(Kind::Config, 0, &serde_json::to_vec(&in_force).unwrap_or_default()) {
            tracing::error!(
                "no room to record the configuration: a successor would go on with the one before"
            );
        }
        self.config = config;
        let report = Report::of_host(NAME, Outcome::Configured, changes);
        self.note_in_ledger(&crate::worker::reload::carry_out::in_words(by), report)
    }

    /// It is committed.
    pub(in crate::worker) fn is_in_force(&mut self, line: u64, begun: Instant) {
        let Some(Proposed { number, by, reply, changes, .. }) = self.proposed.take() else { return };
        let pause_us = begun.elapsed().as_nanos() as f64 / 1000.0;
        self.amend_ledger(line, |report| report.pause_us = pause_us);
        self.link.send(&ToKeeper::Configured(number));
        tracing::info!(by = %crate::worker::reload::carry_out::in_words(by), "configuration in force: {changes}; pause {pause_us:.1} µs");
        let report = Report { line, pause_us, ..Report::of_host(NAME, Outcome::Configured, changes) };
        tell(&reply, report);
    }

    /// What a keeper need not remember.
    pub(in crate::worker) fn not_configured(&mut self, number: u64) {
        if self.keeper_hears_refusals {
            self.link.send(&ToKeeper::NotConfigured(number));
        }
    }

    /// A library's part was refused, so all of it is.
    pub(in crate::worker) fn proposal_failed(&mut self, why: &str) {
        if let Some(Proposed { number, by, reply, .. }) = self.proposed.take() {
            self.refuse_proposal(number, by, reply, why.to_owned());
        }
    }

    fn refuse_proposal(&mut self, number: u64, by: By, reply: Option<Sender<Answer>>, why: String) {
        self.not_configured(number);
        let by = crate::worker::reload::carry_out::in_words(by);
        tracing::warn!(%by, "configuration refused, nothing has changed: {why}");
        let mut report = Report::of_host(NAME, Outcome::Refused, why);
        report.line = self.note_in_ledger(&by, report.clone());
        tell(&reply, report);
    }
}

/// So many reports follow.
fn announce(reply: &Option<Sender<Answer>>, reports: usize) {
    if let Some(reply) = reply {
        let _ = reply.send(Answer::Reloading(reports));
    }
}

fn tell(reply: &Option<Sender<Answer>>, report: Report) {
    if let Some(reply) = reply {
        let _ = reply.send(Answer::Report(Box::new(report)));
    }
}
