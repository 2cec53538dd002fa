//! Tests of restores without a socket: versions, converters, limits, slices.
//!
//! The code under a service here keeps bytes whose first one is a version. So a test sees which
//! build wrote a state last, and in which version.

use super::*;
use crate::core::Core;
use crate::execute::batch::quarantine;
use crate::input::Input;
use crate::ledger::RestoredTable;
use crate::limits::host::Limits;
use crate::limits::per_service::{AllLimits, ServiceLimits};
use crate::operate::check::Builds;
use crate::operate::check::{Checked, GivenEntry, GivenState};
use crate::operate::plan::PlannedEntry;
use crate::operate::plan::PlannedState;
use crate::service::offer::{Offer, Serving};
use crate::service::registry::Writer;
use crate::store::kind::Kind;
use crate::test_support::{build, failure, offer, open};
use crate::turn::code::{Batch, Code};
use crate::turn::fault::Fault;
use crate::turn::staging::Staging;
use greenroom_state::abi::fault;
use greenroom_state::compatibility::{StateShape, TableShape};
use greenroom_state::schema::Schema;
use std::collections::BTreeMap;

/// Code that keeps bytes: its version, then what it was given. It reads its own version and
/// those below, and nothing that begins with `!`.
struct Keeps(u32);

impl Code for Keeps {
    fn run(&self, batch: &Batch<'_>, staging: &mut Staging<'_>) -> u32 {
        let Some((_, state)) = batch.state else { return 0 };
        if state[0] == b'!' {
            staging.turn_failed(Fault { kind: fault::STATE, ..failure("it begins with !".into()) });
            return 0;
        }
        staging.state(&[&[b'0' + self.0 as u8][..], &state[1..]].concat());
        0
    }

    fn convert(&self, _: u32, _: u32, to: u32, value: &[u8]) -> Result<Vec<u8>, String> {
        match value[0] {
            b'!' => Err("it begins with !".into()),
            _ => Ok([&[b'0' + to as u8][..], &value[1..]].concat()),
        }
    }
}

/// Service `s` with table `owned`, both of this version, with all migrations and downgrades.
fn serving(version: u32) -> Serving {
    let shape = StateShape {
        version,
        schema: Some(Schema::parse("{}").unwrap()),
        migrations: (1..version).collect(),
        downgrades: (2..=version).collect(),
    };
    let tables = vec![TableShape {
        name: "owned".into(),
        shape: shape.clone(),
        hears_of_expiry: false,
        reads_keys: false,
    }];
    let offer = Offer { shape, tables, ..offer() };
    vec![(offer, Box::new(Keeps(version)))]
}

/// Core with so many sessions of a service that keeps version 1, committed once.
fn core(sessions: u64, limits: Limits) -> Core {
    let mut core = Core::new(limits);
    core.adopt(&build(1), serving(1));
    let service = core.service_named("s").unwrap();
    open(&mut core, service, 0..sessions as u32);
    core.handle(Input::Commit);
    core
}

/// State of service `s` as an operator gives it.
fn given(session: u64, version: u32, state: &str) -> GivenState {
    GivenState { session, service: "s".into(), state: Some((version, state.into())) }
}

/// Plan of states that must all fit, for the sessions 1, 2, 3 and so on.
fn plan(core: &mut Core, all: &[GivenState]) -> Plan {
    let mut plan = Plan::default();
    for given in all {
        match core.operator().check_state(given, &mut plan.builds) {
            Checked::Fits { kept, .. } => {
                let given = given.state.clone().filter(|g| kept.as_ref().is_some_and(|k| k != g));
                plan.states.push(PlannedState { session: plan.states.len() as u64 + 1, kept, given });
            }
            other => panic!("{other:?}"),
        }
    }
    plan
}

