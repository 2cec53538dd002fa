//! Answers that have no end of their own: a watch of turns, whatever worker serves.
//!
//! A watch ends with its worker. The keeper gives the next request to the worker that follows, so
//! this goes on there. Turns between the two are not seen, and the caller is told.

use crate::admin::client::{CallError, call};
use crate::protocol::admin::{AdminCommand, Reply};
use crate::protocol::watch::RecordOrder;
use greenroom_core::watch::subject::Subject;
use std::path::Path;
use std::time::{Duration, Instant};

/// Time in which a host must answer again that has answered before.
const ASK_AGAIN_MAX: Duration = Duration::from_secs(10);
/// Rest between two tries.
const REST: Duration = Duration::from_millis(50);

/// Refusal of a worker that is about to end: the next one takes the watch.
pub const ABOUT_TO_END: &str = "the worker is about to end";

/// Part of a watch.
pub enum Watched {
    /// A reply of the host.
    Reply(Reply),
    /// The worker has ended: the next one is asked.
    WorkerEnded,
}

/// Watches turns, and calls `each` with what is seen, until the time is over or the sessions are
/// gone. An error tells why there is no host any more, or why it refuses.
pub fn follow(
    dir: &Path,
    subject: &Subject,
    time: Option<Duration>,
    record: Option<&RecordOrder>,
    mut each: impl FnMut(Watched),
) -> Result<(), CallError> {
    let until = time.map(|time| Instant::now() + time);
    let (mut has_begun, mut give_up) = (false, None);
    loop {
        let left = until.map(|at| at.saturating_duration_since(Instant::now()));
        if has_begun && left == Some(Duration::ZERO) {
            return Ok(());
        }
        let for_ms = left.map(|left| left.as_millis() as u64);
        let command = AdminCommand::Watch { subject: subject.clone(), for_ms, record: record.cloned() };
        let ended = call(dir, &command, |reply| {
            (has_begun, give_up) = (true, None);
            each(Watched::Reply(reply));
        });
        let error = match ended {
            Ok(()) => return Ok(()),
            Err(error) if !has_begun => return Err(error),
            Err(error) => error,
        };
        if matches!(&error, CallError::Failed(why) if !why.contains(ABOUT_TO_END)) {
            return Err(error);
        }
        // A host that is gone is gone for good, once it had time for another worker.
        let by = *give_up.get_or_insert_with(|| {
            each(Watched::WorkerEnded);
            Instant::now() + ASK_AGAIN_MAX
        });
        if matches!(error, CallError::NoHost(_)) || Instant::now() >= by {
            return Err(error);
        }
        std::thread::sleep(REST);
    }
}
