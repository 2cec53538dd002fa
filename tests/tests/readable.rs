//! States that can be read: what is stored is read by the next turn, shown by a dump, and taken
//! back by a restore. What can't be is never stored.

use greenroom_tests::client::Client;
use greenroom_tests::fixture::Fixture;
use greenroom_tests::host::Host;
use greenroom_tests::{built, wait_for};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::Command;

/// Service whose state has all that is hard to store. `prefix` begins each answer, `more` is a
/// field's declaration, and `turn` runs first in each turn of a message.
///
/// A line is a command and a number. Each line is counted and answered with the count.
fn source(service: &str, prefix: &str, more: &str, turn: &str) -> String {
    r##"
#![forbid(unsafe_code)]
use greenroom_handler::{Action, Fault, Handler, NoConfig, Turn, export};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr};

export!(Readable);

#[derive(Default, Serialize, Deserialize, JsonSchema)]
struct State {
    count: u64,
    // Its schema hides what can't be read again, so only a turn finds it.
    #[schemars(with = "Option<String>")]
    origin: Option<Origin>,
    twice: Option<Option<u64>>,
    deep: Deep,
    map: HashMap<String, u64>,
    set: HashSet<u64>,
    mark: Mark,
    MORE
}

#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
enum Origin {
    Ip(IpAddr),
    Name(String),
}

/// A map whose keys are no strings: in JSON a level of it has three.
#[derive(Default, Serialize, Deserialize, JsonSchema)]
struct Deep(BTreeMap<u32, Deep>);

/// A text that can't be read any more once the file that it names is there.
#[derive(Default, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String")]
struct Mark(String);

impl TryFrom<String> for Mark {
    type Error = String;
    fn try_from(path: String) -> Result<Mark, String> {
        match !path.is_empty() && std::path::Path::new(&path).exists() {
            true => Err("the mark is there".into()),
            false => Ok(Mark(path)),
        }
    }
}

struct Readable;

impl Handler for Readable {
    const SERVICE: &'static str = "SERVICE";
    const PORT: u16 = 0;
    type State = State;
    type Config = NoConfig;

    fn new(_: NoConfig) -> Result<Self, String> {
        Ok(Readable)
    }

    fn handle(&self, turn: &mut Turn<'_, State>, action: Action<'_>) -> Result<(), Fault> {
        let Action::Message(line) = action else { return Ok(()) };
        let line = String::from_utf8_lossy(line);
        TURN
        let (command, with) = line.split_once(' ').unwrap_or((&line, ""));
        let state = &mut *turn.state;
        state.count += 1;
        match command {
            "ip" => state.origin = Some(Origin::Ip(Ipv4Addr::LOCALHOST.into())),
            "name" => state.origin = Some(Origin::Name(with.into())),
            "twice" => state.twice = Some(with.parse().ok()),
            "deep" => state.deep = (0..with.parse()?).fold(Deep::default(), |d, n| Deep([(n, d)].into())),
            "fill" => {
                state.map = (0..with.parse()?).map(|n: u64| (n.to_string(), n)).collect();
                state.set = (0..with.parse()?).collect();
            }
            "mark" => state.mark = Mark(with.into()),
            _ => {}
        }
        let count = state.count;
        turn.send_line(format!("PREFIX {count}"));
        Ok(())
    }
}
"##
    .replace("SERVICE\"", &format!("{service}\""))
    .replace("PREFIX", prefix)
    .replace("MORE", more)
    .replace("TURN", turn)
}

/// Builds a library, one for each pair of a field and a beginning of a turn, with the prefixes
/// `one`, `two` and so on.
fn builds(service: &str, variants: &[(&str, &str)]) -> Vec<PathBuf> {
    let fixture = Fixture::new(&service.replace('-', "_"), "");
    let build = |(prefix, (more, turn)): (&str, &(&str, &str))| {
        fixture.write(&source(service, prefix, more, turn));
        fixture.build_as(&format!("{prefix}.so"))
    };
    ["one", "two", "three"].into_iter().zip(variants).map(build).collect()
}

/// The only session in a dump.
fn session(host: &Host) -> Value {
    host.json(&["state", "dump"])["sessions"][0].take()
}