/// Plan of a table, whose entries are of its owner's version.
fn table(core: &Core, name: &str, entries: &[(&str, &str)]) -> PlannedTable {
    let version = core.owners().get(name).map_or(0, |o| o.version);
    let planned = |v: &str| PlannedEntry { kept: (version, v.into()), given: None, until: None };
    let entries = entries.iter().map(|(k, v)| (k.as_bytes().to_vec(), planned(v))).collect();
    PlannedTable { name: name.into(), owner: core.owners().get(name).copied(), entries, deletes: None }
}

/// Version and bytes of the state that a session stores; `None`: it stores none.
fn stored(core: &Core, id: u64) -> Option<(u32, String)> {
    let s = core.host.sessions.get(Slot(id as u32 - 1))?;
    Some((s.state_version, core.host.store.read(s.state?, |b| String::from_utf8_lossy(b).into_owned())))
}

/// The form that the code writes is stored, not the given one. Every kind of refusal has its
/// own words.
#[test]
fn what_is_stored_is_what_the_code_writes() {
    let mut core = core(4, Limits::default());
    let all = [given(1, 1, "1a"), given(2, 1, "xb"), given(3, 1, "1c")];
    let planned = plan(&mut core, &all);
    let (done, _) = core.operator().restore(&planned, &Survey::default()).unwrap();
    assert_eq!((done.changed, done.unchanged), (3, 0));
    assert_eq!(stored(&core, 2), Some((1, "1b".into())), "written by the code");
    assert_eq!(core.services()[0].stored, BTreeMap::from([(1, 3)]));
    core.handle(Input::Commit);
    let none = GivenState { state: None, ..given(1, 0, "") };
    let planned = plan(&mut core, &[none, given(2, 1, "1b"), given(3, 1, "1z")]);
    let (done, _) = core.operator().restore(&planned, &Survey::default()).unwrap();
    assert_eq!((done.changed, done.unchanged), (2, 1));
    assert_eq!((stored(&core, 1), stored(&core, 4)), (None, None));
    assert_eq!((core.store().count(Kind::State), &core.services()[0].stored), (2, &BTreeMap::from([(1, 2)])));

    // No owner and no MessagePack: nothing can replace such a value.
    core.host.tables.put(&mut core.host.store, "raw", b"k", 0, b"text").unwrap();
    let entry =
        |key: &str| GivenEntry { key: key.into(), value: b"\xa1x".into(), version: None, until: None };
    let raw = core.operator().check_entry("raw", &entry("k"), &mut Builds::new());
    assert!(matches!(raw, Checked::Refused(why) if why.contains("no MessagePack")));
    assert!(matches!(
        core.operator().check_entry("raw", &entry("l"), &mut Builds::new()),
        Checked::Fits { .. }
    ));

    let mut builds = Builds::new();
    let mut says = |core: &mut Core, given: &GivenState| core.operator().check_state(given, &mut builds);
    assert_eq!(says(&mut core, &given(9, 1, "1a")), Checked::Gone);
    assert_eq!(says(&mut core, &given(1, 1, "!a")), Checked::Unreadable("it begins with !".into()));
    let other = GivenState { service: "t".into(), ..given(1, 1, "1a") };
    assert_eq!(says(&mut core, &other), Checked::Refused("it is of service s now".into()));
    for (version, why) in [(0, "state_version 0 says"), (2, "no build at hand makes it into version 1")] {
        let Checked::Refused(said) = says(&mut core, &given(1, version, "1a")) else { panic!("refused") };
        assert!(said.contains(why), "{said}");
    }
    let long = given(1, 1, &"1".repeat(core.limits().state_bytes_max + 1));
    assert!(matches!(says(&mut core, &long), Checked::Refused(why) if why.contains("state_bytes_max")));
}

