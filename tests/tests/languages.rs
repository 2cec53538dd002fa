//! Handlers in other languages than Rust: their sessions go through swaps and takeovers.

use greenroom_tests::client::Client;
use greenroom_tests::fixture::{compile_c, compile_cpp, compile_nim};
use greenroom_tests::host::Host;
use std::path::PathBuf;

/// Warnings of C that are errors here, beside those of each fixture.
const STRICT: [&str; 9] = [
    "-std=c11",
    "-Wpedantic",
    "-Wconversion",
    "-Wshadow",
    "-Wcast-qual",
    "-Wwrite-strings",
    "-Wstrict-prototypes",
    "-Wmissing-prototypes",
    "-Wundef",
];

/// Number in a line `tick N END`, and its end.
#[track_caller]
fn tick(client: &mut Client) -> (u64, String) {
    let line = client.line().expect("a tick");
    let words: Vec<_> = line.split(' ').collect();
    assert!(words.len() == 3 && words[0] == "tick", "{line}");
    (words[1].parse().expect("a number"), words[2].to_owned())
}

/// Reads ticks, none of which is missing or comes twice, until one of a later number comes from
/// the build with this end.
#[track_caller]
fn tick_of(client: &mut Client, last: &mut u64, after: u64, end: &str) {
    loop {
        let (number, by) = tick(client);
        assert_eq!(number, *last + 1);
        *last = number;
        if number > after && by == end {
            return;
        }
    }
}

/// Ticks of the session that ticks, as they are stored.
fn stored_ticks(host: &Host) -> u64 {
    let dump = host.json(&["state", "dump"]);
    let ticks = |s: &serde_json::Value| s["state"]["ticks"].as_u64();
    dump["sessions"].as_array().expect("sessions").iter().filter_map(ticks).max().expect("a session")
}

/// Sets a field of the first session's state, which the host writes in as few bytes as it takes.
#[track_caller]
fn set_state(host: &Host, field: &str) {
    let set = host.cli(&["state", "set", "1", field]);
    assert!(set.status.success(), "{set:?}");
}

/// The timer is set again by each of its turns, so it fires in each build and process.
#[test]
fn a_handler_in_c_keeps_state_and_timer_through_a_migration_a_kill_and_an_upgrade() {
    let dir = tempfile::tempdir().expect("a directory");
    let [one, two] = [("1", "one"), ("2", "two")].map(|(version, end)| {
        let library = dir.path().join(format!("{end}.so"));
        let (version, end) = (format!("-DVERSION={version}"), format!("-DEND=\" {end}\""));
        compile_c("meter.c", &[&STRICT[..], &[&version, &end]].concat(), &library);
        library
    });
    let host = Host::serve(&["meter"], &[&one]);
    let mut client = Client::connect(host.addr("meter"));
    let mut timed = Client::connect(host.addr("meter"));
    timed.send("ticks\n");
    let mut last = 0;
    tick_of(&mut timed, &mut last, 0, "one");
    assert_eq!(client.ask("a"), "1 a after  one");

    let (code, report) = host.reload_from("meter", &two);
    assert_eq!((code, &report["outcome"]), (Some(0), &"committed".into()), "{report}");
    assert_eq!(client.ask("b"), "2 b after  two", "the first version knows no last line");
    assert_eq!(client.ask("c"), "3 c after b two");
    tick_of(&mut timed, &mut last, 0, "two");

    host.kill_worker();
    assert_eq!(client.ask("d"), "4 d after c two");
    tick_of(&mut timed, &mut last, stored_ticks(&host), "two");

    let upgrade = host.cli(&["upgrade"]);
    assert!(upgrade.status.success(), "{upgrade:?}");
    assert_eq!(client.ask("e"), "5 e after d two");
    tick_of(&mut timed, &mut last, stored_ticks(&host), "two");

    let back = host.cli(&["rollback", "meter"]);
    assert!(back.status.success(), "{back:?}");
    assert_eq!(client.ask("f"), "6 f after  one");
    tick_of(&mut timed, &mut last, stored_ticks(&host), "one");
    set_state(&host, "lines=9");
    assert_eq!(client.ask("g"), "10 g after  one");
    assert_eq!(host.service("meter")["faults"], 0);
}

