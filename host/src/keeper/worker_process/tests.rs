//! Two workers side by side, each with a child process and a socket of its own.

use super::*;
use crate::config::Config;
use crate::keeper::connections::Connections;
use crate::protocol::found::Found;
use crate::protocol::link::pair;
use mio::{Events, Poll};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::process::Command;

/// Start of a worker's process.
struct Started {
    /// The process's end of the socket.
    link: Link<ToWorker, ToKeeper>,
    /// Inodes of the records, the input and the board that the process was given.
    files: Vec<u64>,
}

/// A first message whose content does not matter: no child reads it.
fn hello() -> Hello {
    Hello {
        host_number: 1,
        incarnation: 0,
        config: Config::default(),
        found: Found::default(),
        copies: "/".into(),
        save: "/".into(),
        log: "info".into(),
        blocked: Vec::new(),
        give_way: Vec::new(),
        killed: Vec::new(),
        crashed: false,
        handed_over: false,
        ports: Vec::new(),
        trial: None,
        endpoint_last: EndpointId::NONE,
        hears_refusals: true,
        hears_output: true,
        log_file: None,
        log_to: Default::default(),
        log_services: Default::default(),
        holds_builds: true,
        knows_files: true,
        gives_up: true,
        hears_failures: true,
        starts_tls: true,
        only_saves: false,
        ended_loads: Vec::new(),
        commits_each_turn: false,
        job_death: Default::default(),
        crashes_outside: 0,
    }
}

/// Starts a child that sleeps in a worker's place, and takes its greeting.
fn start(worker: &mut WorkerProcess, poll: &Poll, to_hand: &[u32]) -> Started {
    let (ours, theirs) = pair().unwrap();
    let child = Command::new("sleep").arg("60").spawn().unwrap();
    let spawned = Spawned { process: Some(Process::watch(child).unwrap()), link: ours };
    worker.begin(poll.registry(), spawned, &hello(), to_hand.iter().copied().collect()).unwrap();
    let mut link = Link::new(theirs);
    let Ok(Received::Message(ToWorker::Hello, fds)) = link.receive() else { panic!("no greeting") };
    assert_eq!(fds.len(), 4);
    let inode = |fd: OwnedFd| std::fs::File::from(fd).metadata().unwrap().ino();
    Started { link, files: fds.into_iter().take(3).map(inode).collect() }
}

/// Hands the next batch over. False: nothing to hand over, or not now.
fn hand_next(worker: &mut WorkerProcess, connections: &Connections) -> bool {
    let Some(keys) = worker.next_batch() else { return false };
    let n = keys.len();
    let batch = connections.batch(keys);
    worker.hand(n, batch, Default::default())
}

/// Waits for the end of a process.
fn wait_for_end(worker: &mut WorkerProcess, poll: &mut Poll) -> ExitStatus {
    let mut events = Events::with_capacity(8);
    loop {
        if let Some(status) = worker.exit_status() {
            return status;
        }
        poll.poll(&mut events, Some(Duration::from_secs(30))).unwrap();
        assert!(!events.is_empty(), "no event tells of its end");
    }
}

/// Whether nothing was sent to a process.
fn is_silent(started: &mut Started) -> bool {
    matches!(started.link.receive(), Ok(Received::Nothing))
}

