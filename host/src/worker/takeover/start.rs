//! Start of a worker: fresh, or as the successor of one that died, handed over, or had another
//! binary.
//!
//! A successor reads the records of the last commit and gets every connection. Then it loads the
//! private copies of the builds that ran, and asks the kernel how far each connection got. Its
//! first pass runs the input that its predecessor had read and not committed.
//!
//! *Invariant*: a successor commits that pass before it reads anything. Until then it may die too,
//! and the next worker finds the same records, input and byte counts.
//!
//! | step | on failure |
//! | --- | --- |
//! | receive the first message, then all connections | The worker ends. |
//! | scan the records | Damaged parts are given up by name; without a head, all of them. |
//! | load the builds | The worker tells the keeper that it cannot start, and ends. |
//! | reconcile each session with the kernel | The session is given up by name. |
//! | run, commit and send the first pass | The worker dies, and the next one repeats the start. |
//! | report `Ready` | The keeper accepts again. |
//!
//! Clients wait during all of it, and the log names the time: O(n log n) in the records, and as
//! long as the builds take to load. The keeper kills a worker that is not ready after 60 s.

use crate::admin::caller;
use crate::admin::query::Answer;
use crate::config::record;
use crate::crash_points::{self, Point};
use crate::job_threads::JobThreads;
use crate::memory::board::Board;
use crate::memory::input::Pool;
use crate::plugin::authors_code::AuthorsCode;
use crate::plugin::prepare::{self, Job};
use crate::plugin::stage::Copies;
use crate::protocol::keeper::{Hello, TOO_FEW_FILES, ToKeeper, ToWorker};
use crate::protocol::link::Link;
use crate::worker::Worker;
use crate::worker::drivers::Drivers;
use crate::worker::endpoints::Endpoints;
use crate::worker::inbox::{Inbox, Message};
use crate::worker::keeper_link::KeeperLink;
use crate::worker::reload::carry_out::ReloadDriver;
use crate::worker::reload::config_in_force::{ConfigInForce, recorded};
use crate::worker::reload::ports::Ports;
use crate::worker::save::Saver;
use crate::worker::shell::Shell;
use crate::worker::takeover::ended_loads;
use crate::worker::takeover::equip::equip;
use crate::worker::takeover::predecessor_memory::{Files, Memory, open};
use crate::worker::takeover::reconcile::{Backlog, HandedOver, reconcile};
use crate::worker::takeover::save_alone::save_alone;
use crate::worker::takeover::successor;
use crate::worker::takeover::trial::try_out;
use crate::worker::threads::{PrepareThread, Threads};
use crate::worker::transfer::Sockets;
use crate::worker::{connections, messages, process_log};
use crate::{logs, watchdog};
use greenroom_core::core::{Core, Successor};
use greenroom_core::input::Input;
use greenroom_core::ledger::Outcome;
use greenroom_core::recovery::rebuild::Survivor;
use greenroom_core::reload::request::Requester;
use std::collections::BTreeSet;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::Instant;

/// Time in which a worker commits each turn by itself, if its predecessor crashed behind one. What
/// did it is still in the input, and runs at once.
const EACH_TURN_MS: u64 = 2_000;

/// The link to the keeper, before a worker owns it.
type KeeperSocket = Link<ToWorker, ToKeeper>;

