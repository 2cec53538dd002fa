//! Hosts under a service manager: what it hears, the user that a host goes on as, and hosts that
//! are process 1.

use greenroom_tests::client::Client;
use greenroom_tests::fixture::install;
use greenroom_tests::host::Host;
use greenroom_tests::{built, wait_for};
use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// A service manager's end of `NOTIFY_SOCKET`.
struct Manager {
    socket: UnixDatagram,
    path: PathBuf,
}

impl Manager {
    #[track_caller]
    fn new(dir: &Path) -> Manager {
        let path = dir.join("notify");
        let socket = UnixDatagram::bind(&path).expect("a socket");
        // A failure must not be a hang.
        socket.set_read_timeout(Some(Duration::from_secs(60))).expect("a timeout");
        Manager { socket, path }
    }

    /// The next message.
    #[track_caller]
    fn next(&self) -> String {
        let mut bytes = [0; 4096];
        let n = self.socket.recv(&mut bytes).expect("a message");
        String::from_utf8_lossy(&bytes[..n]).into_owned()
    }

    /// The next message with a line that begins so.
    #[track_caller]
    fn hear(&self, line: &str) -> String {
        loop {
            let message = self.next();
            if message.lines().any(|l| l.starts_with(line)) {
                return message;
            }
        }
    }
}

/// Value of a line of `/proc/PID/status`.
#[track_caller]
fn status(pid: u32, name: &str) -> String {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("a process");
    let line = text.lines().find_map(|l| l.strip_prefix(&format!("{name}:")));
    line.unwrap_or_else(|| panic!("no {name} in {text}")).split_whitespace().collect::<Vec<_>>().join(" ")
}

fn is_root() -> bool {
    // SAFETY: the call has no preconditions.
    unsafe { libc::geteuid() == 0 }
}

fn kill(pid: u32, signal: i32) {
    // SAFETY: kill has no preconditions.
    assert_eq!(unsafe { libc::kill(pid as i32, signal) }, 0);
}

#[test]
fn a_service_manager_hears_of_start_reload_replacement_and_stop() {
    let dir = tempfile::tempdir().expect("a directory");
    let (manager, config) = (Manager::new(dir.path()), dir.path().join("greenroom.toml"));
    let write = |text: &str| std::fs::write(&config, text).expect("a configuration");
    write("[limits]\nsessions_max = 10\n");
    let mut host = Host::serve_with(&["echo", "tally"], &[&built("libecho.so")], |c| {
        c.env("NOTIFY_SOCKET", &manager.path).env("WATCHDOG_USEC", "200000").arg("--config").arg(&config);
    });
    let ready = manager.hear("READY=1");
    assert!(ready.contains(&format!("STATUS=worker {} serves", host.worker_pid())), "{ready}");
    manager.hear("WATCHDOG=1");
    let environment = std::fs::read(format!("/proc/{}/environ", host.worker_pid())).expect("a file");
    let environment = String::from_utf8_lossy(&environment);
    assert!(!environment.contains("NOTIFY_SOCKET") && !environment.contains("WATCHDOG"), "{environment}");

    // A configuration in force, one that is refused, and one in force again.
    for (text, failing) in
        [("sessions_max = 11", false), ("sessions_max = -1", true), ("sessions_max = 12", false)]
    {
        write(&format!("[limits]\n{text}\n"));
        host.signal(libc::SIGHUP);
        let reloading = manager.hear("RELOADING=1");
        assert!(reloading.contains("MONOTONIC_USEC="), "{reloading}");
        // The worker tells the keeper of both one after the other.
        let mut said = manager.hear("READY=1");
        while said.contains("failing: configuration") != failing {
            said = manager.hear("STATUS=");
        }
    }

    // A worker that stands still is no reason to have the keeper killed, nor is a death.
    let mut client = Client::connect(host.addr("tally"));
    assert_eq!(client.ask("a"), "1 a");
    let worker = host.worker_pid();
    kill(worker as u32, libc::SIGSTOP);
    manager.socket.set_nonblocking(true).expect("a flag");
    while manager.socket.recv(&mut [0; 4096]).is_ok() {}
    manager.socket.set_nonblocking(false).expect("a flag");
    manager.hear("WATCHDOG=1");
    manager.hear("WATCHDOG=1");
    kill(worker as u32, libc::SIGKILL);
    let next = loop {
        let message = manager.hear("STATUS=");
        if message.contains(" serves") {
            break message;
        }
    };
    assert!(!next.contains(&worker.to_string()) && !next.contains("READY=1"), "{next}");
    assert_eq!(client.ask("b"), "2 b");

    host.signal(libc::SIGTERM);
    let stopping = manager.hear("STOPPING=1");
    assert!(stopping.contains("EXTEND_TIMEOUT_USEC="), "{stopping}");
    assert_eq!(host.wait(), Some(0));
}

