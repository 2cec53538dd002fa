//! The rehearsal: in the trial's child, a candidate reads a copy of every live session's state and of its tables' entries (those that
//! `entries.rs` picks), migrates what is of another version, and writes it again. What it changes is compared field by field, and taken
//! back to see whether there is a way back.

use super::entries::{Entries, is_another};
use crate::memory::snapshot::core_of;
use greenroom_core::core::Core;
use greenroom_core::ids::ServiceId;
use greenroom_core::limits::host::Limits;
use greenroom_core::limits::per_service::{AllLimits, ServiceLimits};
use greenroom_core::service::offer::{Build, Offer, Serving};
use greenroom_core::store::snapshot::Seen;
use greenroom_state::compatibility::StateShape;
use greenroom_state::json;
use greenroom_state::rehearsal_report::{Observer, Rehearsal, ShapeReport};
use greenroom_state::schema::Schema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// What a candidate is rehearsed with.
#[derive(Serialize, Deserialize)]
pub struct Live {
    /// The pinned epoch.
    pub epoch: u64,
    /// The host's limits.
    pub limits: Limits,
    /// What single services have otherwise.
    #[serde(default)]
    pub service_limits: BTreeMap<String, ServiceLimits>,
    /// What the build offers that serves.
    pub offers: Vec<Offer>,
    /// Private copy and entry of that build, if the candidate is older: it takes back what it left.
    pub newer: Option<(PathBuf, String)>,
    /// Sessions of its services.
    pub sessions: u64,
    /// How many entries the tables that may be rehearsed have, by version.
    pub entries: BTreeMap<String, BTreeMap<u32, u64>>,
}

impl Live {
    /// Sessions and entries, at most.
    pub fn items(&self) -> u64 {
        self.sessions + self.entries.values().flat_map(BTreeMap::values).sum::<u64>()
    }

    /// What the build that serves says of a table.
    fn shape_of(&self, table: &str) -> Option<&StateShape> {
        self.offers.iter().flat_map(|o| &o.tables).find(|t| t.name == table).map(|t| &t.shape)
    }

    /// What a candidate that says this of a table reads of it.
    fn entries_of(&self, table: &str, new: &StateShape) -> Entries {
        let schema = |shape: &StateShape| shape.schema.as_ref().map(Schema::fingerprint);
        let same = |old: &StateShape| {
            old.version == new.version && schema(new).is_some() && schema(old) == schema(new)
        };
        let count = self.entries.get(table).and_then(|n| n.get(&new.version)).copied().unwrap_or(0);
        match self.limits.rehearsal_entries_max as u64 {
            at_most @ 1.. if count > at_most && self.shape_of(table).is_some_and(same) => {
                Entries::with_at_most(at_most, new.version, count)
            }
            _ => Entries::default(),
        }
    }
}

/// How many sessions and entries that can't be read are named.
const NAMED_MAX: usize = 3;
/// How often it is said how far it is.
const TOLD_EVERY: Duration = Duration::from_millis(100);
/// After how many entries the clock is looked at, which takes as long as a short one of them; among the first ones, more often.
const ENTRIES_A_LOOK: u64 = 64;

/// Failures of one kind.
#[derive(Default)]
struct Failures {
    count: u64,
    named: Vec<String>,
}

impl Failures {
    fn add(&mut self, what: impl FnOnce() -> String) {
        self.count += 1;
        if self.named.len() < NAMED_MAX {
            self.named.push(what());
        }
    }

    fn tell(&self, of: u64, what: &str) -> Option<String> {
        let named = self.named.join("; ");
        (self.count > 0).then(|| format!("the rehearsal failed for {} of {of} {what}: {named}", self.count))
    }
}

/// Data of one service, or of one of its tables.
struct Subject<'a> {
    service: ServiceId,
    which: u32,
    old: &'a StateShape,
    new: &'a StateShape,
    observer: Observer,
    read: u64,
    migrated: u64,
    left_out: u64,
}

impl<'a> Subject<'a> {
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

    /// Takes note of what was stored in a version, and of what would be stored in its place.
    fn saw(&mut self, core: &Core, version: u32, before: &[u8], after: Option<&[u8]>) {
        self.migrated += u64::from(version != self.new.version);
        let goes_back = self.new.version > self.old.version
            && version == self.old.version
            && self.new.converts(self.new.version, self.old.version).is_ok();
        let (from, to) = (self.new.version, self.old.version);
        let back = after.filter(|_| goes_back).map(|a| core.convert(self.service, self.which, from, to, a));
        // As a rule it comes back byte by byte, and there is nothing to compare.
        let back = back.filter(|back| back.as_deref() != Ok(before));
        if back.is_none() && !self.observer.wants_data() {
            return;
        }
        let Ok(before) = json::to_json(before) else { return };
        self.observer.saw(&before);
        if let Some(back) = back {
            let back = back.and_then(|bytes| json::to_json(&bytes));
            self.observer.came_back(&before, &back.unwrap_or_default());
        }
    }

