//! Ledger of reloads, and an operator's commands for one session.

use greenroom_tests::client::Client;
use greenroom_tests::fixture::{Fixture, tally_source};
use greenroom_tests::host::Host;
use greenroom_tests::{root, wait_for};
use serde_json::Value;

fn outcomes(host: &Host) -> Vec<(String, u64)> {
    let history = host.json(&["history", "--json"]);
    let lines = history.as_array().expect("lines").iter();
    let of = |l: &Value| Some((l["outcome"].as_str()?.to_owned(), l["generation"].as_u64()?));
    lines.map(|l| of(l).expect("an outcome and a generation")).collect()
}

#[test]
fn the_ledger_lists_reloads_and_outlives_workers_and_hosts() {
    let fixture = Fixture::new("ledger", &tally_source("ledger", "one"));
    let first = fixture.build_as("first.so");
    fixture.write(&tally_source("ledger", "two"));
    let second = fixture.build_as("second.so");
    let dir = tempfile::tempdir().expect("a directory");
    let config = dir.path().join("greenroom.toml");
    std::fs::write(&config, "[save]\nfile = \"saved\"\n").expect("a configuration");
    let serve = || {
        Host::serve_with(&["ledger"], &[&first], |c| {
            c.arg("--config").arg(&config);
        })
    };
    let mut host = serve();

    assert_eq!(host.reload_from("ledger", &second).0, Some(0));
    assert_eq!(host.reload_from("ledger", &second).0, Some(0));
    assert_eq!(host.reload_from("ledger", &root().join("README.md")).0, Some(1));

    let told = [("committed", 1), ("committed", 2), ("unchanged", 2), ("refused", 2)];
    let told: Vec<_> = told.map(|(outcome, generation)| (outcome.to_owned(), generation)).into();
    assert_eq!(outcomes(&host), told);

    let history = host.json(&["history", "--json"]);
    assert_eq!(history[0]["by"], "start");
    // SAFETY: getuid has no preconditions.
    let uid = unsafe { libc::getuid() };
    assert!(
        history[3]["by"].as_str().is_some_and(|by| by.starts_with(&format!("uid {uid} pid "))),
        "{history}"
    );
    assert!(history[3]["reason"].as_str().is_some_and(|why| why.contains("not an ELF file")), "{history}");
    assert!(history[1]["pause_us"].as_f64().is_some_and(|us| us > 0.0) && history[1]["at"].is_string());
    let text = String::from_utf8(host.cli(&["history"]).stdout).expect("UTF-8");
    assert!(text.lines().count() == 5 && text.contains("refused") && text.contains("README.md"), "{text}");

    let pid = host.json(&["status", "--json"])["host"]["worker_pid"].as_i64().expect("a pid");
    // SAFETY: kill has no preconditions.
    unsafe { libc::kill(pid as i32, libc::SIGKILL) };
    assert_eq!(outcomes(&host), told);

    host.signal(libc::SIGTERM);
    assert_eq!(host.wait(), Some(0));
    let host = serve();
    let with_one_more: Vec<_> = told.iter().cloned().chain([("committed".to_owned(), 1)]).collect();
    assert_eq!(outcomes(&host), with_one_more);
}

#[test]
fn an_operator_closes_one_session() {
    let fixture = Fixture::new("closable", &tally_source("closable", "one"));
    let host = Host::serve(&["closable"], &[&fixture.build()]);
    let mut clients: Vec<_> = (0..3).map(|_| Client::connect(host.addr("closable"))).collect();
    for c in &mut clients {
        assert_eq!(c.ask("hello"), "one 1 hello");
    }

    assert!(host.cli(&["session", "close", "2"]).status.success());

    assert_eq!(clients[1].line(), None);
    assert_eq!(clients[0].ask("on"), "one 2 on");
    assert_eq!(clients[2].ask("on"), "one 2 on");
    wait_for("its end", || (host.service("closable")["sessions"] == 2).then_some(()));

    for (args, why) in [
        (["session", "close", "2"], "no session has number 2"),
        (["session", "release", "3"], "session 3 is not quarantined"),
        (["session", "release", "77"], "no session has number 77"),
    ] {
        let out = host.cli(&args);
        let said = String::from_utf8_lossy(&out.stderr);
        assert!(out.status.code() == Some(1) && said.contains(why), "{args:?}: {said}");
    }
}
