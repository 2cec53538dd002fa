//! Data that a change of an operator replaced, kept so that the change can be undone.
//!
//! A change remembers each state and entry that it replaces, with what it stored instead. To undo
//! it is a restore of the former, under the condition that the latter are stored still: whoever
//! wrote since keeps what was written. The record counts from the commit of its change, so a
//! successor can undo, too.
//!
//! A single record holds the change, which bounds what can be undone: a larger change remembers
//! its size alone.
//!
//! | bytes | content |
//! | --- | --- |
//! | 8 | line of the ledger |
//! | 8 | bytes of a change that was too large; 0: it was not |
//! | each item: 1 | 1: state, 2: entry |
//! | 8, 8; or name, key | number of the session and its turns; or table and key |
//! | service | name of the session's service, or nothing |
//! | former, latter | each 1 (0: none), 4 version, 8 deadline (0: none), bytes |
//!
//! Numbers are little-endian. Names, keys and bytes stand behind their lengths (u32).

use crate::host_state::HostState;
use crate::operate::check::{has_entry, has_state, restorable};
use crate::operate::plan::{Expected, Plan, StoredEntry, Survey};
use crate::store::layout::RECORD_BYTES_MAX;

/// Most bytes that one change remembers.
pub const UNDO_BYTES_MAX: usize = RECORD_BYTES_MAX / 2;
/// Bytes of an item beside its names and values, about.
const ITEM_BYTES: usize = 64;

/// Version, bytes, and deadline of an entry.
type Stored = Option<StoredEntry>;

/// State or entry that was replaced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplacedItem {
    /// Owner of the data.
    pub of: ItemOf,
    /// Data before the change; `None`: there were none.
    pub before: Stored,
    /// Data that the change stored; `None`: it removed them.
    pub after: Stored,
}

/// Owner of a state or an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ItemOf {
    /// A session.
    Session {
        /// Number of the session.
        id: u64,
        /// Turns that it had run.
        turns: u64,
        /// Name of its service.
        service: String,
    },
    /// A table.
    Table {
        /// Name of the table.
        table: String,
        /// Key of the entry.
        key: Vec<u8>,
    },
}

/// All that a change replaced.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ReplacedData {
    /// Line of the change in the ledger. The shell sets it.
    pub line: u64,
    /// Bytes of a change that was too large to be remembered; 0: it was not.
    pub too_large: u64,
    /// States and entries.
    pub items: Vec<ReplacedItem>,
}

/// Copies what a plan is about to replace. The survey is complete. O(what changes).
pub(super) fn replaced(host: &HostState, plan: &Plan, survey: &Survey) -> ReplacedData {
    let mut found = ReplacedData::default();
    let mut bytes = 0;
    let mut add = |of: ItemOf, before: Stored, after: Stored| {
        let len = |stored: &Stored| stored.as_ref().map_or(0, |s| s.value.len());
        let name = match &of {
            ItemOf::Session { service, .. } => service.len(),
            ItemOf::Table { table, key } => table.len() + key.len(),
        };
        bytes += ITEM_BYTES + name + len(&before) + len(&after);
        // Counted to the end, so that the reason names the whole size.
        if bytes <= UNDO_BYTES_MAX {
            found.items.push(ReplacedItem { of, before, after });
        }
    };
    for &(slot, place) in &survey.states {
        let Some(s) = host.sessions.get(slot) else { continue };
        let state = |(version, value): (u32, Vec<u8>)| StoredEntry { version, value, until: None };
        let before = s.state.map(|r| state((s.state_version, host.store.read(r, <[u8]>::to_vec))));
        let service = host.services[s.service].offer.name.clone();
        let after = plan.states[place].kept.clone().map(state);
        add(ItemOf::Session { id: s.id, turns: s.turns, service }, before, after);
    }
    for (planned, t) in plan.tables.iter().zip(&survey.tables) {
        let stored = |key: &[u8]| {
            let (version, value) = host.tables.value(&host.store, &planned.name, key)?;
            let until = host.tables.until(&host.store, &planned.name, key);
            Some(StoredEntry { version, value: value.to_vec(), until })
        };
        let of = |key: &[u8]| ItemOf::Table { table: planned.name.clone(), key: key.to_vec() };
        for key in &t.puts {
            let after = planned.entries.get(key).map(|e| {
                let (version, value) = e.kept.clone();
                StoredEntry { version, value, until: e.until }
            });
            add(of(key), stored(key), after);
        }
        t.deletes.iter().for_each(|key| add(of(key), stored(key), None));
    }
    if bytes > UNDO_BYTES_MAX {
        (found.too_large, found.items) = (bytes as u64, Vec::new());
    }
    found
}

