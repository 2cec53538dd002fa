//! System calls that a candidate may make in its trial: those that a computation needs.
//!
//! | call | answer |
//! | --- | --- |
//! | listed in [`ALLOWED`], or of this processor's own list | carried out |
//! | listed in [`conditions`], with harmless arguments | carried out |
//! | changes files | EACCES, as landlock answers |
//! | newer than Linux 5.1 and not listed, such as `clone3` and `io_uring_setup` | ENOSYS |
//! | any other | EPERM |
//! | by another processor's numbers (`int 0x80`) | the process is killed |
//!
//! A refused call is an error and no crash. A library may ask at its start for what it can do
//! without, such as memory that is locked, and goes on. ENOSYS is the answer of an older kernel,
//! for which programs are prepared: the C library starts a thread with `clone` then, whose flags
//! can be looked at. Those of `clone3` lie in memory, where a filter can't read them. `openat2` is
//! refused for the same reason.
//!
//! Threads may be started, though the candidate is refused for those that stay. Processes may not.
//! Descriptors, pipes and memory are the process's own, and within its limits (`confine.rs`). All
//! that acts on another process, by its number or by a signal, is left out. So are locks of files,
//! which the host's processes tell each other apart by, and everything that counts against a quota
//! of the user: keys, watches, locked memory, queued signals, messages, asynchronous input.

use libc::*;
use rustix::process::getpid;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    apply_filter,
};
use std::collections::BTreeMap;

/// Calls that may be made with any arguments.
#[rustfmt::skip]
const ALLOWED: &[c_long] = &[
    // Memory.
    SYS_brk, SYS_mmap, SYS_munmap, SYS_mremap, SYS_mprotect, SYS_mincore,
    // Descriptors, and files that are open for reading.
    SYS_read, SYS_readv, SYS_pread64, SYS_preadv, SYS_preadv2, SYS_write, SYS_writev, SYS_lseek, SYS_close,
    SYS_close_range, SYS_dup, SYS_dup3, SYS_pipe2, SYS_eventfd2, SYS_ppoll, SYS_pselect6, SYS_epoll_create1,
    SYS_epoll_ctl, SYS_epoll_pwait, SYS_epoll_pwait2, SYS_fadvise64,
    // Names and metadata.
    SYS_fstat, SYS_newfstatat, SYS_statx, SYS_statfs, SYS_fstatfs, SYS_faccessat, SYS_faccessat2,
    SYS_readlinkat, SYS_getdents64, SYS_getcwd, SYS_chdir, SYS_fchdir, SYS_umask,
    // Time.
    SYS_clock_gettime, SYS_clock_getres, SYS_clock_nanosleep, SYS_nanosleep, SYS_gettimeofday, SYS_times,
    SYS_getrusage,
    // Threads.
    SYS_futex, SYS_futex_waitv, SYS_set_robust_list, SYS_set_tid_address, SYS_rseq, SYS_gettid, SYS_getcpu,
    SYS_sched_yield, SYS_sched_getaffinity, SYS_sched_getscheduler, SYS_sched_getparam,
    SYS_sched_get_priority_max, SYS_sched_get_priority_min, SYS_exit, SYS_exit_group,
    // Signals of its own.
    SYS_rt_sigaction, SYS_rt_sigprocmask, SYS_rt_sigreturn, SYS_rt_sigpending, SYS_rt_sigsuspend,
    SYS_rt_sigtimedwait, SYS_sigaltstack, SYS_restart_syscall,
    // Names and numbers of the process and the machine, and random bytes.
    SYS_getpid, SYS_getppid, SYS_getpgid, SYS_getsid, SYS_getpriority, SYS_getuid, SYS_geteuid, SYS_getgid,
    SYS_getegid, SYS_getresuid, SYS_getresgid, SYS_getgroups, SYS_capget, SYS_uname, SYS_sysinfo,
    SYS_getrandom,
];

