//! Blame by evidence: which action, which build and which thread a death or a fault is held
//! against.

use greenroom_tests::client::Client;
use greenroom_tests::fixture::{Fixture, Optimize, tally_source};
use greenroom_tests::host::Host;
use greenroom_tests::wait_for;
use serde_json::{Value, json};

/// A tally whose lines may take the process with them in ways that the process can't tell.
fn source(service: &str) -> String {
    let deaths = r#"
            match &*line {
                "kill" => unsafe { kill(std::process::id() as i32, 9); },
                "eat" => eat(),
                "protect" => protect(),
                "hush" => hush(),
                "vanish" => vanish(),
                "forbid" => unsafe { prctl(22, 1, 0, 0, 0); },
                "spin" => loop { std::hint::spin_loop() },
                _ => {}
            }
            if let Some(path) = line.strip_prefix("bomb ") {
                let path = path.to_owned();
                std::thread::spawn(move || {
                    wait(&path);
                    unsafe { std::ptr::null_mut::<u8>().write_volatile(1) }
                });
            }
            if let Some(path) = line.strip_prefix("wait ") {
                wait(path);
            }
            let count"#;
    let more = r#"
unsafe extern "C" {
    fn kill(pid: i32, signal: i32) -> i32;
    fn close(fd: i32) -> i32;
    fn getsockopt(fd: i32, level: i32, name: i32, value: *mut i32, len: *mut u32) -> i32;
    fn syscall(number: i64, ...) -> i64;
    fn prctl(what: i32, ...) -> i32;
    fn mprotect(at: usize, len: usize, rights: i32) -> i32;
}
/// Closes the worker's socket to the keeper, as a close too many may.
fn hush() {
    for fd in 3..100 {
        let (mut kind, mut len) = (0_i32, 4_u32);
        // SOL_SOCKET, SO_TYPE, SOCK_SEQPACKET
        if unsafe { getsockopt(fd, 1, 3, &mut kind, &mut len) } == 0 && kind == 5 {
            unsafe { close(fd) };
        }
    }
}
/// Ends the thread, and no other.
fn vanish() {
    let exit = if cfg!(target_arch = "x86_64") { 60 } else { 93 };
    unsafe { syscall(exit, 0) };
}
/// Leaves the host without the right to write its own records.
fn protect() {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap_or_default();
    for line in maps.lines().filter(|l| l.contains("greenroom-records")) {
        let range = line.split(' ').next().and_then(|r| r.split_once('-'));
        let number = |text| usize::from_str_radix(text, 16).unwrap_or_default();
        if let Some((begin, end)) = range.map(|(b, e)| (number(b), number(e))) {
            unsafe { mprotect(begin, end - begin, 1) };
        }
    }
}
fn wait(path: &str) {
    while !std::path::Path::new(path).exists() {
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
}
fn eat() {
    let mut all: Vec<Vec<u8>> = Vec::new();
    loop {
        all.push(std::hint::black_box(vec![0; 16 << 20]));
    }
}
"#;
    let source = tally_source(service, "wild").replacen("            let count", deaths, 1);
    source.replace("#![forbid(unsafe_code)]", "") + more
}

fn quarantined(host: &Host) -> Vec<String> {
    let sessions = host.json(&["sessions", "--json"]);
    let all = sessions.as_array().expect("sessions").iter();
    all.filter_map(|s| s["quarantined"].as_str().map(str::to_owned)).collect()
}

fn workers_before(host: &Host) -> u64 {
    host.json(&["status", "--json"])["host"]["workers_before"].as_u64().expect("a number")
}

/// Sets a limit of a process that is not ours.
fn limit(pid: i32, resource: libc::__rlimit_resource_t, value: u64) {
    let limit = libc::rlimit { rlim_cur: value, rlim_max: libc::RLIM_INFINITY };
    // SAFETY: the limits are read, and nothing is written.
    let status = unsafe { libc::prlimit(pid, resource, &limit, std::ptr::null_mut()) };
    assert_eq!(status, 0);
}

/// SIGKILL names no culprit, so it takes three in a row in one turn. Each worker after the first
/// dies in its start, where it runs the turn again.
#[test]
fn a_line_whose_turn_is_killed_three_times_in_a_row_is_quarantined() {
    let library = Fixture::new("reaped", &source("reaped")).build();
    let host = Host::serve_limited("reaped", &library, "crashes_max = 1000");
    let mut other = Client::connect(host.addr("reaped"));
    assert_eq!(other.ask("on"), "wild 1 on");
    let mut client = Client::connect(host.addr("reaped"));
    assert_eq!(client.ask("first"), "wild 1 first");

    client.send("second\nkill\nthird\n");

    assert_eq!(client.line().expect("an answer"), "wild 2 second");
    assert_eq!(other.ask("still"), "wild 2 still");
    assert_eq!(workers_before(&host), 3);
    let list = quarantined(&host);
    let why = "its turn 4 (action message) was running at 3 deaths in a row: killed (SIGKILL)";
    assert_eq!(list, [why]);
    // It stays blocked, whatever else the worker dies of.
    host.kill_worker();
    assert_eq!(other.ask("again"), "wild 3 again");
    assert_eq!(quarantined(&host).len(), 1);
}

/// A turn may break what the host needs, and return. The worker dies in the host's own code then,
/// before the commit, and each successor runs the turn again.
#[test]
fn a_line_whose_turn_breaks_the_host_behind_it_is_quarantined() {
    let library = Fixture::new("breaks", &source("breaks")).build();
    let host = Host::serve_limited("breaks", &library, "crashes_max = 1000");
    let mut others: Vec<_> = (0..8).map(|_| Client::connect(host.addr("breaks"))).collect();
    others.iter_mut().for_each(|other| assert_eq!(other.ask("on"), "wild 1 on"));
    let mut client = Client::connect(host.addr("breaks"));
    assert_eq!(client.ask("first"), "wild 1 first");

    client.send("second\nprotect\nthird\n");
    others.iter_mut().for_each(|other| other.send("still\n"));

    assert_eq!(client.line().expect("an answer"), "wild 2 second");
    others.iter_mut().for_each(|other| assert_eq!(other.line().expect("an answer"), "wild 2 still"));
    let list = quarantined(&host);
    assert!(
        list.len() == 1 && list[0].contains("its turn 4 (action message) was running at 3 deaths in a row"),
        "{list:?}"
    );
    // The first death may have been counted against another turn of its pass.
    assert!((3..=4).contains(&workers_before(&host)), "{}", host.log());
}

/// A worker that has lost its socket to the keeper serves those that it has, and nobody new.
/// Another one takes over.
#[test]
fn a_worker_whose_socket_to_the_keeper_was_closed_is_replaced() {
    let library = Fixture::new("hushed", &source("hushed")).build();
    let host = Host::serve(&["hushed"], &[&library]);
    let mut client = Client::connect(host.addr("hushed"));
    assert_eq!(client.ask("first"), "wild 1 first");
    client.send("hush\n");
    let mut other = Client::connect(host.addr("hushed"));
    assert_eq!(other.ask("on"), "wild 1 on");
    assert!(workers_before(&host) >= 1);
    assert_eq!(host.json(&["sessions", "--json"]).as_array().map(Vec::len), Some(2));
    assert_eq!(quarantined(&host), [""; 0]);
}

/// A turn may end the loop's thread alone: at once, or behind it, as it forbids the thread all
/// system calls. The process lives on.
#[test]
fn a_line_whose_turn_ends_the_thread_is_quarantined() {
    for line in ["vanish", "forbid"] {
        let library = Fixture::new("gone", &source("gone")).build();
        let host = Host::serve_limited("gone", &library, "crashes_max = 1000");
        let mut other = Client::connect(host.addr("gone"));
        assert_eq!(other.ask("on"), "wild 1 on");
        let mut client = Client::connect(host.addr("gone"));
        client.send(format!("first\n{line}\nthird\n"));

        assert_eq!(client.line().expect("an answer"), "wild 1 first");
        assert_eq!(other.ask("still"), "wild 2 still");
        let list = quarantined(&host);
        assert!(list.len() == 1 && list[0].contains("its loop's thread had ended"), "{line}: {list:?}");
        assert!((2..=4).contains(&workers_before(&host)), "{}", host.log());
    }
}

/// A turn that never ends, and an operator who kills the worker for it.
#[test]
fn an_endless_turn_is_quarantined_when_its_worker_was_killed_three_times() {
    let library = Fixture::with(Optimize::NothingWithLines, "endless", &source("endless")).build();
    let host = Host::serve_limited("endless", &library, "stall_warn_ms = 50");
    let mut other = Client::connect(host.addr("endless"));
    assert_eq!(other.ask("on"), "wild 1 on");
    let mut client = Client::connect(host.addr("endless"));
    client.send("spin\n");

    an_operator_sees_the_stall_and_ends_it(&host, &mut client);
    assert_eq!(other.ask("meanwhile"), "wild 2 meanwhile");
    let mut client = Client::connect(host.addr("endless"));
    client.send("spin\n");

    for deaths in 1..=3 {
        wait_for("the turn to stall", || {
            (host.log().matches("a callback has been running").count() > deaths).then_some(())
        });
        // SAFETY: kill has no preconditions.
        unsafe { libc::kill(host.worker_pid(), libc::SIGKILL) };
    }

    assert_eq!(other.ask("still"), "wild 3 still");
    let list = quarantined(&host);
    assert!(list.len() == 1 && list[0].contains("was running at 3 deaths in a row"), "{list:?}");
    assert_eq!(workers_before(&host), 4);
}

/// The turn of session 2 spins. Its operator gets words in place of a hang, and closes the session.
fn an_operator_sees_the_stall_and_ends_it(host: &Host, client: &mut Client) {
    let stalled = || host.json(&["status", "--json"])["host"]["stalled"].take();
    let stall = wait_for("a stall with its place", || {
        Some(stalled()).filter(|s| s["for_ms"].as_u64() >= Some(5_500) && s["running"]["place"].is_string())
    });
    let running = &stall["running"];
    assert_eq!(
        (&running["service"], &running["session"], &running["action"], &running["turn"]),
        (&json!("endless"), &json!(2), &json!("message"), &json!(2))
    );
    let place = running["place"].as_str().expect("a place");
    assert!(place.contains("handle") && place.contains("lib.rs:"), "{place}");
    let said = |args: &[&str]| {
        let out = host.cli(args);
        let said = [out.stdout, out.stderr].concat();
        (out.status.code(), String::from_utf8(said).expect("text"))
    };
    let (code, text) = said(&["status"]);
    assert!(
        code == Some(0) && text.contains("stalled: session 2 of endless, action message, for "),
        "{text}"
    );

    // Neither of them waits for the callback.
    for args in [&["sessions"][..], &["reload"], &["state", "dump"], &["session", "close", "2"]] {
        let (code, text) = said(args);
        assert!(code == Some(1) && text.contains("session 2 of endless, action message"), "{args:?}: {text}");
        assert!(text.contains("`greenroom session withhold 2`"), "{text}");
    }
    let (code, text) = said(&["session", "withhold", "1"]);
    assert!(code == Some(1) && text.contains("the callback that runs is of 2, service endless"), "{text}");

    // A worker that is stopped is told apart.
    let worker = host.worker_pid();
    // SAFETY: kill has no preconditions.
    unsafe { libc::kill(worker, libc::SIGSTOP) };
    wait_for("a stopped worker", || (stalled()["stopped"] == true).then_some(()));
    assert_eq!(stalled()["running"]["session"], 2);
    assert!(said(&["status"]).1.contains(&format!("the process is stopped (kill -CONT {worker} ")));

    let (code, text) = said(&["session", "close", "2", "--now"]);
    assert!(code == Some(0), "{text}");
    assert_eq!(client.line(), None, "it is closed");
    assert_eq!(stalled(), Value::Null);
    host.wait_log("an operator withholds the action that runs");
}

#[test]
fn a_line_that_takes_all_memory_is_quarantined() {
    let library = Fixture::new("hungry", &source("hungry")).build();
    let host = Host::serve_limited("hungry", &library, "store_bytes_max = 67108864\ncrashes_max = 1000");
    let mut other = Client::connect(host.addr("hungry"));
    assert_eq!(other.ask("on"), "wild 1 on");
    // Of the keeper, from which each worker has it.
    let of_address_space = 8 << 30;
    limit(host.pid() as i32, libc::RLIMIT_AS, of_address_space);
    limit(host.worker_pid(), libc::RLIMIT_AS, of_address_space);

    let mut client = Client::connect(host.addr("hungry"));
    client.send("eat\n");

    wait_for("quarantine", || (quarantined(&host).len() == 1).then_some(()));
    assert_eq!(other.ask("still"), "wild 2 still");
}

/// A turn that runs while another thread crashes is run again, and not blamed.
#[test]
fn a_crash_of_another_thread_is_not_held_against_the_turn_that_runs() {
    let library = Fixture::new("beside", &source("beside")).build();
    let host = Host::serve_limited("beside", &library, "stall_warn_ms = 50");
    let dir = tempfile::tempdir().expect("a directory");
    let (bomb, gate) = (dir.path().join("bomb"), dir.path().join("gate"));
    let mut client = Client::connect(host.addr("beside"));
    let line = format!("bomb {}", bomb.display());
    assert_eq!(client.ask(&line), format!("wild 1 {line}"));
    let mut slow = Client::connect(host.addr("beside"));
    let line = format!("wait {}", gate.display());
    slow.send(format!("{line}\n"));
    host.wait_log("a callback has been running");

    std::fs::write(&bomb, "").expect("a file");
    host.wait_log("the worker died: segmentation fault (SIGSEGV), on a thread that a handler started, or that of a reload");
    std::fs::write(&gate, "").expect("a file");

    assert_eq!(slow.line().expect("an answer"), format!("wild 1 {line}"));
    assert_eq!(client.ask("on"), "wild 2 on");
    assert!(!host.log().contains("the worker died in a turn"), "{}", host.log());
    assert!(quarantined(&host).is_empty());
}

/// A build on probation whose own threads end each worker gives way at the second death. Another
/// one, which came before it, stays.
#[test]
fn a_build_whose_threads_kill_workers_fails_its_probation() {
    let fixture = Fixture::new("bombs", &source("bombs"));
    let old = fixture.build_as("old.so");
    let bomb = r#"turn.state.count += 1;
            std::thread::spawn(|| {
                std::thread::sleep(std::time::Duration::from_millis(20));
                unsafe { std::ptr::null_mut::<u8>().write_volatile(1) }
            });"#;
    fixture.write(&source("bombs").replacen("turn.state.count += 1;", bomb, 1));
    let new = fixture.build_as("new.so");
    let innocent = Fixture::new("innocent", &tally_source("innocent", "one"));
    let first = innocent.build_as("first.so");
    innocent.write(&tally_source("innocent", "two"));
    let second = innocent.build_as("second.so");
    let dir = tempfile::tempdir().expect("a directory");
    let config = dir.path().join("greenroom.toml");
    std::fs::write(&config, "[limits]\nprobation_ms = 600000\n").expect("a configuration");
    let host = Host::serve_with(&["bombs", "innocent"], &[&old, &first], |c| {
        c.arg("--config").arg(&config);
    });
    let mut client = Client::connect(host.addr("bombs"));
    assert_eq!(client.ask("on"), "wild 1 on");
    assert_eq!(host.reload_from("innocent", &second).0, Some(0));
    assert_eq!(host.reload_from("bombs", &new).0, Some(0));

    for deaths in 1..=2 {
        client.ask("on");
        wait_for("a death", || (host.log().matches("the worker died: segm").count() == deaths).then_some(()));
    }

    wait_for("the previous build", || (host.generation("bombs") == 1).then_some(()));
    assert_eq!(client.ask("on"), "wild 4 on");
    assert_eq!(host.generation("innocent"), 2);
    let line = host.last_ledger_line();
    let why = line["reason"].as_str().expect("a reason");
    assert!(why.contains("crashed twice on threads that run no turns"), "{why}");
    assert_eq!(quarantined(&host).len(), 0);
}

/// A thread of a handler ends each worker 150 ms after its start. Between two deaths clients are
/// served, and the tables are saved when the host stops although no worker can flush.
#[test]
fn a_thread_that_kills_each_worker_costs_neither_the_service_nor_the_tables() {
    let fixture = Fixture::new("ticking", &source("ticking"));
    let ticks = r#"fn new(_: NoConfig) -> Result<Self, String> {
        if std::env::var("TICKS").is_ok_and(|path| std::path::Path::new(&path).exists()) {
            std::thread::spawn(|| {
                std::thread::sleep(std::time::Duration::from_millis(150));
                unsafe { std::ptr::null_mut::<u8>().write_volatile(1) }
            });
        }"#;
    let begin = "fn new(_: NoConfig) -> Result<Self, String> {";
    fixture.write(&source("ticking").replacen(begin, ticks, 1));
    let library = fixture.build();
    let dir = tempfile::tempdir().expect("a directory");
    let ticks = dir.path().join("ticks");
    let mut host = Host::serve_with(&["ticking"], &[&library], |c| {
        c.env("TICKS", &ticks);
    });
    let mut client = Client::connect(host.addr("ticking"));
    assert_eq!(client.ask("on"), "wild 1 on");
    let put = host.cli(&["table", "put", "--new", "kept", "key", "\"precious\""]);
    assert!(put.status.success(), "{put:?}");

    std::fs::write(&ticks, "").expect("a file");
    // SAFETY: the pid is that of a child of our child, which is alive.
    unsafe { libc::kill(host.worker_pid(), libc::SIGKILL) };
    // Pauses of five seconds would leave room for a few of them.
    wait_for("ten deaths", || (host.log().matches("the worker died: segm").count() >= 10).then_some(()));
    assert_eq!(client.ask("still"), "wild 2 still");

    host.signal(libc::SIGTERM);
    assert_eq!(host.wait(), Some(1));
    host.wait_log("the tables are saved, and nothing was flushed");
    let saved = std::fs::read(host.runtime().join("tables.saved")).expect("the saved file");
    assert!(saved.windows(8).any(|w| w == b"precious"));
    drop(client);
}

/// Garbage of one peer does not roll a build back, however much comes; that of several does.
#[test]
fn faults_on_probation_count_by_session() {
    let fixture = Fixture::new("strict", &tally_source("strict", "one"));
    let old = fixture.build_as("old.so");
    let strict =
        "turn.state.count += 1; if line.starts_with(b\"garbage\") { let _: u8 = \"garbage\".parse()?; }";
    fixture.write(&tally_source("strict", "two").replacen("turn.state.count += 1;", strict, 1));
    let new = fixture.build_as("new.so");
    let host = Host::serve_limited("strict", &old, "probation_ms = 600000");
    let mut other = Client::connect(host.addr("strict"));
    let mut peers: Vec<_> = (0..5).map(|_| Client::connect(host.addr("strict"))).collect();
    assert_eq!(other.ask("on"), "one 1 on");
    assert_eq!(host.reload_from("strict", &new).0, Some(0));

    for n in 1..=20 {
        assert_eq!(peers[0].ask("garbage"), format!("one {n} garbage"));
    }
    assert_eq!((other.ask("on"), host.generation("strict")), ("two 2 on".into(), 2));

    for peer in &mut peers[1..] {
        assert_eq!(peer.ask("garbage"), "one 1 garbage");
    }
    wait_for("the previous build", || (host.generation("strict") == 1).then_some(()));
    let line = host.last_ledger_line();
    let why = line["reason"].as_str().expect("a reason");
    assert!(why.contains("24 of its turns, in 5 sessions"), "{why}");
    assert_eq!(other.ask("on"), "one 3 on");
    let failed: Value = host.json(&["sessions", "--quarantined", "--json"]);
    assert_eq!(failed, json!([]));
}
