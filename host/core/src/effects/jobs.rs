//! Jobs: functions of a handler that may block, run on threads of their own, and whose results come back as actions.
//!
//! A job is a record from the turn that asked for it until its result is one: so the result comes exactly once, to whatever build runs
//! then. The body runs at least once, as a worker that dies in the middle has a successor that begins it anew; declared `once`, it is
//! lost instead. A job that was running at two deaths that its worker had itself to blame for is lost, too: it may be what killed it.

use crate::command::Command;
use crate::core::Core;
use crate::effects::asked::{ACTION_HEAD, JOB_HEAD, Job};
use crate::ids::{ServiceId, Slot, told};
use crate::limits::names::Limit;
use crate::operate::inspect::JobView;
use crate::pass::deliver::{Data, PendingAction};
use crate::store::kind::Kind;
use crate::store::layout::Ref;
use crate::turn::code::Work;
use greenroom_state::abi::{action, job, level};
use std::sync::Arc;

/// A job that was running at so many deaths isn't run again.
const DEATHS_MAX: u8 = 2;

/// A pass can't start as many jobs as these bits count.
const JOBS_PER_PASS_BITS: u32 = 20;

const ONCE: u8 = 1;
const STARTED: u8 = 2;

/// A job that is to begin.
pub struct Begun {
    /// Its number.
    pub number: u64,
    /// Its service.
    pub service: ServiceId,
    /// Which function.
    pub name: String,
    /// What it works on.
    pub input: Vec<u8>,
    /// The code; `None`: the service has no jobs.
    pub work: Option<Arc<dyn Work>>,
}

/// A job's record: its number (u64, little-endian), service (u16), length of the name (u16), flags, deaths that it saw, two bytes of
/// nothing, the name, the input.
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

/// The beginning of a text.
fn cut(text: &str, bytes_max: usize) -> &[u8] {
    &text.as_bytes()[..text.floor_char_boundary(bytes_max)]
}

impl Core {
    /// Queues a job. There must be room.
    pub(crate) fn start_job(&mut self, slot: Slot, number: u64, name: &str, input: &[u8], once: bool) {
        let Some((owner, service)) = self.sessions.get(slot).map(|s| (s.id, s.service)) else { return };
        let flags = if once { ONCE } else { 0 };
        let (name, input) = (name.to_owned(), input.to_vec());
        let record = Record { number, service: service.0, flags, deaths: 0, name, input };
        let put = self.store.put(None, Kind::Job, owner, &record.encode());
        let record = put.expect("room was made sure of before");
        self.jobs.last = self.jobs.last.max(number);
        self.jobs.all.insert(number, Job { owner, service, record, running: false });
        self.jobs.queue.push_back(number);
        if self.jobs.running >= self.limits.jobs_running_max {
            self.reached(Limit::JobsRunningMax);
        }
    }

    /// Cancels a job that this session started, also if its result is waiting to be told.
    pub(crate) fn cancel_job(&mut self, slot: Slot, number: u64) {
        let Some(id) = self.sessions.get(slot).map(|s| s.id) else { return };
        if self.jobs.all.get(&number).is_some_and(|j| j.owner == id) {
            return self.drop_job(number);
        }
        self.cancel_result(slot, number);
    }

    fn drop_job(&mut self, number: u64) {
        let Some(job) = self.jobs.all.remove(&number) else { return };
        self.store.delete(job.record);
        if job.running {
            self.jobs.abandoned.insert(number);
            self.effects.push(Command::CancelJob(number));
        } else {
            self.jobs.queue.retain(|n| *n != number);
        }
    }

    /// A session ends, and nobody waits for what its jobs find out.
    pub(crate) fn drop_jobs(&mut self, slot: Slot) {
        if self.jobs.all.is_empty() {
            return;
        }
        let Some(id) = self.sessions.get(slot).map(|s| s.id) else { return };
        let own: Vec<u64> = self.jobs.all.iter().filter(|(_, j)| j.owner == id).map(|(n, _)| *n).collect();
        for number in own {
            self.drop_job(number);
        }
    }

    /// Before the commit: as many jobs as may run at once begin with it.
    pub(crate) fn begin_jobs(&mut self) {
        while self.jobs.running < self.limits.jobs_running_max
            && !self.stopping
            && !self.jobs.held
            && let Some(at) = self.jobs.queue.iter().position(|n| self.can_begin(*n))
            && let Some(number) = self.jobs.queue.remove(at)
        {
            let Some(job) = self.jobs.all.get_mut(&number) else { continue };
            let read = self.store.read(job.record, Record::decode);
            let Some(record) = read else { continue };
            let marked = Record { flags: record.flags | STARTED, ..record };
            // As long as it was. Without the mark a job that is to run once might run again: then it waits.
            match self.store.put(Some(job.record), Kind::Job, job.owner, &marked.encode()) {
                Ok(r) => job.record = r,
                Err(_) => return self.jobs.queue.push_front(number),
            }
            job.running = true;
            self.jobs.running += 1;
            self.jobs.begun.push(number);
        }
    }

