//! Share of a service in a limit of the whole host.
//!
//! A service may use up what the limit gives. Then each other service still has a sixteenth, beyond
//! the limit: jobs that block, or targets that do not answer, must not stop all others. So
//! there is never more than the limit and a sixteenth of it for each service.

/// Part of the limit that each service has in any case.
const SHARE: usize = 16;

/// Things that a service may still have, of which there may be `max` in the host, `taken` are
/// there, and `own` of them are this service's.
pub(crate) fn room(max: usize, taken: usize, own: usize) -> usize {
    let share = (max / SHARE).clamp(max.min(1), max);
    max.saturating_sub(taken).max(share.saturating_sub(own))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_has_a_share_of_what_another_one_uses_up() {
        assert_eq!(room(1024, 0, 0), 1024);
        assert_eq!(room(1024, 1020, 1020), 4);
        assert_eq!(room(1024, 1024, 1024), 0);
        // The other service.
        assert_eq!(room(1024, 1024, 0), 64);
        assert_eq!(room(1024, 1088, 64), 0);
        // Small limits.
        assert_eq!((room(3, 3, 0), room(3, 4, 1), room(1, 1, 1), room(0, 0, 0)), (1, 0, 0, 0));
    }
}
