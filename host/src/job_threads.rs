//! Runs jobs, one thread each, and posts their results. The core limits how many run at once.

use crate::mailbox::Mailbox;
use greenroom_core::core::Begun;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// A job that has ended.
pub struct JobEnd {
    /// Number of the job.
    pub number: u64,
    /// Result of the job, or the reason why there is none.
    pub result: Result<Vec<u8>, String>,
}

/// The jobs that run.
pub struct JobThreads {
    /// Destination of every [`JobEnd`].
    ends: Mailbox<JobEnd>,
    /// Flags that tell a job to give up, by the job's number.
    cancelled: HashMap<u64, Arc<AtomicU32>>,
}

impl JobThreads {
    /// Makes an empty set of jobs, which posts its results to `ends`.
    pub fn new(ends: Mailbox<JobEnd>) -> JobThreads {
        JobThreads { ends, cancelled: HashMap::new() }
    }

    /// Begins a job. If no thread can be started, the job ends with an error.
    pub fn begin(&mut self, job: Begun) {
        let Begun { number, name, input, work, .. } = job;
        let flag = Arc::new(AtomicU32::new(0));
        self.cancelled.insert(number, flag.clone());
        let ends = self.ends.clone();
        let run = move || {
            let result = match work {
                Some(work) => work.run(&name, &input, &flag),
                None => Err("the build that serves has no jobs".into()),
            };
            ends.post(JobEnd { number, result });
        };
        if let Err(e) = std::thread::Builder::new().name(format!("job {number}")).spawn(run) {
            self.ends.post(JobEnd { number, result: Err(format!("no thread can be started: {e}")) });
        }
    }

    /// Tells a job that its result is unwanted. The thread ends when the handler heeds that.
    pub fn cancel(&self, number: u64) {
        if let Some(flag) = self.cancelled.get(&number) {
            flag.store(1, Ordering::Relaxed);
        }
    }

    /// Forgets a job that has ended.
    pub fn forget(&mut self, number: u64) {
        self.cancelled.remove(&number);
    }
}
