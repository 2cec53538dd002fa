//! Restores by an operator: `greenroom state restore` and `greenroom state set`. Sessions and
//! tables go on with all of it, or with nothing of it.

use greenroom_tests::client::Client;
use greenroom_tests::fixture::{Fixture, compile_c, nicks_build, versions_source};
use greenroom_tests::host::Host;
use greenroom_tests::{built, wait_for};
use serde_json::{Value, json};
use std::path::PathBuf;
use std::process::{Command, Output};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

fn dump(host: &Host) -> Value {
    host.json(&["state", "dump"])
}

/// The part of a dump that a restore puts back.
fn states(dump: &Value) -> Value {
    let sessions = dump["sessions"].as_array().expect("sessions").iter();
    let states = sessions.map(|s| json!([s["id"], s["service"], s["state_version"], s["state"]]));
    json!([states.collect::<Vec<_>>(), dump["tables"]])
}

fn restore_text(host: &Host, text: &str, more: &[&str]) -> Output {
    let file = host.dir().join("dump.json");
    std::fs::write(&file, text).expect("a file");
    let args = [&["state", "restore", file.to_str().expect("UTF-8")], more].concat();
    host.cli(&args)
}

/// The exit code and the report.
#[track_caller]
fn restore(host: &Host, dump: &Value, more: &[&str]) -> (Option<i32>, Value) {
    let out = restore_text(host, &dump.to_string(), &[&["--json"], more].concat());
    let report = serde_json::from_slice(&out.stdout)
        .unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(&out.stderr)));
    (out.status.code(), report)
}

/// Has a dump refused, for this reason and without any change.
#[track_caller]
fn refused(host: &Host, given: &Value, why: &str) {
    let before = states(&dump(host));
    for more in [&["--dry-run"][..], &[]] {
        let (code, report) = restore(host, given, more);
        let reason = report["reason"].as_str().expect("a reason");
        assert!(reason.contains(why), "{reason}");
        assert_eq!((code, &report["outcome"]), (Some(1), &json!("refused")));
    }
    assert_eq!(states(&dump(host)), before);
    let last = host.last_ledger_line();
    assert_eq!((&last["outcome"], &last["restored"]["changed"]), (&json!("refused"), &json!(0)));
    assert!(last["reason"].as_str().is_some_and(|r| r.contains(why)), "{last}");
}

fn session(dump: &mut Value, id: u64) -> &mut Value {
    let mut sessions = dump["sessions"].as_array_mut().expect("sessions").iter_mut();
    sessions.find(|s| s["id"] == id).expect("that session")
}

fn both(more: impl FnOnce(&mut Command)) -> Host {
    Host::serve_with(&["echo", "tally", "chat"], &[&built("libecho.so"), &nicks_build("restore_nicks")], more)
}

fn in_the_room(host: &Host, nick: &str) -> Client {
    let mut client = Client::connect(host.addr("chat"));
    client.line().expect("a welcome");
    assert_eq!(client.ask(nick), format!("* {nick} is here"));
    client
}