/// Restores a document, and returns the exit code and the report.
fn restore(host: &Host, text: &str) -> (Option<i32>, Value) {
    let file = host.dir().join("dump.json");
    std::fs::write(&file, text).expect("a file");
    let out = host.cli(&["state", "restore", "--json", file.to_str().expect("UTF-8")]);
    (out.status.code(), serde_json::from_slice(&out.stdout).unwrap_or_else(|e| panic!("{e}: {out:?}")))
}

#[test]
fn a_turn_whose_state_could_not_be_read_again_fails() {
    let [one, two] = &builds("readable-turn", &[("", ""); 2])[..] else { unreachable!() };
    let host = Host::serve(&["readable-turn"], &[one]);
    let mut client = Client::connect(host.addr("readable-turn"));
    assert_eq!(client.ask("name ann"), "one 1");
    // Alone, and as one of many lines of a batch: the others count.
    client.send("ip\n");
    client.send("twice 7\ntwice none\nx\ndeep 200\nx\nip\n");
    assert_eq!([(); 3].map(|()| client.line().expect("an answer")), ["one 2", "one 3", "one 4"]);
    assert_eq!(client.ask("x"), "one 5");
    host.wait_log("the state can't be stored: field origin: it couldn't be read again: ");
    host.wait_log("the state can't be stored: field twice: it is Some of nothing");
    host.wait_log("it nests deeper than 128 levels");

    let now = session(&host);
    let state = &now["state"];
    assert_eq!((&state["origin"], &state["twice"], &state["count"]), (&json!("ann"), &json!(7), &json!(5)));
    let (code, report) = host.reload_from("readable-turn", two);
    assert_eq!((code, &report["outcome"]), (Some(0), &json!("committed")), "{report}");
    assert_eq!(client.ask("x"), "two 6");
}

#[test]
fn a_default_that_could_not_be_read_is_refused_with_its_field() {
    let fixture = Fixture::new("readable_default", &source("readable-default", "one", "", ""));
    let one = fixture.build_as("one.so");
    let bad = "#[serde(default)] bad: Bad,";
    let mut text = source("readable-default", "two", bad, "");
    text.push_str(
        "#[derive(Serialize, Deserialize, JsonSchema)] struct Bad { twice: Option<Option<u64>> }\n\
         impl Default for Bad { fn default() -> Bad { Bad { twice: Some(None) } } }\n",
    );
    fixture.write(&text);
    let host = Host::serve(&["readable-default"], &[&one]);
    let (code, report) = host.reload_from("readable-default", &fixture.build_as("two.so"));
    let reason = report["reason"].as_str().unwrap_or_default();
    assert_eq!((code, &report["outcome"]), (Some(1), &json!("refused")), "{report}");
    assert!(reason.contains("its default state can't be stored: field bad.twice: it is Some"), "{reason}");
}

/// A state of the last level goes out and comes back, though each of its levels is three of JSON.
#[test]
fn a_state_of_the_last_level_is_dumped_and_restored() {
    let [one] = &builds("readable-deep", &[("", "")])[..] else { unreachable!() };
    let host = Host::serve(&["readable-deep"], &[one]);
    let mut client = Client::connect(host.addr("readable-deep"));
    // The state is one level, and an empty map the last.
    assert_eq!(client.ask("deep 126"), "one 1");
    client.send("deep 127\n");
    assert_eq!(client.ask("x"), "one 2");
    let text = String::from_utf8(host.cli(&["state", "dump"]).stdout).expect("UTF-8");
    assert_eq!(text.matches("$map").count(), 126, "{text}");
    assert_eq!(client.ask("deep 1"), "one 3");

    let (code, report) = restore(&host, &text);
    assert_eq!((code, &report["restored"]["changed"]), (Some(0), &json!(1)), "{report}");
    let (_, report) = restore(&host, &text);
    assert_eq!(report["restored"]["unchanged"], 1, "{report}");
    let out = host.cli(&["state", "set", "1", "count=10"]);
    assert!(out.status.success(), "{out:?}");
    assert_eq!(client.ask("x"), "one 11");
    let deep = |levels: usize| "{\"$map\":[[0,".repeat(levels) + "{}" + &"]]}".repeat(levels);
    let set = |levels| host.cli(&["state", "set", "1", &format!("deep={}", deep(levels))]);
    assert!(set(126).status.success());

    // One level more is refused everywhere, and nothing ends for it.
    let worker = host.worker_pid();
    let over = text.replacen("{\"$map\":[[0,", "{\"$map\":[[0,{\"$map\":[[0,", 1);
    let over = over.replacen("]]}", "]]}]]}", 1);
    for (code, said) in [(restore(&host, &over).0, restore(&host, &over).1["reason"].to_string()), {
        let out = set(127);
        (out.status.code(), String::from_utf8_lossy(&out.stdout).into_owned())
    }] {
        assert!(code == Some(1) && said.contains("it nests deeper than 128 levels"), "{code:?} {said}");
    }
    // A path says so itself: the host is not asked.
    let path = vec!["a"; 16_000].join(".");
    let out = host.cli(&["state", "set", "1", &format!("{path}=1")]);
    let said = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.code() == Some(2) && said.contains("it nests deeper than 128 levels"), "{out:?}");
    assert_eq!((host.worker_pid(), client.ask("x")), (worker, "one 12".into()));
}

