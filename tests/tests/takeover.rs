//! Successors find peers in every state, no worker at all, another binary, many generations.

use greenroom_tests::client::Client;
use greenroom_tests::fixture::{Fixture, compile_c, nicks_build, tally_source};
use greenroom_tests::host::Host;
use greenroom_tests::mishaps::limit;
use greenroom_tests::{built, wait_for};
use serde_json::Value;
use std::path::Path;

fn host_status(host: &Host) -> Value {
    host.json(&["status", "--json"])["host"].clone()
}

fn worker(host: &Host) -> i32 {
    host_status(host)["worker_pid"].as_i64().expect("a pid") as i32
}

fn signal(pid: i32, signal: i32) {
    // SAFETY: kill has no preconditions; the process is a worker of our own host.
    assert_eq!(unsafe { libc::kill(pid, signal) }, 0);
}

fn sessions(host: &Host) -> usize {
    host.json(&["sessions", "--json"]).as_array().map_or(0, Vec::len)
}

/// The worker stands still, peers act, and it is killed: its successor finds what it never saw.
#[test]
fn a_successor_sees_what_peers_did_while_the_worker_stood_still() {
    let fixture = Fixture::new("gap", &tally_source("gap", "one"));
    let host = Host::serve(&["gap"], &[&fixture.build()]);
    let addr = host.addr("gap");
    let mut clients: Vec<_> = (0..8).map(|_| Client::connect(addr)).collect();
    for c in &mut clients {
        assert_eq!(c.ask("first"), "one 1 first");
    }
    // Urgent data is data like any other, before and after.
    clients[6].send("ur");
    clients[6].send_urgent(b'g');
    clients[6].send("ent\n");
    assert_eq!(clients[6].line().expect("an answer"), "one 2 urgent");
    clients[6].send("half of ");
    // Already half closed, with more output than the sockets hold.
    for _ in 0..8 {
        clients[7].send(format!("flood {}\n", 1 << 19));
    }
    clients[7].shutdown();
    wait_for("the flood", || (host.service("gap")["turns"].as_u64()? >= 8 + 1 + 4).then_some(()));

    let stopped = worker(&host);
    signal(stopped, libc::SIGSTOP);
    clients[0].send("during\n");
    clients[1].send("last\nwords");
    clients[1].shutdown();
    clients[2].shutdown();
    // Closed with an answer unread, which is a reset.
    let gone = clients.remove(3);
    gone.reset();
    let mut fresh = Client::connect(addr);
    fresh.send("new here\n");
    let mut brief = Client::connect(addr);
    brief.send("just looking\n");
    brief.shutdown();
    Client::connect(addr).reset();
    clients[5].send_urgent(b'a');
    clients[5].send(" line\n");
    // Stuck as it is, the host says so much.
    assert_eq!(host.service("gap")["sessions"], 8);
    signal(stopped, libc::SIGKILL);

    assert_eq!(clients[0].line().expect("an answer"), "one 2 during");
    assert_eq!(clients[1].line().expect("an answer"), "one 2 last");
    assert_eq!(clients[1].line(), None, "what was no whole line is no line");
    assert_eq!(clients[2].line(), None);
    assert_eq!(fresh.line().expect("an answer"), "one 1 new here");
    assert_eq!(brief.line().expect("an answer"), "one 1 just looking");
    assert_eq!(brief.line(), None);
    assert_eq!(clients[5].line().expect("an answer"), "one 3 half of a line");
    for n in 2..10 {
        let line = clients[6].line().expect("the flood");
        let (flood, rest) = line.split_at(1 << 19);
        assert!(flood.bytes().all(|b| b == b'x'));
        assert!(rest.starts_with(&format!("one {n} flood")), "{rest}");
    }
    assert_eq!(clients[6].line(), None);
    // Four of the first go on, and the fresh one; nothing is left of the others.
    for (c, n) in [(0, 3), (3, 2), (4, 2)] {
        assert_eq!(clients[c].ask("on"), format!("one {n} on"));
    }
    wait_for("the others' end", || (sessions(&host) == 5).then_some(()));
    wait_for("their descriptors", || (host_status(&host)["connections"] == 5).then_some(()));
    assert!(!host.log().contains("given up"));
}