/// A restored state alone does not end a quarantine: the operator releases the session once the
/// state is right.
#[test]
fn a_quarantined_session_waits_with_what_was_put_back() {
    let mut core = core(2, Limits::default());
    for id in [1, 2] {
        let slot = Slot(id - 1);
        let written = core.services()[0].written(Writer::Serving);
        write_state(&mut core.host, slot, b"!a", written);
        core.host.sessions.touch(slot);
        quarantine(&mut core.host, slot, "it can't be read".into());
    }
    core.handle(Input::Commit);
    // A state that was unreadable before does not stop the restore of a whole dump.
    assert_eq!(core.operator().check_state(&given(1, 1, "!a"), &mut Builds::new()), Checked::Stays);
    assert!(matches!(
        core.operator().check_state(&given(1, 1, "!b"), &mut Builds::new()),
        Checked::Unreadable(_)
    ));
    let planned = plan(&mut core, &[given(1, 1, "1a")]);
    let (done, _) = core.operator().restore(&planned, &Survey::default()).unwrap();
    assert_eq!((done.changed, done.quarantined, done.quarantined_ids), (1, 1, vec![1]));
    assert_eq!(core.quarantined("l"), 2);
    assert_eq!(core.release(1), Ok(()));
    core.handle(Input::Commit);
    assert_eq!((core.quarantined("l"), stored(&core, 1)), (1, Some((1, "1a".into()))));
}

/// A plan is bound to the build that checked it. Older versions are migrated, newer ones need
/// the build that was rolled back.
#[test]
fn versions_follow_the_build_that_serves() {
    let mut core = core(2, Limits::default());
    let first = plan(&mut core, &[given(1, 1, "1a")]);
    core.operator().restore(&first, &Survey::default()).unwrap();
    core.handle(Input::Commit);
    // The plan `first` was checked by build 1, so from here on it must be refused.
    core.adopt(&build(2), serving(2));
    assert_eq!(core.operator().restore(&first, &Survey::default()).unwrap_err(), MEANWHILE);
    // A state that is stored as it was given stays, in the version that it has.
    let again = plan(&mut core, &[given(1, 1, "1a"), given(2, 1, "1b")]);
    let (done, _) = core.operator().restore(&again, &Survey::default()).unwrap();
    assert_eq!((done.changed, done.unchanged), (1, 1));
    assert_eq!((stored(&core, 1), stored(&core, 2)), (Some((1, "1a".into())), Some((2, "2b".into()))));
    let entry =
        |version, value: &str| GivenEntry { key: b"k".into(), value: value.into(), version, until: None };
    let mut builds = Builds::new();
    let fits = |kept: &str, served| Checked::Fits { kept: Some((2, kept.into())), served };
    assert_eq!(core.operator().check_entry("owned", &entry(Some(1), "1v"), &mut builds), fits("2v", false));
    assert_eq!(core.operator().check_entry("owned", &entry(None, "2v"), &mut builds), fits("2v", true));
    let unreadable = Checked::Unreadable("it begins with !".into());
    assert_eq!(core.operator().check_entry("owned", &entry(None, "!v"), &mut builds), unreadable);
    assert_eq!(builds, again.builds);
    core.handle(Input::Commit);
    // A build that was rolled back converts what is restored, too, as long as data that it left is
    // there.
    core.go_back_to(&build(1), serving(1));
    let planned = plan(&mut core, &[given(1, 2, "2z")]);
    core.operator().restore(&planned, &Survey::default()).unwrap();
    assert_eq!(stored(&core, 1), Some((1, "1z".into())));
    let kept = Checked::Fits { kept: Some((1, b"1v".into())), served: false };
    assert_eq!(core.operator().check_entry("owned", &entry(Some(2), "2v"), &mut Builds::new()), kept);
    // The sweep has converted everything by then, so the converter retires.
    for now in 1..9 {
        core.handle(Input::PassBegins { now_ns: now });
        core.handle(Input::Commit);
    }
    let refused = core.operator().check_state(&given(1, 2, "2z"), &mut Builds::new());
    assert!(matches!(refused, Checked::Refused(why) if why.contains("no build at hand")));
    assert_eq!(core.services()[0].stored, BTreeMap::from([(1, 2)]));
}

