//! Rehearsal, in the trial's child: a candidate reads a copy of all live data and writes it
//! again.
//!
//! Live data is every session's state, and the entries of tables that `entries.rs` picks. The
//! child builds a core from the pinned epoch, and puts the candidate in charge of it. Each item
//! is read as the next turn would read it. Data of another version is migrated. Each change is
//! compared field by field. If the candidate's version is higher, the result is downgraded
//! again, to find out whether there is a way back.
//!
//! Nothing is written back: the core is a copy on the heap, and ends with the child. No turn
//! runs, so no effect is asked for. One item that cannot be read fails the rehearsal, and all
//! others are read nevertheless, to be counted. A crash is the trial's finding (`trial.rs`);
//! its board names the session. O(sessions + picked entries) calls of the candidate, within the
//! limits of the trial.

use crate::memory::snapshot::core_of;
use crate::plugin::entries::{Entries, is_another};
use crate::plugin::live::LiveState;
use greenroom_core::core::Core;
use greenroom_core::ids::{ServiceId, Slot};
use greenroom_core::limits::per_service::AllLimits;
use greenroom_core::service::offer::{Build, Offer, Serving};
use greenroom_core::store::snapshot::Seen;
use greenroom_state::compatibility::{StateShape, TableShape};
use greenroom_state::json;
use greenroom_state::rehearsal_report::{Observer, Rehearsal, ShapeReport};
use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

/// Sessions and entries that are named, of those that can't be read. The rest is counted.
const NAMED_MAX: usize = 3;
/// Time between two reports of progress.
const TOLD_EVERY: Duration = Duration::from_millis(100);
/// Entries between two looks at the clock: a look takes as long as a short entry does.
const ENTRIES_A_LOOK: u64 = 64;

/// Failures of one kind: of sessions, or of entries.
#[derive(Default)]
struct Failures {
    count: u64,
    /// Words of the first failures.
    named: Vec<String>,
}

impl Failures {
    /// Counts a failure, and keeps the words of the first ones. The words are made only if they
    /// are kept.
    fn add(&mut self, what: impl FnOnce() -> String) {
        self.count += 1;
        if self.named.len() < NAMED_MAX {
            self.named.push(what());
        }
    }

    /// Describes the failures, with the first ones by name; `None`: there are none.
    fn tell(&self, of: u64, what: &str) -> Option<String> {
        let named = self.named.join("; ");
        (self.count > 0).then(|| format!("the rehearsal failed for {} of {of} {what}: {named}", self.count))
    }
}

/// Data of one service or table that goes from one shape to another, with the findings so far.
struct Subject<'a> {
    service: ServiceId,
    /// 0: the state; n: the n-th table of the service.
    which: u32,
    /// Shape that the build that serves has of it.
    old: &'a StateShape,
    /// Shape that the candidate has of it.
    new: &'a StateShape,
    /// Comparison by field.
    observer: Observer,
    /// Items that were read.
    read: u64,
    /// Items that were of another version than the candidate's.
    migrated: u64,
    /// Entries that were not picked.
    left_out: u64,
}

