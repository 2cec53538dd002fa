//! Confinement of a candidate during its trial: the candidate may compute, read files, and
//! answer.
//!
//! | kept from | by |
//! | --- | --- |
//! | naming other processes | namespaces (`apart.rs`) |
//! | CPU time, memory, descriptors and threads without end | resource limits, `apart.rs` |
//! | writing, making and removing files, opening devices | landlock, and seccomp |
//! | running programs, network, all that acts on other processes | seccomp (`system_calls.rs`) |
//! | rights of root beyond reading files | capabilities |
//! | being the reason why the kernel ends a worker for memory | its own score is the highest |
//!
//! A candidate runs on copies of live data, and may be refused. So it must leave no trace
//! outside before it serves. The confinement stops code that acts too early. It is no sandbox
//! for hostile code: a handler that serves has all rights of the host, so its file must be
//! trusted anyway (`config/trust.rs`).
//!
//! The process is confined once, before the candidate is loaded, and for good. A kernel or a
//! container may lack parts of it: [`Confined::missing`] names them. Then the configuration decides
//! whether candidates are tried (`reload.confinement`).

use crate::plugin::apart::{Namespaces, threads_max};
use crate::plugin::system_calls::allow_computing;
use crate::protocol::status::Confined;
use crate::sys::process_state::give_way;
use landlock::{
    ABI, Access, AccessFs, AccessNet, CompatLevel, Compatible, PathBeneath, PathFd, Ruleset, RulesetAttr,
    RulesetCreatedAttr, RulesetStatus, Scope,
};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::{CapabilitySet, CapabilitySets, capabilities, set_capabilities};
use std::ffi::OsStr;
use std::path::PathBuf;

/// Most descriptors of a candidate: pipes of as many take 32 MiB of the kernel's memory.
const DESCRIPTORS_MAX: u64 = 1024;
/// Processes of a trial's user namespace that are no threads of the candidate.
const OTHER_PROCESSES: u64 = 2;
/// Files of `/dev` that may be opened: devices that do nothing, and a folder of ordinary files.
const DEVICES: [&str; 6] = ["/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", "/dev/shm"];

/// Confines this process for good, to `cpu_s` seconds of CPU time and `memory` bytes of address
/// space. Tells what is in force, and why the rest isn't.
pub(super) fn confine(cpu_s: u64, memory: u64, namespaces: Namespaces) -> Confined {
    limit_resources(cpu_s, memory, namespaces);
    let namespaced = namespaces != Namespaces::Refused;
    let mut confined = Confined { namespaces: namespaced, ..Confined::default() };
    match no_writes() {
        Ok(true) => confined.landlock = true,
        Ok(false) => confined.missing.push("landlock: this kernel has none in force".into()),
        Err(e) => confined.missing.push(format!("landlock: {e}")),
    }
    drop_capabilities(namespaces);
    // Last: the steps before make calls that this refuses.
    match allow_computing() {
        Ok(()) => confined.seccomp = true,
        Err(e) => confined.missing.push(format!("seccomp: {e}")),
    }
    confined
}

/// Has no crash of this process or its children leave a core file: it is an ordinary outcome. A
/// limit of 1 byte keeps away programs that take cores, too. A limit of 0 does not.
pub(super) fn leave_no_core() {
    limit(Resource::Core, 1);
}

/// Lowers a limit, for good and as far as it isn't lower. Best effort: the parent's clock ends the
/// trial in any case.
fn limit(resource: Resource, n: u64) {
    let n = getrlimit(resource).maximum.map_or(n, |maximum| maximum.min(n));
    let _ = setrlimit(resource, Rlimit { current: Some(n), maximum: Some(n) });
}

/// Limits what this process can use up.
fn limit_resources(cpu_s: u64, memory: u64, namespaces: Namespaces) {
    limit(Resource::Cpu, cpu_s);
    limit(Resource::As, memory);
    limit(Resource::Nofile, DESCRIPTORS_MAX);
    // No file grows, a memory file included.
    limit(Resource::Fsize, 0);
    if namespaces == Namespaces::OfUser {
        // Counted in the namespace alone. Outside, the host's own processes would count.
        limit(Resource::Nproc, threads_max() + OTHER_PROCESSES);
    }
    // Sessions that are served come first.
    give_way();
    let _ = std::fs::write("/proc/self/oom_score_adj", "1000");
}

/// Forbids changes to files, devices, TCP, and signals and abstract sockets of others, as far as
/// the kernel's landlock knows them: `BestEffort` leaves out the rest. False: the kernel has no
/// landlock. Files that are open already stay as they are.
fn no_writes() -> Result<bool, landlock::RulesetError> {
    let ruleset = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_write(ABI::V10) | AccessFs::Execute | AccessFs::ReadFile)?
        .handle_access(AccessNet::from_all(ABI::V4))?
        .scope(Scope::from_all(ABI::V6))?;
    // Opening a device may do something. All other files may be read.
    let top = std::fs::read_dir("/").into_iter().flatten().flatten().map(|entry| entry.path());
    let readable = top.filter(|path| path.file_name() != Some(OsStr::new("dev")));
    let readable = readable.chain(DEVICES.map(PathBuf::from)).filter_map(|path| PathFd::new(path).ok());
    let rules =
        readable.map(|path| Ok::<_, landlock::RulesetError>(PathBeneath::new(path, AccessFs::ReadFile)));
    let status = ruleset.create()?.add_rules(rules)?.restrict_self()?;
    Ok(status.ruleset != RulesetStatus::NotEnforced)
}

/// Gives up all capabilities. Those of reading other users' files stay with a host that has them:
/// its handlers may read such files when they are built. Those of a new user namespace are none
/// that the host has.
fn drop_capabilities(namespaces: Namespaces) {
    let Ok(all) = capabilities(None) else { return };
    let reads = match namespaces {
        Namespaces::OfUser => CapabilitySet::empty(),
        _ => all.effective & (CapabilitySet::DAC_OVERRIDE | CapabilitySet::DAC_READ_SEARCH),
    };
    let none = CapabilitySet::empty();
    let _ = set_capabilities(None, CapabilitySets { effective: reads, permitted: reads, inheritable: none });
}
