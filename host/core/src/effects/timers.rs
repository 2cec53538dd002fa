//! Timers: names with a deadline, of a session or of a service. Each fires once, as an action.
//!
//! They are kept by deadline, so no pass looks at a session for its timers' sake. A timer's record has its owner for a key, and holds
//! the deadline (u64, little-endian, nanoseconds of CLOCK_MONOTONIC, which goes on across processes) and the name.

use crate::core::Core;
use crate::ids::Slot;
use crate::store::kind::Kind;
use crate::store::layout::Ref;
use crate::store::records::Store;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Bound;

/// Timers that a pass fires; the rest waits for the next one.
const FIRED_PER_PASS: usize = 4096;
/// What a timer's record costs beside its name.
pub(crate) const TIMER_HEAD: usize = 8;

/// All timers that are not due yet.
#[derive(Debug, Default)]
pub(crate) struct Timers {
    by_deadline: BTreeSet<(u64, Ref)>,
    /// By owner and name.
    named: BTreeMap<(u64, Box<str>), (u64, Ref)>,
    counts: HashMap<u64, usize>,
}

/// A timer's record.
fn encode(deadline_ns: u64, name: &str) -> Vec<u8> {
    [&deadline_ns.to_le_bytes(), name.as_bytes()].concat()
}

/// The name in a timer's record.
pub(crate) fn timer_name(record: &[u8]) -> &[u8] {
    record.get(TIMER_HEAD..).unwrap_or_default()
}

impl Timers {
    /// When the next one is due.
    pub(crate) fn next_ns(&self) -> Option<u64> {
        self.by_deadline.first().map(|(at, _)| *at)
    }

    /// How many an owner has.
    pub(crate) fn count(&self, owner: u64) -> usize {
        self.counts.get(&owner).copied().unwrap_or(0)
    }

    pub(crate) fn contains(&self, owner: u64, name: &str) -> bool {
        self.named.contains_key(&(owner, name.into()))
    }

    /// An owner's timers: name and deadline.
    pub(crate) fn of(&self, owner: u64) -> impl Iterator<Item = (&str, u64)> {
        self.after(owner, None)
    }

    /// As [`Timers::of`], behind a name.
    fn after(&self, owner: u64, name: Option<&str>) -> impl Iterator<Item = (&str, u64)> {
        let from = match name {
            Some(name) => Bound::Excluded((owner, name.into())),
            None => Bound::Included((owner, "".into())),
        };
        let own = self.named.range((from, Bound::Unbounded)).take_while(move |((o, _), _)| *o == owner);
        own.map(|((_, name), (at, _))| (&**name, *at))
    }

    /// There must be room.
    fn set(&mut self, store: &mut Store, owner: u64, name: &str, deadline_ns: u64) {
        let key = (owner, name.into());
        let old = self.named.get(&key).copied();
        let put = store.put(old.map(|(_, r)| r), Kind::Timer, owner, &encode(deadline_ns, name));
        let record = put.expect("room was made sure of before");
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

    /// Takes one off; its record is the caller's.
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
}

impl Core {
    /// Sets a session's timer, or sets it again. There must be room.
    pub(crate) fn set_timer(&mut self, slot: Slot, name: &str, deadline_ns: u64) {
        self.cancel_due(slot, name);
        if let Some(s) = self.sessions.get(slot) {
            self.timers.set(&mut self.store, s.id, name, deadline_ns);
        }
    }

    /// From here on the timer doesn't fire, even if it is due.
    pub(crate) fn cancel_timer(&mut self, slot: Slot, name: &str) {
        self.cancel_due(slot, name);
        let Some(s) = self.sessions.get(slot) else { return };
        if let Some(record) = self.timers.remove(s.id, name.into()) {
            self.store.delete(record);
        }
    }

    fn cancel_due(&mut self, slot: Slot, name: &str) {
        if !self.pending.has(slot) {
            return;
        }
        let store = &self.store;
        let is = |r: Ref| store.read(r, |b| timer_name(b) == name.as_bytes());
        if let Some(record) = self.pending.take_timer(slot, is) {
            self.store.delete(record);
        }
    }

    /// A session's timers, also those that are due, with the nanoseconds until they fire.
    pub(crate) fn timers_of(&self, owner: u64) -> Vec<(String, u64)> {
        let due = self.sessions.slot_of(owner).into_iter().flat_map(|slot| self.pending.timers(slot));
        let name = |b: &[u8]| String::from_utf8_lossy(timer_name(b)).into_owned();
        let due = due.map(|r| (self.store.read(r, name), 0));
        let set = self.timers.of(owner).map(|(name, at)| (name.to_owned(), at.saturating_sub(self.now_ns)));
        due.chain(set).collect()
    }

    /// At most `max` of an owner's timers, behind a name, but for those that are due.
    pub(crate) fn timers_after(&self, owner: u64, after: Option<&str>, max: usize) -> Vec<(String, u64)> {
        let own = self.timers.after(owner, after).take(max);
        own.map(|(name, at)| (name.to_owned(), at.saturating_sub(self.now_ns))).collect()
    }

    /// A session ends, and its timers with it.
    pub(crate) fn drop_timers(&mut self, slot: Slot) {
        let Some(s) = self.sessions.get(slot) else { return };
        let (id, count) = (s.id, self.timers.count(s.id));
        if count == 0 {
            return;
        }
        let names: Vec<Box<str>> = self.timers.of(id).map(|(name, _)| name.into()).collect();
        for name in names {
            if let Some(record) = self.timers.remove(id, name) {
                self.store.delete(record);
            }
        }
    }

    /// Those that are due become actions.
    pub(crate) fn fire_timers(&mut self) {
        for _ in 0..FIRED_PER_PASS {
            let Some(&(at, record)) = self.timers.by_deadline.first().filter(|(at, _)| *at <= self.now_ns)
            else {
                return;
            };
            let owner = self.store.key(record);
            let name = self.store.read(record, |b| String::from_utf8_lossy(timer_name(b)).into_owned());
            self.timers.remove(owner, name.into());
            self.timers.by_deadline.remove(&(at, record));
            match self.sessions.slot_of(owner) {
                Some(slot) => self.pending.due(slot, record),
                None => self.store.delete(record),
            }
        }
    }

    /// Takes a timer that recovery found into the index.
    pub(crate) fn recover_timer(&mut self, owner: u64, record: Ref) {
        let read = self.store.read(record, |b| {
            let at = u64::from_le_bytes(b.get(..TIMER_HEAD)?.try_into().ok()?);
            Some((at, Box::<str>::from(std::str::from_utf8(timer_name(b)).ok()?)))
        });
        match read.filter(|_| self.sessions.slot_of(owner).is_some()) {
            Some((at, name)) if !self.timers.contains(owner, &name) => {
                *self.timers.counts.entry(owner).or_default() += 1;
                self.timers.insert((owner, name), at, record);
            }
            _ => self.store.delete(record),
        }
    }
}
