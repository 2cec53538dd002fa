//! A turn that failed with a build on probation is run again by the build before, which stands by.
//!
//! It gets the state, and each entry of a table that it reads, in the shape that it knows, if nothing is lost that way: the build on
//! probation takes the value down, the one before reads and writes it, and taken up again it must be the same, byte for byte.
//! Otherwise it can't be asked. What it writes is marked with its own versions; the build on probation migrates that as ever.

use crate::core::Core;
use crate::execute::batch::Callee;
use crate::ids::{ServiceId, Slot};
use crate::reload::sweep::{convert_value, value_for};
use crate::service::probation::Asked;
use crate::service::registry::{LoadedBuild, Writer};
use crate::tables::entry::version_of;
use crate::turn::code::Code;
use crate::turn::effect::Effect;
use crate::turn::staging::Buffers;
use greenroom_state::abi::Action;
use std::cell::Cell;

/// One kind of value (a state, or a table's) in two builds: what each calls it, and its version there.
struct Pair<'a> {
    serving: (&'a dyn Code, u32, u32),
    before: (&'a dyn Code, u32, u32),
}

impl Pair<'_> {
    /// A value of the serving build's version in the one of the build before, if it comes back from there as it was.
    fn take_down(&self, value: &[u8]) -> Result<Vec<u8>, String> {
        let ((serving, which, here), (before, which_before, there)) = (self.serving, self.before);
        let down = match here == there {
            true => value.to_vec(),
            false => serving.convert(which, here, there, value)?,
        };
        let down = before.convert(which_before, there, there, &down)?;
        match serving.convert(which, there, here, &down)? == value {
            true => Ok(down),
            false => Err(format!("taken down to version {there}, it would lose something")),
        }
    }
}

impl Core {
    /// Runs an action that failed again, with the build before.
    pub(crate) fn ask_before(&mut self, slot: Slot, action: &Action<'_>, buffers: &mut Buffers) -> Asked {
        let Some(id) = self.sessions.get(slot).map(|s| s.service) else { return Asked::Not };
        let service = &self.services[usize::from(id.0)];
        let knows = |b: &LoadedBuild| b.offer.framing == service.offer.framing && b.code.knows(action.kind);
        if !service.before.as_ref().is_some_and(knows) {
            return Asked::Not;
        }
        let Some(state) = self.state_for_before(slot) else { return Asked::Not };
        let version = state.as_ref().map(|(version, _)| *version);
        self.state = state.map(|(_, bytes)| bytes).unwrap_or_default();
        let unreadable = Cell::new(false);
        let convert = |table: &str, stored: u32, value: &[u8]| {
            let read = self.entry_for_before(id, table, stored, value);
            unreadable.set(unreadable.get() || read.is_err());
            read
        };
        let Some(before) = &self.services[usize::from(id.0)].before else { return Asked::Not };
        let by = Callee { code: &*before.code, generation: before.build.generation, convert: &convert };
        self.call(&by, slot, std::slice::from_ref(action), buffers, version);
        let strange = |e: &Effect| match e {
            Effect::Put { table, .. } => self.is_new(id, buffers.text(table)),
            _ => false,
        };
        if unreadable.get() || buffers.effects.iter().any(strange) {
            return Asked::Not;
        }
        if buffers.fault.is_some() || buffers.done != 1 || self.over_limit(slot, buffers).is_some() {
            return Asked::Failed;
        }
        self.pending.acting.had(1);
        self.apply(slot, buffers, Writer::Before);
        Asked::Ran(buffers.close)
    }

    /// A session's state as the build before reads it, and its version then. `Some(None)`: none is stored.
    fn state_for_before(&self, slot: Slot) -> Option<Option<(u32, Vec<u8>)>> {
        let s = self.sessions.get(slot)?;
        let service = &self.services[usize::from(s.service.0)];
        let before = service.before.as_ref()?;
        let Some(stored) = s.state.map(|r| self.store.read(r, <[u8]>::to_vec)) else { return Some(None) };
        let (here, there) = (service.offer.shape.version, before.offer.shape.version);
        let same = s.state_fingerprint == before.fingerprint && s.state_version == there;
        if same || s.state_version < there || (s.state_version == there && here != there) {
            // Its own, or older: it migrates that itself.
            return Some(Some((s.state_version, stored)));
        }
        let as_served = if s.state_version > here {
            let down = service.left_by_newer(s.state_version, here, &stored).ok()?;
            service.code.convert(0, here, here, &down).ok()?
        } else {
            service.code.convert(0, s.state_version, here, &stored).ok()?
        };
        let pair = Pair { serving: (&*service.code, 0, here), before: (&*before.code, 0, there) };
        Some(Some((there, pair.take_down(&as_served).ok()?)))
    }

    /// A value of a table as the build before of a service reads it; `Ok(None)`: it is that already.
    fn entry_for_before(
        &self,
        id: ServiceId,
        table: &str,
        stored: u32,
        value: &[u8],
    ) -> Result<Option<Vec<u8>>, String> {
        if self.is_new(id, table) {
            return Err("the build before doesn't know the table's values".into());
        }
        let as_served = || convert_value(&self.services, &self.owners, table, stored, value);
        // It is another library's, or nobody's, to both of them.
        let Some((before, at)) = self.owner_before(id, table) else { return as_served() };
        let (there, which_before) = (before.offer.tables[at].shape.version, at as u32 + 1);
        let Some(owner) = self.owners.get(table) else {
            // The build that serves has given the table up, and what it wrote counts as the first version.
            return before.code.convert(which_before, version_of(stored), there, value).map(Some);
        };
        let service = &self.services[usize::from(owner.service.0)];
        let shape = &service.offer.tables[owner.which as usize - 1].shape;
        let same = shape.version == there && shape.schema == before.offer.tables[at].shape.schema;
        if same {
            return as_served();
        }
        if version_of(stored) <= there && owner.version != there {
            return before.code.convert(which_before, version_of(stored), there, value).map(Some);
        }
        let as_served = value_for(&self.services, owner, table, version_of(stored), value)?;
        let serving = (&*service.code, owner.which, owner.version);
        let pair = Pair { serving, before: (&*before.code, which_before, there) };
        pair.take_down(&as_served).map(Some)
    }

    /// The build before that owns a table, of the library of a service; and which of its tables it is.
    pub(crate) fn owner_before(&self, id: ServiceId, table: &str) -> Option<(&LoadedBuild, usize)> {
        let library = &self.services[usize::from(id.0)].before.as_ref()?.build.library;
        let befores = self.services.iter().filter_map(|s| s.before.as_ref());
        befores.filter(|b| b.build.library == *library).find_map(|b| {
            let at = b.offer.tables.iter().position(|t| t.name == table)?;
            Some((b, at))
        })
    }

    /// Whether a table is owned by the build that serves, and the one before it doesn't know what its values are.
    fn is_new(&self, id: ServiceId, table: &str) -> bool {
        let build = &self.services[usize::from(id.0)].build;
        let owner = self.owners.get(table).map(|o| &self.services[usize::from(o.service.0)]);
        let own = owner.is_some_and(|o| build.as_ref().is_some_and(|b| o.is_of(&b.library)));
        own && self.owner_before(id, table).is_none()
    }
}
