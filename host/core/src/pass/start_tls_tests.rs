//! Start of TLS on a stream in use, in a core that dies at any moment: no byte behind the mark goes
//! out as it is, and none is lost.

use crate::command::Command;
use crate::core::Core;
use crate::ids::Slot;
use crate::input::{Ciphers, Input, TlsBegin};
use crate::limits::host::Limits;
use crate::recovery::reconcile::StreamCounts;
use crate::store::memory::Plain;
use crate::store::records::Store;
use crate::test_support::{Stub, build, offer, open, serve};
use crate::tls::stage::TlsStage;
use crate::tls::toy::{Toy, pair};
use crate::turn::code::Code;
use crate::turn::effect::Broadcast;
use crate::turn::staging::Staging;
use greenroom_state::abi::{Action, action, status};

/// Session that starts TLS.
const ONE: Slot = Slot(0);
/// Session whose lines are heard by the other one.
const OTHER: Slot = Slot(1);
/// Bytes of a handshake that the host reads, and that it writes.
const HANDSHAKE: (u64, u64) = (300, 900);

/// Code that starts TLS at a line of three bytes, and tells everybody the length of any other one.
fn code() -> impl Code {
    Stub(|a: &Action<'_>, staging: &mut Staging<'_>| {
        match (a.kind, a.data.len) {
            (action::OPENED, _) => _ = staging.subscribe(b"all"),
            (action::TLS_STARTED, _) => _ = staging.send(b"secured\n"),
            (action::MESSAGE, 3) => {
                staging.send(b"go on\n");
                assert_eq!(staging.start_tls(""), status::OK);
                staging.send(b"behind\n");
            }
            (action::MESSAGE, 8) => (0..9).for_each(|_| _ = staging.note(1, b"")),
            (action::MESSAGE, len) => {
                _ = staging.broadcast(b"all", len.to_string().as_bytes(), Broadcast::LINE)
            }
            _ => {}
        }
        Ok(())
    })
}

/// Host with both sessions, and the kernel's counts of the first.
struct World {
    core: Core,
    /// Bytes that the kernel gave out and took, of each session.
    read: [u64; 2],
    sent: [u64; 2],
    /// Bytes that went out to the first one.
    out: Vec<u8>,
    /// The core has asked for the handshake, as committed.
    asked: bool,
    /// Lengths of what the other one has said.
    said: Vec<String>,
    /// The handshake is done, and is to be told again after a death.
    shaken: bool,
}

impl World {
    fn new(limits: Limits) -> World {
        let (mut core, service) = serve(limits, code());
        core.handle(Input::Ciphers(Ciphers(Box::new(Toy))));
        core.handle(Input::PassBegins { now_ns: 1 });
        open(&mut core, service, 0..2);
        core.handle(Input::Commit);
        let (read, sent, out, said) = ([0; 2], [0; 2], Vec::new(), Vec::new());
        World { core, read, sent, out, asked: false, said, shaken: false }
    }

    /// Runs a pass with what a session says. A pass that dies loses it: the kernel's count says
    /// that it was not read.
    fn pass(&mut self, said: Option<(Slot, &[u8])>, dies: bool) {
        self.core.handle(Input::PassBegins { now_ns: 2 });
        let mut read = self.read;
        if let Some((slot, bytes)) = said {
            self.core.handle(Input::Received { slot, bytes });
            read[slot.0 as usize] += bytes.len() as u64;
        }
        if self.asked && self.shaken && self.core.handshake_of(ONE).is_some() {
            self.core.handle(Input::HandshakeEnded { slot: ONE, outcome: Ok(&begin()) });
        }
        self.core.handle(Input::Cascade);
        if dies {
            return self.die();
        }
        self.core.handle(Input::Commit);
        self.read = read;
        let mut commands = Vec::new();
        self.core.take_commands(&mut commands);
        self.asked |= commands.contains(&Command::StartTls { slot: ONE, id: 1 });
    }