/// A survey finds what the restore does, however it is cut into slices.
#[test]
fn a_survey_in_slices_finds_the_same() {
    for items in [1, 2, 3, 7, 64] {
        let mut core = core(20, Limits::default());
        for key in 0..30 {
            let key = format!("{:02}", key * 2);
            core.host.tables.put(&mut core.host.store, "free", key.as_bytes(), 0, b"1v").unwrap();
        }
        core.handle(Input::Commit);
        let all: Vec<_> = (1..=20).map(|id| given(id, 1, if id % 2 == 0 { "1a" } else { "1b" })).collect();
        let mut plan = plan(&mut core, &all);
        let keys: Vec<_> = (0..30).map(|key| format!("{:02}", key * 3)).collect();
        let entries: Vec<_> = keys.iter().map(|k| (k.as_str(), "1v")).collect();
        plan.tables = vec![
            table(&core, "owned", &entries[..5]),
            table(&core, "free", &entries),
            table(&core, "none", &[]),
        ];
        plan.gone = vec![99];
        let mut survey = Survey::default();
        let mut slices = 1;
        while !core.operator().survey(&plan, &mut survey, items) {
            slices += 1;
        }
        assert!(slices >= 80 / items, "{slices} slices of {items}");
        core.operator().has_room(&plan, &survey).unwrap();
        let (done, _) = core.operator().restore(&plan, &survey).unwrap();
        assert_eq!(survey.found(&plan), done);
        // Plan and table share the multiples of 6 below 60, which are 10 of 30 keys.
        assert_eq!(done.tables["free"], RestoredTable { put: 20, deleted: 20, unchanged: 10, over: 0 });
        assert_eq!((done.changed, done.missing, &done.missing_ids[..]), (20, 1, &[99][..]));
        assert_eq!(
            (core.tables().count("free"), core.tables().count("owned"), core.tables().len()),
            (30, 5, 2)
        );
        // The survey is outdated by now, and no table is as it was.
        let (again, _) = core.operator().restore(&plan, &survey).unwrap();
        assert_eq!((again.changed, again.unchanged, again.tables["free"].unchanged), (0, 20, 30));
    }
}

/// Findings of an earlier survey count for tables that were not written since, and for those
/// alone that it has done.
#[test]
fn a_table_that_was_not_written_since_a_survey_is_not_looked_at_again() {
    let mut core = core(0, Limits::default());
    let put = |core: &mut Core, table: &str, key: &str| {
        core.host.tables.put(&mut core.host.store, table, key.as_bytes(), 0, b"1v").unwrap();
    };
    for name in ["a", "b", "c"] {
        put(&mut core, name, "1");
    }
    core.handle(Input::Commit);
    let tables = ["a", "b", "c"].map(|name| table(&core, name, &[("1", "1v")]));
    let plan = Plan { tables: tables.into(), ..Plan::default() };
    let mut survey = Survey::default();
    assert!(!core.operator().survey(&plan, &mut survey, 5));
    for found in &mut survey.tables {
        found.unchanged = 77;
    }
    // Another one of the same name, as large as the one before.
    core.host.tables.delete(&mut core.host.store, "a", b"1");
    put(&mut core, "a", "2");
    core.handle(Input::Commit);

    let (done, _) = core.operator().restore(&plan, &survey).unwrap();

    let counts = |name: &str| (done.tables[name].put, done.tables[name].deleted, done.tables[name].unchanged);
    assert_eq!((counts("a"), counts("b"), counts("c")), ((1, 1, 0), (0, 0, 77), (0, 0, 1)));
}

