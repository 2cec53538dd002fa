//! Succession: the start of a worker's process when none lives, and what follows from a death.
//!
//! At most one process of a worker lives at a time. A successor starts only once its predecessor is
//! reaped: two processes must never map the records together.
//!
//! | end of the process | what follows |
//! | --- | --- |
//! | with success, after it was told to hand over | the next start, at once |
//! | with success, after it was told to stop | the host ends well |
//! | before any process served, with a reason | the host ends with that reason |
//! | with a reason why it cannot serve | the next start, after a pause |
//! | the same, in a stop | a process that only saves |
//! | in a turn, by its own doing | a note against action and generation; the next start, at once |
//! | in a turn, by a kill from outside | a note against the action; the next start, as below |
//! | behind a turn, before its commit, by its own doing | the same |
//! | in its start, or by its own doing within 200 ms of serving | the next start, after a pause |
//! | otherwise | the next start, at once |
//!
//! The first pause is zero, and the longest 5 s. Beyond eight quick deaths in turns in a row, a
//! death in a turn pauses, too. A host that never served ends instead of a fourth pause.
//!
//! The verdict on actions and generations is the core's ([`Crashes`]). The keeper remembers the
//! deaths, and each first message carries the verdict.
//!
//! [`Crashes`]: greenroom_core::recovery::crashes::Crashes

use crate::keeper::Keeper;
use crate::keeper::deaths::Ended;
use crate::keeper::spawn::{self, Spawned};
use crate::memory::board_layout::Running;
use crate::memory::reading::Reading;
use crate::protocol::keeper::{Hello, TOO_FEW_FILES, ToKeeper};
use crate::protocol::link::Received;
use crate::sys::descriptors::are_used_up;
use greenroom_core::effects::action_name::action_name;
use greenroom_core::ids::public_number;
use greenroom_core::recovery::crashes::Death;
use std::collections::VecDeque;
use std::io;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Pauses, the first of zero, between starts of a host that never served. The next failed start
/// ends the host, which has no sessions to keep.
const FIRST_STARTS_MAX: u32 = 3;

/// Time without a worker after which connections are released for lack of descriptors. A lack is
/// often short: another process of the same user takes them, or a limit is lowered for a moment.
const LACK_MAX: Duration = Duration::from_secs(2);

/// Words for a death in a turn that came from outside.
const IN_A_TURN: &str = "ended in a turn";
/// Words for a crash behind a turn.
const BEHIND_A_TURN: &str = "died behind a turn that was not committed";

/// Whether a message counts although its sender has ended.
fn is_last_word(message: &ToKeeper) -> bool {
    matches!(
        message,
        ToKeeper::CantStart(_)
            | ToKeeper::Drop(_)
            | ToKeeper::NotSaved(_)
            | ToKeeper::Builds(..)
            | ToKeeper::Loads(_)
    )
}

impl Keeper {
    /// Starts the worker's next process, if it is due. Runs once in each round of the loop. If a
    /// stop was requested and nothing is to be saved, ends the host instead.
    pub(super) fn keep_a_worker(&mut self) {
        let now = Instant::now();
        if self.stop.is_over() || !self.worker.is_due(now) {
            return;
        }
        // A host that never served has nothing to flush or save. Behind the deadline, a successor
        // would have no time for it.
        if self.stop.deadline().is_some_and(|by| !self.worker.has_served() || by <= now) {
            return self.stop.end();
        }
        self.start_places.give();
        let started = self.start_worker();
        if started.is_err() {
            self.worker.abandon(self.poll.registry());
        }
        // Too few are kept until a later start, if others have taken some meanwhile.
        let _ = self.start_places.keep();
        if let Err(e) = started {
            if are_used_up(&e) {
                self.release_left();
            }
            self.cannot_start(format!("a worker process can't be started: {e}"));
        }
    }

