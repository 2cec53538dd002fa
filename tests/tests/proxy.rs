//! Outbound connections, through the shipped `proxy`: a real server on the far side, real peers on
//! the near one. Across a swap, `kill -9` and an upgrade, and at the pace of the slower side.

use greenroom_tests::client::Client;
use greenroom_tests::host::Host;
use greenroom_tests::{built, wait_for};
use serde_json::json;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(60);

fn serve(target: &str) -> Host {
    serve_patient(target, 500)
}

fn serve_patient(target: &str, connect_ms: u64) -> Host {
    let config = tempfile::NamedTempFile::new().expect("a file").into_temp_path().keep().expect("a file");
    let text = format!(
        "[limits]\nconnect_ms = {connect_ms}\n[service.proxy.settings]\npassword = \"open\"\ntarget = \"{target}\"\n"
    );
    std::fs::write(&config, text).expect("a configuration");
    Host::serve_with(&["proxy"], &[&built("libproxy.so")], |c| {
        c.arg("--config").arg(config);
    })
}

fn server() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let addr = listener.local_addr().expect("its address");
    (listener, addr)
}

/// Both ends of a relayed connection.
fn through(host: &Host, listener: &TcpListener) -> (TcpStream, TcpStream) {
    let mut near = TcpStream::connect(host.addr("proxy")).expect("the proxy");
    near.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    near.write_all(b"open\n").expect("the password");
    let mut asked = [0; 10];
    near.read_exact(&mut asked).expect("a question");
    assert_eq!(&asked, b"password: ");
    let (far, _) = listener.accept().expect("a connection");
    far.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    (near, far)
}

fn passes(from: &mut TcpStream, to: &mut TcpStream, text: &str) {
    from.write_all(text.as_bytes()).expect("sent");
    let mut read = vec![0; text.len()];
    to.read_exact(&mut read).expect("relayed");
    assert_eq!(String::from_utf8_lossy(&read), text);
}

fn sessions(host: &Host) -> usize {
    host.json(&["sessions", "--json"]).as_array().map_or(0, Vec::len)
}

#[test]
fn the_proxy_relays_both_ways_and_each_end_closes_the_other() {
    let (listener, addr) = server();
    let host = serve(&addr.to_string());
    let mut wrong = Client::connect(host.addr("proxy"));
    wrong.send("a\nb\nc\n");
    assert_eq!(wrong.line().as_deref(), Some("password: password: password: proxy: no"));
    assert_eq!(wrong.line(), None);
    drop(wrong);
    wait_for("it to go", || (sessions(&host) == 0).then_some(()));

    let (mut near, mut far) = through(&host, &listener);
    passes(&mut near, &mut far, "hello");
    passes(&mut far, &mut near, "good day\nto you");
    assert_eq!(sessions(&host), 2);
    // What was sent arrives before the end does.
    far.write_all(&vec![b'x'; 3_000_000]).expect("sent");
    far.shutdown(Shutdown::Write).expect("shut");
    let mut all = Vec::new();
    near.read_to_end(&mut all).expect("all of it");
    assert!(all.len() == 3_000_000 && all.iter().all(|b| *b == b'x'));

    let (near, mut far) = through(&host, &listener);
    (&near).write_all(b"bye").expect("sent");
    drop(near);
    let mut all = Vec::new();
    far.read_to_end(&mut all).expect("all of it");
    assert_eq!(all, b"bye");
    drop(far);
    wait_for("all to end", || (sessions(&host) == 0).then_some(()));
}

/// Bytes of a stream in each direction.
const STREAM_BYTES: u64 = 40_000_000;

/// The byte of a stream at a place.
fn byte(at: u64, seed: u64) -> u8 {
    (at * seed % 251) as u8
}

/// Writes a stream, in pieces of random lengths.
fn write_stream(mut to: TcpStream, seed: u64) {
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut at = 0;
    while at < STREAM_BYTES {
        let end = (at + rng.u64(1..20_000)).min(STREAM_BYTES);
        let bytes: Vec<u8> = (at..end).map(|at| byte(at, seed)).collect();
        to.write_all(&bytes).expect("sent");
        at = end;
    }
}

