//! Ledger lines: added, amended, read.
//!
//! A line is a record of the core, so it counts from the same commit as the change that it reports.
//! A line is written as JSON; a worker of another version leaves out lines that it cannot read.
//!
//! *Invariant*: each line has the number above the last one, and at most [`LINES_MAX`] lines are
//! kept. Sizes of lines vary, because a line may carry a whole rehearsal.
//!
//! The ledger never refuses a change. If the store has no room for a line, the change is made, and
//! the log says that there was no room. Adding or amending a line costs one record.

use crate::admin::text::operator;
use crate::admin::time::rfc3339;
use crate::clock::unix_ms;
use crate::protocol::admin::LedgerLine;
use greenroom_core::core::Core;
use greenroom_core::ledger::Report;
use greenroom_core::operate::inspect::Slice;
use greenroom_core::reload::request::Requester;
use greenroom_core::store::kind::Kind;
use std::collections::BTreeMap;

/// Lines in one slice of an answer: each is decoded from JSON on the loop's thread.
const LINES_PER_SLICE: usize = 64;
/// Lines that the ledger keeps. Each new line beyond it deletes the oldest one.
const LINES_MAX: u64 = 1000;

/// The ledger, whose lines are records of the core.
pub(super) struct Ledger {
    /// Number of the last line; 0: no line was written yet.
    end: u64,
    /// Generation that serves, by library, as the lines of this process tell.
    serving: BTreeMap<String, u64>,
}

impl Ledger {
    /// Goes on with the lines that the core's records hold. O(lines).
    pub(super) fn of(core: &Core) -> Ledger {
        let end = core.host_record_keys(Kind::Ledger).last().unwrap_or(0);
        Ledger { end, serving: BTreeMap::new() }
    }

    /// Adds a line and deletes the oldest beyond [`LINES_MAX`]. Returns the new line's number.
    ///
    /// The line counts from the next commit on. If the store has no room, an error is logged, and
    /// the number is used up.
    pub(super) fn add(&mut self, core: &mut Core, by: &str, mut report: Report) -> u64 {
        self.end += 1;
        report.line = self.end;
        self.serving.insert(report.library.clone(), report.generation);
        write(core, &LedgerLine { at: rfc3339(unix_ms()), by: by.to_owned(), report });
        core.delete_host_record(Kind::Ledger, self.end.saturating_sub(LINES_MAX));
        self.end
    }

    /// Generation of a library that served, as the last line about it tells; `None`: this process
    /// wrote none.
    pub(super) fn served_before(&self, library: &str) -> Option<u64> {
        self.serving.get(library).copied()
    }

    /// Changes a line, if the ledger still has it. Counts from the next commit on. `change` cannot
    /// change the number. If the store has no room, an error is logged, and the old line stays.
    pub(super) fn amend(&self, core: &mut Core, line: u64, change: impl FnOnce(&mut Report)) {
        let Some(mut found) = read(core, line) else { return };
        change(&mut found.report);
        found.report.line = line;
        write(core, &found);
    }

    /// Reads a line; `None`: deleted, never written, or of another version.
    pub(super) fn line(&self, core: &Core, line: u64) -> Option<Report> {
        read(core, line).map(|found| found.report)
    }

    /// Reads the lines from a number on, at most [`LINES_PER_SLICE`], and the number to go on from.
    /// Lines of another version are left out.
    pub(super) fn lines_from(&self, core: &Core, line: u64) -> Slice<LedgerLine> {
        // With one line more, which tells whether another slice follows.
        let lines = core.host_records_from(Kind::Ledger, line, LINES_PER_SLICE + 1);
        let next = lines.get(LINES_PER_SLICE).map(|(key, _)| *key);
        let decode = |(_, json): &(u64, Vec<u8>)| serde_json::from_slice(json).ok();
        Slice { items: lines.iter().take(LINES_PER_SLICE).filter_map(decode).collect(), next }
    }
}

/// Names a requester as ledger and log do.
pub(super) fn requester(by: Requester) -> String {
    match by {
        Requester::Start => "start".to_owned(),
        Requester::Watcher => "watcher".to_owned(),
        Requester::Signal => "SIGHUP".to_owned(),
        Requester::Rule => "rule".to_owned(),
        Requester::Operator { uid, pid } => operator(uid, pid),
    }
}

/// Reads a record. The store may answer with a later line, if this one is gone.
fn read(core: &Core, line: u64) -> Option<LedgerLine> {
    let (key, json) = core.host_records_from(Kind::Ledger, line, 1).into_iter().next()?;
    serde_json::from_slice(&json).ok().filter(|_| key == line)
}

/// Writes a record in place of the line of the same number. If the store has no room, an error is
/// logged, and nothing has changed.
fn write(core: &mut Core, line: &LedgerLine) {
    let json = serde_json::to_vec(line).unwrap_or_default();
    if !core.put_host_record(Kind::Ledger, line.report.line, &json) {
        tracing::error!("no room for a line of the ledger");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use greenroom_core::ledger::Outcome;
    use greenroom_core::limits::host::Limits;

    fn report(reason: &str) -> Report {
        Report::of_host("a", Outcome::Refused, reason.into())
    }

    #[test]
    fn lines_are_numbered_amended_and_read_from_any_number_on() {
        let mut core = Core::new(Limits::default());
        let mut ledger = Ledger::of(&core);
        assert_eq!(ledger.add(&mut core, "x", report("one")), 1);
        assert_eq!(ledger.add(&mut core, "x", report("two")), 2);
        ledger.amend(&mut core, 1, |r| r.reason = "first".into());
        ledger.amend(&mut core, 3, |r| r.reason = "none".into());
        assert_eq!(ledger.line(&core, 1).map(|r| (r.line, r.reason)), Some((1, "first".into())));
        assert!(ledger.line(&core, 3).is_none());
        let slice = ledger.lines_from(&core, 2);
        assert_eq!((slice.items.len(), slice.next), (1, None));
        assert_eq!(Ledger::of(&core).add(&mut core, "x", report("three")), 3);
    }

    #[test]
    fn the_oldest_lines_are_deleted() {
        let mut core = Core::new(Limits::default());
        let mut ledger = Ledger::of(&core);
        for _ in 0..LINES_MAX + 2 {
            ledger.add(&mut core, "x", report(""));
        }
        let first = ledger.lines_from(&core, 0);
        assert_eq!(first.items[0].report.line, 3);
        assert_eq!((first.items.len(), first.next), (LINES_PER_SLICE, Some(67)));
    }
}
