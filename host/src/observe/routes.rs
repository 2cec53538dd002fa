//! Paths of the observer, and what answers each.

use crate::observe::console::{Console, ConsoleAnswer};
use crate::observe::guard::Guard;
use crate::observe::health;
use crate::observe::http::{Method, Request, Response};
use crate::observe::metrics::{MetricsFormat, render_as};
use crate::observe::questions::Questions;
use crate::protocol::observer::ObserverSettings;
use std::io;
use std::net::TcpStream;
use std::sync::Arc;

/// All that a request is answered from. Another configuration is another one of these.
pub(super) struct Served {
    pub(super) guard: Guard,
    questions: Arc<Questions>,
    /// `None`: the console is off.
    console: Option<Arc<Console>>,
}

impl Served {
    /// Makes what these settings serve. Fails if the console gets no thread.
    pub(super) fn new(settings: &ObserverSettings) -> io::Result<Served> {
        let questions = Arc::new(Questions::new(settings.runtime.clone()));
        let console = settings.config.console.then(|| Console::new(questions.clone())).transpose()?;
        Ok(Served { guard: Guard::new(settings), questions, console })
    }

    /// Reads a request, and answers it. Fails if the peer is gone, or takes no answer.
    pub(super) fn answer(&self, stream: &TcpStream) -> io::Result<()> {
        let request = match Request::read(stream)? {
            Ok(request) => request,
            Err(refused) => return refused.send(stream, Method::Get),
        };
        let answer = match request.path.as_str() {
            // Probes have no token, and learn nothing but a reason.
            "/healthz" => self.read(&request, |_| Ok(()), || health::health(&self.questions)),
            "/readyz" => self.read(&request, |_| Ok(()), || health::readiness(&self.questions)),
            "/metrics" => self.read(&request, |r| self.guard.check_reader(r), || self.metrics(&request)),
            _ => match self.console_answer(&request) {
                ConsoleAnswer::Whole(response) => response,
                ConsoleAnswer::Change(action) => match &self.console {
                    Some(console) => return console.change(action, stream),
                    None => unknown(),
                },
                ConsoleAnswer::Trace(session) => match &self.console {
                    Some(console) => return console.trace(session, stream),
                    None => unknown(),
                },
            },
        };
        answer.send(stream, request.method)
    }

    /// Answers a request that only reads, once it is checked.
    fn read(
        &self,
        request: &Request,
        check: impl FnOnce(&Request) -> Result<(), Response>,
        answer: impl FnOnce() -> Response,
    ) -> Response {
        match check(request) {
            Err(refused) => refused,
            Ok(()) if request.method == Method::Post => Response::text(405, "it is read with GET"),
            Ok(()) => answer(),
        }
    }

    /// Text of all figures, in the format that the scraper wants.
    fn metrics(&self, request: &Request) -> Response {
        let format = request.accept.as_deref().map_or(MetricsFormat::OpenMetrics, MetricsFormat::accepted_by);
        match self.questions.metrics() {
            Ok(figures) => {
                let text = render_as(&figures, format);
                Response::of(200, format.content_type(), text.into_bytes())
            }
            Err(why) => Response::text(503, &why),
        }
    }

    /// Answers a request of the console's page, or for it. The page itself needs no token: it has
    /// no secret, and asks for the token.
    fn console_answer(&self, request: &Request) -> ConsoleAnswer {
        let Some(console) = &self.console else { return ConsoleAnswer::Whole(unknown()) };
        if request.method != Method::Post
            && let Some(asset) = Console::asset(&request.path)
        {
            return ConsoleAnswer::Whole(self.guard.check_host(request).err().unwrap_or(asset));
        }
        match self.guard.check_page(request) {
            Ok(()) => console.answer(request).unwrap_or_else(|| ConsoleAnswer::Whole(unknown())),
            Err(refused) => ConsoleAnswer::Whole(refused),
        }
    }
}

/// Answer at a path where there is nothing.
fn unknown() -> Response {
    Response::text(404, "there are /metrics, /healthz and /readyz, and the console at / if it is on")
}