    /// Releases the connections whose peers have left, if descriptors have been lacking for
    /// [`LACK_MAX`]. Their sessions end when a worker finds no connection for them. Until then they
    /// are the worker's to end: a peer that has ended its own direction may wait for answers.
    fn release_left(&mut self) {
        if self.worker.deaths().failures() == 0 || self.worker.deaths().gap() < LACK_MAX {
            return;
        }
        let released = self.acceptor.drop_left();
        if released > 0 {
            tracing::warn!(
                "{released} connections whose peers have left are released, for lack of descriptors"
            );
        }
    }

    /// Spawns a process and begins with it. After an error, the caller abandons the process.
    fn start_worker(&mut self) -> io::Result<()> {
        self.belongings.restore_builds();
        let spawned = match (&self.binary, self.options.in_process.take()) {
            (Some(binary), _) => spawn::start(binary)?,
            (None, Some(link)) => Spawned { process: None, link },
            // The worker of this process has ended, and no other can follow.
            (None, None) => {
                self.stop.end();
                return Ok(());
            }
        };
        self.acceptor.forget_who_asked();
        // The process is fresh.
        self.recycle_later = None;
        let hello = self.hello(None);
        let keys = if hello.only_saves { VecDeque::new() } else { self.acceptor.keys() };
        self.worker.begin(self.poll.registry(), spawned, &hello, keys)
    }

    /// Makes the first message for a process. `trial`: the epoch that a trial reads. Reads the
    /// clock, as a generation is blamed for deaths within limit `crash_window_ms` alone.
    pub(super) fn hello(&self, trial: Option<u64>) -> Hello {
        let log_levels = self.log_levels.in_force();
        Hello {
            host_number: self.options.host_number,
            incarnation: self.worker.incarnation(),
            config: self.options.config.clone(),
            found: self.options.found.clone(),
            copies: self.options.copies.clone(),
            save: self.options.save.clone(),
            log: log_levels.all.to_string(),
            blocked: self.crashes.blocked(),
            give_way: self.crashes.give_way(&self.options.config.limits, self.now_ms()),
            killed: self.crashes.killed(&self.options.config.limits, self.now_ms()),
            crashed: self.worker.deaths().has_crashed(),
            ports: self.worker.ports().to_vec(),
            trial,
            endpoint_last: self.worker.endpoint_last(),
            handed_over: self.worker.deaths().has_handed_over(),
            hears_refusals: true,
            hears_output: true,
            log_file: self.options.log_file.clone(),
            log_to: self.options.log_to.clone(),
            log_services: log_levels.services.iter().map(|(n, l)| (n.clone(), l.to_string())).collect(),
            holds_builds: true,
            knows_files: true,
            gives_up: true,
            hears_failures: true,
            starts_tls: true,
            only_saves: self.stop.saves_alone(),
            commits_each_turn: self.worker.deaths().crashed_behind_a_turn(),
            ended_loads: self.loads.that_ended(),
            job_death: self.worker.deaths().job_death(),
            crashes_outside: self.worker.deaths().crashes_outside(),
        }
    }

    /// Holds the builds of a library: its record names these private copies.
    pub(super) fn hold_builds(&mut self, library: PathBuf, copies: Vec<PathBuf>) {
        if self.belongings.hold(library, copies) {
            self.worker.deaths_mut().build_committed();
        }
    }

    /// Notes the build that runs of a library.
    pub(super) fn runs(&mut self, path: PathBuf, library: String, build: String) {
        if self.files.runs(path, library, build) {
            self.worker.deaths_mut().build_committed();
        }
    }

    /// Milliseconds since the keeper started: the clock of [`Death::at_ms`].
    fn now_ms(&self) -> u64 {
        self.started.elapsed().as_millis() as u64
    }

    /// Has a fresh process take over, for a reason that the worker gave.
    pub(super) fn recycle(&mut self, why: &str) {
        tracing::info!("the worker is recycled: {why}");
        self.hand_over();
    }

    /// Has the worker's process end in an orderly way, and another one take over. Does nothing if
    /// the host stops: no successor would follow.
    pub(super) fn hand_over(&mut self) {
        if !self.stop.is_requested() {
            self.worker.hand_over();
        }
    }

