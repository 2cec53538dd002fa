//! WebSocket of a real host: sessions across swaps and `kill -9` in the middle of frames and
//! messages, the ends of sessions, requests, pages, pings.

use greenroom_tests::fixture::Fixture;
use greenroom_tests::host::Host;
use greenroom_tests::tls::Certificate;
use greenroom_tests::{root, wait_for};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

const MASK: [u8; 4] = [0xa1, 7, 0x5c, 0xff];

/// Two builds of the fixture, which answer with `a` and `b`. They are built once for all tests.
fn builds() -> &'static [PathBuf; 2] {
    static BUILDS: OnceLock<[PathBuf; 2]> = OnceLock::new();
    BUILDS.get_or_init(|| {
        let source = std::fs::read_to_string(root().join("tests/fixtures/framed.rs")).expect("the fixture");
        let fixture = Fixture::new("socketed", "");
        ["a", "b"].map(|prefix| {
            fixture.write(&source.replace("SERVICE-", "socketed-").replace("PREFIX", prefix));
            fixture.build_as(&format!("socketed{prefix}.so"))
        })
    })
}

/// Service of packets in it.
const PACKETS: &str = "socketed-prefixed";
/// Service of WebSocket in it.
const SERVICE: &str = "socketed-socket";

/// Serves the first build under this configuration.
fn serve(config: &str) -> Host {
    serve_on(config, &["127.0.0.1:0".into()])
}

/// The same, with packets on these endpoints.
fn serve_on(config: &str, packets: &[String]) -> Host {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("greenroom.toml");
    std::fs::write(&file, config).expect("a configuration");
    let services = [SERVICE, "socketed-telnet", "socketed-own"];
    Host::serve_with(&services, &[&builds()[0]], |host| {
        host.arg("-c").arg(&file);
        packets.iter().for_each(|endpoint| _ = host.args(["--listen", &format!("{PACKETS}={endpoint}")]));
    })
}

/// Replaces the build by the other one.
#[track_caller]
fn swap(host: &Host, to: usize) {
    let (code, report) = host.reload_from("socketed", &builds()[to]);
    assert_eq!(code, Some(0), "{report}");
}

/// Frame of a client. `first` is its first byte.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut out = vec![first];
    match payload.len() {
        len @ ..126 => out.push(0x80 | len as u8),
        len => {
            out.push(0x80 | 127);
            out.extend((len as u64).to_be_bytes());
        }
    }
    out.extend(MASK);
    out.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    out
}

fn text(text: &str) -> Vec<u8> {
    frame(0x81, text.as_bytes())
}

/// Peer whose bytes are compared as they are.
struct Peer {
    stream: TcpStream,
}

impl Peer {
    fn connect(host: &Host) -> Peer {
        let stream = TcpStream::connect(host.addr(SERVICE)).expect("a connection");
        // A failure is no hang.
        stream.set_read_timeout(Some(Duration::from_secs(60))).expect("a timeout");
        stream.set_nodelay(true).expect("no delay");
        Peer { stream }
    }

    /// Connects, and opens a session.
    fn open(host: &Host) -> Peer {
        let mut peer = Peer::connect(host);
        peer.send(&request("/", ""));
        assert!(peer.head().starts_with("HTTP/1.1 101 "));
        peer
    }

    fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).expect("the host takes bytes");
    }

    /// Reads the head of a response.
    fn head(&mut self) -> String {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            self.stream.read_exact(&mut byte).expect("a head");
            head.extend(byte);
        }
        String::from_utf8(head).expect("a head is text")
    }

    /// Reads a frame of a server: its first byte, and its payload.
    fn frame(&mut self) -> String {
        let mut head = [0; 2];
        self.stream.read_exact(&mut head).expect("a frame");
        assert!(head[1] < 126, "short and unmasked");
        let mut got = vec![0; head[1].into()];
        self.stream.read_exact(&mut got).expect("its payload");
        format!("{:02x} {}", head[0], got.escape_ascii())
    }

    #[track_caller]
    fn expect(&mut self, frame: &str) {
        assert_eq!(self.frame(), frame);
    }

    /// Expects the close of a server, and the end of the stream behind it.
    #[track_caller]
    fn closed(mut self, payload: &str) {
        self.expect(&format!("88 {payload}"));
        let mut rest = Vec::new();
        self.stream.read_to_end(&mut rest).expect("the end");
        assert_eq!(rest, b"");
    }

    /// Everything that comes until the end of the stream.
    fn rest(mut self) -> String {
        let mut rest = Vec::new();
        self.stream.read_to_end(&mut rest).expect("the end");
        String::from_utf8_lossy(&rest).into_owned()
    }
}

