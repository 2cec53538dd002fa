//! Buckets of lines: whoever can cause a line as often as they like cannot fill a disk with it.
//!
//! A kind of lines is a call site and a service. In 10 s a session has [`SESSION_LINES_MAX`] lines
//! of a kind, and a kind has [`KIND_LINES_MAX`] in all. What a handler writes is one kind for each
//! service, of [`HANDLER_LINES_MAX`] lines. Lines beyond are counted, and the count is a line when
//! the time is over. Counters of faults and limits miss nothing.
//!
//! Memory is bounded by the kinds, and by the lines that were let pass.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Time after which all lines may come again.
pub(super) const WINDOW: Duration = Duration::from_secs(10);
/// Lines of one kind and session in this time.
const SESSION_LINES_MAX: u32 = 20;
/// Lines of one kind in this time.
const KIND_LINES_MAX: u32 = 1000;
/// Lines in this time that the handlers of a service write, or print.
const HANDLER_LINES_MAX: u32 = 10_000;
/// Services of one call site that are told apart. All others are one.
const SERVICES_MAX: usize = 1024;

/// Kind of a line, and the session that it is about; 0: none.
#[derive(Debug, Clone, Copy)]
pub(super) struct LineKind<'a> {
    /// The call site; 0: all that handlers write.
    pub(super) site: usize,
    /// Name of the service; empty: none.
    pub(super) service: &'a str,
    /// Number of the session.
    pub(super) session: u64,
}

/// Verdict on a line.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The line is written.
    Passes,
    /// The line is left out, and counted. The first one of its kind stands for the others.
    LeftOut { is_first: bool },
}

/// Lines of a kind that were left out.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct LeftOut {
    /// Name of the service; empty: none.
    pub(super) service: Box<str>,
    /// Number of lines.
    pub(super) lines: u64,
    /// Message of the first of them.
    pub(super) like: String,
}

/// Lines of a kind since the window began.
#[derive(Default)]
struct Lines {
    passed: u32,
    left_out: u64,
    /// Lines that passed, of each session.
    sessions: BTreeMap<u64, u32>,
    /// Message of the first line that was left out.
    like: String,
}

/// Lines of all kinds since the window began.
#[derive(Default)]
pub(super) struct Buckets {
    /// End of the window; `None`: there was no line.
    ends: Option<Instant>,
    /// Kinds, by call site and service.
    kinds: BTreeMap<usize, BTreeMap<Box<str>, Lines>>,
}

impl Buckets {
    /// Buckets that have had no line.
    pub(super) const fn new() -> Buckets {
        Buckets { ends: None, kinds: BTreeMap::new() }
    }

    /// Lines of a kind.
    fn of(&mut self, kind: LineKind<'_>) -> &mut Lines {
        let services = self.kinds.entry(kind.site).or_default();
        let is_told_apart = services.len() < SERVICES_MAX || services.contains_key(kind.service);
        let service = if is_told_apart { kind.service } else { "" };
        services.entry(service.into()).or_default()
    }

    /// Notes a line. `now` begins a window, if none is open.
    pub(super) fn note(&mut self, kind: LineKind<'_>, now: impl FnOnce() -> Instant) -> Verdict {
        if self.ends.is_none() {
            self.ends = now().checked_add(WINDOW);
        }
        let of_handlers = kind.site == 0;
        let lines = self.of(kind);
        let most = if of_handlers { HANDLER_LINES_MAX } else { KIND_LINES_MAX };
        let mut passes = lines.passed < most;
        if passes && kind.session != 0 && !of_handlers {
            let own = lines.sessions.entry(kind.session).or_default();
            passes = *own < SESSION_LINES_MAX;
            *own += u32::from(passes);
        }
        lines.passed += u32::from(passes);
        lines.left_out += u64::from(!passes);
        match passes {
            true => Verdict::Passes,
            false => Verdict::LeftOut { is_first: lines.left_out == 1 },
        }
    }

    /// Keeps the message of a line that was left out, to stand for others of its kind.
    pub(super) fn name(&mut self, kind: LineKind<'_>, message: String) {
        self.of(kind).like = message;
    }

    /// End of the window, if one is open.
    pub(super) fn ends(&self) -> Option<Instant> {
        self.ends
    }

    /// Ends the window, if its time is over. Returns what it left out.
    pub(super) fn take_due(&mut self, now: Instant) -> Vec<LeftOut> {
        match self.ends.is_some_and(|ends| ends <= now) {
            true => self.take(),
            false => Vec::new(),
        }
    }

    /// Ends the window. Returns what it left out.
    pub(super) fn take(&mut self) -> Vec<LeftOut> {
        let Buckets { kinds, .. } = std::mem::take(self);
        let all = kinds.into_values().flatten().filter(|(_, lines)| lines.left_out > 0);
        all.map(|(service, l)| LeftOut { service, lines: l.left_out, like: l.like }).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passed(buckets: &mut Buckets, kind: LineKind<'_>, n: usize) -> usize {
        (0..n).filter(|_| buckets.note(kind, Instant::now) == Verdict::Passes).count()
    }

    #[test]
    fn a_session_has_its_lines_and_what_is_left_out_is_named_once() {
        let (mut buckets, began) = (Buckets::new(), Instant::now());
        let kind = LineKind { site: 9, service: "echo", session: 7 };
        assert_eq!(passed(&mut buckets, kind, 20), 20);
        assert_eq!(buckets.note(kind, || began), Verdict::LeftOut { is_first: true });
        buckets.name(kind, "it failed".into());
        assert_eq!(buckets.note(kind, || began), Verdict::LeftOut { is_first: false });
        // Another kind, another service and another session have their own.
        for other in [
            LineKind { site: 8, ..kind },
            LineKind { service: "tally", ..kind },
            LineKind { session: 8, ..kind },
        ] {
            assert_eq!(passed(&mut buckets, other, 1), 1, "{other:?}");
        }
        let ends = buckets.ends().unwrap();
        assert!(buckets.take_due(ends - Duration::from_millis(1)).is_empty());
        let left_out = LeftOut { service: "echo".into(), lines: 2, like: "it failed".into() };
        assert_eq!(buckets.take_due(ends), [left_out]);
        assert!(buckets.take_due(ends).is_empty() && buckets.ends().is_none());
        assert_eq!(passed(&mut buckets, kind, 30), 20);
    }

    #[test]
    fn many_sessions_share_the_lines_of_their_kind_and_memory_is_bounded() {
        let mut buckets = Buckets::new();
        let of = |session| LineKind { site: 9, service: "echo", session };
        let passes = (1..5000).filter(|n| passed(&mut buckets, of(*n), 1) == 1).count();
        assert_eq!((passes, buckets.kinds[&9]["echo"].sessions.len()), (1000, 1000));
        for n in 0..3000 {
            passed(&mut buckets, LineKind { site: 8, service: &n.to_string(), session: 0 }, 1);
        }
        assert_eq!(buckets.kinds[&8].len(), SERVICES_MAX + 1);
        let written = LineKind { site: 0, service: "echo", session: 3 };
        assert_eq!(passed(&mut buckets, written, 12_000), 10_000);
        assert_eq!(buckets.take().iter().map(|l| l.lines).sum::<u64>(), 3999 + 976 + 2000);
    }
}
