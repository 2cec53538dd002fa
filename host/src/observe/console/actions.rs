//! Changes that a page asks for. Each is a command of an operator, with the same checks.
//!
//! A build that was rehearsed is committed only if the file still holds it.

use crate::admin::client::{call, call_recorded};
use crate::observe::http::{Lines, Request};
use crate::observe::questions::{Questions, in_words};
use crate::protocol::admin::{AdminCommand, Reply};
use crate::protocol::canary::CanaryWish;
use crate::protocol::status::Status;
use serde::Deserialize;
use serde_json::{Value, json};
use std::io;

/// A change.
#[derive(Debug)]
pub(in crate::observe) enum Action {
    /// Reload of a service, or a rehearsal. With the SHA-256 of the build that was rehearsed.
    Reload(AdminCommand, Option<String>),
    /// Rollback, or a canary's beginning or end.
    RollBack(AdminCommand),
    /// Change of one session.
    Session(AdminCommand),
}

/// Body of a request for a reload or a rollback.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    service: String,
    #[serde(default)]
    dry_run: bool,
    #[serde(default)]
    build: Option<String>,
    #[serde(default)]
    to: Option<u64>,
}

impl Action {
    /// Reads the action of a request. `None`: its path names none.
    pub(super) fn of(request: &Request) -> Option<Result<Action, String>> {
        let wanted = || -> Result<Wanted, String> {
            greenroom_state::parse::parse(&request.body).map_err(|e| format!("the body of the request: {e}"))
        };
        if let Some(rest) = request.path.strip_prefix("/api/session/") {
            let (id, verb) = rest.split_once('/')?;
            let id = id.parse().ok()?;
            let command = match verb {
                "close" => AdminCommand::Close(id),
                "release" => AdminCommand::Release(id),
                _ => return None,
            };
            return Some(Ok(Action::Session(command)));
        }
        match request.path.as_str() {
            "/api/reload" => Some(wanted().map(|w| {
                let command = AdminCommand::Reload {
                    service: Some(w.service),
                    from: None,
                    together: false,
                    dry_run: w.dry_run,
                    against: None,
                };
                Action::Reload(command, w.build)
            })),
            "/api/rollback" => Some(
                wanted().map(|w| Action::RollBack(AdminCommand::RollBack { service: w.service, to: w.to })),
            ),
            "/api/canary" => Some(wanted().map(|w| {
                // 5 % of new sessions, in ten-thousandths.
                let wish = CanaryWish { share: 500, ..CanaryWish::default() };
                Action::RollBack(AdminCommand::Canary { service: w.service, from: None, wish })
            })),
            "/api/canary/promote" => {
                Some(wanted().map(|w| Action::RollBack(AdminCommand::Promote(w.service))))
            }
            "/api/canary/takeback" => {
                Some(wanted().map(|w| Action::RollBack(AdminCommand::TakeBack(w.service))))
            }
            _ => None,
        }
    }

    /// Carries the action out, and sends what the host says, line by line. The last line is `end`
    /// or `error`. A page that is gone does not end the action.
    pub(super) fn run(self, questions: &Questions, lines: &mut Lines<'_>) -> io::Result<()> {
        let mut sent = Ok(());
        let mut say = |value: Value| {
            if sent.is_ok() {
                sent = lines.say(&value);
            }
        };
        let mut each = |reply: Reply| match reply {
            Reply::Progress(library, done, total) => say(json!({"progress": [library, done, total]})),
            Reply::Report(report) => say(json!({"report": report})),
            _ => {}
        };
        let dir = questions.runtime();
        let result = match self {
            Action::Reload(command, build) => questions
                .status_now()
                .and_then(|status| is_rehearsed(&status, &command, build.as_deref()))
                .and_then(|()| call_recorded(dir, &command, each).map_err(in_words)),
            Action::RollBack(command) => call_recorded(dir, &command, each).map_err(in_words),
            Action::Session(command) => call(dir, &command, &mut each).map_err(in_words),
        };
        match result {
            Ok(()) => say(json!({"end": true})),
            Err(why) => say(json!({"error": why})),
        }
        sent
    }
}

/// Checks that the file of a service still holds the build that was rehearsed. A file that holds
/// what runs has nothing to commit, and the host says so.
fn is_rehearsed(status: &Status, command: &AdminCommand, build: Option<&str>) -> Result<(), String> {
    let (AdminCommand::Reload { service: Some(name), .. }, Some(build)) = (command, build) else {
        return Ok(());
    };
    let library = status.services.iter().find(|s| s.name == *name).map_or(name, |s| &s.library);
    let file = status.host.files.iter().find(|f| f.library.as_ref() == Some(library));
    match file.and_then(|f| f.build.as_deref()) {
        Some(now) if now != build => Err(format!(
            "the file of {library} has changed since it was rehearsed (build {} now): rehearse it again",
            now.get(..12).unwrap_or(now)
        )),
        _ => Ok(()),
    }
}
