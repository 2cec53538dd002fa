//! Shares of the threads that run jobs, by service.
//!
//! A free thread goes to the service that has the fewest. Of equals, the one whose job is the
//! oldest gets it. A service that has none gets one beyond the limit: jobs of others may block for
//! ever, and must not keep it out.
//!
//! A job that runs for long is named once. Counts are for operators, who see a job that blocks.

use crate::ids::ServiceId;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Threads taken, and jobs that wait for one.
#[derive(Debug, Default)]
pub(crate) struct JobShares {
    /// Share of each service that has jobs, or had some.
    services: BTreeMap<ServiceId, Share>,
    /// Threads taken, by the number of the job.
    running: BTreeMap<u64, RunningJob>,
    /// Running jobs that were not named as late: time of the beginning, and number, oldest first.
    /// Holds jobs that have ended, too, but none at the front.
    unnamed: VecDeque<(u64, u64)>,
    /// Whether the counts changed since they were last taken.
    changed: bool,
}

/// Share of one service.
#[derive(Debug, Default)]
struct Share {
    /// Jobs that wait for a thread, by number: the oldest is the first.
    queue: BTreeSet<u64>,
    /// Threads taken, those of dropped jobs included.
    running: usize,
}

/// A thread that is taken. Its job may have been dropped.
#[derive(Debug, Clone)]
pub(crate) struct RunningJob {
    pub(crate) service: ServiceId,
    /// Number of the session, or of the service.
    pub(crate) owner: u64,
    pub(crate) name: String,
    /// Whether its session is gone, or has cancelled it.
    pub(crate) dropped: bool,
    /// Time of the commit that began it, in nanoseconds.
    since_ns: u64,
}

impl RunningJob {
    /// A job that begins now.
    pub(crate) fn new(service: ServiceId, owner: u64, name: String, now_ns: u64) -> RunningJob {
        RunningJob { service, owner, name, dropped: false, since_ns: now_ns }
    }
}

/// Jobs of one service, as operators see them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JobCounts {
    /// Service whose jobs they are.
    pub service: ServiceId,
    /// Threads taken.
    pub running: usize,
    /// Jobs that wait for a thread.
    pub waiting: usize,
    /// Time when the oldest running job began, in nanoseconds; 0: none runs.
    pub oldest_ns: u64,
}

impl JobShares {
    /// Lets a job wait for a thread, behind the older ones of its service.
    pub(crate) fn wait(&mut self, service: ServiceId, number: u64) {
        self.services.entry(service).or_default().queue.insert(number);
        self.changed = true;
    }

    /// Takes the job that is to begin next, off the queue of its service. `has_code`: jobs of other
    /// services wait. `None`: none may begin. O(services that had jobs).
    pub(crate) fn take_next(
        &mut self,
        running_max: usize,
        has_code: impl Fn(ServiceId) -> bool,
    ) -> Option<(ServiceId, u64)> {
        let is_free = self.running.len() < running_max;
        let may = |(service, share): &(&ServiceId, &mut Share)| {
            (is_free || share.running == 0) && !share.queue.is_empty() && has_code(**service)
        };
        let shares = self.services.iter_mut().filter(may);
        let (service, share) = shares.min_by_key(|(_, s)| (s.running, s.queue.first().copied()))?;
        let number = share.queue.pop_first()?;
        self.changed = true;
        Some((*service, number))
    }

    /// Gives a job that was taken a thread.
    pub(crate) fn begin(&mut self, number: u64, job: RunningJob) {
        self.services.entry(job.service).or_default().running += 1;
        self.unnamed.push_back((job.since_ns, number));
        self.running.insert(number, job);
        self.changed = true;
    }

    /// Whether a job has a thread.
    pub(crate) fn is_running(&self, number: u64) -> bool {
        self.running.contains_key(&number)
    }

    /// Takes a job off its queue, or notes that nobody waits for its result. Returns whether it has
    /// a thread, which it keeps. O(log jobs of the service).
    pub(crate) fn drop_job(&mut self, service: ServiceId, number: u64) -> bool {
        self.changed = true;
        if let Some(running) = self.running.get_mut(&number) {
            running.dropped = true;
            return true;
        }
        if let Some(share) = self.services.get_mut(&service) {
            share.queue.remove(&number);
        }
        false
    }

    /// Frees the thread of a job, if it has one.
    pub(crate) fn end(&mut self, number: u64) {
        let Some(running) = self.running.remove(&number) else { return };
        if let Some(share) = self.services.get_mut(&running.service) {
            share.running -= 1;
        }
        while self.unnamed.front().is_some_and(|(_, n)| !self.running.contains_key(n)) {
            self.unnamed.pop_front();
        }
        self.changed = true;
    }

