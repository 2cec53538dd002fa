//! Limits that peers reach: what they see, what the log says, and that everybody else goes on.

use greenroom_tests::client::Client;
use greenroom_tests::fixture::Fixture;
use greenroom_tests::host::Host;
use greenroom_tests::{built, root, wait_for};
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// The service of `fixtures/effects.rs`.
const SERVICE: &str = "limited";

/// Serves it under these limits. It is built once for all tests.
#[track_caller]
fn serve_effects(limits: &str) -> Host {
    Host::serve_limited(SERVICE, library(), limits)
}

/// The library of the effects, as [`SERVICE`].
fn library() -> &'static Path {
    static LIBRARY: OnceLock<PathBuf> = OnceLock::new();
    LIBRARY.get_or_init(|| effects(SERVICE))
}

/// Builds the library of the effects with this name of its service.
fn effects(service: &str) -> PathBuf {
    let source = std::fs::read_to_string(root().join("tests/fixtures/effects.rs")).expect("the fixture");
    let source = source
        .replace("SERVICE\"", &format!("{service}\""))
        .replace("SERVICE-", &format!("{service}-"))
        .replace("PREFIX", "");
    Fixture::new(service, &source).build()
}

/// Number of times that a limit was reached.
fn reached(host: &Host, limit: &str) -> u64 {
    let status = host.json(&["status", "--json"]);
    status["host"]["limits"][limit].as_u64().unwrap_or_else(|| panic!("no limit {limit}: {status}"))
}

#[track_caller]
fn wait_reached(host: &Host, limit: &str) {
    wait_for(&format!("limit {limit} to be reached:\n{}", host.log()), || {
        (reached(host, limit) > 0).then_some(())
    });
}

/// Each turn that asks for too much fails alone. Nothing of it stays, the log names the limit, the
/// limit is counted, and every session goes on.
#[test]
fn a_turn_that_asks_for_too_much_fails_and_names_the_limit() {
    let limits = "state_bytes_max = 1000\nturn_bytes_max = 100000\ntopic_name_bytes_max = 10\ntopics_per_session_max = 3\n\
                  table_key_bytes_max = 20\ntable_value_bytes_max = 200\ntables_max = 4\ntable_bytes_max = 5000\n\
                  timers_per_session_max = 2\ntimers_per_service_max = 5\ntimer_name_bytes_max = 20\n\
                  jobs_per_session_max = 2\njob_name_bytes_max = 10\nconnects_max = 2\ntoken_buckets_max = 8";
    let host = serve_effects(limits);
    let mut other = Client::connect(host.addr(SERVICE));
    let other_ok = other.ask("hello");
    let mut a = Client::connect(host.addr(SERVICE));
    let ok = a.ask("hello");

    let too_much = [
        ("grow 2000", "state_bytes_max"),
        ("say 100001", "turn_bytes_max"),
        ("topic 11", "topic_name_bytes_max"),
        ("topics 4", "topics_per_session_max"),
        ("key 21", "table_key_bytes_max"),
        ("value 300", "table_value_bytes_max"),
        ("tables 5", "tables_max"),
        ("fill 1000 m", "table_bytes_max"),
        ("ticks 6", "timers_per_service_max"),
        ("timer a-name-of-more-than-twenty-bytes 1", "timer_name_bytes_max"),
        ("jobs echo 3", "jobs_per_session_max"),
        ("named 11", "job_name_bytes_max"),
        ("dial 3", "connects_max"),
    ];

    // It opened, said hello, and asks after each of them: its state counts no turn that failed.
    for (count, (command, limit)) in (3..).zip(too_much) {
        a.send(format!("{command}\ncount\n"));
        assert_eq!(a.line(), Some(u64::to_string(&count)), "nothing of {command:?} stays");
        host.wait_log(&format!("limit {limit}"));
        wait_reached(&host, limit);
        assert_eq!(other.ask("hello"), other_ok, "{limit}");
    }

    // A bucket too many lets another one be forgotten, and no turn fails.
    assert_eq!(a.ask("tokens 8"), ok);
    assert_eq!(reached(&host, "token_buckets_max"), 0);
    assert_eq!(a.ask("tokens 9"), ok);
    wait_reached(&host, "token_buckets_max");

    // Just below, each of them works.
    for command in ["grow 900", "say 900", "topic 10", "key 20", "value 100", "ticks 4", "named 10"] {
        a.send(format!("{command}\n"));
        let said = a.line().expect("an answer");
        assert!(said.ends_with(&ok) || said == ok, "{command}: {said}");
        if command == "named 10" {
            assert!(a.line().is_some_and(|l| l.contains("failed no job jjjjjjjjjj")));
        }
    }
}