#[test]
fn sessions_stay_parked_until_a_worker_can_start() {
    let fixture = Fixture::new("parked", &tally_source("parked", "one"));
    let host = Host::serve(&["parked"], &[&fixture.build()]);
    let mut client = Client::connect(host.addr("parked"));
    assert_eq!(client.ask("hello"), "one 1 hello");

    let copies = host.runtime().join("copies");
    let pid = worker(&host);
    // A file in the place of the directory, so that no copy can be written anew.
    std::fs::remove_dir_all(&copies).expect("a directory less");
    std::fs::write(&copies, "in the way").expect("a file");

    signal(pid, libc::SIGKILL);
    client.send("anybody\n");
    let status = wait_for("several tries", || {
        let log = host.log();
        let tries = log.lines().filter(|l| l.contains("no worker serves; all is kept")).count();
        let status = host_status(&host);
        (tries >= 4 && status["worker"] == "parked").then_some(status)
    });

    let reason = status["reason"].as_str().expect("a reason");
    assert!(
        reason.contains("parked, generation 1") && reason.contains("cannot open shared object"),
        "{reason}"
    );
    assert_eq!((&status["worker_pid"], &status["connections"]), (&0.into(), &1.into()));
    assert_eq!(host.service("parked")["sessions"], 1);
    // The pauses grow.
    let log = host.log();
    assert!(log.contains("tried again in 100ms") && log.contains("tried again in 200ms"), "{log}");

    // Whoever asks for more than a status is told, in time.
    let out = host.cli(&["reload", "parked"]);
    let said = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.code() == Some(1) && said.contains("no worker serves at the moment"), "{said}");

    std::fs::remove_file(&copies).expect("a file less");
    assert_eq!(client.line().expect("an answer"), "one 2 anybody");
    assert_eq!(host_status(&host)["worker"], "serving");
}

#[test]
fn a_keeper_that_dies_takes_its_worker_with_it() {
    let fixture = Fixture::new("orphan", &tally_source("orphan", "one"));
    let mut host = Host::serve(&["orphan"], &[&fixture.build()]);
    let mut client = Client::connect(host.addr("orphan"));
    assert_eq!(client.ask("hello"), "one 1 hello");
    let pid = worker(&host);

    host.kill();

    assert_eq!(client.line(), None);
    let gone = || {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"));
        stat.map_or(true, |s| s.contains(") Z ")).then_some(())
    };
    wait_for("the worker's end", gone);
}

#[test]
fn serve_without_a_keeper_is_one_process() {
    let fixture = Fixture::new("alone", &tally_source("alone", "one"));
    let mut host = Host::serve_with(&["alone"], &[&fixture.build()], |c| {
        c.arg("--no-keeper");
    });
    let mut client = Client::connect(host.addr("alone"));
    assert_eq!(client.ask("hello"), "one 1 hello");

    assert_eq!(worker(&host) as u32, host.pid());
    host.wait_log("--no-keeper: all in one process");

    let second = {
        fixture.write(&tally_source("alone", "two"));
        fixture.build_as("second.so")
    };
    assert_eq!(host.reload_from("alone", &second).0, Some(0));
    assert_eq!(client.ask("hello"), "two 2 hello");

    let out = host.cli(&["upgrade"]);
    let said = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.code() == Some(1) && said.contains("--no-keeper"), "{said}");

    host.signal(libc::SIGTERM);
    assert_eq!(client.line(), None);
    assert_eq!(host.wait(), Some(0));
}

