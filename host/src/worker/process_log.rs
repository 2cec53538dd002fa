//! Log of a worker's process, and the way of what handlers print into it.

use crate::protocol::keeper::{Hello, ToKeeper, ToWorker};
use crate::protocol::link::Link;
use crate::{handler_output, logs};
use std::os::fd::AsFd;
use tracing_appender::non_blocking::WorkerGuard;
use tracing_subscriber::filter::LevelFilter;

/// Starts this process's log, and has what handlers print go there. Without a pipe for that, the
/// streams stay as they are.
///
/// Fails if the log cannot have a descriptor of its own.
pub(super) fn start(hello: &Hello, link: &mut Link<ToWorker, ToKeeper>) -> Result<WorkerGuard, String> {
    let level = hello.log.parse().unwrap_or(LevelFilter::INFO);
    let guard = logs::start(level, true, hello.log_file.clone()).map_err(|e| format!("the log: {e}"))?;
    match handler_output::redirect() {
        Ok(pipes) if hello.hears_output && hello.trial.is_none() => {
            // If the keeper has no room for it now, only a death's last line is missing.
            let _ = link.send_with(&ToKeeper::Output, &pipes.each_ref().map(AsFd::as_fd));
        }
        Ok(_) => {}
        Err(e) => tracing::warn!("what handlers print is not passed to the log: {e}"),
    }
    Ok(guard)
}