/// Reads a stream: no byte is lost, doubled or out of order.
fn read_stream(mut from: TcpStream, seed: u64) {
    let (mut at, mut bytes) = (0u64, vec![0; 64 * 1024]);
    while at < STREAM_BYTES {
        let n = from.read(&mut bytes).expect("relayed");
        assert!(n > 0, "it ended after {at} bytes");
        for b in &bytes[..n] {
            assert_eq!(*b, byte(at, seed), "byte {at}");
            at += 1;
        }
    }
}

/// Kills the worker, upgrades the host or reloads the library, by turns. An upgrade or a reload may
/// be cut off.
fn disturb(host: &Host, n: u8) {
    match n % 3 {
        0 => host.kill_worker(),
        1 => _ = host.cli(&["upgrade", "--binary", built("greenroom").to_str().expect("UTF-8")]),
        _ => {
            // Other content, same code.
            let mut bytes = std::fs::read(built("libproxy.so")).expect("the library");
            bytes.push(n);
            let copy = host.dir().join(format!("libproxy-{n}.so"));
            std::fs::write(&copy, bytes).expect("a copy");
            _ = host.cli(&["reload", "proxy", "--from", copy.to_str().expect("UTF-8")]);
        }
    }
}

#[test]
fn a_relayed_session_survives_swaps_kills_and_upgrades() {
    let (listener, addr) = server();
    let host = serve(&format!("localhost:{}", addr.port()));
    let (mut near, mut far) = through(&host, &listener);
    let clone = |s: &TcpStream| s.try_clone().expect("a descriptor");
    let ends = [(&near, &far, 3), (&far, &near, 7)].map(|(from, to, seed)| (clone(from), clone(to), seed));
    let threads = ends.map(|(from, to, seed)| {
        let writes = std::thread::spawn(move || write_stream(from, seed));
        (writes, std::thread::spawn(move || read_stream(to, seed)))
    });
    let is_over = || {
        // A reader that has found something wrong leaves the others waiting.
        let failed = host.log().contains("turn failed");
        failed || threads.iter().all(|(writes, reads)| writes.is_finished() && reads.is_finished())
    };

    let mut disturbances = 0;
    while !is_over() {
        disturb(&host, disturbances);
        disturbances = (disturbances + 1) % 240;
    }

    assert!(!host.log().contains("turn failed"), "{}", host.log());
    for (writes, reads) in threads {
        writes.join().expect("every byte");
        reads.join().expect("every byte");
    }
    assert!(host.json(&["status", "--json"])["host"]["workers_before"].as_u64() > Some(0));
    passes(&mut near, &mut far, "still here");
    passes(&mut far, &mut near, "so am I");
    assert!(!host.log().contains("given up"), "{}", host.log());
}

/// Bytes of the longest output that the host holds for a peer.
fn output_held(host: &Host) -> usize {
    let dump = host.json(&["state", "dump"]);
    let sessions = dump["sessions"].as_array().expect("sessions").iter();
    sessions.map(|s| s["output"].as_str().map_or(0, str::len)).max().unwrap_or(0)
}

