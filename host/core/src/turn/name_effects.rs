//! Register, unregister, look up: names that sessions hold in their service.
//!
//! A turn finds what its batch has registered so far. Names of a failed turn were never held.

use super::effect::Effect;
use super::staged_names::StagedNames;
use super::staging::{Buffers, Staging};
use crate::limits::budget::ROW_NS;
use crate::limits::names::Limit;
use greenroom_state::abi::status;

impl Staging<'_> {
    /// Gives a name of the service to the session, and returns the session that held it before.
    /// The name is taken from that session. Invalid for an empty name and for a service's own
    /// turns. The error is a status of the ABI.
    pub fn register(&mut self, name: &[u8]) -> Result<Option<u64>, u32> {
        if name.is_empty() || self.context.session.is_service() {
            return Err(status::INVALID);
        }
        if name.len() > self.context.limits.topic_name_bytes_max {
            return Err(self.refuse(Limit::TopicNameBytesMax));
        }
        let own = self.context.session.id;
        let before = self.whereis(name);
        let count = self.context.own_names();
        let count = self.staged_names().count(count);
        if before != Some(own) && count >= self.context.limits.names_per_session_max {
            return Err(self.refuse(Limit::NamesPerSessionMax));
        }
        self.buffers.changes_names = true;
        match self.stage(|s| Some(Effect::Register(s.copy(name)?))) {
            status::OK => Ok(before),
            refused => Err(refused),
        }
    }

    /// Gives up a name. If the session does not hold it, nothing happens.
    pub fn unregister(&mut self, name: &[u8]) -> u32 {
        self.buffers.changes_names = true;
        self.stage(|s| Some(Effect::Unregister(s.copy(name)?)))
    }

    /// Number of the session that holds a name of the service.
    pub fn whereis(&mut self, name: &[u8]) -> Option<u64> {
        let context = self.context;
        let staged = self.staged_names().holder(name);
        staged.unwrap_or_else(|| context.holder(name))
    }

    /// First name of the service that is not before `from`, and its holder. The name is lent until
    /// the next call. O(log names), and O(names that this batch changed there).
    pub fn name_next(&mut self, from: &[u8]) -> Option<(&[u8], u64)> {
        self.work(ROW_NS);
        let context = self.context;
        let staged = self.staged_names();
        let mut held = context.next_name(from);
        while let Some((name, _)) = held.filter(|(name, _)| staged.holder(name).is_some()) {
            // The least name above this one.
            held = context.next_name(&[name, &[0]].concat());
        }
        let found = [held, staged.next(from)].into_iter().flatten().min()?;
        let (name, holder) = (found.0.to_vec(), found.1);
        self.buffers.answer = name;
        Some((&self.buffers.answer, holder))
    }

    /// Names that this batch has changed so far.
    fn staged_names(&mut self) -> &StagedNames {
        let context = self.context;
        let Buffers { bytes, effects, names: staged, is_indexed, changes_names, .. } = &mut *self.buffers;
        if *changes_names {
            *is_indexed = true;
            staged.cover(bytes, effects, context.session.id, |name| context.holder(name));
        }
        staged
    }
}
