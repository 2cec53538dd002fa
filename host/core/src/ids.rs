//! Identifiers: sessions, slots, services, and a service's own turns.
//!
//! A session has a number (`u64`) for life, which records and handlers know, and a slot, under
//! which core and shell find it in O(1). Numbers are never used again; slots are. A service's
//! own turns have neither, so their number and slot are made from the service's, with the top
//! bit set.

/// Number of a service: its place in the list of all services that ever were. Never used for
/// another service, so that records may hold it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceId(pub u16);

impl ServiceId {
    /// Returns the number that the service's own turns have in place of a session's.
    pub(crate) fn number(self) -> u64 {
        OWN_NUMBER | u64::from(self.0)
    }
}

/// Place of a connection in core and shell: a small number, used again only after the pass in
/// which it became free. The limit `sessions_max` is at most 2^31, so the top bit is never a
/// connection's.
///
/// A service's own turns (its timers') run as those of a session that has no connection and no
/// record. Its slot is made from the service's number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slot(pub u32);

/// Bit of the slots of services.
pub(crate) const OWN_SLOT: u32 = 1 << 31;

/// Bit of the numbers of services. The keeper counts connections from 1, and never so far.
const OWN_NUMBER: u64 = 1 << 63;

impl Slot {
    /// Returns the slot of a service's own turns.
    pub(crate) fn of_service(service: ServiceId) -> Slot {
        Slot(OWN_SLOT | u32::from(service.0))
    }

    /// Returns whether the slot is that of a service's own turns, without a connection.
    pub(crate) fn is_service(self) -> bool {
        self.0 & OWN_SLOT != 0
    }
}

/// Returns the service whose own turns have this number; `None`: the number is a session's.
pub fn service_of_number(number: u64) -> Option<ServiceId> {
    (number & OWN_NUMBER != 0).then_some(ServiceId(number as u16))
}

/// Returns a session's number as handlers and operators see it: 0 for a service's own turns.
pub fn public_number(number: u64) -> u64 {
    if number & OWN_NUMBER != 0 { 0 } else { number }
}
