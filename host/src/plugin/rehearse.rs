//! Rehearsal, in the trial's child: a candidate reads a copy of all live data and writes it
//! again.
//!
//! Live data is every session's state, and the entries of tables that `entries.rs` picks. The
//! child builds a core from the pinned epoch, and puts the candidate in charge of it. Each item
//! is read as the next turn would read it. Data of another version is migrated. Each change is
//! compared field by field. The result is converted to the version that is live again, to find
//! out whether there is a way back: downgraded by the candidate, or for an older candidate,
//! migrated by the build that serves.
//!
//! Nothing is written back: the core is a copy on the heap, and ends with the child. No turn
//! runs but those that retrace dialogues (`dialogues.rs`), of which nothing is kept. One item that
//! cannot be read fails the rehearsal, and all others are read nevertheless, to be counted. An item
//! that the build that serves cannot read either is told, and fails nothing: no reload would make
//! it worse. A crash is the trial's finding (`trial.rs`); its board names the session.
//! O(sessions + picked entries) calls of the candidate, within the limits of the trial.

use crate::memory::snapshot::core_of;
use crate::plugin::dialogues::retrace;
use crate::plugin::entries::{Entries, is_another};
use crate::plugin::live::LiveState;
use greenroom_core::core::Core;
use greenroom_core::ids::{ServiceId, Slot};
use greenroom_core::limits::per_service::AllLimits;
use greenroom_core::service::offer::{Build, Offer, Serving};
use greenroom_core::store::snapshot::Seen;
use greenroom_state::compatibility::{StateShape, TableShape};
use greenroom_state::dialogue_report::DialogueReport;
use greenroom_state::json;
use greenroom_state::rehearsal_report::{Observer, Rehearsal, ShapeReport};
use greenroom_state::same_value::same_value;
use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

/// Sessions and entries that are named, of those that can't be read. The rest is counted.
const NAMED_MAX: usize = 3;
/// Failures whose words are kept: which of them are the candidate's own is known only later.
const WORDS_MAX: usize = 1000;
/// Time between two reports of progress.
const TOLD_EVERY: Duration = Duration::from_millis(100);
/// Entries between two looks at the clock: a look takes as long as a short entry does.
const ENTRIES_A_LOOK: u64 = 64;

/// Failures of one kind: of sessions, or of entries.
struct Failures<T> {
    /// Items that can't be read, each with its name and the reason, if it is among the first
    /// [`WORDS_MAX`].
    items: Vec<(T, String)>,
}

impl<T> Default for Failures<T> {
    fn default() -> Failures<T> {
        Failures { items: Vec::new() }
    }
}

impl<T> Failures<T> {
    /// Notes a failure. The words are made only if they are kept.
    fn add(&mut self, item: T, what: impl FnOnce() -> String) {
        let words = if self.items.len() < WORDS_MAX { what() } else { String::new() };
        self.items.push((item, words));
    }

    /// Takes out the failures that the build that serves has, too.
    fn take_old(&mut self, mut is_old: impl FnMut(&T) -> bool) -> Failures<T> {
        let (old, new) = std::mem::take(&mut self.items).into_iter().partition(|(item, _)| is_old(item));
        self.items = new;
        Failures { items: old }
    }

    /// Describes failures that are the candidate's own; `None`: there are none.
    fn tell(&self, of: u64, what: &str) -> Option<String> {
        let (count, named) = self.named()?;
        Some(format!("the rehearsal failed for {count} of {of} {what}: {named}"))
    }

    /// Describes failures that the build that serves has, too; `None`: there are none.
    fn tell_old(&self, of: u64, what: &str) -> Option<String> {
        let (count, named) = self.named()?;
        Some(format!("{count} of {of} {what} can't be read by the build that serves either: {named}"))
    }

    /// Number of failures, and the first ones by name; `None`: there are none.
    fn named(&self) -> Option<(usize, String)> {
        let words = self.items.iter().map(|(_, words)| words.as_str()).filter(|words| !words.is_empty());
        let named: Vec<_> = words.take(NAMED_MAX).collect();
        (!self.items.is_empty()).then(|| (self.items.len(), named.join("; ")))
    }
}