    /// Hears what a process said between the last look at its socket and its end.
    ///
    /// Reasons, releases and builds in use still count. Requests are left out: a successor repeats
    /// those that its records hold, and an answer would reach a process that did not ask. Ports and
    /// configuration are reported anew by the successor.
    fn hear_last_words(&mut self) {
        while let Some(Ok(received)) = self.worker.receive() {
            match received {
                Received::Message(message, _) if is_last_word(&message) => self.heard(message, &|_| {}),
                Received::Message(..) | Received::Unknown(_) => {}
                Received::Nothing | Received::Closed => return,
            }
        }
    }

    /// Puts away a process that has ended, and decides what comes next. Does nothing while the
    /// process lives. The checks come in the order of the table in the module's head, and each one
    /// relies on those before.
    pub(super) fn reap(&mut self) {
        let Some(status) = self.worker.exit_status() else { return };
        self.hear_last_words();
        self.unheard_since = None;
        let ended = self.worker.bury(self.poll.registry(), status);
        if self.stop.end_alone(status.success()) {
            return;
        }
        let handed_over = ended.handed_over();
        self.worker.deaths_mut().note_end(&ended);
        // A process that hands over may end before it reads that it is to stop: then nothing is
        // flushed or saved. Its successor does that, at no cost if it was done already.
        if self.stop.is_requested() && status.success() && self.worker.is_told_to_stop() && !handed_over {
            return self.stop.end_well();
        }
        if self.stop.has_failed() && !self.stop.is_requested() {
            // The first worker said why it cannot serve. A restart would fail the same way.
            return self.stop.end();
        }
        if handed_over {
            // All is committed, and a start is due at once.
            self.loads.handed_over();
            return;
        }
        if let Some(reason) = self.worker.deaths_mut().take_refusal() {
            if reason == TOO_FEW_FILES {
                self.release_left();
            }
            self.loads.ended(&reason, ended.board.loads(), false);
            return self.cannot_start(reason);
        }
        let own = self.note_death(&ended);
        // A turn that crashed is to blame, whatever another thread loads.
        let loads = ended.board.loads().filter(|_| !own || ended.running().is_none());
        let how = self.worker.deaths().last().unwrap_or_default().to_owned();
        if let Some(what) = self.loads.ended(&how, loads, true) {
            self.worker.deaths_mut().note(format!("{how}, while it loaded {what}"), own);
        }
        if let Some(by) = self.stop.deadline() {
            // A successor flushes and saves, while there is time. The failure stays noted until one
            // has done so.
            let why = self.worker.deaths().last().unwrap_or_default().to_owned();
            tracing::error!("the worker died before all was flushed and saved: {why}");
            self.stop.note_failure(format!("the worker was ended before its sessions were flushed: {why}"));
            let gives_up = self.stop.worker_died(ended.running().is_some());
            if !self.worker.has_served() || (by <= Instant::now() && !gives_up) {
                self.stop.end();
            } else if gives_up {
                self.cannot_start(why);
            } else if self.worker.deaths_mut().count(&ended, own) {
                match self.worker.deaths().failures() {
                    // A kill from outside may have hit the start: one more, at once.
                    0 => _ = self.worker.park(why),
                    _ => self.cannot_start(why),
                }
            }
            return;
        }
        if self.worker.deaths_mut().count(&ended, own) {
            let reason = self.worker.deaths().last().unwrap_or_default().to_owned();
            self.cannot_start(reason);
        }
    }

    /// Logs a death and notes its cause. Returns whether the process caused it itself. A generation
    /// is blamed only then: a single kill from outside says nothing about code.
    fn note_death(&mut self, ended: &Ended) -> bool {
        let (how, own) = ended.cause();
        let pid = ended.pid;
        match ended.running() {
            Some(running) if own => self.note_death_in_turn(ended, how, &running),
            running => {
                // An endless turn, or one that takes all memory, is found by kills in a row.
                match running {
                    Some(running) => self.note_in_row(ended, &how, &running, IN_A_TURN),
                    None => match ended.uncommitted() {
                        // It may have broken what the process needs. The first death may be
                        // another turn's, so successors commit each by itself.
                        Some(last) => self.note_in_row(ended, &how, &last, BEHIND_A_TURN),
                        None => self.crashes.note_other(),
                    },
                }
                tracing::error!(worker_pid = pid, "the worker died: {how}");
                self.worker.deaths_mut().note(how, own);
                // During the change of binaries, the upgrade waits for the old worker's end. If the
                // new one fails to start, `cannot_start` decides.
                if !self.is_swapping() {
                    self.fail_upgrade("the worker ended meanwhile; ask again");
                }
            }
        }
        own
    }