/// Serves until the keeper at the socket's other end says otherwise. The thread becomes the loop's.
///
/// `own_process`: the worker is no thread of the keeper, so it starts a log of its own. If the
/// first message asks for a trial, the worker answers that and ends.
///
/// An error says why this worker cannot serve, or why its loop ended. The keeper is told the reason
/// if connections or memory are missing or a build does not load; else it sees only the end.
pub fn serve(fd: OwnedFd, own_process: bool) -> Result<(), String> {
    let mut link = KeeperSocket::new(fd);
    let (hello, unknown, files) = receive_hello(&mut link)?;
    let _log = if own_process { Some(process_log::start(&hello, &mut link)?) } else { None };
    record::warn_of(&unknown);
    if let Some(epoch) = hello.trial {
        let verdict = try_out(&hello, &files.region, epoch);
        link.send(&ToKeeper::Tried(verdict));
        return Ok(());
    }
    if hello.only_saves {
        return save_alone(&hello, &mut link, &files);
    }
    // A trial passes no crash points: the plan is for workers that serve.
    crash_points::arm();
    let mut early = Vec::new();
    let taken = take_connections(&mut link, &mut early);
    let (handed_over, memory) = match taken.and_then(|all| Ok((all, open(&hello, &files)?))) {
        Ok(both) => both,
        Err(why) => {
            link.send(&ToKeeper::CantStart(why.clone()));
            return Err(why);
        }
    };
    let Memory { successor: Successor { mut core, survivors, lost }, input, board } = memory;
    // A predecessor may have died between the commit of a configuration and its message to the
    // keeper. The record is the truth then.
    let hello = Hello { config: recorded(&core).unwrap_or(hello.config), ..hello };
    core.set_limits(hello.config.all_limits());
    equip(&mut core);
    lost.iter().for_each(|what| tracing::error!("given up, because it cannot be trusted: {what}"));
    let mut worker = assemble(&hello, link, core, input, board, files)?;
    // The first pass must know these. All others act on builds, and wait for them.
    let announces = |m: &ToWorker| matches!(m, ToWorker::Dialed(_) | ToWorker::Shaken(_));
    let (announced, early): (Vec<_>, Vec<_>) = early.into_iter().partition(announces);
    hear(&mut worker, announced);
    if let Err(why) = begin(&mut worker, &hello, &survivors, handed_over) {
        worker.shell.keeper.send(&ToKeeper::CantStart(why.clone()));
        worker.leave();
        return Err(why);
    }
    hear(&mut worker, early);
    let ended = worker.run().map_err(|e| format!("the loop: {e}"));
    // The loop and its reply channels are gone, so callers get their last answers now.
    caller::finish();
    ended
}

/// Receives the keeper's first message: how to serve, and the memory files. Also returns the names
/// of configuration values that this version does not know. Blocks.
///
/// Fails if the socket is not a keeper's, or if this process could not take four descriptors.
fn receive_hello(link: &mut KeeperSocket) -> Result<(Hello, Vec<String>, Files), String> {
    match link.wait().map_err(|e| format!("the keeper: {e}"))? {
        Some((ToWorker::Hello, fds)) => {
            let [region, input, board, hello]: [OwnedFd; 4] =
                fds.try_into().map_err(|_| "the keeper gave no memory files")?;
            let (hello, unknown) =
                Hello::read(hello).map_err(|e| format!("what the keeper began with: {e}"))?;
            Ok((hello, unknown, Files { region, input, board }))
        }
        _ => Err("this command is the host's own".into()),
    }
}

/// Receives connections until the keeper has handed over all. Other messages are kept in `early`,
/// in their order. O(connections). Blocks.
///
/// The keeper limits the messages without an answer, so the socket never holds more descriptors
/// than the kernel allows to be in flight.
///
/// Fails if the keeper is gone, or if this process may not have as many descriptors. To go on
/// without a descriptor would end a session that lives.
fn take_connections(link: &mut KeeperSocket, early: &mut Vec<ToWorker>) -> Result<Vec<HandedOver>, String> {
    let (mut handed_over, mut endpoints) = (Vec::new(), Endpoints::default());
    loop {
        match link.wait().map_err(|e| format!("the keeper: {e}"))? {
            Some((ToWorker::Connections(connections), fds)) => {
                link.send(&ToKeeper::Ack);
                if fds.len() < connections.len() {
                    return Err(TOO_FEW_FILES.into());
                }
                let accepted_by = endpoints.take(connections.len());
                let all = connections.into_iter().zip(fds).zip(accepted_by);
                let all = all.map(|(((key, number), fd), endpoint)| HandedOver { key, number, endpoint, fd });
                handed_over.extend(all);
            }
            Some((ToWorker::Endpoints(runs), _)) => endpoints.announce(runs),
            Some((ToWorker::Start, _)) => return Ok(handed_over),
            Some((ToWorker::ReopenLog, _)) => logs::reopen(),
            Some((ToWorker::LogLevels(levels), _)) => logs::levels::set(levels),
            Some((
                message @ (ToWorker::Stop(_)
                | ToWorker::Unpin(_)
                | ToWorker::Changed(_)
                | ToWorker::ConnectFailed(..)
                | ToWorker::TlsFailed(..)
                | ToWorker::Dialed(_)
                | ToWorker::Shaken(_)),
                _,
            )) => early.push(message),
            Some((other, _)) => return Err(format!("the keeper said {other:?} too early")),
            None => return Err("the keeper is gone".into()),
        }
    }
}