#[test]
fn jobs_of_all_sessions_and_cascades_are_limited() {
    let limits = "jobs_max = 3\njobs_running_max = 1\njobs_per_session_max = 2\ncascade_max = 3";
    let host = serve_effects(limits);
    let mut other = Client::connect(host.addr(SERVICE));
    let other_ok = other.ask("hello");
    let mut a = Client::connect(host.addr(SERVICE));
    let gate = host.dir().join("gate");
    let mut many: Vec<_> = (0..3).map(|_| Client::connect(host.addr(SERVICE))).collect();

    for client in &mut many {
        assert!(client.ask(&format!("job wait {}", gate.display())).starts_with("ok "));
    }
    wait_reached(&host, "jobs_running_max");
    a.send("job echo x\ncount\n");
    host.wait_log("limit jobs_max");
    assert_eq!(a.line().as_deref(), Some("2"), "nothing of the turn that failed stays");
    std::fs::write(&gate, "").expect("a file");
    for client in &mut many {
        assert_eq!(client.line().as_deref(), Some("job wait done waited"));
    }

    a.send("self again 5\n");
    host.wait_log("limit cascade_max");
    wait_reached(&host, "cascade_max");
    assert_eq!(other.ask("hello"), other_ok);
}

/// A listener whose queue is full, so that a connection to it stays in the making. The streams fill
/// the queue.
fn full_listener() -> (TcpListener, Vec<TcpStream>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    // SAFETY: listen has no preconditions.
    unsafe { libc::listen(listener.as_raw_fd(), 0) };
    let addr = listener.local_addr().expect("its address");
    let mut filling = Vec::new();
    while let Ok(stream) = TcpStream::connect_timeout(&addr, Duration::from_millis(200)) {
        filling.push(stream);
    }
    (listener, filling)
}

/// Connections to an address that are in the making, as the kernel sees them.
fn in_the_making(to: SocketAddr) -> usize {
    let port = format!("0100007F:{:04X} 02 ", to.port());
    std::fs::read_to_string("/proc/net/tcp").expect("sockets").matches(&port).count()
}

/// A connection that is being made counts against `connects_max` until its outcome is told. One
/// whose session ends is given up, also by a worker that dies meanwhile.
#[test]
fn a_connection_counts_until_its_outcome_is_told() {
    let host = serve_effects("connects_max = 4\nconnect_ms = 600000");
    let (listener, _filling) = full_listener();
    let to = listener.local_addr().expect("its address");
    // The queue was filled by a connection that gave up, too.
    wait_for("a quiet listener", || (in_the_making(to) == 0).then_some(()));
    let dial = |n: usize| {
        let mut client = Client::connect(host.addr(SERVICE));
        let said = client.ask(&format!("dial {n} {to}"));
        assert!(said.starts_with("ok "), "{said}");
        client
    };
    for _ in 0..3 {
        let asked = dial(4);
        wait_for("four in the making", || (in_the_making(to) == 4).then_some(()));
        drop(asked);
        wait_for("all given up", || (in_the_making(to) == 0).then_some(()));
    }
    assert_eq!(reached(&host, "connects_max"), 0);

    let (leaves, mut stays) = (dial(1), dial(3));
    wait_for("four in the making", || (in_the_making(to) == 4).then_some(()));
    drop(leaves);
    host.kill_worker();
    wait_for("one given up", || (in_the_making(to) == 3).then_some(()));
    stays.send(format!("dial 2 {to}\n"));
    wait_reached(&host, "connects_max");
    assert!(stays.ask(&format!("dial 1 {to}")).starts_with("ok "));
    wait_for("four in the making", || (in_the_making(to) == 4).then_some(()));

    drop(stays);
    wait_for("all given up", || (in_the_making(to) == 0).then_some(()));
    assert_eq!(reached(&host, "connects_max"), 1);
    drop(dial(4));
}

