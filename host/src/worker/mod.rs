//! The event loop: the only thread that uses the core and the sockets.
//!
//! A pass:
//!
//! 1. Wait: sleep until a socket, the keeper or another thread has something.
//! 2. Read: give the core what has arrived. The core runs the turns.
//! 3. Commit, once for all turns of the pass.
//! 4. Carry out the core's commands, and send the output that is committed.
//! 5. Between two passes: save, end probations, commit reloads, configurations and restores.
//!
//! *Invariant*: nothing of a pass is sent or closed before its commit. A worker that dies at any
//! instruction loses at most its work since the last commit. The input of that work lies in the
//! input memory, and none of its output was sent.
//!
//! A pass costs one poll, a system call for each connection that is read or sent to, and one store
//! of the epoch. All clients wait for its end, so the limit `pass_us` bounds its work, beside that
//! of a single turn. Connections that it leaves have a budget of their own in the next one.
//!
//! Slow work runs on other threads, which post to the `inbox`. Descriptors come from the keeper
//! ([`crate::protocol::keeper`]). Errors of the poll or of the keeper's socket end the worker, and
//! the keeper, if it lives, starts a successor.
//!
//! The loop is one thread, and not one for each processor. So turns need no locks, and a pass is
//! one transaction for clients and for successors.
//!
//! | file | holds |
//! |---|---|
//! | `commands` | Carries out the core's commands. |
//! | `connections` | Takes connections in. |
//! | `datagrams` | Datagrams, and the peers that have sessions. |
//! | `drivers` | Drivers of work that takes several passes. |
//! | `endpoints` | Numbers of ports, and endpoints of connections about to come. |
//! | `handshakes` | Secrets of TLS, and connections that wait for theirs. |
//! | `inbox` | Messages for the loop from other threads. |
//! | `keeper_link` | The worker's end of the socket to the keeper. |
//! | `ledger` | Adds and amends ledger lines. |
//! | `lifecycle` | The end of a worker: a stop, or a handover. |
//! | `messages` | Messages from the keeper and from other threads. |
//! | `queries` | Answers operators' queries. |
//! | `reload/` | Carries out a reload. |
//! | `restore` | Restores between two passes. |
//! | `save` | Saves tables and ledger in time and at the end. |
//! | `shell` | State of the loop beside the core. |
//! | `start_tls` | Puts TLS around streams in use. |
//! | `takeover/` | Starts a worker: fresh, or as a successor. |
//! | `threads` | The threads beside the loop. |
//! | `udp_ports` | Takes UDP ports in, and reads them into the core. |
//! | `udp_socket` | Datagrams in and out of one socket, with the host's addresses. |
//! | `watches` | Operators who watch turns. |
//! | `transfer` | Reads sockets into the core, and writes its output. |

mod commands;
mod connections;
mod datagrams;
mod drivers;
mod endpoints;
mod handshakes;
mod inbox;
mod keeper_link;
mod ledger;
mod lifecycle;
mod messages;
mod process_log;
mod queries;
mod reload;
mod restore;
mod save;
mod shell;
mod start_tls;
pub mod takeover;
mod threads;
mod transfer;
mod udp_ports;
mod udp_socket;
mod watches;

use crate::admin::caller;
use crate::clock::now_ns;
use crate::crash_points;
use crate::crash_points::Point;
use crate::memory::stage::Stage;
use crate::net::sockets::{Source, source};
use crate::plugin::prepare::Done;
use drivers::Drivers;
use greenroom_core::command::Command;
use greenroom_core::input::Input;
use greenroom_core::limits::names::Limit;
use inbox::{Inbox, Message};
use mio::Events;
use shell::Shell;
use std::io::{self, ErrorKind};
use std::time::Duration;

/// Events of one poll. Answers wait for the end of the pass, so a pass should be short. Events
/// beyond it stay in the kernel, for the next pass.
const EVENTS_PER_PASS: usize = 256;
/// Passes in a row that may leave input behind before deadlines are judged all the same, beside
/// one for each full poll of all sessions. A peer cannot put off the deadlines of others for ever.
const PASSES_MAX: usize = 64;

