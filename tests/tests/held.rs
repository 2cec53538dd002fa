//! Code of authors that does not return in the worker, although it did in the trial: it holds the
//! thread that prepares reloads. A fresh worker takes over, and sessions notice nothing.

use greenroom_tests::client::Client;
use greenroom_tests::fixture::{Fixture, tally_source};
use greenroom_tests::host::Host;
use greenroom_tests::wait_for;
use std::path::Path;

/// Waits while a file is there that a trial may not open.
fn waiting_for(file: &Path) -> String {
    format!(
        "while std::fs::OpenOptions::new().append(true).open({file:?}).is_ok() {{ \
         std::thread::sleep(std::time::Duration::from_millis(5)) }}"
    )
}

#[test]
fn a_load_that_does_not_return_is_refused_and_a_fresh_worker_takes_over() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("wait");
    let source = |prefix: &str| tally_source("held-load", prefix);
    let fixture = Fixture::new("held_load", &source("one"));
    let one = fixture.build_as("one.so");
    let waits = format!("{}; Ok(Tally)\n", waiting_for(&file));
    fixture.write(&source("two").replace("Ok(Tally)\n", &waits));
    let two = fixture.build_as("two.so");
    let host = Host::serve_limited("held-load", &one, "rehearsal_ms = 1000");
    let mut client = Client::connect(host.addr("held-load"));
    assert_eq!(client.ask("a"), "one 1 a");
    let before = host.worker_pid();

    std::fs::write(&file, "").expect("a file");
    let (code, report) = host.reload_from("held-load", &two);
    assert_eq!(code, Some(1), "{report}");
    let reason = report["reason"].as_str().expect("a reason").to_owned();
    assert!(
        reason.starts_with("it has not come back from `new` or a constructor in the worker after 1 s"),
        "{reason}"
    );
    assert_eq!(host.last_ledger_line()["reason"], reason.as_str());
    wait_for("a fresh worker", || (host.worker_pid() != before).then_some(()));
    assert_eq!(client.ask("b"), "one 2 b");

    std::fs::remove_file(&file).expect("nothing to wait for");
    let (code, report) = host.reload_from("held-load", &two);
    assert_eq!(code, Some(0), "{report}");
    assert_eq!(client.ask("c"), "two 3 c");
}

#[test]
fn destructors_that_do_not_return_hold_up_no_reload_for_long() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("wait");
    std::fs::write(&file, "").expect("a file");
    let drops = format!("impl Drop for Tally {{ fn drop(&mut self) {{ {} }} }}\n", waiting_for(&file));
    let source = |prefix: &str| tally_source("held-drop", prefix) + &drops;
    let fixture = Fixture::new("held_drop", &source("1"));
    let build = |n: u32| {
        fixture.write(&source(&n.to_string()));
        fixture.build_as(&format!("{n}.so"))
    };
    let builds = [1, 2, 3, 4].map(build);
    let host = Host::serve_limited("held-drop", &builds[0], "rehearsal_ms = 1000\nprobation_ms = 0");
    let mut client = Client::connect(host.addr("held-drop"));

    for (n, build) in (1..).zip(&builds[1..]) {
        let (code, report) = host.reload_from("held-drop", build);
        assert_eq!(code, Some(0), "{report}\n{}", host.log());
        assert_eq!(client.ask("a"), format!("{} {n} a", n + 1));
    }
    host.wait_log("the worker is recycled: the destructors of a replaced build have not come back after 1 s");
}
