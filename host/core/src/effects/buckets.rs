//! Token buckets, in memory of a fixed size.
//!
//! A bucket is a time: when it would be full again (GCRA). One whose time has come is as good as
//! one that was never asked for, so it may be forgotten. A bucket has its place among eight. If
//! all of them are in use, the one that is full first makes place, and its key has all its tokens
//! again: a limit is reached then. So no number of keys makes the memory grow.
//!
//! No record holds buckets: they begin anew with each process. The memory is taken with the first
//! bucket, and begins anew when the limit changes.

/// Buckets of a set, one of which a new one takes.
const WAYS: usize = 8;

/// All buckets of a host.
#[derive(Debug, Default)]
pub(crate) struct Buckets {
    /// Number of a bucket (0: none), and the time when it is full again, in nanoseconds.
    sets: Vec<[(u64, u64); WAYS]>,
}

impl Buckets {
    /// Time when a bucket is full; 0: it was long ago.
    pub(crate) fn full_at_ns(&self, bucket: u64) -> u64 {
        let set = self.sets.get(self.place(bucket)).into_iter().flatten();
        set.copied().find(|(b, _)| *b == bucket).map_or(0, |(_, at)| at)
    }

    /// Sets the time when a bucket is full. `max`: buckets that there may be, in whole sets.
    /// Returns whether another bucket was forgotten before it was full.
    pub(crate) fn set(&mut self, max: usize, bucket: u64, full_at_ns: u64, now_ns: u64) -> bool {
        let sets = max.div_ceil(WAYS).max(1);
        if self.sets.len() != sets {
            self.sets = vec![[(0, 0); WAYS]; sets];
        }
        let place = self.place(bucket);
        let set = &mut self.sets[place];
        let own = set.iter().position(|(b, _)| *b == bucket);
        let at = own.or_else(|| (0..WAYS).min_by_key(|at| set[*at].1)).unwrap_or(0);
        let before = std::mem::replace(&mut set[at], (bucket, full_at_ns));
        before.0 != bucket && before.1 > now_ns
    }

    /// Place of a bucket's set.
    fn place(&self, bucket: u64) -> usize {
        ((u128::from(bucket) * self.sets.len() as u128) >> 64) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_bucket_makes_place_first_and_the_memory_stays() {
        let mut buckets = Buckets::default();
        assert_eq!(buckets.full_at_ns(1), 0);
        for n in 1..=8 {
            assert!(!buckets.set(8, n, 100 + n, 10));
        }
        assert!((1..=8).all(|n| buckets.full_at_ns(n) == 100 + n));
        assert!(!buckets.set(8, 3, 300, 10), "it has its place");
        // The first one is full by then, the second is not.
        assert!(!buckets.set(8, 9, 400, 101));
        assert!(buckets.set(8, 10, 400, 101));
        assert_eq!([1, 2, 3, 9, 10].map(|n| buckets.full_at_ns(n)), [0, 0, 300, 400, 400]);
        assert_eq!(buckets.sets.len(), 1);
        assert!(!buckets.set(9, 4, 500, 101), "another limit");
        assert_eq!((buckets.sets.len(), buckets.full_at_ns(3)), (2, 0));
    }
}
