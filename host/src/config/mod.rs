//! Configuration of a host: TOML, unknown keys refused with their line. Every key has a
//! default, so no file is needed.
//!
//! ```toml
//! handlers = ["target/release"]           # beside libraries and directories on the command line
//! watch = false                           # only `greenroom reload` loads new builds
//!
//! [limits]
//! sessions_max = 50000
//!
//! [save]
//! file = "/var/lib/greenroom/tables"      # else in the runtime directory
//! every_s = 60                            # else only at a stop
//!
//! [reload]
//! confinement = "required"                # else candidates are tried without it, too
//!
//! [trust]
//! owners = [1001]                         # users whose libraries are accepted
//!
//! [admin]
//! read = ["@staff"]                       # users and groups that may look, beside the host's user
//! operate = ["ann", "@operators"]         # those that may change, too
//! audit = "/var/log/greenroom/audit.log"  # a line for each change
//!
//! [observe]
//! listen = "127.0.0.1:9900"               # metrics and health over HTTP; else none
//! console = true                          # the console, too
//!
//! [log]
//! format = "json"                         # else text, or journald where standard error is that
//! file = "/var/log/greenroom/log"         # else standard error
//! level = "debug"                         # else info
//!
//! [process]
//! user = "greenroom"                      # of a host that root starts; else root
//!
//! [service.chat]
//! listen = ["127.0.0.1:4000"]             # else its port
//! dual_stack = true                       # endpoints at [::] take IPv4, too; else IPv6 alone
//! settings = {nick_max = 12}              # for the handler
//! limits = {idle_ms = 600000}             # else host's
//! proxy_from = ["10.0.0.0/8"]             # proxies that endpoints of kind `proxy+` believe
//! origins = ["https://example.org"]       # pages that may open WebSocket; else same host
//! tls = {certificate = "chain.pem", key = "key.pem"}  # for endpoints like tls://127.0.0.1:4443
//! ```
//!
//! The keeper reads the file at its start, at SIGHUP and for `greenroom reload --config`; the
//! worker gets the result and never the file. A changed configuration goes through a commit
//! like a build: all of it is in force, or nothing. The keeper and the records keep the one in
//! force for successors.
//!
//! | file | holds |
//! |---|---|
//! | [`addresses`] | addresses that are wanted twice |
//! | [`admin`] | callers and their roles, the audit log |
//! | [`changes`] | differences between two configurations, by name |
//! | [`file_contents`] | contents of the files that settings name |
//! | `files` | files that settings name: reads them |
//! | [`log`] | format, file and level of the log |
//! | `needs` | what endpoints need of their service |
//! | [`observe`] | address and token of the observer |
//! | [`process`] | rights of the host's processes |
//! | [`record`] | configurations between processes, which may be of different versions |
//! | [`save`] | file of saved tables, and interval of saves |
//! | `settings` | settings of handlers as JSON, and values that JSON lacks |
//! | [`socket_file`] | mode and group of the files of Unix sockets |
//! | [`source`] | the configuration's sources: file and command line |
//! | [`tls`] | certificates of services |
//! | [`trust`] | file trust: owners, modes, hashes |

pub mod addresses;
pub mod admin;
pub mod changes;
pub mod file_contents;
mod files;
mod listen;
pub mod log;
mod needs;
pub mod observe;
pub mod process;
pub mod record;
pub mod save;
mod settings;
mod socket_access;
pub mod socket_file;
pub mod source;
mod syntax;
pub mod tls;
pub mod token;
pub mod trust;

