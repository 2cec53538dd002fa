//! How a worker begins: fresh, or as the successor of one that died, handed over, or was of another binary.
//!
//! A successor reads the records of the last commit, loads the private copies of the builds that ran, is given every connection, and
//! asks the kernel how far each one got. Then it runs what its predecessor had read and not committed, **and commits that before it
//! reads anything**: until then it may die too, and the next one finds the same.

use crate::admin::query::Answer;
use crate::admin::server;
use crate::crash_points;
use crate::crash_points::Point;
use crate::memory::board::Board;
use crate::memory::input::Pool;
use crate::memory::records::Region;
use crate::memory::snapshot::core_at;
use crate::plugin::ffi::library::Library;
use crate::plugin::prepare::Job;
use crate::protocol::keeper::{Hello, Link, ToKeeper, ToWorker, from_file};
use crate::sys::tcp;
use crate::worker::reload::build_records::library_records;
use crate::worker::reload::carry_out::Failed;
use crate::worker::reload::proposals;
use crate::worker::save::Saver;
use crate::worker::{LibraryRecord, OnProbation, RunningBuild, Worker, now_ns};
use crate::{logs, watchdog};
use greenroom_core::core::Core;
use greenroom_core::ids::ServiceId;
use greenroom_core::ids::Slot;
use greenroom_core::input::Input;
use greenroom_core::ledger::Outcome;
use greenroom_core::ledger::ProbationCounts;
use greenroom_core::recovery::rebuild::{Successor, Survivor};
use greenroom_core::reload::request::{By, LibraryId, Want};
use greenroom_core::service::offer::{Build, Serving};
use greenroom_core::store::kind::Kind;
use greenroom_core::store::layout::{Full, memory_bytes};
use greenroom_core::store::records::Store;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::mpsc::channel;
use std::time::Instant;
use tracing_subscriber::filter::LevelFilter;

/// The memory files that a worker is given.
struct Files {
    region: OwnedFd,
    input: OwnedFd,
    board: OwnedFd,
}

/// A connection as the keeper gave it.
struct Given {
    key: u32,
    number: u64,
    fd: OwnedFd,
}

/// What is to be done in the first pass.
#[derive(Default)]
struct Backlog {
    /// Input that was read and not committed.
    input: Vec<(Slot, Vec<u8>)>,
    /// Connections that were reset meanwhile.
    broken: Vec<Slot>,
    /// Connections that nobody served yet.
    fresh: Vec<Given>,
}

/// Serves, as the keeper at the other end of the socket says, until it says otherwise. An error says why it can't, and was told
/// the keeper.
pub fn serve(fd: OwnedFd, own_process: bool) -> Result<(), String> {
    let mut link = Link::<ToWorker, ToKeeper>::new(fd);
    let (hello, files) = match link.wait().map_err(|e| format!("the keeper: {e}"))? {
        Some((ToWorker::Hello, fds)) => {
            let [region, input, board, hello]: [OwnedFd; 4] =
                fds.try_into().map_err(|_| "the keeper gave no memory files")?;
            let hello = from_file::<Hello>(hello).map_err(|e| format!("what the keeper began with: {e}"))?;
            (hello, Files { region, input, board })
        }
        _ => return Err("this command is the host's own".into()),
    };
    let _log = own_process.then(|| logs::start(hello.log.parse().unwrap_or(LevelFilter::INFO)));
    if let Some(epoch) = hello.trial {
        let verdict = try_out(&hello, &files, epoch);
        link.send(&ToKeeper::Tried(verdict));
        return Ok(());
    }
    crash_points::arm();
    let mut early = Vec::new();
    let taken = take_connections(&mut link, &mut early);
    let prepared = taken.and_then(|given| Ok((given, open(&hello, &files)?)));
    let (given, (successor, pool, board)) = match prepared {
        Ok(all) => all,
        Err(why) => {
            link.send(&ToKeeper::CantStart(why.clone()));
            return Err(why);
        }
    };
    let Successor { mut core, survivors, lost } = successor;
    let hello = Hello { config: proposals::in_force(&core).unwrap_or(hello.config), ..hello };
    core.set_limits(hello.config.all_limits());
    for what in &lost {
        tracing::error!("given up, as it can't be trusted: {what}");
    }
    let saver = Saver::new(hello.save.clone(), hello.config.save.every_s, files.region);
    let mut worker = Worker::new(&hello, link, core, pool, board, saver, logs::abi_level())
        .map_err(|e| format!("the loop can't be started: {e}"))?;
    worker.patience = watchdog::start(board, files.board, &hello.config.limits, hello.copies.clone())
        .map_err(|e| format!("the watchdog can't be started: {e}"))?;
    // Before the connections that they tell of.
    let (dialed, early): (Vec<_>, Vec<_>) = early.into_iter().partition(|m| matches!(m, ToWorker::Dialed(_)));
    for message in dialed {
        worker.told(message, Vec::new());
    }
    if let Err(why) = worker.begin(&hello, survivors, given) {
        worker.link.send(&ToKeeper::CantStart(why.clone()));
        return Err(why);
    }
    for message in early {
        worker.told(message, Vec::new());
    }
    let ended = worker.run().map_err(|e| format!("the loop: {e}"));
    server::finish();
    ended
}

