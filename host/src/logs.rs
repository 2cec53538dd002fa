//! Log of the host: `tracing` events, a line each, on standard error.
//!
//! A thread of its own writes the lines, so the loop does not wait for a terminal or a pipe.
//! Standard output stays free for data. Each process that logs calls [`start`] once.

use greenroom_state::abi::level;
use tracing::Level;
use tracing_appender::non_blocking::WorkerGuard;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

/// Starts logging. The caller keeps the guard until the process ends. Dropping the guard writes
/// the lines that wait. `RUST_LOG` sets levels of single modules and overrides `level` there.
pub fn start(level: LevelFilter) -> WorkerGuard {
    // Lossy: a terminal that doesn't take the log must not stop the loop.
    let (writer, guard) = tracing_appender::non_blocking(std::io::stderr());
    let filter = EnvFilter::builder().with_default_directive(level.into()).from_env_lossy();
    let ansi = std::io::IsTerminal::is_terminal(&std::io::stderr());
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(writer)
        .with_ansi(ansi)
        .with_target(false)
        .init();
    guard
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
