//! PROXY headers: the client behind a proxy is the peer, and a half header survives everything.

use greenroom_tests::client::Client;
use greenroom_tests::fixture::install;
use greenroom_tests::host::Host;
use greenroom_tests::{built, wait_for};
use serde_json::Value;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::Duration;

/// Header of version 1 for this client.
fn text(client: SocketAddr) -> Vec<u8> {
    format!("PROXY TCP4 {} 10.0.0.1 {} 80\r\n", client.ip(), client.port()).into_bytes()
}

/// Header of version 2: command, family, and what is behind.
fn binary(command: u8, family: u8, behind: &[u8]) -> Vec<u8> {
    let len = (behind.len() as u16).to_be_bytes();
    [&b"\r\n\r\n\0\r\nQUIT\n"[..], &[command, family], &len, behind].concat()
}

fn addr(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}

/// A host that serves tally in several kinds behind PROXY headers.
struct Served {
    host: Host,
    dir: tempfile::TempDir,
}

impl Served {
    /// Address of tally's endpoint of this kind.
    fn at(&self, kind: &str) -> SocketAddr {
        let listen = self.host.service("tally")["listen"].clone();
        let all = listen.as_array().expect("a list").iter().filter_map(Value::as_str);
        addr(all.filter_map(|l| l.strip_prefix(&format!("{kind}://"))).next().expect("such an endpoint"))
    }

    fn connect(&self, kind: &str) -> Client {
        Client::connect(self.at(kind))
    }

    /// Opens a session by a header, and asks for the first line.
    fn open(&self, header: &[u8]) -> Client {
        let mut client = self.connect("proxy+tcp");
        client.send(header);
        assert_eq!(client.ask("one"), "1 one");
        client
    }

    fn unix(&self) -> Client {
        let stream = UnixStream::connect(self.dir.path().join("s.sock")).expect("a connection");
        Client::from(TcpStream::from(OwnedFd::from(stream)))
    }

    /// Peers of all sessions, in the order of their openings.
    fn peers(&self) -> Vec<String> {
        let sessions = self.host.json(&["sessions", "--json"]);
        let peer = |s: &Value| s["peer"].as_str().expect("a peer").to_owned();
        sessions.as_array().expect("a list").iter().map(peer).collect()
    }

    /// Times that a limit was reached.
    fn reached(&self, limit: &str) -> u64 {
        let status = self.host.json(&["status", "--json"]);
        status["host"]["limits"][limit].as_u64().expect("a count")
    }
}

fn serve(listen: &[&str], more: &str) -> Served {
    let dir = tempfile::tempdir().expect("a directory");
    let (file, library) = (dir.path().join("greenroom.toml"), dir.path().join("libecho.so"));
    install(&built("libecho.so"), &library);
    let mut listen: Vec<_> = listen.iter().map(|l| (*l).to_owned()).collect();
    listen.push(format!("proxy+unix:{}", dir.path().join("s.sock").display()));
    let listen = serde_json::to_string(&listen).expect("JSON");
    let tally = format!("[service.tally]\nlisten = {listen}\nproxy_from = [\"127.0.0.1\", \"10.0.0.0/8\"]");
    std::fs::write(&file, format!("{tally}\n{more}\n[service.echo]\nlisten = [\"127.0.0.1:0\"]\n"))
        .expect("a file");
    let host = Host::serve_with(&[], &[&library], |c| {
        c.arg("--config").arg(&file);
    });
    Served { host, dir }
}

