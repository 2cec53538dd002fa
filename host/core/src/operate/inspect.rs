//! Read-only views of sessions and tables for operators, in slices.
//!
//! A slice looks at a bounded number of items and copies a bounded number of bytes, so no
//! answer holds up the loop. Only the last item of a slice may exceed the bytes: an item is
//! never cut. A service's own jobs and connections come whole, as limits bound their number. The
//! caller asks for the next slice with the last key that it got, and turns come in between.
//!
//! A slice is a copy, consistent in itself: no turn runs while it is made. Two slices may show
//! different commits. An item that stays is in exactly one slice, because sessions and entries
//! are ordered by number and key. Changes that the pass has made so far are visible before they
//! are committed.

use crate::effects::inbox::ActionView;
use crate::effects::job_forms::JobView;
use crate::effects::outbound::Connect;
use crate::effects::timers::timer_name;
use crate::host_state::HostState;
use crate::host_state::framings::kind_of;
use crate::host_state::state::kept_input;
use crate::ids::ServiceId;
use crate::ids::Slot;
use crate::session::life::Session;
use crate::session::terms::Terms;
use crate::tls::facts;
use greenroom_state::address::Address;
use greenroom_state::session_record::SessionRecord;

/// Selection of sessions, and of what a view holds of each.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// Name of a service, to see its sessions alone; `None`: all services.
    pub service: Option<String>,
    /// Number of the only session to see; `None`: all sessions.
    pub session: Option<u64>,
    /// Whether views hold states, input, output and waiting actions too.
    pub contents: bool,
}

/// View of one session.
#[derive(Debug, Clone, PartialEq)]
pub struct SessionView {
    /// Record of the session, as a commit would store it.
    pub record: SessionRecord,
    /// Name of its service.
    pub service: String,
    /// Generation of the build that runs it; 0: none does.
    pub generation: u64,
    /// Kind of the endpoint that it came by: the name of its framing.
    pub kind: String,
    /// Facts of its handshake of TLS, name and value of each; empty: it has none.
    pub tls: Vec<(String, String)>,
    /// Reason of its quarantine; `None`: the session is not quarantined.
    pub quarantined: Option<String>,
    /// Bytes of its state as stored; 0: none.
    pub state_bytes: usize,
    /// Bytes of output that the kernel has not taken.
    pub unsent_bytes: u64,
    /// Nanoseconds since bytes last came from its peer, or since it opened.
    pub idle_ns: u64,
    /// State as stored, of the version that the record names; `None`: none, or not asked for.
    pub state: Option<Vec<u8>>,
    /// Input that was read and has not become a turn.
    pub input: Vec<u8>,
    /// Output that the kernel has not taken.
    pub output: Vec<u8>,
    /// Names of its timers, with the nanoseconds until they fire; 0: due.
    pub timers: Vec<(String, u64)>,
    /// Actions that wait for their turns, the oldest first. Timers that are due are among
    /// `timers`.
    pub actions: Vec<ActionView>,
    /// Jobs of the session that have not ended, running or not.
    pub jobs: Vec<JobView>,
    /// Outbound connections that are being made for it.
    pub connects: Vec<ConnectView>,
    /// Topics that the session is subscribed to, in order.
    pub topics: Vec<Vec<u8>>,
    /// Names that the session holds in its service, in order.
    pub names: Vec<Vec<u8>>,
    /// Terms that its handler has set for its peer.
    pub terms: Terms,
}

/// Outbound connection that is being made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnectView {
    /// Number that `connect` gave to the handler.
    pub number: u64,
    /// Name of the service that the connection becomes a session of.
    pub service: String,
    /// Address of the peer.
    pub addr: Address,
    /// Name of the server, if the connection is over TLS.
    pub over_tls: Option<String>,
}

