//! Processes that run no other program: a fork, its namespaces, and an end like that of a child.
//!
//! Only the trial of a candidate needs this (`plugin/apart.rs`). A fork copies one thread, so a
//! process forks here only while it has no other.

use crate::sys::proc;
use rustix::process::{Pid, Signal, WaitStatus};
use rustix::thread::UnshareFlags;
use std::io;
use std::mem::zeroed;

/// Closes all descriptors beyond 2 that were inherited. To be called first, before this process has
/// opened any: a library may have left some open in the parent.
pub fn close_inherited() {
    // SAFETY: no value of this process owns a descriptor beyond 2 yet.
    let closed = unsafe { libc::close_range(3, u32::MAX, 0) };
    if closed == 0 {
        return;
    }
    // Kernels before 5.9 have no such call. One of these is the directory's own, and is closed
    // already.
    let names = std::fs::read_dir("/proc/self/fd").into_iter().flatten().flatten().map(|f| f.file_name());
    for fd in names.filter_map(|name| name.to_str()?.parse::<i32>().ok()).collect::<Vec<_>>() {
        if fd > 2 {
            // SAFETY: as above.
            let _ = unsafe { libc::close(fd) };
        }
    }
}

/// Puts later children of this process into namespaces of their own: of processes and of System V
/// IPC. With `user`, this process goes into a user namespace first, which any user may make.
///
/// Fails without any change. The process must have one thread.
pub fn unshare(user: bool) -> io::Result<()> {
    let user = if user { UnshareFlags::NEWUSER } else { UnshareFlags::empty() };
    let flags = UnshareFlags::NEWPID | UnshareFlags::NEWIPC | user;
    // SAFETY: descriptors stay shared. None of these flags changes what this thread owns.
    Ok(unsafe { rustix::thread::unshare_unsafe(flags) }?)
}

/// Forks this process. `None`: this is the child. Fails if there is another thread, whose locks the
/// child would find locked for ever, or if the system has no process to give.
pub fn fork() -> io::Result<Option<Pid>> {
    if std::fs::read_dir("/proc/self/task").map_err(proc::explain)?.count() != 1 {
        return Err(io::Error::other("the process has several threads"));
    }
    // SAFETY: this is the only thread, so the child finds no lock held by another.
    let pid = unsafe { libc::fork() };
    if pid < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(Pid::from_raw(pid))
}

/// Writes what code in C has printed and its library still holds. Blocks for a stream that another
/// thread uses.
pub fn flush_c_streams() {
    // SAFETY: no stream is named, so the call flushes all that are open.
    let _ = unsafe { libc::fflush(std::ptr::null_mut()) };
}

/// Ends this process at once. Nothing is flushed, and no exit handler runs.
pub fn exit_now(code: i32) -> ! {
    // SAFETY: the call has no preconditions.
    unsafe { libc::_exit(code) }
}

/// Ends this process as a child ended: with its exit code, or by its signal.
pub fn end_as(status: WaitStatus) -> ! {
    if let Some(signal) = status.terminating_signal().and_then(Signal::from_named_raw) {
        // SAFETY: all zero is a valid sigaction: the default.
        let default: libc::sigaction = unsafe { zeroed() };
        // SAFETY: the default runs no code of this process.
        let _ = unsafe { libc::sigaction(signal.as_raw(), &raw const default, std::ptr::null_mut()) };
        let _ = rustix::process::kill_process(rustix::process::getpid(), signal);
        // Reached only by signals that end no process.
    }
    exit_now(status.exit_status().unwrap_or(1))
}