impl<'a> Subject<'a> {
    /// Data of one service (`which`: 0) or table that goes from one shape to another.
    fn new(service: ServiceId, which: u32, old: &'a StateShape, new: &'a StateShape) -> Subject<'a> {
        Subject {
            service,
            which,
            old,
            new,
            observer: Observer::new(old, new),
            read: 0,
            migrated: 0,
            left_out: 0,
        }
    }

    /// Compares data as it was stored, in a version, with the data that would take its place.
    /// If the bytes are all that matters, nothing is parsed.
    fn saw(&mut self, core: &Core, version: u32, before: &[u8], after: Option<&[u8]>) {
        self.migrated += u64::from(version != self.new.version);
        // Only a value of the old build's own version can come back as it was.
        let goes_back = self.new.version > self.old.version
            && version == self.old.version
            && self.new.converts(self.new.version, self.old.version).is_ok();
        let (from, to) = (self.new.version, self.old.version);
        let back = after.filter(|_| goes_back).map(|a| core.convert(self.service, self.which, from, to, a));
        // If the same bytes come back, as they mostly do, there is nothing to compare.
        let back = back.filter(|back| back.as_deref() != Ok(before));
        if back.is_none() && !self.observer.wants_data() {
            return;
        }
        // Bytes that are no MessagePack have no fields to compare.
        let Ok(before) = json::to_json(before) else { return };
        self.observer.saw(&before);
        if let Some(back) = back {
            let back = back.and_then(|bytes| json::to_json(&bytes));
            self.observer.came_back(&before, &back.unwrap_or_default());
        }
    }

    /// Makes the report on this data, with the way back by the versions that both builds know.
    fn report(self, service: &str, table: Option<&str>) -> ShapeReport {
        let (from, to) = (self.old.version, self.new.version);
        // The newer of the two knows both versions.
        let knows = if to >= from { self.new } else { self.old };
        let back = knows.converts(to, from).map_err(|gap| match to > from {
            true => format!("there is no downgrade from version {gap}"),
            false => format!("there is no migration from version {gap}"),
        });
        let (verdict, fields, way_back) = self.observer.report((from, to), back);
        ShapeReport {
            service: service.to_owned(),
            table: table.map(str::to_owned),
            from,
            to,
            verdict,
            fields,
            way_back,
            read: self.read,
            migrated: self.migrated,
            left_out: self.left_out,
        }
    }
}

/// Progress of a rehearsal.
struct Progress<F> {
    /// Items done, read or not.
    done: u64,
    /// Items in all.
    total: u64,
    /// Time of the last report.
    told: Instant,
    /// Receiver of reports.
    tell: F,
}

impl<F: FnMut(u64, u64)> Progress<F> {
    /// Counts an item, and reports every [`TOLD_EVERY`]. Looks at the clock once in `a_look`
    /// items, and more often among the first ones, so that slow items are reported early.
    fn step(&mut self, a_look: u64) {
        self.done += 1;
        let looks = self.done.is_multiple_of(a_look) || self.done.is_power_of_two();
        if looks && self.told.elapsed() >= TOLD_EVERY {
            self.told = Instant::now();
            (self.tell)(self.done, self.total);
        }
    }
}

/// Rehearses a candidate. `newer` is the loaded code of [`LiveState::newer`]. Calls `tell` with the
/// progress: items done, and of how many.
///
/// Costs the time of reading each session and entry once. An error means that the rehearsal could
/// not be made; data that the candidate can't read is in the report.
pub fn rehearse(
    library: &str,
    serving: Serving,
    newer: Option<Serving>,
    live: &LiveState,
    records: &OwnedFd,
    tell: impl FnMut(u64, u64),
) -> Result<Rehearsal, String> {
    let begun = Instant::now();
    let offers: Vec<Offer> = serving.iter().map(|(offer, _)| offer.clone()).collect();
    let tables: Vec<_> = offers.iter().flat_map(|o| o.tables.iter().map(move |t| (o, t))).collect();
    // Entries are picked while the copy is made: they are then never records of the core, which
    // saves their index.
    let mut entries: BTreeMap<_, _> =
        tables.iter().map(|(_, t)| (t.name.as_str(), live.entries_of(&t.name, &t.shape))).collect();
    let others = |seen: &Seen<'_>| is_another(seen, &mut entries);
    let mut core = core_of(records, &live.limits, live.epoch, others)?.core;
    core.set_limits(AllLimits { host: live.limits.clone(), services: live.service_limits.clone() });
    let build = Build { library: library.to_owned(), generation: 0, hash: String::new() };
    // The candidate takes charge as in a takeover: quarantined sessions stay so, and no data is
    // converted.
    core.go_on_with(&build, serving);
    if let Some(newer) = newer {
        // The candidate is older than the build that serves, which downgrades what it has
        // written.
        core.stand_by_to_convert(&build, newer);
    }
    let slots: Vec<_> = core.sessions().after(0).map(|(slot, s)| (slot, s.id, s.service)).collect();
    let total = (slots.len() + entries.values().map(Entries::len).sum::<usize>()) as u64;
    let mut progress = Progress { done: 0, total, told: begun, tell };
    let mut r = Rehearsal::default();
    let bad_sessions = rehearse_sessions(&mut core, slots, live, &offers, &mut progress, &mut r);
    let bad_entries = rehearse_entries(&core, tables, &entries, live, &mut progress, &mut r);
    let failed = [bad_sessions.tell(r.sessions, "sessions"), bad_entries.tell(r.entries, "table entries")];
    let failed: Vec<_> = failed.into_iter().flatten().collect();
    r.failed = (!failed.is_empty()).then(|| failed.join("; "));
    r.ms = begun.elapsed().as_millis() as u64;
    Ok(r)
}

