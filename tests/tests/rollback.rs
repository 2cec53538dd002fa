//! Rollbacks: the previous build takes over again, by the host's own decision or by an operator's.
//! No state is lost on the way there or back.

use greenroom_tests::client::Client;
use greenroom_tests::fixture::{Fixture, compile_c, install, tally_source, versions_source};
use greenroom_tests::host::Host;
use greenroom_tests::wait_for;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// Builds of one crate, kept aside.
fn builds(service: &str, sources: &[String]) -> Vec<PathBuf> {
    let fixture = Box::leak(Box::new(Fixture::new(&service.replace('-', "_"), "")));
    let build = |(n, source): (usize, &String)| {
        fixture.write(source);
        fixture.build_as(&format!("{n}.so"))
    };
    sources.iter().enumerate().map(build).collect()
}

/// The command in the background, as it waits.
fn reload_and_wait(host: &Host, service: &str, path: &Path) -> std::thread::JoinHandle<(Option<i32>, Value)> {
    let mut command = host.command(&["reload", service, "--wait", "--json", "--from"]);
    command.arg(path);
    std::thread::spawn(move || {
        let out = command.output().expect("greenroom reload");
        let said = String::from_utf8_lossy(&out.stdout).into_owned();
        (out.status.code(), serde_json::from_str(&said).unwrap_or_else(|e| panic!("{e}: {out:?}")))
    })
}

/// Kills the worker from outside, and does not wait for another one.
fn kill_worker(host: &Host) {
    // SAFETY: kill has no preconditions.
    unsafe { libc::kill(host.worker_pid(), libc::SIGKILL) };
}

/// A tally whose every turn panics, once its session has a state.
fn panicking(service: &str) -> String {
    tally_source(service, "two").replacen(
        "turn.state.count += 1;",
        "turn.state.count += 1; if turn.state.count > 1 { panic!(\"everywhere\") }",
        1,
    )
}

/// Clients that each asked once.
fn connect(host: &Host, service: &str, clients: usize) -> Vec<Client> {
    let mut clients: Vec<_> = (0..clients).map(|_| Client::connect(host.addr(service))).collect();
    for c in &mut clients {
        assert_eq!(c.ask("before"), "one 1 before");
    }
    clients
}

#[test]
fn a_build_that_panics_at_every_turn_is_rolled_back_before_a_client_saw_it() {
    let good = tally_source("panicky", "one");
    let [good, bad] = &builds("panicky", &[good, panicking("panicky")])[..] else { unreachable!() };
    let host = Host::serve_limited("panicky", good, "");
    let mut clients = connect(&host, "panicky", 20);

    let waits = reload_and_wait(&host, "panicky", bad);
    host.wait_generation("panicky", 2);

    for round in 2..6 {
        for c in &mut clients {
            assert_eq!(c.ask("on"), format!("one {round} on"));
        }
    }

    let (code, report) = waits.join().expect("the command");
    assert_eq!(
        (code, &report["outcome"], &report["generation"]),
        (Some(1), &json!("rolled-back"), &json!(1)),
        "{report}"
    );
    assert_eq!(
        (&report["probation"]["faults"], &report["probation"]["spared"]),
        (&json!(5), &json!(5)),
        "{report}"
    );
    let line = host.last_ledger_line();
    assert_eq!(
        (&line["outcome"], &line["by"], &line["generation"]),
        (&json!("rolled-back"), &json!("host"), &json!(1))
    );
    assert!(line["reason"].as_str().is_some_and(|r| r.contains("limit probation_faults_max")), "{line}");
    host.wait_log("turn failed, and generation 1 ran it instead: panic: everywhere");
    // The watcher leaves it alone, and an operator may try again.
    assert_eq!(host.generation("panicky"), 1);
    assert_eq!(clients[0].ask("on"), "one 6 on");
    let (code, report) = host.reload_from("panicky", bad);
    assert_eq!((code, &report["generation"]), (Some(0), &json!(3)), "{report}");
}

