//! TLS of a real host: clients that others wrote, sessions across swaps and `kill -9`, ends, bad
//! records, certificates, and secrets that lie nowhere.

use greenroom_tests::client::Client;
use greenroom_tests::host::Host;
use greenroom_tests::program::Program;
use greenroom_tests::tls::{Certificate, Secrets, TlsClient, config, config_of};
use greenroom_tests::{built, child, wait_for};
use rustls::version::{TLS12, TLS13};
use serde_json::Value;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

/// Host with the services of `libecho.so` and `libchat.so` over TLS, and plain.
struct Served {
    host: Host,
    certificate: Certificate,
    /// Folder of the certificate and the configuration.
    dir: tempfile::TempDir,
}

/// Serves under these lines of configuration; `plan`: a kill plan.
fn serve(limits: &str, plan: Option<&str>) -> Served {
    let dir = tempfile::tempdir().expect("a directory");
    let certificate = Certificate::make(dir.path(), "localhost");
    write_config(dir.path(), limits, &certificate);
    let file = dir.path().join("greenroom.toml");
    let kill_plan = dir.path().join("plan");
    std::fs::write(&kill_plan, plan.unwrap_or_default()).expect("a plan");
    let host = Host::serve_with(&["chat"], &[&built("libecho.so"), &built("libchat.so")], |host| {
        host.arg("-c").arg(&file).env("GREENROOM_KILL_PLAN", &kill_plan);
        for listen in
            ["tally=tls+line://127.0.0.1:0", "echo=tls://127.0.0.1:0", "chat=tls+line://127.0.0.2:0"]
        {
            host.args(["--listen", listen]);
        }
    });
    Served { host, certificate, dir }
}

fn write_config(dir: &Path, limits: &str, certificate: &Certificate) {
    let services =
        ["tally", "echo", "chat"].map(|s| format!("[service.{s}]\ntls = {}\n", certificate.toml()));
    let text = format!("[limits]\n{limits}\n{}", services.concat());
    std::fs::write(dir.join("greenroom.toml"), text).expect("a configuration");
}

impl Served {
    fn tally(&self) -> SocketAddr {
        self.host.addr("tally tls+line")
    }

    fn connect(&self) -> TlsClient {
        TlsClient::connect(self.tally(), config(&self.certificate, &TLS13), "localhost").expect("a handshake")
    }

    fn status(&self) -> Value {
        self.host.json(&["status", "--json"])
    }

    /// Lines of the kill plan that no worker has taken.
    fn plan_left(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("plan")).expect("the plan")
    }
}

/// Runs a shell script with the port, and returns what it printed.
#[track_caller]
fn shell(served: &Served, script: &str) -> String {
    let out = Command::new("bash")
        .args(["-c", script])
        .env("PORT", served.tally().port().to_string())
        .env("CERT", &served.certificate.certificate)
        .stdin(Stdio::null())
        .output()
        .expect("bash");
    format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr))
}

/// Numbered lines: a lost one is a gap, a doubled one a repetition.
struct Counting {
    client: TlsClient,
    asked: usize,
}

impl Counting {
    /// Sends this many lines in one piece, and checks the answers.
    fn ask(&mut self, lines: usize, rng: &mut fastrand::Rng) -> Result<(), String> {
        let text = |n: usize, rng: &mut fastrand::Rng| format!("{n} {}", "x".repeat(rng.usize(0..200)));
        let sent: Vec<_> = (0..lines).map(|n| text(self.asked + n + 1, rng)).collect();
        if rng.u8(0..4) == 0 && self.client.tls.protocol_version() == Some(rustls::ProtocolVersion::TLSv1_3) {
            self.client.tls.refresh_traffic_keys().map_err(|e| e.to_string())?;
        }
        let wire = self.client.seal((sent.join("\n") + "\n").as_bytes());
        // Two pieces: the stream is cut in the middle of a record.
        let (first, rest) = wire.split_at(rng.usize(..wire.len()));
        for piece in [first, rest] {
            self.client.stream.write_all(piece).map_err(|e| e.to_string())?;
        }
        for line in sent {
            self.asked += 1;
            let answer = self.client.line().map_err(|e| e.to_string())?;
            if answer.as_deref() != Some(&format!("{} {line}", self.asked)) {
                return Err(format!("answer {}: {answer:?}", self.asked));
            }
        }
        Ok(())
    }
}

