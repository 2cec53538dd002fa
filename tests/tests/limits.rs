//! Limits that peers reach: what they see, what the log says, and that everybody else goes on.

use greenroom_tests::client::Client;
use greenroom_tests::host::Host;
use greenroom_tests::{built, wait_for};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

fn serve(limits: &str) -> Host {
    let config = tempfile::NamedTempFile::new().expect("a file").into_temp_path().keep().expect("a file");
    std::fs::write(&config, format!("[limits]\n{limits}\n")).expect("a configuration");
    Host::serve_with(&["echo", "tally"], &[&built("libecho.so")], |c| {
        c.arg("--config").arg(config);
    })
}

#[test]
fn peers_that_keep_a_session_waiting_are_closed_and_the_others_are_not() {
    let host = serve("first_byte_ms = 400\nidle_ms = 1500\nframe_ms = 700");
    let mut silent = Client::connect(host.addr("tally"));
    let mut idle = Client::connect(host.addr("tally"));
    let mut slow = TcpStream::connect(host.addr("tally")).expect("a connection");
    let mut good = Client::connect(host.addr("tally"));
    assert_eq!(idle.ask("one"), "1 one");
    // A byte now and then, and never a whole line; beside it, a line now and then. For longer than any of the limits.
    let begun = Instant::now();
    let mut lines = 0;
    while begun.elapsed() < Duration::from_millis(2500) {
        // It may be closed already.
        let _ = slow.write(b"x");
        lines += 1;
        assert_eq!(good.ask("on"), format!("{lines} on"));
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(silent.line(), None);
    assert_eq!(idle.line(), None);
    host.wait_log("closed: nothing came for 400 ms (limit first_byte_ms)");
    host.wait_log("closed: nothing came for 1500 ms (limit idle_ms)");
    host.wait_log("closed: a frame wasn't whole after 700 ms (limit frame_ms)");
    lines += 1;
    assert_eq!(good.ask("still"), format!("{lines} still"));
    wait_for("one session to be left", || {
        (host.json(&["sessions", "--json"]).as_array().map(Vec::len) == Some(1)).then_some(())
    });
}

/// The keeper may have no more descriptors: who is connected goes on, who comes waits, and has its turn when there are some again.
#[test]
fn without_descriptors_connections_wait_and_are_accepted_later() {
    let host = serve("");
    let mut good = Client::connect(host.addr("tally"));
    assert_eq!(good.ask("one"), "1 one");
    let open = std::fs::read_dir(format!("/proc/{}/fd", host.pid())).expect("its descriptors").count() as u64;
    let limit = libc::rlimit { rlim_cur: open + 5, rlim_max: open + 1000 };
    // SAFETY: the limits are read, and nothing is written.
    let status =
        unsafe { libc::prlimit(host.pid() as i32, libc::RLIMIT_NOFILE, &limit, std::ptr::null_mut()) };
    assert_eq!(status, 0);
    let mut many: Vec<_> =
        (0..40).map(|_| TcpStream::connect(host.addr("echo")).expect("the kernel's queue")).collect();
    host.wait_log("connections can't be accepted");
    assert_eq!(good.ask("two"), "2 two");
    // For a while: it is tried again and again, and said once.
    std::thread::sleep(Duration::from_millis(600));
    assert_eq!(host.log().matches("connections can't be accepted").count(), 1);
    // The first ones go, and those that waited are served, to the last.
    let last = many.pop().expect("a connection");
    last.set_read_timeout(Some(Duration::from_secs(30))).expect("a timeout");
    (&last).write_all(b"here\n").expect("sent");
    drop(many);
    let mut answer = [0; 5];
    (&last).read_exact(&mut answer).expect("an answer");
    assert_eq!(&answer, b"here\n");
    host.wait_log("connections are accepted again");
    assert_eq!(good.ask("three"), "3 three");
}