/// Maps and sets are written in another order each time. The previous build answers nevertheless.
#[test]
fn a_client_on_probation_is_answered_though_a_map_has_no_order() {
    let bad = ("#[serde(default)] more: u64,", "if &*line == \"trip\" { panic!(\"tripped\") }");
    let [one, two] = &builds("readable-map", &[("", ""), bad])[..] else { unreachable!() };
    let host = Host::serve(&["readable-map"], &[one]);
    let mut client = Client::connect(host.addr("readable-map"));
    assert_eq!(client.ask("fill 50"), "one 1");
    let (code, report) = host.reload_from("readable-map", two);
    assert_eq!(code, Some(0), "{report}");
    // From here on the state is of the new build.
    assert_eq!(client.ask("x"), "two 2");
    assert_eq!(client.ask("trip"), "one 3");
    host.wait_log("generation 1 ran it instead: panic: tripped");
}

/// A state that no build can read holds no reload back, counts against no build on probation, and
/// is read by the build that can.
#[test]
fn a_state_that_nobody_can_read_does_not_hold_reloads_back() {
    let fields = ["", "#[serde(default)] b: u64,", "#[serde(default)] b: u64, #[serde(default)] c: u64,"];
    let [one, two, three] = &builds("readable-old", &fields.map(|f| (f, "")))[..] else { unreachable!() };
    // One fault that counts would roll a build back.
    let host = Host::serve_limited("readable-old", one, "probation_faults_max = 1\nprobation_turns = 3");
    let mut good = Client::connect(host.addr("readable-old"));
    assert_eq!(good.ask("x"), "one 1");
    let mut bad = Client::connect(host.addr("readable-old"));
    let mark = host.dir().join("mark");
    assert_eq!(bad.ask(&format!("mark {}", mark.display())), "one 1");
    std::fs::write(&mark, "").expect("a mark");

    // Before anybody has noticed.
    let (code, report) = host.reload_from("readable-old", two);
    assert_eq!((code, &report["outcome"]), (Some(0), &json!("committed")), "{report}");
    let told = report["rehearsal"]["unread_before"].as_str().unwrap_or_default();
    assert!(told.starts_with("1 of 2 sessions can't be read by the build that serves either: "), "{report}");
    assert!(told.contains("session 2: ") && told.contains("the mark is there"), "{told}");
    bad.send("x\n");
    let quarantined = || {
        let sessions = host.json(&["sessions", "--json"]);
        let all = sessions.as_array().expect("sessions");
        all.iter().any(|s| !s["quarantined"].is_null()).then_some(())
    };
    wait_for("the quarantine", quarantined);
    for count in 2..6 {
        assert_eq!(good.ask("x"), format!("two {count}"));
    }
    wait_for("the end of the probation", || {
        (host.last_ledger_line()["probation"]["state"] == "passed").then_some(())
    });

    // Once it is quarantined, and with a standby that has not written it.
    let (code, report) = host.reload_from("readable-old", three);
    assert_eq!((code, &report["outcome"]), (Some(0), &json!("committed")), "{report}");
    wait_for("the quarantine by the next build", || {
        let faults = host.service("readable-old")["faults"].as_u64();
        faults.filter(|f| *f == 2).and_then(|_| quarantined())
    });
    assert_eq!(good.ask("x"), "three 6");

    std::fs::remove_file(&mark).expect("no mark");
    assert!(host.cli(&["session", "release", "2"]).status.success());
    assert_eq!(bad.line().as_deref(), Some("three 2"));
}

