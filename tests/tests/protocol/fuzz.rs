//! A real host, asked at random: it answers by the protocol, refuses, or closes. Its worker goes
//! on, its sessions get their replies, and nothing of the callers stays behind.

use crate::caller::{Answers, Manner, Request, answers, ask, connect};
use crate::requests::{PATHS, data, line};
use crate::{seed, variants};
use fastrand::Rng;
use greenroom::protocol::admin::{AdminCommand, Piece};
use greenroom_state::parse::parse;
use greenroom_tests::client::Client;
use greenroom_tests::host::Host;
use greenroom_tests::{built, wait_for};
use serde_json::Value;
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

/// Callers at once, a thread each.
const CALLERS: usize = 4;
/// Sessions of each service that must go on.
const TALKERS: usize = 2;

/// Host with sessions, and what its callers must know of it.
struct Asked {
    host: Host,
    socket: PathBuf,
    /// Highest number of the sessions that must go on.
    last_talker: u64,
    answers: Answers,
    names: Vec<String>,
}

/// Commands that take the host long: a trial, or a look at files. They are asked more rarely.
const LONG: [&str; 6] = ["reload", "canary", "promote", "roll-back", "configure", "upgrade"];

impl Asked {
    /// Serves the shipped handlers, with files that requests may name beside the host.
    fn serve() -> Asked {
        let libraries = [built("libecho.so"), built("libchat.so")];
        let files: Vec<&Path> = libraries.iter().map(PathBuf::as_path).collect();
        let host = Host::serve_with(&["echo", "tally", "chat"], &files, |host| {
            host.arg("--no-watch");
        });
        let [echo, fifo, words] = ["echo.so", "fifo", "words"].map(|name| host.dir().join(name));
        let bytes = [std::fs::read(&libraries[0]).expect("a library"), vec![0]].concat();
        std::fs::write(&echo, bytes).expect("a library");
        std::fs::write(&words, "#!/bin/sh\nexit 3\n").expect("a file");
        let script = format!("mkfifo {} && chmod 700 {}", fifo.display(), words.display());
        assert!(Command::new("sh").args(["-c", &script]).status().is_ok_and(|s| s.success()));
        let all = [&libraries[..], &[echo, fifo, words, host.dir().to_owned()]].concat();
        PATHS.set(all).expect("set once");
        let socket = host.runtime().join("admin.sock");
        Asked { host, socket, last_talker: 0, answers: answers(), names: variants::<AdminCommand>() }
    }

    /// Request at random that ends, changes and disturbs no session which must go on.
    fn request(&self, rng: &mut Rng) -> Request {
        loop {
            let name = &self.names[rng.usize(..self.names.len())];
            if LONG.contains(&name.as_str()) && rng.u8(..6) > 0 {
                continue;
            }
            let mut request = Request::new(line(rng, name), data(rng));
            if self.spares(request.command.as_ref()) {
                request
                    .data
                    .retain(|lines| lines.split(|byte| *byte == b'\n').all(|line| self.spares_piece(line)));
                return request;
            }
        }
    }

    /// Whether a command leaves the sessions alone that must go on.
    fn spares(&self, command: Option<&AdminCommand>) -> bool {
        let spares = |id: &u64| *id > self.last_talker;
        match command {
            Some(AdminCommand::Close(id) | AdminCommand::Set { session: id, .. }) => spares(id),
            Some(AdminCommand::CloseAll(ids)) => ids.iter().all(spares),
            // A callback that runs by chance would be ended, and its worker.
            Some(AdminCommand::Withhold(of)) => {
                of.parse().map_or(!of.is_empty(), |id| spares(&id))
                    && !["echo", "tally", "chat"].contains(&of.as_str())
            }
            _ => true,
        }
    }

    /// Whether a piece of data leaves those sessions alone.
    fn spares_piece(&self, line: &[u8]) -> bool {
        !matches!(parse(line), Ok(Piece::Session { id, .. }) if id <= self.last_talker)
    }

    /// Asks so often at once, and counts the answers and refusals of each command.
    fn ask_at_random(&self, round: u64, times: usize) -> Counts {
        let ask_often = |caller: usize| {
            let rng = &mut Rng::with_seed(seed() << 16 | round << 8 | caller as u64);
            let mut counts = Counts::new();
            for _ in 0..times / CALLERS {
                let request = self.request(rng);
                let outcome = ask(&self.socket, &request, Manner::random(rng), &self.answers);
                let name = request.command.as_ref().map_or_else(|| "nonsense".into(), name_of);
                let count = counts.entry(name).or_default();
                *count = (
                    count.0 + usize::from(outcome.replies > 0),
                    count.1 + usize::from(outcome.error.is_some()),
                );
            }
            counts
        };
        std::thread::scope(|scope| {
            let callers: Vec<_> = (0..CALLERS).map(|n| scope.spawn(move || ask_often(n))).collect();
            sum(callers.into_iter().map(|caller| caller.join().expect("a caller")))
        })
    }

    /// Figures of a process that must not grow with its callers: descriptors, threads, and resident
    /// memory in kilobytes.
    fn figures(&self, pid: i32) -> (usize, u64, u64) {
        let open = std::fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count);
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let number = |key: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(key)).unwrap_or_default();
            line.split_whitespace().next().and_then(|n| n.parse().ok()).unwrap_or(0)
        };
        (open, number("Threads:"), number("VmRSS:"))
    }

    /// Connects clients that say nothing, and may be closed by whoever asks for it.
    fn victims(&self) -> Vec<Client> {
        ["echo", "tally", "chat"]
            .iter()
            .flat_map(|s| (0..8).map(|_| Client::connect(self.host.addr(s))))
            .collect()
    }
}

/// Answers and refusals by command.
type Counts = BTreeMap<String, (usize, usize)>;

