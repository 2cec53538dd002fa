//! Builds that end the process which loads them, although their trials went well: what an operator
//! is told, and that it happens twice at most.

use greenroom_tests::client::Client;
use greenroom_tests::fixture::{compile_c, install};
use greenroom_tests::host::Host;
use greenroom_tests::wait_for;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Builds the C handler: with a constructor that aborts a worker while `file` is there.
fn aborting(file: &Path, end: &str, to: &Path) -> PathBuf {
    let flags = [format!("-DABORT_IF=\"{}\"", file.display()), format!("-DEND=\"{end}\"")];
    compile_c("upper.c", &flags.each_ref().map(String::as_str), to);
    to.to_owned()
}

/// Gives the C handler a port, for when it comes.
fn upper(command: &mut Command) {
    command.args(["--listen", "upper=127.0.0.1:0"]);
}

/// Lines of the ledger that tell of a load which ended a worker: by whom, and why. `None`:
/// the worker that was asked ended meanwhile.
fn told(host: &Host) -> Option<Vec<(String, String)>> {
    let out = host.cli(&["history", "--json"]);
    let history: Value = serde_json::from_slice(&out.stdout).ok().filter(|_| out.status.success())?;
    let of = |line: &Value| {
        let reason = line["reason"].as_str()?;
        let told = reason.starts_with("the worker process ended while it was loaded");
        told.then(|| (line["by"].as_str().unwrap_or_default().to_owned(), reason.to_owned()))
    };
    Some(history.as_array().expect("lines").iter().filter_map(of).collect())
}

#[test]
fn a_new_library_that_ends_its_workers_is_left_alone_after_two() {
    let base = tempfile::tempdir().expect("a directory");
    let (file, dir) = (base.path().join("abort"), base.path().join("lib"));
    std::fs::write(&file, "").expect("a file");
    std::fs::create_dir(&dir).expect("a directory");
    compile_c("meter.c", &["-DVERSION=1", "-DEND=\"\""], &dir.join("libmeter.so"));
    let host = Host::serve_with(&["meter"], &[&dir], upper);
    let mut client = Client::connect(host.addr("meter"));
    client.ask("a");

    let build = aborting(&file, "", &base.path().join("libupper.so"));
    install(&build, &dir.join("libupper.so"));
    let lines = wait_for("two workers that ended", || told(&host).filter(|lines| lines.len() == 2));
    assert!(lines.iter().all(|(by, why)| by == "watcher" && why.contains("SIGABRT")), "{lines:?}");
    assert!(lines.iter().any(|(_, why)| why.ends_with("left alone until the file changes")), "{lines:?}");
    let status = host.json(&["status", "--json"]);
    let failing = status["host"]["failing"].to_string();
    assert!(failing.contains("libupper.so") && failing.contains("SIGABRT"), "{failing}");
    client.ask("b");

    // The thread that prepares reloads is through with the file behind another reload.
    let (worker, meter) = (host.worker_pid(), dir.join("libmeter.so"));
    let (code, report) = host.reload_from("meter", &meter);
    assert_eq!(code, Some(0), "{report}");
    assert_eq!((host.worker_pid(), told(&host).map(|lines| lines.len())), (worker, Some(2)));

    let mended = base.path().join("mended.so");
    compile_c("upper.c", &["-DEND=\"!\""], &mended);
    install(&mended, &dir.join("libupper.so"));
    wait_for("its first generation", || {
        let status = host.json(&["status", "--json"]);
        status["services"].as_array().expect("services").iter().any(|s| s["name"] == "upper").then_some(())
    });
    client.ask("c");
    wait_for("nothing that fails", || {
        host.json(&["status", "--json"])["host"]["failing"]
            .as_array()
            .expect("parts")
            .is_empty()
            .then_some(())
    });
}

#[test]
fn a_build_that_ends_its_worker_is_in_the_ledger_and_the_one_before_goes_on() {
    let base = tempfile::tempdir().expect("a directory");
    let file = base.path().join("abort");
    std::fs::write(&file, "").expect("a file");
    let live = base.path().join("libupper.so");
    compile_c("upper.c", &["-DEND=\"1\""], &live);
    let host = Host::serve_with(&["upper"], &[&live], |c| {
        c.arg("--no-watch");
    });
    let mut client = Client::connect(host.addr("upper"));
    assert_eq!(client.ask("a"), "1 A1");

    let build = aborting(&file, "2", &base.path().join("2.so"));
    install(&build, &live);
    let out = host.cli(&["reload", "upper"]);
    let said = String::from_utf8_lossy(&out.stderr).into_owned() + &String::from_utf8_lossy(&out.stdout);
    assert_ne!(out.status.code(), Some(0), "{said}");
    let lines = wait_for("a worker that ended", || told(&host).filter(|lines| lines.len() == 1));
    assert!(lines[0].0.starts_with("uid ") && lines[0].1.contains("SIGABRT"), "{lines:?}");
    assert_eq!(client.ask("b"), "2 B1");
    println!("{said}");

    std::fs::remove_file(&file).expect("the trouble is over");
    let (code, report) = host.reload_from("upper", &live);
    assert_eq!(code, Some(0), "{report}");
    assert_eq!(client.ask("c"), "3 C2");
}

