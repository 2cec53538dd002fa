//! Jobs: queued, running, finished, lost. Functions of a handler that may block, on other threads.
//!
//! A job is a record from the turn that asks for it until its result is one: so the result comes
//! exactly once, to the build that runs then. The body runs at least once, as a worker that dies in
//! the middle has a successor that begins it anew; a job declared `once` is lost instead. A job
//! that was running at two deaths that its worker caused is lost, too: it may have caused them.

use crate::ids::ServiceId;
use crate::store::kind::Kind;
use crate::store::layout::Ref;
use crate::store::records::Store;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Deaths of the worker after which a running job is lost.
const DEATHS_MAX: u8 = 2;
/// Bits that number the jobs of one pass: a pass can't start more.
const JOBS_PER_PASS_BITS: u32 = 20;
/// Bytes of a job's record beside its name and input.
const JOB_HEAD: usize = 16;

const ONCE: u8 = 1;
const STARTED: u8 = 2;

/// All jobs that have not ended.
#[derive(Debug, Default)]
pub(crate) struct Jobs {
    all: BTreeMap<u64, Job>,
    /// Jobs that wait for a thread, oldest first.
    queue: VecDeque<u64>,
    /// Threads taken.
    running: usize,
    /// Running jobs whose results nobody wants any more.
    abandoned: BTreeSet<u64>,
    /// Jobs whose beginning is committed with this pass.
    begun: Vec<u64>,
    last: u64,
    /// Whether none begins any more.
    held: bool,
}

#[derive(Debug)]
struct Job {
    /// Number of the session, or of the service.
    owner: u64,
    service: ServiceId,
    record: Ref,
    running: bool,
}

/// A job that a turn asks for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct NewJob<'a> {
    /// Number of the session, or of the service.
    pub(crate) owner: u64,
    pub(crate) service: ServiceId,
    pub(crate) number: u64,
    pub(crate) name: &'a str,
    pub(crate) input: &'a [u8],
    /// Whether it runs at most once.
    pub(crate) once: bool,
}

/// A job that begins now.
#[derive(Debug)]
pub(crate) struct BegunJob {
    pub(crate) number: u64,
    pub(crate) service: ServiceId,
    pub(crate) name: String,
    pub(crate) input: Vec<u8>,
}

/// A job that is over.
#[derive(Debug)]
pub(crate) struct EndedJob {
    /// Number of the session, or of the service.
    pub(crate) owner: u64,
    pub(crate) name: String,
}

/// A job that a successor must not begin again.
#[derive(Debug)]
pub(crate) struct LostJob {
    /// Number of the session, or of the service.
    pub(crate) owner: u64,
    pub(crate) service: ServiceId,
    pub(crate) name: String,
    pub(crate) why: &'static str,
}

/// A job that has not ended, as operators see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobView {
    /// Number of the job.
    pub number: u64,
    /// Name of its function.
    pub name: String,
    /// Whether it has a thread.
    pub running: bool,
}

/// A job's record: its number (u64, little-endian), service (u16), length of the name (u16), flags,
/// deaths that it saw, two bytes of nothing, the name, the input.
struct Record {
    number: u64,
    service: u16,
    flags: u8,
    deaths: u8,
    name: String,
    input: Vec<u8>,
}

impl Record {
    fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(JOB_HEAD + self.name.len() + self.input.len());
        bytes.extend_from_slice(&self.number.to_le_bytes());
        bytes.extend_from_slice(&self.service.to_le_bytes());
        bytes.extend_from_slice(&(self.name.len() as u16).to_le_bytes());
        bytes.extend_from_slice(&[self.flags, self.deaths, 0, 0]);
        bytes.extend_from_slice(self.name.as_bytes());
        bytes.extend_from_slice(&self.input);
        bytes
    }

    fn decode(bytes: &[u8]) -> Option<Record> {
        let (head, rest) = bytes.split_at_checked(JOB_HEAD)?;
        let short = |at: usize| u16::from_le_bytes([head[at], head[at + 1]]);
        let (name, input) = rest.split_at_checked(usize::from(short(10)))?;
        Some(Record {
            number: u64::from_le_bytes(head[..8].try_into().ok()?),
            service: short(8),
            flags: head[12],
            deaths: head[13],
            name: std::str::from_utf8(name).ok()?.to_owned(),
            input: input.to_vec(),
        })
    }
}

impl Jobs {
    /// Bytes of the record that [`Jobs::start`] writes.
    pub(crate) fn record_bytes(name_len: usize, input_len: usize) -> usize {
        JOB_HEAD + name_len + input_len
    }

    /// Number of the next job.
    pub(crate) fn next(&self) -> u64 {
        self.last + 1
    }

    /// Jobs that have not ended.
    pub(crate) fn len(&self) -> usize {
        self.all.len()
    }

    /// Jobs that run, and jobs that wait for a thread.
    pub(crate) fn counts(&self) -> (usize, usize) {
        (self.running, self.queue.len())
    }

    /// Whether the shell has jobs to begin.
    pub(crate) fn are_begun(&self) -> bool {
        !self.begun.is_empty()
    }

    /// Jobs of an owner that have not ended. O(jobs), of which there are few.
    pub(crate) fn count(&self, owner: u64) -> usize {
        self.all.values().filter(|j| j.owner == owner).count()
    }

    /// Queues a job. Room must be reserved.
    pub(crate) fn start(&mut self, store: &mut Store, new: &NewJob<'_>) {
        let NewJob { owner, service, number, .. } = *new;
        let flags = if new.once { ONCE } else { 0 };
        let (name, input) = (new.name.to_owned(), new.input.to_vec());
        let record = Record { number, service: service.0, flags, deaths: 0, name, input };
        let put = store.put(None, Kind::Job, owner, &record.encode());
        let record = put.expect("room was reserved before");
        self.last = self.last.max(number);
        self.all.insert(number, Job { owner, service, record, running: false });
        self.queue.push_back(number);
    }