/// The loop: the shell, and the drivers that step with it. The shell and the drivers are apart, so
/// that a driver may take the whole shell as an argument.
struct Worker {
    shell: Shell,
    drivers: Drivers,
    /// Messages of other threads.
    inbox: Inbox,
    /// Passes in a row that left input behind.
    unfinished: usize,
    /// Scratch: events of the poll.
    events: Events,
    /// Scratch: commands of the core. Empty between two passes.
    commands: Vec<Command>,
}

impl Worker {
    /// Makes a loop that has not served yet. The takeover runs its first pass.
    fn new(shell: Shell, drivers: Drivers, inbox: Inbox) -> Worker {
        let events = Events::with_capacity(EVENTS_PER_PASS);
        Worker { shell, drivers, inbox, unfinished: 0, events, commands: Vec::new() }
    }

    /// Runs until the host stops or a successor goes on, and leaves.
    fn run(mut self) -> io::Result<()> {
        let ended = self.serve();
        self.leave();
        ended
    }

    /// Ends callers' channels, the link and the threads' orders. Handlers' destructors do not run:
    /// one that hangs would hold up the successor, or the end of the host.
    fn leave(self) {
        let Worker { shell, mut drivers, inbox, .. } = self;
        let Shell { core, .. } = shell;
        std::mem::forget((core, std::mem::take(&mut drivers.reload.loaded)));
        // Callers whose questions wait here must hear that nobody answers.
        for message in inbox.take() {
            if let Message::Prepare(Done::Loaded(_, loaded)) = message {
                std::mem::forget(loaded);
            }
        }
    }

    /// Runs the loop. A host that stops saves tables and ledger; a handover leaves them in the
    /// records. An error says that the poll or the keeper is gone.
    fn serve(&mut self) -> io::Result<()> {
        loop {
            self.pass()?;
            crash_points::pass(Point::Passed);
            if self.has_stopped() {
                break;
            }
            if self.has_handed_over() {
                // The kernel does not count for a Unix socket what was sent, so a record does.
                self.shell.core.handle(Input::HandOver);
                self.shell.core.handle(Input::Commit);
                return Ok(());
            }
        }
        let Shell { saver, core, keeper, .. } = &mut self.shell;
        if let Err(why) = saver.save_at_the_end(core, keeper) {
            tracing::error!("{why}");
            self.shell.keeper.say_not_saved(why);
        }
        Ok(())
    }

    /// Runs one pass. The order of the steps is behaviour: clients, the log and successors see it.
    ///
    /// The time is read once, behind the wait: all turns of a pass are told the same. Drivers step
    /// behind the send, so the pause of a commit does not delay answers that are ready.
    fn pass(&mut self) -> io::Result<()> {
        let board = self.shell.board;
        board.pass_ends(now_ns);
        self.wait()?;
        self.shell.begin_pass();
        self.read()?;
        self.commit_and_send();
        crash_points::pass(Point::Flushed);
        // The events of this pass are done with, so no event names a closed slot any more.
        self.shell.sockets.end_pass();
        board.stage(Stage::Save);
        let Shell { saver, core, keeper, config, .. } = &mut self.shell;
        saver.begin_if_due(core, keeper, config.limits());
        board.stage(Stage::Drivers);
        self.drivers.step(&mut self.shell);
        self.shell.drop_unused_builds();
        self.shell.follow_udp_ports();
        // Behind the commit: a successor would miss a connection that is released too early.
        self.shell.keeper.send_releases();
        self.shell.handshakes.acknowledge();
        Ok(())
    }

    /// Sleeps until something is ready or due. A signal to the process does not end the sleep.
    fn wait(&mut self) -> io::Result<()> {
        let later = self.drivers.reload.later.next_ns();
        loop {
            let later = later.map(|at| Duration::from_nanos(at.saturating_sub(now_ns())));
            let sleep_max = self.shell.sleep_max().into_iter().chain(later).min();
            match self.shell.sockets.wait(&mut self.events, sleep_max) {
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                result => return result,
            }
        }
    }

