//! Read-only views of sessions and tables for operators, in slices: no answer holds up the loop.
//!
//! A slice is a copy, consistent in itself. The caller asks for the next one with the last key that
//! it got.

use crate::effects::inbox::ActionView;
use crate::effects::jobs::JobView;
use crate::effects::outbound::Connect;
use crate::effects::timers::timer_name;
use crate::host_state::HostState;
use crate::ids::ServiceId;
use crate::ids::Slot;
use crate::session::life::Session;
use greenroom_state::session_record::SessionRecord;
use std::net::SocketAddr;

/// What is asked of a slice of sessions.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// Only sessions of this service.
    pub service: Option<String>,
    /// Only this session.
    pub session: Option<u64>,
    /// With states, input and output; else the records alone.
    pub contents: bool,
}

/// One session.
#[derive(Debug, Clone, PartialEq)]
pub struct SessionView {
    /// Its record.
    pub record: SessionRecord,
    /// Its service's name.
    pub service: String,
    /// Why it is quarantined.
    pub quarantined: Option<String>,
    /// The state as stored.
    pub state: Option<Vec<u8>>,
    /// Input left over.
    pub input: Vec<u8>,
    /// Output not sent.
    pub output: Vec<u8>,
    /// Its timers, with the nanoseconds until they fire; 0: due.
    pub timers: Vec<(String, u64)>,
    /// Actions that wait for their turns, but for timers: oldest first.
    pub actions: Vec<ActionView>,
    /// Its jobs that didn't end.
    pub jobs: Vec<JobView>,
    /// Connections that are being made for it.
    pub connects: Vec<ConnectView>,
    /// Topics it is on.
    pub topics: Vec<String>,
}

/// A connection that is being made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnectView {
    /// Its number.
    pub number: u64,
    /// The service that it will be a session of.
    pub service: String,
    /// Where to.
    pub addr: SocketAddr,
}

/// What a service has of its own, not of a session's.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OwnSlice {
    /// Timers, with the nanoseconds until they fire.
    pub timers: Vec<(String, u64)>,
    /// Jobs.
    pub jobs: Vec<JobView>,
    /// Connections that are being made.
    pub connects: Vec<ConnectView>,
    /// The timer to go on behind; `None`: this was all.
    pub next: Option<String>,
}

/// A slice, and whether there is more.
#[derive(Debug, Clone, PartialEq)]
pub struct Slice<T> {
    /// In order.
    pub items: Vec<T>,
    /// Where to go on; `None`: this was all.
    pub next: Option<u64>,
}

/// Sessions looked at for one slice.
pub const SESSIONS_PER_SLICE: usize = 64;
/// Entries looked at for one slice.
pub const ENTRIES_PER_SLICE: usize = 256;
/// Bytes copied for one slice, but for the last item's.
const SLICE_BYTES: usize = 64 * 1024;
/// The sessions whose numbers are above `after`: a slice.
pub(crate) fn sessions_after(host: &HostState, after: u64, filter: &Filter) -> Slice<SessionView> {
    let after = filter.session.map_or(after, |id| after.max(id.saturating_sub(1)));
    let (mut items, mut bytes, mut looked_at) = (Vec::new(), 0, 0);
    for (slot, s) in host.sessions.after(after) {
        let service = &host.services[s.service].offer.name;
        looked_at += 1;
        if filter.service.as_ref().is_none_or(|f| f == service) && filter.session.is_none_or(|id| id == s.id)
        {
            let view = view(host, slot, s, filter.contents);
            let actions: usize = view.actions.iter().map(|a| a.data.len()).sum();
            bytes += view.state.as_ref().map_or(0, Vec::len) + view.input.len() + view.output.len() + actions;
            items.push(view);
        }
        if filter.session.is_some_and(|id| s.id >= id) {
            break;
        }
        if looked_at == SESSIONS_PER_SLICE || bytes >= SLICE_BYTES {
            return Slice { items, next: Some(s.id) };
        }
    }
    Slice { items, next: None }
}

fn view(host: &HostState, slot: Slot, s: &Session, contents: bool) -> SessionView {
    let HostState { store, shared, inbox, .. } = host;
    let copy = |r| store.read(r, <[u8]>::to_vec);
    SessionView {
        record: s.to_record(),
        service: host.services[s.service].offer.name.clone(),
        quarantined: s.quarantine().map(|q| q.reason.clone()),
        state: s.state.filter(|_| contents).map(copy),
        input: s.input.filter(|_| contents).map(copy).unwrap_or_default(),
        output: if contents { s.copy_output(store, shared) } else { Vec::new() },
        timers: timers_of(host, slot, s.id),
        actions: if contents { inbox.views(store, shared, slot) } else { Vec::new() },
        jobs: host.jobs.views(store, s.id),
        connects: connects_of(host, s.id),
        topics: s.topics().iter().map(|t| t.to_string()).collect(),
    }
}