    /// Whether an owner has this job, which has not ended.
    pub(crate) fn is_of(&self, owner: u64, number: u64) -> bool {
        self.all.get(&number).is_some_and(|j| j.owner == owner)
    }

    /// Drops a job. True: it runs, so its thread is to be told.
    pub(crate) fn drop_one(&mut self, store: &mut Store, number: u64) -> bool {
        let Some(job) = self.all.remove(&number) else { return false };
        store.delete(job.record);
        match job.running {
            true => _ = self.abandoned.insert(number),
            false => self.queue.retain(|n| *n != number),
        }
        job.running
    }

    /// Numbers of an owner's jobs. O(jobs).
    pub(crate) fn numbers(&self, owner: u64) -> Vec<u64> {
        self.all.iter().filter(|(_, j)| j.owner == owner).map(|(n, _)| *n).collect()
    }

    /// Begins as many jobs as may run at once, with the commit that follows. `has_code`: a job of a
    /// service that has no code now waits for it.
    pub(crate) fn begin(
        &mut self,
        store: &mut Store,
        running_max: usize,
        has_code: impl Fn(ServiceId) -> bool,
    ) {
        while self.running < running_max
            && !self.held
            && let Some(at) =
                self.queue.iter().position(|n| self.all.get(n).is_none_or(|j| has_code(j.service)))
            && let Some(number) = self.queue.remove(at)
        {
            let Some(job) = self.all.get_mut(&number) else { continue };
            let Some(record) = store.read(job.record, Record::decode) else { continue };
            let marked = Record { flags: record.flags | STARTED, ..record };
            // As long as it was. Without the mark a job that runs once might run again: then it
            // waits.
            match store.put(Some(job.record), Kind::Job, job.owner, &marked.encode()) {
                Ok(r) => job.record = r,
                Err(_) => return self.queue.push_front(number),
            }
            job.running = true;
            self.running += 1;
            self.begun.push(number);
        }
    }

    /// The jobs that begin, after a commit.
    pub(crate) fn take_begun(&mut self, store: &Store) -> Vec<BegunJob> {
        let begun = std::mem::take(&mut self.begun);
        for number in &begun {
            // Cancelled before it could begin: nobody will report its end.
            if self.abandoned.remove(number) {
                self.running -= 1;
            }
        }
        let with_input = begun.into_iter().filter_map(|number| {
            let job = self.all.get(&number)?;
            let Record { name, input, .. } = store.read(job.record, Record::decode)?;
            Some(BegunJob { number, service: job.service, name, input })
        });
        with_input.collect()
    }

    /// Lets no job begin from here on: a successor begins them.
    pub(crate) fn hold(&mut self) {
        self.held = true;
    }

    /// An owner's jobs.
    pub(crate) fn views(&self, store: &Store, owner: u64) -> Vec<JobView> {
        let name = |r| store.read(r, |b| Record::decode(b).map(|r| r.name)).unwrap_or_default();
        let own = self.all.iter().filter(|(_, j)| j.owner == owner);
        own.map(|(number, j)| JobView { number: *number, name: name(j.record), running: j.running }).collect()
    }

    /// Ends a job, and frees its thread. `None`: nobody waits for its result.
    pub(crate) fn end(&mut self, store: &mut Store, number: u64) -> Option<EndedJob> {
        let removed = self.all.remove(&number);
        if self.abandoned.remove(&number) || removed.as_ref().is_some_and(|j| j.running) {
            self.running -= 1;
        }
        let job = removed?;
        let name = store.read(job.record, |b| Record::decode(b).map(|r| r.name)).unwrap_or_default();
        store.delete(job.record);
        Some(EndedJob { owner: job.owner, name })
    }

    /// Takes in a job that recovery found. A double, one that can't be read, one of an unknown
    /// service and one without an owner alive are deleted.
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
        self.all.insert(found.number, Job { owner, service, record, running: false });
    }

    /// Numbers of a predecessor's jobs, before the first pass.
    pub(crate) fn found(&mut self, store: &Store) -> Vec<u64> {
        // No number is used again: a session that remembers one means that job.
        self.last = self.last.max(store.epoch() << JOBS_PER_PASS_BITS);
        self.all.keys().copied().collect()
    }

    /// Queues a predecessor's job again. `crashed`: the predecessor caused its own death. `Some`:
    /// the job must not begin again; it has not ended yet.
    pub(crate) fn restart(&mut self, store: &mut Store, number: u64, crashed: bool) -> Option<LostJob> {
        let job = self.all.get_mut(&number)?;
        let (owner, service, at) = (job.owner, job.service, job.record);
        let record = store.read(at, Record::decode)?;
        let started = record.flags & STARTED != 0;
        let deaths = record.deaths + u8::from(started && crashed);
        let why = match () {
            () if started && record.flags & ONCE != 0 => {
                "it was to run once, and the process that ran it has ended"
            }
            () if deaths >= DEATHS_MAX => "it was running at two deaths of the worker",
            () => "",
        };
        if !why.is_empty() {
            return Some(LostJob { owner, service, name: record.name, why });
        }
        let again = Record { flags: record.flags & !STARTED, deaths, ..record };
        if let Ok(r) = store.put(Some(at), Kind::Job, owner, &again.encode()) {
            job.record = r;
        }
        self.queue.push_back(number);
        None
    }
}
