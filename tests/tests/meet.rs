//! Reloads that meet others, a kill at any step, or a file that changes meanwhile. Each ends in the
//! old state or in the new one, and the ledger says which.

use greenroom_tests::client::Client;
use greenroom_tests::fixture::{Fixture, install, tally_source};
use greenroom_tests::host::Host;
use greenroom_tests::wait_for;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

fn builds(service: &str, prefixes: &[&str]) -> Vec<PathBuf> {
    let fixture = Box::leak(Box::new(Fixture::new(&service.replace('-', "_"), "")));
    let build = |prefix: &&str| {
        fixture.write(&tally_source(service, prefix));
        fixture.build_as(&format!("{prefix}.so"))
    };
    prefixes.iter().map(build).collect()
}

/// Generation and build that run by the ledger: those of its last line that tells of a change.
fn ledger(host: &Host) -> (u64, String) {
    let history = host.json(&["history", "--json"]);
    let lines = history.as_array().expect("lines");
    let change = |l: &&Value| l["outcome"] == "committed" || l["outcome"] == "rolled-back";
    let last = lines.iter().rev().find(change).expect("a commit");
    (last["generation"].as_u64().expect("a number"), last["build"].as_str().expect("a hash").to_owned())
}

fn status(host: &Host, service: &str) -> (u64, String) {
    let s = host.service(service);
    (s["generation"].as_u64().expect("a number"), s["build"].as_str().expect("a hash").to_owned())
}

#[test]
fn a_kill_at_any_step_of_a_reload_leaves_the_old_build_or_the_new_one() {
    let all = builds("killed", &["one", "two"]);
    let dir = tempfile::tempdir().expect("a directory");
    let mut ended = Vec::new();
    for point in ["staged", "tried", "ports-open", "loaded", "adopted", "reload-committed", "reported"] {
        // The first load of all passes it once.
        let plan = dir.path().join(point);
        std::fs::write(&plan, format!("{point} 1\n")).expect("a plan");
        let host = Host::serve_with(&["killed"], &[&all[0]], |c| {
            c.env("GREENROOM_KILL_PLAN", &plan);
        });
        let mut clients: Vec<_> = (0..10).map(|_| Client::connect(host.addr("killed"))).collect();
        for c in &mut clients {
            assert_eq!(c.ask("a"), "one 1 a");
        }

        let out = host.cli(&["reload", "killed", "--json", "--from", all[1].to_str().expect("UTF-8")]);
        // The command is told the outcome, by the successor if need be, or that it broke off.
        match point {
            "reload-committed" | "reported" => {
                let report: Value = serde_json::from_slice(&out.stdout).expect("a report");
                assert_eq!(
                    (out.status.code(), &report["outcome"]),
                    (Some(0), &"committed".into()),
                    "{report}"
                );
                assert_eq!((&report["generation"], &report["line"]), (&2.into(), &2.into()), "{report}");
            }
            _ => {
                let said = String::from_utf8_lossy(&out.stderr);
                assert!(out.status.code() == Some(1) && said.contains("broke off"), "{point}: {out:?}");
            }
        }

        let said: Vec<_> = clients.iter_mut().map(|c| c.ask("b")).collect();
        assert!(said.iter().all(|s| *s == said[0]) && said[0].ends_with(" 2 b"), "{point}: {said:?}");
        let (generation, build) = status(&host, "killed");
        assert_eq!(ledger(&host), (generation, build), "{point}");
        assert_eq!(said[0].starts_with("two"), generation == 2, "{point}: {said:?}");
        assert_eq!(host.json(&["status", "--json"])["host"]["workers_before"], 1, "{point}");
        ended.push((point, generation));

        // And it goes on from there.
        let (code, report) = host.reload_from("killed", &all[1]);
        assert_eq!((code, &report["generation"]), (Some(0), &json!(2)), "{point}: {report}");
        for c in &mut clients {
            assert_eq!(c.ask("c"), "two 3 c");
        }
    }

    let new: Vec<_> = ended.iter().filter(|(_, g)| *g == 2).map(|(p, _)| *p).collect();
    assert_eq!(new, ["reload-committed", "reported"]);
}