const POINTS: [&str; 11] = [
    "noted",
    "read",
    "ran",
    "commit",
    "committed",
    "sent",
    "flushed",
    "passed",
    "recovered",
    "reconciled",
    "caught-up",
];

/// Both versions, keys that change every few records on both sides, kills at each point, swaps.
#[test]
fn kills_at_each_point_and_swaps_lose_no_byte_of_a_session_over_tls() {
    let lines = POINTS.iter().enumerate().map(|(n, point)| {
        // What a successor passes once, it dies of at once.
        let count = if n < 8 { 3 + 5 * n } else { 0 };
        format!("{point} {count}\n")
    });
    let plan: String = std::iter::once("none\n".to_owned()).chain(lines).collect();
    let served = serve("tls_records_max = 40", Some(&plan));
    let mut rng = fastrand::Rng::with_seed(5);
    let connect = |version| {
        let addr = served.tally();
        TlsClient::connect(addr, config(&served.certificate, version), "localhost").expect("a handshake")
    };
    let mut clients = [&TLS13, &TLS13].map(|version| Counting { client: connect(version), asked: 0 });
    let mut kill_first = true;
    let mut rounds = 0;
    while !served.plan_left().is_empty() || rounds < 60 {
        for client in &mut clients {
            client.ask(rng.usize(1..30), &mut rng).unwrap_or_else(|e| panic!("{e}\n{}", served.host.log()));
        }
        rounds += 1;
        if std::mem::take(&mut kill_first) {
            served.host.kill_worker();
        }
        if rounds == 30 {
            // A kill may cut it off, which the command says.
            served.host.cli(&["reload", "echo", "--from", built("libecho.so").to_str().expect("UTF-8")]);
        }
    }
    let log = served.host.log();
    assert!(!log.contains("given up"), "{log}");
    // New sessions come in a successor as in the first worker, in the older version, too.
    let mut old = Counting { client: connect(&TLS12), asked: 0 };
    old.ask(10, &mut rng).expect("answers");
    served.host.kill_worker();
    old.ask(10, &mut rng).expect("answers");
    // Its one key is used up, which the peer is told.
    let ended = (0..80).find_map(|_| old.ask(5, &mut rng).err());
    assert_eq!(ended.as_deref().map(|e| e.contains("None")), Some(true), "{ended:?}");
    let counted = served.status()["host"]["limits"]["tls_records_max"].as_u64();
    assert_eq!(counted, Some(1));
}

/// Kills without what the kernel knows: the checks above can fail.
#[test]
fn a_client_over_tls_notices_kills_without_the_kernels_counts() {
    let lines: String = POINTS.iter().take(8).map(|p| format!("{p} 5\nunreconciled\n")).collect();
    let served = serve("", Some(&format!("none\n{}", lines.repeat(100))));
    let mut rng = fastrand::Rng::with_seed(7);
    let mut client = Counting { client: served.connect(), asked: 0 };
    client.ask(5, &mut rng).expect("answers");
    // A byte that is lost may leave both sides waiting, which is a notice, too.
    client.client.stream.set_read_timeout(Some(Duration::from_secs(5))).expect("a time");
    let noticed = (0..500).find_map(|round| {
        if round % 10 == 0 {
            served.host.kill_worker();
        }
        client.ask(rng.usize(1..30), &mut rng).err()
    });
    eprintln!("as it should be: {}", noticed.expect("the client notices"));
}

