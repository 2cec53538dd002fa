//! A worker under a keeper that the test plays: of this version, an earlier one, and a later one.

use greenroom::memory::records::memory_file;
use greenroom::protocol::link::{Link, Received, pair, to_file};
use greenroom_tests::client::Client;
use greenroom_tests::{built, wait_for};
use serde_json::{Value, json};
use std::fs::File;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// A keeper's listeners and memory files, and the worker that it has now.
struct PlayedKeeper {
    dir: tempfile::TempDir,
    echo: TcpListener,
    tally: TcpListener,
    /// Records, input, board.
    memory: [OwnedFd; 3],
    worker: Option<Worker>,
    /// Number of the last connection; its key is one less.
    last: u64,
    /// Ports, as the worker reported them last.
    ports: Value,
}

struct Worker {
    child: Child,
    link: Link<Value, Value>,
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A client, and the keeper's descriptor of its connection.
struct Accepted {
    client: Client,
    fd: OwnedFd,
}

impl Accepted {
    /// Name of the service that answers.
    #[track_caller]
    fn served_by(&mut self) -> &'static str {
        match self.client.ask("x").as_str() {
            "x" => "echo",
            "1 x" => "tally",
            other => panic!("{other:?} is no service's first answer"),
        }
    }
}

impl PlayedKeeper {
    /// Starts a worker with echo and tally; `change` changes the first message.
    fn start(change: impl FnOnce(&mut Value)) -> PlayedKeeper {
        let bind = || TcpListener::bind("127.0.0.1:0").expect("a port");
        let memory = ["records", "input", "board"].map(|name| memory_file(name).expect("memory"));
        let mut keeper = PlayedKeeper {
            dir: tempfile::tempdir().expect("a directory"),
            echo: bind(),
            tally: bind(),
            memory,
            worker: None,
            last: 0,
            ports: json!([]),
        };
        keeper.spawn(change);
        keeper.send(json!("Start"));
        keeper.receive_ready();
        keeper
    }

    fn addr(listener: &TcpListener) -> SocketAddr {
        listener.local_addr().expect("an address")
    }

    /// The configuration with echo and tally at these addresses.
    fn config(echo: SocketAddr, tally: SocketAddr) -> Value {
        let listen = |addr| json!({"listen": [addr]});
        json!({"watch": false, "service": {"echo": listen(echo), "tally": listen(tally)}})
    }

    /// Spawns a worker, and greets it.
    fn spawn(&mut self, change: impl FnOnce(&mut Value)) {
        let (ours, theirs) = pair().expect("a socket");
        let log = File::options().create(true).append(true).open(self.dir.path().join("log")).expect("a log");
        let mut command = Command::new(built("greenroom"));
        command.arg("worker").stdin(Stdio::from(theirs)).stdout(Stdio::null()).stderr(log);
        let child = command.spawn().expect("greenroom worker");
        drop(command);
        let copies = self.dir.path().join("copies");
        std::fs::create_dir_all(&copies).expect("a directory");
        let config = PlayedKeeper::config(Self::addr(&self.echo), Self::addr(&self.tally));
        let mut hello = json!({
            "host_pid": std::process::id(), "incarnation": 0, "config": config, "copies": copies,
            "found": {"libraries": [[built("libecho.so"), true]], "directories": []},
            "save": self.dir.path().join("saved"), "log": "info", "withheld": [], "give_way": [],
            "ports": self.ports,
        });
        change(&mut hello);
        let hello = to_file(&hello).expect("memory");
        let [records, input, board] = &self.memory;
        let files = [records.as_fd(), input.as_fd(), board.as_fd(), hello.as_fd()];
        let mut link = Link::new(ours);
        assert!(link.send_with(&json!("Hello"), &files).expect("a greeting"));
        self.worker = Some(Worker { child, link });
    }

    fn link(&mut self) -> &mut Link<Value, Value> {
        &mut self.worker.as_mut().expect("a worker").link
    }

    fn send(&mut self, message: Value) {
        self.link().send(&message);
    }