/// Slice of what a service owns itself, beside its sessions. Only timers are cut into slices;
/// jobs and connections come with every slice, all of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OwnSlice {
    /// Timers, with the nanoseconds until they fire.
    pub timers: Vec<(String, u64)>,
    /// Jobs.
    pub jobs: Vec<JobView>,
    /// Connections that are being made.
    pub connects: Vec<ConnectView>,
    /// Name of the timer to go on behind; `None`: the slice was the last.
    pub next: Option<String>,
}

/// Slice of items, with the place to go on from.
#[derive(Debug, Clone, PartialEq)]
pub struct Slice<T> {
    /// Items, in the order of their numbers. May be empty though more follow: a filter can
    /// match rarely.
    pub items: Vec<T>,
    /// Number to go on behind; `None`: the slice was the last.
    pub next: Option<u64>,
}

/// Sessions that one slice looks at, whether the filter takes them or not.
pub const SESSIONS_PER_SLICE: usize = 64;
/// Entries of a table, or timers of a service, in one slice at most.
pub const ENTRIES_PER_SLICE: usize = 256;
/// Bytes after which a slice ends. Its last item may exceed them.
const SLICE_BYTES: usize = 64 * 1024;
/// Views of the sessions whose numbers are above `after`, in their order: a slice. If the
/// filter names a session, only that one is looked at. Each session in the slice costs O(its
/// own timers and actions + all jobs + all connections).
pub(crate) fn sessions_after(host: &HostState, after: u64, filter: &Filter) -> Slice<SessionView> {
    // Goes straight to the session that the filter names.
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
        // Numbers ascend, so the session was found, or does not exist.
        if filter.session.is_some_and(|id| s.id >= id) {
            break;
        }
        // Sessions that the filter leaves out count, too: looking at them takes time of the
        // loop.
        if looked_at == SESSIONS_PER_SLICE || bytes >= SLICE_BYTES {
            return Slice { items, next: Some(s.id) };
        }
    }
    Slice { items, next: None }
}

/// Makes the view of a session. Contents are copied only if they are asked for.
fn view(host: &HostState, slot: Slot, s: &Session, contents: bool) -> SessionView {
    let HostState { store, shared, inbox, .. } = host;
    let copy = |r| store.read(r, <[u8]>::to_vec);
    SessionView {
        record: s.to_record().cloned(),
        service: host.services[s.service].offer.name.clone(),
        generation: host.services[s.service].generation_of(s.id),
        kind: kind_of(host, s),
        tls: facts::all(host.tls.facts(&host.store, slot))
            .map(|(name, value)| (name.to_owned(), String::from_utf8_lossy(value).into_owned()))
            .collect(),
        quarantined: s.quarantine().map(|q| q.reason.clone()),
        state_bytes: s.state.map_or(0, |r| store.read(r, <[u8]>::len)),
        unsent_bytes: s.unsent(),
        idle_ns: host.now_ns.saturating_sub(s.heard_ns),
        state: s.state.filter(|_| contents).map(copy),
        input: if contents { kept_input(host, slot).to_vec() } else { Vec::new() },
        output: if contents { s.copy_output(store, shared) } else { Vec::new() },
        timers: timers_of(host, slot, s.id),
        actions: if contents { inbox.views(store, shared, slot) } else { Vec::new() },
        jobs: host.jobs.views(store, s.id),
        connects: connects_of(host, s.id),
        topics: sorted(host.topics.of(slot)),
        names: sorted(host.names.of(slot).iter().map(|name| &**name)),
        terms: host.sessions.terms(slot),
    }
}

/// Copies texts in their order.
fn sorted<'n>(names: impl Iterator<Item = &'n [u8]>) -> Vec<Vec<u8>> {
    let mut names: Vec<_> = names.map(<[u8]>::to_vec).collect();
    names.sort_unstable();
    names
}

/// Timers of a session with the nanoseconds until they fire. A timer that is due has become an
/// action, and counts as 0 until its turn has run.
fn timers_of(host: &HostState, slot: Slot, id: u64) -> Vec<(String, u64)> {
    let name = |b: &[u8]| String::from_utf8_lossy(timer_name(b)).into_owned();
    // Due timers are in the inbox, and no longer among those that are set.
    let due = host.inbox.due_timers(slot).map(|r| (host.store.read(r, name), 0));
    let set = host.timers.of(id).map(|(name, at)| (name.to_owned(), at.saturating_sub(host.now_ns)));
    due.chain(set).collect()
}