/// Older forms of allowed calls, which newer processors do not have.
#[cfg(target_arch = "x86_64")]
#[rustfmt::skip]
const ALLOWED_HERE: &[c_long] = &[
    SYS_dup2, SYS_pipe, SYS_eventfd, SYS_poll, SYS_select, SYS_epoll_create, SYS_epoll_wait, SYS_stat,
    SYS_lstat, SYS_access, SYS_readlink, SYS_getdents, SYS_time, SYS_getrlimit, SYS_getpgrp, SYS_pause,
    SYS_arch_prctl, SYS_mseal,
];
#[cfg(not(target_arch = "x86_64"))]
const ALLOWED_HERE: &[c_long] = &[];

/// Calls that change files, and have landlock's answer.
#[rustfmt::skip]
const OF_FILES: &[c_long] = &[
    SYS_truncate, SYS_ftruncate, SYS_fallocate, SYS_mkdirat, SYS_mknodat, SYS_unlinkat, SYS_renameat2,
    SYS_linkat, SYS_symlinkat,
];
#[cfg(target_arch = "x86_64")]
#[rustfmt::skip]
const OF_FILES_HERE: &[c_long] = &[
    SYS_creat, SYS_mkdir, SYS_mknod, SYS_rmdir, SYS_unlink, SYS_rename, SYS_renameat, SYS_link, SYS_symlink,
];
#[cfg(not(target_arch = "x86_64"))]
const OF_FILES_HERE: &[c_long] = &[];

/// Numbers of the calls since Linux 5.1, which are the same on all processors. The last one is far
/// beyond those that there are.
const NEWER: std::ops::RangeInclusive<c_long> = 425..=511;

/// Flags of an open that change a file, or make one.
const WRITING: [c_int; 6] = [O_WRONLY, O_RDWR, O_ACCMODE, O_CREAT, O_TRUNC, O_TMPFILE & !O_DIRECTORY];

/// Flag without an effect that musl gives to a thread.
const DETACHED: c_int = 0x40_0000;
/// Flags that threads are started with by C libraries; two of them by every one.
const THREAD: c_int = CLONE_THREAD | CLONE_VM;
const THREAD_MAY: c_int = THREAD
    | CLONE_FS
    | CLONE_FILES
    | CLONE_SIGHAND
    | CLONE_SYSVSEM
    | CLONE_SETTLS
    | CLONE_PARENT_SETTID
    | CLONE_CHILD_SETTID
    | CLONE_CHILD_CLEARTID
    | DETACHED;

/// Commands of `fcntl` that change the process's own table of descriptors. Locks, leases, owners
/// for signals, seals and sizes of pipes are left out.
const OF_FCNTL: [c_int; 6] = [F_DUPFD, F_DUPFD_CLOEXEC, F_GETFD, F_SETFD, F_GETFL, F_SETFL];

/// Commands of `ioctl`: whether it is a terminal (by two numbers), what can be read, and flags.
const OF_IOCTL: [u32; 7] = [0x5401, 0x802c_542a, 0x5413, 0x541b, 0x5421, 0x5450, 0x5451];

/// Commands of `prctl`: names of threads and of memory, and what this process may do.
const OF_PRCTL: [c_int; 6] =
    [PR_SET_NAME, PR_GET_NAME, PR_SET_VMA, PR_GET_DUMPABLE, PR_CAPBSET_READ, PR_SET_NO_NEW_PRIVS];

/// First advice of `madvise` that acts on the machine's memory and not on the process's.
const OF_THE_MACHINE: u64 = MADV_HWPOISON as u64;

/// Rules of a filter, by the number of the call. A call without rules matches with any arguments.
type Rules = BTreeMap<c_long, Vec<SeccompRule>>;

/// Confines this process for good to the calls above. Other threads of it are not confined, so
/// there must be none. The error is the kernel's, which may have no filters.
pub(super) fn allow_computing() -> Result<(), seccompiler::Error> {
    let mut allowed = conditions()?;
    allowed.extend(any(ALLOWED.iter().chain(ALLOWED_HERE).copied()));
    let mut newer = any(NEWER);
    newer.retain(|call, _| !allowed.contains_key(call));
    let mut of_files = any(OF_FILES.iter().chain(OF_FILES_HERE).copied());
    of_files.extend(writing_opens()?);
    // No further filters: they are the process's own, but cost memory of the kernel.
    of_files.extend(any([SYS_seccomp]));
    // Where several filters refuse a call, the last one's error counts.
    apply(allowed, SeccompAction::Errno(EPERM as u32), SeccompAction::Allow)?;
    apply(newer, SeccompAction::Allow, SeccompAction::Errno(ENOSYS as u32))?;
    apply(of_files, SeccompAction::Allow, SeccompAction::Errno(EACCES as u32))
}