/// A worker that dies while it rolls back leaves the build that fails on probation, or the previous
/// one in its place: never both, and the client sees neither.
#[test]
fn a_kill_at_any_step_of_a_rollback_ends_with_the_previous_build() {
    let good = tally_source("dies", "one");
    let [good, bad] = &builds("dies", &[good, panicking("dies")])[..] else { unreachable!() };
    let dir = tempfile::tempdir().expect("a directory");
    for point in ["rolled-back", "roll-back-committed"] {
        let plan = dir.path().join(point);
        std::fs::write(&plan, format!("{point} 0\n")).expect("a plan");
        let host = Host::serve_with(&["dies"], &[good], |c| {
            c.env("GREENROOM_KILL_PLAN", &plan);
        });
        let mut clients = connect(&host, "dies", 20);

        let (code, report) = host.reload_from("dies", bad);
        assert_eq!((code, &report["generation"]), (Some(0), &json!(2)), "{point}: {report}");
        let mut round = 1;
        wait_for("the previous build", || {
            round += 1;
            for c in &mut clients {
                assert_eq!(c.ask("on"), format!("one {round} on"), "{point}");
            }
            let host = host.json(&["status", "--json"]);
            let over = host["host"]["workers_before"] == 1 && host["services"][0]["generation"] == 1;
            over.then_some(())
        });

        let history = host.json(&["history", "--json"]);
        let lines = history.as_array().expect("lines");
        let back: Vec<_> = lines.iter().filter(|l| l["outcome"] == "rolled-back").collect();
        assert_eq!(back.len(), 1, "{point}: {history}");
        assert_eq!(lines[1]["probation"]["state"], "rolled-back", "{point}: {history}");
        let states = host.json(&["state", "dump", "--service", "dies"])["sessions"].clone();
        let counts: Vec<_> =
            states.as_array().expect("sessions").iter().map(|s| &s["state"]["count"]).collect();
        assert_eq!(counts, vec![&json!(round); 20], "{point}");

        // It can be tried again.
        let (code, report) = host.reload_from("dies", bad);
        assert_eq!((code, &report["generation"]), (Some(0), &json!(3)), "{point}: {report}");
    }
}

#[test]
fn one_segmentation_fault_on_probation_rolls_a_build_back() {
    let good = tally_source("faulty", "one");
    let die = "turn.state.count += 1; if turn.state.count > 1 { unsafe { std::ptr::null_mut::<u8>().write_volatile(1) } }";
    let bad = tally_source("faulty", "two")
        .replacen("turn.state.count += 1;", die, 1)
        .replace("#![forbid(unsafe_code)]", "");
    let [good, bad] = &builds("faulty", &[good, bad])[..] else { unreachable!() };
    let host = Host::serve_limited("faulty", good, "");
    let mut clients = connect(&host, "faulty", 20);

    let waits = reload_and_wait(&host, "faulty", bad);
    host.wait_generation("faulty", 2);

    for c in &mut clients {
        c.send("on\non\n");
    }
    for c in &mut clients {
        assert_eq!(c.line().expect("an answer"), "one 2 on");
        assert_eq!(c.line().expect("an answer"), "one 3 on");
    }

    let (code, report) = waits.join().expect("the command");
    assert_eq!((code, &report["outcome"]), (Some(1), &json!("rolled-back")), "{report}");
    assert!(
        host.last_ledger_line()["reason"]
            .as_str()
            .is_some_and(|r| r.contains("it killed a worker on probation"))
    );
    let status = host.json(&["status", "--json"]);
    assert_eq!(
        (&status["host"]["workers_before"], host.generation("faulty")),
        (&json!(1), 1),
        "one death: {status}"
    );
    assert_eq!(host.json(&["sessions", "--quarantined", "--json"]), json!([]));
}

#[test]
fn a_build_passes_its_probation_and_idle_states_are_migrated_then() {
    let sources: Vec<_> = (1..=2).map(|v| versions_source("proves", "p", v, false)).collect();
    let [one, two] = &builds("proves", &sources)[..] else { unreachable!() };
    let host = Host::serve_limited("proves", one, "probation_turns = 7");
    let mut clients: Vec<_> = (0..200).map(|_| Client::connect(host.addr("proves"))).collect();
    for c in &mut clients {
        assert_eq!(c.ask("hello"), "p 1 hello");
    }

    let waits = reload_and_wait(&host, "proves", two);
    host.wait_generation("proves", 2);

    // A kill from outside says nothing about the build, and its probation goes on.
    assert_eq!(clients[0].ask("on"), "p 2 on");
    kill_worker(&host);
    assert_eq!(clients[0].ask("on"), "p 3 on");

    let versions = || {
        let sessions = host.json(&["sessions", "--json"]);
        let all = sessions.as_array().expect("sessions").iter();
        all.filter(|s| s["state_version"] == 2).count()
    };
    assert_eq!((versions(), host.generation("proves")), (1, 2), "lazily, while it may still go back");

    for round in 4..12 {
        assert_eq!(clients[0].ask("on"), format!("p {round} on"));
    }

    let (code, report) = waits.join().expect("the command");
    assert_eq!((code, &report["outcome"]), (Some(0), &json!("committed")), "{report}");
    assert_eq!(report["probation"]["state"], "passed", "{report}");

    wait_for("the idle ones", || (versions() == 200).then_some(()));
    for c in &mut clients[1..] {
        assert_eq!(c.ask("on"), "p 2 on");
    }
}