/// Receives connections until the keeper has given all. What else it says is for later.
fn take_connections(
    link: &mut Link<ToWorker, ToKeeper>,
    early: &mut Vec<ToWorker>,
) -> Result<Vec<Given>, String> {
    let mut given = Vec::new();
    loop {
        match link.wait().map_err(|e| format!("the keeper: {e}"))? {
            Some((ToWorker::Connections(connections), fds)) => {
                link.send(&ToKeeper::Took);
                if fds.len() < connections.len() {
                    let why = "this process may not have as many descriptors as there are connections; raise the limit of open files";
                    return Err(why.into());
                }
                let all = connections.into_iter().zip(fds);
                given.extend(all.map(|((key, number), fd)| Given { key, number, fd }));
            }
            Some((ToWorker::Start, _)) => return Ok(given),
            Some((
                message @ (ToWorker::Stop(_)
                | ToWorker::Unpin(_)
                | ToWorker::Changed(_)
                | ToWorker::ConnectFailed(..)
                | ToWorker::Dialed(_)),
                _,
            )) => early.push(message),
            Some((other, _)) => return Err(format!("the keeper said {other:?} too early")),
            None => return Err("the keeper is gone".into()),
        }
    }
}

/// Reads what a predecessor left, or makes what none did.
fn open(hello: &Hello, files: &Files) -> Result<(Successor, Pool, Board), String> {
    let failed = |what: &str, e: io::Error| format!("{what}: {e}");
    let limits = &hello.config.limits;
    let max = memory_bytes(limits.store_bytes_max);
    let duplicate = || files.region.try_clone().map_err(|e| failed("the record store", e));
    let length = rustix::fs::fstat(&files.region).map_err(|e| failed("the record store", e.into()))?.st_size;
    let mut lost = Vec::new();
    let mut successor = None;
    if length > 0 {
        let region = Region::open(duplicate()?, max).map_err(|e| failed("the record store", e))?;
        match Store::recover(Box::new(region), limits.store_bytes_max) {
            Ok(found) => successor = Some(Core::recover(limits.clone(), found, now_ns())),
            Err(why) => lost.push(format!("all sessions and tables: {why}")),
        }
    }
    let successor = match successor {
        Some(successor) => successor,
        None => {
            // Whatever is there is no store.
            rustix::fs::ftruncate(&files.region, 0).map_err(|e| failed("the record store", e.into()))?;
            let region = Region::open(duplicate()?, max).map_err(|e| failed("the record store", e))?;
            let store = Store::create(Box::new(region), limits.store_bytes_max)
                .map_err(|Full| "no memory for the record store".to_owned())?;
            Successor { core: Core::with_store(limits.clone(), store), survivors: Vec::new(), lost }
        }
    };
    let pool = Pool::open(&files.input).map_err(|e| failed("the input's memory", e))?;
    let board = Board::open(&files.board).map_err(|e| failed("the counters' memory", e))?;
    Ok((successor, pool, board))
}

impl RunningBuild {
    fn load(&self, hello: &Hello, board: Board) -> Result<Serving, String> {
        Library::load(&self.copy, &self.entry)
            .and_then(|library| {
                let settings = self.settings.clone().unwrap_or_else(|| hello.config.settings());
                library.create(&settings, logs::abi_level(), board)
            })
            .map_err(|e| {
                format!("{}, generation {}, from {}: {e}", self.library, self.generation, self.copy.display())
            })
    }
}

