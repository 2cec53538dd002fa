//! Files of a live host are deleted: private copies, their directory, locks, the admin socket.

use greenroom_tests::built;
use greenroom_tests::client::Client;
use greenroom_tests::fixture::{Fixture, tally_source};
use greenroom_tests::host::Host;
use greenroom_tests::wait_for;
use serde_json::Value;
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;

/// The host's part of the status.
fn host_status(host: &Host) -> Value {
    host.json(&["status", "--json"])["host"].take()
}

/// Times that files of this kind were made anew.
fn made_anew(host: &Host, kind: &str) -> u64 {
    host_status(host)["made_anew"][kind].as_u64().unwrap_or(0)
}

/// Waits until nothing is missing, and files of this kind were made anew so often.
#[track_caller]
fn wait_made_anew(host: &Host, kind: &str, times: u64) {
    wait_for(&format!("{times} {kind} to be made anew"), || {
        let status = host_status(host);
        let made = status["made_anew"][kind].as_u64() >= Some(times);
        (made && status["missing"] == serde_json::json!([])).then_some(())
    });
}

fn kill(pid: i32) {
    // SAFETY: kill has no preconditions; the process is a worker of our own host.
    assert_eq!(unsafe { libc::kill(pid, libc::SIGKILL) }, 0);
}

fn mode(path: &Path) -> u32 {
    path.metadata().expect("its mode").permissions().mode() & 0o777
}

/// Deletes all files in the directory of private copies.
fn delete_copies(host: &Host) {
    for file in std::fs::read_dir(host.runtime().join("copies")).expect("copies").flatten() {
        std::fs::remove_file(file.path()).expect("a file less");
    }
}

#[test]
fn a_successor_loads_builds_whose_private_copies_were_deleted() {
    let fixture = Fixture::new("cleaned", &tally_source("cleaned", "one"));
    let host = Host::serve(&["cleaned"], &[&fixture.build()]);
    let mut client = Client::connect(host.addr("cleaned"));
    assert_eq!(client.ask("hello"), "one 1 hello");
    let second = {
        fixture.write(&tally_source("cleaned", "two"));
        fixture.build_as("second.so")
    };
    assert_eq!(host.reload_from("cleaned", &second).0, Some(0));
    let pid = host.worker_pid();

    // The build that runs, and the previous one, which stands by.
    assert_eq!(host.copies().len(), 2);
    delete_copies(&host);
    kill(pid);
    assert_eq!(client.ask("hello"), "two 2 hello");
    assert_eq!(host_status(&host)["worker"], "serving");
    assert_eq!(host.copies().len(), 2);
    assert!(host.copies().iter().all(|copy| mode(copy) == 0o500));
    assert!(host.log().contains("was gone, and is made anew"), "{}", host.log());

    // Those that were written anew may be deleted, too, with their directory.
    let pid = host.worker_pid();
    std::fs::remove_dir_all(host.runtime().join("copies")).expect("a directory less");
    kill(pid);
    assert_eq!(client.ask("hello"), "two 3 hello");
    assert_eq!(mode(&host.runtime().join("copies")), 0o700);

    // No crash is needed for that. Then the previous build can take over again.
    let before = made_anew(&host, "copies");
    delete_copies(&host);
    wait_made_anew(&host, "copies", before + 2);
    let out = host.cli(&["rollback", "cleaned"]);
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    assert_eq!(client.ask("hello"), "one 4 hello");
}

/// A file in the place of another is no build of ours, whatever it holds.
#[test]
fn a_successor_loads_no_other_file_in_the_place_of_a_private_copy() {
    let fixture = Fixture::new("swapped", &tally_source("swapped", "one"));
    let host = Host::serve(&["swapped"], &[&fixture.build()]);
    let mut client = Client::connect(host.addr("swapped"));
    assert_eq!(client.ask("hello"), "one 1 hello");
    let other = {
        fixture.write(&tally_source("swapped", "other"));
        fixture.build_as("other.so")
    };
    let (pid, copies) = (host.worker_pid(), host.copies());
    std::fs::remove_file(&copies[0]).expect("a file less");
    std::fs::copy(&other, &copies[0]).expect("a copy");
    kill(pid);
    assert_eq!(client.ask("hello"), "one 2 hello");
}

