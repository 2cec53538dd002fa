//! Byte counts of a TCP connection, as the kernel has them.
//!
//! The counts outlive a worker. A successor learns from them which bytes its predecessor read and
//! sent after the last commit. So no byte is run twice, sent twice, or left out.
//!
//! | count | from | less |
//! | --- | --- | --- |
//! | read | `tcpi_bytes_received` | bytes in the receive queue (FIONREAD), the peer's FIN |
//! | sent | `tcpi_bytes_acked` + bytes not acknowledged (TIOCOUTQ) | the host's FIN |
//!
//! The kernel counts a FIN as a byte, and on an outbound connection the host's SYN, too. The state
//! of the connection says whether a FIN was counted. The caller knows which connections are
//! outbound, and subtracts the SYN.
//!
//! Several calls ask for the parts of one count. If `tcp_info` is the same before and after, all
//! parts are taken to be of one moment. Asking changes nothing and is repeatable. A quiet
//! connection costs four system calls, or five.
//!
//! Needs Linux 4.1 or later. Fields are read by their offsets, as the `tcp_info` of the `libc`
//! crate may be shorter than the kernel's.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

/// A connection's counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counts {
    /// Bytes of its peer's stream that were read.
    pub read: u64,
    /// Bytes of the host's stream that were written, acknowledged or not. If the connection is
    /// closed, this is `None`: no more can be written.
    pub sent: Option<u64>,
    /// The connection was reset, or failed. If that came behind the peer's end, `read` may be one
    /// too high: the peer's FIN cannot be told from a byte then.
    pub broken: bool,
}

/// Offset of `tcpi_state` in `struct tcp_info` of linux/tcp.h, in bytes.
const STATE_AT: usize = 0;
/// Offset of `tcpi_bytes_acked`.
const BYTES_ACKED_AT: usize = 120;
/// Offset of `tcpi_bytes_received`.
const BYTES_RECEIVED_AT: usize = 128;
/// Length of a `tcp_info` that has all of these fields.
const INFO_BYTES: usize = 136;

// States of a connection, from net/tcp_states.h.
const FIN_WAIT1: u8 = 4;
const FIN_WAIT2: u8 = 5;
const TIME_WAIT: u8 = 6;
const CLOSE: u8 = 7;
const CLOSE_WAIT: u8 = 8;
const LAST_ACK: u8 = 9;
const CLOSING: u8 = 11;

/// Most tries to find a moment in which no segment arrives. On failure the session is given up.
const TRIES: usize = 1000;

/// Parts of `tcp_info`.
#[derive(PartialEq, Clone, Copy)]
struct Info {
    state: u8,
    acked: u64,
    received: u64,
}

/// Asks the kernel for the counts of a connection. SO_OOBINLINE must have been set from the start:
/// an urgent byte that is left out of the stream would shift the count for ever. No process may
/// read or write the connection meanwhile.
///
/// On an outbound connection `sent` is one too high, by the host's SYN. Fails if the kernel has no
/// counts, or if segments keep arriving.
pub fn counts(socket: impl AsFd) -> io::Result<Counts> {
    let fd = socket.as_fd();
    let mut before = info(fd)?;
    for _ in 0..TRIES {
        let unread = rustix::io::ioctl_fionread(fd)?;
        let unacked = unacked(fd)?;
        let after = info(fd)?;
        if before != after {
            before = after;
            continue;
        }
        let Info { state, acked, received } = after;
        // A connection that was closed by both sides is in CLOSE, too, without an error.
        let broken = state == CLOSE && has_error(fd)?;
        // A FIN counts as a byte, on either side.
        let peer_fin =
            matches!(state, CLOSE_WAIT | LAST_ACK | CLOSING | TIME_WAIT) || state == CLOSE && !broken;
        let own_fin = matches!(state, FIN_WAIT1 | FIN_WAIT2 | CLOSING | LAST_ACK | TIME_WAIT);
        return Ok(Counts {
            read: received.saturating_sub(u64::from(peer_fin) + unread),
            sent: (state != CLOSE).then(|| (acked + unacked).saturating_sub(u64::from(own_fin))),
            broken,
        });
    }
    Err(io::Error::other("its counts don't come to rest"))
}