impl Worker {
    /// Everything before the first pass, and that pass.
    fn begin(&mut self, hello: &Hello, survivors: Vec<Survivor>, given: Vec<Given>) -> Result<(), String> {
        let begun = Instant::now();
        for withheld in &hello.withheld {
            self.core.withhold(withheld.clone());
        }
        crash_points::pass(Point::Recovered);
        let fresh = self.core.kept(Kind::Library).is_empty() && survivors.is_empty();
        match fresh {
            true => {
                self.read_saved();
                self.load_all(&hello.found.libraries)?;
            }
            false => self.go_on(hello)?,
        }
        self.core.restart_jobs(hello.crashed);
        let backlog = self.reconcile(survivors, given);
        crash_points::pass(Point::Reconciled);
        self.catch_up(backlog);
        self.board.say(&self.services());
        if !fresh {
            let ms = begun.elapsed().as_secs_f64() * 1000.0;
            tracing::info!(sessions = self.core.sessions().len(), "took over in {ms:.1} ms");
        }
        self.tell_of_configuration();
        self.link.send(&ToKeeper::Ready(self.ports.clone(), self.core.served()));
        Ok(())
    }

    /// Loads libraries for the first time. One that was named itself must load.
    fn load_all(&mut self, libraries: &[(PathBuf, bool)]) -> Result<(), String> {
        let mut answers = Vec::new();
        for (path, _) in libraries {
            let (reply, answer) = channel();
            let id = self.core.reloads.library(path.clone());
            self.request(vec![(id, None, Want::Load)], By::Start, false, Some(reply));
            answers.push(answer);
        }
        while self.core.reloads.is_busy() {
            self.pass().map_err(|e| format!("the loop: {e}"))?;
        }
        for (answer, (path, named)) in answers.iter().zip(libraries) {
            let report =
                answer.try_iter().find_map(|a| if let Answer::Report(r) = a { Some(r) } else { None });
            if let Some(report) = report
                && report.outcome == Outcome::Refused
                && *named
            {
                return Err(format!("{}: {}", path.display(), report.reason));
            }
        }
        for service in self.config.service.keys() {
            if !self.ports.iter().any(|p| p.port.0 == *service) {
                tracing::warn!("service {service} is configured, but no library offers it");
            }
        }
        Ok(())
    }

    /// Goes on with the builds and ports of a predecessor.
    fn go_on(&mut self, hello: &Hello) -> Result<(), String> {
        for number in 0..self.core.services().len() {
            let [_, turns, faults] = self.board.counted(number);
            self.core.count_on(ServiceId(number as u16), turns, faults);
        }
        let mut rolled_back = Vec::new();
        for record in library_records(&self.core)? {
            let library = record.current.library.clone();
            if self.go_on_with(hello, record)? {
                rolled_back.push(library);
            }
        }
        let recorded = self.core.kept(Kind::Ports).into_iter().next();
        match recorded.and_then(|(_, json)| serde_json::from_slice(&json).ok()) {
            Some(ports) => self.ports = ports,
            None => {
                tracing::error!("the record of the ports is lost; the keeper knows them");
                self.keep_ports(hello.ports.clone());
            }
        }
        for library in rolled_back {
            self.ports_follow(&library);
        }
        if !self.config.watch {
            return Ok(());
        }
        // What was built while no worker lived. Content that was seen before is left alone.
        let mut known: BTreeSet<_> = hello.found.libraries.iter().map(|(path, _)| path.clone()).collect();
        known.extend(self.records.values().map(|record| record.path.clone()));
        for dir in self.discover.clone() {
            for entry in std::fs::read_dir(&dir).into_iter().flatten().flatten() {
                let path = entry.path();
                if path.extension().is_some_and(|e| e == "so") && !known.contains(&path) {
                    self.job(Job::Probe(path));
                }
            }
        }
        for path in known {
            let id = self.core.reloads.library(path);
            self.request(vec![(id, None, Want::Load)], By::Watcher, false, None);
        }
        Ok(())
    }

