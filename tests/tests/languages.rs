//! Handlers in other languages than Rust: their sessions go through swaps and takeovers.

use greenroom_tests::client::Client;
use greenroom_tests::fixture::compile_c;
use greenroom_tests::host::Host;

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
    assert_eq!(host.service("meter")["faults"], 0);
}
