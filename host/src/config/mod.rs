//! The configuration file: TOML, unknown keys refused with their line. Everything has a default, so none is needed.
//!
//! ```toml
//! handlers = ["target/release"]           # libraries and directories, beside those on the command line
//! watch = false                           # load what is built anew only when `greenroom reload` says so
//!
//! [limits]
//! sessions_max = 50000
//!
//! [save]
//! file = "/var/lib/greenroom/tables"      # instead of one in the runtime directory
//! every_s = 60                            # and not only when the host is stopped
//!
//! [trust]
//! owners = [1001]                        # whose libraries are taken, beside our own and root's
//!
//! [service.chat]
//! listen = ["127.0.0.1:4000"]             # instead of the service's own port
//! settings = { nick_max = 12 }            # read by the handler
//! limits = { idle_ms = 600000 }           # otherwise than the host's
//! ```

pub mod trust;

use crate::config::trust::Trust;
use greenroom_core::limits::host::Limits;
use greenroom_core::limits::per_service::{AllLimits, ServiceLimits};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// See the module.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Libraries and directories, relative to the file.
    pub handlers: Vec<PathBuf>,
    /// Whether a library is reloaded as soon as its file changes; else only `greenroom reload` does it.
    pub watch: bool,
    /// The limits.
    pub limits: Limits,
    /// What outlives the host.
    pub save: SaveConfig,
    /// Whose libraries are taken.
    pub trust: Trust,
    /// By service.
    pub service: BTreeMap<String, ServiceConfig>,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            handlers: Vec::new(),
            watch: true,
            limits: Limits::default(),
            save: SaveConfig::default(),
            trust: Trust::default(),
            service: BTreeMap::new(),
        }
    }
}

/// Where tables and ledger are saved, and how often.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SaveConfig {
    /// The file, relative to the configuration's; none: `tables.saved` in the runtime directory, which may not outlive the machine.
    pub file: Option<PathBuf>,
    /// Seconds between two saves; 0: only when the host is stopped.
    pub every_s: u64,
}

/// What an operator says of one service.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ServiceConfig {
    /// Addresses to listen on instead of the service's own.
    pub listen: Vec<SocketAddr>,
    /// The handler's settings.
    pub settings: toml::Table,
    /// Limits that the service has otherwise than the host.
    pub limits: ServiceLimits,
}

/// Ten years between two saves are as good as none.
const EVERY_S_MAX: u64 = 10 * 366 * 24 * 3600;

impl Config {
    /// Reads a file. The error names the file, and the line where there is one.
    pub fn read(path: &Path) -> Result<Config, String> {
        let text = std::fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()))?;
        let mut config: Config =
            toml::from_str(&text).map_err(|e| format!("{}: {}", path.display(), e.to_string().trim_end()))?;
        config.all_limits().check().map_err(|e| format!("{}: {e}", path.display()))?;
        if config.save.every_s > EVERY_S_MAX {
            let s = config.save.every_s;
            return Err(format!("{}: save.every_s is {s}: it must be at most {EVERY_S_MAX}", path.display()));
        }
        let base = path.parent().unwrap_or(Path::new(""));
        for handler in &mut config.handlers {
            *handler = base.join(&*handler);
        }
        if let Some(file) = &mut config.save.file {
            *file = base.join(&*file);
        }
        Ok(config)
    }

    /// Puts `--listen SERVICE=ADDR` in place of what the file says.
    pub fn override_listen(&mut self, listen: &[(String, SocketAddr)]) {
        for (service, _) in listen {
            self.service.entry(service.clone()).or_default().listen.clear();
        }
        for (service, addr) in listen {
            self.service.entry(service.clone()).or_default().listen.push(*addr);
        }
    }

    /// Where a service listens: where it is told to, or at its own port; nowhere, if its sessions are asked for.
    pub fn addresses(&self, service: &str, port: u16, dials: bool) -> Result<Vec<SocketAddr>, String> {
        match self.service.get(service) {
            Some(c) if !c.listen.is_empty() => Ok(c.listen.clone()),
            _ if port == 0 && dials => Ok(Vec::new()),
            _ if port == 0 => Err(format!(
                "service {service} has no port of its own; give it one with --listen {service}=127.0.0.1:PORT"
            )),
            _ => Ok(vec![([127, 0, 0, 1], port).into()]),
        }
    }

    /// The same, with other settings for these services, as [`Config::settings`] gives them.
    pub fn with_settings(&self, settings: &BTreeMap<String, String>) -> Config {
        let mut config = self.clone();
        for (service, json) in settings {
            config.service.entry(service.clone()).or_default().settings =
                serde_json::from_str(json).unwrap_or_default();
        }
        config
    }

    /// All limits, of the host and of its services.
    pub fn all_limits(&self) -> AllLimits {
        let own = self.service.iter().filter(|(_, c)| c.limits != ServiceLimits::default());
        let services = own.map(|(name, c)| (name.clone(), c.limits.clone())).collect();
        AllLimits { host: self.limits.clone(), services }
    }

    /// What another configuration has otherwise, in words: first what holds only from a host's start, then the rest.
    pub fn changes(&self, to: &Config) -> (Vec<String>, Vec<String>) {
        let mut fixed = Vec::new();
        for (name, same) in [
            ("handlers", self.handlers == to.handlers),
            ("save.file", self.save.file == to.save.file),
            ("limits.store_bytes_max", self.limits.store_bytes_max == to.limits.store_bytes_max),
        ] {
            fixed.extend((!same).then(|| name.to_owned()));
        }
        let flat = |config: &Config| {
            let mut names = BTreeMap::new();
            flatten("", &serde_json::to_value(config).unwrap_or_default(), &mut names);
            names
        };
        let (old, new) = (flat(self), flat(to));
        let names: BTreeSet<_> = old.keys().chain(new.keys()).collect();
        let differs = |name: &&&String| old.get(**name) != new.get(**name);
        let known = |name: &String| !fixed.iter().any(|f| name.starts_with(f.as_str()));
        let live = names.iter().filter(differs).map(|n| (**n).clone()).filter(known).collect();
        (fixed, live)
    }

    /// Every service's settings as JSON, as handlers get them.
    pub fn settings(&self) -> BTreeMap<String, String> {
        let json = |t: &toml::Table| serde_json::to_string(t).unwrap_or_else(|_| "{}".into());
        self.service.iter().map(|(name, c)| (name.clone(), json(&c.settings))).collect()
    }
}