#[test]
fn sessions_go_on_with_a_restored_dump() {
    const MANY: usize = 300;
    let host = both(|_| {});
    let mut clients: Vec<_> = (0..MANY).map(|_| Client::connect(host.addr("tally"))).collect();
    for (n, c) in clients.iter_mut().enumerate() {
        for i in 0..n % 3 {
            assert_eq!(c.ask("a"), format!("{} a", i + 1));
        }
    }
    let _ann = in_the_room(&host, "ann");

    let before = dump(&host);
    for (n, c) in clients.iter_mut().enumerate() {
        assert_eq!(c.ask("b"), format!("{} b", n % 3 + 1));
    }
    let _bob = in_the_room(&host, "bob");
    let meanwhile = dump(&host);

    let (code, report) = restore(&host, &before, &["--dry-run"]);
    assert_eq!((code, &report["outcome"]), (Some(0), &json!("rehearsed")));
    let would = &report["restored"];
    assert_eq!(
        (&would["changed"], &would["unchanged"], &would["missing"]),
        (&json!(MANY), &json!(1), &json!(0))
    );
    assert_eq!(would["tables"], json!({"chat-nicks": {"put": 0, "deleted": 1, "unchanged": 1}}));
    assert_eq!(states(&dump(&host)), states(&meanwhile), "a dry run changes nothing");
    assert_eq!(host.last_ledger_line()["outcome"], "committed", "and isn't in the ledger");

    let (code, done) = restore(&host, &before, &[]);
    assert_eq!((code, &done["outcome"], &done["restored"]), (Some(0), &json!("restored"), would));
    assert_eq!(done["services"], json!(["chat", "tally"]));
    let after = dump(&host);
    // Bob came later, and isn't in it.
    let mut expected = before.clone();
    expected["sessions"].as_array_mut().unwrap().push(meanwhile["sessions"][MANY + 1].clone());
    assert_eq!(states(&after), states(&expected));
    let (code, again) = restore(&host, &before, &[]);
    assert_eq!(
        (code, &again["restored"]["changed"]),
        (Some(0), &json!(0)),
        "there is nothing left to be done"
    );

    for (n, c) in clients.iter_mut().enumerate() {
        assert_eq!(c.ask("c"), format!("{} c", n % 3 + 1));
    }
    host.kill_worker();
    for (n, c) in clients.iter_mut().enumerate() {
        assert_eq!(c.ask("d"), format!("{} d", n % 3 + 2));
    }

    let text = restore_text(&host, &before.to_string(), &[]);
    let said = String::from_utf8_lossy(&text.stdout).into_owned();
    assert!(said.contains("dump.json: 300 sessions, 0 entries put, 0 deleted, pause "), "{said}");
    assert!(said.contains("  sessions: 300 changed, 1 unchanged, 0 gone\n"), "{said}");
    let history = String::from_utf8(host.cli(&["history"]).stdout).expect("UTF-8");
    assert!(
        history.contains("state restored from /") && history.contains("300 sessions, 0 entries put"),
        "{history}"
    );
}

#[test]
fn a_restore_names_sessions_that_are_gone_and_resets_those_without_a_state() {
    let host = both(|_| {});
    let mut clients: Vec<_> = (0..4).map(|_| Client::connect(host.addr("tally"))).collect();
    for c in &mut clients[..3] {
        assert_eq!(c.ask("a"), "1 a");
    }

    let mut given = dump(&host);
    drop(clients.remove(0));
    wait_for("its end", || (host.service("tally")["sessions"] == 3).then_some(()));
    for (id, state) in [(2, json!({"count": 70})), (3, Value::Null)] {
        session(&mut given, id)["state"] = state;
    }
    assert_eq!(session(&mut given, 4)["state_version"], 0);

    let (code, report) = restore(&host, &given, &[]);

    let restored = &report["restored"];
    assert_eq!((code, &restored["changed"], &restored["unchanged"]), (Some(0), &json!(2), &json!(1)));
    assert_eq!((&restored["missing"], &restored["missing_ids"]), (&json!(1), &json!([1])));
    assert_eq!(dump(&host)["sessions"][1]["state_version"], 0);

    host.kill_worker();
    let answers: Vec<_> = clients.iter_mut().map(|c| c.ask("b")).collect();
    assert_eq!(answers, ["71 b", "1 b", "1 b"]);

    // Only the sessions that a dump has, and no table.
    let (_, report) = restore(&host, &host.json(&["state", "dump", "--session", "2"]), &[]);
    assert_eq!((&report["restored"]["unchanged"], &report["restored"]["tables"]), (&json!(1), &json!({})));
}

/// A host with a session of each service and with small limits, and its dump.
struct Small {
    host: Host,
    good: Value,
    peer: Client,
    _ann: Client,
    _config: tempfile::TempPath,
}

impl Small {
    fn new() -> Small {
        let config = tempfile::NamedTempFile::new().expect("a file").into_temp_path();
        let limits = "[limits]\nstate_bytes_max = 60\ntable_bytes_max = 40\ntable_key_bytes_max = 20\n";
        std::fs::write(&config, limits).expect("a configuration");
        let host = both(|c| _ = c.arg("-c").arg(&config));
        let mut peer = Client::connect(host.addr("tally"));
        assert_eq!(peer.ask("a"), "1 a");
        let ann = in_the_room(&host, "ann");
        Small { good: dump(&host), host, peer, _ann: ann, _config: config }
    }