    /// Logs a death inside a turn, and counts it against the turn's action and generation. An
    /// upgrade is refused, even during the change of binaries: the new one ran the turn, too.
    fn note_death_in_turn(&mut self, ended: &Ended, how: String, running: &Running) {
        let pid = ended.pid;
        self.fail_upgrade("the worker ended meanwhile; ask again");
        let name = self.worker.service(running.service).map_or("?", |s| &s.name);
        let (generation, session, action) = (running.generation, running.session, running.action);
        tracing::error!(
            worker_pid = pid, service = %name, generation, session = public_number(session),
            action = action_name(action), turn = running.turn + 1,
            "the worker died in a turn: {how}"
        );
        let cause = format!(
            "{how}, in service {name}, generation {generation}, session {}, action {}",
            public_number(session),
            action_name(action)
        );
        self.worker.deaths_mut().note(cause, true);
        let death = self.death(&ended.board, how, running);
        self.crashes.note(death);
    }

    /// Logs a death in a turn by a kill from outside, or behind a turn, and counts it against the
    /// action: three in a row are its own. The system kills so for memory, and an operator a
    /// callback that does not end.
    fn note_in_row(&mut self, ended: &Ended, how: &str, running: &Running, what: &str) {
        let in_a_row = self.crashes.note_kill(self.death(&ended.board, how.to_owned(), running));
        let service = self.worker.service(running.service).map_or("?", |s| &s.name);
        tracing::warn!(
            worker_pid = ended.pid, %service, generation = running.generation,
            session = public_number(running.session), action = action_name(running.action),
            turn = running.turn + 1, in_a_row, "the worker {what}: {how}"
        );
    }

    /// Makes the note of a death in the middle of a turn. The counters are the process's last ones.
    pub(super) fn death(&self, board: &Reading, how: String, running: &Running) -> Death {
        let Running { service, generation, session, turn, action } = *running;
        let library = self.worker.service(service).map_or("?", |s| &s.library).to_owned();
        let committed = board.counts(usize::from(service)).map_or(0, |[_, turns, _]| turns);
        Death { at_ms: self.now_ms(), library, generation, session, turn, committed, action, how }
    }

    /// Parks the worker for a while that grows with each failure, or ends the host. During an
    /// upgrade, the previous binary is tried first, at once.
    ///
    /// Connections, memory files and waiting commands are kept meanwhile.
    pub(super) fn cannot_start(&mut self, reason: String) {
        if !self.worker.has_served()
            && self.binary.is_some()
            && self.worker.deaths().failures() >= FIRST_STARTS_MAX
        {
            return self.stop.fail(format!("no worker could be started: {reason}"));
        }
        if self.stop.is_requested() {
            let may = self.worker.has_served() && self.binary.is_some();
            if may && self.stop.save_alone(&reason, Instant::now() + self.stop_wait()) {
                tracing::error!("no worker can flush the sessions, and a process saves the tables: {reason}");
                return self.worker.retry_at_once(reason);
            }
            return self.stop.fail(format!("stopped, and nothing was flushed or saved: {reason}"));
        }
        if self.fall_back(&reason) {
            return;
        }
        let rest = self.worker.park(reason.clone());
        let when = if rest.is_zero() { "at once".to_owned() } else { format!("in {rest:?}") };
        tracing::error!(
            connections = self.acceptor.connections(),
            "no worker serves; all is kept, and one is tried again {when}: {reason}"
        );
    }
}
