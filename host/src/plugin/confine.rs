//! Confinement of a candidate during its trial: it may compute, read files, and answer, and do
//! nothing that would be seen outside.
//!
//! Limits on processor time and memory; no network, no other program, no signal to another process
//! (seccomp); no file written, made or removed (landlock, where the kernel has it). A handler that
//! serves is not confined.

use landlock::{ABI, AccessFs, CompatLevel, Compatible, Ruleset, RulesetAttr};
use rustix::process::{Resource, Rlimit, Signal, getpid, setrlimit};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    apply_filter,
};
use std::collections::BTreeMap;

/// Priority below the worker's: a candidate gets a third of the worker's share, so that a busy
/// machine gets through it, too.
const NICE: i32 = 5;

/// Confines this process for good, to `cpu_s` seconds of CPU time and `memory` bytes of address
/// space. The error says what can't be done; no candidate may be tried then.
pub fn confine(cpu_s: u64, memory: u64) -> Result<(), String> {
    let limit = |n| Rlimit { current: Some(n), maximum: Some(n) };
    let _ = setrlimit(Resource::Core, limit(0));
    let _ = setrlimit(Resource::Cpu, limit(cpu_s));
    let _ = setrlimit(Resource::As, limit(memory));
    // The sessions that are served come first.
    let _ = rustix::process::nice(NICE);
    // The child dies with the host.
    let _ = rustix::process::set_parent_process_death_signal(Some(Signal::KILL));
    no_writes().map_err(|e| format!("the trial can't be kept from writing files: {e}"))?;
    no_calls().map_err(|e| format!("the trial can't be kept from system calls: {e}"))
}

/// Forbids changes to files, where the kernel has landlock.
fn no_writes() -> Result<(), landlock::RulesetError> {
    let ruleset = Ruleset::default().set_compatibility(CompatLevel::BestEffort);
    ruleset.handle_access(AccessFs::from_write(ABI::V3) | AccessFs::Execute)?.create()?.restrict_self()?;
    Ok(())
}

/// Forbids system calls that reach outside: network, other programs, signals.
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
    // A process may send signals to itself: abort does.
    let me = u64::from(getpid().as_raw_nonzero().get().unsigned_abs());
    let other = SeccompCondition::new(0, SeccompCmpArgLen::Dword, SeccompCmpOp::Ne, me)?;
    rules.insert(libc::SYS_tgkill, vec![SeccompRule::new(vec![other])?]);
    // Threads may be started, though the candidate is refused for those that stay; processes may
    // not.
    let thread = libc::CLONE_THREAD as u64;
    let process = SeccompCondition::new(0, SeccompCmpArgLen::Qword, SeccompCmpOp::MaskedEq(thread), 0)?;
    rules.insert(libc::SYS_clone, vec![SeccompRule::new(vec![process])?]);
    let refuse = SeccompAction::Errno(libc::EPERM as u32);
    let arch = std::env::consts::ARCH.try_into()?;
    let program: BpfProgram = SeccompFilter::new(rules, SeccompAction::Allow, refuse, arch)?.try_into()?;
    apply_filter(&program)
}
