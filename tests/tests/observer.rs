//! Observer: metrics and health over HTTP. Its end, slow and many clients, and changes of the
//! configuration touch no session.

use greenroom_tests::host::Host;
use greenroom_tests::{built, wait_for};
use std::fs::write;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::Output;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Sends bytes, and reads all that comes back.
#[track_caller]
fn ask(at: SocketAddr, bytes: &str) -> String {
    let mut stream = TcpStream::connect(at).expect("the observer");
    stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a time limit");
    stream.write_all(bytes.as_bytes()).expect("it reads");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    answer
}

/// Status of an answer to a GET, and its body.
#[track_caller]
fn get(at: SocketAddr, path: &str, headers: &str) -> (u16, String) {
    let answer = ask(at, &format!("GET {path} HTTP/1.1\r\nHost: {at}\r\n{headers}\r\n"));
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no head: {answer:?}"));
    let status = head.split(' ').nth(1).and_then(|s| s.parse().ok()).expect("a status");
    (status, body.to_owned())
}

/// Starts a host of echo with this configuration.
fn serve(config: &Path, text: &str) -> Host {
    write(config, text).expect("a configuration");
    Host::serve_with(&["echo", "tally"], &[&built("libecho.so")], |c| {
        c.arg("--config").arg(config);
    })
}

/// Puts this configuration in force.
fn configure(host: &Host, config: &Path, text: &str) -> Output {
    write(config, text).expect("a configuration");
    host.cli(&["reload", "--config"])
}

/// Process id and address of the observer.
fn observer(host: &Host) -> Option<(i32, SocketAddr)> {
    let observer = &host.json(&["status", "--json"])["host"]["observer"];
    let at = observer["listen"].as_str()?.parse().expect("an address");
    let pid = observer["pid"].as_i64().filter(|pid| *pid > 0)? as i32;
    Some((pid, at))
}

fn kill(pid: i32) {
    // SAFETY: the pid is that of a process of our host, which is not reaped before it is dead.
    unsafe { libc::kill(pid, libc::SIGKILL) };
}

