//! Sessions over TLS in a core that dies at any moment: no byte is lost, and no two texts are
//! sealed under one key and number.
//!
//! The ciphers are toys, which note what they seal. A death before a commit undoes the notes of its
//! pass: nobody has seen those records.

use crate::core::Core;
use crate::ids::Slot;
use crate::input::{Ciphers, Input, TlsBegin};
use crate::limits::host::Limits;
use crate::recovery::reconcile::StreamCounts;
use crate::store::memory::Plain;
use crate::store::records::Store;
use crate::test_support::{Stub, build, offer, serve};
use crate::tls::protection::{Open, Protection, Seal};
use crate::tls::stage::{TlsEnd, TlsStage};
use crate::tls::state::Direction;
use crate::tls::toy::{Toy, pair};
use crate::turn::code::Code;
use crate::turn::staging::Staging;
use greenroom_state::abi::{Action, action};
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

const SLOT: Slot = Slot(0);

/// Texts by key and number: of this pass, and of all that were committed.
#[derive(Default)]
struct Notes {
    pass: HashMap<([u8; 32], u64), Vec<u8>>,
    committed: HashMap<([u8; 32], u64), Vec<u8>>,
}

impl Notes {
    /// Counts the records of a pass as seen.
    fn commit(&mut self) {
        for (at, text) in self.pass.drain() {
            assert_eq!(self.committed.insert(at, text), None, "number {} is used twice", at.1);
        }
    }
}

/// Toy ciphers that note what they seal.
struct Watched(Arc<Mutex<Notes>>);

struct WatchedSealer(Box<dyn Seal>, [u8; 32], Arc<Mutex<Notes>>);

impl Protection for Watched {
    fn sealer(&self, suite: u16, keys: &Direction) -> Option<Box<dyn Seal>> {
        Some(Box::new(WatchedSealer(Toy.sealer(suite, keys)?, keys.key, self.0.clone())))
    }

    fn opener(&self, suite: u16, keys: &Direction) -> Option<Box<dyn Open>> {
        Toy.opener(suite, keys)
    }

    fn update(&self, suite: u16, keys: &mut Direction) -> bool {
        Toy.update(suite, keys)
    }

    fn records_max(&self, suite: u16) -> u64 {
        Toy.records_max(suite)
    }
}

impl Seal for WatchedSealer {
    fn seal(&mut self, kind: u8, content: &[u8], number: u64, out: &mut Vec<u8>) -> bool {
        let text = [&[kind], content].concat();
        let before = self.2.lock().unwrap().pass.insert((self.1, number), text);
        assert_eq!(before, None, "number {number} is used twice in a pass");
        self.0.seal(kind, content, number, out)
    }
}

/// Code that answers each line with its length, and with a number that is another one each time: a
/// turn that runs again says something else.
fn code() -> impl Code {
    static ANSWERS: AtomicU64 = AtomicU64::new(0);
    Stub(|a: &Action<'_>, staging: &mut Staging<'_>| {
        if a.kind == action::MESSAGE {
            let n = ANSWERS.fetch_add(1, Ordering::Relaxed);
            staging.send(format!("{} {n}\n", a.data.len).as_bytes());
        }
        Ok(())
    })
}

/// Host with one session over TLS, its peer, and the kernel between them.
struct World {
    core: Core,
    peer: TlsStage,
    notes: Arc<Mutex<Notes>>,
    limits: Limits,
    /// All bytes that the peer has sent.
    wire: Vec<u8>,
    /// Bytes that the kernel took from the host.
    sent: usize,
    /// Bytes of those that were not opened.
    behind: Vec<u8>,
    /// Lengths of the lines that the peer has sent.
    said: Vec<usize>,
    /// Answers that it has opened.
    heard: Vec<u8>,
}

impl World {
    fn new(limits: Limits) -> World {
        let notes = Arc::<Mutex<Notes>>::default();
        let (mut core, service) = serve(limits.clone(), code());
        let (state, peer) = pair();
        core.handle(Input::Ciphers(Ciphers(Box::new(Watched(notes.clone())))));
        core.handle(Input::PassBegins { now_ns: 1 });
        let peer_addr = "127.0.0.1:9".parse().unwrap();
        let begin = TlsBegin { state, facts: Vec::new() };
        let tls = Some(&begin);
        core.handle(Input::Opened { slot: SLOT, id: 1, service, kind: "", peer: peer_addr, at_ms: 0, tls });
        core.handle(Input::Commit);
        let peer = TlsStage::new(peer);
        let (wire, behind, said, heard) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        World { core, peer, notes, limits, wire, sent: 0, behind, said, heard }
    }

