//! Looks at where another thread is: a signal has it walk its own stack into a static array.

use std::ffi::c_void;
use std::io;
use std::sync::Mutex;
use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// The innermost frames that are kept.
const FRAMES_MAX: usize = 64;
/// How long the walk may take.
const WALK_MAX: Duration = Duration::from_millis(500);

static FRAMES: [AtomicPtr<c_void>; FRAMES_MAX] = [const { AtomicPtr::new(std::ptr::null_mut()) }; FRAMES_MAX];
/// How many of them, and one; 0: the walk isn't done.
static DONE: AtomicUsize = AtomicUsize::new(0);
/// One walk at a time.
static WALK: Mutex<()> = Mutex::new(());

/// A thread that can be looked at.
pub struct Thread {
    id: libc::pthread_t,
}

fn signal() -> libc::c_int {
    // Not one of the numbered ones, which programs give meanings of their own.
    libc::SIGRTMIN() + 7
}

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
    /// The calling thread, which must live as long as the process.
    pub fn this() -> io::Result<Thread> {
        let mut frames = [std::ptr::null_mut(); 4];
        // SAFETY: the array has so many items. The first call loads what a signal handler could
        // not.
        unsafe { libc::backtrace(frames.as_mut_ptr(), 4) };
        // SAFETY: all zero is a valid sigaction.
        let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
        action.sa_sigaction = walk as *const () as libc::sighandler_t;
        // What the thread is waiting for goes on.
        action.sa_flags = libc::SA_RESTART;
        // SAFETY: the handler calls nothing but backtrace, and only touches statics.
        let status = unsafe { libc::sigaction(signal(), &raw const action, std::ptr::null_mut()) };
        if status != 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: no preconditions.
        Ok(Thread { id: unsafe { libc::pthread_self() } })
    }

    /// The addresses that it is at, innermost first; of the callers', the one behind the call.
    /// Empty: it didn't answer.
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
        stop.store(true, Ordering::Relaxed);
        thread.join().unwrap();
    }
}
