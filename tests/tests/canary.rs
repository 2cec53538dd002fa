//! Canaries on a real host: a candidate with another version of the state runs some sessions. It
//! goes through kills and an upgrade, and is taken back or promoted, by command and by rule.

use greenroom_tests::client::Client;
use greenroom_tests::fixture::{Fixture, versions_source};
use greenroom_tests::host::Host;
use greenroom_tests::{built, wait_for};
use serde_json::Value;
use std::path::PathBuf;

/// Two builds of a service: the second renames a field, and aborts or panics on request.
fn builds(service: &str) -> [PathBuf; 2] {
    let fixture = Box::leak(Box::new(Fixture::new(service, "")));
    fixture.write(&versions_source(service, "v1", 1, false));
    let before = fixture.build_as("before.so");
    let aborts = "let line = String::from_utf8_lossy(line).into_owned();\n if line == \"die\" { std::process::abort() }";
    let candidate = versions_source(service, "v2", 2, true).replacen(
        "let line = String::from_utf8_lossy(line).into_owned();",
        aborts,
        1,
    );
    fixture.write(&candidate);
    [before, fixture.build_as("candidate.so")]
}

/// Runs a command that prints one line of JSON. Returns its exit code, too.
fn run(host: &Host, args: &[&str]) -> (Option<i32>, Value) {
    let out = host.cli(args);
    let said = String::from_utf8_lossy(&out.stdout).into_owned();
    (out.status.code(), serde_json::from_str(&said).unwrap_or_else(|e| panic!("{args:?}: {e}: {out:?}")))
}

/// Number of the last session.
fn last_session(host: &Host) -> String {
    let all = host.json(&["sessions", "--json"]);
    let ids = all.as_array().expect("sessions").iter().filter_map(|s| s["id"].as_u64());
    ids.max().expect("a session").to_string()
}