    /// The dump with a change. If it were not refused as a whole, session 1 would show it.
    fn with(&self, change: impl FnOnce(&mut Value)) -> Value {
        let mut given = self.good.clone();
        session(&mut given, 1)["state"] = json!({"count": 9});
        change(&mut given);
        given
    }

    /// States are as they were, and the session goes on.
    #[track_caller]
    fn is_unchanged(&mut self) {
        assert_eq!(states(&dump(&self.host)), states(&self.good));
        assert_eq!(self.peer.ask("b"), "2 b");
    }
}

#[test]
fn a_dump_that_cannot_be_stored_is_refused_as_a_whole() {
    type Change = fn(&mut Value);
    let refusals: [(Change, &str); 12] = [
        (
            |d| session(d, 1)["state"] = json!({"cuont": 9}),
            "service tally, session 1: field cuont: unknown; there are: count",
        ),
        (
            |d| session(d, 1)["state"] = json!({"count": 9, "x": 1}),
            "session 1: field x: unknown; there are: count",
        ),
        (
            |d| session(d, 1)["state"] = json!({"count": "9"}),
            "session 1: field count: expected integer, found \"9\"",
        ),
        (|d| session(d, 1)["state"] = json!({"count": -1}), "field count: expected integer from 0 to "),
        (|d| session(d, 1)["state"] = json!({}), "field count: missing; it wants integer"),
        (|d| session(d, 1)["state"] = json!({"$b64": 1}), "session 1: $b64 wants a string"),
        (|d| session(d, 1)["service"] = json!("chat"), "service chat, session 1: it is of service tally now"),
        (
            |d| session(d, 1)["state_version"] = json!(2),
            "session 1: it is of version 2, and no build at hand makes it into version 1",
        ),
        (|d| session(d, 2)["state"] = json!({"nick": "n".repeat(99)}), "(limit state_bytes_max: 60)"),
        (
            |d| d["tables"]["chat-nicks"] = json!([{"key": "ann", "value": "x"}]),
            "table chat-nicks, key \"ann\": the value: expected integer, found \"x\"",
        ),
        (
            |d| d["tables"]["chat-nicks"] = json!([{"key": "a".repeat(21), "value": 1}]),
            "(limit table_key_bytes_max: 20)",
        ),
        (
            |d| d["tables"]["other"] = json!([{"key": "a", "value": "v".repeat(60)}]),
            "table other would have 63 bytes (limit table_bytes_max: 40)",
        ),
    ];
    let mut small = Small::new();

    for (change, why) in refusals {
        refused(&small.host, &small.with(change), why);
    }

    small.is_unchanged();
}

#[test]
fn a_dump_that_names_something_twice_or_is_wrong_throughout_is_refused() {
    let mut small = Small::new();
    let twice = json!([{"key": "ann", "value": 1}, {"key": "ann", "value": 2}]);
    // So many reasons, and no more.
    let many = small.with(|d| {
        let one = session(d, 2).clone();
        let more = (100..110).map(|id| {
            let mut s = one.clone();
            (s["id"], s["state"]) = (json!(id), json!({"$b64": id}));
            s
        });
        d["sessions"].as_array_mut().expect("sessions").extend(more);
    });

    for (given, why) in [
        (small.with(|d| session(d, 2)["id"] = json!(1)), "service chat, session 1: it is there twice"),
        (small.with(|d| d["tables"]["chat-nicks"] = twice), "key \"ann\": it is there twice"),
        (small.with(|d| d["tables"]["no table"] = json!([])), "no table may be called \"no table\""),
        (many, "session 104: $b64 wants a string; and there may be more"),
    ] {
        refused(&small.host, &given, why);
    }

    small.is_unchanged();
}

#[test]
fn a_file_that_is_no_dump_is_refused_with_its_line() {
    let mut small = Small::new();
    let text = small.good.to_string();

    for (text, why) in [
        ("{\"format\": 1,\n\"taken_at\": }", "not a dump: expected value at line 2 column 13"),
        (&text.replacen("\"format\":1", "\"format\":7", 1), "format 7 is not known to this version"),
        (
            &text.replacen("\"state_version\":1,\"state\"", "\"version\":1,\"state\"", 1),
            "missing field `state_version`",
        ),
    ] {
        let out = restore_text(&small.host, text, &[]);
        let said = String::from_utf8_lossy(&out.stdout).into_owned();
        assert!(out.status.code() == Some(1) && said.contains(why), "{said}");
        let line = small.host.last_ledger_line();
        assert!(line["reason"].as_str().is_some_and(|r| r.contains(why)), "{line}");
    }

    small.is_unchanged();
}

