//! Terms of a peer: which messages end its session, and when its silence is told.

use crate::core::Core;
use crate::ids::Slot;
use crate::input::Input;
use crate::limits::host::Limits;
use crate::recovery::reconcile::StreamCounts;
use crate::session::life::Life;
use crate::store::memory::Plain;
use crate::store::records::Store;
use crate::test_support::{Stub, build, offer, open, serve};
use crate::turn::code::Code;
use crate::turn::staging::Staging;
use greenroom_state::abi::{Action, action, status};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

const SLOT: Slot = Slot(0);
const MS: u64 = 1_000_000;

/// Words of messages to come, one for each.
type Script = Arc<Mutex<VecDeque<&'static str>>>;

/// Handler of the tests. The turn of a message takes the next word: `bN` bounds messages, `sN` asks
/// for a silence in milliseconds, and `hN` holds the input for as many. Every action is answered.
fn code(script: Script) -> impl Code {
    Stub(move |a: &Action<'_>, s: &mut Staging<'_>| {
        match a.kind {
            action::MESSAGE => {
                let word = script.lock().unwrap().pop_front().unwrap_or("x");
                let n = word[1..].parse().unwrap_or(0);
                let done = match word.as_bytes()[0] {
                    b'b' => s.frame_max(n as u32),
                    b's' => s.idle_after(n * MS),
                    b'h' => s.hold(true) + s.set_timer("g", n * MS, false),
                    _ => status::OK,
                };
                assert_eq!(done, status::OK);
                s.send(b".");
            }
            action::IDLE => _ = s.send(b"idle"),
            action::TIMER => _ = s.hold(false),
            action::CLOSED => _ = s.send(b"closed"),
            _ => {}
        }
        Ok(())
    })
}

/// Core with a session, in passes at times in milliseconds.
struct World {
    core: Core,
    script: Script,
    read: u64,
}

