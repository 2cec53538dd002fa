//! Access to the admin socket: roles by user and group, and the modes that let callers in.
//!
//! | `[admin]` names | runtime directory | `admin.sock` |
//! | --- | --- | --- |
//! | nobody | 0700 | 0600 |
//! | somebody | 0711: may be crossed, not listed | 0666 |
//!
//! The kernel names a caller's user and groups. The host's own user and root may do everything.
//! Everybody else has the role that the configuration in force gives, for commands that begin from
//! then on. A watch of turns, which has no end of its own, ends with its caller's role.

use crate::config::admin::{AccessList, AdminConfig, Role};
use crate::sys::peer;
use rustix::process::geteuid;
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{PoisonError, RwLock};
use std::{fs, io};

/// Access to the admin socket, which the accepting thread and the keeper share.
pub struct Access {
    /// Path of the admin socket, in the runtime directory.
    socket: PathBuf,
    in_force: RwLock<InForce>,
}

/// Values of the configuration in force.
#[derive(Debug, Clone, Default)]
struct InForce {
    members: AccessList,
    audit: Option<PathBuf>,
}

/// A caller of the admin socket, as the kernel names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AdminCaller {
    /// User.
    pub uid: u32,
    /// Process; 0: of another pid namespace.
    pub pid: i32,
    /// Role; `None`: the host serves it nothing.
    pub role: Option<Role>,
}

impl Access {
    /// Begins with a configuration. Changes no mode: the socket is not there yet.
    pub fn new(socket: PathBuf, config: &AdminConfig) -> Access {
        Access { socket, in_force: RwLock::new(InForce::of(config)) }
    }

    /// Puts another configuration in force, for callers that come from now on.
    pub fn put_in_force(&self, config: &AdminConfig) {
        *self.in_force.write().unwrap_or_else(PoisonError::into_inner) = InForce::of(config);
        if let Err(e) = self.set_modes() {
            tracing::warn!("admin: modes of the socket and its directory: {e}; it is tried again");
        }
    }

    /// File of the audit log.
    pub fn audit(&self) -> Option<PathBuf> {
        self.now().audit
    }

    /// Path of the admin socket.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Finds out who a caller is, and its role. Fails for a socket without a peer.
    pub fn caller(&self, socket: impl AsFd) -> io::Result<AdminCaller> {
        AdminCaller::of(socket, &self.now().members)
    }

    /// Sets the modes of the socket and its directory, where they differ. Costs two stats.
    pub fn set_modes(&self) -> io::Result<()> {
        let nobody = self.now().members.is_empty();
        let (dir, socket) = if nobody { (0o700, 0o600) } else { (0o711, 0o666) };
        set_mode(&self.socket, socket)?;
        self.socket.parent().map_or(Ok(()), |path| set_mode(path, dir))
    }

    fn now(&self) -> InForce {
        self.in_force.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl InForce {
    fn of(config: &AdminConfig) -> InForce {
        InForce { members: config.members.clone(), audit: config.audit.clone() }
    }
}

/// Sets a file's mode, if it has another one.
fn set_mode(path: &Path, mode: u32) -> io::Result<()> {
    let is = fs::symlink_metadata(path)?.permissions().mode() & 0o777;
    if is == mode { Ok(()) } else { fs::set_permissions(path, PermissionsExt::from_mode(mode)) }
}

impl AdminCaller {
    /// Finds out who a caller is, and its role among members. Fails for a socket without a peer.
    pub fn of(socket: impl AsFd, members: &AccessList) -> io::Result<AdminCaller> {
        let who = peer::of(&socket)?;
        let uid = who.uid.as_raw();
        let role = match who.uid.is_root() || who.uid == geteuid() {
            true => Some(Role::Operate),
            // A kernel that tells no groups leaves the users.
            false => members.role_of(uid, &peer::groups_of(&socket).unwrap_or_default()),
        };
        Ok(AdminCaller { uid, pid: who.pid.map_or(0, |pid| pid.as_raw_nonzero().get()), role })
    }

    /// Why a caller without a role is served nothing.
    pub fn stranger(&self) -> String {
        format!(
            "this host belongs to user {}, and user {} has no role; `read` or `operate` in its section [admin] \
             gives one",
            geteuid().as_raw(),
            self.uid
        )
    }

    /// Why a caller may not have this command carried out; `None`: it may.
    pub fn refusal(&self, needs: Role, command: &str) -> Option<String> {
        (self.role < Some(needs)).then(|| {
            format!(
                "user {} may look and not change: `{command}` needs the role `{}`, which the host's section \
                 [admin] gives",
                self.uid,
                needs.name()
            )
        })
    }
}