    /// Replaces the process by a successor, which has the records of the last commit.
    fn die(&mut self) {
        self.notes.lock().unwrap().pass.clear();
        let image = Plain::from(self.core.store().image().to_vec());
        let found = Store::recover(Box::new(image), self.limits.store_bytes_max).unwrap();
        let successor = Core::recover(self.limits.clone(), found, 1);
        assert_eq!((successor.lost.len(), successor.survivors.len()), (0, 1), "{:?}", successor.lost);
        self.core = successor.core;
        self.core.handle(Input::Ciphers(Ciphers(Box::new(Watched(self.notes.clone())))));
        self.core.adopt(&build(1), vec![(offer(), Box::new(code()))]);
        let read = self.core.sessions().get(SLOT).unwrap().bytes_in;
        let counts = StreamCounts::Kernel { read, sent: Some(self.sent as u64) };
        assert_eq!(self.core.reconcile(SLOT, counts), Ok(0));
    }

    /// Runs a pass that reads so many bytes at most. Dies before the commit if `dies`.
    fn pass(&mut self, bytes: usize, dies: bool) {
        self.core.handle(Input::PassBegins { now_ns: 2 });
        let at = self.core.sessions().get(SLOT).unwrap().bytes_in as usize;
        let end = self.wire.len().min(at + bytes);
        if end > at {
            let read = self.wire[at..end].to_vec();
            self.core.handle(Input::Received { slot: SLOT, bytes: &read });
        }
        self.core.handle(Input::Cascade);
        if dies {
            return self.die();
        }
        self.core.handle(Input::Commit);
        self.notes.lock().unwrap().commit();
    }

    /// Lets the kernel take so many bytes of output, which the peer opens.
    fn send(&mut self, bytes: usize) {
        let Some(output) = self.core.output(SLOT, |pieces| pieces.concat()) else { return };
        let taken = &output[..output.len().min(bytes)];
        self.sent += taken.len();
        self.behind.extend_from_slice(taken);
        let (mut out, mut scratch) = (Vec::new(), Vec::new());
        let into = (&mut self.heard, &mut out);
        let opened = self.peer.open(&Toy, &self.behind, 1 << 20, into, &mut scratch);
        assert_eq!(opened.end, None);
        self.behind.drain(..opened.consumed);
        let (slot, bytes) = (SLOT, taken.len());
        self.core.handle(Input::Sent { slot, bytes, blocked: false });
        assert!(self.said.starts_with(&self.answered()));
    }

    /// Lengths that the host has told.
    fn answered(&self) -> Vec<usize> {
        let heard = std::str::from_utf8(&self.heard).unwrap();
        let whole = heard.rsplit_once('\n').map_or("", |(whole, _)| whole);
        whole.lines().map(|line| line.split_once(' ').unwrap().0.parse().unwrap()).collect()
    }
}

#[test]
fn deaths_at_any_moment_lose_no_byte_and_use_no_number_twice() {
    for seed in 0..12 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut world = World::new(Limits { tls_records_max: 9, ..Limits::default() });
        for _ in 0..120 {
            let lens: Vec<_> = (0..rng.usize(0..6)).map(|_| rng.usize(1..9)).collect();
            let lines: String = lens.iter().map(|len| "x".repeat(*len) + "\n").collect();
            world.said.extend(lens);
            let World { peer, wire, .. } = &mut world;
            peer.seal(&Toy, lines.as_bytes(), 5, wire).unwrap();
            for _ in 0..rng.usize(0..3) {
                world.pass(rng.usize(1..90), rng.u8(..4) == 0);
                world.send(rng.usize(0..120));
                if rng.u8(..4) == 0 {
                    world.die();
                }
            }
        }
        while world.answered().len() < world.said.len() {
            world.pass(500, false);
            world.send(usize::MAX);
        }
        assert_eq!(world.answered(), world.said);
        let state = &world.peer.state;
        assert!(state.peer_updates > 3 && state.host_updates > 3, "keys changed on both sides");
    }
}

/// The end that a peer tells, and one that it does not.
#[test]
fn an_end_is_told_apart_from_a_cut() {
    for tells in [true, false] {
        let mut world = World::new(Limits::default());
        if tells {
            let World { peer, wire, .. } = &mut world;
            peer.close(&Toy, 99, wire).unwrap();
            world.pass(usize::MAX >> 1, false);
        } else {
            world.core.handle(Input::PeerDone { slot: SLOT });
            world.core.handle(Input::Commit);
        }
        let mut commands = Vec::new();
        world.core.take_commands(&mut commands);
        let cut = commands.iter().any(|c| format!("{c:?}").contains("has cut the stream"));
        assert_eq!(cut, !tells, "{commands:?}");
        // The host tells its own end, as the last of its records.
        let output = world.core.output(SLOT, |pieces| pieces.concat()).unwrap();
        let (mut content, mut out) = (Vec::new(), Vec::new());
        let opened = world.peer.open(&Toy, &output, 99, (&mut content, &mut out), &mut Vec::new());
        assert_eq!(opened.end, Some(TlsEnd::Closed));
    }
}
