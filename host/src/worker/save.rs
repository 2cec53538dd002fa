//! When tables and ledger are saved and read, and what becomes a line of the ledger.

use crate::admin::query::Message;
use crate::admin::time::rfc3339;
use crate::memory::snapshot::core_at;
use crate::protocol::admin::LedgerLine;
use crate::saved_file;
use crate::worker::Worker;
use greenroom_core::ledger::Report;
use greenroom_core::operate::inspect::Slice;
use greenroom_core::store::kind::Kind;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Lines of the ledger in one slice.
const LINES_PER_SLICE: usize = 64;
/// Lines that the ledger keeps.
const LEDGER_LINES_MAX: u64 = 1000;

/// Who writes: two may, when a host is stopped during a save.
const AT_THE_END: &str = "new";
const MEANWHILE: &str = "under-way";

/// What saving takes.
pub(super) struct Saver {
    /// Where to.
    path: PathBuf,
    every: Option<Duration>,
    next: Option<Instant>,
    /// The records, to be read while the loop goes on.
    region: OwnedFd,
    under_way: bool,
}

impl Saver {
    pub(super) fn new(path: PathBuf, every_s: u64, region: OwnedFd) -> Saver {
        let every = (every_s > 0).then(|| Duration::from_secs(every_s));
        // A worker that begins goes on with the interval of the one before.
        let age = path.metadata().ok().and_then(|m| m.modified().ok()).and_then(|at| at.elapsed().ok());
        let next = every.map(|every| Instant::now() + every.saturating_sub(age.unwrap_or_default()));
        Saver { path, every, next, region, under_way: false }
    }

    /// Saves so often from now on; 0: only at the end.
    pub(super) fn every(&mut self, every_s: u64) {
        let every = (every_s > 0).then(|| Duration::from_secs(every_s));
        if every != self.every {
            self.next = every.map(|every| Instant::now() + every);
            self.every = every;
        }
    }

    /// The records' memory file, for a reader.
    pub(super) fn records(&self) -> std::io::Result<OwnedFd> {
        // To be read and no more.
        std::fs::File::open(format!("/proc/self/fd/{}", self.region.as_raw_fd())).map(OwnedFd::from)
    }

    /// When the next save is due.
    pub(super) fn next(&self) -> Option<Instant> {
        self.next.filter(|_| !self.under_way)
    }
}

impl Worker {
    /// Reads what a host before left.
    pub(super) fn read_saved(&mut self) {
        let path = &self.saver.path;
        match saved_file::read(&mut self.core, path) {
            Ok(None) => {}
            Ok(Some(s)) => tracing::info!(
                "{} table entries and {} lines of the ledger read from {}",
                s.entries,
                s.lines,
                path.display()
            ),
            Err(why) => tracing::error!("the tables of the host before can't be read: {why}"),
        }
        self.ledger_end = self.core.kept(Kind::Ledger).last().map_or(0, |(key, _)| *key);
    }

    /// The host ends: nobody waits for the loop any more.
    pub(super) fn save_at_the_end(&self) {
        let path = &self.saver.path;
        let written = saved_file::write(&self.core, path, AT_THE_END);
        match written.and_then(|saved| saved_file::put_in_place(path, AT_THE_END).map(|()| saved)) {
            Ok(s) => tracing::info!("{} table entries saved to {}", s.entries, path.display()),
            Err(e) => tracing::error!("the tables can't be saved to {}: {e}", path.display()),
        }
    }

    /// Begins a save if it is time: a thread reads a pinned snapshot, and the loop goes on.
    pub(super) fn save_in_time(&mut self) {
        if self.saver.next().is_none_or(|at| Instant::now() < at) {
            return;
        }
        let epoch = self.core.pin();
        let (path, limits, mailbox) = (self.saver.path.clone(), self.config.limits.clone(), self.mailbox());
        let begun = self.saver.region.try_clone().and_then(|region| {
            std::thread::Builder::new().name("save".into()).spawn(move || {
                let written = core_at(&region, &limits, epoch)
                    .map_err(std::io::Error::other)
                    .and_then(|found| saved_file::write(&found.core, &path, MEANWHILE));
                mailbox.post(Message::Saved(epoch, written));
            })
        });
        self.saver.under_way = true;
        if let Err(e) = begun {
            self.saved(epoch, Err(e));
        }
    }

    pub(super) fn saved(&mut self, epoch: u64, written: std::io::Result<saved_file::Saved>) {
        let held = self.core.unpin(epoch);
        let saver = &mut self.saver;
        saver.under_way = false;
        saver.next = saver.every.map(|every| Instant::now() + every);
        let whole = match held {
            true => written,
            false => Err(std::io::Error::other("too much changed while it was read (limit pin_bytes_max)")),
        };
        match whole.and_then(|saved| saved_file::put_in_place(&saver.path, MEANWHILE).map(|()| saved)) {
            Ok(s) => tracing::debug!("{} table entries saved to {}", s.entries, saver.path.display()),
            Err(e) => tracing::error!("the tables can't be saved to {}: {e}", saver.path.display()),
        }
    }

    /// Adds a line to the ledger, and lets go of the oldest. Returns its number.
    pub(super) fn note_in_ledger(&mut self, by: &str, mut report: Report) -> u64 {
        self.ledger_end += 1;
        report.line = self.ledger_end;
        self.keep_line(&LedgerLine { at: rfc3339(crate::worker::unix_ms()), by: by.to_owned(), report });
        self.core.forget(Kind::Ledger, self.ledger_end.saturating_sub(LEDGER_LINES_MAX));
        self.ledger_end
    }

    /// Changes what a line says, if the ledger still has it.
    pub(super) fn amend_ledger(&mut self, line: u64, change: impl FnOnce(&mut Report)) {
        let Some(mut kept) = self.kept_line(line) else { return };
        change(&mut kept.report);
        kept.report.line = line;
        self.keep_line(&kept);
    }

    fn keep_line(&mut self, line: &LedgerLine) {
        let json = serde_json::to_vec(line).unwrap_or_default();
        if !self.core.keep(Kind::Ledger, line.report.line, &json) {
            tracing::error!("no room for a line of the ledger");
        }
    }

    /// What a line says.
    pub(super) fn ledger_line(&self, line: u64) -> Option<Report> {
        self.kept_line(line).map(|kept| kept.report)
    }

    fn kept_line(&self, line: u64) -> Option<LedgerLine> {
        let (key, json) = self.core.kept_from(Kind::Ledger, line, 1).into_iter().next()?;
        serde_json::from_slice(&json).ok().filter(|_| key == line)
    }

    /// The lines of the ledger from a number on.
    pub(super) fn ledger_from(&self, line: u64) -> Slice<LedgerLine> {
        let lines = self.core.kept_from(Kind::Ledger, line, LINES_PER_SLICE + 1);
        let next = lines.get(LINES_PER_SLICE).map(|(key, _)| *key);
        // A line of another version is left out.
        let read = |(_, json): &(u64, Vec<u8>)| serde_json::from_slice(json).ok();
        Slice { items: lines.iter().take(LINES_PER_SLICE).filter_map(read).collect(), next }
    }
}
