//! Log of the host: `tracing` events, a line each, on standard error.
//!
//! A thread of its own writes the lines, so the loop waits for no terminal, pipe or disk. If the
//! reader is slow or gone, lines are lost and counted. The log says how many, once it is taken
//! again. Standard output stays free for data. Each process that logs calls [`start`] once.
//!
//! Whatever an event holds is one line: [`crate::printable`] escapes what peers and handlers put
//! in.
//!
//! **A file that is rotated.** The log's path is found out once, by the keeper. After [`reopen`],
//! the thread opens the path again and goes on there.

use crate::printable;
use greenroom_state::abi::level;
use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use tracing::Level;
use tracing_appender::non_blocking::{ErrorCounter, NonBlocking, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::MakeWriter;

/// Lines that may wait to be written. Beyond that, lines are lost.
const WAITING_MAX: usize = 16 * 1024;

/// Set: the writing thread opens the file again before it writes the next line.
static REOPEN: AtomicBool = AtomicBool::new(false);
/// Lines that were offered to the writing thread.
static OFFERED: AtomicU64 = AtomicU64::new(0);
/// Offered lines that were written, or lost.
static DONE: AtomicU64 = AtomicU64::new(0);

/// Starts logging to what standard error is now. If `apart`, standard error becomes something else
/// later, and is left alone. The caller keeps the guard until the process ends. Dropping the guard
/// writes the lines that wait, for at most a second. `RUST_LOG` sets levels of single modules and
/// overrides `level` there.
///
/// `file`: the path of the log, if it is a file. Fails if no descriptor is left.
pub fn start(level: LevelFilter, apart: bool, file: Option<PathBuf>) -> io::Result<WorkerGuard> {
    let colours = io::stderr().is_terminal();
    let to = File::from(io::stderr().as_fd().try_clone_to_owned()?);
    let counter = Arc::new(OnceLock::new());
    let sink = Sink { to, apart, file, counter: counter.clone(), came: 0, failed: 0, named: 0 };
    // Lossy: a terminal that doesn't take the log must not stop the loop.
    let builder = NonBlockingBuilder::default().lossy(true).buffered_lines_limit(WAITING_MAX);
    let (writer, guard) = builder.thread_name("log").finish(sink);
    let _ = counter.set(writer.error_counter());
    let filter = EnvFilter::builder().with_default_directive(level.into()).from_env_lossy();
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(OneLine { writer, colours })
        .with_ansi(colours)
        .with_target(false)
        .init();
    Ok(guard)
}

/// Path of the file that standard error is. `None`: it is something else, such as a terminal, or
/// its path cannot be found out.
pub fn file() -> Option<PathBuf> {
    let at = rustix::fs::fstat(io::stderr()).ok()?;
    let path = std::fs::read_link("/proc/self/fd/2").ok()?;
    // A file that was deleted, or lies in another mount namespace, is another one at its path.
    let found = rustix::fs::stat(&path).ok()?;
    let is_file = rustix::fs::FileType::from_raw_mode(at.st_mode).is_file();
    (is_file && (at.st_dev, at.st_ino) == (found.st_dev, found.st_ino)).then_some(path)
}

/// Has the log go on in the file that is at its path now, or that is made there. Does nothing if
/// the log is no file. Never blocks.
pub fn reopen() {
    REOPEN.store(true, Ordering::Release);
    // A line wakes the writing thread, so that the old file is let go at once.
    tracing::info!("the log begins here after a signal to open its file again");
}

/// Lines that were offered to the log. The lines of the calling thread are among them.
pub fn lines_offered() -> u64 {
    OFFERED.load(Ordering::Acquire)
}

/// Offered lines that the log is done with: it has written them, or they are lost.
///
/// Lines are counted before they queue, and come out in their order. So once this reaches what
/// [`lines_offered`] was after a line, that line is done with.
pub fn lines_done() -> u64 {
    DONE.load(Ordering::Acquire)
}

/// End of the log, used by its thread alone.
struct Sink {
    /// Descriptor of the log's own: a write that waits must not hold the lock of standard error.
    to: File,
    /// Standard error is something else.
    apart: bool,
    /// Path of the log, if it is a file.
    file: Option<PathBuf>,
    /// Count of the lines that found no room. Set before the first line.
    counter: Arc<OnceLock<ErrorCounter>>,
    /// Lines that came here.
    came: u64,
    /// Lines that could not be written.
    failed: usize,
    /// Lost lines that the log has named.
    named: usize,
}

impl Sink {
    /// Opens the file again. If that fails, the log goes on where it was.
    fn reopen(&mut self) {
        let Some(path) = &self.file else { return };
        match open(path, &self.to) {
            Ok(file) => self.to = file,
            Err(e) => return tracing::error!("the log stays where it is: {}: {e}", path.display()),
        }
        if !self.apart {
            // The next worker inherits it.
            let _ = rustix::stdio::dup2_stderr(&self.to);
        }
    }

    /// Lines that found no room.
    fn dropped(&self) -> usize {
        self.counter.get().map_or(0, ErrorCounter::dropped_lines)
    }

    /// Names the lines that were lost since the last time. Runs when a line was taken.
    fn name_lost(&mut self) {
        let lost = (self.failed + self.dropped()).saturating_sub(self.named);
        if lost > 0 {
            self.named += lost;
            tracing::warn!(lines = lost, "lines of the log were lost: nobody took them in time");
        }
    }
}

impl Write for Sink {
    /// Takes a whole line, and never fails: a line that cannot be written is counted.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if REOPEN.swap(false, Ordering::AcqRel) {
            self.reopen();
        }
        match self.to.write_all(line) {
            Ok(()) => self.name_lost(),
            Err(_) => self.failed += 1,
        }
        self.came += 1;
        DONE.store(self.came + self.dropped() as u64, Ordering::Release);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Opens the log's file to append, and makes it with the mode of the one before, if it is not
/// there.
fn open(path: &Path, before: impl AsFd) -> io::Result<File> {
    let mode = rustix::fs::fstat(before).map_or(0o600, |stat| stat.st_mode & 0o777);
    let fresh = File::options().create_new(true).append(true).mode(mode).open(path);
    let opened = match fresh {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => File::options().append(true).open(path),
        other => other,
    };
    // The mask of new files is stricter than a log's reader may like.
    opened.inspect(|file| _ = rustix::fs::fchmod(file, rustix::fs::Mode::from_raw_mode(mode)))
}

/// Writer of events that makes one line of each.
struct OneLine {
    writer: NonBlocking,
    /// The log is a terminal, and its own colours stay.
    colours: bool,
}

impl<'a> MakeWriter<'a> for OneLine {
    type Writer = EventText<'a>;

    fn make_writer(&'a self) -> EventText<'a> {
        EventText { to: self, text: Vec::new() }
    }
}

/// Text of an event on its way to the log. Dropping it sends it.
struct EventText<'a> {
    to: &'a OneLine,
    text: Vec<u8>,
}

impl Write for EventText<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.text.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for EventText<'_> {
    fn drop(&mut self) {
        if !self.text.is_empty() {
            let line = printable::event(&String::from_utf8_lossy(&self.text), self.to.colours);
            OFFERED.fetch_add(1, Ordering::AcqRel);
            let _ = self.to.writer.clone().write(line.as_bytes());
        }
    }
}

/// Most detailed level that is shown, as the ABI numbers it. Libraries drop events beyond it
/// before they cross the ABI.
pub fn abi_level() -> u32 {
    match LevelFilter::current().into_level() {
        Some(Level::TRACE) => level::TRACE,
        Some(Level::DEBUG) => level::DEBUG,
        Some(Level::INFO) => level::INFO,
        Some(Level::WARN) => level::WARN,
        _ => level::ERROR,
    }
}

/// Logs an event at a level that is known only when it happens.
///
/// A call site of `tracing` has a fixed level, so there is one for each level. Unknown levels count
/// as TRACE.
macro_rules! log_at {
    ($level:expr, $($rest:tt)+) => {
        match $level {
            greenroom_state::abi::level::ERROR => tracing::error!($($rest)+),
            greenroom_state::abi::level::WARN => tracing::warn!($($rest)+),
            greenroom_state::abi::level::INFO => tracing::info!($($rest)+),
            greenroom_state::abi::level::DEBUG => tracing::debug!($($rest)+),
            _ => tracing::trace!($($rest)+),
        }
    };
}
pub(crate) use log_at;
