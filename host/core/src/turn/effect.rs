//! Every effect a turn can ask for.

use crate::ids::ServiceId;
use greenroom_state::address::Address;
use std::ops::Range;

/// A part of the arena.
pub(crate) type Part = Range<usize>;

/// Something asked for, in the order it was asked.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Effect {
    Send(Part),
    Broadcast { topic: Part, data: Part, others: bool },
    Subscribe(Part),
    Unsubscribe(Part),
    Put { table: Part, key: Part, value: Part },
    Delete { table: Part, key: Part },
    Note { to: u64, data: Part, depth: u16 },
    Publish { topic: Part, data: Part, others: bool, depth: u16 },
    SetTimer { service: bool, name: Part, deadline_ns: u64 },
    CancelTimer { service: bool, name: Part },
    StartJob { number: u64, name: Part, input: Part, once: bool },
    CancelJob(u64),
    Connect { number: u64, service: ServiceId, addr: Address, context: Part },
    WaitFor(u64),
    Hold(bool),
}