/// Connections that are being made for a session, or for a service's own turns (`owner` is its
/// own number).
fn connects_of(host: &HostState, owner: u64) -> Vec<ConnectView> {
    let service = |c: &Connect| host.services[c.service].offer.name.clone();
    let own = host.outbound.of(owner);
    own.map(|(number, c)| {
        let (addr, over_tls) =
            (c.target.addr.clone(), c.target.over_tls.as_ref().map(|name| (**name).into()));
        ConnectView { number, service: service(c), addr, over_tls }
    })
    .collect()
}

/// A service's own timers whose names sort after `after`: a slice; and all of its own jobs and
/// connections. O(timers in the slice + all jobs + all connections).
pub(crate) fn of_service(host: &HostState, service: ServiceId, after: Option<&str>) -> OwnSlice {
    let number = service.number();
    let timers = host.timers.after(number, after).take(ENTRIES_PER_SLICE);
    let timers: Vec<_> = timers.map(|(name, at)| (name.to_owned(), at.saturating_sub(host.now_ns))).collect();
    // A slice that is just full may be the last one; then the next is empty.
    let next = timers.last().filter(|_| timers.len() == ENTRIES_PER_SLICE).map(|(name, _)| name.clone());
    let (jobs, connects) = (host.jobs.views(&host.store, number), connects_of(host, number));
    OwnSlice { timers, jobs, connects, next }
}

/// Value of one entry, as stored, in whichever version; `None`: there is no such key.
pub(crate) fn entry(host: &HostState, table: &str, key: &[u8]) -> Option<Vec<u8>> {
    let mut value = Vec::new();
    host.tables.get(&host.store, table, key, &mut value)?;
    Some(value)
}

/// Entries of a table whose keys are at or after `from`: a slice, and the key to go on from. A
/// table that does not exist has no entries.
pub(crate) fn entries_from(host: &HostState, table: &str, from: &[u8]) -> (Vec<Entry>, Option<Vec<u8>>) {
    let (mut items, mut bytes) = (Vec::new(), 0);
    for key in host.tables.keys_from(&host.store, table, from) {
        // Checked before the entry is taken: `key` is the first one of the next slice.
        if items.len() == ENTRIES_PER_SLICE || bytes >= SLICE_BYTES {
            return (items, Some(key.to_vec()));
        }
        let mut value = Vec::new();
        // The key comes out of the index, so its entry is there.
        let _ = host.tables.get(&host.store, table, key, &mut value);
        bytes += key.len() + value.len();
        items.push((key.to_vec(), value));
    }
    (items, None)
}

/// Key and value of an entry.
pub type Entry = (Vec<u8>, Vec<u8>);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::host::Limits;
    use crate::service::placeholder::Withdrawn;
    use crate::test_support::{open, serve};

    /// Each answer is bounded, however much there is. All answers together are complete, and name
    /// nothing twice.
    #[test]
    fn slices_are_bounded_and_complete() {
        let (mut core, service) = serve(Limits::default(), Withdrawn);
        open(&mut core, service, 0..1000);
        for n in 0..1000u32 {
            core.host.tables.put(&mut core.host.store, "t", &n.to_be_bytes(), 0, &[0; 100]).unwrap();
        }
        let (mut ids, mut after) = (Vec::new(), Some(0));
        while let Some(id) = after {
            let slice = core.sessions_after(id, &Filter { contents: true, ..Filter::default() });
            assert!(slice.items.len() <= SESSIONS_PER_SLICE);
            ids.extend(slice.items.iter().map(|v| v.record.id));
            after = slice.next;
        }
        assert_eq!(ids, Vec::from_iter(1..=1000));
        // A filter that matches nothing gets short answers, too, and is asked to come again.
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
