//! TLS on streams that are in use, and TLS to servers: with clients and servers that others wrote,
//! across swaps and `kill -9` in the middle of a handshake.

use greenroom_tests::client::Client;
use greenroom_tests::fixture::{Fixture, effects_builds};
use greenroom_tests::host::Host;
use greenroom_tests::program::Program;
use greenroom_tests::tls::{Certificate, TlsClient};
use greenroom_tests::{built, child, wait_for};
use rustls::ClientConnection;
use rustls::version::TLS13;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// The service of every test here.
const SERVICE: &str = "secured";

/// Builds of `fixtures/effects.rs`: the first one, and one whose answers begin with `new`.
fn builds() -> &'static [PathBuf; 2] {
    static BUILDS: OnceLock<(Fixture, [PathBuf; 2])> = OnceLock::new();
    let (_, builds) = BUILDS.get_or_init(|| effects_builds(SERVICE));
    builds
}

/// Host whose service has a certificate, and trusts the same one of servers.
struct Served {
    host: Host,
    certificate: Certificate,
    dir: tempfile::TempDir,
}

/// Serves the first build, with more lines in its table of the configuration.
fn serve(more: &str, listen: &[&str]) -> Served {
    let dir = tempfile::tempdir().expect("a directory");
    let certificate = Certificate::make(dir.path(), "localhost");
    let Certificate { certificate: pair, key } = &certificate;
    let tls = format!("tls = {{certificate = {pair:?}, key = {key:?}, roots = {pair:?}}}");
    std::fs::write(dir.path().join("greenroom.toml"), format!("[service.{SERVICE}]\n{tls}\n{more}"))
        .expect("a configuration");
    let host = Host::serve_with(&[SERVICE], &[&builds()[0]], |host| {
        host.arg("-c").arg(dir.path().join("greenroom.toml"));
        listen.iter().for_each(|at| _ = host.args(["--listen", at]));
    });
    Served { host, certificate, dir }
}

impl Served {
    fn connect(&self) -> Client {
        Client::connect(self.host.addr(SERVICE))
    }

    /// Puts the other build in service.
    fn swap(&self, to: usize) {
        let (code, report) = self.host.reload_from(SERVICE, &builds()[to]);
        assert_eq!(code, Some(0), "{report}");
    }

    /// The first session of the list; null: there is none.
    fn first_session(&self) -> serde_json::Value {
        self.host.json(&["sessions", "--json"])[0].clone()
    }

    /// Number of sessions.
    fn sessions(&self) -> usize {
        self.host.json(&["sessions", "--json"]).as_array().expect("sessions").len()
    }
}

/// Reads a line byte by byte: nothing behind it is taken.
fn plain_line(stream: &mut TcpStream) -> String {
    let mut line = Vec::new();
    while line.last() != Some(&b'\n') {
        let mut byte = [0];
        stream.read_exact(&mut byte).expect("a line");
        line.push(byte[0]);
    }
    String::from_utf8(line).expect("text").trim_end().to_owned()
}

/// Asks for TLS, and returns the stream behind the answer.
fn begin(served: &Served) -> TcpStream {
    let mut stream = TcpStream::connect(served.host.addr(SERVICE)).expect("a connection");
    stream.set_read_timeout(Some(Duration::from_secs(60))).expect("a time");
    stream.write_all(b"join all\nSTARTTLS\n").expect("sent");
    assert!(plain_line(&mut stream).starts_with("ok "));
    assert_eq!(plain_line(&mut stream), ":host 670 * :go on");
    stream
}