/// The values in a tree by their dotted names.
fn flatten(at: &str, value: &serde_json::Value, names: &mut BTreeMap<String, serde_json::Value>) {
    match value {
        serde_json::Value::Object(map) => {
            for (key, value) in map {
                flatten(&if at.is_empty() { key.clone() } else { format!("{at}.{key}") }, value, names);
            }
        }
        // As good as absent.
        serde_json::Value::Null => {}
        serde_json::Value::Array(items) if items.is_empty() => {}
        value => _ = names.insert(at.to_owned(), value.clone()),
    }
}

/// Where a host's configuration comes from, to be read again.
#[derive(Debug, Clone, Default)]
pub struct Source {
    /// The file.
    pub path: Option<PathBuf>,
    /// What the command line says in place of it.
    pub listen: Vec<(String, SocketAddr)>,
    /// Likewise.
    pub no_watch: bool,
}

impl Source {
    /// Reads it.
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

/// Reads the argument of `--listen`.
pub fn parse_listen(text: &str) -> Result<(String, SocketAddr), String> {
    let (service, addr) = text.split_once('=').ok_or("it is written SERVICE=ADDRESS:PORT")?;
    let addr = addr
        .parse()
        .map_err(|_| format!("{addr:?} is not an address with a port, such as 127.0.0.1:4000"))?;
    Ok((service.to_owned(), addr))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Config, String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("greenroom.toml");
        std::fs::write(&path, text).unwrap();
        Config::read(&path)
    }

    #[test]
    fn unknown_keys_are_refused_with_their_line() {
        let err = read("[limits]\nsessions_max = 5\nsesions_min = 1\n").unwrap_err();
        assert!(
            err.contains("greenroom.toml") && err.contains("line 3") && err.contains("sesions_min"),
            "{err}"
        );
        let err = read("[service.chat]\nlisten = [\"nowhere\"]\n").unwrap_err();
        assert!(err.contains("line 2"), "{err}");
        let err = read("[service.chat.limits]\nframe_ms = 3\nsessions = 1\n").unwrap_err();
        assert!(err.contains("line 3"), "{err}");
        let err = read("[service.chat.limits]\noutput_bytes_pause = 0\n").unwrap_err();
        assert!(err.contains("service.chat.limits.output_bytes_pause is 0"), "{err}");
        let err = read("[limits]\noutput_bytes_pause = 0\n").unwrap_err();
        assert!(err.contains("limits.output_bytes_pause is 0"), "{err}");
        assert!(Config::read(Path::new("/nonexistent/x.toml")).unwrap_err().contains("/nonexistent/x.toml"));
    }

    #[test]
    fn what_is_counted_is_a_limit() {
        let known = serde_json::to_value(Limits::default()).unwrap();
        for limit in greenroom_core::limits::names::Limit::ALL.iter().filter(|l| l.name() != "open_files") {
            assert!(known.get(limit.name()).is_some(), "{limit:?}");
        }
    }

    #[test]
    fn changes_are_named() {
        let old = read("[service.chat]\nsettings = {a = 1, b = 2}\n[limits]\nidle_ms = 5\n").unwrap();
        let new = read(
            "watch = false\n[service.chat]\nsettings = {a = 1, b = 3}\n[service.x]\nlimits = {frame_ms = 1}\n[limits]\nstore_bytes_max = 20000000\n",
        )
        .unwrap();
        let (fixed, live) = old.changes(&new);
        assert_eq!(fixed, ["limits.store_bytes_max"]);
        assert_eq!(live, ["limits.idle_ms", "service.chat.settings.b", "service.x.limits.frame_ms", "watch"]);
        assert_eq!(old.changes(&old), (Vec::new(), Vec::new()));
    }

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