#[test]
fn a_reload_makes_the_directory_of_private_copies_anew() {
    let fixture = Fixture::new("remade", &tally_source("remade", "one"));
    let host = Host::serve(&["remade"], &[&fixture.build()]);
    let mut client = Client::connect(host.addr("remade"));
    assert_eq!(client.ask("hello"), "one 1 hello");
    let second = {
        fixture.write(&tally_source("remade", "two"));
        fixture.build_as("second.so")
    };
    std::fs::remove_dir_all(host.runtime().join("copies")).expect("a directory less");

    let (code, report) = host.reload_from("remade", &second);
    assert_eq!((code, &report["outcome"]), (Some(0), &"committed".into()), "{report}");
    assert_eq!(client.ask("hello"), "two 2 hello");
    assert_eq!(mode(&host.runtime().join("copies")), 0o700);
    // The directory is this host's again.
    wait_made_anew(&host, "locks", 1);
}

#[test]
fn commands_get_in_again_after_the_admin_socket_was_deleted() {
    let mut host = Host::serve(&["echo", "tally"], &[&built("libecho.so")]);
    let socket = host.runtime().join("admin.sock");
    let mut client = Client::connect(host.addr("echo"));
    for times in 1..=2 {
        std::fs::remove_file(&socket).expect("a file less");
        wait_for("commands", || host.cli(&["status"]).status.success().then_some(()));
        assert_eq!(made_anew(&host, "socket"), times);
        assert_eq!(mode(&socket), 0o600);
        assert_eq!(host.json(&["sessions", "--json"]).as_array().map(Vec::len), Some(1));
    }
    let said = format!("{} was gone, and is made anew", socket.display());
    assert_eq!(host.log().matches(&said).count(), 2, "{}", host.log());
    let text = host.cli(&["status"]).stdout;
    assert!(String::from_utf8_lossy(&text).contains("made anew so often: socket 2"));

    // All is deleted, and no other host takes the place before this one is back.
    std::fs::remove_dir_all(host.runtime()).expect("a directory less");
    let second = host.cli(&["serve", built("libecho.so").to_str().expect("UTF-8")]);
    let said = String::from_utf8_lossy(&second.stderr);
    assert_eq!(second.status.code(), Some(1), "{said}");
    assert!(said.contains(&format!("in use by the greenroom host with pid {}", host.pid())), "{said}");
    wait_for("commands", || host.cli(&["status"]).status.success().then_some(()));
    wait_made_anew(&host, "copies", 1);
    wait_made_anew(&host, "locks", 3);
    assert_eq!(mode(&host.runtime()), 0o700);

    host.kill_worker();
    assert_eq!(client.ask("still here"), "still here");
    host.signal(libc::SIGTERM);
    assert_eq!(client.line(), None);
    assert_eq!(host.wait(), Some(0));
    assert!(!socket.exists() && host.runtime().join("tables.saved").exists());
}

#[test]
fn status_says_what_is_missing_before_a_crash_needs_it() {
    let host = Host::serve(&["echo", "tally"], &[&built("libecho.so")]);
    assert_eq!(host_status(&host)["missing"], serde_json::json!([]));
    let (pid, copies) = (host.worker_pid(), host.runtime().join("copies"));
    std::fs::remove_dir_all(&copies).expect("a directory less");
    std::fs::write(&copies, "in the way").expect("a file");

    // The lock and the copy.
    wait_for("what is missing", || {
        let missing = host_status(&host)["missing"].take();
        let missing = missing.as_array().expect("reasons");
        let all = missing.len() == 2
            && missing.iter().all(|why| why.as_str().is_some_and(|w| w.contains("copies")));
        all.then_some(())
    });
    // Before the first look, the status names them as well; the log has the reasons.
    let told = || {
        let log = host.log();
        let told = |name: &str| {
            log.lines().filter(|l| l.contains("cannot be made anew: ") && l.contains(name)).count()
        };
        (told("/host-"), told("/echo-"))
    };
    wait_for("the reasons in the log", || (told() == (1, 1)).then_some(()));
    let text = host.cli(&["status"]).stdout;
    let text = String::from_utf8_lossy(&text);
    assert_eq!(text.lines().filter(|l| l.starts_with("missing: ")).count(), 2, "{text}");
    assert_eq!(host.worker_pid(), pid, "nobody has died");

    std::fs::remove_file(&copies).expect("a file less");
    wait_made_anew(&host, "copies", 1);
    assert_eq!(told(), (1, 1), "each reason is told once");
}

