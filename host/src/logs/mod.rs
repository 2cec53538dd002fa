//! Log of the host: `tracing` events, a line each, on standard error, in a file or in the journal.
//!
//! A thread of its own writes the lines, so the loop waits for no terminal, pipe or disk. If the
//! reader is slow or gone, lines are lost and counted. The log says how many, once it is taken
//! again. Standard output stays free for data. Each process that logs calls [`start`] once: the
//! keeper, and each worker. The keeper logs what handshaker and observer tell it.
//!
//! An event passes three questions on the calling thread, the cheap ones first:
//!
//! | file | question |
//! | --- | --- |
//! | [`levels`] | is it wanted at all, for its service? |
//! | `buckets` | were there too many of its kind lately? |
//! | `entry`, [`mod@format`], [`journal`] | how is it written? |
//!
//! Then it waits for the thread, in `sink`; [`mod@file`] opens the log's file. `shared` has what
//! threads share.

mod buckets;
mod entry;
pub mod file;
pub mod format;
pub mod journal;
pub mod levels;
mod shared;
mod sink;

use buckets::{LineKind, Verdict};
use entry::{Entry, Subject};
use format::{Encoder, LogTo};
use levels::Levels;
use shared::{DONE, DROPPED, OFFERED, REOPEN, buckets};
use sink::{Sink, SinkOrder};
use std::path::PathBuf;
use std::sync::OnceLock;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::time::{Duration, Instant};
use tracing::level_filters::LevelFilter;
use tracing::span::{Attributes, Id, Record};
use tracing::subscriber::Interest;
use tracing::{Event, Metadata, Subscriber};

/// Lines that may wait to be written. Beyond that, lines are lost.
const WAITING_MAX: usize = 16 * 1024;
/// Longest time that the end of a process waits for its lines.
const FINISH_MAX: Duration = Duration::from_secs(1);
/// Target of what handlers print.
pub const HANDLER_OUTPUT: &str = "handler_output";
/// Field of what handlers write.
const HANDLER: &str = "handler";

/// Queue of the writing thread.
static QUEUE: OnceLock<SyncSender<SinkOrder>> = OnceLock::new();

/// Process that a log is started for.
pub struct LogStart<'a> {
    /// Name of the process among those of the host.
    pub process: &'static str,
    /// Place and format.
    pub to: &'a LogTo,
    /// Path of the file that standard error is, if it is one.
    pub standard_error: Option<PathBuf>,
    /// Standard error becomes something else later, and is left alone.
    pub apart: bool,
    /// Levels to begin with. `RUST_LOG` sets levels of single modules.
    pub levels: Levels,
}

/// Starts logging. The caller keeps the guard until the process ends. Dropping the guard writes the
/// lines that wait, for at most a second.
///
/// Fails if the log's file cannot be opened, if no journal answers, or if no descriptor or thread
/// is left. The error says what it was.
pub fn start(with: LogStart<'_>) -> Result<LogGuard, String> {
    let sink = Sink::open(with.to, with.standard_error, with.apart, with.process)?;
    let encoder = sink.encoder();
    let (queue, orders) = sync_channel(WAITING_MAX);
    let thread = std::thread::Builder::new().name("log".into());
    thread.spawn(move || sink.run(&orders)).map_err(|e| format!("no thread can be started: {e}"))?;
    let _ = QUEUE.set(queue);
    levels::set(with.levels);
    levels::read_modules();
    tracing::subscriber::set_global_default(ToLog { encoder }).map_err(|e| e.to_string())?;
    Ok(LogGuard)
}

/// Guard of the log. Dropping it writes the lines that wait.
pub struct LogGuard;

impl Drop for LogGuard {
    fn drop(&mut self) {
        let Some(queue) = QUEUE.get() else { return };
        let until = Instant::now() + FINISH_MAX;
        let (done, is_done) = sync_channel(1);
        let mut order = SinkOrder::Finish(done);
        while let Err(TrySendError::Full(back)) = queue.try_send(order) {
            if Instant::now() >= until {
                return;
            }
            order = back;
            std::thread::sleep(Duration::from_millis(1));
        }
        let _ = is_done.recv_timeout(until.saturating_duration_since(Instant::now()));
    }
}

/// Has the log go on in the file that is at its path now, or that is made there. Does nothing if
/// the log is no file. Never blocks.
pub fn reopen() {
    REOPEN.store(true, Ordering::Release);
    // The old file is let go at once. A full queue means that the thread is awake.
    if let Some(queue) = QUEUE.get() {
        let _ = queue.try_send(SinkOrder::Wake);
    }
    tracing::info!("the log begins here after a signal to open its file again");
}

/// Lines that were offered to the log. The lines of the calling thread are among them, but for
/// those that were left out.
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

/// Subscriber that passes events on to the thread. Spans are not used.
struct ToLog {
    encoder: Encoder,
}

impl ToLog {
    /// Notes an event in its bucket. False: it is left out.
    fn passes(event: &Event<'_>, subject: &Subject) -> bool {
        let site = event.metadata();
        let of_handlers = site.target() == HANDLER_OUTPUT || site.fields().field(HANDLER).is_some();
        // Call sites are statics, so the address is the site's for as long as the process lives.
        let site = if of_handlers { 0 } else { std::ptr::from_ref(site).addr() };
        let kind = LineKind { site, service: &subject.service, session: subject.session };
        let verdict = buckets().note(kind, Instant::now);
        if let Verdict::LeftOut { is_first: true } = verdict {
            // Made without the lock: what shows itself here might log.
            let message = entry::message(event);
            buckets().name(kind, message);
        }
        verdict == Verdict::Passes
    }
}

impl Subscriber for ToLog {
    fn register_callsite(&self, site: &'static Metadata<'static>) -> Interest {
        match site.is_event() && levels::wants(site) {
            true => Interest::always(),
            false => Interest::never(),
        }
    }

    fn enabled(&self, site: &Metadata<'_>) -> bool {
        site.is_event() && levels::wants(site)
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(levels::most())
    }

    fn event(&self, event: &Event<'_>) {
        let subject = Subject::of(event);
        if !levels::shows(event.metadata(), &subject.service) || !ToLog::passes(event, &subject) {
            return;
        }
        let line = self.encoder.encode(&Entry::of(event));
        OFFERED.fetch_add(1, Ordering::AcqRel);
        let sent = QUEUE.get().is_some_and(|queue| queue.try_send(SinkOrder::Line(line)).is_ok());
        if !sent {
            DROPPED.fetch_add(1, Ordering::AcqRel);
        }
    }

    /// Number that every span gets: spans are disabled, but the trait wants one.
    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
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