    /// Lets the kernel take so many bytes of a session's output.
    fn send(&mut self, slot: Slot, bytes: usize) {
        let Some(output) = self.core.output(slot, |pieces| pieces.concat()) else { return };
        let taken = &output[..output.len().min(bytes)];
        self.sent[slot.0 as usize] += taken.len() as u64;
        if slot == ONE {
            self.out.extend_from_slice(taken);
        }
        self.core.handle(Input::Sent { slot, bytes: taken.len(), blocked: false });
    }

    /// The handshake runs in the kernel's counts, once the core has asked for it.
    fn shake_hands(&mut self) {
        if self.asked && !std::mem::replace(&mut self.shaken, true) {
            self.read[0] += HANDSHAKE.0;
            self.sent[0] += HANDSHAKE.1;
        }
    }

    /// Replaces the process by a successor.
    fn die(&mut self) {
        let image = Plain::from(self.core.store().image().to_vec());
        let found = Store::recover(Box::new(image), Limits::default().store_bytes_max).unwrap();
        let successor = Core::recover(Limits::default(), found, 1);
        assert_eq!((successor.lost.len(), successor.survivors.len()), (0, 2), "{:?}", successor.lost);
        self.core = successor.core;
        self.core.handle(Input::Ciphers(Ciphers(Box::new(Toy))));
        self.core.adopt(&build(1), vec![(offer(), Box::new(code()))]);
        for slot in [ONE, OTHER] {
            let at = slot.0 as usize;
            let counts = StreamCounts::Kernel { read: self.read[at], sent: Some(self.sent[at]) };
            assert_eq!(self.core.reconcile(slot, counts), Ok(0));
        }
    }
}

/// Outcome of the handshake.
fn begin() -> TlsBegin {
    let (mut state, _) = pair();
    (state.read, state.written) = HANDSHAKE;
    TlsBegin { state, facts: Vec::new() }
}

#[test]
fn nothing_behind_the_mark_goes_out_as_it_is_and_nothing_is_lost() {
    let mut kept = 0;
    for seed in 0..60 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut world = World::new(Limits::default());
        world.pass(Some((ONE, b"tls\n\x16\x03")), false);
        for _ in 0..40 {
            let len = [1, 2, 4, 5, 6, 7][rng.usize(..6)];
            let line = "x".repeat(len) + "\n";
            let (says, dies) = (rng.bool(), rng.u8(..4) == 0);
            world.pass(says.then_some((OTHER, line.as_bytes())), dies);
            if says && !dies {
                world.said.push(len.to_string());
            }
            world.send(ONE, rng.usize(0..9));
            world.send(OTHER, 999);
            if rng.u8(..4) == 0 {
                world.die();
            }
            if let Some(due) = world.core.handshake_of(ONE) {
                assert_eq!((due.service, due.server_name, due.input), ("s", "", &b"\x16\x03"[..]));
                assert!(b"go on\n".starts_with(&world.out), "{:?}", String::from_utf8_lossy(&world.out));
                kept += usize::from(!world.said.is_empty());
            }
            if rng.u8(..6) == 0 {
                world.shake_hands();
            }
        }
        while !world.shaken || world.core.handshake_of(ONE).is_some() {
            world.send(ONE, 99);
            world.pass(None, false);
            world.shake_hands();
        }
        world.pass(None, false);
        world.send(ONE, usize::MAX);
        let sealed = world.out.strip_prefix(b"go on\n").expect("the answer before the handshake");
        let (_, peer) = pair();
        let (mut heard, mut scratch) = (Vec::new(), Vec::new());
        let opened = TlsStage::new(peer).open(&Toy, sealed, 99, (&mut heard, &mut Vec::new()), &mut scratch);
        assert_eq!((opened.consumed, opened.end), (sealed.len(), None), "seed {seed}");
        let heard = String::from_utf8(heard).unwrap();
        let (first, rest) = heard.split_once('\n').unwrap();
        let lines: Vec<_> = rest.lines().filter(|line| *line != "secured").collect();
        assert_eq!(
            (first, lines),
            ("behind", world.said.iter().map(String::as_str).collect()),
            "seed {seed}"
        );
        let s = world.core.sessions().get(ONE).unwrap();
        // What was kept before is no frame of the stream.
        assert_eq!((s.bytes_in, s.over_tls(), s.frame_ns), (6 + HANDSHAKE.0, true, 0));
    }
    assert!(kept > 100, "output was kept behind marks");
}

