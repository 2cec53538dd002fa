//! Random steps, one function each, and the end of a run.

use crate::model::Subject;
use crate::peers::{PEERS_MAX, Peer};
use crate::roads::Road;
use crate::world::World;
use greenroom_core::input::Input;
use greenroom_core::operate::inspect::Filter;
use std::collections::BTreeMap;
use std::iter::{once, repeat_n};

/// Nanoseconds of one step in which nothing else happens: less than any deadline, so that no
/// session times out.
const QUIET_NS: u64 = 1000;

/// Nanoseconds after which every timer of the service is due.
const ALL_TIMERS_NS: u64 = 100_000;

/// Rounds of a silence that is longer than any that a session is told of.
const SILENT_ROUNDS: usize = 15;

/// Rounds within which a run drains.
const DRAIN_ROUNDS: usize = 10_000;

/// Nanoseconds after which a silent peer over UDP is gone.
const UDP_IDLE_NS: u64 = 60_000_000_000;

type Step = fn(&mut World);

/// Steps with their weights. A step that has nothing to do takes another one's place.
const STEPS: [(u8, Step); 14] = [
    (8, World::peer_connects),
    (22, World::peer_writes),
    (30, World::host_runs_a_pass),
    (20, World::peer_reads),
    (2, World::peer_ends_its_stream),
    (1, World::peer_resets),
    (5, World::job_ends_or_reload_proceeds),
    (8, World::reload_proceeds),
    (2, World::take_away_and_put_back),
    (6, World::connect_ends),
    (2, World::operator_configures),
    (2, World::time_passes),
    (3, World::somebody_sends_datagrams),
    (1, World::upgrade),
];

/// Sum of the weights.
const WEIGHTS: u8 = {
    let (mut sum, mut at) = (0, 0);
    while at < STEPS.len() {
        sum += STEPS[at].0;
        at += 1;
    }
    sum
};

/// Whether a peer leaves without a word when a run ends.
fn says_nothing_at_the_end(peer: &Peer) -> bool {
    peer.road == Road::Udp && !peer.id.is_multiple_of(8)
}

impl World {
    /// Takes a random step, and checks the invariants.
    pub(crate) fn step(&mut self) {
        let mut drawn = self.rng.u8(0..WEIGHTS);
        for (weight, step) in STEPS {
            if drawn < weight {
                step(self);
                break;
            }
            drawn -= weight;
        }
        self.check();
    }

    /// Index of a random peer.
    fn any_peer(&mut self) -> Option<usize> {
        let peers = self.network.peers.len();
        (peers > 0).then(|| self.rng.usize(0..peers))
    }

    // --- peers ----------------------------------------------------------------------------------

    /// Opens a connection, unless there are enough.
    fn peer_connects(&mut self) {
        if self.network.peers.len() >= PEERS_MAX {
            return self.time_passes();
        }
        let at = self.arrive();
        let slot = self.network.peers[at].slot;
        self.open(at);
        self.check_admission(slot);
    }

    /// Writes up to 39 lines.
    fn peer_writes(&mut self) {
        if let Some(at) = self.any_peer() {
            self.write_lines(at);
        }
    }

    /// Reads some of what the kernel holds for a peer.
    fn peer_reads(&mut self) {
        if let Some(at) = self.any_peer() {
            self.read(at, false);
        }
    }

    /// Ends a stream: the peer writes no more, and the host finds out once it read everything.
    fn peer_ends_its_stream(&mut self) {
        if let Some(at) = self.any_peer() {
            let tells = self.rng.bool();
            self.network.peers[at].end(tells, &mut self.rng);
        }
    }

    /// Resets a connection. There is none over UDP.
    fn peer_resets(&mut self) {
        if let Some(at) = self.any_peer().filter(|at| self.network.peers[*at].road != Road::Udp) {
            self.break_connection(at);
        }
    }

    // --- host -----------------------------------------------------------------------------------

