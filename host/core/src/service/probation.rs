//! A new build proves itself while the one before stands by.
//!
//! For a while a turn that fails is run again by the build before (`standby.rs`): then the client gets its answer, and the failure
//! counts against the new build. It counts as well if the build before can't be asked. A turn that fails with both is the client's doing,
//! or an old fault, and doesn't count. Past a limit the build before takes over again, and the new one only converts what it left.

use crate::command::Command;
use crate::core::Core;
use crate::ids::ServiceId;
use crate::ledger::ProbationCounts;
use crate::service::offer::{Build, Offer};
use crate::service::placeholder::{Missing, Withdrawn};
use crate::service::registry::Service;
use greenroom_state::compatibility::judge_back;

impl Core {
    /// The probation of a library's build.
    pub fn probation(&self, library: &str) -> Option<&Probation> {
        self.probations.iter().find(|p| p.build.library == library)
    }

    /// Puts a library's build on probation: `before` is the one that is to take over if it fails, and stands by already.
    pub fn begin_probation(&mut self, build: &Build, before: &Build, until_ns: u64) {
        self.probations.retain(|p| p.build.library != build.library);
        // What is converted now may have to go back.
        self.stop_sweeps(&build.library);
        let turns_before = self.turns_of(&build.library);
        let (build, before) = (build.clone(), before.clone());
        let record = ProbationCounts::default();
        self.probations.push(Probation { build, before, until_ns, failed: false, turns_before, record });
    }

    fn turns_of(&self, library: &str) -> u64 {
        self.services.iter().filter(|s| s.is_of(library)).map(|s| s.turns).sum()
    }

    /// When the next probation is over by time.
    pub(crate) fn next_proof_ns(&self) -> Option<u64> {
        self.probations.iter().filter(|p| !p.failed).map(|p| p.until_ns).min()
    }

    /// Ends the probations whose time or turns are up.
    pub(crate) fn end_probations(&mut self) {
        let mut at = 0;
        while at < self.probations.len() {
            let turns = self.turns_of(&self.probations[at].build.library);
            let p = &mut self.probations[at];
            p.record.turns = turns.saturating_sub(p.turns_before);
            let enough = self.limits.probation_turns;
            let over = p.until_ns <= self.now_ns || (enough > 0 && p.record.turns >= enough);
            if p.failed || !over {
                at += 1;
                continue;
            }
            let p = self.probations.remove(at);
            self.let_go_of_before(&p.build.library);
            self.sweep(&p.build.library);
            self.effects.push(Command::ProbationEnd {
                build: p.build,
                record: p.record,
                proof: ProbationEnd::Passed,
            });
        }
    }

    /// A build stays although it failed: there is no way back.
    pub fn end_probation(&mut self, library: &str) {
        self.probations.retain(|p| p.build.library != library);
        self.let_go_of_before(library);
        self.sweep(library);
    }

    fn let_go_of_before(&mut self, library: &str) {
        for s in &mut self.services {
            let served = s.before.take_if(|b| b.build.library == library);
            self.retired.extend(served);
        }
    }

    /// A turn failed: whether it counts against a build on probation.
    pub(crate) fn judge_fault(&mut self, service: ServiceId, asked: &Asked) {
        let spared = match asked {
            Asked::Failed => return,
            Asked::Not => false,
            Asked::Ran(_) => true,
        };
        let limit = self.limits.probation_faults_max.max(1);
        let library = self.services[usize::from(service.0)].build.as_ref().map(|b| &b.library);
        let Some(at) = self.probations.iter().position(|p| Some(&p.build.library) == library) else { return };
        let turns = self.turns_of(&self.probations[at].build.library);
        let p = &mut self.probations[at];
        p.record.turns = turns.saturating_sub(p.turns_before);
        p.record.faults += 1;
        p.record.spared += u32::from(spared);
        if p.record.faults >= limit && !p.failed {
            p.failed = true;
            let why = format!(
                "{} of its turns failed that generation {} doesn't fail (limit probation_faults_max)",
                p.record.faults, p.before.generation
            );
            self.effects.push(Command::ProbationEnd {
                build: p.build.clone(),
                record: p.record,
                proof: ProbationEnd::Failed(why),
            });
        }
    }