#[test]
fn hosts_that_share_a_directory_leave_each_others_private_copies_alone() {
    let shared = tempfile::tempdir().expect("a directory");
    let copies = shared.path().join("copies");
    let serve = || {
        Host::serve_with(&["echo", "tally"], &[&built("libecho.so")], |c| {
            c.arg("--copies").arg(&copies);
        })
    };
    let files = |end: &str| {
        let all = std::fs::read_dir(&copies).expect("copies").flatten();
        all.filter(|f| f.file_name().to_string_lossy().ends_with(end)).count()
    };
    let (first, mut second) = (serve(), serve());
    let mut client = Client::connect(first.addr("echo"));
    assert_eq!(client.ask("a"), "a");
    assert_eq!((files(".so"), files(".lock")), (2, 2));
    second.kill();
    // Starts of hosts and of workers clear what is left of dead hosts, and nothing else.
    let third = serve();
    assert_eq!((files(".so"), files(".lock")), (2, 2));
    for host in [&first, &third] {
        host.kill_worker();
        assert_eq!(made_anew(host, "copies"), 0);
    }
    assert_eq!(client.ask("b"), "b");
}

/// A service's Unix socket whose file is deleted, alone and with its directory, can be connected to
/// again. Connections that were there stay.
#[test]
fn a_unix_socket_of_a_service_that_was_deleted_is_made_anew() {
    let dir = tempfile::tempdir().expect("a directory");
    let (sockets, config) = (dir.path().join("sockets"), dir.path().join("greenroom.toml"));
    std::fs::create_dir(&sockets).expect("a directory");
    std::fs::set_permissions(&sockets, PermissionsExt::from_mode(0o2771)).expect("a mode");
    let path = sockets.join("s.sock");
    let text = format!("[service.echo]\nlisten = [\"unix:{}\"]\nsocket_mode = \"0660\"\n", path.display());
    std::fs::write(&config, text).expect("a configuration");
    let host = Host::serve_with(&[], &[&built("libecho.so")], |c| _ = c.arg("-c").arg(&config));
    let connect = || UnixStream::connect(&path).ok().map(|s| Client::from(TcpStream::from(OwnedFd::from(s))));
    let mut first = connect().expect("a connection");
    assert_eq!(first.ask("one"), "one");

    std::fs::remove_file(&path).expect("a file less");
    wait_made_anew(&host, "sockets of services", 1);
    assert_eq!(connect().expect("a connection").ask("two"), "two");
    assert_eq!((first.ask("still"), mode(&path)), ("still".to_owned(), 0o660));

    std::fs::remove_dir_all(&sockets).expect("a directory less");
    wait_made_anew(&host, "sockets of services", 2);
    let dir_mode = std::fs::metadata(&sockets).expect("the directory").permissions().mode() & 0o7777;
    assert_eq!((connect().expect("a connection").ask("three"), dir_mode), ("three".into(), 0o2771));

    // Something else in its place can't be replaced, and is told.
    std::fs::remove_dir_all(&sockets).expect("a directory less");
    std::fs::write(&sockets, "").expect("a file");
    let failing = || host_status(&host)["failing"].to_string();
    wait_for("the reason", || failing().contains("s.sock, which is gone").then_some(()));
    std::fs::remove_file(&sockets).expect("a file less");
    wait_made_anew(&host, "sockets of services", 3);
    assert_eq!((connect().expect("a connection").ask("four"), failing()), ("four".into(), "[]".into()));
    assert_eq!(first.ask("still"), "still");
}