#[test]
fn chosen_and_new_sessions_run_a_candidate_until_it_is_taken_back_or_promoted() {
    let [before, candidate] = builds("yellow");
    let host = Host::serve(&["yellow"], &[&before]);
    let from = candidate.to_str().expect("a path");
    let mut other = Client::connect(host.addr("yellow"));
    assert_eq!(other.ask("a"), "v1 1 a");
    let mut chosen = Client::connect(host.addr("yellow"));
    assert_eq!(chosen.ask("a"), "v1 1 a");
    let id = last_session(&host);

    // Nothing begins without somebody to run it, or with a number that nobody has.
    let none = host.cli(&["reload", "yellow", "--from", from, "--canary", "0%"]);
    assert!(String::from_utf8_lossy(&none.stderr).contains("needs a share"), "{none:?}");
    let nobody = host.cli(&["reload", "yellow", "--from", from, "--sessions", "999"]);
    assert!(String::from_utf8_lossy(&nobody.stderr).contains("no session of yellow has number 999"));

    let (code, begun) = run(&host, &["reload", "yellow", "--from", from, "--sessions", &id, "--json"]);
    assert_eq!((code, &begun["outcome"], &begun["generation"]), (Some(0), &"canary".into(), &1.into()));
    assert_eq!((&begun["canary"]["generation"], &begun["canary"]["chosen"]), (&2.into(), &1.into()));
    assert_eq!((chosen.ask("b"), other.ask("b")), ("v2 2 b".into(), "v1 2 b".into()));
    assert_eq!(host.service("yellow")["canary"]["generation"], 2);

    // A kill and an upgrade change no session's build, and lose no count.
    host.kill_worker();
    assert_eq!((chosen.ask("c"), other.ask("c")), ("v2 3 c".into(), "v1 3 c".into()));
    let upgrade = host.cli(&["upgrade", "--binary", built("greenroom").to_str().expect("a path")]);
    assert!(upgrade.status.success(), "{upgrade:?}");
    assert_eq!((chosen.ask("d"), other.ask("d")), ("v2 4 d".into(), "v1 4 d".into()));
    let shown = host.json(&["canary", "--json"]);
    let (serving, of) = (&shown[0]["serving"], &shown[0]["candidate"]);
    assert_eq!(
        (&of["generation"], &of["sessions"], &of["turns"]),
        (&2.into(), &1.into(), &3.into()),
        "{shown}"
    );
    assert_eq!((&serving["sessions"], &serving["turns"], &of["faults"]), (&1.into(), &3.into(), &0.into()));
    assert!(of["mean_ns"].as_u64() > Some(0) && serving["p99_ns"].as_u64() > Some(0), "{shown}");
    assert!(String::from_utf8_lossy(&host.cli(&["canary"]).stdout).contains("CANDIDATE"));

    // An operator sets a state of either build.
    assert!(host.cli(&["state", "set", &id, "lines=10"]).status.success());
    assert_eq!(chosen.ask("e"), "v2 11 e");

    // Reloads wait for its end.
    let (code, refused) = run(&host, &["reload", "yellow", "--from", from, "--json"]);
    assert!(refused["reason"].as_str().expect("a reason").contains("runs as a canary"), "{refused}");
    assert_eq!(code, Some(1));

    // Taken back: the state goes down.
    let (code, taken) = run(&host, &["canary", "cancel", "yellow", "--json"]);
    assert_eq!(
        (code, &taken["outcome"], &taken["canary"]["turns"]),
        (Some(0), &"taken-back".into(), &4.into())
    );
    assert_eq!((chosen.ask("f"), other.ask("f")), ("v1 12 f".into(), "v1 5 f".into()));
    assert_eq!(host.json(&["canary", "--json"]), Value::Array(Vec::new()));
    assert_eq!(host.cli(&["canary", "cancel", "yellow"]).status.code(), Some(1));
    assert_eq!(host.cli(&["canary", "promote", "nosuch"]).status.code(), Some(1));

    // A fault is answered by the build before, and a rule takes the candidate back for it.
    let all = ["reload", "yellow", "--from", from, "--canary", "100%", "--faults-max", "0", "--compare", "1"];
    let begin = || assert!(host.cli(&all).status.success(), "{}", host.log());
    begin();
    let mut new = Client::connect(host.addr("yellow"));
    assert_eq!((new.ask("g"), chosen.ask("g")), ("v2 1 g".into(), "v1 13 g".into()));
    assert_eq!(new.ask("trip"), "v1 2 trip");
    let by_rule = |host: &Host| {
        let line = host.last_ledger_line();
        (line["outcome"] == "taken-back" && line["by"] == "rule").then_some(line)
    };
    let line = wait_for("the rule", || by_rule(&host));
    assert_eq!((&line["canary"]["faults"], &line["canary"]["turns"]), (&1.into(), &3.into()), "{line}");
    // The first turn of the session answers nothing; the other two differ.
    assert_eq!((&line["canary"]["compared"], &line["canary"]["differing"]), (&3.into(), &2.into()), "{line}");
    assert_eq!(new.ask("h"), "v1 3 h");

    // A candidate that kills its worker is taken back, and the build before runs the action.
    begin();
    let mut deadly = Client::connect(host.addr("yellow"));
    assert_eq!(deadly.ask("i"), "v2 1 i");
    assert_eq!(deadly.ask("die"), "v1 2 die");
    let line = wait_for("the rule", || by_rule(&host));
    assert!(line["reason"].as_str().expect("a reason").contains("killed a worker"), "{line}");

    // Sessions whose state holds a value, and a promotion by rule.
    let (code, begun) = run(
        &host,
        &["reload", "yellow", "--from", from, "--where", "last=h", "--promote-after", "1s", "--json"],
    );
    assert_eq!((code, &begun["canary"]["chosen"]), (Some(0), &1.into()), "{begun}");
    let generation = begun["canary"]["generation"].as_u64().expect("a number");
    assert_eq!(new.ask("j"), "v2 4 j");
    host.wait_generation("yellow", generation);
    assert_eq!((new.ask("k"), chosen.ask("k")), ("v2 5 k".into(), "v2 14 k".into()));
    let line = host.last_ledger_line();
    assert_eq!((&line["outcome"], &line["by"]), (&"committed".into(), &"rule".into()), "{line}");
    assert_eq!(line["canary"]["generation"], generation);
}