/// A handshake that fails, and ends of all kinds in its middle: the session is gone without a word.
#[test]
fn a_session_that_ends_before_its_handshake_is_done_says_nothing() {
    for end in 0..3 {
        let mut world = World::new(Limits::default());
        world.pass(Some((ONE, b"tls\n")), false);
        world.send(ONE, 99);
        world.pass(None, false);
        assert!(world.asked);
        match end {
            0 => world.core.handle(Input::HandshakeEnded { slot: ONE, outcome: Err("as asked") }),
            1 => world.core.close(1).unwrap(),
            _ => world.core.handle(Input::Stop),
        }
        world.pass(None, false);
        assert!(world.core.sessions().get(ONE).is_none());
        assert_eq!(world.core.output(ONE, |pieces| pieces.concat()), None);
        world.core.handle(Input::HandshakeEnded { slot: ONE, outcome: Ok(&begin()) });
    }
}

/// Notes to a session in its handshake go over its limit, and its word of TLS comes all the same.
#[test]
fn the_start_of_tls_is_told_beside_too_many_notes() {
    let mut world = World::new(Limits { actions_pending_max: 4, ..Limits::default() });
    world.pass(Some((ONE, b"tls\n")), false);
    world.send(ONE, 99);
    world.pass(Some((OTHER, b"12345678\n")), false);
    world.shake_hands();
    world.pass(None, false);
    world.pass(None, false);
    world.send(ONE, usize::MAX);
    let (_, peer) = pair();
    let (mut heard, sealed) = (Vec::new(), &world.out[b"go on\n".len()..]);
    TlsStage::new(peer).open(&Toy, sealed, 99, (&mut heard, &mut Vec::new()), &mut Vec::new());
    assert_eq!(heard, b"behind\nsecured\n");
}

/// An outcome that never comes: the session has an end all the same, and none before its time.
#[test]
fn a_handshake_without_an_outcome_has_an_end() {
    let limits = Limits { handshake_ms: 100, ..Limits::default() };
    let mut world = World::new(limits);
    world.pass(Some((ONE, b"tls\n")), false);
    world.send(ONE, 99);
    world.pass(None, false);
    for (ms, lives) in [(9_000, true), (10_200, true), (10_400, false)] {
        // A deadline is judged by the time of the pass before.
        for _ in 0..2 {
            world.core.handle(Input::PassBegins { now_ns: ms * 1_000_000 });
            world.core.handle(Input::Commit);
        }
        assert_eq!(world.core.sessions().get(ONE).is_some(), lives, "after {ms} ms");
    }
}

/// Streams that can't become one of TLS: the call says so, and nothing changes.
#[test]
fn a_stream_that_is_no_plain_one_is_refused() {
    let refused = |a: &Action<'_>, staging: &mut Staging<'_>| {
        if a.kind == action::OPENED {
            // The host accepted the connection, so it is the server.
            assert_eq!(staging.start_tls("a.example"), status::INVALID);
            let refused = staging.start_tls("") == status::INVALID;
            staging.send(if refused { b"refused\n" } else { b"taken\n" });
        }
        Ok(())
    };
    for (peer, says) in [
        ("127.0.0.1:9", "taken\n"),
        ("1.2.3.4:5 via 10.0.0.1:5000", "taken\n"),
        ("unix:pid=7,uid=8,gid=9", "refused\n"),
    ] {
        let (mut core, service) = serve(Limits::default(), Stub(refused));
        core.handle(Input::PassBegins { now_ns: 1 });
        let peer = peer.parse().unwrap();
        core.handle(Input::Opened { slot: ONE, id: 1, service, kind: "", peer, at_ms: 0, tls: None });
        core.handle(Input::Commit);
        let kept = core.sessions().get(ONE).unwrap().unsent();
        assert_eq!(kept as usize, says.len(), "{peer}", peer = core.sessions().get(ONE).unwrap().peer);
    }
}
