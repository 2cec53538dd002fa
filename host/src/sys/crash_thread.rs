//! Thread of a crash: signal handlers note on the board which thread a fatal signal hit.
//!
//! A fault on a thread of a job, or of a reload, says nothing about the turn that the loop runs
//! meanwhile. The kernel tells the keeper the signal alone, so the process itself notes the thread.
//!
//! | end of the process | noted by |
//! | --- | --- |
//! | SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGABRT, SIGTRAP, SIGSYS | a signal handler |
//! | `exit` | a function that runs at exit |
//! | SIGKILL, `_exit` | nothing |
//!
//! A handler makes one system call, stores a word, and puts back the handler before it. So a stack
//! that overflowed is named on standard error as before, and core dumps are those of the fault.

use std::cell::Cell;
use std::io;
use std::sync::atomic::{AtomicI32, AtomicPtr, AtomicU64, Ordering};

/// Value of the word once the loop's thread has crashed.
pub const OF_THE_LOOP: u64 = 1;
/// Value of the word once another thread has crashed. A job's thread adds the number of the job.
pub const OF_ANOTHER: u64 = 2;

thread_local! {
    /// Number of the job that the thread runs; 0: none. A signal handler may read it, as it is
    /// there from the begin of the thread.
    static JOB: Cell<u64> = const { Cell::new(0) };
}

/// Notes that the calling thread runs a job, until its end.
pub fn runs_job(number: u64) {
    JOB.set(number);
}

/// Signals that end a process for what one of its threads did.
const SIGNALS: [libc::c_int; 7] =
    [libc::SIGSEGV, libc::SIGBUS, libc::SIGILL, libc::SIGFPE, libc::SIGABRT, libc::SIGTRAP, libc::SIGSYS];

/// Word to note in. Static, as a signal handler gets no pointer. Null: nothing is installed.
static WORD: AtomicPtr<AtomicU64> = AtomicPtr::new(std::ptr::null_mut());
/// Thread of the loop.
static LOOP: AtomicI32 = AtomicI32::new(0);
/// Handlers before ours, by the place in [`SIGNALS`]. Leaked, as they are needed until the end.
static BEFORE: [AtomicPtr<libc::sigaction>; SIGNALS.len()] =
    [const { AtomicPtr::new(std::ptr::null_mut()) }; SIGNALS.len()];

/// Has crashes noted in `word` from here on. The calling thread is the loop's. A repeated call does
/// nothing. Fails if the kernel refuses a handler.
pub fn note_in(word: &'static AtomicU64) -> io::Result<()> {
    // SAFETY: no preconditions.
    LOOP.store(unsafe { libc::gettid() }, Ordering::Relaxed);
    if !WORD.swap(std::ptr::from_ref(word).cast_mut(), Ordering::AcqRel).is_null() {
        return Ok(());
    }
    for (signal, before) in SIGNALS.into_iter().zip(&BEFORE) {
        // SAFETY: all zero is a valid sigaction.
        let (mut ours, mut old): (libc::sigaction, libc::sigaction) = unsafe { std::mem::zeroed() };
        ours.sa_sigaction = crashed as *const () as libc::sighandler_t;
        // On the stack for signals, as the thread's own may have overflowed.
        ours.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
        // SAFETY: both are valid. The signal is not ours yet, so the second one is that before.
        if unsafe { libc::sigaction(signal, std::ptr::null(), &raw mut old) } != 0 {
            return Err(io::Error::last_os_error());
        }
        // Before the handler is installed, which may run at once.
        before.store(Box::into_raw(Box::new(old)), Ordering::Release);
        // SAFETY: the handler only makes system calls, and touches statics and the word.
        if unsafe { libc::sigaction(signal, &raw const ours, std::ptr::null_mut()) } != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    // SAFETY: the function touches statics and the word alone.
    match unsafe { libc::atexit(exits) } {
        0 => Ok(()),
        _ => Err(io::Error::other("no function can run at exit")),
    }
}

/// Notes the calling thread. The first note counts: later signals follow from the first.
fn note() {
    // SAFETY: the word lives as long as the process.
    let Some(word) = (unsafe { WORD.load(Ordering::Acquire).as_ref() }) else { return };
    // SAFETY: no preconditions.
    let is_loop = unsafe { libc::gettid() } == LOOP.load(Ordering::Relaxed);
    let of = if is_loop { OF_THE_LOOP } else { OF_ANOTHER.saturating_add(JOB.get()) };
    let _ = word.compare_exchange(0, of, Ordering::SeqCst, Ordering::SeqCst);
}

/// Notes a crash, and lets the handler before this one have the signal. Runs as a signal handler.
extern "C" fn crashed(signal: libc::c_int, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
    note();
    let before = SIGNALS.iter().position(|s| *s == signal).map(|at| BEFORE[at].load(Ordering::Acquire));
    // SAFETY: the pointer is that of a leaked action, or null, which asks without a change.
    unsafe { libc::sigaction(signal, before.unwrap_or(std::ptr::null_mut()), std::ptr::null_mut()) };
    // SAFETY: the kernel gives a valid description.
    let was_sent = unsafe { (*info).si_code } <= 0;
    // A fault is repeated when this returns. A signal that was sent is not, so it is sent again.
    if was_sent {
        // SAFETY: no preconditions. The signal is blocked until this returns.
        unsafe { libc::raise(signal) };
    }
}

/// Notes the thread that ends the process in an orderly way. Runs at exit.
extern "C" fn exits() {
    note();
}
