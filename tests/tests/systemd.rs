//! The package's unit under the real systemd, as process 1 of namespaces: start, reload, refusal,
//! death of the worker, watchdog, restart and stop, with all hardening in force.
//!
//! Needs root, as other tests with mounts do. Without root, `package.rs` checks the unit alone.

use greenroom_tests::client::Client;
use greenroom_tests::{built, root, wait_for};
use serde_json::Value;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output};

/// systemd in namespaces. Dropping it ends all that runs there.
struct Systemd {
    child: Child,
    base: tempfile::TempDir,
    /// Process 1, by its number here.
    pid: u32,
}

impl Systemd {
    /// Boots, and waits until it has.
    #[track_caller]
    fn boot(base: tempfile::TempDir) -> Systemd {
        let log = File::create(base.path().join("log")).expect("a log");
        let mut boot = Command::new(root().join("tests/fixtures/systemd.sh"));
        boot.arg(base.path()).arg(built("greenroom"));
        let out = log.try_clone().expect("a descriptor");
        let mut child = boot.stdout(out).stderr(log).spawn().expect("bash");
        let said = || std::fs::read_to_string(base.path().join("log")).unwrap_or_default();
        let pid = wait_for("systemd", || {
            assert!(matches!(child.try_wait(), Ok(None)), "systemd can't be booted: {}", said());
            let of = child.id();
            let children = std::fs::read_to_string(format!("/proc/{of}/task/{of}/children")).ok()?;
            let pid = children.trim().parse().ok()?;
            let is_it = std::fs::read_to_string(format!("/proc/{pid}/comm")).ok()?.trim() == "systemd";
            is_it.then_some(pid)
        });
        let systemd = Systemd { child, base, pid };
        wait_for("the boot", || {
            let out = systemd.run(&["systemctl", "is-active", "basic.target"]);
            out.status.success().then_some(())
        });
        systemd
    }

    /// Runs a command inside.
    fn run(&self, command: &[&str]) -> Output {
        let mut enter = Command::new("nsenter");
        enter.args(["--target", &self.pid.to_string()]);
        enter.args(["--mount", "--uts", "--ipc", "--pid", "--cgroup", "--root", "--wd=/"]);
        // A command there finds its host as an operator's does.
        enter.args(command).env_remove("XDG_RUNTIME_DIR").env_remove("GREENROOM_RUNTIME");
        enter.output().expect("nsenter")
    }

    /// Runs a command inside that must succeed, and returns its output.
    #[track_caller]
    fn must(&self, command: &[&str]) -> String {
        let out = self.run(command);
        assert!(out.status.success(), "{command:?}: {out:?}\n{}", self.journal());
        String::from_utf8_lossy(&out.stdout).trim().to_owned()
    }

    /// Log of the unit.
    fn journal(&self) -> String {
        let out = self.run(&["journalctl", "--unit=greenroom", "--output=cat", "--no-pager"]);
        String::from_utf8_lossy(&out.stdout).into_owned()
    }

    /// A property of the unit.
    #[track_caller]
    fn property(&self, name: &str) -> String {
        self.must(&["systemctl", "show", "--value", "--property", name, "greenroom"])
    }

    /// Status of the host.
    #[track_caller]
    fn status(&self) -> Value {
        serde_json::from_str(&self.must(&["greenroom", "status", "--json"])).expect("JSON")
    }

    /// Address of `tally`, at a port that the kernel chose.
    #[track_caller]
    fn tally(&self) -> Client {
        let status = self.status();
        let services = status["services"].as_array().expect("services");
        let tally = services.iter().find(|s| s["name"] == "tally").expect("tally");
        let text = tally.to_string();
        let at = text.split("tcp://").nth(1).and_then(|rest| rest.split('"').next());
        Client::connect(at.and_then(|at| at.parse().ok()).unwrap_or_else(|| panic!("{text}")))
    }

    /// Puts a build into the directory of handlers, in one step.
    #[track_caller]
    fn put(&self, name: &str) {
        let script = format!(
            "cd /usr/lib/greenroom/handlers && install -m 644 /run/out/{name} .new && mv .new libecho.so"
        );
        self.must(&["sh", "-c", &script]);
    }
}

impl Drop for Systemd {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- the unit's journal ---\n{}", self.journal());
        }
        // SAFETY: the process is not reaped before its parent ends, which is our child.
        unsafe { libc::kill(self.pid as i32, libc::SIGKILL) };
        let _ = self.child.wait();
        let group = std::fs::read_to_string(self.base.path().join("group")).unwrap_or_default();
        let remove = Command::new("find").args([group.trim(), "-depth", "-type", "d", "-delete"]).output();
        let _ = remove;
    }
}

