//! The drivers of what takes several passes: reloads, proposals, probations, restores, watches.
//!
//! A driver owns the requests that wait for it, and steps between two passes with the shell. A
//! driver that needs another one gets it as an argument.

use crate::worker::reload::carry_out::ReloadDriver;
use crate::worker::reload::probation::Probations;
use crate::worker::reload::proposals::Proposals;
use crate::worker::restore::Restores;
use crate::worker::shell::Shell;
use crate::worker::watches::Watches;

/// All drivers of a worker.
pub(super) struct Drivers {
    /// Reloads.
    pub reload: ReloadDriver,
    /// Proposed configurations.
    pub proposals: Proposals,
    /// Probations of builds.
    pub probations: Probations,
    /// Operator restores.
    pub restores: Restores,
    /// Operators who watch turns.
    pub watches: Watches,
}

impl Drivers {
    /// Makes drivers with nothing under way.
    pub(super) fn new(reload: ReloadDriver) -> Drivers {
        let (proposals, probations) = (Proposals::default(), Probations::default());
        let (restores, watches) = (Restores::default(), Watches::default());
        Drivers { reload, proposals, probations, restores, watches }
    }

    /// Steps all drivers between two passes, in a fixed order. A probation that has just ended
    /// counts before a commit replaces its build. A proposal begins once no reload is under way. A
    /// restore comes last: a plan that was checked by a build just replaced is refused.
    pub(super) fn step(&mut self, shell: &mut Shell) {
        self.probations.step(shell);
        self.reload.step(shell, &mut self.probations);
        self.proposals.step(shell, &mut self.reload);
        self.restores.step(shell);
        self.watches.step(shell);
    }
}