#[test]
fn restore_without_a_file_or_a_host_has_its_exit_codes() {
    let host = both(|_| {});
    let file = host.dir().join("dump.json");
    std::fs::write(&file, dump(&host).to_string()).expect("a file");
    let file = file.to_str().expect("UTF-8");
    let code = |args: &[&str]| host.cli(args).status.code();

    let mut elsewhere = host.command(&["state", "restore", file]);
    let elsewhere = elsewhere.env("GREENROOM_RUNTIME", host.dir().join("elsewhere"));

    assert_eq!(code(&["state", "restore"]), Some(2));
    assert_eq!(code(&["state", "restore", "/nonexistent/dump"]), Some(1));
    assert_eq!(elsewhere.status().expect("it runs").code(), Some(3));
}

#[test]
fn a_restore_replaces_the_tables_of_the_file_alone() {
    let host = both(|_| {});
    let mut ann = in_the_room(&host, "ann");
    let mut given = dump(&host);
    given["tables"] = json!({
        "chat-nicks": [{"key": "ann", "value": 1}, {"key": "eve", "value": 77}],
        "of-nobody": [{"key": {"$b64": "/w=="}, "value": {"$map": [[1, {"$f64": "NaN"}], [2, 0.30000000000000004]]}}, {"key": "k", "value": 5}],
    });

    let (code, report) = restore(&host, &given, &[]);

    let tables = json!({
        "chat-nicks": {"put": 1, "deleted": 0, "unchanged": 1}, "of-nobody": {"put": 2, "deleted": 0, "unchanged": 0},
    });
    assert_eq!((code, &report["restored"]["tables"]), (Some(0), &tables));
    let after = dump(&host);
    let by_key = |d: &Value, table: &str| {
        let mut entries = d["tables"][table].as_array().expect("entries").clone();
        entries.sort_by_key(Value::to_string);
        entries
    };
    for table in ["chat-nicks", "of-nobody"] {
        assert_eq!(by_key(&after, table), by_key(&given, table));
    }

    // The handler sees it.
    ann.send("/nick eve\n/who\n");
    assert_eq!(ann.line().as_deref(), Some("! eve is taken. Another one?"));
    assert_eq!((ann.line().as_deref(), ann.line().as_deref()), (Some("  ann"), Some("  eve")));

    given["tables"] = json!({"of-nobody": []});
    let (_, report) = restore(&host, &given, &[]);
    assert_eq!(report["restored"]["tables"], json!({"of-nobody": {"put": 0, "deleted": 2, "unchanged": 0}}));
    assert_eq!(dump(&host)["tables"], json!({"chat-nicks": after["tables"]["chat-nicks"]}));
}

/// A service whose state has all kinds of fields. It answers with its state in Rust's debug form.
const FULL: &str = r#"
#![forbid(unsafe_code)]
use greenroom_handler::{Action, Fault, Handler, NoConfig, Turn, export};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashSet};

export!(Full);

#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
struct Profile {
    age: Option<u8>,
    #[serde(default)]
    mood: Mood,
}

#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
enum Mood {
    #[default]
    Good,
    Because(String),
}

#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
struct All {
    count: u64,
    profile: Profile,
    list: Vec<i32>,
    scores: BTreeMap<u64, f64>,
    names: HashSet<String>,
    ratio: f32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    nick: Option<String>,
}

struct Full;

impl Handler for Full {
    const SERVICE: &'static str = "full";
    const PORT: u16 = 0;
    type State = All;
    type Config = NoConfig;

    fn new(_: NoConfig) -> Result<Self, String> {
        Ok(Full)
    }

    fn handle(&self, turn: &mut Turn<'_, All>, action: Action<'_>) -> Result<(), Fault> {
        let Action::Message(line) = action else { return Ok(()) };
        let line = String::from_utf8_lossy(line).into_owned();
        let s = &mut *turn.state;
        s.count += 1;
        s.ratio = s.count as f32 / 10.0;
        s.scores.insert(s.count, 0.1 + 0.2 * s.count as f64);
        s.names.insert(line);
        let said = format!("{} {:?} {:?} {:?}", s.count, s.profile, s.list, s.nick);
        turn.send_line(said);
        Ok(())
    }
}
"#;

