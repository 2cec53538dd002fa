//! End of the log: the thread that writes its lines, to a file, to standard error or to the
//! journal.
//!
//! The thread may wait for a reader; nobody waits for the thread. It also names what was left out:
//! lines that nobody took in time, and lines beyond their bucket ([`super::buckets`]).

use super::buckets::LeftOut;
use super::entry::{Entry, FieldValue};
use super::file;
use super::format::{Encoder, LogFormat, LogTo};
use super::journal::Journal;
use super::levels::SERVICE;
use super::shared::{DONE, DROPPED, REOPEN, buckets};
use std::fs::File;
use std::io::{self, ErrorKind, IsTerminal, Write};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender};
use std::time::{Duration, Instant};
use tracing::Level;

/// Order to the thread.
pub(super) enum SinkOrder {
    /// Write this line.
    Line(Vec<u8>),
    /// Look whether the file is to be opened again.
    Wake,
    /// All lines before this are written: say so, and end.
    Finish(SyncSender<()>),
}

/// Place of the lines.
enum To {
    File(File),
    Journal(Journal),
    /// The file at the path is opened by the thread. Until then, and if it cannot be, lines go to
    /// standard error.
    Due(PathBuf, File),
}

/// Time after which a file that is gone from its path is made anew.
const GONE_MAX: Duration = Duration::from_secs(2);

/// End of the log, used by its thread alone.
pub(super) struct Sink {
    to: To,
    encoder: Encoder,
    /// Path to open again, if the log is a file.
    path: Option<PathBuf>,
    /// Standard error is the log, and follows the file.
    is_standard_error: bool,
    /// A line was written in part, so the next one begins a line.
    is_broken: bool,
    /// Time of the last look whether the file is at its path, and of the first that missed it.
    looked: Instant,
    gone_since: Option<Instant>,
    /// Lines that came here.
    came: u64,
    /// Lines that could not be written.
    failed: u64,
    /// Lost lines that the log has named.
    named: u64,
}

impl Sink {
    /// Opens the place of the lines. `apart`: standard error becomes something else later, and
    /// the thread opens a file, so that nobody waits for its disk. The error says what cannot be
    /// opened.
    pub(super) fn open(
        to: &LogTo,
        standard_error: Option<PathBuf>,
        apart: bool,
        process: &'static str,
    ) -> Result<Sink, String> {
        let format: LogFormat = to.format.parse()?;
        let (place, path, is_own) = match (format, &to.file) {
            (LogFormat::Journald, _) => (To::Journal(Journal::open()?), None, true),
            (_, Some(path)) if apart => {
                (To::Due(path.clone(), own_standard_error()?), Some(path.clone()), true)
            }
            (_, Some(path)) => (To::File(file::open(path, None)?), Some(path.clone()), true),
            (_, None) => (To::File(own_standard_error()?), standard_error, false),
        };
        let colours = matches!(&place, To::File(file) if file.is_terminal());
        Ok(Sink {
            to: place,
            encoder: Encoder { format, colours, process },
            path,
            is_standard_error: !is_own && !apart,
            is_broken: false,
            looked: Instant::now(),
            gone_since: None,
            came: 0,
            failed: 0,
            named: 0,
        })
    }

    /// Encoder of the lines.
    pub(super) fn encoder(&self) -> Encoder {
        self.encoder
    }

    /// Writes the lines that come, until the log ends.
    pub(super) fn run(mut self, orders: &Receiver<SinkOrder>) {
        self.open_due();
        loop {
            // Without a window nothing waits to be named, and the thread sleeps until a line comes.
            let ends = buckets().ends();
            let order = match ends {
                Some(at) => orders.recv_timeout(at.saturating_duration_since(Instant::now())),
                None => orders.recv().map_err(|_| RecvTimeoutError::Disconnected),
            };
            if REOPEN.swap(false, Ordering::AcqRel) {
                let _ = self.reopen();
            }
            match order {
                Ok(SinkOrder::Line(line)) => self.take(&line),
                Ok(SinkOrder::Wake) | Err(RecvTimeoutError::Timeout) => {}
                Ok(SinkOrder::Finish(done)) => {
                    let left_out = buckets().take();
                    self.name(left_out);
                    let _ = done.try_send(());
                    return;
                }
                Err(RecvTimeoutError::Disconnected) => return,
            }
            let left_out = buckets().take_due(Instant::now());
            self.name(left_out);
        }
    }

