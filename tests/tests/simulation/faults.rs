//! Faults: a peer's reset, and the death of the host's process with its takeover.

use crate::mortals::Mortals;
use crate::peers::{Peer, Slots};
use crate::reloads::{LIBRARY, offer};
use crate::roads::{Road, ciphers};
use crate::world::{World, proxies};
use greenroom_core::command::Command;
use greenroom_core::core::Core;
use greenroom_core::core::Successor;
use greenroom_core::effects::birth::SECRET_BYTES;
use greenroom_core::effects::jobs::JobDeath;
use greenroom_core::ids::Slot;
use greenroom_core::input::Input;
use greenroom_core::limits::host::Limits;
use greenroom_core::limits::per_service::AllLimits;
use greenroom_core::recovery::rebuild::Survivor;
use greenroom_core::recovery::reconcile::StreamCounts;
use greenroom_core::service::offer::Build;
use greenroom_core::store::kind::Kind;
use greenroom_core::store::memory::Plain;
use greenroom_core::store::records::Store;
use std::collections::BTreeMap;

/// Stages of a pass before which the process may die. If the pass has fewer sends, the process
/// dies at its end.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum KillPoint {
    Commit,
    /// The core's commands are carried out.
    Commands,
    /// A send of the pass, counted from 0.
    Send(usize),
}

impl KillPoint {
    /// Draws whether the process dies in this pass, and when.
    pub(crate) fn draw(rng: &mut fastrand::Rng) -> Option<KillPoint> {
        (rng.u8(..) < 10).then(|| match rng.usize(0..6) {
            0 => KillPoint::Commit,
            1 => KillPoint::Commands,
            n => KillPoint::Send(n - 2),
        })
    }
}

/// Facts about a dead process that nobody but this test knows.
struct Dead {
    /// Commands that were not carried out.
    commands: Vec<Command>,
    hash: String,
    /// Builds that were rolled back converted for it.
    converts: bool,
    /// End of the probation that was going on.
    probation_until_ns: Option<u64>,
}

impl World {
    /// Breaks a peer's connection.
    pub(crate) fn break_connection(&mut self, at: usize) {
        let peer = self.network.peers.swap_remove(at);
        self.host.core.handle(Input::Broken { slot: peer.slot });
        let mut commands = self.host.take_commands();
        commands.iter().for_each(|c| self.trace.command(c));
        let closes = |c: &Command| matches!(c, Command::Close { slot, .. } if *slot == peer.slot);
        assert_eq!(commands.iter().filter(|c| closes(c)).count(), 1, "its slot is closed");
        commands.retain(|c| !closes(c));
        self.network.slots.release(peer.slot);
        // Other slots are closed only if their peers were turned away just before.
        self.carry_out(commands);
    }

    /// Lets the process hand over to another one, as an upgrade does. All is committed.
    pub(crate) fn upgrade(&mut self) {
        // Each costs as much as a kill, and forgets the reload under way.
        if self.rng.bool() {
            return self.time_passes();
        }
        self.host.core.handle(Input::HandOver);
        self.host.core.handle(Input::Commit);
        self.committed();
        self.counts.upgrades += 1;
        self.kill(true);
    }

    /// Kills the process here. Another one takes over with what the store, the kernel and its
    /// keeper know. `in_order`: the process has handed over before.
    pub(crate) fn kill(&mut self, in_order: bool) {
        self.sealed.lock().expect("one thread").died();
        let (dead, survivors) = self.replace_core();
        self.put_configuration_in_force();
        self.restore_builds(&dead);

        let death = match self.rng.u8(0..4) {
            _ if in_order => JobDeath::OfNone,
            0 if !self.jobs.running.is_empty() => {
                JobDeath::Of(self.jobs.running[self.rng.usize(0..self.jobs.running.len())].0)
            }
            n => JobDeath::OfAny(u64::from(n) * 30_000),
        };
        self.jobs.running.clear();
        self.host.core.restart_jobs(death);
        let missing = self.reconcile(&survivors, in_order);
        self.host.begin_pass();

        self.network.slots = Slots::in_use(survivors.len() as u32);
        self.network.ghosts.clear();
        let mut left: BTreeMap<u64, Slot> = survivors.iter().map(|s| (s.id, s.slot)).collect();
        for at in (0..self.network.peers.len()).rev() {
            let Peer { id, road, .. } = self.network.peers[at];
            if road == Road::Unix && !in_order {
                self.end_with_process(at);
                continue;
            }
            let session = left.remove(&id).map(|slot| (slot, missing[&id]));
            self.hand_over(at, session, &dead);
        }
        // A connection that broke just before comes back, and is found broken again. The session
        // of a Unix socket that nobody counted is told the same.
        for slot in left.into_values() {
            self.network.ghosts.push(slot);
            self.host.core.handle(Input::Broken { slot });
        }
        self.end_first_pass();
    }

