//! Sources of the configuration: the file, and the command line on top of it.

use crate::config::Config;
use std::net::SocketAddr;
use std::path::PathBuf;

/// Sources of a host's configuration: it can be read again.
#[derive(Debug, Clone, Default)]
pub struct Source {
    /// The file.
    pub path: Option<PathBuf>,
    /// Addresses from the command line, which replace the file's.
    pub listen: Vec<(String, SocketAddr)>,
    /// `--no-watch` on the command line, which overrides `watch`.
    pub no_watch: bool,
}

impl Source {
    /// Reads file and command line. The error names the file, and the line where there is one.
    pub fn read(&self) -> Result<Config, String> {
        let mut config = match &self.path {
            Some(path) => Config::read(path)?,
            None => Config::default(),
        };
        config.override_listen(&self.listen);
        config.watch &= !self.no_watch;
        Ok(config)
    }
}

/// Parses the argument of `--listen`.
pub fn parse_listen(text: &str) -> Result<(String, SocketAddr), String> {
    let (service, addr) = text.split_once('=').ok_or("it is written SERVICE=ADDRESS:PORT")?;
    let addr = addr
        .parse()
        .map_err(|_| format!("{addr:?} is not an address with a port, such as 127.0.0.1:4000"))?;
    Ok((service.to_owned(), addr))
}

impl Config {
    /// Replaces the addresses of each service that `--listen SERVICE=ADDR` names.
    pub fn override_listen(&mut self, listen: &[(String, SocketAddr)]) {
        for (service, _) in listen {
            self.service.entry(service.clone()).or_default().listen.clear();
        }
        for (service, addr) in listen {
            self.service.entry(service.clone()).or_default().listen.push(*addr);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::tests::read;

    #[test]
    fn the_command_line_comes_before_the_file_and_the_file_before_the_service() {
        let mut c =
            read("[service.chat]\nlisten = [\"127.0.0.1:1\", \"[::1]:1\"]\nsettings = {a = 1}\n").unwrap();
        let addr = |s: &str| s.parse::<SocketAddr>().unwrap();
        assert_eq!(c.addresses("chat", 4000, false).unwrap(), [addr("127.0.0.1:1"), addr("[::1]:1")]);
        assert_eq!(c.addresses("echo", 4001, false).unwrap(), [addr("127.0.0.1:4001")]);
        c.override_listen(&[parse_listen("chat=127.0.0.1:2").unwrap()]);
        assert_eq!(c.addresses("chat", 4000, false).unwrap(), [addr("127.0.0.1:2")]);
        assert_eq!(c.settings()["chat"], r#"{"a":1}"#);
        assert!(c.addresses("odd", 0, false).unwrap_err().contains("--listen odd="));
        assert_eq!(c.addresses("far", 0, true), Ok(Vec::new()));
        assert!(parse_listen("chat").is_err() && parse_listen("chat=x").is_err());
    }
}
