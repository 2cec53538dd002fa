//! World of a seed: the host and its peers in virtual time, and the passes of the host's loop.

use crate::canaries::Canaries;
use crate::counts::Counts;
use crate::datagrams::Datagrams;
use crate::dialogues::Dialogues;
use crate::faults::KillPoint;
use crate::model::Subject;
use crate::mortals::Mortals;
use crate::peers::Network;
use crate::recorded::Recorder;
use crate::reloads::{Builds, LIBRARY};
use crate::roads::{ADDR, Road, SealedRecords, ciphers};
use crate::trace::Trace;
use greenroom::memory::board::Board;
use greenroom_core::command::Command;
use greenroom_core::core::Core;
use greenroom_core::effects::birth::SECRET_BYTES;
use greenroom_core::ids::{ServiceId, Slot};
use greenroom_core::input::Input;
use greenroom_core::limits::host::Limits;
use greenroom_core::limits::names::Limit;
use greenroom_core::limits::per_service::AllLimits;
use greenroom_core::limits::trusted::TrustedProxies;
use greenroom_core::reload::request::LibraryId;
use greenroom_state::abi::{self, fault};
use std::collections::BTreeMap;

/// Jobs that run at once, under every configuration of a run.
const JOBS_RUNNING_MAX: usize = 3;

/// Everything that a seed brings about.
pub(crate) struct World {
    pub(crate) rng: fastrand::Rng,
    pub(crate) subject: Subject,
    pub(crate) host: Host,
    pub(crate) network: Network,
    pub(crate) datagrams: Datagrams,
    pub(crate) dialogues: Dialogues,
    /// Records of TLS that the host sealed.
    pub(crate) sealed: SealedRecords,
    pub(crate) builds: Builds,
    pub(crate) canaries: Canaries,
    pub(crate) jobs: Jobs,
    pub(crate) limited: Limited,
    pub(crate) mortals: Mortals,
    pub(crate) counts: Counts,
    pub(crate) trace: Trace,
    /// Recorder of its turns.
    pub(crate) recorder: Recorder,
    /// The store is about to be overwritten, so that turns do not check their counters.
    pub(crate) damaged: bool,
}

/// The host under test: the core, and what a worker keeps around it.
pub(crate) struct Host {
    pub(crate) core: Core,
    pub(crate) board: Board,
    pub(crate) library: LibraryId,
    pub(crate) service: ServiceId,
    /// Configuration in force.
    pub(crate) limits: AllLimits,
    pub(crate) now_ns: u64,
    /// Time of the calendar: a millisecond goes by for each nanosecond above, and now and then the
    /// clock is set back.
    pub(crate) wall_ns: u64,
}

impl Host {
    fn new(limits: AllLimits, sealed: &SealedRecords) -> Host {
        let mut core = Core::new(limits.host.clone());
        core.set_limits(limits.clone());
        core.handle(Input::Ciphers(ciphers(sealed)));
        core.handle(Input::HostBegins { secret: [0; SECRET_BYTES], now_ns: 1 });
        let library = core.reloads.library("libsim.so".into());
        let board = Board::unread().expect("memory");
        Host { core, board, library, service: ServiceId(0), limits, now_ns: 1, wall_ns: 0 }
    }

    /// Begins a pass, a nanosecond after the last one.
    pub(crate) fn begin_pass(&mut self) {
        self.now_ns += 1;
        let set_back_ms = if self.now_ns.is_multiple_of(5) { 300 } else { 0 };
        self.wall_ns = (1_000_000 + self.now_ns - set_back_ms) * 1_000_000;
        self.core.handle(Input::WallClock { unix_ns: self.wall_ns });
        self.core.handle(Input::PassBegins { now_ns: self.now_ns });
    }

    /// Takes what the core asks the worker to do.
    pub(crate) fn take_commands(&mut self) -> Vec<Command> {
        let mut commands = Vec::new();
        self.core.take_commands(&mut commands);
        commands
    }

