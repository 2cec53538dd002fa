//! Entries with a deadline: the verb that writes them, the turn that is told, and their laws.

use crate::script::Turn;
use crate::verbs::number;
use crate::world::{Host, World};
use greenroom_core::store::kind::Kind;
use greenroom_core::turn::table_reads::Seek;
use std::collections::BTreeMap;

/// Table of entries that are over soon, of which the service is told.
pub(crate) const MORTAL: &str = "mortal";

/// Entries that a turn writes: more than a pass deletes.
const MORTALS: u64 = 4;

/// Entries as the living core has shown them: deadline in nanoseconds since 1970, by key. Each key
/// is written once.
#[derive(Default)]
pub(crate) struct Mortals {
    /// Entries that could be read after the last step.
    readable: BTreeMap<Vec<u8>, u64>,
    /// Entries that could be read once, and no more.
    gone: BTreeMap<Vec<u8>, u64>,
    /// Time of the calendar after the last step.
    wall_ns: u64,
}

impl Turn<'_, '_> {
    /// Writes entries that are over soon, and reads the session's own that are not.
    pub(crate) fn put_until(&mut self, delay: &str) {
        let wall_ns = self.staging.wall();
        let until_ns = wall_ns + (1 + number(delay) % 8) * 100_000_000;
        let last = self.add("mortal", &self.session.to_string(), MORTALS);
        let key = |n: u64| format!("{}:{n}", self.session);
        for n in 0..MORTALS {
            let (key, value) = (key(last - n), until_ns.to_string());
            self.staging.table_put_until(MORTAL, key.as_bytes(), value.as_bytes(), until_ns);
        }
        let own = format!("{}:", self.session);
        let mut scan = |backwards: bool| {
            let (mut from, mut keys) = (Vec::new(), Vec::new());
            let seek = Seek { backwards, key_alone: false };
            while let Some((found, value)) = self.staging.table_seek(MORTAL, own.as_bytes(), &from, seek) {
                assert!(number(&String::from_utf8_lossy(value)) > wall_ns, "nobody reads what is over");
                keys.push(found.to_vec());
                from = [found, if backwards { &[] } else { &[0][..] }].concat();
            }
            keys
        };
        let (keys, mut back) = (scan(false), scan(true));
        back.reverse();
        assert_eq!(keys, back, "a scan is the same in both directions");
        assert!(keys.iter().any(|k| k == key(last).as_bytes()), "own writes are scanned");
        // Over already: the entry does not come to be.
        self.staging.table_put_until(MORTAL, b"dead", b"0", wall_ns - 1_000_000);
        assert_eq!(self.staging.table_get(MORTAL, b"dead"), None);
    }

    /// An entry is over: it is gone.
    pub(crate) fn entry_is_over(&mut self, table: &str, key: &str) {
        assert_eq!((table, self.owner.as_str()), (MORTAL, "service"), "the owner is told");
        assert_eq!(self.staging.table_get(MORTAL, key.as_bytes()), None, "what is over is gone");
        self.add_own("acts");
        self.add("died", key.split(':').next().unwrap_or_default(), 1);
    }
}

impl World {
    /// Entries that can be read have their deadline ahead, and none comes back: also when the clock
    /// is set back.
    pub(crate) fn nobody_reads_what_is_over(&mut self) {
        let Host { core, wall_ns, .. } = &self.host;
        let (entries, _) = core.entries_from(MORTAL, b"");
        let entries = entries.into_iter().map(|(key, until)| (key, number(&String::from_utf8_lossy(&until))));
        let now: BTreeMap<_, _> = entries.collect();
        assert!(now.values().all(|until_ns| until_ns > wall_ns), "{now:?} at {wall_ns}");
        let Mortals { readable, gone, wall_ns: before_ns } = &mut self.mortals;
        gone.extend(
            std::mem::replace(readable, now).into_iter().filter(|(key, _)| !readable.contains_key(key)),
        );
        let back: Vec<_> = readable.keys().filter(|key| gone.contains_key(*key)).collect();
        assert!(back.is_empty(), "{back:?} are back at {wall_ns}");
        let is_set_back = std::mem::replace(before_ns, *wall_ns) > *wall_ns;
        let kept = gone.values().filter(|until_ns| is_set_back && *until_ns > wall_ns).count();
        if kept > 0 {
            let records = core.store().count(Kind::Expiring) - readable.len();
            self.counts.kept_over += kept.min(records) as u64;
        }
    }
}

/// Each entry with a deadline is over once, and the service was told: of as many of each session.
pub(crate) fn entries_that_are_over_are_told_once(world: &World) {
    let of_sessions = |what: &str| -> Vec<_> {
        let counters = world.counters_of(what).into_iter();
        counters.map(|(key, n)| (String::from_utf8_lossy(&key[what.len()..]).into_owned(), n)).collect()
    };
    assert_eq!(of_sessions("mortal:"), of_sessions("died:"), "entries that are over");
    assert_eq!(world.host.core.store().count(Kind::Expiring), 0, "records of entries that are over");
}