#[test]
fn the_observer_serves_beside_the_host_and_its_end_costs_nothing() {
    let dir = tempfile::tempdir().expect("a directory");
    let config = dir.path().join("greenroom.toml");
    let mut host = serve(&config, "[observe]\nlisten = \"127.0.0.1:0\"\n");
    let at = host.addr("observer http");
    let mut session = TcpStream::connect(host.addr("echo")).expect("a session");
    let mut echoes = || {
        session.write_all(b"still here\n").expect("it reads");
        let mut line = [0; 11];
        session.read_exact(&mut line).expect("an echo");
        assert_eq!(&line, b"still here\n");
    };
    echoes();

    // Metrics are of the format, and no page of another site may read them.
    let (status, text) = get(at, "/metrics", "");
    assert_eq!(status, 200);
    assert!(text.contains("greenroom_sessions") && text.ends_with("# EOF\n"), "{text}");
    assert_eq!(
        [get(at, "/healthz", ""), get(at, "/readyz", "")],
        [(200, "ok\n".into()), (200, "ok\n".into())]
    );
    let foreign = ask(at, "GET /metrics HTTP/1.1\r\nHost: evil.example\r\n\r\n");
    assert!(foreign.starts_with("HTTP/1.1 403 "), "{foreign}");
    // The console is off, and says nothing of itself.
    assert_eq!((get(at, "/", "").0, get(at, "/api/live", "").0), (404, 404));
    let out = host.cli(&["console"]);
    assert!(out.status.code() == Some(1) && String::from_utf8_lossy(&out.stderr).contains("[observe]"));
    for (bytes, status) in [
        ("garbage\r\n\r\n", "400"),
        ("\u{0}\u{1}\u{2}\r\n\r\n", "400"),
        ("POST /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n", "405"),
        ("DELETE / HTTP/1.1\r\n\r\n", "405"),
        (&format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(20_000)), "431"),
    ] {
        let answer = ask(at, bytes);
        assert_eq!(answer.split(' ').nth(1), Some(status), "{answer:?}");
    }

    // Clients that say nothing take places, and only their own: what is beyond is refused at once,
    // and the places are free again after a while.
    let silent: Vec<_> = (0..100).map(|_| TcpStream::connect(at).expect("the observer")).collect();
    let refused = silent.iter().rev().find_map(|mut stream| {
        stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a time limit");
        let mut answer = [0; 12];
        stream.read_exact(&mut answer).ok().map(|()| answer)
    });
    assert_eq!(refused.as_ref(), Some(b"HTTP/1.1 503"));
    echoes();
    drop(silent);
    wait_for("an answer", || (get(at, "/healthz", "").0 == 200).then_some(()));

    // The worker's death is a gap that health waits for. The observer's own is one of a moment, and
    // readers wait for the next one.
    host.kill_worker();
    assert_eq!(get(at, "/healthz", ""), (200, "ok\n".into()));
    let (pid, _) = observer(&host).expect("an observer");
    kill(pid);
    assert_eq!(get(at, "/healthz", ""), (200, "ok\n".into()));
    let (next, _) = wait_for("another one", || observer(&host).filter(|(next, _)| *next != pid));
    echoes();

    // Another address: the process stays. A taken one refuses the configuration.
    let busy = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let taken = busy.local_addr().expect("its address");
    let out = configure(&host, &config, "[observe]\nlisten = \"127.0.0.2:0\"\n");
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let (same, moved) = observer(&host).expect("an observer");
    assert_eq!((same, moved.ip().to_string().as_str()), (next, "127.0.0.2"));
    wait_for("an answer", || (get(moved, "/healthz", "").0 == 200).then_some(()));
    assert!(TcpStream::connect(at).is_err(), "nobody listens there any more");
    let out = configure(&host, &config, &format!("[observe]\nlisten = \"{taken}\"\n"));
    let said = String::from_utf8_lossy(&out.stderr).into_owned();
    assert!(out.status.code() == Some(1) && said.contains(&format!("observe.listen {taken}")), "{said}");
    assert_eq!(get(moved, "/healthz", "").0, 200);
    drop(busy);

    // With a file each reader of metrics needs its token, and a file that others read is none.
    let token = dir.path().join("token");
    write(&token, "correct-horse-battery\n").expect("a token");
    let mode = |mode| std::fs::set_permissions(&token, std::os::unix::fs::PermissionsExt::from_mode(mode));
    mode(0o600).expect("its mode");
    let out = configure(&host, &config, "[observe]\nlisten = \"127.0.0.2:0\"\ntoken_file = \"token\"\n");
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    wait_for("the token to be asked for", || (get(moved, "/metrics", "").0 == 401).then_some(()));
    let wrong = "Authorization: Bearer correct-horse-batterx\r\n";
    let right = "Authorization: Bearer correct-horse-battery\r\n";
    assert_eq!((get(moved, "/metrics", wrong).0, get(moved, "/metrics", right).0), (401, 200));
    assert_eq!(get(moved, "/healthz", "").0, 200);
    mode(0o644).expect("its mode");
    assert_eq!(get(moved, "/metrics", right).0, 503);
    wait_for("the reason in the status", || {
        let failing = host.json(&["status", "--json"])["host"]["failing"].to_string();
        (failing.contains("observer") && failing.contains("chmod 600")).then_some(())
    });

    // A token that cannot be read is refused, and what is in force stays.
    let out = configure(&host, &config, "[observe]\nlisten = \"127.0.0.2:0\"\ntoken_file = \"missing\"\n");
    let said = String::from_utf8_lossy(&out.stdout).into_owned() + &String::from_utf8_lossy(&out.stderr);
    assert!(out.status.code() == Some(1) && said.contains("observe.token_file: "), "{said}");

    // Without the section there is no process.
    let out = configure(&host, &config, "");
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    assert_eq!(observer(&host), None);
    wait_for("its end", || TcpStream::connect(moved).is_err().then_some(()));
    wait_for("no failing part", || {
        (host.json(&["status", "--json"])["host"]["failing"] == serde_json::json!([])).then_some(())
    });
    echoes();
    host.signal(libc::SIGTERM);
    assert_eq!(host.wait(), Some(0));
}