    /// Takes a line, and never fails: a line that cannot be written is counted.
    fn take(&mut self, line: &[u8]) {
        self.look();
        match self.write(line) {
            Ok(()) => self.name_lost(),
            Err(_) => self.failed += 1,
        }
        self.came += 1;
        DONE.store(self.came + DROPPED.load(Ordering::Acquire), Ordering::Release);
    }

    /// Writes a line whole, or fails.
    fn write(&mut self, line: &[u8]) -> io::Result<()> {
        let file = match &mut self.to {
            To::Journal(journal) => return journal.send(line),
            To::File(file) | To::Due(_, file) => file,
        };
        if self.is_broken {
            write_all(file, b"\n").0?;
            self.is_broken = false;
        }
        let (written, bytes) = write_all(file, line);
        self.is_broken = written.is_err() && bytes > 0;
        written
    }

    /// Writes an entry of the log's own. Counts nothing: it was not offered.
    fn say(&mut self, level: Level, message: String, fields: Vec<(&'static str, FieldValue)>) {
        let line = self.encoder.encode(&Entry::own(level, message, fields));
        // A log that takes nothing is named by its count.
        let _ = self.write(&line);
    }

    /// Names lines that went beyond their buckets.
    fn name(&mut self, left_out: Vec<LeftOut>) {
        for LeftOut { service, lines, like } in left_out {
            let mut fields = vec![("lines", FieldValue::Plain(lines.into()))];
            if !service.is_empty() {
                fields.insert(0, (SERVICE, FieldValue::Shown(service.into())));
            }
            self.say(Level::WARN, format!("{lines} more like this in 10 s: {like}"), fields);
        }
    }

    /// Names the lines that were lost since the last time. Runs when a line was taken.
    fn name_lost(&mut self) {
        let all = self.failed + DROPPED.load(Ordering::Acquire);
        let lost = all.saturating_sub(self.named);
        if lost > 0 {
            self.named = all;
            let text = "lines of the log were lost: nobody took them in time";
            self.say(Level::WARN, text.into(), vec![("lines", FieldValue::Plain(lost.into()))]);
        }
    }

    /// Opens the file that is due. If that fails, the log goes to standard error: sessions do not
    /// depend on it.
    fn open_due(&mut self) {
        let To::Due(path, _) = &self.to else { return };
        match file::open(path, None) {
            Ok(file) => self.to = To::File(file),
            Err(why) => {
                let text = format!("this {} logs to standard error: {why}", self.encoder.process);
                self.say(Level::ERROR, text, Vec::new());
            }
        }
    }

    /// Makes the file anew that was deleted, or moved away without a signal. A rotation makes it by
    /// itself meanwhile. At most a look in two seconds, and none without a line.
    fn look(&mut self) {
        let (Some(path), To::File(file)) = (&self.path, &self.to) else { return };
        if self.looked.elapsed() < GONE_MAX {
            return;
        }
        self.looked = Instant::now();
        if file::is_at(path, file) {
            self.gone_since = None;
        } else if self.gone_since.get_or_insert(self.looked).elapsed() >= GONE_MAX {
            self.gone_since = None;
            if self.reopen() {
                let text = "the log's file was gone from its path, and is opened anew";
                self.say(Level::WARN, text.into(), Vec::new());
            }
        }
    }

    /// Opens the file again. False: that failed, and the log goes on where it was.
    fn reopen(&mut self) -> bool {
        self.open_due();
        let (Some(path), To::File(before)) = (&self.path, &self.to) else { return false };
        match file::open(path, Some(before)) {
            Ok(file) => {
                if self.is_standard_error {
                    // The next worker inherits it.
                    let _ = rustix::stdio::dup2_stderr(&file);
                }
                (self.to, self.is_broken) = (To::File(file), false);
                true
            }
            Err(why) => {
                self.say(Level::ERROR, format!("the log stays where it is: {why}"), Vec::new());
                false
            }
        }
    }
}

/// Standard error by a descriptor of its own: a write that waits must not hold the lock of the
/// stream.
fn own_standard_error() -> Result<File, String> {
    let fd = io::stderr().as_fd().try_clone_to_owned();
    fd.map(File::from).map_err(|e| format!("standard error: {e}"))
}

/// Writes bytes, and says how many were written.
fn write_all(file: &mut File, bytes: &[u8]) -> (io::Result<()>, usize) {
    let mut written = 0;
    while written < bytes.len() {
        match file.write(&bytes[written..]) {
            Ok(0) => return (Err(ErrorKind::WriteZero.into()), written),
            Ok(n) => written += n,
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(e) => return (Err(e), written),
        }
    }
    (Ok(()), written)
}