/// A session with the service of all kinds of fields.
fn full() -> (Host, Client) {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    let library = BUILT.get_or_init(|| Fixture::new("full", FULL).build());
    let host = Host::serve(&["full"], &[library]);
    let mut peer = Client::connect(host.addr("full"));
    for name in ["a", "b", "c", "d"] {
        peer.ask(name);
    }
    (host, peer)
}

/// States of a dump, with the set in session 1 in order.
fn sorted(mut dump: Value) -> Value {
    let names = session(&mut dump, 1)["state"]["names"].as_array_mut().expect("names");
    names.sort_by_key(Value::to_string);
    states(&dump)
}

/// `greenroom state set` for session 1: exit code and report.
fn set(host: &Host, fields: &[&str]) -> (Option<i32>, Value) {
    let out = host.cli(&[&["state", "set", "1", "--json"], fields].concat());
    (out.status.code(), serde_json::from_slice::<Value>(&out.stdout).unwrap_or_default())
}

/// A set is written in any order, and a float of 32 bits as what it is.
#[test]
fn every_kind_of_field_survives_a_restore() {
    let (host, mut peer) = full();
    let before = dump(&host);
    peer.ask("e");

    let (code, report) = restore(&host, &before, &[]);

    assert_eq!(code, Some(0), "{report}");
    assert_eq!(sorted(dump(&host)), sorted(before));
}

#[test]
fn an_operator_sets_fields_of_a_state() {
    let (host, mut peer) = full();

    let mood = "profile.mood={\"because\": \"why not\"}";
    let (code, done) = set(&host, &["count=7", "profile.age=30", mood, "list=[1,2]", "nick=joe"]);
    let items = set(&host, &["list.2=3", "list.0=-5"]).1;

    assert_eq!((code, &done["outcome"]), (Some(0), &json!("restored")), "{done}");
    assert_eq!((&done["before"]["count"], &done["after"]["count"]), (&json!(4), &json!(7)));
    assert_eq!(done["restored"]["fields"], json!(["count", "profile.age", "profile.mood", "list", "nick"]));
    assert_eq!(items["after"]["list"], json!([-5, 2, 3]));
    let debug = r#"8 Profile { age: Some(30), mood: Because("why not") } [-5, 2, 3] Some("joe")"#;
    assert_eq!(peer.ask("f"), debug);
    let line = host.last_ledger_line();
    // SAFETY: getuid has no preconditions.
    let uid = unsafe { libc::getuid() };
    assert!(line["by"].as_str().is_some_and(|by| by.starts_with(&format!("uid {uid} pid "))), "{line}");
    let history = String::from_utf8(host.cli(&["history"]).stdout).expect("UTF-8");
    assert!(history.contains("state of session 1 set: list.2, list.0, pause "), "{history}");
}

#[test]
fn a_field_that_does_not_fit_is_refused_by_name() {
    let (host, _peer) = full();
    assert_eq!(set(&host, &["list=[1,2]"]).0, Some(0));
    let before = dump(&host);

    for (fields, why) in [
        (
            &["profile.agee=1"][..],
            "service full, session 1: field profile.agee: unknown; there are: age, mood",
        ),
        (&["nik=null"], "field nik: unknown; there are: count, profile, list, scores, names, ratio, nick"),
        (&["profile.age=256"], "field profile.age: expected integer from 0 to 255, found 256"),
        (&["count=1", "list.0=x"], "field list[0]: expected integer, found \"x\""),
        (&["count.x=1"], "field count is 4, which has no field \"x\""),
        (&["scores.9=1"], "field scores is written with a tag; give all of it"),
        (&["ratio=true"], "field ratio: expected number, found true"),
        (&["names=[\"a\", \"a\"]"], "field names: its handler makes [\"a\"] of [\"a\",\"a\"]"),
    ] {
        let (code, report) = set(&host, fields);
        assert!(code == Some(1) && report["reason"].as_str().is_some_and(|r| r.contains(why)), "{report}");
        assert_eq!(host.last_ledger_line()["reason"], report["reason"]);
    }

    assert_eq!(sorted(dump(&host)), sorted(before));
}

