//! Jobs: queued, running, finished, lost. Functions of a handler that may block, on other
//! threads.
//!
//! | job | event | becomes |
//! | --- | --- | --- |
//! | queued | a thread is free at a commit | running: the record is marked as started |
//! | running | the function has returned | ended: its result is an action |
//! | queued or running | its owner cancels it or ends | dropped: no result comes |
//! | queued or running | the worker died | queued anew by the successor, or lost |
//!
//! A job is one record from the turn that asks for it until its result is an action. The
//! same commit deletes the record and adds the action. So exactly one result comes, to the build
//! that serves then.
//!
//! The function may run more than once: if the worker dies, its successor begins the job anew. A
//! job that is declared `once` is lost instead, if it had begun. A job whose own thread crashed
//! twice is lost, too. So is one that was running at three deaths in a row that nobody else
//! explains, as a kill for memory. From the second one on these suspects begin one by one, and no
//! other job meanwhile. Each has twice the time in which its worker died: the third death finds the
//! job that causes them alone, and a job that outlives its time is no suspect.
//!
//! A dropped job keeps its thread until its function returns. `jobs_running_max` bounds the
//! threads; jobs wait for one. `jobs_max` and `jobs_per_session_max` bound the jobs. A turn that
//! asks for one more is refused. Each service has a share of `jobs_max`, whatever others have.
//!
//! Threads are shared by services: a free one goes to the service that has the fewest. A service
//! that has none gets one beyond `jobs_running_max`, since jobs of others may block for ever.

use crate::effects::job_forms::{BegunJob, EndedJob, JobView, LostJob, NewJob};
use crate::effects::job_record::{JOB_HEAD, ONCE, Record, STARTED};
use crate::effects::job_shares::{JobShares, RunningJob};
use crate::ids::ServiceId;
use crate::limits::host::Limits;
use crate::store::kind::Kind;
use crate::store::layout::Ref;
use crate::store::records::Store;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// Crashes of its own thread at which a job is lost.
const DEATHS_MAX: u8 = 2;
/// Deaths in a row, whoever caused them, at which a running job is lost.
const ROW_MAX: u8 = 3;
/// Time of serving, in milliseconds, within which a death goes on with a row.
const ROW_MS: u64 = 60_000;
/// Shortest time, in milliseconds, that a suspect begins alone.
const ALONE_MS: u64 = 2_000;
/// Bits of a number below the epoch. As long as a pass starts fewer than 2^20 jobs on average, a
/// successor that counts on from the epoch repeats no number.
const JOBS_PER_PASS_BITS: u32 = 20;

/// All jobs that have not ended.
#[derive(Debug, Default)]
pub(crate) struct Jobs {
    /// Jobs by number: queued or running.
    all: BTreeMap<u64, Job>,
    /// Owner and number of each.
    by_owner: BTreeSet<(u64, u64)>,
    /// Threads taken, and jobs that wait for one, by service.
    pub(crate) shares: JobShares,
    /// Jobs whose beginning is committed with this pass, or was and is not taken yet.
    begun: Vec<u64>,
    /// Highest number given so far.
    last: u64,
    /// Whether jobs wait in any case, as a successor is to begin them.
    held: bool,
    /// Jobs that may have killed the predecessors.
    suspects: BTreeSet<u64>,
    /// Suspect that has begun last, and the time by which it is one no more.
    alone: Option<(u64, u64)>,
    /// Time that each has, in nanoseconds.
    alone_ns: u64,
}

/// Death of a predecessor, as far as it says something of jobs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum JobDeath {
    /// No job is to blame.
    #[default]
    OfNone,
    /// The thread of this job crashed.
    Of(u64),
    /// Any job that ran may have caused it. The worker had served for so many milliseconds.
    OfAny(u64),
}

/// A job that has not ended. Name and input are in its record alone.
#[derive(Debug)]
struct Job {
    /// Number of the session, or of the service.
    owner: u64,
    service: ServiceId,
    record: Ref,
}

impl Jobs {
    /// Bytes of the record that [`Jobs::start`] writes.
    pub(crate) fn record_bytes(name_len: usize, input_len: usize) -> usize {
        JOB_HEAD + name_len + input_len
    }

    /// Number of the next job. A turn that fails leaves its numbers to later ones.
    pub(crate) fn next(&self) -> u64 {
        self.last + 1
    }

    /// Jobs that have not ended.
    pub(crate) fn len(&self) -> usize {
        self.all.len()
    }

    /// Whether the shell has jobs to begin.
    pub(crate) fn are_begun(&self) -> bool {
        !self.begun.is_empty()
    }

    /// Jobs of an owner that have not ended. O(its jobs).
    pub(crate) fn count(&self, owner: u64) -> usize {
        self.of(owner).count()
    }

    /// Numbers of an owner's jobs. O(its jobs + log jobs).
    fn of(&self, owner: u64) -> impl Iterator<Item = u64> {
        self.by_owner.range((owner, 0)..=(owner, u64::MAX)).map(|(_, number)| *number)
    }