/// The loop waits for no manager: not for one whose queue is full, nor for one that is gone.
#[test]
fn a_service_manager_that_reads_nothing_holds_up_no_session() {
    let dir = tempfile::tempdir().expect("a directory");
    let manager = Manager::new(dir.path());
    let host = Host::serve_with(&["echo", "tally"], &[&built("libecho.so")], |c| {
        c.env("NOTIFY_SOCKET", &manager.path).env("WATCHDOG_USEC", "2000");
    });
    let other = UnixDatagram::unbound().expect("a socket");
    other.set_nonblocking(true).expect("a flag");
    wait_for("a full queue", || match other.send_to(b"X=1", &manager.path) {
        Err(e) if e.kind() == ErrorKind::WouldBlock => Some(()),
        _ => None,
    });
    let mut client = Client::connect(host.addr("tally"));
    assert_eq!(client.ask("a"), "1 a");
    host.kill_worker();
    assert_eq!(client.ask("b"), "2 b");
    // Read again, the manager hears what is so by now.
    let serves = format!("worker {} serves", host.worker_pid());
    while !manager.next().contains(&serves) {}
    drop(manager);
    assert_eq!(client.ask("c"), "3 c");
    host.kill_worker();
    assert_eq!(client.ask("d"), "4 d");
}

/// A port below 1024 that nobody has.
fn low_port() -> SocketAddr {
    let free = (600..1024).map(|port| SocketAddr::from(([127, 0, 0, 1], port)));
    free.into_iter().find(|at| TcpListener::bind(at).is_ok()).expect("a port below 1024")
}

/// A directory that other users may enter, with the library in it.
fn open_dir() -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a directory");
    std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o755)).expect("a mode");
    install(&built("libecho.so"), &dir.path().join("libecho.so"));
    dir
}

/// Checks that keeper and worker run as this user, and that the keeper alone may bind low ports.
#[track_caller]
fn check_rights(host: &Host, uid: &str) {
    let worker = host.worker_pid() as u32;
    for (pid, rights) in [(host.pid(), "0000000000000400"), (worker, "0000000000000000")] {
        assert_eq!(status(pid, "Uid"), [uid; 4].join(" "));
        for set in ["CapPrm", "CapEff"] {
            assert_eq!(status(pid, set), rights, "{set} of {pid}, the worker is {worker}");
        }
        assert_eq!(status(pid, "CapAmb"), "0000000000000000");
    }
}

const NOBODY: &str = "65534";

