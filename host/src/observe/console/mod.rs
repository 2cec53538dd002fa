//! Console: one web page for operators, with what it asks for.
//!
//! The page is embedded in the binary, and loads nothing from elsewhere. It has the token from the
//! address that `greenroom console` prints, behind `#`, and names it in a header of each request.
//!
//! | path | answer |
//! | --- | --- |
//! | `/`, `/console.css`, `/console.js` and others | the page, without a token |
//! | `/api/live` | status, changes of the ledger, samples, number of the list of sessions |
//! | `/api/sessions` | slice of the list of sessions: `q`, `sort`, `down`, `from`, `count` |
//! | `/api/session/ID` | a session's state and all that belongs to it |
//! | `/api/trace` | turns of `session` as they happen, in lines, until the page leaves |
//! | `/api/reload`, `/api/rollback` | POST: what came of it, in lines |
//! | `/api/canary`, `/api/canary/promote`, `takeback` | the same |
//! | `/api/session/ID/close`, `release` | the same |
//!
//! | file | holds |
//! | --- | --- |
//! | `sessions`, `rows`, `order` | the list of sessions, its rows; search and sort |
//! | `ledger` | changes of the ledger |
//! | `samples` | turns of the last hour: their number, times and faults |
//! | `actions` | changes that a page asks for |

pub(super) mod actions;
mod ledger;
mod order;
mod rows;
mod samples;
mod sessions;

use crate::clock::unix_ms;
use crate::observe::http::{Lines, Method, Request, Response};
use crate::observe::questions::{Places, Questions};
use crate::protocol::admin::{AdminCommand, Reply};
use crate::protocol::canary::CanaryLine;
use crate::protocol::selection::Selection;
use crate::protocol::status::Status;
use actions::Action;
use greenroom_core::watch::subject::Subject;
use ledger::ShownLedger;
use order::Order;
use samples::Samples;
use serde_json::{Value, json};
use sessions::SessionList;
use std::io;
use std::net::TcpStream;
use std::sync::{Arc, Weak};
use std::time::Duration;

/// Time between two samples.
const SAMPLE_EVERY: Duration = Duration::from_secs(1);
/// Longest state that is shown, in bytes of JSON.
const STATE_BYTES_MAX: usize = 8 << 20;
/// Traces at once: each has a place among the host's commands.
const TRACES_MAX: usize = 8;
/// Sessions of a slice, if the page does not say.
const SLICE: usize = 100;

/// Page, style and scripts: path, type, text.
const ASSETS: [(&str, &str, &str); 10] = [
    ("/", HTML, include_str!("../assets/index.html")),
    ("/console.css", "text/css; charset=utf-8", include_str!("../assets/console.css")),
    ("/console.js", SCRIPT, include_str!("../assets/console.js")),
    ("/api.js", SCRIPT, include_str!("../assets/api.js")),
    ("/canary.js", SCRIPT, include_str!("../assets/canary.js")),
    ("/list.js", SCRIPT, include_str!("../assets/list.js")),
    ("/session.js", SCRIPT, include_str!("../assets/session.js")),
    ("/reloads.js", SCRIPT, include_str!("../assets/reloads.js")),
    ("/timeline.js", SCRIPT, include_str!("../assets/timeline.js")),
    ("/trace.js", SCRIPT, include_str!("../assets/trace.js")),
];
/// Type of the page.
const HTML: &str = "text/html; charset=utf-8";
/// Type of scripts.
const SCRIPT: &str = "text/javascript; charset=utf-8";

/// Console of one host.
pub(super) struct Console {
    questions: Arc<Questions>,
    sessions: SessionList,
    ledger: ShownLedger,
    samples: Samples,
    traces: Places,
}

/// Answer of the console.
pub(super) enum ConsoleAnswer {
    /// An answer that is whole.
    Whole(Response),
    /// A change, which answers in lines.
    Change(Action),
    /// Turns of a session, as they happen.
    Trace(u64),
}

impl Console {
    /// Makes a console, and takes samples as long as it is held.
    pub(super) fn new(questions: Arc<Questions>) -> io::Result<Arc<Console>> {
        let console = Arc::new(Console {
            questions,
            sessions: SessionList::default(),
            ledger: ShownLedger::default(),
            samples: Samples::default(),
            traces: Places::new(TRACES_MAX),
        });
        let held = Arc::downgrade(&console);
        std::thread::Builder::new().name("samples".into()).spawn(move || take_samples(&held))?;
        Ok(console)
    }

    /// Part of the page that a path names; `None`: none.
    pub(super) fn asset(path: &str) -> Option<Response> {
        // Asked for by browsers without a word of the page.
        if path == "/favicon.ico" {
            return Some(Response::of(204, "image/x-icon", &b""[..]));
        }
        let (_, kind, text) = ASSETS.iter().find(|(name, ..)| *name == path)?;
        Some(Response::of(200, kind, text.as_bytes()))
    }