/// An observer moves as ports of services do: beside its own address, and to one that a service
/// gives up in the same change. It gets none that a service keeps, and a refusal costs nothing.
#[test]
fn an_observer_moves_to_an_address_that_becomes_free_with_the_change() {
    let dir = tempfile::tempdir().expect("a directory");
    let config = dir.path().join("greenroom.toml");
    let token = dir.path().join("token");
    write(&token, "correct-horse-battery\n").expect("a token");
    std::fs::set_permissions(&token, std::os::unix::fs::PermissionsExt::from_mode(0o600)).expect("its mode");
    let text = |observe: &str, echo: &str| {
        format!(
            "[observe]\nlisten = \"{observe}\"\ntoken_file = \"token\"\n[service.echo]\nlisten = [\"{echo}\"]\n\
             [service.tally]\nlisten = [\"127.0.0.1:0\"]\n"
        )
    };
    let any = "127.0.0.1:0";
    write(&config, text(any, any)).expect("a configuration");
    // Addresses on the command line would stay.
    let host = Host::serve_with(&[], &[&built("libecho.so")], |c| {
        c.arg("--config").arg(&config);
    });
    let (own, echo) = (host.addr("observer http"), host.addr("echo"));
    let takes = |observe: &str, echo: &str| {
        let out = configure(&host, &config, &text(observe, echo));
        assert!(out.status.success(), "{observe}, {echo}: {}", String::from_utf8_lossy(&out.stderr));
        let (_, at) = observer(&host).expect("an observer");
        assert_eq!(at.to_string(), observe);
    };
    let refused = |observe: &str, echo: &str, why: &str| {
        let before = observer(&host);
        let out = configure(&host, &config, &text(observe, echo));
        let said = String::from_utf8_lossy(&out.stdout).into_owned() + &String::from_utf8_lossy(&out.stderr);
        assert!(out.status.code() == Some(1) && said.contains(why), "{why}: {said}");
        assert_eq!(observer(&host), before);
    };
    let answers = |at: SocketAddr| {
        wait_for("an answer", || {
            let mut stream = TcpStream::connect(at).ok()?;
            stream.set_read_timeout(Some(Duration::from_secs(20))).ok()?;
            stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n").ok()?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer).ok()?;
            answer.starts_with("HTTP/1.1 200 ").then_some(())
        });
    };

    // Its own port by name, at all addresses, and at one of them again.
    let everywhere = format!("0.0.0.0:{}", own.port());
    for listen in [&own.to_string(), &everywhere, &format!("127.0.0.2:{}", own.port()), &everywhere] {
        takes(listen, any);
        answers(if *listen == everywhere { own } else { listen.parse().expect("an address") });
    }

    // The port of a service that keeps it, then one that moves away: no connection is refused.
    let mut session = TcpStream::connect(echo).expect("a session");
    refused(&echo.to_string(), any, &format!("both observe.listen and service echo want tcp://{echo}"));
    let overlaps = format!("0.0.0.0:{}", echo.port());
    refused(&overlaps, any, &format!("service echo listens on tcp://{echo} now: free that port first"));
    session.write_all(b"still here\n").expect("it reads");
    let mut line = [0; 11];
    session.read_exact(&mut line).expect("an echo");
    let mut other = TcpStream::connect(echo).expect("a session");
    other.write_all(b"and here, too\n").expect("it reads");
    other.read_exact(&mut line).expect("an echo");
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let knocks = scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                TcpStream::connect(echo).expect("somebody listens at any time");
            }
        });
        takes(&echo.to_string(), "127.0.0.2:0");
        answers(echo);
        over.store(true, Ordering::Relaxed);
        knocks.join().expect("no connection was refused");
    });
    session.write_all(b"still here\n").expect("it reads");
    session.read_exact(&mut line).expect("an echo");
    assert_eq!(&line, b"still here\n");

    // What the observer has is no service's: the refusal says what to do.
    refused("127.0.0.3:0", &echo.to_string(), "move observe.listen first, in a change of its own");
    answers(echo);
}

/// A host that would serve others without a token does not start.
#[test]
fn an_observer_that_others_reach_needs_a_token() {
    let dir = tempfile::tempdir().expect("a directory");
    let config = dir.path().join("greenroom.toml");
    write(&config, "[observe]\nlisten = \"0.0.0.0:0\"\n").expect("a configuration");
    let out = std::process::Command::new(built("greenroom"))
        .args(["serve", "--check-config", "--config"])
        .arg(&config)
        .arg(built("libecho.so"))
        .output()
        .expect("greenroom");
    let said = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.code() == Some(1) && said.contains("needs `token_file`"), "{said}");
}
