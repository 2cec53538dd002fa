//! Threads that the system doesn't give: what needed one is refused with the reason, and the next
//! request is carried out.

use greenroom_tests::client::Client;
use greenroom_tests::fixture::{Fixture, install, tally_source};
use greenroom_tests::host::Host;
use greenroom_tests::wait_for;
use std::io::Read;
use std::os::unix::net::UnixStream;
use std::time::Duration;

/// Limits the address space of a process; `None`: not at all.
fn limit_memory(pid: i32, bytes: Option<u64>) {
    let limit =
        libc::rlimit { rlim_cur: bytes.unwrap_or(libc::RLIM_INFINITY), rlim_max: libc::RLIM_INFINITY };
    // SAFETY: the limits are read, and nothing is written.
    let status = unsafe { libc::prlimit(pid, libc::RLIMIT_AS, &limit, std::ptr::null_mut()) };
    assert_eq!(status, 0);
}

/// Address space that a process uses, in bytes.
fn memory(pid: i32) -> u64 {
    let statm = std::fs::read_to_string(format!("/proc/{pid}/statm")).expect("its memory");
    statm.split(' ').next().and_then(|pages| pages.parse::<u64>().ok()).expect("a number") * 4096
}

/// Waits until a process has no threads that end by themselves.
fn wait_quiet(pid: i32) {
    wait_for("callers and trials to end", || {
        let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).expect("its threads");
        let names =
            tasks.flatten().map(|t| std::fs::read_to_string(t.path().join("comm")).unwrap_or_default());
        let mut passing = names.filter(|n| n.starts_with("caller") || n.starts_with("trial"));
        passing.next().is_none().then_some(())
    });
}

/// Stacks are so large, and address space so short, that the worker gets one thread at most: the C
/// library keeps the stack of the last one. It has room for all else.
#[test]
fn without_a_thread_a_reload_is_refused_and_the_next_one_is_not() {
    let fixture = Fixture::new("threads", &tally_source("threads", "one"));
    let one = fixture.build_as("one.so");
    fixture.write(&tally_source("threads", "two"));
    let two = fixture.build_as("two.so");
    let dir = tempfile::tempdir().expect("a directory");
    let live = dir.path().join("libthreads.so");
    install(&one, &live);
    let host = Host::serve_with(&["threads"], &[&live], |c| {
        c.env("RUST_MIN_STACK", (1u64 << 30).to_string());
    });
    let mut client = Client::connect(host.addr("threads"));
    assert_eq!(client.ask("on"), "one 1 on");
    let worker = host.worker_pid();
    wait_quiet(worker);
    // Its end frees the stacks that the C library keeps, but for its own.
    assert!(host.cli(&["sessions"]).status.success());
    wait_quiet(worker);
    limit_memory(worker, Some(memory(worker) + (768 << 20)));

    install(&two, &live);
    host.wait_log("as no thread can be started");
    assert_eq!(client.ask("on"), "one 2 on");

    limit_memory(worker, None);
    let (code, report) = host.reload_from("threads", &two);
    assert_eq!((code, host.worker_pid()), (Some(0), worker), "{report}");
    assert_eq!(client.ask("on"), "two 3 on");
    assert!(!host.log().contains("panicked"), "{}", host.log());
}

/// Callers beyond the limit are refused without a thread each.
#[test]
fn a_flood_of_callers_is_refused_without_threads() {
    let fixture = Fixture::new("flooded", &tally_source("flooded", "one"));
    let host = Host::serve(&["flooded"], &[&fixture.build()]);
    let threads = || std::fs::read_dir(format!("/proc/{}/task", host.pid())).expect("its threads").count();
    let before = threads();
    let call = || UnixStream::connect(host.runtime().join("admin.sock")).expect("the admin socket");

    // Each takes a place: it says nothing.
    let silent: Vec<_> = (0..32).map(|_| call()).collect();
    wait_for("32 threads", || (threads() == before + 32).then_some(()));
    for _ in 0..100 {
        let mut caller = call();
        caller.set_read_timeout(Some(Duration::from_secs(60))).expect("a timeout");
        let mut said = String::new();
        caller.read_to_string(&mut said).expect("a refusal");
        assert!(said.contains("32 commands are under way already"), "{said}");
        assert_eq!(threads(), before + 32);
    }

    drop(silent);
    wait_for("a place", || host.cli(&["status"]).status.success().then_some(()));
}

/// The keeper gets no thread either. One is kept back, so that an operator sees what is wrong.
#[test]
fn without_a_thread_the_status_is_told() {
    let fixture = Fixture::new("spare", &tally_source("spare", "one"));
    let library = fixture.build();
    let host = Host::serve_with(&["spare"], &[&library], |c| {
        c.env("RUST_MIN_STACK", (1u64 << 30).to_string());
    });
    let keeper = host.pid() as i32;
    let threads = || std::fs::read_dir(format!("/proc/{keeper}/task")).expect("its threads").count();
    let call = || UnixStream::connect(host.runtime().join("admin.sock")).expect("the admin socket");
    wait_quiet(keeper);
    let before = threads();
    limit_memory(keeper, Some(memory(keeper) + (768 << 20)));
    let status = || host.cli(&["status"]);
    let has_caller = || {
        let tasks = std::fs::read_dir(format!("/proc/{keeper}/task")).expect("its threads");
        let name = |t: std::fs::DirEntry| std::fs::read_to_string(t.path().join("comm")).unwrap_or_default();
        tasks.flatten().any(|t| name(t).starts_with("caller"))
    };
    // Takes the stack that the C library may have kept, or else the spare thread.
    let silent = call();
    let out = status();
    if !out.status.success() {
        assert!(!has_caller(), "{}", String::from_utf8_lossy(&out.stderr));
        drop(silent);
        wait_for("the spare thread", || status().status.success().then_some(()));
    }
    assert!(threads() <= before + 1);

    // Beyond it a caller hears why it gets none.
    let mut waiting = Vec::new();
    let said = wait_for("a refusal", || {
        let mut caller = call();
        caller.set_read_timeout(Some(Duration::from_millis(500))).expect("a timeout");
        let mut said = String::new();
        let heard = caller.read_to_string(&mut said).is_ok();
        waiting.push(caller);
        heard.then_some(said)
    });
    assert!(said.contains("no thread can be started for the command"), "{said}");
    drop(waiting);
    wait_for("the spare thread", || status().status.success().then_some(()));
}
