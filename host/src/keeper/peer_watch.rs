//! Watch for peers that are gone without a word: a cable pulled, a machine switched off.
//!
//! The kernel would ask a silent peer after two hours, and give up unacknowledged output after
//! about fifteen minutes. A host sets both times itself, on each socket that listens or connects;
//! accepted connections inherit them.
//!
//! | the peer | is given up after |
//! | --- | --- |
//! | does not answer, and nothing is on its way to it | `dead_peer_ms` |
//! | does not acknowledge what was sent | `dead_peer_ms`, or `output_ms` if that is longer |
//!
//! The kernel counts a peer whose window stays closed like one that acknowledges nothing. Such a
//! peer is alive and slow, and limit `output_ms` is about it: so the longer time counts.

use greenroom_core::limits::per_service::AllLimits;
use rustix::net::sockopt;
use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

/// Questions that a silent peer is asked before it is given up.
const QUESTIONS: u32 = 4;

/// Times of the watch.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct PeerWatch {
    /// Time in which a silent peer must answer. Zero: the kernel's times.
    silent: Duration,
    /// Time in which output must be acknowledged, in milliseconds; 0: the kernel's.
    unacknowledged_ms: u32,
}

impl PeerWatch {
    /// Returns the times by these limits. A service whose `output_ms` is off waits for ever, so
    /// output has the kernel's time then.
    pub(super) fn of(limits: &AllLimits) -> PeerWatch {
        let silent_ms = limits.host.dead_peer_ms;
        let own = limits.services.values().filter_map(|l| l.output_ms);
        let output: Vec<u64> = own.chain([limits.host.output_ms]).collect();
        let longest = output.iter().copied().max().unwrap_or(0).max(silent_ms);
        let bounded = silent_ms > 0 && !output.contains(&0);
        PeerWatch {
            silent: Duration::from_millis(silent_ms),
            unacknowledged_ms: if bounded { u32::try_from(longest).unwrap_or(u32::MAX) } else { 0 },
        }
    }

    /// Sets the times of a TCP socket. Two halves: the peer is asked after the first, and again and
    /// again in the second.
    pub(super) fn apply(self, socket: impl AsFd) -> io::Result<()> {
        let socket = socket.as_fd();
        sockopt::set_tcp_user_timeout(socket, self.unacknowledged_ms)?;
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
    use greenroom_core::limits::host::Limits;
    use std::net::{TcpListener, TcpStream};

    fn of(dead_peer_ms: u64, output_ms: u64) -> PeerWatch {
        PeerWatch::of(&AllLimits::from(Limits { dead_peer_ms, output_ms, ..Limits::default() }))
    }

    #[test]
    fn connections_inherit_the_times() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        of(120_000, 300_000).apply(&listener).unwrap();
        let _peer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (ours, _) = listener.accept().unwrap();
        assert_eq!(sockopt::tcp_keepidle(&ours).unwrap(), Duration::from_secs(60));
        assert_eq!(sockopt::tcp_keepintvl(&ours).unwrap(), Duration::from_secs(15));
        assert_eq!(sockopt::tcp_keepcnt(&ours).unwrap(), 4);
        assert_eq!(sockopt::tcp_user_timeout(&ours).unwrap(), 300_000);
    }

    #[test]
    fn a_slow_peer_has_the_time_of_its_limit() {
        assert_eq!(of(120_000, 30_000).unacknowledged_ms, 120_000);
        assert_eq!((of(120_000, 0).unacknowledged_ms, of(0, 300_000).unacknowledged_ms), (0, 0));
        assert_eq!(of(120_000, u64::MAX).unacknowledged_ms, u32::MAX);
    }
}
