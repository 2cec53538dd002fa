//! Runs jobs, a thread each, and posts how they ended. How many run at once is the core's to say.

use crate::admin::query::{Mailbox, Message};
use greenroom_core::core::Begun;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// The jobs that run.
#[derive(Default)]
pub struct Running {
    /// What tells each that nobody wants its result any more.
    cancelled: HashMap<u64, Arc<AtomicU32>>,
}

impl Running {
    /// Begins one.
    pub fn begin(&mut self, job: Begun, mailbox: Mailbox) {
        let Begun { number, name, input, work, .. } = job;
        let flag = Arc::new(AtomicU32::new(0));
        self.cancelled.insert(number, flag.clone());
        let done = mailbox.clone();
        let run = move || {
            let result = match work {
                Some(work) => work.run(&name, &input, &flag),
                None => Err("the build that serves has no jobs".into()),
            };
            done.post(Message::Job(number, result));
        };
        if let Err(e) = std::thread::Builder::new().name(format!("job {number}")).spawn(run) {
            mailbox.post(Message::Job(number, Err(format!("no thread can be started: {e}"))));
        }
    }

    /// Nobody wants this one's result any more.
    pub fn cancel(&self, number: u64) {
        if let Some(flag) = self.cancelled.get(&number) {
            flag.store(1, Ordering::Relaxed);
        }
    }

    /// It has ended.
    pub fn ended(&mut self, number: u64) {
        self.cancelled.remove(&number);
    }
}
