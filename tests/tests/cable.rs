//! Peers behind a cable that is pulled: no end of the stream comes, and the host gives them up by
//! its own limit. The cable is a pair of virtual devices between two network namespaces.

use greenroom_tests::host::Host;
use greenroom_tests::tls::Certificate;
use greenroom_tests::{built, wait_for};
use serde_json::Value;
use std::io::{BufRead, BufReader, Lines, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

/// Address of the host at its end of the cable.
const HOST: &str = "10.77.0.1";
/// Address of the peers, at the other end.
const PEER: &str = "10.77.0.2";

/// Lines of 8,000 bytes that a slow peer does not read at first: above what a kernel buffers, which
/// is 4 MiB by default.
const SAID: usize = 700;

/// Makes two namespaces and the cable between them, tells the process that holds the second one,
/// and lasts until its input ends.
const MAKE: &str = "set -e; ip link set lo up; ip link add end0 type veth peer name end1; \
    unshare -n sleep infinity & peer=$!; trap 'kill $peer' EXIT; \
    until [ \"$(readlink /proc/$peer/ns/net)\" != \"$(readlink /proc/self/ns/net)\" ]; do sleep .01; done; \
    ip link set end1 netns $peer; ip addr add 10.77.0.1/24 dev end0; ip link set end0 up; \
    nsenter -t $peer -n sh -ec 'ip addr add 10.77.0.2/24 dev end1; ip link set end1 up'; \
    echo $peer; read end || true";

/// Two network namespaces, and a cable between them.
struct Cable {
    holder: Child,
    /// Processes that hold the host's namespace, and the peers'.
    ends: [u32; 2],
}

impl Cable {
    fn lay() -> Cable {
        // Without root, the namespaces are those of a user namespace, in which everybody is root.
        // SAFETY: the call has no preconditions.
        let is_root = unsafe { libc::geteuid() } == 0;
        let mut make = Command::new("unshare");
        make.args([if is_root { "-n" } else { "-rn" }, "sh", "-c", MAKE]);
        let mut holder = make.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("unshare");
        let mut told = String::new();
        BufReader::new(holder.stdout.take().expect("its output")).read_line(&mut told).expect("text");
        let peers = told.trim().parse().unwrap_or_else(|_| panic!("no namespaces can be made: {told:?}"));
        Cable { ends: [holder.id(), peers], holder }
    }

    /// Command at an end of the cable: 0 is the host's.
    fn at(&self, end: usize) -> Command {
        let mut enter = Command::new("nsenter");
        enter.args(["-t", &self.ends[end].to_string(), "-n", "--preserve-credentials"]);
        // SAFETY: the call has no preconditions.
        if unsafe { libc::geteuid() } != 0 {
            enter.arg("-U");
        }
        enter
    }

    /// Waits until somebody listens at the peers' end.
    fn wait_listener(&self, port: u16) {
        let sockets = format!("/proc/{}/net/tcp", self.ends[1]);
        wait_for("a listener", || {
            let all = std::fs::read_to_string(&sockets).ok()?;
            // Address, then state: 0A listens.
            let is_it = |l: &str| l.contains(&format!(":{port:04X} ")) && l.contains(" 0A ");
            all.lines().any(is_it).then_some(())
        });
    }

    /// Pulls the cable, or plugs it in again.
    fn set(&self, state: &str) {
        let done = self.at(1).args(["ip", "link", "set", "end1", state]).status();
        assert!(done.is_ok_and(|s| s.success()), "the cable is {state}");
    }
}

impl Drop for Cable {
    fn drop(&mut self) {
        drop(self.holder.stdin.take());
        let _ = self.holder.wait();
    }
}

/// Client at an end of the cable.
struct Peer {
    child: Child,
    keys: ChildStdin,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Peer {
    fn start(mut command: Command) -> Peer {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().expect("a client");
        let lines = BufReader::new(child.stdout.take().expect("its output")).lines();
        Peer { keys: child.stdin.take().expect("its input"), child, lines }
    }

    /// Client without TLS, or with it.
    fn connect(cable: &Cable, end: usize, port: u16, over_tls: bool) -> Peer {
        let mut command = cable.at(end);
        match over_tls {
            false => command.args(["nc", HOST, &port.to_string()]),
            true => {
                let addr = format!("{HOST}:{port}");
                command.args(["openssl", "s_client", "-quiet", "-verify_quiet", "-connect", &addr])
            }
        };
        Peer::start(command)
    }

    fn says(&mut self, line: &str) {
        // In one piece: behind two of them nc would wait for an acknowledgement, which takes 40 ms.
        self.keys.write_all(format!("{line}\n").as_bytes()).expect("it reads");
    }

    #[track_caller]
    fn hears(&mut self, line: &str) {
        assert_eq!(self.lines.next().expect("a line").expect("text"), line);
    }

    /// Takes a nick in the chat.
    #[track_caller]
    fn joins(&mut self, nick: &str) {
        self.hears("Welcome to the green room. What is your nick?");
        self.says(nick);
        self.hears(&format!("* {nick} is here"));
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Sessions of the host.
fn sessions(host: &Host) -> Vec<Value> {
    host.json(&["sessions", "--json"]).as_array().expect("sessions").clone()
}

#[track_caller]
fn wait_sessions(host: &Host, count: usize) {
    wait_for(&format!("{count} sessions"), || (sessions(host).len() == count).then_some(()));
}

/// Peers that are silent, and peers to which output is on its way: without TLS and with it, of this
/// worker, of one that was killed and of one before an upgrade, and one that the host connected to.
/// Limit `output_ms` is too long to be what ends them. A peer that is slow has all of it. Until its
/// output fills the kernel's buffers, it has `dead_peer_ms`: they are filled faster than that.
#[test]
fn peers_behind_a_pulled_cable_are_given_up() {
    let cable = Cable::lay();
    let dir = tempfile::tempdir().expect("a directory");
    let config = dir.path().join("greenroom.toml");
    let certificate = Certificate::make(dir.path(), "here");
    let limits = "[limits]\ndead_peer_ms = 2000\noutput_ms = 3600000\noutput_bytes_max = 67108864\n";
    let listen = format!("listen = [\"line://{HOST}:0\", \"tls+line://{HOST}:0\"]\n");
    let service = |name: &str| format!("[service.{name}]\n{listen}tls = {}\n", certificate.toml());
    let proxy = format!("[service.proxy]\nlisten = [\"{HOST}:0\"]\n");
    let target = format!("[service.proxy.settings]\npassword = \"open\"\ntarget = \"{PEER}:7700\"\n");
    let all = [limits, &service("chat"), &service("tally"), &proxy, &target];
    std::fs::write(&config, all.concat()).expect("a file");
    let mut command = cable.at(0);
    command.env("GREENROOM_RUNTIME", dir.path().join("run")).arg(built("greenroom"));
    command
        .arg("serve")
        .arg("--config")
        .arg(&config)
        .args(["libchat.so", "libecho.so", "libproxy.so"].map(built));
    let host = Host::start(dir, command);
    let port = |name: &str| host.addr(name).port();
    let ports = |service: &str| [port(&format!("{service} line")), port(&format!("{service} tls+line"))];
    let (chat, tally) = (ports("chat"), ports("tally"));

    let mut near = Peer::connect(&cable, 0, chat[0], false);
    near.joins("near");
    // Somebody who is slow, and need not be gone. More is said than the kernels hold for it.
    let mut slow = Peer::start({
        let mut reads_little = cable.at(0);
        reads_little.args(["nc", "-I", "4096", HOST, &chat[0].to_string()]);
        reads_little
    });
    slow.joins("slow");
    near.hears("* slow is here");
    let long = "x".repeat(8000);
    for _ in 0..SAID {
        near.says(&long);
        near.hears(&format!("near: {long}"));
    }

    // Somebody at the host's end, who is connected to somebody at the other one.
    let mut target = Peer::start({
        let mut listens = cable.at(1);
        listens.args(["nc", "-l", PEER, "7700"]);
        listens
    });
    cable.wait_listener(7700);
    let mut through = Peer::connect(&cable, 0, port("proxy"), false);
    through.says("open\nthere?");
    target.hears("there?");
    target.says("here");
    through.hears("password: here");

    // One of each kind for each worker.
    let mut peers = Vec::new();
    for round in 0..3 {
        for over_tls in [false, true] {
            let mut silent = Peer::connect(&cable, 1, tally[usize::from(over_tls)], over_tls);
            silent.says("one");
            silent.hears("1 one");
            let mut told = Peer::connect(&cable, 1, chat[usize::from(over_tls)], over_tls);
            told.joins(&format!("far{round}{over_tls}"));
            near.hears(&format!("* far{round}{over_tls} is here"));
            peers.extend([silent, told]);
        }
        match round {
            0 => host.kill_worker(),
            1 => assert!(host.cli(&["upgrade"]).status.success()),
            _ => {}
        }
    }
    wait_sessions(&host, 16);

    cable.set("down");
    near.says("is anybody there?");
    near.hears("near: is anybody there?");
    wait_sessions(&host, 2);
    for _ in 0..6 {
        let line = near.lines.next().expect("a line").expect("text");
        assert!(line.starts_with("* far") && line.ends_with(" has left"), "{line}");
    }
    // The cable was all that was wrong.
    cable.set("up");
    let mut again = Peer::connect(&cable, 1, tally[0], false);
    again.says("back");
    again.hears("1 back");
    for _ in 0..SAID {
        slow.hears(&format!("near: {long}"));
    }
    slow.says("I was asleep");
    near.hears("slow: I was asleep");
}
