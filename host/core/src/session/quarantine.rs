//! Sessions whose next action must not run for now: their state can't be read, or that action killed the process, twice.
//!
//! Such a session stays open and is listed with the reason. Its input is kept, up to a limit, and not run until the next build
//! of its library takes it on. A killing action is remembered in a record, so that a successor doesn't try it again; a state
//! that can't be read is tried by whatever code serves next.

use crate::core::Core;
use crate::ids::Slot;
use crate::session::life::{Life, Quarantine};
use crate::store::kind::Kind;
use crate::store::layout::Ref;
use greenroom_state::abi::{Action, action, closed, level};
use serde::{Deserialize, Serialize};

/// An action that must not run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlockedAction {
    /// Of this session.
    pub session: u64,
    /// Its turn, counted as [`crate::session::life::Session::turns`] does: the turns before it.
    pub turn: u64,
    /// Its kind, one of [`action`].
    pub action: u32,
    /// Why.
    pub reason: String,
}

impl Core {
    /// Sees to it that an action doesn't run: when its turn comes, its session is quarantined instead. To be called before the
    /// first pass.
    pub fn withhold(&mut self, withheld: BlockedAction) {
        self.withheld.entry(withheld.session).or_default().push(withheld);
    }

    /// How many of these actions may run; 0: the session was quarantined, or the last turn is left out.
    pub(crate) fn allowed(&mut self, slot: Slot, actions: &[Action<'_>]) -> usize {
        let Some(s) = self.sessions.get(slot) else { return 0 };
        let Some(all) = self.withheld.get_mut(&s.id) else { return actions.len() };
        // What is behind is of no concern any more. A service's own turns have names, not numbers.
        all.retain(|w| w.turn >= s.turns || slot.is_service());
        let same = |w: &BlockedAction| w.turn == s.turns && w.action == actions[0].kind;
        let Some(at) = all.iter().position(same) else {
            // One by one: if another one kills, it is to be known which.
            return if all.is_empty() { actions.len() } else { 1 };
        };
        let withheld = all.remove(at);
        if actions[0].kind == action::CLOSED {
            self.notice(level::ERROR, slot, format!("its last turn was left out: {}", withheld.reason));
        } else {
            self.quarantine_for_good(slot, &withheld);
        }
        0
    }

    /// Until another build takes it on, whatever process serves.
    fn quarantine_for_good(&mut self, slot: Slot, withheld: &BlockedAction) {
        let Some(s) = self.sessions.get_mut(slot) else { return };
        let mut bytes = withheld.turn.to_le_bytes().to_vec();
        bytes.extend_from_slice(withheld.reason.as_bytes());
        let old = s.quarantined.take().and_then(|q| q.record);
        // A reserve is kept for records that must not fail; without it, the next death would find it again.
        let record = self.store.put(old, Kind::Quarantine, s.id, &bytes).ok();
        s.quarantined = Some(Box::new(Quarantine { reason: withheld.reason.clone(), record }));
        self.quarantined.insert(slot);
        self.touch(slot);
        self.notice(level::ERROR, slot, format!("quarantined: {}", withheld.reason));
    }

    /// Until the code that serves next looks at it.
    pub(crate) fn quarantine(&mut self, slot: Slot, reason: String) {
        if let Some(s) = self.sessions.get_mut(slot) {
            s.quarantined = Some(Box::new(Quarantine { reason, record: None }));
            self.quarantined.insert(slot);
        }
    }

    /// A predecessor quarantined it for good.
    pub(crate) fn recover_quarantine(&mut self, slot: Slot, record: Ref) {
        let reason = self.store.read(record, |b| {
            String::from_utf8_lossy(b.get(size_of::<u64>()..).unwrap_or_default()).into_owned()
        });
        if let Some(s) = self.sessions.get_mut(slot) {
            s.quarantined = Some(Box::new(Quarantine { reason, record: Some(record) }));
            self.quarantined.insert(slot);
        }
    }

    /// How many sessions of a library's services wait in quarantine.
    pub fn quarantined(&self, library: &str) -> usize {
        let sessions = self.quarantined.iter().filter_map(|slot| self.sessions.get(*slot));
        sessions.filter(|s| self.services[usize::from(s.service.0)].is_of(library)).count()
    }

    /// Lets a quarantined session go on with the code that serves now, whatever quarantined it. The error says why it can't.
    pub fn release(&mut self, id: u64) -> Result<(), String> {
        let slot = self.sessions.slot_of(id).ok_or_else(|| format!("no session has number {id}"))?;
        if !self.quarantined.contains(&slot) {
            return Err(format!("session {id} is not quarantined"));
        }
        self.end_quarantine(slot);
        if let Some(s) = self.sessions.get_mut(slot) {
            // Until its input has been run, which it kept: nothing else may end it before.
            s.paused = true;
        }
        self.resume(slot);
        self.touch(slot);
        Ok(())
    }

    /// Closes a session, after its last turn. The error says why it can't.
    pub fn close(&mut self, id: u64) -> Result<(), String> {
        let slot = self.sessions.slot_of(id).ok_or_else(|| format!("no session has number {id}"))?;
        if slot.is_service() {
            return Err(format!("no session has number {id}"));
        }
        if self.sessions.get(slot).is_none_or(|s| s.life != Life::Open) {
            return Err(format!("session {id} is closing already"));
        }
        self.finish(slot, closed::OPERATOR);
        Ok(())
    }

    /// It is over: another build serves, or the session has ended.
    pub(crate) fn end_quarantine(&mut self, slot: Slot) {
        self.quarantined.remove(&slot);
        let Some(s) = self.sessions.get_mut(slot) else { return };
        // What was withheld may be said again by whoever started this process.
        if let Some(all) = self.withheld.get_mut(&s.id) {
            all.retain(|w| w.action == action::CLOSED);
        }
        if let Some(record) = s.quarantined.take().and_then(|q| q.record) {
            self.store.delete(record);
        }
    }

    /// Whether a session is still to be told that it opened, because that turn was withheld; it is then told now.
    pub(crate) fn greet(&mut self, slot: Slot) -> bool {
        let Some(s) = self.sessions.get_mut(slot) else { return false };
        if !s.greeting_due || s.life != Life::Open || s.quarantined.is_some() {
            return true;
        }
        s.greeting_due = false;
        self.touch(slot);
        self.run_opened(slot)
    }
}
