//! What an operator sees of sessions and tables, a slice at a time: no answer holds up the loop however much there is.
//!
//! A slice is a copy, consistent in itself. The caller asks for the next one with the last key that it got.

use crate::core::Core;
use crate::ids::ServiceId;
use crate::session::life::Session;
use greenroom_state::session_record::SessionRecord;
use std::collections::BTreeMap;
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

/// An action that waits for its turn.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ActionView {
    /// One of [`greenroom_state::abi::action`].
    pub kind: u32,
    /// The session that caused it, or the job's number.
    pub from: u64,
    /// A topic or a job.
    pub name: String,
    /// What it carries.
    pub data: Vec<u8>,
}

/// A job that didn't end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobView {
    /// Its number.
    pub number: u64,
    /// Which one.
    pub name: String,
    /// It has a thread, or waits for one.
    pub running: bool,
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

impl Core {
    /// The sessions whose numbers are above `after`.
    pub fn sessions_after(&self, after: u64, filter: &Filter) -> Slice<SessionView> {
        let after = filter.session.map_or(after, |id| after.max(id.saturating_sub(1)));
        let (mut items, mut bytes, mut looked_at) = (Vec::new(), 0, 0);
        for (_, s) in self.sessions.after(after) {
            let service = &self.services[usize::from(s.service.0)].offer.name;
            looked_at += 1;
            if filter.service.as_ref().is_none_or(|f| f == service)
                && filter.session.is_none_or(|id| id == s.id)
            {
                let view = self.view(s, service, filter.contents);
                let actions: usize = view.actions.iter().map(|a| a.data.len()).sum();
                bytes +=
                    view.state.as_ref().map_or(0, Vec::len) + view.input.len() + view.output.len() + actions;
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

    fn view(&self, s: &Session, service: &str, contents: bool) -> SessionView {
        let copy = |r| self.store.read(r, <[u8]>::to_vec);
        let mut output = Vec::new();
        if contents {
            for &r in &s.output {
                output.extend_from_slice(self.piece_bytes(r));
            }
            output.drain(..s.output_sent);
        }
        SessionView {
            record: s.to_record(),
            service: service.to_owned(),
            quarantined: s.quarantined.as_ref().map(|q| q.reason.clone()),
            state: s.state.filter(|_| contents).map(copy),
            input: s.input.filter(|_| contents).map(copy).unwrap_or_default(),
            output,
            timers: self.timers_of(s.id),
            actions: if contents { self.actions_waiting(s.id) } else { Vec::new() },
            jobs: self.jobs_of(s.id),
            connects: self.connects_of(s.id),
            topics: s.topics().iter().map(|t| t.to_string()).collect(),
        }
    }

    fn actions_waiting(&self, id: u64) -> Vec<ActionView> {
        self.sessions.slot_of(id).map(|slot| self.actions_of(slot)).unwrap_or_default()
    }

    /// Some of a service's own timers, behind that name, with the nanoseconds until they fire; and all of its own jobs and
    /// connections.
    pub fn of_service(&self, service: ServiceId, after: Option<&str>) -> OwnSlice {
        let number = service.number();
        let timers = self.timers_after(number, after, ENTRIES_PER_SLICE);
        let next = timers.last().filter(|_| timers.len() == ENTRIES_PER_SLICE).map(|(name, _)| name.clone());
        OwnSlice { timers, jobs: self.jobs_of(number), connects: self.connects_of(number), next }
    }

    /// How many entries of a table count as which version.
    pub fn entries_by_version(&self, table: &str) -> BTreeMap<u32, u64> {
        self.tables.counts(table)
    }

    /// How many entries a table has.
    pub fn entries(&self, table: &str) -> usize {
        self.tables.count(table)
    }

    /// The names of all tables.
    pub fn table_names(&self) -> Vec<String> {
        self.tables.names().map(str::to_owned).collect()
    }

    /// The value of one entry, as stored.
    pub fn entry(&self, table: &str, key: &[u8]) -> Option<Vec<u8>> {
        let mut value = Vec::new();
        self.tables.get(&self.store, table, key, &mut value)?;
        Some(value)
    }

    /// The entries of a table from a key on; the second value is where to go on.
    pub fn entries_from(&self, table: &str, from: &[u8]) -> (Vec<Entry>, Option<Vec<u8>>) {
        let (mut items, mut bytes) = (Vec::new(), 0);
        for key in self.tables.keys_from(table, from) {
            if items.len() == ENTRIES_PER_SLICE || bytes >= SLICE_BYTES {
                return (items, Some(key.to_vec()));
            }
            let mut value = Vec::new();
            let _ = self.tables.get(&self.store, table, key, &mut value);
            bytes += key.len() + value.len();
            items.push((key.to_vec(), value));
        }
        (items, None)
    }
}

/// Key and value of a table's entry.
pub type Entry = (Vec<u8>, Vec<u8>);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::framing::Framing;
    use crate::ids::Slot;
    use crate::input::Input;
    use crate::limits::host::Limits;
    use crate::service::offer::{Build, Offer};
    use crate::service::placeholder::Withdrawn;
    use greenroom_state::compatibility::StateShape;

    /// However much there is, one answer looks at so much of it, and all answers together at all of it.
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
            core.tables.put(&mut core.store, "t", &n.to_be_bytes(), 0, &[0; 100]).unwrap();
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
