//! Stack of another thread: a signal has the thread walk its own stack into a static array. And
//! whether that thread is still there.
//!
//! The watchdog uses this to name the place of a callback that stalls. The watched thread may be
//! anywhere, in an allocator or with a lock held. So the signal handler allocates nothing, takes no
//! lock, and calls only backtrace(3), which was called once before to load its library.
//!
//! *Invariant*: `DONE` is 0 from the request to the end of the walk. Its release store publishes
//! the frames.
//!
//! A thread that does not answer within 500 ms yields no frames. If its late answer arrives
//! during the next request, that request may return the older frames.

use crate::sys::proc;
use std::ffi::c_void;
use std::io;
use std::sync::Mutex;
use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Most frames that are kept, from the innermost on.
const FRAMES_MAX: usize = 64;
/// Longest time that a walk may take. A thread in an uninterruptible system call answers late.
const WALK_MAX: Duration = Duration::from_millis(500);

/// Return addresses of the last walk. Static, as a signal handler gets no pointer.
static FRAMES: [AtomicPtr<c_void>; FRAMES_MAX] = [const { AtomicPtr::new(std::ptr::null_mut()) }; FRAMES_MAX];
/// Number of frames, plus 1; 0: the walk is not done.
static DONE: AtomicUsize = AtomicUsize::new(0);
/// Lock of a request, as there is one array.
static WALK: Mutex<()> = Mutex::new(());

/// A thread whose stack can be read.
pub struct Thread {
    /// Valid as long as the thread lives, which is as long as the process.
    id: libc::pthread_t,
    /// Number of the thread for the kernel.
    tid: rustix::thread::Pid,
}

/// Number of the signal that asks for a walk.
fn signal() -> libc::c_int {
    // A real-time signal: libraries give the numbered ones meanings of their own.
    libc::SIGRTMIN() + 7
}

/// Walks the stack of the interrupted thread. Runs as a signal handler.
extern "C" fn walk(_: libc::c_int) {
    // SAFETY: the calling thread's own errno.
    let errno = unsafe { libc::__errno_location() };
    // SAFETY: as above; what is interrupted must not see ours.
    let before = unsafe { *errno };
    let mut frames = [std::ptr::null_mut(); FRAMES_MAX];
    // SAFETY: the array has so many items. It was called once before, so that it loads nothing now.
    let n = unsafe { libc::backtrace(frames.as_mut_ptr(), FRAMES_MAX as libc::c_int) };
    for (to, from) in FRAMES.iter().zip(frames) {
        to.store(from, Ordering::Relaxed);
    }
    DONE.store(n.max(0) as usize + 1, Ordering::Release);
    // SAFETY: as above.
    unsafe { *errno = before };
}

impl Thread {
    /// The calling thread, which must live as long as the process. Installs the signal handler, so
    /// it is repeatable. Fails if the kernel refuses the handler.
    pub fn this() -> io::Result<Thread> {
        let mut frames = [std::ptr::null_mut(); 4];
        // SAFETY: the array has so many items. The first call loads what a signal handler could
        // not.
        unsafe { libc::backtrace(frames.as_mut_ptr(), 4) };
        // SAFETY: all zero is a valid sigaction.
        let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
        action.sa_sigaction = walk as *const () as libc::sighandler_t;
        // System calls that the kernel can restart go on. The loop repeats its poll itself.
        action.sa_flags = libc::SA_RESTART;
        // SAFETY: the handler calls nothing but backtrace, and only touches statics.
        let status = unsafe { libc::sigaction(signal(), &raw const action, std::ptr::null_mut()) };
        if status != 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: no preconditions.
        Ok(Thread { id: unsafe { libc::pthread_self() }, tid: rustix::thread::gettid() })
    }

    /// Whether the thread has ended although its process lives: by SYS_exit, or for a system call
    /// that a filter forbids. False if `/proc` does not tell. Reads a small file of the kernel's.
    pub fn has_ended(&self) -> bool {
        let stat = std::fs::read_to_string(format!("/proc/self/task/{}/stat", self.tid.as_raw_nonzero()));
        match stat {
            // The first thread of a process stays as a zombie until the others have ended.
            Ok(stat) => proc::state(&stat).is_some_and(|state| "ZX".contains(state)),
            Err(e) => e.kind() == io::ErrorKind::NotFound && std::path::Path::new("/proc/self/task").exists(),
        }
    }

    /// Reads the addresses that the thread is at, the innermost first. For a caller, the address is
    /// that behind the call. Empty: the thread did not answer. Blocks for at most 500 ms.
    pub fn frames(&self) -> Vec<usize> {
        let Ok(_one) = WALK.lock() else { return Vec::new() };
        DONE.store(0, Ordering::Release);
        // SAFETY: the thread lives as long as the process.
        if unsafe { libc::pthread_kill(self.id, signal()) } != 0 {
            return Vec::new();
        }
        let give_up = Instant::now() + WALK_MAX;
        loop {
            match DONE.load(Ordering::Acquire) {
                0 if Instant::now() > give_up => return Vec::new(),
                0 => std::thread::sleep(Duration::from_micros(200)),
                n => return FRAMES[..n - 1].iter().map(|f| f.load(Ordering::Relaxed) as usize).collect(),
            }
        }
    }
}

// SAFETY: a thread's id may be used by any thread.
unsafe impl Send for Thread {}

#[cfg(test)]
mod tests {
    use super::*;

    #[inline(never)]
    fn busy(until: &std::sync::atomic::AtomicBool) {
        while !until.load(Ordering::Relaxed) {
            std::hint::spin_loop();
        }
    }

    #[test]
    fn another_thread_is_seen_where_it_is() {
        let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
        let (sender, receiver) = std::sync::mpsc::channel();
        let thread = std::thread::spawn({
            let stop = stop.clone();
            move || {
                sender.send(Thread::this().unwrap()).unwrap();
                busy(&stop);
            }
        });
        let watched = receiver.recv().unwrap();
        let at = busy as *const () as usize;
        let seen = (0..100).any(|_| watched.frames().iter().any(|f| (at..at + 200).contains(f)));
        assert!(seen);
        assert!(!watched.has_ended());
        stop.store(true, Ordering::Relaxed);
        thread.join().unwrap();
        // A join ends before the kernel has forgotten the thread.
        let is_gone = |_| {
            std::thread::sleep(Duration::from_millis(1));
            watched.has_ended()
        };
        assert!((0..10_000).any(is_gone));
    }
}