/// Checks that expected data are stored still. The error names what has changed, and who did it.
pub(super) fn is_stored(host: &HostState, expected: &Expected) -> Result<(), String> {
    match expected {
        Expected::State { session, turns, is } => {
            let Some((slot, service)) = restorable(host, *session) else { return Ok(()) };
            if has_state(host, slot, is.as_ref().map(|(version, bytes)| (*version, &bytes[..]))) {
                return Ok(());
            }
            let name = &host.services[service].offer.name;
            let since = host.sessions.get(slot).map_or(0, |s| s.turns.saturating_sub(*turns));
            let by = match since {
                0 => "it has run no turn since, so a reload or a rollback has converted it".to_owned(),
                n => format!("it has run {n} turns since"),
            };
            Err(format!("service {name}, session {session}: its state is another one by now; {by}"))
        }
        Expected::Entry { table, key, is } => {
            let until = host.tables.until(&host.store, table, key);
            let is_none = host.tables.value(&host.store, table, key).is_none();
            let stands = match is {
                // An entry that has come to its end was not written by anybody.
                Some(e) if is_none => e.until.is_some_and(|until| until <= host.wall_ms()),
                Some(e) => has_entry(host, table, key, (e.version, &e.value)) && until == e.until,
                None => is_none,
            };
            if stands {
                return Ok(());
            }
            let owner = host.owners.get(table).map(|o| host.services[o.service].offer.name.as_str());
            let by = owner.map_or("by a turn".to_owned(), |name| format!("by turns; owner {name}"));
            let key = greenroom_state::json::bytes_to_json(key);
            Err(format!("table {table}, key {key}: it was written since, {by}"))
        }
    }
}

impl ReplacedData {
    /// Data that must be stored still if the change is to be undone.
    pub fn expected(&self) -> Vec<Expected> {
        let expected = |item: &ReplacedItem| match &item.of {
            ItemOf::Session { id, turns, .. } => {
                let is = item.after.as_ref().map(|s| (s.version, s.value.clone()));
                Expected::State { session: *id, turns: *turns, is }
            }
            ItemOf::Table { table, key } => {
                Expected::Entry { table: table.clone(), key: key.clone(), is: item.after.clone() }
            }
        };
        self.items.iter().map(expected).collect()
    }

    /// Record of it.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        out.extend(self.line.to_le_bytes());
        out.extend(self.too_large.to_le_bytes());
        for item in &self.items {
            match &item.of {
                ItemOf::Session { id, turns, service } => {
                    out.push(1);
                    out.extend(id.to_le_bytes());
                    out.extend(turns.to_le_bytes());
                    put(&mut out, service.as_bytes());
                }
                ItemOf::Table { table, key } => {
                    out.push(2);
                    put(&mut out, table.as_bytes());
                    put(&mut out, key);
                }
            }
            for stored in [&item.before, &item.after] {
                out.push(u8::from(stored.is_some()));
                if let Some(s) = stored {
                    out.extend(s.version.to_le_bytes());
                    out.extend(s.until.unwrap_or(0).to_le_bytes());
                    put(&mut out, &s.value);
                }
            }
        }
        out
    }

    /// Reads a record; `None`: it is none of this version.
    pub fn decode(mut bytes: &[u8]) -> Option<ReplacedData> {
        let from = &mut bytes;
        let (line, too_large) = (number(from)?, number(from)?);
        let mut items = Vec::new();
        while !from.is_empty() {
            let of = match take(from, 1)?[0] {
                1 => ItemOf::Session { id: number(from)?, turns: number(from)?, service: text(from)? },
                2 => ItemOf::Table { table: text(from)?, key: part(from)?.to_vec() },
                _ => return None,
            };
            items.push(ReplacedItem { of, before: stored(from)?, after: stored(from)? });
        }
        Some(ReplacedData { line, too_large, items })
    }
}

/// Appends bytes behind their length.
fn put(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend((bytes.len() as u32).to_le_bytes());
    out.extend(bytes);
}

fn take<'b>(from: &mut &'b [u8], len: usize) -> Option<&'b [u8]> {
    let (taken, rest) = from.split_at_checked(len)?;
    *from = rest;
    Some(taken)
}

fn number(from: &mut &[u8]) -> Option<u64> {
    take(from, 8)?.try_into().ok().map(u64::from_le_bytes)
}

fn number_32(from: &mut &[u8]) -> Option<u32> {
    take(from, 4)?.try_into().ok().map(u32::from_le_bytes)
}

fn part<'b>(from: &mut &'b [u8]) -> Option<&'b [u8]> {
    let len = number_32(from)?;
    take(from, len as usize)
}

fn text(from: &mut &[u8]) -> Option<String> {
    String::from_utf8(part(from)?.to_vec()).ok()
}

fn stored(from: &mut &[u8]) -> Option<Stored> {
    if take(from, 1)?[0] == 0 {
        return Some(None);
    }
    let (version, until) = (number_32(from)?, number(from)?);
    let value = part(from)?.to_vec();
    Some(Some(StoredEntry { version, value, until: Some(until).filter(|u| *u > 0) }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_read_as_it_was_written_and_a_cut_one_is_none() {
        let stored = |until| Some(StoredEntry { version: 3, value: vec![1, 2, 3], until });
        let of = ItemOf::Session { id: 7, turns: 9, service: "tally".into() };
        let entry = ItemOf::Table { table: "t".into(), key: vec![0, 255] };
        let items = vec![
            ReplacedItem { of, before: stored(None), after: None },
            ReplacedItem { of: entry, before: None, after: stored(Some(5)) },
        ];
        let replaced = ReplacedData { line: 12, too_large: 0, items };
        let bytes = replaced.encode();
        assert_eq!(ReplacedData::decode(&bytes), Some(replaced));
        for len in (0..16).chain(17..bytes.len()) {
            // Behind the first item there is a whole record of one.
            assert!(ReplacedData::decode(&bytes[..len]).is_none_or(|r| r.items.len() == 1), "{len}");
        }
    }
}