/// Assembles a worker from finished parts. Connections, builds and ports are still missing. Starts
/// the prepare thread and the watchdog, which watches the calling thread.
///
/// Fails if the kernel gives no poll or no thread. `link` is closed then, without a reason for the
/// keeper.
fn assemble(
    hello: &Hello,
    link: KeeperSocket,
    core: Core,
    input: Pool,
    board: Board,
    files: Files,
) -> Result<Worker, String> {
    let failed = |e: io::Error| format!("the loop can't be started: {e}");
    let sockets = Sockets::new(input).map_err(failed)?;
    let inbox = Inbox::new(sockets.registry()).map_err(failed)?;
    let config = Arc::new(hello.config.clone());
    let copies = Copies::new(hello.copies.clone(), hello.host_number, hello.incarnation);
    let done = inbox.mailbox(Message::Prepare);
    let code = AuthorsCode::default();
    let orders = prepare::start(config.clone(), copies, board, code.clone(), move |step| _ = done.post(step));
    let prepare = PrepareThread::new(orders.map_err(failed)?, code);
    let keeper = KeeperLink::new(link, hello, sockets.registry()).map_err(failed)?;
    let save_every_s = hello.config.save.every_s;
    let saver = Saver::new(hello.save.clone(), save_every_s, files.region, inbox.mailbox(Message::Save));
    let stall_limits = watchdog::start(board, files.board, &hello.config.limits, hello.copies.clone())
        .map_err(|e| format!("the watchdog can't be started: {e}"))?;
    let jobs = JobThreads::new(inbox.mailbox(Message::Job));
    let threads = Threads { prepare, jobs, stall_limits };
    let (config, ports) = (ConfigInForce::new(config), Ports::above(hello.endpoint_last));
    let shell = Shell::assemble(core, sockets, keeper, board, (config, ports), saver, threads);
    let drivers = Drivers::new(ReloadDriver::new(hello.found.directories.clone()));
    Ok(Worker::new(shell, drivers, inbox))
}

/// Handles messages that the keeper sent before the worker was ready. None of them carries a
/// descriptor.
fn hear(worker: &mut Worker, messages: Vec<ToWorker>) {
    for message in messages {
        let Worker { shell, drivers, inbox, .. } = worker;
        messages::from_keeper(shell, drivers, inbox, message, Vec::new());
    }
}

/// Does everything up to the first pass, and that pass. Then the keeper knows that the worker
/// serves. An error names the build that does not load.
///
/// A successor commits nothing before its first pass, so its start may be repeated. A fresh worker
/// commits in the passes that load its libraries.
fn begin(
    worker: &mut Worker,
    hello: &Hello,
    survivors: &[Survivor],
    handed_over: Vec<HandedOver>,
) -> Result<(), String> {
    let begun = Instant::now();
    for blocked in &hello.blocked {
        // Before any turn: the action that killed the predecessors may be the first to run.
        worker.shell.core.block(blocked.clone());
    }
    crash_points::pass(Point::Recovered);
    let fresh = successor::is_fresh(&worker.shell.core, survivors);
    if fresh {
        worker.shell.read_saved()?;
        worker.shell.threads.prepare.send(Job::RemoveOthers(BTreeSet::new()));
        ended_loads::leave_alone(&mut worker.shell, hello);
        load_all(worker, hello)?;
        // Behind the loads: with a line in the ledger, the next worker would not be a first one.
        ended_loads::tell(&mut worker.shell, hello);
    } else {
        successor::go_on(&mut worker.shell, hello)?;
        // A turn may stall before the first pass is over, and is named by these.
        worker.shell.show_services();
        ended_loads::leave_alone(&mut worker.shell, hello);
        ended_loads::tell(&mut worker.shell, hello);
        look_at_files(worker, hello);
    }
    if let Some((service, owner)) = worker.shell.core.restart_jobs(hello.job_death) {
        successor::job_has_killed(&mut worker.shell, service, owner)?;
    }
    if hello.commits_each_turn {
        worker.shell.core.handle(Input::OneByOne { ms: EACH_TURN_MS });
    }
    // Before the first turn: a turn would build on a session that may have to be given up.
    worker.shell.datagrams.one_by_one = hello.crashed;
    let backlog = reconcile(&mut worker.shell, survivors, handed_over, hello.handed_over);
    crash_points::pass(Point::Reconciled);
    first_pass(worker, backlog);
    let shell = &mut worker.shell;
    shell.show_services();
    if !fresh {
        let ms = begun.elapsed().as_secs_f64() * 1000.0;
        tracing::info!(sessions = shell.core.sessions().len(), "took over in {ms:.1} ms");
    }
    // Before `Ready`: the keeper then repeats a signal's configuration that has no answer yet.
    successor::say_in_force(shell);
    shell.keeper.say_ready(shell.ports.held().to_vec(), shell.core.connection_number());
    Ok(())
}