    /// Frees the thread of a job that was dropped.
    pub(crate) fn end_if_dropped(&mut self, number: u64) {
        if self.running.get(&number).is_some_and(|r| r.dropped) {
            self.end(number);
        }
    }

    /// Threads taken by a service, and its jobs that wait for one. O(log services).
    pub(crate) fn of_service(&self, service: ServiceId) -> usize {
        self.services.get(&service).map_or(0, |s| s.queue.len() + s.running)
    }

    /// Threads taken, and jobs that wait for one.
    pub(crate) fn counts(&self) -> (usize, usize) {
        (self.running.len(), self.services.values().map(|s| s.queue.len()).sum())
    }

    /// Counts of each service that has jobs, or had some, if any changed since the last call.
    /// O(services · threads).
    pub(crate) fn take_changed(&mut self) -> Vec<JobCounts> {
        if !std::mem::take(&mut self.changed) {
            return Vec::new();
        }
        let oldest_ns = |service| {
            let own = self.running.values().filter(|r| r.service == service);
            own.map(|r| r.since_ns).min().unwrap_or(0)
        };
        let counts = |(service, share): (&ServiceId, &Share)| {
            let (running, waiting) = (share.running, share.queue.len());
            JobCounts { service: *service, running, waiting, oldest_ns: oldest_ns(*service) }
        };
        self.services.iter().map(counts).collect()
    }

    /// Time at which the next job is late that has not been named, if jobs may run for `ms`.
    /// `None`: none will be, or `ms` is 0.
    pub(crate) fn next_late_ns(&self, ms: u64) -> Option<u64> {
        let (since_ns, _) = self.unnamed.front().filter(|_| ms > 0)?;
        Some(since_ns + ms * 1_000_000)
    }

    /// Takes a job that has been running for `ms`, once each. It goes on.
    pub(crate) fn take_late(&mut self, now_ns: u64, ms: u64) -> Option<RunningJob> {
        while self.next_late_ns(ms).is_some_and(|at| at <= now_ns) {
            let (_, number) = self.unnamed.pop_front()?;
            if let Some(job) = self.running.get(&number) {
                return Some(job.clone());
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: ServiceId = ServiceId(0);
    const B: ServiceId = ServiceId(1);

    /// Begins all jobs that may begin, and returns their numbers.
    fn begin(shares: &mut JobShares, running_max: usize) -> Vec<u64> {
        let mut begun = Vec::new();
        while let Some((service, number)) = shares.take_next(running_max, |_| true) {
            shares.begin(number, RunningJob::new(service, 7, format!("job {number}"), number));
            begun.push(number);
        }
        begun
    }

    #[test]
    fn each_service_has_a_share() {
        let mut shares = JobShares::default();
        (1..=4).for_each(|n| shares.wait(A, n));
        assert_eq!(begin(&mut shares, 2), [1, 2]);
        // All threads are taken by the other service.
        (5..=6).for_each(|n| shares.wait(B, n));
        assert_eq!(begin(&mut shares, 2), [5]);
        // The one that is free goes to the service that has fewer, although its job is younger.
        shares.end(1);
        shares.end(2);
        assert_eq!(begin(&mut shares, 2), [3]);
        shares.end(5);
        assert_eq!(begin(&mut shares, 2), [6]);
        assert_eq!(shares.counts(), (2, 1));
        let [a, b] = shares.take_changed()[..] else { panic!("two services") };
        assert_eq!((a.service, a.running, a.waiting, a.oldest_ns), (A, 1, 1, 3));
        assert_eq!((b.service, b.running, b.waiting, b.oldest_ns), (B, 1, 0, 6));
        assert_eq!(shares.take_changed(), []);
    }

    #[test]
    fn a_late_job_is_named_once() {
        let mut shares = JobShares::default();
        (1..=3).for_each(|n| shares.wait(A, n));
        begin(&mut shares, 3);
        shares.end(1);
        assert!(shares.drop_job(A, 2), "it keeps its thread");
        assert_eq!(shares.next_late_ns(5), Some(5_000_002));
        assert!(shares.take_late(5_000_001, 5).is_none());
        let late = shares.take_late(5_000_003, 5).unwrap();
        assert_eq!((late.name.as_str(), late.dropped), ("job 2", true));
        assert!(shares.take_late(5_000_003, 5).is_some_and(|late| !late.dropped));
        assert!(shares.take_late(u64::MAX, 5).is_none());
        assert_eq!((shares.next_late_ns(5), shares.next_late_ns(0)), (None, None));
    }
}
