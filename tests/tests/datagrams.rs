//! Datagrams: of a service itself, and of peers that have sessions; through the core, and through a
//! host.

use greenroom_core::core::Core;
use greenroom_core::effects::datagrams::DatagramsToSend;
use greenroom_core::framing::Framing;
use greenroom_core::framing::peer::{self, LocalEnd};
use greenroom_core::ids::{ServiceId, Slot};
use greenroom_core::input::Input;
use greenroom_core::limits::host::Limits;
use greenroom_core::limits::names::Limit;
use greenroom_core::recovery::reconcile::StreamCounts;
use greenroom_core::service::offer::{Build, EndpointOffer, Offer};
use greenroom_core::session::life::Life;
use greenroom_core::session::quarantine::BlockedAction;
use greenroom_core::store::kind::Kind;
use greenroom_core::store::memory::Plain;
use greenroom_core::store::records::Store;
use greenroom_core::turn::code::{Batch, Code};
use greenroom_core::turn::effect::Broadcast;
use greenroom_core::turn::fault::Fault;
use greenroom_core::turn::staging::Staging;
use greenroom_state::abi::{action, status};
use greenroom_state::address::Peer;
use greenroom_tests::host::Host;
use greenroom_tests::{built, wait_for};
use std::io::Write;
use std::net::{Ipv6Addr, SocketAddr, UdpSocket};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

/// Answers a datagram or a message with its bytes, twice. `fail` fails, `far` names another
/// address, `all` is broadcast to the sessions, `close` closes its session. Sessions are on a
/// topic.
struct Twice;

impl Twice {
    fn turn(kind: u32, bytes: &[u8], s: &mut Staging<'_>) -> u32 {
        match (kind, bytes) {
            (action::OPENED, _) => s.subscribe(b"room"),
            (action::CLOSED, _) => status::OK,
            (_, b"fail") => status::INVALID,
            (_, b"far") => s.send_datagram("127.0.0.1:99", b"x"),
            (_, b"all") => s.broadcast(b"room", b"to all of you", Broadcast::ALL),
            (_, b"close") => s.close(),
            (_, bytes) => match s.send(bytes) {
                status::OK => s.send(bytes),
                refused => refused,
            },
        }
    }
}

impl Code for Twice {
    fn run(&self, batch: &Batch<'_>, staging: &mut Staging<'_>) -> u32 {
        for a in batch.actions {
            let bytes = match a.data.len {
                0 => &[],
                // SAFETY: the core lends these bytes for the call.
                len => unsafe { std::slice::from_raw_parts(a.data.ptr, len) },
            };
            let done = Twice::turn(a.kind, bytes, staging);
            if done != status::OK {
                let message = format!("status {done}");
                staging.turn_failed(Fault { kind: 0, message, file: String::new(), line: 0 });
                return 0;
            }
            if !staging.turn_ok() {
                break;
            }
        }
        0
    }
}

/// Port of the service itself, and the one whose peers have sessions.
const OWN: u32 = 3;
const PEERS: u32 = 4;

/// End of a port at one address.
fn end(port: u32) -> LocalEnd {
    LocalEnd { port, ip: None }
}

fn serve(limits: Limits) -> (Core, ServiceId) {
    let mut offer = Offer::new("s", Framing::Datagrams { bytes_max: 100 });
    offer.endpoints.push(EndpointOffer { framing: Framing::Peer { bytes_max: 100 }, port: 0 });
    let mut core = Core::new(limits);
    let build = Build { library: "l".into(), generation: 1, hash: String::new() };
    core.adopt(&build, vec![(offer, Box::new(Twice))]);
    let service = core.service_named("s").expect("it was adopted");
    core.handle(Input::PassBegins { now_ns: 1 });
    (core, service)
}

fn from(port: u16) -> SocketAddr {
    ([127, 0, 0, 1], port).into()
}

/// Gives datagrams to the service itself, commits, and returns what is sent, with the ports.
fn hear(core: &mut Core, service: ServiceId, datagrams: &[(SocketAddr, &[u8])]) -> Vec<(u16, String)> {
    core.handle(Input::Datagrams { service, end: end(OWN), datagrams });
    core.handle(Input::Commit);
    let mut sent = DatagramsToSend::default();
    core.take_datagrams(&mut sent);
    assert!(sent.iter().all(|d| (d.service, d.from) == (service, end(OWN))));
    sent.iter().map(|d| (d.to.port(), String::from_utf8_lossy(d.bytes).into_owned())).collect()
}

