//! Reports of rehearsals, before anything changes: `reload --dry-run`, and every refusal.

use greenroom_tests::client::Client;
use greenroom_tests::fixture::{Fixture, versions_source};
use greenroom_tests::host::Host;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};

/// A service whose state is `fields`, and whose callback gives `set` a line.
fn source(version: u32, fields: &str, set: &str, migrations: &str, more: &str) -> String {
    format!(
        r#"
#![forbid(unsafe_code)]
#![allow(dead_code, unused_imports)]
use greenroom_handler::{{Action, Fault, Handler, Migrations, NoConfig, Table, Tables, Turn, export}};
use schemars::JsonSchema;
use serde::{{Deserialize, Serialize}};
export!(Told);
#[derive(Default, Clone, Serialize, Deserialize, JsonSchema)]
struct State {{ {fields} }}
{more}
fn seven() -> u64 {{ 7 }}
struct Told;
impl Handler for Told {{
    const SERVICE: &'static str = "told";
    const PORT: u16 = 0;
    const STATE_VERSION: u32 = {version};
    type State = State;
    type Config = NoConfig;
    fn new(_: NoConfig) -> Result<Self, String> {{ Ok(Told) }}
    fn migrations() -> Migrations {{ {migrations} }}
    fn handle(&self, turn: &mut Turn<'_, State>, action: Action<'_>) -> Result<(), Fault> {{
        if let Action::Message(line) = action {{
            let line = String::from_utf8_lossy(line).into_owned();
            {set}
            turn.send_line(line);
        }}
        Ok(())
    }}
}}
"#
    )
}

const OLD: &str = "n: u32, text: String, gone: Option<String>, called: u64";
const SET: &str = "turn.state.n += 1; if line.starts_with('g') { turn.state.gone = Some(line.clone()) }";

fn dry_run(host: &Host, service: &str, path: &Path) -> (Option<i32>, Value) {
    let out = host.cli(&["reload", service, "--dry-run", "--json", "--from", path.to_str().expect("UTF-8")]);
    (out.status.code(), serde_json::from_slice(&out.stdout).unwrap_or_else(|e| panic!("{e}: {out:?}")))
}

/// Fields of a report: name, kind of change, and number of sessions that hold it.
fn fields(report: &Value) -> Vec<(String, String, Value)> {
    let all = report["rehearsal"]["shapes"][0]["fields"].as_array().expect("fields").iter();
    let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
    all.map(|f| (text(&f["field"]), text(&f["change"]), f["held_by"].clone())).collect()
}

/// A host with five sessions of the first build, which are to stay as they are.
struct Told {
    host: Host,
    before: Value,
    _clients: Vec<Client>,
}

/// Builds of the service, one at a time: all have one file in cargo's directory.
static BUILDING: Mutex<Option<Fixture>> = Mutex::new(None);

/// Builds a source, and keeps the library aside.
fn build(source: &str) -> PathBuf {
    static BUILT: AtomicUsize = AtomicUsize::new(0);
    let mut fixture = BUILDING.lock().unwrap_or_else(PoisonError::into_inner);
    let fixture = fixture.get_or_insert_with(|| Fixture::new("told", ""));
    fixture.write(source);
    fixture.build_as(&format!("{}.so", BUILT.fetch_add(1, Ordering::Relaxed)))
}

impl Told {
    fn new() -> Told {
        static FIRST: OnceLock<PathBuf> = OnceLock::new();
        let set = format!("{SET} turn.state.called = 9;");
        let first = FIRST.get_or_init(|| build(&source(1, OLD, &set, "Migrations::none()", "")));
        let host = Host::serve(&["told"], &[first]);
        let mut clients: Vec<_> = (0..5).map(|_| Client::connect(host.addr("told"))).collect();
        for (n, c) in clients.iter_mut().enumerate() {
            let line = if n < 3 { "gone" } else { "stays" };
            assert_eq!(c.ask(line), line);
        }
        let before = states(&host);
        Told { host, before, _clients: clients }
    }