/// A side that sends faster than the other one reads is read no faster, whatever number of workers
/// take over meanwhile. No output grows to its limit.
#[test]
fn the_slower_side_sets_the_pace() {
    let (listener, addr) = server();
    let host = serve(&addr.to_string());
    let (near, mut far) = through(&host, &listener);
    far.set_write_timeout(Some(Duration::from_secs(1))).expect("a timeout");
    let (piece, mut sent) = (vec![b'z'; 64 * 1024], 0usize);

    // Until nothing more is taken: the kernel's buffers and the pause are all that there is.
    let stuck = loop {
        match far.write(&piece) {
            Ok(n) => sent += n,
            Err(e) => break e,
        }
        assert!(sent < 200_000_000, "nobody holds it up");
    };

    assert!(matches!(stuck.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut), "{stuck}");
    assert_eq!(sessions(&host), 2);
    // A read may be under way. Without a wait that outlives a worker, each takeover adds one.
    let before = output_held(&host);
    // The pause, a read and a message: notes on the way count from the moment they are asked for.
    assert!(before <= 256 * 1024 + 80 * 1024, "{before} bytes are held");
    for _ in 0..8 {
        host.kill_worker();
    }
    let held = output_held(&host);
    assert!(held > 0 && held < before + 200_000, "{before} bytes were held, and now {held}");

    far.shutdown(Shutdown::Write).expect("shut");
    let mut all = Vec::new();
    (&near).read_to_end(&mut all).expect("all of it");
    assert_eq!(all.len(), sent);
    assert!(!host.log().contains("output_bytes_max"), "{}", host.log());
}

/// A target that resets each connection at once. Every asker is told, also those that a worker's
/// death finds waiting, and no connection stays in the making.
#[test]
fn every_asker_of_a_target_that_resets_is_told() {
    const ASKERS: usize = 40;
    let (listener, addr) = server();
    std::thread::spawn(move || {
        while let Ok((peer, _)) = listener.accept() {
            Client::from(peer).reset();
        }
    });
    let host = serve(&addr.to_string());
    for kills in [false, true] {
        let mut askers: Vec<_> = (0..ASKERS).map(|_| Client::connect(host.addr("proxy"))).collect();
        for asker in &mut askers {
            asker.send("open\n");
        }
        if kills {
            host.kill_worker();
        }
        for asker in &mut askers {
            while asker.line().is_some() {}
        }
        drop(askers);
        wait_for("all to end", || (sessions(&host) == 0).then_some(()));
    }
}

#[test]
fn a_connection_that_fails_is_reported_to_the_client() {
    let (listener, addr) = server();
    drop(listener);
    let host = serve(&addr.to_string());
    let mut near = Client::connect(host.addr("proxy"));
    near.send("open\n");
    let said = near.line().expect("an answer");
    assert!(said.contains("can't be connected to") || said.contains("Connection refused"), "{said}");
    assert_eq!(near.line(), None);
    drop(host);

    let host = serve("name.invalid:1");
    let mut near = Client::connect(host.addr("proxy"));
    near.send("open\n");
    let said = near.line().expect("an answer");
    assert!(said.starts_with("password: proxy: "), "{said}");
    assert_eq!(near.line(), None);
    drop(host);

    // Nobody accepts, and the kernel's queue is full: it takes too long.
    let full = TcpListener::bind("127.0.0.1:0").expect("a port");
    // SAFETY: listen has no preconditions.
    unsafe { libc::listen(std::os::fd::AsRawFd::as_raw_fd(&full), 0) };
    let addr = full.local_addr().expect("its address");
    let waiting: Vec<_> = (0..4)
        .map(|_| std::thread::spawn(move || TcpStream::connect_timeout(&addr, Duration::from_secs(3))))
        .collect();
    let host = serve_patient(&addr.to_string(), 5000);
    wait_for("the queue to be full", || {
        TcpStream::connect_timeout(&addr, Duration::from_millis(300)).is_err().then_some(())
    });

    let mut near = Client::connect(host.addr("proxy"));
    near.send("open\n");
    // Meanwhile it can be seen.
    let session = wait_for("a connection in the making", || {
        let session = host.json(&["state", "dump"])["sessions"].get(0)?.clone();
        (session["connects"] != json!([])).then_some(session)
    });
    assert_eq!(session["connects"][0]["to"], json!(addr.to_string()), "{session}");
    assert_eq!((&session["held"], &session["outbound"]), (&json!(true), &json!(false)), "{session}");

    let said = near.line().expect("an answer");
    assert!(said.contains("limit connect_ms"), "{said}");
    for thread in waiting {
        let _ = thread.join();
    }
}