/// Loads the build that serves, to ask it about what the candidate can't read. Its error says why
/// it can't be asked.
pub type LoadServing<'a> = &'a mut dyn FnMut() -> Result<Serving, String>;

/// Data of one service or table that goes from one shape to another, with the findings so far.
struct Subject<'a> {
    service: ServiceId,
    /// 0: the state; n: the n-th table of the service.
    which: u32,
    /// Name of the table; `None`: the state.
    table: Option<&'a str>,
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
    fn new(
        service: ServiceId,
        (which, table): (u32, Option<&'a str>),
        old: &'a StateShape,
        new: &'a StateShape,
    ) -> Subject<'a> {
        Subject {
            service,
            which,
            table,
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
        let (from, to) = (self.new.version, self.old.version);
        // The newer of the two builds knows the way. Without one, the report says so once.
        let newer = if from > to { self.new } else { self.old };
        let goes_back = from != to && version == to && newer.converts(from, to).is_ok();
        let back = after.filter(|_| goes_back).map(|a| core.convert(self.service, self.which, from, to, a));
        // If the same value comes back, as it mostly does, there is nothing to compare.
        let schema = self.old.schema.as_ref();
        let back = back.filter(|b| !b.as_deref().is_ok_and(|b| same_value(b, before, schema)));
        if back.is_none() && !self.observer.wants_data() {
            return;
        }
        // Bytes that are no MessagePack have no fields to compare.
        let Ok(before) = json::to_json(before) else { return };
        self.observer.saw(&before);
        if let Some(back) = back {
            let back = back.and_then(|bytes| json::to_json(&bytes));
            self.observer.came_back(&before, back.as_ref().map_err(Clone::clone));
        }
    }

    /// Makes the report on this data, with the way back by the versions that both builds know.
    fn report(self, service: &str) -> ShapeReport {
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
            table: self.table.map(str::to_owned),
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

/// Rehearses a candidate. `newer` is the loaded code of [`LiveState::newer`]. `live_build` is
/// called if there is something that the candidate can't read. Calls `tell` with the progress:
/// items done, and of how many.
///
/// Costs the time of reading each session and entry once. An error means that the rehearsal could
/// not be made; data that the candidate can't read is in the report.
pub fn rehearse(
    library: &str,
    serving: Serving,
    newer: Option<Serving>,
    live_build: LoadServing<'_>,
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
    let others = |seen: &Seen<'_>| is_another(seen, &mut entries, &live.dropped);
    let mut core = core_of(records, &live.limits, live.epoch, others)?.core;
    core.set_limits(AllLimits {
        services: live.service_limits.clone(),
        ..AllLimits::from(live.limits.clone())
    });
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
    let mut sessions = rehearse_sessions(&mut core, slots, live, &offers, &mut progress, &mut r);
    let mut bad = rehearse_entries(&mut core, tables, &entries, live, &mut progress, &mut r);
    let joined = |told: [Option<String>; 2]| {
        let told: Vec<_> = told.into_iter().flatten().collect();
        (!told.is_empty()).then(|| told.join("; "))
    };
    // Last, because the build that serves takes the candidate's place in the copy. If it can't be
    // loaded, all failures count as the candidate's.
    if !(sessions.items.is_empty() && bad.items.is_empty())
        && let Ok(serving) = live_build()
    {
        core.go_on_with(&build, serving);
        let old_sessions = sessions.take_old(|slot| is_unread_session(&mut core, live, *slot));
        let old =
            bad.take_old(|(table, version, value)| is_unread_entry(&mut core, live, table, *version, value));
        r.unread_before =
            joined([old_sessions.tell_old(r.sessions, "sessions"), old.tell_old(r.entries, "table entries")]);
    }
    r.failed = joined([sessions.tell(r.sessions, "sessions"), bad.tell(r.entries, "table entries")]);
    r.ms = begun.elapsed().as_millis() as u64;
    Ok(r)
}

/// Whether the build that serves can't read the state of a session. A state of a newer version is
/// not counted: the worker has the builds that downgrade it, and they are not here.
fn is_unread_session(core: &mut Core, live: &LiveState, slot: Slot) -> bool {
    let Some(s) = core.sessions().get(slot) else { return false };
    let (service, version) = (s.service, s.state_version);
    let name = &core.services()[usize::from(service.0)].offer.name;
    let known = live.offers.iter().find(|o| o.name == *name).map(|o| o.shape.version);
    known.is_some_and(|known| version <= known) && core.rehearse(slot).is_err()
}

/// Whether the build that serves owns a table and can't read this value. A value of a newer version
/// is not counted, as above.
fn is_unread_entry(core: &mut Core, live: &LiveState, table: &str, version: u32, value: &[u8]) -> bool {
    let known = live.shape_of(table).map(|shape| shape.version);
    known.is_some_and(|known| version <= known)
        && core.operator().rehearse_entry(table, version, value).is_err()
}

/// Value that can't be read: table, version and bytes.
type BadEntry<'a> = (&'a str, u32, &'a [u8]);

/// Has the candidate read and write the state of each session of its services. Returns the
/// failures.
fn rehearse_sessions(
    core: &mut Core,
    slots: Vec<(Slot, u64, ServiceId)>,
    live: &LiveState,
    offers: &[Offer],
    progress: &mut Progress<impl FnMut(u64, u64)>,
    r: &mut Rehearsal,
) -> Failures<Slot> {
    let mut states = BTreeMap::new();
    for offer in offers {
        // A service that is new to the host has no sessions to read.
        let old = live.offers.iter().find(|o| o.name == offer.name);
        if let (Some(old), Some(service)) = (old, core.service_named(&offer.name)) {
            let subject = Subject::new(service, (0, None), &old.shape, &offer.shape);
            states.insert(service, (offer, subject, DialogueReport::new(&offer.name)));
        }
    }
    let mut bad = Failures::default();
    for (slot, id, service) in slots {
        progress.step(1);
        // A session of a service that the candidate does not offer.
        let Some((_, subject, dialogues)) = states.get_mut(&service) else { continue };
        r.sessions += 1;
        match core.rehearse(slot) {
            Ok(reread) => {
                subject.read += 1;
                if let Some((version, before)) = &reread.before {
                    subject.saw(core, *version, before, reread.after.as_deref());
                }
                retrace(core, slot, &reread, dialogues);
            }
            Err(why) => bad.add(slot, || format!("session {id}: {why}")),
        }
    }
    for (_, (offer, subject, dialogues)) in states {
        r.dialogues.extend(dialogues.ended());
        r.migrated += subject.migrated;
        // A service without state has nothing to report.
        if subject.old.schema.is_some() || subject.new.schema.is_some() {
            r.shapes.push(subject.report(&offer.name));
        }
    }
    bad
}

/// Has the candidate read and write the picked entries of each of its tables. Returns the
/// failures.
fn rehearse_entries<'e>(
    core: &mut Core,
    tables: Vec<(&'e Offer, &'e TableShape)>,
    entries: &'e BTreeMap<&str, Entries>,
    live: &LiveState,
    progress: &mut Progress<impl FnMut(u64, u64)>,
    r: &mut Rehearsal,
) -> Failures<BadEntry<'e>> {
    let mut bad = Failures::default();
    for (offer, table) in tables {
        let owner = core.owners().get(table.name.as_str()).copied();
        let Some(owner) = owner else { continue };
        // A table that nobody owned counts as of the first version, and of the same shape.
        let old = live.shape_of(&table.name).unwrap_or(&table.shape);
        let mut subject = Subject::new(owner.service, (owner.which, Some(&table.name)), old, &table.shape);
        let entries = &entries[table.name.as_str()];
        for (version, key, value) in entries.iter() {
            progress.step(ENTRIES_A_LOOK);
            match core.operator().rehearse_entry(&table.name, version, value) {
                Ok(after) => {
                    subject.read += 1;
                    subject.saw(core, version, value, Some(&after));
                }
                Err(why) => bad.add((table.name.as_str(), version, value), || {
                    format!("entry {} of table {}: {why}", json::bytes_to_json(key), table.name)
                }),
            }
        }
        r.entries += entries.len() as u64;
        r.entries_left_out += entries.left_out;
        subject.left_out = entries.left_out;
        r.entries_migrated += subject.migrated;
        r.shapes.push(subject.report(&offer.name));
    }
    bad
}