/// A host with three versions of a service, each loaded after the other, and 100 sessions.
struct Chain {
    host: Host,
    clients: Vec<Client>,
    /// Replies to each client so far.
    counts: Vec<u64>,
    /// The dump before the second version came.
    before: (Value, Value),
}

impl Chain {
    fn new() -> Chain {
        static BUILDS: OnceLock<Vec<PathBuf>> = OnceLock::new();
        let builds = BUILDS.get_or_init(|| {
            let source = |v: u32| versions_source("chained", &format!("v{v}"), v, false);
            builds("chained", &[source(1), source(2), source(3)])
        });
        let host = Host::serve_limited("chained", &builds[0], "");
        let clients: Vec<_> = (0..100).map(|_| Client::connect(host.addr("chained"))).collect();
        let mut chain = Chain { counts: vec![0; clients.len()], before: Default::default(), host, clients };
        chain.ask_all("v1", 100);
        chain.before = chain.dump();
        for build in &builds[1..] {
            let (code, report) = chain.host.reload_from("chained", build);
            assert_eq!((code, &report["migrated"]), (Some(0), &json!(100)), "{report}");
        }
        // A lower version is no reload; there is a command for it.
        let (code, report) = chain.host.reload_from("chained", &builds[0]);
        let why = "1 is below 2, which is live; `greenroom rollback` goes back to a build that ran before";
        assert!(code == Some(1) && report["reason"].as_str().is_some_and(|r| r.contains(why)), "{report}");
        chain
    }

    /// Sessions and tables, without what a swap may change.
    fn dump(&self) -> (Value, Value) {
        let mut dump = self.host.json(&["state", "dump"]);
        for s in dump["sessions"].as_array_mut().expect("sessions") {
            for key in ["state_version", "opened_at", "peer"] {
                s.as_object_mut().expect("a session").remove(key);
            }
        }
        (dump["sessions"].clone(), dump["tables"].clone())
    }

    /// The first clients say a line of their own, and are answered under this prefix.
    #[track_caller]
    fn ask_all(&mut self, prefix: &str, clients: usize) {
        for (n, c) in self.clients.iter_mut().enumerate().take(clients) {
            self.counts[n] += 1;
            assert_eq!(c.ask(&format!("line {n}")), format!("{prefix} {} line {n}", self.counts[n]));
        }
    }

    /// `greenroom rollback`: exit code and report, or what it said instead.
    fn rollback(&self, args: &[&str]) -> (Option<i32>, Value) {
        let out = self.host.cli(&[&["rollback", "chained", "--json"], args].concat());
        let said = || json!(String::from_utf8_lossy(&out.stderr));
        (out.status.code(), serde_json::from_slice(&out.stdout).unwrap_or_else(|_| said()))
    }

    /// Goes to a generation: the report.
    #[track_caller]
    fn goes_to(&self, args: &[&str], generation: u64) -> Value {
        let (code, report) = self.rollback(args);
        assert_eq!((code, &report["generation"]), (Some(0), &json!(generation)), "{report}");
        assert_eq!(self.host.generation("chained"), generation);
        report
    }
}

#[test]
fn a_generation_that_is_not_kept_is_no_aim_of_a_rollback() {
    let chain = Chain::new();

    let (code, said) = chain.rollback(&["--to", "7"]);

    let why = "generation 7 of chained is not kept; there are: 2, 1";
    assert!(code == Some(1) && said.as_str().is_some_and(|s| s.contains(why)), "{said}");
    assert_eq!(chain.host.generation("chained"), 3);
}

