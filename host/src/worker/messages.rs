//! Messages from the keeper and from other threads.
//!
//! Messages are handled inside a pass, behind the reads and before the commit. Their effects on the
//! core are part of that commit. Reload commits, configurations and restores only queue here: their
//! drivers step between two passes.
//!
//! Two changes do not wait for that. A rollback is carried out as soon as the keeper has opened
//! its ports. Ports of a build that was rolled back in the takeover change likewise. Each commits
//! at once, and its commit covers the turns that the pass has run so far.
//!
//! Slow work is only ordered here. The keeper's socket is emptied in every pass that it wakes. If
//! the keeper is gone, the worker ends.

use crate::admin::answer;
use crate::admin::query::Proposal;
use crate::config::record::RecordedConfig;
use crate::logs;
use crate::plugin::prepare::Done;
use crate::protocol::keeper::{ToKeeper, ToWorker};
use crate::protocol::link::{Received, from_file};
use crate::worker::drivers::Drivers;
use crate::worker::inbox::{Inbox, Message};
use crate::worker::reload::ports::{Opening, PreparedPorts};
use crate::worker::shell::Shell;
use crate::worker::{connections, queries, start_tls};
use greenroom_core::input::Input;
use greenroom_core::reload::request::Requester;
use greenroom_state::address::Address;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::time::Duration;

/// Handles the messages that the keeper has sent, until its socket is empty or the pass is full:
/// the next pass goes on then. Messages that wait for room in the socket are sent first, because
/// the same event may report that room.
///
/// An error means that the keeper is gone, or that a message cannot be read. The worker ends then:
/// no process could give it connections or replace it.
pub(super) fn receive_keeper(shell: &mut Shell, drivers: &mut Drivers, inbox: &Inbox) -> io::Result<()> {
    shell.keeper.flush();
    shell.keeper.has_rest = false;
    loop {
        match shell.keeper.receive()? {
            Received::Message(message, fds) => {
                let opens = matches!(message, ToWorker::Connections(_));
                from_keeper(shell, drivers, inbox, message, fds);
                // Thousands of connections that arrive at once are no single pass.
                if opens && shell.core.pass_is_full() {
                    shell.keeper.has_rest = true;
                    return Ok(());
                }
            }
            Received::Unknown(what) => {
                tracing::warn!("a message of a later keeper is ignored: {what}");
            }
            Received::Nothing => return Ok(()),
            Received::Closed => return Err(io::Error::other("the keeper is gone")),
        }
    }
}

/// Handles one message of the keeper, with the descriptors that came with it.
///
/// Descriptors may be missing if this process is at its limit of open files. A message that needs
/// one is then dropped or refused.
pub(super) fn from_keeper(
    shell: &mut Shell,
    drivers: &mut Drivers,
    inbox: &Inbox,
    message: ToWorker,
    fds: Vec<OwnedFd>,
) {
    match message {
        ToWorker::Connections(all) => {
            // The keeper may send the next batch: this one's descriptors are no longer in flight.
            shell.keeper.send(&ToKeeper::Ack);
            connections::take(shell, &all, fds);
        }
        ToWorker::Endpoints(runs) => shell.ports.announce(runs),
        ToWorker::Shaken(shaken) => {
            shell.handshakes.expect(shaken);
            start_tls::settle(shell);
        }
        ToWorker::TlsFailed(number, why) => start_tls::failed(shell, number, &why),
        ToWorker::Handshaker(first) => connections::join_handshaker(shell, fds, first),
        ToWorker::Opened(opened) => ports_opened(shell, drivers, opened),
        ToWorker::Dialed(dialed) => shell.keeper.expect_dialed(dialed),
        ToWorker::Numbers(first, count) => shell.datagrams.add_numbers(first, count),
        ToWorker::ConnectFailed(number, why) => {
            shell.core.handle(Input::ConnectFailed { number, why: &why });
        }
        ToWorker::Caller(command, by) => {
            // Without a descriptor to spare there is no socket to answer on.
            if let Some(fd) = fds.into_iter().next() {
                let audit = shell.config.get().admin.audit.clone();
                answer::answer(UnixStream::from(fd), command, by, audit, inbox.mailbox(Message::Ask));
            }
        }
        ToWorker::Changed(path) => drivers.reload.file_changed(shell, path),
        ToWorker::Configure(number, by) => configure(shell, drivers, inbox, number, by, fds),
        ToWorker::Stop(signal) => stop(shell, signal),
        // A host that stops needs no successor.
        ToWorker::HandOver if shell.lifecycle.is_stopping() => {}
        ToWorker::HandOver => {
            // Jobs that run may end here. Jobs that wait begin in the successor.
            shell.lifecycle.hand_over();
            shell.core.hold_jobs();
        }
        ToWorker::Pin => {
            // The epoch is the last commit's: changes of this pass are not part of it.
            let epoch = shell.core.pin();
            shell.keeper.send(&ToKeeper::Pinned(epoch));
        }
        ToWorker::Unpin(epoch) => {
            let held = shell.core.unpin(epoch);
            shell.keeper.send(&ToKeeper::Unpinned(held));
        }
        ToWorker::ReopenLog => logs::reopen(),
        ToWorker::LogLevels(levels) => logs::levels::set(levels),
        ToWorker::Hello | ToWorker::Start => {
            tracing::error!("the keeper repeated a message of the start")
        }
    }
}

