//! Peer of a session over TLS, and certificates. Every failure is a panic in the caller's line.
//!
//! The client is rustls's. Certificates are made by `openssl`.

use rustls::client::{WantsClientCert, WebPkiServerVerifier};
use rustls::crypto::ring::default_provider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{
    ClientConfig, ClientConnection, ConfigBuilder, KeyLog, RootCertStore, SupportedProtocolVersion,
};
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Certificate that signs itself, with its key.
pub struct Certificate {
    /// File of the certificate.
    pub certificate: PathBuf,
    /// File of the key.
    pub key: PathBuf,
}

impl Certificate {
    /// Makes one for a host's name, in two files of a folder.
    pub fn make(dir: &Path, name: &str) -> Certificate {
        let (certificate, key) = (dir.join(format!("{name}.pem")), dir.join(format!("{name}.key")));
        let request = dir.join(format!("{name}.cnf"));
        let extensions =
            format!("basicConstraints = critical,CA:FALSE\nsubjectAltName = DNS:{name},IP:127.0.0.1");
        let text = format!(
            "[req]\ndistinguished_name = d\nx509_extensions = e\nprompt = no\n[d]\nCN = test\n[e]\n{extensions}\n"
        );
        std::fs::write(&request, text).expect("a request");
        let made = Command::new("openssl")
            .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"])
            .args(["-days", "2", "-config"])
            .arg(&request)
            .arg("-keyout")
            .arg(&key)
            .arg("-out")
            .arg(&certificate)
            .output()
            .expect("openssl");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        Certificate { certificate, key }
    }

    /// Value of `tls` in a configuration.
    pub fn toml(&self) -> String {
        format!("{{certificate = {:?}, key = {:?}}}", self.certificate, self.key)
    }
}

/// Secrets of connections, as browsers log them for debuggers.
#[derive(Debug, Default)]
pub struct Secrets(pub Mutex<Vec<Vec<u8>>>);

impl KeyLog for Secrets {
    fn log(&self, _: &str, _: &[u8], secret: &[u8]) {
        self.0.lock().expect("nobody panicked").push(secret.to_vec());
    }
}

/// Configuration of a client that trusts this certificate.
pub fn config(trusted: &Certificate, version: &'static SupportedProtocolVersion) -> ClientConfig {
    builder(trusted, version).with_no_client_auth()
}

/// Configuration as above, of a client with a certificate of its own.
pub fn config_of(
    trusted: &Certificate,
    version: &'static SupportedProtocolVersion,
    own: &Certificate,
) -> ClientConfig {
    let chain = vec![CertificateDer::from_pem_file(&own.certificate).expect("a certificate")];
    let key = PrivateKeyDer::from_pem_file(&own.key).expect("a key");
    builder(trusted, version).with_client_auth_cert(chain, key).expect("a pair")
}

fn builder(
    trusted: &Certificate,
    version: &'static SupportedProtocolVersion,
) -> ConfigBuilder<ClientConfig, WantsClientCert> {
    let mut roots = RootCertStore::empty();
    let certificate = CertificateDer::from_pem_file(&trusted.certificate).expect("a certificate");
    roots.add(certificate).expect("a root");
    let provider = Arc::new(default_provider());
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider.clone());
    ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[version])
        .expect("a version")
        .with_webpki_verifier(verifier.build().expect("a verifier"))
}

/// Connection over TLS, read line by line.
pub struct TlsClient {
    /// State of TLS.
    pub tls: ClientConnection,
    /// The connection.
    pub stream: TcpStream,
    /// Bytes that came behind the last line returned.
    buffer: Vec<u8>,
}

impl TlsClient {
    /// Connects to an address, asks for a name, and does the handshake.
    pub fn connect(addr: SocketAddr, config: ClientConfig, name: &str) -> io::Result<TlsClient> {
        TlsClient::over(TcpStream::connect(addr)?, config, name)
    }

    /// Does the handshake on a connection that is there.
    pub fn over(mut stream: TcpStream, config: ClientConfig, name: &str) -> io::Result<TlsClient> {
        // A failure must not be a hang.
        stream.set_read_timeout(Some(Duration::from_secs(60)))?;
        stream.set_nodelay(true)?;
        let name = name.to_owned().try_into().expect("a name");
        let mut tls = ClientConnection::new(Arc::new(config), name).map_err(io::Error::other)?;
        while tls.is_handshaking() || tls.wants_write() {
            tls.complete_io(&mut stream)?;
        }
        Ok(TlsClient { tls, stream, buffer: Vec::new() })
    }

    /// Client whose handshake is done.
    pub fn from(tls: ClientConnection, stream: TcpStream) -> TlsClient {
        TlsClient { tls, stream, buffer: Vec::new() }
    }

    /// Seals bytes, and returns the records without sending them.
    pub fn seal(&mut self, bytes: &[u8]) -> Vec<u8> {
        self.tls.writer().write_all(bytes).expect("room");
        let mut wire = Vec::new();
        while self.tls.wants_write() {
            self.tls.write_tls(&mut wire).expect("room");
        }
        wire
    }

    /// Sends bytes.
    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        let wire = self.seal(bytes);
        self.stream.write_all(&wire)
    }

    /// Reads the next line, without its end; `None`: the peer has ended its side in an orderly way.
    /// Fails if it has not, and on bytes that are not its own.
    pub fn line(&mut self) -> io::Result<Option<String>> {
        loop {
            if let Some(at) = self.buffer.iter().position(|b| *b == b'\n') {
                let line: Vec<u8> = self.buffer.drain(..=at).collect();
                return Ok(Some(String::from_utf8_lossy(&line[..at]).into_owned()));
            }
            let mut more = [0; 16 * 1024];
            match self.tls.reader().read(&mut more) {
                Ok(0) => return Ok(None),
                Ok(n) => self.buffer.extend_from_slice(&more[..n]),
                Err(e) if e.kind() == ErrorKind::WouldBlock => {
                    self.tls.read_tls(&mut self.stream)?;
                    let processed = self.tls.process_new_packets();
                    // Answers to changes of keys, and alerts.
                    while self.tls.wants_write() {
                        self.tls.write_tls(&mut self.stream)?;
                    }
                    processed.map_err(io::Error::other)?;
                }
                Err(e) => return Err(e),
            }
        }
    }

    /// Sends a line and returns the next one.
    #[track_caller]
    pub fn ask(&mut self, line: &str) -> String {
        self.send(format!("{line}\n").as_bytes()).expect("the host takes bytes");
        self.line().expect("a record").expect("an answer")
    }

    /// Ends this side by an alert.
    pub fn close(&mut self) {
        self.tls.send_close_notify();
        self.send(b"").expect("the host takes bytes");
    }
}