/// A worker holds one start of Nim for each build.
#[test]
fn a_handler_in_nim_goes_through_a_migration_a_kill_and_an_upgrade() {
    let dir = tempfile::tempdir().expect("a directory");
    let build = |(version, end): (&str, &str)| {
        let library = dir.path().join(format!("{end}.so"));
        let (version, last) = (format!("-d:VERSION={version}"), format!("-d:LAST= {end}"));
        compile_nim("abacus.nim", &[&version, &last], &library);
        library
    };
    let [one, two] = std::thread::scope(|scope| {
        let builds = [("1", "one"), ("2", "two")].map(|b| scope.spawn(move || build(b)));
        builds.map(|b| b.join().expect("a build"))
    });
    let host = Host::serve(&["abacus"], &[&one]);
    let mut client = Client::connect(host.addr("abacus"));
    assert_eq!(client.ask("40"), "40 one");

    // An exception ends its turn, and no more.
    client.send("many\n2\n");
    assert_eq!(client.line().as_deref(), Some("42 one"));
    host.wait_log("invalid integer: many");

    let (code, report) = host.reload_from("abacus", &two);
    assert_eq!((code, &report["outcome"]), (Some(0), &"committed".into()), "{report}");
    assert_eq!(client.ask("1"), "43 of 1 two");
    host.kill_worker();
    assert_eq!(client.ask("1"), "44 of 2 two");
    let upgrade = host.cli(&["upgrade"]);
    assert!(upgrade.status.success(), "{upgrade:?}");
    assert_eq!(client.ask("1"), "45 of 3 two");
    let back = host.cli(&["rollback", "abacus"]);
    assert!(back.status.success(), "{back:?}");
    assert_eq!(client.ask("1"), "46 one");
    set_state(&host, "sum=7");
    assert_eq!(client.ask("1"), "8 one");
    assert_eq!(host.service("abacus")["faults"], 1);
}

/// Builds of the C++ handler share no symbol, whether libstdc++ is the system's or their own.
#[test]
fn a_handler_in_cpp_shares_nothing_with_its_next_build() {
    let dir = tempfile::tempdir().expect("a directory");
    let build = |end: &str, flags: &[&str]| {
        let library = dir.path().join(format!("{end}.so"));
        compile_cpp("words.cpp", &[&[format!("-DEND=\" {end}\"").as_str()], flags].concat(), &library);
        library
    };
    let unique = build("unique", &[]);
    let inside = build("inside", &["-fno-gnu-unique", "-static-libstdc++", "-static-libgcc"]);
    let own = ["-fno-gnu-unique", "-static-libstdc++", "-static-libgcc", "-Wl,--exclude-libs,ALL"];
    let host = Host::serve(&["words"], &[&build("one", &["-fno-gnu-unique"])]);
    let mut client = Client::connect(host.addr("words"));
    assert_eq!(client.ask("a longer word"), "longer one");
    assert_eq!(client.ask("static"), "2 one");
    for refused in [&unique, &inside] {
        let (code, report) = host.reload_from("words", refused);
        let reason = report["reason"].as_str().unwrap_or_default();
        assert!(code == Some(1) && reason.contains("-fno-gnu-unique, and link static"), "{report}");
        assert!(reason.ends_with("-Wl,--exclude-libs,ALL"), "{report}");
    }

    let (code, report) = host.reload_from("words", &build("two", &own));
    assert_eq!((code, &report["outcome"]), (Some(0), &"committed".into()), "{report}");
    assert_eq!(client.ask("static"), "1 two");
    client.send("throw\nall\n");
    assert_eq!(client.line().as_deref(), Some("longer two"));
    host.wait_log("it was thrown");
    host.kill_worker();
    assert_eq!(client.ask("static"), "1 two");
    let (code, report) = host.reload_from("words", &build("three", &["-fno-gnu-unique"]));
    assert_eq!((code, &report["outcome"]), (Some(0), &"committed".into()), "{report}");
    assert_eq!(client.ask("an even longest"), "longest three");
    let upgrade = host.cli(&["upgrade"]);
    assert!(upgrade.status.success(), "{upgrade:?}");
    assert_eq!(client.ask("x"), "longest three");
    set_state(&host, "longest=a");
    assert_eq!(client.ask("ab"), "ab three");
}

/// An exception that leaves the library ends the worker. The turn that threw is held, and no
/// session is lost.
#[test]
fn an_exception_that_crosses_the_boundary_costs_a_worker() {
    let dir = tempfile::tempdir().expect("a directory");
    let library: PathBuf = dir.path().join("out.so");
    compile_cpp("words.cpp", &["-DEND=\" out\"", "-fno-gnu-unique", "-DTHROW_OUT"], &library);
    let host = Host::serve(&["words"], &[&library]);
    let mut other = Client::connect(host.addr("words"));
    assert_eq!(other.ask("word"), "word out");
    let mut client = Client::connect(host.addr("words"));
    client.send("throw\n");
    host.wait_log("quarantine");
    assert_eq!(other.ask("on"), "word out");
}