/// Clients that nobody here wrote, swaps and kills in the middle of a record, broadcasts to a room
/// of both kinds, and ends.
#[test]
fn every_client_speaks_and_rooms_are_shared() {
    let served = serve("", None);
    for version in ["-tls1_3", "-tls1_2"] {
        let mut openssl = Command::new("openssl");
        openssl.args(["s_client", version, "-verify_return_error", "-servername", "localhost", "-quiet"]);
        openssl.arg("-no_ign_eof").args(["-connect", &served.tally().to_string()]);
        let mut client = Program::start(openssl.arg("-CAfile").arg(&served.certificate.certificate));
        client.say("one\ntwo\n");
        assert_eq!(client.lines_to("2 two"), ["1 one", "2 two"], "{version}");
        assert_eq!(client.end(), Some(0), "{version}");
    }
    // Keys change by the client's wish, with and without an answer.
    let mut openssl = Command::new("openssl");
    openssl.args(["s_client", "-connect", &served.tally().to_string()]).stderr(Stdio::null());
    let mut client = Program::start(&mut openssl);
    client.say("one\n");
    client.lines_to("1 one");
    ["K\n", "k\n", "two\n"].iter().for_each(|text| client.say(text));
    client.lines_to("2 two");
    assert_eq!(client.end(), Some(0));
    let python = r#"
import os, socket, ssl, threading
context = ssl.create_default_context(cafile=os.environ["CERT"])
sock = context.wrap_socket(socket.create_connection(("127.0.0.1", int(os.environ["PORT"]))), server_hostname="localhost")
lines = [b"%d %s\n" % (n, b"y" * (n % 300)) for n in range(3000)]
threading.Thread(target=lambda: sock.sendall(b"".join(lines))).start()
reader = sock.makefile("rb")
assert all(reader.readline() == b"%d " % (n + 1) + line for n, line in enumerate(lines))
sock.unwrap()
print("all came")
"#;
    let script = format!("python3 - <<'END'\n{python}\nEND");
    assert_eq!(shell(&served, &script), "all came\n");

    // In the middle of a record: a swap, a kill, and an upgrade.
    let mut client = served.connect();
    assert_eq!(client.ask("begin"), "1 begin");
    for n in 2..5 {
        let wire = client.seal(b"cut\n");
        client.stream.write_all(&wire[..wire.len() / 2]).expect("sent");
        match n {
            2 => served.host.kill_worker(),
            3 => _ = served.host.reload_from("echo", &built("libecho.so")),
            _ => {
                let binary = built("greenroom");
                let out = served.host.cli(&["upgrade", "--binary", binary.to_str().expect("UTF-8")]);
                assert!(out.status.success(), "{out:?}");
            }
        }
        client.stream.write_all(&wire[wire.len() / 2..]).expect("sent");
        assert_eq!(client.line().expect("a record"), Some(format!("{n} cut")));
    }
    // Half of a line, over a kill, and the orderly end: both sides tell it.
    client.send(b"half ").expect("sent");
    served.host.kill_worker();
    assert_eq!(client.ask("line"), "5 half line");
    client.close();
    assert_eq!(client.line().expect("an orderly end"), None);

    // A cut is told apart from an end.
    let mut cut = served.connect();
    assert_eq!(cut.ask("x"), "1 x");
    cut.stream.shutdown(std::net::Shutdown::Write).expect("open");
    assert_eq!(cut.line().expect("an orderly end of the host's side"), None);
    served.host.wait_log("its peer has cut the stream");
    assert_eq!(served.host.log().matches("its peer has cut the stream").count(), 1);
    chat(&served);
}

/// A room over TLS and plain: a long line is one payload for some and sealed for the others.
fn chat(served: &Served) {
    let addr = served.host.addr("chat tls+line");
    let mut secret = [(); 2].map(|()| {
        TlsClient::connect(addr, config(&served.certificate, &TLS13), "localhost").expect("a handshake")
    });
    let mut plain = [(); 2].map(|()| Client::connect(served.host.addr("chat")));
    for (n, client) in secret.iter_mut().enumerate() {
        assert!(client.line().expect("a record").is_some_and(|welcome| welcome.contains("nick")));
        assert_eq!(client.ask(&format!("s{n}")), format!("* s{n} is here"));
    }
    for (n, client) in plain.iter_mut().enumerate() {
        assert!(client.line().is_some_and(|welcome| welcome.contains("nick")));
        assert_eq!(client.ask(&format!("p{n}")), format!("* p{n} is here"));
    }
    let long = "long ".repeat(100);
    plain[0].send(format!("{long}\n"));
    served.host.kill_worker();
    for client in &mut secret {
        let mut lines = std::iter::from_fn(|| client.line().expect("a record"));
        assert!(lines.any(|line| line.ends_with(long.trim_end()) || line.ends_with(&long)));
    }
    for client in &mut plain {
        assert!(std::iter::from_fn(|| client.line()).any(|line| line.contains(long.trim_end())));
    }
}

