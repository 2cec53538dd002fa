//! Histograms of times, with a fixed number of log-linear buckets.
//!
//! A bucket's width is a quarter of the power of two below it, so a quantile is off by at most an
//! eighth. All histograms of the host have the same buckets, so they can be added up.
//!
//! | bucket | times |
//! | --- | --- |
//! | 0 | up to 1.024 µs |
//! | 1 to 96 | four for each doubling, up to 17.2 s |
//! | 97 | longer ones |

use serde::{Deserialize, Serialize};

/// Buckets of a histogram.
pub const BUCKETS: usize = 98;
/// Powers of two, in nanoseconds: the upper bound of the first bucket, and of the last but one.
const FIRST: u32 = 10;
const LAST: u32 = 34;
/// Words of a histogram on the board: the sum in nanoseconds, then the buckets.
pub(super) const WORDS: usize = 1 + BUCKETS;
const _: () = assert!(BUCKETS == 2 + 4 * (LAST - FIRST) as usize);

/// Bucket of a time.
#[inline]
pub(super) fn bucket(ns: u64) -> usize {
    // Bounds belong to the bucket below them, as `le` says.
    let v = ns.saturating_sub(1);
    let exponent = (v | 1).ilog2();
    match exponent {
        ..FIRST => 0,
        FIRST..LAST => (1 + 4 * (exponent - FIRST) + ((v >> (exponent - 2)) & 3) as u32) as usize,
        LAST.. => BUCKETS - 1,
    }
}

/// Upper bound of a bucket, in nanoseconds; `None`: the last one has none.
pub fn bound_ns(bucket: usize) -> Option<u64> {
    match bucket {
        0 => Some(1 << FIRST),
        n if n < BUCKETS - 1 => {
            let (octave, quarter) = ((n - 1) / 4, (n - 1) % 4);
            Some((5 + quarter as u64) << (FIRST as usize + octave - 2))
        }
        _ => None,
    }
}

/// Counts of times by bucket, with their sum.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Histogram {
    /// Sum of all times, in nanoseconds.
    pub sum_ns: u64,
    /// Count of each bucket, the bounds of which [`bound_ns`] gives; empty: no time was noted.
    pub buckets: Vec<u64>,
}

impl Histogram {
    /// Reads the words of a histogram on the board.
    pub(super) fn of_words(words: &[u64]) -> Histogram {
        let buckets = words[1..WORDS].to_vec();
        Histogram { sum_ns: words[0], buckets }
    }

    /// Notes a time.
    pub fn note(&mut self, ns: u64) {
        self.buckets.resize(BUCKETS, 0);
        self.buckets[bucket(ns)] += 1;
        self.sum_ns = self.sum_ns.saturating_add(ns);
    }

    /// Adds the times of another histogram that were noted since an earlier state of it.
    pub fn add_since(&mut self, now: &Histogram, before: Option<&Histogram>) {
        self.buckets.resize(self.buckets.len().max(now.buckets.len()), 0);
        for (at, (sum, count)) in self.buckets.iter_mut().zip(&now.buckets).enumerate() {
            let was = before.and_then(|b| b.buckets.get(at)).copied().unwrap_or_default();
            *sum += count.saturating_sub(was);
        }
        self.sum_ns = self.sum_ns.saturating_add(now.sum_ns.saturating_sub(before.map_or(0, |b| b.sum_ns)));
    }

    /// Number of times noted.
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }

    /// Time that this share of the times does not exceed, in nanoseconds, by the middle of its
    /// bucket. `None`: no time was noted. A share of 0.5 is the median.
    pub fn quantile_ns(&self, share: f64) -> Option<u64> {
        let rank = (self.count() as f64 * share).ceil().max(1.0) as u64;
        let mut below = 0;
        let at = self.buckets.iter().position(|n| {
            below += n;
            below >= rank
        })?;
        let lower = at.checked_sub(1).and_then(bound_ns).unwrap_or(0);
        Some(bound_ns(at).map_or(lower, |upper| lower.midpoint(upper)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_time_lies_between_the_bounds_of_its_bucket() {
        let edges = (0..BUCKETS).filter_map(bound_ns).flat_map(|at| [at - 1, at, at + 1]);
        for ns in edges.chain([0, 1, 2, 999, u64::MAX]) {
            let at = bucket(ns);
            let lower = at.checked_sub(1).map_or(0, |below| bound_ns(below).unwrap());
            assert!(at == 0 || ns > lower, "{ns} in {at}");
            assert!(bound_ns(at).is_none_or(|upper| ns <= upper), "{ns} in {at}");
        }
        assert_eq!((bound_ns(96), bound_ns(97)), (Some(1 << 34), None));
    }

    #[test]
    fn a_quantile_is_off_by_an_eighth_at_most() {
        let mut times = Histogram::default();
        assert_eq!(times.quantile_ns(0.5), None);
        (1..=1000).for_each(|n| times.note(n * 10_000));
        for (share, exact) in [(0.001, 10_000.0), (0.5, 5e6), (0.99, 9.9e6), (1.0, 10e6)] {
            let found = times.quantile_ns(share).unwrap() as f64;
            assert!((found / exact - 1.0).abs() < 0.13, "{share}: {found}");
        }
        assert_eq!((times.count(), times.sum_ns), (1000, 5_005_000_000));
    }
}
