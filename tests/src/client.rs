//! Peer of a session, which blocks. Every failure is a panic in the caller's line.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::fd::AsRawFd;
use std::time::Duration;

/// Connection, read line by line.
pub struct Client {
    stream: TcpStream,
    /// Bytes that came behind the last line returned.
    buffer: Vec<u8>,
}

impl Client {
    /// Connects to an address.
    #[track_caller]
    pub fn connect(addr: SocketAddr) -> Client {
        let stream = TcpStream::connect(addr).expect("a connection");
        // A failure must not be a hang.
        stream.set_read_timeout(Some(Duration::from_secs(60))).expect("a timeout");
        stream.set_nodelay(true).expect("no delay");
        Client { stream, buffer: Vec::new() }
    }

    /// Takes over a connection that was accepted, or made otherwise.
    pub fn from(stream: TcpStream) -> Client {
        Client { stream, buffer: Vec::new() }
    }

    /// Sends bytes.
    #[track_caller]
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).expect("the host takes bytes");
    }

    /// Reads the next line, without its end; `None` at the end of the stream, or after a reset.
    #[track_caller]
    pub fn line(&mut self) -> Option<String> {
        loop {
            if let Some(at) = self.buffer.iter().position(|b| *b == b'\n') {
                let line: Vec<u8> = self.buffer.drain(..=at).collect();
                return Some(String::from_utf8_lossy(&line[..at]).into_owned());
            }
            let mut more = [0; 16 * 1024];
            match self.stream.read(&mut more) {
                Ok(0) => return None,
                Ok(n) => self.buffer.extend_from_slice(&more[..n]),
                Err(e) if e.kind() == ErrorKind::ConnectionReset => return None,
                Err(e) => panic!("no line came: {e}"),
            }
        }
    }

    /// Sends a line and returns the next one.
    #[track_caller]
    pub fn ask(&mut self, line: &str) -> String {
        self.send(format!("{line}\n"));
        self.line().expect("an answer")
    }

    /// Sends one byte of urgent data.
    pub fn send_urgent(&mut self, byte: u8) {
        let fd = self.stream.as_raw_fd();
        // SAFETY: the byte is readable during the call.
        let sent = unsafe { libc::send(fd, (&raw const byte).cast(), 1, libc::MSG_OOB) };
        assert_eq!(sent, 1);
    }

    /// Closes with a reset: zero linger drops unsent bytes.
    pub fn reset(self) {
        let linger = libc::linger { l_onoff: 1, l_linger: 0 };
        // SAFETY: the option's value is this struct.
        let set = unsafe {
            libc::setsockopt(
                self.stream.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_LINGER,
                (&raw const linger).cast(),
                size_of::<libc::linger>() as libc::socklen_t,
            )
        };
        assert_eq!(set, 0);
    }

    /// Ends our side. The host's side stays open.
    pub fn shutdown(&self) {
        let _ = self.stream.shutdown(Shutdown::Write);
    }
}