/// Rollbacks by one step: to the build that served before, although that one was on probation, too,
/// and another build stands by. A build that was left behind is none to go back to.
#[test]
fn a_rollback_goes_to_the_build_that_served_before() {
    let dir = tempfile::tempdir().expect("a directory");
    let [one, two, three] = ["1", "2", "3"].map(|name| {
        let file = dir.path().join(format!("{name}.so"));
        compile_c("upper.c", &[&format!("-DEND=\"{name}\"")], &file);
        file
    });
    let host = Host::serve_limited("upper", &one, "probation_ms = 3600000\nprobation_turns = 1000000");
    let mut client = Client::connect(host.addr("upper"));
    assert_eq!(client.ask("a"), "1 A1");
    let load = |file: &Path, generation: u64| {
        let (code, report) = host.reload_from("upper", file);
        assert_eq!((code, &report["generation"]), (Some(0), &json!(generation)), "{report}");
        assert_eq!(report["probation"]["state"], "under-way", "{report}");
    };
    let back = |generation: u64| {
        let out = host.cli(&["rollback", "upper"]);
        let said = String::from_utf8_lossy(&out.stdout).into_owned();
        let words = format!("upper: rolled back to generation {generation}, build ");
        assert!(out.status.success() && said.starts_with(&words), "{said}{out:?}");
        assert_eq!(host.generation("upper"), generation);
        let line = host.last_ledger_line();
        assert_eq!((&line["outcome"], &line["generation"]), (&json!("rolled-back"), &json!(generation)));
        assert_eq!(line["build"], host.service("upper")["build"], "{line}");
    };
    let stays = |why: &str| {
        let out = host.cli(&["rollback", "upper"]);
        let said = String::from_utf8_lossy(&out.stderr).into_owned();
        assert!(out.status.code() == Some(1) && said.contains(why), "{said}");
    };

    stays("no build of upper but generation 1 is kept (limit builds_kept)");
    load(&two, 2);
    load(&three, 3);
    assert_eq!(client.ask("b"), "2 B3");
    back(2);
    assert_eq!(client.ask("c"), "3 C2");
    back(1);
    assert_eq!(client.ask("d"), "4 D1");
    stays("no build from before generation 1 of upper is kept; `--to` goes to others: 2, 3");

    // Generations 2 and 3 were left behind.
    load(&two, 4);
    assert_eq!(client.ask("e"), "5 E2");
    kill_worker(&host);
    assert_eq!(client.ask("f"), "6 F2");
    back(1);
    assert_eq!(client.ask("g"), "7 G1");
}

/// Three versions up, and down again, by an operator; states and tables are what they were.
#[test]
fn a_chain_of_three_versions_goes_up_and_down() {
    let mut chain = Chain::new();

    // Half of them meet the newest build, so that versions 1 and 3 are stored; one says something
    // new.
    chain.ask_all("v3", 50);
    for (n, c) in chain.clients.iter_mut().enumerate().take(50) {
        assert_eq!(c.ask(&format!("who line {n}")), format!("{}", n + 1));
    }
    assert_eq!(chain.clients[0].ask("new"), "v3 3 new");
    chain.counts[0] += 1;

    assert_eq!(chain.goes_to(&["--to", "1"], 1)["outcome"], "rolled-back");
    chain.ask_all("v1", 100);
    assert_eq!(chain.clients[99].ask("who new"), "1");

    // Forward again, and down step by step, as well while a successor has to convert.
    chain.goes_to(&["--to", "3"], 3);
    chain.ask_all("v3", 100);
    chain.goes_to(&[], 2);
    chain.goes_to(&[], 1);
    kill_worker(&chain.host);
    for c in &mut chain.clients {
        assert_eq!(c.ask("who new"), "1");
    }

    // States that nobody asks for are downgraded, too; then all is as at first, but for the counts.
    let total: u64 = chain.counts.iter().sum();
    assert_eq!(total, 5 + 49 * 4 + 50 * 3);
    wait_for("all of version 1", || {
        let (mut sessions, mut tables) = chain.dump();
        let counts = sessions.as_array_mut().expect("sessions").iter_mut().map(|s| {
            let old = s["state"]["count"].as_u64()?;
            s["state"]["count"] = json!(1);
            Some(old)
        });
        assert_eq!(counts.sum::<Option<u64>>()?, total);
        tables["chained-first"].as_array_mut().expect("entries").retain(|e| e["key"] != "new");
        ((sessions, tables) == chain.before).then_some(())
    });
}

