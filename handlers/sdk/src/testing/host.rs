//! Host in memory: its sessions, its time, and the run of its turns.

use super::services::{Runs, Service};
use super::shared::{EPOCH, Shared};
use super::turn::SERVICE;
use crate::action::Action;
use crate::convert::convert;
use crate::handler::Handler;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

/// Host in memory, with sessions of one service.
///
/// Jobs run at once, when the turn that started them is over; timers fire when
/// [`TestHost::advance`] says so. Messages come and go without framing.
///
/// ```
/// use greenroom_handler::testing::TestHost;
/// use greenroom_handler::{Action, Endpoint, Fault, Handler, Job, Migrations};
/// use greenroom_handler::{Result, Turn, handler};
/// use std::time::Duration;
///
/// struct Old;
/// #[handler]
/// impl Handler for Old {
///     const SERVICE: &'static str = "eggs";
///     const ENDPOINTS: &'static [Endpoint] = &[Endpoint::telnet(4023), Endpoint::udp(4024)];
///     type State = u64;
///     fn message(&self, turn: &mut Turn<u64>, line: &[u8]) -> Result {
///         match line {
///             b"boil" => turn.set_timer("done", Duration::from_secs(300)),
///             b"buy" => _ = turn.start_job("market", line),
///             _ => return Err(Fault::new("no such command")),
///         }
///         Ok(())
///     }
///     fn timer(&self, turn: &mut Turn<u64>, _: &str) -> Result {
///         *turn.state += 1;
///         turn.send_line(format!("{} eggs", *turn.state));
///         Ok(())
///     }
///     fn job(&self, _: &Job) -> Result<Vec<u8>> {
///         Ok(b"bought".into())
///     }
///     fn other(&self, turn: &mut Turn<u64>, action: Action) -> Result {
///         if let Action::Job { end, .. } = action {
///             turn.send_line(format!("{end:?}"));
///         }
///         Ok(())
///     }
///     fn handle_service(&self, turn: &mut Turn, action: Action) -> Result {
///         if let Action::Datagram { bytes, .. } = action {
///             turn.send(bytes);
///         }
///         Ok(())
///     }
/// }
///
/// let mut host = TestHost::<Old>::new("{}").unwrap();
/// let (ann, bob) = (host.open(), host.open_by("telnet"));
///
/// // Input is cut as the endpoint has it. Time passes when the test says so.
/// host.send(ann, "bo");
/// host.send(ann, "il\n");
/// host.advance(Duration::from_secs(299));
/// host.expect(ann, "");
/// host.advance(Duration::from_secs(1));
/// host.expect(ann, "1 eggs\n");
///
/// // A job runs at once, or waits until the test ends it.
/// assert_eq!(host.line(bob, "buy"), "Done([98, 111, 117, 103, 104, 116])\n");
/// host.hold_jobs();
/// host.line(bob, "buy");
/// let (number, name) = host.jobs().remove(0);
/// assert_eq!(name, "market");
/// host.end_job(number, Err("closed on Sundays"));
/// assert_eq!(host.output(bob), "Failed(\"closed on Sundays\")\n");
///
/// // A turn that fails changes nothing. `turn` panics then.
/// assert_eq!(host.try_turn(bob, Action::Message(b"dance")).unwrap_err(), "no such command");
/// host.turn(bob, Action::Timer("done"));
/// assert_eq!((host.state(ann), host.output(bob).as_str()), (1, "1 eggs\n"));
///
/// let from = "127.0.0.1:9".parse().unwrap();
/// assert_eq!(host.datagram(from, "ping"), [(from, b"ping".to_vec())]);
/// host.hang_up(bob);
/// assert!(host.is_closed(bob) && host.connects().is_empty());
/// assert!(host.transcript().contains("2 hangs up"));
///
/// // Another build: sessions and timers stay.
/// #[derive(Default, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
/// struct Eggs {
///     boiled: u64,
/// }
/// struct New;
/// #[handler]
/// impl Handler for New {
///     const SERVICE: &'static str = "eggs";
///     const STATE_VERSION: u32 = 2;
///     type State = Eggs;
///     fn migrations() -> Migrations {
///         Migrations::none().from(1, |boiled: u64| Ok(Eggs { boiled }))
///     }
///     fn timer(&self, turn: &mut Turn<Eggs>, _: &str) -> Result {
///         turn.state.boiled += 1;
///         Ok(())
///     }
/// }
/// host.line(ann, "boil");
/// let mut host = host.swap::<New>("{}").unwrap();
/// host.advance(Duration::from_secs(300));
/// assert_eq!(host.state(ann).boiled, 2);
/// let two = TestHost::<New>::convert(1, 2, &7.into()).unwrap();
/// assert_eq!(two["boiled"], 7);
/// ```
pub struct TestHost<H: Handler> {
    /// Service that is tested.
    pub(super) service: Service<H>,
    /// Services beside it: number 1 is the first.
    pub(super) others: Vec<Box<dyn Runs>>,
    /// State of the host after the last turn that succeeded.
    pub(super) shared: Shared,
    /// Number of the last session.
    pub(super) opened: u64,
    /// Number of the build.
    pub(super) generation: u64,
    /// Transcript: a line for each thing that has happened.
    pub(super) told: Vec<String>,
    /// Line of a conversation that is played, for failures; else empty.
    pub(super) scene: String,
    /// Names of peers in a conversation.
    pub(super) named: BTreeMap<u64, String>,
    /// Whether a process dies before each commit: turns run twice, each in a fresh instance.
    pub(super) dies: bool,
    /// Whether jobs wait for [`TestHost::end_job`], and those that do: owner, number, name, input.
    pub(super) holds_jobs: bool,
    pub(super) jobs: Vec<(u64, u64, String, Vec<u8>)>,
}

