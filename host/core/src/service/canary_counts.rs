//! Counts of a canary: turns, faults and times of both builds, and batches that both have run.
//!
//! The counts of a service are one record, written with the pass that they count. So a fault of a
//! committed turn is never lost, and a rule can rely on it.

/// Classes of turn times. Class n holds those below 2^n × 64 ns, the last one all others.
const TIME_CLASSES: usize = 24;
/// Upper end of the first class, in nanoseconds.
const FIRST_CLASS_NS: u64 = 64;

/// Counts of the turns that one of the builds has run since the canary began.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CanaryCounts {
    /// Turns run, failed ones included.
    pub turns: u64,
    /// Turns that failed.
    pub faults: u64,
    /// Turns among those that fail with the other build, too: the action is at fault.
    pub shared_faults: u64,
    /// Turns that were timed, and their time in nanoseconds.
    pub timed: u64,
    /// Sum of their times.
    pub time_ns: u64,
    /// Longest of them.
    pub longest_ns: u64,
    /// Turns by class of their time.
    classes: [u64; TIME_CLASSES],
}

impl CanaryCounts {
    /// Returns the faults that say something about the build.
    pub fn own_faults(&self) -> u64 {
        self.faults - self.shared_faults
    }

    /// Returns the mean time of a turn in nanoseconds; `None`: none was timed.
    pub fn mean_ns(&self) -> Option<u64> {
        self.time_ns.checked_div(self.timed)
    }

    /// Returns a time that 99 of 100 turns stay below, by classes of which each is twice the one
    /// before; `None`: none was timed.
    pub fn p99_ns(&self) -> Option<u64> {
        let beyond = self.timed / 100;
        let mut left = self.timed;
        let at = self.classes.iter().position(|n| {
            left -= n;
            left <= beyond
        });
        (self.timed > 0).then(|| (FIRST_CLASS_NS << at.unwrap_or(TIME_CLASSES)).min(self.longest_ns))
    }

    /// Adds what another service of the library has counted.
    pub fn add(&mut self, other: &CanaryCounts) {
        self.turns += other.turns;
        self.faults += other.faults;
        self.shared_faults += other.shared_faults;
        self.timed += other.timed;
        self.time_ns += other.time_ns;
        self.longest_ns = self.longest_ns.max(other.longest_ns);
        self.classes.iter_mut().zip(other.classes).for_each(|(a, b)| *a += b);
    }

    /// Counts turns of one call that took so long together.
    pub(crate) fn count_time(&mut self, turns: u64, ns: u64) {
        let each = ns / turns.max(1);
        let class = (each / FIRST_CLASS_NS).checked_ilog2().map_or(0, |n| n as usize + 1);
        self.classes[class.min(TIME_CLASSES - 1)] += turns;
        self.timed += turns;
        self.time_ns += ns;
        self.longest_ns = self.longest_ns.max(each);
    }

    /// Numbers of a record, in their order.
    fn numbers(&mut self) -> impl Iterator<Item = &mut u64> {
        let CanaryCounts { turns, faults, shared_faults, timed, time_ns, longest_ns, classes } = self;
        [turns, faults, shared_faults, timed, time_ns, longest_ns].into_iter().chain(classes)
    }
}

/// Counts of batches that both builds have run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Compared {
    /// Batches that both have run.
    pub batches: u64,
    /// Batches among those in which they answered differently.
    pub differing: u64,
    /// Batches that the build that serves could not be asked about: the candidate's state does not
    /// come back without loss.
    pub no_way_back: u64,
}

/// Counts of a canary in one service: the candidate's, the other build's, and comparisons.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct BothCounts {
    /// Sessions that run the candidate, closing ones included.
    pub sessions: u64,
    /// Turns of the candidate.
    pub candidate: CanaryCounts,
    /// Turns of the build that serves.
    pub serving: CanaryCounts,
    /// Batches that both have run.
    pub compared: Compared,
}

impl BothCounts {
    /// Adds what another service of the library has counted.
    pub fn add(&mut self, other: &BothCounts) {
        self.sessions += other.sessions;
        self.candidate.add(&other.candidate);
        self.serving.add(&other.serving);
        self.compared.batches += other.compared.batches;
        self.compared.differing += other.compared.differing;
        self.compared.no_way_back += other.compared.no_way_back;
    }

    /// Numbers of a record, in their order. Sessions are counted anew.
    fn numbers(&mut self) -> impl Iterator<Item = &mut u64> {
        let Compared { batches, differing, no_way_back } = &mut self.compared;
        let compared = [batches, differing, no_way_back].into_iter();
        self.candidate.numbers().chain(self.serving.numbers()).chain(compared)
    }

    /// Encodes a record: the generation, then all numbers but that of sessions (u64,
    /// little-endian).
    pub(crate) fn encode(mut self, generation: u64) -> Vec<u8> {
        let mut bytes = generation.to_le_bytes().to_vec();
        self.numbers().for_each(|n| bytes.extend_from_slice(&n.to_le_bytes()));
        bytes
    }

    /// Decodes a record; `None`: it is of another generation's canary, or too short.
    pub(crate) fn decode(generation: u64, bytes: &[u8]) -> Option<BothCounts> {
        let mut read = bytes.chunks_exact(size_of::<u64>());
        let mut next = || Some(u64::from_le_bytes(read.next()?.try_into().ok()?));
        if next()? != generation {
            return None;
        }
        let mut counts = BothCounts::default();
        for n in counts.numbers() {
            *n = next()?;
        }
        Some(counts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_come_back_from_their_record() {
        let mut counts = BothCounts::default();
        counts.candidate.count_time(3, 3_000);
        counts.candidate.count_time(1, 1 << 40);
        (counts.candidate.turns, counts.candidate.faults, counts.serving.shared_faults) = (4, 2, 1);
        counts.compared = Compared { batches: 5, differing: 1, no_way_back: 2 };
        let bytes = counts.encode(7);
        assert_eq!(BothCounts::decode(7, &bytes), Some(counts));
        assert_eq!(BothCounts::decode(8, &bytes), None);
        assert_eq!(BothCounts::decode(7, &bytes[..bytes.len() - 1]), None);
        assert_eq!(BothCounts::decode(7, b""), None);
    }

    #[test]
    fn times_are_told_by_classes() {
        let mut counts = CanaryCounts::default();
        assert_eq!((counts.mean_ns(), counts.p99_ns()), (None, None));
        counts.count_time(99, 99 * 100);
        counts.count_time(1, 1_000_000);
        assert_eq!(
            (counts.mean_ns(), counts.p99_ns(), counts.longest_ns),
            (Some(10_099), Some(128), 1_000_000)
        );
        counts.count_time(9, 9_000_000);
        assert_eq!(counts.p99_ns(), Some(1_000_000));
    }
}