    /// Jobs of a service: queued, running, and dropped ones that keep their thread.
    pub(crate) fn of_service(&self, service: ServiceId) -> usize {
        self.shares.of_service(service)
    }

    /// Queues a job: the turn that asks for it is applied. Room must be reserved. The job begins
    /// with a commit, at the earliest that of this pass.
    pub(crate) fn start(&mut self, store: &mut Store, new: &NewJob<'_>) {
        let NewJob { owner, service, number, .. } = *new;
        let flags = if new.once { ONCE } else { 0 };
        let (name, input) = (new.name.to_owned(), new.input.to_vec());
        let record = Record { number, service: service.0, flags, deaths: 0, row: 0, name, input };
        let put = store.put(None, Kind::Job, owner, &record.encode());
        let record = put.expect("room was reserved before");
        self.last = self.last.max(number);
        self.enter(number, Job { owner, service, record });
        self.shares.wait(service, number);
    }

    /// Enters a job into both indexes.
    fn enter(&mut self, number: u64, job: Job) {
        self.by_owner.insert((job.owner, number));
        self.all.insert(number, job);
    }

    /// Takes a job out of both indexes.
    fn take_out(&mut self, number: u64) -> Option<Job> {
        let job = self.all.remove(&number)?;
        self.by_owner.remove(&(job.owner, number));
        Some(job)
    }

    /// Whether an owner has this job, which has not ended.
    pub(crate) fn is_of(&self, owner: u64, number: u64) -> bool {
        self.all.get(&number).is_some_and(|j| j.owner == owner)
    }

    /// Drops a job and its record; no result comes. True: the job runs, so its thread is to be
    /// told. O(log jobs).
    pub(crate) fn drop_one(&mut self, store: &mut Store, number: u64) -> bool {
        let Some(job) = self.take_out(number) else { return false };
        store.delete(job.record);
        self.shares.drop_job(job.service, number)
    }

    /// Time at which a job that runs is late and has not been named. `None`: none will be.
    pub(crate) fn late_ns(&self, limits: &Limits) -> Option<u64> {
        self.shares.next_late_ns(limits.job_warn_ms)
    }

    /// Numbers of an owner's jobs. O(its jobs).
    pub(crate) fn numbers(&self, owner: u64) -> Vec<u64> {
        self.of(owner).collect()
    }

    /// Begins as many jobs as may run at once, with the commit that follows. Jobs wait while their
    /// service has no code (`has_code`). If the store has no room for a mark, the rest waits, too.
    /// O(services with jobs), and as much again for each job that begins.
    pub(crate) fn begin(
        &mut self,
        store: &mut Store,
        running_max: usize,
        now_ns: u64,
        has_code: impl Fn(ServiceId) -> bool,
    ) {
        while !self.held
            && !self.is_one_alone(store, now_ns)
            && let Some((service, number)) = self.shares.take_next(running_max, &has_code)
        {
            // A queued number is in `all`, and its record was encoded or checked by this
            // process: neither line fails.
            let Some(job) = self.all.get_mut(&number) else { continue };
            let Some(record) = store.read(job.record, Record::decode) else { continue };
            let marked = Record { flags: record.flags | STARTED, ..record };
            // The mark is a new block of the same size, for which no room was reserved. Without
            // the mark a job that runs once might run again in a successor, so the job waits
            // instead.
            match store.put(Some(job.record), Kind::Job, job.owner, &marked.encode()) {
                Ok(r) => job.record = r,
                Err(_) => return self.shares.wait(service, number),
            }
            self.shares.begin(number, RunningJob::new(service, job.owner, marked.name, now_ns));
            self.begun.push(number);
            if self.suspects.contains(&number) {
                self.alone = Some((number, now_ns.saturating_add(self.alone_ns)));
            }
        }
    }

    /// Whether a suspect has its time alone. One that has outlived it is none from here on.
    fn is_one_alone(&mut self, store: &mut Store, now_ns: u64) -> bool {
        let Some((number, until_ns)) = self.alone else { return false };
        let job = self.all.get_mut(&number);
        if job.is_some() && now_ns < until_ns {
            return true;
        }
        self.alone = None;
        self.suspects.remove(&number);
        // Without room, or a record that can be read, its row stays.
        if let Some(job) = job
            && let Some(record) = store.read(job.record, Record::decode)
            && let Ok(r) =
                store.put(Some(job.record), Kind::Job, job.owner, &Record { row: 0, ..record }.encode())
        {
            job.record = r;
        }
        false
    }

    /// Time by which jobs may begin that wait for a suspect. `None`: none has its time alone.
    pub(crate) fn alone_until_ns(&self) -> Option<u64> {
        self.alone.map(|(_, until_ns)| until_ns).filter(|_| !self.held)
    }