    /// Goes on with what a library's record says: the build that ran, those that stand by, or the one that it has to give way to:
    /// then true.
    fn go_on_with(&mut self, hello: &Hello, mut record: LibraryRecord) -> Result<bool, String> {
        let id = self.core.reloads.library(record.path.clone());
        let build = record.current.build();
        let serving = record.current.load(hello, self.board)?;
        self.core.go_on_with(&build, serving);
        self.core.reloads.goes_on_with(id, build.clone(), record.seen(), record.highest);
        for converter in record.converters.clone() {
            match converter.load(hello, self.board) {
                Ok(serving) => self.core.go_on_converting(&converter.build(), serving),
                Err(why) => tracing::error!("what it left can't be converted: {why}"),
            }
        }
        let among =
            |all: &[(String, u64)]| all.iter().any(|(l, g)| *l == build.library && *g == build.generation);
        let why = match () {
            () if record.probation.is_some() && among(&hello.killed) => {
                Some("it killed a worker on probation")
            }
            () if among(&hello.give_way) => Some("it killed too many workers (limit crashes_max)"),
            () => None,
        };
        if let Some(why) = why
            && record.probation.is_none()
        {
            match record.before().cloned() {
                Some(before) => record.probation = Some(OnProbation { before, until_ns: 0, line: 0 }),
                None => tracing::error!(
                    "{}: generation {} stays: {why}, and none is before it",
                    build.library,
                    build.generation
                ),
            }
        }
        if let Some(OnProbation { before, until_ns, .. }) = &record.probation {
            match before.load(hello, self.board) {
                Ok(serving) => {
                    self.core.stand_by(&before.build(), serving);
                    self.core.begin_probation(&build, &before.build(), *until_ns);
                }
                Err(why) => {
                    tracing::error!("it can't stand by: {why}");
                    record.probation = None;
                }
            }
        }
        let on_probation = record.probation.is_some();
        self.write_record(id, record);
        match why {
            Some(why) if on_probation => self.give_way(id, &build, why),
            _ => Ok(false),
        }
    }

    /// Puts the build before back in charge, before the first pass.
    fn give_way(&mut self, id: LibraryId, build: &Build, why: &str) -> Result<bool, String> {
        if let Err(no_way) = self.core.can_roll_back(&build.library) {
            tracing::error!("{}: generation {} stays: {why}, and {no_way}", build.library, build.generation);
            return Ok(false);
        }
        let Some(before) = self.core.roll_back(&build.library) else { return Ok(false) };
        let line = self.rolled_back(id, &before);
        let failed =
            Failed { id, build: build.clone(), record: ProbationCounts::default(), why: why.to_owned() };
        self.tell_of_roll_back(&failed, line);
        Ok(true)
    }

    /// Puts every session back on its connection, and finds out how far that got.
    fn reconcile(&mut self, survivors: Vec<Survivor>, given: Vec<Given>) -> Backlog {
        let mut backlog = Backlog::default();
        let epoch = self.core.store().epoch() + 1;
        let mut slots: HashMap<u64, Slot> = survivors.iter().map(|s| (s.id, s.slot)).collect();
        let slots_used = survivors.iter().map(|s| s.slot.0 as usize + 1).max().unwrap_or(0);
        self.net.reserve(slots_used);
        let used: HashSet<Slot> = survivors.iter().map(|s| s.slot).collect();
        for slot in (0..slots_used as u32).map(Slot).filter(|s| !used.contains(s)) {
            self.net.give_back(slot);
        }
        let mut seen = HashSet::new();
        for Given { key, number, fd } in given {
            if !seen.insert(number) {
                // Handed over twice.
                continue;
            }
            let Some(slot) = slots.remove(&number) else {
                let own = u64::from(self.dialed.contains_key(&number));
                let untouched =
                    tcp::counts(&fd).is_ok_and(|c| c.read == 0 && c.sent.is_none_or(|n| n == own));
                if number > self.core.served() && untouched {
                    backlog.fresh.push(Given { key, number, fd });
                } else {
                    // Served and closed, but for the descriptor; or given up by name.
                    if number > self.core.served() {
                        tracing::error!(session = number, "given up: nothing is recorded of it");
                    }
                    self.drops.push((key, number));
                }
                continue;
            };
            match self.reconcile_one(slot, number, &fd, epoch, &mut backlog) {
                Ok(()) => {
                    let socket = mio::net::TcpStream::from_std(std::net::TcpStream::from(fd));
                    if let Err(e) = self.net.put(self.poll.registry(), slot, socket, key) {
                        tracing::error!(session = number, "its connection can't be taken in: {e}");
                        self.core.give_up(slot);
                        self.net.give_back(slot);
                        self.drops.push((key, number));
                    }
                }
                Err(why) => {
                    tracing::error!("given up, as it can't be trusted: {why}");
                    self.core.give_up(slot);
                    self.net.give_back(slot);
                    self.drops.push((key, number));
                }
            }
        }
        for (session, slot) in slots {
            tracing::error!(session, "given up: its connection is gone");
            self.core.give_up(slot);
            self.net.give_back(slot);
        }
        backlog
    }

