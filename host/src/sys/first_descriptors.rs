//! Descriptors 0 to 2 as the process found them.
//!
//! Rust opens `/dev/null` for those that are closed, before `main`. What a command then prints is
//! lost, and nothing fails. So this looks before that.

use std::sync::atomic::{AtomicBool, Ordering};

/// Whether standard output was closed when the process began.
static STDOUT_WAS_CLOSED: AtomicBool = AtomicBool::new(false);

/// Entry in the list of functions that the loader calls before `main`.
#[used]
#[unsafe(link_section = ".init_array")]
static LOOK: extern "C" fn() = look;

/// Notes which descriptors are closed. Runs before Rust's runtime: it may only ask the kernel.
extern "C" fn look() {
    // SAFETY: fcntl reads the flags of a descriptor, or fails.
    let flags = unsafe { libc::fcntl(libc::STDOUT_FILENO, libc::F_GETFD) };
    STDOUT_WAS_CLOSED.store(flags == -1, Ordering::Relaxed);
}

/// Whether standard output was closed when the process began: what is printed gets lost.
pub fn stdout_was_closed() -> bool {
    STDOUT_WAS_CLOSED.load(Ordering::Relaxed)
}