#[test]
fn actions_that_wait_for_a_session_are_limited_in_bytes() {
    let host = serve_effects("actions_pending_bytes_max = 1000");
    let mut a = Client::connect(host.addr(SERVICE));
    let mut b = Client::connect(host.addr(SERVICE));
    a.ask("hello");
    let b_ok = b.ask("hello");
    assert_eq!(b.ask("join news"), b_ok);

    a.send("large news 900\nlarge news 900\nlarge news 900\n");

    host.wait_log("limit actions_pending_bytes_max");
    wait_reached(&host, "actions_pending_bytes_max");
    // What there was room for came.
    assert!(b.line().is_some_and(|l| l.ends_with(" 900 bytes")));
}

/// A full store refuses sessions and turns that need room. Sessions that are open go on.
#[test]
fn a_full_store_refuses_new_data_and_serves_on() {
    let host = serve_effects("store_bytes_max = 8388608\ntable_bytes_max = 1073741824");
    let mut good = Client::connect(host.addr(SERVICE));
    let ok = good.ask("hello");
    let mut a = Client::connect(host.addr(SERVICE));
    let a_ok = a.ask("hello");

    let mut filled = 0;
    while reached(&host, "store_bytes_max") == 0 {
        a.send(format!("fill 2000 p{filled}-\ncount\n"));
        // Both, or the second alone: the one that finds no room leaves nothing.
        while a.line().is_some_and(|l| l == a_ok) {}
        filled += 1;
        assert!(filled < 200, "it is never full");
        if filled % 10 == 0 {
            assert_eq!(good.ask("hello"), ok);
        }
    }

    host.wait_log("is over limit store_bytes_max");
    assert_eq!(good.ask("hello"), ok);

    host.kill_worker();
    assert_eq!(good.ask("hello"), ok);
}

/// A session whose output is not taken does not run its input until its peer reads. If it is closed
/// meanwhile, the host waits for a time.
#[test]
fn input_waits_until_output_is_taken_and_a_closed_session_waits_for_a_time() {
    let host = serve("output_bytes_pause = 20000\ndrain_ms = 300\nlinger_ms = 300");
    let mut good = Client::connect(host.addr("echo"));
    let slow = TcpStream::connect(host.addr("echo")).expect("a connection");
    slow.set_nonblocking(true).expect("a mode");
    let line = [b"y".repeat(8000), b"\n".to_vec()].concat();
    let mut sent = 0;

    // Until neither the host nor the kernel takes more.
    wait_for("the host to pause", || {
        while let Ok(n) = (&slow).write(&line[sent % line.len()..]) {
            sent += n;
        }
        (reached(&host, "output_bytes_pause") > 0).then_some(())
    });
    assert_eq!(good.ask("on"), "on");

    // All of it comes back once it is read, to the last byte.
    slow.set_nonblocking(false).expect("a mode");
    slow.set_read_timeout(Some(Duration::from_secs(30))).expect("a timeout");
    let whole = sent / line.len() * line.len();
    let mut got = vec![0; whole];
    (&slow).read_exact(&mut got).expect("all of it");
    assert!(got.chunks(line.len()).all(|l| l == line));

    // Again, and then an operator closes it: its output isn't waited for for ever.
    slow.set_nonblocking(true).expect("a mode");
    let newest = || {
        let sessions = host.json(&["sessions", "--json"]);
        let ids = sessions.as_array().expect("sessions").iter().map(|s| s["id"].as_u64().expect("an id"));
        ids.max().expect("there are some").to_string()
    };

    // Nobody reads it now: once the kernel takes no more of either side, the host keeps its output.
    // From half of the limit on, its input waits until that is taken.
    let mut before = (0, 0);
    wait_for("the host to keep output", || {
        while let Ok(n) = (&slow).write(&line[sent % line.len()..]) {
            sent += n;
        }
        let dump = host.json(&["state", "dump", "--session", &newest()]);
        let kept = dump["sessions"][0]["output"].as_str().map_or(0, str::len);
        let same = std::mem::replace(&mut before, (sent, kept)) == (sent, kept);
        (same && kept > 10_000).then_some(())
    });

    assert!(host.cli(&["session", "close", &newest()]).status.success());
    host.wait_log("bytes of output never taken (limit drain_ms)");
    wait_reached(&host, "drain_ms");

    // One that is closed and doesn't close its own end isn't waited for either.
    let held = TcpStream::connect(host.addr("echo")).expect("a connection");
    (&held).write_all(b"x\n").expect("sent");
    (&held).read_exact(&mut [0; 2]).expect("an answer");
    assert!(host.cli(&["session", "close", &newest()]).status.success());
    wait_reached(&host, "linger_ms");
    assert_eq!(good.ask("still"), "still");
}

