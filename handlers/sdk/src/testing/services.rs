//! Services of a host in memory: the one that is tested, and others beside it.

use super::turn::Staging;
use crate::action::{Action, Job};
use crate::bounds::Settings as _;
use crate::carried::comparing;
use crate::convert::check;
use crate::fault::{self, Fault};
use crate::framing::{Endpoint, Framing};
use crate::handler::Handler;
use crate::run::{Session, run, run_service};

/// Service whose type the host does not know.
pub(super) trait Runs {
    fn name(&self) -> &'static str;
    /// Version of the states that the build writes.
    fn version(&self) -> u32;
    /// Framings of its endpoints, the first one in front.
    fn framings(&self) -> Vec<Framing>;
    /// Runs one turn of a session, or of the service itself.
    fn run(&self, session: Option<Session<'_>>, now_ns: u64, action: Action<'_>, staging: &mut Staging);
    fn job(&self, job: &Job<'_>) -> Result<Vec<u8>, Fault>;
    /// Builds the instance anew, as a fresh process does.
    fn renew(&mut self) -> Result<(), String>;
}

/// Instance of a service, as a host builds it.
pub(super) struct Service<H> {
    handler: H,
    /// Settings, JSON.
    settings: String,
}

impl<H: Handler> Service<H> {
    /// Builds the service from its settings.
    pub(super) fn new(settings: &str) -> Result<Service<H>, String> {
        fault::install_hook();
        check::<H>()?;
        let handler = H::new(H::Config::read(settings.as_bytes())?)?;
        Ok(Service { handler, settings: settings.to_owned() })
    }
}

impl<H: Handler> Runs for Service<H> {
    fn name(&self) -> &'static str {
        H::SERVICE
    }
    fn version(&self) -> u32 {
        H::STATE_VERSION
    }
    fn framings(&self) -> Vec<Framing> {
        let more = |endpoint: &Endpoint| endpoint.framing;
        std::iter::once(H::FRAMING).chain(H::ENDPOINTS.iter().map(more)).collect()
    }
    fn run(&self, session: Option<Session<'_>>, now_ns: u64, action: Action<'_>, staging: &mut Staging) {
        let actions = std::iter::once(action);
        comparing(|| match session {
            Some(session) => run(&self.handler, session, actions, staging),
            None => run_service(&self.handler, now_ns, actions, staging),
        });
    }
    fn job(&self, job: &Job<'_>) -> Result<Vec<u8>, Fault> {
        fault::catch(|| self.handler.job(job))
    }
    fn renew(&mut self) -> Result<(), String> {
        *self = Service::new(&self.settings)?;
        Ok(())
    }
}