    /// Takes the slots that are to be sent to, in order.
    pub(crate) fn take_sendable(&mut self) -> Vec<Slot> {
        let mut sendable = Vec::new();
        self.core.take_sendable(&mut sendable);
        sendable
    }
}

/// Jobs of the service.
#[derive(Default)]
pub(crate) struct Jobs {
    /// Number and input of each job that runs.
    pub(crate) running: Vec<(u64, Vec<u8>)>,
    /// Starts of each job that is to run once, by its number.
    pub(crate) once: BTreeMap<u64, u32>,
}

/// Limits that the living core reached, as the world sees it and as the core reports it.
#[derive(Default)]
pub(crate) struct Limited {
    /// Connections that are no sessions, because there are enough.
    pub(crate) refused: u64,
    /// Reports of that.
    pub(crate) refusals_reported: u64,
    /// Sessions that the core reset because their peers left too much untaken.
    pub(crate) reset: u64,
    /// Reports of that.
    pub(crate) resets_reported: u64,
    /// Notices of that, with the number of bytes.
    pub(crate) resets_noticed: u64,
}

/// Proxies whose headers are believed: all peers.
pub(crate) fn proxies(subject: Subject) -> BTreeMap<String, TrustedProxies> {
    let peers = TrustedProxies::read(&["127.0.0.0/8".to_owned()]).expect("a network");
    BTreeMap::from([(subject.name().to_owned(), peers)])
}

/// Limits in force at the start of a seed: small ones for what a session may hold up, large ones
/// for what the model does not know.
fn first_limits(subject: Subject) -> AllLimits {
    let host = Limits {
        output_bytes_pause: 600,
        output_bytes_max: 1 << 20,
        store_bytes_max: 16 << 20,
        // Probations end by time alone.
        probation_turns: 0,
        probation_faults_max: 3,
        // Fewer than a flood has; no session has as many that it caused itself.
        actions_pending_max: 4,
        timers_per_session_max: 1 << 20,
        jobs_per_session_max: 1 << 20,
        jobs_max: 1 << 20,
        jobs_running_max: JOBS_RUNNING_MAX,
        connects_max: 1 << 20,
        names_per_session_max: 1024,
        turns_at_once_max: 5,
        pass_us: 5,
        sends_at_once_max: 2,
        tls_records_max: 30,
        // Peers over UDP are sent whatever their lines ask for.
        datagram_amplification_max: 0,
        ..Limits::default()
    };
    AllLimits { proxies: proxies(subject), ..AllLimits::from(host) }
}

impl World {
    /// Begins a world whose first build serves.
    pub(crate) fn new(seed: u64, subject: Subject) -> World {
        let sealed = SealedRecords::default();
        let mut world = World {
            rng: fastrand::Rng::with_seed(seed),
            subject,
            host: Host::new(first_limits(subject), &sealed),
            network: Network::default(),
            datagrams: Datagrams::default(),
            dialogues: Dialogues::of_seed(seed),
            sealed,
            builds: Builds::new(seed),
            canaries: Canaries::default(),
            jobs: Jobs::default(),
            limited: Limited::default(),
            mortals: Mortals::default(),
            counts: Counts::default(),
            trace: Trace::new(),
            recorder: Recorder::of_seed(seed),
            damaged: false,
        };
        world.reload_whole();
        world
    }

    // --- passes ---------------------------------------------------------------------------------

    /// Runs one pass of the loop, as the worker does. A `whole` one reads all that is there, and
    /// the host survives it.
    pub(crate) fn pass(&mut self, whole: bool) {
        self.record();
        self.host.begin_pass();
        self.read_peers(whole);
        if self.rng.u8(..) < 40 {
            // The place for input is full: what was read is committed and answered, and reading
            // continues in the same pass.
            self.commit();
            for slot in self.host.take_sendable() {
                self.send(slot);
            }
            self.send_datagrams();
            self.read_peers(whole);
        }
        self.end_pass(whole);
    }