#[test]
fn a_line_that_is_too_long_closes_its_session_alone() {
    let host = serve("");
    let mut good = Client::connect(host.addr("tally"));
    let mut long = Client::connect(host.addr("tally"));
    assert_eq!(long.ask("x"), "1 x");

    long.send("x".repeat(20_000));

    assert_eq!(long.line(), None);
    host.wait_log("closed: a frame was longer than its service takes (limit frame_bytes_max)");
    wait_reached(&host, "frame_bytes_max");
    assert_eq!(good.ask("y"), "1 y");
}

#[test]
fn sessions_are_limited_by_host_service_and_peer() {
    let config =
        "[limits]\nsessions_max = 6\nsessions_per_peer_max = 4\n[service.echo.limits]\nsessions_max = 2\n";
    let host = serve_config(config);
    let from = |last: u8, service: &str| {
        let socket =
            socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
        let own = std::net::SocketAddr::from(([127, 0, 0, last], 0));
        socket.bind(&own.into()).expect("an address");
        socket.connect(&host.addr(service).into()).expect("a connection");
        let stream: TcpStream = socket.into();
        stream.set_read_timeout(Some(Duration::from_secs(30))).expect("a timeout");
        stream
    };
    // True: it is served.
    let works = |stream: &TcpStream| {
        let mut byte = [0; 1];
        let mut stream = stream;
        stream.write_all(b"x\n").is_ok() && stream.read(&mut byte).is_ok_and(|n| n == 1)
    };

    let one = from(1, "echo");
    let two = from(1, "echo");
    assert!(works(&one) && works(&two));
    assert!(!works(&from(1, "echo")), "two of a service");
    assert_eq!(reached(&host, "sessions_max"), 1);

    let (three, four) = (from(1, "tally"), from(1, "tally"));
    assert!(works(&three) && works(&four));
    assert!(!works(&from(1, "tally")), "four of a peer");
    assert_eq!(reached(&host, "sessions_per_peer_max"), 1);
    host.wait_log("refused (limit sessions_per_peer_max)");

    let (five, six) = (from(2, "tally"), from(2, "tally"));
    assert!(works(&five) && works(&six));
    assert!(!works(&from(3, "tally")), "six of the host");
    assert_eq!(reached(&host, "sessions_max"), 2);

    // Whoever goes makes room, also for a successor.
    drop(three);
    wait_for("room", || works(&from(1, "tally")).then_some(()));
    host.kill_worker();
    assert!(works(&one) && works(&six));
    wait_for("the count to be right", || {
        let again = from(1, "tally");
        works(&again).then(|| assert!(!works(&from(1, "tally")), "four of a peer, still"))
    });
}

/// A session that sends a lot at once has its share of each pass. Nothing of it is lost, and it is
/// answered in order.
#[test]
fn a_flood_is_answered_in_order_a_share_at_a_time() {
    let host =
        serve_config("[limits]\nturns_at_once_max = 8\n[service.echo.limits]\nturns_at_once_max = 3\n");

    for (service, lines) in [("tally", 5000), ("echo", 1000)] {
        let mut flood = Client::connect(host.addr(service));
        let mut good = Client::connect(host.addr("tally"));
        let text: String = (1..=lines).map(|n| format!("{n}\n")).collect();
        flood.send(&text);
        assert_eq!(good.ask("here"), "1 here");
        for n in 1..=lines {
            let want = if service == "tally" { format!("{n} {n}") } else { n.to_string() };
            assert_eq!(flood.line(), Some(want));
        }
    }

    assert!(reached(&host, "turns_at_once_max") >= 2);
}