    // --- records --------------------------------------------------------------------------------

    /// Recovers a core from the dead one's store.
    fn replace_core(&mut self) -> (Dead, Vec<Survivor>) {
        let service = &self.host.core.services()[0];
        self.counts.kills += 1;
        self.mortals = Mortals::default();
        self.counts.kills_in_sweep += u64::from(self.host.core.store().count(Kind::Drop) > 0);
        self.counts.turns += service.turns;
        self.counts.faults += service.faults;
        // A sweep that ended since is not committed, and neither is what it converted.
        let converts = self.builds.convert;
        let probation_until_ns = self.host.core.probation(LIBRARY).map(|p| p.until_ns);
        let hash = self.hash();

        let host = &mut self.host;
        let image = Plain::cut_after(host.core.store().image(), None);
        let limits = host.limits.host.clone();
        let found = Store::recover(Box::new(image), limits.store_bytes_max).expect("a store");
        let Successor { mut core, survivors, lost } = Core::recover(limits, found, host.now_ns);
        core.handle(Input::WallClock { unix_ns: host.wall_ns });
        assert_eq!(lost, Vec::<String>::new());

        // The dead core's reports of limits are lost, and so are the commands of its last pass.
        self.counts.resets += std::mem::take(&mut self.limited).reset;
        let commands = host.take_commands();
        commands.iter().for_each(|c| self.trace.command(c));
        host.core = core;
        self.recorder.worker_died();
        host.core.handle(Input::Ciphers(ciphers(&self.sealed)));
        // Another secret, which counts for a host that begins, and for no successor.
        let now_ns = host.now_ns;
        host.core.handle(Input::HostBegins { secret: [1; SECRET_BYTES], now_ns });
        (Dead { commands, hash, converts, probation_until_ns }, survivors)
    }

    /// Puts the configuration in force that the store recorded last.
    fn put_configuration_in_force(&mut self) {
        let records = self.host.core.host_records_from(Kind::Config, 0, usize::MAX);
        assert_eq!(records.len(), usize::from(self.counts.configured > 0), "configurations in force");
        if let Some((_, record)) = records.first() {
            let (host, services): (Limits, _) = serde_json::from_slice(record).expect("a configuration");
            assert_eq!(
                AllLimits { services, proxies: proxies(self.subject), ..AllLimits::from(host) },
                self.host.limits,
                "the configuration in force"
            );
        }
        self.host.core.set_limits(self.host.limits.clone());
    }

    /// Gives the core its code again: the serving build, the previous one, those that convert.
    fn restore_builds(&mut self, dead: &Dead) {
        let serving = self.builds.serving;
        let (library, generation) = (LIBRARY.into(), serving.generation);
        let build = Build { library, generation, hash: dead.hash.clone() };
        let code = self.code(&build, serving.unreadable);
        let core = &mut self.host.core;
        self.host.library = core.reloads.library("libsim.so".into());
        core.reloads.goes_on_with(self.host.library, build.clone(), None, self.builds.highest);
        // The reload under way belonged to the dead process.
        self.builds.candidate = None;
        core.go_on_with(&build, vec![(offer(self.subject, &serving), code)]);
        if !dead.converts {
            self.builds.converters.clear();
        }
        for converter in &self.builds.converters {
            let services = self.services_of(converter, true);
            self.host.core.go_on_converting(&converter.build, services);
        }
        self.begin_canary_again();
        let Some(until_ns) = dead.probation_until_ns else {
            // The build may have passed in the very pass that was cut off, unreported.
            self.builds.previous = None;
            return;
        };
        let previous = self.builds.previous.as_ref().expect("a build stood by");
        let services = self.services_of(previous, false);
        let core = &mut self.host.core;
        core.stand_by(&previous.build, services);
        core.begin_probation(&build, &previous.build, until_ns);
    }

    // --- connections ----------------------------------------------------------------------------