/// Entries whose deadlines have passed are left out, and an end that came meanwhile is no reason
/// not to undo a restore.
#[test]
fn an_entry_that_is_over_is_left_out_and_stops_no_undoing() {
    let mut core = core(0, Limits::default());
    core.handle(Input::WallClock { unix_ns: 100_000_000 });
    for key in ["a", "b"] {
        core.host.tables.put(&mut core.host.store, "free", key.as_bytes(), 0, b"1v").unwrap();
    }
    core.handle(Input::Commit);
    let mut planned = table(&core, "free", &[("a", "1v"), ("b", "2v"), ("c", "2v")]);
    for (key, until) in [("a", 100), ("b", 101), ("c", 99)] {
        planned.entries.get_mut(key.as_bytes()).unwrap().until = Some(until);
    }
    let plan = Plan { tables: vec![planned], ..Plan::default() };
    let (done, replaced) = core.operator().restore(&plan, &Survey::default()).unwrap();
    core.handle(Input::Commit);
    assert_eq!(done.tables["free"], RestoredTable { put: 1, deleted: 1, unchanged: 0, over: 2 });
    assert_eq!(core.tables().count("free"), 1);
    let (again, _) = core.operator().restore(&plan, &Survey::default()).unwrap();
    assert_eq!(again.tables["free"], RestoredTable { put: 0, deleted: 0, unchanged: 1, over: 2 });

    core.handle(Input::WallClock { unix_ns: 101_000_000 });
    let undoing = Plan { only_if: replaced.expected(), ..Plan::default() };
    core.operator().restore(&undoing, &Survey::default()).unwrap();
    core.host.tables.put(&mut core.host.store, "free", b"b", 0, b"3v").unwrap();
    core.handle(Input::Commit);
    let said = core.operator().restore(&undoing, &Survey::default()).unwrap_err();
    assert!(said.contains("table free, key \"b\": it was written since"), "{said}");
}

/// Each limit is held against the sum of the plan, not against single items. A refused restore
/// leaves the store with the same number of bytes.
#[test]
fn limits_hold_for_all_of_it() {
    let limits = Limits { tables_max: 2, table_bytes_max: 10, store_bytes_max: 1 << 20, ..Limits::default() };
    let mut core = core(2, limits);
    let mut says = |plan: &Plan| {
        let before = core.host.store.bytes();
        let said = core.operator().restore(plan, &Survey::default()).map(|_| ());
        assert!(said.is_ok() || core.host.store.bytes() == before, "what is refused changes nothing");
        said.err().unwrap_or_default()
    };
    let tables = |all: &[(&str, &[(&str, &str)])]| Plan {
        tables: all
            .iter()
            .map(|(name, entries)| {
                let planned = |v: &str| PlannedEntry { kept: (0, v.into()), given: None, until: None };
                let entries = entries.iter().map(|(k, v)| (k.as_bytes().to_vec(), planned(v))).collect();
                PlannedTable { name: (*name).into(), owner: None, entries, deletes: None }
            })
            .collect(),
        ..Plan::default()
    };
    assert_eq!(says(&tables(&[("a", &[("k", "12345")]), ("b", &[("k", "v")])])), "");
    assert!(says(&tables(&[("c", &[("k", "v")])])).contains("3 tables (limit tables_max: 2)"));
    // One table goes and another comes, so their number stays within the limit.
    assert_eq!(says(&tables(&[("b", &[]), ("c", &[("k", "v")])])), "");
    assert_eq!(says(&tables(&[("a", &[("k", "12345"), ("l", "123")])])), "");
    assert!(
        says(&tables(&[("a", &[("k", "12345"), ("l", "1234")])]))
            .contains("11 bytes (limit table_bytes_max: 10)")
    );
    let big = |session| PlannedState { session, kept: Some((1, vec![b'1'; 700_000])), given: None };
    let plan = Plan { states: vec![big(1), big(2)], ..Plan::default() };
    assert!(says(&plan).contains("limit store_bytes_max"));
    // A service's own limit holds for its states.
    let own = ServiceLimits { state_bytes_max: Some(3), ..ServiceLimits::default() };
    let host = core.limits().clone();
    core.set_limits(AllLimits { services: BTreeMap::from([("s".to_owned(), own)]), ..AllLimits::from(host) });
    let mut check = |state: &str| core.operator().check_state(&given(1, 1, state), &mut Builds::new());
    assert!(matches!(check("1ab"), Checked::Fits { .. }));
    assert_eq!(check("1abc"), Checked::Refused("it would have 4 bytes (limit state_bytes_max: 3)".into()));
}
