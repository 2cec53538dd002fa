//! Start and cancel jobs, and ask for connections.
//!
//! A turn is told the number of a job or connection when it asks. The number holds if the turn
//! succeeds: effects of the batch are counted on from the last number that was given. Nothing
//! begins before the commit.

use super::staged_jobs::StagedJobs;
use super::staging::Staging;
use crate::limits::names::Limit;
use crate::tls::due::is_server_name;
use crate::turn::context::TurnContext;
use crate::turn::effect::Effect;
use greenroom_state::abi::status;

impl Staging<'_> {
    /// Lets a job run on another thread, and returns its number. Refused over the limits of
    /// names and of jobs, with a [`status`] as the error. O(jobs). `once`: at most
    /// once, rather than at least once.
    pub fn start_job(&mut self, name: &str, input: &[u8], once: bool) -> Result<u64, u32> {
        let TurnContext { limits, session, .. } = *self.context;
        if name.len() > limits.job_name_bytes_max {
            return Err(self.refuse(Limit::JobNameBytesMax));
        }
        let first = self.context.next_job();
        let jobs = self.staged_jobs(first);
        let (number, staged) = (first + jobs.started as u64, jobs.wanted());
        if self.context.jobs_len() + staged >= limits.jobs_max {
            return Err(self.refuse(Limit::JobsMax));
        }
        // A service's own jobs are bounded by `jobs_max` alone.
        if self.context.own_jobs() + staged >= limits.jobs_per_session_max && !session.is_service() {
            return Err(self.refuse(Limit::JobsPerSessionMax));
        }
        let staged = self.stage(|s| {
            let (name, input) = (s.copy(name.as_bytes())?, s.copy(input)?);
            Some(Effect::StartJob { number, name, input, once })
        });
        if staged == status::OK { Ok(number) } else { Err(staged) }
    }

    /// Counts of the jobs that this batch asks for.
    fn staged_jobs(&mut self, first: u64) -> &StagedJobs {
        let b = &mut *self.buffers;
        b.is_indexed = true;
        b.jobs.cover(&b.effects, first);
        &b.jobs
    }

    /// Cancels a job of this session, and its result. If the job is another session's or
    /// unknown, nothing happens.
    pub fn cancel_job(&mut self, number: u64) -> u32 {
        // The result may be among the actions that follow, so the batch ends.
        self.buffers.on_itself |= !self.context.depths.is_empty();
        self.stage(|_| Some(Effect::CancelJob(number)))
    }

    /// Opens a connection, which becomes a session of `service`, and returns its number. The new
    /// session gets `context` in its second action. The error is a [`status`]. An unserved
    /// service, one of WebSocket (the host is no client of it), and an unreadable address are
    /// invalid; `connects_max` is a limit.
    ///
    /// `over_tls`: the connection is one over TLS, and the server's certificate must have this
    /// name. A name that is none is invalid.
    pub fn connect(
        &mut self,
        service: &str,
        addr: &str,
        over_tls: Option<&str>,
        context: &[u8],
    ) -> Result<u64, u32> {
        if over_tls.is_some_and(|name| !is_server_name(name)) {
            return Err(status::INVALID);
        }
        let (Some(service), Ok(addr)) = (self.context.service_of(service), addr.parse()) else {
            return Err(status::INVALID);
        };
        let b = &mut *self.buffers;
        b.is_indexed = true;
        let staged = b.jobs.connects(&b.effects);
        if self.context.connections() + staged >= self.context.limits.connects_max {
            return Err(self.refuse(Limit::ConnectsMax));
        }
        let number = self.context.next_connection() + staged as u64;
        let staged = self.stage(|s| {
            let over_tls = match over_tls {
                Some(name) => Some(s.copy(name.as_bytes())?),
                None => None,
            };
            Some(Effect::Connect { number, service, addr, over_tls, context: s.copy(context)? })
        });
        if staged == status::OK { Ok(number) } else { Err(staged) }
    }
}
