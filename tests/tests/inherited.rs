//! Processes of a host, and what they inherit and leave behind: signals, limits, descriptors,
//! forks, groups, orphans.

use greenroom_tests::client::Client;
use greenroom_tests::fixture::{Fixture, install, tally_source};
use greenroom_tests::host::Host;
use greenroom_tests::{built, in_namespace, wait_for};
use std::io::Write;
use std::net::TcpStream;
use std::os::fd::{AsRawFd, IntoRawFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

/// Has a command ignore SIGCHLD and SIGINT, block all signals, have no standard input, and allow
/// cores.
fn hostile(command: &mut Command) {
    let change = || {
        for signal in [libc::SIGCHLD, libc::SIGINT] {
            // SAFETY: the disposition runs no code.
            unsafe { libc::signal(signal, libc::SIG_IGN) };
        }
        // SAFETY: all zero is a valid set.
        let mut all: libc::sigset_t = unsafe { std::mem::zeroed() };
        // SAFETY: the set is ours.
        unsafe { libc::sigfillset(&raw mut all) };
        // SAFETY: the child runs this and then its program.
        unsafe { libc::sigprocmask(libc::SIG_SETMASK, &raw const all, std::ptr::null_mut()) };
        // SAFETY: nothing here uses standard input.
        unsafe { libc::close(0) };
        Ok(())
    };
    // SAFETY: only calls that are allowed between fork and exec.
    unsafe { command.pre_exec(change) };
}

/// Value of a line of `/proc/PID/status`.
#[track_caller]
fn status(pid: i32, name: &str) -> String {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("a process");
    let line = text.lines().find_map(|l| l.strip_prefix(&format!("{name}:")));
    line.unwrap_or_else(|| panic!("no {name} in {text}")).trim().to_owned()
}

/// Whether a process has ended, reaped or not.
fn has_ended(pid: i32) -> bool {
    match std::fs::read_to_string(format!("/proc/{pid}/stat")) {
        Ok(text) => text.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with(['Z', 'X'])),
        Err(_) => true,
    }
}

fn kill(pid: i32, signal: i32) {
    // SAFETY: kill has no preconditions.
    assert_eq!(unsafe { libc::kill(pid, signal) }, 0);
}

/// A tally with lines that start programs and fork.
fn starter(service: &str) -> String {
    let more = r#"
            match &*line {
                "fork" => turn.send_line(format!("forked {}", unsafe { fork() })),
                "child" => {
                    let child = std::process::Command::new("sleep").arg("1000").spawn()?;
                    turn.send_line(format!("started {}", child.id()));
                }
                "orphan" => {
                    let script = "sleep 1000 >/dev/null 2>&1 & echo $!";
                    let out = std::process::Command::new("sh").args(["-c", script]).output()?;
                    turn.send_line(format!("started {}", String::from_utf8_lossy(&out.stdout).trim()));
                }
                _ => {}
            }
            let count"#;
    let source = tally_source(service, service).replacen("            let count", more, 1);
    source.replace("#![forbid(unsafe_code)]", "") + "\nunsafe extern \"C\" { fn fork() -> i32; }\n"
}

/// Number at the end of an answer.
#[track_caller]
fn number(answer: &str) -> i32 {
    answer.rsplit(' ').next().and_then(|n| n.parse().ok()).unwrap_or_else(|| panic!("{answer:?}"))
}

#[test]
fn a_host_serves_and_stops_whatever_its_parent_ignores_blocks_and_leaves_open() {
    let leaked = tempfile::NamedTempFile::new().expect("a file");
    let leaked_path = leaked.path().to_owned();
    // Not closed on exec.
    // SAFETY: a fresh descriptor, which this test owns.
    let open = unsafe { libc::dup(leaked.into_file().into_raw_fd()) };
    let mut host = Host::serve_with(&["echo", "tally"], &[&built("libecho.so")], |c| {
        hostile(c);
        let keep = move || {
            // SAFETY: a flag of a descriptor.
            unsafe { libc::fcntl(open, libc::F_SETFD, 0) };
            Ok(())
        };
        // SAFETY: only a call that is allowed between fork and exec.
        unsafe { c.pre_exec(keep) };
    });
    let mut client = Client::connect(host.addr("echo"));
    assert_eq!(client.ask("one"), "one");
    host.kill_worker();
    assert_eq!(client.ask("two"), "two");

    let worker = host.worker_pid();
    for pid in [host.pid() as i32, worker] {
        assert_eq!(u64::from_str_radix(&status(pid, "SigBlk"), 16), Ok(0));
        let ignored = u64::from_str_radix(&status(pid, "SigIgn"), 16).expect("a mask");
        assert_eq!(ignored & (1 << (libc::SIGCHLD - 1) | 1 << (libc::SIGINT - 1)), 0, "{ignored:x}");
        assert_eq!(status(pid, "Umask"), "0077");
        let limits = std::fs::read_to_string(format!("/proc/{pid}/limits")).expect("limits");
        let cores = limits.lines().find(|l| l.starts_with("Max core file size")).expect("cores");
        assert_eq!(cores.split_whitespace().nth(4), Some("0"), "{cores}");
        assert_eq!(std::fs::read_link(format!("/proc/{pid}/cwd")).expect("a link"), Path::new("/"));
    }
    let names = std::fs::read_dir(format!("/proc/{worker}/fd")).expect("descriptors").flatten();
    let open: Vec<_> = names.filter_map(|e| std::fs::read_link(e.path()).ok()).collect();
    assert!(!open.iter().any(|path| path.starts_with(&leaked_path)), "{open:?}");
    assert!(!open.is_empty());

    let mut check = host.command(&["check", built("libecho.so").to_str().expect("UTF-8")]);
    hostile(&mut check);
    assert!(check.output().expect("greenroom").status.success());

    host.signal(libc::SIGTERM);
    assert_eq!(host.wait(), Some(0));
}

