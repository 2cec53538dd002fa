//! Bytes of the store by kind of record, and which of them have changed.
//!
//! Kinds are known by their numbers, as records of a later build may have others.

/// Places for kinds: their numbers are below. A record of a higher number is not counted.
const KINDS_MAX: usize = 64;

/// Bytes by kind. A record counts with its whole block.
pub(super) struct BytesByKind {
    bytes: [u64; KINDS_MAX],
    /// Bit for each kind whose bytes have changed since they were taken.
    changed: u64,
}

impl Default for BytesByKind {
    fn default() -> BytesByKind {
        BytesByKind { bytes: [0; KINDS_MAX], changed: 0 }
    }
}

impl BytesByKind {
    /// Counts a record.
    #[inline]
    pub(super) fn add(&mut self, kind: u8, bytes: usize) {
        if let Some(of) = self.bytes.get_mut(usize::from(kind)) {
            *of += bytes as u64;
            self.changed |= 1 << kind;
        }
    }

    /// Takes a record off.
    #[inline]
    pub(super) fn remove(&mut self, kind: u8, bytes: usize) {
        if let Some(of) = self.bytes.get_mut(usize::from(kind)) {
            *of = of.saturating_sub(bytes as u64);
            self.changed |= 1 << kind;
        }
    }

    /// Moves a record from one kind to another.
    #[inline]
    pub(super) fn move_to(&mut self, from: u8, to: u8, bytes: usize) {
        if from != to {
            self.remove(from, bytes);
            self.add(to, bytes);
        }
    }

    /// Lends the bytes of each kind that has changed to `each`. O(changed kinds).
    #[inline]
    pub(super) fn take_changed(&mut self, mut each: impl FnMut(usize, u64)) {
        let mut changed = std::mem::take(&mut self.changed);
        while changed != 0 {
            let kind = changed.trailing_zeros() as usize;
            each(kind, self.bytes[kind]);
            changed &= changed - 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::store::kind::Kind;
    use crate::store::records::Store;
    use std::collections::BTreeMap;

    #[test]
    fn the_bytes_of_all_kinds_are_those_of_the_store() {
        let mut store = Store::new(1 << 20);
        let a = store.put(None, Kind::Timer, 1, b"one").unwrap();
        let b = store.put(None, Kind::State, 1, &[7; 500]).unwrap();
        let mut seen = BTreeMap::new();
        let mut look = |store: &mut Store| {
            store.take_bytes_by_kind(|kind, bytes| _ = seen.insert(kind, bytes));
            assert_eq!(seen.values().sum::<u64>(), store.bytes() as u64);
            seen.clone()
        };
        let first = look(&mut store);
        assert_eq!(first.keys().copied().collect::<Vec<_>>(), [Kind::State as usize, Kind::Timer as usize]);
        // In place, as another kind, and in a block of another class.
        let a = store.put(Some(a), Kind::Name, 1, b"two").unwrap();
        let b = store.put(Some(b), Kind::State, 1, &[7; 50]).unwrap();
        assert_eq!(look(&mut store)[&(Kind::Timer as usize)], 0);
        store.commit();
        store.delete(a);
        store.delete(b);
        assert!(look(&mut store).values().all(|bytes| *bytes == 0));
        let mut changed = 0;
        store.take_bytes_by_kind(|_, _| changed += 1);
        assert_eq!(changed, 0);
    }
}
