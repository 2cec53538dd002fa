//! Parts that the core's unit tests share: code that is a closure, and a core that serves it.
//!
//! A test that needs more than a closure (a converter, a state) implements
//! [`Code`] itself, and takes the rest from here.

use crate::core::Core;
use crate::framing::Framing;
use crate::ids::{ServiceId, Slot};
use crate::input::Input;
use crate::limits::host::Limits;
use crate::service::offer::{Build, Offer};
use crate::turn::code::{Batch, Code};
use crate::turn::fault::Fault;
use crate::turn::staging::Staging;
use greenroom_state::abi::{Action, fault};
use std::ops::Range;

/// Code that calls a closure for each action. If the closure fails, so does the turn.
pub(crate) struct Stub<F>(pub(crate) F);

impl<F> Code for Stub<F>
where
    F: Fn(&Action<'_>, &mut Staging<'_>) -> Result<(), String> + Send,
{
    fn run(&self, batch: &Batch<'_>, staging: &mut Staging<'_>) -> u32 {
        for action in batch.actions {
            if let Err(message) = (self.0)(action, staging) {
                staging.turn_failed(failure(message));
                break;
            }
            if !staging.turn_ok() {
                break;
            }
        }
        0
    }
}

/// Failure of a turn, with the kind of an error that a handler returned.
pub(crate) fn failure(message: String) -> Fault {
    Fault { kind: fault::ERROR, message, file: String::new(), line: 0 }
}

/// Offer of service `s`, whose messages are lines of at most 9 bytes.
pub(crate) fn offer() -> Offer {
    Offer::new("s", Framing::Lines { bytes_max: 9 })
}

/// Build `generation` of library `l`.
pub(crate) fn build(generation: u64) -> Build {
    Build { library: "l".into(), generation, hash: String::new() }
}

/// Core that serves [`offer`] with this code.
pub(crate) fn serve(limits: Limits, code: impl Code + 'static) -> (Core, ServiceId) {
    let mut core = Core::new(limits);
    core.adopt(&build(1), vec![(offer(), Box::new(code))]);
    let service = core.service_named("s").expect("it was adopted");
    (core, service)
}

/// Opens a session in each of these slots, whose number is that of the slot and one. A pass must
/// have begun.
pub(crate) fn open(core: &mut Core, service: ServiceId, slots: Range<u32>) {
    for n in slots {
        let peer = "127.0.0.1:9".parse().expect("an address");
        core.handle(Input::Opened {
            slot: Slot(n),
            id: u64::from(n) + 1,
            service,
            kind: "",
            peer,
            at_ms: 0,
            tls: None,
        });
    }
}

/// Sends all output, and returns its bytes. The kernel takes everything.
pub(crate) fn send(core: &mut Core) -> usize {
    let (mut sendable, mut sent) = (Vec::new(), 0);
    core.take_sendable(&mut sendable);
    for slot in sendable {
        while let Some(bytes) = core.output(slot, |pieces| pieces.iter().map(|p| p.len()).sum::<usize>()) {
            core.handle(Input::Sent { slot, bytes, blocked: false });
            sent += bytes;
        }
    }
    sent
}
