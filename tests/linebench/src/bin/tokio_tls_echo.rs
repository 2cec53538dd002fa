//! tokio_tls_echo PORT CERTIFICATE KEY: echo of lines over TLS on tokio-rustls, with one thread.
//!
//! Lines that came together are answered by one write, which is one record where it fits.

use linebench::Res;
use rustls::ServerConfig;
use rustls::crypto::ring::default_provider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::version::TLS13;
use std::io;
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

/// Serves one connection until it ends.
async fn serve(stream: TcpStream, tls: TlsAcceptor) -> io::Result<()> {
    let mut peer = tls.accept(stream).await?;
    let (mut input, mut output) = (Vec::with_capacity(16 * 1024), Vec::new());
    while peer.read_buf(&mut input).await? > 0 {
        let mut from = 0;
        while let Some(len) = input[from..].iter().position(|b| *b == b'\n') {
            output.extend_from_slice(&input[from..=from + len]);
            from += len + 1;
        }
        input.drain(..from);
        peer.write_all(&output).await?;
        peer.flush().await?;
        output.clear();
    }
    Ok(())
}

fn main() -> Res<()> {
    let args: Vec<_> = std::env::args().skip(1).collect();
    let [port, certificate, key] = &args[..] else {
        return Err("tokio_tls_echo PORT CERTIFICATE KEY".into());
    };
    let port: u16 = port.parse()?;
    let chain = vec![CertificateDer::from_pem_file(certificate)?];
    let config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_protocol_versions(&[&TLS13])?
        .with_no_client_auth()
        .with_single_cert(chain, PrivateKeyDer::from_pem_file(key)?)?;
    let tls = TlsAcceptor::from(Arc::new(config));
    tokio::runtime::Builder::new_current_thread().enable_io().build()?.block_on(async {
        let listener = TcpListener::bind(("127.0.0.1", port)).await?;
        loop {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            // An error ends its connection, which the client reports.
            tokio::spawn(serve(stream, tls.clone()));
        }
    })
}
