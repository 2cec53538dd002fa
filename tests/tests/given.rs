//! Data that operators give: what is equal is no difference, a refusal names what is at fault, and
//! nothing is lost without a word.

use greenroom_tests::client::Client;
use greenroom_tests::fixture::Fixture;
use greenroom_tests::host::Host;
use serde_json::{Value, json};
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::OnceLock;

/// Service whose state and values have sets. Each line is a tag, and is answered with the count.
const SOURCE: &str = r#"
#![forbid(unsafe_code)]
use greenroom_handler::{Handler, Map, Result, Tables, Turn, export, handler};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::HashSet;
use std::net::IpAddr;

export!(Given);

const ROOMS: Map<u32, HashSet<String>> = Map::new("rooms");

#[derive(Default, Serialize, Deserialize, JsonSchema)]
struct Mark;

// Two fields before the others are stored in a form that no schema describes.
#[derive(Default, Serialize, Deserialize, JsonSchema)]
struct State {
    mark: Mark,
    from: Option<IpAddr>,
    tags: HashSet<String>,
    list: Vec<String>,
    count: u64,
}

#[derive(Default)]
struct Given;

#[handler]
impl Handler for Given {
    const SERVICE: &'static str = "given";
    type State = State;
    fn tables() -> Tables {
        Tables::none().own(ROOMS.table())
    }
    fn message(&self, turn: &mut Turn<State>, line: &[u8]) -> Result {
        let tag = String::from_utf8_lossy(line).into_owned();
        turn.state.from = Some([127, 0, 0, 1].into());
        turn.state.count += 1;
        let tags: HashSet<_> = turn.state.tags.iter().cloned().chain([tag.clone()]).collect();
        ROOMS.put(turn, 7, &tags)?;
        turn.state.tags = tags;
        turn.state.list.push(tag);
        turn.send_line(turn.state.count.to_string());
        Ok(())
    }
}
"#;

/// Tags of the session. So many have one order in two sets once in 12! times.
const TAGS: [&str; 12] = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l"];

fn serve() -> (Host, Client) {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    let library = BUILT.get_or_init(|| Fixture::new("given", SOURCE).build());
    let host = Host::serve(&["given"], &[library]);
    let mut peer = Client::connect(host.addr("given"));
    for (at, tag) in TAGS.iter().enumerate() {
        assert_eq!(peer.ask(tag), (at + 1).to_string());
    }
    (host, peer)
}

/// Exit code of a command, and all that it said.
fn said(host: &Host, args: &[&str]) -> (Option<i32>, String) {
    let out = host.cli(args);
    (out.status.code(), String::from_utf8([out.stdout, out.stderr].concat()).expect("UTF-8"))
}

#[track_caller]
fn done(host: &Host, args: &[&str]) -> String {
    let (code, said) = said(host, args);
    assert_eq!(code, Some(0), "{args:?}: {said}");
    said
}

#[track_caller]
fn refused(host: &Host, args: &[&str], why: &str) {
    let (code, said) = said(host, args);
    assert!(code.is_some_and(|code| code != 0) && said.contains(why), "{args:?}: {code:?}: {said}");
}

/// Writes a file, and returns its path.
fn file(host: &Host, name: &str, text: &str) -> String {
    let path = host.dir().join(name);
    std::fs::write(&path, text).expect("a file");
    path.to_str().expect("UTF-8").to_owned()
}

/// Dump whose sets are in another order.
fn turned(host: &Host) -> Value {
    let mut dump = host.json(&["state", "dump"]);
    dump["sessions"][0]["state"]["tags"].as_array_mut().expect("tags").reverse();
    dump["tables"]["rooms"][0]["value"].as_array_mut().expect("tags").reverse();
    dump
}

