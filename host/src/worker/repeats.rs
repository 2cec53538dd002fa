//! Repeated lines of the log: those that peers can cause as often as they like.
//!
//! A peer that sends garbage fails a turn with each message, and a line for each would fill a disk.
//! So in 10 s a session has [`SESSION_LINES_MAX`] lines of a kind, and all sessions of a service
//! together have [`SERVICE_LINES_MAX`]. Lines beyond that are counted, and the count is a line when
//! the time is over. Counters of faults and limits miss nothing.
//!
//! Lines that a handler writes itself are its author's to limit.

use greenroom_core::ids::ServiceId;
use std::collections::BTreeMap;
use std::time::Duration;

/// Time after which a session has all its lines again.
const WINDOW: Duration = Duration::from_secs(10);
/// Lines of one kind and session in this time.
const SESSION_LINES_MAX: u32 = 20;
/// Lines of one kind of all sessions of a service in this time. Bounds the memory, too.
const SERVICE_LINES_MAX: u32 = 1000;

/// Kind of a line about a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum RepeatKind {
    /// A turn failed.
    Fault,
    /// The host did something about a session, by a limit or a rule.
    Notice,
}

/// Lines that were written and left out, since the first line of the window.
#[derive(Default)]
pub(super) struct Repeats {
    /// End of the window; `None`: there was no line.
    ends_ns: Option<u64>,
    /// Lines of each session that were written.
    written: BTreeMap<(RepeatKind, u16, u64), u32>,
    /// Lines of each service: written, left out.
    of_service: BTreeMap<(RepeatKind, u16), (u32, u64)>,
}

impl Repeats {
    /// Notes a line. False: it is left out, and counted.
    pub(super) fn pass(&mut self, kind: RepeatKind, service: ServiceId, session: u64, now_ns: u64) -> bool {
        self.ends_ns.get_or_insert(now_ns + WINDOW.as_nanos() as u64);
        let (all, left_out) = self.of_service.entry((kind, service.0)).or_default();
        if *all < SERVICE_LINES_MAX {
            let own = self.written.entry((kind, service.0, session)).or_default();
            if *own < SESSION_LINES_MAX {
                (*own, *all) = (*own + 1, *all + 1);
                return true;
            }
        }
        *left_out += 1;
        false
    }

    /// Whether no line was noted, so that no window is to end. Reads no clock.
    pub(super) fn is_empty(&self) -> bool {
        self.ends_ns.is_none()
    }

    /// Ends the window, if its time is over. Returns what it left out: kind, service, lines.
    pub(super) fn take_due(&mut self, now_ns: u64) -> Vec<(RepeatKind, ServiceId, u64)> {
        if self.ends_ns.is_none_or(|ends| now_ns < ends) {
            return Vec::new();
        }
        let Repeats { of_service, .. } = std::mem::take(self);
        let left_out = of_service.into_iter().filter(|(_, (_, n))| *n > 0);
        left_out.map(|((kind, service), (_, n))| (kind, ServiceId(service), n)).collect()
    }

    /// Time until lines that were left out are to be named; `None`: there are none.
    #[inline]
    pub(super) fn sleep_max(&self, now_ns: impl FnOnce() -> u64) -> Option<Duration> {
        let waits = self.of_service.values().any(|(_, n)| *n > 0);
        let ends = self.ends_ns.filter(|_| waits)?;
        Some(Duration::from_nanos(ends.saturating_sub(now_ns())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use RepeatKind::{Fault, Notice};

    const ECHO: ServiceId = ServiceId(3);

    #[test]
    fn a_session_has_its_lines_and_what_is_left_out_is_named_once() {
        let mut repeats = Repeats::default();
        let passed = |r: &mut Repeats, kind, n| (0..n).filter(|_| r.pass(kind, ECHO, 7, 1)).count();
        assert_eq!(passed(&mut repeats, Fault, 5), 5);
        assert_eq!(repeats.sleep_max(|| 1), None);
        assert_eq!(passed(&mut repeats, Fault, 100), 15);
        assert_eq!(passed(&mut repeats, Notice, 1), 1);
        assert!(repeats.pass(Fault, ECHO, 8, 1), "another session has its own");
        assert_eq!(repeats.sleep_max(|| 1), Some(WINDOW));
        let end = 1 + WINDOW.as_nanos() as u64;
        assert!(repeats.take_due(end - 1).is_empty());
        assert_eq!(repeats.take_due(end), [(Fault, ECHO, 85)]);
        assert!(repeats.take_due(end + 1).is_empty());
        assert_eq!(passed(&mut repeats, Fault, 30), 20);
    }

    #[test]
    fn many_sessions_share_the_lines_of_their_service() {
        let mut repeats = Repeats::default();
        let passed = (0..5000).filter(|session| repeats.pass(Fault, ECHO, *session, 1)).count();
        assert_eq!((passed, repeats.written.len()), (1000, 1000));
        assert!(repeats.pass(Fault, ServiceId(4), 1, 1));
    }
}