/// A broadcast takes its share of each pass. Every listener gets all of it in order, and a session
/// that asks meanwhile is answered.
#[test]
fn a_broadcast_is_sent_a_share_at_a_time() {
    let host = serve_effects("sends_at_once_max = 2");
    let addr = host.addr(SERVICE);
    let mut listeners: Vec<_> = (0..9).map(|_| Client::connect(addr)).collect();
    for c in &mut listeners {
        c.ask("join news");
    }
    let (mut speaker, mut good) = (Client::connect(addr), Client::connect(addr));
    let hello = good.ask("hello");

    // One at a time: a pass sends to as many as it has run turns.
    for n in 0..200 {
        speaker.send(format!("shout news {n}\n"));
        assert_eq!(good.ask("hello"), hello);
    }

    for c in &mut listeners {
        for n in 0..200 {
            assert_eq!(c.line(), Some(n.to_string()));
        }
    }

    assert!(reached(&host, "sends_at_once_max") > 0);
}

/// A connection for which the kernel keeps little until it is read.
fn slow_reader(addr: SocketAddr) -> TcpStream {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
    socket.set_recv_buffer_size(4096).expect("a small buffer");
    socket.connect(&addr.into()).expect("a connection");
    socket.into()
}

/// A thousand peers that never read and a thousand that never end a line are closed, and no other.
#[test]
fn two_thousand_slow_peers_are_closed_and_the_others_are_answered() {
    let host = serve_effects("output_bytes_pause = 50000\noutput_bytes_max = 300000\nframe_ms = 4000");
    let addr = host.addr(SERVICE);
    let slow_one = |first: &[u8]| {
        let mut stream = slow_reader(addr);
        stream.write_all(first).expect("sent");
        stream
    };
    let mut good: Vec<_> = (0..50).map(|_| Client::connect(addr)).collect();
    let answers: Vec<_> = good.iter_mut().map(|c| c.ask("hello")).collect();
    let mut all_answered = |what: &str| {
        for (c, answer) in good.iter_mut().zip(&answers) {
            assert_eq!(c.ask("hello"), *answer, "{what}");
        }
    };

    let readers: Vec<_> = (0..1000).map(|_| slow_one(b"join news\n")).collect();
    let writers: Vec<_> = (0..1000).map(|_| slow_one(b"never")).collect();
    wait_for("all to be on the topic", || {
        let dump = host.json(&["sessions", "--json"]);
        let joined = |s: &Value| s["turns"].as_u64() >= Some(2);
        (dump.as_array().is_some_and(|all| all.iter().filter(|s| joined(s)).count() >= 1050)).then_some(())
    });

    let mut sender = Client::connect(addr);
    let ok = sender.ask("hello");
    for n in 0.. {
        assert!(n < 500, "the slow readers aren't closed");
        // Kept once, however many take it.
        assert_eq!(sender.ask(&format!("loud news {}", 60_000)), ok);
        all_answered("beside slow readers");
        if reached(&host, "output_bytes_max") == 1000 {
            break;
        }
    }

    wait_for("the slow writers to be closed", || {
        all_answered("beside slow writers");
        (reached(&host, "frame_ms") == 1000).then_some(())
    });

    wait_for("only the others to be left", || {
        (host.json(&["sessions", "--json"]).as_array().map(Vec::len) == Some(51)).then_some(())
    });
    all_answered("afterwards");
    drop((readers, writers));
}

fn serve_config(text: &str) -> Host {
    let config = tempfile::NamedTempFile::new().expect("a file").into_temp_path().keep().expect("a file");
    std::fs::write(&config, text).expect("a configuration");
    Host::serve_with(&["echo", "tally"], &[&built("libecho.so")], |c| {
        c.arg("--config").arg(config);
    })
}

fn serve(limits: &str) -> Host {
    serve_config(&format!("[limits]\n{limits}\n"))
}