/// Started by root, a host binds a port below 1024 as another user, also in a later reload. Its
/// files are that user's, and no handler has a right of root.
#[test]
fn a_host_that_root_starts_goes_on_as_another_user() {
    let dir = open_dir();
    let (library, config) = (dir.path().join("libecho.so"), dir.path().join("greenroom.toml"));
    let write = |more: &str| {
        std::fs::write(&config, format!("[process]\nuser = \"{NOBODY}\"\n{more}")).expect("a file");
        std::fs::set_permissions(&config, PermissionsExt::from_mode(0o644)).expect("a mode");
    };
    write("");
    let command = || {
        let mut command = Command::new(built("greenroom"));
        command.arg("serve").arg(&library).arg("--config").arg(&config);
        command
    };
    if !is_root() {
        let out = command().output().expect("greenroom");
        assert_eq!(out.status.code(), Some(1));
        let said = String::from_utf8_lossy(&out.stderr);
        assert!(said.contains("only root can start a host as user nobody"), "{said}");
        return;
    }
    let (first, run) = (low_port(), dir.path().join("run"));
    let mut serve = command();
    serve.args(["--listen", &format!("echo={first}"), "--listen", "tally=127.0.0.1:0"]);
    serve.env("GREENROOM_RUNTIME", &run);
    let mut host = Host::start(dir, serve);
    check_rights(&host, NOBODY);
    assert_eq!(status(host.pid(), "NoNewPrivs"), "1");
    let groups = status(host.pid(), "Groups");
    assert!(groups.split(' ').all(|group| group == NOBODY || group.is_empty()), "{groups}");
    for entry in std::fs::read_dir(&run).expect("files").flatten() {
        let owner = entry.metadata().expect("a file").uid().to_string();
        assert_eq!(owner, NOBODY, "{:?}", entry.path());
    }
    assert_eq!(std::fs::metadata(&run).expect("a directory").mode() & 0o7777, 0o700);

    // The command line names the addresses of echo alone.
    let mut client = Client::connect(first);
    assert_eq!(client.ask("one"), "one");
    let second = low_port();
    write(&format!("[service.late]\nlisten = [\"{second}\"]\n"));
    let out = host.cli(&["reload", "--config"]);
    assert!(out.status.success(), "{out:?}");
    host.kill_worker();
    check_rights(&host, NOBODY);
    assert_eq!(client.ask("two"), "two");
    // Only a start changes the user.
    std::fs::write(&config, "[process]\nuser = \"root\"\n").expect("a file");
    let out = host.cli(&["reload", "--config"]);
    let said = format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    assert!(out.status.code() == Some(1) && said.contains("process.user"), "{said}");
    host.signal(libc::SIGTERM);
    assert_eq!(host.wait(), Some(0));
}

/// Under `AmbientCapabilities=` of systemd the keeper keeps its right from all that it starts.
/// Without the right, the refusal says how to get it.
#[test]
fn only_the_keeper_may_bind_ports_below_1024() {
    if !is_root() {
        let at = low_port_for_others();
        let out = refused(Command::new(built("greenroom")), at);
        assert!(out.contains("CAP_NET_BIND_SERVICE") && out.contains("process.user"), "{out}");
        return;
    }
    let as_nobody = |more: &[&str]| {
        let mut command = Command::new("setpriv");
        command.args(["--reuid", NOBODY, "--regid", NOBODY, "--clear-groups"]).args(more);
        command.arg(built("greenroom"));
        command
    };
    let out = refused(as_nobody(&[]), low_port_for_others());
    assert!(out.contains("CAP_NET_BIND_SERVICE") && out.contains("process.user"), "{out}");

    let (dir, port) = (open_dir(), low_port());
    let run = dir.path().join("run");
    std::fs::create_dir(&run).expect("a directory");
    std::fs::set_permissions(&run, PermissionsExt::from_mode(0o700)).expect("a mode");
    std::os::unix::fs::chown(&run, Some(65534), Some(65534)).expect("an owner");
    let mut serve = as_nobody(&["--inh-caps", "+net_bind_service", "--ambient-caps", "+net_bind_service"]);
    serve.arg("serve").arg(dir.path().join("libecho.so")).env("GREENROOM_RUNTIME", run);
    serve.args(["--listen", &format!("echo={port}"), "--listen", "tally=127.0.0.1:0"]);
    let host = Host::start(dir, serve);
    check_rights(&host, NOBODY);
    assert_eq!(Client::connect(port).ask("one"), "one");
}

