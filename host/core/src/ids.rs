//! Identifiers: sessions, slots, services, and a service's own turns.

/// Index of a service. Never used again for another one, so that records may hold it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceId(pub u16);

impl ServiceId {
    /// What its own turns have instead of a session's number.
    pub(crate) fn number(self) -> u64 {
        OWN_NUMBER | u64::from(self.0)
    }
}

/// Where the shell keeps a connection: small numbers, used again only after the pass in which they
/// became free.
///
/// A service's own turns (its timers') run as those of a session that has no connection, and is in
/// no list: its slot and its number are made from the service's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slot(pub u32);

pub(crate) const OWN_SLOT: u32 = 1 << 31;

const OWN_NUMBER: u64 = 1 << 63;

impl Slot {
    /// Of a service's own turns.
    pub(crate) fn of_service(service: ServiceId) -> Slot {
        Slot(OWN_SLOT | u32::from(service.0))
    }

    /// Whether there is no connection behind it.
    pub(crate) fn is_service(self) -> bool {
        self.0 & OWN_SLOT != 0
    }
}

/// The service whose own turns have this number instead of a session's.
pub fn service_of_number(number: u64) -> Option<ServiceId> {
    (number & OWN_NUMBER != 0).then_some(ServiceId(number as u16))
}

/// A session's number as it is told: 0 for a service's own turns.
pub fn public_number(number: u64) -> u64 {
    if number & OWN_NUMBER != 0 { 0 } else { number }
}
