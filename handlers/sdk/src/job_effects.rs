//! Jobs that a turn starts and cancels.

use crate::turn::Turn;
use greenroom_state::abi::JOB_ONCE;

impl<S> Turn<'_, S> {
    /// Starts a job: [`crate::Handler::job`] runs on another thread, where it may block. Its result
    /// comes back to this session as [`crate::Action::Job`], exactly once, in whatever build serves
    /// then. If the process dies meanwhile, the job runs again from its beginning. Returns its
    /// number.
    ///
    /// ```
    /// use greenroom_handler::testing::TestHost;
    /// use greenroom_handler::{Action, Handler, Job, JobEnd, Result, Turn, handler};
    ///
    /// struct Files;
    /// #[handler]
    /// impl Handler for Files {
    ///     const SERVICE: &'static str = "files";
    ///     /// Number of the job under way.
    ///     type State = Option<u64>;
    ///     fn message(&self, turn: &mut Turn<Option<u64>>, line: &[u8]) -> Result {
    ///         match (line, turn.state.take()) {
    ///             (b"stop", Some(number)) => turn.cancel_job(number),
    ///             (b"stop", None) => turn.send_line("nothing to stop"),
    ///             // Reads may be done twice. What may not: `start_job_once`.
    ///             (b"order", _) => *turn.state = Some(turn.start_job_once("order", line)),
    ///             (path, _) => *turn.state = Some(turn.start_job("read", path)),
    ///         }
    ///         Ok(())
    ///     }
    ///     fn job(&self, job: &Job) -> Result<Vec<u8>> {
    ///         Ok(std::fs::read(std::str::from_utf8(job.input)?)?)
    ///     }
    ///     fn other(&self, turn: &mut Turn<Option<u64>>, action: Action) -> Result {
    ///         if let Action::Job { end, .. } = action {
    ///             *turn.state = None;
    ///             match end {
    ///                 JobEnd::Done(bytes) => turn.send(bytes),
    ///                 JobEnd::Failed(why) | JobEnd::Lost(why) => turn.send_line(why),
    ///             }
    ///         }
    ///         Ok(())
    ///     }
    /// }
    ///
    /// let mut host = TestHost::<Files>::new("{}").unwrap();
    /// let peer = host.open();
    /// assert_eq!(host.line(peer, "/dev/null"), "");
    /// assert!(host.line(peer, "/no/such/file").starts_with("No such file"));
    /// host.hold_jobs();
    /// host.line(peer, "/dev/null");
    /// host.line(peer, "stop");
    /// assert_eq!(host.line(peer, "stop"), "nothing to stop\n");
    /// ```
    pub fn start_job(&mut self, name: &str, input: impl AsRef<[u8]>) -> u64 {
        let started = self.host.start_job(name, input.as_ref(), 0);
        self.started(started)
    }

    /// Starts a job that must not run twice: if the process dies meanwhile, the job is lost
    /// ([`crate::JobEnd::Lost`]).
    pub fn start_job_once(&mut self, name: &str, input: impl AsRef<[u8]>) -> u64 {
        let started = self.host.start_job(name, input.as_ref(), JOB_ONCE);
        self.started(started)
    }

    /// Returns the number of a job or connection; 0 if the host refused it, so that the turn fails.
    fn started(&mut self, started: Result<u64, u32>) -> u64 {
        started.unwrap_or_else(|status| {
            self.note_refusal("a job", status);
            0
        })
    }

    /// Cancels a job that this session started: it is not begun, or is told to stop, and its result
    /// does not come.
    pub fn cancel_job(&mut self, number: u64) {
        let status = self.host.cancel_job(number);
        self.note_refusal("to cancel a job", status);
    }
}
