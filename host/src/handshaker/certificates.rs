//! Certificates of services, read from their files, and read again when the files change.
//!
//! A pair is taken if both files can be read, the key is that of the first certificate, and the key
//! is of a kind that rustls signs with. If one pair of a service cannot be taken, the whole service
//! stays as it was: the certificates that serve go on, and operators are told the reason.
//!
//! A look costs a `stat` for each file. Connections whose handshake is over keep no certificate.

use super::roots::{SystemRoots, client};
use crate::config::tls::{TlsConfig, TlsSettings};
use crate::tls::provider::provider;
use crate::tls::secrets::SecretsLog;
use rustls::RootCertStore;
use rustls::client::{ClientConfig, verify_server_name};
use rustls::crypto::ring::{Ticketer, sign};
use rustls::pki_types::pem::{Error, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::{
    ClientHello, ParsedCertificate, ProducesTickets, ResolvesServerCert, ServerConfig, WebPkiClientVerifier,
};
use rustls::sign::CertifiedKey;
use rustls::version::{TLS12, TLS13};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Identity of a file's content: device, inode, length, and time of change with its nanoseconds.
type Stamp = (u64, u64, i64, i64, i64);

/// TLS of one service.
struct ServiceTls {
    config: TlsConfig,
    /// Files as they were when they were read last, with or without success.
    stamps: Vec<Option<Stamp>>,
    /// Configuration of handshakes; `None`: no pair was taken yet.
    server: Option<Arc<ServerConfig>>,
    /// Configuration of handshakes with servers; `None`: the service names no roots.
    client: Option<Arc<ClientConfig>>,
    /// Maker of tickets, which outlives a change of the files.
    tickets: Option<Arc<dyn ProducesTickets>>,
    /// Reason why the files cannot be used as they are.
    failing: Option<String>,
}

/// TLS of all services.
#[derive(Default)]
pub(super) struct Certificates {
    services: BTreeMap<String, ServiceTls>,
    system: SystemRoots,
}

/// News of a service: why its files cannot be used, or that they can.
pub(super) type FileNews = (String, Option<String>);

impl Certificates {
    /// Follows another configuration. Returns the services whose files cannot be used, with the
    /// reason.
    pub(super) fn configure(&mut self, settings: &TlsSettings) -> Vec<FileNews> {
        self.services.retain(|name, _| settings.services.contains_key(name));
        for (name, config) in &settings.services {
            let service = self.services.entry(name.clone()).or_insert_with(|| ServiceTls {
                config: TlsConfig::default(),
                stamps: Vec::new(),
                server: None,
                client: None,
                tickets: Ticketer::new().ok(),
                failing: None,
            });
            if service.config != *config {
                service.config = config.clone();
                service.stamps.clear();
            }
        }
        self.look();
        let failing = self.services.iter().filter_map(|(name, s)| Some((name.clone(), s.failing.clone()?)));
        failing.map(|(name, why)| (name, Some(why))).collect()
    }

    /// Looks whether files have changed, and reads those of a service that have. Returns what there
    /// is to tell.
    pub(super) fn look(&mut self) -> Vec<FileNews> {
        let mut news = Vec::new();
        for (name, service) in &mut self.services {
            let stamps: Vec<_> = files(&service.config).map(stamp).collect();
            if service.stamps == stamps {
                continue;
            }
            service.stamps = stamps;
            let before = service.failing.take();
            match read(&service.config, service.tickets.clone()) {
                Ok((server, client)) => {
                    service.server = server.map(Arc::new);
                    service.client = client.map(Arc::new);
                }
                Err(why) => service.failing = Some(why),
            }
            if service.failing.is_none() || service.failing != before {
                news.push((name.clone(), service.failing.clone()));
            }
        }
        news
    }

    /// Whether a service has files that were read before, and goes on with those.
    pub(super) fn serve_on(&self, service: &str) -> bool {
        self.services.get(service).is_some_and(|s| match s.config.has_certificate() {
            true => s.server.is_some(),
            false => s.client.is_some(),
        })
    }

    /// Returns what a handshake with a client of a service uses. Fails if the service has no
    /// certificate.
    pub(super) fn of(&self, service: &str) -> Result<Arc<ServerConfig>, String> {
        let server = self.services.get(service).and_then(|s| s.server.clone());
        server.ok_or_else(|| format!("service {service} has no certificate that can be used"))
    }

    /// Returns what a handshake of a service with a server uses: the service's own roots, or the
    /// system's. Fails if these can't be read.
    pub(super) fn client_of(&mut self, service: &str) -> Result<Arc<ClientConfig>, String> {
        let of = self.services.get(service);
        match of.and_then(|s| s.client.clone()) {
            Some(client) => Ok(client),
            // The system's would let in whom the operator keeps out.
            None if of.is_some_and(|s| s.config.roots.is_some()) => {
                Err(format!("the roots of service {service} can't be read"))
            }
            None => self.system.client(),
        }
    }
}

/// Files of a service.
fn files(config: &TlsConfig) -> impl Iterator<Item = &Path> {
    config
        .pairs()
        .flat_map(|(certificate, key)| [certificate, key])
        .chain(config.client_ca.as_deref())
        .chain(config.roots.as_deref())
}

/// Stamp of a file; `None`: it is not there.
fn stamp(path: &Path) -> Option<Stamp> {
    use std::os::unix::fs::MetadataExt;
    let m = std::fs::metadata(path).ok()?;
    Some((m.dev(), m.ino(), m.size() as i64, m.mtime(), m.mtime_nsec()))
}

/// Reads all files of a service: for handshakes with clients, and with servers. The error names the
/// file.
fn read(
    config: &TlsConfig,
    tickets: Option<Arc<dyn ProducesTickets>>,
) -> Result<(Option<ServerConfig>, Option<ClientConfig>), String> {
    let client = match &config.roots {
        Some(path) => Some(client(read_roots(path)?)?),
        None => None,
    };
    match config.has_certificate() {
        true => Ok((Some(read_server(config, tickets)?), client)),
        false => Ok((None, client)),
    }
}

/// Reads the roots of a file; at least one.
fn read_roots(path: &Path) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    for certificate in read_certificates(path)? {
        roots.add(certificate).map_err(|e| format!("{}: {e}", path.display()))?;
    }
    Ok(roots)
}