#[test]
fn an_upgrade_keeps_every_session_and_a_bad_one_changes_nothing() {
    let fixture = Fixture::new("upgraded", &tally_source("upgraded", "one"));
    let host = Host::serve(&["upgraded"], &[&fixture.build()]);
    let mut client = Client::connect(host.addr("upgraded"));
    assert_eq!(client.ask("hello"), "one 1 hello");
    client.send("half ");
    let first = worker(&host);

    let text = host.dir().join("notes.txt");
    std::fs::write(&text, "not a program").expect("a file");
    let broken = host.dir().join("broken");
    let mut bytes = std::fs::read(built("greenroom")).expect("the binary");
    bytes.truncate(100_000);
    std::fs::write(&broken, bytes).expect("a file");
    make_executable(&broken);

    let refusals: [(&Path, &str); 5] = [
        (&text, "not executable"),
        (&broken, "refused"),
        (Path::new("/bin/true"), "its trial ended without a report"),
        (Path::new("/bin/false"), "its trial ended without a report"),
        (host.dir(), "not a file"),
    ];
    for (path, why) in refusals {
        let out = host.cli(&["upgrade", "--binary", path.to_str().expect("UTF-8")]);
        let said = String::from_utf8_lossy(&out.stderr);
        assert!(out.status.code() == Some(1) && said.contains(why), "{}: {said}", path.display());
        assert_eq!(worker(&host), first);
    }

    let newer = host.dir().join("greenroom-next");
    std::fs::copy(built("greenroom"), &newer).expect("a copy");
    let out = host.cli(&["upgrade", "--binary", newer.to_str().expect("UTF-8")]);
    let said = String::from_utf8_lossy(&out.stdout);
    assert!(
        out.status.success() && said.contains("1 sessions, 0 table entries, generations upgraded 1"),
        "{out:?}"
    );

    assert_eq!(client.ask("line"), "one 2 half line");
    let now = worker(&host);
    assert_ne!(now, first);
    let runs = std::fs::read_link(format!("/proc/{now}/exe")).expect("its binary");
    assert_eq!(runs, newer.canonicalize().expect("a path"));

    // Whatever happens to that one, its successors are of the same binary.
    signal(now, libc::SIGKILL);
    assert_eq!(client.ask("hello"), "one 3 hello");
    let runs = std::fs::read_link(format!("/proc/{}/exe", worker(&host))).expect("its binary");
    assert_eq!(runs, newer.canonicalize().expect("a path"));
    assert_eq!(host.generation("upgraded"), 1);
}

fn make_executable(path: &Path) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(path, PermissionsExt::from_mode(0o755)).expect("its mode");
}

/// A build that was installed while no worker lived is found by the next one. A build that was seen
/// is not tried again.
#[test]
fn a_successor_loads_a_build_that_was_installed_meanwhile() {
    let fixture = Fixture::new("looks", &tally_source("looks", "one"));
    let host = Host::serve(&["looks"], &[&fixture.build()]);
    let mut client = Client::connect(host.addr("looks"));
    assert_eq!(client.ask("hello"), "one 1 hello");

    signal(worker(&host), libc::SIGSTOP);
    fixture.write(&tally_source("looks", "two"));
    fixture.build();
    signal(worker(&host), libc::SIGKILL);

    host.wait_generation("looks", 2);
    assert_eq!(client.ask("hello"), "two 2 hello");

    // Copies that nobody will load again are gone.
    signal(worker(&host), libc::SIGKILL);
    assert_eq!(client.ask("hello"), "two 3 hello");
    assert_eq!(host.generation("looks"), 2);
    assert_eq!(host.copies().len(), 2, "what runs, and what ran before");
}