    /// Runs a pass, in which the process may die.
    fn host_runs_a_pass(&mut self) {
        self.pass(false);
    }

    /// Lets time pass between two passes.
    pub(crate) fn time_passes(&mut self) {
        self.host.now_ns += QUIET_NS;
    }

    /// Ends a random job, if one runs.
    fn job_ends_or_reload_proceeds(&mut self) {
        let running = self.jobs.running.len();
        if running == 0 {
            return self.reload_proceeds();
        }
        let at = self.rng.usize(0..running);
        self.end_job(at);
    }

    /// Ends a job. Whether the result counts before the next death is open.
    fn end_job(&mut self, at: usize) {
        let (number, input) = self.jobs.running.swap_remove(at);
        let result = [b"result of ", &input[..]].concat();
        let result = if self.rng.bool() { Ok(&result[..]) } else { Err("as asked") };
        self.host.core.handle(Input::JobDone { number, result });
    }

    /// Ends a random request for a connection, if there is one.
    fn connect_ends(&mut self) {
        let dialing = self.network.dialing.len();
        if dialing == 0 {
            return self.time_passes();
        }
        let at = self.rng.usize(0..dialing);
        self.end_connect(at);
    }

    /// Opens a connection that was asked for, or fails it; perhaps its session is gone.
    fn end_connect(&mut self, at: usize) {
        let number = self.network.dialing.swap_remove(at);
        if self.rng.u8(..) < 80 || self.network.peers.len() >= PEERS_MAX {
            return self.host.core.handle(Input::ConnectFailed { number, why: "as asked" });
        }
        let own = self.host.core.of_service(self.host.service, None).connects;
        let sessions = self.host.core.sessions_after(0, &Filter::default()).items;
        let wanted = sessions.iter().flat_map(|s| &s.connects).chain(&own).any(|c| c.number == number);
        let at = self.arrive_dialed(number);
        let slot = self.network.peers[at].slot;
        self.open(at);
        if wanted {
            self.counts.connected += 1;
            self.check_admission(slot);
        } else {
            self.network.turn_away(slot);
        }
    }

    // --- operator -------------------------------------------------------------------------------

    /// Does the next step of the reload under way, or begins one.
    fn reload_proceeds(&mut self) {
        if self.builds.candidate.is_some() {
            self.step_reload();
        } else if !self.canary_proceeds() {
            self.begin_random_reload();
        }
    }

    /// Puts other limits in force between two passes. Nothing of it is sent before the commit.
    fn operator_configures(&mut self) {
        let limits = self.other_limits();
        self.configure(limits);
        self.follow_up();
    }

    // --- end ------------------------------------------------------------------------------------

    /// Runs the world to its end: every line is answered, every session closed, nothing left.
    pub(crate) fn drain(&mut self) {
        // Turns that are watched run one by one, so they take more passes than the rounds below.
        self.end_record();
        self.reload_whole();
        // The shipped service asks for no silence.
        if self.subject == Subject::Script {
            self.fall_silent();
        }
        for _ in 0..DRAIN_ROUNDS {
            if self.network.peers.iter().all(says_nothing_at_the_end)
                && self.jobs.running.is_empty()
                && self.network.dialing.is_empty()
            {
                break;
            }
            self.drain_round();
        }
        self.silent_peers_time_out();
        let left: Vec<_> = self.network.peers.iter().map(|p| (p.id, p.road, p.framing.kind())).collect();
        assert_eq!(left, [], "every session came to its end");
        self.drain_service_turns();
        self.check_end();
        self.count_up();
    }

    /// Lets no peer write for longer than any silence that a session is told of. What was written
    /// before is run first.
    fn fall_silent(&mut self) {
        let (mut earlier, mut before) = (BTreeMap::new(), BTreeMap::new());
        for _ in 0..3 {
            earlier = std::mem::replace(&mut before, self.silences());
            for _ in 0..SILENT_ROUNDS {
                self.time_passes();
                self.pass(true);
                for at in (0..self.network.peers.len()).rev() {
                    self.read(at, true);
                }
                // A session that is not read meanwhile, or hears what was late, has another one.
                let now = self.silences();
                before.retain(|id, silence| now.get(id).is_some_and(|now| now.heard == silence.heard));
            }
        }
        self.counts.silences += self.check_silence(&earlier, &before);
    }

