//! Access to the files of a service's Unix sockets, as the configuration has it.

use serde::{Deserialize, Serialize};

/// Access to the file of a Unix socket.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SocketFile {
    /// Mode of the file. Whoever may write may connect.
    pub mode: u32,
    /// Group of the file, by name or number; `None`: the host's.
    pub group: Option<String>,
}

impl SocketFile {
    /// Reads a service's access: its owner alone, unless the configuration says otherwise. Fails on
    /// a mode that is none.
    pub(super) fn of(service: &str, mode: Option<&str>, group: Option<&str>) -> Result<SocketFile, String> {
        let mode = mode.unwrap_or("0600");
        let octal = u32::from_str_radix(mode, 8).ok().filter(|m| *m <= 0o777);
        match octal {
            Some(mode) => Ok(SocketFile { mode, group: group.map(str::to_owned) }),
            None => Err(format!(
                "service.{service}.socket_mode is {mode:?}: a mode is octal digits up to \"0777\", as \"0660\""
            )),
        }
    }
}
