//! Groups of the files of Unix sockets: whether the system has them.

use crate::config::Config;
use crate::sys::user::group_number;

impl Config {
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