/// A session that stored nothing begins with the default.
#[test]
fn state_set_tells_people_what_it_changed_or_why_not() {
    let (host, _peer) = full();
    let _other = Client::connect(host.addr("full"));
    wait_for("it", || (host.service("full")["sessions"] == 2).then_some(()));

    let text = host.cli(&["state", "set", "2", "ratio=0.1"]);

    let said = String::from_utf8_lossy(&text.stdout).into_owned();
    assert!(said.starts_with("state of session 2 set: ratio, pause "), "{said}");
    assert!(said.contains("  before: null\n  after:  {\"count\":0,"), "{said}");
    for (args, code, why) in [
        (["state", "set", "1", "count"], 2, "\"count\" is no FIELD=VALUE"),
        (["state", "set", "9", "count=1"], 1, "state of session 9 not set: no session has number 9"),
    ] {
        let out = host.cli(&args);
        let said = [out.stdout, out.stderr].concat();
        let said = String::from_utf8_lossy(&said);
        assert!(out.status.code() == Some(code) && said.contains(why), "{said}");
    }
}

#[test]
fn a_dump_of_another_version_is_converted_or_refused() {
    let fixture = Fixture::new("putback_versions", "");
    let builds: Vec<_> = (1..=3)
        .map(|version| {
            fixture.write(&versions_source("putback-versions", "ok", version, false));
            fixture.build_as(&format!("v{version}.so"))
        })
        .collect();

    let host = Host::serve(&["putback-versions"], &[&builds[0]]);
    let mut peers: Vec<_> = (0..3).map(|_| Client::connect(host.addr("putback-versions"))).collect();
    for (n, p) in peers.iter_mut().enumerate() {
        assert_eq!(p.ask(&format!("line {n}")), format!("ok 1 line {n}"));
    }

    let first = dump(&host);
    assert_eq!(first["services"]["putback-versions"]["tables"], json!({"putback-versions-first": 1}));
    assert_eq!(host.reload_from("putback-versions", &builds[2]).0, Some(0));
    for p in &mut peers[..2] {
        assert_eq!(p.ask("again"), "ok 2 again");
    }

    // Of the older version: migrated, and what nobody touched stays as it is.
    let (code, report) = restore(&host, &first, &[]);
    assert_eq!(code, Some(0), "{report}");
    let restored = &report["restored"];
    assert_eq!((&restored["changed"], &restored["unchanged"]), (&json!(2), &json!(1)));
    assert_eq!(restored["tables"]["putback-versions-first"], json!({"put": 0, "deleted": 1, "unchanged": 3}));

    let third = dump(&host);
    let kept: Vec<_> = third["sessions"].as_array().unwrap().iter().map(|s| &s["state_version"]).collect();
    assert_eq!(kept, [3, 3, 1]);
    assert_eq!(third["sessions"][0]["state"], json!({"lines": "1", "last": "line 0"}));
    assert_eq!(third["tables"]["putback-versions-first"][0]["version"], 1, "{third}");
    for (n, p) in peers.iter_mut().enumerate() {
        assert_eq!(p.ask("now"), "ok 2 now");
        assert_eq!(p.ask(&format!("who line {n}")), (n + 1).to_string());
    }

    let mut given = third.clone();
    session(&mut given, 1)["state"] = json!({"lines": "many", "last": "?"});
    assert_eq!(restore(&host, &given, &[]).0, Some(0));
    session(&mut given, 1)["state_version"] = json!(1);
    refused(&host, &given, "session 1: it is of version 1, and generation 2 can't make version 3 of it: ");
    restore(&host, &third, &[]);

    // Its states are downgraded, and then the newer build is dropped.
    assert!(host.cli(&["rollback", "putback-versions"]).status.success());
    wait_for("the sweep's end", || {
        let (code, report) = restore(&host, &third, &["--dry-run"]);
        let reason = report["reason"].as_str().expect("a reason");
        let newer = "it is of version 3, and no build at hand makes it into version 1; put it back while a build of that version serves";
        (code == Some(1) && reason.contains(newer)).then_some(())
    });
}