    /// The jobs that begin, after a commit. The shell gives each a thread, and reports its end.
    /// If the worker dies before that, the records say that the jobs have started.
    pub(crate) fn take_begun(&mut self, store: &Store) -> Vec<BegunJob> {
        let begun = std::mem::take(&mut self.begun);
        for number in &begun {
            // Dropped between the commit and this call: the job gets no thread, so no end will
            // be reported that frees its place.
            self.shares.end_if_dropped(*number);
        }
        let with_input = begun.into_iter().filter_map(|number| {
            let job = self.all.get(&number)?;
            let Record { name, input, .. } = store.read(job.record, Record::decode)?;
            Some(BegunJob { number, owner: job.owner, service: job.service, name, input })
        });
        with_input.collect()
    }

    /// Lets no job begin from here on: the worker hands over, and its successor begins them.
    pub(crate) fn hold(&mut self) {
        self.held = true;
    }

    /// An owner's jobs, as operators see them. O(its jobs).
    pub(crate) fn views(&self, store: &Store, owner: u64) -> Vec<JobView> {
        let name = |r| store.read(r, |b| Record::decode(b).map(|r| r.name)).unwrap_or_default();
        let own = self.of(owner).filter_map(|number| Some((number, self.all.get(&number)?)));
        own.map(|(number, j)| JobView {
            number,
            name: name(j.record),
            running: self.shares.is_running(number),
        })
        .collect()
    }

    /// Ends a job, deletes its record, and frees its thread. `None`: the job was dropped, so
    /// nobody waits for its result. The caller delivers the result in the same pass: one commit
    /// has both.
    pub(crate) fn end(&mut self, store: &mut Store, number: u64) -> Option<EndedJob> {
        self.shares.end(number);
        let job = self.take_out(number)?;
        let name = store.read(job.record, |b| Record::decode(b).map(|r| r.name)).unwrap_or_default();
        store.delete(job.record);
        Some(EndedJob { owner: job.owner, name })
    }

    /// Takes in a job that recovery found; [`Jobs::restart`] queues it. A double, one that can't
    /// be read, one of an unknown service and one without an owner alive are deleted.
    pub(crate) fn recover(
        &mut self,
        store: &mut Store,
        owner: u64,
        record: Ref,
        owner_lives: bool,
        services: usize,
    ) {
        let read = store.read(record, Record::decode);
        let sound = |r: &Record| {
            usize::from(r.service) < services && owner_lives && !self.all.contains_key(&r.number)
        };
        let Some(found) = read.filter(sound) else { return store.delete(record) };
        let service = ServiceId(found.service);
        self.last = self.last.max(found.number);
        self.enter(found.number, Job { owner, service, record });
    }

    /// Numbers of a predecessor's jobs, before the first pass. New jobs get numbers behind all
    /// that a predecessor gave.
    pub(crate) fn found(&mut self, store: &Store) -> Vec<u64> {
        // No number is used again: a session may keep the number of a job that has ended.
        self.last = self.last.max(store.epoch() << JOBS_PER_PASS_BITS);
        self.all.keys().copied().collect()
    }

    /// Service and owner of the job that killed the predecessor. `None`: none did, or it is gone.
    pub(crate) fn killer(&self, death: JobDeath) -> Option<(ServiceId, u64)> {
        let JobDeath::Of(number) = death else { return None };
        self.all.get(&number).map(|job| (job.service, job.owner))
    }

    /// Queues a predecessor's job again. `death`: how the predecessor ended.
    /// `Some`: the job must not begin again; the caller ends it. Repeatable: if this process
    /// dies before its first commit, the record is as the predecessor left it.
    pub(crate) fn restart(&mut self, store: &mut Store, number: u64, death: JobDeath) -> Option<LostJob> {
        let job = self.all.get_mut(&number)?;
        let (owner, service, at) = (job.owner, job.service, job.record);
        let record = store.read(at, Record::decode)?;
        let started = record.flags & STARTED != 0;
        let deaths = record.deaths + u8::from(started && death == JobDeath::Of(number));
        let row = match death {
            JobDeath::OfAny(ms) if started && ms < ROW_MS => record.row.saturating_add(1),
            JobDeath::OfAny(_) if started => 1,
            _ => record.row,
        };
        let why = match () {
            () if started && record.flags & ONCE != 0 => {
                "it was to run once, and the process that ran it has ended"
            }
            () if deaths >= DEATHS_MAX => "its thread crashed twice",
            () if row >= ROW_MAX => "it was running at three deaths of the worker in a row",
            () => "",
        };
        if !why.is_empty() {
            return Some(LostJob { owner, service, name: record.name, why });
        }
        let again = Record { flags: record.flags & !STARTED, deaths, row, ..record };
        // If there is no room, the old mark stays, and the job counts as started while it waits.
        // A job that is declared `once` never gets here with a mark.
        if let Ok(r) = store.put(Some(at), Kind::Job, owner, &again.encode()) {
            job.record = r;
        }
        self.shares.wait(service, number);
        if row + 1 == ROW_MAX {
            self.suspects.insert(number);
            let lived_ms = if let JobDeath::OfAny(ms) = death { ms } else { 0 };
            self.alone_ns = (2 * lived_ms).clamp(ALONE_MS, ROW_MS) * 1_000_000;
        }
        None
    }
}
