//! Observer: the process that serves metrics, health and the console over HTTP.

use crate::config::token::read_token;
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// Longest name of a host, in bytes: DNS has no longer one.
const HOST_BYTES_MAX: usize = 253;

/// Observer of a host. Without an address there is none.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ObserveConfig {
    /// Address of HTTP. `None`: no observer runs.
    pub listen: Option<SocketAddr>,
    /// Whether the console is served, too.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub console: bool,
    /// File of the token that requests must name, relative to the configuration's. `None`: metrics
    /// need none, and the console has one of its own in the runtime directory.
    pub token_file: Option<PathBuf>,
    /// Names by which browsers may ask, beside `localhost` and addresses.
    pub hosts: Vec<String>,
}

impl ObserveConfig {
    /// Checks the file of the token, if one is named. The error names key and file.
    pub fn check_token_file(&self) -> Result<(), String> {
        let read = self.token_file.as_deref().map_or(Ok(String::new()), read_token);
        read.map(drop).map_err(|e| format!("observe.token_file: {e}"))
    }

    /// Checks the values against each other. The error names the key.
    pub(super) fn check(&self) -> Result<(), String> {
        let Some(listen) = self.listen else {
            return match self.console || self.token_file.is_some() || !self.hosts.is_empty() {
                true => Err("it needs `listen`, such as listen = \"127.0.0.1:9900\"".into()),
                false => Ok(()),
            };
        };
        if !listen.ip().is_loopback() && self.token_file.is_none() {
            return Err(format!(
                "listen is {listen}, which others can reach: it needs `token_file`, a file with the token that \
                 requests must name; or listen on 127.0.0.1"
            ));
        }
        let path = self.token_file.as_deref().map(Path::as_os_str).map(|p| p.as_encoded_bytes());
        if path.is_some_and(|path| path.is_empty() || path.contains(&0)) {
            return Err(format!("token_file: {:?} names no file", self.token_file));
        }
        let is_name = |name: &str| {
            let is_part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
            (1..=HOST_BYTES_MAX).contains(&name.len()) && name.chars().all(is_part)
        };
        match self.hosts.iter().find(|name| !is_name(name)) {
            Some(bad) => {
                Err(format!("hosts: {bad:?} is no name of a host; write it as example.org, without a port"))
            }
            None => Ok(()),
        }
    }

    /// Resolves the relative path against a directory.
    pub(super) fn resolve(&mut self, base: &Path) {
        if let Some(path) = &mut self.token_file {
            *path = base.join(&*path);
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::config::tests::read;

    #[test]
    fn an_observer_is_for_this_machine_or_needs_a_token() {
        let good = read("[observe]\nlisten = \"127.0.0.1:9900\"\nconsole = true\n").unwrap();
        assert!(good.observe.console && good.observe.listen.is_some());
        let config = read("[observe]\nlisten = \"0.0.0.0:1\"\ntoken_file = \"t\"\nhosts = [\"a.example\"]\n");
        assert!(config.unwrap().observe.token_file.unwrap().is_absolute());
        for (lines, says) in [
            ("listen = \"0.0.0.0:9900\"", "observe: listen is 0.0.0.0:9900, which others can reach"),
            ("listen = \"[::]:9900\"", "needs `token_file`"),
            ("listen = \"here\"", "line 2"),
            ("console = true", "observe: it needs `listen`"),
            ("listen = \"127.0.0.1:1\"\nhosts = [\"a:1\"]", "hosts: \"a:1\" is no name"),
            ("listen = \"127.0.0.1:1\"\ntoken_file = \"\"", "token_file"),
            ("listen = \"127.0.0.1:1\"\ntoken = \"x\"", "line 3"),
        ] {
            let said = read(&format!("[observe]\n{lines}\n")).unwrap_err();
            assert!(said.contains(says), "{said}");
        }
    }
}
