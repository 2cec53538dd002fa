//! Threads of jobs: each job runs on its own thread and posts its result.
//!
//! The core decides which jobs run and how many at once; this file only starts threads. A
//! thread per job and no pool: a job may block for any time, and a pool's queue would wait
//! behind it. Each job that begins posts one [`JobEnd`], so the core's count of running jobs
//! comes down again. If the worker dies, its threads die with it, and the job's record is still
//! there.

use crate::mailbox::Mailbox;
use crate::sys::crash_thread;
use greenroom_core::command::Begun;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// End of a job: the loop passes it to the core, which makes an action of it.
pub struct JobEnd {
    /// Number of the job.
    pub number: u64,
    /// Result of the job, or the reason why there is none.
    pub result: Result<Vec<u8>, String>,
}

/// Jobs that run. Owned by the loop's thread.
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

    /// Begins a job on a thread of its own. Called after the commit that begins the job.
    ///
    /// If no thread can be started, the job ends with an error, by the same way as any other
    /// result. The library catches a panic of the job's function and returns it as the error.
    pub fn begin(&mut self, job: Begun) {
        let Begun { number, name, input, work, .. } = job;
        let flag = Arc::new(AtomicU32::new(0));
        self.cancelled.insert(number, flag.clone());
        let ends = self.ends.clone();
        let run = move || {
            crash_thread::runs_job(number);
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

    /// Tells a job that its result is unwanted. The thread ends when the handler heeds that; a
    /// thread cannot be stopped from outside. Does nothing if the job has ended.
    pub fn cancel(&self, number: u64) {
        if let Some(flag) = self.cancelled.get(&number) {
            // Relaxed: the flag is the only word that the threads share, so no other write
            // needs an order.
            flag.store(1, Ordering::Relaxed);
        }
    }

    /// Drops the flag of a job that has ended. Called when the loop takes its [`JobEnd`].
    pub fn forget(&mut self, number: u64) {
        self.cancelled.remove(&number);
    }
}