    /// Dry run of a candidate: exit code, report, and the report on the state.
    fn dry_run(&self, candidate: &str) -> (Option<i32>, Value, Value) {
        let (code, report) = dry_run(&self.host, "told", &build(candidate));
        let shape = report["rehearsal"]["shapes"][0].clone();
        (code, report, shape)
    }

    /// Nothing of all this has changed anything, and no dry run is in the ledger.
    #[track_caller]
    fn is_unchanged(&self) {
        assert_eq!((self.host.generation("told"), &states(&self.host)), (1, &self.before));
        let history = self.host.json(&["history", "--json"]);
        assert_eq!(history.as_array().map(Vec::len), Some(1), "a dry run is no reload");
    }
}

fn states(host: &Host) -> Value {
    host.json(&["state", "dump", "--service", "told"])["sessions"].clone()
}

/// A line of a report on a state: field, kind of change, and number of sessions that hold it.
fn change(field: &str, change: &str, held: Value) -> (String, String, Value) {
    (field.to_owned(), change.to_owned(), held)
}

/// The old state, for migrations.
const ONE: &str = "#[derive(Serialize, Deserialize)] struct One { n: u32, text: String, gone: Option<String>, called: u64 }";

/// Many changes at once. The way back leads through a downgrade that can't know what was removed.
#[test]
fn a_dry_run_tells_every_change_by_field_and_changes_nothing() {
    let told = Told::new();
    let fields_now = "n: u64, text: Vec<String>, #[serde(default = \"seven\")] since: u64";
    let migrations = "Migrations::none().from(1, |o: One| Ok(State { n: o.n.into(), text: vec![o.text], since: 7 })).back(2, |s: State| Ok(One { n: s.n as u32, text: s.text.concat(), gone: None, called: 0 }))";

    let (code, report, shape) = told.dry_run(&source(2, fields_now, "turn.state.n += 1;", migrations, ONE));

    assert_eq!(
        (code, &report["outcome"], &report["generation"]),
        (Some(0), &json!("rehearsed"), &json!(1)),
        "{report}"
    );
    assert_eq!(
        fields(&report),
        [
            change("called", "removed", json!(5)),
            change("gone", "removed", json!(3)),
            change("n", "widened", Value::Null),
            change("since", "added", Value::Null),
            change("text", "changed", Value::Null),
        ]
    );
    let default = shape["fields"].as_array().and_then(|f| f.iter().find(|f| f["field"] == "since"));
    assert_eq!(default.map(|f| &f["default"]), Some(&json!(7)), "{shape}");
    assert_eq!(
        (&shape["verdict"], &shape["from"], &shape["to"], &shape["read"], &shape["migrated"]),
        (&json!("none"), &json!(1), &json!(2), &json!(5), &json!(5)),
        "{shape}"
    );
    assert_eq!(shape["way_back"], json!({"kind": "loses", "fields": ["called", "gone", "since"]}), "{shape}");
    told.is_unchanged();
}

#[test]
fn a_renamed_field_is_told_with_an_exact_way_back() {
    let told = Told::new();
    let renamed = "n: u32, text: String, gone: Option<String>, name: u64";

    let rename = "Migrations::none().rename(1, \"called\", \"name\")";
    let (_, report, shape) = told.dry_run(&source(2, renamed, SET, rename, ""));
    assert_eq!(fields(&report), [change("name", "renamed", Value::Null)], "{report}");
    assert_eq!((&shape["verdict"], &shape["way_back"]["kind"]), (&json!("none"), &json!("exact")), "{shape}");

    // Two steps from one version: which is meant?
    let twice = format!("{rename}.from(1, |o: State| Ok(o))");
    let (_, report, _) = told.dry_run(&source(2, renamed, SET, &twice, ""));
    let why = report["reason"].as_str().expect("a reason");
    assert!(why.contains("two migrations from version 1"), "{report}");
    told.is_unchanged();
}

