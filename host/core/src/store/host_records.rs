//! What the host itself must remember beside sessions and tables: which builds its libraries run, which ports it holds, which
//! connections were served. The shell decides what such a record says; it becomes valid with the commit of the pass.

use crate::core::Core;
use crate::store::kind::Kind;
use crate::store::layout::Ref;
use crate::tables::entry;
use std::collections::BTreeMap;

/// The records by kind and key. `Served` is the core's own.
#[derive(Debug, Default)]
pub(crate) struct HostRecords {
    records: BTreeMap<(u8, u64), Ref>,
    /// The highest number of a connection that was served.
    served: u64,
    served_record: Option<Ref>,
    served_changed: bool,
}

impl Core {
    /// Writes a record of the host's own in place of the one under this kind and key. False: the store has no room for it,
    /// and the old one stays.
    pub fn keep(&mut self, kind: Kind, key: u64, bytes: &[u8]) -> bool {
        let old = self.kept.records.get(&(kind as u8, key)).copied();
        match self.store.put(old, kind, key, bytes) {
            Ok(r) => self.kept.records.insert((kind as u8, key), r),
            Err(_) => return false,
        };
        true
    }

    /// Deletes a record of the host's own; no harm if it isn't there.
    pub fn forget(&mut self, kind: Kind, key: u64) {
        if let Some(r) = self.kept.records.remove(&(kind as u8, key)) {
            self.store.delete(r);
        }
    }

    /// Lends what outlives the host itself to `each`: table entries and ledger lines, as they are stored, with an entry's version,
    /// and the number of the last connection, which tables may name. It ends early when `each` says false.
    pub fn each_lasting(&self, mut each: impl FnMut(Kind, u32, &[u8]) -> bool) {
        if !each(Kind::Served, 0, &self.kept.served.to_le_bytes()) {
            return;
        }
        for r in self.tables.refs() {
            let version = self.store.key(r) as u32;
            if !self.store.read(r, |bytes| each(Kind::Entry, version, bytes)) {
                return;
            }
        }
        for (_, line) in self.kept(Kind::Ledger) {
            if !each(Kind::Ledger, 0, &line) {
                return;
            }
        }
    }

    /// Takes back what [`Core::each_lasting`] lent. The error says what is wrong with it.
    pub fn restore_lasting(&mut self, kind: Kind, version: u32, bytes: &[u8]) -> Result<(), String> {
        if kind == Kind::Served {
            let number = bytes.try_into().map_err(|_| "it holds a number that can't be read")?;
            self.note_served(u64::from_le_bytes(number));
            return Ok(());
        }
        if kind == Kind::Ledger {
            let next = self.kept(Kind::Ledger).last().map_or(1, |(key, _)| key + 1);
            return self.keep(kind, next, bytes).then_some(()).ok_or_else(|| "the store is full".into());
        }
        let (table, key) = entry::name_of(bytes).ok_or("it holds an entry that can't be read")?;
        let value = entry::value_of(bytes);
        if !self.store.reserve([bytes.len()]) {
            return Err("the tables don't fit (limit store_bytes_max)".into());
        }
        let put = self.tables.put(&mut self.store, table, key, version, value);
        put.map_err(|_| "the tables don't fit (limit store_bytes_max)".into())
    }

    /// The records of a kind, by key.
    pub fn kept(&self, kind: Kind) -> Vec<(u64, Vec<u8>)> {
        self.kept_from(kind, 0, usize::MAX)
    }

    /// The records of a kind from a key on, at most `max`.
    pub fn kept_from(&self, kind: Kind, from: u64, max: usize) -> Vec<(u64, Vec<u8>)> {
        let of_kind = self.kept.records.range((kind as u8, from)..=(kind as u8, u64::MAX)).take(max);
        of_kind.map(|(&(_, key), &r)| (key, self.store.read(r, <[u8]>::to_vec))).collect()
    }

    /// The highest number of a connection that was served: one without a session is new above it, and closed at or below it.
    pub fn served(&self) -> u64 {
        self.kept.served
    }

    pub(crate) fn note_served(&mut self, id: u64) {
        if id > self.kept.served {
            self.kept.served = id;
            self.kept.served_changed = true;
        }
    }

    /// Part of the commit: connections that this pass served are not new to a successor.
    pub(crate) fn keep_served(&mut self) {
        let kept = &mut self.kept;
        if std::mem::take(&mut kept.served_changed) {
            let put = self.store.put(kept.served_record, Kind::Served, 0, &kept.served.to_le_bytes());
            debug_assert!(put.is_ok(), "no room for the number of the last connection");
            kept.served_record = put.ok().or(kept.served_record);
        }
    }

    pub(crate) fn recover_kept(&mut self, kind: Kind, key: u64, at: Ref) {
        if kind == Kind::Served {
            let number = self.store.read(at, |b| b.try_into().map_or(0, u64::from_le_bytes));
            self.kept.served = self.kept.served.max(number);
            self.kept.served_record = Some(at);
        } else if let Some(other) = self.kept.records.insert((kind as u8, key), at) {
            self.store.delete(other);
        }
    }
}