/// Integers beyond 2^53 are strings for programs that would change them, and come back exact.
#[test]
fn large_integers_survive_a_program_that_has_none() {
    let [one] = &builds("readable-large", &[("", "")])[..] else { unreachable!() };
    let host = Host::serve(&["readable-large"], &[one]);
    let mut client = Client::connect(host.addr("readable-large"));
    assert_eq!(client.ask("twice 18446744073709551615"), "one 1");
    assert!(host.cli(&["state", "set", "1", "count=9007199254740993"]).status.success());

    let tagged = host.json(&["state", "dump", "--strings"]);
    let state = &tagged["sessions"][0]["state"];
    assert_eq!(state["count"], json!({"$int": "9007199254740993"}));
    assert_eq!(state["twice"], json!({"$int": "18446744073709551615"}));
    let (_, report) = restore(&host, &tagged.to_string());
    assert_eq!(report["restored"]["unchanged"], 1, "{report}");
    assert_eq!(client.ask("x"), "one 9007199254740994");
    let (code, report) = restore(&host, &tagged.to_string());
    assert_eq!((code, &report["restored"]["changed"]), (Some(0), &json!(1)), "{report}");
    assert_eq!(session(&host)["state"]["count"], json!(9007199254740993u64));
    let set = host.cli(&["state", "set", "1", "count={\"$int\": \"9007199254740995\"}"]);
    assert!(set.status.success(), "{set:?}");
    assert_eq!(client.ask("x"), "one 9007199254740996");
}

/// A caller whose input can't be read is told why, though it still writes.
#[test]
fn a_restore_reads_its_input_to_the_end_and_says_why_it_is_refused() {
    let [one] = &builds("readable-input", &[("", "")])[..] else { unreachable!() };
    let host = Host::serve(&["readable-input"], &[one]);
    let mut stream = UnixStream::connect(host.runtime().join("admin.sock")).expect("the socket");
    stream.write_all(b"{\"restore\": {\"file\": \"x\", \"dry_run\": false}}\n").expect("a command");
    let mut answers = BufReader::new(stream.try_clone().expect("the socket")).lines();
    assert_eq!(answers.next().expect("an answer").expect("a line"), "\"go\"");
    // More than the socket holds, so that a host that stops reading is noticed.
    let line = format!("{{\"from-the-future\": \"{}\"}}\n", "x".repeat(1000));
    for _ in 0..5000 {
        stream.write_all(line.as_bytes()).expect("the host reads on");
    }
    stream.write_all(b"not JSON\n\"end\"\n").expect("the host reads on");
    let report: Value =
        serde_json::from_str(&answers.next().expect("an answer").expect("a line")).expect("JSON");
    let report = &report["report"];
    assert_eq!(report["outcome"], "refused", "{report}");
    let reason = report["reason"].as_str().expect("a reason");
    assert!(reason.contains("can't read what follows the command: unknown variant"), "{reason}");
    assert!(reason.ends_with("; and there may be more") && reason.len() < 3000, "{reason}");
}

/// A type whose values do not come back is found before it serves, and the author reads which
/// field, why, and what to write.
#[test]
fn a_build_whose_values_do_not_come_back_is_refused() {
    let build = &builds("kept", &[("#[serde(default)] plain: Option<Origin>,", "")])[0];
    let out = Command::new(built("greenroom")).arg("check").arg(build).output().expect("a check");
    let words = [out.stdout, out.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat();
    assert_ne!(out.status.code(), Some(0), "{words}");
    for part in ["its state can't be kept: field plain", "untagged enum Origin", "give the enum a tag"] {
        assert!(words.contains(part), "{words}");
    }
}