#[test]
fn a_widened_field_without_downgrade_has_no_way_back() {
    let told = Told::new();
    let widened = OLD.replace("n: u32", "n: u64");

    let (_, report, shape) =
        told.dry_run(&source(2, &widened, SET, "Migrations::none().from(1, |o: State| Ok(o))", ""));

    assert_eq!(fields(&report), [change("n", "widened", Value::Null)], "{report}");
    assert_eq!(
        (&shape["verdict"], &shape["way_back"]["kind"]),
        (&json!("backward"), &json!("none")),
        "{shape}"
    );
    told.is_unchanged();
}

#[test]
fn an_added_field_is_told_with_its_default_and_its_readers() {
    let told = Told::new();

    // A required field needs a version, and readers of the old schema don't mind it.
    let more = format!("{OLD}, more: String");
    let step = "Migrations::none().from(1, |o: One| Ok(State { n: o.n, text: o.text, gone: o.gone, called: o.called, more: String::new() }))";
    let (_, report, shape) = told.dry_run(&source(2, &more, SET, step, ONE));
    assert_eq!(
        (fields(&report), &shape["verdict"]),
        (vec![change("more", "added-without-default", Value::Null)], &json!("forward")),
        "{shape}"
    );

    // With a default it doesn't, and nobody minds it; going back, it is lost.
    let more = format!("{OLD}, #[serde(default)] more: String");
    let (code, report, shape) = told.dry_run(&source(1, &more, SET, "Migrations::none()", ""));
    assert_eq!(
        (code, fields(&report), &shape["verdict"]),
        (Some(0), vec![change("more", "added", Value::Null)], &json!("full")),
        "{shape}"
    );
    assert_eq!(shape["way_back"], json!({"kind": "loses", "fields": ["more"]}), "{shape}");
    told.is_unchanged();
}

#[test]
fn a_refused_dry_run_tells_the_same_to_programs_and_people() {
    let told = Told::new();
    let changed = source(1, &OLD.replace("text: String", "text: u8"), SET, "Migrations::none()", "");
    let candidate = build(&changed);

    let (code, report) = dry_run(&told.host, "told", &candidate);
    let candidate = candidate.to_str().expect("UTF-8");
    let out = told.host.cli(&["reload", "told", "--dry-run", "--from", candidate]);

    let why = "field text: string -> integer; raise STATE_VERSION";
    assert!(code == Some(1) && report["reason"].as_str().is_some_and(|r| r.contains(why)), "{report}");
    assert_eq!(fields(&report), [change("text", "changed", Value::Null)], "{report}");
    let text = String::from_utf8_lossy(&out.stdout);
    for part in [
        "told: refused, generation 1 serves on: ",
        "rehearsed with 5 sessions",
        "compatibility none",
        "way back none: its shape changed",
        "text",
        "string -> integer",
    ] {
        assert!(text.contains(part), "{part:?} in {text}");
    }
    told.is_unchanged();
}