    /// Ends every job, and fails every connection that was asked for.
    fn fail_what_was_asked_for(&mut self) {
        while let Some(number) = self.network.dialing.pop() {
            self.host.core.handle(Input::ConnectFailed { number, why: "as asked" });
        }
        while !self.jobs.running.is_empty() {
            self.end_job(0);
        }
    }

    /// Lets every peer end its stream, every job and connection end, and everything be read.
    fn drain_round(&mut self) {
        self.time_passes();
        while !self.network.dialing.is_empty() {
            self.end_connect(0);
        }
        for peer in &mut self.network.peers {
            peer.end(self.rng.bool(), &mut self.rng);
            // What was lost is said again.
            if peer.road == Road::Udp && !says_nothing_at_the_end(peer) {
                peer.datagrams.push_back("bye 0".into());
            }
        }
        while !self.jobs.running.is_empty() {
            self.end_job(0);
        }
        self.pass(true);
        for at in (0..self.network.peers.len()).rev() {
            self.read(at, true);
        }
        self.check();
    }

    /// Lets the peers be silent that are left, all over UDP, until each session is over. Another
    /// process, which may take over meanwhile, goes on with the same silence. A session that the
    /// host reads nothing of has its silence begun anew when it is read again.
    fn silent_peers_time_out(&mut self) {
        let sessions = self.network.peers.len();
        self.host.now_ns += UDP_IDLE_NS - ALL_TIMERS_NS;
        self.pass(true);
        self.check();
        assert_eq!(self.network.peers.len(), sessions, "no session ends before its time");
        self.network.peers.iter_mut().for_each(|peer| peer.silent = true);
        if self.rng.bool() {
            self.kill(false);
            self.pass(true);
        }
        // A session whose timers keep it busy when its time is over has that time again.
        for silence_ns in once(2 * ALL_TIMERS_NS).chain(repeat_n(UDP_IDLE_NS, DRAIN_ROUNDS)) {
            if self.network.peers.is_empty() {
                break;
            }
            self.host.now_ns += silence_ns;
            for _ in 0..DRAIN_ROUNDS {
                // A session that waits for a job expects nothing of its peer.
                self.fail_what_was_asked_for();
                self.pass(true);
                for at in (0..self.network.peers.len()).rev() {
                    self.read(at, true);
                }
                let is_due = self.host.core.next_wake_ns().is_some_and(|at| at <= self.host.now_ns);
                if !is_due && self.network.dialing.is_empty() && self.jobs.running.is_empty() {
                    break;
                }
            }
        }
        self.counts.timed_out += (sessions - self.network.peers.len()) as u64;
    }

    /// Fires the service's own timers, and fails the connections that they ask for.
    fn drain_service_turns(&mut self) {
        self.host.now_ns += ALL_TIMERS_NS;
        self.pass(true);
        self.fail_what_was_asked_for();
        self.pass(true);
        while self.host.core.next_wake_ns() == Some(0) {
            self.pass(true);
        }
    }

    /// Adds what only the end of a run can tell to the counts.
    fn count_up(&mut self) {
        let service = &self.host.core.services()[0];
        self.counts.turns += service.turns;
        self.counts.faults += service.faults;
        self.counts.resets += self.limited.reset;
        self.counts.jobs_once += self.jobs.once.len() as u64;
        self.counts.sealed += self.sealed.lock().expect("one thread").len() as u64;
        self.counts.missed += self.counters_of("missed:").iter().map(|(_, n)| n).sum::<u64>();
        self.counts.actions += self.counters_of("acts:").iter().map(|(_, n)| n).sum::<u64>();
    }
}
