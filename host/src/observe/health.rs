//! Health of a host, for what watches processes and for load balancers.
//!
//! | path | 200 | 503 |
//! | --- | --- | --- |
//! | `/healthz` | the keeper answers, and a worker serves | else; a takeover is waited for |
//! | `/readyz` | new connections are served | accepting has stopped, or the worker stalls |
//!
//! A worker that stalls is healthy: a restart would end all sessions, and the host has means of its
//! own. It gets no new clients.

use crate::observe::http::Response;
use crate::observe::questions::Questions;
use crate::protocol::status::{HostStatus, Status};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Time for which a takeover is waited for: a probe that fails may cost all sessions.
const TAKEOVER_MAX: Duration = Duration::from_secs(2);
/// Pause between two looks at it.
const LOOK_AGAIN: Duration = Duration::from_millis(50);
/// Time of a stall from which a host is not ready.
const STALL_MIN_MS: u64 = 5_000;

/// Answers `/healthz`.
pub(super) fn health(questions: &Questions) -> Response {
    answer(serving(questions).map(|_| ()))
}

/// Answers `/readyz`.
pub(super) fn readiness(questions: &Questions) -> Response {
    answer(serving(questions).and_then(|status| is_ready(&status.host)))
}

/// Status of a host whose worker serves. The error says why it does not.
fn serving(questions: &Questions) -> Result<Arc<Status>, String> {
    let until = Instant::now() + TAKEOVER_MAX;
    let mut status = questions.status()?;
    while status.host.worker != "serving" && Instant::now() < until {
        std::thread::sleep(LOOK_AGAIN);
        status = questions.status_now()?;
    }
    match &status.host {
        host if host.worker == "serving" => Ok(status),
        host => {
            let why = host.reason.as_ref().map(|why| format!(": {why}")).unwrap_or_default();
            Err(format!("no worker serves, it is {}{why}", host.worker))
        }
    }
}

/// Whether new connections are served. The error says why they are not.
fn is_ready(host: &HostStatus) -> Result<(), String> {
    if let Some(why) = &host.not_accepting {
        return Err(why.clone());
    }
    match &host.stalled {
        Some(stalled) if stalled.for_ms >= STALL_MIN_MS => Err(stalled.with_way_out()),
        _ => Ok(()),
    }
}

fn answer(result: Result<(), String>) -> Response {
    match result {
        Ok(()) => Response::text(200, "ok"),
        Err(why) => Response::text(503, &why),
    }
}