/// Puts a filter in force, beside those that are.
fn apply(rules: Rules, others: SeccompAction, these: SeccompAction) -> Result<(), seccompiler::Error> {
    let arch = std::env::consts::ARCH.try_into()?;
    let program: BpfProgram = SeccompFilter::new(rules, others, these, arch)?.try_into()?;
    apply_filter(&program)
}

/// Rules that match these calls with any arguments.
fn any(calls: impl IntoIterator<Item = c_long>) -> Rules {
    calls.into_iter().map(|call| (call, Vec::new())).collect()
}

/// A rule that matches one argument. The kernel takes it as 32 bits, whatever stands above them.
fn arg(at: u8, op: SeccompCmpOp, value: u64) -> Result<SeccompRule, seccompiler::Error> {
    let condition = SeccompCondition::new(at, SeccompCmpArgLen::Dword, op, value)?;
    Ok(SeccompRule::new(vec![condition])?)
}

/// Rules that match an argument with one of these values.
fn one_of(at: u8, values: impl IntoIterator<Item = u64>) -> Result<Vec<SeccompRule>, seccompiler::Error> {
    values.into_iter().map(|value| arg(at, SeccompCmpOp::Eq, value)).collect()
}

/// Calls that are allowed with some arguments only.
fn conditions() -> Result<Rules, seccompiler::Error> {
    use SeccompCmpOp::{Eq, Lt, MaskedEq};
    let me = u64::from(getpid().as_raw_nonzero().get().unsigned_abs());
    let written = WRITING.iter().fold(0, |all, flag| all | *flag as u64);
    let whole = |at, op, value| SeccompCondition::new(at, SeccompCmpArgLen::Qword, op, value);
    let asks = |pid| -> Result<_, seccompiler::Error> {
        let pid = SeccompCondition::new(0, SeccompCmpArgLen::Dword, Eq, pid)?;
        // A limit is only asked for: without a new value.
        Ok(SeccompRule::new(vec![pid, whole(2, Eq, 0)?])?)
    };
    // All flags but those of a thread are clear.
    let thread = MaskedEq(!(THREAD_MAY as u64) | THREAD as u64);
    let mut rules = Rules::from([
        (SYS_clone, vec![SeccompRule::new(vec![whole(0, thread, THREAD as u64)?])?]),
        (SYS_openat, vec![arg(2, MaskedEq(written), 0)?]),
        (SYS_madvise, vec![arg(2, Lt, OF_THE_MACHINE)?]),
        (SYS_fcntl, one_of(1, OF_FCNTL.map(|n| n as u64))?),
        (SYS_ioctl, one_of(1, OF_IOCTL.map(u64::from))?),
        (SYS_prctl, one_of(0, OF_PRCTL.map(|n| n as u64))?),
        (SYS_prlimit64, vec![asks(0)?, asks(me)?]),
        // A process may signal itself: `abort` does.
        (SYS_kill, one_of(0, [me])?),
        (SYS_tgkill, one_of(0, [me])?),
        // For the filters that follow.
        (SYS_seccomp, one_of(0, [u64::from(SECCOMP_SET_MODE_FILTER)])?),
    ]);
    #[cfg(target_arch = "x86_64")]
    rules.insert(SYS_open, vec![arg(1, MaskedEq(written), 0)?]);
    Ok(rules)
}

/// Opens that change a file, by each of their flags.
fn writing_opens() -> Result<Rules, seccompiler::Error> {
    let with_flags = |at| -> Result<Vec<_>, seccompiler::Error> {
        WRITING.iter().map(|flag| arg(at, SeccompCmpOp::MaskedEq(*flag as u64), *flag as u64)).collect()
    };
    let mut rules = Rules::from([(SYS_openat, with_flags(2)?)]);
    #[cfg(target_arch = "x86_64")]
    rules.insert(SYS_open, with_flags(1)?);
    Ok(rules)
}