/// Handles one message of another thread. Each ends a step that the loop has ordered, reports its
/// progress, or asks a query.
pub(super) fn from_thread(shell: &mut Shell, drivers: &mut Drivers, message: Message) {
    let reload = &mut drivers.reload;
    match message {
        Message::Prepare(Done::Read(id, hash)) => reload.read(id, hash),
        Message::Prepare(Done::Staged(id, result)) => reload.staged(shell, id, result),
        Message::Prepare(Done::Tried(id, epoch, result)) => reload.tried(shell, id, epoch, result),
        Message::Prepare(Done::Loaded(id, result)) => reload.loaded(shell, id, result),
        Message::Prepare(Done::Progress(id, done, total)) => reload.progress(&shell.core, id, done, total),
        Message::Prepare(Done::Room(left)) => shell.builds.note_room(left),
        Message::Prepare(Done::Discovered(path)) => {
            reload.request_load(shell, path, Requester::Watcher, None)
        }
        Message::Save(step) => shell.saver.step(&mut shell.core, &mut shell.keeper, step),
        Message::Job(end) => {
            // The core ignores results of jobs that were cancelled.
            shell.threads.jobs.forget(end.number);
            let result = end.result.as_deref().map_err(String::as_str);
            shell.core.handle(Input::JobDone { number: end.number, result });
        }
        Message::Ask(ask) => queries::answer(shell, drivers, ask),
    }
}

/// Goes on with the change that the keeper has opened ports for, or could not. An answer without a
/// request is dropped.
fn ports_opened(shell: &mut Shell, drivers: &mut Drivers, opened: Result<Vec<Address>, String>) {
    let Some((what, prepared, opened)) = shell.ports.opened(opened) else { return };
    match what {
        Opening::Reload(ids) => drivers.reload.ports_opened(shell, ids, prepared, opened),
        Opening::RollBack(failed) => {
            log_closed_port(opened);
            drivers.probations.roll_back(shell, failed, prepared);
        }
        Opening::TakenOver => {
            log_closed_port(opened);
            change_ports(shell, prepared);
        }
    }
}

/// Logs that a port of the previous build cannot be opened. The rollback goes on without the port.
fn log_closed_port(opened: Result<(), String>) {
    if let Err(why) = opened {
        tracing::error!("a port of the previous build cannot be opened, and stays closed: {why}");
    }
}

/// Changes the ports that count, in a commit of its own. The keeper hears of it behind the commit:
/// a port must not be closed for a change that a crash could undo.
fn change_ports(shell: &mut Shell, prepared: PreparedPorts) {
    if shell.ports.change(&mut shell.core, prepared) {
        shell.core.handle(Input::Commit);
        shell.ports.tell(&mut shell.keeper);
        shell.show_services();
    }
}

/// Proposes the configuration in the first descriptor. Reports go to the second, if there is one.
///
/// A configuration that cannot be read is refused at once, so that the keeper forgets it. Its
/// caller then sees a closed socket. A caller's proposal comes back as a query from the caller's
/// thread; a signal's is queued here.
fn configure(
    shell: &mut Shell,
    drivers: &mut Drivers,
    inbox: &Inbox,
    number: u64,
    by: Requester,
    fds: Vec<OwnedFd>,
) {
    let mut fds = fds.into_iter();
    let config = match fds.next().map(from_file) {
        Some(Ok(config)) => Ok(Box::new(RecordedConfig::into_config(config))),
        Some(Err(e)) => Err(e.to_string()),
        None => Err("no descriptor to spare".to_owned()),
    };
    let config = match config {
        Ok(config) => config,
        Err(why) => {
            tracing::error!("the configuration cannot be read: {why}");
            return shell.keeper.say_not_configured(number);
        }
    };
    let proposal = Proposal { number, config, by };
    match fds.next().map(UnixStream::from) {
        Some(stream) => {
            // No thread serves the caller, so nothing is proposed.
            let audit = shell.config.get().admin.audit.clone();
            if !answer::configure(stream, proposal, audit, inbox.mailbox(Message::Ask)) {
                shell.keeper.say_not_configured(number);
            }
        }
        None => drivers.proposals.add(proposal, None),
    }
}

/// Begins a stop of the host: ports close, sessions get their last turns, and output is flushed
/// within the limit `stop_ms`. A second signal ends the worker at once; tables and ledger are saved
/// even then. O(sessions).
fn stop(shell: &mut Shell, signal: i32) {
    if shell.lifecycle.is_stopping() {
        tracing::warn!("second signal: stopping at once");
        shell.lifecycle.stop_now();
        return;
    }
    tracing::info!(signal, sessions = shell.core.sessions().len(), "stopping: flushing output");
    shell.ports.close_all(&mut shell.keeper);
    shell.lifecycle.stop_within(Duration::from_millis(shell.config.limits().stop_ms));
    shell.core.handle(Input::Stop);
}