/// Only a table's version was raised, and nobody is connected: nothing else tells a rollback that
/// entries must be downgraded.
#[test]
fn table_entries_are_downgraded_when_only_they_changed() {
    let first = versions_source("stored", "v", 1, false);
    let way = "own_at(&FIRST, 2, Migrations::none().from(1, |old: First| Ok(old)).back(2, |new: First| Ok(First { by: new.by })))";
    let second = first.replacen("own(&FIRST)", way, 1);
    assert_ne!(first, second);
    let [first, second] = &builds("stored", &[first, second])[..] else { unreachable!() };
    let host = Host::serve_limited("stored", first, "");

    let say = |line: &str, more: &str| {
        let mut client = Client::connect(host.addr("stored"));
        assert_eq!(client.ask(line), more, "{}", host.log());
        drop(client);
        wait_for("it to be gone", || (host.service("stored")["sessions"] == 0).then_some(()));
    };

    say("before", "v 1 before");
    let out = host.cli(&["reload", "stored", "--from", second.to_str().expect("UTF-8")]);
    assert!(out.status.success(), "{out:?}");
    say("after", "v 1 after");

    let out = host.cli(&["rollback", "stored", "--json"]);
    let report: Value = serde_json::from_slice(&out.stdout).unwrap_or_else(|e| panic!("{e}: {out:?}"));
    assert!(out.status.success(), "{report}");
    assert_eq!((&report["outcome"], host.generation("stored")), (&json!("rolled-back"), 1), "{report}");

    say("who after", "2");
    say("who before", "1");
}

#[test]
fn migrated_states_and_entries_are_downgraded_when_the_host_rolls_back() {
    let good = versions_source("undone", "v1", 1, false);
    let bad = versions_source("undone", "v3", 3, true);
    let [good, bad] = &builds("undone", &[good, bad])[..] else { unreachable!() };
    let host = Host::serve_limited("undone", good, "probation_faults_max = 2");
    let mut clients: Vec<_> = (0..50).map(|_| Client::connect(host.addr("undone"))).collect();
    for c in &mut clients {
        assert_eq!(c.ask("a"), "v1 1 a");
    }

    let waits = reload_and_wait(&host, "undone", bad);
    host.wait_generation("undone", 2);
    for c in clients.iter_mut().take(30) {
        assert_eq!(c.ask("b"), "v3 2 b");
    }

    // State and table have other versions in the previous build, and are downgraded: it answers.
    assert_eq!(clients[0].ask("trip"), "v1 3 trip");
    assert_eq!(clients[0].ask("c"), "v3 4 c");
    assert_eq!(clients[1].ask("trip"), "v1 3 trip");

    let (code, report) = waits.join().expect("the command");
    assert_eq!((code, &report["outcome"]), (Some(1), &json!("rolled-back")), "{report}");
    assert_eq!(
        (&report["probation"]["faults"], &report["probation"]["spared"]),
        (&json!(2), &json!(2)),
        "{report}"
    );

    for (n, c) in clients.iter_mut().enumerate() {
        let count = [5, 4].get(n).copied().unwrap_or(if n < 30 { 3 } else { 2 });
        assert_eq!(c.ask("c"), format!("v1 {count} c"));
    }
    assert_eq!(clients[0].ask("who b"), "1");
}

#[test]
fn a_build_without_downgrade_stays_and_says_why() {
    let good = versions_source("oneway", "v1", 1, false);
    let bad = versions_source("oneway", "v2", 2, true).replace(
        "rename(1, \"count\", \"lines\")",
        "from(1, |old: V1| Ok(State { lines: old.count, last: old.last }))",
    ) + "#[derive(Deserialize)]\nstruct V1 { count: u64, last: String }\n";
    let [good, bad] = &builds("oneway", &[good, bad])[..] else { unreachable!() };
    let host = Host::serve_limited("oneway", good, "probation_faults_max = 1");
    let mut client = Client::connect(host.addr("oneway"));
    let mut other = Client::connect(host.addr("oneway"));
    assert_eq!(client.ask("a"), "v1 1 a");
    assert_eq!(other.ask("a"), "v1 1 a");

    let waits = reload_and_wait(&host, "oneway", bad);
    host.wait_generation("oneway", 2);
    assert_eq!(client.ask("b"), "v2 2 b");
    // Its state is of version 1 still, so the previous build answers.
    assert_eq!(other.ask("trip"), "v1 2 trip");

    let (code, report) = waits.join().expect("the command");
    assert_eq!((code, &report["probation"]["state"]), (Some(0), &json!("failed")), "{report}");
    let why =
        "version 2 is stored, version 1 is wanted, and the build that serves has no downgrade from version 2";
    assert!(report["reason"].as_str().is_some_and(|r| r.contains(why)), "{report}");

    assert_eq!(client.ask("c"), "v2 3 c");
    let out = host.cli(&["rollback", "oneway"]);
    let said = String::from_utf8_lossy(&out.stdout);
    assert!(out.status.code() == Some(1) && said.contains(why), "{said}");
    assert_eq!((client.ask("d"), other.ask("d")), ("v2 4 d".into(), "v2 3 d".into()));
}