    fn report(self, service: &str, table: Option<&str>) -> ShapeReport {
        let (from, to) = (self.old.version, self.new.version);
        // Whoever knows both versions: the newer of the two.
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

/// Rehearses. `newer` is the loaded code of [`Live::newer`]. `tell` is told how far it is, and of how much.
pub fn rehearse(
    library: &str,
    serving: Serving,
    newer: Option<Serving>,
    live: &Live,
    records: &OwnedFd,
    mut tell: impl FnMut(u64, u64),
) -> Result<Rehearsal, String> {
    let begun = Instant::now();
    let offers: Vec<Offer> = serving.iter().map(|(offer, _)| offer.clone()).collect();
    let tables: Vec<_> = offers.iter().flat_map(|o| o.tables.iter().map(move |t| (o, t))).collect();
    let mut entries: BTreeMap<_, _> =
        tables.iter().map(|(_, t)| (t.name.as_str(), live.entries_of(&t.name, &t.shape))).collect();
    let others = |seen: &Seen<'_>| is_another(seen, &mut entries);
    let mut core = core_of(records, &live.limits, live.epoch, others)?.core;
    core.set_limits(AllLimits { host: live.limits.clone(), services: live.service_limits.clone() });
    let build = Build { library: library.to_owned(), generation: 0, hash: String::new() };
    core.go_on_with(&build, serving);
    if let Some(newer) = newer {
        core.stand_by_to_convert(&build, newer);
    }
    let mut r = Rehearsal::default();
    let mut states = BTreeMap::new();
    for offer in &offers {
        let old = live.offers.iter().find(|o| o.name == offer.name);
        if let (Some(old), Some(service)) = (old, core.service_named(&offer.name)) {
            states.insert(service, (offer, Subject::new(service, 0, &old.shape, &offer.shape)));
        }
    }
    let slots: Vec<_> = core.sessions().after(0).map(|(slot, s)| (slot, s.id, s.service)).collect();
    let total = (slots.len() + entries.values().map(Entries::len).sum::<usize>()) as u64;
    let (mut done, mut told) = (0, begun);
    let mut step = |a_look: u64| {
        done += 1;
        if (done % a_look == 0 || done.is_power_of_two()) && told.elapsed() >= TOLD_EVERY {
            told = Instant::now();
            tell(done, total);
        }
    };
    let (mut bad_sessions, mut bad_entries) = (Failures::default(), Failures::default());
    for (slot, id, service) in slots {
        step(1);
        let Some((_, subject)) = states.get_mut(&service) else { continue };
        r.sessions += 1;
        match core.rehearse(slot) {
            Ok(reread) => {
                subject.read += 1;
                if let Some((version, before)) = &reread.before {
                    subject.saw(&core, *version, before, reread.after.as_deref());
                }
            }
            Err(why) => bad_sessions.add(|| format!("session {id}: {why}")),
        }
    }
    for (_, (offer, subject)) in states {
        r.migrated += subject.migrated;
        // Neither of them keeps any.
        if subject.old.schema.is_some() || subject.new.schema.is_some() {
            r.shapes.push(subject.report(&offer.name, None));
        }
    }
    for (offer, table) in tables {
        let owner = core.owners().get(table.name.as_str()).copied();
        let Some(owner) = owner else { continue };
        // What nobody owned counts as of the first version, and of the same shape.
        let old = live.shape_of(&table.name).unwrap_or(&table.shape);
        let mut subject = Subject::new(owner.service, owner.which, old, &table.shape);
        let entries = &entries[table.name.as_str()];
        for (version, key, value) in entries.iter() {
            step(ENTRIES_A_LOOK);
            match core.rehearse_entry(&table.name, version, value) {
                Ok(after) => {
                    subject.read += 1;
                    subject.saw(&core, version, value, Some(&after));
                }
                Err(why) => bad_entries.add(|| {
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
    let failed = [bad_sessions.tell(r.sessions, "sessions"), bad_entries.tell(r.entries, "table entries")];
    let failed: Vec<_> = failed.into_iter().flatten().collect();
    r.failed = (!failed.is_empty()).then(|| failed.join("; "));
    r.ms = begun.elapsed().as_millis() as u64;
    Ok(r)
}