/// A half header is kept over a swap, an upgrade and a kill, in every framing. What the peer is
/// after it counts, and nothing is lost behind it.
#[test]
fn a_half_header_survives_and_its_client_is_the_peer() {
    let served = serve(
        &["127.0.0.1:0", "proxy+tcp://127.0.0.1:0", "proxy+telnet://127.0.0.1:0", "proxy+ws://127.0.0.1:0"],
        "limits = {proxy_header_ms = 0}",
    );
    let host = &served.host;
    let v4 = [203, 0, 113, 7, 10, 0, 0, 1, 0x0f, 0xa0, 0, 80];
    let with_tlvs = binary(0x21, 0x11, &[&v4[..], &[4, 0, 3, 1, 2, 3]].concat());
    let six = b"PROXY TCP6 2001:db8::9 ::1 7 80\r\n".to_vec();
    let headers = [text(addr("198.51.100.1:5")), with_tlvs, six, text(addr("198.51.100.2:6"))];
    let mut clients: Vec<_> = ["proxy+tcp", "proxy+tcp", "proxy+telnet", "proxy+ws"]
        .iter()
        .map(|kind| served.connect(kind))
        .collect();
    let mut none = served.connect("proxy+tcp");
    // In steps of a byte, then of a third, each across something else.
    for (client, header) in clients.iter_mut().zip(&headers) {
        header[..9].iter().for_each(|byte| client.send([*byte]));
    }
    wait_for("the first part", || (served.peers().len() == 5).then_some(()));
    let mut bytes = std::fs::read(built("libecho.so")).expect("a library");
    bytes.push(0);
    let newer = served.dir.path().join("newer.so");
    std::fs::write(&newer, bytes).expect("a file");
    let (code, report) = host.reload_from("tally", &newer);
    assert_eq!(code, Some(0), "{report}");
    clients.iter_mut().zip(&headers).for_each(|(client, header)| client.send(&header[9..13]));
    host.kill_worker();
    clients.iter_mut().zip(&headers).for_each(|(client, header)| client.send(&header[13..15]));
    let binary = built("greenroom").display().to_string();
    let out = host.cli(&["upgrade", "--binary", &binary]);
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let peers = served.peers();
    assert!(peers.iter().all(|peer| peer.starts_with("127.0.0.1:") && !peer.contains("via")), "{peers:?}");
    let upgrade = "GET / HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n";
    let behind = ["one\n", "one\n", "one\r\n", upgrade];
    for ((client, header), behind) in clients.iter_mut().zip(&headers).zip(behind) {
        client.send([&header[15..], behind.as_bytes()].concat());
    }
    for (client, says) in
        clients.iter_mut().zip(["1 one", "1 one", "1 one\r", "HTTP/1.1 101 Switching Protocols\r"])
    {
        assert_eq!(client.line().as_deref(), Some(says));
    }
    none.send(text(addr("198.51.100.3:9")));
    assert_eq!(none.ask("late"), "1 late");
    let expected =
        ["198.51.100.1:5", "203.0.113.7:4000", "[2001:db8::9]:7", "198.51.100.2:6", "198.51.100.3:9"];
    let check = |served: &Served| {
        for (peer, expected) in served.peers().iter().zip(expected) {
            assert!(peer.starts_with(&format!("{expected} via 127.0.0.1:")), "{peer} and {expected}");
        }
    };
    check(&served);
    host.kill_worker();
    check(&served);
    assert_eq!((clients[0].ask("two"), clients[1].ask("two")), ("2 two".into(), "2 two".into()));
    let dump = host.json(&["state", "dump"]);
    assert!(dump.to_string().contains("203.0.113.7:4000 via 127.0.0.1:"), "{dump}");

    // A Unix socket needs no list, and an endpoint without the word takes a header for a line.
    let mut here = served.unix();
    here.send(text(addr("198.51.100.4:1")));
    assert_eq!(here.ask("u"), "1 u");
    let peer = served.peers().pop().expect("a session");
    assert!(peer.starts_with("198.51.100.4:1 via unix:pid="), "{peer}");
    assert_eq!(served.connect("tcp").ask("PROXY UNKNOWN"), "1 PROXY UNKNOWN");
}