    /// The next message of this name: what it says. Opens ports, and passes over everything else.
    #[track_caller]
    fn receive(&mut self, name: &str) -> Value {
        wait_for(&format!("{name} from the worker:\n{}", self.log()), || {
            let message = match self.link().receive().expect("the worker's message") {
                Received::Message(message, _) => message,
                Received::Nothing => {
                    std::thread::sleep(Duration::from_millis(5));
                    return None;
                }
                _ => panic!("the worker is gone:\n{}", self.log()),
            };
            if let Some(ports) = message["Open"].as_array() {
                // The listeners are bound already, at the addresses that the configuration names.
                let addrs: Vec<_> = ports.iter().map(|port| port[1].clone()).collect();
                self.send(json!({"Opened": {"Ok": addrs}}));
            }
            (message == name).then(|| Value::Null).or_else(|| message.get(name).cloned())
        })
    }

    #[track_caller]
    fn receive_ready(&mut self) {
        self.ports = self.receive("Ready")[0].clone();
    }

    /// Number of a service's endpoint, as the worker reported it.
    #[track_caller]
    fn endpoint(&self, service: &str) -> u64 {
        let ports = self.ports.as_array().expect("ports");
        let port = ports.iter().find(|p| p["port"][0] == service);
        let number = port.and_then(|p| p["endpoint"].as_u64());
        number.unwrap_or_else(|| panic!("no endpoint of {service}: {}", self.ports))
    }

    /// Accepts a connection.
    fn accept(listener: &TcpListener) -> Accepted {
        let client = Client::connect(Self::addr(listener));
        let (stream, _) = listener.accept().expect("a connection");
        stream.set_nonblocking(true).expect("a flag");
        Accepted { client, fd: stream.into() }
    }

