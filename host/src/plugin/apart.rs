//! Separation of a candidate's process from all others, and a process that watches it.
//!
//! `greenroom trial` becomes up to three processes of one group:
//!
//! | process | does |
//! | --- | --- |
//! | the first one | waits for the candidate's, watches its threads, and ends as it ends |
//! | a first process of the namespace | nothing: its end ends all others of the namespace |
//! | the candidate's | goes on behind [`separate`] |
//!
//! In a namespace of its own, the candidate can't name another process by its number, so it can't
//! signal or change one, whatever else the kernel allows. It isn't the first process there: that
//! one ignores signals such as SIGABRT, and a crash must end the candidate as it would in a worker.
//!
//! | the host runs as | namespaces |
//! | --- | --- |
//! | root, or with CAP_SYS_ADMIN | of processes, without capabilities (`confine.rs`) |
//! | another user | of users and of processes |
//! | either, where the kernel or a container refuses | none; landlock and seccomp hold alone |
//!
//! Root gets no user namespace: in one, the candidate could not read the files of other users, as
//! it will when it serves. Costs two forks of a small process, together less than a millisecond.

use crate::sys::fork::{end_as, exit_now, fork, unshare};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitOptions, kill_process, pidfd_open, set_parent_process_death_signal, waitpid,
};
use rustix::thread::{CapabilitySet, capabilities};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;

/// Most threads of a candidate at a time: so many for each processor, within bounds. They share the
/// processors with the loop, and count against limits that the candidate shares with the host: of
/// its user, of its cgroup, of the machine.
pub(super) fn threads_max() -> u64 {
    let processors = std::thread::available_parallelism().map_or(1, |n| n.get() as u64);
    (16 * processors).clamp(64, 512)
}
/// Time between two looks at the number of threads, in nanoseconds. A thread takes some 20 µs to
/// start, so some hundreds may start unseen.
const LOOK_EVERY_NS: i64 = 5_000_000;

/// Namespaces of a candidate's process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Namespaces {
    /// Of users and of processes.
    OfUser,
    /// Of processes.
    OfProcesses,
    /// None: the kernel or a container refuses them.
    Refused,
}

/// Goes on in a child process, in namespaces of its own where there are any. Returns in the child
/// alone. This process waits for the child, ends as it ends, and tells with `tell` if it had to end
/// the child.
///
/// Fails if no process can be started. To be called while the process has one thread.
pub(super) fn separate(tell: impl FnOnce(String)) -> Result<Namespaces, String> {
    let failed = |e: io::Error| format!("the candidate's process can't be started: {e}");
    let namespaces = enter();
    // Behind the change of users, which may clear it. Without its parent, this process would wait
    // for a candidate that hangs.
    let _ = set_parent_process_death_signal(Some(Signal::KILL));
    let alone = namespaces != Namespaces::Refused;
    let first = if alone { Some(start_first().map_err(failed)?) } else { None };
    let Some(candidate) = fork().map_err(failed)? else {
        // Not inherited by a fork.
        let _ = set_parent_process_death_signal(Some(Signal::KILL));
        return Ok(namespaces);
    };
    watch(candidate, tell);
    // Whoever is left in the namespace ends with its first process.
    let status = waitpid(Some(candidate), WaitOptions::empty());
    if let Some((first, hold)) = first {
        drop(hold);
        let _ = waitpid(Some(first), WaitOptions::empty());
    }
    match status {
        Ok(Some((_, status))) => end_as(status),
        _ => exit_now(1),
    }
}

/// Makes the namespaces for later children.
fn enter() -> Namespaces {
    // Such a process reads files of other users.
    let reads = CapabilitySet::DAC_OVERRIDE | CapabilitySet::DAC_READ_SEARCH;
    if capabilities(None).is_ok_and(|all| all.effective.intersects(reads | CapabilitySet::SYS_ADMIN)) {
        return match unshare(false) {
            Ok(()) => Namespaces::OfProcesses,
            Err(_) => Namespaces::Refused,
        };
    }
    let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    if unshare(true).is_err() {
        return Namespaces::Refused;
    }
    // The same numbers as outside. If this fails, the process has no number that has a name, and
    // the same rights to files all the same.
    let _ = std::fs::write("/proc/self/setgroups", "deny");
    let _ = std::fs::write("/proc/self/uid_map", format!("{uid} {uid} 1"));
    let _ = std::fs::write("/proc/self/gid_map", format!("{gid} {gid} 1"));
    Namespaces::OfUser
}

/// Starts the first process of the namespace. It ends when the returned descriptor is closed, also
/// by the end of this process.
fn start_first() -> io::Result<(Pid, OwnedFd)> {
    let (held, hold) = io::pipe()?;
    match fork()? {
        Some(pid) => Ok((pid, hold.into())),
        None => {
            drop(hold);
            // Nobody writes, so this returns at the end of the last writer.
            while rustix::io::retry_on_intr(|| rustix::io::read(&held, &mut [0; 1])) == Ok(1) {}
            exit_now(0)
        }
    }
}

/// Waits until the candidate's process has ended, and ends it if it has too many threads.
fn watch(candidate: Pid, tell: impl FnOnce(String)) {
    // Kernels before 5.3 have no such descriptor: threads are not counted there.
    let Ok(ended) = pidfd_open(candidate, PidfdFlags::empty()) else { return };
    let threads_max = threads_max();
    let tasks = format!("/proc/{}/task", candidate.as_raw_nonzero());
    let timeout = Timespec { tv_sec: 0, tv_nsec: LOOK_EVERY_NS };
    while matches!(poll(&mut [PollFd::new(&ended, PollFlags::IN)], Some(&timeout)), Ok(0)) {
        // A directory has a link for each directory in it, and two of its own.
        let threads = std::fs::metadata(&tasks).map_or(0, |m| m.nlink().saturating_sub(2));
        if threads > threads_max {
            let _ = kill_process(candidate, Signal::KILL);
            let _ = waitpid(Some(candidate), WaitOptions::empty());
            tell(format!("it had {threads} threads at a time; a trial may have {threads_max}"));
            exit_now(0);
        }
    }
}
