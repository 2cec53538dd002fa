//! State that a process inherits: signals, limits, descriptors, mask of new files.
//!
//! A parent may ignore SIGCHLD, block signals, or leave descriptors open. A host that took this
//! over could not wait for its worker, or not be stopped. So each process of the host begins with
//! [`settle`], which leaves nothing of it to chance.
//!
//! | inherited | becomes |
//! | --- | --- |
//! | ignored signals | their defaults; SIGPIPE and SIGTTOU are ignored |
//! | blocked signals | none |
//! | limit of core files | 0, unless `GREENROOM_CORE=1` |
//! | limits of file sizes and processor time | as high as they may be raised |
//! | limit of the stack | 8 MiB, if it was less |
//! | descriptors beyond 2 | closed on exec: no worker gets them |
//! | mask of new files | 077 |
//!
//! Descriptors 0 to 2 are open: Rust opens `/dev/null` for those that are not, before `main`
//! ([`super::first_descriptors`]).
//!
//! Threads and processes beside the loop compete with it for processors, so they begin with
//! [`give_way`]. They then have a third of its weight and never interrupt it, and it interrupts
//! them. What was lowered cannot be raised again.
//!
//! The C library's allocator is set by [`merge_freed_blocks`].

use rustix::fs::Mode;
use rustix::process::{Pid, Resource, Rlimit, getrlimit, setrlimit};
use std::io;
use std::mem::zeroed;

/// Bytes of stack that the loop's thread may have: what systems commonly give.
const STACK_BYTES: u64 = 8 << 20;
/// Nice value of what gives way to the loop: a third of the weight of nice 0.
const NICE: i32 = 5;

/// Has the calling thread, and all that it starts from now on, give way to the loop, whatever
/// priority it has inherited. Best effort.
pub fn give_way() {
    // SAFETY: all zero is a valid parameter, and the one that this policy wants.
    let none: libc::sched_param = unsafe { zeroed() };
    // SAFETY: the kernel reads one parameter. The number 0 is the calling thread.
    let _ = unsafe { libc::sched_setscheduler(0, libc::SCHED_BATCH, &raw const none) };
    let _ = rustix::process::nice(NICE);
}

/// Has glibc's allocator merge each block with its free neighbours when it is freed.
///
/// Otherwise blocks of up to 128 bytes wait, and some later call merges all that wait. After a
/// million keys were freed one by one, such a call took 19 ms, in the middle of a pass. Replies a
/// second are the same. To be called before there is another thread. Best effort.
pub fn merge_freed_blocks() {
    // SAFETY: the call sets a number of the allocator, and no other thread allocates meanwhile.
    #[cfg(target_env = "gnu")]
    let _ = unsafe { libc::mallopt(libc::M_MXFAST, 0) };
}

/// Puts everything that was inherited into a known state. To be called first, before there is
/// another thread. Repeatable. Nothing here is worth ending for, so failures are left alone.
pub fn settle() {
    for signal in 1..=libc::SIGRTMAX() {
        settle_signal(signal);
    }
    unblock_signals();
    if std::env::var_os("GREENROOM_CORE").is_none_or(|v| v != "1") {
        // A core of gigabytes would delay the successor, and holds what sessions said.
        let maximum = getrlimit(Resource::Core).maximum;
        let _ = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum });
    }
    // Records lie in memory files, whose size counts, too.
    raise(Resource::Fsize, None);
    // A host runs for months: SIGXCPU would end it.
    raise(Resource::Cpu, None);
    // The loop's own stack, from the next process on. Turns run there.
    raise(Resource::Stack, Some(STACK_BYTES));
    // SAFETY: the call changes flags of descriptors, and closes none. Kernels before 5.11 refuse
    // it.
    let _ = unsafe { libc::close_range(3, u32::MAX, libc::CLOSE_RANGE_CLOEXEC as libc::c_int) };
    let _ = rustix::process::umask(Mode::RWXG | Mode::RWXO);
}

