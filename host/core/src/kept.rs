//! What the host itself must remember beside sessions and tables: which builds its libraries run, which ports it holds, which
//! connections were served. The shell decides what such a record says; it becomes valid with the commit of the pass.

use crate::Core;
use crate::store::{Kind, Ref};
use std::collections::BTreeMap;

/// The records by kind and key. `Served` is the core's own.
#[derive(Debug, Default)]
pub(crate) struct Kept {
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

    /// The records of a kind, by key.
    pub fn kept(&self, kind: Kind) -> Vec<(u64, Vec<u8>)> {
        let of_kind = self.kept.records.range((kind as u8, 0)..=(kind as u8, u64::MAX));
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