#[test]
fn a_client_of_another_program_starts_tls_and_nobody_slips_a_command_in() {
    let served = serve("", &[]);
    let mut openssl = Command::new("openssl");
    openssl.args(["s_client", "-starttls", "irc", "-connect", &served.host.addr(SERVICE).to_string()]);
    openssl.args(["-verify_return_error", "-servername", "localhost", "-quiet", "-no_ign_eof"]);
    let mut client = Program::start(openssl.arg("-CAfile").arg(&served.certificate.certificate));
    client.say("count\n");
    // The request, TLS, and the command: three actions behind the first.
    let said = client.lines_to("4");
    assert!(said.ends_with(&["tls 1.3".to_owned(), "4".to_owned()]), "{said:?}");
    assert_eq!(client.end(), Some(0));

    // Whatever stands behind the request is no command, but a handshake, and a bad one.
    let mut client = served.connect();
    client.send("STARTTLS\ncount\n");
    assert_eq!(client.line().as_deref(), Some(":host 670 * :go on"));
    while let Some(line) = client.line() {
        assert!(!line.bytes().all(|b| b.is_ascii_digit()), "{line}");
    }
    served.host.wait_log("its handshake of TLS has failed");
    wait_for("the session to end", || (served.sessions() == 0).then_some(()));

    // The beginning of a handshake may have come with the request.
    let mut tls = client_of(&served);
    let mut first = b"STARTTLS\n".to_vec();
    tls.write_tls(&mut first).expect("room");
    let mut stream = TcpStream::connect(served.host.addr(SERVICE)).expect("a connection");
    stream.write_all(&first).expect("sent");
    assert_eq!(plain_line(&mut stream), ":host 670 * :go on");
    while tls.is_handshaking() || tls.wants_write() {
        tls.complete_io(&mut stream).expect("a handshake");
    }
    let mut line = String::new();
    BufReader::new(rustls::Stream::new(&mut tls, &mut stream)).read_line(&mut line).expect("a line");
    assert_eq!(line, "tls 1.3\n");
}

#[test]
fn kills_and_swaps_in_a_handshake_lose_nothing_and_tell_nothing() {
    let served = serve("", &[]);
    let mut other = served.connect();
    let mut stream = begin(&served);
    // Said to all while the handshake is due: it goes out over TLS, once.
    assert!(other.ask("shout all one").starts_with("ok "));
    served.host.kill_worker();
    assert!(other.ask("shout all two").starts_with("ok "));
    let mut tls = client_of(&served);
    let mut hello = Vec::new();
    tls.write_tls(&mut hello).expect("room");
    let (half, rest) = hello.split_at(hello.len() / 2);
    stream.write_all(half).expect("sent");
    served.host.kill_worker();
    served.swap(1);
    stream.write_all(rest).expect("sent");
    // The server's part is read, and its answer waits for another death.
    while tls.is_handshaking() {
        tls.read_tls(&mut stream).expect("a record");
        tls.process_new_packets().expect("a record of the handshake");
    }
    served.host.kill_worker();
    assert!(other.ask("shout all three").starts_with("new ok "));
    let mut client = TlsClient::from(tls, stream);
    client.send(b"").expect("the end of the handshake");
    let heard: Vec<_> = (0..4).map(|_| client.line().expect("a record").expect("a line")).collect();
    assert_eq!(heard, ["one", "two", "three", "new tls 1.3"]);
    served.host.kill_worker();
    served.swap(0);
    // The opening, a topic, the request, TLS, and this: the state is the same session's.
    assert_eq!(client.ask("count"), "5");
    let binary = built("greenroom");
    let out = served.host.cli(&["upgrade", "--binary", binary.to_str().expect("UTF-8")]);
    assert!(out.status.success(), "{out:?}");
    assert_eq!(client.ask("count"), "6");

    // The death of the handshaker costs the handshake, and the session says nothing more.
    let handshaker = child(served.host.pid(), "greenroom-tls").expect("a handshaker");
    let descriptors = || std::fs::read_dir(format!("/proc/{handshaker}/fd")).map_or(0, Iterator::count);
    let before = descriptors();
    let mut stream = begin(&served);
    wait_for("the handshaker to have it", || (descriptors() > before).then_some(()));
    assert!(Command::new("kill").args(["-9", &handshaker.to_string()]).status().expect("kill").success());
    let mut rest = Vec::new();
    let _ = stream.read_to_end(&mut rest);
    assert_eq!(rest, b"");
    served.host.wait_log("its handshake of TLS has failed: the handshaker has ended");
    assert_eq!(client.ask("count"), "7");
    let mut again = TlsClient::over(begin(&served), config(&served), "localhost").expect("a handshake");
    assert_eq!(again.line().expect("a record").as_deref(), Some("tls 1.3"));
}