/// A supervisor may stop all processes of a group at once, and the worker may even be killed then.
#[test]
fn a_stop_flushes_and_saves_although_the_worker_stops_or_dies() {
    let library = Fixture::new("stopped", &tally_source("stopped", "one")).build();
    for kills in [false, true] {
        let mut host = Host::serve(&["stopped"], &[&library]);
        let mut client = Client::connect(host.addr("stopped"));
        // Answered, and not read by its peer.
        client.send("flood 900000\n");
        wait_for("the flood's turn", || (host.service("stopped")["turns"] == 2).then_some(()));

        let pid = worker(&host);
        signal(pid, libc::SIGSTOP);
        signal(host.pid() as i32, libc::SIGTERM);
        signal(pid, if kills { libc::SIGKILL } else { libc::SIGTERM });
        if !kills {
            signal(pid, libc::SIGCONT);
        }

        let line = client.line().expect("the flood, whole");
        assert!(line.len() > 900_000 && line.ends_with("one 1 flood 900000"), "{} bytes", line.len());
        assert_eq!(client.line(), None);
        assert_eq!(host.wait(), Some(0));
        assert!(host.runtime().join("tables.saved").exists());
    }
}

/// A wild write by a handler may hit anything. Only the session that it hit is given up, by name.
#[test]
fn damaged_records_cost_their_own_session_alone() {
    use std::os::unix::fs::FileExt;
    let host = Host::serve(&["wildwrite"], &[&greenroom_tests::chain::fixture("wildwrite").build()]);
    let mut clients: Vec<_> = (0..20).map(|_| Client::connect(host.addr("wildwrite"))).collect();
    for (n, c) in clients.iter_mut().enumerate() {
        assert_eq!(c.line().expect("a greeting"), "hello");
        assert!(c.ask(&format!("person-{n:02}-of-the-damaged-host")).starts_with("1 "));
    }

    signal(worker(&host), libc::SIGSTOP);
    let fds = std::fs::read_dir(format!("/proc/{}/fd", host.pid())).expect("the keeper's descriptors");
    let records = fds.flatten().find(|e| {
        std::fs::read_link(e.path()).is_ok_and(|to| to.to_string_lossy().contains("greenroom-records"))
    });
    let records = records.expect("the records").path();
    let memory = std::fs::read(&records).expect("the records");
    let file = std::fs::OpenOptions::new().write(true).open(&records).expect("the records");

    let mut hits = 0;
    // In the session's state. The table's entry has the name too, and concerns no other session.
    for at in memory.windows(9).enumerate().filter(|(_, w)| w == b"person-07").map(|(at, _)| at) {
        file.write_at(b"XXXX", at as u64).expect("a wild write");
        hits += 1;
    }
    assert!(hits >= 2, "{hits} places");

    // And in the list of ports, which the keeper knows too.
    for at in memory.windows(8).enumerate().filter(|(_, w)| w == b"\"addr\":\"").map(|(at, _)| at) {
        file.write_at(b"!!!!", at as u64).expect("a wild write");
    }

    signal(worker(&host), libc::SIGKILL);
    for (n, c) in clients.iter_mut().enumerate() {
        if n == 7 {
            assert_eq!(c.line(), None);
        } else {
            assert!(c.ask("on").starts_with("2 "), "{n}");
        }
    }

    // The log is written by a thread of its own.
    host.wait_log("took over in");
    host.wait_log("the record of the ports is lost; the keeper knows them");
    let log = host.log();
    let named: Vec<_> =
        log.lines().filter(|l| l.contains("given up, because it cannot be trusted")).collect();
    assert!(named.iter().any(|l| l.contains("session 8")), "{named:?}");
    let expected =
        |l: &&str| ["session 8", "an entry of a table", "the list of ports"].iter().any(|w| l.contains(w));
    assert!(named.iter().all(expected), "{named:?}");

    assert_eq!(sessions(&host), 19);
    // Who comes now is served, by this worker and the next.
    for _ in 0..2 {
        assert_eq!(Client::connect(host.addr("wildwrite")).line().expect("a greeting"), "hello");
        signal(worker(&host), libc::SIGKILL);
    }
}