fn request(target: &str, headers: &str) -> Vec<u8> {
    format!(
        "GET {target} HTTP/1.1\r\nHost: here\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{headers}\r\n"
    )
    .into_bytes()
}

/// Waits until the host has read so many bytes of all sessions.
fn wait_read(host: &Host, total: usize) {
    let read = || {
        let sessions = host.json(&["sessions", "--json"]);
        let all = sessions.as_array().expect("sessions").iter();
        all.map(|s| s["bytes_in"].as_u64().expect("a number")).sum::<u64>()
    };
    wait_for("the bytes to be read", || (read() == total as u64).then_some(()));
}

/// A request, frames, pings between fragments, and characters between frames. The build is swapped
/// or the worker killed at each of their joints, and inside each.
#[test]
fn sessions_survive_swaps_and_kills_in_the_middle_of_frames() {
    let host = serve("");
    let euro = "1\u{20ac}".as_bytes();
    let stream = [
        request(
            "/facts?q=1",
            "Cookie: a=b\r\nSec-WebSocket-Protocol: other, chat.v2\r\nX-Forwarded-For: 9.9.9.9\r\n",
        ),
        text("hi"),
        frame(0x01, &euro[..2]),
        frame(0x89, b"ping"),
        frame(0x80, &euro[2..]),
        text("end"),
    ];
    let ends = stream.iter().scan(0, |at, part| {
        *at += part.len();
        Some(*at)
    });
    let cuts: Vec<usize> = ends.flat_map(|end| [end - 2, end]).collect();
    let whole = stream.concat();
    let mut peer = Peer::connect(&host);
    let (mut at, mut builds) = (0, [1, 0].into_iter().cycle());
    for (n, cut) in cuts.into_iter().enumerate() {
        peer.send(&whole[at..cut]);
        at = cut;
        wait_read(&host, at);
        match n % 3 {
            0 => swap(&host, builds.next().expect("a build")),
            _ => host.kill_worker(),
        }
    }
    let head = peer.head();
    assert!(head.starts_with("HTTP/1.1 101 Switching Protocols\r\n"), "{head}");
    assert!(head.contains("\r\nSec-WebSocket-Protocol: chat.v2\r\n"), "{head}");
    peer.expect("81 /facts q=1 chat.v2 here - - a=b 9.9.9.9");
    let mut answer = || peer.frame().replace("a", "").replace("b", "");
    assert_eq!([answer(), answer()], ["81 1 hi", "8 ping"]);
    assert_eq!([answer(), answer()], ["81 2 1\\xe2\\x82\\xc", "81 3 end"]);
    peer.send(&text("bytes \u{ff}"));
    peer.expect("82 \\xc3\\xbf");
    peer.send(&frame(0x88, b"\x03\xe8"));
    peer.closed("\\x03\\xe8");
}

/// Each end has its code and its reason, for the peer and for the handler.
#[test]
fn both_sides_learn_why_a_session_ends() {
    let host = serve("");
    let mut other = Peer::open(&host);
    let mut ends = |bytes: &[u8], told: &str, left: &str| {
        let mut peer = Peer::open(&host);
        peer.send(bytes);
        peer.closed(told);
        other.expect(&format!("81 left: {left}"));
    };
    ends(&text("close 4001 bye"), "\\x0f\\xa1bye", "Handler  ");
    ends(&frame(0x88, b"\x0f\xa0done"), "\\x0f\\xa0", "Peer 4000 done");
    ends(&frame(0x88, b""), "", "Peer 1005 ");
    ends(b"\x81\x02hi", "\\x03\\xeaa frame is not masked", "Limit  ");
    ends(&frame(0x01, b"ok\xff"), "\\x03\\xefa text message is not UTF-8", "Limit  ");
    // The rest is not waited for.
    ends(
        &frame(0x81, &[&b"\xff"[..], &[b'x'; 200]].concat())[..16],
        "\\x03\\xefa text message is not UTF-8",
        "Limit  ",
    );
    ends(&frame(0x82, &[0; 100_001])[..14], "\\x03\\xf1the message is too long", "Limit  ");
    // A code that is not a handler's fails the turn, and the session goes on.
    let mut peer = Peer::open(&host);
    peer.send(&[text("close 1001"), text("on")].concat());
    peer.expect("81 a1 on");
    // A peer that ends its stream without a word.
    drop(peer);
    other.expect("81 left: Peer  ");
    // The host's own end.
    host.signal(libc::SIGTERM);
    other.closed("\\x03\\xe9");
}