/// Sets how many files a worker may have open, and returns the limit before.
fn limit_files(worker: i32, most: u64) -> u64 {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the limits are written, and nothing is read.
    let read = unsafe { libc::prlimit(worker, libc::RLIMIT_NOFILE, std::ptr::null(), &mut limit) };
    let before = std::mem::replace(&mut limit.rlim_cur, most);
    // SAFETY: the limits are read, and nothing is written.
    let set = unsafe { libc::prlimit(worker, libc::RLIMIT_NOFILE, &limit, std::ptr::null_mut()) };
    assert_eq!((read, set), (0, 0));
    before
}

/// Another handshaker comes while the worker has no descriptor to spare for its socket.
#[test]
fn a_worker_without_descriptors_gets_the_handshakers_socket_later() {
    let served = serve("", &[]);
    let mut other = served.connect();
    assert_eq!(other.ask("count"), "2");
    let mut stream = TcpStream::connect(served.host.addr(SERVICE)).expect("a connection");
    stream.set_read_timeout(Some(Duration::from_secs(60))).expect("a time");
    stream
        .write_all(
            b"count
",
        )
        .expect("sent");
    assert_eq!(plain_line(&mut stream), "2");
    let handshaker = || child(served.host.pid(), "greenroom-tls");
    let (first, worker) = (handshaker().expect("a handshaker"), served.host.worker_pid());
    let before = limit_files(worker, 0);
    assert!(Command::new("kill").args(["-9", &first.to_string()]).status().expect("kill").success());
    wait_for("another handshaker", || handshaker().filter(|pid| *pid != first));
    stream
        .write_all(
            b"STARTTLS
",
        )
        .expect("sent");
    assert_eq!(plain_line(&mut stream), ":host 670 * :go on");
    let mut tls = client_of(&served);
    while tls.is_handshaking() || tls.wants_write() {
        tls.complete_io(&mut stream).expect("a handshake");
    }
    // The socket was given before the handshake began. A pass behind it has met the limit.
    assert_eq!(other.ask("count"), "3");
    assert_eq!(limit_files(worker, before), 0);
    let mut client = TlsClient::from(tls, stream);
    assert_eq!(client.line().expect("a record").as_deref(), Some("tls 1.3"));
    assert_eq!(client.ask("count"), "5");
}

/// Server of another program: `openssl s_server`, which says what is written to it.
struct Server {
    process: Child,
    port: u16,
    says: ChildStdin,
    hears: BufReader<ChildStdout>,
}

impl Server {
    /// Starts one with this certificate.
    fn start(certificate: &Certificate, more: &[&str]) -> Server {
        let mut process = Command::new("openssl")
            .args(["s_server", "-accept", "0", "-quiet", "-cert"])
            .arg(&certificate.certificate)
            .arg("-key")
            .arg(&certificate.key)
            .args(more)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("openssl");
        let pid = process.id();
        let port = wait_for("the server's port", || listens(pid));
        let (says, hears) = (process.stdin.take().expect("a pipe"), process.stdout.take().expect("a pipe"));
        Server { process, port, says, hears: BufReader::new(hears) }
    }