use crate::config::admin::AdminConfig;
use crate::config::file_contents::FileContents;
use crate::config::listen::{named, needs_tls, why_not, with_ipv4};
use crate::config::log::LogConfig;
use crate::config::observe::ObserveConfig;
use crate::config::process::ProcessConfig;
use crate::config::save::SaveConfig;
use crate::config::syntax::{placed, text_of};
use crate::config::tls::{TlsConfig, TlsSettings};
use crate::config::trust::Trust;
use greenroom_core::limits::host::Limits;
use greenroom_core::limits::per_service::{AllLimits, ServiceLimits};
use greenroom_core::limits::trusted::TrustedProxies;
use greenroom_core::service::offer::Offer;
use greenroom_state::address::Address;
use greenroom_state::endpoint::{Endpoint, over_tls, split_kind};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Configuration of a host. Field names are the keys of the file.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Libraries and directories, relative to the file. Only a restart of the host changes
    /// them.
    pub handlers: Vec<PathBuf>,
    /// Reload a library as soon as its file changes. Off: only `greenroom reload` does.
    pub watch: bool,
    /// Limits of the host, and defaults for its services.
    pub limits: Limits,
    /// Saved tables and ledger.
    pub save: SaveConfig,
    /// Loading of builds.
    pub reload: ReloadConfig,
    /// Trust in library files.
    pub trust: Trust,
    /// Callers beside the host's user, and the audit log.
    pub admin: AdminConfig,
    /// Metrics, health and the console over HTTP.
    pub observe: ObserveConfig,
    /// Format, file and level of the log.
    pub log: LogConfig,
    /// Rights of the processes.
    pub process: ProcessConfig,
    /// Services, by name. A name that no library offers is allowed: its library may come later.
    pub service: BTreeMap<String, ServiceConfig>,
    /// Contents of the files that settings name. They cross between processes beside the settings
    /// ([`record`]). The key is none of the operator's file.
    #[serde(skip_deserializing, skip_serializing_if = "FileContents::is_empty")]
    pub files: FileContents,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            handlers: Vec::new(),
            watch: true,
            limits: Limits::default(),
            save: SaveConfig::default(),
            reload: ReloadConfig::default(),
            trust: Trust::default(),
            admin: AdminConfig::default(),
            observe: ObserveConfig::default(),
            log: LogConfig::default(),
            process: ProcessConfig::default(),
            service: BTreeMap::new(),
            files: FileContents::default(),
        }
    }
}

/// Loading of builds: at the start, and in a reload.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ReloadConfig {
    /// Whether a candidate may be tried without all of the confinement.
    pub confinement: Confinement,
}

/// Confinement of candidates in their trials, where the machine may lack parts of it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Confinement {
    /// Candidates are tried with what there is.
    #[default]
    BestEffort,
    /// No candidate is tried or loaded without landlock and seccomp.
    Required,
}

impl Confinement {
    /// Whether candidates may be tried although parts of the confinement are `missing`, each with
    /// its reason. The error is a reason to refuse.
    pub fn allows(self, missing: &[String]) -> Result<(), String> {
        if self == Confinement::BestEffort || missing.is_empty() {
            return Ok(());
        }
        Err(format!(
            "reload.confinement is \"required\", and a candidate can't be confined in its trial: {}",
            missing.join("; ")
        ))
    }
}

/// Configuration of one service.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ServiceConfig {
    /// Endpoints to listen on. Empty: those that the service offers, on loopback.
    pub listen: Vec<Endpoint>,
    /// Endpoints at `[::]` take IPv4, too: each listens at 0.0.0.0 with the same port as well.
    /// Without it they take IPv6 alone.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub dual_stack: bool,
    /// Mode of the files of its Unix sockets, in octal digits. `None`: "0600".
    pub socket_mode: Option<String>,
    /// Group of those files, by name or number. `None`: the host's.
    pub socket_group: Option<String>,
    /// Settings of the handler. The host passes them on and does not interpret them.
    pub settings: toml::Table,
    /// Origins whose pages may open WebSocket sessions, `"*"` for any. Empty: the host that the
    /// request names.
    pub origins: Vec<String>,
    /// Proxies whose PROXY headers are believed at endpoints that begin with `proxy+`: networks and
    /// addresses. Others are closed.
    pub proxy_from: Vec<String>,
    /// Certificate and key of its endpoints over TLS. `None`: it has no such endpoints.
    pub tls: Option<TlsConfig>,
    /// Limits that differ from the host's.
    pub limits: ServiceLimits,
}

impl Config {
    /// Reads a file, resolves its paths against its directory, and checks limits and intervals.
    /// Blocks for the disk. The error names the file, and the line where there is one.
    pub fn read(path: &Path) -> Result<Config, String> {
        // Paths in the file are relative to it, and messages hold them as text.
        is_text(path)?;
        let text = text_of(path).map_err(|e| format!("{}: {e}", path.display()))?;
        let mut config: Config = toml::from_str(&text).map_err(|e| placed(path, &text, &e))?;
        config.check().map_err(|e| format!("{}: {e}", path.display()))?;
        // A host may be started from anywhere, and the file stays with its paths.
        let base = path.parent().unwrap_or(Path::new(""));
        for handler in &mut config.handlers {
            *handler = base.join(&*handler);
        }
        if let Some(file) = &mut config.save.file {
            *file = base.join(&*file);
        }
        config.service.values_mut().filter_map(|s| s.tls.as_mut()).for_each(|tls| tls.resolve(base));
        config.admin.resolve(base);
        config.observe.resolve(base);
        config.log.resolve(base);
        config.read_files(base).map_err(|e| format!("{}: {e}", path.display()))?;
        Ok(config)
    }