/// Connections without a header, from elsewhere, and beyond a limit are closed without a turn, and
/// counted.
#[test]
fn what_may_not_begin_a_session_is_closed_and_counted() {
    let more = "limits = {proxy_header_ms = 700}\n[limits]\nsessions_per_peer_max = 2\nlinger_ms = 1";
    let served = serve(&["proxy+tcp://127.0.0.1:0"], more);
    let turns = || served.host.service("tally")["turns"].as_u64().expect("a count");
    let closed = |bytes: &[u8]| {
        let mut client = served.connect("proxy+tcp");
        client.send(bytes);
        assert_eq!(client.line(), None, "{}", String::from_utf8_lossy(bytes));
    };
    let long = binary(0x21, 0x11, &[0; 5000]);
    for bytes in [&b"hello\n"[..], b"PROXY TCP4 a b c d\r\n", &[b'P'; 200], &long] {
        closed(bytes);
    }
    assert_eq!(served.reached("proxy_header"), 4);
    served.host.wait_log("closed: it begins with no PROXY header (limit proxy_header)");

    // Half a header, or none, is waited for, however it drips.
    let mut quiet = served.connect("proxy+tcp");
    closed(b"PROXY TCP4 1.2");
    assert_eq!(quiet.line(), None);
    assert_eq!(served.reached("proxy_header_ms"), 2);
    served.host.wait_log("closed: its PROXY header wasn't whole after 700 ms (limit proxy_header_ms)");

    // Another address than the list has.
    let port = served.at("proxy+tcp").port().to_string();
    let out = Command::new("nc").args(["-s", "127.0.0.2", "-N", "127.0.0.1", &port]).output().expect("nc");
    assert_eq!(out.stdout, b"");
    wait_for("the count", || (served.reached("proxy_from") == 1).then_some(()));
    assert_eq!((turns(), served.host.service("tally")["sessions"].as_u64()), (0, Some(0)));

    // Sessions are counted by the client, behind the header; a proxy's own checks by the proxy.
    let client = addr("203.0.113.7:1");
    let half: Vec<_> = (0..4).map(|_| served.connect("proxy+tcp")).collect();
    let (_a, b) = (
        served.open(&text(client)),
        served.open(&binary(0x21, 0x11, &[203, 0, 113, 7, 0, 0, 0, 0, 0, 2, 0, 80])),
    );
    closed(&text(client));
    assert_eq!(served.reached("sessions_per_peer_max"), 1);
    let (_c, _d) = (served.open(b"PROXY UNKNOWN\r\n"), served.open(&binary(0x20, 0x00, b"")));
    closed(b"PROXY UNKNOWN\r\n");
    let peers = served.peers();
    assert!(
        peers.iter().rev().take(2).all(|p| p.starts_with("127.0.0.1:") && !p.contains("via")),
        "{peers:?}"
    );
    drop((half, b));
    let mapped = b"PROXY TCP6 ::ffff:203.0.113.7 ::1 3 80\r\n";
    wait_for("a place", || {
        let mut client = served.connect("proxy+tcp");
        client.send([&mapped[..], b"anew\n"].concat());
        client.line()
    });

    // What the file may not say.
    let file = |listen: &str, from: &str| {
        let file = served.dir.path().join("bad.toml");
        let tally = format!("[service.tally]\nlisten = [\"{listen}\"]\nproxy_from = {from}\n");
        std::fs::write(&file, tally).expect("a file");
        let out = served
            .host
            .command(&["serve", "--check-config", "--config"])
            .arg(&file)
            .arg(built("libecho.so"))
            .output();
        String::from_utf8_lossy(&out.expect("greenroom").stderr).into_owned()
    };
    for (listen, from, says) in [
        (
            "proxy+tcp://127.0.0.1:1",
            "[]",
            "tally can't listen on proxy+tcp://127.0.0.1:1: it needs `proxy_from`",
        ),
        (
            "proxy+tcp://127.0.0.1:1",
            "[\"10.0.0.0/33\"]",
            "service.tally.proxy_from: \"10.0.0.0/33\" is no network",
        ),
        ("127.0.0.1:1", "[\"10.0.0.0/8\"]", "no endpoint takes PROXY headers"),
        ("proxy+gopher://127.0.0.1:1", "[\"10.0.0.0/8\"]", "it can be had as"),
    ] {
        let said = file(listen, from);
        assert!(said.contains(says), "{listen}: {said}");
    }
}

/// HAProxy that passes connections on, by version 1 and by version 2.
struct Haproxy {
    child: Child,
    ports: [u16; 2],
}

impl Haproxy {
    fn start(dir: &Path, to: SocketAddr) -> Haproxy {
        let held = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").expect("a port"));
        let ports = held.each_ref().map(|l| l.local_addr().expect("an address").port());
        let file: PathBuf = dir.join("haproxy.cfg");
        let mut text =
            "defaults\n mode tcp\n timeout connect 10s\n timeout client 60s\n timeout server 60s\n"
                .to_owned();
        for (port, how) in ports.iter().zip(["send-proxy", "send-proxy-v2 proxy-v2-options unique-id,crc32c"])
        {
            text += &format!(
                "listen l{port}\n bind 127.0.0.1:{port}\n unique-id-format %pid\n server s {to} {how}\n"
            );
        }
        std::fs::write(&file, text).expect("a file");
        drop(held);
        let child = Command::new("haproxy").arg("-db").arg("-f").arg(&file).spawn().expect("haproxy");
        Haproxy { child, ports }
    }
}

impl Drop for Haproxy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Proxies that nobody here wrote.
#[test]
fn haproxy_and_curl_are_understood() {
    let served = serve(&["proxy+tcp://127.0.0.1:0", "proxy+ws://127.0.0.1:0"], "");
    let proxy = Haproxy::start(served.dir.path(), served.at("proxy+tcp"));
    let mut clients = proxy.ports.map(|port| {
        // Until HAProxy listens, another process may hold the port, and end what comes there.
        let stream = wait_for("haproxy", || {
            let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
            stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
            stream.write_all(b"one\n").ok()?;
            let mut answer = [0; 6];
            stream.read_exact(&mut answer).ok()?;
            (answer == *b"1 one\n").then_some(stream)
        });
        let own = stream.local_addr().expect("an address");
        let client = Client::from(stream);
        assert!(served.peers().iter().any(|peer| peer.starts_with(&format!("{own} via 127.0.0.1:"))));
        client
    });
    served.host.kill_worker();
    assert!(clients.iter_mut().all(|client| client.ask("two") == "2 two"));

    let page = format!("http://{}/", served.at("proxy+ws"));
    let curl =
        |more: &[&str]| Command::new("curl").args(["-s", "-i"]).args(more).arg(&page).output().expect("curl");
    assert!(curl(&["--haproxy-protocol"]).stdout.starts_with(b"HTTP/1.1 404"));
    assert_eq!(curl(&[]).stdout, b"", "no header, no answer");
}