/// A table has more entries than `rehearsal_entries_max`. A share is read of the entries that stay
/// as they are, and each of the others.
#[test]
fn a_share_of_a_large_unchanged_table_is_rehearsed() {
    let sources: Vec<_> = [1, 3].iter().map(|v| versions_source("large", "v", *v, false)).collect();
    let fixture = Fixture::new("large", &sources[0]);
    let first = fixture.build_as("first.so");
    let config = tempfile::NamedTempFile::new().expect("a file").into_temp_path();
    // Nothing is swept before a build has proved itself.
    std::fs::write(&config, "[limits]\nrehearsal_entries_max = 100\nprobation_ms = 600000\n")
        .expect("a configuration");
    let host = Host::serve_with(&["large"], &[&first], |c| {
        c.arg("--config").arg(&config);
    });

    let mut client = Client::connect(host.addr("large"));
    let mut lines = 0;
    let mut say = |more| {
        for _ in 0..more {
            lines += 1;
            assert_eq!(client.ask(&format!("line {lines}")), format!("v {lines} line {lines}"));
        }
    };

    let rehearsed = |path: &Path| {
        let (code, report) = dry_run(&host, "large", path);
        assert_eq!(code, Some(0), "{report}");
        let shapes = report["rehearsal"]["shapes"].as_array().expect("shapes");
        let table = shapes.iter().find(|s| s["table"] == "large-first").expect("the table's report");
        let counts = |of: &Value, names: [&str; 3]| names.map(|name| of[name].as_u64().expect("a number"));
        let all = counts(&report["rehearsal"], ["entries", "entries_migrated", "entries_left_out"]);
        assert_eq!(all, counts(table, ["read", "migrated", "left_out"]));
        all
    };

    say(100);
    // As many as are read anyway.
    fixture.write(&sources[0].replace("\"v ", "\"w "));
    let alike = fixture.build_as("alike.so");
    assert_eq!(rehearsed(&alike), [100, 0, 0]);

    say(400);
    assert_eq!(rehearsed(&alike), [100, 0, 400]);
    let said = host.cli(&["reload", "large", "--dry-run", "--from", alike.to_str().expect("UTF-8")]);
    let said = String::from_utf8_lossy(&said.stdout).into_owned();
    assert!(said.contains("100 of 500 table entries, 0 to be migrated"), "{said}");
    host.wait_log("and 100 of 500 table entries, 0 migrated");

    // It changes.
    fixture.write(&sources[1]);
    let third = fixture.build_as("third.so");
    assert_eq!(rehearsed(&third), [500, 500, 0]);
    let out = host.cli(&["reload", "large", "--from", third.to_str().expect("UTF-8")]);
    assert!(out.status.success(), "{out:?}");

    say(200);
    // Entries of the previous version are to be migrated; of those that stay a hundred are read.
    fixture.write(&sources[1].replace("\"v ", "\"w "));
    assert_eq!(rehearsed(&fixture.build_as("third-alike.so")), [600, 500, 100]);
}

/// Data that goes down to an older build is taken up again on the copy, to see what that loses.
#[test]
fn a_rollback_tells_what_the_way_up_again_loses() {
    let second = versions_source("upagain", "v", 2, false);
    let third = versions_source("upagain", "v", 3, false);
    let kept = "lines: old.lines.to_string(), last: old.last";
    assert!(third.contains(kept));
    let forgets = third.replace(kept, "lines: old.lines.to_string(), last: String::new()");
    let fixture = Fixture::new("upagain", &second);
    let second = fixture.build_as("second.so");
    fixture.write(&forgets);
    let third = fixture.build_as("third.so");
    let host = Host::serve_limited("upagain", &second, "probation_ms = 0");
    let mut client = Client::connect(host.addr("upagain"));
    assert_eq!(client.ask("a"), "v 1 a");
    assert_eq!(host.reload_from("upagain", &third).0, Some(0));
    assert_eq!(client.ask("b"), "v 2 b");

    let report = host.json(&["rollback", "upagain", "--json"]);

    let shapes = report["rehearsal"]["shapes"].as_array().expect("shapes");
    let state = shapes.iter().find(|s| s["table"].is_null()).expect("the state's report");
    assert_eq!((&state["from"], &state["to"]), (&json!(3), &json!(2)), "{state}");
    assert_eq!(state["way_back"], json!({"kind": "loses", "fields": ["last"]}), "{state}");
    assert_eq!(client.ask("c"), "v 3 c");
}

