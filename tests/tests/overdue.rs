//! Deadlines of peers: those that come while the host stands still, and those of peers that take no
//! output.

use greenroom_tests::client::Client;
use greenroom_tests::fixture::{Fixture, tally_source};
use greenroom_tests::host::Host;
use greenroom_tests::wait_for;
use socket2::{Domain, Socket, Type};
use std::io::{ErrorKind, Write};
use std::net::TcpStream;
use std::time::Duration;

/// Stops a process for so long that each deadline comes. What was sent before arrives meanwhile.
fn stand_still(pid: i32, meanwhile: impl FnOnce()) {
    // SAFETY: kill has no preconditions.
    unsafe { libc::kill(pid, libc::SIGSTOP) };
    meanwhile();
    std::thread::sleep(Duration::from_millis(1500));
    // SAFETY: as above.
    unsafe { libc::kill(pid, libc::SIGCONT) };
}

/// The rest of a line, and a line of a peer that was idle, arrive in time. The host reads them
/// late.
#[test]
fn what_arrived_while_the_host_stood_still_is_read_before_deadlines_are_judged() {
    let library = Fixture::new("late", &tally_source("late", "one")).build();
    let host = Host::serve_limited("late", &library, "idle_ms = 1000\nframe_ms = 900");
    let mut half = Client::connect(host.addr("late"));
    let mut idle = Client::connect(host.addr("late"));
    let mut silent = Client::connect(host.addr("late"));
    assert_eq!((idle.ask("a"), silent.ask("a")), ("one 1 a".into(), "one 1 a".into()));
    half.send("half ");
    wait_for("half a line", || {
        let sessions = host.json(&["sessions", "--json"]);
        sessions.as_array()?.iter().any(|s| s["bytes_in"] == 5).then_some(())
    });

    stand_still(host.worker_pid(), || {
        half.send("a line\n");
        idle.send("b\n");
    });

    assert_eq!(half.line().as_deref(), Some("one 1 half a line"));
    assert_eq!(idle.line().as_deref(), Some("one 2 b"));
    assert_eq!(silent.line(), None, "nothing came of this one");
}

/// A peer that writes and never reads: its session expects nothing of it, and is closed all the
/// same.
#[test]
fn a_peer_that_takes_no_output_is_closed_whatever_it_sends() {
    let library = Fixture::new("untaken", &tally_source("untaken", "one")).build();
    let limits = "output_bytes_pause = 20000\noutput_ms = 400\ndrain_ms = 100";
    let host = Host::serve_limited("untaken", &library, limits);
    let mut other = Client::connect(host.addr("untaken"));
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    // So that the kernel does not take all of it.
    socket.set_recv_buffer_size(4096).expect("a small buffer");
    socket.connect(&host.addr("untaken").into()).expect("a connection");
    let mut writer = TcpStream::from(socket);
    writer.set_nonblocking(true).expect("no blocking");

    let mut n = 0;
    wait_for("the session to be closed", || {
        match writer.write(b"flood 100000\n") {
            Ok(_) => {}
            Err(e) if e.kind() == ErrorKind::WouldBlock => {}
            Err(_) => return Some(()),
        }
        n += 1;
        assert_eq!(other.ask("on"), format!("one {n} on"));
        host.log().contains("(limit output_ms)").then_some(())
    });

    host.wait_log("closed: its peer took no output for 400 ms (limit output_ms)");
    wait_for("the session to be gone", || {
        (host.json(&["sessions", "--json"]).as_array().map(Vec::len) == Some(1)).then_some(())
    });
    assert_eq!(other.ask("on"), format!("one {} on", n + 1));
}
