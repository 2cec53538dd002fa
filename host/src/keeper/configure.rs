//! Configurations that are proposed to a worker, until it answers.
//!
//! A proposal ends in one of three ways: in force, refused, or lost with its worker. If a signal's
//! proposal is lost, it is due again, up to [`SIGNALS_LOST_MAX`] times in a row. Numbers are never
//! used again, so a late answer to an earlier proposal changes nothing.

use crate::config::Config;
use crate::keeper::observer_process::ObserverSocket;
use greenroom_core::reload::request::Requester;
use std::collections::BTreeMap;

/// Workers in a row that may die with a signal's configuration. Then it is not proposed again: it
/// may be what kills them.
const SIGNALS_LOST_MAX: u32 = 2;

/// A configuration that a worker was asked to put in force.
pub(super) struct Proposed {
    /// The configuration, as it was read.
    pub(super) config: Config,
    /// Socket of the observer, if its address is another one.
    pub(super) observer: Option<ObserverSocket>,
    /// The requester: a signal's proposal is repeated, an operator's is not.
    pub(super) by: Requester,
}

/// Proposals that a worker has not answered, by number.
#[derive(Default)]
pub(super) struct ConfigProposals {
    /// Proposals that the present worker has not answered.
    pub(super) open: BTreeMap<u64, Proposed>,
    /// Number of the last proposal.
    pub(super) last: u64,
    /// A SIGHUP waits for a worker.
    pub(super) sighup_pending: bool,
    /// Changed files of settings wait for a worker.
    pub(super) files_pending: bool,
    /// Workers in a row that died before they answered a proposal that no operator waits for.
    pub(super) signals_lost: u32,
    /// SIGHUPs so far.
    pub(super) sighups: u64,
    /// Times that the configuration is being read for a SIGHUP.
    pub(super) sighups_reading: u32,
}

impl ConfigProposals {
    /// Number of the next proposal.
    pub(super) fn next_number(&mut self) -> u64 {
        self.last += 1;
        self.last
    }

    /// Number of the last SIGHUP, while what it asked for is neither in force nor refused.
    pub(super) fn reload_under_way(&self) -> Option<u64> {
        let waits = self.sighups_reading > 0
            || self.sighup_pending
            || self.open.values().any(|proposed| proposed.by == Requester::Signal);
        waits.then_some(self.sighups)
    }

    /// Takes a proposal that the worker has answered. `None`: none of this number is open, since it
    /// was answered before.
    pub(super) fn answered(&mut self, number: u64) -> Option<Proposed> {
        let proposed = self.open.remove(&number)?;
        if proposed.by == Requester::Signal {
            self.signals_lost = 0;
        }
        Some(proposed)
    }

    /// Forgets the proposals of a worker that has ended. Returns who proposes again: those whose
    /// proposal is lost or came while no worker served, and who have no caller. A signal reads
    /// what a changed file is about, too.
    pub(super) fn take_due_again(&mut self) -> Option<Requester> {
        let lost_ones: Vec<_> = std::mem::take(&mut self.open).into_values().map(|p| p.by).collect();
        let was_lost = |by: Requester| lost_ones.contains(&by);
        let mut lost = was_lost(Requester::Signal) || was_lost(Requester::Watcher);
        self.signals_lost += u32::from(lost);
        if self.signals_lost > SIGNALS_LOST_MAX {
            tracing::error!(
                "{} workers have ended with the configuration: it isn't tried again",
                self.signals_lost
            );
            (lost, self.signals_lost) = (false, 0);
        }
        let signal = std::mem::take(&mut self.sighup_pending) || lost && was_lost(Requester::Signal);
        let files = std::mem::take(&mut self.files_pending) || lost;
        signal.then_some(Requester::Signal).or_else(|| files.then_some(Requester::Watcher))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    pub(super) fn a_proposal_without_a_caller_is_repeated_until_too_many_workers_died_with_it() {
        let mut proposals = ConfigProposals::default();
        let mut lose = |by| {
            let number = proposals.next_number();
            proposals.open.insert(number, Proposed { config: Config::default(), observer: None, by });
            proposals.take_due_again()
        };
        let (signal, watcher) = (Some(Requester::Signal), Some(Requester::Watcher));
        assert_eq!(lose(Requester::Operator { uid: 1, pid: 2 }), None);
        assert_eq!((lose(Requester::Signal), lose(Requester::Watcher)), (signal, watcher));
        assert_eq!(lose(Requester::Signal), None, "the third worker in a row");
        assert_eq!(lose(Requester::Signal), signal);
        assert!(proposals.answered(1).is_none() && proposals.take_due_again().is_none());
        (proposals.sighup_pending, proposals.files_pending) = (true, true);
        assert_eq!((proposals.take_due_again(), proposals.take_due_again()), (signal, None));
        proposals.files_pending = true;
        assert_eq!((proposals.take_due_again(), proposals.take_due_again()), (watcher, None));
    }
}