/// Opens the session of a peer in a slot.
fn open(core: &mut Core, service: ServiceId, slot: u32) {
    let peer = Peer::udp(from(50 + slot as u16));
    let id = u64::from(slot) + 1;
    core.handle(Input::PeerHeard { slot: Slot(slot), id, service, end: end(PEERS), peer, at_ms: 0 });
}

/// Gives a datagram to a session.
fn say(core: &mut Core, slot: u32, datagram: &[u8]) {
    let bytes = [&(datagram.len() as u16).to_be_bytes(), datagram].concat();
    core.handle(Input::Received { slot: Slot(slot), bytes: &bytes });
}

/// Datagrams that a session's output is.
fn output(core: &Core, slot: u32) -> Vec<String> {
    let bytes = core.output(Slot(slot), |pieces| pieces.concat()).unwrap_or_default();
    let (mut rest, mut all) = (&bytes[..], Vec::new());
    while let Some((datagram, behind)) = peer::take(rest) {
        all.push(String::from_utf8_lossy(datagram).into_owned());
        rest = behind;
    }
    assert!(rest.is_empty());
    all
}

/// Limits reached since the last call.
fn reached(core: &mut Core) -> Vec<Limit> {
    let mut all = Vec::new();
    core.take_reached(|limit, _| all.push(limit));
    all
}

#[test]
fn each_datagram_is_a_turn_and_is_answered_where_it_came_from() {
    let (mut core, service) = serve(Limits::default());
    let twice = |port: u16, text: &str| [(port, text.to_owned()), (port, text.to_owned())];
    let sent = hear(&mut core, service, &[(from(1), b"one"), (from(2), b"fail"), (from(3), b"three")]);
    assert_eq!(sent, [twice(1, "one"), twice(3, "three")].concat(), "a failed turn sends nothing");
    let s = &core.services()[usize::from(service.0)];
    assert_eq!((s.turns, s.faults), (3, 1));
    assert_eq!((core.sessions().len(), core.store().count(Kind::Session)), (0, 0));
    assert_eq!(hear(&mut core, service, &[]), [], "sent once");

    assert_eq!(hear(&mut core, service, &[(from(1), &[b'x'; 100])]).len(), 2);
    assert_eq!(hear(&mut core, service, &[(from(1), &[b'x'; 101]), (from(1), b"far")]), []);
    assert_eq!(reached(&mut core), [Limit::FrameBytesMax, Limit::DatagramAmplificationMax]);

    // Two answers are more than what came. One alone is not sent either: the turn fails.
    let (mut core, service) = serve(Limits { datagram_amplification_max: 1, ..Limits::default() });
    assert_eq!(hear(&mut core, service, &[(from(1), b"one"), (from(2), b"two")]), []);
    let (mut core, service) = serve(Limits { datagram_amplification_max: 0, ..Limits::default() });
    assert_eq!(hear(&mut core, service, &[(from(1), b"far")]), [(99, "x".into())]);
}

#[test]
fn a_datagram_that_killed_is_dropped_and_others_are_not() {
    let (mut core, service) = serve(Limits::default());
    core.handle(Input::Datagrams { service, end: end(OWN), datagrams: &[(from(1), b"bad")] });
    let number = 1 << 63 | u64::from(service.0);
    let own = core.sessions().slot_of(number).and_then(|slot| core.sessions().get(slot)).expect("its own");
    // The turn was counted on.
    let turn = own.turns - 1;
    let reason = "it killed".into();
    let blocked = BlockedAction { session: number, turn, action: action::DATAGRAM, reason };
    let (mut core, service) = serve(Limits::default());
    core.block(blocked);
    let all = [(from(1), &b"one"[..]), (from(2), b"bad"), (from(3), b"three"), (from(4), b"bad")];
    let answered: Vec<_> = hear(&mut core, service, &all).iter().map(|(port, _)| *port).collect();
    assert_eq!(answered, [1, 1, 3, 3]);
}