#[test]
fn two_reloads_at_once_and_one_during_a_takeover_are_committed_in_turn() {
    let all = builds("meets", &["one", "two", "three", "four"]);
    let host = Host::serve(&["meets"], &[&all[0]]);
    let mut client = Client::connect(host.addr("meets"));
    assert_eq!(client.ask("a"), "one 1 a");
    let begin = |path: &Path| {
        let mut command = host.command(&["reload", "meets", "--json", "--from"]);
        command.arg(path).stdout(std::process::Stdio::piped());
        command.spawn().expect("greenroom reload")
    };

    let both = [begin(&all[1]), begin(&all[2])];
    let mut generations = Vec::new();
    for child in both {
        let out = child.wait_with_output().expect("its end");
        let report: Value = serde_json::from_slice(&out.stdout).expect("JSON");
        assert_eq!((out.status.code(), &report["outcome"]), (Some(0), &json!("committed")), "{report}");
        generations.push(report["generation"].as_u64().expect("a number"));
    }
    generations.sort_unstable();
    assert_eq!(generations, [2, 3]);
    assert_eq!(ledger(&host), status(&host, "meets"));

    let pid = host.json(&["status", "--json"])["host"]["worker_pid"].as_i64().expect("a pid");
    // SAFETY: kill has no preconditions.
    unsafe { libc::kill(pid as i32, libc::SIGKILL) };
    // Asked of the worker that dies, it breaks off; of its successor, it is done.
    let report = wait_for("a report", || {
        let out = begin(&all[3]).wait_with_output().expect("its end");
        assert_eq!(ledger(&host), status(&host, "meets"));
        serde_json::from_slice::<Value>(&out.stdout).ok()
    });

    assert_eq!((&report["outcome"], &report["generation"]), (&json!("committed"), &json!(4)), "{report}");
    assert_eq!((client.ask("b"), ledger(&host)), ("four 2 b".to_owned(), status(&host, "meets")));
}

/// The bytes that were rehearsed are the bytes that are loaded, whatever becomes of the file. The
/// next build comes after.
#[test]
fn a_file_that_changes_during_its_rehearsal_is_loaded_as_rehearsed() {
    let name = "changing";
    let slow = "    const STATE_VERSION: u32 = 2;\n    fn migrations() -> greenroom_handler::Migrations {\n        \
                greenroom_handler::Migrations::none().from(1, |old: Count| { std::thread::sleep(std::time::Duration::from_millis(20)); Ok(old) })\n    }\n    type State";
    let fixture = Fixture::new(name, &tally_source(name, "one"));
    let one = fixture.build_as("one.so");
    fixture.write(&tally_source(name, "two").replacen("    type State", slow, 1));
    let two = fixture.build_as("two.so");
    fixture.write(&tally_source(name, "three").replacen("    type State", slow, 1));
    let three = fixture.build_as("three.so");
    let dir = tempfile::tempdir().expect("a directory");
    let watched = dir.path().join("libchanging.so");
    install(&one, &watched);

    let host = Host::serve(&[name], &[&watched]);
    let mut clients: Vec<_> = (0..100).map(|_| Client::connect(host.addr(name))).collect();
    for c in &mut clients {
        assert_eq!(c.ask("a"), "one 1 a");
    }

    install(&two, &watched);
    // Two seconds of rehearsal have begun once its private copy is there.
    wait_for("the copy", || (host.copies().len() == 2).then_some(()));
    install(&three, &watched);

    host.wait_generation(name, 2);
    assert_eq!(clients[0].ask("b"), "two 2 b");
    host.wait_generation(name, 3);
    assert_eq!(clients[0].ask("c"), "three 3 c");
    assert_eq!(clients[99].ask("c"), "three 2 c");

    let history = host.json(&["history", "--json"]);
    let outcomes: Vec<_> = history.as_array().expect("lines").iter().map(|l| l["outcome"].clone()).collect();
    assert_eq!(outcomes, ["committed", "committed", "committed"], "{history}");
    assert_eq!(history[1]["probation"]["state"], "replaced", "{history}");
}

/// A host with two libraries in a directory, which are reloaded together and not by a watcher.
struct Pair {
    host: Host,
    dir: tempfile::TempDir,
    clients: [Client; 2],
}

/// Builds of the left library and of the right one.
fn pair_builds() -> &'static (Vec<PathBuf>, Vec<PathBuf>) {
    static BUILDS: OnceLock<(Vec<PathBuf>, Vec<PathBuf>)> = OnceLock::new();
    BUILDS.get_or_init(|| (builds("left", &["one", "two", "three"]), builds("right", &["one"])))
}