    /// Reads connections, then the keeper's messages, then other threads'. Clients come first: an
    /// operator's query waits behind their reads. An error says that the keeper is gone.
    fn read(&mut self) -> io::Result<()> {
        let (shell, drivers) = (&mut self.shell, &mut self.drivers);
        shell.board.stage(Stage::Read);
        // Only those listed by now: reads list connections for the next pass.
        let left = shell.sockets.again();
        let mut ending = Vec::new();
        let (mut posted, mut told, mut shaken, mut events) = (false, false, false, 0);
        for event in &self.events {
            events += 1;
            match source(event.token()) {
                Source::Waker => posted = true,
                Source::Link => told = true,
                Source::Datagrams(place) => shell.datagrams.is_ready(place),
                Source::Handshaker => shaken = true,
                Source::Connection(slot) => {
                    // The poll reports with each input that the kernel takes output.
                    if event.is_writable() && shell.core.sessions().wants_room(slot) {
                        shell.core.handle(Input::Writable { slot });
                    }
                    // Last turns may cost much, and thousands may leave at once: peers that speak
                    // come first.
                    if event.is_read_closed() || event.is_error() {
                        ending.push(slot);
                    } else if event.is_readable() {
                        // A read stops before urgent data although there is more.
                        shell.read_or_list(slot, event.is_priority());
                    }
                }
            }
        }
        udp_ports::read(shell);
        shell.core.begin_stage();
        for _ in 0..left {
            if shell.core.pass_is_full() {
                break;
            }
            // The poll has reported all that it will: read until nothing is left.
            if let Some(slot) = shell.sockets.pop_again() {
                shell.read(slot, true);
            }
        }
        ending.into_iter().for_each(|slot| shell.read_or_list(slot, true));
        // What arrived in time may still be in the kernel: no deadline is judged by this pass.
        let is_left =
            events == EVENTS_PER_PASS || shell.sockets.reads_again() || shell.datagrams.read_again();
        self.unfinished = if is_left { self.unfinished + 1 } else { 0 };
        let most = PASSES_MAX + shell.core.sessions().len() / EVENTS_PER_PASS;
        if (1..=most).contains(&self.unfinished) {
            shell.core.handle(Input::InputLeft);
        }
        if told || shell.keeper.has_rest {
            shell.board.stage(Stage::Keeper);
            messages::receive_keeper(shell, drivers, &self.inbox)?;
        }
        if shaken {
            connections::receive_secrets(shell);
        }
        if posted {
            shell.board.stage(Stage::Threads);
            for message in self.inbox.take() {
                messages::from_thread(shell, drivers, message);
            }
        }
        Ok(())
    }

    /// Commits the pass, then makes it visible. Effects of sending wait for the next pass: sessions
    /// that are flushed by it, and sessions whose connection turns out to be broken.
    fn commit_and_send(&mut self) {
        let board = self.shell.board;
        board.stage(Stage::Commit);
        self.shell.commit();
        board.stage(Stage::Commands);
        commands::carry_out(&mut self.shell, &mut self.drivers, &mut self.commands);
        board.stage(Stage::Send);
        self.shell.send();
    }

    /// Returns whether the host has stopped: all sessions are flushed, or the time for that is
    /// over (limit `stop_ms`).
    fn has_stopped(&self) -> bool {
        let (left, life) = (self.shell.core.sessions().len(), &self.shell.lifecycle);
        match () {
            () if !life.is_stopping() => false,
            () if left == 0 => true,
            () if life.stop_is_due() => {
                self.shell.board.reached(Limit::StopMs);
                tracing::warn!("stopped with {left} sessions not flushed (limit stop_ms)");
                true
            }
            () => false,
        }
    }

    /// Returns whether a successor may go on. All is committed; reloads, answers and jobs are
    /// finished first, as long as there is time. Beyond that, reloads are forgotten, callers get an
    /// error, and the successor begins jobs again or declares them lost.
    fn has_handed_over(&self) -> bool {
        let core = &self.shell.core;
        let busy = || core.reloads.is_busy() || caller::is_busy() || core.jobs().0 > 0;
        self.shell.lifecycle.is_handing_over() && (!busy() || self.shell.lifecycle.hand_over_is_due())
    }
}
