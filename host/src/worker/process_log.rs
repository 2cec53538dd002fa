//! Log of a worker's process, and the way of what handlers print into it.

use crate::logs::format::LogTo;
use crate::logs::levels::{Levels, LogLevel};
use crate::logs::{LogGuard, LogStart};
use crate::protocol::keeper::{Hello, ToKeeper, ToWorker};
use crate::protocol::link::Link;
use crate::{handler_output, logs};
use std::os::fd::AsFd;

/// Starts this process's log, and has what handlers print go there. Without a pipe for that, the
/// streams stay as they are.
///
/// A log that cannot be opened as the keeper has it goes to standard error: sessions do not depend
/// on it. Fails if not even that is possible.
pub(super) fn start(hello: &Hello, link: &mut Link<ToWorker, ToKeeper>) -> Result<LogGuard, String> {
    let start = |to: &LogTo| {
        logs::start(LogStart {
            process: "worker",
            to,
            standard_error: hello.log_file.clone(),
            apart: true,
            levels: levels(hello),
        })
    };
    let guard = match start(&hello.log_to) {
        Ok(guard) => guard,
        Err(why) => {
            let guard = start(&LogTo::default()).map_err(|e| format!("the log: {e}"))?;
            tracing::error!("this worker logs to standard error: {why}");
            guard
        }
    };
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

/// Levels that the keeper has given. One that this version does not know is left out.
fn levels(hello: &Hello) -> Levels {
    let services = hello.log_services.iter().filter_map(|(name, l)| Some((name.clone(), l.parse().ok()?)));
    Levels { all: hello.log.parse().unwrap_or(LogLevel::Info), services: services.collect() }
}