impl Pair {
    fn new() -> Pair {
        let (left, right) = pair_builds();
        let dir = tempfile::tempdir().expect("a directory");
        install(&left[0], &dir.path().join("libleft.so"));
        install(&right[0], &dir.path().join("libright.so"));
        let host = Host::serve_with(&["left", "right"], &[dir.path()], |c| {
            c.arg("--no-watch");
        });
        let clients = ["left", "right"].map(|service| Client::connect(host.addr(service)));
        Pair { host, dir, clients }
    }

    /// Puts a build of the left library, or of the right one, in its place.
    fn install(&self, build: &Path, name: &str) {
        install(build, &self.dir.path().join(format!("lib{name}.so")));
    }

    /// Answers of both services.
    fn ask(&mut self, line: &str) -> [String; 2] {
        self.clients.each_mut().map(|c| c.ask(line))
    }

    /// `greenroom reload --all`: exit code, outcome and generation of each library, and all of it.
    fn reload(&self) -> (Option<i32>, Vec<(String, u64)>, String) {
        let out = self.host.cli(&["reload", "--all", "--json"]);
        let text = String::from_utf8_lossy(&out.stdout).into_owned();
        let outcome = |line: &str| {
            let report: Value = serde_json::from_str(line).expect("JSON");
            let outcome = report["outcome"].as_str().expect("an outcome").to_owned();
            (outcome, report["generation"].as_u64().expect("a generation"))
        };
        (out.status.code(), text.lines().map(outcome).collect(), text)
    }

    #[track_caller]
    fn reloads(&self, code: i32, outcomes: [(&str, u64); 2]) -> String {
        let (found, mut all, text) = self.reload();
        all.sort();
        let expected = outcomes.map(|(outcome, generation)| (outcome.to_owned(), generation));
        assert_eq!((found, &all[..]), (Some(code), &expected[..]), "{text}");
        text
    }
}

/// The right library with another service, which wants a port.
fn with_another_service(port: u16) -> String {
    let source = tally_source("right", "two");
    let (head, body) = source.split_once("struct Tally;").expect("the service");
    let extra = format!("struct Tally;{body}")
        .replace("Tally", "Extra")
        .replace("\"right\"", "\"right-extra\"")
        .replace("PORT: u16 = 0", &format!("PORT: u16 = {port}"));
    let head = head.replace("export!(Tally)", "export!(Tally, Extra)");
    format!("{head}struct Tally;{body}{extra}")
}

#[test]
fn a_refused_library_keeps_the_one_beside_it_from_its_commit() {
    let mut pair = Pair::new();
    assert_eq!(pair.ask("a"), ["one 1 a", "one 1 a"]);
    pair.install(&pair_builds().0[1], "left");
    std::fs::write(pair.dir.path().join("libright.so"), "oops").expect("a file");

    let text = pair.reloads(1, [("refused", 1), ("refused", 1)]);

    assert!(text.contains("it was to be committed together with right, which is refused: "), "{text}");
    assert_eq!(pair.ask("b"), ["one 2 b", "one 2 b"]);
}

/// Several libraries have one commit: all of them, or none. A library that did not change is left.
#[test]
fn libraries_that_are_reloaded_together_have_one_commit() {
    let left = &pair_builds().0;
    let mut pair = Pair::new();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let addr = taken.local_addr().expect("its address");
    let greedy = Fixture::new("right", &with_another_service(addr.port()));
    pair.install(&left[1], "left");
    pair.install(&greedy.build(), "right");

    // One of the two wants a port that is taken.
    let text = pair.reloads(1, [("refused", 1), ("refused", 1)]);
    assert!(text.contains(&addr.to_string()), "{text}");
    assert_eq!(pair.ask("a"), ["one 1 a", "one 1 a"]);

    // The port is free, and listens afterwards.
    drop(taken);
    pair.reloads(0, [("committed", 2), ("committed", 2)]);
    assert_eq!(pair.ask("b"), ["two 2 b", "two 2 b"]);
    let mut extra = Client::connect(addr);
    assert_eq!(extra.ask("a"), "two 1 a");

    // One has changed, the other hasn't.
    pair.install(&left[2], "left");
    pair.reloads(0, [("committed", 3), ("unchanged", 2)]);
    assert_eq!(pair.ask("c"), ["three 3 c", "two 3 c"]);
    assert_eq!(extra.ask("c"), "two 2 c");
    assert!(!pair.host.log().contains("by=watcher"), "{}", pair.host.log());
}