/// Reads what a handshake with a client uses.
fn read_server(
    config: &TlsConfig,
    tickets: Option<Arc<dyn ProducesTickets>>,
) -> Result<ServerConfig, String> {
    let pairs = config.pairs().map(|(certificate, key)| read_pair(certificate, key));
    let resolver = ByName { pairs: pairs.collect::<Result<_, _>>()? };
    let builder = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13, &TLS12])
        .map_err(|e| e.to_string())?;
    let builder = match &config.client_ca {
        None => builder.with_no_client_auth(),
        Some(path) => {
            let roots = read_roots(path)?;
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider());
            let verifier = if config.client_optional { verifier.allow_unauthenticated() } else { verifier };
            builder
                .with_client_cert_verifier(verifier.build().map_err(|e| format!("{}: {e}", path.display()))?)
        }
    };
    let mut server = builder.with_cert_resolver(Arc::new(resolver));
    server.enable_secret_extraction = true;
    server.key_log = Arc::new(SecretsLog);
    // Early data may be replayed, so none is taken.
    server.max_early_data_size = 0;
    server.alpn_protocols = config.alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    if let Some(tickets) = tickets {
        server.ticketer = tickets;
    }
    Ok(server)
}

/// Fails on what is no file: a pipe would be waited for without end.
fn check_is_file(path: &Path) -> Result<(), String> {
    match std::fs::metadata(path) {
        Ok(m) if m.is_file() => Ok(()),
        Ok(_) => Err(format!("{}: it is no file", path.display())),
        Err(e) => Err(format!("{}: {e}", path.display())),
    }
}

/// Reads the certificates of a file; at least one.
fn read_certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let describe = |e: String| format!("{}: {e}", path.display());
    check_is_file(path)?;
    let all = CertificateDer::pem_file_iter(path).map_err(|e| describe(e.to_string()))?;
    let all: Vec<_> = all.collect::<Result<_, _>>().map_err(|e| describe(e.to_string()))?;
    match all.is_empty() {
        true => Err(describe("there is no certificate in it".into())),
        false => Ok(all),
    }
}

/// Reads a certificate and its key.
fn read_pair(certificate: &Path, key: &Path) -> Result<Arc<CertifiedKey>, String> {
    let chain = read_certificates(certificate)?;
    let describe = |e: String| format!("{}: {e}", key.display());
    check_is_file(key)?;
    let secret = PrivateKeyDer::from_pem_file(key).map_err(|e| match e {
        Error::NoItemsFound => describe("there is no private key in it".into()),
        e => describe(e.to_string()),
    })?;
    let signer = sign::any_supported_type(&secret).map_err(|e| describe(e.to_string()))?;
    let pair = CertifiedKey::new(chain, signer);
    match pair.keys_match() {
        Ok(()) => Ok(Arc::new(pair)),
        Err(e) => {
            Err(format!("{} is not the key of {}: {e}", key.display(), PathBuf::from(certificate).display()))
        }
    }
}

/// Choice of the certificate by the name that a client asks for; the first one if none has it.
#[derive(Debug)]
struct ByName {
    pairs: Vec<Arc<CertifiedKey>>,
}

impl ResolvesServerCert for ByName {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let name = hello.server_name().and_then(|name| ServerName::try_from(name.to_owned()).ok());
        let is_of = |pair: &&Arc<CertifiedKey>| {
            let Some(name) = &name else { return false };
            let parsed = pair.cert.first().and_then(|c| ParsedCertificate::try_from(c).ok());
            parsed.is_some_and(|c| verify_server_name(&c, name).is_ok())
        };
        self.pairs.iter().find(is_of).or(self.pairs.first()).cloned()
    }
}
