//! Code for a service that has no library.
//!
//! A service without a build stays in the registry: records and sessions name its number. Its
//! code is one of these two, so that a call needs no test whether there is code. Neither
//! converts values, has jobs or keeps state.

use crate::turn::code::{Batch, Code};
use crate::turn::fault::Fault;
use crate::turn::staging::Staging;
use greenroom_state::abi;

/// Code of a service that its library no longer offers: closes the session.
///
/// Only services without sessions are withdrawn, and their ports are closed in the same step.
/// So a turn here is that of a connection that was accepted just before.
pub(crate) struct Withdrawn;

/// Code of a service whose sessions have no build that could serve them: every turn fails as a
/// state that cannot be read. So the session is quarantined, and its input is kept until a
/// build serves.
pub(crate) struct Missing;

impl Code for Withdrawn {
    fn run(&self, _: &Batch<'_>, staging: &mut Staging<'_>) -> u32 {
        staging.close();
        staging.turn_ok();
        0
    }
}

impl Code for Missing {
    fn run(&self, _: &Batch<'_>, staging: &mut Staging<'_>) -> u32 {
        let message = "no library offers this service".into();
        staging.turn_failed(Fault { kind: abi::fault::STATE, message, file: String::new(), line: 0 });
        0
    }
}
