//! A `greenroom serve` of the test's own, and the other commands against it.
//!
//! Each host has a directory of its own for runtime files and log, and ports that the kernel
//! chooses, so tests run beside each other. A host that is dropped is killed, and if the test
//! panics, its log is printed.

use crate::{built, wait_for};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

/// Running host. Dropping it kills it.
pub struct Host {
    child: Child,
    dir: tempfile::TempDir,
    /// Addresses by services, as the host printed them. The name of a kind follows that of the
    /// service, but for the first kind.
    ports: BTreeMap<String, SocketAddr>,
    /// Lines that it printed before it was ready.
    said: Vec<String>,
}

impl Host {
    /// Starts a host on ports that the kernel chooses, and waits until it is ready. `services`
    /// are those with a port; `args` go to `serve`. Panics with the log if the host does not
    /// get ready.
    #[track_caller]
    pub fn serve(services: &[&str], args: &[&Path]) -> Host {
        Host::serve_with(services, args, |_| {})
    }

    /// Starts a host for one service of one library, with these lines under `[limits]`.
    #[track_caller]
    pub fn serve_limited(service: &str, library: &Path, limits: &str) -> Host {
        let dir = tempfile::tempdir().expect("a directory for the host");
        let config = dir.path().join("greenroom.toml");
        std::fs::write(&config, format!("[limits]\n{limits}\n")).expect("a configuration");
        Host::serve_in(dir, &[service], &[library], |c| {
            c.arg("--config").arg(config);
        })
    }

    /// Starts a host with more arguments or environment than [`Host::serve`].
    #[track_caller]
    pub fn serve_with(services: &[&str], args: &[&Path], more: impl FnOnce(&mut Command)) -> Host {
        let dir = tempfile::tempdir().expect("a directory for the host");
        Host::serve_in(dir, services, args, more)
    }

    /// Starts a host in a directory. `more` changes the command last.
    #[track_caller]
    fn serve_in(
        dir: tempfile::TempDir,
        services: &[&str],
        args: &[&Path],
        more: impl FnOnce(&mut Command),
    ) -> Host {
        let mut command = Command::new(built("greenroom"));
        command.arg("serve").args(args).args(["--log", "debug"]);
        for service in services {
            command.args(["--listen", &format!("{service}=127.0.0.1:0")]);
        }
        command.env("GREENROOM_RUNTIME", dir.path().join("run"));
        let log = File::create(dir.path().join("log")).expect("a log");
        command.stdout(Stdio::piped()).stderr(log);
        more(&mut command);
        Host::wait_ready(dir, command)
    }

    /// Starts a host in a directory by a whole command, which becomes `greenroom serve` with the
    /// directory's `run` as its runtime directory.
    #[track_caller]
    pub fn start(dir: tempfile::TempDir, mut command: Command) -> Host {
        let log = File::create(dir.path().join("log")).expect("a log");
        command.stdout(Stdio::piped()).stderr(log);
        Host::wait_ready(dir, command)
    }