    /// Hands a connection over, with its endpoint if there is one. Returns its key and number.
    fn hand(&mut self, accepted: &Accepted, endpoint: Option<u64>) -> Value {
        self.last += 1;
        let (key, number) = (self.last - 1, self.last);
        if let Some(endpoint) = endpoint {
            self.send(json!({"Endpoints": [[endpoint, 1]]}));
        }
        let message = json!({"Connections": [[key, number]]});
        let sent = self.link().send_with(&message, &[accepted.fd.as_fd()]).expect("a message");
        assert!(sent, "the socket has room");
        json!([key, number])
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    /// The worker dies, and another one is spawned and greeted.
    fn succeed(&mut self) {
        self.worker = None;
        self.spawn(|_| {});
    }
}

#[test]
fn the_endpoint_that_the_keeper_names_decides_and_not_the_address() {
    let mut keeper = PlayedKeeper::start(|_| {});
    let (echo, tally) = (keeper.endpoint("echo"), keeper.endpoint("tally"));
    assert_ne!(echo, tally);
    let mut plain = PlayedKeeper::accept(&keeper.echo);
    keeper.hand(&plain, Some(echo));
    assert_eq!(plain.served_by(), "echo");
    // At echo's address, with tally's endpoint; and the other way round.
    let mut crossed = PlayedKeeper::accept(&keeper.echo);
    keeper.hand(&crossed, Some(tally));
    assert_eq!(crossed.served_by(), "tally");
    let mut crossed = PlayedKeeper::accept(&keeper.tally);
    keeper.hand(&crossed, Some(echo));
    assert_eq!(crossed.served_by(), "echo");
    // Of an endpoint that is closed, although another one is at its address.
    let late = PlayedKeeper::accept(&keeper.echo);
    let handed = keeper.hand(&late, Some(echo + tally + 100));
    let dropped = keeper.receive("Drop");
    assert_eq!(dropped, json!([handed]));
    // An endpoint counts for one message. An earlier keeper names none: then the address decides.
    for (listener, service) in [(&keeper.echo, "echo"), (&keeper.tally, "tally")] {
        let mut unnamed = PlayedKeeper::accept(listener);
        keeper.last += 1;
        let message = json!({"Connections": [[keeper.last - 1, keeper.last]]});
        let link = &mut keeper.worker.as_mut().expect("a worker").link;
        assert!(link.send_with(&message, &[unnamed.fd.as_fd()]).expect("a message"));
        assert_eq!(unnamed.served_by(), service);
    }
}

#[test]
fn a_connection_goes_to_the_service_that_has_its_endpoint_now() {
    let mut keeper = PlayedKeeper::start(|_| {});
    let (echo, tally) = (keeper.endpoint("echo"), keeper.endpoint("tally"));
    let mut early = PlayedKeeper::accept(&keeper.echo);
    let mut waiting = PlayedKeeper::accept(&keeper.echo);
    let mut crossed = PlayedKeeper::accept(&keeper.echo);

    // The two services exchange their ports.
    let (at_echo, at_tally) = (PlayedKeeper::addr(&keeper.echo), PlayedKeeper::addr(&keeper.tally));
    let swapped = to_file(&PlayedKeeper::config(at_tally, at_echo)).expect("memory");
    let message = json!({"Configure": [1, "Signal"]});
    assert!(keeper.link().send_with(&message, &[swapped.as_fd()]).expect("a proposal"));
    keeper.ports = keeper.receive("Ports");
    assert_eq!(
        (keeper.endpoint("echo"), keeper.endpoint("tally")),
        (tally, echo),
        "they stay with the ports"
    );
    keeper.hand(&early, Some(echo));
    assert_eq!(early.served_by(), "tally");

    // A successor is given connections that no worker has seen.
    keeper.succeed();
    let number = |n: u64| (n - 1, n);
    let (first, second) = (number(keeper.last + 1), number(keeper.last + 2));
    let known = (keeper.last - 1, keeper.last);
    keeper.last += 2;
    keeper.send(json!({"Endpoints": [[echo, 2], [tally, 1]]}));
    let message = json!({"Connections": [known, first, second]});
    let fds = [early.fd.as_fd(), waiting.fd.as_fd(), crossed.fd.as_fd()];
    let link = &mut keeper.worker.as_mut().expect("a worker").link;
    assert!(link.send_with(&message, &fds).expect("a message"));
    keeper.send(json!("Start"));
    keeper.receive_ready();
    assert_eq!(
        (keeper.endpoint("echo"), keeper.endpoint("tally")),
        (tally, echo),
        "they stay for a successor"
    );
    assert_eq!(early.client.ask("y"), "2 y", "its session goes on");
    assert_eq!((waiting.served_by(), crossed.served_by()), ("tally", "echo"));
}

#[test]
fn a_worker_and_its_successor_serve_under_an_earlier_keeper_that_names_no_endpoint() {
    let mut keeper = PlayedKeeper::start(|_| {});
    let mut accepted = PlayedKeeper::accept(&keeper.tally);
    keeper.hand(&accepted, None);
    assert_eq!(accepted.served_by(), "tally");
    // It gives the ports back without the numbers, which it does not know.
    for port in keeper.ports.as_array_mut().expect("ports") {
        port.as_object_mut().expect("a port").remove("endpoint");
    }
    keeper.succeed();
    let mut waiting = [PlayedKeeper::accept(&keeper.echo), PlayedKeeper::accept(&keeper.tally)];
    for accepted in &waiting {
        keeper.hand(accepted, None);
    }
    keeper.send(json!("Start"));
    keeper.receive_ready();
    assert_eq!(waiting.each_mut().map(Accepted::served_by), ["echo", "tally"]);
}

#[test]
fn a_worker_serves_under_a_later_keeper_that_knows_more_limits() {
    let mut keeper = PlayedKeeper::start(|hello| {
        hello["config"]["limits"] = json!({"sessions_max": 1, "later_ms": 5});
        hello["config"]["metrics"] = json!({"listen": "127.0.0.1:9"});
        hello["later"] = json!(true);
    });
    let said = "configuration: this version doesn't know limits.later_ms, metrics.listen; that is left out";
    assert!(keeper.log().contains(said), "{}", keeper.log());
    let echo = keeper.endpoint("echo");
    let mut accepted = PlayedKeeper::accept(&keeper.echo);
    keeper.hand(&accepted, Some(echo));
    assert_eq!(accepted.served_by(), "echo");
    // The limits that it knows hold.
    let second = PlayedKeeper::accept(&keeper.echo);
    let handed = keeper.hand(&second, Some(echo));
    assert_eq!(keeper.receive("Drop"), json!([handed]));

    // A proposal is read likewise.
    let (at_echo, at_tally) = (PlayedKeeper::addr(&keeper.echo), PlayedKeeper::addr(&keeper.tally));
    let mut config = PlayedKeeper::config(at_echo, at_tally);
    config["limits"] = json!({"sessions_max": 2, "later_ms": 6});
    let file = to_file(&config).expect("memory");
    let message = json!({"Configure": [1, "Signal"]});
    assert!(keeper.link().send_with(&message, &[file.as_fd()]).expect("a proposal"));
    assert_eq!(keeper.receive("Configured"), json!(1));
    assert_eq!(keeper.log().matches("limits.later_ms").count(), 2, "{}", keeper.log());
    let mut third = PlayedKeeper::accept(&keeper.echo);
    keeper.hand(&third, Some(echo));
    assert_eq!(third.served_by(), "echo");
}
