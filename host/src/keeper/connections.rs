//! The connections that the keeper holds: a descriptor and a number each, by a key that the worker names them with.
//!
//! Twelve bytes for each, and nothing that grows with what goes through it.

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// See the module.
#[derive(Default)]
pub(super) struct Held {
    descriptors: Vec<Option<OwnedFd>>,
    /// By key, as the descriptors.
    numbers: Vec<u64>,
    free: Vec<u32>,
    count: usize,
    /// The number of the last one.
    last: u64,
    /// Keys that the worker hasn't been given.
    unsent: VecDeque<u32>,
}

impl Held {
    /// Takes a connection in, and gives it the next number, which is returned.
    pub(super) fn add(&mut self, fd: OwnedFd) -> u64 {
        self.last += 1;
        let key = self.free.pop().unwrap_or_else(|| {
            self.descriptors.push(None);
            self.numbers.push(0);
            self.descriptors.len() as u32 - 1
        });
        self.descriptors[key as usize] = Some(fd);
        self.numbers[key as usize] = self.last;
        self.count += 1;
        self.unsent.push_back(key);
        self.last
    }

    /// Numbers are to be above this one.
    pub(super) fn number_above(&mut self, number: u64) {
        self.last = self.last.max(number);
    }

    /// Lets go of a connection. A number that isn't under this key (any more) is none of ours.
    pub(super) fn drop(&mut self, key: u32, number: u64) {
        let Some(fd) = self.descriptors.get_mut(key as usize) else { return };
        if self.numbers[key as usize] == number && fd.take().is_some() {
            self.count -= 1;
            self.free.push(key);
        }
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.count
    }

    /// A fresh worker is to be given all of them, in the order of their numbers.
    pub(super) fn hand_over_again(&mut self) {
        let mut keys: Vec<_> =
            (0..self.descriptors.len() as u32).filter(|k| self.descriptors[*k as usize].is_some()).collect();
        keys.sort_unstable_by_key(|k| self.numbers[*k as usize]);
        self.unsent = keys.into();
    }

    /// Whether all were given.
    pub(super) fn all_sent(&self) -> bool {
        self.unsent.is_empty()
    }

    /// The next ones to give, at most `max`. They stay the next ones until [`Held::sent`].
    pub(super) fn next(&self, max: usize) -> (Vec<(u32, u64)>, Vec<BorrowedFd<'_>>) {
        let keys = self.unsent.iter().take(max);
        let held = keys.filter_map(|&key| {
            let fd = self.descriptors[key as usize].as_ref()?;
            Some(((key, self.numbers[key as usize]), fd.as_fd()))
        });
        held.unzip()
    }

    /// The first `n` of those that [`Held::next`] looked at were given.
    pub(super) fn sent(&mut self, n: usize) {
        self.unsent.drain(..n.min(self.unsent.len()));
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
        let mut held = Held::default();
        (0..5).for_each(|_| _ = held.add(fd()));
        assert_eq!(held.next(2).0, [(0, 1), (1, 2)]);
        held.sent(2);
        assert_eq!(held.next(9).0, [(2, 3), (3, 4), (4, 5)]);
        held.sent(3);
        assert!(held.all_sent());
        held.drop(1, 2);
        // Said twice, or of a number that was here before.
        held.drop(1, 2);
        held.add(fd());
        held.drop(1, 2);
        held.drop(99, 1);
        assert_eq!((held.len(), held.next(9).0), (5, vec![(1, 6)]));
        held.hand_over_again();
        assert_eq!(held.next(9).0, [(0, 1), (2, 3), (3, 4), (4, 5), (1, 6)]);
    }
}