    /// A job of a service that has no code now waits for it.
    fn can_begin(&self, number: u64) -> bool {
        let job = self.jobs.all.get(&number);
        job.is_none_or(|j| self.services[usize::from(j.service.0)].build.is_some())
    }

    /// The jobs that are to begin, after a commit.
    pub fn take_jobs(&mut self) -> Vec<Begun> {
        let begun = std::mem::take(&mut self.jobs.begun);
        for number in &begun {
            // It was cancelled before it could begin, and nobody will tell of its end.
            if self.jobs.abandoned.remove(number) {
                self.jobs.running -= 1;
            }
        }
        let with_input = begun.into_iter().filter_map(|number| {
            let job = self.jobs.all.get(&number)?;
            let Record { name, input, .. } = self.store.read(job.record, Record::decode)?;
            let work = self.services[usize::from(job.service.0)].code.work();
            Some(Begun { number, service: job.service, name, input, work })
        });
        with_input.collect()
    }

    /// From here on no job begins: a successor is to begin them.
    pub fn hold_jobs(&mut self) {
        self.jobs.held = true;
    }

    /// An owner's jobs.
    pub(crate) fn jobs_of(&self, owner: u64) -> Vec<JobView> {
        let name = |r| self.store.read(r, |b| Record::decode(b).map(|r| r.name)).unwrap_or_default();
        let own = self.jobs.all.iter().filter(|(_, j)| j.owner == owner);
        own.map(|(number, j)| JobView { number: *number, name: name(j.record), running: j.running }).collect()
    }

    /// How many jobs run now, and how many wait for a thread.
    pub fn jobs(&self) -> (usize, usize) {
        (self.jobs.running, self.jobs.queue.len())
    }

    /// A job is over: its result, or why there is none.
    pub(crate) fn job_done(&mut self, number: u64, result: Result<&[u8], &str>) {
        let (detail, data) = match result {
            Ok(bytes) if bytes.len() > self.limits.job_result_bytes_max => {
                self.reached(Limit::JobResultBytesMax);
                let why = &b"its result is too long (limit job_result_bytes_max)"[..];
                (job::FAILED, why)
            }
            Ok(bytes) => (job::DONE, bytes),
            Err(why) => (job::FAILED, cut(why, self.limits.job_result_bytes_max)),
        };
        self.end_job(number, detail, data);
    }

    fn end_job(&mut self, number: u64, detail: u32, data: &[u8]) {
        let removed = self.jobs.all.remove(&number);
        if self.jobs.abandoned.remove(&number) || removed.as_ref().is_some_and(|j| j.running) {
            self.jobs.running -= 1;
        }
        let Some(job) = removed else { return };
        let name = self.store.read(job.record, |b| Record::decode(b).map(|r| r.name)).unwrap_or_default();
        self.store.delete(job.record);
        let Some(slot) = self.sessions.slot_of(job.owner) else { return };
        let (detail, data) = match self.store.reserve([ACTION_HEAD + name.len() + data.len()]) {
            true => (detail, data),
            // A reserve is kept for what must not fail.
            false => {
                self.reached(Limit::StoreBytesMax);
                (job::FAILED, &b"no room for its result (limit store_bytes_max)"[..])
            }
        };
        let caused = PendingAction {
            kind: action::JOB,
            detail: detail as u16,
            from: number,
            depth: 0,
            name: &name,
            data: Data::Own(data),
        };
        self.cause(slot, &caused);
    }

    /// Takes a job that recovery found into the index.
    pub(crate) fn recover_job(&mut self, owner: u64, record: Ref) {
        let read = self.store.read(record, Record::decode);
        let services = self.services.len();
        let read = read.filter(|r| {
            usize::from(r.service) < services
                && self.sessions.slot_of(owner).is_some()
                && !self.jobs.all.contains_key(&r.number)
        });
        let Some(found) = read else { return self.store.delete(record) };
        let service = ServiceId(found.service);
        self.jobs.last = self.jobs.last.max(found.number);
        self.jobs.all.insert(found.number, Job { owner, service, record, running: false });
    }

    /// Begins the jobs anew that a predecessor had, but for those that must not be. `crashed`: it had itself to blame for its death.
    /// To be called once, before the first pass.
    pub fn restart_jobs(&mut self, crashed: bool) {
        // No number is used again: whoever remembers one means that job.
        self.jobs.last = self.jobs.last.max(self.store.epoch() << JOBS_PER_PASS_BITS);
        for number in self.jobs.all.keys().copied().collect::<Vec<_>>() {
            let Some(job) = self.jobs.all.get_mut(&number) else { continue };
            let (owner, service, at) = (job.owner, job.service, job.record);
            let Some(record) = self.store.read(at, Record::decode) else { continue };
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
                let message = format!("job {} is lost: {why}", record.name);
                let session = told(owner);
                self.effects.push(Command::Notice { level: level::ERROR, service, session, message });
                self.end_job(number, job::LOST, why.as_bytes());
                continue;
            }
            let again = Record { flags: record.flags & !STARTED, deaths, ..record };
            if let Ok(r) = self.store.put(Some(at), Kind::Job, owner, &again.encode()) {
                job.record = r;
            }
            self.jobs.queue.push_back(number);
        }
    }
}