/// Loads libraries for the first time, in passes of the loop: a first load has all steps of a
/// reload. A discovered library may fail.
///
/// An error names a library that was asked for by its path and cannot be loaded. If no worker of
/// the host ever served, the keeper ends the host then.
fn load_all(worker: &mut Worker, hello: &Hello) -> Result<(), String> {
    let libraries = &hello.found.libraries;
    let mut answers = Vec::new();
    for (path, named) in libraries {
        let (reply, answer) = channel();
        // The watcher leaves content alone whose loads have ended processes.
        let is_wanted = *named || hello.ended_loads.is_empty();
        let by = if is_wanted { Requester::Start } else { Requester::Watcher };
        worker.drivers.reload.request_load(&mut worker.shell, path.clone(), by, Some(reply));
        answers.push(answer);
    }
    // The keeper does not accept before `Ready`, so these passes read no client.
    while worker.shell.core.reloads.is_busy() {
        worker.pass().map_err(|e| format!("the loop: {e}"))?;
    }
    let serves = worker.shell.core.services().iter().any(|s| s.build.is_some());
    for (answer, (path, named)) in answers.iter().zip(libraries) {
        let report = answer.try_iter().find_map(|a| if let Answer::Report(r) = a { Some(r) } else { None });
        // A host that waits for a port, and serves nothing meanwhile, would count as started.
        let id = worker.shell.core.reloads.library(path.clone());
        let is_needed = *named || (!serves && worker.drivers.reload.later.waits(id));
        if let Some(report) = report
            && report.outcome == Outcome::Refused
            && is_needed
        {
            return Err(format!("{}: {}", path.display(), report.reason));
        }
    }
    worker.shell.warn_of_services_without_library();
    Ok(())
}

/// Looks at files that were built while no worker lived, if files are watched; else at those alone
/// that the host was started with and that never served. Contents that the records name as seen are
/// left alone. O(files in the watched directories).
fn look_at_files(worker: &mut Worker, hello: &Hello) {
    let Worker { shell, drivers, .. } = worker;
    let mut known: BTreeSet<_> = hello.found.libraries.iter().map(|(path, _)| path.clone()).collect();
    match shell.config.get().watch {
        true => {
            known.extend(shell.builds.all().map(|(_, record)| record.path.clone()));
            drivers.reload.look_for_others(shell, |path| known.contains(path));
        }
        false => shell.builds.all().for_each(|(_, record)| _ = known.remove(&record.path)),
    }
    for path in known {
        drivers.reload.request_load(shell, path, Requester::Watcher, None);
    }
}

/// Runs the first pass: input that the predecessor had read, and connections without a session.
/// Reads nothing before this is committed: the next read would overwrite the input memory, and the
/// input found there could not be found again.
fn first_pass(worker: &mut Worker, backlog: Backlog) {
    let shell = &mut worker.shell;
    shell.begin_pass();
    for (slot, bytes) in &backlog.input {
        shell.core.handle(Input::Received { slot: *slot, bytes });
    }
    for slot in backlog.ended {
        shell.core.handle(Input::Broken { slot });
    }
    for HandedOver { key, number, endpoint, fd } in backlog.fresh {
        connections::take_in(shell, key, number, endpoint, fd);
    }
    for (key, number) in backlog.refused {
        connections::refuse(shell, key, number, "the connection broke in a takeover");
    }
    // Outbound connections with a session are known by their records.
    let Shell { keeper, handshakes, .. } = &mut *shell;
    keeper.forget_dialed(|n| handshakes.of(n).is_some_and(|handshake| handshakes.waits(handshake)));
    crash_points::pass(Point::CaughtUp);
    worker.commit_and_send();
    let shell = &mut worker.shell;
    shell.sockets.end_pass();
    shell.keeper.send_releases();
    // Input that a reset connection still holds is read like any other's, up to its end.
    shell.sockets.read_again(backlog.broken);
}
