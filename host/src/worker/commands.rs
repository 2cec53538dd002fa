//! Commands of the core, as the shell carries them out.
//!
//! The core decides during a pass and queues its commands. The shell carries them out behind the
//! commit, so a command of a turn that was never committed has no effect. A worker that dies in
//! between leaves open commands: its successor starts jobs and connections again and releases
//! closed connections. Log lines of that pass are lost.
//!
//! A command cannot fail towards the core. A thread that cannot be started ends its job with an
//! error, and the keeper answers each connection to make. Sockets that are gone are ignored.
//!
//! O(commands), with a system call for each connection that is closed, shut down or reset, and a
//! thread for each job.

use crate::logs::log_at;
use crate::protocol::keeper::ClientTls;
use crate::worker::drivers::Drivers;
use crate::worker::shell::Shell;
use crate::worker::start_tls;
use greenroom_core::command::Command;
use greenroom_core::core::Core;
use greenroom_core::effects::action_name::action_name;
use greenroom_core::effects::job_shares::JobCounts;
use greenroom_core::effects::outbound::Dial;
use greenroom_core::ids::ServiceId;
use greenroom_core::input::Input;
use greenroom_core::turn::fault::{Fault, LogLine};
use greenroom_state::abi::fault::PANIC;
use std::fmt;

/// Carries out what the core has ordered by the last commit: jobs, connections, then its commands.
/// Commands keep their order, because a close follows its reset and its log lines. `commands` is
/// scratch, and is empty before and after.
pub(super) fn carry_out(shell: &mut Shell, drivers: &mut Drivers, commands: &mut Vec<Command>) {
    for job in shell.core.take_jobs() {
        shell.threads.jobs.begin(job);
    }
    for dial in shell.core.take_connects() {
        connect(shell, dial);
    }
    shell.core.take_commands(commands);
    for command in commands.drain(..) {
        match command {
            Command::Shutdown(slot) => shell.sockets.shut_down(slot),
            Command::Close { slot, id } => {
                shell.handshakes.closed(id);
                // The keeper closes its descriptor behind the pass; only then the peer notices.
                match shell.sockets.close(slot) {
                    Some(key) => shell.keeper.release(key, id),
                    None if shell.datagrams.forget(slot) => shell.sockets.give_back_later(slot),
                    None => {}
                }
            }
            // The poll is edge-triggered: it may have reported this input while nothing was read.
            Command::Resume(slot) => shell.sockets.read_again([slot]),
            Command::StartTls { slot, id } => start_tls::ask(shell, slot, id),
            Command::Reset(slot) => shell.sockets.reset_at_close(slot),
            Command::Log { service, session, generation, line } => {
                log_line(&shell.core, (service, generation, session), &line);
            }
            Command::CancelJob(number) => shell.threads.jobs.cancel(number),
            Command::ShowJobs(all) => {
                for JobCounts { service, running, waiting, oldest_ns } in all {
                    let counts = [running as u64, waiting as u64, oldest_ns];
                    shell.board.count_jobs(usize::from(service.0), counts);
                }
            }
            Command::GiveUpConnect(number) => shell.keeper.give_up_connect(number),
            // Carried out between two passes: a rollback changes what turns run.
            Command::ProbationEnd { build, record, proof } => {
                drivers.probations.note_end(build, record, proof);
            }
            Command::CanaryDue { build, verdict } => drivers.canaries.note_due(build, verdict),
            Command::Fault { service, generation, session, action, fault, answered_by } => {
                let of = (service, generation, session);
                log_fault(&shell.core, of, action_name(action), &fault, answered_by);
            }
            Command::Notice { level, service, session, message } => {
                let (service, generation) = name_of(&shell.core, service, session);
                log_at!(level, %service, session, generation, "{message}");
            }
        }
    }
}

/// Asks the keeper for an outbound connection.
fn connect(shell: &mut Shell, Dial { number, service, target }: Dial) {
    let service = name_of(&shell.core, service, 0).0.to_owned();
    let over_tls = target.over_tls.map(|name| ClientTls { service, server_name: name.into() });
    if !shell.keeper.connect(number, target.addr, over_tls) {
        let why = "this host's keeper is of an earlier version, which connects without TLS alone";
        shell.core.handle(Input::ConnectFailed { number, why });
    }
}

/// Logs a line that a handler has written, with the service, its generation and the session. Lines
/// of a turn that failed are marked, because its other effects were dropped.
fn log_line(core: &Core, (service, generation, session): (ServiceId, u64, u64), line: &LogLine) {
    let (service, _) = name_of(core, service, session);
    let (target, message) = (&line.target, &line.message);
    if line.failed {
        log_at!(line.level, %service, session, generation, handler = %target, failed = true, "{message}");
    } else {
        log_at!(line.level, %service, session, generation, handler = %target, "{message}");
    }
}

/// Logs a failed turn. `answered_by`: the generation that ran the turn again with success.
fn log_fault(
    core: &Core,
    (service, generation, session): (ServiceId, u64, u64),
    action: &str,
    fault: &Fault,
    answered_by: Option<u64>,
) {
    let (service, _) = name_of(core, service, session);
    match answered_by {
        Some(before) => tracing::error!(
            %service, session, generation, action,
            "turn failed, and generation {before} ran it instead: {}", Place(fault)
        ),
        None => tracing::error!(%service, session, generation, action, "turn failed: {}", Place(fault)),
    }
}

/// A service's name, and the generation that runs a session of it now; 0: the service itself.
fn name_of(core: &Core, service: ServiceId, session: u64) -> (&str, u64) {
    let service = &core.services()[usize::from(service.0)];
    (&service.offer.name, service.generation_of(session))
}

/// A fault's message and its place in the source, if known. Panics are marked; other faults speak
/// for themselves. Shown only if the log takes the line.
struct Place<'a>(&'a Fault);

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Place(fault) = self;
        let kind = if fault.kind == PANIC { "panic: " } else { "" };
        match fault.file.is_empty() {
            true => write!(f, "{kind}{}", fault.message),
            false => write!(f, "{kind}{} at {}:{}", fault.message, fault.file, fault.line),
        }
    }
}