#[test]
fn a_peer_has_a_session_whose_messages_are_datagrams() {
    let (mut core, service) = serve(Limits::default());
    open(&mut core, service, 0);
    open(&mut core, service, 1);
    for (slot, text) in [(0, &b"one"[..]), (1, b"two"), (0, b""), (0, b"fail")] {
        say(&mut core, slot, text);
    }
    core.handle(Input::Commit);
    assert_eq!(output(&core, 0), ["one", "one", "", ""]);
    assert_eq!(output(&core, 1), ["two", "two"]);
    let port = core.sessions().get(Slot(0)).and_then(|s| s.udp_end());
    assert_eq!((port, core.connection_number()), (Some(end(PEERS)), 0));

    // The first peer may have 39 bytes and has had 14; the second may have 15 and has had 10.
    hear(&mut core, service, &[(from(9), b"all")]);
    assert_eq!((output(&core, 0).len(), output(&core, 1).len()), (5, 2));
    assert_eq!(reached(&mut core), [Limit::DatagramAmplificationMax]);

    // No end of the peer is waited for.
    say(&mut core, 0, b"close");
    let bytes = core.sessions().get(Slot(0)).expect("it drains").unsent() as usize;
    core.handle(Input::Sent { slot: Slot(0), bytes, blocked: false });
    assert!(core.sessions().get(Slot(0)).is_none());
    // A minute of silence is the end, though no limit says so. A pass judges by the one before.
    for pass in 1..4 {
        core.handle(Input::Commit);
        let open = core.sessions().get(Slot(1)).is_some_and(|s| s.life == Life::Open);
        assert_eq!(open, pass < 3, "pass {pass}");
        core.handle(Input::PassBegins { now_ns: pass * 61_000_000_000 });
    }
}

/// A session over UDP lives on in a successor, which knows its port; its number is no connection's.
#[test]
fn a_successor_goes_on_with_the_sessions_of_peers() {
    let (mut core, service) = serve(Limits::default());
    open(&mut core, service, 0);
    say(&mut core, 0, b"one");
    core.handle(Input::Commit);
    let image = core.store().image().to_vec();
    let found = Store::recover(Box::new(Plain::from(image)), 1 << 30).expect("a store");
    let mut next = Core::recover(Limits::default(), found, 2);
    assert_eq!(next.core.connection_number(), 0);
    let s = next.core.sessions().get(Slot(0)).expect("it survives");
    assert_eq!((next.lost.len(), s.udp_end()), (0, Some(end(PEERS))));
    let counts = StreamCounts::Kernel { read: s.bytes_in, sent: Some(s.bytes_out) };
    assert_eq!(next.core.reconcile(Slot(0), counts), Ok(0));
    assert!(output(&next.core, 0).is_empty(), "datagrams go out at most once");
}

/// A host that serves echo and tally over UDP, and the ports.
fn host(dir: &Path, more: &str) -> (Host, [SocketAddr; 2]) {
    let file = dir.join("greenroom.toml");
    // A port whose number the kernel chooses is another one behind a change of the file.
    let free = UdpSocket::bind("127.0.0.1:0").and_then(|s| s.local_addr()).expect("a port");
    let listen = format!("listen = [\"127.0.0.1:0\", \"udp://{free}\"]");
    let tally = "listen = [\"peer+udp://127.0.0.1:0\"]";
    std::fs::write(&file, format!("[service.echo]\n{listen}\n[service.tally]\n{tally}\n{more}"))
        .expect("a file");
    let host = Host::serve_with(&[], &[&built("libecho.so")], |c| {
        c.arg("--config").arg(&file);
    });
    let port = |service: &str, scheme: &str| {
        let listen = host.service(service)["listen"].clone();
        let all = listen.as_array().expect("a list").iter().filter_map(|l| l.as_str());
        all.filter_map(|l| l.strip_prefix(scheme)).next().expect("a port").parse().expect("an address")
    };
    let ports = [port("echo", "datagram+udp://"), port("tally", "peer+udp://")];
    (host, ports)
}

fn client(to: SocketAddr) -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    socket.connect(to).expect("an address");
    socket.set_read_timeout(Some(Duration::from_secs(10))).expect("a time");
    socket
}

/// Sends a datagram, and returns the next one that comes.
#[track_caller]
fn ask(socket: &UdpSocket, text: &str) -> String {
    socket.send(text.as_bytes()).expect("sent");
    next(socket)
}

