//! Access to the files of Unix sockets: modes and groups of each service.

use crate::config::Config;
use crate::config::socket_file::SocketFile;
use crate::sys::user::group_number;

impl Config {
    /// Access to the files of a service's Unix sockets. Fails on a mode that is none.
    pub fn socket_file(&self, service: &str) -> Result<SocketFile, String> {
        let of = self.service.get(service);
        let (mode, group) =
            (of.and_then(|c| c.socket_mode.as_deref()), of.and_then(|c| c.socket_group.as_deref()));
        SocketFile::of(service, mode, group)
    }

    /// Checks that the groups of all Unix sockets exist. The error names service and group. May ask
    /// the network, where the system does.
    pub fn check_socket_groups(&self) -> Result<(), String> {
        for (service, config) in &self.service {
            if let Some(group) = &config.socket_group {
                group_number(group).map_err(|why| format!("service.{service}.socket_group: {why}"))?;
            }
        }
        Ok(())
    }
}
