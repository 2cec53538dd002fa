//! Log of a handler: `tracing` events go to the host, with the turn that they belong to.
//!
//! A library has `tracing` statics of its own, so the SDK installs a subscriber there. Events
//! stay on their thread until the turn ends and are handed over before the host hears of that
//! end. So the host can mark the lines of a failed turn. Spans carry no meaning of their own.
//!
//! A turn that logs nothing pays one read of a thread-local flag. A turn keeps at most 1000
//! events: a loop that logs must not fill the memory of a host that all services share.

use greenroom_state::abi::level;
use std::cell::{Cell, RefCell};
use std::fmt::{self, Write};
use std::sync::atomic::{AtomicU32, Ordering};
use tracing_core::field::{Field, Visit};
use tracing_core::span::{Attributes, Id, Record};
use tracing_core::{Event, Level, LevelFilter, Metadata, Subscriber};

/// Event of a turn.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LogEvent {
    /// Number of [`greenroom_state::abi::level`].
    pub(crate) level: u32,
    /// Module that the event comes from.
    pub(crate) target: &'static str,
    /// Message, with its fields appended.
    pub(crate) message: String,
}

/// Events that one turn may log; more are dropped.
const EVENTS_MAX: usize = 1000;

/// Most detailed level that is kept.
static LEVEL: AtomicU32 = AtomicU32::new(level::INFO);

thread_local! {
    /// Events of the turn under way, on this thread.
    static EVENTS: RefCell<Vec<LogEvent>> = const { RefCell::new(Vec::new()) };
    /// Whether there are events: every turn asks, and few have logged.
    static LOGGED: Cell<bool> = const { Cell::new(false) };
}

/// Installs the subscriber, unless the library has one. Called for each instance; only the
/// first call of a library installs. `level`: the host's, which [`follow`] follows.
pub(crate) fn install(level: &AtomicU32) {
    follow(level);
    let _ = tracing_core::dispatcher::set_global_default(tracing_core::Dispatch::new(ToHost));
}

/// Follows the level of the host, which operators change at any time. Costs two loads while it
/// stays the same; else O(call sites), and a lock.
#[inline]
pub(crate) fn follow(level: &AtomicU32) {
    let level = level.load(Ordering::Relaxed);
    if level != LEVEL.load(Ordering::Relaxed) {
        change(level);
    }
}

/// Changes the level, and has call sites ask for it again.
#[cold]
fn change(level: u32) {
    LEVEL.store(level, Ordering::Relaxed);
    tracing_core::callsite::rebuild_interest_cache();
}

/// Whether there are events to take.
#[inline]
pub(crate) fn is_any() -> bool {
    LOGGED.get()
}

/// Takes the events of this thread since the last call.
pub(crate) fn take() -> Vec<LogEvent> {
    LOGGED.set(false);
    EVENTS.take()
}

/// Subscriber that keeps events until the turn ends. Has no data: levels and events are
/// statics.
struct ToHost;

/// Number of a level in the ABI.
fn number(level: &Level) -> u32 {
    match *level {
        Level::ERROR => level::ERROR,
        Level::WARN => level::WARN,
        Level::INFO => level::INFO,
        Level::DEBUG => level::DEBUG,
        Level::TRACE => level::TRACE,
    }
}

impl Subscriber for ToHost {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        // Spans are disabled, so they cost their callers one check.
        metadata.is_event() && number(metadata.level()) <= LEVEL.load(Ordering::Relaxed)
    }

    /// Most detailed level, which lets `tracing` skip call sites beyond it.
    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(match LEVEL.load(Ordering::Relaxed) {
            level::ERROR => LevelFilter::ERROR,
            level::WARN => LevelFilter::WARN,
            level::INFO => LevelFilter::INFO,
            level::DEBUG => LevelFilter::DEBUG,
            _ => LevelFilter::TRACE,
        })
    }

    /// Keeps an event. Beyond [`EVENTS_MAX`] events it is dropped without a trace.
    fn event(&self, event: &Event<'_>) {
        let mut text = Text { message: String::new(), fields: String::new() };
        event.record(&mut text);
        let metadata = event.metadata();
        let event = LogEvent {
            level: number(metadata.level()),
            target: metadata.target(),
            message: text.message + &text.fields,
        };
        EVENTS.with(|e| {
            let mut events = e.borrow_mut();
            if events.len() < EVENTS_MAX {
                events.push(event);
                LOGGED.set(true);
            }
        });
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

/// Event as text: the message, then ` name=value` for each field.
struct Text {
    message: String,
    fields: String,
}

impl Visit for Text {
    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "message" => self.message.push_str(value),
            name => {
                let _ = write!(self.fields, " {name}={value}");
            }
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let _ = match field.name() {
            "message" => write!(self.message, "{value:?}"),
            name => write!(self.fields, " {name}={value:?}"),
        };
    }
}
