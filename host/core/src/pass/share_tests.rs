//! Share of a pass: a flood of messages has its share of each pass and loses nothing.
//!
//! The tests drive the core as the shell does, with a kernel that takes all output at once.

use crate::ids::Slot;
use crate::input::Input;
use crate::limits::host::Limits;
use crate::session::life::Life;
use crate::test_support::{Stub, open, send, serve};
use crate::turn::staging::Staging;
use greenroom_state::abi::Action;

/// Code that answers each action, the opened and the closed one too, with one line of two
/// bytes.
fn echo(_: &Action<'_>, staging: &mut Staging<'_>) -> Result<(), String> {
    staging.send(b"x\n");
    Ok(())
}

/// A share in each pass, no more and no less, and every line before the peer's end. The end may
/// be read in the very pass in which answers were sent.
#[test]
fn a_flood_has_its_share_of_each_pass_and_loses_nothing() {
    for share in [1, 64, 100] {
        let limits = Limits { turns_at_once_max: share, ..Limits::default() };
        let (mut core, service) = serve(limits, Stub(echo));
        let slot = Slot(0);
        core.handle(Input::PassBegins { now_ns: 1 });
        open(&mut core, service, 0..1);
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
