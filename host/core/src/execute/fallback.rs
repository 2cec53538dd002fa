//! Fallback to the previous build for a turn that failed on probation.
//!
//! The previous build stands by with its code loaded. It gets the state, and each entry of a
//! table that it reads, in the versions that it knows. A value that the serving build wrote is
//! downgraded by the serving build, then read and written by the previous build. Upgraded again,
//! it must be the same value, in whatever order its maps are written. If it is not, or if a
//! conversion fails, the previous build can't be asked.
//!
//! A state that neither build can read is an old fault, as a failure with both builds is.
//!
//! The turn is reserved and applied like any other. Its writes are marked with the versions of
//! the previous build, so the serving build migrates them when it reads them. A fallback costs
//! up to five conversions for each value that is read, and happens for failed turns alone.
//!
//! | answer | the failure counts against the build |
//! | --- | --- |
//! | unavailable | yes |
//! | failed | no: the action is at fault, or the fault is an old one |
//! | answered | yes, and the peer has its answer |

use super::Executor;
use super::apply::apply;
use super::call::{Call, Callee, call};
use super::reserve::reserve;
use crate::effects::running_batch::RunningBatch;
use crate::host_state::HostState;
use crate::ids::{ServiceId, Slot};
use crate::service::convert::{convert_value, value_for};
use crate::service::offer::Offer;
use crate::service::probation::Fallback;
use crate::service::registry::{LoadedBuild, Writer};
use crate::tables::entry::version_of;
use crate::turn::code::Code;
use crate::turn::effect::Effect;
use crate::turn::staging::Buffers;
use greenroom_state::abi::{Action, fault};
use greenroom_state::same_value::same_value;
use greenroom_state::schema::Schema;
use std::cell::Cell;

/// A kind of value (a state, or a table's) in two builds: the newer one, which wrote it, and the
/// one before. Each has its code, the number of the value there (0: the state, n: the n-th table),
/// and its version.
pub(super) struct Pair<'a> {
    pub(super) newer: (&'a dyn Code, u32, u32),
    pub(super) before: (&'a dyn Code, u32, u32),
    /// Schema of the newer build, which says whether the value has sets in it.
    pub(super) schema: Option<&'a Schema>,
}

impl Pair<'_> {
    /// Downgrades a value to the version of the build before. Fails if a conversion fails, or
    /// if the value does not come back as it was.
    pub(super) fn downgrade(&self, value: &[u8]) -> Result<Vec<u8>, String> {
        let ((newer, which, here), (before, which_there, there)) = (self.newer, self.before);
        // Builds of one version may still differ in fields, so the build before reads and writes
        // the value in any case.
        let down = match here == there {
            true => value.to_vec(),
            false => newer.convert(which, here, there, value)?,
        };
        let down = before.convert(which_there, there, there, &down)?;
        let back = newer.convert(which, there, here, &down)?;
        match same_value(&back, value, self.schema) {
            true => Ok(down),
            false => Err(format!("taken down to version {there}, it would lose something")),
        }
    }
}

