//! Desk of what operators do to sessions and their data: messages, checks, restores, replays.

use super::check::{self, Builds, Checked, GivenEntry, GivenState};
use super::message;
use super::plan::{Plan, Survey};
use super::replay::{Replayed, replay};
use super::restore;
use super::undo::ReplacedData;
use crate::execute::Executor;
use crate::execute::call::retrace;
use crate::host_state::HostState;
use crate::ids::Slot;
use crate::ledger::Restored;
use crate::service::convert::value_for;
use crate::tables::entry::version_of;
use crate::turn::turn_record::TurnRecord;

/// Desk of an operator. Made for each call.
pub struct OperatorDesk<'a> {
    pub(crate) host: &'a mut HostState,
    pub(crate) executor: &'a mut Executor,
}

impl OperatorDesk<'_> {
    /// Sends a line to a session's peer, in its framing. The error is a sentence: nothing is sent.
    pub fn send_message(&mut self, id: u64, line: &[u8]) -> Result<(), String> {
        message::send_message(self.host, self.executor, id, line)
    }

    /// Runs a recorded turn with the build that serves, and applies nothing of it.
    pub fn replay(&mut self, recorded: &TurnRecord) -> Result<Replayed, String> {
        replay(self.host, self.executor, recorded)
    }

    /// Asks the build that runs a session what becomes of its dialogue: [`DIALOGUE`]. Returns JSON;
    /// `None`: it is in none. Changes nothing.
    ///
    /// [`DIALOGUE`]: greenroom_state::abi::action::DIALOGUE
    pub fn retrace(&mut self, slot: Slot) -> Result<Option<String>, String> {
        retrace(self.host, self.executor, slot)
    }

    /// Checks a state that an operator gives: what would be stored. Stores nothing.
    pub fn check_state(&mut self, given: &GivenState, builds: &mut Builds) -> Checked {
        check::check_state(self.host, self.executor, given, builds)
    }

    /// Checks an entry that an operator gives: what would be stored. Stores nothing.
    pub fn check_entry(&self, table: &str, given: &GivenEntry, builds: &mut Builds) -> Checked {
        check::check_entry(self.host, table, given, builds)
    }

    /// Looks at so many items of a plan, and adds what they would change to `survey`. True: all
    /// are done. The caller repeats the call in later passes.
    pub fn survey(&self, plan: &Plan, survey: &mut Survey, items: usize) -> bool {
        restore::survey_plan(self.host, plan, survey, items)
    }

    /// Checks whether all that a survey found can be stored, and was checked by the builds that
    /// serve. The error is a sentence.
    pub fn has_room(&mut self, plan: &Plan, survey: &Survey) -> Result<(), String> {
        restore::has_room(self.host, plan, survey)
    }

    /// Stores all of a plan that differs from what is there, or nothing. Fails with a sentence,
    /// and nothing has changed then. `earlier`: a survey of the plan, from earlier passes. O(states
    /// of the plan + entries that change + entries of tables that were written since).
    pub fn restore(&mut self, plan: &Plan, earlier: &Survey) -> Result<(Restored, ReplacedData), String> {
        restore::restore(self.host, plan, earlier)
    }

    /// Lets a table's owner read a value of a version, as the next turn that reads it would.
    /// Returns the value as the owner would store it. Stores nothing.
    pub fn rehearse_entry(&self, table: &str, stored: u32, value: &[u8]) -> Result<Vec<u8>, String> {
        let owner = self.host.owners.get(table).ok_or("nobody owns the table")?;
        let after = value_for(&self.host.services, owner, table, version_of(stored), value)?;
        match after.len() > self.host.limits.host().table_value_bytes_max {
            true => Err("it would be over limit table_value_bytes_max".into()),
            false => Ok(after),
        }
    }
}