    /// Reads what is ready: all, or a random part of a random half of the peers.
    fn read_peers(&mut self, whole: bool) {
        for at in 0..self.network.peers.len() {
            if whole || !self.rng.bool() {
                self.read_peer(at, whole);
            }
        }
        self.read_datagrams(whole);
    }

    /// Reads a peer's bytes, or the end of its stream, if the core wants input.
    fn read_peer(&mut self, at: usize, whole: bool) {
        let peer = &mut self.network.peers[at];
        let slot = peer.slot;
        if peer.road == Road::Udp {
            return self.read_datagrams_of(at, whole);
        }
        if peer.blocked && peer.from_host.len() < peer.room {
            peer.blocked = false;
            self.host.core.handle(Input::Writable { slot });
        }
        if !self.host.core.wants_input(slot) {
            return;
        }
        let n = if whole { peer.to_host.len() } else { self.rng.usize(0..=peer.to_host.len()) };
        let bytes: Vec<u8> = peer.to_host.drain(..n).collect();
        peer.read += bytes.len() as u64;
        peer.uncommitted.extend(&bytes);
        if !bytes.is_empty() {
            self.host.core.handle(Input::Received { slot, bytes: &bytes });
        } else if peer.done && peer.to_host.is_empty() && !peer.done_read {
            peer.done_read = true;
            self.host.core.handle(Input::PeerDone { slot });
        }
    }

    /// Commits, carries out commands, sends: in the worker's order. The process may die before
    /// each.
    fn end_pass(&mut self, whole: bool) {
        let killed = if whole { None } else { KillPoint::draw(&mut self.rng) };
        if killed == Some(KillPoint::Commit) {
            return self.kill(false);
        }
        self.commit();
        if killed == Some(KillPoint::Commands) {
            return self.kill(false);
        }
        let commands = self.host.take_commands();
        self.carry_out(commands);
        for (i, slot) in self.host.take_sendable().into_iter().enumerate() {
            if killed == Some(KillPoint::Send(i)) {
                return self.kill(false);
            }
            self.send(slot);
        }
        if killed.is_some() {
            return self.kill(false);
        }
        self.send_datagrams();
        self.follow_up();
    }

    /// Commits and carries out what sending brought about, until nothing is left.
    pub(crate) fn follow_up(&mut self) {
        loop {
            self.commit();
            let commands = self.host.take_commands();
            if commands.is_empty() {
                break;
            }
            self.carry_out(commands);
        }
        self.network.slots.pass_ended();
    }

    // --- stages of a pass -----------------------------------------------------------------------

    /// Commits, and starts the jobs and connections that count from here on.
    pub(crate) fn commit(&mut self) {
        self.host.core.handle(Input::Cascade);
        self.host.core.handle(Input::Commit);
        self.replay_recorded();
        self.committed();
        self.start_jobs();
        self.start_connects();
        self.host.core.take_reached(|limit, times| {
            self.trace.note("limit", &[times], limit.name().as_bytes());
            self.limited.refusals_reported += times * u64::from(limit == Limit::SessionsMax);
            self.limited.resets_reported += times * u64::from(limit == Limit::OutputBytesMax);
        });
    }

    /// Notes that all that was read counts from here on.
    pub(crate) fn committed(&mut self) {
        self.canary_is_committed();
        self.builds.convert = self.host.core.converts(LIBRARY);
        self.sealed.lock().expect("one thread").commit();
        for peer in &mut self.network.peers {
            peer.uncommitted.clear();
            peer.unborn = false;
            peer.lines.append(&mut peer.fresh);
        }
    }