#[test]
fn silent_idle_and_slow_peers_are_closed_at_their_limits() {
    let host = serve("first_byte_ms = 1000\nidle_ms = 2500\nframe_ms = 1500");
    let mut silent = Client::connect(host.addr("tally"));
    let mut idle = Client::connect(host.addr("tally"));
    let mut slow = TcpStream::connect(host.addr("tally")).expect("a connection");
    let mut good = Client::connect(host.addr("tally"));
    assert_eq!(idle.ask("one"), "1 one");

    // A byte now and then, and never a whole line; beside it, a line now and then. For longer than
    // any of the limits.
    let begun = Instant::now();
    let mut lines = 0;
    while begun.elapsed() < Duration::from_millis(3500) {
        // It may be closed already.
        let _ = slow.write(b"x");
        lines += 1;
        assert_eq!(good.ask("on"), format!("{lines} on"));
        std::thread::sleep(Duration::from_millis(50));
    }

    assert_eq!(silent.line(), None);
    assert_eq!(idle.line(), None);
    host.wait_log("closed: nothing came for 1000 ms (limit first_byte_ms)");
    host.wait_log("closed: nothing came for 2500 ms (limit idle_ms)");
    host.wait_log("closed: a frame wasn't whole after 1500 ms (limit frame_ms)");

    lines += 1;
    assert_eq!(good.ask("still"), format!("{lines} still"));
    wait_for("one session to be left", || {
        (host.json(&["sessions", "--json"]).as_array().map(Vec::len) == Some(1)).then_some(())
    });
}

/// A host that is told to stop waits for peers that do not read, and not for ever.
#[test]
fn a_stop_waits_for_unread_output_until_its_limit() {
    let mut host = serve_effects(
        "stop_ms = 700\ndrain_ms = 600000\noutput_bytes_pause = 12000000\noutput_bytes_max = 20000000",
    );
    let mut slow = slow_reader(host.addr(SERVICE));
    let mut other = Client::connect(host.addr(SERVICE));
    other.ask("hello");
    // What waits when its input pauses is more than the kernel takes for one that doesn't read.
    slow.write_all("say 1000000\n".repeat(20).as_bytes()).expect("sent");
    wait_reached(&host, "output_bytes_pause");

    let begun = Instant::now();
    host.signal(libc::SIGTERM);
    assert_eq!(other.line(), None);
    assert_eq!(host.wait(), Some(0));

    assert!(begun.elapsed() >= Duration::from_millis(700), "it waited for the slow one");
    assert!(host.log().contains("(limit stop_ms)"), "{}", host.log());
    assert!(!host.log().contains("drain_ms"), "{}", host.log());
}

/// Connections never take the last descriptors: those are for operators and for a successor.
#[test]
fn connections_leave_descriptors_for_operators_and_successors() {
    let host = Host::serve_with(&["tally", "echo"], &[&built("libecho.so")], |c| {
        let limit = libc::rlimit { rlim_cur: 80, rlim_max: 80 };
        // SAFETY: the limits are read, and nothing is written.
        let set = move || match unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &limit) } {
            0 => Ok(()),
            _ => Err(std::io::Error::last_os_error()),
        };
        // SAFETY: between fork and exec, the closure makes one system call and allocates nothing.
        unsafe { c.pre_exec(set) };
    });
    let mut good = Client::connect(host.addr("tally"));
    assert_eq!(good.ask("one"), "1 one");
    let mut many: Vec<_> =
        (0..150).map(|_| TcpStream::connect(host.addr("echo")).expect("the kernel's queue")).collect();
    host.wait_log("connections can't be accepted");

    let failing = host.json(&["status", "--json"])["host"]["failing"].take();
    assert_eq!((&failing[0]["what"], failing.as_array().map(Vec::len)), (&json!("connections"), Some(1)));
    assert!(failing[0]["why"].as_str().expect("a reason").contains("of 80 open files"), "{failing}");
    assert!(host.cli(&["sessions"]).status.success());
    // The way out is free: for a successor, and for a reload with it.
    host.kill_worker();
    assert_eq!(good.ask("two"), "2 two");
    let (code, report) = host.reload_from("tally", &built("libecho.so"));
    assert_eq!((code, &report["outcome"]), (Some(0), &json!("unchanged")), "{report}");
    assert_eq!(host.log().matches("connections can't be accepted").count(), 1);

    // Those who waited come in as others go, to the last.
    let last = many.pop().expect("a connection");
    last.set_read_timeout(Some(Duration::from_secs(30))).expect("a timeout");
    (&last).write_all(b"here\n").expect("sent");
    drop(many);
    let mut answer = [0; 5];
    (&last).read_exact(&mut answer).expect("an answer");
    assert_eq!(&answer, b"here\n");
    wait_for("the end of the lack", || {
        (host.json(&["status", "--json"])["host"]["failing"] == json!([])).then_some(())
    });
    assert_eq!(good.ask("three"), "3 three");
}