    /// Checks each value by itself, and limits against each other. The error names the key.
    fn check(&self) -> Result<(), String> {
        self.all_limits().check()?;
        self.admin.check().map_err(|e| format!("admin: {e}"))?;
        self.observe.check().map_err(|e| format!("observe: {e}"))?;
        self.log.check()?;
        self.trust.check()?;
        for (name, service) in &self.service {
            check_origins(&service.origins).map_err(|e| format!("service.{name}.origins: {e}"))?;
            TrustedProxies::read(&service.proxy_from)
                .map_err(|e| format!("service.{name}.proxy_from: {e}"))?;
            let tls = service.tls.as_ref().map_or(Ok(()), TlsConfig::check);
            tls.map_err(|e| format!("service.{name}.tls.{e}"))?;
        }
        self.check_settings()?;
        self.service.keys().try_for_each(|service| self.socket_file(service).map(|_| ()))?;
        self.save.check()?;
        let paths = self.handlers.iter().map(|path| ("handlers", path));
        for (key, path) in paths.chain(self.save.file.iter().map(|path| ("save.file", path))) {
            if path.as_os_str().is_empty() || path.as_os_str().as_encoded_bytes().contains(&0) {
                return Err(format!("{key}: {path:?} names no file"));
            }
        }
        Ok(())
    }

    /// Endpoints of a service: the configured ones, or those that it offers, on loopback. A service
    /// that dials and offers none listens nowhere.
    ///
    /// Fails if the service has neither, or if it can't be had in the kind of an endpoint, or on an
    /// address of its kind. The error names the service.
    pub fn endpoints(&self, offer: &Offer) -> Result<Vec<Endpoint>, String> {
        let service = &offer.name;
        if let Some(c) = self.service.get(service).filter(|c| !c.listen.is_empty()) {
            let why_not = |e| why_not(offer, e, c.has_certificate()).or_else(|| c.why_no_proxy(e));
            return match c.listen.iter().find_map(|e| why_not(e).map(|why| (e, why))) {
                Some((endpoint, why)) => Err(format!("service {service} can't listen on {endpoint}: {why}")),
                None => {
                    let all: Vec<_> = c.listen.iter().map(|e| named(offer, e)).collect();
                    match c.dual_stack {
                        true => with_ipv4(&all).map_err(|e| format!("service.{service}.{e}")),
                        false => Ok(all),
                    }
                }
            };
        }
        if self.service.get(service).is_some_and(|c| c.dual_stack) {
            return with_ipv4(&[]).map_err(|e| format!("service.{service}.{e}"));
        }
        let offered = offer.endpoints.iter().enumerate().filter(|(_, e)| e.port != 0);
        let endpoints: Vec<_> = offered
            .map(|(at, e)| {
                let address = ([127, 0, 0, 1], e.port).into();
                match e.framing.is_of_datagrams() {
                    true => Endpoint { kind: e.framing.kind().into(), address: Address::Udp(address) },
                    // The first one is named as services with one endpoint always were.
                    false => Endpoint {
                        kind: if at == 0 { "" } else { e.framing.kind() }.into(),
                        address: Address::Tcp(address),
                    },
                }
            })
            .collect();
        match endpoints.is_empty() && !offer.dials {
            true => Err(format!(
                "service {service} has no port of its own; give it one with --listen {service}=127.0.0.1:PORT"
            )),
            false => Ok(endpoints),
        }
    }

    /// Checks that each service with an endpoint over TLS has a certificate. The error names both.
    fn check_tls(&self) -> Result<(), String> {
        for (name, service) in self.service.iter().filter(|(_, s)| !s.has_certificate()) {
            if let Some(endpoint) = service.listen.iter().find(|e| over_tls(split_kind(&e.kind).1).is_some())
            {
                return Err(format!("service {name} can't listen on {endpoint}: {}", needs_tls(name)));
            }
        }
        Ok(())
    }

