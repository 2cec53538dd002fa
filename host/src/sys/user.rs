//! Change of the user that a host runs as: from root to another one, for good.
//!
//! The host changes before it reads anything else, so no handler ever runs as root. Of root's
//! rights one remains: to bind ports below 1024, in the keeper alone. So a reload may add such a
//! port, and workers, trials and handshakers have no right that their user lacks: the kernel drops
//! the keeper's when it executes another program.
//!
//! | state | becomes |
//! | --- | --- |
//! | user and group ids: real, effective, saved | those of the user |
//! | further groups | those of the user |
//! | capabilities | `CAP_NET_BIND_SERVICE`, if it was there; not for children |
//! | programs that give rights to who runs them (setuid) | give none, to children either |

use nix::unistd::{Gid, Group, Uid, User, initgroups, setresgid, setresuid};
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, capability_is_in_ambient_set,
    configure_capability_in_ambient_set, set_capabilities, set_keep_capabilities, set_no_new_privs,
};
use std::ffi::CString;
use std::fmt::{self, Display, Formatter};
use std::io;
use std::os::unix::fs::lchown;
use std::path::Path;

/// Right to bind ports below 1024.
const PORTS: CapabilitySet = CapabilitySet::NET_BIND_SERVICE;

/// User that a host is to run as.
#[derive(Debug, Clone)]
pub struct HostUser {
    name: String,
    uid: Uid,
    gid: Gid,
}

impl Display for HostUser {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

impl HostUser {
    /// Finds a user by name or number. Its group is the one of the system's list of users. Root is
    /// refused: a host that is to be root needs no such name.
    pub fn find(name: &str) -> Result<HostUser, String> {
        let found = match name.parse() {
            Ok(number) => User::from_uid(Uid::from_raw(number)),
            Err(_) => User::from_name(name),
        };
        match found {
            Ok(Some(user)) if user.uid.is_root() => Err(format!("user {name} is root; leave it out")),
            Ok(Some(User { name, uid, gid, .. })) => Ok(HostUser { name, uid, gid }),
            Ok(None) => Err(format!("there is no user {name}; `useradd --system {name}` makes one")),
            Err(e) => Err(format!("user {name}: {e}")),
        }
    }

    /// Whether this process runs as the user already.
    pub fn is_this(&self) -> bool {
        Uid::effective() == self.uid && Uid::current() == self.uid
    }

    /// Gives an empty directory of root to the user, and makes it with mode 0700 if nothing is
    /// there. Anything else stays as it is.
    pub fn give_dir(&self, dir: &Path) -> io::Result<()> {
        use std::os::unix::fs::{DirBuilderExt, MetadataExt};
        if let Some(parent) = dir.parent() {
            std::fs::create_dir_all(parent)?;
        }
        match std::fs::DirBuilder::new().mode(0o700).create(dir) {
            Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(e),
            _ => {}
        }
        let meta = std::fs::symlink_metadata(dir)?;
        if meta.is_dir() && meta.uid() == 0 && std::fs::read_dir(dir)?.next().is_none() {
            lchown(dir, Some(self.uid.as_raw()), Some(self.gid.as_raw()))?;
        }
        Ok(())
    }

    /// Goes on as the user, for good. To be called while the process has one thread, as
    /// capabilities are a thread's. After an error the process must end: it may be half changed.
    pub fn enter(&self) -> Result<(), String> {
        if !Uid::effective().is_root() {
            let now = Uid::effective();
            return Err(format!("only root can start a host as user {self}; this is user {now}"));
        }
        let failed = |what: &str, e: io::Error| format!("user {self}: {what}: {e}");
        let name = CString::new(self.name.as_str()).map_err(|e| failed("its name", e.into()))?;
        let before = capabilities(None).map_err(|e| failed("capabilities", e.into()))?;
        // Without this the change of the user would take all of them.
        set_keep_capabilities(true).map_err(|e| failed("capabilities", e.into()))?;
        initgroups(&name, self.gid).map_err(|e| failed("its groups", e.into()))?;
        setresgid(self.gid, self.gid, self.gid).map_err(|e| failed("its group", e.into()))?;
        setresuid(self.uid, self.uid, self.uid).map_err(|e| failed("its number", e.into()))?;
        let _ = set_keep_capabilities(false);
        let ports = before.permitted & PORTS;
        let none = CapabilitySet::empty();
        set_capabilities(None, CapabilitySets { effective: ports, permitted: ports, inheritable: none })
            .map_err(|e| failed("capabilities", e.into()))?;
        set_no_new_privs(true).map_err(|e| failed("no new privileges", e.into()))?;
        // A kernel or a container that only pretends would leave handlers with root's rights.
        match setresuid(Uid::from_raw(0), Uid::from_raw(0), Uid::from_raw(0)) {
            Ok(()) => Err(format!("user {self}: the process can become root again")),
            Err(_) => Ok(()),
        }
    }
}

/// Number of a user that is named, or whose number is written. May ask the network, where the
/// system does. The error says that there is no such user.
pub fn user_number(name: &str) -> Result<u32, String> {
    match name.parse() {
        Ok(number) => Ok(number),
        Err(_) => match User::from_name(name) {
            Ok(Some(user)) => Ok(user.uid.as_raw()),
            Ok(None) => Err(format!("there is no user {name}")),
            Err(e) => Err(format!("user {name}: {e}")),
        },
    }
}

/// Number of a group that is named, or whose number is written, as [`user_number`].
pub fn group_number(name: &str) -> Result<u32, String> {
    match name.parse() {
        Ok(number) => Ok(number),
        Err(_) => match Group::from_name(name) {
            Ok(Some(group)) => Ok(group.gid.as_raw()),
            Ok(None) => Err(format!("there is no group {name}")),
            Err(e) => Err(format!("group {name}: {e}")),
        },
    }
}

/// Name of a user; `None`: the system knows none of this number. May ask the network, where the
/// system does.
pub fn user_name(uid: u32) -> Option<String> {
    User::from_uid(Uid::from_raw(uid)).ok().flatten().map(|user| user.name)
}

/// Keeps the right to bind ports below 1024 from children, if a service manager gave it to this
/// process and all that it starts (systemd's `AmbientCapabilities=`). This process keeps it.
pub fn keep_ports_from_children() {
    if capability_is_in_ambient_set(PORTS).is_ok_and(|is| is) {
        let _ = configure_capability_in_ambient_set(PORTS, false);
    }
}