#[test]
fn a_library_in_c_reads_a_restored_state() {
    let dir = tempfile::tempdir().expect("a directory");
    let library = dir.path().join("libupper.so");
    compile_c("upper.c", &[], &library);
    let host = Host::serve(&["upper"], &[&library]);
    let mut peer = Client::connect(host.addr("upper"));
    assert_eq!(peer.ask("a"), "1 A");

    let mut given = dump(&host);
    session(&mut given, 1)["state"]["lines"] = json!(70_000);
    assert_eq!(peer.ask("b"), "2 B");

    let (code, report) = restore(&host, &given, &[]);
    assert_eq!((code, &report["restored"]["changed"]), (Some(0), &json!(1)), "{report}");
    assert_eq!(peer.ask("c"), "70001 C");

    // A number of another width is read; one beyond 32 bits is not.
    session(&mut given, 1)["state"]["lines"] = json!(5_000_000_000_u64);
    refused(&host, &given, "its state is no count");
    session(&mut given, 1)["state"]["lines"] = json!(1);
    assert_eq!(restore(&host, &given, &[]).0, Some(0));
    assert_eq!(peer.ask("d"), "2 D");
}

#[test]
fn a_kill_leaves_all_of_a_restore_or_nothing_and_the_ledger_says_which() {
    let dir = tempfile::tempdir().expect("a directory");
    let plan = dir.path().join("plan");
    std::fs::write(&plan, "put-back 0\n").expect("a plan");
    let host = both(|c| _ = c.env("GREENROOM_KILL_PLAN", &plan));
    let mut clients: Vec<_> = (0..20).map(|_| Client::connect(host.addr("tally"))).collect();
    for c in &mut clients {
        assert_eq!(c.ask("a"), "1 a");
    }
    let _ann = in_the_room(&host, "ann");

    let before = dump(&host);
    let mut given = before.clone();
    for id in 1..=20 {
        session(&mut given, id)["state"]["count"] = json!(100 + id);
    }
    given["tables"]["chat-nicks"] = json!([]);

    // All is written, and it isn't committed.
    let out = restore_text(&host, &given.to_string(), &["--json"]);
    assert!(
        out.status.code() == Some(1) && String::from_utf8_lossy(&out.stderr).contains("broke off"),
        "{out:?}"
    );
    assert_eq!(states(&dump(&host)), states(&before));
    assert_eq!(host.last_ledger_line()["outcome"], "committed");
    assert_eq!(host.json(&["status", "--json"])["host"]["workers_before"], 1);

    // And committed.
    assert_eq!(restore(&host, &given, &[]).0, Some(0));
    host.kill_worker();
    given["tables"] = json!({});
    assert_eq!(states(&dump(&host)), states(&given));
    let line = host.last_ledger_line();
    assert_eq!((&line["outcome"], &line["restored"]["changed"]), (&json!("restored"), &json!(20)));
    assert!(line["pause_us"].as_f64().is_some_and(|us| us > 0.0), "{line}");
    for (id, c) in (101..).zip(&mut clients) {
        assert_eq!(c.ask("b"), format!("{} b", id + 1));
    }
}

#[test]
fn clients_are_served_during_ten_restores() {
    let host = both(|_| {});
    let mut still: Vec<_> = (0..500).map(|_| Client::connect(host.addr("tally"))).collect();
    for c in &mut still {
        assert_eq!(c.ask("a"), "1 a");
    }

    let given = host.json(&["state", "dump", "--service", "tally"]);
    let mut busy: Vec<_> = (0..4).map(|_| Client::connect(host.addr("tally"))).collect();
    let going = &AtomicBool::new(true);
    std::thread::scope(|scope| {
        for c in &mut busy {
            scope.spawn(move || {
                let mut n = 0;
                while going.load(Ordering::Relaxed) {
                    n += 1;
                    assert_eq!(c.ask("x"), format!("{n} x"), "it isn't in the dump");
                }
            });
        }
        for _ in 0..10 {
            for c in &mut still {
                assert_eq!(c.ask("b"), "2 b");
            }
            let (code, report) = restore(&host, &given, &[]);
            assert_eq!((code, &report["restored"]["changed"]), (Some(0), &json!(500)));
        }
        going.store(false, Ordering::Relaxed);
    });
}