/// The previous build cannot run a turn that reads an entry without downgrade. Once it serves, it
/// fails that turn, and nothing of the turn stays. The turns around it go on.
#[test]
fn an_entry_without_downgrade_fails_the_turn_that_reads_it() {
    let good = versions_source("unread", "v1", 1, false);
    let parse = "new.by.parse()";
    let picky = "(if new.by == \"1\" { \"x\".to_owned() } else { new.by.clone() }).parse::<u64>()";
    let bad = versions_source("unread", "v3", 3, true);
    let trips = "line.starts_with(\"trip\")";
    assert!(bad.contains(parse) && bad.contains(trips));
    let bad = bad.replace(parse, picky).replace(trips, "line == \"b\" && turn.session() != 1");
    let [good, bad] = &builds("unread", &[good, bad])[..] else { unreachable!() };
    let host = Host::serve_limited("unread", good, "probation_faults_max = 2");

    let mut one = Client::connect(host.addr("unread"));
    let mut two = Client::connect(host.addr("unread"));
    let mut three = Client::connect(host.addr("unread"));
    assert_eq!(
        (one.ask("a"), two.ask("a"), three.ask("a")),
        ("v1 1 a".into(), "v1 1 a".into(), "v1 1 a".into())
    );

    let waits = reload_and_wait(&host, "unread", bad);
    host.wait_generation("unread", 2);
    assert_eq!(one.ask("b"), "v3 2 b");
    two.send("b\n");
    three.send("b\n");

    let report = waits.join().expect("the command").1;
    assert_eq!(report["outcome"], "rolled-back");
    let probation = &report["probation"];
    assert_eq!((&probation["faults"], &probation["spared"]), (&json!(2), &json!(0)), "{report}");

    let faults = host.service("unread")["faults"].as_u64().expect("a number");
    two.send("x\nb\ny\n");
    assert_eq!(two.line().expect("an answer"), "v1 2 x");
    assert_eq!(two.line().expect("an answer"), "v1 3 y");
    host.wait_log("the entry \"b\" of table unread-first can't be read");
    assert_eq!(host.service("unread")["faults"], faults + 1);
    assert_eq!((one.ask("c"), two.ask("z")), ("v1 3 c".into(), "v1 4 z".into()));
    assert_eq!(host.json(&["sessions", "--quarantined", "--json"]), json!([]));
}

/// A command that asks for a build that the watcher has loaded waits for its probation as well.
#[test]
fn reload_wait_reports_the_probation_of_a_build_that_the_watcher_loaded() {
    let good = tally_source("watched", "one");
    let trip = "turn.state.count += 1; assert!(turn.state.count < 2);";
    let bad = tally_source("watched", "two").replacen("turn.state.count += 1;", trip, 1);
    let [good, bad] = &builds("watched", &[good, bad])[..] else { unreachable!() };
    let dir = tempfile::tempdir().expect("a directory");
    let watched = dir.path().join("libwatched.so");
    install(good, &watched);
    let host = Host::serve_limited("watched", &watched, "");

    let mut client = Client::connect(host.addr("watched"));
    assert_eq!(client.ask("a"), "one 1 a");

    install(bad, &watched);
    host.wait_generation("watched", 2);
    let mut command = host.command(&["reload", "watched", "--wait", "--json"]);
    let waits = std::thread::spawn(move || command.output().expect("greenroom reload"));
    host.wait_log("watched: unchanged, generation 2");
    for n in 2..7 {
        assert_eq!(client.ask("on"), format!("one {n} on"));
    }

    let out = waits.join().expect("the command");
    let report: Value = serde_json::from_slice(&out.stdout).unwrap_or_else(|e| panic!("{e}: {out:?}"));
    assert_eq!((out.status.code(), &report["outcome"]), (Some(1), &json!("rolled-back")), "{report}");
}
