//! TLS of a service: certificates, and what is agreed on in handshakes.
//!
//! The handshaker reads the files. No other process of the host sees a key.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// TLS of one service.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TlsConfig {
    /// Certificates in PEM: the service's own, then those above it. Relative to the configuration.
    pub certificate: PathBuf,
    /// Key of the first certificate, in PEM.
    pub key: PathBuf,
    /// Other pairs, for clients that ask for a name which these certificates have.
    pub others: Vec<KeyPair>,
    /// Protocols that are offered inside TLS, the preferred one first. A client that offers others
    /// alone is refused. Empty: none is agreed on.
    pub alpn: Vec<String>,
    /// Certificates in PEM of those who sign clients' certificates. `None`: no client is asked.
    pub client_ca: Option<PathBuf>,
    /// Certificates in PEM of those who sign the certificates of servers that this service connects
    /// to. `None`: the system's.
    pub roots: Option<PathBuf>,
    /// Whether clients without a certificate are let in, if they are asked for one.
    pub client_optional: bool,
}

/// Certificate and key.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct KeyPair {
    /// Certificates in PEM, as [`TlsConfig::certificate`].
    pub certificate: PathBuf,
    /// Key, as [`TlsConfig::key`].
    pub key: PathBuf,
}

/// TLS of all services, with limits: all that the handshaker is told.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct TlsSettings {
    /// Services with TLS, by name.
    pub services: BTreeMap<String, TlsConfig>,
    /// Limit of the same name.
    pub handshake_ms: u64,
    /// Limit of the same name.
    pub handshakes_max: usize,
    /// Limit of the same name.
    pub handshakes_per_s: u64,
}

impl TlsConfig {
    /// Whether the service has a certificate. One that only connects to servers may have none.
    pub fn has_certificate(&self) -> bool {
        let of_client = self.roots.is_some() && self.others.is_empty();
        !of_client || !self.certificate.as_os_str().is_empty() || !self.key.as_os_str().is_empty()
    }

    /// All pairs, the service's own first.
    pub fn pairs(&self) -> impl Iterator<Item = (&Path, &Path)> {
        let others = self.others.iter().map(|p| (&*p.certificate, &*p.key));
        let own = self.has_certificate().then_some((&*self.certificate, &*self.key));
        own.into_iter().chain(others)
    }

    /// Checks each value by itself. The error names the key.
    pub(super) fn check(&self) -> Result<(), String> {
        let named = self.pairs().flat_map(|(certificate, key)| [("certificate", certificate), ("key", key)]);
        let client_ca = self.client_ca.as_deref().map(|path| ("client_ca", path));
        let roots = self.roots.as_deref().map(|path| ("roots", path));
        for (name, path) in named.chain(client_ca).chain(roots) {
            if path.as_os_str().is_empty() || path.as_os_str().as_encoded_bytes().contains(&0) {
                return Err(format!("{name}: {path:?} names no file"));
            }
        }
        match self.alpn.iter().find(|name| !(1..=255).contains(&name.len())) {
            Some(bad) => Err(format!("alpn: {bad:?} is no name of a protocol: it has 1 to 255 bytes")),
            None => Ok(()),
        }
    }

    /// Resolves relative paths against a directory.
    pub(super) fn resolve(&mut self, base: &Path) {
        let others = self.others.iter_mut().flat_map(|p| [&mut p.certificate, &mut p.key]);
        let own = [&mut self.certificate, &mut self.key];
        let others = others.chain(&mut self.client_ca).chain(&mut self.roots);
        for path in own.into_iter().chain(others).filter(|path| !path.as_os_str().is_empty()) {
            *path = base.join(&*path);
        }
    }
}