/// Nobody else is harmed by bytes that are no TLS, records that were changed, handshakes that never
/// end, and the handshaker's death.
#[test]
fn bad_peers_and_a_dead_handshaker_end_no_session() {
    let served = serve("handshake_ms = 700\nhandshakes_max = 3", None);
    let mut other = served.connect();
    assert_eq!(other.ask("before"), "1 before");
    // No TLS: an alert, and the end.
    let mut plain = TcpStream::connect(served.tally()).expect("a connection");
    plain.write_all(b"GET / HTTP/1.1\r\n\r\n").expect("sent");
    let mut told = Vec::new();
    let _ = plain.read_to_end(&mut told);
    assert_eq!(told.first(), Some(&21), "{told:?}");
    // A record that was changed on its way.
    let mut changed = served.connect();
    let mut wire = changed.seal(b"hello\n");
    *wire.last_mut().expect("a record") ^= 1;
    changed.stream.write_all(&wire).expect("sent");
    let said = changed.line().expect_err("an alert").to_string();
    assert!(said.contains("BadRecordMac"), "{said}");
    served.host.wait_log("its peer breaks TLS: a record does not open");
    // Behind a handshake, what is no record is refused by its header alone.
    let mut garbage = served.connect();
    garbage.stream.write_all(b"QUIT\r\n").expect("sent");
    let said = garbage.line().expect_err("an alert").to_string();
    assert!(said.contains("UnexpectedMessage"), "{said}");

    // Handshakes that never end: the oldest makes room, and time ends the others.
    let mut silent: Vec<_> =
        (0..5).map(|_| TcpStream::connect(served.tally()).expect("a connection")).collect();
    assert_eq!(other.ask("during"), "2 during");
    for stream in &mut silent {
        let _ = stream.read_to_end(&mut Vec::new());
    }
    let limits = served.status()["host"]["limits"].clone();
    let reached = |name: &str| limits[name].as_u64().unwrap_or(0);
    assert_eq!((reached("handshakes_max"), reached("handshake_ms")), (2, 3), "{limits}");

    // The handshaker's death costs the handshakes under way.
    let mut under_way = TcpStream::connect(served.tally()).expect("a connection");
    let handshaker = wait_for("the handshaker", || child(served.host.pid(), "greenroom-tls"));
    // SAFETY: the process is a child of the host, which is alive and reaps it.
    unsafe { libc::kill(handshaker, libc::SIGKILL) };
    let _ = under_way.read_to_end(&mut Vec::new());
    assert_eq!(other.ask("behind"), "3 behind");
    assert_eq!(served.connect().ask("anew"), "1 anew");
    assert_ne!(child(served.host.pid(), "greenroom-tls"), Some(handshaker));

    // One that is stopped tells nothing: it is killed, and another one goes on.
    let stopped = wait_for("the handshaker", || child(served.host.pid(), "greenroom-tls"));
    // SAFETY: as above.
    unsafe { libc::kill(stopped, libc::SIGSTOP) };
    let mut in_vain = TcpStream::connect(served.tally()).expect("a connection");
    let _ = in_vain.read_to_end(&mut Vec::new());
    served.host.wait_log("the handshaker answers nothing; it is killed");
    assert_eq!(other.ask("still"), "4 still");
    assert_eq!(served.connect().ask("anew"), "1 anew");
}