/// Dump, edited state and trace: the order of a set is no difference, and its items are.
#[test]
fn the_order_of_a_set_is_no_difference() {
    let (host, mut peer) = serve();
    let before = file(&host, "before", &host.json(&["state", "dump"]).to_string());
    let lines = file(&host, "lines", &done(&host, &["state", "dump", "--ndjson"]));
    let other = file(&host, "other", &turned(&host).to_string());
    assert_eq!(done(&host, &["state", "diff", &before, &other]), "");
    assert_eq!(done(&host, &["state", "diff", &other]), "");
    let report = host.json(&["state", "restore", &other, "--json"]);
    let found = &report["restored"];
    assert_eq!((&found["changed"], &found["unchanged"]), (&json!(0), &json!(1)), "{report}");
    assert_eq!(found["tables"]["rooms"], json!({"put": 0, "deleted": 0, "unchanged": 1}), "{report}");
    // The order of a list beside a set is one.
    let mut list = turned(&host);
    list["sessions"][0]["state"]["list"].as_array_mut().expect("a list").swap(0, 1);
    let list = file(&host, "list", &list.to_string());
    let told = done(&host, &["state", "diff", &list]);
    assert_eq!(
        told.lines().skip(1).collect::<Vec<_>>(),
        ["  list[0]: \"b\" -> \"a\"", "  list[1]: \"a\" -> \"b\""]
    );
    assert_eq!(host.json(&["state", "restore", "--dry-run", &list, "--json"])["restored"]["changed"], 1);

    let mut trace = host.command(&["trace", "1", "--json"]);
    let mut trace = trace.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("a trace");
    let mut begun = String::new();
    BufReader::new(trace.stderr.take().expect("its words")).read_line(&mut begun).expect("a line");
    assert!(begun.starts_with("tracing"), "{begun}");
    assert_eq!(peer.ask("new"), "13");
    let mut turn = String::new();
    BufReader::new(trace.stdout.take().expect("its turns")).read_line(&mut turn).expect("a line");
    trace.kill().expect("it runs");
    trace.wait().expect("its end");
    let turn: Value = serde_json::from_str(&turn).expect("JSON");
    let fields: Vec<_> = turn["changes"].as_array().expect("changes").iter().map(|c| &c["field"]).collect();
    assert_eq!(fields, ["tags[]", "list.12", "count"], "{turn}");

    for dump in [&before, &lines] {
        let told = done(&host, &["state", "diff", dump]);
        assert_eq!(
            told,
            "session 1 of given: changed\n  tags[]: + \"new\"\n  list[12]: + \"new\"\n  count: 12 -> 13\n\
             table rooms, key \"\\u0000\\u0000\\u0000\\u0007\": changed\n  []: + \"new\"\n"
        );
    }
    let mut state = turned(&host)["sessions"][0]["state"].take();
    state["tags"].as_array_mut().expect("tags").retain(|tag| tag != "a");
    let edited = file(&host, "edited", &state.to_string());
    let edit = host.command(&["state", "edit", "--yes", "1"]).env("VISUAL", format!("cp {edited}")).output();
    let told = String::from_utf8(edit.expect("an edit").stdout).expect("UTF-8");
    assert!(told.starts_with("  tags[]: - \"a\"\nstate of session 1 set: tags[], "), "{told}");
}

/// Fields that are stored in a form of their own are not at fault.
#[test]
fn a_refusal_names_the_field_at_fault() {
    let (host, _peer) = serve();
    let why = "service given, session 1: field count: expected integer, found \"x\"";
    refused(&host, &["state", "set", "1", "count=x"], why);
    refused(&host, &["state", "set", "1", "from=x"], "field from: unknown variant `x`");
    refused(
        &host,
        &["state", "set", "1", "conut=null"],
        "field conut: unknown; there are: mark, from, tags, ",
    );
    let mut dump = host.json(&["state", "dump"]);
    dump["sessions"][0]["state"]["count"] = json!("x");
    refused(&host, &["state", "restore", &file(&host, "dump", &dump.to_string())], why);
}

