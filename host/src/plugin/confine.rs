//! Confinement of a candidate during its trial: the candidate may compute, read files, and
//! answer.
//!
//! | kept from | by |
//! | --- | --- |
//! | CPU time and memory without end | resource limits |
//! | writing, making and removing files | landlock, where the kernel has it |
//! | running programs | landlock, and seccomp |
//! | network, signals by `kill` and its kin | seccomp: these calls fail with EPERM |
//!
//! A candidate runs on copies of live data, and may be refused. So it must leave no trace
//! outside before it serves. The confinement stops code that acts too early. It is no sandbox
//! for hostile code: a handler that serves has all rights of the host, so its file must be
//! trusted anyway (`config/trust.rs`).
//!
//! The process is confined once, before the candidate is loaded, and for good. If landlock or
//! seccomp reports an error, no candidate is tried. A kernel without landlock reports none:
//! files stay writable then.

use landlock::{ABI, AccessFs, CompatLevel, Compatible, Ruleset, RulesetAttr};
use rustix::process::{Resource, Rlimit, Signal, getpid, setrlimit};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    apply_filter,
};
use std::collections::BTreeMap;

/// Priority below the worker's. The weight of nice 5 is a third of that of nice 0. So on a busy
/// machine the trial still goes on, at a third of the worker's share.
const NICE: i32 = 5;

/// Confines this process for good, to `cpu_s` seconds of CPU time and `memory` bytes of address
/// space. The error says what can't be done, and no candidate may be tried then.
pub fn confine(cpu_s: u64, memory: u64) -> Result<(), String> {
    let limit = |n| Rlimit { current: Some(n), maximum: Some(n) };
    // No core file: a crash in a trial is an ordinary outcome. The limits are best effort: the
    // parent's clock ends the child in any case.
    let _ = setrlimit(Resource::Core, limit(0));
    let _ = setrlimit(Resource::Cpu, limit(cpu_s));
    let _ = setrlimit(Resource::As, limit(memory));
    // Sessions that are served come first.
    let _ = rustix::process::nice(NICE);
    // A child without its parent would go on unseen.
    let _ = rustix::process::set_parent_process_death_signal(Some(Signal::KILL));
    no_writes().map_err(|e| format!("the trial can't be kept from writing files: {e}"))?;
    no_calls().map_err(|e| format!("the trial can't be kept from system calls: {e}"))
}

/// Forbids changes to files, where the kernel has landlock. `BestEffort` leaves out what an
/// older kernel does not know. Files that are open already stay writable.
fn no_writes() -> Result<(), landlock::RulesetError> {
    let ruleset = Ruleset::default().set_compatibility(CompatLevel::BestEffort);
    ruleset.handle_access(AccessFs::from_write(ABI::V3) | AccessFs::Execute)?.create()?.restrict_self()?;
    Ok(())
}

/// Forbids system calls that reach outside: network, other programs, signals. All other calls
/// are allowed, because handlers, their libraries and the C library need too many to list.
fn no_calls() -> Result<(), seccompiler::Error> {
    let refused = [
        libc::SYS_socket,
        libc::SYS_socketpair,
        libc::SYS_connect,
        libc::SYS_bind,
        libc::SYS_execve,
        libc::SYS_execveat,
        libc::SYS_ptrace,
        libc::SYS_process_vm_writev,
        libc::SYS_kill,
        libc::SYS_tkill,
        libc::SYS_pidfd_send_signal,
        // The child stays in its group, which is ended with it.
        libc::SYS_setsid,
        libc::SYS_setpgid,
    ];
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = refused.into_iter().map(|call| (call, vec![])).collect();
    // A process may signal itself: `abort` does.
    let me = u64::from(getpid().as_raw_nonzero().get().unsigned_abs());
    let other = SeccompCondition::new(0, SeccompCmpArgLen::Dword, SeccompCmpOp::Ne, me)?;
    rules.insert(libc::SYS_tgkill, vec![SeccompRule::new(vec![other])?]);
    // Threads may be started, though the candidate is refused for those that stay. A `clone`
    // without CLONE_THREAD starts a process, and is refused. A `clone3` keeps its flags in
    // memory, which seccomp cannot read, and is allowed.
    let thread = libc::CLONE_THREAD as u64;
    let process = SeccompCondition::new(0, SeccompCmpArgLen::Qword, SeccompCmpOp::MaskedEq(thread), 0)?;
    rules.insert(libc::SYS_clone, vec![SeccompRule::new(vec![process])?]);
    let refuse = SeccompAction::Errno(libc::EPERM as u32);
    let arch = std::env::consts::ARCH.try_into()?;
    let program: BpfProgram = SeccompFilter::new(rules, SeccompAction::Allow, refuse, arch)?.try_into()?;
    apply_filter(&program)
}