/// More handshakes than the limit lets begin: they wait, and all come to their end. A record in
/// part has the time of a frame.
#[test]
fn handshakes_wait_for_their_time_and_records_have_one() {
    let served = serve("handshakes_per_s = 6\nframe_ms = 400", None);
    let mut clients: Vec<_> = (0..5).map(|_| served.connect()).collect();
    for client in &mut clients {
        assert_eq!(client.ask("here"), "1 here");
    }
    let limits = served.status()["host"]["limits"].clone();
    assert!(limits["handshakes_per_s"].as_u64() >= Some(1), "{limits}");
    let wire = clients[0].seal(b"half of this\n");
    clients[0].stream.write_all(&wire[..wire.len() / 2]).expect("sent");
    assert!(clients[0].line().is_ok_and(|line| line.is_none()), "the session is closed");
    let limits = served.status()["host"]["limits"].clone();
    assert_eq!(limits["frame_ms"].as_u64(), Some(1), "{limits}");
    assert_eq!(clients[1].ask("there"), "2 there");
}

/// Certificates change under sessions; bad ones are refused with their reason.
#[test]
fn certificates_are_read_anew_and_bad_ones_are_refused() {
    let served = serve("", None);
    let mut before = served.connect();
    assert_eq!(before.ask("x"), "1 x");
    let dir = served.dir.path();
    let other = Certificate::make(dir, "other.example");
    let (file, key) = (&served.certificate.certificate, &served.certificate.key);
    let old = std::fs::read(file).expect("the certificate");

    // Another certificate, without its key: refused, and the old one serves.
    std::fs::copy(&other.certificate, file).expect("copied");
    served.host.wait_log("is not the key of");
    let failing = served.status()["host"]["failing"].to_string();
    assert!(failing.contains("certificate of tally") && failing.contains("is not the key of"), "{failing}");
    assert!(failing.contains("the one before serves on"), "{failing}");
    std::fs::write(dir.join("old.pem"), old).expect("a file");
    let trusted = Certificate { certificate: dir.join("old.pem"), key: key.clone() };
    let connect =
        |trusted: &Certificate, name: &str| TlsClient::connect(served.tally(), config(trusted, &TLS13), name);
    assert_eq!(connect(&trusted, "localhost").expect("a handshake").ask("y"), "1 y");

    // A process that follows a dead one has no certificate before, and says so.
    let handshaker = wait_for("the handshaker", || child(served.host.pid(), "greenroom-tls"));
    // SAFETY: the process is a child of the host, which is alive and reaps it.
    unsafe { libc::kill(handshaker, libc::SIGKILL) };
    wait_for("the reason", || {
        served.status()["host"]["failing"].to_string().contains("no handshake of the service").then_some(())
    });
    assert!(connect(&trusted, "localhost").is_err());

    // With its key it serves, and nobody was dropped.
    std::fs::copy(&other.key, key).expect("copied");
    wait_for("the new certificate", || connect(&other, "other.example").ok());
    assert_eq!(before.ask("z"), "2 z");
    assert!(connect(&trusted, "localhost").is_err());
    wait_for("no failure", || {
        (!served.status()["host"]["failing"].to_string().contains("tally")).then_some(())
    });

    // Two certificates, by name; a configuration without one keeps its port closed.
    let names = format!(
        "[service.tally]\ntls = {{certificate = {:?}, key = {:?}, others = [{}]}}\n",
        other.certificate,
        other.key,
        Certificate::make(dir, "second.example").toml()
    );
    std::fs::write(dir.join("greenroom.toml"), &names).expect("a configuration");
    let said = served.host.cli(&["reload", "--config"]);
    let said = String::from_utf8_lossy(&said.stderr).into_owned();
    assert!(said.contains("TLS needs service.chat.tls.certificate"), "{said}");
    let all = format!("{names}[service.echo]\ntls = {0}\n[service.chat]\ntls = {0}\n", other.toml());
    std::fs::write(dir.join("greenroom.toml"), all).expect("a configuration");
    let out = served.host.cli(&["reload", "--config"]);
    assert!(out.status.success(), "{out:?}");
    let second = Certificate { certificate: dir.join("second.example.pem"), key: key.clone() };
    wait_for("the second certificate", || connect(&second, "second.example").ok());
    assert!(connect(&other, "other.example").is_ok());

    // A configuration with a pair that is none is refused, and so is a host.
    let pipe = dir.join("pipe.pem");
    assert!(Command::new("mkfifo").arg(&pipe).status().expect("mkfifo").success());
    for file in [&second.certificate, &pipe] {
        let tls = format!("{{certificate = {:?}, key = {:?}}}", other.certificate, file);
        let all = ["tally", "echo", "chat"].map(|s| format!("[service.{s}]\ntls = {tls}\n")).concat();
        std::fs::write(dir.join("greenroom.toml"), all).expect("a configuration");
        let out = served.host.cli(&["reload", "--config"]);
        let said = String::from_utf8_lossy(&out.stderr).into_owned();
        let name = file.file_name().expect("a name").to_str().expect("UTF-8");
        assert!(!out.status.success() && said.contains(name), "{said}");
        assert!(connect(&second, "second.example").is_ok());
    }
    let bad = format!(
        "[service.echo]\ntls = {{certificate = {:?}, key = {:?}}}\n",
        other.certificate, second.certificate
    );
    std::fs::write(dir.join("bad.toml"), bad).expect("a configuration");
    let mut command = Command::new(built("greenroom"));
    command.arg("serve").arg(built("libecho.so")).arg("-c").arg(dir.join("bad.toml"));
    command.args(["--listen", "echo=tls://127.0.0.1:0", "--listen", "tally=127.0.0.1:0"]);
    let out = command.env("GREENROOM_RUNTIME", dir.join("run")).output().expect("greenroom");
    let said = String::from_utf8_lossy(&out.stderr).into_owned();
    assert!(!out.status.success() && said.contains("second.example.pem"), "{said}");
}