#[test]
fn relative_paths_are_those_of_the_directory_that_the_host_was_started_in() {
    let dir = tempfile::tempdir().expect("a directory");
    install(&built("libecho.so"), &dir.path().join("libecho.so"));
    let write = |sessions: u32| {
        let text = format!("handlers = [\"libecho.so\"]\n[limits]\nsessions_max = {sessions}\n");
        std::fs::write(dir.path().join("host.toml"), text).expect("a configuration");
    };
    write(10);
    let mut host = Host::serve_with(&["echo", "tally"], &[], |c| {
        c.args(["--config", "host.toml", "--copies", "copies"]).current_dir(dir.path());
    });
    host.kill_worker();
    assert_eq!(Client::connect(host.addr("echo")).ask("one"), "one");
    assert!(std::fs::read_dir(dir.path().join("copies")).expect("copies").count() > 0);

    write(11);
    let out = host.cli(&["reload", "--config"]);
    assert!(out.status.success(), "{out:?}");
    host.signal(libc::SIGTERM);
    assert_eq!(host.wait(), Some(0));
}

#[test]
fn signals_without_a_meaning_end_neither_keeper_nor_worker() {
    let host = Host::serve(&["echo", "tally"], &[&built("libecho.so")]);
    let mut client = Client::connect(host.addr("echo"));
    assert_eq!(client.ask("one"), "one");
    let worker = host.worker_pid();
    let both = [libc::SIGUSR1, libc::SIGUSR2, libc::SIGHUP, libc::SIGALRM, libc::SIGPROF, libc::SIGIO];
    for signal in both.into_iter().chain([libc::SIGXFSZ, libc::SIGVTALRM]) {
        kill(host.pid() as i32, signal);
        kill(worker, signal);
        assert_eq!(client.ask("still"), "still");
        assert_eq!(host.worker_pid(), worker, "signal {signal}");
    }
    for signal in [libc::SIGTERM, libc::SIGINT] {
        kill(worker, signal);
        assert_eq!(client.ask("still"), "still");
    }
    assert_eq!(host.worker_pid(), worker);
}

#[test]
fn a_rotated_log_is_opened_again_by_keeper_worker_and_successor() {
    let host = Host::serve(&["echo", "tally"], &[&built("libecho.so")]);
    let (log, rotated) = (host.dir().join("log"), host.dir().join("log.1"));
    host.wait_log("committed");
    let mode = || std::fs::metadata(&log).expect("a log").permissions().mode();
    let before = mode();
    std::fs::rename(&log, &rotated).expect("a rename");
    kill(host.pid() as i32, libc::SIGUSR1);
    wait_for("both processes", || (host.log().matches("the log begins here").count() == 2).then_some(()));
    assert_eq!(mode(), before);
    let old = std::fs::read_to_string(&rotated).expect("a log");

    host.kill_worker();
    host.wait_log("a successor serves");
    host.wait_log("took over");
    assert_eq!(std::fs::read_to_string(&rotated).expect("a log"), old);
}

#[test]
fn a_child_that_a_handler_forks_does_not_become_a_second_worker() {
    let fixture = Fixture::new("forks", &starter("forks"));
    let host = Host::serve(&["forks"], &[&fixture.build()]);
    let mut other = Client::connect(host.addr("forks"));
    assert_eq!(other.ask("first"), "forks 1 first");
    let mut client = Client::connect(host.addr("forks"));
    let child = number(&client.ask("fork"));
    assert!(child > 0);
    assert_eq!(client.line().as_deref(), Some("forks 1 fork"));
    wait_for("the child's end", || has_ended(child).then_some(()));

    for n in 2..20 {
        assert_eq!(client.ask("next"), format!("forks {n} next"));
        assert_eq!(other.ask("next"), format!("forks {n} next"));
    }
    let worker = host.worker_pid();
    host.kill_worker();
    assert_ne!(host.worker_pid(), worker);
    assert_eq!(client.ask("last"), "forks 20 last");
    assert_eq!(other.ask("last"), "forks 20 last");
}

