//! Share of a pass: a flood of messages has its share of each pass and loses nothing.
//!
//! The tests drive the core as the shell does, with a kernel that takes all output at once.

use crate::core::Core;
use crate::framing::Framing;
use crate::ids::Slot;
use crate::input::Input;
use crate::limits::host::Limits;
use crate::service::offer::{Build, Offer};
use crate::session::life::Life;
use crate::turn::code::{Batch, Code};
use crate::turn::staging::Staging;
use greenroom_state::compatibility::StateShape;

/// Code that answers each action, the opened and the closed one too, with one line of two
/// bytes.
struct Echo;

impl Code for Echo {
    fn run(&self, batch: &Batch<'_>, staging: &mut Staging<'_>) -> u32 {
        for _ in batch.actions {
            staging.send(b"x\n");
            if !staging.turn_ok() {
                break;
            }
        }
        0
    }
}

/// Host with one service of lines, in which a session may run `share` messages in a pass.
fn core(share: usize) -> Core {
    let mut core = Core::new(Limits { turns_at_once_max: share, ..Limits::default() });
    let framing = Framing::Lines { bytes_max: 9 };
    let shape = StateShape { version: 1, ..StateShape::default() };
    let offer = Offer { name: "s".into(), port: 0, dials: false, framing, shape, tables: Vec::new() };
    let build = Build { library: "l".into(), generation: 1, hash: String::new() };
    core.adopt(&build, vec![(offer, Box::new(Echo))]);
    core
}

/// Bytes sent in all, as the kernel takes everything.
fn send(core: &mut Core) -> usize {
    let (mut sendable, mut sent) = (Vec::new(), 0);
    core.take_sendable(&mut sendable);
    for slot in sendable {
        while let Some(bytes) = core.output(slot, |pieces| pieces.iter().map(|p| p.len()).sum::<usize>()) {
            core.handle(Input::Sent { slot, bytes, blocked: false });
            sent += bytes;
        }
    }
    sent
}

/// A share in each pass, no more and no less, and every line before the peer's end. The end may
/// be read in the very pass in which answers were sent.
#[test]
fn a_flood_has_its_share_of_each_pass_and_loses_nothing() {
    for share in [1, 64, 100] {
        let mut core = core(share);
        let (slot, service) = (Slot(0), core.service_named("s").expect("it was adopted"));
        core.handle(Input::PassBegins { now_ns: 1 });
        let peer = "127.0.0.1:9".parse().expect("an address");
        core.handle(Input::Opened { slot, id: 1, service, peer, at_ms: 0 });
        core.handle(Input::Received { slot, bytes: "y\n".repeat(1000).as_bytes() });
        core.handle(Input::Commit);
        let mut answered = send(&mut core) / 2;
        // The opened turn, and a share of the lines.
        assert_eq!(answered, 1 + share);
        core.handle(Input::PeerDone { slot });
        let mut now_ns = 1;
        while core.sessions().get(slot).is_some_and(|s| s.life == Life::Open) {
            now_ns += 1;
            core.handle(Input::PassBegins { now_ns });
            core.handle(Input::Cascade);
            core.handle(Input::Commit);
            let before = answered;
            answered += send(&mut core) / 2;
            // The last pass has the closed turn besides.
            assert!(answered - before <= share + 1, "{} in one pass", answered - before);
            assert!(now_ns < 2000, "it hangs");
        }
        // Opened, a thousand lines, closed.
        assert_eq!(answered, 1002);
    }
}