/// Names, protocols and clients' certificates are agreed on, and `sessions` shows them. A browser
/// gets WebSocket.
#[test]
fn what_is_agreed_on_is_shown_and_websocket_runs_over_tls() {
    let dir = tempfile::tempdir().expect("a directory");
    let [own, client, stranger] =
        ["localhost", "client", "stranger"].map(|n| Certificate::make(dir.path(), n));
    let text = format!(
        "[service.tally]\nlisten = [\"tls+line://127.0.0.1:0\", \"wss://127.0.0.2:0\"]\n[service.tally.tls]\n\
         certificate = {:?}\nkey = {:?}\nalpn = [\"tally/1\"]\nclient_ca = {:?}\nclient_optional = true\n",
        own.certificate, own.key, client.certificate
    );
    std::fs::write(dir.path().join("greenroom.toml"), text).expect("a configuration");
    let host = Host::serve_with(&["echo"], &[&built("libecho.so")], |host| {
        host.arg("-c").arg(dir.path().join("greenroom.toml"));
    });
    let addr = host.addr("tally tls+line");
    let connect = |alpn: &str, from: Option<&Certificate>| {
        let mut config = match from {
            None => config(&own, &TLS13),
            Some(from) => config_of(&own, &TLS13, from),
        };
        config.alpn_protocols = vec![alpn.as_bytes().to_vec()];
        let mut client = TlsClient::connect(addr, config, "localhost")?;
        // A refused certificate is told behind the handshake.
        client.send(b"hello\n")?;
        client.line().map(|line| (client, line))
    };
    let (_known, line) = connect("tally/1", Some(&client)).expect("a session");
    assert_eq!(line.as_deref(), Some("1 hello"));
    let sessions = host.json(&["sessions", "--json"]);
    let facts = &sessions[0]["tls"];
    assert_eq!(
        ["tls-version", "tls-suite", "tls-server-name", "tls-alpn"].map(|name| facts[name].as_str()),
        [Some("1.3"), Some("TLS13_AES_256_GCM_SHA384"), Some("localhost"), Some("tally/1")],
        "{facts}"
    );
    assert_eq!(facts["tls-client"].as_str().map(str::len), Some(64), "{facts}");
    assert_eq!(facts["tls-client-subject"], "CN=test", "{facts}");
    let (_unknown, line) = connect("tally/1", None).expect("a session without a certificate");
    assert_eq!(line.as_deref(), Some("1 hello"));
    assert!(connect("other/1", None).is_err());
    assert!(connect("tally/1", Some(&stranger)).is_err());

    let mut browser =
        TlsClient::connect(host.addr("tally wss"), config(&own, &TLS13), "localhost").expect("a handshake");
    let request = "GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                   Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";
    assert!(browser.ask(request.trim_end_matches('\n')).starts_with("HTTP/1.1 101 "));
}