/// Reads the parts of `tcp_info`. A kernel that has fewer bytes of it has no byte counts.
fn info(fd: BorrowedFd<'_>) -> io::Result<Info> {
    let mut bytes = [0u8; 512];
    let mut len = bytes.len() as libc::socklen_t;
    // SAFETY: the kernel writes at most `len` bytes, and says how many.
    let status = unsafe {
        libc::getsockopt(
            fd.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            bytes.as_mut_ptr().cast(),
            &raw mut len,
        )
    };
    if status != 0 {
        return Err(io::Error::last_os_error());
    }
    if (len as usize) < INFO_BYTES {
        return Err(io::Error::other("this kernel doesn't count the bytes of a connection (Linux 4.1 does)"));
    }
    let word = |at: usize| u64::from_ne_bytes(std::array::from_fn(|i| bytes[at + i]));
    Ok(Info { state: bytes[STATE_AT], acked: word(BYTES_ACKED_AT), received: word(BYTES_RECEIVED_AT) })
}

/// Whether a connection has a pending error. SO_ERROR would clear the error, and the loop's read
/// would then find a clean end. A poll without a timeout leaves the error where it is.
fn has_error(fd: BorrowedFd<'_>) -> io::Result<bool> {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let mut asked = [PollFd::new(&fd, PollFlags::empty())];
    rustix::io::retry_on_intr(|| poll(&mut asked, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })))?;
    Ok(asked[0].revents().contains(PollFlags::ERR))
}

/// Bytes that were written and not acknowledged. TIOCOUTQ is SIOCOUTQ by another name.
fn unacked(fd: BorrowedFd<'_>) -> io::Result<u64> {
    let mut n: libc::c_int = 0;
    // SAFETY: the request writes one int.
    let status = unsafe { libc::ioctl(fd.as_raw_fd(), libc::TIOCOUTQ, &raw mut n) };
    if status != 0 { Err(io::Error::last_os_error()) } else { Ok(n as u64) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::{Shutdown, TcpListener, TcpStream};

    /// A connection with the options of the host's own.
    fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let peer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (ours, _) = listener.accept().unwrap();
        rustix::net::sockopt::set_socket_oobinline(&ours, true).unwrap();
        (ours, peer)
    }

    /// Asks until the counts are these, then once more: a question must change nothing. Loopback
    /// delivers at once, but the peer's stack acknowledges in its own time.
    fn settles(socket: &TcpStream, read: u64, sent: Option<u64>, broken: bool) {
        let wanted = Counts { read, sent, broken };
        let mut last = wanted;
        for _ in 0..2000 {
            last = counts(socket).unwrap();
            if last == wanted {
                // A second question has the same answer.
                assert_eq!(counts(socket).unwrap(), wanted);
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        assert_eq!(last, wanted);
    }

    #[test]
    fn the_kernel_counts_what_was_read_and_written() {
        let (mut ours, mut peer) = pair();
        settles(&ours, 0, Some(0), false);
        peer.write_all(b"0123456789").unwrap();
        ours.write_all(b"abc").unwrap();
        let mut some = [0; 4];
        ours.read_exact(&mut some).unwrap();
        settles(&ours, 4, Some(3), false);
        // The counts are the same whatever the peer reads, and after an end of either side.
        peer.shutdown(Shutdown::Write).unwrap();
        settles(&ours, 4, Some(3), false);
        ours.write_all(b"de").unwrap();
        ours.shutdown(Shutdown::Write).unwrap();
        peer.read_to_end(&mut Vec::new()).unwrap();
        // Both ends are there: nothing more is sent, and six bytes wait to be read.
        settles(&ours, 4, None, false);
        let mut rest = Vec::new();
        ours.read_to_end(&mut rest).unwrap();
        assert_eq!(rest, b"456789");
        settles(&ours, 10, None, false);
    }

    #[test]
    fn our_end_counts_as_nothing_sent() {
        let (mut ours, mut peer) = pair();
        ours.write_all(b"bye").unwrap();
        ours.shutdown(Shutdown::Write).unwrap();
        peer.write_all(b"more").unwrap();
        settles(&ours, 0, Some(3), false);
    }

    #[test]
    fn a_reset_connection_is_broken_and_its_input_counted() {
        let (mut ours, mut peer) = pair();
        ours.write_all(b"never read").unwrap();
        peer.write_all(b"12345").unwrap();
        let mut some = [0; 2];
        ours.read_exact(&mut some).unwrap();
        drop(peer);
        settles(&ours, 2, None, true);
    }
}
