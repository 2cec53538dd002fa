//! The contract with a service's code: a batch in, effects staged.

use super::staging::Staging;
use crate::ids::ServiceId;
use greenroom_state::abi::{self};
use std::sync::Arc;
use std::sync::atomic::AtomicU32;

/// What one call of a handler gets: actions of one session, oldest first.
#[derive(Clone, Copy)]
pub struct Batch<'a> {
    /// The session's number.
    pub session: u64,
    /// Its service.
    pub service: ServiceId,
    /// The generation of the code that is called.
    pub generation: u64,
    /// Turns that the session ran before.
    pub turn: u64,
    /// CLOCK_MONOTONIC, in nanoseconds.
    pub now_ns: u64,
    /// The stored state and its version; `None`: none stored.
    pub state: Option<(u32, &'a [u8])>,
    /// None: a rehearsal, which only reads the state.
    pub actions: &'a [abi::Action<'a>],
}

/// A service's callback: loaded code in a host, a plain struct in a test.
///
/// It runs the actions in order; if there are none, it reads the state and hands it over, or fails.
///
///  After each it calls [`Staging::turn_ok`], and goes on while that is true, or
///  [`Staging::turn_failed`], and returns. Before it returns it hands over the state that the
///  successful turns left, if they changed it. It returns [`abi::RUN_STATE_LOST`] when a failed
///  turn made that impossible, else 0.
pub trait Code: Send {
    /// See the trait.
    fn run(&self, batch: &Batch<'_>, staging: &mut Staging<'_>) -> u32;

    /// Whether it knows actions of a kind: an older library may not.
    fn knows(&self, kind: u32) -> bool {
        let _ = kind;
        true
    }

    /// The service's jobs; `None`: it has none.
    fn work(&self) -> Option<Arc<dyn Work>> {
        None
    }

    /// Takes a value of the session's state (`which` is 0) or of the n-th table that the service
    /// owns from one version to another, up or down; if it arrives at this build's own version, it
    /// is read and written again. The error is a sentence.
    fn convert(&self, which: u32, from: u32, to: u32, value: &[u8]) -> Result<Vec<u8>, String> {
        let _ = (which, from, to, value);
        Err("this build converts nothing: it is of ABI 1.0".into())
    }
}

/// A service's jobs. It lives as long as one of them runs, whatever serves by then.
pub trait Work: Send + Sync {
    /// Runs one, on any thread. `cancelled` is not 0 once nobody wants the result. The error is a
    /// sentence.
    fn run(&self, name: &str, input: &[u8], cancelled: &AtomicU32) -> Result<Vec<u8>, String>;
}