/// Runs an action that failed again, with the previous build. `unread`: it failed because the
/// serving build can't read the state. Applies the outcome if the turn succeeds and there is room.
/// Otherwise nothing has changed but the staging buffers.
pub(super) fn run_with_previous_build(
    host: &mut HostState,
    executor: &mut Executor,
    slot: Slot,
    (action, unread): (&Action<'_>, bool),
    running: &mut RunningBatch,
) -> Fallback {
    let Some((id, framing)) = host.sessions.get(slot).map(|s| (s.service, s.framing_sent())) else {
        return Fallback::Unavailable;
    };
    let service = &host.services[id];
    // Under another framing the action would be another message, and what is sent would be
    // framed otherwise than the peer expects.
    let framing = service.framings.get(framing);
    let offers = |o: &Offer| o.endpoints.iter().any(|e| e.framing == *framing);
    let knows = |b: &LoadedBuild| offers(&b.offer) == offers(&service.offer) && b.code.knows(action.kind);
    let Some(standby) = service.standby.as_ref().filter(|b| knows(b)) else { return Fallback::Unavailable };
    let Some(state) = state_for_standby(host, slot) else {
        return match unread && is_unreadable(host, &mut executor.buffers, slot) {
            true => Fallback::Failed,
            false => Fallback::Unavailable,
        };
    };
    let unreadable = Cell::new(false);
    // A turn whose read failed fails as well. The cell tells that case apart: it says nothing
    // about the action.
    let convert = |table: &str, stored: u32, value: &[u8]| {
        let read = entry_for_standby(host, id, table, stored, value);
        unreadable.set(unreadable.get() || read.is_err());
        read
    };
    let code = &*standby.code;
    let callee = Callee { code, framing: code, generation: standby.build.generation, convert: &convert };
    let of = Call { slot, actions: std::slice::from_ref(action), running };
    let buffers = &mut executor.buffers;
    call(host, &callee, of, state.as_ref().map(|(version, bytes)| (*version, &bytes[..])), buffers);
    // A write to a table that the standby build does not know would be marked with a version of
    // the serving build. No check says that the value is of that version.
    let strange = |e: &Effect| match e {
        Effect::Put { table, .. } => is_new(host, id, buffers.text(table)),
        _ => false,
    };
    if unreadable.get() || buffers.effects.iter().any(strange) {
        return Fallback::Unavailable;
    }
    // If there is no room for the outcome, the turn counts as failed with both builds.
    if buffers.fault.is_some() || buffers.done != 1 || reserve(host, slot, buffers).is_some() {
        return Fallback::Failed;
    }
    // Counted before applying, as for any turn: effects find only later actions.
    running.had(1);
    apply(host, slot, buffers, Writer::Standby, running);
    Fallback::Answered { close: buffers.close }
}

/// State of a session as the standby build reads it, with the version that it has then. If none
/// is stored, `Some(None)`. If the standby build can't read it without loss, `None`.
fn state_for_standby(host: &HostState, slot: Slot) -> Option<Option<(u32, Vec<u8>)>> {
    let s = host.sessions.get(slot)?;
    let service = &host.services[s.service];
    let standby = service.standby.as_ref()?;
    let Some(stored) = s.state.map(|r| host.store.read(r, <[u8]>::to_vec)) else { return Some(None) };
    let (here, there) = (service.offer.shape.version, standby.offer.shape.version);
    let same = s.state_fingerprint == standby.fingerprint && s.state_version == there;
    if same || s.state_version < there || (s.state_version == there && here != there) {
        // A state of the standby build, or an older one: that build migrates it itself.
        return Some(Some((s.state_version, stored)));
    }
    // First to the version that serves, by the build that left the state; from there on the two
    // builds must agree.
    let as_served = if s.state_version > here {
        let down = service.left_by_newer(s.state_version, here, &stored).ok()?;
        service.code.convert(0, here, here, &down).ok()?
    } else {
        service.code.convert(0, s.state_version, here, &stored).ok()?
    };
    let schema = service.offer.shape.schema.as_ref();
    let pair = Pair { newer: (&*service.code, 0, here), before: (&*standby.code, 0, there), schema };
    Some(Some((there, pair.downgrade(&as_served).ok()?)))
}

/// Whether the standby build can't read the state of a session as it is stored, if it is of that
/// build's version or older. A state of a newer version is not the standby build's to read. The
/// buffers hold the outcome of the call afterwards.
fn is_unreadable(host: &HostState, buffers: &mut Buffers, slot: Slot) -> bool {
    let Some(s) = host.sessions.get(slot) else { return false };
    let (Some(r), Some(standby)) = (s.state, host.services[s.service].standby.as_ref()) else { return false };
    if s.state_version > standby.offer.shape.version {
        return false;
    }
    let stored = host.store.read(r, <[u8]>::to_vec);
    let convert = |_: &str, _: u32, _: &[u8]| Ok(None);
    let code = &*standby.code;
    let callee = Callee { code, framing: code, generation: standby.build.generation, convert: &convert };
    // Without actions, and not `convert`: libraries of ABI 1.0 convert nothing.
    let of = Call { slot, actions: &[], running: &RunningBatch::default() };
    call(host, &callee, of, Some((s.state_version, &stored)), buffers);
    buffers.fault.take().is_some_and(|f| f.kind == fault::STATE)
}

/// A value of a table as the standby build of a service reads it; `Ok(None)`: it is that
/// already. Fails if the standby build can't read the value without loss.
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
    // To both builds the table is another library's, or nobody's.
    let Some((standby, at)) = host.services.standby_owner(id, table) else { return as_served() };
    let (there, which_there) = (standby.offer.tables[at].shape.version, at as u32 + 1);
    let Some(owner) = host.owners.get(table) else {
        // The serving build has given the table up, and its writes count as the first version.
        return standby.code.convert(which_there, version_of(stored), there, value).map(Some);
    };
    let service = &host.services[owner.service];
    let shape = &service.offer.tables[owner.which as usize - 1].shape;
    let same = shape.version == there && shape.schema == standby.offer.tables[at].shape.schema;
    if same {
        return as_served();
    }
    // A value of the standby build's version or older: that build migrates it itself. If both
    // builds write one version, a value may be of either schema, so that case takes the long
    // way.
    if version_of(stored) <= there && owner.version != there {
        return standby.code.convert(which_there, version_of(stored), there, value).map(Some);
    }
    let as_served = value_for(&host.services, owner, table, version_of(stored), value)?;
    let newer = (&*service.code, owner.which, owner.version);
    let pair = Pair { newer, before: (&*standby.code, which_there, there), schema: shape.schema.as_ref() };
    pair.downgrade(&as_served).map(Some)
}

/// Whether the library of the build that serves owns a table whose values the standby build does
/// not know.
fn is_new(host: &HostState, id: ServiceId, table: &str) -> bool {
    let build = &host.services[id].build;
    let owner = host.owners.get(table).map(|o| &host.services[o.service]);
    let own = owner.is_some_and(|o| build.as_ref().is_some_and(|b| o.is_of(&b.library)));
    own && host.services.standby_owner(id, table).is_none()
}