/// A session's timers, also those that are due, with the nanoseconds until they fire.
fn timers_of(host: &HostState, slot: Slot, id: u64) -> Vec<(String, u64)> {
    let name = |b: &[u8]| String::from_utf8_lossy(timer_name(b)).into_owned();
    let due = host.inbox.due_timers(slot).map(|r| (host.store.read(r, name), 0));
    let set = host.timers.of(id).map(|(name, at)| (name.to_owned(), at.saturating_sub(host.now_ns)));
    due.chain(set).collect()
}

/// The connections that are being made for a session, or for a service's own turns.
fn connects_of(host: &HostState, owner: u64) -> Vec<ConnectView> {
    let service = |c: &Connect| host.services[c.service].offer.name.clone();
    let own = host.outbound.of(owner);
    own.map(|(number, c)| ConnectView { number, service: service(c), addr: c.addr }).collect()
}

/// A service's own timers whose names sort after `after`: a slice; and all of its own jobs and
/// connections.
pub(crate) fn of_service(host: &HostState, service: ServiceId, after: Option<&str>) -> OwnSlice {
    let number = service.number();
    let timers = host.timers.after(number, after).take(ENTRIES_PER_SLICE);
    let timers: Vec<_> = timers.map(|(name, at)| (name.to_owned(), at.saturating_sub(host.now_ns))).collect();
    let next = timers.last().filter(|_| timers.len() == ENTRIES_PER_SLICE).map(|(name, _)| name.clone());
    let (jobs, connects) = (host.jobs.views(&host.store, number), connects_of(host, number));
    OwnSlice { timers, jobs, connects, next }
}

/// The value of one entry, as stored.
pub(crate) fn entry(host: &HostState, table: &str, key: &[u8]) -> Option<Vec<u8>> {
    let mut value = Vec::new();
    host.tables.get(&host.store, table, key, &mut value)?;
    Some(value)
}

/// The entries of a table from a key on: a slice, and the key to go on from.
pub(crate) fn entries_from(host: &HostState, table: &str, from: &[u8]) -> (Vec<Entry>, Option<Vec<u8>>) {
    let (mut items, mut bytes) = (Vec::new(), 0);
    for key in host.tables.keys_from(table, from) {
        if items.len() == ENTRIES_PER_SLICE || bytes >= SLICE_BYTES {
            return (items, Some(key.to_vec()));
        }
        let mut value = Vec::new();
        let _ = host.tables.get(&host.store, table, key, &mut value);
        bytes += key.len() + value.len();
        items.push((key.to_vec(), value));
    }
    (items, None)
}

/// Key and value of a table's entry.
pub type Entry = (Vec<u8>, Vec<u8>);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::Core;
    use crate::framing::Framing;
    use crate::ids::Slot;
    use crate::input::Input;
    use crate::limits::host::Limits;
    use crate::service::offer::{Build, Offer};
    use crate::service::placeholder::Withdrawn;
    use greenroom_state::compatibility::StateShape;

    /// However much there is, one answer looks at so much of it, and all answers together at all of
    /// it.
    #[test]
    fn slices_are_bounded_and_complete() {
        let mut core = Core::new(Limits::default());
        let shape = StateShape { version: 1, ..StateShape::default() };
        let framing = Framing::Lines { bytes_max: 9 };
        let offer = Offer { name: "s".into(), port: 0, dials: false, framing, shape, tables: Vec::new() };
        let build = Build { library: "l".into(), generation: 1, hash: String::new() };
        core.adopt(&build, vec![(offer, Box::new(Withdrawn))]);
        let service = core.service_named("s").unwrap();
        for n in 0..1000u32 {
            let peer = "127.0.0.1:9".parse().unwrap();
            core.handle(Input::Opened { slot: Slot(n), id: u64::from(n) * 3 + 1, service, peer, at_ms: 0 });
            core.host.tables.put(&mut core.host.store, "t", &n.to_be_bytes(), 0, &[0; 100]).unwrap();
        }
        let (mut ids, mut after) = (Vec::new(), Some(0));
        while let Some(id) = after {
            let slice = core.sessions_after(id, &Filter { contents: true, ..Filter::default() });
            assert!(slice.items.len() <= SESSIONS_PER_SLICE);
            ids.extend(slice.items.iter().map(|v| v.record.id));
            after = slice.next;
        }
        assert_eq!(ids, (0..1000).map(|n| n * 3 + 1).collect::<Vec<_>>());
        // Who looks for something rare gets short answers too.
        let rare = Filter { service: Some("nosuch".into()), ..Filter::default() };
        assert!(core.sessions_after(0, &rare).next.is_some());
        let one = Filter { session: Some(601), ..Filter::default() };
        let found = core.sessions_after(0, &one);
        assert_eq!((found.items.len(), found.items[0].record.id, found.next), (1, 601, None));

        let (mut keys, mut from) = (0, Some(Vec::new()));
        while let Some(key) = from {
            let (entries, next) = core.entries_from("t", &key);
            assert!(entries.len() <= ENTRIES_PER_SLICE);
            keys += entries.len();
            from = next;
        }
        assert_eq!(keys, 1000);
    }
}
