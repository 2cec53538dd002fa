//! Addresses of endpoints: both stacks at one port, and ports that the kernel chooses.

use greenroom_tests::client::Client;
use greenroom_tests::host::Host;
use greenroom_tests::{built, wait_for};
use serde_json::Value;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;

/// Port that is free in both stacks.
fn free_port() -> u16 {
    TcpListener::bind("[::]:0").expect("a port").local_addr().expect("an address").port()
}

/// Endpoints of a service, by their kinds.
fn listen(host: &Host, service: &str) -> Vec<(String, SocketAddr)> {
    let listen = host.service(service)["listen"].clone();
    let all = listen.as_array().expect("a list").iter().filter_map(Value::as_str);
    let of = |text: &str| {
        let (kind, addr) = text.split_once("://").expect("a kind");
        (kind.to_owned(), addr.parse().expect("an address"))
    };
    all.map(of).collect()
}

/// Puts this configuration in force. The error is what the command says.
fn configure(host: &Host, file: &Path, text: &str) -> Result<(), String> {
    std::fs::write(file, text).expect("a file");
    let out = host.cli(&["reload", "--config"]);
    match out.status.success() {
        true => Ok(()),
        false => Err(String::from_utf8_lossy(&[out.stdout, out.stderr].concat()).into_owned()),
    }
}

/// An endpoint at `[::]` takes what the file says, and tells it. Several kinds of a service each
/// get a port that the kernel chooses, and keep it.
#[test]
fn both_stacks_and_any_port_in_several_kinds() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("greenroom.toml");
    let port = free_port();
    let text = |tally: &str, echo: &str| format!("[service.tally]\n{tally}\n[service.echo]\n{echo}\n");
    let both = format!("listen = [\"[::]:{port}\"]\ndual_stack = true");
    let any = "listen = [\"127.0.0.1:0\", \"telnet://127.0.0.1:0\", \"raw://127.0.0.1:0\"]";
    std::fs::write(&file, text(&both, any)).expect("a file");
    let host = Host::serve_with(&[], &[&built("libecho.so")], |c| {
        c.arg("--config").arg(&file);
    });

    let at = format!("tcp://[::]:{port}");
    assert!(host.said().contains(&format!("tally on {at} (IPv6 and IPv4)")), "{:?}", host.said());
    assert_eq!(host.service("tally")["dual_stack"][0], at.as_str());
    let by_v4 = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let by_v6 = SocketAddr::from((Ipv6Addr::LOCALHOST, port));
    let mut four = Client::connect(by_v4);
    let mut six = Client::connect(by_v6);
    assert_eq!((four.ask("one"), six.ask("one")), ("1 one".into(), "1 one".into()));
    let sessions = host.json(&["sessions", "--json"]);
    let peers: Vec<_> = (0..2).map(|at| sessions[at]["peer"].as_str().expect("a peer")).collect();
    assert!(peers[0].starts_with("127.0.0.1:") && peers[1].starts_with("[::1]:"), "{peers:?}");

    // Each kind has a port of its own.
    let before = listen(&host, "echo");
    let kinds: Vec<_> = before.iter().map(|(kind, _)| kind.as_str()).collect();
    assert_eq!(kinds, ["tcp", "telnet", "raw"]);
    let mut telnet = Client::connect(before[1].1);
    assert_eq!(telnet.ask("hello"), "hello\r");

    // Another service wants a part of it.
    for (wants, says) in [
        ("0.0.0.0", format!("both echo and tally want tcp://0.0.0.0:{port}")),
        ("127.0.0.1", format!("tally wants tcp://0.0.0.0:{port}")),
    ] {
        let said = configure(&host, &file, &text(&both, &format!("listen = [\"{wants}:{port}\"]")));
        assert!(said.as_ref().is_err_and(|said| said.contains(&says)), "{said:?}");
    }
    for (tally, says) in [
        ("listen = [\"[::]:0\"]\ndual_stack = true", "port 0 would be two ports"),
        ("listen = [\"[::1]:0\"]\ndual_stack = true", "is for endpoints at [::]"),
    ] {
        let said = configure(&host, &file, &text(tally, any));
        assert!(said.as_ref().is_err_and(|said| said.contains(says)), "{said:?}");
    }
    assert_eq!((four.ask("two"), six.ask("two")), ("2 two".into(), "2 two".into()));

    // IPv6 alone; one kind is dropped, another comes, and the order is another.
    let only = format!("listen = [\"[::]:{port}\"]");
    let others = "listen = [\"telnet://127.0.0.1:0\", \"line://127.0.0.1:0\", \"127.0.0.1:0\"]";
    assert_eq!(configure(&host, &file, &text(&only, others)), Ok(()));
    wait_for("IPv4 to be closed", || TcpStream::connect(by_v4).is_err().then_some(()));
    let out = host.cli(&["status"]);
    assert!(String::from_utf8_lossy(&out.stdout).contains("(IPv6 only)"), "{out:?}");
    assert_eq!(host.service("tally")["dual_stack"], serde_json::json!([]));
    assert_eq!(Client::connect(by_v6).ask("anew"), "1 anew");
    let check = |host: &Host| {
        let after = listen(host, "echo");
        let of = |kind: &str| after.iter().find(|(k, _)| k == kind).map(|(_, addr)| *addr);
        assert_eq!((of("tcp"), of("telnet")), (Some(before[0].1), Some(before[1].1)));
        assert_eq!((after.len(), of("raw")), (3, None));
        assert_eq!(Client::connect(of("line").expect("a new kind")).ask("on"), "on");
    };
    check(&host);
    drop(telnet);
    host.kill_worker();
    check(&host);
    assert_eq!((four.ask("three"), six.ask("three")), ("3 three".into(), "3 three".into()));

    // And back, for the next one that comes by IPv4.
    assert_eq!(configure(&host, &file, &text(&both, others)), Ok(()));
    assert_eq!(Client::connect(by_v4).ask("back"), "1 back");
}
