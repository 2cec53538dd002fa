//! Questions to the host: tokens, random numbers, numbers of the host.

use crate::turn::Turn;
use std::time::Duration;

/// Numbers of the host, as [`Turn::stats`] has them.
///
/// ```
/// use greenroom_handler::testing::TestHost;
/// use greenroom_handler::{Handler, Result, Stats, Turn, handler};
///
/// struct Dice;
/// #[handler]
/// impl Handler for Dice {
///     const SERVICE: &'static str = "dice";
///     fn message(&self, turn: &mut Turn, line: &[u8]) -> Result {
///         if line == b"who" {
///             let Stats { service_sessions, uptime, .. } = turn.stats();
///             let build = turn.generation();
///             turn.send_line(format!("{service_sessions} here, build {build}, up {uptime:?}"));
///         } else {
///             let eyes = turn.random() % 6 + 1;
///             turn.send_line(eyes.to_string());
///         }
///         Ok(())
///     }
/// }
///
/// let mut host = TestHost::<Dice>::new("{}").unwrap();
/// let peer = host.open();
/// assert_eq!(host.line(peer, "who"), "1 here, build 1, up 0ns\n");
/// // A test host has the same random numbers in each run.
/// assert!((1..=6).contains(&host.line(peer, "").trim().parse().unwrap()));
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Sessions of the host, closing ones included.
    pub sessions: u64,
    /// Sessions of the service, closing ones included.
    pub service_sessions: u64,
    /// Turns that the service has run, failed ones included.
    pub turns: u64,
    /// Turns of the service that failed.
    pub faults: u64,
    /// Number of the build that runs.
    pub generation: u64,
    /// Time since the host began. It goes on over upgrades and crashes.
    pub uptime: Duration,
    /// Bytes of the store, which holds sessions and tables.
    pub store_bytes: u64,
    /// Bytes that the store may have.
    pub store_bytes_max: u64,
}

impl<S> Turn<'_, S> {
    /// Takes a token of a key's bucket, if there is one. A bucket holds `burst` tokens and gets
    /// `per_s` of them back each second. Keys belong to the service. The same key with another rate
    /// is another bucket.
    ///
    /// A turn that fails has taken none. Buckets lie in memory of a fixed size
    /// (`token_buckets_max`), and begin anew, full, when a process of the host takes over.
    ///
    /// ```
    /// use greenroom_handler::Turn;
    ///
    /// /// Lets an address try ten passwords at once, and then one in five seconds.
    /// fn may_try(turn: &mut Turn<'_, ()>, ip: &str) -> bool {
    ///     turn.allow(ip, 0.2, 10)
    /// }
    /// ```
    pub fn allow(&mut self, key: impl AsRef<[u8]>, per_s: impl Into<f64>, burst: u32) -> bool {
        let interval_ns = 1e9 / per_s.into();
        // Infinite, negative, or no number: no rate. Anything faster is a token each nanosecond.
        let interval_ns = if interval_ns > 0.0 { interval_ns.max(1.0) as u64 } else { 0 };
        self.host.allow(key.as_ref(), interval_ns, burst).unwrap_or_else(|status| {
            self.note_refusal("a token", status);
            false
        })
    }

    /// Random number, another one with each call. A turn that runs again gets the same numbers. No
    /// peer can tell them before; they are no keys of a cipher.
    pub fn random(&mut self) -> u64 {
        self.host.random()
    }

    /// Number of the build that runs this turn: 1 for the first of a host, then one more with each
    /// reload.
    pub fn generation(&mut self) -> u64 {
        self.fact("generation").and_then(|number| number.parse().ok()).unwrap_or(0)
    }

    /// Numbers of the host, for handlers that show them. A turn that runs again may be told others.
    pub fn stats(&mut self) -> Stats {
        let of = self.host.stats();
        Stats {
            sessions: of.sessions,
            service_sessions: of.service_sessions,
            turns: of.turns,
            faults: of.faults,
            generation: of.generation,
            uptime: Duration::from_nanos(of.uptime_ns),
            store_bytes: of.store_bytes,
            store_bytes_max: of.store_bytes_max,
        }
    }
}
