//! Loads that are tried again: what refused them may pass without a change of the file.
//!
//! A port may be another process's, the table of open files full, a disk full. The watcher would
//! leave such content alone, as it was seen. So the host asks for the load again, at first after
//! two seconds, later once a minute. Log and ledger have a line for each new reason only.
//!
//! Loads that an operator asked for are not repeated: the operator has the answer. Nothing here is
//! recorded: a successor looks at all files.

use crate::plugin::stage::NOT_WRITTEN;
use crate::plugin::trial::CANNOT_START;
use greenroom_core::reload::request::LibraryId;
use std::collections::BTreeMap;
use std::time::Duration;

/// Time until the first repetition. Each one waits twice as long as the one before.
const FIRST_AFTER: Duration = Duration::from_secs(2);
/// Longest time between two repetitions. Each one tries the file in a child process.
const LONGEST: Duration = Duration::from_secs(60);

/// Loads that are to be tried again, by library.
#[derive(Debug, Default)]
pub(in crate::worker) struct LaterLoads {
    loads: BTreeMap<LibraryId, LaterLoad>,
}

/// A load that is to be tried again.
#[derive(Debug)]
struct LaterLoad {
    /// Reason of the last refusal.
    why: String,
    wait: Duration,
    /// Time of the repetition. `None`: it is under way.
    at_ns: Option<u64>,
}

impl LaterLoads {
    /// Notes a load that was refused for a reason that may pass. False: it was repeated, and
    /// refused for the same reason as before.
    pub(super) fn refused(&mut self, id: LibraryId, why: &str, now_ns: u64) -> bool {
        let before = self.loads.remove(&id);
        let wait = before.as_ref().map_or(FIRST_AFTER, |load| (load.wait * 2).min(LONGEST));
        let is_new = before.is_none_or(|load| load.why != why);
        let at_ns = Some(now_ns + wait.as_nanos() as u64);
        self.loads.insert(id, LaterLoad { why: why.to_owned(), wait, at_ns });
        is_new
    }

    /// Whether a library's load is to be tried again.
    pub(in crate::worker) fn waits(&self, id: LibraryId) -> bool {
        self.loads.contains_key(&id)
    }

    /// Has all loads be repeated at once, and then as at first.
    pub(super) fn hurry(&mut self) {
        for load in self.loads.values_mut().filter(|load| load.at_ns.is_some()) {
            (load.at_ns, load.wait) = (Some(0), FIRST_AFTER / 2);
        }
    }

    /// Forgets a library whose load has another outcome.
    pub(super) fn over(&mut self, id: LibraryId) {
        self.loads.remove(&id);
    }

    /// Time of the next repetition. `None`: none waits. O(libraries that wait).
    pub(in crate::worker) fn next_ns(&self) -> Option<u64> {
        self.loads.values().filter_map(|load| load.at_ns).min()
    }

    /// Takes the libraries whose loads are due.
    pub(super) fn take_due(&mut self, now_ns: u64) -> Vec<LibraryId> {
        let due = |load: &LaterLoad| load.at_ns.is_some_and(|at| at <= now_ns);
        let due: Vec<_> = self.loads.iter().filter(|(_, load)| due(load)).map(|(id, _)| *id).collect();
        for id in &due {
            if let Some(load) = self.loads.get_mut(id) {
                load.at_ns = None;
            }
        }
        due
    }
}

/// Returns whether what failed in a trial may pass: the process lacked room, or too much changed
/// meanwhile. The words are the host's own, and begin the reason.
pub(super) fn may_pass(why: &str) -> bool {
    why.starts_with(CANNOT_START) || why.starts_with(PIN_LOST) || why.contains(NOT_WRITTEN)
}

/// Beginning of the reason of a rehearsal that lost its snapshot.
pub(super) const PIN_LOST: &str = "too much changed while it was rehearsed";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_load_is_repeated_at_growing_distances_until_it_has_another_outcome() {
        let (mut later, id, second) = (LaterLoads::default(), LibraryId(3), 1_000_000_000);
        assert!(later.refused(id, "taken", 0));
        let mut waits = Vec::new();
        for _ in 0..7 {
            let at = later.next_ns().unwrap();
            assert_eq!(later.take_due(at - 1), []);
            assert_eq!(later.take_due(at), [id]);
            assert_eq!(later.next_ns(), None);
            assert!(!later.refused(id, "taken", at));
            waits.push((later.next_ns().unwrap() - at) / second);
        }
        assert_eq!(waits, [4, 8, 16, 32, 60, 60, 60]);
        // What was in the way may be over.
        later.hurry();
        assert_eq!(later.take_due(0), [id]);
        assert!(!later.refused(id, "taken", 0) && later.next_ns() == Some(2 * second));
        assert!(later.refused(id, "full", 0));
        later.over(id);
        assert!(later.next_ns().is_none() && later.refused(id, "full", 0));
        assert_eq!(later.next_ns(), Some(2 * second));
    }
}