/// Raises a limit as far as it may be, or to `enough` if it is below. Best effort.
fn raise(resource: Resource, enough: Option<u64>) {
    let Rlimit { current, maximum } = getrlimit(resource);
    let wanted = match (enough, maximum) {
        (Some(enough), Some(most)) => Some(enough.min(most)),
        (enough, most) => enough.or(most),
    };
    let is_enough = current.is_none_or(|now| wanted.is_some_and(|wanted| now >= wanted));
    if !is_enough {
        let _ = setrlimit(resource, Rlimit { current: wanted, maximum });
    }
}

/// Limits that may end this process, or fail its calls, and that may be meant so: each in words.
pub fn limits_in_force() -> Vec<String> {
    let of = [
        (Resource::Fsize, "bytes of a file", "RLIMIT_FSIZE, `ulimit -H -f`"),
        (Resource::As, "bytes of address space", "RLIMIT_AS, `ulimit -v`"),
        (Resource::Data, "bytes of data", "RLIMIT_DATA, `ulimit -d`"),
        (Resource::Cpu, "seconds of processor time", "RLIMIT_CPU, `ulimit -H -t`"),
    ];
    let named = |(resource, what, name)| {
        getrlimit(resource).current.map(|most| format!("each process has {most} {what} at most ({name})"))
    };
    of.into_iter().filter_map(named).collect()
}

/// Lets this process, and all that it starts, write to a terminal from the background, also where
/// `stty tostop` is set. To be called before there is another thread.
pub fn write_from_the_background() {
    settle_signal(libc::SIGTTOU);
}

/// Gives a signal that is ignored its default again. A handler cannot be inherited, so one that is
/// there is this process's own. SIGPIPE is ignored: a write to a closed pipe is an error, not an
/// end. SIGTTOU, too: a worker is no foreground process, and its log may be a terminal.
fn settle_signal(signal: libc::c_int) {
    // SAFETY: all zero is a valid sigaction: the default.
    let mut action: libc::sigaction = unsafe { zeroed() };
    if matches!(signal, libc::SIGPIPE | libc::SIGTTOU) {
        action.sa_sigaction = libc::SIG_IGN;
    } else {
        // SAFETY: all zero is valid, as above.
        let mut now: libc::sigaction = unsafe { zeroed() };
        // SAFETY: only reads the disposition. Signals of the C library's own are refused.
        let asked = unsafe { libc::sigaction(signal, std::ptr::null(), &raw mut now) };
        if asked != 0 || now.sa_sigaction != libc::SIG_IGN {
            return;
        }
    }
    // SAFETY: the disposition runs no code of this process.
    let _ = unsafe { libc::sigaction(signal, &raw const action, std::ptr::null_mut()) };
}

/// Unblocks all signals for this thread, and so for those that it starts.
fn unblock_signals() {
    // SAFETY: all zero is a valid set, which the next call replaces.
    let mut none: libc::sigset_t = unsafe { zeroed() };
    // SAFETY: the set is this function's own.
    let _ = unsafe { libc::sigemptyset(&raw mut none) };
    // SAFETY: no code of this process runs in a signal handler that relies on being blocked.
    let _ = unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut()) };
}

/// A child that has ended and was not waited for; any one, if there are several. Does not reap it.
/// `None`: there is none, or no child at all.
pub fn ended_child() -> Option<Pid> {
    // SAFETY: all zero is a valid siginfo, and says that no child has ended.
    let mut info: libc::siginfo_t = unsafe { zeroed() };
    let options = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
    // SAFETY: the kernel writes one siginfo.
    let status = unsafe { libc::waitid(libc::P_ALL, 0, &raw mut info, options) };
    if status != 0 {
        return None;
    }
    // SAFETY: waitid filled the part about a child, or left it zero.
    Pid::from_raw(unsafe { info.si_pid() })
}

/// Reaps a child that has ended. Its status is lost, so this is for children that nobody started
/// here: orphans that the kernel gave to this process.
pub fn reap(pid: Pid) -> io::Result<()> {
    rustix::process::waitpid(Some(pid), rustix::process::WaitOptions::NOHANG)?;
    Ok(())
}