    /// Starts a host, and waits until it is ready. Its output is a pipe.
    #[track_caller]
    fn wait_ready(dir: tempfile::TempDir, mut command: Command) -> Host {
        let mut child = command.spawn().expect("greenroom serve");
        let mut ports = BTreeMap::new();
        let stdout = child.stdout.take().expect("its output");
        let (mut ready, mut said) = (false, Vec::new());
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            if line == "ready" {
                ready = true;
                break;
            }
            let Some((service, (kind, addr))) =
                line.split_once(" on ").and_then(|(s, e)| Some((s, e.split_once("://")?)))
            else {
                said.push(line);
                continue;
            };
            // An endpoint at `[::]` tells which stacks it takes behind the address.
            if let Ok(addr) = addr.split(' ').next().unwrap_or_default().parse() {
                let name = if kind == "tcp" { service.to_owned() } else { format!("{service} {kind}") };
                ports.insert(name, addr);
            }
            said.push(line);
        }
        let host = Host { child, dir, ports, said };
        assert!(ready, "the host did not get ready:\n{}", host.log());
        host
    }

    /// Address that a service listens at: `chat`, or `chat telnet` for an endpoint of a kind.
    /// Panics if it was not among the services asked for.
    #[track_caller]
    pub fn addr(&self, service: &str) -> SocketAddr {
        *self.ports.get(service).unwrap_or_else(|| panic!("no port of {service}"))
    }

    /// Lines that the host printed before it was ready.
    pub fn said(&self) -> &[String] {
        &self.said
    }

    /// Process of the host: the keeper.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Directory that goes with the host.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Runtime directory of the host.
    pub fn runtime(&self) -> PathBuf {
        self.dir.path().join("run")
    }

    /// Private copies of libraries, without the locks beside them. None while the directory is
    /// missing.
    pub fn copies(&self) -> Vec<PathBuf> {
        let files = std::fs::read_dir(self.runtime().join("copies")).into_iter().flatten().flatten();
        files.map(|f| f.path()).filter(|path| path.extension().is_some_and(|e| e == "so")).collect()
    }

    /// Log so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    /// Waits for a text in the log.
    #[track_caller]
    pub fn wait_log(&self, text: &str) {
        wait_for(&format!("{text:?} in the log:\n{}", self.log()), || {
            self.log().contains(text).then_some(())
        });
    }

    /// Command against this host, not run yet.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(built("greenroom"));
        command.args(args).env("GREENROOM_RUNTIME", self.runtime());
        command
    }

    /// Runs a command against this host.
    pub fn cli(&self, args: &[&str]) -> Output {
        self.command(args).output().expect("greenroom")
    }

    /// Runs a command that must succeed, and reads its JSON.
    #[track_caller]
    pub fn json(&self, args: &[&str]) -> Value {
        let out = self.cli(args);
        assert!(out.status.success(), "{args:?}: {}", String::from_utf8_lossy(&out.stderr));
        serde_json::from_slice(&out.stdout).expect("JSON")
    }

    /// Part of a service in the status.
    #[track_caller]
    pub fn service(&self, name: &str) -> Value {
        let status = self.json(&["status", "--json"]);
        let services = status["services"].as_array().expect("services");
        services.iter().find(|s| s["name"] == name).unwrap_or_else(|| panic!("no service {name}")).clone()
    }

    /// Last line of the ledger.
    #[track_caller]
    pub fn last_ledger_line(&self) -> Value {
        let history = self.json(&["history", "--json"]);
        history.as_array().and_then(|lines| lines.last()).cloned().expect("a line")
    }

    /// Generation that serves a service.
    #[track_caller]
    pub fn generation(&self, service: &str) -> u64 {
        self.service(service)["generation"].as_u64().expect("a generation")
    }

    /// Waits until a generation, or a later one, serves.
    #[track_caller]
    pub fn wait_generation(&self, service: &str, generation: u64) {
        wait_for(&format!("generation {generation} of {service}"), || {
            (self.generation(service) >= generation).then_some(())
        });
    }

    /// Runs `greenroom reload --from PATH`. Returns the exit status and the report.
    #[track_caller]
    pub fn reload_from(&self, service: &str, path: &Path) -> (Option<i32>, Value) {
        let out = self.cli(&["reload", service, "--json", "--from", path.to_str().expect("UTF-8")]);
        let report = serde_json::from_slice(&out.stdout)
            .unwrap_or_else(|e| panic!("{e}: {:?} {}", out, String::from_utf8_lossy(&out.stderr)));
        (out.status.code(), report)
    }

    /// Process that serves: the worker.
    pub fn worker_pid(&self) -> i32 {
        self.json(&["status", "--json"])["host"]["worker_pid"].as_i64().expect("a pid") as i32
    }

    /// Kills the worker, and waits until another one serves.
    pub fn kill_worker(&self) {
        let workers = || self.json(&["status", "--json"])["host"].take();
        let before = workers()["workers_before"].as_u64().expect("a number");
        // SAFETY: the pid is that of a child of our child, which isn't reaped before it is dead.
        unsafe { libc::kill(self.worker_pid(), libc::SIGKILL) };
        crate::wait_for("a successor", || {
            let now = workers();
            (now["workers_before"].as_u64() > Some(before) && now["worker"] == "serving").then_some(())
        });
    }

    /// Sends a signal.
    pub fn signal(&self, signal: i32) {
        // SAFETY: kill has no preconditions; the process is our child and was not waited for.
        unsafe { libc::kill(self.child.id() as i32, signal) };
    }

    /// Kills the keeper, and waits for its end.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Waits for the host's end, and returns its exit status. Panics if a signal ended it.
    pub fn wait(&mut self) -> Option<i32> {
        let status = self.child.wait().expect("the host's end");
        assert_eq!(status.signal(), None, "the host was killed by a signal:\n{}", self.log());
        status.code()
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- the host's log ---\n{}", self.log());
        }
    }
}