#[track_caller]
fn next(socket: &UdpSocket) -> String {
    let mut bytes = [0; 2000];
    let n = socket.recv(&mut bytes).expect("an answer");
    String::from_utf8_lossy(&bytes[..n]).into_owned()
}

/// Answer of tally, which is two datagrams: the count, and the line.
#[track_caller]
fn count(socket: &UdpSocket, text: &str) -> u64 {
    let count = ask(socket, text);
    assert_eq!(next(socket), format!("{text}\n"));
    count.trim().parse().expect("a count")
}

/// Both kinds, before and behind a swap, a kill and an upgrade; datagrams that come while no worker
/// serves wait in the kernel.
#[test]
fn datagrams_are_served_through_swaps_kills_and_upgrades() {
    let dir = tempfile::tempdir().expect("a directory");
    let (host, [echo, tally]) = host(dir.path(), "");

    // A client that nobody here wrote.
    let mut nc = Command::new("nc")
        .args(["-u", "-W1", &echo.ip().to_string(), &echo.port().to_string()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("nc");
    nc.stdin.as_mut().expect("its input").write_all(b"by nc").expect("sent");
    assert_eq!(nc.wait_with_output().expect("its output").stdout, b"by nc");
    assert_eq!(host.json(&["sessions", "--json"]).as_array().map(Vec::len), Some(0));

    let (own, peers) = (client(echo), [client(tally), client(tally)]);
    let mut expected = 0;
    let mut check = || {
        expected += 1;
        assert_eq!(ask(&own, "datagram"), "datagram");
        assert_eq!(ask(&own, ""), "");
        for peer in &peers {
            assert_eq!(count(peer, "line"), expected);
        }
    };
    check();
    let sessions = host.json(&["sessions", "--json"]);
    let me = format!("udp://{}", peers[0].local_addr().expect("an address"));
    assert_eq!((&sessions[0]["endpoint"], &sessions[0]["peer"]), (&"peer".into(), &me.into()));
    host.kill_worker();
    check();
    let library = dir.path().join("libecho.so");
    let mut bytes = std::fs::read(built("libecho.so")).expect("a library");
    bytes.push(0);
    std::fs::write(&library, bytes).expect("another file");
    assert_eq!(host.reload_from("echo", &library).0, Some(0));
    check();
    let upgrade = host.cli(&["upgrade"]);
    assert!(upgrade.status.success(), "{}", String::from_utf8_lossy(&upgrade.stderr));
    check();

    // At most once: answers may be missing, and none comes twice. As many as the kernel queues.
    let peer = &peers[0];
    for n in 0..100 {
        peer.send(b"x").expect("sent");
        if n == 50 {
            host.kill_worker();
        }
    }
    peer.send(b"the end").expect("sent");
    let mut last = expected;
    loop {
        let answer = next(peer);
        if answer == "the end\n" {
            break;
        }
        if let Ok(number) = answer.trim().parse::<u64>() {
            assert!(number > last, "{number} behind {last}");
            last = number;
        }
    }
    assert!(last > expected + 1);
}

/// A peer drops what comes from another address than the one that it has sent to.
#[test]
fn a_port_at_all_addresses_answers_from_the_one_it_was_sent_to() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("greenroom.toml");
    let [echo, tally] = ["datagram+udp://0.0.0.0:0", "peer+udp://0.0.0.0:0"];
    let text = format!(
        "[service.echo]\nlisten = [\"127.0.0.1:0\", \"{echo}\", \"datagram+udp://[::]:0\"]\n\
         [service.tally]\nlisten = [\"{tally}\"]\n"
    );
    std::fs::write(&file, text).expect("a file");
    let host = Host::serve_with(&[], &[&built("libecho.so")], |c| {
        c.arg("--config").arg(&file);
    });
    let port = |service: &str, address: &str| -> u16 {
        let listen = host.service(service)["listen"].clone();
        let all = listen.as_array().expect("a list").iter().filter_map(|l| l.as_str());
        all.filter_map(|l| l.strip_prefix(address)).next().expect("a port").parse().expect("a number")
    };
    let [echo, tally] = [("echo", echo), ("tally", tally)].map(|(s, a)| port(s, &a[..a.len() - 1]));
    let v6 = SocketAddr::from((Ipv6Addr::LOCALHOST, port("echo", "datagram+udp://[::]:")));
    let at = |last: u8, port: u16| SocketAddr::from(([127, 0, 0, last], port));

    // One socket that takes datagrams from anywhere, so a wrong address shows.
    let socket = UdpSocket::bind("0.0.0.0:0").expect("a socket");
    socket.set_read_timeout(Some(Duration::from_secs(10))).expect("a time");
    let heard = || {
        let mut bytes = [0; 100];
        let (n, from) = socket.recv_from(&mut bytes).expect("an answer");
        (from, String::from_utf8_lossy(&bytes[..n]).into_owned())
    };
    let mut counts = 0;
    let mut check = || {
        counts += 1;
        // Many at once, from one address to several: a read has datagrams to all of them.
        for n in 0..60 {
            let to = at(2 + n % 3, echo);
            socket.send_to(format!("{n} to {to}").as_bytes(), to).expect("sent");
        }
        let mut answers: Vec<_> = (0..60).map(|_| heard()).collect();
        answers.sort_by_key(|(_, text)| text.split(' ').next().and_then(|n| n.parse::<u8>().ok()));
        for (n, (from, text)) in (0..).zip(answers) {
            assert_eq!(text, format!("{n} to {from}"));
            assert_eq!(from, at(2 + n % 3, echo));
        }
        // A peer has a session with each address that it sends to.
        for last in [2, 3] {
            socket.send_to(b"line", at(last, tally)).expect("sent");
            assert_eq!(heard(), (at(last, tally), format!("{counts} ")));
            assert_eq!(heard(), (at(last, tally), "line\n".into()));
        }
        // A machine has one loopback address of IPv6, so this shows that nothing is lost.
        let six = UdpSocket::bind("[::]:0").expect("a socket of IPv6");
        six.set_read_timeout(Some(Duration::from_secs(10))).expect("a time");
        six.send_to(b"six", v6).expect("sent");
        let mut bytes = [0; 9];
        assert_eq!(six.recv_from(&mut bytes).expect("an answer"), (3, v6));
    };
    check();
    host.kill_worker();
    check();
    check();
    assert_eq!(host.json(&["sessions", "--json"]).as_array().map(Vec::len), Some(2));
}

/// An operator changes a port's kind, and closes it.
#[test]
fn a_port_changes_its_kind_and_is_closed() {
    let dir = tempfile::tempdir().expect("a directory");
    let (host, [echo, tally]) = host(dir.path(), "");
    let (own, peer) = (client(echo), client(tally));
    assert_eq!((ask(&own, "a"), count(&peer, "b")), ("a".into(), 1));
    let write = |listen: &str| {
        let tcp = "[service.tally]\nlisten = [\"127.0.0.1:0\"]\n";
        let echo = format!("[service.echo]\nlisten = [\"127.0.0.1:0\"{listen}]\n{tcp}");
        std::fs::write(dir.path().join("greenroom.toml"), echo).expect("a file");
        let out = host.cli(&["reload", "--config"]);
        assert!(out.status.success(), "{out:?}");
    };
    write(&format!(", \"peer+udp://{echo}\""));
    assert_eq!(ask(&own, "c"), "c\n", "a session sends lines");
    // The port of tally is closed: nothing answers, and its session ends by its silence.
    wait_for("the port", || UdpSocket::bind(tally).ok());
    write("");
    wait_for("the other port", || UdpSocket::bind(echo).ok());
}

/// Limit on the bytes that an address may be sent; a service may lift it.
#[test]
fn a_host_is_no_amplifier() {
    let dir = tempfile::tempdir().expect("a directory");
    let limits = "[service.tally.limits]\ndatagram_amplification_max = 1\n";
    let (host, [echo, tally]) = host(dir.path(), limits);
    assert_eq!(ask(&client(echo), "ping"), "ping");
    let peer = client(tally);
    peer.send(b"x").expect("sent");
    host.wait_log("datagram_amplification_max");
    let status = host.json(&["status", "--json"]);
    // Tally sends a count and a line.
    assert_eq!(status["host"]["limits"]["datagram_amplification_max"], 2, "{status}");
    assert_eq!(status["host"]["connections"], 0, "a UDP port is no connection");
}