/// A handler's destructors are no part of a worker's end: none runs.
#[test]
fn destructors_of_handlers_hold_up_neither_an_upgrade_nor_a_stop() {
    let header = greenroom_tests::root().join("tests/fixtures/at_exit.h");
    let binary = built("greenroom");
    for does in ["crash", "hang"] {
        let dir = tempfile::tempdir().expect("a directory");
        let library = dir.path().join("libupper.so");
        let flags = ["-include", header.to_str().expect("UTF-8"), &format!("-DAT_EXIT={does}")];
        compile_c("upper.c", &flags, &library);
        let mut host = Host::serve(&["upper"], &[&library]);
        let mut peer = Client::connect(host.addr("upper"));
        assert_eq!(peer.ask("hello"), "1 HELLO");
        let out = host.cli(&["upgrade", "--binary", binary.to_str().expect("UTF-8")]);
        assert!(out.status.success(), "{does}: {out:?}");
        assert_eq!(peer.ask("again"), "2 AGAIN");
        // The reason of a takeover is not that of an earlier end.
        host.kill_worker();
        assert!(host.json(&["status", "--json"])["host"]["reason"].is_string());
        let out = host.cli(&["upgrade", "--binary", binary.to_str().expect("UTF-8")]);
        assert!(out.status.success(), "{does}: {out:?}");
        assert!(host.json(&["status", "--json"])["host"]["reason"].is_null());
        host.signal(libc::SIGTERM);
        assert_eq!(host.wait(), Some(0), "{does}");
        assert_eq!(host.log().matches(" the worker died").count(), 1, "{does}: the one that was killed");
    }
}

/// Nobody can flush the sessions, and the tables are saved all the same.
#[test]
fn a_host_that_stops_without_a_worker_saves_its_tables() {
    let dir = tempfile::tempdir().expect("a directory");
    let (save, config) = (dir.path().join("tables"), dir.path().join("greenroom.toml"));
    std::fs::write(&config, format!("[save]\nfile = {save:?}\nevery_s = 0\n")).expect("a configuration");
    let library = nicks_build("alone_nicks");
    let serve = || {
        Host::serve_with(&["chat"], &[&library], |host| {
            host.arg("--config").arg(&config);
        })
    };
    let mut host = serve();
    let mut client = Client::connect(host.addr("chat"));
    client.line();
    let before = client.ask("ann");
    let copies = host.runtime().join("copies");
    std::fs::remove_dir_all(&copies).expect("a directory less");
    std::fs::write(&copies, "in the way").expect("a file");
    signal(worker(&host), libc::SIGKILL);
    host.wait_log("no worker serves; all is kept");

    host.signal(libc::SIGTERM);
    assert_eq!(host.wait(), Some(1));
    host.wait_log("stopped; the tables are saved, and nothing was flushed: ");
    drop(host);
    std::fs::read(&save).expect("the saved file");
    let host = serve();
    let dump = host.json(&["state", "dump"]);
    assert_eq!(dump["tables"]["chat-nicks"].as_array().map(Vec::len), Some(1), "{before}: {dump}");
}

/// A peer that has sent its last line still waits for the answer.
#[test]
fn a_short_lack_of_descriptors_costs_no_peer_that_has_said_all() {
    let fixture = Fixture::new("lacked", &tally_source("lacked", "one"));
    let host = Host::serve(&["lacked"], &[&fixture.build()]);
    let mut client = Client::connect(host.addr("lacked"));
    assert_eq!(client.ask("hello"), "one 1 hello");
    let pid = worker(&host);
    signal(pid, libc::SIGSTOP);
    client.send("last words\n");
    client.shutdown();

    let keeper = host.pid() as i32;
    let before = limit(keeper, libc::RLIMIT_NOFILE, 3).expect("a keeper");
    signal(pid, libc::SIGKILL);
    host.wait_log("tried again in 100ms: ");
    limit(keeper, libc::RLIMIT_NOFILE, before).expect("a keeper");

    assert_eq!(client.line().as_deref(), Some("one 2 last words"));
    assert_eq!(client.line(), None);
}
