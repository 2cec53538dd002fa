//! Code for a service that has no library now.

use crate::turn::code::{Batch, Code};
use crate::turn::fault::Fault;
use crate::turn::staging::Staging;
use greenroom_state::abi;

/// The code of a service that its library no longer offers. Only services without sessions are
/// withdrawn, and their ports are closed in the same step, so a turn here is a connection that was
/// accepted just before.
pub(crate) struct Withdrawn;

/// The code of a service that a successor has no library for: its sessions wait.
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