    fn reconcile_one(
        &mut self,
        slot: Slot,
        number: u64,
        fd: &OwnedFd,
        epoch: u64,
        backlog: &mut Backlog,
    ) -> Result<(), String> {
        let Some(session) = self.core.sessions().get(slot) else { return Err("it is gone".into()) };
        let (bytes_in, bytes_sent) = (session.bytes_in, session.bytes_sent);
        // Of a connection that we have made, our SYN counts as a byte.
        let own_syn = u64::from(session.outbound);
        if crash_points::unreconciled() {
            let _ = self.core.reconcile(slot, bytes_in, Some(bytes_sent));
            return Ok(());
        }
        let counts = tcp::counts(fd).map_err(|e| format!("session {number}: {e}"))?;
        let sent = counts.sent.map(|n| n.saturating_sub(own_syn));
        let missing = self.core.reconcile(slot, counts.read, sent)?;
        if missing > 0 {
            match self.pool.find(number, bytes_in, missing as usize, epoch) {
                Some(bytes) => backlog.input.push((slot, bytes)),
                // A dead connection has nobody to wait for an answer.
                None if counts.broken => {}
                None => return Err(format!("session {number}: {missing} bytes of its input can't be found")),
            }
        }
        if counts.broken {
            self.broken.insert(slot);
            if counts.sent.is_none() {
                backlog.broken.push(slot);
            }
        }
        Ok(())
    }

    /// The first pass: what the predecessor had read, and connections that nobody served. Nothing new is read before this is
    /// committed.
    fn catch_up(&mut self, backlog: Backlog) {
        self.core.handle(Input::PassBegins { now_ns: now_ns() });
        for (slot, bytes) in &backlog.input {
            self.core.handle(Input::Received { slot: *slot, bytes });
        }
        for Given { key, number, fd } in backlog.fresh {
            if !self.open(key, number, fd) {
                self.drops.push((key, number));
            }
        }
        // The others are known by their records.
        self.dialed.clear();
        crash_points::pass(Point::CaughtUp);
        self.commit();
        self.carry_out();
        self.send();
        self.net.end_pass();
        self.tell_keeper();
        // What a reset connection still brought is read like any other's, up to its end.
        self.again.extend(backlog.broken);
        self.ready = true;
    }
}

/// Whether this binary could go on from what was committed with a pinned epoch: reads it all, and loads every build.
fn try_out(hello: &Hello, files: &Files, epoch: u64) -> Result<String, String> {
    let Successor { mut core, survivors, lost } = core_at(&files.region, &hello.config.limits, epoch)?;
    if let Some(what) = lost.first() {
        return Err(format!("it would have to give up {} things, first of all {what}", lost.len()));
    }
    let board = Board::unread().map_err(|e| e.to_string())?;
    let mut generations = BTreeMap::new();
    for record in library_records(&core)? {
        let serving = record.current.load(hello, board)?;
        core.go_on_with(&record.current.build(), serving);
        generations.insert(record.current.library, record.current.generation);
    }
    if let Some(s) = core.services().iter().find(|s| s.build.is_none() && s.sessions > 0) {
        return Err(format!("no library that it loads offers service {}", s.offer.name));
    }
    let entries: usize = core.store().count(Kind::Entry);
    let generations: Vec<_> = generations.iter().map(|(l, g)| format!("{l} {g}")).collect();
    Ok(format!(
        "{} sessions, {entries} table entries, generations {}",
        survivors.len(),
        generations.join(", ")
    ))
}