    /// Answers a request whose token was checked. `None`: there is nothing at this path.
    pub(super) fn answer(&self, request: &Request) -> Option<ConsoleAnswer> {
        let whole = |result: Result<Value, String>| {
            ConsoleAnswer::Whole(match result {
                Ok(value) => Response::json(&value),
                Err(why) => Response::text(503, &why),
            })
        };
        if request.method == Method::Post {
            return Some(match Action::of(request)? {
                Ok(action) => ConsoleAnswer::Change(action),
                Err(why) => ConsoleAnswer::Whole(Response::text(400, &why)),
            });
        }
        match request.path.as_str() {
            "/api/live" => Some(whole(self.live(request))),
            "/api/trace" => Some(ConsoleAnswer::Trace(request.field("session")?.parse().ok()?)),
            "/api/sessions" => {
                let (column, is_down) =
                    (request.field("sort").unwrap_or_default(), request.number("down", 0) == 1);
                let order = Order::new(request.field("q").unwrap_or_default(), column, is_down);
                let (from, count) = (request.number("from", 0), request.number("count", SLICE));
                let slice = self.sessions.slice(&self.questions, order, from, count);
                Some(whole(slice.map(|slice| json!(slice))))
            }
            path => {
                let id = path.strip_prefix("/api/session/")?.parse().ok()?;
                Some(ConsoleAnswer::Whole(match self.session(id) {
                    Ok(value) => Response::json(&value),
                    Err(why) if why.starts_with("no session has number") => Response::text(404, &why),
                    Err(why) => Response::text(503, &why),
                }))
            }
        }
    }

    /// Carries out a change, and sends what the host says.
    pub(super) fn change(&self, action: Action, stream: &TcpStream) -> io::Result<()> {
        let mut lines = Lines::begin(stream)?;
        let sent = action.run(&self.questions, &mut lines);
        self.ledger.forget();
        lines.end();
        sent
    }

    /// Sends turns of a session as they happen, until the page leaves or the session ends.
    pub(super) fn trace(&self, session: u64, stream: &TcpStream) -> io::Result<()> {
        let mut lines = Lines::begin(stream)?;
        let subject = Subject::Sessions(vec![session]);
        let command = AdminCommand::Watch { subject, for_ms: None, record: None };
        let mut sent = Ok(());
        let watched = match self.traces.take() {
            None => Err(format!("{TRACES_MAX} traces are under way already")),
            Some(_place) => self.questions.call_while(&command, |reply| {
                let line = match reply {
                    Reply::Turn(turn) => json!({ "turn": turn }),
                    Reply::LeftOut(turns) => json!({ "left_out": turns }),
                    // Also shows whether the page is still there.
                    _ => json!({}),
                };
                sent = lines.say(&line);
                sent.is_ok()
            }),
        };
        if let (Ok(()), Err(why)) = (&sent, watched) {
            sent = lines.say(&json!({ "error": why }));
        }
        lines.end();
        sent
    }

    /// News since the last time that the page asked.
    fn live(&self, request: &Request) -> Result<Value, String> {
        let status = self.questions.status()?;
        let ledger = self.ledger.since(&self.questions, &status, request.number("ledger", 0) as u64);
        let samples = self.samples.since(request.number("samples", 0) as u64);
        Ok(json!({
            "at": unix_ms(),
            "status": *status,
            "ledger": ledger.as_ref().ok(),
            // The worker answers it, so it may fail while the keeper answers all else.
            "ledger_error": ledger.as_ref().err(),
            "samples": samples,
            "canaries": self.canaries(&status),
            "sessions": self.sessions.version(),
        }))
    }

    /// Canaries with their counts, if there are any. A worker that stalls is not asked.
    fn canaries(&self, status: &Status) -> Vec<CanaryLine> {
        let mut all = Vec::new();
        if status.host.stalled.is_none() && status.services.iter().any(|s| s.canary.is_some()) {
            let _ = self.questions.in_a_place(|| {
                self.questions.call(&AdminCommand::Canaries, |reply| {
                    if let Reply::Canaries(canaries) = reply {
                        all.extend(canaries);
                    }
                })
            });
        }
        all
    }

    /// A session with its state, as a dump has it.
    fn session(&self, id: u64) -> Result<Value, String> {
        let text = self.questions.in_a_place(|| {
            let mut text = String::new();
            let mut is_long = false;
            let of = Box::new(Selection { sessions: vec![id], ..Selection::default() });
            let command = AdminCommand::Dump { of, strings: true, lines: false };
            self.questions.call(&command, |reply| {
                if let Reply::Text(piece) = reply {
                    is_long |= text.len() + piece.len() > STATE_BYTES_MAX;
                    if !is_long {
                        text.push_str(&piece);
                    }
                }
            })?;
            match is_long {
                true => Err(format!(
                    "its state has more than {} MiB; `greenroom state dump` has it",
                    STATE_BYTES_MAX >> 20
                )),
                false => Ok(text),
            }
        })?;
        let mut dump: Value =
            greenroom_state::parse::parse_written(text.as_bytes()).map_err(|e| e.to_string())?;
        let session = dump["sessions"][0].take();
        let service = session["service"].as_str().map(|name| dump["services"][name].take());
        Ok(json!({ "session": session, "service": service, "listed": self.sessions.row(id) }))
    }
}

/// Takes a sample each second, until the console is held no more.
fn take_samples(console: &Weak<Console>) {
    while let Some(console) = console.upgrade() {
        // A host that does not answer has a gap in its samples.
        if let Ok(metrics) = console.questions.metrics() {
            console.samples.take(unix_ms(), &metrics);
        }
        console.sessions.drop_unused();
        drop(console);
        std::thread::sleep(SAMPLE_EVERY);
    }
}