/// Adds counts up.
fn sum(counts: impl IntoIterator<Item = Counts>) -> Counts {
    let mut all = Counts::new();
    for (name, (answered, refused)) in counts.into_iter().flatten() {
        let count = all.entry(name).or_default();
        *count = (count.0 + answered, count.1 + refused);
    }
    all
}

/// Name of a command.
fn name_of(command: &AdminCommand) -> String {
    match serde_json::to_value(command).expect("JSON") {
        Value::Object(fields) => fields.keys().next().cloned().unwrap_or_default(),
        other => other.as_str().unwrap_or_default().to_owned(),
    }
}

/// Talks until it is told to stop. Each line has its reply, in order; messages of operators may
/// come between. Returns the number of lines.
fn talk(mut client: Client, service: &str, number: usize, stop: &AtomicBool) -> usize {
    let mut lines = 0;
    loop {
        lines += 1;
        let word = format!("<{number}:{lines}>");
        client.send(format!("{word}\n"));
        let expected = if service == "tally" { format!("{lines} {word}") } else { word };
        while client.line().expect("the session goes on") != expected {}
        if stop.load(Relaxed) {
            return lines;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn a_host_goes_on_whatever_it_is_asked() {
    let mut asked = Asked::serve();
    let talkers: Vec<_> = ["echo", "tally"]
        .iter()
        .flat_map(|service| (0..TALKERS).map(|_| (*service, Client::connect(asked.host.addr(service)))))
        .collect();
    let numbers = || {
        let all = asked.host.json(&["sessions", "--json"]);
        let ids: Vec<_> = all.as_array().expect("a list").iter().filter_map(|s| s["id"].as_u64()).collect();
        (ids.len() == talkers.len()).then(|| ids.into_iter().max().expect("a session"))
    };
    asked.last_talker = wait_for("the sessions", numbers);
    let (asked, stop) = (&asked, &AtomicBool::new(false));
    let (keeper, worker) = (asked.host.pid() as i32, asked.host.worker_pid());
    std::thread::scope(|scope| {
        let talks: Vec<_> = talkers
            .into_iter()
            .enumerate()
            .map(|(n, (service, client))| scope.spawn(move || talk(client, service, n, stop)))
            .collect();
        // However this ends, the others end, too.
        let _stop = Stop(stop);
        ask_everything(asked, keeper, worker);
        assert!(talks.iter().all(|talk| !talk.is_finished()), "a session has ended");
        stop.store(true, Relaxed);
        assert!(talks.into_iter().all(|talk| talk.join().expect("a talk") > 1));
    });
    let status = asked.host.json(&["status", "--json"]);
    assert_eq!(
        (&status["host"]["worker_pid"], &status["host"]["workers_before"]),
        (&worker.into(), &0.into())
    );
    let log = asked.host.log();
    assert!(!log.contains("panicked"), "{log}");
}

/// Stops the talks, when it is dropped.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}

/// Asks in rounds. The first one warms the host up; behind the last one it holds no more than then.
fn ask_everything(asked: &Asked, keeper: i32, worker: i32) {
    let mut victims = asked.victims();
    let first = asked.ask_at_random(0, 400);
    let before = [keeper, worker].map(|pid| asked.figures(pid));
    let held = hold_callers(&asked.socket);
    let second = asked.ask_at_random(1, 1000);
    crowd(asked);
    victims.extend(asked.victims());
    drop(held);
    let counts = sum([first, second, asked.ask_at_random(2, 800)]);
    // Each command was asked, and answered.
    assert!(counts.len() == asked.names.len() + 1, "{counts:?}");
    assert!(counts.values().all(|(answered, _)| *answered > 0), "{counts:?}");
    assert_eq!(asked.host.worker_pid(), worker, "the worker has died:\n{}", asked.host.log());
    for (pid, (open, threads, resident)) in [keeper, worker].into_iter().zip(before) {
        wait_for(&format!("process {pid} to hold {open} descriptors and {threads} threads again"), || {
            let now = asked.figures(pid);
            // Sessions and private copies of builds come and go.
            (now.0 <= open + 40 && now.1 <= threads + 2).then_some(())
        });
        let now = asked.figures(pid).2;
        assert!(now < resident + 64 * 1024, "process {pid} had {resident} kB, and has {now} kB");
    }
    drop(victims);
}

/// Callers who ask for much, and read nothing.
fn hold_callers(socket: &Path) -> Vec<UnixStream> {
    let asks = [
        "\"metrics\"",
        "\"history\"",
        "{\"dump\":{}}",
        "{\"sessions\":{}}",
        "{\"watch\":{\"subject\":{\"service\":{\"name\":\"tally\",\"per_mille\":1000}}}}",
        "{\"restore\":{\"file\":\"x\",\"dry_run\":true}}",
    ];
    let hold = |line: &&str| {
        let mut stream = connect(socket);
        stream.write_all(format!("{line}\n").as_bytes()).expect("a request");
        stream
    };
    asks.iter().map(hold).collect()
}

/// More callers at once than a host takes: each is answered, or told that there are too many.
fn crowd(asked: &Asked) {
    let silent: Vec<_> = (0..60).map(|_| connect(&asked.socket)).collect();
    let status = Request::new(b"\"status\"".to_vec(), Vec::new());
    let refused = ask(&asked.socket, &status, Manner::Reads, &asked.answers).error.expect("a refusal");
    assert!(refused.contains("commands are under way already"), "{refused}");
    for mut stream in silent {
        let _ = stream.shutdown(Shutdown::Write);
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        assert!(answer.starts_with("{\"error\":"), "{answer}");
    }
    wait_for("a place for a caller", || {
        ask(&asked.socket, &status, Manner::Reads, &asked.answers).error.is_none().then_some(())
    });
}