/// Has the candidate read and write the state of each session of its services. Returns the
/// failures.
fn rehearse_sessions(
    core: &mut Core,
    slots: Vec<(Slot, u64, ServiceId)>,
    live: &LiveState,
    offers: &[Offer],
    progress: &mut Progress<impl FnMut(u64, u64)>,
    r: &mut Rehearsal,
) -> Failures {
    let mut states = BTreeMap::new();
    for offer in offers {
        // A service that is new to the host has no sessions to read.
        let old = live.offers.iter().find(|o| o.name == offer.name);
        if let (Some(old), Some(service)) = (old, core.service_named(&offer.name)) {
            states.insert(service, (offer, Subject::new(service, 0, &old.shape, &offer.shape)));
        }
    }
    let mut bad = Failures::default();
    for (slot, id, service) in slots {
        progress.step(1);
        // A session of a service that the candidate does not offer.
        let Some((_, subject)) = states.get_mut(&service) else { continue };
        r.sessions += 1;
        match core.rehearse(slot) {
            Ok(reread) => {
                subject.read += 1;
                if let Some((version, before)) = &reread.before {
                    subject.saw(core, *version, before, reread.after.as_deref());
                }
            }
            Err(why) => bad.add(|| format!("session {id}: {why}")),
        }
    }
    for (_, (offer, subject)) in states {
        r.migrated += subject.migrated;
        // A service without state has nothing to report.
        if subject.old.schema.is_some() || subject.new.schema.is_some() {
            r.shapes.push(subject.report(&offer.name, None));
        }
    }
    bad
}

/// Has the candidate read and write the picked entries of each of its tables. Returns the
/// failures.
fn rehearse_entries(
    core: &Core,
    tables: Vec<(&Offer, &TableShape)>,
    entries: &BTreeMap<&str, Entries>,
    live: &LiveState,
    progress: &mut Progress<impl FnMut(u64, u64)>,
    r: &mut Rehearsal,
) -> Failures {
    let mut bad = Failures::default();
    for (offer, table) in tables {
        let owner = core.owners().get(table.name.as_str()).copied();
        let Some(owner) = owner else { continue };
        // A table that nobody owned counts as of the first version, and of the same shape.
        let old = live.shape_of(&table.name).unwrap_or(&table.shape);
        let mut subject = Subject::new(owner.service, owner.which, old, &table.shape);
        let entries = &entries[table.name.as_str()];
        for (version, key, value) in entries.iter() {
            progress.step(ENTRIES_A_LOOK);
            match core.rehearse_entry(&table.name, version, value) {
                Ok(after) => {
                    subject.read += 1;
                    subject.saw(core, version, value, Some(&after));
                }
                Err(why) => bad.add(|| {
                    format!("entry {:?} of table {}: {why}", String::from_utf8_lossy(key), table.name)
                }),
            }
        }
        r.entries += entries.len() as u64;
        r.entries_left_out += entries.left_out;
        subject.left_out = entries.left_out;
        r.entries_migrated += subject.migrated;
        r.shapes.push(subject.report(&offer.name, Some(&table.name)));
    }
    bad
}