/// Files of the package, and two builds and a file that is none.
fn stage(out: &Path) {
    std::fs::create_dir_all(out).expect("a folder");
    for name in ["greenroom.service", "greenroom.sysusers", "greenroom.tmpfiles", "greenroom.toml"] {
        std::fs::copy(root().join("host/package").join(name), out.join(name)).expect("a file");
    }
    let build = std::fs::read(built("libecho.so")).expect("a build");
    std::fs::write(out.join("first.so"), &build).expect("a build");
    // The same code with another hash.
    std::fs::write(out.join("second.so"), [&build[..], b"\n"].concat()).expect("a build");
    std::fs::write(out.join("none.so"), "no library").expect("a file");
    let install = "set -e; cd /run/out
        install -d /usr/lib/greenroom /etc/greenroom
        install -m 644 greenroom.toml /etc/greenroom
        printf '[service.%s]\\nlisten = [\"127.0.0.1:0\"]\\n' echo tally >>/etc/greenroom/greenroom.toml
        install -m 644 greenroom.service /usr/lib/systemd/system
        install -m 644 greenroom.sysusers /usr/lib/sysusers.d/greenroom.conf
        install -m 644 greenroom.tmpfiles /usr/lib/tmpfiles.d/greenroom.conf
        systemd-sysusers greenroom.conf
        systemd-tmpfiles --create greenroom.conf
        systemctl daemon-reload";
    std::fs::write(out.join("install"), install).expect("a file");
}

#[test]
fn the_unit_starts_reloads_refuses_recovers_and_stops_under_systemd() {
    // SAFETY: the call has no preconditions.
    if unsafe { libc::geteuid() } != 0 {
        eprintln!("systemd is not tried: that needs root");
        return;
    }
    let base = tempfile::tempdir().expect("a directory");
    let out: PathBuf = base.path().join("out");
    stage(&out);
    let systemd = Systemd::boot(base);
    systemd.must(&["sh", "/run/out/install"]);
    systemd.put("first.so");

    // Returns when the host serves.
    systemd.must(&["systemctl", "start", "greenroom"]);
    let worker = systemd.status()["host"]["worker_pid"].as_i64().expect("a pid");
    assert_eq!(systemd.property("StatusText"), format!("worker {worker} serves"));
    // Hardening leaves the trial all of its own confinement.
    let confined = systemd.status()["host"]["confinement"].clone();
    assert_eq!(confined["namespaces"], true, "{confined}");
    assert_eq!(confined["missing"].as_array().map(Vec::len), Some(0), "{confined}");
    let mut client = systemd.tally();
    assert_eq!(client.ask("a"), "1 a");

    // A build that is loaded, one that is refused, a configuration that is refused.
    let reload = || systemd.run(&["systemctl", "reload", "greenroom"]).status.success();
    let generation = || systemd.status()["services"][0]["generation"].as_u64();
    systemd.put("second.so");
    assert!(reload(), "{}", systemd.journal());
    assert_eq!(generation(), Some(2));
    systemd.put("none.so");
    assert!(!reload());
    assert!(systemd.journal().contains("it is not an ELF file"), "{}", systemd.journal());
    systemd.put("second.so");
    systemd.must(&["sh", "-c", "echo '[nonsense]' >>/etc/greenroom/greenroom.toml"]);
    assert!(!reload());
    systemd.must(&["sed", "-i", "$d", "/etc/greenroom/greenroom.toml"]);
    assert!(reload(), "{}", systemd.journal());
    assert_eq!((systemd.property("ActiveState").as_str(), client.ask("b").as_str()), ("active", "2 b"));

    // The worker dies, and the unit lives.
    let worker = systemd.status()["host"]["worker_pid"].to_string();
    systemd.must(&["kill", "-KILL", &worker]);
    assert_eq!(client.ask("c"), "3 c");
    assert_eq!(systemd.property("NRestarts"), "0");
    // The log speaks to the journal itself: levels are priorities, and fields can be asked for.
    let died = wait_for("the death in the journal", || {
        let found = systemd.must(&[
            "journalctl",
            "--output=json",
            "--no-pager",
            "GREENROOM_PROCESS=keeper",
            "PRIORITY=3",
        ]);
        let entries = found.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        entries.into_iter().find(|e| e["MESSAGE"].as_str().is_some_and(|m| m.starts_with("the worker died")))
    });
    assert_eq!(died["GREENROOM_WORKER_PID"], worker, "{died}");
    assert_eq!(died["SYSLOG_IDENTIFIER"], "greenroom", "{died}");

    // A keeper that stands still is replaced, with the unit.
    let fast = "mkdir -p /run/systemd/system/greenroom.service.d
        printf '[Service]\\nWatchdogSec=1\\n' >/run/systemd/system/greenroom.service.d/fast.conf
        systemctl daemon-reload && systemctl restart greenroom";
    systemd.must(&["sh", "-c", fast]);
    let keeper = systemd.property("MainPID");
    systemd.must(&["kill", "-STOP", &keeper]);
    wait_for("a restart", || {
        (systemd.property("NRestarts") == "1" && systemd.property("ActiveState") == "active").then_some(())
    });
    assert_ne!(systemd.property("MainPID"), keeper);
    assert_eq!(systemd.tally().ask("a"), "1 a");

    systemd.must(&["systemctl", "stop", "greenroom"]);
    let ended = [systemd.property("ActiveState"), systemd.property("Result")];
    assert_eq!(ended, ["inactive", "success"]);
    systemd.must(&["test", "-f", "/var/lib/greenroom/tables"]);
}
