//! The contract with a service's code: a batch in, effects staged.
//!
//! The core calls code through these traits alone. A host implements them with loaded libraries,
//! tests with plain structs. [`Code`] runs on the thread of the loop, so a call that takes long
//! delays every session; [`Work`] runs on threads of its own.

use super::staging::Staging;
use crate::framing::custom::CustomCut;
use crate::ids::ServiceId;
use greenroom_state::abi::{self};
use std::sync::Arc;
use std::sync::atomic::AtomicU32;

/// Batch of one call of a handler: actions of one session, oldest first.
#[derive(Clone, Copy)]
pub struct Batch<'a> {
    /// Number of the session, or of a service's own turns.
    pub session: u64,
    /// Service of the session.
    pub service: ServiceId,
    /// Generation of the code that is called.
    pub generation: u64,
    /// Turns that the session ran before; for a service's own turns, a number that names the
    /// turn.
    pub turn: u64,
    /// Time of the pass: CLOCK_MONOTONIC, in nanoseconds.
    pub now_ns: u64,
    /// The stored state and its version; `None`: none stored.
    pub state: Option<(u32, &'a [u8])>,
    /// Actions to run. None: a rehearsal, which only reads the state.
    pub actions: &'a [abi::Action<'a>],
    /// Whether the time of the call is counted: then code that has a clock tells it
    /// ([`Staging::took`]).
    pub timed: bool,
}

/// Place of a cut, by which a death in it is blamed.
#[derive(Debug, Clone, Copy)]
pub struct CutPlace {
    /// Number of the session.
    pub session: u64,
    /// Service of the session.
    pub service: ServiceId,
    /// Generation of the code that is called.
    pub generation: u64,
    /// Turn that the message would have.
    pub turn: u64,
}

/// A service's callback: loaded code in a host, a plain struct in a test.
///
/// [`Code::run`] runs the actions in order, a turn each:
///
/// - After a turn that succeeded it calls [`Staging::turn_ok`]. If that is true, it goes on with
///   the next action; else it returns.
/// - After a turn that failed it calls [`Staging::turn_failed`], and returns.
/// - Before it returns, it hands over the state that the successful turns left, if they changed
///   it.
/// - It returns [`abi::RUN_STATE_LOST`] if a failed turn made that impossible, else 0.
///
/// If there are no actions, it reads the state and hands it over, or fails.
///
/// An outcome may be dropped, and the same actions run again: code keeps nothing between calls.
pub trait Code: Send {
    /// Runs a batch. The contract is that of the trait.
    fn run(&self, batch: &Batch<'_>, staging: &mut Staging<'_>) -> u32;

    /// Whether the code knows actions of a kind. An older library may not.
    fn knows(&self, kind: u32) -> bool {
        let _ = kind;
        true
    }

    /// Lends name and data of an action. They lie behind pointers that safe code can't follow: code
    /// that is called by them can. Only for turns that somebody watches.
    fn bytes_of<'a>(&self, action: &abi::Action<'a>) -> (&'a [u8], &'a [u8]) {
        let _ = action;
        (&[], &[])
    }

    /// Cuts the next message off the beginning of a session's input, for a service whose framing is
    /// its library's own. `state` is what the library keeps for the session, and is changed in
    /// place. The answer is not judged yet. Fails with a sentence: the library is at fault.
    fn cut(&self, place: &CutPlace, input: &[u8], state: &mut Vec<u8>) -> Result<CustomCut, String> {
        let _ = (place, input, state);
        Err("this build has no framing of its own".into())
    }

    /// Frames a message that is sent to a session of such a service. Fails with a sentence.
    fn encode(&self, message: &[u8]) -> Result<Vec<u8>, String> {
        let _ = message;
        Err("this build has no framing of its own".into())
    }

    /// The service's jobs; `None`: there are none.
    fn work(&self) -> Option<Arc<dyn Work>> {
        None
    }

    /// Converts a value from one version to another, up or down. A session's state has the
    /// number (`which`) 0, the n-th table that the service owns has n. A value that arrives at
    /// this build's own version is read and written again. With [`abi::table::KEY_OF`] added the
    /// value is a key of that table, which is read. Fails with a sentence. Has no effect beside the
    /// result.
    fn convert(&self, which: u32, from: u32, to: u32, value: &[u8]) -> Result<Vec<u8>, String> {
        let _ = (which, from, to, value);
        Err("this build converts nothing: it is of ABI 1.0".into())
    }
}

/// A service's jobs. The value lives as long as one of them runs, whatever build serves by then.
pub trait Work: Send + Sync {
    /// Runs a job on any thread, while turns and other jobs run. The job may block. Once nobody
    /// wants the result, `cancelled` turns from 0 to another value. Fails with a sentence.
    fn run(&self, name: &str, input: &[u8], cancelled: &AtomicU32) -> Result<Vec<u8>, String>;
}