/// Requests that open no session, each with its status. Pages come from the handler, through curl.
#[test]
fn requests_are_answered_by_their_status() {
    let host = serve(&format!("[service.{SERVICE}]\norigins = [\"https://a.example\"]\n"));
    let answer = |request: &[u8]| {
        let mut peer = Peer::connect(&host);
        peer.send(request);
        peer.rest()
    };
    let status = |request: &[u8]| answer(request).split(' ').nth(1).unwrap_or_default().to_owned();
    let changed = |from: &str, to: &str| {
        let text = String::from_utf8(request("/", "")).expect("text");
        text.replacen(from, to, 1).into_bytes()
    };
    assert_eq!(status(b"hello\r\n\r\n"), "400");
    assert_eq!(status(b"\x16\x03\x01"), "400");
    assert_eq!(status(&changed("dGhl", "dG")), "400");
    assert_eq!(status(&changed("GET", "PUT")), "405");
    assert_eq!(status(&changed("Host: here", "Host: here\r\nContent-Length: 1")), "413");
    assert_eq!(status(&changed("Host: here", &format!("Host: here\r\nA: {}", "x".repeat(9000)))), "431");
    let old = answer(&changed("Version: 13", "Version: 8"));
    assert!(old.starts_with("HTTP/1.1 426 ") && old.contains("\r\nSec-WebSocket-Version: 13\r\n"), "{old}");
    for foreign in ["http://here", "https://b.example", "null"] {
        assert_eq!(status(&request("/", &format!("Origin: {foreign}\r\n"))), "403", "{foreign}");
    }
    let mut peer = Peer::connect(&host);
    peer.send(&request("/", "Origin: https://a.example\r\n"));
    assert!(peer.head().starts_with("HTTP/1.1 101 "));

    let curl = |args: &[&str], path: &str| {
        let url = format!("http://{}{path}", host.addr(SERVICE));
        let mut curl = Command::new("curl");
        curl.args(["-sS", "-w", "%{http_code} %{content_type}"]).args(args).arg(url);
        let out = curl.output().expect("curl");
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        String::from_utf8(out.stdout).expect("text")
    };
    assert_eq!(curl(&[], "/?x=y"), "<p>a page\n200 text/html; charset=utf-8");
    let head = curl(&["-I"], "/");
    assert!(
        head.contains("\r\nContent-Length: 10\r\n") && head.ends_with("\r\n\r\n200 text/html; charset=utf-8"),
        "{head}"
    );
    assert!(curl(&[], "/other").starts_with("404 Not Found: "));
    assert!(curl(&["-d", "x"], "/").starts_with("405 "));
    assert!(curl(&[], "/panic").starts_with("500 "));
    swap(&host, 1);
    assert_eq!(curl(&[], "/"), "<p>b page\n200 text/html; charset=utf-8");
    // None of them was a session of the handler's: nobody left the room.
    peer.send(&text("on"));
    peer.expect("81 b1 on");
}

/// A silent peer is pinged, and closed if it stays silent; one that answers goes on.
#[test]
fn a_peer_that_does_not_answer_a_ping_is_closed() {
    let host = serve(&format!("[service.{SERVICE}.limits]\nping_ms = 1000\n"));
    let (mut silent, mut lively) = (Peer::open(&host), Peer::open(&host));
    silent.expect("89 ");
    let mut pings = 0;
    loop {
        match &*lively.frame() {
            "89 " => pings += 1,
            other => {
                assert_eq!((other, pings > 0), ("81 left: Limit  ", true));
                break;
            }
        }
        lively.send(&frame(0x8a, b""));
    }
    silent.closed("\\x03\\xf0");
    host.wait_log("closed: its peer did not answer a ping for 1000 ms (limit ping_ms)");
    // A successor pings as well.
    host.kill_worker();
    lively.expect("89 ");
}

