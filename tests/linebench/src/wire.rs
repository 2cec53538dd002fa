//! Connections over TCP, TLS and UDP: bytes out, bytes in.
//!
//! A connection is made and greeted in blocking mode. `set_nonblocking` then hands it to a poll.

use crate::net;
use nix::sys::socket::{MsgFlags, MultiHeaders, SockaddrStorage, recvmmsg, sendmmsg};
use rustls::crypto::ring::{cipher_suite, default_provider};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::version::TLS13;
use rustls::{ClientConfig, ClientConnection, RootCertStore};
use std::io::{self, ErrorKind, IoSlice, IoSliceMut, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::os::fd::{AsRawFd, RawFd};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// Transports, with what their connections share.
#[derive(Clone)]
pub enum Transport {
    /// Plain TCP.
    Tcp,
    /// TLS 1.3 over TCP.
    Tls(Arc<ClientConfig>),
    /// UDP: each line is a datagram, and so is its reply.
    Udp,
}

impl Transport {
    /// TLS with AES-256-GCM alone, so that all servers take the same suite. Trusts the certificate
    /// of this file.
    pub fn tls(certificate: &Path) -> Result<Transport, Box<dyn std::error::Error>> {
        let mut provider = default_provider();
        provider.cipher_suites = vec![cipher_suite::TLS13_AES_256_GCM_SHA384];
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(certificate)?)?;
        let builder =
            ClientConfig::builder_with_provider(Arc::new(provider)).with_protocol_versions(&[&TLS13])?;
        Ok(Transport::Tls(Arc::new(builder.with_root_certificates(roots).with_no_client_auth())))
    }
}

/// Largest number of datagrams of a system call.
const AT_ONCE: usize = 64;
/// Bytes of the longest datagram that is read whole.
const DATAGRAM_BYTES: usize = 2048;

/// Connection to a server.
pub enum Wire {
    /// Plain TCP.
    Tcp(TcpStream),
    /// TLS.
    Tls(Box<Tls>),
    /// Socket of UDP that is connected, with the headers of sends and receives.
    Udp(UdpSocket, Box<[MultiHeaders<SockaddrStorage>; 2]>),
}

/// Connection over TLS whose handshake is done.
pub struct Tls {
    socket: TcpStream,
    tls: ClientConnection,
}

impl Wire {
    /// Connects, blocking, from source address 127.0.0.(2 + n) on loopback.
    pub fn connect(transport: &Transport, addr: SocketAddr, n: usize) -> io::Result<Wire> {
        let wait = Some(Duration::from_secs(30));
        if let Transport::Udp = transport {
            let socket = UdpSocket::bind((Ipv4Addr::new(127, 0, 0, (2 + n) as u8), 0))?;
            socket.connect(addr)?;
            socket.set_read_timeout(wait)?;
            let headers = || MultiHeaders::preallocate(AT_ONCE, None);
            return Ok(Wire::Udp(socket, Box::new([headers(), headers()])));
        }
        let mut socket = net::connect(addr, n)?;
        socket.set_read_timeout(wait)?;
        let Transport::Tls(config) = transport else { return Ok(Wire::Tcp(socket)) };
        let name = "localhost".try_into().map_err(io::Error::other)?;
        let mut tls = ClientConnection::new(config.clone(), name).map_err(io::Error::other)?;
        tls.set_buffer_limit(None);
        while tls.is_handshaking() || tls.wants_write() {
            tls.complete_io(&mut socket)?;
        }
        Ok(Wire::Tls(Box::new(Tls { socket, tls })))
    }