impl<H: Handler> TestHost<H> {
    /// Builds the service from its configuration, JSON.
    pub fn new(config: &str) -> Result<TestHost<H>, String> {
        Ok(TestHost::of(Service::new(config)?, Shared::default()))
    }

    /// Host of a service.
    fn of(service: Service<H>, shared: Shared) -> TestHost<H> {
        TestHost {
            service,
            others: Vec::new(),
            shared,
            opened: 0,
            generation: 1,
            told: Vec::new(),
            scene: String::new(),
            named: BTreeMap::new(),
            dies: false,
            holds_jobs: false,
            jobs: Vec::new(),
        }
    }

    /// Adds another service, with its settings, JSON: tables, names, topics and notes are shared,
    /// as between services of one library. Its sessions open by its name ([`TestHost::open_by`]).
    /// Turns of the service itself are not played for it.
    pub fn with<Other: Handler>(mut self, config: &str) -> Result<TestHost<H>, String> {
        self.others.push(Box::new(Service::<Other>::new(config)?));
        Ok(self)
    }

    /// Swaps the build for another one, with its settings as JSON: sessions, tables, timers and
    /// topics stay. As in a host, each state is read by the new build first; if one can't be, the
    /// build is refused, and the old one is lost with the test.
    ///
    /// The two builds are two types in a test. A type with the old state's shape plays the old one.
    pub fn swap<New: Handler>(mut self, config: &str) -> Result<TestHost<New>, String> {
        let service = Service::<New>::new(config)?;
        for (id, peer) in self.shared.sessions.iter().filter(|(_, peer)| peer.service == 0) {
            if let Some((version, bytes)) = &peer.state {
                let converted = convert::<New>(0, *version, New::STATE_VERSION, bytes);
                converted.map_err(|e| format!("the state of session {id}: {e}"))?;
            }
        }
        self.tell(format!("-- build {} serves", self.generation + 1));
        let TestHost {
            others, shared, opened, generation, told, scene, named, dies, holds_jobs, jobs, ..
        } = self;
        let generation = generation + 1;
        Ok(TestHost {
            service,
            others,
            shared,
            opened,
            generation,
            told,
            scene,
            named,
            dies,
            holds_jobs,
            jobs,
        })
    }