#[test]
fn tables_are_rehearsed_entry_by_entry() {
    let sources: Vec<_> = [1, 3].iter().map(|v| versions_source("entries", "v", *v, false)).collect();
    let fixture = Fixture::new("entries", &sources[0]);
    let first = fixture.build_as("first.so");
    let host = Host::serve(&["entries"], &[&first]);
    let mut client = Client::connect(host.addr("entries"));
    for n in 0..500 {
        assert_eq!(client.ask(&format!("line {n}")), format!("v {} line {n}", n + 1));
    }

    // One entry is what its owner can't migrate.
    let picky = sources[1].replacen("|old: One| Ok(First { by: old.by.to_string() })", "|old: One| if old.by == 2 { Err(\"two is not enough\".to_owned()) } else { Ok(First { by: old.by.to_string() }) }", 1);
    let mut second = Client::connect(host.addr("entries"));
    assert_eq!(second.ask("odd"), "v 1 odd");
    fixture.write(&picky);
    let (code, report) = dry_run(&host, "entries", &fixture.build_as("picky.so"));
    let why = "the rehearsal failed for 1 of 501 table entries: entry \"odd\" of table entries-first: migration from version 1: two is not enough";
    assert!(code == Some(1) && report["reason"] == why, "{report}");

    fixture.write(&sources[1]);
    let third = fixture.build_as("third.so");
    let (code, report) = dry_run(&host, "entries", &third);
    assert_eq!(code, Some(0), "{report}");
    let table = report["rehearsal"]["shapes"]
        .as_array()
        .and_then(|s| s.iter().find(|s| s["table"] == "entries-first"));
    let table = table.expect("the table's report");
    assert_eq!(
        (&table["read"], &table["migrated"], &table["way_back"]["kind"]),
        (&json!(501), &json!(501), &json!("exact")),
        "{table}"
    );
    assert_eq!(table["fields"][0]["text"], "field by: integer -> string", "{table}");

    // A table has one owner.
    let thief = sources[0].replace("\"entries\"", "\"thief\"");
    let thief = Fixture::new("thief", &thief).build();
    let dir = tempfile::tempdir().expect("a directory");
    let two = Host::serve(&["entries", "thief"], &[&first, dir.path()]);
    std::fs::copy(&thief, dir.path().join("libthief.so")).expect("a copy");
    two.wait_log("table entries-first belongs to service entries; a table has one owner");
}

#[test]
fn a_long_rehearsal_reports_its_progress_and_is_limited_in_bytes() {
    let slow = source(
        2,
        OLD,
        SET,
        "Migrations::none().from(1, |o: State| { std::thread::sleep(std::time::Duration::from_millis(20)); Ok(o) })",
        "",
    );
    let fixture = Fixture::new("told_slowly", &source(1, OLD, SET, "Migrations::none()", ""));
    let first = fixture.build_as("first.so");
    let config = tempfile::NamedTempFile::new().expect("a file").into_temp_path();
    std::fs::write(&config, "[limits]\npin_bytes_max = 100000\n").expect("a configuration");

    let host = Host::serve_with(&["told"], &[&first], |c| {
        c.arg("--config").arg(&config);
    });
    let mut clients: Vec<_> = (0..150).map(|_| Client::connect(host.addr("told"))).collect();
    for c in &mut clients {
        assert_eq!(c.ask("hello"), "hello");
    }

    fixture.write(&slow);
    let slow = fixture.build();
    let dry_run = || host.cli(&["reload", "told", "--dry-run", "--from", slow.to_str().expect("UTF-8")]);

    let out = dry_run();
    let said = String::from_utf8_lossy(&out.stderr);
    assert!(
        said.contains("told_slowly: rehearsing, ") && said.contains("of 150 sessions and table entries"),
        "{said}"
    );
    assert!(String::from_utf8_lossy(&out.stdout).contains("would be committed"), "{out:?}");

    // What it reads is kept for it, but not without end: the rehearsal fails, and nobody else.
    let out = std::thread::scope(|scope| {
        let asked = scope.spawn(dry_run);
        for n in 0.. {
            let line = format!("{n} {}", "x".repeat(1000));
            for c in &mut clients {
                assert_eq!(c.ask(&line), line);
            }
            if asked.is_finished() {
                break;
            }
        }
        asked.join().expect("the command")
    });

    assert_eq!(out.status.code(), Some(1), "{out:?}");
    let why = "too much changed while it was rehearsed (limit pin_bytes_max); try again";
    assert!(String::from_utf8_lossy(&out.stdout).contains(why), "{out:?}");
}
