//! Socket activation: endpoints at sockets that a service manager holds.

use greenroom_tests::client::Client;
use greenroom_tests::host::Host;
use greenroom_tests::{built, wait_for};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Output};

/// Ports that are free in both stacks, each another one.
fn free_ports<const N: usize>() -> [u16; N] {
    let held = [(); N].map(|()| TcpListener::bind("[::]:0").expect("a port"));
    held.each_ref().map(|l| l.local_addr().expect("an address").port())
}

fn by_v4(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

/// Connects as soon as somebody listens.
fn connect_first(addr: SocketAddr) -> Client {
    Client::from(wait_for("a listener", || TcpStream::connect(addr).ok()))
}

fn unix(path: &Path) -> Client {
    Client::from(TcpStream::from(OwnedFd::from(UnixStream::connect(path).expect("a connection"))))
}

/// Time until the kernel asks whether the peer of a connection to a port lives, in hundredths of a
/// second. `None`: it is never asked.
fn asked_in(port: u16) -> Option<u32> {
    let sockets = std::fs::read_to_string("/proc/self/net/tcp").expect("the sockets");
    let local = format!("0100007F:{port:04X}");
    let of_it = |l: &&str| l.split_whitespace().nth(1) == Some(&local) && l.contains(" 01 ");
    let timer = sockets.lines().find(of_it).expect("a connection").split_whitespace().nth(5);
    // Timer 2 is that of questions to silent peers.
    u32::from_str_radix(timer.expect("a timer").strip_prefix("02:")?, 16).ok()
}

/// Endpoints have the sockets of systemd, by address and by name, over everything that a host goes
/// through, and an orderly stop leaves the file of a socket to systemd.
#[test]
fn endpoints_have_the_sockets_that_systemd_holds() {
    let dir = tempfile::tempdir().expect("a directory");
    let (file, socket) = (dir.path().join("greenroom.toml"), dir.path().join("tally.sock"));
    let [own, named, spare, other] = free_ports();
    let write = |listen: &str| {
        let limits = "[limits]\nsessions_per_peer_max = 3\nlinger_ms = 1\n";
        std::fs::write(&file, format!("{limits}[service.tally]\nlisten = [{listen}]\n")).expect("a file");
    };
    let at_unix = format!("\"unix:{}\"", socket.display());
    let both = format!("\"127.0.0.1:{own}\", {at_unix}");
    write(&both);
    let mut command = Command::new("systemd-socket-activate");
    for listen in [format!("127.0.0.1:{own}"), named.to_string(), socket.display().to_string()] {
        command.args(["-l", &listen]);
    }
    command.args(["-l", &format!("127.0.0.1:{spare}"), "--fdname=x:echo:x:spare"]);
    command.arg("-E").arg(format!("GREENROOM_RUNTIME={}", dir.path().join("run").display()));
    command.arg(built("greenroom")).arg("serve").arg("--config").arg(&file).arg(built("libecho.so"));
    // The first connection starts the host.
    let (mut host, mut first) = std::thread::scope(|scope| {
        let first = scope.spawn(|| connect_first(by_v4(own)));
        let host = Host::start(dir, command);
        (host, first.join().expect("a connection"))
    });
    let listens = format!("echo on tcp://[::]:{named} (IPv6 and IPv4)");
    assert!(host.said().contains(&listens), "{:?}", host.said());
    host.wait_log(&format!("systemd's descriptor 6 (spare, tcp://127.0.0.1:{spare}) serves no endpoint"));
    let environment = std::fs::read(format!("/proc/{}/environ", host.worker_pid())).expect("a file");
    assert!(!String::from_utf8_lossy(&environment).contains("LISTEN_"));

    // A peer by IPv4 counts as such on a socket of both stacks.
    let mut echo = Client::connect(by_v4(named));
    assert_eq!(
        (first.ask("one"), echo.ask("here"), unix(&socket).ask("u")),
        ("1 one".into(), "here".into(), "1 u".into())
    );
    // They find a peer that is gone as sockets of our own do: half of `dead_peer_ms` is a minute.
    let asked = wait_for("a silent peer", || asked_in(own));
    assert!(asked <= 6000, "the kernel asks after {asked} hundredths of a second");
    let peer = host.json(&["sessions", "--json"])[1]["peer"].clone();
    assert!(peer.as_str().expect("a peer").starts_with("127.0.0.1:"), "{peer}");
    let mut third = Client::connect(by_v4(named));
    assert_eq!(third.ask("third"), "third");
    assert_eq!(Client::connect(by_v4(own)).line(), None, "a fourth one from 127.0.0.1");
    assert_eq!(Client::connect((Ipv6Addr::LOCALHOST, named).into()).ask("six"), "six");
    drop(third);

    // Dropped and wanted again: the same socket, which nobody could bind.
    let configure = |host: &Host, listen: &str| {
        write(listen);
        let out = host.cli(&["reload", "--config"]);
        (out.status.success(), String::from_utf8_lossy(&[out.stdout, out.stderr].concat()).into_owned())
    };
    assert!(configure(&host, &at_unix).0);
    assert!(TcpListener::bind(by_v4(own)).is_err(), "systemd's socket is open");
    let (good, said) = configure(&host, &format!("\"0.0.0.0:{named}\""));
    assert!(!good && said.contains("takes IPv4, too (BindIPv6Only=)"), "{said}");
    assert!(configure(&host, &format!("{both}, \"127.0.0.1:{other}\"")).0);
    assert_eq!((first.ask("two"), echo.ask("on")), ("2 two".into(), "on".into()));

    let binary = built("greenroom").display().to_string();
    let out = host.cli(&["upgrade", "--binary", &binary]);
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    host.kill_worker();
    assert_eq!((first.ask("three"), echo.ask("still")), ("3 three".into(), "still".into()));
    drop(echo);
    let anew = wait_for("a place", || {
        let mut client = Client::connect(by_v4(own));
        client.send("anew\n");
        client.line()
    });
    assert_eq!((anew, unix(&socket).ask("u")), ("1 anew".into(), "1 u".into()));
    host.signal(libc::SIGTERM);
    assert_eq!(host.wait(), Some(0));
    assert!(socket.exists(), "the file is systemd's");
}

/// Runs `greenroom serve` under a parent that gives it one descriptor, made by this line of Python.
fn given(dir: &Path, makes: &str, environment: &str) -> Output {
    let program = format!(
        "import os, socket, sys\n{makes}\nos.dup2(s if isinstance(s, int) else s.fileno(), 3); os.set_inheritable(3, True)\n\
         e = dict(os.environ, LISTEN_PID=str(os.getpid()), LISTEN_FDS='1', LISTEN_FDNAMES='echo')\n\
         e.update({environment})\nos.execve(sys.argv[1], sys.argv[1:], e)"
    );
    Command::new("python3")
        .args(["-c", &program])
        .arg(built("greenroom"))
        .args(["serve", "--listen", "tally=127.0.0.1:0", "--listen", "echo=127.0.0.1:0"])
        .arg(built("libecho.so"))
        .env("GREENROOM_RUNTIME", dir.join("run"))
        .output()
        .expect("python3")
}

/// Descriptors that can't serve are refused, with the reason, the place and the way out.
#[test]
fn a_descriptor_that_does_not_fit_is_refused() {
    let dir = tempfile::tempdir().expect("a directory");
    let listens = "s = socket.create_server(('127.0.0.1', 0))";
    for (makes, environment, says) in [
        (
            "s = socket.socket(type=socket.SOCK_DGRAM); s.bind(('127.0.0.1', 0))",
            "{}",
            "service echo can't listen on tcp://127.0.0.1:0: systemd's descriptor 3 (echo, udp://127.0.0.1:",
        ),
        ("s = socket.socketpair()[0]", "{}", "is a connection, not a socket that listens; set Accept=no"),
        ("s = os.open('/dev/null', 0)", "{}", "descriptor 3 (echo) is no socket"),
        (listens, "{'LISTEN_FDS': 'many'}", "can't be taken: invalid LISTEN_FDS"),
        (listens, "{'LISTEN_FDNAMES': 'a:b'}", "can't be taken: invalid LISTEN_FDNAMES"),
        (listens, "{'LISTEN_FDS': '1000', 'LISTEN_FDNAMES': ':' * 999}", "Bad file descriptor"),
    ] {
        let out = given(dir.path(), makes, environment);
        let said = String::from_utf8_lossy(&out.stderr).into_owned();
        assert_eq!(out.status.code(), Some(1), "{said}");
        assert!(said.contains(says), "{makes}: {said}");
    }
}