    /// Says a line, and returns the answer.
    fn ask(&mut self, line: &str) -> String {
        self.says.write_all(format!("{line}\n").as_bytes()).expect("sent");
        let mut answer = String::new();
        self.hears.read_line(&mut answer).expect("an answer");
        answer.trim_end().to_owned()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Port that a process listens on.
fn listens(pid: u32) -> Option<u16> {
    let mut all = String::new();
    for table in ["tcp", "tcp6"] {
        all += &std::fs::read_to_string(format!("/proc/{pid}/net/{table}")).ok()?;
    }
    let sockets: Vec<_> = std::fs::read_dir(format!("/proc/{pid}/fd"))
        .ok()?
        .filter_map(|e| Some(std::fs::read_link(e.ok()?.path()).ok()?.to_string_lossy().into_owned()))
        .collect();
    let fields = all.lines().map(|l| l.split_whitespace().collect::<Vec<_>>());
    let of_it =
        |f: &Vec<&str>| f.len() > 9 && f[3] == "0A" && sockets.contains(&format!("socket:[{}]", f[9]));
    let listener = fields.into_iter().find(of_it)?;
    u16::from_str_radix(listener[1].rsplit_once(':')?.1, 16).ok()
}

#[test]
fn servers_are_connected_to_over_tls_and_judged_by_their_certificates() {
    let served = serve("", &[]);
    for version in ["-tls1_3", "-tls1_2"] {
        let mut server = Server::start(&served.certificate, &[version]);
        let mut client = served.connect();
        assert!(client.ask(&format!("secure 127.0.0.1:{} localhost", server.port)).contains("ok "));
        // The server says it, and the host's session answers.
        assert_eq!(server.ask("count"), "3", "{version}");
        served.host.kill_worker();
        assert_eq!(server.ask("count"), "4", "{version}");
        served.swap(if version == "-tls1_3" { 1 } else { 0 });
        assert_eq!(server.ask("count"), "5", "{version}");
        // A certificate of another name.
        let elsewhere = Server::start(&served.certificate, &[version]);
        client.send(format!("secure 127.0.0.1:{} elsewhere.example\n", elsewhere.port));
        let told = wait_for("the outcome", || client.line().filter(|line| line.contains("connect failed")));
        assert!(told.contains("TLS: invalid peer certificate"), "{told}");
        assert_eq!(server.ask("count"), "6", "{version}");
    }
    // A certificate that nobody has signed whom the service trusts.
    let stranger = Certificate::make(served.dir.path(), "stranger");
    let server = Server::start(&stranger, &[]);
    let mut client = served.connect();
    client.send(format!("secure 127.0.0.1:{} stranger\n", server.port));
    let told = wait_for("the outcome", || client.line().filter(|line| line.contains("connect failed")));
    assert!(told.contains("TLS: invalid peer certificate"), "{told}");
    // A server that takes the connection and says nothing, while the worker dies.
    let silent = TcpListener::bind("127.0.0.1:0").expect("a port");
    client.send(format!("secure {} localhost\n", silent.local_addr().expect("an address")));
    let (stream, _) = silent.accept().expect("a connection");
    let dump = served.host.json(&["state", "dump"]);
    let mut connects = dump["sessions"].as_array().into_iter().flatten().map(|s| &s["connects"]);
    assert!(connects.any(|c| c[0]["over_tls"] == "localhost"), "{dump}");
    served.host.kill_worker();
    assert!(client.ask("count").starts_with("ok "), "the answer to the request");
    drop(stream);
    let told = wait_for("the outcome", || client.line().filter(|line| line.contains("connect failed")));
    assert!(told.contains("TLS: "), "{told}");
}

/// A stream that the host has connected, and that becomes one of TLS by the server's word.
#[test]
fn the_host_starts_tls_as_a_client() {
    let served = serve("", &[]);
    let port = TcpListener::bind("127.0.0.1:0").expect("a port");
    let mut client = served.connect();
    client.send(format!("dial 1 {}\n", port.local_addr().expect("an address")));
    let (mut stream, _) = port.accept().expect("a connection");
    stream.write_all(b":host 670 * :go on\n").expect("sent");
    served.host.kill_worker();
    let server = rustls_server(&served.certificate);
    let mut tls = rustls::ServerConnection::new(server).expect("a server");
    while tls.is_handshaking() || tls.wants_write() {
        tls.complete_io(&mut stream).expect("a handshake");
    }
    served.host.kill_worker();
    let mut lines = BufReader::new(rustls::Stream::new(&mut tls, &mut stream));
    let mut line = String::new();
    lines.read_line(&mut line).expect("a line");
    assert_eq!(line, "tls 1.3\n");
}

/// A handshake that ends while the worker stands still, and then dies: the connection is a session
/// of its successor, and whoever asked for it is told.
#[test]
fn an_outbound_handshake_that_meets_a_takeover_is_a_session() {
    let served = serve("", &[]);
    let port = TcpListener::bind("127.0.0.1:0").expect("a port");
    let mut client = served.connect();
    let asked = client.ask(&format!("secure {} localhost", port.local_addr().expect("an address")));
    assert!(asked.starts_with("ok "), "{asked}");
    let (mut stream, _) = port.accept().expect("a connection");
    stream.set_read_timeout(Some(Duration::from_secs(60))).expect("a time");
    let worker = served.host.worker_pid().to_string();
    assert!(Command::new("kill").args(["-STOP", &worker]).status().expect("kill").success());
    let mut tls = rustls::ServerConnection::new(rustls_server(&served.certificate)).expect("a server");
    while tls.is_handshaking() || tls.wants_write() {
        tls.complete_io(&mut stream).expect("a handshake");
    }
    served.host.kill_worker();
    let mut stream = rustls::Stream::new(&mut tls, &mut stream);
    stream.write_all(b"count\n").expect("sent");
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).expect("a line");
    // The opening, what it was connected for, and this.
    assert_eq!(line, "3\n");
    assert_eq!(served.host.json(&["state", "dump"])["sessions"][0]["connects"], serde_json::json!([]));
}

fn rustls_server(certificate: &Certificate) -> Arc<rustls::ServerConfig> {
    use rustls::pki_types::pem::PemObject;
    use rustls::pki_types::{CertificateDer, PrivateKeyDer};
    let chain = vec![CertificateDer::from_pem_file(&certificate.certificate).expect("a certificate")];
    let key = PrivateKeyDer::from_pem_file(&certificate.key).expect("a key");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ServerConfig::builder_with_provider(provider);
    let builder = builder.with_safe_default_protocol_versions().expect("versions").with_no_client_auth();
    Arc::new(builder.with_single_cert(chain, key).expect("a pair"))
}

/// A header of a proxy before TLS, cut and killed anywhere.
#[test]
fn a_proxy_header_stands_before_tls() {
    let listen = format!("{SERVICE}=proxy+tls://127.0.0.1:0");
    let served = serve("proxy_from = [\"127.0.0.1\"]\n", &[&listen]);
    let header = b"PROXY TCP4 192.0.2.7 127.0.0.1 55555 443\r\n";
    for cut in [0, 9, header.len()] {
        let mut tls = client_of(&served);
        let mut all = header.to_vec();
        tls.write_tls(&mut all).expect("room");
        let mut stream = TcpStream::connect(served.host.addr("secured proxy+tls")).expect("a connection");
        stream.write_all(&all[..cut]).expect("sent");
        if cut > 0 {
            let due = if cut == header.len() { "handshake" } else { "header" };
            wait_for("the session", || (served.first_session()["waits_for"] == due).then_some(()));
            let listed = served.host.cli(&["sessions"]);
            let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
            assert!(listed.contains("tls+line") && listed.contains(due), "{listed}");
            served.host.kill_worker();
        }
        stream.write_all(&all[cut..]).expect("sent");
        while tls.is_handshaking() || tls.wants_write() {
            tls.complete_io(&mut stream).expect("a handshake");
        }
        let mut client = TlsClient::from(tls, stream);
        assert_eq!(client.ask("count"), "2", "cut at {cut}");
        served.host.kill_worker();
        assert_eq!(client.ask("count"), "3", "cut at {cut}");
        let session = &served.first_session();
        assert_eq!((&session["over_tls"], &session["waits_for"]), (&true.into(), &serde_json::Value::Null));
        assert_eq!(session["peer"], "192.0.2.7:55555 via 127.0.0.1:PORT".replace("PORT", &port_of(session)));
        assert_eq!(session["tls"]["tls-version"], "1.3");
        drop(client);
        wait_for("the session to end", || (served.sessions() == 0).then_some(()));
    }
}

/// Port of the proxy's end, as a session names it.
fn port_of(session: &serde_json::Value) -> String {
    session["peer"].as_str().and_then(|peer| peer.rsplit(':').next()).unwrap_or_default().to_owned()
}

fn config(served: &Served) -> rustls::ClientConfig {
    greenroom_tests::tls::config(&served.certificate, &TLS13)
}

fn client_of(served: &Served) -> ClientConnection {
    ClientConnection::new(Arc::new(config(served)), "localhost".try_into().expect("a name"))
        .expect("a client")
}
