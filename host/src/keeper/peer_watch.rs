//! Watch for peers that are gone without a word: a cable pulled, a machine switched off.
//!
//! The kernel would ask a silent peer after two hours, and give up unacknowledged output after
//! about fifteen minutes. A host sets both times to `dead_peer_ms`, on each socket that listens or
//! connects; accepted connections inherit them.
//!
//! The kernel has one time for both: a time for unacknowledged output counts for silent peers, too,
//! and their questions do not.
//!
//! The kernel counts a peer whose window stays closed like one that acknowledges nothing. Such a
//! peer is alive and slow, and limit `output_ms` is about it. So the worker gives a socket that
//! takes no more the longer time of both, until all is sent (`worker/transfer.rs`).

use greenroom_core::limits::host::Limits;
use rustix::net::sockopt;
use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

/// Questions that a silent peer is asked before it is given up.
const QUESTIONS: u32 = 4;

/// Times of the watch.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct PeerWatch {
    /// Time in which a peer must answer, and acknowledge. Zero: the kernel's times.
    silent: Duration,
}

impl PeerWatch {
    /// Returns the times by these limits.
    pub(super) fn of(limits: &Limits) -> PeerWatch {
        PeerWatch { silent: Duration::from_millis(limits.dead_peer_ms) }
    }

    /// Sets the times of a TCP socket. Two halves: the peer is asked after the first, and again and
    /// again in the second.
    pub(super) fn apply(self, socket: impl AsFd) -> io::Result<()> {
        let socket = socket.as_fd();
        let all_ms = u32::try_from(self.silent.as_millis()).unwrap_or(u32::MAX);
        sockopt::set_tcp_user_timeout(socket, all_ms)?;
        if self.silent.is_zero() {
            return Ok(());
        }
        // The kernel counts seconds, and takes no 0.
        let at_least = |time: Duration| Duration::from_secs(time.as_secs().clamp(1, 32_767));
        sockopt::set_tcp_keepidle(socket, at_least(self.silent / 2))?;
        sockopt::set_tcp_keepintvl(socket, at_least(self.silent / 2 / QUESTIONS))?;
        sockopt::set_tcp_keepcnt(socket, QUESTIONS)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream};

    #[test]
    fn connections_inherit_the_times() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        PeerWatch::of(&Limits::default()).apply(&listener).unwrap();
        let _peer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (ours, _) = listener.accept().unwrap();
        assert_eq!(sockopt::tcp_keepidle(&ours).unwrap(), Duration::from_secs(60));
        assert_eq!(sockopt::tcp_keepintvl(&ours).unwrap(), Duration::from_secs(15));
        assert_eq!(sockopt::tcp_keepcnt(&ours).unwrap(), 4);
        assert_eq!(sockopt::tcp_user_timeout(&ours).unwrap(), 120_000);
    }
}
