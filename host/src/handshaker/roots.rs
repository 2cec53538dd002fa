//! Roots by which the certificates of servers are judged: the system's, or those of a file.
//!
//! The system's are found as OpenSSL finds them; `SSL_CERT_FILE` and `SSL_CERT_DIR` name others.
//! The first connection has them read, and so does one an hour later, as packages change them. A
//! file of a service is read with its certificates.

use crate::tls::provider::provider;
use crate::tls::secrets::SecretsLog;
use rustls::RootCertStore;
use rustls::client::{ClientConfig, Resumption};
use rustls::version::{TLS12, TLS13};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Time for which a failure counts.
const FAILED: Duration = Duration::from_secs(10);
/// Age from which the system's roots are read again.
const OLD: Duration = Duration::from_secs(3600);

/// Roots of the system, once they were read.
#[derive(Default)]
pub(super) struct SystemRoots {
    read: Option<(Instant, Arc<ClientConfig>)>,
    /// Reason why the last reading has failed, and its time.
    failed: Option<(Instant, String)>,
}

impl SystemRoots {
    /// Returns what a handshake with a server uses. Fails if the system has no root that can be
    /// read; those read before serve on then.
    pub(super) fn client(&mut self) -> Result<Arc<ClientConfig>, String> {
        let fresh = self.read.as_ref().filter(|(at, _)| at.elapsed() < OLD);
        if let Some((_, client)) = fresh {
            return Ok(client.clone());
        }
        // Each turn that connects would have all of them read again.
        if let Some((_, why)) = self.failed.as_ref().filter(|(at, _)| at.elapsed() < FAILED) {
            return Err(why.clone());
        }
        let found = rustls_native_certs::load_native_certs();
        let mut roots = RootCertStore::empty();
        // Some systems have one that is no root; the others count.
        let (taken, _) = roots.add_parsable_certificates(found.certs);
        let client = match taken {
            0 => {
                let why = found.errors.first().map_or("there are none".into(), ToString::to_string);
                Err(format!("the system's root certificates can't be read: {why}"))
            }
            _ => client(roots).map(Arc::new),
        };
        match (client, &mut self.read) {
            (Ok(client), read) => {
                *read = Some((Instant::now(), client.clone()));
                Ok(client)
            }
            (Err(why), Some((at, before))) => {
                tracing::warn!("{why}; those read before serve on");
                *at = Instant::now();
                Ok(before.clone())
            }
            (Err(why), None) => {
                self.failed = Some((Instant::now(), why.clone()));
                Err(why)
            }
        }
    }
}

/// Makes what a handshake with a server uses. Tickets come behind the handshake, where nobody
/// keeps them, so no connection resumes another one.
pub(super) fn client(roots: RootCertStore) -> Result<ClientConfig, String> {
    let builder = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13, &TLS12])
        .map_err(|e| e.to_string())?;
    let mut client = builder.with_root_certificates(roots).with_no_client_auth();
    client.enable_secret_extraction = true;
    client.key_log = Arc::new(SecretsLog);
    client.resumption = Resumption::disabled();
    Ok(client)
}
