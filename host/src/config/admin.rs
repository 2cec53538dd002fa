//! Section `[admin]`: users who may call the host, and the audit log.

use crate::sys::user;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Callers of the host beside its own user and root, who may do everything.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AdminConfig {
    /// Users and groups that may look: `ann`, `1001`, `@staff`, `@27`.
    pub read: Vec<String>,
    /// Users and groups that may look and change.
    pub operate: Vec<String>,
    /// File of the audit log, relative to the configuration's. `None`: changes are in the host's
    /// log alone.
    pub audit: Option<PathBuf>,
    /// Both lists by number. Only the process that has read the file has it.
    #[serde(skip)]
    pub members: AccessList,
}

/// Role of a caller. A higher one may do all that a lower one may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Looks, and changes nothing.
    Read,
    /// Changes, too.
    Operate,
}

impl Role {
    /// Key of the configuration that names who has the role.
    pub fn name(self) -> &'static str {
        match self {
            Role::Read => "read",
            Role::Operate => "operate",
        }
    }
}

/// Users and groups that have a role, by number.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AccessList {
    read: Members,
    operate: Members,
}

/// Users and groups, by number.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Members {
    users: BTreeSet<u32>,
    groups: BTreeSet<u32>,
}

impl Members {
    /// Looks up names. The error names the one that the system does not know.
    fn find(key: &str, names: &[String]) -> Result<Members, String> {
        let mut found = Members::default();
        for name in names {
            let number = match name.strip_prefix('@') {
                Some(group) => user::group_number(group).map(|gid| found.groups.insert(gid)),
                None => user::user_number(name).map(|uid| found.users.insert(uid)),
            };
            number.map_err(|why| format!("admin.{key}: {why}"))?;
        }
        Ok(found)
    }

    fn has(&self, uid: u32, gids: &[u32]) -> bool {
        self.users.contains(&uid) || gids.iter().any(|gid| self.groups.contains(gid))
    }
}

impl AccessList {
    /// Role of a user with these groups; `None`: it has none. O(groups).
    pub fn role_of(&self, uid: u32, gids: &[u32]) -> Option<Role> {
        match self.operate.has(uid, gids) {
            true => Some(Role::Operate),
            false => self.read.has(uid, gids).then_some(Role::Read),
        }
    }

    /// Whether nobody has a role.
    pub fn is_empty(&self) -> bool {
        *self == AccessList::default()
    }
}

impl AdminConfig {
    /// Checks the values. The error names the key.
    pub(super) fn check(&self) -> Result<(), String> {
        let path = self.audit.as_deref().map(Path::as_os_str).map(|p| p.as_encoded_bytes());
        if path.is_some_and(|path| path.is_empty() || path.contains(&0)) {
            return Err(format!("audit: {:?} names no file", self.audit));
        }
        for (key, names) in [("read", &self.read), ("operate", &self.operate)] {
            if let Some(bad) = names.iter().find(|name| name.trim_start_matches('@').is_empty()) {
                return Err(format!(
                    "{key}: {bad:?} names nobody; write a user as \"ann\" or \"1001\", a group as \"@staff\""
                ));
            }
        }
        Ok(())
    }

    /// Resolves the relative path against a directory.
    pub(super) fn resolve(&mut self, base: &Path) {
        if let Some(path) = &mut self.audit {
            *path = base.join(&*path);
        }
    }

    /// Looks up the users and groups. May ask the network, where the system does. The error says
    /// which name the system does not know.
    pub fn find_members(&mut self) -> Result<(), String> {
        let operate = Members::find("operate", &self.operate)?;
        self.members = AccessList { read: Members::find("read", &self.read)?, operate };
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::tests::read;

    #[test]
    fn roles_are_of_users_and_groups_and_the_higher_one_counts() {
        let text = "[admin]\nread = [\"@70001\", \"70002\"]\noperate = [\"70003\", \"@70004\", \"70002\"]\naudit = \"a\"\n";
        let mut admin = read(text).unwrap().admin;
        assert!(admin.audit.as_ref().unwrap().is_absolute() && admin.members.is_empty());
        admin.find_members().unwrap();
        let role = |uid, gids: &[u32]| admin.members.role_of(uid, gids);
        assert_eq!((role(70003, &[]), role(70002, &[])), (Some(Role::Operate), Some(Role::Operate)));
        assert_eq!((role(1, &[5, 70001]), role(1, &[70004, 70001])), (Some(Role::Read), Some(Role::Operate)));
        assert_eq!((role(70001, &[70002]), role(0, &[])), (None, None));
    }

    #[test]
    fn names_that_nobody_has_are_refused() {
        for (lines, says) in [
            ("read = [\"\"]", "admin: read: \"\" names nobody"),
            ("operate = [\"@\"]", "operate: \"@\" names nobody"),
            ("audit = \"\"", "admin: audit"),
            ("write = []", "line 2"),
        ] {
            let said = read(&format!("[admin]\n{lines}\n")).unwrap_err();
            assert!(said.contains(says), "{said}");
        }
        for name in ["no-such-user-here", "@no-such-group-here"] {
            let mut admin = AdminConfig { read: vec![name.into()], ..AdminConfig::default() };
            let said = admin.find_members().unwrap_err();
            assert!(said.contains("admin.read: ") && said.contains("no-such-"), "{said}");
        }
    }
}