#[test]
fn two_workers_have_phases_links_connections_and_deaths_of_their_own() {
    let mut poll = Poll::new().unwrap();
    let mut connections = Connections::default();
    for _ in 0..3 {
        connections.add(std::fs::File::open("/dev/null").unwrap().into(), EndpointId(6));
    }
    let mut workers = vec![WorkerProcess::new().unwrap(), WorkerProcess::new().unwrap()];
    let mut first = start(&mut workers[0], &poll, &[0, 1]);
    let mut second = start(&mut workers[1], &poll, &[2]);
    assert!(workers[0].pid().is_some() && workers[0].pid() != workers[1].pid());
    assert!(first.files.iter().all(|inode| !second.files.contains(inode)), "memory files are shared");

    // Messages of one are not heard from the other, and a ready one leaves the other starting.
    first.link.send(&ToKeeper::Ready(Vec::new(), 7));
    assert!(matches!(workers[1].receive(), Some(Ok(Received::Nothing))));
    assert!(matches!(workers[0].receive(), Some(Ok(Received::Message(ToKeeper::Ready(_, 7), _)))));
    assert_eq!(workers[0].is_ready(Vec::new()), (true, None));
    assert_eq!((workers[0].phase().name(), workers[1].phase().name()), ("serving", "starting"));

    // Each is handed its own connections, and the start waits for them.
    workers[1].tell_to_start();
    assert!(is_silent(&mut second), "one connection is still to come");
    assert!(hand_next(&mut workers[1], &connections) && !hand_next(&mut workers[1], &connections));
    workers[1].tell_to_start();
    assert!(matches!(second.link.receive(),
        Ok(Received::Message(ToWorker::Endpoints(runs), _)) if runs == [(EndpointId(6), 1)]));
    assert!(matches!(second.link.receive(),
        Ok(Received::Message(ToWorker::Connections(c), _)) if c == [(2, 3)]));
    assert!(matches!(second.link.receive(), Ok(Received::Message(ToWorker::Start, _))));
    assert!(is_silent(&mut first));
    workers[1].is_ready(Vec::new());

    // If one does not acknowledge its batches, the other goes on accepting.
    while hand_next(&mut workers[0], &connections) {
        workers[0].queue([0]);
    }
    assert!(!workers[0].takes_connections() && workers[1].takes_connections());
    workers[0].acknowledged();
    assert!(workers[0].takes_connections());

    // The second hands over, and the first dies.
    workers[1].hand_over();
    assert_eq!((workers[0].phase().name(), workers[1].phase().name()), ("serving", "handing over"));
    let (pid, other) = (workers[0].pid().unwrap(), workers[1].pid());
    workers[0].kill();
    let status = wait_for_end(&mut workers[0], &mut poll);
    assert!(workers[1].exit_status().is_none());
    let ended = workers[0].bury(poll.registry(), status);
    assert_eq!((ended.pid, ended.cause()), (pid, ("killed (SIGKILL)".into(), false)));
    let (cause, own) = ended.cause();
    workers[0].deaths_mut().note(cause, own);
    assert_eq!((workers[0].deaths().last(), workers[1].deaths().last()), (Some("killed (SIGKILL)"), None));
    assert_eq!((workers[0].phase().name(), workers[1].phase().name()), ("parked", "handing over"));
    assert!(workers[0].is_due(Instant::now()) && !workers[1].is_due(Instant::now()));
    assert!(!workers[0].tell_to_stop(15) && workers[1].tell_to_stop(15));
    assert_eq!((workers[0].pid(), workers[1].pid()), (None, other));
    assert!(matches!(second.link.receive(), Ok(Received::Message(ToWorker::HandOver, _))));
    assert!(matches!(second.link.receive(), Ok(Received::Message(ToWorker::Stop(15), _))));

    // The successor of the first has the same memory files, and the second is as before.
    let again = start(&mut workers[0], &poll, &[]);
    assert_eq!(again.files, first.files);
    assert_eq!((workers[0].incarnation(), workers[1].incarnation()), (2, 1));
    let (is_first, gap) = workers[0].is_ready(Vec::new());
    assert!(!is_first && gap.is_some());
    assert!(!workers[0].is_told_to_stop() && workers[1].is_told_to_stop());
    for worker in &mut workers {
        worker.abandon(poll.registry());
    }
}

#[test]
fn a_pause_doubles_with_each_failure_until_a_process_serves() {
    let mut workers = [WorkerProcess::new().unwrap(), WorkerProcess::new().unwrap()];
    let rests: Vec<_> = (0..9).map(|_| workers[0].park("no".into()).as_millis()).collect();
    assert_eq!(rests, [0, 100, 200, 400, 800, 1600, 3200, 5000, 5000]);
    assert!(!workers[0].is_due(Instant::now()));
    assert_eq!(workers[1].park("no".into()), Duration::ZERO);
    workers[0].is_ready(Vec::new());
    assert_eq!(workers[0].park("no".into()), Duration::ZERO);
}