    /// Whether the build before can take over from the one on probation; what it offers.
    pub fn can_roll_back(&self, library: &str) -> Result<Vec<Offer>, String> {
        if self.probation(library).is_none() {
            return Err("no build before it stands by".into());
        }
        let mut offers = Vec::new();
        for service in &self.services {
            let Some(before) = service.before.as_ref().filter(|b| b.build.library == library) else {
                continue;
            };
            let name = &service.offer.name;
            let (here, there) = (&service.offer.shape, &before.offer.shape);
            judge_back(name, here, &service.converting(None), there, &service.stored_versions())?;
            for table in &before.offer.tables {
                let stored = self.tables.versions(&table.name);
                let others = service.converting(Some(&table.name));
                let live = service.offer.tables.iter().find(|t| t.name == table.name);
                if let Some(live) = live {
                    let what = format!("table {}", table.name);
                    judge_back(&what, &live.shape, &others, &table.shape, &stored)?;
                }
            }
            offers.push(before.offer.clone());
        }
        Ok(offers)
    }

    /// Puts the build before back in charge, between two passes. The one that served goes on converting what it left. Returns the
    /// build that serves now. To be called only if [`Core::can_roll_back`].
    pub fn roll_back(&mut self, library: &str) -> Option<Build> {
        let at = self.probations.iter().position(|p| p.build.library == library)?;
        let Probation { before, .. } = self.probations.remove(at);
        for service in &mut self.services {
            let mine = service.build.is_none() || service.is_of(library);
            if let Some(before) = service.before.take_if(|b| mine && b.build.library == library) {
                if let Some(newer) = service.replace(before) {
                    service.converters.push(newer);
                }
            } else if service.is_of(library) {
                // Only the newer build offers it. Whoever is connected waits.
                let sessions = service.sessions > 0;
                let newer = service.withdraw(if sessions { Box::new(Missing) } else { Box::new(Withdrawn) });
                service.converters.extend(newer.filter(|_| sessions));
            }
        }
        self.own_tables(library);
        self.resume_quarantined(library);
        self.sweep(library);
        Some(before)
    }

    /// Has a build convert what it left, in this pass and in those to come: it was rolled back by a predecessor of this process.
    pub fn go_on_converting(&mut self, build: &Build, offers: crate::service::offer::Serving) {
        self.stand_by_to_convert(build, offers);
        self.sweep(&build.library);
    }

    /// Has a build stand by to convert what it left. It isn't let go of, whatever there is of that.
    pub fn stand_by_to_convert(&mut self, build: &Build, offers: crate::service::offer::Serving) {
        for (offer, code) in offers {
            if let Some(service) = self.services.iter_mut().find(|s| s.offer.name == offer.name) {
                service.converters.push(crate::service::registry::LoadedBuild::new(
                    offer,
                    build.clone(),
                    code,
                ));
            }
        }
    }

    /// Has a build stand by to take over: a predecessor of this process had put the one that serves on probation.
    pub fn stand_by(&mut self, build: &Build, offers: crate::service::offer::Serving) {
        for (offer, code) in offers {
            if let Some(service) = self.services.iter_mut().find(|s| s.offer.name == offer.name) {
                service.before = Some(crate::service::registry::LoadedBuild::new(offer, build.clone(), code));
            }
        }
    }

    /// Whether builds that were rolled back are still needed to convert what they left.
    pub fn converts(&self, library: &str) -> bool {
        let of = |s: &&Service| s.converters.iter().any(|c| c.build.library == library);
        self.services.iter().any(|s| of(&s))
    }

    /// Builds that are needed no more, to be dropped elsewhere; `None`: there is none.
    pub fn take_retired(&mut self) -> Option<Box<dyn Send>> {
        let retired = std::mem::take(&mut self.retired);
        (!retired.is_empty()).then(|| Box::new(retired) as Box<dyn Send>)
    }
}

/// A build on probation.
#[derive(Debug, Clone)]
pub struct Probation {
    /// The build.
    pub build: Build,
    /// The last one that proved itself.
    pub before: Build,
    /// When it is over, on the clock of [`crate::input::Input::PassBegins`].
    pub until_ns: u64,
    /// It is to give way.
    pub(crate) failed: bool,
    /// Turns that the library's services had run when it began.
    pub(crate) turns_before: u64,
    /// What it did so far.
    pub record: ProbationCounts,
}

/// What came of asking the build before.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Asked {
    /// It can't be asked.
    Not,
    /// It fails too.
    Failed,
    /// It ran the turn, which is applied. The turn closed the session, or not.
    Ran(bool),
}

/// How a probation ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProbationEnd {
    /// It is over.
    Passed,
    /// The build is to give way, for this reason.
    Failed(String),
}
