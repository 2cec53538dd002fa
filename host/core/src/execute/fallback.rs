//! A turn that failed on probation is run by the previous build, which stands by.
//!
//! The previous build gets the state, and each entry of a table that it reads, in the version that
//! it knows, if nothing is lost that way: the build on probation downgrades the value, the previous
//! build reads and writes it, and upgraded again it must be the same, byte for byte. Otherwise the
//! previous build can't be asked. Its writes are marked with its own versions; the build on
//! probation migrates them as ever.

use super::Executor;
use super::apply::apply;
use super::call::{Call, Callee, call};
use super::reserve::reserve;
use crate::effects::inbox::RunningBatch;
use crate::host_state::HostState;
use crate::ids::{ServiceId, Slot};
use crate::service::convert::{convert_value, value_for};
use crate::service::probation::Fallback;
use crate::service::registry::{LoadedBuild, Writer};
use crate::tables::entry::version_of;
use crate::turn::code::Code;
use crate::turn::effect::Effect;
use greenroom_state::abi::Action;
use std::cell::Cell;

/// One kind of value (a state, or a table's) in two builds: the code of each, the number of the
/// value there, and its version.
struct Pair<'a> {
    serving: (&'a dyn Code, u32, u32),
    standby: (&'a dyn Code, u32, u32),
}

impl Pair<'_> {
    /// Downgrades a value to the version of the build that stands by, if it comes back as it was.
    fn downgrade(&self, value: &[u8]) -> Result<Vec<u8>, String> {
        let ((serving, which, here), (standby, which_there, there)) = (self.serving, self.standby);
        let down = match here == there {
            true => value.to_vec(),
            false => serving.convert(which, here, there, value)?,
        };
        let down = standby.convert(which_there, there, there, &down)?;
        match serving.convert(which, there, here, &down)? == value {
            true => Ok(down),
            false => Err(format!("taken down to version {there}, it would lose something")),
        }
    }
}

/// Runs an action that failed again, with the previous build.
pub(super) fn run_with_previous_build(
    host: &mut HostState,
    executor: &mut Executor,
    slot: Slot,
    action: &Action<'_>,
    running: &mut RunningBatch,
) -> Fallback {
    let Some(id) = host.sessions.get(slot).map(|s| s.service) else { return Fallback::Unavailable };
    let service = &host.services[id];
    let knows = |b: &LoadedBuild| b.offer.framing == service.offer.framing && b.code.knows(action.kind);
    let Some(standby) = service.standby.as_ref().filter(|b| knows(b)) else { return Fallback::Unavailable };
    let Some(state) = state_for_standby(host, slot) else { return Fallback::Unavailable };
    let unreadable = Cell::new(false);
    let convert = |table: &str, stored: u32, value: &[u8]| {
        let read = entry_for_standby(host, id, table, stored, value);
        unreadable.set(unreadable.get() || read.is_err());
        read
    };
    let callee = Callee { code: &*standby.code, generation: standby.build.generation, convert: &convert };
    let of = Call { slot, actions: std::slice::from_ref(action), running };
    let buffers = &mut executor.buffers;
    call(host, &callee, of, state.as_ref().map(|(version, bytes)| (*version, &bytes[..])), buffers);
    let strange = |e: &Effect| match e {
        Effect::Put { table, .. } => is_new(host, id, buffers.text(table)),
        _ => false,
    };
    if unreadable.get() || buffers.effects.iter().any(strange) {
        return Fallback::Unavailable;
    }
    if buffers.fault.is_some() || buffers.done != 1 || reserve(host, slot, buffers).is_some() {
        return Fallback::Failed;
    }
    running.had(1);
    apply(host, slot, buffers, Writer::Standby, running);
    Fallback::Answered { close: buffers.close }
}

/// A session's state as the standby build reads it, with its version then. `Some(None)`: none is
/// stored. `None`: the standby build can't read it without loss.
fn state_for_standby(host: &HostState, slot: Slot) -> Option<Option<(u32, Vec<u8>)>> {
    let s = host.sessions.get(slot)?;
    let service = &host.services[s.service];
    let standby = service.standby.as_ref()?;
    let Some(stored) = s.state.map(|r| host.store.read(r, <[u8]>::to_vec)) else { return Some(None) };
    let (here, there) = (service.offer.shape.version, standby.offer.shape.version);
    let same = s.state_fingerprint == standby.fingerprint && s.state_version == there;
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
    let pair = Pair { serving: (&*service.code, 0, here), standby: (&*standby.code, 0, there) };
    Some(Some((there, pair.downgrade(&as_served).ok()?)))
}

/// A value of a table as the standby build of a service reads it; `Ok(None)`: it is that already.
fn entry_for_standby(
    host: &HostState,
    id: ServiceId,
    table: &str,
    stored: u32,
    value: &[u8],
) -> Result<Option<Vec<u8>>, String> {
    if is_new(host, id, table) {
        return Err("the build before doesn't know the table's values".into());
    }
    let as_served = || convert_value(&host.services, &host.owners, table, stored, value);
    // To both of them the table is another library's, or nobody's.
    let Some((standby, at)) = host.services.standby_owner(id, table) else { return as_served() };
    let (there, which_there) = (standby.offer.tables[at].shape.version, at as u32 + 1);
    let Some(owner) = host.owners.get(table) else {
        // The build that serves has given the table up, and its writes count as the first version.
        return standby.code.convert(which_there, version_of(stored), there, value).map(Some);
    };
    let service = &host.services[owner.service];
    let shape = &service.offer.tables[owner.which as usize - 1].shape;
    let same = shape.version == there && shape.schema == standby.offer.tables[at].shape.schema;
    if same {
        return as_served();
    }
    if version_of(stored) <= there && owner.version != there {
        return standby.code.convert(which_there, version_of(stored), there, value).map(Some);
    }
    let as_served = value_for(&host.services, owner, table, version_of(stored), value)?;
    let serving = (&*service.code, owner.which, owner.version);
    let pair = Pair { serving, standby: (&*standby.code, which_there, there) };
    pair.downgrade(&as_served).map(Some)
}

/// Whether the build that serves owns a table, and the standby build does not know its values.
fn is_new(host: &HostState, id: ServiceId, table: &str) -> bool {
    let build = &host.services[id].build;
    let owner = host.owners.get(table).map(|o| &host.services[o.service]);
    let own = owner.is_some_and(|o| build.as_ref().is_some_and(|b| o.is_of(&b.library)));
    own && host.services.standby_owner(id, table).is_none()
}