#[test]
fn a_directory_is_served_without_a_library_that_ends_its_workers() {
    let base = tempfile::tempdir().expect("a directory");
    let (file, dir) = (base.path().join("abort"), base.path().join("lib"));
    std::fs::write(&file, "").expect("a file");
    std::fs::create_dir(&dir).expect("a directory");
    compile_c("meter.c", &["-DVERSION=1", "-DEND=\"\""], &dir.join("libmeter.so"));
    aborting(&file, "", &dir.join("libupper.so"));
    let host = Host::serve_with(&["meter"], &[&dir], upper);
    // The first worker may have committed the other library, and then a second one serves before it
    // tries this one: a line each.
    let last =
        wait_for("two workers that ended", || told(&host)?.pop().filter(|(_, why)| why.contains("2 of")));
    assert!(last.1.ends_with("left alone until the file changes"), "{last:?}");
    wait_for("the other library", || (host.generation("meter") == 1).then_some(()));
    let history = host.json(&["history", "--json"]);
    let refused = |line: &&Value| line["outcome"] == "refused";
    let mut blamed = history.as_array().expect("lines").iter().filter(refused);
    assert!(
        blamed.all(|line| line["library"].as_str().is_some_and(|l| l.ends_with("libupper.so"))),
        "{history}"
    );
}

/// The second build is on probation, or has passed it; the first one is there in both cases.
#[test]
fn a_build_that_no_successor_can_load_gives_way_to_the_one_before() {
    for probation in ["probation_ms = 0", "probation_ms = 3600000"] {
        let base = tempfile::tempdir().expect("a directory");
        let file = base.path().join("abort");
        let live = base.path().join("libupper.so");
        compile_c("upper.c", &["-DEND=\"1\""], &live);
        let host = Host::serve_limited("upper", &live, probation);
        let mut client = Client::connect(host.addr("upper"));
        assert_eq!(client.ask("a"), "1 A1");
        let build = aborting(&file, "2", &base.path().join("2.so"));
        let (code, report) = host.reload_from("upper", &build);
        assert_eq!(code, Some(0), "{report}");
        assert_eq!(client.ask("b"), "2 B2");

        std::fs::write(&file, "").expect("a file");
        host.kill_worker();
        assert_eq!(client.ask("c"), "3 C1");
        let line = host.last_ledger_line();
        let reason = line["reason"].as_str().expect("a reason");
        assert_eq!(line["outcome"], "rolled-back", "{line}");
        assert!(reason.contains("loading it has ended 2 workers") && reason.contains("SIGABRT"), "{line}");

        // Again, and an operator brings the build back once the trouble is over.
        host.kill_worker();
        assert_eq!(client.ask("d"), "4 D1");
        std::fs::remove_file(&file).expect("the trouble is over");
        let (code, report) = host.reload_from("upper", &build);
        assert_eq!(code, Some(0), "{report}");
        assert_eq!(client.ask("e"), "5 E2");
    }
}

/// A database or a file that a build needs may be away for a while. On probation it has one chance.
#[test]
fn a_build_that_refuses_to_start_in_a_successor_goes_on_once_it_can_or_gives_way_on_probation() {
    for (probation, gives_way) in [("probation_ms = 0", false), ("probation_ms = 3600000", true)] {
        let base = tempfile::tempdir().expect("a directory");
        let (file, live) = (base.path().join("refuse"), base.path().join("libupper.so"));
        compile_c("upper.c", &["-DEND=\"1\""], &live);
        let host = Host::serve_limited("upper", &live, probation);
        let mut client = Client::connect(host.addr("upper"));
        assert_eq!(client.ask("a"), "1 A1");
        let build = base.path().join("2.so");
        compile_c("upper.c", &["-DEND=\"2\"", &format!("-DREFUSE_IF=\"{}\"", file.display())], &build);
        let (code, report) = host.reload_from("upper", &build);
        assert_eq!(code, Some(0), "{report}");

        std::fs::write(&file, "").expect("a file");
        // SAFETY: kill has no preconditions.
        unsafe { libc::kill(host.worker_pid(), libc::SIGKILL) };
        if gives_way {
            assert_eq!(client.ask("b"), "2 B1");
            let line = host.last_ledger_line();
            assert_eq!(line["outcome"], "rolled-back", "{line}");
            assert!(line["reason"].as_str().is_some_and(|why| why.ends_with("not now")), "{line}");
        } else {
            wait_for("three starts", || (host.log().matches("no worker serves").count() >= 3).then_some(()));
            std::fs::remove_file(&file).expect("it can again");
            assert_eq!(client.ask("b"), "2 B2");
        }
    }
}
