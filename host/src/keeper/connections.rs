//! Every connection's descriptor and number, by the key that workers name it with.
//!
//! Twelve bytes for each connection. What goes through it costs the keeper nothing.

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// Connections that the keeper holds. A key is used again once its connection is over; a number never.
#[derive(Default)]
pub(super) struct Connections {
    descriptors: Vec<Option<OwnedFd>>,
    /// Numbers, by key.
    numbers: Vec<u64>,
    free: Vec<u32>,
    count: usize,
    /// The highest number so far.
    last: u64,
}

/// Connections to hand to a worker, in the order of the keys that were asked for.
pub(super) struct Batch<'a> {
    /// Key and number of each.
    pub(super) connections: Vec<(u32, u64)>,
    /// Descriptor of each.
    pub(super) descriptors: Vec<BorrowedFd<'a>>,
}

impl Connections {
    /// Adds a connection, with the next number. Returns its key and number.
    pub(super) fn add(&mut self, fd: OwnedFd) -> (u32, u64) {
        self.last += 1;
        let key = self.free.pop().unwrap_or_else(|| {
            self.descriptors.push(None);
            self.numbers.push(0);
            self.descriptors.len() as u32 - 1
        });
        self.descriptors[key as usize] = Some(fd);
        self.numbers[key as usize] = self.last;
        self.count += 1;
        (key, self.last)
    }

    /// Continues the numbers above this one.
    pub(super) fn number_above(&mut self, number: u64) {
        self.last = self.last.max(number);
    }

    /// Drops a connection. A key that holds another number, or none, is left alone.
    pub(super) fn drop(&mut self, key: u32, number: u64) {
        let Some(fd) = self.descriptors.get_mut(key as usize) else { return };
        if self.numbers[key as usize] == number && fd.take().is_some() {
            self.count -= 1;
            self.free.push(key);
        }
    }

    /// Number of connections.
    pub(super) fn len(&self) -> usize {
        self.count
    }

    /// Keys of all connections, in the order of their numbers.
    pub(super) fn keys(&self) -> VecDeque<u32> {
        let held = |key: &u32| self.descriptors[*key as usize].is_some();
        let mut keys: Vec<_> = (0..self.descriptors.len() as u32).filter(held).collect();
        keys.sort_unstable_by_key(|key| self.numbers[*key as usize]);
        keys.into()
    }

    /// The connections of these keys, without those that are over.
    pub(super) fn batch(&self, keys: impl Iterator<Item = u32>) -> Batch<'_> {
        let held = keys.filter_map(|key| {
            let fd = self.descriptors.get(key as usize)?.as_ref()?;
            Some(((key, self.numbers[key as usize]), fd.as_fd()))
        });
        let (connections, descriptors) = held.unzip();
        Batch { connections, descriptors }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fd() -> OwnedFd {
        std::fs::File::open("/dev/null").unwrap().into()
    }

    #[test]
    fn numbers_go_up_and_keys_are_used_again() {
        let mut connections = Connections::default();
        let added: Vec<_> = (0..5).map(|_| connections.add(fd())).collect();
        assert_eq!(added, [(0, 1), (1, 2), (2, 3), (3, 4), (4, 5)]);
        connections.drop(1, 2);
        // Repeated, or with the number of an earlier connection.
        connections.drop(1, 2);
        assert_eq!(connections.batch([0, 1, 2].into_iter()).connections, [(0, 1), (2, 3)]);
        assert_eq!(connections.add(fd()), (1, 6));
        connections.drop(1, 2);
        connections.drop(99, 1);
        assert_eq!(connections.len(), 5);
        assert_eq!(connections.keys(), [0, 2, 3, 4, 1]);
        let batch = connections.batch([1, 99, 0].into_iter());
        assert_eq!((batch.connections, batch.descriptors.len()), (vec![(1, 6), (0, 1)], 2));
        connections.number_above(40);
        assert_eq!(connections.add(fd()), (5, 41));
    }
}