    /// Converts a state from one version to another, as the host does in a rehearsal and when it
    /// rolls back.
    pub fn convert(from: u32, to: u32, state: &serde_json::Value) -> Result<serde_json::Value, String> {
        let packed = greenroom_state::json::from_json(state)?;
        greenroom_state::json::to_json(&convert::<H>(0, from, to, &packed)?)
    }

    /// Runs one datagram of the service itself, and returns the datagrams sent since the last look,
    /// with their addresses. Panics if the turn fails.
    #[track_caller]
    pub fn datagram(&mut self, from: SocketAddr, bytes: impl AsRef<[u8]>) -> Vec<(SocketAddr, Vec<u8>)> {
        self.turn(SERVICE, Action::Datagram { from, bytes: bytes.as_ref() });
        std::mem::take(&mut self.shared.datagrams)
    }

    /// Lets time go by on both clocks. Fires the timers that are due meanwhile, deletes the
    /// entries that are over, and tells sessions of the silence of their peers, in their order.
    /// Panics if such a turn fails.
    #[track_caller]
    pub fn advance(&mut self, by: Duration) {
        self.tell(format!("-- {by:?} pass"));
        let until = self.shared.now + by;
        loop {
            let timer = self.next_timer().filter(|(_, at)| *at <= until);
            let over = self.next_deadline().filter(|(_, at)| *at <= until);
            let silent = self.next_silent().filter(|(_, at)| *at <= until);
            let times = [timer.as_ref().map(|t| t.1), over.as_ref().map(|o| o.1), silent.map(|s| s.1)];
            let Some(at) = times.into_iter().flatten().min() else { break };
            self.shared.now = self.shared.now.max(at);
            match (timer, over, silent) {
                (_, Some((entry, over)), _) if over == at => self.expire(&entry),
                (Some(((owner, name), timer)), ..) if timer == at => {
                    self.shared.timers.remove(&(owner, name.clone()));
                    self.turn(owner, Action::Timer(&name));
                }
                (_, _, Some((session, _))) => {
                    let peer = self.shared.sessions.get_mut(&session);
                    if let Some(silence) = peer.and_then(|p| p.silence.as_mut()) {
                        silence.at = None;
                    }
                    self.turn(session, Action::Idle);
                }
                _ => {}
            }
        }
        self.shared.now = until;
    }

    /// Deletes an entry that is over, and tells the service if it wants to know.
    #[track_caller]
    fn expire(&mut self, entry: &(String, Vec<u8>)) {
        self.shared.deadlines.remove(entry);
        self.shared.tables.remove(entry);
        let (table, key) = entry;
        if H::tables().owned.iter().any(|owned| owned.name == table && owned.hears_of_expiry) {
            self.turn(SERVICE, Action::Expired { table, key });
        }
    }

    /// Next entry that is over, with its time on the clock of timers.
    fn next_deadline(&self) -> Option<((String, Vec<u8>), Duration)> {
        let first = self.shared.deadlines.iter().min_by_key(|(_, at)| **at);
        first.map(|(entry, at)| (entry.clone(), at.saturating_sub(EPOCH)))
    }

    /// Next session to be told of its peer's silence, with the time.
    fn next_silent(&self) -> Option<(u64, Duration)> {
        let open = self.shared.sessions.iter().filter(|(_, peer)| !peer.closed);
        let asked = open.filter_map(|(id, peer)| Some((*id, peer.silence?.at?)));
        asked.min_by_key(|(_, at)| *at)
    }

    /// Next timer, with its time.
    fn next_timer(&self) -> Option<((u64, String), Duration)> {
        let first = self.shared.timers.iter().min_by_key(|(_, at)| **at);
        first.map(|(key, at)| (key.clone(), *at))
    }