impl World {
    fn new(words: &[&'static str]) -> World {
        let script = Script::new(Mutex::new(words.iter().copied().collect()));
        let (mut core, service) = serve(Limits::default(), code(script.clone()));
        core.handle(Input::PassBegins { now_ns: MS });
        open(&mut core, service, 0..1);
        core.handle(Input::Commit);
        World { core, script, read: 0 }
    }

    /// Runs a pass, and returns what the peer gets.
    fn pass(&mut self, at_ms: u64, input: &str) -> String {
        self.core.handle(Input::PassBegins { now_ns: at_ms * MS });
        if !input.is_empty() {
            self.core.handle(Input::Received { slot: SLOT, bytes: input.as_bytes() });
            self.read += input.len() as u64;
        }
        self.core.handle(Input::Cascade);
        self.core.handle(Input::Commit);
        let mut sendable = Vec::new();
        self.core.take_sendable(&mut sendable);
        let got = self.core.output(SLOT, |pieces| pieces.concat()).unwrap_or_default();
        if !got.is_empty() {
            self.core.handle(Input::Sent { slot: SLOT, bytes: got.len(), blocked: false });
            self.core.handle(Input::Commit);
        }
        String::from_utf8(got).expect("text")
    }

    /// Runs two passes at once: deadlines are judged a pass late.
    fn looks(&mut self, at_ms: u64) -> String {
        self.pass(at_ms, "") + &self.pass(at_ms, "")
    }

    fn is_open(&self) -> bool {
        self.core.sessions().get(SLOT).is_some_and(|s| s.life == Life::Open)
    }

    /// Replaces the process by a successor.
    fn die(&mut self, at_ms: u64) {
        let sent = self.core.sessions().get(SLOT).expect("a session").bytes_sent;
        let image = Plain::from(self.core.store().image().to_vec());
        let found = Store::recover(Box::new(image), Limits::default().store_bytes_max).unwrap();
        let successor = Core::recover(Limits::default(), found, at_ms * MS);
        assert_eq!((successor.lost.len(), successor.survivors.len()), (0, 1), "{:?}", successor.lost);
        self.core = successor.core;
        self.core.adopt(&build(1), vec![(offer(), Box::new(code(self.script.clone())))]);
        let counts = StreamCounts::Kernel { read: self.read, sent: Some(sent) };
        assert_eq!(self.core.reconcile(SLOT, counts), Ok(0));
    }
}

/// A bound holds from the message behind on, whether those came with it or not, and also for what
/// is kept of one. It never lifts the service's own bound of 9 bytes.
#[test]
fn a_bound_holds_from_the_next_message_on() {
    for (words, input, answered) in [
        (&["b3"][..], "-\n123\n1234\n", "..closed"),
        (&["b3", "b7"], "-\n-\n1234567\n", "..."),
        (&["b3", "b0"], "-\n-\n123456789\n", "..."),
        (&["b5", "b99"], "-\n-\n123456789\n1234567890", "...closed"),
        (&["b5"], "-\n123456", ".closed"),
    ] {
        for cut in 0..input.len() {
            let mut world = World::new(words);
            let (a, b) = input.split_at(cut);
            let mut got = world.pass(2, a);
            if cut % 2 == 0 && world.is_open() {
                world.die(3);
            }
            if world.is_open() {
                got += &world.pass(4, b);
            }
            // What is kept of a message is looked at in a pass of its own.
            got += &world.pass(5, "");
            assert_eq!(got, answered, "{input:?} cut at {cut}");
            assert_eq!(world.is_open(), !answered.ends_with("closed"), "{input:?} cut at {cut}");
        }
    }
}

#[test]
fn a_silence_is_told_once_when_it_is_due_and_not_before() {
    let mut world = World::new(&["s50", "x", "h200", "s10", "s0"]);
    assert_eq!(world.pass(10, "\n"), ".");
    assert_eq!(world.looks(59), "");
    // Half a line is a sign of life.
    assert_eq!(world.pass(59, "x"), "");
    assert_eq!(world.looks(108), "");
    assert_eq!(world.core.next_wake_ns(), Some(109 * MS));
    assert_eq!(world.looks(109), "idle");
    assert_eq!(world.looks(1000), "");
    assert_eq!(world.pass(1000, "\n"), ".");
    assert_eq!(world.looks(1049), "");
    assert_eq!(world.looks(1050), "idle");
    // The second line waits, and asks when its turn comes.
    assert_eq!(world.pass(1100, "\n\n"), ".");
    assert_eq!(world.looks(1299), "", "a peer that is held is not silent");
    assert_eq!(world.looks(1300), ".");
    assert_eq!(world.looks(1309), "");
    assert_eq!(world.looks(1310), "idle");
    assert_eq!(world.pass(1400, "\n"), ".");
    assert_eq!(world.looks(9000), "");
}

/// A successor knows when the peer was heard, to 8 ms, and what was told.
#[test]
fn a_silence_goes_on_in_a_successor() {
    for heard_ms in [100, 3_600_000] {
        let mut world = World::new(&["s40"]);
        assert_eq!(world.pass(10, "\n"), ".");
        assert_eq!(world.looks(50), "idle");
        assert_eq!(world.pass(heard_ms, "\n"), ".");
        world.die(heard_ms + 30);
        assert_eq!(world.looks(heard_ms + 39), "");
        assert_eq!(world.looks(heard_ms + 49), "idle");
        world.die(heard_ms + 60);
        assert_eq!(world.looks(heard_ms + 1000), "");
        assert_eq!(world.pass(heard_ms + 1010, "\n"), ".");
        world.die(heard_ms + 1100);
        assert_eq!(world.looks(heard_ms + 1100), "idle");
    }
}

/// Beyond the times that a session's record tells apart: two days, looked at in between.
#[test]
fn a_silence_may_be_longer_than_a_record_tells_apart() {
    let hour = 3_600_000;
    let mut world = World::new(&["s172800000"]);
    assert_eq!(world.pass(10, "\n"), ".");
    for at in (0..48).map(|n| n * hour) {
        assert_eq!(world.looks(at + 20), "");
        if at % (7 * hour) == 0 {
            world.die(at + 30);
        }
    }
    assert_eq!(world.looks(48 * hour), "");
    assert_eq!(world.looks(48 * hour + 20), "idle");
}