#[test]
fn programs_that_a_worker_started_end_with_it() {
    let fixture = Fixture::new("starts", &starter("starts"));
    let mut host = Host::serve(&["starts"], &[&fixture.build()]);
    let mut client = Client::connect(host.addr("starts"));
    let first = number(&client.ask("child"));
    assert_eq!(client.line().as_deref(), Some("starts 1 child"));
    assert!(!has_ended(first));
    host.kill_worker();
    wait_for("the end of the program", || has_ended(first).then_some(()));

    let second = number(&client.ask("child"));
    assert_eq!(client.line().as_deref(), Some("starts 2 child"));
    assert!(!has_ended(second));
    host.signal(libc::SIGTERM);
    assert_eq!(host.wait(), Some(0));
    wait_for("the end of the program", || has_ended(second).then_some(()));
}

#[test]
fn the_keeper_reaps_orphans_and_still_hears_how_its_worker_ended() {
    let fixture = Fixture::new("orphans", &starter("orphans"));
    let host = Host::serve(&["orphans"], &[&fixture.build()]);
    let mut client = Client::connect(host.addr("orphans"));
    for n in 1..4 {
        let orphan = number(&client.ask("orphan"));
        assert_eq!(client.line(), Some(format!("orphans {n} orphan")));
        wait_for("its new parent", || (status(orphan, "PPid") == host.pid().to_string()).then_some(()));
        kill(orphan, libc::SIGKILL);
        wait_for("nobody", || (!Path::new(&format!("/proc/{orphan}")).exists()).then_some(()));
    }
    // A worker and an orphan that end together.
    let orphan = number(&client.ask("orphan"));
    assert_eq!(client.line().as_deref(), Some("orphans 4 orphan"));
    host.kill_worker();
    wait_for("nobody", || (!Path::new(&format!("/proc/{orphan}")).exists()).then_some(()));
    host.wait_log("the worker died: killed (SIGKILL)");
    assert_eq!(client.ask("last"), "orphans 5 last");
}

/// A standard output whose reader has stopped, as a pager or a terminal that was stopped: the host
/// serves, answers and ends.
#[test]
fn a_standard_output_that_nobody_reads_holds_nothing_up() {
    let dir = tempfile::tempdir().expect("a directory");
    let (reader, mut writer) = std::io::pipe().expect("a pipe");
    // SAFETY: the pipe is ours.
    let room = unsafe { libc::fcntl(writer.as_raw_fd(), libc::F_SETPIPE_SZ, 4096) };
    writer.write_all(&vec![b'x'; usize::try_from(room).expect("its room")]).expect("a full pipe");
    let path = dir.path().join("s.sock");
    let greenroom = |args: &[&str]| {
        let mut command = Command::new(built("greenroom"));
        command.args(args).env("GREENROOM_RUNTIME", dir.path().join("run")).stderr(Stdio::null());
        command
    };
    let library = built("libecho.so");
    let listen = format!("echo=unix:{}", path.display());
    let mut host = greenroom(&["serve", "--listen", &listen, "--listen", "tally=127.0.0.1:0"])
        .arg(library)
        .stdout(writer)
        .spawn()
        .expect("greenroom serve");
    wait_for("a host that answers", || {
        greenroom(&["status"]).stdout(Stdio::null()).status().is_ok_and(|s| s.success()).then_some(())
    });
    let stream = wait_for("the service", || UnixStream::connect(&path).ok());
    assert_eq!(Client::from(TcpStream::from(OwnedFd::from(stream))).ask("hello"), "hello");
    kill(host.id() as i32, libc::SIGTERM);
    assert_eq!(host.wait().expect("its end").code(), Some(0));
    drop(reader);
}

/// A container or a chroot without `/proc` is told what is missing.
#[test]
fn a_host_without_proc_says_what_it_lacks() {
    let dir = tempfile::tempdir().expect("a directory");
    let runtime = dir.path().join("run");
    for arguments in [vec!["check"], vec!["serve", "--runtime", runtime.to_str().expect("text")]] {
        let mut command = in_namespace();
        command.arg("umount -l /proc; exec \"$@\"").arg("sh").arg(built("greenroom")).args(arguments);
        let out = command.arg(built("libecho.so")).output().expect("unshare");
        let said = String::from_utf8_lossy(&out.stderr);
        assert!(
            out.status.code() == Some(1) && said.contains("mount it (mount -t proc proc /proc)"),
            "{said}"
        );
    }
}