    /// TLS of all services, and its limits.
    pub fn tls_settings(&self) -> TlsSettings {
        let with_tls = self.service.iter().filter_map(|(name, c)| Some((name.clone(), c.tls.clone()?)));
        let Limits { handshake_ms, handshakes_max, handshakes_per_s, .. } = self.limits;
        TlsSettings { services: with_tls.collect(), handshake_ms, handshakes_max, handshakes_per_s }
    }

    /// Copy of this configuration with other settings for these services, in the form of
    /// [`Config::settings`], and the contents of their files. A rollback uses it: a generation goes
    /// back with the settings that it had.
    pub fn with_settings(&self, settings: &BTreeMap<String, String>, files: &FileContents) -> Config {
        let mut config = self.clone();
        files.iter().for_each(|(sha256, bytes)| config.files.insert(sha256.into(), bytes.clone()));
        for (service, json) in settings {
            config.service.entry(service.clone()).or_default().settings =
                serde_json::from_str(json).unwrap_or_default();
        }
        config
    }

    /// Limit `output_ms` of a service.
    pub fn output_ms(&self, service: &str) -> u64 {
        self.service.get(service).and_then(|s| s.limits.output_ms).unwrap_or(self.limits.output_ms)
    }

    /// Limits of the host and of its services. Services without limits of their own are left
    /// out.
    pub fn all_limits(&self) -> AllLimits {
        let own = self.service.iter().filter(|(_, c)| c.limits != ServiceLimits::default());
        let services = own.map(|(name, c)| (name.clone(), c.limits.clone())).collect();
        let named = self.service.iter().filter(|(_, c)| !c.origins.is_empty());
        let origins = named.map(|(name, c)| (name.clone(), c.origins.clone())).collect();
        // Checked before: a text that is no network trusts nobody.
        let proxies = self
            .service
            .iter()
            .map(|(name, c)| (name.clone(), TrustedProxies::read(&c.proxy_from).unwrap_or_default()));
        AllLimits { host: self.limits.clone(), services, origins, proxies: proxies.collect() }
    }
}

/// Refuses an origin that no browser sends, which would let nobody in.
fn check_origins(origins: &[String]) -> Result<(), String> {
    let is_origin = |o: &str| {
        o.split_once("://").is_some_and(|(scheme, host)| {
            !scheme.is_empty() && !host.is_empty() && !host.contains(['/', '?', '#', '@', ' '])
        })
    };
    match origins.iter().find(|o| !(*o == "*" || *o == "null" || is_origin(o))) {
        Some(bad) => Err(format!("{bad:?} is no origin; write it as https://example.org, or \"*\" for any")),
        None => Ok(()),
    }
}

/// Refuses a path that is not UTF-8: messages and records hold paths as text, and another one would
/// keep every worker from starting.
pub fn is_text(path: &Path) -> Result<(), String> {
    match path.to_str() {
        Some(_) => Ok(()),
        None => Err(format!("{}: the path is not UTF-8; rename it", path.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads a configuration file of this text.
    pub(super) fn read(text: &str) -> Result<Config, String> {
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
        let err = read("[service.chat]\norigins = [\"*\", \"example.org\"]\n").unwrap_err();
        assert!(err.contains("service.chat.origins: \"example.org\" is no origin"), "{err}");
        let err = read("[service.chat.limits]\noutput_bytes_pause = 0\n").unwrap_err();
        assert!(err.contains("service.chat.limits.output_bytes_pause is 0"), "{err}");
        let err = read("[limits]\noutput_bytes_pause = 0\n").unwrap_err();
        assert!(err.contains("limits.output_bytes_pause is 0"), "{err}");
        assert!(Config::read(Path::new("/nonexistent/x.toml")).unwrap_err().contains("/nonexistent/x.toml"));
    }

    #[test]
    fn what_is_counted_is_a_limit() {
        let known = serde_json::to_value(Limits::default()).unwrap();
        let others = ["open_files", "proxy_header", "proxy_from"];
        for limit in greenroom_core::limits::names::Limit::ALL.iter().filter(|l| !others.contains(&l.name()))
        {
            assert!(known.get(limit.name()).is_some(), "{limit:?}");
        }
    }
}