/// Clients that others wrote, in Python and in JavaScript: subprotocol, fragments, pings, a long
/// message and the close, before and behind a swap and a kill.
#[test]
fn clients_that_others_wrote_are_served() {
    let host = serve("");
    let mut node = Command::new("node");
    // The package `ws`, as `scripts/test` installs it.
    node.env("NODE_PATH", root().join("target/npm/node_modules"));
    client_is_served(&host, Command::new("python3"), "websocket.py", "Python/", 1);
    client_is_served(&host, node, "websocket.js", "node-ws", 0);
}

/// Packets to a service on TCP, over TLS, and on both in streams of WebSocket, by clients in
/// Python. Each begins in one frame and ends in the next. All sessions share a room, before and
/// behind a swap, a kill and an upgrade.
#[test]
fn one_service_speaks_to_streams_with_and_without_websocket() {
    let dir = tempfile::tempdir().expect("a directory");
    let certificate = Certificate::make(dir.path(), "localhost");
    let kinds = ["prefix", "tls+prefix", "ws+prefix", "wss+prefix"];
    let listen: Vec<_> = kinds.iter().map(|kind| format!("{kind}://127.0.0.1:0")).collect();
    let config = format!("[service.{PACKETS}]\ntls = {}\n", certificate.toml());
    let host = serve_on(&config, &listen);
    let addr = |kind: &str| host.addr(&format!("{PACKETS} {kind}")).port().to_string();
    let mut client = Command::new("python3");
    client.arg(root().join("tests/clients/carried.py")).arg(&certificate.certificate);
    client.args(["prefix", "tls+prefix", "ws+prefix", "tls+ws+prefix"].map(addr));
    let mut client = client.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("python3");
    let mut to = client.stdin.take().expect("its input");
    let mut lines = BufReader::new(client.stdout.take().expect("its output")).lines();
    let mut line = || lines.next().expect("a line").expect("a line");
    assert_eq!(line(), "packets packets");
    let mut round = |prefix: &str, n: u32| {
        writeln!(to, "{n}").expect("it reads");
        assert_eq!(line(), format!("{prefix}{n} {prefix}{n} {prefix}{n} {prefix}{n}"));
    };
    round("a", 2);
    swap(&host, 1);
    round("b", 3);
    host.kill_worker();
    round("b", 4);
    let sessions = host.json(&["sessions", "--json"]);
    let shown = sessions.as_array().expect("sessions").iter().map(|s| s["endpoint"].as_str());
    let mut shown: Vec<_> = shown.map(|kind| kind.expect("a kind").to_owned()).collect();
    shown.sort();
    assert_eq!(shown, ["prefix", "prefix", "ws+prefix", "ws+prefix"]);
    let out = host.cli(&["upgrade"]);
    assert!(out.status.success(), "{out:?}");
    round("b", 5);
    // The client closes by the words of each road, and waits for the host's.
    drop(to);
    assert_eq!(line(), "1000 1000");
    assert!(client.wait().expect("it ends").success());
}

/// Serves one client. The build `to` takes over meanwhile.
fn client_is_served(host: &Host, mut client: Command, script: &str, agent: &str, to: usize) {
    let (before, behind, next) = (["b", "a"][to], ["a", "b"][to], to);
    client.arg(root().join("tests/clients").join(script)).arg(format!("ws://{}/facts", host.addr(SERVICE)));
    let mut client = client.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect(script);
    let mut to = client.stdin.take().expect("its input");
    let mut lines = BufReader::new(client.stdout.take().expect("its output")).lines();
    let mut line = || lines.next().expect("a line").expect("a line");
    assert_eq!(line(), "chat.v1");
    let facts = line();
    assert!(facts.starts_with("/facts  chat.v1 127.0.0.1:") && facts.contains(agent), "{facts}");
    let mut round = |prefix: &str, count: u32| {
        writeln!(to, "round").expect("it reads");
        assert_eq!(line(), format!("{prefix}{count} h\u{e9}llo"));
        assert_eq!(line(), "pong");
        assert_eq!(line(), format!("{} bytes", 90_000 - "bytes ".len()));
        assert_eq!(line(), format!("{prefix}{} fragments", count + 2));
    };
    round(before, 1);
    swap(host, next);
    round(behind, 4);
    host.kill_worker();
    round(behind, 7);
    writeln!(to, "close").expect("it reads");
    assert_eq!(line(), "4002 enough");
    assert!(client.wait().expect("it ends").success());
}