    /// Connections that turns asked for so far: session, service, address and context. The number
    /// of each is its place, from 1; report its outcome with [`TestHost::turn`]. Over TLS, the
    /// server's name stands behind the address: `127.0.0.1:1 as example.org`.
    pub fn connects(&self) -> &[(u64, String, String, Vec<u8>)] {
        &self.shared.connects
    }

    /// Whether the handler closed a session.
    pub fn is_closed(&self, session: u64) -> bool {
        self.shared.sessions.get(&session).is_none_or(|p| p.closed)
    }

    /// State of a session.
    pub fn state(&self, session: u64) -> H::State {
        let stored = self.shared.sessions.get(&session).and_then(|p| p.state.as_ref());
        stored.map_or_else(H::State::default, |(version, bytes)| {
            let bytes = convert::<H>(0, *version, H::STATE_VERSION, bytes);
            let read = bytes.and_then(|b| rmp_serde::from_slice(&b).map_err(|e| e.to_string()));
            read.expect("the service reads the state that it wrote")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Bytes, Fault, NoConfig, Table, Tables, Turn};

    /// Guests by name, and how many have gone.
    const GUESTS: Table<Bytes> = Table::new("guests").hears_of_expiry();
    const GONE: Table<u64> = Table::new("gone");

    struct Door;

    impl Handler for Door {
        const SERVICE: &'static str = "door";
        const PORT: u16 = 0;
        type State = ();
        type Config = NoConfig;

        fn new(_: NoConfig) -> Result<Self, String> {
            Ok(Door)
        }

        fn tables() -> Tables {
            Tables::none().own(&GUESTS)
        }

        fn handle(&self, turn: &mut Turn<'_, ()>, action: Action<'_>) -> Result<(), Fault> {
            let Action::Message(line) = action else { return Ok(()) };
            match line.split_at(1) {
                (b"+", name) => {
                    let until = turn.wall() + Duration::from_secs(10);
                    GUESTS.put_bytes_until(turn, name, name, until)?;
                }
                (b"=", name) => GUESTS.put_bytes(turn, name, name)?,
                (_, prefix) => GUESTS.drop_prefix(turn, prefix),
            }
            let mut here = GUESTS.keys(turn, b"", usize::MAX);
            let back: Vec<_> = GUESTS.scan_back(turn, b"", 9)?.into_iter().map(|(key, _)| key).collect();
            here.reverse();
            assert_eq!(here, back, "the same in both directions");
            for key in &here {
                let same = GUESTS.get_with(turn, key, |bytes| bytes == key)?;
                assert_eq!(same, Some(true), "the bytes that were put");
            }
            turn.send_line(here.join(&b' '));
            Ok(())
        }

        fn handle_service(&self, turn: &mut Turn<'_, ()>, action: Action<'_>) -> Result<(), Fault> {
            if let Action::Expired { table: "guests", key } = action {
                let n = GONE.get(turn, key)?.unwrap_or(0);
                GONE.put(turn, key, &(n + 1))?;
            }
            Ok(())
        }
    }

    #[test]
    fn entries_are_over_in_time_and_dropped_by_prefix() {
        let mut host = TestHost::<Door>::new("{}").expect("a service");
        let peer = host.open();
        for (line, here) in
            [("+ann", "ann\n"), ("+ada", "ann ada\n"), ("+bob", "bob ann ada\n"), ("=ada", "bob ann ada\n")]
        {
            assert_eq!(host.line(peer, line), here);
        }
        host.advance(Duration::from_secs(11));
        assert_eq!(host.line(peer, "=eve"), "eve ada\n");
        assert_eq!(host.shared.tables.keys().filter(|(table, _)| table == "gone").count(), 2, "ann and bob");
        assert_eq!(host.line(peer, "-a"), "eve\n");
    }
}
