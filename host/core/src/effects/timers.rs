//! Timers by deadline and by name, of a session or of a service. Each fires once, as an action.
//!
//! A pass looks only at timers that are due: they are ordered by deadline. Setting, cancelling
//! and firing one costs O(log timers).
//!
//! A timer is a record under the number of its owner: the deadline (u64, little-endian), then
//! the name. Deadlines are nanoseconds of CLOCK_MONOTONIC, which goes on across processes, so a
//! successor uses them as they are.
//!
//! A due timer leaves this index and waits in the inbox as the same record. The commit of its
//! turn deletes the record. If the worker dies before that, recovery finds the record, and the
//! timer is due again.
//!
//! `timers_per_session_max` and `timers_per_service_max` bound the timers of an owner; the turn
//! that sets one more is refused. Due timers are not counted.

use crate::store::kind::Kind;
use crate::store::layout::Ref;
use crate::store::records::Store;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Bound;

/// Bytes of a timer's record beside its name.
const TIMER_HEAD: usize = 8;

/// All timers that are not due yet. Each is in both maps.
#[derive(Debug, Default)]
pub(crate) struct Timers {
    /// Deadlines in nanoseconds, in order. The record tells timers of one deadline apart.
    by_deadline: BTreeSet<(u64, Ref)>,
    /// Deadline and record by owner and name.
    named: BTreeMap<(u64, Box<str>), (u64, Ref)>,
    /// Timers of each owner that has any.
    counts: HashMap<u64, usize>,
}

/// A timer's record.
fn encode(deadline_ns: u64, name: &str) -> Vec<u8> {
    [&deadline_ns.to_le_bytes(), name.as_bytes()].concat()
}

/// The name in a timer's record; empty if the record is too short.
pub(crate) fn timer_name(record: &[u8]) -> &[u8] {
    record.get(TIMER_HEAD..).unwrap_or_default()
}

impl Timers {
    /// Bytes of the record that [`Timers::set`] writes.
    pub(crate) fn record_bytes(name_len: usize) -> usize {
        TIMER_HEAD + name_len
    }

    /// Time of the next timer, in nanoseconds. O(log timers).
    pub(crate) fn next_ns(&self) -> Option<u64> {
        self.by_deadline.first().map(|(at, _)| *at)
    }

    /// Number of all timers that are not due. O(1).
    pub(crate) fn len(&self) -> usize {
        self.by_deadline.len()
    }

    /// Timers of an owner that are not due. O(1).
    pub(crate) fn count(&self, owner: u64) -> usize {
        self.counts.get(&owner).copied().unwrap_or(0)
    }

    /// Whether an owner has a timer of this name that is not due. Allocates the name.
    pub(crate) fn contains(&self, owner: u64, name: &str) -> bool {
        self.named.contains_key(&(owner, name.into()))
    }

    /// Names and deadlines of an owner's timers, by name.
    pub(crate) fn of(&self, owner: u64) -> impl Iterator<Item = (&str, u64)> {
        self.after(owner, None)
    }

    /// Names and deadlines of an owner's timers whose names sort after `name`: the next slice of
    /// a long list.
    pub(crate) fn after(&self, owner: u64, name: Option<&str>) -> impl Iterator<Item = (&str, u64)> {
        let from = match name {
            Some(name) => Bound::Excluded((owner, name.into())),
            None => Bound::Included((owner, "".into())),
        };
        let own = self.named.range((from, Bound::Unbounded)).take_while(move |((o, _), _)| *o == owner);
        own.map(|((_, name), (at, _))| (&**name, *at))
    }

    /// Sets an owner's timer, in place of the one of this name. Room must be reserved. A due
    /// timer of the name stays in the inbox: the caller cancels it there.
    pub(crate) fn set(&mut self, store: &mut Store, owner: u64, name: &str, deadline_ns: u64) {
        let key = (owner, name.into());
        let old = self.named.get(&key).copied();
        let put = store.put(old.map(|(_, r)| r), Kind::Timer, owner, &encode(deadline_ns, name));
        let record = put.expect("room was reserved before");
        // The old entry goes before the new one comes: if the record was made in this pass, both
        // may be equal.
        match old {
            Some(old) => _ = self.by_deadline.remove(&old),
            None => *self.counts.entry(owner).or_default() += 1,
        }
        self.insert(key, deadline_ns, record);
    }

    /// Enters a timer into both maps. The caller counts it.
    fn insert(&mut self, key: (u64, Box<str>), deadline_ns: u64, record: Ref) {
        self.by_deadline.insert((deadline_ns, record));
        self.named.insert(key, (deadline_ns, record));
    }

    /// Takes a timer out of both maps and off the count. The caller owns its record.
    fn remove(&mut self, owner: u64, name: Box<str>) -> Option<Ref> {
        let (at, record) = self.named.remove(&(owner, name))?;
        self.by_deadline.remove(&(at, record));
        if let Some(n) = self.counts.get_mut(&owner) {
            *n -= 1;
            if *n == 0 {
                self.counts.remove(&owner);
            }
        }
        Some(record)
    }

    /// Cancels an owner's timer, if there is one of this name that is not due yet.
    pub(crate) fn cancel(&mut self, store: &mut Store, owner: u64, name: &str) {
        if let Some(record) = self.remove(owner, name.into()) {
            store.delete(record);
        }
    }

    /// Drops all timers of an owner that ends. O(timers of the owner).
    pub(crate) fn drop_all(&mut self, store: &mut Store, owner: u64) {
        if self.count(owner) == 0 {
            return;
        }
        let names: Vec<Box<str>> = self.of(owner).map(|(name, _)| name.into()).collect();
        for name in names {
            self.cancel(store, owner, &name);
        }
    }

    /// Takes off the next timer that is due: its owner and its record. The caller owns the
    /// record: the inbox keeps it, or it is deleted.
    pub(crate) fn pop_due(&mut self, store: &Store, now_ns: u64) -> Option<(u64, Ref)> {
        let &(at, record) = self.by_deadline.first().filter(|(at, _)| *at <= now_ns)?;
        let owner = store.key(record);
        let name = store.read(record, |b| String::from_utf8_lossy(timer_name(b)).into_owned());
        self.remove(owner, name.into());
        // `remove` has done so already, unless the name leads nowhere. The entry goes in any
        // case: a caller that loops would get it for ever.
        self.by_deadline.remove(&(at, record));
        Some((owner, record))
    }

    /// Takes in a timer that recovery found, due or not. A double, one that can't be read, and
    /// one without an owner alive are deleted.
    pub(crate) fn recover(&mut self, store: &mut Store, owner: u64, record: Ref, owner_lives: bool) {
        let read = store.read(record, |b| {
            let at = u64::from_le_bytes(b.get(..TIMER_HEAD)?.try_into().ok()?);
            Some((at, Box::<str>::from(std::str::from_utf8(timer_name(b)).ok()?)))
        });
        match read.filter(|_| owner_lives) {
            Some((at, name)) if !self.contains(owner, &name) => {
                *self.counts.entry(owner).or_default() += 1;
                self.insert((owner, name), at, record);
            }
            _ => store.delete(record),
        }
    }
}
