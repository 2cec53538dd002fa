//! Signals that must not end a process of the host.
//!
//! The default of most signals is the end of the process, and with it of all sessions. Each signal
//! here gets a handler that does nothing. A handler and not "ignore": programs that a handler
//! library starts get the defaults back.
//!
//! SIGKILL, SIGQUIT and the signals of faults keep their defaults.

use signal_hook::consts::{
    SIGALRM, SIGHUP, SIGINT, SIGIO, SIGPIPE, SIGPROF, SIGTERM, SIGUSR1, SIGUSR2, SIGVTALRM, SIGXCPU, SIGXFSZ,
};
use std::io;
use std::sync::Arc;

/// Signals without a meaning for the host. SIGPIPE and SIGXFSZ: a write to a closed pipe, or beyond
/// the limit of file sizes, fails, and that is enough. Real-time signals are without one, too.
const MEANINGLESS: [i32; 10] =
    [SIGPIPE, SIGUSR2, SIGALRM, SIGVTALRM, SIGPROF, SIGIO, SIGXFSZ, SIGXCPU, libc::SIGSTKFLT, libc::SIGPWR];
/// Signals that the keeper handles for all. A signal to the whole service reaches the worker, too:
/// the keeper tells it what to do.
const OF_KEEPER: [i32; 4] = [SIGTERM, SIGINT, SIGHUP, SIGUSR1];

/// Has the keeper's process survive signals without a meaning.
pub(super) fn survive() -> io::Result<()> {
    meaningless().try_for_each(survive_one)
}

/// Has a worker's process survive these and the signals that the keeper handles.
pub(super) fn survive_in_worker() -> io::Result<()> {
    OF_KEEPER.into_iter().chain(meaningless()).try_for_each(survive_one)
}

fn meaningless() -> impl Iterator<Item = i32> {
    MEANINGLESS.into_iter().chain(libc::SIGRTMIN()..=libc::SIGRTMAX())
}

fn survive_one(signal: i32) -> io::Result<()> {
    signal_hook::flag::register(signal, Arc::default()).map(|_| ())
}