/// No secret of a session is in a dump, a log, a saved file, a trial or in the keeper's memory.
#[test]
fn secrets_of_sessions_lie_with_the_worker_alone() {
    let served = serve("", None);
    let secrets = Arc::new(Secrets::default());
    let mut with_log = config(&served.certificate, &TLS13);
    with_log.key_log = secrets.clone();
    let mut client = TlsClient::connect(served.tally(), with_log, "localhost").expect("a handshake");
    assert_eq!(client.ask("hello"), "1 hello");
    let secrets: Vec<_> = secrets.0.lock().expect("secrets").iter().map(|s| s[..16].to_vec()).collect();
    assert!(secrets.len() >= 4);
    let finds = |bytes: &[u8]| secrets.iter().any(|s| bytes.windows(16).any(|w| w == s));
    assert_eq!(client.ask("again"), "2 again");
    // The worker has them, so that the search is one that finds.
    let pages = memory(served.host.worker_pid());
    assert!(pages.iter().any(|page| finds(page)));
    assert!(!memory(served.host.pid() as i32).iter().any(|page| finds(page)), "the keeper has a secret");
    let dump = served.host.cli(&["state", "dump"]).stdout;
    let sessions = served.host.cli(&["sessions", "--json"]).stdout;
    assert!(!finds(&dump) && !finds(&sessions) && !finds(served.host.log().as_bytes()));
    // The session is over, and so are its secrets: in the worker and in the files of its memory.
    client.close();
    assert_eq!(client.line().expect("an end"), None);
    drop(client);
    wait_for("no session", || (served.host.service("tally")["sessions"] == 0).then_some(()));
    let pages = shared_memory(served.host.worker_pid());
    assert!(!pages.is_empty() && !pages.iter().any(|page| finds(page)), "a secret outlives its session");
}

/// Readable memory of a process, a piece for each mapping.
fn memory(pid: i32) -> Vec<Vec<u8>> {
    mappings(pid, |_| true)
}

/// Memory files that a process maps.
fn shared_memory(pid: i32) -> Vec<Vec<u8>> {
    mappings(pid, |line| line.contains("memfd"))
}

fn mappings(pid: i32, is_wanted: impl Fn(&str) -> bool) -> Vec<Vec<u8>> {
    use std::os::unix::fs::FileExt;
    let maps = std::fs::read_to_string(format!("/proc/{pid}/maps")).expect("mappings");
    let file = std::fs::File::open(format!("/proc/{pid}/mem")).expect("memory");
    let mut pages = Vec::new();
    for line in
        maps.lines().filter(|l| l.split(' ').nth(1).is_some_and(|p| p.starts_with("rw")) && is_wanted(l))
    {
        let (from, to) = line.split(' ').next().and_then(|r| r.split_once('-')).expect("a range");
        let [from, to] = [from, to].map(|n| u64::from_str_radix(n, 16).expect("an address"));
        // The records' memory is mapped to its limit, and has a file only as far as it is used.
        let mut page = vec![0; (to - from).min(8 << 20) as usize];
        let mut filled = 0;
        while let Ok(n @ 1..) = file.read_at(&mut page[filled..], from + filled as u64) {
            filled += n;
        }
        page.truncate(filled);
        pages.push(page);
    }
    pages
}