/// A key that is there twice is refused wherever JSON is given.
#[test]
fn a_key_that_is_there_twice_is_refused() {
    let (host, _peer) = serve();
    let twice = |text: &str| text.replacen("\"count\":12", "\"count\":12,\"count\":13", 1);
    let whole = twice(&host.json(&["state", "dump"]).to_string());
    let lines = twice(&done(&host, &["state", "dump", "--ndjson"]));
    let before = host.json(&["state", "dump"])["sessions"].take();
    for (name, text, why) in [
        (
            "whole",
            whole,
            "not a dump: key \"count\" of sessions[0].state is there twice: one of both would be lost",
        ),
        ("lines", lines, "not a dump: line 2: key \"count\" of session.state is there twice"),
    ] {
        let file = file(&host, name, &text);
        refused(&host, &["state", "restore", &file], why);
        refused(&host, &["state", "restore", "--dry-run", &file], why);
        refused(&host, &["state", "diff", &file], why);
    }
    let value = r#"{"a": 1, "a": 2}"#;
    let why = "key \"a\" is there twice";
    refused(&host, &["state", "set", "1", &format!("tags={value}")], why);
    refused(&host, &["table", "put", "--new", "free", "k", value], why);
    refused(
        &host,
        &["table", "get", "rooms", r#"{"$b64": "AA==", "$b64": "AQ=="}"#],
        "key \"$b64\" is there twice",
    );
    refused(&host, &["sessions", "--where", &format!("tags={value}")], why);
    let draft = file(&host, "draft", value);
    let edit = host
        .command(&["state", "edit", "--yes", "1"])
        .env("VISUAL", format!("cp {draft}"))
        .stdin(Stdio::null())
        .output();
    let edit = String::from_utf8(edit.expect("an edit").stderr).expect("UTF-8");
    assert!(edit.contains(why), "{edit}");
    assert_eq!(host.json(&["state", "dump"])["sessions"], before);
}

/// A misspelt key would lose what it holds.
#[test]
fn a_misspelt_key_of_a_dump_is_refused() {
    let (host, _peer) = serve();
    let mut dump = host.json(&["state", "dump"]);
    assert_eq!(dump["revision"], 1);
    dump["tables"]["rooms"][0]["until_mss"] = json!(4_000_000_000_000_u64);
    let why = "key \"until_mss\" of tables.rooms[0] is unknown: what it holds would be lost; \
               there are: key, value, version, until_ms";
    refused(&host, &["state", "restore", &file(&host, "whole", &dump.to_string())], why);
    // A later version may know it.
    dump["revision"] = json!(2);
    done(&host, &["state", "restore", &file(&host, "later", &dump.to_string())]);
    let lines =
        done(&host, &["state", "dump", "--ndjson"]).replace("\"value\":", "\"until_mss\": 5, \"value\":");
    let why = "line 4: key \"until_mss\" of entry is unknown";
    refused(&host, &["state", "restore", &file(&host, "lines", &lines)], why);
    let entry = host.json(&["table", "scan", "rooms", "--json"]);
    assert_eq!(entry["until_ms"], Value::Null);
}

/// An entry under a key that its owner can't read would fail each scan.
#[test]
fn an_entry_is_put_where_it_is_found() {
    let (host, mut peer) = serve();
    let why = "table rooms, key \"8\": service given can't read the key: [38] is no u32; \
               a key that is no text is given by its bytes, as {\"$b64\": \"...\"}";
    refused(&host, &["table", "put", "rooms", "8", "[\"ann\"]"], why);
    let mut dump = host.json(&["state", "dump"]);
    dump["tables"]["rooms"][0]["key"] = json!("8");
    refused(&host, &["state", "restore", &file(&host, "dump", &dump.to_string())], why);
    done(&host, &["table", "put", "rooms", "{\"$b64\": \"AAAACA==\"}", "[\"ann\"]"]);
    assert_eq!(done(&host, &["table", "get", "rooms", "{\"$b64\": \"AAAACA==\"}"]), "[\n  \"ann\"\n]\n");

    let why = "no table is called \"romos\", and no service that is loaded owns one of this name; there are: rooms; \
               to make it, say --new";
    refused(&host, &["table", "put", "romos", "k", "1"], why);
    assert_eq!(host.last_ledger_line()["outcome"], "refused");
    refused(&host, &["table", "get", "romos", "k"], "no table is called");
    done(&host, &["table", "put", "romos", "k", "1", "--new"]);
    done(&host, &["table", "put", "romos", "k", "2"]);
    assert_eq!(peer.ask("x"), "13");
}