    /// Compares each session with what the kernel counted: the bytes that it must read again, by
    /// session.
    fn reconcile(&mut self, survivors: &[Survivor], in_order: bool) -> BTreeMap<u64, u64> {
        let mut missing = BTreeMap::new();
        let core = &mut self.host.core;
        for s in survivors {
            // A session without a peer broke just before, and is found broken again.
            let Some(peer) = self.network.peers.iter_mut().find(|p| p.id == s.id) else { continue };
            // The end of its stream is read again, unless that was committed.
            let session = core.sessions().get(s.slot).expect("a survivor");
            peer.done_read = session.peer_done;
            let (read, sent) = (session.bytes_in, session.bytes_out);
            let counts = match (peer.road, in_order) {
                (Road::Unix | Road::Udp, true) => StreamCounts::Recorded,
                (Road::Unix, false) => StreamCounts::Kernel { read, sent: None },
                // What was not sent may have been: it is dropped.
                (Road::Udp, false) => StreamCounts::Kernel { read, sent: Some(sent) },
                _ => StreamCounts::Kernel { read: peer.read, sent: Some(peer.sent) },
            };
            let bytes = core.reconcile(s.slot, counts).expect("it adds up");
            if peer.road == Road::Udp && !in_order {
                peer.lossy = true;
                self.counts.datagrams_lost += peer.fresh.drain(..).len() as u64;
            }
            self.trace.note("survivor", &[s.id, u64::from(s.slot.0), bytes], b"");
            missing.insert(s.id, bytes);
        }
        missing
    }

    /// Hands a peer's connection over. `session` is the slot of the session that was recovered,
    /// and the bytes that it must read again.
    fn hand_over(&mut self, at: usize, session: Option<(Slot, u64)>, dead: &Dead) {
        let peer = &mut self.network.peers[at];
        peer.blocked = false;
        let read_again = std::mem::take(&mut peer.uncommitted);
        let was_reset = |c: &Command| matches!(c, Command::Reset(slot) if *slot == peer.slot);
        if let Some((slot, missing)) = session {
            self.continue_session(at, slot, missing as usize, &read_again);
        } else if peer.unborn && peer.road == Road::Udp {
            // Its next datagram opens another session.
            self.network.peers.swap_remove(at);
        } else if peer.unborn {
            self.open_again(at, &read_again);
        } else if dead.commands.iter().any(was_reset) {
            self.reset_by_host(at);
            self.counts.resets += 1;
        } else {
            // Its end was committed; only the descriptor was still open.
            peer.done_read |= peer.done && peer.to_host.is_empty();
            self.closed(at);
        }
    }

    /// Ends the connection of a Unix socket: what it read of the dead process was to be sent.
    fn end_with_process(&mut self, at: usize) {
        self.read(at, true);
        self.network.peers.swap_remove(at);
        self.counts.unix_ended += 1;
    }

    /// Goes on with a session that was recovered: bytes that no commit covered are read again.
    fn continue_session(&mut self, at: usize, slot: Slot, missing: usize, read_again: &[u8]) {
        let peer = &mut self.network.peers[at];
        peer.slot = slot;
        let uncommitted = read_again.len();
        assert!(
            missing <= uncommitted,
            "session {}: {missing} bytes were read since the last commit",
            peer.id
        );
        let bytes = &read_again[uncommitted - missing..];
        peer.uncommitted = bytes.to_vec();
        if !bytes.is_empty() {
            self.host.core.handle(Input::Received { slot, bytes });
        }
    }

    /// Opens a connection anew that was accepted, and perhaps read, but never committed.
    fn open_again(&mut self, at: usize, read_again: &[u8]) {
        let slot = self.network.slots.take();
        let peer = &mut self.network.peers[at];
        peer.slot = slot;
        peer.done_read = false;
        peer.uncommitted = read_again.to_vec();
        self.open(at);
        self.check_admission(slot);
        if !read_again.is_empty() {
            self.host.core.handle(Input::Received { slot, bytes: read_again });
        }
    }

    /// Ends the first pass of the new process, which no kill interrupts.
    fn end_first_pass(&mut self) {
        self.commit();
        let commands = self.host.take_commands();
        self.carry_out(commands);
        for slot in self.host.take_sendable() {
            self.send(slot);
        }
        self.send_datagrams();
        self.follow_up();
    }
}
