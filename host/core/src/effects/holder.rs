//! Session that holds something: a name, or a place on a topic.

use crate::ids::{ServiceId, Slot};

/// Session, by its place, number and service.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Holder {
    pub(crate) slot: Slot,
    pub(crate) id: u64,
    pub(crate) service: ServiceId,
}
