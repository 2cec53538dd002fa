//! Connections from many source addresses on loopback.
//!
//! By Linux's default a source address has 28,232 ports for one server. More connections need
//! more addresses.

use socket2::{Domain, Protocol, Socket, Type};
use std::io::{self, BufRead, BufReader, ErrorKind, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

/// Lets connect() choose the port, by the whole 4-tuple. Binding alone would take a port that
/// no other connection from this address could use. Ports in TIME_WAIT would not be used again.
fn late_port(s: &Socket) -> io::Result<()> {
    use std::os::fd::AsRawFd;
    const IP_BIND_ADDRESS_NO_PORT: libc::c_int = 24;
    let (on, len) = (1 as libc::c_int, size_of::<libc::c_int>() as libc::socklen_t);
    // SAFETY: `on` outlives the call and `len` is its size.
    let rc = unsafe {
        let on = (&raw const on).cast();
        libc::setsockopt(s.as_raw_fd(), libc::IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, on, len)
    };
    if rc == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Makes a socket of TCP that will come from source address 127.0.0.(2 + n) on loopback; n is
/// below 250.
pub fn socket(addr: SocketAddr, n: usize) -> io::Result<Socket> {
    let s = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    if addr.is_ipv4() && addr.ip().is_loopback() {
        late_port(&s)?;
        s.bind(&SocketAddr::from((Ipv4Addr::new(127, 0, 0, (2 + n) as u8), 0)).into())?;
    }
    s.set_tcp_nodelay(true)?;
    Ok(s)
}

/// Connects from there, blocking.
pub fn connect(addr: SocketAddr, n: usize) -> io::Result<TcpStream> {
    let s = socket(addr, n)?;
    s.connect(&addr.into())?;
    Ok(s.into())
}

/// Begins a connect that does not block: the socket becomes writable when it is connected.
pub fn begin_connect(addr: SocketAddr, n: usize) -> io::Result<mio::net::TcpStream> {
    let s = socket(addr, n)?;
    s.set_nonblocking(true)?;
    match s.connect(&addr.into()) {
        Err(e) if e.raw_os_error() != Some(libc::EINPROGRESS) => Err(e),
        _ => Ok(mio::net::TcpStream::from_std(s.into())),
    }
}

/// Sends lines and reads as many answers, blocking for at most 30 s a read. Answers behind
/// those are lost, so the server must not send more.
pub fn ask(stream: &TcpStream, lines: &str) -> io::Result<Vec<String>> {
    stream.set_read_timeout(Some(Duration::from_secs(30)))?;
    (&*stream).write_all(lines.as_bytes())?;
    let answers: Vec<_> =
        BufReader::new(stream).lines().take(lines.lines().count()).collect::<Result<_, _>>()?;
    if answers.len() < lines.lines().count() {
        return Err(ErrorKind::UnexpectedEof.into());
    }
    Ok(answers)
}