/// The highest port that needs a right. Panics on a system that gives all ports to everybody.
fn low_port_for_others() -> SocketAddr {
    let first = std::fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start").expect("a number");
    let first: u16 = first.trim().parse().expect("a number");
    SocketAddr::from(([127, 0, 0, 1], first.checked_sub(1).expect("ports that need a right")))
}

/// Words of a host that cannot listen at this address.
#[track_caller]
fn refused(mut command: Command, at: SocketAddr) -> String {
    let dir = open_dir();
    command.arg("serve").arg(dir.path().join("libecho.so"));
    command.args(["--listen", &format!("echo={at}"), "--listen", "tally=127.0.0.1:0"]);
    // In a directory of its own user.
    let run = PathBuf::from(format!("/tmp/greenroom-low-{}", std::process::id()));
    let out = command.env("GREENROOM_RUNTIME", &run).output().expect("greenroom");
    let _ = std::fs::remove_dir_all(run);
    assert_eq!(out.status.code(), Some(1), "{out:?}");
    String::from_utf8_lossy(&out.stderr).into_owned()
}

/// In a namespace of processes the host is process 1, as in a container: it reaps, hears signals,
/// replaces its worker, and its end ends the namespace.
#[test]
fn a_host_that_is_process_1_reaps_replaces_its_worker_and_stops() {
    let dir = tempfile::tempdir().expect("a directory");
    let run = dir.path().join("run");
    let mut command = Command::new("unshare");
    // Without root, in a user namespace, in which everybody is root.
    command.args(if is_root() { &["--pid"][..] } else { &["--map-root-user", "--pid"] });
    command.args(["--fork", "--mount-proc"]).arg(built("greenroom")).arg("serve").arg(built("libecho.so"));
    command.args(["--listen", "echo=127.0.0.1:0", "--listen", "tally=127.0.0.1:0"]);
    let mut host = Host::start(dir, {
        command.env("GREENROOM_RUNTIME", run);
        command
    });
    let children = |of: u32| {
        let text = std::fs::read_to_string(format!("/proc/{of}/task/{of}/children")).expect("children");
        text.split_whitespace().map(|pid| pid.parse::<u32>().expect("a pid")).collect::<Vec<_>>()
    };
    let keeper = children(host.pid())[0];
    assert_eq!(status(keeper, "NSpid").split(' ').next_back(), Some("1"));
    // The host knows its worker by the number in the namespace.
    let worker = || {
        let number = host.worker_pid().to_string();
        let is_it = |pid: &u32| status(*pid, "NSpid").split(' ').next_back() == Some(&number);
        children(keeper).into_iter().find(is_it).expect("a worker")
    };
    let mut client = Client::connect(host.addr("tally"));
    assert_eq!(client.ask("a"), "1 a");
    let first = worker();
    kill(first, libc::SIGKILL);
    assert_eq!(client.ask("b"), "2 b");
    assert_ne!(worker(), first);

    // An orphan becomes a child of process 1.
    let mut enter = Command::new("nsenter");
    enter.args(["--target", &keeper.to_string(), "--pid"]);
    if !is_root() {
        enter.args(["--user", "--preserve-credentials"]);
    }
    let out = enter.args(["sh", "-c", "sleep 1000 >/dev/null 2>&1 &"]).status().expect("nsenter");
    assert!(out.success());
    let is_sleep =
        |pid: &u32| std::fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|c| c.trim() == "sleep");
    let orphan = wait_for("the orphan's new parent", || children(keeper).into_iter().find(is_sleep));
    kill(orphan, libc::SIGKILL);
    wait_for("nobody", || (!Path::new(&format!("/proc/{orphan}")).exists()).then_some(()));

    kill(keeper, libc::SIGTERM);
    assert_eq!(host.wait(), Some(0));
    assert_eq!(client.line(), None);
}
