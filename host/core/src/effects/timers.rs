//! Timers by deadline and by name, of a session or of a service. Each fires once, as an action.
//!
//! Timers are kept by deadline, so no pass looks at a session for its timers' sake. A timer's
//! record has its owner as its key, and holds the deadline (u64, little-endian, nanoseconds of
//! CLOCK_MONOTONIC, which goes on across processes) and the name. A timer that is due waits in the
//! inbox as this very record.

use crate::store::kind::Kind;
use crate::store::layout::Ref;
use crate::store::records::Store;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Bound;

/// Bytes of a timer's record beside its name.
const TIMER_HEAD: usize = 8;

/// All timers that are not due yet.
#[derive(Debug, Default)]
pub(crate) struct Timers {
    by_deadline: BTreeSet<(u64, Ref)>,
    /// Deadline and record by owner and name.
    named: BTreeMap<(u64, Box<str>), (u64, Ref)>,
    counts: HashMap<u64, usize>,
}

fn encode(deadline_ns: u64, name: &str) -> Vec<u8> {
    [&deadline_ns.to_le_bytes(), name.as_bytes()].concat()
}

/// The name in a timer's record.
pub(crate) fn timer_name(record: &[u8]) -> &[u8] {
    record.get(TIMER_HEAD..).unwrap_or_default()
}

impl Timers {
    /// Bytes of the record that [`Timers::set`] writes.
    pub(crate) fn record_bytes(name_len: usize) -> usize {
        TIMER_HEAD + name_len
    }

    /// Time of the next timer, in nanoseconds.
    pub(crate) fn next_ns(&self) -> Option<u64> {
        self.by_deadline.first().map(|(at, _)| *at)
    }

    /// Timers of an owner.
    pub(crate) fn count(&self, owner: u64) -> usize {
        self.counts.get(&owner).copied().unwrap_or(0)
    }

    /// Whether an owner has a timer of this name.
    pub(crate) fn contains(&self, owner: u64, name: &str) -> bool {
        self.named.contains_key(&(owner, name.into()))
    }

    /// Names and deadlines of an owner's timers, by name.
    pub(crate) fn of(&self, owner: u64) -> impl Iterator<Item = (&str, u64)> {
        self.after(owner, None)
    }

    /// Names and deadlines of an owner's timers whose names sort after `name`.
    pub(crate) fn after(&self, owner: u64, name: Option<&str>) -> impl Iterator<Item = (&str, u64)> {
        let from = match name {
            Some(name) => Bound::Excluded((owner, name.into())),
            None => Bound::Included((owner, "".into())),
        };
        let own = self.named.range((from, Bound::Unbounded)).take_while(move |((o, _), _)| *o == owner);
        own.map(|((_, name), (at, _))| (&**name, *at))
    }

    /// Sets an owner's timer, in place of the one of this name. Room must be reserved.
    pub(crate) fn set(&mut self, store: &mut Store, owner: u64, name: &str, deadline_ns: u64) {
        let key = (owner, name.into());
        let old = self.named.get(&key).copied();
        let put = store.put(old.map(|(_, r)| r), Kind::Timer, owner, &encode(deadline_ns, name));
        let record = put.expect("room was reserved before");
        match old {
            Some(old) => _ = self.by_deadline.remove(&old),
            None => *self.counts.entry(owner).or_default() += 1,
        }
        self.insert(key, deadline_ns, record);
    }

    fn insert(&mut self, key: (u64, Box<str>), deadline_ns: u64, record: Ref) {
        self.by_deadline.insert((deadline_ns, record));
        self.named.insert(key, (deadline_ns, record));
    }

    /// Takes a timer off; its record is the caller's.
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

    /// Drops all timers of an owner that ends. O(its timers).
    pub(crate) fn drop_all(&mut self, store: &mut Store, owner: u64) {
        if self.count(owner) == 0 {
            return;
        }
        let names: Vec<Box<str>> = self.of(owner).map(|(name, _)| name.into()).collect();
        for name in names {
            self.cancel(store, owner, &name);
        }
    }

    /// Takes off the next timer that is due: its owner, and its record, which is the caller's.
    pub(crate) fn pop_due(&mut self, store: &Store, now_ns: u64) -> Option<(u64, Ref)> {
        let &(at, record) = self.by_deadline.first().filter(|(at, _)| *at <= now_ns)?;
        let owner = store.key(record);
        let name = store.read(record, |b| String::from_utf8_lossy(timer_name(b)).into_owned());
        self.remove(owner, name.into());
        self.by_deadline.remove(&(at, record));
        Some((owner, record))
    }

    /// Takes in a timer that recovery found. A double, one that can't be read, and one without an
    /// owner alive are deleted.
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