/// A save reads the records one by one: its memory does not grow with the tables.
#[test]
fn a_save_in_time_takes_little_memory() {
    let host = serve_effects("[save]\nevery_s = 1");
    let mut client = Client::connect(host.addr(SERVICE));
    let value = "x".repeat(8_000);
    for n in 0..6_000 {
        client.send(format!("put {n} {value}\n"));
        assert!(client.line().expect("an answer").starts_with("ok"));
    }
    let file = host.runtime().join("tables.saved");
    let saved_at = || file.metadata().ok().filter(|m| m.len() > 48_000_000).and_then(|m| m.modified().ok());
    let first = wait_for("a save of all", saved_at);

    // Of memory that was in use before, only its highest mark is forgotten.
    let proc = format!("/proc/{}", host.worker_pid());
    let kib = |name: &str| {
        let status = std::fs::read_to_string(format!("{proc}/status")).expect("its memory");
        let line = status.lines().find(|line| line.starts_with(name)).expect("a line");
        line.split_whitespace().nth(1).and_then(|n| n.parse::<u64>().ok()).expect("a number")
    };
    std::fs::write(format!("{proc}/clear_refs"), "5").expect("a mark");
    let before = kib("VmRSS");
    let second = wait_for("another save", || saved_at().filter(|at| *at > first));
    wait_for("a third save", || saved_at().filter(|at| *at > second));
    let grown = kib("VmHWM").saturating_sub(before);
    assert!(grown < 16_000, "{grown} KiB for 48 MB of tables");
}

/// A keeper without free descriptors serves the open connections. New ones wait, and are accepted
/// when descriptors are free again.
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

/// A service uses up all jobs and connections. Another one still has its sixteenth, and no more.
#[test]
fn a_service_has_its_share_of_jobs_and_connections() {
    const OTHER: &str = "limitedother";
    let dir = tempfile::tempdir().expect("a directory");
    let config = dir.path().join("greenroom.toml");
    let limits = "jobs_max = 32\njobs_running_max = 1\nconnects_max = 32\nconnect_ms = 600000";
    std::fs::write(&config, format!("[limits]\n{limits}\n")).expect("a configuration");
    let other = effects(OTHER);
    let host = Host::serve_with(&[SERVICE, OTHER], &[library(), &other], |c| {
        c.arg("--config").arg(config);
    });
    let gate = dir.path().join("gate");
    let wait = format!("job wait {}", gate.display());
    let (listener, _filling) = full_listener();
    let to = listener.local_addr().expect("its address");
    wait_for("a quiet listener", || (in_the_making(to) == 0).then_some(()));
    let client = |service: &str| Client::connect(host.addr(service));
    let ask = |client: &mut Client, what: &str| {
        let said = client.ask(what);
        assert!(said.starts_with("ok "), "{what}: {said}");
    };

    let mut greedy: Vec<_> = (0..32).map(|_| client(SERVICE)).collect();
    for client in &mut greedy {
        ask(client, &wait);
    }
    ask(&mut greedy[0], &format!("dial 32 {to}"));
    for (what, limit) in [(wait.clone(), "jobs_max"), (format!("dial 1 {to}"), "connects_max")] {
        let before = reached(&host, limit);
        greedy[0].send(format!("{what}\n"));
        wait_for("the limit", || (reached(&host, limit) > before).then_some(()));
        let (mut first, mut second, mut third) = (client(OTHER), client(OTHER), client(OTHER));
        ask(&mut first, &what);
        ask(&mut second, &what);
        third.send(format!("{what}\n"));
        wait_for("the share to end", || (reached(&host, limit) > before + 1).then_some(()));
        // What is given up is free again.
        drop(second);
        wait_for("a place", || {
            let mut again = client(OTHER);
            again.send(format!("{what}\ncount\n"));
            again.line().is_some_and(|l| l.starts_with("ok ")).then_some(())
        });
    }
    std::fs::write(&gate, "").expect("a file");
}