    /// Upgrades the connection to WebSocket, blocking. Reads no byte behind the answer.
    pub fn upgrade(&mut self, host: SocketAddr) -> io::Result<()> {
        // Key and answer of RFC 6455, section 1.3.
        let request = format!(
            "GET / HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        );
        self.write_all(request.as_bytes())?;
        let (mut answer, mut byte) = (Vec::new(), [0]);
        while !answer.ends_with(b"\r\n\r\n") {
            self.read_exact(&mut byte)?;
            answer.push(byte[0]);
        }
        let answer = String::from_utf8_lossy(&answer).to_lowercase();
        let accepts = answer.contains("\r\nsec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo=\r\n");
        if answer.starts_with("http/1.1 101 ") && accepts {
            return Ok(());
        }
        Err(io::Error::other(format!("no WebSocket: {answer}")))
    }

    /// Whether lines and replies are datagrams.
    pub fn is_udp(&self) -> bool {
        matches!(self, Wire::Udp(..))
    }

    /// Whether a short read says that the socket has no more bytes.
    pub fn is_plain(&self) -> bool {
        matches!(self, Wire::Tcp(_))
    }

    /// Sets whether reads and writes wait.
    pub fn set_nonblocking(&self, on: bool) -> io::Result<()> {
        match self {
            Wire::Tcp(socket) => socket.set_nonblocking(on),
            Wire::Tls(tls) => tls.socket.set_nonblocking(on),
            Wire::Udp(socket, _) => socket.set_nonblocking(on),
        }
    }

    /// Descriptor, for a poll.
    pub fn fd(&self) -> RawFd {
        match self {
            Wire::Tcp(socket) => socket.as_raw_fd(),
            Wire::Tls(tls) => tls.socket.as_raw_fd(),
            Wire::Udp(socket, _) => socket.as_raw_fd(),
        }
    }

    /// Whether the server has neither closed the connection nor sent anything that nobody read.
    /// Bytes of TLS's own (tickets) must have been read.
    pub fn is_quiet(&self) -> io::Result<bool> {
        self.set_nonblocking(true)?;
        let peeked = match self {
            Wire::Tcp(socket) => socket.peek(&mut [0]),
            Wire::Tls(tls) => tls.socket.peek(&mut [0]),
            Wire::Udp(socket, _) => socket.peek(&mut [0]),
        };
        Ok(matches!(peeked, Err(e) if e.kind() == ErrorKind::WouldBlock))
    }

    /// Sends lines as datagrams of `each` bytes; returns how many bytes were taken.
    ///
    /// # Panics If the connection is not of UDP.
    pub fn send_datagrams(&mut self, lines: &[u8], each: usize) -> io::Result<usize> {
        let Wire::Udp(socket, headers) = self else { panic!("no socket of UDP") };
        let slices: Vec<_> = lines.chunks(each).take(AT_ONCE).map(|d| [IoSlice::new(d)]).collect();
        let to = vec![None; slices.len()];
        let sent = sendmmsg(socket.as_raw_fd(), &mut headers[0], &slices, &to, [], MsgFlags::empty())?;
        Ok(sent.count() * each)
    }

    /// Receives datagrams into a buffer, one each [`Wire::datagrams`] place; returns their lengths.
    ///
    /// # Panics If the connection is not of UDP.
    pub fn receive_datagrams(&mut self, buffer: &mut [u8], lengths: &mut Vec<usize>) -> io::Result<()> {
        let Wire::Udp(socket, headers) = self else { panic!("no socket of UDP") };
        let places = buffer.chunks_exact_mut(DATAGRAM_BYTES).take(AT_ONCE);
        let mut slices: Vec<_> = places.map(|p| [IoSliceMut::new(p)]).collect();
        lengths.clear();
        let got = recvmmsg(socket.as_raw_fd(), &mut headers[1], &mut slices, MsgFlags::MSG_DONTWAIT, None)?;
        lengths.extend(got.map(|m| m.bytes));
        Ok(())
    }

    /// Datagrams that were received, by their lengths.
    pub fn datagrams<'a>(buffer: &'a [u8], lengths: &'a [usize]) -> impl Iterator<Item = &'a [u8]> {
        buffer.chunks_exact(DATAGRAM_BYTES).zip(lengths).map(|(place, len)| &place[..*len])
    }
}

/// TLS takes all bytes of a write, and seals them; `flush` sends what the socket did not take.
impl Write for Wire {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Wire::Tcp(socket) => socket.write(bytes),
            Wire::Tls(tls) => {
                tls.tls.writer().write_all(bytes)?;
                self.flush().or_else(|e| if e.kind() == ErrorKind::WouldBlock { Ok(()) } else { Err(e) })?;
                Ok(bytes.len())
            }
            Wire::Udp(socket, _) => socket.send(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        if let Wire::Tls(tls) = self {
            while tls.tls.wants_write() {
                tls.tls.write_tls(&mut tls.socket)?;
            }
        }
        Ok(())
    }
}

impl Read for Wire {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Wire::Tcp(socket) => socket.read(buffer),
            Wire::Udp(socket, _) => socket.recv(buffer),
            Wire::Tls(tls) => loop {
                match tls.tls.reader().read(buffer) {
                    Err(e) if e.kind() == ErrorKind::WouldBlock => {}
                    read => return read,
                }
                if tls.tls.read_tls(&mut tls.socket)? == 0 {
                    return Ok(0);
                }
                tls.tls.process_new_packets().map_err(io::Error::other)?;
            },
        }
    }
}