    /// Starts the jobs that the commit released.
    fn start_jobs(&mut self) {
        for job in self.host.core.take_jobs() {
            self.trace.note(&job.name, &[job.number], &job.input);
            if job.name == "once" {
                let starts = self.jobs.once.entry(job.number).or_default();
                *starts += 1;
                assert_eq!(*starts, 1, "a job that is to run once ran again");
            }
            self.jobs.running.push((job.number, job.input));
        }
        assert!(self.jobs.running.len() <= JOBS_RUNNING_MAX, "limit jobs_running_max");
    }

    /// Begins the connections that the commit released.
    fn start_connects(&mut self) {
        for dial in self.host.core.take_connects() {
            self.trace.note("connect", &[dial.number], dial.target.addr.stored_text().as_bytes());
            // A successor asks again for connections that are open or being made.
            let open = self.network.peers.iter().any(|p| p.dialed == Some(dial.number));
            if !open && !self.network.dialing.contains(&dial.number) {
                assert_eq!(dial.target.addr.stored_text(), ADDR);
                self.network.dialing.push(dial.number);
            }
        }
    }

    /// Carries out the core's commands, in order.
    pub(crate) fn carry_out(&mut self, commands: Vec<Command>) {
        for command in commands {
            self.trace.command(&command);
            match command {
                Command::Shutdown(slot) => {
                    if let Some(at) = self.network.peer_or_ghost(slot) {
                        self.network.peers[at].shut = true;
                    }
                }
                Command::Reset(slot) => {
                    self.limited.reset += 1;
                    if let Some(at) = self.network.peer_or_ghost(slot) {
                        self.reset_by_host(at);
                    }
                    self.network.ghosts.push(slot);
                }
                Command::Close { slot, .. } => {
                    if let Some(at) = self.network.peer_or_ghost(slot) {
                        self.closed(at);
                    }
                    self.network.slots.release(slot);
                }
                Command::Fault { fault, answered_by: None, .. } if fault.kind == fault::STATE => {
                    self.counts.quarantined += 1;
                }
                // Another build may have taken its place in this pass.
                Command::ProbationEnd { build, record, proof }
                    if build.generation == self.builds.serving.generation =>
                {
                    self.probation_ended(&proof, &record);
                }
                Command::CanaryDue { build, verdict } => self.canary_is_due(&build, &verdict),
                Command::Notice { message, level, .. } => self.notice(&message, level),
                _ => {}
            }
        }
    }

    /// Checks what the core tells the operator. None is an error, in this world.
    fn notice(&mut self, message: &str, level: u32) {
        if message.contains(" is lost: ") {
            self.counts.jobs_lost += 1;
        } else if message.contains("limit output_bytes_max") {
            let left = message.split(' ').find_map(|word| word.parse().ok());
            let limit = self.host.limits.of(self.subject.name()).output_bytes_max;
            assert!(left.is_some_and(|n: usize| n > limit), "{message}, and it is {limit}");
            self.limited.resets_noticed += 1;
        } else {
            assert!(level > abi::level::ERROR, "{message}");
        }
    }

    /// Sends a session's output, until there is none or the kernel takes less than it is offered.
    pub(crate) fn send(&mut self, slot: Slot) {
        let Some(at) = self.network.peer_in(slot) else { return };
        if self.network.peers[at].road == Road::Udp {
            return self.send_datagrams_to(at);
        }
        let peer = &mut self.network.peers[at];
        loop {
            assert!(!peer.shut, "nothing is sent behind our end");
            let room = peer.room.saturating_sub(peer.from_host.len());
            let taken = self.host.core.output(slot, |pieces| {
                let bytes = pieces.concat();
                let n = bytes.len().min(room);
                peer.from_host.extend(&bytes[..n]);
                self.trace.note("sent", &[peer.id, bytes.len() as u64], &bytes[..n]);
                (n, n < bytes.len())
            });
            let Some((bytes, blocked)) = taken else { break };
            peer.blocked = blocked;
            peer.sent += bytes as u64;
            self.host.core.handle(Input::Sent { slot, bytes, blocked });
            if blocked {
                break;
            }
        }
    }
}
